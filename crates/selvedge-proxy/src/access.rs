//! One record for each call, handed over without ever waiting.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use http::{HeaderValue, Method, StatusCode};
use selvedge_patterns::call::Kind;
use selvedge_patterns::outcome::Outcome;
use selvedge_patterns::time::Duration;

use crate::trace::Trace;

/// Takes records. Called on worker threads, so it must not block.
pub trait Sink: Send + Sync + fmt::Debug {
    /// Takes `record`, or says `false` if there is no room; that is counted.
    fn offer(&self, record: Record) -> bool;
}

impl Sink for SyncSender<Record> {
    fn offer(&self, record: Record) -> bool {
        self.try_send(record).is_ok()
    }
}

/// Attempts that a record names; further ones are only counted.
pub const ATTEMPTS_MAX: usize = 4;

/// One call, as it ended.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it began, in milliseconds since the Unix epoch.
    pub began_unix_ms: u64,
    /// The route's name, if one matched.
    pub route: Option<Arc<str>>,
    /// The service's name, if it came so far.
    pub service: Option<Arc<str>>,
    /// Method; `None` if the head was not valid HTTP.
    pub method: Option<Method>,
    /// Host, as it came.
    pub host: String,
    /// Path without query, which may hold secrets.
    pub path: String,
    /// What was answered; `None` if the caller went away before.
    pub status: Option<StatusCode>,
    /// Why the proxy answered by itself, or how the call ended: a stable word.
    pub reason: &'static str,
    /// `SV…` code, if the proxy answered by itself.
    pub code: Option<&'static str>,
    /// Attempts made.
    pub attempts: u32,
    /// The first of them.
    pub tried: [Option<Tried>; ATTEMPTS_MAX],
    /// From the request's head to the response's.
    pub head_after: Duration,
    /// From the request's head to the end of the response.
    pub total: Duration,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// Whether the response arrived whole.
    pub whole: bool,
    /// The trace.
    pub trace: Option<Trace>,
    /// The request's id: the caller's `x-request-id`, or the one it was given.
    pub request_id: Option<HeaderValue>,
    /// The client's address, as far as proxies are trusted.
    pub client: std::net::IpAddr,
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Where it went.
    pub endpoint: Arc<str>,
    /// What made it.
    pub kind: Kind,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// When it began, from the beginning of the call.
    pub began_after: Duration,
    /// How long it took, if it ended.
    pub took: Option<Duration>,
}
