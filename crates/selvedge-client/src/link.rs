//! The connection: makes it, sends lines, hands out answers, makes it again.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use selvedge_durable::{
    Error,
    wire::{Failure, Head},
};
use selvedge_patterns::{backoff::Backoff, random::SplitMix64};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use crate::{Config, config::Place, under_way::UnderWay};

/// Bytes of a refusal that are read.
const REFUSAL_MAX: usize = 64 << 10;

/// The body of the one long request.
struct Lines {
    under_way: Arc<UnderWay>,
    connection: u64,
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let lines = self.under_way.poll_lines(self.connection, cx);
        lines.map(|lines| lines.map(|lines| Ok(Frame::data(lines))))
    }
}

/// How a connection ended.
enum End {
    /// As it may: the server said how many lines it took, or it broke.
    Lost { taken: Option<u64>, why: String },
    /// The server answers, and will not have us.
    Refused(Error),
}

fn lost(why: impl Into<String>) -> End {
    End::Lost { taken: None, why: why.into() }
}

/// Keeps a connection as long as there is anything to send, until everybody is
/// gone and everything answered.
pub(crate) async fn keep(config: Config, place: Place, under_way: Arc<UnderWay>, seed: u64) {
    let mut rng = SplitMix64::new(seed);
    let mut backoff = Backoff::new();
    let mut why = "no connection yet".to_owned();
    loop {
        if under_way.is_idle() {
            if under_way.is_closing() {
                return;
            }
            under_way.changed.notified().await;
            continue;
        }
        let mut opened = false;
        let end = {
            let one = connection(&config, &place, &under_way, &mut opened);
            tokio::select! {
                end = one => end,
                never = expire(&under_way, &why) => match never {},
            }
        };
        if opened {
            backoff = Backoff::new();
        }
        match end {
            End::Lost { taken, why: reason } => {
                if !under_way.is_closing() {
                    info!(server = %place.address, reason, "connection lost");
                }
                under_way.lost(taken, &reason);
                why = reason;
            }
            End::Refused(error) => {
                warn!(server = %place.address, %error, "the server refuses this client");
                under_way.lost(None, "refused");
                under_way.refused(&error);
                why = error.to_string();
            }
        }
        let wait = backoff.next(&config.retry.backoff, &mut rng);
        tokio::select! {
            () = sleep(wait) => {}
            never = expire(&under_way, &why) => match never {},
        }
    }
}

/// Ends what runs out of time, for ever.
async fn expire(under_way: &UnderWay, why: &str) -> Infallible {
    loop {
        let next = under_way.deadline();
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => under_way.expire(Instant::now(), why),
            () = under_way.changed.notified() => {}
        }
    }
}

/// One connection from its beginning to its end.
async fn connection(
    config: &Config,
    place: &Place,
    under_way: &Arc<UnderWay>,
    opened: &mut bool,
) -> End {
    let made = timeout(config.connect_timeout, make(config, place)).await;
    let (mut sender, link) = match made {
        Err(_) => return lost("no connection in time"),
        Ok(Err(error)) => return lost(error.to_string()),
        Ok(Ok(made)) => made,
    };
    let talk = async {
        let body = Lines { under_way: under_way.clone(), connection: under_way.begin() };
        let mut request = Request::post(place.uri.clone())
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .header(header::ACCEPT, "application/x-ndjson");
        if let Some(token) = &config.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = match request.body(body) {
            Ok(request) => request,
            Err(error) => return lost(error.to_string()),
        };
        // No line goes out before the server has said that it takes them.
        let answer = match timeout(config.connect_timeout, sender.send_request(request)).await {
            Err(_) => return lost("the server did not answer in time"),
            Ok(Err(error)) => return lost(error.to_string()),
            Ok(Ok(answer)) => answer,
        };
        let status = answer.status();
        let media_type = answer.headers().get(header::CONTENT_TYPE);
        if status != StatusCode::OK
            || media_type.is_none_or(|it| it.as_bytes() != b"application/x-ndjson")
        {
            return refusal(status, answer.into_body()).await;
        }
        debug!(server = %place.address, "connected");
        *opened = true;
        under_way.open();
        answers(config, under_way, answer.into_body()).await
    };
    tokio::select! {
        biased;
        end = talk => end,
        ended = link => match ended {
            Ok(()) => lost("the connection was closed"),
            Err(error) => lost(error.to_string()),
        }
    }
}

type Link = http2::Connection<TokioIo<TcpStream>, Lines, TokioExecutor>;

async fn make(
    config: &Config,
    place: &Place,
) -> Result<(http2::SendRequest<Lines>, Link), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(&place.address).await?;
    // Small lines must not wait for one another.
    let _ = stream.set_nodelay(true);
    let made = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(config.silence_max / 2)
        .keep_alive_timeout(config.silence_max / 2)
        .handshake(TokioIo::new(stream))
        .await?;
    Ok(made)
}

/// What a server says that takes no lines.
async fn refusal(status: StatusCode, body: Incoming) -> End {
    let body = Limited::new(body, REFUSAL_MAX).collect().await;
    let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let failure = serde_json::from_slice::<Failure>(&bytes).ok();
    let said = failure.filter(|failure| !failure.code.is_empty());
    let error = match said {
        Some(failure) => Error::from(failure),
        None if status.is_client_error() || status.is_success() => Error::Refused {
            code: "SV0441",
            status: status.as_u16(),
            detail: format!("{status}: this is not the app API of selvedge"),
        },
        None => return lost(format!("the server answered {status}")),
    };
    if error.retryable() { lost(error.to_string()) } else { End::Refused(error) }
}

/// Hands out answers until there are no more.
async fn answers(config: &Config, under_way: &UnderWay, mut body: Incoming) -> End {
    let (mut rest, mut looked, mut taken) = (BytesMut::new(), 0, None);
    loop {
        let data = match body.frame().await {
            None if rest.is_empty() => {
                return End::Lost { taken, why: "the server ended the request".to_owned() };
            }
            None => return lost("an answer was cut off"),
            Some(Err(error)) => return lost(error.to_string()),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        rest.extend_from_slice(&data);
        while let Some(end) = rest[looked..].iter().position(|byte| *byte == b'\n') {
            let line = rest.split_to(looked + end + 1).freeze();
            looked = 0;
            if line.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(Head { id: Some(id), .. }) => under_way.answered(id, line),
                Ok(Head { taken: Some(lines), .. }) => taken = Some(lines),
                Ok(Head { code, .. }) => {
                    let code = code.unwrap_or_default();
                    return lost(format!("the server gave up on the request: {code}"));
                }
                Err(error) => return lost(format!("an answer cannot be read: {error}")),
            }
        }
        looked = rest.len();
        if rest.len() > config.answer_bytes_max {
            return lost("an answer exceeds `answer_bytes_max`");
        }
    }
}
