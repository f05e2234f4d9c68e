//! The durable engine as its users have it: one file, the app API, signals.

use selvedge_api::push::{Secret, signature};
use selvedge_tests::{
    raw,
    selvedge::Selvedge,
    upstream::{Reply, Upstream},
    wait,
};
use serde_json::{Value, json};

const ORDERS: &str =
    "topics:\n  orders: on\nsubscriptions:\n  billing: { topic: orders, retry: 2 }\n";

fn ok(selvedge: &Selvedge, method: &str, target: &str, body: &str) -> Value {
    let answer = selvedge.app(method, target, body);
    assert!(answer.status < 300, "{method} {target}: {} {}", answer.status, answer.text());
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

#[test]
fn five_lines_serve_everything_on_one_file() {
    let selvedge = Selvedge::durable(ORDERS);
    let published = ok(&selvedge, "POST", "/v1/topics/orders/messages", r#"{"n":1}"#);
    assert_eq!(published, json!({ "position": 1, "duplicate": false }));
    let got = ok(&selvedge, "POST", "/v1/topics/orders/groups/billing/receive", "");
    assert_eq!(got["messages"][0]["data"], json!({ "n": 1 }));
    ok(&selvedge, "POST", "/v1/streams/account-1", r#"{"events": [{"type": "Opened"}]}"#);
    ok(&selvedge, "PUT", "/v1/state/k", "1");
    ok(&selvedge, "POST", "/v1/leases/leader/acquire", r#"{"owner": "me"}"#);
    let files: Vec<String> = std::fs::read_dir(selvedge.folder())
        .unwrap()
        .map(|it| it.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| {
            name.starts_with("store.db") && !name.contains('-') && name != "store.db.lock"
        })
        .collect();
    assert_eq!(files, ["store.db"]);
    let listeners = selvedge.api("/api/v1/listeners");
    let roles: Vec<&str> = listeners["listeners"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it["role"].as_str())
        .collect();
    assert_eq!(roles, ["operator", "app"]);
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let mut selvedge = Selvedge::durable(ORDERS);
    ok(&selvedge, "POST", "/v1/topics/orders/messages", "kept");
    let lease =
        ok(&selvedge, "POST", "/v1/leases/leader/acquire", r#"{"owner": "a", "ttl": "10ms"}"#);
    selvedge.kill_and_restart();
    let got = ok(&selvedge, "GET", "/v1/topics/orders/messages", "");
    assert_eq!(got["messages"][0]["position"], 1);
    let wait = r#"{"owner": "b", "wait": "30s"}"#;
    let next = ok(&selvedge, "POST", "/v1/leases/leader/acquire", wait);
    assert!(next["token"].as_u64() > lease["token"].as_u64(), "tokens rise across restarts");
}

#[test]
fn a_reload_takes_topics_and_groups_and_refuses_another_store() {
    let selvedge = Selvedge::durable(ORDERS);
    let rewrite = |rest: &str| {
        let text = selvedge.ports().durable_file(rest);
        std::fs::write(&selvedge.file, text).unwrap();
    };
    rewrite("topics: { orders: on, mail: on }\nsubscriptions: { billing: orders, post: mail }\n");
    wait::until_true("the new file to be taken", || selvedge.generation() == (2, None));
    ok(&selvedge, "POST", "/v1/topics/mail/messages", "x");
    assert_eq!(ok(&selvedge, "GET", "/v1/topics/mail/groups/post", "")["lag"], 1);

    // What a topic cannot become is refused, and with it the whole file.
    rewrite("topics: { orders: { compact: on }, extra: on }\n");
    let refused = wait::until("the refusal", || selvedge.generation().1);
    assert!(refused.contains("SV0411") && refused.contains("orders"), "{refused}");
    assert_eq!(selvedge.app("GET", "/v1/topics/extra", "").status, 404);

    let text = selvedge.ports().durable_file(ORDERS).replace("store.db", "other.db");
    std::fs::write(&selvedge.file, text).unwrap();
    wait::until_true("the second refusal", || {
        selvedge.generation().1.is_some_and(|error| error.contains("restart"))
    });
    // Leaving a topic out removes nothing.
    rewrite("");
    wait::until_true("the empty file to be taken", || selvedge.generation() == (3, None));
    assert_eq!(ok(&selvedge, "GET", "/v1/topics/mail", "")["next"], 2);
}

#[test]
fn a_reload_moves_the_app_api_and_changes_its_token() {
    let mut selvedge = Selvedge::durable(ORDERS);
    let old = selvedge.app;
    let port = selvedge_tests::ports::free();
    let api =
        |port: u16| format!("api: {{ bind: \"127.0.0.1:{port}\", token: correct-horse-battery }}");
    let text = selvedge.ports().durable_file(ORDERS);
    let text = text.replace(&format!("api: \"127.0.0.1:{old}\""), &api(port));
    std::fs::write(&selvedge.file, text).unwrap();
    wait::until_true("the move", || raw::get(port, "/v1/topics").is_ok());
    wait::until_true("the old address to be free", || raw::get(old, "/v1/topics").is_err());
    selvedge.app = port;
    assert_eq!(selvedge.app("GET", "/v1/topics", "").status, 401);
    let lines = "authorization: Bearer correct-horse-battery\r\n";
    assert_eq!(selvedge.app_with("GET", "/v1/topics", lines, "").status, 200);
}

#[test]
fn a_drain_answers_those_who_wait_and_keeps_everything() {
    let mut selvedge = Selvedge::durable(ORDERS);
    ok(&selvedge, "POST", "/v1/topics/orders/messages", "x");
    ok(&selvedge, "POST", "/v1/topics/orders/groups/billing/receive", "");
    let receive = "POST /v1/topics/orders/groups/billing/receive?wait=60s HTTP/1.1\r\nhost: \
                   127.0.0.1\r\ncontent-length: 0\r\n\r\n";
    let mut waiting = raw::Connection::open(selvedge.app);
    waiting.send(receive);
    wait::until_true("the consumer to wait", || {
        selvedge.metrics().sum("selvedge_store_waiting", &[]) > 0.5
    });
    selvedge.signal("TERM");
    assert!(selvedge.ended().success(), "{}", selvedge.log());
    let answer = waiting.answer().unwrap();
    assert_eq!(answer.json(), json!({ "messages": [] }), "an empty answer, and no cut");
    assert!(raw::get(selvedge.app, "/v1/topics").is_err());
}

#[test]
fn the_doctor_says_what_is_stuck_and_what_to_do() {
    let selvedge = Selvedge::durable(ORDERS);
    let operator = format!("127.0.0.1:{}", selvedge.operator);
    let doctor = |more: &[&str]| {
        let mut arguments = vec!["doctor", "--operator", operator.as_str()];
        arguments.extend(more);
        selvedge_tests::selvedge::command(&arguments, "")
    };
    let well = doctor(&[]);
    assert_eq!(well.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&well.stdout), "nothing is stuck\n");

    let group = "/v1/topics/orders/groups/billing";
    ok(&selvedge, "POST", "/v1/topics/orders/messages", "card");
    ok(&selvedge, "POST", &format!("{group}/pause"), "");
    let paused = wait::until("the paused group", || {
        let output = doctor(&["--json"]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = document["findings"][0].clone();
        (output.status.code() == Some(1) && found["kind"] == "paused").then_some(found)
    });
    assert_eq!(paused["weight"], "stuck");
    assert_eq!(paused["subject"], "group billing of orders");
    assert!(paused["todo"].as_str().unwrap().contains(&format!("POST {group}/resume")));

    ok(&selvedge, "POST", &format!("{group}/resume"), "");
    let got = ok(&selvedge, "POST", &format!("{group}/receive?wait=10s"), "");
    let park = json!({ "ids": [got["messages"][0]["id"]], "reason": "declined" }).to_string();
    ok(&selvedge, "POST", &format!("{group}/park"), &park);
    let why = wait::until("the dead letter", || {
        let found = selvedge.api("/api/v1/doctor")["findings"][0].clone();
        (found["kind"] == "dead_letters").then(|| found["why"].as_str().unwrap().to_owned())
    });
    assert_eq!(why, "the first: parked by its consumer after 1 deliveries (declined)");
    assert!(String::from_utf8_lossy(&doctor(&[]).stdout).contains("1 dead letters"));

    let metrics = selvedge.metrics();
    let group = [("topic", "orders"), ("group", "billing")];
    let value = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(value("selvedge_group_dead_letters", &group), 1.0);
    assert_eq!(value("selvedge_group_deliveries_total", &group), 1.0);
    assert_eq!(value("selvedge_group_failed_total", &group), 1.0);
    assert_eq!(value("selvedge_topic_published_total", &group[..1]), 1.0);
    assert_eq!(value("selvedge_topic_publish_seconds_count", &group[..1]), 1.0);
    assert_eq!(value("selvedge_doctor_findings", &[("weight", "attention")]), 1.0);
    assert_eq!(value("selvedge_store_writable", &[]), 1.0);
    assert!(value("selvedge_store_log_bytes", &[]) > 0.0);
}

#[test]
fn a_store_is_backed_up_while_it_serves() {
    let mut selvedge = Selvedge::durable(ORDERS);
    ok(&selvedge, "POST", "/v1/topics/orders/messages", "kept");
    let (store, copy) = (selvedge.folder().join("store.db"), selvedge.folder().join("copy.db"));
    let (store, copy) = (store.to_str().unwrap(), copy.to_str().unwrap());
    let run = |arguments: &[&str]| {
        let output = selvedge_tests::selvedge::command(arguments, "");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    };
    assert_eq!(run(&["store", "backup", store, copy]).0, 0);
    let (code, said) = run(&["store", "backup", store, copy]);
    assert!(code == 5 && said.contains("SV0400") && said.contains("exists"), "{said}");
    let (code, said) = run(&["store", "verify", store]);
    assert!(code == 5 && said.contains("another process"), "{said}");
    assert_eq!(run(&["store", "compact", store]).0, 5);
    assert_eq!(run(&["store", "verify", copy]).0, 0);

    // What came after the backup is gone when it is restored, and nothing else.
    ok(&selvedge, "POST", "/v1/topics/orders/messages", "later");
    selvedge.signal("TERM");
    assert!(selvedge.ended().success());
    assert_eq!(run(&["store", "compact", copy]).0, 0);
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = std::fs::remove_file(selvedge.folder().join(file));
    }
    std::fs::rename(copy, store).unwrap();
    selvedge.restart();
    assert_eq!(ok(&selvedge, "GET", "/v1/topics/orders", "")["next"], 2);

    let bytes = std::fs::read(store).unwrap();
    selvedge.signal("TERM");
    assert!(selvedge.ended().success());
    let broken = bytes.iter().enumerate().map(|(at, byte)| if at >= 4096 { !byte } else { *byte });
    std::fs::write(store, broken.collect::<Vec<u8>>()).unwrap();
    let (code, said) = run(&["store", "verify", "--json", store]);
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, document["ok"].as_bool()), (1, Some(false)), "{said}");
}

#[test]
fn a_group_is_pushed_to_a_service_and_a_reload_moves_it() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let receiver = Upstream::http(|received| match &received.body[..] {
        b"bad" => Reply::status(500),
        _ => Reply::status(204),
    });
    let file = |push: &str| {
        format!(
            "defaults: {{ retry: off, breaker: off, outlier: off }}\n\
             services:\n  mail: {{ endpoints: [\"{}\"] }}\n\
             topics:\n  orders: on\n\
             subscriptions:\n  mail: {{ topic: orders, retry: {{ attempts: 2, base: 1ms, cap: 1ms }}, push: {push} }}\n",
            receiver.address()
        )
    };
    let signed = format!("{{ to: mail, path: /hooks/orders, secrets: {SECRET} }}");
    let mut selvedge = Selvedge::durable(&file(&signed));
    ok(&selvedge, "POST", "/v1/topics/orders/messages", "bad");
    ok(&selvedge, "POST", "/v1/topics/orders/messages", "good");
    let group = || ok(&selvedge, "GET", "/v1/topics/orders/groups/mail", "");
    wait::until_true("both to be settled", || group()["lag"] == 0);
    assert_eq!(group()["dead"], 1, "the one that fails at every attempt");
    let requests = receiver.requests();
    let bodies: Vec<_> = requests.iter().map(|it| String::from_utf8_lossy(&it.body)).collect();
    assert_eq!(bodies.iter().filter(|body| **body == "bad").count(), 2, "{bodies:?}");
    assert_eq!(bodies.iter().filter(|body| **body == "good").count(), 1, "{bodies:?}");
    for received in &requests {
        assert_eq!((&received.method[..], received.path()), ("POST", "/hooks/orders"));
        let seconds = received.header("webhook-timestamp").unwrap().parse().unwrap();
        let id = received.header("webhook-id").unwrap();
        let own = signature(&[Secret::parse(SECRET).unwrap()], id, seconds, &received.body);
        assert_eq!(received.header("webhook-signature"), Some(&own[..]));
        assert_eq!(received.header("ce-specversion"), Some("1.0"));
    }

    let text = selvedge.ports().durable_file(&file("{ to: mail, path: /moved }"));
    std::fs::write(&selvedge.file, text).unwrap();
    wait::until_true("the new file to be taken", || selvedge.generation() == (2, None));
    wait::until_true("a message at the new place", || {
        ok(&selvedge, "POST", "/v1/topics/orders/messages", "more");
        receiver.requests().iter().any(|it| it.path() == "/moved")
    });
    selvedge.signal("TERM");
    assert!(selvedge.ended().success(), "{}", selvedge.log());
}
