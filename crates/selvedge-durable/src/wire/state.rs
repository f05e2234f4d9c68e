//! State.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    Malformed, Shown,
    text::{Base64, Match, Span, Tag},
    topic::readable,
};
use crate::{
    Operation,
    state::{self, Condition, DeleteState, GetState, ListState, PutState},
};

/// Writes a value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    key: String,
    /// Text, or any JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_base64: Option<Base64>,
    /// What the value itself suggests unless said; `null` for none.
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    content_type: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    if_match: Option<Match>,
    #[serde(default)]
    if_absent: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<Span>,
}

/// A field that is there, be it `null`.
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl From<PutState> for Put {
    fn from(put: PutState) -> Self {
        let PutState { key, value, content_type, condition, ttl } = put;
        let (if_match, if_absent) = asked(condition);
        Self {
            key,
            value: None,
            value_base64: Some(Base64(value)),
            content_type: Some(content_type),
            if_match,
            if_absent,
            ttl: ttl.map(Span),
        }
    }
}

impl TryFrom<Put> for Operation {
    type Error = Malformed;

    fn try_from(given: Put) -> Result<Self, Malformed> {
        let condition = condition(given.if_match, given.if_absent)?;
        let (value, natural) = match (given.value, given.value_base64) {
            (Some(Value::String(text)), None) => (text.into(), "text/plain"),
            (Some(value), None) => (value.to_string().into(), "application/json"),
            (None, Some(bytes)) => (bytes.0, "application/octet-stream"),
            _ => {
                return Err(Malformed::Form(
                    "one of `value` and `value_base64` must be there".into(),
                ));
            }
        };
        let content_type = given.content_type.unwrap_or_else(|| Some(natural.to_owned()));
        let ttl = given.ttl.map(|it| it.0);
        Ok(Self::PutState(PutState { key: given.key, value, content_type, condition, ttl }))
    }
}

const fn asked(condition: Condition) -> (Option<Match>, bool) {
    match condition {
        Condition::Any => (None, false),
        Condition::Absent => (None, true),
        Condition::Tag(tag) => (Some(Match::Tag(Tag(tag))), false),
        Condition::Present => (Some(Match::Any), false),
        Condition::Foreign => (Some(Match::Foreign), false),
    }
}

fn condition(if_match: Option<Match>, if_absent: bool) -> Result<Condition, Malformed> {
    match (if_match, if_absent) {
        (None, false) => Ok(Condition::Any),
        (None, true) => Ok(Condition::Absent),
        (Some(Match::Tag(tag)), false) => Ok(Condition::Tag(tag.0)),
        (Some(Match::Any), false) => Ok(Condition::Present),
        (Some(Match::Foreign), false) => Ok(Condition::Foreign),
        (Some(_), true) => {
            Err(Malformed::Form("`if_match` and `if_absent` exclude each other".into()))
        }
    }
}

/// Removes a value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    if_match: Option<Match>,
    #[serde(default)]
    if_absent: bool,
}

impl From<DeleteState> for Delete {
    fn from(delete: DeleteState) -> Self {
        let (if_match, if_absent) = asked(delete.condition);
        Self { key: delete.key, if_match, if_absent }
    }
}

impl TryFrom<Delete> for Operation {
    type Error = Malformed;

    fn try_from(given: Delete) -> Result<Self, Malformed> {
        let condition = condition(given.if_match, given.if_absent)?;
        Ok(Self::DeleteState(DeleteState { key: given.key, condition }))
    }
}

/// Reads a value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    key: String,
}

impl From<GetState> for Get {
    fn from(get: GetState) -> Self {
        Self { key: get.key }
    }
}

impl From<Get> for Operation {
    fn from(given: Get) -> Self {
        Self::GetState(GetState { key: given.key })
    }
}

/// Reads keys by prefix, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: String,
    #[serde(default = "super::page")]
    max: usize,
}

impl From<ListState> for List {
    fn from(list: ListState) -> Self {
        let ListState { prefix, after, max } = list;
        Self { prefix, after, max }
    }
}

impl From<List> for Operation {
    fn from(given: List) -> Self {
        let List { prefix, after, max } = given;
        Self::ListState(ListState { prefix, after, max })
    }
}

/// The tag of what was written.
#[derive(Debug, Serialize, Deserialize)]
pub struct Written {
    pub(super) etag: Tag,
}

/// A value as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_base64: Option<Base64>,
    etag: Tag,
}

impl Kept {
    /// How a value looks.
    #[must_use]
    pub fn new(value: &state::Value, shown: Shown) -> Self {
        let (data, data_base64) = match shown {
            Shown::Exact => (None, Some(Base64(value.value.clone()))),
            Shown::Readable | Shown::Base64 => {
                readable(&value.value, value.content_type.as_deref())
            }
        };
        Self { content_type: value.content_type.clone(), data, data_base64, etag: Tag(value.tag) }
    }
}

impl TryFrom<Kept> for state::Value {
    type Error = Malformed;

    fn try_from(given: Kept) -> Result<Self, Malformed> {
        let value =
            given.data_base64.ok_or_else(|| Malformed::Form("`data_base64` is missing".into()))?;
        Ok(Self { tag: given.etag.0, value: value.0, content_type: given.content_type })
    }
}

/// Several keys.
#[derive(Debug, Serialize, Deserialize)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Key {
    etag: Tag,
    key: String,
}

impl From<&Vec<(String, u64)>> for Keys {
    fn from(keys: &Vec<(String, u64)>) -> Self {
        let form = |(key, tag): &(String, u64)| Key { etag: Tag(*tag), key: key.clone() };
        Self { keys: keys.iter().map(form).collect() }
    }
}

impl From<Keys> for Vec<(String, u64)> {
    fn from(given: Keys) -> Self {
        given.keys.into_iter().map(|it| (it.key, it.etag.0)).collect()
    }
}
