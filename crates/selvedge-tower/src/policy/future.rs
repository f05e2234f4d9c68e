//! Drives one [`Call`]: starts, drops and awaits attempts as it says.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use selvedge_patterns::call::{self, Attempt, Call, End, Step};
use selvedge_patterns::deadline::Deadline;
use selvedge_patterns::time::Instant;

use super::{Endpoints, State};
use crate::classify::Classify;
use crate::clock::{Clock, Frame};
use crate::error::{BoxError, Error, Rejected};
use crate::oneshot::Oneshot;
use crate::random::ThreadRng;
use crate::timer::Timer;

type ServiceOf<E> = <E as Endpoints>::Service;
type ResponseOf<E, Request> = <ServiceOf<E> as tower_service::Service<Request>>::Response;

/// The call, and what it was begun on. Dropped, the call gives everything back.
struct Live<C> {
    state: Arc<State<C>>,
    call: Call,
}

impl<C> Drop for Live<C> {
    fn drop(&mut self) {
        let now = Clock::process().now();
        self.call.finish(now, &self.state.service);
        self.state.tidy(now);
    }
}

pin_project_lite::pin_project! {
    /// The response to a call under a policy, or why there is none.
    pub struct ResponseFuture<E: Endpoints, C, Request>
    where
        E::Service: tower_service::Service<Request>,
    {
        // Before `live`: what runs is dropped before the call gives back what it held.
        #[pin]
        first: Option<Oneshot<E::Service, Request>>,
        first_number: u32,
        // A box each: hedges come only when something is slow.
        hedges: Vec<(u32, Pin<Box<Oneshot<E::Service, Request>>>)>,
        // How the last attempt that ended did.
        last: Option<(u32, Result<ResponseOf<E, Request>, Error>)>,
        endpoints: E,
        request: Option<Request>,
        #[pin]
        timer: Timer,
        live: Live<C>,
    }
}

impl<E, C, Request> ResponseFuture<E, C, Request>
where
    E: Endpoints,
    E::Service: tower_service::Service<Request>,
    C: Classify<Request, ResponseOf<E, Request>>,
{
    pub(super) fn new(
        state: Arc<State<C>>,
        endpoints: E,
        request: Request,
        deadline: Deadline,
    ) -> Self {
        let told = call::Request {
            deadline: (deadline != Deadline::NONE).then(|| deadline.instant()),
            replayable: state.copies,
            ..call::Request::new(state.classify.safety(&request))
        };
        let call = Call::begin(Clock::process().now(), &state.service, told);
        Self {
            first: None,
            first_number: 0,
            hedges: Vec::new(),
            last: None,
            endpoints,
            request: Some(request),
            timer: Timer::default(),
            live: Live { state, call },
        }
    }
}

impl<E: Endpoints, C, Request> fmt::Debug for ResponseFuture<E, C, Request>
where
    E::Service: tower_service::Service<Request>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("call", &self.live.call).finish_non_exhaustive()
    }
}

impl<E, C, Request> Future for ResponseFuture<E, C, Request>
where
    E: Endpoints,
    E::Service: tower_service::Service<Request>,
    <E::Service as tower_service::Service<Request>>::Error: Into<BoxError>,
    C: Classify<Request, ResponseOf<E, Request>>,
{
    type Output = Result<ResponseOf<E, Request>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let _frame = Frame::enter();
        let mut now = Clock::process().now();
        let mut registered = false;
        self.as_mut().poll_attempts(context, now);
        loop {
            let this = self.as_mut().project();
            let service = &this.live.state.service;
            let until = match this.live.call.next(now, service, &mut ThreadRng) {
                Step::Start(attempt) => {
                    self.as_mut().start(&attempt, now);
                    self.as_mut().poll_attempts(context, now);
                    continue;
                }
                Step::Cancel(number) => {
                    self.as_mut().cancel(number);
                    continue;
                }
                Step::Done(end) => return Poll::Ready(self.end(now, end)),
                Step::Queue { ticket, .. } if !registered => {
                    this.live.state.wakers.register(ticket, context.waker());
                    registered = true;
                    continue;
                }
                Step::Queue { until, .. } | Step::Wait { until } | Step::Idle { until } => until,
            };
            if until == Instant::MAX || this.timer.poll_at(context, until).is_pending() {
                return Poll::Pending;
            }
            // The shared reading of the clock may be a little older than the timer's.
            now = now.max(until);
        }
    }
}

impl<E, C, Request> ResponseFuture<E, C, Request>
where
    E: Endpoints,
    E::Service: tower_service::Service<Request>,
    <E::Service as tower_service::Service<Request>>::Error: Into<BoxError>,
    C: Classify<Request, ResponseOf<E, Request>>,
{
    /// Polls what runs and settles what has ended.
    fn poll_attempts(self: Pin<&mut Self>, context: &mut Context<'_>, now: Instant) {
        let mut this = self.project();
        if let Some(attempt) = this.first.as_mut().as_pin_mut()
            && let Poll::Ready(result) = attempt.poll(context)
        {
            this.first.set(None);
            let result = result.map_err(Error::from_service);
            keep(this.live, this.last, now, *this.first_number, result);
        }
        let mut index = 0;
        while let Some((number, attempt)) = this.hedges.get_mut(index) {
            let Poll::Ready(result) = attempt.as_mut().poll(context) else {
                index += 1;
                continue;
            };
            let number = *number;
            drop(this.hedges.swap_remove(index));
            keep(this.live, this.last, now, number, result.map_err(Error::from_service));
        }
    }

    fn start(self: Pin<&mut Self>, attempt: &Attempt, now: Instant) {
        let mut this = self.project();
        let Some(request) = this.request.take() else {
            // Said to be replayable and then not copied: it ends here.
            this.live.call.settle(
                now,
                &this.live.state.service,
                attempt.number,
                selvedge_patterns::outcome::Outcome::Local,
            );
            return;
        };
        if this.live.state.copies {
            *this.request = this.live.state.classify.replay(&request);
            if this.request.is_none() {
                this.live.call.not_replayable();
            }
        }
        let running = Oneshot::new(this.endpoints.endpoint(attempt.endpoint), request);
        if this.first.is_none() {
            this.first.set(Some(running));
            *this.first_number = attempt.number;
        } else {
            this.hedges.push((attempt.number, Box::pin(running)));
        }
    }

    fn cancel(self: Pin<&mut Self>, number: u32) {
        let mut this = self.project();
        if *this.first_number == number {
            this.first.set(None);
        }
        this.hedges.retain(|(running, _)| *running != number);
    }

    fn end(self: Pin<&mut Self>, now: Instant, end: End) -> Result<ResponseOf<E, Request>, Error> {
        let mut this = self.project();
        this.first.set(None);
        this.hedges.clear();
        let elapsed = now.since(this.live.call.trace().began());
        match (end, this.last.take()) {
            (End::Answered { number, .. }, Some((last, result))) if number == last => result,
            (End::Answered { .. }, _) => Err(Error::TimedOut {
                limit: this.live.state.service.policy().timeout.attempt.unwrap_or(elapsed),
            }),
            (End::Rejected(rejected), _)
                if rejected.reason == call::Reason::Deadline && this.live.call.attempts() > 0 =>
            {
                Err(Error::DeadlinePassed { elapsed })
            }
            (End::Rejected(rejected), _) => Err(Error::Rejected(Rejected::Call(rejected))),
        }
    }
}

/// An attempt ended: the call is told how, and the answer kept until it says
/// which one it takes.
fn keep<C, Request, Response>(
    live: &mut Live<C>,
    last: &mut Option<(u32, Result<Response, Error>)>,
    now: Instant,
    number: u32,
    result: Result<Response, Error>,
) where
    C: Classify<Request, Response>,
{
    let outcome = live.state.classify.outcome(result.as_ref());
    live.call.settle(now, &live.state.service, number, outcome);
    *last = Some((number, result));
}
