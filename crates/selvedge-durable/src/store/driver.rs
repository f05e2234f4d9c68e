//! What the operations need of a database, so that they are written once.
//!
//! Statements are one text for every database: parameters are `?1`, `?2`, …,
//! numbers and truths are 64-bit integers. A driver borrows parameters and
//! columns; on the way to SQLite and back nothing is copied.

use std::time::Duration;

use bytes::Bytes;
use selvedge_patterns::wall::Wall;

use crate::{Error, Subject, topic::NewMessage};

/// A parameter of a statement, or a column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl Value<'_> {
    /// Fails for what not every database can hold.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Text(text) if text.contains('\0') => {
                Err(Error::invalid("text", "must not contain the character NUL"))
            }
            _ => Ok(()),
        }
    }
}

/// Parameters, each from anything that [`Value`] is made from.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::store::driver::Value::from($value)),*] };
}
pub(crate) use values;

/// A database connection with a transaction at hand.
///
/// Only one statement's rows are read at a time, except that `row` of
/// [`Self::each`] and [`Self::scan`] may ask further statements.
pub(crate) trait Db {
    /// A row of an answer.
    type Row<'r>: Row;

    /// Hands the rows of a statement to `row`, until it says `false`.
    fn each(
        &self,
        sql: &str,
        values: &[Value<'_>],
        row: impl FnMut(&Self::Row<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error>;

    /// Hands at most `max` rows to `row` without holding more than a part of
    /// them in memory, until it says `None`; `Some` is where to go on after that
    /// row. The last two parameters of `sql` are where to begin and how many.
    fn scan(
        &self,
        sql: &str,
        values: &[Value<'_>],
        from: i64,
        max: usize,
        row: impl FnMut(&Self::Row<'_>) -> Result<Option<i64>, Error>,
    ) -> Result<(), Error>;

    /// Changes something. Whether it failed may be known only later, but never
    /// later than the commit, which fails then.
    fn write(&self, sql: &str, values: &[Value<'_>]) -> Result<(), Error>;

    /// Changes something, and says how many rows.
    fn count(&self, sql: &str, values: &[Value<'_>]) -> Result<usize, Error>;

    /// Changes something with each of these rows of parameters, no two of which
    /// may concern the same row of the database.
    fn write_all<'v, const N: usize>(
        &self,
        sql: &str,
        rows: impl Iterator<Item = [Value<'v>; N]>,
    ) -> Result<(), Error>;

    /// The first row, if there is one.
    fn find<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnOnce(&Self::Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let (mut read, mut found) = (Some(read), None);
        self.each(sql, values, |row| {
            found = read.take().map(|read| read(row)).transpose()?;
            Ok(false)
        })?;
        Ok(found)
    }

    /// The only row, of a statement that always has one.
    fn one<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnOnce(&Self::Row<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.find(sql, values, read)?
            .ok_or_else(|| Error::Corrupt { what: format!("no row for `{sql}`") })
    }

    /// Every row.
    fn all<T>(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut read: impl FnMut(&Self::Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        self.each(sql, values, |row| {
            all.push(read(row)?);
            Ok(true)
        })?;
        Ok(all)
    }

    /// Starts a transaction; a `relaxed` one need not be on disk when it is committed.
    fn begin(&mut self, relaxed: bool) -> Result<Begun, Error>;

    /// Tells other processes, once the transaction lasts, that there may be
    /// something in these topics and of these resources for those who wait, and
    /// something new for those who watch.
    fn announce(
        &self,
        _topics: &[i64],
        _resources: &[String],
        _news: &[Subject],
    ) -> Result<(), Error> {
        Ok(())
    }

    /// Makes the transaction last.
    fn commit(&mut self) -> Result<(), Error>;

    /// Undoes the transaction.
    fn rollback(&self) -> Result<(), Error>;

    /// Remembers this point of the transaction.
    fn savepoint(&self) -> Result<(), Error>;

    /// Forgets the point that was remembered last.
    fn release(&self) -> Result<(), Error>;

    /// Undoes what came after the point that was remembered last, and forgets it.
    fn undo(&self) -> Result<(), Error>;

    /// Whether the transaction is still there: a failure may have ended it.
    fn in_transaction(&self) -> bool;

    /// What is to be done after a commit.
    fn committed(&mut self) {}

    /// What is to be done while nothing else is.
    fn idle(&mut self) {}

    /// When a transaction is due even if nobody asks for one.
    fn next_look(&self) -> Option<Duration> {
        None
    }

    /// Messages that others handed in at the database itself; they leave it with
    /// the transaction at hand.
    fn inbox(&self, _now: Wall) -> Result<Vec<Inboxed>, Error> {
        Ok(Vec::new())
    }

    /// Keeps one of those that cannot be published.
    fn refuse(&self, _refused: &Inboxed, _why: &Error) -> Result<(), Error> {
        Ok(())
    }

    /// Nothing will be asked any more.
    fn close(&mut self) {
        self.idle();
    }
}

/// A transaction that has begun, and what happened since the one before.
pub(crate) struct Begun {
    /// Whether another process changed something, or what was not synced is gone.
    pub(crate) changed: bool,
    /// Whether this process does what is due.
    pub(crate) leads: bool,
    /// The time that others have reached.
    pub(crate) at_least: Wall,
    /// Topics in which others stirred something.
    pub(crate) topics: Vec<i64>,
    /// Resources that others released.
    pub(crate) resources: Vec<String>,
    /// Whether others may have stirred anything.
    pub(crate) everybody: bool,
}

impl Begun {
    /// In a store that only this process has open.
    pub(crate) const fn alone() -> Self {
        Self {
            changed: false,
            leads: true,
            at_least: Wall::ZERO,
            topics: Vec::new(),
            resources: Vec::new(),
            everybody: false,
        }
    }
}

/// A message that was handed in at the database itself.
pub(crate) struct Inboxed {
    pub(crate) number: i64,
    pub(crate) topic: String,
    pub(crate) message: NewMessage,
}

/// A row of an answer.
pub(crate) trait Row {
    /// The value in a column.
    fn value(&self, column: usize) -> Result<Value<'_>, Error>;

    /// The value in a column, as what it is.
    fn get<'r, T: Column<'r>>(&'r self, column: usize) -> Result<T, Error> {
        let value = self.value(column)?;
        T::read(value).ok_or_else(|| Error::Corrupt {
            what: format!("column {column} holds what cannot be there: {value:?}"),
        })
    }
}

/// What a column can hold.
pub(crate) trait Column<'r>: Sized {
    fn read(value: Value<'r>) -> Option<Self>;
}

impl<'r, T: Column<'r>> Column<'r> for Option<T> {
    fn read(value: Value<'r>) -> Option<Self> {
        if value == Value::Null { Some(None) } else { T::read(value).map(Some) }
    }
}

impl Column<'_> for i64 {
    fn read(value: Value<'_>) -> Option<Self> {
        if let Value::Int(int) = value { Some(int) } else { None }
    }
}

impl<'r> Column<'r> for &'r str {
    fn read(value: Value<'r>) -> Option<Self> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }
}

impl<'r> Column<'r> for &'r [u8] {
    fn read(value: Value<'r>) -> Option<Self> {
        if let Value::Blob(bytes) = value { Some(bytes) } else { None }
    }
}

/// Columns that are made from another kind of column.
macro_rules! columns {
    ($($column:ty, $of:ty, $from:expr;)*) => { $(
        impl<'r> Column<'r> for $column {
            fn read(value: Value<'r>) -> Option<Self> {
                let from: fn($of) -> Option<Self> = $from;
                <$of>::read(value).and_then(from)
            }
        }
    )* };
}

columns! {
    u64, i64, |int| u64::try_from(int).ok();
    u32, i64, |int| u32::try_from(int).ok();
    usize, i64, |int| usize::try_from(int).ok();
    u8, i64, |int| u8::try_from(int).ok();
    bool, i64, |int| Some(int != 0);
    Wall, u64, |micros| Some(Wall::from_micros(micros));
    Duration, u64, |micros| Some(Duration::from_micros(micros));
    String, &'r str, |text| Some(text.to_owned());
    Bytes, &'r [u8], |bytes| Some(Bytes::copy_from_slice(bytes));
}

/// Numbers beyond the range become its end; none that is counted gets there.
macro_rules! integers {
    ($($integer:ty),*) => { $(
        impl From<$integer> for Value<'_> {
            fn from(int: $integer) -> Self {
                Self::Int(i64::try_from(int).unwrap_or(i64::MAX))
            }
        }
    )* };
}

integers!(i64, u64, u32, u8, usize);

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Int(i64::from(truth))
    }
}

impl From<Wall> for Value<'_> {
    fn from(at: Wall) -> Self {
        Self::from(at.as_micros())
    }
}

impl From<Duration> for Value<'_> {
    fn from(duration: Duration) -> Self {
        Self::Int(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(bytes)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
