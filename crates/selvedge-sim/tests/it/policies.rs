//! V16 to V26: the production policies, driven in virtual time, against formulas.

use selvedge_patterns::backoff;
use selvedge_patterns::balance::{self, Algorithm};
use selvedge_patterns::breaker;
use selvedge_patterns::budget::{self, Basis};
use selvedge_patterns::hedge;
use selvedge_patterns::policy::Policy;
use selvedge_patterns::retry;
use selvedge_patterns::time::Duration;
use selvedge_patterns::timeout;
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{Arrivals, Client, Edge, Errors, Scenario, Service};
use selvedge_sim::record::Replication;
use selvedge_sim::theory::{self, Funding};

use crate::support::{UNIT, agrees, customers, exponential, long, over, run, steady};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// No policy but the balancer; nothing times out.
pub(crate) fn bare() -> Policy {
    let timeout = timeout::Config { attempt: None, total: None, ..timeout::Config::default() };
    let balance =
        balance::Config { algorithm: Algorithm::LeastRequest, ..balance::Config::default() };
    Policy { timeout, balance, ..Policy::default() }
}

pub(crate) fn retrying(attempts: u32, budget: Option<budget::Config>) -> Policy {
    let backoff = backoff::Config { base: ms(10), cap: ms(10), ..backoff::Config::default() };
    Policy {
        retry: Some(retry::Config { attempts, backoff, ..retry::Config::default() }),
        budget,
        ..bare()
    }
}

/// Servers enough that nobody waits, failing with probability `failure` without delay.
pub(crate) fn failing(failure: f64, policy: Policy) -> Service {
    Service {
        slots: 1_000_000,
        errors: Errors { fast: failure, slow: 0.0 },
        policy: Some(Box::new(policy)),
        ..Service::new("leaf", Distribution::Constant(ms(1)))
    }
}

pub(crate) fn per_call(run: &Replication) -> f64 {
    let totals = &run.services[0];
    (totals.first_attempts + totals.retries + totals.hedges) as f64 / totals.calls as f64
}

pub(crate) fn success(run: &Replication) -> f64 {
    run.clients.good as f64 / run.clients.requests as f64
}

/// V16, V17: the balancer of production against the supermarket model.
#[test]
fn two_choices() {
    let mut cases = vec![(500, 0.9, 60, 0.02), (500, 0.8, 40, 0.02), (500, 0.95, 120, 0.03)];
    if long() {
        // The nearer to full, the longer it takes from empty, and the more servers are many.
        cases.push((1000, 0.99, 300, 0.03));
    }
    for (servers, load, settles, tolerance) in cases {
        let mut service = Service { replicas: servers, ..Service::new("queue", exponential(1.0)) };
        service.policy = Some(Box::new(bare()));
        let rate = load * f64::from(servers);
        let mut scenario = steady(rate, 1, service);
        let measured = (customers(60_000) as f64 / rate).max(100.0);
        scenario.run.duration = UNIT.mul_f64(measured) + UNIT * settles;
        scenario.run.warm_up = UNIT * settles;
        scenario.run.bin = UNIT * 10;
        let runs = run(&scenario);
        let got = over(&runs, |run| run.clients.latency.mean() / 1e9);
        let truth = theory::supermarket_sojourn(load, 2);
        agrees(&format!("W of {servers} at {load}"), got, truth, tolerance);
    }
}

/// V16: with ten servers the limit is wrong by a fifth, and the simulator says so.
#[test]
fn two_choices_of_ten() {
    let mut service = Service { replicas: 10, ..Service::new("queue", exponential(1.0)) };
    service.policy = Some(Box::new(bare()));
    let runs = run(&steady(9.0, customers(1_500_000), service));
    let got = over(&runs, |run| run.clients.latency.mean() / 1e9);
    // Whoever draws two different servers does a little better than whoever may draw one twice.
    assert!((got.mean / theory::supermarket_sojourn(0.9, 2) - 1.0) > 0.10, "{got:?}");
    assert!(got.mean < 3.2, "{got:?}");
    let random = run(&steady(
        9.0,
        customers(1_500_000),
        Service { replicas: 10, ..Service::new("queue", exponential(1.0)) },
    ));
    agrees("random", over(&random, |run| run.clients.latency.mean() / 1e9), 10.0, 0.03);
}

/// V19.
#[test]
fn hedges_of_exponential_work() {
    for quantile in [0.9, 0.95] {
        let delay = -f64::ln(1.0 - quantile);
        let hedge = hedge::Config {
            delay: hedge::Delay::Fixed(UNIT.mul_f64(delay)),
            share: 1.0,
            burst: 1000,
            ..hedge::Config::default()
        };
        let mut service =
            Service { replicas: 20, slots: 100_000, ..Service::new("leaf", exponential(1.0)) };
        service.policy = Some(Box::new(Policy { hedge: Some(hedge), ..bare() }));
        let mut scenario = steady(100.0, customers(2_000_000), service);
        scenario.run.warm_up = UNIT * 10;
        let runs = run(&scenario);
        let truth = theory::hedge_exponential(delay);
        let hedges =
            |run: &Replication| run.services[0].hedges as f64 / run.services[0].calls as f64;
        agrees("hedges", over(&runs, hedges), truth.extra, 0.01);
        agrees("mean", over(&runs, |run| run.clients.latency.mean() / 1e9), truth.mean, 0.005);
        for (q, tolerance) in [(0.5, 0.006), (0.99, 0.008), (0.999, 0.012)] {
            let got = over(&runs, |run| run.clients.latency.quantile(q) / 1e9);
            agrees(&format!("p{q}"), got, truth.quantile(q), tolerance);
        }
    }
}

/// V22.
#[test]
fn retries_of_independent_failures() {
    for (failure, retries) in [(0.1, 3), (0.5, 3), (0.9, 3), (1.0, 3), (0.3, 1), (0.6, 5)] {
        let service = failing(failure, retrying(retries + 1, None));
        let runs = run(&steady(200.0, customers(400_000), service));
        let (attempts, good) = theory::retries(failure, retries);
        agrees(&format!("attempts at {failure}"), over(&runs, per_call), attempts, 0.003);
        if good > 0.0 {
            agrees(&format!("success at {failure}"), over(&runs, success), good, 0.005);
        } else {
            assert!(runs.iter().all(|run| run.clients.good == 0));
        }
    }
}

fn layers(count: usize, attempts: u32, failure: f64, calls: u64) -> Scenario {
    let mut services: Vec<Service> = (0..count)
        .map(|_| Service {
            slots: 1_000_000,
            policy: Some(Box::new(retrying(attempts, None))),
            ..Service::new("layer", Distribution::Constant(ms(1)))
        })
        .collect();
    for (index, service) in services.iter_mut().enumerate() {
        service.calls = (index + 1 < count)
            .then_some(Edge { service: index + 1, probability: 1.0, optional: false })
            .into_iter()
            .collect();
    }
    services[count - 1].errors.fast = failure;
    let mut scenario = Scenario::new(
        "layers",
        Client::new(
            "web",
            Arrivals::Trace((1..=calls).map(|n| n * 50_000_000_000 / calls).collect()),
        ),
        services,
    );
    scenario.run.duration = UNIT * 60;
    scenario.run.warm_up = Duration::ZERO;
    scenario
}

/// V23 and V24: attempts multiply over layers.
#[test]
fn nested_retries_multiply() {
    for (count, attempts) in [(3, 4), (5, 3), (2, 6)] {
        let mut scenario = layers(count, attempts, 1.0, 500);
        scenario.run.seeds = 2;
        for run in run(&scenario) {
            let leaf = run.services[count - 1].arrived;
            let user = run.services[0].calls;
            assert_eq!(user, 500);
            assert_eq!(
                leaf,
                user * u64::from(attempts).pow(count as u32),
                "{count} layers of {attempts}"
            );
            assert_eq!(
                theory::nested_attempts(1.0, count as u32, attempts),
                leaf as f64 / user as f64
            );
        }
    }
    for failure in [0.5, 0.7] {
        let runs = run(&layers(3, 4, failure, customers(5_000)));
        let got = over(&runs, |run| run.services[2].arrived as f64 / run.services[0].calls as f64);
        agrees(
            &format!("leaf calls at {failure}"),
            got,
            theory::nested_attempts(failure, 3, 4),
            0.005,
        );
    }
}

/// Where the number of the attempt is passed on, one layer in a chain retries.
#[test]
fn forwarded_attempts_do_not_multiply() {
    let mut scenario = layers(3, 4, 1.0, 500);
    scenario.run.seeds = 1;
    for service in &mut scenario.services {
        service.forwards = true;
    }
    let run = &run(&scenario)[0];
    let leaf = run.services[2].arrived as f64 / run.services[0].calls as f64;
    // Only first attempts may retry: 4 at the leaf under the first of the middle, 3 more of the middle, 3 of the front.
    assert_eq!(leaf, 10.0, "{leaf} calls per user call");
}

/// V25: budgets funded by calls and by successes.
#[test]
fn a_budget_bounds_the_load() {
    for (basis, funding) in [(Basis::Call, Funding::Requests), (Basis::Success, Funding::Successes)]
    {
        for (failure, ratio) in [(0.2, 0.1), (0.5, 0.1), (0.5, 0.2), (0.8, 0.3)] {
            let budget = budget::Config {
                ratio,
                per_second: 0,
                basis,
                in_flight_min: 1_000_000,
                ..budget::Config::default()
            };
            let mut service = failing(failure, retrying(4, Some(budget)));
            service.errors = Errors { fast: failure, slow: 0.0 };
            let mut scenario = steady(2000.0, customers(400_000), service);
            scenario.run.warm_up = scenario.run.duration / 5;
            let runs = run(&scenario);
            let (attempts, good) = theory::budgeted(failure, ratio, funding);
            agrees(
                &format!("{basis:?} load {failure}/{ratio}"),
                over(&runs, per_call),
                attempts,
                0.01,
            );
            agrees(
                &format!("{basis:?} success {failure}/{ratio}"),
                over(&runs, success),
                good,
                0.01,
            );
        }
    }
}

/// V26: three layers of 10 % budgets over a dead leaf.
#[test]
fn layered_budgets_multiply_gently() {
    let budget = budget::Config {
        ratio: 0.1,
        per_second: 0,
        basis: Basis::Call,
        in_flight_min: 1_000_000,
        ..budget::Config::default()
    };
    let mut scenario = layers(3, 4, 1.0, 500);
    scenario.clients[0].arrivals = Arrivals::Poisson { rate: 500.0 };
    scenario.run.duration = UNIT * 100;
    for service in &mut scenario.services {
        service.policy = Some(Box::new(retrying(4, Some(budget))));
    }
    let runs = run(&scenario);
    let got = over(&runs, |run| run.services[2].arrived as f64 / run.services[0].calls as f64);
    agrees("leaf calls", got, theory::layered_budget(0.1, 3), 0.005);
}

/// R3: at the same total rate, many small clients leave a breaker nothing to judge by.
#[test]
fn small_clients_blind_their_breakers() {
    let share = |gateways: u32| {
        let breaker = breaker::Config {
            failure_rate: Some(0.3),
            min_calls: 20,
            ..breaker::Config::default()
        };
        let service = failing(0.5, Policy { breaker: Some(breaker), ..bare() });
        let mut scenario = steady(100.0, 100_000, service);
        scenario.gateways = gateways;
        scenario.run.seeds = 4;
        let runs = run(&scenario);
        over(&runs, |run| run.services[0].arrived as f64 / run.services[0].calls as f64).mean
    };
    let (few, many) = (share(2), share(1000));
    assert!(few < 0.7, "two large clients let {few} through");
    assert!(many > 0.99, "a thousand small ones let {many} through");
}

/// R3: and they push a budget with its floor towards plain retries.
#[test]
fn small_clients_inflate_their_budgets() {
    let load = |gateways: u32| {
        let budget = budget::Config {
            ratio: 0.1,
            per_second: 1,
            in_flight_min: 3,
            ..budget::Config::default()
        };
        let mut scenario = steady(100.0, 100_000, failing(0.5, retrying(4, Some(budget))));
        scenario.gateways = gateways;
        scenario.run.seeds = 4;
        over(&run(&scenario), per_call).mean
    };
    let (few, many) = (load(2), load(1000));
    assert!(few < 1.2 && many > 1.7, "{few} with two clients, {many} with a thousand");
}
