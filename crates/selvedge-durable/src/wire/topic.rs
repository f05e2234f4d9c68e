//! Topics and messages.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess},
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::Value;

use super::{
    Malformed, Shown,
    text::{At, Base64, Span, Time},
};
use crate::{
    Operation, collect,
    schema::{self, Compatibility, Schema},
    topic::{
        self, CancelDelayed, DeleteTopic, GetTopic, NewMessage, PRIORITY_DEFAULT, Place, PutTopic,
        ReadTopic,
    },
};

/// How a topic keeps its messages; what is not named has its default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    ageing: Span,
    /// What it takes from other topics.
    collect: Value,
    compact: bool,
    compact_lag: Span,
    /// `0` for no bound.
    dedupe_max: u64,
    dedupe_window: Span,
    priorities: bool,
    relaxed: bool,
    retain_unconsumed: bool,
    /// `null` keeps messages of any age.
    retention_age: Option<Span>,
    /// `null` keeps messages of any size.
    retention_bytes: Option<u64>,
    /// What the payloads must be; `null` for anything.
    schema: Value,
    compatibility: String,
    /// Not asked for, but told.
    schema_version: u64,
    tombstone_for: Span,
}

impl Default for Settings {
    fn default() -> Self {
        topic::Settings::default().into()
    }
}

impl From<topic::Settings> for Settings {
    fn from(settings: topic::Settings) -> Self {
        let topic::Settings {
            retention_age,
            retention_bytes,
            retain_unconsumed,
            compact,
            compact_lag,
            tombstone_for,
            priorities,
            ageing,
            dedupe_window,
            relaxed,
            collect,
            dedupe_max,
            schema,
        } = settings;
        let mode = schema.as_ref().map_or(Compatibility::None, |it| it.compatibility());
        Self {
            dedupe_max: dedupe_max.unwrap_or(0),
            collect: collect::show(&collect),
            schema_version: schema.as_ref().map_or(0, |it| it.version()),
            schema: schema.map_or(Value::Null, |it| it.document()),
            compatibility: schema::compatibility_word(mode).to_owned(),
            retention_age: retention_age.map(Span),
            retention_bytes,
            retain_unconsumed,
            compact,
            compact_lag: Span(compact_lag),
            tombstone_for: Span(tombstone_for),
            priorities,
            ageing: Span(ageing),
            dedupe_window: Span(dedupe_window),
            relaxed,
        }
    }
}

impl TryFrom<Settings> for topic::Settings {
    type Error = Malformed;

    fn try_from(given: Settings) -> Result<Self, Malformed> {
        let mode = schema::compatibility(&given.compatibility)?;
        let schema = match &given.schema {
            Value::Null => None,
            document => {
                Some(Arc::new(Schema::parse(document, mode)?.of_version(given.schema_version)))
            }
        };
        Ok(Self {
            schema,
            collect: collect::parse(&given.collect)?,
            dedupe_max: Some(given.dedupe_max).filter(|max| *max > 0),
            retention_age: given.retention_age.map(|it| it.0),
            retention_bytes: given.retention_bytes,
            retain_unconsumed: given.retain_unconsumed,
            compact: given.compact,
            compact_lag: given.compact_lag.0,
            tombstone_for: given.tombstone_for.0,
            priorities: given.priorities,
            ageing: given.ageing.0,
            dedupe_window: given.dedupe_window.0,
            relaxed: given.relaxed,
        })
    }
}

/// A topic and where it stands.
#[derive(Debug, Serialize, Deserialize)]
pub struct Topic {
    bytes: u64,
    #[serde(default)]
    dedupe_since: Option<Time>,
    delayed: u64,
    first: u64,
    name: String,
    next: u64,
    #[serde(flatten)]
    settings: Settings,
}

impl From<&topic::Topic> for Topic {
    fn from(topic: &topic::Topic) -> Self {
        let topic::Topic { name, settings, first, next, bytes, delayed, dedupe_since } =
            topic.clone();
        Self {
            dedupe_since: dedupe_since.map(Time),
            name,
            settings: settings.into(),
            first,
            next,
            bytes,
            delayed,
        }
    }
}

impl TryFrom<Topic> for topic::Topic {
    type Error = Malformed;

    fn try_from(given: Topic) -> Result<Self, Malformed> {
        let Topic { name, settings, first, next, bytes, delayed, dedupe_since } = given;
        let dedupe_since = dedupe_since.map(|it| it.0);
        Ok(Self { name, settings: settings.try_into()?, first, next, bytes, delayed, dedupe_since })
    }
}

/// Creates a topic, or changes the settings of one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    topic: String,
    #[serde(default)]
    settings: Settings,
}

impl From<PutTopic> for Put {
    fn from(put: PutTopic) -> Self {
        Self { topic: put.name, settings: put.settings.into() }
    }
}

impl TryFrom<Put> for Operation {
    type Error = Malformed;

    fn try_from(given: Put) -> Result<Self, Malformed> {
        let settings = given.settings.try_into()?;
        Ok(Self::PutTopic(PutTopic { name: given.topic, settings }))
    }
}

/// One topic.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    topic: String,
}

impl Named {
    pub(super) const fn new(topic: String) -> Self {
        Self { topic }
    }

    pub(super) fn delete(self) -> Operation {
        Operation::DeleteTopic(DeleteTopic { name: self.topic })
    }

    pub(super) fn get(self) -> Operation {
        Operation::GetTopic(GetTopic { name: self.topic })
    }
}

/// Takes back a message that waits for its time.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    number: u64,
    topic: String,
}

impl From<CancelDelayed> for Cancel {
    fn from(cancel: CancelDelayed) -> Self {
        Self { number: cancel.number, topic: cancel.topic }
    }
}

impl From<Cancel> for Operation {
    fn from(given: Cancel) -> Self {
        Self::CancelDelayed(CancelDelayed { topic: given.topic, number: given.number })
    }
}

/// Reads messages without a group.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    topic: String,
    #[serde(default = "first")]
    from: At,
    #[serde(default = "super::page")]
    max: usize,
}

const fn first() -> At {
    At(topic::From::First)
}

impl From<ReadTopic> for Read {
    fn from(read: ReadTopic) -> Self {
        Self { topic: read.topic, from: At(read.from), max: read.max }
    }
}

impl From<Read> for Operation {
    fn from(given: Read) -> Self {
        let Read { topic, from, max } = given;
        Self::ReadTopic(ReadTopic { topic, from: from.0, max })
    }
}

/// Appends messages, all or none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    topic: String,
    messages: Vec<MessageIn>,
}

impl From<topic::Publish> for Publish {
    fn from(publish: topic::Publish) -> Self {
        let messages = publish.messages.into_iter().map(MessageIn::from).collect();
        Self { topic: publish.topic, messages }
    }
}

impl TryFrom<Publish> for Operation {
    type Error = Malformed;

    fn try_from(given: Publish) -> Result<Self, Malformed> {
        let messages = given.messages.into_iter().map(NewMessage::try_from);
        let messages = messages.collect::<Result<_, _>>()?;
        Ok(Self::Publish(topic::Publish { topic: given.topic, messages }))
    }
}

/// Names and values: an object, or a list of pairs where a name comes twice or
/// the order matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of a message; as an object whatever is lost by that unless `exact`.
    fn shown(headers: &[(String, String)], exact: bool) -> Self {
        let mut headers = headers.to_vec();
        if !exact {
            // The last of a name, and in the order of names.
            headers.reverse();
            headers.sort_by(|a, b| a.0.cmp(&b.0));
            headers.dedup_by(|later, kept| later.0 == kept.0);
        }
        Self(headers)
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.is_sorted_by(|a, b| a.0 < b.0) {
            let mut map = to.serialize_map(Some(self.0.len()))?;
            self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
            return map.end();
        }
        let mut list = to.serialize_seq(Some(self.0.len()))?;
        self.0.iter().try_for_each(|pair| list.serialize_element(pair))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Headers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and values, or a list of pairs")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = std::collections::BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    headers.insert(name, value);
                }
                Ok(Headers(headers.into_iter().collect()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Headers, A::Error> {
                let mut headers = Vec::new();
                while let Some(pair) = list.next_element()? {
                    headers.push(pair);
                }
                Ok(Headers(headers))
            }
        }
        from.deserialize_any(Either)
    }
}

/// A message to publish.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageIn {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    headers: Headers,
    /// Text, or any JSON; the content type says so unless there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deliver_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dedupe_id: Option<String>,
}

impl From<NewMessage> for MessageIn {
    fn from(message: NewMessage) -> Self {
        let NewMessage { key, headers, payload, priority, deliver_at, dedupe_id } = message;
        Self {
            key,
            headers: Headers(headers),
            data: None,
            data_base64: payload.map(Base64),
            priority,
            deliver_at: deliver_at.map(Time),
            dedupe_id,
        }
    }
}

impl TryFrom<MessageIn> for NewMessage {
    type Error = Malformed;

    fn try_from(given: MessageIn) -> Result<Self, Malformed> {
        let MessageIn { key, headers, data, data_base64, priority, deliver_at, dedupe_id } = given;
        let mut headers = headers.0;
        headers.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
        let typed = headers.iter().any(|(name, _)| name == "content-type");
        let mut natural = |media_type: &str| {
            if !typed {
                headers.push(("content-type".to_owned(), media_type.to_owned()));
            }
        };
        let payload = match (data, data_base64) {
            (Some(_), Some(_)) => {
                return Err(Malformed::Form("`data` and `data_base64` exclude each other".into()));
            }
            (None, bytes) => bytes.map(|it| it.0),
            (Some(Value::String(text)), None) => {
                natural("text/plain");
                Some(Bytes::from(text))
            }
            (Some(value), None) => {
                natural("application/json");
                Some(Bytes::from(value.to_string()))
            }
        };
        let deliver_at = deliver_at.map(|it| it.0);
        Ok(Self { key, headers, payload, priority, deliver_at, dedupe_id })
    }
}

/// Where a published message went.
#[derive(Debug, Serialize, Deserialize)]
pub struct Published {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delayed: Option<u64>,
    duplicate: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
}

impl From<&topic::Published> for Published {
    fn from(published: &topic::Published) -> Self {
        let (position, delayed) = match published.place {
            Place::Log(position) => (Some(position), None),
            Place::Delayed(number) => (None, Some(number)),
        };
        Self { delayed, duplicate: published.duplicate, position }
    }
}

impl TryFrom<Published> for topic::Published {
    type Error = Malformed;

    fn try_from(given: Published) -> Result<Self, Malformed> {
        let log = given.position.map(Place::Log);
        let place = log.or_else(|| given.delayed.map(Place::Delayed));
        let place = place.ok_or_else(|| Malformed::Form("a place is missing".into()))?;
        Ok(Self { place, duplicate: given.duplicate })
    }
}

/// A message of a log; as a delivery it has an id besides.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message {
    pub(super) at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<Base64>,
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    headers: Headers,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<super::text::Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    position: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<Time>,
}

impl Message {
    /// How a message looks.
    #[must_use]
    pub fn new(message: &topic::Message, shown: Shown) -> Self {
        let (mut data, mut data_base64) = (None, None);
        match (&message.payload, shown) {
            (None, _) => {}
            (Some(payload), Shown::Exact) => data_base64 = Some(Base64(payload.clone())),
            (Some(payload), Shown::Base64) => data = Some(super::to_base64(payload).into()),
            (Some(payload), Shown::Readable) => {
                let media_type = message.headers.iter().find(|(name, _)| name == "content-type");
                (data, data_base64) = readable(payload, media_type.map(|(_, value)| &value[..]));
            }
        }
        Self {
            at: Time(message.at),
            attempt: None,
            data,
            data_base64,
            headers: Headers::shown(&message.headers, shown == Shown::Exact),
            id: None,
            key: message.key.clone(),
            position: message.position,
            priority: (message.priority != PRIORITY_DEFAULT).then_some(message.priority),
            until: None,
        }
    }
}

impl From<Message> for topic::Message {
    /// Of an exact form; of another, content that is shown as JSON is left out.
    fn from(given: Message) -> Self {
        Self {
            position: given.position,
            at: given.at.0,
            key: given.key,
            headers: given.headers.0,
            payload: given.data_base64.map(|it| it.0),
            priority: given.priority.unwrap_or(PRIORITY_DEFAULT),
        }
    }
}

/// Content as JSON can carry it: as `data` if its type says that it is JSON or
/// text, else as `data_base64`.
pub(super) fn readable(
    payload: &Bytes,
    media_type: Option<&str>,
) -> (Option<Value>, Option<Base64>) {
    let media_type =
        media_type.map_or("", |value| value.split(';').next().unwrap_or_default().trim());
    if media_type == "application/json" || media_type.ends_with("+json") {
        if let Ok(value) = serde_json::from_slice(payload) {
            return (Some(value), None);
        }
    } else if media_type.starts_with("text/")
        && let Ok(text) = std::str::from_utf8(payload)
    {
        return (Some(text.into()), None);
    }
    (None, Some(Base64(payload.clone())))
}

/// Several topics.
#[derive(Debug, Serialize, Deserialize)]
pub struct Topics {
    pub(super) topics: Vec<Topic>,
}

/// Where several messages went.
#[derive(Debug, Serialize, Deserialize)]
pub struct AllPublished {
    pub(super) published: Vec<Published>,
}

/// Several messages.
#[derive(Debug, Serialize, Deserialize)]
pub struct Messages {
    pub(super) messages: Vec<Message>,
}
