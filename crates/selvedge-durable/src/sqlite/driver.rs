//! SQLite, as the operations need it.

use std::time::Duration;

use rusqlite::{
    CachedStatement, Connection, ToSql,
    types::{ToSqlOutput, ValueRef},
};

use super::keeper::Keeper;
use crate::{
    Error,
    store::driver::{Begun, Db, Row, Value},
};

/// Parameters of the statement that has most.
const PARAMETERS_MAX: usize = 16;

/// A connection to the file.
pub(super) struct SqliteDb {
    /// The writer has none while it cannot be opened anew.
    conn: Option<Connection>,
    /// That of the connection that writes.
    keeper: Option<Box<Keeper>>,
    /// Whether a commit is synced.
    synced: bool,
}

impl SqliteDb {
    /// The connection that writes, and copies the log into the file.
    pub(super) fn writer(conn: Connection, keeper: Keeper) -> Self {
        Self { conn: Some(conn), keeper: Some(Box::new(keeper)), synced: true }
    }

    /// A connection that only reads.
    pub(super) const fn reader(conn: Connection) -> Self {
        Self { conn: Some(conn), keeper: None, synced: true }
    }

    fn conn(&self) -> Result<&Connection, Error> {
        let why = || self.keeper.as_ref().and_then(|keeper| keeper.why()).unwrap_or(Error::Closed);
        self.conn.as_ref().ok_or_else(why)
    }

    fn prepare(&self, sql: &str, values: &[Value<'_>]) -> Result<CachedStatement<'_>, Error> {
        let mut statement = self.conn()?.prepare_cached(sql)?;
        bind(&mut statement, values)?;
        Ok(statement)
    }

    fn run(&self, sql: &str) -> Result<(), Error> {
        self.conn()?.prepare_cached(sql)?.execute([])?;
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
        let mut statement = self.conn()?.prepare_cached(sql)?;
        for row in rows {
            bind(&mut statement, &row)?;
            statement.raw_execute()?;
        }
        Ok(())
    }

    fn begin(&mut self, relaxed: bool) -> Result<Begun, Error> {
        let Some(keeper) = &mut self.keeper else {
            return self.run("BEGIN").map(|()| Begun::alone());
        };
        let changed = keeper.trust(&mut self.conn)?;
        // A new connection syncs.
        self.synced |= changed;
        let Some(conn) = &self.conn else { return Err(Error::Closed) };
        let synced = !keeper.relax(conn, relaxed);
        if synced != self.synced {
            let level = if synced { "FULL" } else { "NORMAL" };
            conn.pragma_update(None, "synchronous", level)?;
            self.synced = synced;
        }
        self.run("BEGIN IMMEDIATE")?;
        Ok(Begun { changed, ..Begun::alone() })
    }

    fn commit(&mut self) -> Result<(), Error> {
        let result = self.run("COMMIT");
        if let (Some(keeper), Some(conn)) = (&mut self.keeper, &self.conn) {
            match &result {
                Ok(()) if self.synced => keeper.synced(conn),
                Ok(()) => {}
                Err(error) => keeper.met(error, true),
            }
        }
        result
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
        self.conn.as_ref().is_some_and(|conn| !conn.is_autocommit())
    }

    fn committed(&mut self) {
        if let (Some(keeper), Some(conn)) = (&mut self.keeper, &self.conn) {
            keeper.after_commit(conn);
        }
    }

    fn idle(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.idle(&mut self.conn);
        }
    }

    fn next_look(&self) -> Option<Duration> {
        self.keeper.as_ref().and_then(|keeper| keeper.next_look())
    }

    fn close(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.close(&mut self.conn);
        }
    }
}
