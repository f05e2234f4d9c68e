//! The JSON Schema says the same as the reader, as far as a schema can.

use std::{fs, path::Path};

use regex_lite::Regex;
use serde_json::{Map, Value, json};

use super::json_schema;
use crate::{
    Env, load_text,
    source::Sources,
    tree::{self, Kind, Node},
};

/// The part of JSON Schema that ours uses.
fn valid(schema: &Value, root: &Value, value: &Value) -> bool {
    let Value::Object(rules) = schema else { return schema == &json!(true) };
    rules.iter().all(|(rule, wanted)| match rule.as_str() {
        "$ref" => {
            let name = wanted.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
            valid(&root["$defs"][name], root, value)
        }
        "anyOf" => wanted.as_array().unwrap().iter().any(|it| valid(it, root, value)),
        "type" => match wanted {
            Value::Array(types) => types.iter().any(|it| is_type(it, value)),
            one => is_type(one, value),
        },
        "enum" => wanted.as_array().unwrap().contains(value),
        "const" => wanted == value,
        "pattern" => value
            .as_str()
            .is_none_or(|it| Regex::new(wanted.as_str().unwrap()).unwrap().is_match(it)),
        "minimum" => value.as_f64().is_none_or(|it| it >= wanted.as_f64().unwrap()),
        "maximum" => value.as_f64().is_none_or(|it| it <= wanted.as_f64().unwrap()),
        "items" => value.as_array().is_none_or(|all| all.iter().all(|it| valid(wanted, root, it))),
        "required" => value.as_object().is_none_or(|object| {
            wanted.as_array().unwrap().iter().all(|key| object.contains_key(key.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            let known = |(key, value): (&String, &Value)| {
                wanted.get(key).is_none_or(|it| valid(it, root, value))
            };
            object.iter().all(known)
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let own = rules.get("properties").and_then(Value::as_object);
            let other = |key: &String| own.is_none_or(|own| !own.contains_key(key));
            object
                .iter()
                .filter(|(key, _)| other(key))
                .all(|(_, value)| wanted != &json!(false) && valid(wanted, root, value))
        }),
        "$schema" | "$defs" | "title" | "description" | "default" | "examples" => true,
        other => panic!("the schema has a rule this test does not know: {other}"),
    })
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("unknown type {other}"),
    }
}

/// As an editor's YAML reader sees it.
fn plain(node: &Node) -> Value {
    match &node.kind {
        Kind::Null | Kind::Broken => Value::Null,
        Kind::Scalar(scalar) if scalar.quoted => json!(scalar.text),
        Kind::Scalar(scalar) => {
            serde_json::from_str(&scalar.text).unwrap_or_else(|_| json!(scalar.text))
        }
        Kind::Sequence(items) => items.iter().map(plain).collect(),
        Kind::Mapping(entries) => {
            let entries = entries.iter().map(|it| (it.key.clone(), plain(&it.value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}

fn accepts(text: &str) -> bool {
    let mut sources = Sources::default();
    let file = sources.add("test".to_owned(), text.to_owned());
    let node = tree::parse(&sources, file, &mut Vec::new()).expect("YAML");
    let schema = json_schema();
    valid(&schema, &schema, &plain(&node))
}

fn texts(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        // A scenario is a different file with a schema of its own.
        if path.is_dir() && !name.ends_with("simulate") {
            found.extend(texts(&name));
        } else if name.ends_with(".yaml") {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

#[test]
fn the_examples_and_all_that_only_warns_are_valid() {
    let files = [texts("../../examples"), texts("tests/it/lint")].concat();
    assert!(files.len() > 20);
    for (name, text) in files {
        assert!(accepts(&text), "{name}");
    }
}

#[test]
fn the_effective_configuration_is_valid() {
    for (name, text) in texts("tests/it/lint") {
        let loaded =
            load_text(&name, &text, &Env::fixed([])).unwrap_or_else(|report| panic!("{report}"));
        assert!(accepts(&loaded.effective()), "{name}");
        assert!(accepts(&loaded.effective_json().to_string()), "{name}");
    }
}

#[test]
fn what_the_reader_finds_by_shape_alone_the_schema_finds_too() {
    for name in ["keys", "values", "missing", "later", "not_a_mapping", "minified", "defaults"] {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/wrong/{name}.yaml"));
        assert!(!accepts(&fs::read_to_string(path).unwrap()), "{name}");
    }
}

#[test]
fn shorthands_switches_and_the_environment_are_valid() {
    let service = |keys: &str| {
        format!("version: 1\nservices: {{ a: {{ endpoints: \"127.0.0.1:1\", {keys} }} }}\n")
    };
    for keys in [
        "timeout: 2s",
        "timeout: 0",
        "retry: 3",
        "retry: off",
        "retry: false",
        "breaker: on",
        "breaker: true",
        "health: /up",
        "balance: round_robin",
        "bulkhead: 5",
        "timeout: \"${TIMEOUT}\"",
        "retry: \"${N:-3}\"",
        "hedge: p95",
        "hedge: 10ms",
        "fallback: { response: gone }",
        "calls: b",
        "load: 5/s",
    ] {
        assert!(accepts(&service(keys)), "{keys}");
    }
    for keys in
        ["timeout: 2", "retry: -1", "breaker: 5", "timeout: soon", "nonsense: 1", "balance: 3"]
    {
        assert!(!accepts(&service(keys)), "{keys}");
    }
}

/// The page of the documentation is made from the same declarations.
#[test]
fn the_reference_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = super::reference();
    if std::env::var_os("SELVEDGE_WRITE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/configuration.md: write it again with SELVEDGE_WRITE=1 and this test"
    );
}
