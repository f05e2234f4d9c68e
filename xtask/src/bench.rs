//! `cargo xtask bench`: time by criterion, instructions by gungraun.

use crate::{
    phases::{cargo, run},
    tidy,
};
use std::{path::Path, process::ExitCode};

/// Runs every benchmark target, or those whose package contains the first of `rest`.
pub(crate) fn command(root: &Path, rest: &[&str]) -> ExitCode {
    let valgrind = std::process::Command::new("valgrind")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    let filter = rest.first().copied().unwrap_or("");
    let mut passed = true;
    for (package, target) in tidy::bench_targets(root) {
        if !format!("{package}/{target}").contains(filter) {
            continue;
        }
        if target.contains("instructions") && !valgrind {
            eprintln!("{package}/{target}: did not run, it needs valgrind");
            continue;
        }
        eprintln!("\n━━ {package}/{target}");
        passed &= run(cargo(root).args(["bench", "--package", &package, "--bench", &target]));
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
