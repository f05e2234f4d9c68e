use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// A message of plain words: `key=…`, headers by name, fields by path.
#[derive(Default)]
struct Words(HashMap<String, String>, HashMap<String, Scalar>);

impl Subject for Words {
    fn key(&self) -> Option<&str> {
        self.0.get("key").map(String::as_str)
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn field(&self, path: &[String]) -> Option<Found<'_>> {
        self.1.get(&path.join(".")).map(|scalar| match scalar {
            Scalar::Null => Found::Null,
            Scalar::Bool(truth) => Found::Bool(*truth),
            Scalar::Number(number) => Found::Number(number.get()),
            Scalar::Text(text) => Found::Text(text),
        })
    }
}

fn number(number: f64) -> Number {
    Number::new(number).unwrap()
}

fn event() -> Words {
    let own = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
    let words = [("key", "eu.lisbon"), ("ce-type", "order.placed"), ("ce-sequence", "17")];
    let field = |(path, scalar): (&str, Scalar)| (path.to_owned(), scalar);
    let fields = [
        ("customer.tier", Scalar::Text("gold".to_owned())),
        ("amount", Scalar::Number(number(12.5))),
        ("paid", Scalar::Bool(true)),
        ("coupon", Scalar::Null),
        ("zip", Scalar::Text("0123".to_owned())),
    ];
    Words(words.map(own).into(), fields.map(field).into())
}

fn test(place: &str, test: Test) -> Filter {
    Filter::Test(Place::parse(place).unwrap(), test)
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn fits(pattern: &str, text: &str) -> bool {
    Wildcard::parse(pattern).unwrap().matches(text)
}

#[test]
fn words_fit_as_an_amqp_user_expects() {
    for (pattern, yes, no) in [
        ("auth.#", &["auth", "auth.login", "auth.login.failed"][..], &["oauth", "auths.x", ""][..]),
        ("*.error", &["db.error", ".error"], &["error", "a.b.error", "db.errors"]),
        ("#", &["", "a", "a.b.c", ".."], &[]),
        ("*", &["a", "orders"], &["", "a.b"]),
        ("#.#", &["", "a", "a.b"], &[]),
        ("#.a.#", &["a", "x.a", "a.x", "b.a.c"], &["", "b", "aa"]),
        ("a.*.#.b", &["a.x.b", "a.x.y.b", "a.b.b"], &["a.b", "a.x", "b"]),
        ("#.b.c", &["b.c", "b.b.c", "b.c.b.c"], &["b.c.b", "c"]),
        ("a.b", &["a.b"], &["a", "a.b.c", "a.b."]),
        ("", &[""], &["a"]),
    ] {
        for text in yes {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for text in no {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
    assert!(Wildcard::parse("orders*").is_err() && Wildcard::parse("a.b#").is_err());
    assert!(!fits("#", &"a".repeat(TEXT_MAX + 1)));
}

#[test]
fn each_test_passes_what_it_says() {
    let event = event();
    let in_list = |scalars: &[Scalar]| Test::In(scalars.to_vec());
    for (place, passes, fails) in [
        ("type", Test::Exact(text("order.placed")), Test::Exact(text("order"))),
        ("type", Test::Prefix(text("order.")), Test::Prefix(text("placed"))),
        ("type", Test::Suffix(text(".placed")), Test::Suffix(text("order"))),
        (
            "key",
            Test::Wildcard(Wildcard::parse("eu.*").unwrap()),
            Test::Wildcard(Wildcard::parse("us.#").unwrap()),
        ),
        ("data.customer.tier", Test::Exact(text("gold")), Test::Exact(text("Gold"))),
        ("data.amount", Test::Number(Side::Above, number(12.0)), Test::Exact(text("12.5"))),
        (
            "data.amount",
            Test::Number(Side::AtLeast, number(12.5)),
            Test::Number(Side::Above, number(12.5)),
        ),
        (
            "data.amount",
            Test::Number(Side::AtMost, number(12.5)),
            Test::Number(Side::Below, number(12.5)),
        ),
        ("sequence", Test::Number(Side::Below, number(18.0)), in_list(&[Scalar::Null])),
        ("sequence", in_list(&[Scalar::Number(number(17.0))]), in_list(&[])),
        ("data.paid", in_list(&[Scalar::Bool(true)]), in_list(&[Scalar::Text(text("true"))])),
        ("data.coupon", in_list(&[Scalar::Null]), in_list(&[Scalar::Text(text("null"))])),
        (
            "data.zip",
            in_list(&[Scalar::Null, Scalar::Text(text("0123"))]),
            in_list(&[Scalar::Number(number(123.0))]),
        ),
    ] {
        assert!(test(place, passes.clone()).matches(&event), "{place} {passes:?}");
        assert!(!test(place, fails.clone()).matches(&event), "{place} {fails:?}");
    }
}

#[test]
fn what_is_not_there_passes_nothing_and_not_turns_that_round() {
    let all = || test("subject", Test::Wildcard(Wildcard::parse("#").unwrap()));
    assert!(!all().matches(&event()));
    assert!(Filter::Not(Box::new(all())).matches(&event()));
    assert!(Filter::All(vec![]).matches(&event()) && !Filter::Any(vec![]).matches(&event()));
    let gold = || test("data.customer.tier", Test::Exact(text("gold")));
    assert!(Filter::Any(vec![all(), gold()]).matches(&event()));
    assert!(!Filter::All(vec![all(), gold()]).matches(&event()));
}

#[test]
fn names_are_read_and_shown() {
    for name in ["key", "data", "data.a.0.b", "type", "headers.x-tenant", "headers.ce-key"] {
        assert_eq!(Place::parse(name).unwrap().show(), name);
    }
    assert_eq!(Place::parse("headers.CE-Type").unwrap().show(), "type");
    let typed = Place::parse("datacontenttype").unwrap();
    assert_eq!(Place::parse(&typed.show()).unwrap(), typed);
    for wrong in ["", "Type", "my-attribute", "data.", "data.a..b", "headers.", "headers.a b"] {
        assert!(Place::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_bound_is_kept() {
    let leaf = || test("type", Test::Exact(text("a")));
    let nested = |depth| (1..depth).fold(leaf(), |inner, _| Filter::Not(Box::new(inner)));
    let wide = |tests: usize| Filter::Any((1..tests).map(|_| leaf()).collect());
    let long = |bytes| test("type", Test::Prefix("a".repeat(bytes)));
    let deep = |names: usize| Filter::Test(Place::Field(vec![text("a"); names]), Test::In(vec![]));
    for (inside, outside) in [
        (nested(DEPTH_MAX), nested(DEPTH_MAX + 1)),
        (wide(TESTS_MAX), wide(TESTS_MAX + 1)),
        (long(TEXT_MAX), long(TEXT_MAX + 1)),
        (deep(PATH_MAX), deep(PATH_MAX + 1)),
        (
            test("type", Test::In(vec![Scalar::Null; TESTS_MAX])),
            test("type", Test::In(vec![Scalar::Null; TESTS_MAX + 1])),
        ),
    ] {
        assert_eq!(inside.validate(), Ok(()));
        assert!(outside.validate().is_err(), "{outside:?}");
    }
}

/// What a pattern means, said as shortly as possible and however slowly.
fn brute(pattern: &[&str], text: &[&str]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((&"#", rest)) => (0..=text.len()).any(|taken| brute(rest, &text[taken..])),
        Some((&word, rest)) => text
            .split_first()
            .is_some_and(|(first, left)| (word == "*" || word == *first) && brute(rest, left)),
    }
}

fn of(words: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::vec(proptest::sample::select(words), 0..most)
}

proptest! {
    #[test]
    fn wildcards_fit_what_trying_every_way_fits(
        pattern in of(&["a", "b", "*", "#", "#"], 8),
        text in of(&["a", "b", "c"], 10),
    ) {
        let found = fits(&pattern.join("."), &text.join("."));
        prop_assert_eq!(found, brute(&pattern, &text), "{:?} {:?}", pattern, text);
    }
}

/// Trying every way would take longer than anybody waits.
#[test]
fn many_hashes_cost_no_more_than_words_times_words() {
    let pattern = Wildcard::parse(&["#.a"; 250].join(".")).unwrap();
    let text = ["a"; 500].join(".");
    for _ in 0..100 {
        assert!(pattern.matches(&text));
        assert!(!pattern.matches(&format!("{text}.b")));
    }
}
