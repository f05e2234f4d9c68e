//! Topics whose messages are checked.

use std::{sync::Arc, time::Duration};

use selvedge_durable::{
    Error,
    schedule::{ListSchedules, Missed, Overlap, PutSchedule},
    schema::{Compatibility, Schema},
    topic::{GetTopic, NewMessage, Publish, PutTopic, Settings},
};
use serde_json::{Value, json};

use super::{TestEngine, World, keyed, message};

cases!(
    schemas,
    what_is_not_as_the_schema_says_is_refused_with_its_place,
    a_batch_is_refused_whole_and_says_which,
    changes_are_compared_with_the_last_schema,
    versions_count_on_and_outlive_a_rest,
    a_schedule_that_no_longer_fits_stops_nothing,
);

fn settings(document: Value, compatibility: Compatibility) -> Settings {
    let schema = Schema::parse(&document, compatibility).unwrap();
    Settings { schema: Some(Arc::new(schema)), ..Settings::default() }
}

fn order() -> Value {
    json!({
        "type": "object",
        "required": ["n"],
        "properties": {"n": {"type": "integer"}},
        "additionalProperties": false,
    })
}

async fn checked<E: TestEngine>(world: &World<E>) {
    world.topic("t", settings(order(), Compatibility::Backward)).await;
}

async fn next<E: TestEngine>(world: &World<E>) -> u64 {
    world.run(GetTopic { name: "t".to_owned() }).await.next
}

fn publish(texts: &[&str]) -> Publish {
    let messages = texts.iter().map(|text| message(text)).collect();
    Publish { topic: "t".to_owned(), messages }
}

pub(crate) async fn what_is_not_as_the_schema_says_is_refused_with_its_place<E: TestEngine>(
    world: &World<E>,
) {
    checked(world).await;
    world.publish("t", message(r#"{"n": 1}"#)).await;
    for (text, path, rule) in [
        (r#"{"n": "1"}"#, "/n", "/properties/n/type"),
        ("{}", "", "/required"),
        (r#"{"n": 1, "m": 2}"#, "", "/additionalProperties"),
        ("n=1", "", ""),
    ] {
        match world.fails(publish(&[text])).await {
            Error::Mismatch { index: 0, mismatch } => {
                assert_eq!((&mismatch.path[..], &mismatch.rule[..]), (path, rule), "{text}");
            }
            other => panic!("{text}: {other}"),
        }
    }
    let deliver_at = Some(world.clock_now() + Duration::from_secs(60));
    let late = NewMessage { deliver_at, ..message("{}") };
    let messages = vec![late];
    let refused = world.fails(Publish { topic: "t".to_owned(), messages }).await;
    assert_eq!(refused.code(), "SV0417", "a message that waits is checked now");
    world.publish("t", NewMessage { payload: None, ..keyed("k", "") }).await;
    assert_eq!(next(world).await, 3, "one that deletes its key is always allowed");
}

pub(crate) async fn a_batch_is_refused_whole_and_says_which<E: TestEngine>(world: &World<E>) {
    checked(world).await;
    let refused = world.fails(publish(&[r#"{"n": 1}"#, r#"{"n": 2}"#, r#"{"n": 2.5}"#])).await;
    assert!(matches!(refused, Error::Mismatch { index: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("the message at index 2"), "{refused}");
    assert_eq!(next(world).await, 1);
    // A refusal leaves nothing behind that the next publish would trip over.
    world.publish("t", message(r#"{"n": 3.0}"#)).await;
}

fn with(field: &str) -> Value {
    let mut order = order();
    order["properties"][field] = json!({"type": "string"});
    order
}

pub(crate) async fn changes_are_compared_with_the_last_schema<E: TestEngine>(world: &World<E>) {
    checked(world).await;
    let put = |document: Value, compatibility| PutTopic {
        name: "t".to_owned(),
        settings: settings(document, compatibility),
    };
    let seen = |topic: selvedge_durable::topic::Topic| topic.settings.schema.unwrap().version();
    assert_eq!(seen(world.run(put(with("m"), Compatibility::Backward)).await), 2);
    match world.fails(put(order(), Compatibility::Backward)).await {
        Error::Incompatible { version: 2, refusal, .. } => {
            assert_eq!(refusal.path, "/properties/m")
        }
        other => panic!("{other}"),
    }
    world.publish("t", message(r#"{"n": 1, "m": "a"}"#)).await;
    assert_eq!(seen(world.run(put(order(), Compatibility::Forward)).await), 3);
    assert_eq!(world.fails(publish(&[r#"{"n": 1, "m": "a"}"#])).await.code(), "SV0417");
    assert_eq!(world.fails(put(with("o"), Compatibility::Full)).await.code(), "SV0418");
    let cannot_tell = json!({"if": {"type": "object"}, "then": {"required": ["n"]}});
    let refused = world.fails(put(cannot_tell.clone(), Compatibility::Backward)).await;
    assert!(refused.to_string().contains("nobody can tell"), "{refused}");
    assert_eq!(seen(world.run(put(cannot_tell, Compatibility::None)).await), 4);
    world.publish("t", message("17")).await;
}

pub(crate) async fn versions_count_on_and_outlive_a_rest<E: TestEngine>(world: &World<E>) {
    checked(world).await;
    let version = || async {
        let topic = world.run(GetTopic { name: "t".to_owned() }).await;
        topic.settings.schema.map(|schema| (schema.version(), schema.compatibility()))
    };
    assert_eq!(version().await, Some((1, Compatibility::Backward)));
    world.topic("t", settings(order(), Compatibility::Full)).await;
    assert_eq!(version().await, Some((1, Compatibility::Full)), "the same schema is no change");
    world.topic("t", Settings::default()).await;
    assert_eq!(version().await, None);
    world.publish("t", message("anything")).await;
    // What it was compared with before still counts.
    let put = PutTopic {
        name: "t".to_owned(),
        settings: settings(json!(false), Compatibility::Backward),
    };
    assert_eq!(world.fails(put).await.code(), "SV0418");
    assert_eq!(version().await, None, "and nothing was changed");
    world.topic("t", settings(with("m"), Compatibility::Backward)).await;
    assert_eq!(version().await, Some((2, Compatibility::Backward)));
    let collect = selvedge_durable::collect::parse(&json!("#")).unwrap();
    let both = Settings { collect, ..settings(order(), Compatibility::None) };
    let refused = world.fails(PutTopic { name: "t".to_owned(), settings: both }).await;
    assert_eq!(refused.code(), "SV0413");
}

pub(crate) async fn a_schedule_that_no_longer_fits_stops_nothing<E: TestEngine>(world: &World<E>) {
    checked(world).await;
    let put = |payload: &str| PutSchedule {
        name: "s".to_owned(),
        spec: "@every 60s".to_owned(),
        zone: "UTC".to_owned(),
        overlap: Overlap::Allow,
        missed: Missed::Skip,
        topic: "t".to_owned(),
        message: message(payload),
    };
    assert_eq!(world.fails(put("{}")).await.code(), "SV0417");
    world.run(put(r#"{"n": 1}"#)).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(next(world).await, 2);
    world.topic("t", settings(json!({"type": "string"}), Compatibility::None)).await;
    world.pass(Duration::from_secs(60)).await;
    world.publish("t", message("\"goes on\"")).await;
    assert_eq!(next(world).await, 3);
    assert!(world.run(ListSchedules).await[0].next.is_some_and(|at| at > world.clock_now()));
}
