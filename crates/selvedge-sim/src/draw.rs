//! Keyed chance: every draw is named by what it is for.
//!
//! A draw depends on (seed, entity, request, attempt, purpose) and on nothing
//! else, so two policies under one seed see the same arrivals, the same
//! demands and the same error coins, however many draws either makes
//! (common random numbers).

use selvedge_patterns::random::{Keyed, Rng};

/// What a draw decides. Part of the key: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    Arrival = 1,
    Thinning,
    Phase,
    Demand,
    Branch,
    Error,
    Cache,
    UserRetry,
    Think,
    Pick,
    Gateway,
    Injected,
    Policy,
    Page,
}

/// The source for one decision about `request` (a luck value) at `entity`.
pub(crate) fn source(entity: u64, request: u64, attempt: u64, purpose: Purpose) -> Keyed {
    Keyed::new(&[entity, request, attempt << 8 | purpose as u64])
}

/// Folds a seed and the number of an entity into the `entity` of [`source`].
pub(crate) fn entity(seed: u64, kind: u64, number: u64) -> u64 {
    Keyed::new(&[seed, kind, number]).next_u64()
}

/// The luck of a child: the same child of the same parent is always equally lucky.
pub(crate) fn child(luck: u64, edge: u64, attempt: u64) -> u64 {
    let mut z = luck
        ^ edge.wrapping_mul(0xD6E8_FEB8_6659_FD93)
        ^ attempt.wrapping_mul(0xA076_1D64_78BD_642F);
    z = (z ^ (z >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    z ^ (z >> 29)
}

/// One draw from Exp(1).
pub(crate) fn exponential(rng: &mut impl Rng) -> f64 {
    -libm::log(1.0 - rng.unit())
}

/// One draw from N(0, 1), by inversion: one uniform each, monotone in it.
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    crate::statistics::normal_quantile((rng.unit() + 0.5 / (1u64 << 53) as f64).min(1.0 - 1e-16))
}
