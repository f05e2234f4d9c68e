//! Whole-system tests: the real binary, real sockets, real peers.
//!
//! A module is a suite. Those named after a peer (`nginx`, `grpcio`, …) need
//! that peer; `cargo xtask test` brings it or names the suite that did not run.

mod harness;
