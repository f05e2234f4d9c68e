//! The live state of one service, shared by everything that calls it.
//!
//! The set of endpoints does not change within a [`Service`]: a changed set or
//! policy makes a new one with [`Service::rebuilt`], which goes on with what
//! is known of the endpoints that stay. A call ends on the service that it
//! began on.
//!
//! What changed (breakers, ejections, health) is put down as [`Event`]s in a
//! bounded list, to be taken by whoever logs; taking costs one load when there
//! is none.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::balance::{self, Balancer, Load, Standing};
use crate::budget::{self, Budget};
use crate::bulkhead::{self, Bulkhead, Ticket};
use crate::hedge::Hedge;
use crate::outcome::Outcome;
use crate::outlier::{self, Detector, Host, Hosts};
use crate::policy::Policy;
use crate::random::{Keyed, Rng};
use crate::sync::{AtomicU32, Mutex, Ordering, lock};
use crate::time::{Duration, Instant};
use crate::{breaker, health, quantile};

#[cfg(test)]
mod tests;

/// Events that are kept for whoever logs; older ones go first.
pub const EVENTS_MAX: usize = 256;

/// An endpoint as configured or resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is known by: equal addresses are the same endpoint.
    pub address: Arc<str>,
    /// Its share of traffic relative to the others; 0 gets nothing.
    pub weight: u32,
}

impl Target {
    /// The endpoint at `address`, with weight 1.
    #[must_use]
    pub fn new(address: impl Into<Arc<str>>) -> Self {
        Self { address: address.into(), weight: 1 }
    }
}

/// One endpoint and what is known of it.
#[derive(Debug)]
pub struct Endpoint {
    target: Target,
    record: Arc<Record>,
    breaker: Option<Arc<breaker::Shared>>,
    health: Option<Arc<health::Shared>>,
}

/// What survives a changed policy as it is.
#[derive(Debug)]
struct Record {
    load: Load,
    host: Host,
    draining: AtomicU32,
}

impl Endpoint {
    /// What it is known by.
    #[must_use]
    pub fn address(&self) -> &Arc<str> {
        &self.target.address
    }

    /// Its share of traffic relative to the others.
    #[must_use]
    pub const fn weight(&self) -> u32 {
        self.target.weight
    }

    /// How busy and how slow it is.
    #[must_use]
    pub fn load(&self) -> &Load {
        &self.record.load
    }

    /// Its breaker, if the policy has one.
    #[must_use]
    pub fn breaker(&self) -> Option<&breaker::Shared> {
        self.breaker.as_deref()
    }

    /// Whether an operator wants no new calls on it.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.record.draining.load(Ordering::Relaxed) != 0
    }

    /// Whether its checks find it fit, or none are made.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.health.as_ref().is_none_or(|health| health.healthy())
    }

    /// Whether it is out of rotation because of what its answers showed.
    #[must_use]
    pub fn ejected(&self, now: Instant) -> bool {
        self.record.host.ejected(now)
    }

    /// What keeps new attempts from it at `now`.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        let closed_off = self.target.weight == 0 || self.draining();
        if closed_off || self.breaker.as_ref().is_some_and(|breaker| !breaker.ready(now)) {
            Standing::Excluded
        } else if self.healthy() && !self.ejected(now) {
            Standing::Usable
        } else {
            Standing::Unhealthy
        }
    }
}

/// A change worth a log line.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// The endpoint that it happened to.
    pub endpoint: Arc<str>,
    /// What happened.
    pub change: Change,
}

/// What happened to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// Its breaker changed state.
    Breaker(breaker::Transition),
    /// It was ejected, spared or brought back.
    Outlier(outlier::Change),
    /// Its checks found it fit, or not.
    Health(health::Transition),
    /// An operator wants no new calls on it, or wants them again.
    Draining(bool),
}

#[derive(Debug, Default)]
struct Events {
    count: AtomicU32,
    list: Mutex<VecDeque<Event>>,
}

/// The live state of one service.
#[derive(Debug)]
pub struct Service {
    policy: Policy,
    seed: u64,
    endpoints: Box<[Endpoint]>,
    balancer: Balancer,
    outlier: Option<Detector>,
    budget: Option<Arc<Budget>>,
    hedge: Option<Arc<Hedge>>,
    bulkhead: Option<Arc<Bulkhead>>,
    latency: Arc<quantile::Shared>,
    events: Arc<Events>,
}

impl Service {
    /// A service about which nothing is known. `seed` decides the jitter of
    /// its breakers and of its first checks.
    #[must_use]
    pub fn new(now: Instant, policy: Policy, targets: Vec<Target>, seed: u64) -> Self {
        let fresh = Self {
            balancer: Balancer::new(policy.balance),
            seed,
            endpoints: Box::default(),
            outlier: None,
            budget: None,
            hedge: None,
            bulkhead: None,
            latency: Arc::new(quantile::Shared::new(now, 0.5, Duration::from_secs(10), 20)),
            events: Arc::default(),
            policy: Policy::default(),
        };
        fresh.rebuilt(now, policy, targets)
    }

    /// The service under a changed policy or with changed endpoints. Both
    /// share what they have in common, so calls that began on the old one
    /// still count.
    #[must_use]
    pub fn rebuilt(&self, now: Instant, policy: Policy, targets: Vec<Target>) -> Self {
        let loads = self.endpoints.iter().map(Endpoint::load);
        let usual = balance::median(now, &policy.balance, loads);
        let endpoints =
            targets.into_iter().map(|target| self.endpoint(now, &policy, target, usual));
        Self {
            endpoints: endpoints.collect(),
            balancer: Balancer::new(policy.balance),
            seed: self.seed,
            outlier: policy.outlier.map(|config| Detector::new(now, config)),
            budget: policy.budget.map(|config| match &self.budget {
                Some(budget) if *budget.config() == config => Arc::clone(budget),
                Some(budget) => Arc::new(budget.reconfigured(config)),
                None => Arc::new(Budget::new(config)),
            }),
            hedge: policy.hedge.map(|config| match &self.hedge {
                Some(hedge) if *hedge.config() == config => Arc::clone(hedge),
                _ => Arc::new(Hedge::new(now, config)),
            }),
            bulkhead: policy.bulkhead.map(|config| match &self.bulkhead {
                Some(bulkhead) => {
                    bulkhead.reconfigure(now, config);
                    Arc::clone(bulkhead)
                }
                None => Arc::new(Bulkhead::new(config, None)),
            }),
            latency: Arc::clone(&self.latency),
            events: Arc::clone(&self.events),
            policy,
        }
    }

    fn endpoint(
        &self,
        now: Instant,
        policy: &Policy,
        target: Target,
        usual: Option<Duration>,
    ) -> Endpoint {
        let before = self.endpoints.iter().find(|one| one.target.address == target.address);
        let seed = target
            .address
            .bytes()
            .fold(self.seed, |seed, byte| Keyed::new(&[seed, u64::from(byte)]).next_u64());
        let breaker =
            policy.breaker.map(|config| match before.and_then(|before| before.breaker.as_ref()) {
                Some(breaker) => {
                    breaker.reconfigure(config);
                    Arc::clone(breaker)
                }
                None => Arc::new(breaker::Shared::new(now, config, seed)),
            });
        let health = policy.health.as_ref().map(|config| {
            match before.and_then(|before| before.health.as_ref()) {
                Some(health) => Arc::clone(health),
                None => Arc::new(health::Shared::new(now, config, &mut Keyed::new(&[seed, 1]))),
            }
        });
        let record = before.map_or_else(
            || {
                let load = usual.map_or_else(Load::new, |usual| Load::seeded(now, usual));
                Arc::new(Record { load, host: Host::new(), draining: AtomicU32::new(0) })
            },
            |before| Arc::clone(&before.record),
        );
        Endpoint { target, record, breaker, health }
    }

    /// What it was built with.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its endpoints, in the order of [`crate::call::Attempt::endpoint`].
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Attempts that are out.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.endpoints.iter().map(|endpoint| endpoint.load().pending()).sum()
    }

    /// The median latency of recent attempts that succeeded, once enough are known.
    #[must_use]
    pub fn usual_latency(&self, now: Instant) -> Option<Duration> {
        self.latency.get(now)
    }

    /// A queued call that may go on: wake it. Ask after every call to
    /// [`crate::call::Call`] until there is none; one load if there is none.
    #[must_use]
    #[inline]
    pub fn granted(&self) -> Option<Ticket> {
        self.bulkhead.as_ref()?.granted()
    }

    /// The oldest event that nobody has taken; one load if there is none.
    #[must_use]
    #[inline]
    pub fn take_event(&self) -> Option<Event> {
        if self.events.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut list = lock(&self.events.list);
        let event = list.pop_front();
        self.events.count.store(list.len() as u32, Ordering::Relaxed);
        event
    }

    /// When [`Service::wake`] may have something to do.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let breakers =
            self.endpoints.iter().filter_map(|endpoint| endpoint.breaker()?.next_wakeup());
        breakers.chain(self.outlier.as_ref().map(Detector::next_wakeup)).min()
    }

    /// Lets time do what it does: judge rates, end ejections and open times.
    /// Call it at [`Service::next_wakeup`] or every second or so.
    pub fn wake(&self, now: Instant) {
        if let Some(detector) = &self.outlier {
            detector.wake(now, self, |transition| self.report_outlier(now, transition));
        }
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            if let Some(transition) = endpoint.breaker().and_then(|breaker| breaker.wake(now)) {
                self.report(now, index, Change::Breaker(transition));
            }
        }
    }

    /// A check of the endpoint at `index` to make now, if one is due.
    pub fn check_due(
        &self,
        now: Instant,
        index: usize,
        rng: &mut impl Rng,
    ) -> Option<health::Check> {
        let config = self.policy.health.as_ref()?;
        self.endpoints[index].health.as_ref()?.wake(now, config, rng)
    }

    /// When the next check of the endpoint at `index` is due.
    #[must_use]
    pub fn next_check(&self, index: usize) -> Option<Instant> {
        Some(self.endpoints[index].health.as_ref()?.next_wakeup())
    }

    /// A check of the endpoint at `index` ended.
    pub fn check_settle(
        &self,
        now: Instant,
        index: usize,
        check: health::Check,
        passed: bool,
        rng: &mut impl Rng,
    ) {
        let (Some(config), Some(health)) = (&self.policy.health, &self.endpoints[index].health)
        else {
            return;
        };
        if let Some(transition) = health.settle(now, config, check, passed, rng) {
            self.report(now, index, Change::Health(transition));
        }
    }

    /// Does what an operator wants of the breaker of the endpoint at `index`;
    /// false if it has none.
    pub fn control_breaker(&self, now: Instant, index: usize, control: breaker::Control) -> bool {
        let Some(breaker) = self.endpoints[index].breaker() else { return false };
        if let Some(transition) = breaker.control(now, control) {
            self.report(now, index, Change::Breaker(transition));
        }
        true
    }

    /// Keeps new calls from the endpoint at `index`, or lets them come again.
    pub fn drain(&self, now: Instant, index: usize, draining: bool) {
        let wanted = u32::from(draining);
        if self.endpoints[index].record.draining.swap(wanted, Ordering::Relaxed) != wanted {
            self.report(now, index, Change::Draining(draining));
        }
    }

    /// Puts the endpoint at `index` back in rotation, if it is ejected.
    pub fn uneject(&self, now: Instant, index: usize) {
        if let Some(transition) =
            self.outlier.as_ref().and_then(|detector| detector.release(self, index))
        {
            self.report_outlier(now, transition);
        }
    }

    /// What is known of it at `now`: for the operator API and for metrics.
    #[must_use]
    pub fn view(&self, now: Instant) -> View {
        View {
            endpoints: self.endpoints.iter().map(|one| self.view_endpoint(now, one)).collect(),
            in_flight: self.in_flight(),
            usual_latency: self.usual_latency(now),
            budget: self.budget.as_ref().map(|budget| budget.view(now)),
            bulkhead: self.bulkhead.as_ref().map(|bulkhead| bulkhead.view()),
            hedge_delay: self.hedge.as_ref().map(|hedge| hedge.delay(now)),
        }
    }

    fn view_endpoint(&self, now: Instant, endpoint: &Endpoint) -> EndpointView {
        EndpointView {
            address: Arc::clone(endpoint.address()),
            weight: endpoint.weight(),
            standing: endpoint.standing(now),
            draining: endpoint.draining(),
            healthy: endpoint.healthy(),
            pending: endpoint.load().pending(),
            latency: endpoint.load().estimate(now, &self.policy.balance),
            outlier: endpoint.record.host.view(now),
            breaker: endpoint.breaker().map(|breaker| breaker.view(now)),
            health: endpoint.health.as_ref().map(|health| health.view()),
        }
    }

    pub(crate) const fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    pub(crate) fn budget(&self) -> Option<&Budget> {
        self.budget.as_deref()
    }

    pub(crate) fn hedge(&self) -> Option<&Hedge> {
        self.hedge.as_deref()
    }

    pub(crate) fn bulkhead(&self) -> Option<&Bulkhead> {
        self.bulkhead.as_deref()
    }

    /// An attempt at the endpoint at `index` is known to end with `outcome`.
    pub(crate) fn observe(&self, now: Instant, index: usize, elapsed: Duration, outcome: Outcome) {
        let endpoint = &self.endpoints[index];
        endpoint.load().observe(now, &self.policy.balance, elapsed, outcome);
        if outcome == Outcome::Success {
            self.latency.record(now, elapsed);
            if let Some(budget) = self.budget() {
                budget.success(now);
            }
        }
        if let Some(transition) =
            self.outlier.as_ref().and_then(|detector| detector.settle(now, self, index, outcome))
        {
            self.report_outlier(now, transition);
        }
    }

    pub(crate) fn report(&self, now: Instant, index: usize, change: Change) {
        let endpoint = Arc::clone(self.endpoints[index].address());
        let mut list = lock(&self.events.list);
        if list.len() == EVENTS_MAX {
            list.pop_front();
        }
        list.push_back(Event { at: now, endpoint, change });
        self.events.count.store(list.len() as u32, Ordering::Relaxed);
    }

    fn report_outlier(&self, now: Instant, transition: outlier::Transition) {
        self.report(now, transition.index, Change::Outlier(transition.change));
    }
}

impl Hosts for Service {
    fn count(&self) -> usize {
        self.endpoints.len()
    }

    fn host(&self, index: usize) -> &Host {
        &self.endpoints[index].record.host
    }
}

/// What is known of a service.
#[derive(Clone, Debug)]
pub struct View {
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
    /// Attempts that are out.
    pub in_flight: u32,
    /// The median latency of recent successes.
    pub usual_latency: Option<Duration>,
    /// The budget for extra attempts.
    pub budget: Option<budget::View>,
    /// The bulkhead.
    pub bulkhead: Option<bulkhead::View>,
    /// How long an attempt may take before a hedge is sent.
    pub hedge_delay: Option<Duration>,
}

/// What is known of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// What it is known by.
    pub address: Arc<str>,
    /// Its share of traffic relative to the others.
    pub weight: u32,
    /// Whether new attempts may go to it.
    pub standing: Standing,
    /// An operator wants no new calls on it.
    pub draining: bool,
    /// Its checks find it fit.
    pub healthy: bool,
    /// Attempts out to it.
    pub pending: u32,
    /// What the next attempt is expected to take.
    pub latency: Option<Duration>,
    /// What its answers show.
    pub outlier: outlier::View,
    /// Its breaker.
    pub breaker: Option<breaker::View>,
    /// Its checks.
    pub health: Option<health::View>,
}
