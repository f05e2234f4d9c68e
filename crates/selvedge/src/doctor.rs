//! `selvedge doctor`: what is stuck, how old, why, and what to do.

use crate::{cli, failure::Failure, terminal::Paint, top};
use selvedge_api::operator::view::{Doctor, Finding};
use selvedge_durable::doctor::show;
use std::{fmt::Write as _, time::Duration};

/// Asks the running process; anything found is exit code 1.
pub(crate) async fn command(options: cli::Doctor) -> Result<(), Failure> {
    let doctor: Doctor = top::get(&options.operator, "/api/v1/doctor").await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&doctor).expect("views serialize"));
    } else {
        print!("{}", text(&doctor, Paint::for_stdout()));
    }
    if doctor.findings.is_empty() { Ok(()) } else { Err(Failure::No) }
}

fn text(doctor: &Doctor, paint: Paint) -> String {
    if !doctor.store {
        return "no store: the file has no `durable:`\n".to_owned();
    }
    if doctor.findings.is_empty() {
        return "nothing is stuck\n".to_owned();
    }
    let mut text = String::new();
    for finding in &doctor.findings {
        let Finding { weight, subject, what, why, todo, .. } = finding;
        let age = finding.age_ms.map(|ms| format!(", for {}", show(Duration::from_millis(ms))));
        let mark = if weight == "stuck" { paint.bad("stuck") } else { paint.accent("attention") };
        let _ =
            writeln!(text, "{mark}  {}: {what}{}", paint.bold(subject), age.unwrap_or_default());
        let _ = writeln!(text, "  {} {why}", paint.dim("why:"));
        let _ = writeln!(text, "   {} {todo}", paint.dim("do:"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Doctor, Finding, Paint, text};

    #[test]
    fn a_finding_reads_from_what_to_do() {
        let finding = |weight: &str, age_ms| Finding {
            weight: weight.to_owned(),
            kind: "unattended".to_owned(),
            subject: "group billing of orders".to_owned(),
            what: "7 messages wait".to_owned(),
            age_ms,
            why: "nobody has asked for one for 3 min 2 s".to_owned(),
            todo: "start its consumers".to_owned(),
        };
        let findings = vec![finding("stuck", Some(185_000)), finding("attention", None)];
        insta::assert_snapshot!(text(&Doctor { store: true, findings }, Paint::off()), @"
        stuck  group billing of orders: 7 messages wait, for 3 min 5 s
          why: nobody has asked for one for 3 min 2 s
           do: start its consumers
        attention  group billing of orders: 7 messages wait
          why: nobody has asked for one for 3 min 2 s
           do: start its consumers
        ");
        assert_eq!(
            text(&Doctor { store: true, findings: Vec::new() }, Paint::off()),
            "nothing is stuck\n"
        );
    }
}
