use selvedge_patterns::time::Duration;

use super::{document, junit, map_page, page, summary};
use crate::distribution::Distribution;
use crate::model::{
    Arrivals, Client, Comparison, Expectation, Fault, FaultKind, Scenario, Service, UserRetry,
};
use crate::search::{Knob, boundary, differences, map};
use crate::study::{Outcome, Study};

fn storm() -> Scenario {
    let mut client = Client::new("web <1>", Arrivals::Poisson { rate: 140.0 });
    client.deadline = Some(Duration::from_millis(500));
    client.user_retry = Some(UserRetry {
        probability: 1.0,
        after: Distribution::Constant(Duration::ZERO),
        attempts: 1,
    });
    let mut scenario = Scenario::new(
        "storm & rain",
        client,
        vec![Service::new("db", Distribution::Exponential { mean: Duration::from_millis(5) })],
    );
    scenario.faults = vec![Fault {
        kind: FaultKind::Capacity { service: 0, left: 0.0 },
        at: Duration::from_secs(20),
        lasts: Duration::from_secs(4),
        ramp: Duration::ZERO,
    }];
    scenario.run.duration = Duration::from_secs(60);
    scenario.run.warm_up = Duration::from_secs(2);
    scenario.run.seeds = 8;
    scenario.run.recovery_limit = Duration::from_secs(30);
    scenario.expect = vec![
        Expectation::RecoversWithin(Duration::from_secs(30)),
        Expectation::SuccessRate(Comparison::AtMost, 0.9),
        Expectation::AmplificationMax(2.5),
    ];
    scenario
}

#[test]
fn every_form_says_the_same() {
    let study = Study::run(&storm(), 2, &|_| ()).unwrap();
    assert_eq!(study.outcome(), Outcome::Failed, "{:?}", study.checks);
    assert_eq!(study.checks[0].result, Outcome::Failed);
    assert_eq!(study.checks[1].result, Outcome::Passed);
    let fluid = study.fluid.expect("a retry storm has a fluid");
    assert!(fluid.threshold.unwrap() < 4.0, "{fluid:?}");

    let html = page(&study, "0.0.0");
    assert!(
        html.contains("storm &amp; rain")
            && html.contains("metastable")
            && html.contains("fluid model")
    );
    assert!(
        !html.contains("http://") && !html.contains("https://") && !html.contains("<script"),
        "self-contained"
    );
    assert!(!html.contains("NaN") && !html.contains("inf"), "every number is one");

    let json = document(&study);
    assert_eq!(json["schema"], "selvedge.simulate/1");
    assert_eq!(json["outcome"], "failed");
    assert_eq!(json["runs"].as_array().unwrap().len(), 8);
    assert_eq!(json["series"]["good"]["p50"].as_array().unwrap().len(), 60);

    let xml = junit(&study);
    assert!(
        xml.contains("tests=\"3\" failures=\"1\" errors=\"0\"") && xml.contains("storm &amp; rain"),
        "{xml}"
    );
    assert!(summary(&study).contains("| failed | recovers within 30s |"));
}

#[test]
fn a_boundary_lies_between_what_recovers_and_what_does_not() {
    let scenario = storm();
    let knob = Knob::parse("faults[0].for", &scenario).unwrap();
    let found = boundary(&scenario, &knob, 0.2, 6.0, 2, &mut |_| ()).unwrap();
    let half = found.half.expect("it tips over somewhere");
    assert!(found.between.0 <= half && half <= found.between.1, "{found:?}");
    let fluid = Study::run(&scenario, 2, &|_| ()).unwrap().fluid.unwrap().threshold.unwrap();
    assert!((half / fluid - 1.0).abs() < 0.35, "simulated {half}, fluid {fluid}");
    assert!(Knob::parse("faults[3].for", &scenario).is_err());
    assert!(
        Knob::parse("services.db.colour", &scenario).unwrap_err().to_string().contains("slots")
    );
}

#[test]
fn a_map_shows_the_cliff() {
    let mut scenario = storm();
    scenario.run.seeds = 4;
    let (x, y) = (Knob::Rate(0), Knob::FaultFor(0));
    let found =
        map(&scenario, (&x, vec![60.0, 140.0, 180.0]), (&y, vec![1.0, 8.0]), 2, &mut |_, _| ())
            .unwrap();
    assert_eq!(found.cells[1][0].well, 4, "half the load recovers from anything");
    assert_eq!(found.cells[1][2].well, 0, "a long outage near capacity does not");
    let page = map_page("m", "rate", "for", &found, "0");
    assert!(page.contains("class=\"stable\"") && page.contains("class=\"metastable\""));
}

#[test]
fn a_difference_is_paired() {
    let before = storm();
    let mut after = before.clone();
    after.services[0].queue.cap = Some(50);
    let studies = [&before, &after].map(|scenario| Study::run(scenario, 2, &|_| ()).unwrap());
    let found = differences(&studies[0], &studies[1]);
    let success = &found[0];
    assert!(success.significant() && success.difference.mean > 0.1, "{success:?}");
}
