//! How long work takes.
//!
//! Values are nanoseconds. A draw is one or two uniforms put through an
//! inverse, so a longer tail leaves the same requests slow.

use std::sync::Arc;

use selvedge_patterns::random::Rng;
use selvedge_patterns::time::{Duration, nanos};

use crate::draw;
use crate::statistics::normal_quantile;

/// A distribution of service or think times.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Always the same.
    Constant(Duration),
    /// Memoryless, with this mean.
    Exponential {
        /// The mean.
        mean: Duration,
    },
    /// Log-normal, given by its median and 99th percentile.
    LogNormal {
        /// The median.
        p50: Duration,
        /// The 99th percentile, above the median.
        p99: Duration,
    },
    /// Two exponentials: mostly `fast`, with probability `slow_share` `slow`.
    Bimodal {
        /// Mean of the fast mode.
        fast: Duration,
        /// Mean of the slow mode.
        slow: Duration,
        /// Probability of the slow mode.
        slow_share: f64,
    },
    /// Measured: read from a histogram.
    Empirical(Arc<Empirical>),
}

/// Why a distribution cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Impossible {
    /// A log-normal whose 99th percentile is not above its median.
    #[error("p99 ({p99:?}) must be above p50 ({p50:?})")]
    PercentilesFall {
        /// The median.
        p50: Duration,
        /// The 99th percentile.
        p99: Duration,
    },
    /// A probability outside 0..=1.
    #[error("a probability lies between 0 and 1, not {0}")]
    Probability(f64),
    /// A mean or median of zero where the law needs a positive one.
    #[error("a time of zero leaves nothing to draw")]
    Zero,
    /// Fewer than two points, or counts or edges that do not rise.
    #[error("a cumulative histogram rises: {0}")]
    NotRising(String),
    /// The tail beyond the last finite edge has no mean.
    #[error(
        "the tail index beyond the last finite bucket is {0:.2}; at or below 1 the mean is infinite"
    )]
    TailTooHeavy(f64),
    /// The edges cannot carry the stated mean.
    #[error("the buckets give a mean of {from_buckets:.3} ms but the sum says {stated:.3} ms")]
    MeanDisagrees {
        /// Mean through the buckets, in milliseconds.
        from_buckets: f64,
        /// Mean by the recorded sum, in milliseconds.
        stated: f64,
    },
}

const Z99: f64 = 2.326_347_874_040_841;

impl Distribution {
    /// Log-normal with this mean and squared coefficient of variation.
    #[must_use]
    pub fn log_normal_from_moments(mean: Duration, scv: f64) -> Self {
        let sigma = libm::sqrt(libm::log(1.0 + scv));
        let median = nanos(mean) as f64 * libm::exp(-sigma * sigma / 2.0);
        let p99 = median * libm::exp(sigma * Z99);
        Self::LogNormal {
            p50: Duration::from_nanos(median as u64),
            p99: Duration::from_nanos(p99 as u64),
        }
    }

    /// Whether it can be drawn from.
    ///
    /// # Errors
    ///
    /// [`Impossible`], with the numbers that make it so.
    pub fn validate(&self) -> Result<(), Impossible> {
        match *self {
            Self::Constant(_) | Self::Empirical(_) => Ok(()),
            Self::Exponential { mean } if mean.is_zero() => Err(Impossible::Zero),
            Self::Exponential { .. } => Ok(()),
            Self::LogNormal { p50, .. } if p50.is_zero() => Err(Impossible::Zero),
            Self::LogNormal { p50, p99 } if p99 <= p50 => {
                Err(Impossible::PercentilesFall { p50, p99 })
            }
            Self::LogNormal { .. } => Ok(()),
            Self::Bimodal { fast, slow, .. } if fast.is_zero() || slow.is_zero() => {
                Err(Impossible::Zero)
            }
            Self::Bimodal { slow_share, .. } if !(0.0..=1.0).contains(&slow_share) => {
                Err(Impossible::Probability(slow_share))
            }
            Self::Bimodal { .. } => Ok(()),
        }
    }

    /// The mean, in nanoseconds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::Constant(value) => nanos(*value) as f64,
            Self::Exponential { mean } => nanos(*mean) as f64,
            Self::LogNormal { p50, p99 } => {
                let sigma = sigma(*p50, *p99);
                nanos(*p50) as f64 * libm::exp(sigma * sigma / 2.0)
            }
            Self::Bimodal { fast, slow, slow_share } => {
                nanos(*fast) as f64 * (1.0 - slow_share) + nanos(*slow) as f64 * slow_share
            }
            Self::Empirical(empirical) => empirical.mean,
        }
    }

    /// The squared coefficient of variation: variance over mean squared.
    #[must_use]
    pub fn scv(&self) -> f64 {
        match self {
            Self::Constant(_) => 0.0,
            Self::Exponential { .. } => 1.0,
            Self::LogNormal { p50, p99 } => {
                let sigma = sigma(*p50, *p99);
                libm::exp(sigma * sigma) - 1.0
            }
            Self::Bimodal { fast, slow, slow_share } => {
                let (fast, slow) = (nanos(*fast) as f64, nanos(*slow) as f64);
                let second = 2.0 * (fast * fast * (1.0 - slow_share) + slow * slow * slow_share);
                second / (self.mean() * self.mean()) - 1.0
            }
            Self::Empirical(empirical) => {
                empirical.second / (empirical.mean * empirical.mean) - 1.0
            }
        }
    }

    /// One draw, in nanoseconds.
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> f64 {
        match self {
            Self::Constant(value) => nanos(*value) as f64,
            Self::Exponential { mean } => nanos(*mean) as f64 * draw::exponential(rng),
            Self::LogNormal { p50, p99 } => {
                nanos(*p50) as f64 * libm::exp(sigma(*p50, *p99) * draw::normal(rng))
            }
            Self::Bimodal { fast, slow, slow_share } => {
                let mean = if rng.unit() < *slow_share { slow } else { fast };
                nanos(*mean) as f64 * draw::exponential(rng)
            }
            Self::Empirical(empirical) => empirical.at(rng.unit()),
        }
    }
}

fn sigma(p50: Duration, p99: Duration) -> f64 {
    libm::log(nanos(p99) as f64 / nanos(p50) as f64) / Z99
}

/// Cells of equal probability in the inverse table of a measured distribution, up to [`TAIL_FROM`].
const BODY: usize = 4096;
/// The slowest 1/64 has cells that shrink with the probability left: 16 per halving, down to 2^-31.
const TAIL_FROM: f64 = 1.0 - 1.0 / 64.0;
const TAIL: usize = 16 * 25;

/// The probability at knot `index` of the table.
fn knot(index: usize) -> f64 {
    if index <= BODY {
        TAIL_FROM * index as f64 / BODY as f64
    } else {
        1.0 - libm::exp2(-6.0 - (index - BODY) as f64 / 16.0)
    }
}

/// A measured distribution: the inverse of its cumulative curve, tabulated.
///
/// Between the given edges the curve is the monotone cubic of Fritsch and
/// Carlson ("Monotone piecewise cubic interpolation", SIAM J. Numer. Anal.
/// 1980) in the logarithm of time; beyond the last finite edge it is a power
/// law. Where a sum was recorded the whole is scaled to its mean exactly:
/// queues feel the mean first.
#[derive(Clone, Debug, PartialEq)]
pub struct Empirical {
    table: Vec<f64>,
    mean: f64,
    second: f64,
    /// By how much the table was scaled to match the recorded sum; 1 when none was given.
    pub scaled_by: f64,
    /// The index of the power law beyond the last finite edge, if anything lies there.
    pub tail_index: Option<f64>,
}

impl Empirical {
    /// From a cumulative histogram: (upper edge in nanoseconds, how many at or
    /// below it), the edges finite and rising, `total` counting those beyond
    /// the last edge too, and the recorded mean in nanoseconds if there is one.
    ///
    /// # Errors
    ///
    /// [`Impossible`] when edges or counts do not rise, the tail has no mean,
    /// or the recorded mean is more than 25 % away from what the edges allow.
    pub fn from_cumulative(
        points: &[(f64, f64)],
        total: f64,
        mean: Option<f64>,
    ) -> Result<Self, Impossible> {
        check_rising(points, total)?;
        let curve = Curve::through(points, total);
        let tail_index = curve.tail_index(points, total)?;
        let mut table: Vec<f64> =
            (0..=BODY + TAIL).map(|i| curve.inverse(knot(i), tail_index)).collect();
        let raw = table_mean(&table);
        let scaled_by = mean.map_or(1.0, |mean| mean / raw);
        if !(0.75..=1.25).contains(&scaled_by) {
            let stated = mean.unwrap_or(raw) / 1e6;
            return Err(Impossible::MeanDisagrees { from_buckets: raw / 1e6, stated });
        }
        for value in &mut table {
            *value *= scaled_by;
        }
        let mean = table_mean(&table);
        let second = integral(&table, |a, b| (a * a + a * b + b * b) / 3.0);
        Ok(Self { table, mean, second, scaled_by, tail_index })
    }

    fn at(&self, unit: f64) -> f64 {
        let low = if unit < TAIL_FROM {
            ((unit / TAIL_FROM * BODY as f64) as usize).min(BODY - 1)
        } else {
            (BODY + ((-6.0 - libm::log2(1.0 - unit)) * 16.0) as usize).min(BODY + TAIL - 1)
        };
        let (from, to) = (knot(low), knot(low + 1));
        let share = ((unit - from) / (to - from)).clamp(0.0, 1.0);
        self.table[low] + (self.table[low + 1] - self.table[low]) * share
    }
}

fn table_mean(table: &[f64]) -> f64 {
    integral(table, f64::midpoint)
}

/// The sum over cells of their probability times `of` their two ends.
fn integral(table: &[f64], of: impl Fn(f64, f64) -> f64) -> f64 {
    let total: f64 =
        table.windows(2).enumerate().map(|(i, w)| (knot(i + 1) - knot(i)) * of(w[0], w[1])).sum();
    total / knot(BODY + TAIL)
}

fn check_rising(points: &[(f64, f64)], total: f64) -> Result<(), Impossible> {
    let refuse = |why: String| Err(Impossible::NotRising(why));
    if points.len() < 2 {
        return refuse(format!("{} finite edge(s) are too few, two are needed", points.len()));
    }
    for (edge, count) in points {
        if !edge.is_finite() || *edge <= 0.0 || !count.is_finite() || *count < 0.0 {
            return refuse(format!("edge {edge} with count {count}"));
        }
    }
    for pair in points.windows(2) {
        if pair[1].0 <= pair[0].0 {
            return refuse(format!("edge {} follows {}", pair[1].0, pair[0].0));
        }
        if pair[1].1 < pair[0].1 {
            return refuse(format!(
                "count {} at edge {} follows {}",
                pair[1].1, pair[1].0, pair[0].1
            ));
        }
    }
    let last = points[points.len() - 1].1;
    if total < last || last <= 0.0 {
        return refuse(format!("the total {total} against {last} at the last finite edge"));
    }
    Ok(())
}

/// The cumulative curve, over the logarithm of time.
struct Curve {
    x: Vec<f64>,
    p: Vec<f64>,
    slopes: Vec<f64>,
}

impl Curve {
    fn through(points: &[(f64, f64)], total: f64) -> Self {
        let mut x = Vec::with_capacity(points.len() + 1);
        let mut p = Vec::with_capacity(points.len() + 1);
        if points[0].1 > 0.0 {
            // Nothing is known below the first edge: half an octave is assumed.
            x.push(libm::log(points[0].0 / 2.0));
            p.push(0.0);
        }
        for (edge, count) in points {
            x.push(libm::log(*edge));
            p.push(count / total);
        }
        let slopes = monotone_slopes(&x, &p);
        Self { x, p, slopes }
    }

    /// The power law through the last two distinct counts, if anything lies beyond.
    fn tail_index(&self, points: &[(f64, f64)], total: f64) -> Result<Option<f64>, Impossible> {
        let (last_edge, last) = points[points.len() - 1];
        if total - last <= 0.0 {
            return Ok(None);
        }
        let Some((edge, count)) = points.iter().rev().find(|(_, count)| *count < last) else {
            return Err(Impossible::TailTooHeavy(0.0));
        };
        let index = libm::log((total - count) / (total - last)) / libm::log(last_edge / edge);
        if index <= 1.0 { Err(Impossible::TailTooHeavy(index)) } else { Ok(Some(index)) }
    }

    fn inverse(&self, p: f64, tail: Option<f64>) -> f64 {
        let last = self.p.len() - 1;
        if p >= self.p[last] {
            let edge = libm::exp(self.x[last]);
            let Some(index) = tail else { return edge };
            return edge * libm::pow((1.0 - self.p[last]) / (1.0 - p), 1.0 / index);
        }
        let segment = self.p.partition_point(|v| *v <= p).saturating_sub(1).min(last - 1);
        let (mut low, mut high) = (self.x[segment], self.x[segment + 1]);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if self.value(segment, middle) < p {
                low = middle;
            } else {
                high = middle;
            }
        }
        libm::exp((low + high) / 2.0)
    }

    fn value(&self, segment: usize, x: f64) -> f64 {
        let h = self.x[segment + 1] - self.x[segment];
        let t = (x - self.x[segment]) / h;
        let (t2, t3) = (t * t, t * t * t);
        self.p[segment] * (2.0 * t3 - 3.0 * t2 + 1.0)
            + self.slopes[segment] * h * (t3 - 2.0 * t2 + t)
            + self.p[segment + 1] * (3.0 * t2 - 2.0 * t3)
            + self.slopes[segment + 1] * h * (t3 - t2)
    }
}

fn monotone_slopes(x: &[f64], p: &[f64]) -> Vec<f64> {
    let secants: Vec<f64> =
        x.windows(2).zip(p.windows(2)).map(|(x, p)| (p[1] - p[0]) / (x[1] - x[0])).collect();
    let mut slopes = vec![0.0; x.len()];
    slopes[0] = secants[0];
    slopes[x.len() - 1] = secants[secants.len() - 1];
    for i in 1..secants.len() {
        let (before, after) = (secants[i - 1], secants[i]);
        slopes[i] =
            if before * after <= 0.0 { 0.0 } else { 2.0 * before * after / (before + after) };
    }
    for (i, secant) in secants.iter().enumerate() {
        if *secant == 0.0 {
            slopes[i] = 0.0;
            slopes[i + 1] = 0.0;
        } else {
            slopes[i] = slopes[i].min(3.0 * secant);
            slopes[i + 1] = slopes[i + 1].min(3.0 * secant);
        }
    }
    slopes
}

/// The quantile of a log-normal given by median and p99; the reading aid of the report.
#[must_use]
pub fn log_normal_quantile(p50: Duration, p99: Duration, q: f64) -> Duration {
    Duration::from_nanos(
        (nanos(p50) as f64 * libm::exp(sigma(p50, p99) * normal_quantile(q))) as u64,
    )
}

#[cfg(test)]
mod tests;
