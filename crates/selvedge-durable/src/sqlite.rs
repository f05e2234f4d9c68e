//! The store in one SQLite file.
//!
//! A checkpoint copies the log into the file beside the commits.

mod checkpoint;
mod driver;
mod schema;
mod upkeep;

use std::{
    fs::{File, TryLockError},
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags};

use crate::{Answer, Config, Engine, Error, Operation, Store, Subject, Watch};

use driver::SqliteDb;
pub(crate) use upkeep::{backup, compact, verify};

/// A store in one SQLite file: a cheap handle. The store closes when the last
/// handle is dropped, which waits for the writer to end.
#[derive(Clone, Debug)]
pub struct Sqlite(Store);

impl Sqlite {
    /// Opens the store, creating the file if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if another process has it or the file cannot be opened,
    /// [`Error::Newer`], [`Error::Corrupt`], [`Error::Invalid`] for the configuration.
    pub fn open(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let lock = lock(&config.path)?;
        let mut conn = connect(&config, false)?;
        schema::migrate(&mut conn)?;
        // A killed process leaves what it had not synced; nobody may see it and
        // then lose it to a power cut.
        checkpoint::passive(&conn)?;
        let (checkpoints, checkpointer) = checkpoint::start(&config)?;
        let writer = SqliteDb::writer(conn, checkpoints);
        let readers = (0..config.readers)
            .map(|_| connect(&config, true).map(SqliteDb::reader))
            .collect::<Result<_, _>>()?;
        let bells = Arc::default();
        Store::start(config, writer, readers, vec![checkpointer], bells, Some(lock)).map(Self)
    }
}

impl std::ops::Deref for Sqlite {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.0
    }
}

impl From<Sqlite> for Store {
    fn from(store: Sqlite) -> Self {
        store.0
    }
}

impl Engine for Sqlite {
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

/// The file that keeps a second process out.
fn lock(path: &Path) -> Result<File, Error> {
    let failed = |problem: String| Error::Open { path: path.display().to_string(), problem };
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(PathBuf::from(name))
        .map_err(|error| failed(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(failed("another process has it open".to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error.to_string())),
    }
}

/// One connection, set up the way the rules of storage want it.
fn connect(config: &Config, reader: bool) -> Result<Connection, Error> {
    let failed = |error: rusqlite::Error| match Error::from(error) {
        Error::Storage(error) => {
            Error::Open { path: config.path.display().to_string(), problem: error.to_string() }
        }
        other => other,
    };
    let access = if reader {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
    };
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = match &config.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(&config.path, flags, vfs.as_str()),
        None => Connection::open_with_flags(&config.path, flags),
    }
    .map_err(failed)?;
    conn.set_prepared_statement_cache_capacity(128);
    let cache_kib = if reader { 8192 } else { config.cache_bytes / 1024 };
    conn.execute_batch(&format!(
        "PRAGMA busy_timeout = 5000;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA cache_size = -{cache_kib};
         PRAGMA query_only = {};",
        i32::from(reader)
    ))
    .map_err(failed)?;
    Ok(conn)
}
