//! The JSON Schema that editors use.

use selvedge_config::json_schema;

#[test]
fn it_is_a_snapshot() {
    insta::assert_snapshot!("json_schema", format!("{:#}", json_schema()));
}

/// Every reference points at something.
#[test]
fn references_resolve() {
    let schema = json_schema();
    let text = schema.to_string();
    let mut seen = 0;
    for piece in text.split("\"#/$defs/").skip(1) {
        let name = piece.split('"').next().unwrap();
        assert!(schema["$defs"][name].is_object(), "{name}");
        seen += 1;
    }
    assert!(seen > 20);
}

/// Every key has a description, and a key without a default is required.
#[test]
fn every_key_is_described() {
    let schema = json_schema();
    let sections = schema["$defs"].as_object().unwrap().values().map(|it| &it["anyOf"][0]);
    let mut keys = 0;
    for section in sections.chain([&schema]) {
        let required = section["required"].as_array().unwrap();
        for (key, property) in section["properties"].as_object().unwrap() {
            keys += 1;
            assert!(property["description"].as_str().is_some_and(|it| it.len() > 5), "{key}");
            let needed = required.iter().any(|it| it == key);
            let has_default = property.get("default").is_some();
            assert!(needed != has_default || key == "defaults", "{key}");
        }
    }
    assert!(keys > 100, "{keys}");
}
