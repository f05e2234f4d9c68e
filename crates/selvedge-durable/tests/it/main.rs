//! The engine from outside: what it promises, and that it keeps it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conformance;
mod crash;
mod faults;
mod postgres;
mod projection;
mod server;
mod disk;
mod halt;
mod power;
mod store;
