//! Continues or starts a trace, and gives every request an id.
//!
//! Each hop is a span: the trace id stays, the parent id becomes ours. A
//! `traceparent` that is not valid is ignored together with its `tracestate`,
//! and a new trace begins. Ids come from a generator that is not for secrets.
//!
//! Source: W3C Trace Context, levels 1 and 2.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use selvedge_patterns::random::Rng;

#[cfg(test)]
mod tests;

/// Where a request stands in its trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: u128,
    /// Our span in it.
    pub span: u64,
    /// The caller's span, if it had one.
    pub parent: Option<u64>,
    /// Bit 0: sampled. Bit 1: the id is random.
    pub flags: u8,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{:016x}-{:02x}", self.id, self.span, self.flags)
    }
}

impl Trace {
    /// Continues the trace of `header`, or starts one.
    pub(crate) fn begin(header: Option<&HeaderValue>, rng: &mut impl Rng) -> Self {
        let span = rng.next_u64().max(1);
        match header.and_then(|value| parse(value.as_bytes())) {
            Some((id, parent, flags)) => Self { id, span, parent: Some(parent), flags },
            None => {
                let id = (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())).max(1);
                Self { id, span, parent: None, flags: 0b10 }
            }
        }
    }
}

/// Trace id, parent id and flags of a valid `traceparent`.
fn parse(value: &[u8]) -> Option<(u128, u64, u8)> {
    let (version, rest) = (value.get(..2)?, value.get(55..)?);
    let known = version == b"00";
    if version == b"ff" || hex(version).is_none() || (known && !rest.is_empty()) {
        return None;
    }
    let dashes = value[2] == b'-' && value[35] == b'-' && value[52] == b'-';
    if !dashes || !(rest.is_empty() || rest[0] == b'-') {
        return None;
    }
    let (id, parent) = (hex(&value[3..35])?, hex(&value[36..52])? as u64);
    let flags = hex(&value[53..55])? as u8;
    (id != 0 && parent != 0).then_some((id, parent, if known { flags & 0b11 } else { flags & 1 }))
}

/// Lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |sum: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u128::from(value))
    })
}

/// Writes small header values into shared blocks, so that one costs no allocation.
#[derive(Debug, Default)]
pub(crate) struct Scribe(BytesMut);

const BLOCK: usize = 8192;

impl Scribe {
    fn finish(&mut self) -> Bytes {
        self.0.split().freeze()
    }

    fn room(&mut self, bytes: usize) {
        if self.0.capacity() < bytes {
            self.0 = BytesMut::with_capacity(BLOCK.max(bytes));
        }
    }

    /// `traceparent`, and the trace id alone: what a request id is made of.
    pub(crate) fn traceparent(&mut self, trace: &Trace) -> (HeaderValue, HeaderValue) {
        self.room(55);
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&mut text[3..35], trace.id);
        put_hex(&mut text[36..52], u128::from(trace.span));
        put_hex(&mut text[53..55], u128::from(trace.flags));
        self.0.put_slice(&text);
        let whole = self.finish();
        let id = value(whole.slice(3..35));
        (value(whole), id)
    }

    /// A number.
    pub(crate) fn number(&mut self, number: u64) -> HeaderValue {
        let mut digits = itoa::Buffer::new();
        self.text(digits.format(number).as_bytes())
    }

    /// Some visible ASCII; an empty value if it is anything else.
    pub(crate) fn text(&mut self, text: &[u8]) -> HeaderValue {
        self.joined(&[text])
    }

    /// The same, put together.
    pub(crate) fn joined(&mut self, parts: &[&[u8]]) -> HeaderValue {
        self.room(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.0.put_slice(part));
        value(self.finish())
    }
}

/// A value that no other message will have: HPACK must not spend its table on
/// it, which would push out what every message has.
fn value(bytes: Bytes) -> HeaderValue {
    let value = HeaderValue::from_maybe_shared(bytes);
    let mut value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Writes as many of the last digits of `number` as `out` has room for, which is even.
fn put_hex(out: &mut [u8], number: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = number.to_be_bytes();
    let skipped = bytes.len() - out.len() / 2;
    for (pair, byte) in out.chunks_exact_mut(2).zip(&bytes[skipped..]) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}
