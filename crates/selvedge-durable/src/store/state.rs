//! Values under keys, in a table.

use bytes::Bytes;
use selvedge_patterns::wall::Wall;

use super::{
    Apply, Look, Reader,
    driver::{Db, Row, values},
    record::checksum,
    topics::ANSWER_BYTES,
    writer::Tx,
};
use crate::{
    Error, Subject,
    state::{Condition, DeleteState, GetState, ListState, PutState, Value},
};

fn tag_text(tag: u64) -> String {
    format!("{tag:x}")
}

fn current(db: &impl Db, now: Wall, key: &str) -> Result<Option<u64>, Error> {
    let found = db.find(
        "SELECT tag FROM state WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
        &values![key, now],
        |row| row.get::<i64>(0),
    )?;
    Ok(found.map(|tag| tag as u64))
}

fn check(db: &impl Db, now: Wall, key: &str, condition: Condition) -> Result<Option<u64>, Error> {
    let actual = current(db, now, key)?;
    let expected = match condition {
        Condition::Any => return Ok(actual),
        Condition::Absent if actual.is_none() => return Ok(actual),
        Condition::Tag(tag) if actual == Some(tag) => return Ok(actual),
        Condition::Present if actual.is_some() => return Ok(actual),
        Condition::Absent => "nothing".to_owned(),
        Condition::Present => "something".to_owned(),
        Condition::Foreign => "a tag that is none of ours".to_owned(),
        Condition::Tag(tag) => tag_text(tag),
    };
    Err(Error::Precondition { key: key.to_owned(), expected, actual: actual.map(tag_text) })
}

pub(crate) fn sum(key: &str, content_type: Option<&str>, value: &[u8]) -> u32 {
    checksum(Some(key), content_type.map(str::as_bytes), Some(value))
}

impl<D: Db> Tx<D> {
    /// Removes values whose time has passed, a bounded number of them.
    pub(super) fn tidy_state(&self) -> Result<usize, Error> {
        let removed = self.db.count(
            "DELETE FROM state WHERE key IN
                 (SELECT key FROM state WHERE expires <= ?1 ORDER BY expires LIMIT 1000)",
            &values![self.now],
        )?;
        Ok(removed)
    }
}

impl Apply for PutState {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<u64, Error> {
        if self.key.is_empty() || self.key.len() > 512 {
            return Err(Error::invalid("key", "must be 1 to 512 bytes"));
        }
        let (size, max) = (self.value.len(), tx.config.payload_max);
        if size > max {
            return Err(Error::TooLarge { what: "a value", size, max });
        }
        check(&tx.db, tx.now, &self.key, self.condition)?;
        let tag = tx.next_number()?;
        let content_type = self.content_type.as_deref();
        tx.db.write(
            "INSERT INTO state (key, tag, expires, sum, content_type, value)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (key) DO UPDATE SET tag = excluded.tag, expires = excluded.expires,
                 sum = excluded.sum, content_type = excluded.content_type, value = excluded.value",
            &values![
                &self.key,
                tag,
                self.ttl.map(|ttl| tx.now + ttl),
                sum(&self.key, content_type, &self.value),
                content_type,
                &self.value[..],
            ],
        )?;
        tx.tell(Subject::State(self.key));
        Ok(tag)
    }
}

impl Apply for DeleteState {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        if check(&tx.db, tx.now, &self.key, self.condition)?.is_none() {
            return Err(Error::missing("key", &self.key));
        }
        tx.db.write("DELETE FROM state WHERE key = ?1", &values![&self.key])?;
        tx.tell(Subject::State(self.key));
        Ok(())
    }
}

impl Look for GetState {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Value, Error> {
        let found = reader.db.find(
            "SELECT tag, value, content_type, sum FROM state
                 WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
            &values![&self.key, reader.now],
            |row| {
                let value = Value {
                    tag: row.get::<u64>(0)?,
                    value: row.get::<Bytes>(1)?,
                    content_type: row.get(2)?,
                };
                Ok((value, row.get::<u32>(3)?))
            },
        )?;
        let (value, stored) = found.ok_or_else(|| Error::missing("key", &self.key))?;
        if sum(&self.key, value.content_type.as_deref(), &value.value) != stored {
            return Err(Error::Corrupt { what: format!("key `{}` fails its checksum", self.key) });
        }
        Ok(value)
    }
}

impl Look for ListState {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Vec<(String, u64)>, Error> {
        let sql = "SELECT key, tag FROM state WHERE key >= ?1 AND key > ?2
             AND (expires IS NULL OR expires > ?3) ORDER BY key LIMIT ?4";
        let max = self.max.min(reader.config.items_max);
        let (mut keys, mut bytes) = (Vec::new(), 0);
        reader.db.each(sql, &values![&self.prefix, &self.after, reader.now, max], |row| {
            let key: String = row.get(0)?;
            if !key.starts_with(&self.prefix) {
                return Ok(false);
            }
            bytes += key.len();
            keys.push((key, row.get(1)?));
            Ok(bytes < ANSWER_BYTES)
        })?;
        Ok(keys)
    }
}
