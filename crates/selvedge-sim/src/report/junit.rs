//! The expectations as test cases, for whatever shows test results.

use std::fmt::Write as _;

use super::escape;
use crate::study::{Outcome, Study};

/// The study as JUnit XML.
#[must_use]
pub fn document(study: &Study) -> String {
    let count = |wanted| study.checks.iter().filter(|check| check.result == wanted).count();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\">\n",
        escape(&study.scenario.name),
        study.checks.len(),
        count(Outcome::Failed),
        count(Outcome::Inconclusive)
    );
    for check in &study.checks {
        let _ = write!(
            out,
            "  <testcase classname=\"{}\" name=\"{}\"",
            escape(&study.scenario.name),
            escape(&check.text)
        );
        match check.result {
            Outcome::Passed => out.push_str("/>\n"),
            Outcome::Failed => {
                let _ =
                    writeln!(out, "><failure message=\"{}\"/></testcase>", escape(&check.found));
            }
            Outcome::Inconclusive => {
                let _ = writeln!(
                    out,
                    "><error message=\"inconclusive: {}\"/></testcase>",
                    escape(&check.found)
                );
            }
        }
    }
    out.push_str("</testsuite>\n");
    out
}
