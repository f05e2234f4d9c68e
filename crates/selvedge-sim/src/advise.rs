//! The smallest change that meets the expectations, and what lies just beside it.
//!
//! Candidates are changes of the policies' keys: each alone over its range, and
//! points of a Sobol sequence over all of them. Closed forms prune what cannot
//! help; successive halving compares the rest under the same luck (common
//! random numbers), each by the worst of the faults; what holds is shrunk
//! towards the configuration as it is until its neighbour fails; then it is
//! judged again on fresh seeds, and with load, capacity and service tail a
//! fifth off. There is never one optimum: what is left is the Pareto front.

mod space;

use std::fmt::Write as _;

use selvedge_patterns::time::Duration;
use serde_json::{Value, json};

use crate::distribution::Distribution;
use crate::model::{Arrivals, Expectation, Refused, Scenario};
use crate::record::Replication;
use crate::report::SCHEMA;
use crate::search::Knob;
use crate::statistics::estimate;
use crate::study::{Outcome, Study, success_rate};
use crate::theory::storm_possible;

use space::{Axis, Change, apply, axes, design};

/// Points of the design, beside the keys alone.
const DESIGN: u32 = 32;
/// Settings judged at most; what is not reached by then is left out, and said.
const EVALUATIONS_MAX: usize = 500;
/// Holding candidates that are shrunk and confirmed at most.
const CONFIRMED_MAX: usize = 6;

/// What became of one setting.
#[derive(Clone, Debug)]
struct Candidate {
    changes: Vec<Change>,
    /// Expectations that did not fail, in the worst case.
    passed: usize,
    holds: bool,
    /// Success rate by seed, in the worst case.
    success: Vec<f64>,
}

/// A setting that holds.
#[derive(Clone, Debug)]
struct Finding {
    changes: Vec<Change>,
    /// Goodput while the worst fault lasts, against before it.
    goodput: f64,
    /// p99 without any fault.
    healthy_p99_ms: f64,
    /// Attempts at services, against before, in the worst ten seconds of the worst fault.
    extra_load: f64,
    /// The slowest recovery.
    recovery_seconds: f64,
    /// Of the perturbed settings: held, tried, and those that did not.
    held: usize,
    perturbed: usize,
    breaks_at: Vec<&'static str>,
    /// The same a step nearer to the configuration as it is; it fails.
    neighbour: Option<Vec<Change>>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Advice {
    scenario: Scenario,
    axes: Vec<Axis>,
    cases: usize,
    already: bool,
    evaluations: usize,
    pruned: usize,
    exhausted: bool,
    front: Vec<Finding>,
    nearest: Vec<Candidate>,
}

struct Search<'a> {
    cases: Vec<Scenario>,
    axes: Vec<Axis>,
    threads: usize,
    evaluations: usize,
    progress: &'a mut dyn FnMut(&str),
}

/// Looks for changes of `scenario`'s policies that meet its expectations in
/// every case: each fault alone, and all of them as written.
///
/// # Errors
///
/// [`Refused`] if the scenario cannot be simulated.
pub fn advise(
    scenario: &Scenario,
    threads: usize,
    progress: &mut dyn FnMut(&str),
) -> Result<Advice, Refused> {
    let axes = axes(scenario);
    let cases = cases(scenario);
    let mut advice = Advice {
        scenario: scenario.clone(),
        axes: axes.clone(),
        cases: cases.len(),
        already: false,
        evaluations: 0,
        pruned: 0,
        exhausted: false,
        front: Vec::new(),
        nearest: Vec::new(),
    };
    let mut search = Search { cases, axes, threads, evaluations: 0, progress };
    let as_it_is = search.judge(&[], scenario.run.seeds, 0)?;
    if as_it_is.holds {
        advice.already = true;
        advice.evaluations = search.evaluations;
        return Ok(advice);
    }
    let mut field = search.candidates();
    let before = field.len();
    field.retain(|changes| search.may_help(changes));
    advice.pruned = before - field.len();
    let ranked = search.halve(field, scenario.run.seeds)?;
    let (mut holding, failing): (Vec<_>, Vec<_>) =
        ranked.into_iter().partition(|candidate| candidate.holds);
    search.smallest_first(&mut holding);
    advice.nearest = failing.into_iter().take(5).collect();
    for candidate in holding.into_iter().take(CONFIRMED_MAX) {
        let (changes, neighbour) = search.shrink(candidate.changes, scenario.run.seeds)?;
        if advice.front.iter().any(|known| known.changes == changes) {
            continue;
        }
        if let Some(finding) = search.confirm(changes, neighbour)? {
            advice.front.push(finding);
        }
    }
    advice.front = undominated(&search.axes, std::mem::take(&mut advice.front));
    advice.exhausted = search.exhausted();
    advice.evaluations = search.evaluations;
    Ok(advice)
}

/// Each fault alone, and all together.
fn cases(scenario: &Scenario) -> Vec<Scenario> {
    let mut cases = vec![scenario.clone()];
    if scenario.faults.len() > 1 {
        for (index, fault) in scenario.faults.iter().enumerate() {
            let mut alone = scenario.clone();
            alone.faults = vec![fault.clone()];
            alone.expect.retain_mut(|expectation| match expectation {
                Expectation::TriggerMargin { fault, .. } => {
                    let about_it = *fault == index;
                    *fault = 0;
                    about_it
                }
                _ => true,
            });
            cases.push(alone);
        }
    }
    cases
}

impl Search<'_> {
    fn exhausted(&self) -> bool {
        self.evaluations >= EVALUATIONS_MAX
    }

    fn candidates(&self) -> Vec<Vec<Change>> {
        let mut candidates: Vec<Vec<Change>> = Vec::new();
        for (axis, one) in self.axes.iter().enumerate() {
            candidates.extend(one.values().into_iter().map(|value| vec![Change { axis, value }]));
        }
        if self.axes.len() > 1 {
            candidates.extend(design(&self.axes, DESIGN));
        }
        candidates
    }

    /// Whether mathematics leaves any hope: where something must recover,
    /// attempts that exceed the capacity and are bounded by nothing hold a
    /// collapse up.
    fn may_help(&self, changes: &[Change]) -> bool {
        let mut varied = self.cases[0].clone();
        apply(&mut varied, &self.axes, changes);
        if varied.validate().is_err() {
            return false;
        }
        let recovery = |it: &Expectation| {
            matches!(it, Expectation::RecoversWithin(_) | Expectation::TriggerMargin { .. })
        };
        if varied.faults.is_empty() || !varied.expect.iter().any(recovery) {
            return true;
        }
        let rates = varied.visit_rates();
        !varied.services.iter().zip(rates).any(|(model, offered)| {
            let Some(policy) = &model.policy else { return false };
            let bounded =
                policy.budget.is_some() || policy.breaker.is_some() || policy.bulkhead.is_some();
            let kept = model.on_disconnect == crate::model::OnDisconnect::Keep
                && !model.queue.drop_expired
                && model.queue.patience.is_none()
                && model.queue.discipline == crate::model::Discipline::Fifo;
            let timeout = policy.timeout.attempt.map_or(f64::INFINITY, |it| it.as_secs_f64());
            let queue =
                model.queue.cap.map_or(f64::INFINITY, |cap| f64::from(cap * model.replicas));
            let retries = model.attempts_most() - 1.0;
            !bounded && kept && storm_possible(offered, model.capacity(), retries, timeout, queue)
        })
    }

    /// Judges a setting by the worst case, on seeds `offset` beyond the first.
    fn judge(&mut self, changes: &[Change], seeds: u32, offset: u64) -> Result<Candidate, Refused> {
        self.evaluations += 1;
        (self.progress)(&format!("{} of at most {EVALUATIONS_MAX} settings", self.evaluations));
        let mut worst = Candidate {
            changes: changes.to_vec(),
            passed: usize::MAX,
            holds: true,
            success: Vec::new(),
        };
        for case in &self.cases {
            let mut varied = case.clone();
            apply(&mut varied, &self.axes, changes);
            varied.run.seeds = seeds;
            varied.run.seed += offset;
            let study = Study::run(&varied, self.threads, &|_| ())?;
            let checks = &study.checks;
            let passed = checks.iter().filter(|check| check.result != Outcome::Failed).count();
            worst.passed = worst.passed.min(passed);
            worst.holds &= study.outcome() == Outcome::Passed;
            let success: Vec<f64> = study.runs.iter().map(success_rate).collect();
            worst.success = if worst.success.is_empty() {
                success
            } else {
                worst.success.iter().zip(&success).map(|(a, b)| a.min(*b)).collect()
            };
        }
        Ok(worst)
    }

    /// Thins candidates out, with twice the seeds each time, the same seeds for all.
    fn halve(&mut self, field: Vec<Vec<Change>>, most: u32) -> Result<Vec<Candidate>, Refused> {
        let most = most.max(4);
        let mut seeds = 3.min(most);
        let mut out: Vec<Candidate> = Vec::new();
        let mut field = field;
        loop {
            let mut judged = Vec::new();
            for changes in &field {
                if self.exhausted() {
                    break;
                }
                judged.push(self.judge(changes, seeds, 0)?);
            }
            judged.sort_by(|a, b| {
                (b.passed, b.mean())
                    .partial_cmp(&(a.passed, a.mean()))
                    .unwrap_or(std::cmp::Ordering::Equal)
            });
            let last = seeds >= most || self.exhausted();
            if last {
                judged.extend(out);
                return Ok(judged);
            }
            // Whoever is surely worse than the best, seed by seed, goes; of the rest half.
            let Some(best) = judged.first().cloned() else { return Ok(out) };
            let keep = judged.len().div_ceil(2).max(6);
            let (stay, go): (Vec<_>, Vec<_>) =
                judged.into_iter().enumerate().partition(|(place, candidate)| {
                    let hopeless = candidate.passed < best.passed && candidate.surely_worse(&best);
                    // A single key that holds is never pushed out by many that hold better.
                    candidate.holds && candidate.changes.len() == 1 || (*place < keep && !hopeless)
                });
            out.extend(go.into_iter().map(|(_, it)| Candidate { holds: false, ..it }));
            field = stay.into_iter().map(|(_, candidate)| candidate.changes).collect();
            seeds = (seeds * 2).min(most);
        }
    }

    fn smallest_first(&self, candidates: &mut [Candidate]) {
        candidates
            .sort_by(|a, b| size(&self.axes, &a.changes).total_cmp(&size(&self.axes, &b.changes)));
    }

    /// Takes back what is not needed, key by key, then each value step by step,
    /// as long as it holds. Answers what is left and the neighbour that fails.
    fn shrink(
        &mut self,
        mut changes: Vec<Change>,
        seeds: u32,
    ) -> Result<(Vec<Change>, Option<Vec<Change>>), Refused> {
        let mut neighbour = None;
        let mut at = 0;
        while changes.len() > 1 && at < changes.len() && !self.exhausted() {
            let mut fewer = changes.clone();
            fewer.remove(at);
            if self.judge(&fewer, seeds, 0)?.holds {
                changes = fewer;
            } else {
                neighbour = Some(fewer);
                at += 1;
            }
        }
        for place in 0..changes.len() {
            for _ in 0..6 {
                let Change { axis, value } = changes[place];
                let Some(value) = self.axes[axis].halfway(value) else { break };
                if self.exhausted() {
                    break;
                }
                let mut nearer = changes.clone();
                nearer[place].value = value;
                if self.judge(&nearer, seeds, 0)?.holds {
                    changes = nearer;
                } else {
                    neighbour = Some(nearer);
                    break;
                }
            }
        }
        Ok((changes, neighbour))
    }

    /// Fresh seeds must agree; then load, capacity and tail a fifth off.
    fn confirm(
        &mut self,
        changes: Vec<Change>,
        neighbour: Option<Vec<Change>>,
    ) -> Result<Option<Finding>, Refused> {
        const FRESH: u64 = 10_000;
        let seeds = self.cases[0].run.seeds;
        let mut finding = Finding {
            changes,
            goodput: f64::INFINITY,
            healthy_p99_ms: 0.0,
            extra_load: 0.0,
            recovery_seconds: 0.0,
            held: 0,
            perturbed: 0,
            breaks_at: Vec::new(),
            neighbour,
        };
        let mut healthy = self.cases[0].clone();
        healthy.faults.clear();
        healthy.expect.clear();
        apply(&mut healthy, &self.axes, &finding.changes);
        let calm = Study::run(&healthy, self.threads, &|_| ())?;
        finding.healthy_p99_ms = calm.over_runs(p99_ms).mean;
        for case in self.cases.clone() {
            let mut fresh = case;
            apply(&mut fresh, &self.axes, &finding.changes);
            fresh.run.seed += FRESH;
            self.evaluations += 1;
            let study = Study::run(&fresh, self.threads, &|_| ())?;
            if study.outcome() == Outcome::Failed {
                return Ok(None);
            }
            let during = study.over_verdicts(|it| it.during / it.baseline.max(f64::MIN_POSITIVE));
            let recovered = study.verdicts.iter().filter_map(|it| it.recovered_after);
            let slowest = recovered.map(|after| after.as_secs_f64()).fold(0.0, f64::max);
            finding.goodput = finding.goodput.min(during.mean);
            finding.extra_load =
                finding.extra_load.max(study.over_verdicts(|it| it.amplification).mean);
            finding.recovery_seconds = finding.recovery_seconds.max(slowest);
            fresh.run.seeds = seeds.min(6);
            for perturbation in PERTURBATIONS {
                let mut off = fresh.clone();
                if !(perturbation.apply)(&mut off) {
                    continue;
                }
                (self.progress)(&format!("{} perturbed", perturbation.name));
                finding.perturbed += 1;
                if Study::run(&off, self.threads, &|_| ())?.outcome() == Outcome::Failed {
                    if !finding.breaks_at.contains(&perturbation.name) {
                        finding.breaks_at.push(perturbation.name);
                    }
                } else {
                    finding.held += 1;
                }
            }
        }
        Ok(Some(finding))
    }
}

fn p99_ms(run: &Replication) -> f64 {
    run.clients.latency.quantile(0.99) / 1e6
}

impl Candidate {
    fn mean(&self) -> f64 {
        self.success.iter().sum::<f64>() / self.success.len().max(1) as f64
    }

    fn surely_worse(&self, best: &Self) -> bool {
        let pairs = self.success.iter().zip(&best.success);
        estimate(&pairs.map(|(own, theirs)| own - theirs).collect::<Vec<_>>()).high() < 0.0
    }
}

/// Keys first, then how far they are moved.
fn size(axes: &[Axis], changes: &[Change]) -> f64 {
    changes.iter().map(|change| 100.0 + axes[change.axis].distance(change.value)).sum()
}

/// One thing that is not as assumed.
struct Perturbation {
    name: &'static str,
    /// False where there is nothing to perturb.
    apply: fn(&mut Scenario) -> bool,
}

const PERTURBATIONS: [Perturbation; 5] = [
    Perturbation { name: "load +20 %", apply: |scenario| load(scenario, 1.2) },
    Perturbation { name: "load -20 %", apply: |scenario| load(scenario, 0.8) },
    Perturbation { name: "capacity -20 %", apply: |scenario| stretch(scenario, 1.25, 1.25) },
    Perturbation {
        name: "capacity +20 %",
        apply: |scenario| stretch(scenario, 1.0 / 1.2, 1.0 / 1.2),
    },
    Perturbation { name: "service tail +20 %", apply: |scenario| stretch(scenario, 1.0, 1.2) },
];

fn load(scenario: &mut Scenario, factor: f64) -> bool {
    let mut any = false;
    for client in 0..scenario.clients.len() {
        let open = !matches!(
            scenario.clients[client].arrivals,
            Arrivals::Trace(_) | Arrivals::Closed { .. }
        );
        if let (true, Some(rate)) = (open, Knob::Rate(client).value(scenario)) {
            Knob::Rate(client).set(scenario, rate * factor);
            any = true;
        }
    }
    any
}

/// Service times `body` times as long, and their tail `tail` times.
fn stretch(scenario: &mut Scenario, body: f64, tail: f64) -> bool {
    let times = |duration: Duration, factor: f64| duration.mul_f64(factor);
    let mut any = false;
    for service in &mut scenario.services {
        let stretched = match &service.time {
            Distribution::LogNormal { p50, p99 } => {
                Distribution::LogNormal { p50: times(*p50, body), p99: times(*p99, tail) }
            }
            Distribution::Bimodal { fast, slow, slow_share } => Distribution::Bimodal {
                fast: times(*fast, body),
                slow: times(*slow, tail),
                slow_share: *slow_share,
            },
            // Of these the body is the tail.
            Distribution::Constant(time) if body == tail => {
                Distribution::Constant(times(*time, body))
            }
            Distribution::Exponential { mean } if body == tail => {
                Distribution::Exponential { mean: times(*mean, body) }
            }
            Distribution::Constant(_)
            | Distribution::Exponential { .. }
            | Distribution::Empirical(_) => continue,
        };
        service.time = stretched;
        any = true;
    }
    any
}

/// Whom no other is at least as good in everything, the smallest first.
fn undominated(axes: &[Axis], findings: Vec<Finding>) -> Vec<Finding> {
    let better = |a: &Finding, b: &Finding| {
        let pairs = [
            (a.goodput, b.goodput),
            (-a.healthy_p99_ms, -b.healthy_p99_ms),
            (-a.extra_load, -b.extra_load),
            (-a.recovery_seconds, -b.recovery_seconds),
            (-size(axes, &a.changes), -size(axes, &b.changes)),
        ];
        pairs.iter().all(|(a, b)| a >= b) && pairs.iter().any(|(a, b)| a > b)
    };
    let mut front: Vec<Finding> = findings
        .iter()
        .filter(|one| !findings.iter().any(|other| better(other, one)))
        .cloned()
        .collect();
    front.sort_by(|a, b| size(axes, &a.changes).total_cmp(&size(axes, &b.changes)));
    front
}

impl Advice {
    /// Whether the expectations can be met.
    #[must_use]
    pub fn found(&self) -> bool {
        self.already || !self.front.is_empty()
    }

    fn describe(&self, changes: &[Change]) -> String {
        if changes.is_empty() {
            return "the configuration as it is".to_owned();
        }
        let one = |change: &Change| self.axes[change.axis].describe(&self.scenario, change.value);
        changes.iter().map(one).collect::<Vec<_>>().join(" and ")
    }

    /// What was found, for a person.
    #[must_use]
    pub fn text(&self) -> String {
        if self.already {
            return "Every expectation holds as it is: nothing to change.".to_owned();
        }
        let mut out = format!(
            "{} settings tried, {} ruled out by closed forms, each by the worst of {} case(s).\n",
            self.evaluations, self.pruned, self.cases
        );
        if self.exhausted {
            let _ = writeln!(out, "Stopped after {EVALUATIONS_MAX}: there may be more.");
        }
        if self.front.is_empty() {
            out.push_str("\nNo change of these policies that was tried meets the expectations. The nearest:\n\n");
            for candidate in &self.nearest {
                let _ = writeln!(
                    out,
                    "- {}: {} of {} expectations, {:.1} % served",
                    self.describe(&candidate.changes),
                    candidate.passed,
                    self.scenario.expect.len(),
                    candidate.mean() * 100.0
                );
            }
            return out;
        }
        out.push_str("\nThe smallest change:\n\n");
        let smallest = &self.front[0];
        let _ = writeln!(out, "    {}\n", self.describe(&smallest.changes));
        match &smallest.neighbour {
            Some(neighbour) => {
                let _ = writeln!(
                    out,
                    "A step nearer to what is there fails: {}.",
                    self.describe(neighbour)
                );
            }
            None => out.push_str("Without it the expectations fail.\n"),
        }
        out.push_str(
            "\nWhat meets the expectations on fresh seeds, and is not beaten in everything:\n\n",
        );
        out.push_str("| change | goodput under faults | healthy p99 | load at worst | slowest recovery | holds when a fifth off |\n|---|---|---|---|---|---|\n");
        for finding in &self.front {
            let breaks = if finding.breaks_at.is_empty() {
                String::new()
            } else {
                format!(", not at {}", finding.breaks_at.join(", "))
            };
            let _ = writeln!(
                out,
                "| {} | {:.0} % | {:.0} ms | {:.2}× | {:.0} s | {} of {}{breaks} |",
                self.describe(&finding.changes),
                finding.goodput * 100.0,
                finding.healthy_p99_ms,
                finding.extra_load,
                finding.recovery_seconds,
                finding.held,
                finding.perturbed
            );
        }
        out.push_str("\nA rehearsal is evidence about the model, not a proof: try it on fewer users first.\n");
        out
    }

    /// The same as data.
    #[must_use]
    pub fn document(&self) -> Value {
        let lines = |changes: &[Change]| -> Vec<String> {
            changes
                .iter()
                .map(|change| self.axes[change.axis].describe(&self.scenario, change.value))
                .collect()
        };
        json!({
            "schema": SCHEMA,
            "scenario": self.scenario.name,
            "found": self.found(),
            "already": self.already,
            "settings_tried": self.evaluations,
            "ruled_out": self.pruned,
            "cases": self.cases,
            "exhausted": self.exhausted,
            "front": self.front.iter().map(|finding| json!({
                "changes": lines(&finding.changes),
                "goodput_under_faults": finding.goodput,
                "healthy_p99_ms": finding.healthy_p99_ms,
                "extra_load": finding.extra_load,
                "recovery_seconds": finding.recovery_seconds,
                "perturbed": { "held": finding.held, "tried": finding.perturbed, "fails_at": finding.breaks_at },
                "failing_neighbour": finding.neighbour.as_deref().map(lines),
            })).collect::<Vec<_>>(),
            "nearest": self.nearest.iter().map(|candidate| json!({
                "changes": lines(&candidate.changes),
                "expectations_met": candidate.passed,
                "success_rate": candidate.mean(),
            })).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests;
