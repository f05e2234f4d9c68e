//! The official CloudEvents SDK for JavaScript, unmodified.

use crate::{cloudevents, peer};
use std::{path::Path, process::Command};

const SUBJECT: &str = "orders/7";

fn node() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/cloudevents_peer.js");
    let mut command = Command::new("node");
    command.arg(script).env("NODE_PATH", peer::path("SELVEDGE_CLOUDEVENTS_JAVASCRIPT"));
    command
}

#[test]
fn it_publishes_and_receives() {
    cloudevents::publishes_and_receives(node(), SUBJECT);
}

#[test]
fn it_understands_what_is_pushed() {
    cloudevents::understands_what_is_pushed(node, SUBJECT);
}
