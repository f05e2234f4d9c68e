//! Sliding windows: what happened in the last N calls or the last T.
//!
//! A count window drops the oldest call for each new one. A time window is cut
//! into ten slices and drops a whole slice at a time, so it covers between
//! nine tenths of its length and all of it. Time is sliced by multiplication
//! rather than division; boundaries drift by less than one part in ten
//! thousand million, the same on every platform.

use crate::sync::{AtomicU64, Ordering};
use crate::time::{Duration, Instant, nanos};

#[cfg(test)]
mod tests;

/// Slices of a time window.
pub(crate) const SLICES: usize = 10;

/// Cuts time into tenths of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slicing {
    /// 2^64 divided by the nanoseconds of a slice.
    reciprocal: u64,
}

impl Slicing {
    pub(crate) fn new(window: Duration) -> Self {
        Self::of(nanos(window) / SLICES as u64)
    }

    /// Cuts time into slices of so many nanoseconds, at least two so that the
    /// reciprocal fits.
    pub(crate) fn of(slice: u64) -> Self {
        Self { reciprocal: (1u128 << 64).div_ceil(u128::from(slice.max(2))) as u64 }
    }

    /// The number of the slice that `now` is in.
    pub(crate) fn epoch(self, now: Instant) -> u64 {
        ((u128::from(now.as_nanos()) * u128::from(self.reciprocal)) >> 64) as u64
    }

    /// Where that slice is kept.
    pub(crate) const fn index(self, epoch: u64) -> usize {
        (epoch % SLICES as u64) as usize
    }
}

const VALUE_BITS: u32 = 44;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
const VALUE_MAX: i64 = 1 << (VALUE_BITS - 2);

/// A signed sum for one slice, in one word: the low 20 bits of the slice's
/// number above 44 bits of sum. Sums stop growing at a quarter of what fits.
#[derive(Debug)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds to the slice `epoch` and says what it holds now, as seen by nobody
    /// but this one addition.
    pub(crate) fn add(&self, epoch: u64, value: i64) -> i64 {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            // One slice ahead belongs to a thread that read the clock later.
            let current = matches!(age(word, epoch), -1..=0);
            let (number, sum) = if current { unpack(word) } else { (epoch, 0) };
            let sum = sum.saturating_add(value).clamp(-VALUE_MAX, VALUE_MAX);
            let next = pack(number, sum);
            match self.0.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return sum,
                Err(seen) => word = seen,
            }
        }
    }

    /// The sum, if its slice still counts at `epoch`.
    pub(crate) fn get(&self, epoch: u64) -> Option<i64> {
        let word = self.0.load(Ordering::Relaxed);
        (-1..SLICES as i64).contains(&age(word, epoch)).then(|| unpack(word).1)
    }

    pub(crate) fn copy(&self, other: &Self) {
        self.0.store(other.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

const fn pack(epoch: u64, value: i64) -> u64 {
    (epoch << VALUE_BITS) | (value as u64 & VALUE_MASK)
}

const fn unpack(word: u64) -> (u64, i64) {
    (word >> VALUE_BITS, ((word << (64 - VALUE_BITS)) as i64) >> (64 - VALUE_BITS))
}

/// Slices from the one that `word` holds to `epoch`; negative if it is ahead.
const fn age(word: u64, epoch: u64) -> i64 {
    ((epoch << VALUE_BITS).wrapping_sub(word & !VALUE_MASK) as i64) >> VALUE_BITS
}

/// What a call is remembered as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) failed: bool,
    pub(crate) slow: bool,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that count.
    pub calls: u32,
    /// Those that failed.
    pub failed: u32,
    /// Those that were slow, failed or not.
    pub slow: u32,
}

impl Counts {
    pub(crate) fn add(&mut self, mark: Mark) {
        self.calls += 1;
        self.failed += u32::from(mark.failed);
        self.slow += u32::from(mark.slow);
    }

    fn subtract(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }
}

/// The calls that a judgement is passed on.
#[derive(Clone, Debug)]
pub(crate) enum Window {
    /// Up to 64 calls: one bit each.
    Bits { size: u32, calls: u32, failed: u64, slow: u64 },
    /// More calls: a ring.
    Ring { marks: Box<[Mark]>, next: usize, counts: Counts },
    /// The calls of the last so many seconds.
    Slices { slicing: Slicing, epoch: u64, slices: [Counts; SLICES], counts: Counts },
}

impl Window {
    pub(crate) fn last_calls(size: u32) -> Self {
        if size <= u64::BITS {
            Self::Bits { size, calls: 0, failed: 0, slow: 0 }
        } else {
            let marks = vec![Mark { failed: false, slow: false }; size as usize];
            Self::Ring { marks: marks.into(), next: 0, counts: Counts::default() }
        }
    }

    pub(crate) fn last_time(length: Duration) -> Self {
        Self::Slices {
            slicing: Slicing::new(length),
            epoch: 0,
            slices: [Counts::default(); SLICES],
            counts: Counts::default(),
        }
    }

    /// Counts one call and says what the window holds now.
    pub(crate) fn record(&mut self, now: Instant, mark: Mark) -> Counts {
        self.slide(now);
        match self {
            Self::Bits { size, calls, failed, slow } => {
                let mask = u64::MAX >> (u64::BITS - *size);
                *failed = ((*failed << 1) | u64::from(mark.failed)) & mask;
                *slow = ((*slow << 1) | u64::from(mark.slow)) & mask;
                *calls = (*calls + 1).min(*size);
            }
            Self::Ring { marks, next, counts } => {
                if counts.calls as usize == marks.len() {
                    let oldest = marks[*next];
                    let mut one = Counts::default();
                    one.add(oldest);
                    counts.subtract(one);
                }
                marks[*next] = mark;
                counts.add(mark);
                *next = if *next + 1 == marks.len() { 0 } else { *next + 1 };
            }
            Self::Slices { slicing, epoch, slices, counts } => {
                slices[slicing.index(*epoch)].add(mark);
                counts.add(mark);
            }
        }
        self.held()
    }

    /// What it holds at `now`.
    pub(crate) fn counts(&mut self, now: Instant) -> Counts {
        self.slide(now);
        self.held()
    }

    fn held(&self) -> Counts {
        match self {
            Self::Bits { calls, failed, slow, .. } => {
                Counts { calls: *calls, failed: failed.count_ones(), slow: slow.count_ones() }
            }
            Self::Ring { counts, .. } | Self::Slices { counts, .. } => *counts,
        }
    }

    pub(crate) fn clear(&mut self) {
        match self {
            Self::Bits { calls, failed, slow, .. } => (*calls, *failed, *slow) = (0, 0, 0),
            Self::Ring { next, counts, .. } => (*next, *counts) = (0, Counts::default()),
            Self::Slices { slices, counts, .. } => {
                *slices = [Counts::default(); SLICES];
                *counts = Counts::default();
            }
        }
    }

    /// Drops the slices that `now` has left behind. A clock read a little
    /// earlier than the last counts as the last.
    fn slide(&mut self, now: Instant) {
        let Self::Slices { slicing, epoch, slices, counts } = self else { return };
        let target = slicing.epoch(now);
        if target <= *epoch {
            return;
        }
        for step in 1..=(target - *epoch).min(SLICES as u64) {
            let slice = core::mem::take(&mut slices[slicing.index(*epoch + step)]);
            counts.subtract(slice);
        }
        *epoch = target;
    }
}
