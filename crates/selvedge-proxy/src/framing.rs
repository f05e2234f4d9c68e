//! Refuses malformed or ambiguous HTTP/1 requests before anything parses them.
//!
//! Request smuggling lives in what one parser repairs and the next reads
//! otherwise. So the bytes of a client are checked here, strictly, on their way
//! to hyper: what is not plain RFC 9112 is never seen by the parser, let alone
//! by an upstream. Nothing is copied but a line that arrives in pieces.
//!
//! Refused: a bare CR or LF, NUL and other control characters, folded lines,
//! white space before a colon, a name that is no token, a missing or repeated
//! `Host` (RFC 9112 §3.2), a repeated or non-numeric `Content-Length`, any
//! `Transfer-Encoding` but `chunked` alone, both together, `Transfer-Encoding`
//! in HTTP/1.0 (§6.1), and chunk sizes or ends that are not exactly as §7.1
//! writes them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(test)]
mod tests;

/// Longest chunk-size line, its extensions included. They carry nothing that a
/// proxy forwards, so there is no reason to let them grow.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A line that ends with LF alone.
    #[error("line ends without CR")]
    BareLf,
    /// The first line is not `method SP target SP version`.
    #[error("malformed request line")]
    RequestLine,
    /// A header line that is folded, or has no name, or a name that is no token.
    #[error("malformed header name")]
    HeaderName,
    /// A control character in a header value.
    #[error("control character in a header value")]
    HeaderValue,
    /// HTTP/1.1 without exactly one `Host`.
    #[error("not exactly one host header")]
    Host,
    /// `Content-Length` is repeated or not a number.
    #[error("malformed or repeated content-length")]
    ContentLength,
    /// `Transfer-Encoding` is repeated, not `chunked`, or in HTTP/1.0.
    #[error("unsupported transfer-encoding")]
    TransferEncoding,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("both content-length and transfer-encoding")]
    Ambiguous,
    /// A chunk whose size line or end is not as it must be.
    #[error("malformed chunk")]
    Chunk,
    /// A trailer that would change framing or routing.
    #[error("forbidden trailer")]
    Trailer,
    /// A line longer than any head may be.
    #[error("line too long")]
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two requests; one empty line is allowed (RFC 9112 §2.2).
    Between {
        blank_seen: bool,
    },
    Head,
    Body {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    ChunkEnd,
    Trailers,
    /// An upgrade was asked for: whether the next byte is HTTP depends on the answer.
    AfterUpgrade,
    Tunnel,
}

/// What of a head decides its framing.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    http_10: bool,
    hosts: u8,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// Follows one connection's requests byte by byte.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    head: Head,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    line_bytes_max: usize,
    tunnel: Tunnel,
}

/// Tells the scanner of a connection that an upgrade was granted, so that what
/// follows is no longer HTTP.
#[derive(Clone, Debug, Default)]
pub struct Tunnel(Arc<AtomicBool>);

impl Tunnel {
    /// Call when the `101` (or the answer to a `CONNECT`) goes out.
    pub fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a piece of input was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// How many of its first bytes may be passed on.
    pub accepted: usize,
    /// Why the rest may not.
    pub violation: Option<Violation>,
    /// The violation is in a body whose head was passed on with an earlier piece.
    pub in_body: bool,
}

impl Scanned {
    const fn all(input: &[u8]) -> Self {
        Self { accepted: input.len(), violation: None, in_body: false }
    }
}

impl Scanner {
    /// A scanner for a new connection whose lines are at most `line_bytes_max` long.
    #[must_use]
    pub fn new(line_bytes_max: usize) -> Self {
        Self {
            state: State::Between { blank_seen: false },
            head: Head::default(),
            partial: Vec::new(),
            line_bytes_max,
            tunnel: Tunnel::default(),
        }
    }

    /// The switch by which the connection's owner says that an upgrade was granted.
    #[must_use]
    pub fn tunnel(&self) -> Tunnel {
        self.tunnel.clone()
    }

    /// Follows `input`, the next bytes of the connection.
    ///
    /// After a violation the connection is of no more use: nothing more may be scanned.
    pub fn scan(&mut self, input: &[u8]) -> Scanned {
        // Where the request that is being read began, if in this piece: then
        // none of a refused one is passed on.
        let mut start = None;
        let mut at = 0;
        while at < input.len() {
            match self.state {
                State::Tunnel => return Scanned::all(input),
                State::AfterUpgrade => {
                    self.state = if self.tunnel.is_open() {
                        State::Tunnel
                    } else {
                        State::Between { blank_seen: false }
                    };
                }
                State::Body { left } => {
                    let (taken, left) = take(left, input.len() - at);
                    at += taken;
                    self.state =
                        if left == 0 { self.after_request() } else { State::Body { left } };
                }
                State::ChunkData { left } => {
                    let (taken, left) = take(left, input.len() - at);
                    at += taken;
                    self.state =
                        if left == 0 { State::ChunkEnd } else { State::ChunkData { left } };
                }
                State::Between { .. }
                | State::Head
                | State::ChunkSize
                | State::ChunkEnd
                | State::Trailers => {
                    if matches!(self.state, State::Between { .. }) && self.partial.is_empty() {
                        start = Some(at);
                    }
                    let rest = &input[at..];
                    let checked = match memchr(b'\n', rest) {
                        Some(end) => {
                            at += end + 1;
                            self.line_ends(&rest[..end])
                        }
                        None => {
                            at = input.len();
                            self.line_goes_on(rest)
                        }
                    };
                    if let Err(violation) = checked {
                        let body = matches!(violation, Violation::Chunk | Violation::Trailer);
                        return Scanned {
                            accepted: start.unwrap_or(0),
                            violation: Some(violation),
                            in_body: body && start.is_none(),
                        };
                    }
                }
            }
        }
        Scanned::all(input)
    }

    fn line_goes_on(&mut self, piece: &[u8]) -> Result<(), Violation> {
        let bound = match self.state {
            State::ChunkSize => CHUNK_LINE_BYTES_MAX,
            State::ChunkEnd => 1,
            _ => self.line_bytes_max,
        };
        if self.partial.len() + piece.len() > bound {
            return Err(match self.state {
                State::ChunkSize | State::ChunkEnd => Violation::Chunk,
                _ => Violation::TooLong,
            });
        }
        self.partial.extend_from_slice(piece);
        Ok(())
    }

    fn line_ends(&mut self, last: &[u8]) -> Result<(), Violation> {
        if self.partial.is_empty() {
            return self.line(last);
        }
        self.line_goes_on(last)?;
        let whole = std::mem::take(&mut self.partial);
        let result = self.line(&whole);
        self.partial = whole;
        self.partial.clear();
        result
    }

    /// One line, without its LF.
    fn line(&mut self, line: &[u8]) -> Result<(), Violation> {
        let Some((b'\r', line)) = line.split_last() else {
            return Err(match self.state {
                State::ChunkSize | State::ChunkEnd => Violation::Chunk,
                _ => Violation::BareLf,
            });
        };
        self.state = match self.state {
            State::Between { blank_seen: false } if line.is_empty() => {
                State::Between { blank_seen: true }
            }
            State::Between { .. } => {
                self.head = request_line(line)?;
                State::Head
            }
            State::Head if line.is_empty() => self.head_ends()?,
            State::Head => {
                self.head.field(line)?;
                State::Head
            }
            State::ChunkSize => match chunk_size(line)? {
                0 => State::Trailers,
                left => State::ChunkData { left },
            },
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::ChunkEnd => return Err(Violation::Chunk),
            State::Trailers if line.is_empty() => self.after_request(),
            State::Trailers => {
                trailer(line)?;
                State::Trailers
            }
            state @ (State::Body { .. }
            | State::ChunkData { .. }
            | State::AfterUpgrade
            | State::Tunnel) => state,
        };
        Ok(())
    }

    fn head_ends(&self) -> Result<State, Violation> {
        let head = &self.head;
        if head.hosts > 1 || (head.hosts == 0 && !head.http_10) {
            return Err(Violation::Host);
        }
        Ok(match (head.chunked, head.length) {
            (true, Some(_)) => return Err(Violation::Ambiguous),
            (true, None) if head.http_10 => return Err(Violation::TransferEncoding),
            (true, None) => State::ChunkSize,
            (false, Some(left)) if left > 0 => State::Body { left },
            (false, _) => self.after_request(),
        })
    }

    const fn after_request(&self) -> State {
        if self.head.upgrade { State::AfterUpgrade } else { State::Between { blank_seen: false } }
    }
}

impl Head {
    fn field(&mut self, line: &[u8]) -> Result<(), Violation> {
        let (name, value) = field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts = self.hosts.saturating_add(1),
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Violation::ContentLength);
                }
                self.length = Some(decimal(value).ok_or(Violation::ContentLength)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Violation::TransferEncoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }
}

fn take(left: u64, available: usize) -> (usize, u64) {
    match usize::try_from(left) {
        Ok(left) if left <= available => (left, 0),
        _ => (available, left - available as u64),
    }
}

fn request_line(line: &[u8]) -> Result<Head, Violation> {
    let bad = Violation::RequestLine;
    let method_end = memchr(b' ', line).ok_or(bad)?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    let target_end = memchr(b' ', rest).ok_or(bad)?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    let http_10 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err(bad),
    };
    let visible = target.iter().fold(true, |all, byte| all & matches!(byte, 0x21..=0x7e));
    if !is_token(method) || target.is_empty() || !visible {
        return Err(bad);
    }
    Ok(Head { http_10, upgrade: method == b"CONNECT", ..Head::default() })
}

/// Name and value of a header line. A folded line begins with white space, which is no token.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let colon = memchr(b':', line).ok_or(Violation::HeaderName)?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if !is_token(name) {
        return Err(Violation::HeaderName);
    }
    if !is_clean(&line[colon + 1..]) {
        return Err(Violation::HeaderValue);
    }
    Ok((name, value))
}

fn trailer(line: &[u8]) -> Result<(), Violation> {
    let (name, _) = field(line).map_err(|_| Violation::Trailer)?;
    let forbidden: [&[u8]; 4] = [b"host", b"content-length", b"transfer-encoding", b"trailer"];
    if forbidden.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden)) {
        return Err(Violation::Trailer);
    }
    Ok(())
}

fn chunk_size(line: &[u8]) -> Result<u64, Violation> {
    let (digits, extension) = match memchr(b';', line) {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &[][..]),
    };
    let long = line.len() > CHUNK_LINE_BYTES_MAX || digits.len() > 16;
    if digits.is_empty() || long || !is_clean(extension) {
        return Err(Violation::Chunk);
    }
    digits.iter().try_fold(0u64, |size, &digit| {
        let digit = char::from(digit).to_digit(16).ok_or(Violation::Chunk)?;
        Ok((size << 4) | u64::from(digit))
    })
}

/// A number of at most 18 digits, without sign.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// RFC 9110 §5.6.2.
fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                )
        })
}

/// No control character but the tab. Without an early exit, so that the
/// compiler makes it wide.
fn is_clean(value: &[u8]) -> bool {
    !value.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f))
}

/// A client's connection whose requests are checked on their way in.
///
/// A refused request makes the next byte read a NUL, which no head may hold:
/// hyper answers `400` and closes. If its head was passed on before the
/// violation in its body arrived, the read fails with
/// [`io::ErrorKind::InvalidData`] and the [`Violation`] as its source.
#[derive(Debug)]
pub struct Guarded<T> {
    io: T,
    scanner: Scanner,
    refused: Option<Scanned>,
    poisoned: bool,
}

impl<T> Guarded<T> {
    /// Guards `io`, whose lines are at most `line_bytes_max` long.
    pub fn new(io: T, line_bytes_max: usize) -> Self {
        Self { io, scanner: Scanner::new(line_bytes_max), refused: None, poisoned: false }
    }

    /// The switch by which the connection's owner says that an upgrade was granted.
    pub fn tunnel(&self) -> Tunnel {
        self.scanner.tunnel()
    }

    /// What made this connection unusable, if something did.
    pub fn refused(&self) -> Option<Violation> {
        self.refused?.violation
    }

    /// Ends the input as the violation requires.
    fn end(&mut self, refused: Scanned, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        match refused.violation {
            Some(violation) if refused.in_body => {
                Err(io::Error::new(io::ErrorKind::InvalidData, violation))
            }
            _ if !self.poisoned && buf.remaining() > 0 => {
                self.poisoned = true;
                buf.put_slice(b"\0");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(refused) = this.refused {
            return Poll::Ready(this.end(refused, buf));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let scanned = this.scanner.scan(&buf.filled()[before..]);
        if scanned.violation.is_none() {
            return Poll::Ready(Ok(()));
        }
        this.refused = Some(scanned);
        buf.set_filled(before + scanned.accepted);
        Poll::Ready(if scanned.accepted == 0 { this.end(scanned, buf) } else { Ok(()) })
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
