//! The store in one SQLite file.
//!
//! A checkpoint copies the log into the file beside the commits.

mod checkpoint;
mod driver;
mod keeper;
mod log;
mod schema;
mod upkeep;

use std::{
    fs::{File, TryLockError},
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::{Answer, Config, Engine, Error, Operation, Store, Subject, Watch, store::Slot};

use driver::SqliteDb;
use keeper::Keeper;
pub(crate) use upkeep::{backup, compact, verify};

/// A store in one SQLite file: a cheap handle. The store closes when the last
/// handle is dropped, which waits for the writer to end.
#[derive(Clone, Debug)]
pub struct Sqlite {
    store: Store,
    /// Taken by whoever has a connection of their own for a while.
    copying: Arc<Mutex<()>>,
}

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
        let_go(&config)?;
        let mut conn = connect(&config, false)?;
        migrate(&mut conn)?;
        // A killed process leaves what it had not synced; nobody may see it and
        // then lose it to a power cut.
        log::sync(&conn)?;
        checkpoint::passive(&conn)?;
        let (checkpoints, checkpointer) = checkpoint::start(&config)?;
        let readers = (0..config.readers)
            .map(|_| {
                let config = config.clone();
                Slot::new(move || connect(&config, true).map(SqliteDb::reader)).map(Arc::new)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (copying, vitals) = (Arc::<Mutex<()>>::default(), Arc::default());
        let keeper = Keeper::new(
            config.clone(),
            checkpoints,
            readers.clone(),
            copying.clone(),
            Arc::clone(&vitals),
        );
        let writer = SqliteDb::writer(conn, keeper);
        let others = vec![checkpointer];
        let shared = (Arc::default(), vitals);
        let store = Store::start(config, writer, readers, others, shared, Some(lock))?;
        Ok(Self { store, copying })
    }
}

impl std::ops::Deref for Sqlite {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl From<Sqlite> for Store {
    fn from(store: Sqlite) -> Self {
        store.store
    }
}

impl Engine for Sqlite {
    fn transact(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send + use<> {
        self.store.transact(operations)
    }

    fn watch(&self, subject: Subject) -> Watch {
        self.store.watch(subject)
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

/// Brings the file to this version. What could not be synced is taken back, so
/// that nobody finds it and believes it.
fn migrate(conn: &mut Connection) -> Result<(), Error> {
    let migrated = schema::migrate(conn);
    if matches!(migrated, Err(Error::Unsynced { .. })) {
        let _ = log::end(conn).and_then(|end| log::cut(conn, end));
    }
    migrated.and_then(|()| has_log(conn))
}

/// Makes the system forget what it holds of the log in memory, which nobody may
/// have open: after a sync that failed under a process that is gone it may not
/// be what is on disk, and SQLite judges by what it reads.
#[cfg(target_os = "linux")]
fn let_go(config: &Config) -> Result<(), Error> {
    if config.vfs.is_some() {
        return Ok(());
    }
    let mut name = config.path.as_os_str().to_owned();
    name.push("-wal");
    let log = match File::open(&name) {
        Ok(log) => log,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let path = config.path.display().to_string();
            return Err(Error::Open { path, problem: format!("its log: {error}") });
        }
    };
    let synced = log.sync_all();
    // Advice is all that there is; what is not on disk yet is synced above.
    let _ = rustix::fs::fadvise(&log, 0, None, rustix::fs::Advice::DontNeed);
    synced.map_err(|error| Error::Unsynced { problem: format!("the log: {error}") })
}

/// Elsewhere there is no way to ask for it.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn let_go(_: &Config) -> Result<(), Error> {
    Ok(())
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
    // Whether the log may be copied is decided elsewhere.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
    conn.set_prepared_statement_cache_capacity(128);
    let cache_kib = if reader { 8192 } else { config.cache_bytes / 1024 };
    conn.execute_batch(&format!(
        "PRAGMA busy_timeout = 5000;
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
    keep_a_log(&conn).map_err(failed)?;
    has_log(&conn)?;
    Ok(conn)
}

/// Gives the file its log. Read to the end: only there it turns out that the
/// change could not be put on disk, and after that the file would have none.
fn keep_a_log(conn: &Connection) -> rusqlite::Result<()> {
    let mut pragma = conn.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = pragma.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// SQLite goes on without a log where it cannot have one, and says so only when asked.
fn has_log(conn: &Connection) -> Result<(), Error> {
    let mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode == "wal" {
        return Ok(());
    }
    let path = conn.path().unwrap_or_default().to_owned();
    let problem = format!("it cannot have a write-ahead log, only the journal mode `{mode}`");
    Err(Error::Open { path, problem })
}
