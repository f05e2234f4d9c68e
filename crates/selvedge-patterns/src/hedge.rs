//! Sends a second attempt when the first is slower than nearly all others were.
//!
//! The delay is fixed, or the p95 of recent successful first attempts. Extra
//! attempts earn their place: each first attempt adds a share of one, each
//! hedge takes one, so hedging stays rare even when everything is slow. The
//! destination's budget for extra attempts is asked besides (see
//! `budget`): that one is shared with retries.
//!
//! Source: Dean and Barroso, "The tail at scale", 2013.

use crate::config::ConfigError;
use crate::outcome::{Outcome, Safety};
use crate::quantile;
use crate::sync::{AtomicU64, Ordering};
use crate::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// When a hedge is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How long to wait for the first attempt. Default p95, 100 ms until known.
    pub delay: Delay,
    /// Extra attempts per call (a retry's attempts are hedged likewise). Default 1.
    pub extra_max: u32,
    /// Extra attempts as a share of first attempts, in `0.0..=1.0`. Default 0.05.
    pub share: f64,
    /// Hedges that may be sent in a burst. Default 10.
    pub burst: u32,
    /// Hedge idempotent calls (PUT, DELETE, those with a key) too, not only
    /// safe ones. Default false.
    pub idempotent: bool,
}

/// How long to wait before an extra attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delay {
    /// Always as long.
    Fixed(Duration),
    /// As long as a share of recent first attempts took that succeeded.
    Quantile {
        /// The share, in `0.0..1.0`. Default 0.95.
        quantile: f64,
        /// Never wait less. Default 1 ms.
        min: Duration,
        /// What to wait while too few samples are known. Default 100 ms.
        until_known: Duration,
        /// Length of the period that samples are taken from. Default 10 s.
        period: Duration,
        /// Samples that a period must have. Default 100.
        samples_min: u32,
    },
}

impl Default for Delay {
    fn default() -> Self {
        Self::Quantile {
            quantile: 0.95,
            min: Duration::from_millis(1),
            until_known: Duration::from_millis(100),
            period: Duration::from_secs(10),
            samples_min: 100,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { delay: Delay::default(), extra_max: 1, share: 0.05, burst: 10, idempotent: false }
    }
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::require(
            self.extra_max >= 1,
            "extra_max",
            "must be at least 1; leave hedging out instead",
        )?;
        ConfigError::require(
            (0.0..=1.0).contains(&self.share),
            "share",
            "must be between 0% and 100%",
        )?;
        ConfigError::require(self.burst >= 1, "burst", "must be at least 1")?;
        match self.delay {
            Delay::Fixed(delay) => {
                ConfigError::require(!delay.is_zero(), "delay", "must be longer than zero")
            }
            Delay::Quantile { quantile, until_known, period, samples_min, .. } => {
                ConfigError::require(
                    quantile > 0.0 && quantile < 1.0,
                    "delay.quantile",
                    "must be between 0% and 100%, both excluded",
                )?;
                ConfigError::require(
                    !until_known.is_zero(),
                    "delay.until_known",
                    "must be longer than zero",
                )?;
                ConfigError::require(
                    !period.is_zero(),
                    "delay.period",
                    "must be longer than zero",
                )?;
                ConfigError::require(samples_min >= 1, "delay.samples_min", "must be at least 1")
            }
        }
    }
}

/// Why no extra attempt was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Sending it twice is not known to be safe.
    Unsafe,
    /// The call has had all its extra attempts.
    Exhausted {
        /// How many that was.
        extra: u32,
    },
    /// Too few first attempts since the last hedges.
    Share {
        /// Millionths of one extra attempt that are saved up.
        saved_millionths: u64,
    },
}

const ONE: u64 = 1_000_000;

/// Decides about the extra attempts of one service; shared by its workers.
#[derive(Debug)]
pub struct Hedge {
    config: Config,
    deposit: u64,
    saved: AtomicU64,
    observed: Option<quantile::Shared>,
}

impl Hedge {
    /// Has the whole burst saved up and knows no latency.
    #[must_use]
    pub fn new(now: Instant, config: Config) -> Self {
        let observed = match config.delay {
            Delay::Fixed(_) => None,
            Delay::Quantile { quantile, period, samples_min, .. } => {
                Some(quantile::Shared::new(now, quantile, period, u64::from(samples_min)))
            }
        };
        Self {
            config,
            deposit: (config.share * ONE as f64).round() as u64,
            saved: AtomicU64::new(u64::from(config.burst) * ONE),
            observed,
        }
    }

    /// What it was built with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whether calls of this `safety` are hedged at all.
    #[must_use]
    pub const fn hedges(&self, safety: Safety) -> bool {
        match safety {
            Safety::Safe => true,
            Safety::Idempotent => self.config.idempotent,
            Safety::Unsafe => false,
        }
    }

    /// How long after the start of an attempt to ask for an extra one.
    pub fn delay(&self, now: Instant) -> Duration {
        match self.config.delay {
            Delay::Fixed(delay) => delay,
            Delay::Quantile { min, until_known, .. } => self
                .observed
                .as_ref()
                .and_then(|observed| observed.get(now))
                .map_or(until_known, |p| p.max(min)),
        }
    }

    /// A first attempt goes out: it earns its share of an extra one.
    pub fn deposit(&self) {
        let full = u64::from(self.config.burst) * ONE;
        // Full is the rule: no write then.
        if self.saved.load(Ordering::Relaxed) < full {
            let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
                (saved < full).then(|| (saved + self.deposit).min(full))
            });
        }
    }

    /// Asks to send one extra attempt of a call that has had `extra` so far.
    ///
    /// # Errors
    ///
    /// [`Rejected`], which ends hedging for this call and never touches the
    /// attempts that run.
    pub fn admit(&self, safety: Safety, extra: u32) -> Result<(), Rejected> {
        if !self.hedges(safety) {
            return Err(Rejected::Unsafe);
        }
        if extra >= self.config.extra_max {
            return Err(Rejected::Exhausted { extra });
        }
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(ONE))
            .map(drop)
            .map_err(|saved_millionths| Rejected::Share { saved_millionths })
    }

    /// Gives back an admitted extra attempt that was not sent after all.
    pub fn abandon(&self) {
        let full = u64::from(self.config.burst) * ONE;
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
            Some((saved + ONE).min(full))
        });
    }

    /// A first attempt ended: its latency counts if it succeeded.
    pub fn settle(&self, now: Instant, elapsed: Duration, outcome: Outcome) {
        if let (Some(observed), Outcome::Success) = (&self.observed, outcome) {
            observed.record(now, elapsed);
        }
    }
}
