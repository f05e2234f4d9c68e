//! Topics in tables.

use std::{collections::HashMap, time::Duration};

use selvedge_patterns::wall::Wall;

use super::{
    Apply, Look, Reader, collecting,
    driver::{Db, Row, values},
    record::{self, checksum, encode_headers, row_id},
    schemas,
    writer::Tx,
};
use crate::{
    Error, Operation,
    topic::{
        CancelDelayed, DeleteTopic, From, GetTopic, ListTopics, Message, NewMessage,
        PRIORITY_DEFAULT, Place, Publish, Published, PutTopic, ReadTopic, Settings, Topic,
    },
};

mod dedupe;

/// The furthest a message can be put off.
const DELAY_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Bytes of one answer that reads messages.
pub(super) const ANSWER_BYTES: usize = 4 << 20;
/// Rows that one round of tidying removes.
pub(super) const TIDY_ROWS: usize = 1000;
/// Topics that one round of tidying looks at.
const TIDY_TOPICS: usize = 100;
/// Delayed messages that one commit takes into the log.
const DELAYED_ROWS: usize = 1000;

/// The end of a log, as the writer knows it.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) id: i64,
    pub(super) settings: Settings,
    /// The position that the next message gets.
    pub(super) next: u64,
    /// Bytes ever appended.
    total: u64,
    last_at: Wall,
    /// The number of the dedupe id that was remembered last, once it is known.
    pub(super) dedupe_last: Option<u64>,
}

/// The topics that were used since the start or the last rollback.
#[derive(Default)]
pub(super) struct Topics(HashMap<String, Live>, Tidied);

/// The name up to which the round of tidying at hand has come.
#[derive(Default)]
struct Tidied(String);

impl Topics {
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

const SETTINGS: &str = "retention_age, retention_bytes, retain_unconsumed, compact, compact_lag, \
     tombstone_for, priorities, ageing, dedupe_window, relaxed, collect, dedupe_max";

fn settings(row: &impl Row, at: usize) -> Result<Settings, Error> {
    Ok(Settings {
        retention_age: row.get(at)?,
        retention_bytes: row.get(at + 1)?,
        retain_unconsumed: row.get(at + 2)?,
        compact: row.get(at + 3)?,
        compact_lag: row.get(at + 4)?,
        tombstone_for: row.get(at + 5)?,
        priorities: row.get(at + 6)?,
        ageing: row.get(at + 7)?,
        dedupe_window: row.get(at + 8)?,
        relaxed: row.get(at + 9)?,
        collect: collecting::stored(row.get(at + 10)?)?,
        dedupe_max: row.get(at + 11)?,
        schema: None,
    })
}

pub(super) fn check_name(field: &'static str, name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if name.is_empty() || name.len() > 200 || !name.chars().all(allowed) {
        let problem = "must be 1 to 200 characters of `A-Z a-z 0-9 . _ - /`";
        return Err(Error::invalid(field, problem));
    }
    Ok(())
}

fn load(db: &impl Db, name: &str) -> Result<Live, Error> {
    let sql = format!("SELECT id, head, total, last_at, {SETTINGS} FROM topics WHERE name = ?1");
    let found = db.find(&sql, &values![name], |row| {
        Ok(Live {
            id: row.get(0)?,
            next: row.get(1)?,
            total: row.get(2)?,
            last_at: row.get(3)?,
            settings: settings(row, 4)?,
            dedupe_last: None,
        })
    })?;
    let mut live = found.ok_or_else(|| Error::missing("topic", name))?;
    live.settings.schema = schemas::stored(db, live.id)?;
    let last: Option<(i64, Wall, u64)> = db.find(
        "SELECT id, at, total FROM messages WHERE id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT 1",
        &values![row_id(live.id, 0), row_id(live.id + 1, 0)],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if let Some((id, at, total)) = last {
        live.next = live.next.max(record::position(id) + 1);
        live.last_at = live.last_at.max(at);
        live.total = live.total.max(total);
    }
    Ok(live)
}

pub(super) fn topic_id(db: &impl Db, name: &str) -> Result<i64, Error> {
    db.find("SELECT id FROM topics WHERE name = ?1", &values![name], |row| row.get(0))?
        .ok_or_else(|| Error::missing("topic", name))
}

/// The first message at or after `from`: its position, time and running total.
fn first_from(db: &impl Db, topic: i64, from: u64) -> Result<Option<(u64, Wall, u64)>, Error> {
    let found = db.find(
        "SELECT id, at, total FROM messages WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1",
        &values![row_id(topic, from), row_id(topic + 1, 0)],
        |row| Ok((record::position(row.get(0)?), row.get(1)?, row.get(2)?)),
    )?;
    Ok(found)
}

/// The lowest position below `next` at which `holds`, which must hold from
/// there on; `next` if it holds nowhere. About 43 look-ups for any log.
fn search(
    db: &impl Db,
    topic: i64,
    next: u64,
    holds: impl Fn(Wall, u64) -> bool,
) -> Result<u64, Error> {
    let (mut low, mut high) = (1, next);
    while low < high {
        let middle = low + (high - low) / 2;
        match first_from(db, topic, middle)? {
            Some((_, at, total)) if !holds(at, total) => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// Where `from` is in the log of `topic`.
pub(super) fn resolve(db: &impl Db, live: (i64, u64), from: From) -> Result<u64, Error> {
    let (topic, next) = live;
    match from {
        From::Position(position) if position == 0 || position > next => {
            Err(Error::invalid("position", format!("must be between 1 and {next}")))
        }
        From::Position(position) => Ok(position),
        From::Next => Ok(next),
        From::First => Ok(first_from(db, topic, 0)?.map_or(next, |(position, ..)| position)),
        From::Time(time) => search(db, topic, next, |at, _| at >= time),
    }
}

fn describe(db: &impl Db, now: Wall, name: &str) -> Result<Topic, Error> {
    let live = load(db, name)?;
    let first = first_from(db, live.id, 0)?;
    let mut bytes = 0;
    if let Some((position, _, total)) = first {
        let size: u64 = db.one(
            "SELECT coalesce(octet_length(key), 0) + coalesce(length(headers), 0)
                    + coalesce(length(payload), 0) FROM messages WHERE id = ?1",
            &values![row_id(live.id, position)],
            |row| row.get(0),
        )?;
        bytes = live.total + size - total;
    }
    let delayed =
        db.one("SELECT count(*) FROM delayed WHERE topic = ?1", &values![live.id], |row| {
            row.get(0)
        })?;
    let dedupe_since = dedupe::cut_short(db, live.id, &live.settings, now)?;
    Ok(Topic {
        dedupe_since,
        name: name.to_owned(),
        settings: live.settings,
        first: first.map_or(live.next, |(position, ..)| position),
        next: live.next,
        bytes,
        delayed,
    })
}

impl<D: Db> Tx<D> {
    pub(super) fn topic(&mut self, name: &str) -> Result<&mut Live, Error> {
        if !self.topics.0.contains_key(name) {
            let mut live = load(&self.db, name)?;
            self.schemas.share(live.id, &mut live.settings);
            self.topics.0.insert(name.to_owned(), live);
        }
        self.topics.0.get_mut(name).ok_or_else(|| Error::missing("topic", name))
    }

    pub(super) fn check_message(
        &self,
        settings: &Settings,
        message: &NewMessage,
    ) -> Result<(), Error> {
        let limit = |what, size, max| {
            if size > max { Err(Error::TooLarge { what, size, max }) } else { Ok(()) }
        };
        let payload = message.payload.as_ref().map_or(0, bytes::Bytes::len);
        limit("a payload", payload, self.config.payload_max)?;
        let headers = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        limit("the headers", headers, self.config.headers_max)?;
        limit("a key", message.key.as_ref().map_or(0, String::len), 1024)?;
        limit("a dedupe id", message.dedupe_id.as_ref().map_or(0, String::len), 1024)?;
        if message.payload.is_none() && message.key.is_none() {
            return Err(Error::invalid("key", "is needed where there is no payload"));
        }
        schemas::check(settings, message)?;
        if settings.compact && message.key.is_none() {
            return Err(Error::invalid("key", "is needed in a compacted topic"));
        }
        match message.priority {
            Some(priority) if priority > 9 => {
                Err(Error::invalid("priority", "must be between 0 and 9"))
            }
            Some(_) if !settings.priorities => {
                Err(Error::invalid("priority", "needs a topic with `priorities`"))
            }
            _ => Ok(()),
        }?;
        match message.deliver_at {
            Some(at) if at > self.now + DELAY_MAX => {
                Err(Error::invalid("deliver_at", "must be at most a year ahead"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn publish_one(
        &mut self,
        topic: &str,
        message: &NewMessage,
    ) -> Result<Published, Error> {
        let settings = self.topic(topic)?.settings.clone();
        let id = self.topic(topic)?.id;
        self.check_message(&settings, message)?;
        if let Some(dedupe) = &message.dedupe_id
            && let Some(place) = self.remembered(topic, dedupe)?
        {
            return Ok(Published { place: place_of(place), duplicate: true });
        }
        let place = match message.deliver_at {
            Some(at) if at > self.now => Place::Delayed(self.delay(id, at, message, None)?),
            _ => Place::Log(self.append(topic, message)?),
        };
        if let Some(dedupe) = &message.dedupe_id {
            let place = match place {
                Place::Log(position) => position as i64,
                Place::Delayed(number) => -(number as i64),
            };
            self.remember(topic, dedupe, place)?;
        }
        Ok(Published { place, duplicate: false })
    }

    /// Whether this changes the store with one statement, if it does at all: a
    /// message at the end of a log that keeps nothing else beside it.
    pub(super) fn is_one_statement(&mut self, operations: &[Operation]) -> bool {
        let [Operation::Publish(Publish { topic, messages })] = operations else { return false };
        let [message] = &messages[..] else { return false };
        let plain = message.dedupe_id.is_none() && message.deliver_at.is_none();
        plain
            && self.topic(topic).is_ok_and(|live| {
                let Settings { priorities, compact, .. } = live.settings;
                !priorities && !compact
            })
            && self.is_collected_by_none(topic)
    }

    /// Puts a message at the end of the log, and where it is collected.
    pub(super) fn append(&mut self, topic: &str, message: &NewMessage) -> Result<u64, Error> {
        let position = self.put_in_log(topic, message)?;
        self.collect(topic, position, message)?;
        Ok(position)
    }

    /// Puts a message at the end of this log and no other.
    pub(super) fn put_in_log(&mut self, topic: &str, message: &NewMessage) -> Result<u64, Error> {
        let now = self.now;
        let live = self.topic(topic)?;
        let headers = encode_headers(&message.headers);
        let key = message.key.as_deref();
        let payload = message.payload.as_deref();
        let size = key.map_or(0, str::len)
            + headers.as_ref().map_or(0, Vec::len)
            + payload.map_or(0, <[u8]>::len);
        let (id, position) = (live.id, live.next);
        // Search by time needs times that never fall.
        let at = now.max(live.last_at);
        live.next += 1;
        live.total += size as u64;
        live.last_at = at;
        let total = live.total;
        let (priorities, compact) = (live.settings.priorities, live.settings.compact);
        let priority = message.priority.unwrap_or(PRIORITY_DEFAULT);
        let sum = checksum(key, headers.as_deref(), payload);
        self.db.write(
            "INSERT INTO messages (id, at, total, sum, priority, key, headers, payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            &values![
                row_id(id, position),
                at,
                total,
                sum,
                priority,
                key,
                headers.as_deref(),
                payload
            ],
        )?;
        if priorities {
            self.db.write(
                "INSERT INTO lanes (topic, priority, position, at) VALUES (?1, ?2, ?3, ?4)",
                &values![id, priority, position, at],
            )?;
        }
        if compact {
            self.supersede(topic, id, position, message)?;
        }
        if self.stirred.last() != Some(&id) {
            self.stirred.push(id);
        }
        self.tell_topic(topic);
        Ok(position)
    }

    /// In a compacted topic the message before it of its key is to go.
    fn supersede(
        &mut self,
        topic: &str,
        id: i64,
        position: u64,
        message: &NewMessage,
    ) -> Result<(), Error> {
        let settings = self.topic(topic)?.settings.clone();
        let before: Option<i64> = self.db.find(
            "SELECT position FROM latest WHERE topic = ?1 AND key = ?2",
            &values![id, message.key.as_deref()],
            |row| row.get(0),
        )?;
        let retire = |position: i64, after: Duration| {
            self.db.write(
                "INSERT INTO superseded (topic, due, position) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
                &values![id, self.now + after, position],
            )
        };
        if let Some(before) = before {
            retire(before, settings.compact_lag)?;
        }
        if message.payload.is_none() {
            retire(position as i64, settings.tombstone_for)?;
        }
        self.db.write(
            "INSERT INTO latest (topic, key, position) VALUES (?1, ?2, ?3)
                 ON CONFLICT (topic, key) DO UPDATE SET position = excluded.position",
            &values![id, message.key.as_deref(), position],
        )?;
        Ok(())
    }

    /// Keeps a message outside the log until it is due.
    pub(super) fn delay(
        &mut self,
        topic: i64,
        due: Wall,
        message: &NewMessage,
        name: Option<&str>,
    ) -> Result<u64, Error> {
        let headers = encode_headers(&message.headers);
        let sum = checksum(message.key.as_deref(), headers.as_deref(), message.payload.as_deref());
        let priority = message.priority.unwrap_or(PRIORITY_DEFAULT);
        let number = self.db.one(
            "INSERT INTO delayed (topic, due, name, sum, priority, key, headers, payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING number",
            &values![
                topic,
                due,
                name,
                sum,
                priority,
                message.key.as_deref(),
                headers.as_deref(),
                message.payload.as_deref()
            ],
            |row| row.get(0),
        )?;
        self.due_at(due);
        Ok(number)
    }

    /// Takes delayed messages that are due into their logs, oldest first.
    pub(super) fn deliver_delayed(&mut self) -> Result<(), Error> {
        let due: Vec<(i64, Option<String>, Result<Message, Error>)> = {
            let sql = format!(
                "SELECT d.number, t.name, d.due, {}
                 FROM delayed d JOIN topics t ON t.id = d.topic
                 WHERE d.due <= ?1 ORDER BY d.due, d.number LIMIT {DELAYED_ROWS}",
                "d.sum, d.priority, d.key, d.headers, d.payload"
            );
            self.db.all(&sql, &values![self.now], |row| {
                Ok((row.get(0)?, row.get(1)?, record::message(row, 0, 2)))
            })?
        };
        for (number, topic, message) in due {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    // One damaged message must not hold up all others.
                    tracing::error!(number, %error, "a delayed message is put off");
                    self.db.write(
                        "UPDATE delayed SET due = ?2 WHERE number = ?1",
                        &values![number, self.now + Duration::from_secs(3600)],
                    )?;
                    continue;
                }
            };
            if let Some(topic) = topic {
                let priority = self.topic(&topic)?.settings.priorities.then_some(message.priority);
                let Message { key, headers, payload, .. } = message;
                let message =
                    NewMessage { key, headers, payload, priority, ..NewMessage::default() };
                self.append(&topic, &message)?;
            }
            self.db.write("DELETE FROM delayed WHERE number = ?1", &values![number])?;
        }
        Ok(())
    }

    /// Reads from what is stored when something is due next.
    pub(super) fn derive_due(&self) -> Result<Option<Wall>, Error> {
        let due: Option<Wall> =
            self.db.one("SELECT min(due) FROM delayed", &[], |row| row.get(0))?;
        Ok(due.into_iter().chain(self.schedule_due()?).min())
    }

    /// Removes a bounded number of rows that retention, compaction, dedupe
    /// windows and deleted topics have left; whether there are more.
    pub(super) fn tidy(&mut self) -> Result<bool, Error> {
        let sql =
            format!("SELECT name FROM topics WHERE name > ?1 ORDER BY name LIMIT {TIDY_TOPICS}");
        let names: Vec<String> = self.db.all(&sql, &values![&self.topics.1.0], |row| row.get(0))?;
        let mut more = false;
        if self.topics.1.0.is_empty() {
            more |= self.tidy_deleted()? | self.tidy_leavings()?;
            more |= self.tidy_state()? + self.tidy_leases()? + self.tidy_letters()? >= TIDY_ROWS;
        }
        let mut rows = false;
        for name in &names {
            rows |= self.tidy_topic(name)?;
        }
        // Those that have more to remove come again before the next ones.
        if !rows {
            let last = names.last().filter(|_| names.len() == TIDY_TOPICS);
            more |= last.is_some();
            self.topics.1.0 = last.cloned().unwrap_or_default();
        }
        Ok(more | rows)
    }

    fn tidy_topic(&mut self, name: &str) -> Result<bool, Error> {
        let now = self.now;
        let live = self.topic(name)?.clone();
        let Live { id, settings, next, total, .. } = &live;
        let (id, next, total) = (*id, *next, *total);
        let (mut keep_from, first) = (1, first_from(&self.db, id, 0)?);
        // A search only where its answer is not the first message.
        if let (Some(age), Some((_, at, _))) = (settings.retention_age, first)
            && at + age <= now
        {
            keep_from = search(&self.db, id, next, |at, _| at + age > now)?;
        }
        if let (Some(bytes), Some((_, _, upto))) = (settings.retention_bytes, first)
            && upto + bytes < total
        {
            // `total` counts the message itself, so this keeps at least `bytes`.
            let by_size = search(&self.db, id, next, |_, upto| upto + bytes >= total)?;
            keep_from = keep_from.max(by_size);
        }
        if settings.retain_unconsumed {
            keep_from = keep_from.min(self.lowest_unsettled(id, next)?);
        }
        let mut removed = self.expire(name, &live, keep_from)?;
        removed += self.tidy_dedupe(name)?;
        if settings.compact {
            removed += self.compact(id)?;
        }
        Ok(removed >= TIDY_ROWS)
    }

    /// Removes messages below `keep_from`, at most `TIDY_ROWS` of them.
    fn expire(&self, name: &str, live: &Live, keep_from: u64) -> Result<usize, Error> {
        let Some((first, ..)) = first_from(&self.db, live.id, 0)? else { return Ok(0) };
        if first >= keep_from {
            return Ok(0);
        }
        let end = keep_from.min(first + TIDY_ROWS as u64);
        // Positions and totals are never used twice, even if nothing is left.
        self.db.write(
            "UPDATE topics SET head = ?2, total = ?3, last_at = ?4 WHERE name = ?1",
            &values![name, live.next, live.total, live.last_at],
        )?;
        let removed = self.db.count(
            "DELETE FROM messages WHERE id >= ?1 AND id < ?2",
            &values![row_id(live.id, first), row_id(live.id, end)],
        )?;
        if live.settings.priorities {
            // Lane by lane, or every message of the topic is looked at each time.
            for lane in 0..=9_u8 {
                self.db.write(
                    "DELETE FROM lanes WHERE topic = ?1 AND priority = ?2 AND position < ?3",
                    &values![live.id, lane, end],
                )?;
            }
        }
        Ok(removed)
    }

    fn compact(&self, id: i64) -> Result<usize, Error> {
        let due: Vec<(i64, i64)> = {
            let sql = format!(
                "SELECT due, position FROM superseded WHERE topic = ?1 AND due <= ?2 LIMIT {TIDY_ROWS}"
            );
            self.db.all(&sql, &values![id, self.now], |row| Ok((row.get(0)?, row.get(1)?)))?
        };
        for (due, position) in &due {
            // The end of the log stays: its position is how the next one is known.
            let sql = "DELETE FROM messages WHERE id = ?1
                 AND id < (SELECT max(id) FROM messages WHERE id < ?2)";
            self.db.write(sql, &values![row_id(id, *position as u64), row_id(id + 1, 0)])?;
            self.db.write(
                "DELETE FROM latest WHERE topic = ?1 AND position = ?2",
                &values![id, *position],
            )?;
            self.db.write(
                "DELETE FROM superseded WHERE topic = ?1 AND due = ?2 AND position = ?3",
                &values![id, *due, *position],
            )?;
        }
        Ok(due.len())
    }
}

fn place_of(place: i64) -> Place {
    if place < 0 { Place::Delayed(place.unsigned_abs()) } else { Place::Log(place as u64) }
}

impl Apply for PutTopic {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Topic, Error> {
        check_name("topic", &self.name)?;
        self.settings.validate()?;
        let existing = match tx.topic(&self.name) {
            Ok(live) => Some(live.settings.clone()),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let fixed =
            |difference| Error::Exists { kind: "topic", name: self.name.clone(), difference };
        let s = &self.settings;
        match &existing {
            Some(old) if old.priorities != s.priorities => return Err(fixed("`priorities`")),
            Some(old) if old.compact != s.compact => return Err(fixed("`compact`")),
            _ => {}
        }
        if !s.collect.is_empty() {
            tx.room_for_collector(&self.name)?;
        }
        // An upsert would use up an id each time, and there are only so many.
        let sql = if existing.is_some() {
            format!(
                "UPDATE topics SET ({SETTINGS}) = (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
                 WHERE name = ?1"
            )
        } else {
            format!(
                "INSERT INTO topics (name, {SETTINGS})
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
            )
        };
        tx.db.write(
            &sql,
            &values![
                &self.name,
                s.retention_age,
                s.retention_bytes,
                s.retain_unconsumed,
                s.compact,
                s.compact_lag,
                s.tombstone_for,
                s.priorities,
                s.ageing,
                s.dedupe_window,
                s.relaxed,
                collecting::text(&s.collect).as_deref(),
                s.dedupe_max,
            ],
        )?;
        tx.put_schema(&self.name, s.schema.as_deref())?;
        tx.topics.0.remove(&self.name);
        tx.collectors.forget();
        tx.tell_topic(&self.name);
        describe(&tx.db, tx.now, &self.name)
    }
}

impl Apply for DeleteTopic {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let id = tx.topic(&self.name)?.id;
        tx.drop_groups(id)?;
        tx.db.write("DELETE FROM schemas WHERE topic = ?1", &values![id])?;
        tx.db.write("UPDATE topics SET name = NULL WHERE id = ?1", &values![id])?;
        tx.topics.0.remove(&self.name);
        tx.collectors.forget();
        tx.tell_topic(&self.name);
        tx.stirred.push(id);
        Ok(())
    }
}

impl Apply for Publish {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Vec<Published>, Error> {
        let (size, max) = (self.messages.len(), tx.config.items_max);
        if size > max {
            return Err(Error::TooLarge { what: "a batch", size, max });
        }
        let publish = |(index, message)| {
            tx.publish_one(&self.topic, message).map_err(|error| error.of_message(index))
        };
        self.messages.iter().enumerate().map(publish).collect()
    }
}

impl Apply for CancelDelayed {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let id = tx.topic(&self.topic)?.id;
        let removed = tx.db.count(
            "DELETE FROM delayed WHERE topic = ?1 AND number = ?2",
            &values![id, self.number],
        )?;
        if removed == 0 {
            return Err(Error::missing("delayed message", &self.number.to_string()));
        }
        Ok(())
    }
}

impl Look for GetTopic {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Topic, Error> {
        describe(reader.db, reader.now, &self.name)
    }
}

impl Look for ListTopics {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Vec<Topic>, Error> {
        let sql = "SELECT name FROM topics WHERE name IS NOT NULL ORDER BY name";
        let names: Vec<String> = reader.db.all(sql, &[], |row| row.get(0))?;
        names.iter().map(|name| describe(reader.db, reader.now, name)).collect()
    }
}

impl Look for ReadTopic {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Vec<Message>, Error> {
        let live = load(reader.db, &self.topic)?;
        let from = resolve(reader.db, (live.id, live.next), self.from)?;
        let max = self.max.min(reader.config.items_max);
        let sql = format!(
            "SELECT id, {} FROM messages WHERE id < ?1 AND id >= ?2 ORDER BY id LIMIT ?3",
            record::COLUMNS
        );
        let (mut messages, mut bytes) = (Vec::new(), 0);
        let end = values![row_id(live.id + 1, 0)];
        reader.db.scan(&sql, &end, row_id(live.id, from), max, |row| {
            let id = row.get(0)?;
            let message = record::message(row, record::position(id), 1)?;
            bytes += record::message_bytes(&message);
            messages.push(message);
            Ok((bytes < ANSWER_BYTES).then_some(id + 1))
        })?;
        Ok(messages)
    }
}
