//! The keys that say which messages reach whom.

use selvedge_durable::{Error, filter};
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

/// A tree as JSON. What is not in quotes may be a number or a truth, unless
/// only texts have a meaning there.
fn to_json(node: &Node, texts: bool) -> Value {
    match &node.kind {
        Kind::Null | Kind::Broken => Value::Null,
        Kind::Scalar(scalar) => plain(scalar, texts),
        Kind::Sequence(items) => items.iter().map(|item| to_json(item, texts)).collect(),
        Kind::Mapping(entries) => {
            let entry = |entry: &crate::tree::Entry| {
                let texts = texts || OF_TEXTS.contains(&&*entry.key);
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
        let problem = match filter::parse(&to_json(node, false)) {
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
