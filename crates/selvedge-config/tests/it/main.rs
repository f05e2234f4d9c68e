//! The crate as the binary uses it: whole files in, reports and configurations out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod defaults;
mod effective;
mod files;
mod json_schema;
mod reports;
mod robust;

use selvedge_config::{Env, Loaded, Report, load_text};

/// The environment of every test.
pub(crate) fn env() -> Env {
    Env::fixed([
        ("PORT", "9001"),
        ("TOKEN", "correct-horse-battery"),
        ("SIGNING", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("EMPTY", ""),
        ("NONSENSE", "soon"),
    ])
}

pub(crate) fn load(text: &str) -> Result<Loaded, Report> {
    load_text("selvedge.yaml", text, &env())
}

/// A file with `service` (indented by four) as its only service.
pub(crate) fn with_service(service: &str) -> String {
    format!(
        "version: 1\nlisteners: {{ edge: \"127.0.0.1:8080\" }}\nservices:\n  orders:\n    endpoints: [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n{service}\nroutes:\n  - {{ match: /orders/**, to: orders }}\n"
    )
}

/// The codes of a report, in order.
pub(crate) fn codes(report: &Report) -> Vec<&str> {
    report.diagnostics.iter().map(|it| it.code.as_str()).collect()
}
