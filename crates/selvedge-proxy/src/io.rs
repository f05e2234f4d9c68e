//! A socket as hyper wants it, and a socket that can be watched.
//!
//! [`Io`] puts [`Scan`] in front of hyper where requests come in. [`Watch`] is
//! a few words that the socket and the requests on it write and the worker's
//! sweep reads, so that slow and idle peers cost no timer per request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::guard::Scan;

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
}

/// A socket for hyper.
#[derive(Debug)]
pub(crate) struct Io {
    stream: TcpStream,
    /// Bytes read before it was known what the connection speaks.
    early: Vec<u8>,
    scan: Option<Box<Scan>>,
    watch: Option<Arc<Watch>>,
}

impl Io {
    /// A connection that we opened.
    pub(crate) const fn upstream(stream: TcpStream) -> Self {
        Self { stream, early: Vec::new(), scan: None, watch: None }
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
        let io = Self { stream, early, scan, watch: Some(watch) };
        io.note_read(true);
        io
    }

    /// The socket itself, and what was read ahead of its reader.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.early)
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
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note_write(&result);
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
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
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.note_write(&result);
        result
    }
}
