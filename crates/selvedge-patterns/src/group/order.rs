//! A group that serves one consumer at a time, in the order of the log.
//!
//! What was handed out is in one hand, and the rest stands in line by position.
//! A message that fails takes everything behind it out of that hand: whoever is
//! served next begins with the one that failed, so nothing is ever handed out
//! while a message before it waits. What was taken away was not looked at, as
//! far as order goes, and loses no attempt.

use super::{Active, Cause, Due, Group, Offer, Receipt, State, Turn, Wall};

impl Group {
    /// Puts back who was served, as [`Self::active`] gave it.
    pub fn restore_active(&mut self, active: Active) {
        if let Some(turns) = &mut self.turns {
            turns.restore(active);
        }
    }

    /// The consumer that is served, in an exclusive group.
    #[must_use]
    pub fn active(&self) -> Option<&Active> {
        self.turns.as_ref()?.active()
    }

    /// `consumer` wants to be served; in a group that is not exclusive it may.
    /// `token` must exceed every fence and token given before.
    pub fn ask(&mut self, now: Wall, consumer: &str, token: u64) -> Turn {
        let Some(turns) = &mut self.turns else { return Turn::Stays };
        let turn = turns.ask(now, consumer, token);
        if turn == Turn::TakesOver {
            // The one before got no further than the first that it held.
            if let Some(first) = self.first_leased() {
                self.change(first, |exception| {
                    exception.fence = token;
                    exception.state = State::Leased { until: now };
                });
                self.give_back_after(first);
            }
        }
        turn
    }

    /// `consumer` goes, and what it holds is given back at no cost; whether it
    /// was the one that is served.
    pub fn leave(&mut self, consumer: &str) -> bool {
        let left = self.turns.as_mut().is_some_and(|turns| turns.leave(consumer));
        if left {
            self.give_back_after(0);
        }
        left
    }

    /// When the active consumer, if it waits for messages, has to ask again.
    #[must_use]
    pub fn renew_at(&self) -> Option<Wall> {
        self.turns.as_ref()?.renew_at()
    }

    /// The active consumer has shown itself.
    pub(super) fn seen(&mut self, now: Wall) {
        if let Some(turns) = &mut self.turns {
            turns.renew(now);
        }
    }

    /// What is in hand behind `position` is in line again.
    pub(super) fn give_back_after(&mut self, position: u64) {
        let behind = self.exceptions.range(position + 1..);
        let leased = behind.filter(|(_, it)| matches!(it.state, State::Leased { .. }));
        let leased: Vec<u64> = leased.map(|(&position, _)| position).collect();
        for position in leased {
            self.change(position, |exception| {
                exception.state = State::Waiting { until: Wall::ZERO };
                exception.attempt -= 1;
            });
        }
    }

    pub(super) fn offer_in_order(
        &mut self,
        now: Wall,
        fence: u64,
        position: u64,
        key: Option<&str>,
    ) -> Offer {
        if !self.idle.is_empty() {
            return Offer::Full;
        }
        if let Some(letters) = key.and_then(|key| self.parked.get_mut(key)) {
            *letters += 1;
            self.letters += 1;
            return Offer::Dead(Cause::BehindKey);
        }
        self.first_delivery(now, fence, position, key)
    }

    pub(super) fn wake_in_order(&mut self, now: Wall, fence: u64) -> Option<Due> {
        while let Some(&(until, position)) = self.due.first()
            && until <= now
        {
            self.give_back_after(position);
            let attempt = self.exceptions.get(&position)?.attempt;
            if attempt >= self.config.attempts {
                self.bury(position);
                return Some(Due::Dead { position, attempt, cause: Cause::LeaseExpired });
            }
            self.change(position, |it| it.state = State::Waiting { until: Wall::ZERO });
        }
        let &position = self.idle.first()?;
        let exception = self.exceptions.get(&position)?;
        let attempt = exception.attempt;
        if exception.key.as_ref().is_some_and(|key| self.parked.contains_key(key)) {
            self.bury(position);
            return Some(Due::Dead { position, attempt, cause: Cause::BehindKey });
        }
        if matches!(exception.state, State::Waiting { until } if until > now)
            || self.in_flight >= self.config.in_flight_max
            || !self.pass(now)
        {
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

    /// The next time after `now` at which something changes by itself.
    pub(super) fn wakeup_in_order(&self, now: Wall) -> Option<Wall> {
        let first = self.idle.first().and_then(|position| self.exceptions.get(position));
        let waits = match first.map(|exception| exception.state) {
            Some(State::Waiting { until }) => Some(until),
            _ => None,
        };
        let lease = self.due.first().map(|&(until, _)| until);
        let turn = self.active().map(|active| active.until);
        [waits, lease, turn, self.throttled(now)].into_iter().flatten().filter(|at| *at > now).min()
    }

    fn first_leased(&self) -> Option<u64> {
        let mut all = self.exceptions.iter();
        all.find(|(_, it)| matches!(it.state, State::Leased { .. })).map(|(&position, _)| position)
    }
}

#[cfg(test)]
mod tests;
