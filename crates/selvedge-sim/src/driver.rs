//! The one place where the simulator asks the production policies anything.
//!
//! A [`Driver`] is one caller's way to one service, as a gateway or a sidecar
//! has it: the live state built from the policy of the production file, and
//! what is kept to fall back on. The simulated world drives its calls through
//! it, and [`crate::replay`] drives what a real proxy wrote down through it.

use selvedge_patterns::bulkhead::Ticket;
use selvedge_patterns::call::{Call, Request, Step};
use selvedge_patterns::fallback::Choice;
use selvedge_patterns::health::Check;
use selvedge_patterns::outcome::{Outcome, Safety};
use selvedge_patterns::policy::Policy;
use selvedge_patterns::random::Rng;
use selvedge_patterns::service::{Endpoint, Service, Target};
use selvedge_patterns::time::Instant;

/// One caller's way to one service.
#[derive(Debug)]
pub(crate) struct Driver {
    live: Service,
}

impl Driver {
    pub(crate) fn new(now: Instant, policy: &Policy, targets: Vec<Target>, seed: u64) -> Self {
        Self { live: Service::new(now, policy.clone(), targets, seed) }
    }

    pub(crate) const fn policy(&self) -> &Policy {
        self.live.policy()
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        self.live.endpoints()
    }

    pub(crate) fn begin(&self, now: Instant, request: Request) -> Call {
        Call::begin(now, &self.live, request)
    }

    pub(crate) fn next(&self, now: Instant, call: &mut Call, rng: &mut impl Rng) -> Step {
        call.next(now, &self.live, rng)
    }

    pub(crate) fn settle(&self, now: Instant, call: &mut Call, number: u32, outcome: Outcome) {
        call.settle(now, &self.live, number, outcome);
    }

    /// Only a proxy commits: a simulated answer is whole when it comes.
    pub(crate) fn commit(&self, now: Instant, call: &mut Call, number: u32) {
        call.commit(now, &self.live, number);
    }

    pub(crate) fn finish(&self, now: Instant, call: &mut Call) {
        call.finish(now, &self.live);
    }

    /// A queued call whose turn has come; ask until there is none.
    pub(crate) fn granted(&self) -> Option<Ticket> {
        self.live.granted()
    }

    /// Lets the policies see that time passes. What changed is not kept.
    pub(crate) fn wake(&self, now: Instant) {
        self.live.wake(now);
        while self.live.take_event().is_some() {}
    }

    pub(crate) fn check_due(
        &self,
        now: Instant,
        endpoint: usize,
        rng: &mut impl Rng,
    ) -> Option<Check> {
        self.live.check_due(now, endpoint, rng)
    }

    pub(crate) fn check_settle(
        &self,
        now: Instant,
        endpoint: usize,
        check: Check,
        passed: bool,
        rng: &mut impl Rng,
    ) {
        self.live.check_settle(now, endpoint, check, passed, rng);
    }

    /// What is given instead of a call that ended with `outcome`.
    pub(crate) fn fall_back(
        &self,
        now: Instant,
        safety: Safety,
        outcome: Outcome,
        last_good: Option<Instant>,
    ) -> Choice {
        let fallback = self.live.policy().fallback;
        fallback.map_or(Choice::None, |fallback| fallback.choose(now, safety, outcome, last_good))
    }

    /// Whether a good answer is kept to fall back on.
    pub(crate) fn keeps(&self, safety: Safety, outcome: Outcome) -> bool {
        self.live.policy().fallback.is_some_and(|fallback| fallback.keeps(safety, outcome))
    }
}
