use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const LINE_MAX: usize = 8192;

fn scan_whole(input: &[u8]) -> Scanned {
    Scanner::new(LINE_MAX).scan(input)
}

#[track_caller]
fn accepts(input: &str) {
    let scanned = scan_whole(input.as_bytes());
    assert_eq!(scanned, Scanned::all(input.as_bytes()), "{input:?}");
}

/// Refused as `violation`, whole or a byte at a time.
#[track_caller]
fn refuses(input: &str, violation: Violation) {
    assert_eq!(scan_whole(input.as_bytes()).violation, Some(violation), "{input:?}");
    let mut scanner = Scanner::new(LINE_MAX);
    let found = input.as_bytes().iter().find_map(|byte| scanner.scan(&[*byte]).violation);
    assert_eq!(found, Some(violation), "byte by byte: {input:?}");
}

#[test]
fn ordinary_requests_pass() {
    accepts("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    accepts("GET / HTTP/1.0\r\n\r\n");
    accepts("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    accepts("GET /a?b=c HTTP/1.1\r\nhost:a\r\nX-Y:\t v\u{e9} \r\nEmpty:\r\n\r\n");
    accepts(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\0\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    accepts(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nx\ny\r\n0\r\nX-T: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    accepts("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn heads_that_are_not_plain_are_refused() {
    use Violation::*;
    let table = [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", BareLf),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", BareLf),
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ("GET  / HTTP/1.1\r\n", RequestLine),
        ("GET / HTTP/1.1 \r\n", RequestLine),
        ("GET /a b HTTP/1.1\r\n", RequestLine),
        ("GET /\u{e9} HTTP/1.1\r\n", RequestLine),
        ("GET /\0 HTTP/1.1\r\n", RequestLine),
        ("GET / HTTP/2.0\r\n", RequestLine),
        ("GET / http/1.1\r\n", RequestLine),
        ("G(T / HTTP/1.1\r\n", RequestLine),
        ("/ HTTP/1.1\r\n", RequestLine),
        ("GET / HTTP/1.1\r\nHost : a\r\n", HeaderName),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n", HeaderName),
        ("GET / HTTP/1.1\r\nHost: a\r\n\tx: folded\r\n", HeaderName),
        ("GET / HTTP/1.1\r\n: a\r\n", HeaderName),
        ("GET / HTTP/1.1\r\nno colon\r\n", HeaderName),
        ("GET / HTTP/1.1\r\nHost\0: a\r\n", HeaderName),
        ("GET / HTTP/1.1\r\nHost: a\0\r\n", HeaderValue),
        ("GET / HTTP/1.1\r\nHost: a\rX: y\r\n", HeaderValue),
        ("GET / HTTP/1.1\r\nHost: \x7f\r\n", HeaderValue),
        ("GET / HTTP/1.1\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", Host),
        ("GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", Host),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n", ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n", ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: +1\r\n", ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n", ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 0x1\r\n", ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n", ContentLength),
        ("POST / HTTP/1.1\r\nContent-Length: 9999999999999999999\r\n", ContentLength),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", TransferEncoding),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n", TransferEncoding),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            TransferEncoding,
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n", HeaderValue),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", TransferEncoding),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            Ambiguous,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            Ambiguous,
        ),
    ];
    for (input, violation) in table {
        refuses(input, violation);
    }
}

#[test]
fn bodies_that_are_not_plain_are_refused() {
    use Violation::*;
    let table = [
        ("0x3\r\n", Chunk),
        ("+3\r\n", Chunk),
        ("-3\r\n", Chunk),
        ("3_0\r\n", Chunk),
        (" 3\r\n", Chunk),
        ("3 \r\n", Chunk),
        ("\r\n", Chunk),
        (";a=b\r\n", Chunk),
        ("3\n", Chunk),
        ("3;a\nb\r\n", Chunk),
        ("3;a\0b\r\n", Chunk),
        ("12345678123456781\r\n", Chunk),
        ("3\r\nabcd\r\n", Chunk),
        ("3\r\nabc\n", Chunk),
        ("3\r\nabc0\r\n", Chunk),
        ("0\r\nContent-Length: 3\r\n", Trailer),
        ("0\r\nHost: b\r\n", Trailer),
        ("0\r\n folded\r\n", Trailer),
    ];
    for (body, violation) in table {
        refuses(
            &format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
            violation,
        );
    }
}

#[test]
fn lines_and_chunk_extensions_are_bounded() {
    let mut scanner = Scanner::new(LINE_MAX);
    assert_eq!(scanner.scan(&[b'a'; LINE_MAX]).violation, None);
    assert_eq!(scanner.scan(b"a").violation, Some(Violation::TooLong));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refuses(&format!("{head}3;{}\r\n", "a".repeat(300)), Violation::Chunk);
}

#[test]
fn only_what_comes_before_a_refused_request_is_passed_on() {
    let good = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let bad = format!("{good}GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    let refused =
        |violation| Scanned { accepted: good.len(), violation: Some(violation), in_body: false };
    assert_eq!(scan_whole(bad.as_bytes()), refused(Violation::Host));
    // A bad chunk too, if its head has not been passed on yet.
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bad = format!("{good}{chunked}0x1\r\n");
    assert_eq!(scan_whole(bad.as_bytes()), refused(Violation::Chunk));
}

#[test]
fn after_an_upgrade_nothing_is_checked_but_only_if_it_was_granted() {
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    let mut granted = Scanner::new(LINE_MAX);
    assert_eq!(granted.scan(ask).violation, None);
    granted.tunnel().open();
    assert_eq!(granted.scan(b"\x81\x05\n\0\r").violation, None);
    assert_eq!(granted.scan(b"GET\n").violation, None);

    let mut denied = Scanner::new(LINE_MAX);
    assert_eq!(denied.scan(ask).violation, None);
    assert_eq!(denied.scan(b"GET / HTTP/1.1\n").violation, Some(Violation::BareLf));
}

#[tokio::test]
async fn a_refused_head_reads_as_a_nul_and_then_the_end() {
    let (mut client, server) = tokio::io::duplex(4096);
    let mut guarded = Guarded::new(server, LINE_MAX);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\n").await.unwrap();
    let mut piece = [0; 4096];
    let count = guarded.read(&mut piece).await.unwrap();
    assert_eq!(&piece[..count], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(guarded.read(&mut piece).await.unwrap(), 1);
    assert_eq!(piece[0], b'\0');
    assert_eq!(guarded.read(&mut piece).await.unwrap(), 0);
    assert_eq!(guarded.refused(), Some(Violation::BareLf));
}

#[tokio::test]
async fn a_refused_body_fails_the_read() {
    let (mut client, server) = tokio::io::duplex(4096);
    let mut guarded = Guarded::new(server, LINE_MAX);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write_all(head).await.unwrap();
    let mut read = vec![0; head.len()];
    guarded.read_exact(&mut read).await.unwrap();
    client.write_all(b"0x1\r\n").await.unwrap();
    let error = guarded.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(error.to_string(), "malformed chunk");
}

proptest! {
    /// However the bytes are cut, the verdict is the same and no byte of a
    /// refused head's last piece is passed on.
    #[test]
    fn cuts_do_not_matter(
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "GET / HTTP/1.1\r\n", "Host: a\r\n", "\r\n", "Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n",
                "hi", "2\r\n", "0\r\n", "\n", "\0", ":", " ", "x: y\r\n",
            ]),
            0..16,
        ),
        cuts in proptest::collection::vec(0usize..200, 0..6),
    ) {
        let input = pieces.concat().into_bytes();
        let whole = scan_whole(&input);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.sort_unstable();
        cuts.push(input.len());
        let (mut scanner, mut from, mut violation) = (Scanner::new(LINE_MAX), 0, None);
        for to in cuts {
            let scanned = scanner.scan(&input[from..to]);
            prop_assert!(scanned.accepted <= to - from);
            if scanned.violation.is_some() {
                violation = scanned.violation;
                break;
            }
            from = to;
        }
        prop_assert_eq!(violation, whole.violation);
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let scanned = scan_whole(&input);
        prop_assert!(scanned.accepted <= input.len());
    }
}
