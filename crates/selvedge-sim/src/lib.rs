//! Imagines services, their clients and their outages, and rehearses the
//! production policies on them in virtual time.
//!
//! The same seed gives the same run, bit for bit, on every platform: time is a
//! count of nanoseconds, every draw is named by what it is for, and the
//! arithmetic is pure Rust. Deliberately absent: clocks, sockets, files, async,
//! and any policy: those are `selvedge-patterns`, driven as the proxy drives them.

mod agenda;
mod codel;
mod draw;
mod driver;
mod world;

pub mod advise;
pub mod distribution;
pub mod histogram;
pub mod model;
pub mod record;
pub mod replay;
pub mod replicate;
pub mod report;
pub mod search;
pub mod statistics;
pub mod study;
pub mod theory;
pub mod verdict;
