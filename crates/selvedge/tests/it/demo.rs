//! The demo, as a machine runs it.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn every_pattern_helps_and_nothing_is_left_behind() {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["demo", "--fast", "--json"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    assert!(output.status.success(), "{said}\n{report:#}");
    let scenarios = report["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 4);
    for scenario in scenarios {
        assert_eq!(scenario["helped"], true, "{scenario:#}");
        let share = |run: &str| {
            scenario[run]["good"].as_f64().unwrap() / scenario[run]["visits"].as_f64().unwrap()
        };
        assert!(share("with") > share("without"), "{scenario:#}");
    }
    // Generous: a busy machine may be slow, a demo that hangs must not pass.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}
