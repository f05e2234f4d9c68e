//! Plain HTTP/1.1: what passes, and how it is labelled.

use std::io::Write;
use std::sync::atomic::Ordering;

use crate::kit::{Client, Rig, Upstream, config, field, status, text};

#[test]
fn a_request_and_its_response_pass() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let response = rig
        .ask("POST /a/b?c=d HTTP/1.1\r\nHost: shop\r\nX-Mine: 1\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(status(&response), 200);
    let seen = upstream.last();
    assert_eq!(seen.line(), "POST /a/b?c=d HTTP/1.1");
    assert_eq!(seen.field("host").as_deref(), Some("shop"));
    assert_eq!(seen.field("x-mine").as_deref(), Some("1"));
    assert_eq!(seen.field("content-length").as_deref(), Some("5"));
    assert_eq!(seen.body, b"hello");
    assert!(text(&response).ends_with("hello"));
    assert_eq!(field(&response.head, "via").as_deref(), Some("1.1 selvedge"));
}

#[test]
fn a_request_says_where_it_came_from() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    rig.ask("GET / HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: keep-alive, X-Drop\r\nX-Drop: 1\r\nTE: gzip\r\n\r\n");
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.field("x-forwarded-host").as_deref(), Some("shop"));
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(seen.field("via").as_deref(), Some("1.1 selvedge"));
    assert_eq!(
        (seen.field("x-drop"), seen.field("te"), seen.field("connection")),
        (None, None, None)
    );
    assert_eq!(seen.field("traceparent").unwrap().len(), 55);
    assert_eq!(seen.field("x-request-id").unwrap().len(), 32);
}

#[test]
fn upstream_connections_are_reused() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let mut client = rig.connect();
    for _ in 0..5 {
        assert_eq!(status(&client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")), 200);
    }
    for _ in 0..5 {
        assert_eq!(status(&rig.get("/")), 200);
    }
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn chunked_bodies_and_trailers_pass_both_ways() {
    let upstream = Upstream::start(|_, stream| {
        let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
        stream.write_all(response.as_bytes()).is_ok()
    });
    let rig = Rig::before(&upstream);
    let response = rig.ask(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\nTrailer: x-in\r\n\r\n2\r\nhi\r\n0\r\nx-in: 1\r\n\r\n",
    );
    assert!(text(&response).contains("abc"));
    assert!(text(&response).to_lowercase().contains("x-sum: 7"), "{}", text(&response));
    let seen = upstream.last();
    assert_eq!(seen.field("transfer-encoding").as_deref(), Some("chunked"));
    assert!(String::from_utf8_lossy(&seen.body).to_lowercase().contains("x-in: 1"));
}

#[test]
fn head_options_and_expect_work() {
    let upstream = Upstream::start(|request, stream| {
        let body = if request.line().starts_with("HEAD") { "" } else { "hello" };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}").is_ok()
    });
    let rig = Rig::before(&upstream);
    let mut client = rig.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = String::from_utf8(client.read_some()).unwrap();
    assert!(head.contains("content-length: 5") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(status(&client.ask("OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n")), 200);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let interim = String::from_utf8(client.read_some()).unwrap();
    assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hi");
    assert_eq!(status(&client.response()), 200);
    assert_eq!(upstream.last().body, b"hi");
}

#[test]
fn events_are_not_held_back() {
    let (send, receive) = std::sync::mpsc::channel::<&'static str>();
    let receive = std::sync::Mutex::new(receive);
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for event in receive.lock().unwrap().iter() {
            write!(stream, "{:x}\r\n{event}\r\n", event.len()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    });
    let rig = Rig::before(&upstream);
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut got = String::new();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        send.send(event).unwrap();
        while !got.contains(event) {
            got.push_str(&String::from_utf8(client.read_some()).unwrap());
        }
    }
    drop(send);
    while !got.ends_with("0\r\n\r\n") {
        got.push_str(&String::from_utf8(client.read_some()).unwrap());
    }
}

#[test]
fn a_websocket_becomes_a_tunnel() {
    let upstream = Upstream::start(|request, stream| {
        assert_eq!(request.field("upgrade").as_deref(), Some("websocket"));
        assert_eq!(request.field("connection").as_deref(), Some("upgrade"));
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst")
            .unwrap();
        let mut echo = stream.try_clone().unwrap();
        std::io::copy(&mut echo, stream).unwrap();
        false
    });
    let rig = Rig::before(&upstream);
    let mut client = rig.connect();
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    let mut got = Vec::new();
    while !got.ends_with(b"first") {
        got.extend(client.read_some());
    }
    assert!(got.starts_with(b"HTTP/1.1 101 "));
    for message in [&b"\0\n\r"[..], b"GET / HTTP/1.1\r\n\n"] {
        client.send(message);
        let mut back = Vec::new();
        while back.len() < message.len() {
            back.extend(client.read_some());
        }
        assert_eq!(back, message);
    }
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.is_closed());
}

#[test]
fn the_ambassador_knows_services_by_name() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let ask = |path: &str| {
        Client::connect(rig.ambassador).ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
    };
    assert_eq!(status(&ask("/s/a/b?c=1")), 200);
    assert_eq!(upstream.last().line(), "GET /a/b?c=1 HTTP/1.1");
    ask("/s");
    assert_eq!(upstream.last().line(), "GET / HTTP/1.1");
    let unknown = ask("/t/a");
    assert_eq!(status(&unknown), 404);
    assert!(text(&unknown).contains("SV0215"), "{}", text(&unknown));
}

#[test]
fn what_matches_no_route_is_told_so() {
    let upstream = Upstream::echo();
    let mut config = config(&[upstream.address]);
    config.routes[0].matches.path = selvedge_proxy::config::PathMatch::parse("/orders/**");
    let rig = Rig::new(config);
    let response = rig.get("/other");
    assert_eq!(status(&response), 404);
    assert_eq!(field(&response.head, "content-type").as_deref(), Some("application/problem+json"));
    assert!(text(&response).contains("\"code\":\"SV0201\""));
    assert_eq!(status(&rig.get("/orders/1")), 200);
}

#[test]
fn requests_spread_over_endpoints_and_large_bodies_stream() {
    let (a, b) = (Upstream::echo(), Upstream::echo());
    let rig = Rig::new(config(&[a.address, b.address]));
    for _ in 0..10 {
        rig.get("/");
    }
    assert!(a.count() >= 1 && b.count() >= 1);
    let body = "x".repeat(3_000_000);
    let request =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let response = rig.ask(&request);
    assert!(text(&response).ends_with(&body));
}
