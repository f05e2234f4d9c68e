//! Leases.

use serde::{Deserialize, Serialize};

use super::text::{Span, Time};
use crate::{
    Operation,
    lease::{self, CheckFence, GetLease, Grant, Release, TTL_DEFAULT},
};

/// Asks for a permit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acquire {
    resource: String,
    owner: String,
    #[serde(default = "ttl")]
    ttl: Span,
    #[serde(default = "one")]
    permits: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait: Option<Span>,
}

const fn ttl() -> Span {
    Span(TTL_DEFAULT)
}

const fn one() -> u32 {
    1
}

impl From<lease::Acquire> for Acquire {
    fn from(acquire: lease::Acquire) -> Self {
        let lease::Acquire { resource, owner, ttl, permits, wait } = acquire;
        let wait = (!wait.is_zero()).then_some(Span(wait));
        Self { resource, owner, ttl: Span(ttl), permits, wait }
    }
}

impl From<Acquire> for Operation {
    fn from(given: Acquire) -> Self {
        let Acquire { resource, owner, ttl, permits, wait } = given;
        let wait = wait.map_or_else(Default::default, |it| it.0);
        Self::Acquire(lease::Acquire { resource, owner, ttl: ttl.0, permits, wait })
    }
}

/// A permit that somebody holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    resource: String,
    token: u64,
    /// From now on, where it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<Span>,
}

impl From<lease::Renew> for Held {
    fn from(renew: lease::Renew) -> Self {
        let lease::Renew { resource, token, ttl } = renew;
        Self { resource, token, ttl: Some(Span(ttl)) }
    }
}

impl From<Release> for Held {
    fn from(release: Release) -> Self {
        let Release { resource, token } = release;
        Self { resource, token, ttl: None }
    }
}

impl From<CheckFence> for Held {
    fn from(check: CheckFence) -> Self {
        let CheckFence { resource, token } = check;
        Self { resource, token, ttl: None }
    }
}

impl Held {
    pub(super) fn renew(self) -> Operation {
        let Self { resource, token, ttl } = self;
        let ttl = ttl.map_or(TTL_DEFAULT, |it| it.0);
        Operation::Renew(lease::Renew { resource, token, ttl })
    }

    pub(super) fn release(self) -> Operation {
        Operation::Release(Release { resource: self.resource, token: self.token })
    }

    pub(super) fn check(self) -> Operation {
        Operation::CheckFence(CheckFence { resource: self.resource, token: self.token })
    }
}

/// One resource.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    resource: String,
}

impl From<GetLease> for Named {
    fn from(get: GetLease) -> Self {
        Self { resource: get.resource }
    }
}

impl From<Named> for Operation {
    fn from(given: Named) -> Self {
        Self::GetLease(GetLease { resource: given.resource })
    }
}

/// A permit.
#[derive(Debug, Serialize, Deserialize)]
pub struct Granted {
    token: u64,
    until: Time,
}

impl From<Grant> for Granted {
    fn from(grant: Grant) -> Self {
        Self { token: grant.token, until: Time(grant.until) }
    }
}

impl From<Granted> for Grant {
    fn from(given: Granted) -> Self {
        Self { token: given.token, until: given.until.0 }
    }
}

/// Until when a permit was kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Renewed {
    pub(super) until: Time,
}

/// Who holds a resource.
#[derive(Debug, Serialize, Deserialize)]
pub struct Holders {
    holders: Vec<Holder>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    owner: String,
    token: u64,
    until: Time,
}

impl From<&[lease::Holder]> for Holders {
    fn from(holders: &[lease::Holder]) -> Self {
        let form = |it: &lease::Holder| Holder {
            owner: it.owner.clone(),
            token: it.token,
            until: Time(it.until),
        };
        Self { holders: holders.iter().map(form).collect() }
    }
}

impl From<Holders> for Vec<lease::Holder> {
    fn from(given: Holders) -> Self {
        let holder =
            |it: Holder| lease::Holder { owner: it.owner, token: it.token, until: it.until.0 };
        given.holders.into_iter().map(holder).collect()
    }
}
