//! The engine from outside: what it promises, and that it keeps it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conformance;
mod crash;
mod disk;
mod fencing;
mod forward;
mod halt;
mod linear;
mod postgres;
mod power;
mod projection;
mod recorded;
mod store;
