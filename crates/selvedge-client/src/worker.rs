//! Takes the messages of a group and hands them to a function.
//!
//! While the function works on a message its lease is extended, so that nobody
//! else gets it; when it is done the message is acknowledged, and when it fails
//! the message comes back or becomes a dead letter, with the reason kept.

use std::{
    collections::hash_map::RandomState,
    fmt,
    future::{Future, poll_fn},
    hash::BuildHasher,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use selvedge_durable::{
    Engine, Error,
    group::{Delivery, Extend, GetGroup, Leave, Receive, Reply, Settle, Verdict},
};
use selvedge_patterns::{
    backoff::{self, Backoff},
    random::SplitMix64,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, interval_at, sleep},
};
use tracing::warn;

use crate::Client;

/// How a worker goes about it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Messages that are worked on at one time. Default 8.
    pub concurrency: usize,
    /// Who takes them: needed in an exclusive group, no two alike. Default nobody.
    pub consumer: Option<String>,
    /// How long each message is held unless extended; 1 ms to 12 h. Default that of the group.
    pub lease: Option<Duration>,
    /// How long one request waits for messages, and so the longest that an idle
    /// worker takes to stop. Default 5 s.
    pub wait: Duration,
    /// Attempts to answer a message, since what it says is worth more than a
    /// delivery that comes again. Default 5.
    pub answers_max: u32,
    /// Waits after a server that could not be asked. Default 50 ms to 5 s.
    pub backoff: backoff::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: 8,
            consumer: None,
            lease: None,
            wait: Duration::from_secs(5),
            answers_max: 5,
            backoff: backoff::Config::default(),
        }
    }
}

/// Why a message was not done.
#[derive(Clone, Debug)]
pub enum Failed {
    /// It is to come again, after the group's own wait or this one.
    Retry {
        /// Overrides the group's.
        after: Option<Duration>,
        /// Kept with the dead letter, if it becomes one.
        reason: String,
    },
    /// No repeat can help: it becomes a dead letter.
    Park {
        /// Kept with the dead letter.
        reason: String,
    },
}

impl Failed {
    /// To come again, since a repeat may help.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry { after: None, reason: reason.to_string() }
    }

    /// To become a dead letter, since no repeat can help.
    pub fn park(reason: impl fmt::Display) -> Self {
        Self::Park { reason: reason.to_string() }
    }
}

/// How much a worker did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Messages that were done.
    pub done: u64,
    /// Messages that failed.
    pub failed: u64,
    /// Messages whose answer did not count or could not be given: they come again.
    pub late: u64,
}

/// One group, of which messages can be taken.
#[derive(Clone, Debug)]
pub struct Group<E = Client> {
    engine: E,
    topic: Arc<str>,
    group: Arc<str>,
}

impl Client {
    /// The group of that name.
    #[must_use]
    pub fn group(&self, topic: &str, group: &str) -> Group {
        Group::new(self.clone(), topic, group)
    }
}

impl<E: Engine> Group<E> {
    /// A group of any engine, an embedded store too.
    #[must_use]
    pub fn new(engine: E, topic: &str, group: &str) -> Self {
        Self { engine, topic: topic.into(), group: group.into() }
    }

    /// Works until `shutdown` resolves; then takes nothing more, finishes what
    /// it holds and says how much it did. A function that panics has failed its
    /// message; the worker goes on.
    ///
    /// # Errors
    ///
    /// The server refuses the group: it is not there, or not for us. What may
    /// pass (a server that is away, overloaded, shutting down) is waited out.
    pub async fn run<F, R>(
        &self,
        config: Config,
        work: F,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Done, Error>
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        let lease = match config.lease {
            Some(lease) => lease,
            None => self.engine.execute(self.name()).await?.config.lease,
        };
        let room = Arc::new(Semaphore::new(config.concurrency.max(1)));
        let (work, mut all, mut done) = (Arc::new(work), JoinSet::new(), Done::default());
        let (mut backoff, mut rng) = (Backoff::new(), seeded());
        tokio::pin!(shutdown);
        let ended = loop {
            while let Some(one) = all.try_join_next() {
                done.count(one.unwrap_or(Outcome::Late));
            }
            let first = tokio::select! {
                () = &mut shutdown => break Ok(()),
                place = room.clone().acquire_owned() => place.ok(),
            };
            let receive = self.engine.execute(Receive {
                topic: self.topic.to_string(),
                group: self.group.to_string(),
                max: room.available_permits() + 1,
                lease: Some(lease),
                consumer: config.consumer.clone(),
                wait: config.wait,
            });
            drop(first);
            tokio::pin!(receive);
            let got = tokio::select! {
                got = &mut receive => got,
                () = &mut shutdown => {
                    // What is on its way is ours: given back, not left to its lease.
                    self.give_back(receive.await.unwrap_or_default()).await;
                    break Ok(());
                }
            };
            match got {
                Ok(got) => {
                    backoff = Backoff::new();
                    for delivery in got {
                        let place = room.clone().acquire_owned().await;
                        let (group, work, config) = (self.clone(), work.clone(), config.clone());
                        all.spawn(async move {
                            let outcome = group.one(delivery, &*work, lease, &config).await;
                            drop(place);
                            outcome
                        });
                    }
                }
                Err(error) if passes(&error) => {
                    warn!(%error, topic = %self.topic, group = %self.group, "no messages now");
                    let wait = backoff.next(&config.backoff, &mut rng);
                    tokio::select! {
                        () = &mut shutdown => break Ok(()),
                        () = sleep(wait) => {}
                    }
                }
                Err(error) => break Err(error),
            }
        };
        while let Some(one) = all.join_next().await {
            done.count(one.unwrap_or(Outcome::Late));
        }
        if let Some(consumer) = config.consumer {
            let GetGroup { topic, group } = self.name();
            // Otherwise those who stand by would wait until it counts as silent.
            let _ = self.engine.execute(Leave { topic, group, consumer }).await;
        }
        ended.map(|()| done)
    }

    fn name(&self) -> GetGroup {
        GetGroup { topic: self.topic.to_string(), group: self.group.to_string() }
    }

    /// Unlooked at, and not counted as an attempt.
    async fn give_back(&self, got: Vec<Delivery>) {
        if got.is_empty() {
            return;
        }
        let verdict = Verdict::Release { after: Duration::ZERO };
        let reply = |it: Delivery| Reply { receipt: it.receipt, verdict, reason: None };
        let replies = got.into_iter().map(reply).collect();
        let GetGroup { topic, group } = self.name();
        let settle = Settle { topic, group, replies, strict: false };
        if let Err(error) = self.engine.execute(settle).await {
            warn!(%error, "messages come again when their lease ends");
        }
    }

    /// Works on one message, holds it meanwhile, and answers it.
    async fn one<F, R>(
        &self,
        delivery: Delivery,
        work: &F,
        lease: Duration,
        config: &Config,
    ) -> Outcome
    where
        F: Fn(Delivery) -> R,
        R: Future<Output = Result<(), Failed>>,
    {
        let receipt = delivery.receipt;
        let hold = async {
            let every = (lease / 3).max(Duration::from_millis(1));
            let mut beat = interval_at(Instant::now() + every, every);
            loop {
                beat.tick().await;
                let GetGroup { topic, group } = self.name();
                let extend = Extend { topic, group, receipts: vec![receipt], lease: Some(lease) };
                // If it failed the next one may not; if it is too late, the answer says so.
                let _ = self.engine.execute(extend).await;
            }
        };
        let said = tokio::select! {
            said = guarded(|| work(delivery)) => said,
            never = hold => match never {},
        };
        let (verdict, reason) = match said {
            Ok(()) => (Verdict::Ack, None),
            Err(Failed::Retry { after, reason }) => (Verdict::Retry { after }, Some(reason)),
            Err(Failed::Park { reason }) => (Verdict::Park, Some(reason)),
        };
        let failed = verdict != Verdict::Ack;
        if !self.answer(Reply { receipt, verdict, reason }, config).await {
            Outcome::Late
        } else if failed {
            Outcome::Failed
        } else {
            Outcome::Done
        }
    }

    /// Answers a message; whether it counted. A receipt counts once, so asking
    /// again does no harm.
    async fn answer(&self, reply: Reply, config: &Config) -> bool {
        let (mut backoff, mut rng, mut unsure) = (Backoff::new(), seeded(), false);
        for _ in 0..config.answers_max.max(1) {
            let GetGroup { topic, group } = self.name();
            let settle = Settle { topic, group, replies: vec![reply.clone()], strict: false };
            match self.engine.execute(settle).await {
                // Stale after an answer that was lost: it was that one.
                Ok(answers) => return unsure || answers.first().is_some_and(Result::is_ok),
                Err(error) if passes(&error) => unsure |= matches!(error, Error::Unknown),
                Err(error) => {
                    warn!(%error, "a message cannot be answered, it comes again");
                    return false;
                }
            }
            sleep(backoff.next(&config.backoff, &mut rng)).await;
        }
        warn!("a message could not be answered, it comes again");
        false
    }
}

enum Outcome {
    Done,
    Failed,
    Late,
}

impl Done {
    const fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done => self.done += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Late => self.late += 1,
        }
    }
}

/// Whether waiting may help.
const fn passes(error: &Error) -> bool {
    error.retryable() || matches!(error, Error::Unknown)
}

/// Workers that lost one server together come back one by one.
fn seeded() -> SplitMix64 {
    SplitMix64::new(RandomState::new().hash_one(0))
}

/// What a function says of a message; a panic is a failure like others.
async fn guarded<R>(work: impl FnOnce() -> R) -> Result<(), Failed>
where
    R: Future<Output = Result<(), Failed>>,
{
    let panicked = |_| Err(Failed::retry("the function that worked on it panicked"));
    let begun = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(begun) => begun,
        Err(payload) => return panicked(payload),
    };
    tokio::pin!(begun);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| begun.as_mut().poll(cx))) {
        Ok(poll) => poll,
        Err(payload) => Poll::Ready(panicked(payload)),
    })
    .await
}
