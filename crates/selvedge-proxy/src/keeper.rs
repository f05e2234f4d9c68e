//! What must happen without a request: health checks, DNS, and the passing of
//! time in breakers and ejections. One thread for the whole process.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use selvedge_patterns::health::{self, Check};
use selvedge_patterns::random::SplitMix64;
use selvedge_patterns::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy::Handle;
use crate::resolve;
use crate::snapshot::{Resolved, Service};

/// How often it looks whether something is due.
const TICK: Duration = Duration::from_millis(50);

/// Works until the data plane drains.
pub(crate) fn run(handle: &Handle) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => tokio::task::LocalSet::new().block_on(&runtime, keep(handle)),
        Err(error) => tracing::error!(%error, "health checks and DNS cannot start"),
    }
}

async fn keep(handle: &Handle) {
    let rng = Rc::new(RefCell::new(SplitMix64::new(handle.shared().seed ^ 0x6865_616C_7468)));
    let mut looked_up = Instant::ZERO;
    while !handle.draining() {
        let now = handle.now();
        let snapshot = handle.shared().snapshot.load_full();
        for service in &snapshot.services {
            if service.live.next_wakeup().is_some_and(|due| due <= now) {
                match &handle.shared().journal {
                    None => service.live.wake(now),
                    Some(journal) => journal.wake(now, &service.config.name, &service.live),
                }
            }
            check_endpoints(handle, service, now, &rng);
        }
        let every = snapshot.config.services.iter().map(|service| service.resolve_every).min();
        if every.is_some_and(|every| now.since(looked_up) >= every) {
            looked_up = now;
            follow_names(handle, resolve::names(&snapshot.config));
        }
        tokio::time::sleep(TICK).await;
    }
}

fn follow_names(handle: &Handle, names: HashSet<String>) {
    if names.is_empty() {
        return;
    }
    let handle = handle.clone();
    tokio::task::spawn_local(async move {
        let mut fresh = Resolved::new();
        for name in names {
            // A name that does not resolve now keeps the addresses it had.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let mut ips: Vec<_> = found.into_iter().flatten().map(|address| address.ip()).collect();
            ips.sort_unstable();
            ips.dedup();
            if !ips.is_empty() {
                fresh.insert(name, ips);
            }
        }
        handle.resolved(&fresh);
    });
}

fn check_endpoints(
    handle: &Handle,
    service: &Arc<Service>,
    now: Instant,
    rng: &Rc<RefCell<SplitMix64>>,
) {
    let live = &service.live;
    let Some(config) = &live.policy().health else { return };
    for index in 0..live.endpoints().len() {
        let check = {
            let mut rng = rng.borrow_mut();
            match &handle.shared().journal {
                None => live.check_due(now, index, &mut *rng),
                Some(journal) => {
                    journal.check_due(now, (&service.config.name, live), index, &mut *rng)
                }
            }
        };
        let Some(check) = check else { continue };
        let Ok(address) = live.endpoints()[index].address().parse() else { continue };
        let (handle, service, rng, config) =
            (handle.clone(), service.clone(), rng.clone(), config.clone());
        tokio::task::spawn_local(async move {
            let passed = probe(address, &config, &check).await;
            let (now, live, mut rng) = (handle.now(), &service.live, rng.borrow_mut());
            match &handle.shared().journal {
                None => live.check_settle(now, index, check, passed, &mut *rng),
                Some(journal) => {
                    let service = (&*service.config.name, &**live);
                    journal.check_settle(now, service, index, check, passed, &mut *rng);
                }
            }
        });
    }
}

async fn probe(address: SocketAddr, config: &health::Config, _check: &Check) -> bool {
    let passed = tokio::time::timeout(config.timeout, async {
        match &config.kind {
            health::Kind::Http { path, host, expect } => {
                let host = host.clone().unwrap_or_else(|| address.to_string());
                status_of(address, path, &host).await.is_some_and(|status| expect.contains(&status))
            }
            _ => TcpStream::connect(address).await.is_ok(),
        }
    });
    passed.await.unwrap_or(false)
}

/// The status of a `GET`, read no further than its line.
async fn status_of(address: SocketAddr, path: &str, host: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: selvedge-health\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.ok()?;
    let line = std::str::from_utf8(&line).ok()?;
    line.strip_prefix("HTTP/1.")?.get(2..)?.parse().ok()
}
