//! Filters of groups as JSON, and messages as filters see them.
//!
//! ```json
//! { "all": [
//!     { "prefix": { "type": "order." } },
//!     { "wildcard": { "key": "eu.#" } },
//!     { "not": { "equals": { "data.customer.tier": "trial" } } }
//! ] }
//! ```
//!
//! `exact`, `prefix`, `suffix`, `all`, `any` and `not` are those of the
//! CloudEvents Subscriptions API; `wildcard`, `equals`, `in`, `gt`, `gte`, `lt`
//! and `lte` are further ones. A list of filters stands for `all`. Several names
//! in one test must all pass.

use std::cell::OnceCell;

pub use selvedge_patterns::filter::Filter;
use selvedge_patterns::filter::{
    DEPTH_MAX, Found, Number, Place, Scalar, Side, Subject, Test, Wildcard,
};
use serde_json::{Map, Number as JsonNumber, Value, json};

use crate::{Error, topic::Message};

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[cfg(test)]
mod tests;

const DIALECTS: &str = "`exact`, `prefix`, `suffix`, `wildcard`, `equals`, `in`, `gt`, `gte`, \
     `lt`, `lte`, `all`, `any` or `not`";

/// Reads a filter.
///
/// # Errors
///
/// [`Error::Invalid`]: where in it, what is wrong, and what is allowed.
pub fn parse(value: &Value) -> Result<Filter, Error> {
    let filter = node(value, &mut Path::default())?;
    filter.validate()?;
    Ok(filter)
}

/// Reads a filter of a text of JSON.
///
/// # Errors
///
/// As [`parse`] has them, and for a text that is not JSON.
pub fn parse_text(text: &str) -> Result<Filter, Error> {
    let value = serde_json::from_str(text);
    let value = value.map_err(|error| Error::invalid("filter", format!("is not JSON: {error}")))?;
    parse(&value)
}

/// The filter as [`parse`] reads it.
#[must_use]
pub fn show(filter: &Filter) -> Value {
    let each = |filters: &[Filter]| filters.iter().map(show).collect::<Value>();
    let (dialect, inner) = match filter {
        Filter::All(all) => ("all", each(all)),
        Filter::Any(any) => ("any", each(any)),
        Filter::Not(inner) => ("not", show(inner)),
        Filter::Test(place, test) => {
            let (dialect, wanted) = show_test(test);
            (dialect, json!({ place.show(): wanted }))
        }
    };
    json!({ dialect: inner })
}

fn show_test(test: &Test) -> (&'static str, Value) {
    match test {
        Test::Exact(text) => ("exact", json!(text)),
        Test::Prefix(text) => ("prefix", json!(text)),
        Test::Suffix(text) => ("suffix", json!(text)),
        Test::Wildcard(wildcard) => ("wildcard", json!(wildcard.as_str())),
        Test::In(scalars) => match &scalars[..] {
            [one] => ("equals", show_scalar(one)),
            many => ("in", many.iter().map(show_scalar).collect()),
        },
        Test::Number(side, number) => {
            let dialect = match side {
                Side::Below => "lt",
                Side::AtMost => "lte",
                Side::Above => "gt",
                Side::AtLeast => "gte",
            };
            (dialect, show_number(*number))
        }
    }
}

fn show_scalar(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(truth) => json!(truth),
        Scalar::Number(number) => show_number(*number),
        Scalar::Text(text) => json!(text),
    }
}

/// Whole numbers without a point, as people write them.
fn show_number(number: Number) -> Value {
    let float = number.get();
    if float.fract() == 0.0 && float.abs() < (1_u64 << 53) as f64 {
        return json!(float as i64);
    }
    JsonNumber::from_f64(float).map_or(Value::Null, Value::Number)
}

/// Where in the filter something is, for messages.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn inside<T>(
        &mut self,
        step: impl Into<String>,
        read: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.0.push(step.into());
        let result = read(self);
        self.0.pop();
        result
    }

    fn wrong(&self, problem: &str) -> Error {
        if self.0.is_empty() {
            return Error::invalid("filter", problem);
        }
        Error::invalid("filter", format!("at `{}`: {problem}", self.0.concat()))
    }
}

fn node(value: &Value, at: &mut Path) -> Result<Filter, Error> {
    // Each level takes two steps at most: a dialect, and a place in its list.
    if at.0.len() > 2 * DEPTH_MAX {
        return Err(at.wrong("a filter must not be nested deeper than 8"));
    }
    let object = match value {
        Value::Array(_) => return list(value, at).map(Filter::All),
        Value::Object(object) => object,
        _ => return Err(at.wrong(&format!("a filter is an object with one of {DIALECTS}"))),
    };
    let mut entries = object.iter();
    let (Some((dialect, inner)), None) = (entries.next(), entries.next()) else {
        let problem = format!("a filter has exactly one of {DIALECTS}; put several in `all`");
        return Err(at.wrong(&problem));
    };
    let step = if at.0.is_empty() { dialect.clone() } else { format!(".{dialect}") };
    at.inside(step, |at| match &dialect[..] {
        "all" => list(inner, at).map(Filter::All),
        "any" => list(inner, at).map(Filter::Any),
        "not" => node(inner, at).map(|inner| Filter::Not(Box::new(inner))),
        _ => tests(dialect, inner, at),
    })
}

fn list(value: &Value, at: &mut Path) -> Result<Vec<Filter>, Error> {
    match value {
        Value::Array(items) if !items.is_empty() => {
            let item = |(index, item)| at.inside(format!("[{index}]"), |at| node(item, at));
            items.iter().enumerate().map(item).collect()
        }
        _ => Err(at.wrong("must be a list of at least one filter")),
    }
}

/// `{ "type": "a", "data.b": "c" }`: all of them must pass.
fn tests(dialect: &str, value: &Value, at: &mut Path) -> Result<Filter, Error> {
    let known = ["exact", "prefix", "suffix", "wildcard", "equals", "in", "gt", "gte", "lt", "lte"];
    if !known.contains(&dialect) {
        return Err(at.wrong(&format!("there is no such filter; it must be {DIALECTS}")));
    }
    let names = match value {
        Value::Object(names) if !names.is_empty() => names,
        _ => {
            let problem = "must be an object of at least one name and what it is compared with, \
                           such as `{\"type\": \"order.placed\"}`";
            return Err(at.wrong(problem));
        }
    };
    let one = |(name, wanted): (&String, &Value)| {
        at.inside(format!(".{name}"), |at| {
            let place = Place::parse(name).map_err(|problem| at.wrong(problem))?;
            Ok(Filter::Test(place, test(dialect, wanted).map_err(|problem| at.wrong(problem))?))
        })
    };
    let mut tests = names.iter().map(one).collect::<Result<Vec<_>, Error>>()?;
    match tests.len() {
        1 => Ok(tests.remove(0)),
        _ => Ok(Filter::All(tests)),
    }
}

fn test(dialect: &str, wanted: &Value) -> Result<Test, &'static str> {
    let number = |side| {
        let number = wanted.as_f64().and_then(Number::new);
        number.map(|number| Test::Number(side, number)).ok_or("must be a number")
    };
    let text = || {
        let problem = "must be a text in quotes; `equals` compares numbers, `true` and `null`";
        wanted.as_str().ok_or(problem)
    };
    match dialect {
        "exact" => text().map(|text| Test::Exact(text.to_owned())),
        "prefix" => text().map(|text| Test::Prefix(text.to_owned())),
        "suffix" => text().map(|text| Test::Suffix(text.to_owned())),
        "wildcard" => text().and_then(Wildcard::parse).map(Test::Wildcard),
        "gt" => number(Side::Above),
        "gte" => number(Side::AtLeast),
        "lt" => number(Side::Below),
        "lte" => number(Side::AtMost),
        "in" => match wanted {
            Value::Array(wanted) => wanted.iter().map(scalar).collect::<Result<_, _>>(),
            _ => Err("must be a list of plain values"),
        }
        .map(Test::In),
        _ => scalar(wanted).map(|wanted| Test::In(vec![wanted])),
    }
}

fn scalar(value: &Value) -> Result<Scalar, &'static str> {
    match value {
        Value::Null => Ok(Scalar::Null),
        Value::Bool(truth) => Ok(Scalar::Bool(*truth)),
        Value::Number(number) => {
            let number = number.as_f64().and_then(Number::new);
            number.map(Scalar::Number).ok_or("must be a number that fits 64 bits")
        }
        Value::String(text) => Ok(Scalar::Text(text.clone())),
        Value::Array(_) | Value::Object(_) => {
            Err("must be a text, a number, `true`, `false` or `null`")
        }
    }
}

/// A message, as a filter sees it. Its payload is read when a filter first asks
/// for a field, and not at all if it is longer than the bound.
#[derive(Debug)]
pub struct Seen<'a> {
    key: Option<&'a str>,
    headers: &'a [(String, String)],
    payload: Option<&'a [u8]>,
    data: OnceCell<Option<Value>>,
}

impl<'a> Seen<'a> {
    /// `message`, with a payload of at most `payload_max` bytes.
    #[must_use]
    pub fn new(message: &'a Message, payload_max: usize) -> Self {
        let payload = message.payload.as_deref();
        Self::parts(message.key.as_deref(), &message.headers, payload, payload_max)
    }

    pub(crate) fn parts(
        key: Option<&'a str>,
        headers: &'a [(String, String)],
        payload: Option<&'a [u8]>,
        payload_max: usize,
    ) -> Self {
        let payload = payload.filter(|payload| payload.len() <= payload_max);
        Self { key, headers, payload, data: OnceCell::new() }
    }
}

impl Subject for Seen<'_> {
    fn key(&self) -> Option<&str> {
        self.key
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    fn field(&self, path: &[String]) -> Option<Found<'_>> {
        // What is no JSON has no fields; nor has JSON nested deeper than 128.
        let read = || serde_json::from_slice(self.payload?).ok();
        let mut value = self.data.get_or_init(read).as_ref()?;
        for name in path {
            value = match value {
                Value::Object(fields) => Map::get(fields, name)?,
                Value::Array(items) => items.get(name.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        match value {
            Value::Null => Some(Found::Null),
            Value::Bool(truth) => Some(Found::Bool(*truth)),
            Value::Number(number) => number.as_f64().map(Found::Number),
            Value::String(text) => Some(Found::Text(text)),
            Value::Array(_) | Value::Object(_) => None,
        }
    }
}
