//! Leases in a table.

use std::time::Duration;

use rusqlite::{Connection, params};
use selvedge_patterns::{
    lease::{Holder, Lease, Lost},
    wall::Wall,
};

use super::{
    Apply, Look, Reader,
    topics::{check_name, wall},
    writer::Tx,
};
use crate::{
    Error,
    lease::{Acquire, CheckFence, GetLease, Grant, Release, Renew},
};

fn load(conn: &Connection, resource: &str) -> Result<Lease, Error> {
    let mut select =
        conn.prepare_cached("SELECT owner, token, until FROM holders WHERE resource = ?1")?;
    let holders = select.query_map([resource], |row| {
        Ok(Holder {
            owner: row.get(0)?,
            token: row.get::<_, i64>(1)? as u64,
            until: Wall::from_micros(row.get::<_, i64>(2)? as u64),
        })
    })?;
    Ok(Lease::restore(holders.collect::<Result<_, _>>()?))
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

impl Tx {
    /// When a permit of `resource` ends by itself.
    pub(super) fn lease_wakeup(&self, resource: &str) -> Result<Option<Wall>, Error> {
        Ok(load(&self.conn, resource)?.next_wakeup())
    }

    /// Removes permits that ended: their tokens are never given again.
    pub(super) fn tidy_leases(&self) -> Result<usize, Error> {
        let removed = self
            .conn
            .prepare_cached("DELETE FROM holders WHERE until <= ?1")?
            .execute([wall(self.now)])?;
        Ok(removed)
    }
}

impl Apply for Acquire {
    fn apply(self, tx: &mut Tx) -> Result<Grant, Error> {
        check_name("resource", &self.resource)?;
        check_ttl(self.ttl)?;
        if self.owner.is_empty() || self.owner.len() > 200 {
            return Err(Error::invalid("owner", "must be 1 to 200 bytes"));
        }
        if self.permits == 0 {
            return Err(Error::invalid("permits", "must be at least 1"));
        }
        let mut lease = load(&tx.conn, &self.resource)?;
        let token = tx.next_number()?;
        let holder =
            lease.acquire(tx.now, &self.owner, self.permits, token, self.ttl).map_err(|held| {
                Error::Held {
                    resource: self.resource.clone(),
                    owner: held.owner,
                    until: held.until,
                }
            })?;
        tx.conn
            .prepare_cached("DELETE FROM holders WHERE resource = ?1 AND until <= ?2")?
            .execute(params![self.resource, wall(tx.now)])?;
        tx.conn
            .prepare_cached(
                "INSERT INTO holders (resource, token, owner, until) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![self.resource, token as i64, self.owner, wall(holder.until)])?;
        Ok(Grant { token, until: holder.until })
    }
}

impl Apply for Renew {
    fn apply(self, tx: &mut Tx) -> Result<Wall, Error> {
        check_ttl(self.ttl)?;
        let mut lease = load(&tx.conn, &self.resource)?;
        let until = lease
            .renew(tx.now, self.token, self.ttl)
            .map_err(|error| lost(&self.resource, error))?;
        tx.conn
            .prepare_cached("UPDATE holders SET until = ?3 WHERE resource = ?1 AND token = ?2")?
            .execute(params![self.resource, self.token as i64, wall(until)])?;
        Ok(until)
    }
}

impl Apply for Release {
    fn apply(self, tx: &mut Tx) -> Result<(), Error> {
        let mut lease = load(&tx.conn, &self.resource)?;
        lease.release(tx.now, self.token).map_err(|error| lost(&self.resource, error))?;
        tx.conn
            .prepare_cached("DELETE FROM holders WHERE resource = ?1 AND token = ?2")?
            .execute(params![self.resource, self.token as i64])?;
        tx.released.push(self.resource);
        Ok(())
    }
}

impl Apply for CheckFence {
    fn apply(self, tx: &mut Tx) -> Result<(), Error> {
        let lease = load(&tx.conn, &self.resource)?;
        lease.check(tx.now, self.token).map_err(|error| lost(&self.resource, error))
    }
}

impl Look for GetLease {
    fn look(self, reader: &Reader<'_>) -> Result<Vec<Holder>, Error> {
        Ok(load(reader.conn, &self.resource)?.view(reader.now).cloned().collect())
    }
}
