use proptest::prelude::*;

use super::*;
use crate::random::{Rng, SplitMix64};

const T: Instant = Instant::from_millis(1_000_000);

fn config(ratio: f64, per_second: u32) -> Config {
    Config { ratio, per_second, in_flight_min: u32::MAX, ..Config::default() }
}

fn grants(budget: &Budget, now: Instant, asks: u32) -> u32 {
    (0..asks).filter(|_| budget.admit(now, 0).map(|extra| budget.settle(extra)).is_ok()).count()
        as u32
}

/// Resilience vector 7 (Finagle): with a frozen clock and no floor, ten
/// thousand deposits and asks grant the ratio, to within one.
#[test]
fn grants_the_ratio() {
    for ratio in [0.0001, 0.001, 0.01, 0.1, 0.25, 0.5, 0.6, 0.75, 0.99, 0.999] {
        let budget = Budget::new(config(ratio, 0));
        let mut granted = 0;
        for _ in 0..10_000 {
            budget.success(T);
            granted += grants(&budget, T, 1);
        }
        assert!((f64::from(granted) - 10_000.0 * ratio).abs() <= 1.0, "{ratio}: {granted}");
    }
}

/// Resilience vector 7: the rest of Finagle's figures, and tower#857.
#[test]
fn published_balances() {
    let double = Budget::new(config(2.0, 0));
    (0..10_000).for_each(|_| double.success(T));
    assert_eq!(double.view(T).balance_millionths, 20_000 * ONE);
    assert_eq!(Budget::new(Config::default()).view(T).balance_millionths, 100 * ONE);

    let not_truncated = Budget::new(config(0.6, 0));
    (0..10).for_each(|_| not_truncated.success(T));
    assert_eq!(grants(&not_truncated, T, 10), 6);

    let window = |window| Config { window, ..Config::default() }.validate().is_ok();
    assert!(!window(Duration::ZERO));
    assert!(!window(Duration::from_secs(61)));
    assert!(window(Duration::from_secs(60)));
    assert!(Config { ratio: f64::NAN, ..Config::default() }.validate().is_err());
}

#[test]
fn the_basis_says_what_deposits() {
    for (basis, by_call, by_success) in [(Basis::Call, 2, 0), (Basis::Success, 0, 2)] {
        let budget = || Budget::new(Config { basis, ..config(1.0, 0) });
        let calls = budget();
        (0..2).for_each(|_| calls.call(T));
        assert_eq!(grants(&calls, T, 5), by_call);
        let successes = budget();
        (0..2).for_each(|_| successes.success(T));
        assert_eq!(grants(&successes, T, 5), by_success);
    }
}

/// Simulation vector V25: a budget of a tenth, saturated, under a failure rate
/// f. A call is tried again until it succeeds or the budget says no.
#[test]
fn load_and_success_of_a_saturated_budget() {
    const CALLS: u32 = 200_000;
    for (basis, failure_rate, load, success) in [
        (Basis::Call, 0.2, 1.10, 0.88),
        (Basis::Call, 0.5, 1.10, 0.55),
        (Basis::Success, 0.2, 1.0870, 0.8696),
        (Basis::Success, 0.5, 1.0526, 0.5263),
    ] {
        let budget = Budget::new(Config { basis, ..config(0.1, 0) });
        let mut luck = SplitMix64::new(25);
        let (mut attempts, mut successes) = (0u32, 0u32);
        for _ in 0..CALLS {
            budget.call(T);
            loop {
                attempts += 1;
                if luck.unit() >= failure_rate {
                    budget.success(T);
                    successes += 1;
                    break;
                }
                match budget.admit(T, 0) {
                    Ok(extra) => budget.settle(extra),
                    Err(_) => break,
                }
            }
        }
        for (measured, expected) in [(attempts, load), (successes, success)] {
            let measured = f64::from(measured) / f64::from(CALLS);
            let near = (measured - expected).abs() < 0.01 * expected;
            assert!(near, "{basis:?} {failure_rate}: {measured} is not {expected}");
        }
    }
}

#[test]
fn nothing_is_earned_while_nothing_succeeds() {
    let budget = Budget::new(config(0.2, 0));
    (0..1_000).for_each(|_| budget.call(T));
    assert_eq!(budget.admit(T, 0), Err(Rejected::Spent { balance_millionths: 0 }));
}

#[test]
fn deposits_and_debts_are_forgotten_after_the_window() {
    let budget = Budget::new(config(1.0, 1));
    assert_eq!(grants(&budget, T, 20), 10, "the floor of ten seconds");
    let window = Duration::from_secs(10);
    assert_eq!(grants(&budget, T + window, 20), 10);
    (0..5).for_each(|_| budget.success(T + window));
    assert_eq!(grants(&budget, T + window * 3, 20), 10, "old deposits are gone");
}

#[test]
fn few_extra_attempts_are_in_flight() {
    let budget = Budget::new(Config { per_second: 1_000, ..Config::default() });
    let three: Vec<Extra> = (0..3).map(|_| budget.admit(T, 10).unwrap()).collect();
    assert_eq!(budget.admit(T, 10), Err(Rejected::InFlight { extra: 3, extra_max: 3 }));
    let fourth = budget.admit(T, 20).expect("a fifth of twenty is four");
    assert_eq!(budget.admit(T, 20), Err(Rejected::InFlight { extra: 4, extra_max: 4 }));
    budget.settle(fourth);
    three.into_iter().for_each(|extra| budget.settle(extra));
    assert_eq!(budget.view(T).extra_in_flight, 0);
}

#[test]
fn what_was_not_sent_costs_nothing() {
    let budget = Budget::new(config(1.0, 0));
    budget.success(T);
    let extra = budget.admit(T, 0).unwrap();
    budget.abandon(T, extra);
    assert_eq!(budget.view(T), View { balance_millionths: ONE, extra_in_flight: 0 });
}

#[test]
fn a_changed_ratio_keeps_what_is_saved() {
    let budget = Budget::new(config(1.0, 0));
    (0..5).for_each(|_| budget.success(T));
    assert_eq!(budget.reconfigured(config(0.1, 0)).view(T).balance_millionths, 5 * ONE);
}

proptest! {
    /// Against a plain model, and the law: in any window no more extra
    /// attempts than the floor and the share of the deposits.
    #[test]
    fn never_more_than_was_earned(
        ratio in 0.0f64..2.0,
        per_second in 0u32..5,
        steps in proptest::collection::vec((0u64..3_000, any::<bool>()), 1..300),
    ) {
        let budget = Budget::new(config(ratio, per_second));
        let slicing = Slicing::new(Duration::from_secs(10));
        let deposit = (ratio * 1e6).round() as i64;
        let mut model: Vec<(u64, i64)> = Vec::new();
        let mut now = T;
        for (gap_ms, success) in steps {
            now = now + Duration::from_millis(gap_ms);
            let epoch = slicing.epoch(now);
            model.retain(|(at, _)| at + SLICES as u64 > epoch);
            let balance = i64::from(per_second) * 10 * ONE
                + model.iter().map(|(_, value)| value).sum::<i64>();
            prop_assert_eq!(budget.view(now).balance_millionths, balance);
            if success {
                budget.success(now);
                model.push((epoch, deposit));
            } else if let Ok(extra) = budget.admit(now, 0) {
                prop_assert!(balance >= ONE);
                budget.settle(extra);
                model.push((epoch, -ONE));
            } else {
                prop_assert!(balance < ONE);
            }
        }
    }
}
