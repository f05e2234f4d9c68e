//! Event streams: what happened to one thing, in order, for ever.

use bytes::Bytes;
use selvedge_patterns::wall::Wall;

/// What a writer believes about a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    #[default]
    Any,
    /// It has no events, or was deleted.
    None,
    /// It has events.
    Exists,
    /// Its last event has this version.
    Exact(u64),
}

/// An event to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// Chosen by the writer; a repeated append of the same ids at the same
    /// version is answered like the first. At most 200 bytes.
    pub id: Option<String>,
    /// What happened. 1 to 200 bytes.
    pub kind: String,
    /// The content.
    pub data: Bytes,
    /// Who, why, from where: kept beside the content.
    pub metadata: Option<Bytes>,
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its stream.
    pub stream: String,
    /// Its place in the stream, from 0, without gaps.
    pub version: u64,
    /// Its place among all events, from 1; gaps only where events were truncated.
    pub position: u64,
    /// When it was appended.
    pub at: Wall,
    /// As appended.
    pub id: Option<String>,
    /// As appended.
    pub kind: String,
    /// As appended.
    pub data: Bytes,
    /// As appended.
    pub metadata: Option<Bytes>,
}

/// What is to happen to one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// The stream: 1 to 200 characters of `A-Z a-z 0-9 . _ - /`.
    pub stream: String,
    /// What must hold before.
    pub expected: Expected,
    /// None of them makes it a check.
    pub events: Vec<NewEvent>,
}

/// Appends to several streams, all or none.
#[derive(Clone, Debug)]
pub struct Append {
    /// In this order; the events get consecutive positions.
    pub writes: Vec<Write>,
}

/// Where an append left things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The last version of each stream written to, `None` if it has no events.
    pub versions: Vec<Option<u64>>,
    /// Position of the last event of all.
    pub position: u64,
    /// Whether all of it had been appended before.
    pub duplicate: bool,
}

/// Reads one stream.
#[derive(Clone, Debug)]
pub struct ReadStream {
    /// The stream.
    pub stream: String,
    /// First version to read; backwards, `u64::MAX` means the last.
    pub from: u64,
    /// From there to earlier ones.
    pub backwards: bool,
    /// At most this many, and at most 4 MiB, but one if there is one.
    pub max: usize,
}

/// Part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order read.
    pub events: Vec<Event>,
    /// The version of the stream's last event.
    pub last: u64,
}

/// Reads all streams by position.
#[derive(Clone, Debug)]
pub struct ReadEvents {
    /// Events after this position; 0 means from the start.
    pub after: u64,
    /// At most this many, and at most 4 MiB, but one if there is one.
    pub max: usize,
}

/// Removes the beginning of a stream.
#[derive(Clone, Debug)]
pub struct TruncateStream {
    /// The stream.
    pub stream: String,
    /// The first version that stays; at most the last one.
    pub before: u64,
}

/// Removes all events of a stream. Appending brings it back, and versions go on
/// where they were, so that no version ever names two events.
#[derive(Clone, Debug)]
pub struct DeleteStream {
    /// The stream.
    pub stream: String,
    /// What must hold before.
    pub expected: Expected,
}

/// Keeps what a stream amounts to at a version. Advisory: never needed to be right.
#[derive(Clone, Debug)]
pub struct PutSnapshot {
    /// The stream.
    pub stream: String,
    /// The version it includes.
    pub version: u64,
    /// Names the shape of `data`: another shape makes it absent.
    pub schema: String,
    /// The content.
    pub data: Bytes,
}

/// Asks for the latest snapshot.
#[derive(Clone, Debug)]
pub struct GetSnapshot {
    /// The stream.
    pub stream: String,
    /// The shape that the reader understands.
    pub schema: String,
}

/// A snapshot as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The version it includes.
    pub version: u64,
    /// As kept.
    pub data: Bytes,
}
