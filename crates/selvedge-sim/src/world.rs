//! One replication: the loop, and the state it moves.
//!
//! A *hop* is a call somebody made (a client, or a request being worked on); a
//! *job* is one attempt of a hop at one *station* (an instance of a service).
//! Hops are driven by policies (`caller`), jobs by stations (`station`),
//! and first calls by clients (`clients`). The one invariant: whoever holds a
//! reference also holds the generation it was made for, so nothing is ever
//! cancelled twice or answered after it has gone.

mod caller;
mod clients;
mod faults;
mod station;

use std::collections::VecDeque;

use selvedge_patterns::bulkhead::Ticket;
use selvedge_patterns::call::Call;
use selvedge_patterns::outcome::Outcome;
use selvedge_patterns::time::nanos;

use crate::agenda::Agenda;
use crate::draw;
use crate::model::Scenario;
use crate::record::{Bin, Replication, ServiceBin};

use caller::Caller;
use clients::ClientState;
use faults::Weather;
use station::Station;

const NOBODY: u32 = u32::MAX;

/// What an event does; the low byte of its word.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Kind {
    Arrival,
    StartHop,
    Deadline,
    Finish,
    Deliver,
    Reply,
    HopTimer,
    CallerWake,
    Weather,
    Bin,
    WindowOpens,
    WindowCloses,
}

const KINDS: [Kind; 12] = [
    Kind::Arrival,
    Kind::StartHop,
    Kind::Deadline,
    Kind::Finish,
    Kind::Deliver,
    Kind::Reply,
    Kind::HopTimer,
    Kind::CallerWake,
    Kind::Weather,
    Kind::Bin,
    Kind::WindowOpens,
    Kind::WindowCloses,
];

const GENERATIONS: u32 = 1 << 24;

fn word(kind: Kind, id: u32, generation: u32) -> u64 {
    u64::from(id) << 32 | u64::from(generation % GENERATIONS) << 8 | kind as u64
}

/// A reference that knows when it is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ref {
    id: u32,
    generation: u32,
}

impl Ref {
    const NONE: Self = Self { id: NOBODY, generation: 0 };
}

/// Who waits for a hop.
#[derive(Clone, Copy, Debug)]
enum Parent {
    Client { client: u32, user: u32, tries: u32 },
    Job(Ref),
}

/// Attempts of one hop alive at once, at most.
const LIVE_MAX: usize = 8;

#[derive(Debug)]
struct Hop {
    generation: u32,
    alive: bool,
    waiting_for_user: bool,
    counted: bool,
    parent: Parent,
    edge: u8,
    service: u32,
    caller: u32,
    luck: u64,
    started: u64,
    deadline: u64,
    timer_generation: u32,
    live: [Ref; LIVE_MAX],
    /// Questions asked of the policy so far: each has luck of its own.
    asked: u32,
    /// Attempts made above it, as far as it was told.
    prior: u32,
    /// When its timer is due.
    timer_at: u64,
    ticket: Option<Ticket>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobState {
    Travelling,
    Queued,
    /// Left the queue in spirit: its caller cancelled.
    Withdrawn,
    Serving,
    Calling,
    Replying,
    /// Swallowed by a partition.
    Lost,
    Free,
}

#[derive(Debug)]
struct Job {
    generation: u32,
    timer_generation: u32,
    state: JobState,
    counted: bool,
    caller_gone: bool,
    cache_missed: bool,
    edge: u8,
    number: u32,
    prior: u32,
    station: u32,
    hop: Ref,
    child: Ref,
    luck: u64,
    arrived: u64,
    started: u64,
    finish_at: u64,
    deadline: u64,
    work_ns: u64,
    outcome: Outcome,
}

/// Everything in one replication.
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    now: u64,
    agenda: Agenda,
    hops: Vec<Hop>,
    /// The calls that policies drive, by hop.
    calls: Vec<Option<Call>>,
    free_hops: Vec<u32>,
    jobs: Vec<Job>,
    free_jobs: Vec<u32>,
    stations: Vec<Station>,
    first_station: Vec<u32>,
    callers: Vec<Caller>,
    caller_of: Vec<Vec<u32>>,
    clients: Vec<ClientState>,
    weather: Weather,
    settled: VecDeque<Ref>,
    /// Hops whose turn in a bulkhead's queue has come.
    granted: VecDeque<Ref>,
    entities: Vec<u64>,
    networks: Vec<u64>,
    alive_hops: usize,
    orbit: Level,
    counted_alive: u64,
    window: (u64, u64),
    bin_ns: u64,
    bin: usize,
    stopping: bool,
    record: Replication,
}

/// A number that changes over time, integrated exactly.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    value: u64,
    since: u64,
    area: u128,
}

impl Level {
    fn set(&mut self, now: u64, value: u64) {
        self.area += u128::from(self.value) * u128::from(now - self.since);
        self.since = now;
        self.value = value;
    }

    fn area_at(&self, now: u64) -> u128 {
        self.area + u128::from(self.value) * u128::from(now - self.since)
    }
}

/// Runs `scenario` under `seed`. The scenario has been validated.
pub(crate) fn run(scenario: &Scenario, seed: u64) -> Replication {
    let mut world = World::new(scenario, seed);
    world.begin();
    world.turn();
    world.finish()
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let run = &scenario.run;
        let bins = nanos(run.duration).div_ceil(nanos(run.bin)) as usize;
        let (stations, first_station) = station::build(scenario);
        let (callers, caller_of) = caller::build(scenario, seed, &first_station, stations.len());
        let record = Replication {
            seed,
            bins: vec![Bin::default(); bins],
            service_bins: vec![vec![ServiceBin::default(); bins]; scenario.services.len()],
            services: vec![Default::default(); scenario.services.len()],
            each_client: vec![Default::default(); scenario.clients.len()],
            hash: 0xCBF2_9CE4_8422_2325,
            ..Replication::default()
        };
        Self {
            scenario,
            now: 0,
            agenda: Agenda::default(),
            hops: Vec::new(),
            calls: Vec::new(),
            free_hops: Vec::new(),
            jobs: Vec::new(),
            free_jobs: Vec::new(),
            stations,
            first_station,
            callers,
            caller_of,
            clients: clients::build(scenario, seed),
            weather: Weather::new(scenario),
            settled: VecDeque::new(),
            granted: VecDeque::new(),
            entities: (0..scenario.services.len())
                .map(|s| draw::entity(seed, 2, s as u64))
                .collect(),
            networks: scenario.services.iter().map(|s| nanos(s.network)).collect(),
            alive_hops: 0,
            orbit: Level::default(),
            counted_alive: 0,
            window: (nanos(run.warm_up), nanos(run.duration)),
            bin_ns: nanos(run.bin),
            bin: 0,
            stopping: false,
            record,
        }
    }

    fn begin(&mut self) {
        for client in &self.scenario.clients {
            if let Some(deadline) = client.deadline {
                self.agenda.open_lane(nanos(deadline));
            }
        }
        for index in 0..self.networks.len() {
            if self.networks[index] > 0 {
                self.agenda.open_lane(self.networks[index]);
            }
        }
        for delay in caller::fixed_delays(self.scenario) {
            self.agenda.open_lane(delay);
        }
        self.agenda.open_lane(self.bin_ns);
        self.agenda.push(0, self.window.0, word(Kind::WindowOpens, 0, 0));
        self.agenda.push(0, self.window.1, word(Kind::WindowCloses, 0, 0));
        self.agenda.push(0, self.bin_ns, word(Kind::Bin, 0, 0));
        for at in self.weather.changes() {
            self.agenda.push(0, at, word(Kind::Weather, 0, 0));
        }
        self.begin_callers();
        for client in 0..self.clients.len() {
            self.begin_client(client as u32);
        }
    }

    fn turn(&mut self) {
        let cut_off = self.window.1.saturating_add(self.patience());
        while let Some(entry) = self.agenda.pop() {
            if entry.at > cut_off || (self.stopping && self.counted_alive == 0) {
                break;
            }
            self.now = entry.at;
            self.record.events += 1;
            let mixed = (self.record.hash ^ entry.at.rotate_left(32) ^ entry.what)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.record.hash = mixed ^ (mixed >> 29);
            let (id, generation) =
                ((entry.what >> 32) as u32, (entry.what >> 8) as u32 % GENERATIONS);
            self.handle(KINDS[(entry.what & 0xFF) as usize], id, generation);
            loop {
                if let Some(job) = self.settled.pop_front() {
                    self.settle(job);
                } else if let Some(hop) = self.granted.pop_front() {
                    self.admitted_from_queue(hop);
                } else {
                    break;
                }
            }
            if self.alive_hops + self.agenda.len() / 8 > self.scenario.run.alive_max {
                self.record.diverged_at = Some(self.now);
                break;
            }
        }
    }

    /// How long after the window the last counted calls may take.
    fn patience(&self) -> u64 {
        let longest = self.scenario.clients.iter().map(|client| {
            let own = client.deadline.map_or(60_000_000_000, nanos);
            let tries =
                client.user_retry.as_ref().map_or(0, |retry| u64::from(retry.attempts.min(20)));
            let pause = client.user_retry.as_ref().map_or(0.0, |retry| retry.after.mean()) as u64;
            own.saturating_add(tries.saturating_mul(own.saturating_add(pause.saturating_mul(4))))
        });
        longest.max().unwrap_or(0).clamp(1_000_000_000, 600_000_000_000)
    }

    fn handle(&mut self, kind: Kind, id: u32, generation: u32) {
        match kind {
            Kind::Arrival => self.client_arrival(id),
            Kind::StartHop => self.start_waiting(id, generation),
            Kind::Deadline => self.client_deadline(id, generation),
            Kind::Finish => {
                if self.jobs[id as usize].timer_generation % GENERATIONS == generation {
                    self.finish_work(id);
                }
            }
            Kind::Deliver => self.deliver(id, generation),
            Kind::Reply => {
                if self.jobs[id as usize].generation % GENERATIONS == generation {
                    self.settled
                        .push_back(Ref { id, generation: self.jobs[id as usize].generation });
                }
            }
            Kind::HopTimer => self.hop_timer(id, generation),
            Kind::CallerWake => self.wake_caller(id),
            // A fault at the edge of a bin belongs to what comes after it.
            Kind::Weather if self.bin_ends_now() => {
                self.agenda.push(self.now, self.now, word(Kind::Weather, 0, 0));
            }
            Kind::Weather => self.weather_changes(),
            Kind::Bin => self.close_bin(),
            Kind::WindowOpens => self.window_edge(true),
            Kind::WindowCloses => {
                self.window_edge(false);
                self.stopping = true;
            }
        }
    }

    fn close_bin(&mut self) {
        self.sample_levels();
        if self.bin + 1 < self.record.bins.len() {
            self.bin += 1;
            self.agenda.push(self.now, self.now + self.bin_ns, word(Kind::Bin, 0, 0));
        }
    }

    /// Whether the present bin is about to be closed.
    fn bin_ends_now(&self) -> bool {
        self.bin + 1 < self.record.bins.len() && self.now == (self.bin as u64 + 1) * self.bin_ns
    }

    fn sample_levels(&mut self) {
        let bin = self.bin;
        self.record.bins[bin].alive = self.alive_hops as u32;
        for station in &self.stations {
            let into = &mut self.record.service_bins[station.service as usize][bin];
            into.queued += station.waiting;
            into.in_service += station.busy;
        }
        for service in 0..self.scenario.services.len() {
            let (open, limit) = self.sample_policies(service);
            self.record.service_bins[service][bin].breaker_open = open;
            self.record.service_bins[service][bin].limit = limit;
        }
    }

    /// The bin that an event after the last bin is counted in: none.
    fn bin_now(&self) -> Option<usize> {
        (self.now < self.window.1).then_some(self.bin)
    }

    fn service_bin(&mut self, service: u32, add: impl FnOnce(&mut ServiceBin)) {
        if let Some(bin) = self.bin_now() {
            add(&mut self.record.service_bins[service as usize][bin]);
        }
    }

    fn window_edge(&mut self, opens: bool) {
        let now = self.now;
        let sign = |total: &mut f64, area: f64| if opens { *total -= area } else { *total += area };
        for station in &self.stations {
            let into = &mut self.record.services[station.service as usize];
            sign(&mut into.mean_present, station.present.area_at(now) as f64);
            sign(&mut into.utilisation, station.working.area_at(now) as f64);
        }
        sign(&mut self.record.mean_orbit, self.orbit.area_at(now) as f64);
    }

    fn counts(&self) -> bool {
        self.now >= self.window.0 && self.now < self.window.1
    }

    fn finish(mut self) -> Replication {
        let now = self.now;
        let closed_early = !self.stopping;
        if closed_early {
            self.window_edge(false);
        }
        let width = (self.window.1.min(now.max(self.window.0 + 1)) - self.window.0) as f64;
        for (service, model) in self.scenario.services.iter().enumerate() {
            let into = &mut self.record.services[service];
            into.mean_present /= width;
            into.utilisation /= width * f64::from(model.slots) * f64::from(model.replicas);
        }
        self.record.mean_orbit /= width;
        if closed_early {
            self.record.bins.truncate(self.bin + 1);
            for bins in &mut self.record.service_bins {
                bins.truncate(self.bin + 1);
            }
        }
        for station in &self.stations {
            let into = &mut self.record.services[station.service as usize];
            into.area += station.present.area_at(now);
            into.sojourns += station.sojourns;
        }
        self.account_for_the_living();
        self.record.clients.undecided = self.counted_alive;
        self.record.broken = self.check_sums();
        debug_assert_eq!(self.record.broken, None, "seed {}", self.record.seed);
        for (service, bins) in self.record.service_bins.iter().enumerate() {
            for bin in bins {
                self.record.hash =
                    (self.record.hash ^ u64::from(bin.arrived) ^ (service as u64) << 32)
                        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
            }
        }
        self.record
    }

    fn account_for_the_living(&mut self) {
        for job in self.jobs.iter().filter(|job| job.state != JobState::Free) {
            let service = self.stations[job.station as usize].service as usize;
            if !job.caller_gone {
                self.record.services[service].attempts_alive += 1;
            }
            if matches!(job.state, JobState::Queued | JobState::Serving | JobState::Calling) {
                self.record.services[service].sojourns += u128::from(self.now - job.arrived);
            }
        }
        for hop in self.hops.iter().filter(|hop| hop.alive && !hop.waiting_for_user) {
            self.record.services[hop.service as usize].calls_alive += 1;
        }
    }

    /// Little's law and conservation, exactly (V33, V34).
    fn check_sums(&self) -> Option<String> {
        let clients = &self.record.clients;
        if clients.requests != clients.good + clients.failed + clients.undecided {
            return Some(format!(
                "{} calls of clients began, {} went well, {} failed, {} are undecided",
                clients.requests, clients.good, clients.failed, clients.undecided
            ));
        }
        for (model, totals) in self.scenario.services.iter().zip(&self.record.services) {
            let name = &model.name;
            if totals.area != totals.sojourns {
                return Some(format!(
                    "{name}: L·T = {} but the sojourns add up to {}",
                    totals.area, totals.sojourns
                ));
            }
            let calls = totals.calls_ok + totals.calls_failed + totals.calls_alive;
            if totals.calls != calls {
                return Some(format!(
                    "{name}: {} calls began, {calls} are accounted for",
                    totals.calls
                ));
            }
            let sent = totals.first_attempts + totals.retries + totals.hedges;
            let attempts = totals.ended + totals.attempts_alive;
            if sent != attempts {
                return Some(format!(
                    "{name}: {sent} attempts were sent, {attempts} are accounted for"
                ));
            }
        }
        None
    }

    // Storage.

    fn new_hop(&mut self, hop: Hop) -> u32 {
        self.alive_hops += 1;
        if let Some(id) = self.free_hops.pop() {
            let generation = self.hops[id as usize].generation;
            let timer_generation = self.hops[id as usize].timer_generation;
            self.hops[id as usize] = Hop { generation, timer_generation, ..hop };
            return id;
        }
        self.hops.push(hop);
        self.calls.push(None);
        (self.hops.len() - 1) as u32
    }

    fn free_hop(&mut self, id: u32) {
        self.alive_hops -= 1;
        let hop = &mut self.hops[id as usize];
        hop.alive = false;
        hop.generation = hop.generation.wrapping_add(1);
        hop.timer_generation = hop.timer_generation.wrapping_add(1);
        self.free_hops.push(id);
    }

    fn hop_is(&self, reference: Ref) -> bool {
        reference.id != NOBODY
            && self.hops[reference.id as usize].generation == reference.generation
    }

    fn new_job(&mut self, job: Job) -> u32 {
        if let Some(id) = self.free_jobs.pop() {
            let Job { generation, timer_generation, .. } = self.jobs[id as usize];
            self.jobs[id as usize] = Job { generation, timer_generation, ..job };
            return id;
        }
        self.jobs.push(job);
        (self.jobs.len() - 1) as u32
    }

    fn free_job(&mut self, id: u32) {
        let job = &mut self.jobs[id as usize];
        job.generation = job.generation.wrapping_add(1);
        job.timer_generation = job.timer_generation.wrapping_add(1);
        job.state = JobState::Free;
        self.free_jobs.push(id);
    }

    fn job_is(&self, reference: Ref) -> bool {
        reference.id != NOBODY
            && self.jobs[reference.id as usize].generation == reference.generation
    }
}
