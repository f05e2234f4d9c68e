//! The one place where the data plane reads time.
//!
//! Patterns count from an origin that somebody chooses once: here it is the
//! moment the proxy started.

use std::time::{SystemTime, UNIX_EPOCH};

use selvedge_patterns::time::{Duration, Instant};

/// Reads the monotonic clock as the patterns count it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock whose origin is now.
    #[must_use]
    pub fn start() -> Self {
        // One second is taken off so that "before the start" can be told from zero.
        let now = std::time::Instant::now();
        Self { origin: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.origin.elapsed().as_nanos() as u64)
    }

    /// `instant` for tokio's timers; the far future if it never comes.
    pub(crate) fn timer(&self, instant: Instant) -> tokio::time::Instant {
        const FAR: u64 = 86_400_000_000_000 * 365;
        let nanos = instant.as_nanos().min(FAR);
        tokio::time::Instant::from_std(self.origin + Duration::from_nanos(nanos))
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
