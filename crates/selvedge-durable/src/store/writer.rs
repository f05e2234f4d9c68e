//! The one thread that writes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use selvedge_patterns::{random::SplitMix64, wall::Wall};

use super::{
    Apply, Look, Reader, Reply,
    driver::{Db, Row, values},
    groups::Groups,
    topics::Topics,
    waiting::Waiting,
};
use crate::{Answer, Config, Error, Operation};

/// Requests to apply atomically, and whom to tell.
pub(super) struct Job {
    pub(super) operations: Vec<Operation>,
    pub(super) reply: Reply,
}

/// Fences and tags handed out before the number is stored again.
const SEQUENCE_STEP: u64 = 1000;
/// How often everything due is derived anew from what is stored.
const DERIVE_EVERY: Duration = Duration::from_secs(60);

/// The transaction at hand, with what is kept in memory of the store.
pub(crate) struct Tx<D> {
    pub(super) db: D,
    pub(super) now: Wall,
    pub(super) config: Arc<Config>,
    pub(super) rng: SplitMix64,
    pub(super) topics: Topics,
    pub(super) groups: Groups,
    /// The earliest due time of anything stored, or none.
    pub(super) due: Option<Wall>,
    /// Topics and groups whose waiting consumers may find something now.
    pub(super) stirred: Vec<i64>,
    /// Resources whose waiting acquirers may find a permit now.
    pub(super) released: Vec<String>,
    sequence: u64,
    sequence_stored: u64,
}

impl<D: Db> Tx<D> {
    pub(crate) fn apply<R: Apply>(&mut self, request: R) -> Result<R::Reply, Error> {
        request.apply(self)
    }

    pub(crate) fn read<R: Look>(&self, request: R) -> Result<R::Reply, Error> {
        self.reader().look(request)
    }

    pub(super) fn reader(&self) -> Reader<'_, D> {
        Reader { db: &self.db, now: self.now, config: &self.config }
    }

    /// A number greater than every one before it, across restarts too.
    pub(super) fn next_number(&mut self) -> Result<u64, Error> {
        if self.sequence >= self.sequence_stored {
            self.sequence_stored = self.sequence + SEQUENCE_STEP;
            self.db.write(
                "INSERT INTO meta (key, value) VALUES ('sequence', ?1)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                &values![self.sequence_stored],
            )?;
        }
        self.sequence += 1;
        Ok(self.sequence)
    }

    /// Something will be due at `at`.
    pub(super) fn due_at(&mut self, at: Wall) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// After a rollback memory may say what the store does not.
    fn forget(&mut self) {
        self.topics.forget();
        self.groups.forget();
    }

    fn all(&mut self, operations: Vec<Operation>) -> Result<Vec<Answer>, Error> {
        operations.into_iter().map(|operation| operation.apply(self)).collect()
    }

    /// Applies in a savepoint: a failure undoes this and nothing else.
    pub(super) fn alone<T>(
        &mut self,
        apply: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.db.savepoint()?;
        match apply(self) {
            Ok(answer) => {
                self.db.release()?;
                Ok(answer)
            }
            Err(error) => {
                self.forget();
                // A failure of the disk may have ended the whole transaction.
                if self.db.in_transaction() {
                    self.db.undo()?;
                    // The stored bound may be gone with the savepoint.
                    self.sequence_stored = self.sequence_stored.min(self.sequence);
                }
                Err(error)
            }
        }
    }
}

pub(super) struct Writer<D> {
    tx: Tx<D>,
    jobs: Receiver<Job>,
    queued: Arc<AtomicUsize>,
    waiting: Waiting,
    answers: Vec<(Reply, Result<Vec<Answer>, Error>)>,
    derived: Wall,
}

impl<D: Db> Writer<D> {
    pub(super) fn new(
        db: D,
        config: Arc<Config>,
        jobs: Receiver<Job>,
        queued: Arc<AtomicUsize>,
    ) -> Result<Self, Error> {
        let sql = "SELECT max(value) FROM meta WHERE key = 'sequence'";
        let stored: Option<u64> = db.one(sql, &[], |row| row.get(0))?;
        let stored = stored.unwrap_or(0);
        let now = config.clock.now();
        let tx = Tx {
            db,
            now,
            rng: SplitMix64::new(now.as_micros()),
            topics: Topics::default(),
            groups: Groups::default(),
            due: Some(now),
            stirred: Vec::new(),
            released: Vec::new(),
            sequence: stored,
            sequence_stored: stored,
            config,
        };
        let waiting = Waiting::default();
        let (answers, derived) = (Vec::new(), Wall::ZERO);
        Ok(Self { tx, jobs, queued, waiting, answers, derived })
    }

    pub(super) fn run(mut self) {
        loop {
            let job = match self.jobs.recv_timeout(self.pause()) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.tx.now = self.tx.now.max(self.tx.config.clock.now());
            if job.is_some() || self.something_due() {
                self.batch(job);
            } else {
                self.tx.db.idle();
            }
        }
        self.waiting.close();
        self.tx.db.idle();
    }

    /// How long nothing is due.
    fn pause(&self) -> Duration {
        let now = self.tx.config.clock.now();
        let next = [self.tx.due, self.waiting.next_wakeup(), Some(self.derived + DERIVE_EVERY)];
        let next = next.into_iter().flatten().min().unwrap_or(now);
        next.since(now).min(DERIVE_EVERY)
    }

    fn something_due(&self) -> bool {
        let now = self.tx.now;
        self.tx.due.is_some_and(|due| due <= now)
            || self.waiting.next_wakeup().is_some_and(|at| at <= now)
            || self.derived + DERIVE_EVERY <= now
    }

    /// One commit: the job, whatever else has arrived, and what is due.
    fn batch(&mut self, first: Option<Job>) {
        let mut jobs = Vec::new();
        let mut next = first;
        while let Some(job) = next {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            jobs.push(job);
            let room = jobs.len() < self.tx.config.batch_max;
            next = if room { self.jobs.try_recv().ok() } else { None };
        }
        let result = self
            .begin(&jobs)
            .and_then(|()| self.fill(&mut jobs))
            .and_then(|()| self.tx.db.commit());
        if let Err(error) = &result {
            tracing::error!(%error, "a batch could not be committed");
            if self.tx.db.in_transaction() {
                let _ = self.tx.db.rollback();
            }
            self.tx.forget();
            self.tx.sequence_stored = self.tx.sequence;
        }
        let failed = result.as_ref().err().cloned().unwrap_or(Error::Closed);
        self.answers.extend(jobs.drain(..).map(|job| (job.reply, Err(failed.clone()))));
        for (reply, answer) in self.answers.drain(..) {
            let answer = match &result {
                Ok(()) => answer,
                Err(error) => answer.and(Err(error.clone())),
            };
            // Whoever asked may have gone away.
            let _ = reply.send(answer);
        }
        if result.is_ok() {
            self.tx.db.committed();
        }
    }

    /// Applies the jobs; those that are left when it fails were not looked at.
    fn fill(&mut self, jobs: &mut Vec<Job>) -> Result<(), Error> {
        self.tx.stirred.clear();
        self.tx.released.clear();
        jobs.reverse();
        while let Some(job) = jobs.pop() {
            self.one(job)?;
        }
        self.due()?;
        self.waiting.stir(&mut self.tx, &mut self.answers)
    }

    fn one(&mut self, job: Job) -> Result<(), Error> {
        let Job { operations, reply } = job;
        if let [operation] = &operations[..]
            && let Some(patience) = operation.patience()
        {
            let again = operation.clone();
            let answer = self.tx.alone(|tx| tx.all(operations));
            return self.waiting.or_wait(
                &mut self.tx,
                again,
                patience,
                answer,
                reply,
                &mut self.answers,
            );
        }
        let answer = self.tx.alone(|tx| tx.all(operations));
        self.answers.push((reply, answer));
        self.intact()
    }

    /// Fails if the disk ended the transaction under us.
    fn intact(&self) -> Result<(), Error> {
        if !self.tx.db.in_transaction() {
            let last = self.answers.last().and_then(|(_, answer)| answer.as_ref().err().cloned());
            return Err(last.unwrap_or(Error::DiskFull));
        }
        Ok(())
    }

    fn due(&mut self) -> Result<(), Error> {
        let tx = &mut self.tx;
        if tx.due.is_some_and(|due| due <= tx.now) {
            tx.deliver_delayed()?;
            tx.run_schedules()?;
            tx.due = tx.derive_due()?;
        }
        if self.derived + DERIVE_EVERY <= tx.now {
            tx.due = tx.derive_due()?;
            // A little at a time; what is left is due again at once.
            let more = tx.tidy()?;
            self.derived =
                if more { tx.now - DERIVE_EVERY + Duration::from_millis(20) } else { tx.now };
        }
        Ok(())
    }

    /// Starts the transaction. A commit that carries nothing but messages of
    /// relaxed topics is not synced.
    fn begin(&mut self, jobs: &[Job]) -> Result<(), Error> {
        let relaxed = self.waiting.is_empty()
            && !self.something_due()
            && !jobs.is_empty()
            && jobs.iter().flat_map(|job| &job.operations).all(|operation| match operation {
                Operation::Publish(publish) => {
                    self.tx.topic(&publish.topic).is_ok_and(|topic| topic.settings.relaxed)
                }
                _ => false,
            });
        self.tx.db.begin(relaxed)
    }
}
