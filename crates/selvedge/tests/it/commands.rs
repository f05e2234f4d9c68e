//! Help, messages and exit codes.

use std::process::{Command, Output, Stdio};

/// Runs the binary to its end in an empty folder, without a terminal.
fn selvedge(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(arguments)
        .current_dir(folder.path())
        .env_remove("SELVEDGE_TOKEN")
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_reads_well() {
    for (name, arguments) in [
        ("selvedge", vec!["--help"]),
        ("run", vec!["run", "--help"]),
        ("check", vec!["check", "--help"]),
        ("config_show", vec!["config", "show", "--help"]),
        ("config_schema", vec!["config", "schema", "--help"]),
        ("explain", vec!["explain", "--help"]),
        ("demo", vec!["demo", "--help"]),
        ("top", vec!["top", "--help"]),
        ("doctor", vec!["doctor", "--help"]),
        ("store", vec!["store", "--help"]),
    ] {
        let output = selvedge(&arguments);
        assert!(output.status.success(), "{name}");
        assert!(output.stderr.is_empty(), "help is data: {name}");
        insta::assert_snapshot!(name, text(&output.stdout));
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let output = selvedge(&["chek"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("'check'"), "suggests the command that was meant");
}

#[test]
fn run_without_a_file_shows_one() {
    let output = selvedge(&["run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty(), "standard output is for data");
    insta::assert_snapshot!(text(&output.stderr));
}

#[test]
fn top_without_a_process_says_so() {
    // Nothing can listen on port 1 of this address without privilege, and nothing does.
    let output = selvedge(&["top", "--once", "--operator", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(4));
    let said = text(&output.stderr);
    assert!(said.contains("SV0602") && said.contains("127.0.0.1:1"), "{said}");
    assert!(!said.contains('\x1b'), "no colour without a terminal");
}

#[test]
fn version_is_for_people_and_programs() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(text(&selvedge(&["version"]).stdout), format!("selvedge {version}\n"));
    let json: serde_json::Value =
        serde_json::from_slice(&selvedge(&["version", "--json"]).stdout).unwrap();
    assert_eq!(json["version"], version);
}

/// Runs a command on a file with this text.
fn on(arguments: &[&str], file: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("selvedge.yaml"), file).unwrap();
    Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(arguments)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

const GOOD: &str = "\
version: 1
listeners:
  edge: { bind: \"127.0.0.1:8080\" }
services:
  orders:
    endpoints: [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]
    timeout: { attempt: 500ms, total: 2s }
    breaker: { open_for: 5s }
    health: { path: /healthz }
routes:
  - name: orders
    match: { path: /orders/** }
    to: orders
";

#[test]
fn check_is_data_with_an_exit_code() {
    let output = on(&["check", "selvedge.yaml"], GOOD);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));

    let bad = GOOD.replace("timeout:", "timout:").replace("to: orders", "to: ordres");
    let output = on(&["check", "selvedge.yaml"], &bad);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    // Every error at once, each with a suggestion.
    assert!(said.contains("timout") && said.contains("ordres"), "{said}");
    assert!(!said.contains('\x1b'), "no colour without a terminal");

    let output = on(&["check", "--json", "selvedge.yaml"], &bad);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], false);
    assert!(report["errors"].as_u64().unwrap() >= 2, "{report}");
    let first = &report["diagnostics"][0];
    assert!(first["at"]["line"].as_u64().unwrap() > 0 && first["code"].is_string(), "{first}");
}

#[test]
fn run_refuses_what_check_refuses() {
    let output = on(&["run", "selvedge.yaml"], &GOOD.replace("timeout:", "timout:"));
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).contains("timout"));
}

#[test]
fn the_effective_configuration_is_a_configuration() {
    let output = on(&["config", "show", "--effective", "selvedge.yaml"], GOOD);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let effective = text(&output.stdout);
    assert!(effective.contains("open_for: 5s"), "{effective}");
    let again = on(&["config", "show", "--effective", "selvedge.yaml"], &effective);
    // Once written out, a default is no longer one; nothing else changes.
    assert_eq!(text(&again.stdout), effective.replace("  # default", ""));
}

#[test]
fn the_schema_is_json() {
    let schema: serde_json::Value =
        serde_json::from_slice(&selvedge(&["config", "schema"]).stdout).unwrap();
    assert!(schema["$schema"].is_string(), "{schema}");
}

#[test]
fn explain_reads_a_file() {
    let output = on(&["explain", "GET", "/orders/1", "--config", "selvedge.yaml"], GOOD);
    assert!(output.status.success(), "{}", text(&output.stderr));
    insta::assert_snapshot!(text(&output.stdout));
    let output = on(&["explain", "GET", "/other", "--config", "selvedge.yaml", "--json"], GOOD);
    assert_eq!(output.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["verdict"], "not_found");
}

#[test]
fn the_files_that_people_copy_are_sound() {
    let readme = include_str!("../../../../README.md");
    let blocks: Vec<&str> =
        readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    let minimal = text(&selvedge(&["run"]).stderr);
    let minimal = minimal.split_once("can be this short:\n").unwrap().1;
    let minimal = minimal.split_once("\n\n").unwrap().0.replace("\n    ", "\n");
    for file in blocks.into_iter().chain([minimal.as_str()]) {
        let output = on(&["check", "--strict", "selvedge.yaml"], file);
        assert_eq!(output.status.code(), Some(0), "{file}\n{}", text(&output.stdout));
    }
}
