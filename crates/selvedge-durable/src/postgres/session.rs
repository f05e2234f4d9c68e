//! A connection to the server, fit to keep what is acknowledged.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Statement};

use super::{
    address::{Address, DIRECT, POOLED},
    failure, schema,
};
use crate::Error;

/// The shortest time between two attempts to connect; it doubles up to the longest.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// The first version of the server that will do.
const VERSION_MIN: i32 = 150_000;

/// A connection with its prepared statements.
pub(super) struct Session {
    pub(super) client: Client,
    statements: HashMap<String, Statement>,
}

impl Session {
    /// Connects, and checks what the server promises.
    pub(super) async fn open(address: &Address) -> Result<Self, Error> {
        let run = |connection| tokio::spawn(connection_ends(connection));
        let (client, _) = address.connect(run).await?;
        let synchronous = fit(&client, address).await?;
        // Said even where it is so already: it may be changed there at any time.
        let mut set = format!(
            "SET search_path = \"{}\"; SET synchronous_commit = {synchronous};",
            address.schema
        );
        // A process that stands still must not hold the others up. Every question
        // has its index; a plan that was made while a table was small must not
        // read all of it when it is large.
        set.push_str(
            "SET idle_in_transaction_session_timeout = '5s'; SET lock_timeout = '10s';
             SET statement_timeout = '60s'; SET default_transaction_isolation = 'read committed';
             SET client_min_messages = warning;
             SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;
             SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan; SET jit = off;",
        );
        client.batch_execute(&set).await.map_err(|e| failure(&e))?;
        Ok(Self { client, statements: HashMap::new() })
    }

    /// A statement, prepared the first time that it is asked for.
    pub(super) async fn statement(
        &mut self,
        sql: &str,
    ) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&sql.replace('?', "$")).await?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// Fails unless the server keeps what is acknowledged; the `synchronous_commit`
/// with which it does.
async fn fit(client: &Client, address: &Address) -> Result<&'static str, Error> {
    let unfit = |problem: &str| {
        Err(Error::Unfit { place: address.shown.clone(), problem: problem.to_owned() })
    };
    let sql = format!(
        "SELECT current_setting('server_version_num')::int4, current_setting('{DIRECT}', true),
           current_setting('fsync'), current_setting('server_encoding'),
           current_setting('full_page_writes'), current_setting('synchronous_commit')"
    );
    let rows = client.simple_query(&sql).await.map_err(|e| failure(&e))?;
    let row = rows.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let setting = |column| row.and_then(|row| row.get(column)).unwrap_or_default();
    let version: i32 = setting(0).parse().unwrap_or(0);
    if version < VERSION_MIN {
        let text = format!(
            "it is version {}, and the first that will do is {}",
            version / 10_000,
            VERSION_MIN / 10_000
        );
        return unfit(&text);
    }
    if setting(1) != "on" {
        return unfit(POOLED);
    }
    if setting(2) != "on" {
        return unfit(
            "`fsync` is off there: what is acknowledged would not be kept. Set `fsync = on`",
        );
    }
    if setting(3) != "UTF8" {
        return unfit(
            "its encoding is not UTF8: make a database with `createdb -E UTF8 -T template0`",
        );
    }
    if setting(4) != "on" && address.news("full_page_writes") {
        tracing::warn!("`full_page_writes` is off there: a power cut may damage the store");
    }
    Ok(match setting(5) {
        "local" => {
            if address.news("local") {
                tracing::warn!(
                    "`synchronous_commit` is `local` there: a standby that takes over may lack what was acknowledged"
                );
            }
            "local"
        }
        "remote_write" => "remote_write",
        "remote_apply" => "remote_apply",
        "on" => "on",
        _ => {
            if address.news("synchronous_commit") {
                tracing::warn!(
                    "`synchronous_commit` is off there: it is on for this store, which acknowledges what is on disk"
                );
            }
            "on"
        }
    })
}

async fn connection_ends<C: Future<Output = Result<(), tokio_postgres::Error>>>(connection: C) {
    if let Err(error) = connection.await {
        tracing::warn!(error = %super::sentence(&error), "a connection to the database ended");
    }
}

/// Connects again after a connection was lost, but not too often.
pub(super) struct Dialer {
    pub(super) address: Address,
    again: Option<(Instant, Duration, Error)>,
}

impl Dialer {
    pub(super) const fn new(address: Address) -> Self {
        Self { address, again: None }
    }

    /// A session; at once the error of before, if it is too early to try again.
    pub(super) fn dial(&mut self, runtime: &Runtime) -> Result<Session, Error> {
        let wait = match &self.again {
            Some((at, _, error)) if Instant::now() < *at => return Err(error.clone()),
            Some((_, wait, _)) => (*wait * 2).min(AGAIN_MAX),
            None => AGAIN_MIN,
        };
        let session = runtime.block_on(async {
            let session = Session::open(&self.address).await?;
            // A later version may have been here in the meantime.
            schema::check(&session.client, &self.address).await?;
            Ok(session)
        });
        self.again =
            session.as_ref().err().map(|e: &Error| (Instant::now() + wait, wait, e.clone()));
        session
    }
}
