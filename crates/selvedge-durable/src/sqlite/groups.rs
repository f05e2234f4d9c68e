//! Groups in tables: the cursor, the exceptions below it, the dead letters.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Row, params};
use selvedge_patterns::{
    group::{Due, Exception, Group, Offer, State, pick_lane},
    wall::Wall,
};

use super::{
    Apply, Look, Reader,
    record::{self, encode_headers, row_id},
    topics::{ANSWER_BYTES, check_name, micros, resolve, topic_id, wall},
    writer::Tx,
};
use crate::{
    Error,
    group::{
        Cause, Config, DeadLetter, DeleteGroup, Delivery, Discard, Extend, GetGroup,
        ListDeadLetters, ListGroups, Pause, PutGroup, Receipt, Receive, Redrive, Reply, Seek,
        Settle, Settled, Stale, Status, Verdict,
    },
    topic::{Message, PRIORITY_DEFAULT},
};

/// Bytes of a consumer's reason that are kept.
const REASON_BYTES: usize = 4096;

/// A group, as the writer knows it.
#[derive(Debug)]
struct Live {
    id: i64,
    topic: i64,
    paused: bool,
    fence: u64,
    /// The next position to look at, by priority.
    cursors: [u64; 10],
    core: Group,
    /// Positions that came back from the dead letters: their row goes when they are settled.
    redriven: HashSet<u64>,
}

/// The groups that were used since the start or the last rollback.
#[derive(Default)]
pub(super) struct Groups {
    live: HashMap<i64, Live>,
    numbers: HashMap<(String, String), (i64, i64)>,
}

impl Groups {
    pub(super) fn forget(&mut self) {
        self.live.clear();
        self.numbers.clear();
    }
}

const CONFIG: &str =
    "lease, attempts, ordered, in_flight_max, exceptions_max, retry_base, retry_cap";

fn config(row: &Row<'_>, at: usize) -> rusqlite::Result<Config> {
    let duration =
        |column| row.get::<_, i64>(column).map(|micros| Duration::from_micros(micros as u64));
    Ok(Config {
        lease: duration(at)?,
        attempts: row.get(at + 1)?,
        ordered: row.get(at + 2)?,
        in_flight_max: row.get(at + 3)?,
        exceptions_max: row.get(at + 4)?,
        retry_base: duration(at + 5)?,
        retry_cap: duration(at + 6)?,
    })
}

fn numbers(conn: &Connection, topic: &str, group: &str) -> Result<(i64, i64), Error> {
    let topic_id = topic_id(conn, topic)?;
    let id = conn
        .prepare_cached("SELECT id FROM groups WHERE topic = ?1 AND name = ?2")?
        .query_row(params![topic_id, group], |row| row.get(0))
        .optional()?;
    id.map(|id| (topic_id, id)).ok_or_else(|| Error::missing("group", group))
}

fn exception(row: &Row<'_>, at: usize) -> rusqlite::Result<Exception> {
    let until = Wall::from_micros(row.get::<_, i64>(at + 3)? as u64);
    Ok(Exception {
        attempt: row.get(at)?,
        fence: row.get::<_, i64>(at + 1)? as u64,
        state: match row.get::<_, i64>(at + 2)? {
            0 => State::Leased { until },
            1 => State::Waiting { until },
            _ => State::Blocked,
        },
        key: row.get::<_, Option<String>>(at + 4)?.map(Arc::from),
    })
}

fn load(conn: &Connection, id: i64) -> Result<Live, Error> {
    let sql = format!("SELECT topic, paused, fence, {CONFIG} FROM groups WHERE id = ?1");
    let (topic, paused, fence, config) = conn.prepare_cached(&sql)?.query_row([id], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as u64, config(row, 3)?))
    })?;
    let ordered = config.ordered;
    let mut core = Group::new(config);
    let mut select = conn.prepare_cached(
        "SELECT position, attempt, fence, state, until, key FROM exceptions
         WHERE grp = ?1 ORDER BY position",
    )?;
    let mut rows = select.query([id])?;
    while let Some(row) = rows.next()? {
        core.restore(row.get::<_, i64>(0)? as u64, exception(row, 1)?);
    }
    if ordered {
        let mut select = conn.prepare_cached(
            "SELECT key, count(*) FROM dead_letters
             WHERE grp = ?1 AND redriven = 0 AND key IS NOT NULL GROUP BY key",
        )?;
        let mut rows = select.query([id])?;
        while let Some(row) = rows.next()? {
            core.restore_parked(&row.get::<_, String>(0)?, row.get::<_, i64>(1)? as u64);
        }
    }
    let mut select =
        conn.prepare_cached("SELECT position FROM dead_letters WHERE grp = ?1 AND redriven = 1")?;
    let redriven = select
        .query_map([id], |row| row.get::<_, i64>(0).map(|position| position as u64))?
        .collect::<Result<_, _>>()?;
    let cursors = load_cursors(conn, id)?;
    Ok(Live { id, topic, paused, fence, cursors, core, redriven })
}

fn load_cursors(conn: &Connection, id: i64) -> Result<[u64; 10], Error> {
    let mut cursors = [1; 10];
    let mut select = conn.prepare_cached("SELECT lane, next FROM cursors WHERE grp = ?1")?;
    let mut rows = select.query([id])?;
    while let Some(row) = rows.next()? {
        if let Some(cursor) = cursors.get_mut(row.get::<_, u8>(0)? as usize) {
            *cursor = row.get::<_, i64>(1)? as u64;
        }
    }
    Ok(cursors)
}

/// A message from the log, or the copy kept with its dead letter.
fn fetch(
    conn: &Connection,
    topic: i64,
    group: i64,
    position: u64,
) -> Result<Option<Message>, Error> {
    let sql = format!("SELECT {} FROM messages WHERE id = ?1", record::COLUMNS);
    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query([row_id(topic, position)])?;
    if let Some(row) = rows.next()? {
        return record::message(row, position, 0).map(Some);
    }
    let sql =
        format!("SELECT {} FROM dead_letters WHERE grp = ?1 AND position = ?2", record::COLUMNS);
    let mut select = conn.prepare_cached(&sql)?;
    let mut rows = select.query(params![group, position as i64])?;
    rows.next()?.map(|row| record::message(row, position, 0)).transpose()
}

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

impl Tx {
    pub(super) fn group_numbers(&mut self, topic: &str, group: &str) -> Result<(i64, i64), Error> {
        let name = (topic.to_owned(), group.to_owned());
        if let Some(&found) = self.groups.numbers.get(&name) {
            return Ok(found);
        }
        let found = numbers(&self.conn, topic, group)?;
        self.groups.numbers.insert(name, found);
        Ok(found)
    }

    /// Takes the group out of the cache; [`Self::put_back`] it unless something failed.
    fn take_group(&mut self, topic: &str, group: &str) -> Result<Live, Error> {
        let (_, id) = self.group_numbers(topic, group)?;
        match self.groups.live.remove(&id) {
            Some(live) => Ok(live),
            None => load(&self.conn, id),
        }
    }

    /// Writes what changed of the exceptions.
    fn put_back(&mut self, mut live: Live) -> Result<(), Error> {
        let mut upsert = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO exceptions (grp, position, attempt, fence, state, until, key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let mut delete =
            self.conn.prepare_cached("DELETE FROM exceptions WHERE grp = ?1 AND position = ?2")?;
        let changes: Vec<u64> = live.core.drain_changes().collect();
        for position in changes {
            let Some(exception) = live.core.exception(position) else {
                delete.execute(params![live.id, position as i64])?;
                continue;
            };
            let (state, until) = match exception.state {
                State::Leased { until } => (0, until),
                State::Waiting { until } => (1, until),
                State::Blocked => (2, Wall::ZERO),
            };
            upsert.execute(params![
                live.id,
                position as i64,
                exception.attempt,
                exception.fence as i64,
                state,
                wall(until),
                exception.key.as_deref(),
            ])?;
        }
        drop((upsert, delete));
        self.groups.live.insert(live.id, live);
        Ok(())
    }

    pub(super) fn group_wakeup(&mut self, _topic: i64, id: i64) -> Result<Option<Wall>, Error> {
        if !self.groups.live.contains_key(&id) {
            let known =
                self.conn.prepare_cached("SELECT 1 FROM groups WHERE id = ?1")?.exists([id])?;
            if !known {
                return Ok(None);
            }
            let live = load(&self.conn, id)?;
            self.groups.live.insert(id, live);
        }
        let live = self.groups.live.get(&id).filter(|live| !live.paused);
        // What is due now and was not taken waits for room, not for time.
        Ok(live.and_then(|live| live.core.next_wakeup()).filter(|&at| at > self.now))
    }

    /// The lowest position of a topic that some group has not settled.
    pub(super) fn lowest_unsettled(&self, topic: i64, next: u64) -> Result<u64, Error> {
        let lowest: Option<i64> = self
            .conn
            .prepare_cached(
                "SELECT min(p) FROM (
                   SELECT min(c.next) AS p FROM groups g JOIN cursors c ON c.grp = g.id WHERE g.topic = ?1
                   UNION ALL
                   SELECT min(e.position) FROM groups g JOIN exceptions e ON e.grp = g.id WHERE g.topic = ?1)",
            )?
            .query_row([topic], |row| row.get(0))?;
        Ok(lowest.map_or(next, |position| position as u64))
    }

    pub(super) fn drop_groups(&mut self, topic: i64) -> Result<(), Error> {
        for table in ["cursors", "exceptions", "dead_letters"] {
            let sql = format!(
                "DELETE FROM {table} WHERE grp IN (SELECT id FROM groups WHERE topic = ?1)"
            );
            self.conn.execute(&sql, [topic])?;
        }
        self.conn.execute("DELETE FROM groups WHERE topic = ?1", [topic])?;
        self.groups.forget();
        Ok(())
    }

    /// Keeps a message that the group gave up on.
    fn bury(
        &self,
        live: &mut Live,
        position: u64,
        attempts: u32,
        cause: Cause,
        reason: Option<&str>,
    ) -> Result<(), Error> {
        live.redriven.remove(&position);
        let Some(message) = fetch(&self.conn, live.topic, live.id, position)? else {
            // It expired before anybody could process it: nothing is left to keep.
            return Ok(());
        };
        let headers = encode_headers(&message.headers);
        let sum = record::checksum(
            message.key.as_deref(),
            headers.as_deref(),
            message.payload.as_deref(),
        );
        self.conn
            .prepare_cached(
                "INSERT OR REPLACE INTO dead_letters (grp, position, dead_at, cause, reason, attempts,
                 redriven, at, sum, priority, key, headers, payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                live.id,
                position as i64,
                wall(self.now),
                cause_number(cause),
                reason.map(|text| cut(text, REASON_BYTES)),
                attempts,
                wall(message.at),
                sum,
                message.priority,
                message.key,
                headers,
                message.payload.as_deref(),
            ])?;
        Ok(())
    }

    fn receive(&mut self, live: &mut Live, request: &Receive) -> Result<Vec<Delivery>, Error> {
        let mut taken = Taken {
            deliveries: Vec::new(),
            bytes: 0,
            max: request.max.min(self.config.items_max),
            lease: request.lease,
            fence: live.fence + 1,
        };
        if live.paused || taken.full() {
            return Ok(Vec::new());
        }
        self.take_due(live, &mut taken)?;
        let before = live.cursors;
        if !taken.full() {
            let priorities = self.topic(&request.topic)?.settings.priorities;
            let ageing = self.topic(&request.topic)?.settings.ageing;
            if priorities {
                self.take_by_priority(live, ageing, &mut taken)?;
            } else {
                self.take_in_order(live, &mut taken)?;
            }
        }
        for (lane, cursor) in live.cursors.iter().enumerate() {
            if *cursor != before[lane] {
                self.conn
                    .prepare_cached(
                        "INSERT OR REPLACE INTO cursors (grp, lane, next) VALUES (?1, ?2, ?3)",
                    )?
                    .execute(params![live.id, lane as i64, *cursor as i64])?;
            }
        }
        if !taken.deliveries.is_empty() {
            live.fence = taken.fence;
            self.conn
                .prepare_cached("UPDATE groups SET fence = ?2 WHERE id = ?1")?
                .execute(params![live.id, live.fence as i64])?;
        }
        Ok(taken.deliveries)
    }

    /// Retries, expired leases and keys that became free.
    fn take_due(&self, live: &mut Live, taken: &mut Taken) -> Result<(), Error> {
        while !taken.full()
            && let Some(due) = live.core.wake(self.now, taken.fence)
        {
            match due {
                Due::Deliver(receipt) => {
                    match fetch(&self.conn, live.topic, live.id, receipt.position)? {
                        Some(message) => taken.push(self.now, live, receipt, message)?,
                        None => live.core.forget(receipt.position),
                    }
                }
                Due::Dead { position, attempt, cause } => {
                    self.bury(live, position, attempt, cause, None)?;
                }
            }
        }
        Ok(())
    }

    /// Messages that nobody has looked at, by position.
    fn take_in_order(&self, live: &mut Live, taken: &mut Taken) -> Result<(), Error> {
        const LANE: usize = PRIORITY_DEFAULT as usize;
        let sql = format!(
            "SELECT id, {} FROM messages WHERE id >= ?1 AND id < ?2 ORDER BY id",
            record::COLUMNS
        );
        let mut select = self.conn.prepare_cached(&sql)?;
        let mut rows =
            select.query([row_id(live.topic, live.cursors[LANE]), row_id(live.topic + 1, 0)])?;
        while !taken.full()
            && let Some(row) = rows.next()?
        {
            let position = record::position(row.get(0)?);
            let message = record::message(row, position, 1)?;
            if !self.offer(live, taken, message)? {
                break;
            }
            live.cursors[LANE] = position + 1;
        }
        Ok(())
    }

    /// Messages that nobody has looked at, by priority and age.
    fn take_by_priority(
        &self,
        live: &mut Live,
        ageing: Duration,
        taken: &mut Taken,
    ) -> Result<(), Error> {
        let mut head = self.conn.prepare_cached(
            "SELECT position, at FROM lanes WHERE topic = ?1 AND priority = ?2 AND position >= ?3
             ORDER BY position LIMIT 1",
        )?;
        let topic = live.topic;
        let mut look = |lane: usize, from: u64| {
            head.query_row(params![topic, lane as i64, from as i64], |row| {
                Ok((row.get::<_, i64>(0)? as u64, Wall::from_micros(row.get::<_, i64>(1)? as u64)))
            })
            .optional()
        };
        let mut heads = [None; 10];
        for (lane, head) in heads.iter_mut().enumerate() {
            *head = look(lane, live.cursors[lane])?;
        }
        while !taken.full() {
            let times = heads.map(|head| head.map(|(_, at)| at));
            let Some(lane) = pick_lane(self.now, &times, ageing) else { break };
            let Some((position, _)) = heads[lane] else { break };
            if let Some(message) = fetch(&self.conn, live.topic, live.id, position)?
                && !self.offer(live, taken, message)?
            {
                break;
            }
            live.cursors[lane] = position + 1;
            heads[lane] = look(lane, position + 1)?;
        }
        Ok(())
    }

    /// Whether the cursor may move past this message.
    fn offer(&self, live: &mut Live, taken: &mut Taken, message: Message) -> Result<bool, Error> {
        match live.core.offer(self.now, taken.fence, message.position, message.key.as_deref()) {
            Offer::Deliver(receipt) => taken.push(self.now, live, receipt, message)?,
            Offer::Blocked => {}
            Offer::Dead(cause) => self.bury(live, message.position, 0, cause, None)?,
            Offer::Full => return Ok(false),
        }
        Ok(true)
    }

    fn settle(&mut self, live: &mut Live, reply: &Reply) -> Result<Result<Settled, Stale>, Error> {
        let settled = match live.core.settle(self.now, reply.receipt, reply.verdict, &mut self.rng)
        {
            Ok(settled) => settled,
            Err(stale) => return Ok(Err(stale)),
        };
        let Receipt { position, attempt, .. } = reply.receipt;
        match settled {
            Settled::Acked => {
                if live.redriven.remove(&position) {
                    self.delete_letter(live.id, position)?;
                }
            }
            Settled::Retry { .. } => {}
            Settled::Dead(cause) => {
                self.bury(live, position, attempt, cause, reply.reason.as_deref())?;
            }
        }
        Ok(Ok(settled))
    }

    fn delete_letter(&self, group: i64, position: u64) -> Result<(), Error> {
        self.conn
            .prepare_cached("DELETE FROM dead_letters WHERE grp = ?1 AND position = ?2")?
            .execute(params![group, position as i64])?;
        Ok(())
    }

    /// Positions and keys of dead letters: those named, or all; with `whole_keys`
    /// also those that share a key with one named.
    fn letters(
        &self,
        live: &Live,
        named: &[u64],
        whole_keys: bool,
    ) -> Result<Vec<(u64, Option<String>)>, Error> {
        let mut select = self.conn.prepare_cached(
            "SELECT position, key FROM dead_letters WHERE grp = ?1 AND redriven = 0 ORDER BY position",
        )?;
        let all = select
            .query_map([live.id], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))?
            .collect::<Result<Vec<(u64, Option<String>)>, _>>()?;
        if named.is_empty() {
            return Ok(all);
        }
        let named: HashSet<u64> = named.iter().copied().collect();
        let keys: HashSet<String> = all
            .iter()
            .filter(|(position, _)| whole_keys && named.contains(position))
            .filter_map(|(_, key)| key.clone())
            .collect();
        let wanted = |(position, key): &(u64, Option<String>)| {
            named.contains(position) || key.as_ref().is_some_and(|key| keys.contains(key))
        };
        Ok(all.into_iter().filter(wanted).collect())
    }
}

/// What one receive has taken so far.
struct Taken {
    deliveries: Vec<Delivery>,
    bytes: usize,
    max: usize,
    lease: Option<Duration>,
    fence: u64,
}

impl Taken {
    fn full(&self) -> bool {
        self.deliveries.len() >= self.max || self.bytes >= ANSWER_BYTES
    }

    fn push(
        &mut self,
        now: Wall,
        live: &mut Live,
        receipt: Receipt,
        message: Message,
    ) -> Result<(), Error> {
        let mut until = now + live.core.config().lease;
        if self.lease.is_some() {
            until = live.core.extend(now, receipt, self.lease).map_err(Error::Stale)?;
        }
        self.bytes += record::message_bytes(&message);
        self.deliveries.push(Delivery { receipt, until, message });
        Ok(())
    }
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

impl Apply for PutGroup {
    fn apply(self, tx: &mut Tx) -> Result<Status, Error> {
        check_name("group", &self.group)?;
        self.config.validate()?;
        let topic = tx.topic(&self.topic)?;
        let (topic_id, next, priorities) = (topic.id, topic.next, topic.settings.priorities);
        let c = &self.config;
        let values = params![
            topic_id,
            self.group,
            micros(c.lease),
            c.attempts,
            c.ordered,
            c.in_flight_max,
            c.exceptions_max,
            micros(c.retry_base),
            micros(c.retry_cap),
        ];
        match tx.group_numbers(&self.topic, &self.group) {
            Ok((_, id)) => {
                let ordered: bool =
                    tx.conn.query_row("SELECT ordered FROM groups WHERE id = ?1", [id], |row| {
                        row.get(0)
                    })?;
                if ordered != c.ordered {
                    let (kind, name) = ("group", self.group.clone());
                    return Err(Error::Exists { kind, name, difference: "`ordered`" });
                }
                tx.conn.execute(
                    "UPDATE groups SET lease = ?3, attempts = ?4, ordered = ?5, in_flight_max = ?6,
                     exceptions_max = ?7, retry_base = ?8, retry_cap = ?9
                     WHERE topic = ?1 AND name = ?2",
                    values,
                )?;
                tx.groups.live.remove(&id);
            }
            Err(Error::NotFound { kind: "group", .. }) => {
                let sql = format!(
                    "INSERT INTO groups (topic, name, {CONFIG}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)"
                );
                tx.conn.execute(&sql, values)?;
                let id = tx.conn.last_insert_rowid();
                let start = resolve(&tx.conn, (topic_id, next), self.from)?;
                put_cursors(&tx.conn, id, start, priorities)?;
            }
            Err(error) => return Err(error),
        }
        tx.stirred.push(topic_id);
        status(&tx.conn, &self.topic, &self.group)
    }
}

fn put_cursors(conn: &Connection, id: i64, start: u64, priorities: bool) -> Result<(), Error> {
    let lanes = if priorities { 0..=9 } else { PRIORITY_DEFAULT..=PRIORITY_DEFAULT };
    for lane in lanes {
        conn.prepare_cached(
            "INSERT OR REPLACE INTO cursors (grp, lane, next) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![id, lane, start as i64])?;
    }
    Ok(())
}

impl Apply for DeleteGroup {
    fn apply(self, tx: &mut Tx) -> Result<(), Error> {
        let (topic, id) = tx.group_numbers(&self.topic, &self.group)?;
        for table in ["cursors", "exceptions", "dead_letters"] {
            tx.conn.execute(&format!("DELETE FROM {table} WHERE grp = ?1"), [id])?;
        }
        tx.conn.execute("DELETE FROM groups WHERE id = ?1", [id])?;
        tx.groups.forget();
        tx.stirred.push(topic);
        Ok(())
    }
}

impl Apply for Receive {
    fn apply(self, tx: &mut Tx) -> Result<Vec<Delivery>, Error> {
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let deliveries = tx.receive(&mut live, &self)?;
        tx.put_back(live)?;
        Ok(deliveries)
    }
}

impl Apply for Settle {
    fn apply(self, tx: &mut Tx) -> Result<Vec<Result<Settled, Stale>>, Error> {
        let (size, max) = (self.replies.len(), tx.config.items_max);
        if size > max {
            return Err(Error::TooLarge { what: "a batch", size, max });
        }
        let too_far = |wait: Duration| wait > Duration::from_secs(366 * 86_400);
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let mut answers = Vec::with_capacity(size);
        for reply in &self.replies {
            if matches!(reply.verdict, Verdict::Retry { after: Some(wait) } if too_far(wait)) {
                return Err(Error::invalid("after", "must be at most a year"));
            }
            let answer = tx.settle(&mut live, reply)?;
            if let (true, Err(stale)) = (self.strict, &answer) {
                return Err(Error::Stale(*stale));
            }
            answers.push(answer);
        }
        // A key may be free now, or room under a limit.
        tx.stirred.push(live.topic);
        tx.put_back(live)?;
        Ok(answers)
    }
}

impl Apply for Extend {
    fn apply(self, tx: &mut Tx) -> Result<Vec<Result<Wall, Stale>>, Error> {
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let now = tx.now;
        let answers = self
            .receipts
            .iter()
            .map(|receipt| live.core.extend(now, *receipt, self.lease))
            .collect();
        tx.put_back(live)?;
        Ok(answers)
    }
}

impl Apply for Pause {
    fn apply(self, tx: &mut Tx) -> Result<(), Error> {
        let mut live = tx.take_group(&self.topic, &self.group)?;
        live.paused = self.paused;
        tx.conn.execute(
            "UPDATE groups SET paused = ?2 WHERE id = ?1",
            params![live.id, self.paused],
        )?;
        tx.stirred.push(live.topic);
        tx.put_back(live)
    }
}

impl Apply for Seek {
    fn apply(self, tx: &mut Tx) -> Result<(), Error> {
        let topic = tx.topic(&self.topic)?;
        let (topic_id, next, priorities) = (topic.id, topic.next, topic.settings.priorities);
        let start = resolve(&tx.conn, (topic_id, next), self.to)?;
        let (_, id) = tx.group_numbers(&self.topic, &self.group)?;
        tx.conn.execute("DELETE FROM exceptions WHERE grp = ?1", [id])?;
        // Letters on their way back are letters again.
        tx.conn.execute("UPDATE dead_letters SET redriven = 0 WHERE grp = ?1", [id])?;
        put_cursors(&tx.conn, id, start, priorities)?;
        tx.groups.live.remove(&id);
        tx.stirred.push(topic_id);
        Ok(())
    }
}

impl Apply for Redrive {
    fn apply(self, tx: &mut Tx) -> Result<u64, Error> {
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let whole_keys = live.core.config().ordered;
        let letters = tx.letters(&live, &self.positions, whole_keys)?;
        for (position, key) in &letters {
            live.core.redrive(tx.now, *position, key.as_deref());
            live.redriven.insert(*position);
            tx.conn
                .prepare_cached(
                    "UPDATE dead_letters SET redriven = 1 WHERE grp = ?1 AND position = ?2",
                )?
                .execute(params![live.id, *position as i64])?;
        }
        tx.stirred.push(live.topic);
        tx.put_back(live)?;
        Ok(letters.len() as u64)
    }
}

impl Apply for Discard {
    fn apply(self, tx: &mut Tx) -> Result<u64, Error> {
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let letters = tx.letters(&live, &self.positions, false)?;
        for (position, key) in &letters {
            live.core.discard(key.as_deref());
            tx.delete_letter(live.id, *position)?;
        }
        tx.put_back(live)?;
        Ok(letters.len() as u64)
    }
}

fn status(conn: &Connection, topic: &str, group: &str) -> Result<Status, Error> {
    let (topic_id, id) = numbers(conn, topic, group)?;
    let sql = format!("SELECT paused, {CONFIG} FROM groups WHERE id = ?1");
    let (paused, config) =
        conn.prepare_cached(&sql)?.query_row([id], |row| Ok((row.get(0)?, config(row, 1)?)))?;
    let priorities: bool = conn
        .prepare_cached("SELECT priorities FROM topics WHERE id = ?1")?
        .query_row([topic_id], |row| row.get(0))?;
    let cursors = load_cursors(conn, id)?;
    let (unseen, unseen_at) = unseen(conn, topic_id, cursors, priorities)?;
    let (in_flight, waiting, attempts_most, floor): (i64, i64, u32, Option<i64>) = conn
        .prepare_cached(
            "SELECT ifnull(sum(state = 0), 0), ifnull(sum(state <> 0), 0),
             ifnull(max(attempt), 0), min(position) FROM exceptions WHERE grp = ?1",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let floor_at = match floor {
        Some(position) => fetch(conn, topic_id, id, position as u64)?.map(|message| message.at),
        None => None,
    };
    let dead: i64 = conn
        .prepare_cached("SELECT count(*) FROM dead_letters WHERE grp = ?1 AND redriven = 0")?
        .query_row([id], |row| row.get(0))?;
    Ok(Status {
        topic: topic.to_owned(),
        group: group.to_owned(),
        config,
        paused,
        lag: unseen + (in_flight + waiting) as u64,
        in_flight: in_flight as u64,
        waiting: waiting as u64,
        dead: dead as u64,
        oldest: floor_at.into_iter().chain(unseen_at).min(),
        attempts_most,
    })
}

/// Messages beyond the cursors, and when the first of them entered the log.
fn unseen(
    conn: &Connection,
    topic: i64,
    cursors: [u64; 10],
    priorities: bool,
) -> Result<(u64, Option<Wall>), Error> {
    let at = |micros: Option<i64>| micros.map(|micros| Wall::from_micros(micros as u64));
    if priorities {
        let mut select = conn.prepare_cached(
            "SELECT count(*), min(at) FROM lanes WHERE topic = ?1 AND priority = ?2 AND position >= ?3",
        )?;
        let (mut count, mut oldest) = (0, None);
        for (lane, cursor) in cursors.iter().enumerate() {
            let (more, first) = select
                .query_row(params![topic, lane as i64, *cursor as i64], |row| {
                    Ok((row.get::<_, i64>(0)? as u64, at(row.get(1)?)))
                })?;
            count += more;
            oldest = oldest.into_iter().chain(first).min();
        }
        return Ok((count, oldest));
    }
    // Positions are dense, so the ends tell the number (compaction makes it an upper bound).
    let cursor = cursors[usize::from(PRIORITY_DEFAULT)];
    let mut first = conn.prepare_cached(
        "SELECT id, at FROM messages WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1",
    )?;
    let range = [row_id(topic, cursor), row_id(topic + 1, 0)];
    let Some((first, oldest)) = first
        .query_row(range, |row| Ok((record::position(row.get(0)?), at(row.get(1)?))))
        .optional()?
    else {
        return Ok((0, None));
    };
    let last: i64 = conn
        .prepare_cached("SELECT max(id) FROM messages WHERE id >= ?1 AND id < ?2")?
        .query_row(range, |row| row.get(0))?;
    Ok((record::position(last) + 1 - first, oldest))
}

impl Look for GetGroup {
    fn look(self, reader: &Reader<'_>) -> Result<Status, Error> {
        status(reader.conn, &self.topic, &self.group)
    }
}

impl Look for ListGroups {
    fn look(self, reader: &Reader<'_>) -> Result<Vec<Status>, Error> {
        if let Some(topic) = &self.topic {
            topic_id(reader.conn, topic)?;
        }
        let mut select = reader.conn.prepare_cached(
            "SELECT t.name, g.name FROM groups g JOIN topics t ON t.id = g.topic
             WHERE t.name = ifnull(?1, t.name) ORDER BY t.name, g.name",
        )?;
        let names = select
            .query_map([self.topic], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })?
            .collect::<Result<Vec<_>, _>>()?;
        names.into_iter().map(|(topic, group)| status(reader.conn, &topic, &group)).collect()
    }
}

impl Look for ListDeadLetters {
    fn look(self, reader: &Reader<'_>) -> Result<Vec<DeadLetter>, Error> {
        let (_, id) = numbers(reader.conn, &self.topic, &self.group)?;
        let max = self.max.min(reader.config.items_max);
        let sql = format!(
            "SELECT position, dead_at, cause, reason, attempts, {} FROM dead_letters
             WHERE grp = ?1 AND position >= ?2 AND redriven = 0 ORDER BY position LIMIT ?3",
            record::COLUMNS
        );
        let mut select = reader.conn.prepare_cached(&sql)?;
        let from = i64::try_from(self.from).unwrap_or(i64::MAX);
        let mut rows = select.query(params![id, from, max as i64])?;
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while bytes < ANSWER_BYTES
            && let Some(row) = rows.next()?
        {
            let message = record::message(row, row.get::<_, i64>(0)? as u64, 5)?;
            bytes += record::message_bytes(&message);
            letters.push(DeadLetter {
                message,
                at: Wall::from_micros(row.get::<_, i64>(1)? as u64),
                cause: cause(row.get(2)?),
                reason: row.get(3)?,
                attempts: row.get(4)?,
            });
        }
        Ok(letters)
    }
}
