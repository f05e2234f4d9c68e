//! Bounds the extra attempts that a dependency gets: retries, hedges and
//! failovers together.
//!
//! Each deposit adds a share of one extra attempt, each extra attempt takes a
//! whole one, and both are forgotten after a window. A floor per second keeps
//! quiet services able to retry. Besides, no more than a share of the attempts
//! in flight may be extra ones.
//!
//! By default only successes deposit: when nothing succeeds, nothing extra is
//! sent, so an outage is not amplified and a recovery not delayed.
//!
//! All arithmetic is in whole millionths of an attempt, scaled on the deposit,
//! so ratios such as 0.6 are not truncated.
//!
//! Sources: Finagle's `RetryBudget`; Brooker, "Fixing retries with token
//! buckets and circuit breakers", 2022.

use crate::config::ConfigError;
use crate::sync::{AtomicU32, Ordering};
use crate::time::{Duration, Instant};
use crate::window::{Cell, SLICES, Slicing};

#[cfg(test)]
mod tests;

/// How many extra attempts there may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// Extra attempts per deposit, in `0.0..=10.0`. Default 0.2.
    pub ratio: f64,
    /// Extra attempts per second that are always there. Default 10.
    pub per_second: u32,
    /// How long deposits and extra attempts count; 1 s to 60 s. Default 10 s.
    pub window: Duration,
    /// What deposits. Default [`Basis::Success`].
    pub basis: Basis,
    /// So many extra attempts may be in flight even where `ratio` of those in
    /// flight would be fewer. Default 3.
    pub in_flight_min: u32,
}

/// What deposits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// Each attempt that succeeds. Under a ratio d and a failure rate f the
    /// load is at most 1/(1 − d(1−f)).
    #[default]
    Success,
    /// Each call that arrives, whatever becomes of it. The load is at most 1 + d.
    Call,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ratio: 0.2,
            per_second: 10,
            window: Duration::from_secs(10),
            basis: Basis::default(),
            in_flight_min: 3,
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
        ConfigError::require(
            (0.0..=10.0).contains(&self.ratio),
            "ratio",
            "must be between 0% and 1000%",
        )?;
        ConfigError::require(
            self.per_second <= 1_000_000,
            "per_second",
            "must not be above 1000000",
        )?;
        ConfigError::require(
            (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&self.window),
            "window",
            "must be between 1s and 60s",
        )
    }

    fn floor_millionths(&self) -> i64 {
        let per_second = i64::from(self.per_second) * ONE;
        (i128::from(per_second) * self.window.as_nanos() as i128 / 1_000_000_000) as i64
    }
}

/// Leave to make one extra attempt. Give it to [`Budget::settle`] when the
/// attempt has ended, or to [`Budget::abandon`] if it was never sent.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an extra attempt that is never settled counts as in flight for ever"]
pub struct Extra(());

/// Why there is no extra attempt, with the numbers it was decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// Less than one extra attempt is saved up.
    Spent {
        /// What is saved up, in millionths.
        balance_millionths: i64,
    },
    /// Too many of the attempts in flight are extra ones.
    InFlight {
        /// Extra attempts in flight.
        extra: u32,
        /// Most that may be.
        extra_max: u32,
    },
}

impl Rejected {
    /// A stable word for logs, metrics and traces.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Spent { .. } => "budget_spent",
            Self::InFlight { .. } => "budget_in_flight",
        }
    }
}

/// What is known of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Saved up, in millionths of an extra attempt.
    pub balance_millionths: i64,
    /// Extra attempts in flight.
    pub extra_in_flight: u32,
}

const ONE: i64 = 1_000_000;

/// The budget of one dependency, shared by everything that calls it.
#[derive(Debug)]
pub struct Budget {
    config: Config,
    slicing: Slicing,
    deposit: i64,
    floor: i64,
    slices: [Cell; SLICES],
    extra: AtomicU32,
}

impl Budget {
    /// A budget with nothing but its floor.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            slicing: Slicing::new(config.window),
            deposit: (config.ratio * ONE as f64).round() as i64,
            floor: config.floor_millionths(),
            slices: core::array::from_fn(|_| Cell::new()),
            extra: AtomicU32::new(0),
        }
    }

    /// What it was built with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// A call arrived.
    pub fn call(&self, now: Instant) {
        if self.config.basis == Basis::Call {
            self.deposit(now);
        }
    }

    /// An attempt, first or extra, succeeded.
    pub fn success(&self, now: Instant) {
        if self.config.basis == Basis::Success {
            self.deposit(now);
        }
    }

    /// Adds the share of one extra attempt, whatever the basis.
    pub fn deposit(&self, now: Instant) {
        self.add(now, self.deposit);
    }

    /// Asks to send one extra attempt while `in_flight` attempts, extra ones
    /// included, are out.
    ///
    /// # Errors
    ///
    /// [`Rejected`]; nothing was taken, and attempts that run are not concerned.
    pub fn admit(&self, now: Instant, in_flight: u32) -> Result<Extra, Rejected> {
        let by_ratio = (f64::from(in_flight) * self.config.ratio) as u32;
        let extra_max = by_ratio.max(self.config.in_flight_min);
        let taken = self.extra.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |extra| {
            (extra < extra_max).then(|| extra + 1)
        });
        if let Err(extra) = taken {
            return Err(Rejected::InFlight { extra, extra_max });
        }
        // Take first, look second, at what this taking alone has left: of two
        // that race for the last one, one sees nothing left and gives its own back.
        let balance = self.take_one(now);
        if balance < 0 {
            self.add(now, ONE);
            self.extra.fetch_sub(1, Ordering::Relaxed);
            return Err(Rejected::Spent { balance_millionths: balance + ONE });
        }
        Ok(Extra(()))
    }

    /// An extra attempt has ended.
    pub fn settle(&self, extra: Extra) {
        let Extra(()) = extra;
        let before = self.extra.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "each extra attempt ends once");
    }

    /// An extra attempt was not sent after all: it costs nothing.
    pub fn abandon(&self, now: Instant, extra: Extra) {
        self.add(now, ONE);
        self.settle(extra);
    }

    /// What is known of it.
    pub fn view(&self, now: Instant) -> View {
        View {
            balance_millionths: self.balance(now),
            extra_in_flight: self.extra.load(Ordering::Relaxed),
        }
    }

    /// A budget for a changed `config` that remembers what this one has saved
    /// up, where the windows are alike.
    #[must_use]
    pub fn reconfigured(&self, config: Config) -> Self {
        let next = Self::new(config);
        if config.window == self.config.window {
            for (slice, old) in next.slices.iter().zip(&self.slices) {
                slice.copy(old);
            }
        }
        next
    }

    fn add(&self, now: Instant, millionths: i64) {
        let epoch = self.slicing.epoch(now);
        self.slices[self.slicing.index(epoch)].add(epoch, millionths);
    }

    /// Takes one and says what that leaves.
    fn take_one(&self, now: Instant) -> i64 {
        let epoch = self.slicing.epoch(now);
        let here = self.slicing.index(epoch);
        let left = self.slices[here].add(epoch, -ONE);
        let elsewhere = self.slices.iter().enumerate().filter(|(index, _)| *index != here);
        self.floor + left + elsewhere.filter_map(|(_, slice)| slice.get(epoch)).sum::<i64>()
    }

    fn balance(&self, now: Instant) -> i64 {
        let epoch = self.slicing.epoch(now);
        self.floor + self.slices.iter().filter_map(|slice| slice.get(epoch)).sum::<i64>()
    }
}
