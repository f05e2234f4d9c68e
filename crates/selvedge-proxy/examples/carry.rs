//! The data plane alone, for measuring: `carry PORT UP1 UP2 [h2] [featured]`.
//!
//! One worker before two endpoints of one service; `featured` turns on every
//! pattern that the peers' benchmark configurations turn on.

use std::num::NonZeroUsize;
use std::time::Duration;

use selvedge_patterns::balance::{self, Algorithm};
use selvedge_patterns::policy::Policy;
use selvedge_patterns::{budget, bulkhead, health, limit, retry};
use selvedge_proxy::config::{Config, Endpoint, Limit, Listener, Route, Service, Upstream};
use selvedge_proxy::{Hooks, Proxy};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = |at: usize| arguments[at].parse::<u16>().expect("PORT UP1 UP2");
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let mut service = Service {
        name: "up".into(),
        endpoints: vec![Endpoint::new("127.0.0.1", port(1)), Endpoint::new("127.0.0.1", port(2))],
        ..Service::default()
    };
    let mut route = Route { name: "all".into(), to: "up".into(), ..Route::default() };
    if has("h2") {
        service.protocol = Upstream::Http2;
    }
    if has("featured") {
        service.policy = Policy {
            retry: Some(retry::Config::default()),
            budget: Some(budget::Config::default()),
            bulkhead: Some(bulkhead::Config { max_in_flight: 1024, ..bulkhead::Config::default() }),
            health: Some(health::Config {
                kind: health::Kind::Http { path: "/healthz".into(), host: None, expect: 200..=299 },
                every: Duration::from_secs(2),
                ..health::Config::default()
            }),
            balance: balance::Config {
                algorithm: Algorithm::RoundRobin,
                ..balance::Config::default()
            },
            ..Policy::careful()
        };
        let rate = limit::Rate { count: 1_000_000_000, per: Duration::from_secs(1) };
        let limit = limit::Config { rate, burst: 1_000_000_000, ..limit::Config::default() };
        route.limit = Some(Limit { limit, ..Limit::default() });
    }
    let config = Config {
        listeners: vec![Listener {
            name: "edge".into(),
            bind: ([127, 0, 0, 1], port(0)).into(),
            ..Listener::default()
        }],
        services: vec![service],
        routes: vec![route],
        workers: NonZeroUsize::new(1),
        ..Config::default()
    };
    let _proxy = Proxy::start(config, Hooks::default()).expect("the data plane starts");
    loop {
        std::thread::park();
    }
}
