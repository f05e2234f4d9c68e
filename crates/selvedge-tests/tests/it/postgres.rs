//! The durable engine on PostgreSQL, as its users have it.

#[expect(dead_code, reason = "its faults are tried where the store is")]
#[path = "../../../selvedge-durable/tests/it/postgres/server.rs"]
mod server;

use selvedge_tests::{selvedge::Selvedge, wait};
use serde_json::{Value, json};
use server::Server;

fn run(server: &Server, schema: &str) -> Selvedge {
    let rest = "topics:\n  orders: on\nsubscriptions:\n  billing: orders\n";
    let ports = selvedge_tests::selvedge::Ports::free();
    let place = format!("durable: {{ postgres: \"${{DATABASE}}\", schema: {schema} }}");
    let text = ports.durable_file(rest).replace("durable: store.db", &place);
    Selvedge::run_file(&text, ports, &[("DATABASE", &server.url())])
}

fn ok(selvedge: &Selvedge, method: &str, target: &str, body: &str) -> Value {
    let answer = selvedge.app(method, target, body);
    assert!(answer.status < 300, "{method} {target}: {} {}", answer.status, answer.text());
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

#[test]
fn two_processes_are_one_store() {
    let server = Server::shared();
    let schema = format!("whole{}", std::process::id());
    let (one, two) = (run(&server, &schema), run(&server, &schema));
    ok(&one, "POST", "/v1/topics/orders/messages", r#"{"n":1}"#);
    let second = ok(&two, "POST", "/v1/topics/orders/messages", r#"{"n":2}"#);
    assert_eq!(second, json!({ "position": 2, "duplicate": false }));
    let receive = "/v1/topics/orders/groups/billing/receive?max=1";
    assert_eq!(ok(&two, "POST", receive, "")["messages"][0]["data"], json!({ "n": 1 }));
    assert_eq!(ok(&one, "POST", receive, "")["messages"][0]["data"], json!({ "n": 2 }));
    // Whoever waits at one is served by a publish at the other.
    std::thread::scope(|scope| {
        let waiting = scope
            .spawn(|| ok(&one, "POST", "/v1/topics/orders/groups/billing/receive?wait=60s", ""));
        wait::until_true("the consumer to wait", || {
            one.metrics().sum("selvedge_store_waiting", &[]) > 0.5
        });
        ok(&two, "POST", "/v1/topics/orders/messages", r#"{"n":3}"#);
        assert_eq!(waiting.join().unwrap()["messages"][0]["data"], json!({ "n": 3 }));
    });
    drop(one);
    ok(&two, "POST", "/v1/topics/orders/messages", r#"{"n":4}"#);
    assert_eq!(ok(&two, "GET", "/v1/topics/orders", "")["next"], 5);
}
