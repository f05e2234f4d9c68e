//! A summary short enough for a pull request.

use std::fmt::Write as _;

use super::{describe, number};
use crate::search::Difference;
use crate::study::{Study, success_rate};

/// The study in a few lines of Markdown.
#[must_use]
pub fn summary(study: &Study) -> String {
    let scenario = &study.scenario;
    let (share, low, high) = study.recovery();
    let mut out = format!("## {}: {}\n\n", scenario.name, study.outcome().name());
    let tally: Vec<String> =
        study.tally().iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
    let _ = writeln!(
        out,
        "{} of {} seeds; users are served again in {:.0} % of runs (95 % interval {:.0} to {:.0} %).\n",
        tally.join(", "),
        study.runs.len(),
        share * 100.0,
        low * 100.0,
        high * 100.0
    );
    for fault in &scenario.faults {
        let _ = writeln!(out, "- Fault: {}", describe(scenario, fault));
    }
    if !study.checks.is_empty() {
        out.push_str("\n| | expectation | found |\n|---|---|---|\n");
        for check in &study.checks {
            let _ = writeln!(out, "| {} | {} | {} |", check.result.name(), check.text, check.found);
        }
    }
    out.push_str("\n| | mean | ± |\n|---|---|---|\n");
    let rows = [
        ("success rate, %", study.over_runs(success_rate), 100.0),
        ("goodput before, /s", study.over_verdicts(|verdict| verdict.baseline), 1.0),
        ("goodput during, /s", study.over_verdicts(|verdict| verdict.during), 1.0),
        ("goodput after, /s", study.over_verdicts(|verdict| verdict.after), 1.0),
        ("amplification", study.over_verdicts(|verdict| verdict.amplification), 1.0),
        ("wasted work, %", study.over_verdicts(|verdict| verdict.wasted), 100.0),
        ("p99, ms", study.over_runs(|run| run.clients.latency.quantile(0.99)), 1e-6),
    ];
    for (what, estimate, scale) in rows {
        let _ = writeln!(
            out,
            "| {what} | {} | {} |",
            number(estimate.mean * scale),
            number(estimate.half_width * scale)
        );
    }
    if let Some(fluid) = &study.fluid {
        let _ = writeln!(out, "\nCross-check, {}.", fluid.sentence());
    }
    out
}

/// Two studies side by side, seed by seed.
#[must_use]
pub fn difference_table(before: &str, after: &str, differences: &[Difference]) -> String {
    let mut out = format!("| | {before} | {after} | difference | |\n|---|---|---|---|---|\n");
    for it in differences {
        let better = (it.difference.mean > 0.0) == it.more_is_better;
        let word = match (it.significant(), better) {
            (false, _) => "same within noise",
            (true, true) => "better",
            (true, false) => "worse",
        };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} ± {} | {word} |",
            it.what,
            number(it.before.mean),
            number(it.after.mean),
            number(it.difference.mean),
            number(it.difference.half_width)
        );
    }
    out
}
