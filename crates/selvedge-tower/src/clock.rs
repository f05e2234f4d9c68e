//! The one place that reads the clock.
//!
//! Reading it costs as much as any pattern, so all layers that one call or one
//! poll passes through share a reading: the outermost opens a [`Frame`], the
//! first to ask reads, the others are told the same. The deadline travels the
//! same way, which is how a retry knows what the layer above it has left
//! without either touching the request.
//!
//! Time is tokio's, so `tokio::time::pause` holds for every layer.

use std::cell::Cell;
use std::sync::OnceLock;

use selvedge_patterns::deadline::Deadline;
use selvedge_patterns::time::{Duration, Instant};

/// Turns tokio's clock into the patterns' instants and back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: tokio::time::Instant,
}

impl Clock {
    /// The clock of this process: all layers and handles use it.
    ///
    /// Its origin lies an hour before its first use, so that a runtime whose
    /// paused clock stands a little behind still has instants of its own.
    #[must_use]
    pub fn process() -> Self {
        static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
        let origin = *ORIGIN.get_or_init(|| {
            let now = std::time::Instant::now();
            now.checked_sub(Duration::from_secs(3_600)).unwrap_or(now).into()
        });
        Self { origin }
    }

    /// What time it is; within one frame always the same.
    #[must_use]
    pub fn now(&self) -> Instant {
        FRAME.with(|frame| {
            let cached = frame.now.get();
            if cached != UNREAD {
                return Instant::from_nanos(cached);
            }
            let now = self.instant(tokio::time::Instant::now());
            if frame.depth.get() > 0 {
                frame.now.set(now.as_nanos());
            }
            now
        })
    }

    /// `at` as the patterns count it.
    #[must_use]
    pub fn instant(&self, at: tokio::time::Instant) -> Instant {
        Instant::ZERO + at.saturating_duration_since(self.origin)
    }

    /// `at` as tokio's timers count it; the end of time is a year from its origin.
    #[must_use]
    pub fn tokio(&self, at: Instant) -> tokio::time::Instant {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        self.origin + at.since(Instant::ZERO).min(YEAR * 10)
    }
}

#[cfg(test)]
mod tests;

const UNREAD: u64 = u64::MAX;

struct Shared {
    depth: Cell<u32>,
    now: Cell<u64>,
    deadline: Cell<Deadline>,
}

thread_local! {
    static FRAME: Shared = const {
        Shared { depth: Cell::new(0), now: Cell::new(UNREAD), deadline: Cell::new(Deadline::NONE) }
    };
}

/// While it lives, [`Clock::now`] gives one and the same instant on this
/// thread. Every layer opens one around what it does within one call or poll.
#[derive(Debug)]
pub struct Frame {
    outer_deadline: Deadline,
    // A thread's own: it must not be dropped on another.
    _local: std::marker::PhantomData<*const ()>,
}

impl Frame {
    /// Opens a frame, or joins the one that is open.
    #[must_use = "the frame ends when it is dropped"]
    pub fn enter() -> Self {
        FRAME.with(|frame| {
            frame.depth.set(frame.depth.get() + 1);
            Self { outer_deadline: frame.deadline.get(), _local: std::marker::PhantomData }
        })
    }

    /// Cuts the deadline that inner layers see, until this frame is dropped.
    pub fn shorten(&self, deadline: Deadline) {
        FRAME.with(|frame| frame.deadline.set(frame.deadline.get().min(deadline)));
    }

    /// The deadline that outer layers have set.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        FRAME.with(|frame| frame.deadline.get())
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        FRAME.with(|frame| {
            let depth = frame.depth.get() - 1;
            frame.depth.set(depth);
            frame.deadline.set(self.outer_deadline);
            if depth == 0 {
                frame.now.set(UNREAD);
            }
        });
    }
}
