//! Whether what was written can be trusted to be on disk, and the way back when not.
//!
//! After a sync that failed, a system may say that there is nothing left to
//! sync, and have written nothing: a second one that succeeds proves nothing.
//! ("PostgreSQL's fsync() surprise", LWN, 2018.) SQLite tries again and believes
//! it; and it counts pages as copied into the file before they are synced, so it
//! would begin its log anew over the only good copy of them. Therefore:
//!
//! - Nothing is copied into the file before the log is synced by somebody who
//!   would hear of a failure: [`Keeper::settle`]. While the copy goes on every
//!   commit is synced, those of relaxed topics too.
//! - When a sync fails, nothing is committed and nothing copied any more, and no
//!   connection copies or removes the log when it closes.
//! - When the log could not be synced, what comes after the last sync is cut
//!   off: the batch that failed, which nobody was told of, and messages of
//!   relaxed topics, which a power cut may lose as well.
//! - Then every connection is closed and opened anew. That makes SQLite read the
//!   log by its checksums and forget what it counted as copied. The whole log is
//!   copied again. Only when that is synced the store goes on; until then it is
//!   tried again after ever longer pauses.
//!
//! Readers go on between the attempts: what they see is in the log up to its
//! last sync, or in the file since before the log was begun.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::{
    checkpoint::{self, Checkpoints, Wanted},
    connect,
    driver::SqliteDb,
    let_go,
    log::{self, Mark},
};
use crate::{Config, Error, store::Slot, vitals::Vitals};

/// The pause after the second attempt that failed; each one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How soon a failure of the thread that copies is heard of.
const WHILE_COPYING: Duration = Duration::from_millis(20);

/// The writer's side of a file: its checkpoints, and its doubts.
pub(super) struct Keeper {
    config: Config,
    checkpoints: Checkpoints,
    readers: Vec<Arc<Slot<SqliteDb>>>,
    /// Taken by whoever has a connection for a while.
    copying: Arc<Mutex<()>>,
    vitals: Arc<Vitals>,
    /// Where the log ended when it was synced last, if it has grown since.
    unsynced: Option<Mark>,
    /// Where it ended when the transaction began, if that matters.
    began: Option<Mark>,
    doubt: Option<Doubt>,
}

struct Doubt {
    why: Error,
    /// Whether it is about the log, and not only about the file.
    log: bool,
    /// When to try to get rid of it.
    next: Instant,
    pause: Duration,
}

impl Keeper {
    pub(super) fn new(
        config: Config,
        checkpoints: Checkpoints,
        readers: Vec<Arc<Slot<SqliteDb>>>,
        copying: Arc<Mutex<()>>,
        vitals: Arc<Vitals>,
    ) -> Self {
        let (unsynced, began, doubt) = (None, None, None);
        Self { config, checkpoints, readers, copying, vitals, unsynced, began, doubt }
    }

    /// Why nothing may be written.
    pub(super) fn why(&self) -> Option<Error> {
        self.doubt.as_ref().map(|doubt| doubt.why.clone())
    }

    /// Before a transaction: whether everything had to be opened anew, so that what
    /// was not synced may be gone.
    pub(super) fn trust(&mut self, conn: &mut Option<Connection>) -> Result<bool, Error> {
        self.hear();
        let Some(doubt) = &self.doubt else { return Ok(false) };
        if Instant::now() < doubt.next {
            return Err(doubt.why.clone());
        }
        let renewed = self.renew(conn);
        let Some(doubt) = &mut self.doubt else { return Ok(false) };
        match renewed {
            Ok(()) => {
                tracing::info!("the disk keeps what is written again: the store goes on");
                self.doubt = None;
                self.unsynced = None;
                self.vitals.set_doubt(false);
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(%error, pause = ?doubt.pause, "what is in the log cannot be put on disk yet");
                doubt.next = Instant::now() + doubt.pause;
                doubt.pause = (doubt.pause * 2).min(self.config.recover_every);
                // The first reason is the one to look into.
                Err(doubt.why.clone())
            }
        }
    }

    /// Whether the transaction that begins need not be synced, as was asked.
    pub(super) fn relax(&mut self, conn: &Connection, asked: bool) -> bool {
        self.began = None;
        let relaxed = asked && !self.checkpoints.busy();
        if relaxed && self.unsynced.is_none() {
            self.unsynced = log::end(conn).ok();
            return self.unsynced.is_some();
        }
        if !relaxed && self.unsynced.is_some() {
            self.began = log::end(conn).ok();
        }
        relaxed
    }

    /// After a commit that was to be synced: one that wrote nothing synced nothing.
    pub(super) fn synced(&mut self, conn: &Connection) {
        if self.unsynced.is_some() && self.began.is_some() && log::end(conn).ok() != self.began {
            self.unsynced = None;
        }
    }

    /// Something failed while it was committed, or copied.
    pub(super) fn met(&mut self, error: &Error, in_commit: bool) {
        if !matches!(error, Error::Unsynced { .. }) {
            return;
        }
        self.vitals.sync_failed();
        tracing::error!(%error, code = error.code(), "nothing is written until it is proven that nothing is lost");
        let pause = FIRST_PAUSE.min(self.config.recover_every);
        let (why, next) = (error.clone(), Instant::now());
        let doubt = self.doubt.get_or_insert(Doubt { why, log: false, next, pause });
        doubt.log |= in_commit;
        self.checkpoints.stop();
        self.vitals.set_doubt(true);
    }

    /// Whether the thread that copies has failed.
    fn hear(&mut self) {
        if let Some(error) = self.checkpoints.failure() {
            self.met(&error, false);
        }
    }

    /// After a commit: goes on with the checkpoint or begins one.
    pub(super) fn after_commit(&mut self, conn: &Connection) {
        self.hear();
        if self.doubt.is_some() {
            return;
        }
        match self.checkpoints.after_commit(conn) {
            Ok(Wanted::Nothing) => {}
            Ok(Wanted::Begin) => {
                if self.settle(conn) {
                    self.checkpoints.begin();
                }
            }
            Ok(Wanted::Finish) => self.copy(conn),
            Err(error) => tracing::warn!(%error, "checkpoint failed, will be tried again"),
        }
    }

    /// When nothing goes on: everything into the file, so that opening is quick.
    pub(super) fn idle(&mut self, conn: &mut Option<Connection>) {
        if self.checkpoints.busy() {
            return;
        }
        let _ = self.trust(conn);
        if self.doubt.is_none()
            && let Some(conn) = conn
        {
            match checkpoint::length(conn) {
                Ok((log, copied)) if log > copied => self.copy(conn),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the log cannot be looked at"),
            }
        }
    }

    /// Puts the log on disk, if it is not. Whether that went well.
    fn settle(&mut self, conn: &Connection) -> bool {
        if self.unsynced.is_none() {
            return true;
        }
        match log::sync(conn) {
            Ok(()) => {
                self.unsynced = None;
                true
            }
            Err(error) => {
                self.met(&error, true);
                false
            }
        }
    }

    fn copy(&mut self, conn: &Connection) {
        if self.settle(conn)
            && let Err(error) = checkpoint::passive(conn)
        {
            tracing::warn!(%error, "checkpoint failed, will be tried again");
            self.met(&error, false);
        }
    }

    /// When the writer is to look even if nobody asks it to.
    pub(super) fn next_look(&self) -> Option<Duration> {
        match &self.doubt {
            Some(doubt) => Some(doubt.next.saturating_duration_since(Instant::now())),
            None if self.checkpoints.has_failed() => Some(Duration::ZERO),
            None => self.checkpoints.busy().then_some(WHILE_COPYING),
        }
    }

    /// Opens everything anew, with nothing in the log but what was synced, and
    /// copies all of it.
    fn renew(&self, conn: &mut Option<Connection>) -> Result<(), Error> {
        let elsewhere = || Error::Unsynced {
            problem: "another connection has the file open (a backup?), and must end".to_owned(),
        };
        let _nobody_else = self.copying.try_lock().ok_or_else(elsewhere)?;
        let mut slots: Vec<_> = self.readers.iter().map(|slot| slot.lock()).collect();
        slots.iter_mut().for_each(|slot| **slot = None);
        let _no_checkpoint = self.checkpoints.let_go();
        // What it has to say is why all this is done.
        drop(self.checkpoints.failure());
        let mut most = u64::MAX;
        if self.doubt.as_ref().is_some_and(|doubt| doubt.log)
            && let Some(old) = conn.as_ref()
        {
            let synced = self.unsynced.map_or_else(|| log::end(old), Ok)?;
            most = log::cut(old, synced)?;
        }
        *conn = None;
        let_go(&self.config)?;
        let fresh = connect(&self.config, false)?;
        let (log, copied) = checkpoint::length(&fresh)?;
        if copied > 0 && log > 0 || log > most {
            return Err(elsewhere());
        }
        log::sync(&fresh)?;
        checkpoint::passive(&fresh)?;
        let (log, copied) = checkpoint::length(&fresh)?;
        if copied < log {
            return Err(elsewhere());
        }
        self.checkpoints.go_on();
        *conn = Some(fresh);
        Ok(())
    }

    /// Closes everything, and leaves one file behind if that can be trusted.
    pub(super) fn close(&mut self, conn: &mut Option<Connection>) {
        self.idle(conn);
        let mut slots: Vec<_> = self.readers.iter().map(|slot| slot.lock()).collect();
        slots.iter_mut().for_each(|slot| **slot = None);
        let _no_checkpoint = self.checkpoints.let_go();
        let Some(last) = conn.take() else { return };
        if self.doubt.is_none() && self.unsynced.is_none() {
            checkpoint::on_close(&last);
        }
    }
}
