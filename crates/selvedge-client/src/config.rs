//! Where the server is, and how much may be under way.

use std::{fmt, time::Duration};

use selvedge_durable::Error;
use selvedge_patterns::{budget, config::ConfigError, retry};

/// How a [`crate::Client`] works. Every bound of it is here.
#[derive(Clone)]
pub struct Config {
    /// `http://host:port`, with a path before `/v1` if there is one. Default
    /// `http://127.0.0.1:9901`.
    pub url: String,
    /// The bearer token that the server asks for. Default none.
    pub token: Option<String>,
    /// The name by which the server is addressed, if it is not that of `url`:
    /// one of the server's `hosts`.
    pub host: Option<String>,
    /// Operations that wait for an answer, sent or not; more fail as
    /// [`Error::Overloaded`]. Default 1,024, which is what a server takes at once.
    pub under_way_max: usize,
    /// Bytes of all operations that wait for an answer. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Bytes of one operation or transaction on the wire; content grows there
    /// by a third. Default 4 MiB, the most that a server reads.
    pub line_bytes_max: usize,
    /// Bytes of one answer. Default 16 MiB.
    pub answer_bytes_max: usize,
    /// How long an answer may take beyond the time that the operation itself
    /// asks to wait; repeats included. Default 30 s.
    pub timeout: Duration,
    /// How long making a connection may take. Default 5 s.
    pub connect_timeout: Duration,
    /// After so long without a sign of life the connection counts as lost, and
    /// after half of it a sign is asked for. Default 20 s.
    pub silence_max: Duration,
    /// Attempts of one operation that may be repeated, and the waits between
    /// attempts to connect. Default: three attempts, 50 ms to 5 s.
    pub retry: retry::Config,
    /// Bounds repeats among all operations. Default: a fifth of what succeeds,
    /// and 100 a second.
    pub budget: budget::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:9901".to_owned(),
            token: None,
            host: None,
            under_way_max: 1024,
            queue_bytes_max: 64 << 20,
            line_bytes_max: 4 << 20,
            answer_bytes_max: 16 << 20,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            silence_max: Duration::from_secs(20),
            retry: retry::Config::default(),
            budget: budget::Config {
                per_second: 100,
                in_flight_min: 1024,
                ..budget::Config::default()
            },
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the token.
        f.debug_struct("Config").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A server, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What is connected to.
    pub(crate) address: String,
    /// What the request says.
    pub(crate) uri: http::Uri,
}

impl Config {
    pub(crate) fn place(&self) -> Result<Place, Error> {
        let wrong = |problem: &str| Error::Invalid { field: "url", problem: problem.to_owned() };
        let Some(rest) = self.url.strip_prefix("http://") else {
            return Err(wrong(
                "must be `http://host:port`; for TLS put a sidecar or a gateway in between",
            ));
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let parsed: http::uri::Authority =
            authority.parse().map_err(|_| wrong("must be `http://host:port`"))?;
        if parsed.host().is_empty() || authority.contains('@') {
            return Err(wrong("must be `http://host:port`"));
        }
        let port = parsed.port_u16().unwrap_or(80);
        let path = path.trim_matches('/');
        let path = if path.is_empty() {
            "/v1/pipeline".to_owned()
        } else {
            format!("/{path}/v1/pipeline")
        };
        let uri = http::Uri::builder()
            .scheme("http")
            .authority(self.host.as_deref().unwrap_or(authority))
            .path_and_query(path)
            .build()
            .map_err(|error| wrong(&format!("is no URL: {error}")))?;
        Ok(Place { address: format!("{}:{port}", parsed.host()), uri })
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let require = ConfigError::require;
        require(self.under_way_max >= 1, "under_way_max", "must be at least 1")?;
        require(self.line_bytes_max >= 1024, "line_bytes_max", "must be at least 1 KiB")?;
        require(
            self.queue_bytes_max >= self.line_bytes_max,
            "queue_bytes_max",
            "must be at least `line_bytes_max`",
        )?;
        require(self.answer_bytes_max >= 1024, "answer_bytes_max", "must be at least 1 KiB")?;
        require(!self.timeout.is_zero(), "timeout", "must be longer than zero")?;
        require(!self.connect_timeout.is_zero(), "connect_timeout", "must be longer than zero")?;
        require(
            self.silence_max >= Duration::from_millis(2),
            "silence_max",
            "must be at least 2 ms",
        )?;
        self.retry.validate()?;
        self.budget.validate()
    }
}
