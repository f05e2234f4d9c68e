//! Goes through what a real proxy was asked and answered, with the simulator's
//! own driver and the policies of a scenario, and compares every answer.

use std::collections::HashMap;
use std::sync::Arc;

use selvedge_patterns::call::{Call, Step};
use selvedge_patterns::health::Check;
use selvedge_patterns::journal::{Asked, Entry, Told, notes};
use selvedge_patterns::limit::Limiter;
use selvedge_patterns::time::Instant;

use crate::driver::Driver;
use crate::model::Scenario;

/// What was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Questions put again.
    pub entries: usize,
    /// Calls that ended, with the whole of their notes alike.
    pub calls: usize,
    /// Steps of calls.
    pub steps: usize,
    /// Draws that these took.
    pub draws: usize,
    /// Calls admitted or turned away by a rate limit.
    pub limits: usize,
    /// Failures that might have been answered otherwise.
    pub fallbacks: usize,
    /// Health checks judged.
    pub checks: usize,
}

/// Where the two do not agree.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("entry {entry} ({service} at {now:?}): {what}")]
pub struct Divergence {
    /// Which entry, from 0.
    pub entry: usize,
    /// The service.
    pub service: Arc<str>,
    /// When.
    pub now: Instant,
    /// What was answered there and here.
    pub what: String,
}

/// Asks everything in `entries` again, of policies as `scenario` has them.
///
/// # Errors
///
/// The first [`Divergence`].
pub fn replay(scenario: &Scenario, entries: &[Entry]) -> Result<Agreement, Divergence> {
    let mut replay = Replay {
        scenario,
        drivers: HashMap::new(),
        calls: HashMap::new(),
        checks: HashMap::new(),
        limits: HashMap::new(),
        agreement: Agreement::default(),
    };
    for (number, entry) in entries.iter().enumerate() {
        replay.entry(entry).map_err(|what| Divergence {
            entry: number,
            service: Arc::clone(&entry.service),
            now: entry.now,
            what,
        })?;
    }
    Ok(replay.agreement)
}

struct Replay<'a> {
    scenario: &'a Scenario,
    drivers: HashMap<Arc<str>, Driver>,
    calls: HashMap<u64, Call>,
    checks: HashMap<(Arc<str>, usize), Check>,
    limits: HashMap<(Arc<str>, Vec<u8>), Limiter>,
    agreement: Agreement,
}

impl Replay<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), String> {
        let Entry { now, service, asked, draws } = entry;
        let (now, mut rng) = (*now, Told::new(draws));
        if let Asked::New { targets, seed } = asked {
            let model = self.scenario.services.iter().find(|model| *model.name == **service);
            let policy = model.and_then(|model| model.policy.as_ref());
            let policy = policy.ok_or("the scenario has no policy for it")?;
            let driver = Driver::new(now, policy, targets.clone(), *seed);
            self.drivers.insert(Arc::clone(service), driver);
            return Ok(());
        }
        let driver = self.drivers.get(service).ok_or("it was never made")?;
        match asked {
            Asked::New { .. } => {}
            Asked::Begin { call, request, ends } => {
                let begun = driver.begin(now, *request);
                same("the deadline", ends, &begun.deadline().instant())?;
                self.calls.insert(*call, begun);
            }
            Asked::Next { call: number, step } => {
                let here = driver.next(now, known(&mut self.calls, *number)?, &mut rng);
                same::<Step>("the step", step, &here)?;
                self.agreement.steps += 1;
            }
            Asked::NotReplayable { call: number } => {
                known(&mut self.calls, *number)?.not_replayable()
            }
            Asked::Settle { call: number, number: attempt, outcome } => {
                driver.settle(now, known(&mut self.calls, *number)?, *attempt, *outcome);
            }
            Asked::Commit { call: number, number: attempt } => {
                driver.commit(now, known(&mut self.calls, *number)?, *attempt);
            }
            Asked::Finish { call: number, notes: there } => {
                let mut over = self.calls.remove(number).ok_or("the call never began")?;
                driver.finish(now, &mut over);
                same("what was decided", there, &notes(over.trace()))?;
                self.agreement.calls += 1;
            }
            Asked::Wake => driver.wake(now),
            Asked::CheckDue { endpoint, due } => {
                let check = driver.check_due(now, *endpoint, &mut rng);
                same("whether a check is due", due, &check.is_some())?;
                if let Some(check) = check {
                    self.checks.insert((Arc::clone(service), *endpoint), check);
                }
            }
            Asked::CheckSettle { endpoint, passed, healthy } => {
                let check = self.checks.remove(&(Arc::clone(service), *endpoint));
                let check = check.ok_or("the check was never due")?;
                driver.check_settle(now, *endpoint, check, *passed, &mut rng);
                same("health", healthy, &driver.endpoints()[*endpoint].healthy())?;
                self.agreement.checks += 1;
            }
            Asked::Limit { key, decision } => {
                let here = self.limiter(service, key)?.admit(now, 1);
                same("the limit's decision", decision, &here)?;
                self.agreement.limits += 1;
            }
            Asked::FallBack { safety, outcome, last_good, choice } => {
                let here = driver.fall_back(now, *safety, *outcome, *last_good);
                same("the fallback", choice, &here)?;
                self.agreement.fallbacks += 1;
            }
        }
        if let Some(driver) = self.drivers.get(service) {
            while driver.granted().is_some() {}
        }
        if !rng.honest() {
            return Err("it drew another number of times".to_owned());
        }
        self.agreement.entries += 1;
        self.agreement.draws += draws.len();
        Ok(())
    }

    /// The simulator keeps one limiter per key.
    fn limiter(&mut self, service: &Arc<str>, key: &[u8]) -> Result<&Limiter, String> {
        let of_service = |index: usize| *self.scenario.services[index].name == **service;
        let clients = &self.scenario.clients;
        let limit = clients.iter().filter(|it| of_service(it.target)).find_map(|it| it.limit);
        let (config, _) = limit.ok_or("no client of the scenario has a limit here")?;
        let slot = self.limits.entry((Arc::clone(service), key.to_vec()));
        match slot {
            std::collections::hash_map::Entry::Occupied(found) => Ok(found.into_mut()),
            std::collections::hash_map::Entry::Vacant(empty) => {
                Ok(empty.insert(Limiter::new(config).map_err(|error| error.to_string())?))
            }
        }
    }
}

fn known(calls: &mut HashMap<u64, Call>, number: u64) -> Result<&mut Call, String> {
    calls.get_mut(&number).ok_or_else(|| format!("call {number} never began"))
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, there: &T, here: &T) -> Result<(), String> {
    if there == here {
        Ok(())
    } else {
        Err(format!("{what}: {there:?} in the journal, {here:?} here"))
    }
}
