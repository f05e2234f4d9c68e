//! What a layer answers when there is no response.

use selvedge_patterns::outcome::{Failure, Outcome};
use selvedge_patterns::time::Duration;
use selvedge_patterns::{breaker, bulkhead, call, limit};

/// Any error, as tower passes it between layers.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a layer answers when there is no response.
///
/// Every layer of this crate has this error, however deep the stack: an error
/// that comes from below is passed on as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer refused the call. The service below it never saw it, so calling
    /// again is safe whatever the request.
    #[error("rejected: {0}")]
    Rejected(Rejected),
    /// The attempt took longer than it may. Whether it was processed is unknown.
    #[error("no response within {limit:?}")]
    TimedOut {
        /// What the attempt was given.
        limit: Duration,
    },
    /// The call's deadline passed while it was under way.
    #[error("deadline passed after {elapsed:?}")]
    DeadlinePassed {
        /// How long the call had been under way.
        elapsed: Duration,
    },
    /// The service failed.
    #[error("the service failed")]
    Service(#[source] BoxError),
}

/// Why a layer refused a call.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// A rate limit.
    #[error("{cost} asked for, {remaining} of {limit} left", cost = .0.cost, remaining = .0.remaining, limit = .0.limit)]
    Limit(limit::Rejected),
    /// Too little time was left to begin.
    #[error("{remaining:?} left, {needed:?} needed")]
    Deadline {
        /// What was left.
        remaining: Duration,
        /// The least that makes sense.
        needed: Duration,
    },
    /// The breaker is open.
    #[error("the breaker is {state}", state = .0.state.word())]
    Breaker(breaker::Rejected),
    /// The bulkhead is full.
    #[error("{in_flight} calls run and {queued} wait", in_flight = .0.in_flight, queued = .0.queued)]
    Bulkhead(bulkhead::Rejected),
    /// A policy, with all its patterns considered.
    #[error("{reason}", reason = .0.reason.code())]
    Call(call::Rejected),
}

/// Whose doing an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The caller's: it asked for too much, or left too little time.
    Client,
    /// The dependency's, or of the way to it.
    Upstream,
    /// A pattern's, to protect the one or the other.
    Selvedge,
}

impl Error {
    /// From whatever an inner service answers; one of ours stays what it is.
    pub(crate) fn from_service(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(ours) => *ours,
            Err(theirs) => Self::Service(theirs),
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        match self {
            Self::Rejected(rejected) => rejected.origin(),
            Self::DeadlinePassed { .. } => Origin::Client,
            Self::TimedOut { .. } | Self::Service(_) => Origin::Upstream,
        }
    }

    /// Whether the same call may succeed later, and may be repeated without
    /// knowing the request: only what was provably not processed.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Rejected(rejected) => rejected.retryable(),
            Self::TimedOut { .. } | Self::DeadlinePassed { .. } | Self::Service(_) => false,
        }
    }

    /// When to come back, where that is known.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rejected(rejected) => rejected.retry_after(),
            Self::TimedOut { .. } | Self::DeadlinePassed { .. } | Self::Service(_) => None,
        }
    }

    /// The stable code with a page in `docs/errors/`, the same that the proxy
    /// answers with. `None` where the service itself failed: that is its own error.
    #[must_use]
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::Rejected(rejected) => Some(rejected.code()),
            Self::TimedOut { .. } => Some("SV0212"),
            Self::DeadlinePassed { .. } => Some("SV0213"),
            Self::Service(_) => None,
        }
    }

    /// A stable word for logs and metrics; tells apart what shares a code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Rejected(rejected) => rejected.reason(),
            Self::TimedOut { .. } => "attempt_timeout",
            Self::DeadlinePassed { .. } => "deadline_passed",
            Self::Service(_) => "service_error",
        }
    }

    /// What the patterns make of it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Rejected(_) => Outcome::Local,
            Self::TimedOut { .. } => Outcome::Failure(Failure::Timeout),
            Self::DeadlinePassed { .. } => Outcome::Cancelled,
            // An error instead of a response: the connection, as far as anyone can tell.
            Self::Service(_) => Outcome::Failure(Failure::Reset),
        }
    }
}

impl Rejected {
    const fn origin(&self) -> Origin {
        match self {
            Self::Limit(_) | Self::Deadline { .. } => Origin::Client,
            Self::Call(rejected) if matches!(rejected.reason, call::Reason::Deadline) => {
                Origin::Client
            }
            Self::Breaker(_) | Self::Bulkhead(_) | Self::Call(_) => Origin::Selvedge,
        }
    }

    const fn retryable(&self) -> bool {
        match self {
            Self::Limit(rejected) => rejected.retry_after.is_some(),
            Self::Deadline { .. } => false,
            Self::Call(rejected) => {
                !matches!(rejected.reason, call::Reason::Deadline) && rejected.last.is_none()
            }
            Self::Breaker(_) | Self::Bulkhead(_) => true,
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limit(rejected) => rejected.retry_after,
            Self::Breaker(rejected) => rejected.retry_after,
            Self::Call(rejected) => rejected.retry_after,
            Self::Deadline { .. } | Self::Bulkhead(_) => None,
        }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::Limit(_) => "SV0204",
            Self::Deadline { .. } => "SV0205",
            Self::Breaker(_) => "SV0206",
            Self::Bulkhead(_) => "SV0207",
            Self::Call(rejected) => match rejected.reason {
                call::Reason::Deadline if rejected.last.is_some() => "SV0213",
                call::Reason::Deadline => "SV0205",
                call::Reason::CircuitOpen => "SV0206",
                call::Reason::Bulkhead(_) => "SV0207",
                _ => "SV0208",
            },
        }
    }

    const fn reason(&self) -> &'static str {
        match self {
            Self::Limit(rejected) => rejected.reason.code(),
            Self::Deadline { .. } => "deadline_too_short",
            Self::Breaker(rejected) => rejected.code(),
            Self::Bulkhead(rejected) => rejected.reason.code(),
            Self::Call(rejected) => rejected.reason.code(),
        }
    }
}
