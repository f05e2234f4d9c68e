//! Chance, handed in by the caller.
//!
//! Patterns that draw (jitter, the two choices of a balancer) take `&mut impl
//! Rng`. The proxy gives each worker a [`SplitMix64`]; the simulator gives a
//! [`Keyed`] source per decision, so that changing one policy does not shift
//! the luck of every other (common random numbers).

/// A source of random bits. Not for secrets.
pub trait Rng {
    /// 64 uniformly distributed bits.
    fn next_u64(&mut self) -> u64;

    /// Uniform in `[0, 1)`, with 53 bits.
    fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0..bound`, or 0 if `bound` is 0 (Lemire's multiply-shift).
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

impl<R: Rng + ?Sized> Rng for &mut R {
    fn next_u64(&mut self) -> u64 {
        (**self).next_u64()
    }
}

/// SplitMix64: fast, 64 bits of state, passes BigCrush.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that gives the same sequence for the same `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Rng for SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }
}

/// A counter-based source: the same key always gives the same draws, in
/// whatever order keys are visited.
#[derive(Clone, Debug)]
pub struct Keyed {
    key: u64,
    counter: u64,
}

impl Keyed {
    /// The source for one decision: `parts` are, say, seed, entity, request,
    /// attempt and purpose.
    #[must_use]
    pub fn new(parts: &[u64]) -> Self {
        let mut key = 0x243F_6A88_85A3_08D3;
        for part in parts {
            key = mix(key ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15))
                .wrapping_add(key.rotate_left(23));
        }
        Self { key, counter: 0 }
    }
}

impl Rng for Keyed {
    fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.key ^ mix(self.counter))
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
