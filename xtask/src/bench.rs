//! `cargo xtask bench`: time, by criterion. Instructions are counted by `cargo xtask instructions`.

use crate::{
    phases::{cargo, run},
    tidy,
};
use std::{path::Path, process::ExitCode};

/// Runs every benchmark target, or those whose package contains the first of `rest`.
pub(crate) fn command(root: &Path, rest: &[&str]) -> ExitCode {
    let filter = rest.first().copied().unwrap_or("");
    let mut passed = true;
    for (package, target) in tidy::bench_targets(root) {
        if target == "instructions" || !format!("{package}/{target}").contains(filter) {
            continue;
        }
        eprintln!("\n━━ {package}/{target}");
        passed &= run(cargo(root).args(["bench", "--package", &package, "--bench", &target]));
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
