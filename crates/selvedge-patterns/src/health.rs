//! Decides from active checks whether an endpoint is healthy.
//!
//! A check is due at a jittered interval; so many failures in a row take the
//! endpoint out, so many successes bring it back. The first result decides at
//! once, so that a dead endpoint is not trusted for several intervals after a
//! start. Sending the check is the caller's.

use core::ops::RangeInclusive;

use crate::config::ConfigError;
use crate::random::Rng;
use crate::sync::{AtomicU32, Mutex, Ordering, lock};
use crate::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// How an endpoint is checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What a check is.
    pub kind: Kind,
    /// From the end of one check to the start of the next. Default 5 s.
    pub every: Duration,
    /// Share of `every` by which each wait is shortened or lengthened at
    /// random, in `0.0..=1.0`. Default 0.1.
    pub jitter: f64,
    /// A check that takes longer has failed. Default 1 s.
    pub timeout: Duration,
    /// Successes in a row that bring an unhealthy endpoint back. Default 2.
    pub healthy_after: u32,
    /// Failures in a row that take a healthy endpoint out. Default 3.
    pub unhealthy_after: u32,
}

/// What a check is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A `GET` must be answered with an expected status.
    Http {
        /// Path and query. Default `/`.
        path: String,
        /// `Host` header; the endpoint's own name if `None`.
        host: Option<String>,
        /// Statuses that count as healthy. Default `200..=299`.
        expect: RangeInclusive<u16>,
    },
    /// A connection must be accepted.
    Tcp,
}

impl Default for Kind {
    fn default() -> Self {
        Self::Http { path: "/".to_owned(), host: None, expect: 200..=299 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            every: Duration::from_secs(5),
            jitter: 0.1,
            timeout: Duration::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
        }
    }
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::require(!self.every.is_zero(), "every", "must be longer than zero")?;
        ConfigError::require(
            (0.0..=1.0).contains(&self.jitter),
            "jitter",
            "must be between 0% and 100%",
        )?;
        ConfigError::require(!self.timeout.is_zero(), "timeout", "must be longer than zero")?;
        ConfigError::require(self.healthy_after >= 1, "healthy_after", "must be at least 1")?;
        ConfigError::require(self.unhealthy_after >= 1, "unhealthy_after", "must be at least 1")?;
        if let Kind::Http { path, expect, .. } = &self.kind {
            ConfigError::require(path.starts_with('/'), "path", "must begin with `/`")?;
            ConfigError::require(
                *expect.start() >= 100 && *expect.end() <= 599 && expect.start() <= expect.end(),
                "expect",
                "must be statuses between 100 and 599, the lower first",
            )?;
        }
        Ok(())
    }
}

/// Leave to make one check.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "settle it, or no further check becomes due before it has timed out twice over"]
pub struct Check {
    number: u64,
    /// The check has failed if it has not ended by then.
    pub deadline: Instant,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Enough checks in a row succeeded.
    Recovered {
        /// How many.
        checks: u32,
    },
    /// Enough checks in a row failed.
    Failed {
        /// How many.
        checks: u32,
    },
}

/// One endpoint's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Whether it is fit for traffic; so assumed until the first result.
    pub healthy: bool,
    /// Results that there were.
    pub checks: u64,
    /// Results in a row that speak against `healthy`.
    pub against: u32,
    /// When the next check is due.
    pub next_check: Instant,
}

/// Judges one endpoint by its checks.
#[derive(Debug)]
pub struct Checker {
    healthy: bool,
    against: u32,
    checks: u64,
    started: u64,
    outstanding: bool,
    due: Instant,
}

impl Checker {
    /// An endpoint assumed healthy; its first check is due within the jitter of
    /// one interval, so that the endpoints of a service are not checked all at once.
    pub fn new(now: Instant, config: &Config, rng: &mut impl Rng) -> Self {
        let due = now + config.every.mul_f64(config.jitter * rng.unit());
        Self { healthy: true, against: 0, checks: 0, started: 0, outstanding: false, due }
    }

    /// Whether the endpoint is fit for traffic.
    pub const fn healthy(&self) -> bool {
        self.healthy
    }

    /// A check to make now, if one is due. One that was never settled is
    /// forgotten when the next is due.
    pub fn wake(&mut self, now: Instant, config: &Config, rng: &mut impl Rng) -> Option<Check> {
        if now < self.due {
            return None;
        }
        self.started += 1;
        self.outstanding = true;
        // Settling brings this forward; a check lost with its task must not stop all others.
        self.due = now + config.timeout.saturating_mul(2) + jittered(config, rng);
        Some(Check { number: self.started, deadline: now + config.timeout })
    }

    /// When [`Checker::wake`] has something to do.
    pub const fn next_wakeup(&self) -> Instant {
        self.due
    }

    /// `check` ended. The result of one that has been given up counts for nothing.
    pub fn settle(
        &mut self,
        now: Instant,
        config: &Config,
        check: Check,
        passed: bool,
        rng: &mut impl Rng,
    ) -> Option<Transition> {
        if check.number != self.started || !self.outstanding {
            return None;
        }
        self.outstanding = false;
        self.due = now + jittered(config, rng);
        let first = self.checks == 0;
        self.checks += 1;
        if passed == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = if passed { config.healthy_after } else { config.unhealthy_after };
        if self.against < needed && !first {
            return None;
        }
        let checks = core::mem::take(&mut self.against);
        self.healthy = passed;
        Some(if passed { Transition::Recovered { checks } } else { Transition::Failed { checks } })
    }

    /// What is known of the endpoint.
    pub const fn view(&self) -> View {
        View {
            healthy: self.healthy,
            checks: self.checks,
            against: self.against,
            next_check: self.due,
        }
    }
}

fn jittered(config: &Config, rng: &mut impl Rng) -> Duration {
    config.every.mul_f64(1.0 + config.jitter * (2.0 * rng.unit() - 1.0))
}

/// A [`Checker`] that many read and one drives: reading is one atomic load.
#[derive(Debug)]
pub struct Shared {
    healthy: AtomicU32,
    checker: Mutex<Checker>,
}

impl Shared {
    /// See [`Checker::new`].
    pub fn new(now: Instant, config: &Config, rng: &mut impl Rng) -> Self {
        Self { healthy: AtomicU32::new(1), checker: Mutex::new(Checker::new(now, config, rng)) }
    }

    /// Whether the endpoint is fit for traffic.
    pub fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed) != 0
    }

    /// See [`Checker::wake`].
    pub fn wake(&self, now: Instant, config: &Config, rng: &mut impl Rng) -> Option<Check> {
        lock(&self.checker).wake(now, config, rng)
    }

    /// See [`Checker::next_wakeup`].
    pub fn next_wakeup(&self) -> Instant {
        lock(&self.checker).next_wakeup()
    }

    /// See [`Checker::settle`].
    pub fn settle(
        &self,
        now: Instant,
        config: &Config,
        check: Check,
        passed: bool,
        rng: &mut impl Rng,
    ) -> Option<Transition> {
        let mut checker = lock(&self.checker);
        let transition = checker.settle(now, config, check, passed, rng);
        self.healthy.store(u32::from(checker.healthy()), Ordering::Relaxed);
        transition
    }

    /// See [`Checker::view`].
    pub fn view(&self) -> View {
        lock(&self.checker).view()
    }
}
