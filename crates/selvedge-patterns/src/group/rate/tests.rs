use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limit::{Config, Rate};

fn config(count: u32, burst: u32) -> Config {
    Config { rate: Rate::per_second(count), burst, ..Config::default() }
}

fn at(micros: u64) -> Wall {
    Wall::from_micros(1_800_000_000_000_000 + micros)
}

#[test]
fn a_burst_goes_through_and_then_one_at_a_time() {
    let mut gate = Gate::new(config(10, 3)).unwrap();
    for _ in 0..3 {
        assert_eq!(gate.closed_until(at(0)), None);
        assert!(gate.pass(at(0)));
    }
    assert!(!gate.pass(at(0)));
    assert_eq!(gate.closed_until(at(0)), Some(at(100_000)));
    assert!(!gate.pass(at(99_999)));
    assert!(gate.pass(at(100_000)));
}

#[test]
fn what_was_used_before_a_restart_stays_used() {
    let mut before = Gate::new(config(10, 3)).unwrap();
    while before.pass(at(0)) {}
    let mut after = Gate::new(config(10, 3)).unwrap();
    after.restore(i64::try_from(before.used()).unwrap() as u64);
    assert!(!after.pass(at(1)));
    assert!(after.pass(at(100_000)));
}

#[test]
fn what_is_no_rate_makes_no_gate() {
    assert_eq!(Gate::new(config(0, 1)), None);
    assert_eq!(Gate::new(config(1, 0)), None);
}

proptest! {
    /// In any span of time no more than the burst and the rate's share of the
    /// span goes through, whoever asks how often, across restarts; and what is
    /// named as the next moment is one.
    #[test]
    fn never_more_than_the_rate_and_one_burst(
        count in 1u32..5000,
        burst in 1u32..50,
        steps in prop::collection::vec((0u64..300_000, any::<bool>()), 1..300),
    ) {
        let mut gate = Gate::new(config(count, burst)).unwrap();
        let (mut now, mut passed) = (0, Vec::new());
        for (step, restart) in steps {
            now += step;
            if restart {
                let used = gate.used();
                gate = Gate::new(config(count, burst)).unwrap();
                gate.restore(used);
            }
            match gate.closed_until(at(now)) {
                None => {
                    prop_assert!(gate.pass(at(now)));
                    passed.push(now);
                }
                Some(next) => {
                    prop_assert!(next > at(now) && !gate.pass(at(now)));
                    let mut later = gate;
                    prop_assert!(later.pass(next));
                    let mut early = gate;
                    prop_assert!(!early.pass(next - Duration::from_micros(1)));
                }
            }
        }
        for (n, from) in passed.iter().enumerate() {
            for (m, to) in passed.iter().enumerate().skip(n) {
                let share = (to - from) as f64 / 1e6 * f64::from(count);
                prop_assert!(((m - n) as f64) < f64::from(burst) + share + 1e-3);
            }
        }
    }
}
