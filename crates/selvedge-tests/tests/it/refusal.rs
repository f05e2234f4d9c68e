//! Malformed and ambiguous messages, byte by byte: what comes from a client is
//! refused and never forwarded, what comes from an upstream never reaches a
//! client and never spoils the pool.

use selvedge_tests::{
    raw::{self, Broken, Connection},
    selvedge::Selvedge,
    upstream::{Reply, Upstream},
    wait,
};
use std::{io::Write, time::Duration};

/// A request that must get this status and the end of its connection, and of
/// which no byte may reach an upstream.
type Case = (&'static str, &'static [u8]);

/// Requests that two parsers may read differently, or that no parser should read.
const AMBIGUOUS: &[Case] = &[
    ("length and coding", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG"),
    ("coding and length", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\nG"),
    ("two lengths that differ", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde"),
    ("two lengths in one field", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 5\r\n\r\nabcde"),
    ("a signed length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc"),
    ("a negative length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\nabc"),
    ("a hexadecimal length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc"),
    ("an empty length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \r\n\r\nabc"),
    ("a length with words", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3 bytes\r\n\r\nabc"),
    ("a length beyond all bounds", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999\r\n\r\nabc"),
    ("a folded field", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n c\r\n\r\n"),
    ("a field that begins folded", b"GET / HTTP/1.1\r\n host: a\r\n\r\n"),
    ("a folded coding", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("lines that end in LF", b"GET / HTTP/1.1\nhost: a\n\n"),
    ("one line that ends in LF", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\nx-c: d\r\n\r\n"),
    ("a bare CR in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\rc\r\n\r\n"),
    ("NUL in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n"),
    ("NUL in a name", b"GET / HTTP/1.1\r\nhost: a\r\nx\0a: b\r\n\r\n"),
    ("a control character in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\x01c\r\n\r\n"),
    ("space before the colon", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("tab before the colon", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length\t: 3\r\n\r\nabc"),
    ("no name", b"GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n"),
    ("no colon", b"GET / HTTP/1.1\r\nhost: a\r\nnothing\r\n\r\n"),
    ("a name with a bracket", b"GET / HTTP/1.1\r\nhost: a\r\nx[a]: b\r\n\r\n"),
    ("an unknown coding", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("identity", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n"),
    ("chunked, but not last", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    ("chunked twice", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("chunked in two fields", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a coding after a vertical tab", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("a coding in HTTP/1.0", b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("no host", b"GET / HTTP/1.1\r\nx-a: b\r\n\r\n"),
    ("two hosts", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    ("a host that is none", b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n"),
    ("no version", b"GET /\r\nhost: a\r\n\r\n"),
    ("a version to come", b"GET / HTTP/1.2\r\nhost: a\r\n\r\n"),
    ("a version in lower case", b"GET / http/1.1\r\nhost: a\r\n\r\n"),
    ("two spaces", b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a space in the target", b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a tab in the request line", b"GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a method that is none", b"G(T / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a control character in the target", b"GET /a\x7fb HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("no request at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
];

/// Bodies that are not what their head promised. Their head may be forwarded
/// before the fault is seen, but never the fault.
const BROKEN_CHUNKS: &[Case] = &[
    ("a size with 0x", b"0x3\r\nabc\r\n0\r\n\r\n"),
    ("a size with an underscore", b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n"),
    ("a signed size", b"+3\r\nabc\r\n0\r\n\r\n"),
    ("a negative size", b"-3\r\nabc\r\n0\r\n\r\n"),
    ("an empty size", b"\r\nabc\r\n0\r\n\r\n"),
    ("no number", b"xyz\r\nabc\r\n0\r\n\r\n"),
    ("a size that overflows", b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("a size before spaces and words", b"3 bytes\r\nabc\r\n0\r\n\r\n"),
    ("a size line that ends in LF", b"3\nabc\r\n0\r\n\r\n"),
    ("a chunk that ends in LF", b"3\r\nabc\n0\r\n\r\n"),
    ("a chunk longer than its size", b"3\r\nabcdef\r\n0\r\n\r\n"),
    ("an extension with LF", b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    ("an extension with a bare CR", b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
];

fn proxy() -> (Upstream, Selvedge) {
    let upstream = Upstream::http(|request| Reply::ok(request.body.clone()));
    let selvedge = Selvedge::before(&[upstream.address()], "");
    (upstream, selvedge)
}

#[test]
fn ambiguous_requests_are_refused_and_never_forwarded() {
    let (upstream, selvedge) = proxy();
    let mut wrong = Vec::new();
    for (name, bytes) in AMBIGUOUS {
        let mut connection = Connection::open(selvedge.port);
        connection.patience(Duration::from_secs(3));
        connection.send(bytes);
        match connection.answer() {
            Ok(answer) if answer.status != 400 => wrong.push(format!("{name}: {}", answer.status)),
            Ok(_) if !connection.ends_within(Duration::from_secs(2)) => {
                wrong.push(format!("{name}: 400, but the connection goes on"));
            }
            Ok(_) => {}
            // Bytes that are no HTTP at all need no answer, only an end.
            Err(Broken::Closed | Broken::Reset) if *name == "no request at all" => {}
            Err(broken) => wrong.push(format!("{name}: {broken:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), AMBIGUOUS.len(), wrong.join("\n"));
    assert_eq!(upstream.requests().len(), 0, "{:?}", upstream.requests());
    assert_eq!(selvedge.get("/").status, 200);
}

#[test]
fn a_second_request_hidden_in_the_first_is_never_served() {
    let (upstream, selvedge) = proxy();
    for (name, bytes) in AMBIGUOUS {
        let mut connection = Connection::open(selvedge.port);
        connection.patience(Duration::from_secs(3));
        connection.send(bytes);
        connection.send("GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n");
        let _ = connection.answer();
        assert!(connection.answer().is_err(), "{name}");
    }
    assert_eq!(upstream.count(), 0, "{:?}", upstream.requests());
}

#[test]
fn broken_chunks_end_the_connection_and_are_never_forwarded() {
    let (upstream, selvedge) = proxy();
    let mut wrong = Vec::new();
    for (name, bytes) in BROKEN_CHUNKS {
        let mut connection = Connection::open(selvedge.port);
        connection.patience(Duration::from_secs(3));
        connection.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        connection.send(bytes);
        connection.send("GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n");
        match connection.answer() {
            Ok(answer) if answer.status != 400 => wrong.push(format!("{name}: {}", answer.status)),
            Err(Broken::TimedOut) => wrong.push(format!("{name}: nothing happens")),
            _ => {}
        }
        if connection.answer().is_ok() {
            wrong.push(format!("{name}: a second answer"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The upstream reads bodies whole before it remembers a request.
    assert_eq!(upstream.count(), 0, "{:?}", upstream.requests());
    assert_eq!(selvedge.post_with("/", "", "fine").text(), "fine");
}

#[test]
fn what_is_merely_unusual_is_served() {
    let (upstream, selvedge) = proxy();
    let usual: &[Case] = &[
        ("empty lines first", b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("an absolute target", b"GET http://a/b HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("two equal lengths in one number", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 003\r\n\r\nabc"),
        ("chunk extensions", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n"),
        ("trailer fields", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"),
        ("bytes above ASCII in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: caf\xc3\xa9\r\n\r\n"),
        ("a tab in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\tc\r\n\r\n"),
        ("an empty value", b"GET / HTTP/1.1\r\nhost: a\r\nx-a:\r\n\r\n"),
        ("no space after the colon", b"GET / HTTP/1.1\r\nhost:a\r\n\r\n"),
    ];
    for (name, bytes) in usual {
        let mut connection = Connection::open(selvedge.port);
        connection.send(bytes);
        let answer = connection.answer().unwrap_or_else(|broken| panic!("{name}: {broken:?}"));
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
    assert_eq!(upstream.count(), usual.len());
}

#[test]
fn heads_beyond_their_bounds_get_431() {
    let (upstream, selvedge) = proxy();
    let fields: String = (0..500).map(|nth| format!("x-{nth}: {nth}\r\n")).collect();
    let long = "v".repeat(200 * 1024);
    for head in [
        format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: a\r\nx-a: {long}\r\n\r\n"),
    ] {
        let mut connection = Connection::open(selvedge.port);
        connection.send(&head);
        match connection.answer() {
            Ok(answer) => assert_eq!(answer.status, 431),
            // The rest of the head may meet a closed socket before the answer is read.
            Err(broken) => assert_eq!(broken, Broken::Reset),
        }
    }
    assert_eq!(upstream.count(), 0);
    // One that fits is carried whole.
    let answer = selvedge.get_with("/", &format!("x-a: {}\r\n", "v".repeat(16 * 1024)));
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.requests()[0].header("x-a").map(str::len), Some(16 * 1024));
}

/// Answers that are none, and the status that a caller gets instead.
const GARBAGE: &[(&str, &[u8], u16)] = &[
    ("nothing", b"", 502),
    ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n", 502),
    ("noise", b"\xff\xfe\xfd\xfc\r\n\r\n", 502),
    ("no status", b"HTTP/1.1 OK\r\n\r\n", 502),
    ("a status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n", 502),
    ("a field without a colon", b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n", 502),
    ("half a head", b"HTTP/1.1 200 OK\r\ncontent-le", 502),
    ("length and coding", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 502),
    ("two lengths that differ", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde", 502),
    ("a length that is none", b"HTTP/1.1 200 OK\r\ncontent-length: three\r\n\r\nabc", 502),
    ("a bare CR in a value", b"HTTP/1.1 200 OK\r\nx-a: b\rc\r\ncontent-length: 0\r\n\r\n", 502),
    ("NUL in a value", b"HTTP/1.1 200 OK\r\nx-a: b\0c\r\ncontent-length: 0\r\n\r\n", 502),
    ("a switch that nobody asked for", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", 502),
];

#[test]
fn upstream_garbage_is_a_502_with_a_code_and_leaves_the_pool_unharmed() {
    let upstream = Upstream::http(|request| {
        let nth = request.path().trim_start_matches("/garbage/").parse::<usize>();
        nth.map_or_else(|_| Reply::ok("fine"), |nth| Reply::raw_then_close(GARBAGE[nth].1))
    });
    let selvedge = Selvedge::before(&[upstream.address()], "");
    let mut wrong = Vec::new();
    for (nth, (name, _, status)) in GARBAGE.iter().enumerate() {
        match raw::get(selvedge.port, &format!("/garbage/{nth}")) {
            Ok(answer) if answer.status != *status => {
                wrong.push(format!("{name}: {} {:?}", answer.status, answer.text()));
            }
            Ok(answer) if answer.code().is_none() => wrong.push(format!("{name}: no code")),
            Ok(_) => {}
            Err(broken) => wrong.push(format!("{name}: {broken:?}")),
        }
        let next = selvedge.get("/");
        if next.text() != "fine" {
            wrong.push(format!("after {name}: {} {}", next.status, next.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_endless_head_is_a_502() {
    let upstream = Upstream::http(|request| {
        if request.path() != "/endless" {
            return Reply::ok("fine");
        }
        Reply::stream(|mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            for nth in 0..200_000 {
                if stream.write_all(format!("x-{nth}: and so on\r\n").as_bytes()).is_err() {
                    return;
                }
            }
        })
    });
    let selvedge = Selvedge::before(&[upstream.address()], "");
    let answer = selvedge.get("/endless");
    assert_eq!(answer.status, 502);
    assert!(answer.code().is_some(), "{}", answer.text());
    assert_eq!(selvedge.get("/").text(), "fine");
}

#[test]
fn half_an_answer_is_never_passed_off_as_a_whole_one() {
    let upstream = Upstream::http(|request| match request.path() {
        "/length" => Reply::raw_then_close("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"),
        "/chunks" => Reply::raw_then_close(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ),
        "/junk" => Reply::raw_then_close(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhalf\r\n",
        ),
        _ => Reply::ok("fine"),
    });
    let selvedge = Selvedge::before(&[upstream.address()], "");
    for path in ["/length", "/chunks", "/junk"] {
        match raw::get(selvedge.port, path) {
            Err(Broken::CutShort | Broken::Reset | Broken::Closed) => {}
            // The fault may be seen before the head goes out.
            Ok(answer) => assert_eq!(answer.status, 502, "{path}"),
            Err(other) => panic!("{path}: {other:?}"),
        }
        assert_eq!(selvedge.get("/").text(), "fine", "after {path}");
    }
}

#[test]
fn what_follows_an_answer_is_not_the_next_ones() {
    let upstream = Upstream::http(|request| match request.path() {
        "/more" => Reply::raw(
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrueHTTP/1.1 200 OK\r\ncontent-length: \
             6\r\n\r\nforged",
        ),
        _ => Reply::ok("fine"),
    });
    let selvedge = Selvedge::before(&[upstream.address()], "");
    for _ in 0..5 {
        assert_eq!(selvedge.get("/more").text(), "true");
        // Give the surplus time to arrive on the idle connection.
        wait::pause(Duration::from_millis(20));
        assert_eq!(selvedge.get("/").text(), "fine");
    }
}

#[test]
fn an_upstream_that_is_not_there_is_a_502_or_503_with_a_code() {
    let mut upstream = Upstream::named("up");
    upstream.kill();
    let selvedge = Selvedge::before(&[upstream.address()], "");
    let answer = selvedge.get("/");
    assert!(matches!(answer.status, 502 | 503), "{}", answer.status);
    assert!(answer.code().is_some());
    upstream.revive();
    wait::until_true("the endpoint to be used again", || selvedge.get("/").text() == "up");
}

#[test]
fn a_client_that_sends_its_head_slowly_is_bounded() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::run(&format!(
        "connections: {{ head_within: 1s }}\n{}",
        Selvedge::one_service(&[upstream.address()], "")
    ));
    let mut slow: Vec<Connection> = (0..20).map(|_| Connection::open(selvedge.port)).collect();
    for connection in &mut slow {
        connection.send("GET / HTTP/1.1\r\nhost: a\r\nx-");
    }
    // They hold nobody up.
    assert_eq!(selvedge.get("/").text(), "up");
    for connection in &mut slow {
        connection.patience(Duration::from_secs(8));
        match connection.answer() {
            Ok(answer) => assert_eq!(answer.status, 408),
            Err(broken) => assert!(matches!(broken, Broken::Closed | Broken::Reset), "{broken:?}"),
        }
    }
    assert_eq!(upstream.count(), 1);
}

/// One field of an HTTP/2 request, as bytes that may be anything.
type Field<'a> = (&'a [u8], &'a [u8]);

/// A connection's opening and one request on stream 1, frame by frame.
fn http2_request(fields: &[Field<'_>], body: Option<&[u8]>) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let mut block = Vec::new();
    for (name, value) in fields {
        // A literal that is not indexed, name and value in plain.
        block.push(0);
        for part in [name, value] {
            block.push(u8::try_from(part.len()).unwrap());
            block.extend_from_slice(part);
        }
    }
    let end = if body.is_some() { 0x4 } else { 0x5 };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, b""));
    bytes.extend(frame(1, end, 1, &block));
    if let Some(body) = body {
        bytes.extend(frame(0, 1, 1, body));
    }
    bytes
}

/// How the peer ended stream 1.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// With an answer; the status, where the static table has it.
    Answered(u16),
    /// With a reset of the stream, or with the connection.
    Refused,
}

fn http2_end(connection: &mut Connection) -> Ended {
    loop {
        let Ok(head) = connection.exactly(9) else { return Ended::Refused };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Ok(payload) = connection.exactly(length) else { return Ended::Refused };
        match head[3] {
            1 => {
                let status = [200, 204, 206, 304, 400, 404, 500]
                    .into_iter()
                    .zip(0x88_u8..)
                    .find(|(_, index)| payload.first() == Some(index));
                return Ended::Answered(status.map_or(0, |(status, _)| status));
            }
            3 | 7 => return Ended::Refused,
            _ => {}
        }
    }
}

#[test]
fn malformed_http2_is_refused_and_never_becomes_http1() {
    const METHOD: Field<'_> = (b":method", b"GET");
    const POST: Field<'_> = (b":method", b"POST");
    const SCHEME: Field<'_> = (b":scheme", b"http");
    const PATH: Field<'_> = (b":path", b"/");
    const HOST: Field<'_> = (b":authority", b"a");
    let (upstream, selvedge) = proxy();
    let send = |fields: &[Field<'_>], body: Option<&[u8]>| {
        let mut connection = Connection::open(selvedge.port);
        connection.patience(Duration::from_secs(3));
        connection.send(http2_request(fields, body));
        http2_end(&mut connection)
    };
    // The tool first: a request without a fault is answered.
    assert_eq!(send(&[METHOD, SCHEME, PATH, HOST], None), Ended::Answered(200));
    assert_eq!(upstream.count(), 1);
    let cases: &[(&str, &[Field<'_>], Option<&[u8]>)] = &[
        ("a line break in a value", &[METHOD, SCHEME, PATH, HOST, (b"x-a", b"b\r\nx-c: d")], None),
        ("LF in a value", &[METHOD, SCHEME, PATH, HOST, (b"x-a", b"b\nc")], None),
        ("NUL in a value", &[METHOD, SCHEME, PATH, HOST, (b"x-a", b"b\0c")], None),
        ("a line break in a name", &[METHOD, SCHEME, PATH, HOST, (b"x-a: b\r\nx-c", b"d")], None),
        ("a capital in a name", &[METHOD, SCHEME, PATH, HOST, (b"X-a", b"b")], None),
        ("a colon in a name", &[METHOD, SCHEME, PATH, HOST, (b"x:a", b"b")], None),
        (
            "a line break in the path",
            &[METHOD, SCHEME, (b":path", b"/ HTTP/1.1\r\nx: y"), HOST],
            None,
        ),
        ("a space in the path", &[METHOD, SCHEME, (b":path", b"/a b"), HOST], None),
        ("a space in the method", &[(b":method", b"GET /x"), SCHEME, PATH, HOST], None),
        ("no path", &[METHOD, SCHEME, HOST], None),
        ("an empty path", &[METHOD, SCHEME, (b":path", b""), HOST], None),
        ("two paths", &[METHOD, SCHEME, PATH, (b":path", b"/b"), HOST], None),
        ("no method", &[SCHEME, PATH, HOST], None),
        ("a pseudo field that is none", &[METHOD, SCHEME, PATH, HOST, (b":status", b"200")], None),
        ("a pseudo field after a field", &[METHOD, SCHEME, (b"x-a", b"b"), PATH, HOST], None),
        ("connection", &[METHOD, SCHEME, PATH, HOST, (b"connection", b"close")], None),
        (
            "transfer-encoding",
            &[POST, SCHEME, PATH, HOST, (b"transfer-encoding", b"chunked")],
            Some(b"0\r\n\r\n"),
        ),
        ("a te that is not trailers", &[METHOD, SCHEME, PATH, HOST, (b"te", b"gzip")], None),
        ("a host that differs", &[METHOD, SCHEME, PATH, HOST, (b"host", b"b")], None),
        (
            "a length that is too long",
            &[POST, SCHEME, PATH, HOST, (b"content-length", b"9")],
            Some(b"abc"),
        ),
        (
            "a length that is too short",
            &[POST, SCHEME, PATH, HOST, (b"content-length", b"1")],
            Some(b"abc"),
        ),
        (
            "a length that is none",
            &[POST, SCHEME, PATH, HOST, (b"content-length", b"x")],
            Some(b"abc"),
        ),
        (
            "two lengths",
            &[POST, SCHEME, PATH, HOST, (b"content-length", b"3"), (b"content-length", b"4")],
            Some(b"abc"),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, fields, body) in cases {
        let ended = send(fields, *body);
        if !matches!(ended, Ended::Refused | Ended::Answered(400)) {
            wrong.push(format!("{name}: {ended:?}"));
        }
    }
    let forwarded: Vec<String> =
        upstream.requests().into_iter().skip(1).map(|one| one.head).collect();
    assert!(wrong.is_empty() && forwarded.is_empty(), "{wrong:#?}\nforwarded: {forwarded:#?}");
}

#[test]
fn a_client_that_sends_its_body_slowly_is_bounded() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::run(&format!(
        "connections: {{ body_idle_for: 1s }}\n{}",
        Selvedge::one_service(&[upstream.address()], "")
    ));
    let mut slow = Connection::open(selvedge.port);
    slow.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nsome");
    slow.patience(Duration::from_secs(8));
    match slow.answer() {
        Ok(answer) => assert!(matches!(answer.status, 408 | 502 | 504), "{}", answer.status),
        Err(broken) => assert!(matches!(broken, Broken::Closed | Broken::Reset), "{broken:?}"),
    }
    assert_eq!(upstream.count(), 0, "half a body is no request");
    assert_eq!(selvedge.get("/").text(), "up");
}
