//! The access log: one JSON line a call, to standard output.
//!
//! A worker never waits for the log. Lines go through a bounded channel to a
//! thread that formats and writes them in batches; when the reader of the log is too slow,
//! lines are dropped and counted, and the count is a metric.

use http::Method;
use selvedge_patterns::{
    outcome::{Failure, Outcome},
    time::Duration as Span,
};
use selvedge_proxy::access::{Record, Sink, Tried};
use serde::Serialize;
use std::{
    io::Write,
    sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel},
    time::{Duration, Instant},
};

/// Records that may wait for the writer. Boxed, so that an idle process does not
/// pay for the room.
const WAITING_MAX: usize = 4096;
/// Bytes written at once.
const BATCH_BYTES: usize = 64 << 10;
/// How long a flush waits for a slow reader.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

/// Where workers leave their lines.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    waiting: SyncSender<Message>,
}

#[derive(Debug)]
enum Message {
    Call(Box<Record>),
    /// Everything before this is to be written, then said.
    Flush(Sender<()>),
}

impl AccessLog {
    /// Starts the writer. It ends when every [`AccessLog`] is gone, after
    /// writing what is left.
    pub(crate) fn open(to: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (sender, waiting) = sync_channel(WAITING_MAX);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&waiting, to))?;
        Ok(Self { waiting: sender })
    }

    /// Waits, for a second at most, until what was left so far is written.
    pub(crate) fn flush(&self) {
        let until = Instant::now() + FLUSH_WITHIN;
        let (done, written) = channel();
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.waiting.try_send(message) {
            message = back;
            // The writer is behind; nothing is sent here, so this is a pause.
            if written.recv_timeout(FLUSH_PAUSE).is_ok() || Instant::now() > until {
                return;
            }
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl Sink for AccessLog {
    fn offer(&self, record: Record) -> bool {
        self.waiting.try_send(Message::Call(Box::new(record))).is_ok()
    }
}

fn write(waiting: &Receiver<Message>, mut to: impl Write) {
    let mut batch = Vec::with_capacity(1024);
    let mut flushed = Vec::new();
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Call(record) => line(&record, &mut batch),
                Message::Flush(done) => flushed.push(done),
            }
            next = if batch.len() < BATCH_BYTES { waiting.try_recv().ok() } else { None };
        }
        // A log that nobody reads any more must not end the proxy.
        let _ = to.write_all(&batch);
        let _ = to.flush();
        batch.clear();
        for done in flushed.drain(..) {
            let _ = done.send(());
        }
    }
}

/// One line, in the order in which a person reads it.
#[derive(Serialize)]
struct Line<'a> {
    /// Says which of the lines on standard output this is.
    log: &'static str,
    time: String,
    /// `null`, like what follows from it, where the head was not valid HTTP.
    method: Option<&'a str>,
    host: &'a str,
    path: &'a str,
    status: Option<u16>,
    /// Why it ended as it did, in a stable word.
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    route: Option<&'a str>,
    service: Option<&'a str>,
    attempts: Vec<Attempt<'a>>,
    attempts_total: u32,
    head_ms: f64,
    total_ms: f64,
    bytes: u64,
    whole: bool,
    client: String,
    request_id: Option<&'a str>,
    trace_id: Option<String>,
    span_id: Option<String>,
}

#[derive(Serialize)]
struct Attempt<'a> {
    endpoint: &'a str,
    kind: &'static str,
    outcome: Option<&'static str>,
    began_ms: f64,
    took_ms: Option<f64>,
}

fn line(record: &Record, batch: &mut Vec<u8>) {
    let line = Line {
        log: "access",
        time: timestamp(record.began_unix_ms),
        method: record.method.as_ref().map(Method::as_str),
        host: &record.host,
        path: &record.path,
        status: record.status.map(|status| status.as_u16()),
        reason: record.reason,
        code: record.code,
        route: record.route.as_deref(),
        service: record.service.as_deref(),
        attempts: record.tried.iter().flatten().map(attempt).collect(),
        attempts_total: record.attempts,
        head_ms: milliseconds(record.head_after),
        total_ms: milliseconds(record.total),
        bytes: record.bytes,
        whole: record.whole,
        client: record.client.to_string(),
        request_id: record.request_id.as_ref().and_then(|id| id.to_str().ok()),
        trace_id: record.trace.map(|trace| format!("{:032x}", trace.id)),
        span_id: record.trace.map(|trace| format!("{:016x}", trace.span)),
    };
    // Writing to memory cannot fail, and every field is plain.
    if serde_json::to_writer(&mut *batch, &line).is_ok() {
        batch.push(b'\n');
    }
}

fn attempt(tried: &Tried) -> Attempt<'_> {
    Attempt {
        endpoint: &tried.endpoint,
        kind: tried.kind.word(),
        outcome: tried.outcome.map(word),
        began_ms: milliseconds(tried.began_after),
        took_ms: tried.took.map(milliseconds),
    }
}

const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Success => "success",
        Outcome::Failure(Failure::Connect) => "connect",
        Outcome::Failure(Failure::Refused) => "refused",
        Outcome::Failure(Failure::Reset) => "reset",
        Outcome::Failure(Failure::Timeout) => "timeout",
        Outcome::Failure(Failure::Gateway) => "gateway",
        Outcome::Failure(Failure::Server) => "server",
        Outcome::Failure(Failure::Malformed) => "malformed",
        Outcome::Overload { .. } => "overload",
        Outcome::ClientFault => "client_fault",
        Outcome::Cancelled => "cancelled",
        Outcome::Local => "local",
    }
}

/// Milliseconds, to the microsecond.
fn milliseconds(span: Span) -> f64 {
    span.as_micros() as f64 / 1e3
}

/// RFC 3339 in UTC, to the millisecond.
fn timestamp(unix_ms: u64) -> String {
    let (days, rest) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Days to a date of the Gregorian calendar: Hinnant, "chrono-compatible
    // low-level date algorithms", `civil_from_days`, for days since 1970.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second, ms) =
        (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests;
