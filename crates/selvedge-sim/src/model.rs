//! What is simulated: clients, gateways, services, faults, and what is expected of them.
//!
//! Plain values without defaults that hide anything: whoever builds a
//! [`Scenario`] (the reader of scenario files, a test) says everything, and
//! [`Scenario::validate`] refuses what cannot be simulated with the reason.

use selvedge_patterns::limit;
use selvedge_patterns::outcome::Safety;
use selvedge_patterns::policy::Policy;
use selvedge_patterns::time::{Duration, nanos};

use crate::distribution::{Distribution, Impossible};

/// Calls that one service makes per request, at most.
const EDGES_MAX: usize = 255;
/// Calls below one request, on average, at most.
const CALLS_PER_REQUEST_MAX: f64 = 100_000.0;
/// Instances, and gateways, at most.
const STATIONS_MAX: f64 = 100_000.0;
/// Bins of the time series, at most.
const BINS_MAX: f64 = 1_000_000.0;
/// Allowances of one client on all gateways, at most.
const LIMITS_MAX: f64 = 1_000_000.0;

/// Everything one replication needs besides its seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Shown in reports.
    pub name: String,
    /// Where load comes from; at least one.
    pub clients: Vec<Client>,
    /// The simulated services.
    pub services: Vec<Service>,
    /// Gateway replicas in front of the services that clients call, each with
    /// its own breakers, budgets, limits and balancers. At least one.
    pub gateways: u32,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// How long and how often.
    pub run: Run,
    /// What must hold.
    pub expect: Vec<Expectation>,
    /// What was assumed because nobody said: printed in every report.
    pub assumptions: Vec<String>,
}

/// A population that makes calls.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// When calls come.
    pub arrivals: Arrivals,
    /// Index of the service it calls.
    pub target: usize,
    /// How long it waits for the answer; `None` waits for ever.
    pub deadline: Option<Duration>,
    /// Whether somebody who got no answer tries again by hand.
    pub user_retry: Option<UserRetry>,
    /// Whether its calls may be repeated by policies.
    pub safety: Safety,
    /// What each gateway admits of its calls, and how many keys share them:
    /// every key has an allowance of its own.
    pub limit: Option<(limit::Config, u32)>,
    /// How many different things it asks for, each as often as the others: a
    /// stale answer stands in only for the same question. At least 1.
    pub pages: u32,
}

impl Client {
    /// A population without deadline and without second tries, calling the first service.
    #[must_use]
    pub fn new(name: &str, arrivals: Arrivals) -> Self {
        Self {
            name: name.to_owned(),
            arrivals,
            target: 0,
            deadline: None,
            user_retry: None,
            safety: Safety::Safe,
            limit: None,
            pages: 1,
        }
    }
}

/// When calls come.
#[derive(Clone, Debug)]
pub enum Arrivals {
    /// Independent of each other, `rate` per second.
    Poisson {
        /// Calls per second.
        rate: f64,
    },
    /// Evenly spaced, `rate` per second.
    Paced {
        /// Calls per second.
        rate: f64,
    },
    /// Poisson whose rate jumps between two values after exponential times (MMPP-2).
    Mmpp {
        /// Calls per second in each phase.
        rates: [f64; 2],
        /// Mean stay in each phase.
        dwell: [Duration; 2],
    },
    /// At these times since the start, in nanoseconds, rising.
    Trace(Vec<u64>),
    /// `users` who each wait for an answer, think, and call again.
    Closed {
        /// How many.
        users: u32,
        /// Time between an answer and the next call.
        think: Distribution,
    },
}

impl Arrivals {
    /// Mean calls per second, where that does not depend on the answers.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Poisson { rate } | Self::Paced { rate } => Some(*rate),
            Self::Mmpp { rates, dwell } => {
                let (a, b) = (nanos(dwell[0]) as f64, nanos(dwell[1]) as f64);
                Some((rates[0] * a + rates[1] * b) / (a + b))
            }
            Self::Trace(times) => {
                let span = *times.last()? as f64 / 1e9;
                Some(times.len() as f64 / span.max(1e-9))
            }
            Self::Closed { .. } => None,
        }
    }
}

/// A person who reloads the page.
#[derive(Clone, Debug)]
pub struct UserRetry {
    /// Probability of trying again after a failure.
    pub probability: f64,
    /// Time until then.
    pub after: Distribution,
    /// At most so many times.
    pub attempts: u32,
}

/// A simulated service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name, which is also the policy's.
    pub name: String,
    /// Instances.
    pub replicas: u32,
    /// Requests that one instance works on at once.
    pub slots: u32,
    /// How long the work takes, without waiting and without what it calls.
    pub time: Distribution,
    /// Where requests wait for a slot.
    pub queue: Queue,
    /// How work slows down when more is done at once.
    pub slowdown: Slowdown,
    /// What happens to work whose caller has left.
    pub on_disconnect: OnDisconnect,
    /// What it calls once its own work is done, in order.
    pub calls: Vec<Edge>,
    /// Whether it keeps its slot while it waits for what it calls.
    pub holds_slot: bool,
    /// Errors it always makes.
    pub errors: Errors,
    /// A cache in front of what it calls.
    pub cache: Option<Cache>,
    /// How it behaves just after it started.
    pub cold_start: Option<ColdStart>,
    /// One-way network time from a caller to it and back.
    pub network: Duration,
    /// The policies on the way to it: one live copy per calling gateway or
    /// instance. Without any, an instance is picked at random and called once.
    pub policy: Option<Box<Policy>>,
    /// Whether it passes the deadline it was given, and the number of the
    /// attempt, on to what it calls.
    pub forwards: bool,
}

/// Where requests wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue {
    /// Who goes first.
    pub discipline: Discipline,
    /// How many may wait per instance; `None` for no bound.
    pub cap: Option<u32>,
    /// Who has waited this long is turned away when its turn comes.
    pub patience: Option<Duration>,
    /// Whether a request whose deadline has passed is dropped instead of started.
    pub drop_expired: bool,
}

/// Who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// First in, first out.
    Fifo,
    /// Last in, first out.
    Lifo,
    /// First in, first out, with the drops of RFC 8289.
    CoDel {
        /// Acceptable standing delay.
        target: Duration,
        /// How long it may be exceeded.
        interval: Duration,
    },
}

/// How work slows down when an instance does more at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slowdown {
    /// Not at all until all slots are busy.
    None,
    /// By `per_request` for each request beyond the first.
    Linear {
        /// Added share of the service time.
        per_request: f64,
    },
    /// By the universal scalability law.
    Usl {
        /// Contention.
        sigma: f64,
        /// Coherence.
        kappa: f64,
    },
}

impl Slowdown {
    /// The factor on the service time at concurrency `n`.
    #[must_use]
    pub fn factor(self, n: u32) -> f64 {
        let more = f64::from(n.max(1)) - 1.0;
        match self {
            Self::None => 1.0,
            Self::Linear { per_request } => 1.0 + per_request * more,
            Self::Usl { sigma, kappa } => 1.0 + sigma * more + kappa * more * f64::from(n),
        }
    }
}

/// What happens to work whose caller has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisconnect {
    /// It goes on, and is wasted.
    Keep,
    /// It stops at once.
    Cancel,
}

/// A call from one service to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// Index of the service called.
    pub service: usize,
    /// Probability that a request makes the call.
    pub probability: f64,
    /// Whether the caller does without when it fails.
    pub optional: bool,
}

/// Errors that come with no fault.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Probability of failing at once, without doing the work.
    pub fast: f64,
    /// Probability of failing after doing all the work.
    pub slow: f64,
}

/// A cache that answers instead of what a service calls, and that a success refills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cache {
    /// Hit ratio when warm.
    pub hit: f64,
    /// Successful misses after which it is 63 % warm.
    pub keys: f64,
}

/// Slower at first: work takes up to `factor` times as long, falling to normal over `lasts`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColdStart {
    /// Factor at the start, at least 1.
    pub factor: f64,
    /// Until normal.
    pub lasts: Duration,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// When it begins.
    pub at: Duration,
    /// How long it lasts, its ramp included.
    pub lasts: Duration,
    /// How long it takes to reach its full size.
    pub ramp: Duration,
}

impl Fault {
    /// How much of its size it has at `now`, 0 to 1.
    #[must_use]
    pub fn size(&self, now: u64) -> f64 {
        let (from, ramp) = (nanos(self.at), nanos(self.ramp));
        if now < from || now >= self.ends() {
            0.0
        } else if now - from >= ramp {
            1.0
        } else {
            (now - from) as f64 / ramp as f64
        }
    }

    /// When it ends, in nanoseconds.
    #[must_use]
    pub fn ends(&self) -> u64 {
        nanos(self.at).saturating_add(nanos(self.lasts))
    }
}

/// The kinds of fault. `service` and `client` are indices.
#[derive(Clone, Debug, PartialEq)]
pub enum FaultKind {
    /// Instances are gone: what they worked on is lost, connections are refused.
    Crash {
        /// Which service.
        service: usize,
        /// How many of its instances.
        replicas: u32,
    },
    /// Work takes longer.
    Latency {
        /// Which service.
        service: usize,
        /// How many times as long.
        factor: f64,
        /// How many of its instances, from the first.
        replicas: u32,
    },
    /// Requests fail.
    Errors {
        /// Which service.
        service: usize,
        /// Probability.
        probability: f64,
        /// Whether the work is done before it fails.
        slow: bool,
        /// How many of its instances, from the first.
        replicas: u32,
    },
    /// Only part of the capacity is left; at 0 nothing is worked on, everything queues.
    Capacity {
        /// Which service.
        service: usize,
        /// What is left, 0 to 1.
        left: f64,
    },
    /// Requests to it vanish without an answer.
    Partition {
        /// Which service.
        service: usize,
        /// How many of its instances, from the first.
        replicas: u32,
    },
    /// Its cache forgets everything, once.
    CacheFlush {
        /// Which service.
        service: usize,
    },
    /// More calls come.
    Load {
        /// Which client.
        client: usize,
        /// How many times as many.
        factor: f64,
    },
    /// Instances are replaced one after another, each away for `each`.
    Deploy {
        /// Which service.
        service: usize,
        /// How many at a time.
        batch: u32,
        /// For how long each.
        each: Duration,
    },
}

impl FaultKind {
    /// The service it strikes, if it strikes one.
    #[must_use]
    pub const fn service(&self) -> Option<usize> {
        match self {
            Self::Crash { service, .. }
            | Self::Latency { service, .. }
            | Self::Errors { service, .. }
            | Self::Capacity { service, .. }
            | Self::Partition { service, .. }
            | Self::CacheFlush { service }
            | Self::Deploy { service, .. } => Some(*service),
            Self::Load { .. } => None,
        }
    }
}

/// How long and how often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Simulated time; what came before is waited for after it.
    pub duration: Duration,
    /// What is left out of the statistics at the start.
    pub warm_up: Duration,
    /// Independent replications, seeds `seed`, `seed + 1`, ….
    pub seeds: u32,
    /// The first seed.
    pub seed: u64,
    /// Width of a bin of the time series.
    pub bin: Duration,
    /// Requests alive at once beyond which a run counts as diverged.
    pub alive_max: usize,
    /// How soon after the last fault counts as recovered.
    pub recovery_limit: Duration,
    /// Share of calls that must succeed before the first fault for a verdict to mean anything.
    pub healthy: f64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(300),
            warm_up: Duration::ZERO,
            seeds: 20,
            seed: 1,
            bin: Duration::from_secs(1),
            alive_max: 2_000_000,
            recovery_limit: Duration::from_secs(600),
            healthy: 0.9,
        }
    }
}

/// What must hold of the runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    /// Every run recovers within so long after the last fault.
    RecoversWithin(Duration),
    /// Runs end with this verdict (share of seeds at least 0.95).
    Verdict(crate::verdict::Kind),
    /// Goodput after the faults against before them: (comparison, ratio).
    GoodputAfter(Comparison, f64),
    /// Goodput while a fault lasts against before it.
    GoodputDuring(Comparison, f64),
    /// Share of first tries that succeed over the whole run.
    SuccessRate(Comparison, f64),
    /// Attempts at services per call the clients would make without faults, in the worst ten seconds.
    AmplificationMax(f64),
    /// A latency quantile of successful calls over the run.
    Latency {
        /// 0.5, 0.99, ….
        quantile: f64,
        /// Which side.
        comparison: Comparison,
        /// The bound.
        bound: Duration,
    },
    /// Requests that a service received per call of the clients, over the whole run.
    CallsPerRequest {
        /// Which service.
        service: usize,
        /// Which side.
        comparison: Comparison,
        /// The bound.
        bound: f64,
    },
    /// Share of the work done for callers who had left.
    WastedMax(f64),
    /// The fault may also last this long.
    TriggerMargin {
        /// Index of the fault.
        fault: usize,
        /// How long.
        lasts: Duration,
    },
}

/// Which side of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
}

impl Comparison {
    /// Whether `value` is on this side of `bound`.
    #[must_use]
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::AtLeast => value >= bound,
            Self::AtMost => value <= bound,
        }
    }

    /// As written in a scenario.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::AtLeast => "≥",
            Self::AtMost => "≤",
        }
    }
}

/// Why a scenario cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Nothing to simulate.
    #[error("a scenario needs at least one client, one service and one gateway")]
    Empty,
    /// A service time cannot be drawn.
    #[error("{what}: {why}")]
    Distribution {
        /// Whose.
        what: String,
        /// Why.
        why: Impossible,
    },
    /// A number outside its range.
    #[error("{what} is {value}; it must be {must}")]
    Range {
        /// Which.
        what: String,
        /// Its value.
        value: f64,
        /// The range in words.
        must: &'static str,
    },
    /// An index that points nowhere.
    #[error("{0} points at something that does not exist")]
    Dangling(String),
    /// A service that reaches itself.
    #[error("{0} calls itself in a circle with probability 1 or without a bound")]
    Cycle(String),
    /// A policy that makes no sense, or a part of it that is not simulated.
    #[error("{service}: {problem}")]
    Policy {
        /// Whose.
        service: String,
        /// The key, as in the production file.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A fault after the end, or of no length.
    #[error("{0}")]
    Fault(String),
}

impl Scenario {
    /// One population, these services, one gateway, no faults.
    #[must_use]
    pub fn new(name: &str, client: Client, services: Vec<Service>) -> Self {
        Self {
            name: name.to_owned(),
            clients: vec![client],
            services,
            gateways: 1,
            faults: Vec::new(),
            run: Run::default(),
            expect: Vec::new(),
            assumptions: Vec::new(),
        }
    }

    /// Whether it can be simulated.
    ///
    /// # Errors
    ///
    /// [`Refused`]: the first thing that cannot be.
    pub fn validate(&self) -> Result<(), Refused> {
        if self.clients.is_empty() || self.services.is_empty() || self.gateways == 0 {
            return Err(Refused::Empty);
        }
        if self.run.duration.is_zero() || self.run.bin.is_zero() || self.run.seeds == 0 {
            return Err(Refused::Fault("duration, bin and seeds must be positive".into()));
        }
        let bins = nanos(self.run.duration).div_ceil(nanos(self.run.bin));
        let stations: f64 = self.services.iter().map(|service| f64::from(service.replicas)).sum();
        for (what, value, most, must) in [
            ("the bins of a run", bins as f64, BINS_MAX, "at most 1000000"),
            ("the instances of all services", stations, STATIONS_MAX, "at most 100000"),
            ("the gateways", f64::from(self.gateways), STATIONS_MAX, "at most 100000"),
        ] {
            if value > most {
                return Err(Refused::Range { what: what.into(), value, must });
            }
        }
        if self.run.warm_up >= self.run.duration {
            return Err(Refused::Fault("the warm-up must end before the run does".into()));
        }
        self.clients.iter().try_for_each(|client| self.validate_client(client))?;
        self.services.iter().try_for_each(|service| self.validate_service(service))?;
        self.validate_graph()?;
        self.faults.iter().try_for_each(|fault| self.validate_fault(fault))
    }

    fn validate_client(&self, client: &Client) -> Result<(), Refused> {
        let name = &client.name;
        if client.target >= self.services.len() {
            return Err(Refused::Dangling(format!("the target of client {name}")));
        }
        match &client.arrivals {
            Arrivals::Poisson { rate } | Arrivals::Paced { rate } => {
                positive(&format!("the rate of {name}"), *rate)?
            }
            Arrivals::Mmpp { rates, dwell } => {
                positive(&format!("the rates of {name}"), rates[0].max(rates[1]))?;
                not_negative(&format!("the lower rate of {name}"), rates[0].min(rates[1]))?;
                positive(
                    &format!("the dwell times of {name}"),
                    nanos(dwell[0].min(dwell[1])) as f64,
                )?;
            }
            Arrivals::Trace(times) => {
                if times.is_empty() || times.windows(2).any(|pair| pair[1] < pair[0]) {
                    return Err(Refused::Fault(format!(
                        "the trace of {name} is empty or goes back in time"
                    )));
                }
            }
            Arrivals::Closed { users, think } => {
                positive(&format!("the users of {name}"), f64::from(*users))?;
                think.validate().map_err(|why| Refused::Distribution {
                    what: format!("think time of {name}"),
                    why,
                })?;
                positive(&format!("the mean think time of {name}"), think.mean())?;
            }
        }
        if let Some((limit, keys)) = &client.limit {
            positive(&format!("the keys of {name}"), f64::from(*keys))?;
            let limits = f64::from(*keys) * f64::from(self.gateways);
            if limits > LIMITS_MAX {
                return Err(Refused::Range {
                    what: format!("the keys of {name} on all gateways"),
                    value: limits,
                    must: "at most 1000000",
                });
            }
            if let Err(error) = limit.validate() {
                let (key, problem) = (format!("limit.{}", error.key), error.to_string());
                return Err(Refused::Policy { service: name.clone(), key, problem });
            }
        }
        positive(&format!("the pages of {name}"), f64::from(client.pages))?;
        let Some(retry) = &client.user_retry else { return Ok(()) };
        share(&format!("the user retry probability of {name}"), retry.probability)?;
        retry
            .after
            .validate()
            .map_err(|why| Refused::Distribution { what: format!("user retry of {name}"), why })?;
        if retry.attempts > 1000 && retry.after.mean() <= 0.0 {
            return Err(Refused::Cycle(format!(
                "client {name}, whose users retry at once for ever,"
            )));
        }
        Ok(())
    }

    fn validate_service(&self, service: &Service) -> Result<(), Refused> {
        let name = &service.name;
        positive(&format!("the replicas of {name}"), f64::from(service.replicas))?;
        if service.calls.len() > EDGES_MAX {
            return Err(Refused::Range {
                what: format!("the calls of {name}"),
                value: service.calls.len() as f64,
                must: "at most 255",
            });
        }
        positive(&format!("the slots of {name}"), f64::from(service.slots))?;
        service.time.validate().map_err(|why| Refused::Distribution {
            what: format!("service time of {name}"),
            why,
        })?;
        share(&format!("the fast errors of {name}"), service.errors.fast)?;
        share(&format!("the slow errors of {name}"), service.errors.slow)?;
        share(&format!("all errors of {name}"), service.errors.fast + service.errors.slow)?;
        match service.slowdown {
            Slowdown::None => {}
            Slowdown::Linear { per_request } => {
                not_negative(&format!("the slowdown of {name}"), per_request)?
            }
            Slowdown::Usl { sigma, kappa } => {
                share(&format!("the contention of {name}"), sigma)?;
                share(&format!("the coherence of {name}"), kappa)?;
            }
        }
        if let Some(cache) = service.cache {
            share(&format!("the hit ratio of {name}"), cache.hit)?;
            positive(&format!("the cache keys of {name}"), cache.keys)?;
        }
        if let Some(cold) = service.cold_start
            && (cold.factor < 1.0 || !cold.factor.is_finite())
        {
            return Err(Refused::Range {
                what: format!("the cold start of {name}"),
                value: cold.factor,
                must: "at least 1",
            });
        }
        if let Some(policy) = &service.policy {
            validate_policy(name, policy)?;
        }
        for edge in &service.calls {
            share(&format!("the probability of a call from {name}"), edge.probability)?;
            if edge.service >= self.services.len() {
                return Err(Refused::Dangling(format!("a call from {name}")));
            }
        }
        Ok(())
    }

    fn validate_graph(&self) -> Result<(), Refused> {
        // Depth-first: a service on the path may not be reached again.
        fn visit(services: &[Service], at: usize, state: &mut [u8]) -> Result<(), Refused> {
            state[at] = 1;
            for edge in &services[at].calls {
                match state[edge.service] {
                    1 => return Err(Refused::Cycle(services[edge.service].name.clone())),
                    0 => visit(services, edge.service, state)?,
                    _ => {}
                }
            }
            state[at] = 2;
            Ok(())
        }
        let mut state = vec![0; self.services.len()];
        (0..self.services.len()).try_for_each(|at| {
            if state[at] == 0 { visit(&self.services, at, &mut state) } else { Ok(()) }
        })?;
        // Calls below one request multiply along every path.
        let mut below = vec![0.0; self.services.len()];
        for service in self.callees_first() {
            let model = &self.services[service];
            let made =
                model.calls.iter().map(|edge| edge.probability * (1.0 + below[edge.service]));
            below[service] = made.sum();
            if below[service] > CALLS_PER_REQUEST_MAX {
                return Err(Refused::Range {
                    what: format!("the calls below one request of {}", model.name),
                    value: below[service],
                    must: "at most 100000: nobody would wait for it",
                });
            }
        }
        Ok(())
    }

    /// The services, each after all that it calls. The graph has no circle.
    fn callees_first(&self) -> Vec<usize> {
        fn visit(services: &[Service], at: usize, seen: &mut [bool], order: &mut Vec<usize>) {
            if std::mem::replace(&mut seen[at], true) {
                return;
            }
            for edge in &services[at].calls {
                visit(services, edge.service, seen, order);
            }
            order.push(at);
        }
        let mut order = Vec::with_capacity(self.services.len());
        let mut seen = vec![false; self.services.len()];
        for at in 0..self.services.len() {
            visit(&self.services, at, &mut seen, &mut order);
        }
        order
    }

    fn validate_fault(&self, fault: &Fault) -> Result<(), Refused> {
        if fault.at >= self.run.duration {
            return Err(Refused::Fault(format!(
                "a fault at {:?} begins after the run of {:?}",
                fault.at, self.run.duration
            )));
        }
        if fault.lasts.is_zero() && !matches!(fault.kind, FaultKind::CacheFlush { .. }) {
            return Err(Refused::Fault(format!("a fault at {:?} lasts for no time", fault.at)));
        }
        if fault.ramp > fault.lasts {
            return Err(Refused::Fault(format!(
                "a fault of {:?} cannot ramp for {:?}",
                fault.lasts, fault.ramp
            )));
        }
        if fault.kind.service().is_some_and(|service| service >= self.services.len()) {
            return Err(Refused::Dangling("a fault".into()));
        }
        match fault.kind {
            FaultKind::Latency { factor, .. } => positive("the factor of a latency fault", factor),
            FaultKind::Errors { probability, .. } => {
                share("the probability of an error fault", probability)
            }
            FaultKind::Capacity { left, .. } => share("the capacity left by a fault", left),
            FaultKind::Load { client, factor } => {
                positive("the factor of a load fault", factor)?;
                match self.clients.get(client).map(|c| &c.arrivals) {
                    None => Err(Refused::Dangling("a load fault".into())),
                    Some(Arrivals::Poisson { .. } | Arrivals::Mmpp { .. }) => Ok(()),
                    Some(_) => {
                        Err(Refused::Fault("a load fault needs poisson or mmpp arrivals".into()))
                    }
                }
            }
            FaultKind::CacheFlush { service } if self.services[service].cache.is_none() => Err(
                Refused::Fault(format!("{} has no cache to flush", self.services[service].name)),
            ),
            FaultKind::Deploy { batch: 0, .. } => {
                Err(Refused::Fault("a deploy replaces at least one at a time".into()))
            }
            FaultKind::Crash { .. }
            | FaultKind::Partition { .. }
            | FaultKind::CacheFlush { .. }
            | FaultKind::Deploy { .. } => Ok(()),
        }
    }

    /// Requests per second that reach each service when nothing fails, where clients are open-loop.
    #[must_use]
    pub fn visit_rates(&self) -> Vec<f64> {
        let mut rates = vec![0.0; self.services.len()];
        for client in &self.clients {
            rates[client.target] += client.arrivals.rate().unwrap_or(0.0);
        }
        for caller in self.callees_first().into_iter().rev() {
            let model = &self.services[caller];
            let miss = 1.0 - model.cache.map_or(0.0, |cache| cache.hit);
            for edge in &model.calls {
                rates[edge.service] += rates[caller] * miss * edge.probability;
            }
        }
        rates
    }

    /// When the first fault begins and the last one ends, in nanoseconds.
    #[must_use]
    pub fn trigger(&self) -> Option<(u64, u64)> {
        let from = self.faults.iter().map(|fault| nanos(fault.at)).min()?;
        let until = self.faults.iter().map(Fault::ends).max()?;
        Some((from, until))
    }
}

impl Service {
    /// A service that does one thing at a time, first come first served, without any policy.
    #[must_use]
    pub fn new(name: &str, time: Distribution) -> Self {
        Self {
            name: name.to_owned(),
            replicas: 1,
            slots: 1,
            time,
            queue: Queue {
                discipline: Discipline::Fifo,
                cap: None,
                patience: None,
                drop_expired: false,
            },
            slowdown: Slowdown::None,
            on_disconnect: OnDisconnect::Keep,
            calls: Vec::new(),
            holds_slot: true,
            errors: Errors::default(),
            cache: None,
            cold_start: None,
            network: Duration::ZERO,
            policy: None,
            forwards: false,
        }
    }

    /// Attempts per call that its policy makes at most.
    #[must_use]
    pub fn attempts_most(&self) -> f64 {
        let retry = self.policy.as_ref().and_then(|policy| policy.retry.as_ref());
        retry.map_or(1.0, |retry| f64::from(retry.attempts))
    }

    /// Requests per second that it can work off at most.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        let per_instance = (1..=self.slots.min(4096))
            .map(|n| f64::from(n) / (self.time.mean() / 1e9 * self.slowdown.factor(n)))
            .fold(0.0, f64::max);
        per_instance * f64::from(self.replicas)
    }
}

fn validate_policy(service: &str, policy: &Policy) -> Result<(), Refused> {
    let refuse = |key: &str, problem: String| {
        Err(Refused::Policy { service: service.to_owned(), key: key.to_owned(), problem })
    };
    if let Err(error) = policy.validate() {
        return refuse(error.part, error.to_string());
    }
    Ok(())
}

fn positive(what: &str, value: f64) -> Result<(), Refused> {
    if value > 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(Refused::Range { what: what.into(), value, must: "positive" })
    }
}

fn not_negative(what: &str, value: f64) -> Result<(), Refused> {
    if value >= 0.0 && value.is_finite() {
        Ok(())
    } else {
        Err(Refused::Range { what: what.into(), value, must: "zero or more" })
    }
}

fn share(what: &str, value: f64) -> Result<(), Refused> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(Refused::Range { what: what.into(), value, must: "between 0 and 1" })
    }
}
