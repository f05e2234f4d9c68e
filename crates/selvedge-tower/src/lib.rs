//! The Selvedge patterns as tower layers.
//!
//! One module per pattern, each with a `Layer` and a `Service`. They decide
//! nothing themselves: every decision is a struct of `selvedge-patterns`, these
//! read the clock, wait, and settle what was admitted when its future ends or
//! is dropped. State belongs to the layer, and every service and clone made by
//! it shares it: a clone per connection is no way round a limit. A [`Registry`]
//! shares it by name.
//!
//! What a call holds (a permit, a place at an endpoint) it gives back when the
//! response's future ends. A response whose body still streams is over then, as
//! far as these layers know; who must count it reads the body inside the service.
//!
//! Every service answers with [`Error`], however deep the stack. What the
//! patterns need to know of requests and responses, [`classify`] tells them.

pub mod balance;
pub mod breaker;
pub mod bulkhead;
pub mod classify;
pub mod clock;
pub mod deadline;
pub mod error;
pub mod fallback;
mod gate;
pub mod hedge;
pub mod limit;
mod oneshot;
pub mod policy;
mod random;
pub mod registry;
pub mod retry;
#[cfg(test)]
mod testing;
pub mod timeout;
mod timer;
mod wakers;

pub use error::{BoxError, Error, Origin, Rejected};
pub use gate::Gated;
pub use policy::Policy;
pub use registry::Registry;
