//! What all workers work from: one configuration, compiled, with the shared
//! state that belongs to it.
//!
//! A snapshot never changes; a reload or a change in DNS makes the next one,
//! which takes over the state of what stayed. Requests keep the snapshot they
//! began with.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::PoisonError;
use std::task::Waker;

use http::HeaderValue;
use selvedge_patterns::bulkhead::Ticket;
use selvedge_patterns::limit::keyed;
use selvedge_patterns::service::{Service as Live, Target};
use selvedge_patterns::time::Instant;
use selvedge_patterns::{fallback, limit};

use crate::config::{self, Config};
use crate::journey::Waiting;
use crate::pool::Endpoint;
use crate::route::Table;
use crate::stale::Store;

/// Addresses of the names that endpoints have.
pub(crate) type Resolved = HashMap<String, Vec<IpAddr>>;

/// One generation of the configuration, compiled.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) config: Arc<Config>,
    pub(crate) table: Table,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) by_name: HashMap<String, usize>,
    /// Parallel to `config.routes`.
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) via: [HeaderValue; 2],
}

/// A service with its live state.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) config: config::Service,
    /// Decides about calls. Its endpoints are in the order of `endpoints`.
    pub(crate) live: Arc<Live>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) stale: Option<Arc<Store>>,
    waiting: Waiting,
}

/// A route with its live state.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) service: usize,
    pub(crate) limit: Option<Arc<Limit>>,
    /// What its own fallback, or its service's, allows.
    pub(crate) fallback: Option<fallback::Config>,
}

/// A rate limit with its live state.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) config: limit::Config,
    keys_max: u32,
    pub(crate) keyed: keyed::Keyed,
    /// `RateLimit-Policy`, written once.
    pub(crate) policy: HeaderValue,
}

impl Snapshot {
    /// Compiles `config`, which must have been validated, keeping the state of
    /// what `before` has in common with it.
    pub(crate) fn build(
        generation: u64,
        config: Arc<Config>,
        resolved: &Resolved,
        before: Option<&Self>,
        now: Instant,
        seed: u64,
    ) -> Result<Self, config::Problem> {
        let build = |service| Service::build(service, &config, resolved, before, now, seed);
        let services: Vec<_> = config.services.iter().map(build).collect();
        let by_name: HashMap<String, usize> =
            config.services.iter().enumerate().map(|(at, s)| (s.name.clone(), at)).collect();
        let mut routes = Vec::with_capacity(config.routes.len());
        for route in &config.routes {
            routes.push(Route::build(route, &config, &by_name, before, seed)?);
        }
        let name = config.name.as_ref().and_then(|name| name.to_str().ok()).unwrap_or("selvedge");
        let via = |version: &str| {
            HeaderValue::from_str(&format!("{version} {name}"))
                .unwrap_or_else(|_| HeaderValue::from_static("1.1 selvedge"))
        };
        Ok(Self {
            generation,
            table: Table::new(&config.routes, &config.listeners),
            services,
            by_name,
            routes,
            via: [via("1.1"), via("2")],
            config,
        })
    }

    fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.by_name.get(name).map(|at| &self.services[*at])
    }
}

impl Service {
    fn build(
        config: &config::Service,
        whole: &Config,
        resolved: &Resolved,
        before: Option<&Snapshot>,
        now: Instant,
        seed: u64,
    ) -> Arc<Self> {
        let before = before.and_then(|snapshot| snapshot.service(&config.name));
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::new();
        let mut targets = Vec::new();
        for endpoint in &config.endpoints {
            let literal = endpoint.host.parse::<IpAddr>().ok().map(|ip| vec![ip]);
            let ips = literal.or_else(|| resolved.get(&endpoint.host).cloned()).unwrap_or_default();
            for ip in ips {
                let address = SocketAddr::new(ip, endpoint.port);
                if endpoints.iter().any(|known| known.address == address) {
                    continue;
                }
                let survivor = before.and_then(|service| {
                    service.endpoints.iter().find(|known| known.address == address)
                });
                let authority = HeaderValue::from_str(&endpoint.to_string())
                    .unwrap_or_else(|_| HeaderValue::from_static("localhost"));
                targets
                    .push(Target { address: address.to_string().into(), weight: endpoint.weight });
                endpoints.push(
                    survivor
                        .cloned()
                        .unwrap_or_else(|| Arc::new(Endpoint::new(address, authority))),
                );
            }
        }
        let same = before.filter(|before| before.is_live_for(&config.policy, &targets));
        let live = match (same, before) {
            (Some(same), _) => same.live.clone(),
            (None, Some(before)) => {
                Arc::new(before.live.rebuilt(now, config.policy.clone(), targets))
            }
            (None, None) => Arc::new(Live::new(now, config.policy.clone(), targets, seed)),
        };
        let stale = before.and_then(|before| before.stale.clone());
        let room = stale_room(config, whole);
        Arc::new(Self {
            config: config.clone(),
            live,
            endpoints,
            stale: room.map(|room| stale.unwrap_or_else(|| Arc::new(Store::new(room)))),
            waiting: before.map(|before| before.waiting.clone()).unwrap_or_default(),
        })
    }

    fn is_live_for(&self, policy: &selvedge_patterns::policy::Policy, targets: &[Target]) -> bool {
        let ours = self.live.endpoints();
        *self.live.policy() == *policy
            && ours.len() == targets.len()
            && ours.iter().zip(targets).all(|(our, target)| {
                *our.address() == target.address && our.weight() == target.weight
            })
    }

    /// Has `waker` woken when the bulkhead grants `ticket`.
    pub(crate) fn wait_for(&self, ticket: Ticket, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.iter_mut().find(|(known, _)| *known == ticket) {
            Some((_, known)) => known.clone_from(waker),
            None => waiting.push((ticket, waker.clone())),
        }
    }

    /// Nobody waits for `ticket` any more.
    pub(crate) fn stop_waiting(&self, ticket: Ticket) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|(known, _)| *known != ticket);
    }

    /// Wakes those whom the bulkhead has let in.
    pub(crate) fn wake_granted(&self) {
        while let Some(ticket) = self.live.granted() {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = waiting.iter().position(|(known, _)| *known == ticket) {
                let (_, waker) = waiting.swap_remove(at);
                drop(waiting);
                waker.wake();
            }
        }
    }

    /// What the service's own fallback allows.
    pub(crate) fn fallback(&self) -> Option<fallback::Config> {
        allowed(self.config.fallback.as_ref()).or(self.config.policy.fallback)
    }
}

/// Bytes to keep of good answers, if any fallback to this service gives stale ones.
fn stale_room(config: &config::Service, whole: &Config) -> Option<usize> {
    const DEFAULT: usize = 16 << 20;
    let of_routes = whole.routes.iter().filter(|route| route.to == config.name);
    let fallbacks = of_routes.filter_map(|route| route.fallback.as_ref()).chain(&config.fallback);
    let rooms = fallbacks
        .filter(|fallback| fallback.stale_for.is_some())
        .map(|fallback| fallback.stale_bytes_max.unwrap_or(DEFAULT));
    let policy = config.policy.fallback.and_then(|fallback| fallback.stale_for).map(|_| DEFAULT);
    rooms.chain(policy).max()
}

fn allowed(fallback: Option<&config::Fallback>) -> Option<fallback::Config> {
    fallback.map(|fallback| fallback::Config {
        stale_for: fallback.stale_for,
        fixed: fallback.response.is_some(),
    })
}

impl Route {
    fn build(
        route: &config::Route,
        config: &Config,
        by_name: &HashMap<String, usize>,
        before: Option<&Snapshot>,
        seed: u64,
    ) -> Result<Arc<Self>, config::Problem> {
        let service = by_name.get(&route.to).copied().ok_or_else(|| {
            config::Problem::new(format!("routes.{}.to", route.name), "names no service")
        })?;
        let limit = match &route.limit {
            None => None,
            Some(limit) => {
                let known = before.and_then(|before| {
                    let at =
                        before.config.routes.iter().position(|known| known.name == route.name)?;
                    before.routes[at].limit.clone()
                });
                let same = |known: &Arc<Limit>| {
                    known.config == limit.limit && known.keys_max == limit.keys_max
                };
                Some(match known.filter(same) {
                    Some(known) => known,
                    None => Limit::build(route, limit, seed)?,
                })
            }
        };
        let of_service = || {
            let service = &config.services[service];
            allowed(service.fallback.as_ref()).or(service.policy.fallback)
        };
        let fallback = allowed(route.fallback.as_ref()).or_else(of_service);
        Ok(Arc::new(Self { service, limit, fallback }))
    }
}

impl Limit {
    fn build(
        route: &config::Route,
        limit: &config::Limit,
        seed: u64,
    ) -> Result<Arc<Self>, config::Problem> {
        let keyed = keyed::Config { limit: limit.limit, keys_max: limit.keys_max, overflow: None };
        let keyed = keyed::Keyed::new(keyed, seed).map_err(|error| {
            config::Problem::new(
                format!("routes.{}.limit.{}", route.name, error.key),
                error.problem,
            )
        })?;
        let rate = limit.limit.rate;
        // The window of a limit that refills steadily is the time a whole burst takes.
        let window = rate.per.as_secs_f64() * f64::from(limit.limit.burst) / f64::from(rate.count);
        let policy =
            format!("\"{}\";q={};w={}", route.name, limit.limit.burst, window.ceil() as u64);
        let policy =
            HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static(""));
        Ok(Arc::new(Self { config: limit.limit, keys_max: limit.keys_max, keyed, policy }))
    }
}
