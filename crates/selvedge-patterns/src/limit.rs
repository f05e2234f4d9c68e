//! Admits so many requests per time, and says exactly when to come back.
//!
//! One decision type for every algorithm: [`Allowed`] or [`Rejected`]. A
//! [`Limiter`] is one limit shared by all; a [`keyed::Keyed`] is one limit per
//! key, in bounded memory.
//!
//! [`gcra`] and [`token_bucket`] give the same answers (a property test holds
//! them to it). `leaky`, `fixed_window`, `sliding_log` and `sliding_counter`
//! have their place beside them when they come.

use core::fmt;

use crate::config::ConfigError;
use crate::sync::{Mutex, lock};
use crate::time::{Duration, Instant, nanos};

pub mod gcra;
pub mod keyed;
mod pace;
#[cfg(test)]
mod tests;
pub mod token_bucket;

pub use pace::Pace;

/// How much is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How to count. Default [`Algorithm::Gcra`].
    pub algorithm: Algorithm,
    /// What is admitted in the long run. Default 100/s.
    pub rate: Rate,
    /// What is admitted at once after a pause. Default 100.
    pub burst: u32,
}

/// How to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// One word of state, lock-free. See [`gcra`].
    #[default]
    Gcra,
    /// The same answers, kept as a level of tokens. See [`token_bucket`].
    TokenBucket,
}

/// So many per time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In what time.
    pub per: Duration,
}

impl Rate {
    /// `count` every second.
    #[must_use]
    pub const fn per_second(count: u32) -> Self {
        Self { count, per: Duration::from_secs(1) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per.as_secs() {
            1 if self.per.subsec_nanos() == 0 => write!(f, "{}/s", self.count),
            _ => write!(f, "{}/{:?}", self.count, self.per),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { algorithm: Algorithm::default(), rate: Rate::per_second(100), burst: 100 }
    }
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let per = nanos(self.rate.per);
        ConfigError::require(self.rate.count >= 1, "rate", "must admit at least one")?;
        ConfigError::require(
            u64::from(self.rate.count) <= per,
            "rate",
            "must not be above one per nanosecond",
        )?;
        ConfigError::require(self.burst >= 1, "burst", "must be at least 1")?;
        let refill = u128::from(per) * u128::from(self.burst) / u128::from(self.rate.count);
        ConfigError::require(
            refill < 1 << 61,
            "burst",
            "must be refilled by `rate` within 70 years",
        )
    }
}

/// It may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The burst: what `remaining` counts down from.
    pub limit: u32,
    /// How many more would pass now.
    pub remaining: u32,
    /// When `remaining` is back at `limit`, if nothing else comes.
    pub reset_after: Duration,
}

/// It may not pass; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub reason: Reason,
    /// The exact wait after which it would pass, if nothing else comes
    /// before; `None` if it never would.
    pub retry_after: Option<Duration>,
    /// The burst.
    pub limit: u32,
    /// How many would pass now: fewer than were asked for.
    pub remaining: u32,
    /// How many were asked for.
    pub cost: u32,
}

/// Why it may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too many came before it.
    Rate,
    /// It asks for more at once than the limit ever admits.
    TooLarge,
    /// Too many keys are active, and too many came that share the limit of the rest.
    Overflow,
}

impl Reason {
    /// A stable word for logs, metrics and problem documents.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Rate => "rate_limited",
            Self::TooLarge => "rate_limit_too_large",
            Self::Overflow => "rate_limit_keys_overflow",
        }
    }
}

/// Either may be, with the numbers it was decided on.
pub type Decision = Result<Allowed, Rejected>;

/// One limit for all, shared by as many threads as like.
#[derive(Debug)]
pub struct Limiter {
    rule: Rule,
    shared: Shared,
}

#[derive(Debug)]
enum Shared {
    Gcra(gcra::Tat),
    Locked(Mutex<State>),
}

impl Limiter {
    /// A limit that nothing was taken from.
    ///
    /// # Errors
    ///
    /// As [`Config::validate`].
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let rule = Rule::new(config)?;
        let shared = match config.algorithm {
            Algorithm::Gcra => Shared::Gcra(gcra::Tat::new()),
            Algorithm::TokenBucket => Shared::Locked(Mutex::new(rule.fresh())),
        };
        Ok(Self { rule, shared })
    }

    /// Asks to let `cost` pass at once. A cost of 0 passes and changes nothing: a look.
    ///
    /// # Errors
    ///
    /// [`Rejected`], after which nothing was taken.
    #[inline]
    pub fn admit(&self, now: Instant, cost: u32) -> Decision {
        match &self.shared {
            Shared::Gcra(tat) => tat.admit(now, &self.rule.pace, cost),
            Shared::Locked(state) => self.rule.admit(now, &mut lock(state), cost),
        }
    }

    /// What would pass now.
    #[expect(clippy::missing_panics_doc, reason = "a cost of 0 always passes")]
    pub fn view(&self, now: Instant) -> Allowed {
        self.admit(now, 0).expect("a cost of 0 is never above the level")
    }
}

/// What all keys of a limit share: the algorithm and its constants.
#[derive(Clone, Copy, Debug)]
struct Rule {
    algorithm: Algorithm,
    pace: Pace,
}

/// What one key has of its own.
#[derive(Clone, Copy, Debug)]
enum State {
    Gcra(u64),
    TokenBucket(token_bucket::Bucket),
}

impl Rule {
    fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self { algorithm: config.algorithm, pace: Pace::new(config)? })
    }

    const fn fresh(&self) -> State {
        match self.algorithm {
            Algorithm::Gcra => State::Gcra(gcra::FRESH),
            Algorithm::TokenBucket => State::TokenBucket(token_bucket::Bucket::full(&self.pace)),
        }
    }

    fn admit(&self, now: Instant, state: &mut State, cost: u32) -> Decision {
        match state {
            State::Gcra(tat) => gcra::admit(now, &self.pace, tat, cost),
            State::TokenBucket(bucket) => bucket.admit(now, &self.pace, cost),
        }
    }

    /// Whether forgetting `state` would change no decision.
    fn is_fresh(&self, now: Instant, state: &State) -> bool {
        match state {
            State::Gcra(tat) => gcra::is_fresh(now, &self.pace, *tat),
            State::TokenBucket(bucket) => bucket.is_full(now, &self.pace),
        }
    }
}
