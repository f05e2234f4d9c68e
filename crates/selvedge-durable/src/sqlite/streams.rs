//! Event streams in tables.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use selvedge_patterns::wall::Wall;

use super::{
    Apply, Look, Reader,
    record::checksum,
    topics::{ANSWER_BYTES, check_name, wall},
    writer::Tx,
};
use crate::{
    Error,
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

fn ends(conn: &Connection, stream: &str) -> Result<Option<Ends>, Error> {
    let found = conn
        .prepare_cached("SELECT id, first, next FROM streams WHERE name = ?1")?
        .query_row([stream], |row| {
            let (first, next) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
            Ok(Ends { id: row.get(0)?, first, next })
        })
        .optional()?;
    Ok(found)
}

fn live(conn: &Connection, stream: &str) -> Result<(Ends, u64), Error> {
    let ends = ends(conn, stream)?;
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

const COLUMNS: &str = "e.position, e.version, e.at, e.sum, e.id, e.kind, e.data, e.metadata";

fn event(row: &Row<'_>, stream: String) -> Result<Event, Error> {
    let event = Event {
        stream,
        position: row.get::<_, i64>(0)? as u64,
        version: row.get::<_, i64>(1)? as u64,
        at: Wall::from_micros(row.get::<_, i64>(2)? as u64),
        id: row.get(4)?,
        kind: row.get(5)?,
        data: Bytes::from(row.get::<_, Vec<u8>>(6)?),
        metadata: row.get::<_, Option<Vec<u8>>>(7)?.map(Bytes::from),
    };
    let sum = event_sum(event.id.as_deref(), &event.kind, &event.data, event.metadata.as_deref());
    if sum != row.get::<_, u32>(3)? {
        let what = format!("event {} fails its checksum", event.position);
        return Err(Error::Corrupt { what });
    }
    Ok(event)
}

fn event_bytes(event: &Event) -> usize {
    event.data.len() + event.metadata.as_ref().map_or(0, Bytes::len) + event.kind.len()
}

impl Tx {
    /// Position of the last event ever appended.
    fn last_event(&self) -> Result<u64, Error> {
        let (kept, stored): (Option<i64>, Option<i64>) = self
            .conn
            .prepare_cached(
                "SELECT (SELECT max(position) FROM events),
                        (SELECT value FROM meta WHERE key = 'last_event')",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(kept.unwrap_or(0).max(stored.unwrap_or(0)) as u64)
    }

    fn remove_events(&self, ends: Ends, before: u64) -> Result<(), Error> {
        // Positions are never used twice, even if the last event goes.
        let last = self.last_event()?;
        self.conn.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES ('last_event', ?1)",
            [last as i64],
        )?;
        self.conn.execute(
            "DELETE FROM events WHERE stream = ?1 AND version < ?2",
            params![ends.id, before as i64],
        )?;
        self.conn.execute(
            "UPDATE streams SET first = ?2 WHERE id = ?1",
            params![ends.id, before as i64],
        )?;
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
        self.conn
            .prepare_cached(
                "INSERT INTO events (position, stream, version, at, sum, id, kind, data, metadata)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                position as i64,
                ends.id,
                ends.next as i64,
                wall(self.now),
                sum,
                id,
                event.kind,
                &event.data[..],
                metadata,
            ])?;
        Ok(())
    }

    /// Whether exactly these events, by their ids, follow what was expected:
    /// then the answer to an earlier, successful try was lost.
    fn repeated(&self, write: &Write) -> Result<Option<(u64, u64)>, Error> {
        let from = match write.expected {
            Expected::Exact(version) => version + 1,
            Expected::None => 0,
            Expected::Any | Expected::Exists => return Ok(None),
        };
        let Some(ends) = ends(&self.conn, &write.stream)? else { return Ok(None) };
        let mut last = None;
        for (version, event) in (from..).zip(&write.events) {
            let Some(id) = &event.id else { return Ok(None) };
            last = self
                .conn
                .prepare_cached(
                    "SELECT position FROM events WHERE stream = ?1 AND version = ?2 AND id = ?3",
                )?
                .query_row(params![ends.id, version as i64, id], |row| row.get::<_, i64>(0))
                .optional()?
                .map(|position| (version, position as u64));
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
    fn apply(self, tx: &mut Tx) -> Result<Appended, Error> {
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
            let found = ends(&tx.conn, &write.stream)?;
            check(&write.stream, write.expected, found.and_then(Ends::last))?;
            if write.events.is_empty() {
                versions.push(found.and_then(Ends::last));
                continue;
            }
            let mut ends = match found {
                Some(ends) => ends,
                None => {
                    tx.conn
                        .prepare_cached("INSERT INTO streams (name, next) VALUES (?1, 0)")?
                        .execute([&write.stream])?;
                    Ends { id: tx.conn.last_insert_rowid(), first: 0, next: 0 }
                }
            };
            for event in &write.events {
                tx.check_event(event)?;
                position += 1;
                tx.append_one(ends, position, event)?;
                ends.next += 1;
            }
            tx.conn
                .prepare_cached("UPDATE streams SET next = ?2 WHERE id = ?1")?
                .execute(params![ends.id, ends.next as i64])?;
            versions.push(ends.last());
        }
        Ok(Appended { versions, position, duplicate: false })
    }
}

impl Apply for TruncateStream {
    fn apply(self, tx: &mut Tx) -> Result<(), Error> {
        let (ends, last) = live(&tx.conn, &self.stream)?;
        if self.before > last {
            return Err(Error::invalid("before", format!("must be at most {last}")));
        }
        if self.before > ends.first {
            tx.remove_events(ends, self.before)?;
        }
        Ok(())
    }
}

impl Apply for DeleteStream {
    fn apply(self, tx: &mut Tx) -> Result<(), Error> {
        let found = ends(&tx.conn, &self.stream)?;
        check(&self.stream, self.expected, found.and_then(Ends::last))?;
        let (ends, _) = live(&tx.conn, &self.stream)?;
        tx.remove_events(ends, ends.next)?;
        tx.conn.execute("DELETE FROM snapshots WHERE stream = ?1", [ends.id])?;
        Ok(())
    }
}

impl Apply for PutSnapshot {
    fn apply(self, tx: &mut Tx) -> Result<(), Error> {
        let (ends, last) = live(&tx.conn, &self.stream)?;
        if self.version > last {
            return Err(Error::invalid("version", format!("must be at most {last}")));
        }
        let (size, max) = (self.data.len(), tx.config.payload_max);
        if size > max {
            return Err(Error::TooLarge { what: "a snapshot", size, max });
        }
        tx.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO snapshots (stream, version, schema, sum, data)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                ends.id,
                self.version as i64,
                self.schema,
                checksum(Some(&self.schema), None, Some(&self.data)),
                &self.data[..],
            ])?;
        Ok(())
    }
}

impl Look for GetSnapshot {
    fn look(self, reader: &Reader<'_>) -> Result<Option<Snapshot>, Error> {
        let Some(ends) = ends(reader.conn, &self.stream)? else { return Ok(None) };
        let found = reader
            .conn
            .prepare_cached(
                "SELECT version, data, sum FROM snapshots WHERE stream = ?1 AND schema = ?2",
            )?
            .query_row(params![ends.id, self.schema], |row| {
                let data: Vec<u8> = row.get(1)?;
                Ok((row.get::<_, i64>(0)? as u64, data, row.get::<_, u32>(2)?))
            })
            .optional()?;
        // A damaged snapshot is as good as none: the events say it all.
        let intact =
            found.filter(|(_, data, sum)| checksum(Some(&self.schema), None, Some(data)) == *sum);
        Ok(intact.map(|(version, data, _)| Snapshot { version, data: Bytes::from(data) }))
    }
}

impl Look for ReadStream {
    fn look(self, reader: &Reader<'_>) -> Result<Page, Error> {
        let (ends, last) = live(reader.conn, &self.stream)?;
        let (compare, order) = if self.backwards { ("<=", "DESC") } else { (">=", "ASC") };
        let sql = format!(
            "SELECT {COLUMNS} FROM events e WHERE e.stream = ?1 AND e.version {compare} ?2
             ORDER BY e.version {order} LIMIT ?3"
        );
        let from = i64::try_from(self.from).unwrap_or(i64::MAX);
        let max = self.max.min(reader.config.items_max) as i64;
        let mut select = reader.conn.prepare_cached(&sql)?;
        let mut rows = select.query(params![ends.id, from, max])?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < ANSWER_BYTES
            && let Some(row) = rows.next()?
        {
            let event = event(row, self.stream.clone())?;
            bytes += event_bytes(&event);
            events.push(event);
        }
        Ok(Page { events, last })
    }
}

impl Look for ReadEvents {
    fn look(self, reader: &Reader<'_>) -> Result<Vec<Event>, Error> {
        let sql = format!(
            "SELECT {COLUMNS}, s.name FROM events e JOIN streams s ON s.id = e.stream
             WHERE e.position > ?1 ORDER BY e.position LIMIT ?2"
        );
        let after = i64::try_from(self.after).unwrap_or(i64::MAX);
        let max = self.max.min(reader.config.items_max) as i64;
        let mut select = reader.conn.prepare_cached(&sql)?;
        let mut rows = select.query([after, max])?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < ANSWER_BYTES
            && let Some(row) = rows.next()?
        {
            let event = event(row, row.get(8)?)?;
            bytes += event_bytes(&event);
            events.push(event);
        }
        Ok(events)
    }
}
