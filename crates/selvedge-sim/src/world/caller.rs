//! Calls between services, driven by the production policies.
//!
//! Each gateway, and each instance that calls another service, has a live
//! [`Service`] of its own: breakers, budgets, bulkheads and balancers know what
//! that one caller has seen and nothing else, as in production.

use std::collections::{HashMap, VecDeque};

use selvedge_patterns::breaker;
use selvedge_patterns::bulkhead::Ticket;
use selvedge_patterns::call::{End, Kind as AttemptKind, Request, Step};
use selvedge_patterns::fallback::Choice;
use selvedge_patterns::outcome::{Outcome, Safety};
use selvedge_patterns::random::Rng;
use selvedge_patterns::service::Target;
use selvedge_patterns::time::{Instant, nanos};

use super::{Hop, Job, JobState, Kind, LIVE_MAX, NOBODY, Parent, Ref, World, word};
use crate::draw::{self, Purpose};
use crate::driver::Driver;
use crate::model::Scenario;

/// One caller's way to one service: a gateway's, or a sidecar's.
#[derive(Debug)]
pub(super) struct Caller {
    service: u32,
    entity: u64,
    policy: Option<Box<Driver>>,
    /// When the last good answer to each page of each client came by, where a fallback keeps it.
    kept: HashMap<(u32, u32), Instant>,
    /// Who waits for room in the bulkhead.
    queue: VecDeque<(Ticket, Ref)>,
}

/// Callers by service and origin: gateways first, then every instance of whoever calls.
pub(super) fn build(
    scenario: &Scenario,
    seed: u64,
    first_station: &[u32],
    stations: usize,
) -> (Vec<Caller>, Vec<Vec<u32>>) {
    let origins = scenario.gateways as usize + stations;
    let mut callers = Vec::new();
    let mut caller_of = vec![vec![NOBODY; origins]; scenario.services.len()];
    let mut add = |service: usize, origin: usize| {
        let slot = &mut caller_of[service][origin];
        if *slot == NOBODY {
            *slot = callers.len() as u32;
            callers.push(Caller::new(scenario, seed, service, origin));
        }
    };
    for client in &scenario.clients {
        (0..scenario.gateways as usize).for_each(|gateway| add(client.target, gateway));
    }
    for (service, model) in scenario.services.iter().enumerate() {
        for call in &model.calls {
            for replica in 0..model.replicas {
                add(call.service, (scenario.gateways + first_station[service] + replica) as usize);
            }
        }
    }
    (callers, caller_of)
}

impl Caller {
    fn new(scenario: &Scenario, seed: u64, service: usize, origin: usize) -> Self {
        let entity = draw::entity(seed, 3, (service as u64) << 32 | origin as u64);
        let model = &scenario.services[service];
        let policy = model.policy.as_ref().map(|policy| {
            let targets =
                (0..model.replicas).map(|replica| Target::new(replica.to_string())).collect();
            Box::new(Driver::new(Instant::ZERO, policy, targets, entity))
        });
        let kept = HashMap::new();
        Self { service: service as u32, entity, policy, kept, queue: VecDeque::new() }
    }
}

/// Lengths of timers worth a lane.
pub(super) fn fixed_delays(scenario: &Scenario) -> Vec<u64> {
    let policies = scenario.services.iter().filter_map(|service| service.policy.as_ref());
    policies
        .flat_map(|policy| [policy.timeout.attempt, policy.timeout.total])
        .flatten()
        .map(nanos)
        .collect()
}

impl World<'_> {
    fn instant(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    /// Callers are woken now and then, each at a moment of its own.
    pub(super) fn begin_callers(&mut self) {
        for index in 0..self.callers.len() {
            if self.callers[index].policy.is_some() {
                let every = self.wake_interval(index as u32);
                let first =
                    draw::source(self.callers[index].entity, 0, 0, Purpose::Phase).below(every) + 1;
                self.agenda.push(0, first, word(Kind::CallerWake, index as u32, 0));
            }
        }
    }

    fn wake_interval(&self, caller: u32) -> u64 {
        let checked = self.callers[caller as usize]
            .policy
            .as_ref()
            .is_some_and(|it| it.policy().health.is_some());
        if checked { 100_000_000 } else { 1_000_000_000 }
    }

    /// Lets a caller's policies see that time passes, and makes the health checks that are due.
    pub(super) fn wake_caller(&mut self, caller: u32) {
        let now = self.instant();
        let Caller { service: index, entity, ref policy, .. } = self.callers[caller as usize];
        let Some(service) = policy else { return };
        service.wake(now);
        if service.policy().health.is_some() {
            for endpoint in 0..service.endpoints().len() {
                let mut rng = draw::source(entity, self.now, endpoint as u64, Purpose::Policy);
                let Some(check) = service.check_due(now, endpoint, &mut rng) else { continue };
                let station =
                    &self.stations[self.first_station[index as usize] as usize + endpoint];
                let cut_off = self.weather.partition(self.now, index, endpoint as u32) >= 1.0;
                service.check_settle(now, endpoint, check, station.up && !cut_off, &mut rng);
            }
        }
        if !self.stopping || self.counted_alive > 0 {
            let next = self.now + self.wake_interval(caller);
            self.agenda.push(self.now, next, word(Kind::CallerWake, caller, 0));
        }
    }

    pub(super) fn new_waiting_hop(
        &mut self,
        parent: Parent,
        service: u32,
        origin: u32,
        luck: u64,
        counted: bool,
    ) -> u32 {
        let caller = self.caller_of[service as usize][origin as usize];
        self.new_hop(Hop {
            generation: 0,
            alive: true,
            waiting_for_user: false,
            counted,
            parent,
            edge: 0,
            service,
            caller,
            luck,
            started: self.now,
            deadline: u64::MAX,
            timer_generation: 0,
            timer_at: u64::MAX,
            live: [Ref::NONE; LIVE_MAX],
            asked: 0,
            prior: 0,
            ticket: None,
        })
    }

    /// A call from a job to another service.
    pub(super) fn begin_hop(
        &mut self,
        parent: Parent,
        edge: u8,
        service: u32,
        origin: u32,
        luck: u64,
        deadline: u64,
        counted: bool,
    ) {
        let hop = self.new_waiting_hop(parent, service, origin, luck, counted);
        self.hops[hop as usize].edge = edge;
        self.hops[hop as usize].deadline = deadline;
        if let Parent::Job(job) = parent {
            let caller = &self.jobs[job.id as usize];
            if self.scenario.services[self.stations[caller.station as usize].service as usize]
                .forwards
            {
                self.hops[hop as usize].prior = caller.prior;
            }
            self.jobs[job.id as usize].child =
                Ref { id: hop, generation: self.hops[hop as usize].generation };
        }
        self.launch(hop);
    }

    /// Makes the call that a hop stands for.
    pub(super) fn launch(&mut self, hop: u32) {
        let state = &self.hops[hop as usize];
        let (service, caller, luck) =
            (state.service as usize, &self.callers[state.caller as usize], state.luck);
        self.record.services[service].calls += 1;
        let Some(policy) = &caller.policy else {
            let replicas = self.scenario.services[service].replicas;
            let replica = if replicas == 1 {
                0
            } else {
                draw::source(caller.entity, luck, 0, Purpose::Pick).below(u64::from(replicas))
                    as u32
            };
            self.record.services[service].first_attempts += 1;
            let deadline = state.deadline;
            self.send(hop, replica, 1, deadline);
            return;
        };
        let request = Request {
            deadline: (state.deadline != u64::MAX).then(|| Instant::from_nanos(state.deadline)),
            prior_attempts: state.prior,
            ..Request::new(self.safety(state.parent))
        };
        self.calls[hop as usize] = Some(policy.begin(self.instant(), request));
        self.drive(hop);
    }

    /// A client's word on its own calls; calls between services are taken for reads.
    fn safety(&self, parent: Parent) -> Safety {
        match parent {
            Parent::Client { client, .. } => self.scenario.clients[client as usize].safety,
            Parent::Job(_) => Safety::Safe,
        }
    }

    /// Does what the call says until it waits for something.
    fn drive(&mut self, hop: u32) {
        let now = self.instant();
        loop {
            let state = &mut self.hops[hop as usize];
            let (index, service) = (state.caller as usize, state.service as usize);
            let caller = &self.callers[index];
            state.asked += 1;
            let mut rng =
                draw::source(caller.entity, state.luck, u64::from(state.asked), Purpose::Policy);
            let (Some(call), Some(policy)) = (self.calls[hop as usize].as_mut(), &caller.policy)
            else {
                return;
            };
            match policy.next(now, call, &mut rng) {
                Step::Start(attempt) => {
                    let totals = &mut self.record.services[service];
                    match attempt.kind {
                        AttemptKind::First => totals.first_attempts += 1,
                        AttemptKind::Retry => totals.retries += 1,
                        AttemptKind::Hedge => totals.hedges += 1,
                    }
                    let deadline = attempt.deadline.as_nanos();
                    self.send(hop, attempt.endpoint as u32, attempt.number, deadline);
                }
                Step::Cancel(number) => self.drop_attempts(hop, |job| job.number == number),
                Step::Queue { ticket, until } => {
                    self.wait_in_queue(hop, ticket);
                    self.set_timer(hop, until.as_nanos());
                    break;
                }
                Step::Wait { until } | Step::Idle { until } => {
                    self.set_timer(hop, until.as_nanos());
                    break;
                }
                Step::Done(end) => {
                    self.conclude(hop, end);
                    self.after_policy(index);
                    return;
                }
            }
        }
        self.after_policy(self.hops[hop as usize].caller as usize);
    }

    fn wait_in_queue(&mut self, hop: u32, ticket: Ticket) {
        let state = &mut self.hops[hop as usize];
        if state.ticket != Some(ticket) {
            state.ticket = Some(ticket);
            let reference = Ref { id: hop, generation: state.generation };
            self.callers[state.caller as usize].queue.push_back((ticket, reference));
        }
    }

    /// Whoever got room in the bulkhead goes on.
    fn after_policy(&mut self, caller: usize) {
        let Caller { policy: Some(policy), queue, .. } = &mut self.callers[caller] else { return };
        while let Some(ticket) = policy.granted() {
            if let Some(place) = queue.iter().position(|(waiting, _)| *waiting == ticket)
                && let Some((_, hop)) = queue.remove(place)
            {
                self.granted.push_back(hop);
            }
        }
    }

    pub(super) fn admitted_from_queue(&mut self, hop: Ref) {
        if self.hop_is(hop) && self.calls[hop.id as usize].is_some() {
            self.drive(hop.id);
        }
    }

    fn set_timer(&mut self, hop: u32, at: u64) {
        let state = &mut self.hops[hop as usize];
        if state.timer_at == at || at == u64::MAX {
            return;
        }
        state.timer_at = at;
        state.timer_generation = state.timer_generation.wrapping_add(1);
        let event = word(Kind::HopTimer, hop, state.timer_generation);
        self.agenda.push(self.now, at.max(self.now), event);
    }

    pub(super) fn hop_timer(&mut self, hop: u32, generation: u32) {
        let state = &mut self.hops[hop as usize];
        if state.timer_generation % super::GENERATIONS == generation
            && self.calls[hop as usize].is_some()
        {
            state.timer_at = u64::MAX;
            self.drive(hop);
        }
    }

    fn conclude(&mut self, hop: u32, end: End) {
        let now = self.instant();
        let caller = self.hops[hop as usize].caller as usize;
        if let (Some(mut call), Some(policy)) =
            (self.calls[hop as usize].take(), &self.callers[caller].policy)
        {
            policy.finish(now, &mut call);
        }
        self.leave_queue(hop);
        self.drop_attempts(hop, |_| true);
        let outcome = match end {
            End::Answered { outcome, .. } => outcome.unwrap_or(Outcome::Success),
            End::Rejected(rejected) => {
                self.count_rejection(self.hops[hop as usize].service, rejected.reason.code());
                Outcome::Local
            }
        };
        let good = outcome == Outcome::Success;
        let stood_in = self.stands_in(hop, outcome);
        self.end_hop(hop, good || stood_in);
    }

    /// Whether a fallback answers instead; a good answer is kept for it.
    fn stands_in(&mut self, hop: u32, outcome: Outcome) -> bool {
        let now = self.instant();
        let state = &self.hops[hop as usize];
        let (parent, luck, service) = (state.parent, state.luck, state.service as usize);
        let (index, safety) = (state.caller as usize, self.safety(parent));
        let Some(driver) = &self.callers[index].policy else { return false };
        if driver.policy().fallback.is_none() {
            return false;
        }
        let page = self.page(parent, luck);
        if driver.keeps(safety, outcome) {
            self.callers[index].kept.insert(page, now);
            return false;
        }
        let last_good = self.callers[index].kept.get(&page).copied();
        let stood_in = driver.fall_back(now, safety, outcome, last_good) != Choice::None;
        self.record.services[service].fallbacks += u64::from(stood_in);
        stood_in
    }

    /// What a call asks for: two calls for the same page are the same question.
    fn page(&self, parent: Parent, luck: u64) -> (u32, u32) {
        let Parent::Client { client, .. } = parent else { return (NOBODY, 0) };
        let pages = u64::from(self.scenario.clients[client as usize].pages);
        let drawn = draw::source(u64::from(client), luck, 0, Purpose::Page).below(pages);
        (client, drawn as u32)
    }

    fn leave_queue(&mut self, hop: u32) {
        let state = &mut self.hops[hop as usize];
        if let Some(ticket) = state.ticket.take() {
            self.callers[state.caller as usize].queue.retain(|(waiting, _)| *waiting != ticket);
        }
    }

    fn count_rejection(&mut self, service: u32, code: &'static str) {
        self.service_bin(service, |bin| bin.rejected += 1);
        let rejections = &mut self.record.services[service as usize].rejections;
        match rejections.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => rejections.push((code, 1)),
        }
    }

    /// Attempts that the call no longer wants.
    fn drop_attempts(&mut self, hop: u32, which: impl Fn(&Job) -> bool) {
        let service = self.hops[hop as usize].service as usize;
        for slot in 0..LIVE_MAX {
            let live = self.hops[hop as usize].live[slot];
            if self.job_is(live) && which(&self.jobs[live.id as usize]) {
                self.hops[hop as usize].live[slot] = Ref::NONE;
                self.record.services[service].ended += 1;
                self.forsake(live.id);
            }
        }
    }

    /// Sends one attempt on its way.
    fn send(&mut self, hop: u32, replica: u32, number: u32, deadline: u64) {
        let state = &mut self.hops[hop as usize];
        let service = state.service as usize;
        let slot = state
            .live
            .iter()
            .position(|live| live.id == NOBODY)
            .expect("fewer attempts alive than there is room for");
        let job = Job {
            generation: 0,
            timer_generation: 0,
            state: JobState::Travelling,
            counted: false,
            caller_gone: false,
            cache_missed: false,
            edge: 0,
            number,
            prior: state.prior + number - 1,
            station: self.first_station[service] + replica,
            hop: Ref { id: hop, generation: state.generation },
            child: Ref::NONE,
            luck: draw::child(state.luck, u64::from(number), 7),
            arrived: self.now,
            started: self.now,
            finish_at: 0,
            deadline,
            work_ns: 0,
            outcome: Outcome::Success,
        };
        let id = self.new_job(job);
        let generation = self.jobs[id as usize].generation;
        self.hops[hop as usize].live[slot] = Ref { id, generation };
        let network = self.networks[service];
        if network == 0 {
            self.arrive(id);
        } else {
            self.agenda.push(self.now, self.now + network, word(Kind::Deliver, id, generation));
        }
    }

    /// The answer to an attempt has reached the caller.
    pub(super) fn settle(&mut self, job: Ref) {
        if !self.job_is(job) {
            return;
        }
        let Job { hop, outcome, number, .. } = self.jobs[job.id as usize];
        self.free_job(job.id);
        if !self.hop_is(hop) {
            return;
        }
        let now = self.instant();
        let state = &mut self.hops[hop.id as usize];
        if let Some(slot) = state.live.iter().position(|live| *live == job) {
            state.live[slot] = Ref::NONE;
        }
        let caller = state.caller as usize;
        self.record.services[state.service as usize].ended += 1;
        match (self.calls[hop.id as usize].as_mut(), &self.callers[caller].policy) {
            (Some(call), Some(policy)) => {
                policy.settle(now, call, number, outcome);
                self.drive(hop.id);
            }
            _ => self.end_hop(hop.id, outcome == Outcome::Success),
        }
    }

    /// A call that the gateway's rate limit turns away.
    pub(super) fn limited(&mut self, hop: u32) {
        let service = self.hops[hop as usize].service;
        self.record.services[service as usize].calls += 1;
        self.count_rejection(service, "rate_limited");
        self.end_hop(hop, false);
    }

    fn end_hop(&mut self, hop: u32, good: bool) {
        let state = &mut self.hops[hop as usize];
        state.timer_at = u64::MAX;
        state.timer_generation = state.timer_generation.wrapping_add(1);
        let (parent, edge) = (state.parent, state.edge);
        let totals = &mut self.record.services[state.service as usize];
        if good {
            totals.calls_ok += 1;
        } else {
            totals.calls_failed += 1;
        }
        match parent {
            Parent::Client { .. } => self.client_answered(hop, good),
            Parent::Job(job) => {
                self.free_hop(hop);
                self.child_ended(job, edge, good);
            }
        }
    }

    /// The caller goes away: its attempts are told, and the call counts as failed.
    pub(super) fn give_up(&mut self, hop: u32) {
        let now = self.instant();
        let (service, caller) =
            (self.hops[hop as usize].service as usize, self.hops[hop as usize].caller as usize);
        self.record.services[service].calls_failed += 1;
        if let (Some(mut call), Some(policy)) =
            (self.calls[hop as usize].take(), &self.callers[caller].policy)
        {
            policy.finish(now, &mut call);
        }
        self.leave_queue(hop);
        self.drop_attempts(hop, |_| true);
        self.after_policy(caller);
    }

    /// A hop whose parent was cancelled.
    pub(super) fn abandon_hop(&mut self, hop: u32) {
        self.give_up(hop);
        self.free_hop(hop);
    }

    /// The share of breakers not closed, and the sum of concurrency limits, over the callers of a service.
    pub(super) fn sample_policies(&self, service: usize) -> (f32, f32) {
        let (mut open, mut breakers, mut limit) = (0u32, 0u32, 0u32);
        for caller in self.callers.iter().filter(|caller| caller.service as usize == service) {
            let Some(policy) = &caller.policy else { continue };
            let view = policy.policy();
            limit += view.bulkhead.map_or(0, |bulkhead| bulkhead.max_in_flight);
            if view.breaker.is_none() {
                continue;
            }
            for endpoint in policy.endpoints() {
                if let Some(breaker) = endpoint.breaker() {
                    breakers += 1;
                    let state = breaker.view(self.instant()).state;
                    open += u32::from(!matches!(
                        state,
                        breaker::State::Closed | breaker::State::Disabled
                    ));
                }
            }
        }
        (if breakers == 0 { 0.0 } else { open as f32 / breakers as f32 }, limit as f32)
    }
}
