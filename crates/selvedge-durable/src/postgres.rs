//! The store in a PostgreSQL database, which several processes may share.
//!
//! The semantics are those of the SQLite store, and the statements are the same.
//! One connection writes, [`Config::readers`] read; one listens for what other
//! processes say. Connections go to the server itself: a pooler between them
//! forgets settings and statements, and is refused. Programs may publish in their
//! own transactions, by a row in `selvedge.inbox`:
//!
//! ```sql
//! INSERT INTO selvedge.inbox (topic, key, payload, headers)
//! VALUES ('orders', '4711', 'created'::bytea, '{"source": "shop"}');
//! ```

mod address;
mod driver;
pub(crate) mod health;
mod inbox;
mod listen;
mod members;
mod schema;
mod session;
mod tls;
pub(crate) mod upkeep;
mod value;

use std::{future::Future, sync::Arc};

use tokio::{runtime::Runtime, sync::oneshot};
use tokio_postgres::error::SqlState;

use crate::{Answer, Config, Engine, Error, Operation, Store, Subject, Watch, store::Slot};
use address::Address;
use driver::PostgresDb;
use members::{Heard, Member};
use session::{Dialer, Session};

/// A store in a PostgreSQL database: a cheap handle. The store closes when the
/// last handle is dropped, which waits for the writer to end.
#[derive(Clone, Debug)]
pub struct Postgres(Store);

impl Postgres {
    /// Connects to the store, creating its tables if there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], [`Error::Insecure`] if the connection is not as safe
    /// as `sslmode` wants it, [`Error::Unfit`] if the database cannot keep what is
    /// acknowledged or does not let us, [`Error::Newer`], [`Error::Open`] and
    /// [`Error::Invalid`] for the configuration.
    pub fn open(config: Config) -> Result<Self, Error> {
        // Whoever opens may be on a runtime of its own, which must not wait for another.
        let opened = std::thread::scope(|scope| scope.spawn(|| Self::connect(config)).join());
        opened.unwrap_or(Err(Error::Closed))
    }

    fn connect(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let address = Address::parse(&config)?;
        let first = runtime()?;
        first.block_on(async {
            let session = Session::open(&address).await?;
            schema::permitted(&session.client, &address).await?;
            enough_connections(&session.client, &address, config.readers).await?;
            schema::migrate(&session.client, &address).await
        })?;
        drop(first);
        let heard = Arc::new(Heard::default());
        let member = Member::new(config.clock.clone(), heard.clone(), &address.schema);
        let me = member.id.clone();
        let connect = |member| {
            let db = PostgresDb::new(runtime()?, Dialer::new(address.clone()), member);
            db.connect()?;
            Ok(db)
        };
        let writer = connect(Some(member))?;
        let reader = || connect(None).map(|db| Arc::new(Slot::filled(db)));
        let readers = (0..config.readers).map(|_| reader()).collect::<Result<_, Error>>()?;
        let shared = (heard.bells.clone(), Arc::default());
        let store = Store::start(config, writer, readers, Vec::new(), shared, None)?;
        let (stop, stopped) = oneshot::channel();
        let listener = listen::start(address, me, heard, store.health(), store.nudge()?, stopped)?;
        store.accompany(listener, stop);
        Ok(Self(store))
    }
}

impl std::ops::Deref for Postgres {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.0
    }
}

impl From<Postgres> for Store {
    fn from(store: Postgres) -> Self {
        store.0
    }
}

impl Engine for Postgres {
    fn transact(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send + use<> {
        self.0.transact(operations)
    }

    fn watch(&self, subject: Subject) -> Watch {
        self.0.watch(subject)
    }
}

/// Fails where the server, the database or the role grants fewer connections than
/// a process takes: then it would find out only when it has to connect again.
async fn enough_connections(
    client: &tokio_postgres::Client,
    address: &Address,
    readers: usize,
) -> Result<(), Error> {
    let sql = "SELECT least(current_setting('max_connections')::int8,
           nullif(d.datconnlimit, -1), nullif(r.rolconnlimit, -1))::int8
         FROM pg_database d, pg_roles r
         WHERE d.datname = current_database() AND r.rolname = current_user";
    let row = client.query_one(sql, &[]).await.map_err(|e| failure(&e))?;
    let (granted, needed) = (row.get::<_, i64>(0), readers as i64 + 2);
    if granted >= needed {
        return Ok(());
    }
    let problem = format!(
        "it grants {granted} connections and a process takes {needed}: raise `max_connections` \
         (or the limit of the role or of the database), or lower `readers`"
    );
    Err(Error::Unfit { place: address.shown.clone(), problem })
}

/// Host, port and database, without what is secret.
pub(crate) fn place(config: &Config) -> Result<String, Error> {
    Address::parse(config).map(|address| address.shown)
}

/// A host on another machine, to which connections may go unencrypted.
pub(crate) fn unencrypted(config: &Config) -> Result<Option<String>, Error> {
    Address::parse(config).map(|address| address.unencrypted())
}

/// Connections of this store live on runtimes of their own, one for each thread.
fn runtime() -> Result<Runtime, Error> {
    let problem = |error: std::io::Error| Error::Open {
        path: "postgres".to_owned(),
        problem: format!("no runtime for it: {error}"),
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(problem)
}

/// The error and what caused it, in one sentence.
fn sentence(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(told) => told.message().to_owned(),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Whether the connection is of no use after this.
fn fatal(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(told) => {
            let fatal = ["FATAL", "PANIC"].contains(&told.severity());
            fatal || *told.code() == SqlState::READ_ONLY_SQL_TRANSACTION
        }
        None => {
            error.is_closed()
                || std::error::Error::source(error).is_none_or(|s| s.is::<std::io::Error>())
        }
    }
}

/// An error of the database as one of the store.
fn failure(error: &tokio_postgres::Error) -> Error {
    let told = error.as_db_error().map(tokio_postgres::error::DbError::code);
    match told {
        Some(code) if *code == SqlState::DISK_FULL => Error::DiskFull,
        Some(code) if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED => {
            Error::Corrupt { what: sentence(error) }
        }
        Some(code)
            if *code == SqlState::LOCK_NOT_AVAILABLE
                || *code == SqlState::QUERY_CANCELED
                || *code == SqlState::TOO_MANY_CONNECTIONS =>
        {
            Error::unreachable(sentence(error))
        }
        _ if fatal(error) => Error::unreachable(sentence(error)),
        _ => Error::Storage(Arc::new(Failed(sentence(error)))),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);
