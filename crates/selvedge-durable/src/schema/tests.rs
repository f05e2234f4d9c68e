use jsonschema::Validator;
use proptest::prelude::*;
use selvedge_patterns::compat::accepts;
use serde_json::{Map, json};

use super::*;

fn schema(document: Value) -> Schema {
    Schema::parse(&document, Compatibility::Backward).unwrap()
}

fn mismatch(document: Value, payload: &str) -> Mismatch {
    schema(document).check(payload.as_bytes()).unwrap().unwrap_err()
}

#[test]
fn a_mismatch_names_the_place_and_the_rule_and_keeps_the_value_to_itself() {
    let order = json!({
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": {"type": "integer", "minimum": 1},
            "customer": {"$ref": "#/$defs/customer"},
        },
        "$defs": {"customer": {"properties": {"tier": {"enum": ["gold", "tin"]}}}},
    });
    let valid = schema(order.clone());
    assert_eq!(valid.check(br#"{"id": 1, "customer": {"tier": "tin"}}"#).unwrap(), Ok(()));
    let wrong = mismatch(order.clone(), r#"{"id": 1, "customer": {"tier": "s3cret"}}"#);
    assert_eq!(
        (&wrong.path[..], &wrong.rule[..]),
        ("/customer/tier", "/properties/customer/properties/tier/enum")
    );
    assert!(!wrong.problem.contains("s3cret"), "{wrong:?}");
    assert_eq!(mismatch(order.clone(), "{}").rule, "/required");
    assert_eq!(mismatch(order.clone(), r#"{"id": 0}"#).path, "/id");
    let none = mismatch(order, "{");
    assert!(none.problem.starts_with("the payload is no JSON") && none.rule.is_empty());
}

#[test]
fn what_cannot_be_bounded_or_must_be_fetched_is_refused_with_its_place() {
    let doubling = |depth: usize| {
        let mut defs = Map::new();
        for n in 0..depth {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            defs.insert(format!("d{n}"), json!({"allOf": [next, next]}));
        }
        defs.insert(format!("d{depth}"), json!(true));
        json!({"$ref": "#/$defs/d0", "$defs": defs})
    };
    assert!(Schema::parse(&doubling(5), Compatibility::None).is_ok());
    let nested = (0..40).fold(json!({}), |inner, _| json!({"not": inner}));
    for (document, part) in [
        (
            json!({"$ref": "https://example.com/s.json"}),
            "at `/$ref`: only what is in the same schema",
        ),
        (json!({"properties": {"a": {"$ref": "other.json"}}}), "at `/properties/a/$ref`"),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}),
            "leads back to itself",
        ),
        (json!({"$ref": "#/$defs/a"}), "is not there"),
        (json!({"$dynamicRef": "#a"}), "is not possible here"),
        (json!({"$schema": "http://json-schema.org/draft-04/schema#"}), "only drafts"),
        (json!({"type": "strnig"}), "at `/type`"),
        (json!({"pattern": "(?=a)"}), "pattern"),
        (json!("x"), "a schema is an object"),
        (doubling(15), "more than 2000 schemas"),
        (nested, "deeper than 32"),
        (json!({"const": "x".repeat(70_000)}), "at most 65536"),
    ] {
        let error = Schema::parse(&document, Compatibility::None).unwrap_err();
        assert!(error.code() == "SV0413" && error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_reference_beside_other_rules_means_both_but_not_in_draft_7() {
    let document = json!({"$ref": "#/$defs/a", "maximum": 9, "$defs": {"a": {"minimum": 3}}});
    let both = schema(document.clone());
    assert!(both.check(b"5").unwrap().is_ok());
    assert!(both.check(b"1").unwrap().is_err() && both.check(b"10").unwrap().is_err());
    let mut seventh = document;
    seventh["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    assert!(schema(seventh).check(b"10").unwrap().is_ok());
}

#[test]
fn changes_are_judged_by_what_they_allow() {
    let follows = |new: Value, old: Value| schema(new).follows(&schema(old)).map_err(|it| it.path);
    let user = |fields: Value, required: Value| json!({"type": "object", "properties": fields, "required": required, "additionalProperties": false});
    let old = || user(json!({"name": {"type": "string"}}), json!(["name"]));
    let with_age =
        || user(json!({"name": {"type": "string"}, "age": {"type": "integer"}}), json!(["name"]));
    assert_eq!(follows(with_age(), old()), Ok(()));
    assert_eq!(follows(old(), with_age()), Err("/properties/age".to_owned()));
    assert_eq!(follows(json!({"type": "string"}), json!({"enum": ["a", "b"]})), Ok(()));
    assert_eq!(follows(json!({"enum": [1, 2.0]}), json!({"const": 2})), Ok(()));
    let referring = json!({"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "number"}}});
    assert_eq!(follows(referring, json!({"items": {"type": "integer"}, "title": "t"})), Ok(()));
    let pattern = |pattern: &str| json!({"properties": {"a": {"pattern": pattern}}});
    assert_eq!(follows(pattern("a+"), pattern("a")), Err("/properties/a/pattern".to_owned()));
    let beside = json!({"patternProperties": {"^x": {"type": "string"}}, "type": "object"});
    assert_eq!(follows(json!({"type": "object"}), beside), Err("/patternProperties".to_owned()));
    // More digits than a float has cannot be compared.
    let large = |n: u64| json!({"maximum": n});
    assert!(follows(large(9_007_199_254_740_993), large(9_007_199_254_740_994)).is_err());
}

fn instance() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i32..4).prop_map(Value::from),
        (-6i32..7).prop_map(|half| json!(f64::from(half) / 2.0)),
        "[ab]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Schemas of what can be compared, and a little of what cannot.
fn schemas() -> impl Strategy<Value = Value> {
    let number = || (-3i32..4).prop_map(Value::from);
    let count = || (0u32..4).prop_map(Value::from);
    let word = || {
        proptest::sample::select(
            &["null", "boolean", "integer", "number", "string", "array", "object"][..],
        )
    };
    let words = proptest::collection::btree_set(word(), 1..5).prop_map(|words| json!(words));
    let one = |key: &'static str, values: BoxedStrategy<Value>| {
        values.prop_map(move |value| (key, value)).boxed()
    };
    let plain = prop_oneof![
        3 => one("type", words.boxed()),
        1 => one("enum", proptest::collection::vec(instance(), 1..4).prop_map(Value::Array).boxed()),
        1 => one("minimum", number().boxed()),
        1 => one("maximum", number().boxed()),
        1 => one("exclusiveMinimum", number().boxed()),
        1 => one("exclusiveMaximum", number().boxed()),
        1 => one("minLength", count().boxed()),
        1 => one("maxLength", count().boxed()),
        1 => one("minItems", count().boxed()),
        1 => one("maxItems", count().boxed()),
        1 => one("pattern", "[ab]".prop_map(Value::from).boxed()),
        1 => one("uniqueItems", any::<bool>().prop_map(Value::from).boxed()),
        1 => one("required", proptest::collection::btree_set("[abc]", 0..3).prop_map(|names| json!(names)).boxed()),
    ];
    let leaf = proptest::collection::vec(plain.clone(), 0..3)
        .prop_map(|rules| {
            rules.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>()
        })
        .prop_map(Value::Object);
    prop_oneof![6 => leaf, 1 => any::<bool>().prop_map(Value::from)].prop_recursive(
        2,
        12,
        3,
        move |inner| {
            let fields = proptest::collection::btree_map("[abc]", inner.clone(), 0..3)
                .prop_map(|it| json!(it));
            let rule = prop_oneof![
                2 => plain.clone().boxed(),
                3 => one("properties", fields.clone().boxed()),
                2 => one("additionalProperties", inner.clone().boxed()),
                2 => one("items", inner.clone().boxed()),
                1 => one("patternProperties", fields.boxed()),
                1 => one("not", inner.boxed()),
            ];
            proptest::collection::vec(rule, 0..4).prop_map(|rules| {
                Value::Object(
                    rules.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                )
            })
        },
    )
}

/// A schema and one that is near it: some rule of it is left out or put in.
fn pairs() -> impl Strategy<Value = (Value, Value)> {
    let near = (schemas(), schemas(), any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(old, other, at, add)| {
            let mut new = old.clone();
            if let (Value::Object(rules), Value::Object(other)) = (&mut new, other) {
                let keys: Vec<String> = rules.keys().cloned().collect();
                if !keys.is_empty() && !add {
                    rules.remove(&keys[at.index(keys.len())]);
                } else if let Some((key, value)) = other.into_iter().next() {
                    rules.insert(key, value);
                }
            }
            (new, old)
        },
    );
    prop_oneof![3 => near, 1 => (schemas(), schemas())]
}

fn compiled(document: &Value) -> Validator {
    jsonschema::options().should_validate_formats(false).build(document).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// What a schema allows, one that is said to accept it allows too.
    #[test]
    fn an_accepted_schema_refuses_nothing_that_was_allowed(
        (new, old) in pairs(),
        instances in proptest::collection::vec(instance(), 40),
    ) {
        if accepts(&shape::read(&new), &shape::read(&old)).is_ok() {
            let (new_valid, old_valid) = (compiled(&new), compiled(&old));
            for instance in instances.iter().filter(|it| old_valid.is_valid(it)) {
                prop_assert!(new_valid.is_valid(instance), "{} by {} not by {}", instance, old, new);
            }
        }
        prop_assert!(accepts(&shape::read(&old), &shape::read(&old)).is_ok(), "{}", old);
    }
}
