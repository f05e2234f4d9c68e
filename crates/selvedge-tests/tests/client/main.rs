//! The client over a real server: everything that a store promises, and what
//! is true when the way to it breaks.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../selvedge-durable/tests/it"]
mod durable {
    pub(crate) mod conformance;
}
use durable::conformance;

mod faults;
mod over_http;
mod peer;
mod worker;
