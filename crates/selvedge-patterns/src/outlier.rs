//! Takes an endpoint out of rotation when its own traffic shows it to be worse than the rest.
//!
//! Three detectors: gateway errors in a row, a success rate far below the
//! other endpoints', and a failure percentage. Ejection grows with repetition,
//! is capped so that neither too many nor the last endpoint goes, and ends by
//! itself. Panic, the answer to too few healthy endpoints, is the balancer's.
//!
//! Per attempt this is one atomic add; everything else happens on an ejection
//! or once per interval, under a short mutex.
//!
//! Source: the outlier detection of Envoy, plus an absolute gap: with five
//! hosts a lone laggard always lies 2 standard deviations below the mean, even
//! at 99.9 % against 100 %.

use crate::config::ConfigError;
use crate::outcome::{Failure, Outcome};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering, lock};
use crate::time::{Duration, Instant, nanos};

#[cfg(test)]
mod tests;

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Gateway errors in a row that eject; `None` turns the detector off. Default 5.
    pub consecutive: Option<u32>,
    /// Compares success rates. Default on.
    pub success_rate: Option<SuccessRate>,
    /// Ejects above an absolute share of failures. Default off.
    pub failure_percentage: Option<FailurePercentage>,
    /// How often rates are judged. Default 10 s.
    pub interval: Duration,
    /// Ejection time of the first ejection; the nth in a row lasts n times this. Default 30 s.
    pub base: Duration,
    /// Longest ejection. Default 300 s.
    pub cap: Duration,
    /// Most of the endpoints that may be ejected at once, in `0.0..=1.0`. One
    /// may always be, as long as another remains. Default 0.3.
    pub ejected_max: f64,
}

/// Ejects an endpoint whose success rate is far below the others'.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SuccessRate {
    /// Endpoints with enough attempts that there must be to compare. Default 5.
    pub hosts_min: u32,
    /// Attempts in the interval for an endpoint to be compared. Default 100.
    pub attempts_min: u32,
    /// Standard deviations below the mean. Default 1.9.
    pub deviations: f64,
    /// Distance below the mean there must be too, in `0.0..=1.0`. Default 0.05.
    pub gap: f64,
}

/// Ejects an endpoint whose share of failures is too high.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailurePercentage {
    /// Share of failures that ejects, in `0.0..=1.0`. Default 0.85.
    pub threshold: f64,
    /// Endpoints with enough attempts that there must be. Default 5.
    pub hosts_min: u32,
    /// Attempts in the interval for an endpoint to be judged. Default 50.
    pub attempts_min: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            success_rate: Some(SuccessRate::default()),
            failure_percentage: None,
            interval: Duration::from_secs(10),
            base: Duration::from_secs(30),
            cap: Duration::from_secs(300),
            ejected_max: 0.3,
        }
    }
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { hosts_min: 5, attempts_min: 100, deviations: 1.9, gap: 0.05 }
    }
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { threshold: 0.85, hosts_min: 5, attempts_min: 50 }
    }
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let share = |value: f64, key| {
            ConfigError::require((0.0..=1.0).contains(&value), key, "must be between 0% and 100%")
        };
        ConfigError::require(self.consecutive != Some(0), "consecutive", "must be at least 1")?;
        ConfigError::require(!self.interval.is_zero(), "interval", "must be longer than zero")?;
        ConfigError::require(!self.base.is_zero(), "base", "must be longer than zero")?;
        ConfigError::require(self.cap >= self.base, "cap", "must not be shorter than `base`")?;
        share(self.ejected_max, "ejected_max")?;
        if let Some(rate) = &self.success_rate {
            ConfigError::require(
                rate.hosts_min >= 2,
                "success_rate.hosts_min",
                "must be at least 2",
            )?;
            ConfigError::require(
                rate.attempts_min >= 1,
                "success_rate.attempts_min",
                "must be at least 1",
            )?;
            ConfigError::require(
                rate.deviations.is_finite() && rate.deviations >= 0.0,
                "success_rate.deviations",
                "must not be negative",
            )?;
            share(rate.gap, "success_rate.gap")?;
        }
        if let Some(failures) = &self.failure_percentage {
            ConfigError::require(
                failures.attempts_min >= 1,
                "failure_percentage.attempts_min",
                "must be at least 1",
            )?;
            share(failures.threshold, "failure_percentage.threshold")?;
        }
        Ok(())
    }
}

/// What is remembered of one endpoint: kept with it, so that it outlives a changed set.
#[derive(Debug)]
pub struct Host {
    consecutive: AtomicU32,
    /// Successes in the high half, attempts in the low half, of this interval.
    counts: AtomicU64,
    /// Nanoseconds; 0 while in rotation.
    ejected_until: AtomicU64,
    /// Ejections in a row, less one per healthy interval since.
    times: AtomicU32,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// An endpoint in rotation with a clean record.
    #[must_use]
    pub fn new() -> Self {
        Self {
            consecutive: AtomicU32::new(0),
            counts: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            times: AtomicU32::new(0),
        }
    }

    /// Whether it is out of rotation at `now`.
    pub fn ejected(&self, now: Instant) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now.as_nanos()
    }

    /// What is known of it.
    pub fn view(&self, now: Instant) -> View {
        let (successes, attempts) = unpack(self.counts.load(Ordering::Relaxed));
        View {
            ejected_until: self
                .ejected(now)
                .then(|| Instant::from_nanos(self.ejected_until.load(Ordering::Relaxed))),
            ejections: self.times.load(Ordering::Relaxed),
            consecutive: self.consecutive.load(Ordering::Relaxed),
            successes,
            attempts,
        }
    }

    fn forget(&self) {
        self.consecutive.store(0, Ordering::Relaxed);
        self.counts.store(0, Ordering::Relaxed);
    }
}

/// One endpoint's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// When it comes back, while it is ejected.
    pub ejected_until: Option<Instant>,
    /// Ejections that count towards the next one's length.
    pub ejections: u32,
    /// Gateway errors in a row.
    pub consecutive: u32,
    /// Successes in this interval.
    pub successes: u32,
    /// Attempts that ended in this interval.
    pub attempts: u32,
}

/// The endpoints watched, in an order that does not change between calls.
pub trait Hosts {
    /// How many there are.
    fn count(&self) -> usize;
    /// The record of the one at `index`.
    fn host(&self, index: usize) -> &Host;
}

impl Hosts for [Host] {
    fn count(&self) -> usize {
        self.len()
    }

    fn host(&self, index: usize) -> &Host {
        &self[index]
    }
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// The endpoint's place among the hosts.
    pub index: usize,
    /// What happened to it.
    pub change: Change,
}

/// What happened to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// It is out of rotation.
    Ejected {
        /// Until then.
        until: Instant,
        /// Its place in a row of ejections, from 1.
        times: u32,
        /// What gave it away.
        evidence: Evidence,
    },
    /// It would be, but too many are out already.
    Spared {
        /// What gave it away.
        evidence: Evidence,
        /// How many are out.
        ejected: usize,
    },
    /// Its time is over: back in rotation with a clean record.
    Returned,
}

/// The numbers an ejection was decided on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Evidence {
    /// So many gateway errors in a row.
    Consecutive(u32),
    /// A success rate below `cut`.
    SuccessRate {
        /// Its own.
        rate: f64,
        /// The mean of all that had enough attempts.
        mean: f64,
        /// The rate below which is ejected.
        cut: f64,
    },
    /// So large a share of failures.
    FailurePercentage(f64),
}

/// Watches the endpoints of one service.
#[derive(Debug)]
pub struct Detector {
    config: Config,
    /// Nanoseconds; written under the lock, read without.
    next_judgement: AtomicU64,
    /// Held while anything is ejected, so that two workers cannot both take the
    /// last place under the cap.
    one_at_a_time: Mutex<()>,
}

impl Detector {
    /// A detector that judges rates one interval from `now`.
    #[must_use]
    pub fn new(now: Instant, config: Config) -> Self {
        let next_judgement = AtomicU64::new((now + config.interval).as_nanos());
        Self { config, next_judgement, one_at_a_time: Mutex::new(()) }
    }

    /// What it was built with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// An attempt at the endpoint at `index` ended with `outcome`.
    ///
    /// What an endpoint does while ejected counts for nothing, so its record
    /// is clean when it returns.
    pub fn settle(
        &self,
        now: Instant,
        hosts: &(impl Hosts + ?Sized),
        index: usize,
        outcome: Outcome,
    ) -> Option<Transition> {
        let host = hosts.host(index);
        let verdict = Verdict::of(outcome)?;
        if host.ejected(now) {
            return None;
        }
        host.counts.fetch_add(pack(u32::from(verdict == Verdict::Good), 1), Ordering::Relaxed);
        match verdict {
            Verdict::Good | Verdict::Bad => {
                if host.consecutive.load(Ordering::Relaxed) != 0 {
                    host.consecutive.store(0, Ordering::Relaxed);
                }
                None
            }
            Verdict::Overloaded => None,
            Verdict::Gateway => {
                let in_a_row = host.consecutive.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                let limit = self.config.consecutive.filter(|&limit| in_a_row >= limit)?;
                debug_assert!(limit > 0, "validated");
                let _guard = lock(&self.one_at_a_time);
                self.eject(now, hosts, index, Evidence::Consecutive(in_a_row))
            }
        }
    }

    /// When [`Detector::wake`] has something to judge: one atomic load. An
    /// ejection that ends earlier ends without being woken, only its
    /// [`Change::Returned`] waits.
    pub fn next_wakeup(&self) -> Instant {
        Instant::from_nanos(self.next_judgement.load(Ordering::Relaxed))
    }

    /// Brings back those whose time is over and judges rates if an interval
    /// has passed. Call it at [`Detector::next_wakeup`] or more often; each
    /// change goes to `report`.
    pub fn wake(
        &self,
        now: Instant,
        hosts: &(impl Hosts + ?Sized),
        mut report: impl FnMut(Transition),
    ) {
        let _guard = lock(&self.one_at_a_time);
        if now >= self.next_wakeup() {
            self.next_judgement.store((now + self.config.interval).as_nanos(), Ordering::Relaxed);
            self.judge(now, hosts, &mut report);
        }
        for index in 0..hosts.count() {
            let host = hosts.host(index);
            let until = host.ejected_until.load(Ordering::Relaxed);
            if until != 0 && until <= now.as_nanos() {
                host.ejected_until.store(0, Ordering::Relaxed);
                report(Transition { index, change: Change::Returned });
            }
        }
    }

    /// Puts the endpoint at `index` back in rotation now, with a clean record: an operator's wish.
    pub fn release(&self, hosts: &(impl Hosts + ?Sized), index: usize) -> Option<Transition> {
        let _guard = lock(&self.one_at_a_time);
        let host = hosts.host(index);
        host.forget();
        host.times.store(0, Ordering::Relaxed);
        let until = host.ejected_until.swap(0, Ordering::Relaxed);
        (until != 0).then_some(Transition { index, change: Change::Returned })
    }

    fn judge(
        &self,
        now: Instant,
        hosts: &(impl Hosts + ?Sized),
        report: &mut impl FnMut(Transition),
    ) {
        let rate_cut = self.config.success_rate.and_then(|rule| Cut::of(now, hosts, rule));
        let failures = self.config.failure_percentage.filter(|rule| {
            hosts_with(now, hosts, rule.attempts_min).count() >= rule.hosts_min as usize
        });
        for index in 0..hosts.count() {
            let host = hosts.host(index);
            if host.ejected(now) {
                continue;
            }
            let (successes, attempts) = unpack(host.counts.swap(0, Ordering::Relaxed));
            let rate = f64::from(successes) / f64::from(attempts.max(1));
            let by_rate = rate_cut
                .filter(|cut| attempts >= cut.attempts_min && rate < cut.cut)
                .map(|cut| Evidence::SuccessRate { rate, mean: cut.mean, cut: cut.cut });
            let by_failures = failures
                .filter(|rule| attempts >= rule.attempts_min && 1.0 - rate >= rule.threshold)
                .map(|_| Evidence::FailurePercentage(1.0 - rate));
            if let Some(evidence) = by_rate.or(by_failures) {
                self.eject(now, hosts, index, evidence).into_iter().for_each(&mut *report);
            } else if host.ejected_until.load(Ordering::Relaxed) == 0 {
                // It was in rotation all the interval, not just back from an ejection.
                let times = host.times.load(Ordering::Relaxed);
                host.times.store(times.saturating_sub(1), Ordering::Relaxed);
            }
        }
    }

    /// The caller holds the lock.
    fn eject(
        &self,
        now: Instant,
        hosts: &(impl Hosts + ?Sized),
        index: usize,
        evidence: Evidence,
    ) -> Option<Transition> {
        let host = hosts.host(index);
        if host.ejected(now) {
            return None;
        }
        host.forget();
        let ejected = (0..hosts.count()).filter(|&other| hosts.host(other).ejected(now)).count();
        if ejected >= self.places(hosts.count()) {
            return Some(Transition { index, change: Change::Spared { evidence, ejected } });
        }
        let times = host.times.load(Ordering::Relaxed).saturating_add(1);
        let until = now + self.config.base.saturating_mul(times).min(self.config.cap);
        // Past the cap a higher count would only take longer to decay.
        let times_max = nanos(self.config.cap).div_ceil(nanos(self.config.base).max(1));
        host.times
            .store(times.min(u32::try_from(times_max).unwrap_or(u32::MAX)), Ordering::Relaxed);
        host.ejected_until.store(until.as_nanos(), Ordering::Relaxed);
        Some(Transition { index, change: Change::Ejected { until, times, evidence } })
    }

    /// How many of `hosts` may be out at once.
    fn places(&self, hosts: usize) -> usize {
        let share = (hosts as f64 * self.config.ejected_max) as usize;
        if self.config.ejected_max == 0.0 { 0 } else { share.max(1).min(hosts.saturating_sub(1)) }
    }
}

/// What an outcome says about an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
    Overloaded,
    Gateway,
}

impl Verdict {
    const fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Success | Outcome::ClientFault => Some(Self::Good),
            Outcome::Overload { .. } => Some(Self::Overloaded),
            Outcome::Failure(Failure::Server) => Some(Self::Bad),
            // A peer that goes away in good order has not failed.
            Outcome::Failure(Failure::Refused) | Outcome::Cancelled | Outcome::Local => None,
            Outcome::Failure(
                Failure::Connect
                | Failure::Reset
                | Failure::Timeout
                | Failure::Gateway
                | Failure::Malformed,
            ) => Some(Self::Gateway),
        }
    }
}

/// Where the success rate starts to eject.
#[derive(Clone, Copy)]
struct Cut {
    attempts_min: u32,
    mean: f64,
    cut: f64,
}

impl Cut {
    fn of(now: Instant, hosts: &(impl Hosts + ?Sized), rule: SuccessRate) -> Option<Self> {
        let rates = || hosts_with(now, hosts, rule.attempts_min);
        let count = rates().count();
        if count < rule.hosts_min as usize {
            return None;
        }
        let mean = rates().sum::<f64>() / count as f64;
        let variance = rates().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count as f64;
        let cut = (mean - rule.deviations * variance.sqrt()).min(mean - rule.gap);
        Some(Self { attempts_min: rule.attempts_min, mean, cut })
    }
}

/// The success rates of the hosts in rotation that had at least `attempts_min` attempts.
fn hosts_with(
    now: Instant,
    hosts: &(impl Hosts + ?Sized),
    attempts_min: u32,
) -> impl Iterator<Item = f64> {
    (0..hosts.count())
        .map(|index| hosts.host(index))
        .filter(move |host| !host.ejected(now))
        .filter_map(move |host| {
            let (successes, attempts) = unpack(host.counts.load(Ordering::Relaxed));
            (attempts >= attempts_min).then(|| f64::from(successes) / f64::from(attempts))
        })
}

const fn pack(successes: u32, attempts: u32) -> u64 {
    ((successes as u64) << 32) | attempts as u64
}

const fn unpack(counts: u64) -> (u32, u32) {
    ((counts >> 32) as u32, counts as u32)
}
