//! Chance for jitter and for the two choices of a balancer: not for secrets.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};

use selvedge_patterns::random::{Rng, SplitMix64};

/// A number that nobody can foresee.
pub(crate) fn seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

thread_local! {
    static SOURCE: RefCell<SplitMix64> = RefCell::new(SplitMix64::new(seed()));
}

/// This thread's source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadRng;

impl Rng for ThreadRng {
    fn next_u64(&mut self) -> u64 {
        SOURCE.with_borrow_mut(Rng::next_u64)
    }
}
