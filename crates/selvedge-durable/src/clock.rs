//! Where the wall-clock time comes from.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use selvedge_patterns::wall::Wall;

/// Tells the time. The store never lets it run backwards.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> Wall;
}

/// The machine's clock. When somebody turns it back, time goes on at its pace
/// until the clock has caught up, so that no lease or timer stands still.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Wall {
        static LAST: Mutex<Option<Reading>> = Mutex::new(None);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut last = LAST.lock();
        let reading = Reading::after(*last, Instant::now(), Wall::ZERO + since);
        *last = Some(reading);
        reading.wall
    }
}

/// What the clocks said together.
#[derive(Clone, Copy, Debug)]
struct Reading {
    instant: Instant,
    wall: Wall,
}

impl Reading {
    fn after(last: Option<Self>, instant: Instant, wall: Wall) -> Self {
        let passed = |last: Self| last.wall + instant.saturating_duration_since(last.instant);
        Self { instant, wall: last.map_or(wall, |last| passed(last).max(wall)) }
    }
}

/// A clock that a test moves; follow an advance with
/// [`crate::Store::wake`], since a sleeping writer cannot see it.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_is_turned_back_goes_on() {
        let second = Duration::from_secs(1);
        let (start, noon) = (Instant::now(), Wall::from_secs(1_800_000_000));
        let first = Reading::after(None, start, noon);
        let back = Reading::after(Some(first), start + second, Wall::from_secs(1_799_990_000));
        assert_eq!(back.wall, noon + second);
        let ahead = Reading::after(Some(back), start + second * 2, noon + second * 100);
        assert_eq!(ahead.wall, noon + second * 100);
    }
}
