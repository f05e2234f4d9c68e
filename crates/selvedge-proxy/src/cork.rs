//! A socket whose writes go out together.
//!
//! `h2` flushes after every piece of a body, so a connection that carries many
//! small answers makes a system call for each. A [`Cork`] takes the bytes and
//! says that they are written; a task of its own, the [`Flusher`], which gets
//! its turn after all that was ready before it, writes them in one go. What
//! waits is bounded.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::io::Io;

#[cfg(test)]
mod tests;

/// With so many bytes waiting, no more are taken.
const WAITING_MAX: usize = 64 * 1024;

/// A buffer that is kept while nothing waits.
const KEPT_MAX: usize = 32 * 1024;

/// The socket as hyper has it.
#[derive(Debug)]
pub(crate) struct Cork(Rc<RefCell<Inner>>);

/// Writes what the [`Cork`] took, until that is dropped.
#[derive(Debug)]
pub(crate) struct Flusher(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    io: Io,
    waiting: Vec<u8>,
    /// So many of them are written.
    at: usize,
    /// The flusher, when it has nothing to do.
    flusher: Option<Waker>,
    /// Who waits for room, or for all to be written.
    writer: Option<Waker>,
    /// Why no more can be written.
    broken: Option<io::ErrorKind>,
    dropped: bool,
}

impl Cork {
    /// The flusher must be run as a task of its own.
    pub(crate) fn new(io: Io) -> (Self, Flusher) {
        let inner = Rc::new(RefCell::new(Inner {
            io,
            waiting: Vec::new(),
            at: 0,
            flusher: None,
            writer: None,
            broken: None,
            dropped: false,
        }));
        (Self(inner.clone()), Flusher(inner))
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        let mut inner = self.0.borrow_mut();
        inner.dropped = true;
        inner.flusher.take().into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.waiting.len() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting[self.at..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += written;
        }
        self.at = 0;
        self.waiting.clear();
        if self.waiting.capacity() > KEPT_MAX {
            self.waiting = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, cx: &Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(kind) = self.broken {
            return Poll::Ready(Err(kind.into()));
        }
        let waiting = self.waiting.len() - self.at;
        if waiting >= WAITING_MAX {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.at >= WAITING_MAX {
            self.waiting.drain(..self.at);
            self.at = 0;
        }
        let mut room = WAITING_MAX - waiting;
        let mut taken = 0;
        for slice in slices {
            let piece = &slice[..slice.len().min(room)];
            self.waiting.extend_from_slice(piece);
            room -= piece.len();
            taken += piece.len();
        }
        self.flusher.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(taken))
    }
}

impl Future for Flusher {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.0.borrow_mut();
        let out = inner.write_out(cx);
        if let Poll::Ready(Err(error)) = &out {
            inner.broken = Some(error.kind());
        }
        if out.is_ready() {
            inner.writer.take().into_iter().for_each(Waker::wake);
        }
        if inner.dropped || inner.broken.is_some() {
            return Poll::Ready(());
        }
        // While the socket has no room, the socket wakes it; then the cork must.
        inner.flusher = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Read for Cork {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, cursor)
    }
}

impl Write for Cork {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().take(cx, &[io::IoSlice::new(bytes)])
    }

    /// Says that all is written: the flusher sees to it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.broken.is_none() && inner.at < inner.waiting.len() {
            inner.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().take(cx, slices)
    }
}
