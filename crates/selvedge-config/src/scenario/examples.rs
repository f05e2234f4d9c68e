//! The worked examples hold what they say.

use std::path::Path;

use selvedge_sim::study::{Outcome, Study};

use super::load_scenario;
use crate::diagnostic::Style;

#[track_caller]
fn check(folder: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/simulate").join(folder);
    let mut seen = 0;
    let mut entries: Vec<_> =
        std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let mut failures = String::new();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("selvedge") || !name.ends_with(".yaml") {
            continue;
        }
        let scenario = load_scenario(&path, None)
            .unwrap_or_else(|report| panic!("{}", report.render(Style::Plain)));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let study = Study::run(&scenario, threads, &|_| ()).unwrap();
        assert!(study.runs.iter().all(|run| run.broken.is_none()));
        if study.outcome() != Outcome::Passed {
            failures += &format!(
                "{name}: {:?}\n{:#?}\n{:?}\n",
                study.tally(),
                study.checks,
                study.verdicts[0]
            );
        }
        assert!(!study.checks.is_empty(), "{name} expects nothing");
        seen += 1;
    }
    assert!(seen >= 2, "{folder} has {seen} scenarios");
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn retry_storm() {
    check("retry-storm");
}

#[test]
fn bucket_vs_breaker() {
    check("bucket-vs-breaker");
}

#[test]
fn hedging() {
    check("hedging");
}

#[test]
fn lifo_vs_fifo() {
    check("lifo-vs-fifo");
}

#[test]
fn small_clients() {
    check("small-clients");
}

#[test]
fn deploy_wave() {
    check("deploy-wave");
}

#[test]
fn demo_shop() {
    check("demo-shop");
}
