//! How an attempt ended, in the words every pattern shares.
//!
//! Retry, breaker, balancer, outlier detection and budget all read an
//! [`Outcome`]; none of them looks at a status code or an error type again.

use crate::time::Duration;

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The dependency answered as it should.
    Success,
    /// The dependency, or the way to it, failed.
    Failure(Failure),
    /// The dependency is alive and says that it has too much to do: 429, 503
    /// with `Retry-After`, `RESOURCE_EXHAUSTED`.
    Overload {
        /// The dependency's own hint, if it gave one.
        retry_after: Option<Duration>,
    },
    /// The caller's fault (4xx other than 429): says nothing about the dependency.
    ClientFault,
    /// Nobody waited for the answer: the caller went away, or another attempt won.
    Cancelled,
    /// Selvedge rejected the attempt itself; the dependency never saw it. No
    /// pattern may count it against the dependency.
    Local,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made: provably unprocessed.
    Connect,
    /// The peer refused the request unprocessed (`REFUSED_STREAM`, a `GOAWAY`
    /// whose last stream is below ours).
    Refused,
    /// The connection ended before the response head.
    Reset,
    /// The attempt timeout passed; whether it was processed is unknown.
    Timeout,
    /// A gateway-class status: 502, 503, 504, or gRPC `UNAVAILABLE`.
    Gateway,
    /// Another server error: 5xx, or gRPC `INTERNAL`, `UNKNOWN`, `DATA_LOSS`.
    Server,
    /// The answer was not valid protocol.
    Malformed,
}

impl Failure {
    /// Whether the dependency provably did no work, so that a repeat is safe
    /// whatever the method (RFC 9110 §9.2.2, RFC 9113 §8.7).
    #[must_use]
    pub const fn unprocessed(self) -> bool {
        matches!(self, Self::Connect | Self::Refused)
    }
}

/// Whether repeating a call is safe: a property of the request, read by
/// retry, hedge and failover alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    /// A repeat may do the work twice: POST, PATCH without a key.
    Unsafe,
    /// A repeat has the same effect as one: PUT, DELETE, or an `Idempotency-Key`.
    Idempotent,
    /// The call has no effect: GET, HEAD, OPTIONS, TRACE. May be hedged.
    Safe,
}
