//! Distributed-systems patterns as pure state machines.
//!
//! Every pattern here *decides* and does nothing else: `now` is an argument,
//! chance comes from an [`random::Rng`] handed in, and what changed comes back
//! as a value. The proxy, the tower layers and the simulator run these same
//! structs, so a decision rehearsed in simulation is the decision production
//! makes. Deliberately absent: clocks, threads, sockets, files, logs, async.

pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod bulkhead;
pub mod call;
pub mod collect;
pub mod compat;
pub mod config;
pub mod deadline;
pub mod fallback;
pub mod filter;
pub mod group;
pub mod health;
pub mod hedge;
pub mod idempotency;
pub mod journal;
pub mod lease;
pub mod limit;
#[cfg(all(test, loom))]
mod loom_tests;
pub mod outcome;
pub mod outlier;
pub mod policy;
pub mod push;
pub mod quantile;
pub mod random;
pub mod retry;
pub mod schedule;
pub mod service;
mod sync;
pub mod time;
pub mod timeout;
pub mod wall;
pub mod window;
