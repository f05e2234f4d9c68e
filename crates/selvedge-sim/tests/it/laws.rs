//! What holds of every run: sums, determinism, common random numbers, refusals.

use selvedge_patterns::policy::Policy;
use selvedge_patterns::time::Duration;
use selvedge_patterns::{bulkhead, health, hedge, timeout};
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{
    Arrivals, Cache, Client, ColdStart, Discipline, Edge, Errors, Fault, FaultKind, OnDisconnect,
    Scenario, Service, Slowdown, UserRetry,
};
use selvedge_sim::replicate::{replicate, replicate_one};

use crate::support::threads;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Every feature at once, `n` choosing among variants.
fn everything(n: u64) -> Scenario {
    let disciplines = [
        Discipline::Fifo,
        Discipline::Lifo,
        Discipline::CoDel { target: ms(20), interval: ms(100) },
    ];
    let mut front = Service::new("front", Distribution::LogNormal { p50: ms(5), p99: ms(40) });
    front.replicas = 3;
    front.slots = 20;
    front.network = if n.is_multiple_of(2) { ms(1) } else { Duration::ZERO };
    front.queue.cap = Some(50);
    front.queue.drop_expired = n.is_multiple_of(3);
    front.on_disconnect =
        if n.is_multiple_of(2) { OnDisconnect::Cancel } else { OnDisconnect::Keep };
    front.holds_slot = n % 4 < 2;
    front.cache = Some(Cache { hit: 0.5, keys: 100.0 });
    front.calls = vec![
        Edge { service: 1, probability: 0.7, optional: false },
        Edge { service: 2, probability: 1.0, optional: true },
    ];
    let mut db = Service::new("db", Distribution::Exponential { mean: ms(10) });
    db.replicas = 2;
    db.slots = 3;
    db.queue.discipline = disciplines[n as usize % 3];
    db.queue.patience = n.is_multiple_of(5).then_some(ms(300));
    db.slowdown = Slowdown::Usl { sigma: 0.02, kappa: 0.001 };
    db.on_disconnect = if n.is_multiple_of(3) { OnDisconnect::Cancel } else { OnDisconnect::Keep };
    db.errors = Errors { fast: 0.01, slow: 0.01 };
    db.cold_start = Some(ColdStart { factor: 3.0, lasts: secs(2) });
    let mut mail =
        Service::new("mail", Distribution::Bimodal { fast: ms(2), slow: ms(60), slow_share: 0.05 });
    mail.slots = 30;
    mail.on_disconnect = OnDisconnect::Cancel;
    let mut client =
        Client::new("web", Arrivals::Mmpp { rates: [300.0, 900.0], dwell: [secs(3), secs(1)] });
    client.deadline = Some(ms(200));
    client.user_retry = Some(UserRetry {
        probability: 0.5,
        after: Distribution::Exponential { mean: ms(500) },
        attempts: 2,
    });
    if n >= 10 {
        let careful = Policy {
            timeout: timeout::Config::fitting(Some(ms(80)), Some(ms(300))),
            hedge: Some(hedge::Config { share: 0.2, ..hedge::Config::default() }),
            health: Some(health::Config::default()),
            ..Policy::careful()
        };
        front.policy = Some(Box::new(careful.clone()));
        front.forwards = n.is_multiple_of(2);
        let bulkhead = bulkhead::Config {
            max_in_flight: 4,
            queue: 10,
            queue_for: ms(50),
            ..bulkhead::Config::default()
        };
        db.policy = Some(Box::new(Policy { bulkhead: Some(bulkhead), hedge: None, ..careful }));
    }
    let mut scenario = Scenario::new("everything", client, vec![front, db, mail]);
    let mut crowd = Client::new(
        "crowd",
        Arrivals::Closed { users: 40, think: Distribution::Constant(ms(900)) },
    );
    crowd.deadline = Some(ms(500));
    scenario.clients.push(crowd);
    scenario.clients.push(Client::new("probe", Arrivals::Paced { rate: 3.0 }));
    scenario.gateways = 2;
    let fault =
        |kind, at, lasts| Fault { kind, at: secs(at), lasts: secs(lasts), ramp: Duration::ZERO };
    scenario.faults = vec![
        fault(FaultKind::Crash { service: 1, replicas: 1 }, 3, 2),
        fault(FaultKind::Latency { service: 2, factor: 20.0, replicas: 1 }, 4, 2),
        Fault { ramp: secs(1), ..fault(FaultKind::Capacity { service: 1, left: 0.0 }, 7, 2) },
        fault(
            FaultKind::Errors { service: 1, probability: 0.5, slow: n % 2 == 1, replicas: 2 },
            10,
            2,
        ),
        fault(FaultKind::Partition { service: 2, replicas: 1 }, 11, 2),
        fault(FaultKind::CacheFlush { service: 0 }, 14, 1),
        fault(FaultKind::Load { client: 0, factor: 2.0 }, 15, 2),
        fault(FaultKind::Deploy { service: 0, batch: 1, each: ms(700) }, 17, 3),
    ];
    scenario.run.duration = secs(24);
    scenario.run.warm_up = secs(1);
    scenario.run.seeds = 3;
    scenario
}

/// V33 and V34 hold exactly, whatever happens.
#[test]
fn sums_are_exact() {
    for n in 0..20 {
        let scenario = everything(n);
        for run in replicate(&scenario, threads(), &|_| ()).unwrap() {
            assert_eq!(run.broken, None, "variant {n}, seed {}", run.seed);
            assert!(run.clients.requests > 5_000, "{} requests", run.clients.requests);
            let clients = &run.clients;
            assert_eq!(
                clients.requests,
                clients.good + clients.failed + clients.undecided,
                "variant {n}"
            );
            let each: u64 = run.each_client.iter().map(|client| client.requests).sum();
            assert_eq!(each, clients.requests);
            assert!(
                run.services
                    .iter()
                    .all(|service| service.calls_ok > 100 && service.calls_failed > 10)
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run_whatever_the_threads() {
    let scenario = everything(14);
    let alone = replicate(&scenario, 1, &|_| ()).unwrap();
    let together = replicate(&scenario, 3, &|_| ()).unwrap();
    assert!(alone == together, "the number of threads shows in the result");
    assert_ne!(alone[0].hash, alone[1].hash);
}

/// Changes only when what is simulated changes; then say so in the commit.
const GOLDEN: (u64, u64) = (0xedd5_fd3a_6746_cbd0, 111_118);

/// The same on every platform: pure Rust arithmetic and integers.
#[test]
fn golden_digest() {
    let run = replicate_one(&everything(11), 7).unwrap();
    assert_eq!(
        (run.hash, run.events),
        (GOLDEN.0, GOLDEN.1),
        "the digest is {:#018x} after {} events",
        run.hash,
        run.events
    );
}

/// Two configurations under one seed see the same customers.
#[test]
fn common_random_numbers() {
    let base = everything(1);
    let mut slower = base.clone();
    slower.services[1].slots = 2;
    slower.clients[0].user_retry = None;
    let (a, b) = (replicate_one(&base, 5).unwrap(), replicate_one(&slower, 5).unwrap());
    let offered = |run: &selvedge_sim::record::Replication| run.each_client[0].requests;
    assert_eq!(offered(&a), offered(&b));
    assert_ne!(a.clients.good, b.clients.good);
}

#[test]
fn an_endless_queue_is_a_verdict_not_a_crash() {
    let mut scenario = Scenario::new(
        "flood",
        Client::new("web", Arrivals::Poisson { rate: 10_000.0 }),
        vec![Service::new("one", Distribution::Constant(ms(10)))],
    );
    scenario.run.alive_max = 20_000;
    scenario.run.seeds = 1;
    let run = &replicate(&scenario, 1, &|_| ()).unwrap()[0];
    let at = run.diverged_at.expect("it diverges") as f64 / 1e9;
    assert!((1.5..4.0).contains(&at), "at {at}");
}

#[test]
fn impossible_models_are_refused_with_the_reason() {
    #[track_caller]
    fn refused(change: impl FnOnce(&mut Scenario), says: &str) {
        let mut scenario = everything(0);
        change(&mut scenario);
        let error = scenario.validate().unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
    refused(
        |s| s.services[2].calls = vec![Edge { service: 0, probability: 0.5, optional: false }],
        "circle",
    );
    refused(|s| s.services[0].calls[0].probability = 1.5, "between 0 and 1");
    refused(|s| s.services[0].calls[0].service = 9, "does not exist");
    refused(|s| s.clients[2].arrivals = Arrivals::Paced { rate: -1.0 }, "positive");
    refused(|s| s.clients[2].arrivals = Arrivals::Trace(vec![5, 3]), "back in time");
    refused(|s| s.faults[0].at = secs(99), "after the run");
    refused(|s| s.faults[2].ramp = secs(5), "cannot ramp");
    refused(|s| s.faults[5].kind = FaultKind::CacheFlush { service: 1 }, "no cache");
    refused(
        |s| s.services[1].time = Distribution::LogNormal { p50: ms(5), p99: ms(5) },
        "above p50",
    );
    refused(|s| s.services[1].slots = 0, "slots of db");
    refused(|s| s.gateways = 0, "at least one");
    refused(|s| s.services[1].errors = Errors { fast: 0.7, slow: 0.7 }, "between 0 and 1");
    refused(|s| s.services[1].errors.slow = -0.1, "between 0 and 1");
    refused(|s| s.services[0].cache = Some(Cache { hit: f64::NAN, keys: 1.0 }), "hit ratio");
    refused(
        |s| s.services[1].cold_start = Some(ColdStart { factor: 0.5, lasts: secs(1) }),
        "at least 1",
    );
    refused(
        |s| {
            let dwell = [secs(1), secs(1)];
            s.clients[0].arrivals = Arrivals::Mmpp { rates: [300.0, -0.5], dwell };
        },
        "zero or more",
    );
    refused(|s| s.clients[0].user_retry.as_mut().unwrap().probability = 1.1, "between 0 and 1");
    refused(|s| s.faults[0].lasts = Duration::ZERO, "no time");
    refused(
        |s| s.faults[1].kind = FaultKind::Latency { service: 2, factor: -1.0, replicas: 1 },
        "positive",
    );
    refused(|s| s.run.bin = Duration::from_nanos(1), "bins");
    refused(|s| s.services[0].replicas = 1_000_000, "instances");
    // Forty layers of two calls each: a circle in all but name.
    refused(
        |s| {
            let layer = |at: usize| {
                let mut service = Service::new("layer", Distribution::Constant(ms(1)));
                if at < 39 {
                    service.calls =
                        vec![Edge { service: at + 1, probability: 1.0, optional: false }; 2];
                }
                service
            };
            s.services = (0..40).map(layer).collect();
            s.faults.clear();
        },
        "below one request",
    );
    refused(|s| s.run.warm_up = s.run.duration, "warm-up");
}
