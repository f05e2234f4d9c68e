//! Which messages reach whom, as the users of the real binary see it.

use selvedge_tests::{raw, selvedge::Selvedge, wait};
use serde_json::{Value, json};

fn ok(selvedge: &Selvedge, method: &str, target: &str, body: &str) -> Value {
    let answer = selvedge.app(method, target, body);
    assert!(answer.status < 300, "{method} {target}: {} {}", answer.status, answer.text());
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

/// Replaces what the file says of topics and groups.
fn rewrite(selvedge: &Selvedge, rest: &str) {
    let text = selvedge.ports().durable_file(rest);
    std::fs::write(&selvedge.file, text).unwrap();
}

fn publish(selvedge: &Selvedge, topic: &str, messages: &Value) {
    let batch = json!({ "messages": messages }).to_string();
    ok(selvedge, "POST", &format!("/v1/topics/{topic}/batch"), &batch);
}

/// What a group gets, as `data`, settled.
fn receive(selvedge: &Selvedge, topic: &str, group: &str) -> Vec<Value> {
    let group = format!("/v1/topics/{topic}/groups/{group}");
    let got = ok(selvedge, "POST", &format!("{group}/receive?max=100&wait=10s"), "");
    let messages = got["messages"].as_array().unwrap();
    let ids: Vec<&Value> = messages.iter().map(|message| &message["id"]).collect();
    ok(selvedge, "POST", &format!("{group}/ack"), &json!({ "ids": ids }).to_string());
    messages.iter().map(|message| message["data"].clone()).collect()
}

#[test]
fn a_filter_in_the_file_holds_through_a_kill_and_changes_by_a_reload() {
    let filtered = |tier: &str| {
        format!(
            "topics: {{ orders: on }}\nsubscriptions:\n  vip:\n    topic: orders\n    filter:\n      \
             - wildcard: {{ key: \"eu.#\" }}\n      - equals: {{ data.tier: {tier} }}\n"
        )
    };
    let order =
        |n: u32, key: &str, tier: &str| json!({ "key": key, "data": { "n": n, "tier": tier } });
    let mut selvedge = Selvedge::durable(&filtered("gold"));
    let orders = json!([
        order(1, "eu.lisbon", "gold"),
        order(2, "us.boston", "gold"),
        order(3, "eu", "tin"),
        order(4, "eu.paris.2", "gold"),
    ]);
    publish(&selvedge, "orders", &orders);
    selvedge.kill_and_restart();
    let numbers = |got: Vec<Value>| got.iter().map(|it| it["n"].as_u64()).collect::<Vec<_>>();
    assert_eq!(numbers(receive(&selvedge, "orders", "vip")), [Some(1), Some(4)]);

    // A consumer that waits is woken by what it wants, and by nothing else.
    let mut waiting = raw::Connection::open(selvedge.app);
    waiting.send(
        "POST /v1/topics/orders/groups/vip/receive?wait=60s HTTP/1.1\r\nhost: 127.0.0.1\r\n\
         content-length: 0\r\n\r\n",
    );
    wait::until_true("the consumer to wait", || {
        selvedge.metrics().sum("selvedge_store_waiting", &[]) > 0.5
    });
    let many = (0..2500).map(|n| order(n, "us", "gold")).chain([order(7, "eu", "gold")]);
    publish(&selvedge, "orders", &many.collect());
    let woken = waiting.answer().unwrap().json();
    assert_eq!(woken["messages"][0]["data"]["n"], 7);
    assert_eq!(woken["messages"].as_array().unwrap().len(), 1);

    rewrite(&selvedge, &filtered("tin"));
    wait::until_true("the new file to be taken", || selvedge.generation().0 == 2);
    publish(&selvedge, "orders", &json!([order(8, "eu", "gold"), order(9, "eu", "tin")]));
    assert_eq!(numbers(receive(&selvedge, "orders", "vip")), [Some(9)]);
    let status = ok(&selvedge, "GET", "/v1/topics/orders/groups/vip", "");
    assert_eq!((&status["dead"], &status["lag"]), (&json!(0), &json!(1)), "7 is still out");
}

#[test]
fn a_topic_collects_others_by_their_names_and_a_kill_tears_nothing_apart() {
    let mut selvedge = Selvedge::durable(
        "topics:\n  orders.eu: on\n  orders.us: on\n  mail: on\n  \
         all-orders: { collect: { from: \"orders.*\", where: { gt: { data.amount: 10 } } } }\n\
         subscriptions:\n  billing: all-orders\n",
    );
    let amount = |amount: u32| json!([{ "data": { "amount": amount } }]);
    for (topic, n) in [("orders.eu", 11), ("mail", 12), ("orders.us", 9), ("orders.us", 13)] {
        publish(&selvedge, topic, &amount(n));
    }
    selvedge.kill_and_restart();
    publish(&selvedge, "orders.eu", &amount(14));
    let got = receive(&selvedge, "all-orders", "billing");
    let amounts: Vec<_> = got.iter().map(|it| it["amount"].as_u64()).collect();
    assert_eq!(amounts, [Some(11), Some(13), Some(14)]);
    let log = ok(&selvedge, "GET", "/v1/topics/all-orders/messages", "");
    let origins: Vec<&Value> = log["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["headers"]["selvedge-origin"])
        .collect();
    assert_eq!(origins, ["orders.eu", "orders.us", "orders.eu"]);
}

#[test]
fn a_schema_file_is_watched_and_its_changes_are_judged() {
    let schema = |extra: &str| {
        format!(
            r#"{{"type": "object", "properties": {{"n": {{"type": "integer"}}{extra}}},
                "additionalProperties": false}}"#
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("order.schema.json");
    std::fs::write(&path, schema("")).unwrap();
    let mut selvedge = Selvedge::durable(&format!(
        "topics:\n  orders:\n    schema:\n      document: ${{file:{}}}\n      \
         compatibility: backward\n",
        path.display()
    ));
    let status = |selvedge: &Selvedge, body: &str| {
        let answer = selvedge.app("POST", "/v1/topics/orders/messages", body);
        (answer.status, answer.json()["code"].as_str().map(str::to_owned))
    };
    assert_eq!(status(&selvedge, r#"{"n": 1}"#), (200, None));
    let refused = (422, Some("SV0417".to_owned()));
    assert_eq!(status(&selvedge, r#"{"n": "1"}"#), refused);
    assert_eq!(status(&selvedge, r#"{"n": 1, "m": 2}"#), refused);

    std::fs::write(&path, schema(r#", "m": {}"#)).unwrap();
    wait::until_true("the wider schema to be taken", || selvedge.generation() == (2, None));
    assert_eq!(status(&selvedge, r#"{"n": 1, "m": 2}"#), (200, None));

    // A schema that would refuse what was allowed is refused, and with it the whole file.
    std::fs::write(&path, schema("")).unwrap();
    let problem = wait::until("the refusal", || selvedge.generation().1);
    assert!(problem.contains("SV0418") && problem.contains("/properties/m"), "{problem}");
    std::fs::write(&path, schema(r#", "m": {}"#)).unwrap();
    selvedge.kill_and_restart();
    assert_eq!(status(&selvedge, r#"{"n": 1, "m": 2}"#), (200, None));
    assert_eq!(status(&selvedge, r#"{"n": 0.5}"#), refused);
    assert_eq!(ok(&selvedge, "GET", "/v1/topics/orders", "")["schema_version"], 2);
}
