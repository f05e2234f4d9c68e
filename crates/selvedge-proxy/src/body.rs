//! Bodies on their way through: streamed, never collected.
//!
//! A request body that may have to be sent again is remembered as it passes,
//! up to a bound; beyond it the request goes on and can no longer be repeated.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use crate::pool::{H1Body, H2Body};

#[cfg(test)]
mod tests;

/// Anything that ends a body early.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Told once how a response body ended, or that nobody wanted the rest.
pub(crate) trait Tail: fmt::Debug {
    /// A piece passes.
    fn data(&mut self, data: &Bytes);
    /// The trailers pass.
    fn trailers(&mut self, trailers: &HeaderMap);
    /// The upstream broke off.
    fn failed(&mut self);
    /// `bytes` were passed on; `whole` says whether that was all.
    fn end(&mut self, bytes: u64, whole: bool);
}

/// A response's body.
#[derive(Debug)]
pub(crate) struct Body {
    kind: Kind,
    bytes: u64,
    tail: Option<Box<dyn Tail>>,
    silence: Option<Silence>,
}

/// Ends a body in which nothing comes for too long. The timer is set only when
/// there is something to wait for, and moved only when it fires.
#[derive(Debug)]
struct Silence {
    most: Duration,
    moved: bool,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Silence {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let most = self.most;
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(most)));
            std::task::ready!(timer.as_mut().poll(cx));
            if !std::mem::replace(&mut self.moved, false) {
                return Poll::Ready(());
            }
            timer.as_mut().reset(tokio::time::Instant::now() + most);
        }
    }
}

#[derive(Debug)]
enum Kind {
    Empty,
    Full(Bytes),
    Http1(H1Body),
    Http2(H2Body),
}

impl Body {
    pub(crate) const fn empty() -> Self {
        Self { kind: Kind::Empty, bytes: 0, tail: None, silence: None }
    }

    pub(crate) const fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Full(bytes), bytes: 0, tail: None, silence: None }
    }

    pub(crate) const fn http1(body: H1Body) -> Self {
        Self { kind: Kind::Http1(body), bytes: 0, tail: None, silence: None }
    }

    pub(crate) const fn http2(body: H2Body) -> Self {
        Self { kind: Kind::Http2(body), bytes: 0, tail: None, silence: None }
    }

    /// The HTTP/1.1 connection that this body came on.
    pub(crate) fn into_conn(mut self) -> Option<Box<crate::pool::H1>> {
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Http1(body) => body.into_conn(),
            Kind::Empty | Kind::Full(_) | Kind::Http2(_) => None,
        }
    }

    /// The same body, whose end `tail` is told.
    pub(crate) fn with_tail(mut self, tail: Box<dyn Tail>) -> Self {
        self.tail = Some(tail);
        self
    }

    /// The same body, which fails when nothing comes for so long.
    pub(crate) fn never_silent_for(mut self, most: Duration) -> Self {
        self.silence = Some(Silence { most, moved: false, timer: None });
        self
    }

    fn end(&mut self, whole: bool) {
        if let Some(mut tail) = self.tail.take() {
            tail.end(self.bytes, whole);
        }
    }
}

impl Body {
    fn pass(&mut self, frame: &Frame<Bytes>) {
        if let Some(silence) = &mut self.silence {
            silence.moved = true;
        }
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len() as u64;
            if let Some(tail) = &mut self.tail {
                tail.data(data);
            }
        } else if let (Some(trailers), Some(tail)) = (frame.trailers_ref(), &mut self.tail) {
            tail.trailers(trailers);
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Http1(body) => Pin::new(body).poll_frame(cx),
            Kind::Http2(body) => Pin::new(body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(None) => this.end(true),
            Poll::Ready(Some(Err(_))) => {
                if let Some(tail) = &mut this.tail {
                    tail.failed();
                }
                this.end(false);
            }
            Poll::Ready(Some(Ok(frame))) => this.pass(frame),
            Poll::Pending => {
                if let Some(silence) = &mut this.silence
                    && silence.poll(cx).is_ready()
                {
                    if let Some(tail) = &mut this.tail {
                        tail.failed();
                    }
                    this.end(false);
                    this.kind = Kind::Empty;
                    return Poll::Ready(Some(Err("the upstream was silent for too long".into())));
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Http1(body) => body.is_end_stream(),
            Kind::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Http1(body) => body.size_hint(),
            Kind::Http2(body) => body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // A server that knows the length does not ask for the end of the stream.
        let whole = self.is_end_stream();
        self.end(whole);
    }
}

/// A request's body as it goes upstream.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// Passed through once.
    Stream(Incoming),
    /// Passed through and remembered.
    Replay(Reader),
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|f| f.map_err(Into::into)))
            }
            Self::Replay(reader) => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(body) => body.is_end_stream(),
            Self::Replay(reader) => reader.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(body) => body.size_hint(),
            Self::Replay(reader) => reader.memory.borrow().size,
        }
    }
}

/// Where a body that may be sent again is kept.
#[derive(Clone, Debug)]
pub(crate) struct Replay(Rc<RefCell<Memory<Incoming>>>);

/// The most that is remembered of a body.
pub(crate) const REPLAY_BYTES_MAX: usize = 64 * 1024;

impl Replay {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Rc::new(RefCell::new(Memory::new(body))))
    }

    /// The body from its beginning.
    pub(crate) fn reader(&self) -> RequestBody {
        RequestBody::Replay(Reader { memory: self.0.clone(), at: 0 })
    }

    /// Whether all that has passed so far is remembered.
    pub(crate) fn replayable(&self) -> bool {
        !self.0.borrow().forgotten
    }
}

#[derive(Debug)]
struct Memory<B> {
    source: Option<B>,
    size: SizeHint,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    kept: usize,
    forgotten: bool,
    broken: bool,
}

impl<B: HttpBody<Data = Bytes> + Unpin> Memory<B>
where
    B::Error: Into<BoxError>,
{
    fn new(source: B) -> Self {
        Self {
            size: source.size_hint(),
            source: Some(source),
            chunks: Vec::new(),
            trailers: None,
            kept: 0,
            forgotten: false,
            broken: false,
        }
    }

    /// The piece at `at`, which the reader then moves past.
    fn poll(&mut self, at: &mut usize, cx: &mut Context<'_>) -> Polled {
        if let Some(chunk) = self.chunks.get(*at) {
            *at += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if self.broken {
            return Poll::Ready(Some(Err("the client's body ended early".into())));
        }
        let Some(source) = &mut self.source else {
            let trailers = self.trailers.clone().filter(|_| *at == self.chunks.len());
            *at = at.saturating_add(1);
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        };
        if self.forgotten && *at != usize::MAX {
            return Poll::Ready(Some(Err("the body is no longer remembered".into())));
        }
        let frame = match std::task::ready!(Pin::new(source).poll_frame(cx)) {
            None => {
                self.source = None;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                self.broken = true;
                self.source = None;
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            self.remember(data.clone(), at);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.source = None;
            *at = at.saturating_add(1);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn remember(&mut self, data: Bytes, at: &mut usize) {
        if self.forgotten {
            return;
        }
        self.kept += data.len();
        if self.kept > REPLAY_BYTES_MAX {
            self.forgotten = true;
            self.chunks = Vec::new();
            // Only the reader that got this far may go on.
            *at = usize::MAX;
        } else {
            self.chunks.push(data);
            *at += 1;
        }
    }
}

/// One pass over a remembered body.
#[derive(Debug)]
pub(crate) struct Reader {
    memory: Rc<RefCell<Memory<Incoming>>>,
    at: usize,
}

impl Reader {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        self.memory.borrow_mut().poll(&mut self.at, cx)
    }

    fn is_end(&self) -> bool {
        let memory = self.memory.borrow();
        let none_left = self.at >= memory.chunks.len();
        match &memory.source {
            None => none_left && memory.trailers.is_none(),
            Some(source) => none_left && source.is_end_stream(),
        }
    }
}
