//! The tables, and how an older file becomes a newer one.

use rusqlite::Connection;

use crate::Error;

/// Marks the file as ours ("SVDG").
const APPLICATION_ID: i32 = 0x5356_4447;

/// Forward only: step `n` takes a file from version `n` to `n + 1`. A step that
/// was released is never edited.
const MIGRATIONS: &[&str] = &[
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
    include_str!("schema/0007.sql"),
    include_str!("schema/0008.sql"),
    include_str!("schema/0009.sql"),
    include_str!("schema/0010.sql"),
    include_str!("schema/0011.sql"),
];

/// The version this program writes.
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// Brings the file to [`VERSION`].
pub(super) fn migrate(conn: &mut Connection) -> Result<(), Error> {
    let found = known(conn)?;
    if found == VERSION {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for step in MIGRATIONS.iter().skip(found as usize) {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", VERSION)?;
    tx.commit()?;
    Ok(())
}

/// The version of the file, if this program can read it.
pub(super) fn known(conn: &Connection) -> Result<u32, Error> {
    let found = version(conn)?;
    if found > VERSION {
        return Err(Error::Newer { found, known: VERSION });
    }
    Ok(found)
}

/// The version of the file: 0 if it is empty.
fn version(conn: &Connection) -> Result<u32, Error> {
    let application: i32 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: u32 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 && application != APPLICATION_ID {
        let path = conn.path().unwrap_or_default().to_owned();
        let problem = "it is an SQLite file of another program".to_owned();
        return Err(Error::Open { path, problem });
    }
    Ok(version)
}
