//! Answers in the service's place when it cannot: with its last good answer, or a fixed one.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use selvedge_tower::{classify::Always, fallback};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! let down = service_fn(|()| async { Err::<&str, _>(std::io::Error::other("down")) });
//! let service = fallback::Layer::fixed(Always::SAFE, |_| "sorry").layer(down);
//! assert_eq!(service.oneshot(()).await?, "sorry");
//! # Ok::<_, Box<dyn std::error::Error + Send + Sync>>(()) }).unwrap();
//! ```

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use selvedge_patterns::config::ConfigError;
use selvedge_patterns::fallback::{Choice, Config};
use selvedge_patterns::outcome::Safety;
use selvedge_patterns::time::{Duration, Instant};

use crate::classify::Classify;
use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error};

#[cfg(test)]
mod tests;

/// Something to answer with when the service cannot.
pub struct Layer<C, Request, Response> {
    shared: Arc<Shared<C, Request, Response>>,
}

struct Shared<C, Request, Response> {
    config: Config,
    classify: C,
    fixed: Option<Box<dyn Fn(&Error) -> Response + Send + Sync>>,
    kept: Option<Kept<Request, Response>>,
}

struct Kept<Request, Response> {
    key: Box<dyn Fn(&Request) -> Option<u64> + Send + Sync>,
    copy: fn(&Response) -> Response,
    mark: Box<dyn Fn(Response, Duration) -> Response + Send + Sync>,
    answers_max: usize,
    answers: Mutex<HashMap<u64, (Instant, Response)>>,
}

impl<C, Request, Response> Layer<C, Request, Response> {
    /// Answers with what `fixed` makes of a response that is no success.
    ///
    /// When the service gave a response that `classify` calls a failure, that
    /// response stands in for the error: `fixed` sees [`Error::Service`].
    pub fn fixed(classify: C, fixed: impl Fn(&Error) -> Response + Send + Sync + 'static) -> Self {
        let config = Config { fixed: true, stale_for: None };
        Self {
            shared: Arc::new(Shared { config, classify, fixed: Some(Box::new(fixed)), kept: None }),
        }
    }

    /// Answers with a copy of the last good answer to the same `key` (`None`:
    /// not kept), if it is not older than `stale_for`. `mark` tells the caller
    /// that it is stale. At most `answers_max` answers are kept, the newest.
    ///
    /// # Errors
    ///
    /// If nothing could ever be kept.
    pub fn last_good(
        classify: C,
        stale_for: Duration,
        answers_max: usize,
        key: impl Fn(&Request) -> Option<u64> + Send + Sync + 'static,
        mark: impl Fn(Response, Duration) -> Response + Send + Sync + 'static,
    ) -> Result<Self, ConfigError>
    where
        Response: Clone,
    {
        let config = Config { fixed: false, stale_for: Some(stale_for) };
        config.validate()?;
        ConfigError::require(answers_max >= 1, "answers_max", "must be at least 1")?;
        let kept = Kept {
            key: Box::new(key),
            copy: Response::clone,
            mark: Box::new(mark),
            answers_max,
            answers: Mutex::new(HashMap::new()),
        };
        Ok(Self { shared: Arc::new(Shared { config, classify, fixed: None, kept: Some(kept) }) })
    }
}

impl<C, Request, Response> Clone for Layer<C, Request, Response> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C, Request, Response> fmt::Debug for Layer<C, Request, Response> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl<S, C, Request, Response> tower_layer::Layer<S> for Layer<C, Request, Response> {
    type Service = Service<S, C, Request, Response>;

    fn layer(&self, inner: S) -> Self::Service {
        Service { inner, layer: self.clone() }
    }
}

/// A service that always has something to say. Clones share the kept answers.
#[derive(Debug)]
pub struct Service<S, C, Request, Response> {
    inner: S,
    layer: Layer<C, Request, Response>,
}

impl<S: Clone, C, Request, Response> Clone for Service<S, C, Request, Response> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, C, Request> tower_service::Service<Request> for Service<S, C, Request, S::Response>
where
    S: tower_service::Service<Request>,
    S::Error: Into<BoxError>,
    C: Classify<Request, S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, C, Request, S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context).map_err(Error::from_service)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let _frame = Frame::enter();
        let shared = Arc::clone(&self.layer.shared);
        let safety = shared.classify.safety(&request);
        let key = shared.kept.as_ref().and_then(|kept| (kept.key)(&request));
        ResponseFuture { call: self.inner.call(request), shared, safety, key }
    }
}

pin_project_lite::pin_project! {
    /// The response, or what stands in for it.
    pub struct ResponseFuture<F, C, Request, Response> {
        #[pin]
        call: F,
        shared: Arc<Shared<C, Request, Response>>,
        safety: Safety,
        key: Option<u64>,
    }
}

impl<F, C, Request, Response> fmt::Debug for ResponseFuture<F, C, Request, Response> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("safety", &self.safety).finish_non_exhaustive()
    }
}

impl<F, C, Request, Response, E> Future for ResponseFuture<F, C, Request, Response>
where
    F: Future<Output = Result<Response, E>>,
    E: Into<BoxError>,
    C: Classify<Request, Response>,
{
    type Output = Result<Response, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _frame = Frame::enter();
        let result = ready!(this.call.poll(context)).map_err(Error::from_service);
        Poll::Ready(this.shared.settle(*this.safety, *this.key, result))
    }
}

impl<C, Request, Response> Shared<C, Request, Response>
where
    C: Classify<Request, Response>,
{
    fn settle(
        &self,
        safety: Safety,
        key: Option<u64>,
        result: Result<Response, Error>,
    ) -> Result<Response, Error> {
        let outcome = self.classify.outcome(result.as_ref());
        let now = Clock::process().now();
        let kept = self.kept.as_ref().zip(key);
        if let (Some((kept, key)), Ok(response)) = (kept, &result)
            && self.config.keeps(safety, outcome)
        {
            kept.keep(now, key, (kept.copy)(response));
        }
        let last_good =
            kept.and_then(|(kept, key)| kept.answers().get(&key).map(|(made, _)| *made));
        match self.config.choose(now, safety, outcome, last_good) {
            Choice::None => result,
            Choice::Stale { age } => {
                kept.and_then(|(kept, key)| kept.stale(key, age)).map_or(result, Ok)
            }
            Choice::Fixed => match (&self.fixed, &result) {
                (Some(fixed), Err(error)) => Ok(fixed(error)),
                (Some(fixed), Ok(_)) => {
                    Ok(fixed(&Error::Service("the response is a failure".into())))
                }
                (None, _) => result,
            },
        }
    }
}

impl<Request, Response> Kept<Request, Response> {
    fn answers(&self) -> MutexGuard<'_, HashMap<u64, (Instant, Response)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, now: Instant, key: u64, answer: Response) {
        let mut answers = self.answers();
        if answers.len() >= self.answers_max && !answers.contains_key(&key) {
            let oldest = answers.iter().min_by_key(|(_, (made, _))| *made).map(|(&key, _)| key);
            oldest.map(|oldest| answers.remove(&oldest));
        }
        answers.insert(key, (now, answer));
    }

    /// A copy of the answer kept under `key`, marked as `age` old.
    fn stale(&self, key: u64, age: Duration) -> Option<Response> {
        let copy = self.answers().get(&key).map(|(_, answer)| (self.copy)(answer))?;
        Some((self.mark)(copy, age))
    }
}
