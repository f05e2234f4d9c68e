//! How messages look in answers.
//!
//! They are written straight into the bytes of the answer: a tree of values for
//! each of a hundred messages costs more than taking them out of the store.

use std::cell::RefCell;

use bytes::Bytes;
use selvedge_durable::{
    group::{Delivery, Receipt},
    topic::{self, PRIORITY_DEFAULT, Place, Published},
};
use selvedge_patterns::wall::Wall;
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::Value;

use super::{Problem, wire, wire::Query};

/// How payloads are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// `data` if it is JSON by its type, or text; else `data_base64`.
    Readable,
    /// Always base64, in `data`: quick to write and to read.
    Base64,
    /// As they are, after the line; `bytes` says how many are whose.
    Beside,
}

impl Shown {
    pub(super) fn parse(query: &Query) -> Result<Self, Problem> {
        match query.text("data") {
            None => Ok(Self::Readable),
            Some("base64") => Ok(Self::Base64),
            Some(other) => Err(Problem::malformed(format!("`data` cannot be `{other}`"))),
        }
    }
}

/// A message, alone or as it was handed out.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    message: &'a topic::Message,
    delivery: Option<&'a Delivery>,
    shown: Shown,
}

impl<'a> Message<'a> {
    pub(super) const fn read(message: &'a topic::Message, shown: Shown) -> Self {
        Self { message, delivery: None, shown }
    }

    pub(super) const fn delivered(delivery: &'a Delivery, shown: Shown) -> Self {
        Self { message: &delivery.message, delivery: Some(delivery), shown }
    }
}

impl Serialize for Message<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let topic::Message { position, at, key, headers, payload, priority } = self.message;
        let mut map = serializer.serialize_map(None)?;
        if let Some(Delivery { receipt, until, .. }) = self.delivery {
            map.serialize_entry("id", &receipt_text(*receipt))?;
            map.serialize_entry("attempt", &receipt.attempt)?;
            map.serialize_entry("until", &time(*until))?;
        }
        map.serialize_entry("position", position)?;
        map.serialize_entry("at", &time(*at))?;
        if let Some(key) = key {
            map.serialize_entry("key", key)?;
        }
        if *priority != PRIORITY_DEFAULT {
            map.serialize_entry("priority", priority)?;
        }
        if !headers.is_empty() {
            map.serialize_entry("headers", &Headers(headers))?;
        }
        if let Some(bytes) = payload {
            match self.shown {
                Shown::Beside => map.serialize_entry("bytes", &bytes.len())?,
                Shown::Base64 => map.serialize_entry("data", &wire::to_base64(bytes))?,
                Shown::Readable => {
                    let media_type = headers.iter().find(|(name, _)| name == "content-type");
                    let (name, value) = payload_value(bytes, media_type.map(|(_, value)| &**value));
                    map.serialize_entry(name, &value)?;
                }
            }
        }
        map.end()
    }
}

/// Of a name that is there twice, the last value.
struct Headers<'a>(&'a [(String, String)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (place, (name, value)) in self.0.iter().enumerate() {
            if !self.0[place + 1..].iter().any(|(later, _)| later == name) {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// What [`Each`] makes of an item.
type Show<'a, T, O> = fn(&'a T, Shown) -> O;

/// Items as they are shown, in a list.
pub(super) struct Each<'a, T, O>(pub(super) &'a [T], pub(super) Shown, pub(super) Show<'a, T, O>);

impl<T, O: Serialize> Serialize for Each<'_, T, O> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(items, shown, show) = self;
        let mut list = serializer.serialize_seq(Some(items.len()))?;
        for item in *items {
            list.serialize_element(&show(item, *shown))?;
        }
        list.end()
    }
}

/// Where a message went.
#[derive(Serialize)]
pub(super) struct Went {
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delayed: Option<u64>,
    duplicate: bool,
}

impl Went {
    pub(super) const fn of(published: &Published) -> Self {
        let (position, delayed) = match published.place {
            Place::Log(position) => (Some(position), None),
            Place::Delayed(number) => (None, Some(number)),
        };
        Self { position, delayed, duplicate: published.duplicate }
    }

    pub(super) const fn each(published: &Published, _: Shown) -> Self {
        Self::of(published)
    }
}

/// Content as JSON can carry it: as `data` if its type says that it is JSON or
/// text, else as `data_base64`.
pub(super) fn payload_value(payload: &Bytes, media_type: Option<&str>) -> (&'static str, Value) {
    let media_type =
        media_type.map_or("", |value| value.split(';').next().unwrap_or_default().trim());
    if media_type == "application/json" || media_type.ends_with("+json") {
        if let Ok(value) = serde_json::from_slice(payload) {
            return ("data", value);
        }
    } else if media_type.starts_with("text/")
        && let Ok(text) = std::str::from_utf8(payload)
    {
        return ("data", text.into());
    }
    ("data_base64", wire::to_base64(payload).into())
}

/// RFC 3339 with microseconds.
pub(super) fn time(at: Wall) -> String {
    thread_local! {
        /// The last second that was written, and how: the messages of one answer share few.
        static LAST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    let micros = i64::try_from(at.as_micros()).unwrap_or(i64::MAX);
    let (second, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            let stamp = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            *text = format!("{stamp:.0}");
            text.pop();
            *last = second;
        }
        format!("{text}.{rest:06}Z")
    })
}

/// The name of one delivery: `position-attempt-fence`.
pub(super) fn receipt_text(receipt: Receipt) -> String {
    format!("{}-{}-{}", receipt.position, receipt.attempt, receipt.fence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_alike_whichever_was_written_before() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (999_999, "1970-01-01T00:00:00.999999Z"),
            (1_800_000_000_000_001, "2027-01-15T08:00:00.000001Z"),
            (1_800_000_000_000_002, "2027-01-15T08:00:00.000002Z"),
            (1_000_000, "1970-01-01T00:00:01.000000Z"),
        ] {
            assert_eq!(time(Wall::from_micros(micros)), text);
            assert_eq!(wire::instant(text), Some(Wall::from_micros(micros)));
        }
    }

    #[test]
    fn a_name_that_is_there_twice_is_written_once() {
        let headers =
            [("a", "1"), ("b", "2"), ("a", "3")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let text = serde_json::to_string(&Headers(&headers)).unwrap();
        assert_eq!(text, r#"{"b":"2","a":"3"}"#);
    }
}
