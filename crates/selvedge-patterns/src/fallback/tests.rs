use super::*;
use crate::outcome::Failure;

const T: Instant = Instant::from_millis(1_000_000);
const BAD: Outcome = Outcome::Failure(Failure::Server);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn the_last_good_answer_stands_in_while_fresh_enough() {
    let config = Config { stale_for: Some(MINUTE), fixed: false };
    let choose = |age| config.choose(T, Safety::Safe, BAD, Some(T - age));
    assert_eq!(choose(MINUTE), Choice::Stale { age: MINUTE });
    assert_eq!(choose(MINUTE + Duration::from_nanos(1)), Choice::None);
    assert_eq!(config.choose(T, Safety::Safe, BAD, None), Choice::None);
}

#[test]
fn a_fixed_answer_comes_second() {
    let config = Config { stale_for: Some(MINUTE), fixed: true };
    assert_eq!(config.choose(T, Safety::Safe, Outcome::Local, Some(T - MINUTE * 2)), Choice::Fixed);
    assert_eq!(
        config.choose(T, Safety::Safe, Outcome::Local, Some(T)),
        Choice::Stale { age: Duration::ZERO }
    );
}

#[test]
fn a_write_is_never_answered_from_memory() {
    let config = Config { stale_for: Some(MINUTE), fixed: false };
    assert_eq!(config.choose(T, Safety::Idempotent, BAD, Some(T)), Choice::None);
    assert!(config.keeps(Safety::Safe, Outcome::Success));
    assert!(!config.keeps(Safety::Idempotent, Outcome::Success));
    assert!(!config.keeps(Safety::Safe, BAD));
}

#[test]
fn what_is_not_a_failure_of_the_dependency_stands() {
    let config = Config { stale_for: Some(MINUTE), fixed: true };
    for outcome in [Outcome::Success, Outcome::ClientFault, Outcome::Cancelled] {
        assert_eq!(config.choose(T, Safety::Safe, outcome, Some(T)), Choice::None);
    }
}

#[test]
fn a_fallback_on_nothing_is_refused() {
    assert!(Config::default().validate().is_err());
    assert!(Config { stale_for: Some(Duration::ZERO), fixed: true }.validate().is_err());
    assert!(Config { stale_for: None, fixed: true }.validate().is_ok());
}
