//! What an operator sees and does, checked against the traffic itself.

use selvedge_tests::{
    load::Load,
    raw,
    selvedge::{Ports, Selvedge},
    upstream::{Reply, Upstream},
    wait,
};
use std::time::Duration;

#[test]
fn a_forced_open_breaker_stops_all_traffic_until_it_is_reset() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::before(&[upstream.address()], "    breaker: { open_for: 5s }\n");
    assert_eq!(selvedge.get("/").status, 200);
    selvedge.act("/api/v1/services/up/breakers/force-open", "");
    for _ in 0..5 {
        assert_eq!(selvedge.get("/").status, 503);
    }
    assert_eq!(upstream.count(), 1);
    let history = wait::until("the change to be remembered", || {
        let breaker = selvedge.api("/api/v1/services/up/breakers")["breakers"][0].clone();
        assert_eq!(breaker["state"], "forced_open");
        breaker["history"].as_array().filter(|history| !history.is_empty()).cloned()
    });
    assert_eq!(history[0]["to"], "forced_open", "{history:?}");
    selvedge.act("/api/v1/services/up/breakers/reset", "");
    assert_eq!(selvedge.get("/").status, 200);
}

#[test]
fn a_disabled_breaker_measures_and_never_rejects() {
    let upstream = Upstream::http(|_| Reply::status(500));
    let selvedge = Selvedge::before(
        &[upstream.address()],
        "    breaker: { window: 10s, failure_rate: 50%, min_calls: 2, open_for: 60s }\n",
    );
    selvedge.act("/api/v1/services/up/breakers/disable", "");
    for _ in 0..10 {
        assert_eq!(selvedge.get("/").status, 500);
    }
    assert_eq!(upstream.count(), 10);
}

#[test]
fn a_drained_endpoint_gets_nothing_new() {
    let (one, two) = (Upstream::named("one"), Upstream::named("two"));
    let selvedge = Selvedge::before(&[one.address(), two.address()], "    balance: round_robin\n");
    let drain = |verb: &str| {
        selvedge.act(&format!("/api/v1/services/up/endpoints/{}/{verb}", one.address()), "")
    };
    drain("drain");
    let before = one.count();
    assert!((0..10).all(|_| selvedge.get("/").text() == "two"));
    assert_eq!(one.count(), before);
    let endpoints = selvedge.api("/api/v1/services/up/endpoints");
    assert_eq!(endpoints["endpoints"][0]["state"], "draining", "{endpoints}");
    drain("undrain");
    wait::until_true("it to be used again", || selvedge.get("/").text() == "one");
}

#[test]
fn what_does_not_exist_is_refused() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::before(&[upstream.address()], "");
    for path in ["/api/v1/services/nobody", "/api/v1/nothing"] {
        let answer = raw::get(selvedge.operator, path).unwrap();
        assert_eq!((answer.status, answer.code().is_some()), (404, true), "{path}");
    }
    let answer =
        raw::post_with(selvedge.operator, "/api/v1/services/nobody/breakers/reset", "", "")
            .unwrap();
    assert_eq!(answer.status, 404);
    // A page on another host's name cannot ask.
    let answer = raw::exchange(
        selvedge.operator,
        "GET /api/v1/services HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
    )
    .unwrap();
    assert!((400..500).contains(&answer.status), "{}", answer.status);
}

#[test]
fn explain_says_what_then_happens() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::run(&format!(
        "services:\n  up:\n    endpoints: [\"{}\"]\n    breaker: {{ open_for: 30s }}\nroutes:\n  - name: \
         shop\n    match: {{ path: /shop/** }}\n    to: up\n",
        upstream.address()
    ));
    let explain = |url: &str| selvedge.api(&format!("/api/v1/explain?method=GET&url={url}"));
    let said = explain("/shop/1");
    assert_eq!(
        (&said["verdict"], &said["route"], &said["service"]),
        (&"forward".into(), &"shop".into(), &"up".into()),
        "{said}"
    );
    assert_eq!(selvedge.get("/shop/1").status, 200);
    let said = explain("/elsewhere");
    assert_eq!(said["verdict"], "not_found", "{said}");
    assert_eq!(selvedge.get("/elsewhere").status, 404);
    selvedge.act("/api/v1/services/up/breakers/force-open", "");
    let said = explain("/shop/1");
    assert_eq!(said["verdict"], "reject", "{said}");
    assert_eq!(selvedge.get("/shop/1").status, 503);
    assert_eq!(upstream.count(), 1, "explaining sends nothing");
}

#[test]
fn the_decision_trace_is_only_for_operators() {
    let upstream =
        Upstream::http(
            |request| {
                if request.nth % 2 == 0 { Reply::status(503) } else { Reply::ok("") }
            },
        );
    let ports = Ports::free();
    let policy = "    retry: { attempts: 2, backoff: { base: 1ms, cap: 1ms }, budget: 100% }\n";
    let text = ports.file(&Selvedge::one_service(&[upstream.address()], policy));
    let bind = format!("bind: \"127.0.0.1:{}\" ", ports.operator);
    let text = text.replace(&bind, &format!("{bind}, token: \"${{SECRET}}\" "));
    let selvedge = Selvedge::run_file(&text, ports, &[("SECRET", "open sesame, please")]);
    assert_eq!(selvedge.get("/").header("x-selvedge-trace"), None);
    let wrong = selvedge.get_with("/", "x-selvedge-operator: guess\r\n");
    assert_eq!(wrong.header("x-selvedge-trace"), None);
    let right = selvedge.get_with("/", "x-selvedge-operator: open sesame, please\r\n");
    let trace = right.header("x-selvedge-trace").expect("the operator gets it");
    assert!(trace.contains("retry") || trace.contains("503"), "{trace}");
    assert!(upstream.requests().iter().all(|one| one.header("x-selvedge-operator").is_none()));
}

#[test]
fn metrics_agree_with_who_counted_outside() {
    let upstream =
        Upstream::http(
            |request| {
                if request.nth % 10 == 0 { Reply::status(500) } else { Reply::ok("") }
            },
        );
    let selvedge = Selvedge::run(&format!(
        "services:\n  up: {{ endpoints: [\"{}\"] }}\nroutes:\n  - name: all\n    match: {{ path: /** }}\n    to: \
         up\n",
        upstream.address()
    ));
    let load = Load::start(selvedge.port, "/", 500, 8);
    wait::pause(Duration::from_secs(1));
    let counts = load.stop();
    let metrics = wait::until("the last call to be counted", || {
        let metrics = selvedge.metrics();
        let counted = metrics.sum("selvedge_requests_total", &[("route", "all")]);
        (counted as usize == counts.total()).then_some(metrics)
    });
    let by_class = |class: &str| {
        metrics.sum("selvedge_requests_total", &[("route", "all"), ("code_class", class)]) as usize
    };
    assert_eq!(
        by_class("2xx"),
        counts.good(),
        "{:?}",
        metrics.find("selvedge_requests_total", &[])
    );
    assert_eq!(by_class("5xx"), counts.total() - counts.good());
    // Whatever is exposed is declared, and histograms add up.
    for sample in metrics.samples() {
        let declared = metrics.kinds().keys().any(|name| {
            sample.name == *name
                || ["_total", "_bucket", "_sum", "_count", "_info", "_created"]
                    .iter()
                    .any(|suffix| sample.name == format!("{name}{suffix}"))
        });
        assert!(declared, "{} is not declared", sample.name);
    }
    for (name, kind) in metrics.kinds() {
        if kind == "histogram" {
            let infinite = metrics.sum(&format!("{name}_bucket"), &[("le", "+Inf")]);
            assert_eq!(infinite, metrics.sum(&format!("{name}_count"), &[]), "{name}");
        }
    }
}

#[test]
fn the_access_log_has_one_line_a_call() {
    let upstream = Upstream::http(|request| {
        if request.path() == "/bad" { Reply::status(503) } else { Reply::ok("hello") }
    });
    let selvedge = Selvedge::before(
        &[upstream.address()],
        "    retry: { attempts: 3, backoff: { base: 1ms, cap: 1ms }, budget: { ratio: 100%, floor: 1000/s } }\n",
    );
    selvedge.get("/good?secret=1");
    selvedge.get("/bad");
    raw::exchange(selvedge.port, "GET / HTTP/1.1\r\nno colon\r\n\r\n").ok();
    let lines = wait::until("the log to be written", || {
        let lines = selvedge.access_log();
        (lines.len() >= 2).then_some(lines)
    });
    let text = |nth: usize| lines[nth].to_string();
    let calls: Vec<usize> = (0..lines.len()).filter(|nth| text(*nth).contains("\"up\"")).collect();
    assert_eq!(calls.len(), 2, "{lines:?}");
    let good = &lines[calls[0]];
    assert_eq!(good["status"], 200, "{good}");
    assert!(!text(calls[0]).contains("secret"), "queries may hold secrets: {good}");
    assert!(good["trace_id"].as_str().is_some_and(|id| id.len() == 32), "{good}");
    let bad = &lines[calls[1]];
    assert_eq!(bad["status"], 503, "{bad}");
    assert_eq!(bad["attempts"].as_array().map(Vec::len), Some(3), "{bad}");
    assert!(text(calls[1]).matches(&upstream.address()).count() >= 3, "{bad}");
}
