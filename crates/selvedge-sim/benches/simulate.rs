//! How many requests a core simulates in a second, beside SimPy on the same models.
//!
//! `cargo bench -p selvedge-sim`; with `SELVEDGE_SIMPY=python` naming a Python
//! that has SimPy, the rounds of both are interleaved. Time is that of the
//! processor, so that a busy machine is not taken for a slow program.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use std::process::Command;
use std::time::Instant;

use selvedge_patterns::balance::{self, Algorithm};
use selvedge_patterns::breaker;
use selvedge_patterns::bulkhead;
use selvedge_patterns::policy::Policy;
use selvedge_patterns::retry;
use selvedge_patterns::time::Duration;
use selvedge_patterns::timeout;
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{Arrivals, Client, Edge, Scenario, Service};
use selvedge_sim::replicate::{replicate, replicate_one};

const ROUNDS: usize = 5;

/// M/M/1 at ρ = 0.8.
fn one_tier(requests: u64) -> Scenario {
    let service =
        Service::new("queue", Distribution::Exponential { mean: Duration::from_millis(1) });
    lasting(800.0, requests, vec![service])
}

/// Five services in a chain of three instances each, every way to one with a
/// retry, a breaker, a limit of what is in flight, and the better of two choices.
fn five_tiers(requests: u64) -> Scenario {
    let policy = Policy {
        timeout: timeout::Config::fitting(
            Some(Duration::from_millis(200)),
            Some(Duration::from_secs(1)),
        ),
        retry: Some(retry::Config::default()),
        breaker: Some(breaker::Config::default()),
        bulkhead: Some(bulkhead::Config { max_in_flight: 200, ..bulkhead::Config::default() }),
        balance: balance::Config { algorithm: Algorithm::LeastRequest, ..Default::default() },
        ..Policy::default()
    };
    let mut services: Vec<Service> = (0..5)
        .map(|tier| Service {
            replicas: 3,
            slots: 10,
            calls: (tier < 4)
                .then_some(Edge { service: tier + 1, probability: 1.0, optional: false })
                .into_iter()
                .collect(),
            holds_slot: false,
            policy: Some(Box::new(policy.clone())),
            ..Service::new(
                &format!("tier{tier}"),
                Distribution::Exponential { mean: Duration::from_millis(10) },
            )
        })
        .collect();
    services[4].errors.fast = 0.01;
    lasting(1500.0, requests, services)
}

fn lasting(rate: f64, requests: u64, services: Vec<Service>) -> Scenario {
    let client = Client::new("web", Arrivals::Poisson { rate });
    let mut scenario = Scenario::new("speed", client, services);
    scenario.run.duration = Duration::from_secs_f64(requests as f64 / rate);
    scenario.run.bin = scenario.run.duration / 10;
    scenario
}

/// Seconds that the processor has spent on this thread.
fn spent() -> f64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|line| line.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(|| 0.0, |ns| ns / 1e9)
}

/// Requests and events per second of processor time.
fn measure(scenario: &Scenario, seed: u64) -> (f64, f64) {
    let (wall, from) = (Instant::now(), spent());
    let run = replicate_one(scenario, seed).expect("the scenario is possible");
    let seconds = match spent() - from {
        busy if busy > 0.0 => busy,
        _ => wall.elapsed().as_secs_f64(),
    };
    assert_eq!(run.broken, None);
    (run.clients.requests as f64 / seconds, run.events as f64 / seconds)
}

fn simpy(python: &str, model: &str, requests: u64) -> Option<f64> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/simulate/simpy_model.py");
    let out = Command::new(python).args([file, model, &requests.to_string()]).output().ok()?;
    String::from_utf8(out.stdout).ok()?.trim().parse().ok()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let python = std::env::var("SELVEDGE_SIMPY").ok();
    println!("| model | requests/s per core | events/s | SimPy, requests/s | times |");
    println!("|---|--:|--:|--:|--:|");
    for (name, scenario, count) in [
        ("one tier", one_tier as fn(u64) -> Scenario, 2_000_000),
        ("five tiers, retry + breaker + limit + two choices", five_tiers, 500_000),
    ] {
        let scenario = scenario(count);
        let (mut rates, mut events, mut peers) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let (rate, event) = measure(&scenario, round as u64);
            rates.push(rate);
            events.push(event);
            let model = if name.starts_with("one") { "one" } else { "five" };
            peers.extend(python.as_ref().and_then(|it| simpy(it, model, count / 50)));
        }
        let (rate, event) = (median(&mut rates), median(&mut events));
        let (peer, times) = if peers.is_empty() {
            ("–".to_owned(), "–".to_owned())
        } else {
            let peer = median(&mut peers);
            (format!("{peer:.0}"), format!("{:.0}", rate / peer))
        };
        println!("| {name} | {rate:.0} | {event:.0} | {peer} | {times} |");
    }
    println!("\n| seeds on all cores | seconds | seconds per seed |\n|--:|--:|--:|");
    for seeds in [2, 4, 8] {
        let mut scenario = five_tiers(100_000);
        scenario.run.seeds = seeds;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let from = Instant::now();
        replicate(&scenario, threads, &|_| ()).expect("the scenario is possible");
        let seconds = from.elapsed().as_secs_f64();
        println!("| {seeds} | {seconds:.2} | {:.3} |", seconds / f64::from(seeds));
    }
}
