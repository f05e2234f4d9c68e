//! One thread with its own runtime, listeners, connections and pools.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::task::{Context, Poll, Waker};

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use selvedge_patterns::random::SplitMix64;
use selvedge_patterns::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::alarm::Alarms;
use crate::clock::Clock;
use crate::config::{ConnectionLimits, Downstream};
use crate::cork::Cork;
use crate::forward;
use crate::guard::Scan;
use crate::head::Peer;
use crate::io::{Io, Watch};
use crate::journey;
use crate::pool::Pool;
use crate::proxy::Shared;
use crate::respond::Kind;
use crate::snapshot::Snapshot;
use crate::telemetry::{Calls, WorkerCounts};
use crate::trace::Scribe;

/// How long a drain waits for a connection on which nothing was ever asked.
const DRAIN_UNUSED_AFTER: Duration = Duration::from_millis(500);

/// Of connections that were not accepted from a listener.
const NO_LISTENER: u64 = u64::MAX;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Accept from this socket too.
    Listen { id: u64, name: Option<Arc<str>>, protocol: Downstream, socket: std::net::TcpListener },
    /// Serve this connection as one to the ambassador.
    Serve { peer: SocketAddr, stream: std::net::TcpStream },
    /// Accept no more from that socket; let its connections end.
    Close { id: u64 },
    /// Accept no more at all; end when all connections have.
    Drain { within: Duration },
}

/// The state of one worker thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    pub(crate) rng: RefCell<SplitMix64>,
    pub(crate) scribe: RefCell<Scribe>,
    pub(crate) alarms: Alarms,
    pub(crate) counts: Arc<WorkerCounts>,
    index: usize,
    local: RefCell<Rc<Local>>,
    connections: RefCell<HashMap<u64, Rc<Entry>>>,
    next_connection: Cell<u64>,
    changed: tokio::sync::Notify,
}

/// A snapshot with what this worker alone has for it.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) snapshot: Arc<Snapshot>,
    /// Parallel to the snapshot's services and their endpoints.
    pub(crate) pools: Vec<Vec<Rc<Pool>>>,
    pub(crate) counts: Counts,
}

/// Where this worker counts, by index in the snapshot.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) routes: Vec<Arc<Calls>>,
    pub(crate) services: Vec<Arc<Calls>>,
}

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) peer: Peer,
    /// The listener's name; `None` for the ambassador.
    pub(crate) listener: Option<Arc<str>>,
    pub(crate) watch: Arc<Watch>,
    listener_id: u64,
    killed: Cell<bool>,
    draining: Cell<bool>,
    waker: RefCell<Waker>,
    seen: Cell<(Standing, u32)>,
    since: Cell<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    New,
    Idle,
    Head,
    Body,
    Blocked,
    Fine,
}

/// Runs futures of one thread for hyper.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Works until told to drain and drained.
pub(crate) fn run(shared: Arc<Shared>, index: usize, commands: mpsc::UnboundedReceiver<Command>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().event_interval(61).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(worker = index, %error, "worker cannot start");
            return;
        }
    };
    let tasks = tokio::task::LocalSet::new();
    let worker = Worker::new(shared, index);
    tasks.block_on(&runtime, worker.main(commands));
}

impl Worker {
    fn new(shared: Arc<Shared>, index: usize) -> Rc<Self> {
        let local = Local::new(&shared, shared.snapshot.load_full(), None, index);
        let seed = shared.seed.wrapping_add((index as u64) << 32);
        Rc::new(Self {
            clock: shared.clock,
            counts: shared.registry.worker(),
            index,
            shared,
            rng: RefCell::new(SplitMix64::new(seed)),
            scribe: RefCell::default(),
            alarms: Alarms::default(),
            local: RefCell::new(Rc::new(local)),
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            changed: tokio::sync::Notify::new(),
        })
    }

    async fn main(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let sweeper = tokio::task::spawn_local(self.clone().sweep_for_ever());
        let mut accepting = HashMap::new();
        while let Some(command) = commands.recv().await {
            match command {
                Command::Listen { id, name, protocol, socket } => {
                    match TcpListener::from_std(socket) {
                        Ok(socket) => {
                            let accept = self.clone().accept(id, name, protocol, socket);
                            accepting.insert(id, tokio::task::spawn_local(accept));
                        }
                        Err(error) => tracing::error!(%error, "cannot accept from a socket"),
                    }
                }
                Command::Serve { peer, stream } => match TcpStream::from_std(stream) {
                    Ok(stream) => self.begin(NO_LISTENER, None, Downstream::Auto, stream, peer),
                    Err(error) => tracing::error!(%error, "cannot serve a connection"),
                },
                Command::Close { id } => {
                    if let Some(task) = accepting.remove(&id) {
                        task.abort();
                    }
                    self.drain_connections(Some(id));
                }
                Command::Drain { within } => {
                    for task in accepting.into_values() {
                        task.abort();
                    }
                    self.drain_connections(None);
                    let _ = tokio::time::timeout(within, self.all_ended()).await;
                    break;
                }
            }
        }
        sweeper.abort();
        for pools in &self.local.borrow().pools {
            pools.iter().for_each(|pool| pool.retire());
        }
    }

    async fn all_ended(&self) {
        while !self.connections.borrow().is_empty() {
            self.changed.notified().await;
        }
    }

    fn drain_connections(&self, listener: Option<u64>) {
        for entry in self.connections.borrow().values() {
            if listener.is_none_or(|id| id == entry.listener_id) {
                entry.draining.set(true);
                entry.waker.borrow().wake_by_ref();
            }
        }
    }

    /// The newest snapshot, with this worker's pools for it.
    pub(crate) fn local(&self) -> Rc<Local> {
        let newest = self.shared.generation.load(Acquire);
        if self.local.borrow().snapshot.generation != newest {
            self.renew();
        }
        self.local.borrow().clone()
    }

    #[cold]
    fn renew(&self) {
        let before = self.local.borrow().clone();
        let next = Rc::new(Local::new(
            &self.shared,
            self.shared.snapshot.load_full(),
            Some(&before),
            self.index,
        ));
        let kept =
            |pool: &Rc<Pool>| next.pools.iter().flatten().any(|other| Rc::ptr_eq(pool, other));
        before.pools.iter().flatten().filter(|pool| !kept(pool)).for_each(|pool| pool.retire());
        *self.local.borrow_mut() = next;
    }

    async fn accept(
        self: Rc<Self>,
        id: u64,
        name: Option<Arc<str>>,
        protocol: Downstream,
        socket: TcpListener,
    ) {
        loop {
            let most = self.local().snapshot.config.limits.connections_max;
            while self.connections.borrow().len() >= most {
                self.changed.notified().await;
            }
            match socket.accept().await {
                Ok((stream, peer)) => self.begin(id, name.clone(), protocol, stream, peer),
                Err(error) => {
                    // Out of descriptors, mostly: what helps is that others end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn begin(
        self: &Rc<Self>,
        id: u64,
        name: Option<Arc<str>>,
        protocol: Downstream,
        stream: TcpStream,
        peer: SocketAddr,
    ) {
        let entry = self.enter(id, name, peer);
        let key = self.next_connection.replace(self.next_connection.get() + 1);
        self.connections.borrow_mut().insert(key, entry.clone());
        self.counts.connections.add(1);
        self.counts.accepted.add(1);
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let _leave = Leave { worker: worker.clone(), key };
            let _ = stream.set_nodelay(true);
            serve(worker, entry, stream, protocol).await;
        });
    }

    fn enter(&self, listener_id: u64, listener: Option<Arc<str>>, peer: SocketAddr) -> Rc<Entry> {
        let config = self.local().snapshot.config.clone();
        if self.connections.borrow().is_empty() {
            self.changed.notify_waiters();
        }
        Rc::new(Entry {
            peer: Peer::new(peer.ip(), &config.trusted_proxies),
            listener,
            watch: Arc::new(Watch::default()),
            listener_id,
            killed: Cell::new(false),
            draining: Cell::new(false),
            waker: RefCell::new(Waker::noop().clone()),
            seen: Cell::new((Standing::New, 0)),
            since: Cell::new(self.clock.now()),
        })
    }

    /// Looks at all connections every so often, instead of a timer for each.
    async fn sweep_for_ever(self: Rc<Self>) {
        loop {
            let local = self.local();
            let limits = local.snapshot.config.limits;
            let shortest = limits.head_within.min(limits.idle_for).min(limits.body_idle_for);
            let tick = (shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(1));
            tokio::time::sleep(tick).await;
            let now = self.clock.now();
            for entry in self.connections.borrow().values() {
                if entry.check(now, &limits) {
                    self.counts.killed.add(1);
                }
            }
            for pool in self.local().pools.iter().flatten() {
                pool.sweep(now);
            }
        }
    }
}

impl Local {
    fn new(shared: &Shared, snapshot: Arc<Snapshot>, before: Option<&Self>, worker: usize) -> Self {
        let pools = |service: &Arc<crate::snapshot::Service>| {
            let (config, protocol) = (&service.config.pool, service.config.protocol);
            let pool = |endpoint: &Arc<crate::pool::Endpoint>| {
                let known = before.into_iter().flat_map(|local| local.pools.iter().flatten());
                known
                    .into_iter()
                    .find(|pool| pool.serves(endpoint, config, protocol))
                    .cloned()
                    .unwrap_or_else(|| {
                        Rc::new(Pool::new(endpoint.clone(), *config, protocol, shared.clock))
                    })
            };
            service.endpoints.iter().map(pool).collect()
        };
        let config = &snapshot.config;
        let counts = Counts {
            routes: config.routes.iter().map(|r| shared.registry.route(&r.name, worker)).collect(),
            services: config
                .services
                .iter()
                .map(|s| shared.registry.service(&s.name, worker))
                .collect(),
        };
        Self { pools: snapshot.services.iter().map(pools).collect(), counts, snapshot }
    }
}

impl Entry {
    /// Kills the connection if its peer is too slow; says whether it did.
    fn check(&self, now: Instant, limits: &ConnectionLimits) -> bool {
        let watch = &self.watch;
        let busy = watch.busy.load(Relaxed) > 0;
        let standing = if watch.in_head.load(Relaxed) {
            Standing::Head
        } else if watch.write_blocked.load(Relaxed) {
            Standing::Blocked
        } else if busy && watch.body_wanted.load(Relaxed) {
            Standing::Body
        } else if busy {
            Standing::Fine
        } else if watch.served.load(Relaxed) == 0 {
            Standing::New
        } else {
            Standing::Idle
        };
        // Bytes that trickle in do not buy a head more time; whole requests do.
        let progress = match standing {
            Standing::Head | Standing::New | Standing::Idle => watch.served.load(Relaxed),
            Standing::Body | Standing::Blocked | Standing::Fine => watch.moved.load(Relaxed),
        };
        if self.seen.replace((standing, progress)) != (standing, progress) {
            self.since.set(now);
            return false;
        }
        let most = match standing {
            // Nobody should wait for a caller that has not begun to ask; but what it
            // sent a moment ago may lie unread in the socket.
            Standing::New if self.draining.get() => limits.head_within.min(DRAIN_UNUSED_AFTER),
            Standing::New | Standing::Head => limits.head_within,
            Standing::Idle => limits.idle_for,
            Standing::Body | Standing::Blocked => limits.body_idle_for,
            Standing::Fine => return false,
        };
        if now.since(self.since.get()) < most {
            return false;
        }
        self.waker.borrow().wake_by_ref();
        !self.killed.replace(true)
    }

    /// Drives `connection` until it ends, is told to drain and has, or is
    /// killed. Answers what was wrong with it, if it ended by its peer's fault.
    async fn drive<C: Connection>(&self, connection: C) -> Option<Kind> {
        let mut connection = pin!(connection);
        let mut told = false;
        poll_fn(|cx| {
            self.register(cx);
            if self.killed.get() {
                return Poll::Ready(None);
            }
            if self.draining.get() && !told {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll_end(cx)
        })
        .await
    }

    /// What `work` gives, or nothing once the connection is killed.
    async fn unless_killed<T>(&self, work: impl Future<Output = Option<T>>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.register(cx);
            if self.killed.get() { Poll::Ready(None) } else { work.as_mut().poll(cx) }
        })
        .await
    }

    fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.will_wake(cx.waker()) {
            waker.clone_from(cx.waker());
        }
    }

    /// Whether this program is the caller.
    pub(crate) const fn is_ours(&self) -> bool {
        self.listener_id == NO_LISTENER
    }

    /// Whether the connection may not be kept after the current request.
    pub(crate) fn draining(&self) -> bool {
        self.draining.get()
    }
}

/// Takes the connection off the list, however its task ends.
struct Leave {
    worker: Rc<Worker>,
    key: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(&self.key);
        self.worker.counts.connections.sub(1);
        self.worker.changed.notify_waiters();
    }
}

/// What both of hyper's server connections can do.
trait Connection {
    fn poll_end(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Kind>>;
    fn graceful_shutdown(self: std::pin::Pin<&mut Self>);
}

impl<S> Connection for http1::UpgradeableConnection<Io, S>
where
    S: hyper::service::Service<
            http::Request<Incoming>,
            Response = http::Response<crate::body::Body>,
        >,
    S::Error: Into<crate::body::BoxError>,
{
    fn poll_end(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Kind>> {
        self.poll(cx).map(|ended| ended.err().as_ref().and_then(fault))
    }

    fn graceful_shutdown(self: std::pin::Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}

impl<S> Connection for http2::Connection<Cork, S, LocalExecutor>
where
    S: hyper::service::Service<
            http::Request<Incoming>,
            Response = http::Response<crate::body::Body>,
        >,
    S::Error: Into<crate::body::BoxError>,
    S::Future: 'static,
{
    fn poll_end(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Kind>> {
        self.poll(cx).map(|ended| ended.err().as_ref().and_then(fault))
    }

    fn graceful_shutdown(self: std::pin::Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}

/// What a peer did wrong to end its connection with `error`, if it did.
fn fault(error: &hyper::Error) -> Option<Kind> {
    let h2 = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    if error.is_parse_too_large() {
        Some(Kind::HeadTooLarge)
    } else if error.is_parse() || h2.is_some_and(|h2| h2.is_go_away() && h2.is_library()) {
        Some(Kind::Malformed)
    } else {
        None
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

async fn serve(worker: Rc<Worker>, entry: Rc<Entry>, mut stream: TcpStream, protocol: Downstream) {
    let limits = worker.local().snapshot.config.limits;
    let mut early = Vec::new();
    let http2 = match protocol {
        Downstream::Http1 => false,
        Downstream::Http2 => true,
        Downstream::Auto => {
            let sniffed = entry.unless_killed(sniff(&mut stream, &mut early));
            let sniffed = tokio::time::timeout(limits.head_within, sniffed);
            match sniffed.await {
                Ok(Some(http2)) => http2,
                Ok(None) | Err(_) => return,
            }
        }
    };
    let (watch, served) = (entry.watch.clone(), entry.clone());
    let serving = worker.clone();
    let fault = if http2 {
        let (cork, flusher) = Cork::new(Io::downstream(stream, early, None, watch));
        tokio::task::spawn_local(flusher);
        let connection = http2::Builder::new(LocalExecutor)
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .serve_connection(
                cork,
                service_fn(move |request| {
                    // hyper moves this future about several times.
                    Box::pin(forward::serve(serving.clone(), served.clone(), request, true))
                }),
            );
        entry.drive(connection).await
    } else {
        let scan = Box::new(Scan::new(limits.head_bytes_max));
        let io = Io::downstream(stream, early, Some(scan), watch);
        let connection = http1::Builder::new()
            .max_buf_size(limits.head_bytes_max.max(8192))
            .max_headers(limits.head_fields_max)
            .serve_connection(
                io,
                service_fn(move |request| {
                    forward::serve(serving.clone(), served.clone(), request, false)
                }),
            )
            .with_upgrades();
        entry.drive(connection).await
    };
    if let Some(kind) = fault {
        journey::refused_unread(&worker, &entry, kind, entry.watch.refused());
    }
}

/// Reads until it is known whether the peer opens with HTTP/2's preface.
/// `None` if it closed before.
async fn sniff(stream: &mut TcpStream, early: &mut Vec<u8>) -> Option<bool> {
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        early.extend_from_slice(&buffer[..read]);
        let common = early.len().min(PREFACE.len());
        if early[..common] != PREFACE[..common] {
            return Some(false);
        }
        if common == PREFACE.len() {
            return Some(true);
        }
    }
}
