//! Files as people write them: the published one, the examples, and wrong ones.

use selvedge_tests::{
    ports,
    raw::{self, Connection},
    selvedge::{self, Ports, Selvedge},
    upstream::Upstream,
    wait,
};
use std::path::{Path, PathBuf};

/// The file that the design and the documentation show, to the letter.
const PUBLISHED: &str = r#"# selvedge.yaml — a sidecar that makes two flaky dependencies safe
version: 1
listeners:
  edge: { bind: "127.0.0.1:8080" }
services:
  orders:
    endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"]
    balance: peak_ewma
    health: { path: /healthz, every: 2s }
    timeout: { connect: 250ms, attempt: 500ms, total: 2s }
    retry: { attempts: 3, backoff: { base: 50ms, cap: 5s, jitter: full }, budget: 20% }
    breaker: { window: 10s, failure_rate: 50%, min_calls: 20, open_for: 5s, probes: 3, slow_call: 1s }
    bulkhead: { max_in_flight: 100, queue: 50, queue_for: 50ms }
    fallback: { stale_for: 5m }
routes:
  - match: { path: /orders/** }
    to: orders
    limit: { per: "header:x-api-key", rate: 100/s, burst: 200 }
"#;

#[test]
fn the_published_file_passes_the_check_to_the_letter() {
    let output = selvedge::command(&["check", "{}"], PUBLISHED);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_published_file_runs() {
    let (one, two) = (Upstream::named("one"), Upstream::named("two"));
    let ports = Ports::free();
    let mut text = PUBLISHED
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{}", ports.edge))
        .replace("127.0.0.1:9001", &one.address())
        .replace("127.0.0.1:9002", &two.address());
    // Its other surfaces have ports that the machine may not have free.
    text.push_str(&format!("operator: {{ bind: \"127.0.0.1:{}\" }}\n", ports.operator));
    text.push_str(&format!("ambassador: {{ bind: \"127.0.0.1:{}\" }}\n", ports.ambassador));
    let selvedge = Selvedge::run_file(&text, ports, &[]);
    for nth in 0..20 {
        assert_eq!(selvedge.get(&format!("/orders/{nth}")).status, 200);
    }
    assert!(one.count() > 0 && two.count() > 0);
    assert_eq!(selvedge.get("/other").status, 404);
    let limited = (0..400).filter(|_| selvedge.get("/orders/1").status == 429).count();
    assert!(limited > 50, "{limited} of 400 at once were limited to 200");
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

#[test]
fn every_example_passes_the_check() {
    let mut checked = 0;
    let mut folders = vec![examples()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let is_ours = path.extension().is_some_and(|it| it == "yaml")
                && text.lines().any(|line| line.starts_with("services:"));
            if is_ours && !text.lines().any(|line| line.starts_with("config:")) {
                let output = selvedge::command(&["check", path.to_str().unwrap()], "");
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{}: {said}", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked >= 3, "{checked} examples were found");
}

/// Wrong files, and a word that the message about each must have.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "an unknown key",
        "services:\n  up:\n    endpoints: [\"127.0.0.1:1\"]\n    timout: { total: 1s }\n",
        "timeout",
    ),
    (
        "a number without a unit",
        "services:\n  up:\n    endpoints: [\"127.0.0.1:1\"]\n    timeout: { total: 1 }\n",
        "total",
    ),
    (
        "a percentage beyond all",
        "services:\n  up:\n    endpoints: [\"127.0.0.1:1\"]\n    breaker: { failure_rate: 150% }\n",
        "failure_rate",
    ),
    ("a service without endpoints", "services:\n  up:\n    endpoints: []\n", "endpoints"),
    (
        "a route to nobody",
        "services:\n  up: { endpoints: [\"127.0.0.1:1\"] }\nroutes:\n  - match: { path: /** }\n    to: upp\n",
        "upp",
    ),
    ("an endpoint that is none", "services:\n  up: { endpoints: [\"localhost\"] }\n", "localhost"),
    ("no YAML", "services: [unclosed\n", "SV01"),
    (
        "a key twice",
        "services:\n  up: { endpoints: [\"127.0.0.1:1\"] }\n  up: { endpoints: [\"127.0.0.1:2\"] }\n",
        "up",
    ),
];

#[test]
fn a_wrong_file_starts_nothing_and_says_where() {
    let mut wrong = Vec::new();
    for (name, rest, word) in WRONG {
        let port = ports::free();
        let text =
            format!("version: 1\nlisteners:\n  edge: {{ bind: \"127.0.0.1:{port}\" }}\n{rest}");
        for command in ["check", "run"] {
            let output = selvedge::command(&[command, "{}"], &text);
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                wrong.push(format!("{command} takes {name}"));
            } else if !said.contains(word) || !said.contains("selvedge.yaml:") {
                wrong.push(format!("{command} of {name} does not say `{word}` and where:\n{said}"));
            }
        }
        assert!(Connection::try_open(port).is_err(), "{name}: something listens");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_error_is_said_at_once() {
    let text = "version: 1\nlisteners:\n  edge: { bind: \"nowhere\" }\nservices:\n  up:\n    endpoints: \
                [\"nowhere\"]\n    timout: { total: 1s }\n    retry: { attempts: none }\n";
    let output = selvedge::command(&["check", "--json", "{}"], text);
    assert!(!output.status.success());
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = document["diagnostics"].as_array().unwrap();
    assert!(found.len() >= 4, "{document}");
    assert!(
        found.iter().all(|one| one["at"]["line"].is_u64() && one["at"]["column"].is_u64()),
        "{document}"
    );
}

#[test]
fn secrets_come_from_the_environment() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::run_with(
        "services:\n  up: { endpoints: [\"${UP_ADDRESS}\"] }\nroutes:\n  - match: { path: /** }\n    to: \
         up\n",
        &[("UP_ADDRESS", &upstream.address())],
    );
    assert_eq!(selvedge.get("/").text(), "up");
}

#[test]
fn names_are_looked_up() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::before(
        &[format!("localhost:{}", upstream.port())],
        "    retry: { attempts: 3 }\n",
    );
    assert_eq!(selvedge.get("/").text(), "up");
    assert!(raw::get(selvedge.operator, "/health/live").is_ok());
}

#[test]
fn telemetry_says_where_lines_go_and_how_they_look() {
    let upstream = Upstream::named("up");
    let rest = Selvedge::one_service(&[upstream.address()], "");
    let telemetry = "telemetry: { access_log: stderr, log_level: warn, log_format: text }\n";
    let selvedge = Selvedge::run(&format!("{rest}{telemetry}"));
    assert_eq!(selvedge.get("/").status, 200);
    wait::until_true("the line", || selvedge.log().contains("\"log\":\"access\""));
    assert!(selvedge.access_log().is_empty(), "it goes elsewhere");
    assert!(!selvedge.log().contains("listening"), "that is no warning: {}", selvedge.log());
    selvedge.rewrite(&format!("{rest}telemetry: {{ access_log: off }}\n"));
    wait::until_true("the warning", || selvedge.log().contains("from the next start"));
    assert!(selvedge.log().contains(" WARN "), "text, not JSON: {}", selvedge.log());
}
