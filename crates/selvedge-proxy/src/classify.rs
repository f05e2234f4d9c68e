//! What an answer, or the want of one, says about the dependency.

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use selvedge_patterns::outcome::{Failure, Outcome};
use selvedge_patterns::time::Duration;

use crate::pool::Failed;

#[cfg(test)]
mod tests;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What a response's head says; `None` if only its trailers will.
pub(crate) fn response<B>(response: &Response<B>, grpc: bool) -> Option<Outcome> {
    if grpc && response.status() == StatusCode::OK {
        return self::grpc(response.headers());
    }
    let retry_after = || retry_after(response.headers());
    Some(match response.status().as_u16() {
        429 => Outcome::Overload { retry_after: retry_after() },
        503 => match retry_after() {
            None => Outcome::Failure(Failure::Gateway),
            after => Outcome::Overload { retry_after: after },
        },
        502 | 504 => Outcome::Failure(Failure::Gateway),
        500..=599 => Outcome::Failure(Failure::Server),
        400..=499 => Outcome::ClientFault,
        _ => Outcome::Success,
    })
}

/// What `grpc-status` says, if it is there.
pub(crate) fn grpc(fields: &HeaderMap) -> Option<Outcome> {
    let status = fields.get(GRPC_STATUS)?.to_str().ok()?.parse::<u32>().unwrap_or(2);
    Some(match status {
        0 => Outcome::Success,
        1 => Outcome::Cancelled,
        4 => Outcome::Failure(Failure::Timeout),
        8 => Outcome::Overload { retry_after: None },
        14 => Outcome::Failure(Failure::Gateway),
        2 | 13 | 15 => Outcome::Failure(Failure::Server),
        _ => Outcome::ClientFault,
    })
}

/// The form in seconds; a date says nothing to a clock that may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What an attempt without an answer says.
pub(crate) const fn failure(failed: &Failed) -> Outcome {
    match failed {
        Failed::Connect(_) | Failed::ConnectTimeout => Outcome::Failure(Failure::Connect),
        Failed::ConnectionsFull => Outcome::Local,
        Failed::Refused => Outcome::Failure(Failure::Refused),
        Failed::Reset => Outcome::Failure(Failure::Reset),
        Failed::Malformed(_) => Outcome::Failure(Failure::Malformed),
        Failed::RequestBody => Outcome::ClientFault,
    }
}
