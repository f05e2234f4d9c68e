//! Open-loop load: requests go out when they are due, whether or not the ones
//! before were answered, and each is counted by how it ended.

use crate::raw::{Broken, Connection};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

/// How requests ended.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// By status.
    pub statuses: BTreeMap<u16, usize>,
    /// By Selvedge's code, for answers that Selvedge gave itself.
    pub codes: BTreeMap<String, usize>,
    /// Without a whole answer, by why.
    pub broken: BTreeMap<String, usize>,
    /// From due to answered, sorted when the load has stopped.
    pub latencies: Vec<Duration>,
    /// When each answer other than 2xx came, in order of counting.
    pub failures: Vec<(Instant, u16)>,
    /// When each 2xx answer came, in order of counting.
    pub successes: Vec<Instant>,
    /// The longest that a request was sent after it was due.
    pub late: Duration,
}

impl Counts {
    /// All requests.
    pub fn total(&self) -> usize {
        self.statuses.values().sum::<usize>() + self.broken.values().sum::<usize>()
    }

    /// Answered 2xx.
    pub fn good(&self) -> usize {
        self.statuses.range(200..300).map(|(_, count)| count).sum()
    }

    /// The latency below which this share of the requests stayed.
    ///
    /// # Panics
    ///
    /// When there was no request.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len() - 1;
        self.latencies[((last as f64) * share).round() as usize]
    }
}

impl Load {
    /// Starts `rate` `GET`s a second of `target`, over `connections` kept alive.
    ///
    /// # Panics
    ///
    /// When nobody listens.
    pub fn start(port: u16, target: &str, rate: u32, connections: u32) -> Self {
        let request = format!("GET {target} HTTP/1.1\r\nhost: load\r\n\r\n");
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Mutex::new(Counts::default()));
        let begun = Instant::now();
        let period = Duration::from_secs(1) * connections / rate;
        let workers = (0..connections)
            .map(|nth| {
                let worker = Worker {
                    port,
                    request: request.clone(),
                    first: begun + period * nth / connections,
                    period,
                    stop: Arc::clone(&stop),
                    counts: Arc::clone(&counts),
                };
                std::thread::spawn(move || worker.run())
            })
            .collect();
        Self { stop, counts, workers }
    }

    /// The counts so far.
    ///
    /// # Panics
    ///
    /// When a worker did.
    pub fn so_far(&self) -> Counts {
        self.counts.lock().expect("workers do not panic").clone()
    }

    /// Stops, and gives the counts.
    ///
    /// # Panics
    ///
    /// When a worker did.
    pub fn stop(self) -> Counts {
        self.stop.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.join().expect("workers do not panic");
        }
        let mut counts = self.counts.lock().expect("workers do not panic").clone();
        counts.latencies.sort_unstable();
        counts
    }
}

struct Worker {
    port: u16,
    request: String,
    first: Instant,
    period: Duration,
    stop: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
}

impl Worker {
    fn run(&self) {
        let mut due = self.first;
        let mut connection = None;
        while !self.stop.load(Ordering::SeqCst) {
            let now = Instant::now();
            if due > now {
                crate::wait::pause(due - now);
            }
            let late = due.elapsed();
            let result = self.one(&mut connection);
            let latency = due.elapsed();
            self.count(result, latency, late);
            due += self.period;
        }
    }

    fn one(&self, connection: &mut Option<Connection>) -> Result<(u16, Option<String>), Broken> {
        let reused = connection.is_some();
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::try_open(self.port).map_err(|_| Broken::Closed)?,
        };
        open.send(&self.request);
        let answer = match open.answer() {
            // A kept connection may be closed while idle: as any client, try once anew.
            Err(Broken::Closed | Broken::Reset) if reused => {
                open = Connection::try_open(self.port).map_err(|_| Broken::Closed)?;
                open.send(&self.request);
                open.answer()?
            }
            other => other?,
        };
        let closing =
            answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closing {
            *connection = Some(open);
        }
        Ok((answer.status, answer.code()))
    }

    fn count(
        &self,
        result: Result<(u16, Option<String>), Broken>,
        latency: Duration,
        late: Duration,
    ) {
        let now = Instant::now();
        let mut counts = self.counts.lock().expect("workers do not panic");
        counts.latencies.push(latency);
        counts.late = counts.late.max(late);
        match result {
            Ok((status, code)) => {
                *counts.statuses.entry(status).or_default() += 1;
                if let Some(code) = code {
                    *counts.codes.entry(code).or_default() += 1;
                }
                if (200..300).contains(&status) {
                    counts.successes.push(now);
                } else {
                    counts.failures.push((now, status));
                }
            }
            Err(broken) => {
                *counts.broken.entry(format!("{broken:?}")).or_default() += 1;
                counts.failures.push((now, 0));
            }
        }
    }
}
