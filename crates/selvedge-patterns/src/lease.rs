//! Leave to be the only one, or one of a few, for a while.
//!
//! A lock is a lease with one permit, a semaphore one with several, a leader
//! the holder of a lock. Every grant carries a fencing token greater than all
//! before it: a holder that slept past its time can be recognised by whatever
//! it writes to. The one invariant: never more live holders than permits.
//! Source: Kleppmann, "How to do distributed locking" (2016).

use core::time::Duration;

use crate::wall::Wall;

#[cfg(test)]
mod tests;

/// One who holds a permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who: chosen by the caller.
    pub owner: String,
    /// Fencing token of the grant.
    pub token: u64,
    /// When it was granted.
    pub since: Wall,
    /// When the permit is lost unless renewed.
    pub until: Wall,
}

/// A resource that a few may hold at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    holders: Vec<Holder>,
}

/// All permits are out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Permits there are.
    pub permits: u32,
    /// Who holds the one that ends first.
    pub owner: String,
    /// When that is.
    pub until: Wall,
}

/// The token is not that of a live holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The token presented.
    pub presented: u64,
    /// The greatest token of a live holder, if there is one.
    pub current: Option<u64>,
}

impl Lease {
    /// Puts back what was stored.
    #[must_use]
    pub fn restore(holders: Vec<Holder>) -> Self {
        Self { holders }
    }

    /// Asks for one of `permits` permits for `ttl`. `token` must exceed every
    /// token given before, for this resource and after restarts too.
    ///
    /// # Errors
    ///
    /// [`Held`] if all permits are out.
    pub fn acquire(
        &mut self,
        now: Wall,
        owner: &str,
        permits: u32,
        token: u64,
        ttl: Duration,
    ) -> Result<Holder, Held> {
        self.expire(now);
        if self.holders.len() >= permits as usize {
            let first = self.holders.iter().min_by_key(|holder| holder.until);
            return Err(Held {
                permits,
                owner: first.map_or_else(String::new, |holder| holder.owner.clone()),
                until: first.map_or(now, |holder| holder.until),
            });
        }
        let holder = Holder { owner: owner.to_owned(), token, since: now, until: now + ttl };
        self.holders.push(holder.clone());
        Ok(holder)
    }

    /// Keeps a permit for `ttl` from now on.
    ///
    /// # Errors
    ///
    /// [`Lost`] if the permit ended, even when nobody else took it: its holder
    /// must notice that there was a time without it.
    pub fn renew(&mut self, now: Wall, token: u64, ttl: Duration) -> Result<Wall, Lost> {
        self.check(now, token)?;
        let until = now + ttl;
        for holder in self.holders.iter_mut().filter(|holder| holder.token == token) {
            holder.until = until;
        }
        Ok(until)
    }

    /// Gives a permit back.
    ///
    /// # Errors
    ///
    /// [`Lost`] if it ended before.
    pub fn release(&mut self, now: Wall, token: u64) -> Result<(), Lost> {
        self.check(now, token)?;
        self.holders.retain(|holder| holder.token != token);
        Ok(())
    }

    /// Whether a write under `token` may go through: the precondition that
    /// makes a lease safe.
    ///
    /// # Errors
    ///
    /// [`Lost`] if it may not.
    pub fn check(&self, now: Wall, token: u64) -> Result<(), Lost> {
        let mut live = self.holders.iter().filter(|holder| holder.until > now);
        if live.clone().any(|holder| holder.token == token) {
            return Ok(());
        }
        let current = live.by_ref().map(|holder| holder.token).max();
        Err(Lost { presented: token, current })
    }

    /// Live holders.
    pub fn view(&self, now: Wall) -> impl Iterator<Item = &Holder> {
        self.holders.iter().filter(move |holder| holder.until > now)
    }

    /// When the next permit ends if nobody renews.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Wall> {
        self.holders.iter().map(|holder| holder.until).min()
    }

    fn expire(&mut self, now: Wall) {
        self.holders.retain(|holder| holder.until > now);
    }
}
