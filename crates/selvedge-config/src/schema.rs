//! Every key of the file, once.
//!
//! This is the only list of them. The reader, the defaults, `config show
//! --effective`, the JSON Schema and the reference page are derived from these
//! declarations (see `crate::read`). To add a section, declare it here and
//! convert it in `crate::convert`.

mod durable;
mod routing;

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use crate::{
    diagnostic::{Code, Diagnostic},
    read::{
        Definitions, Factor, Field, Named, Reader, Secret, Section, Set, Text, check_keys, choice,
        list, section, section_mapping,
    },
    show::Shown,
    source::Span,
    tree::{Kind, Node},
    value::{self, Address, Bytes, Percent, Rate},
};

pub use durable::{
    AppApi, Collect, Compact, Compatibility, DeadLetters, Dedupe, DeliveryRate, Durability,
    Durable, Exclusive, Missed, Overlap, Priorities, Push, PushMode, Redelivery, Retention,
    Schedule, Start, Subscription, Topic, TopicSchema, WhenFull,
};

pub use routing::Document;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

section! {
    /// The whole file.
    File: "the configuration", later ["auth", "sagas", "outbox", "flags", "registry"] {
        /// Version of the file's form: 1.
        version: Version;
        /// Further files or folders, read as if their contents stood here; relative to this file.
        include: Vec<Text> = Vec::new();
        /// What every service has unless it says otherwise: any key of a service but `endpoints`, `calls` and `load`.
        defaults: Defaults = Defaults;
        /// Where proxied traffic comes in, by name.
        listeners: Named<Listener> = Named::default();
        /// A listener for programs on this machine: `http://127.0.0.1:9910/<service>/<path>`.
        ambassador: Option<Ambassador> = None;
        /// The operator API, the dashboard, `/metrics` and `/health`.
        operator: Option<OperatorApi> = Some(OperatorApi::by_default());
        /// The durable engine: topics, groups, event streams, state, leases and schedules in one file.
        durable: Option<Durable> = None;
        /// The app API, by which programs use the durable engine; there if that is.
        api: Option<AppApi> = Some(AppApi::by_default());
        /// Logs of messages, by name: created or changed at start, and never removed by leaving them out.
        topics: Named<Topic> = Named::default();
        /// Groups of consumers, by name: created or changed at start, and never removed by leaving them out.
        subscriptions: Named<Subscription> = Named::default();
        /// Messages that are published when their time comes, by name; never removed by leaving them out.
        schedules: Named<Schedule> = Named::default();
        /// The dependencies, by name.
        services: Named<Service> = Named::default();
        /// Which request goes to which service; the most specific match wins.
        routes: Vec<Route> = Vec::new();
        /// Bounds on what a client may do to a connection.
        connections: Connections = Connections::by_default();
        /// How deadlines come in and go out.
        deadline: Deadline = Deadline::by_default();
        /// The process itself.
        runtime: Runtime = Runtime::by_default();
        /// What the process says about its work.
        telemetry: Telemetry = Telemetry::by_default();
    }
}

section! {
    /// An address that accepts proxied traffic.
    Listener: "a listener", short "bind", later ["tls", "trust", "protocols"] {
        /// The address; `:8080` means every IPv4 address of this machine.
        bind: SocketAddr;
        /// What is spoken there; `auto` tells HTTP/1.1 and HTTP/2 apart by the first bytes.
        protocol: ListenerProtocol = ListenerProtocol::Auto;
        /// Says that this address may be reached by others though nobody has to authenticate.
        insecure: bool = false;
    }
}

choice! {
    /// What a listener speaks.
    ListenerProtocol: "a protocol" {
        /// Both, told apart.
        Auto = "auto",
        /// HTTP/1.1 only.
        Http1 = "http1",
        /// HTTP/2 in clear text only.
        H2c = "h2c",
    }
}

section! {
    /// A listener for programs on this machine.
    Ambassador: "the ambassador", short "bind" {
        /// The address.
        bind: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9910));
        /// Says that this address may be reached by others though nobody has to authenticate.
        insecure: bool = false;
    }
}

section! {
    /// The operator API and the dashboard.
    OperatorApi: "the operator API", short "bind" {
        /// The address.
        bind: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9900));
        /// What a client must send as `Authorization: Bearer …`, and what lets a request ask for its decision trace in `x-selvedge-operator`. Take it from `${…}`.
        token: Option<Secret> = None;
        /// Names under which it may be called besides the address itself.
        hosts: Vec<Text> = Vec::new();
        /// Says that this address may be reached by others though nobody has to authenticate.
        insecure: bool = false;
    }
}

section! {
    /// A dependency.
    Service: "a service", later ["discover", "tls", "cache", "adaptive", "auth", "api"] {
        /// Where it runs: `host:port`, or `{ address, weight }`. Names are looked up again and again.
        endpoints: Vec<Set<Endpoint>>;
        /// What it speaks; `h2c` is HTTP/2 in clear text, as gRPC servers speak it.
        protocol: Protocol = Protocol::Http1;
        /// The `Host` it sees: `caller` (the one that came in), `endpoint`, or a fixed one.
        host: Host = Host::Caller;
        /// How often names of endpoints are looked up again.
        resolve_every: Duration = secs(5);
        /// Bounds on connections to it.
        pool: Pool = Pool::by_default();
        /// How calls spread over its endpoints.
        balance: Balance = Balance::by_default();
        /// Active health checks.
        health: Option<Health> = None;
        /// Takes an endpoint out because of how it answers.
        outlier: Option<Outlier> = Some(Outlier::by_default());
        /// How long each part of a call may take; a bare duration is the total.
        timeout: Timeout = Timeout::by_default();
        /// Tries a failed call again, if that is safe; a bare number is the attempts.
        retry: Option<Retry> = Some(Retry::by_default());
        /// Sends a second attempt beside a slow one, if that is safe.
        hedge: Option<Hedge> = None;
        /// Stops calling an endpoint that keeps failing, and probes it until it recovers.
        breaker: Option<Breaker> = Some(Breaker::by_default());
        /// Bounds the attempts in flight.
        bulkhead: Option<Bulkhead> = None;
        /// What to answer when the service cannot.
        fallback: Option<Fallback> = None;
        /// Services that it calls itself, so that `check` can look at the whole chain. Changes nothing at run time.
        calls: Vec<Set<Text>> = Vec::new();
        /// What it is expected to bear, for `check`. Changes nothing at run time.
        load: Option<Load> = None;
    }
}

section! {
    /// One address of a service.
    Endpoint: "an endpoint", short "address" {
        /// A name or an IP address, and a port.
        address: Address;
        /// Its share of the calls relative to the others.
        weight: u32 = 1;
    }
}

choice! {
    /// What a service speaks.
    Protocol: "a protocol" {
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2 in clear text with prior knowledge.
        H2c = "h2c",
    }
}

/// The `Host` that a service sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// The one the caller sent.
    Caller,
    /// The endpoint's.
    Endpoint,
    /// This one.
    Fixed(Text),
}

impl Field for Host {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = Text::read(node, reader)?;
        Some(match text.as_str() {
            "caller" => Self::Caller,
            "endpoint" => Self::Endpoint,
            _ => Self::Fixed(text),
        })
    }

    fn show(&self) -> Shown {
        match self {
            Self::Caller => Shown::Word("caller".to_owned()),
            Self::Endpoint => Shown::Word("endpoint".to_owned()),
            Self::Fixed(text) => text.show(),
        }
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "examples": ["caller", "endpoint", "orders.internal"] })
    }
}

section! {
    /// Bounds on connections to a service.
    Pool: "a pool" {
        /// Idle connections that each worker keeps to each endpoint.
        idle_max: usize = 256;
        /// How long an idle connection is kept; less than the server keeps it.
        idle_for: Duration = secs(50);
        /// Connections to each endpoint at once; beyond it calls are rejected.
        connections_max: usize = 1024;
        /// Streams at once on one HTTP/2 connection.
        streams_max: u32 = 100;
        /// The longest response head that is accepted.
        head_bytes_max: Bytes = Bytes(64 << 10);
    }
}

section! {
    /// How calls spread over endpoints.
    Balance: "balancing", short "algorithm" {
        /// How to choose.
        algorithm: Algorithm = Algorithm::PeakEwma;
        /// Time in which a latency loses most of its weight (`peak_ewma`).
        decay: Duration = secs(10);
        /// What a failed attempt counts as, if it took less (`peak_ewma`).
        penalty: Duration = secs(5);
        /// The most that an endpoint's own `Retry-After` counts for.
        retry_after_max: Duration = secs(300);
        /// Below this share of usable endpoints health is not heeded any more; `0%` is never.
        panic_below: Percent = Percent::of(50);
    }
}

choice! {
    /// How to choose an endpoint.
    Algorithm: "a way to balance" {
        /// Each in turn.
        RoundRobin = "round_robin",
        /// Each as often as its weight says.
        WeightedRoundRobin = "weighted_round_robin",
        /// The better of two random ones by calls in flight.
        LeastRequest = "least_request",
        /// The better of two random ones by recent worst latency times calls in flight.
        PeakEwma = "peak_ewma",
    }
}

section! {
    /// Active health checks.
    Health: "a health check", short "path" {
        /// What a check is: a `GET` that must be answered well, or a TCP connection that must stand.
        kind: HealthKind = HealthKind::Http;
        /// Path and query of the `GET`.
        path: Text = Text::new("/");
        /// The `Host` of the `GET`; `off` takes the endpoint's.
        host: Option<Text> = None;
        /// Statuses that count as healthy: `200`, `200-299`.
        expect: Statuses = Statuses { first: 200, last: 299 };
        /// From the end of one check to the start of the next.
        every: Duration = secs(5);
        /// Share by which each wait is shortened or lengthened at random.
        jitter: Percent = Percent::of(10);
        /// A check that takes longer has failed.
        timeout: Duration = secs(1);
        /// Successes in a row that bring an endpoint back.
        healthy_after: u32 = 2;
        /// Failures in a row that take an endpoint out.
        unhealthy_after: u32 = 3;
    }
}

choice! {
    /// What a health check is.
    HealthKind: "a kind of check" {
        /// A `GET`.
        Http = "http",
        /// A connection.
        Tcp = "tcp",
    }
}

/// A range of HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl Field for Statuses {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let status = |text: &str| {
            let status: u16 = text.trim().parse().ok()?;
            (100..=599).contains(&status).then_some(status)
        };
        let parse = |text: &str| match text.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (status(first)?, status(last)?);
                (first <= last).then_some(Self { first, last })
            }
            None => {
                let class = text.strip_suffix("xx").filter(|_| text.len() == 3);
                match class.and_then(|class| class.parse::<u16>().ok()) {
                    Some(class @ 1..=5) => {
                        Some(Self { first: class * 100, last: class * 100 + 99 })
                    }
                    Some(_) => None,
                    None => status(text).map(|one| Self { first: one, last: one }),
                }
            }
        };
        reader.text(node, "a status or a range of them such as `200` or `200-299`", parse)
    }

    fn show(&self) -> Shown {
        if self.first == self.last {
            Shown::Word(self.first.to_string())
        } else {
            Shown::Word(format!("{}-{}", self.first, self.last))
        }
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": ["string", "integer"], "examples": ["200-299", 204] })
    }
}

section! {
    /// Takes an endpoint out because of how it answers.
    Outlier: "outlier detection" {
        /// Gateway errors (502, 503, 504, no connection, timeout) in a row.
        consecutive: Option<u32> = Some(5);
        /// Compares the success rates of the endpoints.
        success_rate: Option<SuccessRate> = Some(SuccessRate::by_default());
        /// Ejects above an absolute share of failures.
        failure_percentage: Option<FailurePercentage> = None;
        /// How often rates are judged.
        every: Duration = secs(10);
        /// How long the first ejection lasts; the nth in a row lasts n times as long.
        base: Duration = secs(30);
        /// The longest ejection; by default 300 s, or `base` if that is longer.
        cap: Duration = secs(300);
        /// Share of the endpoints that may be out at once; one always may, while another remains.
        ejected_max: Percent = Percent::of(30);
    }
}

section! {
    /// Ejects endpoints whose success rate is far below the others'.
    SuccessRate: "a comparison of success rates" {
        /// Endpoints that must have enough attempts before rates are compared.
        hosts_min: u32 = 5;
        /// Attempts that make enough.
        attempts_min: u32 = 100;
        /// Standard deviations below the mean.
        deviations: Factor = Factor(1.9);
        /// And at least so far below the mean.
        gap: Percent = Percent::of(5);
    }
}

section! {
    /// Ejects above an absolute share of failures.
    FailurePercentage: "a share of failures", short "threshold" {
        /// The share.
        threshold: Percent = Percent::of(85);
        /// Endpoints that must have enough attempts.
        hosts_min: u32 = 5;
        /// Attempts that an endpoint must have had.
        attempts_min: u32 = 50;
    }
}

section! {
    /// How long each part of a call may take.
    Timeout: "a timeout", short "total" {
        /// Until a connection stands; by default 2 s, or less where an attempt has less.
        connect: Duration = secs(2);
        /// One attempt, until its response head is there; by default 10 s, or an even share of `total` where that is less.
        attempt: Option<Duration> = Some(secs(10));
        /// Silence between two pieces of a response body. Event streams and gRPC calls may be silent for longer.
        idle: Option<Duration> = Some(secs(60));
        /// The whole call: queueing, every attempt, every wait between them, and the body of the answer; by default 30 s, or enough for every attempt. Event streams, gRPC calls and WebSockets are bounded up to their head, and then by the caller's own deadline alone. A large download needs more, or `off`.
        total: Option<Duration> = Some(secs(30));
        /// No attempt begins with less time left than this.
        attempt_min: Duration = ms(10);
    }
}

section! {
    /// Tries a failed call again, if that is safe.
    Retry: "a retry", short "attempts" {
        /// Attempts in all, the first included.
        attempts: u32 = 3;
        /// How long to wait in between.
        backoff: Backoff = Backoff::by_default();
        /// What bounds the extra attempts (hedges included) as a share of what succeeds.
        budget: Option<Budget> = Some(Budget::by_default());
        /// Which endings are tried again.
        on: Conditions = Conditions::all();
        /// The first wait after the server said that it has too much to do.
        overload_base: Duration = secs(1);
        /// How much longer than the computed wait a `Retry-After` may make it.
        hint_slack: Duration = secs(5);
        /// Request bodies up to this are kept for a repeat; a longer one goes through once.
        body_max: Bytes = Bytes(64 << 10);
    }
}

section! {
    /// How long to wait before a retry.
    Backoff: "a backoff", short "base" {
        /// The first wait, before jitter.
        base: Duration = ms(50);
        /// The longest wait, before jitter; by default 5 s, or `base` if that is longer.
        cap: Duration = secs(5);
        /// How waits spread, so that callers do not come back together.
        jitter: Jitter = Jitter::Full;
        /// How waits grow.
        shape: Shape = Shape::Exponential;
        /// What each wait is multiplied by (`exponential`).
        factor: Factor = Factor(2.0);
    }
}

choice! {
    /// How waits spread.
    Jitter: "a jitter" {
        /// Not at all.
        None = "none",
        /// Anything from zero to the wait.
        Full = "full",
        /// From half the wait to the wait.
        Equal = "equal",
        /// From `base` to three times the wait before.
        Decorrelated = "decorrelated",
        /// Smooth exponential growth with a spread median.
        DecorrelatedV2 = "decorrelated_v2",
    }
}

choice! {
    /// How waits grow.
    Shape: "a shape of growth" {
        /// Not.
        Constant = "constant",
        /// By `base` each time.
        Linear = "linear",
        /// By `factor` each time.
        Exponential = "exponential",
    }
}

section! {
    /// What bounds extra attempts.
    Budget: "a budget", short "ratio" {
        /// Extra attempts for each attempt that succeeds (or for each call).
        ratio: Percent = Percent::of(20);
        /// Extra attempts that are always there, so that little traffic may retry.
        floor: Rate = Rate::per_second(10);
        /// How long a success counts.
        window: Duration = secs(10);
        /// What earns extra attempts. Earned by `success`, there are none in an outage.
        basis: Basis = Basis::Success;
        /// Extra attempts that may be in flight however few calls are.
        in_flight_min: u32 = 3;
    }
}

choice! {
    /// What earns extra attempts.
    Basis: "a basis" {
        /// Each attempt that succeeds.
        Success = "success",
        /// Each call.
        Call = "call",
    }
}

/// Which endings are tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Their names, in the order of [`Conditions::WORDS`].
    words: Vec<&'static str>,
}

impl Conditions {
    /// Every ending that may be tried again.
    pub const WORDS: &[&str] =
        &["connect", "refused", "reset", "timeout", "gateway", "server", "overload", "malformed"];

    fn all() -> Self {
        Self { words: Self::WORDS.to_vec() }
    }

    /// Whether `word` is one of them.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }
}

impl Field for Conditions {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let items = match &node.kind {
            Kind::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut read = Vec::new();
        for item in items {
            let text = match &item.kind {
                Kind::Scalar(scalar) => scalar.text.as_str(),
                _ => "",
            };
            // What people write who know the statuses.
            let instead = match text {
                "502" | "503" | "504" | "gateway_error" | "gateway-error" | "bad_gateway" => {
                    Some("write `gateway`: that is 502, 503 and 504")
                }
                "500" | "5xx" => Some("write `[gateway, server]`: together every 5xx"),
                "429" => Some("write `overload`: that is 429, and 503 with `Retry-After`"),
                _ => None,
            };
            if let Some(instead) = instead {
                let message = format!("retries have no condition `{text}`");
                reader.problem(
                    Diagnostic::error(Code::WRONG_VALUE, message).at(item.span, "").help(instead),
                );
                read.push(None);
                continue;
            }
            read.push(crate::read::word(item, "an ending to try again after", Self::WORDS, reader));
        }
        let words: Option<Vec<&str>> = read.into_iter().collect();
        let words = words?;
        Some(Self { words: Self::WORDS.iter().copied().filter(|it| words.contains(it)).collect() })
    }

    fn show(&self) -> Shown {
        Shown::List(self.words.iter().map(|word| Shown::Word((*word).to_owned())).collect())
    }

    fn json_schema(_: &mut Definitions) -> Value {
        let one = json!({ "enum": Self::WORDS });
        json!({ "anyOf": [{ "type": "array", "items": one }, one] })
    }
}

section! {
    /// Sends a second attempt beside a slow one.
    Hedge: "a hedge", short "after" {
        /// How long to wait for the first attempt: a duration, or a quantile of recent ones such as `p95`.
        after: After = After::Quantile(Percent::of(95));
        /// What to wait until enough recent attempts are known.
        until_known: Duration = ms(100);
        /// Never wait less than this.
        min: Duration = ms(1);
        /// The time that recent attempts are taken from.
        period: Duration = secs(10);
        /// Attempts that must be known in it.
        samples_min: u32 = 100;
        /// Extra attempts per call; at most 3.
        extra_max: u32 = 1;
        /// Extra attempts as a share of first ones.
        share: Percent = Percent::of(5);
        /// Extra attempts that may be sent in a burst.
        burst: u32 = 10;
        /// Hedge PUT, DELETE and calls with an `Idempotency-Key` too, not only safe ones.
        idempotent: bool = false;
    }
}

/// How long to wait for the first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Always as long.
    Fixed(Duration),
    /// As long as this share of recent attempts took.
    Quantile(Percent),
}

impl Field for After {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let quantile = match &node.kind {
            Kind::Scalar(scalar) => scalar.text.strip_prefix('p'),
            _ => None,
        };
        match quantile.map(|number| value::percent(&format!("{number}%"))) {
            Some(Ok(share)) => Some(Self::Quantile(share)),
            _ => reader
                .text(node, "a duration such as `100ms` or a quantile such as `p95`", |text| {
                    value::duration(text).ok()
                })
                .map(Self::Fixed),
        }
    }

    fn show(&self) -> Shown {
        Shown::Word(match self {
            Self::Fixed(duration) => value::show_duration(*duration),
            Self::Quantile(share) => format!("p{}", share.to_string().trim_end_matches('%')),
        })
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "examples": ["p95", "100ms"] })
    }
}

section! {
    /// Stops calling an endpoint that keeps failing.
    Breaker: "a breaker" {
        /// The calls that are judged: those of the last `10s`, or the last `100 calls`.
        window: Window = Window::Time(secs(10));
        /// Share of failed calls at which it opens.
        failure_rate: Option<Percent> = Some(Percent::of(50));
        /// Calls that the window must hold before rates are judged; by default 20, or all that a window of fewer calls holds.
        min_calls: u32 = 20;
        /// Failures in a row at which it opens, whatever the rate.
        consecutive: Option<u32> = None;
        /// A call that takes so long counts as slow, even while it is in flight.
        slow_call: Option<Duration> = None;
        /// Share of slow calls at which it opens.
        slow_rate: Percent = Percent::of(50);
        /// How long it rejects before it probes.
        open_for: Duration = secs(5);
        /// What `open_for` is multiplied by each time a probe fails.
        open_growth: Factor = Factor(2.0);
        /// The longest it rejects; by default 60 s, or `open_for` if that is longer.
        open_max: Duration = secs(60);
        /// Share by which that time is shortened or lengthened at random.
        jitter: Percent = Percent::of(20);
        /// Calls that it admits and judges by when it probes.
        probes: u32 = 3;
        /// A probe that has not ended by then has failed.
        probe_timeout: Duration = secs(30);
        /// Counts and never opens: to find out what it would do.
        metrics_only: bool = false;
    }
}

/// The calls that a breaker judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Those of the last so long.
    Time(Duration),
    /// The last so many.
    Calls(u32),
}

impl Field for Window {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        reader.text(node, "a duration such as `10s` or a count such as `100 calls`", |text| {
            match text.strip_suffix("calls").or_else(|| text.strip_suffix("call")) {
                Some(count) => count.trim().parse().ok().map(Self::Calls),
                None => value::duration(text).ok().map(Self::Time),
            }
        })
    }

    fn show(&self) -> Shown {
        Shown::Word(match self {
            Self::Time(duration) => value::show_duration(*duration),
            Self::Calls(count) => format!("{count} calls"),
        })
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "examples": ["10s", "100 calls"] })
    }
}

section! {
    /// Bounds the attempts in flight.
    Bulkhead: "a bulkhead", short "max_in_flight" {
        /// Attempts at the service that may run at once.
        max_in_flight: u32 = 100;
        /// Callers that may wait for their turn.
        queue: u32 = 0;
        /// How long each may wait.
        queue_for: Duration = ms(50);
        /// Who comes next.
        order: Order = Order::Fifo;
    }
}

choice! {
    /// Who comes next.
    Order: "an order" {
        /// Who has waited longest.
        Fifo = "fifo",
        /// Who came last: the one whose caller is still there.
        Lifo = "lifo",
    }
}

section! {
    /// What to answer when the service cannot.
    Fallback: "a fallback" {
        /// The last good answer to the same request, until it is so old.
        stale_for: Option<Duration> = None;
        /// Bytes of good answers that are kept.
        stale_max: Bytes = Bytes(16 << 20);
        /// A fixed answer, if there is no stale one.
        response: Option<StaticResponse> = None;
    }
}

section! {
    /// An answer written in the file.
    StaticResponse: "a response", short "body" {
        /// Its status.
        status: u16 = 200;
        /// Its headers.
        headers: Named<Text> = Named::default();
        /// Its body.
        body: Text = Text::new("");
    }
}

section! {
    /// What a service is expected to bear.
    Load: "an expected load", short "rate" {
        /// Calls that arrive, without retries.
        rate: Rate;
        /// Attempts that it can serve.
        capacity: Option<Rate> = None;
        /// Requests that it queues at most; one more is refused. A queue shorter than what it serves in the time of an attempt cannot keep an outage up.
        queue: Option<u32> = None;
    }
}

section! {
    /// Which requests go to which service.
    Route: "a route", later [
        "auth", "rollout", "compose", "strangle", "idempotency", "mirror", "cache", "retry"
    ] {
        /// The name that metrics and logs use; `off` takes the service's name, numbered where several routes share it.
        name: Option<Text> = None;
        /// What a request must look like: all that is given must hold. A bare text is the path.
        matches("match"): Match = Match::by_default();
        /// The service.
        to: Text;
        /// How often it may be called.
        limit: Option<Limit> = None;
        /// Bound on the whole call, below the service's own.
        timeout: Option<Duration> = None;
        /// Taken off the beginning of the path.
        strip_prefix: Option<Text> = None;
        /// Changes the path.
        rewrite: Option<Rewrite> = None;
        /// Edits to headers.
        headers: Headers = Headers::by_default();
        /// What to answer when the service cannot; `off` takes the service's.
        fallback: Option<Fallback> = None;
    }
}

section! {
    /// What a request must look like.
    Match: "a match", short "path" {
        /// The path: `/orders` exactly, `/orders/**` with all below it, `/orders/*/lines` with any one segment.
        path: Text = Text::new("/**");
        /// `Host` without port: exactly, or `*.example.com`. None means any.
        host: Vec<Text> = Vec::new();
        /// Methods. None means all.
        methods: Vec<Text> = Vec::new();
        /// Headers by name, each with the text it must have, or `{ prefix: … }`, or `{ present: true }`.
        headers: Named<Pattern> = Named::default();
        /// Query parameters likewise.
        query: Named<Pattern> = Named::default();
        /// Listeners by name. None means all.
        listeners: Vec<Set<Text>> = Vec::new();
    }
}

section! {
    /// How a header or a query parameter is matched.
    Pattern: "a match of a value", short "exact" {
        /// It must be exactly this.
        exact: Option<Text> = None;
        /// It must begin with this.
        prefix: Option<Text> = None;
        /// It must be there.
        present: bool = true;
    }
}

section! {
    /// How often something may be called.
    Limit: "a limit", short "rate", later ["algorithm", "shared"] {
        /// In the long run.
        rate: Rate;
        /// At once after a pause; by default the number in `rate`.
        burst: Option<u32> = None;
        /// Who shares one allowance: `route` (everybody), `ip`, or `header:<name>`.
        per: Per = Per::Route;
        /// Keys that are remembered at once.
        keys_max: u32 = 100_000;
        /// Also send `X-RateLimit-*`, for clients that read those.
        legacy_headers: bool = false;
    }
}

/// Who shares one allowance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Per {
    /// Everybody.
    Route,
    /// Each client address.
    Ip,
    /// Each value of this header.
    Header(String),
}

impl Field for Per {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        reader.text(node, "who shares the limit: `route`, `ip` or `header:<name>`", |text| {
            match text.split_once(':') {
                Some(("header", name)) => Some(Self::Header(name.trim().to_ascii_lowercase())),
                None if text == "route" => Some(Self::Route),
                None if text == "ip" => Some(Self::Ip),
                _ => None,
            }
        })
    }

    fn show(&self) -> Shown {
        match self {
            Self::Route => Shown::Word("route".to_owned()),
            Self::Ip => Shown::Word("ip".to_owned()),
            Self::Header(name) => Shown::Text(format!("header:{name}")),
        }
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^(route|ip|header:.+)$" })
    }
}

section! {
    /// Changes the path before it goes to the service.
    Rewrite: "a rewrite", short "path" {
        /// Only this prefix is replaced; `off` replaces the whole path.
        prefix: Option<Text> = None;
        /// By this.
        path: Text;
    }
}

section! {
    /// Edits to headers.
    Headers: "edits to headers" {
        /// Of the request.
        request: Edits = Edits::by_default();
        /// Of the response.
        response: Edits = Edits::by_default();
    }
}

section! {
    /// Edits to headers, in this order.
    Edits: "edits to headers" {
        /// Removed.
        remove: Vec<Set<Text>> = Vec::new();
        /// Put in place of what was there.
        set: Named<Text> = Named::default();
        /// Put beside what was there.
        add: Named<Text> = Named::default();
    }
}

section! {
    /// Bounds on what a client may do to a connection.
    Connections: "bounds on connections" {
        /// A request head must be complete so long after its first byte.
        head_within: Duration = secs(10);
        /// A connection without a request is closed after this.
        idle_for: Duration = secs(75);
        /// A body that stands still for so long, either way, ends its request.
        body_idle_for: Duration = secs(60);
        /// The longest request head that is accepted.
        head_bytes_max: Bytes = Bytes(64 << 10);
        /// Header fields in one head.
        head_fields_max: usize = 100;
        /// Streams at once on one HTTP/2 connection.
        streams_max: u32 = 256;
        /// Connections at once for each worker.
        connections_max: usize = 16_384;
        /// A tunnel (WebSocket) in which nothing moves for so long is closed.
        tunnel_idle_for: Duration = secs(3600);
        /// Peers whose `Forwarded`, `X-Forwarded-*` and request ids are believed: addresses or `10.0.0.0/8`.
        trusted_proxies: Vec<Set<Text>> = Vec::new();
    }
}

section! {
    /// How deadlines come in and go out.
    Deadline: "deadlines" {
        /// Read `grpc-timeout`, `x-request-deadline` and `x-envoy-expected-rq-timeout-ms`; they can only shorten.
        read: bool = true;
        /// Send what remains to the service in the same headers.
        send: bool = true;
        /// Kept back for the way home when the rest is sent on.
        hop_margin: Duration = ms(5);
    }
}

section! {
    /// The process itself.
    Runtime: "the runtime" {
        /// Worker threads; `off` is one for each core. A reload does not change it.
        workers: Option<u16> = None;
        /// How long requests in flight may take to end when it stops.
        drain: Duration = secs(30);
        /// What it calls itself in `Via` and in its answers.
        name: Text = Text::new("selvedge");
    }
}

section! {
    /// What the process says about its work; metrics are the operator API's `/metrics`. A reload does not change it.
    Telemetry: "telemetry", later ["metrics", "traces", "otlp"] {
        /// Where one line for each call goes; `off` writes none. `--no-access-log` wins.
        access_log: Option<Output> = Some(Output::Stdout);
        /// The least that the log says. `SELVEDGE_LOG` wins, which can tell parts of the program apart.
        log_level: Level = Level::Info;
        /// How lines of the log look. `--log-format` wins.
        log_format: LogFormat = LogFormat::Auto;
    }
}

choice! {
    /// Where lines go.
    Output: "an output" {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error, where the log goes, too.
        Stderr = "stderr",
    }
}

choice! {
    /// The least that a log says.
    Level: "a level" {
        /// Somebody must act.
        Error = "error",
        /// Unexpected, and survived.
        Warn = "warn",
        /// What begins, changes and ends.
        Info = "info",
        /// What happens to each request.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

impl Level {
    /// As a filter of the log has it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

choice! {
    /// How lines of the log look.
    LogFormat: "a form" {
        /// `text` on a terminal, `json` elsewhere.
        Auto = "auto",
        /// One JSON object a line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

impl File {
    /// Whether it says something that only a store can do.
    pub(crate) fn needs_a_store(&self) -> bool {
        let empty =
            self.topics.is_empty() && self.subscriptions.is_empty() && self.schedules.is_empty();
        !empty || self.api.given()
    }

    /// Settles the defaults that depend on what was written beside them.
    pub(crate) fn complete(&mut self) {
        if self.durable.is_none() {
            // Nothing to speak for.
            self.api.or_default(None);
        }
        for (_, service) in self.services.iter_mut() {
            service.complete();
        }
        for (_, subscription) in self.subscriptions.iter_mut() {
            if subscription.exclusive.is_some()
                && let Some(push) = subscription.push.as_mut()
            {
                push.concurrency.or_default(1);
            }
            if let Some(limit) = subscription.rate.as_mut() {
                let count = limit.rate.count;
                limit.burst.or_default(Some(count));
            }
        }
        let mut taken: HashSet<String> = self
            .routes
            .iter()
            .filter_map(|it| it.name.as_ref())
            .map(|it| it.as_str().to_owned())
            .collect();
        for route in self.routes.iter_mut() {
            if route.name.is_none() {
                let to = route.to.as_str();
                let numbered = (2..).map(|number| format!("{to}-{number}"));
                let name = std::iter::once(to.to_owned())
                    .chain(numbered)
                    .find(|name| !taken.contains(name));
                let name = name.expect("there are more numbers than routes");
                taken.insert(name.clone());
                route.name.or_default(Some(Text::new(name)));
            }
            if let Some(limit) = route.limit.as_mut() {
                let count = limit.rate.count;
                limit.burst.or_default(Some(count));
            }
        }
    }
}

impl Service {
    fn complete(&mut self) {
        let attempts = self.retry.as_ref().map_or(1, |retry| *retry.attempts).max(1);
        let timeout = &mut *self.timeout;
        match (timeout.attempt.given(), timeout.total.given()) {
            (false, true) => {
                let even = timeout.total.map(|total| whole_millis(total / attempts));
                timeout
                    .attempt
                    .or_default(even.map_or(Some(secs(10)), |even| Some(even.min(secs(10)))));
            }
            (true, false) => {
                let all = timeout.attempt.map(|attempt| attempt.saturating_mul(attempts));
                timeout.total.or_default(all.map(|all| all.max(secs(30))).or(Some(secs(30))));
            }
            (false, false) => {
                timeout.attempt.or_default(Some(whole_millis(secs(30) / attempts).min(secs(10))))
            }
            (true, true) => {}
        }
        let bound = timeout.attempt.or(*timeout.total).unwrap_or(secs(2));
        timeout.connect.or_default(bound.min(secs(2)));
        if let Some(retry) = self.retry.as_mut() {
            let base = *retry.backoff.base;
            retry.backoff.cap.or_default(base.max(secs(5)));
        }
        if let Some(outlier) = self.outlier.as_mut() {
            let base = *outlier.base;
            outlier.cap.or_default(base.max(secs(300)));
        }
        if let Some(breaker) = self.breaker.as_mut() {
            let open_for = *breaker.open_for;
            breaker.open_max.or_default(open_for.max(secs(60)));
            if let Window::Calls(calls) = *breaker.window {
                breaker.min_calls.or_default(calls.min(20));
            }
        }
    }
}

/// Rounded down to milliseconds where that leaves anything.
fn whole_millis(duration: Duration) -> Duration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { duration } else { ms(millis) }
}

/// Sections all of whose keys have defaults.
macro_rules! by_default {
    ($($name:ident),*) => {$(
        impl $name {
            pub(crate) fn by_default() -> Self {
                let nowhere = Node::new(Span::new(0, 0, 0), Kind::Mapping(Vec::new()));
                Self::read_entries(&nowhere, &mut Reader::new(nowhere.span)).expect("every key has a default")
            }
        }
    )*};
}

by_default!(
    OperatorApi,
    Pool,
    Balance,
    Outlier,
    SuccessRate,
    Timeout,
    Retry,
    Backoff,
    Budget,
    Breaker,
    Match,
    Headers,
    Edits,
    Connections,
    Deadline,
    Runtime,
    AppApi,
    Retention,
    Redelivery,
    Dedupe,
    DeadLetters,
    Telemetry
);

/// The version of the file's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version;

impl Field for Version {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        reader.text(node, "`1`, the only version there is", |text| (text == "1").then_some(Self))
    }

    fn show(&self) -> Shown {
        Shown::Word("1".to_owned())
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "enum": [1, "1"] })
    }
}

/// What `defaults:` says has been merged into the services before they are
/// read; what is left to do is to find what is wrong with it by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults;

impl Defaults {
    /// Keys of a service that make no sense for all of them.
    const OWN: &[&str] = &["endpoints", "calls", "load"];
}

impl Field for Defaults {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let mapping = section_mapping::<Service>(node, reader)?;
        check_keys::<Service>(&mapping, reader);
        for key in Self::OWN {
            if let Some(entry) = mapping.get(key) {
                reader.problem(
                    Diagnostic::error(
                        Code::CONFLICT,
                        format!("`{key}` cannot be the same for every service"),
                    )
                    .at(entry.key_span, "")
                    .help(format!(
                        "move it to its service; {} stay out of `defaults:`",
                        list(Self::OWN)
                    )),
                );
            }
        }
        let partial = std::mem::replace(&mut reader.partial, true);
        Service::read_entries(&mapping, reader);
        reader.partial = partial;
        Some(Self)
    }

    fn show(&self) -> Shown {
        Shown::Absent
    }

    fn json_schema(definitions: &mut Definitions) -> Value {
        Service::json_schema(definitions);
        let properties =
            definitions.get("Service").and_then(|it| it.pointer("/anyOf/0/properties"));
        let mut properties = properties.cloned().unwrap_or_else(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            properties.retain(|key, _| !Self::OWN.contains(&key.as_str()));
        }
        json!({ "type": "object", "properties": properties, "additionalProperties": false })
    }
}

/// The places that have a key of this name, as in "`attempts` is a key of a retry".
pub(crate) fn sections_with(key: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut look = |outline: crate::read::Outline| {
        if outline.keys.contains(&key) && outline.word != "a service" {
            found.push(outline.word);
        }
    };
    look(Listener::OUTLINE);
    look(OperatorApi::OUTLINE);
    look(Pool::OUTLINE);
    look(Balance::OUTLINE);
    look(Health::OUTLINE);
    look(Outlier::OUTLINE);
    look(Timeout::OUTLINE);
    look(Retry::OUTLINE);
    look(Backoff::OUTLINE);
    look(Budget::OUTLINE);
    look(Hedge::OUTLINE);
    look(Breaker::OUTLINE);
    look(Bulkhead::OUTLINE);
    look(Fallback::OUTLINE);
    look(Route::OUTLINE);
    look(Match::OUTLINE);
    look(Limit::OUTLINE);
    look(Connections::OUTLINE);
    look(Durable::OUTLINE);
    look(AppApi::OUTLINE);
    look(Topic::OUTLINE);
    look(Retention::OUTLINE);
    look(Subscription::OUTLINE);
    look(Redelivery::OUTLINE);
    look(DeliveryRate::OUTLINE);
    look(Exclusive::OUTLINE);
    look(Dedupe::OUTLINE);
    look(DeadLetters::OUTLINE);
    look(Schedule::OUTLINE);
    look(Telemetry::OUTLINE);
    if Service::OUTLINE.keys.contains(&key) {
        found.push(Service::OUTLINE.word);
    }
    found.truncate(3);
    found
}

/// The reference page of the file, in Markdown: every key with its default, from the JSON Schema.
#[must_use]
pub fn reference() -> String {
    let schema = json_schema();
    let mut page = String::from(
        "# Configuration reference\n\n\
        Every key of `selvedge.yaml` with its default, made from the declarations that the reader itself uses.\n\
        `selvedge config show --effective FILE` prints what holds for a file; `selvedge config schema` prints a JSON Schema for editors.\n\n\
        Durations have units (`250ms`, `1.5s`, `2m`), and so have sizes (`64KiB`), percentages (`50%`) and rates (`100/s`).\n\
        A section that may be switched off takes `off`; `on` is the section with its defaults.\n\
        `${NAME}`, `${NAME:-default}` and `${file:/path}` are filled in in values.\n",
    );
    let mut heading = |title: &str, doc: &str, section: &Value| {
        page.push_str(&format!(
            "\n## {title}\n\n{doc}\n\n| key | default | what it is |\n|---|---|---|\n"
        ));
        let required = section["required"].as_array().cloned().unwrap_or_default();
        for (key, property) in section["properties"].as_object().into_iter().flatten() {
            let default = match property.get("default") {
                _ if required.iter().any(|it| it == key) => "required".to_owned(),
                Some(Value::Object(_)) => "on".to_owned(),
                Some(Value::Bool(false)) => "`off`".to_owned(),
                Some(Value::String(text)) => format!("`{text}`"),
                Some(Value::Array(items)) if items.is_empty() => "none".to_owned(),
                Some(Value::Array(items)) => {
                    let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                    format!("`[{}]`", items.join(", "))
                }
                Some(other) => format!("`{other}`"),
                None => String::new(),
            };
            let about = property["description"].as_str().unwrap_or("").replace('|', "\\|");
            let words = words_of(property);
            let words = if words.is_empty() { words } else { format!(" One of {words}.") };
            let link = Some(property)
                .filter(|_| key != "defaults")
                .and_then(sections_of)
                .map(|name| format!(" See [{name}](#{}).", name.to_ascii_lowercase()));
            page.push_str(&format!(
                "| `{key}` | {default} | {about}{words}{} |\n",
                link.unwrap_or_default()
            ));
        }
    };
    heading("The file", "The whole file.", &schema);
    for (name, section) in schema["$defs"].as_object().into_iter().flatten() {
        let doc = section["description"].as_str().unwrap_or("");
        heading(name, doc, &section["anyOf"][0]);
    }
    page
}

/// The words that a choice may be, for the reference page.
fn words_of(property: &Value) -> String {
    let words = property.get("enum").and_then(Value::as_array);
    let words =
        words.into_iter().flatten().filter_map(Value::as_str).map(|word| format!("`{word}`"));
    words.collect::<Vec<_>>().join(", ")
}

/// The section that a property is or holds.
fn sections_of(property: &Value) -> Option<String> {
    let text = property.to_string();
    let (_, rest) = text.split_once("#/$defs/")?;
    rest.split('"').next().map(str::to_owned)
}

/// The JSON Schema (2020-12) of the file.
#[must_use]
pub fn json_schema() -> Value {
    let mut definitions = Definitions::new();
    File::json_schema(&mut definitions);
    let mut schema = definitions.get("File").and_then(|file| file.pointer("/anyOf/0")).cloned();
    let schema =
        schema.as_mut().and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default();
    definitions.remove("File");
    let mut root = schema;
    for (key, value) in [
        ("$schema", json!("https://json-schema.org/draft/2020-12/schema")),
        ("title", json!("selvedge.yaml")),
        ("description", json!("The configuration of Selvedge.")),
        ("$defs", json!(definitions)),
    ] {
        root.insert(key.to_owned(), value);
    }
    Value::Object(root)
}

#[cfg(test)]
mod tests;
