//! Which consumer of an exclusive group is served, in columns of the group.

use std::{sync::Arc, time::Duration};

use selvedge_patterns::{group::Turn, wall::Wall};

use super::Live;
use crate::{
    Error,
    group::{Active, Leave, Receive},
    store::{
        Apply,
        driver::{Db, Row, values},
        writer::Tx,
    },
};

/// Who was active last.
pub(super) fn load(db: &impl Db, id: i64) -> Result<Option<Active>, Error> {
    let sql = "SELECT active, active_token, active_since, active_until FROM groups WHERE id = ?1";
    db.one(sql, &values![id], |row| {
        let Some(consumer) = row.get::<Option<&str>>(0)? else { return Ok(None) };
        let consumer = Arc::from(consumer);
        let (token, since, until) = (row.get(1)?, row.get(2)?, row.get(3)?);
        Ok(Some(Active { consumer, token, since, until }))
    })
}

/// Writes who is active, if that has changed.
pub(super) fn save(db: &impl Db, live: &mut Live) -> Result<(), Error> {
    let active = live.core.active();
    if live.active.as_ref() == active {
        return Ok(());
    }
    let sql = "UPDATE groups SET active = ?2, active_token = ?3, active_since = ?4,
         active_until = ?5, fence = ?6 WHERE id = ?1";
    let name = active.map(|active| &*active.consumer);
    let token = active.map_or(0, |active| active.token);
    let (since, until) =
        active.map_or((Wall::ZERO, Wall::ZERO), |active| (active.since, active.until));
    db.write(sql, &values![live.id, name, token, since, until, live.fence])?;
    live.active = active.cloned();
    Ok(())
}

/// Whether whoever asks is served.
pub(super) fn may(live: &mut Live, now: Wall, receive: &Receive) -> Result<bool, Error> {
    if live.core.config().exclusive.is_none() {
        return Ok(true);
    }
    let Some(consumer) = &receive.consumer else {
        let problem = "is needed, since the group is exclusive: a name that no other consumer has";
        return Err(Error::invalid("consumer", problem));
    };
    check(consumer)?;
    let token = live.fence + 1;
    let turn = live.core.ask(now, consumer, token);
    if turn == Turn::TakesOver {
        live.fence = token;
    }
    Ok(!matches!(turn, Turn::StandsBy { .. }))
}

fn check(consumer: &str) -> Result<(), Error> {
    if consumer.is_empty() || consumer.len() > 200 {
        return Err(Error::invalid("consumer", "must be 1 to 200 bytes"));
    }
    Ok(())
}

/// Whether somebody at the door would be served.
pub(super) fn served(live: &Live, now: Wall, waits: impl Fn(&str) -> bool) -> bool {
    let active = live.core.active().filter(|active| active.until > now);
    active.is_none_or(|active| waits(&active.consumer))
}

/// When somebody at the door has to be looked at: the active one in time to
/// stay so, if it is there; the others when its time ends.
pub(super) fn wakeup(live: &Live, waits: impl Fn(&str) -> bool, at: Option<Wall>) -> Option<Wall> {
    let active = live.core.active().filter(|active| waits(&active.consumer));
    let renew = active.and_then(|_| live.core.renew_at());
    at.into_iter().chain(renew).min()
}

/// Messages in hand when a group begins or ends to be exclusive are in nobody's hand.
pub(super) fn changed(
    db: &impl Db,
    id: i64,
    before: Option<Duration>,
    after: Option<Duration>,
) -> Result<(), Error> {
    if before.is_some() != after.is_some() {
        let sql = "UPDATE exceptions SET state = 1, until = 0 WHERE grp = ?1 AND state = 0";
        db.write(sql, &values![id])?;
        db.write("UPDATE groups SET active = NULL WHERE id = ?1", &values![id])?;
    }
    Ok(())
}

impl Apply for Leave {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<bool, Error> {
        check(&self.consumer)?;
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let left = live.core.leave(&self.consumer);
        tx.stirred.push(live.topic);
        tx.put_back(live)?;
        Ok(left)
    }
}
