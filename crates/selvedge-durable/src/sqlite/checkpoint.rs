//! Copies the write-ahead log into the file without holding up commits.
//!
//! A checkpoint on the writer stalls every commit for as long as it copies; one
//! beside the writer never reaches the end of a log that keeps growing. So the
//! bulk is copied by a thread of its own, and when little is left the writer
//! copies that and starts the log anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, config::DbConfig};

use super::connect;
use crate::{Config, Error, store::spawn};

/// Frames that the writer may copy itself: about half a millisecond.
const TAIL_FRAMES: u64 = 256;
/// Rounds after which the writer copies whatever is left.
const ROUNDS_MAX: u32 = 8;
/// Commits between two looks at the length of the log.
const COMMITS_PER_LOOK: u32 = 32;

/// The writer's side.
pub(super) struct Checkpoints {
    start: mpsc::SyncSender<()>,
    shared: Arc<Shared>,
    frames_max: u64,
    commits: u32,
    rounds: u32,
}

/// What the writer and the thread that copies share.
struct Shared {
    busy: AtomicBool,
    /// Nothing may be copied.
    stopped: AtomicBool,
    /// A sync that failed.
    failure: Mutex<Option<Error>>,
    /// The thread's connection, while it is open.
    conn: Mutex<Option<Connection>>,
}

/// What is to be done about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Nothing,
    /// A part by the thread.
    Begin,
    /// The rest by the writer.
    Finish,
}

/// Starts the thread.
pub(super) fn start(config: &Config) -> Result<(Checkpoints, JoinHandle<()>), Error> {
    let (start, wanted) = mpsc::sync_channel(1);
    let shared = Arc::new(Shared {
        busy: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
        failure: Mutex::default(),
        conn: Mutex::new(Some(connect(config, false)?)),
    });
    let (mine, config) = (shared.clone(), config.clone());
    let frames_max = config.checkpoint_bytes / 4096;
    let thread = spawn("selvedge-checkpoint", move || {
        while wanted.recv().is_ok() {
            mine.copy(&config);
            mine.busy.store(false, Ordering::Release);
        }
    })?;
    Ok((Checkpoints { start, shared, frames_max, commits: 0, rounds: 0 }, thread))
}

impl Shared {
    fn copy(&self, config: &Config) {
        let mut slot = self.conn.lock();
        if self.stopped.load(Ordering::Acquire) {
            return;
        }
        let conn = slot.take().map_or_else(|| connect(config, false), Ok);
        let copied = conn.and_then(|conn| passive(slot.insert(conn)));
        if let Err(error) = copied {
            tracing::warn!(%error, "checkpoint failed, will be tried again");
            if matches!(error, Error::Unsynced { .. }) {
                self.stopped.store(true, Ordering::Release);
                *self.failure.lock() = Some(error);
            }
        }
    }
}

impl Checkpoints {
    /// Whether the thread copies at this moment.
    pub(super) fn busy(&self) -> bool {
        self.shared.busy.load(Ordering::Acquire)
    }

    /// The sync of the thread that failed, once.
    pub(super) fn failure(&self) -> Option<Error> {
        self.shared.failure.lock().take()
    }

    /// Whether [`Self::failure`] has one.
    pub(super) fn has_failed(&self) -> bool {
        self.shared.failure.lock().is_some()
    }

    /// Lets the thread copy nothing more.
    pub(super) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
    }

    /// Closes the thread's connection. It gets none while the guard is there.
    pub(super) fn let_go(&self) -> MutexGuard<'_, Option<Connection>> {
        let mut slot = self.shared.conn.lock();
        *slot = None;
        slot
    }

    /// Lets the thread copy again.
    pub(super) fn go_on(&self) {
        self.shared.stopped.store(false, Ordering::Release);
    }

    /// After a commit: what is to be done.
    pub(super) fn after_commit(&mut self, conn: &Connection) -> Result<Wanted, Error> {
        self.commits += 1;
        if self.busy() || (self.rounds == 0 && self.commits < COMMITS_PER_LOOK) {
            return Ok(Wanted::Nothing);
        }
        self.commits = 0;
        let (log, copied) = length(conn)?;
        let left = log.saturating_sub(copied);
        if self.rounds == 0 && log < self.frames_max {
            return Ok(Wanted::Nothing);
        }
        if self.rounds > 0 && (left <= TAIL_FRAMES || self.rounds >= ROUNDS_MAX) {
            self.rounds = 0;
            return Ok(Wanted::Finish);
        }
        self.rounds += 1;
        Ok(Wanted::Begin)
    }

    /// Lets the thread copy what is there.
    pub(super) fn begin(&self) {
        self.shared.busy.store(true, Ordering::Release);
        if self.start.try_send(()).is_err() {
            self.shared.busy.store(false, Ordering::Release);
        }
    }
}

/// Frames in the log, and how many of them are in the file.
pub(super) fn length(conn: &Connection) -> Result<(u64, u64), Error> {
    run(conn, "PRAGMA wal_checkpoint(NOOP)")
}

/// Syncs the log and copies it into the file, as far as readers allow.
pub(super) fn passive(conn: &Connection) -> Result<(), Error> {
    run(conn, "PRAGMA wal_checkpoint(PASSIVE)").map(drop)
}

/// Lets `conn` copy the log and remove it when it closes, if it is the last.
pub(super) fn on_close(conn: &Connection) {
    // What is not copied now is copied when the file is opened again.
    let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
}

fn run(conn: &Connection, pragma: &str) -> Result<(u64, u64), Error> {
    let counts = conn.prepare_cached(pragma)?.query_row([], |row| {
        Ok((row.get::<_, i64>(1)?.max(0) as u64, row.get::<_, i64>(2)?.max(0) as u64))
    })?;
    Ok(counts)
}
