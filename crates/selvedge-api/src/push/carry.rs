//! The way from here to a service: through the data plane and its policies.

use std::{fmt, future::Future, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_durable::{Clock as _, SystemClock};
use selvedge_patterns::{balance::Standing, push::Answer, wall::Wall};
use selvedge_proxy::{Handle, LocalAnswer};
use serde::Deserialize;
use tokio::{net::TcpStream, sync::Mutex};

/// Bytes of an answer that are looked at.
const ANSWER_MAX: usize = 64 << 10;
/// How long a service that takes nothing is left alone before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Takes requests to one service.
pub trait Carrier: Send + Sync + 'static {
    /// How long to wait before anything is worth sending, if it is not now.
    fn held_back(&self) -> Option<Duration>;

    /// Sends a request, whose target is only a path, and says what came back,
    /// and in a few words why if it is no success.
    fn send(&self, request: Request<Full<Bytes>>) -> impl Future<Output = (Answer, String)> + Send;
}

/// Through the data plane of this process, by the service's own policies:
/// timeouts, breakers, balancing, limits.
#[derive(Clone)]
pub struct Through {
    proxy: Handle,
    service: Arc<str>,
    /// One connection carries all requests; made when it is needed.
    connection: Arc<Mutex<Option<SendRequest<Full<Bytes>>>>>,
}

impl fmt::Debug for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Through").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Through {
    /// To the service of this name.
    #[must_use]
    pub fn new(proxy: Handle, service: &str) -> Self {
        Self { proxy, service: service.into(), connection: Arc::default() }
    }

    async fn connection(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let stream = TcpStream::from_std(self.proxy.connect()?)?;
        let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (send, connection) = made.map_err(io::Error::other)?;
        // Ends with the data plane, or when the last of those who send is gone.
        tokio::spawn(connection);
        *kept = Some(send.clone());
        Ok(send)
    }

    /// Asks, or fails before anything was sent.
    async fn ask(&self, mut request: Request<Full<Bytes>>) -> io::Result<(Answer, String)> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("http://{}/{}{path}", self.service, self.service);
        *request.uri_mut() = uri.parse().map_err(io::Error::other)?;
        let mut connection = self.connection().await?;
        connection.ready().await.map_err(io::Error::other)?;
        let response = match connection.send_request(request).await {
            Ok(response) => response,
            // The connection ended before the request was on it.
            Err(error) if error.is_canceled() => return Err(io::Error::other(error)),
            Err(error) => return Ok((Answer::Failed, error.to_string())),
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let retry_after = retry_after(&head.headers, SystemClock.now());
        if let Some(own) = local(&head.headers, &body) {
            return Ok((answer(own, retry_after), format!("{}: {}", own.code(), own.title())));
        }
        let status = head.status.as_u16();
        let text: String = String::from_utf8_lossy(&body).chars().take(500).collect();
        Ok((Answer::Status { status, retry_after }, format!("{}: {text}", head.status)))
    }
}

impl Carrier for Through {
    fn held_back(&self) -> Option<Duration> {
        let service = self.proxy.service(&self.service)?;
        let now = self.proxy.now();
        let takes = |standing| standing != Standing::Excluded;
        let open = service.endpoints().iter().any(|endpoint| takes(endpoint.standing(now)));
        (!open).then_some(LOOK_AGAIN)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (Answer, String) {
        match self.ask(request).await {
            Ok(answer) => answer,
            Err(error) => (Answer::HeldBack { retry_after: None }, error.to_string()),
        }
    }
}

/// What the data plane itself answered, if it was that.
fn local(headers: &HeaderMap, body: &[u8]) -> Option<LocalAnswer> {
    #[derive(Deserialize)]
    struct Problem {
        code: String,
    }
    let media_type = headers.get(header::CONTENT_TYPE)?;
    if media_type.as_bytes() != b"application/problem+json" {
        return None;
    }
    let problem: Problem = serde_json::from_slice(body).ok()?;
    LocalAnswer::ALL.into_iter().find(|own| own.code() == problem.code)
}

fn answer(own: LocalAnswer, retry_after: Option<Duration>) -> Answer {
    use LocalAnswer as Own;
    match own {
        // The service never saw it.
        Own::BreakerOpen
        | Own::BulkheadFull
        | Own::NoEndpoint
        | Own::ConnectionsFull
        | Own::RateLimited
        | Own::UnknownService => Answer::HeldBack { retry_after },
        _ => Answer::Failed,
    }
}

/// Seconds, or an HTTP date: that is meant by the clock of who sent it, so the
/// answer's own `Date` is what it is counted from, where there is one.
fn retry_after(headers: &HeaderMap, now: Wall) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| {
        let stamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        u64::try_from(stamp.as_microsecond()).ok().map(Wall::from_micros)
    };
    let theirs = headers.get(header::DATE).and_then(|it| date(it.to_str().ok()?.trim()));
    Some(date(text)?.since(theirs.unwrap_or(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_by_the_clock_of_who_says_it() {
        let now = Wall::from_secs(784_111_700);
        let wait = |after: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, after.parse().unwrap());
            date.iter().for_each(|date| {
                headers.insert(header::DATE, date.parse().unwrap());
            });
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        let then = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(wait("120", None), Some(120));
        assert_eq!(wait(then, None), Some(77), "by our clock");
        assert_eq!(wait(then, Some("Sun, 06 Nov 1994 08:49:07 GMT")), Some(30), "by theirs");
        assert_eq!(wait(then, Some("Sun, 06 Nov 1994 09:00:00 GMT")), Some(0), "over already");
        for none in ["soon", "", "-1", "06 Nov", "1e3"] {
            assert_eq!(wait(none, None), None, "{none}");
        }
    }
}
