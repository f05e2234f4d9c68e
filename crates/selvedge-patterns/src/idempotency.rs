//! Whether a repeat of a request is safe, and what to do with a key.
//!
//! On the way to a dependency: [`safety`] reads method and key once, and
//! retry, hedge and failover all go by the answer. On the way into a
//! protected service: [`admit`] decides what a request with a key becomes.
//! Storing keys and answers is the caller's.
//!
//! Sources: RFC 9110 §9.2.2; draft-ietf-httpapi-idempotency-key-header.

use crate::outcome::Safety;

#[cfg(test)]
mod tests;

/// What may be done with a request of this `method` (upper case, as on the
/// wire) that has an `Idempotency-Key` or has not. Unknown methods are unsafe.
#[must_use]
pub fn safety(method: &str, has_key: bool) -> Safety {
    match method {
        "GET" | "HEAD" | "OPTIONS" | "TRACE" => Safety::Safe,
        "PUT" | "DELETE" => Safety::Idempotent,
        _ if has_key => Safety::Idempotent,
        _ => Safety::Unsafe,
    }
}

/// What is stored under a key (within its principal's scope).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Fingerprint of the request that came first: method, path and body, never hop headers.
    pub fingerprint: u64,
    /// Whether its answer is there to be repeated.
    pub completed: bool,
}

/// What a request becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through; with a key, reserve the key first, atomically.
    Process,
    /// The stored answer is given again.
    Replay,
    /// It is refused.
    Refuse(Reason),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A key is required here and there is none: 400.
    Missing,
    /// The key belongs to a different request: 422.
    Mismatch,
    /// The first request with the key is still being processed: 409.
    InFlight,
}

impl Reason {
    /// A stable word for logs, metrics and problem documents.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Missing => "idempotency_key_missing",
            Self::Mismatch => "idempotency_key_mismatch",
            Self::InFlight => "idempotency_key_in_flight",
        }
    }
}

/// Decides on a request whose key, if it has one, came with `fingerprint` and
/// was found `stored` or not.
#[must_use]
pub fn admit(required: bool, fingerprint: Option<u64>, stored: Option<Stored>) -> Verdict {
    match (fingerprint, stored) {
        (None, _) if required => Verdict::Refuse(Reason::Missing),
        (None, _) | (Some(_), None) => Verdict::Process,
        (Some(mine), Some(first)) if mine != first.fingerprint => Verdict::Refuse(Reason::Mismatch),
        (Some(_), Some(Stored { completed: true, .. })) => Verdict::Replay,
        (Some(_), Some(Stored { completed: false, .. })) => Verdict::Refuse(Reason::InFlight),
    }
}
