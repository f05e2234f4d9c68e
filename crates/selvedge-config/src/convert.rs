//! From the file's words to the data plane's and the patterns' own configurations.
//!
//! What can be wrong between two keys is checked by whoever works with them
//! (`validate` of the patterns and of the proxy); here their complaints get a
//! line and a column.

mod durable;

use std::{collections::HashSet, num::NonZeroUsize, path::Path};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use selvedge_patterns::{
    backoff, balance, breaker, budget, bulkhead, deadline, fallback, health, hedge, limit, outlier,
    policy::Policy, retry, timeout,
};
use selvedge_proxy::config as proxy;

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    load::{AppApi, Durable},
    read::{Named, Set, Text, list},
    schema::{self, File},
    source::Span,
    suggest::nearest,
    tree::{Kind, Node},
};

/// What the durable engine and the app API are to do; what is wrong with it
/// joins `problems`. Relative paths begin at `folder`.
pub(crate) fn convert_durable(
    file: &File,
    folder: &Path,
    problems: &mut Vec<Diagnostic>,
) -> (Option<Durable>, Option<AppApi>) {
    let mut convert = Convert { file, problems };
    (convert.durable(folder), convert.api())
}

/// The data plane's configuration; what is wrong with it joins `problems`.
pub(crate) fn convert(file: &File, root: &Node, problems: &mut Vec<Diagnostic>) -> proxy::Config {
    let config = Convert { file, problems }.all();
    for problem in config.validate().err().unwrap_or_default() {
        // Looked up here, with suggestions and both places.
        let known =
            problem.problem.starts_with("names no ") || problem.problem == "is declared twice";
        let key = rename(&problem.key);
        let (span, section) = place(root, file, &key);
        let within = |it: &Diagnostic| {
            let inside = |at: Span| {
                at.file() == section.file()
                    && at.start() >= section.start()
                    && at.end() <= section.end()
            };
            it.severity == Severity::Error && it.span.is_some_and(inside)
        };
        // What could not be read has been replaced by its default, and a
        // complaint about that would mislead.
        if !known && !problems.iter().any(within) {
            let message = format!("`{}` {}", short_name(&key, file), problem.problem);
            problems.push(Diagnostic::error(Code::OUT_OF_RANGE, message).at(span, ""));
        }
    }
    config
}

/// What the patterns call a key → what the file calls it.
fn rename(key: &str) -> String {
    const NAMES: &[(&str, &str)] = &[
        (".timeout.idle_read", ".timeout.idle"),
        (".deadline.attempt_min", ".timeout.attempt_min"),
        (".retry.body_bytes_max", ".retry.body_max"),
        (".retry.backoff.shape.factor", ".retry.backoff.factor"),
        (".budget.per_second", ".retry.budget.floor"),
        (".budget.", ".retry.budget."),
        (".hedge.delay.quantile", ".hedge.after"),
        (".hedge.delay.", ".hedge."),
        (".hedge.delay", ".hedge.after"),
        (".outlier.interval", ".outlier.every"),
        (".breaker.slow.over", ".breaker.slow_call"),
        (".breaker.slow.rate", ".breaker.slow_rate"),
        (".match.listeners", ".match.listeners"),
    ];
    if let Some(rest) = key.strip_prefix("limits.") {
        return format!("connections.{rest}");
    }
    for (theirs, ours) in NAMES {
        if key.starts_with("services.") && key.contains(theirs) {
            return key.replacen(theirs, ours, 1);
        }
    }
    key.to_owned()
}

/// The last two parts of a key: enough beside the place it is shown at.
fn short_name(key: &str, file: &File) -> String {
    let (_, rest) = owner(key, file);
    if rest.is_empty() { key.to_owned() } else { rest.to_owned() }
}

/// Splits `services.orders.timeout.total` behind the name, which may have dots in it.
fn owner<'a>(key: &'a str, file: &File) -> (Option<String>, &'a str) {
    let (kind, rest) = key.split_once('.').unwrap_or((key, ""));
    let names: Vec<String> = match kind {
        "services" => file.services.iter().map(|(name, _)| name.to_string()).collect(),
        "listeners" => file.listeners.iter().map(|(name, _)| name.to_string()).collect(),
        "routes" => file.routes.iter().map(route_name).collect(),
        _ => return (None, rest),
    };
    let fits = |name: &&String| {
        rest.strip_prefix(name.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match names.iter().filter(fits).max_by_key(|name| name.len()) {
        Some(name) => (Some(name.clone()), rest[name.len()..].trim_start_matches('.')),
        None => (None, rest),
    }
}

pub(crate) fn route_name(route: &schema::Route) -> String {
    route.name.as_ref().map_or_else(String::new, |name| name.as_str().to_owned())
}

/// The place of a key of the file, or of the nearest key around it that is
/// there; and all that stands in its section.
fn place(root: &Node, file: &File, key: &str) -> (Span, Span) {
    let (kind, rest) = key.split_once('.').unwrap_or((key, ""));
    let whole = |from: Span, node: &Node| Span::new(from.file(), from.start(), node.end());
    let Some(top) = root.get(kind) else { return (root.span, root.span) };
    let (mut span, mut node, mut rest) = (top.key_span, &top.value, rest);
    let (name, behind) = owner(key, file);
    if let Some(name) = name {
        rest = behind;
        let index = file.routes.iter().position(|route| route_name(route) == name);
        match (&node.kind, index) {
            (Kind::Sequence(routes), Some(index)) if kind == "routes" => {
                let Some(route) = routes.get(index) else { return (span, span) };
                (node, span) = (route, route.span);
            }
            _ => {
                if let Some(entry) = node.get(&name) {
                    (node, span) = (&entry.value, entry.key_span);
                }
            }
        }
    }
    let mut section = whole(span, node);
    for (depth, part) in rest.split('.').filter(|part| !part.is_empty()).enumerate() {
        let Some(entry) = node.get(part) else { break };
        if depth == 0 {
            section = whole(entry.key_span, &entry.value);
        }
        node = &entry.value;
        span = match node.kind {
            Kind::Scalar(_) => node.span,
            _ => entry.key_span,
        };
    }
    (span, section)
}

struct Convert<'a> {
    file: &'a File,
    problems: &'a mut Vec<Diagnostic>,
}

impl Convert<'_> {
    fn all(&mut self) -> proxy::Config {
        let file = self.file;
        self.names_are_plain();
        self.routes_differ();
        proxy::Config {
            listeners: file.listeners.iter().map(|(name, it)| listener(name, it)).collect(),
            ambassador: file.ambassador.as_ref().map(|it| proxy::Ambassador { bind: *it.bind }),
            services: file.services.iter().map(|(name, it)| self.service(name, it)).collect(),
            routes: file.routes.iter().map(|it| self.route(it)).collect(),
            limits: self.connections(),
            trusted_proxies: self.trusted(),
            deadline: proxy::Deadline { read: *file.deadline.read, send: *file.deadline.send },
            operator_secret: self.operator_secret(),
            drain: proxy::Drain(*file.runtime.drain),
            workers: self.workers(),
            name: self.header_value(&file.runtime.name, file.runtime.name.span()),
        }
    }

    fn wrong(&mut self, span: Span, message: String, help: &str) {
        let diagnostic = Diagnostic::error(Code::OUT_OF_RANGE, message).at(span, "");
        self.problems.push(if help.is_empty() { diagnostic } else { diagnostic.help(help) });
    }

    /// Names are parts of URLs, of metrics and of keys in messages.
    fn names_are_plain(&mut self) {
        let file = self.file;
        let services = file.services.iter().map(|(name, _)| ("service", name));
        let listeners = file.listeners.iter().map(|(name, _)| ("listener", name));
        for (what, name) in services.chain(listeners) {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
                let message =
                    format!("`{}` cannot be the name of a {what}", crate::tree::shorten(name));
                self.wrong(
                    name.span(),
                    message,
                    "a name has 1 to 128 letters, digits, `-`, `_` and `.`",
                );
            }
        }
    }

    fn routes_differ(&mut self) {
        let routes = &self.file.routes;
        for (index, route) in routes.iter().enumerate() {
            let earlier = routes[..index].iter().find(|it| it.name == route.name);
            if let Some(earlier) = earlier {
                let message = format!("two routes are called `{}`", route_name(route));
                self.problems.push(
                    Diagnostic::error(Code::CONFLICT, message)
                        .at(route.name.span(), "again here")
                        .and(earlier.name.span(), "first here")
                        .help("rename one, or leave `name` out"),
                );
            }
        }
    }

    fn operator_secret(&mut self) -> Option<HeaderValue> {
        let token = self.file.operator.as_ref()?;
        let (secret, span) = (token.token.as_ref()?, token.token.span());
        if secret.expose().len() < 16 {
            self.wrong(
                span,
                "`token` is shorter than 16 characters".to_owned(),
                "make one with `openssl rand -hex 24` and take it from `${…}`",
            );
            return None;
        }
        let Ok(mut value) = HeaderValue::from_str(secret.expose()) else {
            self.wrong(
                span,
                "`token` has characters that a header cannot carry".to_owned(),
                "use visible ASCII",
            );
            return None;
        };
        value.set_sensitive(true);
        Some(value)
    }

    fn workers(&mut self) -> Option<NonZeroUsize> {
        let workers = (*self.file.runtime.workers)?;
        let found = NonZeroUsize::new(usize::from(workers));
        if found.is_none() || workers > 1024 {
            self.wrong(
                self.file.runtime.workers.span(),
                "`workers` must be between 1 and 1024".to_owned(),
                "`off` is one for each core",
            );
        }
        found
    }

    fn trusted(&mut self) -> Vec<proxy::Network> {
        let mut networks = Vec::new();
        for text in self.file.connections.trusted_proxies.iter() {
            match proxy::Network::parse(text.as_str()) {
                Ok(network) => networks.push(network),
                Err(problem) => {
                    self.wrong(text.span(), problem.problem, "write `10.0.0.0/8` or `192.168.1.7`")
                }
            }
        }
        networks
    }

    fn connections(&self) -> proxy::ConnectionLimits {
        let it = &*self.file.connections;
        proxy::ConnectionLimits {
            head_within: *it.head_within,
            idle_for: *it.idle_for,
            body_idle_for: *it.body_idle_for,
            head_bytes_max: bytes(*it.head_bytes_max),
            head_fields_max: *it.head_fields_max,
            streams_max: *it.streams_max,
            connections_max: *it.connections_max,
            tunnel_idle_for: *it.tunnel_idle_for,
        }
    }

    fn service(&mut self, name: &Set<String>, it: &schema::Service) -> proxy::Service {
        let endpoints = it.endpoints.iter().map(|it| proxy::Endpoint {
            host: it.address.host.clone(),
            port: it.address.port,
            weight: *it.weight,
        });
        for called in it.calls.iter() {
            self.known_service(called, called.span());
        }
        proxy::Service {
            name: name.to_string(),
            endpoints: endpoints.collect(),
            protocol: match *it.protocol {
                schema::Protocol::Http1 => proxy::Upstream::Http1,
                schema::Protocol::H2c => proxy::Upstream::Http2,
            },
            policy: self.policy(it),
            pool: proxy::Pool {
                idle_max: *it.pool.idle_max,
                idle_for: *it.pool.idle_for,
                connections_max: *it.pool.connections_max,
                streams_max: *it.pool.streams_max,
                head_bytes_max: bytes(*it.pool.head_bytes_max),
            },
            resolve_every: *it.resolve_every,
            fallback: it.fallback.as_ref().map(|fallback| self.fallback(fallback)),
            host: match &*it.host {
                schema::Host::Caller => proxy::HostHeader::Caller,
                schema::Host::Endpoint => proxy::HostHeader::Endpoint,
                schema::Host::Fixed(host) => {
                    let value = self.header_value(host, it.host.span());
                    value.map_or(proxy::HostHeader::Caller, proxy::HostHeader::Fixed)
                }
            },
        }
    }

    fn policy(&mut self, it: &schema::Service) -> Policy {
        Policy {
            deadline: deadline::Config {
                attempt_min: *it.timeout.attempt_min,
                hop_margin: *self.file.deadline.hop_margin,
            },
            timeout: timeout::Config {
                connect: *it.timeout.connect,
                attempt: *it.timeout.attempt,
                idle_read: *it.timeout.idle,
                total: *it.timeout.total,
            },
            retry: it.retry.as_ref().map(retry),
            budget: it
                .retry
                .as_ref()
                .and_then(|retry| retry.budget.as_ref())
                .map(|it| self.budget(it)),
            hedge: it.hedge.as_ref().map(hedge),
            balance: balance::Config {
                algorithm: match *it.balance.algorithm {
                    schema::Algorithm::RoundRobin => balance::Algorithm::RoundRobin,
                    schema::Algorithm::WeightedRoundRobin => balance::Algorithm::WeightedRoundRobin,
                    schema::Algorithm::LeastRequest => balance::Algorithm::LeastRequest,
                    schema::Algorithm::PeakEwma => balance::Algorithm::PeakEwma,
                },
                decay: *it.balance.decay,
                penalty: *it.balance.penalty,
                retry_after_max: *it.balance.retry_after_max,
                panic_below: it.balance.panic_below.ratio(),
            },
            outlier: it.outlier.as_ref().map(outlier),
            health: it.health.as_ref().map(health),
            breaker: it.breaker.as_ref().map(breaker),
            bulkhead: it.bulkhead.as_ref().map(|it| bulkhead::Config {
                max_in_flight: *it.max_in_flight,
                queue: *it.queue,
                queue_for: *it.queue_for,
                order: match *it.order {
                    schema::Order::Fifo => bulkhead::Order::Fifo,
                    schema::Order::Lifo => bulkhead::Order::Lifo,
                },
            }),
            fallback: it.fallback.as_ref().map(|it| fallback::Config {
                stale_for: *it.stale_for,
                fixed: it.response.is_some(),
            }),
        }
    }

    fn budget(&mut self, it: &schema::Budget) -> budget::Config {
        let per_second = it.floor.each_second();
        if it.floor.given() && per_second.fract() != 0.0 {
            let message = format!("`floor` of {} is not a whole number a second", *it.floor);
            self.wrong(it.floor.span(), message, "write it by the second: `10/s`, `0/s`");
        }
        budget::Config {
            ratio: it.ratio.ratio(),
            per_second: per_second as u32,
            window: *it.window,
            basis: match *it.basis {
                schema::Basis::Success => budget::Basis::Success,
                schema::Basis::Call => budget::Basis::Call,
            },
            in_flight_min: *it.in_flight_min,
        }
    }

    fn fallback(&mut self, it: &schema::Fallback) -> proxy::Fallback {
        proxy::Fallback {
            stale_for: *it.stale_for,
            stale_bytes_max: Some(bytes(*it.stale_max)),
            response: it.response.as_ref().map(|response| {
                let status = StatusCode::from_u16(*response.status)
                    .ok()
                    .filter(|status| status.as_u16() >= 200 && status.as_u16() < 600);
                if status.is_none() {
                    self.wrong(
                        response.status.span(),
                        format!("{} is no status to answer with", *response.status),
                        "a status is between 200 and 599",
                    );
                }
                proxy::StaticResponse {
                    status: status.unwrap_or_default(),
                    headers: self.headers(&response.headers),
                    body: response.body.as_str().to_owned().into(),
                }
            }),
        }
    }

    fn known_service(&mut self, name: &Text, span: Span) {
        let names = self.file.services.names();
        if !names.contains(&name.as_str()) {
            self.unknown("service", name.as_str(), span, &names);
        }
    }

    fn unknown(&mut self, what: &str, name: &str, span: Span, names: &[&str]) {
        let message = format!("there is no {what} `{}`", crate::tree::shorten(name));
        let diagnostic = Diagnostic::error(Code::UNKNOWN_NAME, message).at(span, "");
        let diagnostic = match names.len() {
            0 => diagnostic.note(format!("no {what} is declared")),
            1..=12 => diagnostic.note(format!("declared: {}", list(names))),
            many => diagnostic.note(format!("{many} are declared")),
        };
        self.problems.push(match nearest(name, names.iter().copied()) {
            Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
            None => diagnostic,
        });
    }

    fn route(&mut self, it: &schema::Route) -> proxy::Route {
        self.known_service(&it.to, it.to.span());
        proxy::Route {
            name: route_name(it),
            matches: self.matches(&it.matches),
            to: it.to.as_str().to_owned(),
            rewrite: self.rewrite(it),
            timeout: *it.timeout,
            limit: it.limit.as_ref().map(|limit| self.limit(limit)),
            fallback: it.fallback.as_ref().map(|fallback| self.fallback(fallback)),
            request_headers: self.edits(&it.headers.request),
            response_headers: self.edits(&it.headers.response),
        }
    }

    fn matches(&mut self, it: &schema::Match) -> proxy::Match {
        let file = self.file;
        let names = file.listeners.names();
        for listener in it.listeners.iter() {
            if !names.contains(&listener.as_str()) {
                self.unknown("listener", listener.as_str(), listener.span(), &names);
            }
        }
        let mut methods = Vec::new();
        for method in it.methods.iter() {
            let upper = method.as_str().to_ascii_uppercase();
            match Method::from_bytes(method.as_str().as_bytes()) {
                Ok(found) if upper == method.as_str() => methods.push(found),
                _ => self.wrong(
                    it.methods.span(),
                    format!("`{}` is no method", method.as_str()),
                    &format!("methods are upper case: `{upper}`"),
                ),
            }
        }
        let mut headers = Vec::new();
        for (name, pattern) in it.headers.iter() {
            if let (Some(header), Some(value)) =
                (self.header_name(name, name.span()), self.pattern(name, pattern))
            {
                headers.push((header, value));
            }
        }
        let mut query = Vec::new();
        for (name, pattern) in it.query.iter() {
            query.extend(self.pattern(name, pattern).map(|value| (name.to_string(), value)));
        }
        proxy::Match {
            listeners: it.listeners.iter().map(|it| it.as_str().to_owned()).collect(),
            hosts: it.host.iter().map(|it| it.as_str().to_ascii_lowercase()).collect(),
            path: proxy::PathMatch::parse(it.path.as_str()),
            methods,
            headers,
            query,
        }
    }

    fn pattern(&mut self, name: &Set<String>, it: &schema::Pattern) -> Option<proxy::ValueMatch> {
        match (&*it.exact, &*it.prefix, *it.present) {
            (Some(exact), None, true) => Some(proxy::ValueMatch::Exact(exact.as_str().to_owned())),
            (None, Some(prefix), true) => {
                Some(proxy::ValueMatch::Prefix(prefix.as_str().to_owned()))
            }
            (None, None, true) => Some(proxy::ValueMatch::Present),
            (Some(_), Some(_), _) => {
                self.wrong(
                    name.span(),
                    "`exact` and `prefix` exclude each other".to_owned(),
                    "keep one",
                );
                None
            }
            (_, _, false) => {
                self.wrong(
                    name.span(),
                    "`present: false` cannot be matched".to_owned(),
                    "order routes the other way round: the more specific one wins",
                );
                None
            }
        }
    }

    fn limit(&mut self, it: &schema::Limit) -> proxy::Limit {
        proxy::Limit {
            per: match &*it.per {
                schema::Per::Route => proxy::Key::Route,
                schema::Per::Ip => proxy::Key::Ip,
                schema::Per::Header(name) => {
                    let name = self.header_name(name, it.per.span());
                    name.map_or(proxy::Key::Route, proxy::Key::Header)
                }
            },
            limit: limit::Config {
                rate: limit::Rate { count: it.rate.count, per: it.rate.per },
                burst: it.burst.unwrap_or(it.rate.count),
                ..limit::Config::default()
            },
            keys_max: *it.keys_max,
            legacy_headers: *it.legacy_headers,
        }
    }

    fn rewrite(&mut self, it: &schema::Route) -> proxy::Rewrite {
        match (&*it.strip_prefix, &*it.rewrite) {
            (None, None) => proxy::Rewrite::None,
            (Some(prefix), None) => {
                self.is_path(prefix, it.strip_prefix.span());
                proxy::Rewrite::StripPrefix(prefix.as_str().to_owned())
            }
            (None, Some(rewrite)) => {
                self.is_path(&rewrite.path, rewrite.path.span());
                let path = rewrite.path.as_str().to_owned();
                match &*rewrite.prefix {
                    None => proxy::Rewrite::Path(path),
                    Some(prefix) => {
                        self.is_path(prefix, rewrite.prefix.span());
                        proxy::Rewrite::ReplacePrefix(prefix.as_str().to_owned(), path)
                    }
                }
            }
            (Some(_), Some(_)) => {
                self.problems.push(
                    Diagnostic::error(
                        Code::CONFLICT,
                        "`strip_prefix` and `rewrite` exclude each other",
                    )
                    .at(it.strip_prefix.span(), "")
                    .and(it.rewrite.span(), "")
                    .help("`rewrite: { prefix: /a, path: /b }` does both"),
                );
                proxy::Rewrite::None
            }
        }
    }

    fn is_path(&mut self, path: &Text, span: Span) {
        if !path.as_str().starts_with('/') {
            let help = format!("write `/{}`", path.as_str());
            self.wrong(span, format!("`{}` does not begin with `/`", path.as_str()), &help);
        } else if path.as_str().contains('*') {
            self.wrong(span, "a path to write has no `*`".to_owned(), "patterns are for `match:`");
        }
    }

    fn edits(&mut self, it: &schema::Edits) -> proxy::HeaderEdits {
        let mut remove = Vec::new();
        for name in it.remove.iter() {
            remove.extend(self.header_name(name.as_str(), name.span()));
        }
        proxy::HeaderEdits { remove, set: self.headers(&it.set), add: self.headers(&it.add) }
    }

    fn headers(&mut self, it: &Named<Text>) -> Vec<(HeaderName, HeaderValue)> {
        let mut seen = HashSet::new();
        let mut headers = Vec::new();
        for (name, text) in it.iter() {
            let Some(header) = self.header_name(name, name.span()) else { continue };
            if !seen.insert(header.clone()) {
                self.wrong(
                    name.span(),
                    format!("`{header}` is there twice"),
                    "names of headers do not heed case",
                );
            }
            headers.extend(self.header_value(text, name.span()).map(|value| (header, value)));
        }
        headers
    }

    fn header_name(&mut self, name: &str, span: Span) -> Option<HeaderName> {
        const FRAMING: &[&str] = &[
            "connection",
            "content-length",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(header) if FRAMING.contains(&header.as_str()) => {
                self.wrong(
                    span,
                    format!("`{header}` belongs to the connection"),
                    "it is set by whoever carries the message, and cannot be matched or edited",
                );
                None
            }
            Ok(header) => Some(header),
            Err(_) => {
                self.wrong(
                    span,
                    format!("`{}` is no name of a header", crate::tree::shorten(name)),
                    "letters, digits and `-`",
                );
                None
            }
        }
    }

    fn header_value(&mut self, text: &Text, span: Span) -> Option<HeaderValue> {
        let value = HeaderValue::from_str(text.as_str()).ok();
        if value.is_none() {
            self.wrong(
                span,
                "a header cannot carry this value".to_owned(),
                "one line of text, no control characters",
            );
        }
        value
    }
}

fn bytes(size: crate::value::Bytes) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

fn listener(name: &Set<String>, it: &schema::Listener) -> proxy::Listener {
    proxy::Listener {
        name: name.to_string(),
        bind: *it.bind,
        protocol: match *it.protocol {
            schema::ListenerProtocol::Auto => proxy::Downstream::Auto,
            schema::ListenerProtocol::Http1 => proxy::Downstream::Http1,
            schema::ListenerProtocol::H2c => proxy::Downstream::Http2,
        },
    }
}

fn retry(it: &schema::Retry) -> retry::Config {
    retry::Config {
        attempts: *it.attempts,
        on: retry::Conditions {
            connect: it.on.has("connect"),
            refused: it.on.has("refused"),
            reset: it.on.has("reset"),
            timeout: it.on.has("timeout"),
            gateway: it.on.has("gateway"),
            server: it.on.has("server"),
            overload: it.on.has("overload"),
            malformed: it.on.has("malformed"),
        },
        backoff: backoff::Config {
            shape: match *it.backoff.shape {
                schema::Shape::Constant => backoff::Shape::Constant,
                schema::Shape::Linear => backoff::Shape::Linear,
                schema::Shape::Exponential => {
                    backoff::Shape::Exponential { factor: it.backoff.factor.0 }
                }
            },
            base: *it.backoff.base,
            cap: *it.backoff.cap,
            jitter: match *it.backoff.jitter {
                schema::Jitter::None => backoff::Jitter::None,
                schema::Jitter::Full => backoff::Jitter::Full,
                schema::Jitter::Equal => backoff::Jitter::Equal,
                schema::Jitter::Decorrelated => backoff::Jitter::Decorrelated,
                schema::Jitter::DecorrelatedV2 => backoff::Jitter::DecorrelatedV2,
            },
        },
        overload_base: *it.overload_base,
        hint_slack: *it.hint_slack,
        body_bytes_max: it.body_max.0,
    }
}

fn hedge(it: &schema::Hedge) -> hedge::Config {
    hedge::Config {
        delay: match *it.after {
            schema::After::Fixed(delay) => hedge::Delay::Fixed(delay),
            schema::After::Quantile(quantile) => hedge::Delay::Quantile {
                quantile: quantile.ratio(),
                min: *it.min,
                until_known: *it.until_known,
                period: *it.period,
                samples_min: *it.samples_min,
            },
        },
        extra_max: *it.extra_max,
        share: it.share.ratio(),
        burst: *it.burst,
        idempotent: *it.idempotent,
    }
}

fn outlier(it: &schema::Outlier) -> outlier::Config {
    outlier::Config {
        consecutive: *it.consecutive,
        success_rate: it.success_rate.as_ref().map(|it| outlier::SuccessRate {
            hosts_min: *it.hosts_min,
            attempts_min: *it.attempts_min,
            deviations: it.deviations.0,
            gap: it.gap.ratio(),
        }),
        failure_percentage: it.failure_percentage.as_ref().map(|it| outlier::FailurePercentage {
            threshold: it.threshold.ratio(),
            hosts_min: *it.hosts_min,
            attempts_min: *it.attempts_min,
        }),
        interval: *it.every,
        base: *it.base,
        cap: *it.cap,
        ejected_max: it.ejected_max.ratio(),
    }
}

fn health(it: &schema::Health) -> health::Config {
    health::Config {
        kind: match *it.kind {
            schema::HealthKind::Tcp => health::Kind::Tcp,
            schema::HealthKind::Http => health::Kind::Http {
                path: it.path.as_str().to_owned(),
                host: it.host.as_ref().map(|host| host.as_str().to_owned()),
                expect: it.expect.first..=it.expect.last,
            },
        },
        every: *it.every,
        jitter: it.jitter.ratio(),
        timeout: *it.timeout,
        healthy_after: *it.healthy_after,
        unhealthy_after: *it.unhealthy_after,
    }
}

fn breaker(it: &schema::Breaker) -> breaker::Config {
    breaker::Config {
        window: match *it.window {
            schema::Window::Time(length) => breaker::Window::Time(length),
            schema::Window::Calls(calls) => breaker::Window::Calls(calls),
        },
        failure_rate: it.failure_rate.map(crate::value::Percent::ratio),
        min_calls: *it.min_calls,
        consecutive: *it.consecutive,
        slow: it.slow_call.map(|over| breaker::Slow { over, rate: it.slow_rate.ratio() }),
        open_for: *it.open_for,
        open_growth: it.open_growth.0,
        open_max: *it.open_max,
        jitter: it.jitter.ratio(),
        probes: *it.probes,
        probe_timeout: *it.probe_timeout,
        metrics_only: *it.metrics_only,
    }
}
