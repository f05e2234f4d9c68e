//! What all workers work from: one configuration, compiled, with the shared
//! state that belongs to it.
//!
//! A snapshot never changes; a reload or a change in DNS makes the next one,
//! which takes over the state of what stayed. Requests keep the snapshot they
//! began with.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::HeaderValue;
use selvedge_patterns::limit::keyed;

use crate::config::{self, Config};
use crate::pool::Endpoint;
use crate::route::Table;

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
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) next: AtomicUsize,
}

/// A route with its live state.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) service: usize,
    pub(crate) limit: Option<keyed::Keyed>,
}

impl Snapshot {
    /// Compiles `config`, which must have been validated, keeping the state of
    /// what `before` has in common with it.
    pub(crate) fn build(
        generation: u64,
        config: Arc<Config>,
        resolved: &Resolved,
        before: Option<&Self>,
    ) -> Result<Self, config::Problem> {
        let services: Vec<_> = config
            .services
            .iter()
            .map(|service| Service::build(service, resolved, before))
            .collect();
        let by_name: HashMap<String, usize> =
            config.services.iter().enumerate().map(|(at, s)| (s.name.clone(), at)).collect();
        let mut routes = Vec::with_capacity(config.routes.len());
        for (at, route) in config.routes.iter().enumerate() {
            routes.push(Route::build(at, route, &config, &by_name, before)?);
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
        resolved: &Resolved,
        before: Option<&Snapshot>,
    ) -> Arc<Self> {
        let before = before.and_then(|snapshot| snapshot.service(&config.name));
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::new();
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
                endpoints.push(
                    survivor
                        .cloned()
                        .unwrap_or_else(|| Arc::new(Endpoint::new(address, authority))),
                );
            }
        }
        Arc::new(Self { config: config.clone(), endpoints, next: AtomicUsize::new(0) })
    }
}

impl Route {
    fn build(
        at: usize,
        route: &config::Route,
        config: &Config,
        by_name: &HashMap<String, usize>,
        before: Option<&Snapshot>,
    ) -> Result<Arc<Self>, config::Problem> {
        let service = by_name.get(&route.to).copied().ok_or_else(|| {
            config::Problem::new(format!("routes.{}.to", route.name), "names no service")
        })?;
        let _ = (at, config, before);
        let limit = route.limit.as_ref().map(|limit| {
            let keyed =
                keyed::Config { limit: limit.limit, keys_max: limit.keys_max, overflow: None };
            keyed::Keyed::new(keyed, 0)
        });
        let limit = limit.transpose().map_err(|error| {
            config::Problem::new(
                format!("routes.{}.limit.{}", route.name, error.key),
                error.problem,
            )
        })?;
        Ok(Arc::new(Self { service, limit }))
    }
}
