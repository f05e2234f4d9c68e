//! `cargo xtask instructions`: what each decision costs in instructions,
//! counted by valgrind and compared with the table kept beside the benchmark.
//!
//! Counts, unlike times, are the same on a busy machine, so they can gate.
//! Each case runs twice, for different numbers of rounds: the difference has
//! no start-up in it.

use crate::phases::{cargo, run};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TABLE: &str = "crates/selvedge-patterns/benches/instructions.txt";
const ROUNDS: [u64; 2] = [2_000, 4_000];
/// More than this share above the table is a failure.
const TOLERANCE: f64 = 0.10;
/// Below this many instructions of difference nothing is: an alignment, a spill.
const SLACK: f64 = 4.0;

/// `instructions [--bless]`.
pub(crate) fn command(root: &Path, rest: &[&str]) -> ExitCode {
    if !available() {
        eprintln!("instructions: did not run, it needs valgrind on x86-64 Linux");
        return ExitCode::FAILURE;
    }
    if check(root, rest.contains(&"--bless")) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether counting works here, and the table is for this machine's instruction set.
pub(crate) fn available() -> bool {
    cfg!(all(target_arch = "x86_64", target_os = "linux"))
        && Command::new("valgrind")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
}

/// Counts every case; writes the table, or says what differs from it.
pub(crate) fn check(root: &Path, bless: bool) -> bool {
    let build = ["build", "--package", "selvedge-patterns", "--bench", "instructions"];
    if !run(cargo(root).args(build)) {
        return false;
    }
    let Some(program) = program(root) else {
        eprintln!("instructions: the benchmark was not built");
        return false;
    };
    let known = read_table(&root.join(TABLE));
    let mut counted = BTreeMap::new();
    for case in cases(&program) {
        match count(&program, &case) {
            Some(instructions) => counted.insert(case, instructions),
            None => {
                eprintln!("{case}: valgrind gave no count");
                return false;
            }
        };
    }
    if bless {
        return write_table(&root.join(TABLE), &counted);
    }
    let mut findings = 0;
    for (case, instructions) in &counted {
        let verdict = judge(known.get(case).copied(), *instructions);
        eprintln!("  {case:<36} {instructions:>8.1}  {}", verdict.words());
        findings += usize::from(verdict != Verdict::Same && verdict != Verdict::Less);
    }
    for case in known.keys().filter(|case| !counted.contains_key(*case)) {
        eprintln!("  {case:<36} is in the table and not in the benchmark");
        findings += 1;
    }
    if findings > 0 {
        eprintln!(
            "{findings} differ from {TABLE}; if that is meant: cargo xtask instructions --bless"
        );
    }
    findings == 0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    /// A gain: worth writing down, and no reason to fail.
    Less,
    More,
    Unknown,
}

impl Verdict {
    const fn words(self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Less => "is less than the table says: --bless keeps the gain",
            Self::More => "is more than the table says",
            Self::Unknown => "is not in the table",
        }
    }
}

fn judge(known: Option<f64>, counted: f64) -> Verdict {
    let Some(known) = known else { return Verdict::Unknown };
    let apart = (counted - known).abs();
    if apart <= SLACK || apart <= known * TOLERANCE {
        Verdict::Same
    } else if counted > known {
        Verdict::More
    } else {
        Verdict::Less
    }
}

/// The newest of the benchmark's builds: cargo names each by a hash.
fn program(root: &Path) -> Option<PathBuf> {
    let output = cargo(root)
        .args(["build", "--quiet", "--package", "selvedge-patterns", "--bench", "instructions"])
        .arg("--message-format=json")
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        if message["target"]["name"] != "instructions" {
            return None;
        }
        Some(PathBuf::from(message["executable"].as_str()?))
    })
}

fn cases(program: &Path) -> Vec<String> {
    let listed = Command::new(program).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect()
}

/// Instructions per round.
fn count(program: &Path, case: &str) -> Option<f64> {
    let [few, many] = ROUNDS;
    let difference = total(program, case, many)?.checked_sub(total(program, case, few)?)?;
    Some(difference as f64 / (many - few) as f64)
}

fn total(program: &Path, case: &str, rounds: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(program)
        .args([case, &rounds.to_string()])
        .output()
        .ok()?;
    parse_total(&String::from_utf8_lossy(&output.stderr))
}

/// The number in `==123== I refs:        1,234,567`.
fn parse_total(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.contains("I") && line.contains("refs:"))?;
    let number = line.rsplit(':').next()?.trim().replace(',', "");
    number.parse().ok()
}

fn read_table(path: &Path) -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (case, count) = line.split_once(' ')?;
            Some((case.to_owned(), count.trim().parse().ok()?))
        })
        .collect()
}

fn write_table(path: &Path, counted: &BTreeMap<String, f64>) -> bool {
    let mut text = String::from(
        "# Instructions per decision: x86-64, the profile of `cargo build`, the pinned toolchain.\n\
         # Checked by `cargo xtask test`; written by `cargo xtask instructions --bless`.\n",
    );
    for (case, instructions) in counted {
        writeln!(text, "{case:<36} {instructions:.1}").expect("a string takes what is written");
    }
    match std::fs::write(path, text) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("cannot write {}: {error}", path.display());
            false
        }
    }
}

#[cfg(test)]
mod tests;
