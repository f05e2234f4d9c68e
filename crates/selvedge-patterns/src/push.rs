//! What the answer to a pushed message means for the message.
//!
//! Deliberately absent: sending, signing, and the group's own schedule of
//! retries, which applies wherever the answer names no time of its own.
//!
//! Source: Standard Webhooks 1.0, "Operational considerations"; RFC 9110,
//! section 10.2.3.

use core::time::Duration;

#[cfg(test)]
mod tests;

/// The longest that a receiver can put a message off.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a message waits that could not be sent at all, if nothing says when it can.
pub const HELD_BACK_FOR: Duration = Duration::from_secs(1);

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The receiver answered.
    Status {
        /// Its status.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// Nothing was sent: a breaker is open, a bulkhead full, no endpoint there.
    HeldBack {
        /// When it may be sent.
        retry_after: Option<Duration>,
    },
    /// No answer came.
    Failed,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is done.
    Ack,
    /// It failed: again after this time, or as the group's schedule says.
    Retry {
        /// The receiver's word.
        after: Option<Duration>,
    },
    /// The receiver never saw it: again after this time, at no cost, and
    /// nothing else is sent before.
    Release {
        /// How long to wait.
        after: Duration,
    },
    /// The receiver wants no messages any more: stand still until a person says
    /// otherwise.
    Pause,
}

/// What an answer means. Redirects are failures: the address is in the
/// configuration, and a signature is for that one.
#[must_use]
pub fn decide(answer: Answer) -> Decision {
    let bounded = |after: Duration| after.min(RETRY_AFTER_MAX);
    match answer {
        Answer::Status { status: 200..=299, .. } => Decision::Ack,
        Answer::Status { status: 410, .. } => Decision::Pause,
        Answer::Status { status: 429 | 502 | 503 | 504, retry_after } => {
            Decision::Retry { after: retry_after.map(bounded) }
        }
        Answer::Status { .. } | Answer::Failed => Decision::Retry { after: None },
        Answer::HeldBack { retry_after } => {
            Decision::Release { after: retry_after.map_or(HELD_BACK_FOR, bounded) }
        }
    }
}
