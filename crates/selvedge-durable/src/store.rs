//! The operations over any database: one writer, a few readers, everyone who waits.
//!
//! One thread owns the connection that writes. It takes whatever arrived while
//! the last commit ran, applies each request in a savepoint of its own, commits
//! them together and answers after that. Readers have connections of their own.
//! What is asked of a database is in [`driver`].

mod collecting;
pub(crate) mod driver;
mod filtered;
mod groups;
mod leases;
mod leavings;
pub(crate) mod record;
mod schedules;
mod schemas;
pub(crate) mod state;
pub(crate) mod streams;
mod topics;
pub(crate) mod upkeep;
pub(crate) mod verify;
mod waiting;
mod writer;

use std::{
    fs::File,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use parking_lot::{Mutex, MutexGuard};
use selvedge_patterns::wall::Wall;
use tokio::sync::oneshot;

use crate::{
    Answer, Config, Engine, Error, Operation, Request, Subject, Watch, vitals::Vitals, watch::Bells,
};

pub(crate) use driver::Db;
pub(crate) use writer::Tx;

/// Read requests that wait for a reader.
const READS_MAX: usize = 1024;

/// A store, wherever it lies: a cheap handle. It closes when the last handle is
/// dropped, which waits for the writer to end.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    jobs: Option<mpsc::SyncSender<writer::Job>>,
    reads: Option<mpsc::SyncSender<ReadJob>>,
    /// Those that only read.
    readers: Vec<JoinHandle<()>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    queued: Arc<AtomicUsize>,
    work: Arc<Work>,
    bells: Arc<Bells>,
    config: Arc<Config>,
    /// How the server of a database fares.
    health: crate::postgres::health::Seen,
    vitals: Arc<Vitals>,
    /// Dropped when the store closes; a thread that accompanies it sees that.
    stop: Mutex<Option<oneshot::Sender<()>>>,
    _lock: Option<File>,
}

/// What a store has been busy with since it was opened; what waits adds nothing.
#[derive(Debug, Default)]
struct Work {
    transactions: AtomicU64,
    reads: AtomicU64,
}

type Reply = oneshot::Sender<Result<Vec<Answer>, Error>>;
type Sent = oneshot::Receiver<Result<Vec<Answer>, Error>>;

struct ReadJob {
    operations: Vec<Operation>,
    reply: Reply,
}

/// Makes the writer look, from a thread that accompanies the store.
pub(crate) struct Nudge {
    jobs: mpsc::SyncSender<writer::Job>,
    queued: Arc<AtomicUsize>,
}

impl Nudge {
    pub(crate) fn now(&self) {
        let (reply, _) = oneshot::channel();
        self.queued.fetch_add(1, Ordering::Relaxed);
        // If it is full, the writer is about to look anyway.
        if self.jobs.try_send(writer::Job { operations: Vec::new(), reply }).is_err() {
            self.queued.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Says that the writer is gone, however it went.
struct Gone(Arc<Vitals>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.writer_ended();
        if std::thread::panicking() {
            let code = Error::Closed.code();
            tracing::error!(
                code,
                "the writer of the store panicked: nothing is written any more, restart the process"
            );
        }
    }
}

/// Place for a reader's connection; whoever holds it can close it, and the next
/// reader opens another.
pub(crate) struct Slot<D> {
    db: Mutex<Option<D>>,
    open: Box<dyn Fn() -> Result<D, Error> + Send + Sync>,
}

impl<D> Slot<D> {
    /// Opens at once, and again when it was closed.
    pub(crate) fn new(
        open: impl Fn() -> Result<D, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Ok(Self { db: Mutex::new(Some(open()?)), open: Box::new(open) })
    }

    /// Of a connection that nobody closes.
    pub(crate) fn filled(db: D) -> Self {
        Self { db: Mutex::new(Some(db)), open: Box::new(|| Err(Error::Closed)) }
    }

    /// The connection, if it is open. Nobody reads by it while the guard is there.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Option<D>> {
        self.db.lock()
    }

    fn with<T>(&self, work: impl FnOnce(&mut D) -> Result<T, Error>) -> Result<T, Error> {
        let mut db = self.db.lock();
        if db.is_none() {
            *db = Some((self.open)()?);
        }
        db.as_mut().map_or(Err(Error::Closed), work)
    }
}

/// A connection that only looks, with the moment of looking.
pub(crate) struct Reader<'a, D> {
    db: &'a D,
    now: Wall,
    config: &'a Config,
}

/// A request that reads.
pub(crate) trait Look: Request {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Self::Reply, Error>;
}

/// A request that writes.
pub(crate) trait Apply: Request {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Self::Reply, Error>;
}

impl<D: Db> Reader<'_, D> {
    pub(crate) fn look<R: Look>(&self, request: R) -> Result<R::Reply, Error> {
        request.look(self)
    }
}

impl Store {
    /// Starts the threads. `others` end by themselves once the writer has.
    pub(crate) fn start<D: Db + Send + 'static>(
        config: Config,
        writer: D,
        readers: Vec<Arc<Slot<D>>>,
        others: Vec<JoinHandle<()>>,
        (bells, vitals): (Arc<Bells>, Arc<Vitals>),
        lock: Option<File>,
    ) -> Result<Self, Error> {
        let config = Arc::new(config);
        let (jobs, job_queue) = mpsc::sync_channel(config.queue_max);
        let (reads, read_queue) = mpsc::sync_channel(READS_MAX);
        let queued = Arc::new(AtomicUsize::new(0));
        let work = Arc::new(Work::default());
        let shared = (queued.clone(), work.clone(), bells.clone(), vitals.clone());
        let writer = writer::Writer::new(writer, config.clone(), job_queue, shared)?;
        let gone = Gone(vitals.clone());
        let mut threads = vec![spawn("selvedge-writer", move || {
            let _gone = gone;
            writer.run();
        })?];
        threads.extend(others);
        let read_queue = Arc::new(Mutex::new(read_queue));
        let read = |slot: Arc<Slot<D>>| {
            let (queue, config, work) = (read_queue.clone(), config.clone(), work.clone());
            spawn("selvedge-reader", move || serve_reads(&slot, &queue, &config, &work))
        };
        let readers = readers.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Shared {
            jobs: Some(jobs),
            reads: Some(reads),
            readers,
            threads: Mutex::new(threads),
            queued,
            work,
            bells,
            config,
            health: Arc::default(),
            vitals,
            stop: Mutex::new(None),
            _lock: lock,
        })))
    }

    /// Opens the store that `config` names, a file or a database.
    ///
    /// # Errors
    ///
    /// Those of [`crate::Sqlite::open`] and [`crate::Postgres::open`].
    pub fn open(config: Config) -> Result<Self, Error> {
        if config.postgres.is_some() {
            crate::Postgres::open(config).map(Self::from)
        } else {
            crate::Sqlite::open(config).map(Self::from)
        }
    }

    /// How the server of a database fares, as it was seen some seconds ago.
    #[must_use]
    pub fn database(&self) -> Option<crate::doctor::Database> {
        self.0.health.lock().clone()
    }

    /// Where [`Self::database`] is kept.
    pub(crate) fn health(&self) -> crate::postgres::health::Seen {
        self.0.health.clone()
    }

    /// To wake the writer with.
    pub(crate) fn nudge(&self) -> Result<Nudge, Error> {
        let jobs = self.0.jobs.clone().ok_or(Error::Closed)?;
        Ok(Nudge { jobs, queued: self.0.queued.clone() })
    }

    /// Ends `thread` with the store, by dropping `stop`.
    pub(crate) fn accompany(&self, thread: JoinHandle<()>, stop: oneshot::Sender<()>) {
        // Before the writer, which waits for every sender of jobs to be gone.
        self.0.threads.lock().insert(0, thread);
        *self.0.stop.lock() = Some(stop);
    }

    /// What the store was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// How its commits go.
    #[must_use]
    pub fn vitals(&self) -> &Vitals {
        &self.0.vitals
    }

    /// Requests that wait for the writer at this moment.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.0.queued.load(Ordering::Relaxed)
    }

    /// Transactions of the writer since the store was opened.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.0.work.transactions.load(Ordering::Relaxed)
    }

    /// Requests that were read for since the store was opened.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.0.work.reads.load(Ordering::Relaxed)
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
            mpsc::TrySendError::Full(_) => Error::Overloaded { waiting: READS_MAX },
            mpsc::TrySendError::Disconnected(_) => Error::Closed,
        })?;
        Ok(answer)
    }
}

impl Engine for Store {
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

    fn watch(&self, subject: Subject) -> Watch {
        self.0.bells.watch(subject)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let join = |thread: JoinHandle<()>| {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        };
        drop(self.stop.get_mut().take());
        // Those who read go first: SQLite copies what is left of the log into the file when
        // the last connection closes, and none is the last of two that close at once.
        self.reads = None;
        self.readers.drain(..).for_each(join);
        self.jobs = None;
        self.threads.get_mut().drain(..).for_each(join);
    }
}

fn serve_reads<D: Db>(
    slot: &Slot<D>,
    queue: &Mutex<mpsc::Receiver<ReadJob>>,
    config: &Config,
    work: &Work,
) {
    loop {
        let Ok(job) = queue.lock().recv() else { return };
        work.reads.fetch_add(1, Ordering::Relaxed);
        let answers = slot.with(|db| {
            consistent(db, |db| {
                let reader = Reader { db, now: config.clock.now(), config };
                job.operations.into_iter().map(|operation| operation.look(&reader)).collect()
            })
        });
        // Whoever asked may have gone away.
        let _ = job.reply.send(answers);
    }
}

/// Runs `look` on one snapshot of the store.
fn consistent<D: Db, T>(db: &mut D, look: impl FnOnce(&D) -> Result<T, Error>) -> Result<T, Error> {
    db.begin(false)?;
    let result = look(db);
    db.commit()?;
    result
}

pub(crate) fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let problem = |error: std::io::Error| Error::Open {
        path: name.to_owned(),
        problem: format!("no thread for it: {error}"),
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(problem)
}
