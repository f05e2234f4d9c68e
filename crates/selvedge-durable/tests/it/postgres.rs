//! The PostgreSQL store: the conformance suite over it, and what is its own.

mod faults;
mod fitness;
mod inbox;
mod pgbouncer;
mod server;
mod tls;
mod upkeep;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use selvedge_durable::{
    Config, ManualClock, Postgres,
    group::{Config as GroupConfig, Verdict},
    topic::Settings,
};

use crate::conformance::{TestEngine, World, exclusive::by, message, settle, start, suite, texts};
use server::Server;

suite!(crate::postgres::world);

impl TestEngine for Postgres {
    async fn wake(&self) {
        selvedge_durable::Store::wake(self).await.unwrap();
    }
}

/// A schema that nobody else has.
fn schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("t{}_{number}", std::process::id())
}

/// A store in a schema of its own.
pub(crate) fn world() -> (World<Postgres>, Server) {
    let server = Server::shared();
    let clock = Arc::new(ManualClock::new(start()));
    let config =
        Config { clock: clock.clone(), schema: schema(), ..Config::postgres(server.url()) };
    let engine = Postgres::open(config).unwrap();
    (World { engine, clock }, server)
}

#[tokio::test]
async fn processes_on_one_database_share_a_rate() {
    let server = Server::shared();
    let clock = Arc::new(ManualClock::new(start()));
    let config =
        Config { clock: clock.clone(), schema: schema(), ..Config::postgres(server.url()) };
    let one = World { engine: Postgres::open(config.clone()).unwrap(), clock: clock.clone() };
    let two = World { engine: Postgres::open(config).unwrap(), clock };
    one.topic("t", Settings::default()).await;
    let rate = selvedge_patterns::limit::Config { burst: 5, ..Default::default() };
    one.group("t", "g", GroupConfig { rate: Some(rate), ..GroupConfig::default() }).await;
    for n in 0..20 {
        one.publish("t", message(&n.to_string())).await;
    }
    assert_eq!(one.receive("t", "g", 3).await.len(), 3);
    assert_eq!(two.receive("t", "g", 9).await.len(), 2);
    assert_eq!(one.receive("t", "g", 9).await.len(), 0);
    one.clock.advance(std::time::Duration::from_millis(20));
    assert_eq!(two.receive("t", "g", 1).await.len(), 1);
    assert_eq!(one.receive("t", "g", 9).await.len(), 1);
}

#[tokio::test]
async fn a_consumer_of_another_process_takes_over() {
    let server = Server::shared();
    let clock = Arc::new(ManualClock::new(start()));
    let config =
        Config { clock: clock.clone(), schema: schema(), ..Config::postgres(server.url()) };
    let one = World { engine: Postgres::open(config.clone()).unwrap(), clock: clock.clone() };
    let two = World { engine: Postgres::open(config).unwrap(), clock };
    one.topic("t", Settings::default()).await;
    let exclusive = Some(std::time::Duration::from_secs(60));
    one.group("t", "g", GroupConfig { exclusive, ..GroupConfig::default() }).await;
    one.publish("t", message("a")).await;
    let held = one.run(by("one", 1)).await;
    assert_eq!(two.run(by("two", 1)).await, []);
    one.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(texts(&two.run(by("two", 1)).await), ["a"]);
    assert_eq!(one.run(by("one", 1)).await, []);
    assert!(one.run(settle("t", "g", &held[0], Verdict::Ack)).await[0].is_err());
}
