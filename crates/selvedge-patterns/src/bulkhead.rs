//! Bounds how many attempts at a dependency run at once, and how many wait.
//!
//! A permit admits one attempt; when all are out, a bounded queue holds a few
//! callers for a bounded time. Giving a permit back hands it to the first
//! waiter, which then claims it by its ticket. How a waiter waits is the
//! caller's: [`Bulkhead::granted`] names the tickets to wake.
//!
//! Partitions of one [`Pool`] are elastic: each is sure of its minimum and may
//! grow to its maximum while the pool has something to spare.
//!
//! The fast path, nobody waiting, is one compare-and-swap. Deliberately
//! absent: priorities, and a queue without a bound.
//!
//! Source: Nygard, *Release It!*, 2nd edition, "Bulkheads".

use std::collections::VecDeque;
use std::sync::Arc;

use crate::config::ConfigError;
use crate::sync::{AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, lock};
use crate::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// Most callers that may wait.
pub const QUEUE_MAX: u32 = 65_536;

/// How many run and how many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Attempts that may run at once. Default 100.
    pub max_in_flight: u32,
    /// Callers that may wait; at most [`QUEUE_MAX`]. Default 0: none.
    pub queue: u32,
    /// How long each may wait. Default 50 ms.
    pub queue_for: Duration,
    /// Who comes next. Default [`Order::Fifo`].
    pub order: Order,
}

/// Who comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Who has waited longest.
    #[default]
    Fifo,
    /// Who came last: in a long queue the one whose caller is still there.
    Lifo,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_in_flight: 100,
            queue: 0,
            queue_for: Duration::from_millis(50),
            order: Order::default(),
        }
    }
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::require(
            (1..=1_000_000).contains(&self.max_in_flight),
            "max_in_flight",
            "must be between 1 and 1000000",
        )?;
        ConfigError::require(self.queue <= QUEUE_MAX, "queue", "must not be above 65536")?;
        ConfigError::require(
            self.queue == 0 || !self.queue_for.is_zero(),
            "queue_for",
            "must be longer than zero where there is a queue",
        )
    }
}

/// What the partitions of an elastic bulkhead share.
///
/// What one partition gives back to the pool does not wake those who wait at
/// another: they go on when something of their own comes back.
#[derive(Debug)]
pub struct Pool {
    spare: AtomicU32,
}

/// A bulkhead's part in a [`Pool`].
#[derive(Clone, Debug)]
pub struct Partition {
    pool: Arc<Pool>,
    sure: u32,
}

impl Pool {
    /// A pool of `size` permits, and one partition for each count in `sure`:
    /// so many are set aside for it, whatever the others do. What it may grow
    /// to is its `max_in_flight`.
    ///
    /// # Errors
    ///
    /// If less is there than is set aside.
    pub fn partitioned(
        size: u32,
        sure: &[u32],
    ) -> Result<(Arc<Self>, Vec<Partition>), ConfigError> {
        let set_aside: u64 = sure.iter().copied().map(u64::from).sum();
        let spare = u64::from(size).checked_sub(set_aside).ok_or(ConfigError::new(
            "size",
            "must not be smaller than what is set aside for its partitions together",
        ))?;
        let pool = Arc::new(Self { spare: AtomicU32::new(spare as u32) });
        let partition = |sure: &u32| Partition { pool: Arc::clone(&pool), sure: *sure };
        let partitions = sure.iter().map(partition).collect();
        Ok((pool, partitions))
    }

    /// Permits that any partition may borrow now.
    pub fn spare(&self) -> u32 {
        self.spare.load(Ordering::Relaxed)
    }

    fn borrow(&self) -> bool {
        self.spare
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spare| spare.checked_sub(1))
            .is_ok()
    }

    fn give_back(&self) {
        self.spare.fetch_add(1, Ordering::Relaxed);
    }
}

/// Leave to run one attempt. Give it to [`Bulkhead::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is never released makes the bulkhead smaller for ever"]
pub struct Permit(());

/// A place in the queue. Follow it with [`Bulkhead::claim`] until that answers
/// something else than [`Claim::Waiting`], or with [`Bulkhead::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// A number that no other ticket of the same bulkhead has.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// The answer to a caller.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run.
    Admitted(Permit),
    /// Wait, until then at most.
    Queued {
        /// The place in the queue.
        ticket: Ticket,
        /// When waiting ends.
        until: Instant,
    },
    /// Neither.
    Rejected(Rejected),
}

/// The answer to one that waits.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// Run.
    Admitted(Permit),
    /// Not yet.
    Waiting {
        /// When waiting ends.
        until: Instant,
    },
    /// It took too long.
    Rejected(Rejected),
}

/// Why an attempt may not run, with the numbers it was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub reason: Reason,
    /// Attempts that run.
    pub in_flight: u32,
    /// Callers that wait.
    pub queued: u32,
}

/// Why an attempt may not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// All permits are out and nobody may wait.
    Full,
    /// All permits are out and as many wait as may.
    QueueFull,
    /// It waited as long as it may, or had no time to wait at all.
    QueueTimeout,
}

impl Reason {
    /// A stable word for logs, metrics and problem documents.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Full => "bulkhead_full",
            Self::QueueFull => "bulkhead_queue_full",
            Self::QueueTimeout => "bulkhead_queue_timeout",
        }
    }
}

/// What is known of a bulkhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Attempts that run, or were granted a permit and have not claimed it.
    pub in_flight: u32,
    /// Attempts that may run at once.
    pub max_in_flight: u32,
    /// Callers that wait.
    pub queued: u32,
    /// Callers that may wait.
    pub queue: u32,
    /// Callers turned away since it was made.
    pub rejected: u64,
}

/// A bulkhead, shared by as many threads as like.
#[derive(Debug)]
pub struct Bulkhead {
    /// Waiting in the high half, running in the low half: one word, so that
    /// nobody slips past the queue and no release overlooks it.
    word: AtomicU64,
    /// What it is sure of above the most in flight.
    limits: AtomicU64,
    rejected: AtomicU64,
    unannounced: AtomicU32,
    partition: Option<Partition>,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    config: Config,
    last: u64,
    waiting: VecDeque<Waiter>,
    /// Those handed a permit that they have not claimed.
    granted: Vec<Ticket>,
    /// Granted and not yet named by [`Bulkhead::granted`].
    unannounced: VecDeque<Ticket>,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    ticket: Ticket,
    until: Instant,
}

const WAITING: u64 = 1 << 32;

const fn pack(high: u32, low: u32) -> u64 {
    ((high as u64) << 32) | low as u64
}

const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

const fn low(word: u64) -> u32 {
    word as u32
}

impl Bulkhead {
    /// An empty bulkhead; elastic if it is given a partition of a [`Pool`].
    #[must_use]
    pub fn new(config: Config, partition: Option<Partition>) -> Self {
        Self {
            word: AtomicU64::new(0),
            limits: AtomicU64::new(limits(&config, partition.as_ref())),
            rejected: AtomicU64::new(0),
            unannounced: AtomicU32::new(0),
            partition,
            queue: Mutex::new(Queue {
                config,
                last: 0,
                waiting: VecDeque::with_capacity(config.queue as usize),
                granted: Vec::with_capacity(config.queue as usize),
                unannounced: VecDeque::with_capacity(config.queue as usize),
            }),
        }
    }

    /// What it was built with, or changed to since.
    pub fn config(&self) -> Config {
        lock(&self.queue).config
    }

    /// Asks to run one attempt, waiting until `patience` at most if it must.
    #[inline]
    pub fn admit(&self, now: Instant, patience: Instant) -> Decision {
        match self.try_admit() {
            Some(permit) => Decision::Admitted(permit),
            None => self.enqueue(now, patience),
        }
    }

    /// Asks to run one attempt now or not at all; nobody who waits is passed over.
    #[inline]
    pub fn try_admit(&self) -> Option<Permit> {
        self.take(|word| high(word) == 0)
    }

    /// An attempt ended: its permit goes to the next in the queue, if there is one.
    #[inline]
    pub fn release(&self, now: Instant, permit: Permit) {
        let Permit(()) = permit;
        let mut word = self.word.load(Ordering::Relaxed);
        while high(word) == 0 {
            match self.word.compare_exchange_weak(
                word,
                word - 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return self.gave_back(low(word)),
                Err(seen) => word = seen,
            }
        }
        self.pass_on(now, &mut lock(&self.queue));
    }

    /// What has become of `ticket`.
    pub fn claim(&self, now: Instant, ticket: Ticket) -> Claim {
        let mut queue = lock(&self.queue);
        if let Some(place) = queue.granted.iter().position(|granted| *granted == ticket) {
            queue.granted.swap_remove(place);
            return Claim::Admitted(Permit(()));
        }
        match queue.waiting.iter().position(|waiter| waiter.ticket == ticket) {
            Some(place) if now < queue.waiting[place].until => {
                Claim::Waiting { until: queue.waiting[place].until }
            }
            place => {
                if let Some(place) = place {
                    queue.waiting.remove(place);
                    self.word.fetch_sub(WAITING, Ordering::AcqRel);
                }
                Claim::Rejected(self.rejection(Reason::QueueTimeout))
            }
        }
    }

    /// Whoever held `ticket` no longer waits.
    pub fn cancel(&self, now: Instant, ticket: Ticket) {
        let mut queue = lock(&self.queue);
        if let Some(place) = queue.granted.iter().position(|granted| *granted == ticket) {
            queue.granted.swap_remove(place);
            self.pass_on(now, &mut queue);
        } else if let Some(place) = queue.waiting.iter().position(|waiter| waiter.ticket == ticket)
        {
            queue.waiting.remove(place);
            self.word.fetch_sub(WAITING, Ordering::AcqRel);
        }
    }

    /// A ticket that was granted and whose holder has not been told: wake it,
    /// so that it claims. Ask until there is none; one load if there is none.
    #[inline]
    pub fn granted(&self) -> Option<Ticket> {
        if self.unannounced.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let ticket = lock(&self.queue).unannounced.pop_front()?;
        self.unannounced.fetch_sub(1, Ordering::Relaxed);
        Some(ticket)
    }

    /// Goes on under a changed `config`. Who runs or waits stays; more room is
    /// given to those who wait.
    pub fn reconfigure(&self, now: Instant, config: Config) {
        let mut queue = lock(&self.queue);
        queue.config = config;
        self.limits.store(limits(&config, self.partition.as_ref()), Ordering::Relaxed);
        while !queue.waiting.is_empty() {
            let Some(Permit(())) = self.take(|_| true) else { break };
            self.pass_on(now, &mut queue);
        }
    }

    /// What is known of it.
    pub fn view(&self) -> View {
        let word = self.word.load(Ordering::Relaxed);
        View {
            in_flight: low(word),
            max_in_flight: low(self.limits.load(Ordering::Relaxed)),
            queued: high(word),
            queue: lock(&self.queue).config.queue,
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }

    /// Counts one more in flight if there is room and `may` agrees.
    #[inline]
    fn take(&self, may: impl Fn(u64) -> bool) -> Option<Permit> {
        let limits = self.limits.load(Ordering::Relaxed);
        let (sure, max) = (high(limits), low(limits));
        let mut borrowed = false;
        let mut word = self.word.load(Ordering::Relaxed);
        let taken = loop {
            if low(word) >= max || !may(word) {
                break None;
            }
            if low(word) >= sure && !borrowed {
                borrowed = self.partition.as_ref().is_none_or(|it| it.pool.borrow());
                if !borrowed {
                    break None;
                }
            }
            match self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => break Some(low(word)),
                Err(seen) => word = seen,
            }
        };
        if borrowed && taken.is_none_or(|before| before < sure) {
            self.lend_back();
        }
        taken.map(|_| Permit(()))
    }

    /// One fewer is in flight than `before`: what was borrowed goes back.
    fn gave_back(&self, before: u32) {
        if before > high(self.limits.load(Ordering::Relaxed)) {
            self.lend_back();
        }
    }

    fn lend_back(&self) {
        if let Some(partition) = &self.partition {
            partition.pool.give_back();
        }
    }

    #[cold]
    fn enqueue(&self, now: Instant, patience: Instant) -> Decision {
        let mut queue = lock(&self.queue);
        // From here nobody else joins the queue, and no release overlooks who
        // has; what is left is that room was made meanwhile.
        let until = patience.min(now + queue.config.queue_for);
        let room = high(self.word.load(Ordering::Acquire)) < queue.config.queue;
        if !room || until <= now {
            let reason = match queue.config.queue {
                0 => Reason::Full,
                _ if room => Reason::QueueTimeout,
                _ => Reason::QueueFull,
            };
            return Decision::Rejected(self.rejection(reason));
        }
        self.word.fetch_add(WAITING, Ordering::AcqRel);
        if let Some(permit) = self.take(|word| high(word) == 1) {
            self.word.fetch_sub(WAITING, Ordering::AcqRel);
            return Decision::Admitted(permit);
        }
        queue.last += 1;
        let ticket = Ticket(queue.last);
        queue.waiting.push_back(Waiter { ticket, until });
        Decision::Queued { ticket, until }
    }

    /// Hands the permit of one that is counted as in flight to the next that
    /// still waits, or stops counting it.
    fn pass_on(&self, now: Instant, queue: &mut MutexGuard<'_, Queue>) {
        // A smaller limit since: the room is not given away again.
        let word = self.word.load(Ordering::Acquire);
        let shrunk = low(word) > low(self.limits.load(Ordering::Relaxed));
        let next = if shrunk { None } else { self.next(now, queue) };
        match next {
            Some(ticket) => {
                queue.granted.push(ticket);
                queue.unannounced.push_back(ticket);
                self.unannounced.fetch_add(1, Ordering::Relaxed);
            }
            None => self.gave_back(low(self.word.fetch_sub(1, Ordering::AcqRel))),
        }
    }

    /// Takes the next that still waits out of the queue.
    fn next(&self, now: Instant, queue: &mut Queue) -> Option<Ticket> {
        loop {
            let place = match queue.config.order {
                Order::Fifo => 0,
                Order::Lifo => queue.waiting.len().checked_sub(1)?,
            };
            // Those whose time is over learn it when they claim.
            let waiter = queue.waiting.remove(place)?;
            self.word.fetch_sub(WAITING, Ordering::AcqRel);
            if now < waiter.until {
                return Some(waiter.ticket);
            }
        }
    }

    fn rejection(&self, reason: Reason) -> Rejected {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        let word = self.word.load(Ordering::Relaxed);
        Rejected { reason, in_flight: low(word), queued: high(word) }
    }
}

/// Without a pool everything up to the maximum is sure.
fn limits(config: &Config, partition: Option<&Partition>) -> u64 {
    let sure = partition.map_or(config.max_in_flight, |partition| partition.sure);
    pack(sure, config.max_in_flight)
}
