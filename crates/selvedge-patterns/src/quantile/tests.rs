use proptest::prelude::*;

use super::*;

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn buckets_tile_the_line() {
    for index in 0..BUCKETS - 1 {
        let edge = upper_edge(index);
        assert_eq!(bucket(edge), index);
        assert_eq!(bucket(edge + 1), index + 1);
    }
    assert_eq!(bucket(0), 0);
    assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    assert!(upper_edge(BUCKETS - 1) >= 120_000_000_000, "two minutes fit");
}

#[test]
fn p95_of_a_hundred() {
    let mut histogram = Histogram::new();
    assert_eq!(histogram.quantile(0.95), None);
    for ms in 1..=100 {
        histogram.record(millis(ms));
    }
    let p95 = histogram.quantile(0.95).unwrap();
    assert!(p95 >= millis(95) && p95 < millis(98), "{p95:?}");
    assert!(histogram.quantile(0.0).unwrap() < Duration::from_micros(1_040));
    assert!(histogram.quantile(1.0).unwrap() >= millis(100));
}

/// Under one period the old half is read; after one they change places; after two all is forgotten.
#[test]
fn rotation_vectors() {
    let filled = || {
        let mut rotating = Rotating::new(Instant::ZERO, millis(1_000));
        rotating.record(Instant::from_millis(10), millis(5));
        rotating
    };
    assert_eq!(filled().settled(Instant::from_millis(999)).count(), 0);
    assert_eq!(filled().settled(Instant::from_millis(1_000)).count(), 1);
    assert_eq!(filled().settled(Instant::from_millis(1_999)).count(), 1);
    assert_eq!(filled().settled(Instant::from_millis(2_000)).count(), 0);
    let mut rotating = filled();
    rotating.settled(Instant::from_millis(1_500));
    assert_eq!(
        rotating.settled(Instant::from_millis(2_400)).count(),
        1,
        "a period from the rotation on"
    );
    assert_eq!(rotating.settled(Instant::from_millis(2_500)).count(), 0);
}

#[test]
fn the_shared_answer_follows_rotations() {
    let shared = Shared::new(Instant::ZERO, 0.95, millis(1_000), 100);
    for _ in 0..100 {
        shared.record(Instant::from_millis(1), millis(20));
    }
    assert_eq!(shared.get(Instant::from_millis(999)), None);
    let answer = shared.get(Instant::from_millis(1_000)).unwrap();
    assert!(answer >= millis(20) && answer < millis(21), "{answer:?}");
    for _ in 0..99 {
        shared.record(Instant::from_millis(1_001), millis(30));
    }
    assert_eq!(shared.get(Instant::from_millis(1_999)), Some(answer));
    assert_eq!(shared.get(Instant::from_millis(2_000)), None, "99 samples are too few");
}

proptest! {
    /// Never too short, and at most one bucket too long.
    #[test]
    fn near_the_exact_quantile(mut samples in prop::collection::vec(0u64..100_000_000_000, 1..200), q in 0.0f64..=1.0) {
        let mut histogram = Histogram::new();
        for &ns in &samples {
            histogram.record(Duration::from_nanos(ns));
        }
        samples.sort_unstable();
        let rank = ((q * samples.len() as f64).ceil() as usize).max(1);
        let exact = samples[rank - 1];
        let found = histogram.quantile(q).unwrap().as_nanos() as u64;
        prop_assert!(found >= exact, "{found} < {exact}");
        prop_assert!(found - exact <= (exact / 31).max(1 << UNIT_BITS), "{found} for {exact}");
    }

    /// The shared form answers as a plain one asked in full would.
    #[test]
    fn shared_equals_plain(script in prop::collection::vec((0u64..700, 1u64..100), 1..200)) {
        let shared = Shared::new(Instant::ZERO, 0.9, millis(1_000), 3);
        let mut plain = Rotating::new(Instant::ZERO, millis(1_000));
        let mut now = Instant::ZERO;
        for (pause, sample) in script {
            now = now + millis(pause);
            let settled = plain.settled(now);
            let expected = if settled.count() < 3 { None } else { settled.quantile(0.9) };
            prop_assert_eq!(shared.get(now), expected);
            shared.record(now, millis(sample));
            plain.record(now, millis(sample));
        }
    }
}
