//! Which one of several consumers is served: a single active consumer.
//!
//! The others stand by. The active one stays so as long as it shows itself
//! (asks, extends or answers) once in a while; if it does not, or leaves,
//! whoever asks next takes over under a greater fencing token. The one
//! invariant: at any time at most one name is active.
//!
//! Source: RabbitMQ, "Single Active Consumer"; tokens as in [`crate::lease`].

use core::time::Duration;
use std::sync::Arc;

use crate::wall::Wall;

/// Share of the time to live after which a renewal is worth a write.
const WORTH: u32 = 10;

/// The consumer that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Its name, chosen by itself.
    pub consumer: Arc<str>,
    /// Greater than that of everyone who was active before.
    pub token: u64,
    /// When it took over.
    pub since: Wall,
    /// When somebody else may take over, unless it shows itself.
    pub until: Wall,
}

/// What comes of asking to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It was active and stays so.
    Stays,
    /// It is active from now on; whatever another one held is stale.
    TakesOver,
    /// Somebody else is active, at least until then.
    StandsBy {
        /// When that one's time ends.
        until: Wall,
    },
}

/// Decides whose turn it is.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    ttl: Duration,
    active: Option<Active>,
}

impl Turns {
    pub(super) const fn new(ttl: Duration) -> Self {
        Self { ttl, active: None }
    }

    pub(super) fn restore(&mut self, active: Active) {
        self.active = Some(active);
    }

    pub(super) const fn active(&self) -> Option<&Active> {
        self.active.as_ref()
    }

    /// `consumer` wants to be served. `token` must exceed every token before it.
    pub(super) fn ask(&mut self, now: Wall, consumer: &str, token: u64) -> Turn {
        match &self.active {
            // Its time may be over: nobody else has taken its place.
            Some(active) if &*active.consumer == consumer => {
                self.renew(now);
                Turn::Stays
            }
            Some(active) if active.until > now => Turn::StandsBy { until: active.until },
            _ => {
                let until = now + self.ttl;
                let consumer = Arc::from(consumer);
                self.active = Some(Active { consumer, token, since: now, until });
                Turn::TakesOver
            }
        }
    }

    /// The active one has shown itself.
    pub(super) fn renew(&mut self, now: Wall) {
        let until = now + self.ttl;
        if let Some(active) = &mut self.active
            && until.since(active.until) >= self.ttl / WORTH
        {
            active.until = until;
        }
    }

    /// `consumer` goes; whether it was the active one.
    pub(super) fn leave(&mut self, consumer: &str) -> bool {
        self.active.take_if(|active| &*active.consumer == consumer).is_some()
    }

    /// When the active one has to show itself at the latest, with time to spare.
    pub(super) fn renew_at(&self) -> Option<Wall> {
        self.active.as_ref().map(|active| active.until - self.ttl / 2)
    }
}

#[cfg(test)]
mod tests;
