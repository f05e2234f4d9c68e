//! One HTTP/1.1 connection to an upstream.
//!
//! It has no task of its own: whoever waits for the response drives it, first
//! [`Conn::poll_head`], then [`Conn::poll_body`]. The request goes on being
//! sent all the while, so an answer that comes early is passed on early. What
//! is buffered is bounded: nothing more is taken from either side before what
//! was taken has been passed on.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body as _, Frame};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::body::{BoxError, RequestBody};
use crate::codec::{self, Decoder, HeadReader, Length, Piece};
use crate::pool::{Failed, Open};

/// Up to here a piece of a body is copied behind what is to be written before it.
const COPY_MAX: usize = 4 * 1024;

/// With so much to be written, no more of the body is asked for.
const WRITE_MAX: usize = 16 * 1024;

/// Room for one read; more where reads fill it.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 64 * 1024;

/// A request on its way out.
#[derive(Debug)]
pub(crate) struct Sending {
    /// To be written from `at` on.
    bytes: Vec<u8>,
    at: usize,
    /// To be written after `bytes`.
    large: Bytes,
    body: RequestBody,
    length: Length,
    ended: bool,
    /// Something of it left for the peer.
    begun: bool,
    to_head: bool,
    to_switch: bool,
}

/// Why a request was not sent to its end.
#[derive(Clone, Copy, Debug)]
enum Unsent {
    /// The connection broke.
    Broken,
    /// The client's body failed, or was not as long as it said.
    Body,
}

impl Sending {
    /// A request whose head is written in `head`.
    pub(crate) const fn new(
        head: Vec<u8>,
        body: RequestBody,
        length: Length,
        to_head: bool,
        to_switch: bool,
    ) -> Self {
        let ended = matches!(body, RequestBody::Empty);
        let large = Bytes::new();
        Self { bytes: head, at: 0, large, body, length, ended, begun: false, to_head, to_switch }
    }

    /// Nothing to be sent.
    const fn nothing() -> Self {
        Self::new(Vec::new(), RequestBody::Empty, Length::None, false, false)
    }

    fn is_over(&self) -> bool {
        self.ended && self.at == self.bytes.len() && self.large.is_empty()
    }

    /// Forgets what was not sent.
    fn give_up(&mut self) {
        self.bytes.clear();
        self.at = 0;
        self.large = Bytes::new();
        self.body = RequestBody::Empty;
        self.ended = true;
    }

    /// Sends as much as can be now.
    fn poll(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        loop {
            let more = self.fill(cx)?;
            std::task::ready!(self.write(stream, cx))?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if more.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Takes from the body what there is and what there is room for.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Unsent> {
        while !self.ended && self.large.is_empty() && self.bytes.len() - self.at < WRITE_MAX {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Some(Err(_))) => return Err(Unsent::Body),
                Poll::Ready(Some(Ok(frame))) => self.take(frame)?,
                Poll::Ready(None) => self.end(None)?,
            }
        }
        Ok(Poll::Ready(()))
    }

    fn take(&mut self, frame: Frame<Bytes>) -> Result<(), Unsent> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.into_trailers().ok().as_ref()),
        };
        if data.is_empty() {
            return Ok(());
        }
        let chunked = self.length == Length::Chunked;
        match &mut self.length {
            Length::None => return Err(Unsent::Body),
            Length::Exact(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Unsent::Body)?;
            }
            Length::Chunked => codec::write_chunk_size(&mut self.bytes, data.len()),
        }
        if data.len() <= COPY_MAX {
            self.bytes.extend_from_slice(&data);
            if chunked {
                self.bytes.extend_from_slice(b"\r\n");
            }
        } else {
            self.large = data;
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&http::HeaderMap>) -> Result<(), Unsent> {
        match self.length {
            Length::None | Length::Exact(0) => {}
            Length::Exact(_) => return Err(Unsent::Body),
            Length::Chunked => codec::write_last_chunk(&mut self.bytes, trailers),
        }
        self.ended = true;
        Ok(())
    }

    fn write(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        while self.at < self.bytes.len() || !self.large.is_empty() {
            let rest = &self.bytes[self.at..];
            let written = if self.large.is_empty() {
                stream.try_write(rest)
            } else {
                let slices = [io::IoSlice::new(rest), io::IoSlice::new(&self.large)];
                stream.try_write_vectored(&slices)
            };
            match written {
                Ok(0) => return Poll::Ready(Err(Unsent::Broken)),
                Ok(written) => {
                    self.begun = true;
                    let of_bytes = written.min(rest.len());
                    self.at += of_bytes;
                    if !self.large.is_empty() {
                        bytes::Buf::advance(&mut self.large, written - of_bytes);
                        if self.large.is_empty() && self.length == Length::Chunked {
                            self.bytes.extend_from_slice(b"\r\n");
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if std::task::ready!(stream.poll_write_ready(cx)).is_err() {
                        return Poll::Ready(Err(Unsent::Broken));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Poll::Ready(Err(Unsent::Broken)),
            }
        }
        self.bytes.clear();
        self.at = 0;
        Poll::Ready(Ok(()))
    }
}

/// Why a response's body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// It is not valid protocol.
    #[error("the upstream's body is malformed: {0}")]
    Malformed(&'static str),
    /// It ended early.
    #[error("the upstream closed before the end of its body")]
    Closed,
    /// The connection failed.
    #[error("the connection to the upstream failed")]
    Failed(#[source] io::Error),
    /// The client's body, which was still being sent, failed.
    #[error("the client's body ended early or was malformed")]
    Request,
}

/// Why no head of a response came, and the request if none of it ever left.
pub(crate) type Lost = (Failed, Option<Box<Sending>>);

/// A connection, and the exchange that is on it.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    read: BytesMut,
    /// Room for the next read.
    room: usize,
    head_bytes_max: usize,
    heads: HeadReader,
    decoder: Decoder,
    sending: Sending,
    keep: bool,
    open: Open,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream, open: Open, head_bytes_max: usize) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            room: READ_MIN,
            head_bytes_max,
            heads: HeadReader::new(head_bytes_max),
            decoder: Decoder::done(),
            sending: Sending::nothing(),
            keep: true,
            open,
        }
    }

    /// Begins an exchange.
    pub(crate) fn begin(&mut self, sending: Sending) {
        self.sending = sending;
        self.heads = HeadReader::new(self.head_bytes_max);
    }

    /// Whether the peer has neither closed it nor said anything unasked, as
    /// far as is known without asking the system.
    pub(crate) fn alive(&self) -> bool {
        let mut unasked = [0];
        let read = self.stream.try_read(&mut unasked);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends the request and waits for the head of the response.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Lost>> {
        let mut broken = false;
        loop {
            if !self.sending.is_over() {
                match self.sending.poll(&self.stream, cx) {
                    Poll::Ready(Err(Unsent::Body)) => {
                        return Poll::Ready(Err((Failed::RequestBody, None)));
                    }
                    Poll::Ready(Err(Unsent::Broken)) if !self.sending.begun => {
                        let back = std::mem::replace(&mut self.sending, Sending::nothing());
                        return Poll::Ready(Err((Failed::Reset, Some(Box::new(back)))));
                    }
                    // It may have answered before it stopped listening.
                    Poll::Ready(Err(Unsent::Broken)) => {
                        self.sending.give_up();
                        broken = true;
                    }
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                }
            }
            if !self.read.is_empty() {
                match self.heads.next(&mut self.read, self.sending.to_head) {
                    Ok(None) => {}
                    Ok(Some(head)) => {
                        self.decoder = head.decoder;
                        self.keep = head.keep && !broken;
                        return Poll::Ready(self.check(head.response));
                    }
                    Err(wrong) => {
                        return Poll::Ready(Err((Failed::Malformed(wrong.to_owned()), None)));
                    }
                }
            }
            match std::task::ready!(self.poll_read(cx)) {
                Ok(read) if read > 0 => {}
                Ok(_) | Err(_) => return Poll::Ready(Err((Failed::Reset, None))),
            }
        }
    }

    fn check(&self, response: Response<()>) -> Result<Response<()>, Lost> {
        let switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
        if switched && !(self.sending.to_switch && self.sending.is_over()) {
            return Err((Failed::Malformed("it switched protocols unasked".to_owned()), None));
        }
        Ok(response)
    }

    /// The next of the response's body.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if !self.sending.is_over()
                && let Poll::Ready(Err(unsent)) = self.sending.poll(&self.stream, cx)
            {
                self.sending.give_up();
                self.keep = false;
                if matches!(unsent, Unsent::Body) {
                    return Poll::Ready(Some(Err(Broken::Request.into())));
                }
            }
            match self.decoder.next(&mut self.read) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(fields)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(wrong) => return Poll::Ready(Some(Err(Broken::Malformed(wrong).into()))),
            }
            match std::task::ready!(self.poll_read(cx)) {
                Ok(0) if self.decoder.ends_with_connection() => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(Broken::Closed.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(Broken::Failed(error).into()))),
            }
        }
    }

    /// The whole body, if it came with the head and nothing is left to be done.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        let left = self.decoder.left()?;
        if left != self.read.len() as u64 || !self.sending.is_over() {
            return None;
        }
        match self.decoder.next(&mut self.read) {
            Ok(Piece::Data(data)) => Some(data),
            _ => Some(Bytes::new()),
        }
    }

    /// Bytes of the body that are still to come, if they are known.
    pub(crate) const fn left(&self) -> Option<u64> {
        self.decoder.left()
    }

    /// Whether another request may be sent on it. What is already there of the
    /// body's end is taken first.
    pub(crate) fn is_free(&mut self) -> bool {
        let ended = self.decoder.is_done()
            || (!self.read.is_empty()
                && self.decoder.left().is_none()
                && matches!(self.decoder.next(&mut self.read), Ok(Piece::End)));
        ended && self.keep && self.sending.is_over() && self.read.is_empty()
    }

    /// The socket, what was read ahead, and its count as open.
    pub(crate) fn into_parts(self) -> (TcpStream, BytesMut, Open) {
        (self.stream, self.read, self.open)
    }

    /// What the request was written into, to be used again.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sending.bytes)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < self.room / 4 {
            self.read.reserve(self.room);
        }
        let room = self.read.capacity() - self.read.len();
        let read = std::task::ready!(pin!(self.stream.read_buf(&mut self.read)).poll(cx))?;
        if read == room {
            self.room = (self.room * 2).min(READ_MAX);
        }
        Poll::Ready(Ok(read))
    }
}
