//! What becomes of header fields on their way through.
//!
//! Fields that concern one connection are taken off in both directions; what
//! says where a request came from is believed only from trusted peers and
//! replaced otherwise. Edits are made in place.
//!
//! Source: RFC 9110 §7.6, RFC 7239.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, COOKIE, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::config::{HeaderEdits, Network};

#[cfg(test)]
mod tests;

pub(crate) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(crate) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(crate) const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(crate) const ATTEMPT: HeaderName = HeaderName::from_static("x-selvedge-attempt");
pub(crate) const OPERATOR: HeaderName = HeaderName::from_static("x-selvedge-operator");
pub(crate) const OPERATOR_TRACE: HeaderName = HeaderName::from_static("x-selvedge-trace");
pub(crate) const STALE: HeaderName = HeaderName::from_static("x-selvedge-stale");

/// Whether the caller speaks gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';' | b' '))
    })
}

/// The protocol a request asks to switch to, other than HTTP/2.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted = headers.get(UPGRADE)?;
    let listed = headers.get_all(CONNECTION).iter().any(|value| lists(value, "upgrade"));
    (listed && !wanted.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| wanted.clone())
}

pub(crate) fn lists(value: &HeaderValue, token: &str) -> bool {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// Which of the fields that concern us a head has: found in one walk, so that
/// the many that are not there cost no look-up each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present(u32);

impl Present {
    pub(crate) const CONNECTION: Self = Self(1);
    pub(crate) const TE: Self = Self(1 << 1);
    pub(crate) const UPGRADE: Self = Self(1 << 2);
    pub(crate) const OTHER_HOP: Self = Self(1 << 3);
    /// All that may not cross a hop.
    pub(crate) const HOP: Self = Self(0b1111);
    pub(crate) const EXPECT: Self = Self(1 << 4);
    pub(crate) const OPERATOR: Self = Self(1 << 5);
    pub(crate) const COOKIE: Self = Self(1 << 6);
    pub(crate) const CONTENT_TYPE: Self = Self(1 << 7);
    pub(crate) const CONTENT_LENGTH: Self = Self(1 << 8);
    pub(crate) const IDEMPOTENCY_KEY: Self = Self(1 << 9);
    pub(crate) const ATTEMPT: Self = Self(1 << 10);
    /// Any way to tell a deadline.
    pub(crate) const DEADLINE: Self = Self(1 << 11 | 1 << 12);
    pub(crate) const ENVOY_TIMEOUT: Self = Self(1 << 12);
    pub(crate) const TRACEPARENT: Self = Self(1 << 13);
    pub(crate) const TRACESTATE: Self = Self(1 << 14);
    pub(crate) const X_REQUEST_ID: Self = Self(1 << 15);
    pub(crate) const FORWARDED: Self = Self(1 << 16);

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self(0), |found, name| Self(found.0 | Self::bits(name.as_str())))
    }

    /// Whether there is at least one of `any`.
    pub(crate) const fn has(self, any: Self) -> bool {
        self.0 & any.0 != 0
    }

    fn bits(name: &str) -> u32 {
        // The length decides most of the time, without a look at the letters.
        let found = match (name.len(), name) {
            (2, "te") => Self::TE,
            (6, "expect") => Self::EXPECT,
            (6, "cookie") => Self::COOKIE,
            (7, "upgrade") => Self::UPGRADE,
            (9, "forwarded") => Self::FORWARDED,
            (10, "connection") => Self::CONNECTION,
            (10, "keep-alive") => Self::OTHER_HOP,
            (10, "tracestate") => Self::TRACESTATE,
            (11, "traceparent") => Self::TRACEPARENT,
            (12, "content-type") => Self::CONTENT_TYPE,
            (12, "x-request-id") => Self::X_REQUEST_ID,
            (12, "grpc-timeout") => Self(1 << 11),
            (14, "content-length") => Self::CONTENT_LENGTH,
            (14, "http2-settings") => Self::OTHER_HOP,
            (15, "idempotency-key") => Self::IDEMPOTENCY_KEY,
            (16, "proxy-connection") => Self::OTHER_HOP,
            (17, "transfer-encoding") => Self::OTHER_HOP,
            (18, "proxy-authenticate") => Self::OTHER_HOP,
            (18, "x-request-deadline") => Self(1 << 11),
            (18, "x-selvedge-attempt") => Self::ATTEMPT,
            (19, "proxy-authorization") => Self::OTHER_HOP,
            (19, "x-selvedge-operator") => Self::OPERATOR,
            (30, "x-envoy-expected-rq-timeout-ms") => Self::ENVOY_TIMEOUT,
            _ => Self(0),
        };
        found.0
    }
}

/// Takes off what concerns only the connection it came on. `TE` keeps nothing
/// but `trailers`, the one thing that may cross a hop.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let present = Present::of(headers);
    if !present.has(Present::HOP) {
        return;
    }
    if let http::header::Entry::Occupied(named) = headers.entry(CONNECTION) {
        let (_, named) = named.remove_entry_mult();
        let named: Vec<HeaderValue> = named.collect();
        named.iter().for_each(|named| strip_named(headers, named));
    }
    if present.has(Present::TE) {
        let trailers = headers.get_all(TE).iter().any(|value| lists(value, "trailers"));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    if present.has(Present::UPGRADE) {
        headers.remove(UPGRADE);
    }
    if present.has(Present::OTHER_HOP) {
        for name in [
            &TRANSFER_ENCODING,
            &KEEP_ALIVE,
            &PROXY_CONNECTION,
            &HTTP2_SETTINGS,
            &PROXY_AUTHENTICATE,
            &PROXY_AUTHORIZATION,
        ] {
            headers.remove(name);
        }
    }
}

/// Takes off the fields that `Connection` names, except those whose loss would
/// change what the message means.
fn strip_named(headers: &mut HeaderMap, named: &HeaderValue) {
    for part in named.as_bytes().split(|byte| *byte == b',') {
        if let Ok(name) = HeaderName::from_bytes(part.trim_ascii())
            && !matches!(
                name.as_str(),
                "host"
                    | "content-length"
                    | "content-type"
                    | "cookie"
                    | "te"
                    | "trailer"
                    | "authorization"
            )
        {
            headers.remove(name);
        }
    }
}

/// Joins the pieces that HTTP/2 may split `Cookie` into (RFC 9113 §8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(COOKIE).iter();
    if pieces.next().is_none() || pieces.next().is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(|v| v.as_bytes()).collect();
    if let Ok(whole) = HeaderValue::from_maybe_shared(Bytes::from(pieces.join(&b"; "[..]))) {
        headers.insert(COOKIE, whole);
    }
}

/// What a connection knows about its peer, written once for all its requests.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    pub(crate) text: HeaderValue,
    pub(crate) trusted: bool,
}

impl Peer {
    pub(crate) fn new(ip: IpAddr, trusted: &[Network]) -> Self {
        let ip = ip.to_canonical();
        let text = HeaderValue::from_str(&ip.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { ip, text, trusted: trusted.iter().any(|network| network.contains(ip)) }
    }
}

/// Says where the request came from. From a peer that is not trusted, all that
/// it says itself is dropped first.
pub(crate) fn forwarded(headers: &mut HeaderMap, peer: &Peer, host: Option<&HeaderValue>) {
    if !peer.trusted {
        headers.insert(X_FORWARDED_FOR, peer.text.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        match host {
            Some(host) => headers.insert(X_FORWARDED_HOST, host.clone()),
            None => headers.remove(X_FORWARDED_HOST),
        };
        headers.remove(FORWARDED);
        return;
    }
    append(headers, X_FORWARDED_FOR, peer.text.as_bytes());
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Some(host) = host
        && !headers.contains_key(X_FORWARDED_HOST)
    {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
    // Who is asked in the old way answers in the old way: `Forwarded` is only continued.
    if headers.contains_key(FORWARDED) {
        let element = match peer.ip {
            IpAddr::V4(ip) => format!("for={ip};proto=http"),
            IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto=http"),
        };
        append(headers, FORWARDED, element.as_bytes());
    }
}

/// The address of the client as far as proxies are trusted: the last one in
/// `X-Forwarded-For` that is not a trusted proxy.
pub(crate) fn client_ip(headers: &HeaderMap, peer: &Peer, trusted: &[Network]) -> IpAddr {
    if !peer.trusted {
        return peer.ip;
    }
    let mut client = peer.ip;
    let all: Vec<&HeaderValue> = headers.get_all(X_FORWARDED_FOR).iter().collect();
    for value in all.into_iter().rev() {
        for part in value.as_bytes().rsplit(|byte| *byte == b',') {
            let text = std::str::from_utf8(part.trim_ascii()).unwrap_or_default();
            let Ok(ip) = text.parse::<IpAddr>() else { return client };
            client = ip.to_canonical();
            if !trusted.iter().any(|network| network.contains(client)) {
                return client;
            }
        }
    }
    client
}

/// Adds an element to a list field, on one line.
pub(crate) fn append(headers: &mut HeaderMap, name: HeaderName, element: &[u8]) {
    let mut whole = Vec::new();
    for value in headers.get_all(&name) {
        whole.extend_from_slice(value.as_bytes());
        whole.extend_from_slice(b", ");
    }
    whole.extend_from_slice(element);
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(whole)) {
        headers.insert(name, value);
    }
}

/// Adds us to `Via`.
pub(crate) fn via(headers: &mut HeaderMap, ours: &HeaderValue) {
    match headers.entry(VIA) {
        http::header::Entry::Vacant(place) => drop(place.insert(ours.clone())),
        http::header::Entry::Occupied(_) => append(headers, VIA, ours.as_bytes()),
    }
}

/// Makes the edits that a route asks for.
pub(crate) fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name, value.clone());
    }
}

/// Whether an id from outside may go into logs and headers as it is.
pub(crate) fn is_sane_id(value: &HeaderValue) -> bool {
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// Why a request whose syntax is right must still be refused.
pub(crate) fn objection(
    method: &Method,
    path: &str,
    authority: Option<&str>,
    headers: &HeaderMap,
    http11: bool,
) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Some("there is more than one Host field");
    }
    if http11 && host.is_none() && authority.is_none() {
        return Some("the Host field is missing");
    }
    if let Some(host) = host
        && host
            .as_bytes()
            .iter()
            .any(|b| !b.is_ascii_graphic() || matches!(b, b'/' | b'@' | b'?' | b'#' | b','))
    {
        return Some("the Host field is not a host");
    }
    if let (false, Some(host), Some(authority)) = (http11, host, authority)
        && !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())
    {
        return Some("Host and :authority differ");
    }
    if *method != Method::OPTIONS && !path.starts_with('/') {
        return Some("the target is not a path");
    }
    if has_dot_segment(path) {
        return Some("the path has a `.` or `..` segment");
    }
    None
}

/// Whether the path means something else to whoever resolves dot segments,
/// written plainly or percent-encoded.
fn has_dot_segment(path: &str) -> bool {
    if memchr::memchr2(b'.', b'%', path.as_bytes()).is_none() {
        return false;
    }
    path.split(['/', '\\']).any(|segment| {
        let bytes = segment.as_bytes();
        let (mut at, mut dots) = (0, 0);
        while at < bytes.len() {
            at += match bytes[at] {
                b'.' => 1,
                b'%' if bytes.get(at + 1) == Some(&b'2')
                    && matches!(bytes.get(at + 2), Some(b'e' | b'E')) =>
                {
                    3
                }
                _ => return false,
            };
            dots += 1;
        }
        matches!(dots, 1 | 2)
    })
}
