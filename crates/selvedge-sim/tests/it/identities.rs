//! V20, V21, V28, V31 and V32: what is known exactly, from the model or from a
//! production struct.

use selvedge_patterns::backoff::{self, Backoff, Jitter};
use selvedge_patterns::limit::{self, Algorithm, Rate};
use selvedge_patterns::random::Keyed;
use selvedge_patterns::time::Duration;
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{Arrivals, Client, Edge, Scenario, Service, Slowdown};
use selvedge_sim::record::Replication;
use selvedge_sim::statistics::estimate;
use selvedge_sim::theory;

use crate::support::{UNIT, agrees, customers, exponential, over, run, steady};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Services that call each other as `calls` says, all with room for everybody.
fn graph(times: &[Distribution], calls: &[Vec<usize>], rate: f64, count: u64) -> Scenario {
    let services: Vec<Service> = times
        .iter()
        .zip(calls)
        .map(|(time, calls)| Service {
            slots: 1_000_000,
            calls: calls
                .iter()
                .map(|service| Edge { service: *service, probability: 1.0, optional: false })
                .collect(),
            ..Service::new("part", time.clone())
        })
        .collect();
    let mut scenario = steady(rate, count, services[0].clone());
    scenario.services = services;
    scenario
}

/// V20: a request with many parts is as slow as its slowest.
#[test]
fn one_slow_part_is_enough() {
    let instant = Distribution::Constant(Duration::from_nanos(1));
    for (slow, first, second, count) in
        [(0.01, 100, 1, 10_000), (1e-4, 40, 50, 3_000), (0.003, 20, 10, 8_000)]
    {
        // Root, middle and leaf: `first` × `second` parts. A part is slow by
        // failing: then the whole fails, and the rest is not asked.
        let calls = [vec![1; first], vec![2; second], Vec::new()];
        let times = [instant.clone(), instant.clone(), instant.clone()];
        let mut scenario = graph(&times, &calls, 100.0, count);
        scenario.services[2].errors.fast = slow;
        let failed = |run: &Replication| run.clients.failed as f64 / run.clients.requests as f64;
        let truth = theory::fan_out_slow(slow, (first * second) as u32);
        let got = over(&run(&scenario), failed);
        agrees(&format!("{first}×{second} parts, {slow} slow"), got, truth, 0.005 / truth);
    }
}

/// V21: stages in series.
#[test]
fn stages_in_series() {
    for stages in [3, 10, 5] {
        let times = vec![exponential(1.0); stages];
        let calls: Vec<Vec<usize>> =
            (1..=stages).map(|next| (next..stages).take(1).collect()).collect();
        let runs = run(&graph(&times, &calls, 50.0, customers(60_000)));
        let mean = over(&runs, |run| run.clients.latency.mean() / 1e9);
        agrees(&format!("mean of {stages}"), mean, stages as f64, 0.01);
        let p99 = over(&runs, |run| run.clients.latency.quantile(0.99) / 1e9);
        agrees(
            &format!("p99 of {stages}"),
            p99,
            theory::series_quantile(stages as u32, 0.99),
            0.01,
        );
    }
}

/// V28: a full bucket against steady arrivals, both ways of counting.
#[test]
fn a_bucket_empties_at_a_known_moment() {
    for algorithm in [Algorithm::Gcra, Algorithm::TokenBucket] {
        for (burst, refill, arrivals) in [(100, 50, 75.0), (40, 20, 25.0), (10, 100, 300.0)] {
            let mut client = Client::new("web", Arrivals::Paced { rate: arrivals });
            let config = limit::Config { algorithm, rate: Rate::per_second(refill), burst };
            client.limit = Some((config, 1));
            let service =
                Service { slots: 1000, ..Service::new("any", Distribution::Constant(ms(1))) };
            let mut scenario = Scenario::new("bucket", client, vec![service]);
            scenario.run.duration = UNIT * 120;
            scenario.run.bin = ms(10);
            scenario.run.seeds = 1;
            let run = &run(&scenario)[0];
            let bins = &run.service_bins[0];
            let first = bins.iter().position(|bin| bin.rejected > 0).unwrap() as f64 * 0.01;
            let truth = theory::bucket_first_refusal(f64::from(burst), f64::from(refill), arrivals);
            // The last whole token may be missing one token's time earlier.
            let token = 1.0 / (arrivals - f64::from(refill));
            assert!((first - truth).abs() <= token + 0.02, "{first} s, not {truth} s");
            let within = 10.0;
            let passed: u32 = bins[..1000].iter().map(|bin| bin.arrived).sum();
            let expected = f64::from(burst) + f64::from(refill) * within;
            assert!((f64::from(passed) - expected).abs() <= 1.0, "{passed} in 10 s");
            let share = run.services[0].arrived as f64 / run.services[0].calls as f64;
            let long_run = f64::from(refill) / arrivals;
            let start = f64::from(burst) / (120.0 * arrivals);
            assert!((share - long_run - start).abs() < 1e-3, "{share} in the long run");
        }
    }
}

/// V31: the waits of the production backoff.
#[test]
fn backoff_windows() {
    for (base, cap, factor) in [(100, 10_000, 2.0), (50, 1_000, 1.5), (10, 60_000, 3.0)] {
        for (jitter, by) in [(Jitter::Full, 1.0), (Jitter::Equal, 1.5)] {
            let config = backoff::Config {
                base: ms(base),
                cap: ms(cap),
                shape: backoff::Shape::Exponential { factor },
                jitter,
            };
            let mut sums = vec![Vec::new(); 8];
            for replication in 0..20 {
                let mut totals = [0.0; 8];
                let calls = 10_000;
                let mut rng = Keyed::new(&[replication, base]);
                for _ in 0..calls {
                    let (mut waits, mut since) = (Backoff::new(), 0.0);
                    for total in &mut totals {
                        since += waits.next(&config, &mut rng).as_secs_f64() * 1e3;
                        *total += since / f64::from(calls);
                    }
                }
                for (sum, total) in sums.iter_mut().zip(totals) {
                    sum.push(total);
                }
            }
            for (retry, sum) in sums.iter().enumerate() {
                let full = theory::full_jitter_cumulative(
                    base as f64,
                    factor,
                    cap as f64,
                    retry as u32 + 1,
                );
                let what = format!("{jitter:?} before retry {}", retry + 1);
                agrees(&what, estimate(sum), by * full, 0.005);
            }
        }
    }
}

/// V32: users who do not think, one in each slot: throughput by the law.
#[test]
fn throughput_under_contention() {
    for (gamma, sigma, kappa) in [(100.0, 0.02, 0.0005), (20.0, 0.1, 0.002), (50.0, 0.0, 0.0)] {
        for users in [1, 10, 44, 100] {
            let time = Distribution::Constant(UNIT.mul_f64(1.0 / gamma));
            let mut service = Service { slots: users, ..Service::new("db", time) };
            service.slowdown = Slowdown::Usl { sigma, kappa };
            let think = Distribution::Constant(Duration::from_nanos(1));
            let client = Client::new("users", Arrivals::Closed { users, think });
            let mut scenario = Scenario::new("contention", client, vec![service]);
            scenario.run.duration = UNIT * 120;
            scenario.run.warm_up = UNIT * 20;
            scenario.run.seeds = 1;
            let run = &run(&scenario)[0];
            let got = run.clients.good as f64 / 100.0;
            let truth = theory::usl(gamma, sigma, kappa, f64::from(users));
            assert!((got / truth - 1.0).abs() < 0.005, "{got}/s with {users} users, not {truth}/s");
        }
    }
}
