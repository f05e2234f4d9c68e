//! One consumer is served at a time, in the order of the log.

use selvedge_durable::group::{Active, GetGroup, Leave, Settled};

use super::*;

cases!(
    exclusive,
    one_is_served_and_the_others_stand_by,
    who_stands_by_takes_over_from_one_that_is_silent,
    who_waits_for_messages_is_not_silent,
    one_that_leaves_makes_room_at_once,
    a_failing_message_holds_the_group_until_it_is_given_up,
    a_group_becomes_exclusive_and_shared_again,
    a_topic_with_priorities_has_no_one_order,
    a_filter_passes_over_for_the_active_one_only,
);

const TTL: Duration = Duration::from_secs(60);

fn config() -> Config {
    Config { exclusive: Some(TTL), attempts: 2, ..Config::default() }
}

pub(crate) fn by(consumer: &str, max: usize) -> Receive {
    Receive { consumer: Some(consumer.to_owned()), ..receive("t", "g", max) }
}

async fn with_messages<E: TestEngine>(world: &World<E>, config: Config, texts: &[&str]) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", config).await;
    for text in texts {
        world.publish("t", keyed(&text[..1], text)).await;
    }
}

async fn active<E: TestEngine>(world: &World<E>) -> Option<Active> {
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    world.run(GetGroup { topic, group }).await.active
}

pub(crate) async fn one_is_served_and_the_others_stand_by<E: TestEngine>(world: &World<E>) {
    with_messages(world, config(), &["a", "b", "c"]).await;
    assert_eq!(world.fails(receive("t", "g", 1)).await.code(), "SV0413", "it must say who it is");
    assert_eq!(world.fails(by("", 1)).await.code(), "SV0413");
    assert_eq!(active(world).await, None);
    let first = world.run(by("one", 2)).await;
    assert_eq!(texts(&first), ["a", "b"]);
    assert_eq!(world.run(by("two", 2)).await, []);
    let held = active(world).await.unwrap();
    assert_eq!((&*held.consumer, held.since, held.until), ("one", start(), start() + TTL));
    assert!(first[0].receipt.fence >= held.token);
    world.pass(Duration::from_secs(20)).await;
    world.settle("t", "g", &first[0], Verdict::Ack).await;
    assert_eq!(active(world).await.unwrap().until, start() + Duration::from_secs(80));
    assert_eq!(texts(&world.run(by("one", 9)).await), ["c"], "b is in the same hand");
    // A name means nothing where everybody is served.
    world.group("t", "h", Config::default()).await;
    let shared = Receive { group: "h".to_owned(), ..by("one", 1) };
    assert_eq!(texts(&world.run(shared).await), ["a"]);
}

pub(crate) async fn who_stands_by_takes_over_from_one_that_is_silent<E: TestEngine>(
    world: &World<E>,
) {
    let longer = Duration::from_secs(600);
    with_messages(world, Config { lease: longer, ..config() }, &["a", "b"]).await;
    let first = world.run(by("one", 9)).await;
    let token = active(world).await.unwrap().token;
    let waiting = world.engine.execute(Receive { wait: longer, ..by("two", 9) });
    let (second, ()) = tokio::join!(waiting, async {
        world.pass(TTL - Duration::from_secs(1)).await;
        assert_eq!(&*active(world).await.unwrap().consumer, "one");
        world.pass(Duration::from_secs(1)).await;
    });
    let second = second.unwrap();
    assert_eq!(texts(&second), ["a", "b"]);
    assert_eq!((second[0].receipt.attempt, second[1].receipt.attempt), (2, 1));
    let now = active(world).await.unwrap();
    assert!(&*now.consumer == "two" && now.token > token);
    for delivery in &first {
        assert!(world.run(settle("t", "g", delivery, Verdict::Ack)).await[0].is_err());
    }
    assert_eq!(world.run(by("one", 9)).await, []);
    world.settle("t", "g", &second[0], Verdict::Ack).await;
}

pub(crate) async fn who_waits_for_messages_is_not_silent<E: TestEngine>(world: &World<E>) {
    with_messages(world, config(), &[]).await;
    let patience = Duration::from_secs(600);
    let first = world.engine.execute(Receive { wait: patience, ..by("one", 9) });
    let second = world.engine.execute(Receive { wait: patience, ..by("two", 9) });
    let (first, second, ()) = tokio::join!(first, second, async {
        for _ in 0..20 {
            world.pass(TTL / 4).await;
        }
        assert_eq!(&*active(world).await.unwrap().consumer, "one");
        world.publish("t", keyed("k", "a")).await;
        // Now the first has gone, for all that anybody knows.
        world.pass(TTL).await;
        world.publish("t", keyed("k", "b")).await;
    });
    assert_eq!(texts(&first.unwrap()), ["a"]);
    assert_eq!(texts(&second.unwrap()), ["a"], "b is handed out behind it");
}

pub(crate) async fn one_that_leaves_makes_room_at_once<E: TestEngine>(world: &World<E>) {
    with_messages(world, config(), &["a", "b"]).await;
    let first = world.run(by("one", 9)).await;
    let leave = |consumer: &str| {
        let (topic, group) = ("t".to_owned(), "g".to_owned());
        world.run(Leave { topic, group, consumer: consumer.to_owned() })
    };
    assert!(!leave("two").await);
    let waiting = world.engine.execute(Receive { wait: TTL, ..by("two", 9) });
    let (second, left) = tokio::join!(waiting, leave("one"));
    assert!(left);
    let second = second.unwrap();
    assert_eq!(texts(&second), ["a", "b"]);
    assert!(second.iter().all(|it| it.receipt.attempt == 1), "it costs no attempt");
    assert!(world.run(settle("t", "g", &first[0], Verdict::Ack)).await[0].is_err());
}

pub(crate) async fn a_failing_message_holds_the_group_until_it_is_given_up<E: TestEngine>(
    world: &World<E>,
) {
    with_messages(world, config(), &["a", "b", "c"]).await;
    let first = world.run(by("one", 2)).await;
    let later = Verdict::Retry { after: Some(Duration::from_secs(5)) };
    world.settle("t", "g", &first[0], later).await;
    assert!(world.run(settle("t", "g", &first[1], Verdict::Ack)).await[0].is_err());
    assert_eq!(world.run(by("one", 9)).await, [], "nothing goes past it");
    let waiting = world.engine.execute(Receive { wait: TTL, ..by("one", 9) });
    let (again, ()) = tokio::join!(waiting, async {
        world.engine.wake().await;
        world.pass(Duration::from_secs(5)).await;
    });
    let again = again.unwrap();
    assert_eq!(texts(&again), ["a", "b", "c"]);
    let dead = world.run(settle("t", "g", &again[0], later)).await.remove(0);
    assert!(matches!(dead, Ok(Settled::Dead(_))), "{dead:?}");
    world.settle("t", "g", &again[1], Verdict::Ack).await;
    world.settle("t", "g", &again[2], Verdict::Ack).await;
    assert_eq!(world.run(by("one", 9)).await, []);
}

pub(crate) async fn a_group_becomes_exclusive_and_shared_again<E: TestEngine>(world: &World<E>) {
    let ordered = Config { ordered: true, ..Config::default() };
    with_messages(world, ordered.clone(), &["k1", "k2", "l1"]).await;
    let shared = world.receive("t", "g", 9).await;
    assert_eq!(texts(&shared), ["k1", "l1"]);
    world.group("t", "g", Config { exclusive: Some(TTL), ..ordered.clone() }).await;
    assert!(world.run(settle("t", "g", &shared[0], Verdict::Ack)).await[0].is_err());
    let alone = world.run(by("one", 9)).await;
    assert_eq!(texts(&alone), ["k1", "k2", "l1"]);
    world.group("t", "g", ordered).await;
    assert_eq!(active(world).await, None);
    assert!(world.run(settle("t", "g", &alone[0], Verdict::Ack)).await[0].is_err());
    let shared = world.receive("t", "g", 9).await;
    assert_eq!(texts(&shared), ["k1", "l1"], "one of a key at a time again");
    world.settle("t", "g", &shared[0], Verdict::Ack).await;
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["k2"]);
}

pub(crate) async fn a_topic_with_priorities_has_no_one_order<E: TestEngine>(world: &World<E>) {
    world.topic("p", Settings { priorities: true, ..Settings::default() }).await;
    let (topic, group) = ("p".to_owned(), "g".to_owned());
    let put = PutGroup { topic, group, config: config(), from: From::First };
    assert_eq!(world.fails(put).await.code(), "SV0413");
}

pub(crate) async fn a_filter_passes_over_for_the_active_one_only<E: TestEngine>(world: &World<E>) {
    let filter = selvedge_durable::filter::parse(&serde_json::json!({ "exact": { "key": "b" } }));
    with_messages(world, Config { filter: Some(filter.unwrap()), ..config() }, &["a", "b1"]).await;
    let first = world.run(by("one", 9)).await;
    assert_eq!(texts(&first), ["b1"]);
    world.publish("t", keyed("a", "a2")).await;
    let waiting = world.engine.execute(Receive { wait: TTL * 9, ..by("two", 9) });
    let (second, ()) = tokio::join!(waiting, async {
        world.engine.wake().await;
        world.publish("t", keyed("b", "b2")).await;
        world.settle("t", "g", &first[0], Verdict::Ack).await;
        world.pass(TTL).await;
    });
    assert_eq!(texts(&second.unwrap()), ["b2"]);
}
