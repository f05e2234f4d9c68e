//! How long each part of a call may take.
//!
//! Four kinds, from the inside out: making a connection, one attempt until its
//! response head, silence within a body, and the whole call with all its
//! attempts and waits, to the last byte of its answer. The total becomes the
//! [`Deadline`], which cuts all others short. Counting the time is the caller's.

use crate::config::ConfigError;
use crate::deadline::Deadline;
use crate::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How long each part may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Until a connection stands, TLS included. Default 2 s.
    pub connect: Duration,
    /// From the start of an attempt to its response head; `None`: as long as
    /// the call. Default 10 s.
    pub attempt: Option<Duration>,
    /// Silence between two pieces of a response body; `None`: for ever. Streams
    /// that may rightly be silent (events, gRPC) are the driver's to exempt. Default 60 s.
    pub idle_read: Option<Duration>,
    /// The whole call: queueing, every attempt, every wait between them, the
    /// body of the answer; `None`: only the caller's own deadline counts. Streams
    /// without an end (events, gRPC) are bounded up to their head. Default 30 s.
    pub total: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            attempt: Some(Duration::from_secs(10)),
            idle_read: Some(Duration::from_secs(60)),
            total: Some(Duration::from_secs(30)),
        }
    }
}

impl Config {
    /// The defaults around the `attempt` and `total` that somebody set, if
    /// they did: a default that would not fit is shortened.
    #[must_use]
    pub fn fitting(attempt: Option<Duration>, total: Option<Duration>) -> Self {
        let usual = Self::default();
        let total = total.or(usual.total);
        let attempt = attempt.or_else(|| usual.attempt.min(total));
        let connect = attempt.map_or(usual.connect, |attempt| usual.connect.min(attempt));
        Self { connect, attempt, total, ..usual }
    }

    /// Checks what the types cannot say: an inner timeout longer than the
    /// outer one would never fire.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let positive = |value: Option<Duration>, key| {
            ConfigError::require(
                value.is_none_or(|value| !value.is_zero()),
                key,
                "must be longer than zero",
            )
        };
        positive(Some(self.connect), "connect")?;
        positive(self.attempt, "attempt")?;
        positive(self.idle_read, "idle_read")?;
        positive(self.total, "total")?;
        if let (Some(attempt), Some(total)) = (self.attempt, self.total) {
            ConfigError::require(attempt <= total, "attempt", "must not be longer than `total`")?;
        }
        let outer = self.attempt.or(self.total).unwrap_or(Duration::MAX);
        ConfigError::require(
            self.connect <= outer,
            "connect",
            "must not be longer than `attempt` or `total`",
        )
    }

    /// The deadline of a call that arrives at `now`.
    #[must_use]
    pub fn deadline(&self, now: Instant, incoming: Option<Instant>) -> Deadline {
        Deadline::within(now, self.total, incoming)
    }

    /// When an attempt that starts at `now` must have its response head.
    #[must_use]
    pub fn attempt_ends(&self, now: Instant, deadline: Deadline) -> Instant {
        deadline.cut(now, self.attempt)
    }

    /// When a connection begun at `now` must stand.
    #[must_use]
    pub fn connect_ends(&self, now: Instant, attempt_ends: Instant) -> Instant {
        attempt_ends.min(now + self.connect)
    }
}
