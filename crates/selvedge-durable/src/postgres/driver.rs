//! PostgreSQL, as the operations need it.
//!
//! A round trip costs more than a statement, so what nobody waits for is not
//! sent at once: writes and savepoints queue up and go out together with the
//! next question or with the commit. A savepoint that still stands in the queue
//! when it is released was never needed; one that is undone takes the queue
//! back. Equal inserts that stand one after another become one statement.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use selvedge_patterns::wall::Wall;
use tokio::runtime::Runtime;
use tokio_postgres::Statement;

use super::{
    failure, fatal,
    members::Member,
    session::{Dialer, Session},
    value::{Owned, columns, merged},
};
use crate::{
    Error, Subject,
    store::driver::{Begun, Db, Inboxed, Row, Value},
};

/// Rows of the first part of a scan.
const PART_ROWS: usize = 128;
/// Bytes of a further part, by what the rows before took.
const PART_BYTES: usize = 4 << 20;
/// Bytes that wait to be sent.
const QUEUE_BYTES: usize = 8 << 20;
/// How long a commit whose answer was lost is looked for.
const FIND_COMMIT: Duration = Duration::from_secs(20);

/// A connection to the server.
pub(super) struct PostgresDb {
    runtime: Runtime,
    dialer: RefCell<Dialer>,
    session: RefCell<Option<Session>>,
    queue: RefCell<Queue>,
    /// Whether a transaction is open and nothing has ended it.
    open: Cell<bool>,
    /// What the process is among the others; a reader is nothing.
    pub(super) member: Option<Member>,
}

/// What is to be sent.
enum Step {
    Run { statement: Statement, sql: Arc<str>, values: Vec<Owned>, like: Like },
    Savepoint(Statement),
    Nothing,
}

/// Whether a statement may become one with the one before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Like {
    /// Only with those of the same call.
    Call(u64),
    /// With any of the same text.
    Any,
}

#[derive(Default)]
struct Queue {
    steps: Vec<Step>,
    bytes: usize,
    /// Where the savepoint stands that is not sent yet.
    savepoint: Option<usize>,
    calls: u64,
}

impl Queue {
    fn push(&mut self, step: Step) {
        if let Step::Run { values, .. } = &step {
            self.bytes += values.iter().map(Owned::bytes).sum::<usize>();
        }
        self.steps.push(step);
    }

    fn take(&mut self) -> Vec<Step> {
        self.bytes = 0;
        self.savepoint = None;
        std::mem::take(&mut self.steps)
    }
}

type Sending<'a> =
    Pin<Box<dyn Future<Output = Result<Vec<tokio_postgres::Row>, tokio_postgres::Error>> + 'a>>;

impl PostgresDb {
    pub(super) fn new(runtime: Runtime, dialer: Dialer, member: Option<Member>) -> Self {
        Self {
            runtime,
            dialer: RefCell::new(dialer),
            session: RefCell::new(None),
            queue: RefCell::default(),
            open: Cell::new(false),
            member,
        }
    }

    /// Makes sure that there is a connection.
    pub(super) fn connect(&self) -> Result<(), Error> {
        let mut session = self.session.borrow_mut();
        if session.as_ref().is_none_or(|session| session.client.is_closed()) {
            *session = Some(self.dialer.borrow_mut().dial(&self.runtime)?);
        }
        Ok(())
    }

    /// Looks at a failure: some end the transaction, some the connection.
    fn failed(&self, error: &tokio_postgres::Error) -> Error {
        if fatal(error) {
            self.open.set(false);
            *self.session.borrow_mut() = None;
        }
        failure(error)
    }

    fn statement(&self, sql: &str) -> Result<Statement, Error> {
        if self.session.borrow().is_none() {
            return Err(Error::unreachable("the connection was lost"));
        }
        let mut session = self.session.borrow_mut();
        let Some(open) = session.as_mut() else {
            return Err(Error::unreachable("the connection was lost"));
        };
        let statement = self.runtime.block_on(open.statement(sql));
        drop(session);
        statement.map_err(|error| self.failed(&error))
    }

    /// Sends something with the next question, or with the commit.
    pub(super) fn send(&self, sql: &str, values: &[Value<'_>]) -> Result<(), Error> {
        self.enqueue(sql, values, self.next_call())
    }

    fn enqueue(&self, sql: &str, values: &[Value<'_>], like: Like) -> Result<(), Error> {
        let statement = self.statement(sql)?;
        let values = values.iter().map(Owned::of).collect::<Result<_, _>>()?;
        let mut queue = self.queue.borrow_mut();
        queue.push(Step::Run { statement, sql: sql.into(), values, like });
        let full = queue.bytes > QUEUE_BYTES;
        drop(queue);
        if full || !self.open.get() { self.flush(None).map(drop) } else { Ok(()) }
    }

    /// Sends what waits, and `last` after it; the rows of `last`.
    fn flush(
        &self,
        last: Option<(&Statement, &[Value<'_>])>,
    ) -> Result<Vec<tokio_postgres::Row>, Error> {
        let steps = self.queue.borrow_mut().take();
        let mut groups = self.grouped(steps)?;
        let session = self.session.borrow();
        let Some(open) = session.as_ref() else {
            return Err(Error::unreachable("the connection was lost"));
        };
        let client = &open.client;
        let sent = groups.len();
        let result = self.runtime.block_on(async {
            let mut sending: Vec<Sending<'_>> = Vec::with_capacity(sent + 1);
            for group in &mut groups {
                sending.push(Box::pin(async move {
                    let values: Vec<_> = group.values.iter().map(Owned::parameter).collect();
                    client.query(&group.statement, &values).await
                }));
            }
            if let Some((statement, values)) = last {
                sending.push(Box::pin(async move {
                    let values: Vec<_> = values.iter().map(super::value::parameter).collect();
                    client.query(statement, &values).await
                }));
            }
            in_order(sending).await
        });
        drop(session);
        match result {
            Ok(rows) => Ok(rows),
            Err((index, error)) => {
                let error = self.failed(&error);
                if index < sent {
                    // Whoever asked for it was told that all is well.
                    self.open.set(false);
                }
                Err(error)
            }
        }
    }

    /// Makes one statement of those that may be.
    fn grouped(&self, steps: Vec<Step>) -> Result<Vec<Group>, Error> {
        let mut groups: Vec<Group> = Vec::with_capacity(steps.len());
        let mut last: Option<(Arc<str>, Like, Vec<Vec<Owned>>, Statement)> = None;
        for step in steps {
            match step {
                Step::Nothing => {}
                Step::Savepoint(statement) => {
                    self.close_group(&mut groups, last.take())?;
                    groups.push(Group { statement, values: Vec::new() });
                }
                Step::Run { statement, sql, values, like } => match &mut last {
                    Some((text, other, rows, _)) if *text == sql && *other == like => {
                        rows.push(values);
                    }
                    _ => {
                        self.close_group(&mut groups, last.take())?;
                        last = Some((sql, like, vec![values], statement));
                    }
                },
            }
        }
        self.close_group(&mut groups, last)?;
        Ok(groups)
    }

    fn close_group(
        &self,
        groups: &mut Vec<Group>,
        group: Option<(Arc<str>, Like, Vec<Vec<Owned>>, Statement)>,
    ) -> Result<(), Error> {
        let Some((sql, _, rows, statement)) = group else { return Ok(()) };
        if rows.len() > 1
            && let Some(sql) = merged(&sql, statement.params())
        {
            let statement = self.statement(&sql)?;
            groups.push(Group { statement, values: columns(rows) });
            return Ok(());
        }
        groups
            .extend(rows.into_iter().map(|values| Group { statement: statement.clone(), values }));
        Ok(())
    }

    fn ask(&self, sql: &str, values: &[Value<'_>]) -> Result<Vec<tokio_postgres::Row>, Error> {
        for value in values {
            value.check()?;
        }
        let statement = self.statement(sql)?;
        self.flush(Some((&statement, values)))
    }

    fn begin_once(&self, relaxed: bool) -> Result<Begun, Error> {
        self.forget_queue();
        self.connect()?;
        self.open.set(true);
        match &self.member {
            Some(member) => {
                self.send("BEGIN", &[])?;
                member.begin(self, relaxed)
            }
            None => {
                self.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", &[])?;
                Ok(Begun::alone())
            }
        }
    }

    /// The transaction changes something.
    fn wrote(&self) {
        if let Some(member) = &self.member {
            member.wrote.set(true);
        }
    }

    fn next_call(&self) -> Like {
        let mut queue = self.queue.borrow_mut();
        queue.calls += 1;
        Like::Call(queue.calls)
    }

    fn forget_queue(&self) {
        drop(self.queue.borrow_mut().take());
    }

    /// After a commit whose answer was lost: whether it was done. Locking the
    /// row waits for a server that is still busy with it.
    fn find_commit(&self, member: &Member) -> Result<(), Error> {
        let until = Instant::now() + FIND_COMMIT;
        while Instant::now() < until {
            let found = self.connect().and_then(|()| {
                self.open.set(true);
                let sql = "SELECT version FROM store FOR UPDATE";
                self.ask("BEGIN", &[]).and_then(|_| self.ask(sql, &[]))?;
                let sql = "SELECT version FROM members WHERE id = ?1";
                let rows = self.ask(sql, &[Value::from(&member.id)])?;
                // A commit of our own, so that a standby has all before it too.
                let sql = "UPDATE members SET seen = seen + 1 WHERE id = ?1";
                self.ask(sql, &[Value::from(&member.id)])?;
                self.ask("COMMIT", &[])?;
                self.open.set(false);
                Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0)))
            });
            self.open.set(false);
            match found {
                Ok(version) if version == member.writing.get() => return Ok(()),
                Ok(_) => return Err(Error::unreachable("the connection was lost in a commit")),
                Err(error) => {
                    tracing::warn!(%error, "looking for a commit whose answer was lost");
                    self.forget_queue();
                    *self.session.borrow_mut() = None;
                    std::thread::park_timeout(Duration::from_millis(100));
                }
            }
        }
        Err(Error::Unknown)
    }
}

/// Statements that became one, or one.
struct Group {
    statement: Statement,
    values: Vec<Owned>,
}

/// Sends everything in this order before it waits for the first answer; the
/// rows of the last, or the first failure and its place.
async fn in_order(
    mut sending: Vec<Sending<'_>>,
) -> Result<Vec<tokio_postgres::Row>, (usize, tokio_postgres::Error)> {
    let mut answers: Vec<Option<Result<_, _>>> = Vec::new();
    answers.resize_with(sending.len(), || None);
    // A question is sent when its future is looked at first.
    std::future::poll_fn(|context| {
        for (future, answer) in sending.iter_mut().zip(&mut answers) {
            if let Poll::Ready(ready) = future.as_mut().poll(context) {
                *answer = Some(ready);
            }
        }
        Poll::Ready(())
    })
    .await;
    let mut result = Ok(Vec::new());
    for (index, (future, answer)) in sending.into_iter().zip(answers).enumerate() {
        let answer = match answer {
            Some(answer) => answer,
            None => future.await,
        };
        if result.is_ok() {
            result = answer.map_err(|error| (index, error));
        }
    }
    result
}

impl Db for PostgresDb {
    type Row<'r> = Found;

    fn each(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut row: impl FnMut(&Self::Row<'_>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if sql.starts_with("INSERT") {
            self.wrote();
        }
        for found in self.ask(sql, values)? {
            if !row(&Found(found))? {
                break;
            }
        }
        Ok(())
    }

    fn scan(
        &self,
        sql: &str,
        values: &[Value<'_>],
        mut from: i64,
        max: usize,
        mut row: impl FnMut(&Self::Row<'_>) -> Result<Option<i64>, Error>,
    ) -> Result<(), Error> {
        let (mut left, mut part) = (max, PART_ROWS);
        while left > 0 {
            let wanted = part.min(left);
            let mut all = values.to_vec();
            all.extend([Value::from(from), Value::from(wanted)]);
            let rows = self.ask(sql, &all)?;
            let bytes: usize = rows.iter().map(tokio_postgres::Row::raw_size_bytes).sum();
            let count = rows.len();
            for found in rows {
                let Some(next) = row(&Found(found))? else { return Ok(()) };
                from = next;
            }
            if count < wanted {
                return Ok(());
            }
            left -= count;
            part = (PART_BYTES / (bytes / count).max(1)).clamp(1, 4096);
        }
        Ok(())
    }

    fn write(&self, sql: &str, values: &[Value<'_>]) -> Result<(), Error> {
        self.wrote();
        let plain = sql.starts_with("INSERT") && !sql.contains("ON CONFLICT");
        let like = if plain { Like::Any } else { self.next_call() };
        self.enqueue(sql, values, like)
    }

    fn count(&self, sql: &str, values: &[Value<'_>]) -> Result<usize, Error> {
        self.wrote();
        let sql = format!("WITH changed AS ({sql} RETURNING 1) SELECT count(*) FROM changed");
        let rows = self.ask(&sql, values)?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0)) as usize)
    }

    fn write_all<'v, const N: usize>(
        &self,
        sql: &str,
        rows: impl Iterator<Item = [Value<'v>; N]>,
    ) -> Result<(), Error> {
        self.wrote();
        let like = self.next_call();
        for row in rows {
            self.enqueue(sql, &row, like)?;
        }
        Ok(())
    }

    fn begin(&mut self, relaxed: bool) -> Result<Begun, Error> {
        let begun = self.begin_once(relaxed);
        // A connection that ended while nobody used it is found out about here.
        if begun.is_err() && self.session.borrow().is_none() {
            return self.begin_once(relaxed);
        }
        begun
    }

    fn announce(
        &self,
        topics: &[i64],
        resources: &[String],
        news: &[Subject],
    ) -> Result<(), Error> {
        let announce = |member: &Member| member.announce(self, topics, resources, news);
        self.member.as_ref().map_or(Ok(()), announce)
    }

    fn commit(&mut self) -> Result<(), Error> {
        if !self.open.get() {
            self.forget_queue();
            return Err(Error::unreachable("the transaction was lost"));
        }
        // A server that ends a transaction that failed calls that a success.
        let wrote = match &self.member {
            Some(member) => member.finish(self)?,
            None => false,
        };
        let committed = self.ask("COMMIT", &[]);
        let lost = self.session.borrow().is_none();
        self.open.set(false);
        match (committed, &self.member) {
            (Err(_), Some(member)) if wrote && lost => self.find_commit(member)?,
            (committed, _) => drop(committed?),
        }
        if let Some(member) = &self.member {
            member.committed();
        }
        Ok(())
    }

    fn rollback(&self) -> Result<(), Error> {
        self.forget_queue();
        let ended = self.ask("ROLLBACK", &[]).map(drop);
        self.open.set(false);
        ended
    }

    fn savepoint(&self) -> Result<(), Error> {
        let statement = self.statement("SAVEPOINT request")?;
        let mut queue = self.queue.borrow_mut();
        queue.savepoint = Some(queue.steps.len());
        queue.push(Step::Savepoint(statement));
        Ok(())
    }

    fn release(&self) -> Result<(), Error> {
        let mut queue = self.queue.borrow_mut();
        if let Some(place) = queue.savepoint.take() {
            queue.steps[place] = Step::Nothing;
            return Ok(());
        }
        drop(queue);
        self.enqueue("RELEASE SAVEPOINT request", &[], self.next_call())
    }

    fn undo(&self) -> Result<(), Error> {
        let mut queue = self.queue.borrow_mut();
        if let Some(place) = queue.savepoint.take() {
            queue.steps.truncate(place);
            return Ok(());
        }
        drop(queue.take());
        drop(queue);
        self.ask("ROLLBACK TO SAVEPOINT request", &[])?;
        self.ask("RELEASE SAVEPOINT request", &[]).map(drop)
    }

    fn in_transaction(&self) -> bool {
        self.open.get()
    }

    fn next_look(&self) -> Option<Duration> {
        self.member.as_ref().map(Member::next_look)
    }

    fn inbox(&self, now: Wall) -> Result<Vec<Inboxed>, Error> {
        super::inbox::take(self, now)
    }

    fn refuse(&self, refused: &Inboxed, why: &Error) -> Result<(), Error> {
        super::inbox::refuse(self, refused, why)
    }

    fn close(&mut self) {
        if let Some(member) = &self.member {
            member.leave(self);
        }
    }
}

/// A row; its `get` is that of [`Row`].
pub(super) struct Found(tokio_postgres::Row);

impl Row for Found {
    fn value(&self, column: usize) -> Result<Value<'_>, Error> {
        self.0.try_get(column).map_err(|error| Error::Corrupt { what: error.to_string() })
    }
}
