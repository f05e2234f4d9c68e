//! Event streams in tables.

use bytes::Bytes;

use super::{
    Apply, Look, Reader,
    driver::{Db, Row, values},
    leavings::EVENTS,
    record::checksum,
    topics::{ANSWER_BYTES, TIDY_ROWS, check_name},
    writer::Tx,
};
use crate::{
    Error, Subject,
    stream::{
        Append, Appended, DeleteStream, Event, Expected, GetSnapshot, NewEvent, Page, PutSnapshot,
        ReadEvents, ReadStream, Snapshot, TruncateStream, Write,
    },
};

/// The ends of a stream.
#[derive(Clone, Copy)]
struct Ends {
    id: i64,
    /// Lowest version kept.
    first: u64,
    /// Version of the next event.
    next: u64,
}

impl Ends {
    fn last(self) -> Option<u64> {
        (self.next > self.first).then(|| self.next - 1)
    }
}

fn ends(db: &impl Db, stream: &str) -> Result<Option<Ends>, Error> {
    let found =
        db.find("SELECT id, first, next FROM streams WHERE name = ?1", &values![stream], |row| {
            let (first, next) = (row.get(1)?, row.get::<u64>(2)?);
            Ok(Ends { id: row.get(0)?, first, next })
        })?;
    Ok(found)
}

fn live(db: &impl Db, stream: &str) -> Result<(Ends, u64), Error> {
    let ends = ends(db, stream)?;
    let live = ends.and_then(|ends| ends.last().map(|last| (ends, last)));
    live.ok_or_else(|| Error::missing("stream", stream))
}

fn check(stream: &str, expected: Expected, actual: Option<u64>) -> Result<(), Error> {
    let holds = match expected {
        Expected::Any => true,
        Expected::None => actual.is_none(),
        Expected::Exists => actual.is_some(),
        Expected::Exact(version) => actual == Some(version),
    };
    if holds {
        return Ok(());
    }
    let expected = match expected {
        Expected::Any => "anything".to_owned(),
        Expected::None => "no events".to_owned(),
        Expected::Exists => "some events".to_owned(),
        Expected::Exact(version) => version.to_string(),
    };
    Err(Error::WrongVersion { stream: stream.to_owned(), expected, actual })
}

fn event_sum(id: Option<&str>, kind: &str, data: &[u8], metadata: Option<&[u8]>) -> u32 {
    checksum(id, metadata, Some(data)) ^ checksum(Some(kind), None, None)
}

pub(crate) const COLUMNS: &str =
    "e.position, e.version, e.at, e.sum, e.id, e.kind, e.data, e.metadata";

pub(crate) fn event(row: &impl Row, stream: String) -> Result<Event, Error> {
    let event = Event {
        stream,
        position: row.get(0)?,
        version: row.get(1)?,
        at: row.get(2)?,
        id: row.get(4)?,
        kind: row.get(5)?,
        data: row.get::<Bytes>(6)?,
        metadata: row.get::<Option<Bytes>>(7)?,
    };
    let sum = event_sum(event.id.as_deref(), &event.kind, &event.data, event.metadata.as_deref());
    if sum != row.get::<u32>(3)? {
        let what = format!("event {} fails its checksum", event.position);
        return Err(Error::Corrupt { what });
    }
    Ok(event)
}

fn event_bytes(event: &Event) -> usize {
    event.data.len() + event.metadata.as_ref().map_or(0, Bytes::len) + event.kind.len()
}

impl<D: Db> Tx<D> {
    /// Position of the last event ever appended.
    fn last_event(&self) -> Result<u64, Error> {
        let (kept, stored): (Option<u64>, Option<u64>) = self.db.one(
            "SELECT (SELECT max(position) FROM events),
                        (SELECT value FROM meta WHERE key = 'last_event')",
            &[],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        Ok(kept.unwrap_or(0).max(stored.unwrap_or(0)))
    }

    fn remove_events(&self, ends: Ends, before: u64) -> Result<(), Error> {
        // Positions are never used twice, even if the last event goes.
        let last = self.last_event()?;
        self.db.write(
            "INSERT INTO meta (key, value) VALUES ('last_event', ?1)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            &values![last],
        )?;
        // There may be more than one commit can take: none of them is seen from here on.
        if self.remove_events_below(ends.id, before as i64)? >= TIDY_ROWS {
            self.db.write(
                "INSERT INTO leavings (kind, id) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                &values![EVENTS, ends.id],
            )?;
        }
        self.db.write("UPDATE streams SET first = ?2 WHERE id = ?1", &values![ends.id, before])?;
        Ok(())
    }

    fn check_event(&self, event: &NewEvent) -> Result<(), Error> {
        let limit = |what, size, max| {
            if size > max { Err(Error::TooLarge { what, size, max }) } else { Ok(()) }
        };
        limit("an event", event.data.len(), self.config.payload_max)?;
        let metadata = event.metadata.as_ref().map_or(0, Bytes::len);
        limit("the metadata", metadata, self.config.headers_max)?;
        limit("an event's id", event.id.as_ref().map_or(0, String::len), 200)?;
        if event.kind.is_empty() || event.kind.len() > 200 {
            return Err(Error::invalid("type", "must be 1 to 200 bytes"));
        }
        Ok(())
    }

    fn append_one(&self, ends: Ends, position: u64, event: &NewEvent) -> Result<(), Error> {
        let (id, metadata) = (event.id.as_deref(), event.metadata.as_deref());
        let sum = event_sum(id, &event.kind, &event.data, metadata);
        self.db.write(
            "INSERT INTO events (position, stream, version, at, sum, id, kind, data, metadata)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            &values![
                position,
                ends.id,
                ends.next,
                self.now,
                sum,
                id,
                &event.kind,
                &event.data[..],
                metadata,
            ],
        )?;
        Ok(())
    }

    /// Whether exactly these events, by their ids, follow what was expected:
    /// then the answer to an earlier, successful try was lost.
    fn repeated(&self, write: &Write) -> Result<Option<(u64, u64)>, Error> {
        let from = match write.expected {
            // Nothing comes after the last number.
            Expected::Exact(version) => version.checked_add(1),
            Expected::None => Some(0),
            Expected::Any | Expected::Exists => None,
        };
        let Some(from) = from else { return Ok(None) };
        let Some(ends) = ends(&self.db, &write.stream)? else { return Ok(None) };
        if from < ends.first {
            return Ok(None);
        }
        let mut last = None;
        for (version, event) in (from..=u64::MAX).zip(&write.events) {
            let Some(id) = &event.id else { return Ok(None) };
            last = self
                .db
                .find(
                    "SELECT position FROM events WHERE stream = ?1 AND version = ?2 AND id = ?3",
                    &values![ends.id, version, id],
                    |row| row.get(0),
                )?
                .map(|position| (version, position));
            if last.is_none() {
                return Ok(None);
            }
        }
        Ok(last)
    }

    /// The answer given before, if every write of this append was done before.
    fn appended_before(&self, append: &Append) -> Result<Option<Appended>, Error> {
        let (mut versions, mut position) = (Vec::new(), 0);
        for write in append.writes.iter().filter(|write| !write.events.is_empty()) {
            let Some((version, at)) = self.repeated(write)? else { return Ok(None) };
            versions.push(Some(version));
            position = position.max(at);
        }
        if versions.len() != append.writes.len() || versions.is_empty() {
            return Ok(None);
        }
        Ok(Some(Appended { versions, position, duplicate: true }))
    }
}

impl Apply for Append {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Appended, Error> {
        let (size, max) =
            (self.writes.iter().map(|write| write.events.len().max(1)).sum(), tx.config.items_max);
        if size > max {
            return Err(Error::TooLarge { what: "an append", size, max });
        }
        if let Some(before) = tx.appended_before(&self)? {
            return Ok(before);
        }
        let (mut versions, mut position) = (Vec::new(), tx.last_event()?);
        for write in &self.writes {
            check_name("stream", &write.stream)?;
            let found = ends(&tx.db, &write.stream)?;
            check(&write.stream, write.expected, found.and_then(Ends::last))?;
            if write.events.is_empty() {
                versions.push(found.and_then(Ends::last));
                continue;
            }
            let mut ends = match found {
                Some(ends) => ends,
                None => {
                    let sql = "INSERT INTO streams (name, next) VALUES (?1, 0) RETURNING id";
                    let id = tx.db.one(sql, &values![&write.stream], |row| row.get(0))?;
                    Ends { id, first: 0, next: 0 }
                }
            };
            for event in &write.events {
                tx.check_event(event)?;
                position += 1;
                tx.append_one(ends, position, event)?;
                ends.next += 1;
            }
            tx.db.write(
                "UPDATE streams SET next = ?2 WHERE id = ?1",
                &values![ends.id, ends.next],
            )?;
            versions.push(ends.last());
            tx.tell(Subject::Stream(write.stream.clone()));
        }
        if self.writes.iter().any(|write| !write.events.is_empty()) {
            tx.tell(Subject::Events);
        }
        Ok(Appended { versions, position, duplicate: false })
    }
}

impl Apply for TruncateStream {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let (ends, last) = live(&tx.db, &self.stream)?;
        if self.before > last {
            return Err(Error::invalid("before", format!("must be at most {last}")));
        }
        if self.before > ends.first {
            tx.remove_events(ends, self.before)?;
            tx.tell(Subject::Stream(self.stream));
        }
        Ok(())
    }
}

impl Apply for DeleteStream {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let found = ends(&tx.db, &self.stream)?;
        check(&self.stream, self.expected, found.and_then(Ends::last))?;
        let (ends, _) = live(&tx.db, &self.stream)?;
        tx.remove_events(ends, ends.next)?;
        tx.db.write("DELETE FROM snapshots WHERE stream = ?1", &values![ends.id])?;
        tx.tell(Subject::Stream(self.stream));
        Ok(())
    }
}

impl Apply for PutSnapshot {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let (ends, last) = live(&tx.db, &self.stream)?;
        if self.version > last {
            return Err(Error::invalid("version", format!("must be at most {last}")));
        }
        let (size, max) = (self.data.len(), tx.config.payload_max);
        if size > max {
            return Err(Error::TooLarge { what: "a snapshot", size, max });
        }
        tx.db.write(
            "INSERT INTO snapshots (stream, version, schema, sum, data)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (stream) DO UPDATE SET version = excluded.version,
                 schema = excluded.schema, sum = excluded.sum, data = excluded.data",
            &values![
                ends.id,
                self.version,
                &self.schema,
                checksum(Some(&self.schema), None, Some(&self.data)),
                &self.data[..],
            ],
        )?;
        Ok(())
    }
}

impl Look for GetSnapshot {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Option<Snapshot>, Error> {
        let Some(ends) = ends(reader.db, &self.stream)? else { return Ok(None) };
        let found = reader.db.find(
            "SELECT version, data, sum FROM snapshots WHERE stream = ?1 AND schema = ?2",
            &values![ends.id, &self.schema],
            |row| Ok((row.get(0)?, row.get::<Bytes>(1)?, row.get::<u32>(2)?)),
        )?;
        // A damaged snapshot is as good as none: the events say it all.
        let intact =
            found.filter(|(_, data, sum)| checksum(Some(&self.schema), None, Some(data)) == *sum);
        Ok(intact.map(|(version, data, _)| Snapshot { version, data }))
    }
}

impl Look for ReadStream {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Page, Error> {
        let (ends, last) = live(reader.db, &self.stream)?;
        let (compare, order) = if self.backwards { ("<=", "DESC") } else { (">=", "ASC") };
        let sql = format!(
            "SELECT {COLUMNS} FROM events e WHERE e.stream = ?1 AND e.version >= ?2
             AND e.version {compare} ?3 ORDER BY e.version {order} LIMIT ?4"
        );
        let from = i64::try_from(self.from).unwrap_or(i64::MAX);
        let max = self.max.min(reader.config.items_max);
        let step = if self.backwards { -1 } else { 1 };
        let (mut events, mut bytes) = (Vec::new(), 0);
        reader.db.scan(&sql, &values![ends.id, ends.first], from, max, |row| {
            let event = event(row, self.stream.clone())?;
            bytes += event_bytes(&event);
            let next = event.version as i64 + step;
            events.push(event);
            Ok((bytes < ANSWER_BYTES).then_some(next))
        })?;
        Ok(Page { events, last })
    }
}

impl Look for ReadEvents {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Vec<Event>, Error> {
        let sql = format!(
            "SELECT {COLUMNS}, s.name FROM events e JOIN streams s ON s.id = e.stream
             WHERE e.position > ?1 AND e.version >= s.first ORDER BY e.position LIMIT ?2"
        );
        let after = i64::try_from(self.after).unwrap_or(i64::MAX);
        let max = self.max.min(reader.config.items_max);
        let (mut events, mut bytes) = (Vec::new(), 0);
        reader.db.scan(&sql, &[], after, max, |row| {
            let event = event(row, row.get(8)?)?;
            bytes += event_bytes(&event);
            let position = event.position as i64;
            events.push(event);
            Ok((bytes < ANSWER_BYTES).then_some(position))
        })?;
        Ok(events)
    }
}
