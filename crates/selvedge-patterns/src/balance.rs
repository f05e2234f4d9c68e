//! Chooses the endpoint that an attempt goes to.
//!
//! One picker for every reason an endpoint may be avoided: the caller says for
//! each candidate whether it is [`Standing::Usable`], [`Standing::Unhealthy`]
//! (failed its checks, ejected) or [`Standing::Excluded`] (draining, breaker
//! open, tried already). When too few are usable, health is ignored rather
//! than the whole load thrown at the few that are left (panic).
//!
//! Everything works through `&self`: what several workers share is a few
//! atomics per endpoint, and a short mutex where a sample is folded in.
//!
//! Sources: Mitzenmacher, "The power of two choices in randomized load
//! balancing", 2001; the smooth weighted round robin of nginx; the peak EWMA
//! of Finagle.

use crate::config::ConfigError;
use crate::outcome::Outcome;
use crate::random::Rng;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, lock};
use crate::time::{Duration, Instant, nanos};

#[cfg(test)]
mod tests;

/// How attempts spread over the endpoints of one service.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How to choose. Default: [`Algorithm::PeakEwma`].
    pub algorithm: Algorithm,
    /// Time in which a latency sample loses all but 1/e of its weight (peak EWMA). Default 10 s.
    pub decay: Duration,
    /// What an endpoint counts as after a failed attempt, and for how long
    /// (peak EWMA): one that fails fast must not look fast. Default 5 s.
    pub penalty: Duration,
    /// Most that an endpoint's own `Retry-After` counts for. Default 300 s.
    pub retry_after_max: Duration,
    /// Share of endpoints that must be usable for health to be heeded, in
    /// `0.0..=1.0`; 0 never panics. Default 0.5.
    pub panic_below: f64,
}

/// How to choose among usable endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Each in turn, weights ignored.
    RoundRobin,
    /// Each as often as its weight says, spread as evenly as can be.
    WeightedRoundRobin,
    /// The better of two random ones by pending attempts over weight.
    LeastRequest,
    /// The better of two random ones by recent worst latency times pending attempts.
    #[default]
    PeakEwma,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            decay: Duration::from_secs(10),
            penalty: Duration::from_secs(5),
            retry_after_max: Duration::from_secs(300),
            panic_below: 0.5,
        }
    }
}

impl Config {
    /// Checks what the type cannot say.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::require(!self.decay.is_zero(), "decay", "must be longer than zero")?;
        ConfigError::require(
            (0.0..=1.0).contains(&self.panic_below),
            "panic_below",
            "must be between 0% and 100%",
        )
    }
}

/// Whether an endpoint may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Usable,
    /// It failed its checks or is ejected: chosen only in panic.
    Unhealthy,
    /// It may not, whatever happens: draining, breaker open, weight 0, tried already.
    Excluded,
}

/// The endpoints to choose from, in an order that does not change between calls.
pub trait Candidates {
    /// How many there are.
    fn count(&self) -> usize;
    /// What is known of how busy the endpoint at `index` is.
    fn load(&self, index: usize) -> &Load;
    /// Whether the endpoint at `index` may be chosen now.
    fn standing(&self, index: usize) -> Standing;
    /// Share of traffic relative to the others. Default 1.
    fn weight(&self, _index: usize) -> u32 {
        1
    }
}

/// The endpoint chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Its place among the candidates.
    pub index: usize,
    /// Too few were usable, so health was ignored.
    pub panic: bool,
}

/// Chooses endpoints for one service.
#[derive(Debug)]
pub struct Balancer {
    config: Config,
    turn: AtomicUsize,
    smooth: Mutex<Vec<i64>>,
}

impl Balancer {
    /// A balancer that has chosen nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, turn: AtomicUsize::new(0), smooth: Mutex::new(Vec::new()) }
    }

    /// What it was built with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Chooses one endpoint, or none if none may be chosen.
    ///
    /// Reads only: the caller calls [`Load::start`] on the one it uses.
    pub fn pick(
        &self,
        now: Instant,
        candidates: &impl Candidates,
        rng: &mut impl Rng,
    ) -> Option<Pick> {
        match self.config.algorithm {
            Algorithm::RoundRobin => self.in_turn(candidates),
            Algorithm::WeightedRoundRobin => self.smoothly(candidates),
            Algorithm::LeastRequest => {
                self.of_two(candidates, rng, |a, b| busier(candidates, a, b))
            }
            Algorithm::PeakEwma => {
                self.of_two(candidates, rng, |a, b| self.slower(now, candidates, a, b))
            }
        }
    }

    fn in_turn(&self, candidates: &impl Candidates) -> Option<Pick> {
        let field = Field::survey(candidates, self.config.panic_below)?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % field.size;
        Some(field.pick(field.nth(candidates, turn)?))
    }

    fn smoothly(&self, candidates: &impl Candidates) -> Option<Pick> {
        let field = Field::survey(candidates, self.config.panic_below)?;
        let mut current = lock(&self.smooth);
        current.resize(candidates.count(), 0);
        let mut total = 0;
        let mut best: Option<usize> = None;
        for index in (0..candidates.count()).filter(|&index| field.holds(candidates, index)) {
            let weight = i64::from(candidates.weight(index));
            total += weight;
            current[index] += weight;
            if best.is_none_or(|best| current[index] > current[best]) {
                best = Some(index);
            }
        }
        let best = best?;
        current[best] -= total;
        Some(field.pick(best))
    }

    /// Draws two and keeps the one that `worse(a, b)` does not condemn.
    ///
    /// Two usable draws need no look at the rest: outside panic they are a fair
    /// pair of the usable, and in panic a fair pair of all.
    fn of_two<C: Candidates>(
        &self,
        candidates: &C,
        rng: &mut impl Rng,
        worse: impl Fn(usize, usize) -> bool,
    ) -> Option<Pick> {
        let better = |(a, b)| if a != b && worse(a, b) { b } else { a };
        let pair = two_of(candidates.count(), rng)?;
        let standings = (standing(candidates, pair.0), standing(candidates, pair.1));
        if standings == (Standing::Usable, Standing::Usable) {
            return Some(Pick { index: better(pair), panic: false });
        }
        let field = Field::survey(candidates, self.config.panic_below)?;
        if field.admits(standings.0) && field.admits(standings.1) {
            return Some(field.pick(better(pair)));
        }
        let (a, b) = two_of(field.size, rng)?;
        Some(field.pick(better((field.nth(candidates, a)?, field.nth(candidates, b)?))))
    }

    /// Whether `a` costs more than `b`: projected latency times the queue one
    /// more attempt would stand in. An endpoint without a sample is taken to
    /// be as fast as the other, so that it is neither starved nor flooded.
    fn slower(&self, now: Instant, candidates: &impl Candidates, a: usize, b: usize) -> bool {
        let (load_a, load_b) = (candidates.load(a), candidates.load(b));
        let (Some((ns_a, at_a)), Some((ns_b, at_b))) = (load_a.known(now), load_b.known(now))
        else {
            return busier(candidates, a, b);
        };
        // Both fade alike from the newer sample on: only the difference counts.
        let newer = if at_a == at_b { 1.0 } else { growth(at_a, at_b, self.config.decay) };
        ns_a * queue(load_a) * f64::from(candidates.weight(b))
            > ns_b * newer * queue(load_b) * f64::from(candidates.weight(a))
    }
}

fn busier(candidates: &impl Candidates, a: usize, b: usize) -> bool {
    queue(candidates.load(a)) * f64::from(candidates.weight(b))
        > queue(candidates.load(b)) * f64::from(candidates.weight(a))
}

fn queue(load: &Load) -> f64 {
    f64::from(load.pending()) + 1.0
}

/// Two different draws from `0..count` (the same one twice if there is only one).
fn two_of(count: usize, rng: &mut impl Rng) -> Option<(usize, usize)> {
    match count {
        0 => None,
        1 => Some((0, 0)),
        _ => {
            let first = rng.below(count as u64) as usize;
            let second = rng.below(count as u64 - 1) as usize;
            Some((first, if second >= first { second + 1 } else { second }))
        }
    }
}

/// The candidates that one decision is made among.
struct Field {
    size: usize,
    panic: bool,
}

impl Field {
    fn survey(candidates: &impl Candidates, panic_below: f64) -> Option<Self> {
        let (mut usable, mut unhealthy) = (0, 0);
        for index in 0..candidates.count() {
            match standing(candidates, index) {
                Standing::Usable => usable += 1,
                Standing::Unhealthy => unhealthy += 1,
                Standing::Excluded => {}
            }
        }
        let panic = panics(usable, usable + unhealthy, panic_below);
        let size = if panic { usable + unhealthy } else { usable };
        (size > 0).then_some(Self { size, panic })
    }

    const fn admits(&self, standing: Standing) -> bool {
        match standing {
            Standing::Usable => true,
            Standing::Unhealthy => self.panic,
            Standing::Excluded => false,
        }
    }

    fn holds(&self, candidates: &impl Candidates, index: usize) -> bool {
        self.admits(standing(candidates, index))
    }

    /// The `n`th of the field, or its last: another worker may have excluded
    /// one since the survey.
    fn nth(&self, candidates: &impl Candidates, n: usize) -> Option<usize> {
        (0..candidates.count()).filter(|&index| self.holds(candidates, index)).take(n + 1).last()
    }

    const fn pick(&self, index: usize) -> Pick {
        Pick { index, panic: self.panic }
    }
}

/// What the caller says, except that an endpoint without weight gets nothing.
fn standing(candidates: &impl Candidates, index: usize) -> Standing {
    if candidates.weight(index) == 0 { Standing::Excluded } else { candidates.standing(index) }
}

/// Whether so few of `total` endpoints are usable that health is ignored.
#[must_use]
pub fn panics(usable: usize, total: usize, panic_below: f64) -> bool {
    (usable as f64) < panic_below * total as f64
}

/// How busy one endpoint is and how slow it was: kept with the endpoint, so
/// that it outlives a changed set.
#[derive(Debug)]
pub struct Load {
    pending: AtomicU32,
    // Copies of `peak` for readers, who pick without taking the lock. A reader
    // may see one new and one old: a guess slightly off, once.
    estimate_bits: AtomicU64,
    sampled_at: AtomicU64,
    /// Nanoseconds; before then it counts as `penalty_bits`.
    penalised_until: AtomicU64,
    penalty_bits: AtomicU64,
    peak: Mutex<PeakEwma>,
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

impl Load {
    /// An endpoint about which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pending: AtomicU32::new(0),
            estimate_bits: AtomicU64::new(0),
            sampled_at: AtomicU64::new(0),
            penalised_until: AtomicU64::new(0),
            penalty_bits: AtomicU64::new(0),
            peak: Mutex::new(PeakEwma::default()),
        }
    }

    /// An endpoint that is assumed to be as fast as `estimate`: give a new one
    /// the [`median`] of those that are there.
    #[must_use]
    pub fn seeded(now: Instant, estimate: Duration) -> Self {
        let load = Self::new();
        load.sample(now, estimate, Duration::MAX);
        load
    }

    /// An attempt goes out to this endpoint. Follow with exactly one of
    /// [`Load::settle`] and [`Load::abandon`].
    pub fn start(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// An attempt started here ended with `outcome` after `elapsed`.
    pub fn settle(&self, now: Instant, config: &Config, elapsed: Duration, outcome: Outcome) {
        self.abandon();
        self.observe(now, config, elapsed, outcome);
    }

    /// An attempt started here is known to end with `outcome`, after
    /// `elapsed`, while its answer is still being sent: it stays pending until
    /// [`Load::abandon`].
    pub fn observe(&self, now: Instant, config: &Config, elapsed: Duration, outcome: Outcome) {
        match outcome {
            Outcome::Success | Outcome::ClientFault => self.sample(now, elapsed, config.decay),
            Outcome::Failure(_) => self.penalise(now, config.penalty),
            Outcome::Overload { retry_after } => {
                let penalty = retry_after.unwrap_or(config.penalty);
                self.penalise(now, penalty.min(config.retry_after_max));
            }
            // How long it would have taken is not known, only that it was longer.
            Outcome::Cancelled
                if self
                    .projected(now, config.decay)
                    .is_some_and(|ns| nanos(elapsed) as f64 > ns) =>
            {
                self.sample(now, elapsed, config.decay);
            }
            Outcome::Cancelled | Outcome::Local => {}
        }
    }

    /// An attempt started here ended without having told anything.
    pub fn abandon(&self) {
        let before = self.pending.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "every settle or abandon follows a start");
    }

    /// Attempts out at this moment.
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// What the next attempt is expected to take, decayed to `now` without
    /// changing anything; `None` before the first sample.
    pub fn estimate(&self, now: Instant, config: &Config) -> Option<Duration> {
        self.projected(now, config.decay).map(|ns| Duration::from_nanos(ns as u64))
    }

    fn projected(&self, now: Instant, decay: Duration) -> Option<f64> {
        self.known(now).map(|(ns, at)| ns * weight_left(now.since(at), decay))
    }

    /// The estimate as it was at its last sample, and when that was; in a
    /// penalty, that as of now if it is worse.
    fn known(&self, now: Instant) -> Option<(f64, Instant)> {
        let ns = f64::from_bits(self.estimate_bits.load(Ordering::Relaxed));
        if now.as_nanos() < self.penalised_until.load(Ordering::Relaxed) {
            let penalty = f64::from_bits(self.penalty_bits.load(Ordering::Relaxed));
            return Some((ns.max(penalty), now));
        }
        let at = Instant::from_nanos(self.sampled_at.load(Ordering::Relaxed));
        (ns > 0.0).then_some((ns, at))
    }

    /// Counts as this slow for this long. It is no sample of latency: one that
    /// had to fade like those would keep an endpoint that is well again without
    /// traffic for minutes, beside another that answers within a millisecond.
    fn penalise(&self, now: Instant, penalty: Duration) {
        let until = (now + penalty).as_nanos();
        if self.penalised_until.fetch_max(until, Ordering::Relaxed) <= until {
            self.penalty_bits.store((nanos(penalty) as f64).to_bits(), Ordering::Relaxed);
        }
    }

    fn sample(&self, now: Instant, latency: Duration, decay: Duration) {
        let mut peak = lock(&self.peak);
        peak.observe(now, latency, decay);
        self.estimate_bits.store(peak.ns.to_bits(), Ordering::Relaxed);
        self.sampled_at.store(peak.at.as_nanos(), Ordering::Relaxed);
    }
}

/// Jumps up to a worse sample at once and comes down slowly.
#[derive(Clone, Copy, Debug, Default)]
struct PeakEwma {
    ns: f64,
    at: Instant,
}

impl PeakEwma {
    fn observe(&mut self, now: Instant, latency: Duration, decay: Duration) {
        // Never zero: zero means "no sample yet".
        let sample = (nanos(latency) as f64).max(1.0);
        if sample > self.ns {
            self.ns = sample;
        } else {
            let left = weight_left(now.since(self.at), decay);
            self.ns = self.ns * left + sample * (1.0 - left);
        }
        self.at = self.at.max(now);
    }
}

/// How much more is left of a sample made at `to` than of one made at `from`.
fn growth(from: Instant, to: Instant, decay: Duration) -> f64 {
    libm::exp((to.as_nanos() as f64 - from.as_nanos() as f64) / nanos(decay) as f64)
}

fn weight_left(elapsed: Duration, decay: Duration) -> f64 {
    // Not `f64::exp`, which differs between platforms: a simulation must not.
    libm::exp(-(nanos(elapsed) as f64) / nanos(decay) as f64)
}

/// The median of the estimates of `loads`: what a new endpoint is seeded with.
/// `None` if none has a sample.
pub fn median<'a>(
    now: Instant,
    config: &Config,
    loads: impl IntoIterator<Item = &'a Load>,
) -> Option<Duration> {
    let mut estimates: Vec<Duration> =
        loads.into_iter().filter_map(|load| load.estimate(now, config)).collect();
    estimates.sort_unstable();
    estimates.get(estimates.len() / 2).copied()
}
