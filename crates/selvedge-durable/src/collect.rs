//! What topics collect, as JSON: `[{ "from": "orders.#", "where": { … } }]`,
//! or `"orders.#"` for all of it.

pub use selvedge_patterns::collect::Rule;
use selvedge_patterns::{collect::validate, filter::Wildcard};
use serde_json::{Value, json};

use crate::{Error, filter};

/// The header of a collected message that says which topic it was published to.
pub const ORIGIN: &str = "selvedge-origin";
/// The header of a collected message that says at which position it is there.
pub const ORIGIN_POSITION: &str = "selvedge-origin-position";

/// Reads rules: a list, or the only one.
///
/// # Errors
///
/// [`Error::Invalid`]: which rule, what is wrong, and what is allowed.
pub fn parse(value: &Value) -> Result<Vec<Rule>, Error> {
    let rules = match value {
        Value::Array(rules) => rules.iter().enumerate().map(|(n, it)| rule(n, it)).collect(),
        Value::Null => Ok(Vec::new()),
        one => rule(0, one).map(|rule| vec![rule]),
    }?;
    validate(&rules)?;
    Ok(rules)
}

fn rule(number: usize, value: &Value) -> Result<Rule, Error> {
    let wrong = |problem: &str| Error::invalid("collect", format!("rule {number}: {problem}"));
    let shape = "must be a pattern such as \"orders.#\", or `from` and perhaps `where`";
    let (from, filter) = match value {
        Value::String(from) => (from, None),
        Value::Object(rule) => {
            let known = |key: &String| key == "from" || key == "where";
            match rule.get("from") {
                Some(Value::String(from)) if rule.keys().all(known) => (from, rule.get("where")),
                _ => return Err(wrong(shape)),
            }
        }
        _ => return Err(wrong(shape)),
    };
    let from = Wildcard::parse(from).map_err(wrong)?;
    let filter = filter.filter(|filter| !filter.is_null()).map(filter::parse).transpose();
    let filter = filter.map_err(|error| wrong(&error.to_string()))?;
    Ok(Rule { from, filter })
}

/// The rules as [`parse`] reads them.
#[must_use]
pub fn show(rules: &[Rule]) -> Value {
    let show = |rule: &Rule| match &rule.filter {
        Some(filter) => json!({ "from": rule.from.as_str(), "where": filter::show(filter) }),
        None => json!({ "from": rule.from.as_str() }),
    };
    rules.iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_back_as_they_are_shown() {
        let given = json!([
            "orders.#",
            {"from": "*.error"},
            {"from": "a", "where": {"exact": {"type": "b"}}},
        ]);
        let rules = parse(&given).unwrap();
        assert_eq!(show(&rules)[0], json!({"from": "orders.#"}));
        assert_eq!(show(&rules)[2], given[2]);
        assert_eq!(parse(&show(&rules)).unwrap(), rules);
        assert_eq!(parse(&json!("orders.#")).unwrap(), rules[..1]);
        assert_eq!(parse(&Value::Null).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_a_rule_is_told_which_and_why() {
        for (wrong, part) in [
            (json!(7), "rule 0: must be a pattern"),
            (json!(["a", {"where": {}}]), "rule 1: must be a pattern"),
            (json!([{"from": "a", "to": "b"}]), "`from` and perhaps `where`"),
            (json!("orders*"), "whole words"),
            (json!([{"from": "a", "where": {"exact": 1}}]), "rule 0: `filter` at `exact`"),
            (json!(vec!["a"; 17]), "at most 16 rules"),
        ] {
            let error = parse(&wrong).unwrap_err();
            assert_eq!(error.code(), "SV0413");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
