//! Everything that is counted, and how it is written for Prometheus.
//!
//! Each worker counts in shards of its own, which nobody else writes: an
//! increment is a load and a store. A scrape adds the shards up. Gauges are
//! read from the live state at the scrape. Label values come from the
//! configuration, never from requests, so the number of series is bounded.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use selvedge_patterns::balance::Standing;
use selvedge_patterns::breaker;
use selvedge_patterns::outcome::{Failure, Outcome};
use selvedge_patterns::service::Change;
use selvedge_patterns::time::{Duration, Instant};

use crate::respond::Kind;
use crate::snapshot::Snapshot;

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub(crate) fn sub(&self, less: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(less), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the latency buckets, in microseconds.
const BOUNDS_US: [u64; 15] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Latencies.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Count; BOUNDS_US.len() + 1],
    sum_us: Count,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let us = took.as_micros() as u64;
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }
}

/// Requests by route, and calls by service: rate, errors, duration.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Calls {
    /// By the first digit of the status; 0 for callers that went away.
    pub(crate) classes: [Count; 6],
    pub(crate) in_flight: Count,
    pub(crate) duration: Histogram,
    pub(crate) bytes: Count,
    /// By [`Kind::ALL`].
    pub(crate) local: [Count; Kind::ALL.len()],
    /// By [`outcome_index`].
    pub(crate) attempts: [Count; OUTCOMES.len()],
    pub(crate) attempt_duration: Histogram,
    pub(crate) retries: Count,
    pub(crate) hedges: Count,
    pub(crate) fallback_stale: Count,
    pub(crate) fallback_static: Count,
}

pub(crate) const OUTCOMES: [&str; 12] = [
    "success",
    "connect",
    "refused",
    "reset",
    "timeout",
    "gateway",
    "server",
    "malformed",
    "overload",
    "client_fault",
    "cancelled",
    "local",
];

pub(crate) const fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Success => 0,
        Outcome::Failure(failure) => match failure {
            Failure::Connect => 1,
            Failure::Refused => 2,
            Failure::Reset => 3,
            Failure::Timeout => 4,
            Failure::Gateway => 5,
            Failure::Server => 6,
            Failure::Malformed => 7,
        },
        Outcome::Overload { .. } => 8,
        Outcome::ClientFault => 9,
        Outcome::Cancelled => 10,
        Outcome::Local => 11,
    }
}

/// What a worker counts about itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerCounts {
    pub(crate) connections: Count,
    pub(crate) accepted: Count,
    pub(crate) killed: Count,
    pub(crate) records_dropped: Count,
    /// Requests refused before they had a service, by [`Kind::ALL`].
    pub(crate) refused: [Count; Kind::ALL.len()],
}

/// A metric family of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name, unit included.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident $name:literal $kind:literal $help:literal;)*) => {
        $(const $constant: Family = Family { name: $name, kind: $kind, help: $help };)*
        /// Every metric of the data plane.
        pub const CATALOGUE: &[Family] = &[$($constant),*];
    };
}

families! {
    REQUESTS "selvedge_requests_total" "counter" "Requests that ended, by route and class of status; class 0 went away before.";
    REQUEST_SECONDS "selvedge_request_duration_seconds" "histogram" "From a request's head to the end of its response, by route.";
    REQUESTS_NOW "selvedge_requests_in_flight" "gauge" "Requests being served, by route.";
    RESPONSE_BYTES "selvedge_response_bytes_total" "counter" "Bytes of response bodies, by route.";
    LOCAL "selvedge_local_answers_total" "counter" "Answers that the proxy gave by itself, by service and reason.";
    REFUSED "selvedge_refused_requests_total" "counter" "Requests refused before they had a service, by reason; they count for no route.";
    CALLS "selvedge_service_calls_total" "counter" "Calls that ended, by service and class of status.";
    CALL_SECONDS "selvedge_service_call_duration_seconds" "histogram" "From a request's head to the end of its response, by service.";
    ATTEMPTS "selvedge_attempts_total" "counter" "Attempts that ended, by service and outcome.";
    ATTEMPT_SECONDS "selvedge_attempt_duration_seconds" "histogram" "From an attempt's start to its response head or failure, by service.";
    RETRIES "selvedge_retries_total" "counter" "Attempts made because one before failed.";
    HEDGES "selvedge_hedges_total" "counter" "Attempts made because one before was slow.";
    FALLBACKS "selvedge_fallbacks_total" "counter" "Answers given in a failed service's place, by kind.";
    BREAKER "selvedge_breaker_state" "gauge" "1 for the state that the endpoint's breaker is in.";
    BREAKER_TURNS "selvedge_breaker_transitions_total" "counter" "Changes of breakers, by the state they changed to.";
    BREAKER_REJECTED "selvedge_breaker_rejected_total" "counter" "Attempts that the endpoint's breaker rejected.";
    EJECTIONS "selvedge_ejections_total" "counter" "Endpoints taken out because of their answers.";
    HEALTH_TURNS "selvedge_health_transitions_total" "counter" "Changes of health by active checks.";
    ENDPOINT_USABLE "selvedge_endpoint_usable" "gauge" "1 if new attempts may go to the endpoint.";
    ENDPOINT_PENDING "selvedge_endpoint_attempts_in_flight" "gauge" "Attempts out to the endpoint.";
    POOL_OPEN "selvedge_pool_connections" "gauge" "Connections open to the endpoint.";
    POOL_IDLE "selvedge_pool_connections_idle" "gauge" "Of these, idle HTTP/1.1 ones.";
    POOL_MAX "selvedge_pool_connections_max" "gauge" "The bound of selvedge_pool_connections.";
    BULKHEAD_NOW "selvedge_bulkhead_in_flight" "gauge" "Attempts in the bulkhead.";
    BULKHEAD_MAX "selvedge_bulkhead_max_in_flight" "gauge" "The bound of selvedge_bulkhead_in_flight.";
    BULKHEAD_QUEUED "selvedge_bulkhead_queued" "gauge" "Calls waiting for the bulkhead.";
    BULKHEAD_REJECTED "selvedge_bulkhead_rejected_total" "counter" "Calls that the bulkhead turned away.";
    BUDGET "selvedge_budget_balance" "gauge" "Extra attempts that the budget would allow now.";
    WORKER_CONNECTIONS "selvedge_worker_connections" "gauge" "Client connections open, by worker.";
    WORKER_ACCEPTED "selvedge_worker_connections_accepted_total" "counter" "Client connections accepted, by worker.";
    WORKER_KILLED "selvedge_worker_connections_killed_total" "counter" "Client connections closed for being slow or idle, by worker.";
    RECORDS_DROPPED "selvedge_access_records_dropped_total" "counter" "Access records for which there was no room.";
    GENERATION "selvedge_config_generation" "gauge" "Number of the configuration in force.";
}

type Shards<T> = Mutex<BTreeMap<Arc<str>, Vec<Arc<T>>>>;

/// Where all shards are known.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    routes: Shards<Calls>,
    services: Shards<Calls>,
    workers: Mutex<Vec<Arc<WorkerCounts>>>,
    /// By service: breaker turns to open, half-open and closed; ejections; health.
    events: Mutex<BTreeMap<(Arc<str>, &'static str), u64>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shard<T: Default>(shards: &Shards<T>, name: &str, worker: usize) -> Arc<T> {
    let mut shards = locked(shards);
    let of_name = shards.entry(name.into()).or_default();
    while of_name.len() <= worker {
        of_name.push(Arc::default());
    }
    of_name[worker].clone()
}

impl Registry {
    /// The shard of `worker` for the route called `name`.
    pub(crate) fn route(&self, name: &str, worker: usize) -> Arc<Calls> {
        shard(&self.routes, name, worker)
    }

    /// The shard of `worker` for the service called `name`.
    pub(crate) fn service(&self, name: &str, worker: usize) -> Arc<Calls> {
        shard(&self.services, name, worker)
    }

    /// What a new worker counts in.
    pub(crate) fn worker(&self) -> Arc<WorkerCounts> {
        let counts = Arc::<WorkerCounts>::default();
        locked(&self.workers).push(counts.clone());
        counts
    }

    /// Counts a change of state.
    pub(crate) fn event(&self, service: &str, change: &Change) {
        let kind = match change {
            Change::Breaker(transition) => transition.to.word(),
            Change::Outlier(selvedge_patterns::outlier::Change::Ejected { .. }) => "ejected",
            Change::Health(_) => "health",
            _ => return,
        };
        *locked(&self.events).entry((service.into(), kind)).or_default() += 1;
    }

    /// All of it as Prometheus text (version 0.0.4).
    pub(crate) fn render(&self, snapshot: &Snapshot, now: Instant, out: &mut String) {
        self.render_routes(out);
        self.render_services(out);
        self.render_events(out);
        render_state(snapshot, now, out);
        let workers = locked(&self.workers);
        let each = |out: &mut String, family: Family, value: fn(&WorkerCounts) -> &Count| {
            head(out, family);
            for (at, worker) in workers.iter().enumerate() {
                let _ = writeln!(out, "{}{{worker=\"{at}\"}} {}", family.name, value(worker).get());
            }
        };
        each(out, WORKER_CONNECTIONS, |w| &w.connections);
        each(out, WORKER_ACCEPTED, |w| &w.accepted);
        each(out, WORKER_KILLED, |w| &w.killed);
        head(out, REFUSED);
        for (at, kind) in Kind::ALL.iter().enumerate() {
            let sum: u64 = workers.iter().map(|worker| worker.refused[at].get()).sum();
            if sum > 0 {
                let _ = writeln!(out, "{}{{reason=\"{}\"}} {sum}", REFUSED.name, kind.reason());
            }
        }
        head(out, RECORDS_DROPPED);
        let dropped: u64 = workers.iter().map(|worker| worker.records_dropped.get()).sum();
        let _ = writeln!(out, "{} {dropped}", RECORDS_DROPPED.name);
        head(out, GENERATION);
        let _ = writeln!(out, "{} {}", GENERATION.name, snapshot.generation);
    }

    fn render_routes(&self, out: &mut String) {
        let routes = locked(&self.routes);
        classes(out, REQUESTS, "route", &routes);
        histogram(out, REQUEST_SECONDS, "route", &routes, |calls| &calls.duration);
        plain(out, REQUESTS_NOW, "route", &routes, |calls| &calls.in_flight);
        plain(out, RESPONSE_BYTES, "route", &routes, |calls| &calls.bytes);
    }

    fn render_services(&self, out: &mut String) {
        let services = locked(&self.services);
        head(out, LOCAL);
        for (name, shards) in services.iter() {
            for (at, kind) in Kind::ALL.iter().enumerate() {
                let sum: u64 = shards.iter().map(|shard| shard.local[at].get()).sum();
                if sum > 0 {
                    let reason = kind.reason();
                    let _ = writeln!(
                        out,
                        "{}{{service=\"{name}\",reason=\"{reason}\"}} {sum}",
                        LOCAL.name
                    );
                }
            }
        }
        classes(out, CALLS, "service", &services);
        histogram(out, CALL_SECONDS, "service", &services, |calls| &calls.duration);
        head(out, ATTEMPTS);
        for (name, shards) in services.iter() {
            for (at, outcome) in OUTCOMES.iter().enumerate() {
                let sum: u64 = shards.iter().map(|shard| shard.attempts[at].get()).sum();
                if sum > 0 {
                    let _ = writeln!(
                        out,
                        "{}{{service=\"{name}\",outcome=\"{outcome}\"}} {sum}",
                        ATTEMPTS.name
                    );
                }
            }
        }
        histogram(out, ATTEMPT_SECONDS, "service", &services, |calls| &calls.attempt_duration);
        plain(out, RETRIES, "service", &services, |calls| &calls.retries);
        plain(out, HEDGES, "service", &services, |calls| &calls.hedges);
        head(out, FALLBACKS);
        for (name, shards) in services.iter() {
            let sum =
                |of: fn(&Calls) -> &Count| shards.iter().map(|shard| of(shard).get()).sum::<u64>();
            let (stale, fixed) = (sum(|c| &c.fallback_stale), sum(|c| &c.fallback_static));
            let _ =
                writeln!(out, "{}{{service=\"{name}\",kind=\"stale\"}} {stale}", FALLBACKS.name);
            let _ =
                writeln!(out, "{}{{service=\"{name}\",kind=\"static\"}} {fixed}", FALLBACKS.name);
        }
    }

    fn render_events(&self, out: &mut String) {
        let events = locked(&self.events);
        let states = [breaker::State::Closed, breaker::State::Open, breaker::State::HalfOpen];
        let states = states.map(breaker::State::word);
        head(out, BREAKER_TURNS);
        for ((service, kind), count) in events.iter().filter(|((_, kind), _)| states.contains(kind))
        {
            let _ = writeln!(
                out,
                "{}{{service=\"{service}\",to=\"{kind}\"}} {count}",
                BREAKER_TURNS.name
            );
        }
        for (family, wanted) in [(EJECTIONS, "ejected"), (HEALTH_TURNS, "health")] {
            head(out, family);
            for ((service, _), count) in events.iter().filter(|((_, kind), _)| *kind == wanted) {
                let _ = writeln!(out, "{}{{service=\"{service}\"}} {count}", family.name);
            }
        }
    }
}

fn render_state(snapshot: &Snapshot, now: Instant, out: &mut String) {
    let views: Vec<_> = snapshot
        .services
        .iter()
        .map(|service| (service.config.name.as_str(), service.live.view(now), service))
        .collect();
    let endpoints = || {
        views.iter().flat_map(|(name, view, service)| {
            view.endpoints.iter().zip(&service.endpoints).map(move |(view, raw)| (*name, view, raw))
        })
    };
    head(out, BREAKER);
    for (name, view, _) in endpoints() {
        if let Some(breaker) = &view.breaker {
            let (address, state) = (&view.address, breaker.state.word());
            let _ = writeln!(
                out,
                "{}{{service=\"{name}\",endpoint=\"{address}\",state=\"{state}\"}} 1",
                BREAKER.name
            );
        }
    }
    head(out, BREAKER_REJECTED);
    for (name, view, _) in endpoints() {
        if let Some(breaker) = &view.breaker {
            let (address, rejected) = (&view.address, breaker.rejected);
            let _ = writeln!(
                out,
                "{}{{service=\"{name}\",endpoint=\"{address}\"}} {rejected}",
                BREAKER_REJECTED.name
            );
        }
    }
    let mut gauge = |family: Family,
                     value: &dyn Fn(
        &selvedge_patterns::service::EndpointView,
        &crate::pool::Endpoint,
    ) -> u64| {
        head(out, family);
        for (name, view, raw) in endpoints() {
            let address = &view.address;
            let _ = writeln!(
                out,
                "{}{{service=\"{name}\",endpoint=\"{address}\"}} {}",
                family.name,
                value(view, raw)
            );
        }
    };
    gauge(ENDPOINT_USABLE, &|view, _| u64::from(view.standing == Standing::Usable));
    gauge(ENDPOINT_PENDING, &|view, _| u64::from(view.pending));
    gauge(POOL_OPEN, &|_, raw| raw.open.load(Relaxed) as u64);
    gauge(POOL_IDLE, &|_, raw| raw.idle.load(Relaxed) as u64);
    head(out, POOL_MAX);
    for (name, _, service) in &views {
        let _ = writeln!(
            out,
            "{}{{service=\"{name}\"}} {}",
            POOL_MAX.name, service.config.pool.connections_max
        );
    }
    let bulkheads =
        || views.iter().filter_map(|(name, view, _)| Some((*name, view.bulkhead.as_ref()?)));
    let mut bulkhead =
        |family: Family, value: &dyn Fn(&selvedge_patterns::bulkhead::View) -> u64| {
            head(out, family);
            for (name, view) in bulkheads() {
                let _ = writeln!(out, "{}{{service=\"{name}\"}} {}", family.name, value(view));
            }
        };
    bulkhead(BULKHEAD_NOW, &|view| view.in_flight.into());
    bulkhead(BULKHEAD_MAX, &|view| view.max_in_flight.into());
    bulkhead(BULKHEAD_QUEUED, &|view| view.queued.into());
    bulkhead(BULKHEAD_REJECTED, &|view| view.rejected);
    head(out, BUDGET);
    for (name, view, _) in &views {
        if let Some(budget) = &view.budget {
            let balance = budget.balance_millionths as f64 / 1e6;
            let _ = writeln!(out, "{}{{service=\"{name}\"}} {balance}", BUDGET.name);
        }
    }
}

fn head(out: &mut String, family: Family) {
    let Family { name, kind, help } = family;
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

type Names<'a> = &'a BTreeMap<Arc<str>, Vec<Arc<Calls>>>;

fn plain(
    out: &mut String,
    family: Family,
    label: &str,
    names: Names<'_>,
    of: fn(&Calls) -> &Count,
) {
    head(out, family);
    for (name, shards) in names {
        let sum = shards.iter().fold(0u64, |sum, shard| sum.wrapping_add(of(shard).get()));
        let _ = writeln!(out, "{}{{{label}=\"{name}\"}} {sum}", family.name);
    }
}

fn classes(out: &mut String, family: Family, label: &str, names: Names<'_>) {
    head(out, family);
    for (name, shards) in names {
        for (class, word) in ["0", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().enumerate() {
            let sum: u64 = shards.iter().map(|shard| shard.classes[class].get()).sum();
            if sum > 0 || class == 2 {
                let _ = writeln!(
                    out,
                    "{}{{{label}=\"{name}\",code_class=\"{word}\"}} {sum}",
                    family.name
                );
            }
        }
    }
}

fn histogram(
    out: &mut String,
    family: Family,
    label: &str,
    names: Names<'_>,
    of: fn(&Calls) -> &Histogram,
) {
    head(out, family);
    let name = family.name;
    for (value, shards) in names {
        let mut total = 0;
        for at in 0..=BOUNDS_US.len() {
            total += shards.iter().map(|shard| of(shard).buckets[at].get()).sum::<u64>();
            let bound = BOUNDS_US
                .get(at)
                .map_or_else(|| "+Inf".to_owned(), |us| (*us as f64 / 1e6).to_string());
            let _ = writeln!(out, "{name}_bucket{{{label}=\"{value}\",le=\"{bound}\"}} {total}");
        }
        let sum: u64 = shards.iter().map(|shard| of(shard).sum_us.get()).sum();
        let _ = writeln!(out, "{name}_sum{{{label}=\"{value}\"}} {}", sum as f64 / 1e6);
        let _ = writeln!(out, "{name}_count{{{label}=\"{value}\"}} {total}");
    }
}

/// What has been counted about a service so far, by all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceCounts {
    /// Calls that ended.
    pub calls: u64,
    /// Of these, answered below 500.
    pub good: u64,
    /// Of these, answered by the proxy itself.
    pub rejected: u64,
    /// Attempts that ended.
    pub attempts: u64,
    /// Attempts made because one before failed.
    pub retries: u64,
    /// Attempts made because one before was slow.
    pub hedges: u64,
    /// Answers given in the failed service's place.
    pub fallbacks: u64,
    /// Time of all ended calls.
    pub time: Duration,
    /// Upper bound below which half of the calls stayed.
    pub p50: Option<Duration>,
    /// Upper bound below which 99 % of the calls stayed.
    pub p99: Option<Duration>,
}

impl Registry {
    /// What has been counted about the service called `name`.
    pub(crate) fn counts(&self, name: &str) -> Option<ServiceCounts> {
        let services = locked(&self.services);
        let shards = services.get(name)?;
        let sum = |of: &dyn Fn(&Calls) -> u64| shards.iter().map(|shard| of(shard)).sum::<u64>();
        let calls = sum(&|c| c.classes.iter().map(Count::get).sum());
        let quantile = |share: f64| {
            let rank = (calls as f64 * share).ceil() as u64;
            let mut seen = 0;
            let bound = BOUNDS_US.iter().enumerate().find(|(at, _)| {
                seen += sum(&|c| c.duration.buckets[*at].get());
                seen >= rank
            });
            (calls > 0).then(|| bound.map(|(_, us)| Duration::from_micros(*us))).flatten()
        };
        Some(ServiceCounts {
            calls,
            good: sum(&|c| c.classes[1..5].iter().map(Count::get).sum()),
            rejected: sum(&|c| c.local.iter().map(Count::get).sum()),
            attempts: sum(&|c| c.attempts.iter().map(Count::get).sum()),
            retries: sum(&|c| c.retries.get()),
            hedges: sum(&|c| c.hedges.get()),
            fallbacks: sum(&|c| c.fallback_stale.get() + c.fallback_static.get()),
            time: Duration::from_micros(sum(&|c| c.duration.sum_us.get())),
            p50: quantile(0.5),
            p99: quantile(0.99),
        })
    }
}
