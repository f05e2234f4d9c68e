//! `selvedge run`: configuration, proxy, durable engine, operator and app API,
//! logs and signals, wired together.
//!
//! The main thread runs the operator API and everything that is not proxied
//! traffic, on a runtime of its own, so it answers when the workers are busy.

mod access_log;
mod logging;
mod operated;
mod push;
mod running;
mod store;
mod watch;

use self::{
    access_log::AccessLog,
    push::Pushes,
    running::Running,
    store::{App, Store},
    watch::Watch,
};
use crate::{cli, end_with_stdin, failure::Failure};
use selvedge_api::operator;
use selvedge_config::Output;
use selvedge_patterns::{
    service::{Service, Target},
    time::Instant,
};
use selvedge_proxy::{Hooks, Proxy};
use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch::{self as channel, Receiver},
    task::JoinHandle,
};
use tracing::{error, info, warn};

/// Between two looks at the file: a change is taken after at most two.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What the drain may take longer than the configuration says, for threads to end.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Runs until a signal ends it.
pub(crate) fn run(options: cli::Run) -> Result<(), Failure> {
    let begun = std::time::Instant::now();
    let file = match options.file {
        Some(file) => file,
        None => Some(PathBuf::from("selvedge.yaml"))
            .filter(|file| file.exists())
            .ok_or_else(Failure::no_file)?,
    };
    let loaded = crate::configuration::load(&file)?;
    logging::start(&loaded.telemetry, options.log_format);
    if options.until_stdin_ends {
        end_with_stdin();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::cannot_start("no event loop to be had", error))?;
    runtime.block_on(serve(file, loaded, options.no_access_log, begun))
}

async fn serve(
    file: PathBuf,
    loaded: selvedge_config::Loaded,
    no_access_log: bool,
    begun: std::time::Instant,
) -> Result<(), Failure> {
    // Before anything listens, so that no early signal is lost to its default.
    let mut signals = Signals::listen()
        .map_err(|error| Failure::cannot_start("signals cannot be caught", error))?;
    let operator = loaded.operator.clone();
    let mut watch = Watch::new(&file, loaded.files.clone());
    // The operator surface first: it is the smaller one, and a taken address
    // there must not leave the proxy open for a moment.
    let mut surface = match &operator {
        Some(operator) => Some(Surface::bind(operator)?),
        None => None,
    };
    // The store before anything serves: what cannot be kept must not come in.
    let store = match &loaded.durable {
        Some(durable) => Some(Arc::new(Store::open(durable)?)),
        None => None,
    };
    let mut app = match &store {
        Some(store) => {
            let workers = loaded.proxy.workers.map(std::num::NonZeroUsize::get);
            let drain = loaded.proxy.drain.0;
            Some(App::start(loaded.api.as_ref(), store.engine(), workers, drain)?)
        }
        None => None,
    };
    let access_log = match loaded.telemetry.access_log.filter(|_| !no_access_log) {
        None => None,
        Some(Output::Stdout) => Some(AccessLog::open(io::stdout())),
        Some(Output::Stderr) => Some(AccessLog::open(io::stderr())),
    };
    let access_log = access_log
        .transpose()
        .map_err(|error| Failure::cannot_start("the access log cannot be started", error))?;
    let hooks = Hooks {
        access: access_log
            .clone()
            .map(|log| Arc::new(log) as Arc<dyn selvedge_proxy::access::Sink>),
        ..Hooks::default()
    };
    let proxy = Proxy::start(loaded.proxy.clone(), hooks)
        .map_err(|error| Failure::cannot_start("the proxy cannot start", running::chain(&error)))?;
    let mut pushes = match (&store, &app) {
        (Some(store), Some(app)) => {
            let mut pushes = Pushes::new(store.engine().clone(), proxy.handle(), app.threads());
            if let Some(durable) = &loaded.durable {
                pushes.retarget(&durable.pushes);
            }
            Some(pushes)
        }
        _ => None,
    };
    let running =
        Arc::new(Running::new(file.clone(), loaded, proxy.handle(), store.clone(), access_log));
    if let Some(surface) = &mut surface {
        surface.serve(&running);
    }
    for listener in proxy.handle().listeners() {
        let name = listener.name.as_deref().unwrap_or("ambassador");
        info!(listener = name, address = %listener.address, "listening");
    }
    info!(
        file = %file.display(),
        operator = surface.as_ref().map(|surface| tracing::field::display(surface.address)),
        app = app.as_ref().and_then(App::address).map(tracing::field::display),
        version = env!("CARGO_PKG_VERSION"),
        started_in_ms = begun.elapsed().as_secs_f64() * 1e3,
        "ready"
    );

    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Told::End => break,
                Told::Reload => reload(&running, "SIGHUP").await,
            },
            _ = look.tick() => if watch.changed() {
                reload(&running, "the file changed").await;
            },
        }
        if let Some(fresh) = running.take_change() {
            watch.follow(fresh.files);
            if let Err(error) = retarget(&mut surface, fresh.operator.as_ref(), &running).await {
                error!(%error, "the operator surface could not move and stays as it was");
            }
            if let Some(app) = &mut app
                && let Err(error) = app.retarget(fresh.api.as_ref())
            {
                error!(%error, "the app API could not move and stays as it was");
            }
            if let Some(pushes) = &mut pushes {
                pushes.retarget(&fresh.pushes);
            }
        }
        running.tick();
    }
    drain(proxy, app.as_mut(), pushes.as_mut(), &running, &mut signals).await?;
    if let Some(surface) = surface {
        surface.close().await;
    }
    if let Some(app) = app {
        app.end();
    }
    // The last handle closes the store, which writes what is left.
    drop((running, store));
    Ok(())
}

async fn reload(running: &Arc<Running>, why: &'static str) {
    let running = Arc::clone(running);
    // Resolving names may block; signals and the operator API go on meanwhile.
    let _ = tokio::task::spawn_blocking(move || running.reload(why)).await;
}

/// Lets calls end, within the configured bound; a second signal ends at once.
async fn drain(
    proxy: Proxy,
    app: Option<&mut App>,
    pushes: Option<&mut Pushes>,
    running: &Running,
    signals: &mut Signals,
) -> Result<(), Failure> {
    running.begin_drain();
    // Before the proxy ends the connections on which they send.
    if let Some(pushes) = &pushes {
        pushes.stop();
    }
    let within = proxy.handle().config().drain.0;
    info!(
        within_ms = within.as_millis() as u64,
        "draining: no new connections, calls in flight may end"
    );
    let begun = std::time::Instant::now();
    let proxied = tokio::task::spawn_blocking(move || proxy.shut_down());
    let ended = async {
        let app = async {
            if let Some(app) = app {
                app.close().await;
            }
        };
        let pushes = async {
            if let Some(pushes) = pushes {
                pushes.close().await;
            }
        };
        tokio::join!(app, pushes);
        let _ = proxied.await;
    };
    tokio::select! {
        () = ended => info!(took_ms = begun.elapsed().as_millis() as u64, "drained"),
        () = signals.end() => {
            warn!("second signal: calls in flight are cut");
            running.flush();
            leave(130);
        }
        () = tokio::time::sleep(within + DRAIN_SLACK) => {
            warn!("drain took too long: calls in flight are cut");
            running.flush();
            leave(0);
        }
    }
    running.flush();
    Ok(())
}

/// Ends the process though threads still run.
#[expect(clippy::exit, reason = "the drain is over and what still runs is to be cut")]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}

/// What would happen to a request right after a start with `loaded`.
pub(crate) fn explain_fresh(
    loaded: &selvedge_config::Loaded,
    question: &operator::view::Question,
) -> Result<operator::view::Explanation, String> {
    operated::explain(&loaded.proxy, question, |name| {
        let Some(config) = loaded.proxy.services.iter().find(|service| service.name == name) else {
            return Vec::new();
        };
        let targets = config.endpoints.iter().map(|one| Target::new(one.to_string())).collect();
        let service = Service::new(Instant::ZERO, config.policy.clone(), targets, 0);
        operated::steps(&service, Instant::ZERO)
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    async fn end(&mut self) {
        while self.next().await == Told::Reload {}
    }
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    End,
    Reload,
}

/// The operator API on its address.
struct Surface {
    config: selvedge_config::Operator,
    address: SocketAddr,
    listener: std::net::TcpListener,
    serving: Option<(channel::Sender<bool>, JoinHandle<()>)>,
}

impl Surface {
    fn bind(config: &selvedge_config::Operator) -> Result<Self, Failure> {
        Self::try_bind(config).map_err(|error| {
            Failure::cannot_start(
                format!("the operator API cannot listen on {}", config.bind),
                error,
            )
        })
    }

    fn try_bind(config: &selvedge_config::Operator) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(config.bind)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { config: config.clone(), address, listener, serving: None })
    }

    fn serve(&mut self, running: &Arc<Running>) {
        let config = operator::Config {
            token: self.config.token.clone(),
            hosts: self.config.hosts.clone(),
            ..operator::Config::default()
        };
        let Ok(listener) = self.listener.try_clone().and_then(TcpListener::from_std) else {
            error!("the operator API has no file descriptor left");
            return;
        };
        let (stop, stopped) = channel::channel(false);
        let server = operator::Server::new(config, running.clone());
        let task = tokio::spawn(server.run(listener, until(stopped)));
        self.serving = Some((stop, task));
    }

    async fn close(mut self) {
        self.stop().await;
    }

    async fn stop(&mut self) {
        if let Some((stop, task)) = self.serving.take() {
            let _ = stop.send(true);
            let _ = task.await;
        }
    }
}

async fn until(mut stopped: Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Moves the operator surface to where a changed file wants it.
async fn retarget(
    surface: &mut Option<Surface>,
    wanted: Option<&selvedge_config::Operator>,
    running: &Arc<Running>,
) -> io::Result<()> {
    match (surface.as_mut(), wanted) {
        (Some(now), Some(wanted)) if now.config == *wanted => {}
        (Some(now), Some(wanted)) if now.config.bind == wanted.bind => {
            now.stop().await;
            now.config = wanted.clone();
            now.serve(running);
        }
        (_, Some(wanted)) => {
            let mut fresh = Surface::try_bind(wanted)?;
            fresh.serve(running);
            info!(address = %fresh.address, "operator API listening");
            if let Some(before) = surface.replace(fresh) {
                before.close().await;
            }
        }
        (_, None) => {
            if let Some(before) = surface.take() {
                before.close().await;
            }
        }
    }
    Ok(())
}
