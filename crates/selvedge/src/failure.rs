//! What a command says when it cannot do what it was asked.

use crate::terminal::Paint;
use std::fmt;

/// Why a command ended without doing its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The answer itself is no, and was printed already.
    No,
    /// Said already, in its own words: a configuration's diagnostics.
    Refused,
    /// There is something to say.
    Said(Box<Message>),
    /// The person at the terminal ended it.
    Interrupted,
}

/// A message with its parts: what happened, why, and what to do now.
#[derive(Debug)]
pub(crate) struct Message {
    code: &'static str,
    exit: u8,
    what: String,
    why: String,
    help: String,
}

impl Failure {
    /// `run` without a file.
    pub(crate) fn no_file() -> Self {
        Self::said(
            "SV0601",
            2,
            "which configuration?".to_owned(),
            "no file was named, and there is no ./selvedge.yaml".to_owned(),
            format!(
                "write one as selvedge.yaml; a whole file can be this short:\n{MINIMAL}\n       or see everything at work first: selvedge demo"
            ),
        )
    }

    /// The operator API does not answer.
    pub(crate) fn unreachable(address: &str, why: &std::io::Error) -> Self {
        Self::said(
            "SV0602",
            4,
            format!("no operator API at {address}"),
            why.to_string(),
            "is `selvedge run` running here? `--operator HOST:PORT` names another place".to_owned(),
        )
    }

    /// The operator API answers, and refuses.
    pub(crate) fn refused(address: &str, why: String) -> Self {
        Self::said(
            "SV0603",
            4,
            format!("the operator API at {address} refused"),
            why,
            "a token is given with `--token` or SELVEDGE_TOKEN".to_owned(),
        )
    }

    /// Something needed for starting is not to be had.
    pub(crate) fn cannot_start(what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::said(
            "SV0604",
            5,
            what.into(),
            why.to_string(),
            "another process may hold the address: `ss -ltnp` shows which".to_owned(),
        )
    }

    /// The store cannot be opened, read or written.
    pub(crate) fn store(what: impl Into<String>, why: &selvedge_durable::Error) -> Self {
        use selvedge_durable::Error as E;
        let help = match why {
            E::Open { .. } => {
                "one process opens a store at a time; is its folder there and writable?"
            }
            E::Unreachable { .. } => "does the server run, and does the connection string name it?",
            E::Insecure { .. } => "encryption is what `sslmode` says, in the connection string",
            E::Unfit { .. } => {
                "it takes PostgreSQL 15 or later, itself and not a pooler, with rights to a schema"
            }
            E::Newer { .. } => "run the later version, or start with another `path`",
            E::Corrupt { .. } => "`selvedge store verify` names what is damaged; restore a backup",
            E::DiskFull => "free space on the disk of the store",
            E::Unsynced { .. } => "look at the disk; nothing acknowledged is lost, start it again",
            E::Exists { .. } => {
                "what was made with other settings stays as it is: take them back, or choose another name"
            }
            _ => "its page says what to do",
        };
        Self::said(why.code(), 5, what.into(), why.to_string(), help.to_owned())
    }

    /// The demo could not be played to its end.
    pub(crate) fn demo(why: &std::io::Error) -> Self {
        Self::said(
            "SV0605",
            5,
            "the demo ended early".to_owned(),
            why.to_string(),
            "it needs to start processes of this program and listen on 127.0.0.1".to_owned(),
        )
    }

    /// A request that cannot be explained because it is none.
    pub(crate) fn question(why: String) -> Self {
        Self::said(
            "SV0606",
            2,
            "that is no request".to_owned(),
            why,
            "ask like this: selvedge explain GET /orders/1 --header 'x-api-key: abc'".to_owned(),
        )
    }

    fn said(code: &'static str, exit: u8, what: String, why: String, help: String) -> Self {
        Self::Said(Box::new(Message { code, exit, what, why, help }))
    }

    /// The exit code, as `--help` documents it.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::No => 1,
            Self::Refused => 3,
            Self::Said(message) => message.exit,
            Self::Interrupted => 130,
        }
    }

    /// Says it on standard error.
    pub(crate) fn report(&self) {
        let Self::Said(message) = self else { return };
        let paint = Paint::for_stderr();
        eprintln!("{} {}", paint.bad("error:"), paint.bold(&message.what));
        eprintln!("{} {}", paint.dim("  why:"), message.why);
        eprintln!("{} {}", paint.dim(" help:"), message.help);
        eprintln!("{} {} (docs/errors/{}.md)", paint.dim(" code:"), message.code, message.code);
    }
}

/// A file that does something useful.
const MINIMAL: &str = r#"
    version: 1
    listeners:
      edge: { bind: "127.0.0.1:8080" }
    services:
      orders:
        endpoints: ["127.0.0.1:9001"]
        timeout: { attempt: 500ms, total: 2s }
    routes:
      - match: { path: /** }
        to: orders
"#;
