//! The store in one SQLite file.
//!
//! One thread owns the connection that writes. It takes whatever arrived while
//! the last sync ran, applies each request in a savepoint of its own, commits
//! them together and answers after the sync. Readers have connections of their
//! own; a checkpoint copies the log into the file beside the commits.

mod checkpoint;
mod groups;
mod leases;
mod record;
mod schedules;
mod schema;
mod state;
mod streams;
mod topics;
mod upkeep;
mod waiting;
mod writer;

use std::{
    fs::{File, TryLockError},
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use selvedge_patterns::wall::Wall;
use tokio::sync::oneshot;

use crate::{Answer, Config, Engine, Error, Operation, Request};

pub use upkeep::{compact, verify};
pub(crate) use writer::Tx;

/// A store in one SQLite file: a cheap handle. The store closes when the last
/// handle is dropped, which waits for the writer to end.
#[derive(Clone, Debug)]
pub struct Sqlite(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    jobs: Option<mpsc::SyncSender<writer::Job>>,
    reads: Option<mpsc::SyncSender<ReadJob>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    queued: Arc<AtomicUsize>,
    config: Arc<Config>,
    _lock: File,
}

type Reply = oneshot::Sender<Result<Vec<Answer>, Error>>;
type Sent = oneshot::Receiver<Result<Vec<Answer>, Error>>;

struct ReadJob {
    operations: Vec<Operation>,
    reply: Reply,
}

/// A connection that only looks, with the moment of looking.
pub(crate) struct Reader<'a> {
    conn: &'a Connection,
    now: Wall,
    config: &'a Config,
}

/// A request that reads.
pub(crate) trait Look: Request {
    fn look(self, reader: &Reader<'_>) -> Result<Self::Reply, Error>;
}

/// A request that writes.
pub(crate) trait Apply: Request {
    fn apply(self, tx: &mut Tx) -> Result<Self::Reply, Error>;
}

impl Reader<'_> {
    pub(crate) fn look<R: Look>(&self, request: R) -> Result<R::Reply, Error> {
        request.look(self)
    }
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
        let mut conn = connect(&config, false)?;
        schema::migrate(&mut conn)?;
        let config = Arc::new(config);
        let (jobs, job_queue) = mpsc::sync_channel(config.queue_max);
        let (reads, read_queue) = mpsc::sync_channel::<ReadJob>(1024);
        let queued = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        let (checkpoints, checkpointer) = checkpoint::start(&config)?;
        let writer =
            writer::Writer::new(conn, config.clone(), job_queue, queued.clone(), checkpoints)?;
        threads.push(spawn("selvedge-writer", move || writer.run())?);
        threads.push(checkpointer);
        let read_queue = Arc::new(Mutex::new(read_queue));
        for _ in 0..config.readers {
            let conn = connect(&config, true)?;
            let (queue, config) = (read_queue.clone(), config.clone());
            threads.push(spawn("selvedge-reader", move || serve_reads(&conn, &queue, &config))?);
        }
        Ok(Self(Arc::new(Shared {
            jobs: Some(jobs),
            reads: Some(reads),
            threads: Mutex::new(threads),
            queued,
            config,
            _lock: lock,
        })))
    }

    /// What the store was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Requests that wait for the writer at this moment.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.0.queued.load(Ordering::Relaxed)
    }

    /// Makes the writer look at the clock, and answers when it has done what
    /// was due: for tests with a [`crate::ManualClock`].
    ///
    /// # Errors
    ///
    /// Those of a commit.
    pub async fn wake(&self) -> Result<(), Error> {
        self.transact(Vec::new()).await.map(drop)
    }

    fn write(&self, operations: Vec<Operation>) -> Result<Sent, Error> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.0.jobs.as_ref().ok_or(Error::Closed)?;
        self.0.queued.fetch_add(1, Ordering::Relaxed);
        jobs.try_send(writer::Job { operations, reply }).map_err(|error| {
            self.0.queued.fetch_sub(1, Ordering::Relaxed);
            match error {
                mpsc::TrySendError::Full(_) => Error::Overloaded { waiting: self.queued() },
                mpsc::TrySendError::Disconnected(_) => Error::Closed,
            }
        })?;
        Ok(answer)
    }

    fn read(&self, operations: Vec<Operation>) -> Result<Sent, Error> {
        let (reply, answer) = oneshot::channel();
        let reads = self.0.reads.as_ref().ok_or(Error::Closed)?;
        reads.try_send(ReadJob { operations, reply }).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => Error::Overloaded { waiting: 1024 },
            mpsc::TrySendError::Disconnected(_) => Error::Closed,
        })?;
        Ok(answer)
    }
}

impl Engine for Sqlite {
    fn transact(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send + use<> {
        let read = !operations.is_empty() && operations.iter().all(Operation::is_read);
        let sent = if read { self.read(operations) } else { self.write(operations) };
        // The handle keeps the store open until the answer is there.
        let store = self.clone();
        async move {
            let answer = sent?.await.unwrap_or(Err(Error::Closed));
            drop(store);
            answer
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Both channels end first, then every thread does.
        self.jobs = None;
        self.reads = None;
        for thread in self.threads.get_mut().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

fn serve_reads(conn: &Connection, queue: &Mutex<mpsc::Receiver<ReadJob>>, config: &Config) {
    loop {
        let Ok(job) = queue.lock().recv() else { return };
        let reader = Reader { conn, now: config.clock.now(), config };
        let answers = consistent(conn, || {
            job.operations.into_iter().map(|operation| operation.look(&reader)).collect()
        });
        // Whoever asked may have gone away.
        let _ = job.reply.send(answers);
    }
}

/// Runs `look` on one snapshot of the store.
fn consistent<T>(conn: &Connection, look: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    conn.prepare_cached("BEGIN")?.execute([])?;
    let result = look();
    conn.prepare_cached("COMMIT")?.execute([])?;
    result
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let problem = |error: std::io::Error| Error::Open {
        path: name.to_owned(),
        problem: format!("no thread for it: {error}"),
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(problem)
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
