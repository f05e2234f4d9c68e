//! Stops calling a service that keeps failing, and probes it until it recovers.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use selvedge_patterns::breaker::Config;
//! use selvedge_tower::{Error, breaker, classify::Always};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let config = Config { consecutive: Some(2), ..Config::default() };
//! let layer = breaker::Layer::new(config, Always::UNSAFE)?
//!     .on_transition(|transition| println!("{} → {}", transition.from.word(), transition.to.word()));
//! let down = layer.layer(service_fn(|()| async { Err::<(), _>(std::io::Error::other("down")) }));
//!
//! for _ in 0..2 {
//!     assert_eq!(down.clone().oneshot(()).await.unwrap_err().reason(), "service_error");
//! }
//! let error = down.clone().oneshot(()).await.unwrap_err();
//! assert_eq!(error.reason(), "circuit_open");
//! assert!(error.retry_after() > Some(std::time::Duration::from_secs(3)));
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use selvedge_patterns::breaker::{Config, Control, Permit, Shared, Transition, View};
use selvedge_patterns::config::ConfigError;
use selvedge_patterns::outcome::Outcome;

use crate::classify::Classify;
use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error, Rejected};
use crate::random;

#[cfg(test)]
mod tests;

type Report = Box<dyn Fn(Transition) + Send + Sync>;

/// A breaker and what is told of it.
struct State {
    breaker: Shared,
    report: OnceLock<Report>,
}

impl State {
    fn report(&self, transition: Option<Transition>) {
        if let (Some(report), Some(transition)) = (self.report.get(), transition) {
            report(transition);
        }
    }
}

/// Puts a breaker before a service.
pub struct Layer<C> {
    state: Arc<State>,
    classify: C,
}

impl<C> Layer<C> {
    /// A closed breaker, fed with what `classify` makes of responses.
    ///
    /// # Errors
    ///
    /// If the configuration makes no sense.
    pub fn new(config: Config, classify: C) -> Result<Self, ConfigError> {
        config.validate()?;
        let breaker = Shared::new(Clock::process().now(), config, random::seed());
        Ok(Self { state: Arc::new(State { breaker, report: OnceLock::new() }), classify })
    }

    /// Tells `report` of every change of state, on whatever task finds out.
    /// The first one given is the one that is told.
    #[must_use]
    pub fn on_transition(self, report: impl Fn(Transition) + Send + Sync + 'static) -> Self {
        let _ = self.state.report.set(Box::new(report));
        self
    }

    /// What is known of the dependency.
    pub fn view(&self) -> View {
        self.state.breaker.view(Clock::process().now())
    }

    /// Forces the breaker open, disables it, or lets it decide again.
    pub fn control(&self, control: Control) {
        self.state.report(self.state.breaker.control(Clock::process().now(), control));
    }
}

impl<C: Clone> Clone for Layer<C> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), classify: self.classify.clone() }
    }
}

impl<C: fmt::Debug> fmt::Debug for Layer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer")
            .field("breaker", &self.state.breaker)
            .field("classify", &self.classify)
            .finish()
    }
}

impl<S, C: Clone> tower_layer::Layer<S> for Layer<C> {
    type Service = Service<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Service { inner, layer: self.clone() }
    }
}

/// A service behind a breaker. Clones share it.
#[derive(Clone, Debug)]
pub struct Service<S, C> {
    inner: S,
    layer: Layer<C>,
}

impl<S, C, Request> tower_service::Service<Request> for Service<S, C>
where
    S: tower_service::Service<Request>,
    S::Error: Into<BoxError>,
    C: Classify<Request, S::Response> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, C, Request>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context).map_err(Error::from_service)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let _frame = Frame::enter();
        let state = &self.layer.state;
        let (answer, transition) = state.breaker.admit(Clock::process().now());
        state.report(transition);
        let call = match answer {
            Err(rejected) => Step::Refused { rejected: Rejected::Breaker(rejected) },
            Ok(permit) => {
                let admitted = Admitted { state: Arc::clone(state), permit: Some(permit) };
                Step::Admitted { call: self.inner.call(request), admitted }
            }
        };
        ResponseFuture { call, classify: self.layer.classify.clone(), request: PhantomData }
    }
}

/// A call that was let pass. Dropped before it has ended, it counts for nothing.
struct Admitted {
    state: Arc<State>,
    permit: Option<Permit>,
}

impl Admitted {
    fn settle(&mut self, outcome: Outcome) {
        if let Some(permit) = self.permit.take() {
            let transition = self.state.breaker.settle(Clock::process().now(), permit, outcome);
            self.state.report(transition);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.state.breaker.abandon(Clock::process().now(), permit);
        }
    }
}

pin_project_lite::pin_project! {
    /// The response, or why there is none.
    pub struct ResponseFuture<F, C, Request> {
        #[pin]
        call: Step<F>,
        classify: C,
        request: PhantomData<fn(Request)>,
    }
}

pin_project_lite::pin_project! {
    #[project = StepProjection]
    enum Step<F> {
        Refused { rejected: Rejected },
        Admitted { #[pin] call: F, admitted: Admitted },
    }
}

impl<F, C, Request> fmt::Debug for ResponseFuture<F, C, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<F, C, Request, T, E> Future for ResponseFuture<F, C, Request>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    C: Classify<Request, T>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.call.project() {
            StepProjection::Refused { rejected } => Poll::Ready(Err(Error::Rejected(*rejected))),
            StepProjection::Admitted { call, admitted } => {
                let _frame = Frame::enter();
                let result = ready!(call.poll(context)).map_err(Error::from_service);
                admitted.settle(this.classify.outcome(result.as_ref()));
                Poll::Ready(result)
            }
        }
    }
}
