//! The durable engine of a running process: the store, what the file declares
//! in it, and the app API that speaks for it.

use crate::failure::Failure;
use selvedge_api::app;
use selvedge_config::{AppApi, Durable};
use selvedge_durable::{
    Answer, Engine as _, Error, Observed, Operation, doctor::Snapshot, group::ListGroups,
    topic::ListTopics,
};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::watch::{self as channel, Receiver},
    task::JoinHandle,
};
use tracing::{error, info};

/// Between two attempts to write when the store could not.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// How old the last look at the store may be.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a look may take before the last one has to do.
const LOOK_FOR: Duration = Duration::from_secs(1);

/// What the app API speaks for.
pub(super) type Engine = Observed<selvedge_durable::Store>;

/// The open store.
#[derive(Debug)]
pub(crate) struct Store {
    engine: Engine,
    watched: Mutex<Watched>,
    looked: Mutex<Option<(Instant, Snapshot)>>,
}

/// What was last said about the store, and tried.
#[derive(Debug)]
struct Watched {
    in_trouble: bool,
    probed: Instant,
}

impl Store {
    /// Opens the store and declares in it what the file says.
    pub(super) fn open(durable: &Durable) -> Result<Self, Failure> {
        let place = durable.store.place();
        let cannot = |error: &Error| Failure::store(format!("the store {place}"), error);
        let opened = selvedge_durable::Store::open(durable.store.clone());
        let opened = opened.map_err(|error| cannot(&error))?;
        let engine = Observed::new(opened, durable.store.clock.clone());
        let watched = Watched { in_trouble: false, probed: Instant::now() };
        let store = Self { engine, watched: Mutex::new(watched), looked: Mutex::default() };
        store.declare(durable).map_err(|error| {
            Failure::store(format!("what the file declares cannot be in the store {place}"), &error)
        })?;
        store.say_what_else_is_there(durable);
        Ok(store)
    }

    /// Creates or changes everything that the file declares, or nothing.
    pub(super) fn declare(&self, durable: &Durable) -> Result<(), Error> {
        let operations = durable.operations();
        if operations.is_empty() {
            return Ok(());
        }
        wait(self.engine.transact(operations)).map(drop)
    }

    /// What the file does not name stays as it is, and is not forgotten silently.
    fn say_what_else_is_there(&self, durable: &Durable) {
        let listed = vec![
            Operation::ListTopics(ListTopics),
            Operation::ListGroups(ListGroups { topic: None }),
        ];
        let (mut topics, mut groups) = (Vec::new(), Vec::new());
        for answer in wait(self.engine.transact(listed)).unwrap_or_default() {
            match answer {
                Answer::ListTopics(all) => topics.extend(all.into_iter().map(|it| it.name)),
                Answer::ListGroups(all) => {
                    groups.extend(all.into_iter().map(|it| (it.topic, it.group)));
                }
                _ => {}
            }
        }
        topics.retain(|name| durable.topics.iter().all(|it| it.name != *name));
        groups.retain(|(topic, group)| {
            durable.groups.iter().all(|it| it.topic != *topic || it.group != *group)
        });
        if !topics.is_empty() || !groups.is_empty() {
            info!(?topics, ?groups, "in the store and not in the file: kept as they are");
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Why it cannot be relied on, if it cannot.
    pub(super) fn trouble(&self) -> Option<Error> {
        // A writer that is gone is known without anybody asking it for something.
        let ended = self.engine.engine().vitals().ended();
        self.engine.trouble().or_else(|| ended.then_some(Error::Closed))
    }

    /// The store at this moment, or as it was a moment ago: whoever asks often
    /// does not make it work more, and a store that hangs holds up nobody.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = looked.as_ref().is_some_and(|(at, _)| at.elapsed() < LOOK_EVERY);
        let store = self.engine.engine();
        if !fresh && let Some(Ok(mut seen)) = wait_for(self.engine.snapshot(), LOOK_FOR) {
            let config = store.config();
            seen.queue = (store.queued(), config.queue_max);
            seen.database = store.database();
            // A database server looks after its own disk.
            if config.postgres.is_none() {
                let mut log = config.path.as_os_str().to_owned();
                log.push("-wal");
                let log = std::fs::metadata(log).map_or(0, |log| log.len());
                seen.log = (log, config.checkpoint_bytes);
                seen.disk_free = rustix::fs::statvfs(&config.path)
                    .ok()
                    .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
            }
            *looked = Some((Instant::now(), seen));
        }
        let (_, seen) = looked.as_ref()?;
        // What is known without asking is never old.
        let (now, vitals) = (store.config().clock.now(), store.vitals().view());
        Some(Snapshot { now, trouble: self.trouble(), vitals, ..seen.clone() })
    }

    /// Says when the store stops writing or goes on, and tries now and then.
    pub(super) fn tick(&self) {
        let trouble = self.trouble();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        match (&trouble, watched.in_trouble) {
            (Some(trouble), false) => {
                let code = trouble.code();
                error!(error = %trouble, code, "the store cannot write; reads go on");
            }
            (None, true) => info!("the store writes again"),
            _ => {}
        }
        watched.in_trouble = trouble.is_some();
        if trouble.is_some() && watched.probed.elapsed() >= PROBE_EVERY {
            watched.probed = Instant::now();
            // How it went is what the engine remembers.
            drop(tokio::spawn(self.engine.probe()));
        }
    }
}

/// The app API on its address, on threads of its own: it carries messages, and
/// must neither hold up the operator API nor wait for it.
#[derive(Debug)]
pub(super) struct App {
    engine: Engine,
    threads: Runtime,
    drain: Duration,
    surface: Option<Surface>,
}

#[derive(Debug)]
struct Surface {
    config: AppApi,
    address: SocketAddr,
    listener: std::net::TcpListener,
    stop: channel::Sender<bool>,
    serving: JoinHandle<()>,
}

impl App {
    pub(super) fn start(
        config: Option<&AppApi>,
        engine: &Engine,
        workers: Option<usize>,
        drain: Duration,
    ) -> Result<Self, Failure> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if let Some(workers) = workers {
            builder.worker_threads(workers);
        }
        let threads = builder
            .thread_name("selvedge-app")
            .enable_all()
            .build()
            .map_err(|error| Failure::cannot_start("no threads for the app API", error))?;
        let mut app = Self { engine: engine.clone(), threads, drain, surface: None };
        if let Some(config) = config {
            let surface = bind(config).and_then(|listener| app.serve(config, listener));
            app.surface = Some(surface.map_err(|error| {
                let what = format!("the app API cannot listen on {}", config.bind);
                Failure::cannot_start(what, error)
            })?);
        }
        Ok(app)
    }

    /// Where whatever else works on the store's messages may run.
    pub(super) fn threads(&self) -> tokio::runtime::Handle {
        self.threads.handle().clone()
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.surface.as_ref().map(|surface| surface.address)
    }

    fn serve(&self, config: &AppApi, listener: std::net::TcpListener) -> io::Result<Surface> {
        let served = app::Config {
            token: config.token.clone(),
            hosts: config.hosts.clone(),
            connections_max: config.connections_max,
            body_max: config.body_max,
            drain: self.drain,
        };
        let _threads = self.threads.enter();
        let address = listener.local_addr()?;
        let accepting = TcpListener::from_std(listener.try_clone()?)?;
        let (stop, stopped) = channel::channel(false);
        let server = app::Server::new(served, self.engine.clone());
        let serving = self.threads.spawn(server.run(accepting, until(stopped)));
        Ok(Surface { config: config.clone(), address, listener, stop, serving })
    }

    /// Moves to where a changed file wants it.
    pub(super) fn retarget(&mut self, wanted: Option<&AppApi>) -> io::Result<()> {
        let now = self.surface.as_ref();
        if now.map(|now| &now.config) == wanted {
            return Ok(());
        }
        let fresh = match (now, wanted) {
            (Some(now), Some(wanted)) if now.config.bind == wanted.bind => {
                Some(self.serve(wanted, now.listener.try_clone()?)?)
            }
            (_, Some(wanted)) => {
                let fresh = self.serve(wanted, bind(wanted)?)?;
                info!(address = %fresh.address, "app API listening");
                Some(fresh)
            }
            (_, None) => None,
        };
        // What is under way on the old one ends by itself.
        if let Some(before) = std::mem::replace(&mut self.surface, fresh) {
            let _ = before.stop.send(true);
        }
        Ok(())
    }

    /// Takes no more connections; requests under way may end.
    pub(super) async fn close(&mut self) {
        if let Some(surface) = self.surface.take() {
            let _ = surface.stop.send(true);
            drop(surface.listener);
            let _ = surface.serving.await;
        }
    }

    /// Ends the threads.
    pub(super) fn end(self) {
        self.threads.shutdown_background();
    }
}

fn bind(config: &AppApi) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(config.bind)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn until(mut stopped: Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Waits for the store where nothing else can go on meanwhile. The store's own
/// threads answer, so this needs no runtime and cannot wait for itself.
pub(super) fn wait<T>(answer: impl Future<Output = T>) -> T {
    let forever = Duration::from_secs(u64::from(u32::MAX));
    wait_for(answer, forever).expect("the store answers or closes")
}

/// [`wait`], with a bound.
fn wait_for<T>(answer: impl Future<Output = T>, bound: Duration) -> Option<T> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut answer = pin!(answer);
    let begun = Instant::now();
    loop {
        if let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(answer);
        }
        let left = bound.checked_sub(begun.elapsed())?;
        thread::park_timeout(left);
    }
}
