use proptest::prelude::*;
use selvedge_patterns::wall::Wall;

use super::*;

fn message(headers: &[(&str, &str)], payload: &str) -> Message {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Message {
        position: 1,
        at: Wall::ZERO,
        key: Some("eu.lisbon".to_owned()),
        headers: headers.iter().map(own).collect(),
        payload: Some(payload.to_owned().into()),
        priority: 5,
    }
}

fn wanted(filter: Value, message: &Message) -> bool {
    parse(&filter).unwrap().matches(&Seen::new(message, 1000))
}

#[test]
fn a_message_is_seen_with_its_key_headers_and_payload() {
    let order = message(
        &[("ce-type", "order.placed"), ("ce-region", "eu"), ("x-tenant", "acme")],
        r#"{"customer": {"tier": "gold"}, "lines": [{"n": 3}], "paid": true}"#,
    );
    for filter in [
        json!({"exact": {"type": "order.placed", "region": "eu"}}),
        json!({"wildcard": {"key": "eu.*"}}),
        json!({"prefix": {"headers.x-tenant": "ac"}}),
        json!({"equals": {"data.customer.tier": "gold"}}),
        json!({"gte": {"data.lines.0.n": 3}}),
        json!({"in": {"data.paid": [false, true]}}),
        json!([{"suffix": {"type": ".placed"}}, {"not": {"exact": {"region": "us"}}}]),
        json!({"any": [{"exact": {"type": "x"}}, {"exact": {"key": "eu.lisbon"}}]}),
    ] {
        assert!(wanted(filter.clone(), &order), "{filter}");
        assert!(!wanted(json!({"not": filter}), &order), "{filter}");
    }
    for filter in [
        json!({"exact": {"type": "order.placed", "region": "us"}}),
        json!({"equals": {"data.customer": "gold"}}),
        json!({"equals": {"data.lines.1.n": 3}}),
        json!({"equals": {"data.customer.tier.x": "gold"}}),
    ] {
        assert!(!wanted(filter.clone(), &order), "{filter}");
    }
}

#[test]
fn a_payload_that_is_not_json_or_too_long_has_no_fields() {
    let gold = json!({"equals": {"data.tier": "gold"}});
    for payload in ["", "gold", "{\"tier\": \"gold\"", "\u{0}"] {
        assert!(!wanted(gold.clone(), &message(&[], payload)), "{payload}");
        assert!(wanted(json!({"not": gold}), &message(&[], payload)));
    }
    let long = message(&[], &format!("{{\"tier\": \"gold\"{}}}", " ".repeat(1000)));
    assert!(!wanted(gold.clone(), &long));
    assert!(parse(&gold).unwrap().matches(&Seen::new(&long, 2000)));
    let deep = message(&[], &format!("{}1{}", "[".repeat(200), "]".repeat(200)));
    assert!(!wanted(json!({"equals": {"data.0": 1}}), &deep));
    let number = message(&[], "17");
    assert!(wanted(json!({"lt": {"data": 18}}), &number));
}

#[test]
fn what_cannot_be_a_filter_is_told_where_and_why() {
    let nested = (0..9).fold(json!({"exact": {"type": "a"}}), |inner, _| json!({"not": inner}));
    for (wrong, part) in [
        (json!("x"), "`filter` a filter is an object"),
        (json!({}), "exactly one of"),
        (json!({"exact": {"type": "a"}, "any": []}), "put several in `all`"),
        (json!({"exactly": {"type": "a"}}), "at `exactly`: there is no such filter"),
        (json!({"exact": {}}), "at `exact`: must be an object"),
        (json!({"exact": {"data.zip": 123}}), "at `exact.data.zip`: must be a text in quotes"),
        (
            json!({"all": [{"exact": {"type": "a"}}, {"gt": {"data.n": "1"}}]}),
            "at `all[1].gt.data.n`: must be a number",
        ),
        (json!({"any": []}), "at `any`: must be a list of at least one"),
        (json!({"wildcard": {"key": "orders*"}}), "whole words"),
        (json!({"exact": {"my-type": "a"}}), "a name is `key`"),
        (json!({"in": {"data.a": 1}}), "a list of plain values"),
        (json!({"equals": {"data.a": [1]}}), "must be a text, a number"),
        (nested, "deeper than 8"),
        (json!({"exact": {"type": "a".repeat(2000)}}), "1,024 bytes"),
    ] {
        let error = parse(&wrong).unwrap_err();
        assert_eq!(error.code(), "SV0413");
        assert!(error.to_string().contains(part), "{error}");
    }
}

fn scalar_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        "[a-c.*#]{0,6}".prop_map(Value::from),
    ]
}

/// Mostly filters, and things that are nearly one.
fn filters() -> impl Strategy<Value = Value> {
    const PLACES: &[&str] =
        &["type", "key", "data", "data.a.b", "headers.X-a", "subject", "Data", "data..a"];
    const DIALECTS: &[&str] =
        &["exact", "prefix", "suffix", "wildcard", "equals", "gt", "gte", "lt", "lte"];
    let place = proptest::sample::select(PLACES);
    let test = (proptest::sample::select(DIALECTS), place.clone(), scalar_json())
        .prop_map(|(dialect, place, value)| json!({dialect: {place: value}}));
    let within = (place, proptest::collection::vec(scalar_json(), 0..4))
        .prop_map(|(place, values)| json!({"in": {place: values}}));
    prop_oneof![4 => test, 1 => within, 1 => scalar_json()].prop_recursive(6, 30, 4, |inner| {
        let lists = proptest::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            lists.clone().prop_map(|all| json!({"all": all})),
            lists.clone().prop_map(|any| json!({"any": any})),
            lists.prop_map(Value::Array),
            inner.prop_map(|inner| json!({"not": inner})),
        ]
    })
}

proptest! {
    /// What was read is shown as it was meant, and no message makes a filter panic.
    #[test]
    fn a_filter_is_read_back_as_it_is_shown(
        filter in filters(),
        payload in prop_oneof![scalar_json().prop_map(|it| it.to_string()), ".{0,20}"],
    ) {
        fuzzing::filter(&filter.to_string(), payload.as_bytes());
    }

    #[test]
    fn any_text_is_answered(text in ".{0,40}", payload in proptest::collection::vec(any::<u8>(), 0..40)) {
        fuzzing::filter(&text, &payload);
    }
}
