//! CloudEvents 1.0 over HTTP: binary, structured and batched, in both directions.
//!
//! An event is kept as a message with `ce-…` headers, as the binary mode has
//! them; `source` and `id` together are its dedupe id, since the standard says
//! that they name one event.

use std::{collections::BTreeMap, fmt::Write};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use selvedge_durable::topic::{Message, NewMessage};
use serde_json::{Map, Value};

use super::{
    Problem,
    wire::{base64, decode, to_base64},
};

const REQUIRED: [&str; 4] = ["ce-id", "ce-source", "ce-specversion", "ce-type"];

/// A binary-mode event's message, if the request is one.
pub(super) fn binary(headers: &HeaderMap, payload: Bytes) -> Result<Option<NewMessage>, Problem> {
    if !headers.contains_key("ce-specversion") {
        return Ok(None);
    }
    let mut attributes = Vec::new();
    for (name, value) in headers {
        if name.as_str().starts_with("ce-") || name == "content-type" {
            let problem = || Problem::malformed(format!("`{name}` is not a valid attribute"));
            let text = value.to_str().map_err(|_| problem())?;
            let text = if name == "content-type" {
                text.to_owned()
            } else {
                decode(unquoted(text)).ok_or_else(problem)?
            };
            attributes.push((name.as_str().to_owned(), text));
        }
    }
    finish(attributes, Some(payload)).map(Some)
}

/// A header value may be quoted; quotes come off before percent-decoding.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The message of one event in JSON.
pub(super) fn structured(event: Value) -> Result<NewMessage, Problem> {
    let Value::Object(event) = event else {
        return Err(Problem::malformed("a CloudEvent is a JSON object".to_owned()));
    };
    let (mut attributes, mut data, mut encoded) = (Vec::new(), None, None);
    for (name, value) in event {
        match (&name[..], value) {
            (_, Value::Null) => {}
            ("data", value) => data = Some(value),
            ("data_base64", Value::String(text)) => encoded = Some(text),
            ("datacontenttype", Value::String(text)) => {
                attributes.push(("content-type".to_owned(), text));
            }
            (_, value) => {
                let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                let text = match value {
                    Value::String(text) => text,
                    Value::Bool(_) | Value::Number(_) => value.to_string(),
                    _ => {
                        return Err(Problem::malformed(format!("attribute `{name}` is not plain")));
                    }
                };
                if !name.chars().all(valid) {
                    return Err(Problem::malformed(format!("`{name}` is not an attribute's name")));
                }
                attributes.push((format!("ce-{name}"), text));
            }
        }
    }
    let typed = attributes.iter().find(|(name, _)| name == "content-type").map(|(_, text)| text);
    let is_json = typed.is_none_or(|text| {
        let media_type = text.split(';').next().unwrap_or_default().trim();
        media_type.ends_with("/json") || media_type.ends_with("+json")
    });
    let payload = match (data, encoded) {
        (Some(_), Some(_)) => {
            return Err(Problem::malformed(
                "`data` and `data_base64` exclude each other".to_owned(),
            ));
        }
        (None, Some(text)) => base64(&text)?,
        (Some(Value::String(text)), None) if !is_json => Bytes::from(text),
        (Some(value), None) => Bytes::from(value.to_string()),
        (None, None) => Bytes::new(),
    };
    if typed.is_none() {
        attributes.push(("content-type".to_owned(), "application/json".to_owned()));
    }
    finish(attributes, Some(payload))
}

fn finish(headers: Vec<(String, String)>, payload: Option<Bytes>) -> Result<NewMessage, Problem> {
    let get = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, text)| text);
    for name in REQUIRED {
        if get(name).is_none_or(String::is_empty) {
            let detail = format!("a CloudEvent needs `{}`", &name[3..]);
            return Err(Problem::malformed(detail));
        }
    }
    if get("ce-specversion").is_some_and(|version| version != "1.0") {
        return Err(Problem::malformed("only CloudEvents 1.0 are known".to_owned()));
    }
    let dedupe_id = match (get("ce-source"), get("ce-id")) {
        (Some(source), Some(id)) => Some(format!("{source}\n{id}")),
        _ => None,
    };
    let key = get("ce-partitionkey").cloned();
    Ok(NewMessage { key, headers, payload, dedupe_id, ..NewMessage::default() })
}

/// The attributes and the media type of a message; one that was not published
/// as a CloudEvent gets the attributes that it must have.
fn attributes(topic: &str, message: &Message) -> (BTreeMap<String, String>, Option<String>) {
    let (mut attributes, mut media_type) = (BTreeMap::new(), None);
    for (name, value) in &message.headers {
        if let Some(name) = name.strip_prefix("ce-") {
            attributes.insert(name.to_owned(), value.clone());
        } else if name == "content-type" {
            media_type = Some(value.clone());
        }
    }
    let defaults = [
        ("specversion", "1.0".to_owned()),
        ("id", message.position.to_string()),
        ("source", format!("/v1/topics/{topic}")),
        ("type", "selvedge.message".to_owned()),
        ("time", super::shown::time(message.at)),
    ];
    for (name, value) in defaults {
        attributes.entry(name.to_owned()).or_insert(value);
    }
    (attributes, media_type)
}

/// The headers of a message as an event in binary mode; its payload is the body.
pub(crate) fn headers(topic: &str, message: &Message) -> HeaderMap {
    let (attributes, media_type) = attributes(topic, message);
    let mut headers = HeaderMap::new();
    for (name, value) in attributes {
        // What is no attribute's name was no CloudEvent's: it stays behind.
        let name = HeaderName::try_from(format!("ce-{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(encode(&value))) {
            headers.insert(name, value);
        }
    }
    if let Some(value) = media_type.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers
}

/// An attribute as a header's value: percent-encoded where it must be.
fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && !b"\"%".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A message as one event in JSON.
pub(crate) fn event(topic: &str, message: &Message) -> Value {
    let (attributes, media_type) = attributes(topic, message);
    let mut event: Map<String, Value> =
        attributes.into_iter().map(|(name, value)| (name, value.into())).collect();
    let Some(payload) = &message.payload else { return Value::Object(event) };
    let is_json = media_type.as_deref().is_some_and(|text| {
        let text = text.split(';').next().unwrap_or_default().trim();
        text.ends_with("/json") || text.ends_with("+json")
    });
    match serde_json::from_slice::<Value>(payload) {
        Ok(value) if is_json => event.insert("data".to_owned(), value),
        _ => event.insert("data_base64".to_owned(), to_base64(payload).into()),
    };
    if let Some(media_type) = media_type {
        event.insert("datacontenttype".to_owned(), media_type.into());
    }
    Value::Object(event)
}
