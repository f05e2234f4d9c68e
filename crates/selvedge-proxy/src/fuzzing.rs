//! Doors for `fuzz/` into parsers that are nobody else's business.
//!
//! Each function states what must hold, and panics where it does not.

use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    codec::{Head, HeadReader, Piece, Wrong},
    config::Network,
    deadline,
    guard::Scan,
    head,
};

#[cfg(test)]
mod tests;

/// The longest head that [`read`] takes.
pub(crate) const HEAD_MAX: usize = 8192;

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

/// Reads the response of an upstream, in reads of `step` bytes.
///
/// How bytes were cut into reads does not matter, nothing is read that was not
/// sent, and a head that says its length twice is not believed.
///
/// # Panics
///
/// Where that does not hold.
pub fn response(input: &[u8], step: usize, to_head: bool) {
    let whole = read([input], to_head);
    // Which of several errors is met first may differ; that there is one may not.
    let cut = read(input.chunks(step.max(1)), to_head).map_err(drop);
    assert_eq!(cut, whole.clone().map_err(drop), "cuts of {step} change what {input:?} says");
    let Ok(Some(read)) = whole else { return };
    assert!(read.body.len() + read.rest.len() <= input.len(), "more was read than sent: {input:?}");
    let lengths = read.fields.iter().filter(|(name, _)| name == "content-length");
    let values: std::collections::BTreeSet<_> = lengths.map(|(_, value)| value).collect();
    assert!(values.len() <= 1, "two lengths were let pass: {input:?}");
}

/// A response as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: usize,
    pub(crate) keep: bool,
    /// All of the body was there.
    pub(crate) whole: bool,
    /// Bytes that do not belong to it.
    pub(crate) rest: Vec<u8>,
}

/// Reads `pieces` one after the other, as far as they go.
pub(crate) fn read<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    to_head: bool,
) -> Result<Option<Read>, Wrong> {
    let mut buffer = BytesMut::new();
    let mut heads = HeadReader::new(HEAD_MAX);
    let mut head: Option<Head> = None;
    let (mut body, mut trailers) = (Vec::new(), 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if head.is_none() {
            head = heads.next(&mut buffer, to_head)?;
        }
        let Some(head) = &mut head else { continue };
        loop {
            match head.decoder.next(&mut buffer)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::Trailers(fields) => trailers = fields.len(),
                Piece::End | Piece::More => break,
            }
        }
    }
    Ok(head.map(|head| Read {
        status: head.response.status().as_u16(),
        fields: head
            .response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
            .collect(),
        body,
        trailers,
        keep: head.keep,
        whole: head.decoder.is_done(),
        rest: buffer.to_vec(),
    }))
}
