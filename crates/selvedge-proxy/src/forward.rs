//! The life of a request: routed, labelled, sent, answered.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, UPGRADE, WARNING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    request,
};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use selvedge_patterns::deadline::Deadline;
use selvedge_patterns::fallback::{self, Choice};
use selvedge_patterns::outcome::Safety;
use selvedge_patterns::time::Instant;
use selvedge_patterns::{call, idempotency};

use crate::body::{Body, Replay, RequestBody};
use crate::clock::unix_millis;
use crate::codec::{self, Length, Own};
use crate::config::{
    self, Config, HeaderEdits, HostHeader, Key, Rewrite, StaticResponse, Upstream,
};
use crate::deadline;
use crate::drive::{self, Ended};
use crate::head::{self, Present};
use crate::http1::Sending;
use crate::journey::Journey;
use crate::pool::{Outbound, Pool};
use crate::respond::{self, Kind, Refusal};
use crate::route::Asked;
use crate::snapshot::{Limit, Route, Service};
use crate::stale::{self, Keeping};
use crate::trace::{Scribe, Trace};
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
    worker: Rc<Worker>,
    entry: Rc<Entry>,
    request: Request<Incoming>,
    http2: bool,
) -> Result<Response<Body>, Infallible> {
    let (worker, entry) = (&worker, &entry);
    let _busy = Busy::new(entry);
    let now = worker.clock.now();
    let local = worker.local();
    let (mut parts, body) = request.into_parts();
    let present = Present::of(&parts.headers);
    let grpc = present.has(Present::CONTENT_TYPE) && head::is_grpc(&parts.headers);
    let close = !http2 && (present.has(Present::UPGRADE) || parts.method == Method::CONNECT);
    let mut journey = Box::new(Journey::new(worker, &local, entry, now));
    let mut forward = Forward {
        worker,
        entry,
        local: &local,
        now,
        http2,
        present,
        grpc,
        close,
        theirs: None,
        journey: &mut journey,
        explain: None,
        limit_fields: None,
    };
    let response = forward.forward(&mut parts, body).await;
    let Forward { mut close, explain, limit_fields, .. } = forward;
    let (mut response, refusal) = match response {
        Ok(response) => (response, None),
        Err(refusal) => {
            close |= refusal.kind == Kind::Malformed;
            (refusal.respond(grpc), Some(refusal))
        }
    };
    journey.answered(response.status(), refusal.as_ref());
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    if let Some(id) = explain {
        id.write(&journey, headers);
    }
    if let Some(fields) = limit_fields {
        fields.write(headers);
    }
    if !http2 && !switched && (close || entry.draining()) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.body_mut().tell(journey);
    Ok(response)
}

/// One request on its way.
struct Forward<'a> {
    worker: &'a Rc<Worker>,
    entry: &'a Rc<Entry>,
    local: &'a Rc<Local>,
    now: Instant,
    http2: bool,
    /// What the head has, as it came.
    present: Present,
    grpc: bool,
    /// The connection may not be used again.
    close: bool,
    /// When the caller stops waiting, if it says.
    theirs: Option<Instant>,
    journey: &'a mut Journey,
    /// Set if an operator asked how it was decided.
    explain: Option<Explain>,
    limit_fields: Option<LimitFields>,
}

/// Where a request goes.
struct Target {
    /// Index in the configuration; `None` from the ambassador.
    route: Option<usize>,
    service: usize,
    /// Path and query as they go upstream, if they changed.
    path: Option<PathAndQuery>,
}

impl Forward<'_> {
    async fn forward(
        &mut self,
        parts: &mut request::Parts,
        body: Incoming,
    ) -> Result<Response<Body>, Refusal> {
        let snapshot = &self.local.snapshot;
        let client =
            head::client_ip(&parts.headers, &self.entry.peer, &snapshot.config.trusted_proxies);
        self.note(parts, client);
        self.refuse(parts)?;
        let target = self.route(parts)?;
        self.journey.bound_for(target.route, target.service);
        let route = target.route.map(|at| (&snapshot.config.routes[at], &*snapshot.routes[at]));
        let service = &*snapshot.services[target.service];
        if let Some(secret) = &snapshot.config.operator_secret
            && parts.headers.get(head::OPERATOR).is_some_and(|given| same(given, secret))
        {
            let route = route.map(|(config, _)| config.name.clone());
            self.explain = Some(Explain { route, service: service.config.name.clone() });
        }
        if let Some((config, Route { limit: Some(limit), .. })) = route
            && let Some(asked) = &config.limit
        {
            self.limit(&service.config.name, limit, asked, parts, client)?;
        }
        let switches = !self.http2 && self.present.has(Present::UPGRADE);
        let switch = if switches { head::upgrade(&parts.headers) } else { None };
        if switch.is_some() && service.config.protocol == Upstream::Http2 {
            return Err(Refusal::new(
                Kind::Unsupported,
                "the service speaks HTTP/2, which cannot switch",
            ));
        }
        let on_upgrade = switch.as_ref().and_then(|_| parts.extensions.remove::<OnUpgrade>());
        let request =
            self.begin(parts, service, route.and_then(|(config, _)| config.timeout), &body);
        let asked = Asking {
            deadline: request.0,
            envoy: self.present.has(Present::ENVOY_TIMEOUT),
            prior: request.1,
        };
        self.label(parts, target.route);
        let fallback = match route {
            Some((_, live)) => live.fallback,
            // The program itself wants to know that it failed.
            None if self.entry.is_ours() => None,
            None => service.fallback(),
        };
        let safety = request.2;
        let key = fallback
            .filter(|fallback| fallback.stale_for.is_some() && safety == Safety::Safe)
            .and_then(|_| stale::key(parts));
        let policy = service.live.policy();
        let outgoing = if body.is_end_stream() {
            Outgoing::Empty
        } else if policy.retry.is_some() || policy.hedge.is_some() {
            Outgoing::Replay(Replay::new(body))
        } else {
            Outgoing::Once(RefCell::new(Some(body)))
        };
        let path = target.path.or_else(|| parts.uri.path_and_query().cloned());
        let source = Draft {
            parts,
            has_length: self.present.has(Present::CONTENT_LENGTH),
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            service,
            config: &snapshot.config,
            switch,
            body: outgoing,
            grpc: self.grpc,
            scribe: &self.worker.scribe,
            asked,
        };
        let pools = &self.local.pools[target.service];
        let ended =
            drive::run(self.worker, service, pools, self.journey, &source, self.grpc, self.now)
                .await;
        let edits = route.map(|(config, _)| &config.response_headers);
        if let Some(fallback) = fallback {
            let own = route.and_then(|(config, _)| config.fallback.as_ref());
            let fixed = own.or(service.config.fallback.as_ref()).and_then(|f| f.response.as_ref());
            return self.fall_back(ended, fallback, safety, service, key, fixed, on_upgrade, edits);
        }
        self.answer(ended.answer?, on_upgrade, service, edits)
    }

    /// Refuses what must not be passed on however it is routed.
    fn refuse(&self, parts: &request::Parts) -> Result<(), Refusal> {
        if parts.method == Method::CONNECT {
            return Err(Refusal::new(Kind::Unsupported, "CONNECT is not offered"));
        }
        let authority = parts.uri.authority().map(Authority::as_str);
        let http11 = parts.version >= Version::HTTP_11 && !self.http2;
        let path = parts.uri.path();
        let objection = head::objection(&parts.method, path, authority, &parts.headers, http11);
        objection.map_or(Ok(()), |objection| Err(Refusal::new(Kind::Malformed, objection)))
    }

    fn note(&mut self, parts: &request::Parts, client: IpAddr) {
        if self.worker.shared.access.is_some() {
            let host = host_of(parts);
            self.journey.note(parts, host, client);
        }
    }

    /// Asks the route's rate limit, before anything that costs the service.
    fn limit(
        &mut self,
        service: &str,
        limit: &Limit,
        asked: &config::Limit,
        parts: &request::Parts,
        client: IpAddr,
    ) -> Result<(), Refusal> {
        let admit = |key: &[u8]| match &self.worker.shared.journal {
            None => limit.keyed.admit(self.now, key, 1),
            Some(journal) => journal.limit(self.now, service, &limit.keyed, key),
        };
        let decision = match (&asked.per, client) {
            (Key::Route, _) => admit(b""),
            (Key::Ip, IpAddr::V4(ip)) => admit(&ip.octets()),
            // Whoever has one IPv6 address has a whole /64 of them.
            (Key::Ip, IpAddr::V6(ip)) => admit(&ip.octets()[..8]),
            (Key::Header(name), _) => {
                admit(parts.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default())
            }
        };
        let (remaining, reset) = match &decision {
            Ok(allowed) => (allowed.remaining, allowed.reset_after),
            Err(rejected) => (rejected.remaining, rejected.retry_after.unwrap_or_default()),
        };
        let mut scribe = self.worker.scribe.borrow_mut();
        self.limit_fields =
            Some(LimitFields::new(limit, asked.legacy_headers, remaining, reset, &mut scribe));
        decision.map(drop).map_err(|rejected| {
            let detail = format!(
                "{}: {} of {} left",
                rejected.reason.code(),
                rejected.remaining,
                rejected.limit
            );
            Refusal::new(Kind::RateLimited, detail).after(rejected.retry_after)
        })
    }

    /// Begins the call; answers its deadline, the attempts made before it, and
    /// whether a repeat is safe.
    fn begin(
        &mut self,
        parts: &request::Parts,
        service: &Service,
        timeout: Option<Duration>,
        body: &Incoming,
    ) -> (Deadline, u32, Safety) {
        let config = &self.local.snapshot.config.deadline;
        let headers = &parts.headers;
        let told = config.read && self.present.has(Present::DEADLINE);
        let theirs = told.then(|| deadline::remaining(headers, unix_millis)).flatten();
        self.theirs = theirs.map(|theirs| self.now + theirs);
        let within = match (theirs, timeout) {
            (Some(theirs), Some(ours)) => Some(theirs.min(ours)),
            (theirs, ours) => theirs.or(ours),
        };
        let safety =
            idempotency::safety(parts.method.as_str(), self.present.has(Present::IDEMPOTENCY_KEY));
        let repeated = self.present.has(Present::ATTEMPT);
        let prior = repeated.then(|| headers.get(head::ATTEMPT)).flatten();
        let prior = prior.and_then(|value| value.to_str().ok()?.parse().ok());
        let prior_attempts = prior.unwrap_or(0);
        let policy = service.live.policy();
        let request = call::Request {
            safety,
            replayable: body.is_end_stream() || policy.retry.is_some() || policy.hedge.is_some(),
            deadline: within.map(|within| self.now + within),
            prior_attempts,
        };
        let deadline = self.journey.begin(self.now, service, request);
        (deadline, prior_attempts, safety)
    }

    fn route(&self, parts: &request::Parts) -> Result<Target, Refusal> {
        let Some(listener) = &self.entry.listener else { return self.ambassador(parts) };
        let snapshot = &self.local.snapshot;
        let listener = snapshot.config.listeners.iter().position(|l| *l.name == **listener);
        let asked = Asked {
            listener,
            host: without_port(host_of(parts)),
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
    fn label(&mut self, parts: &mut request::Parts, route: Option<usize>) {
        let snapshot = &self.local.snapshot;
        let (headers, present) = (&mut parts.headers, self.present);
        // Room for what is added here, made once.
        headers.reserve(8);
        head::strip_hop_by_hop(headers);
        if present.has(Present::EXPECT) {
            headers.remove(EXPECT);
        }
        if present.has(Present::OPERATOR) {
            headers.remove(head::OPERATOR);
        }
        if self.http2 && present.has(Present::COOKIE) {
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
        let traced = present.has(Present::TRACEPARENT);
        let given = traced.then(|| headers.get(head::TRACEPARENT)).flatten();
        let trace = Trace::begin(given, &mut *self.worker.rng.borrow_mut());
        let (traceparent, id) = self.worker.scribe.borrow_mut().traceparent(&trace);
        if trace.parent.is_none() && present.has(Present::TRACESTATE) {
            headers.remove(head::TRACESTATE);
        }
        headers.insert(head::TRACEPARENT, traceparent);
        let named = present.has(Present::X_REQUEST_ID);
        if !named || !headers.get(head::X_REQUEST_ID).is_some_and(head::is_sane_id) {
            headers.insert(head::X_REQUEST_ID, id);
        }
        if self.worker.shared.access.is_some() {
            self.journey.identified(headers.get(head::X_REQUEST_ID));
        }
        self.journey.trace = Some(trace);
        if let Some(route) = route {
            head::edit(headers, &snapshot.config.routes[route].request_headers);
        }
    }

    /// Gives what may stand in for a failure, or the failure itself.
    fn fall_back(
        &mut self,
        ended: Ended,
        fallback: fallback::Config,
        safety: Safety,
        service: &Service,
        key: Option<Box<[u8]>>,
        fixed: Option<&StaticResponse>,
        on_upgrade: Option<OnUpgrade>,
        edits: Option<&HeaderEdits>,
    ) -> Result<Response<Body>, Refusal> {
        let store = service.stale.as_ref();
        let known = key.as_ref().and_then(|key| store?.get(key));
        let now = self.worker.clock.now();
        let last_good = known.as_ref().map(|answer| answer.made);
        let choice = match &self.worker.shared.journal {
            None => fallback.choose(now, safety, ended.outcome, last_good),
            Some(journal) => {
                let name = &service.config.name;
                journal.fall_back(now, name, fallback, (safety, ended.outcome), last_good)
            }
        };
        match choice {
            Choice::Stale { age } if let Some(answer) = known => {
                self.journey.fell_back(true);
                let mut response = respond::build(
                    answer.status,
                    answer.headers.clone(),
                    Body::full(answer.body.clone()),
                );
                let headers = response.headers_mut();
                headers.insert(
                    WARNING,
                    HeaderValue::from_static("110 selvedge \"Response is Stale\""),
                );
                headers.insert(head::STALE, HeaderValue::from(age.as_secs()));
                headers.insert(CONTENT_LENGTH, HeaderValue::from(answer.body.len()));
                Ok(response)
            }
            Choice::Fixed if let Some(fixed) = fixed => {
                self.journey.fell_back(false);
                let mut headers = HeaderMap::new();
                for (name, value) in &fixed.headers {
                    headers.append(name.clone(), value.clone());
                }
                headers.insert(CONTENT_LENGTH, HeaderValue::from(fixed.body.len()));
                Ok(respond::build(fixed.status, headers, Body::full(fixed.body.clone())))
            }
            _ => {
                let outcome = ended.outcome;
                let response = self.answer(ended.answer?, on_upgrade, service, edits)?;
                if fallback.keeps(safety, outcome)
                    && let (Some(key), Some(store)) = (key, store)
                {
                    self.journey.keeping = Keeping::begin(store, key, &response).map(Box::new);
                }
                Ok(response)
            }
        }
    }

    /// The upstream's response as it goes downstream.
    fn answer(
        &self,
        mut response: Response<Body>,
        on_upgrade: Option<OnUpgrade>,
        service: &Service,
        edits: Option<&HeaderEdits>,
    ) -> Result<Response<Body>, Refusal> {
        let snapshot = &self.local.snapshot;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, on_upgrade);
        }
        let http2 = response.version() == Version::HTTP_2;
        let headers = response.headers_mut();
        head::strip_hop_by_hop(headers);
        head::via(headers, &snapshot.via[usize::from(http2)]);
        if let Some(edits) = edits {
            head::edit(headers, edits);
        }
        let kind = headers.get(CONTENT_TYPE);
        let events = kind.is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
        *response.version_mut() = if self.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        // Event streams and gRPC calls may rightly last, and say nothing, for
        // hours; only their caller's own deadline ends them.
        let (silent, until) = match events || self.grpc {
            true => (None, self.theirs),
            false => (service.live.policy().timeout.idle_read, self.journey.until()),
        };
        let until = until.map(|until| self.worker.clock.timer(until));
        response.body_mut().bound(silent, until);
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
        let protocol = response.headers_mut().remove(UPGRADE).ok_or_else(refusal)?;
        head::strip_hop_by_hop(response.headers_mut());
        response.headers_mut().insert(UPGRADE, protocol);
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        let (parts, body) = response.into_parts();
        let conn = body.into_conn().ok_or_else(refusal)?;
        let idle_for = self.local.snapshot.config.limits.tunnel_idle_for;
        tokio::task::spawn_local(crate::tunnel::carry(down, conn, idle_for));
        Ok(Response::from_parts(parts, Body::empty()))
    }
}

/// The body as attempts send it.
enum Outgoing {
    Empty,
    Once(RefCell<Option<Incoming>>),
    Replay(Replay),
}

/// What the deadline and the attempt's number say to the next hop.
struct Asking {
    deadline: Deadline,
    /// The caller uses Envoy's header, so the service may too.
    envoy: bool,
    prior: u32,
}

/// The request that every attempt is made from.
struct Draft<'a> {
    parts: &'a request::Parts,
    /// The caller stated its body's length.
    has_length: bool,
    path: PathAndQuery,
    service: &'a Service,
    config: &'a Config,
    switch: Option<HeaderValue>,
    body: Outgoing,
    grpc: bool,
    scribe: &'a RefCell<Scribe>,
    asked: Asking,
}

impl drive::Source for Draft<'_> {
    fn request(
        &self,
        attempt: &call::Attempt,
        pool: &Pool,
        now: Instant,
    ) -> Result<Outbound, Refusal> {
        let body = match &self.body {
            Outgoing::Empty => RequestBody::Empty,
            Outgoing::Replay(replay) => replay.reader(),
            Outgoing::Once(body) => match body.borrow_mut().take() {
                Some(body) => RequestBody::Stream(body),
                None => return Err(Refusal::new(Kind::Reset, "the body cannot be sent again")),
            },
        };
        let given = &self.parts.headers;
        let host = match &self.service.config.host {
            HostHeader::Caller => given.get(HOST).unwrap_or(&pool.endpoint.authority),
            HostHeader::Endpoint => &pool.endpoint.authority,
            HostHeader::Fixed(host) => host,
        };
        let mut own = Own::default();
        self.mark(&mut own, attempt, now);
        if self.service.config.protocol == Upstream::Http2 {
            return self.http2(host, &own, body).map(Outbound::Http2);
        }
        if let Some(protocol) = &self.switch {
            own.push(UPGRADE, protocol.clone());
            own.push(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        let length = match &body {
            RequestBody::Empty if self.has_length => Length::Exact(0),
            RequestBody::Empty => Length::None,
            body => body.size_hint().exact().map_or(Length::Chunked, Length::Exact),
        };
        let mut head = pool.buffer();
        let (method, path) = (&self.parts.method, self.path.as_str());
        codec::write_head(&mut head, method, path, host, given, &own, length);
        let to_head = *method == Method::HEAD;
        Ok(Outbound::Http1(Sending::new(head, body, length, to_head, self.switch.is_some())))
    }

    fn replayable(&self) -> bool {
        match &self.body {
            Outgoing::Empty => true,
            Outgoing::Once(_) => false,
            Outgoing::Replay(replay) => replay.replayable(),
        }
    }
}

impl Draft<'_> {
    fn http2(
        &self,
        host: &HeaderValue,
        own: &Own,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, Refusal> {
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(self.path.clone());
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(
            Authority::try_from(host.as_bytes())
                .map_err(|_| Refusal::new(Kind::Malformed, "the Host field is not a host"))?,
        );
        let mut headers = self.parts.headers.clone();
        headers.remove(HOST);
        for (name, value) in own.iter() {
            headers.insert(name, value.clone());
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = Uri::from_parts(uri)
            .map_err(|_| Refusal::new(Kind::Malformed, "the target is not a path"))?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Tells the next hop how much time is left and whether it was asked before.
    fn mark(&self, own: &mut Own, attempt: &call::Attempt, now: Instant) {
        let before = self.asked.prior + attempt.number - 1;
        if before > 0 {
            own.push(head::ATTEMPT, HeaderValue::from(before));
        }
        if !self.config.deadline.send {
            return;
        }
        let end = Deadline::at(attempt.deadline);
        let whole =
            if self.asked.deadline.instant() < end.instant() { self.asked.deadline } else { end };
        let Some(left) = whole.forward(now, &self.service.live.policy().deadline) else { return };
        let mut scribe = self.scribe.borrow_mut();
        if self.grpc {
            let mut text = [0; 9];
            let value = scribe.text(deadline::format_grpc(left, &mut text));
            own.push(deadline::GRPC_TIMEOUT, value);
        }
        let millis = left.as_millis() as u64;
        own.push(deadline::REQUEST_DEADLINE, scribe.number(unix_millis() + millis));
        if self.asked.envoy {
            own.push(deadline::ENVOY_TIMEOUT, scribe.number(millis.max(1)));
        }
    }
}

/// What an operator who asks is told.
struct Explain {
    route: Option<String>,
    service: String,
}

impl Explain {
    fn write(&self, journey: &Journey, headers: &mut HeaderMap) {
        let route = self.route.as_deref().unwrap_or("ambassador");
        let mut text = format!("route={route} service={}", self.service);
        if let Some(trace) = journey.call_trace() {
            text.push_str(&format!("; {trace}"));
        }
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(head::OPERATOR_TRACE, value);
        }
    }
}

/// What a response says about the route's rate limit.
struct LimitFields {
    policy: HeaderValue,
    state: HeaderValue,
    legacy: Option<[HeaderValue; 3]>,
}

impl LimitFields {
    fn new(
        limit: &Limit,
        legacy: bool,
        remaining: u32,
        reset: Duration,
        scribe: &mut Scribe,
    ) -> Self {
        let name = limit.policy.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
        let (mut r, mut t) = (itoa::Buffer::new(), itoa::Buffer::new());
        let seconds = respond::seconds_up(reset);
        let (r, t) = (r.format(remaining).as_bytes(), t.format(seconds).as_bytes());
        let state = scribe.joined(&[name, b";r=", r, b";t=", t]);
        let legacy = legacy.then(|| {
            [u64::from(limit.config.burst), u64::from(remaining), seconds].map(|n| scribe.number(n))
        });
        Self { policy: limit.policy.clone(), state, legacy }
    }

    fn write(self, headers: &mut HeaderMap) {
        headers.insert(HeaderName::from_static("ratelimit-policy"), self.policy);
        headers.insert(HeaderName::from_static("ratelimit"), self.state);
        if let Some(legacy) = self.legacy {
            let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
            for (name, value) in names.into_iter().zip(legacy) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// Compares in a time that does not depend on where they differ.
fn same(given: &HeaderValue, secret: &HeaderValue) -> bool {
    let (given, secret) = (given.as_bytes(), secret.as_bytes());
    given.len() == secret.len()
        && given.iter().zip(secret).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

fn host_of(parts: &request::Parts) -> &str {
    match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
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
