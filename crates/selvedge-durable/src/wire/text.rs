//! Values that JSON has no kind for, as text.

use std::{borrow::Cow, fmt, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use selvedge_patterns::{group::Receipt, limit::Rate, wall::Wall};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::topic::From as Place;

/// Parses a field's text, with what is wrong if it is not what belongs there.
fn field<'de, D: Deserializer<'de>, T>(
    from: D,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Text<P>(P);
    impl<T, P: FnOnce(&str) -> Result<T, String>> de::Visitor<'_> for Text<P> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.0)(text).map_err(E::custom)
        }
    }
    from.deserialize_str(Text(parse))
}

/// The longest duration that is read, in milliseconds.
const MILLIS_MAX: u64 = (1 << 50) - 1;

/// A duration with its unit: `250ms`, `5s`, `10m`, `2h`, `7d`; `us` and `ns` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// `250ms`, `5s`, `10m`, `2h`, `7d`, `10us`, `1ns`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ns" => return Some(Duration::from_nanos(number)),
        "us" => return Some(Duration::from_micros(number)),
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).filter(|millis| *millis <= MILLIS_MAX).map(Duration::from_millis)
}

impl fmt::Display for Span {
    /// In the largest unit in which it is whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.min(Duration::from_millis(MILLIS_MAX)).as_nanos();
        let (unit, name) = match nanos {
            0 => (1_000_000, "ms"),
            _ if nanos.is_multiple_of(1_000_000_000) => (1_000_000_000, "s"),
            _ if nanos.is_multiple_of(1_000_000) => (1_000_000, "ms"),
            _ if nanos.is_multiple_of(1000) => (1000, "us"),
            _ => (1, "ns"),
        };
        write!(f, "{}{name}", nanos / unit)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        field(from, |text| {
            duration(text)
                .map(Self)
                .ok_or_else(|| format!("`{text}` is not a duration such as `250ms` or `5s`"))
        })
    }
}

/// A moment as RFC 3339 with microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Wall);

/// RFC 3339.
#[must_use]
pub fn instant(text: &str) -> Option<Wall> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(stamp.as_microsecond()).ok().map(Wall::from_micros)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX);
        let stamp = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{stamp:.6}")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        field(from, |text| {
            instant(text).map(Self).ok_or_else(|| format!("`{text}` is not an RFC 3339 time"))
        })
    }
}

/// Bytes as base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base64(pub Bytes);

/// What base64 text stands for.
///
/// # Errors
///
/// Why it is none.
pub fn base64(text: &str) -> Result<Bytes, String> {
    let bytes = BASE64_STANDARD.decode(text);
    bytes.map(Bytes::from).map_err(|error| format!("not base64: {error}"))
}

/// Bytes as base64.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_base64(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        field(from, |text| base64(text).map(Self))
    }
}

/// The name of one delivery: `position-attempt-fence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub Receipt);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.0.position, self.0.attempt, self.0.fence)
    }
}

/// A receipt of its text.
///
/// # Errors
///
/// What is wrong with it.
pub fn receipt(text: &str) -> Result<Receipt, String> {
    let mut parts = text.split('-').map(str::parse::<u64>);
    let parsed = (|| {
        let (position, attempt, fence) =
            (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
        let attempt = u32::try_from(attempt).ok()?;
        parts.next().is_none().then_some(Receipt { position, attempt, fence })
    })();
    parsed.ok_or_else(|| format!("`{text}` is not a receipt"))
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        field(from, |text| receipt(text).map(Self))
    }
}

/// A place in a topic: a position, `first`, `next`, or an RFC 3339 time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub Place);

/// A position, `first`, `next`, or an RFC 3339 time.
///
/// # Errors
///
/// What is wrong with it.
pub fn place(text: &str) -> Result<Place, String> {
    let parsed = match text {
        "first" => Some(Place::First),
        "next" => Some(Place::Next),
        _ => text.parse().map(Place::Position).ok().or_else(|| instant(text).map(Place::Time)),
    };
    parsed.ok_or_else(|| format!("`{text}` is not a position, `first`, `next` or a time"))
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Place::Position(position) => to.serialize_u64(position),
            Place::Time(at) => Time(at).serialize(to),
            Place::First => to.serialize_str("first"),
            Place::Next => to.serialize_str("next"),
        }
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = At;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a position, `first`, `next` or a time")
            }
            fn visit_u64<E: de::Error>(self, position: u64) -> Result<At, E> {
                Ok(At(Place::Position(position)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<At, E> {
                place(text).map(At).map_err(E::custom)
            }
        }
        from.deserialize_any(Either)
    }
}

/// A tag as `ETag` shows it: hexadecimal, with or without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub u64);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        field(from, tag)
    }
}

fn tag(text: &str) -> Result<Tag, String> {
    let tag = u64::from_str_radix(text.trim_matches('"'), 16);
    tag.map(Tag).map_err(|_| format!("`{text}` is not a tag"))
}

/// What a value's tag must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// This one.
    Tag(Tag),
    /// Any, as `*`.
    Any,
    /// One that no value here ever has, as `foreign`: it was given by somebody else.
    Foreign,
}

impl Serialize for Match {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Tag(tag) => tag.serialize(to),
            Self::Any => to.serialize_str("*"),
            Self::Foreign => to.serialize_str("foreign"),
        }
    }
}

impl<'de> Deserialize<'de> for Match {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        field(from, |text| match text {
            "*" => Ok(Self::Any),
            "foreign" => Ok(Self::Foreign),
            _ => tag(text).map(Self::Tag),
        })
    }
}

/// How often, as `100/s`, `6000/m`, `5/100ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Often(pub(super) Rate);

fn rate(text: &str) -> Result<Rate, String> {
    let parsed = text.split_once('/').and_then(|(count, per)| {
        let bare = per.starts_with(|c: char| c.is_ascii_alphabetic());
        let per = if bare { duration(&format!("1{per}"))? } else { duration(per)? };
        let count = count.parse().ok()?;
        (!per.is_zero()).then_some(Rate { count, per })
    });
    parsed.ok_or_else(|| format!("`{text}` is not a rate such as `100/s` or `6000/m`"))
}

impl fmt::Display for Often {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u128, &str); 6] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1000, "us"),
        ];
        let (count, nanos) = (self.0.count, self.0.per.as_nanos());
        let fits = |unit: &&(u128, &str)| nanos >= unit.0 && nanos.is_multiple_of(unit.0);
        match UNITS.iter().find(fits) {
            Some((unit, name)) if nanos == *unit => write!(f, "{count}/{name}"),
            Some((unit, name)) => write!(f, "{count}/{}{name}", nanos / unit),
            None => write!(f, "{count}/{nanos}ns"),
        }
    }
}

impl Serialize for Often {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Often {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        field(from, |text| rate(text).map(Self))
    }
}

/// Text that may be borrowed from the program or from what was read.
pub(super) type Text = Cow<'static, str>;
