//! What a store is opened with.

use std::{path::PathBuf, sync::Arc};

use selvedge_patterns::config::ConfigError;

use crate::{Clock, SystemClock};

/// What a store is opened with. Every bound has a default.
#[derive(Clone)]
pub struct Config {
    /// The file; `-wal`, `-shm` and `.lock` stand beside it.
    pub path: PathBuf,
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
    /// Memory for pages, of the writer. Default 64 MiB.
    pub cache_bytes: usize,
    /// Size of the write-ahead log at which a checkpoint starts. Default 16 MiB.
    pub checkpoint_bytes: u64,
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
            readers: 2,
            queue_max: 16_384,
            batch_max: 1_024,
            waiting_max: 65_536,
            payload_max: 1 << 20,
            headers_max: 64 << 10,
            items_max: 10_000,
            cache_bytes: 64 << 20,
            checkpoint_bytes: 16 << 20,
            clock: Arc::new(SystemClock),
            vfs: None,
        }
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
        require(
            (1..=1 << 30).contains(&self.payload_max),
            "payload_max",
            "must be between 1 B and 1 GiB",
        )?;
        require(self.checkpoint_bytes >= 1 << 20, "checkpoint_bytes", "must be at least 1 MiB")
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("path", &self.path).finish_non_exhaustive()
    }
}
