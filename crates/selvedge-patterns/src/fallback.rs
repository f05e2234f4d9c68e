//! What to answer when the dependency cannot: the last good answer while it is
//! fresh enough, marked stale, or a fixed one.
//!
//! Only the choice is made here; keeping answers and sending them marked as stale
//! is the caller's.
//!
//! Source: RFC 5861 (`stale-if-error`).

use crate::config::ConfigError;
use crate::outcome::{Outcome, Safety};
use crate::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// What may stand in for an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The last good answer may be given again until it is so old. Default: never.
    pub stale_for: Option<Duration>,
    /// Whether a fixed answer is configured. Default false.
    pub fixed: bool,
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::require(
            self.stale_for.is_none_or(|stale_for| !stale_for.is_zero()),
            "stale_for",
            "must be longer than zero",
        )?;
        ConfigError::require(
            self.fixed || self.stale_for.is_some(),
            "stale_for",
            "must be set, or a fixed answer: a fallback needs something to fall back on",
        )
    }

    /// Whether the good answer to a request of this `safety` is worth keeping:
    /// only what has no effect can be answered from memory.
    #[must_use]
    pub fn keeps(&self, safety: Safety, outcome: Outcome) -> bool {
        self.stale_for.is_some() && safety == Safety::Safe && outcome == Outcome::Success
    }

    /// Chooses what to give instead of a call that ended with `outcome`.
    ///
    /// `last_good` is when the last good answer to the same request was made,
    /// if one is kept. An answer that is the caller's own fault stands.
    #[must_use]
    pub fn choose(
        &self,
        now: Instant,
        safety: Safety,
        outcome: Outcome,
        last_good: Option<Instant>,
    ) -> Choice {
        match outcome {
            Outcome::Success | Outcome::ClientFault | Outcome::Cancelled => return Choice::None,
            Outcome::Failure(_) | Outcome::Overload { .. } | Outcome::Local => {}
        }
        let age = last_good.filter(|_| safety == Safety::Safe).map(|made| now.since(made));
        match (age, self.stale_for) {
            (Some(age), Some(bound)) if age <= bound => Choice::Stale { age },
            _ if self.fixed => Choice::Fixed,
            _ => Choice::None,
        }
    }
}

/// What to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// What there is: the error.
    None,
    /// The last good answer, marked stale.
    Stale {
        /// How old it is.
        age: Duration,
    },
    /// The fixed answer.
    Fixed,
}
