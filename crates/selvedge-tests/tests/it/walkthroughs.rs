//! The examples by `curl` do what their pages say.

use selvedge_tests::{
    binary, raw,
    selvedge::{Ports, Selvedge},
    wait,
};
use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// The example's file on free ports, in a folder of its own.
fn serve(name: &str) -> Selvedge {
    let ports = Ports::free();
    let text = std::fs::read_to_string(example(name).join("selvedge.yaml")).unwrap();
    let surfaces = format!(
        "api: \"127.0.0.1:{}\"\noperator: {{ bind: \"127.0.0.1:{}\" }}\n",
        ports.app, ports.operator
    );
    Selvedge::run_file(&format!("{text}{surfaces}"), ports, &[])
}

/// Each command of the page's console blocks with what it prints.
fn commands(name: &str) -> Vec<(String, String)> {
    let page = std::fs::read_to_string(example(name).join("README.md")).unwrap();
    let mut commands: Vec<(String, String)> = Vec::new();
    for block in page.split("```").filter_map(|block| block.strip_prefix("console\n")) {
        for line in block.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), String::new())),
                (None, Some((_, printed))) => *printed += &format!("{line}\n"),
                (None, None) => panic!("{line}"),
            }
        }
    }
    commands
}

/// Runs a command of a page against `selvedge`; what it printed.
fn run(selvedge: &Selvedge, command: &str) -> String {
    let operator = format!("--operator 127.0.0.1:{}", selvedge.operator);
    let command = command
        .replace("127.0.0.1:9901", &format!("127.0.0.1:{}", selvedge.app))
        .replace("selvedge doctor", &format!("{} doctor {operator}", binary::path().display()));
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(output.stderr.is_empty(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_work_queue_does_what_its_page_says() {
    let selvedge = serve("work-queue");
    let commands = commands("work-queue");
    assert!(commands.len() > 10);
    for (command, printed) in commands.into_iter().filter(|(it, _)| !it.ends_with('&')) {
        let said = run(&selvedge, &command);
        // `curl` prints bodies without an end of line.
        assert_eq!(said.trim_end(), printed.trim(), "$ {command}");
    }
}

/// A participant of the election, killed when dropped.
struct Node {
    process: Child,
    said: PathBuf,
}

impl Node {
    fn start(selvedge: &Selvedge, name: &str) -> Self {
        let said = selvedge.folder().join(name);
        let process = Command::new("sh")
            .arg(example("leader-election").join("node.sh"))
            .arg(name)
            .env("APP", format!("http://127.0.0.1:{}", selvedge.app))
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&said).unwrap())
            // With the `curl` that it waits for, so that both end together.
            .process_group(0)
            .spawn()
            .unwrap();
        Self { process, said }
    }

    /// The token with which it leads, if it ever did.
    fn token(&self) -> Option<u64> {
        let said = std::fs::read_to_string(&self.said).unwrap();
        let line = said.lines().last()?;
        line.split_once("leads with token ")?.1.parse().ok()
    }

    fn kill(&mut self) {
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
        }
    }
}

#[test]
fn a_leader_that_is_killed_is_followed_and_its_late_write_refused() {
    let selvedge = serve("leader-election");
    let mut first = Node::start(&selvedge, "a");
    let old = wait::until("the first to lead", || first.token());
    let second = Node::start(&selvedge, "b");
    wait::until_true("the second to wait", || {
        selvedge.metrics().sum("selvedge_store_waiting", &[]) > 0.5
    });
    assert_eq!(second.token(), None, "one leads");
    first.kill();
    let new = wait::until("the second to lead", || second.token());
    assert!(new > old, "{new} follows {old}");
    wait::until_true("the second to write", || {
        raw::get(selvedge.app, "/v1/state/led-by").is_ok_and(|answer| answer.text() == "b")
    });

    // As the page shows it, with the token that was the first one's.
    let commands = commands("leader-election");
    let (late, printed) = commands.iter().find(|(it, _)| it.contains("If-Fence")).unwrap();
    let said = run(&selvedge, &late.replace("leader:1", &format!("leader:{old}")));
    assert_eq!(said, *printed);
    assert_eq!(raw::get(selvedge.app, "/v1/state/led-by").unwrap().text(), "b");
}
