use proptest::prelude::*;

use super::*;
use crate::outcome::Failure;

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn fixed(share: f64, burst: u32) -> Hedge {
    Hedge::new(
        Instant::ZERO,
        Config { delay: Delay::Fixed(millis(10)), share, burst, ..Config::default() },
    )
}

#[test]
fn fixed_until_a_hundred_successes_are_known() {
    let hedge = Hedge::new(Instant::ZERO, Config::default());
    assert_eq!(hedge.delay(Instant::ZERO), millis(100));
    for number in 0..100 {
        hedge.settle(Instant::ZERO, millis(number + 1), Outcome::Success);
        // What failed, or was cut short, says nothing about how long a success takes.
        hedge.settle(Instant::ZERO, millis(9_000), Outcome::Failure(Failure::Timeout));
        hedge.settle(Instant::ZERO, millis(0), Outcome::Cancelled);
    }
    assert_eq!(hedge.delay(Instant::from_millis(9_999)), millis(100), "the period is not over");
    let delay = hedge.delay(Instant::from_millis(10_000));
    assert!(delay >= millis(95) && delay < millis(98), "{delay:?}");
    assert_eq!(hedge.delay(Instant::from_millis(20_000)), millis(100), "nothing new was learnt");
}

#[test]
fn never_shorter_than_the_minimum() {
    let hedge = Hedge::new(Instant::ZERO, Config::default());
    for _ in 0..100 {
        hedge.settle(Instant::ZERO, Duration::from_micros(3), Outcome::Success);
    }
    assert_eq!(hedge.delay(Instant::from_millis(10_000)), millis(1));
}

#[test]
fn only_safe_calls_unless_told_otherwise() {
    let hedge = fixed(0.05, 10);
    assert_eq!(hedge.admit(Safety::Safe, 0), Ok(()));
    assert_eq!(hedge.admit(Safety::Idempotent, 0), Err(Rejected::Unsafe));
    assert_eq!(hedge.admit(Safety::Unsafe, 0), Err(Rejected::Unsafe));
    let told = Hedge::new(Instant::ZERO, Config { idempotent: true, ..Config::default() });
    assert_eq!(told.admit(Safety::Idempotent, 0), Ok(()));
    assert_eq!(told.admit(Safety::Unsafe, 0), Err(Rejected::Unsafe));
}

#[test]
fn one_extra_by_default() {
    assert_eq!(fixed(0.05, 10).admit(Safety::Safe, 1), Err(Rejected::Exhausted { extra: 1 }));
}

/// Capacity 10, 0.05 a call: in the long run one in twenty.
#[test]
fn share_of_first_attempts() {
    let hedge = fixed(0.05, 10);
    let mut sent = 0;
    for _ in 0..10_000 {
        hedge.deposit();
        sent += u32::from(hedge.admit(Safety::Safe, 0).is_ok());
    }
    assert!((500..=510).contains(&sent), "{sent}");
    assert!(
        matches!(hedge.admit(Safety::Safe, 0), Err(Rejected::Share { saved_millionths }) if saved_millionths < 1_000_000)
    );
}

#[test]
fn what_was_not_sent_is_given_back() {
    let hedge = fixed(0.0, 1);
    hedge.admit(Safety::Safe, 0).unwrap();
    hedge.admit(Safety::Safe, 0).unwrap_err();
    hedge.abandon();
    assert_eq!(hedge.admit(Safety::Safe, 0), Ok(()));
    hedge.abandon();
    hedge.abandon();
    hedge.admit(Safety::Safe, 0).unwrap();
    hedge.admit(Safety::Safe, 0).expect_err("never above the burst");
}

#[test]
fn wrong_configurations() {
    assert_eq!(Config::default().validate(), Ok(()));
    let wrong = |config: Config| config.validate().unwrap_err().key;
    assert_eq!(wrong(Config { extra_max: 0, ..Config::default() }), "extra_max");
    assert_eq!(wrong(Config { share: f64::NAN, ..Config::default() }), "share");
    assert_eq!(wrong(Config { delay: Delay::Fixed(Duration::ZERO), ..Config::default() }), "delay");
}

proptest! {
    /// Never more hedges than the burst and the share of first attempts.
    #[test]
    fn share_bounds_hedges(script in prop::collection::vec(any::<bool>(), 0..500), thousandths in 0u32..=1_000, burst in 1u32..20) {
        let share = f64::from(thousandths) / 1_000.0;
        let hedge = fixed(share, burst);
        let (mut calls, mut sent) = (0u32, 0u32);
        for first in script {
            if first {
                calls += 1;
                hedge.deposit();
            } else {
                sent += u32::from(hedge.admit(Safety::Safe, 0).is_ok());
            }
            prop_assert!(f64::from(sent) <= f64::from(burst) + f64::from(calls) * share + 1e-6);
        }
    }
}
