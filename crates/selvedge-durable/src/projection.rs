//! Read models: what happened, told the way a question wants it.
//!
//! A [`Projection`] says what one record does to a view. A [`StateModel`] keeps
//! the view in the store's own state, together with the position of the last
//! record that is in it and in the same transaction: whatever is killed and
//! whenever, a record has its effect exactly once. A [`ReadModel`] of one's own
//! does the same in one's own database. A [`Follower`] feeds either, and
//! [`Views`] reads, waits for one's own write, and switches from one generation
//! of a view to the next, which was built beside it.
//!
//! Source: Young, *CQRS Documents*; Fowler, "CQRS".
//!
//! ```
//! # use selvedge_durable::{Config, Engine, Sqlite, stream::{Append, Expected, NewEvent, Write}};
//! use selvedge_durable::projection::{
//!     Failure, Follower, Projection, Record, Settings, Source, StateModel, View, Views,
//! };
//!
//! /// How often each type of event happened.
//! struct Counts;
//!
//! impl Projection for Counts {
//!     async fn project<E: Engine>(
//!         &self,
//!         record: &Record,
//!         view: &mut View<'_, E>,
//!     ) -> Result<(), Failure> {
//!         let Some(event) = record.event() else { return Ok(()) };
//!         let count = view.get::<u64>(&event.kind).await?.unwrap_or(0);
//!         view.put(&event.kind, &(count + 1))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let engine = Sqlite::open(Config::new(folder.path().join("store.db")))?;
//! # let event = NewEvent { kind: "Booked".to_owned(), ..NewEvent::default() };
//! # let write = Write { stream: "s".to_owned(), expected: Expected::Any, events: vec![event; 3] };
//! # engine.execute(Append { writes: vec![write] }).await?;
//! let mut model =
//!     StateModel::open(engine.clone(), "counts", "v1", Counts, Settings::default()).await?;
//! Follower::new(engine.clone(), Source::Events).catch_up(&mut model).await?;
//! assert_eq!(Views::new(engine, "counts").get::<u64>("Booked").await?, Some(3));
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod follow;
mod model;
mod source;
mod views;

pub use follow::{FollowError, Follower, ReadModel};
pub use model::{Failure, Poison, Projection, Settings, StateError, StateModel, Stopped, View};
pub use source::{Content, Record, Source, Subscription};
pub use views::{Status, Views};
