//! What the live state of a service was asked, and what it answered, in order:
//! enough to ask all of it again, elsewhere, and compare.
//!
//! The proxy writes a journal when a program asks it to; the simulator goes
//! through it with its own driver. That both decide alike is what "the same
//! code" means, and a journal is how it is proved.

use std::sync::Arc;

use crate::call::{Note, Request, Step, Trace};
use crate::fallback::Choice;
use crate::limit;
use crate::outcome::{Outcome, Safety};
use crate::random::Rng;
use crate::service::Target;
use crate::time::Instant;

/// One question with its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The `now` that was handed in.
    pub now: Instant,
    /// The service that was asked.
    pub service: Arc<str>,
    /// What was asked and what was answered.
    pub asked: Asked,
    /// The chance that was drawn for the answer, in order.
    pub draws: Vec<u64>,
}

/// A question and its answer. `call` numbers the calls of a journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// The live state came into being.
    New {
        /// Its endpoints.
        targets: Vec<Target>,
        /// The seed of its jitter.
        seed: u64,
    },
    /// A call began.
    Begin {
        /// Its number.
        call: u64,
        /// What was known of it.
        request: Request,
        /// Answer: by when it must have ended.
        ends: Instant,
    },
    /// What to do next.
    Next {
        /// Which call.
        call: u64,
        /// Answer: the step.
        step: Step,
    },
    /// The body can no longer be sent again.
    NotReplayable {
        /// Which call.
        call: u64,
    },
    /// An attempt ended.
    Settle {
        /// Which call.
        call: u64,
        /// The attempt's number.
        number: u32,
        /// How.
        outcome: Outcome,
    },
    /// An attempt's answer went out before its end was known.
    Commit {
        /// Which call.
        call: u64,
        /// The attempt's number.
        number: u32,
    },
    /// The call is over.
    Finish {
        /// Which call.
        call: u64,
        /// Answer: all that was decided about it, with the numbers.
        notes: Vec<Note>,
    },
    /// Time passed.
    Wake,
    /// Whether a health check is due.
    CheckDue {
        /// Of which endpoint.
        endpoint: usize,
        /// Answer.
        due: bool,
    },
    /// A health check ended.
    CheckSettle {
        /// Of which endpoint.
        endpoint: usize,
        /// How.
        passed: bool,
        /// Answer: whether the endpoint is fit now.
        healthy: bool,
    },
    /// Whether a route's rate limit admits a call.
    Limit {
        /// The key that has the allowance.
        key: Vec<u8>,
        /// Answer.
        decision: limit::Decision,
    },
    /// What to give instead of a failure.
    FallBack {
        /// Whether a repeat is safe.
        safety: Safety,
        /// How the call ended.
        outcome: Outcome,
        /// When the last good answer to the same request was made, if one is kept.
        last_good: Option<Instant>,
        /// Answer.
        choice: Choice,
    },
}

/// The notes of a call, as a journal keeps them.
#[must_use]
pub fn notes(trace: &Trace) -> Vec<Note> {
    trace.notes().copied().collect()
}

/// Chance from somewhere else, written down as it is drawn.
#[derive(Debug)]
pub struct Noted<'a, R> {
    source: &'a mut R,
    draws: Vec<u64>,
}

impl<'a, R: Rng> Noted<'a, R> {
    /// Draws from `source`.
    pub const fn new(source: &'a mut R) -> Self {
        Self { source, draws: Vec::new() }
    }

    /// What was drawn.
    #[must_use]
    pub fn draws(self) -> Vec<u64> {
        self.draws
    }
}

impl<R: Rng> Rng for Noted<'_, R> {
    fn next_u64(&mut self) -> u64 {
        let draw = self.source.next_u64();
        self.draws.push(draw);
        draw
    }
}

/// Chance as a journal has it. What draws more, or less, than was written down
/// is found out by [`Told::honest`].
#[derive(Debug)]
pub struct Told<'a> {
    draws: &'a [u64],
    drawn: usize,
}

impl<'a> Told<'a> {
    /// Gives `draws`, in order.
    #[must_use]
    pub const fn new(draws: &'a [u64]) -> Self {
        Self { draws, drawn: 0 }
    }

    /// Whether exactly as much was drawn as was written down.
    #[must_use]
    pub const fn honest(&self) -> bool {
        self.drawn == self.draws.len()
    }
}

impl Rng for Told<'_> {
    fn next_u64(&mut self) -> u64 {
        self.drawn += 1;
        self.draws.get(self.drawn - 1).copied().unwrap_or_default()
    }
}
