//! The conformance suite, through the app API: it loses nothing of the semantics.

use std::{net::TcpListener, sync::Arc};

use selvedge_api::app;
use selvedge_client::{Client, Config};
use selvedge_durable::{
    Answer, Engine, Error, ManualClock, Operation, Sqlite, Subject, Watch, schedule::ListSchedules,
};
use tempfile::TempDir;

use crate::conformance::{TestEngine, World, start, suite};

suite!(crate::over_http::world);

/// A client, and the store behind the server that it talks to.
#[derive(Clone)]
pub(crate) struct Far {
    pub(crate) client: Client,
    pub(crate) store: Sqlite,
}

impl Engine for Far {
    fn transact(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send + 'static + use<> {
        self.client.transact(operations)
    }

    /// Of the store: who watches through a client is told each 50 ms to look, as
    /// the trait has it, and the cases allow for no time at all.
    fn watch(&self, subject: Subject) -> Watch {
        self.store.watch(subject)
    }
}

impl TestEngine for Far {
    async fn wake(&self) {
        // Lines are taken in their order: what was asked before has reached the store.
        self.client.execute(ListSchedules).await.unwrap();
        self.store.wake().await.unwrap();
    }
}

/// Ends with the world.
pub(crate) struct Keep {
    server: tokio::task::JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for Keep {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) fn world() -> (World<Far>, Keep) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(start()));
    let config = selvedge_durable::Config {
        clock: clock.clone(),
        ..selvedge_durable::Config::new(folder.path().join("store.db"))
    };
    let store = Sqlite::open(config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let token = Some("secret".to_owned());
    let config = app::Config { token: token.clone(), ..app::Config::default() };
    let server = app::Server::new(config, store.clone()).run(listener, std::future::pending());
    let server = tokio::spawn(server);
    let client = Client::new(Config { url, token, ..Config::default() }).unwrap();
    (World { engine: Far { client, store }, clock }, Keep { server, _folder: folder })
}
