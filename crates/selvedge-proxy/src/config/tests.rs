use super::*;

fn valid() -> Config {
    Config {
        listeners: vec![Listener {
            name: "edge".into(),
            bind: ([127, 0, 0, 1], 0).into(),
            protocol: Downstream::Auto,
        }],
        services: vec![Service {
            name: "orders".into(),
            endpoints: vec![Endpoint::new("127.0.0.1", 9001)],
            ..Service::default()
        }],
        routes: vec![Route { name: "orders".into(), to: "orders".into(), ..Route::default() }],
        ..Config::default()
    }
}

/// The keys of all problems after `change`.
fn keys(change: impl FnOnce(&mut Config)) -> Vec<String> {
    let mut config = valid();
    change(&mut config);
    config.validate().err().unwrap_or_default().into_iter().map(|p| p.key).collect()
}

#[test]
fn a_small_configuration_is_valid() {
    assert_eq!(keys(|_| {}), Vec::<String>::new());
}

#[test]
fn every_problem_is_reported_at_once() {
    let found = keys(|c| {
        c.services[0].endpoints.clear();
        c.routes[0].to = "nowhere".into();
        c.limits.head_bytes_max = 1;
    });
    assert_eq!(found, ["services.orders.endpoints", "routes.orders.to", "limits.head_bytes_max"]);
}

#[test]
fn names_are_unique() {
    assert_eq!(keys(|c| c.services.push(c.services[0].clone())), ["services.orders"]);
    assert_eq!(keys(|c| c.routes.push(c.routes[0].clone())), ["routes.orders"]);
    assert_eq!(keys(|c| c.listeners.push(c.listeners[0].clone())), ["listeners.edge"]);
}

#[test]
fn two_stars_stand_only_at_the_end() {
    let with = |path: &str| keys(|c| c.routes[0].matches.path = PathMatch::Pattern(path.into()));
    assert_eq!(with("/a/*/b/**"), Vec::<String>::new());
    assert_eq!(with("/a/**/b"), ["routes.orders.match.path"]);
    assert_eq!(with("/a/x*"), ["routes.orders.match.path"]);
}

#[test]
fn paths_read_as_people_write_them() {
    assert_eq!(PathMatch::parse("/**"), PathMatch::Any);
    assert_eq!(PathMatch::parse("/a/**"), PathMatch::Prefix("/a".into()));
    assert_eq!(PathMatch::parse("/a/*"), PathMatch::Pattern("/a/*".into()));
    assert_eq!(PathMatch::parse("/a"), PathMatch::Exact("/a".into()));
}

#[test]
fn endpoints_read_as_people_write_them() {
    assert_eq!(Endpoint::parse("a.b:80").unwrap(), Endpoint::new("a.b", 80));
    assert_eq!(Endpoint::parse("[::1]:80").unwrap(), Endpoint::new("::1", 80));
    assert_eq!(Endpoint::parse("[::1]:80").unwrap().to_string(), "[::1]:80");
    for bad in ["a", "a:", ":80", "a:0", "::1:80", "a b:80", "a:65536"] {
        assert!(Endpoint::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn networks_contain_what_their_bits_say() {
    let inside = |net: &str, ip: &str| Network::parse(net).unwrap().contains(ip.parse().unwrap());
    assert!(inside("10.0.0.0/8", "10.255.0.1"));
    assert!(!inside("10.0.0.0/8", "11.0.0.1"));
    assert!(inside("0.0.0.0/0", "8.8.8.8"));
    assert!(inside("fd00::/8", "fd12::1"));
    assert!(inside("127.0.0.1", "127.0.0.1"));
    assert!(inside("10.0.0.0/8", "::ffff:10.1.1.1"));
    assert!(!inside("10.0.0.0/8", "fd00::1"));
    for bad in ["10.0.0.0/33", "x", "10.0.0.0/", "::/129"] {
        assert!(Network::parse(bad).is_err(), "{bad}");
    }
}
