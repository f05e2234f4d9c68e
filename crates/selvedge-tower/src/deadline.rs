//! Gives a call with all its attempts and waits one moment by which it ends.
//!
//! Layers below it (retry, hedge, queue, timeout) see the deadline and start
//! nothing that could not finish in time. A deadline set further out is only
//! ever shortened.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use std::time::Duration;
//! use selvedge_tower::{Error, deadline};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let service = deadline::Layer::new(Duration::from_secs(2)).layer(service_fn(|()| async {
//!     std::future::pending::<Result<(), std::io::Error>>().await
//! }));
//! assert!(matches!(service.oneshot(()).await, Err(Error::DeadlinePassed { elapsed }) if elapsed.as_secs() == 2));
//! # });
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use selvedge_patterns::deadline::{Config, Deadline};
use selvedge_patterns::time::{Duration, Instant};

use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error, Rejected};
use crate::timer::Timer;

#[cfg(test)]
mod tests;

/// Gives every call so much time in all.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    total: Duration,
    config: Config,
}

impl Layer {
    /// At most `total` per call.
    #[must_use]
    pub fn new(total: Duration) -> Self {
        Self::with(total, Config::default())
    }

    /// At most `total` per call, and no attempt with less than `config` asks for.
    #[must_use]
    pub const fn with(total: Duration, config: Config) -> Self {
        Self { total, config }
    }
}

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Service { inner, layer: *self }
    }
}

/// A service whose calls end in time.
#[derive(Clone, Debug)]
pub struct Service<S> {
    inner: S,
    layer: Layer,
}

impl<S, Request> tower_service::Service<Request> for Service<S>
where
    S: tower_service::Service<Request>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context).map_err(Error::from_service)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let frame = Frame::enter();
        let now = Clock::process().now();
        let deadline =
            Deadline::within(now, Some(self.layer.total), Some(frame.deadline().instant()));
        let state = match deadline.admit(now, self.layer.config.attempt_min) {
            Err(rejected) => State::Refused { rejected },
            Ok(()) => {
                frame.shorten(deadline);
                State::Running { call: self.inner.call(request) }
            }
        };
        ResponseFuture { state, timer: Timer::default(), began: now, deadline }
    }
}

pin_project_lite::pin_project! {
    /// The response, if it comes in time.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        #[pin]
        timer: Timer,
        began: Instant,
        deadline: Deadline,
    }
}

pin_project_lite::pin_project! {
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        Refused { rejected: selvedge_patterns::deadline::Rejected },
        Running { #[pin] call: F },
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let call = match this.state.project() {
            StateProjection::Running { call } => call,
            StateProjection::Refused { rejected } => {
                let (remaining, needed) = (rejected.remaining, rejected.needed);
                return Poll::Ready(Err(Error::Rejected(Rejected::Deadline { remaining, needed })));
            }
        };
        let frame = Frame::enter();
        frame.shorten(*this.deadline);
        if let Poll::Ready(result) = call.poll(context) {
            return Poll::Ready(result.map_err(Error::from_service));
        }
        let elapsed = this.deadline.instant().since(*this.began);
        this.timer
            .poll_at(context, this.deadline.instant())
            .map(|()| Err(Error::DeadlinePassed { elapsed }))
    }
}
