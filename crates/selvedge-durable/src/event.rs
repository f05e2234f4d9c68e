//! Typed events: what a stream holds, as a Rust enum.
//!
//! The name of a variant is the event's type, and its content is kept as JSON.
//! Stored events never change: when the content of a type does, an [`Upcast`]
//! makes the new content of the old one whenever it is read. How many upcasts a
//! type has is its schema, so the two cannot disagree.
//!
//! ```
//! use selvedge_durable::event::{Events, Upcast, decode, encode};
//! use serde::{Deserialize, Serialize};
//! use serde_json::{Value, json};
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! enum Parcel {
//!     Weighed { grams: u64 },
//!     Lost,
//! }
//!
//! impl Events for Parcel {
//!     // The first schema counted in whole kilograms.
//!     const UPCASTS: &'static [Upcast] = &[Upcast {
//!         kind: "Weighed",
//!         from: 1,
//!         step: |old| {
//!             let kilos = old["kilos"].as_u64().ok_or("`kilos` is missing")?;
//!             Ok(json!({ "grams": kilos * 1000 }))
//!         },
//!     }];
//! }
//!
//! let (kind, data) = encode(&Parcel::Lost)?;
//! assert_eq!((&kind[..], &data[..]), ("Lost", &b""[..]));
//! let old = decode::<Parcel>("Weighed", 1, br#"{"kilos":2}"#);
//! assert_eq!(old, Ok(Parcel::Weighed { grams: 2000 }));
//! let new = decode::<Parcel>("Weighed", 2, br#"{"grams":5}"#);
//! assert_eq!(new, Ok(Parcel::Weighed { grams: 5 }));
//! # Ok::<(), selvedge_durable::Error>(())
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{Error, stream::Event};

/// The events of one kind of stream: an enum with serde's usual representation,
/// a variant for each type. `#[serde(rename = "…")]` names a type otherwise
/// than its variant, `#[serde(alias = "…")]` keeps reading its earlier name.
pub trait Events: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// One entry for each schema that a type ever left behind, without gaps.
    const UPCASTS: &'static [Upcast] = &[];
}

/// Makes the content of one schema of that of the one before. It must be pure:
/// the same old content always gives the same new one.
#[derive(Clone, Copy, Debug)]
pub struct Upcast {
    /// The type, as stored.
    pub kind: &'static str,
    /// The schema that it reads, from 1; it gives the one after.
    pub from: u32,
    /// The change; `Null` stands for no content. The error says what is wrong.
    pub step: fn(Value) -> Result<Value, &'static str>,
}

/// The schema in which events of this type are written now, from 1.
#[must_use]
pub fn schema<E: Events>(kind: &str) -> u32 {
    let steps = E::UPCASTS.iter().filter(|upcast| upcast.kind == kind);
    steps.map(|upcast| upcast.from + 1).max().unwrap_or(1)
}

/// An event's type and content, as they are stored.
///
/// # Errors
///
/// [`Error::Invalid`] if the type is no enum or not in serde's usual representation.
pub fn encode<E: Events>(event: &E) -> Result<(String, Bytes), Error> {
    let problem = || Error::invalid("event", "must be an enum with serde's usual representation");
    match serde_json::to_value(event) {
        Ok(Value::String(kind)) => Ok((kind, Bytes::new())),
        Ok(Value::Object(variant)) if variant.len() == 1 => {
            let (kind, content) = variant.into_iter().next().ok_or_else(problem)?;
            Ok((kind, Bytes::from(content.to_string())))
        }
        Ok(_) => Err(problem()),
        Err(error) => Err(Error::invalid("event", error.to_string())),
    }
}

/// The event that was stored, brought to the schema of today.
///
/// # Errors
///
/// Why it cannot be read.
pub fn decode<E: Events>(kind: &str, stored: u32, data: &[u8]) -> Result<E, String> {
    let current = schema::<E>(kind);
    if stored > current {
        return Err(format!("`{kind}` has schema {stored}, this program knows {current}"));
    }
    let mut content = if data.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(data).map_err(|error| format!("`{kind}` is not JSON: {error}"))?
    };
    for from in stored..current {
        let upcast = E::UPCASTS.iter().find(|upcast| upcast.kind == kind && upcast.from == from);
        let upcast = upcast.ok_or_else(|| format!("`{kind}` has no upcast from schema {from}"))?;
        content = (upcast.step)(content)
            .map_err(|problem| format!("`{kind}` of schema {from}: {problem}"))?;
    }
    let variant = if data.is_empty() && content.is_null() {
        Value::String(kind.to_owned())
    } else {
        Value::Object(Map::from_iter([(kind.to_owned(), content)]))
    };
    E::deserialize(variant).map_err(|error| format!("`{kind}`: {error}"))
}

/// What is kept beside an event's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The schema in which the content is stored, from 1.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub schema: u32,
    /// The command that the event came of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What all of this is about: the same from the first request to the last event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// The message, event or request that led to the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<String>,
    /// Whatever else the writer keeps: who, from where.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

const fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_first(schema: &u32) -> bool {
    *schema == first()
}

impl Default for Metadata {
    fn default() -> Self {
        let (command, correlation, causation) = (None, None, None);
        Self { schema: first(), command, correlation, causation, other: Map::new() }
    }
}

impl Metadata {
    /// Of an event as stored; what another program wrote otherwise says nothing.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let bytes = event.metadata.as_deref().unwrap_or_default();
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

impl Event {
    /// The event as a type of the program.
    ///
    /// # Errors
    ///
    /// [`Error::Undecodable`] if its type or schema is unknown or its content does not fit.
    pub fn decode<E: Events>(&self) -> Result<E, Error> {
        decode(&self.kind, Metadata::of(self).schema, &self.data).map_err(|problem| {
            Error::Undecodable { stream: self.stream.clone(), version: self.version, problem }
        })
    }
}
