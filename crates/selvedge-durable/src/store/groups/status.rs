//! Where groups stand.

use selvedge_patterns::{group::Gate, wall::Wall};

use super::{exclusive, fetch, load_cursors, numbers, settings};
use crate::{
    Error,
    group::{GetGroup, ListGroups, Status},
    store::{
        Look, Reader,
        driver::{Db, Row, values},
        record::{self, row_id},
        topics::topic_id,
    },
    topic::PRIORITY_DEFAULT,
};

pub(super) fn status(db: &impl Db, now: Wall, topic: &str, group: &str) -> Result<Status, Error> {
    let (topic_id, id) = numbers(db, topic, group)?;
    let sql = format!("SELECT paused, rate_used, {} FROM groups WHERE id = ?1", settings::COLUMNS);
    let (paused, used, config) =
        db.one(&sql, &values![id], |row| Ok((row.get(0)?, row.get(1)?, settings::read(row, 2)?)))?;
    let active = exclusive::load(db, id)?.filter(|active| active.until > now);
    let throttled = config.rate.and_then(Gate::new).and_then(|mut gate| {
        gate.restore(used);
        gate.closed_until(now)
    });
    let exclusive = config.exclusive.is_some();
    let priorities: bool =
        db.one("SELECT priorities FROM topics WHERE id = ?1", &values![topic_id], |row| {
            row.get(0)
        })?;
    let cursors = load_cursors(db, id)?;
    let (unseen, unseen_at) = unseen(db, topic_id, cursors, priorities)?;
    let (in_flight, waiting, attempts_most, floor): (u64, u64, u32, Option<u64>) = db.one(
        "SELECT count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state <> 0),
             coalesce(max(attempt), 0), min(position) FROM exceptions WHERE grp = ?1",
        &values![id],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    let floor_at = match floor {
        Some(position) => fetch(db, topic_id, id, position)?.map(|message| message.at),
        None => None,
    };
    let dropped =
        db.one("SELECT dropped FROM groups WHERE id = ?1", &values![id], |row| row.get(0))?;
    let dead = db.one(
        "SELECT (SELECT count(*) FROM dead_letters WHERE grp = ?1)
             - (SELECT count(*) FROM dead_letters WHERE grp = ?1 AND redriven = 1)",
        &values![id],
        |row| row.get(0),
    )?;
    Ok(Status {
        topic: topic.to_owned(),
        group: group.to_owned(),
        config,
        paused,
        active: active.filter(|_| exclusive),
        throttled,
        lag: unseen + in_flight + waiting,
        in_flight,
        waiting,
        dead,
        dropped,
        oldest: floor_at.into_iter().chain(unseen_at).min(),
        attempts_most,
    })
}

/// Messages beyond the cursors, and when the first of them entered the log.
fn unseen(
    db: &impl Db,
    topic: i64,
    cursors: [u64; 10],
    priorities: bool,
) -> Result<(u64, Option<Wall>), Error> {
    if priorities {
        let sql = "SELECT count(*), min(at) FROM lanes
             WHERE topic = ?1 AND priority = ?2 AND position >= ?3";
        let (mut count, mut oldest) = (0, None);
        for (lane, cursor) in cursors.iter().enumerate() {
            let (more, first): (u64, Option<Wall>) =
                db.one(sql, &values![topic, lane, *cursor], |row| Ok((row.get(0)?, row.get(1)?)))?;
            count += more;
            oldest = oldest.into_iter().chain(first).min();
        }
        return Ok((count, oldest));
    }
    // Positions are dense, so the ends tell the number (compaction makes it an upper bound).
    let cursor = cursors[usize::from(PRIORITY_DEFAULT)];
    let sql = "SELECT id, at FROM messages WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1";
    let range = values![row_id(topic, cursor), row_id(topic + 1, 0)];
    let Some((first, oldest)) =
        db.find(sql, &range, |row| Ok((record::position(row.get(0)?), row.get(1)?)))?
    else {
        return Ok((0, None));
    };
    let last: i64 =
        db.one("SELECT max(id) FROM messages WHERE id >= ?1 AND id < ?2", &range, |row| {
            row.get(0)
        })?;
    Ok((record::position(last) + 1 - first, oldest))
}

impl Look for GetGroup {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Status, Error> {
        status(reader.db, reader.now, &self.topic, &self.group)
    }
}

impl Look for ListGroups {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Vec<Status>, Error> {
        if let Some(topic) = &self.topic {
            topic_id(reader.db, topic)?;
        }
        let sql = "SELECT t.name, g.name FROM groups g JOIN topics t ON t.id = g.topic
             WHERE t.name = coalesce(?1, t.name) ORDER BY t.name, g.name";
        let names: Vec<(String, String)> =
            reader
                .db
                .all(sql, &values![self.topic.as_deref()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        names
            .into_iter()
            .map(|(topic, group)| status(reader.db, reader.now, &topic, &group))
            .collect()
    }
}
