//! Where it tips over: boundaries, maps, and pairs, all under the same luck.

use selvedge_patterns::time::Duration;

use crate::model::{Arrivals, FaultKind, Refused, Scenario};
use crate::replicate::in_parallel;
use crate::statistics::{Estimate, estimate, wilson};
use crate::study::success_rate;
use crate::verdict::{Kind, judge};
use crate::world;

/// A number of a scenario that can be varied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knob {
    /// How long fault number n lasts.
    FaultFor(usize),
    /// How strong fault number n is: factor, probability, or capacity taken away.
    FaultSize(usize),
    /// Calls per second of client number n.
    Rate(usize),
    /// The deadline of client number n, in seconds.
    Deadline(usize),
    /// Slots of service number n.
    Slots(usize),
    /// Queue cap of service number n.
    Queue(usize),
    /// Attempt timeout of the policy of service number n, in seconds.
    AttemptTimeout(usize),
    /// Attempts of the retry policy of service number n.
    Attempts(usize),
    /// Ratio of the retry budget of service number n.
    BudgetRatio(usize),
    /// Attempts in flight that the bulkhead of service number n admits.
    MaxInFlight(usize),
    /// Gateway replicas.
    Gateways,
}

/// Why a knob cannot be turned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoSuchKnob(String);

impl Knob {
    /// Reads `faults[0].for`, `clients.web.rate`, `services.db.slots`,
    /// `services.db.retry.attempts` and the like; the plain words `rate`,
    /// `deadline`, `slots`, `timeout`, `attempts` mean the first that there is.
    ///
    /// # Errors
    ///
    /// [`NoSuchKnob`], naming what can be varied.
    pub fn parse(text: &str, scenario: &Scenario) -> Result<Self, NoSuchKnob> {
        let unknown = || {
            NoSuchKnob(format!(
                "`{text}` cannot be varied; what can: faults[N].for, faults[N].size, clients.NAME.rate, clients.NAME.deadline, \
                 services.NAME.slots, .queue, .timeout.attempt, .retry.attempts, .retry.budget, .bulkhead.max_in_flight, gateways"
            ))
        };
        let parts: Vec<&str> = text.split('.').collect();
        let service = |name: &str| {
            scenario.services.iter().position(|service| service.name == name).ok_or_else(unknown)
        };
        let client = |name: &str| {
            scenario.clients.iter().position(|client| client.name == name).ok_or_else(unknown)
        };
        match parts.as_slice() {
            ["rate"] => Ok(Self::Rate(0)),
            ["deadline"] => Ok(Self::Deadline(0)),
            ["slots"] => Ok(Self::Slots(0)),
            ["timeout"] => Ok(Self::AttemptTimeout(first_policy(scenario).ok_or_else(unknown)?)),
            ["attempts"] => Ok(Self::Attempts(first_policy(scenario).ok_or_else(unknown)?)),
            ["gateways"] => Ok(Self::Gateways),
            ["clients", name, "rate"] => Ok(Self::Rate(client(name)?)),
            ["clients", name, "deadline"] => Ok(Self::Deadline(client(name)?)),
            ["services", name, "slots"] => Ok(Self::Slots(service(name)?)),
            ["services", name, "queue"] => Ok(Self::Queue(service(name)?)),
            ["services", name, "timeout", "attempt"] => Ok(Self::AttemptTimeout(service(name)?)),
            ["services", name, "retry", "attempts"] => Ok(Self::Attempts(service(name)?)),
            ["services", name, "retry", "budget"] => Ok(Self::BudgetRatio(service(name)?)),
            ["services", name, "bulkhead", "max_in_flight"] => {
                Ok(Self::MaxInFlight(service(name)?))
            }
            [fault, what] => {
                let number = fault.strip_prefix("faults[").and_then(|rest| rest.strip_suffix(']'));
                let number: usize =
                    number.and_then(|digits| digits.parse().ok()).ok_or_else(unknown)?;
                if number >= scenario.faults.len() {
                    return Err(NoSuchKnob(format!(
                        "there is no fault number {number}; they count from 0"
                    )));
                }
                match *what {
                    "for" => Ok(Self::FaultFor(number)),
                    "size" => Ok(Self::FaultSize(number)),
                    _ => Err(unknown()),
                }
            }
            _ => Err(unknown()),
        }
    }

    /// Whether its values are seconds.
    #[must_use]
    pub const fn is_time(&self) -> bool {
        matches!(self, Self::FaultFor(_) | Self::Deadline(_) | Self::AttemptTimeout(_))
    }

    /// Its value in `scenario`; `None` where it is not set.
    #[must_use]
    pub fn value(&self, scenario: &Scenario) -> Option<f64> {
        let policy = |service: usize| scenario.services[service].policy.as_deref();
        match *self {
            Self::FaultFor(n) => Some(scenario.faults[n].lasts.as_secs_f64()),
            Self::FaultSize(n) => match scenario.faults[n].kind {
                FaultKind::Latency { factor, .. } | FaultKind::Load { factor, .. } => Some(factor),
                FaultKind::Errors { probability, .. } => Some(probability),
                FaultKind::Capacity { left, .. } => Some(1.0 - left),
                FaultKind::Crash { replicas, .. } | FaultKind::Partition { replicas, .. } => {
                    Some(f64::from(replicas))
                }
                FaultKind::CacheFlush { .. } | FaultKind::Deploy { .. } => None,
            },
            Self::Rate(n) => scenario.clients[n].arrivals.rate(),
            Self::Deadline(n) => scenario.clients[n].deadline.map(|it| it.as_secs_f64()),
            Self::Slots(n) => Some(f64::from(scenario.services[n].slots)),
            Self::Queue(n) => scenario.services[n].queue.cap.map(f64::from),
            Self::AttemptTimeout(n) => policy(n)?.timeout.attempt.map(|it| it.as_secs_f64()),
            Self::Attempts(n) => Some(f64::from(policy(n)?.retry?.attempts)),
            Self::BudgetRatio(n) => Some(policy(n)?.budget?.ratio),
            Self::MaxInFlight(n) => Some(f64::from(policy(n)?.bulkhead?.max_in_flight)),
            Self::Gateways => Some(f64::from(scenario.gateways)),
        }
    }

    /// Sets it. What follows a longer fault is kept as long as it was.
    pub fn set(&self, scenario: &mut Scenario, value: f64) {
        let whole = libm::round(value).max(1.0) as u32;
        let seconds = Duration::from_secs_f64(value.clamp(1e-6, 1e6));
        match *self {
            Self::FaultFor(n) => {
                let before = scenario.faults[n].lasts;
                scenario.faults[n].lasts = seconds;
                scenario.faults[n].ramp = scenario.faults[n].ramp.min(seconds);
                scenario.run.duration = (scenario.run.duration + seconds).saturating_sub(before);
            }
            Self::FaultSize(n) => match &mut scenario.faults[n].kind {
                FaultKind::Latency { factor, .. } | FaultKind::Load { factor, .. } => {
                    *factor = value.max(1e-3)
                }
                FaultKind::Errors { probability, .. } => *probability = value.clamp(0.0, 1.0),
                FaultKind::Capacity { left, .. } => *left = (1.0 - value).clamp(0.0, 1.0),
                FaultKind::Crash { replicas, .. } | FaultKind::Partition { replicas, .. } => {
                    *replicas = whole
                }
                FaultKind::CacheFlush { .. } | FaultKind::Deploy { .. } => {}
            },
            Self::Rate(n) => match &mut scenario.clients[n].arrivals {
                Arrivals::Poisson { rate } | Arrivals::Paced { rate } => *rate = value,
                Arrivals::Mmpp { rates, .. } => {
                    let scale = value / (rates[0] + rates[1]) * 2.0;
                    *rates = rates.map(|rate| rate * scale);
                }
                Arrivals::Trace(_) | Arrivals::Closed { .. } => {}
            },
            Self::Deadline(n) => scenario.clients[n].deadline = Some(seconds),
            Self::Slots(n) => scenario.services[n].slots = whole,
            Self::Queue(n) => scenario.services[n].queue.cap = Some(whole),
            Self::Gateways => scenario.gateways = whole,
            Self::AttemptTimeout(n) => {
                if let Some(policy) = &mut scenario.services[n].policy {
                    policy.timeout.attempt = Some(seconds);
                    policy.timeout.connect = policy.timeout.connect.min(seconds);
                    policy.timeout.total = policy.timeout.total.map(|total| total.max(seconds));
                }
            }
            Self::Attempts(n) => {
                if let Some(policy) = &mut scenario.services[n].policy {
                    policy.retry.get_or_insert_default().attempts = whole;
                }
            }
            Self::BudgetRatio(n) => {
                if let Some(policy) = &mut scenario.services[n].policy {
                    policy.budget.get_or_insert_default().ratio = value;
                }
            }
            Self::MaxInFlight(n) => {
                if let Some(policy) = &mut scenario.services[n].policy {
                    policy.bulkhead.get_or_insert_default().max_in_flight = whole;
                }
            }
        }
    }
}

fn first_policy(scenario: &Scenario) -> Option<usize> {
    scenario.services.iter().position(|service| service.policy.is_some())
}

/// How many of the seeds recover, and how many seeds there were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The knob's value.
    pub value: f64,
    /// Seeds that recovered.
    pub well: usize,
    /// Seeds.
    pub seeds: usize,
    /// The commonest verdict.
    pub kind: Kind,
    /// Mean success rate of the clients.
    pub success: f64,
}

fn verdicts(scenario: &Scenario, threads: usize) -> Vec<(Kind, f64)> {
    in_parallel(scenario.run.seeds as usize, threads, &|_| (), |index| {
        let run = world::run(scenario, scenario.run.seed + index as u64);
        (judge(scenario, &run).kind, success_rate(&run))
    })
}

fn point(scenario: &Scenario, value: f64, threads: usize) -> Point {
    let results = verdicts(scenario, threads);
    let count = |kind| results.iter().filter(|(found, _)| *found == kind).count();
    let kind = Kind::ALL.into_iter().max_by_key(|kind| count(*kind)).unwrap_or(Kind::Steady);
    let success =
        results.iter().map(|(_, success)| success).sum::<f64>() / results.len().max(1) as f64;
    Point {
        value,
        well: results.iter().filter(|(kind, _)| kind.well()).count(),
        seeds: results.len(),
        kind,
        success,
    }
}

/// Where half the runs no longer recover.
#[derive(Clone, Debug, PartialEq)]
pub struct Boundary {
    /// The value at which half of them recover; `None` if they all do up to the end of the range, or none at its start.
    pub half: Option<f64>,
    /// Between these it lies: most recover at the first, most do not at the second.
    pub between: (f64, f64),
    /// Every value that was tried, rising.
    pub points: Vec<Point>,
}

/// Bisects `knob` between `from` and `to`, the same seeds at every value.
///
/// # Errors
///
/// [`Refused`] if the scenario cannot be simulated at either end.
pub fn boundary(
    scenario: &Scenario,
    knob: &Knob,
    from: f64,
    to: f64,
    threads: usize,
    progress: &mut dyn FnMut(&Point),
) -> Result<Boundary, Refused> {
    let mut points = Vec::new();
    let mut ask = |value: f64, points: &mut Vec<Point>| -> Result<bool, Refused> {
        let mut varied = scenario.clone();
        knob.set(&mut varied, value);
        varied.validate()?;
        let found = point(&varied, value, threads);
        progress(&found);
        points.push(found);
        Ok(found.well * 2 >= found.seeds)
    };
    let (at_from, at_to) = (ask(from, &mut points)?, ask(to, &mut points)?);
    if at_from == at_to {
        points.sort_by(|a, b| a.value.total_cmp(&b.value));
        return Ok(Boundary { half: None, between: (from, to), points });
    }
    let (mut well, mut ill) = if at_from { (from, to) } else { (to, from) };
    let accuracy = (to - from).abs() / 128.0;
    while (ill - well).abs() > accuracy {
        let middle = f64::midpoint(well, ill);
        if ask(middle, &mut points)? {
            well = middle;
        } else {
            ill = middle;
        }
    }
    points.sort_by(|a, b| a.value.total_cmp(&b.value));
    // The interval: from the last value at which surely most recover to the first at which surely most do not.
    let surely = |point: &Point, most: bool| {
        let (low, high) = wilson(point.well, point.seeds);
        if most { low > 0.5 } else { high < 0.5 }
    };
    let near = |most: bool| {
        let side = points.iter().filter(|point| surely(point, most)).map(|point| point.value);
        side.min_by(|a, b| {
            (a - f64::midpoint(well, ill)).abs().total_cmp(&(b - f64::midpoint(well, ill)).abs())
        })
    };
    let between = (near(true).unwrap_or(well), near(false).unwrap_or(ill));
    Ok(Boundary { half: Some(f64::midpoint(well, ill)), between, points })
}

/// Whether a cell of a map can be trusted to stay up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// Every run recovers.
    Stable,
    /// Some do.
    Vulnerable,
    /// Hardly any does.
    Metastable,
    /// It is not well even before the fault.
    Unhealthy,
}

impl Region {
    /// As written in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Vulnerable => "vulnerable",
            Self::Metastable => "metastable",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Two knobs against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Values of the first, rising.
    pub x: Vec<f64>,
    /// Values of the second, rising.
    pub y: Vec<f64>,
    /// `cells[y][x]`.
    pub cells: Vec<Vec<Point>>,
}

impl Map {
    /// What a cell is.
    #[must_use]
    pub fn region(point: &Point) -> Region {
        if point.kind == Kind::UnhealthyBeforeTrigger {
            Region::Unhealthy
        } else if point.well == point.seeds {
            Region::Stable
        } else if point.well * 10 > point.seeds {
            Region::Vulnerable
        } else {
            Region::Metastable
        }
    }
}

/// Evaluates a grid of two knobs, the same seeds in every cell.
///
/// # Errors
///
/// [`Refused`] if a cell cannot be simulated.
pub fn map(
    scenario: &Scenario,
    (x_knob, x): (&Knob, Vec<f64>),
    (y_knob, y): (&Knob, Vec<f64>),
    threads: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Map, Refused> {
    let total = x.len() * y.len();
    let mut cells = Vec::new();
    for y_value in &y {
        let mut row = Vec::new();
        for x_value in &x {
            let mut varied = scenario.clone();
            x_knob.set(&mut varied, *x_value);
            y_knob.set(&mut varied, *y_value);
            varied.validate()?;
            row.push(point(&varied, *x_value, threads));
            progress(cells.len() * x.len() + row.len(), total);
        }
        cells.push(row);
    }
    Ok(Map { x, y, cells })
}

/// Two scenarios under the same luck.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What is compared.
    pub what: &'static str,
    /// Its value in the first.
    pub before: Estimate,
    /// Its value in the second.
    pub after: Estimate,
    /// The mean of the differences seed by seed, with its interval.
    pub difference: Estimate,
    /// Whether more is better.
    pub more_is_better: bool,
}

impl Difference {
    /// Whether the interval of the difference leaves out zero.
    #[must_use]
    pub fn significant(&self) -> bool {
        self.difference.low() > 0.0 || self.difference.high() < 0.0
    }
}

/// Compares two studies seed by seed.
#[must_use]
pub fn differences(before: &crate::study::Study, after: &crate::study::Study) -> Vec<Difference> {
    let paired = |what, more_is_better, of: &dyn Fn(&crate::study::Study, usize) -> f64| {
        let count = before.runs.len().min(after.runs.len());
        let (a, b): (Vec<f64>, Vec<f64>) =
            (0..count).map(|i| (of(before, i), of(after, i))).unzip();
        let d: Vec<f64> = a.iter().zip(&b).map(|(a, b)| b - a).collect();
        Difference {
            what,
            before: estimate(&a),
            after: estimate(&b),
            difference: estimate(&d),
            more_is_better,
        }
    };
    vec![
        paired("success rate", true, &|s, i| success_rate(&s.runs[i])),
        paired("recovered (1 = yes)", true, &|s, i| f64::from(u8::from(s.verdicts[i].kind.well()))),
        paired("goodput after, per second", true, &|s, i| s.verdicts[i].after),
        paired("goodput during, per second", true, &|s, i| s.verdicts[i].during),
        paired("p50, ms", false, &|s, i| s.runs[i].clients.latency.quantile(0.5) / 1e6),
        paired("p99, ms", false, &|s, i| s.runs[i].clients.latency.quantile(0.99) / 1e6),
        paired("amplification", false, &|s, i| s.verdicts[i].amplification),
        paired("wasted work", false, &|s, i| s.verdicts[i].wasted),
    ]
}
