//! What a store is opened with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use selvedge_patterns::config::ConfigError;

use crate::{Clock, Error, SystemClock};

/// What a store is opened with. Every bound has a default.
#[derive(Clone)]
pub struct Config {
    /// The file; `-wal`, `-shm` and `.lock` stand beside it. Of no meaning with `postgres`.
    pub path: PathBuf,
    /// Connection string of a PostgreSQL database, in place of a file. Default none.
    pub postgres: Option<String>,
    /// Schema of the tables in that database, `a-z`, `0-9` and `_`. Default `selvedge`.
    pub schema: String,
    /// Connections that read beside the writer. Default 2, 1 to 64.
    pub readers: usize,
    /// Requests that wait for the writer before further ones are refused as
    /// overloaded. Default 16,384, at least 1.
    pub queue_max: usize,
    /// Requests that one commit carries at most. Default 1,024, at least 1.
    pub batch_max: usize,
    /// Receives and acquires that wait at one time. Default 65,536.
    pub waiting_max: usize,
    /// Bytes of one payload, event or value. Default 1 MiB.
    pub payload_max: usize,
    /// Bytes of one message's headers. Default 64 KiB.
    pub headers_max: usize,
    /// Messages, events or answers in one request. Default 10,000.
    pub items_max: usize,
    /// Messages that one receive passes over at most because the group's filter
    /// does not want them, or their key is parked. Default 1,000, at least 1.
    pub filter_scan_max: usize,
    /// Bytes of the longest payload that is read for a filter. Default 64 KiB.
    pub filter_payload_max: usize,
    /// Topics that collect what is published to others. Default 64.
    pub collectors_max: usize,
    /// Memory for pages, of the writer of a file. Default 64 MiB.
    pub cache_bytes: usize,
    /// Size of a file's write-ahead log at which a checkpoint starts. Default 16 MiB.
    pub checkpoint_bytes: u64,
    /// The longest pause between two attempts to go on after a sync that failed; the first
    /// is made at once. Default 10 s.
    pub recover_every: Duration,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Name of the SQLite file system layer, for tests that cut the power.
    pub vfs: Option<String>,
}

impl Config {
    /// The defaults, for the file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            postgres: None,
            schema: "selvedge".to_owned(),
            readers: 2,
            queue_max: 16_384,
            batch_max: 1_024,
            waiting_max: 65_536,
            payload_max: 1 << 20,
            headers_max: 64 << 10,
            items_max: 10_000,
            filter_scan_max: 1_000,
            filter_payload_max: 64 << 10,
            collectors_max: 64,
            cache_bytes: 64 << 20,
            checkpoint_bytes: 16 << 20,
            recover_every: Duration::from_secs(10),
            clock: Arc::new(SystemClock),
            vfs: None,
        }
    }

    /// The defaults, for the PostgreSQL database at `url`.
    #[must_use]
    pub fn postgres(url: impl Into<String>) -> Self {
        Self { postgres: Some(url.into()), ..Self::new("") }
    }

    /// Where the store is, for people: nothing secret.
    #[must_use]
    pub fn place(&self) -> String {
        if self.postgres.is_none() {
            return self.path.display().to_string();
        }
        crate::postgres::place(self).unwrap_or_else(|_| "in PostgreSQL".to_owned())
    }

    /// A host on another machine to which connections may go unencrypted, as the
    /// connection string stands.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] for a connection string that cannot be read.
    pub fn unencrypted(&self) -> Result<Option<String>, Error> {
        if self.postgres.is_none() {
            return Ok(None);
        }
        crate::postgres::unencrypted(self)
    }

    /// Connection string and schema.
    pub(crate) fn postgres_place(&self) -> Result<(&str, &str), ConfigError> {
        let missing = ConfigError { key: "postgres", problem: "is needed" };
        self.postgres.as_deref().map(|url| (url, &*self.schema)).ok_or(missing)
    }

    /// Whether a store can work with this.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let require = ConfigError::require;
        require((1..=64).contains(&self.readers), "readers", "must be between 1 and 64")?;
        require(self.queue_max >= 1, "queue_max", "must be at least 1")?;
        require(self.batch_max >= 1, "batch_max", "must be at least 1")?;
        require(self.items_max >= 1, "items_max", "must be at least 1")?;
        require(self.filter_scan_max >= 1, "filter_scan_max", "must be at least 1")?;
        require(
            (1..=1 << 30).contains(&self.payload_max),
            "payload_max",
            "must be between 1 B and 1 GiB",
        )?;
        let mut schema = self.schema.bytes();
        require(
            (1..=63).contains(&self.schema.len())
                && schema.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
            "schema",
            "must be 1 to 63 of `a-z`, `0-9` and `_`",
        )?;
        require(self.checkpoint_bytes >= 1 << 20, "checkpoint_bytes", "must be at least 1 MiB")
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A connection string may hold a password.
        let postgres = self.postgres.is_some();
        f.debug_struct("Config")
            .field("path", &self.path)
            .field("postgres", &postgres)
            .finish_non_exhaustive()
    }
}
