//! The tools themselves, without Selvedge: a tool that cannot fail proves nothing.

use http::{HeaderMap, HeaderValue, Response};
use selvedge_tests::{
    h2c,
    load::Load,
    ports,
    raw::{self, Broken, Connection},
    upstream::{Reply, Upstream},
    wait,
};
use std::time::Duration;

#[test]
fn ports_are_never_given_twice() {
    let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| ports::free()).collect();
    assert_eq!(ports.len(), 50);
}

#[test]
fn the_client_reads_lengths_chunks_trailers_and_ends() {
    let upstream = Upstream::http(|request| match request.path() {
        "/length" => Reply::ok("four").header("x-a", "1"),
        "/chunks" => Reply::raw(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: \
             chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nx-sum: 4\r\n\r\n",
        ),
        "/interim" => Reply::raw("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 None\r\n\r\n"),
        _ => Reply::raw_then_close("HTTP/1.0 200 OK\r\n\r\nto the end"),
    });
    let mut connection = Connection::open(upstream.port());
    let mut get = |path: &str| {
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        connection.answer().unwrap()
    };
    let answer = get("/length");
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.header("X-A")),
        (200, "four", Some("1"))
    );
    let answer = get("/chunks");
    assert_eq!((answer.text().as_str(), answer.trailer("x-sum")), ("abcd", Some("4")));
    let answer = get("/interim");
    assert_eq!((answer.status, answer.interim), (204, vec![103]));
    let answer = get("/end");
    assert_eq!((answer.version.as_str(), answer.text().as_str()), ("HTTP/1.0", "to the end"));
    assert_eq!(upstream.count(), 4);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn the_client_tells_broken_answers_apart() {
    let upstream = Upstream::http(|request| match request.path() {
        "/short" => Reply::raw_then_close("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"),
        "/none" => Reply::raw_then_close(""),
        "/reset" => Reply::raw_then_reset(""),
        _ => Reply::raw("what is this\r\n\r\n"),
    });
    let port = upstream.port();
    assert_eq!(raw::get(port, "/short").unwrap_err(), Broken::CutShort);
    assert_eq!(raw::get(port, "/none").unwrap_err(), Broken::Closed);
    assert_eq!(raw::get(port, "/reset").unwrap_err(), Broken::Reset);
    assert!(matches!(raw::get(port, "/garbage").unwrap_err(), Broken::Garbage(_)));
}

#[test]
fn the_upstream_reads_bodies_and_dies_and_comes_back() {
    let mut upstream = Upstream::http(|request| Reply::ok(request.body.clone()));
    let port = upstream.port();
    assert_eq!(raw::post_with(port, "/", "", "content").unwrap().text(), "content");
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: \
                   close\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    assert_eq!(raw::exchange(port, chunked).unwrap().text(), "ab");
    let mut idle = Connection::open(port);
    wait::until_true("the connection to be accepted", || upstream.connections() == 3);
    upstream.kill();
    assert!(idle.ends_within(Duration::from_secs(2)));
    assert!(Connection::try_open(port).is_err());
    upstream.revive();
    assert_eq!(raw::post_with(port, "/", "", "again").unwrap().text(), "again");
}

#[test]
fn the_load_keeps_its_rate_and_counts_failures() {
    let upstream = Upstream::http(|request| {
        if request.nth.is_multiple_of(10) { Reply::status(503) } else { Reply::ok("") }
    });
    let load = Load::start(upstream.port(), "/", 500, 10);
    wait::pause(Duration::from_secs(1));
    let counts = load.stop();
    assert!((400..=600).contains(&counts.total()), "{counts:?}");
    assert_eq!(counts.total(), upstream.count());
    assert_eq!(counts.statuses[&503], counts.total().div_ceil(10));
    assert_eq!(counts.failures.len(), counts.statuses[&503]);
}

#[test]
fn http2_carries_trailers_both_ways() {
    let server = h2c::Server::start(|parts, body, trailers| {
        let mut back = HeaderMap::new();
        back.insert("grpc-status", HeaderValue::from_static("0"));
        let seen = trailers.and_then(|trailers| trailers.get("x-sum").cloned());
        back.insert("x-seen", seen.unwrap_or(HeaderValue::from_static("none")));
        assert_eq!(parts.uri.path(), "/call");
        Response::new(h2c::with_trailers(vec![body], back))
    });
    let port = server.address().rsplit(':').next().unwrap().parse().unwrap();
    let mut client = h2c::Client::open(port);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let request = h2c::request("POST", "/call")
        .body(h2c::with_trailers(vec!["ping".into()], trailers))
        .unwrap();
    let answer = client.send(request).unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"ping"[..]));
    assert_eq!((answer.trailer("x-seen"), answer.grpc_status()), (Some("7"), Some("0")));
}
