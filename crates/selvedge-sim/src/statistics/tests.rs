use super::{estimate, mser5, normal_quantile, quantile, slope, student_t, wilson};

#[track_caller]
fn near(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "got {got}, expected {expected} ± {tolerance}");
}

#[test]
fn quantiles_of_known_distributions() {
    near(normal_quantile(0.5), 0.0, 1e-15);
    near(normal_quantile(0.975), 1.959_963_984_540_054, 1e-12);
    near(normal_quantile(0.99), 2.326_347_874_040_841, 1e-12);
    near(normal_quantile(1e-10), -6.361_340_902_404_056, 1e-10);
    near(student_t(0.975, 1.0), 12.706_204_736, 1e-6);
    near(student_t(0.975, 4.0), 2.776_445_105, 1e-6);
    near(student_t(0.975, 19.0), 2.093_024_054, 1e-6);
    near(student_t(0.95, 39.0), 1.684_875_122, 1e-6);
}

#[test]
fn an_interval_of_a_mean() {
    let e = estimate(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    near(e.mean, 3.0, 1e-12);
    near(e.half_width, 2.776_445_105 * (0.5f64).sqrt(), 1e-6);
    assert!(estimate(&[1.0]).half_width.is_infinite());
    assert!(estimate(&[]).half_width.is_infinite());
}

#[test]
fn an_interval_of_a_proportion_is_never_empty() {
    let (low, high) = wilson(20, 20);
    near(low, 0.8389, 1e-4);
    near(high, 1.0, 1e-12);
    let (low, high) = wilson(0, 20);
    near(low, 0.0, 1e-12);
    near(high, 0.1611, 1e-4);
    let (low, high) = wilson(5, 10);
    near(low, 0.2366, 1e-4);
    near(high, 0.7634, 1e-4);
}

#[test]
fn warm_up_is_found_where_it_ends() {
    let series: Vec<f64> = (0..200)
        .map(|i| if i < 30 { f64::from(i) / 30.0 } else { 1.0 + f64::from(i % 3) * 0.01 })
        .collect();
    let cut = mser5(&series);
    assert!((25..=40).contains(&cut), "cut at {cut}");
}

#[test]
fn order_statistics_and_slope() {
    near(quantile(&[4.0, 1.0, 3.0, 2.0], 0.5), 2.5, 1e-12);
    near(slope(&[1.0, 3.0, 5.0, 7.0]), 2.0, 1e-12);
}
