//! The data plane: everything that touches a proxied socket.
//!
//! One worker thread per core, each with its own listeners (`SO_REUSEPORT`),
//! its own single-threaded runtime and its own upstream pools; what must be
//! shared (breakers, budgets, limits, health) lives in `selvedge-patterns`
//! behind atomics. This crate carries and never decides: whether to retry,
//! reject or hedge is asked of the patterns. Deliberately absent: files, the
//! operator API, and every decision.

pub mod access;
pub mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod route;
pub mod telemetry;

mod proxy;
mod snapshot;
mod worker;

mod classify;
mod deadline;
mod drive;
mod forward;
mod head;
mod journal;
mod journey;
mod respond;
mod stale;
mod trace;

mod body;
mod codec;
mod cork;
mod guard;
mod http1;
mod io;
mod keeper;
mod pool;
mod resolve;
mod tunnel;

mod alarm;
mod clock;

pub use clock::Clock;
pub use config::Config;
pub use journal::Journal;
pub use proxy::{ApplyError, Handle, Hooks, ListenerView, Proxy};
pub use respond::Kind as LocalAnswer;
pub use trace::Trace;
