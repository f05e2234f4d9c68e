//! Groups in tables: the cursor, the exceptions below it, the dead letters.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use selvedge_patterns::{
    group::{Due, Exception, Group, Offer, State, pick_lane},
    wall::Wall,
};

use super::{
    Apply,
    driver::{Db, Row, values},
    filtered,
    leavings::LETTERS,
    record::{self, row_id},
    topics::{ANSWER_BYTES, check_name, resolve, topic_id},
    writer::Tx,
};
use crate::{
    Error,
    group::{
        Active, DeleteGroup, Delivery, Extend, Pause, PutGroup, Receipt, Receive, Reply, Seek,
        Settle, Settled, Stale, Status, Verdict,
    },
    topic::{Message, PRIORITY_DEFAULT},
};

mod exclusive;
mod letters;
mod settings;
mod status;

use status::status;

/// A group, as the writer knows it.
#[derive(Debug)]
struct Live {
    id: i64,
    topic: i64,
    paused: bool,
    fence: u64,
    /// The active consumer, as it is stored.
    active: Option<Active>,
    /// The next position to look at, by priority.
    cursors: [u64; 10],
    core: Group,
    /// Positions that came back from the dead letters: their row goes when they are settled.
    redriven: HashSet<u64>,
    /// Whether the last receive stopped before it had looked at every message.
    more: bool,
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

fn numbers(db: &impl Db, topic: &str, group: &str) -> Result<(i64, i64), Error> {
    let topic_id = topic_id(db, topic)?;
    let id = db.find(
        "SELECT id FROM groups WHERE topic = ?1 AND name = ?2",
        &values![topic_id, group],
        |row| row.get(0),
    )?;
    id.map(|id| (topic_id, id)).ok_or_else(|| Error::missing("group", group))
}

fn exception(row: &impl Row, at: usize) -> Result<Exception, Error> {
    let until = row.get::<Wall>(at + 3)?;
    Ok(Exception {
        attempt: row.get(at)?,
        fence: row.get(at + 1)?,
        state: match row.get::<i64>(at + 2)? {
            0 => State::Leased { until },
            1 => State::Waiting { until },
            _ => State::Blocked,
        },
        key: row.get::<Option<&str>>(at + 4)?.map(Arc::from),
    })
}

fn load(db: &impl Db, id: i64) -> Result<Live, Error> {
    let sql = format!(
        "SELECT topic, paused, fence, rate_used, {} FROM groups WHERE id = ?1",
        settings::COLUMNS
    );
    let (topic, paused, fence, used, config) = db.one(&sql, &values![id], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, settings::read(row, 4)?))
    })?;
    let ordered = config.ordered;
    let mut core = Group::new(config);
    core.restore_rate(used);
    let active = exclusive::load(db, id)?;
    active.iter().for_each(|active| core.restore_active(active.clone()));
    let sql = "SELECT position, attempt, fence, state, until, key FROM exceptions
         WHERE grp = ?1 ORDER BY position";
    db.each(sql, &values![id], |row| {
        core.restore(row.get(0)?, exception(row, 1)?);
        Ok(true)
    })?;
    if core.config().letters.max.is_some() {
        core.restore_letters(letters::count(db, id)?);
    }
    if ordered {
        let sql = "SELECT key, count(*) FROM dead_letters
             WHERE grp = ?1 AND redriven = 0 AND key IS NOT NULL GROUP BY key";
        db.each(sql, &values![id], |row| {
            core.restore_parked(row.get(0)?, row.get(1)?);
            Ok(true)
        })?;
    }
    let sql = "SELECT position FROM dead_letters WHERE grp = ?1 AND redriven = 1";
    let redriven = db.all(sql, &values![id], |row| row.get(0))?.into_iter().collect();
    let cursors = load_cursors(db, id)?;
    // Nobody knows any more how far the last receive has looked.
    let more = core.config().filter.is_some();
    Ok(Live { id, topic, paused, fence, active, cursors, core, redriven, more })
}

fn load_cursors(db: &impl Db, id: i64) -> Result<[u64; 10], Error> {
    let mut cursors = [1; 10];
    db.each("SELECT lane, next FROM cursors WHERE grp = ?1", &values![id], |row| {
        if let Some(cursor) = cursors.get_mut(row.get::<usize>(0)?) {
            *cursor = row.get(1)?;
        }
        Ok(true)
    })?;
    Ok(cursors)
}

/// A message from the log, or the copy kept with its dead letter.
fn fetch(db: &impl Db, topic: i64, group: i64, position: u64) -> Result<Option<Message>, Error> {
    let sql = format!("SELECT {} FROM messages WHERE id = ?1", record::COLUMNS);
    let id = values![row_id(topic, position)];
    if let Some(message) = db.find(&sql, &id, |row| record::message(row, position, 0))? {
        return Ok(Some(message));
    }
    let sql =
        format!("SELECT {} FROM dead_letters WHERE grp = ?1 AND position = ?2", record::COLUMNS);
    db.find(&sql, &values![group, position], |row| record::message(row, position, 0))
}

impl<D: Db> Tx<D> {
    pub(super) fn group_numbers(&mut self, topic: &str, group: &str) -> Result<(i64, i64), Error> {
        let name = (topic.to_owned(), group.to_owned());
        if let Some(&found) = self.groups.numbers.get(&name) {
            return Ok(found);
        }
        let found = numbers(&self.db, topic, group)?;
        self.groups.numbers.insert(name, found);
        Ok(found)
    }

    /// Takes the group out of the cache; [`Self::put_back`] it unless something failed.
    fn take_group(&mut self, topic: &str, group: &str) -> Result<Live, Error> {
        let (_, id) = self.group_numbers(topic, group)?;
        match self.groups.live.remove(&id) {
            Some(live) => Ok(live),
            None => load(&self.db, id),
        }
    }

    /// Writes what changed of the exceptions.
    fn put_back(&mut self, mut live: Live) -> Result<(), Error> {
        // One that changed twice is still one row.
        let changes: BTreeSet<u64> = live.core.drain_changes().collect();
        let (kept, gone): (Vec<u64>, Vec<u64>) =
            changes.into_iter().partition(|position| live.core.exception(*position).is_some());
        let kept = kept.iter().filter_map(|position| {
            let exception = live.core.exception(*position)?;
            let (state, until) = match exception.state {
                State::Leased { until } => (0_i64, until),
                State::Waiting { until } => (1, until),
                State::Blocked => (2, Wall::ZERO),
            };
            let Exception { attempt, fence, .. } = *exception;
            let key = exception.key.as_deref();
            Some(values![live.id, *position, attempt, fence, state, until, key])
        });
        self.db.write_all(
            "INSERT INTO exceptions (grp, position, attempt, fence, state, until, key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (grp, position) DO UPDATE SET attempt = excluded.attempt,
             fence = excluded.fence, state = excluded.state, until = excluded.until",
            kept,
        )?;
        self.db.write_all(
            "DELETE FROM exceptions WHERE grp = ?1 AND position = ?2",
            gone.iter().map(|position| values![live.id, *position]),
        )?;
        exclusive::save(&self.db, &mut live)?;
        self.groups.live.insert(live.id, live);
        Ok(())
    }

    /// When something may come by itself for those who wait, of whom `waits` knows the names.
    pub(super) fn group_wakeup(
        &mut self,
        id: i64,
        waits: impl Fn(&str) -> bool,
    ) -> Result<Option<Wall>, Error> {
        if !self.groups.live.contains_key(&id) {
            let known =
                self.db.find("SELECT id FROM groups WHERE id = ?1", &values![id], |_| Ok(()))?;
            if known.is_none() {
                return Ok(None);
            }
            let live = load(&self.db, id)?;
            self.groups.live.insert(id, live);
        }
        let live = self.groups.live.get(&id).filter(|live| !live.paused);
        if live.is_some_and(|live| live.more && exclusive::served(live, self.now, &waits)) {
            return Ok(Some(self.now));
        }
        // What is due now and was not taken waits for room, not for time.
        let at =
            live.and_then(|live| exclusive::wakeup(live, waits, live.core.next_wakeup(self.now)));
        Ok(at.filter(|&at| at > self.now))
    }

    /// The lowest position of a topic that some group has not settled.
    pub(super) fn lowest_unsettled(&self, topic: i64, next: u64) -> Result<u64, Error> {
        let lowest: Option<u64> = self
            .db
            .one("SELECT min(p) FROM (
                   SELECT min(c.next) AS p FROM groups g JOIN cursors c ON c.grp = g.id WHERE g.topic = ?1
                   UNION ALL
                   SELECT min(e.position) FROM groups g JOIN exceptions e ON e.grp = g.id WHERE g.topic = ?1) AS lowest", &values![topic], |row| row.get(0))?;
        Ok(lowest.unwrap_or(next))
    }

    pub(super) fn drop_groups(&mut self, topic: i64) -> Result<(), Error> {
        for table in ["cursors", "exceptions"] {
            let sql = format!(
                "DELETE FROM {table} WHERE grp IN (SELECT id FROM groups WHERE topic = ?1)"
            );
            self.db.write(&sql, &values![topic])?;
        }
        let sql = format!(
            "INSERT INTO leavings (kind, id) SELECT {LETTERS}, id FROM groups WHERE topic = ?1"
        );
        self.db.write(&sql, &values![topic])?;
        self.db.write("DELETE FROM groups WHERE topic = ?1", &values![topic])?;
        self.groups.forget();
        Ok(())
    }

    fn receive(&mut self, live: &mut Live, request: &Receive) -> Result<Vec<Delivery>, Error> {
        if !exclusive::may(live, self.now, request)? {
            return Ok(Vec::new());
        }
        let mut taken = Taken {
            deliveries: Vec::new(),
            bytes: 0,
            max: request.max.min(self.config.items_max),
            lease: request.lease,
            fence: live.fence + 1,
            scan: filtered::Scan::new(&self.config, live.core.config()),
        };
        live.more = false;
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
            live.more = taken.scan.is_over();
        }
        for (lane, cursor) in live.cursors.iter().enumerate() {
            if *cursor != before[lane] {
                self.db.write(
                    "INSERT INTO cursors (grp, lane, next) VALUES (?1, ?2, ?3)
             ON CONFLICT (grp, lane) DO UPDATE SET next = excluded.next",
                    &values![live.id, lane, *cursor as i64],
                )?;
            }
        }
        if !taken.deliveries.is_empty() {
            live.fence = taken.fence;
            self.db.write(
                "UPDATE groups SET fence = ?2, rate_used = ?3 WHERE id = ?1",
                &values![live.id, live.fence, live.core.rate_used()],
            )?;
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
                    match fetch(&self.db, live.topic, live.id, receipt.position)? {
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
            "SELECT id, {} FROM messages WHERE id < ?1 AND id >= ?2 ORDER BY id LIMIT ?3",
            record::COLUMNS
        );
        let from = row_id(live.topic, live.cursors[LANE]);
        let end = values![row_id(live.topic + 1, 0)];
        // Some may be blocked by their keys, so how many are looked at is not known.
        self.db.scan(&sql, &end, from, usize::MAX, |row| {
            let id = row.get(0)?;
            let position = record::position(id);
            let message = record::message(row, position, 1)?;
            if taken.scan.wants(&message) && !self.offer(live, taken, message)? {
                return Ok(None);
            }
            live.cursors[LANE] = position + 1;
            Ok((!taken.full() && !taken.scan.is_over()).then_some(id + 1))
        })
    }

    /// Messages that nobody has looked at, by priority and age.
    fn take_by_priority(
        &self,
        live: &mut Live,
        ageing: Duration,
        taken: &mut Taken,
    ) -> Result<(), Error> {
        let sql = "SELECT position, at FROM lanes
             WHERE topic = ?1 AND priority = ?2 AND position >= ?3 ORDER BY position LIMIT 1";
        let topic = live.topic;
        let look = |lane: usize, from: u64| -> Result<Option<(u64, Wall)>, Error> {
            self.db.find(sql, &values![topic, lane, from], |row| Ok((row.get(0)?, row.get(1)?)))
        };
        let mut heads = [None; 10];
        for (lane, head) in heads.iter_mut().enumerate() {
            *head = look(lane, live.cursors[lane])?;
        }
        while !taken.full() && !taken.scan.is_over() {
            let times = heads.map(|head| head.map(|(_, at)| at));
            let Some(lane) = pick_lane(self.now, &times, ageing) else { break };
            let Some((position, _)) = heads[lane] else { break };
            if let Some(message) = fetch(&self.db, live.topic, live.id, position)?
                && taken.scan.wants(&message)
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
            Offer::Dead(cause) => {
                // A parked key may have a million messages behind it.
                taken.scan.buried();
                self.bury(live, message.position, 0, cause, None)?;
            }
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
}

/// What one receive has taken so far.
struct Taken {
    deliveries: Vec<Delivery>,
    bytes: usize,
    max: usize,
    lease: Option<Duration>,
    fence: u64,
    scan: filtered::Scan,
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

impl Apply for PutGroup {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Status, Error> {
        check_name("group", &self.group)?;
        self.config.validate()?;
        let topic = tx.topic(&self.topic)?;
        let (topic_id, next, priorities) = (topic.id, topic.next, topic.settings.priorities);
        if priorities && self.config.exclusive.is_some() {
            let problem = "does not go with a topic that has `priorities`: it keeps one order";
            return Err(Error::invalid("exclusive", problem));
        }
        let mut row = values![topic_id, &self.group].to_vec();
        let filter = filtered::text(self.config.filter.as_ref());
        row.extend(settings::write(&self.config, filter.as_deref()));
        match tx.group_numbers(&self.topic, &self.group) {
            Ok((_, id)) => {
                let sql = format!("SELECT {} FROM groups WHERE id = ?1", settings::COLUMNS);
                let before = tx.db.one(&sql, &values![id], |row| settings::read(row, 0))?;
                if before.ordered != self.config.ordered {
                    let (kind, name) = ("group", self.group.clone());
                    return Err(Error::Exists { kind, name, difference: "`ordered`" });
                }
                let sql = format!(
                    "UPDATE groups SET ({}) = ({}) WHERE topic = ?1 AND name = ?2",
                    settings::COLUMNS,
                    settings::parameters(3)
                );
                tx.db.write(&sql, &row)?;
                exclusive::changed(&tx.db, id, before.exclusive, self.config.exclusive)?;
                if before.rate != self.config.rate {
                    // What was used of another rate says nothing about this one.
                    tx.db.write("UPDATE groups SET rate_used = 0 WHERE id = ?1", &values![id])?;
                }
                tx.groups.live.remove(&id);
            }
            Err(Error::NotFound { kind: "group", .. }) => {
                let sql = format!(
                    "INSERT INTO groups (topic, name, {}) VALUES (?1, ?2, {}) RETURNING id",
                    settings::COLUMNS,
                    settings::parameters(3)
                );
                let id = tx.db.one(&sql, &row, |row| row.get(0))?;
                let start = resolve(&tx.db, (topic_id, next), self.from)?;
                put_cursors(&tx.db, id, start, priorities)?;
            }
            Err(error) => return Err(error),
        }
        let id = tx.group_numbers(&self.topic, &self.group)?;
        tx.freed.push(id);
        status(&tx.db, tx.now, &self.topic, &self.group)
    }
}

fn put_cursors(db: &impl Db, id: i64, start: u64, priorities: bool) -> Result<(), Error> {
    let lanes = if priorities { 0..=9 } else { PRIORITY_DEFAULT..=PRIORITY_DEFAULT };
    for lane in lanes {
        db.write(
            "INSERT INTO cursors (grp, lane, next) VALUES (?1, ?2, ?3)
             ON CONFLICT (grp, lane) DO UPDATE SET next = excluded.next",
            &values![id, lane, start],
        )?;
    }
    Ok(())
}

impl Apply for DeleteGroup {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let (topic, id) = tx.group_numbers(&self.topic, &self.group)?;
        for table in ["cursors", "exceptions"] {
            tx.db.write(&format!("DELETE FROM {table} WHERE grp = ?1"), &values![id])?;
        }
        // There may be more letters than one commit can take: they go bit by bit.
        tx.db.write("INSERT INTO leavings (kind, id) VALUES (?1, ?2)", &values![LETTERS, id])?;
        tx.db.write("DELETE FROM groups WHERE id = ?1", &values![id])?;
        tx.groups.forget();
        tx.freed.push((topic, id));
        Ok(())
    }
}

impl Apply for Receive {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Vec<Delivery>, Error> {
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let deliveries = tx.receive(&mut live, &self)?;
        tx.put_back(live)?;
        Ok(deliveries)
    }
}

impl Apply for Settle {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Vec<Result<Settled, Stale>>, Error> {
        let (size, max) = (self.replies.len(), tx.config.items_max);
        if size > max {
            return Err(Error::TooLarge { what: "a batch", size, max });
        }
        let too_far = |wait: Duration| wait > Duration::from_secs(366 * 86_400);
        let mut live = tx.take_group(&self.topic, &self.group)?;
        let mut answers = Vec::with_capacity(size);
        for reply in &self.replies {
            if matches!(
                reply.verdict,
                Verdict::Retry { after: Some(wait) } | Verdict::Release { after: wait }
                    if too_far(wait)
            ) {
                return Err(Error::invalid("after", "must be at most a year"));
            }
            let answer = tx.settle(&mut live, reply)?;
            if let (true, Err(stale)) = (self.strict, &answer) {
                if answers.is_empty() {
                    // Nothing has changed: the group need not be read again.
                    tx.put_back(live)?;
                }
                return Err(Error::Stale(*stale));
            }
            answers.push(answer);
        }
        // A key may be free now, or room under a limit.
        tx.freed.push((live.topic, live.id));
        tx.put_back(live)?;
        Ok(answers)
    }
}

impl Apply for Extend {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Vec<Result<Wall, Stale>>, Error> {
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
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let mut live = tx.take_group(&self.topic, &self.group)?;
        live.paused = self.paused;
        tx.db
            .write("UPDATE groups SET paused = ?2 WHERE id = ?1", &values![live.id, self.paused])?;
        tx.freed.push((live.topic, live.id));
        tx.put_back(live)
    }
}

impl Apply for Seek {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let topic = tx.topic(&self.topic)?;
        let (topic_id, next, priorities) = (topic.id, topic.next, topic.settings.priorities);
        let start = resolve(&tx.db, (topic_id, next), self.to)?;
        let (_, id) = tx.group_numbers(&self.topic, &self.group)?;
        tx.db.write("DELETE FROM exceptions WHERE grp = ?1", &values![id])?;
        // Letters on their way back are letters again.
        tx.db.write("UPDATE dead_letters SET redriven = 0 WHERE grp = ?1", &values![id])?;
        put_cursors(&tx.db, id, start, priorities)?;
        tx.groups.live.remove(&id);
        tx.freed.push((topic_id, id));
        Ok(())
    }
}
