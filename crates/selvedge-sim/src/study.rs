//! All replications of one scenario, judged: what a report shows and an exit code says.

use selvedge_patterns::time::{Duration, nanos};

use crate::model::{
    Comparison, Discipline, Expectation, FaultKind, OnDisconnect, Refused, Scenario,
};
use crate::record::Replication;
use crate::replicate::replicate;
use crate::statistics::{Estimate, estimate, quantile, wilson};
use crate::theory::fluid::Storm;
use crate::verdict::{Kind, Verdict, judge};

/// A scenario, its runs, and what follows from them.
#[derive(Clone, Debug)]
pub struct Study {
    /// What was simulated.
    pub scenario: Scenario,
    /// One per seed.
    pub runs: Vec<Replication>,
    /// One per seed.
    pub verdicts: Vec<Verdict>,
    /// One per expectation.
    pub checks: Vec<Check>,
    /// What the fluid model says, where it applies.
    pub fluid: Option<Fluid>,
}

/// Whether an expectation holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The expectation in words.
    pub text: String,
    /// Whether it holds.
    pub result: Outcome,
    /// What was found, with its interval.
    pub found: String,
}

/// Whether an expectation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It does.
    Passed,
    /// It does not.
    Failed,
    /// So many seeds cannot tell.
    Inconclusive,
}

impl Outcome {
    /// As written in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// The retry storm of the scenario as a fluid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fluid {
    /// Its parameters.
    pub storm: Storm,
    /// Shortest full outage, in seconds, that it does not come back from; `None`: it always does.
    pub threshold: Option<f64>,
    /// What it says of the outage of this scenario, where that is one and comes at once.
    pub prediction: Option<Prediction>,
}

/// How the outage of a scenario ends as a fluid, and how many runs ended likewise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// How long the outage lasts, in seconds.
    pub outage: f64,
    /// When the backlog is gone, in seconds after the outage; `None`: not before the end.
    pub recovers_after: Option<f64>,
    /// Runs that ended as predicted.
    pub agree: usize,
    /// Runs that can be compared: those that were well before.
    pub of: usize,
}

impl Study {
    /// Runs every seed of `scenario` on `threads` threads and judges.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the scenario cannot be simulated.
    pub fn run(
        scenario: &Scenario,
        threads: usize,
        done: &(dyn Fn(usize) + Sync),
    ) -> Result<Self, Refused> {
        let runs = replicate(scenario, threads, done)?;
        let verdicts: Vec<Verdict> = runs.iter().map(|run| judge(scenario, run)).collect();
        let mut study = Self {
            scenario: scenario.clone(),
            runs,
            fluid: fluid(scenario, &verdicts),
            verdicts,
            checks: Vec::new(),
        };
        study.checks = scenario
            .expect
            .iter()
            .map(|expectation| study.check(expectation, threads))
            .collect::<Result<_, _>>()?;
        Ok(study)
    }

    /// The worst result of all checks; passed when there are none.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let any = |wanted| self.checks.iter().any(|check| check.result == wanted);
        if any(Outcome::Failed) {
            Outcome::Failed
        } else if any(Outcome::Inconclusive) {
            Outcome::Inconclusive
        } else {
            Outcome::Passed
        }
    }

    /// How many runs ended how, those that happened.
    #[must_use]
    pub fn tally(&self) -> Vec<(Kind, usize)> {
        let count = |kind| self.verdicts.iter().filter(|verdict| verdict.kind == kind).count();
        Kind::ALL
            .into_iter()
            .map(|kind| (kind, count(kind)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// P(users are served again), by Wilson.
    #[must_use]
    pub fn recovery(&self) -> (f64, f64, f64) {
        let well = self.verdicts.iter().filter(|verdict| verdict.kind.well()).count();
        let (low, high) = wilson(well, self.verdicts.len());
        (well as f64 / self.verdicts.len().max(1) as f64, low, high)
    }

    /// A number of every verdict, with its interval over seeds.
    #[must_use]
    pub fn over_verdicts(&self, of: impl Fn(&Verdict) -> f64) -> Estimate {
        estimate(&self.verdicts.iter().map(of).collect::<Vec<_>>())
    }

    /// A number of every run, with its interval over seeds.
    #[must_use]
    pub fn over_runs(&self, of: impl Fn(&Replication) -> f64) -> Estimate {
        estimate(&self.runs.iter().map(of).collect::<Vec<_>>())
    }

    /// The 10 %, 50 % and 90 % quantiles over seeds of a series, bin by bin.
    #[must_use]
    pub fn envelope(&self, of: impl Fn(&Replication) -> Vec<f64>) -> Vec<[f64; 3]> {
        let series: Vec<Vec<f64>> = self.runs.iter().map(of).collect();
        let bins = series.iter().map(Vec::len).max().unwrap_or(0);
        (0..bins)
            .map(|bin| {
                let values: Vec<f64> =
                    series.iter().filter_map(|one| one.get(bin).copied()).collect();
                [0.1, 0.5, 0.9].map(|q| quantile(&values, q))
            })
            .collect()
    }

    fn check(&self, expectation: &Expectation, threads: usize) -> Result<Check, Refused> {
        let number = |text: String,
                      side: Comparison,
                      bound: f64,
                      of: &dyn Fn(usize) -> f64,
                      show: &dyn Fn(f64) -> String| {
            let values: Vec<f64> = (0..self.runs.len()).map(of).collect();
            let got = estimate(&values);
            let all = values.iter().all(|value| side.holds(*value, bound));
            let sure = side.holds(got.low(), bound) && side.holds(got.high(), bound);
            let surely_not = !side.holds(got.low(), bound) && !side.holds(got.high(), bound);
            let result = match (all || sure, surely_not) {
                (true, _) => Outcome::Passed,
                (false, true) => Outcome::Failed,
                (false, false) => Outcome::Inconclusive,
            };
            Check { text, result, found: format!("{} ± {}", show(got.mean), show(got.half_width)) }
        };
        let percent = |value: f64| format!("{:.2} %", value * 100.0);
        let plain = |value: f64| format!("{value:.3}");
        Ok(match expectation {
            Expectation::RecoversWithin(limit) => {
                self.check_recovery(format!("recovers within {limit:?}"), *limit, &self.verdicts)
            }
            Expectation::Verdict(kind) => {
                let hits = self.verdicts.iter().filter(|verdict| verdict.kind == *kind).count();
                proportion(format!("every run ends {}", kind.name()), hits, self.verdicts.len())
            }
            Expectation::GoodputAfter(side, ratio) => number(
                format!("goodput after {} {:.1} % of baseline", side.symbol(), ratio * 100.0),
                *side,
                *ratio,
                &|i| self.verdicts[i].after / self.verdicts[i].baseline.max(f64::MIN_POSITIVE),
                &percent,
            ),
            Expectation::GoodputDuring(side, ratio) => number(
                format!("goodput during {} {:.1} % of baseline", side.symbol(), ratio * 100.0),
                *side,
                *ratio,
                &|i| self.verdicts[i].during / self.verdicts[i].baseline.max(f64::MIN_POSITIVE),
                &percent,
            ),
            Expectation::SuccessRate(side, share) => number(
                format!("success rate {} {:.2} %", side.symbol(), share * 100.0),
                *side,
                *share,
                &|i| success_rate(&self.runs[i]),
                &percent,
            ),
            Expectation::AmplificationMax(bound) => number(
                format!("amplification at most {bound}"),
                Comparison::AtMost,
                *bound,
                &|i| self.verdicts[i].amplification,
                &plain,
            ),
            Expectation::Latency { quantile, comparison, bound } => number(
                format!("p{} {} {bound:?}", quantile * 100.0, comparison.symbol()),
                *comparison,
                nanos(*bound) as f64,
                &|i| self.runs[i].clients.latency.quantile(*quantile),
                &|value| format!("{:.1} ms", value / 1e6),
            ),
            Expectation::CallsPerRequest { service, comparison, bound } => number(
                format!(
                    "{} receives {} {bound} per request",
                    self.scenario.services[*service].name,
                    comparison.symbol()
                ),
                *comparison,
                *bound,
                &|i| calls_per_request(&self.runs[i], *service),
                &plain,
            ),
            Expectation::WastedMax(bound) => number(
                format!("wasted work at most {:.1} %", bound * 100.0),
                Comparison::AtMost,
                *bound,
                &|i| self.verdicts[i].wasted,
                &percent,
            ),
            Expectation::TriggerMargin { fault, lasts } => {
                let mut longer = self.scenario.clone();
                let more = lasts.saturating_sub(longer.faults[*fault].lasts);
                longer.faults[*fault].lasts = *lasts;
                longer.run.duration += more;
                longer.expect.clear();
                let study = Self::run(&longer, threads, &|_| ())?;
                let text = format!("also survives fault {} for {lasts:?}", fault + 1);
                self.check_recovery(text, longer.run.recovery_limit, &study.verdicts)
            }
        })
    }

    fn check_recovery(&self, text: String, limit: Duration, verdicts: &[Verdict]) -> Check {
        let within = |verdict: &&Verdict| {
            verdict.kind.well() && verdict.recovered_after.is_none_or(|after| after <= limit)
        };
        let hits = verdicts.iter().filter(within).count();
        let mut check = proportion(text, hits, verdicts.len());
        let times: Vec<f64> = verdicts
            .iter()
            .filter_map(|verdict| verdict.recovered_after)
            .map(|after| after.as_secs_f64())
            .collect();
        if !times.is_empty() {
            let worst = times.iter().copied().fold(0.0, f64::max);
            check.found = format!(
                "{}; median {:.0} s, slowest {worst:.0} s",
                check.found,
                quantile(&times, 0.5)
            );
        }
        check
    }
}

/// All of them: passed. Surely fewer than 95 %: failed. Otherwise nobody knows yet.
fn proportion(text: String, hits: usize, of: usize) -> Check {
    let (low, high) = wilson(hits, of);
    let result = if hits == of {
        Outcome::Passed
    } else if high < 0.95 {
        Outcome::Failed
    } else {
        Outcome::Inconclusive
    };
    Check {
        text,
        result,
        found: format!(
            "{hits} of {of} (95 % interval {:.0} to {:.0} %)",
            low * 100.0,
            high * 100.0
        ),
    }
}

/// Share of counted calls that were answered well in the end.
#[must_use]
pub fn success_rate(run: &Replication) -> f64 {
    run.clients.good as f64 / run.clients.requests.max(1) as f64
}

/// Attempts that reached `service` per call that a client began.
#[must_use]
pub fn calls_per_request(run: &Replication, service: usize) -> f64 {
    let offered: u64 = run.bins.iter().map(|bin| u64::from(bin.offered)).sum();
    let arrived: u64 = run.service_bins[service].iter().map(|bin| u64::from(bin.arrived)).sum();
    arrived as f64 / offered.max(1) as f64
}

/// The fluid of a scenario that is a retry storm and nothing else, held against how it went.
fn fluid(scenario: &Scenario, verdicts: &[Verdict]) -> Option<Fluid> {
    let storm = storm(scenario)?;
    // Where all attempts together fit into the capacity, what is left of an
    // outage drains, though perhaps not before the end of the run.
    let drains = storm.offered * f64::from(1 + storm.retries) <= storm.capacity;
    let within = scenario.run.duration.as_secs_f64().min(600.0);
    let threshold = if drains { None } else { storm.threshold(120.0, within) };
    Some(Fluid { storm, threshold, prediction: predict(scenario, storm, verdicts) })
}

fn storm(scenario: &Scenario) -> Option<Storm> {
    let ([client], [service]) = (&scenario.clients[..], &scenario.services[..]) else {
        return None;
    };
    // A crash is another matter: who is refused at once leaves no backlog.
    let only_capacity =
        scenario.faults.iter().all(|fault| matches!(fault.kind, FaultKind::Capacity { .. }));
    let policy = service.policy.as_deref();
    let bounded = policy
        .is_some_and(|it| it.budget.is_some() || it.breaker.is_some() || it.bulkhead.is_some());
    let fifo = service.queue.discipline == Discipline::Fifo
        && !service.queue.drop_expired
        && service.queue.patience.is_none();
    if !only_capacity
        || scenario.faults.is_empty()
        || service.on_disconnect != OnDisconnect::Keep
        || bounded
        || !fifo
    {
        return None;
    }
    let by_user = client.user_retry.as_ref().filter(|retry| retry.probability >= 1.0);
    let by_policy = policy.and_then(|it| it.retry.as_ref());
    let deadline = client.deadline.map(|deadline| deadline.as_secs_f64());
    let (timeout, retries, pause) = match (by_user, by_policy) {
        (Some(user), None) => (deadline?, user.attempts, user.after.mean() / 1e9),
        (None, Some(retry)) => {
            let limits = policy.map(|it| it.timeout)?;
            let total = limits.total.map(|total| total.as_secs_f64()).or(deadline);
            let total = total.unwrap_or(f64::INFINITY).min(deadline.unwrap_or(f64::INFINITY));
            let timeout = limits.attempt.map_or(total, |it| it.as_secs_f64().min(total));
            let pause = retry.backoff.nominal(0).as_secs_f64() / 2.0;
            // No attempt begins after the whole call has ended.
            let begin = libm::ceil(total / (timeout + pause)) - 1.0;
            (timeout, begin.min(f64::from(retry.attempts - 1)) as u32, pause)
        }
        _ => return None,
    };
    (retries > 0 && timeout.is_finite()).then_some(Storm {
        offered: client.arrivals.rate()?,
        capacity: service.capacity(),
        timeout,
        retries: retries.min(15),
        pause,
        queue: service
            .queue
            .cap
            .map_or(f64::INFINITY, |cap| f64::from(cap) * f64::from(service.replicas)),
    })
}

fn predict(scenario: &Scenario, storm: Storm, verdicts: &[Verdict]) -> Option<Prediction> {
    let [fault] = &scenario.faults[..] else { return None };
    let FaultKind::Capacity { left, .. } = fault.kind else { return None };
    if !fault.ramp.is_zero() {
        return None;
    }
    let after = nanos(scenario.run.duration).saturating_sub(fault.ends()) as f64 / 1e9;
    let outage = fault.lasts.as_secs_f64();
    let recovers_after = storm.through(outage, left, after).recovers_after;
    let judged: Vec<&Verdict> =
        verdicts.iter().filter(|it| it.kind != Kind::UnhealthyBeforeTrigger).collect();
    let agree = judged.iter().filter(|it| it.kind.well() == recovers_after.is_some()).count();
    Some(Prediction { outage, recovers_after, agree, of: judged.len() })
}

impl Fluid {
    /// What it says, in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Storm { offered, capacity, retries, .. } = self.storm;
        let worst = offered * f64::from(1 + retries);
        let limit = match self.threshold {
            None => "it comes back from every full outage up to 120 s".to_owned(),
            Some(threshold) => {
                format!("it does not come back from a full outage longer than {threshold:.1} s")
            }
        };
        let mut sentence = format!(
            "fluid model: {offered:.0}/s with {retries} retries is at most {worst:.0}/s against a capacity of {capacity:.0}/s; {limit}"
        );
        if let Some(Prediction { outage, recovers_after, agree, of }) = self.prediction {
            let end = recovers_after.map_or_else(
                || "is not over by the end".to_owned(),
                |after| format!("is over after {after:.0} s more"),
            );
            sentence.push_str(&format!(
                "; the outage of {outage:.1} s {end}, and {agree} of {of} runs agree"
            ));
        }
        sentence
    }
}
