//! What one decision of each pattern costs, given `now`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use selvedge_patterns::backoff::{self, Backoff, Jitter};
use selvedge_patterns::balance::{self, Balancer, Candidates, Load, Standing};
use selvedge_patterns::breaker;
use selvedge_patterns::budget::{self, Budget};
use selvedge_patterns::bulkhead::{self, Bulkhead};
use selvedge_patterns::deadline::{self, Deadline};
use selvedge_patterns::hedge::{self, Hedge};
use selvedge_patterns::limit::keyed::{self, Keyed};
use selvedge_patterns::limit::{self, Algorithm, Limiter, Rate};
use selvedge_patterns::outcome::{Failure, Outcome, Safety};
use selvedge_patterns::outlier::{self, Detector, Host};
use selvedge_patterns::quantile;
use selvedge_patterns::random::SplitMix64;
use selvedge_patterns::retry;
use selvedge_patterns::time::{Duration, Instant};

/// A clock that goes on by a microsecond each time it is read.
struct Ticks(u64);

impl Ticks {
    fn next(&mut self) -> Instant {
        self.0 += 1_000;
        Instant::from_nanos(self.0)
    }
}

fn limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit");
    let config =
        |algorithm| limit::Config { algorithm, rate: Rate::per_second(1_000_000), burst: 1_000 };
    for (name, algorithm) in [("gcra", Algorithm::Gcra), ("token_bucket", Algorithm::TokenBucket)] {
        let limiter = Limiter::new(config(algorithm)).expect("valid");
        let mut ticks = Ticks(0);
        group.bench_function(format!("{name}/allow"), |bencher| {
            bencher.iter(|| limiter.admit(ticks.next(), black_box(1)).is_ok());
        });
        let now = Instant::from_nanos(u64::MAX / 2);
        while limiter.admit(now, 1).is_ok() {}
        group.bench_function(format!("{name}/reject"), |bencher| {
            bencher.iter(|| limiter.admit(black_box(now), 1).is_err());
        });
    }
    let keyed_config = keyed::Config { limit: config(Algorithm::Gcra), ..keyed::Config::default() };
    let keyed = Keyed::new(keyed_config, 1).expect("valid");
    let mut ticks = Ticks(0);
    let keys: Vec<String> = (0..1_000).map(|key| format!("api-key-{key}")).collect();
    let mut turn = 0;
    group.bench_function("keyed/allow", |bencher| {
        bencher.iter(|| {
            turn = (turn + 1) % keys.len();
            keyed.admit(ticks.next(), keys[turn].as_bytes(), 1).is_ok()
        });
    });
    group.finish();
}

fn budgets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("budget");
    let budget = Budget::new(budget::Config::default());
    let mut ticks = Ticks(0);
    group.bench_function("success", |bencher| bencher.iter(|| budget.success(ticks.next())));
    group.bench_function("admit_and_settle", |bencher| {
        bencher.iter(|| {
            let now = ticks.next();
            budget.success(now);
            budget.success(now);
            budget.success(now);
            budget.success(now);
            budget.success(now);
            if let Ok(extra) = budget.admit(now, black_box(100)) {
                budget.settle(extra);
            }
        });
    });
    group.finish();
}

struct Pool {
    loads: Vec<Load>,
}

impl Candidates for Pool {
    fn count(&self) -> usize {
        self.loads.len()
    }

    fn load(&self, index: usize) -> &Load {
        &self.loads[index]
    }

    fn standing(&self, _: usize) -> Standing {
        Standing::Usable
    }
}

fn balancers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance");
    for (name, algorithm) in [
        ("round_robin", balance::Algorithm::RoundRobin),
        ("weighted_round_robin", balance::Algorithm::WeightedRoundRobin),
        ("least_request", balance::Algorithm::LeastRequest),
        ("peak_ewma", balance::Algorithm::PeakEwma),
    ] {
        let config = balance::Config { algorithm, ..balance::Config::default() };
        let balancer = Balancer::new(config);
        let seeded = || Load::seeded(Instant::ZERO, Duration::from_millis(5));
        let pool = Pool { loads: (0..8).map(|_| seeded()).collect() };
        let mut rng = SplitMix64::new(1);
        let mut ticks = Ticks(0);
        group.bench_function(format!("{name}/pick"), |bencher| {
            bencher.iter(|| balancer.pick(ticks.next(), &pool, &mut rng));
        });
    }
    let config = balance::Config::default();
    let load = Load::new();
    let mut ticks = Ticks(0);
    group.bench_function("start_and_settle", |bencher| {
        bencher.iter(|| {
            load.start();
            load.settle(
                ticks.next(),
                &config,
                black_box(Duration::from_millis(5)),
                Outcome::Success,
            );
        });
    });
    group.finish();
}

fn breakers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("breaker");
    let slow = breaker::Config {
        slow: Some(breaker::Slow::over(Duration::from_secs(1))),
        ..breaker::Config::default()
    };
    for (name, config) in [("plain", breaker::Config::default()), ("slow_calls", slow)] {
        let breaker = breaker::Shared::new(Instant::ZERO, config, 1);
        let mut ticks = Ticks(0);
        group.bench_function(format!("{name}/admit_and_settle"), |bencher| {
            bencher.iter(|| {
                let now = ticks.next();
                let permit = breaker.admit(now).0.expect("closed");
                breaker.settle(now, permit, black_box(Outcome::Success))
            });
        });
        breaker.control(ticks.next(), breaker::Control::ForceOpen);
        group.bench_function(format!("{name}/reject"), |bencher| {
            bencher.iter(|| breaker.admit(ticks.next()).0.is_err());
        });
    }
    group.finish();
}

fn bulkheads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bulkhead");
    let bulkhead = Bulkhead::new(bulkhead::Config::default(), None);
    let mut ticks = Ticks(0);
    group.bench_function("admit_and_release", |bencher| {
        bencher.iter(|| {
            let permit = bulkhead.try_admit().expect("room");
            bulkhead.release(ticks.next(), black_box(permit));
        });
    });
    group.finish();
}

fn retries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("retry");
    let config = retry::Config::default();
    let tried = retry::Tried { attempts: 1, safety: Safety::Safe, replayable: true };
    let failed = Outcome::Failure(Failure::Reset);
    let mut rng = SplitMix64::new(1);
    group.bench_function("admit", |bencher| {
        bencher.iter(|| config.admit(black_box(&tried), black_box(failed)).is_ok());
    });
    for (name, jitter) in [
        ("none", Jitter::None),
        ("full", Jitter::Full),
        ("equal", Jitter::Equal),
        ("decorrelated", Jitter::Decorrelated),
        ("decorrelated_v2", Jitter::DecorrelatedV2),
    ] {
        let config = backoff::Config { jitter, ..backoff::Config::default() };
        group.bench_function(format!("backoff/{name}"), |bencher| {
            bencher.iter(|| Backoff::new().next(black_box(&config), &mut rng));
        });
    }
    group.finish();
}

fn deadlines(criterion: &mut Criterion) {
    let config = deadline::Config::default();
    let mut ticks = Ticks(0);
    criterion.bench_function("deadline/within_admit_and_forward", |bencher| {
        bencher.iter(|| {
            let now = ticks.next();
            let asked = Some(now + Duration::from_secs(2));
            let deadline = Deadline::within(now, black_box(Some(Duration::from_secs(5))), asked);
            let admitted = deadline.admit(now, black_box(Duration::from_millis(10))).is_ok();
            (admitted, deadline.forward(now, &config))
        });
    });
}

fn rest(criterion: &mut Criterion) {
    let hosts: Vec<Host> = (0..8).map(|_| Host::new()).collect();
    let detector = Detector::new(Instant::ZERO, outlier::Config::default());
    let mut ticks = Ticks(0);
    criterion.bench_function("outlier/settle", |bencher| {
        bencher.iter(|| {
            detector.settle(ticks.next(), hosts.as_slice(), black_box(3), Outcome::Success)
        });
    });

    let hedge = Hedge::new(Instant::ZERO, hedge::Config::default());
    criterion.bench_function("hedge/deposit_and_delay", |bencher| {
        bencher.iter(|| {
            hedge.deposit();
            hedge.delay(black_box(Instant::ZERO))
        });
    });

    let quantile = quantile::Shared::new(Instant::ZERO, 0.95, Duration::from_secs(10), 100);
    let mut ticks = Ticks(0);
    criterion.bench_function("quantile/record", |bencher| {
        bencher.iter(|| quantile.record(ticks.next(), black_box(Duration::from_millis(5))));
    });
}

criterion_group!(
    benches, limits, budgets, balancers, breakers, bulkheads, retries, deadlines, rest
);
criterion_main!(benches);
