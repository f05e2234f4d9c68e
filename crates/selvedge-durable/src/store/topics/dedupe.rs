//! Dedupe ids: which were seen lately, within a time and up to a number.
//!
//! Each id that is remembered gets the next number of its topic, so which are
//! the newest so many is known without counting.

use selvedge_patterns::wall::Wall;

use super::TIDY_ROWS;
use crate::{
    Error,
    store::{
        driver::{Db, Row, values},
        writer::Tx,
    },
    topic::Settings,
};

/// Ids beyond the bound that one publish removes: more than it adds, so that a
/// bound that was lowered is reached.
const FORGET_ROWS: usize = 2;

/// Numbers up to this are forgotten when `last` is the newest: none is 0 or less
/// without a bound, and those of older files are 0.
fn forgotten(settings: &Settings, last: u64) -> i64 {
    let last = i64::try_from(last).unwrap_or(i64::MAX);
    let max = settings.dedupe_max.map(|max| i64::try_from(max).unwrap_or(i64::MAX));
    max.map_or(-1, |max| if last > max { last - max } else { -1 })
}

/// Since when ids are remembered, if their number cuts the window short.
pub(super) fn cut_short(
    db: &impl Db,
    topic: i64,
    settings: &Settings,
    now: Wall,
) -> Result<Option<Wall>, Error> {
    let Some(max) = settings.dedupe_max else { return Ok(None) };
    let ends = "SELECT max(number), min(number) FROM dedupe WHERE topic = ?1";
    let (last, first): (Option<u64>, Option<u64>) =
        db.one(ends, &values![topic], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(last), Some(first)) = (last, first) else { return Ok(None) };
    if last - first + 1 < max {
        return Ok(None);
    }
    let sql = "SELECT min(at) FROM dedupe WHERE topic = ?1 AND number = ?2";
    let oldest: Option<Wall> = db.one(sql, &values![topic, first], |row| row.get(0))?;
    Ok(oldest.filter(|at| *at > now - settings.dedupe_window))
}

impl<D: Db> Tx<D> {
    /// The number that was given last in a topic.
    fn dedupe_last(&mut self, topic: &str) -> Result<u64, Error> {
        let live = self.topic(topic)?;
        if let Some(last) = live.dedupe_last {
            return Ok(last);
        }
        let id = live.id;
        let sql = "SELECT max(number) FROM dedupe WHERE topic = ?1";
        let last: Option<u64> = self.db.one(sql, &values![id], |row| row.get(0))?;
        let last = last.unwrap_or(0);
        self.topic(topic)?.dedupe_last = Some(last);
        Ok(last)
    }

    /// Where the first message with this id went, if it is remembered.
    pub(super) fn remembered(&mut self, topic: &str, dedupe: &str) -> Result<Option<i64>, Error> {
        let last = self.dedupe_last(topic)?;
        let now = self.now;
        let live = self.topic(topic)?;
        let (id, settings) = (live.id, &live.settings);
        let (since, upto) = (now - settings.dedupe_window, forgotten(settings, last));
        self.db.find(
            "SELECT place FROM dedupe WHERE topic = ?1 AND id = ?2 AND at > ?3 AND number > ?4",
            &values![id, dedupe, since, upto],
            |row| row.get(0),
        )
    }

    /// Remembers where the message with this id went, and forgets the oldest.
    pub(super) fn remember(&mut self, topic: &str, dedupe: &str, place: i64) -> Result<(), Error> {
        let number = self.dedupe_last(topic)? + 1;
        let live = self.topic(topic)?;
        live.dedupe_last = Some(number);
        let (id, upto) = (live.id, forgotten(&live.settings, number));
        self.db.write(
            "INSERT INTO dedupe (topic, id, at, place, number) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (topic, id) DO UPDATE SET at = excluded.at, place = excluded.place,
             number = excluded.number",
            &values![id, dedupe, self.now, place, number],
        )?;
        if upto >= 0 {
            self.forget_ids(id, upto, FORGET_ROWS)?;
        }
        Ok(())
    }

    fn forget_ids(&self, topic: i64, upto: i64, max: usize) -> Result<usize, Error> {
        let sql = format!(
            "DELETE FROM dedupe WHERE (topic, id) IN (SELECT topic, id FROM dedupe
             WHERE topic = ?1 AND number <= ?2 ORDER BY number LIMIT {max})"
        );
        self.db.count(&sql, &values![topic, upto])
    }

    /// Removes a bounded number of ids that are remembered no more.
    pub(super) fn tidy_dedupe(&mut self, topic: &str) -> Result<usize, Error> {
        let last = self.dedupe_last(topic)?;
        let now = self.now;
        let live = self.topic(topic)?;
        let (id, since) = (live.id, now - live.settings.dedupe_window);
        let upto = forgotten(&live.settings, last);
        let sql = format!(
            "DELETE FROM dedupe WHERE (topic, id) IN (SELECT topic, id FROM dedupe
             WHERE topic = ?1 AND at <= ?2 LIMIT {TIDY_ROWS})"
        );
        let removed = self.db.count(&sql, &values![id, since])?;
        Ok(removed + if upto >= 0 { self.forget_ids(id, upto, TIDY_ROWS)? } else { 0 })
    }
}
