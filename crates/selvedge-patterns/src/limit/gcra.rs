//! The generic cell rate algorithm: a limit in one word.
//!
//! The word is the theoretical arrival time (TAT): when the next request would
//! be due if all came evenly spaced. A request passes if it is not earlier than
//! the burst allows, and moves the TAT on by its cost.
//!
//! Source: ITU-T I.371, annex A; the form with a cost is Brandur Leach's.

use super::{Decision, Pace, Rejected};
use crate::sync::{AtomicU64, Ordering};
use crate::time::Instant;

/// The TAT of a limit that nothing was taken from.
pub(crate) const FRESH: u64 = 0;

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
        let units = pace.cost(cost)?;
        let at = pace.units(now);
        // Relaxed is enough: the word is all there is, nothing is published by it.
        let mut tat = self.0.load(Ordering::Relaxed);
        loop {
            let Some((next, level)) = take(pace, tat, at, units) else {
                return Err(refuse(now, pace, tat, cost));
            };
            match self.0.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(pace.allowed(level)),
                Err(newer) => tat = newer,
            }
        }
    }
}

/// Asks to let `cost` pass at once, for a `tat` that nobody else has.
pub(crate) fn admit(now: Instant, pace: &Pace, tat: &mut u64, cost: u32) -> Decision {
    let units = pace.cost(cost)?;
    let Some((next, level)) = take(pace, *tat, pace.units(now), units) else {
        return Err(refuse(now, pace, *tat, cost));
    };
    *tat = next;
    Ok(pace.allowed(level))
}

/// The decision: the TAT after `units` were taken at `at` and what is left
/// then, or nothing if that is more than is there.
#[inline]
fn take(pace: &Pace, tat: u64, at: u64, units: u64) -> Option<(u64, u64)> {
    let level = level(pace, tat, at).checked_sub(units)?;
    let next = if units == 0 { tat } else { tat.max(at).saturating_add(units) };
    Some((next, level))
}

/// What is there at `at`. The debt is more than the burst only if another
/// worker's clock is ahead.
#[inline]
fn level(pace: &Pace, tat: u64, at: u64) -> u64 {
    pace.burst_units().saturating_sub(tat.saturating_sub(at))
}

#[cold]
fn refuse(now: Instant, pace: &Pace, tat: u64, cost: u32) -> Rejected {
    let units = u64::from(cost) * pace.cell_units();
    let at_units = tat.saturating_add(units).saturating_sub(pace.burst_units());
    pace.rejected(now, level(pace, tat, pace.units(now)), cost, at_units)
}

pub(super) const fn is_fresh(now: Instant, pace: &Pace, tat: u64) -> bool {
    tat <= pace.units(now)
}
