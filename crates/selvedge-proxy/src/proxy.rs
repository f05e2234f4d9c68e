//! Starts the data plane, changes its configuration, looks into it, ends it.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use selvedge_patterns::service::{Event, Service as Live};
use selvedge_patterns::time::{Duration, Instant};
use tokio::sync::mpsc;

use crate::access;
use crate::clock::Clock;
use crate::config::{self, Config, Downstream};
use crate::journal::Journal;
use crate::keeper;
use crate::resolve;
use crate::snapshot::{Resolved, Snapshot};
use crate::telemetry::{Registry, ServiceCounts};
use crate::worker::{self, Command};

/// A running data plane. Dropping it drains it in the background.
#[derive(Debug)]
pub struct Proxy {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
}

/// A cheap way to a running data plane.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// What a program may give the data plane beside its configuration.
#[derive(Debug, Default)]
pub struct Hooks {
    /// Takes a record of each call. Default: nobody, and nothing is put together.
    pub access: Option<Arc<dyn access::Sink>>,
    /// Takes down every question put to the patterns and its answer, one at a
    /// time. Default: nobody.
    pub journal: Option<Arc<Journal>>,
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    pub(crate) access: Option<Arc<dyn access::Sink>>,
    pub(crate) journal: Option<Arc<Journal>>,
    pub(crate) registry: Registry,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// The snapshot's generation, where a worker can see it change for the price of a load.
    pub(crate) generation: AtomicU64,
    control: Mutex<Control>,
    /// Connections made from within: they go to each worker in turn.
    turns: AtomicU64,
    workers: Vec<mpsc::UnboundedSender<Command>>,
}

/// What only those who change things look at.
#[derive(Debug)]
struct Control {
    listeners: Vec<Listening>,
    resolved: Resolved,
    next_listener: u64,
    draining: bool,
}

/// An address that is being listened on.
#[derive(Clone, Debug)]
struct Listening {
    id: u64,
    /// `None` for the ambassador.
    name: Option<Arc<str>>,
    asked: SocketAddr,
    bound: SocketAddr,
    protocol: Downstream,
}

/// Why a configuration was not taken on. The one before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It cannot work.
    #[error("invalid configuration: {}", list(.0))]
    Invalid(Vec<config::Problem>),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The data plane is being shut down.
    #[error("the data plane is shutting down")]
    Draining,
}

fn list(problems: &[config::Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A listener as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerView {
    /// Its name; `None` for the ambassador.
    pub name: Option<Arc<str>>,
    /// The address it is bound to, with the port that was taken.
    pub address: SocketAddr,
}

impl Proxy {
    /// Binds all listeners and starts the workers. When it returns, connections
    /// are accepted.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; then nothing runs.
    pub fn start(config: Config, hooks: Hooks) -> Result<Self, ApplyError> {
        config.validate().map_err(ApplyError::Invalid)?;
        let Hooks { access, journal } = hooks;
        let clock = Clock::start();
        let config = Arc::new(config);
        let resolved = resolve::at_start(&config);
        let seed = seed();
        let now = clock.now();
        let snapshot = Snapshot::build(1, config.clone(), &resolved, None, now, seed)
            .map_err(|problem| ApplyError::Invalid(vec![problem]))?;
        if let Some(journal) = &journal {
            for service in &snapshot.services {
                journal.new_service(now, &service.config.name, &service.live, seed);
            }
        }
        let count = config.workers.or_else(|| std::thread::available_parallelism().ok());
        let count = count.map_or(1, NonZeroUsize::get);
        let (workers, inboxes): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let shared = Arc::new(Shared {
            clock,
            seed,
            access,
            journal,
            registry: Registry::default(),
            snapshot: ArcSwap::from_pointee(snapshot),
            generation: AtomicU64::new(1),
            turns: AtomicU64::new(0),
            control: Mutex::new(Control {
                listeners: Vec::new(),
                resolved,
                next_listener: 0,
                draining: false,
            }),
            workers,
        });
        let handle = Handle { shared: shared.clone() };
        handle.listen(&mut handle.control(), &config)?;
        let mut threads = Vec::with_capacity(count + 1);
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let shared = shared.clone();
            threads.push(thread(format!("worker-{index}"), move || {
                worker::run(shared, index, inbox)
            })?);
        }
        let keeper = handle.clone();
        threads.push(thread("keeper".to_owned(), move || keeper::run(&keeper))?);
        Ok(Self { handle, threads })
    }

    /// A way to change it and look into it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Accepts nothing new, lets requests end for as long as the configuration
    /// says, then returns.
    pub fn shut_down(mut self) {
        self.handle.drain();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.handle.drain();
    }
}

fn thread(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, ApplyError> {
    std::thread::Builder::new().name(name).spawn(work).map_err(ApplyError::Thread)
}

/// Different in every run, and from every neighbour.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

impl Handle {
    /// Takes on `config`: all of it or nothing. No connection is dropped;
    /// services and routes that did not change keep their state. The number of
    /// workers stays what it was at the start. Returns the new generation.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; the configuration before stays in force.
    pub fn apply(&self, config: Config) -> Result<u64, ApplyError> {
        config.validate().map_err(ApplyError::Invalid)?;
        let config = Arc::new(config);
        let fresh = resolve::at_start(&config);
        let mut control = self.control();
        if control.draining {
            return Err(ApplyError::Draining);
        }
        let resolved: Resolved = config
            .services
            .iter()
            .flat_map(|service| &service.endpoints)
            .filter_map(|endpoint| {
                let known =
                    fresh.get(&endpoint.host).or_else(|| control.resolved.get(&endpoint.host));
                Some((endpoint.host.clone(), known?.clone()))
            })
            .collect();
        let before = self.shared.snapshot.load_full();
        let generation = before.generation + 1;
        let next = self
            .build(generation, config.clone(), &resolved, &before)
            .map_err(|problem| ApplyError::Invalid(vec![problem]))?;
        self.listen(&mut control, &config)?;
        control.resolved = resolved;
        self.publish(next);
        self.close_others(&mut control, &config);
        Ok(generation)
    }

    /// The number of the configuration in force, counted from 1. A change in
    /// DNS counts too.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.shared.snapshot.load().config.clone()
    }

    /// The addresses that are being listened on.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerView> {
        let view = |l: &Listening| ListenerView { name: l.name.clone(), address: l.bound };
        self.control().listeners.iter().map(view).collect()
    }

    /// The address of the listener called `name`.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.listeners().iter().find(|l| l.name.as_deref() == Some(name)).map(|l| l.address)
    }

    /// Accepts nothing new and lets requests in flight end. Returns at once.
    pub fn drain(&self) {
        let mut control = self.control();
        if !std::mem::replace(&mut control.draining, true) {
            control.listeners.clear();
            let within: Duration = self.config().drain.0;
            self.tell(|| Command::Drain { within });
        }
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.shared.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(
        &self,
        generation: u64,
        config: Arc<Config>,
        resolved: &Resolved,
        before: &Snapshot,
    ) -> Result<Snapshot, config::Problem> {
        let (now, seed) = (self.shared.clock.now(), self.shared.seed);
        Snapshot::build(generation, config, resolved, Some(before), now, seed)
    }

    /// Takes on changed answers of DNS.
    pub(crate) fn resolved(&self, fresh: &Resolved) {
        let mut control = self.control();
        let changed = fresh.iter().any(|(name, now)| control.resolved.get(name) != Some(now));
        if !changed || control.draining {
            return;
        }
        control.resolved.extend(fresh.iter().map(|(name, ips)| (name.clone(), ips.clone())));
        let before = self.shared.snapshot.load_full();
        let generation = before.generation + 1;
        match self.build(generation, before.config.clone(), &control.resolved, &before) {
            Ok(next) => {
                tracing::info!(generation, "addresses of endpoints changed");
                self.publish(next);
            }
            Err(problem) => tracing::error!(%problem, "cannot follow DNS"),
        }
    }

    /// Now, as the patterns count time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    /// The live state of the service called `name`: its view, its breakers to
    /// be controlled, its endpoints to be drained.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<Arc<Live>> {
        let snapshot = self.shared.snapshot.load();
        Some(snapshot.services[*snapshot.by_name.get(name)?].live.clone())
    }

    /// A connection on which this program itself can call
    /// `/<service>/<path>`, by the policies of the service and without an
    /// ambassador that others could reach; a fallback never answers for the
    /// service here. Non-blocking; it speaks HTTP/1.1, or
    /// HTTP/2 to who begins with its preface, and ends when the data plane drains.
    ///
    /// # Errors
    ///
    /// If the system has no sockets left.
    pub fn connect(&self) -> io::Result<std::net::TcpStream> {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        let ours = std::net::TcpStream::connect(listener.local_addr()?)?;
        let own = ours.local_addr()?;
        // Whoever else found the port in this moment is turned away.
        let theirs = loop {
            let (stream, peer) = listener.accept()?;
            if peer == own {
                break stream;
            }
        };
        ours.set_nonblocking(true)?;
        ours.set_nodelay(true)?;
        theirs.set_nonblocking(true)?;
        let turn = self.shared.turns.fetch_add(1, Ordering::Relaxed) as usize;
        let worker = &self.shared.workers[turn % self.shared.workers.len()];
        worker
            .send(Command::Serve { peer: own, stream: theirs })
            .map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
        Ok(ours)
    }

    /// What has been counted about the service called `name`.
    #[must_use]
    pub fn counts(&self, name: &str) -> Option<ServiceCounts> {
        self.shared.registry.counts(name)
    }

    /// Connections to each endpoint of the service called `name`: address, open, idle.
    #[must_use]
    pub fn pools(&self, name: &str) -> Vec<(SocketAddr, usize, usize)> {
        let snapshot = self.shared.snapshot.load();
        let Some(at) = snapshot.by_name.get(name) else { return Vec::new() };
        let load = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
        let endpoints = &snapshot.services[*at].endpoints;
        endpoints.iter().map(|e| (e.address, load(&e.open), load(&e.idle))).collect()
    }

    /// What changed since it was last asked, by service: for logs and histories.
    #[must_use]
    pub fn take_events(&self) -> Vec<(String, Event)> {
        let snapshot = self.shared.snapshot.load();
        let mut events = Vec::new();
        for service in &snapshot.services {
            while let Some(event) = service.live.take_event() {
                self.shared.registry.event(&service.config.name, &event.change);
                events.push((service.config.name.clone(), event));
            }
        }
        events
    }

    /// All metrics as Prometheus text, version 0.0.4.
    #[must_use]
    pub fn metrics(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        let snapshot = self.shared.snapshot.load();
        self.shared.registry.render(&snapshot, self.now(), &mut out);
        out
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn draining(&self) -> bool {
        self.control().draining
    }

    fn publish(&self, next: Snapshot) {
        let generation = next.generation;
        self.shared.snapshot.store(Arc::new(next));
        self.shared.generation.store(generation, Ordering::Release);
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.shared.workers {
            // A worker that is gone has drained already.
            let _ = worker.send(command());
        }
    }

    /// Binds what `config` asks for and is not bound: all or nothing.
    fn listen(&self, control: &mut Control, config: &Config) -> Result<(), ApplyError> {
        let mut bound = Vec::new();
        for (name, asked, protocol) in wanted(config) {
            if control.listeners.iter().any(|l| l.is(name.as_deref(), asked, protocol)) {
                continue;
            }
            let sockets = bind(asked, self.shared.workers.len())
                .map_err(|source| ApplyError::Bind { address: asked, source })?;
            let address = sockets[0]
                .local_addr()
                .map_err(|source| ApplyError::Bind { address: asked, source })?;
            let id = control.next_listener + bound.len() as u64;
            bound.push((Listening { id, name, asked, bound: address, protocol }, sockets));
        }
        control.next_listener += bound.len() as u64;
        for (listening, sockets) in bound {
            for (worker, socket) in self.shared.workers.iter().zip(sockets) {
                let Listening { id, ref name, protocol, .. } = listening;
                let _ = worker.send(Command::Listen { id, name: name.clone(), protocol, socket });
            }
            control.listeners.push(listening);
        }
        Ok(())
    }

    /// Closes what `config` does not ask for.
    fn close_others(&self, control: &mut Control, config: &Config) {
        let wanted = wanted(config);
        control.listeners.retain(|listening| {
            let keep = wanted
                .iter()
                .any(|(name, asked, protocol)| listening.is(name.as_deref(), *asked, *protocol));
            if !keep {
                self.tell(|| Command::Close { id: listening.id });
            }
            keep
        });
    }
}

impl Listening {
    fn is(&self, name: Option<&str>, asked: SocketAddr, protocol: Downstream) -> bool {
        self.name.as_deref() == name && self.asked == asked && self.protocol == protocol
    }
}

fn wanted(config: &Config) -> Vec<(Option<Arc<str>>, SocketAddr, Downstream)> {
    let routed =
        config.listeners.iter().map(|l| (Some(l.name.as_str().into()), l.bind, l.protocol));
    let ambassador = config.ambassador.iter().map(|a| (None, a.bind, Downstream::Auto));
    routed.chain(ambassador).collect()
}

/// One socket per worker on the same address; the kernel spreads connections over them.
fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    use socket2::{Domain, Protocol, Socket, Type};
    let mut address = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        let socket: std::net::TcpListener = socket.into();
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(sockets)
}
