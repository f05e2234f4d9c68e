//! What is refused and never forwarded, and what upstreams may not do to us.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use selvedge_patterns::retry;
use selvedge_proxy::Hooks;
use selvedge_proxy::access::Record;
use selvedge_proxy::config::PathMatch;

use crate::kit::{PATIENCE, Rig, Upstream, config, eventually, field, status, text};

/// The answer to raw bytes; the connection must be closed after it, and
/// nothing may have reached the upstream.
fn refused(request: &str) -> u16 {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let mut client = rig.connect();
    let response = client.ask(request);
    assert!(client.is_closed(), "the connection must be closed: {request:?}");
    assert_eq!(upstream.count(), 0, "nothing may be forwarded: {request:?}");
    assert_eq!(field(&response.head, "content-type").as_deref(), Some("application/problem+json"));
    // A chunk that is wrong is the fault of a body.
    let codes = ["SV0202", "SV0216"].map(|code| format!("\"code\":\"{code}\""));
    assert!(codes.iter().any(|code| text(&response).contains(code)), "{request:?}: {response:?}");
    status(&response)
}

#[test]
fn ambiguous_requests_get_400_and_are_not_forwarded() {
    let cases = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n",
        "NONSENSE\r\n\r\n",
        // What the guard lets pass and the parser behind it does not.
        "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nb@d(name): x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n",
        // The violation lies in a chunk that came with the head.
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    ];
    for case in cases {
        assert_eq!(refused(case), 400, "{case:?}");
    }
}

#[test]
fn a_second_request_is_looked_at_as_closely() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let mut client = rig.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\nHost: a\n\n");
    assert_eq!(status(&client.response()), 200);
    let second = client.response();
    assert_eq!(status(&second), 400);
    assert!(text(&second).contains("SV0202"), "{second:?}");
    assert!(client.is_closed());
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_is_refused_before_it_has_a_route_is_counted_and_recorded() {
    let upstream = Upstream::echo();
    let mut config = config(&[upstream.address]);
    config.routes[0].matches.path = PathMatch::Prefix("/here".into());
    let (records, taken) = sync_channel(8);
    let rig = Rig::with(config, Hooks { access: Some(Arc::new(records)), ..Hooks::default() });
    let long = format!("GET /here HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let cases = [
        ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404, "no_route", true),
        ("GET /here HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "malformed", true),
        ("GET /here HTTP/1.1\nHost: a\n\n", 400, "malformed", false),
        ("GE(T /here HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed", false),
        (&long, 431, "head_too_large", false),
    ];
    for (request, status, reason, read) in cases {
        let mut client = rig.connect();
        let _ = client.stream.write_all(request.as_bytes());
        assert_eq!(self::status(&client.response()), status);
        drop(client);
        let record: Record = taken.recv_timeout(PATIENCE).unwrap();
        assert_eq!((record.reason, record.method.is_some()), (reason, read));
        assert_eq!(record.status.map(|status| status.as_u16()), Some(status));
        assert!(record.service.is_none() && record.code.is_some());
    }
    let metrics = rig.proxy.handle().metrics();
    for (reason, count) in [("no_route", 1), ("malformed", 3), ("head_too_large", 1)] {
        let line = format!("selvedge_refused_requests_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

#[test]
fn a_body_that_looks_like_a_refusal_is_passed_on() {
    let fake = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::start(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 * fake.len());
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..2 {
            std::thread::park_timeout(Duration::from_millis(20));
            stream.write_all(fake.as_bytes()).unwrap();
        }
        true
    });
    let rig = Rig::before(&upstream);
    let mut client = rig.connect();
    for _ in 0..3 {
        let response = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(text(&response), fake.repeat(2));
    }
}

#[test]
fn a_bad_chunk_in_a_later_read_ends_the_request() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let mut client = rig.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    std::thread::park_timeout(Duration::from_millis(50));
    client.send("1_0\r\nhello\r\n0\r\n\r\n");
    assert_eq!(status(&client.response()), 400);
    assert!(client.is_closed());
}

#[test]
fn after_a_refused_upgrade_the_connection_ends() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let mut client = rig.connect();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nGET /2 HTTP/1.1\nHost: a\n\n");
    assert_eq!(status(&client.response()), 200);
    assert!(client.is_closed());
    assert_eq!(upstream.count(), 1, "what followed was never looked at, so it is not served");
}

#[test]
fn huge_heads_get_431() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    for request in [long, many] {
        let mut client = rig.connect();
        let _ = client.stream.write_all(request.as_bytes());
        let response = client.response();
        assert_eq!(status(&response), 431);
        assert!(text(&response).contains("SV0217"), "{response:?}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(status(&rig.get("/")), 200);
}

#[test]
fn slow_clients_are_closed() {
    let upstream = Upstream::echo();
    let mut config = config(&[upstream.address]);
    config.limits.head_within = Duration::from_millis(200);
    config.limits.idle_for = Duration::from_millis(300);
    config.limits.body_idle_for = Duration::from_millis(200);
    let rig = Rig::new(config);
    let mut silent = rig.connect();
    let mut slow_head = rig.connect();
    slow_head.send("GET / HTTP/1.1\r\nHo");
    let mut slow_body = rig.connect();
    slow_body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhel");
    let mut idle = rig.connect();
    assert_eq!(status(&idle.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")), 200);
    for client in [&mut silent, &mut slow_head, &mut slow_body, &mut idle] {
        assert!(client.is_closed());
    }
}

/// All bytes that a client gets when the upstream does this; the next request must be well.
fn with_upstream(misbehave: impl Fn(&mut std::net::TcpStream) + Send + Sync + 'static) -> Vec<u8> {
    let upstream = Upstream::start(move |request, stream| {
        if request.line().starts_with("GET /good") {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok();
        }
        misbehave(stream);
        false
    });
    let rig = Rig::before(&upstream);
    assert_eq!(status(&rig.get("/good")), 200);
    let mut client = rig.connect();
    client.send("GET /bad HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let response = client.rest();
    let again = rig.get("/good");
    assert_eq!((status(&again), text(&again).as_str()), (200, "ok"), "the pool must be unharmed");
    response
}

#[test]
fn upstream_garbage_becomes_502() {
    let say = |bytes: &'static [u8]| with_upstream(move |stream| drop(stream.write_all(bytes)));
    let cases: [(&[u8], &str); 6] = [
        (b"nonsense\r\n\r\n", "SV0211"),
        (b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n", "SV0211"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "SV0211"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "SV0211",
        ),
        (b"", "SV0210"),
        (b"HTTP/1.1 200 O", "SV0210"),
    ];
    for (bytes, code) in cases {
        let response = String::from_utf8(say(bytes)).unwrap();
        assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
        assert!(response.contains(code), "{code}: {response}");
    }
}

#[test]
fn an_endless_head_becomes_502() {
    let response = with_upstream(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-Again: and again and again\r\n").is_ok() {}
    });
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 502 ") && response.contains("SV0211"), "{response}");
}

#[test]
fn half_a_response_that_comes_at_once_becomes_502() {
    let cases: [(&'static [u8], &str); 4] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "SV0210"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "SV0210"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "SV0210"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n", "SV0211"),
    ];
    for (bytes, code) in cases {
        // The close may come a moment after the bytes; then half of it is passed on.
        eventually("the close comes with the bytes", || {
            let response = with_upstream(move |stream| drop(stream.write_all(bytes)));
            let response = String::from_utf8(response).unwrap();
            let half = response.starts_with("HTTP/1.1 200 ") && !response.contains("\r\n0\r\n");
            let whole = response.starts_with("HTTP/1.1 502 ") && response.contains(code);
            assert!(whole || (half && code == "SV0210"), "{code}: {response:?}");
            whole
        });
    }
}

#[test]
fn half_a_response_is_asked_for_again() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_, stream| {
        let half = asked.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        let body = if half { "hel" } else { "hello" };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{body}").unwrap();
        !half
    });
    let mut config = config(&[upstream.address]);
    config.services[0].policy.retry = Some(retry::Config::default());
    let rig = Rig::new(config);
    eventually("the close comes with the bytes", || {
        let before = upstream.count();
        let response = rig.get("/");
        let asked = upstream.count() - before;
        assert!(text(&response) == "hello" || asked == 1, "{response:?}");
        text(&response) == "hello" && asked == 2
    });
}

#[test]
fn what_came_before_the_break_is_passed_on() {
    let long = "x".repeat(300_000);
    let response = with_upstream(move |stream| {
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n{long}");
    });
    let response = String::from_utf8(response).unwrap();
    assert!(response.contains("content-length: 400000"), "{}", &response[..response.len().min(99)]);
    assert!(response.len() > 300_000, "{}", response.len());
}

#[test]
fn a_stale_connection_is_replaced_unseen() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        false
    });
    let rig = Rig::before(&upstream);
    for n in 0..20 {
        // Each answer is followed by a close that the proxy may or may not have seen.
        let response = rig.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(status(&response), 200, "request {n}: {}", text(&response));
        let seen = upstream.connections.load(Ordering::SeqCst);
        eventually("the close arrives", || {
            rig.proxy.handle().pools("s").iter().all(|(_, _, idle)| *idle == 0) || seen > 0
        });
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn what_an_upstream_says_unasked_answers_nobody() {
    let upstream = Upstream::start(|_, stream| {
        let twice = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
        stream.write_all(twice.as_bytes()).is_ok()
    });
    let rig = Rig::before(&upstream);
    for n in 1..4 {
        let response = rig.get("/");
        assert_eq!((status(&response), text(&response).as_str()), (200, "ok"));
        let connections = upstream.connections.load(Ordering::SeqCst);
        assert_eq!(connections, n, "a connection with something left on it is not used again");
    }
    let response = with_upstream(|stream| {
        drop(stream.write_all(b"HTTP/1.1 101 Now\r\nUpgrade: x\r\n\r\nbytes"))
    });
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 502 ") && response.contains("SV0211"), "{response}");
}

#[test]
fn an_answer_that_comes_before_the_request_has_ended_is_passed_on() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 16];
            stream.read_exact(&mut head).unwrap();
            stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
    });
    let rig = Rig::new(config(&[address]));
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut client = rig.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n"));
        let response = client.response();
        assert_eq!((status(&response), text(&response).as_str()), (413, "big"), "{framing}");
    }
}
