//! Groups that want some of a topic's messages.

use std::time::Duration;

use selvedge_durable::{
    filter,
    group::{Config, GetGroup, ListDeadLetters, PutGroup, Receive, Seek, Status, Verdict},
    topic::{From, GetTopic, NewMessage, Publish, Settings},
};
use serde_json::{Value, json};

use super::{TestEngine, World, keyed, message, receive, texts};

cases!(
    filters,
    a_group_gets_what_it_wants_and_passes_over_the_rest,
    headers_and_fields_decide_too,
    a_match_far_ahead_is_found_bit_by_bit,
    a_waiting_consumer_is_woken_by_what_it_wants,
    a_changed_filter_holds_from_there_on,
    what_is_passed_over_is_never_a_dead_letter,
    priorities_hold_among_what_is_wanted,
    what_is_passed_over_may_leave_the_topic,
);

fn wanting(filter: Value) -> Config {
    Config { filter: Some(filter::parse(&filter).unwrap()), ..Config::default() }
}

/// Wants the messages whose key fits.
fn keys(pattern: &str) -> Config {
    wanting(json!({ "wildcard": { "key": pattern } }))
}

async fn status<E: TestEngine>(world: &World<E>) -> Status {
    world.run(GetGroup { topic: "t".to_owned(), group: "g".to_owned() }).await
}

async fn with<E: TestEngine>(world: &World<E>, config: Config, keys: &[&str]) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", config).await;
    for (number, key) in keys.iter().enumerate() {
        world.publish("t", keyed(key, &format!("{number}"))).await;
    }
}

pub(crate) async fn a_group_gets_what_it_wants_and_passes_over_the_rest<E: TestEngine>(
    world: &World<E>,
) {
    with(world, keys("eu.*"), &["eu.a", "us.a", "eu.b", "us.b", "us.c"]).await;
    assert_eq!(status(world).await.lag, 5, "nobody has looked yet");
    let got = world.receive("t", "g", 9).await;
    assert_eq!(texts(&got), ["0", "2"]);
    let seen = status(world).await;
    assert_eq!((seen.lag, seen.in_flight, seen.waiting, seen.dead), (2, 2, 0, 0));
    assert_eq!(seen.config, keys("eu.*"), "it is kept as it was given");
    world.settle("t", "g", &got[1], Verdict::Retry { after: Some(Duration::ZERO) }).await;
    let again = world.receive("t", "g", 9).await;
    assert_eq!((texts(&again), again[0].receipt.attempt), (vec!["2".to_owned()], 2));
    for delivery in [&got[0], &again[0]] {
        world.settle("t", "g", delivery, Verdict::Ack).await;
    }
    assert_eq!(status(world).await.lag, 0);
    let seek = Seek { topic: "t".to_owned(), group: "g".to_owned(), to: From::First };
    world.run(seek).await;
    assert_eq!(texts(&world.receive("t", "g", 1).await), ["0"]);
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["2"]);
    world.group("t", "all", Config::default()).await;
    assert_eq!(world.receive("t", "all", 9).await.len(), 5);
}

pub(crate) async fn headers_and_fields_decide_too<E: TestEngine>(world: &World<E>) {
    let filter = json!({"all": [
        {"prefix": {"type": "order."}},
        {"any": [{"gt": {"data.amount": 100}}, {"in": {"data.tier": ["gold", "platinum"]}}]},
    ]});
    with(world, wanting(filter), &[]).await;
    for (kind, payload) in [
        ("order.placed", r#"{"amount": 99}"#),
        ("order.placed", r#"{"amount": 101}"#),
        ("order.cancelled", r#"{"tier": "gold"}"#),
        ("invoice.sent", r#"{"tier": "gold"}"#),
        ("order.placed", "not JSON"),
    ] {
        let headers = vec![("ce-type".to_owned(), kind.to_owned())];
        world.publish("t", NewMessage { headers, ..message(payload) }).await;
    }
    let got = world.receive("t", "g", 9).await;
    assert_eq!(texts(&got), [r#"{"amount": 101}"#, r#"{"tier": "gold"}"#]);
}

async fn publish_many<E: TestEngine>(world: &World<E>, number: usize) {
    let messages = (0..number).map(|_| keyed("us", "-")).collect();
    world.run(Publish { topic: "t".to_owned(), messages }).await;
}

pub(crate) async fn a_match_far_ahead_is_found_bit_by_bit<E: TestEngine>(world: &World<E>) {
    with(world, keys("eu"), &[]).await;
    publish_many(world, 2_500).await;
    world.publish("t", keyed("eu", "far")).await;
    // As far as one receive looks, and no further.
    for left in [1_501, 501] {
        assert_eq!(world.receive("t", "g", 9).await, []);
        assert_eq!(status(world).await.lag, left);
    }
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["far"]);

    publish_many(world, 2_500).await;
    world.publish("t", keyed("eu", "farther")).await;
    // Nobody publishes, and no time passes: who waits gets there all the same.
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 9) };
    assert_eq!(texts(&world.run(wait).await), ["farther"]);
}

pub(crate) async fn a_waiting_consumer_is_woken_by_what_it_wants<E: TestEngine>(world: &World<E>) {
    with(world, keys("eu"), &[]).await;
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 9) };
    let waiting = world.engine.execute(wait.clone());
    let publish = async {
        publish_many(world, 1_000).await;
        assert_eq!(status(world).await.lag, 0, "passed over in the commit that brought them");
        world.publish("t", keyed("eu", "mine")).await;
    };
    let (got, ()) = tokio::join!(waiting, publish);
    assert_eq!(texts(&got.unwrap()), ["mine"]);

    let waiting = world.engine.execute(wait);
    let publish = async {
        publish_many(world, 3).await;
        world.pass(Duration::from_secs(21)).await;
    };
    let (got, ()) = tokio::join!(waiting, publish);
    assert_eq!(got.unwrap(), [], "patience ends though something came");
}

pub(crate) async fn a_changed_filter_holds_from_there_on<E: TestEngine>(world: &World<E>) {
    with(world, keys("eu"), &["eu", "us", "eu", "us"]).await;
    let held = world.receive("t", "g", 1).await.remove(0);
    assert_eq!(texts(std::slice::from_ref(&held)), ["0"]);
    world.group("t", "g", keys("us")).await;
    // What was out comes back, whatever the filter says now.
    world.settle("t", "g", &held, Verdict::Retry { after: Some(Duration::ZERO) }).await;
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["0", "1", "3"]);
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 9) };
    world.publish("t", keyed("eu", "passed over")).await;
    world.publish("t", keyed("asia", "new")).await;
    let change = async {
        let (topic, group) = ("t".to_owned(), "g".to_owned());
        let put = PutGroup { topic, group, config: keys("asia"), from: From::First };
        world.run(put).await;
        world.publish("t", keyed("asia", "newer")).await;
    };
    let (got, ()) = tokio::join!(world.engine.execute(wait), change);
    // The waiting consumer looked with the old filter first.
    assert_eq!(texts(&got.unwrap()), ["newer"]);
}

pub(crate) async fn what_is_passed_over_is_never_a_dead_letter<E: TestEngine>(world: &World<E>) {
    let filter = json!({"not": {"equals": {"data": 0}}});
    with(world, Config { ordered: true, attempts: 1, ..wanting(filter) }, &[]).await;
    let publish = |number: &str| world.publish("t", keyed("k", number));
    publish("1").await;
    publish("0").await;
    publish("2").await;
    let first = world.receive("t", "g", 9).await;
    assert_eq!(texts(&first), ["1"]);
    world.settle("t", "g", &first[0], Verdict::Ack).await;
    let second = world.receive("t", "g", 9).await;
    assert_eq!(texts(&second), ["2"], "what is passed over holds up no key");
    world.settle("t", "g", &second[0], Verdict::Park).await;
    publish("0").await;
    publish("3").await;
    assert_eq!(world.receive("t", "g", 9).await, [], "the key is parked");
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    let letters = world.run(ListDeadLetters { topic, group, from: 1, max: 9 }).await;
    let positions: Vec<u64> = letters.iter().map(|letter| letter.message.position).collect();
    assert_eq!(positions, [3, 5]);
    assert_eq!(status(world).await.lag, 0);
}

pub(crate) async fn priorities_hold_among_what_is_wanted<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings { priorities: true, ..Settings::default() }).await;
    world.group("t", "g", keys("eu")).await;
    for (priority, key) in [(1, "eu"), (9, "us"), (8, "eu"), (1, "us"), (9, "eu")] {
        let text = format!("{key}{priority}");
        let message = NewMessage { priority: Some(priority), ..keyed(key, &text) };
        world.publish("t", message).await;
    }
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["eu9", "eu8", "eu1"]);
    assert_eq!((status(world).await.lag, status(world).await.in_flight), (3, 3));
    let low = |key, text| NewMessage { priority: Some(0), ..keyed(key, text) };
    let messages = (0..1_500).map(|_| low("us", "-")).chain([low("eu", "last")]).collect();
    world.run(Publish { topic: "t".to_owned(), messages }).await;
    assert_eq!(world.receive("t", "g", 9).await, []);
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 9) };
    assert_eq!(texts(&world.run(wait).await), ["last"]);
}

pub(crate) async fn what_is_passed_over_may_leave_the_topic<E: TestEngine>(world: &World<E>) {
    let retention_age = Some(Duration::from_secs(1));
    let settings = Settings { retain_unconsumed: true, retention_age, ..Settings::default() };
    world.topic("t", settings).await;
    world.group("t", "g", keys("eu")).await;
    for key in ["us", "eu", "us", "us"] {
        world.publish("t", keyed(key, key)).await;
    }
    let first = || async { world.run(GetTopic { name: "t".to_owned() }).await.first };
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(first().await, 1, "nobody has looked at it");
    let got = world.receive("t", "g", 9).await;
    world.pass(Duration::from_secs(61)).await;
    assert_eq!(first().await, 2, "the one that is out stays, and what follows it");
    let got = match got.as_slice() {
        [_] => world.receive("t", "g", 9).await,
        _ => got,
    };
    world.settle("t", "g", &got[0], Verdict::Ack).await;
    world.pass(Duration::from_secs(61)).await;
    assert_eq!(first().await, 5);
}
