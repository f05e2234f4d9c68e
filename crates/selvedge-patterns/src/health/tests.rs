use proptest::prelude::*;

use super::*;
use crate::random::SplitMix64;

/// Runs checks: `.` passes, `x` fails. The answer has the state after each: `+` healthy, `-` not.
fn check(script: &str, trace: &str) {
    let config = Config::default();
    let mut rng = SplitMix64::new(1);
    let mut checker = Checker::new(Instant::ZERO, &config, &mut rng);
    let found: String = script
        .chars()
        .map(|letter| {
            let now = checker.next_wakeup();
            let check = checker.wake(now, &config, &mut rng).expect("it is due");
            let before = checker.healthy();
            let transition = checker.settle(now, &config, check, letter == '.', &mut rng);
            assert_eq!(transition.is_some(), checker.healthy() != before);
            if checker.healthy() { '+' } else { '-' }
        })
        .collect();
    assert_eq!(found, trace, "{script}");
}

#[test]
fn three_failures_take_it_out() {
    check(".xxx", "+++-");
}

#[test]
fn two_successes_bring_it_back() {
    check(".xxx.x..", "+++----+");
}

#[test]
fn a_success_breaks_the_row() {
    check(".xx.xx.xx", "+++++++++");
}

#[test]
fn the_first_result_decides() {
    check("x..", "--+");
    check(".", "+");
}

#[test]
fn only_one_check_at_a_time_and_on_time() {
    let config = Config::default();
    let mut rng = SplitMix64::new(1);
    let mut checker = Checker::new(Instant::ZERO, &config, &mut rng);
    let due = checker.next_wakeup();
    assert!(due <= Instant::from_millis(500), "the jitter of one interval");
    let check = checker.wake(due, &config, &mut rng).unwrap();
    assert_eq!(check.deadline, due + Duration::from_secs(1));
    assert!(checker.wake(due + Duration::from_secs(5), &config, &mut rng).is_none());
    checker.settle(due + Duration::from_millis(20), &config, check, true, &mut rng);
    let next = checker.next_wakeup().since(due + Duration::from_millis(20));
    assert!((4_500..=5_500).contains(&(next.as_millis() as u64)), "{next:?}");
}

#[test]
fn a_lost_check_does_not_stop_all_others_and_its_result_is_ignored() {
    let config = Config::default();
    let mut rng = SplitMix64::new(1);
    let mut checker = Checker::new(Instant::ZERO, &config, &mut rng);
    let lost = checker.wake(checker.next_wakeup(), &config, &mut rng).unwrap();
    let due = checker.next_wakeup();
    let next = checker.wake(due, &config, &mut rng).expect("due again");
    assert_eq!(checker.settle(due, &config, lost, false, &mut rng), None);
    assert!(checker.healthy(), "a late result says nothing");
    assert_eq!(
        checker.settle(due, &config, next, false, &mut rng),
        Some(Transition::Failed { checks: 1 })
    );
}

#[test]
fn shared_form_shows_the_same() {
    let config = Config::default();
    let mut rng = SplitMix64::new(1);
    let shared = Shared::new(Instant::ZERO, &config, &mut rng);
    assert!(shared.healthy());
    let now = shared.next_wakeup();
    let check = shared.wake(now, &config, &mut rng).unwrap();
    assert_eq!(
        shared.settle(now, &config, check, false, &mut rng),
        Some(Transition::Failed { checks: 1 })
    );
    assert!(!shared.healthy());
    assert_eq!(
        shared.view(),
        View { healthy: false, checks: 1, against: 0, next_check: shared.next_wakeup() }
    );
}

#[test]
fn wrong_configurations() {
    assert_eq!(Config::default().validate(), Ok(()));
    let wrong = |config: Config| config.validate().unwrap_err().key;
    assert_eq!(wrong(Config { every: Duration::ZERO, ..Config::default() }), "every");
    assert_eq!(wrong(Config { jitter: 1.5, ..Config::default() }), "jitter");
    assert_eq!(wrong(Config { healthy_after: 0, ..Config::default() }), "healthy_after");
    let http = |path: &str, expect| Config {
        kind: Kind::Http { path: path.into(), host: None, expect },
        ..Config::default()
    };
    assert_eq!(wrong(http("healthz", 200..=200)), "path");
    assert_eq!(wrong(http("/", 200..=600)), "expect");
}

proptest! {
    /// The state is what the last results say: it changed only after enough in a row.
    #[test]
    fn state_follows_rows(results in prop::collection::vec(any::<bool>(), 1..60), seed: u64) {
        let config = Config { healthy_after: 3, unhealthy_after: 4, ..Config::default() };
        let mut rng = SplitMix64::new(seed);
        let mut checker = Checker::new(Instant::ZERO, &config, &mut rng);
        let mut healthy = true;
        for (number, &passed) in results.iter().enumerate() {
            let now = checker.next_wakeup();
            let check = checker.wake(now, &config, &mut rng).expect("due");
            checker.settle(now, &config, check, passed, &mut rng);
            let row = results[..=number].iter().rev().take_while(|&&result| result == passed).count();
            let needed = if passed { 3 } else { 4 };
            if row >= needed || number == 0 {
                healthy = passed;
            }
            prop_assert_eq!(checker.healthy(), healthy);
            prop_assert!(checker.next_wakeup() > now);
        }
    }
}
