//! Stops calling a dependency that keeps failing, and probes it until it recovers.
//!
//! *Closed* admits and watches a window of calls; *open* rejects; *half-open*
//! admits a few probes and judges by them alone. Besides what has ended, it
//! counts calls still in flight that have already taken too long: a dependency
//! that hangs is noticed before its first timeout.
//!
//! The one invariant: a permit belongs to the generation that gave it, and an
//! outcome from an earlier generation changes nothing. Deliberately absent: any
//! wait; whoever is rejected learns when to come again.
//!
//! Sources: Nygard, *Release It!*, 2nd edition, "Circuit Breaker";
//! Resilience4j's windows and half-open rule.

use std::collections::VecDeque;

use crate::config::ConfigError;
use crate::outcome::Outcome;
use crate::random::{Keyed, Rng};
use crate::time::{Duration, Instant};
use crate::window::{Counts, Mark};

mod in_flight;
mod shared;
#[cfg(test)]
mod tests;

use in_flight::InFlight;
pub use shared::Shared;

/// Most calls that a count window may hold.
pub const WINDOW_CALLS_MAX: u32 = 100_000;
/// Most probes that half-open may admit at once.
pub const PROBES_MAX: u32 = 64;
/// Transitions that are remembered.
pub const HISTORY: usize = 32;

/// When a breaker opens and how it closes again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// The calls that are judged. Default: those of the last 10 s.
    pub window: Window,
    /// Share of failed calls at which it opens, in `0.0..=1.0`, above 0. Default 0.5.
    pub failure_rate: Option<f64>,
    /// Calls that the window must hold before rates are judged. Default 20.
    pub min_calls: u32,
    /// Opens after so many failures in a row, whatever the rate. Default: off.
    pub consecutive: Option<u32>,
    /// Opens when too many calls are slow. Default: off.
    pub slow: Option<Slow>,
    /// How long it rejects before it probes. Default 5 s.
    pub open_for: Duration,
    /// What `open_for` is multiplied by each time a probe fails, at least 1. Default 2.
    pub open_growth: f64,
    /// The longest it rejects, before jitter. Default 60 s.
    pub open_max: Duration,
    /// Share by which each such time is shortened or lengthened at random, in
    /// `0.0..=1.0`. Default 0.2.
    pub jitter: f64,
    /// Calls that half-open admits and judges by; at most [`PROBES_MAX`]. Default 3.
    pub probes: u32,
    /// A probe that has not ended by then has failed. Default 30 s.
    pub probe_timeout: Duration,
    /// Counts and never opens: to find out what it would see. Default false.
    pub metrics_only: bool,
}

/// The calls that are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last so many; at most [`WINDOW_CALLS_MAX`].
    Calls(u32),
    /// Those of the last so long, dropped a tenth at a time.
    Time(Duration),
}

/// When slowness opens a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow {
    /// A call that takes so long or longer is slow, ended or not.
    pub over: Duration,
    /// Share of slow calls at which it opens, in `0.0..=1.0`, above 0. Default 0.5.
    pub rate: f64,
}

impl Slow {
    /// Opens when half of the calls take `over` or longer.
    #[must_use]
    pub const fn over(over: Duration) -> Self {
        Self { over, rate: 0.5 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: Window::Time(Duration::from_secs(10)),
            failure_rate: Some(0.5),
            min_calls: 20,
            consecutive: None,
            slow: None,
            open_for: Duration::from_secs(5),
            open_growth: 2.0,
            open_max: Duration::from_secs(60),
            jitter: 0.2,
            probes: 3,
            probe_timeout: Duration::from_secs(30),
            metrics_only: false,
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
        let rate = |value: Option<f64>, key| {
            ConfigError::require(
                value.is_none_or(|rate| rate > 0.0 && rate <= 1.0),
                key,
                "must be above 0% and at most 100%",
            )
        };
        match self.window {
            Window::Calls(calls) => {
                ConfigError::require(
                    (1..=WINDOW_CALLS_MAX).contains(&calls),
                    "window",
                    "must be between 1 and 100000 calls",
                )?;
                ConfigError::require(
                    self.min_calls <= calls,
                    "min_calls",
                    "must not be above the calls that `window` holds: it would never be reached",
                )?;
            }
            Window::Time(length) => ConfigError::require(
                (Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(&length),
                "window",
                "must be between 10ms and 24h",
            )?,
        }
        rate(self.failure_rate, "failure_rate")?;
        ConfigError::require(self.min_calls >= 1, "min_calls", "must be at least 1")?;
        ConfigError::require(self.consecutive != Some(0), "consecutive", "must be at least 1")?;
        if let Some(slow) = self.slow {
            ConfigError::require(!slow.over.is_zero(), "slow.over", "must be longer than zero")?;
            rate(Some(slow.rate), "slow.rate")?;
        }
        ConfigError::require(
            self.failure_rate.is_some() || self.consecutive.is_some() || self.slow.is_some(),
            "failure_rate",
            "must be set, or `consecutive` or `slow`: it would never open",
        )?;
        ConfigError::require(!self.open_for.is_zero(), "open_for", "must be longer than zero")?;
        ConfigError::require(
            (1.0..=100.0).contains(&self.open_growth),
            "open_growth",
            "must be between 1 and 100",
        )?;
        ConfigError::require(
            self.open_max >= self.open_for,
            "open_max",
            "must not be shorter than `open_for`",
        )?;
        ConfigError::require(
            (0.0..=1.0).contains(&self.jitter),
            "jitter",
            "must be between 0% and 100%",
        )?;
        ConfigError::require(
            (1..=PROBES_MAX).contains(&self.probes),
            "probes",
            "must be between 1 and 64",
        )?;
        ConfigError::require(
            !self.probe_timeout.is_zero(),
            "probe_timeout",
            "must be longer than zero",
        )
    }

    /// Failed probes after which the rest cannot save it.
    fn failed_probes_max(&self) -> u32 {
        share_of(self.failure_rate, self.probes)
    }

    fn slow_probes_max(&self) -> u32 {
        share_of(self.slow.map(|slow| slow.rate), self.probes)
    }

    fn empty_window(&self) -> crate::window::Window {
        match self.window {
            Window::Calls(size) => crate::window::Window::last_calls(size),
            Window::Time(length) => crate::window::Window::last_time(length),
        }
    }
}

/// The least count that is at least `rate` of `total`; 1 where only a row of
/// failures counts.
fn share_of(rate: Option<f64>, total: u32) -> u32 {
    rate.map_or(1, |rate| ((f64::from(total) * rate - 1e-9).ceil() as u32).max(1))
}

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Admits and watches.
    Closed,
    /// Rejects until its time is over.
    Open,
    /// Admits probes and judges by them.
    HalfOpen,
    /// Rejects until the operator says otherwise.
    ForcedOpen,
    /// Admits everything and watches nothing.
    Disabled,
}

impl State {
    /// A stable word for logs, metrics and the operator API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
        }
    }
}

/// What an operator wants of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// That it decides by itself, beginning closed.
    Automatic,
    /// That it rejects everything.
    ForceOpen,
    /// That it admits everything.
    Disable,
}

/// Leave to make one call.
///
/// Give it back with the outcome (`settle`), or without one (`abandon`).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is never given back counts as a call in flight"]
pub struct Permit {
    generation: u32,
    probe: u32,
    started: Instant,
}

impl Permit {
    /// Whether the breaker will judge by this call alone, or by few like it.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.probe != 0
    }
}

/// Why a call may not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Open, half-open with all probes out, or forced open.
    pub state: State,
    /// When it is worth asking again, if that is known.
    pub retry_after: Option<Duration>,
    /// What the window held when it opened.
    pub counts: Counts,
}

impl Rejected {
    /// A stable word for logs, metrics and problem documents.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self.state {
            State::ForcedOpen => "circuit_forced_open",
            State::HalfOpen => "circuit_probing",
            State::Closed | State::Open | State::Disabled => "circuit_open",
        }
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Instant,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Why.
    pub reason: Reason,
    /// The numbers it was decided on: the window's, or the probes'.
    pub counts: Counts,
    /// When it will probe, if it opened.
    pub until: Option<Instant>,
}

/// Why a state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too large a share of calls failed.
    FailureRate,
    /// Too large a share of calls was slow, those in flight included.
    SlowRate,
    /// Too many failures in a row.
    Consecutive,
    /// The time of rejecting is over.
    Waited,
    /// Too many probes failed, or did not come back in time.
    ProbesFailed,
    /// Too many probes were slow.
    ProbesSlow,
    /// Enough probes succeeded.
    ProbesPassed,
    /// An operator wanted it.
    Operator,
}

impl Reason {
    /// A stable word for logs, metrics and the operator API.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::Consecutive => "consecutive_failures",
            Self::Waited => "open_time_over",
            Self::ProbesFailed => "probes_failed",
            Self::ProbesSlow => "probes_slow",
            Self::ProbesPassed => "probes_passed",
            Self::Operator => "operator",
        }
    }
}

/// What is known of a breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// What it does with calls.
    pub state: State,
    /// What the window holds; the probes, while half-open.
    pub counts: Counts,
    /// Calls in flight that are slow already.
    pub overdue: u32,
    /// Share of failed calls in `0.0..=1.0`; `None` while too few are known.
    pub failure_rate: Option<f64>,
    /// Share of slow calls, those in flight included; `None` while too few are known.
    pub slow_rate: Option<f64>,
    /// When it will probe, while open.
    pub open_until: Option<Instant>,
    /// Times that it opened in a row without a healthy window in between.
    pub reopened: u32,
    /// Calls rejected since it was made.
    pub rejected: u64,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    id: u32,
    started: Instant,
}

/// A breaker.
#[derive(Debug)]
pub struct Breaker {
    config: Config,
    seed: u64,
    state: State,
    generation: u32,
    window: crate::window::Window,
    consecutive: u32,
    in_flight: InFlight,
    closed_since: Instant,
    closed_calls: u64,
    open_until: Instant,
    reopened: u32,
    probes: Vec<Probe>,
    probe_last: u32,
    probed: Counts,
    tripped: Counts,
    rejected: u64,
    history: VecDeque<Transition>,
}

impl Breaker {
    /// A closed breaker. `seed` decides the jitter of its open times.
    #[must_use]
    pub fn new(now: Instant, config: Config, seed: u64) -> Self {
        Self {
            config,
            seed,
            state: State::Closed,
            generation: 0,
            window: config.empty_window(),
            consecutive: 0,
            in_flight: InFlight::new(config.slow.map(|slow| slow.over)),
            closed_since: now,
            closed_calls: 0,
            open_until: Instant::ZERO,
            reopened: 0,
            probes: Vec::with_capacity(config.probes as usize),
            probe_last: 0,
            probed: Counts::default(),
            tripped: Counts::default(),
            rejected: 0,
            history: VecDeque::with_capacity(HISTORY),
        }
    }

    /// What it was built with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What it does with calls.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Asks to make one call. The change of state that asking may bring about
    /// (an open time that is over, calls in flight that are too slow) is told
    /// whatever the answer.
    pub fn admit(&mut self, now: Instant) -> (Result<Permit, Rejected>, Option<Transition>) {
        let transition = self.wake(now);
        let answer = match self.state {
            State::Closed => {
                self.in_flight.start(now);
                Ok(Permit { generation: self.generation, probe: 0, started: now })
            }
            State::Disabled => Ok(Permit { generation: self.generation, probe: 0, started: now }),
            State::HalfOpen if self.probes_left() > 0 => Ok(self.probe(now)),
            State::HalfOpen | State::Open | State::ForcedOpen => Err(self.rejection(now)),
        };
        (answer, transition)
    }

    /// An admitted call ended with `outcome`.
    pub fn settle(&mut self, now: Instant, permit: Permit, outcome: Outcome) -> Option<Transition> {
        let Some(verdict) = Verdict::of(outcome) else {
            self.abandon(now, permit);
            return None;
        };
        if permit.generation != self.generation {
            return None;
        }
        let started = permit.started;
        let slow = self.config.slow.is_some_and(|slow| now.since(started) >= slow.over);
        let mark = Mark { failed: verdict != Verdict::Good, slow };
        match self.state {
            State::Closed => {
                self.in_flight.end(permit.started);
                let counts = self.window.record(now, mark);
                self.closed_calls += 1;
                match verdict {
                    Verdict::Good => self.consecutive = 0,
                    Verdict::Bad => self.consecutive = self.consecutive.saturating_add(1),
                    Verdict::Overloaded => {}
                }
                self.judge(now, counts)
            }
            State::HalfOpen => {
                let place = self.probes.iter().position(|probe| probe.id == permit.probe)?;
                self.probes.swap_remove(place);
                self.probed.add(mark);
                self.judge_probes(now)
            }
            State::Open | State::ForcedOpen | State::Disabled => None,
        }
    }

    /// An admitted call was not made, or nobody waited for its end: it counts
    /// for nothing, and a probe may be made in its place.
    pub fn abandon(&mut self, _now: Instant, permit: Permit) {
        if permit.generation != self.generation {
            return;
        }
        if permit.is_probe() {
            self.probes.retain(|probe| probe.id != permit.probe);
        } else if self.state == State::Closed {
            self.in_flight.end(permit.started);
        }
    }

    /// The next time at which [`Breaker::wake`] may change the state with no
    /// further input.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        match self.state {
            State::Open => Some(self.open_until),
            State::HalfOpen => {
                let oldest = self.probes.iter().map(|probe| probe.started).min()?;
                Some(oldest + self.config.probe_timeout)
            }
            State::Closed => self.in_flight.next_overdue(),
            State::ForcedOpen | State::Disabled => None,
        }
    }

    /// Lets time do what it does: end an open time, fail a lost probe, notice
    /// calls in flight that are too slow. [`Breaker::admit`] does it too.
    pub fn wake(&mut self, now: Instant) -> Option<Transition> {
        match self.state {
            State::Open if now >= self.open_until => {
                Some(self.change(now, State::HalfOpen, Reason::Waited, self.tripped, None))
            }
            State::HalfOpen => {
                let before = self.probes.len();
                let timeout = self.config.probe_timeout;
                self.probes.retain(|probe| now < probe.started + timeout);
                let lost = before - self.probes.len();
                for _ in 0..lost {
                    self.probed.add(Mark { failed: true, slow: false });
                }
                if lost > 0 { self.judge_probes(now) } else { None }
            }
            State::Closed if self.in_flight.overdue(now) > 0 => {
                let counts = self.window.counts(now);
                self.judge(now, counts)
            }
            State::Closed | State::Open | State::ForcedOpen | State::Disabled => None,
        }
    }

    /// When [`Breaker::admit`] would say yes, nothing else happening:
    /// [`Instant::ZERO`] if at once, [`Instant::MAX`] if that is not known.
    #[must_use]
    pub fn ready_at(&self) -> Instant {
        match self.state {
            State::Closed | State::Disabled => Instant::ZERO,
            State::HalfOpen if self.probes_left() > 0 => Instant::ZERO,
            State::Open | State::HalfOpen => self.next_wakeup().unwrap_or(Instant::MAX),
            State::ForcedOpen => Instant::MAX,
        }
    }

    /// Does what an operator wants.
    pub fn control(&mut self, now: Instant, control: Control) -> Option<Transition> {
        let to = match control {
            Control::Automatic => State::Closed,
            Control::ForceOpen => State::ForcedOpen,
            Control::Disable => State::Disabled,
        };
        let automatic = matches!(self.state, State::Closed | State::Open | State::HalfOpen);
        if self.state == to || (control == Control::Automatic && automatic) {
            return None;
        }
        self.reopened = 0;
        Some(self.change(now, to, Reason::Operator, Counts::default(), None))
    }

    /// Goes on under a changed `config`. State, open time and operator's wish
    /// stay; the window is kept if its length is the same.
    pub fn reconfigure(&mut self, config: Config) {
        if config.window != self.config.window {
            self.window = config.empty_window();
        }
        if config.slow.map(|slow| slow.over) != self.config.slow.map(|slow| slow.over) {
            // Calls that are out were never registered, or in other slices.
            self.generation = self.generation.wrapping_add(1);
            self.in_flight = InFlight::new(config.slow.map(|slow| slow.over));
            self.probes.clear();
        }
        self.probes.reserve((config.probes as usize).saturating_sub(self.probes.len()));
        self.config = config;
    }

    /// What is known of it at `now`.
    pub fn view(&mut self, now: Instant) -> View {
        let (counts, overdue) = match self.state {
            State::HalfOpen => (self.probed, 0),
            State::Closed => (self.window.counts(now), self.in_flight.overdue(now)),
            State::Open | State::ForcedOpen | State::Disabled => (self.tripped, 0),
        };
        let known = counts.calls + overdue >= self.config.min_calls;
        let share = |count: u32, calls: u32| f64::from(count) / f64::from(calls.max(1));
        View {
            state: self.state,
            counts,
            overdue,
            failure_rate: known.then(|| share(counts.failed, counts.calls)),
            slow_rate: (known && self.config.slow.is_some())
                .then(|| share(counts.slow + overdue, counts.calls + overdue)),
            open_until: (self.state == State::Open).then_some(self.open_until),
            reopened: self.reopened,
            rejected: self.rejected,
        }
    }

    /// Its last changes of state, the oldest first; at most [`HISTORY`].
    pub fn history(&self) -> impl ExactSizeIterator<Item = &Transition> {
        self.history.iter()
    }

    fn probes_left(&self) -> u32 {
        self.config.probes.saturating_sub(self.probes.len() as u32 + self.probed.calls)
    }

    fn probe(&mut self, now: Instant) -> Permit {
        self.probe_last = self.probe_last.wrapping_add(1).max(1);
        self.probes.push(Probe { id: self.probe_last, started: now });
        Permit { generation: self.generation, probe: self.probe_last, started: now }
    }

    fn rejection(&mut self, now: Instant) -> Rejected {
        self.rejected += 1;
        Rejected {
            state: self.state,
            retry_after: (self.state == State::Open).then(|| self.open_until.since(now)),
            counts: self.tripped,
        }
    }

    /// Whether the window speaks for opening.
    fn judge(&mut self, now: Instant, counts: Counts) -> Option<Transition> {
        let overdue = self.in_flight.overdue(now);
        if counts.failed + counts.slow + overdue == 0 {
            return None;
        }
        let calls = counts.calls + overdue;
        let reason = if self.config.consecutive.is_some_and(|limit| self.consecutive >= limit) {
            Reason::Consecutive
        } else if counts.calls >= self.config.min_calls
            && self
                .config
                .failure_rate
                .is_some_and(|rate| reaches(counts.failed, counts.calls, rate))
        {
            Reason::FailureRate
        } else if calls >= self.config.min_calls
            && self.config.slow.is_some_and(|slow| reaches(counts.slow + overdue, calls, slow.rate))
        {
            Reason::SlowRate
        } else {
            return None;
        };
        let counts = Counts { calls, slow: counts.slow + overdue, ..counts };
        let was_healthy = match self.config.window {
            Window::Calls(size) => self.closed_calls > u64::from(size),
            Window::Time(length) => now.since(self.closed_since) >= length,
        };
        self.reopened = if was_healthy { 0 } else { self.reopened };
        self.open(now, reason, counts)
    }

    fn judge_probes(&mut self, now: Instant) -> Option<Transition> {
        let probed = self.probed;
        if probed.failed >= self.config.failed_probes_max() {
            self.open(now, Reason::ProbesFailed, probed)
        } else if self.config.slow.is_some() && probed.slow >= self.config.slow_probes_max() {
            self.open(now, Reason::ProbesSlow, probed)
        } else if probed.calls >= self.config.probes {
            let transition = self.change(now, State::Closed, Reason::ProbesPassed, probed, None);
            Some(transition)
        } else {
            None
        }
    }

    fn open(&mut self, now: Instant, reason: Reason, counts: Counts) -> Option<Transition> {
        if self.config.metrics_only {
            return None;
        }
        let until = now + self.open_time();
        self.reopened = self.reopened.saturating_add(1);
        self.open_until = until;
        Some(self.change(now, State::Open, reason, counts, Some(until)))
    }

    fn open_time(&self) -> Duration {
        let (mut seconds, cap) =
            (self.config.open_for.as_secs_f64(), self.config.open_max.as_secs_f64());
        for _ in 0..self.reopened {
            if seconds >= cap || self.config.open_growth == 1.0 {
                break;
            }
            seconds *= self.config.open_growth;
        }
        let mut luck = Keyed::new(&[self.seed, u64::from(self.generation)]);
        let spread = 1.0 + self.config.jitter * (2.0 * luck.unit() - 1.0);
        Duration::from_secs_f64(seconds.min(cap) * spread)
    }

    fn change(
        &mut self,
        now: Instant,
        to: State,
        reason: Reason,
        counts: Counts,
        until: Option<Instant>,
    ) -> Transition {
        let transition = Transition { at: now, from: self.state, to, reason, counts, until };
        self.state = to;
        self.generation = self.generation.wrapping_add(1);
        self.consecutive = 0;
        self.window.clear();
        self.in_flight.clear();
        self.probes.clear();
        self.probed = Counts::default();
        self.tripped = counts;
        if to == State::Closed {
            (self.closed_since, self.closed_calls) = (now, 0);
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(transition);
        transition
    }
}

/// Whether `part` is at least `rate` of `whole`.
fn reaches(part: u32, whole: u32, rate: f64) -> bool {
    // The slack absorbs that, say, 0.07 × 100 is a little above 7 in binary.
    f64::from(part) + 1e-9 >= f64::from(whole) * rate
}

/// What an outcome says about the dependency.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
    /// Counts for the rate and not for a row of failures: it is alive.
    Overloaded,
}

impl Verdict {
    const fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Success => Some(Self::Good),
            Outcome::Failure(_) => Some(Self::Bad),
            Outcome::Overload { .. } => Some(Self::Overloaded),
            Outcome::ClientFault | Outcome::Cancelled | Outcome::Local => None,
        }
    }
}
