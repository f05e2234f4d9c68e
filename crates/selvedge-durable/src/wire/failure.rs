//! Why a request failed, as the members of a problem document.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use selvedge_patterns::{compat::Refusal, group::Stale};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text::{Id, Text, Time};
use crate::{Error, schema::Mismatch};

/// A problem document, RFC 9457.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// The stable code.
    pub code: Text,
    /// This time.
    pub detail: String,
    /// The status of HTTP.
    pub status: u16,
    /// In short, the same each time.
    pub title: Text,
    /// `urn:selvedge:error:` and the code.
    pub r#type: String,
    /// What it was decided on.
    #[serde(flatten)]
    pub facts: Facts,
}

/// What a refusal was decided on: enough to make the same [`Error`] of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Version or tag that is there; a number or text.
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<(u32, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presented: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<Text>,
}

impl Facts {
    /// Those of an error.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let none = Self::default();
        let text = |text: &'static str| Some(Text::Borrowed(text));
        match error.clone() {
            Error::Open { path, problem } => {
                Self { path: Some(path), problem: Some(problem), ..none }
            }
            Error::Newer { found, known } => {
                Self { found: Some(found), known: Some(known), ..none }
            }
            Error::Corrupt { what } => Self { what: Some(what.into()), ..none },
            Error::Overloaded { waiting } => Self { waiting: Some(waiting), ..none },
            Error::Unreachable { problem } | Error::Unsynced { problem } => {
                Self { problem: Some(problem), ..none }
            }
            Error::Insecure { place, problem } | Error::Unfit { place, problem } => {
                Self { place: Some(place), problem: Some(problem), ..none }
            }
            Error::NotFound { kind, name } => Self { kind: text(kind), name: Some(name), ..none },
            Error::Exists { kind, name, difference } => {
                Self { kind: text(kind), name: Some(name), difference: text(difference), ..none }
            }
            Error::TooLarge { what, size, max } => {
                Self { what: text(what), size: Some(size), max: Some(max), ..none }
            }
            Error::Invalid { field, problem } => {
                Self { field: text(field), problem: Some(problem), ..none }
            }
            Error::Mismatch { index, mismatch: Mismatch { path, rule, problem } } => Self {
                index: Some(index),
                path: Some(path),
                rule: Some(rule),
                problem: Some(problem),
                ..none
            },
            Error::Incompatible { topic, version, refusal: Refusal { path, problem } } => Self {
                name: Some(topic),
                version: Some(version),
                path: Some(path),
                problem: Some(problem),
                ..none
            },
            Error::Stale(Stale { presented, current }) => {
                Self { receipt: Some(Id(presented)), latest: current, ..none }
            }
            Error::WrongVersion { stream, expected, actual } => Self {
                stream: Some(stream),
                expected: Some(expected),
                actual: Some(actual.into()),
                ..none
            },
            Error::Undecodable { stream, version, problem } => Self {
                stream: Some(stream),
                version: Some(version),
                problem: Some(problem),
                ..none
            },
            Error::Precondition { key, expected, actual } => Self {
                key: Some(key),
                expected: Some(expected),
                actual: Some(actual.into()),
                ..none
            },
            Error::Held { resource, owner, until } => Self {
                resource: Some(resource),
                owner: Some(owner),
                until: Some(Time(until)),
                ..none
            },
            Error::Lost { resource, presented, current } => {
                Self { resource: Some(resource), presented: Some(presented), current, ..none }
            }
            Error::Storage(source) => Self { problem: Some(source.to_string()), ..none },
            Error::DiskFull | Error::Closed | Error::Unknown | Error::Refused { .. } => none,
        }
    }
}

impl From<Failure> for Error {
    /// The error that the problem was made of. What no error here stands for is
    /// [`Error::Refused`], and so is one whose facts are not all there.
    fn from(given: Failure) -> Self {
        let Failure { code, detail, status, facts, .. } = given;
        known(&code, facts).unwrap_or_else(|| {
            let code = lasting(code).unwrap_or("SV0406");
            Self::Refused { code, status, detail }
        })
    }
}

fn known(code: &str, facts: Facts) -> Option<Error> {
    let it = facts;
    Some(match code {
        "SV0400" => Error::Open { path: it.path?, problem: it.problem? },
        "SV0401" => Error::Newer { found: it.found?, known: it.known? },
        "SV0402" => Error::Corrupt { what: it.what?.into_owned() },
        "SV0403" => Error::DiskFull,
        "SV0404" => Error::Overloaded { waiting: it.waiting? },
        "SV0405" => Error::Closed,
        "SV0406" => Error::Storage(Arc::from(Box::from(it.problem?))),
        "SV0407" => Error::Unreachable { problem: it.problem? },
        "SV0408" => Error::Unknown,
        "SV0409" => Error::Insecure { place: it.place?, problem: it.problem? },
        "SV0410" => Error::NotFound { kind: lasting(it.kind?)?, name: it.name? },
        "SV0411" => Error::Exists {
            kind: lasting(it.kind?)?,
            name: it.name?,
            difference: lasting(it.difference?)?,
        },
        "SV0412" => Error::TooLarge { what: lasting(it.what?)?, size: it.size?, max: it.max? },
        "SV0413" => Error::Invalid { field: lasting(it.field?)?, problem: it.problem? },
        "SV0414" => Error::Stale(Stale { presented: it.receipt?.0, current: it.latest }),
        "SV0415" => Error::Unfit { place: it.place?, problem: it.problem? },
        "SV0416" => Error::Unsynced { problem: it.problem? },
        "SV0417" => Error::Mismatch {
            index: it.index?,
            mismatch: Mismatch { path: it.path?, rule: it.rule?, problem: it.problem? },
        },
        "SV0418" => Error::Incompatible {
            topic: it.name?,
            version: it.version?,
            refusal: Refusal { path: it.path?, problem: it.problem? },
        },
        "SV0420" => Error::WrongVersion {
            stream: it.stream?,
            expected: it.expected?,
            actual: it.actual.and_then(|actual| actual.as_u64()),
        },
        "SV0421" => Error::Precondition {
            key: it.key?,
            expected: it.expected?,
            actual: it.actual.and_then(|actual| actual.as_str().map(str::to_owned)),
        },
        "SV0422" => {
            Error::Undecodable { stream: it.stream?, version: it.version?, problem: it.problem? }
        }
        "SV0430" => Error::Held { resource: it.resource?, owner: it.owner?, until: it.until?.0 },
        "SV0431" => {
            Error::Lost { resource: it.resource?, presented: it.presented?, current: it.current }
        }
        _ => return None,
    })
}

/// Different words that are kept for ever.
const WORDS_MAX: usize = 1024;
/// Bytes of one of them.
const WORD_BYTES_MAX: usize = 100;

/// A word that lasts as long as the program, since errors name their subjects
/// so. A server has a few dozen; one that sends ever new ones gets no more.
fn lasting(word: Text) -> Option<&'static str> {
    static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let word = match word {
        Text::Borrowed(word) => return Some(word),
        Text::Owned(word) => word,
    };
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(kept) = words.get(&word[..]) {
        return Some(kept);
    }
    if words.len() >= WORDS_MAX || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let kept: &'static str = Box::leak(word.into_boxed_str());
    words.insert(kept);
    Some(kept)
}
