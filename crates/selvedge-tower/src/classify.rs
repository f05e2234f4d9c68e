//! What the patterns need to know of requests and responses that they cannot know.
//!
//! Retry, hedge, breaker and balancer all ask the same [`Classify`], so they
//! agree on what a failure is and on what may be repeated.

use selvedge_patterns::outcome::{Outcome, Safety};

use crate::error::Error;

/// Reads requests and responses for the patterns.
pub trait Classify<Request, Response> {
    /// Whether a repeat of `request` is safe.
    fn safety(&self, request: &Request) -> Safety;

    /// A copy of `request` to send again, or `None` if there cannot be one (a
    /// body that is gone once read). Asked only for what may be repeated.
    fn replay(&self, request: &Request) -> Option<Request>;

    /// How an attempt ended.
    fn outcome(&self, result: Result<&Response, &Error>) -> Outcome;
}

/// Any response is a success, any error a failure. Requests are cloned, and
/// are as safe to repeat as it was told.
#[derive(Clone, Copy, Debug)]
pub struct Always(Safety);

impl Always {
    /// Every request may be repeated, and hedged: it only reads.
    pub const SAFE: Self = Self(Safety::Safe);
    /// Every request may be repeated: doing it twice is doing it once.
    pub const IDEMPOTENT: Self = Self(Safety::Idempotent);
    /// No request may be repeated, unless it was provably not processed.
    pub const UNSAFE: Self = Self(Safety::Unsafe);
}

impl<Request: Clone, Response> Classify<Request, Response> for Always {
    fn safety(&self, _: &Request) -> Safety {
        self.0
    }

    fn replay(&self, request: &Request) -> Option<Request> {
        Some(request.clone())
    }

    fn outcome(&self, result: Result<&Response, &Error>) -> Outcome {
        result.map_or_else(Error::outcome, |_| Outcome::Success)
    }
}

/// HTTP: method and `Idempotency-Key` say what may be repeated, the status
/// says how it ended. Requests are cloned, so their bodies must be `Clone`:
/// `Bytes`, `String`, `()`, not a stream.
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Http;

#[cfg(feature = "http")]
mod http_impl {
    use selvedge_patterns::idempotency;
    use selvedge_patterns::outcome::{Failure, Outcome, Safety};
    use selvedge_patterns::time::Duration;

    use super::{Classify, Http};
    use crate::error::Error;

    impl<B: Clone, R> Classify<http::Request<B>, http::Response<R>> for Http {
        fn safety(&self, request: &http::Request<B>) -> Safety {
            idempotency::safety(
                request.method().as_str(),
                request.headers().contains_key("idempotency-key"),
            )
        }

        fn replay(&self, request: &http::Request<B>) -> Option<http::Request<B>> {
            Some(request.clone())
        }

        fn outcome(&self, result: Result<&http::Response<R>, &Error>) -> Outcome {
            result.map_or_else(Error::outcome, of_response)
        }
    }

    fn of_response<R>(response: &http::Response<R>) -> Outcome {
        let retry_after = || {
            let value = response.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?;
            // A date would need the wall clock; delay-seconds is what servers send.
            value.trim().parse().ok().map(Duration::from_secs)
        };
        match response.status().as_u16() {
            429 => Outcome::Overload { retry_after: retry_after() },
            503 if response.headers().contains_key(http::header::RETRY_AFTER) => {
                Outcome::Overload { retry_after: retry_after() }
            }
            502..=504 => Outcome::Failure(Failure::Gateway),
            500.. => Outcome::Failure(Failure::Server),
            400..=499 => Outcome::ClientFault,
            _ => Outcome::Success,
        }
    }
}
