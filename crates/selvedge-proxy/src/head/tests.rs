use super::*;

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    headers.keys().map(HeaderName::as_str).collect()
}

#[test]
fn hop_by_hop_fields_go() {
    let mut headers = map(&[
        ("connection", "close, X-Private"),
        ("connection", "x-other , Host"),
        ("x-private", "1"),
        ("x-other", "1"),
        ("host", "a"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "x"),
        ("te", "gzip, trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("trailer", "x-sum"),
        ("accept", "*/*"),
    ]);
    strip_hop_by_hop(&mut headers);
    let mut left = names(&headers);
    left.sort_unstable();
    assert_eq!(left, ["accept", "host", "te", "trailer"]);
    assert_eq!(headers["te"], "trailers");
}

#[test]
fn te_without_trailers_goes() {
    let mut headers = map(&[("te", "gzip")]);
    strip_hop_by_hop(&mut headers);
    assert!(headers.is_empty());
}

#[test]
fn an_upgrade_needs_both_fields() {
    assert!(
        upgrade(&map(&[("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")])).is_some()
    );
    assert!(upgrade(&map(&[("upgrade", "websocket")])).is_none());
    assert!(upgrade(&map(&[("upgrade", "h2c"), ("connection", "upgrade")])).is_none());
}

#[test]
fn grpc_is_told_by_its_content_type() {
    assert!(is_grpc(&map(&[("content-type", "application/grpc")])));
    assert!(is_grpc(&map(&[("content-type", "application/grpc+proto")])));
    assert!(!is_grpc(&map(&[("content-type", "application/grpc-web")])));
    assert!(!is_grpc(&map(&[("content-type", "application/json")])));
}

fn peer(ip: &str, trusted: &str) -> Peer {
    Peer::new(ip.parse().unwrap(), &[Network::parse(trusted).unwrap()])
}

#[test]
fn a_stranger_is_not_believed() {
    let mut headers = map(&[
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank"),
        ("forwarded", "for=1.1.1.1"),
    ]);
    let host = HeaderValue::from_static("shop");
    forwarded(&mut headers, &peer("9.9.9.9", "10.0.0.0/8"), Some(&host));
    assert_eq!(headers["x-forwarded-for"], "9.9.9.9");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-host"], "shop");
    assert!(!headers.contains_key("forwarded"));
}

#[test]
fn a_trusted_proxy_is_continued() {
    let mut headers = map(&[
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=1.1.1.1"),
    ]);
    forwarded(&mut headers, &peer("10.0.0.1", "10.0.0.0/8"), None);
    assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 10.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["forwarded"], "for=1.1.1.1, for=10.0.0.1;proto=http");
    let mut six = map(&[("forwarded", "for=x")]);
    forwarded(&mut six, &peer("fd00::1", "fd00::/8"), None);
    assert_eq!(six["forwarded"], "for=x, for=\"[fd00::1]\";proto=http");
}

#[test]
fn the_client_is_the_last_untrusted_address() {
    let trusted = [Network::parse("10.0.0.0/8").unwrap()];
    let ask = |from: &str, xff: &'static str| {
        let peer = Peer::new(from.parse().unwrap(), &trusted);
        client_ip(&map(&[("x-forwarded-for", xff)]), &peer, &trusted).to_string()
    };
    assert_eq!(ask("9.9.9.9", "1.1.1.1"), "9.9.9.9");
    assert_eq!(ask("10.0.0.1", "1.1.1.1, 2.2.2.2, 10.0.0.2"), "2.2.2.2");
    assert_eq!(ask("10.0.0.1", "1.1.1.1, junk"), "10.0.0.1");
    assert_eq!(ask("10.0.0.1", "10.0.0.3, 10.0.0.2"), "10.0.0.3");
}

#[test]
fn ambiguous_requests_meet_an_objection() {
    let get = Method::GET;
    let ask = |path: &str, fields: &[(&'static str, &'static str)]| {
        objection(&get, path, None, &map(fields), true).is_some()
    };
    assert!(!ask("/a", &[("host", "a")]));
    assert!(ask("/a", &[]));
    assert!(ask("/a", &[("host", "a"), ("host", "a")]));
    assert!(ask("/a", &[("host", "a b")]));
    assert!(ask("/a", &[("host", "user@a")]));
    for path in ["/..", "/a/../b", "/a/%2e%2E/b", "/a/.%2e", "/./a", "/a/%2e", "/a\\..\\b", "a"] {
        assert!(ask(path, &[("host", "a")]), "{path}");
    }
    for path in ["/...", "/a..b", "/.well-known/x", "/a/%2e%2e%2e", "/a.b", "/%2ea"] {
        assert!(!ask(path, &[("host", "a")]), "{path}");
    }
    assert!(objection(&get, "/", Some("a"), &map(&[("host", "b")]), false).is_some());
    assert!(objection(&get, "/", Some("a"), &map(&[("host", "A")]), false).is_none());
}

#[test]
fn cookies_are_joined() {
    let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
    join_cookies(&mut headers);
    assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
}

#[test]
fn via_grows() {
    let ours = HeaderValue::from_static("1.1 selvedge");
    let mut headers = map(&[]);
    via(&mut headers, &ours);
    via(&mut headers, &ours);
    assert_eq!(headers["via"], "1.1 selvedge, 1.1 selvedge");
}
