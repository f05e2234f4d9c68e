//! R2, R3 and V18: published simulations run again, their policies played by
//! the production structs where there is one.
//!
//! What the network and the servers of those scripts do is here, not in the
//! simulator: one row that is written optimistically, balls thrown into bins.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use selvedge_patterns::backoff::{self, Backoff, Jitter};
use selvedge_patterns::budget::{self, Basis};
use selvedge_patterns::random::{Keyed, Rng};
use selvedge_patterns::time::Duration;
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{Arrivals, Client, Scenario, Service};
use selvedge_sim::replicate::replicate_one;
use selvedge_sim::statistics::{estimate, normal_quantile};
use selvedge_sim::theory;

use crate::policies::{failing, per_call, retrying, success};
use crate::support::{UNIT, agrees, over, run};

/// Events in order of their time; ties in the order in which they were put in.
struct Events<T> {
    heap: BinaryHeap<Reverse<(u64, u64, T)>>,
    count: u64,
}

impl<T: Ord> Events<T> {
    const fn new() -> Self {
        Self { heap: BinaryHeap::new(), count: 0 }
    }

    fn push(&mut self, at: f64, what: T) {
        self.count += 1;
        self.heap.push(Reverse(((at * 1e6) as u64, self.count, what)));
    }

    fn pop(&mut self) -> Option<(f64, T)> {
        self.heap.pop().map(|Reverse((at, _, what))| (at as f64 / 1e6, what))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Read,
    Answer { version: u32 },
    Write { version: u32 },
    Written { well: bool },
}

/// `clients` write one row, each once, whoever read an old version again after
/// a wait. How long until all are done in milliseconds, and how many writes that took.
fn one_row(clients: usize, waits: Option<&backoff::Config>, seed: u64) -> (f64, f64) {
    let mut rng = Keyed::new(&[seed, clients as u64]);
    let mut net =
        |at: f64| at + (10.0 + 2.0 * normal_quantile(rng.unit().clamp(1e-12, 1.0 - 1e-12))).abs();
    let mut luck = Keyed::new(&[seed, 7]);
    let mut events = Events::new();
    let mut backoffs = vec![Backoff::new(); clients];
    let (mut version, mut writes, mut now) = (0, 0, 0.0);
    for client in 0..clients {
        events.push(net(0.0), (client, Message::Read));
    }
    while let Some((at, (client, message))) = events.pop() {
        now = at;
        match message {
            Message::Read => events.push(net(now), (client, Message::Answer { version })),
            Message::Answer { version } => {
                events.push(net(now), (client, Message::Write { version }));
            }
            Message::Write { version: based_on } => {
                writes += 1;
                let well = based_on == version;
                version += u32::from(well);
                events.push(net(now), (client, Message::Written { well }));
            }
            Message::Written { well: true } => {}
            Message::Written { well: false } => {
                let wait = waits.map_or(0.0, |config| {
                    backoffs[client].next(config, &mut luck).as_secs_f64() * 1e3
                });
                events.push(net(now) + wait, (client, Message::Read));
            }
        }
    }
    (now, f64::from(writes))
}

fn waits(base_ms: u64, jitter: Jitter) -> Option<backoff::Config> {
    Some(backoff::Config {
        base: Duration::from_millis(base_ms),
        cap: Duration::from_secs(2),
        jitter,
        ..backoff::Config::default()
    })
}

/// R2: "Exponential backoff and jitter". The first window of the script is
/// twice its base of 5 ms; only the decorrelated form uses the base itself.
#[test]
fn jitter_on_one_row() {
    let algorithms = [
        ("none", None),
        ("expo", waits(10, Jitter::None)),
        ("equal", waits(10, Jitter::Equal)),
        ("full", waits(10, Jitter::Full)),
        ("decorrelated", waits(5, Jitter::Decorrelated)),
    ];
    let published = [
        (10, [(379.0, 50.8), (3517.0, 51.0), (722.0, 42.5), (462.0, 39.0), (435.0, 37.7)]),
        (
            100,
            [
                (2028.0, 2423.0),
                (63388.0, 1856.0),
                (6635.0, 812.0),
                (4864.0, 796.0),
                (4601.0, 1003.0),
            ],
        ),
    ];
    for (clients, expected) in published {
        let mut found = Vec::new();
        for ((name, waits), (time, calls)) in algorithms.iter().zip(expected) {
            let trials: Vec<(f64, f64)> =
                (0..1000).map(|seed| one_row(clients, waits.as_ref(), seed)).collect();
            let times = estimate(&trials.iter().map(|trial| trial.0).collect::<Vec<_>>());
            let writes = estimate(&trials.iter().map(|trial| trial.1).collect::<Vec<_>>());
            agrees(&format!("{name}: time of {clients}"), times, time, 0.04);
            agrees(&format!("{name}: calls of {clients}"), writes, calls, 0.02);
            found.push((times.mean, writes.mean));
        }
        if clients == 100 {
            let [none, expo, equal, full, decorrelated] = found[..] else { unreachable!() };
            assert!(expo.0 > 5.0 * equal.0 && equal.0 > full.0 && full.0 > decorrelated.0);
            assert!(full.1 < equal.1 && equal.1 < decorrelated.1);
            assert!(decorrelated.1 < expo.1 && expo.1 < none.1);
        }
    }
}

/// V18: throwing balls into bins at random, as a gateway without a balancer
/// does with requests that all come at once. The fullest bin is the one that
/// is busy longest.
#[test]
fn balls_in_bins() {
    for (balls, bins, published) in
        [(100, 100, Some(4.235)), (1000, 100, Some(18.757)), (60, 25, None)]
    {
        let truth = theory::fullest_bin(balls, bins);
        if let Some(published) = published {
            assert!((truth - published).abs() < 0.1, "{balls} in {bins}: {truth}");
        }
        let service =
            Service { replicas: bins, ..Service::new("bin", Distribution::Constant(UNIT)) };
        let at_once = Arrivals::Trace(vec![0; balls as usize]);
        let mut scenario = Scenario::new("balls", Client::new("ball", at_once), vec![service]);
        scenario.run.duration = UNIT * 60;
        let fullest: Vec<f64> = (0..600)
            .map(|seed| {
                let run = replicate_one(&scenario, seed).expect("the scenario is possible");
                run.bins.iter().rposition(|bin| bin.good > 0).map_or(0.0, |last| last as f64)
            })
            .collect();
        let what = format!("fullest of {bins} with {balls}");
        agrees(&what, estimate(&fullest), truth, 0.1 / truth);
    }
}

/// Who decides whether a failed call of a client is tried again, as in
/// Brooker's script: what the prose calls a bucket fills by calls begun,
/// and what it calls a breaker judges the whole life of the client.
#[derive(Clone, Copy)]
enum Strategy {
    Bucket { deposit: f64, cap: f64 },
    Breaker { share: f64, retries: u32 },
}

/// One client: calls by Poisson for `seconds`, two legs of Exp(10 ms) each.
/// Calls, attempts and successes.
fn one_client(strategy: Strategy, failure: f64, rate: f64, seconds: f64, seed: u64) -> [f64; 3] {
    let mut rng = Keyed::new(&[seed]);
    let mut exponential = |mean: f64| -mean * (1.0 - rng.unit()).ln();
    let mut coin = Keyed::new(&[seed, 1]);
    let mut events = Events::new();
    let (mut calls, mut attempts, mut good, mut failures) = (0.0, 0.0, 0.0, 0.0);
    let mut tokens = if let Strategy::Bucket { cap, .. } = strategy { cap } else { 0.0 };
    events.push(exponential(0.01), (true, 0));
    while let Some((now, (begins, tries))) = events.pop() {
        if begins {
            if now < seconds {
                events.push(now + exponential(1.0 / rate), (true, 0));
                calls += 1.0;
                attempts += 1.0;
                if let Strategy::Bucket { deposit, cap } = strategy {
                    tokens = f64::min(tokens + deposit, cap);
                }
                events.push(now + exponential(0.01) + exponential(0.01), (false, 1));
            }
            continue;
        }
        if coin.unit() >= failure {
            good += 1.0;
            continue;
        }
        failures += 1.0;
        let again = match strategy {
            Strategy::Bucket { .. } if tokens > 1.0 => {
                tokens -= 1.0;
                true
            }
            Strategy::Bucket { .. } => false,
            Strategy::Breaker { share, retries } => failures / calls <= share && tries <= retries,
        };
        if again {
            attempts += 1.0;
            events.push(now + exponential(0.01) + exponential(0.01), (false, tries + 1));
        }
    }
    [calls, attempts, good]
}

/// Success and load over 20 replications.
fn strategy(strategy: Strategy, clients: u64, failure: f64, rate: f64) -> [Vec<f64>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for seed in 0..20 {
        let mut sums = [0.0; 3];
        for client in 0..clients {
            let one = one_client(strategy, failure, rate, 100.0, seed << 20 | client);
            for (sum, one) in sums.iter_mut().zip(one) {
                *sum += one;
            }
        }
        found[0].push(sums[2] / sums[0]);
        found[1].push(sums[1] / sums[0]);
    }
    found
}

const BUCKET: Strategy = Strategy::Bucket { deposit: 0.1, cap: 5.0 };
const BREAKER: Strategy = Strategy::Breaker { share: 0.1, retries: 3 };

/// R3: "Fixing retries with token buckets and circuit breakers", a hundred
/// clients of ten calls a second: (failure rate, then success and load with no
/// retry, three retries, the bucket, the breaker).
#[test]
fn retry_strategies() {
    let table = [
        (0.01, [0.990, 1.000], [1.000, 1.010], [1.000, 1.010], [0.9999, 1.010]),
        (0.05, [0.950, 1.000], [1.000, 1.052], [0.9998, 1.052], [0.9985, 1.051]),
        (0.10, [0.900, 1.000], [0.9999, 1.111], [0.985, 1.094], [0.932, 1.035]),
        (0.20, [0.800, 1.000], [0.998, 1.248], [0.882, 1.104], [0.800, 1.000]),
        (0.50, [0.500, 1.000], [0.937, 1.876], [0.552, 1.104], [0.500, 1.000]),
    ];
    for (failure, none, three, bucket, breaker) in table {
        for (name, attempts, [good, load]) in [("none", 1, none), ("three", 4, three)] {
            let runs = run(&many_clients(failing(failure, retrying(attempts, None)), 20));
            agrees(&format!("{name} at {failure}: success"), over(&runs, success), good, 0.005);
            agrees(&format!("{name} at {failure}: load"), over(&runs, per_call), load, 0.005);
        }
        for (name, rule, [good, load]) in
            [("bucket", BUCKET, bucket), ("breaker", BREAKER, breaker)]
        {
            let [goods, loads] = strategy(rule, 100, failure, 10.0);
            agrees(&format!("{name} at {failure}: success"), estimate(&goods), good, 0.005);
            agrees(&format!("{name} at {failure}: load"), estimate(&loads), load, 0.005);
        }
        // The budget of production forgets after a window where the bucket keeps
        // five for ever, and begins empty where the bucket begins full: near it, not equal.
        let budget = budget::Config {
            ratio: 0.1,
            per_second: 0,
            basis: Basis::Call,
            in_flight_min: 1000,
            ..budget::Config::default()
        };
        let runs = run(&many_clients(failing(failure, retrying(16, Some(budget))), 60));
        let [good, load] = bucket;
        agrees(&format!("budget at {failure}: success"), over(&runs, success), good, 0.02);
        agrees(&format!("budget at {failure}: load"), over(&runs, per_call), load, 0.02);
    }
}

/// A hundred gateways and a thousand calls a second.
fn many_clients(service: Service, seconds: u32) -> Scenario {
    let client = Client::new("web", Arrivals::Poisson { rate: 1000.0 });
    let mut scenario = Scenario::new("clients", client, vec![service]);
    scenario.gateways = 100;
    scenario.run.duration = UNIT * seconds;
    scenario
}

/// R3, the number of clients: at one total rate of 100/s, many small ones push
/// a bucket towards retrying always and a breaker towards never.
#[test]
fn ten_large_or_a_thousand_small() {
    for (clients, rate, bucket, breaker) in [(10, 10.0, 1.104, 1.053), (1000, 0.1, 1.460, 1.007)] {
        let [_, loads] = strategy(BUCKET, clients, 0.5, rate);
        agrees(&format!("bucket of {clients}"), estimate(&loads), bucket, 0.01);
        let [_, loads] = strategy(BREAKER, clients, 0.05, rate);
        agrees(&format!("breaker of {clients}"), estimate(&loads), breaker, 0.01);
    }
}
