//! The smallest change that meets the expectations, and what lies just beside it.
//!
//! Candidates are one or two changes of the policies as they are. Closed forms
//! prune what cannot help, few seeds thin out the rest by halves, and what is
//! left is judged again on fresh seeds and with arrivals and service times a
//! fifth off. There is never one optimum: the changes that pass are listed,
//! smallest first, with the neighbour that fails.

use std::fmt::Write as _;

use selvedge_patterns::{breaker, budget, bulkhead};

use crate::model::{Refused, Scenario};
use crate::search::Knob;
use crate::study::{Outcome, Study, success_rate};
use crate::theory::storm_possible;

/// One change of one policy.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    service: usize,
    what: What,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Attempts(u32),
    Budget(f64),
    AttemptTimeout(f64),
    Breaker,
    InFlight(u32),
    NoHedge,
}

/// One or two changes, and what became of them.
#[derive(Clone, Debug)]
struct Candidate {
    changes: Vec<Change>,
    passed: usize,
    score: f64,
    holds: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Advice {
    scenario: Scenario,
    already: bool,
    tried: usize,
    pruned: usize,
    front: Vec<Finding>,
    failing: Vec<Candidate>,
}

#[derive(Clone, Debug)]
struct Finding {
    candidate: Candidate,
    success: f64,
    p99_ms: f64,
    amplification: f64,
    recovery_seconds: f64,
    /// Of the perturbed settings, how many it also passes.
    robust: (usize, usize),
}

/// Looks for changes of `scenario`'s policies that meet its expectations.
///
/// # Errors
///
/// [`Refused`] if the scenario cannot be simulated.
pub fn advise(
    scenario: &Scenario,
    threads: usize,
    progress: &mut dyn FnMut(&str),
) -> Result<Advice, Refused> {
    let mut advice = Advice {
        scenario: scenario.clone(),
        already: false,
        tried: 0,
        pruned: 0,
        front: Vec::new(),
        failing: Vec::new(),
    };
    progress("the configuration as it is");
    let now = Study::run(scenario, threads, &|_| ())?;
    if now.outcome() == Outcome::Passed {
        advice.already = true;
        return Ok(advice);
    }
    let all = singles(scenario);
    let singles: Vec<Change> =
        all.iter().filter(|change| may_help(scenario, change)).cloned().collect();
    advice.pruned = all.len() - singles.len();
    let ones = singles.iter().map(|change| vec![change.clone()]).collect();
    let mut ranked = halve(scenario, ones, threads, &mut advice, progress)?;
    if !ranked.iter().any(|candidate| candidate.holds) {
        let best: Vec<Change> =
            ranked.iter().take(5).map(|candidate| candidate.changes[0].clone()).collect();
        let mut pairs = Vec::new();
        for (i, one) in best.iter().enumerate() {
            for other in &best[i + 1..] {
                if std::mem::discriminant(&one.what) != std::mem::discriminant(&other.what)
                    || one.service != other.service
                {
                    pairs.push(vec![one.clone(), other.clone()]);
                }
            }
        }
        ranked.extend(halve(scenario, pairs, threads, &mut advice, progress)?);
    }
    ranked.sort_by(|a, b| a.changes.len().cmp(&b.changes.len()).then(b.score.total_cmp(&a.score)));
    let holding: Vec<Candidate> =
        ranked.iter().filter(|candidate| candidate.holds).take(5).cloned().collect();
    advice.failing.extend(ranked.into_iter().filter(|candidate| !candidate.holds));
    for candidate in holding {
        progress(&format!(
            "fresh seeds and perturbations: {}",
            describe(scenario, &candidate.changes)
        ));
        match confirm(scenario, &candidate, threads)? {
            Some(finding) => advice.front.push(finding),
            None => advice.failing.push(candidate),
        }
    }
    Ok(advice)
}

fn singles(scenario: &Scenario) -> Vec<Change> {
    let rates = scenario.visit_rates();
    let mut changes = Vec::new();
    for (service, model) in scenario.services.iter().enumerate() {
        let Some(policy) = &model.policy else { continue };
        let mut add = |what| changes.push(Change { service, what });
        if let Some(retry) = &policy.retry {
            (1..retry.attempts).rev().for_each(|attempts| add(What::Attempts(attempts)));
            let usual = policy.budget.as_ref().map_or(f64::INFINITY, |budget| budget.ratio);
            [0.2, 0.1, 0.05]
                .into_iter()
                .filter(|ratio| *ratio < usual)
                .for_each(|ratio| add(What::Budget(ratio)));
        }
        if let Some(attempt) = policy.timeout.attempt {
            [0.5, 2.0]
                .into_iter()
                .for_each(|factor| add(What::AttemptTimeout(attempt.as_secs_f64() * factor)));
        }
        if policy.breaker.is_none() {
            add(What::Breaker);
        }
        if policy.hedge.is_some() {
            add(What::NoHedge);
        }
        // By Little's law, as many as are in flight when all is well, and some room.
        let callers = f64::from(scenario.gateways.max(1));
        let usual = rates[service] * model.time.mean() / 1e9 / callers;
        for room in [2.0, 4.0] {
            let limit = libm::ceil(usual * room).max(2.0) as u32;
            if policy.bulkhead.as_ref().is_none_or(|bulkhead| limit < bulkhead.max_in_flight) {
                add(What::InFlight(limit));
            }
        }
    }
    changes
}

/// Whether mathematics leaves any hope: attempts that still exceed the
/// capacity without a bound hold a collapse up, whatever their number.
fn may_help(scenario: &Scenario, change: &Change) -> bool {
    let What::Attempts(attempts) = change.what else { return true };
    let model = &scenario.services[change.service];
    let offered = scenario.visit_rates()[change.service];
    let budgeted = model.policy.as_ref().is_some_and(|policy| policy.budget.is_some());
    let timeout = model
        .policy
        .as_ref()
        .and_then(|policy| policy.timeout.attempt)
        .map_or(f64::INFINITY, |it| it.as_secs_f64());
    let queue = model.queue.cap.map_or(f64::INFINITY, |cap| f64::from(cap * model.replicas));
    budgeted || !storm_possible(offered, model.capacity(), f64::from(attempts - 1), timeout, queue)
}

fn apply(scenario: &mut Scenario, changes: &[Change]) {
    for Change { service, what } in changes {
        match what {
            What::Attempts(attempts) => {
                Knob::Attempts(*service).set(scenario, f64::from(*attempts))
            }
            What::AttemptTimeout(seconds) => Knob::AttemptTimeout(*service).set(scenario, *seconds),
            _ => {}
        }
        let Some(policy) = &mut scenario.services[*service].policy else { continue };
        match what {
            What::Budget(ratio) => {
                policy.budget =
                    Some(budget::Config { ratio: *ratio, ..policy.budget.unwrap_or_default() });
            }
            What::Breaker => policy.breaker = Some(breaker::Config::default()),
            What::InFlight(limit) => {
                let base = policy.bulkhead.unwrap_or_default();
                policy.bulkhead = Some(bulkhead::Config { max_in_flight: *limit, ..base });
            }
            What::NoHedge => policy.hedge = None,
            What::Attempts(_) | What::AttemptTimeout(_) => {}
        }
    }
}

/// Thins candidates out by halves, with twice the seeds each time, the same seeds for all.
fn halve(
    scenario: &Scenario,
    candidates: Vec<Vec<Change>>,
    threads: usize,
    advice: &mut Advice,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Candidate>, Refused> {
    let mut field: Vec<Candidate> = candidates
        .into_iter()
        .map(|changes| Candidate { changes, passed: 0, score: 0.0, holds: false })
        .collect();
    let mut done = Vec::new();
    let most = scenario.run.seeds.max(4);
    let mut seeds = 3;
    while !field.is_empty() {
        for candidate in &mut field {
            progress(&format!("{seeds} seeds: {}", describe(scenario, &candidate.changes)));
            let mut varied = scenario.clone();
            apply(&mut varied, &candidate.changes);
            varied.run.seeds = seeds;
            if varied.validate().is_err() {
                continue;
            }
            advice.tried += 1;
            let study = Study::run(&varied, threads, &|_| ())?;
            candidate.passed =
                study.checks.iter().filter(|check| check.result != Outcome::Failed).count();
            candidate.holds = study.outcome() == Outcome::Passed;
            candidate.score = candidate.passed as f64 + study.over_runs(success_rate).mean;
        }
        field.sort_by(|a, b| b.score.total_cmp(&a.score));
        if seeds >= most {
            break;
        }
        let keep = field.len().div_ceil(2).max(4.min(field.len()));
        done.extend(
            field
                .split_off(keep)
                .into_iter()
                .map(|candidate| Candidate { holds: false, ..candidate }),
        );
        seeds = (seeds * 2).min(most);
    }
    field.extend(done);
    Ok(field)
}

/// Fresh seeds must agree; then arrivals and service times a fifth off.
fn confirm(
    scenario: &Scenario,
    candidate: &Candidate,
    threads: usize,
) -> Result<Option<Finding>, Refused> {
    let mut fresh = scenario.clone();
    apply(&mut fresh, &candidate.changes);
    fresh.run.seed += 10_000;
    let study = Study::run(&fresh, threads, &|_| ())?;
    if study.outcome() == Outcome::Failed {
        return Ok(None);
    }
    let mut robust = (0, 0);
    for factor in [0.8, 1.2] {
        for client in 0..fresh.clients.len() {
            let mut off = fresh.clone();
            off.run.seeds = off.run.seeds.min(6);
            let knob = Knob::Rate(client);
            if let Some(rate) = knob.value(&off) {
                knob.set(&mut off, rate * factor);
                robust.1 += 1;
                robust.0 +=
                    usize::from(Study::run(&off, threads, &|_| ())?.outcome() != Outcome::Failed);
            }
        }
    }
    let times: Vec<f64> = study
        .verdicts
        .iter()
        .filter_map(|it| it.recovered_after)
        .map(|it| it.as_secs_f64())
        .collect();
    Ok(Some(Finding {
        candidate: candidate.clone(),
        success: study.over_runs(success_rate).mean,
        p99_ms: study.over_runs(|run| run.clients.latency.quantile(0.99)).mean / 1e6,
        amplification: study.over_verdicts(|verdict| verdict.amplification).mean,
        recovery_seconds: times.iter().copied().fold(0.0, f64::max),
        robust,
    }))
}

fn describe(scenario: &Scenario, changes: &[Change]) -> String {
    let one = |change: &Change| {
        let name = &scenario.services[change.service].name;
        match &change.what {
            What::Attempts(attempts) => format!("services.{name}.retry.attempts: {attempts}"),
            What::Budget(ratio) => format!("services.{name}.retry.budget: {:.0}%", ratio * 100.0),
            What::AttemptTimeout(seconds) => {
                format!("services.{name}.timeout.attempt: {:.0}ms", seconds * 1e3)
            }
            What::Breaker => format!("services.{name}.breaker: on"),
            What::InFlight(limit) => format!("services.{name}.bulkhead.max_in_flight: {limit}"),
            What::NoHedge => format!("services.{name}.hedge: off"),
        }
    };
    changes.iter().map(one).collect::<Vec<_>>().join(" and ")
}

impl Advice {
    /// Whether the expectations can be met.
    #[must_use]
    pub fn found(&self) -> bool {
        self.already || !self.front.is_empty()
    }

    /// What was found, for a person.
    #[must_use]
    pub fn text(&self) -> String {
        if self.already {
            return "Every expectation holds as it is: nothing to change.".to_owned();
        }
        let mut out = format!(
            "{} evaluations, {} candidates ruled out by closed forms.\n",
            self.tried, self.pruned
        );
        if self.front.is_empty() {
            out.push_str("\nNo change of one or two keys meets the expectations. The nearest:\n");
        } else {
            out.push_str(
                "\nChanges that meet the expectations on fresh seeds, smallest first:\n\n",
            );
            out.push_str("| change | success | p99 | amplification | slowest recovery | holds at ±20 % load |\n|---|---|---|---|---|---|\n");
            for finding in &self.front {
                let _ = writeln!(
                    out,
                    "| {} | {:.2} % | {:.0} ms | {:.2}× | {:.0} s | {} of {} |",
                    describe(&self.scenario, &finding.candidate.changes),
                    finding.success * 100.0,
                    finding.p99_ms,
                    finding.amplification,
                    finding.recovery_seconds,
                    finding.robust.0,
                    finding.robust.1
                );
            }
            out.push_str("\nNeighbours that fail:\n");
        }
        for candidate in self.failing.iter().take(5) {
            let total = self.scenario.expect.len();
            let _ = writeln!(
                out,
                "- {}: {} of {total} expectations",
                describe(&self.scenario, &candidate.changes),
                candidate.passed
            );
        }
        out.push_str("\nA rehearsal is evidence about the model, not a proof: try it on fewer users first.\n");
        out
    }
}

#[cfg(test)]
mod tests;
