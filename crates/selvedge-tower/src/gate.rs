//! The future of a layer that decides before the call and has nothing to do after it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::clock::Frame;
use crate::error::{BoxError, Error, Rejected};

pin_project_lite::pin_project! {
    /// Either the refusal or the call.
    #[project = StateProjection]
    #[derive(Debug)]
    enum State<F> {
        Refused { rejected: Rejected },
        Admitted { #[pin] call: F },
    }
}

pin_project_lite::pin_project! {
    /// The response of a call that a layer let pass, or why it did not.
    #[derive(Debug)]
    pub struct Gated<F> {
        #[pin]
        state: State<F>,
    }
}

impl<F> Gated<F> {
    pub(crate) const fn refused(rejected: Rejected) -> Self {
        Self { state: State::Refused { rejected } }
    }

    pub(crate) const fn admitted(call: F) -> Self {
        Self { state: State::Admitted { call } }
    }
}

impl<F, T, E> Future for Gated<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Refused { rejected } => Poll::Ready(Err(Error::Rejected(*rejected))),
            StateProjection::Admitted { call } => {
                let _frame = Frame::enter();
                Poll::Ready(ready!(call.poll(context)).map_err(Error::from_service))
            }
        }
    }
}
