//! Where the server is, from a connection string.

use std::{collections::BTreeSet, fmt::Write, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio_postgres::{
    Client, Config as Server, Connection, Socket,
    config::{Host, SslMode, TargetSessionAttrs},
    error::SqlState,
};

use super::{failure, sentence, tls};
use crate::{Config, Error};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A setting that only the server itself takes from a new connection, and that
/// says afterwards whether it came through.
pub(super) const DIRECT: &str = "selvedge.direct";

/// A server, and how to get to it.
#[derive(Clone, Debug)]
pub(super) struct Address {
    server: Server,
    tls: tls::Tls,
    pub(super) schema: String,
    /// For error messages: no password.
    pub(super) shown: String,
    /// What was said in the log already.
    said: Arc<Mutex<BTreeSet<&'static str>>>,
}

impl Address {
    /// Reads the connection string of `config`.
    pub(super) fn parse(config: &Config) -> Result<Self, Error> {
        let problem = |problem: String| Error::Open {
            path: "postgres".to_owned(),
            problem: format!("its connection string cannot be read: {problem}"),
        };
        let (url, schema) = config.postgres_place()?;
        let (rest, [mode, roots, certificate, key]) = taken(url);
        let mut server: Server = rest.parse().map_err(|error| problem(sentence(&error)))?;
        let shown = shown(&server);
        let tls = tls::Tls::read(
            mode.as_deref(),
            roots.as_deref(),
            certificate.as_deref(),
            key.as_deref(),
        )
        .map_err(problem)?;
        // As libpq does: no server encrypts a socket in the file system.
        let local = server.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        let local = local && server.get_hostaddrs().is_empty();
        server.ssl_mode(if local { SslMode::Disable } else { tls.ssl_mode() });
        if server.get_connect_timeout().is_none() {
            server.connect_timeout(CONNECT_TIMEOUT);
        }
        if server.get_application_name().is_none() {
            server.application_name("selvedge");
        }
        let options = server.get_options().unwrap_or_default();
        server.options(format!("{options} -c {DIRECT}=on").trim_start().to_owned());
        // With several hosts, the one that writes.
        server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        server.keepalives_idle(Duration::from_secs(5));
        server.tcp_user_timeout(Duration::from_secs(10));
        Ok(Self { server, tls, schema: schema.to_owned(), shown, said: Arc::default() })
    }

    /// A host on another machine, to which the connection may go unencrypted.
    pub(super) fn unencrypted(&self) -> Option<String> {
        use tls::Mode::{Disable, Prefer};
        if !matches!(self.tls.mode, Disable | Prefer) {
            return None;
        }
        let addresses = self.server.get_hostaddrs();
        if !addresses.is_empty() {
            return addresses.iter().find(|it| !it.is_loopback()).map(ToString::to_string);
        }
        self.server.get_hosts().iter().find_map(|host| match host {
            Host::Unix(_) => None,
            Host::Tcp(name) if name == "localhost" => None,
            Host::Tcp(name) => {
                let loopback = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
                (!loopback).then(|| name.clone())
            }
        })
    }

    /// A connection string for the server's own programs, which have the password
    /// from elsewhere.
    pub(super) fn without_password(&self) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let list = |items: Vec<String>| items.join(",");
        let mut said = String::new();
        let mut say = |key: &str, value: &str| {
            if !value.is_empty() {
                let space = if said.is_empty() { "" } else { " " };
                let _ = write!(said, "{space}{key}={}", quoted(value));
            }
        };
        let server = &self.server;
        say("host", &list(server.get_hosts().iter().map(name).collect()));
        say("hostaddr", &list(server.get_hostaddrs().iter().map(ToString::to_string).collect()));
        say("port", &list(server.get_ports().iter().map(ToString::to_string).collect()));
        say("user", server.get_user().unwrap_or_default());
        say("dbname", server.get_dbname().unwrap_or_default());
        said
    }

    /// Whether this is to be said in the log: once, however many connections find it.
    pub(super) fn news(&self, what: &'static str) -> bool {
        self.said.lock().insert(what)
    }

    /// Connects, and runs `serve` with what comes out of the connection unasked.
    pub(super) async fn connect<S>(
        &self,
        serve: impl FnOnce(Connection<Socket, tls::Stream>) -> S,
    ) -> Result<(Client, S), Error> {
        let insecure = |problem| Error::Insecure { place: self.shown.clone(), problem };
        let connector = self.tls.connector().map_err(insecure)?;
        let connected = self.server.connect(connector.clone()).await;
        let (client, connection) = connected.map_err(|error| self.refused(&error))?;
        if !connector.encrypts()
            && let Some(host) = self.unencrypted()
            && self.news("unencrypted")
        {
            tracing::warn!(
                host,
                code = "SV0165",
                "the connection to the database is not encrypted: `sslmode=verify-full` encrypts it and checks who answers"
            );
        }
        Ok((client, serve(connection)))
    }

    /// Why there is no connection.
    fn refused(&self, error: &tokio_postgres::Error) -> Error {
        let insecure = |problem| Error::Insecure { place: self.shown.clone(), problem };
        let unfit = |problem| Error::Unfit { place: self.shown.clone(), problem };
        let source = std::error::Error::source(error);
        if let Some(failed) = source.and_then(|source| source.downcast_ref::<tls::Failed>()) {
            return insecure(self.tls.explain(failed));
        }
        let Some(told) = error.as_db_error() else {
            let text = sentence(error);
            if text.contains("server does not support TLS") {
                return insecure(
                    "the server does not encrypt: set `ssl = on` and a certificate there, or say \
                     `sslmode=disable` if nobody else is on the way"
                        .to_owned(),
                );
            }
            if text.contains("no hostname provided") {
                return insecure("encryption needs `host=` beside `hostaddr=`".to_owned());
            }
            let local = source.is_none_or(|source| source.is::<std::io::Error>());
            if local || error.is_closed() {
                return match text.strip_suffix("database does not allow writes") {
                    Some(_) => Error::unreachable(
                        "it is a standby, or `default_transaction_read_only` is on there: name the server that writes",
                    ),
                    None => failure(error),
                };
            }
            return unfit(text);
        };
        let message = told.message();
        match told.code() {
            code if *code == SqlState::PROTOCOL_VIOLATION
                && message.contains("unsupported startup parameter") =>
            {
                unfit(POOLED.to_owned())
            }
            code if *code == SqlState::INVALID_PASSWORD => {
                unfit(format!("{message}: the password in the connection string is another"))
            }
            code if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
                unfit(format!("{message}: see `pg_hba.conf` there, and user and `sslmode` here"))
            }
            code if *code == SqlState::INVALID_CATALOG_NAME => {
                unfit(format!("{message}: `createdb` makes one"))
            }
            code if *code == SqlState::TOO_MANY_CONNECTIONS => Error::unreachable(format!(
                "{message}: each process needs `readers` and 2 more; raise `max_connections` there, or lower `readers`"
            )),
            // A pooler has codes of its own.
            _ if message.contains("unsupported startup parameter") => unfit(POOLED.to_owned()),
            _ => failure(error),
        }
    }
}

/// What is wrong with a pooler.
pub(super) const POOLED: &str = "a pooler (PgBouncer) answers in its place, which shares out \
     settings, prepared statements and LISTEN among its clients: name the server itself";

/// Hosts, ports and database, without what is secret.
fn shown(server: &Server) -> String {
    let mut shown = "postgres:".to_owned();
    for (index, host) in server.get_hosts().iter().enumerate() {
        let ports = server.get_ports();
        let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
        let host = name(host);
        let _ = write!(shown, "{}{host}:{port}", if index == 0 { "//" } else { "," });
    }
    let _ = write!(shown, "/{}", server.get_dbname().unwrap_or_default());
    shown
}

fn name(host: &Host) -> String {
    match host {
        Host::Tcp(host) => host.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

/// Parameters of a connection string that the client does not know.
const TAKEN: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// The connection string without [`TAKEN`], and those.
fn taken(text: &str) -> (String, [Option<String>; 4]) {
    let mut values = [const { None }; 4];
    let place = |key: &str| TAKEN.iter().position(|it| *it == key);
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let Some((before, query)) = text.split_once('?') else { return (text.to_owned(), values) };
        let mut kept = Vec::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match place(key) {
                Some(place) => values[place] = Some(decoded(value)),
                None => kept.push(pair),
            }
        }
        let mark = if kept.is_empty() { "" } else { "?" };
        return (format!("{before}{mark}{}", kept.join("&")), values);
    }
    let (mut kept, mut left) = (String::new(), text);
    while !left.trim_start().is_empty() {
        let word = left.trim_start();
        let (key, after) = word.split_once('=').unwrap_or((word, ""));
        let (value, rest) = unquoted(after.trim_start());
        match place(key.trim_end()) {
            Some(place) => values[place] = Some(value),
            None => {
                kept.push_str(&word[..word.len() - rest.len()]);
                kept.push(' ');
            }
        }
        left = rest;
    }
    (kept, values)
}

/// The value at the start of `text`, maybe in quotes, and what comes after it.
fn unquoted(text: &str) -> (String, &str) {
    let quoted = text.starts_with('\'');
    let (mut value, mut escaped) = (String::new(), false);
    for (at, letter) in text.char_indices().skip(usize::from(quoted)) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => {
                escaped = true;
                continue;
            }
            '\'' if quoted => return (value, &text[at + 1..]),
            _ if !quoted && letter.is_whitespace() => return (value, &text[at..]),
            _ => {}
        }
        value.push(letter);
    }
    (value, "")
}

/// Without `%`; what is none of UTF-8 is left as it is.
fn decoded(text: &str) -> String {
    let (mut bytes, mut left) = (Vec::new(), text.as_bytes());
    while let Some((&first, rest)) = left.split_first() {
        let hex = rest.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                left = &rest[2..];
            }
            _ => {
                bytes.push(first);
                left = rest;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Result<Address, Error> {
        Address::parse(&Config::postgres(url))
    }

    #[test]
    fn what_is_said_of_encryption_is_taken_out_of_either_kind_of_string() {
        let url = "postgres://u:p@h/d?sslmode=verify-ca&connect_timeout=2&sslrootcert=%2Fa%20b.pem";
        let (rest, values) = taken(url);
        assert_eq!(rest, "postgres://u:p@h/d?connect_timeout=2");
        assert_eq!(values[..2], [Some("verify-ca".to_owned()), Some("/a b.pem".to_owned())]);
        let (rest, values) =
            taken(r"host=h  sslmode = require password='it\'s = 1' sslrootcert='/a b.pem' user=u");
        assert_eq!(rest, r"host=h password='it\'s = 1' user=u ");
        assert_eq!(values[..2], [Some("require".to_owned()), Some("/a b.pem".to_owned())]);
        assert!(address(r"host=h password='it\'s = 1' sslmode=require").is_ok());
        assert_eq!(taken("postgres://h/d?sslmode=disable").0, "postgres://h/d");
        let wrong = address("postgres://h/d?sslmode=allow").unwrap_err().to_string();
        assert!(wrong.contains("sslmode=allow") && wrong.contains("verify-full"), "{wrong}");
    }

    #[test]
    fn only_another_machine_may_be_read_along_with() {
        let host = |url: &str| address(url).expect("a string that can be read").unencrypted();
        assert_eq!(host("postgres://db.example/d").as_deref(), Some("db.example"));
        assert_eq!(host("postgres://[::1],10.0.0.7/d").as_deref(), Some("10.0.0.7"));
        assert_eq!(host("postgres://db.example/d?sslmode=disable").as_deref(), Some("db.example"));
        for local in [
            "postgres://localhost/d",
            "postgres://127.0.0.1/d",
            "postgres://%2Frun%2Fpostgresql/d",
            "postgres://db.example/d?sslmode=require",
            "postgres://db.example/d?sslrootcert=ca.pem",
        ] {
            assert_eq!(host(local), None, "{local}");
        }
    }
}
