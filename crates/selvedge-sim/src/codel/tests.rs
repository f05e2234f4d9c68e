use super::CoDel;
use crate::theory::codel_drops;

/// V30, at several intervals: under persistent overload the drops follow the control law.
#[test]
fn drops_follow_the_control_law() {
    for interval_ms in [10.0, 50.0, 100.0, 250.0] {
        let interval = (interval_ms * 1e6) as u64;
        let mut codel = CoDel::default();
        let mut drops = Vec::new();
        let step = 10_000;
        let mut now = 0;
        while drops.len() < 12 {
            if codel.drops(now, interval, false, interval / 20, interval) {
                drops.push(now);
            }
            now += step;
        }
        for (n, expected) in codel_drops(interval_ms, 11).iter().enumerate() {
            let got = (drops[n + 1] - drops[0]) as f64 / 1e6;
            assert!((got - expected).abs() <= 0.011, "drop {n} at {got} ms, expected {expected}");
        }
    }
}

#[test]
fn a_short_wait_ends_the_drops() {
    let mut codel = CoDel::default();
    let (target, interval) = (5, 100);
    assert!(!codel.drops(0, 50, false, target, interval));
    assert!(!codel.drops(99, 50, false, target, interval));
    assert!(codel.drops(100, 50, false, target, interval));
    assert!(!codel.drops(101, 1, false, target, interval));
    assert!(!codel.drops(201, 50, false, target, interval), "the wait must last an interval again");
    assert!(!codel.drops(400, 50, true, target, interval), "never the last one");
}
