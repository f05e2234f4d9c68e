use selvedge_patterns::policy::Policy;
use selvedge_patterns::time::Duration;
use selvedge_patterns::{retry, timeout};

use super::advise;
use crate::distribution::Distribution;
use crate::model::{Arrivals, Client, Expectation, Fault, FaultKind, Scenario, Service};

#[test]
fn a_storm_is_cured_by_a_budget_or_fewer_attempts_and_the_neighbours_fail() {
    let mut client = Client::new("web", Arrivals::Poisson { rate: 150.0 });
    client.deadline = Some(Duration::from_secs(2));
    let mut service =
        Service::new("db", Distribution::Exponential { mean: Duration::from_millis(5) });
    let backoff = selvedge_patterns::backoff::Config {
        base: Duration::from_millis(10),
        cap: Duration::from_millis(10),
        ..Default::default()
    };
    service.policy = Some(Box::new(Policy {
        timeout: timeout::Config::fitting(
            Some(Duration::from_millis(400)),
            Some(Duration::from_secs(2)),
        ),
        retry: Some(retry::Config { attempts: 4, backoff, ..retry::Config::default() }),
        ..Policy::default()
    }));
    let mut scenario = Scenario::new("storm", client, vec![service]);
    scenario.faults = vec![Fault {
        kind: FaultKind::Capacity { service: 0, left: 0.0 },
        at: Duration::from_secs(15),
        lasts: Duration::from_secs(6),
        ramp: Duration::ZERO,
    }];
    scenario.run.duration = Duration::from_secs(60);
    scenario.run.warm_up = Duration::from_secs(2);
    scenario.run.seeds = 6;
    scenario.run.recovery_limit = Duration::from_secs(25);
    scenario.expect = vec![Expectation::RecoversWithin(Duration::from_secs(25))];
    let advice = advise(&scenario, 2, &mut |_| ()).unwrap();
    let text = advice.text();
    assert!(advice.found(), "{text}");
    let document = advice.document();
    let smallest = &document["front"][0];
    assert_eq!(smallest["changes"].as_array().unwrap().len(), 1, "{text}");
    assert!(smallest["changes"][0].as_str().unwrap().starts_with("services.db."), "{text}");
    assert!(
        !text.contains("attempts: 3 |"),
        "three attempts at 150/s are 450/s against 200/s:\n{text}"
    );
    // Whatever the smallest change is: it holds, and the step back from it does not.
    for finding in document["front"].as_array().unwrap() {
        assert!(finding["perturbed"]["tried"].as_u64().unwrap() >= 4, "{text}");
        assert!(finding["recovery_seconds"].as_f64().unwrap() <= 25.0, "{text}");
    }
    assert!(document["settings_tried"].as_u64().unwrap() <= 600, "{text}");
}

#[test]
fn what_cannot_be_met_is_said_with_the_nearest() {
    let client = Client::new("web", Arrivals::Poisson { rate: 300.0 });
    let mut service =
        Service::new("db", Distribution::Exponential { mean: Duration::from_millis(5) });
    service.queue.cap = Some(20);
    service.policy = Some(Box::new(Policy::default()));
    let mut scenario = Scenario::new("too much", client, vec![service]);
    scenario.run.duration = Duration::from_secs(10);
    scenario.run.seeds = 4;
    scenario.expect = vec![Expectation::SuccessRate(crate::model::Comparison::AtLeast, 0.9)];
    let advice = advise(&scenario, 2, &mut |_| ()).unwrap();
    // 300/s against 200/s: no policy makes up for it.
    assert!(!advice.found(), "{}", advice.text());
    assert!(advice.text().contains("The nearest"), "{}", advice.text());
}
