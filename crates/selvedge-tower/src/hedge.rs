//! Sends the same request again when the first attempt is unusually slow, and
//! takes whichever answer is good first.
//!
//! The loser is dropped, which cancels it. Both attempts go to the same inner
//! service, so place it above something that spreads them; a
//! [`Policy`](crate::Policy) over several endpoints sends the second one elsewhere.
//! The [`Classify`] says which requests may be sent twice and how to copy them.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::time::Duration;
//! use selvedge_patterns::hedge::{Config, Delay};
//! use selvedge_tower::{classify::Always, hedge};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
//! // The first attempt hangs, the second answers.
//! let service = service_fn(|()| async {
//!     if ATTEMPTS.fetch_add(1, Ordering::Relaxed) == 0 {
//!         std::future::pending::<()>().await;
//!     }
//!     Ok::<_, std::io::Error>("answer")
//! });
//! let config = Config { delay: Delay::Fixed(Duration::from_millis(20)), ..Config::default() };
//! let service = hedge::Layer::new(config, Always::SAFE)?.layer(service);
//! assert_eq!(service.oneshot(()).await?, "answer");
//! assert_eq!(ATTEMPTS.load(Ordering::Relaxed), 2);
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use selvedge_patterns::config::ConfigError;
use selvedge_patterns::hedge::{Config, Hedge};
use selvedge_patterns::outcome::{Outcome, Safety};
use selvedge_patterns::time::Instant;

use crate::classify::Classify;
use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error};
use crate::oneshot::Oneshot;
use crate::timer::Timer;

#[cfg(test)]
mod tests;

/// Hedges the calls of a service.
#[derive(Clone, Debug)]
pub struct Layer<C> {
    hedge: Arc<Hedge>,
    classify: C,
}

impl<C> Layer<C> {
    /// Hedges as `config` says what `classify` allows.
    ///
    /// # Errors
    ///
    /// If the configuration makes no sense.
    pub fn new(config: Config, classify: C) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::shared(Arc::new(Hedge::new(Clock::process().now(), config)), classify))
    }

    /// Shares what is known of latencies, and what is saved up for hedges, with others.
    #[must_use]
    pub const fn shared(hedge: Arc<Hedge>, classify: C) -> Self {
        Self { hedge, classify }
    }
}

impl<S, C: Clone> tower_layer::Layer<S> for Layer<C> {
    type Service = Service<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        Service { inner, hedge: Arc::clone(&self.hedge), classify: self.classify.clone() }
    }
}

/// A service whose slow calls are hedged. Clones share what is known of latencies.
#[derive(Clone, Debug)]
pub struct Service<S, C> {
    inner: S,
    hedge: Arc<Hedge>,
    classify: C,
}

impl<S, C, Request> tower_service::Service<Request> for Service<S, C>
where
    S: tower_service::Service<Request> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<Request, S::Response> + Clone,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, C, Request>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context).map_err(Error::from_service)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let _frame = Frame::enter();
        let began = Clock::process().now();
        self.hedge.deposit();
        let safety = self.classify.safety(&request);
        let spare = if self.hedge.hedges(safety) { self.classify.replay(&request) } else { None };
        ResponseFuture {
            next: spare
                .map(|request| (self.inner.clone(), request, began + self.hedge.delay(began))),
            first: Some(Oneshot::running(self.inner.call(request))),
            extra: Vec::new(),
            sent: 0,
            timer: Timer::default(),
            shared: Shared {
                hedge: Arc::clone(&self.hedge),
                classify: self.classify.clone(),
                safety,
                began,
            },
        }
    }
}

#[derive(Debug)]
struct Shared<C> {
    hedge: Arc<Hedge>,
    classify: C,
    safety: Safety,
    began: Instant,
}

pin_project_lite::pin_project! {
    /// The first good response of the attempts made.
    #[derive(Debug)]
    pub struct ResponseFuture<S: tower_service::Service<Request>, C, Request> {
        #[pin]
        first: Option<Oneshot<S, Request>>,
        // A box each: they come only when something is slow.
        extra: Vec<Pin<Box<Oneshot<S, Request>>>>,
        sent: u32,
        // What the next extra attempt needs, and when it is due.
        next: Option<(S, Request, Instant)>,
        #[pin]
        timer: Timer,
        shared: Shared<C>,
    }
}

impl<S, C, Request> Future for ResponseFuture<S, C, Request>
where
    S: tower_service::Service<Request> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<Request, S::Response>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let _frame = Frame::enter();
        let mut last = None;
        if let Some(call) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = call.poll(context)
        {
            this.first.set(None);
            let result = result.map_err(Error::from_service);
            let outcome = this.shared.classify.outcome(result.as_ref());
            let now = Clock::process().now();
            this.shared.hedge.settle(now, now.since(this.shared.began), outcome);
            if acceptable(outcome) {
                return Poll::Ready(result);
            }
            last = Some(result);
        }
        loop {
            if let Some(result) = poll_extra(this.extra, this.shared, context, &mut last) {
                return Poll::Ready(result);
            }
            if let Some(result) = last.take() {
                // A failure is the layer above's to retry, unless another attempt still runs.
                if this.first.is_none() && this.extra.is_empty() {
                    return Poll::Ready(result);
                }
            }
            let Some((_, _, due)) = this.next else { return Poll::Pending };
            if this.timer.as_mut().poll_at(context, *due).is_pending() {
                return Poll::Pending;
            }
            let Some((service, request, _)) = this.next.take() else { return Poll::Pending };
            if this.shared.hedge.admit(this.shared.safety, *this.sent).is_err() {
                return Poll::Pending;
            }
            *this.sent += 1;
            if let Some(again) = this.shared.classify.replay(&request) {
                let now = Clock::process().now();
                *this.next = Some((service.clone(), again, now + this.shared.hedge.delay(now)));
            }
            this.extra.push(Box::pin(Oneshot::new(service, request)));
        }
    }
}

/// The first acceptable answer of the extra attempts; of those that end
/// otherwise the last is kept.
fn poll_extra<S, C, Request>(
    extra: &mut Vec<Pin<Box<Oneshot<S, Request>>>>,
    shared: &Shared<C>,
    context: &mut Context<'_>,
    last: &mut Option<Result<S::Response, Error>>,
) -> Option<Result<S::Response, Error>>
where
    S: tower_service::Service<Request>,
    S::Error: Into<BoxError>,
    C: Classify<Request, S::Response>,
{
    let mut index = 0;
    while let Some(call) = extra.get_mut(index) {
        let Poll::Ready(result) = call.as_mut().poll(context) else {
            index += 1;
            continue;
        };
        drop(extra.swap_remove(index));
        let result = result.map_err(Error::from_service);
        if acceptable(shared.classify.outcome(result.as_ref())) {
            return Some(result);
        }
        *last = Some(result);
    }
    None
}

/// An answer that a second attempt would not better.
const fn acceptable(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Success | Outcome::ClientFault)
}
