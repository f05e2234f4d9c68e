//! Remembers: topics and groups, event streams, state, leases and timers on
//! one embedded store and in one transaction domain.
//!
//! What is acknowledged is on disk: an answer is sent after the sync of the
//! batch that carries it. Everything one can ask is an [`Operation`], a value;
//! a [`Store`], in a file ([`Sqlite`]) or in a database
//! server ([`Postgres`]), applies several of them atomically. What may be done is
//! decided by `selvedge-patterns`; here it is stored. Deliberately absent:
//! HTTP, configuration files, an async runtime.
//!
//! Over any [`Engine`] stand two libraries: [`aggregate`] decides by events and
//! [`projection`] makes read models of them.

pub mod aggregate;
mod clock;
pub mod collect;
mod config;
pub mod doctor;
mod error;
pub mod event;
pub mod filter;
mod observed;
mod operation;
mod postgres;
pub mod projection;
pub mod schema;
mod sqlite;
mod store;
mod telemetry;
pub mod vitals;
mod watch;
pub mod wire;

pub use clock::{Clock, ManualClock, SystemClock};
pub use config::Config;
pub use error::Error;
pub use observed::{Consumers, Observed};
pub use operation::{
    Answer, Engine, Kind, Operation, Request, group, lease, schedule, state, stream, topic,
};
pub use postgres::Postgres;
pub use sqlite::Sqlite;
pub use store::Store;
pub use store::upkeep::{backup, compact, verify};
pub use watch::{Subject, Watch};
