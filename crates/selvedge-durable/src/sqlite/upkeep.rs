//! What an operator does to the file: check it, copy it, make it small.

use std::{fs::File, path::Path};

use rusqlite::Connection;

use super::{Sqlite, checkpoint, connect, driver::SqliteDb, let_go, lock, migrate, schema};
use crate::{Config, Error, store::verify};

impl Sqlite {
    /// Writes a consistent copy of the store to `to`, beside the work that goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] if `to` exists, [`Error::DiskFull`].
    pub fn backup(&self, to: &Path) -> Result<(), Error> {
        let _open = self.copying.lock();
        copy(&connect(self.config(), false)?, to)
    }
}

/// [`Sqlite::backup`] from outside: of a store that another process may have open.
///
/// # Errors
///
/// As [`Sqlite::backup`].
pub(crate) fn backup(config: &Config, to: &Path) -> Result<(), Error> {
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
pub(crate) fn compact(config: &Config) -> Result<(), Error> {
    let _lock = lock(&config.path)?;
    let_go(config)?;
    let mut conn = existing(config)?;
    migrate(&mut conn)?;
    conn.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")?;
    checkpoint::on_close(&conn);
    Ok(())
}

/// Reads everything in a store that nobody has open, and names what is wrong:
/// damaged pages, messages, events and values that fail their checksum, gaps
/// that cannot be.
///
/// # Errors
///
/// [`Error::Open`] if it cannot be read at all.
pub(crate) fn verify(config: &Config) -> Result<Vec<String>, Error> {
    let _lock = lock(&config.path)?;
    let conn = existing(config)?;
    let mut problems = Vec::new();
    note(&mut problems, pages(&conn));
    if problems.is_empty() {
        problems = verify::verify(&SqliteDb::reader(conn));
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
