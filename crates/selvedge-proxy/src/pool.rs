//! Upstream connections: each worker keeps its own.
//!
//! An HTTP/1.1 connection has no task of its own: whoever waits for the
//! response drives it, first [`H1::exchange`], then [`H1Body`], which puts it
//! back when the body has ended. That saves two wake-ups a request. An HTTP/2
//! connection is shared by many requests and is driven by a task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use selvedge_patterns::time::{Duration, Instant};
use tokio::net::TcpStream;

use crate::body::{BoxError, RequestBody};
use crate::config::{self, Upstream};
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
struct Open(Arc<Endpoint>);

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

/// This worker's connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) endpoint: Arc<Endpoint>,
    config: config::Pool,
    protocol: Upstream,
    idle: RefCell<VecDeque<Idle>>,
    shared: RefCell<Vec<Rc<H2>>>,
    connecting: tokio::sync::Mutex<()>,
    retired: Cell<bool>,
    clock: crate::clock::Clock,
}

#[derive(Debug)]
struct Idle {
    conn: Box<H1>,
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

    /// Sends `request` and waits for the head of the response.
    pub(crate) async fn send(
        self: &Rc<Self>,
        terms: Terms,
        request: Request<RequestBody>,
    ) -> Result<Response<crate::body::Body>, Failed> {
        match self.protocol {
            Upstream::Http1 => self.send_http1(terms, request).await,
            Upstream::Http2 => self.send_http2(terms, request).await,
        }
    }

    async fn send_http1(
        self: &Rc<Self>,
        terms: Terms,
        mut request: Request<RequestBody>,
    ) -> Result<Response<crate::body::Body>, Failed> {
        // A peer may close an idle connection at any time, so a request that
        // met such a close is moved to the next connection if it never left,
        // and at last to a new one.
        while let Some(conn) = self.take_idle(terms.now) {
            match conn.exchange(request).await {
                Ok((response, conn)) => return self.receive(response, conn),
                Err((Failed::Reset, Some(back))) => request = *back,
                Err((failed, _)) => return Err(failed),
            }
        }
        let conn = self.open_http1(terms).await?;
        match conn.exchange(request).await {
            Ok((response, conn)) => self.receive(response, conn),
            Err((failed, _)) => Err(failed),
        }
    }

    fn receive(
        self: &Rc<Self>,
        response: Response<Incoming>,
        conn: Box<H1>,
    ) -> Result<Response<crate::body::Body>, Failed> {
        if crate::head::ambiguous_length(response.headers()) {
            return Err(Failed::Malformed("it states its length twice".into()));
        }
        let switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
        let (head, incoming) = response.into_parts();
        let mut body = H1Body { incoming, conn: Some(conn), pool: self.clone() };
        if !switched && body.incoming.is_end_stream() {
            body.give_back(&mut Context::from_waker(Waker::noop()));
        }
        let body = crate::body::Body::http1(body);
        let body = if switched { body } else { body.look_ahead().map_err(body_failure)? };
        Ok(Response::from_parts(head, body))
    }

    fn take_idle(&self, now: Instant) -> Option<Box<H1>> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let mut last = idle.pop_back()?;
            self.endpoint.idle.fetch_sub(1, Relaxed);
            if now.since(last.since) < self.config.idle_for && last.conn.alive() {
                return Some(last.conn);
            }
        }
    }

    fn put_idle(&self, conn: Box<H1>) {
        if self.retired.get() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.config.idle_max {
            return;
        }
        idle.push_back(Idle { conn, since: self.clock.now() });
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

    async fn open_http1(&self, terms: Terms) -> Result<Box<H1>, Failed> {
        let (stream, open) = self.connect(terms).await?;
        let (send, conn) = http1::Builder::new()
            .max_buf_size(self.config.head_bytes_max)
            .handshake(Io::upstream(stream))
            .await
            .map_err(|_| Failed::Reset)?;
        Ok(Box::new(H1 { send, conn: Box::pin(conn.with_upgrades()), closed: false, _open: open }))
    }

    async fn send_http2(
        self: &Rc<Self>,
        terms: Terms,
        request: Request<RequestBody>,
    ) -> Result<Response<crate::body::Body>, Failed> {
        let h2 = self.stream_http2(terms).await?;
        let lease = Lease::new(h2.clone(), terms.now);
        let mut send = h2.send.clone();
        match send.try_send_request(request).await {
            Ok(response) => {
                let (head, incoming) = response.into_parts();
                let body = crate::body::Body::http2(H2Body { incoming, _lease: lease });
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
        let (send, conn) = http2::Builder::new(LocalExecutor)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_header_list_size(u32::try_from(self.config.head_bytes_max).unwrap_or(u32::MAX))
            .handshake(Io::upstream(stream))
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

/// An HTTP/1.1 connection without a task of its own.
pub(crate) struct H1 {
    send: http1::SendRequest<RequestBody>,
    conn: Pin<Box<dyn Future<Output = hyper::Result<()>>>>,
    closed: bool,
    _open: Open,
}

impl std::fmt::Debug for H1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H1").field("closed", &self.closed).finish_non_exhaustive()
    }
}

impl H1 {
    fn poll_conn(&mut self, cx: &mut Context<'_>) {
        if !self.closed && self.conn.as_mut().poll(cx).is_ready() {
            self.closed = true;
        }
    }

    /// Whether the peer has neither closed it nor said anything unasked.
    fn alive(&mut self) -> bool {
        self.poll_conn(&mut Context::from_waker(Waker::noop()));
        !self.closed && self.send.is_ready()
    }

    /// Sends `request` and drives the connection until the response's head.
    /// On failure the request comes back if it never left.
    async fn exchange(
        mut self: Box<Self>,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Box<Self>), (Failed, Option<Box<Request<RequestBody>>>)> {
        let mut response = pin!(self.send.try_send_request(request));
        let result = poll_fn(|cx| {
            if let Poll::Ready(result) = response.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            self.poll_conn(cx);
            response.as_mut().poll(cx)
        })
        .await;
        match result {
            Ok(response) => Ok((response, self)),
            Err(mut error) => {
                let back = error.take_message().map(Box::new);
                Err((http1_failure(error.error()), back))
            }
        }
    }

    /// Drives the connection until its socket has been handed over.
    pub(crate) async fn hand_over(mut self: Box<Self>) {
        poll_fn(|cx| {
            self.poll_conn(cx);
            if self.closed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

fn http1_failure(error: &hyper::Error) -> Failed {
    if error.is_parse() {
        Failed::Malformed(error.to_string())
    } else if error.is_user() {
        Failed::RequestBody
    } else {
        Failed::Reset
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
    let source = error.downcast_ref::<hyper::Error>().and_then(std::error::Error::source);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    let h2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
    let invalid = [std::io::ErrorKind::InvalidInput, std::io::ErrorKind::InvalidData];
    if io.is_some_and(|io| invalid.contains(&io.kind()))
        || h2.is_some_and(|h2| h2.reason() == Some(h2::Reason::PROTOCOL_ERROR))
    {
        Failed::Malformed(error.to_string())
    } else {
        Failed::Reset
    }
}

/// The body of a response over HTTP/1.1; drives its connection and gives it back.
#[derive(Debug)]
pub(crate) struct H1Body {
    incoming: Incoming,
    conn: Option<Box<H1>>,
    pool: Rc<Pool>,
}

impl Drop for H1Body {
    fn drop(&mut self) {
        self.give_back(&mut Context::from_waker(Waker::noop()));
    }
}

impl H1Body {
    fn give_back(&mut self, cx: &mut Context<'_>) {
        let Some(mut conn) = self.conn.take() else { return };
        conn.poll_conn(cx);
        if !conn.closed && conn.send.is_ready() {
            self.pool.put_idle(conn);
        }
    }

    /// The connection, to be handed over after a switch of protocols.
    pub(crate) fn into_conn(mut self) -> Option<Box<H1>> {
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
        let mut polled = Pin::new(&mut this.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some(conn) = &mut this.conn
        {
            conn.poll_conn(cx);
            polled = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        match polled {
            Poll::Ready(Some(Err(error))) => {
                this.conn = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                // A server that knows the length does not come back for the end.
                if this.incoming.is_end_stream() {
                    this.give_back(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                this.give_back(cx);
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
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
