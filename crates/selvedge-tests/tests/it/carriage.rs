//! What is carried arrives as it was sent: bodies, trailers, streams, tunnels,
//! in every pairing of protocols.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use selvedge_tests::{
    h2c,
    raw::{self, Connection},
    selvedge::Selvedge,
    upstream::{Reply, Upstream},
    wait,
};
use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A service that is spoken to in HTTP/2.
const HTTP2: &str = "    protocol: h2c\n";

fn echo() -> Upstream {
    Upstream::http(|request| Reply::ok(request.body.clone()).header("x-method", &request.method))
}

fn echo_h2() -> h2c::Server {
    h2c::Server::start(|parts, body, trailers| {
        let mut response = if let Some(trailers) = trailers {
            Response::new(h2c::with_trailers(vec![body], trailers))
        } else {
            Response::new(h2c::full(body))
        };
        let method = HeaderValue::from_str(parts.method.as_str()).unwrap();
        response.headers_mut().insert("x-method", method);
        response
    })
}

// ── The matrix: each protocol on each side.

#[test]
fn http1_to_http1() {
    let upstream = echo();
    let selvedge = Selvedge::before(&[upstream.address()], "");
    every_kind_over_http1(&selvedge);
}

#[test]
fn http1_to_http2() {
    let upstream = echo_h2();
    let selvedge = Selvedge::before(&[upstream.address()], HTTP2);
    every_kind_over_http1(&selvedge);
    assert!(upstream.count() > 0);
}

#[test]
fn http2_to_http1() {
    let upstream = echo();
    let selvedge = Selvedge::before(&[upstream.address()], "");
    every_kind_over_http2(&selvedge);
    assert!(upstream.requests().iter().all(|request| request.header("host").is_some()));
}

#[test]
fn http2_to_http2() {
    let upstream = echo_h2();
    let selvedge = Selvedge::before(&[upstream.address()], HTTP2);
    every_kind_over_http2(&selvedge);
}

fn every_kind_over_http1(selvedge: &Selvedge) {
    let mut connection = Connection::open(selvedge.port);
    for (nth, length) in [0, 1, 1000, 65_536, 1_000_000].into_iter().enumerate() {
        let body = pattern(length);
        connection
            .send(format!("POST /{nth} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"));
        connection.send(&body);
        let answer = connection.answer().unwrap();
        assert_eq!((answer.status, answer.body == body), (200, true), "length {length}");
    }
    // The same without a length.
    connection.send("PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    for chunk in ["first", " ", "second"] {
        connection.send(format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    connection.send("0\r\n\r\n");
    let answer = connection.answer().unwrap();
    assert_eq!((answer.text().as_str(), answer.header("x-method")), ("first second", Some("PUT")));
    // HEAD: a head only, and the connection goes on.
    connection.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = connection.head().unwrap();
    assert_eq!((head.status, head.header("x-method")), (200, Some("HEAD")));
    connection.send("OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(connection.answer().unwrap().header("x-method"), Some("OPTIONS"));
    // Two requests in one piece are answered in order.
    connection.send(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nonePOST / HTTP/1.1\r\nhost: \
         a\r\ncontent-length: 3\r\n\r\ntwo",
    );
    assert_eq!(connection.answer().unwrap().text(), "one");
    assert_eq!(connection.answer().unwrap().text(), "two");
    // HTTP/1.0 is answered and closed.
    let answer = raw::exchange(selvedge.port, "GET / HTTP/1.0\r\nhost: a\r\n\r\n").unwrap();
    assert_eq!(answer.status, 200);
}

fn every_kind_over_http2(selvedge: &Selvedge) {
    let mut client = h2c::Client::open(selvedge.port);
    for length in [0, 1, 1000, 65_536, 1_000_000] {
        let body = pattern(length);
        let request = h2c::request("POST", "/").body(h2c::full(body.clone())).unwrap();
        let answer = client.send(request).unwrap();
        assert_eq!((answer.status, answer.body == body), (200, true), "length {length}");
    }
    for method in ["HEAD", "OPTIONS", "DELETE", "PATCH"] {
        let request = h2c::request(method, "/").body(h2c::full("")).unwrap();
        let answer = client.send(request).unwrap();
        assert_eq!((answer.status, answer.header("x-method")), (200, Some(method)));
    }
    let requests = (0..100)
        .map(|nth| h2c::request("POST", "/").body(h2c::full(format!("{nth}"))).unwrap())
        .collect();
    for (nth, answer) in client.send_all(requests).into_iter().enumerate() {
        assert_eq!(answer.unwrap().body, format!("{nth}"));
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

// ── Trailers.

#[test]
fn trailers_cross_every_pairing() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let upstream = echo_h2();
    let selvedge = Selvedge::before(&[upstream.address()], HTTP2);
    let mut client = h2c::Client::open(selvedge.port);
    let request = h2c::request("POST", "/")
        .header("te", "trailers")
        .body(h2c::with_trailers(vec![Bytes::from("body")], trailers))
        .unwrap();
    let answer = client.send(request).unwrap();
    assert_eq!((&answer.body[..], answer.trailer("x-sum")), (&b"body"[..], Some("42")));

    let upstream = Upstream::http(|_| {
        Reply::raw(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: \
             x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 43\r\n\r\n",
        )
    });
    let selvedge = Selvedge::before(&[upstream.address()], "");
    let answer = h2c::Client::open(selvedge.port).get("/").unwrap();
    assert_eq!((&answer.body[..], answer.trailer("x-sum")), (&b"body"[..], Some("43")));
    let answer = selvedge.get_with("/", "te: trailers\r\n");
    assert_eq!((answer.text().as_str(), answer.trailer("x-sum")), ("body", Some("43")));
}

// ── Heads.

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let upstream = Upstream::http(|_| {
        Reply::ok("")
            .header("connection", "x-back")
            .header("x-back", "1")
            .header("keep-alive", "timeout=5")
    });
    let selvedge = Selvedge::before(&[upstream.address()], "");
    let answer = raw::exchange(
        selvedge.port,
        "GET /a?b=c%20d&e HTTP/1.1\r\nhost: shop.example\r\nconnection: x-secret, close\r\nx-secret: \
         1\r\nkeep-alive: 300\r\nproxy-connection: keep-alive\r\nx-kept: 1\r\n\r\n",
    )
    .unwrap();
    let request = &upstream.requests()[0];
    for gone in ["x-secret", "keep-alive", "proxy-connection"] {
        assert_eq!(request.header(gone), None, "{gone}");
    }
    assert_eq!(request.header("x-kept"), Some("1"));
    assert_eq!(request.header("host"), Some("shop.example"));
    assert_eq!(request.target, "/a?b=c%20d&e");
    assert_eq!((answer.header("x-back"), answer.header("keep-alive")), (None, None));
}

#[test]
fn the_way_is_told_to_both_sides() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::before(&[upstream.address()], "");
    // Not from a trusted proxy, so what the caller claims about itself goes.
    let answer = selvedge.get_with("/", "x-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6\r\n");
    let request = &upstream.requests()[0];
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert!(request.header("forwarded").is_none_or(|value| !value.contains("6.6.6.6")));
    assert!(request.header("via").is_some_and(|via| via.contains("1.1")), "{request:?}");
    assert!(request.header("x-request-id").is_some());
    assert!(request.header("traceparent").is_some());
    assert!(answer.header("via").is_some(), "{answer:?}");
}

#[test]
fn a_trusted_proxy_is_believed() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::run(&format!(
        "connections: {{ trusted_proxies: [\"127.0.0.0/8\"] }}\n{}",
        Selvedge::one_service(&[upstream.address()], "")
    ));
    selvedge.get_with("/", "x-forwarded-for: 203.0.113.7\r\nx-forwarded-proto: https\r\n");
    let request = &upstream.requests()[0];
    assert_eq!(request.header("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
}

#[test]
fn a_trace_is_continued_or_begun() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::before(&[upstream.address()], "");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let cases = [
        (format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\ntracestate: a=1\r\n"), true),
        (format!("traceparent: cc-{trace}-00f067aa0ba902b7-01-what-will-be\r\n"), true),
        (format!("traceparent: ff-{trace}-00f067aa0ba902b7-01\r\ntracestate: a=1\r\n"), false),
        (format!("traceparent: 00-{trace}-0000000000000000-01\r\n"), false),
        (format!("traceparent: 00-{}-00f067aa0ba902b7-01\r\n", trace.to_uppercase()), false),
        (format!("traceparent: 00-{trace}-00f067aa0ba902b7-01-more\r\n"), false),
        (String::new(), false),
    ];
    for (lines, continued) in cases {
        selvedge.get_with("/", &lines);
        let request = upstream.requests().pop().unwrap();
        let parent = request.header("traceparent").unwrap().to_owned();
        assert_eq!(parent.len(), 55, "{parent}");
        assert_eq!(parent.contains(trace), continued, "{lines} became {parent}");
        assert!(!parent.contains("00f067aa0ba902b7"), "the parent is ours now");
        let kept = request.header("tracestate").is_some_and(|state| state.contains("a=1"));
        assert_eq!(kept, continued && lines.contains("tracestate"), "{lines}");
    }
}

#[test]
fn an_expectation_is_met_before_the_body_is_sent() {
    let upstream = echo();
    let selvedge = Selvedge::before(&[upstream.address()], "");
    let mut connection = Connection::open(selvedge.port);
    connection
        .send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(connection.line().unwrap().split(' ').nth(1), Some("100"));
    assert_eq!(connection.line().unwrap(), "");
    connection.send("hello");
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
}

// ── Streams.

#[test]
fn events_arrive_one_by_one_as_they_are_sent() {
    let upstream = Upstream::http(|_| {
        Reply::stream(|mut stream| {
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: \
                  chunked\r\n\r\n",
            );
            for nth in 0..5 {
                let event = format!("data: {nth}\n\n");
                let _ = stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
                wait::pause(Duration::from_millis(150));
            }
            let _ = stream.write_all(b"0\r\n\r\n");
        })
    });
    let selvedge =
        Selvedge::before(&[upstream.address()], "    timeout: { attempt: 300ms, total: 10s }\n");
    let mut connection = Connection::open(selvedge.port);
    connection.send("GET / HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n");
    let head = connection.head().unwrap();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let begun = Instant::now();
    for nth in 0..5_u32 {
        let size = usize::from_str_radix(&connection.line().unwrap(), 16).unwrap();
        let event = connection.exactly(size + 2).unwrap();
        assert_eq!(String::from_utf8(event).unwrap(), format!("data: {nth}\n\n\r\n"));
        let late = begun.elapsed().saturating_sub(Duration::from_millis(150) * nth);
        assert!(late < Duration::from_millis(140), "event {nth} came {late:?} late");
    }
}

#[test]
fn a_caller_that_does_not_read_holds_back_the_upstream() {
    const PIECES: usize = 4096;
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let upstream = Upstream::http(move |_| {
        let counter = Arc::clone(&counter);
        Reply::stream(move |mut stream| {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", PIECES << 16);
            let _ = stream.write_all(head.as_bytes());
            for _ in 0..PIECES {
                if stream.write_all(&[b'x'; 1 << 16]).is_err() {
                    return;
                }
                counter.fetch_add(1 << 16, Ordering::SeqCst);
            }
        })
    });
    let selvedge =
        Selvedge::before(&[upstream.address()], "    timeout: { attempt: 20s, total: 60s }\n");
    let before = selvedge.resident_bytes();
    let mut connection = Connection::open(selvedge.port);
    connection.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    connection.head().unwrap();
    // Wait until nothing moves any more: socket buffers are full all the way.
    let mut last = 0;
    wait::until_true("the stream to stand still", || {
        wait::pause(Duration::from_millis(300));
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now && now > 0
    });
    assert!(last < (PIECES << 16) / 4, "{last} bytes of {} went out unread", PIECES << 16);
    let grown = selvedge.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes of memory for one slow reader");
    // And when it reads, everything is there.
    assert_eq!(connection.to_end().unwrap().len(), PIECES << 16);
}

#[test]
fn an_upstream_that_does_not_read_holds_back_the_caller() {
    let upstream = Upstream::tcp(|_, _| wait::pause(Duration::from_secs(4)));
    let selvedge =
        Selvedge::before(&[upstream.address()], "    timeout: { attempt: 20s, total: 60s }\n");
    let before = selvedge.resident_bytes();
    let mut connection = Connection::open(selvedge.port);
    connection
        .send(format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 1_u64 << 30));
    let mut taken = 0_usize;
    while taken < 256 << 20 {
        if connection.try_send(&[b'x'; 1 << 16], Duration::from_millis(700)).is_err() {
            break;
        }
        taken += 1 << 16;
    }
    assert!(taken < 64 << 20, "{taken} bytes were taken that nobody reads");
    let grown = selvedge.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes of memory for one slow upstream");
}

#[test]
fn a_caller_that_leaves_is_noticed_by_the_upstream() {
    let left = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&left);
    let upstream = Upstream::http(move |_| {
        let seen = Arc::clone(&seen);
        Reply::stream(move |mut stream| {
            let mut sink = [0; 16];
            while stream.read(&mut sink).is_ok_and(|count| count > 0) {}
            seen.fetch_add(1, Ordering::SeqCst);
        })
    });
    let selvedge =
        Selvedge::before(&[upstream.address()], "    timeout: { attempt: 60s, total: 90s }\n");
    let mut connection = Connection::open(selvedge.port);
    connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    wait::until_true("the request to arrive", || upstream.count() == 1);
    drop(connection);
    wait::until_true("the upstream to be let go", || left.load(Ordering::SeqCst) == 1);
}

// ── Tunnels.

#[test]
fn an_upgraded_connection_is_a_tunnel_both_ways() {
    let upstream = Upstream::http(|request| {
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert!(request.header("connection").unwrap().to_ascii_lowercase().contains("upgrade"));
        assert_eq!(request.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        Reply::stream(|mut stream| {
            let _ = stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: \
                  Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
            );
            let mut buffer = [0; 1024];
            while let Ok(count) = stream.read(&mut buffer) {
                if count == 0 || stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
        })
    });
    let selvedge =
        Selvedge::before(&[upstream.address()], "    timeout: { attempt: 500ms, total: 700ms }\n");
    let mut connection = Connection::open(selvedge.port);
    connection.send(
        "GET /chat HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: \
         Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let head = connection.head().unwrap();
    assert_eq!(head.status, 101);
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(head.header("upgrade"), Some("websocket"));
    assert_eq!(connection.exactly(5).unwrap(), b"hello");
    // Longer than the timeouts of a call: a tunnel is not one.
    wait::pause(Duration::from_secs(1));
    for _ in 0..10 {
        let bytes = pattern(5000);
        connection.send(&bytes);
        assert_eq!(connection.exactly(bytes.len()).unwrap(), bytes);
    }
    connection.finish();
    assert!(connection.ends_within(Duration::from_secs(5)));
}

#[test]
fn an_upgrade_that_is_refused_is_an_ordinary_answer() {
    let upstream = Upstream::http(|_| Reply::status(403).body("no"));
    let selvedge = Selvedge::before(&[upstream.address()], "");
    let mut connection = Connection::open(selvedge.port);
    connection
        .send("GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n");
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
}

// ── Pools and ways in.

#[test]
fn upstream_connections_are_kept_and_shared() {
    let upstream = echo();
    let selvedge = Selvedge::before(&[upstream.address()], "");
    for _ in 0..50 {
        assert_eq!(selvedge.get("/").status, 200);
    }
    // At most one for each worker: fifty callers, few connections.
    assert!(upstream.connections() <= 8, "{}", upstream.connections());
    let server = echo_h2();
    let selvedge = Selvedge::before(&[server.address()], HTTP2);
    for _ in 0..50 {
        assert_eq!(selvedge.get("/").status, 200);
    }
    assert!(server.connections() <= 8, "{}", server.connections());
}

#[test]
fn the_ambassador_reaches_each_service_by_name() {
    let (orders, payments) = (Upstream::named("orders"), Upstream::named("payments"));
    let selvedge = Selvedge::run(&format!(
        "services:\n  orders: {{ endpoints: [\"{}\"] }}\n  payments: {{ endpoints: [\"{}\"] \
         }}\nroutes:\n  - match: {{ path: /** }}\n    to: orders\n",
        orders.address(),
        payments.address()
    ));
    let get = |path: &str| raw::get(selvedge.ambassador, path).unwrap();
    assert_eq!(get("/orders/1?x=y").text(), "orders");
    assert_eq!(get("/payments").text(), "payments");
    assert_eq!(orders.requests()[0].target, "/1?x=y");
    assert_eq!(payments.requests()[0].target, "/");
    assert_eq!(get("/nobody/1").status, 404);
    assert_eq!(get("/").status, 404);
}

#[test]
fn routes_go_by_host_path_method_header_and_query() {
    let upstream =
        Upstream::http(|request| Reply::ok(request.header("x-route").unwrap_or("none").to_owned()));
    let routes = [
        ("exact", "path: /a"),
        ("prefix", "path: /a/**"),
        ("host", "path: /**, host: shop.example"),
        ("wild", "path: /**, host: \"*.shop.example\""),
        ("method", "path: /a, methods: [DELETE]"),
        ("header", "path: /h, headers: { x-beta: \"1\" }"),
        ("query", "path: /h, query: { v: \"2\" }"),
        ("rest", "path: /**"),
    ];
    let routes: String = routes
        .iter()
        .map(|(name, matches)| {
            format!(
                "  - name: {name}\n    match: {{ {matches} }}\n    to: up\n    headers: {{ request: \
                 {{ set: {{ x-route: {name} }} }} }}\n"
            )
        })
        .collect();
    let selvedge = Selvedge::run(&format!(
        "services:\n  up: {{ endpoints: [\"{}\"] }}\nroutes:\n{routes}",
        upstream.address()
    ));
    let ask = |line: &str, host: &str, more: &str| {
        let request = format!(
            "{line} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n{more}\r\n"
        );
        raw::exchange(selvedge.port, &request).unwrap().text()
    };
    assert_eq!(ask("GET /a", "x", ""), "exact");
    assert_eq!(ask("GET /a/b", "x", ""), "prefix");
    assert_eq!(ask("GET /ab", "x", ""), "rest");
    assert_eq!(ask("DELETE /a", "x", ""), "method");
    assert_eq!(ask("GET /z", "shop.example", ""), "host");
    assert_eq!(ask("GET /z", "SHOP.example:8080", ""), "host");
    assert_eq!(ask("GET /z", "eu.shop.example", ""), "wild");
    assert_eq!(ask("GET /h", "x", "x-beta: 1\r\n"), "header");
    assert_eq!(ask("GET /h", "x", "x-beta: 2\r\n"), "rest");
    assert_eq!(ask("GET /h?v=2", "x", ""), "query");
    assert_eq!(ask("GET /h?v=3", "x", ""), "rest");
}
