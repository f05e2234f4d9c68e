//! Those who call, and what they make of the answers.

use selvedge_patterns::limit::Limiter;
use selvedge_patterns::random::Rng;
use selvedge_patterns::time::{Instant, nanos};

use super::{Kind, Parent, Ref, World, word};
use crate::draw::{self, Purpose};
use crate::model::{Arrivals, Scenario};

/// One population.
#[derive(Debug)]
pub(super) struct ClientState {
    entity: u64,
    /// Calls, or candidates for calls, so far.
    drawn: u64,
    calls: u64,
    phase: usize,
    phase_ends: u64,
    phases: u64,
    /// One limiter per gateway and key.
    limits: Vec<Limiter>,
}

pub(super) fn build(scenario: &Scenario, seed: u64) -> Vec<ClientState> {
    (0..scenario.clients.len())
        .map(|client| ClientState {
            entity: draw::entity(seed, 1, client as u64),
            drawn: 0,
            calls: 0,
            phase: 0,
            phase_ends: 0,
            phases: 0,
            limits: limits(scenario, client),
        })
        .collect()
}

fn limits(scenario: &Scenario, client: usize) -> Vec<Limiter> {
    let Some((config, keys)) = scenario.clients[client].limit else { return Vec::new() };
    let fresh = |_| Limiter::new(config).expect("the scenario has been validated");
    (0..scenario.gateways * keys).map(fresh).collect()
}

impl World<'_> {
    /// Whether the gateway that a call comes by admits it.
    fn within_limit(&self, client: u32, hop: u32) -> bool {
        let Some((_, keys)) = self.scenario.clients[client as usize].limit else { return true };
        let state = &self.clients[client as usize];
        let luck = self.hops[hop as usize].luck;
        let gateway = self.gateway_for(client, luck);
        let key =
            draw::source(state.entity, luck, 1, Purpose::Gateway).below(u64::from(keys)) as u32;
        let limiter = &state.limits[(gateway * keys + key) as usize];
        limiter.admit(Instant::from_nanos(self.now), 1).is_ok()
    }

    pub(super) fn begin_client(&mut self, client: u32) {
        match &self.scenario.clients[client as usize].arrivals {
            Arrivals::Closed { users, think } => {
                for user in 0..*users {
                    let entity = self.clients[client as usize].entity;
                    // Users start as if they had been thinking for a while.
                    let mut rng = draw::source(entity, u64::from(user), 0, Purpose::Think);
                    let first = think.draw(&mut rng) * rng.unit();
                    self.think(client, user, first as u64);
                }
            }
            Arrivals::Mmpp { .. } => {
                self.clients[client as usize].phase = 1;
                self.schedule_arrival(client);
            }
            Arrivals::Poisson { .. } | Arrivals::Paced { .. } | Arrivals::Trace(_) => {
                self.schedule_arrival(client)
            }
        }
    }

    fn schedule_arrival(&mut self, client: u32) {
        let state = &mut self.clients[client as usize];
        let number = state.drawn;
        state.drawn += 1;
        let entity = state.entity;
        let after = |rate: f64| {
            let unit = draw::exponential(&mut draw::source(entity, number, 0, Purpose::Arrival));
            (unit / rate * 1e9) as u64
        };
        let at = match &self.scenario.clients[client as usize].arrivals {
            Arrivals::Poisson { rate } => {
                self.now + after(rate * self.weather.load_max(client as usize))
            }
            Arrivals::Mmpp { rates, .. } => {
                self.now
                    + after(f64::max(rates[0], rates[1]) * self.weather.load_max(client as usize))
            }
            // Half a gap first, so that the n-th call is at (n + ½) gaps whatever the rounding.
            Arrivals::Paced { rate } => ((number as f64 + 0.5) / rate * 1e9) as u64,
            Arrivals::Trace(times) => match times.get(number as usize) {
                Some(at) => *at,
                None => return,
            },
            Arrivals::Closed { .. } => return,
        };
        self.agenda.push(self.now, at.max(self.now), word(Kind::Arrival, client, 0));
    }

    pub(super) fn client_arrival(&mut self, client: u32) {
        let accepted = self.accepts(client);
        let number = self.clients[client as usize].drawn;
        self.schedule_arrival(client);
        if accepted {
            let luck = draw::child(self.clients[client as usize].entity, number, 0);
            self.begin_request(client, 0, luck);
        }
    }

    /// Thins candidates down to the rate of this moment.
    fn accepts(&mut self, client: u32) -> bool {
        let index = client as usize;
        let share = match &self.scenario.clients[index].arrivals {
            Arrivals::Poisson { .. } => {
                let most = self.weather.load_max(index);
                if most <= 1.0 && self.weather.load(self.now, index) >= 1.0 {
                    return true;
                }
                self.weather.load(self.now, index) / most
            }
            Arrivals::Mmpp { rates, dwell } => {
                let (rates, dwell) = (*rates, *dwell);
                let state = &mut self.clients[index];
                while state.phase_ends <= self.now {
                    state.phase = 1 - state.phase;
                    let stay = draw::exponential(&mut draw::source(
                        state.entity,
                        state.phases,
                        0,
                        Purpose::Phase,
                    ));
                    state.phases += 1;
                    state.phase_ends += (stay * nanos(dwell[state.phase]) as f64) as u64 + 1;
                }
                let rate = rates[state.phase] / f64::max(rates[0], rates[1]);
                rate * self.weather.load(self.now, index) / self.weather.load_max(index)
            }
            Arrivals::Paced { .. } | Arrivals::Trace(_) | Arrivals::Closed { .. } => return true,
        };
        let state = &self.clients[index];
        draw::source(state.entity, state.drawn, 0, Purpose::Thinning).unit() < share
    }

    fn think(&mut self, client: u32, user: u32, pause: u64) {
        let state = &mut self.clients[client as usize];
        let number = state.drawn;
        state.drawn += 1;
        let luck = draw::child(state.entity, u64::from(user) << 32 | number, 1);
        let hop = self.waiting_hop(Parent::Client { client, user, tries: 0 }, luck, false);
        self.hops[hop as usize].waiting_for_user = true;
        let generation = self.hops[hop as usize].generation;
        self.agenda.push(
            self.now,
            self.now.saturating_add(pause),
            word(Kind::StartHop, hop, generation),
        );
    }

    fn begin_request(&mut self, client: u32, user: u32, luck: u64) {
        let counted = self.counts();
        self.clients[client as usize].calls += 1;
        if counted {
            self.record.clients.requests += 1;
            self.record.each_client[client as usize].requests += 1;
            self.counted_alive += 1;
        }
        if let Some(bin) = self.bin_now() {
            self.record.bins[bin].offered += 1;
        }
        let hop = self.waiting_hop(Parent::Client { client, user, tries: 1 }, luck, counted);
        self.begin_try(hop);
    }

    fn waiting_hop(&mut self, parent: Parent, luck: u64, counted: bool) -> u32 {
        let Parent::Client { client, .. } = parent else { unreachable!("only clients wait") };
        let service = self.scenario.clients[client as usize].target as u32;
        let origin = self.gateway_for(client, luck);
        self.new_waiting_hop(parent, service, origin, luck, counted)
    }

    fn gateway_for(&self, client: u32, luck: u64) -> u32 {
        if self.scenario.gateways == 1 {
            return 0;
        }
        let entity = self.clients[client as usize].entity;
        draw::source(entity, luck, 0, Purpose::Gateway).below(u64::from(self.scenario.gateways))
            as u32
    }

    /// A user comes back, or has finished thinking.
    pub(super) fn start_waiting(&mut self, hop: u32, generation: u32) {
        if self.hops[hop as usize].generation % super::GENERATIONS != generation {
            return;
        }
        let Parent::Client { client, user, tries } = self.hops[hop as usize].parent else { return };
        if tries == 0 {
            let luck = self.hops[hop as usize].luck;
            self.free_hop(hop);
            if !self.stopping || self.counted_alive > 0 {
                self.begin_request(client, user, luck);
            }
            return;
        }
        self.orbit.set(self.now, self.orbit.value - 1);
        if let Some(bin) = self.bin_now() {
            self.record.bins[bin].user_retries += 1;
        }
        self.hops[hop as usize].waiting_for_user = false;
        self.begin_try(hop);
    }

    fn begin_try(&mut self, hop: u32) {
        let Parent::Client { client, .. } = self.hops[hop as usize].parent else { return };
        let deadline = self.scenario.clients[client as usize].deadline;
        if self.hops[hop as usize].counted {
            self.record.clients.tries += 1;
            self.record.each_client[client as usize].tries += 1;
        }
        let state = &mut self.hops[hop as usize];
        state.started = self.now;
        state.deadline =
            deadline.map_or(u64::MAX, |deadline| self.now.saturating_add(nanos(deadline)));
        if deadline.is_some() {
            let event = word(Kind::Deadline, hop, state.generation);
            self.agenda.push(self.now, state.deadline, event);
        }
        if self.within_limit(client, hop) {
            self.launch(hop);
        } else {
            self.limited(hop);
        }
    }

    pub(super) fn client_deadline(&mut self, hop: u32, generation: u32) {
        if self.hops[hop as usize].generation % super::GENERATIONS != generation
            || self.hops[hop as usize].waiting_for_user
        {
            return;
        }
        if let Some(bin) = self.bin_now() {
            self.record.bins[bin].timed_out += 1;
        }
        self.give_up(hop);
        self.client_answered(hop, false);
    }

    /// A try has ended; the hop is at rest and nothing of it is alive.
    pub(super) fn client_answered(&mut self, hop: u32, good: bool) {
        let Parent::Client { client, user, tries } = self.hops[hop as usize].parent else { return };
        let (counted, started, luck) = {
            let state = &self.hops[hop as usize];
            (state.counted, state.started, state.luck)
        };
        let took = self.now - started;
        if let Some(bin) = self.bin_now() {
            let bin = &mut self.record.bins[bin];
            if good {
                bin.good += 1;
                bin.latency.record(took);
            } else {
                bin.failed += 1;
            }
        }
        if !good && self.user_comes_back(hop, client, user, tries, luck) {
            return;
        }
        if counted {
            self.counted_alive -= 1;
            for totals in [&mut self.record.clients, &mut self.record.each_client[client as usize]]
            {
                if good {
                    totals.good += 1;
                    totals.first_try_good += u64::from(tries <= 1);
                    totals.latency.record(took);
                } else {
                    totals.failed += 1;
                }
            }
        }
        self.free_hop(hop);
        if let Arrivals::Closed { think, .. } = &self.scenario.clients[client as usize].arrivals {
            let state = &self.clients[client as usize];
            let pause = think.draw(&mut draw::source(
                state.entity,
                u64::from(user),
                state.drawn + 1,
                Purpose::Think,
            ));
            self.think(client, user, pause as u64);
        }
    }

    fn user_comes_back(&mut self, hop: u32, client: u32, user: u32, tries: u32, luck: u64) -> bool {
        let Some(retry) = &self.scenario.clients[client as usize].user_retry else { return false };
        if tries > retry.attempts {
            return false;
        }
        let mut rng = draw::source(
            self.clients[client as usize].entity,
            luck,
            u64::from(tries),
            Purpose::UserRetry,
        );
        if rng.unit() >= retry.probability {
            return false;
        }
        let pause = retry.after.draw(&mut rng) as u64;
        let next = Parent::Client { client, user, tries: tries + 1 };
        let counted = self.hops[hop as usize].counted;
        let luck = draw::child(luck, 0, u64::from(tries));
        self.free_hop(hop);
        let again = self.waiting_hop(next, luck, counted);
        self.hops[again as usize].waiting_for_user = true;
        self.orbit.set(self.now, self.orbit.value + 1);
        let reference = Ref { id: again, generation: self.hops[again as usize].generation };
        self.agenda.push(
            self.now,
            self.now.saturating_add(pause),
            word(Kind::StartHop, reference.id, reference.generation),
        );
        true
    }
}
