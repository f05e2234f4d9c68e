//! Ends an attempt that takes too long.
//!
//! The attempt gets its own timeout; a deadline that is sooner belongs to the
//! layer that set it. Place this one innermost: what is waited for in queues above
//! it is charged to the deadline, not blamed on the service.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use std::time::Duration;
//! use selvedge_tower::{Error, timeout};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let service = timeout::Layer::new(Duration::from_millis(50)).layer(service_fn(|pause: Duration| async move {
//!     tokio::time::sleep(pause).await;
//!     Ok::<_, std::io::Error>("done")
//! }));
//! assert_eq!(service.clone().oneshot(Duration::from_millis(10)).await?, "done");
//! let error = service.oneshot(Duration::from_secs(10)).await.unwrap_err();
//! assert!(matches!(error, Error::TimedOut { limit } if limit == Duration::from_millis(50)));
//! # Ok::<_, Error>(()) }).unwrap();
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use selvedge_patterns::time::{Duration, Instant};

use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error};
use crate::timer::Timer;

#[cfg(test)]
mod tests;

/// Gives every attempt so much time.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    limit: Duration,
}

impl Layer {
    /// At most `limit` per attempt.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Service<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Service { inner, limit: self.limit }
    }
}

/// A service whose attempts end in time.
#[derive(Clone, Debug)]
pub struct Service<S> {
    inner: S,
    limit: Duration,
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
        let until = now + self.limit;
        // A deadline that is sooner ends the whole call from above, and an attempt
        // that was cut short by it has not failed.
        let until = (until < frame.deadline().instant()).then_some(until);
        let limit = self.limit;
        ResponseFuture { call: self.inner.call(request), timer: Timer::default(), limit, until }
    }
}

pin_project_lite::pin_project! {
    /// The response, if it comes in time.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        call: F,
        #[pin]
        timer: Timer,
        limit: Duration,
        until: Option<Instant>,
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
        let _frame = Frame::enter();
        if let Poll::Ready(result) = this.call.poll(context) {
            return Poll::Ready(result.map_err(Error::from_service));
        }
        match *this.until {
            Some(until) => this
                .timer
                .poll_at(context, until)
                .map(|()| Err(Error::TimedOut { limit: *this.limit })),
            None => Poll::Pending,
        }
    }
}
