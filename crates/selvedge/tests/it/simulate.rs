//! `selvedge simulate` as a person or a pipeline meets it.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// Four attempts and nothing to bound them.
const GREEDY: &str = "\
version: 1
listeners:
  edge: { bind: \"127.0.0.1:8080\" }
services:
  db:
    endpoints: [\"127.0.0.1:9001\"]
    timeout: { attempt: 400ms, total: 2s }
    retry: { attempts: 4, backoff: { base: 10ms, cap: 10ms }, budget: off }
    breaker: off
    outlier: off
routes:
  - match: { path: /** }
    to: db
";

/// 120/s are served with ease; 480/s, after an outage, are not.
const STORM: &str = "\
name: a storm
config: ./selvedge.yaml
clients:
  - { name: web, rate: 120/s, route: /, deadline: 2s }
services:
  db: { replicas: 1, slots: 1, service: { exponential: 5ms }, queue: unbounded, on_disconnect: keep }
faults:
  - { at: 10s, for: 5s, service: db, capacity: 0% }
run: { duration: 45s, warm_up: 2s, seeds: 4, recovery_limit: 20s }
expect:
  - recovers_within: 20s
";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("selvedge.yaml", GREEDY);
        folder.write(
            "careful.yaml",
            &GREEDY.replace("budget: off", "budget: { ratio: 10%, floor: 1/s }"),
        );
        folder.write("storm.yaml", STORM);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn simulate(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_selvedge"))
            .arg("simulate")
            .args(arguments.split_whitespace())
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What it prints, if it ends as it should.
    fn says(&self, arguments: &str, code: i32) -> String {
        let output = self.simulate(arguments);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments}\n{out}\n{err}");
        assert!(!err.contains('\r'), "no progress line without a terminal: {err:?}");
        if code == 2 { err } else { out }
    }

    fn data(&self, arguments: &str, code: i32) -> Value {
        serde_json::from_str(&self.says(arguments, code)).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Every element that is opened is closed, in order.
fn well_formed(xml: &str) {
    let mut open: Vec<String> = Vec::new();
    let mut rest = xml;
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').expect("a tag ends") + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name = |tag: &str| tag.split_whitespace().next().unwrap_or_default().to_owned();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed.trim()), "in {xml}");
        } else if !tag.starts_with(['?', '!']) && !tag.ends_with('/') {
            open.push(name(tag));
        }
    }
    assert!(open.is_empty(), "{open:?} in {xml}");
}

#[test]
fn a_run_that_fails_says_so_in_every_form() {
    let folder = Folder::new();
    let arguments = "run storm.yaml --json --html r.html --junit r.xml --markdown r.md";
    let document = folder.data(arguments, 1);
    assert_eq!(document["schema"], "selvedge.simulate/1");
    assert_eq!(document["outcome"], "failed");
    assert_eq!(document["verdicts"]["metastable"], 4, "{document:#}");
    assert_eq!(document["runs"].as_array().unwrap().len(), 4);
    assert!(document["assumptions"].as_array().is_some_and(|lines| !lines.is_empty()));
    // The fluid model has a word on a storm that is nothing else.
    assert!(document["fluid"].as_str().unwrap().contains("fluid model"), "{document:#}");

    let junit = folder.read("r.xml");
    well_formed(&junit);
    assert!(junit.contains("<failure") && junit.contains("failures=\"1\""), "{junit}");

    let markdown = folder.read("r.md");
    assert!(markdown.contains("metastable") && markdown.contains("| "), "{markdown}");

    let html = folder.read("r.html");
    assert!(html.starts_with("<!doctype html>") && html.contains("What was assumed"));
    assert!(html.matches("<svg").count() >= 5, "charts");
    for outside in ["http://", "https://", "<script", "<link", "url("] {
        assert!(!html.contains(outside), "it stands alone: {outside}");
    }
}

#[test]
fn the_same_run_with_another_configuration_passes() {
    let folder = Folder::new();
    let said = folder.says("run storm.yaml --config careful.yaml", 0);
    assert!(said.contains("recovered") && said.contains("Assumed:"), "{said}");
    // The same seeds, the same run: byte for byte.
    assert_eq!(said, folder.says("run storm.yaml --config careful.yaml --threads 1", 0));
}

#[test]
fn too_few_seeds_to_tell_is_an_exit_code_of_its_own() {
    let folder = Folder::new();
    let document = folder.data("run storm.yaml --config careful.yaml --json", 0);
    let mean = document["estimates"]["success_rate"]["mean"].as_f64().unwrap();
    // At the mean itself some seeds are above and some below.
    let bound = format!("expect:\n  - success_rate: \">= {:.6}%\"\n", mean * 100.0);
    let at = STORM.find("expect:").unwrap();
    folder.write("edge.yaml", &format!("{}{bound}", &STORM[..at]));
    let said = folder.says("run edge.yaml --config careful.yaml", 3);
    assert!(said.contains("inconclusive"), "{said}");
}

#[test]
fn bad_input_has_a_place_and_a_suggestion() {
    let folder = Folder::new();
    folder.write("typo.yaml", &STORM.replace("deadline:", "deadlin:"));
    let said = folder.says("run typo.yaml", 2);
    assert!(said.contains("typo.yaml:4:") && said.contains("deadline"), "{said}");
    assert!(said.contains("SV0101"), "{said}");

    folder.write(
        "never.yaml",
        &STORM.replace("exponential: 5ms", "lognormal: { p50: 9ms, p99: 5ms }"),
    );
    let said = folder.says("run never.yaml", 2);
    assert!(said.contains("never.yaml:6:") && said.contains("above p50"), "{said}");

    folder.write("pooled.yaml", &GREEDY.replace("breaker: off", "pool: { connections_max: 8 }"));
    let said = folder.says("run storm.yaml --config pooled.yaml", 2);
    assert!(said.contains("`services.db.pool.connections_max` is not simulated"), "{said}");
    assert!(said.contains("SV0501") && said.contains("ignore: [pool]"), "{said}");

    let said = folder.says("boundary storm.yaml --vary faults[0].depth --to 9", 2);
    assert!(said.contains("cannot be varied") && said.contains("faults[N].for"), "{said}");
    let said = folder.says("run nowhere.yaml", 2);
    assert!(said.contains("nowhere.yaml"), "{said}");
}

#[test]
fn a_boundary_lies_between_what_recovers_and_what_does_not() {
    let folder = Folder::new();
    let document = folder.data("boundary storm.yaml --vary faults[0].for --to 8 --json", 0);
    let half = document["half"].as_f64().unwrap_or_else(|| panic!("{document:#}"));
    // The fluid model has half a second; chance makes the edge a soft one.
    assert!((0.2..2.0).contains(&half), "{document:#}");
    let points = document["points"].as_array().unwrap();
    let recovered = |at: usize| points[at]["recovered"].as_u64().unwrap();
    assert!(recovered(0) >= 3 && recovered(points.len() - 1) == 0, "{document:#}");
    assert!(document["fluid"].as_str().unwrap().contains("does not come back"), "{document:#}");
}

#[test]
fn a_map_has_a_cell_for_each_pair() {
    let folder = Folder::new();
    let arguments = "map storm.yaml --x rate=20,120 --y faults[0].for=0.1,8 --html map.html";
    let said = folder.says(arguments, 0);
    assert!(said.contains("100%#") && said.contains("0%."), "{said}");
    assert_eq!(folder.read("map.html").matches("<td").count(), 4);
    let document = folder.data(&format!("{arguments} --json"), 0);
    // Little load recovers from anything; much of it does not from a long outage.
    assert_eq!(document["cells"][1][0]["region"], "stable", "{document:#}");
    assert_eq!(document["cells"][1][1]["region"], "metastable", "{document:#}");
}

#[test]
fn a_diff_says_which_is_worse() {
    let folder = Folder::new();
    let better = folder.data("diff selvedge.yaml careful.yaml --scenario storm.yaml --json", 0);
    let success = &better["differences"][0];
    assert_eq!((&success["what"], &success["better"]), (&"success rate".into(), &true.into()));
    let said = folder.says("diff careful.yaml selvedge.yaml --scenario storm.yaml", 1);
    assert!(said.contains("| worse |"), "{said}");
}

#[test]
fn advice_is_a_line_of_the_file_with_what_fails_beside_it() {
    let folder = Folder::new();
    let document = folder.data("advise storm.yaml --seeds 4 --json", 0);
    assert_eq!(document["found"], true, "{document:#}");
    let smallest = &document["front"][0];
    let line = smallest["changes"][0].as_str().unwrap();
    assert!(line.starts_with("services.db."), "{document:#}");
    assert!(smallest["perturbed"]["tried"].as_u64().unwrap() > 0, "{document:#}");
    // It is as good as its word: as it is, nothing to change.
    let said = folder.says("advise storm.yaml --seeds 4 --config careful.yaml", 0);
    assert!(said.contains("nothing to change"), "{said}");
}

#[test]
fn a_game_day_is_played_on_ones_own_scenario() {
    let folder = Folder::new();
    let names = folder.says("gameday", 0);
    let presets: Vec<&str> = names
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(presets.len(), 8, "{names}");
    for preset in presets {
        // Each can be played on the scenario that comes along.
        let document = match folder.simulate(&format!("gameday {preset} --seeds 2 --json")) {
            output if output.status.code() == Some(2) => panic!("{}", text(&output.stderr)),
            output => serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        };
        assert!(document["scenario"].as_str().unwrap().starts_with(preset), "{document:#}");
        assert!(!document["faults"].as_array().unwrap().is_empty());
        assert!(document["verdicts"]["unhealthy-before-trigger"].is_null(), "{document:#}");
    }
    let storm = folder.data("gameday retry-storm --scenario storm.yaml --json", 1);
    assert_eq!(storm["verdicts"]["metastable"], 4, "{storm:#}");
    folder.says("gameday retry-storm --scenario storm.yaml --config careful.yaml", 0);
    let example = folder.simulate("gameday example/retry-storm --seeds 1 --json");
    let example: Value = serde_json::from_slice(&example.stdout).unwrap();
    let scenarios = example.as_array().unwrap();
    assert!(scenarios.len() >= 2 && scenarios.iter().all(|it| it["verdicts"].is_object()));
    let said = folder.says("gameday example/retry-storm --html page.html", 2);
    assert!(said.contains("several scenarios"), "{said}");
    let said = folder.says("gameday sinkhole --scenario storm.yaml", 2);
    assert!(said.contains("`db` has one instance"), "{said}");
    let said = folder.says("gameday doomsday", 2);
    assert!(said.contains("no game day `doomsday`") && said.contains("cache-flush"), "{said}");
}

#[test]
fn a_trace_is_replayed() {
    let folder = Folder::new();
    let lines: Vec<String> =
        (0..4000).map(|i| format!("{},/{}", f64::from(i) / 80.0, i % 2)).collect();
    folder.write("calls.csv", &format!("time,route\n{}\n", lines.join("\n")));
    let document = folder.data("replay calls.csv storm.yaml --only /1 --json", 0);
    assert_eq!(document["runs"][0]["requests"].as_u64().unwrap() / 10, 192, "{document:#}");
    let said = folder.says("replay calls.csv storm.yaml --client nobody", 2);
    assert!(said.contains("web"), "{said}");
}
