//! Who may process which message of a log, and what happens when they do not.
//!
//! A group is a set of consumers that share a log. Its whole state is a cursor
//! (every position below it has been looked at) and the *exceptions*: positions
//! below the cursor that are not settled yet, because they are leased, wait for
//! a retry, or stand behind an earlier message of the same key. A position
//! below the cursor without an exception is settled, so an acknowledgement
//! removes one small row and rewrites nothing else.
//!
//! The one invariant: a message is settled only by the receipt of its last
//! delivery. Deliberately absent: the log itself, payloads, the store.

use core::time::Duration;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use crate::{random::Rng, wall::Wall};

mod config;
mod lane;
mod letters;
mod order;
mod rate;
#[cfg(test)]
mod tests;
mod turn;

pub use config::{Config, LEASE_MAX};
pub use lane::pick_lane;
pub use letters::{Full, Letters};
pub use rate::Gate;
pub use turn::{Active, Turn};

/// Names one delivery: a later delivery of the same message has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Position of the message in the log.
    pub position: u64,
    /// Which delivery of the message this is, from 1.
    pub attempt: u32,
    /// Fencing token: greater than that of every earlier delivery in the group.
    pub fence: u64,
}

/// Where an unsettled message below the cursor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Held by a consumer until then.
    Leased {
        /// When it may be offered again.
        until: Wall,
    },
    /// May be offered from then on.
    Waiting {
        /// When it is due.
        until: Wall,
    },
    /// Stands behind an earlier message of its key.
    Blocked,
}

/// One unsettled message below the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Deliveries so far.
    pub attempt: u32,
    /// Fencing token of the last delivery, 0 before the first.
    pub fence: u64,
    /// What it waits for.
    pub state: State,
    /// Its ordering key; `None` in a group that is not ordered.
    pub key: Option<Arc<str>>,
}

/// Why a message became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The last allowed delivery was answered with a failure.
    Attempts,
    /// The lease of the last allowed delivery ran out.
    LeaseExpired,
    /// The consumer said that a repeat is of no use.
    Parked,
    /// An earlier message of its key is a dead letter.
    BehindKey,
}

/// What a consumer says about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done: settle it.
    Ack,
    /// Failed: offer it again, after `after` or the group's own backoff.
    Retry {
        /// Overrides the backoff.
        after: Option<Duration>,
    },
    /// Failed, and no repeat can help: make it a dead letter now.
    Park,
    /// Not looked at: offer it again after this time, and the delivery does not
    /// count as an attempt.
    Release {
        /// How long to wait.
        after: Duration,
    },
}

/// What became of a settled delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The message is done.
    Acked,
    /// It will be offered again then.
    Retry {
        /// When it is due.
        at: Wall,
    },
    /// It is a dead letter; in an ordered group its key is parked.
    Dead(Cause),
}

/// The receipt is not that of the last delivery; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The receipt presented.
    pub presented: Receipt,
    /// Attempt and fence of the delivery that counts, or `None` if the message
    /// is settled.
    pub current: Option<(u32, u64)>,
}

/// What comes of looking at the message at the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Hand it out.
    Deliver(Receipt),
    /// It waits for an earlier message of its key.
    Blocked,
    /// Its key is parked: it is a dead letter.
    Dead(Cause),
    /// The group holds as much as it may, or as many dead letters, or its rate lets no more through now:
    /// look no further.
    Full,
}

/// What comes of looking at the exceptions that fell due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Hand it out (again).
    Deliver(Receipt),
    /// Its last allowed delivery ran out, or its key is parked.
    Dead {
        /// Position of the message.
        position: u64,
        /// Deliveries it had.
        attempt: u32,
        /// Why.
        cause: Cause,
    },
}

/// What an operator sees of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Unsettled messages below the cursor.
    pub exceptions: usize,
    /// Of these, held by consumers.
    pub in_flight: u32,
    /// Lowest unsettled position below the cursor.
    pub floor: Option<u64>,
    /// Keys that are parked.
    pub parked_keys: usize,
    /// Most deliveries that any unsettled message had.
    pub attempts_most: u32,
}

/// The unsettled part of a group; see the module's description.
#[derive(Clone, Debug)]
pub struct Group {
    config: Config,
    exceptions: BTreeMap<u64, Exception>,
    /// Leased and waiting exceptions by due time.
    due: BTreeSet<(Wall, u64)>,
    /// Unsettled positions of each busy key, lowest first: only the first is due.
    keys: HashMap<Arc<str>, VecDeque<u64>>,
    parked: HashMap<Arc<str>, u64>,
    /// Dead letters there are.
    letters: u64,
    in_flight: u32,
    /// How often something may be handed out, if that is bounded.
    gate: Option<Gate>,
    /// Whose turn it is, if one consumer is served at a time.
    turns: Option<turn::Turns>,
    /// What is not in hand, by position, if order is all that counts.
    idle: BTreeSet<u64>,
    /// Positions whose exception changed since the last `drain_changes`.
    changed: Vec<u64>,
}

impl Group {
    /// A group without exceptions.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            gate: config.rate.and_then(Gate::new),
            turns: config.exclusive.map(turn::Turns::new),
            idle: BTreeSet::new(),
            config,
            exceptions: BTreeMap::new(),
            due: BTreeSet::new(),
            keys: HashMap::new(),
            parked: HashMap::new(),
            letters: 0,
            in_flight: 0,
            changed: Vec::new(),
        }
    }

    /// Puts back an exception that was stored. Positions must come in rising order.
    pub fn restore(&mut self, position: u64, mut exception: Exception) {
        self.enqueue(position, exception.key.as_ref());
        let queue = exception.key.as_ref().and_then(|key| self.keys.get(key));
        if queue.is_some_and(|queue| queue.len() > 1)
            && matches!(exception.state, State::Waiting { .. })
        {
            // It was free of its key while the group was exclusive.
            exception.state = State::Blocked;
        }
        self.insert(position, exception);
    }

    /// Puts back how many dead letters there are.
    pub fn restore_letters(&mut self, letters: u64) {
        self.letters = letters;
    }

    /// Dead letters there are.
    #[must_use]
    pub fn letters(&self) -> u64 {
        self.letters
    }

    /// Puts back a parked key with the number of its dead letters.
    pub fn restore_parked(&mut self, key: &str, letters: u64) {
        self.parked.insert(Arc::from(key), letters);
    }

    /// Puts back how much of the rate was used, as [`Self::rate_used`] gave it.
    pub fn restore_rate(&mut self, used: u64) {
        if let Some(gate) = &mut self.gate {
            gate.restore(used);
        }
    }

    /// How much of the rate is used, as a word to be stored; 0 without a rate.
    #[must_use]
    pub fn rate_used(&self) -> u64 {
        self.gate.as_ref().map_or(0, Gate::used)
    }

    /// When the rate lets the next message through, if not now.
    #[must_use]
    pub fn throttled(&self, now: Wall) -> Option<Wall> {
        self.gate.as_ref()?.closed_until(now)
    }

    /// Looks at the message at the cursor, which the caller then moves past it
    /// (unless `Full`). `fence` must exceed every fence given before.
    pub fn offer(&mut self, now: Wall, fence: u64, position: u64, key: Option<&str>) -> Offer {
        if self.in_flight >= self.config.in_flight_max
            || self.exceptions.len() >= self.config.exceptions_max as usize
            || self.config.letters.hold(self.letters)
        {
            return Offer::Full;
        }
        let key = key.filter(|_| self.config.ordered);
        if self.turns.is_some() {
            return self.offer_in_order(now, fence, position, key);
        }
        if let Some(key) = key {
            if let Some(letters) = self.parked.get_mut(key) {
                *letters += 1;
                self.letters += 1;
                return Offer::Dead(Cause::BehindKey);
            }
            if let Some((name, _)) = self.keys.get_key_value(key) {
                let key = Some(name.clone());
                self.enqueue(position, key.as_ref());
                let state = State::Blocked;
                self.insert(position, Exception { attempt: 0, fence: 0, state, key });
                self.changed.push(position);
                return Offer::Blocked;
            }
        }
        self.first_delivery(now, fence, position, key)
    }

    fn first_delivery(&mut self, now: Wall, fence: u64, position: u64, key: Option<&str>) -> Offer {
        if !self.pass(now) {
            return Offer::Full;
        }
        let key: Option<Arc<str>> = key.map(Arc::from);
        self.enqueue(position, key.as_ref());
        let state = State::Leased { until: now + self.config.lease };
        self.insert(position, Exception { attempt: 1, fence, state, key });
        self.changed.push(position);
        Offer::Deliver(Receipt { position, attempt: 1, fence })
    }

    /// The next exception that is due, leased to whoever asks, or found dead.
    /// `fence` must exceed every fence given before.
    pub fn wake(&mut self, now: Wall, fence: u64) -> Option<Due> {
        if self.config.letters.hold(self.letters) {
            return None;
        }
        if self.turns.is_some() {
            return self.wake_in_order(now, fence);
        }
        let &(until, position) = self.due.first()?;
        if until > now {
            return None;
        }
        let exception = self.exceptions.get(&position)?;
        let attempt = exception.attempt;
        if exception.key.as_ref().is_some_and(|key| self.parked.contains_key(key)) {
            self.bury(position);
            return Some(Due::Dead { position, attempt, cause: Cause::BehindKey });
        }
        let expired = matches!(exception.state, State::Leased { .. });
        if expired && attempt >= self.config.attempts {
            self.bury(position);
            return Some(Due::Dead { position, attempt, cause: Cause::LeaseExpired });
        }
        if (!expired && self.in_flight >= self.config.in_flight_max) || !self.pass(now) {
            return None;
        }
        let attempt = attempt + 1;
        let state = State::Leased { until: now + self.config.lease };
        self.change(position, |exception| {
            exception.attempt = attempt;
            exception.fence = fence;
            exception.state = state;
        });
        Some(Due::Deliver(Receipt { position, attempt, fence }))
    }

    /// A consumer answers a delivery.
    ///
    /// A late answer still counts while nobody else got the message.
    ///
    /// # Errors
    ///
    /// [`Stale`] if the message was settled or delivered again since.
    pub fn settle(
        &mut self,
        now: Wall,
        receipt: Receipt,
        verdict: Verdict,
        rng: &mut impl Rng,
    ) -> Result<Settled, Stale> {
        self.check(receipt)?;
        self.seen(now);
        let position = receipt.position;
        let goes_on = match verdict {
            Verdict::Retry { .. } => receipt.attempt >= self.config.attempts,
            Verdict::Release { .. } => false,
            Verdict::Ack | Verdict::Park => true,
        };
        if !goes_on && self.turns.is_some() {
            self.give_back_after(position);
        }
        match verdict {
            Verdict::Ack => {
                self.remove(position);
                Ok(Settled::Acked)
            }
            Verdict::Park => {
                self.bury(position);
                Ok(Settled::Dead(Cause::Parked))
            }
            Verdict::Retry { .. } if receipt.attempt >= self.config.attempts => {
                self.bury(position);
                Ok(Settled::Dead(Cause::Attempts))
            }
            Verdict::Retry { after } => {
                let wait = after.unwrap_or_else(|| self.config.backoff(receipt.attempt, rng));
                let at = now + wait;
                self.change(position, |exception| exception.state = State::Waiting { until: at });
                Ok(Settled::Retry { at })
            }
            Verdict::Release { after } => {
                let at = now + after;
                self.change(position, |exception| {
                    exception.state = State::Waiting { until: at };
                    exception.attempt -= 1;
                });
                Ok(Settled::Retry { at })
            }
        }
    }

    /// Holds a delivery for `lease` (default: the group's) from now on.
    ///
    /// # Errors
    ///
    /// [`Stale`] as for [`Self::settle`].
    pub fn extend(
        &mut self,
        now: Wall,
        receipt: Receipt,
        lease: Option<Duration>,
    ) -> Result<Wall, Stale> {
        self.check(receipt)?;
        self.seen(now);
        let until = now + lease.unwrap_or(self.config.lease).min(LEASE_MAX);
        self.change(receipt.position, |exception| exception.state = State::Leased { until });
        Ok(until)
    }

    /// Takes a dead letter back: it is due at once with all its attempts, in
    /// its old place among the messages of its key. The key stays parked until
    /// as many letters came back as went, so take back all letters of a key
    /// before the next [`Self::wake`].
    pub fn redrive(&mut self, now: Wall, position: u64, key: Option<&str>) {
        let key: Option<Arc<str>> = key.filter(|_| self.config.ordered).map(Arc::from);
        self.letters = self.letters.saturating_sub(1);
        let mut state = State::Waiting { until: now };
        if let Some(key) = &key {
            self.return_letter(key);
        }
        // After a seek it may have come by the cursor too: whoever holds it keeps it.
        if self.exceptions.contains_key(&position) {
            return;
        }
        if let Some(key) = key.as_ref().filter(|_| self.turns.is_none()) {
            let queue = self.keys.entry(key.clone()).or_default();
            let place = queue.partition_point(|&other| other < position);
            queue.insert(place, position);
            if place > 0 {
                state = State::Blocked;
            } else if let Some(&second) = queue.get(1) {
                self.hold_back(second);
            }
        }
        self.insert(position, Exception { attempt: 0, fence: 0, state, key });
        self.changed.push(position);
    }

    /// A dead letter was thrown away: its key is free once none is left.
    pub fn discard(&mut self, key: Option<&str>) {
        self.letters = self.letters.saturating_sub(1);
        if let Some(key) = key {
            self.return_letter(key);
        }
    }

    /// Forgets an exception whose message has expired from the log.
    pub fn forget(&mut self, position: u64) {
        if self.exceptions.contains_key(&position) {
            self.remove(position);
        }
    }

    /// The next time at which [`Self::wake`] or [`Self::offer`] may answer
    /// without further input.
    #[must_use]
    pub fn next_wakeup(&self, now: Wall) -> Option<Wall> {
        if self.turns.is_some() {
            return self.wakeup_in_order(now);
        }
        self.throttled(now).or_else(|| self.due.first().map(|&(until, _)| until))
    }

    /// Numbers for people.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            exceptions: self.exceptions.len(),
            in_flight: self.in_flight,
            floor: self.exceptions.keys().next().copied(),
            parked_keys: self.parked.len(),
            attempts_most: self.exceptions.values().map(|e| e.attempt).max().unwrap_or(0),
        }
    }

    /// The exception at `position`: what a store writes after a change.
    #[must_use]
    pub fn exception(&self, position: u64) -> Option<&Exception> {
        self.exceptions.get(&position)
    }

    /// Positions whose exception appeared, changed or went since the last call.
    pub fn drain_changes(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.changed.drain(..)
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn check(&self, presented: Receipt) -> Result<(), Stale> {
        let current = self.exceptions.get(&presented.position).map(|e| (e.attempt, e.fence));
        let held = self
            .exceptions
            .get(&presented.position)
            .is_some_and(|exception| matches!(exception.state, State::Leased { .. }));
        if held && current == Some((presented.attempt, presented.fence)) {
            Ok(())
        } else {
            Err(Stale { presented, current })
        }
    }

    /// Takes a delivery out of the rate, if there is one left.
    fn pass(&mut self, now: Wall) -> bool {
        self.gate.as_mut().is_none_or(|gate| gate.pass(now))
    }

    fn enqueue(&mut self, position: u64, key: Option<&Arc<str>>) {
        if let Some(key) = key.filter(|_| self.turns.is_none()) {
            self.keys.entry(key.clone()).or_default().push_back(position);
        }
    }

    fn insert(&mut self, position: u64, exception: Exception) {
        match exception.state {
            State::Leased { until } => {
                self.in_flight += 1;
                self.due.insert((until, position));
            }
            State::Waiting { .. } | State::Blocked if self.turns.is_some() => {
                self.idle.insert(position);
            }
            State::Waiting { until } => {
                self.due.insert((until, position));
            }
            State::Blocked => {}
        }
        self.exceptions.insert(position, exception);
    }

    fn take(&mut self, position: u64) -> Option<Exception> {
        let exception = self.exceptions.remove(&position)?;
        match exception.state {
            State::Leased { until } => {
                self.in_flight -= 1;
                self.due.remove(&(until, position));
            }
            State::Waiting { .. } | State::Blocked if self.turns.is_some() => {
                self.idle.remove(&position);
            }
            State::Waiting { until } => {
                self.due.remove(&(until, position));
            }
            State::Blocked => {}
        }
        Some(exception)
    }

    fn change(&mut self, position: u64, change: impl FnOnce(&mut Exception)) {
        if let Some(mut exception) = self.take(position) {
            change(&mut exception);
            self.insert(position, exception);
            self.changed.push(position);
        }
    }

    /// Settles `position` and lets the next message of its key go.
    fn remove(&mut self, position: u64) {
        let Some(exception) = self.take(position) else { return };
        self.changed.push(position);
        let Some(key) = exception.key else { return };
        let Some(queue) = self.keys.get_mut(&key) else { return };
        queue.retain(|&other| other != position);
        match queue.front().copied() {
            None => {
                self.keys.remove(&key);
            }
            Some(next) => {
                if self.exceptions.get(&next).is_some_and(|e| e.state == State::Blocked) {
                    self.change(next, |e| e.state = State::Waiting { until: Wall::ZERO });
                }
            }
        }
    }

    /// Removes `position` as a dead letter: its key is parked with it.
    fn bury(&mut self, position: u64) {
        self.letters += 1;
        if let Some(key) = self.exceptions.get(&position).and_then(|e| e.key.clone()) {
            *self.parked.entry(key).or_insert(0) += 1;
        }
        self.remove(position);
    }

    fn return_letter(&mut self, key: &str) {
        if let Some(letters) = self.parked.get_mut(key) {
            *letters -= 1;
            if *letters == 0 {
                self.parked.remove(key);
            }
        }
    }

    /// A message that was first of its key gets one before it.
    fn hold_back(&mut self, position: u64) {
        // A consumer that already holds it keeps it: the receipt is out.
        self.change(position, |exception| {
            if matches!(exception.state, State::Waiting { .. }) {
                exception.state = State::Blocked;
            }
        });
    }
}
