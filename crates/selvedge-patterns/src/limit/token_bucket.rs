//! A bucket that fills with tokens at the rate and holds the burst.
//!
//! Its answers are those of GCRA, to the nanosecond. It is here because its
//! level is what people ask to see, and as the model that GCRA is proved against.

use super::{Decision, Pace};
use crate::time::Instant;

/// The level of one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    level_units: u64,
    filled_at: u64,
}

impl Bucket {
    /// A bucket with the whole burst in it.
    #[must_use]
    pub const fn full(pace: &Pace) -> Self {
        Self { level_units: pace.burst_units(), filled_at: 0 }
    }

    /// Asks for `cost` tokens at once.
    ///
    /// # Errors
    ///
    /// [`super::Rejected`], after which nothing was taken.
    pub fn admit(&mut self, now: Instant, pace: &Pace, cost: u32) -> Decision {
        let units = pace.cost(cost)?;
        self.fill(now, pace);
        if units > self.level_units {
            return Err(pace.rejected(
                now,
                self.level_units,
                cost,
                self.filled_at.saturating_add(units - self.level_units),
            ));
        }
        self.level_units -= units;
        Ok(pace.allowed(self.level_units))
    }

    pub(super) fn is_full(mut self, now: Instant, pace: &Pace) -> bool {
        self.fill(now, pace);
        self.level_units == pace.burst_units()
    }

    fn fill(&mut self, now: Instant, pace: &Pace) {
        let at = pace.units(now).max(self.filled_at);
        let filled = self.level_units.saturating_add(at - self.filled_at);
        *self = Self { level_units: filled.min(pace.burst_units()), filled_at: at };
    }
}
