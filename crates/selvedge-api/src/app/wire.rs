//! How values look in requests and answers.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use selvedge_durable::{
    group::Receipt,
    topic::{From, Message, NewMessage},
};
use selvedge_patterns::{limit::Rate, wall::Wall};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::Problem;

/// A query string: each name once, unknown names refused by [`Query::only`].
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let broken = || Problem::malformed("the query is not percent-encoded UTF-8".to_owned());
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name).ok_or_else(broken)?, decode(value).ok_or_else(broken)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// Refuses names that mean nothing here.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), Problem> {
        let unknown = self.0.iter().find(|(name, _)| !names.contains(&&name[..]));
        match unknown {
            None => Ok(()),
            Some((name, _)) if names.is_empty() => {
                Err(Problem::malformed(format!("unknown parameter `{name}`; here are none")))
            }
            Some((name, _)) => Err(Problem::malformed(format!(
                "unknown parameter `{name}`; here are {}",
                names.join(", ")
            ))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &value[..])
    }

    pub(super) fn number(&self, name: &str, default: u64) -> Result<u64, Problem> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| Problem::malformed(format!("`{name}` is not a number: `{text}`")))
    }

    pub(super) fn duration(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let problem = || {
            Problem::malformed(format!(
                "`{name}` is not a duration such as `250ms` or `5s`: `{text}`"
            ))
        };
        duration(text).map(Some).ok_or_else(problem)
    }

    /// A place in a topic: a position, `first`, `next`, or a time.
    pub(super) fn from(&self, name: &str, default: From) -> Result<From, Problem> {
        self.text(name).map_or(Ok(default), place)
    }
}

/// A position, `first`, `next`, or an RFC 3339 time.
pub(super) fn place(text: &str) -> Result<From, Problem> {
    let parsed = match text {
        "first" => Some(From::First),
        "next" => Some(From::Next),
        _ => text.parse().map(From::Position).ok().or_else(|| instant(text).map(From::Time)),
    };
    parsed.ok_or_else(|| {
        Problem::malformed(format!("`{text}` is not a position, `first`, `next` or a time"))
    })
}

/// Percent-decoding; `None` if it is not UTF-8 or an escape is broken.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            out.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// `250ms`, `5s`, `10m`, `2h`, `7d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).filter(|millis| *millis < 1 << 50).map(Duration::from_millis)
}

/// As [`duration`] reads it, in the largest unit that leaves nothing over.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let fits = units.iter().find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}

/// `100/s`, `6000/m`, `5/100ms`.
pub(super) fn rate(text: &str) -> Result<Rate, Problem> {
    let parsed = text.split_once('/').and_then(|(count, per)| {
        let bare = per.starts_with(|c: char| c.is_ascii_alphabetic());
        let per = if bare { duration(&format!("1{per}"))? } else { duration(per)? };
        let count = count.parse().ok()?;
        (!per.is_zero()).then_some(Rate { count, per })
    });
    parsed.ok_or_else(|| {
        Problem::malformed(format!("`{text}` is not a rate such as `100/s` or `6000/m`"))
    })
}

/// As [`rate`] reads it.
pub(super) fn show_rate(rate: Rate) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let millis = rate.per.as_millis();
    let fits = units.iter().find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit));
    match fits {
        Some((unit, name)) if millis == *unit => format!("{}/{name}", rate.count),
        Some((unit, name)) => format!("{}/{}{name}", rate.count, millis / unit),
        None => rate.to_string(),
    }
}

/// A field that holds a duration with its unit, or `null` for none.
pub(super) fn duration_field<'de, D: Deserializer<'de>>(
    field: D,
) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(field)? else { return Ok(None) };
    let problem =
        || D::Error::custom(format!("`{text}` is not a duration such as `250ms` or `5s`"));
    duration(&text).map(Some).ok_or_else(problem)
}

/// RFC 3339.
pub(super) fn instant(text: &str) -> Option<Wall> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(stamp.as_microsecond()).ok().map(Wall::from_micros)
}

fn parse_receipt(text: &str) -> Option<Receipt> {
    let mut parts = text.split('-').map(str::parse::<u64>);
    let (position, attempt, fence) =
        (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    let attempt = u32::try_from(attempt).ok()?;
    parts.next().is_none().then_some(Receipt { position, attempt, fence })
}

fn no_receipt(text: &str) -> Problem {
    Problem::malformed(format!("`{text}` is not a receipt"))
}

/// A message to publish, in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageIn {
    key: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    data: Option<Value>,
    data_base64: Option<String>,
    /// How many of the bytes after the line are its payload.
    bytes: Option<usize>,
    priority: Option<u8>,
    deliver_at: Option<String>,
    dedupe_id: Option<String>,
}

impl MessageIn {
    /// Bytes after the line that are its payload.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.unwrap_or(0)
    }

    /// Whether its payload follows the line.
    pub(super) const fn has_bytes(&self) -> bool {
        self.bytes.is_some()
    }

    /// As it is published, where nothing can follow.
    pub(super) fn into_message(self) -> Result<NewMessage, Problem> {
        if self.bytes.is_some() {
            let detail = "`bytes` needs a pipeline with `?payloads=raw`".to_owned();
            return Err(Problem::malformed(detail));
        }
        self.with_payload(None)
    }

    /// As it is published, with the bytes that followed if some did.
    pub(super) fn with_payload(self, beside: Option<Bytes>) -> Result<NewMessage, Problem> {
        let mut headers: Vec<(String, String)> = self
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        let typed = headers.iter().any(|(name, _)| name == "content-type");
        let payload = match (self.data, self.data_base64) {
            (Some(_), Some(_)) => {
                let detail = "`data` and `data_base64` exclude each other".to_owned();
                return Err(Problem::malformed(detail));
            }
            (Some(_), _) | (_, Some(_)) if beside.is_some() => {
                let detail = "`bytes` excludes `data` and `data_base64`".to_owned();
                return Err(Problem::malformed(detail));
            }
            (None, None) => beside,
            (None, Some(text)) => Some(base64(&text)?),
            (Some(Value::String(text)), None) => {
                if !typed {
                    headers.push(("content-type".to_owned(), "text/plain".to_owned()));
                }
                Some(Bytes::from(text))
            }
            (Some(value), None) => {
                if !typed {
                    headers.push(("content-type".to_owned(), "application/json".to_owned()));
                }
                Some(Bytes::from(value.to_string()))
            }
        };
        let deliver_at = self.deliver_at.as_deref().map(due).transpose()?;
        let Self { key, priority, dedupe_id, .. } = self;
        Ok(NewMessage { key, headers, payload, priority, deliver_at, dedupe_id })
    }
}

pub(super) fn base64(text: &str) -> Result<Bytes, Problem> {
    let bytes = BASE64_STANDARD.decode(text);
    bytes.map(Bytes::from).map_err(|error| Problem::malformed(format!("not base64: {error}")))
}

pub(super) fn to_base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(super) fn due(text: &str) -> Result<Wall, Problem> {
    instant(text).ok_or_else(|| Problem::malformed(format!("`{text}` is not an RFC 3339 time")))
}

/// Bytes that it takes in the store.
pub(super) fn size(message: &Message) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let payload = message.payload.as_ref().map_or(0, Bytes::len);
    message.key.as_ref().map_or(0, String::len) + headers + payload
}

/// A receipt in a list, or the text that is none.
pub(super) struct ReceiptIn(Result<Receipt, String>);

impl ReceiptIn {
    pub(super) fn get(&self) -> Result<Receipt, Problem> {
        self.0.as_ref().copied().map_err(|text| no_receipt(text))
    }
}

impl<'de> Deserialize<'de> for ReceiptIn {
    fn deserialize<D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = ReceiptIn;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the `id` of a delivery")
            }

            fn visit_str<E>(self, text: &str) -> Result<ReceiptIn, E> {
                Ok(ReceiptIn(parse_receipt(text).ok_or_else(|| text.to_owned())))
            }
        }
        field.deserialize_str(Text)
    }
}
