//! `selvedge explain`: what would happen to a request now.

use crate::{
    cli,
    failure::Failure,
    run,
    terminal::{Paint, pad},
    top,
};
use selvedge_api::operator::view::{Explanation, Question};
use std::{fmt::Write as _, path::Path};

/// Explains by a file, or asks the running process; prints what comes of it.
pub(crate) fn command(options: &cli::Explain) -> Result<(), Failure> {
    let mut explanation = None;
    match &options.config {
        Some(file) => explanation = Some(by_file(options, file)?),
        None => crate::block_on(async {
            explanation = Some(ask(options).await?);
            Ok(())
        })?,
    }
    print(options, &explanation.expect("one of the two gave it"))
}

/// As it would be right after a start: nothing has failed yet.
fn by_file(options: &cli::Explain, file: &Path) -> Result<Explanation, Failure> {
    let loaded = crate::configuration::load(file)?;
    let header = |text: &String| {
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        (name.trim().to_owned(), value.trim().to_owned())
    };
    let question = Question {
        method: options.method.to_ascii_uppercase(),
        url: options.url.clone(),
        headers: options.headers.iter().map(header).collect(),
        listener: options.listener.clone(),
    };
    run::explain_fresh(&loaded, &question).map_err(Failure::question)
}

/// Asks the running process.
async fn ask(options: &cli::Explain) -> Result<Explanation, Failure> {
    let mut path =
        format!("/api/v1/explain?method={}&url={}", encode(&options.method), encode(&options.url));
    for header in &options.headers {
        let _ = write!(path, "&header={}", encode(header));
    }
    if let Some(listener) = &options.listener {
        let _ = write!(path, "&listener={}", encode(listener));
    }
    top::get(&options.operator, &path).await
}

/// Prints `explanation` and turns its verdict into the exit code.
fn print(options: &cli::Explain, explanation: &Explanation) -> Result<(), Failure> {
    if options.json {
        println!("{}", serde_json::to_string_pretty(explanation).expect("views serialize"));
    } else {
        print!("{}", text(explanation, Paint::for_stdout()));
    }
    if explanation.verdict == "forward" { Ok(()) } else { Err(Failure::No) }
}

fn text(explanation: &Explanation, paint: Paint) -> String {
    let mut text =
        format!("{} {}\n", paint.bold(&explanation.method), paint.bold(&explanation.url));
    if let (Some(route), Some(service)) = (&explanation.route, &explanation.service) {
        let _ = writeln!(text, "route {} → service {}", paint.accent(route), paint.accent(service));
    }
    let widest =
        explanation.steps.iter().map(|step| step.filter.chars().count()).max().unwrap_or(0);
    for step in &explanation.steps {
        let mark = if step.passes { paint.good("✓") } else { paint.bad("✗") };
        let _ = writeln!(text, "  {mark} {}  {}", pad(&step.filter, widest), step.says);
    }
    let verdict = match explanation.verdict.as_str() {
        "forward" => paint.good("would be forwarded"),
        "not_found" => paint.bad("would be answered 404: no route matches"),
        _ => paint.bad("would be rejected"),
    };
    let _ = writeln!(text, "→ {verdict}");
    text
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::{Explanation, Paint, encode, text};
    use selvedge_api::operator::view::Step;

    #[test]
    fn what_a_query_cannot_hold_is_escaped() {
        assert_eq!(encode("/a b?c=d&e"), "/a%20b%3Fc%3Dd%26e");
    }

    #[test]
    fn an_explanation_reads_from_top_to_bottom() {
        let step = |filter: &str, says: &str, passes: bool| Step {
            filter: filter.to_owned(),
            says: says.to_owned(),
            passes,
        };
        let explanation = Explanation {
            method: "GET".to_owned(),
            url: "/orders/1".to_owned(),
            verdict: "reject".to_owned(),
            route: Some("orders".to_owned()),
            service: Some("orders".to_owned()),
            steps: vec![
                step("deadline", "2 s in all", true),
                step("breaker", "10.0.0.1:80 is open", false),
            ],
        };
        insta::assert_snapshot!(text(&explanation, Paint::off()), @"
        GET /orders/1
        route orders → service orders
          ✓ deadline  2 s in all
          ✗ breaker   10.0.0.1:80 is open
        → would be rejected
        ");
    }
}
