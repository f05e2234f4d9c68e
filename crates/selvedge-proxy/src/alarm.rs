//! Timers that are set once and used by many requests.
//!
//! Nearly all timeouts are of the same length and never come, so a timer that
//! is set for each request and taken back costs two visits to the runtime's
//! wheel for nothing. An [`Alarm`] stays set for the earliest moment that
//! anybody asked for; when it rings too early for the one who has it now, it
//! is set again. At most one early ring in the length of a timeout.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

/// A timer of its own, on loan from [`Alarms`].
#[derive(Debug)]
pub(crate) struct Alarm<'a> {
    timer: Option<Pin<Box<Sleep>>>,
    lender: &'a Alarms,
}

/// A worker's timers that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Alarms(RefCell<Vec<Pin<Box<Sleep>>>>);

/// Timers kept beyond those in use.
const SPARE_MAX: usize = 1024;

impl Alarms {
    pub(crate) fn lend(&self) -> Alarm<'_> {
        Alarm { timer: self.0.borrow_mut().pop(), lender: self }
    }
}

impl Alarm<'_> {
    /// Ready once `until` has come. `until` may differ from poll to poll.
    pub(crate) fn poll(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.is_elapsed() || timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        let mut spare = self.lender.0.borrow_mut();
        if let Some(timer) = self.timer.take()
            && spare.len() < SPARE_MAX
        {
            spare.push(timer);
        }
    }
}
