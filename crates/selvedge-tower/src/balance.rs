//! Spreads calls over several services and leaves out those that fail.
//!
//! Each attempt goes to one endpoint, chosen by what is known of them all;
//! endpoints that do markedly worse than the others are ejected for a while.
//! Clones share what is known, so one clone per connection balances as one.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use selvedge_patterns::balance::{Algorithm, Config};
//! use selvedge_tower::{balance, classify::Always};
//! use tower::{ServiceExt, service_fn};
//!
//! let endpoint = |name: &'static str| service_fn(move |()| async move { Ok::<_, std::io::Error>(name) });
//! let service = balance::Service::builder(Always::SAFE)
//!     .config(Config { algorithm: Algorithm::RoundRobin, ..Config::default() })
//!     .endpoint(endpoint("a"))
//!     .endpoint(endpoint("b"))
//!     .build()?;
//! assert_eq!(service.clone().oneshot(()).await?, "a");
//! assert_eq!(service.clone().oneshot(()).await?, "b");
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use selvedge_patterns::balance::{self, Balancer, Candidates, Load, Standing};
use selvedge_patterns::config::ConfigError;
use selvedge_patterns::outcome::Outcome;
use selvedge_patterns::outlier::{self, Detector, Host, Hosts, Transition};
use selvedge_patterns::time::Instant;

use crate::classify::Classify;
use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error, Rejected};
use crate::oneshot::Oneshot;
use crate::random::ThreadRng;

#[cfg(test)]
mod tests;

/// Builds a balanced service.
pub struct Builder<S, C> {
    classify: C,
    balance: balance::Config,
    outlier: Option<outlier::Config>,
    endpoints: Vec<Endpoint<S>>,
    report: Option<Report>,
}

type Report = Box<dyn Fn(Transition) + Send + Sync>;

impl<S, C: fmt::Debug> fmt::Debug for Builder<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("classify", &self.classify)
            .field("endpoints", &self.endpoints.len())
            .finish()
    }
}

impl<S, C> Builder<S, C> {
    /// How to choose. Default: peak EWMA.
    #[must_use]
    pub const fn config(mut self, config: balance::Config) -> Self {
        self.balance = config;
        self
    }

    /// When to eject, or never. Default: as [`outlier::Config`].
    #[must_use]
    pub const fn outlier(mut self, config: Option<outlier::Config>) -> Self {
        self.outlier = config;
        self
    }

    /// One more endpoint, of weight 1.
    #[must_use]
    pub fn endpoint(self, service: S) -> Self {
        self.weighted(service, 1)
    }

    /// One more endpoint.
    #[must_use]
    pub fn weighted(mut self, service: S, weight: u32) -> Self {
        let draining = AtomicBool::new(false);
        self.endpoints.push(Endpoint {
            service,
            weight,
            load: Load::new(),
            host: Host::new(),
            draining,
        });
        self
    }

    /// Tells `report` of ejections and returns, on whatever task finds out.
    #[must_use]
    pub fn on_transition(mut self, report: impl Fn(Transition) + Send + Sync + 'static) -> Self {
        self.report = Some(Box::new(report));
        self
    }

    /// The balanced service.
    ///
    /// # Errors
    ///
    /// If a configuration makes no sense, or there is no endpoint.
    pub fn build(self) -> Result<Service<S, C>, ConfigError> {
        self.balance.validate()?;
        ConfigError::require(!self.endpoints.is_empty(), "endpoints", "must be at least one")?;
        let detector = match self.outlier {
            None => None,
            Some(config) => {
                config.validate()?;
                Some(Detector::new(Clock::process().now(), config))
            }
        };
        let set = Set {
            balancer: Balancer::new(self.balance),
            detector,
            endpoints: self.endpoints,
            report: self.report,
            classify: self.classify,
        };
        Ok(Service { set: Arc::new(set) })
    }
}

struct Endpoint<S> {
    service: S,
    weight: u32,
    load: Load,
    host: Host,
    draining: AtomicBool,
}

struct Set<S, C> {
    balancer: Balancer,
    detector: Option<Detector>,
    endpoints: Vec<Endpoint<S>>,
    report: Option<Report>,
    classify: C,
}

/// The endpoints as they stand at one instant.
struct Standings<'a, S> {
    endpoints: &'a [Endpoint<S>],
    now: Instant,
}

impl<S> Candidates for Standings<'_, S> {
    fn count(&self) -> usize {
        self.endpoints.len()
    }

    fn load(&self, index: usize) -> &Load {
        &self.endpoints[index].load
    }

    fn standing(&self, index: usize) -> Standing {
        let endpoint = &self.endpoints[index];
        if endpoint.draining.load(Ordering::Relaxed) {
            Standing::Excluded
        } else if endpoint.host.ejected(self.now) {
            Standing::Unhealthy
        } else {
            Standing::Usable
        }
    }

    fn weight(&self, index: usize) -> u32 {
        self.endpoints[index].weight
    }
}

impl<S> Hosts for Standings<'_, S> {
    fn count(&self) -> usize {
        self.endpoints.len()
    }

    fn host(&self, index: usize) -> &Host {
        &self.endpoints[index].host
    }
}

impl<S, C> Set<S, C> {
    fn settle(&self, now: Instant, began: Instant, index: usize, outcome: Outcome) {
        let endpoint = &self.endpoints[index];
        endpoint.load.settle(now, self.balancer.config(), now.since(began), outcome);
        let Some(detector) = &self.detector else { return };
        let report = |transition| self.report.iter().for_each(|report| report(transition));
        let hosts = Standings { endpoints: &self.endpoints, now };
        detector.settle(now, &hosts, index, outcome).into_iter().for_each(report);
        if now >= detector.next_wakeup() {
            detector.wake(now, &hosts, report);
        }
    }
}

/// A service made of several. Clones share everything.
pub struct Service<S, C> {
    set: Arc<Set<S, C>>,
}

impl<S, C> Clone for Service<S, C> {
    fn clone(&self) -> Self {
        Self { set: Arc::clone(&self.set) }
    }
}

impl<S, C> fmt::Debug for Service<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("endpoints", &self.set.endpoints.len())
            .finish_non_exhaustive()
    }
}

/// One endpoint of a balanced service.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct View {
    /// Attempts out at this moment.
    pub pending: u32,
    /// What the next attempt is expected to take; `None` before the first sample.
    pub estimate: Option<std::time::Duration>,
    /// Whether it is draining.
    pub draining: bool,
    /// What its traffic says of it.
    pub record: outlier::View,
}

impl<S, C> Service<S, C> {
    /// A balanced service in the making.
    pub fn builder(classify: C) -> Builder<S, C> {
        Builder {
            classify,
            balance: balance::Config::default(),
            outlier: Some(outlier::Config::default()),
            endpoints: Vec::new(),
            report: None,
        }
    }

    /// Lets the endpoint at `index` (in the order they were added) finish what
    /// it has and gives it no more, or takes that back.
    ///
    /// # Panics
    ///
    /// If there is no such endpoint.
    pub fn drain(&self, index: usize, draining: bool) {
        self.set.endpoints[index].draining.store(draining, Ordering::Relaxed);
    }

    /// What is known of each endpoint.
    pub fn view(&self) -> impl Iterator<Item = View> {
        let now = Clock::process().now();
        self.set.endpoints.iter().map(move |endpoint| View {
            pending: endpoint.load.pending(),
            estimate: endpoint.load.estimate(now, self.set.balancer.config()),
            draining: endpoint.draining.load(Ordering::Relaxed),
            record: endpoint.host.view(now),
        })
    }
}

impl<S, C, Request> tower_service::Service<Request> for Service<S, C>
where
    S: tower_service::Service<Request> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<Request, S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, C, Request>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Which endpoint must be ready is known only once one is chosen.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let _frame = Frame::enter();
        let now = Clock::process().now();
        let candidates = Standings { endpoints: &self.set.endpoints, now };
        let Some(pick) = self.set.balancer.pick(now, &candidates, &mut ThreadRng) else {
            return ResponseFuture { call: None, started: None };
        };
        let endpoint = &self.set.endpoints[pick.index];
        endpoint.load.start();
        ResponseFuture {
            call: Some(Oneshot::new(endpoint.service.clone(), request)),
            started: Some(Started {
                set: Arc::clone(&self.set),
                index: pick.index,
                began: now,
                outcome: Outcome::Cancelled,
            }),
        }
    }
}

/// An attempt that is out. Dropped before it has ended, it was cancelled.
struct Started<S, C> {
    set: Arc<Set<S, C>>,
    index: usize,
    began: Instant,
    outcome: Outcome,
}

impl<S, C> Drop for Started<S, C> {
    fn drop(&mut self) {
        let now = Clock::process().now();
        self.set.settle(now, self.began, self.index, self.outcome);
    }
}

impl<S, C> fmt::Debug for Started<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started")
            .field("index", &self.index)
            .field("began", &self.began)
            .finish_non_exhaustive()
    }
}

pin_project_lite::pin_project! {
    /// The response of the endpoint that was chosen.
    #[derive(Debug)]
    pub struct ResponseFuture<S: tower_service::Service<Request>, C, Request> {
        #[pin]
        call: Option<Oneshot<S, Request>>,
        started: Option<Started<S, C>>,
    }
}

impl<S, C, Request> Future for ResponseFuture<S, C, Request>
where
    S: tower_service::Service<Request>,
    S::Error: Into<BoxError>,
    C: Classify<Request, S::Response>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _frame = Frame::enter();
        let Some(call) = this.call.as_pin_mut() else {
            return Poll::Ready(Err(Error::Rejected(Rejected::NoEndpoint)));
        };
        let result = ready!(call.poll(context)).map_err(Error::from_service);
        if let Some(mut started) = this.started.take() {
            started.outcome = started.set.classify.outcome(result.as_ref());
        }
        Poll::Ready(result)
    }
}
