//! R1 and the fluid model: the retry storm of the HotOS'21 paper.

use selvedge_patterns::time::Duration;
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{Arrivals, Client, Fault, FaultKind, Scenario, Service, UserRetry};
use selvedge_sim::study::Study;
use selvedge_sim::theory::fluid::Storm;
use selvedge_sim::verdict::{Kind, judge};

use crate::support::{over, run, threads};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// C = 300/s, one retry after a timeout of one second, an outage of ten.
fn hotos(offered: f64, outage: Duration) -> Scenario {
    let mut client = Client::new("web", Arrivals::Poisson { rate: offered });
    client.deadline = Some(secs(1));
    client.user_retry = Some(UserRetry {
        probability: 1.0,
        after: Distribution::Constant(Duration::ZERO),
        attempts: 1,
    });
    let service = Service::new("db", Distribution::Exponential { mean: secs(1) / 300 });
    let mut scenario = Scenario::new("hotos", client, vec![service]);
    scenario.faults = vec![Fault {
        kind: FaultKind::Capacity { service: 0, left: 0.0 },
        at: secs(20),
        lasts: outage,
        ramp: Duration::ZERO,
    }];
    scenario.run.warm_up = secs(5);
    scenario.run.duration = secs(600);
    scenario
}

/// R1.
#[test]
fn the_published_boundary() {
    for (offered, recovers) in [(140.0, true), (145.0, true), (155.0, false), (280.0, false)] {
        let scenario = hotos(offered, secs(10));
        let runs = run(&scenario);
        let kinds: Vec<Kind> = runs.iter().map(|run| judge(&scenario, run).kind).collect();
        let expected = if recovers { Kind::Recovered } else { Kind::Metastable };
        assert_eq!(kinds, vec![expected; 20], "at {offered}/s");
        if offered > 270.0 {
            // Every call is made twice, and none is answered in time.
            let last = |run: &selvedge_sim::record::Replication| {
                let bins = &run.service_bins[0][400..600];
                bins.iter().map(|bin| f64::from(bin.arrived)).sum::<f64>() / 200.0
            };
            let attempts = over(&runs, last);
            assert!((attempts.mean - 559.8).abs() < 3.0, "{attempts:?}");
            let good: u32 =
                runs.iter().flat_map(|run| &run.bins[400..600]).map(|bin| bin.good).sum();
            assert_eq!(good, 0);
        }
    }
}

/// Where the boundary lies by mathematics is where the simulator finds it.
#[test]
fn the_fluid_model_predicts_the_boundary() {
    for offered in [200.0, 250.0] {
        let storm = Storm {
            offered,
            capacity: 300.0,
            timeout: 1.0,
            retries: 1,
            pause: 0.0,
            queue: f64::INFINITY,
        };
        let threshold = storm.threshold(20.0, 200.0).unwrap();
        let share = |outage: f64| {
            let mut scenario = hotos(offered, Duration::from_secs_f64(outage));
            scenario.run.duration = secs(240);
            scenario.run.seeds = 8;
            let runs = run(&scenario);
            runs.iter().filter(|run| judge(&scenario, run).kind.well()).count()
        };
        assert_eq!(share(threshold * 0.6), 8, "{offered}/s recovers well below {threshold:.2} s");
        assert_eq!(share(threshold * 1.5), 0, "{offered}/s stays down well above {threshold:.2} s");
    }
}

/// Each study of a storm says what the fluid expects, and how many runs agree.
#[test]
fn a_study_of_a_storm_is_cross_checked() {
    for (offered, outage, recovers) in
        [(140.0, 10.0, true), (280.0, 10.0, false), (280.0, 0.2, true)]
    {
        let mut scenario = hotos(offered, Duration::from_secs_f64(outage));
        scenario.run.duration = secs(300);
        scenario.run.seeds = 5;
        let study = Study::run(&scenario, threads(), &|_| ()).unwrap();
        let fluid = study.fluid.expect("it is a storm");
        let prediction = fluid.prediction.expect("it has one outage");
        println!("{}", fluid.sentence());
        assert_eq!(prediction.recovers_after.is_some(), recovers, "{}", fluid.sentence());
        assert_eq!((prediction.agree, prediction.of), (5, 5), "{}", fluid.sentence());
        assert_eq!(fluid.threshold.is_some(), offered > 150.0, "{}", fluid.sentence());
        assert!(fluid.sentence().contains("5 of 5 runs agree"));
    }
    // Who is refused at once leaves no backlog behind: no storm, and no fluid.
    let mut scenario = hotos(280.0, secs(10));
    scenario.faults[0].kind = FaultKind::Crash { service: 0, replicas: 1 };
    scenario.run.duration = secs(100);
    scenario.run.seeds = 2;
    let study = Study::run(&scenario, threads(), &|_| ()).unwrap();
    assert_eq!(study.fluid, None);
    assert!(study.verdicts.iter().all(|verdict| verdict.kind == Kind::Recovered));
}

/// The same outage, and each of the defences that a server has alone.
#[test]
fn what_a_server_can_do_about_it() {
    let kinds = |scenario: &Scenario| -> Vec<Kind> {
        let mut scenario = scenario.clone();
        scenario.run.seeds = 5;
        scenario.run.duration = secs(200);
        run(&scenario).iter().map(|run| judge(&scenario, run).kind).collect()
    };
    let base = hotos(280.0, secs(10));
    assert_eq!(kinds(&base), vec![Kind::Metastable; 5]);
    let mut lifo = base.clone();
    lifo.services[0].queue.discipline = selvedge_sim::model::Discipline::Lifo;
    assert_eq!(kinds(&lifo), vec![Kind::Recovered; 5], "last in, first out serves who still waits");
    let mut cancels = base.clone();
    cancels.services[0].on_disconnect = selvedge_sim::model::OnDisconnect::Cancel;
    assert_eq!(kinds(&cancels), vec![Kind::Recovered; 5], "no work for who has left");
    let mut bounded = base;
    bounded.services[0].queue.cap = Some(150);
    assert_eq!(
        kinds(&bounded),
        vec![Kind::Recovered; 5],
        "half a second of queue is forgotten soon"
    );
}
