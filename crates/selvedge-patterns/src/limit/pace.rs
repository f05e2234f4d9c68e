//! Time measured in fractions of one admission, without drift.

use super::{Allowed, Config, Reason, Rejected};
use crate::config::ConfigError;
use crate::time::{Duration, Instant, nanos};

/// A rate and burst, turned into constants that need no division to apply.
///
/// One admission (a cell) is a whole number of *units*, chosen so that a unit
/// is a nanosecond if the period divides, and otherwise slightly less. The
/// reading of the clock in units is always computed from the whole time since
/// the origin, so rounding it never adds up: at 3/s or 999,999,937/s the
/// millionth period is as exact as the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    burst: u32,
    cell_units: u64,
    /// 2^64 over `cell_units`, rounded down: a division as a multiplication.
    cells_per_unit: u64,
    burst_units: u64,
    /// Units per nanosecond less one, in 2^-64.
    fraction: u64,
    nanos_per_unit: f64,
}

impl Pace {
    /// The constants for `config`.
    ///
    /// # Errors
    ///
    /// As [`Config::validate`].
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        let (count, per) = (u64::from(config.rate.count), nanos(config.rate.per));
        let cell_units = per.div_ceil(count);
        let units = u128::from(count) * u128::from(cell_units);
        // At most one cell per nanosecond, so `per <= units < 2 * per`; dividing
        // twice by 32 bits keeps the numerator within 128 bits.
        let rest = units - u128::from(per);
        let high = (rest << 32) / u128::from(per);
        let low = (((rest << 32) % u128::from(per)) << 32) / u128::from(per);
        Ok(Self {
            burst: config.burst,
            cell_units,
            cells_per_unit: u64::try_from((1u128 << 64) / u128::from(cell_units))
                .unwrap_or(u64::MAX),
            burst_units: cell_units * u64::from(config.burst),
            fraction: ((high << 32) + low) as u64,
            nanos_per_unit: per as f64 / units as f64,
        })
    }

    /// What may be admitted at once.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    pub(super) const fn cell_units(&self) -> u64 {
        self.cell_units
    }

    pub(super) const fn burst_units(&self) -> u64 {
        self.burst_units
    }

    /// The units that `cost` takes, unless that is more than there ever are.
    #[inline]
    pub(super) const fn cost(&self, cost: u32) -> Result<u64, Rejected> {
        if cost <= self.burst {
            return Ok(cost as u64 * self.cell_units);
        }
        Err(Rejected {
            reason: Reason::TooLarge,
            retry_after: None,
            limit: self.burst,
            remaining: 0,
            cost,
        })
    }

    /// The time since the origin, in units.
    #[inline]
    pub(super) const fn units(&self, now: Instant) -> u64 {
        let extra = (now.as_nanos() as u128 * self.fraction as u128) >> 64;
        now.as_nanos().saturating_add(extra as u64)
    }

    #[inline]
    pub(super) fn allowed(&self, level_units: u64) -> Allowed {
        Allowed {
            limit: self.burst,
            remaining: self.remaining(level_units),
            reset_after: Duration::from_nanos(self.nanos_at_least(self.burst_units - level_units)),
        }
    }

    /// `cost` would pass at the first instant whose reading is `at_units`.
    pub(super) fn rejected(
        &self,
        now: Instant,
        level_units: u64,
        cost: u32,
        at_units: u64,
    ) -> Rejected {
        Rejected {
            reason: Reason::Rate,
            retry_after: Some(self.until(now, at_units)),
            limit: self.burst,
            remaining: self.remaining(level_units),
            cost,
        }
    }

    const fn remaining(&self, level_units: u64) -> u32 {
        let cells = ((level_units as u128 * self.cells_per_unit as u128) >> 64) as u64;
        // Rounded down twice, so it may be one too few.
        let rest = level_units - cells * self.cell_units;
        (cells + (rest >= self.cell_units) as u64) as u32
    }

    /// How long `units` take, rounded up. Units are below 2^62, so the signed
    /// conversions, which are the cheap ones, lose nothing.
    const fn nanos_at_least(&self, units: u64) -> u64 {
        let exact = units as i64 as f64 * self.nanos_per_unit;
        let whole = exact as i64;
        (whole + ((whole as f64) < exact) as i64) as u64
    }

    /// The shortest wait after which the clock reads `at_units`.
    fn until(&self, now: Instant, at_units: u64) -> Duration {
        let short = at_units.saturating_sub(self.units(now));
        let mut wait = (short as f64 * self.nanos_per_unit) as u64;
        // The guess is off by the rounding of the clock and of the float: at most
        // a few steps, for a wait of years a few hundred.
        while self.units(now + Duration::from_nanos(wait)) < at_units
            && now.as_nanos() < u64::MAX - wait
        {
            wait += 1;
        }
        while wait > 0 && self.units(now + Duration::from_nanos(wait - 1)) >= at_units {
            wait -= 1;
        }
        Duration::from_nanos(wait)
    }
}
