//! A timer that costs nothing until something has to wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use selvedge_patterns::time::Instant;

use crate::clock::Clock;

pin_project_lite::pin_project! {
    /// Made with the future it guards, registered with tokio at the first poll
    /// that finds the work unfinished.
    #[derive(Debug, Default)]
    pub(crate) struct Timer {
        at: Option<Instant>,
        #[pin]
        sleep: Option<tokio::time::Sleep>,
    }
}

impl Timer {
    /// Ready once `at` has come. Another `at` than before moves the timer.
    pub(crate) fn poll_at(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        at: Instant,
    ) -> Poll<()> {
        let mut this = self.project();
        if *this.at != Some(at) {
            let until = Clock::process().tokio(at);
            match this.sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.reset(until),
                None => this.sleep.set(Some(tokio::time::sleep_until(until))),
            }
            *this.at = Some(at);
        }
        match this.sleep.as_pin_mut() {
            Some(sleep) => sleep.poll(context),
            None => Poll::Ready(()),
        }
    }
}
