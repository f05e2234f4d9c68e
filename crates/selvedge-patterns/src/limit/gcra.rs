//! The generic cell rate algorithm: a limit in one word.
//!
//! The word is the theoretical arrival time (TAT): when the next request would
//! be due if all came evenly spaced. A request passes if it is not earlier than
//! the burst allows, and moves the TAT on by its cost.
//!
//! Source: ITU-T I.371, annex A; the form with a cost is Brandur Leach's.

use super::{Decision, Pace};
use crate::sync::{AtomicU64, Ordering};
use crate::time::Instant;

/// The TAT of a limit that nothing was taken from.
pub(super) const FRESH: u64 = 0;

/// The TAT as one atomic word: a decision is one load and one exchange.
#[derive(Debug)]
pub struct Tat(AtomicU64);

impl Default for Tat {
    fn default() -> Self {
        Self::new()
    }
}

impl Tat {
    /// Nothing was taken.
    #[must_use]
    pub fn new() -> Self {
        Self(AtomicU64::new(FRESH))
    }

    /// Asks to let `cost` pass at once.
    ///
    /// # Errors
    ///
    /// [`super::Rejected`], after which nothing was taken.
    #[inline]
    pub fn admit(&self, now: Instant, pace: &Pace, cost: u32) -> Decision {
        // Relaxed is enough: the word is all there is, nothing is published by it.
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let mut tat = seen;
            let allowed = admit(now, pace, &mut tat, cost)?;
            match self.0.compare_exchange_weak(seen, tat, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(allowed),
                Err(newer) => seen = newer,
            }
        }
    }
}

/// The decision.
#[inline]
pub(super) fn admit(now: Instant, pace: &Pace, tat: &mut u64, cost: u32) -> Decision {
    let units = pace.cost(cost)?;
    let at = pace.units(now);
    // What is owed; more than the burst only if another worker's clock is ahead.
    let debt = tat.saturating_sub(at);
    let level = pace.burst_units().saturating_sub(debt);
    if units > level {
        return Err(pace.rejected(
            now,
            level,
            cost,
            tat.saturating_add(units).saturating_sub(pace.burst_units()),
        ));
    }
    if units > 0 {
        *tat = (*tat).max(at).saturating_add(units);
    }
    Ok(pace.allowed(level - units))
}

pub(super) const fn is_fresh(now: Instant, pace: &Pace, tat: u64) -> bool {
    tat <= pace.units(now)
}
