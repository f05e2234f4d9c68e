//! The layers from outside: what they cost, and how they behave in a real stack.

mod allocations;
mod stacks;

use selvedge_patterns::{breaker, budget, bulkhead, limit, retry, timeout};
use selvedge_tower::classify::Always;
use selvedge_tower::{Policy, policy};

/// Deadline, retry, breaker, bulkhead, attempt timeout: five patterns, one layer.
fn policy() -> Policy<Always> {
    policy::Builder::build(
        Policy::builder(Always::SAFE)
            .timeout(timeout::Config::default())
            .retry(retry::Config::default(), budget::Config::default())
            .breaker(breaker::Config::default())
            .bulkhead(bulkhead::Config::default()),
    )
    .expect("the defaults are valid")
}

fn generous() -> limit::Config {
    limit::Config {
        rate: limit::Rate::per_second(1_000_000),
        burst: 1_000_000,
        ..limit::Config::default()
    }
}
