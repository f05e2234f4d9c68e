//! An engine that is watched while it works: whether it can write, who asks
//! for messages, how long a publish takes.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use selvedge_patterns::{group::Settled, wall::Wall};

use crate::{
    Answer, Clock, Engine, Error, Operation, Subject, Watch,
    doctor::{self, Snapshot},
    group::{ListDeadLetters, ListGroups},
    lease::ListLeases,
    schedule::ListSchedules,
    state,
    telemetry::{self, Counts, GroupCounts, TopicCounts},
    topic::ListTopics,
};

/// An [`Engine`] that remembers how its last write went, and counts.
#[derive(Clone)]
pub struct Observed<E> {
    engine: E,
    clock: Arc<dyn Clock>,
    seen: Arc<Seen>,
}

impl<E> std::fmt::Debug for Observed<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// Who asks a group for messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumers {
    /// When somebody last asked, as far as this process knows.
    pub last: Option<Wall>,
    /// How many wait for a message at this moment.
    pub waiting: u64,
}

#[derive(Debug)]
struct Seen {
    since: Wall,
    /// Kept beside `trouble` so that a good write costs one load.
    troubled: AtomicBool,
    trouble: Mutex<Option<Error>>,
    waiting: AtomicU64,
    counts: Counts,
}

impl Seen {
    fn note<T>(&self, result: &Result<T, Error>) {
        match result {
            Err(error) if is_trouble(error) => {
                *self.trouble.lock() = Some(error.clone());
                self.troubled.store(true, Relaxed);
            }
            // Refused by a rule: the store is well and said no.
            _ => {
                if self.troubled.load(Relaxed) {
                    *self.trouble.lock() = None;
                    self.troubled.store(false, Relaxed);
                }
            }
        }
    }
}

/// Whether the store failed, and not the request.
const fn is_trouble(error: &Error) -> bool {
    matches!(
        error,
        Error::DiskFull
            | Error::Corrupt { .. }
            | Error::Closed
            | Error::Unsynced { .. }
            | Error::Storage(_)
    )
}

/// One who waits, until the answer is there or nobody wants it.
struct Waiting {
    seen: Arc<Seen>,
    group: Option<Arc<GroupCounts>>,
}

impl Waiting {
    fn new(seen: &Arc<Seen>, group: Option<Arc<GroupCounts>>) -> Self {
        let waiting = Self { seen: Arc::clone(seen), group };
        waiting.each(|count| {
            count.fetch_add(1, Relaxed);
        });
        waiting
    }

    fn each(&self, change: impl Fn(&AtomicU64)) {
        change(&self.seen.waiting);
        if let Some(group) = &self.group {
            change(&group.waiting);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.each(|count| {
            count.fetch_sub(1, Relaxed);
        });
    }
}

/// What an operation counts for once it has succeeded.
enum Counted {
    Nothing,
    Topic(String),
    Group(String, String),
}

impl Counted {
    fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Publish(it) => Self::Topic(it.topic.clone()),
            Operation::Receive(it) => Self::Group(it.topic.clone(), it.group.clone()),
            Operation::Settle(it) => Self::Group(it.topic.clone(), it.group.clone()),
            _ => Self::Nothing,
        }
    }

    fn count(self, counts: &Counts, answer: &Answer, now: Wall, took: Duration) {
        match (self, answer) {
            (Self::Topic(topic), Answer::Publish(published)) => {
                if let Some(counts) = counts.topics.of(topic) {
                    TopicCounts::published(&counts, published.len() as u64, took);
                }
            }
            (Self::Group(topic, group), answer) => {
                let Some(counts) = counts.groups.of((topic, group)) else { return };
                let add = |to: &AtomicU64, count: usize| to.fetch_add(count as u64, Relaxed);
                match answer {
                    Answer::Receive(got) => {
                        counts.asked.store(now.as_micros(), Relaxed);
                        add(&counts.deliveries, got.len());
                        let again = got.iter().filter(|it| it.receipt.attempt > 1).count();
                        add(&counts.redeliveries, again);
                    }
                    Answer::Settle(settled) => {
                        let good = settled.iter().filter(|it| matches!(it, Ok(Settled::Acked)));
                        let good = good.count();
                        add(&counts.acked, good);
                        let all = settled.iter().filter(|it| it.is_ok()).count();
                        add(&counts.failed, all - good);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// The key that [`Observed::probe`] writes and removes.
const PROBE: &str = "selvedge/probe";
/// Leases that are named in one examination.
const LEASES_MAX: usize = 100;
/// Dead letters that are looked up for one examination.
const LETTERS_MAX: usize = 100;

impl<E: Engine> Observed<E> {
    /// `engine`, watched from now on by `clock`.
    #[must_use]
    pub fn new(engine: E, clock: Arc<dyn Clock>) -> Self {
        let seen = Seen {
            since: clock.now(),
            troubled: AtomicBool::new(false),
            trouble: Mutex::default(),
            waiting: AtomicU64::new(0),
            counts: Counts::default(),
        };
        Self { engine, clock, seen: Arc::new(seen) }
    }

    /// The engine itself.
    #[must_use]
    pub const fn engine(&self) -> &E {
        &self.engine
    }

    /// Why the last write failed, if that was the store's fault: until a write
    /// succeeds again it cannot be relied on.
    #[must_use]
    pub fn trouble(&self) -> Option<Error> {
        self.seen.trouble.lock().clone()
    }

    /// Receives and acquires that wait for something to come at this moment.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.seen.waiting.load(Relaxed)
    }

    /// Writes something and takes it back, to find out whether a trouble is over.
    ///
    /// # Errors
    ///
    /// Those of a write.
    pub fn probe(&self) -> impl Future<Output = Result<(), Error>> + Send + use<E> {
        let key = PROBE.to_owned();
        let condition = state::Condition::Any;
        let put = state::PutState {
            key: key.clone(),
            value: bytes::Bytes::new(),
            content_type: None,
            condition,
            ttl: None,
        };
        let write = self.transact(vec![
            Operation::PutState(put),
            Operation::DeleteState(state::DeleteState { key, condition }),
        ]);
        async move { write.await.map(drop) }
    }

    /// Everything that [`doctor::examine`] and [`Self::metrics`] go by; what
    /// only the owner of the engine knows (queue, log, disk) is left out.
    ///
    /// # Errors
    ///
    /// Those of a read.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let asked = vec![
            Operation::ListTopics(ListTopics),
            Operation::ListGroups(ListGroups { topic: None }),
            Operation::ListSchedules(ListSchedules),
            Operation::ListLeases(ListLeases {
                held_for: Some(doctor::LEASED),
                max: LEASES_MAX,
                ..ListLeases::default()
            }),
        ];
        let mut snapshot = Snapshot {
            now: self.clock.now(),
            watched_since: self.seen.since,
            trouble: self.trouble(),
            ..Snapshot::default()
        };
        for answer in self.engine.transact(asked).await? {
            match answer {
                Answer::ListTopics(topics) => snapshot.topics = topics,
                Answer::ListLeases(leases) => snapshot.leases = leases,
                Answer::ListSchedules(schedules) => snapshot.schedules = schedules,
                Answer::ListGroups(groups) => {
                    snapshot.groups = groups.into_iter().map(|it| self.group(it)).collect();
                }
                _ => {}
            }
        }
        let failed = snapshot.groups.iter_mut().filter(|it| it.status.dead > 0);
        for group in failed.take(LETTERS_MAX) {
            let (topic, name) = (group.status.topic.clone(), group.status.group.clone());
            let first = ListDeadLetters { topic, group: name, from: 0, max: 1 };
            // It may have been redriven meanwhile, or the group be gone.
            let letters = self.engine.execute(first).await.unwrap_or_default();
            group.letter = letters.into_iter().next();
        }
        Ok(snapshot)
    }

    fn group(&self, status: crate::group::Status) -> doctor::Group {
        let name = (status.topic.clone(), status.group.clone());
        let consumers = self.seen.counts.groups.get(&name).map(|counts| {
            let asked = counts.asked.load(Relaxed);
            let last = (asked > 0).then(|| Wall::from_micros(asked));
            Consumers { last, waiting: counts.waiting.load(Relaxed) }
        });
        doctor::Group { status, consumers: consumers.unwrap_or_default(), letter: None }
    }

    /// The metrics of the store as Prometheus text.
    pub fn metrics(&self, snapshot: &Snapshot, out: &mut String) {
        telemetry::write(out, snapshot, &self.seen.counts);
        let name = "selvedge_store_waiting";
        let help = "Receives and acquires that wait for something to come.";
        telemetry::gauge(out, name, help, self.waiting());
    }

    /// Remembers that somebody asks, and that they wait if they do.
    fn asks(&self, operations: &[Operation]) -> Option<Waiting> {
        match operations {
            [Operation::Receive(it)] => {
                let name = (it.topic.clone(), it.group.clone());
                // A name that nothing has gets no series before it succeeds once.
                let group = self.seen.counts.groups.get(&name);
                if let Some(group) = &group {
                    group.asked.store(self.clock.now().as_micros(), Relaxed);
                }
                (!it.wait.is_zero()).then(|| Waiting::new(&self.seen, group))
            }
            [Operation::Acquire(it)] if !it.wait.is_zero() => Some(Waiting::new(&self.seen, None)),
            _ => None,
        }
    }
}

impl<E: Engine> Engine for Observed<E> {
    fn transact(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send + 'static + use<E> {
        let writes = operations.iter().any(|operation| !operation.is_read());
        let counted: Vec<Counted> =
            if writes { operations.iter().map(Counted::of).collect() } else { Vec::new() };
        let waiting = self.asks(&operations);
        let seen = Arc::clone(&self.seen);
        let clock = Arc::clone(&self.clock);
        let begun = Instant::now();
        let answer = self.engine.transact(operations);
        async move {
            let answer = answer.await;
            drop(waiting);
            if writes {
                seen.note(&answer);
                if let Ok(answers) = &answer {
                    let (now, took) = (clock.now(), begun.elapsed());
                    for (counted, answer) in counted.into_iter().zip(answers) {
                        counted.count(&seen.counts, answer, now, took);
                    }
                }
            }
            answer
        }
    }

    fn watch(&self, subject: Subject) -> Watch {
        self.engine.watch(subject)
    }
}
