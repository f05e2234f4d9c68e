use http::{HeaderName, HeaderValue};

use super::*;
use crate::config::{Downstream, Listener, Match, Route};

fn route(name: &str, path: &str, change: impl FnOnce(&mut Match)) -> Route {
    let mut matches = Match { path: PathMatch::parse(path), ..Match::default() };
    change(&mut matches);
    Route { name: name.into(), matches, to: "s".into(), ..Route::default() }
}

/// The name of the route that `GET url` takes; `-` for none.
fn ask<'a>(routes: &'a [Route], host: &str, target: &str) -> &'a str {
    asked(routes, host, target, Method::GET, &[])
}

fn asked<'a>(
    routes: &'a [Route],
    host: &str,
    target: &str,
    method: Method,
    headers: &[(&'static str, &'static str)],
) -> &'a str {
    let edge = Listener {
        name: "edge".into(),
        bind: ([127, 0, 0, 1], 0).into(),
        protocol: Downstream::Auto,
    };
    let map: HeaderMap = headers
        .iter()
        .map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v)))
        .collect();
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let table = Table::new(routes, &[edge]);
    let asked = Asked { listener: Some(0), host, path, query, method: &method, headers: &map };
    table.find(&asked).map_or("-", |index| &routes[index].name)
}

#[test]
fn the_longest_prefix_wins_whatever_the_order() {
    let mut routes = vec![
        route("all", "/**", |_| {}),
        route("a", "/a/**", |_| {}),
        route("ab", "/a/b/**", |_| {}),
    ];
    for _ in 0..2 {
        assert_eq!(ask(&routes, "x", "/a/b/c"), "ab");
        assert_eq!(ask(&routes, "x", "/a/b"), "ab");
        assert_eq!(ask(&routes, "x", "/a/bc"), "a");
        assert_eq!(ask(&routes, "x", "/a"), "a");
        assert_eq!(ask(&routes, "x", "/a/"), "a");
        assert_eq!(ask(&routes, "x", "/ab"), "all");
        routes.reverse();
    }
}

#[test]
fn exact_beats_prefix_and_pattern() {
    let routes =
        [route("p", "/a/**", |_| {}), route("s", "/a/*", |_| {}), route("e", "/a/b", |_| {})];
    assert_eq!(ask(&routes, "x", "/a/b"), "e");
    assert_eq!(ask(&routes, "x", "/a/c"), "s");
    assert_eq!(ask(&routes, "x", "/a/c/d"), "p");
}

#[test]
fn a_pattern_matches_segments() {
    let routes = [route("r", "/u/*/orders/**", |_| {})];
    assert_eq!(ask(&routes, "x", "/u/7/orders"), "r");
    assert_eq!(ask(&routes, "x", "/u/7/orders/1/2"), "r");
    assert_eq!(ask(&routes, "x", "/u//orders"), "-");
    assert_eq!(ask(&routes, "x", "/u/7/8/orders"), "-");
}

#[test]
fn hosts_are_exact_then_wild_then_any() {
    let routes = [
        route("any", "/**", |_| {}),
        route("wild", "/**", |m| m.hosts = vec!["*.example.com".into()]),
        route("deep", "/**", |m| m.hosts = vec!["*.eu.example.com".into()]),
        route("exact", "/x/**", |m| m.hosts = vec!["Shop.example.com".into()]),
    ];
    assert_eq!(ask(&routes, "shop.EXAMPLE.com", "/x/1"), "exact");
    assert_eq!(ask(&routes, "shop.example.com", "/y"), "wild");
    assert_eq!(ask(&routes, "a.eu.example.com", "/y"), "deep");
    assert_eq!(ask(&routes, "example.com", "/y"), "any");
}

#[test]
fn conditions_narrow_and_fall_through() {
    let routes = [
        route("plain", "/a/**", |_| {}),
        route("post", "/a/**", |m| m.methods = vec![Method::POST]),
        route("beta", "/a/**", |m| {
            m.headers = vec![(HeaderName::from_static("x-beta"), ValueMatch::Exact("1".into()))];
        }),
        route("query", "/a/**", |m| m.query = vec![("v".into(), ValueMatch::Prefix("2".into()))]),
    ];
    assert_eq!(asked(&routes, "x", "/a/1", Method::POST, &[]), "post");
    assert_eq!(asked(&routes, "x", "/a/1", Method::GET, &[("x-beta", "1")]), "beta");
    assert_eq!(asked(&routes, "x", "/a/1", Method::GET, &[("x-beta", "2")]), "plain");
    assert_eq!(ask(&routes, "x", "/a/1?u=1&v=2.1"), "query");
    assert_eq!(ask(&routes, "x", "/a/1?v=1"), "plain");
}

#[test]
fn a_tie_goes_to_the_first_name() {
    let mut routes = vec![route("b", "/a/**", |_| {}), route("a", "/a/**", |_| {})];
    assert_eq!(ask(&routes, "x", "/a"), "a");
    routes.reverse();
    assert_eq!(ask(&routes, "x", "/a"), "a");
}

#[test]
fn a_route_for_another_listener_is_not_found() {
    let routes = [route("r", "/**", |m| m.listeners = vec!["inner".into()])];
    assert_eq!(ask(&routes, "x", "/"), "-");
}

#[test]
fn odd_targets_do_not_panic() {
    let routes = [route("all", "/a/**", |_| {})];
    for target in ["", "*", "//", "/a//", "a", "/ä"] {
        ask(&routes, "", target);
        ask(&routes, "ä", target);
    }
}
