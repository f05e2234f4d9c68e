//! Values under keys, in a table.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use selvedge_patterns::wall::Wall;

use super::{
    Apply, Look, Reader,
    record::checksum,
    topics::{ANSWER_BYTES, wall},
    writer::Tx,
};
use crate::{
    Error,
    state::{Condition, DeleteState, GetState, ListState, PutState, Value},
};

fn tag_text(tag: u64) -> String {
    format!("{tag:x}")
}

fn current(conn: &Connection, now: Wall, key: &str) -> Result<Option<u64>, Error> {
    let found = conn
        .prepare_cached(
            "SELECT tag FROM state WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
        )?
        .query_row(params![key, wall(now)], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(found.map(|tag| tag as u64))
}

fn check(
    conn: &Connection,
    now: Wall,
    key: &str,
    condition: Condition,
) -> Result<Option<u64>, Error> {
    let actual = current(conn, now, key)?;
    let expected = match condition {
        Condition::Any => return Ok(actual),
        Condition::Absent if actual.is_none() => return Ok(actual),
        Condition::Tag(tag) if actual == Some(tag) => return Ok(actual),
        Condition::Absent => "nothing".to_owned(),
        Condition::Tag(tag) => tag_text(tag),
    };
    Err(Error::Precondition { key: key.to_owned(), expected, actual: actual.map(tag_text) })
}

fn sum(key: &str, content_type: Option<&str>, value: &[u8]) -> u32 {
    checksum(Some(key), content_type.map(str::as_bytes), Some(value))
}

impl Tx {
    /// Removes values whose time has passed, a bounded number of them.
    pub(super) fn tidy_state(&self) -> Result<usize, Error> {
        let removed = self
            .conn
            .prepare_cached(
                "DELETE FROM state WHERE key IN
                 (SELECT key FROM state WHERE expires <= ?1 ORDER BY expires LIMIT 1000)",
            )?
            .execute([wall(self.now)])?;
        Ok(removed)
    }
}

impl Apply for PutState {
    fn apply(self, tx: &mut Tx) -> Result<u64, Error> {
        if self.key.is_empty() || self.key.len() > 512 {
            return Err(Error::invalid("key", "must be 1 to 512 bytes"));
        }
        let (size, max) = (self.value.len(), tx.config.payload_max);
        if size > max {
            return Err(Error::TooLarge { what: "a value", size, max });
        }
        check(&tx.conn, tx.now, &self.key, self.condition)?;
        let tag = tx.next_number()?;
        let content_type = self.content_type.as_deref();
        tx.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO state (key, tag, expires, sum, content_type, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                self.key,
                tag as i64,
                self.ttl.map(|ttl| wall(tx.now + ttl)),
                sum(&self.key, content_type, &self.value),
                content_type,
                &self.value[..],
            ])?;
        Ok(tag)
    }
}

impl Apply for DeleteState {
    fn apply(self, tx: &mut Tx) -> Result<(), Error> {
        if check(&tx.conn, tx.now, &self.key, self.condition)?.is_none() {
            return Err(Error::missing("key", &self.key));
        }
        tx.conn.prepare_cached("DELETE FROM state WHERE key = ?1")?.execute([&self.key])?;
        Ok(())
    }
}

impl Look for GetState {
    fn look(self, reader: &Reader<'_>) -> Result<Value, Error> {
        let found = reader
            .conn
            .prepare_cached(
                "SELECT tag, value, content_type, sum FROM state
                 WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
            )?
            .query_row(params![self.key, wall(reader.now)], |row| {
                let value = Value {
                    tag: row.get::<_, i64>(0)? as u64,
                    value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
                    content_type: row.get(2)?,
                };
                Ok((value, row.get::<_, u32>(3)?))
            })
            .optional()?;
        let (value, stored) = found.ok_or_else(|| Error::missing("key", &self.key))?;
        if sum(&self.key, value.content_type.as_deref(), &value.value) != stored {
            return Err(Error::Corrupt { what: format!("key `{}` fails its checksum", self.key) });
        }
        Ok(value)
    }
}

impl Look for ListState {
    fn look(self, reader: &Reader<'_>) -> Result<Vec<(String, u64)>, Error> {
        let mut select = reader.conn.prepare_cached(
            "SELECT key, tag FROM state WHERE key >= ?1 AND key > ?2
             AND (expires IS NULL OR expires > ?3) ORDER BY key LIMIT ?4",
        )?;
        let max = self.max.min(reader.config.items_max) as i64;
        let mut rows = select.query(params![self.prefix, self.after, wall(reader.now), max])?;
        let (mut keys, mut bytes) = (Vec::new(), 0);
        while bytes < ANSWER_BYTES
            && let Some(row) = rows.next()?
        {
            let key: String = row.get(0)?;
            if !key.starts_with(&self.prefix) {
                break;
            }
            bytes += key.len();
            keys.push((key, row.get::<_, i64>(1)? as u64));
        }
        Ok(keys)
    }
}
