use core::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::random::{Rng, SplitMix64};

/// Always draws the same `U`.
struct Fixed(f64);

impl Rng for Fixed {
    fn next_u64(&mut self) -> u64 {
        (self.0 * (1u64 << 53) as f64) as u64 * (1 << 11)
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn waits(config: &Config, rng: &mut impl Rng, count: usize) -> Vec<Duration> {
    let mut backoff = Backoff::new();
    (0..count).map(|_| backoff.next(config, rng)).collect()
}

/// Catalogue vector "backoff-003".
#[test]
fn doubles_up_to_the_cap() {
    let config =
        Config { base: ms(100), cap: ms(30_000), jitter: Jitter::None, ..Config::default() };
    let expected = [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000];
    assert_eq!(waits(&config, &mut Fixed(0.5), 11), expected.map(ms));
}

#[test]
fn linear_and_constant() {
    let config = Config { base: ms(100), cap: ms(250), jitter: Jitter::None, ..Config::default() };
    let linear = Config { shape: Shape::Linear, ..config };
    assert_eq!(waits(&linear, &mut Fixed(0.0), 4), [100, 200, 250, 250].map(ms));
    let constant = Config { shape: Shape::Constant, ..config };
    assert_eq!(waits(&constant, &mut Fixed(0.0), 3), [100, 100, 100].map(ms));
}

/// Catalogue vector "backoff-002c": four waits within [0,1], [0,2], [0,4], [0,8] s.
#[test]
fn full_jitter_stays_below_the_shape() {
    let config = Config { base: ms(1_000), cap: ms(60_000), ..Config::default() };
    assert_eq!(waits(&config, &mut Fixed(0.5), 4), [500, 1_000, 2_000, 4_000].map(ms));
    assert_eq!(waits(&config, &mut Fixed(0.0), 4), [0, 0, 0, 0].map(ms));
}

#[test]
fn equal_jitter_keeps_half() {
    let config = Config { base: ms(100), jitter: Jitter::Equal, ..Config::default() };
    assert_eq!(waits(&config, &mut Fixed(0.0), 3), [50, 100, 200].map(ms));
    assert_eq!(waits(&config, &mut Fixed(0.5), 3), [75, 150, 300].map(ms));
}

/// Resilience vector 6.
#[test]
fn decorrelated_v2() {
    let config = Config {
        base: ms(1_000),
        cap: ms(60_000),
        jitter: Jitter::DecorrelatedV2,
        ..Config::default()
    };
    for (u, expected) in [
        (0.5, [0.8974, 1.0930, 2.0357, 4.0460, 8.0836]),
        (0.0, [0.0, 1.3772, 1.4601, 2.8658, 5.7178]),
    ] {
        for (wait, expected) in waits(&config, &mut Fixed(u), 5).into_iter().zip(expected) {
            assert!(
                (wait.as_secs_f64() - expected).abs() < 1e-4,
                "U={u}: {wait:?} is not {expected}"
            );
        }
    }
}

#[test]
fn decorrelated_v2_far_out_stays_at_the_cap() {
    let config = Config { jitter: Jitter::DecorrelatedV2, ..Config::default() };
    assert_eq!(waits(&config, &mut Fixed(0.5), 3_000).last(), Some(&config.cap));
}

#[test]
fn the_server_is_heeded_within_bounds() {
    let slack = ms(5_000);
    assert_eq!(hinted(ms(100), ms(50), slack), ms(100), "never sooner than we would have");
    assert_eq!(hinted(ms(100), ms(2_000), slack), ms(2_000));
    assert_eq!(hinted(ms(100), ms(3_600_000), slack), ms(5_100));
}

/// Resilience vector 5: a hundred clients, each writing once with optimistic
/// concurrency control; whoever loses the race backs off. Full and equal
/// jitter need the fewest calls, none the most, and full less than half of
/// what bare exponential needs.
#[test]
fn jitter_thins_out_contention() {
    let calls = |jitter| {
        // The model counts the first try as one: its first wait is twice its base of 5 ms.
        let base = if jitter == Jitter::Decorrelated { ms(5) } else { ms(10) };
        let config = Config { base, cap: ms(2_000), shape: Shape::default(), jitter };
        mean_calls(|backoff, rng| backoff.next(&config, rng))
    };
    let (full, equal) = (calls(Jitter::Full), calls(Jitter::Equal));
    let (decorrelated, exponential) = (calls(Jitter::Decorrelated), calls(Jitter::None));
    let none = mean_calls(|_, _| Duration::ZERO);
    assert!(full < 0.5 * exponential, "full {full}, exponential {exponential}");
    assert!((full - equal).abs() < 0.1 * full, "full {full}, equal {equal}");
    assert!(full.max(equal) < decorrelated, "decorrelated {decorrelated}");
    assert!(decorrelated < exponential && exponential < none, "{exponential} {none}");
    for (measured, published) in
        [(full, 795.0), (equal, 813.0), (decorrelated, 999.0), (exponential, 1_868.0)]
    {
        assert!((measured - published).abs() < 0.1 * published, "{measured} is not {published}");
    }
}

/// Mean number of writes over seeded runs of a hundred clients.
fn mean_calls(mut wait: impl FnMut(&mut Backoff, &mut SplitMix64) -> Duration) -> f64 {
    const RUNS: u64 = 30;
    let mut calls = 0u64;
    for seed in 0..RUNS {
        let mut rng = SplitMix64::new(seed);
        // (arrival in ns, client, the version read or none while it reads)
        let mut events = BinaryHeap::new();
        let mut backoffs = [Backoff::new(); 100];
        let mut version = 0u64;
        for client in 0..100usize {
            events.push(Reverse((network(&mut rng), client, None)));
        }
        while let Some(Reverse((at, client, read))) = events.pop() {
            match read {
                // The read arrives at the server, its answer comes home and the write goes out.
                None => {
                    let there = at + network(&mut rng) + network(&mut rng);
                    events.push(Reverse((there, client, Some(version))));
                }
                Some(read) => {
                    calls += 1;
                    if read == version {
                        version += 1;
                    } else {
                        let home = at + network(&mut rng);
                        let wait = wait(&mut backoffs[client], &mut rng).as_nanos() as u64;
                        events.push(Reverse((home + wait + network(&mut rng), client, None)));
                    }
                }
            }
        }
    }
    calls as f64 / RUNS as f64
}

/// |N(10, 2)| ms in nanoseconds.
fn network(rng: &mut SplitMix64) -> u64 {
    let (u, v) = (1.0 - rng.unit(), rng.unit());
    let normal = (-2.0 * u.ln()).sqrt() * (core::f64::consts::TAU * v).cos();
    ((10.0 + 2.0 * normal).abs() * 1e6) as u64
}

proptest! {
    /// Catalogue vector "jitter-bounds", for every shape and jitter.
    #[test]
    fn every_wait_is_within_bounds(
        seed: u64,
        base in 1u64..1_000,
        cap_factor in 1u64..100,
        factor in 1.0f64..4.0,
        shape in 0..3,
        jitter in 0..5,
    ) {
        let shape = [Shape::Constant, Shape::Linear, Shape::Exponential { factor }][shape as usize];
        let jitter = [
            Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated, Jitter::DecorrelatedV2,
        ][jitter as usize];
        let config = Config { shape, base: ms(base), cap: ms(base * cap_factor), jitter };
        config.validate().unwrap();
        for (n, wait) in waits(&config, &mut SplitMix64::new(seed), 20).into_iter().enumerate() {
            prop_assert!(wait <= config.cap);
            let nominal = config.nominal(n as u32);
            match jitter {
                Jitter::None => prop_assert_eq!(wait, nominal),
                Jitter::Full => prop_assert!(wait <= nominal),
                Jitter::Equal => prop_assert!(wait >= nominal / 2 && wait <= nominal),
                Jitter::Decorrelated => prop_assert!(wait >= config.base.min(config.cap)),
                Jitter::DecorrelatedV2 => {}
            }
        }
    }
}
