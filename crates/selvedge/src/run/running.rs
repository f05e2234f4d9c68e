//! The running process as the operator API sees it, and the one place where a
//! configuration is taken.

use super::{
    access_log::AccessLog,
    operated::{self, History},
    store::Store,
};
use selvedge_api::operator::{Action, Operated, Refusal, Target, view};
use selvedge_config::Loaded;
use selvedge_durable::doctor::{self, Weight};
use selvedge_patterns::{breaker::Control, service::Service};
use selvedge_proxy::Handle;
use std::{
    collections::HashMap,
    error::Error,
    fmt::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use tracing::{info, warn};

/// The process, as seen by its operator.
pub(crate) struct Running {
    file: PathBuf,
    proxy: Handle,
    store: Option<Arc<Store>>,
    started_at_ms: u64,
    access_log: Option<AccessLog>,
    state: Mutex<State>,
    histories: Mutex<HashMap<String, History>>,
    /// Held while a configuration is read and taken, so that two reloads do not cross.
    reloading: Mutex<()>,
}

struct State {
    loaded: Loaded,
    generation: u64,
    loaded_at_ms: u64,
    last_error: Option<(String, u64)>,
    reloads_refused: u64,
    draining: bool,
    /// Set when the configuration changed, until the main loop has looked.
    changed: bool,
}

/// What the main loop must do about a changed configuration.
pub(crate) struct Change {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) operator: Option<selvedge_config::Operator>,
    pub(crate) api: Option<selvedge_config::AppApi>,
    pub(crate) pushes: Vec<selvedge_config::Push>,
}

impl Running {
    pub(crate) fn new(
        file: PathBuf,
        loaded: Loaded,
        proxy: Handle,
        store: Option<Arc<Store>>,
        access_log: Option<AccessLog>,
    ) -> Self {
        let now = unix_ms();
        Self {
            file,
            proxy,
            store,
            started_at_ms: now,
            access_log,
            state: Mutex::new(State {
                loaded,
                generation: 1,
                loaded_at_ms: now,
                last_error: None,
                reloads_refused: 0,
                draining: false,
                changed: false,
            }),
            histories: Mutex::default(),
            reloading: Mutex::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file again and takes it, all or nothing.
    pub(crate) fn reload(&self, why: &str) -> Result<u64, String> {
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        match self.take() {
            Ok(generation) => {
                info!(generation, why, "configuration taken");
                Ok(generation)
            }
            Err(error) => {
                let mut state = self.state();
                state.reloads_refused += 1;
                state.last_error = Some((error.clone(), unix_ms()));
                warn!(generation = state.generation, why, %error, "configuration refused, the last good one stays");
                Err(error)
            }
        }
    }

    fn take(&self) -> Result<u64, String> {
        let loaded = selvedge_config::load(&self.file).map_err(|report| report.to_string())?;
        self.declare(&loaded)?;
        if let Err(error) = self.proxy.apply(loaded.proxy.clone()) {
            // All or nothing: what ran before is declared again.
            let before = self.state().loaded.clone();
            self.declare(&before).map_err(|again| format!("{}; {again}", chain(&error)))?;
            return Err(chain(&error));
        }
        let mut state = self.state();
        if loaded.telemetry != state.loaded.telemetry {
            warn!("`telemetry` changed: it holds from the next start");
        }
        state.loaded = loaded;
        state.generation += 1;
        state.loaded_at_ms = unix_ms();
        state.last_error = None;
        state.changed = true;
        Ok(state.generation)
    }

    /// Puts what `loaded` declares into the store, if it is the same store.
    fn declare(&self, loaded: &Loaded) -> Result<(), String> {
        let same = self.state().loaded.file.durable == loaded.file.durable;
        if !same {
            return Err("`durable` is not what this process was started with: the store cannot be exchanged while it runs, restart to take it".to_owned());
        }
        match (&self.store, &loaded.durable) {
            (Some(store), Some(durable)) => {
                store.declare(durable).map_err(|error| format!("{error} ({})", error.code()))
            }
            _ => Ok(()),
        }
    }

    /// What changed since the last time somebody asked.
    pub(crate) fn take_change(&self) -> Option<Change> {
        let mut state = self.state();
        std::mem::take(&mut state.changed).then(|| Change {
            files: state.loaded.files.clone(),
            operator: state.loaded.operator.clone(),
            api: state.loaded.api.clone(),
            pushes: state.loaded.durable.as_ref().map(|it| it.pushes.clone()).unwrap_or_default(),
        })
    }

    /// Takes what the patterns have to tell: into the log, and into the
    /// histories that the operator API shows.
    pub(crate) fn tick(&self) {
        if let Some(store) = &self.store {
            store.tick();
        }
        let (now, now_ms) = (self.proxy.now(), unix_ms());
        let config = self.proxy.config();
        let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        histories.retain(|name, _| config.services.iter().any(|service| service.name == *name));
        for (service, event) in self.proxy.take_events() {
            operated::log(&service, &event);
            let ago = u64::try_from(now.since(event.at).as_millis()).unwrap_or(0);
            histories.entry(service).or_default().push(now_ms.saturating_sub(ago), event);
        }
    }

    /// From now on it is not ready.
    pub(crate) fn begin_drain(&self) {
        self.state().draining = true;
    }

    /// Writes what is left of the access log. Call when no worker runs any more.
    pub(crate) fn flush(&self) {
        if let Some(log) = &self.access_log {
            log.flush();
        }
    }
}

impl Running {
    fn service(&self, name: &str) -> Result<Arc<Service>, Refusal> {
        self.proxy.service(name).ok_or_else(|| Refusal::Unknown(format!("no service `{name}`")))
    }

    /// Does `act` to every endpoint that `target` means.
    fn each(
        &self,
        target: &Target,
        mut act: impl FnMut(&Service, usize) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let service = self.service(&target.service)?;
        let mut meant = 0;
        for (index, endpoint) in service.endpoints().iter().enumerate() {
            if target.endpoint.as_deref().is_none_or(|wanted| wanted == &**endpoint.address()) {
                act(&service, index)?;
                meant += 1;
            }
        }
        match (&target.endpoint, meant) {
            (Some(endpoint), 0) => {
                Err(Refusal::Unknown(format!("`{}` has no endpoint `{endpoint}`", target.service)))
            }
            _ => Ok(()),
        }
    }

    fn control(&self, target: &Target, control: Control) -> Result<(), Refusal> {
        let now = self.proxy.now();
        self.each(target, |service, index| {
            if service.control_breaker(now, index, control) {
                Ok(())
            } else {
                Err(Refusal::Conflict(format!("`{}` has no breaker configured", target.service)))
            }
        })
    }

    fn drain(&self, target: &Target, draining: bool) -> Result<(), Refusal> {
        let now = self.proxy.now();
        self.each(target, |service, index| {
            service.drain(now, index, draining);
            Ok(())
        })
    }
}

impl Operated for Running {
    fn health(&self) -> view::Health {
        let trouble = self.store.as_ref().and_then(|store| store.trouble());
        let draining = self.state().draining.then(|| "it drains, and ends soon".to_owned());
        let refused = |error: &selvedge_durable::Error| {
            format!("writes are refused: {error} ({})", error.code())
        };
        let why = draining.or_else(|| trouble.as_ref().map(refused));
        view::Health { live: true, ready: why.is_none(), started: true, why }
    }

    fn services(&self) -> Vec<view::Service> {
        let now = self.proxy.now();
        let histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        self.proxy
            .config()
            .services
            .iter()
            .filter_map(|config| {
                let service = self.proxy.service(&config.name)?;
                let counts =
                    self.proxy.counts(&config.name).map(operated::counts).unwrap_or_default();
                Some(operated::service(
                    &config.name,
                    &service,
                    now,
                    counts,
                    histories.get(&config.name),
                ))
            })
            .collect()
    }

    fn listeners(&self) -> Vec<view::Listener> {
        let mut listeners: Vec<view::Listener> = self
            .proxy
            .listeners()
            .into_iter()
            .map(|listener| view::Listener {
                name: listener.name.as_deref().unwrap_or("ambassador").to_owned(),
                address: listener.address.to_string(),
                role: if listener.name.is_some() { "edge" } else { "ambassador" }.to_owned(),
                connections: None,
            })
            .collect();
        listeners.extend(self.state().loaded.operator.iter().map(|operator| view::Listener {
            name: "operator".to_owned(),
            address: operator.bind.to_string(),
            role: "operator".to_owned(),
            connections: None,
        }));
        listeners.extend(self.state().loaded.api.iter().map(|api| view::Listener {
            name: "app".to_owned(),
            address: api.bind.to_string(),
            role: "app".to_owned(),
            connections: None,
        }));
        listeners
    }

    fn routes(&self) -> Vec<view::Route> {
        self.proxy.config().routes.iter().map(operated::route).collect()
    }

    fn explain(&self, question: &view::Question) -> Result<view::Explanation, String> {
        let now = self.proxy.now();
        operated::explain(&self.proxy.config(), question, |name| {
            self.proxy
                .service(name)
                .map(|service| operated::steps(&service, now))
                .unwrap_or_default()
        })
    }

    fn doctor(&self) -> view::Doctor {
        let Some(store) = &self.store else { return view::Doctor::default() };
        let found = store.snapshot().map(|snapshot| doctor::examine(&snapshot));
        let findings = found.unwrap_or_default().into_iter().map(operated::finding).collect();
        view::Doctor { store: true, findings }
    }

    fn config_status(&self) -> view::ConfigStatus {
        let state = self.state();
        view::ConfigStatus {
            generation: state.generation,
            file: self.file.display().to_string(),
            loaded_at_ms: state.loaded_at_ms,
            last_error: state.last_error.as_ref().map(|(error, _)| error.clone()),
            last_error_at_ms: state.last_error.as_ref().map(|(_, at)| *at),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ms: self.started_at_ms,
        }
    }

    fn config_effective(&self) -> String {
        self.state().loaded.effective()
    }

    fn metrics(&self) -> String {
        // The patterns' changes are counted as they are taken, so take them first.
        self.tick();
        let mut text = self.proxy.metrics();
        let refused = {
            let state = self.state();
            (state.reloads_refused, state.last_error.is_some())
        };
        let family = |text: &mut String, name: &str, kind: &str, help: &str, value: &str| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{value}\n");
        };
        family(
            &mut text,
            "selvedge_config_reloads_refused_total",
            "counter",
            "Changed configurations that were refused.",
            &format!(" {}", refused.0),
        );
        family(
            &mut text,
            "selvedge_config_last_reload_refused",
            "gauge",
            "1 while the file on disk is one that was refused.",
            &format!(" {}", u8::from(refused.1)),
        );
        if let Some(store) = &self.store
            && let Some(snapshot) = store.snapshot()
        {
            store.engine().metrics(&snapshot, &mut text);
            let found = doctor::examine(&snapshot);
            let count = |weight| found.iter().filter(|it| it.weight == weight).count();
            family(
                &mut text,
                "selvedge_doctor_findings",
                "gauge",
                "What `selvedge doctor` would say, by weight.",
                &format!("{{weight=\"stuck\"}} {}", count(Weight::Stuck)),
            );
            let attention = count(Weight::Attention);
            let _ = writeln!(text, "selvedge_doctor_findings{{weight=\"attention\"}} {attention}");
        }
        family(
            &mut text,
            "selvedge_process_start_time_seconds",
            "gauge",
            "When the process started, in seconds since the Unix epoch.",
            &format!(" {}", self.started_at_ms as f64 / 1e3),
        );
        family(
            &mut text,
            "selvedge_build_info",
            "gauge",
            "Always 1; the version is a label.",
            &format!("{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        );
        text
    }

    fn act(&self, action: &Action) -> Result<view::Done, Refusal> {
        let done = match action {
            Action::ForceOpen(target) => {
                self.control(target, Control::ForceOpen)?;
                "breaker forced open: every call is rejected until it is reset"
            }
            Action::ForceClose(target) => {
                self.control(target, Control::Disable)?;
                "breaker forced closed: every call is admitted until it is reset"
            }
            Action::Disable(target) => {
                self.control(target, Control::Disable)?;
                "breaker disabled: every call is admitted until it is reset"
            }
            Action::Reset(target) => {
                self.control(target, Control::Automatic)?;
                "breaker reset: closed, and deciding by itself"
            }
            Action::Drain(target) => {
                self.drain(target, true)?;
                "endpoint drained: no new calls, those in flight end by themselves"
            }
            Action::Undrain(target) => {
                self.drain(target, false)?;
                "endpoint back in use"
            }
            Action::Reload => {
                self.reload("the operator asked").map_err(Refusal::Config)?;
                "configuration taken"
            }
        };
        Ok(view::Done { done: done.to_owned(), generation: self.state().generation })
    }
}

/// `error` and what caused it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
