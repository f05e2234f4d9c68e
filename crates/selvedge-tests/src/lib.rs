//! What the whole-system tests are made of: the real binary as a child process,
//! upstreams that misbehave to order, clients that send exact bytes, and a load
//! generator that counts what it got.
//!
//! Everything here runs over real sockets and real time, because that is what
//! it is for: each wait is a poll with a deadline, each port is a free one, each
//! child dies with its owner. Nothing here is timed: benchmarks are runs of their
//! own (`benches/proxy`). What can be shown without a process is tested in
//! the crate that decides it.

pub mod binary;
pub mod h2c;
pub mod load;
pub mod metrics;
pub mod ports;
pub mod raw;
pub mod selvedge;
pub mod upstream;
pub mod wait;
