//! What may be concluded from a handful of replications.
//!
//! Replications are independent, so Student's t gives the interval of a mean
//! and Wilson's score that of a proportion. Pure Rust arithmetic throughout:
//! the same numbers give the same interval on every platform.

/// A mean with its two-sided 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// The mean over replications.
    pub mean: f64,
    /// Half the width of the 95 % interval; infinite with fewer than two replications.
    pub half_width: f64,
    /// The standard error of the mean.
    pub standard_error: f64,
    /// How many replications there were.
    pub count: usize,
}

impl Estimate {
    /// The lower end of the interval.
    #[must_use]
    pub fn low(&self) -> f64 {
        self.mean - self.half_width
    }

    /// The upper end of the interval.
    #[must_use]
    pub fn high(&self) -> f64 {
        self.mean + self.half_width
    }
}

/// The mean of independent `samples` with Student's 95 % interval.
#[must_use]
pub fn estimate(samples: &[f64]) -> Estimate {
    let count = samples.len();
    if count == 0 {
        return Estimate { half_width: f64::INFINITY, ..Estimate::default() };
    }
    let mean = samples.iter().sum::<f64>() / count as f64;
    if count == 1 {
        return Estimate { mean, half_width: f64::INFINITY, standard_error: f64::INFINITY, count };
    }
    let variance =
        samples.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (count - 1) as f64;
    let standard_error = libm::sqrt(variance / count as f64);
    Estimate {
        mean,
        half_width: student_t(0.975, (count - 1) as f64) * standard_error,
        standard_error,
        count,
    }
}

/// The 95 % Wilson score interval for `successes` out of `trials`.
///
/// Source: Wilson, "Probable inference, the law of succession, and statistical
/// inference", JASA 1927. Never empty, even at 0 or all of them.
#[must_use]
pub fn wilson(successes: usize, trials: usize) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let z = 1.959_963_984_540_054;
    let n = trials as f64;
    let p = successes as f64 / n;
    let centre = p + z * z / (2.0 * n);
    let spread = z * libm::sqrt(p * (1.0 - p) / n + z * z / (4.0 * n * n));
    let scale = 1.0 + z * z / n;
    (((centre - spread) / scale).max(0.0), ((centre + spread) / scale).min(1.0))
}

/// The `q` quantile of sorted or unsorted `samples`, linearly interpolated; NaN for none.
#[must_use]
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let rank = q * last as f64;
    let low = rank as usize;
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * (rank - low as f64)
}

/// How many leading observations MSER-5 would discard as warm-up.
///
/// Means of five are taken, and the cut that minimises the marginal standard
/// error of what remains is chosen among the first half.
/// Source: White, Cobb, Spratt, "A comparison of five steady-state truncation
/// heuristics for simulation", WSC 2000.
#[must_use]
pub fn mser5(series: &[f64]) -> usize {
    let batches: Vec<f64> =
        series.chunks_exact(5).map(|five| five.iter().sum::<f64>() / 5.0).collect();
    let mut best = (f64::INFINITY, 0);
    for cut in 0..batches.len() / 2 {
        let rest = &batches[cut..];
        let n = rest.len() as f64;
        let mean = rest.iter().sum::<f64>() / n;
        let score = rest.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n * n);
        if score < best.0 {
            best = (score, cut);
        }
    }
    best.1 * 5
}

/// The least-squares slope of `series` against its index.
#[must_use]
pub fn slope(series: &[f64]) -> f64 {
    let n = series.len() as f64;
    if n < 2.0 {
        return 0.0;
    }
    let middle = (n - 1.0) / 2.0;
    let mean = series.iter().sum::<f64>() / n;
    let (mut above, mut below) = (0.0, 0.0);
    for (index, value) in series.iter().enumerate() {
        let x = index as f64 - middle;
        above += x * (value - mean);
        below += x * x;
    }
    above / below
}

/// The point that N(0, 1) stays under with probability `p`.
///
/// Source: Wichura, "Algorithm AS 241", Applied Statistics 1988; relative
/// error under 1e-15.
///
/// # Panics
///
/// If `p` is not strictly between 0 and 1.
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    assert!(p > 0.0 && p < 1.0, "a probability strictly between 0 and 1, not {p}");
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * polynomial(&CENTRE_ABOVE, r) / polynomial(&CENTRE_BELOW, r);
    }
    let r = libm::sqrt(-libm::log(if q < 0.0 { p } else { 1.0 - p }));
    let tail = if r <= 5.0 {
        polynomial(&TAIL_ABOVE, r - 1.6) / polynomial(&TAIL_BELOW, r - 1.6)
    } else {
        polynomial(&FAR_ABOVE, r - 5.0) / polynomial(&FAR_BELOW, r - 5.0)
    };
    if q < 0.0 { -tail } else { tail }
}

fn polynomial(coefficients: &[f64; 8], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

const CENTRE_ABOVE: [f64; 8] = [
    3.387_132_872_796_366_5,
    133.141_667_891_784_38,
    1_971.590_950_306_551_3,
    13_731.693_765_509_46,
    45_921.953_931_549_87,
    67_265.770_927_008_7,
    33_430.575_583_588_13,
    2_509.080_928_730_122_7,
];
const CENTRE_BELOW: [f64; 8] = [
    1.0,
    42.313_330_701_600_91,
    687.187_007_492_057_9,
    5_394.196_021_424_751,
    21_213.794_301_586_597,
    39_307.895_800_092_71,
    28_729.085_735_721_943,
    5_226.495_278_852_545,
];
const TAIL_ABOVE: [f64; 8] = [
    1.423_437_110_749_683_5,
    4.630_337_846_156_546,
    5.769_497_221_460_691,
    3.647_848_324_763_204_5,
    1.270_458_252_452_368_4,
    0.241_780_725_177_450_6,
    0.022_723_844_989_269_184,
    7.745_450_142_783_414e-4,
];
const TAIL_BELOW: [f64; 8] = [
    1.0,
    2.053_191_626_637_759,
    1.676_384_830_183_803_8,
    0.689_767_334_985_1,
    0.148_103_976_427_480_08,
    0.015_198_666_563_616_457,
    5.475_938_084_995_345e-4,
    1.050_750_071_644_416_9e-9,
];
const FAR_ABOVE: [f64; 8] = [
    6.657_904_643_501_103,
    5.463_784_911_164_114,
    1.784_826_539_917_291_3,
    0.296_560_571_828_504_87,
    0.026_532_189_526_576_124,
    0.001_242_660_947_388_078_4,
    2.711_555_568_743_487_6e-5,
    2.010_334_399_292_288_1e-7,
];
const FAR_BELOW: [f64; 8] = [
    1.0,
    0.599_832_206_555_888,
    0.136_929_880_922_735_8,
    0.014_875_361_290_850_615,
    7.868_691_311_456_133e-4,
    1.846_318_317_510_054_8e-5,
    1.421_511_758_316_446e-7,
    2.044_263_103_389_939_8e-15,
];

/// The point that Student's t with `degrees` of freedom stays under with probability `p`.
#[must_use]
pub fn student_t(p: f64, degrees: f64) -> f64 {
    if degrees < 1.0 {
        return f64::INFINITY;
    }
    let (mut low, mut high) = (-1e4, 1e4);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if student_below(middle, degrees) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

fn student_below(t: f64, degrees: f64) -> f64 {
    let tail = incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5) / 2.0;
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// The regularised incomplete beta function, by Lentz's continued fraction.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = libm::exp(
        libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b)
            + a * libm::log(x)
            + b * libm::log(1.0 - x),
    ) / a;
    let tiny = 1e-300;
    let keep = |v: f64| if v.abs() < tiny { tiny } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / keep(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..300 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / keep(1.0 + even * d);
        c = keep(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / keep(1.0 + odd * d);
        c = keep(1.0 + odd / c);
        let step = d * c;
        fraction *= step;
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

#[cfg(test)]
mod tests;
