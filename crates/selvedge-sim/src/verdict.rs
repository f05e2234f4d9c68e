//! What became of the system after the last fault.

use selvedge_patterns::time::{Duration, nanos};

use crate::model::Scenario;
use crate::record::Replication;
use crate::statistics::slope;

/// How one replication ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// There was no fault to recover from, and it was well throughout.
    Steady,
    /// Goodput came back to 95 % of before for ten seconds, in time, and stayed.
    Recovered,
    /// Not back yet, but the backlog falls at half the possible rate or more.
    Slow,
    /// Not back, and what holds it down does not go away.
    Metastable,
    /// The memory guard stopped it: backlog without bound.
    Diverged,
    /// It was not well before the first fault, so nothing can be said about recovery.
    UnhealthyBeforeTrigger,
}

impl Kind {
    /// As written in scenarios and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Recovered => "recovered",
            Self::Slow => "slow",
            Self::Metastable => "metastable",
            Self::Diverged => "diverged",
            Self::UnhealthyBeforeTrigger => "unhealthy-before-trigger",
        }
    }

    /// All of them, in the order in which reports list them.
    pub const ALL: [Self; 6] = [
        Self::Steady,
        Self::Recovered,
        Self::Slow,
        Self::Metastable,
        Self::Diverged,
        Self::UnhealthyBeforeTrigger,
    ];

    /// Whether users are served again.
    #[must_use]
    pub const fn well(self) -> bool {
        matches!(self, Self::Steady | Self::Recovered)
    }
}

/// The verdict on one replication, with the numbers it was reached by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// What it is.
    pub kind: Kind,
    /// Good answers per second before the first fault, after the warm-up.
    pub baseline: f64,
    /// Share of calls that were answered well before the first fault.
    pub baseline_success: f64,
    /// Good answers per second over the last third of what follows the last fault.
    pub after: f64,
    /// Good answers per second while faults lasted.
    pub during: f64,
    /// Time from the end of the last fault until recovery.
    pub recovered_after: Option<Duration>,
    /// Most attempts at services in ten seconds, against the mean before the first fault.
    pub amplification: f64,
    /// Share of all work that was done for callers who had left.
    pub wasted: f64,
    /// Change of the backlog per second over the last third.
    pub backlog_slope: f64,
}

/// Seconds over which recovery must hold.
const HOLD: f64 = 10.0;
/// Share of the baseline that counts as back.
const BACK: f64 = 0.95;

/// Judges one replication of `scenario`.
#[must_use]
pub fn judge(scenario: &Scenario, run: &Replication) -> Verdict {
    let width = nanos(scenario.run.bin) as f64 / 1e9;
    let goodput = run.goodput(width);
    let bins = goodput.len();
    let bin_of = |at: u64| ((at / nanos(scenario.run.bin)) as usize).min(bins);
    let warm = bin_of(nanos(scenario.run.warm_up));
    let (from, until) = scenario.trigger().unwrap_or((u64::MAX, u64::MAX));
    let (t0, t1) = (bin_of(from), bin_of(until.saturating_add(nanos(scenario.run.bin) - 1)));
    let before = warm.min(t0)..t0;
    let baseline = mean(&goodput[before.clone()]);
    let offered: f64 = run.bins[before.clone()].iter().map(|bin| f64::from(bin.offered)).sum();
    let good: f64 = run.bins[before.clone()].iter().map(|bin| f64::from(bin.good)).sum();
    let baseline_success = if offered > 0.0 { (good / offered).min(1.0) } else { 0.0 };
    let last_third = t1.min(bins) + (bins - t1.min(bins)) * 2 / 3..bins;
    let attempts = run.attempts();
    let backlog: Vec<f64> =
        run.bins[last_third.clone()].iter().map(|bin| f64::from(bin.alive)).collect();
    let hold = (libm::ceil(HOLD / width) as usize).max(1);
    let after = mean(&goodput[last_third]);
    let recovered_after = (t1 < bins)
        .then(|| first_held(&goodput[t1..], hold, BACK * baseline))
        .flatten()
        .map(|bin| Duration::from_secs_f64(bin as f64 * width));
    let quiet = mean(&attempts[before]).max(f64::MIN_POSITIVE);
    let peak = attempts.windows(hold.min(attempts.len().max(1))).map(mean).fold(0.0, f64::max);
    let mut verdict = Verdict {
        kind: Kind::Steady,
        baseline,
        baseline_success,
        after,
        during: mean(&goodput[t0..t1.max(t0)]),
        recovered_after,
        amplification: peak / quiet,
        wasted: run.wasted_share(),
        backlog_slope: slope(&backlog) / width,
    };
    verdict.kind = kind(scenario, run, &verdict, &backlog);
    verdict
}

fn kind(scenario: &Scenario, run: &Replication, verdict: &Verdict, backlog: &[f64]) -> Kind {
    let unhealthy = verdict.baseline_success < scenario.run.healthy;
    let Some((from, _)) = scenario.trigger() else {
        return match run.diverged_at {
            Some(_) => Kind::Diverged,
            None if unhealthy => Kind::UnhealthyBeforeTrigger,
            None => Kind::Steady,
        };
    };
    if unhealthy || run.diverged_at.is_some_and(|at| at < from) {
        return Kind::UnhealthyBeforeTrigger;
    }
    if run.diverged_at.is_some() {
        return Kind::Diverged;
    }
    let in_time = verdict.recovered_after.is_some_and(|after| after <= scenario.run.recovery_limit);
    // Noise of a Poisson count is no relapse.
    let seconds = backlog.len() as f64 * nanos(scenario.run.bin) as f64 / 1e9;
    let noise = 3.0 / libm::sqrt((verdict.baseline * seconds).max(1.0));
    if in_time && verdict.after >= (BACK - noise) * verdict.baseline {
        return Kind::Recovered;
    }
    let possible = drain_rate(scenario);
    if possible > 0.0 && verdict.backlog_slope < 0.0 && -verdict.backlog_slope >= 0.5 * possible {
        return Kind::Slow;
    }
    Kind::Metastable
}

/// Requests per second by which a backlog can fall while everybody tries as often as they may.
fn drain_rate(scenario: &Scenario) -> f64 {
    let tries = 1.0
        + scenario
            .clients
            .iter()
            .filter_map(|client| client.user_retry.as_ref())
            .map(|retry| retry.probability * f64::from(retry.attempts))
            .fold(0.0, f64::max);
    let rates = scenario.visit_rates();
    scenario
        .services
        .iter()
        .zip(rates)
        .filter(|(_, rate)| *rate > 0.0)
        .map(|(service, rate)| service.capacity() - rate * tries * service.attempts_most())
        .fold(f64::INFINITY, f64::min)
}

fn first_held(series: &[f64], hold: usize, level: f64) -> Option<usize> {
    series.windows(hold).position(|window| mean(window) >= level && window[0] >= level * 0.8)
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}
