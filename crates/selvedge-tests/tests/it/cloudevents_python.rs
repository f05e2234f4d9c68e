//! The official CloudEvents SDK for Python, unmodified.

use crate::{cloudevents, peer};
use std::{path::Path, process::Command};

const SUBJECT: &str = "for Zoë \"Z\" 100%";

fn python() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/cloudevents_peer.py");
    let mut command = Command::new(peer::path("SELVEDGE_CLOUDEVENTS_PYTHON"));
    command.arg(script);
    command
}

#[test]
fn it_publishes_and_receives() {
    cloudevents::publishes_and_receives(python(), SUBJECT);
}

#[test]
fn it_understands_what_is_pushed() {
    cloudevents::understands_what_is_pushed(python, SUBJECT);
}
