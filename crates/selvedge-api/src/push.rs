//! Brings a group's messages to a service, as CloudEvents over HTTP.
//!
//! A loop receives from the group, posts each message through the data plane,
//! by the policies that the service has anyway, and settles it by the answer:
//! 2xx is done, 410 pauses the group, what the service never saw is given back
//! at no cost, and everything else is retried as the group says and becomes a
//! dead letter in the end. While every endpoint's breaker is open nothing is
//! received, so that an outage burns no attempts.
//!
//! Delivery is at least once: a receiver tells a repeat by `webhook-id`, which
//! is the same for every attempt at a message. With secrets, each request is
//! signed as Standard Webhooks 1.0 has it; the signature covers the body, so
//! the structured mode, where the attributes are in it, is the one to sign.

mod carry;
mod sign;
#[cfg(test)]
mod tests;

use std::{
    collections::hash_map::RandomState,
    future::{Future, pending},
    hash::{BuildHasher as _, Hasher as _},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use selvedge_durable::{
    Clock, Engine, Error, SystemClock,
    group::{Delivery, Leave, Pause, Receive, Reply, Settle, Verdict},
};
use selvedge_patterns::push::{Answer, Decision, decide};
use tokio::{task::JoinSet, time::Instant};
use tracing::{debug, warn};

use crate::app::cloud;

pub use carry::{Carrier, Through};
pub use sign::{Secret, signature};

/// How an event is put into a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Attributes as `ce-…` headers, the payload as the body.
    #[default]
    Binary,
    /// All of it as JSON in the body.
    Structured,
}

/// What is pushed where, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The topic.
    pub topic: String,
    /// The group, which decides on order, retries and dead letters.
    pub group: String,
    /// Path and query of the requests, from `/`.
    pub path: String,
    /// How events are put into requests. Default binary.
    pub mode: Mode,
    /// What requests are signed with, all of them with each. Default none.
    pub secrets: Vec<Secret>,
    /// Requests at one time. Default 16, at least 1; only 1 keeps the order of an
    /// exclusive group.
    pub concurrency: usize,
    /// How long an answer may take. Default 20 s.
    pub timeout: Duration,
}

impl Config {
    /// The defaults, for a group of a topic.
    #[must_use]
    pub fn new(topic: impl Into<String>, group: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            group: group.into(),
            path: "/".to_owned(),
            mode: Mode::default(),
            secrets: Vec::new(),
            concurrency: 16,
            timeout: Duration::from_secs(20),
        }
    }
}

/// A message is held for this much longer than an answer may take.
const MARGIN: Duration = Duration::from_secs(10);
/// How long one question for messages waits: the end is noticed no later.
const PATIENCE: Duration = Duration::from_secs(1);
/// The first pause after the store failed; each further one is twice as long, up to 64 times.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

type Received = Pin<Box<dyn Future<Output = Result<Vec<Delivery>, Error>> + Send>>;

/// Pushes one group.
#[derive(Debug)]
pub struct Push<E, C> {
    /// Its name among the consumers of an exclusive group: no other process has it.
    consumer: String,
    engine: E,
    carrier: C,
    config: Config,
}

impl<E: Engine, C: Carrier> Push<E, C> {
    /// Pushes as `config` says, by way of `carrier`.
    #[must_use]
    pub fn new(engine: E, carrier: C, config: Config) -> Self {
        let consumer = format!("push-{:016x}", RandomState::new().build_hasher().finish());
        Self { consumer, engine, carrier, config }
    }

    /// Pushes until `shutdown` resolves, then waits for the requests that are out.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let push = Arc::new(self);
        let mut shutdown = pin!(shutdown);
        let mut out: JoinSet<Option<Duration>> = JoinSet::new();
        let mut receiving: Option<Received> = None;
        let (mut not_before, mut failures) = (Instant::now(), 0);
        loop {
            let room = push.config.concurrency.max(1).saturating_sub(out.len());
            if let Some(wait) = push.carrier.held_back() {
                not_before = not_before.max(Instant::now() + wait);
            }
            if receiving.is_none() && room > 0 && Instant::now() >= not_before {
                receiving = Some(Box::pin(push.receive(room)));
            }
            let idle = receiving.is_none() && room > 0;
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = out.join_next(), if !out.is_empty() => {
                    if let Ok(Some(wait)) = ended {
                        not_before = not_before.max(Instant::now() + wait);
                    }
                }
                received = next(&mut receiving) => {
                    receiving = None;
                    match received {
                        Ok(deliveries) => {
                            failures = 0;
                            for delivery in deliveries {
                                let push = Arc::clone(&push);
                                out.spawn(async move { push.deliver(delivery).await });
                            }
                        }
                        Err(error) => {
                            let (topic, group) = (&push.config.topic, &push.config.group);
                            warn!(topic, group, %error, "nothing could be received to push");
                            not_before = Instant::now() + AFTER_FAILURE * (1 << failures.min(6));
                            failures += 1;
                        }
                    }
                }
                () = tokio::time::sleep_until(not_before), if idle => {}
            }
        }
        // What has been asked for may have been leased: it is given back at once.
        if let Some(receiving) = receiving
            && let Ok(deliveries) = receiving.await
        {
            for delivery in deliveries {
                push.settle(&delivery, Verdict::Release { after: Duration::ZERO }, None).await;
            }
        }
        while out.join_next().await.is_some() {}
        push.leave().await;
    }

    /// Lets another process go on at once with a group that is exclusive.
    async fn leave(&self) {
        let (topic, group) = (self.config.topic.clone(), self.config.group.clone());
        let leave = Leave { topic, group, consumer: self.consumer.clone() };
        if let Err(error) = self.engine.execute(leave).await {
            debug!(group = self.config.group, %error, "the group could not be left");
        }
    }

    fn receive(
        &self,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Delivery>, Error>> + Send + use<E, C> {
        self.engine.execute(Receive {
            topic: self.config.topic.clone(),
            group: self.config.group.clone(),
            max,
            lease: Some(self.config.timeout + MARGIN),
            consumer: Some(self.consumer.clone()),
            wait: PATIENCE,
        })
    }

    /// Sends one message and settles it; says how long to send nothing, if so.
    async fn deliver(&self, delivery: Delivery) -> Option<Duration> {
        let request = self.request(&delivery);
        let sent = tokio::time::timeout(self.config.timeout, self.carrier.send(request)).await;
        let (answer, said) = sent.unwrap_or_else(|_| {
            (Answer::Failed, format!("no answer within {:?}", self.config.timeout))
        });
        let (verdict, wait) = match decide(answer) {
            Decision::Ack => (Verdict::Ack, None),
            Decision::Retry { after } => (Verdict::Retry { after }, None),
            Decision::Release { after } => (Verdict::Release { after }, Some(after)),
            Decision::Pause => {
                self.pause().await;
                (Verdict::Release { after: Duration::ZERO }, None)
            }
        };
        debug!(group = self.config.group, position = delivery.receipt.position, ?verdict, "pushed");
        self.settle(&delivery, verdict, Some(said)).await;
        wait
    }

    async fn settle(&self, delivery: &Delivery, verdict: Verdict, reason: Option<String>) {
        let reply = Reply { receipt: delivery.receipt, verdict, reason };
        let (topic, group) = (self.config.topic.clone(), self.config.group.clone());
        let settle = Settle { topic, group, replies: vec![reply], strict: false };
        // A lost answer, or a stale receipt, makes a repeat: never a loss.
        if let Err(error) = self.engine.execute(settle).await {
            let position = delivery.receipt.position;
            warn!(group = self.config.group, position, %error, "a pushed message is not settled");
        }
    }

    async fn pause(&self) {
        let (topic, group) = (self.config.topic.clone(), self.config.group.clone());
        warn!(
            topic,
            group, "the receiver answered 410: the group stands still until it is resumed"
        );
        if let Err(error) = self.engine.execute(Pause { topic, group, paused: true }).await {
            warn!(group = self.config.group, %error, "the group could not be paused");
        }
    }

    fn request(&self, delivery: &Delivery) -> Request<Full<Bytes>> {
        let (topic, message) = (&self.config.topic, &delivery.message);
        let (mut headers, body) = match self.config.mode {
            Mode::Binary => {
                (cloud::headers(topic, message), message.payload.clone().unwrap_or_default())
            }
            Mode::Structured => {
                let mut headers = http::HeaderMap::new();
                let media_type = "application/cloudevents+json; charset=utf-8";
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
                (headers, Bytes::from(cloud::event(topic, message).to_string()))
            }
        };
        // `~` is in no topic's name, so two topics never share an id.
        let id = format!("{}~{}", topic.replace('.', "~"), message.position);
        let seconds = SystemClock.now().as_micros() / 1_000_000;
        let mut put = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        if !self.config.secrets.is_empty() {
            put("webhook-signature", signature(&self.config.secrets, &id, seconds, &body));
        }
        put("webhook-timestamp", seconds.to_string());
        put("webhook-id", id);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.config.path.parse().unwrap_or_default();
        *request.headers_mut() = headers;
        request
    }
}

/// What is being received, when it comes; for ever if nothing is.
async fn next(receiving: &mut Option<Received>) -> Result<Vec<Delivery>, Error> {
    match receiving {
        Some(received) => received.await,
        None => pending().await,
    }
}
