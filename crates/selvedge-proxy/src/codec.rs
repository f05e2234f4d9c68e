//! HTTP/1.1 as a client writes and reads it: bytes in, bytes out, no socket.
//!
//! Requests are written from the header map that the request came with, and
//! framed by what their body is, never by what a header says about it.
//! Responses are read strictly: what two readers could understand differently
//! is an error, not repaired. Everything that is kept has a bound.
//!
//! Source: RFC 9112 §4 to §7 and §9.3.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use memchr::memchr;

use crate::guard::{chunk_size, decimal};
use crate::head;

#[cfg(test)]
mod tests;

/// Fields in a head, or in trailers.
const FIELDS_MAX: usize = 100;

/// Interim responses before the one that counts.
const INTERIM_MAX: u32 = 16;

/// Bytes of a line with a chunk's size and extensions.
const CHUNK_LINE_MAX: usize = 1024;

/// What is wrong with a message.
pub(crate) type Wrong = &'static str;

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is none, and nothing is said about it.
    None,
    /// So many bytes.
    Exact(u64),
    /// Unknown until its end.
    Chunked,
}

/// The fields that an attempt adds to the request, or puts in place of its own.
#[derive(Debug, Default)]
pub(crate) struct Own {
    fields: [Option<(HeaderName, HeaderValue)>; Self::MAX],
    count: usize,
}

impl Own {
    /// Its number, three ways to tell a deadline, two fields of a switch.
    const MAX: usize = 6;

    /// Adds one; beyond [`Self::MAX`] there is none.
    pub(crate) fn push(&mut self, name: HeaderName, value: HeaderValue) {
        if let Some(place) = self.fields.get_mut(self.count) {
            *place = Some((name, value));
            self.count += 1;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.fields[..self.count].iter().flatten()
    }
}

/// Writes a request's head. `own` goes in place of fields of the same names.
pub(crate) fn write_head(
    out: &mut Vec<u8>,
    method: &Method,
    path: &str,
    host: &HeaderValue,
    headers: &HeaderMap,
    own: &Own,
    length: Length,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        let framing = *name == HOST || *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
        if !framing && own.iter().all(|(ours, _)| ours != name) {
            write_field(out, name, value);
        }
    }
    for (name, value) in own.iter() {
        write_field(out, name, value);
    }
    match length {
        Length::None => {}
        Length::Exact(bytes) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(bytes).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes what stands before the bytes of a chunk; CRLF follows them.
pub(crate) fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    use std::io::Write;
    // Writing to memory cannot fail.
    let _ = write!(out, "{size:x}\r\n");
}

/// Writes the end of a chunked body.
pub(crate) fn write_last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if may_trail(name) {
            write_field(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a field may come after the body: not if it would have to be known
/// before (RFC 9110 §6.5.1).
fn may_trail(name: &HeaderName) -> bool {
    use http::header::{
        AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, EXPECT,
        MAX_FORWARDS, SET_COOKIE, TE, UPGRADE,
    };
    ![
        &AUTHORIZATION,
        &CACHE_CONTROL,
        &CONNECTION,
        &CONTENT_ENCODING,
        &CONTENT_LENGTH,
        &CONTENT_RANGE,
        &CONTENT_TYPE,
        &EXPECT,
        &HOST,
        &MAX_FORWARDS,
        &SET_COOKIE,
        &TE,
        &TRAILER,
        &TRANSFER_ENCODING,
        &UPGRADE,
    ]
    .contains(&name)
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) response: Response<()>,
    pub(crate) decoder: Decoder,
    /// The connection may be used again after this response.
    pub(crate) keep: bool,
}

/// Finds the head of a response among bytes that come in pieces.
#[derive(Debug)]
pub(crate) struct HeadReader {
    bytes_max: usize,
    /// So much of the buffer was looked through for the end.
    searched: usize,
    interim: u32,
}

impl HeadReader {
    /// Reads heads of up to `bytes_max` bytes.
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, searched: 0, interim: 0 }
    }

    /// The final head, once all of it is in `buffer`, from which it is taken.
    /// Interim responses are skipped. `to_head`: the request was a `HEAD`.
    pub(crate) fn next(
        &mut self,
        buffer: &mut BytesMut,
        to_head: bool,
    ) -> Result<Option<Head>, Wrong> {
        loop {
            let Some(end) = find_end(buffer, self.searched) else {
                self.searched = buffer.len();
                let room = buffer.len() < self.bytes_max;
                return if room { Ok(None) } else { Err("the head is too long") };
            };
            self.searched = 0;
            if end > self.bytes_max {
                return Err("the head is too long");
            }
            let head = parse(&buffer.split_to(end).freeze(), to_head, self.bytes_max)?;
            let status = head.response.status();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(head));
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err("there is no end of interim responses");
            }
        }
    }
}

/// Where the first empty line ends. Up to `searched` there is none.
fn find_end(buffer: &[u8], searched: usize) -> Option<usize> {
    let mut at = searched.saturating_sub(3);
    while let Some(found) = memchr(b'\n', buffer.get(at..)?) {
        at += found + 1;
        match buffer.get(at..) {
            Some([b'\n', ..]) => return Some(at + 1),
            Some([b'\r', b'\n', ..]) => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// Reads one whole head.
fn parse(bytes: &Bytes, to_head: bool, bytes_max: usize) -> Result<Head, Wrong> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let complete = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields)
        .map_err(explain)?;
    if complete != httparse::Status::Complete(bytes.len()) {
        return Err("the head does not end where it seems to");
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("the status is not one")?;
    let new = parsed.version == Some(1);
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = if new { Version::HTTP_11 } else { Version::HTTP_10 };
    if let Some(reason) = parsed.reason
        && status.canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let headers = response.headers_mut();
    // A few are added on the way on.
    headers.reserve(parsed.headers.len() + 4);
    let (mut length, mut chunked, mut close, mut alive) = (None, false, false, false);
    for field in &*parsed.headers {
        let (name, value) = read_field(bytes, field)?;
        if name == CONTENT_LENGTH {
            let bytes = decimal(field.value).ok_or("Content-Length is not a number")?;
            match length.replace(bytes) {
                Some(before) if before == bytes => continue,
                Some(_) => return Err("it states its length twice"),
                None => {}
            }
        } else if name == TRANSFER_ENCODING {
            if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err("Transfer-Encoding is not `chunked`");
            }
            chunked = true;
        } else if name == CONNECTION {
            close |= head::lists(&value, "close");
            alive |= head::lists(&value, "keep-alive");
            // All that it nearly always says, and meant for nobody but us.
            let value = value.as_bytes();
            if value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close") {
                continue;
            }
        }
        headers.append(name, value);
    }
    if chunked && length.is_some() {
        return Err("it states its length twice");
    }
    if chunked && !new {
        return Err("HTTP/1.0 knows no chunks");
    }
    let bodiless = to_head
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let state = match length {
        _ if bodiless => State::Done,
        _ if chunked => State::ChunkSize,
        Some(0) => State::Done,
        Some(length) => State::Length(length),
        None => State::Close,
    };
    let keep = !close && (new || alive) && state != State::Close;
    Ok(Head { response, decoder: Decoder { state, trailers_max: bytes_max }, keep })
}

/// A field whose value shares the memory of `bytes`.
fn read_field(
    bytes: &Bytes,
    field: &httparse::Header<'_>,
) -> Result<(HeaderName, HeaderValue), Wrong> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "a name is not one")?;
    let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
        .map_err(|_| "a value has a control character")?;
    Ok((name, value))
}

const fn explain(error: httparse::Error) -> Wrong {
    match error {
        httparse::Error::HeaderName => "a field name is not one",
        httparse::Error::HeaderValue => "a field value is not one",
        httparse::Error::NewLine => "a line ends wrongly",
        httparse::Error::Status => "the status is not one",
        httparse::Error::Token => "the status line is not one",
        httparse::Error::TooManyHeaders => "there are too many fields",
        httparse::Error::Version => "the version is not HTTP/1",
    }
}

/// Takes a response's body out of the bytes that carry it.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    trailers_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are to come.
    Length(u64),
    /// All that comes.
    Close,
    /// A chunk-size line is next.
    ChunkSize,
    /// So many bytes of a chunk are to come, then CRLF.
    Chunk(u64),
    /// CRLF is next.
    ChunkEnd,
    /// Trailers or the last empty line are next.
    Trailers,
    Done,
}

/// The next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// Nothing until more bytes come.
    More,
}

impl Decoder {
    /// Of a body that has ended.
    pub(crate) const fn done() -> Self {
        Self { state: State::Done, trailers_max: 0 }
    }

    /// Takes the next piece from `buffer`.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Piece, Wrong> {
        loop {
            match self.state {
                State::Done => return Ok(Piece::End),
                State::Length(_) | State::Close | State::Chunk(_) if buffer.is_empty() => {
                    return Ok(Piece::More);
                }
                State::Length(left) => {
                    let data = take(buffer, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Piece::Data(data));
                }
                State::Close => return Ok(Piece::Data(buffer.split().freeze())),
                State::Chunk(left) => {
                    let data = take(buffer, left);
                    let left = left - data.len() as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Piece::Data(data));
                }
                State::ChunkEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        self.state = State::ChunkSize;
                    }
                    None if matches!(buffer[..], [] | [b'\r']) => return Ok(Piece::More),
                    _ => return Err("a chunk is longer than it says"),
                },
                State::ChunkSize => {
                    let Some(end) = memchr(b'\n', &buffer[..buffer.len().min(CHUNK_LINE_MAX)])
                    else {
                        let room = buffer.len() < CHUNK_LINE_MAX;
                        return if room {
                            Ok(Piece::More)
                        } else {
                            Err("a chunk's line is too long")
                        };
                    };
                    let line = buffer[..end].strip_suffix(b"\r").filter(|l| !l.contains(&b'\r'));
                    let size = line.and_then(chunk_size).ok_or("a chunk's size is not one")?;
                    buffer.advance(end + 1);
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::Trailers => return self.trailers(buffer),
            }
        }
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Piece, Wrong> {
        if buffer.starts_with(b"\r\n") {
            buffer.advance(2);
            self.state = State::Done;
            return Ok(Piece::End);
        }
        let Some(end) = find_end(buffer, 0) else {
            let room = buffer.len() < self.trailers_max;
            return if room { Ok(Piece::More) } else { Err("the trailers are too long") };
        };
        let bytes = buffer.split_to(end).freeze();
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let parsed = httparse::parse_headers(&bytes, &mut fields).map_err(explain)?;
        let httparse::Status::Complete((read, fields)) = parsed else {
            return Err("the trailers do not end where they seem to");
        };
        if read != bytes.len() {
            return Err("the trailers do not end where they seem to");
        }
        let mut trailers = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let (name, value) = read_field(&bytes, field)?;
            if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
                return Err("the trailers speak of the body's length");
            }
            trailers.append(name, value);
        }
        self.state = State::Done;
        Ok(Piece::Trailers(trailers))
    }

    /// Whether all of the body was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the connection's end would be the body's end, not a break.
    pub(crate) fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::Close | State::Done)
    }

    /// Bytes to come, if they are known.
    pub(crate) const fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }
}

fn take(buffer: &mut BytesMut, most: u64) -> Bytes {
    let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
    buffer.split_to(most).freeze()
}
