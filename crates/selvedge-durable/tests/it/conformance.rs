//! What every store must do: written against [`Engine`] alone, and run over
//! each backend by [`suite`].

macro_rules! cases {
    ($module:ident, $($case:ident),* $(,)?) => {
        macro_rules! suite { ($open:path) => {
            mod $module { $(
                #[tokio::test]
                async fn $case() {
                    let (world, _keep) = $open();
                    crate::conformance::$module::$case(&world).await;
                }
            )* }
        } }
        pub(crate) use suite;
    };
}

pub(crate) mod aggregates;
pub(crate) mod bounds;
pub(crate) mod collecting;
pub(crate) mod exclusive;
pub(crate) mod filters;
pub(crate) mod groups;
pub(crate) mod levelling;
pub(crate) mod projections;
pub(crate) mod schedules;
pub(crate) mod schemas;
pub(crate) mod state;
pub(crate) mod streams;
pub(crate) mod topics;
pub(crate) mod watches;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use selvedge_durable::{
    Clock, Engine, Error, ManualClock, Request,
    group::{Config, Delivery, PutGroup, Receive, Reply, Settle, Verdict},
    topic::{From, NewMessage, Place, Publish, PutTopic, Settings},
};
use selvedge_patterns::wall::Wall;

/// A store under test, its clock, and a way to let it do what is due.
pub(crate) struct World<E> {
    pub(crate) engine: E,
    pub(crate) clock: Arc<ManualClock>,
}

/// A store that a test can move through time.
pub(crate) trait TestEngine: Engine {
    fn wake(&self) -> impl Future<Output = ()> + Send;
}

/// Ten days after the start of a certain year, so that times are large.
pub(crate) fn start() -> Wall {
    Wall::from_secs(1_800_000_000)
}

impl<E: TestEngine> World<E> {
    pub(crate) fn clock_now(&self) -> Wall {
        Clock::now(&*self.clock)
    }

    pub(crate) async fn run<R: Request>(&self, request: R) -> R::Reply {
        self.engine.execute(request).await.unwrap()
    }

    pub(crate) async fn fails<R: Request>(&self, request: R) -> Error
    where
        R::Reply: std::fmt::Debug,
    {
        self.engine.execute(request).await.unwrap_err()
    }

    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.engine.wake().await;
    }

    pub(crate) async fn topic(&self, name: &str, settings: Settings) {
        self.run(PutTopic { name: name.to_owned(), settings }).await;
    }

    pub(crate) async fn group(&self, topic: &str, group: &str, config: Config) {
        let (topic, group) = (topic.to_owned(), group.to_owned());
        self.run(PutGroup { topic, group, config, from: From::First }).await;
    }

    pub(crate) async fn publish(&self, topic: &str, message: NewMessage) -> Place {
        let publish = Publish { topic: topic.to_owned(), messages: vec![message] };
        self.run(publish).await[0].place
    }

    pub(crate) async fn receive(&self, topic: &str, group: &str, max: usize) -> Vec<Delivery> {
        self.run(receive(topic, group, max)).await
    }

    pub(crate) async fn settle(
        &self,
        topic: &str,
        group: &str,
        delivery: &Delivery,
        verdict: Verdict,
    ) {
        let answers = self.run(settle(topic, group, delivery, verdict)).await;
        assert!(answers[0].is_ok(), "{answers:?}");
    }
}

pub(crate) fn receive(topic: &str, group: &str, max: usize) -> Receive {
    let (topic, group) = (topic.to_owned(), group.to_owned());
    Receive { topic, group, max, lease: None, consumer: None, wait: Duration::ZERO }
}

pub(crate) fn settle(topic: &str, group: &str, delivery: &Delivery, verdict: Verdict) -> Settle {
    let reply = Reply { receipt: delivery.receipt, verdict, reason: Some("broken".to_owned()) };
    Settle { topic: topic.to_owned(), group: group.to_owned(), replies: vec![reply], strict: false }
}

pub(crate) fn message(text: &str) -> NewMessage {
    NewMessage { payload: Some(Bytes::copy_from_slice(text.as_bytes())), ..NewMessage::default() }
}

pub(crate) fn keyed(key: &str, text: &str) -> NewMessage {
    NewMessage { key: Some(key.to_owned()), ..message(text) }
}

pub(crate) fn texts(deliveries: &[Delivery]) -> Vec<String> {
    let text = |delivery: &Delivery| {
        String::from_utf8_lossy(delivery.message.payload.as_deref().unwrap_or(b"-")).into_owned()
    };
    deliveries.iter().map(text).collect()
}

macro_rules! suite {
    ($open:path) => {
        crate::conformance::topics::suite!($open);
        crate::conformance::groups::suite!($open);
        crate::conformance::levelling::suite!($open);
        crate::conformance::filters::suite!($open);
        crate::conformance::exclusive::suite!($open);
        crate::conformance::collecting::suite!($open);
        crate::conformance::bounds::suite!($open);
        crate::conformance::schemas::suite!($open);
        crate::conformance::streams::suite!($open);
        crate::conformance::state::suite!($open);
        crate::conformance::schedules::suite!($open);
        crate::conformance::aggregates::suite!($open);
        crate::conformance::projections::suite!($open);
        crate::conformance::watches::suite!($open);
    };
}
pub(crate) use suite;
