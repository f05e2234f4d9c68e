//! Whole-system tests: the real binary, real sockets, real peers.
//!
//! A module is a suite. Those named after a peer (`nginx`, `grpcio`, …) need
//! that peer; `cargo xtask test` brings it or names the suite that did not run.

#![expect(clippy::unwrap_used, reason = "everything here is a test or helps one")]

mod autobahn;
mod carriage;
mod cloudevents;
mod cloudevents_javascript;
mod cloudevents_python;
mod configuration;
mod durable;
mod examples;
mod full_disk;
mod grpcio;
mod harness;
mod nginx;
mod night;
mod operator;
mod outage;
mod peer;
mod postgres;
mod refusal;
mod reload;
mod routing;
mod rules;
mod same_code;
mod walkthroughs;
