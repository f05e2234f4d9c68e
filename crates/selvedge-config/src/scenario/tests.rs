use selvedge_patterns::time::Duration;
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{
    Arrivals, Discipline, Expectation, FaultKind, OnDisconnect, Scenario, Slowdown,
};

use super::{Files, histogram, read_scenario};
use crate::diagnostic::Style;

const CONFIG: &str = r#"
version: 1
listeners:
  edge: { bind: "127.0.0.1:8080" }
services:
  checkout:
    endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"]
    timeout: { attempt: 500ms, total: 2s }
    retry: { attempts: 3 }
  db:
    endpoints: ["127.0.0.1:9003"]
    timeout: { attempt: 200ms, total: 1s }
routes:
  - match: { path: /checkout/** }
    to: checkout
    limit: { per: "header:x-api-key", rate: 100/s, burst: 200 }
"#;

const SCENARIO: &str = "
config: ./selvedge.yaml
clients:
  - {name: web, rate: 700rps, arrivals: poisson, route: /checkout, deadline: 1s, user_retry: {p: 0.3, after: 2s}}
services:
  checkout: {replicas: 4, slots: 25, service: {lognormal: {p50: 40ms, p99: 220ms}}, queue: {fifo: 500}, on_disconnect: keep, calls: [db, {payments: {prob: 0.4}}]}
  db: {replicas: 1, slots: 60, service: {hdr: ./db.hgrm}, slowdown: {usl: {sigma: 0.02, kappa: 0.0005}}}
  payments: {service: 5ms, queue: {codel: {cap: 100}}, on_disconnect: cancel}
gateways: 3
faults:
  - {at: 60s, for: 8s, service: db, capacity: 25%}
run: {duration: 5m, seeds: 20, bin: 1s}
expect:
  - recovers_within: 30s
  - goodput_after: \">= 99% of baseline\"
  - amplification_max: 1.3
  - trigger_margin: {fault: db, duration: \">= 30s\"}
";

const HGRM: &str = "
       Value     Percentile TotalCount 1/(1-Percentile)

       1.000 0.000000000000          1           1.00
       5.000 0.500000000000        500           2.00
      12.000 0.900000000000        900          10.00
      40.000 0.990000000000        990         100.00
     100.000 1.000000000000       1000
#[Mean    =        8.000, StdDeviation   =        9.000]
";

fn read(text: &str) -> Result<Scenario, String> {
    let files = [("selvedge.yaml", CONFIG), ("db.hgrm", HGRM)];
    read_scenario("s.yaml", text, Files::Embedded(&files), None)
        .map_err(|report| report.render(Style::Plain))
}

#[test]
fn the_example_of_the_manual_reads() {
    let scenario = read(SCENARIO).unwrap_or_else(|report| panic!("{report}"));
    assert!(matches!(scenario.clients[0].arrivals, Arrivals::Poisson { rate } if rate == 700.0));
    assert_eq!(scenario.clients[0].target, 0, "by the route");
    assert!(scenario.clients[0].limit.is_some(), "the limit of the route is simulated");
    let checkout = &scenario.services[0];
    assert_eq!((checkout.replicas, checkout.slots, checkout.queue.cap), (4, 25, Some(500)));
    let policy = checkout.policy.as_ref().unwrap();
    assert_eq!(policy.retry.as_ref().unwrap().attempts, 3, "the policy is the configuration's");
    assert_eq!(checkout.calls.len(), 2);
    assert!(matches!(scenario.services[1].slowdown, Slowdown::Usl { .. }));
    assert!(
        matches!(&scenario.services[1].time, Distribution::Empirical(e) if (e.scaled_by - 1.0).abs() < 0.25)
    );
    assert!((scenario.services[1].time.mean() / 8e6 - 1.0).abs() < 1e-9);
    assert!(scenario.services[2].policy.is_none());
    assert!(matches!(scenario.services[2].queue.discipline, Discipline::CoDel { .. }));
    assert_eq!(scenario.services[2].on_disconnect, OnDisconnect::Cancel);
    assert_eq!(scenario.faults[0].kind, FaultKind::Capacity { service: 1, left: 0.25 });
    assert_eq!(scenario.expect.len(), 4);
    assert_eq!(
        scenario.expect[3],
        Expectation::TriggerMargin { fault: 0, lasts: Duration::from_secs(30) }
    );
    let assumed = scenario.assumptions.join("\n");
    for said in ["no service payments", "share one key", "warm-up", "in ms"] {
        assert!(assumed.contains(said), "{said:?} is not among:\n{assumed}");
    }
}

#[track_caller]
fn refused(from: &str, to: &str, place: &str, says: &str) {
    assert!(SCENARIO.contains(from), "{from:?}");
    let report = read(&SCENARIO.replace(from, to)).expect_err("it is refused");
    assert!(
        report.contains(place) && report.contains(says),
        "expected {place} and {says:?} in:\n{report}"
    );
}

#[test]
fn what_is_wrong_has_a_place_and_a_way_out() {
    refused("slots: 25", "slot: 25", "s.yaml:6:", "did you mean `slots`");
    refused("prob: 0.4", "prob: 1.4", "s.yaml:6:", "between 0% and 100%");
    refused("service: db, capacity", "service: bd, capacity", "s.yaml:11:", "did you mean `db`");
    refused("700rps", "fast", "s.yaml:4:", "700/s");
    refused("700rps", "-5rps", "s.yaml:4:", "above zero");
    refused("route: /checkout,", "route: /basket,", "s.yaml:4:", "no route");
    refused("p99: 220ms", "p99: 20ms", "s.yaml:6:", "above p50");
    refused("at: 60s", "at: 600s", "s.yaml:10:", "after the run");
    refused("service: 5ms,", "service: 5ms, calls: [checkout],", "s.yaml:6:", "circle");
    refused("capacity: 25%", "capacity: 25%, crash: all", "s.yaml:11:", "exactly one of");
    refused("recovers_within: 30s", "recovers_in: 30s", "s.yaml:14:", "recovers_within");
    refused("db.hgrm", "no.hgrm", "s.yaml:7:", "cannot be read");
}

#[test]
fn what_is_not_simulated_is_named() {
    let config = CONFIG.replace(
        "    retry: { attempts: 3 }",
        "    retry: { attempts: 3 }\n    pool: { connections_max: 32 }",
    ) + "    fallback: { stale_for: 5m }\n";
    let read = |text: &str| {
        let files = [("selvedge.yaml", config.as_str()), ("db.hgrm", HGRM)];
        read_scenario("s.yaml", text, Files::Embedded(&files), None)
            .map_err(|report| report.render(Style::Plain))
    };
    let report = read(SCENARIO).expect_err("it is refused");
    assert!(report.contains("SV0501"), "{report}");
    assert!(report.contains("`services.checkout.pool.connections_max`"), "{report}");
    assert!(report.contains("`fallback` of the route"), "{report}");
    let scenario = read(&format!("{SCENARIO}ignore: [fallback, pool]\n"))
        .unwrap_or_else(|report| panic!("{report}"));
    assert!(
        scenario.assumptions.iter().any(|line| line.contains("Left out on request: `fallback`"))
    );
}

#[test]
fn a_fallback_of_a_service_comes_with_its_policy() {
    let config = CONFIG.replace(
        "    retry: { attempts: 3 }",
        "    fallback: { stale_for: 5m, response: { status: 200, body: none } }",
    );
    let files = [("selvedge.yaml", config.as_str()), ("db.hgrm", HGRM)];
    let text = SCENARIO.replace("deadline: 1s", "deadline: 1s, pages: 20");
    let scenario = read_scenario("s.yaml", &text, Files::Embedded(&files), None)
        .unwrap_or_else(|report| panic!("{}", report.render(Style::Plain)));
    let fallback = scenario.services[0].policy.as_ref().unwrap().fallback.unwrap();
    assert_eq!((fallback.stale_for, fallback.fixed), (Some(Duration::from_secs(300)), true));
    assert_eq!(scenario.clients[0].pages, 20);
}

#[test]
fn a_prometheus_histogram() {
    let text = r#"
# TYPE rpc_seconds histogram
rpc_seconds_bucket{le="0.005"} 200
rpc_seconds_bucket{le="0.01"} 600
rpc_seconds_bucket{le="0.025"} 950
rpc_seconds_bucket{le="0.05"} 990
rpc_seconds_bucket{le="+Inf"} 1000
rpc_seconds_sum 10.5
rpc_seconds_count 1000
"#;
    let read = histogram::prometheus(text, 1e9, None).unwrap();
    assert!(
        (Distribution::Empirical(std::sync::Arc::new(read)).mean() / 10.5e6 - 1.0).abs() < 1e-9
    );
    let falls = text.replace("} 950", "} 500");
    assert!(histogram::prometheus(&falls, 1e9, None).unwrap_err().to_string().contains("rises"));
    assert!(histogram::prometheus("nothing", 1e9, None).is_err());
}

#[test]
fn a_trace_of_arrivals() {
    assert_eq!(histogram::trace("time,route\n10.0,/a\n10.5,/b\n").unwrap(), vec![0, 500_000_000]);
    assert!(histogram::trace("1\n0.5\n").unwrap_err().contains("line 2"));
    assert!(histogram::trace("").is_err());
}
