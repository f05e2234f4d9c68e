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

use rusqlite::Connection;

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
    busy: Arc<AtomicBool>,
    frames_max: u64,
    commits: u32,
    rounds: u32,
}

/// Starts the thread.
pub(super) fn start(config: &Config) -> Result<(Checkpoints, JoinHandle<()>), Error> {
    let conn = connect(config, false)?;
    let (start, wanted) = mpsc::sync_channel(1);
    let busy = Arc::new(AtomicBool::new(false));
    let flag = busy.clone();
    let thread = spawn("selvedge-checkpoint", move || {
        while wanted.recv().is_ok() {
            if let Err(error) = passive(&conn) {
                tracing::warn!(%error, "checkpoint failed, will be tried again");
            }
            flag.store(false, Ordering::Release);
        }
    })?;
    let frames_max = config.checkpoint_bytes / 4096;
    Ok((Checkpoints { start, busy, frames_max, commits: 0, rounds: 0 }, thread))
}

impl Checkpoints {
    /// After a commit: goes on with the checkpoint or begins one.
    pub(super) fn after_commit(&mut self, conn: &Connection) -> Result<(), Error> {
        self.commits += 1;
        if self.busy.load(Ordering::Acquire)
            || (self.rounds == 0 && self.commits < COMMITS_PER_LOOK)
        {
            return Ok(());
        }
        self.commits = 0;
        let (log, copied) = length(conn)?;
        let left = log.saturating_sub(copied);
        if self.rounds == 0 && log < self.frames_max {
            return Ok(());
        }
        if self.rounds > 0 && (left <= TAIL_FRAMES || self.rounds >= ROUNDS_MAX) {
            self.rounds = 0;
            return passive(conn);
        }
        self.rounds += 1;
        self.busy.store(true, Ordering::Release);
        if self.start.try_send(()).is_err() {
            self.busy.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// When nothing goes on: everything into the file, so that opening is quick.
    pub(super) fn idle(&self, conn: &Connection) -> Result<(), Error> {
        if self.busy.load(Ordering::Acquire) {
            return Ok(());
        }
        let (log, copied) = length(conn)?;
        if log > copied { passive(conn) } else { Ok(()) }
    }
}

/// Frames in the log, and how many of them are in the file.
fn length(conn: &Connection) -> Result<(u64, u64), Error> {
    run(conn, "PRAGMA wal_checkpoint(NOOP)")
}

/// Syncs the log and copies it into the file, as far as readers allow.
pub(super) fn passive(conn: &Connection) -> Result<(), Error> {
    run(conn, "PRAGMA wal_checkpoint(PASSIVE)").map(drop)
}

fn run(conn: &Connection, pragma: &str) -> Result<(u64, u64), Error> {
    let counts = conn.prepare_cached(pragma)?.query_row([], |row| {
        Ok((row.get::<_, i64>(1)?.max(0) as u64, row.get::<_, i64>(2)?.max(0) as u64))
    })?;
    Ok(counts)
}
