//! One moment by which a call must have ended, read by every pattern.
//!
//! The deadline is the earlier of what the caller asked for and what the
//! service allows. Queues, retries, hedges and attempts all compare themselves
//! with it, and what is left goes on to the next hop. Reading and writing the
//! wire forms (`grpc-timeout` and its like) is the proxy's.
//!
//! Source: gRPC deadlines; Finagle's `Deadline` context.

use crate::config::ConfigError;
use crate::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How a deadline is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// No attempt starts with less time left than this. Default 10 ms.
    pub attempt_min: Duration,
    /// What is kept back for the way home when the rest is passed on to the
    /// next hop. Default 5 ms.
    pub hop_margin: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { attempt_min: Duration::from_millis(10), hop_margin: Duration::from_millis(5) }
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
            self.attempt_min <= Duration::from_secs(60),
            "attempt_min",
            "must not be longer than 60s",
        )?;
        ConfigError::require(
            self.hop_margin <= Duration::from_secs(60),
            "hop_margin",
            "must not be longer than 60s",
        )
    }
}

/// Too little time is left for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// What is left.
    pub remaining: Duration,
    /// What it would take.
    pub needed: Duration,
}

/// The moment by which a call must have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// Never.
    pub const NONE: Self = Self(Instant::MAX);

    /// At `instant`.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// `own` from `now` on, or what the caller asked for if that is sooner: a
    /// caller can shorten what the service allows and never lengthen it.
    #[must_use]
    pub fn within(now: Instant, own: Option<Duration>, incoming: Option<Instant>) -> Self {
        let own = own.map_or(Instant::MAX, |own| now + own);
        Self(incoming.map_or(own, |incoming| incoming.min(own)))
    }

    /// When that is; [`Instant::MAX`] for [`Deadline::NONE`].
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// What is left at `now`: zero once it has passed.
    #[must_use]
    pub const fn remaining(self, now: Instant) -> Duration {
        self.0.since(now)
    }

    /// Whether it has passed.
    #[must_use]
    pub fn expired(self, now: Instant) -> bool {
        self.0 <= now
    }

    /// Asks to start, at `at`, something that takes `needed`.
    ///
    /// # Errors
    ///
    /// [`Rejected`] if less than `needed` would be left, or nothing.
    pub fn admit(self, at: Instant, needed: Duration) -> Result<(), Rejected> {
        let remaining = self.remaining(at);
        if self.expired(at) || remaining < needed {
            Err(Rejected { remaining, needed })
        } else {
            Ok(())
        }
    }

    /// When something that starts at `now` and may take `own` must have ended.
    #[must_use]
    pub fn cut(self, now: Instant, own: Option<Duration>) -> Instant {
        own.map_or(self.0, |own| self.0.min(now + own))
    }

    /// What to tell the next hop: what is left less the margin for the way
    /// home. `None` if there is no deadline; zero means that it is too late.
    #[must_use]
    pub fn forward(self, now: Instant, config: &Config) -> Option<Duration> {
        (self != Self::NONE).then(|| self.remaining(now).saturating_sub(config.hop_margin))
    }
}
