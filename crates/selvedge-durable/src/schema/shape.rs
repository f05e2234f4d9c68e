//! A schema in the words in which schemas are compared.

use std::collections::BTreeSet;

use selvedge_patterns::compat::{Count, End, Rules, Shape, Types};
use serde_json::{Map, Value};

/// Keywords that say nothing about what is allowed. `format` is among them,
/// since it is not checked.
const REMARKS: &[&str] = &[
    "$comment",
    "$id",
    "default",
    "deprecated",
    "description",
    "examples",
    "format",
    "readOnly",
    "title",
    "writeOnly",
];
/// Keywords that mean the same whatever stands beside them.
const ALONE: &[&str] = &[
    "allOf",
    "anyOf",
    "contentEncoding",
    "contentMediaType",
    "dependentRequired",
    "dependentSchemas",
    "maxProperties",
    "minProperties",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "propertyNames",
    "uniqueItems",
];

/// Reads a schema without references.
pub(super) fn read(schema: &Value) -> Shape {
    match schema {
        Value::Bool(true) => Shape::Anything,
        Value::Bool(false) => Shape::Nothing,
        Value::Object(object) => Shape::Is(Box::new(rules(object, schema.to_string()))),
        _ => Shape::Is(Box::new(Rules { unknown: Some(String::new()), ..Rules::default() })),
    }
}

fn rules(object: &Map<String, Value>, text: String) -> Rules {
    let mut rules = Rules { text, ..Rules::default() };
    for (keyword, value) in object {
        if REMARKS.contains(&keyword.as_str()) || keyword.starts_with("x-") {
            continue;
        }
        // What is read without it is read by this one.
        if keyword == "$schema" && value.as_str().is_some_and(|it| it.contains("2020-12")) {
            continue;
        }
        if ALONE.contains(&keyword.as_str()) || keyword == "$schema" {
            rules.further.insert(keyword.clone(), value.to_string());
        } else if rule(&mut rules, keyword, value).is_none() {
            rules.unknown = Some(keyword.clone());
        }
    }
    rules
}

/// `None` for a rule that cannot be compared.
fn rule(rules: &mut Rules, keyword: &str, value: &Value) -> Option<()> {
    match keyword {
        "type" => rules.types = rules.types.and(types(value)?),
        "enum" => listed(rules, value.as_array()?)?,
        "const" => listed(rules, std::slice::from_ref(value))?,
        "minimum" | "exclusiveMinimum" => {
            let end = End { at: exact(value)?, open: keyword != "minimum" };
            let tighter = |old: End| old.at < end.at || (old.at == end.at && end.open);
            if rules.low.is_none_or(tighter) {
                rules.low = Some(end);
            }
        }
        "maximum" | "exclusiveMaximum" => {
            let end = End { at: exact(value)?, open: keyword != "maximum" };
            let tighter = |old: End| old.at > end.at || (old.at == end.at && end.open);
            if rules.high.is_none_or(tighter) {
                rules.high = Some(end);
            }
        }
        "minLength" => rules.length.min = value.as_u64()?,
        "maxLength" => rules.length = Count { max: Some(value.as_u64()?), ..rules.length },
        "minItems" => rules.items.min = value.as_u64()?,
        "maxItems" => rules.items = Count { max: Some(value.as_u64()?), ..rules.items },
        "items" if !value.is_array() => rules.item = read(value),
        "additionalProperties" => rules.others = read(value),
        "properties" => {
            let field = |(name, value): (&String, &Value)| (name.clone(), read(value));
            rules.fields = value.as_object()?.iter().map(field).collect();
        }
        "required" => {
            let name = |value: &Value| value.as_str().map(str::to_owned);
            rules.required = value.as_array()?.iter().map(name).collect::<Option<_>>()?;
        }
        _ => return None,
    }
    Some(())
}

/// Listed values have their types too, so that a list may become a type.
fn listed(rules: &mut Rules, values: &[Value]) -> Option<()> {
    if rules.one_of.is_some() {
        return None;
    }
    let mut texts = BTreeSet::new();
    let mut of = Types::NONE;
    for value in values {
        of = of.or(type_of(value)?);
        texts.insert(match value {
            Value::Number(_) => exact(value)?.to_string(),
            other => other.to_string(),
        });
    }
    rules.types = rules.types.and(of);
    rules.one_of = Some(texts);
    Some(())
}

fn type_of(value: &Value) -> Option<Types> {
    Some(match value {
        Value::Null => Types::NULL,
        Value::Bool(_) => Types::BOOLEAN,
        Value::Number(_) if exact(value)?.fract() == 0.0 => Types::INTEGER,
        Value::Number(_) => Types::NUMBER,
        Value::String(_) => Types::STRING,
        Value::Array(_) => Types::ARRAY,
        Value::Object(_) => Types::OBJECT,
    })
}

fn types(value: &Value) -> Option<Types> {
    let word = |value: &Value| {
        Some(match value.as_str()? {
            "null" => Types::NULL,
            "boolean" => Types::BOOLEAN,
            "integer" => Types::INTEGER,
            "number" => Types::NUMBER,
            "string" => Types::STRING,
            "array" => Types::ARRAY,
            "object" => Types::OBJECT,
            _ => return None,
        })
    };
    match value {
        Value::Array(words) => {
            words.iter().try_fold(Types::NONE, |all, one| Some(all.or(word(one)?)))
        }
        one => word(one),
    }
}

/// A number that a float holds as it is written.
fn exact(value: &Value) -> Option<f64> {
    let number = value.as_f64()?;
    (number.abs() < (1_u64 << 53) as f64).then_some(number)
}
