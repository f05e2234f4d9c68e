//! Who watches hears what is committed, and nothing else.

use std::time::Duration;

use selvedge_durable::{
    Operation, Subject, Watch,
    lease::{Acquire, Release, Renew},
    state::{Condition, DeleteState, PutState},
    stream::{Append, DeleteStream, Expected, NewEvent, Write},
    topic::{DeleteTopic, NewMessage, Publish, ReadTopic, Settings},
};
use tokio::time::timeout;

use super::{TestEngine, World, message};

cases!(
    watches,
    every_kind_of_change_is_heard,
    what_is_due_is_heard_when_it_comes,
    nothing_is_lost_between_a_look_and_the_wait,
    what_was_refused_is_not_there_when_it_is_heard,
);

/// An answer comes after the bells rang, so no time need pass.
async fn rang(watch: &mut Watch) -> bool {
    timeout(Duration::ZERO, watch.changed()).await.is_ok()
}

pub(crate) async fn every_kind_of_change_is_heard<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.topic("u", Settings::default()).await;
    let (stream, name) = ("s".to_owned(), "t".to_owned());
    let (key, resource) = ("k".to_owned(), "r".to_owned());
    let subjects = [
        Subject::Topic(name.clone()),
        Subject::Events,
        Subject::Stream(stream.clone()),
        Subject::Lease(resource.clone()),
        Subject::State(key.clone()),
    ];
    let mut watches: Vec<Watch> =
        subjects.iter().map(|subject| world.engine.watch(subject.clone())).collect();
    let event = NewEvent { kind: "k".to_owned(), ..NewEvent::default() };
    let write = |stream: &str| Write {
        stream: stream.to_owned(),
        expected: Expected::Any,
        events: vec![event.clone()],
    };
    let publish = |topic: &str| {
        Operation::Publish(Publish { topic: topic.to_owned(), messages: vec![message("m")] })
    };
    let put = |key: &str| {
        let (key, condition) = (key.to_owned(), Condition::Any);
        Operation::PutState(PutState {
            key,
            value: "v".into(),
            content_type: None,
            condition,
            ttl: None,
        })
    };
    let (owner, ttl) = ("me".to_owned(), Duration::from_secs(9));
    let acquire =
        Acquire { resource: resource.clone(), owner, ttl, permits: 1, wait: Duration::ZERO };
    let token = world.run(acquire.clone()).await.token;
    assert!(rang(&mut watches[3]).await);
    let steps: [(Operation, &[usize]); 11] = [
        (publish("t"), &[0]),
        (publish("u"), &[]),
        (Operation::Append(Append { writes: vec![write("s")] }), &[1, 2]),
        (Operation::Append(Append { writes: vec![write("other")] }), &[1]),
        (Operation::Renew(Renew { resource: resource.clone(), token, ttl }), &[3]),
        (Operation::Release(Release { resource: resource.clone(), token }), &[3]),
        (put("k"), &[4]),
        (put("other"), &[]),
        (Operation::DeleteState(DeleteState { key, condition: Condition::Any }), &[4]),
        (Operation::DeleteStream(DeleteStream { stream, expected: Expected::Any }), &[2]),
        (Operation::DeleteTopic(DeleteTopic { name }), &[0]),
    ];
    for (operation, heard) in steps {
        let text = format!("{operation:?}");
        world.engine.transact(vec![operation]).await.unwrap();
        for (place, watch) in watches.iter_mut().enumerate() {
            assert_eq!(rang(watch).await, heard.contains(&place), "{:?}: {text}", subjects[place]);
        }
    }
}

pub(crate) async fn what_is_due_is_heard_when_it_comes<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    let mut watch = world.engine.watch(Subject::Topic("t".to_owned()));
    let deliver_at = Some(world.clock_now() + Duration::from_secs(5));
    world.publish("t", NewMessage { deliver_at, ..message("later") }).await;
    assert!(!rang(&mut watch).await, "it is not in the log yet");
    world.pass(Duration::from_secs(5)).await;
    assert!(rang(&mut watch).await);
}

pub(crate) async fn nothing_is_lost_between_a_look_and_the_wait<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    let engine = world.engine.clone();
    let follows = tokio::spawn(async move {
        let mut watch = engine.watch(Subject::Topic("t".to_owned()));
        let mut next = 1;
        while next <= 300 {
            watch.look();
            let from = selvedge_durable::topic::From::Position(next);
            let read = ReadTopic { topic: "t".to_owned(), from, max: 10 };
            match engine.execute(read).await.unwrap().last() {
                Some(last) => next = last.position + 1,
                None => watch.changed().await,
            }
        }
    });
    let publishes = async {
        for _ in 0..300 {
            world.publish("t", message("m")).await;
        }
        follows.await.unwrap();
    };
    // Far less than a watch is silent at most, 300 times.
    timeout(Duration::from_secs(55), publishes).await.expect("every message is followed");
}

pub(crate) async fn what_was_refused_is_not_there_when_it_is_heard<E: TestEngine>(
    world: &World<E>,
) {
    world.topic("t", Settings::default()).await;
    let mut watch = world.engine.watch(Subject::Topic("t".to_owned()));
    let both = vec![
        Operation::Publish(Publish { topic: "t".to_owned(), messages: vec![message("m")] }),
        Operation::Release(Release { resource: "r".to_owned(), token: 1 }),
    ];
    world.engine.transact(both).await.unwrap_err();
    // Heard or not: there is nothing.
    let _ = rang(&mut watch).await;
    let from = selvedge_durable::topic::From::First;
    let read = ReadTopic { topic: "t".to_owned(), from, max: 10 };
    assert!(world.run(read).await.is_empty());
}
