//! Turns the names of endpoints into addresses, and follows their changes.

use std::collections::HashSet;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::snapshot::Resolved;

/// How long a start or a reload waits for names. What is not known by then is
/// looked up again in the background.
const START_WITHIN: Duration = Duration::from_secs(2);

/// The names that need a look-up.
pub(crate) fn names(config: &Config) -> HashSet<String> {
    let endpoints = config.services.iter().flat_map(|service| &service.endpoints);
    let names = endpoints.map(|endpoint| &endpoint.host);
    names.filter(|host| host.parse::<IpAddr>().is_err()).cloned().collect()
}

/// Looks up all names at once and waits for a bounded time.
pub(crate) fn at_start(config: &Config) -> Resolved {
    let names = names(config);
    if names.is_empty() {
        return Resolved::new();
    }
    let (found, results) = mpsc::channel();
    let mut waiting = 0;
    for name in names {
        let found = found.clone();
        let work = move || {
            let _ = found.send((name.clone(), look_up(&name)));
        };
        waiting +=
            usize::from(std::thread::Builder::new().name("resolve".into()).spawn(work).is_ok());
    }
    let until = Instant::now() + START_WITHIN;
    let mut resolved = Resolved::new();
    for _ in 0..waiting {
        let left = until.saturating_duration_since(Instant::now());
        match results.recv_timeout(left) {
            Ok((name, Some(addresses))) => drop(resolved.insert(name, addresses)),
            Ok((name, None)) => tracing::warn!(%name, "an endpoint's name does not resolve"),
            Err(_) => break,
        }
    }
    resolved
}

/// The addresses of `name`, sorted so that an unchanged answer compares equal.
pub(crate) fn look_up(name: &str) -> Option<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = (name, 0).to_socket_addrs().ok()?.map(|a| a.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    (!addresses.is_empty()).then_some(addresses)
}
