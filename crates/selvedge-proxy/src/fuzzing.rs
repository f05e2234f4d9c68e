//! Doors for `fuzz/` into parsers that are nobody else's business.
//!
//! Each function states what must hold, and panics where it does not.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{config::Network, deadline, guard::Scan, head};

#[cfg(test)]
mod tests;

/// Feeds `input` to the guard of an HTTP/1 connection, in reads of `step` bytes.
///
/// What is let pass is unchanged, and how bytes were cut into reads does not matter.
///
/// # Panics
///
/// Where that does not hold.
pub fn framing(input: &[u8], step: usize) {
    let cut = scan(input, step.max(1));
    let whole = scan(input, input.len().max(1));
    assert_eq!(cut.1, whole.1, "cuts of {step} change the verdict on {input:?}");
    assert!(cut.1 || cut.0 == input, "{input:?} was let pass and changed");
}

/// What the guard hands on, and whether it refused.
fn scan(input: &[u8], step: usize) -> (Vec<u8>, bool) {
    let mut guard = Scan::new(8192);
    let mut out = Vec::new();
    for piece in input.chunks(step) {
        let mut piece = piece.to_vec();
        guard.check(&mut piece);
        out.extend(piece);
    }
    (out, guard.has_refused())
}

/// Runs every reader and editor of request headers over `lines` of `name: value`.
///
/// Nothing panics, and no hop-by-hop header survives.
///
/// # Panics
///
/// Where that does not hold.
pub fn headers(lines: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let ip = IpAddr::from(Ipv4Addr::new(10, 1, 2, 3));
    let trusted: Vec<Network> = Network::parse("10.0.0.0/8").into_iter().collect();
    let peer = head::Peer::new(ip, &trusted);
    let _ = deadline::remaining(&headers, || 1_700_000_000_000);
    let _ = (head::is_grpc(&headers), head::upgrade(&headers));
    let _ = head::client_ip(&headers, &peer, &trusted);
    let host = headers.get(http::header::HOST).cloned();
    head::join_cookies(&mut headers);
    head::strip_hop_by_hop(&mut headers);
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!headers.contains_key(name), "{name} survived");
    }
    head::forwarded(&mut headers, &peer, host.as_ref());
}
