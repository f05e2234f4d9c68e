//! The keys that say which messages reach whom.

use selvedge_durable::{
    Error, filter,
    schema::{Compatibility, Schema},
};
use selvedge_patterns::filter::{Filter, Wildcard};
use serde_json::{Map, Value, json};

use crate::{
    diagnostic::{Code, Diagnostic},
    read::{Definitions, Field, Reader},
    show::{Pair, Shown},
    tree::{Kind, Node, Scalar},
};

/// Filters whose values are texts, however they are spelt.
const OF_TEXTS: &[&str] = &["exact", "prefix", "suffix", "wildcard"];

/// Where values are texts, however they are spelt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Texts {
    Only,
    InPlaces,
    Nowhere,
}

/// A tree as JSON. What is not in quotes may be a number or a truth, unless
/// only texts have a meaning there, as below some keys of a filter.
fn to_json(node: &Node, texts: Texts) -> Value {
    match &node.kind {
        Kind::Null | Kind::Broken => Value::Null,
        Kind::Scalar(scalar) => plain(scalar, texts == Texts::Only),
        Kind::Sequence(items) => items.iter().map(|item| to_json(item, texts)).collect(),
        Kind::Mapping(entries) => {
            let entry = |entry: &crate::tree::Entry| {
                let below = texts == Texts::InPlaces && OF_TEXTS.contains(&&*entry.key);
                let texts = if below { Texts::Only } else { texts };
                (entry.key.clone(), to_json(&entry.value, texts))
            };
            Value::Object(entries.iter().map(entry).collect::<Map<_, _>>())
        }
    }
}

fn plain(scalar: &Scalar, texts: bool) -> Value {
    let meant = match scalar.text.as_str() {
        _ if texts || scalar.quoted || scalar.expanded => None,
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        text => serde_json::from_str(text).ok().filter(Value::is_number),
    };
    meant.unwrap_or_else(|| Value::String(scalar.text.clone()))
}

/// JSON as it will be written.
fn shown(value: &Value) -> Shown {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Shown::Word(value.to_string()),
        Value::String(text) => Shown::Text(text.clone()),
        Value::Array(items) => Shown::List(items.iter().map(shown).collect()),
        Value::Object(entries) => {
            let pair = |(key, value): (&String, &Value)| Pair {
                key: key.clone(),
                value: shown(value),
                default: false,
            };
            Shown::Map(entries.iter().map(pair).collect())
        }
    }
}

impl Field for Filter {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let problem = match filter::parse(&to_json(node, Texts::InPlaces)) {
            Ok(filter) => return Some(filter),
            Err(Error::Invalid { problem, .. }) => problem,
            Err(error) => error.to_string(),
        };
        let help = "write one such as `{ exact: { type: order.placed } }` or \
                    `{ wildcard: { key: eu.# } }`";
        reader.problem(
            Diagnostic::error(Code::WRONG_VALUE, format!("the filter {problem}"))
                .at(node.span, "")
                .help(help),
        );
        None
    }

    fn show(&self) -> Shown {
        shown(&filter::show(self))
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({
            "type": ["object", "array"],
            "examples": [{ "exact": { "type": "order.placed" } }, { "wildcard": { "key": "eu.#" } }],
        })
    }
}

impl Field for Wildcard {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let expected = "words with dots between them, where `*` is one word and `#` any number, \
                        such as `orders.#`";
        reader.text(node, expected, |text| Self::parse(text).ok())
    }

    fn show(&self) -> Shown {
        Shown::Text(self.as_str().to_owned())
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "examples": ["orders.#", "*.error"] })
    }
}

/// A JSON Schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Document(pub Value);

impl Field for Document {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let wrong = |problem: String, reader: &mut Reader| {
            let help = "write a mapping such as `{ type: object, required: [id] }`, or \
                        `${file:order.schema.json}`";
            reader.problem(
                Diagnostic::error(Code::WRONG_VALUE, problem).at(node.span, "").help(help),
            );
            None
        };
        let document = match &node.kind {
            Kind::Scalar(scalar) => match serde_json::from_str(&scalar.text) {
                Ok(document) => document,
                Err(error) => return wrong(format!("the schema is no JSON: {error}"), reader),
            },
            _ => to_json(node, Texts::Nowhere),
        };
        match Schema::parse(&document, Compatibility::None) {
            Ok(_) => Some(Self(document)),
            Err(Error::Invalid { problem, .. }) => wrong(format!("the schema {problem}"), reader),
            Err(error) => wrong(error.to_string(), reader),
        }
    }

    fn show(&self) -> Shown {
        // As a text: a mapping with nothing in it would read as something else.
        Shown::Text(self.0.to_string())
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({
            "type": ["object", "string", "boolean"],
            "examples": [{ "type": "object", "required": ["id"] }, "${file:order.schema.json}"],
        })
    }
}
