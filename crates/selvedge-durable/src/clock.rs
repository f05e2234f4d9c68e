//! Where the wall-clock time comes from.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use selvedge_patterns::wall::Wall;

/// Tells the time. The store never lets it run backwards.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Wall;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall::ZERO + since
    }
}

/// A clock that a test moves; follow an advance with
/// [`crate::Sqlite::wake`], since a sleeping writer cannot see it.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub const fn new(now: Wall) -> Self {
        Self(AtomicU64::new(now.as_micros()))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: std::time::Duration) {
        let to = self.now() + by;
        self.0.store(to.as_micros(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Wall {
        Wall::from_micros(self.0.load(Ordering::SeqCst))
    }
}
