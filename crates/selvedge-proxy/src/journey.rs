//! One request from its head to the last byte of its answer: what it holds,
//! what is counted about it, and the guarantee that all is given back exactly
//! once, however it ends.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use selvedge_patterns::call::{Attempt, Call, Request, Step};
use selvedge_patterns::deadline::Deadline;
use selvedge_patterns::outcome::{Failure, Outcome};
use selvedge_patterns::time::{Duration, Instant};

use crate::access::{ATTEMPTS_MAX, Record, Tried};
use crate::body::{Cut, Tail};
use crate::classify;
use crate::clock::unix_millis;
use crate::respond::{Kind, Refusal};
use crate::snapshot::Service;
use crate::stale::Keeping;
use crate::telemetry::{self, Calls};
use crate::trace::Trace;
use crate::worker::{Entry, Local, Worker};

/// What a request holds and what is known about it.
#[derive(Debug)]
pub(crate) struct Journey {
    worker: Rc<Worker>,
    local: Rc<Local>,
    /// The connection it came on.
    entry: Rc<Entry>,
    began: Instant,
    route: Option<usize>,
    service: Option<usize>,
    call: Option<Call>,
    /// The call's number in the journal, if one is kept.
    number: u64,
    /// The attempt whose end is learnt from its trailers.
    committed: Option<u32>,
    status: Option<StatusCode>,
    refused: Option<Kind>,
    /// Why the body of the answer broke off.
    cut: Option<Cut>,
    pub(crate) trace: Option<Trace>,
    head_at: Instant,
    /// Filled in only where somebody takes records.
    account: Option<Box<Account>>,
    pub(crate) keeping: Option<Box<Keeping>>,
    over: bool,
}

#[derive(Debug)]
struct Account {
    unix_ms: u64,
    method: Method,
    host: String,
    path: String,
    client: IpAddr,
    request_id: Option<HeaderValue>,
    tried: [Option<Tried>; ATTEMPTS_MAX],
}

impl Journey {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        local: &Rc<Local>,
        entry: &Rc<Entry>,
        began: Instant,
    ) -> Self {
        entry.watch.answer_begins();
        Self {
            worker: worker.clone(),
            local: local.clone(),
            entry: entry.clone(),
            began,
            route: None,
            service: None,
            call: None,
            number: 0,
            committed: None,
            status: None,
            refused: None,
            cut: None,
            trace: None,
            head_at: began,
            account: None,
            keeping: None,
            over: false,
        }
    }

    /// Notes what a record will say, if anybody takes records.
    pub(crate) fn note(&mut self, parts: &http::request::Parts, host: &str, client: IpAddr) {
        if self.worker.shared.access.is_some() {
            self.account = Some(Box::new(Account {
                unix_ms: unix_millis(),
                method: parts.method.clone(),
                host: host.to_owned(),
                path: parts.uri.path().to_owned(),
                client,
                request_id: None,
                tried: [const { None }; ATTEMPTS_MAX],
            }));
        }
    }

    /// It is known to both sides by this id.
    pub(crate) fn identified(&mut self, id: Option<&HeaderValue>) {
        if let Some(account) = &mut self.account {
            account.request_id = id.cloned();
        }
    }

    /// It goes to this service, by this route.
    pub(crate) fn bound_for(&mut self, route: Option<usize>, service: usize) {
        self.route = route;
        self.service = Some(service);
        self.counts(|calls| calls.in_flight.add(1));
    }

    /// Makes the state machine that decides about it; answers its deadline.
    pub(crate) fn begin(&mut self, now: Instant, service: &Service, request: Request) -> Deadline {
        let call = match &self.worker.shared.journal {
            None => Call::begin(now, &service.live, request),
            Some(journal) => {
                let (call, number) =
                    journal.begin(now, &service.config.name, &service.live, request);
                self.number = number;
                call
            }
        };
        self.call.insert(call).deadline()
    }

    /// Asks the state machine, which must have begun, what to do.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Step> {
        let service = &self.local.snapshot.services[self.service?];
        let call = self.call.as_mut()?;
        let mut rng = self.worker.rng.borrow_mut();
        let step = match &self.worker.shared.journal {
            None => call.next(now, &service.live, &mut *rng),
            Some(journal) => {
                let live = (&*service.config.name, &*service.live);
                journal.next(now, live, (self.number, call), &mut *rng)
            }
        };
        service.wake_granted();
        Some(step)
    }

    /// The request's body cannot be sent again.
    pub(crate) fn not_replayable(&mut self, now: Instant) {
        let (Some(call), Some(service)) = (&mut self.call, self.service) else { return };
        match &self.worker.shared.journal {
            None => call.not_replayable(),
            Some(journal) => {
                let service = &self.local.snapshot.services[service].config.name;
                journal.not_replayable(now, service, (self.number, call));
            }
        }
    }

    /// Tells the state machine how an attempt ended; without an outcome, that
    /// its answer goes out before that is known.
    pub(crate) fn settle(&mut self, now: Instant, number: u32, outcome: Option<Outcome>) {
        let (Some(call), Some(service)) = (&mut self.call, self.service) else { return };
        let service = &self.local.snapshot.services[service];
        match (&self.worker.shared.journal, outcome) {
            (None, Some(outcome)) => call.settle(now, &service.live, number, outcome),
            (None, None) => call.commit(now, &service.live, number),
            (Some(journal), outcome) => {
                let live = (&*service.config.name, &*service.live);
                journal.settle(now, live, (self.number, call), number, outcome);
            }
        }
        service.wake_granted();
    }

    fn finish(&mut self, now: Instant) {
        let (Some(call), Some(service)) = (&mut self.call, self.service) else { return };
        let service = &self.local.snapshot.services[service];
        match &self.worker.shared.journal {
            None => call.finish(now, &service.live),
            Some(journal) => {
                let live = (&*service.config.name, &*service.live);
                journal.finish(now, live, (self.number, call));
            }
        }
        service.wake_granted();
    }

    /// When the call must have ended, if ever.
    pub(crate) fn until(&self) -> Option<Instant> {
        let until = self.call.as_ref()?.deadline().instant();
        (until != Instant::MAX).then_some(until)
    }

    /// Attempts made so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.call.as_ref().map_or(0, Call::attempts)
    }

    pub(crate) fn call_trace(&self) -> Option<&selvedge_patterns::call::Trace> {
        self.call.as_ref().map(Call::trace)
    }

    pub(crate) fn started(&mut self, now: Instant, attempt: &Attempt) {
        use selvedge_patterns::call::Kind;
        self.service_counts(|calls| match attempt.kind {
            Kind::First => {}
            Kind::Retry => calls.retries.add(1),
            Kind::Hedge => calls.hedges.add(1),
        });
        let (began, service) = (self.began, self.service);
        let address = || {
            let live = &self.local.snapshot.services[service?].live;
            Some(live.endpoints().get(attempt.endpoint)?.address().clone())
        };
        if self.account.is_some()
            && let Some(endpoint) = address()
            && let Some(account) = &mut self.account
            && let Some(place) = account.tried.get_mut(attempt.number as usize - 1)
        {
            *place = Some(Tried {
                endpoint,
                kind: attempt.kind,
                outcome: None,
                began_after: now.since(began),
                took: None,
            });
        }
    }

    /// An attempt ended, or its answer's head is there.
    pub(crate) fn ended(&mut self, now: Instant, number: u32, started: Instant, outcome: Outcome) {
        self.service_counts(|calls| {
            calls.attempts[telemetry::outcome_index(outcome)].add(1);
            calls.attempt_duration.observe(now.since(started));
        });
        let place = self.account.as_mut().and_then(|a| a.tried.get_mut(number as usize - 1));
        if let Some(Some(tried)) = place {
            tried.outcome = Some(outcome);
            tried.took = Some(now.since(started));
        }
    }

    /// What `number` came to will be known from its trailers.
    pub(crate) fn committed(&mut self, number: u32) {
        self.committed = Some(number);
    }

    /// What is answered.
    pub(crate) fn answered(&mut self, status: StatusCode, refusal: Option<&Refusal>) {
        self.status = Some(status);
        self.refused = refusal.map(|refusal| refusal.kind);
        if self.account.is_some() {
            self.head_at = self.worker.clock.now();
        }
        if let Some(refusal) = refusal {
            let at = refusal.kind.index();
            match self.service {
                Some(_) => self.service_counts(|calls| calls.local[at].add(1)),
                None => self.worker.counts.refused[at].add(1),
            }
        }
    }

    pub(crate) fn fell_back(&self, stale: bool) {
        self.service_counts(|calls| {
            if stale { calls.fallback_stale.add(1) } else { calls.fallback_static.add(1) }
        });
    }

    fn service_counts(&self, count: impl FnOnce(&Calls)) {
        if let Some(service) = self.service {
            count(&self.local.counts.services[service]);
        }
    }

    fn counts(&self, count: impl Fn(&Calls)) {
        if let Some(route) = self.route {
            count(&self.local.counts.routes[route]);
        }
        self.service_counts(count);
    }

    fn settle_committed(&mut self, now: Instant, outcome: Outcome) {
        if let Some(number) = self.committed.take() {
            self.settle(now, number, Some(outcome));
        }
    }

    fn close(&mut self, bytes: u64, whole: bool) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.entry.watch.answer_ends();
        let now = self.worker.clock.now();
        self.settle_committed(now, Outcome::Cancelled);
        self.finish(now);
        if let Some(keeping) = self.keeping.take().filter(|_| whole) {
            keeping.done(now);
        }
        let class = self.status.map_or(0, |status| usize::from(status.as_u16() / 100).min(5));
        let took = now.since(self.began);
        self.counts(|calls| {
            calls.in_flight.sub(1);
            calls.classes[class].add(1);
            calls.duration.observe(took);
            calls.bytes.add(bytes);
        });
        self.hand_over(now, bytes, whole);
    }

    fn hand_over(&mut self, now: Instant, bytes: u64, whole: bool) {
        let (Some(account), Some(sink)) = (self.account.take(), &self.worker.shared.access) else {
            return;
        };
        let config = &self.local.snapshot.config;
        let Account { unix_ms, method, host, path, client, request_id, tried } = *account;
        let last = tried.iter().flatten().last().and_then(|tried| tried.outcome);
        let reason = match (self.refused, self.status) {
            (Some(kind), _) => kind.reason(),
            (None, None) => "client_gone",
            (None, Some(_)) if !whole => self.cut.unwrap_or(Cut::Upstream).word(),
            (None, Some(_)) => {
                last.map_or("answered", |o| telemetry::OUTCOMES[telemetry::outcome_index(o)])
            }
        };
        let record = Record {
            began_unix_ms: unix_ms,
            route: self.route.map(|at| config.routes[at].name.as_str().into()),
            service: self.service.map(|at| config.services[at].name.as_str().into()),
            method: Some(method),
            host,
            path,
            status: self.status,
            reason,
            code: self.refused.map(Kind::code),
            attempts: self.call.as_ref().map_or(0, Call::attempts),
            tried,
            head_after: self.head_at.since(self.began),
            total: now.since(self.began),
            bytes,
            whole,
            trace: self.trace,
            request_id,
            client,
        };
        if !sink.offer(record) {
            self.worker.counts.records_dropped.add(1);
        }
    }
}

/// Counts a request whose head was refused before there was a request, and
/// leaves a record of it. `status` is what was answered, if anything was.
pub(crate) fn refused_unread(
    worker: &Worker,
    entry: &Entry,
    kind: Kind,
    status: Option<StatusCode>,
) {
    worker.counts.refused[kind.index()].add(1);
    let Some(sink) = &worker.shared.access else { return };
    let record = Record {
        began_unix_ms: unix_millis(),
        route: None,
        service: None,
        method: None,
        host: String::new(),
        path: String::new(),
        status,
        reason: kind.reason(),
        code: Some(kind.code()),
        attempts: 0,
        tried: [const { None }; ATTEMPTS_MAX],
        head_after: Duration::ZERO,
        total: Duration::ZERO,
        bytes: 0,
        whole: status.is_some(),
        trace: None,
        request_id: None,
        client: entry.peer.ip,
    };
    if !sink.offer(record) {
        worker.counts.records_dropped.add(1);
    }
}

impl Tail for Journey {
    fn data(&mut self, data: &Bytes) {
        if let Some(keeping) = &mut self.keeping
            && !keeping.add(data)
        {
            self.keeping = None;
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.committed.is_some() {
            let now = self.worker.clock.now();
            let outcome = classify::grpc(trailers).unwrap_or(Outcome::Success);
            self.settle_committed(now, outcome);
        }
    }

    fn end(&mut self, bytes: u64, whole: bool) {
        if !whole && self.committed.is_some() && self.status.is_some() {
            // The caller may be the one who left: that says nothing about the endpoint.
            let now = self.worker.clock.now();
            self.settle_committed(now, Outcome::Cancelled);
        }
        self.close(bytes, whole);
    }

    fn failed(&mut self, cut: Cut) {
        self.cut = Some(cut);
        let now = self.worker.clock.now();
        let outcome = match cut {
            Cut::Upstream => Outcome::Failure(Failure::Reset),
            Cut::Silent => Outcome::Failure(Failure::Timeout),
            // The time was the caller's; that says nothing about the endpoint.
            Cut::Late => Outcome::Cancelled,
        };
        self.settle_committed(now, outcome);
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        self.close(0, false);
    }
}

/// Shared by all workers: the wakers of calls that queue for a bulkhead.
pub(crate) type Waiting =
    Arc<std::sync::Mutex<Vec<(selvedge_patterns::bulkhead::Ticket, std::task::Waker)>>>;
