//! Leases in a table.

use std::time::Duration;

use selvedge_patterns::{
    lease::{Holder, Lease, Lost},
    wall::Wall,
};

use super::{
    Apply, Look, Reader,
    driver::{Db, Row, values},
    topics::check_name,
    writer::Tx,
};
use crate::{
    Error, Subject,
    lease::{Acquire, CheckFence, GetLease, Grant, ListLeases, Release, Renew},
};

fn holder(row: &impl Row, at: usize) -> Result<Holder, Error> {
    Ok(Holder {
        owner: row.get(at)?,
        token: row.get(at + 1)?,
        until: row.get(at + 2)?,
        since: row.get(at + 3)?,
    })
}

fn load(db: &impl Db, resource: &str) -> Result<Lease, Error> {
    let sql = "SELECT owner, token, until, since FROM holders WHERE resource = ?1";
    let holders = db.all(sql, &values![resource], |row| holder(row, 0))?;
    Ok(Lease::restore(holders))
}

fn check_ttl(ttl: Duration) -> Result<(), Error> {
    let allowed = Duration::from_millis(10)..=Duration::from_secs(86_400);
    if allowed.contains(&ttl) {
        Ok(())
    } else {
        Err(Error::invalid("ttl", "must be between 10 ms and 24 h"))
    }
}

fn lost(resource: &str, lost: Lost) -> Error {
    let Lost { presented, current } = lost;
    Error::Lost { resource: resource.to_owned(), presented, current }
}

impl<D: Db> Tx<D> {
    /// When a permit of `resource` ends by itself.
    pub(super) fn lease_wakeup(&self, resource: &str) -> Result<Option<Wall>, Error> {
        Ok(load(&self.db, resource)?.next_wakeup())
    }

    /// Removes permits that ended, a bounded number of them: their tokens are never given again.
    pub(super) fn tidy_leases(&self) -> Result<usize, Error> {
        self.db.count(
            "DELETE FROM holders WHERE (resource, token) IN
                 (SELECT resource, token FROM holders WHERE until <= ?1 ORDER BY until LIMIT 1000)",
            &values![self.now],
        )
    }
}

impl Apply for Acquire {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Grant, Error> {
        check_name("resource", &self.resource)?;
        check_ttl(self.ttl)?;
        if self.owner.is_empty() || self.owner.len() > 200 {
            return Err(Error::invalid("owner", "must be 1 to 200 bytes"));
        }
        if self.permits == 0 {
            return Err(Error::invalid("permits", "must be at least 1"));
        }
        let mut lease = load(&tx.db, &self.resource)?;
        let token = tx.next_number()?;
        let holder =
            lease.acquire(tx.now, &self.owner, self.permits, token, self.ttl).map_err(|held| {
                Error::Held {
                    resource: self.resource.clone(),
                    owner: held.owner,
                    until: held.until,
                }
            })?;
        tx.db.write(
            "DELETE FROM holders WHERE resource = ?1 AND until <= ?2",
            &values![&self.resource, tx.now],
        )?;
        tx.db.write(
            "INSERT INTO holders (resource, token, owner, until, since)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            &values![&self.resource, token, &self.owner, holder.until, holder.since],
        )?;
        tx.tell(Subject::Lease(self.resource));
        Ok(Grant { token, until: holder.until })
    }
}

impl Apply for Renew {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Wall, Error> {
        check_ttl(self.ttl)?;
        let mut lease = load(&tx.db, &self.resource)?;
        let until = lease
            .renew(tx.now, self.token, self.ttl)
            .map_err(|error| lost(&self.resource, error))?;
        tx.db.write(
            "UPDATE holders SET until = ?3 WHERE resource = ?1 AND token = ?2",
            &values![&self.resource, self.token, until],
        )?;
        // It may end sooner than those who watch believe.
        tx.tell(Subject::Lease(self.resource));
        Ok(until)
    }
}

impl Apply for Release {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let mut lease = load(&tx.db, &self.resource)?;
        lease.release(tx.now, self.token).map_err(|error| lost(&self.resource, error))?;
        tx.db.write(
            "DELETE FROM holders WHERE resource = ?1 AND token = ?2",
            &values![&self.resource, self.token],
        )?;
        tx.tell(Subject::Lease(self.resource.clone()));
        tx.released.push(self.resource);
        Ok(())
    }
}

impl Apply for CheckFence {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let lease = load(&tx.db, &self.resource)?;
        lease.check(tx.now, self.token).map_err(|error| lost(&self.resource, error))
    }
}

impl Look for GetLease {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Vec<Holder>, Error> {
        Ok(load(reader.db, &self.resource)?.view(reader.now).cloned().collect())
    }
}

impl Look for ListLeases {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Vec<(String, Holder)>, Error> {
        // Of those that an older program granted nobody knows since when.
        let from = i64::from(self.held_for.is_some());
        let upto = self.held_for.map_or(Wall::MAX, |age| reader.now - age);
        let sql = "SELECT owner, token, until, since, resource FROM holders
             WHERE (resource, token) > (?1, ?2) AND until > ?3 AND since BETWEEN ?4 AND ?5
             ORDER BY resource, token LIMIT ?6";
        let (resource, token) = self.after;
        let max = self.max.min(reader.config.items_max);
        reader.db.all(sql, &values![&resource, token, reader.now, from, upto, max], |row| {
            Ok((row.get(4)?, holder(row, 0)?))
        })
    }
}
