//! Calls between services, and the policies that drive them.

use selvedge_patterns::outcome::Outcome;
use selvedge_patterns::random::Rng;

use super::{Hop, Job, JobState, Kind, LIVE_MAX, NOBODY, Parent, Ref, World, word};
use crate::draw::{self, Purpose};
use crate::model::Scenario;

/// One caller's way to one service: a gateway's, or a sidecar's.
#[derive(Debug)]
pub(super) struct Caller {
    service: u32,
    entity: u64,
}

/// How a hop decides what to do next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Drive {
    /// One attempt at an instance picked at random, without any policy.
    Direct,
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
            let entity = draw::entity(seed, 3, (service as u64) << 32 | origin as u64);
            callers.push(Caller { service: service as u32, entity });
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

/// Lengths of timers worth a lane.
pub(super) fn fixed_delays(_scenario: &Scenario) -> Vec<u64> {
    Vec::new()
}

impl World<'_> {
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
            live: [Ref::NONE; LIVE_MAX],
            policy: Drive::Direct,
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
            self.jobs[job.id as usize].child =
                Ref { id: hop, generation: self.hops[hop as usize].generation };
        }
        self.launch(hop);
    }

    /// Makes the call that a hop stands for.
    pub(super) fn launch(&mut self, hop: u32) {
        let state = &self.hops[hop as usize];
        let (service, caller, luck) = (state.service, state.caller, state.luck);
        self.record.services[service as usize].calls += 1;
        match state.policy {
            Drive::Direct => {
                let replicas = self.scenario.services[service as usize].replicas;
                let entity = self.callers[caller as usize].entity;
                let replica = if replicas == 1 {
                    0
                } else {
                    draw::source(entity, luck, 0, Purpose::Pick).below(u64::from(replicas)) as u32
                };
                self.record.services[service as usize].first_attempts += 1;
                self.send(hop, replica, 1);
            }
        }
    }

    /// Sends one attempt on its way.
    fn send(&mut self, hop: u32, replica: u32, number: u32) {
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
            station: self.first_station[service] + replica,
            hop: Ref { id: hop, generation: state.generation },
            child: Ref::NONE,
            luck: draw::child(state.luck, u64::from(number), 7),
            arrived: self.now,
            started: self.now,
            finish_at: 0,
            deadline: state.deadline,
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
        let (hop, outcome) = (self.jobs[job.id as usize].hop, self.jobs[job.id as usize].outcome);
        self.free_job(job.id);
        if !self.hop_is(hop) {
            return;
        }
        let state = &mut self.hops[hop.id as usize];
        if let Some(slot) = state.live.iter().position(|live| *live == job) {
            state.live[slot] = Ref::NONE;
        }
        self.record.services[state.service as usize].ended += 1;
        match self.hops[hop.id as usize].policy {
            Drive::Direct => self.end_hop(hop.id, outcome == Outcome::Success),
        }
    }

    fn end_hop(&mut self, hop: u32, good: bool) {
        let state = &self.hops[hop as usize];
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
        let service = self.hops[hop as usize].service as usize;
        self.record.services[service].calls_failed += 1;
        for slot in 0..LIVE_MAX {
            let live = std::mem::replace(&mut self.hops[hop as usize].live[slot], Ref::NONE);
            if self.job_is(live) {
                self.record.services[service].ended += 1;
                self.forsake(live.id);
            }
        }
    }

    /// A hop whose parent was cancelled.
    pub(super) fn abandon_hop(&mut self, hop: u32) {
        self.give_up(hop);
        self.free_hop(hop);
    }

    /// The share of breakers not closed, and the sum of adaptive limits, over the callers of a service.
    pub(super) fn sample_policies(&self, service: usize) -> (f32, f32) {
        let _ = self.callers.iter().filter(|caller| caller.service as usize == service).count();
        (0.0, 0.0)
    }
}
