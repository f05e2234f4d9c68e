//! What each part of the model and each fault does, one at a time, held
//! against a formula where there is one.

use std::sync::Arc;

use selvedge_patterns::limit::{self, Rate};
use selvedge_patterns::policy::Policy;
use selvedge_patterns::time::{Duration, nanos};
use selvedge_patterns::timeout;
use selvedge_sim::distribution::{Distribution, Empirical};
use selvedge_sim::model::{
    Arrivals, Cache, Client, ColdStart, Discipline, Edge, Errors, Fault, FaultKind, Scenario,
    Service, Slowdown, UserRetry,
};
use selvedge_sim::record::{Bin, Replication, ServiceBin};
use selvedge_sim::theory;
use selvedge_sim::verdict::{Kind, judge};

use crate::policies::bare;
use crate::support::{UNIT, agrees, customers, exponential, over, run, steady, wait};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Room for everybody.
fn wide(name: &str, time: Distribution) -> Service {
    Service { slots: 100_000, ..Service::new(name, time) }
}

fn quick() -> Distribution {
    Distribution::Constant(ms(1))
}

/// A minute of `rate` calls a second at `services`, with `fault` from 20 s to 40 s.
fn minute(rate: f64, services: Vec<Service>, fault: FaultKind) -> Scenario {
    let mut scenario =
        Scenario::new("minute", Client::new("web", Arrivals::Poisson { rate }), services);
    scenario.run.duration = secs(60);
    scenario.faults =
        vec![Fault { kind: fault, at: secs(20), lasts: secs(20), ramp: Duration::ZERO }];
    scenario
}

/// Sums of something of the bins before, during and after the fault of [`minute`], per second.
fn phases(runs: &[Replication], of: impl Fn(&Bin, &ServiceBin) -> f64) -> [f64; 3] {
    [0, 20, 40].map(|from| {
        over(runs, |run| {
            let bins = run.bins.iter().zip(&run.service_bins[0]);
            bins.skip(from).take(20).map(|(bin, service)| of(bin, service)).sum::<f64>() / 20.0
        })
        .mean
    })
}

#[track_caller]
fn about(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "{got}, expected {expected} ± {tolerance}");
}

// Clients.

/// The counts of a rate that jumps between two values vary as its variance formula says.
#[test]
fn mmpp_comes_in_bursts() {
    for (rates, dwell) in [([100.0, 900.0], [3.0, 1.0]), ([50.0, 0.0], [0.5, 0.5])] {
        let stay = dwell.map(Duration::from_secs_f64);
        let client = Client::new("web", Arrivals::Mmpp { rates, dwell: stay });
        let mut scenario = Scenario::new("bursts", client, vec![wide("any", quick())]);
        scenario.run.duration = secs(500);
        let runs = run(&scenario);
        let counts = |run: &Replication| {
            run.bins.iter().map(|bin| f64::from(bin.offered)).collect::<Vec<_>>()
        };
        let mean = |run: &Replication| counts(run).iter().sum::<f64>() / run.bins.len() as f64;
        let dispersion = |run: &Replication| {
            let (m, counts) = (mean(run), counts(run));
            counts.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / counts.len() as f64 / m
        };
        let (rate, truth) = theory::mmpp_counts(rates, dwell, 1.0);
        agrees("rate", over(&runs, mean), rate, 0.03);
        agrees("dispersion", over(&runs, dispersion), truth, 0.06);
    }
}

#[test]
fn a_trace_is_played_as_it_was_recorded() {
    // Ten in the first second, none in the second, three at one moment.
    let mut times: Vec<u64> = (0..10).map(|n| n * 100_000_000).collect();
    times.extend([2_500_000_000; 3]);
    let client = Client::new("web", Arrivals::Trace(times));
    let mut scenario = Scenario::new("trace", client, vec![wide("any", quick())]);
    scenario.run.duration = secs(5);
    scenario.run.seeds = 2;
    for run in run(&scenario) {
        let offered: Vec<u32> = run.bins.iter().map(|bin| bin.offered).collect();
        assert_eq!(offered, [10, 0, 3, 0, 0]);
        assert_eq!(run.clients.good, 13);
    }
}

/// Users who wait for their answer, by mean value analysis.
#[test]
fn closed_clients_wait_for_their_answers() {
    for (users, think, service) in [(20, 1.0, 0.1), (5, 2.0, 0.5), (50, 10.0, 0.1), (1, 1.0, 1.0)] {
        let client = Client::new("users", Arrivals::Closed { users, think: exponential(think) });
        let mut scenario =
            Scenario::new("closed", client, vec![Service::new("db", exponential(service))]);
        scenario.run.duration = UNIT.mul_f64(customers(8_000) as f64 * service);
        scenario.run.warm_up = scenario.run.duration / 10;
        scenario.run.bin = scenario.run.duration / 10;
        let runs = run(&scenario);
        let (throughput, response) = theory::closed(users, think, service);
        let seconds = nanos(scenario.run.duration - scenario.run.warm_up) as f64 / 1e9;
        let rate = over(&runs, |run| run.clients.requests as f64 / seconds);
        agrees(&format!("{users} users: throughput"), rate, throughput, 0.01);
        let mean = over(&runs, |run| run.clients.latency.mean() / 1e9);
        agrees(&format!("{users} users: response"), mean, response, 0.02);
    }
}

/// Users who come back with probability p after each failure: a geometric number of tries.
#[test]
fn users_come_back_some_of_the_time() {
    for (failure, p, attempts) in [(0.5, 0.6, 3), (0.2, 1.0, 1), (0.9, 0.3, 10)] {
        let mut service = wide("any", quick());
        service.errors.fast = failure;
        let mut scenario = steady(200.0, customers(100_000), service);
        scenario.clients[0].user_retry =
            Some(UserRetry { probability: p, after: exponential(0.2), attempts });
        let runs = run(&scenario);
        let (tries, _) = theory::retries(failure * p, attempts);
        let got = over(&runs, |run| run.clients.tries as f64 / run.clients.requests as f64);
        agrees(&format!("tries at {failure}"), got, tries, 0.01);
        // Little's law over those who come back.
        let orbit = over(&runs, |run| run.mean_orbit);
        agrees("orbit", orbit, 200.0 * (tries - 1.0) * 0.2, 0.03);
    }
}

/// The limit of a route: each gateway and each key has an allowance of its own.
#[test]
fn a_route_admits_so_many_of_each_key() {
    let passed = |gateways: u32, keys: u32| {
        let mut client = Client::new("web", Arrivals::Poisson { rate: 400.0 });
        let config = limit::Config { rate: Rate::per_second(20), burst: 20, ..Default::default() };
        client.limit = Some((config, keys));
        let mut scenario = Scenario::new("limit", client, vec![wide("any", quick())]);
        scenario.gateways = gateways;
        scenario.run.duration = secs(120);
        scenario.run.warm_up = secs(20);
        scenario.run.seeds = 5;
        let runs = run(&scenario);
        for run in &runs {
            let totals = &run.services[0];
            let turned_away: u64 = totals.rejections.iter().map(|(_, count)| count).sum();
            assert!(totals.rejections.iter().all(|(reason, _)| *reason == "rate_limited"));
            assert_eq!(totals.calls, totals.calls_ok + turned_away + totals.calls_alive);
        }
        over(&runs, |run| run.clients.good as f64 / 100.0).mean
    };
    about(passed(1, 1), 20.0, 0.5);
    about(passed(3, 1), 60.0, 1.0);
    about(passed(2, 5), 195.0, 6.0);
    about(passed(4, 40), 400.0, 6.0);
}

// Services.

/// A measured distribution waits as its moments say, whatever it was measured from.
#[test]
fn a_histogram_waits_like_its_moments() {
    let edges: [f64; 11] = [0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0];
    let points: Vec<(f64, f64)> =
        edges.iter().map(|edge| (edge * 1e9, 1e6 * (1.0 - (-edge * edge).exp()))).collect();
    let empirical = Empirical::from_cumulative(&points, 1e6, None).unwrap();
    let time = Distribution::Empirical(Arc::new(empirical));
    let (mean, scv) = (time.mean() / 1e9, time.scv());
    // Weibull of shape 2: mean √π/2, SCV 4/π − 1.
    about(mean, 0.8862, 0.01);
    about(scv, 0.2732, 0.02);
    let rate = 0.8 / mean;
    let runs = run(&steady(rate, customers(1_000_000), Service::new("db", time)));
    agrees("Wq", over(&runs, wait), theory::mg1_wait(rate, mean, scv), 0.02);
}

/// Last in, first out: the mean wait is the same, but half wait hardly at all.
#[test]
fn lifo_moves_the_wait_to_a_few() {
    let time = || Service::new("db", exponential(1.0));
    let fifo = run(&steady(0.8, customers(1_000_000), time()));
    let mut service = time();
    service.queue.discipline = Discipline::Lifo;
    let lifo = run(&steady(0.8, customers(1_000_000), service));
    agrees("Wq", over(&lifo, wait), theory::mmc_wait(1, 0.8, 1.0), 0.02);
    let quantile = |runs: &[Replication], q| over(runs, |run| run.clients.latency.quantile(q)).mean;
    assert!(quantile(&lifo, 0.5) < 0.7 * quantile(&fifo, 0.5));
    assert!(quantile(&lifo, 0.99) > 1.3 * quantile(&fifo, 0.99));
}

/// Work that takes longer for each request beside it.
#[test]
fn a_linear_slowdown() {
    for users in [1, 5, 20] {
        let mut service =
            Service { slots: users, ..Service::new("db", Distribution::Constant(ms(50))) };
        service.slowdown = Slowdown::Linear { per_request: 0.1 };
        let think = Distribution::Constant(Duration::from_nanos(1));
        let client = Client::new("users", Arrivals::Closed { users, think });
        let mut scenario = Scenario::new("slowdown", client, vec![service]);
        scenario.run.duration = secs(60);
        scenario.run.warm_up = secs(10);
        scenario.run.seeds = 1;
        let throughput = run(&scenario)[0].clients.good as f64 / 50.0;
        let n = f64::from(users);
        let truth = n / 0.05 / (1.0 + 0.1 * (n - 1.0));
        about(throughput / truth, 1.0, 0.01);
    }
}

/// A fast error does no work, a slow one all of it.
#[test]
fn errors_fast_and_slow() {
    for (errors, works) in [
        (Errors { fast: 0.3, slow: 0.0 }, 0.7),
        (Errors { fast: 0.0, slow: 0.3 }, 1.0),
        (Errors { fast: 0.2, slow: 0.5 }, 0.8),
    ] {
        let mut service = Service { slots: 10, ..Service::new("db", exponential(0.02)) };
        service.errors = errors;
        let runs = run(&steady(200.0, customers(200_000), service));
        let busy = over(&runs, |run| run.services[0].utilisation);
        agrees("utilisation", busy, 0.4 * works, 0.01);
        let good = over(&runs, |run| run.clients.good as f64 / run.clients.requests as f64);
        agrees("success", good, 1.0 - errors.fast - errors.slow, 0.01);
    }
}

/// A cache answers a share, forgets when it is flushed, and is 63 % warm after so many misses.
#[test]
fn a_cache_answers_and_warms_again() {
    let mut front = wide("front", quick());
    front.cache = Some(Cache { hit: 0.9, keys: 2_000.0 });
    front.calls = vec![Edge { service: 1, probability: 1.0, optional: false }];
    let services = vec![front, wide("db", quick())];
    let runs = run(&minute(500.0, services, FaultKind::CacheFlush { service: 0 }));
    let misses = |from: usize, to: usize| {
        over(&runs, |run| {
            let sum: u32 = run.service_bins[1][from..to].iter().map(|bin| bin.arrived).sum();
            f64::from(sum) / (500.0 * (to - from) as f64)
        })
        .mean
    };
    about(misses(0, 20), 0.1, 0.01);
    assert!(misses(20, 21) > 0.85, "cold: {}", misses(20, 21));
    // What is missed warms: dw/dt = rate · misses · (1 − w) / keys, misses = 1 − hit · w.
    let (mut warmth, steps) = (0.0, 1_000);
    for second in 20..60 {
        let mut missed = 0.0;
        for _ in 0..steps {
            let share = 1.0 - 0.9 * warmth;
            missed += share / f64::from(steps);
            warmth += 500.0 * share * (1.0 - warmth) / 2_000.0 / f64::from(steps);
        }
        about(misses(second, second + 1), missed, 0.025);
    }
}

/// Who has just started works slowly at first, less and less so.
#[test]
fn a_cold_start_wears_off() {
    let mut service = wide("app", Distribution::Constant(ms(10)));
    service.cold_start = Some(ColdStart { factor: 5.0, lasts: secs(10) });
    let runs = run(&minute(300.0, vec![service], FaultKind::Crash { service: 0, replicas: 1 }));
    let latency = |second: usize| over(&runs, |run| run.bins[second].latency.mean() / 1e6).mean;
    about(latency(10), 10.0, 0.1);
    about(latency(40), 10.0 * 4.8, 0.5);
    about(latency(45), 10.0 * 2.8, 0.5);
    about(latency(55), 10.0, 0.1);
}

// Faults.

#[test]
fn a_crash_refuses_and_loses_what_was_in_progress() {
    let slow = wide("app", Distribution::Constant(secs(2)));
    let runs = run(&minute(100.0, vec![slow], FaultKind::Crash { service: 0, replicas: 1 }));
    let [before, during, after] = phases(&runs, |bin, _| f64::from(bin.failed));
    // The two seconds of work in progress are lost, and everything that comes is refused.
    assert_eq!((before, after), (0.0, 0.0));
    about(during, 100.0 + 200.0 / 20.0, 2.0);
    let refused = phases(&runs, |_, service| f64::from(service.refused));
    assert_eq!((refused[0], refused[2]), (0.0, 0.0));
    about(refused[1], 100.0, 2.0);
    // One of four: a quarter, with nobody to choose another.
    let four = Service { replicas: 4, ..wide("app", quick()) };
    let runs = run(&minute(400.0, vec![four], FaultKind::Crash { service: 0, replicas: 1 }));
    about(phases(&runs, |bin, _| f64::from(bin.failed))[1], 100.0, 4.0);
}

#[test]
fn latency_grows_by_its_factor_and_with_its_ramp() {
    let fault = FaultKind::Latency { service: 0, factor: 5.0, replicas: 1 };
    let mut scenario = minute(200.0, vec![wide("app", Distribution::Constant(ms(20)))], fault);
    let latency = |runs: &[Replication], second: usize| {
        over(runs, |run| run.bins[second].latency.mean() / 1e6).mean
    };
    let at_once = run(&scenario);
    for (second, expected) in [(10, 20.0), (21, 100.0), (39, 100.0), (41, 20.0)] {
        about(latency(&at_once, second), expected, 1.0);
    }
    scenario.faults[0].ramp = secs(10);
    let ramped = run(&scenario);
    for (second, expected) in [(10, 20.0), (25, 20.0 + 80.0 * 0.55), (35, 100.0), (41, 20.0)] {
        about(latency(&ramped, second), expected, 1.0);
    }
}

#[test]
fn errors_come_with_their_probability() {
    for slow in [false, true] {
        let fault = FaultKind::Errors { service: 0, probability: 0.3, slow, replicas: 1 };
        let runs = run(&minute(300.0, vec![wide("app", Distribution::Constant(ms(20)))], fault));
        let failed = phases(&runs, |bin, _| f64::from(bin.failed));
        assert_eq!(failed[0], 0.0);
        about(failed[1], 90.0, 3.0);
        // Whoever was being worked on at its end.
        about(failed[2], 0.0, 0.3);
        let busy = phases(&runs, |_, service| service.busy_ns as f64 / 1e9);
        about(busy[1], if slow { 6.0 } else { 4.2 }, 0.2);
    }
}

#[test]
fn a_capacity_cut_leaves_a_share() {
    for (left, throughput) in [(0.25, 100.0), (0.6, 240.0), (0.03, 12.0), (0.0, 0.0)] {
        // 400/s in full, 300/s offered: below 0.75 a backlog builds up, and is worked off after.
        let service = Service { slots: 8, ..Service::new("db", exponential(0.02)) };
        let fault = FaultKind::Capacity { service: 0, left };
        let runs = run(&minute(300.0, vec![service], fault));
        let done = phases(&runs, |_, service| f64::from(service.done));
        about(done[0], 300.0, 6.0);
        about(done[1], throughput, 0.03 * throughput + 1.0);
        // After it, at full capacity while there is a backlog.
        let backlog = (300.0 - throughput) * 20.0;
        let full = (backlog / 100.0).min(20.0);
        about(done[2], (400.0 * full + 300.0 * (20.0 - full)) / 20.0, 8.0);
    }
}

#[test]
fn a_partition_answers_nothing() {
    let mut service = wide("app", quick());
    service.policy = Some(Box::new(Policy {
        timeout: timeout::Config::fitting(Some(ms(500)), Some(secs(1))),
        ..bare()
    }));
    let fault = FaultKind::Partition { service: 0, replicas: 1 };
    let runs = run(&minute(100.0, vec![service], fault));
    let good = phases(&runs, |bin, _| f64::from(bin.good));
    about(good[0], 100.0, 3.0);
    // Whoever was being worked on at its start.
    about(good[1], 0.0, 0.05);
    about(good[2], 100.0, 3.0);
    // Nothing was worked on, and nobody was refused: they waited.
    let [_, worked, _] = phases(&runs, |_, service| service.busy_ns as f64);
    let [_, refused, _] = phases(&runs, |_, service| f64::from(service.refused));
    assert!(worked < 1e6 && refused == 0.0, "{worked} and {refused}");
    let [_, failed, late] = phases(&runs, |bin, _| f64::from(bin.failed));
    about(failed, 97.5, 3.0);
    about(late * 20.0, 50.0, 8.0);
}

#[test]
fn load_is_multiplied_for_its_time() {
    for (factor, ramp) in [(3.0, 0), (0.25, 0), (3.0, 20)] {
        let mut scenario =
            minute(100.0, vec![wide("app", quick())], FaultKind::Load { client: 0, factor });
        scenario.faults[0].ramp = secs(ramp);
        let offered = phases(&run(&scenario), |bin, _| f64::from(bin.offered));
        about(offered[0], 100.0, 3.0);
        let mean = if ramp > 0 { (1.0 + factor) / 2.0 } else { factor };
        about(offered[1], 100.0 * mean, 5.0);
        about(offered[2], 100.0, 3.0);
    }
}

/// Batches are away one after another; a gateway that chooses again loses little.
#[test]
fn a_deploy_replaces_batch_by_batch() {
    let service = Service { replicas: 6, ..wide("app", quick()) };
    let fault = FaultKind::Deploy { service: 0, batch: 2, each: secs(4) };
    let runs = run(&minute(600.0, vec![service], fault));
    // Three batches of four seconds: a third of the calls fails for twelve of the twenty seconds.
    let failed = |from: usize, to: usize| {
        over(&runs, |run| {
            let sum: u32 = run.bins[from..to].iter().map(|bin| bin.failed).sum();
            f64::from(sum) / (to - from) as f64
        })
        .mean
    };
    for (from, to, expected) in [(0, 20, 0.0), (20, 24, 200.0), (24, 28, 200.0), (28, 32, 200.0)] {
        about(failed(from, to), expected, 8.0);
    }
    about(failed(33, 60), 0.0, 0.0);
}

#[test]
fn a_flood_ends_as_diverged() {
    let service = Service { slots: 8, ..Service::new("db", exponential(0.02)) };
    let mut scenario = minute(300.0, vec![service], FaultKind::Load { client: 0, factor: 20.0 });
    scenario.run.alive_max = 50_000;
    for run in run(&scenario) {
        let at = run.diverged_at.expect("it diverges") as f64 / 1e9;
        // Arrivals beyond capacity: 5600/s from 20 s on.
        about(at, 20.0 + 50_000.0 / 5_600.0, 0.5);
        assert_eq!(judge(&scenario, &run).kind, Kind::Diverged);
    }
}
