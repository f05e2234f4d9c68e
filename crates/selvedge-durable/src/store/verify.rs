//! Reads everything in a store and names what is not as it was written: rows
//! that fail their checksum, positions and versions that are missing, rows of
//! things that are not there.

use super::{
    driver::{Db, Row, values},
    record, state, streams,
};
use crate::Error;

/// Problems of one kind that are named; more say nothing new.
const NAMED_MAX: usize = 100;

/// Everything that is wrong, in words.
pub(crate) fn verify(db: &impl Db) -> Vec<String> {
    let checks = [messages, dead_letters, events, kept_values, missing_events, dangling];
    let mut problems = Vec::new();
    for check in checks {
        let mut found = Named::default();
        let read = check(db, &mut found);
        problems.append(&mut found.0);
        // A damaged part can also end the reading.
        problems.extend(read.err().map(|error| error.to_string()));
    }
    problems
}

/// Problems of one kind, not too many of them.
#[derive(Default)]
struct Named(Vec<String>);

impl Named {
    fn full(&self) -> bool {
        self.0.len() > NAMED_MAX
    }

    fn say(&mut self, problem: impl Into<Option<String>>) {
        match problem.into() {
            Some(_) if self.0.len() == NAMED_MAX => self.0.push("and more".to_owned()),
            Some(problem) if self.0.len() < NAMED_MAX => self.0.push(problem),
            _ => {}
        }
    }
}

/// A topic on the way through its messages.
struct Topic {
    id: i64,
    name: String,
    head: u64,
    compact: bool,
}

fn messages<D: Db>(db: &D, named: &mut Named) -> Result<(), Error> {
    let topics: Vec<Topic> = db.all(
        "SELECT id, name, head, compact FROM topics WHERE name IS NOT NULL ORDER BY id",
        &[],
        |row| {
            let (id, name, head, compact) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Topic { id, name, head, compact })
        },
    )?;
    let mut at = topics.into_iter().peekable();
    let mut last: Option<u64> = None;
    // Where a topic ends: not before the place that was given out.
    let end = |topic: &Topic, last: Option<u64>| {
        let last = last?;
        (last + 1 < topic.head).then(|| missing(topic, last + 1, topic.head - 1))
    };
    let sql =
        format!("SELECT id, {} FROM messages WHERE id > ?1 ORDER BY id LIMIT ?2", record::COLUMNS);
    db.scan(&sql, &[], -1, usize::MAX, |row| {
        let id: i64 = row.get(0)?;
        let (of, position) = (record::topic(id), record::position(id));
        while let Some(topic) = at.next_if(|topic| topic.id < of) {
            named.say(end(&topic, last.take()));
        }
        // Those of a deleted topic go bit by bit.
        let Some(topic) = at.peek().filter(|topic| topic.id == of) else { return Ok(Some(id)) };
        if let Some(last) = last.filter(|last| !topic.compact && last + 1 < position) {
            named.say(missing(topic, last + 1, position - 1));
        }
        last = Some(position);
        let read = record::message(row, position, 1);
        named.say(read.err().map(|error| format!("topic `{}`: {error}", topic.name)));
        Ok((!named.full()).then_some(id))
    })?;
    if let Some(topic) = at.next() {
        named.say(end(&topic, last));
    }
    Ok(())
}

fn missing(topic: &Topic, from: u64, to: u64) -> String {
    let which =
        if from == to { format!("position {from}") } else { format!("positions {from} to {to}") };
    format!("topic `{}`: {which} missing", topic.name)
}

/// Rows of a table without a number of its own that are read at a time.
const PAGE: usize = 32;

fn dead_letters<D: Db>(db: &D, named: &mut Named) -> Result<(), Error> {
    let sql = format!(
        "SELECT grp, position, {} FROM dead_letters WHERE grp > ?1 OR grp = ?1 AND position > ?2
         ORDER BY grp, position LIMIT {PAGE}",
        record::COLUMNS
    );
    let (mut last, mut count) = ((-1, -1), PAGE);
    while count == PAGE && !named.full() {
        count = 0;
        db.each(&sql, &values![last.0, last.1], |row| {
            last = (row.get::<i64>(0)?, row.get::<i64>(1)?);
            let (group, position) = last;
            let read = record::message(row, position as u64, 2);
            named.say(read.err().map(|error| format!("dead letter of group {group}: {error}")));
            count += 1;
            Ok(true)
        })?;
    }
    Ok(())
}

fn events<D: Db>(db: &D, named: &mut Named) -> Result<(), Error> {
    let sql = format!(
        "SELECT {} FROM events e WHERE e.position > ?1 ORDER BY e.position LIMIT ?2",
        streams::COLUMNS
    );
    db.scan(&sql, &[], -1, usize::MAX, |row| {
        let position: i64 = row.get(0)?;
        named.say(streams::event(row, String::new()).err().map(|error| error.to_string()));
        Ok((!named.full()).then_some(position))
    })
}

fn kept_values<D: Db>(db: &D, named: &mut Named) -> Result<(), Error> {
    let sql = format!(
        "SELECT key, content_type, value, sum FROM state WHERE key > ?1 ORDER BY key LIMIT {PAGE}"
    );
    let (mut last, mut count) = (String::new(), PAGE);
    while count == PAGE && !named.full() {
        count = 0;
        let after = last.clone();
        db.each(&sql, &values![&after], |row| {
            last = row.get(0)?;
            let (content_type, value): (Option<&str>, &[u8]) = (row.get(1)?, row.get(2)?);
            let well = state::sum(&last, content_type, value) == row.get::<u32>(3)?;
            named.say((!well).then(|| format!("key `{last}` fails its checksum")));
            count += 1;
            Ok(true)
        })?;
    }
    Ok(())
}

fn missing_events<D: Db>(db: &D, named: &mut Named) -> Result<(), Error> {
    let sql = "SELECT s.name, s.next - s.first, count(e.version) FROM streams s
         LEFT JOIN events e ON e.stream = s.id AND e.version >= s.first AND e.version < s.next
         GROUP BY s.id, s.name, s.next, s.first HAVING count(e.version) <> s.next - s.first";
    db.each(sql, &[], |row| {
        let (name, expected, found): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        named.say(format!("stream `{name}` has {found} events of {expected}"));
        Ok(!named.full())
    })
}

/// Statements that count what cannot be, with what to say of it. Dead letters of a
/// group that is gone, and events below their stream's first, can be: see `leavings`.
const DANGLING: &[(&str, &str)] = &[
    (
        "SELECT count(*) FROM exceptions e WHERE NOT EXISTS (SELECT 1 FROM groups g WHERE g.id = e.grp)",
        "exceptions of groups that are not there",
    ),
    (
        "SELECT count(*) FROM cursors c WHERE NOT EXISTS (SELECT 1 FROM groups g WHERE g.id = c.grp)",
        "cursors of groups that are not there",
    ),
    (
        "SELECT count(*) FROM groups g WHERE NOT EXISTS (SELECT 1 FROM topics t WHERE t.id = g.topic)",
        "groups of topics that are not there",
    ),
    (
        "SELECT count(*) FROM delayed d WHERE NOT EXISTS (SELECT 1 FROM topics t WHERE t.id = d.topic)",
        "delayed messages of topics that are not there",
    ),
    (
        "SELECT count(*) FROM events e WHERE NOT EXISTS (SELECT 1 FROM streams s WHERE s.id = e.stream)",
        "events of streams that are not there",
    ),
    (
        "SELECT count(*) FROM exceptions e JOIN groups g ON g.id = e.grp WHERE e.fence > g.fence",
        "deliveries with a fence greater than their group's",
    ),
];

fn dangling<D: Db>(db: &D, named: &mut Named) -> Result<(), Error> {
    for (sql, what) in DANGLING {
        let count: i64 = db.one(sql, &[], |row| row.get(0))?;
        named.say((count > 0).then(|| format!("{count} {what}")));
    }
    Ok(())
}
