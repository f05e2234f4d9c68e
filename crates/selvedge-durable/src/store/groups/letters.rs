//! Dead letters: what a group gave up on, kept with its message.

use std::collections::{BTreeMap, BTreeSet};

use super::{Live, fetch, numbers};
use crate::{
    Error,
    group::{Cause, DeadLetter, Discard, ListDeadLetters, Redrive},
    store::{
        Apply, Look, Reader,
        driver::{Db, Row, values},
        record::{self, encode_headers},
        topics::{ANSWER_BYTES, TIDY_ROWS},
        writer::Tx,
    },
};

/// Bytes of a consumer's reason that are kept.
const REASON_BYTES: usize = 4096;

const fn cause_number(cause: Cause) -> i64 {
    match cause {
        Cause::Attempts => 0,
        Cause::LeaseExpired => 1,
        Cause::Parked => 2,
        Cause::BehindKey => 3,
    }
}

const fn cause(number: i64) -> Cause {
    match number {
        0 => Cause::Attempts,
        1 => Cause::LeaseExpired,
        2 => Cause::Parked,
        _ => Cause::BehindKey,
    }
}

/// How many there are.
pub(super) fn count(db: &impl Db, group: i64) -> Result<u64, Error> {
    let sql = "SELECT count(*) FROM dead_letters WHERE grp = ?1 AND redriven = 0";
    db.one(sql, &values![group], |row| row.get(0))
}

impl<D: Db> Tx<D> {
    /// Keeps a message that the group gave up on.
    pub(super) fn bury(
        &self,
        live: &mut Live,
        position: u64,
        attempts: u32,
        cause: Cause,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        live.redriven.remove(&position);
        let Some(message) = fetch(&self.db, live.topic, live.id, position)? else {
            // It expired before anybody could process it: nothing is left to keep,
            // and no letter that could free its key.
            let key: Option<String> = self
                .db
                .find(
                    "SELECT key FROM exceptions WHERE grp = ?1 AND position = ?2",
                    &values![live.id, position],
                    |row| row.get(0),
                )?
                .flatten();
            live.core.discard(key.as_deref());
            return Ok(());
        };
        // After a seek it may be a letter already: then its key has not one more.
        let letter: Option<bool> = self.db.find(
            "SELECT redriven FROM dead_letters WHERE grp = ?1 AND position = ?2",
            &values![live.id, position],
            |row| row.get(0),
        )?;
        if letter == Some(false) {
            live.core.discard(message.key.as_deref());
        }
        let headers = encode_headers(&message.headers);
        let sum = record::checksum(
            message.key.as_deref(),
            headers.as_deref(),
            message.payload.as_deref(),
        );
        self.db.write(
            "INSERT INTO dead_letters (grp, position, dead_at, cause, reason, attempts,
                 redriven, at, sum, priority, key, headers, payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10, ?11, ?12)
                 ON CONFLICT (grp, position) DO UPDATE SET dead_at = excluded.dead_at,
                 cause = excluded.cause, reason = excluded.reason, attempts = excluded.attempts,
                 redriven = 0",
            &values![
                live.id,
                position,
                self.now,
                cause_number(cause),
                reason.map(|text| cut(text, REASON_BYTES)),
                attempts,
                message.at,
                sum,
                message.priority,
                message.key.as_deref(),
                headers.as_deref(),
                message.payload.as_deref(),
            ],
        )?;
        self.drop_oldest(live)
    }

    /// Makes room where a group was told to, at the cost of the oldest.
    fn drop_oldest(&self, live: &mut Live) -> Result<(), Error> {
        let excess = live.core.config().letters.excess(live.core.letters());
        if excess == 0 {
            return Ok(());
        }
        let sql = "SELECT position, key FROM dead_letters WHERE grp = ?1 AND redriven = 0
             ORDER BY dead_at, position LIMIT ?2";
        let oldest: Vec<(u64, Option<String>)> =
            self.db.all(sql, &values![live.id, excess.min(TIDY_ROWS as u64)], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        for (position, key) in &oldest {
            live.core.discard(key.as_deref());
            self.delete_letter(live.id, *position)?;
        }
        self.dropped(live.id, oldest.len())
    }

    fn dropped(&self, group: i64, letters: usize) -> Result<(), Error> {
        let sql = "UPDATE groups SET dropped = dropped + ?2 WHERE id = ?1";
        self.db.write(sql, &values![group, letters])
    }

    /// Removes a bounded number of letters that are older than their group keeps.
    pub(in crate::store) fn tidy_letters(&mut self) -> Result<usize, Error> {
        let sql = "SELECT id, topic, letters_age FROM groups WHERE letters_age IS NOT NULL";
        let groups: Vec<(i64, i64, std::time::Duration)> =
            self.db.all(sql, &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut removed = 0;
        for (id, topic, age) in groups {
            let sql = format!(
                "DELETE FROM dead_letters WHERE (grp, position) IN
                 (SELECT grp, position FROM dead_letters
                  WHERE grp = ?1 AND redriven = 0 AND dead_at <= ?2 LIMIT {TIDY_ROWS})"
            );
            let gone = self.db.count(&sql, &values![id, self.now - age])?;
            if gone > 0 {
                self.dropped(id, gone)?;
                // Keys may be free now, and a group that held goes on.
                self.groups.live.remove(&id);
                self.stirred.push(topic);
                removed += gone;
            }
        }
        Ok(removed)
    }

    pub(super) fn delete_letter(&self, group: i64, position: u64) -> Result<(), Error> {
        self.db.write(
            "DELETE FROM dead_letters WHERE grp = ?1 AND position = ?2",
            &values![group, position],
        )?;
        Ok(())
    }

    /// Positions and keys of dead letters: those named, or the first as many as one
    /// request may name; with `whole_keys` also those that share a key with one of them.
    pub(super) fn letters(
        &self,
        live: &Live,
        named: &[u64],
        whole_keys: bool,
    ) -> Result<BTreeMap<u64, Option<String>>, Error> {
        let (size, max) = (named.len(), self.config.items_max);
        if size > max {
            return Err(Error::TooLarge { what: "a batch", size, max });
        }
        let row = |row: &D::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let mut found: BTreeMap<u64, Option<String>> = if named.is_empty() {
            let sql = "SELECT position, key FROM dead_letters
                 WHERE grp = ?1 AND redriven = 0 ORDER BY position LIMIT ?2";
            self.db.all(sql, &values![live.id, max], row)?.into_iter().collect()
        } else {
            let sql = "SELECT position, key FROM dead_letters
                 WHERE grp = ?1 AND position = ?2 AND redriven = 0";
            let find = |position: &u64| self.db.find(sql, &values![live.id, *position], row);
            named.iter().filter_map(|it| find(it).transpose()).collect::<Result<_, _>>()?
        };
        if whole_keys {
            let keys: BTreeSet<String> = found.values().flatten().cloned().collect();
            let sql = "SELECT position, key FROM dead_letters
                 WHERE grp = ?1 AND key = ?2 AND redriven = 0";
            for key in &keys {
                found.extend(self.db.all(sql, &values![live.id, key], row)?);
            }
        }
        Ok(found)
    }
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

impl Apply for Redrive {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<u64, Error> {
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let whole_keys = live.core.config().ordered;
        let letters = tx.letters(&live, &self.positions, whole_keys)?;
        for (position, key) in &letters {
            live.core.redrive(tx.now, *position, key.as_deref());
            live.redriven.insert(*position);
            tx.db.write(
                "UPDATE dead_letters SET redriven = 1 WHERE grp = ?1 AND position = ?2",
                &values![live.id, *position],
            )?;
        }
        tx.freed.push((live.topic, live.id));
        tx.put_back(live)?;
        Ok(letters.len() as u64)
    }
}

impl Apply for Discard {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<u64, Error> {
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let letters = tx.letters(&live, &self.positions, false)?;
        for (position, key) in &letters {
            live.core.discard(key.as_deref());
            tx.delete_letter(live.id, *position)?;
        }
        // A group that held because of them goes on.
        tx.stirred.push(live.topic);
        tx.put_back(live)?;
        Ok(letters.len() as u64)
    }
}

impl Look for ListDeadLetters {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Vec<DeadLetter>, Error> {
        let (_, id) = numbers(reader.db, &self.topic, &self.group)?;
        let max = self.max.min(reader.config.items_max);
        let sql = format!(
            "SELECT position, dead_at, cause, reason, attempts, {} FROM dead_letters
             WHERE grp = ?1 AND redriven = 0 AND position >= ?2 ORDER BY position LIMIT ?3",
            record::COLUMNS
        );
        let from = i64::try_from(self.from).unwrap_or(i64::MAX);
        let (mut letters, mut bytes) = (Vec::new(), 0);
        reader.db.scan(&sql, &values![id], from, max, |row| {
            let position: i64 = row.get(0)?;
            let message = record::message(row, position as u64, 5)?;
            bytes += record::message_bytes(&message);
            letters.push(DeadLetter {
                message,
                at: row.get(1)?,
                cause: cause(row.get(2)?),
                reason: row.get(3)?,
                attempts: row.get(4)?,
            });
            Ok((bytes < ANSWER_BYTES).then_some(position + 1))
        })?;
        Ok(letters)
    }
}
