//! Event streams.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::{
    Malformed, Shown,
    text::{Base64, Time},
};
use crate::{
    Operation,
    stream::{
        self, DeleteStream, GetSnapshot, NewEvent, PutSnapshot, ReadEvents, ReadStream,
        TruncateStream, Write,
    },
};

/// What a writer believes about a stream: `any`, `none`, `exists` or a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected(pub stream::Expected);

impl Expected {
    fn is_any(&self) -> bool {
        self.0 == stream::Expected::Any
    }

    /// Of its text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let expected = match text {
            "any" => Some(stream::Expected::Any),
            "none" => Some(stream::Expected::None),
            "exists" => Some(stream::Expected::Exists),
            text => text.parse().ok().map(stream::Expected::Exact),
        };
        expected.map(Self)
    }
}

/// What is said of an expectation that cannot be read.
pub const EXPECTED: &str = "`expected` must be `any`, `none`, `exists` or a version";

impl Serialize for Expected {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            stream::Expected::Any => to.serialize_str("any"),
            stream::Expected::None => to.serialize_str("none"),
            stream::Expected::Exists => to.serialize_str("exists"),
            stream::Expected::Exact(version) => to.serialize_u64(version),
        }
    }
}

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = Expected;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_u64<E: de::Error>(self, version: u64) -> Result<Expected, E> {
                Ok(Expected(stream::Expected::Exact(version)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Expected, E> {
                Expected::parse(text).ok_or_else(|| E::custom(EXPECTED))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Expected, E> {
                Ok(Expected::default())
            }
        }
        from.deserialize_any(Either)
    }
}

/// An event to append.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventIn {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<Base64>,
}

impl From<NewEvent> for EventIn {
    fn from(event: NewEvent) -> Self {
        let NewEvent { id, kind, data, metadata } = event;
        Self {
            id,
            r#type: kind,
            data: None,
            data_base64: (!data.is_empty()).then_some(Base64(data)),
            metadata: None,
            metadata_base64: metadata.map(Base64),
        }
    }
}

fn either(
    json: Option<Value>,
    bytes: Option<Base64>,
    both: &'static str,
) -> Result<Option<Bytes>, Malformed> {
    match (json, bytes) {
        (Some(_), Some(_)) => Err(Malformed::Form(both.into())),
        (Some(value), None) => Ok(Some(Bytes::from(value.to_string()))),
        (None, bytes) => Ok(bytes.map(|it| it.0)),
    }
}

impl TryFrom<EventIn> for NewEvent {
    type Error = Malformed;

    fn try_from(given: EventIn) -> Result<Self, Malformed> {
        let EventIn { id, r#type: kind, data, data_base64, metadata, metadata_base64 } = given;
        let both = "`data` and `data_base64` exclude each other";
        let data = either(data, data_base64, both)?.unwrap_or_default();
        let both = "`metadata` and `metadata_base64` exclude each other";
        let metadata = either(metadata, metadata_base64, both)?;
        Ok(Self { id, kind, data, metadata })
    }
}

/// What is to happen to one stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteIn {
    stream: String,
    #[serde(default, skip_serializing_if = "Expected::is_any")]
    expected: Expected,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventIn>,
}

impl From<Write> for WriteIn {
    fn from(write: Write) -> Self {
        let Write { stream, expected, events } = write;
        let events = events.into_iter().map(EventIn::from).collect();
        Self { stream, expected: Expected(expected), events }
    }
}

impl TryFrom<WriteIn> for Write {
    type Error = Malformed;

    fn try_from(given: WriteIn) -> Result<Self, Malformed> {
        let events = given.events.into_iter().map(NewEvent::try_from);
        let events = events.collect::<Result<_, _>>()?;
        Ok(Self { stream: given.stream, expected: given.expected.0, events })
    }
}

/// Appends to several streams, all or none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Append {
    writes: Vec<WriteIn>,
}

impl From<stream::Append> for Append {
    fn from(append: stream::Append) -> Self {
        Self { writes: append.writes.into_iter().map(WriteIn::from).collect() }
    }
}

impl TryFrom<Append> for stream::Append {
    type Error = Malformed;

    fn try_from(given: Append) -> Result<Self, Malformed> {
        let writes = given.writes.into_iter().map(Write::try_from);
        Ok(Self { writes: writes.collect::<Result<_, _>>()? })
    }
}

/// Where an append left things.
#[derive(Debug, Serialize, Deserialize)]
pub struct Appended {
    duplicate: bool,
    position: u64,
    versions: Vec<Option<u64>>,
}

impl From<&stream::Appended> for Appended {
    fn from(appended: &stream::Appended) -> Self {
        let stream::Appended { versions, position, duplicate } = appended.clone();
        Self { duplicate, position, versions }
    }
}

impl From<Appended> for stream::Appended {
    fn from(given: Appended) -> Self {
        let Appended { duplicate, position, versions } = given;
        Self { versions, position, duplicate }
    }
}

/// Removes the beginning of a stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truncate {
    stream: String,
    before: u64,
}

impl From<TruncateStream> for Truncate {
    fn from(truncate: TruncateStream) -> Self {
        let TruncateStream { stream, before } = truncate;
        Self { stream, before }
    }
}

impl From<Truncate> for Operation {
    fn from(given: Truncate) -> Self {
        let Truncate { stream, before } = given;
        Self::TruncateStream(TruncateStream { stream, before })
    }
}

/// Removes all events of a stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    stream: String,
    #[serde(default, skip_serializing_if = "Expected::is_any")]
    expected: Expected,
}

impl From<DeleteStream> for Delete {
    fn from(delete: DeleteStream) -> Self {
        let DeleteStream { stream, expected } = delete;
        Self { stream, expected: Expected(expected) }
    }
}

impl From<Delete> for Operation {
    fn from(given: Delete) -> Self {
        let Delete { stream, expected } = given;
        Self::DeleteStream(DeleteStream { stream, expected: expected.0 })
    }
}

/// Keeps a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotIn {
    stream: String,
    version: u64,
    #[serde(default)]
    schema: String,
    data_base64: Base64,
}

impl From<PutSnapshot> for SnapshotIn {
    fn from(put: PutSnapshot) -> Self {
        let PutSnapshot { stream, version, schema, data } = put;
        Self { stream, version, schema, data_base64: Base64(data) }
    }
}

impl From<SnapshotIn> for Operation {
    fn from(given: SnapshotIn) -> Self {
        let SnapshotIn { stream, version, schema, data_base64 } = given;
        Self::PutSnapshot(PutSnapshot { stream, version, schema, data: data_base64.0 })
    }
}

/// Asks for a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotOf {
    stream: String,
    #[serde(default)]
    schema: String,
}

impl From<GetSnapshot> for SnapshotOf {
    fn from(get: GetSnapshot) -> Self {
        let GetSnapshot { stream, schema } = get;
        Self { stream, schema }
    }
}

impl From<SnapshotOf> for Operation {
    fn from(given: SnapshotOf) -> Self {
        let SnapshotOf { stream, schema } = given;
        Self::GetSnapshot(GetSnapshot { stream, schema })
    }
}

/// The latest snapshot, if there is one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Latest {
    snapshot: Option<Snapshot>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    data_base64: Base64,
    version: u64,
}

impl From<&Option<stream::Snapshot>> for Latest {
    fn from(found: &Option<stream::Snapshot>) -> Self {
        let form = |it: &stream::Snapshot| Snapshot {
            data_base64: Base64(it.data.clone()),
            version: it.version,
        };
        Self { snapshot: found.as_ref().map(form) }
    }
}

impl From<Latest> for Option<stream::Snapshot> {
    fn from(given: Latest) -> Self {
        given.snapshot.map(|it| stream::Snapshot { version: it.version, data: it.data_base64.0 })
    }
}

/// Reads one stream, from its beginning or, backwards, from its end unless said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    stream: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(default)]
    backwards: bool,
    #[serde(default = "super::page")]
    max: usize,
}

impl From<ReadStream> for Read {
    fn from(read: ReadStream) -> Self {
        let ReadStream { stream, from, backwards, max } = read;
        Self { stream, from: Some(from), backwards, max }
    }
}

impl From<Read> for Operation {
    fn from(given: Read) -> Self {
        let Read { stream, from, backwards, max } = given;
        let from = from.unwrap_or(if backwards { u64::MAX } else { 0 });
        Self::ReadStream(ReadStream { stream, from, backwards, max })
    }
}

/// Reads all streams by position.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadAll {
    #[serde(default)]
    after: u64,
    #[serde(default = "super::page")]
    max: usize,
}

impl From<ReadEvents> for ReadAll {
    fn from(read: ReadEvents) -> Self {
        let ReadEvents { after, max } = read;
        Self { after, max }
    }
}

impl From<ReadAll> for Operation {
    fn from(given: ReadAll) -> Self {
        let ReadAll { after, max } = given;
        Self::ReadEvents(ReadEvents { after, max })
    }
}

/// An event as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Event {
    at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<Base64>,
    position: u64,
    stream: String,
    r#type: String,
    version: u64,
}

impl Event {
    /// How an event looks. Readable are JSON content and metadata; metadata
    /// that are none are left out.
    #[must_use]
    pub fn new(event: &stream::Event, shown: Shown) -> Self {
        let exact = shown == Shown::Exact;
        let json = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).ok();
        let data = if exact { None } else { json(&event.data) };
        let base64 = data.is_none() && !event.data.is_empty();
        let metadata = event.metadata.as_ref();
        Self {
            at: Time(event.at),
            data,
            data_base64: base64.then(|| Base64(event.data.clone())),
            id: event.id.clone(),
            metadata: metadata.filter(|_| !exact).and_then(json),
            metadata_base64: metadata.filter(|_| exact).cloned().map(Base64),
            position: event.position,
            stream: event.stream.clone(),
            r#type: event.kind.clone(),
            version: event.version,
        }
    }
}

impl From<Event> for stream::Event {
    /// Of an exact form; of another, content that is shown as JSON is left out.
    fn from(given: Event) -> Self {
        Self {
            stream: given.stream,
            version: given.version,
            position: given.position,
            at: given.at.0,
            id: given.id,
            kind: given.r#type,
            data: given.data_base64.map(|it| it.0).unwrap_or_default(),
            metadata: given.metadata_base64.map(|it| it.0),
        }
    }
}

/// Several events.
#[derive(Debug, Serialize, Deserialize)]
pub struct Events {
    pub(super) events: Vec<Event>,
}

/// Part of a stream.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    events: Vec<Event>,
    last: u64,
}

impl Page {
    /// How part of a stream looks.
    #[must_use]
    pub fn new(page: &stream::Page, shown: Shown) -> Self {
        let events = page.events.iter().map(|it| Event::new(it, shown)).collect();
        Self { events, last: page.last }
    }
}

impl From<Page> for stream::Page {
    fn from(given: Page) -> Self {
        Self { events: given.events.into_iter().map(Into::into).collect(), last: given.last }
    }
}
