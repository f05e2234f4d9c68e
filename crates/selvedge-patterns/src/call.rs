//! One call to a service: every attempt, wait and refusal, as one state
//! machine without a heap.
//!
//! The order, outermost first: deadline, retry with its budget and its gate,
//! hedge, the choice of an endpoint, that endpoint's breaker, the bulkhead,
//! the attempt's timeout. Whoever drives a call asks [`Call::next`], does what
//! it says, and asks again whenever an attempt ended or a time it named has
//! come. Everything that may be fallen back on when a call was rejected lies
//! around it, and is the driver's.
//!
//! The invariants: a local rejection is never put down to an endpoint; every
//! extra attempt is within the budget and the deadline; an open breaker is
//! never waited for; what an attempt took (permits, places, budget) goes back
//! exactly once.

use crate::backoff::Backoff;
use crate::balance::{Candidates, Load, Standing};
use crate::bulkhead::{self, Claim, Ticket};
use crate::deadline::Deadline;
use crate::outcome::{Failure, Outcome, Safety};
use crate::policy::HEDGES_MAX;
use crate::random::Rng;
use crate::retry::{ATTEMPTS_MAX, Tried};
use crate::service::{Change, Service};
use crate::time::{Duration, Instant, nanos};
use crate::{breaker, budget};

#[cfg(test)]
mod tests;
mod trace;

pub use trace::{Decision, NOTES_MAX, Note, Trace};

/// Attempts of one call that may run at once.
pub const RUNNING_MAX: usize = 1 + HEDGES_MAX as usize;

/// What is known of a call before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether a repeat is safe: see [`crate::idempotency::safety`].
    pub safety: Safety,
    /// Whether the body can be sent again.
    pub replayable: bool,
    /// By when the caller wants an answer.
    pub deadline: Option<Instant>,
    /// Attempts that a caller up the chain made before this one. Above 0 there
    /// are no extra attempts here: one layer in a chain retries.
    pub prior_attempts: u32,
}

impl Request {
    /// A request of this `safety` without a body and without a deadline.
    #[must_use]
    pub const fn new(safety: Safety) -> Self {
        Self { safety, replayable: true, deadline: None, prior_attempts: 0 }
    }
}

/// What made an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The call itself.
    First,
    /// A failure before it.
    Retry,
    /// A slow attempt beside it.
    Hedge,
}

impl Kind {
    /// A stable word for logs, metrics and traces.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
        }
    }
}

/// An attempt to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number in this call, from 1.
    pub number: u32,
    /// Where it goes: an index into [`Service::endpoints`].
    pub endpoint: usize,
    /// What made it.
    pub kind: Kind,
    /// When it must have its response head. Asking [`Call::next`] then gives it up.
    pub deadline: Instant,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make this attempt, then ask again.
    Start(Attempt),
    /// Drop the attempt with this number: it took too long and has been
    /// settled. Then ask again.
    Cancel(u32),
    /// Wait for a permit: ask again when [`Service::granted`] names the ticket, or then.
    Queue {
        /// The place in the queue.
        ticket: Ticket,
        /// When waiting ends.
        until: Instant,
    },
    /// Nothing runs: ask again then.
    Wait {
        /// When the next attempt is due.
        until: Instant,
    },
    /// Attempts run: ask again when one has been settled, or then.
    Idle {
        /// When something is due: a timeout or a hedge. [`Instant::MAX`] where
        /// neither is configured.
        until: Instant,
    },
    /// The call has its end. Drop every attempt but the one named, and
    /// [`Call::finish`] when the answer has been sent.
    Done(End),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As this attempt did: pass on its answer, or, if it brought none, the
    /// error that `outcome` stands for.
    Answered {
        /// The attempt's number.
        number: u32,
        /// How it ended, if that is known already (see [`Call::commit`]).
        outcome: Option<Outcome>,
    },
    /// Without an answer: Selvedge rejected it.
    Rejected(Rejected),
}

/// Why a call was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub reason: Reason,
    /// When it is worth coming again, if that is known.
    pub retry_after: Option<Duration>,
    /// The last attempt that ended before, if there was one.
    pub last: Option<u32>,
}

/// Why a call was rejected. The numbers are in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The deadline has passed, or an attempt could not end before it.
    Deadline,
    /// Every endpoint that could be called has an open breaker.
    CircuitOpen,
    /// There is no endpoint, or all are being drained.
    NoEndpoint,
    /// The bulkhead is full.
    Bulkhead(bulkhead::Reason),
    /// The caller went away.
    Abandoned,
}

impl Reason {
    /// A stable word for logs, metrics and problem documents.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Deadline => "deadline_exceeded",
            Self::CircuitOpen => "circuit_open",
            Self::NoEndpoint => "no_endpoint",
            Self::Bulkhead(reason) => reason.code(),
            Self::Abandoned => "abandoned",
        }
    }
}

/// What an attempt that is out holds.
#[derive(Debug)]
struct Running {
    number: u32,
    endpoint: u32,
    kind: Kind,
    started: Instant,
    deadline: Instant,
    breaker: Option<breaker::Permit>,
    held: Held,
}

/// What goes back when an attempt, its answer included, is over.
#[derive(Debug)]
struct Held {
    endpoint: u32,
    bulkhead: Option<bulkhead::Permit>,
    extra: Option<budget::Extra>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// An attempt is to be made now.
    Ready(Kind),
    /// After a wait.
    Waiting { until: Instant },
    /// When the bulkhead has room.
    Queued { kind: Kind, ticket: Ticket },
    /// Attempts are out.
    Running,
    /// The last one out failed; whether there is another is not decided.
    Failed { number: u32, outcome: Outcome },
    /// Nothing more happens.
    Done(End),
}

/// One call.
///
/// Pass the same [`Service`] to every method, and [`Call::finish`] it
/// whatever happens: a call that is only dropped keeps its permits for ever.
/// Once it is [`Step::Done`] the driver keeps the time: what is left of the
/// [`Call::deadline`] is for the body.
#[derive(Debug)]
pub struct Call {
    request: Request,
    deadline: Deadline,
    phase: Phase,
    /// Attempts made, hedges not counted.
    rounds: u32,
    /// Attempts made, hedges counted: the last number given.
    attempts: u32,
    /// Hedges beside the present attempt.
    hedges: u32,
    hedge_at: Option<Instant>,
    running: [Option<Running>; RUNNING_MAX],
    /// What the answer that is being sent holds.
    answer: Option<Held>,
    /// Leave for the retry to come.
    extra: Option<budget::Extra>,
    /// Room in the bulkhead, granted after a wait.
    room: Option<bulkhead::Permit>,
    tried: Tries,
    backoff: Backoff,
    last: Option<u32>,
    trace: Trace,
}

impl Call {
    /// A call that arrives at `now`.
    #[must_use]
    pub fn begin(now: Instant, service: &Service, request: Request) -> Self {
        if let Some(budget) = service.budget() {
            budget.call(now);
        }
        Self {
            request,
            deadline: service.policy().timeout.deadline(now, request.deadline),
            phase: Phase::Ready(Kind::First),
            rounds: 0,
            attempts: 0,
            hedges: 0,
            hedge_at: None,
            running: [const { None }; RUNNING_MAX],
            answer: None,
            extra: None,
            room: None,
            tried: Tries::default(),
            backoff: Backoff::new(),
            last: None,
            trace: Trace::new(now),
        }
    }

    /// By when it must have ended.
    #[must_use]
    pub const fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// What was decided about it so far.
    #[must_use]
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Attempts made so far, hedges included.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The body turned out too long to be kept: it cannot be sent again.
    pub const fn not_replayable(&mut self) {
        self.request.replayable = false;
    }

    /// What to do now.
    pub fn next(&mut self, now: Instant, service: &Service, rng: &mut impl Rng) -> Step {
        loop {
            if let Phase::Done(end) = self.phase {
                return Step::Done(end);
            }
            if self.deadline.expired(now) {
                self.expire(now, service);
                continue;
            }
            match self.phase {
                Phase::Done(end) => return Step::Done(end),
                Phase::Ready(kind) => {
                    if let Some(attempt) = self.start(now, service, kind, rng) {
                        return Step::Start(attempt);
                    }
                }
                Phase::Waiting { until } if now < until => return Step::Wait { until },
                Phase::Waiting { .. } => self.phase = Phase::Ready(Kind::Retry),
                Phase::Queued { kind, ticket } => {
                    if let Some(until) = self.claim(now, service, kind, ticket) {
                        return Step::Queue { ticket, until };
                    }
                }
                Phase::Failed { number, outcome } => {
                    self.again_or_not(now, service, number, outcome, rng);
                }
                Phase::Running => {
                    if let Some(step) = self.watch(now, service, rng) {
                        return step;
                    }
                }
            }
        }
    }

    /// The attempt with this `number` ended with `outcome`, or its answer is
    /// known to: its latency is the time until now. Ignored if it is not out.
    ///
    /// A good answer (or one that is the caller's own fault) ends the call and
    /// cancels all other attempts; a bad one may be followed by another.
    pub fn settle(&mut self, now: Instant, service: &Service, number: u32, outcome: Outcome) {
        let Some(running) = self.take(number) else { return };
        let held = self.account(now, service, running, outcome);
        if let Phase::Done(_) = self.phase {
            // Committed before; now it is known how it went. What it holds
            // goes back when its answer has been sent.
            self.hold(now, service, held);
            return;
        }
        if matches!(outcome, Outcome::Success | Outcome::ClientFault) {
            self.hold(now, service, held);
            self.answered(now, service, number, Some(outcome));
            return;
        }
        give_back(now, service, held);
        self.last = Some(number);
        if self.running.iter().all(Option::is_none) {
            self.phase = Phase::Failed { number, outcome };
        }
    }

    /// The answer of the attempt with this `number` goes to the caller, though
    /// how it ends is not known yet (a gRPC status comes in trailers): there is
    /// no other attempt after this. Settle it when it is known.
    pub fn commit(&mut self, now: Instant, service: &Service, number: u32) {
        if self.is_out(number) && !matches!(self.phase, Phase::Done(_)) {
            self.answered(now, service, number, None);
        }
    }

    /// The answer has been sent, or the caller went away: everything is given
    /// back, and attempts still out count as cancelled. Doing it twice does no harm.
    pub fn finish(&mut self, now: Instant, service: &Service) {
        self.cancel_all(now, service, None, Outcome::Cancelled);
        if let Phase::Queued { ticket, .. } = self.phase
            && let Some(bulkhead) = service.bulkhead()
        {
            bulkhead.cancel(now, ticket);
        }
        if let Some(held) = self.answer.take() {
            give_back(now, service, held);
        }
        self.drop_leave(now, service);
        if !matches!(self.phase, Phase::Done(_)) {
            self.reject(Reason::Abandoned, None);
        }
    }

    /// Whether the attempt with this `number` is out.
    #[must_use]
    pub fn is_out(&self, number: u32) -> bool {
        self.running.iter().flatten().any(|running| running.number == number)
    }

    // What follows decides; it is called from `next`.

    /// Makes the attempt if everything agrees; otherwise the phase says what
    /// comes instead.
    fn start(
        &mut self,
        now: Instant,
        service: &Service,
        kind: Kind,
        rng: &mut impl Rng,
    ) -> Option<Attempt> {
        if let Err(rejected) = self.deadline.admit(now, needed(now, service)) {
            self.trace.note(now, rejected.into());
            self.drop_leave(now, service);
            self.reject(Reason::Deadline, None);
            return None;
        }
        let Some(place) = self.place(now, service, Avoid::Softly, rng) else {
            self.drop_leave(now, service);
            let (reason, retry_after) = self.want_of_endpoint(now, service);
            self.reject(reason, retry_after);
            return None;
        };
        let Some(bulkhead) = service.bulkhead() else {
            return Some(self.go(now, service, kind, place, None));
        };
        if let Some(permit) = self.room.take().or_else(|| bulkhead.try_admit()) {
            return Some(self.go(now, service, kind, place, Some(permit)));
        }
        // An endpoint is chosen again when there is room: no probe is held up
        // in a queue, and what is best may have changed.
        place.leave(now, service);
        let patience = self.deadline.instant() - needed(now, service);
        match bulkhead.admit(now, patience) {
            bulkhead::Decision::Admitted(permit) => self.room = Some(permit),
            bulkhead::Decision::Queued { ticket, .. } => {
                self.trace.note(now, Decision::Queued);
                self.phase = Phase::Queued { kind, ticket };
            }
            bulkhead::Decision::Rejected(rejected) => self.turn_away(now, service, rejected),
        }
        None
    }

    /// Asks for the place in the queue; answers until when to wait.
    fn claim(
        &mut self,
        now: Instant,
        service: &Service,
        kind: Kind,
        ticket: Ticket,
    ) -> Option<Instant> {
        let bulkhead = service.bulkhead().expect("the call queued at it");
        match bulkhead.claim(now, ticket) {
            Claim::Waiting { until } => return Some(until.min(self.deadline.instant())),
            Claim::Admitted(permit) => {
                self.room = Some(permit);
                self.phase = Phase::Ready(kind);
            }
            Claim::Rejected(rejected) => self.turn_away(now, service, rejected),
        }
        None
    }

    fn turn_away(&mut self, now: Instant, service: &Service, rejected: bulkhead::Rejected) {
        self.trace.note(now, Decision::BulkheadFull(rejected));
        self.drop_leave(now, service);
        self.reject(Reason::Bulkhead(rejected.reason), None);
    }

    /// Gives up what took too long, hedges what is slow, or says how long to wait.
    fn watch(&mut self, now: Instant, service: &Service, rng: &mut impl Rng) -> Option<Step> {
        let late = self.running.iter().flatten().find(|running| running.deadline <= now);
        if let Some(number) = late.map(|running| running.number) {
            self.settle(now, service, number, Outcome::Failure(Failure::Timeout));
            return Some(Step::Cancel(number));
        }
        if self.hedge_at.is_some_and(|at| at <= now) {
            self.hedge_at = None;
            if let Some(attempt) = self.hedge(now, service, rng) {
                return Some(Step::Start(attempt));
            }
        }
        let ends = self.running.iter().flatten().map(|running| running.deadline);
        let until = ends.chain(self.hedge_at).min().expect("an attempt is out");
        Some(Step::Idle { until })
    }

    /// Sends an extra attempt beside those that run, if everything agrees.
    fn hedge(&mut self, now: Instant, service: &Service, rng: &mut impl Rng) -> Option<Attempt> {
        let hedge = service.hedge()?;
        if !self.request.replayable || self.running.iter().all(Option::is_some) {
            return None;
        }
        if let Err(rejected) = self.deadline.admit(now, needed(now, service)) {
            self.trace.note(now, rejected.into());
            return None;
        }
        if let Err(rejected) = hedge.admit(self.request.safety, self.hedges) {
            self.trace.note(now, Decision::NoHedge(rejected));
            return None;
        }
        let attempt = self.extra_allowed(now, service).then(|| self.hedge_place(now, service, rng));
        let Some(Some((place, permit))) = attempt else {
            hedge.abandon();
            self.drop_leave(now, service);
            return None;
        };
        self.hedges += 1;
        Some(self.go(now, service, Kind::Hedge, place, permit))
    }

    /// A place for a hedge: another endpoint, and room at once.
    fn hedge_place(
        &mut self,
        now: Instant,
        service: &Service,
        rng: &mut impl Rng,
    ) -> Option<(Place, Option<bulkhead::Permit>)> {
        let place = self.place(now, service, Avoid::Strictly, rng)?;
        let Some(bulkhead) = service.bulkhead() else { return Some((place, None)) };
        let permit = bulkhead.try_admit();
        if permit.is_none() {
            place.leave(now, service);
            return None;
        }
        Some((place, permit))
    }

    /// Decides whether a call whose last attempt failed is tried again.
    fn again_or_not(
        &mut self,
        now: Instant,
        service: &Service,
        number: u32,
        outcome: Outcome,
        rng: &mut impl Rng,
    ) {
        self.phase = match self.retry_at(now, service, outcome, rng) {
            Some(at) if at <= now => Phase::Ready(Kind::Retry),
            Some(at) => Phase::Waiting { until: at },
            None => Phase::Done(End::Answered { number, outcome: Some(outcome) }),
        };
    }

    /// When to try again; `None` if not.
    fn retry_at(
        &mut self,
        now: Instant,
        service: &Service,
        outcome: Outcome,
        rng: &mut impl Rng,
    ) -> Option<Instant> {
        let retry = service.policy().retry.as_ref()?;
        let Request { safety, replayable, .. } = self.request;
        let tried = Tried { attempts: self.rounds, safety, replayable };
        if let Err(rejected) = retry.admit(&tried, outcome) {
            self.trace.note(now, Decision::NoRetry(rejected));
            return None;
        }
        let wait = retry.wait(&mut self.backoff, outcome, rng);
        if let Err(rejected) = self.deadline.admit(now + wait, needed(now, service)) {
            self.trace.note(now, rejected.into());
            return None;
        }
        // An open breaker is never waited for: its answer would be the same.
        if !self.anyone_to_ask(now, service) {
            return None;
        }
        if !self.extra_allowed(now, service) {
            return None;
        }
        self.trace.note(now, Decision::Retries { wait_ns: nanos(wait) });
        Some(now + wait)
    }

    /// Takes leave for one extra attempt, to be used by the next start.
    fn extra_allowed(&mut self, now: Instant, service: &Service) -> bool {
        if self.request.prior_attempts > 0 {
            self.trace.note(now, Decision::PriorAttempts(self.request.prior_attempts));
            return false;
        }
        let Some(budget) = service.budget() else { return true };
        match budget.admit(now, service.in_flight()) {
            Ok(extra) => {
                self.extra = Some(extra);
                true
            }
            Err(rejected) => {
                self.trace.note(now, Decision::NoBudget(rejected));
                false
            }
        }
    }

    fn anyone_to_ask(&mut self, now: Instant, service: &Service) -> bool {
        let endpoints = service.endpoints();
        let asked = endpoints.iter().any(|one| one.standing(now) != Standing::Excluded);
        if !asked {
            self.want_of_endpoint(now, service);
        }
        asked
    }

    /// Chooses an endpoint whose breaker admits the attempt.
    fn place(
        &mut self,
        now: Instant,
        service: &Service,
        avoid: Avoid,
        rng: &mut impl Rng,
    ) -> Option<Place> {
        let mut softly = avoid == Avoid::Softly;
        let mut tried = if softly { self.worth_avoiding(now, service) } else { self.tried };
        // Another call may take an endpoint's last probe between the look and
        // the question; each such loss excludes the endpoint from the next look.
        for _ in 0..ATTEMPTS_MAX {
            let field = Field { now, service, tried: &tried };
            let Some(pick) = service.balancer().pick(now, &field, rng) else {
                // Nobody is left who was not asked: better the same again than nobody.
                if softly && tried.count > 0 {
                    softly = false;
                    tried = Tries::default();
                    continue;
                }
                return None;
            };
            // An extra attempt is no reason to call an endpoint that is unfit.
            if avoid == Avoid::Strictly && pick.panic {
                return None;
            }
            let endpoint = pick.index as u32;
            let Some(breaker) = service.endpoints()[pick.index].breaker() else {
                return Some(Place { endpoint, panic: pick.panic, breaker: None });
            };
            let (answer, transition) = breaker.admit(now);
            if let Some(transition) = transition {
                service.report(now, pick.index, Change::Breaker(transition));
            }
            match answer {
                Ok(permit) => {
                    return Some(Place { endpoint, panic: pick.panic, breaker: Some(permit) });
                }
                Err(rejected) => {
                    self.trace.note(now, circuit_open(endpoint, rejected));
                    tried.add(endpoint);
                }
            }
        }
        None
    }

    /// The endpoints asked before; none if all others are unfit and one of
    /// these is not.
    fn worth_avoiding(&self, now: Instant, service: &Service) -> Tries {
        if self.tried.count == 0 {
            return self.tried;
        }
        let usable = |tried: bool| {
            service.endpoints().iter().enumerate().any(|(index, endpoint)| {
                self.tried.contains(index as u32) == tried
                    && endpoint.standing(now) == Standing::Usable
            })
        };
        if usable(true) && !usable(false) { Tries::default() } else { self.tried }
    }

    /// Lets an attempt go out.
    fn go(
        &mut self,
        now: Instant,
        service: &Service,
        kind: Kind,
        place: Place,
        permit: Option<bulkhead::Permit>,
    ) -> Attempt {
        let Place { endpoint, panic, breaker } = place;
        service.endpoints()[endpoint as usize].load().start();
        self.attempts += 1;
        self.tried.add(endpoint);
        let number = self.attempts;
        if kind != Kind::Hedge {
            self.rounds += 1;
            self.hedges = 0;
        }
        self.plan_hedge(now, service, kind);
        let deadline = service.policy().timeout.attempt_ends(now, self.deadline);
        let held = Held { endpoint, bulkhead: permit, extra: self.extra.take() };
        let running = Running { number, endpoint, kind, started: now, deadline, breaker, held };
        let slot = self.running.iter_mut().find(|slot| slot.is_none());
        *slot.expect("hedges are asked for only where one is free") = Some(running);
        self.phase = Phase::Running;
        self.trace.note(now, Decision::Started { number, endpoint, kind, panic });
        Attempt { number, endpoint: endpoint as usize, kind, deadline }
    }

    fn plan_hedge(&mut self, now: Instant, service: &Service, kind: Kind) {
        let Some(hedge) = service.hedge() else { return };
        if kind == Kind::First {
            hedge.deposit();
        }
        let more = self.hedges < hedge.config().extra_max;
        let asked = self.request.prior_attempts == 0 && hedge.hedges(self.request.safety);
        self.hedge_at = (more && asked).then(|| now + hedge.delay(now));
    }

    // What follows ends things.

    /// The deadline has come.
    fn expire(&mut self, now: Instant, service: &Service) {
        self.cancel_all(now, service, None, Outcome::Failure(Failure::Timeout));
        if let Phase::Queued { ticket, .. } = self.phase
            && let Some(bulkhead) = service.bulkhead()
        {
            bulkhead.cancel(now, ticket);
        }
        self.drop_leave(now, service);
        self.phase = match self.phase {
            // It has an answer, though a bad one.
            Phase::Failed { number, outcome } => {
                Phase::Done(End::Answered { number, outcome: Some(outcome) })
            }
            _ => {
                let needed = needed(now, service);
                let remaining = Duration::ZERO;
                self.trace.note(now, crate::deadline::Rejected { remaining, needed }.into());
                Phase::Done(End::Rejected(Rejected {
                    reason: Reason::Deadline,
                    retry_after: None,
                    last: self.last,
                }))
            }
        };
    }

    fn answered(&mut self, now: Instant, service: &Service, number: u32, outcome: Option<Outcome>) {
        self.cancel_all(now, service, Some(number), Outcome::Cancelled);
        self.phase = Phase::Done(End::Answered { number, outcome });
    }

    /// Ends every attempt but the one to `keep`.
    fn cancel_all(&mut self, now: Instant, service: &Service, keep: Option<u32>, outcome: Outcome) {
        for slot in 0..RUNNING_MAX {
            let out = self.running[slot].as_ref().is_some_and(|it| Some(it.number) != keep);
            if out && let Some(running) = self.running[slot].take() {
                let held = self.account(now, service, running, outcome);
                give_back(now, service, held);
            }
        }
    }

    /// Tells everyone who learns from it how an attempt ended. What it holds
    /// is handed out, to be given back.
    fn account(
        &mut self,
        now: Instant,
        service: &Service,
        running: Running,
        outcome: Outcome,
    ) -> Held {
        let Running { number, endpoint, kind, started, deadline, breaker, held } = running;
        let elapsed = now.since(started);
        let outcome = self.fair(now, service, outcome, elapsed, deadline);
        let index = endpoint as usize;
        if let (Some(permit), Some(breaker)) = (breaker, service.endpoints()[index].breaker())
            && let Some(transition) = breaker.settle(now, permit, outcome)
        {
            service.report(now, index, Change::Breaker(transition));
        }
        service.observe(now, index, elapsed, outcome);
        if kind == Kind::First
            && let Some(hedge) = service.hedge()
        {
            hedge.settle(now, elapsed, outcome);
        }
        let elapsed_ns = nanos(elapsed);
        self.trace.note(now, Decision::Ended { number, outcome, elapsed_ns });
        held
    }

    /// What an outcome counts as: an attempt that only the call's deadline cut
    /// short, before half of all attempts would have ended, says nothing about
    /// the endpoint.
    fn fair(
        &self,
        now: Instant,
        service: &Service,
        outcome: Outcome,
        elapsed: Duration,
        deadline: Instant,
    ) -> Outcome {
        let timeout = outcome == Outcome::Failure(Failure::Timeout);
        let cut_short = timeout && deadline == self.deadline.instant() && deadline <= now;
        if cut_short && service.usual_latency(now).is_some_and(|usual| elapsed < usual) {
            Outcome::Cancelled
        } else {
            outcome
        }
    }

    fn hold(&mut self, now: Instant, service: &Service, held: Held) {
        if let Some(before) = self.answer.replace(held) {
            give_back(now, service, before);
        }
    }

    /// Gives back what was taken for an attempt that is not made.
    fn drop_leave(&mut self, now: Instant, service: &Service) {
        if let (Some(extra), Some(budget)) = (self.extra.take(), service.budget()) {
            budget.abandon(now, extra);
        }
        if let (Some(room), Some(bulkhead)) = (self.room.take(), service.bulkhead()) {
            bulkhead.release(now, room);
        }
    }

    fn reject(&mut self, reason: Reason, retry_after: Option<Duration>) {
        let last = self.last;
        self.phase = Phase::Done(End::Rejected(Rejected { reason, retry_after, last }));
    }

    /// Why no endpoint may be called, and when to come again.
    fn want_of_endpoint(&mut self, now: Instant, service: &Service) -> (Reason, Option<Duration>) {
        let endpoints = service.endpoints();
        let (mut reason, mut soonest) = (Reason::NoEndpoint, None::<Duration>);
        for (index, endpoint) in endpoints.iter().enumerate() {
            let Some(breaker) = endpoint.breaker() else { continue };
            if endpoint.draining() || endpoint.weight() == 0 {
                continue;
            }
            let first = reason == Reason::NoEndpoint;
            reason = Reason::CircuitOpen;
            // Asking is how a breaker counts whom it turned away.
            match breaker.admit(now).0 {
                Ok(permit) => breaker.abandon(now, permit),
                Err(rejected) => {
                    if first {
                        self.trace.note(now, circuit_open(index as u32, rejected));
                    }
                    let other = rejected.retry_after.into_iter();
                    soonest = other.chain(soonest).min();
                }
            }
        }
        self.trace.note(now, Decision::NoEndpoint { endpoints: endpoints.len() as u32 });
        (reason, soonest)
    }

    fn take(&mut self, number: u32) -> Option<Running> {
        self.running
            .iter_mut()
            .find(|slot| slot.as_ref().is_some_and(|running| running.number == number))?
            .take()
    }
}

/// What an attempt takes at least: the configured minimum, or as long as half
/// of the recent successes took, if that is longer.
fn needed(now: Instant, service: &Service) -> Duration {
    let least = service.policy().deadline.attempt_min;
    service.usual_latency(now).map_or(least, |usual| usual.max(least))
}

const fn circuit_open(endpoint: u32, rejected: breaker::Rejected) -> Decision {
    let breaker::Rejected { state, counts, .. } = rejected;
    Decision::CircuitOpen { endpoint, state, failed: counts.failed, calls: counts.calls }
}

fn give_back(now: Instant, service: &Service, held: Held) {
    let Held { endpoint, bulkhead: permit, extra } = held;
    service.endpoints()[endpoint as usize].load().abandon();
    if let (Some(permit), Some(bulkhead)) = (permit, service.bulkhead()) {
        bulkhead.release(now, permit);
    }
    if let (Some(extra), Some(budget)) = (extra, service.budget()) {
        budget.settle(extra);
    }
}

/// An endpoint, and leave of its breaker to call it.
struct Place {
    endpoint: u32,
    panic: bool,
    breaker: Option<breaker::Permit>,
}

impl Place {
    fn leave(self, now: Instant, service: &Service) {
        let breaker = service.endpoints()[self.endpoint as usize].breaker();
        if let (Some(permit), Some(breaker)) = (self.breaker, breaker) {
            breaker.abandon(now, permit);
        }
    }
}

/// What of the endpoints that were asked before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Avoid {
    /// Another one if there is one.
    Softly,
    /// Another one or none.
    Strictly,
}

/// The endpoints that a call was at.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    endpoints: [u32; ATTEMPTS_MAX as usize],
    count: u32,
}

impl Tries {
    /// The oldest is forgotten when there is no more room.
    fn add(&mut self, endpoint: u32) {
        if !self.contains(endpoint) {
            self.endpoints[(self.count % ATTEMPTS_MAX) as usize] = endpoint;
            self.count += 1;
        }
    }

    fn contains(&self, endpoint: u32) -> bool {
        let count = self.count.min(ATTEMPTS_MAX) as usize;
        self.endpoints[..count].contains(&endpoint)
    }
}

/// The endpoints that one choice is made among.
struct Field<'a> {
    now: Instant,
    service: &'a Service,
    tried: &'a Tries,
}

impl Candidates for Field<'_> {
    fn count(&self) -> usize {
        self.service.endpoints().len()
    }

    fn load(&self, index: usize) -> &Load {
        self.service.endpoints()[index].load()
    }

    fn standing(&self, index: usize) -> Standing {
        if self.tried.contains(index as u32) {
            return Standing::Excluded;
        }
        self.service.endpoints()[index].standing(self.now)
    }

    fn weight(&self, index: usize) -> u32 {
        self.service.endpoints()[index].weight()
    }
}
