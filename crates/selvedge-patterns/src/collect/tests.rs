use super::*;
use crate::filter::{Found, Place, Test};

struct Keyed(&'static str);

impl Subject for Keyed {
    fn key(&self) -> Option<&str> {
        Some(self.0)
    }

    fn header(&self, _: &str) -> Option<&str> {
        None
    }

    fn field(&self, _: &[String]) -> Option<Found<'_>> {
        None
    }
}

fn rule(from: &str, key: Option<&str>) -> Rule {
    let filter = key.map(|key| Filter::Test(Place::Key, Test::Exact(key.to_owned())));
    Rule { from: Wildcard::parse(from).unwrap(), filter }
}

#[test]
fn a_topic_takes_what_its_rules_name_and_nothing_of_itself() {
    let rules = [rule("orders.#", None), rule("*.error", Some("bad"))];
    for (own, other, key, taken) in [
        ("audit", "orders", "k", true),
        ("audit", "orders.eu", "k", true),
        ("audit", "mail", "k", false),
        ("audit", "mail.error", "bad", true),
        ("audit", "mail.error", "k", false),
        ("orders.all", "orders.all", "k", false),
        ("orders.all", "orders.eu", "k", true),
    ] {
        assert_eq!(takes(own, &rules, other, &Keyed(key)), taken, "{own} {other} {key}");
        assert!(!taken || takes_from(own, &rules, other));
    }
    assert!(takes_from("audit", &rules, "mail.error"), "some of them");
    assert!(!takes_from("audit", &rules, "mail") && !takes_from("audit", &[], "orders"));
}

#[test]
fn rules_are_bounded() {
    assert_eq!(validate(&vec![rule("a", None); RULES_MAX]), Ok(()));
    assert!(validate(&vec![rule("a", None); RULES_MAX + 1]).is_err());
    let long = rule("a", Some(&"k".repeat(5000)));
    assert!(validate(&[long]).is_err(), "its filter is");
}
