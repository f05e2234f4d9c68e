use proptest::prelude::*;

use super::*;
use crate::fuzzing::{Read, read};

fn whole(bytes: &str) -> Read {
    read([bytes.as_bytes()], false).unwrap().unwrap()
}

fn wrong(bytes: &str) -> Wrong {
    read([bytes.as_bytes()], false).expect_err(bytes)
}

const GOOD: [&str; 8] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
    "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0a\r\n0123456789\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.0 200 Fine\r\n\r\nuntil the end",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nnot HTTP",
];

#[test]
fn how_bytes_are_cut_into_reads_does_not_matter() {
    for text in GOOD {
        let bytes = text.as_bytes();
        let expected = whole(text);
        assert_eq!(read(bytes.chunks(1), false).unwrap().unwrap(), expected, "{text:?}");
        for at in 1..bytes.len() {
            let (first, second) = bytes.split_at(at);
            let cut = read([first, second], false).unwrap().unwrap();
            assert_eq!(cut, expected, "{text:?} cut at {at}");
        }
    }
}

#[test]
fn every_beginning_of_a_response_is_only_a_beginning() {
    for text in &GOOD[..5] {
        for at in 0..text.len() {
            let begun = read([&text.as_bytes()[..at]], false).unwrap();
            assert!(begun.is_none_or(|begun| !begun.whole), "{text:?} up to {at}");
        }
    }
}

#[test]
fn bodies_end_where_they_say() {
    let cases = [
        (0, "hello", true, true, ""),
        (1, "", true, true, ""),
        (2, "abc0123456789", true, true, ""),
        (3, "a", true, true, ""),
        (4, "", true, true, ""),
        (5, "until the end", false, false, ""),
        (6, "", true, true, ""),
        (7, "", true, true, "not HTTP"),
    ];
    for (at, body, ends, keep, rest) in cases {
        let read = whole(GOOD[at]);
        assert_eq!(String::from_utf8(read.body).unwrap(), body, "{at}");
        assert_eq!((read.whole, read.keep), (ends, keep), "{at}");
        assert_eq!(read.rest, rest.as_bytes(), "{at}");
    }
    assert_eq!(whole(GOOD[3]).trailers, 2);
    assert_eq!(whole(GOOD[1]).fields.len(), 3);
    let to_head = read([GOOD[0].as_bytes()], true).unwrap().unwrap();
    assert_eq!((to_head.whole, to_head.rest.as_slice()), (true, &b"hello"[..]));
}

#[test]
fn a_connection_is_kept_only_if_both_may() {
    let keep = |head: &str| whole(&format!("{head}\r\nContent-Length: 0\r\n\r\n")).keep;
    assert!(keep("HTTP/1.1 200 OK"));
    assert!(!keep("HTTP/1.1 200 OK\r\nConnection: x, Close"));
    assert!(!keep("HTTP/1.0 200 OK"));
    assert!(keep("HTTP/1.0 200 OK\r\nConnection: Keep-Alive"));
    assert!(!keep("HTTP/1.0 200 OK\r\nConnection: keep-alive, close"));
    assert!(!whole("HTTP/1.1 200 OK\r\n\r\nbody").keep, "the body ends with the connection");
}

#[test]
fn what_two_readers_could_understand_differently_is_an_error() {
    let heads = [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "X: a\r\n folded: b",
        " X: a",
        "no colon",
        ": no name",
        "X\u{0}: a",
        "X: a\u{0}b",
        "X: a\rb",
    ];
    for head in heads {
        wrong(&format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nhello"));
    }
    wrong("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let twice = whole("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(twice.fields.len(), 1, "said twice alike is said once");
}

#[test]
fn what_is_no_response_is_an_error() {
    for bytes in [
        "nonsense\r\n\r\n",
        "\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "<html>\n\n",
    ] {
        wrong(bytes);
    }
}

#[test]
fn nothing_is_endless() {
    let endless = "X-Again: and again\r\n".repeat(1000);
    wrong(&format!("HTTP/1.1 200 OK\r\n{endless}"));
    wrong(&format!("HTTP/1.1 200 OK\r\n{endless}\r\n"));
    wrong(&"HTTP/1.1 200 O".repeat(1000));
    wrong(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(FIELDS_MAX + 1)));
    whole(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: 1\r\n".repeat(FIELDS_MAX)));
    wrong(&"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(INTERIM_MAX as usize + 1));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    wrong(&format!("{chunked}1;{}", "x".repeat(CHUNK_LINE_MAX)));
    wrong(&format!("{chunked}0\r\n{endless}"));
}

#[test]
fn chunks_are_read_strictly() {
    for body in [
        "\r\n",
        "x\r\n",
        "-1\r\n",
        "0x1\r\na\r\n",
        "1\na\n",
        "1\r\r\na\r\n",
        "1 \r\na\r\n",
        "1\r\nab\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\na\rx",
        "ffffffffffffffff\r\n",
        "10000000000000000\r\n",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\n folded\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
    ] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        wrong(&format!("{head}{body}"));
    }
}

#[test]
fn what_follows_a_response_is_left_alone() {
    let read = whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n");
    assert_eq!((read.body, read.rest.len()), (b"ok".to_vec(), 19));
}

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn written(headers: &HeaderMap, own: &Own, length: Length) -> String {
    let mut out = Vec::new();
    let host = HeaderValue::from_static("a.test");
    write_head(&mut out, &Method::POST, "/p?q", &host, headers, own, length);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_is_framed_by_its_body_and_not_by_its_headers() {
    let headers = fields(&[
        ("host", "b.test"),
        ("content-length", "77"),
        ("transfer-encoding", "gzip"),
        ("x-a", "1"),
        ("x-selvedge-attempt", "7"),
    ]);
    let mut own = Own::default();
    own.push(head::ATTEMPT, HeaderValue::from_static("8"));
    let start = "POST /p?q HTTP/1.1\r\nhost: a.test\r\nx-a: 1\r\nx-selvedge-attempt: 8\r\n";
    assert_eq!(written(&headers, &own, Length::None), format!("{start}\r\n"));
    let exact = format!("{start}content-length: 5\r\n\r\n");
    assert_eq!(written(&headers, &own, Length::Exact(5)), exact);
    let chunked = format!("{start}transfer-encoding: chunked\r\n\r\n");
    assert_eq!(written(&headers, &own, Length::Chunked), chunked);
}

#[test]
fn trailers_say_nothing_about_what_came_before() {
    let mut out = Vec::new();
    let trailers =
        fields(&[("x-sum", "1"), ("content-length", "5"), ("host", "x"), ("authorization", "y")]);
    write_last_chunk(&mut out, Some(&trailers));
    assert_eq!(out, b"0\r\nx-sum: 1\r\n\r\n");
}

/// Text in which the interesting bytes are common.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let words = proptest::sample::select(vec![
        &b"HTTP/1.1 200 OK\r\n"[..],
        b"Content-Length: ",
        b"Transfer-Encoding: chunked",
        b"Connection: close\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"0",
        b"5",
        b"ff",
        b":",
        b" ",
        b";",
        b"hello",
        b"\0",
        b"X",
    ]);
    prop::collection::vec(words, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn cuts_never_change_what_is_read(soup in soup(), start: bool, cut in 1usize..9) {
        let mut bytes = if start { b"HTTP/1.1 200 OK\r\n".to_vec() } else { Vec::new() };
        bytes.extend(soup);
        let at_once = read([&bytes[..]], false);
        let in_pieces = read(bytes.chunks(cut), false);
        // Which of several errors is seen first may differ; that there is one may not.
        prop_assert_eq!(at_once.clone().map_err(drop), in_pieces.map_err(drop));
    }

    #[test]
    fn what_is_written_in_chunks_is_read_as_it_was(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        cut in 1usize..400,
    ) {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            write_chunk_size(&mut bytes, chunk.len());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        write_last_chunk(&mut bytes, None);
        let read = read(bytes.chunks(cut), false).unwrap().unwrap();
        prop_assert!(read.whole && read.rest.is_empty());
        prop_assert_eq!(read.body, chunks.concat());
    }
}
