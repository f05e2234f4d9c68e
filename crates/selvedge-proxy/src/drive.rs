//! Drives one call: does what its state machine says, and nothing else.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Response;
use selvedge_patterns::bulkhead::Ticket;
use selvedge_patterns::call::{Attempt, End, Reason, Rejected, Step};
use selvedge_patterns::outcome::{Failure, Outcome};
use selvedge_patterns::time::Instant;

use crate::alarm::Alarm;
use crate::body::Body;
use crate::classify;
use crate::journey::Journey;
use crate::pool::{Exchange, Failed, Outbound, Pool, Terms};
use crate::respond::{Kind, Refusal};
use crate::snapshot::Service;
use crate::worker::Worker;

/// What an attempt sends.
pub(crate) trait Source {
    /// The request of `attempt`.
    fn request(&self, attempt: &Attempt, pool: &Pool, now: Instant) -> Result<Outbound, Refusal>;
    /// Whether it can be sent again.
    fn replayable(&self) -> bool;
}

/// How a call ended: what to answer, and what it says about the service.
pub(crate) struct Ended {
    pub(crate) answer: Result<Response<Body>, Refusal>,
    pub(crate) outcome: Outcome,
}

/// An attempt that is out.
struct Running {
    attempt: Attempt,
    started: Instant,
    exchange: Exchange,
}

const ROOM: usize = selvedge_patterns::call::RUNNING_MAX;

/// One call and everything that is out for it.
struct Drive<'a, S> {
    worker: &'a Worker,
    service: &'a Service,
    pools: &'a [Rc<Pool>],
    journey: &'a mut Journey,
    source: &'a S,
    grpc: bool,
    running: [Option<Running>; ROOM],
    /// The last answer that came, good or bad.
    held: Option<(u32, Response<Body>, Outcome)>,
    /// The last attempt that brought none.
    failed: Option<(u32, Failed)>,
}

/// Runs the call of `journey` to its end. The journey keeps what the answer holds.
pub(crate) async fn run<S: Source>(
    worker: &Worker,
    service: &Service,
    pools: &[Rc<Pool>],
    journey: &mut Journey,
    source: &S,
    grpc: bool,
    now: Instant,
) -> Ended {
    let running = [const { None }; ROOM];
    let mut drive =
        Drive { worker, service, pools, journey, source, grpc, running, held: None, failed: None };
    drive.run(now).await
}

impl<S: Source> Drive<'_, S> {
    async fn run(&mut self, mut now: Instant) -> Ended {
        let worker = self.worker;
        let mut alarm = worker.alarms.lend();
        loop {
            match self.next(now) {
                Step::Start(attempt) => {
                    if let Err(refusal) = self.start(now, attempt) {
                        return Ended { answer: Err(refusal), outcome: Outcome::Local };
                    }
                }
                Step::Cancel(number) => self.cancel(now, number),
                Step::Done(end) => return self.end(end),
                Step::Queue { ticket, until } => {
                    let until = self.worker.clock.timer(until);
                    self.queue(ticket, until, &mut alarm).await;
                    now = self.worker.clock.now();
                }
                Step::Wait { until } => {
                    let until = self.worker.clock.timer(until);
                    poll_fn(|cx| alarm.poll(until, cx)).await;
                    now = self.worker.clock.now();
                }
                Step::Idle { until } => {
                    let until = self.worker.clock.timer(until);
                    let ended = poll_fn(|cx| {
                        if let Some(ended) = self.poll_running(cx) {
                            return Poll::Ready(Some(ended));
                        }
                        alarm.poll(until, cx).map(|()| None)
                    });
                    let ended = ended.await;
                    now = self.worker.clock.now();
                    if let Some((running, result)) = ended {
                        self.settle(now, &running, result);
                    }
                }
            }
        }
    }

    fn next(&mut self, now: Instant) -> Step {
        self.journey.next(now).unwrap_or(Step::Done(End::Rejected(Rejected {
            reason: Reason::Abandoned,
            retry_after: None,
            last: None,
        })))
    }

    /// Waits in the bulkhead's queue until let in, or until time is up.
    async fn queue(&mut self, ticket: Ticket, until: tokio::time::Instant, alarm: &mut Alarm<'_>) {
        let mut registered = false;
        let service = self.service;
        poll_fn(|cx| {
            // The grant may have come before the waker was known, so the
            // first look is followed by another question.
            service.wait_for(ticket, cx.waker());
            if std::mem::replace(&mut registered, true) {
                return Poll::Ready(());
            }
            let waits = matches!(self.next(self.worker.clock.now()), Step::Queue { .. });
            if !waits {
                return Poll::Ready(());
            }
            alarm.poll(until, cx)
        })
        .await;
        service.stop_waiting(ticket);
    }

    fn start(&mut self, now: Instant, attempt: Attempt) -> Result<(), Refusal> {
        self.held = None;
        self.journey.started(now, &attempt);
        let pool = self
            .pools
            .get(attempt.endpoint)
            .ok_or_else(|| Refusal::new(Kind::NoEndpoint, "the endpoint is gone"))?;
        let request = self.source.request(&attempt, pool, now)?;
        let connect_within = self.service.live.policy().timeout.connect;
        let terms = Terms { now, connect_within };
        let exchange = pool.send(terms, request);
        if let Some(room) = self.running.iter_mut().find(|room| room.is_none()) {
            *room = Some(Running { attempt, started: now, exchange });
        }
        Ok(())
    }

    fn poll_running(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Option<(Running, Result<Response<Body>, Failed>)> {
        for room in &mut self.running {
            if let Some(running) = room
                && let Poll::Ready(result) = running.exchange.poll(cx)
            {
                return room.take().map(|running| (running, result));
            }
        }
        None
    }

    fn settle(&mut self, now: Instant, running: &Running, result: Result<Response<Body>, Failed>) {
        let number = running.attempt.number;
        let outcome = match &result {
            Ok(response) => classify::response(response, self.grpc),
            Err(failed) => Some(classify::failure(failed)),
        };
        let replayable = self.source.replayable();
        self.journey.ended(now, number, running.started, outcome.unwrap_or(Outcome::Success));
        if outcome.is_none() {
            self.journey.committed(number);
        }
        if !replayable {
            self.journey.not_replayable(now);
        }
        self.journey.settle(now, number, outcome);
        match result {
            Ok(response) => {
                self.held = Some((number, response, outcome.unwrap_or(Outcome::Success)))
            }
            Err(failed) => self.failed = Some((number, failed)),
        }
    }

    fn cancel(&mut self, now: Instant, number: u32) {
        for room in &mut self.running {
            if let Some(running) = room.take_if(|running| running.attempt.number == number) {
                self.journey.ended(
                    now,
                    number,
                    running.started,
                    Outcome::Failure(Failure::Timeout),
                );
            }
        }
    }

    fn end(&mut self, end: End) -> Ended {
        let held = self.held.take();
        match (end, held) {
            (End::Answered { number, .. }, Some((of, response, outcome))) if of == number => {
                Ended { answer: Ok(response), outcome }
            }
            // Rejected on the way to another attempt: what came before is the answer.
            (End::Rejected(_), Some((_, response, outcome))) => {
                Ended { answer: Ok(response), outcome }
            }
            (End::Answered { number, outcome }, _) => {
                let failed = self.failed.take().filter(|(of, _)| *of == number);
                let outcome = outcome.unwrap_or(Outcome::Failure(Failure::Timeout));
                let refusal = match failed {
                    Some((_, failed)) => failed.refusal(),
                    None => Refusal::new(Kind::AttemptTimeout, "no response head came in time"),
                };
                Ended { answer: Err(refusal), outcome }
            }
            (End::Rejected(rejected), None) => {
                Ended { answer: Err(self.refusal(rejected)), outcome: Outcome::Local }
            }
        }
    }

    fn refusal(&mut self, rejected: Rejected) -> Refusal {
        let (kind, detail) = match rejected.reason {
            Reason::Deadline if self.journey.attempts() > 0 => {
                (Kind::DeadlineExceeded, "no answer came before the deadline")
            }
            Reason::Deadline => (Kind::DeadlinePassed, "less time is left than an attempt needs"),
            Reason::CircuitOpen => (Kind::BreakerOpen, "every endpoint's circuit breaker is open"),
            Reason::Bulkhead(reason) => (Kind::BulkheadFull, reason.code()),
            _ => (Kind::NoEndpoint, "none is known, or all are drained"),
        };
        // The last attempt's failure says more than that there was no further one.
        match (kind, self.failed.take()) {
            (Kind::NoEndpoint | Kind::BreakerOpen | Kind::BulkheadFull, Some((_, failed))) => {
                failed.refusal()
            }
            _ => Refusal::new(kind, detail).after(rejected.retry_after),
        }
    }
}

impl Failed {
    /// What the caller is told when there is no further attempt.
    fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(error) => Refusal::new(Kind::Connect, error.kind().to_string()),
            Self::ConnectTimeout => {
                Refusal::new(Kind::Connect, "the connection was not made in time")
            }
            Self::ConnectionsFull => {
                Refusal::new(Kind::ConnectionsFull, "the endpoint's bound is reached")
            }
            Self::Refused => Refusal::new(Kind::Reset, "the request was refused unprocessed"),
            Self::Reset => Refusal::new(Kind::Reset, "the connection ended before a response"),
            Self::Malformed(what) => Refusal::new(Kind::BadResponse, what.clone()),
            Self::RequestBody => Refusal::new(Kind::RequestBody, "it ended early or was malformed"),
        }
    }
}
