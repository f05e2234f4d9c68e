//! What the proxy answers by itself.
//!
//! Every such answer has a stable code with a page in `docs/errors/`. HTTP
//! callers get a problem document (RFC 9457); gRPC callers get a response that
//! is nothing but trailers, with the status that gRPC gives to the HTTP one.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use selvedge_patterns::time::Duration;

use crate::body::Body;

#[cfg(test)]
mod tests;

/// The media type of RFC 9457.
const PROBLEM: &str = "application/problem+json";

/// Why the proxy answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// No route matches.
    NoRoute,
    /// The request is ambiguous or malformed.
    Malformed,
    /// The method or protocol switch is not supported.
    Unsupported,
    /// The route's rate limit was reached.
    RateLimited,
    /// Too little time was left to begin.
    DeadlinePassed,
    /// The circuit breakers of all endpoints are open.
    BreakerOpen,
    /// The bulkhead and its queue are full.
    BulkheadFull,
    /// No endpoint is known, or none may be used.
    NoEndpoint,
    /// No connection could be made.
    Connect,
    /// The connection ended before the response.
    Reset,
    /// The upstream's answer is not valid protocol.
    BadResponse,
    /// The attempt took too long.
    AttemptTimeout,
    /// The whole call took too long.
    DeadlineExceeded,
    /// Too many connections are open to the endpoint.
    ConnectionsFull,
    /// The ambassador knows no such service.
    UnknownService,
    /// The client's body ended early or stood still.
    RequestBody,
    /// The request's head is longer than the limits allow.
    HeadTooLarge,
}

impl Kind {
    /// All of them, for documentation and tests.
    pub const ALL: [Self; 17] = [
        Self::NoRoute,
        Self::Malformed,
        Self::Unsupported,
        Self::RateLimited,
        Self::DeadlinePassed,
        Self::BreakerOpen,
        Self::BulkheadFull,
        Self::NoEndpoint,
        Self::Connect,
        Self::Reset,
        Self::BadResponse,
        Self::AttemptTimeout,
        Self::DeadlineExceeded,
        Self::ConnectionsFull,
        Self::UnknownService,
        Self::RequestBody,
        Self::HeadTooLarge,
    ];

    const fn row(self) -> (&'static str, u16, &'static str, &'static str) {
        match self {
            Self::NoRoute => ("SV0201", 404, "no_route", "No route matches this request"),
            Self::Malformed => {
                ("SV0202", 400, "malformed", "The request is malformed or ambiguous")
            }
            Self::Unsupported => ("SV0203", 501, "unsupported", "The proxy does not do this"),
            Self::RateLimited => ("SV0204", 429, "rate_limited", "The rate limit was reached"),
            Self::DeadlinePassed => {
                ("SV0205", 504, "deadline_passed", "Too little time was left to begin")
            }
            Self::BreakerOpen => {
                ("SV0206", 503, "breaker_open", "The service is failing; calls are held back")
            }
            Self::BulkheadFull => ("SV0207", 503, "bulkhead_full", "Too many calls are in flight"),
            Self::NoEndpoint => {
                ("SV0208", 503, "no_endpoint", "No endpoint of the service may be used")
            }
            Self::Connect => {
                ("SV0209", 502, "connect", "No connection to the service could be made")
            }
            Self::Reset => {
                ("SV0210", 502, "reset", "The service closed the connection before it answered")
            }
            Self::BadResponse => {
                ("SV0211", 502, "bad_response", "The service's answer is not valid HTTP")
            }
            Self::AttemptTimeout => ("SV0212", 504, "attempt_timeout", "The service took too long"),
            Self::DeadlineExceeded => {
                ("SV0213", 504, "deadline_exceeded", "The call took too long")
            }
            Self::ConnectionsFull => {
                ("SV0214", 503, "connections_full", "Too many connections are open to the service")
            }
            Self::UnknownService => {
                ("SV0215", 404, "unknown_service", "There is no service of this name")
            }
            Self::RequestBody => {
                ("SV0216", 400, "request_body", "The request's body did not arrive")
            }
            Self::HeadTooLarge => {
                ("SV0217", 431, "head_too_large", "The request's head is too long")
            }
        }
    }

    /// The stable code, `SV0201`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().1).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// A stable word for logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.row().2
    }

    /// One line for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().3
    }
}

impl Kind {
    /// Its place in [`Kind::ALL`], where it is counted.
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default()
    }
}

/// An answer of the proxy's own.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    /// The numbers, or what exactly is wrong.
    pub(crate) detail: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None }
    }

    pub(crate) const fn after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// The response, in the form that the caller understands.
    pub(crate) fn respond(&self, grpc: bool) -> Response<Body> {
        if grpc { self.trailers_only() } else { self.problem() }
    }

    /// The whole answer as bytes of HTTP/1.1, for a connection that ends with it.
    pub(crate) fn last_words(&self) -> Vec<u8> {
        let (status, json) = (self.kind.status(), self.document());
        let (length, reason) = (json.len(), status.canonical_reason().unwrap_or_default());
        format!(
            "HTTP/1.1 {} {reason}\r\nconnection: close\r\ncontent-type: {PROBLEM}\r\ncontent-length: {length}\r\n\r\n{json}",
            status.as_str(),
        )
        .into_bytes()
    }

    fn problem(&self) -> Response<Body> {
        let json = self.document();
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(json.len()));
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds_up(after)));
        }
        build(self.kind.status(), headers, Body::full(Bytes::from(json)))
    }

    fn document(&self) -> String {
        let kind = self.kind;
        let mut json = String::with_capacity(256);
        json.push_str("{\"type\":\"https://selvedge.dev/errors/");
        json.push_str(kind.code());
        json.push_str("\",\"title\":\"");
        json.push_str(kind.title());
        json.push_str("\",\"status\":");
        json.push_str(kind.status().as_str());
        json.push_str(",\"code\":\"");
        json.push_str(kind.code());
        json.push_str("\",\"reason\":\"");
        json.push_str(kind.reason());
        json.push_str("\",\"detail\":\"");
        escape(&self.detail, &mut json);
        json.push_str("\"}\n");
        json
    }

    fn trailers_only(&self) -> Response<Body> {
        const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
        const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(self.kind)));
        let message = format!("{} {}: {}", self.kind.code(), self.kind.title(), self.detail);
        if let Ok(message) = HeaderValue::from_str(&percent(&message)) {
            headers.insert(GRPC_MESSAGE, message);
        }
        build(StatusCode::OK, headers, Body::empty())
    }
}

pub(crate) fn build(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Whole seconds, rounded up: who comes back at that moment is let in.
pub(crate) const fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + (duration.subsec_nanos() > 0) as u64
}

/// The gRPC status of a local answer: deadlines are told apart, all else goes
/// by the HTTP status.
fn grpc_status(kind: Kind) -> u16 {
    match kind {
        Kind::DeadlinePassed | Kind::DeadlineExceeded | Kind::AttemptTimeout => 4,
        Kind::RateLimited | Kind::BulkheadFull => 8,
        _ => match kind.status().as_u16() {
            400 => 13,
            401 => 16,
            403 => 7,
            404 | 501 => 12,
            429 | 502 | 503 | 504 => 14,
            _ => 2,
        },
    }
}

/// `grpc-message` is percent-encoded.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn escape(text: &str, out: &mut String) {
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            char if char < ' ' => out.push_str(&format!("\\u{:04x}", char as u32)),
            char => out.push(char),
        }
    }
}
