//! Topics: append-only logs of messages with dense positions.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use selvedge_patterns::{
    collect::{self, Rule},
    config::ConfigError,
    wall::Wall,
};

use crate::schema::Schema;

/// The priority of a message that names none.
pub const PRIORITY_DEFAULT: u8 = 5;

/// How a topic keeps its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Messages older than this may go. Default 7 days; `None` keeps them.
    pub retention_age: Option<Duration>,
    /// The oldest messages beyond this size may go. Default 10 GiB; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// Whether a message stays until every group has settled it. Default no.
    pub retain_unconsumed: bool,
    /// Keeps the last message of each key only. Default no.
    pub compact: bool,
    /// How long a message that has a successor of the same key stays. Default 1 h.
    pub compact_lag: Duration,
    /// How long a message without payload (a deletion) stays in a compacted
    /// topic. Default 24 h.
    pub tombstone_for: Duration,
    /// Whether messages may carry a priority. Default no: order by position.
    pub priorities: bool,
    /// How long a message waits to be worth one priority more. Default 60 s.
    pub ageing: Duration,
    /// How long a dedupe id is remembered. Default 10 min.
    pub dedupe_window: Duration,
    /// At most so many dedupe ids are remembered, the newest: whoever publishes
    /// more within the window has a shorter one. Default 1,000,000; `None` for
    /// no bound but the window.
    pub dedupe_max: Option<u64>,
    /// Acknowledges before the sync: a power cut may lose the last moments.
    /// Default no.
    pub relaxed: bool,
    /// What is published to other topics and appended here too, in the same
    /// transaction. Default nothing.
    pub collect: Vec<Rule>,
    /// What the payloads must be. Default anything.
    pub schema: Option<Arc<Schema>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retention_age: Some(Duration::from_secs(7 * 86_400)),
            retention_bytes: Some(10 << 30),
            retain_unconsumed: false,
            compact: false,
            compact_lag: Duration::from_secs(3600),
            tombstone_for: Duration::from_secs(86_400),
            priorities: false,
            ageing: Duration::from_secs(60),
            dedupe_window: Duration::from_secs(600),
            dedupe_max: Some(1_000_000),
            relaxed: false,
            collect: Vec::new(),
            schema: None,
        }
    }
}

impl Settings {
    /// Whether a topic can work with this.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let require = ConfigError::require;
        let second = Duration::from_secs(1);
        require(
            self.retention_age.is_none_or(|age| age >= second),
            "retention_age",
            "must be at least 1 s",
        )?;
        require(
            self.retention_bytes.is_none_or(|bytes| bytes >= 1 << 20),
            "retention_bytes",
            "must be at least 1 MiB",
        )?;
        require(!(self.compact && self.priorities), "compact", "does not go with `priorities`")?;
        collect::validate(&self.collect)?;
        // What is collected may have no key.
        require(!self.compact || self.collect.is_empty(), "collect", "does not go with `compact`")?;
        // What is collected was checked by the schema of its own topic.
        require(
            self.schema.is_none() || self.collect.is_empty(),
            "schema",
            "does not go with `collect`",
        )?;
        require(self.ageing >= Duration::from_millis(1), "ageing", "must be at least 1 ms")?;
        require(self.dedupe_max.is_none_or(|max| max >= 1), "dedupe_max", "must be at least 1")?;
        require(
            self.dedupe_window <= Duration::from_secs(7 * 86_400),
            "dedupe_window",
            "must be at most 7 days",
        )
    }
}

/// A message to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// Groups messages that belong together: ordering and compaction go by it.
    pub key: Option<String>,
    /// Names and values, kept as they are; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content; `None` says that the key is deleted.
    pub payload: Option<Bytes>,
    /// 0 (lowest) to 9, default 5; only for topics with `priorities`.
    pub priority: Option<u8>,
    /// Waits outside the log until then; at most a year ahead.
    pub deliver_at: Option<Wall>,
    /// A second message with this id in the dedupe window is not stored.
    pub dedupe_id: Option<String>,
}

/// Where a published message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its place.
    pub place: Place,
    /// Whether it was there already: the place is that of the first.
    pub duplicate: bool,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the log, at this position, from 1.
    Log(u64),
    /// Outside the log until it is due; can be cancelled by this number.
    Delayed(u64),
}

/// A message of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Position in the log, from 1, without gaps but for what expired.
    pub position: u64,
    /// When it entered the log.
    pub at: Wall,
    /// As published.
    pub key: Option<String>,
    /// As published.
    pub headers: Vec<(String, String)>,
    /// As published.
    pub payload: Option<Bytes>,
    /// As published, or 5.
    pub priority: u8,
}

/// A topic and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How it keeps messages.
    pub settings: Settings,
    /// Lowest position that is kept, or `next` if there is none.
    pub first: u64,
    /// The position that the next message gets.
    pub next: u64,
    /// Bytes of payloads, headers and keys that are kept.
    pub bytes: u64,
    /// Messages that wait for their time.
    pub delayed: u64,
    /// Since when dedupe ids are remembered, if their number cuts the window short.
    pub dedupe_since: Option<Wall>,
}

/// Creates a topic, or changes the settings of one.
#[derive(Clone, Debug)]
pub struct PutTopic {
    /// 1 to 200 characters of `A-Z a-z 0-9 . _ - /`.
    pub name: String,
    /// All settings. `priorities` and `compact` cannot be changed later.
    pub settings: Settings,
}

/// Removes a topic with its messages and groups.
#[derive(Clone, Debug)]
pub struct DeleteTopic {
    /// Its name.
    pub name: String,
}

/// Appends messages, all or none.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The topic.
    pub topic: String,
    /// In this order.
    pub messages: Vec<NewMessage>,
}

/// Takes back a message that waits for its time.
#[derive(Clone, Debug)]
pub struct CancelDelayed {
    /// The topic.
    pub topic: String,
    /// Its number.
    pub number: u64,
}

/// Asks where a topic stands.
#[derive(Clone, Debug)]
pub struct GetTopic {
    /// Its name.
    pub name: String,
}

/// All topics by name.
#[derive(Clone, Debug)]
pub struct ListTopics;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At this position.
    Position(u64),
    /// At the first message that entered the log at this time or later.
    Time(Wall),
    /// At the oldest message kept.
    First,
    /// After the last message.
    Next,
}

/// Reads messages without a group.
#[derive(Clone, Debug)]
pub struct ReadTopic {
    /// The topic.
    pub topic: String,
    /// Where to begin.
    pub from: From,
    /// At most this many, and at most 4 MiB, but one if there is one.
    pub max: usize,
}
