use std::sync::Arc;

use selvedge_patterns::random::SplitMix64;
use selvedge_patterns::time::Duration;

use super::{Distribution, Empirical, Impossible};

fn moments(distribution: &Distribution) -> (f64, f64) {
    let mut rng = SplitMix64::new(5);
    let n = 400_000;
    let (mut sum, mut squares) = (0.0, 0.0);
    for _ in 0..n {
        let x = distribution.draw(&mut rng);
        sum += x;
        squares += x * x;
    }
    let mean = sum / f64::from(n);
    (mean, squares / f64::from(n) / (mean * mean) - 1.0)
}

#[track_caller]
fn check(distribution: &Distribution, tolerance: f64) {
    distribution.validate().unwrap();
    let (mean, scv) = moments(distribution);
    assert!(
        (mean / distribution.mean() - 1.0).abs() < tolerance,
        "mean {mean}, stated {}",
        distribution.mean()
    );
    let stated = distribution.scv();
    assert!((scv - stated).abs() < 8.0 * tolerance * stated.max(0.1), "scv {scv}, stated {stated}");
}

#[test]
fn draws_have_the_stated_moments() {
    let ms = Duration::from_millis;
    check(&Distribution::Constant(ms(3)), 1e-9);
    check(&Distribution::Exponential { mean: ms(10) }, 0.01);
    check(&Distribution::LogNormal { p50: ms(40), p99: ms(220) }, 0.01);
    check(&Distribution::Bimodal { fast: ms(5), slow: ms(100), slow_share: 0.05 }, 0.02);
    let scv4 = Distribution::log_normal_from_moments(Duration::from_secs(1), 4.0);
    assert!((scv4.scv() - 4.0).abs() < 1e-6 && (scv4.mean() / 1e9 - 1.0).abs() < 1e-6);
}

#[test]
fn a_histogram_keeps_its_edges_and_its_mean() {
    // The buckets of an exponential of mean 10 ms, with everything beyond 100 ms in the tail.
    let edges: Vec<f64> = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0, 70.0, 100.0].to_vec();
    let points: Vec<(f64, f64)> =
        edges.iter().map(|ms| (ms * 1e6, 1e6 * (1.0 - (-ms / 10.0f64).exp()))).collect();
    let empirical = Empirical::from_cumulative(&points, 1e6, Some(1e7)).unwrap();
    assert!((empirical.mean / 1e7 - 1.0).abs() < 1e-9, "the recorded mean is kept exactly");
    assert!((empirical.scaled_by - 1.0).abs() < 0.03, "scaled by {}", empirical.scaled_by);
    for (edge, count) in &points {
        let at = empirical.at(count / 1e6) / empirical.scaled_by;
        assert!((at / edge - 1.0).abs() < 0.02, "quantile {} is {at}, edge {edge}", count / 1e6);
    }
    check(&Distribution::Empirical(Arc::new(empirical)), 0.01);
}

#[test]
fn impossible_laws_are_refused_with_the_reason() {
    let ms = Duration::from_millis;
    let falls = Empirical::from_cumulative(&[(1e6, 10.0), (2e6, 5.0)], 10.0, None);
    assert!(falls.unwrap_err().to_string().contains("count 5"));
    let edges = Empirical::from_cumulative(&[(2e6, 1.0), (1e6, 5.0)], 10.0, None);
    assert!(matches!(edges, Err(Impossible::NotRising(_))));
    let heavy = Empirical::from_cumulative(&[(1e6, 1.0), (1e9, 2.0)], 10.0, None);
    assert!(matches!(heavy, Err(Impossible::TailTooHeavy(_))));
    let disagrees = Empirical::from_cumulative(&[(1e6, 5.0), (2e6, 10.0)], 10.0, Some(5e6));
    assert!(matches!(disagrees, Err(Impossible::MeanDisagrees { .. })));
    assert!(Distribution::LogNormal { p50: ms(5), p99: ms(5) }.validate().is_err());
    assert!(
        Distribution::Bimodal { fast: ms(1), slow: ms(2), slow_share: 1.5 }.validate().is_err()
    );
    assert!(Distribution::Exponential { mean: Duration::ZERO }.validate().is_err());
}
