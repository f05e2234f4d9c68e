//! Refuses HTTP/1 that two readers could understand differently.
//!
//! hyper repairs some of it: it takes a bare LF for a line end, and lets
//! `Transfer-Encoding` win over `Content-Length`. A proxy must not, because
//! the next hop may repair it otherwise (request smuggling). [`Scan`] looks at
//! the bytes on their way to hyper, follows the framing of messages, and puts
//! a NUL where it finds a violation, which makes hyper answer 400 and close.
//! It never changes a byte of a message that it lets pass.
//!
//! Source: RFC 9112 §2.2, §5, §6.3, §7.1.

use memchr::{memchr, memchr2};

#[cfg(test)]
mod tests;

/// Follows one connection's requests.
#[derive(Debug)]
pub(crate) struct Scan {
    state: State,
    /// The part of a line that came with earlier reads.
    partial: Vec<u8>,
    head: Head,
    head_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between messages, or in empty lines before a request line.
    Start,
    /// In header lines.
    Fields,
    /// So many bytes of a body are to come.
    Body(u64),
    /// A chunk-size line is next.
    ChunkSize,
    /// So many bytes of a chunk are to come, CRLF included.
    Chunk(u64),
    /// Trailer lines are next.
    Trailers,
    /// Bytes are no longer HTTP/1 messages: an upgrade was asked for, or the
    /// head is too long, which hyper refuses by itself.
    Opaque,
    /// A violation was found; the connection is about to be closed.
    Broken,
}

/// What was learnt from the current head.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    old: bool,
    upgrade: bool,
}

/// A line that must not be forwarded.
#[derive(Debug, PartialEq, Eq)]
struct Violation;

impl Scan {
    pub(crate) fn new(head_bytes_max: usize) -> Self {
        Self { state: State::Start, partial: Vec::new(), head: Head::default(), head_bytes_max }
    }

    /// Whether a head has begun and is not complete.
    pub(crate) fn in_head(&self) -> bool {
        self.state == State::Fields || (self.state == State::Start && !self.partial.is_empty())
    }

    /// Whether more of a body is to come.
    pub(crate) const fn in_body(&self) -> bool {
        matches!(self.state, State::Body(_) | State::ChunkSize | State::Chunk(_) | State::Trailers)
    }

    /// Whether a violation was found.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn has_refused(&self) -> bool {
        self.state == State::Broken
    }

    /// Looks at the bytes just read, in order.
    pub(crate) fn check(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Opaque | State::Broken => return,
                State::Body(left) => {
                    let taken = left.min((bytes.len() - at) as u64);
                    at += taken as usize;
                    self.state =
                        if taken == left { State::Start } else { State::Body(left - taken) };
                }
                State::Chunk(left) => {
                    let taken = left.min((bytes.len() - at) as u64);
                    at += taken as usize;
                    self.state =
                        if taken == left { State::ChunkSize } else { State::Chunk(left - taken) };
                }
                State::Start | State::Fields | State::ChunkSize | State::Trailers => {
                    let rest = &bytes[at..];
                    let Some(end) = memchr(b'\n', rest) else {
                        if memchr(0, rest).is_some() {
                            self.refuse(&mut bytes[at..]);
                        } else if self.partial.len() + rest.len() > self.head_bytes_max {
                            self.state = State::Opaque;
                        } else {
                            self.partial.extend_from_slice(rest);
                        }
                        return;
                    };
                    let line = &rest[..=end];
                    let verdict = if self.partial.is_empty() {
                        self.line(line)
                    } else {
                        let mut whole = std::mem::take(&mut self.partial);
                        whole.extend_from_slice(line);
                        let verdict = self.line(&whole);
                        whole.clear();
                        self.partial = whole;
                        verdict
                    };
                    if verdict.is_err() {
                        self.refuse(&mut bytes[at..]);
                        return;
                    }
                    at += end + 1;
                }
            }
        }
    }

    /// Makes hyper's parser fail at the first of `rest`.
    fn refuse(&mut self, rest: &mut [u8]) {
        rest[0] = 0;
        self.state = State::Broken;
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let line = line.strip_suffix(b"\r\n").ok_or(Violation)?;
        if memchr2(b'\r', 0, line).is_some() {
            return Err(Violation);
        }
        match self.state {
            State::Start if line.is_empty() => {}
            State::Start => {
                self.head = Head { old: line.ends_with(b" HTTP/1.0"), ..Head::default() };
                self.head.upgrade = line.starts_with(b"CONNECT ");
                self.state = State::Fields;
            }
            State::Fields if line.is_empty() => self.state = self.head.framing()?,
            State::Fields => self.head.field(line)?,
            State::ChunkSize => {
                let size = chunk_size(line).ok_or(Violation)?;
                self.state = if size == 0 { State::Trailers } else { State::Chunk(size + 2) };
            }
            State::Trailers if line.is_empty() => self.state = State::Start,
            State::Trailers => {
                let mut seen = Head::default();
                seen.field(line)?;
                if seen.chunked || seen.length.is_some() {
                    return Err(Violation);
                }
            }
            State::Body(_) | State::Chunk(_) | State::Opaque | State::Broken => {}
        }
        Ok(())
    }
}

impl Head {
    /// Looks at one header line without its CRLF.
    fn field(&mut self, line: &[u8]) -> Result<(), Violation> {
        let colon = memchr(b':', line).ok_or(Violation)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // A first byte that is a space continues the line before (obs-fold);
        // one before the colon hides the name from some readers.
        if name.is_empty() || memchr2(b' ', b'\t', name).is_some() {
            return Err(Violation);
        }
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value.trim_ascii()).ok_or(Violation)?;
                if self.length.replace(length).is_some() {
                    return Err(Violation);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation);
                }
                self.chunked = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            _ => {}
        }
        Ok(())
    }

    /// What follows the head.
    fn framing(&self) -> Result<State, Violation> {
        if self.chunked && (self.old || self.length.is_some()) {
            return Err(Violation);
        }
        Ok(match self.length {
            _ if self.upgrade => State::Opaque,
            _ if self.chunked => State::ChunkSize,
            None | Some(0) => State::Start,
            Some(length) => State::Body(length),
        })
    }
}

/// Digits only: no sign, no list, no overflow.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Hexadecimal digits, then nothing or extensions.
pub(crate) fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    let extension = rest.trim_ascii_start();
    if digits.is_empty() || digits.len() > 15 || !(rest.is_empty() || extension.starts_with(b";")) {
        return None;
    }
    let value = |byte: &u8| (*byte as char).to_digit(16).map(u64::from);
    digits.iter().try_fold(0u64, |sum, digit| Some(sum * 16 + value(digit)?))
}
