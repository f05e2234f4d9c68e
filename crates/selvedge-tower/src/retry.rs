//! Tries a failed call again, within a budget, the deadline, and what is safe.
//!
//! A [`Policy`] of this one pattern. To retry around a breaker or a bulkhead,
//! give them to one [`Policy`] together rather than stacking this layer on
//! theirs: then a retry knows that the breaker is open.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use selvedge_patterns::{budget, retry::Config};
//! use selvedge_tower::{classify::Always, retry};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
//! let service = service_fn(|()| async {
//!     match ATTEMPTS.fetch_add(1, Ordering::Relaxed) {
//!         0 | 1 => Err(std::io::Error::other("not now")),
//!         _ => Ok("third time lucky"),
//!     }
//! });
//! let layer = retry::Layer::new(Config::default(), budget::Config::default(), Always::IDEMPOTENT)?;
//! assert_eq!(layer.layer(service).oneshot(()).await?, "third time lucky");
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

use selvedge_patterns::budget;
use selvedge_patterns::retry::Config;

use crate::policy::{self, BuildError, One, Policy};

#[cfg(test)]
mod tests;

/// Retries the calls of a service.
#[derive(Clone, Debug)]
pub struct Layer<C>(Policy<C>);

/// A service whose calls are retried. Clones share the budget.
pub type Service<S, C> = policy::Service<One<S>, C>;

impl<C> Layer<C> {
    /// Retries as `config` says what `classify` allows and `budget` affords.
    ///
    /// # Errors
    ///
    /// If a configuration makes no sense.
    pub fn new(config: Config, budget: budget::Config, classify: C) -> Result<Self, BuildError> {
        Ok(Self(
            Policy::builder(classify).timeout(policy::NO_TIMEOUT).retry(config, budget).build()?,
        ))
    }

    /// The policy that this is.
    #[must_use]
    pub const fn policy(&self) -> &Policy<C> {
        &self.0
    }
}

impl<S, C> tower_layer::Layer<S> for Layer<C> {
    type Service = Service<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}
