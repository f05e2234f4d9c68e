//! How many dead letters a group keeps, and what happens when they are so many.
//!
//! A dead letter is a message that nobody could process: losing it silently is
//! worse than standing still. So a group that has as many as it may hands out
//! nothing more until somebody has looked at them, unless it was told to drop
//! the oldest. What is in hand at that moment may still become a letter, so
//! there can be `in_flight_max` more than the bound.

use core::time::Duration;

use crate::config::ConfigError;

/// How many dead letters a group keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letters {
    /// The most there may be. Default 100,000; `None` for no bound.
    pub max: Option<u64>,
    /// What happens when there are so many. Default [`Full::Hold`].
    pub full: Full,
    /// Letters older than this go, whatever `full` says. Default none go.
    pub age: Option<Duration>,
}

/// What happens when there are as many dead letters as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The group hands out nothing until some were redriven or discarded.
    Hold,
    /// The oldest goes for each new one.
    DropOldest,
}

impl Default for Letters {
    fn default() -> Self {
        Self { max: Some(100_000), full: Full::Hold, age: None }
    }
}

impl Letters {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let require = ConfigError::require;
        require(self.max.is_none_or(|max| max >= 1), "dead_letters_max", "must be at least 1")?;
        require(
            self.age.is_none_or(|age| age >= Duration::from_secs(1)),
            "dead_letters_age",
            "must be at least 1 s",
        )
    }

    /// Whether a group with so many stands still.
    #[must_use]
    pub const fn hold(&self, letters: u64) -> bool {
        matches!((self.full, self.max), (Full::Hold, Some(max)) if letters >= max)
    }

    /// How many of so many are to be dropped, the oldest first.
    #[must_use]
    pub const fn excess(&self, letters: u64) -> u64 {
        match (self.full, self.max) {
            (Full::DropOldest, Some(max)) => letters.saturating_sub(max),
            _ => 0,
        }
    }
}
