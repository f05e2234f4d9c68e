//! How many calls in flight have already taken longer than a bound.
//!
//! Starts are counted in slices of an eighth of the bound; a slice that has
//! aged past the bound becomes overdue as a whole. So a call counts as overdue
//! between one bound and one bound and an eighth after its start, and no call
//! needs an entry of its own.

use crate::time::{Duration, Instant, nanos};
use crate::window::Slicing;

/// Slices in a bound.
const FINENESS: u64 = 8;
/// Those of the bound, the one in progress, and one to spare.
const SLICES: usize = FINENESS as usize + 2;

/// Calls in flight by age.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    /// Nanoseconds; 0 if nobody asks.
    slice: u64,
    slicing: Slicing,
    /// The newest slice.
    newest: u64,
    /// Calls still in flight that began in a slice, by its number modulo the length.
    young: [u32; SLICES],
    overdue: u32,
}

impl InFlight {
    pub(super) fn new(bound: Option<Duration>) -> Self {
        let slice = bound.map_or(0, |bound| nanos(bound).div_ceil(FINENESS).max(1));
        Self { slice, slicing: Slicing::of(slice), newest: 0, young: [0; SLICES], overdue: 0 }
    }

    pub(super) const fn watches(&self) -> bool {
        self.slice != 0
    }

    pub(super) fn start(&mut self, now: Instant) {
        if self.watches() {
            self.age(now);
            self.young[place(self.newest)] += 1;
        }
    }

    /// A call that began at `started` and was counted then has ended.
    pub(super) fn end(&mut self, started: Instant) {
        if !self.watches() {
            return;
        }
        // Clocks of two threads may differ a little: a start is never counted
        // in a slice older than the newest, so neither is its end.
        let began = self.slicing.epoch(started).min(self.newest);
        let count = if self.newest - began > FINENESS {
            &mut self.overdue
        } else {
            &mut self.young[place(began)]
        };
        *count = count.saturating_sub(1);
    }

    pub(super) fn overdue(&mut self, now: Instant) -> u32 {
        if self.watches() {
            self.age(now);
        }
        self.overdue
    }

    /// When another call may become overdue.
    pub(super) fn next_overdue(&self) -> Option<Instant> {
        let oldest = (0..=FINENESS)
            .rev()
            .filter(|age| *age <= self.newest)
            .map(|age| self.newest - age)
            .find(|slice| self.young[place(*slice)] > 0)?;
        Some(Instant::from_nanos((oldest + FINENESS + 1).saturating_mul(self.slice)))
    }

    pub(super) fn clear(&mut self) {
        self.young = [0; SLICES];
        self.overdue = 0;
    }

    fn age(&mut self, now: Instant) {
        let newest = self.slicing.epoch(now);
        if newest <= self.newest {
            return;
        }
        let steps = (newest - self.newest).min(SLICES as u64);
        for step in 1..=steps {
            // A slice this old is past the bound with all its calls; after a
            // long pause each place comes by once, so none is left behind.
            let target = newest - steps + step;
            if let Some(aged) = target.checked_sub(FINENESS + 1) {
                self.overdue += core::mem::take(&mut self.young[place(aged)]);
            }
        }
        self.newest = newest;
    }
}

const fn place(slice: u64) -> usize {
    (slice % SLICES as u64) as usize
}
