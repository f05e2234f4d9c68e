//! A schema with every reference replaced by what it stands for, so that its
//! size says what a check costs.

use serde_json::{Map, Value, json};

/// Most schemas within one, references counted as often as they are used.
pub(super) const NODES_MAX: usize = 2_000;
/// Deepest nesting, references followed.
pub(super) const DEPTH_MAX: usize = 32;

/// Keywords whose value is a schema.
const ONE: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const LIST: &[&str] = &["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords whose value has schemas by name.
const NAMED: &[&str] = &["dependencies", "dependentSchemas", "patternProperties", "properties"];
/// Keywords that only hold what is referred to.
const SHELVES: &[&str] = &["$defs", "definitions"];
/// Keywords that would make what a schema means depend on where it is used, or fetch something.
const REFUSED: &[&str] = &[
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
];

/// # Errors
///
/// Where, and what is wrong.
pub(super) fn inlined(document: &Value) -> Result<Value, String> {
    let draft = document.get("$schema").and_then(Value::as_str).unwrap_or_default();
    let draft = draft.trim_end_matches('#');
    let seventh = draft.ends_with("json-schema.org/draft-07/schema");
    let known = [
        "",
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
    ];
    if !seventh && !known.contains(&draft) {
        return Err("at `/$schema`: only drafts 7, 2019-09 and 2020-12 are known".to_owned());
    }
    let mut inliner = Inliner { root: document, seventh, nodes: 0, following: Vec::new() };
    inliner.schema(document, "", 0)
}

struct Inliner<'a> {
    root: &'a Value,
    /// In draft 7 a reference stands alone: what is beside it means nothing.
    seventh: bool,
    nodes: usize,
    following: Vec<&'a str>,
}

impl<'a> Inliner<'a> {
    fn schema(&mut self, value: &'a Value, path: &str, depth: usize) -> Result<Value, String> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(format!("has more than {NODES_MAX} schemas in it, references followed"));
        }
        if depth > DEPTH_MAX {
            return Err(format!("at `{path}`: is nested deeper than {DEPTH_MAX}"));
        }
        let object = match value {
            Value::Object(object) => object,
            Value::Bool(_) => return Ok(value.clone()),
            _ => return Err(format!("at `{path}`: a schema is an object, `true` or `false`")),
        };
        let target = match object.get("$ref") {
            Some(reference) => Some(self.target(reference, path, depth)?),
            None => None,
        };
        if let (Some(target), true) = (&target, self.seventh) {
            return Ok(target.clone());
        }
        let mut out = Map::new();
        for (key, value) in object {
            let keyword = key.as_str();
            let inner = format!("{path}/{keyword}");
            if REFUSED.contains(&keyword) || (keyword == "$id" && !path.is_empty()) {
                return Err(format!("at `{inner}`: is not possible here; refer to `#/$defs/…`"));
            }
            let value = match value {
                _ if keyword == "$ref" || SHELVES.contains(&keyword) => continue,
                Value::Array(items) if LIST.contains(&keyword) => {
                    let mut all = Vec::new();
                    for (index, item) in items.iter().enumerate() {
                        all.push(self.schema(item, &format!("{inner}/{index}"), depth + 1)?);
                    }
                    Value::Array(all)
                }
                Value::Object(named) if NAMED.contains(&keyword) => {
                    let mut all = Map::new();
                    for (name, value) in named {
                        let at = format!("{inner}/{name}");
                        // `dependencies` may have lists of names too.
                        let value = if value.is_array() {
                            value.clone()
                        } else {
                            self.schema(value, &at, depth + 1)?
                        };
                        all.insert(name.clone(), value);
                    }
                    Value::Object(all)
                }
                value if ONE.contains(&keyword) => self.schema(value, &inner, depth + 1)?,
                value => value.clone(),
            };
            out.insert(key.clone(), value);
        }
        match target {
            None => Ok(Value::Object(out)),
            Some(target) if out.is_empty() => Ok(target),
            Some(target) => {
                let all = out.entry("allOf").or_insert_with(|| json!([]));
                if let Value::Array(all) = all {
                    all.push(target);
                }
                Ok(Value::Object(out))
            }
        }
    }

    fn target(&mut self, reference: &'a Value, path: &str, depth: usize) -> Result<Value, String> {
        let at = |problem: &str| format!("at `{path}/$ref`: {problem}");
        let text = reference.as_str().ok_or_else(|| at("must be a text"))?;
        let Some(pointer) = text.strip_prefix('#').filter(|it| it.starts_with('/')) else {
            return Err(at("only what is in the same schema can be referred to, as `#/$defs/…`"));
        };
        if self.following.contains(&text) {
            return Err(at("leads back to itself, and then a check has no bound"));
        }
        let target = self.root.pointer(pointer);
        let target = target.ok_or_else(|| at(&format!("`{text}` is not there")))?;
        self.following.push(text);
        let inlined = self.schema(target, pointer, depth + 1)?;
        self.following.pop();
        Ok(inlined)
    }
}
