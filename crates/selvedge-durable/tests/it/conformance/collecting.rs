//! Topics that collect what is published to others.

use std::time::Duration;

use selvedge_durable::{
    collect::{self, Rule},
    group::{Config, Receive},
    topic::{
        DeleteTopic, From, GetTopic, NewMessage, Place, Publish, PutTopic, ReadTopic, Settings,
    },
};
use serde_json::{Value, json};

use super::{TestEngine, World, keyed, message, receive, texts};

cases!(
    collecting,
    a_topic_collects_what_its_rules_name,
    it_is_one_transaction_with_the_publish,
    what_was_collected_is_not_collected_again,
    duplicates_and_delayed_messages_are_collected_once,
    a_consumer_of_all_waits_for_any,
    collectors_come_change_and_go,
    there_are_only_so_many,
);

fn rules(rules: Value) -> Vec<Rule> {
    collect::parse(&rules).unwrap()
}

async fn collector<E: TestEngine>(world: &World<E>, name: &str, from: Value) {
    world.topic(name, Settings { collect: rules(from), ..Settings::default() }).await;
}

async fn plain<E: TestEngine>(world: &World<E>, names: &[&str]) {
    for name in names {
        world.topic(name, Settings::default()).await;
    }
}

/// Origin and text of each message of a topic.
async fn log<E: TestEngine>(world: &World<E>, topic: &str) -> Vec<String> {
    let read = ReadTopic { topic: topic.to_owned(), from: From::First, max: 100 };
    let messages = world.run(read).await;
    let header = |headers: &[(String, String)], name| {
        let found = headers.iter().find(|(header, _)| header == name);
        found.map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
    };
    let show = |message: &selvedge_durable::topic::Message| {
        let payload = String::from_utf8_lossy(message.payload.as_deref().unwrap()).into_owned();
        let from = header(&message.headers, collect::ORIGIN);
        let at = header(&message.headers, collect::ORIGIN_POSITION);
        format!("{from} {at} {payload}")
    };
    messages.iter().map(show).collect()
}

pub(crate) async fn a_topic_collects_what_its_rules_name<E: TestEngine>(world: &World<E>) {
    let from = json!([
        {"from": "orders.#"},
        {"from": "*.eu", "where": {"exact": {"key": "k"}}},
        {"from": "orders.*"},
    ]);
    collector(world, "audit", from).await;
    plain(world, &["orders", "orders.eu", "mail.eu", "mail.us"]).await;
    for (topic, key, text) in [
        ("orders", "a", "1"),
        ("mail.eu", "a", "2"),
        ("orders.eu", "k", "3"),
        ("mail.eu", "k", "4"),
        ("mail.us", "k", "5"),
        ("audit", "k", "6"),
    ] {
        world.publish(topic, keyed(key, text)).await;
    }
    let audit = ["orders 1 1", "orders.eu 1 3", "mail.eu 2 4", "- - 6"];
    assert_eq!(log(world, "audit").await, audit, "once each, in the order of publishing");
    assert_eq!(log(world, "orders.eu").await, ["- - 3"]);

    // Whatever came with a message goes with it, but for what is said of its origin.
    let headers = [("ce-type", "t"), (collect::ORIGIN, "forged")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    world.publish("orders", NewMessage { headers, ..keyed("k", "7") }).await;
    let read = ReadTopic { topic: "audit".to_owned(), from: From::Position(5), max: 1 };
    let seventh = world.run(read).await.remove(0);
    assert_eq!(seventh.key.as_deref(), Some("k"));
    assert_eq!(seventh.headers[0], ("ce-type".to_owned(), "t".to_owned()));
    assert_eq!(seventh.headers[1], (collect::ORIGIN.to_owned(), "orders".to_owned()));
    assert_eq!(seventh.headers.len(), 3);
}

pub(crate) async fn it_is_one_transaction_with_the_publish<E: TestEngine>(world: &World<E>) {
    collector(world, "audit", json!("orders")).await;
    plain(world, &["orders"]).await;
    let broken = NewMessage { priority: Some(3), ..message("broken") };
    let messages = vec![message("first"), broken];
    let refused = world.fails(Publish { topic: "orders".to_owned(), messages }).await;
    assert_eq!(refused.code(), "SV0413");
    assert_eq!(log(world, "audit").await, [] as [String; 0], "all or none, here too");
    world.publish("orders", message("second")).await;
    assert_eq!(log(world, "audit").await, ["orders 1 second"]);
}

pub(crate) async fn what_was_collected_is_not_collected_again<E: TestEngine>(world: &World<E>) {
    // Two that would feed each other for ever, and one that takes everything.
    collector(world, "a", json!("#")).await;
    collector(world, "b", json!("#")).await;
    plain(world, &["t"]).await;
    world.publish("t", message("1")).await;
    world.publish("a", message("2")).await;
    assert_eq!(log(world, "a").await, ["t 1 1", "- - 2"]);
    assert_eq!(
        log(world, "b").await,
        ["t 1 1", "a 2 2"],
        "what is published to a is not collected"
    );
    assert_eq!(log(world, "t").await, ["- - 1"]);
}

pub(crate) async fn duplicates_and_delayed_messages_are_collected_once<E: TestEngine>(
    world: &World<E>,
) {
    collector(world, "audit", json!("orders")).await;
    plain(world, &["orders"]).await;
    let twice = || NewMessage { dedupe_id: Some("id".to_owned()), ..message("once") };
    world.publish("orders", twice()).await;
    world.publish("orders", twice()).await;
    assert_eq!(log(world, "audit").await, ["orders 1 once"]);
    // The same id at the collector itself means another message.
    world.publish("audit", twice()).await;
    assert_eq!(log(world, "audit").await.len(), 2);

    let deliver_at = Some(world.clock_now() + Duration::from_secs(10));
    let place = world.publish("orders", NewMessage { deliver_at, ..message("late") }).await;
    assert!(matches!(place, Place::Delayed(_)));
    assert_eq!(log(world, "audit").await.len(), 2, "not before its time");
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(log(world, "audit").await[2], "orders 2 late");
}

pub(crate) async fn a_consumer_of_all_waits_for_any<E: TestEngine>(world: &World<E>) {
    let settings = Settings { priorities: true, ..Settings::default() };
    world.topic("all", Settings { collect: rules(json!("orders.*")), ..settings.clone() }).await;
    world.topic("orders.eu", settings).await;
    plain(world, &["orders.us"]).await;
    world.group("all", "g", Config::default()).await;
    let wait = Receive { wait: Duration::from_secs(20), ..receive("all", "g", 9) };
    let publish = world.publish("orders.us", message("a"));
    let (got, _) = tokio::join!(world.engine.execute(wait), publish);
    assert_eq!(texts(&got.unwrap()), ["a"]);
    // A priority goes along where the collector has them.
    world.publish("orders.us", message("5")).await;
    world.publish("orders.eu", NewMessage { priority: Some(9), ..message("9") }).await;
    assert_eq!(texts(&world.receive("all", "g", 9).await), ["9", "5"]);
}

pub(crate) async fn collectors_come_change_and_go<E: TestEngine>(world: &World<E>) {
    plain(world, &["a", "b"]).await;
    world.publish("a", message("before")).await;
    collector(world, "all", json!("a")).await;
    world.publish("a", message("1")).await;
    collector(world, "all", json!("b")).await;
    world.publish("a", message("2")).await;
    world.publish("b", message("3")).await;
    assert_eq!(log(world, "all").await, ["a 2 1", "b 1 3"]);
    let topic = world.run(GetTopic { name: "all".to_owned() }).await;
    assert_eq!(topic.settings.collect, rules(json!("b")));
    // A topic that comes later is collected from too, if its name fits.
    collector(world, "all", json!("#")).await;
    plain(world, &["c"]).await;
    world.publish("c", message("4")).await;
    assert_eq!(log(world, "all").await[2], "c 1 4");
    world.run(DeleteTopic { name: "all".to_owned() }).await;
    assert_eq!(world.publish("c", message("5")).await, Place::Log(2));
}

pub(crate) async fn there_are_only_so_many<E: TestEngine>(world: &World<E>) {
    let settings = || Settings { collect: rules(json!("t")), ..Settings::default() };
    for number in 0..64 {
        world.topic(&format!("c{number}"), settings()).await;
    }
    let put = |name: &str| PutTopic { name: name.to_owned(), settings: settings() };
    assert_eq!(world.fails(put("one-more")).await.code(), "SV0412");
    world.run(put("c7")).await;
    let compact = Settings { compact: true, ..settings() };
    let refused = world.fails(PutTopic { name: "compact".to_owned(), settings: compact }).await;
    assert!(refused.to_string().contains("`collect`"), "{refused}");
    plain(world, &["t"]).await;
    world.publish("t", message("x")).await;
    assert_eq!(log(world, "c63").await, ["t 1 x"]);
}
