use proptest::prelude::*;

use super::*;
use crate::limit::{Algorithm, Limiter, Rate};
use crate::time::Duration;

fn limit(rate: u32, burst: u32) -> crate::limit::Config {
    crate::limit::Config { algorithm: Algorithm::Gcra, rate: Rate::per_second(rate), burst }
}

fn keyed(keys_max: u32) -> Keyed {
    Keyed::new(Config { limit: limit(1, 2), keys_max, overflow: None }, 7).unwrap()
}

#[test]
fn keys_do_not_touch_each_other() {
    let keyed = keyed(100);
    for key in [b"a", b"b"] {
        assert!(keyed.admit(Instant::ZERO, key, 2).is_ok());
        assert!(keyed.admit(Instant::ZERO, key, 1).is_err());
    }
    assert_eq!(keyed.view(), View { keys: 2, overflowed: 0 });
}

#[test]
fn memory_is_bounded_and_the_rest_share_one_limit() {
    let keyed = keyed(10);
    for key in 0u32..10 {
        assert!(keyed.admit(Instant::ZERO, &key.to_le_bytes(), 1).is_ok());
    }
    // Ten keys are active: the others together get as much as one.
    let admitted = (10u32..1_010)
        .filter(|key| keyed.admit(Instant::ZERO, &key.to_le_bytes(), 1).is_ok())
        .count();
    assert_eq!(admitted, 2);
    let rejected = keyed.admit(Instant::ZERO, b"late", 1).unwrap_err();
    assert_eq!(
        (rejected.reason, rejected.retry_after),
        (Reason::Overflow, Some(Duration::from_secs(1)))
    );
    assert_eq!(keyed.view(), View { keys: 10, overflowed: 1_001 });
    assert!(
        keyed.admit(Instant::ZERO, &3u32.to_le_bytes(), 1).is_ok(),
        "a known key keeps its own limit"
    );
}

#[test]
fn a_key_is_forgotten_when_its_burst_is_whole_again() {
    let keyed = keyed(10);
    for key in 0u32..10 {
        keyed.admit(Instant::ZERO, &key.to_le_bytes(), 1).unwrap();
    }
    let before = Instant::from_nanos(999_999_999);
    assert_eq!(keyed.admit(before, b"new", 2).map(drop), Ok(()), "through the shared limit");
    assert_eq!(keyed.view().overflowed, 1);
    let after = Instant::from_millis(1_000);
    assert!(keyed.admit(after, b"new", 2).is_ok(), "in a place of its own");
    assert_eq!(keyed.view().overflowed, 1);
    assert!(keyed.view().keys < 10, "the sweep gains on arrivals: {}", keyed.view().keys);
}

#[test]
fn many_keys_spread_over_shards() {
    let keyed = keyed(100_000);
    for key in 0u32..50_000 {
        assert!(keyed.admit(Instant::ZERO, &key.to_le_bytes(), 1).is_ok());
    }
    assert_eq!(keyed.view(), View { keys: 50_000, overflowed: 0 });
    // Twice the time it takes each to be forgotten, and as many new ones.
    for key in 50_000u32..100_000 {
        assert!(keyed.admit(Instant::from_millis(5_000), &key.to_le_bytes(), 1).is_ok());
    }
    assert!(
        keyed.view().keys <= 50_000 + 16,
        "old keys went as new ones came: {}",
        keyed.view().keys
    );
}

#[test]
fn a_cost_that_never_passes_says_so_even_in_overflow() {
    let keyed = keyed(1);
    keyed.admit(Instant::ZERO, b"a", 1).unwrap();
    assert_eq!(keyed.admit(Instant::ZERO, b"b", 3).unwrap_err().reason, Reason::TooLarge);
}

#[test]
fn wrong_configurations() {
    assert_eq!(Config::default().validate(), Ok(()));
    let config = Config { keys_max: 0, ..Config::default() };
    assert_eq!(config.validate().unwrap_err().key, "keys_max");
    let config = Config { overflow: Some(limit(0, 1)), ..Config::default() };
    assert_eq!(config.validate().unwrap_err().key, "rate");
}

proptest! {
    /// With places for all, each key is a limiter of its own, whatever is swept meanwhile.
    #[test]
    fn a_key_is_a_limiter(script in prop::collection::vec((0u8..6, 0u64..3_000, 0u32..4), 1..300)) {
        let keyed = Keyed::new(Config { limit: limit(1, 3), keys_max: 6, overflow: None }, 1).unwrap();
        let limiters: Vec<Limiter> = (0..6).map(|_| Limiter::new(limit(1, 3)).unwrap()).collect();
        let mut now = Instant::ZERO;
        for (key, pause_ms, cost) in script {
            now = now + Duration::from_millis(pause_ms);
            prop_assert_eq!(keyed.admit(now, &[key], cost), limiters[usize::from(key)].admit(now, cost));
        }
    }
}
