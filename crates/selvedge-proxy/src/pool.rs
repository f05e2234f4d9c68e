//! Upstream connections: each worker keeps its own.
//!
//! An HTTP/1.1 connection has no task of its own: whoever waits for the
//! response drives it, first as an [`Exchange`], then as an [`H1Body`], which
//! puts it back when the body has ended. That saves two wake-ups a request. An
//! HTTP/2 connection is shared by many requests and is driven by a task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use selvedge_patterns::time::{Duration, Instant};
use tokio::net::TcpStream;

use crate::body::{Body, BoxError, RequestBody};
use crate::config::{self, Upstream};
use crate::cork::Cork;
use crate::http1::{self, Conn, Sending};
use crate::io::Io;
use crate::worker::LocalExecutor;

/// One address of a service, as all workers share it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// `host:port` as configured.
    pub(crate) authority: HeaderValue,
    /// Connections open, by all workers.
    pub(crate) open: AtomicUsize,
    /// Of these, idle ones.
    pub(crate) idle: AtomicUsize,
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddr, authority: HeaderValue) -> Self {
        Self { address, authority, open: AtomicUsize::new(0), idle: AtomicUsize::new(0) }
    }
}

/// Counts one open connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct Open(Arc<Endpoint>);

impl Open {
    fn take(endpoint: &Arc<Endpoint>, most: usize) -> Option<Self> {
        let taken =
            endpoint.open.fetch_update(Relaxed, Relaxed, |open| (open < most).then_some(open + 1));
        taken.is_ok().then(|| Self(endpoint.clone()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Why an attempt brought no response head.
#[derive(Debug)]
pub(crate) enum Failed {
    /// No connection could be made.
    Connect(std::io::Error),
    /// No connection was made in time.
    ConnectTimeout,
    /// Too many connections are open; nothing was tried.
    ConnectionsFull,
    /// The peer refused the request unprocessed.
    Refused,
    /// The connection ended before the response head.
    Reset,
    /// The answer was not valid protocol.
    Malformed(String),
    /// The client's body failed.
    RequestBody,
}

/// What an attempt needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) now: Instant,
    pub(crate) connect_within: Duration,
}

/// Buffers kept beyond those in use.
const BUFFERS_MAX: usize = 64;

/// A request as its protocol takes it.
#[derive(Debug)]
pub(crate) enum Outbound {
    Http1(Sending),
    Http2(Request<RequestBody>),
}

/// This worker's connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) endpoint: Arc<Endpoint>,
    config: config::Pool,
    protocol: Upstream,
    idle: RefCell<VecDeque<Idle>>,
    shared: RefCell<Vec<Rc<H2>>>,
    /// Buffers that requests were written into, to be used again.
    buffers: RefCell<Vec<Vec<u8>>>,
    connecting: tokio::sync::Mutex<()>,
    retired: Cell<bool>,
    clock: crate::clock::Clock,
}

#[derive(Debug)]
struct Idle {
    conn: Box<Conn>,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        config: config::Pool,
        protocol: Upstream,
        clock: crate::clock::Clock,
    ) -> Self {
        Self {
            endpoint,
            config,
            protocol,
            idle: RefCell::default(),
            shared: RefCell::default(),
            buffers: RefCell::default(),
            connecting: tokio::sync::Mutex::new(()),
            retired: Cell::new(false),
            clock,
        }
    }

    /// Whether a pool made from these would be this one.
    pub(crate) fn serves(
        &self,
        endpoint: &Arc<Endpoint>,
        config: &config::Pool,
        protocol: Upstream,
    ) -> bool {
        Arc::ptr_eq(&self.endpoint, endpoint) && self.config == *config && self.protocol == protocol
    }

    /// Keeps no connection any more; those in use end with their requests.
    pub(crate) fn retire(&self) {
        self.retired.set(true);
        self.endpoint.idle.fetch_sub(self.idle.take().len(), Relaxed);
        self.shared.borrow_mut().clear();
    }

    /// Closes connections that were idle for too long or were closed by the peer.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain_mut(|idle| now.since(idle.since) < self.config.idle_for && idle.conn.alive());
        self.endpoint.idle.fetch_sub(before - idle.len(), Relaxed);
        drop(idle);
        self.shared.borrow_mut().retain(|h2| {
            let unused = h2.active.get() == 0 && now.since(h2.used.get()) >= self.config.idle_for;
            !h2.closed.get() && !unused
        });
    }

    /// Sends `request`; the exchange waits for the head of the response.
    pub(crate) fn send(self: &Rc<Self>, terms: Terms, request: Outbound) -> Exchange {
        match request {
            Outbound::Http1(sending) => self.send_http1(terms, sending),
            Outbound::Http2(request) => {
                let pool = self.clone();
                Exchange(Stage::Other(Box::pin(
                    async move { pool.send_http2(terms, request).await },
                )))
            }
        }
    }

    fn send_http1(self: &Rc<Self>, terms: Terms, sending: Sending) -> Exchange {
        if let Some(mut conn) = self.take_idle(terms.now) {
            conn.begin(sending);
            return Exchange(Stage::Http1 { pool: self.clone(), conn, terms });
        }
        let pool = self.clone();
        Exchange(Stage::Other(Box::pin(async move {
            let mut conn = pool.open_http1(terms).await?;
            conn.begin(sending);
            let head = poll_fn(|cx| conn.poll_head(cx)).await;
            let head = head.map_err(|(failed, _)| failed)?;
            pool.receive(head, conn, terms.now)
        })))
    }

    fn receive(
        self: &Rc<Self>,
        head: Response<()>,
        mut conn: Box<Conn>,
        now: Instant,
    ) -> Result<Response<Body>, Failed> {
        // A connection that switched has no body, and is not free for another request.
        let switched = head.status() == http::StatusCode::SWITCHING_PROTOCOLS;
        if !switched && let Some(whole) = conn.take_whole() {
            // Seen from its idle time, the exchange took no time.
            self.give_back(conn, now);
            return Ok(head.map(|()| Body::full(whole)));
        }
        let body = Body::http1(H1Body { conn: Some(conn), pool: self.clone() });
        let body = if switched { body } else { body.look_ahead().map_err(body_failure)? };
        Ok(head.map(|()| body))
    }

    /// Keeps `conn` if it can be used again.
    fn give_back(&self, mut conn: Box<Conn>, now: Instant) {
        if conn.is_free() {
            let mut buffers = self.buffers.borrow_mut();
            if buffers.len() < BUFFERS_MAX {
                buffers.push(conn.take_buffer());
            }
            self.put_idle(conn, now);
        }
    }

    /// An empty buffer to write a request into.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(1024))
    }

    fn take_idle(&self, now: Instant) -> Option<Box<Conn>> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let last = idle.pop_back()?;
            self.endpoint.idle.fetch_sub(1, Relaxed);
            if now.since(last.since) < self.config.idle_for && last.conn.alive() {
                return Some(last.conn);
            }
        }
    }

    fn put_idle(&self, conn: Box<Conn>, now: Instant) {
        if self.retired.get() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.config.idle_max {
            return;
        }
        idle.push_back(Idle { conn, since: now });
        self.endpoint.idle.fetch_add(1, Relaxed);
    }

    async fn connect(&self, terms: Terms) -> Result<(TcpStream, Open), Failed> {
        let open = Open::take(&self.endpoint, self.config.connections_max)
            .ok_or(Failed::ConnectionsFull)?;
        let connecting = TcpStream::connect(self.endpoint.address);
        let stream = tokio::time::timeout(terms.connect_within, connecting)
            .await
            .map_err(|_| Failed::ConnectTimeout)?
            .map_err(Failed::Connect)?;
        stream.set_nodelay(true).map_err(Failed::Connect)?;
        Ok((stream, open))
    }

    async fn open_http1(&self, terms: Terms) -> Result<Box<Conn>, Failed> {
        let (stream, open) = self.connect(terms).await?;
        Ok(Box::new(Conn::new(stream, open, self.config.head_bytes_max)))
    }

    async fn send_http2(
        self: &Rc<Self>,
        terms: Terms,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, Failed> {
        let h2 = self.stream_http2(terms).await?;
        let lease = Lease::new(h2.clone(), terms.now);
        let mut send = h2.send.clone();
        match send.try_send_request(request).await {
            Ok(response) => {
                let (head, incoming) = response.into_parts();
                let body = Body::http2(H2Body { incoming, _lease: lease });
                Ok(Response::from_parts(head, body.look_ahead().map_err(body_failure)?))
            }
            Err(mut error) => {
                let returned = error.take_message().is_some();
                Err(http2_failure(error.error(), returned))
            }
        }
    }

    /// A connection with room for one more stream.
    async fn stream_http2(self: &Rc<Self>, terms: Terms) -> Result<Rc<H2>, Failed> {
        if let Some(h2) = self.find_http2() {
            return Ok(h2);
        }
        // Who comes while a connection is being made waits for that one.
        let _turn = self.connecting.lock().await;
        if let Some(h2) = self.find_http2() {
            return Ok(h2);
        }
        let (stream, open) = self.connect(terms).await?;
        let (cork, flusher) = Cork::new(Io::upstream(stream));
        tokio::task::spawn_local(flusher);
        let (send, conn) = http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_header_list_size(u32::try_from(self.config.head_bytes_max).unwrap_or(u32::MAX))
            .handshake(cork)
            .await
            .map_err(|_| Failed::Reset)?;
        let h2 = Rc::new(H2 {
            send,
            active: Cell::new(0),
            closed: Cell::new(false),
            used: Cell::new(terms.now),
        });
        let watched = Rc::downgrade(&h2);
        tokio::task::spawn_local(async move {
            let _open = open;
            let _ = conn.await;
            if let Some(h2) = watched.upgrade() {
                h2.closed.set(true);
            }
        });
        if !self.retired.get() {
            self.shared.borrow_mut().push(h2.clone());
        }
        Ok(h2)
    }

    fn find_http2(&self) -> Option<Rc<H2>> {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|h2| !h2.closed.get() && !h2.send.is_closed());
        shared.iter().find(|h2| h2.active.get() < self.config.streams_max).cloned()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.retire();
    }
}

/// A request that is out, until the head of its response is there.
pub(crate) struct Exchange(Stage);

enum Stage {
    Http1 { pool: Rc<Pool>, conn: Box<Conn>, terms: Terms },
    Other(Pin<Box<dyn Future<Output = Result<Response<Body>, Failed>>>>),
    Over,
}

impl Exchange {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, Failed>> {
        loop {
            let head = match &mut self.0 {
                Stage::Http1 { conn, .. } => std::task::ready!(conn.poll_head(cx)),
                Stage::Other(other) => return other.as_mut().poll(cx),
                Stage::Over => return Poll::Pending,
            };
            let Stage::Http1 { pool, conn, terms } = std::mem::replace(&mut self.0, Stage::Over)
            else {
                return Poll::Pending;
            };
            match head {
                Ok(head) => return Poll::Ready(pool.receive(head, conn, terms.now)),
                // A peer may close an idle connection at any time, so a request
                // that met such a close is moved to the next connection if none
                // of it left, and at last to a new one.
                Err((Failed::Reset, Some(back))) => *self = pool.send_http1(terms, *back),
                Err((failed, _)) => return Poll::Ready(Err(failed)),
            }
        }
    }
}

fn http2_failure(error: &hyper::Error, returned: bool) -> Failed {
    let h2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    if returned || h2.is_some_and(|h2| h2.reason() == Some(h2::Reason::REFUSED_STREAM)) {
        Failed::Refused
    } else if error.is_user() {
        Failed::RequestBody
    } else if h2.is_some_and(|h2| h2.reason() == Some(h2::Reason::PROTOCOL_ERROR)) {
        Failed::Malformed(error.to_string())
    } else {
        Failed::Reset
    }
}

/// Why the body behind a head was broken from the start.
#[expect(clippy::needless_pass_by_value, reason = "it is handed over by `map_err`")]
fn body_failure(error: BoxError) -> Failed {
    if let Some(error) = error.downcast_ref::<http1::Broken>() {
        return match error {
            http1::Broken::Malformed(wrong) => Failed::Malformed((*wrong).to_owned()),
            http1::Broken::Request => Failed::RequestBody,
            http1::Broken::Closed | http1::Broken::Failed(_) => Failed::Reset,
        };
    }
    let source = error.downcast_ref::<hyper::Error>().and_then(std::error::Error::source);
    let h2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
    if h2.is_some_and(|h2| h2.reason() == Some(h2::Reason::PROTOCOL_ERROR)) {
        Failed::Malformed(error.to_string())
    } else {
        Failed::Reset
    }
}

/// The body of a response over HTTP/1.1; drives its connection and gives it back.
#[derive(Debug)]
pub(crate) struct H1Body {
    conn: Option<Box<Conn>>,
    pool: Rc<Pool>,
}

impl Drop for H1Body {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl H1Body {
    fn give_back(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.pool.give_back(conn, self.pool.clock.now());
        }
    }

    /// The connection, to be handed over after a switch of protocols.
    pub(crate) fn into_conn(mut self) -> Option<Box<Conn>> {
        self.conn.take()
    }
}

impl HttpBody for H1Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(conn) = &mut this.conn else { return Poll::Ready(None) };
        let polled = std::task::ready!(conn.poll_body(cx));
        // A server that knows the length does not come back for the end.
        let over = matches!(polled, None | Some(Err(_))) || conn.left() == Some(0);
        if over {
            this.give_back();
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.conn.as_ref().is_none_or(|conn| conn.left() == Some(0))
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.conn.as_ref().map_or(Some(0), |conn| conn.left());
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An HTTP/2 connection shared by many requests.
#[derive(Debug)]
struct H2 {
    send: http2::SendRequest<RequestBody>,
    active: Cell<u32>,
    closed: Cell<bool>,
    used: Cell<Instant>,
}

/// One stream in use.
#[derive(Debug)]
struct Lease(Rc<H2>);

impl Lease {
    fn new(h2: Rc<H2>, now: Instant) -> Self {
        h2.active.set(h2.active.get() + 1);
        h2.used.set(now);
        Self(h2)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
    }
}

/// The body of a response over HTTP/2.
#[derive(Debug)]
pub(crate) struct H2Body {
    incoming: Incoming,
    _lease: Lease,
}

impl HttpBody for H2Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let incoming = Pin::new(&mut self.get_mut().incoming);
        incoming.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
