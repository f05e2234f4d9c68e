//! `selvedge check` and `selvedge config`: what the reader of the file says,
//! to people and to programs.

use crate::{cli, failure::Failure, terminal::Paint};
use selvedge_config::{Loaded, Report, Style};
use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
};

/// Reads `file`, or prints everything that is wrong with it. Warnings are
/// printed too, and stop nothing.
pub(crate) fn load(file: &Path) -> Result<Loaded, Failure> {
    match selvedge_config::load(file) {
        Ok(loaded) => {
            say(&loaded.report);
            Ok(loaded)
        }
        Err(report) => {
            say(&report);
            Err(Failure::Refused)
        }
    }
}

/// Says it on standard error. That nobody can be told, as on a full disk, is no
/// reason not to start.
fn say(report: &Report) {
    let _ = std::io::stderr().write_all(report.render(style()).as_bytes());
}

/// `selvedge check`: the report is the data, so it goes to standard output.
pub(crate) fn check(options: &cli::Check) -> Result<(), Failure> {
    let report = match selvedge_config::load(&options.file) {
        Ok(loaded) => loaded.report,
        Err(report) => report,
    };
    let refused = report.has_errors() || (options.strict && report.warnings() > 0);
    if options.json {
        let mut document = report.to_json();
        document["ok"] = (!refused).into();
        println!("{}", serde_json::to_string_pretty(&document).expect("a report serializes"));
    } else {
        print!("{}", checked(&report, &options.file));
    }
    if refused { Err(Failure::No) } else { Ok(()) }
}

fn checked(report: &Report, file: &Path) -> String {
    let drawn = report.render(if std::io::stdout().is_terminal() && Paint::for_stdout().is_on() {
        Style::Fancy
    } else {
        Style::Plain
    });
    if drawn.is_empty() { format!("{}: no problems\n", file.display()) } else { drawn }
}

/// `selvedge config show --effective`.
pub(crate) fn show(options: &cli::Show) -> Result<(), Failure> {
    let loaded = load(&options.file)?;
    if options.json {
        let value = loaded.effective_json();
        println!("{}", serde_json::to_string_pretty(&value).expect("a configuration serializes"));
    } else {
        print!("{}", loaded.effective());
    }
    Ok(())
}

/// `selvedge config schema`.
pub(crate) fn schema() {
    let schema = selvedge_config::json_schema();
    println!("{}", serde_json::to_string_pretty(&schema).expect("a schema serializes"));
}

fn style() -> Style {
    if Paint::for_stderr().is_on() { Style::Fancy } else { Style::Plain }
}
