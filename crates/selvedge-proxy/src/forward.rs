//! The life of a request: routed, labelled, sent, answered.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HOST, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use selvedge_patterns::time::Instant;

use crate::body::{Body, RequestBody};
use crate::config::{HostHeader, Rewrite, Upstream};
use crate::head;
use crate::pool::{Failed, Pool, Terms};
use crate::respond::{Kind, Refusal};
use crate::route::Asked;
use crate::snapshot::Service;
use crate::trace::Trace;
use crate::worker::{Entry, Local, Worker};

/// Counts the request as being served for as long as its head is awaited.
struct Busy<'a>(&'a Entry);

impl<'a> Busy<'a> {
    fn new(entry: &'a Entry) -> Self {
        entry.watch.busy.store(entry.watch.busy.load(Relaxed) + 1, Relaxed);
        Self(entry)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let watch = &self.0.watch;
        watch.busy.store(watch.busy.load(Relaxed) - 1, Relaxed);
        watch.served.store(watch.served.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// Answers one request.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    entry: &Rc<Entry>,
    request: Request<Incoming>,
    http2: bool,
) -> Response<Body> {
    let _busy = Busy::new(entry);
    let now = worker.clock.now();
    let local = worker.local();
    let (parts, body) = request.into_parts();
    let grpc = head::is_grpc(&parts.headers);
    let close = !http2 && (parts.headers.contains_key(UPGRADE) || parts.method == Method::CONNECT);
    let mut call = Call { worker, entry, local, now, http2, grpc, close };
    let mut response = match call.forward(parts, body).await {
        Ok(response) => response,
        Err(refusal) => {
            call.close |= refusal.kind == Kind::Malformed;
            refusal.respond(grpc)
        }
    };
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if !http2 && !switched && (call.close || entry.draining()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// One request on its way.
struct Call<'a> {
    worker: &'a Rc<Worker>,
    entry: &'a Rc<Entry>,
    local: Rc<Local>,
    now: Instant,
    http2: bool,
    grpc: bool,
    /// The connection may not be used again.
    close: bool,
}

/// Where a request goes.
struct Target {
    /// Index in the configuration; `None` from the ambassador.
    route: Option<usize>,
    service: usize,
    /// Path and query as they go upstream, if they changed.
    path: Option<PathAndQuery>,
}

impl Call<'_> {
    async fn forward(
        &mut self,
        mut parts: request::Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Refusal> {
        if parts.method == Method::CONNECT {
            return Err(Refusal::new(Kind::Unsupported, "CONNECT is not offered"));
        }
        let authority = parts.uri.authority().map(Authority::as_str);
        let http11 = parts.version >= Version::HTTP_11 && !self.http2;
        let path = parts.uri.path();
        if let Some(objection) =
            head::objection(&parts.method, path, authority, &parts.headers, http11)
        {
            return Err(Refusal::new(Kind::Malformed, objection));
        }
        let target = self.route(&parts)?;
        let local = self.local.clone();
        let service = &local.snapshot.services[target.service];
        let switch = if self.http2 { None } else { head::upgrade(&parts.headers) };
        let on_upgrade = switch.as_ref().and_then(|_| parts.extensions.remove::<OnUpgrade>());
        self.label(&mut parts, &target, service);
        let pools = &local.pools[target.service];
        let body =
            if body.is_end_stream() { RequestBody::Empty } else { RequestBody::Stream(body) };
        let at = service.next.fetch_add(1, Relaxed);
        let Some(pool) = pools.get(at % pools.len().max(1)) else {
            return Err(Refusal::new(Kind::NoEndpoint, "no address of the service is known"));
        };
        if switch.is_some() && service.config.protocol == Upstream::Http2 {
            return Err(Refusal::new(
                Kind::Unsupported,
                "the service speaks HTTP/2, which cannot switch",
            ));
        }
        let request = self.request(&parts, target.path, service, pool, switch.as_ref(), body)?;
        let terms =
            Terms { now: self.now, connect_within: Duration::from_secs(2), repeatable: false };
        let response = pool.send(terms, request).await.map_err(|failed| failed.refusal())?;
        self.answer(response, on_upgrade, target.route)
    }

    fn route(&self, parts: &request::Parts) -> Result<Target, Refusal> {
        let Some(listener) = &self.entry.listener else { return self.ambassador(parts) };
        let snapshot = &self.local.snapshot;
        let host = parts.headers.get(HOST).map(HeaderValue::as_bytes).unwrap_or_default();
        let host = match parts.uri.authority() {
            Some(authority) => authority.as_str(),
            None => std::str::from_utf8(host).unwrap_or_default(),
        };
        let listener = snapshot.config.listeners.iter().position(|l| *l.name == **listener);
        let asked = Asked {
            listener,
            host: without_port(host),
            path: parts.uri.path(),
            query: parts.uri.query(),
            method: &parts.method,
            headers: &parts.headers,
        };
        let route = snapshot.table.find(&asked).ok_or_else(|| {
            Refusal::new(
                Kind::NoRoute,
                "no route matches this host, path, method, headers and query",
            )
        })?;
        let path = rewritten(&snapshot.config.routes[route].rewrite, &parts.uri)?;
        Ok(Target { route: Some(route), service: snapshot.routes[route].service, path })
    }

    /// `/<service>/<path>`.
    fn ambassador(&self, parts: &request::Parts) -> Result<Target, Refusal> {
        let path = parts.uri.path();
        let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let service = self.local.snapshot.by_name.get(name).copied().ok_or_else(|| {
            Refusal::new(Kind::UnknownService, "the first segment of the path names no service")
        })?;
        let rest = &path[1 + name.len()..];
        let path = with_path(if rest.is_empty() { "/" } else { rest }, parts.uri.query())?;
        Ok(Target { route: None, service, path: Some(path) })
    }

    /// Edits the head in place: takes off what is not to be passed on, says
    /// where the request came from and which trace it belongs to.
    fn label(&self, parts: &mut request::Parts, target: &Target, service: &Service) {
        let snapshot = &self.local.snapshot;
        let headers = &mut parts.headers;
        head::strip_hop_by_hop(headers);
        headers.remove(EXPECT);
        headers.remove(head::OPERATOR);
        if self.http2 {
            head::join_cookies(headers);
        }
        if let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(HOST, host);
        }
        let host = headers.get(HOST).cloned();
        head::forwarded(headers, &self.entry.peer, host.as_ref());
        head::via(headers, &snapshot.via[usize::from(self.http2)]);
        let trace =
            Trace::begin(headers.get(head::TRACEPARENT), &mut *self.worker.rng.borrow_mut());
        let (traceparent, id) = self.worker.scribe.borrow_mut().traceparent(&trace);
        if trace.parent.is_none() {
            headers.remove(head::TRACESTATE);
        }
        headers.insert(head::TRACEPARENT, traceparent);
        if !headers.get(head::X_REQUEST_ID).is_some_and(head::is_sane_id) {
            headers.insert(head::X_REQUEST_ID, id);
        }
        if let Some(route) = target.route {
            head::edit(headers, &snapshot.config.routes[route].request_headers);
        }
        let _ = service;
    }

    /// The request of one attempt.
    fn request(
        &self,
        parts: &request::Parts,
        path: Option<PathAndQuery>,
        service: &Service,
        pool: &Pool,
        switch: Option<&HeaderValue>,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Refusal> {
        let mut headers = parts.headers.clone();
        match &service.config.host {
            HostHeader::Caller => {}
            HostHeader::Endpoint => drop(headers.insert(HOST, pool.endpoint.authority.clone())),
            HostHeader::Fixed(host) => drop(headers.insert(HOST, host.clone())),
        }
        let path = path.or_else(|| parts.uri.path_and_query().cloned());
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(path);
        if service.config.protocol == Upstream::Http2 {
            let host = headers.remove(HOST);
            let host = host.as_ref().unwrap_or(&pool.endpoint.authority);
            uri.scheme = Some(Scheme::HTTP);
            uri.authority = Some(
                Authority::try_from(host.as_bytes())
                    .map_err(|_| Refusal::new(Kind::Malformed, "the Host field is not a host"))?,
            );
        } else if !headers.contains_key(HOST) {
            headers.insert(HOST, pool.endpoint.authority.clone());
        }
        if let Some(protocol) = switch {
            headers.insert(UPGRADE, protocol.clone());
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = Uri::from_parts(uri)
            .map_err(|_| Refusal::new(Kind::Malformed, "the target is not a path"))?;
        *request.version_mut() = match service.config.protocol {
            Upstream::Http1 => Version::HTTP_11,
            Upstream::Http2 => Version::HTTP_2,
        };
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The upstream's response as it goes downstream.
    fn answer(
        &self,
        mut response: Response<Body>,
        on_upgrade: Option<OnUpgrade>,
        route: Option<usize>,
    ) -> Result<Response<Body>, Refusal> {
        let snapshot = &self.local.snapshot;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, on_upgrade);
        }
        let http2 = response.version() == Version::HTTP_2;
        let headers = response.headers_mut();
        head::strip_hop_by_hop(headers);
        head::via(headers, &snapshot.via[usize::from(http2)]);
        if let Some(route) = route {
            head::edit(headers, &snapshot.config.routes[route].response_headers);
        }
        *response.version_mut() = if self.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        Ok(response)
    }

    /// Joins both sockets once each side has switched.
    fn switch(
        &self,
        mut response: Response<Body>,
        on_upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Body>, Refusal> {
        let refusal = || Refusal::new(Kind::BadResponse, "it switched protocols unasked");
        let down = on_upgrade.ok_or_else(refusal)?;
        let up = response.extensions_mut().remove::<OnUpgrade>().ok_or_else(refusal)?;
        let protocol = response.headers_mut().remove(UPGRADE).ok_or_else(refusal)?;
        head::strip_hop_by_hop(response.headers_mut());
        response.headers_mut().insert(UPGRADE, protocol);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let (parts, body) = response.into_parts();
        let conn = body.into_conn().ok_or_else(refusal)?;
        let idle_for = self.local.snapshot.config.limits.tunnel_idle_for;
        tokio::task::spawn_local(crate::tunnel::carry(down, up, conn, idle_for));
        Ok(Response::from_parts(parts, Body::empty()))
    }
}

impl Failed {
    /// What the caller is told when there is no further attempt.
    fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(error) => Refusal::new(Kind::Connect, error.kind().to_string()),
            Self::ConnectTimeout => {
                Refusal::new(Kind::Connect, "the connection was not made in time")
            }
            Self::ConnectionsFull => {
                Refusal::new(Kind::ConnectionsFull, "the endpoint's bound is reached")
            }
            Self::Refused => Refusal::new(Kind::Reset, "the request was refused unprocessed"),
            Self::Reset => Refusal::new(Kind::Reset, "the connection ended before a response"),
            Self::Malformed(what) => Refusal::new(Kind::BadResponse, what.clone()),
            Self::RequestBody => Refusal::new(Kind::RequestBody, "it ended early or was malformed"),
        }
    }
}

/// `host` without `:port`; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}

fn rewritten(rewrite: &Rewrite, uri: &Uri) -> Result<Option<PathAndQuery>, Refusal> {
    let path = uri.path();
    let replaced = |from: &str, to: &str| {
        let from = from.trim_end_matches('/');
        let rest =
            path.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        let whole = format!("{}{rest}", to.trim_end_matches('/'));
        Some(if whole.starts_with('/') { whole } else { format!("/{whole}") })
    };
    let whole = match rewrite {
        Rewrite::None => None,
        Rewrite::StripPrefix(prefix) => replaced(prefix, ""),
        Rewrite::ReplacePrefix(from, to) => replaced(from, to),
        Rewrite::Path(path) => Some(path.clone()),
    };
    whole.map(|whole| with_path(&whole, uri.query())).transpose()
}

fn with_path(path: &str, query: Option<&str>) -> Result<PathAndQuery, Refusal> {
    let whole = match query {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    whole.map_err(|_| Refusal::new(Kind::Malformed, "the target is not a path"))
}
