//! Everything configured for one service, and whether it fits together.
//!
//! The order in which the parts act is not configured: it is the order of
//! [`crate::call`], the same everywhere.

use core::fmt;

use crate::config::ConfigError;
use crate::{
    balance, breaker, budget, bulkhead, deadline, fallback, health, hedge, outlier, retry, timeout,
};

#[cfg(test)]
mod tests;

/// How calls to one service are made. By default: timeouts and balancing, and
/// nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// How a deadline is kept.
    pub deadline: deadline::Config,
    /// How long each part of a call may take.
    pub timeout: timeout::Config,
    /// When and how often a call is tried again.
    pub retry: Option<retry::Config>,
    /// What bounds retries and hedges together.
    pub budget: Option<budget::Config>,
    /// When a second attempt is sent beside a slow one.
    pub hedge: Option<hedge::Config>,
    /// How attempts spread over endpoints.
    pub balance: balance::Config,
    /// When an endpoint is taken out because of what its answers show.
    pub outlier: Option<outlier::Config>,
    /// How endpoints are checked.
    pub health: Option<health::Config>,
    /// When an endpoint is not called any more: one breaker per endpoint.
    pub breaker: Option<breaker::Config>,
    /// How many attempts at the service run at once.
    pub bulkhead: Option<bulkhead::Config>,
    /// What to answer when the service cannot.
    pub fallback: Option<fallback::Config>,
}

/// Hedges that may run beside an attempt: a call holds its attempts without a heap.
pub const HEDGES_MAX: u32 = 3;

/// A policy that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// The part: the field of [`Policy`].
    pub part: &'static str,
    /// What is wrong in it.
    pub error: ConfigError,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}.{}` {}", self.part, self.error.key, self.error.problem)
    }
}

impl core::error::Error for PolicyError {}

impl Policy {
    /// All that is wrong, part by part; empty if nothing is.
    #[must_use]
    pub fn problems(&self) -> Vec<PolicyError> {
        let mut problems = Vec::new();
        let mut check = |part, result: Result<(), ConfigError>| {
            if let Err(error) = result {
                problems.push(PolicyError { part, error });
            }
        };
        check("deadline", self.deadline.validate());
        check("timeout", self.timeout.validate());
        check("retry", self.retry.as_ref().map_or(Ok(()), retry::Config::validate));
        check("budget", self.budget.as_ref().map_or(Ok(()), budget::Config::validate));
        check("hedge", self.hedge.as_ref().map_or(Ok(()), hedge::Config::validate));
        check(
            "hedge",
            self.hedge.map_or(Ok(()), |hedge| {
                let fits = hedge.extra_max <= HEDGES_MAX;
                ConfigError::require(fits, "extra_max", "must not be above 3")
            }),
        );
        check("balance", self.balance.validate());
        check("outlier", self.outlier.as_ref().map_or(Ok(()), outlier::Config::validate));
        check("health", self.health.as_ref().map_or(Ok(()), health::Config::validate));
        check("breaker", self.breaker.as_ref().map_or(Ok(()), breaker::Config::validate));
        check("bulkhead", self.bulkhead.as_ref().map_or(Ok(()), bulkhead::Config::validate));
        check("fallback", self.fallback.as_ref().map_or(Ok(()), fallback::Config::validate));
        check("timeout", {
            let fits = self.timeout.total.is_none_or(|total| total >= self.deadline.attempt_min);
            ConfigError::require(fits, "total", "must leave time for one attempt (`attempt_min`)")
        });
        problems
    }

    /// Checks every part and how they fit together.
    ///
    /// # Errors
    ///
    /// The first of [`Policy::problems`].
    pub fn validate(&self) -> Result<(), PolicyError> {
        self.problems().first().copied().map_or(Ok(()), Err)
    }

    /// Everything on, with its defaults: what the benchmarks and a careful
    /// user begin with.
    #[must_use]
    pub fn careful() -> Self {
        Self {
            retry: Some(retry::Config::default()),
            budget: Some(budget::Config::default()),
            outlier: Some(outlier::Config::default()),
            breaker: Some(breaker::Config::default()),
            bulkhead: Some(bulkhead::Config::default()),
            ..Self::default()
        }
    }
}
