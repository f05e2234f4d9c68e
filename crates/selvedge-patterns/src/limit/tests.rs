use proptest::prelude::*;

use super::*;

fn config(algorithm: Algorithm, count: u32, per: Duration, burst: u32) -> Config {
    Config { algorithm, rate: Rate { count, per }, burst }
}

fn limiter(algorithm: Algorithm, rate: u32, burst: u32) -> Limiter {
    Limiter::new(config(algorithm, rate, Duration::from_secs(1), burst)).unwrap()
}

fn retry_ms(decision: Decision) -> u64 {
    decision.unwrap_err().retry_after.unwrap().as_millis() as u64
}

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Gcra, Algorithm::TokenBucket];

/// 5/s with a burst of 5: a period of 200 ms.
#[test]
fn published_vectors() {
    for algorithm in ALGORITHMS {
        let limiter = limiter(algorithm, 5, 5);
        let at = |ms| limiter.admit(Instant::from_millis(ms), 1);
        for remaining in (0..5).rev() {
            assert_eq!(at(0).unwrap().remaining, remaining);
        }
        assert_eq!(retry_ms(at(0)), 200);
        assert_eq!(retry_ms(at(100)), 100);
        assert_eq!(retry_ms(at(199)), 1);
        assert!(at(200).is_ok());
        assert_eq!(retry_ms(at(399)), 1);
        assert!(at(400).is_ok());
        for _ in 0..5 {
            assert!(at(2_000).is_ok(), "{algorithm:?}");
        }
        assert_eq!(retry_ms(at(2_000)), 200, "no extra cell after a pause");
    }
}

/// Capacity 10, 1/s: 10 pass, the 11th does not, one more after each second.
#[test]
fn token_bucket_vector() {
    for algorithm in ALGORITHMS {
        let limiter = limiter(algorithm, 1, 10);
        let admitted = |seconds: u64| {
            (0..20)
                .filter(|_| limiter.admit(Instant::from_millis(seconds * 1_000), 1).is_ok())
                .count()
        };
        assert_eq!(admitted(0), 10);
        assert_eq!(admitted(1), 1);
        assert_eq!(admitted(1_000), 10, "never above its capacity");
    }
}

#[test]
fn more_than_the_burst_never_passes() {
    for algorithm in ALGORITHMS {
        let limiter = limiter(algorithm, 5, 5);
        for ms in [0, 1_000_000] {
            let rejected = limiter.admit(Instant::from_millis(ms), 6).unwrap_err();
            assert_eq!((rejected.reason, rejected.retry_after), (Reason::TooLarge, None));
        }
        assert!(limiter.admit(Instant::ZERO, 5).is_ok(), "it took nothing");
    }
}

#[test]
fn many_at_once() {
    for algorithm in ALGORITHMS {
        let limiter = limiter(algorithm, 10, 10);
        assert_eq!(limiter.admit(Instant::ZERO, 7).unwrap().remaining, 3);
        let rejected = limiter.admit(Instant::ZERO, 5).unwrap_err();
        assert_eq!((rejected.remaining, rejected.cost, rejected.limit), (3, 5, 10));
        assert_eq!(rejected.retry_after, Some(Duration::from_millis(200)), "two more are missing");
        assert!(limiter.admit(Instant::ZERO, 3).is_ok(), "a smaller one still passes");
        assert_eq!(limiter.view(Instant::ZERO).reset_after, Duration::from_secs(1));
    }
}

#[test]
fn a_look_changes_nothing() {
    for algorithm in ALGORITHMS {
        let limiter = limiter(algorithm, 10, 10);
        assert_eq!(limiter.view(Instant::ZERO), limiter.view(Instant::ZERO));
        limiter.admit(Instant::ZERO, 10).unwrap();
        assert_eq!(limiter.view(Instant::ZERO).remaining, 0);
        assert_eq!(limiter.view(Instant::from_millis(500)).remaining, 5);
    }
}

/// The period of these rates is no whole number of nanoseconds; after ten
/// years of asking at the very first moment each admission is on time.
#[test]
fn periods_do_not_drift() {
    for count in [3, 7, 999_999_937] {
        let pace = Pace::new(config(Algorithm::Gcra, count, Duration::from_secs(1), 1)).unwrap();
        for years in [0u64, 1, 10, 100] {
            let start = years * 365 * 86_400;
            // Cells that have come due after a whole number of seconds: exact to one nanosecond.
            let cells = u128::from(start) * u128::from(count);
            let due = u128::from(pace.units(Instant::from_millis(start * 1_000)));
            let exact = cells * u128::from(1_000_000_000u64.div_ceil(u64::from(count)));
            assert!(exact.abs_diff(due) <= 2, "{count}/s after {years} years: {due} for {exact}");
        }
    }
}

#[test]
fn a_billion_a_second() {
    let limiter =
        Limiter::new(config(Algorithm::Gcra, 1_000_000_000, Duration::from_secs(1), 1)).unwrap();
    for ns in 0..1_000 {
        assert!(limiter.admit(Instant::from_nanos(ns), 1).is_ok());
        assert_eq!(
            limiter.admit(Instant::from_nanos(ns), 1).unwrap_err().retry_after,
            Some(Duration::from_nanos(1))
        );
    }
}

#[test]
fn one_a_day() {
    for algorithm in ALGORITHMS {
        let limiter = Limiter::new(config(algorithm, 1, Duration::from_secs(86_400), 1)).unwrap();
        assert!(limiter.admit(Instant::ZERO, 1).is_ok());
        let wait = limiter.admit(Instant::from_nanos(1), 1).unwrap_err().retry_after;
        assert_eq!(wait, Some(Duration::from_nanos(86_400_000_000_000 - 1)));
    }
}

#[test]
fn the_end_of_time_does_not_overflow() {
    for algorithm in ALGORITHMS {
        let limiter = limiter(algorithm, 3, 5);
        for _ in 0..10 {
            let _ = limiter.admit(Instant::MAX, 1);
        }
        // A clock that is behind another worker's.
        let _ = limiter.admit(Instant::ZERO, 1);
    }
}

#[test]
fn wrong_configurations() {
    assert_eq!(Config::default().validate(), Ok(()));
    let wrong =
        |count, per, burst| config(Algorithm::Gcra, count, per, burst).validate().unwrap_err().key;
    let second = Duration::from_secs(1);
    assert_eq!(wrong(0, second, 1), "rate");
    assert_eq!(wrong(1, Duration::ZERO, 1), "rate");
    assert_eq!(wrong(u32::MAX, second, 1), "rate");
    assert_eq!(wrong(1, second, 0), "burst");
    assert_eq!(wrong(1, Duration::from_secs(86_400), u32::MAX), "burst");
}

fn any_config() -> impl Strategy<Value = (u32, Duration, u32)> {
    (1u32..2_000_000, 1u64..100_000, 1u32..50)
        .prop_map(|(count, per_ms, burst)| (count, Duration::from_millis(per_ms), burst))
        .prop_filter("at most one per nanosecond", |&(count, per, _)| {
            u128::from(count) <= per.as_nanos()
        })
}

/// Pauses of the order of the period, so that decisions are close calls.
fn any_script() -> impl Strategy<Value = Vec<(f64, u32)>> {
    prop::collection::vec((0.0f64..4.0, 0u32..8), 1..200)
}

proptest! {
    #[test]
    fn gcra_is_a_token_bucket((count, per, burst) in any_config(), script in any_script(), start in 0u64..1 << 60) {
        let [gcra, bucket] = ALGORITHMS.map(|algorithm| Limiter::new(config(algorithm, count, per, burst)).unwrap());
        let mut now = Instant::from_nanos(start);
        for (periods, cost) in script {
            now = now + per.div_f64(f64::from(count)).mul_f64(periods);
            prop_assert_eq!(gcra.admit(now, cost), bucket.admit(now, cost));
        }
    }

    /// In no window does more pass than the burst and what the rate gives.
    #[test]
    fn never_more_than_the_limit((count, per, burst) in any_config(), script in any_script()) {
        let limiter = Limiter::new(config(Algorithm::Gcra, count, per, burst)).unwrap();
        let mut now = Instant::ZERO;
        let mut passed: Vec<(u64, u32)> = Vec::new();
        for (periods, cost) in script {
            now = now + per.div_f64(f64::from(count)).mul_f64(periods);
            if limiter.admit(now, cost).is_ok() {
                passed.push((now.as_nanos(), cost));
            }
        }
        for (first, &(start, _)) in passed.iter().enumerate() {
            let mut sum = 0u128;
            for &(end, cost) in &passed[first..] {
                sum += u128::from(cost);
                // One nanosecond for the rounding of the clock.
                let rate = u128::from(end - start + 1) * u128::from(count);
                prop_assert!((sum - sum.min(u128::from(burst))) * per.as_nanos() <= rate, "{sum} in {start}..{end}");
            }
        }
    }

    /// It passes exactly `retry_after` later, and not a nanosecond before.
    #[test]
    fn retry_after_is_exact((count, per, burst) in any_config(), script in any_script()) {
        for algorithm in ALGORITHMS {
            let mut now = Instant::from_nanos(12_345);
            let mut rule = Rule::new(config(algorithm, count, per, burst)).unwrap().fresh();
            let limits = Rule::new(config(algorithm, count, per, burst)).unwrap();
            for &(periods, cost) in &script {
                now = now + per.div_f64(f64::from(count)).mul_f64(periods);
                let Err(Rejected { retry_after: Some(wait), .. }) = limits.admit(now, &mut rule, cost) else { continue };
                prop_assert!(wait > Duration::ZERO);
                let mut early = rule;
                let just_before = limits.admit(now + wait - Duration::from_nanos(1), &mut early, cost);
                prop_assert_eq!(just_before.unwrap_err().retry_after, Some(Duration::from_nanos(1)));
                let mut on_time = rule;
                prop_assert!(limits.admit(now + wait, &mut on_time, cost).is_ok());
            }
        }
    }

    /// Forgetting a state that says it is fresh changes no later answer.
    #[test]
    fn fresh_means_forgettable((count, per, burst) in any_config(), script in any_script()) {
        for algorithm in ALGORITHMS {
            let rule = Rule::new(config(algorithm, count, per, burst)).unwrap();
            let (mut kept, mut forgotten) = (rule.fresh(), rule.fresh());
            let mut now = Instant::ZERO;
            for &(periods, cost) in &script {
                now = now + per.div_f64(f64::from(count)).mul_f64(periods * 3.0);
                if rule.is_fresh(now, &forgotten) {
                    forgotten = rule.fresh();
                }
                prop_assert_eq!(rule.admit(now, &mut kept, cost), rule.admit(now, &mut forgotten, cost));
            }
        }
    }
}
