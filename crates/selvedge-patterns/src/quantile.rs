//! Quantiles of recent latencies, in bounded memory.
//!
//! [`Histogram`] counts durations in buckets whose width is at most 1/32 of
//! their value; [`Rotating`] answers from the last whole period while the next
//! one fills, so an answer is neither of all time nor of three samples.
//!
//! Source: the log-linear buckets of HdrHistogram; the rotation of tower's hedge.

use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::time::{Duration, Instant, nanos};

#[cfg(test)]
mod tests;

/// Below this everything is one bucket wide: about a microsecond.
const UNIT_BITS: u32 = 10;
/// 32 buckets per doubling: an error of at most 3.2 %.
const SUB_BITS: u32 = 5;
/// Above this everything is in the last bucket: 2^37 ns, over two minutes.
const TOP_BITS: u32 = 37;
const BUCKETS: usize = (((TOP_BITS - UNIT_BITS - SUB_BITS) + 2) << SUB_BITS) as usize;

/// Counts of durations in about 770 buckets (3 KiB).
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u32; BUCKETS]>,
    total: u64,
}

impl core::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Histogram").field("total", &self.total).finish_non_exhaustive()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// Without a sample.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }

    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let count = &mut self.counts[bucket(nanos(duration))];
        *count = count.saturating_add(1);
        self.total += 1;
    }

    /// How many durations were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.total
    }

    /// The duration that a share `q` of the samples does not exceed, rounded up
    /// to its bucket's edge (at most 3.2 % too long); `None` without a sample.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        if self.total == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let index = self.counts.iter().position(|&count| {
            seen += u64::from(count);
            seen >= rank
        });
        Some(Duration::from_nanos(upper_edge(index.unwrap_or(BUCKETS - 1))))
    }

    /// Forgets every sample.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }
}

const fn bucket(ns: u64) -> usize {
    let units = ns >> UNIT_BITS;
    if units < (1 << SUB_BITS) {
        return units as usize;
    }
    let doubling = units.ilog2() - SUB_BITS;
    let index =
        (((doubling + 1) << SUB_BITS) as u64 + ((units >> doubling) - (1 << SUB_BITS))) as usize;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// The largest duration that falls into bucket `index`.
const fn upper_edge(index: usize) -> u64 {
    let index = index as u64;
    let units = if index < (1 << SUB_BITS) {
        index + 1
    } else {
        let doubling = (index >> SUB_BITS) - 1;
        ((index & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS) + 1) << doubling
    };
    (units << UNIT_BITS) - 1
}

/// Two histograms that change places: one is read while the other fills.
#[derive(Clone, Debug)]
pub struct Rotating {
    read: Histogram,
    write: Histogram,
    period: Duration,
    next: Instant,
}

impl Rotating {
    /// Answers from a whole `period` at a time.
    #[must_use]
    pub fn new(now: Instant, period: Duration) -> Self {
        Self { read: Histogram::new(), write: Histogram::new(), period, next: now + period }
    }

    /// Counts one duration.
    pub fn record(&mut self, now: Instant, duration: Duration) {
        self.wake(now);
        self.write.record(duration);
    }

    /// The samples of the last whole period.
    pub fn settled(&mut self, now: Instant) -> &Histogram {
        self.wake(now);
        &self.read
    }

    /// When the answer may change.
    #[must_use]
    pub const fn next_wakeup(&self) -> Instant {
        self.next
    }

    /// After one period the halves change places; after two there is nothing
    /// left to read. Answers whether anything changed.
    pub fn wake(&mut self, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        core::mem::swap(&mut self.read, &mut self.write);
        self.write.clear();
        if now >= self.next + self.period {
            self.read.clear();
        }
        self.next = now + self.period;
        true
    }
}

/// One quantile of recent durations for many readers: reading is two atomic
/// loads, recording a short lock.
#[derive(Debug)]
pub struct Shared {
    quantile: f64,
    samples_min: u64,
    /// Nanoseconds; 0 while too few samples are known.
    answer: AtomicU64,
    next_wakeup: AtomicU64,
    rotating: Mutex<Rotating>,
}

impl Shared {
    /// Watches the `quantile` over whole periods with at least `samples_min` samples each.
    #[must_use]
    pub fn new(now: Instant, quantile: f64, period: Duration, samples_min: u64) -> Self {
        let rotating = Rotating::new(now, period);
        Self {
            quantile,
            samples_min,
            answer: AtomicU64::new(0),
            next_wakeup: AtomicU64::new(rotating.next_wakeup().as_nanos()),
            rotating: Mutex::new(rotating),
        }
    }

    /// Counts one duration.
    pub fn record(&self, now: Instant, duration: Duration) {
        let mut rotating = lock(&self.rotating);
        self.wake(now, &mut rotating);
        rotating.record(now, duration);
    }

    /// The quantile over the last whole period, or `None` if it had too few samples.
    pub fn get(&self, now: Instant) -> Option<Duration> {
        // Acquire: whoever sees the new period sees its answer too.
        if now.as_nanos() >= self.next_wakeup.load(Ordering::Acquire) {
            self.wake(now, &mut lock(&self.rotating));
        }
        let answer = self.answer.load(Ordering::Relaxed);
        (answer != 0).then(|| Duration::from_nanos(answer))
    }

    fn wake(&self, now: Instant, rotating: &mut Rotating) {
        if !rotating.wake(now) {
            return;
        }
        let settled = &rotating.read;
        let answer =
            if settled.count() < self.samples_min { None } else { settled.quantile(self.quantile) };
        self.answer.store(answer.map_or(0, nanos), Ordering::Relaxed);
        self.next_wakeup.store(rotating.next.as_nanos(), Ordering::Release);
    }
}
