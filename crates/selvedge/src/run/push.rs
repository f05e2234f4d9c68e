//! Brings messages to services, as the file says: starts what it asks for and
//! stops what it does not ask for any more.

use super::store::Engine;
use selvedge_api::push::{Config, Mode, Push, Secret, Through};
use selvedge_config::Push as Wanted;
use selvedge_proxy::Handle;
use tokio::{
    sync::watch::{self as channel, Receiver},
    task::JoinHandle,
};
use tracing::info;

/// Every group that is pushed.
pub(super) struct Pushes {
    engine: Engine,
    proxy: Handle,
    threads: tokio::runtime::Handle,
    running: Vec<Running>,
}

struct Running {
    wanted: Wanted,
    stop: channel::Sender<bool>,
    task: JoinHandle<()>,
}

impl Pushes {
    /// None yet; they will run on `threads`.
    pub(super) const fn new(
        engine: Engine,
        proxy: Handle,
        threads: tokio::runtime::Handle,
    ) -> Self {
        Self { engine, proxy, threads, running: Vec::new() }
    }

    /// Makes them what a file asks for; those that did not change go on.
    pub(super) fn retarget(&mut self, wanted: &[Wanted]) {
        self.running.retain(|running| {
            let stays = wanted.contains(&running.wanted);
            if !stays {
                // What is under way ends by itself.
                let _ = running.stop.send(true);
            }
            stays
        });
        for wanted in wanted {
            if self.running.iter().all(|running| running.wanted != *wanted) {
                let started = self.start(wanted.clone());
                self.running.push(started);
            }
        }
    }

    fn start(&self, wanted: Wanted) -> Running {
        let config = Config {
            path: wanted.path.clone(),
            mode: if wanted.structured { Mode::Structured } else { Mode::Binary },
            secrets: wanted.secrets.iter().filter_map(|text| Secret::parse(text)).collect(),
            concurrency: wanted.concurrency,
            timeout: wanted.timeout,
            ..Config::new(&wanted.topic, &wanted.group)
        };
        info!(topic = wanted.topic, group = wanted.group, service = wanted.service, "pushing");
        let carrier = Through::new(self.proxy.clone(), &wanted.service);
        let (stop, stopped) = channel::channel(false);
        let push = Push::new(self.engine.clone(), carrier, config);
        let task = self.threads.spawn(push.run(until(stopped)));
        Running { wanted, stop, task }
    }

    /// Tells all of them to begin nothing more.
    pub(super) fn stop(&self) {
        for running in &self.running {
            let _ = running.stop.send(true);
        }
    }

    /// Stops all of them; answers when their last requests have ended.
    pub(super) async fn close(&mut self) {
        self.stop();
        for running in self.running.drain(..) {
            let _ = running.task.await;
        }
    }
}

async fn until(mut stopped: Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
