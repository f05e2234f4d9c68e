//! How often a group hands out a message: queue-based load levelling.
//!
//! The queue takes what comes as it comes, and gives it on at a pace that what
//! stands behind it can bear. The pace is the generic cell rate algorithm of
//! [`crate::limit`], with wall-clock time so that its one word can be stored
//! with the group: what was used before a restart stays used, and several
//! processes share one rate.
//!
//! Source: Microsoft, "Queue-Based Load Leveling pattern"; ITU-T I.371, annex A.

use crate::{
    limit::{self, Pace, gcra},
    time::Instant,
    wall::Wall,
};

/// Lets so many through in a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    pace: Pace,
    used: u64,
}

impl Gate {
    /// A gate that nothing went through; `None` if `config` is not valid.
    #[must_use]
    pub fn new(config: limit::Config) -> Option<Self> {
        Pace::new(config).ok().map(|pace| Self { pace, used: gcra::FRESH })
    }

    /// Puts back what [`Self::used`] gave, under the same configuration.
    pub const fn restore(&mut self, used: u64) {
        self.used = used;
    }

    /// What went through, as a word to be stored.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.used
    }

    /// Lets one through, if that may be now.
    pub fn pass(&mut self, now: Wall) -> bool {
        gcra::admit(instant(now), &self.pace, &mut self.used, 1).is_ok()
    }

    /// When the next one may go through, if not now.
    #[must_use]
    pub fn closed_until(&self, now: Wall) -> Option<Wall> {
        let refused = gcra::admit(instant(now), &self.pace, &mut self.used.clone(), 1).err()?;
        // A stored time has no nanoseconds: the wait is rounded up to the next microsecond.
        let wait = refused.retry_after?.as_nanos().div_ceil(1000);
        Some(Wall::from_micros(
            now.as_micros().saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)),
        ))
    }
}

/// Nanoseconds since the epoch fit until 2554.
const fn instant(at: Wall) -> Instant {
    Instant::from_nanos(at.as_micros().saturating_mul(1000))
}

#[cfg(test)]
mod tests;
