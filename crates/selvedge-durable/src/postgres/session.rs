//! A connection to the server, fit to keep what is acknowledged.

use std::{
    collections::HashMap,
    fmt::Write,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config as Server, NoTls, Statement, config::SslMode};

use super::{failure, schema};
use crate::{Config, Error};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The shortest time between two attempts to connect; it doubles up to the longest.
const AGAIN_MIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// The first version of the server that will do.
const VERSION_MIN: i32 = 150_000;

/// A server, and how to get to it.
#[derive(Clone, Debug)]
pub(super) struct Address {
    server: Server,
    pub(super) schema: String,
    /// For error messages: no password.
    pub(super) shown: String,
}

impl Address {
    /// Reads the connection string of `config`.
    pub(super) fn parse(config: &Config) -> Result<Self, Error> {
        let problem = |error: tokio_postgres::Error| Error::Open {
            path: "postgres".to_owned(),
            problem: format!("its connection string cannot be read: {error}"),
        };
        let (url, schema) = config.postgres_place()?;
        let mut server: Server = url.parse().map_err(problem)?;
        let shown = shown(&server);
        if server.get_ssl_mode() == SslMode::Require {
            let problem = "`sslmode=require` cannot be had: connections are not encrypted yet";
            return Err(Error::Open { path: shown, problem: problem.to_owned() });
        }
        server.ssl_mode(SslMode::Disable);
        if server.get_connect_timeout().is_none() {
            server.connect_timeout(CONNECT_TIMEOUT);
        }
        if server.get_application_name().is_none() {
            server.application_name("selvedge");
        }
        // With several hosts, the one that writes.
        server.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        server.keepalives_idle(Duration::from_secs(5));
        server.tcp_user_timeout(Duration::from_secs(10));
        Ok(Self { server, schema: schema.to_owned(), shown })
    }

    /// Connects, and runs `serve` with what comes out of the connection unasked.
    pub(super) async fn connect<S>(
        &self,
        serve: impl FnOnce(
            tokio_postgres::Connection<tokio_postgres::Socket, tokio_postgres::tls::NoTlsStream>,
        ) -> S,
    ) -> Result<(Client, S), Error> {
        let (client, connection) = self.server.connect(NoTls).await.map_err(|e| failure(&e))?;
        Ok((client, serve(connection)))
    }
}

/// Hosts, ports and database, without what is secret.
fn shown(server: &Server) -> String {
    let mut shown = "postgres:".to_owned();
    for (index, host) in server.get_hosts().iter().enumerate() {
        let ports = server.get_ports();
        let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
        let host = match host {
            tokio_postgres::config::Host::Tcp(host) => host.clone(),
            tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
        };
        let _ = write!(shown, "{}{host}:{port}", if index == 0 { "//" } else { "," });
    }
    let _ = write!(shown, "/{}", server.get_dbname().unwrap_or_default());
    shown
}

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
        let unfit = |problem: String| Error::Open { path: address.shown.clone(), problem };
        let sql = "SELECT current_setting('server_version_num')::int4, current_setting('fsync'),
             current_setting('synchronous_commit'), current_setting('server_encoding'),
             current_setting('full_page_writes')";
        let row = client.query_one(sql, &[]).await.map_err(|e| failure(&e))?;
        let version: i32 = row.get(0);
        if version < VERSION_MIN {
            return Err(unfit(format!("version {version} is too old, it must be 15 or later")));
        }
        if row.get::<_, &str>(1) != "on" {
            return Err(unfit("`fsync` is off: what is acknowledged would not be kept".to_owned()));
        }
        if row.get::<_, &str>(3) != "UTF8" {
            return Err(unfit("its encoding is not UTF8".to_owned()));
        }
        if row.get::<_, &str>(4) != "on" {
            tracing::warn!("`full_page_writes` is off: a power cut may damage the store");
        }
        let mut set = format!("SET search_path = \"{}\";", address.schema);
        if row.get::<_, &str>(2) == "off" {
            set.push_str("SET synchronous_commit = on;");
        }
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
