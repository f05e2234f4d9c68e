//! `cargo xtask test`: one phase after another, all of them even when one
//! fails, with the time each took.

use crate::{instructions, peers, tidy};
use std::{
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

/// How much to run, and how strictly.
#[derive(Clone, Copy)]
pub(crate) struct Scope {
    /// A suite that cannot run here is a failure.
    pub(crate) strict: bool,
    /// Only what needs nothing but cargo.
    pub(crate) quick: bool,
}

struct Phases<'a> {
    root: &'a Path,
    done: Vec<(String, Duration, bool)>,
}

impl Phases<'_> {
    fn phase(&mut self, name: &str, work: impl FnOnce(&Path) -> bool) -> bool {
        eprintln!("\n━━ {name}");
        let begun = Instant::now();
        let passed = work(self.root);
        self.done.push((name.to_owned(), begun.elapsed(), passed));
        passed
    }

    fn cargo(&mut self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> bool {
        self.phase(name, |root| {
            let mut command = cargo(root);
            command.args(arguments).envs(environment.iter().copied());
            run(&mut command)
        })
    }
}

/// Runs everything and says how it went.
pub(crate) fn test(root: &Path, scope: Scope) -> ExitCode {
    let mut phases = Phases { root, done: Vec::new() };
    phases.cargo("format", &["fmt", "--all", "--check"], &[]);
    phases.phase("tidy", |root| tidy::report(&tidy::check(root)));
    phases.cargo(
        "clippy",
        &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        &[],
    );

    let mut missing = Vec::new();
    let mut environment = Vec::new();
    if scope.quick {
        missing.extend(
            peers::ALL
                .iter()
                .map(|peer| peers::Missing { peer, why: "left out by --quick".to_owned() }),
        );
    } else {
        phases.phase("peers", |root| {
            for peer in peers::ALL {
                match peers::prepare(root, peer) {
                    Ok(found) => {
                        eprintln!("  {}: {}", peer.name, found.path.display());
                        environment.push((peer.variable, found.path.display().to_string()));
                    }
                    Err(why) => {
                        eprintln!("  {}: {why}", peer.name);
                        missing.push(peers::Missing { peer, why });
                    }
                }
            }
            !scope.strict || missing.iter().all(|missing| missing.peer.rare)
        });
    }
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();

    let nextest = has_nextest();
    let mut arguments = if nextest {
        vec!["nextest", "run", "--workspace", "--no-fail-fast"]
    } else {
        vec!["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"]
    };
    // A test that needs a peer insists on it, so nothing is skipped in silence:
    // what cannot run is left out here, by name, and named again at the end.
    let skipped: Vec<String> =
        missing.iter().map(|missing| format!("{}::", missing.peer.suite)).collect();
    if !skipped.is_empty() {
        arguments.push("--");
        for suite in &skipped {
            arguments.extend(["--skip", suite]);
        }
    }
    phases.cargo("tests", &arguments, &environment);
    if !scope.quick {
        let long = if nextest {
            &["nextest", "run", "--profile", "long", "--cargo-profile", "long", "--no-fail-fast"][..]
        } else {
            &["test", "--profile", "long", "--no-fail-fast"]
        };
        let arguments = [long, &["--package", "selvedge-sim", "--test", "it"]].concat();
        phases.cargo("long simulations", &arguments, &[("SELVEDGE_LONG", "1")]);
    }
    phases.cargo("doctests", &["test", "--workspace", "--doc"], &[]);
    if !scope.quick {
        phases.cargo(
            "power cuts, the long set",
            &[
                "test",
                "--profile",
                "long",
                "--package",
                "selvedge-durable",
                "--test",
                "it",
                "power::",
                "--",
                "--test-threads=1",
            ],
            &[("SELVEDGE_LONG", "1")],
        );
        phases.cargo(
            "kill loop, the long one",
            &["test", "--package", "selvedge-durable", "--test", "it", "crash::"],
            &[("SELVEDGE_LONG", "1")],
        );
        phases.cargo(
            "documentation",
            &["doc", "--workspace", "--no-deps"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        );
        if tidy::mentions(&root.join("crates/selvedge-patterns/src"), "cfg(loom)")
            || tidy::mentions(&root.join("crates/selvedge-patterns/src"), "cfg(all(test, loom))")
        {
            // Its own target folder: another cfg would rebuild everything twice.
            phases.cargo(
                "model checking (loom)",
                &[
                    "test",
                    "--package",
                    "selvedge-patterns",
                    "--lib",
                    "--target-dir",
                    "target/loom",
                    "loom",
                ],
                &[
                    ("RUSTFLAGS", "--cfg loom"),
                    ("LOOM_MAX_PREEMPTIONS", "3"),
                    ("CARGO_PROFILE_DEV_OPT_LEVEL", "2"),
                ],
            );
        }
        if instructions::available() {
            phases.phase("instruction counts", |root| instructions::check(root, false));
        }
    }
    summary(&phases.done, &missing, scope)
}

fn summary(
    done: &[(String, Duration, bool)],
    missing: &[peers::Missing],
    scope: Scope,
) -> ExitCode {
    eprintln!("\n━━ phases");
    for (name, took, passed) in done {
        eprintln!("  {} {name:<24} {:>7.1} s", if *passed { "✓" } else { "✗" }, took.as_secs_f64());
    }
    let total: Duration = done.iter().map(|(_, took, _)| *took).sum();
    eprintln!("    {:<24} {:>7.1} s", "total", total.as_secs_f64());
    for missing in missing {
        let fails = scope.strict && !scope.quick && !missing.peer.rare;
        let severity = if fails { "FAILED" } else { "note" };
        eprintln!("  {severity}: suite `{}` did not run: {}", missing.peer.suite, missing.why);
    }
    let failed: Vec<&str> =
        done.iter().filter(|(_, _, passed)| !passed).map(|(name, _, _)| name.as_str()).collect();
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        eprintln!("  failed: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}

/// `cargo`, the one that started us, at the root.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Runs to the end, with the terminal as it is, and says whether it succeeded.
pub(crate) fn run(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("cannot run {:?}: {error}", command.get_program());
            false
        }
    }
}

fn has_nextest() -> bool {
    Command::new("cargo")
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}
