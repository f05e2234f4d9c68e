//! Instances of services: slots, a queue, and the work.

use std::collections::VecDeque;

use selvedge_patterns::outcome::{Failure, Outcome};
use selvedge_patterns::random::Rng;
use selvedge_patterns::time::{Duration, nanos};

use super::{JobState, Kind, Level, Parent, Ref, World, word};
use crate::codel::CoDel;
use crate::draw::{self, Purpose};
use crate::model::{Discipline, OnDisconnect, Scenario};

/// One instance.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) service: u32,
    pub(super) replica: u32,
    pub(super) slots: u32,
    /// Share of full speed at which a slot works.
    pub(super) speed: f64,
    pub(super) up: bool,
    pub(super) cold_since: Option<u64>,
    pub(super) busy: u32,
    pub(super) waiting: u32,
    queue: VecDeque<u32>,
    codel: CoDel,
    pub(super) present: Level,
    pub(super) working: Level,
    pub(super) sojourns: u128,
    /// How warm its cache is, 0 to 1.
    pub(super) warmth: f64,
}

pub(super) fn build(scenario: &Scenario) -> (Vec<Station>, Vec<u32>) {
    let mut stations = Vec::new();
    let mut first = Vec::new();
    for (service, model) in scenario.services.iter().enumerate() {
        first.push(stations.len() as u32);
        for replica in 0..model.replicas {
            stations.push(Station {
                service: service as u32,
                replica,
                slots: model.slots,
                speed: 1.0,
                up: true,
                cold_since: None,
                busy: 0,
                waiting: 0,
                queue: VecDeque::new(),
                codel: CoDel::default(),
                present: Level::default(),
                working: Level::default(),
                sojourns: 0,
                warmth: 1.0,
            });
        }
    }
    (stations, first)
}

impl World<'_> {
    /// A job reaches its instance over the network.
    pub(super) fn deliver(&mut self, id: u32, generation: u32) {
        if self.jobs[id as usize].generation % super::GENERATIONS == generation {
            self.arrive(id);
        }
    }

    /// A job reaches its instance.
    pub(super) fn arrive(&mut self, id: u32) {
        let station = self.jobs[id as usize].station as usize;
        let service = self.stations[station].service;
        let counted = self.counts();
        self.record.services[service as usize].arrived += 1;
        self.record.services[service as usize].counted_arrived += u64::from(counted);
        self.service_bin(service, |bin| bin.arrived += 1);
        let job = &mut self.jobs[id as usize];
        job.arrived = self.now;
        job.counted = counted;
        if self.swallowed(id) {
            self.jobs[id as usize].state = JobState::Lost;
            return;
        }
        let Station { up, busy, slots, waiting, .. } = self.stations[station];
        if !up {
            self.refuse(id, Outcome::Failure(Failure::Connect));
        } else if busy < slots && waiting == 0 {
            self.enter(id);
            self.start(id);
        } else if self.scenario.services[service as usize]
            .queue
            .cap
            .is_some_and(|cap| waiting >= cap)
        {
            self.refuse(id, Outcome::Overload { retry_after: None });
        } else {
            self.enter(id);
            self.jobs[id as usize].state = JobState::Queued;
            let station = &mut self.stations[station];
            station.waiting += 1;
            station.queue.push_back(id);
        }
    }

    fn swallowed(&self, id: u32) -> bool {
        let job = &self.jobs[id as usize];
        let station = &self.stations[job.station as usize];
        let share = self.weather.partition(self.now, station.service, station.replica);
        share > 0.0 && {
            let entity = self.entities[station.service as usize];
            draw::source(entity, job.luck, u64::from(job.number), Purpose::Injected).unit() < share
        }
    }

    fn enter(&mut self, id: u32) {
        let station = &mut self.stations[self.jobs[id as usize].station as usize];
        station.present.set(self.now, station.present.value + 1);
    }

    fn leave(&mut self, id: u32) {
        let job = &self.jobs[id as usize];
        let station = &mut self.stations[job.station as usize];
        station.present.set(self.now, station.present.value - 1);
        station.sojourns += u128::from(self.now - job.arrived);
    }

    /// Turned away before any work was done.
    fn refuse(&mut self, id: u32, outcome: Outcome) {
        let job = &self.jobs[id as usize];
        let service = self.stations[job.station as usize].service;
        if job.counted {
            self.record.services[service as usize].counted_refused += 1;
        }
        self.service_bin(service, |bin| bin.refused += 1);
        self.reply(id, outcome);
    }

    fn start(&mut self, id: u32) {
        let job = &self.jobs[id as usize];
        let index = job.station as usize;
        let (luck, number, counted, arrived) =
            (job.luck, u64::from(job.number), job.counted, job.arrived);
        let station = &mut self.stations[index];
        station.busy += 1;
        station.working.set(self.now, u64::from(station.busy));
        let (busy, service) = (station.busy, station.service);
        if counted {
            let totals = &mut self.record.services[service as usize];
            totals.waits += 1;
            totals.waited += u64::from(self.now > arrived);
            totals.wait_sum += u128::from(self.now - arrived);
        }
        let model = &self.scenario.services[service as usize];
        let entity = self.entities[service as usize];
        let station = &self.stations[index];
        let mut time = model.time.draw(&mut draw::source(entity, luck, number, Purpose::Demand));
        time *= model.slowdown.factor(busy) / station.speed;
        time *= self.weather.latency(self.now, service, station.replica);
        if let (Some(cold), Some(since)) = (model.cold_start, station.cold_since) {
            let lasts = nanos(cold.lasts) as f64;
            let warmed = ((self.now - since) as f64 / lasts.max(1.0)).min(1.0);
            time *= cold.factor + (1.0 - cold.factor) * warmed;
        }
        let mut outcome = Outcome::Success;
        if model.errors.fast + model.errors.slow > 0.0 {
            let coin = draw::source(entity, luck, number, Purpose::Error).unit();
            if coin < model.errors.fast {
                time = 0.0;
                outcome = Outcome::Failure(Failure::Server);
            } else if coin < model.errors.fast + model.errors.slow {
                outcome = Outcome::Failure(Failure::Server);
            }
        }
        if let Some((share, slow)) = self.weather.errors(self.now, service, station.replica) {
            let coin = draw::source(entity, luck, number << 1 | 1, Purpose::Injected).unit();
            if coin < share {
                if !slow {
                    time = 0.0;
                }
                outcome = Outcome::Failure(Failure::Server);
            }
        }
        let work = if time < 9e18 { time as u64 } else { 9_000_000_000_000_000_000 };
        let job = &mut self.jobs[id as usize];
        job.state = JobState::Serving;
        job.started = self.now;
        job.work_ns = work;
        job.outcome = outcome;
        job.finish_at = self.now.saturating_add(work);
        let event = word(Kind::Finish, id, job.timer_generation);
        self.agenda.push(self.now, job.finish_at, event);
    }

    /// Its own work is done; what it calls comes next.
    pub(super) fn finish_work(&mut self, id: u32) {
        let job = &self.jobs[id as usize];
        let service = self.stations[job.station as usize].service as usize;
        let model = &self.scenario.services[service];
        if model.calls.is_empty() || job.outcome != Outcome::Success || self.cache_hits(id) {
            self.complete(id);
            return;
        }
        self.jobs[id as usize].state = JobState::Calling;
        if !model.holds_slot {
            self.release(id);
        }
        self.call_next(id);
    }

    fn cache_hits(&mut self, id: u32) -> bool {
        let job = &self.jobs[id as usize];
        let station = &self.stations[job.station as usize];
        let Some(cache) = self.scenario.services[station.service as usize].cache else {
            return false;
        };
        let entity = self.entities[station.service as usize];
        let coin = draw::source(entity, job.luck, u64::from(job.number), Purpose::Cache).unit();
        let hit = coin < cache.hit * station.warmth;
        self.jobs[id as usize].cache_missed = !hit;
        hit
    }

    /// Makes the next call of a job, or completes it.
    fn call_next(&mut self, id: u32) {
        let job = &self.jobs[id as usize];
        let service = self.stations[job.station as usize].service as usize;
        let calls = &self.scenario.services[service].calls;
        let mut edge = job.edge as usize;
        while let Some(call) = calls.get(edge) {
            let made = call.probability >= 1.0 || {
                let entity = self.entities[service];
                draw::source(
                    entity,
                    job.luck,
                    (edge as u64) << 16 | u64::from(job.number),
                    Purpose::Branch,
                )
                .unit()
                    < call.probability
            };
            if made {
                break;
            }
            edge += 1;
        }
        let (station, luck, deadline, number) = (job.station, job.luck, job.deadline, job.number);
        let counted = job.counted;
        self.jobs[id as usize].edge = edge as u8;
        let Some(call) = calls.get(edge) else {
            self.complete(id);
            return;
        };
        let target = call.service as u32;
        let origin = self.scenario.gateways + station;
        let parent = Parent::Job(Ref { id, generation: self.jobs[id as usize].generation });
        let luck = draw::child(luck, edge as u64 + 1, u64::from(number));
        let deadline = if self.scenario.services[service].forwards && deadline != u64::MAX {
            let margin = self.scenario.services[service]
                .policy
                .as_ref()
                .map_or(Duration::ZERO, |it| it.deadline.hop_margin);
            deadline.saturating_sub(nanos(margin))
        } else {
            u64::MAX
        };
        self.begin_hop(parent, edge as u8, target, origin, luck, deadline, counted);
    }

    /// A call made by a job has ended.
    pub(super) fn child_ended(&mut self, job: Ref, edge: u8, good: bool) {
        if !self.job_is(job) {
            return;
        }
        let id = job.id;
        self.jobs[id as usize].child = Ref::NONE;
        let service = self.stations[self.jobs[id as usize].station as usize].service as usize;
        let call = &self.scenario.services[service].calls[edge as usize];
        if !good && !call.optional {
            self.jobs[id as usize].outcome = Outcome::Failure(Failure::Gateway);
            self.complete(id);
            return;
        }
        self.jobs[id as usize].edge += 1;
        self.call_next(id);
    }

    fn complete(&mut self, id: u32) {
        let job = &self.jobs[id as usize];
        let station = &mut self.stations[job.station as usize];
        let service = station.service as usize;
        let good = job.outcome == Outcome::Success;
        if good
            && job.cache_missed
            && let Some(cache) = self.scenario.services[service].cache
        {
            station.warmth += (1.0 - station.warmth) / cache.keys.max(1.0);
        }
        let holds = job.state == JobState::Serving || self.scenario.services[service].holds_slot;
        let (gone, work, outcome) = (job.caller_gone, job.work_ns, job.outcome);
        self.service_bin(service as u32, |bin| {
            bin.busy_ns += work;
            if gone {
                bin.wasted_ns += work;
            }
            if good {
                bin.done += 1;
            } else {
                bin.errors += 1;
            }
        });
        self.leave(id);
        let station = self.jobs[id as usize].station;
        self.jobs[id as usize].state = JobState::Replying;
        if holds {
            self.release_slot(station);
        }
        self.reply(id, outcome);
    }

    /// Lets go of the slot while the job lives on.
    fn release(&mut self, id: u32) {
        self.release_slot(self.jobs[id as usize].station);
    }

    fn release_slot(&mut self, station: u32) {
        let here = &mut self.stations[station as usize];
        here.busy -= 1;
        here.working.set(self.now, u64::from(here.busy));
        self.serve_queue(station);
    }

    /// Starts whoever is next while there are slots.
    pub(super) fn serve_queue(&mut self, index: u32) {
        loop {
            let station = &mut self.stations[index as usize];
            if !station.up || station.busy >= station.slots || station.waiting == 0 {
                // Nobody waits, so whoever is left in the queue has withdrawn.
                if station.waiting == 0 {
                    let withdrawn = std::mem::take(&mut station.queue);
                    for id in &withdrawn {
                        self.free_jobs_of_the_withdrawn(*id);
                    }
                    let mut emptied = withdrawn;
                    emptied.clear();
                    self.stations[index as usize].queue = emptied;
                }
                return;
            }
            let queue = &self.scenario.services[station.service as usize].queue;
            let next = match queue.discipline {
                Discipline::Lifo => station.queue.pop_back(),
                Discipline::Fifo | Discipline::CoDel { .. } => station.queue.pop_front(),
            };
            let Some(id) = next else { return };
            if self.jobs[id as usize].state == JobState::Withdrawn {
                self.free_jobs_of_the_withdrawn(id);
                continue;
            }
            let station = &mut self.stations[index as usize];
            station.waiting -= 1;
            let job = &self.jobs[id as usize];
            let waited = self.now - job.arrived;
            let expired = queue.drop_expired && job.deadline <= self.now;
            let impatient = queue.patience.is_some_and(|patience| waited > nanos(patience));
            let shed = match queue.discipline {
                Discipline::CoDel { target, interval } => station.codel.drops(
                    self.now,
                    waited,
                    station.waiting == 0,
                    nanos(target),
                    nanos(interval),
                ),
                Discipline::Fifo | Discipline::Lifo => false,
            };
            if expired || impatient || shed {
                self.leave(id);
                self.refuse(id, Outcome::Overload { retry_after: None });
            } else {
                self.start(id);
            }
        }
    }

    fn free_jobs_of_the_withdrawn(&mut self, id: u32) {
        if self.jobs[id as usize].state == JobState::Withdrawn {
            self.free_job(id);
        }
    }

    /// The caller no longer waits for this job.
    pub(super) fn forsake(&mut self, id: u32) {
        let job = &mut self.jobs[id as usize];
        if job.caller_gone || job.state == JobState::Free {
            return;
        }
        job.caller_gone = true;
        job.hop = Ref::NONE;
        let station = job.station;
        let service = self.stations[station as usize].service as usize;
        let cancels = self.scenario.services[service].on_disconnect == OnDisconnect::Cancel;
        match self.jobs[id as usize].state {
            JobState::Lost | JobState::Replying => self.free_job(id),
            JobState::Travelling if cancels => self.free_job(id),
            JobState::Queued if cancels => {
                self.leave(id);
                self.jobs[id as usize].state = JobState::Withdrawn;
                self.stations[station as usize].waiting -= 1;
            }
            JobState::Serving if cancels => {
                let done = self.now - self.jobs[id as usize].started;
                self.service_bin(service as u32, |bin| {
                    bin.busy_ns += done;
                    bin.wasted_ns += done;
                });
                self.leave(id);
                self.free_job(id);
                self.release_slot(station);
            }
            JobState::Calling if cancels => {
                let (child, work) = (self.jobs[id as usize].child, self.jobs[id as usize].work_ns);
                self.service_bin(service as u32, |bin| {
                    bin.busy_ns += work;
                    bin.wasted_ns += work;
                });
                self.leave(id);
                self.free_job(id);
                if self.scenario.services[service].holds_slot {
                    self.release_slot(station);
                }
                if self.hop_is(child) {
                    self.abandon_hop(child.id);
                }
            }
            _ => {}
        }
    }

    fn reply(&mut self, id: u32, outcome: Outcome) {
        let job = &mut self.jobs[id as usize];
        job.outcome = outcome;
        job.state = JobState::Replying;
        if job.caller_gone {
            self.free_job(id);
            return;
        }
        let generation = job.generation;
        let service = self.stations[job.station as usize].service as usize;
        let network = self.networks[service];
        if network == 0 {
            self.settled.push_back(Ref { id, generation });
        } else {
            self.agenda.push(self.now, self.now + network, word(Kind::Reply, id, generation));
        }
    }

    /// Everything at an instance is lost; callers see the connection end.
    pub(super) fn lose_everything(&mut self, index: u32) {
        let lost: Vec<u32> = (0..self.jobs.len() as u32)
            .filter(|id| {
                let job = &self.jobs[*id as usize];
                job.station == index
                    && matches!(job.state, JobState::Queued | JobState::Serving | JobState::Calling)
            })
            .collect();
        let station = &mut self.stations[index as usize];
        let withdrawn: Vec<u32> = station.queue.drain(..).collect();
        station.waiting = 0;
        station.busy = 0;
        station.working.set(self.now, 0);
        for id in withdrawn {
            self.free_jobs_of_the_withdrawn(id);
        }
        for id in lost {
            let job = &mut self.jobs[id as usize];
            job.timer_generation = job.timer_generation.wrapping_add(1);
            let child = std::mem::replace(&mut job.child, Ref::NONE);
            self.leave(id);
            self.jobs[id as usize].state = JobState::Replying;
            self.reply(id, Outcome::Failure(Failure::Reset));
            if self.hop_is(child) {
                self.abandon_hop(child.id);
            }
        }
    }

    /// Stops or resumes work in progress, for a capacity of nothing.
    pub(super) fn hold_work(&mut self, index: u32, hold: bool) {
        for id in 0..self.jobs.len() as u32 {
            let job = &mut self.jobs[id as usize];
            if job.station != index || job.state != JobState::Serving {
                continue;
            }
            if hold {
                job.timer_generation = job.timer_generation.wrapping_add(1);
                job.finish_at = job.finish_at.saturating_sub(self.now);
            } else {
                job.finish_at = job.finish_at.saturating_add(self.now);
                let event = word(Kind::Finish, id, job.timer_generation);
                self.agenda.push(self.now, job.finish_at, event);
            }
        }
    }
}
