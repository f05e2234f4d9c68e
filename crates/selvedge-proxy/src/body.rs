//! Bodies on their way through: streamed, never collected.
//!
//! A request body that may have to be sent again is remembered as it passes,
//! up to a bound; beyond it the request goes on and can no longer be repeated.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

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
    /// It broke off.
    fn failed(&mut self, cut: Cut);
    /// `bytes` were passed on; `whole` says whether that was all.
    fn end(&mut self, bytes: u64, whole: bool);
}

/// Why a response's body broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The upstream ended it.
    Upstream,
    /// The upstream was silent for too long.
    Silent,
    /// The call's time was over.
    Late,
}

impl Cut {
    const fn says(self) -> &'static str {
        match self {
            Self::Upstream => "the upstream broke off",
            Self::Silent => "the upstream was silent for too long",
            Self::Late => "the call took too long",
        }
    }

    /// A stable word for the access log.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Upstream => "cut_short",
            Self::Silent => "silent",
            Self::Late => "deadline_exceeded",
        }
    }
}

/// A response's body.
#[derive(Debug)]
pub(crate) struct Body {
    kind: Kind,
    /// What was taken in by [`Body::look_ahead`] and not passed on yet.
    ahead: Ahead,
    /// An error that waits until what came before it has been written.
    broken: Option<BoxError>,
    /// Something was passed on since the last wait.
    unwritten: bool,
    bytes: u64,
    tail: Option<Box<dyn Tail>>,
    patience: Option<Patience>,
}

/// The first pieces of a body. The second one is rare, so it is boxed.
#[derive(Debug, Default)]
struct Ahead {
    first: Option<Bytes>,
    second: Option<Box<Frame<Bytes>>>,
}

impl Ahead {
    const fn is_empty(&self) -> bool {
        self.first.is_none() && self.second.is_none()
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) if self.is_empty() => self.first = Some(data),
            Ok(data) => self.second = Some(Box::new(Frame::data(data))),
            Err(frame) => self.second = Some(Box::new(frame)),
        }
    }

    fn take(&mut self) -> Option<Frame<Bytes>> {
        self.first.take().map(Frame::data).or_else(|| self.second.take().map(|frame| *frame))
    }

    /// Trailers are among them, for which a length leaves no place.
    fn has_trailers(&self) -> bool {
        self.second.as_ref().is_some_and(|frame| frame.is_trailers())
    }

    fn bytes(&self) -> u64 {
        let second = self.second.as_ref().and_then(|frame| frame.data_ref());
        [self.first.as_ref(), second].into_iter().flatten().map(|data| data.len() as u64).sum()
    }
}

/// How long a body may take. The timer is set only when there is something to
/// wait for, and moved only when it fires.
#[derive(Debug)]
struct Patience {
    /// Between two pieces.
    silent: Option<Duration>,
    /// For all of it.
    until: Option<Instant>,
    moved: bool,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Patience {
    fn next(&self) -> Instant {
        let silent = self.silent.map(|silent| Instant::now() + silent);
        silent.into_iter().chain(self.until).min().unwrap_or_else(Instant::now)
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        let mut timer =
            self.timer.take().unwrap_or_else(|| Box::pin(tokio::time::sleep_until(self.next())));
        loop {
            if timer.as_mut().poll(cx).is_pending() {
                self.timer = Some(timer);
                return Poll::Pending;
            }
            if self.is_over() {
                return Poll::Ready(Cut::Late);
            }
            if self.silent.is_some() && !std::mem::replace(&mut self.moved, false) {
                return Poll::Ready(Cut::Silent);
            }
            timer.as_mut().reset(self.next());
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

impl Kind {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

impl Body {
    const fn new(kind: Kind) -> Self {
        let ahead = Ahead { first: None, second: None };
        Self { kind, ahead, broken: None, unwritten: true, bytes: 0, tail: None, patience: None }
    }

    pub(crate) const fn empty() -> Self {
        Self::new(Kind::Empty)
    }

    pub(crate) const fn full(bytes: Bytes) -> Self {
        Self::new(Kind::Full(bytes))
    }

    pub(crate) const fn http1(body: H1Body) -> Self {
        Self::new(Kind::Http1(body))
    }

    pub(crate) const fn http2(body: H2Body) -> Self {
        Self::new(Kind::Http2(body))
    }

    /// Takes in what is there already: two pieces at most, what came with the
    /// head and what follows it. So an upstream that broke off at once is found
    /// out while there can still be another attempt or an error with a code.
    pub(crate) fn look_ahead(mut self) -> Result<Self, BoxError> {
        // Whoever gets the body asks it again, with a waker that wakes.
        let cx = &mut Context::from_waker(Waker::noop());
        while self.ahead.second.is_none() && !self.kind.is_end_stream() {
            match self.kind.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.ahead.push(frame),
                Poll::Ready(Some(Err(error))) => return Err(error),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Ok(self)
    }

    /// The HTTP/1.1 connection that this body came on.
    pub(crate) fn into_conn(mut self) -> Option<Box<crate::http1::Conn>> {
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Http1(body) => body.into_conn(),
            Kind::Empty | Kind::Full(_) | Kind::Http2(_) => None,
        }
    }

    /// Has `tail` told how it ends.
    pub(crate) fn tell(&mut self, tail: Box<dyn Tail>) {
        self.tail = Some(tail);
    }

    /// Makes it fail when nothing comes for `silent`, and at `until`.
    pub(crate) fn bound(&mut self, silent: Option<Duration>, until: Option<Instant>) {
        // What is there already takes no time.
        if !self.kind.is_end_stream() && (silent.is_some() || until.is_some()) {
            self.patience = Some(Patience { silent, until, moved: false, timer: None });
        }
    }

    fn end(&mut self, whole: bool) {
        if let Some(mut tail) = self.tail.take() {
            tail.end(self.bytes, whole);
        }
    }
}

impl Body {
    /// Ends with `error`. A server that gets an error drops what it has not
    /// written, the head included, so it gets a turn to write first.
    fn fail(&mut self, cut: Cut, error: BoxError, cx: &Context<'_>) -> Polled {
        if let Some(tail) = &mut self.tail {
            tail.failed(cut);
        }
        self.end(false);
        if std::mem::replace(&mut self.unwritten, false) {
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(error)))
    }

    fn pass(&mut self, frame: &Frame<Bytes>) {
        self.unwritten = true;
        if let Some(patience) = &mut self.patience {
            patience.moved = true;
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
        // A body that always has more never waits for the timer.
        if this.patience.as_ref().is_some_and(Patience::is_over) {
            this.kind = Kind::Empty;
            this.patience = None;
            this.ahead = Ahead::default();
            return this.fail(Cut::Late, Cut::Late.says().into(), cx);
        }
        let polled = match (this.ahead.take(), this.broken.take()) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Some(error)) => return Poll::Ready(Some(Err(error))),
            (None, None) => this.kind.poll_frame(cx),
        };
        match polled {
            Poll::Ready(None) => this.end(true),
            Poll::Ready(Some(Err(error))) => return this.fail(Cut::Upstream, error, cx),
            Poll::Ready(Some(Ok(ref frame))) => this.pass(frame),
            Poll::Pending => {
                this.unwritten = false;
                if let Some(patience) = &mut this.patience
                    && let Poll::Ready(cut) = patience.poll(cx)
                {
                    this.kind = Kind::Empty;
                    this.patience = None;
                    return this.fail(cut, cut.says().into(), cx);
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.broken.is_none() && self.kind.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ahead.has_trailers() {
            return SizeHint::default();
        }
        let mut hint = self.kind.size_hint();
        let ahead = self.ahead.bytes();
        if ahead > 0 {
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + ahead);
            }
            hint.set_lower(hint.lower() + ahead);
        }
        hint
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
