//! Leases.

use serde::{Deserialize, Serialize};

use super::text::{Span, Time};
use crate::{
    Operation,
    lease::{self, CheckFence, GetLease, Grant, ListLeases, Release, TTL_DEFAULT},
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

/// A page of all leases.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Those after this resource and token.
    #[serde(default)]
    after: (String, u64),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_for: Option<Span>,
    #[serde(default = "super::page")]
    max: usize,
}

impl From<ListLeases> for List {
    fn from(list: ListLeases) -> Self {
        let ListLeases { after, held_for, max } = list;
        Self { after, held_for: held_for.map(Span), max }
    }
}

impl From<List> for Operation {
    fn from(given: List) -> Self {
        let List { after, held_for, max } = given;
        Self::ListLeases(ListLeases { after, held_for: held_for.map(|it| it.0), max })
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

/// Who holds what.
#[derive(Debug, Serialize, Deserialize)]
pub struct Leases {
    leases: Vec<Lease>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Lease {
    resource: String,
    #[serde(flatten)]
    holder: Holder,
}

#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    owner: String,
    token: u64,
    since: Time,
    until: Time,
}

impl From<&lease::Holder> for Holder {
    fn from(it: &lease::Holder) -> Self {
        let (since, until) = (Time(it.since), Time(it.until));
        Self { owner: it.owner.clone(), token: it.token, since, until }
    }
}

impl From<Holder> for lease::Holder {
    fn from(it: Holder) -> Self {
        Self { owner: it.owner, token: it.token, since: it.since.0, until: it.until.0 }
    }
}

impl From<&[lease::Holder]> for Holders {
    fn from(holders: &[lease::Holder]) -> Self {
        Self { holders: holders.iter().map(Holder::from).collect() }
    }
}

impl From<Holders> for Vec<lease::Holder> {
    fn from(given: Holders) -> Self {
        given.holders.into_iter().map(Into::into).collect()
    }
}

impl From<&[(String, lease::Holder)]> for Leases {
    fn from(leases: &[(String, lease::Holder)]) -> Self {
        let lease = |(resource, holder): &(String, lease::Holder)| Lease {
            resource: resource.clone(),
            holder: holder.into(),
        };
        Self { leases: leases.iter().map(lease).collect() }
    }
}

impl From<Leases> for Vec<(String, lease::Holder)> {
    fn from(given: Leases) -> Self {
        given.leases.into_iter().map(|it| (it.resource, it.holder.into())).collect()
    }
}
