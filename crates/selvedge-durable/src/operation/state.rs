//! Values under keys.

use std::time::Duration;

use bytes::Bytes;

/// What must hold of a key before it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// It is not there.
    Absent,
    /// It is there with this tag.
    Tag(u64),
    /// It is there, whatever its tag.
    Present,
    /// It has a tag that no key here ever gets, so this never holds.
    Foreign,
}

/// Writes a value.
#[derive(Clone, Debug)]
pub struct PutState {
    /// The key: 1 to 512 bytes.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Its media type, kept with it.
    pub content_type: Option<String>,
    /// What must hold before.
    pub condition: Condition,
    /// Forgets it after this time.
    pub ttl: Option<Duration>,
}

/// Removes a value.
#[derive(Clone, Debug)]
pub struct DeleteState {
    /// The key.
    pub key: String,
    /// What must hold before.
    pub condition: Condition,
}

/// Reads a value.
#[derive(Clone, Debug)]
pub struct GetState {
    /// The key.
    pub key: String,
}

/// Reads keys by prefix, in order.
#[derive(Clone, Debug)]
pub struct ListState {
    /// They begin with this.
    pub prefix: String,
    /// They come after this key.
    pub after: String,
    /// At most this many.
    pub max: usize,
}

/// A value as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Changes with every write, and is never used twice.
    pub tag: u64,
    /// As written.
    pub value: Bytes,
    /// As written.
    pub content_type: Option<String>,
}
