//! A service that does what its request says, and counts.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use selvedge_patterns::outcome::{Failure, Outcome, Safety};

use crate::classify::Classify;
use crate::error::Error;

/// What each attempt of a call does: the nth attempt does the nth, the last
/// one also everything after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) safety: Safety,
    pub(crate) attempts: Vec<(Duration, Answer)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The number of the attempt.
    Number(usize),
    Bad,
    Never,
    Break,
}

pub(crate) fn safe(attempts: &[(u64, Answer)]) -> Script {
    let attempts =
        attempts.iter().map(|&(ms, answer)| (Duration::from_millis(ms), answer)).collect();
    Script { safety: Safety::Safe, attempts }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Mock {
    pub(crate) attempts: Arc<AtomicUsize>,
    pub(crate) running: Arc<AtomicUsize>,
}

impl Mock {
    pub(crate) fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }

    /// Attempts that neither ended nor were dropped.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl tower_service::Service<Script> for Mock {
    type Response = Answer;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, script: Script) -> Self::Future {
        let number = self.attempts.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(Arc::clone(&self.running));
        let (pause, answer) = script.attempts[number.min(script.attempts.len() - 1)];
        Box::pin(async move {
            let _running = running;
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            match answer {
                Answer::Number(_) => Ok(Answer::Number(number + 1)),
                Answer::Bad => Ok(Answer::Bad),
                Answer::Never => std::future::pending().await,
                Answer::Break => Err(std::io::Error::other("broken")),
            }
        })
    }
}

/// [`Answer::Bad`] is a gateway failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Honest;

impl Classify<Script, Answer> for Honest {
    fn safety(&self, request: &Script) -> Safety {
        request.safety
    }

    fn replay(&self, request: &Script) -> Option<Script> {
        Some(request.clone())
    }

    fn outcome(&self, result: Result<&Answer, &Error>) -> Outcome {
        match result {
            Ok(Answer::Bad) => Outcome::Failure(Failure::Gateway),
            Ok(_) => Outcome::Success,
            Err(error) => error.outcome(),
        }
    }
}

/// A service that answers at once and cannot fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo;

impl<R> tower_service::Service<R> for Echo {
    type Response = R;
    type Error = Infallible;
    type Future = std::future::Ready<Result<R, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        std::future::ready(Ok(request))
    }
}
