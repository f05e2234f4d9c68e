//! What may be changed: the keys of the policies, with the values worth trying.

use selvedge_patterns::{breaker, budget, bulkhead};

use crate::model::Scenario;
use crate::search::Knob;

/// A key of one service's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Attempts,
    Budget,
    AttemptTimeout,
    Breaker,
    InFlight,
    Hedge,
}

/// One key, its value now, and the range that is looked at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) service: usize,
    pub(super) key: Key,
    pub(super) now: f64,
    low: f64,
    high: f64,
}

/// A budget of so much for each success bounds nothing: what `budget: off` counts as.
const NO_BUDGET: f64 = 100.0;
/// So many in flight are no bound: what `bulkhead: off` counts as.
const NO_BOUND: f64 = 1e6;

/// One key set to another value. `axis` is an index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) axis: usize,
    pub(super) value: f64,
}

/// Every key that may be changed, the services with the most load first.
pub(super) fn axes(scenario: &Scenario) -> Vec<Axis> {
    let rates = scenario.visit_rates();
    let mut axes = Vec::new();
    for (service, model) in scenario.services.iter().enumerate() {
        let Some(policy) = &model.policy else { continue };
        let mut add = |key, now: f64, low: f64, high: f64| {
            axes.push(Axis { service, key, now, low: low.min(now), high: high.max(low) });
        };
        let attempts = policy.retry.as_ref().map_or(1.0, |retry| f64::from(retry.attempts));
        add(Key::Attempts, attempts, 1.0, attempts.max(3.0));
        if attempts > 1.0 {
            let now = policy.budget.as_ref().map_or(NO_BUDGET, |budget| budget.ratio);
            add(Key::Budget, now, 0.02, 0.5);
        }
        if let Some(attempt) = policy.timeout.attempt {
            let now = attempt.as_secs_f64();
            add(Key::AttemptTimeout, now, now / 4.0, now * 4.0);
        }
        add(Key::Breaker, f64::from(u8::from(policy.breaker.is_some())), 0.0, 1.0);
        if policy.hedge.is_some() {
            add(Key::Hedge, 1.0, 0.0, 1.0);
        }
        // By Little's law, as many as are in flight when all is well, and some room.
        let usual = rates[service] * model.time.mean() / 1e9 / f64::from(scenario.gateways.max(1));
        let now = policy.bulkhead.map_or(NO_BOUND, |bulkhead| f64::from(bulkhead.max_in_flight));
        add(
            Key::InFlight,
            now,
            libm::ceil(usual * 1.5).max(2.0),
            libm::ceil(usual * 16.0).max(16.0),
        );
    }
    axes.sort_by(|a, b| rates[b.service].total_cmp(&rates[a.service]));
    axes
}

impl Axis {
    pub(super) const fn is_switch(&self) -> bool {
        matches!(self.key, Key::Breaker | Key::Hedge)
    }

    const fn is_whole(&self) -> bool {
        matches!(self.key, Key::Attempts | Key::InFlight)
    }

    /// The value at `unit` (0 to 1) of the range: logarithmic, whole where it must be.
    fn at(&self, unit: f64) -> f64 {
        if self.is_switch() {
            return if unit < 0.5 { 0.0 } else { 1.0 };
        }
        self.rounded(self.low * libm::pow(self.high / self.low, unit))
    }

    /// As a person would write it: two figures.
    fn rounded(&self, value: f64) -> f64 {
        if self.is_whole() {
            return libm::round(value).max(1.0);
        }
        let magnitude = libm::pow(10.0, libm::floor(libm::log10(value)) - 1.0);
        libm::round(value / magnitude) * magnitude
    }

    /// Values to try alone.
    pub(super) fn values(&self) -> Vec<f64> {
        let mut values: Vec<f64> = if self.is_switch() {
            vec![1.0 - self.now]
        } else if self.key == Key::Attempts {
            (self.low as u32..=self.high as u32).map(f64::from).collect()
        } else {
            (0..5).map(|step| self.at(f64::from(step) / 4.0)).collect()
        };
        values.retain(|value| (value / self.now - 1.0).abs() > 0.02 || self.is_switch());
        values.dedup();
        values
    }

    /// Halfway from `value` to what it is now; `None` where nothing lies between.
    pub(super) fn halfway(&self, value: f64) -> Option<f64> {
        if self.is_switch() {
            return None;
        }
        let edge = if self.now > self.high { self.high.max(value * 2.0) } else { self.now };
        let middle = self.rounded(libm::sqrt(value * edge));
        let near = |other: f64| (middle / other - 1.0).abs() < 0.05;
        (!near(value) && !near(edge)).then_some(middle)
    }

    /// How far `value` is from what it is now, in doublings; a switch is three.
    pub(super) fn distance(&self, value: f64) -> f64 {
        if self.is_switch() {
            return 3.0;
        }
        libm::fabs(libm::log2(value / self.now)).min(4.0)
    }

    /// The change as a line of the production file.
    pub(super) fn describe(&self, scenario: &Scenario, value: f64) -> String {
        let name = &scenario.services[self.service].name;
        let key = match self.key {
            Key::Attempts => format!("retry.attempts: {value:.0}"),
            Key::Budget => format!("retry.budget: {}%", libm::round(value * 1000.0) / 10.0),
            Key::AttemptTimeout => format!("timeout.attempt: {:.0}ms", value * 1e3),
            Key::Breaker => format!("breaker: {}", if value > 0.5 { "{}" } else { "off" }),
            Key::InFlight => format!("bulkhead.max_in_flight: {value:.0}"),
            Key::Hedge => "hedge: off".to_owned(),
        };
        format!("services.{name}.{key}")
    }
}

/// Sets what `changes` say.
pub(super) fn apply(scenario: &mut Scenario, axes: &[Axis], changes: &[Change]) {
    for Change { axis, value } in changes {
        let (service, value) = (axes[*axis].service, *value);
        match axes[*axis].key {
            Key::Attempts => Knob::Attempts(service).set(scenario, value),
            Key::AttemptTimeout => Knob::AttemptTimeout(service).set(scenario, value),
            Key::Budget | Key::Breaker | Key::InFlight | Key::Hedge => {}
        }
        let Some(policy) = &mut scenario.services[service].policy else { continue };
        match axes[*axis].key {
            Key::Budget => {
                let base = policy.budget.unwrap_or_default();
                policy.budget = Some(budget::Config { ratio: value, ..base });
            }
            Key::Breaker => {
                policy.breaker = (value > 0.5).then(breaker::Config::default);
            }
            Key::InFlight => {
                let base = policy.bulkhead.unwrap_or_default();
                policy.bulkhead = Some(bulkhead::Config { max_in_flight: value as u32, ..base });
            }
            Key::Hedge => policy.hedge = None,
            Key::Attempts | Key::AttemptTimeout => {}
        }
    }
}

/// Points that fill the space evenly, all keys changed at once.
pub(super) fn design(axes: &[Axis], count: u32) -> Vec<Vec<Change>> {
    let dimensions = axes.len().min(DIRECTIONS.len() + 1);
    (1..=count)
        .map(|point| {
            (0..dimensions)
                .map(|axis| Change { axis, value: axes[axis].at(sobol(point, axis)) })
                .filter(|change| {
                    let axis = &axes[change.axis];
                    (change.value - axis.now).abs() > 0.02 * axis.now.max(1e-9)
                })
                .collect()
        })
        .collect()
}

/// Primitive polynomials and first direction numbers, from the second dimension on.
///
/// Source: Joe and Kuo, "Constructing Sobol sequences with better
/// two-dimensional projections", SIAM J. Sci. Comput. 30 (2008).
const DIRECTIONS: [(u32, u32, &[u32]); 7] = [
    (1, 0, &[1]),
    (2, 1, &[1, 3]),
    (3, 1, &[1, 3, 1]),
    (3, 2, &[1, 1, 1]),
    (4, 1, &[1, 1, 3, 3]),
    (4, 4, &[1, 3, 5, 13]),
    (5, 2, &[1, 1, 5, 5, 17]),
];

/// Coordinate `dimension` of point number `point` of the Sobol sequence, in `[0, 1)`.
fn sobol(point: u32, dimension: usize) -> f64 {
    let mut directions = [0u32; 32];
    match dimension.checked_sub(1) {
        None => {
            for (bit, direction) in directions.iter_mut().enumerate() {
                *direction = 1 << (31 - bit);
            }
        }
        Some(row) => {
            let (degree, polynomial, first) = DIRECTIONS[row];
            let degree = degree as usize;
            for (bit, number) in first.iter().enumerate() {
                directions[bit] = number << (31 - bit);
            }
            for bit in degree..32 {
                let mut value = directions[bit - degree] ^ (directions[bit - degree] >> degree);
                for k in 1..degree {
                    if polynomial >> (degree - 1 - k) & 1 == 1 {
                        value ^= directions[bit - k];
                    }
                }
                directions[bit] = value;
            }
        }
    }
    let gray = point ^ (point >> 1);
    let bits = (0..32).filter(|bit| gray >> bit & 1 == 1);
    let value = bits.fold(0, |value, bit| value ^ directions[bit]);
    f64::from(value) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::{DIRECTIONS, sobol};

    #[test]
    fn the_sequence_fills_every_eighth_of_every_side() {
        for dimension in 0..=DIRECTIONS.len() {
            let mut seen = [0; 8];
            for point in 0..64 {
                seen[(sobol(point, dimension) * 8.0) as usize] += 1;
            }
            assert_eq!(seen, [8; 8], "dimension {dimension}");
        }
        // The first points of two dimensions, as published.
        let first: Vec<(f64, f64)> =
            (1..4).map(|point| (sobol(point, 0), sobol(point, 1))).collect();
        assert_eq!(first, [(0.5, 0.5), (0.75, 0.25), (0.25, 0.75)]);
    }
}
