//! The operator API, `/metrics`, `/health/…` and the dashboard.
//!
//! It reads and acts through [`Operated`], and everything it says is one of
//! the [`view`] types. Bodies are small and bounded, connections are few and
//! bounded: this surface must answer when the proxy is in trouble.

mod dashboard;
pub(crate) mod guard;
mod openapi;
pub mod problem;
#[cfg(test)]
mod tests;
pub mod view;

use self::problem::Problem;
use crate::accept::connections;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::{convert::Infallible, fmt, future::Future, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, info};

/// What the operator API reads and acts on: the running proxy.
///
/// Every method answers at once from memory, but for [`Operated::doctor`] and
/// [`Operated::metrics`], which may look into the store for a bounded time.
pub trait Operated: Send + Sync + 'static {
    /// Whether it is alive, ready for traffic, started.
    fn health(&self) -> view::Health;
    /// Every service, with its endpoints and breakers.
    fn services(&self) -> Vec<view::Service>;
    /// Every address it listens on.
    fn listeners(&self) -> Vec<view::Listener>;
    /// Every route, in the order they are tried.
    fn routes(&self) -> Vec<view::Route>;
    /// What would happen to a request now.
    ///
    /// # Errors
    ///
    /// A sentence on what is wrong with the question.
    fn explain(&self, question: &view::Question) -> Result<view::Explanation, String>;
    /// What is stuck in the store, if there is one.
    fn doctor(&self) -> view::Doctor {
        view::Doctor::default()
    }
    /// Which configuration it runs on.
    fn config_status(&self) -> view::ConfigStatus;
    /// The whole configuration with every default, as YAML.
    fn config_effective(&self) -> String;
    /// Every metric as Prometheus text, of the version that [`Self::metrics_type`] says.
    fn metrics(&self) -> String;
    /// The content type of [`Self::metrics`].
    fn metrics_type(&self) -> &'static str {
        "text/plain; version=0.0.4; charset=utf-8"
    }
    /// Does what an operator asks.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when there is nothing by that name, or it cannot be done.
    fn act(&self, action: &Action) -> Result<view::Done, Refusal>;
}

/// What an operator may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reject every call to a service (or one endpoint of it).
    ForceOpen(Target),
    /// Let every call through until the breaker is reset, whatever it measures.
    ForceClose(Target),
    /// Measure but never reject.
    Disable(Target),
    /// Back to deciding by itself, from closed.
    Reset(Target),
    /// Send no new calls to one endpoint; calls in flight end by themselves.
    Drain(Target),
    /// Send calls to it again.
    Undrain(Target),
    /// Read the configuration again, all or nothing.
    Reload,
}

/// A service, or one endpoint of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The service's name.
    pub service: String,
    /// `host:port`, or every endpoint of the service.
    pub endpoint: Option<String>,
}

/// Why an [`Action`] was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such service or endpoint.
    Unknown(String),
    /// It has no such part, or the part cannot do that now.
    Conflict(String),
    /// The new configuration was refused; the last good one stays.
    Config(String),
}

/// How the operator API is served.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bearer token that every request for data must carry, if any.
    pub token: Option<String>,
    /// Host names, beside `localhost` and addresses, under which it answers
    /// without a token. Default: none, which defeats DNS rebinding.
    pub hosts: Vec<String>,
    /// Connections at once; more wait in the listener's backlog. Default: 64.
    pub connections_max: usize,
}

/// Whose token is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Surface {
    Operator,
    App,
}

impl Default for Config {
    fn default() -> Self {
        Self { token: None, hosts: Vec::new(), connections_max: 64 }
    }
}

/// The operator API on one listener.
pub struct Server {
    config: Config,
    operated: Arc<dyn Operated>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the token.
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

type Answer = Response<Full<Bytes>>;

const HEAD_WITHIN: Duration = Duration::from_secs(10);

impl Server {
    /// A server that speaks for `operated`.
    #[must_use]
    pub fn new(config: Config, operated: Arc<dyn Operated>) -> Self {
        Self { config, operated }
    }

    /// Serves on `listener` until `shutdown` resolves; requests that are being
    /// answered then are cut short, because every answer comes from memory.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let server = Arc::new(self);
        let most = server.config.connections_max;
        let serve = |stream: TcpStream| {
            let server = Arc::clone(&server);
            async move {
                let answer = service_fn(|request: Request<Incoming>| {
                    let answer = server.answer(request.method(), request.uri(), request.headers());
                    async move { Ok::<_, Infallible>(answer) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_WITHIN)
                    .max_buf_size(16 << 10)
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
                if let Err(error) = served {
                    debug!(%error, "operator connection ended");
                }
            }
        };
        connections(listener, most, shutdown, Duration::ZERO, serve).await;
    }

    /// The answer to one request; no request has a body that matters.
    fn answer(&self, method: &Method, uri: &http::Uri, headers: &HeaderMap) -> Answer {
        let answer = self.respond(method, uri, headers);
        let mut answer = answer.unwrap_or_else(|problem| problem.into_response(uri.path()));
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        answer
    }

    fn respond(
        &self,
        method: &Method,
        uri: &http::Uri,
        headers: &HeaderMap,
    ) -> Result<Answer, Problem> {
        let path: Vec<String> =
            uri.path().trim_matches('/').split('/').map(|segment| decode(segment, false)).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        // Health is for load balancers and orchestrators, which know no token
        // and use whatever name they have; it says one word.
        if let ["health", which] = path.as_slice() {
            return self.health(which, method);
        }
        let page = matches!(path.as_slice(), [""]);
        guard::check(Surface::Operator, &self.config, method, headers, page)?;
        let operated = &*self.operated;
        if let ["api", "v1", rest @ ..] = path.as_slice()
            && let Some(action) = action(rest)
        {
            allow(method, &[Method::POST])?;
            let done = operated.act(&action).map_err(Problem::refused)?;
            info!(action = ?action, "operator action");
            return Ok(json(StatusCode::OK, &done));
        }
        let answer = match path.as_slice() {
            [""] => dashboard::page(),
            ["openapi.json"] => json(StatusCode::OK, &openapi::document()),
            ["metrics"] => plain(operated.metrics_type(), operated.metrics()),
            ["api", "v1", "services"] => {
                json(StatusCode::OK, &serde_json::json!({ "services": operated.services() }))
            }
            ["api", "v1", "services", name] => json(StatusCode::OK, &self.service(name)?),
            ["api", "v1", "services", name, "endpoints"] => json(
                StatusCode::OK,
                &serde_json::json!({ "service": name, "endpoints": self.service(name)?.endpoints }),
            ),
            ["api", "v1", "services", name, "breakers"] => json(
                StatusCode::OK,
                &serde_json::json!({ "service": name, "breakers": self.service(name)?.breakers }),
            ),
            ["api", "v1", "listeners"] => {
                json(StatusCode::OK, &serde_json::json!({ "listeners": operated.listeners() }))
            }
            ["api", "v1", "routes"] => {
                json(StatusCode::OK, &serde_json::json!({ "routes": operated.routes() }))
            }
            ["api", "v1", "doctor"] => json(StatusCode::OK, &operated.doctor()),
            ["api", "v1", "config", "status"] => json(StatusCode::OK, &operated.config_status()),
            ["api", "v1", "config", "effective"] => {
                plain("application/yaml; charset=utf-8", operated.config_effective())
            }
            ["api", "v1", "explain"] => {
                let question = question(uri.query().unwrap_or(""))?;
                json(StatusCode::OK, &operated.explain(&question).map_err(Problem::question)?)
            }
            _ => return Err(Problem::no_such_path(uri.path())),
        };
        allow(method, &[Method::GET, Method::HEAD])?;
        Ok(answer)
    }

    fn service(&self, name: &str) -> Result<view::Service, Problem> {
        self.operated
            .services()
            .into_iter()
            .find(|service| service.name == name)
            .ok_or_else(|| Problem::refused(Refusal::Unknown(format!("no service `{name}`"))))
    }

    fn health(&self, which: &str, method: &Method) -> Result<Answer, Problem> {
        let health = self.operated.health();
        let well = match which {
            "live" => health.live,
            "ready" => health.ready,
            "startup" => health.started,
            _ => return Err(Problem::no_such_path(&format!("/health/{which}"))),
        };
        allow(method, &[Method::GET, Method::HEAD])?;
        let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut said = serde_json::json!({ "status": if well { "pass" } else { "fail" } });
        if let Some(why) = health.why.filter(|_| !well) {
            said["output"] = why.into();
        }
        Ok(json(status, &said))
    }
}

fn allow(method: &Method, allowed: &[Method]) -> Result<(), Problem> {
    if allowed.contains(method) { Ok(()) } else { Err(Problem::method(method, allowed)) }
}

/// The action that a path below `/api/v1/` stands for.
fn action(path: &[&str]) -> Option<Action> {
    let (target, verb) = match path {
        ["config", "reload"] => return Some(Action::Reload),
        ["services", service, "breakers", verb] => {
            (Target { service: (*service).to_owned(), endpoint: None }, *verb)
        }
        ["services", service, "endpoints", endpoint, verb] => {
            let endpoint = Some((*endpoint).to_owned());
            (Target { service: (*service).to_owned(), endpoint }, *verb)
        }
        _ => return None,
    };
    match verb {
        "force-open" => Some(Action::ForceOpen(target)),
        "force-close" => Some(Action::ForceClose(target)),
        "disable" => Some(Action::Disable(target)),
        "reset" => Some(Action::Reset(target)),
        "drain" if target.endpoint.is_some() => Some(Action::Drain(target)),
        "undrain" if target.endpoint.is_some() => Some(Action::Undrain(target)),
        _ => None,
    }
}

/// `method=GET&url=/orders/1&header=x-api-key:abc&listener=edge`.
fn question(query: &str) -> Result<view::Question, Problem> {
    let mut question = view::Question { method: "GET".to_owned(), ..view::Question::default() };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value, true);
        match name {
            "method" => question.method = value.to_ascii_uppercase(),
            "url" => question.url = value,
            "listener" => question.listener = Some(value),
            "header" => {
                let (name, value) = value
                    .split_once(':')
                    .ok_or_else(|| Problem::question(format!("`{value}` is not `name:value`")))?;
                question.headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            _ => return Err(Problem::question(format!("`{name}` is not asked here"))),
        }
    }
    if question.url.is_empty() {
        return Err(Problem::question("`url` is missing".to_owned()));
    }
    Ok(question)
}

/// Percent-decoding; a broken escape stands for itself.
fn decode(text: &str, form: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[at], escape) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
                continue;
            }
            (b'+', _) if form => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let mut body = serde_json::to_vec_pretty(body).expect("views serialize");
    body.push(b'\n');
    let mut answer = plain("application/json", body);
    *answer.status_mut() = status;
    answer
}

fn plain(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
