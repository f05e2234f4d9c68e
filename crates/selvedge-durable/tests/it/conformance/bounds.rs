//! What is remembered and kept has a bound, and says what happens there.

use selvedge_durable::{
    group::{Discard, Full, GetGroup, Letters, ListDeadLetters, Redrive, Status},
    topic::{GetTopic, Topic},
};

use super::*;

cases!(
    bounds,
    the_oldest_dedupe_id_is_forgotten_first,
    a_bound_of_dedupe_ids_that_is_lowered_holds_at_once,
    a_group_full_of_dead_letters_holds_until_they_are_looked_at,
    a_group_that_was_told_to_drops_the_oldest,
    dead_letters_go_with_their_age_if_they_may,
);

async fn send<E: TestEngine>(world: &World<E>, id: &str) -> bool {
    let message = NewMessage { dedupe_id: Some(id.to_owned()), ..message(id) };
    world.run(Publish { topic: "t".to_owned(), messages: vec![message] }).await[0].duplicate
}

async fn topic<E: TestEngine>(world: &World<E>) -> Topic {
    world.run(GetTopic { name: "t".to_owned() }).await
}

pub(crate) async fn the_oldest_dedupe_id_is_forgotten_first<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings { dedupe_max: Some(3), ..Settings::default() }).await;
    for id in ["a", "b", "c"] {
        assert!(!send(world, id).await);
        world.pass(Duration::from_secs(1)).await;
    }
    assert!(send(world, "a").await);
    assert_eq!(topic(world).await.dedupe_since, Some(start()), "no more than these");
    assert!(!send(world, "d").await);
    assert!(send(world, "b").await && send(world, "c").await && send(world, "d").await);
    assert!(!send(world, "a").await, "it was the oldest");
    assert!(!send(world, "b").await, "and then this was");
    assert_eq!(topic(world).await.next, 7);
    // What has left the window makes no bound.
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(topic(world).await.dedupe_since, None);
    assert!(!send(world, "a").await);
    assert!(send(world, "a").await);
}

pub(crate) async fn a_bound_of_dedupe_ids_that_is_lowered_holds_at_once<E: TestEngine>(
    world: &World<E>,
) {
    world.topic("t", Settings { dedupe_max: None, ..Settings::default() }).await;
    for n in 0..20 {
        assert!(!send(world, &n.to_string()).await);
    }
    assert!(send(world, "0").await);
    assert_eq!(topic(world).await.dedupe_since, None);
    world.topic("t", Settings { dedupe_max: Some(5), ..Settings::default() }).await;
    assert!(send(world, "15").await);
    assert!(!send(world, "14").await, "five are remembered, and this is the sixth");
    world.pass(Duration::from_secs(60)).await;
    assert!(!send(world, "15").await && send(world, "19").await);
}

fn letters(max: u64, full: Full) -> Config {
    let letters = Letters { max: Some(max), full, age: None };
    Config { letters, ordered: true, ..Config::default() }
}

async fn status<E: TestEngine>(world: &World<E>) -> Status {
    world.run(GetGroup { topic: "t".to_owned(), group: "g".to_owned() }).await
}

async fn park<E: TestEngine>(world: &World<E>, count: usize) {
    for delivery in world.receive("t", "g", count).await {
        world.settle("t", "g", &delivery, Verdict::Park).await;
    }
}

async fn dead<E: TestEngine>(world: &World<E>) -> Vec<u64> {
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    let letters = world.run(ListDeadLetters { topic, group, from: 1, max: 100 }).await;
    letters.iter().map(|letter| letter.message.position).collect()
}

async fn backlog<E: TestEngine>(world: &World<E>, config: Config) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", config).await;
    for n in 0..9 {
        world.publish("t", keyed(&n.to_string(), &n.to_string())).await;
    }
}

pub(crate) async fn a_group_full_of_dead_letters_holds_until_they_are_looked_at<E: TestEngine>(
    world: &World<E>,
) {
    backlog(world, letters(2, Full::Hold)).await;
    park(world, 2).await;
    assert_eq!(world.receive("t", "g", 9).await, []);
    assert_eq!((status(world).await.dead, status(world).await.dropped), (2, 0));
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 1) };
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    let discard = Discard { topic, group, positions: vec![1] };
    let (next, gone) = tokio::join!(world.engine.execute(wait), world.run(discard));
    assert_eq!((texts(&next.unwrap()), gone), (vec!["2".to_owned()], 1));
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    world.run(Redrive { topic, group, positions: vec![] }).await;
    assert_eq!(texts(&world.receive("t", "g", 2).await), ["1", "3"]);
    // What is memory is what is stored.
    assert_eq!(world.fails(receive("t", "nobody", 1)).await.code(), "SV0410");
    park(world, 2).await;
    assert_eq!(world.receive("t", "g", 9).await, []);
}

pub(crate) async fn a_group_that_was_told_to_drops_the_oldest<E: TestEngine>(world: &World<E>) {
    backlog(world, letters(2, Full::DropOldest)).await;
    for _ in 0..5 {
        park(world, 1).await;
        world.pass(Duration::from_secs(1)).await;
    }
    assert_eq!(dead(world).await, [4, 5]);
    assert_eq!(status(world).await.dropped, 3);
    world.publish("t", keyed("0", "again")).await;
    let rest = texts(&world.receive("t", "g", 9).await);
    assert_eq!(rest, ["5", "6", "7", "8", "again"], "its key is free with its letter");
}

pub(crate) async fn dead_letters_go_with_their_age_if_they_may<E: TestEngine>(world: &World<E>) {
    let letters = Letters { max: Some(2), full: Full::Hold, age: Some(Duration::from_secs(3600)) };
    backlog(world, Config { letters, ..Config::default() }).await;
    park(world, 1).await;
    world.pass(Duration::from_secs(1800)).await;
    park(world, 1).await;
    assert_eq!(world.receive("t", "g", 9).await, []);
    world.pass(Duration::from_secs(1801)).await;
    assert_eq!(dead(world).await, [2]);
    assert_eq!(texts(&world.receive("t", "g", 1).await), ["2"]);
    assert_eq!(status(world).await.dropped, 1);
}
