//! How the commits of a store go, counted since the process started.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use selvedge_patterns::wall::Wall;

/// Upper bounds of the buckets of requests in a commit.
const BOUNDS: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// How the commits of a store go.
#[derive(Debug, Default)]
pub struct Vitals {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    requests: AtomicU64,
    sync_failures: AtomicU64,
    doubt: AtomicBool,
    ended: AtomicBool,
    /// Microseconds since the epoch.
    committed: AtomicU64,
}

/// [`Vitals`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Requests in each commit that had some.
    pub batches: Histogram,
    /// Syncs of the disk that failed.
    pub sync_failures: u64,
    /// Whether nothing is written until a sync that failed is made up for.
    pub doubt: bool,
    /// When a commit last succeeded, or the store was opened.
    pub committed: Wall,
}

/// Counts by upper bound, each without those below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Upper bound, `None` for all that is greater, and how many.
    pub buckets: Vec<(Option<u64>, u64)>,
    /// Of everything that was counted.
    pub sum: u64,
}

impl Vitals {
    pub(crate) fn committed(&self, requests: usize, now: Wall) {
        self.committed.store(now.as_micros(), Relaxed);
        // One that only did what was due had none.
        if requests > 0 {
            let requests = requests as u64;
            let at = BOUNDS.iter().position(|bound| requests <= *bound).unwrap_or(BOUNDS.len());
            self.buckets[at].fetch_add(1, Relaxed);
            self.requests.fetch_add(requests, Relaxed);
        }
    }

    pub(crate) fn sync_failed(&self) {
        self.sync_failures.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_doubt(&self, doubt: bool) {
        self.doubt.store(doubt, Relaxed);
    }

    pub(crate) fn writer_ended(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Whether the writer is gone, so that nothing is written until a restart.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// How they stand.
    #[must_use]
    pub fn view(&self) -> View {
        let bounds = BOUNDS.iter().copied().map(Some).chain([None]);
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        View {
            batches: Histogram {
                buckets: bounds.zip(counts).collect(),
                sum: self.requests.load(Relaxed),
            },
            sync_failures: self.sync_failures.load(Relaxed),
            doubt: self.doubt.load(Relaxed),
            committed: Wall::from_micros(self.committed.load(Relaxed)),
        }
    }
}
