//! What an operator does to the file: check it, copy it, make it small.

use std::{fs::File, path::Path};

use rusqlite::{Connection, Row};

use super::{Sqlite, connect, lock, schema};
use crate::{
    Config, Error,
    store::{record, state, streams},
};

impl Sqlite {
    /// Writes a consistent copy of the store to `to`, beside the work that goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if `to` exists, [`Error::DiskFull`].
    pub fn backup(&self, to: &Path) -> Result<(), Error> {
        copy(&connect(self.config(), false)?, to)
    }
}

/// [`Sqlite::backup`] from outside: of a store that another process may have open.
///
/// # Errors
///
/// As [`Sqlite::backup`].
pub fn backup(config: &Config, to: &Path) -> Result<(), Error> {
    let conn = existing(config)?;
    schema::known(&conn)?;
    copy(&conn, to)
}

fn copy(conn: &Connection, to: &Path) -> Result<(), Error> {
    let failed = |problem: String| Error::Open { path: to.display().to_string(), problem };
    if to.exists() {
        return Err(failed("it exists already".to_owned()));
    }
    conn.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    // SQLite leaves the copy to the system's own pace.
    let synced = File::open(to).and_then(|file| file.sync_all());
    synced.map_err(|error| failed(error.to_string()))
}

/// Makes the file of a store that nobody has open as small as its content.
///
/// # Errors
///
/// [`Error::Open`] if somebody has it open; those of reading and writing.
pub fn compact(config: &Config) -> Result<(), Error> {
    let _lock = lock(&config.path)?;
    let mut conn = existing(config)?;
    schema::migrate(&mut conn)?;
    conn.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
    Ok(())
}

/// Reads everything in a store that nobody has open, and names what is wrong:
/// damaged pages, messages, events and values that fail their checksum, gaps
/// that cannot be.
///
/// # Errors
///
/// [`Error::Open`] if it cannot be read at all.
pub fn verify(config: &Config) -> Result<Vec<String>, Error> {
    let _lock = lock(&config.path)?;
    let conn = existing(config)?;
    let mut problems = Vec::new();
    note(&mut problems, pages(&conn));
    if problems.is_empty() {
        note(&mut problems, messages(&conn));
        note(&mut problems, dead_letters(&conn));
        note(&mut problems, events(&conn));
        note(&mut problems, values(&conn));
        note(&mut problems, relations(&conn));
    }
    Ok(problems)
}

fn existing(config: &Config) -> Result<Connection, Error> {
    if !config.path.exists() {
        let problem = "there is no such file".to_owned();
        return Err(Error::Open { path: config.path.display().to_string(), problem });
    }
    connect(config, false)
}

fn note(problems: &mut Vec<String>, found: Result<Vec<String>, Error>) {
    match found {
        Ok(found) => problems.extend(found),
        Err(error) => problems.push(error.to_string()),
    }
}

fn pages(conn: &Connection) -> Result<Vec<String>, Error> {
    let mut select = conn.prepare("PRAGMA integrity_check(100)")?;
    let mut rows = select.query([])?;
    let mut problems = Vec::new();
    loop {
        // A damaged page can also end the check: what it said before stays.
        match rows.next() {
            Ok(Some(row)) => problems.push(row.get(0)?),
            Ok(None) => break,
            Err(error) => {
                problems.push(Error::from(error).to_string());
                break;
            }
        }
    }
    problems.retain(|problem: &String| problem != "ok");
    Ok(problems)
}

/// Problems of one kind that are named; more say nothing new.
const NAMED_MAX: usize = 100;

/// Reads every row of `sql` and names those in which `wrong` finds something.
fn rows(
    conn: &Connection,
    sql: &str,
    wrong: impl Fn(&Row<'_>) -> Result<Option<String>, Error>,
) -> Result<Vec<String>, Error> {
    let mut select = conn.prepare(sql)?;
    let mut rows = select.query([])?;
    let mut problems = Vec::new();
    while let Some(row) = rows.next()? {
        problems.extend(wrong(row)?);
        if problems.len() >= NAMED_MAX {
            problems.push("and more".to_owned());
            break;
        }
    }
    Ok(problems)
}

fn messages(conn: &Connection) -> Result<Vec<String>, Error> {
    let sql = format!("SELECT id, {} FROM messages ORDER BY id", record::COLUMNS);
    rows(conn, &sql, |row| {
        let id: i64 = row.get(0)?;
        let read = record::message(row, record::position(id), 1);
        Ok(read.err().map(|error| format!("row {id}: {error}")))
    })
}

fn dead_letters(conn: &Connection) -> Result<Vec<String>, Error> {
    let sql = format!("SELECT grp, position, {} FROM dead_letters", record::COLUMNS);
    rows(conn, &sql, |row| {
        let (group, position): (i64, i64) = (row.get(0)?, row.get(1)?);
        let read = record::message(row, position as u64, 2);
        Ok(read.err().map(|error| format!("dead letter of group {group}: {error}")))
    })
}

fn events(conn: &Connection) -> Result<Vec<String>, Error> {
    let sql = format!("SELECT {} FROM events e ORDER BY e.position", streams::COLUMNS);
    rows(conn, &sql, |row| {
        Ok(streams::event(row, String::new()).err().map(|error| error.to_string()))
    })
}

fn values(conn: &Connection) -> Result<Vec<String>, Error> {
    rows(conn, "SELECT key, content_type, value, sum FROM state", |row| {
        let (key, content_type): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        let (value, sum): (Vec<u8>, u32) = (row.get(2)?, row.get(3)?);
        let well = state::sum(&key, content_type.as_deref(), &value) == sum;
        Ok((!well).then(|| format!("key `{key}` fails its checksum")))
    })
}

/// Statements that count what cannot be, with what to say of it.
const RELATIONS: &[(&str, &str)] = &[
    (
        "SELECT count(*) FROM exceptions e WHERE NOT EXISTS (SELECT 1 FROM groups g WHERE g.id = e.grp)",
        "exceptions of groups that are not there",
    ),
    (
        "SELECT count(*) FROM exceptions e JOIN groups g ON g.id = e.grp WHERE e.fence > g.fence",
        "deliveries with a fence greater than their group's",
    ),
    (
        "SELECT count(*) FROM topics t JOIN messages m ON m.id >= t.id << 43 AND m.id < (t.id + 1) << 43
         WHERE NOT t.compact AND EXISTS (SELECT 1 FROM messages n WHERE n.id > m.id AND n.id < (t.id + 1) << 43)
         AND NOT EXISTS (SELECT 1 FROM messages n WHERE n.id = m.id + 1)",
        "gaps between positions of a topic that is not compacted",
    ),
];

fn relations(conn: &Connection) -> Result<Vec<String>, Error> {
    let mut problems = Vec::new();
    for (sql, what) in RELATIONS {
        let count: i64 = conn.query_row(sql, [], |row| row.get(0))?;
        if count > 0 {
            problems.push(format!("{count} {what}"));
        }
    }
    Ok(problems)
}
