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
