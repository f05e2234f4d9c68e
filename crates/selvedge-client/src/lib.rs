//! Talks to a store in another process: [`selvedge_durable::Engine`] over the
//! app API of `selvedge run`.
//!
//! A [`Client`] is an engine like the store itself, so aggregates, events and
//! projections run over it unchanged. All operations share one long request,
//! many under way at once and in the order of the calls; a lost connection is
//! made again.
//!
//! The one invariant: what may have been done is never blindly done again.
//! When a connection breaks, operations that were not sent wait for the next
//! one, and so do those that the server says it has not taken. Of the others
//! those are repeated whose repeat changes nothing: reads, publishes with a
//! dedupe id on each message, appends that name the version they expect,
//! writes with a tag, answers to deliveries. The rest fail with
//! [`selvedge_durable::Error::Unknown`], and so does a repeat whose answer may
//! speak of the first attempt.
//!
//! Deliberately absent: TLS (`selvedge run` serves the app API to its own host;
//! a sidecar carries it further), and a store.
//!
//! ```no_run
//! use selvedge_client::{Client, Config};
//! use selvedge_durable::{Engine, topic::{NewMessage, Publish}};
//!
//! # async fn example() -> Result<(), selvedge_durable::Error> {
//! let client = Client::new(Config::default())?;
//! let message = NewMessage {
//!     payload: Some("{\"to\":\"ada@example.com\"}".into()),
//!     dedupe_id: Some("welcome-ada".into()),
//!     ..NewMessage::default()
//! };
//! client.execute(Publish { topic: "emails".into(), messages: vec![message] }).await?;
//!
//! // Eight at a time until Ctrl-C; what fails comes back, and in the end is kept aside.
//! let stop = async { drop(tokio::signal::ctrl_c().await) };
//! let send = |message: selvedge_durable::group::Delivery| async move {
//!     println!("sending {:?}", message.message.payload);
//!     Ok(())
//! };
//! client.group("emails", "mailer").run(<_>::default(), send, stop).await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod config;
mod link;
mod repeat;
mod under_way;
pub mod worker;

pub use client::Client;
pub use config::Config;
