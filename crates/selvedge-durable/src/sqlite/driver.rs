//! SQLite, as the operations need it.

use std::cell::Cell;

use rusqlite::{
    CachedStatement, Connection, ToSql,
    types::{ToSqlOutput, ValueRef},
};

use super::checkpoint::Checkpoints;
use crate::{
    Error,
    store::driver::{Begun, Db, Row, Value},
};

/// Parameters of the statement that has most.
const PARAMETERS_MAX: usize = 16;

/// A connection to the file.
pub(super) struct SqliteDb {
    conn: Connection,
    /// Those of the connection that writes.
    checkpoints: Option<Checkpoints>,
    synced: Cell<bool>,
}

impl SqliteDb {
    /// The connection that writes, and copies the log into the file.
    pub(super) const fn writer(conn: Connection, checkpoints: Checkpoints) -> Self {
        Self { conn, checkpoints: Some(checkpoints), synced: Cell::new(true) }
    }

    /// A connection that only reads.
    pub(super) const fn reader(conn: Connection) -> Self {
        Self { conn, checkpoints: None, synced: Cell::new(true) }
    }

    fn prepare(&self, sql: &str, values: &[Value<'_>]) -> Result<CachedStatement<'_>, Error> {
        let mut statement = self.conn.prepare_cached(sql)?;
        bind(&mut statement, values)?;
        Ok(statement)
    }

    fn run(&self, sql: &str) -> Result<(), Error> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

fn bind(statement: &mut CachedStatement<'_>, values: &[Value<'_>]) -> Result<(), Error> {
    for (index, value) in (1..).zip(values) {
        value.check()?;
        statement.raw_bind_parameter(index, value)?;
    }
    Ok(())
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => ValueRef::Null,
            Self::Int(int) => ValueRef::Integer(int),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Row for rusqlite::Row<'_> {
    fn value(&self, column: usize) -> Result<Value<'_>, Error> {
        let value = self.get_ref(column)?;
        let damaged = || Error::Corrupt { what: format!("column {column} holds {value:?}") };
        Ok(match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(int) => Value::Int(int),
            ValueRef::Text(text) => Value::Text(str::from_utf8(text).map_err(|_| damaged())?),
            ValueRef::Blob(bytes) => Value::Blob(bytes),
            ValueRef::Real(_) => return Err(damaged()),
        })
    }
}

impl Db for SqliteDb {
    type Row<'r> = rusqlite::Row<'r>;

    fn each(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut row: impl FnMut(&Self::Row<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut statement = self.prepare(sql, values)?;
        let mut rows = statement.raw_query();
        while let Some(found) = rows.next()? {
            if !row(found)? {
                break;
            }
        }
        Ok(())
    }

    /// A statement's rows come one by one, so there are no parts.
    fn scan(
        &self,
        sql: &str,
        values: &[Value<'_>],
        from: i64,
        max: usize,
        mut row: impl FnMut(&Self::Row<'_>) -> Result<Option<i64>, Error>,
    ) -> Result<(), Error> {
        let mut all = [Value::Null; PARAMETERS_MAX];
        let used = values.len();
        all[..used].copy_from_slice(values);
        all[used..used + 2].copy_from_slice(&[Value::from(from), Value::from(max)]);
        self.each(sql, &all[..used + 2], |found| Ok(row(found)?.is_some()))
    }

    fn write(&self, sql: &str, values: &[Value<'_>]) -> Result<(), Error> {
        self.count(sql, values).map(drop)
    }

    fn count(&self, sql: &str, values: &[Value<'_>]) -> Result<usize, Error> {
        Ok(self.prepare(sql, values)?.raw_execute()?)
    }

    fn write_all<'v, const N: usize>(
        &self,
        sql: &str,
        rows: impl Iterator<Item = [Value<'v>; N]>,
    ) -> Result<(), Error> {
        let mut statement = self.conn.prepare_cached(sql)?;
        for row in rows {
            bind(&mut statement, &row)?;
            statement.raw_execute()?;
        }
        Ok(())
    }

    fn begin(&self, relaxed: bool) -> Result<Begun, Error> {
        if self.checkpoints.is_none() {
            return self.run("BEGIN").map(|()| Begun::alone());
        }
        if relaxed == self.synced.get() {
            self.synced.set(!relaxed);
            let level = if relaxed { "NORMAL" } else { "FULL" };
            self.conn.pragma_update(None, "synchronous", level)?;
        }
        self.run("BEGIN IMMEDIATE").map(|()| Begun::alone())
    }

    fn commit(&self) -> Result<(), Error> {
        self.run("COMMIT")
    }

    fn rollback(&self) -> Result<(), Error> {
        self.run("ROLLBACK")
    }

    fn savepoint(&self) -> Result<(), Error> {
        self.run("SAVEPOINT request")
    }

    fn release(&self) -> Result<(), Error> {
        self.run("RELEASE request")
    }

    fn undo(&self) -> Result<(), Error> {
        self.run("ROLLBACK TO request")?;
        self.run("RELEASE request")
    }

    fn in_transaction(&self) -> bool {
        !self.conn.is_autocommit()
    }

    fn committed(&mut self) {
        if let Some(checkpoints) = &mut self.checkpoints
            && let Err(error) = checkpoints.after_commit(&self.conn)
        {
            tracing::warn!(%error, "checkpoint failed, will be tried again");
        }
    }

    fn idle(&mut self) {
        if let Some(checkpoints) = &self.checkpoints
            && let Err(error) = checkpoints.idle(&self.conn)
        {
            tracing::warn!(%error, "checkpoint failed, will be tried again");
        }
    }
}
