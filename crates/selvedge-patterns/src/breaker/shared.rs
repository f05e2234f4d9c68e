//! One breaker for many threads.

use super::{Breaker, Config, Control, Permit, Rejected, State, Transition, View};
use crate::outcome::Outcome;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::time::Instant;

const GENERATION: u64 = 0xFFFF_FFFF;
/// Admission needs no look at the breaker itself.
const FREE: u64 = 1 << 32;
/// Outcomes change nothing.
const DEAF: u64 = 1 << 33;

/// A [`Breaker`] that many threads share.
///
/// While it is closed and watches no slow calls, admission is one relaxed
/// load. Everything else is decided by the one [`Breaker`] inside, under a
/// short lock.
#[derive(Debug)]
pub struct Shared {
    /// Generation and flags of the breaker: a copy for those who only look.
    /// Reading an old one is harmless, since it comes with an old generation.
    word: AtomicU64,
    /// Nanoseconds: see [`Breaker::ready_at`].
    ready_at: AtomicU64,
    breaker: Mutex<Breaker>,
}

impl Shared {
    /// See [`Breaker::new`].
    #[must_use]
    pub fn new(now: Instant, config: Config, seed: u64) -> Self {
        let breaker = Breaker::new(now, config, seed);
        Self {
            word: AtomicU64::new(word(&breaker)),
            ready_at: AtomicU64::new(breaker.ready_at().as_nanos()),
            breaker: Mutex::new(breaker),
        }
    }

    /// Whether it would admit a call, as far as can be told without asking: a
    /// balancer's hint, one load.
    pub fn ready(&self, now: Instant) -> bool {
        self.ready_at.load(Ordering::Relaxed) <= now.as_nanos()
    }

    /// See [`Breaker::ready_at`].
    pub fn ready_at(&self) -> Instant {
        Instant::from_nanos(self.ready_at.load(Ordering::Relaxed))
    }

    /// See [`Breaker::admit`].
    #[inline]
    pub fn admit(&self, now: Instant) -> (Result<Permit, Rejected>, Option<Transition>) {
        let word = self.word.load(Ordering::Relaxed);
        if word & FREE != 0 {
            let generation = (word & GENERATION) as u32;
            return (Ok(Permit { generation, probe: 0, started: now }), None);
        }
        self.with(|breaker| breaker.admit(now))
    }

    /// See [`Breaker::settle`].
    pub fn settle(&self, now: Instant, permit: Permit, outcome: Outcome) -> Option<Transition> {
        if self.deaf_to(&permit) {
            return None;
        }
        let mut breaker = lock(&self.breaker);
        let before = breaker.generation;
        let half_open = breaker.state == State::HalfOpen;
        let transition = breaker.settle(now, permit, outcome);
        // Nothing that others look at changes while it stays closed.
        if half_open || breaker.generation != before {
            self.publish(&breaker);
        }
        transition
    }

    /// See [`Breaker::abandon`].
    pub fn abandon(&self, now: Instant, permit: Permit) {
        if !self.deaf_to(&permit) {
            self.with(|breaker| breaker.abandon(now, permit));
        }
    }

    /// See [`Breaker::next_wakeup`].
    pub fn next_wakeup(&self) -> Option<Instant> {
        lock(&self.breaker).next_wakeup()
    }

    /// See [`Breaker::wake`].
    pub fn wake(&self, now: Instant) -> Option<Transition> {
        self.with(|breaker| breaker.wake(now))
    }

    /// See [`Breaker::control`].
    pub fn control(&self, now: Instant, control: Control) -> Option<Transition> {
        self.with(|breaker| breaker.control(now, control))
    }

    /// See [`Breaker::reconfigure`].
    pub fn reconfigure(&self, config: Config) {
        self.with(|breaker| breaker.reconfigure(config));
    }

    /// See [`Breaker::view`].
    pub fn view(&self, now: Instant) -> View {
        lock(&self.breaker).view(now)
    }

    /// See [`Breaker::history`].
    pub fn history(&self) -> Vec<Transition> {
        lock(&self.breaker).history().copied().collect()
    }

    fn deaf_to(&self, permit: &Permit) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        // A permit may be newer than the word that this thread sees; only an
        // equal generation proves that nothing would come of it.
        word & DEAF != 0 && word & GENERATION == u64::from(permit.generation)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = lock(&self.breaker);
        let answer = act(&mut breaker);
        self.publish(&breaker);
        answer
    }

    fn publish(&self, breaker: &Breaker) {
        self.word.store(word(breaker), Ordering::Relaxed);
        self.ready_at.store(breaker.ready_at().as_nanos(), Ordering::Relaxed);
    }
}

fn word(breaker: &Breaker) -> u64 {
    let flags = match breaker.state {
        State::Closed if !breaker.in_flight.watches() => FREE,
        State::Disabled => FREE | DEAF,
        State::Closed | State::Open | State::HalfOpen | State::ForcedOpen => 0,
    };
    flags | u64::from(breaker.generation)
}
