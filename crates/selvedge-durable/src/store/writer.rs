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
    Apply, Look, Reader, Reply, Work,
    collecting::Collectors,
    driver::{Db, Row, values},
    groups::Groups,
    schemas::Schemas,
    topics::Topics,
    waiting::Waiting,
};
use crate::{Answer, Config, Error, Operation, Subject, vitals::Vitals, watch::Bells};

/// Requests to apply atomically, and whom to tell.
pub(super) struct Job {
    pub(super) operations: Vec<Operation>,
    pub(super) reply: Reply,
}

/// Fences and tags handed out before the number is stored again.
const SEQUENCE_STEP: u64 = 1000;
/// How often everything due is derived anew from what is stored.
const DERIVE_EVERY: Duration = Duration::from_secs(60);
/// The rest between a batch that failed and one that nobody asked for.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The transaction at hand, with what is kept in memory of the store.
pub(crate) struct Tx<D> {
    pub(super) db: D,
    pub(super) now: Wall,
    pub(super) config: Arc<Config>,
    pub(super) rng: SplitMix64,
    pub(super) topics: Topics,
    pub(super) groups: Groups,
    pub(super) collectors: Collectors,
    pub(super) schemas: Schemas,
    /// The earliest due time of anything stored, or none.
    pub(super) due: Option<Wall>,
    /// Topics in which every group's waiting consumers may find something now.
    pub(super) stirred: Vec<i64>,
    /// Groups in which they may, each after its topic.
    pub(super) freed: Vec<(i64, i64)>,
    /// Resources whose waiting acquirers may find a permit now.
    pub(super) released: Vec<String>,
    /// What those who watch are to be told once it lasts; some of it twice.
    news: Vec<Subject>,
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

    /// Something of `subject` changes with this transaction.
    pub(super) fn tell(&mut self, subject: Subject) {
        if self.news.last() != Some(&subject) {
            self.news.push(subject);
        }
    }

    /// Messages come to the end of a topic, or it comes or goes.
    pub(super) fn tell_topic(&mut self, topic: &str) {
        // Many messages come to one topic: one name is enough.
        if !matches!(self.news.last(), Some(Subject::Topic(name)) if name == topic) {
            self.news.push(Subject::Topic(topic.to_owned()));
        }
    }

    /// After a rollback memory may say what the store does not.
    fn forget(&mut self) {
        self.topics.forget();
        self.groups.forget();
        self.collectors.forget();
    }

    fn all(&mut self, operations: Vec<Operation>) -> Result<Vec<Answer>, Error> {
        operations.into_iter().map(|operation| operation.apply(self)).collect()
    }

    /// Applies in a savepoint: a failure undoes this and nothing else.
    pub(super) fn alone<T>(
        &mut self,
        apply: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let undone = self.undoing(apply);
        if undone.is_err() {
            self.forget();
        }
        undone
    }

    /// Applies one operation in a savepoint.
    pub(super) fn alone_one(&mut self, operation: Operation) -> Result<Vec<Answer>, Error> {
        if operation.fails_without_trace() {
            return self.undoing(|tx| operation.apply(tx)).map(|answer| vec![answer]);
        }
        self.alone(|tx| operation.apply(tx)).map(|answer| vec![answer])
    }

    /// Applies in a savepoint, and leaves it to the caller what memory says after a failure.
    fn undoing<T>(
        &mut self,
        apply: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.db.savepoint()?;
        match apply(self) {
            Ok(answer) => match self.db.release() {
                Ok(()) => Ok(answer),
                Err(error) => {
                    self.forget();
                    Err(error)
                }
            },
            Err(error) => {
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

    /// Fails if the disk, or the way to the database, ended the transaction under
    /// a request that was answered so.
    pub(super) fn intact(&self, answer: &Result<Vec<Answer>, Error>) -> Result<(), Error> {
        if self.db.in_transaction() {
            return Ok(());
        }
        let unknown = || Error::Storage(Arc::from(Box::from("the transaction ended early")));
        Err(answer.as_ref().err().cloned().unwrap_or_else(unknown))
    }
}

impl Operation {
    /// Whether memory says of the store what is true after this failed: it changes
    /// nothing of what is kept there, or only a group that it took out and puts
    /// back when all is done. A lease that is held and a receipt that is stale are
    /// everyday answers, and must not cost everybody what memory has of their groups.
    const fn fails_without_trace(&self) -> bool {
        matches!(
            self,
            Self::Receive(_)
                | Self::Settle(_)
                | Self::Extend(_)
                | Self::Acquire(_)
                | Self::Renew(_)
                | Self::Release(_)
                | Self::CheckFence(_)
                | Self::PutState(_)
                | Self::DeleteState(_)
                | Self::Append(_)
        )
    }
}

/// The number up to which fences and tags may have been handed out.
fn stored_sequence(db: &impl Db) -> Result<u64, Error> {
    let sql = "SELECT max(value) FROM meta WHERE key = 'sequence'";
    let stored: Option<u64> = db.one(sql, &[], |row| row.get(0))?;
    Ok(stored.unwrap_or(0))
}

pub(super) struct Writer<D> {
    tx: Tx<D>,
    vitals: Arc<Vitals>,
    jobs: Receiver<Job>,
    queued: Arc<AtomicUsize>,
    work: Arc<Work>,
    bells: Arc<Bells>,
    waiting: Waiting,
    answers: Vec<(Reply, Result<Vec<Answer>, Error>)>,
    derived: Wall,
    /// Topics and resources in which other processes stirred something.
    heard: (Vec<i64>, Vec<String>),
    /// Whether this process does what is due.
    leads: bool,
    /// Whether the last batch failed: then the next is not hurried.
    failed: bool,
}

impl<D: Db> Writer<D> {
    pub(super) fn new(
        db: D,
        config: Arc<Config>,
        jobs: Receiver<Job>,
        shared: (Arc<AtomicUsize>, Arc<Work>, Arc<Bells>, Arc<Vitals>),
    ) -> Result<Self, Error> {
        let stored = stored_sequence(&db)?;
        let now = config.clock.now();
        let tx = Tx {
            db,
            now,
            rng: SplitMix64::new(now.as_micros()),
            topics: Topics::default(),
            groups: Groups::default(),
            collectors: Collectors::default(),
            schemas: Schemas::default(),
            due: Some(now),
            stirred: Vec::new(),
            freed: Vec::new(),
            released: Vec::new(),
            news: Vec::new(),
            sequence: stored,
            sequence_stored: stored,
            config,
        };
        let waiting = Waiting::default();
        let (queued, work, bells, vitals) = shared;
        let (answers, derived) = (Vec::new(), Wall::ZERO);
        let (heard, leads, failed) = (Default::default(), true, false);
        vitals.committed(0, now);
        Ok(Self {
            tx,
            vitals,
            jobs,
            queued,
            work,
            bells,
            waiting,
            answers,
            derived,
            heard,
            leads,
            failed,
        })
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
        self.tx.db.close();
    }

    /// How long nothing is due.
    fn pause(&self) -> Duration {
        let now = self.tx.config.clock.now();
        let (due, derive) = self.duties();
        let next = [due, self.waiting.next_wakeup(), derive].into_iter().flatten().min();
        let next = next.map_or(DERIVE_EVERY, |next| next.since(now)).min(DERIVE_EVERY);
        let next = self.tx.db.next_look().map_or(next, |look| next.min(look));
        if self.failed { next.max(AFTER_FAILURE) } else { next }
    }

    /// When something stored is due and when what is due is to be derived anew,
    /// if that is for this process to do.
    fn duties(&self) -> (Option<Wall>, Option<Wall>) {
        if self.leads { (self.tx.due, Some(self.derived + DERIVE_EVERY)) } else { (None, None) }
    }

    fn something_due(&self) -> bool {
        let (due, derive) = self.duties();
        let next = [due, self.waiting.next_wakeup(), derive].into_iter().flatten().min();
        next.is_some_and(|at| at <= self.tx.now)
            || self.tx.db.next_look().is_some_and(|look| look.is_zero())
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
        let requests = jobs.len();
        let result = self
            .begin(&jobs)
            .and_then(|()| self.fill(&mut jobs))
            .and_then(|()| self.tx.db.commit());
        if let Err(error) = &result {
            // Once is enough for a disk that stays as it is.
            if self.failed {
                tracing::debug!(%error, "a batch could not be committed");
            } else {
                tracing::error!(%error, code = error.code(), "a batch could not be committed");
            }
            if self.tx.db.in_transaction() {
                let _ = self.tx.db.rollback();
            }
            self.tx.forget();
            self.tx.sequence_stored = self.tx.sequence;
        }
        self.failed = result.is_err();
        self.work.transactions.fetch_add(1, Ordering::Relaxed);
        // Even if it failed: the database may have it all the same.
        self.bells.ring(&self.tx.news);
        let failed = result.as_ref().err().cloned().unwrap_or(Error::Closed);
        self.answers.extend(jobs.drain(..).map(|job| (job.reply, Err(failed.clone()))));
        for (reply, answer) in self.answers.drain(..) {
            // A refusal may rest on what was written before it in this batch, and
            // that is gone with the batch.
            let answer = result.clone().and(answer);
            // Whoever asked may have gone away.
            let _ = reply.send(answer);
        }
        if result.is_ok() {
            self.vitals.committed(requests, self.tx.now);
            self.tx.db.committed();
        }
    }

    /// Applies the jobs; those that are left when it fails were not looked at.
    fn fill(&mut self, jobs: &mut Vec<Job>) -> Result<(), Error> {
        jobs.reverse();
        while let Some(job) = jobs.pop() {
            self.one(job)?;
        }
        self.due()?;
        let freed = self.tx.freed.iter().map(|(topic, _)| *topic);
        let stirred: Vec<i64> = self.tx.stirred.iter().copied().chain(freed).collect();
        let released = self.tx.released.clone();
        self.tx.stirred.append(&mut self.heard.0);
        self.tx.released.append(&mut self.heard.1);
        self.waiting.stir(&mut self.tx, &mut self.answers)?;
        // What others said is not said again, and what was found for those who wait is news.
        self.tx.db.announce(&stirred, &released, &self.tx.news)
    }

    fn one(&mut self, job: Job) -> Result<(), Error> {
        let Job { mut operations, reply } = job;
        if let [operation] = &operations[..]
            && let Some(patience) = operation.patience()
        {
            let answer = self.tx.alone_one(operation.clone());
            if let Err(error) = self.tx.intact(&answer) {
                self.answers.push((reply, answer));
                return Err(error);
            }
            let again = operations.into_iter().next().ok_or(Error::Closed)?;
            let answers = &mut self.answers;
            return self.waiting.or_wait(&mut self.tx, again, patience, answer, reply, answers);
        }
        let answer = if self.tx.is_one_statement(&operations) {
            // It is done whole or not at all by itself.
            let answer = self.tx.all(operations);
            if answer.is_err() {
                // It counted the message already.
                self.tx.topics.forget();
            }
            answer
        } else if operations.len() == 1
            && let Some(operation) = operations.pop()
        {
            self.tx.alone_one(operation)
        } else {
            self.tx.alone(|tx| tx.all(operations))
        };
        let intact = self.tx.intact(&answer);
        self.answers.push((reply, answer));
        intact
    }

    fn due(&mut self) -> Result<(), Error> {
        if !self.leads {
            return Ok(());
        }
        self.take_inbox()?;
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
                Operation::Publish(publish) => self.tx.is_relaxed(&publish.topic),
                _ => false,
            });
        self.tx.stirred.clear();
        self.tx.freed.clear();
        self.tx.released.clear();
        self.tx.news.clear();
        let begun = self.tx.db.begin(relaxed)?;
        self.tx.now = self.tx.now.max(begun.at_least);
        if begun.changed {
            self.tx.forget();
            self.tx.sequence_stored = stored_sequence(&self.tx.db)?;
            self.tx.sequence = self.tx.sequence_stored;
        }
        if begun.leads && (begun.changed || !self.leads) {
            self.tx.due = Some(self.tx.now);
        }
        self.leads = begun.leads;
        self.heard = (begun.topics, begun.resources);
        if begun.everybody {
            self.waiting.call_everybody();
        }
        Ok(())
    }

    /// Publishes what others handed in at the database itself.
    fn take_inbox(&mut self) -> Result<(), Error> {
        for inboxed in self.tx.db.inbox(self.tx.now)? {
            let published = self.tx.alone(|tx| tx.publish_one(&inboxed.topic, &inboxed.message));
            match published {
                Ok(_) => {}
                Err(error) if !self.tx.db.in_transaction() => return Err(error),
                Err(error) => self.tx.db.refuse(&inboxed, &error)?,
            }
        }
        Ok(())
    }
}
