//! A socket as hyper wants it, and a socket that can be watched.
//!
//! [`Io`] puts [`Scan`] in front of hyper where requests come in. [`Watch`] is
//! a few words that the socket and the requests on it write and the worker's
//! sweep reads, so that slow and idle peers cost no timer per request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};

use http::StatusCode;
use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::guard::Scan;
use crate::respond::{Kind, Refusal};

/// What a connection is doing, as far as its peer is concerned.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// A head has begun and is not complete.
    pub(crate) in_head: AtomicBool,
    /// We wait for more of a body.
    pub(crate) body_wanted: AtomicBool,
    /// We wait for room to write.
    pub(crate) write_blocked: AtomicBool,
    /// Counts reads and writes that moved something.
    pub(crate) moved: AtomicU32,
    /// Requests being served.
    pub(crate) busy: AtomicU32,
    /// Requests served so far.
    pub(crate) served: AtomicU32,
    /// Answers begun so far, and of these, not yet at their end.
    answers: AtomicU32,
    answering: AtomicU32,
    /// The status that hyper answered by itself, after which the connection ends.
    refused: AtomicU16,
}

impl Watch {
    /// A request has come, so what hyper writes may be its answer.
    pub(crate) fn answer_begins(&self) {
        self.answers.store(self.answers.load(Relaxed).wrapping_add(1), Relaxed);
        self.answering.store(self.answering.load(Relaxed) + 1, Relaxed);
    }

    /// All of an answer has been handed to hyper.
    pub(crate) fn answer_ends(&self) {
        self.answering.store(self.answering.load(Relaxed) - 1, Relaxed);
    }

    /// The status with which a head was refused that never became a request.
    pub(crate) fn refused(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.refused.load(Relaxed)).ok()
    }
}

/// A socket for hyper.
#[derive(Debug)]
pub(crate) struct Io {
    stream: TcpStream,
    /// Bytes read before it was known what the connection speaks.
    early: Vec<u8>,
    scan: Option<Box<Scan>>,
    watch: Option<Arc<Watch>>,
    /// [`Watch::answers`] when all that hyper had to write had been written.
    flushed: u32,
    /// What goes out in place of hyper's own answer, and how much of it has gone.
    words: Option<Box<(Vec<u8>, usize)>>,
}

impl Io {
    /// A connection that we opened.
    pub(crate) const fn upstream(stream: TcpStream) -> Self {
        Self { stream, early: Vec::new(), scan: None, watch: None, flushed: 0, words: None }
    }

    /// A connection that we accepted, of which `early` was already read.
    pub(crate) fn downstream(
        stream: TcpStream,
        mut early: Vec<u8>,
        mut scan: Option<Box<Scan>>,
        watch: Arc<Watch>,
    ) -> Self {
        if let Some(scan) = &mut scan {
            scan.check(&mut early);
        }
        let io = Self { stream, early, scan, watch: Some(watch), flushed: 0, words: None };
        io.note_read(true);
        io
    }

    /// The socket itself, and what was read ahead of its reader.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.early)
    }

    /// Notes that nothing of ours is left to be written.
    fn note_flush(&mut self) {
        let Some(watch) = &self.watch else { return };
        if watch.answering.load(Relaxed) == 0 {
            self.flushed = watch.answers.load(Relaxed);
        }
    }

    /// What hyper writes between answers is its own refusal of a head, without
    /// a word about what was wrong. Ours goes out instead of it.
    fn refusal(&mut self, theirs: &[u8]) -> Option<&mut (Vec<u8>, usize)> {
        if self.words.is_none() {
            let watch = self.watch.as_ref().filter(|_| self.scan.is_some())?;
            let ours = watch.answers.load(Relaxed) != self.flushed;
            if ours || watch.answering.load(Relaxed) > 0 {
                return None;
            }
            let status = theirs.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
            let refusal = match status {
                b"400" => Refusal::new(Kind::Malformed, "it is not valid HTTP/1.1"),
                b"414" | b"431" => {
                    Refusal::new(Kind::HeadTooLarge, "it has too many bytes or fields")
                }
                _ => return None,
            };
            watch.refused.store(refusal.kind.status().as_u16(), Relaxed);
            self.words = Some(Box::new((refusal.last_words(), 0)));
        }
        self.words.as_deref_mut()
    }

    /// Writes what is left of the refusal; when all has gone, `theirs` counts as written.
    fn poll_refuse(
        &mut self,
        cx: &mut Context<'_>,
        theirs: &[u8],
    ) -> Option<Poll<io::Result<usize>>> {
        self.refusal(theirs)?;
        let (words, gone) = self.words.as_deref_mut()?;
        while *gone < words.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &words[*gone..]) {
                Poll::Ready(Ok(0)) => {
                    return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(more)) => *gone += more,
                other => return Some(other),
            }
        }
        Some(Poll::Ready(Ok(theirs.len())))
    }

    fn note_read(&self, moved: bool) {
        let Some(watch) = &self.watch else { return };
        if moved {
            watch.moved.store(watch.moved.load(Relaxed).wrapping_add(1), Relaxed);
        }
        if let Some(scan) = &self.scan {
            watch.in_head.store(scan.in_head(), Relaxed);
            watch.body_wanted.store(!moved && scan.in_body(), Relaxed);
        }
    }

    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        let Some(watch) = &self.watch else { return };
        match result {
            Poll::Ready(_) => {
                watch.moved.store(watch.moved.load(Relaxed).wrapping_add(1), Relaxed);
                watch.write_blocked.store(false, Relaxed);
            }
            Poll::Pending => watch.write_blocked.store(true, Relaxed),
        }
    }
}

impl hyper::rt::Read for Io {
    #[expect(
        unsafe_code,
        reason = "hyper hands out uninitialised memory; reading into it in place saves a copy of every byte"
    )]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let taken = this.early.len().min(cursor.remaining());
            cursor.put_slice(&this.early[..taken]);
            this.early.drain(..taken);
            if this.early.is_empty() {
                this.early = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        // SAFETY: the slice is only handed to `ReadBuf::uninit`, which never
        // de-initialises it.
        let mut buffer = ReadBuf::uninit(unsafe { cursor.as_mut() });
        let result = Pin::new(&mut this.stream).poll_read(cx, &mut buffer);
        let read = buffer.filled().len();
        if let Some(scan) = &mut this.scan {
            scan.check(buffer.filled_mut());
        }
        // SAFETY: `ReadBuf` guarantees that its first `filled` bytes are initialised.
        unsafe { cursor.advance(read) };
        this.note_read(read > 0);
        result
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = match this.poll_refuse(cx, bytes) {
            Some(refused) => refused,
            None => Pin::new(&mut this.stream).poll_write(cx, bytes),
        };
        this.note_write(&result);
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.note_flush();
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let first = slices.first().map(|slice| &**slice).unwrap_or_default();
        let result = match this.poll_refuse(cx, first) {
            Some(refused) => refused,
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, slices),
        };
        this.note_write(&result);
        result
    }
}
