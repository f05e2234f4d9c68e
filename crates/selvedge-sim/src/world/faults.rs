//! What goes wrong, and how badly just now.

use selvedge_patterns::time::nanos;

use super::World;
use crate::model::{Fault, FaultKind, Scenario};

/// The faults of a scenario, found quickly.
#[derive(Debug)]
pub(super) struct Weather {
    faults: Vec<Fault>,
    latency: bool,
    errors: bool,
    partition: bool,
}

/// A ramped capacity cut is taken in so many steps.
const RAMP_STEPS: u64 = 20;

impl Weather {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let has = |wanted: fn(&FaultKind) -> bool| {
            scenario.faults.iter().any(|fault| wanted(&fault.kind))
        };
        Self {
            faults: scenario.faults.clone(),
            latency: has(|kind| matches!(kind, FaultKind::Latency { .. })),
            errors: has(|kind| matches!(kind, FaultKind::Errors { .. })),
            partition: has(|kind| matches!(kind, FaultKind::Partition { .. })),
        }
    }

    /// The times at which instances must be looked at.
    pub(super) fn changes(&self) -> Vec<u64> {
        let mut times = Vec::new();
        for fault in &self.faults {
            let (from, until, ramp) = (nanos(fault.at), fault.ends(), nanos(fault.ramp));
            times.extend([from, until]);
            if ramp > 0 {
                times.extend((1..=RAMP_STEPS).map(|step| from + ramp / RAMP_STEPS * step));
            }
            if let FaultKind::Deploy { batch, each, .. } = fault.kind {
                let _ = batch;
                let each = nanos(each).max(1);
                times.extend(
                    (0..10_000).map(|step| from + each * step).take_while(|at| *at < until),
                );
            }
        }
        times.sort_unstable();
        times.dedup();
        times
    }

    pub(super) fn latency(&self, now: u64, service: u32, replica: u32) -> f64 {
        if !self.latency {
            return 1.0;
        }
        let mut factor = 1.0;
        for fault in &self.faults {
            if let FaultKind::Latency { service: s, factor: f, replicas } = fault.kind
                && s == service as usize
                && replica < replicas
            {
                factor *= 1.0 + (f - 1.0) * fault.size(now);
            }
        }
        factor
    }

    pub(super) fn errors(&self, now: u64, service: u32, replica: u32) -> Option<(f64, bool)> {
        if !self.errors {
            return None;
        }
        self.faults.iter().find_map(|fault| match fault.kind {
            FaultKind::Errors { service: s, probability, slow, replicas }
                if s == service as usize && replica < replicas && fault.size(now) > 0.0 =>
            {
                Some((probability * fault.size(now), slow))
            }
            _ => None,
        })
    }

    pub(super) fn partition(&self, now: u64, service: u32, replica: u32) -> f64 {
        if !self.partition {
            return 0.0;
        }
        self.faults.iter().fold(0.0, |share, fault| match fault.kind {
            FaultKind::Partition { service: s, replicas }
                if s == service as usize && replica < replicas =>
            {
                f64::max(share, fault.size(now))
            }
            _ => share,
        })
    }

    pub(super) fn load(&self, now: u64, client: usize) -> f64 {
        self.faults.iter().fold(1.0, |factor, fault| match fault.kind {
            FaultKind::Load { client: c, factor: f } if c == client => {
                factor * (1.0 + (f - 1.0) * fault.size(now))
            }
            _ => factor,
        })
    }

    /// The most that [`Self::load`] can be.
    pub(super) fn load_max(&self, client: usize) -> f64 {
        self.faults.iter().fold(1.0, |factor, fault| match fault.kind {
            FaultKind::Load { client: c, factor: f } if c == client => factor * f64::max(1.0, f),
            _ => factor,
        })
    }

    fn capacity(&self, now: u64, service: u32) -> f64 {
        self.faults.iter().fold(1.0, |left, fault| match fault.kind {
            FaultKind::Capacity { service: s, left: l } if s == service as usize => {
                left * (1.0 - (1.0 - l) * fault.size(now))
            }
            _ => left,
        })
    }

    fn down(&self, now: u64, service: u32, replica: u32) -> bool {
        self.faults.iter().any(|fault| match fault.kind {
            FaultKind::Crash { service: s, replicas } => {
                s == service as usize && replica < replicas && fault.size(now) > 0.0
            }
            FaultKind::Deploy { service: s, batch, each } => {
                s == service as usize && fault.size(now) > 0.0 && {
                    let step = (now - nanos(fault.at)) / nanos(each).max(1);
                    u64::from(replica / batch) == step
                }
            }
            _ => false,
        })
    }

    fn flushes(&self, now: u64) -> impl Iterator<Item = usize> {
        self.faults.iter().filter_map(move |fault| match fault.kind {
            FaultKind::CacheFlush { service } if nanos(fault.at) == now => Some(service),
            _ => None,
        })
    }
}

impl World<'_> {
    /// Brings every instance in line with the faults of this moment.
    pub(super) fn weather_changes(&mut self) {
        let flushed: Vec<usize> = self.weather.flushes(self.now).collect();
        for index in 0..self.stations.len() as u32 {
            let (service, replica) =
                (self.stations[index as usize].service, self.stations[index as usize].replica);
            if flushed.contains(&(service as usize)) {
                self.stations[index as usize].warmth = 0.0;
            }
            let up = !self.weather.down(self.now, service, replica);
            if up != self.stations[index as usize].up {
                self.stations[index as usize].up = up;
                if up {
                    self.stations[index as usize].cold_since = Some(self.now);
                } else {
                    self.lose_everything(index);
                }
            }
            self.set_capacity(index, self.weather.capacity(self.now, service));
            self.serve_queue(index);
        }
    }

    fn set_capacity(&mut self, index: u32, left: f64) {
        let full = self.scenario.services[self.stations[index as usize].service as usize].slots;
        let station = &mut self.stations[index as usize];
        let was_held = station.slots == 0;
        if left < 1e-3 {
            station.slots = 0;
            if !was_held {
                self.hold_work(index, true);
            }
            return;
        }
        // As many whole slots as come nearest, and the rest as speed.
        let wanted = f64::from(full) * left;
        station.slots = (libm::floor(wanted) as u32).max(1);
        station.speed = wanted / f64::from(station.slots);
        if was_held {
            self.hold_work(index, false);
        }
    }
}
