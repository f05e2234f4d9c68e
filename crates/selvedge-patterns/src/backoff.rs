//! How long to wait before the next try.
//!
//! The wait grows by a shape up to a cap, then is spread by jitter so that
//! callers who failed together do not come back together. The cap applies
//! before the jitter; a server's own hint applies after both, within bounds.
//!
//! Sources: Brooker, "Exponential backoff and jitter", AWS 2015; the
//! decorrelated form V2 of Polly.

use crate::config::ConfigError;
use crate::random::Rng;
use crate::time::Duration;

#[cfg(test)]
mod tests;

/// How waits grow and spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How waits grow. Default exponential ×2.
    pub shape: Shape,
    /// The first wait before jitter. Default 50 ms.
    pub base: Duration,
    /// The longest wait before jitter. Default 5 s.
    pub cap: Duration,
    /// How waits spread. Default [`Jitter::Full`].
    pub jitter: Jitter,
}

/// How waits grow from one retry to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Shape {
    /// Always `base`.
    Constant,
    /// `base` times the number of the retry.
    Linear,
    /// `base` times a growing power of `factor`, which is at least 1. Default 2.
    Exponential {
        /// What each wait is multiplied by.
        factor: f64,
    },
}

/// How waits spread. `d` is the wait that the shape gives, capped; `U` is
/// uniform in `[0, 1)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jitter {
    /// `d`: callers who failed together come back together.
    None,
    /// `U·d`: the least work for the server.
    #[default]
    Full,
    /// `d/2 + U·d/2`: never less than half.
    Equal,
    /// Between `base` and three times the wait before; the shape is not used.
    Decorrelated,
    /// Smooth exponential growth with a spread median; the shape is not used.
    DecorrelatedV2,
}

impl Default for Shape {
    fn default() -> Self {
        Self::Exponential { factor: 2.0 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shape: Shape::default(),
            base: Duration::from_millis(50),
            cap: Duration::from_secs(5),
            jitter: Jitter::default(),
        }
    }
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::require(!self.base.is_zero(), "base", "must be longer than zero")?;
        ConfigError::require(self.cap >= self.base, "cap", "must not be shorter than `base`")?;
        if let Shape::Exponential { factor } = self.shape {
            ConfigError::require(
                (1.0..=100.0).contains(&factor),
                "shape.factor",
                "must be between 1 and 100",
            )?;
        }
        Ok(())
    }

    /// The wait before retry `n`, counted from 0, before jitter.
    #[must_use]
    pub fn nominal(&self, n: u32) -> Duration {
        match self.shape {
            Shape::Constant => self.base.min(self.cap),
            Shape::Linear => self.base.saturating_mul(n.saturating_add(1)).min(self.cap),
            Shape::Exponential { factor } => {
                // Multiplying step by step rather than `powi` gives the same
                // bits on every platform; the cap bounds the steps.
                let (mut wait, cap) = (self.base.as_secs_f64(), self.cap.as_secs_f64());
                for _ in 0..n {
                    wait *= factor;
                    if wait >= cap || factor == 1.0 {
                        break;
                    }
                }
                Duration::from_secs_f64(wait.min(cap))
            }
        }
    }
}

/// The waits of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    retries: u32,
    /// Seconds: the wait before (decorrelated), or f at the step before (V2).
    memory: f64,
}

impl Backoff {
    /// No wait yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { retries: 0, memory: 0.0 }
    }

    /// Waits given so far.
    #[must_use]
    pub const fn retries(&self) -> u32 {
        self.retries
    }

    /// The wait before the next try.
    pub fn next(&mut self, config: &Config, rng: &mut impl Rng) -> Duration {
        let n = self.retries;
        self.retries = n.saturating_add(1);
        let cap = config.cap.as_secs_f64();
        match config.jitter {
            Jitter::None => config.nominal(n),
            Jitter::Full => config.nominal(n).mul_f64(rng.unit()),
            Jitter::Equal => {
                let half = config.nominal(n) / 2;
                half + half.mul_f64(rng.unit())
            }
            Jitter::Decorrelated => {
                let base = config.base.as_secs_f64();
                let before = self.memory.max(base);
                self.memory = (base + rng.unit() * (3.0 * before - base)).min(cap);
                Duration::from_secs_f64(self.memory)
            }
            Jitter::DecorrelatedV2 => {
                // Past this the wait is the cap whatever the base, and f no longer a number.
                if n >= 500 {
                    return config.cap;
                }
                let t = f64::from(n) + rng.unit();
                let f = libm::exp2(t) * libm::tanh((4.0 * t).sqrt());
                let step = (f - core::mem::replace(&mut self.memory, f)).max(0.0);
                let wait = config.base.as_secs_f64() / 1.4 * step;
                Duration::from_secs_f64(if wait < cap { wait } else { cap })
            }
        }
    }
}

/// The wait when the server named one itself: its `hint`, but not shorter than
/// `computed` and not longer than `computed + slack`.
///
/// Source: `x-amz-retry-after` of the AWS SDKs.
#[must_use]
pub fn hinted(computed: Duration, hint: Duration, slack: Duration) -> Duration {
    hint.clamp(computed, computed.saturating_add(slack))
}
