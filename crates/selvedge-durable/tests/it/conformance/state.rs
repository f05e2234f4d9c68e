use selvedge_durable::{
    Operation,
    lease::{Acquire, CheckFence, GetLease, Release, Renew},
    state::{Condition, DeleteState, GetState, ListState, PutState},
};

use super::*;

cases!(
    state,
    the_character_nul_is_refused_in_names,
    a_value_comes_back_with_its_tag,
    a_condition_that_fails_writes_nothing,
    values_expire,
    keys_are_listed_by_prefix,
    a_lock_has_one_holder_and_rising_tokens,
    a_lost_lease_cannot_be_used,
    a_late_write_of_a_lost_holder_is_refused,
    whoever_waits_first_is_served_first,
    an_expired_holder_makes_room_for_who_waits,
    a_semaphore_has_several_holders,
    state_messages_and_events_change_together,
);

fn put(key: &str, value: &str, condition: Condition) -> PutState {
    let value = Bytes::copy_from_slice(value.as_bytes());
    PutState { key: key.to_owned(), value, content_type: None, condition, ttl: None }
}

fn get(key: &str) -> GetState {
    GetState { key: key.to_owned() }
}

fn acquire(owner: &str) -> Acquire {
    Acquire {
        resource: "r".to_owned(),
        owner: owner.to_owned(),
        ttl: Duration::from_secs(15),
        permits: 1,
        wait: Duration::ZERO,
    }
}

fn release(token: u64) -> Release {
    Release { resource: "r".to_owned(), token }
}

fn renew(token: u64) -> Renew {
    Renew { resource: "r".to_owned(), token, ttl: Duration::from_secs(15) }
}

fn fence(token: u64) -> Operation {
    Operation::CheckFence(CheckFence { resource: "r".to_owned(), token })
}

pub(crate) async fn a_value_comes_back_with_its_tag<E: TestEngine>(world: &World<E>) {
    let content_type = Some("text/plain".to_owned());
    let tag = world.run(PutState { content_type, ..put("k", "v", Condition::Any) }).await;
    let value = world.run(get("k")).await;
    assert_eq!((value.tag, &value.value[..]), (tag, &b"v"[..]));
    assert_eq!(value.content_type.as_deref(), Some("text/plain"));
    let next = world.run(put("k", "v", Condition::Any)).await;
    assert!(next > tag, "a write is a new tag even if nothing changed");
    assert_eq!(world.fails(get("other")).await.code(), "SV0410");
    assert_eq!(world.fails(put("", "v", Condition::Any)).await.code(), "SV0413");
    assert_eq!(
        world.fails(put("k", &"x".repeat((1 << 20) + 1), Condition::Any)).await.code(),
        "SV0412"
    );
}

pub(crate) async fn a_condition_that_fails_writes_nothing<E: TestEngine>(world: &World<E>) {
    assert_eq!(world.fails(put("k", "0", Condition::Present)).await.code(), "SV0421");
    let first = world.run(put("k", "1", Condition::Absent)).await;
    assert_eq!(world.fails(put("k", "2", Condition::Foreign)).await.code(), "SV0421");
    assert_eq!(world.fails(put("k", "2", Condition::Absent)).await.code(), "SV0421");
    let first = world.run(put("k", "1", Condition::Present)).await.max(first);
    let second = world.run(put("k", "2", Condition::Tag(first))).await;
    assert_eq!(world.fails(put("k", "3", Condition::Tag(first))).await.code(), "SV0421");
    assert_eq!(&world.run(get("k")).await.value[..], b"2");
    let delete = |condition| DeleteState { key: "k".to_owned(), condition };
    assert_eq!(world.fails(delete(Condition::Tag(first))).await.code(), "SV0421");
    world.run(delete(Condition::Tag(second))).await;
    assert_eq!(world.fails(delete(Condition::Any)).await.code(), "SV0410");
    let third = world.run(put("k", "4", Condition::Absent)).await;
    assert!(third > second, "tags are never used twice");
}

pub(crate) async fn values_expire<E: TestEngine>(world: &World<E>) {
    let ttl = Some(Duration::from_secs(60));
    world.run(PutState { ttl, ..put("k", "v", Condition::Any) }).await;
    world.pass(Duration::from_secs(59)).await;
    world.run(get("k")).await;
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.fails(get("k")).await.code(), "SV0410");
    world.run(put("k", "new", Condition::Absent)).await;
    world.pass(Duration::from_secs(3600)).await;
    world.run(get("k")).await;
}

pub(crate) async fn keys_are_listed_by_prefix<E: TestEngine>(world: &World<E>) {
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        world.run(put(key, "v", Condition::Any)).await;
    }
    let list = |after: &str, max| {
        world.run(ListState { prefix: "a/".to_owned(), after: after.to_owned(), max })
    };
    let keys = |keys: Vec<(String, u64)>| keys.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(list("", 9).await), ["a/1", "a/2", "a/3"]);
    assert_eq!(keys(list("a/1", 1).await), ["a/2"]);
}

pub(crate) async fn a_lock_has_one_holder_and_rising_tokens<E: TestEngine>(world: &World<E>) {
    let first = world.run(acquire("a")).await;
    assert_eq!(first.until, start() + Duration::from_secs(15));
    let held = world.fails(acquire("b")).await;
    assert!(
        matches!(&held, Error::Held { owner, until, .. } if owner == "a" && *until == first.until)
    );
    world.run(release(first.token)).await;
    let second = world.run(acquire("b")).await;
    assert!(second.token > first.token);
    let holders = world.run(GetLease { resource: "r".to_owned() }).await;
    assert_eq!((holders.len(), &holders[0].owner[..]), (1, "b"));
}

pub(crate) async fn a_lost_lease_cannot_be_used<E: TestEngine>(world: &World<E>) {
    let grant = world.run(acquire("a")).await;
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(world.run(renew(grant.token)).await, start() + Duration::from_secs(25));
    world.pass(Duration::from_secs(15)).await;
    assert_eq!(world.fails(renew(grant.token)).await.code(), "SV0431");
    assert_eq!(world.fails(release(grant.token)).await.code(), "SV0431");
    world.pass(Duration::from_secs(120)).await;
    assert!(world.run(acquire("b")).await.token > grant.token, "even if all traces are gone");
}

pub(crate) async fn a_late_write_of_a_lost_holder_is_refused<E: TestEngine>(world: &World<E>) {
    let old = world.run(acquire("a")).await;
    let write = |token, value: &str| {
        vec![fence(token), Operation::PutState(put("k", value, Condition::Any))]
    };
    world.engine.transact(write(old.token, "1")).await.unwrap();
    world.pass(Duration::from_secs(15)).await;
    let late = world.engine.transact(write(old.token, "2")).await.unwrap_err();
    assert_eq!(late.code(), "SV0431", "lost though nobody else holds it");
    let new = world.run(acquire("b")).await;
    assert!(world.engine.transact(write(old.token, "3")).await.is_err());
    world.engine.transact(write(new.token, "4")).await.unwrap();
    assert_eq!(&world.run(get("k")).await.value[..], b"4");
}

pub(crate) async fn whoever_waits_first_is_served_first<E: TestEngine>(world: &World<E>) {
    let held = world.run(acquire("a")).await;
    let patient = |owner: &str| Acquire { wait: Duration::from_secs(10), ..acquire(owner) };
    let (first, second) = (patient("b"), patient("c"));
    let (first, second) = (world.engine.execute(first), world.engine.execute(second));
    let (first, second, ()) = tokio::join!(first, second, async {
        world.engine.wake().await;
        world.run(release(held.token)).await;
        let holders = world.run(GetLease { resource: "r".to_owned() }).await;
        assert_eq!(holders[0].owner, "b");
        world.run(release(holders[0].token)).await;
    });
    assert!(first.unwrap().token < second.unwrap().token);
}

pub(crate) async fn an_expired_holder_makes_room_for_who_waits<E: TestEngine>(world: &World<E>) {
    let held = world.run(acquire("a")).await;
    let patient = Acquire { wait: Duration::from_secs(60), ..acquire("b") };
    let impatient = Acquire { wait: Duration::from_secs(5), ..acquire("c") };
    let (patient, impatient) = (world.engine.execute(patient), world.engine.execute(impatient));
    let (patient, impatient, ()) = tokio::join!(patient, impatient, async {
        world.engine.wake().await;
        world.pass(Duration::from_secs(6)).await;
        world.pass(Duration::from_secs(9)).await;
    });
    assert!(patient.unwrap().token > held.token);
    assert_eq!(impatient.unwrap_err().code(), "SV0430");
}

pub(crate) async fn a_semaphore_has_several_holders<E: TestEngine>(world: &World<E>) {
    let two = |owner: &str| Acquire { permits: 2, ..acquire(owner) };
    let first = world.run(two("a")).await;
    world.run(two("b")).await;
    assert_eq!(world.fails(two("c")).await.code(), "SV0430");
    world.run(release(first.token)).await;
    world.run(two("c")).await;
}

pub(crate) async fn state_messages_and_events_change_together<E: TestEngine>(world: &World<E>) {
    use selvedge_durable::stream::{Append, Expected, NewEvent, ReadEvents, Write};
    world.topic("t", Settings::default()).await;
    let events = vec![NewEvent { kind: "Paid".to_owned(), ..NewEvent::default() }];
    let all = |condition| {
        let write =
            Write { stream: "s".to_owned(), expected: Expected::Any, events: events.clone() };
        vec![
            Operation::Publish(Publish { topic: "t".to_owned(), messages: vec![message("x")] }),
            Operation::Append(Append { writes: vec![write] }),
            Operation::PutState(put("k", "v", condition)),
        ]
    };
    world.engine.transact(all(Condition::Absent)).await.unwrap();
    let error = world.engine.transact(all(Condition::Absent)).await.unwrap_err();
    assert_eq!(error.code(), "SV0421");
    assert_eq!(world.run(ReadEvents { after: 0, max: 9 }).await.len(), 1);
    assert_eq!(world.publish("t", message("y")).await, Place::Log(2));
}

pub(crate) async fn the_character_nul_is_refused_in_names<E: TestEngine>(world: &World<E>) {
    // One database could keep it, another could not: so none does.
    let put = |key: &str, content_type: Option<&str>| PutState {
        key: key.to_owned(),
        value: Bytes::from_static(&[0]),
        content_type: content_type.map(str::to_owned),
        condition: Condition::Any,
        ttl: None,
    };
    assert_eq!(world.fails(put("a\0b", None)).await.code(), "SV0413");
    assert_eq!(world.fails(put("a", Some("text/\0"))).await.code(), "SV0413");
    world.topic("t", Settings::default()).await;
    let publish = |message| Publish { topic: "t".to_owned(), messages: vec![message] };
    assert_eq!(world.fails(publish(keyed("k\0", "x"))).await.code(), "SV0413");
    // In content it is like any other byte, and what was refused harms nobody.
    world.run(put("a", None)).await;
    world.run(publish(message("\0"))).await;
}
