//! Selvedge makes flaky dependencies safe: deadlines, retries with a budget,
//! circuit breakers, bulkheads, rate limits, load balancing, hedging and
//! fallbacks that know of each other.
//!
//! The same decisions run in three places: in the `selvedge` binary before
//! services in any language, in these libraries inside Rust services, and in
//! the simulator. This crate is the library's front door and nothing else.
//!
//! - [`patterns`]: every pattern as a pure state machine. Time and chance come
//!   in as arguments, changes of state come out as values. Use it to build
//!   something of your own, or to test a policy without waiting.
//! - [`tower`]: every pattern as a [tower](https://docs.rs/tower) layer, for
//!   hyper, axum, tonic and whatever else speaks `Service`.
//! - [`durable`]: topics, queues, event streams, state, leases and timers in one
//!   file; [`durable::aggregate`] and [`durable::event`] for event sourcing,
//!   [`durable::projection`] for read models.
//! - [`client`]: the same in another process, over its app API, and a worker for
//!   the messages of a group.
//!
//! # A breaker without a clock
//!
//! ```
//! use selvedge::patterns::{
//!     breaker::{Breaker, Config},
//!     outcome::{Failure, Outcome},
//!     time::{Duration, Instant},
//! };
//!
//! let config = Config { min_calls: 2, open_for: Duration::from_secs(5), ..Config::default() };
//! let mut breaker = Breaker::new(Instant::ZERO, config, 7);
//! for second in 0..2 {
//!     let now = Instant::from_millis(second * 1000);
//!     let (answer, _) = breaker.admit(now);
//!     breaker.settle(now, answer.expect("it is closed"), Outcome::Failure(Failure::Server));
//! }
//! let (answer, _) = breaker.admit(Instant::from_millis(2000));
//! let rejected = answer.expect_err("it is open");
//! assert_eq!(rejected.code(), "circuit_open");
//! ```

pub use selvedge_client as client;
pub use selvedge_durable as durable;
pub use selvedge_patterns as patterns;
pub use selvedge_tower as tower;
