//! Writes down every question put to the patterns, with its answer.
//!
//! Off unless a program hands one in: then each question is asked under one
//! lock, so that the order in the journal is the order in which they were
//! answered, whichever threads asked. It is there to prove that the simulator
//! decides as the proxy does; it is not for production, where it would cost
//! what the lock-free patterns save.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use selvedge_patterns::call::{Call, Request, Step};
use selvedge_patterns::fallback::{self, Choice};
use selvedge_patterns::health::Check;
use selvedge_patterns::journal::{Asked, Entry, Noted, notes};
use selvedge_patterns::limit::{self, keyed::Keyed};
use selvedge_patterns::outcome::{Outcome, Safety};
use selvedge_patterns::random::Rng;
use selvedge_patterns::service::{Service as Live, Target};
use selvedge_patterns::time::Instant;

/// The questions and answers of one data plane under its first configuration:
/// what is decided on a changed one is written down, but not the change.
#[derive(Debug)]
pub struct Journal {
    entries_max: usize,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    entries: Vec<Entry>,
    left_out: u64,
    calls: u64,
}

impl Journal {
    /// An empty one with room for `entries_max` entries; what comes later is counted.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self { entries_max, book: Mutex::default() }
    }

    /// What was written so far, and how many entries found no room.
    #[must_use]
    pub fn take(&self) -> (Vec<Entry>, u64) {
        let mut book = self.book();
        (std::mem::take(&mut book.entries), book.left_out)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, book: &mut Book, now: Instant, service: &str, asked: Asked, draws: Vec<u64>) {
        if book.entries.len() < self.entries_max {
            book.entries.push(Entry { now, service: Arc::from(service), asked, draws });
        } else {
            book.left_out += 1;
        }
    }

    pub(crate) fn new_service(&self, now: Instant, service: &str, live: &Live, seed: u64) {
        let target = |one: &selvedge_patterns::service::Endpoint| Target {
            address: Arc::clone(one.address()),
            weight: one.weight(),
        };
        let targets = live.endpoints().iter().map(target).collect();
        self.write(&mut self.book(), now, service, Asked::New { targets, seed }, Vec::new());
    }

    pub(crate) fn begin(
        &self,
        now: Instant,
        service: &str,
        live: &Live,
        request: Request,
    ) -> (Call, u64) {
        let mut book = self.book();
        let call = Call::begin(now, live, request);
        book.calls += 1;
        let number = book.calls;
        let ends = call.deadline().instant();
        let asked = Asked::Begin { call: number, request, ends };
        self.write(&mut book, now, service, asked, Vec::new());
        (call, number)
    }

    pub(crate) fn next(
        &self,
        now: Instant,
        (service, live): (&str, &Live),
        (number, call): (u64, &mut Call),
        rng: &mut impl Rng,
    ) -> Step {
        let mut book = self.book();
        let mut noted = Noted::new(rng);
        let step = call.next(now, live, &mut noted);
        let asked = Asked::Next { call: number, step };
        self.write(&mut book, now, service, asked, noted.draws());
        step
    }

    pub(crate) fn not_replayable(
        &self,
        now: Instant,
        service: &str,
        (number, call): (u64, &mut Call),
    ) {
        let mut book = self.book();
        call.not_replayable();
        self.write(&mut book, now, service, Asked::NotReplayable { call: number }, Vec::new());
    }

    /// Settles an attempt, or commits to it where there is no outcome yet.
    pub(crate) fn settle(
        &self,
        now: Instant,
        (service, live): (&str, &Live),
        (number, call): (u64, &mut Call),
        attempt: u32,
        outcome: Option<Outcome>,
    ) {
        let mut book = self.book();
        let asked = match outcome {
            Some(outcome) => {
                call.settle(now, live, attempt, outcome);
                Asked::Settle { call: number, number: attempt, outcome }
            }
            None => {
                call.commit(now, live, attempt);
                Asked::Commit { call: number, number: attempt }
            }
        };
        self.write(&mut book, now, service, asked, Vec::new());
    }

    pub(crate) fn finish(
        &self,
        now: Instant,
        (service, live): (&str, &Live),
        (number, call): (u64, &mut Call),
    ) {
        let mut book = self.book();
        call.finish(now, live);
        let asked = Asked::Finish { call: number, notes: notes(call.trace()) };
        self.write(&mut book, now, service, asked, Vec::new());
    }

    pub(crate) fn wake(&self, now: Instant, service: &str, live: &Live) {
        let mut book = self.book();
        live.wake(now);
        self.write(&mut book, now, service, Asked::Wake, Vec::new());
    }

    pub(crate) fn check_due(
        &self,
        now: Instant,
        (service, live): (&str, &Live),
        endpoint: usize,
        rng: &mut impl Rng,
    ) -> Option<Check> {
        let mut book = self.book();
        let mut noted = Noted::new(rng);
        let check = live.check_due(now, endpoint, &mut noted);
        let asked = Asked::CheckDue { endpoint, due: check.is_some() };
        self.write(&mut book, now, service, asked, noted.draws());
        check
    }

    pub(crate) fn check_settle(
        &self,
        now: Instant,
        (service, live): (&str, &Live),
        endpoint: usize,
        check: Check,
        passed: bool,
        rng: &mut impl Rng,
    ) {
        let mut book = self.book();
        let mut noted = Noted::new(rng);
        live.check_settle(now, endpoint, check, passed, &mut noted);
        let healthy = live.endpoints()[endpoint].healthy();
        let asked = Asked::CheckSettle { endpoint, passed, healthy };
        self.write(&mut book, now, service, asked, noted.draws());
    }

    pub(crate) fn limit(
        &self,
        now: Instant,
        service: &str,
        keyed: &Keyed,
        key: &[u8],
    ) -> limit::Decision {
        let mut book = self.book();
        let decision = keyed.admit(now, key, 1);
        let asked = Asked::Limit { key: key.to_vec(), decision };
        self.write(&mut book, now, service, asked, Vec::new());
        decision
    }

    pub(crate) fn fall_back(
        &self,
        now: Instant,
        service: &str,
        fallback: fallback::Config,
        (safety, outcome): (Safety, Outcome),
        last_good: Option<Instant>,
    ) -> Choice {
        let mut book = self.book();
        let choice = fallback.choose(now, safety, outcome, last_good);
        let asked = Asked::FallBack { safety, outcome, last_good, choice };
        self.write(&mut book, now, service, asked, Vec::new());
        choice
    }
}
