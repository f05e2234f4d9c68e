//! What a worker does with the messages of a group.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use selvedge_client::worker::{Config, Done, Failed, Group};
use selvedge_durable::{
    Answer, Engine, Error, Operation,
    group::{Config as GroupConfig, Delivery, GetGroup, ListDeadLetters},
    topic::Settings,
};
use tokio::sync::{Notify, watch};

use crate::{
    conformance::message,
    over_http::{Far, world},
};

/// An engine that counts how often deliveries are held for longer.
#[derive(Clone)]
struct Counted {
    far: Far,
    beats: Arc<watch::Sender<u32>>,
}

impl Engine for Counted {
    fn transact(
        &self,
        operations: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send + 'static + use<> {
        let holds = matches!(operations[..], [Operation::Extend(_)]);
        let (answer, beats) = (self.far.transact(operations), self.beats.clone());
        async move {
            let answer = answer.await;
            if holds {
                beats.send_modify(|beats| *beats += 1);
            }
            answer
        }
    }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.payload.as_deref().unwrap_or_default().to_vec()).unwrap()
}

#[tokio::test]
async fn each_message_is_done_once_and_failures_come_back_or_are_kept_aside() {
    let (world, _keep) = world();
    world.topic("t", Settings::default()).await;
    let group = GroupConfig {
        retry_base: Duration::ZERO,
        retry_cap: Duration::ZERO,
        attempts: 3,
        ..GroupConfig::default()
    };
    world.group("t", "g", group).await;
    for n in 0..50 {
        world.publish("t", message(&format!("m{n}"))).await;
    }
    let (seen, at_once, most) = (
        Arc::new(Mutex::new(HashMap::<String, u32>::new())),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let counts = Arc::new((at_once, most));
    let (stop, enough) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let work = {
        let (seen, counts, stop) = (seen.clone(), counts.clone(), stop.clone());
        move |delivery: Delivery| {
            let (seen, counts, stop, enough) =
                (seen.clone(), counts.clone(), stop.clone(), enough.clone());
            async move {
                let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
                counts.1.fetch_max(now, Ordering::SeqCst);
                tokio::task::yield_now().await;
                counts.0.fetch_sub(1, Ordering::SeqCst);
                let name = text(&delivery);
                let times = {
                    let mut seen = seen.lock().unwrap();
                    let times = seen.entry(name.clone()).or_default();
                    *times += 1;
                    *times
                };
                let said = match (&name[..], times) {
                    ("m1", _) => Err(Failed::retry("never works")),
                    ("m2", _) => Err(Failed::park("no use")),
                    ("m3", 1) => panic!("a slip"),
                    _ => Ok(()),
                };
                // 48 that work, m1 three times, m2 once; who panics does not get here.
                if enough.fetch_add(1, Ordering::SeqCst) + 1 == 48 + 3 + 1 {
                    stop.notify_one();
                }
                said
            }
        }
    };
    let config = Config { concurrency: 4, wait: Duration::ZERO, ..Config::default() };
    let worker = world.engine.client.group("t", "g");
    let done = worker.run(config, work, stop.notified()).await.unwrap();
    assert_eq!(done, Done { done: 48, failed: 5, late: 0 });
    assert!(counts.1.load(Ordering::SeqCst) <= 4);
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    let letters = ListDeadLetters { topic: topic.clone(), group: group.clone(), from: 0, max: 9 };
    let letters = world.run(letters).await;
    let reasons: Vec<_> = letters.iter().map(|it| it.reason.as_deref().unwrap()).collect();
    assert_eq!(reasons, ["never works", "no use"]);
    let status = world.run(GetGroup { topic, group }).await;
    assert_eq!((status.lag, status.in_flight), (0, 0), "nothing is left to its lease");
}

#[tokio::test]
async fn a_message_is_held_while_it_is_worked_on_and_stopping_waits_for_it() {
    let (world, _keep) = world();
    world.topic("t", Settings::default()).await;
    world.group("t", "g", GroupConfig::default()).await;
    world.publish("t", message("long")).await;
    let (begun, finish, stop) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let work = {
        let (begun, finish) = (begun.clone(), finish.clone());
        move |_| {
            let (begun, finish) = (begun.clone(), finish.clone());
            async move {
                begun.notify_one();
                finish.notified().await;
                Ok(())
            }
        }
    };
    let lease = Duration::from_millis(90);
    let config = Config { lease: Some(lease), wait: Duration::ZERO, ..Config::default() };
    let (said, mut beats) = watch::channel(0);
    let worker = Group::new(Counted { far: world.engine.clone(), beats: Arc::new(said) }, "t", "g");
    let stopped = stop.clone();
    let run =
        tokio::spawn(async move { worker.run(config, work, stopped.notified()).await.unwrap() });
    begun.notified().await;
    for beat in 1..5 {
        beats.wait_for(|beats| *beats >= 2 * beat).await.unwrap();
        // Three quarters of the lease each time: without the beats it would be over.
        world.pass(Duration::from_millis(67)).await;
        assert!(world.receive("t", "g", 9).await.is_empty(), "somebody else got it");
    }
    stop.notify_one();
    tokio::task::yield_now().await;
    assert!(!run.is_finished(), "it holds a message");
    finish.notify_one();
    assert_eq!(run.await.unwrap(), Done { done: 1, failed: 0, late: 0 });
}
