//! Waits until a service is ready and makes one call.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tower_service::Service;

pin_project_lite::pin_project! {
    /// One call of a service of its own.
    #[project = StateProjection]
    pub(crate) enum Oneshot<S: Service<R>, R> {
        Waiting { service: S, request: Option<R> },
        Running { #[pin] call: S::Future },
    }
}

impl<S: Service<R>, R> fmt::Debug for Oneshot<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting { .. } => "Waiting",
            Self::Running { .. } => "Running",
        })
    }
}

impl<S: Service<R>, R> Oneshot<S, R> {
    pub(crate) const fn new(service: S, request: R) -> Self {
        Self::Waiting { service, request: Some(request) }
    }

    /// One whose call has been made already.
    pub(crate) const fn running(call: S::Future) -> Self {
        Self::Running { call }
    }
}

impl<S: Service<R>, R> Future for Oneshot<S, R> {
    type Output = Result<S::Response, S::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let call = match self.as_mut().project() {
                StateProjection::Running { call } => return call.poll(context),
                StateProjection::Waiting { service, request } => {
                    ready!(service.poll_ready(context))?;
                    service.call(request.take().expect("taken once, on leaving this state"))
                }
            };
            self.set(Self::Running { call });
        }
    }
}
