//! One limit per key, in bounded memory.
//!
//! A key's state lives until forgetting it would change no decision: when its
//! burst is whole again. New keys sweep a few old ones out. If all places are
//! taken by active keys, further keys share one limit: under a flood of keys
//! nobody is let through unlimited, and nobody known is shut out.
//!
//! A key is kept as a 64-bit keyed hash, so memory does not depend on what
//! clients send. Two of a million keys share a limit by accident once in some
//! 40 million runs.

use core::hash::{BuildHasherDefault, Hasher};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;

use super::{Decision, Reason, Rejected, Rule, State};
use crate::config::ConfigError;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::time::Instant;

#[cfg(test)]
mod tests;

/// One limit per key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What each key may take.
    pub limit: super::Config,
    /// Keys remembered at once; about 64 bytes each, taken as they come. The
    /// keys are spread over shards, each with its part of the places. Default 100,000.
    pub keys_max: u32,
    /// What all keys together may take for which there is no place. Default
    /// `None`: as much as one key.
    pub overflow: Option<super::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self { limit: super::Config::default(), keys_max: 100_000, overflow: None }
    }
}

impl Config {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    ///
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.limit.validate()?;
        ConfigError::require(self.keys_max >= 1, "keys_max", "must be at least 1")?;
        self.overflow.map_or(Ok(()), |overflow| overflow.validate())
    }
}

/// Locks are taken per shard, for the time of one decision.
const SHARDS: usize = 16;
/// Old keys looked at for each new one: more than one, so that the sweep gains on arrivals.
const SWEEP: usize = 4;

/// Limits by key, shared by as many threads as like.
#[derive(Debug)]
pub struct Keyed {
    rule: Rule,
    seed: u64,
    places: usize,
    shards: Box<[Mutex<Shard>]>,
    overflow: super::Limiter,
    overflowed: AtomicU64,
}

/// How full the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Keys remembered.
    pub keys: usize,
    /// Decisions that went to the shared limit because there was no place.
    pub overflowed: u64,
}

impl Keyed {
    /// Without a key. The `seed` should be unpredictable, so that nobody can
    /// choose a key that shares another's limit.
    ///
    /// # Errors
    ///
    /// As [`Config::validate`].
    pub fn new(config: Config, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        // Few keys need no shards, and a bound of 10 must not become 16.
        let shards = SHARDS.min((config.keys_max as usize).div_ceil(64));
        Ok(Self {
            rule: Rule::new(config.limit)?,
            seed,
            places: config.keys_max as usize / shards,
            shards: (0..shards).map(|_| Mutex::new(Shard::default())).collect(),
            overflow: super::Limiter::new(config.overflow.unwrap_or(config.limit))?,
            overflowed: AtomicU64::new(0),
        })
    }

    /// Asks to let `cost` pass at once for `key`.
    ///
    /// # Errors
    ///
    /// [`Rejected`], after which nothing was taken.
    pub fn admit(&self, now: Instant, key: &[u8], cost: u32) -> Decision {
        let key = self.hash(key);
        {
            let mut shard = lock(&self.shards[(key >> 32) as usize % self.shards.len()]);
            if let Some(state) = shard.place(now, key, &self.rule, self.places) {
                return self.rule.admit(now, state, cost);
            }
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        self.overflow.admit(now, cost).map_err(|rejected| match rejected.reason {
            Reason::Rate => Rejected { reason: Reason::Overflow, ..rejected },
            Reason::TooLarge | Reason::Overflow => rejected,
        })
    }

    /// How full the store is.
    pub fn view(&self) -> View {
        View {
            keys: self.shards.iter().map(|shard| lock(shard).entries.len()).sum(),
            overflowed: self.overflowed.load(Ordering::Relaxed),
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(key);
        hasher.finish()
    }
}

#[derive(Debug, Default)]
struct Shard {
    index: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    entries: Vec<(u64, State)>,
    hand: usize,
}

impl Shard {
    /// The state of `key`, made fresh if there is a place for it.
    fn place(&mut self, now: Instant, key: u64, rule: &Rule, places: usize) -> Option<&mut State> {
        if let Some(&at) = self.index.get(&key) {
            return Some(&mut self.entries[at as usize].1);
        }
        self.sweep(now, rule);
        if self.entries.len() >= places {
            return None;
        }
        self.index.insert(key, self.entries.len() as u32);
        self.entries.push((key, rule.fresh()));
        self.entries.last_mut().map(|entry| &mut entry.1)
    }

    /// Looks at the next few entries and drops those that would not be missed.
    fn sweep(&mut self, now: Instant, rule: &Rule) {
        for _ in 0..SWEEP.min(self.entries.len()) {
            if self.hand >= self.entries.len() {
                self.hand = 0;
            }
            let (key, state) = self.entries[self.hand];
            if !rule.is_fresh(now, &state) {
                self.hand += 1;
                continue;
            }
            self.index.remove(&key);
            self.entries.swap_remove(self.hand);
            if let Some(&(moved, _)) = self.entries.get(self.hand) {
                self.index.insert(moved, self.hand as u32);
            }
        }
    }
}

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
