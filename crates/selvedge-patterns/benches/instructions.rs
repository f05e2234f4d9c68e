//! Runs one case so many times and nothing else, to be counted from outside.
//!
//! `instructions CASE TIMES` runs a case, `instructions` lists the cases, and
//! `instructions time [FILTER]` prints nanoseconds: the fastest of many short
//! batches, which is what is left when other programs disturb. Counting and
//! comparing with the checked-in table is `cargo xtask instructions`.
#![expect(clippy::print_stdout, reason = "a command line tool speaks to its terminal")]
#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::time::Instant as Clock;

use selvedge_patterns::balance::{self, Balancer, Candidates, Load, Standing};
use selvedge_patterns::breaker;
use selvedge_patterns::budget::{self, Budget};
use selvedge_patterns::bulkhead::{self, Bulkhead};
use selvedge_patterns::call::{Call, Request, Step};
use selvedge_patterns::hedge::{self, Hedge};
use selvedge_patterns::limit::keyed::{self, Keyed};
use selvedge_patterns::limit::{self, Algorithm, Limiter, Rate};
use selvedge_patterns::outcome::{Outcome, Safety};
use selvedge_patterns::outlier::{self, Detector, Host};
use selvedge_patterns::policy::Policy;
use selvedge_patterns::quantile;
use selvedge_patterns::random::SplitMix64;
use selvedge_patterns::retry;
use selvedge_patterns::service::{Service, Target};
use selvedge_patterns::time::{Duration, Instant};

const CASES: &[(&str, fn(Runner))] = &[
    ("limit/gcra/allow", |runner| limiter(runner, Algorithm::Gcra, true)),
    ("limit/gcra/reject", |runner| limiter(runner, Algorithm::Gcra, false)),
    ("limit/token_bucket/allow", |runner| limiter(runner, Algorithm::TokenBucket, true)),
    ("limit/keyed/allow", limit_keyed),
    ("budget/success", budget_success),
    ("budget/admit_and_settle", budget_admit),
    ("balance/round_robin/pick", |runner| pick(runner, balance::Algorithm::RoundRobin)),
    ("balance/weighted_round_robin/pick", |runner| {
        pick(runner, balance::Algorithm::WeightedRoundRobin)
    }),
    ("balance/least_request/pick", |runner| pick(runner, balance::Algorithm::LeastRequest)),
    ("balance/peak_ewma/pick", |runner| pick(runner, balance::Algorithm::PeakEwma)),
    ("balance/start_and_settle", load),
    ("outlier/settle", outlier_settle),
    ("breaker/admit_and_settle", breaker_admit),
    ("bulkhead/admit_and_release", bulkhead_admit),
    ("call/five_patterns", call),
    ("hedge/deposit_and_delay", hedge_delay),
    ("quantile/record", quantile_record),
];

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => CASES.iter().for_each(|(name, _)| println!("{name}")),
        ["time", filter @ ..] => {
            for (name, case) in
                CASES.iter().filter(|(name, _)| filter.iter().all(|filter| name.contains(filter)))
            {
                print!("{name:<36}");
                case(Runner::Time);
            }
        }
        [name, times] => {
            let (_, case) =
                CASES.iter().find(|(case, _)| case == name).expect("a case of the list");
            case(Runner::Count(times.parse().expect("a number")));
        }
        _ => println!("instructions [CASE TIMES | time [FILTER]]"),
    }
}

/// What to do with a case.
enum Runner {
    /// Run it so often; somebody counts.
    Count(u64),
    /// Print the time of one run.
    Time,
}

impl Runner {
    fn run<T>(self, mut work: impl FnMut() -> T) {
        match self {
            Self::Count(times) => (0..times).for_each(|_| drop(black_box(work()))),
            Self::Time => {
                const BATCH: u32 = 10_000;
                let fastest = (0..600)
                    .map(|_| {
                        let began = Clock::now();
                        (0..BATCH).for_each(|_| drop(black_box(work())));
                        began.elapsed()
                    })
                    .min()
                    .unwrap_or_default();
                println!("{:>8.1} ns", fastest.as_nanos() as f64 / f64::from(BATCH));
            }
        }
    }
}

/// A clock that goes on by a microsecond each time it is read.
struct Ticks(u64);

impl Ticks {
    fn next(&mut self) -> Instant {
        self.0 += 1_000;
        Instant::from_nanos(self.0)
    }
}

fn limit_config(algorithm: Algorithm) -> limit::Config {
    limit::Config { algorithm, rate: Rate::per_second(1_000_000), burst: 1_000 }
}

fn limiter(runner: Runner, algorithm: Algorithm, allow: bool) {
    let limiter = Limiter::new(limit_config(algorithm)).expect("valid");
    let mut ticks = Ticks(0);
    if allow {
        runner.run(|| limiter.admit(ticks.next(), black_box(1)));
    } else {
        while limiter.admit(Instant::ZERO, 1).is_ok() {}
        runner.run(|| limiter.admit(black_box(Instant::ZERO), 1));
    }
}

fn limit_keyed(runner: Runner) {
    let config = keyed::Config { limit: limit_config(Algorithm::Gcra), ..keyed::Config::default() };
    let keyed = Keyed::new(config, 1).expect("valid");
    let keys: Vec<String> = (0..64).map(|key| format!("api-key-{key}")).collect();
    let mut ticks = Ticks(0);
    let mut turn = 0;
    runner.run(|| {
        turn = (turn + 1) % keys.len();
        keyed.admit(ticks.next(), keys[turn].as_bytes(), 1)
    });
}

fn budget_success(runner: Runner) {
    let budget = Budget::new(budget::Config::default());
    let mut ticks = Ticks(0);
    runner.run(|| budget.success(ticks.next()));
}

fn budget_admit(runner: Runner) {
    let config = budget::Config { per_second: 1_000_000, ..budget::Config::default() };
    let budget = Budget::new(config);
    let mut ticks = Ticks(0);
    runner.run(|| {
        if let Ok(extra) = budget.admit(ticks.next(), black_box(100)) {
            budget.settle(extra);
        }
    });
}

struct Pool(Vec<Load>);

impl Candidates for Pool {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn load(&self, index: usize) -> &Load {
        &self.0[index]
    }

    fn standing(&self, _: usize) -> Standing {
        Standing::Usable
    }
}

fn pick(runner: Runner, algorithm: balance::Algorithm) {
    let balancer = Balancer::new(balance::Config { algorithm, ..balance::Config::default() });
    let pool =
        Pool((0..8).map(|_| Load::seeded(Instant::ZERO, Duration::from_millis(5))).collect());
    let mut rng = SplitMix64::new(1);
    let mut ticks = Ticks(0);
    runner.run(|| balancer.pick(ticks.next(), &pool, &mut rng));
}

fn load(runner: Runner) {
    let config = balance::Config::default();
    let load = Load::new();
    let mut ticks = Ticks(0);
    runner.run(|| {
        load.start();
        load.settle(ticks.next(), &config, black_box(Duration::from_millis(5)), Outcome::Success);
    });
}

fn outlier_settle(runner: Runner) {
    let hosts: Vec<Host> = (0..8).map(|_| Host::new()).collect();
    let detector = Detector::new(Instant::ZERO, outlier::Config::default());
    let mut ticks = Ticks(0);
    runner.run(|| detector.settle(ticks.next(), hosts.as_slice(), black_box(3), Outcome::Success));
}

fn breaker_admit(runner: Runner) {
    let breaker = breaker::Shared::new(Instant::ZERO, breaker::Config::default(), 1);
    let mut ticks = Ticks(0);
    runner.run(|| {
        let now = ticks.next();
        let permit = breaker.admit(now).0.expect("closed");
        breaker.settle(now, permit, Outcome::Success)
    });
}

fn bulkhead_admit(runner: Runner) {
    let bulkhead = Bulkhead::new(bulkhead::Config::default(), None);
    let mut ticks = Ticks(0);
    runner.run(|| {
        let permit = bulkhead.try_admit().expect("room");
        bulkhead.release(ticks.next(), permit);
    });
}

/// A call that goes well through deadline, retry, breaker, bulkhead and timeout.
fn call(runner: Runner) {
    let policy = Policy {
        retry: Some(retry::Config::default()),
        budget: Some(budget::Config::default()),
        breaker: Some(breaker::Config::default()),
        bulkhead: Some(bulkhead::Config::default()),
        ..Policy::default()
    };
    let service = Service::new(Instant::ZERO, policy, vec![Target::new("one")], 1);
    let mut rng = SplitMix64::new(1);
    let mut ticks = Ticks(0);
    runner.run(|| {
        let now = ticks.next();
        let mut call = Call::begin(now, &service, Request::new(Safety::Safe));
        let Step::Start(attempt) = call.next(now, &service, &mut rng) else {
            unreachable!("it starts")
        };
        call.settle(now, &service, attempt.number, Outcome::Success);
        let end = call.next(now, &service, &mut rng);
        call.finish(now, &service);
        end
    });
}

fn hedge_delay(runner: Runner) {
    let hedge = Hedge::new(Instant::ZERO, hedge::Config::default());
    runner.run(|| {
        hedge.deposit();
        hedge.delay(black_box(Instant::ZERO))
    });
}

fn quantile_record(runner: Runner) {
    let quantile = quantile::Shared::new(Instant::ZERO, 0.95, Duration::from_secs(10), 100);
    let mut ticks = Ticks(0);
    runner.run(|| quantile.record(ticks.next(), black_box(Duration::from_millis(5))));
}
