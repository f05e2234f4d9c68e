//! What the data plane is told to do: plain values, validated once.
//!
//! `selvedge-config` makes a [`Config`] from a file; tests and programs build
//! one by hand. `Default` is the documented default everywhere. Nothing here
//! reads a file or resolves a name.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use selvedge_patterns::{limit, policy::Policy};

#[cfg(test)]
mod tests;

/// Everything the data plane needs to know.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where proxied traffic comes in, by route.
    pub listeners: Vec<Listener>,
    /// Where a local application reaches each service by name, if anywhere.
    pub ambassador: Option<Ambassador>,
    /// The dependencies.
    pub services: Vec<Service>,
    /// Which request goes to which service. The most specific match wins,
    /// whatever the order here; see [`crate::route`].
    pub routes: Vec<Route>,
    /// Bounds on what a client may do to a connection.
    pub limits: ConnectionLimits,
    /// Peers whose `Forwarded`, `X-Forwarded-*`, deadlines and request ids are
    /// believed. Default: none.
    pub trusted_proxies: Vec<Network>,
    /// How deadlines come in and go out.
    pub deadline: Deadline,
    /// The secret that a request must carry in `x-selvedge-operator` for its
    /// decision trace to be returned in `x-selvedge-trace`. Default: none, so
    /// nobody gets one.
    pub operator_secret: Option<HeaderValue>,
    /// How long requests in flight may take to end after a shutdown or after
    /// their listener went. Default 30 s.
    pub drain: Drain,
    /// Worker threads. Default: one for each core. Cannot change by a reload.
    pub workers: Option<NonZeroUsize>,
    /// What this proxy calls itself in `Via`, `Forwarded: by=` and problem
    /// documents. Default `selvedge`.
    pub name: Option<HeaderValue>,
}

/// One address that accepts proxied traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name that routes and metrics use.
    pub name: String,
    /// The address. Port 0 takes a free one, told by [`crate::Handle::listeners`].
    pub bind: SocketAddr,
    /// Protocols spoken here. Default: both, told apart by their first bytes.
    pub protocol: Downstream,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            name: String::new(),
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            protocol: Downstream::default(),
        }
    }
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Downstream {
    /// HTTP/1.1, or HTTP/2 if the connection opens with its preface.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only (prior knowledge).
    Http2,
}

/// A listener on loopback at which `/<service>/<path>` reaches any service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ambassador {
    /// The address. The documented default is `127.0.0.1:9910`.
    pub bind: SocketAddr,
}

impl Default for Ambassador {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 9910)) }
    }
}

/// A dependency by name.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name: 1 to 128 visible ASCII characters without `/`.
    pub name: String,
    /// Where it runs.
    pub endpoints: Vec<Endpoint>,
    /// What it speaks. Default HTTP/1.1.
    pub protocol: Upstream,
    /// How calls to it are made: timeouts, retries, breaker and the rest.
    pub policy: Policy,
    /// Bounds on connections to each endpoint.
    pub pool: Pool,
    /// How often names of endpoints are looked up again. Default 5 s.
    pub resolve_every: Duration,
    /// What to answer when the service cannot. Default: the error.
    pub fallback: Option<Fallback>,
    /// The `Host` sent upstream. Default: the caller's.
    pub host: HostHeader,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            name: String::new(),
            endpoints: Vec::new(),
            protocol: Upstream::default(),
            policy: Policy::default(),
            pool: Pool::default(),
            resolve_every: Duration::from_secs(5),
            fallback: None,
            host: HostHeader::default(),
        }
    }
}

/// One address of a service. A name that resolves to several is several endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// IP address or DNS name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Share of the traffic relative to the others. Default 1.
    pub weight: u32,
}

impl Endpoint {
    /// An endpoint of weight 1.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, weight: 1 }
    }

    /// Reads `host:port`, `ip:port` or `[ipv6]:port`.
    ///
    /// # Errors
    ///
    /// What is wrong with `text`.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let bad = || Problem::new("endpoint", format!("`{text}` is not host:port"));
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port: u16 = port.parse().map_err(|_| bad())?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(v6) => v6.parse::<IpAddr>().map_err(|_| bad())?.to_string(),
            None if host.contains(':') => return Err(bad()),
            None => host.to_owned(),
        };
        if port == 0 || !is_host(&host) {
            return Err(bad());
        }
        Ok(Self::new(host, port))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upstream {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 in clear text with prior knowledge: what gRPC servers speak.
    Http2,
}

/// Which `Host` an upstream sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// The one the caller sent.
    #[default]
    Caller,
    /// The endpoint's `host:port`.
    Endpoint,
    /// Always this one.
    Fixed(HeaderValue),
}

/// Bounds on the connections that each worker keeps to each endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Idle connections kept. Default 256.
    pub idle_max: usize,
    /// An idle connection is closed after this. Default 50 s, below the 60 s
    /// after which common servers close theirs.
    pub idle_for: Duration,
    /// Connections open at once, idle ones included, summed over workers;
    /// what goes beyond is rejected. Default 1024.
    pub connections_max: usize,
    /// HTTP/2 streams on one connection at once. Default 100.
    pub streams_max: u32,
    /// Size of the longest response head accepted. Default 64 KiB.
    pub head_bytes_max: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            idle_max: 256,
            idle_for: Duration::from_secs(50),
            connections_max: 1024,
            streams_max: 100,
            head_bytes_max: 64 * 1024,
        }
    }
}

/// What to answer in a failed dependency's place.
#[derive(Clone, Debug, Default)]
pub struct Fallback {
    /// Answer with the last good response to the same request, if it is not
    /// older than this, with `Warning: 110` and `x-selvedge-stale: <age>`.
    /// Default: never.
    pub stale_for: Option<Duration>,
    /// Bytes of good responses kept for the service; the oldest go first.
    /// Default 16 MiB.
    pub stale_bytes_max: Option<usize>,
    /// Answer with this if there is nothing stale.
    pub response: Option<StaticResponse>,
}

/// A response written in the configuration.
#[derive(Clone, Debug)]
pub struct StaticResponse {
    /// Default 200.
    pub status: StatusCode,
    /// Sent as they are.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Sent as it is.
    pub body: Bytes,
}

impl Default for StaticResponse {
    fn default() -> Self {
        Self { status: StatusCode::OK, headers: Vec::new(), body: Bytes::new() }
    }
}

/// Which requests go to which service.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// The name that metrics and logs use. Unique.
    pub name: String,
    /// What a request must look like.
    pub matches: Match,
    /// The service.
    pub to: String,
    /// What becomes of the path. Default: nothing.
    pub rewrite: Rewrite,
    /// Bound on the whole call, below the service's own. Default: the service's.
    pub timeout: Option<Duration>,
    /// How often it may be called. Default: unlimited.
    pub limit: Option<Limit>,
    /// What to answer when the service cannot. Default: the service's.
    pub fallback: Option<Fallback>,
    /// Edits to the request's headers.
    pub request_headers: HeaderEdits,
    /// Edits to the response's headers.
    pub response_headers: HeaderEdits,
}

/// What a request must look like: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// Listeners by name; empty means all.
    pub listeners: Vec<String>,
    /// `Host` without port, case-insensitive: exact, or `*.example.com` for
    /// one or more labels before it. Empty means any.
    pub hosts: Vec<String>,
    /// The path.
    pub path: PathMatch,
    /// Methods; empty means all.
    pub methods: Vec<Method>,
    /// Headers.
    pub headers: Vec<(HeaderName, ValueMatch)>,
    /// Query parameters, compared as they are written (still percent-encoded).
    pub query: Vec<(String, ValueMatch)>,
}

/// How a path is matched. Paths are compared by segment, as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathMatch {
    /// Any path.
    #[default]
    Any,
    /// This path only.
    Exact(String),
    /// This path and what lies below it: `/orders` matches `/orders` and
    /// `/orders/1`, not `/orders-old`.
    Prefix(String),
    /// Segments with `*` for any one and, at the end, `**` for any number.
    Pattern(String),
}

impl PathMatch {
    /// Reads the form of the configuration file: `/a/**` is the prefix `/a`,
    /// a `*` elsewhere makes a pattern, everything else is exact.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "/**" | "**" | "*" => Self::Any,
            _ => match text.strip_suffix("/**") {
                Some(prefix) if !prefix.contains('*') => Self::Prefix(prefix.to_owned()),
                _ if text.contains('*') => Self::Pattern(text.to_owned()),
                _ => Self::Exact(text.to_owned()),
            },
        }
    }
}

/// How a header or query value is matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// It must be there.
    Present,
    /// It must be exactly this.
    Exact(String),
    /// It must begin with this.
    Prefix(String),
}

/// What becomes of the path before it goes upstream. The query stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rewrite {
    /// Nothing.
    #[default]
    None,
    /// This prefix is taken off.
    StripPrefix(String),
    /// The first prefix becomes the second.
    ReplacePrefix(String, String),
    /// The path becomes this one.
    Path(String),
}

/// How often a route may be called.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Who shares one allowance. Default: the whole route.
    pub per: Key,
    /// How much, how fast.
    pub limit: limit::Config,
    /// Keys remembered at once. Default 100,000.
    pub keys_max: u32,
    /// Also send `X-RateLimit-*`, for clients that read those. Default false.
    pub legacy_headers: bool,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            per: Key::default(),
            limit: limit::Config::default(),
            keys_max: 100_000,
            legacy_headers: false,
        }
    }
}

/// Who shares one allowance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// Everyone who calls the route.
    #[default]
    Route,
    /// Each client address, as far as proxies are trusted.
    Ip,
    /// Each value of this header; those without it share one.
    Header(HeaderName),
}

/// Edits to headers, in this order: removed, set, added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Removed.
    pub remove: Vec<HeaderName>,
    /// Put in place of what was there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Put beside what was there.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

/// Bounds on what a client may do to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// A request head must be complete this long after its first byte (or
    /// after the connection opened). Default 10 s.
    pub head_within: Duration,
    /// A connection without a request is closed after this. Default 75 s.
    pub idle_for: Duration,
    /// A body that stands still for this long, either way, ends its request. Default 60 s.
    pub body_idle_for: Duration,
    /// Size of the longest request head accepted (431 beyond). Default 64 KiB.
    pub head_bytes_max: usize,
    /// Header fields accepted in one head (431 beyond). Default 100.
    pub head_fields_max: usize,
    /// Streams at once on one HTTP/2 connection. Default 256.
    pub streams_max: u32,
    /// Connections accepted at once by each worker; further ones wait in the
    /// kernel's queue. Default 16,384.
    pub connections_max: usize,
    /// A tunnel (WebSocket) in which nothing moves for this long is closed. Default 1 h.
    pub tunnel_idle_for: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            head_within: Duration::from_secs(10),
            idle_for: Duration::from_secs(75),
            body_idle_for: Duration::from_secs(60),
            head_bytes_max: 64 * 1024,
            head_fields_max: 100,
            streams_max: 256,
            connections_max: 16_384,
            tunnel_idle_for: Duration::from_secs(3600),
        }
    }
}

/// How deadlines come in and go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Read `grpc-timeout`, `x-request-deadline` and
    /// `x-envoy-expected-rq-timeout-ms`. A deadline can only shorten ours, so
    /// everybody's is believed. Default true.
    pub read: bool,
    /// Send what remains upstream in the same headers, less the margin that the
    /// service's policy keeps back. Default true.
    pub send: bool,
}

impl Default for Deadline {
    fn default() -> Self {
        Self { read: true, send: true }
    }
}

/// How long requests in flight may take to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain(pub Duration);

impl Default for Drain {
    fn default() -> Self {
        Self(Duration::from_secs(30))
    }
}

/// A range of addresses in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8` or a single address.
    ///
    /// # Errors
    ///
    /// What is wrong with `text`.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let bad = || Problem::new("trusted_proxies", format!("`{text}` is not an address or CIDR"));
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(bad());
        }
        Ok(Self { address, bits })
    }

    /// Whether `address` lies in it. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// A value the data plane cannot work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {problem}")]
pub struct Problem {
    /// Where: `services.orders.endpoints`.
    pub key: String,
    /// What is wrong and what is allowed: a lower-case fragment.
    pub problem: String,
}

impl Problem {
    pub(crate) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

impl Config {
    /// Checks what the types cannot say, everything at once.
    ///
    /// # Errors
    ///
    /// Every problem found.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        self.check_listeners(&mut problems);
        self.check_services(&mut problems);
        self.check_routes(&mut problems);
        self.limits.check(&mut problems);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn check_listeners(&self, problems: &mut Vec<Problem>) {
        let mut names = HashSet::new();
        let mut binds = HashSet::new();
        for listener in &self.listeners {
            let key = format!("listeners.{}", listener.name);
            require(problems, names.insert(&listener.name), &key, "is declared twice");
            let free = listener.bind.port() == 0 || binds.insert(listener.bind);
            require(problems, free, &format!("{key}.bind"), "is taken by another listener");
        }
        if let Some(ambassador) = &self.ambassador {
            let free = ambassador.bind.port() == 0 || binds.insert(ambassador.bind);
            require(problems, free, "ambassador.bind", "is taken by another listener");
        }
    }

    fn check_services(&self, problems: &mut Vec<Problem>) {
        let mut names = HashSet::new();
        for service in &self.services {
            let key = format!("services.{}", service.name);
            require(problems, names.insert(&service.name), &key, "is declared twice");
            require(
                problems,
                is_name(&service.name),
                &key,
                "must be 1 to 128 visible ASCII characters without `/`",
            );
            let endpoints = format!("{key}.endpoints");
            require(problems, !service.endpoints.is_empty(), &endpoints, "must not be empty");
            let mut seen = HashSet::new();
            for endpoint in &service.endpoints {
                let once = seen.insert((&endpoint.host, endpoint.port));
                require(problems, once, &endpoints, "names an address twice");
                require(problems, endpoint.weight >= 1, &endpoints, "has a weight below 1");
                let sound = endpoint.port != 0 && is_host(&endpoint.host);
                require(problems, sound, &endpoints, "must be host:port");
            }
            for wrong in service.policy.problems() {
                let key = format!("{key}.{}.{}", wrong.part, wrong.error.key);
                problems.push(Problem::new(key, wrong.error.problem));
            }
            let pool = &service.pool;
            require(
                problems,
                pool.connections_max >= 1,
                &format!("{key}.pool.connections_max"),
                "must be at least 1",
            );
            require(
                problems,
                pool.streams_max >= 1,
                &format!("{key}.pool.streams_max"),
                "must be at least 1",
            );
            require(
                problems,
                pool.head_bytes_max >= 8192,
                &format!("{key}.pool.head_bytes_max"),
                "must be at least 8 KiB",
            );
            require(
                problems,
                !service.resolve_every.is_zero(),
                &format!("{key}.resolve_every"),
                "must be longer than zero",
            );
        }
    }

    fn check_routes(&self, problems: &mut Vec<Problem>) {
        let services: HashSet<&str> = self.services.iter().map(|s| s.name.as_str()).collect();
        let listeners: HashSet<&str> = self.listeners.iter().map(|l| l.name.as_str()).collect();
        let mut names = HashSet::new();
        for route in &self.routes {
            let key = format!("routes.{}", route.name);
            require(problems, names.insert(&route.name), &key, "is declared twice");
            let known = services.contains(route.to.as_str());
            require(problems, known, &format!("{key}.to"), "names no service");
            for listener in &route.matches.listeners {
                let known = listeners.contains(listener.as_str());
                require(problems, known, &format!("{key}.match.listeners"), "names no listener");
            }
            if let Some(limit) = &route.limit
                && let Err(error) = limit.limit.validate()
            {
                problems.push(Problem::new(format!("{key}.limit.{}", error.key), error.problem));
            }
            route.matches.check(&format!("{key}.match"), problems);
        }
    }
}

impl Match {
    fn check(&self, key: &str, problems: &mut Vec<Problem>) {
        let path = format!("{key}.path");
        let text = match &self.path {
            PathMatch::Any => "/",
            PathMatch::Prefix(text) if text.is_empty() => "/",
            PathMatch::Exact(text) | PathMatch::Prefix(text) | PathMatch::Pattern(text) => text,
        };
        require(problems, text.starts_with('/'), &path, "must begin with `/`");
        if matches!(self.path, PathMatch::Pattern(_)) {
            let mut segments = text.split('/').rev().skip(1);
            require(problems, segments.all(|s| s != "**"), &path, "may have `**` only at its end");
            let whole = text.split('/').all(|s| !s.contains('*') || s == "*" || s == "**");
            require(problems, whole, &path, "may have `*` only as a whole segment");
        }
        for host in &self.hosts {
            let bare = host.strip_prefix("*.").unwrap_or(host);
            require(
                problems,
                is_host(bare) && !bare.contains('*'),
                &format!("{key}.host"),
                "must be a host name without port, or `*.` and one",
            );
        }
    }
}

impl ConnectionLimits {
    fn check(&self, problems: &mut Vec<Problem>) {
        let positive = [
            ("limits.head_within", self.head_within),
            ("limits.idle_for", self.idle_for),
            ("limits.body_idle_for", self.body_idle_for),
            ("limits.tunnel_idle_for", self.tunnel_idle_for),
        ];
        for (key, duration) in positive {
            require(problems, !duration.is_zero(), key, "must be longer than zero");
        }
        require(
            problems,
            self.head_bytes_max >= 8192,
            "limits.head_bytes_max",
            "must be at least 8 KiB",
        );
        require(
            problems,
            self.head_fields_max >= 8,
            "limits.head_fields_max",
            "must be at least 8",
        );
        require(problems, self.streams_max >= 1, "limits.streams_max", "must be at least 1");
        require(
            problems,
            self.connections_max >= 1,
            "limits.connections_max",
            "must be at least 1",
        );
    }
}

fn require(problems: &mut Vec<Problem>, holds: bool, key: &str, problem: &str) {
    if !holds {
        problems.push(Problem::new(key, problem));
    }
}

fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}

/// A DNS name or a bare IP address, as far as its characters say.
fn is_host(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok()
        || (!host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')))
}
