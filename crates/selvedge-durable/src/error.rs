//! Why a request to the store failed.

use std::sync::Arc;

use selvedge_patterns::{compat::Refusal, config::ConfigError, group::Stale, wall::Wall};

use crate::schema::Mismatch;

/// Why a request to the store failed. Nothing of the request was done, except
/// that with [`Self::Unknown`], [`Self::Closed`] and [`Self::Unsynced`] one cannot know.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or the database cannot be opened.
    #[error("the store {path} cannot be opened: {problem}")]
    Open {
        /// The file, or the database.
        path: String,
        /// What stands in the way.
        problem: String,
    },
    /// A later version of this program has written the file.
    #[error("the store has schema {found}, this program knows {known}: run the later version")]
    Newer {
        /// Schema version in the file.
        found: u32,
        /// Latest that this program knows.
        known: u32,
    },
    /// What is on disk is not what was written.
    #[error("the store is damaged: {what}")]
    Corrupt {
        /// Where.
        what: String,
    },
    /// No room on the disk: writes are refused until there is, reads go on.
    #[error("no space left for the store")]
    DiskFull,
    /// More requests wait than `queue_max` or `waiting_max` allow.
    #[error("the store has {waiting} requests waiting, the most it takes")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// The store was closed, or its writer ended.
    #[error("the store is closed")]
    Closed,
    /// The database or the server cannot be reached, or broke off. Nothing was done.
    #[error("the store cannot be reached: {problem}")]
    Unreachable {
        /// What stands in the way.
        problem: String,
    },
    /// The connection to the database was lost in a commit and could not be had
    /// again, or that to a server before its answer: the request may have been
    /// done or not.
    #[error("the connection was lost before the answer: the request may have been done or not")]
    Unknown,
    /// The connection to the database is not as safe as `sslmode` wants it.
    #[error("the connection to {place} is not safe: {problem}")]
    Insecure {
        /// Host, port and database.
        place: String,
        /// What stands in the way, and what to do.
        problem: String,
    },
    /// The database cannot keep what is acknowledged, or does not let us.
    #[error("{place} will not do: {problem}")]
    Unfit {
        /// Host, port and database.
        place: String,
        /// What stands in the way, and what to do.
        problem: String,
    },
    /// The disk did not keep what it was given. Nothing is written until it is
    /// proven that nothing acknowledged is lost; reads go on. The request that met
    /// it may have been done or not, later ones were not.
    #[error(
        "the disk failed to keep what was written, so nothing more is until it does: {problem}"
    )]
    Unsynced {
        /// What failed.
        problem: String,
    },
    /// The database failed in a way that has no other name here.
    #[error("the store failed: {0}")]
    Storage(Arc<dyn std::error::Error + Send + Sync>),
    /// A server refused the request for a reason that has no name here: its own,
    /// or one that a later version knows.
    #[error("the server refused: {detail}")]
    Refused {
        /// Its stable code.
        code: &'static str,
        /// The status of HTTP that goes with it.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// There is nothing of that name.
    #[error("no {kind} `{name}`")]
    NotFound {
        /// Topic, group, stream, key, …
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It exists with other settings.
    #[error("{kind} `{name}` exists with another {difference}")]
    Exists {
        /// Topic, group, …
        kind: &'static str,
        /// Its name.
        name: String,
        /// What differs.
        difference: &'static str,
    },
    /// A payload, a set of headers or a batch exceeds its bound.
    #[error("{what} of {size} exceeds the limit of {max}")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The bound.
        max: usize,
    },
    /// A value that makes no sense where it stands.
    #[error("`{field}` {problem}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The delivery is not the message's last one any more.
    #[error("the receipt {}-{}-{} is stale", .0.presented.position, .0.presented.attempt, .0.presented.fence)]
    Stale(Stale),
    /// A message is not what its topic's schema says.
    #[error("the message at index {index} {}: {}", mismatched(.mismatch), .mismatch.problem)]
    Mismatch {
        /// Which message of the request, from 0.
        index: usize,
        /// Where in it, and what is wrong.
        mismatch: Mismatch,
    },
    /// A schema may not take the place of the one before.
    #[error(
        "the schema of topic `{topic}` cannot follow version {version}: at `{}`: {}",
        .refusal.path, .refusal.problem
    )]
    Incompatible {
        /// The topic.
        topic: String,
        /// The last version of its schema.
        version: u64,
        /// Where in the schema, and what stands in the way.
        refusal: Refusal,
    },
    /// The stream is not where the writer believed it to be.
    #[error("stream `{stream}` is at {}, expected {expected}", version(.actual))]
    WrongVersion {
        /// The stream.
        stream: String,
        /// What the writer expected.
        expected: String,
        /// Its last version, `None` if it has no events.
        actual: Option<u64>,
    },
    /// An event that this program cannot read: of an unknown type or a later schema.
    #[error("event {version} of stream `{stream}` cannot be read: {problem}")]
    Undecodable {
        /// The stream.
        stream: String,
        /// The event's version.
        version: u64,
        /// What stands in the way.
        problem: String,
    },
    /// The value's tag is not the one named.
    #[error("`{key}` is at {}, expected {expected}", actual.as_deref().unwrap_or("nothing"))]
    Precondition {
        /// The key.
        key: String,
        /// The condition.
        expected: String,
        /// Its tag, `None` if there is no such key.
        actual: Option<String>,
    },
    /// Somebody else holds it.
    #[error("`{resource}` is held by `{owner}`")]
    Held {
        /// The resource.
        resource: String,
        /// Who holds the permit that ends first.
        owner: String,
        /// When that is.
        until: Wall,
    },
    /// The fencing token is not that of a live holder.
    #[error("token {presented} of `{resource}` is not held any more")]
    Lost {
        /// The resource.
        resource: String,
        /// The token presented.
        presented: u64,
        /// The greatest token of a live holder.
        current: Option<u64>,
    },
}

fn mismatched(mismatch: &Mismatch) -> String {
    if mismatch.path.is_empty() {
        return "is not what its topic's schema says".to_owned();
    }
    format!("is not what its topic's schema says at `{}`", mismatch.path)
}

fn version(version: &Option<u64>) -> String {
    version.map_or_else(|| "no version".to_owned(), |version| version.to_string())
}

impl Error {
    /// The stable code; `docs/errors/` has a page for each.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Open { .. } => "SV0400",
            Self::Newer { .. } => "SV0401",
            Self::Corrupt { .. } => "SV0402",
            Self::DiskFull => "SV0403",
            Self::Overloaded { .. } => "SV0404",
            Self::Closed => "SV0405",
            Self::Storage(_) => "SV0406",
            Self::Unreachable { .. } => "SV0407",
            Self::Unknown => "SV0408",
            Self::Insecure { .. } => "SV0409",
            Self::Unsynced { .. } => "SV0416",
            Self::Refused { code, .. } => code,
            Self::NotFound { .. } => "SV0410",
            Self::Exists { .. } => "SV0411",
            Self::TooLarge { .. } => "SV0412",
            Self::Invalid { .. } => "SV0413",
            Self::Stale(_) => "SV0414",
            Self::Unfit { .. } => "SV0415",
            Self::Mismatch { .. } => "SV0417",
            Self::Incompatible { .. } => "SV0418",
            Self::WrongVersion { .. } => "SV0420",
            Self::Precondition { .. } => "SV0421",
            Self::Undecodable { .. } => "SV0422",
            Self::Held { .. } => "SV0430",
            Self::Lost { .. } => "SV0431",
        }
    }

    /// Whether the same request may succeed later with nothing changed by the caller.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        if let Self::Refused { status, .. } = self {
            return *status >= 500 || *status == 429;
        }
        matches!(
            self,
            Self::DiskFull
                | Self::Overloaded { .. }
                | Self::Closed
                | Self::Unsynced { .. }
                | Self::Unreachable { .. }
                | Self::Held { .. }
        )
    }

    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }

    pub(crate) fn unreachable(problem: impl Into<String>) -> Self {
        Self::Unreachable { problem: problem.into() }
    }

    /// Says which message of a request is meant.
    pub(crate) fn of_message(self, index: usize) -> Self {
        match self {
            Self::Mismatch { mismatch, .. } => Self::Mismatch { index, mismatch },
            other => other,
        }
    }

    pub(crate) fn missing(kind: &'static str, name: &str) -> Self {
        Self::NotFound { kind, name: name.to_owned() }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::invalid(error.key, error.problem)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{
            ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase},
            ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC},
        };
        let extended = error.sqlite_error().map(|error| error.extended_code);
        if matches!(extended, Some(SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC)) {
            return Self::Unsynced { problem: error.to_string() };
        }
        match error.sqlite_error_code() {
            Some(DiskFull) => Self::DiskFull,
            Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt { what: error.to_string() },
            _ => Self::Storage(Arc::new(error)),
        }
    }
}
