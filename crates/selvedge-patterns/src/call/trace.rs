//! What was decided about one call, with the numbers it was decided on.

use core::fmt;

use super::Kind;
use crate::outcome::Outcome;
use crate::time::{Duration, Instant};
use crate::{breaker, budget, bulkhead, deadline, hedge, retry};

/// Notes that a trace holds; what comes later replaces the last one.
pub const NOTES_MAX: usize = 12;

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// When.
    pub at: Instant,
    /// What was decided.
    pub decision: Decision,
}

/// What was decided, and on what numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// An attempt went out.
    Started {
        /// Its number in this call, from 1.
        number: u32,
        /// Where it went.
        endpoint: u32,
        /// What made it.
        kind: Kind,
        /// Too few endpoints were fit, so health was ignored.
        panic: bool,
    },
    /// An attempt ended.
    Ended {
        /// Its number.
        number: u32,
        /// What it counts as.
        outcome: Outcome,
        /// Nanoseconds it took.
        elapsed_ns: u64,
    },
    /// It is tried again after a wait.
    Retries {
        /// Nanoseconds.
        wait_ns: u64,
    },
    /// It is not tried again.
    NoRetry(retry::Rejected),
    /// No extra attempt: a caller up the chain retries already.
    PriorAttempts(u32),
    /// No extra attempt: the budget.
    NoBudget(budget::Rejected),
    /// No hedge.
    NoHedge(hedge::Rejected),
    /// Too little time is left.
    TooLate {
        /// Nanoseconds left.
        remaining_ns: u64,
        /// Nanoseconds it would take.
        needed_ns: u64,
    },
    /// An endpoint's breaker said no.
    CircuitOpen {
        /// Which endpoint.
        endpoint: u32,
        /// Its state.
        state: breaker::State,
        /// Failures it opened on.
        failed: u32,
        /// Calls it opened on.
        calls: u32,
    },
    /// No endpoint may be called.
    NoEndpoint {
        /// How many there are.
        endpoints: u32,
    },
    /// It waits for a permit.
    Queued,
    /// The bulkhead said no.
    BulkheadFull(bulkhead::Rejected),
}

impl From<deadline::Rejected> for Decision {
    fn from(rejected: deadline::Rejected) -> Self {
        Self::TooLate {
            remaining_ns: crate::time::nanos(rejected.remaining),
            needed_ns: crate::time::nanos(rejected.needed),
        }
    }
}

/// What was decided about one call, the oldest first.
#[derive(Clone, Debug)]
pub struct Trace {
    began: Instant,
    notes: [Option<Note>; NOTES_MAX],
    count: u32,
}

impl Trace {
    pub(super) const fn new(began: Instant) -> Self {
        Self { began, notes: [None; NOTES_MAX], count: 0 }
    }

    pub(super) fn note(&mut self, at: Instant, decision: Decision) {
        let place = (self.count as usize).min(NOTES_MAX - 1);
        self.notes[place] = Some(Note { at, decision });
        self.count += 1;
    }

    /// When the call began.
    #[must_use]
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// The decisions that were kept.
    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.iter().flatten()
    }

    /// Decisions that found no room.
    #[must_use]
    pub const fn left_out(&self) -> u32 {
        self.count.saturating_sub(NOTES_MAX as u32)
    }
}

impl fmt::Display for Trace {
    /// One line: what happened how many milliseconds after the beginning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, note) in self.notes().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{} {}", Millis(note.at.since(self.began)), note.decision)?;
        }
        match self.left_out() {
            0 => Ok(()),
            more => write!(f, "; {more} more"),
        }
    }
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}ms", self.0.as_secs_f64() * 1e3)
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |ns: u64| Millis(Duration::from_nanos(ns));
        match self {
            Self::Started { number, endpoint, kind, panic } => {
                let panic = if *panic { " panic" } else { "" };
                write!(f, "start attempt={number} endpoint={endpoint} kind={}{panic}", kind.word())
            }
            Self::Ended { number, outcome, elapsed_ns } => {
                let (word, took) = (outcome_word(*outcome), millis(*elapsed_ns));
                write!(f, "end attempt={number} outcome={word} took={took}")
            }
            Self::Retries { wait_ns } => write!(f, "retry wait={}", millis(*wait_ns)),
            Self::NoRetry(retry::Rejected::Exhausted { attempts }) => {
                write!(f, "no_retry reason=attempts_exhausted attempts={attempts}")
            }
            Self::NoRetry(rejected) => write!(f, "no_retry reason={}", rejected.code()),
            Self::PriorAttempts(prior) => {
                write!(f, "no_extra reason=prior_attempts prior={prior}")
            }
            Self::NoBudget(rejected @ budget::Rejected::Spent { balance_millionths }) => {
                let balance = *balance_millionths as f64 / 1e6;
                write!(f, "no_extra reason={} balance={balance:.2}", rejected.code())
            }
            Self::NoBudget(rejected @ budget::Rejected::InFlight { extra, extra_max }) => {
                write!(f, "no_extra reason={} extra={extra} max={extra_max}", rejected.code())
            }
            Self::NoHedge(hedge::Rejected::Share { saved_millionths }) => {
                let saved = *saved_millionths as f64 / 1e6;
                write!(f, "no_hedge reason=hedge_share saved={saved:.2}")
            }
            Self::NoHedge(hedge::Rejected::Exhausted { extra }) => {
                write!(f, "no_hedge reason=hedges_exhausted extra={extra}")
            }
            Self::NoHedge(hedge::Rejected::Unsafe) => f.write_str("no_hedge reason=not_safe"),
            Self::TooLate { remaining_ns, needed_ns } => {
                let (left, needed) = (millis(*remaining_ns), millis(*needed_ns));
                write!(f, "too_late left={left} needed={needed}")
            }
            Self::CircuitOpen { endpoint, state, failed, calls } => {
                let state = state.word();
                write!(f, "circuit endpoint={endpoint} state={state} failed={failed}/{calls}")
            }
            Self::NoEndpoint { endpoints } => write!(f, "no_endpoint of={endpoints}"),
            Self::Queued => f.write_str("queued"),
            Self::BulkheadFull(bulkhead::Rejected { reason, in_flight, queued }) => {
                write!(f, "{} in_flight={in_flight} queued={queued}", reason.code())
            }
        }
    }
}

fn outcome_word(outcome: Outcome) -> &'static str {
    use crate::outcome::Failure;
    match outcome {
        Outcome::Success => "success",
        Outcome::Failure(Failure::Connect) => "connect_failed",
        Outcome::Failure(Failure::Refused) => "refused",
        Outcome::Failure(Failure::Reset) => "reset",
        Outcome::Failure(Failure::Timeout) => "timeout",
        Outcome::Failure(Failure::Gateway) => "gateway_error",
        Outcome::Failure(Failure::Server) => "server_error",
        Outcome::Failure(Failure::Malformed) => "malformed",
        Outcome::Overload { .. } => "overload",
        Outcome::ClientFault => "client_fault",
        Outcome::Cancelled => "cancelled",
        Outcome::Local => "local",
    }
}
