//! Automation: what CI does and what a person does before a commit, in Rust.
//!
//! Deliberately light (one dependency, no argument parser): it is the first
//! thing a fresh clone compiles.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to its terminal"
)]

mod bench;
mod index;
mod instructions;
mod peers;
mod phases;
mod tidy;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

const HELP: &str = "\
cargo xtask <COMMAND>

  test [--quick]   everything a fresh clone needs: format, clippy, tidy, all tests with the real
                   servers they need, long simulations, doctests, documentation. With CI=true a suite
                   that cannot run is a failure; otherwise it is named. --quick leaves out real
                   servers, long simulations, documentation and model checking.
  ci               the same as `CI=true cargo xtask test`
  tidy             the rules of the house that a compiler does not know
  index            write docs/errors/README.md from the pages beside it
  bench [FILTER]   criterion benchmarks of every crate
  instructions [--bless]
                   instructions per decision, counted by valgrind, against the table kept with them
  help             this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let in_ci = std::env::var("CI").is_ok_and(|value| matches!(value.as_str(), "true" | "1"));
    match words.as_slice() {
        ["test"] => phases::test(&root, phases::Scope { strict: in_ci, quick: false }),
        ["test", "--quick"] => phases::test(&root, phases::Scope { strict: in_ci, quick: true }),
        ["ci"] => phases::test(&root, phases::Scope { strict: true, quick: false }),
        ["tidy"] => tidy::command(&root),
        ["index"] => index::command(&root),
        ["bench", rest @ ..] => bench::command(&root, rest),
        ["instructions", rest @ ..] => instructions::command(&root, rest),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}

/// The repository's root: the folder above this package's.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_path_buf()
}
