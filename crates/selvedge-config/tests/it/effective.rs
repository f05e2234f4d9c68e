//! `config show --effective`: everything that holds, and it reads back the same.

use proptest::prelude::*;

fn round_trip(text: &str) {
    let first = crate::load(text).unwrap_or_else(|report| panic!("{report}\n{text}"));
    let shown = first.effective();
    let second = crate::load(&shown).unwrap_or_else(|report| panic!("{report}\n{shown}"));
    assert_eq!(format!("{:?}", first.proxy), format!("{:?}", second.proxy), "{shown}");
    assert_eq!(first.operator, second.operator);
    assert_eq!(
        format!("{:?}{:?}", first.durable, first.api),
        format!("{:?}{:?}", second.durable, second.api)
    );
    // What was a default is given now, and nothing else changes.
    let stable = crate::load(&second.effective()).unwrap().effective();
    assert_eq!(second.effective(), stable);
    let json = serde_json::to_string(&first.effective_json()).unwrap();
    let third = crate::load(&json).unwrap_or_else(|report| panic!("{report}\n{json}"));
    assert_eq!(format!("{:?}", first.proxy), format!("{:?}", third.proxy), "{json}");
}

const FULL: &str = r#"
version: 1
listeners:
  edge: { bind: "127.0.0.1:8080", protocol: http1 }
  grpc: { bind: "[::1]:8443", protocol: h2c }
ambassador: on
operator: { bind: "127.0.0.1:9999", hosts: ops.internal }
connections: { trusted_proxies: [10.0.0.0/8, "::1"], head_bytes_max: 32KiB }
deadline: { send: off }
durable: { path: data/selvedge.db, cache: 8MiB }
api: { bind: "127.0.0.1:9909", body_max: 1MiB }
topics:
  orders: { retention: { age: 30d, size: off, unconsumed: on }, priorities: 5s, dedupe: { window: 1m, max: 5000 } }
  rates: { retention: off, compact: { lag: 1m }, durability: relaxed }
  checked: { schema: { document: { type: object, properties: { prefix: { minLength: 1 }, a: { enum: [1, "1", true] } } }, compatibility: full } }
  audit: { collect: [orders, { from: "*.error", where: { exact: { key: k } } }] }
subscriptions:
  billing: { topic: orders, from: 2026-01-31T00:00:00Z, retry: { attempts: 3, base: 50ms }, ordered: on }
  gold: { topic: orders, filter: [{ prefix: { type: order. } }, { in: { data.tier: [gold, "1", 1, 1.5, true, off] } }, { not: { wildcard: { key: "us.#" } } }] }
  mail: { topic: orders, group: mail/eu, from: 7, push: { to: orders, path: "/hooks?of=orders", mode: structured, concurrency: 4 } }
schedules:
  nightly: { spec: "30 2 * * *", zone: Europe/Lisbon, topic: orders, missed: all:3, key: k, data: "{}", headers: { Content-Type: application/json } }
runtime: { workers: 2, drain: 1m30s, name: edge-1 }
services:
  orders:
    endpoints: [{ address: "a.internal:9001", weight: 3 }, "[::1]:9002"]
    host: orders.internal
    balance: { algorithm: weighted_round_robin, panic_below: 12.5% }
    health: { kind: tcp, every: 1500ms }
    outlier: { consecutive: off, failure_percentage: 60% }
    timeout: { attempt: off, total: 2s, idle: 5s }
    retry: { attempts: 4, on: [connect, gateway], budget: { ratio: 10%, floor: 3/s, basis: call } }
    hedge: { after: p99.9 }
    breaker: { window: 200 calls, slow_call: 400ms, consecutive: 7, open_growth: 1.5 }
    bulkhead: { max_in_flight: 10, queue: 5, order: lifo }
    fallback:
      stale_for: 5m
      response: { status: 503, body: "{\"error\": \"later: \\\"soon\\\" # no\"}\n", headers: { content-type: application/json } }
    load: { rate: 1000/m, capacity: 100/s }
  pay:
    endpoints: ["127.0.0.1:9003"]
    protocol: h2c
    host: endpoint
    hedge: off
routes:
  - match: { path: /orders/**, host: ["*.example.com"], methods: [GET, POST], headers: { x-d: { present: on }, x-p: { prefix: "off" }, x-v: "2" }, query: { q: "" }, listeners: edge }
    to: orders
    limit: { per: "header:X-Api-Key", rate: 5/100ms }
    strip_prefix: /orders
    timeout: 1s
    headers: { request: { set: { x-a: "on", x-b: "1.10", x-c: "$${HOME}" }, remove: x-q }, response: { add: { x-z: "ü: {" } } }
    fallback: { response: gone }
  - name: "no"
    match: /pay
    to: pay
    rewrite: { prefix: /pay, path: /v2 }
"#;

#[test]
fn a_full_configuration_reads_back_the_same() {
    round_trip(FULL);
    insta::assert_snapshot!("effective_full", crate::load(FULL).unwrap().effective());
}

#[test]
fn the_smallest_configuration_reads_back_the_same() {
    round_trip("version: 1\nambassador: on\nservices: { a: { endpoints: \"127.0.0.1:1\" } }\n");
}

#[test]
fn secrets_are_not_shown() {
    let text = crate::with_service("    fallback: { response: \"${TOKEN}\" }")
        + "operator: { token: \"${TOKEN}\" }\n";
    let loaded = crate::load(&text).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.operator.as_ref().unwrap().token.as_deref(), Some("correct-horse-battery"));
    let shown = format!("{}{}{:?}", loaded.effective(), loaded.effective_json(), loaded);
    assert!(shown.contains("token: \"${TOKEN}\""), "{shown}");
    let again = crate::load(&loaded.effective()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(again.operator.as_ref().unwrap().token.as_deref(), Some("correct-horse-battery"));
    let file = format!("{:?} {:?}", loaded.file, loaded.operator);
    assert!(!loaded.effective().contains("correct-horse") && !file.contains("correct-horse"));
    assert!(!loaded.effective_json().to_string().contains("correct-horse"));
}

#[test]
fn a_secret_in_the_file_is_masked_and_the_mask_is_no_secret() {
    for written in ["correct-horse-staple", "x${TOKEN}", "${NOWHERE:-correct-horse-staple}"] {
        let text = crate::with_service("") + &format!("operator: {{ token: \"{written}\" }}\n");
        let loaded = crate::load(&text).unwrap_or_else(|report| panic!("{report}"));
        let shown = loaded.effective();
        assert!(shown.contains("token: \"***\"") && !shown.contains("correct-horse"), "{shown}");
        let refused = crate::load(&shown).unwrap_err().to_string();
        assert!(refused.contains("in the place of a secret"), "{refused}");
    }
}

#[test]
fn secrets_of_a_push_read_back() {
    let text = crate::with_service("")
        + "durable: s.db\ntopics: { t: on }\nsubscriptions:\n  p:\n    topic: t\n    push: { to: a, secrets: [\"${SIGNING}\"] }\n";
    let name = text.lines().find_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
    let text = text.replace("to: a,", &format!("to: {},", name.unwrap_or("a")));
    let loaded = crate::load(&text).unwrap_or_else(|report| panic!("{report}"));
    let shown = loaded.effective();
    assert!(shown.contains("[\"${SIGNING}\"]"), "{shown}");
    let again = crate::load(&shown).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(again.durable.unwrap().pushes, loaded.durable.unwrap().pushes);
}

proptest! {
    /// Values read back as themselves whatever they are.
    #[test]
    fn generated_services_read_back_the_same(
        attempts in 1u32..=16,
        connect_us in 1u64..=1_000_000,
        attempt_us in 1_000_000u64..=40_000_000,
        total_ms in 40_000u64..=4_000_000,
        millionths in 1u32..=1_000_000,
        calls in 20u32..=100_000,
        burst in 1u32..=1_000_000,
        body in "\\PC{0,40}",
        stale_s in proptest::option::of(1u32..100_000),
    ) {
        let percent = format!("{}.{:04}%", millionths / 10_000, millionths % 10_000);
        let stale = stale_s.map_or_else(|| "off".to_owned(), |it| format!("{it}s"));
        let quoted = body.replace("${", "$${");
        let body = serde_json::to_string(&quoted).unwrap();
        let text = crate::with_service(&format!(
            "    timeout: {{ connect: {connect_us}us, attempt: {attempt_us}us, total: {total_ms}ms }}
    retry: {{ attempts: {attempts}, budget: {percent} }}
    breaker: {{ window: {calls} calls, failure_rate: {percent} }}
    fallback: {{ stale_for: {stale}, response: {body} }}"
        )).replace("to: orders }", &format!("to: orders, limit: {burst}/7s }}"));
        round_trip(&text);
    }
}
