//! Rejects what comes faster than a limit, and says when to come back.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use selvedge_patterns::limit::{Config, Rate};
//! use selvedge_tower::limit;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let layer = limit::Layer::new(Config { rate: Rate::per_second(10), burst: 2, ..Config::default() })?;
//! let service = layer.layer(service_fn(|n: u32| async move { Ok::<_, std::io::Error>(n + 1) }));
//!
//! assert_eq!(service.clone().oneshot(1).await?, 2);
//! assert_eq!(service.clone().oneshot(2).await?, 3);
//! // Every clone draws on the same limit.
//! let error = service.clone().oneshot(3).await.unwrap_err();
//! assert_eq!(error.reason(), "rate_limited");
//! assert!(error.retry_after() <= Some(std::time::Duration::from_millis(100)));
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context, Poll};

use selvedge_patterns::config::ConfigError;
use selvedge_patterns::limit::keyed::{self, Keyed};
use selvedge_patterns::limit::{Config, Decision, Limiter};
use selvedge_patterns::time::Instant;

use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error, Rejected};
use crate::gate::Gated;

#[cfg(test)]
mod tests;

/// What a request is counted against.
pub trait Limit<Request> {
    /// Asks to let `request` pass.
    ///
    /// # Errors
    ///
    /// The limit's rejection.
    fn admit(&self, now: Instant, request: &Request) -> Decision;
}

/// One limit for all requests.
#[derive(Clone, Debug)]
pub struct One(Arc<Limiter>);

impl<Request> Limit<Request> for One {
    fn admit(&self, now: Instant, _: &Request) -> Decision {
        self.0.admit(now, 1)
    }
}

/// One limit per key of the request.
#[derive(Clone, Debug)]
pub struct PerKey<K> {
    limits: Arc<Keyed>,
    key: K,
}

impl<Request, K> Limit<Request> for PerKey<K>
where
    K: for<'a> Fn(&'a Request) -> Cow<'a, [u8]>,
{
    fn admit(&self, now: Instant, request: &Request) -> Decision {
        self.limits.admit(now, &(self.key)(request), 1)
    }
}

/// Puts a limit before a service.
#[derive(Clone, Debug)]
pub struct Layer<L = One> {
    limit: L,
}

impl Layer {
    /// One limit for all that goes through services of this layer.
    ///
    /// # Errors
    ///
    /// If the configuration makes no sense.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self::shared(Arc::new(Limiter::new(config)?)))
    }

    /// A limit that others draw on too.
    #[must_use]
    pub const fn shared(limiter: Arc<Limiter>) -> Self {
        Self { limit: One(limiter) }
    }
}

impl<K> Layer<PerKey<K>> {
    /// One limit for each `key` of a request.
    ///
    /// # Errors
    ///
    /// If the configuration makes no sense.
    pub fn keyed<Request>(config: keyed::Config, key: K) -> Result<Self, ConfigError>
    where
        K: for<'a> Fn(&'a Request) -> Cow<'a, [u8]>,
    {
        use std::hash::{BuildHasher, RandomState};
        let limits = Keyed::new(config, RandomState::new().hash_one(0u8))?;
        Ok(Self { limit: PerKey { limits: Arc::new(limits), key } })
    }
}

impl<S, L: Clone> tower_layer::Layer<S> for Layer<L> {
    type Service = Service<S, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Service { inner, limit: self.limit.clone() }
    }
}

/// A service behind a limit. Clones share it.
#[derive(Clone, Debug)]
pub struct Service<S, L = One> {
    inner: S,
    limit: L,
}

impl<S, L, Request> tower_service::Service<Request> for Service<S, L>
where
    S: tower_service::Service<Request>,
    S::Error: Into<BoxError>,
    L: Limit<Request>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = Gated<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context).map_err(Error::from_service)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let _frame = Frame::enter();
        match self.limit.admit(Clock::process().now(), &request) {
            Ok(_) => Gated::admitted(self.inner.call(request)),
            Err(rejected) => Gated::refused(Rejected::Limit(rejected)),
        }
    }
}
