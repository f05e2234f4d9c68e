use proptest::prelude::*;

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Whether `input` passes, read in pieces of `step` bytes; what passes is unchanged.
fn passes_in(input: &str, step: usize) -> bool {
    let mut scan = Scan::new(8192);
    let mut out = Vec::new();
    for piece in input.as_bytes().chunks(step) {
        let mut piece = piece.to_vec();
        scan.check(&mut piece);
        out.extend(piece);
    }
    let whole = scan.state != State::Broken;
    assert!(
        if whole { out == input.as_bytes() } else { out.contains(&0) },
        "{input:?} became {out:?}"
    );
    whole
}

/// The same, whole and byte by byte, with a good request before it and after it.
fn passes(input: &str) -> bool {
    let verdict = passes_in(input, usize::MAX);
    for step in 1..5 {
        assert_eq!(passes_in(input, step), verdict, "{input:?} in pieces of {step}");
    }
    assert_eq!(passes_in(&format!("{GET}{input}"), usize::MAX), verdict, "pipelined: {input:?}");
    verdict
}

#[test]
fn plain_requests_pass() {
    assert!(passes(GET));
    assert!(passes(&GET.repeat(3)));
    assert!(passes(&format!("\r\n\r\n{GET}")));
    assert!(passes(&format!("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nb{GET}")));
    assert!(passes(&format!("POST / HTTP/1.1\r\ncontent-length:3 \r\n\r\n\0\0\0{GET}")));
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n";
    assert!(passes(&format!(
        "{chunked}3;a=b\r\na\nb\r\n0A ; q\r\n0123456789\r\n0\r\nT: x\r\n\r\n{GET}"
    )));
}

#[test]
fn every_line_end_is_crlf() {
    assert!(!passes("GET / HTTP/1.1\nHost: a\r\n\r\n"));
    assert!(!passes("GET / HTTP/1.1\r\nHost: a\n\r\n"));
    assert!(!passes("GET / HTTP/1.1\r\nHost: a\r\n\n"));
    assert!(!passes("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n"));
    assert!(!passes("GET / HTTP/1.1\r\nA: b\r\r\n\r\n"));
    assert!(!passes("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n"));
    assert!(!passes("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"));
}

#[test]
fn names_are_clean() {
    assert!(!passes("GET / HTTP/1.1\r\nA : b\r\n\r\n"));
    assert!(!passes("GET / HTTP/1.1\r\nA\t: b\r\n\r\n"));
    assert!(!passes("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"));
    assert!(!passes("GET / HTTP/1.1\r\nA: b\r\n\tc: d\r\n\r\n"));
    assert!(!passes("GET / HTTP/1.1\r\n: b\r\n\r\n"));
    assert!(!passes("GET / HTTP/1.1\r\nnonsense\r\n\r\n"));
}

#[test]
fn framing_is_said_once() {
    let post = |fields: &str| passes(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n"));
    assert!(post("Content-Length: 5"));
    assert!(!post("Content-Length: 5\r\nTransfer-Encoding: chunked"));
    assert!(!post("Transfer-Encoding: chunked\r\nContent-Length: 5"));
    assert!(!post("Content-Length: 5\r\nContent-Length: 6"));
    assert!(!post("Content-Length: 5\r\ncontent-length: 5"));
    for bad in ["5, 5", "+5", "-1", "0x5", "5_0", "", "5 5", "99999999999999999999"] {
        assert!(!post(&format!("Content-Length: {bad}")), "{bad}");
    }
    for bad in
        ["gzip, chunked", "chunked, chunked", "identity", "xchunked", "chunked;a", "\x0bchunked"]
    {
        assert!(!post(&format!("Transfer-Encoding: {bad}")), "{bad}");
    }
    assert!(!post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"));
    assert!(!passes("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
}

#[test]
fn chunks_are_clean() {
    let with = |body: &str| {
        passes(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}{GET}"))
    };
    assert!(with("1\r\na\r\n0\r\n\r\n"));
    for size in ["0x1", "+1", "-1", "1_0", " 1", "1 x", "", "g", "fffffffffffffffff"] {
        assert!(!with(&format!("{size}\r\na\r\n0\r\n\r\n")), "{size}");
    }
    assert!(!with("1\na\r\n0\r\n\r\n"));
    assert!(!with("1;a\rb\r\na\r\n0\r\n\r\n"));
    assert!(!with("1\r\na\r\n0\r\nA: b\nC: d\r\n\r\n"));
    assert!(!with("1\r\na\r\n0\r\nContent-Length: 3\r\n\r\n"));
}

#[test]
fn what_follows_an_upgrade_is_not_http() {
    assert!(passes("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\n\0\r"));
}

#[test]
fn it_knows_where_it_stands() {
    let mut scan = Scan::new(8192);
    assert!(!scan.in_head());
    scan.check(&mut b"P".to_vec());
    assert!(scan.in_head());
    scan.check(&mut b"OST / HTTP/1.1\r\nContent-Length: 2\r\n".to_vec());
    assert!(scan.in_head());
    scan.check(&mut b"\r\na".to_vec());
    assert!(!scan.in_head() && scan.in_body());
    scan.check(&mut b"a".to_vec());
    assert!(!scan.in_head() && !scan.in_body());
}

proptest! {
    /// How bytes are cut into reads changes nothing, and nothing panics.
    #[test]
    fn cuts_do_not_matter(
        parts in prop::collection::vec(prop::sample::select(vec![
            "GET / HTTP/1.1\r\n", "Host: a\r\n", "\r\n", "\n", "\r", "\0", " ", "A: b\r\n",
            "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n", "4\r\nabcd\r\n", "0\r\n",
            "abcd", "POST / HTTP/1.0\r\n", "Upgrade: x\r\n", "ff;x\r\n",
        ]), 0..12),
        step in 1usize..9,
    ) {
        let input = parts.concat();
        prop_assert_eq!(passes_in(&input, step), passes_in(&input, usize::MAX));
    }
}
