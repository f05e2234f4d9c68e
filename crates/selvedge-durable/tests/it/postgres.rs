//! The PostgreSQL store: the conformance suite over it, and what is its own.

mod faults;
mod server;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use selvedge_durable::{Config, ManualClock, Postgres};

use crate::conformance::{TestEngine, World, start, suite};
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
