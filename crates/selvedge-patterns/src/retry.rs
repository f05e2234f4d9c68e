//! Whether a failed attempt is worth another.
//!
//! Four things must hold: the failure is of a kind that may pass, the call has
//! attempts left, a repeat is safe (or the dependency provably did nothing),
//! and the body can be sent again. The budget and the deadline are asked
//! besides; they are shared with hedges (see [`crate::budget`],
//! [`crate::deadline`]).
//!
//! Sources: RFC 9110 §9.2.2; gRPC proposal A6; the AWS SDKs' `Retry-After` rule.

use crate::backoff::{self, Backoff};
use crate::config::ConfigError;
use crate::outcome::{Failure, Outcome, Safety};
use crate::random::Rng;
use crate::time::Duration;

#[cfg(test)]
mod tests;

/// Most attempts that a call may be given.
pub const ATTEMPTS_MAX: u32 = 16;

/// When and how often a call is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Attempts per call, the first included; at most [`ATTEMPTS_MAX`]. Default 3.
    pub attempts: u32,
    /// Which endings are tried again. Default: all of them.
    pub on: Conditions,
    /// How long to wait in between. Default: see [`backoff::Config`].
    pub backoff: backoff::Config,
    /// The first wait after an overload, if longer than the backoff's. Default 1 s.
    pub overload_base: Duration,
    /// How much longer than the computed wait the server's own hint
    /// (`Retry-After`) may make it. Default 5 s.
    pub hint_slack: Duration,
    /// Request bodies up to so many bytes are kept for a repeat; a longer one
    /// goes on, without repeats. Default 64 KiB.
    pub body_bytes_max: u64,
}

/// Which endings are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// No connection could be made.
    pub connect: bool,
    /// The peer refused the request unprocessed.
    pub refused: bool,
    /// The connection ended before the response head.
    pub reset: bool,
    /// The attempt timeout passed.
    pub timeout: bool,
    /// 502, 503, 504, gRPC `UNAVAILABLE`.
    pub gateway: bool,
    /// Other 5xx, gRPC `INTERNAL`, `UNKNOWN`, `DATA_LOSS`.
    pub server: bool,
    /// 429, 503 with `Retry-After`, gRPC `RESOURCE_EXHAUSTED`.
    pub overload: bool,
    /// The answer was not valid protocol.
    pub malformed: bool,
}

impl Conditions {
    /// Everything that may pass.
    pub const ALL: Self = Self {
        connect: true,
        refused: true,
        reset: true,
        timeout: true,
        gateway: true,
        server: true,
        overload: true,
        malformed: true,
    };
    /// Nothing: turn single conditions on from here.
    pub const NONE: Self = Self {
        connect: false,
        refused: false,
        reset: false,
        timeout: false,
        gateway: false,
        server: false,
        overload: false,
        malformed: false,
    };

    /// Whether `outcome` is one of them.
    #[must_use]
    pub const fn hold(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Failure(Failure::Connect) => self.connect,
            Outcome::Failure(Failure::Refused) => self.refused,
            Outcome::Failure(Failure::Reset) => self.reset,
            Outcome::Failure(Failure::Timeout) => self.timeout,
            Outcome::Failure(Failure::Gateway) => self.gateway,
            Outcome::Failure(Failure::Server) => self.server,
            Outcome::Failure(Failure::Malformed) => self.malformed,
            Outcome::Overload { .. } => self.overload,
            Outcome::Success | Outcome::ClientFault | Outcome::Cancelled | Outcome::Local => false,
        }
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self::ALL
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attempts: 3,
            on: Conditions::default(),
            backoff: backoff::Config::default(),
            overload_base: Duration::from_secs(1),
            hint_slack: Duration::from_secs(5),
            body_bytes_max: 64 * 1024,
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
        ConfigError::require(
            (1..=ATTEMPTS_MAX).contains(&self.attempts),
            "attempts",
            "must be between 1 and 16, the first attempt included",
        )?;
        ConfigError::require(
            self.body_bytes_max <= 64 << 20,
            "body_bytes_max",
            "must not be above 64MiB: it is held in memory for every call in flight",
        )?;
        self.backoff.validate().map_err(|error| match error.key {
            "base" => ConfigError::new("backoff.base", error.problem),
            "cap" => ConfigError::new("backoff.cap", error.problem),
            _ => ConfigError::new("backoff.shape.factor", error.problem),
        })
    }

    /// Asks to try again after an attempt that ended with `outcome`.
    ///
    /// # Errors
    ///
    /// The reason why that attempt was the last.
    pub const fn admit(&self, tried: &Tried, outcome: Outcome) -> Result<(), Rejected> {
        if !self.on.hold(outcome) {
            return Err(Rejected::NotRetryable);
        }
        if tried.attempts >= self.attempts {
            return Err(Rejected::Exhausted { attempts: tried.attempts });
        }
        let unprocessed = matches!(outcome, Outcome::Failure(failure) if failure.unprocessed());
        if matches!(tried.safety, Safety::Unsafe) && !unprocessed {
            return Err(Rejected::Unsafe);
        }
        // Without a connection nothing of the body has been sent.
        let untouched = matches!(outcome, Outcome::Failure(Failure::Connect));
        if !tried.replayable && !untouched {
            return Err(Rejected::NotReplayable);
        }
        Ok(())
    }

    /// How long to wait after an attempt that ended with `outcome`.
    pub fn wait(&self, backoff: &mut Backoff, outcome: Outcome, rng: &mut impl Rng) -> Duration {
        let Outcome::Overload { retry_after } = outcome else {
            return backoff.next(&self.backoff, rng);
        };
        let base = self.backoff.base.max(self.overload_base);
        let patient = backoff::Config { base, cap: self.backoff.cap.max(base), ..self.backoff };
        let wait = backoff.next(&patient, rng);
        retry_after.map_or(wait, |hint| backoff::hinted(wait, hint, self.hint_slack))
    }
}

/// What is known of a call that may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Attempts made, hedges not counted.
    pub attempts: u32,
    /// Whether a repeat is safe.
    pub safety: Safety,
    /// Whether the body can be sent again.
    pub replayable: bool,
}

/// Why there is no other attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Trying again would not change the answer.
    NotRetryable,
    /// The call has had all its attempts.
    Exhausted {
        /// How many that was.
        attempts: u32,
    },
    /// A repeat might do the work twice.
    Unsafe,
    /// The body was too long to keep, or is being streamed.
    NotReplayable,
}

impl Rejected {
    /// A stable word for logs, metrics and traces.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotRetryable => "not_retryable",
            Self::Exhausted { .. } => "attempts_exhausted",
            Self::Unsafe => "not_idempotent",
            Self::NotReplayable => "body_not_replayable",
        }
    }
}
