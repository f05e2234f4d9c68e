//! Leave to be the only one, or one of a few, for a while.

use std::time::Duration;

pub use selvedge_patterns::lease::Holder;
use selvedge_patterns::wall::Wall;

/// How long a permit lasts unless renewed.
pub const TTL_DEFAULT: Duration = Duration::from_secs(15);

/// Asks for a permit.
#[derive(Clone, Debug)]
pub struct Acquire {
    /// The resource: 1 to 200 characters of `A-Z a-z 0-9 . _ - /`.
    pub resource: String,
    /// Who asks: 1 to 200 bytes.
    pub owner: String,
    /// How long it lasts unless renewed: 10 ms to 24 h.
    pub ttl: Duration,
    /// Permits the resource has; 1 makes it a lock. All who ask must agree.
    pub permits: u32,
    /// Waits this long if all are out; not inside a transaction.
    pub wait: Duration,
}

/// A permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Greater than every token before it, of every resource, for ever.
    pub token: u64,
    /// When it ends unless renewed.
    pub until: Wall,
}

/// Keeps a permit for longer.
#[derive(Clone, Debug)]
pub struct Renew {
    /// The resource.
    pub resource: String,
    /// The grant's token.
    pub token: u64,
    /// From now on.
    pub ttl: Duration,
}

/// Gives a permit back.
#[derive(Clone, Debug)]
pub struct Release {
    /// The resource.
    pub resource: String,
    /// The grant's token.
    pub token: u64,
}

/// Fails unless the token is that of a live holder: put it before writes in a
/// transaction, and none of them happens for a holder that has lost its lease.
#[derive(Clone, Debug)]
pub struct CheckFence {
    /// The resource.
    pub resource: String,
    /// The token.
    pub token: u64,
}

/// Every lease that is held, by resource and token.
#[derive(Clone, Debug, Default)]
pub struct ListLeases {
    /// Those after this resource and token.
    pub after: (String, u64),
    /// Only those that were granted at least so long ago.
    pub held_for: Option<Duration>,
    /// At most this many, and at most as many as a request may have.
    pub max: usize,
}

/// Asks who holds a resource.
#[derive(Clone, Debug)]
pub struct GetLease {
    /// The resource.
    pub resource: String,
}
