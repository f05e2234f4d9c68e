//! What was removed and is still there: it shows nowhere, and goes bit by bit,
//! so that no request takes the writer for long.

use super::{
    driver::{Db, Row, values},
    record::row_id,
    topics::TIDY_ROWS,
    writer::Tx,
};
use crate::Error;

/// Dead letters of a group that is gone, by its number.
pub(super) const LETTERS: i64 = 0;
/// Events of a stream below its first version, by its number.
pub(super) const EVENTS: i64 = 1;

/// Rows of a topic beside its messages, each table with what names a row of a topic.
const BESIDE: [(&str, &str); 5] = [
    ("lanes", "(priority, position)"),
    ("dedupe", "id"),
    ("latest", "key"),
    ("superseded", "(due, position)"),
    ("delayed", "number"),
];

impl<D: Db> Tx<D> {
    /// Removes a bounded number of rows of a topic that is gone; whether there was one.
    pub(super) fn tidy_deleted(&self) -> Result<bool, Error> {
        let topic: Option<i64> =
            self.db
                .find("SELECT id FROM topics WHERE name IS NULL LIMIT 1", &[], |row| row.get(0))?;
        let Some(id) = topic else { return Ok(false) };
        let mut removed = self.db.count(
            &format!(
                "DELETE FROM messages WHERE id IN (SELECT id FROM messages
                 WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT {TIDY_ROWS})"
            ),
            &values![row_id(id, 0), row_id(id + 1, 0)],
        )?;
        for (table, name) in BESIDE {
            if removed >= TIDY_ROWS {
                break;
            }
            let columns = name.trim_matches(['(', ')']);
            let sql = format!(
                "DELETE FROM {table} WHERE topic = ?1 AND {name} IN
                 (SELECT {columns} FROM {table} WHERE topic = ?1 LIMIT {TIDY_ROWS})"
            );
            removed += self.db.count(&sql, &values![id])?;
        }
        if removed == 0 {
            self.db.write("DELETE FROM topics WHERE id = ?1", &values![id])?;
        }
        Ok(true)
    }

    /// Removes a bounded number of rows that are left of something; whether there were any.
    pub(super) fn tidy_leavings(&self) -> Result<bool, Error> {
        let sql = "SELECT kind, id FROM leavings LIMIT 1";
        let left = self.db.find(sql, &[], |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)))?;
        let Some((kind, id)) = left else { return Ok(false) };
        let removed = if kind == LETTERS {
            let sql = format!(
                "DELETE FROM dead_letters WHERE grp = ?1 AND position IN
                 (SELECT position FROM dead_letters WHERE grp = ?1
                  ORDER BY position LIMIT {TIDY_ROWS})"
            );
            self.db.count(&sql, &values![id])?
        } else {
            let sql = "SELECT first FROM streams WHERE id = ?1";
            let first: i64 = self.db.one(sql, &values![id], |row| row.get(0))?;
            self.remove_events_below(id, first)?
        };
        if removed < TIDY_ROWS {
            let sql = "DELETE FROM leavings WHERE kind = ?1 AND id = ?2";
            self.db.write(sql, &values![kind, id])?;
        }
        Ok(true)
    }

    /// Removes a bounded number of a stream's oldest events below a version; how many.
    pub(super) fn remove_events_below(&self, stream: i64, first: i64) -> Result<usize, Error> {
        let sql = format!(
            "DELETE FROM events WHERE stream = ?1 AND version IN
             (SELECT version FROM events WHERE stream = ?1 AND version < ?2
              ORDER BY version LIMIT {TIDY_ROWS})"
        );
        self.db.count(&sql, &values![stream, first])
    }
}
