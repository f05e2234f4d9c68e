//! What a group can be told.

use core::time::Duration;

use super::Letters;
use crate::{backoff, config::ConfigError, filter::Filter, limit, random::Rng};

/// How a group hands out messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a consumer may hold a message before it is offered again.
    /// Default 30 s; 1 ms to 12 h.
    pub lease: Duration,
    /// Deliveries after which a message becomes a dead letter. Default 10, at least 1.
    pub attempts: u32,
    /// Whether messages of one key are delivered one after another. Default no.
    pub ordered: bool,
    /// Messages leased at one time. Default 10,000, at least 1.
    pub in_flight_max: u32,
    /// Unsettled messages below the cursor; the group looks no further ahead
    /// while it has this many. Default 100,000, at least `in_flight_max`.
    pub exceptions_max: u32,
    /// Upper bound of the wait before the second delivery. Default 1 s.
    pub retry_base: Duration,
    /// Upper bound of any wait between deliveries. Default 5 min.
    pub retry_cap: Duration,
    /// How often a message may be handed out, however many consumers ask;
    /// every delivery counts, a repeated one too. Default as often as asked.
    pub rate: Option<limit::Config>,
    /// Which messages are for this group. The others are passed over as if they
    /// were settled, and never offered to [`Group`](super::Group). Default: all.
    pub filter: Option<Filter>,
    /// Serves one consumer at a time, in the order of the log, and another one
    /// if it shows itself to be gone for so long. Default everyone who asks;
    /// 1 s to 1 h.
    pub exclusive: Option<Duration>,
    /// How many dead letters it keeps.
    pub letters: Letters,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            attempts: 10,
            ordered: false,
            in_flight_max: 10_000,
            exceptions_max: 100_000,
            retry_base: Duration::from_secs(1),
            retry_cap: Duration::from_secs(300),
            rate: None,
            filter: None,
            exclusive: None,
            letters: Letters::default(),
        }
    }
}

/// How long a consumer that is served alone may not be heard of, at least and at most.
const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(3600);
/// The longest lease a consumer can ask for.
pub const LEASE_MAX: Duration = Duration::from_secs(12 * 3600);

impl Config {
    /// Whether a group can work with this.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::require(
            self.lease >= Duration::from_millis(1) && self.lease <= LEASE_MAX,
            "lease",
            "must be between 1 ms and 12 h",
        )?;
        ConfigError::require(self.attempts >= 1, "attempts", "must be at least 1")?;
        ConfigError::require(self.in_flight_max >= 1, "in_flight_max", "must be at least 1")?;
        ConfigError::require(
            self.exceptions_max >= self.in_flight_max,
            "exceptions_max",
            "must be at least `in_flight_max`",
        )?;
        ConfigError::require(
            self.retry_base <= self.retry_cap,
            "retry_base",
            "must not exceed `retry_cap`",
        )?;
        ConfigError::require(
            self.exclusive.is_none_or(|ttl| (TTL_MIN..=TTL_MAX).contains(&ttl)),
            "exclusive",
            "must be between 1 s and 1 h",
        )?;
        self.letters.validate()?;
        self.rate.map_or(Ok(()), |rate| rate.validate())?;
        self.filter.as_ref().map_or(Ok(()), Filter::validate)
    }

    /// The wait before delivery number `attempt + 1`: full jitter under a bound
    /// that doubles from `retry_base` to `retry_cap`.
    pub(super) fn backoff(&self, attempt: u32, rng: &mut impl Rng) -> Duration {
        let (base, cap) = (self.retry_base, self.retry_cap);
        let bound = backoff::Config { base, cap, ..backoff::Config::default() };
        bound.nominal(attempt.saturating_sub(1)).mul_f64(rng.unit())
    }
}
