//! All patterns of one service, in the one order that works.
//!
//! A policy is one layer, not a stack of them: the patterns ask each other
//! (a retry the breaker, a hedge the budget, all of them the deadline), so one
//! state machine, [`selvedge_patterns::call::Call`], decides for them all. The
//! proxy and the simulator drive the same one.
//!
//! The [`Builder`] is written in the order in which a call meets the patterns,
//! outermost first, and refuses any other, so that the code says what happens.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use selvedge_patterns::{breaker, budget, bulkhead, retry, timeout};
//! use selvedge_tower::{Policy, classify::Always, policy::BuildError};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let policy = Policy::builder(Always::IDEMPOTENT)
//!     .timeout(timeout::Config::default())
//!     .retry(retry::Config::default(), budget::Config::default())
//!     .breaker(breaker::Config::default())
//!     .bulkhead(bulkhead::Config::default())
//!     .build()?;
//!
//! // Fails once, then works.
//! static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
//! let service = policy.layer(service_fn(|()| async {
//!     match ATTEMPTS.fetch_add(1, Ordering::Relaxed) {
//!         0 => Err(std::io::Error::other("not now")),
//!         attempts => Ok(attempts),
//!     }
//! }));
//! assert_eq!(service.oneshot(()).await?, 1);
//!
//! let wrong = Policy::builder(Always::SAFE)
//!     .breaker(breaker::Config::default())
//!     .retry(retry::Config::default(), budget::Config::default())
//!     .build();
//! assert_eq!(wrong.unwrap_err(), BuildError::Order { outer: "breaker", inner: "retry" });
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use selvedge_patterns::policy::{Policy as Patterns, PolicyError};
use selvedge_patterns::service::{self, Event, Target, View};
use selvedge_patterns::time::{Duration, Instant};
use selvedge_patterns::{
    balance, breaker, budget, bulkhead, deadline, hedge, outlier, retry, timeout,
};

use crate::classify::Classify;
use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error};
use crate::random;
use crate::wakers::Wakers;

mod future;
#[cfg(test)]
mod tests;

pub use future::ResponseFuture;

/// What a policy cannot be built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The patterns were not given in the order in which a call meets them.
    #[error("`{inner}` lies around `{outer}`, so it must be given before it")]
    Order {
        /// What was given as the outer one.
        outer: &'static str,
        /// What was given as the inner one.
        inner: &'static str,
    },
    /// A pattern was given twice.
    #[error("`{part}` is given twice")]
    Twice {
        /// Which.
        part: &'static str,
    },
    /// A configuration makes no sense, or two of them together.
    #[error("{0}")]
    Config(#[from] PolicyError),
    /// Nothing to call.
    #[error("there is no endpoint")]
    NoEndpoint,
}

/// The order in which a call meets the patterns.
const ORDER: [&str; 8] =
    ["deadline", "timeout", "retry", "hedge", "balance", "outlier", "breaker", "bulkhead"];

/// For layers of one pattern: only the caller's deadline counts.
pub(crate) const NO_TIMEOUT: timeout::Config = timeout::Config {
    connect: Duration::from_secs(2),
    attempt: None,
    idle_read: None,
    total: None,
};

type Report = Box<dyn Fn(Event) + Send + Sync>;

/// Builds a [`Policy`], outermost pattern first.
pub struct Builder<C> {
    classify: C,
    patterns: Patterns,
    given: Vec<&'static str>,
    report: Option<Report>,
}

impl<C: fmt::Debug> fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("classify", &self.classify)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl<C> Builder<C> {
    fn give(mut self, part: &'static str, set: impl FnOnce(&mut Patterns)) -> Self {
        self.given.push(part);
        set(&mut self.patterns);
        self
    }

    /// How a deadline is kept.
    #[must_use]
    pub fn deadline(self, config: deadline::Config) -> Self {
        self.give("deadline", |patterns| patterns.deadline = config)
    }

    /// How long each part of a call may take. Without it: as the defaults of [`timeout::Config`].
    #[must_use]
    pub fn timeout(self, config: timeout::Config) -> Self {
        self.give("timeout", |patterns| patterns.timeout = config)
    }

    /// When a call is tried again, and what bounds that, hedges included.
    #[must_use]
    pub fn retry(self, config: retry::Config, budget: budget::Config) -> Self {
        self.give("retry", |patterns| {
            (patterns.retry, patterns.budget) = (Some(config), Some(budget))
        })
    }

    /// When a second attempt is sent beside a slow one.
    #[must_use]
    pub fn hedge(self, config: hedge::Config) -> Self {
        self.give("hedge", |patterns| patterns.hedge = Some(config))
    }

    /// How attempts spread over several endpoints.
    #[must_use]
    pub fn balance(self, config: balance::Config) -> Self {
        self.give("balance", |patterns| patterns.balance = config)
    }

    /// When an endpoint is taken out because of what its answers show.
    #[must_use]
    pub fn outlier(self, config: outlier::Config) -> Self {
        self.give("outlier", |patterns| patterns.outlier = Some(config))
    }

    /// When an endpoint is not called any more.
    #[must_use]
    pub fn breaker(self, config: breaker::Config) -> Self {
        self.give("breaker", |patterns| patterns.breaker = Some(config))
    }

    /// How many attempts run at once, and how many wait.
    #[must_use]
    pub fn bulkhead(self, config: bulkhead::Config) -> Self {
        self.give("bulkhead", |patterns| patterns.bulkhead = Some(config))
    }

    /// Tells `report` of breakers that change and endpoints that come and go,
    /// on whatever task finds out.
    #[must_use]
    pub fn on_event(mut self, report: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.report = Some(Box::new(report));
        self
    }

    /// The policy for one service.
    ///
    /// # Errors
    ///
    /// If patterns are not in order or a configuration makes no sense.
    pub fn build(self) -> Result<Policy<C>, BuildError> {
        Ok(Policy { state: self.state(vec![Target::new("service")])? })
    }

    /// A service that spreads its calls over `endpoints`, each with its weight.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`], or if there is no endpoint.
    pub fn over<S>(
        self,
        endpoints: impl IntoIterator<Item = (S, u32)>,
    ) -> Result<Service<Many<S>, C>, BuildError> {
        let (services, weights): (Vec<S>, Vec<u32>) = endpoints.into_iter().unzip();
        if services.is_empty() {
            return Err(BuildError::NoEndpoint);
        }
        let target = |(index, weight)| Target { weight, ..Target::new(format!("{index}")) };
        let state = self.state(weights.into_iter().enumerate().map(target).collect())?;
        Ok(Service { state, endpoints: Many(services.into()) })
    }

    fn state(self, targets: Vec<Target>) -> Result<Arc<State<C>>, BuildError> {
        check_order(&self.given)?;
        self.patterns.validate()?;
        let now = Clock::process().now();
        Ok(Arc::new(State {
            copies: self.patterns.retry.is_some() || self.patterns.hedge.is_some(),
            service: service::Service::new(now, self.patterns, targets, random::seed()),
            classify: self.classify,
            wakers: Wakers::default(),
            wake_at: AtomicU64::new(now.as_nanos()),
            report: self.report,
        }))
    }
}

fn check_order(given: &[&'static str]) -> Result<(), BuildError> {
    let place = |part: &str| ORDER.iter().position(|known| *known == part);
    for pair in given.windows(2) {
        if place(pair[0]) > place(pair[1]) {
            return Err(BuildError::Order { outer: pair[0], inner: pair[1] });
        }
        if pair[0] == pair[1] {
            return Err(BuildError::Twice { part: pair[0] });
        }
    }
    Ok(())
}

/// What all services and clones of one policy share.
struct State<C> {
    service: service::Service,
    /// Whether an attempt may be followed by another, so that requests are copied.
    copies: bool,
    classify: C,
    wakers: Wakers,
    /// Nanoseconds: when time next does its work on breakers and rates.
    wake_at: AtomicU64,
    report: Option<Report>,
}

/// How often time does its work on breakers and rates, if there are calls.
const WAKE_EVERY: Duration = Duration::from_secs(1);

impl<C> State<C> {
    /// What is due after an attempt or call has ended: waiters to wake, changes to tell.
    fn tidy(&self, now: Instant) {
        self.wakers.wake(|| self.service.granted());
        if now.as_nanos() >= self.wake_at.load(Ordering::Relaxed) {
            self.wake_at.store((now + WAKE_EVERY).as_nanos(), Ordering::Relaxed);
            self.service.wake(now);
        }
        if let Some(report) = &self.report {
            while let Some(event) = self.service.take_event() {
                report(event);
            }
        }
    }
}

/// A policy: a layer whose services and clones share all their state.
pub struct Policy<C> {
    state: Arc<State<C>>,
}

impl Policy<()> {
    /// A policy in the making, which asks `classify` about requests and responses.
    #[must_use]
    pub fn builder<C>(classify: C) -> Builder<C> {
        Builder { classify, patterns: Patterns::default(), given: Vec::new(), report: None }
    }
}

impl<C> Policy<C> {
    /// The live state: to look at, to drain, to control a breaker.
    #[must_use]
    pub fn patterns(&self) -> &service::Service {
        &self.state.service
    }
}

impl<C> Clone for Policy<C> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state) }
    }
}

impl<C> fmt::Debug for Policy<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("patterns", self.state.service.policy())
            .finish_non_exhaustive()
    }
}

impl<S, C> tower_layer::Layer<S> for Policy<C> {
    type Service = Service<One<S>, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Service { state: Arc::clone(&self.state), endpoints: One(inner) }
    }
}

/// The services that attempts go to.
pub trait Endpoints: Clone {
    /// What one endpoint is.
    type Service: Clone;

    /// A clone of the one at `index`, for one attempt.
    fn endpoint(&self, index: usize) -> Self::Service;
}

/// A single service.
#[derive(Clone, Copy, Debug)]
pub struct One<S>(S);

impl<S: Clone> Endpoints for One<S> {
    type Service = S;

    fn endpoint(&self, _: usize) -> S {
        self.0.clone()
    }
}

/// Several services. They are shared by all clones, so they must be `Sync` to
/// be used from several threads.
#[derive(Debug)]
pub struct Many<S>(Arc<[S]>);

impl<S> Clone for Many<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Clone> Endpoints for Many<S> {
    type Service = S;

    fn endpoint(&self, index: usize) -> S {
        self.0[index].clone()
    }
}

/// A service under a policy. Clones share its state.
pub struct Service<E, C> {
    state: Arc<State<C>>,
    endpoints: E,
}

impl<E, C> Service<E, C> {
    /// The live state: to look at, to drain, to control a breaker. Endpoints
    /// have the index in which they were given.
    #[must_use]
    pub fn patterns(&self) -> &service::Service {
        &self.state.service
    }

    /// What is known of the service.
    #[must_use]
    pub fn view(&self) -> View {
        self.state.service.view(Clock::process().now())
    }
}

impl<E: Clone, C> Clone for Service<E, C> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), endpoints: self.endpoints.clone() }
    }
}

impl<E: fmt::Debug, C> fmt::Debug for Service<E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl<E, C, Request> tower_service::Service<Request> for Service<E, C>
where
    E: Endpoints,
    E::Service: tower_service::Service<Request>,
    <E::Service as tower_service::Service<Request>>::Error: Into<BoxError>,
    C: Classify<Request, <E::Service as tower_service::Service<Request>>::Response>,
{
    type Response = <E::Service as tower_service::Service<Request>>::Response;
    type Error = Error;
    type Future = ResponseFuture<E, C, Request>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Which endpoint must be ready is known only when one is chosen.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let frame = Frame::enter();
        ResponseFuture::new(
            Arc::clone(&self.state),
            self.endpoints.clone(),
            request,
            frame.deadline(),
        )
    }
}
