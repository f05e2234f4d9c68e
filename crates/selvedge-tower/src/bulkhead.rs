//! Bounds how many calls of a service run at once, and how many wait.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use std::time::Duration;
//! use selvedge_patterns::bulkhead::Config;
//! use selvedge_tower::bulkhead;
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let slow = service_fn(|()| async {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     Ok::<_, std::io::Error>(())
//! });
//! let service = bulkhead::Layer::new(Config { max_in_flight: 1, queue: 0, ..Config::default() })?.layer(slow);
//! let (one, other) = tokio::join!(service.clone().oneshot(()), service.clone().oneshot(()));
//! assert!(one.is_ok());
//! assert_eq!(other.unwrap_err().reason(), "bulkhead_full");
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use selvedge_patterns::bulkhead::{Bulkhead, Claim, Config, Decision, Permit, Ticket, View};
use selvedge_patterns::config::ConfigError;
use selvedge_patterns::time::Instant;

use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error, Rejected};
use crate::timer::Timer;
use crate::wakers::Wakers;

#[cfg(test)]
mod tests;

#[derive(Debug)]
struct State {
    bulkhead: Bulkhead,
    wakers: Wakers,
}

/// Puts a bulkhead around a service.
#[derive(Clone, Debug)]
pub struct Layer {
    state: Arc<State>,
}

impl Layer {
    /// An empty bulkhead.
    ///
    /// # Errors
    ///
    /// If the configuration makes no sense.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let state = State { bulkhead: Bulkhead::new(config, None), wakers: Wakers::default() };
        Ok(Self { state: Arc::new(state) })
    }

    /// How full it is.
    pub fn view(&self) -> View {
        self.state.bulkhead.view()
    }
}

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Service { inner, state: Arc::clone(&self.state) }
    }
}

/// A service within a bulkhead. Clones share it.
#[derive(Clone, Debug)]
pub struct Service<S> {
    inner: S,
    state: Arc<State>,
}

impl<S, Request> tower_service::Service<Request> for Service<S>
where
    S: tower_service::Service<Request> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Request>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context).map_err(Error::from_service)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let frame = Frame::enter();
        let patience = frame.deadline().instant();
        let decision = self.state.bulkhead.admit(Clock::process().now(), patience);
        let (step, holds) = match decision {
            Decision::Admitted(permit) => {
                (Step::Running { call: self.inner.call(request) }, Holds::Permit(permit))
            }
            Decision::Rejected(rejected) => {
                (Step::Refused { rejected: Rejected::Bulkhead(rejected) }, Holds::Nothing)
            }
            Decision::Queued { ticket, .. } => {
                // The one that is ready waits; the next call gets a fresh one.
                let fresh = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, fresh);
                let step = Step::Queued { next: Some((ready, request)), timer: Timer::default() };
                (step, Holds::Ticket(ticket))
            }
        };
        ResponseFuture { step, place: Place { state: Arc::clone(&self.state), holds } }
    }
}

/// What a call holds of the bulkhead: given back when it is dropped.
#[derive(Debug)]
struct Place {
    state: Arc<State>,
    holds: Holds,
}

#[derive(Debug)]
enum Holds {
    Nothing,
    Ticket(Ticket),
    Permit(Permit),
}

impl Place {
    /// Ready with leave to run, or with a refusal.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut timer: Pin<&mut Timer>,
    ) -> Poll<Result<(), Rejected>> {
        let Holds::Ticket(ticket) = self.holds else { return Poll::Ready(Ok(())) };
        let mut now = Clock::process().now();
        self.state.wakers.register(ticket, context.waker());
        loop {
            let until = match self.state.bulkhead.claim(now, ticket) {
                Claim::Admitted(permit) => {
                    self.holds = Holds::Permit(permit);
                    break;
                }
                Claim::Rejected(rejected) => {
                    self.holds = Holds::Nothing;
                    self.state.wakers.forget(ticket);
                    return Poll::Ready(Err(Rejected::Bulkhead(rejected)));
                }
                Claim::Waiting { until } => until,
            };
            ready!(timer.as_mut().poll_at(context, until));
            // The shared reading of the clock may be a little older than the timer's.
            now = now.max(until);
        }
        self.state.wakers.forget(ticket);
        Poll::Ready(Ok(()))
    }

    fn give_back(&mut self, now: Instant) {
        match std::mem::replace(&mut self.holds, Holds::Nothing) {
            Holds::Nothing => return,
            Holds::Permit(permit) => self.state.bulkhead.release(now, permit),
            Holds::Ticket(ticket) => {
                self.state.wakers.forget(ticket);
                self.state.bulkhead.cancel(now, ticket);
            }
        }
        self.state.wakers.wake(|| self.state.bulkhead.granted());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !matches!(self.holds, Holds::Nothing) {
            self.give_back(Clock::process().now());
        }
    }
}

pin_project_lite::pin_project! {
    /// The response, or why there is none.
    pub struct ResponseFuture<S: tower_service::Service<Request>, Request> {
        #[pin]
        step: Step<S, Request>,
        place: Place,
    }
}

pin_project_lite::pin_project! {
    #[project = StepProjection]
    enum Step<S: tower_service::Service<Request>, Request> {
        Refused { rejected: Rejected },
        Queued { next: Option<(S, Request)>, #[pin] timer: Timer },
        Running { #[pin] call: S::Future },
    }
}

impl<S: tower_service::Service<Request>, Request> fmt::Debug for ResponseFuture<S, Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<S, Request> Future for ResponseFuture<S, Request>
where
    S: tower_service::Service<Request>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let _frame = Frame::enter();
        loop {
            match this.step.as_mut().project() {
                StepProjection::Refused { rejected } => {
                    return Poll::Ready(Err(Error::Rejected(*rejected)));
                }
                StepProjection::Running { call } => {
                    let result = ready!(call.poll(context)).map_err(Error::from_service);
                    // Not only when the future is dropped: who waits should not wait for that.
                    this.place.give_back(Clock::process().now());
                    return Poll::Ready(result);
                }
                StepProjection::Queued { next, timer } => {
                    if let Err(rejected) = ready!(this.place.poll(context, timer)) {
                        return Poll::Ready(Err(Error::Rejected(rejected)));
                    }
                    let (mut service, request) =
                        next.take().expect("taken once, on leaving this state");
                    let call = service.call(request);
                    this.step.set(Step::Running { call });
                }
            }
        }
    }
}
