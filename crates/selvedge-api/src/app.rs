//! The app API: topics, groups, streams, state, leases and schedules for
//! programs in any language, as HTTP/JSON under `/v1`.
//!
//! One request does one thing and is answered when it is on disk. For speed
//! there are batches and pipelines, requests of many lines of which many are
//! under way at once; for what belongs together there are transactions. A store is all it knows: any [`Engine`] will do.

pub(crate) mod cloud;
mod groups;
mod live;
mod openapi;
mod operations;
mod pipeline;
mod problem;
mod rest;
mod shown;
mod streams;
#[cfg(test)]
mod tests;
mod topics;
mod whole;
mod wire;

use std::{convert::Infallible, fmt, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited, channel::Channel};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use selvedge_durable::{Engine, Error, Operation, lease::CheckFence};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tracing::debug;

pub use self::problem::Problem;
use self::wire::{Query, decode};
use crate::{accept::connections, operator};

/// Whole, or as it becomes known.
pub type Body = Either<Full<Bytes>, Channel<Bytes>>;
type Answer = Response<Body>;

/// How the app API is served.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bearer token that every request must carry, if any.
    pub token: Option<String>,
    /// Host names, beside `localhost` and addresses, under which it answers
    /// without a token. Default none, which defeats DNS rebinding.
    pub hosts: Vec<String>,
    /// Connections at once; more wait in the listener's backlog. Default 4,096.
    pub connections_max: usize,
    /// Bytes of one request's body, but for streams. Default 16 MiB.
    pub body_max: usize,
    /// How long requests under way may take to end after the shutdown began;
    /// those that wait for something are answered at once. Default 10 s.
    pub drain: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            token: None,
            hosts: Vec::new(),
            connections_max: 4096,
            body_max: 16 << 20,
            drain: Duration::from_secs(10),
        }
    }
}

/// The app API on one listener.
pub struct Server<E> {
    config: Config,
    guard: operator::Config,
    engine: E,
    /// Whether the shutdown has begun.
    draining: watch::Sender<bool>,
}

impl<E> fmt::Debug for Server<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the token.
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// The longest that a request may wait for something to happen.
const WAIT_MAX: Duration = Duration::from_secs(60);

impl<E: Engine> Server<E> {
    /// A server that speaks for `engine`.
    #[must_use]
    pub fn new(config: Config, engine: E) -> Self {
        let guard = operator::Config {
            token: config.token.clone(),
            hosts: config.hosts.clone(),
            ..operator::Config::default()
        };
        Self { config, guard, engine, draining: watch::Sender::new(false) }
    }

    /// Serves HTTP/1.1 and HTTP/2 on `listener` until `shutdown` resolves; then
    /// requests under way may end within [`Config::drain`]. What is cut after
    /// that was not acknowledged.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let server = Arc::new(self);
        let (most, linger) = (server.config.connections_max, server.config.drain);
        let shutdown = async {
            shutdown.await;
            server.draining.send_replace(true);
        };
        let serve = |stream: TcpStream| {
            // Small answers must not wait for one another.
            let _ = stream.set_nodelay(true);
            Arc::clone(&server).serve(stream)
        };
        connections(listener, most, shutdown, linger, serve).await;
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let draining = drain_begins(self.draining.subscribe());
        let answer = service_fn(move |request: Request<Incoming>| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(10))
            .max_buf_size(64 << 10);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1024);
        let connection = builder.serve_connection(TokioIo::new(stream), answer);
        tokio::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = draining => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            debug!(error, "app connection ended");
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Answer {
        // HTTP/2 names the host in `:authority`, where the guard does not look.
        if request.version() == Version::HTTP_2
            && let Some(authority) = request.uri().authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(header::HOST, host);
        }
        let path = request.uri().path().to_owned();
        // Following a group takes messages out of it: a page of another origin may
        // not, though it asks with GET.
        let acts = path.ends_with("/stream");
        let method = if acts { &Method::POST } else { request.method() };
        let (app, headers) = (operator::Surface::App, request.headers());
        let guarded = operator::guard::check(app, &self.guard, method, headers, false);
        let mut answer = match guarded {
            Err(problem) => problem.into_response(&path).map(Either::Left),
            Ok(()) => match self.respond(request, &path).await {
                Ok(answer) => answer,
                Err(problem) => problem.into_response(&path),
            },
        };
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    async fn respond(&self, request: Request<Incoming>, path: &str) -> Result<Answer, Problem> {
        let segments: Vec<String> = path
            .trim_start_matches('/')
            .split('/')
            .map(|segment| decode(segment).ok_or_else(|| Problem::no_such_path(path)))
            .collect::<Result<_, _>>()?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let call = Call::new(self, request)?;
        let allowed = openapi::methods(&segments);
        if call.method == Method::OPTIONS && !allowed.is_empty() {
            return Ok(allow(empty(), &allowed));
        }
        if let Some(names) = openapi::parameters(call.method.as_str(), &segments) {
            call.query.only(names)?;
        }
        call.fence_is_heeded(&segments)?;
        match segments.as_slice() {
            ["openapi.json"] => Ok(json(&openapi::document())),
            ["v1", "topics", rest @ ..] => topics::route(call, rest).await,
            ["v1", "transactions"] if call.method == "POST" => pipeline::transaction(call).await,
            ["v1", "pipeline"] if call.method == "POST" => pipeline::pipeline(call),
            ["v1", "streams" | "events" | "append", ..] => {
                streams::route(call, &segments[1..]).await
            }
            ["v1", rest @ ..] => rest::route(call, rest).await,
            _ => Err(Problem::no_such_path(path)),
        }
    }
}

/// A request that is being answered.
struct Call<'a, E> {
    engine: &'a E,
    config: &'a Config,
    draining: watch::Receiver<bool>,
    method: Method,
    headers: HeaderMap,
    query: Query,
    path: String,
    body: Incoming,
}

impl<'a, E: Engine> Call<'a, E> {
    fn new(server: &'a Server<E>, request: Request<Incoming>) -> Result<Self, Problem> {
        let (mut head, body) = request.into_parts();
        if head.method == Method::HEAD && !head.uri.path().ends_with("/stream") {
            // What GET answers, without the body; and nothing that goes on for ever.
            head.method = Method::GET;
            head.headers.remove(header::ACCEPT);
        }
        Ok(Self {
            engine: &server.engine,
            config: &server.config,
            draining: server.draining.subscribe(),
            method: head.method,
            headers: head.headers,
            query: Query::parse(head.uri.query().unwrap_or_default())?,
            path: head.uri.path().to_owned(),
            body,
        })
    }

    fn header(&self, name: &str) -> Result<Option<&str>, Problem> {
        let Some(value) = self.headers.get(name) else { return Ok(None) };
        let text = std::str::from_utf8(value.as_bytes());
        text.map(Some).map_err(|_| Problem::malformed(format!("`{name}` is not UTF-8")))
    }

    fn content_type(&self) -> &str {
        let value = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
    }

    async fn bytes(self) -> Result<Bytes, Problem> {
        let max = self.config.body_max;
        match Limited::new(self.body, max).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Problem::body_too_large(max)),
            Err(error) => Err(Problem::malformed(format!("the body broke off: {error}"))),
        }
    }

    async fn json<T: DeserializeOwned>(self) -> Result<T, Problem> {
        let bytes = self.bytes().await?;
        parse(if bytes.is_empty() { b"{}" } else { &bytes })
    }

    /// The precondition in `If-Fence: <resource>:<token>`, if there is one.
    fn fence(&self) -> Result<Option<Operation>, Problem> {
        let Some(text) = self.header("if-fence")? else { return Ok(None) };
        let parsed = text.rsplit_once(':').and_then(|(resource, token)| {
            let (resource, token) = (decode(resource)?, token.parse().ok()?);
            Some(Operation::CheckFence(CheckFence { resource, token }))
        });
        let problem = || Problem::malformed("`if-fence` must be `<resource>:<token>`".to_owned());
        parsed.map(Some).ok_or_else(problem)
    }

    /// Refuses a precondition that would be passed over in silence.
    fn fence_is_heeded(&self, path: &[&str]) -> Result<(), Problem> {
        let heeded = match path {
            ["v1", "state" | "streams", ..] => true,
            ["v1", "append" | "transactions"] => true,
            _ => self.method == Method::GET,
        };
        if heeded || !self.headers.contains_key("if-fence") {
            return Ok(());
        }
        let detail = "`if-fence` has no meaning here; `/v1/transactions` takes it, or the \
             operation `check_fence`, before any other operation";
        Err(Problem::malformed(detail.to_owned()))
    }

    fn not_here(&self) -> Problem {
        Problem::not_here(&self.method, &self.path)
    }
}

/// What comes of something that may be waited for; when the server drains
/// before that, `at_once`.
async fn or_draining<T>(
    draining: watch::Receiver<bool>,
    waits: impl Future<Output = Result<T, Error>>,
    at_once: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        answer = waits => answer,
        () = drain_begins(draining) => at_once(),
    }
}

async fn drain_begins(mut draining: watch::Receiver<bool>) {
    let _ = draining.wait_for(|draining| *draining).await;
}

fn allow(mut answer: Answer, methods: &str) -> Answer {
    if let Ok(value) = HeaderValue::try_from(methods) {
        answer.headers_mut().insert(header::ALLOW, value);
    }
    answer
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| Problem::malformed(error.to_string()))
}

fn json(body: &impl Serialize) -> Answer {
    let bytes = serde_json::to_vec(body).expect("answers serialize");
    typed("application/json", Bytes::from(bytes))
}

fn typed(media_type: &str, bytes: Bytes) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(bytes)));
    let value = HeaderValue::from_str(media_type);
    let value = value.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    answer.headers_mut().insert(header::CONTENT_TYPE, value);
    answer
}

fn empty() -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}
