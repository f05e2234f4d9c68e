//! The kill loop: clients publish, consume, append, lock and delay, and a schedule
//! runs every second, while the process is killed at random and at named moments, again and again on one
//! file; after each death a checker reads the store and the history that the
//! clients wrote down.
//!
//! Ten cycles by default, 200 with `SELVEDGE_LONG=1`, as in `cargo xtask test`.
//! A failure prints its seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use selvedge_durable::{
    Clock, Config, Engine, Sqlite, SystemClock,
    group::{Config as GroupConfig, PutGroup, Receipt, Receive, Reply, Settle, Verdict},
    lease::{Acquire, Release},
    schedule::{ListSchedules, Missed, Overlap, PutSchedule},
    stream::{Append, Expected, NewEvent, ReadEvents, ReadStream, Write as StreamWrite},
    topic::{From, NewMessage, Place, Publish, PutTopic, ReadTopic, Settings},
    verify,
};
use selvedge_patterns::random::{Rng, SplitMix64};

use crate::halt::{self, Moment};

const VICTIM: &str = "SELVEDGE_TEST_VICTIM";
/// The moment to stand still at, and how many of its kind pass before.
const HALT: &str = "SELVEDGE_TEST_HALT";
/// Where the schedule publishes.
const RUNS: &str = "runs";
const PUBLISHERS: usize = 4;
const LEASE: Duration = Duration::from_millis(300);

/// What the clients of all cycles know for certain, and what they saw.
#[derive(Clone, Default)]
struct History {
    /// Position and content of each acknowledged publish.
    published: BTreeMap<u64, String>,
    /// Contents of acknowledged delayed publishes.
    delayed: BTreeSet<String>,
    /// Positions in the order of their first delivery, by key.
    delivered: BTreeMap<String, Vec<u64>>,
    seen: BTreeSet<u64>,
    /// Which delivery of each position was acknowledged.
    acknowledged: BTreeMap<u64, u32>,
    /// Version and id of each acknowledged event.
    events: BTreeMap<u64, String>,
    tokens: Vec<u64>,
}

impl History {
    fn note(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (Some(what), Some(first)) = (words.next(), words.next()) else { return };
        let second = words.next().unwrap_or_default().to_owned();
        let number = || first.parse::<u64>().unwrap();
        match what {
            "published" => {
                assert_eq!(self.published.insert(number(), second), None, "position given twice");
            }
            "delayed" => {
                self.delayed.insert(first.to_owned());
            }
            "delivered" => {
                // A consumer that slept may write down an earlier delivery late.
                let attempt: u32 = words.next().unwrap().parse().unwrap();
                let before = self.acknowledged.get(&number());
                assert!(
                    before.is_none_or(|before| attempt <= *before),
                    "{first} was delivered after its acknowledgement was confirmed"
                );
                if self.seen.insert(number()) {
                    self.delivered.entry(second).or_default().push(number());
                }
            }
            "acknowledged" => {
                self.acknowledged.insert(number(), second.parse().unwrap());
            }
            "appended" => {
                assert_eq!(self.events.insert(number(), second), None, "version accepted twice");
            }
            "token" => self.tokens.push(number()),
            _ => {}
        }
    }
}

/// The configuration of a victim: checkpoints are frequent, and it stands still
/// at the moment that its environment names.
fn config_of_a_victim(path: String) -> Config {
    let plan = std::env::var(HALT).ok();
    let plan = plan.as_deref().and_then(|plan| plan.split_once(' '));
    let vfs = plan.map(|(moment, passes)| {
        halt::plan(Moment::named(moment).unwrap(), passes.parse().unwrap())
    });
    Config { vfs, checkpoint_bytes: 1 << 20, ..Config::new(path) }
}

/// Does nothing in a usual run; in a process of its own it is the one to be killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_as_the_victim() {
    let Ok(path) = std::env::var(VICTIM) else { return };
    let cycle = std::env::var("SELVEDGE_TEST_CYCLE").unwrap();
    let store = Sqlite::open(config_of_a_victim(path)).unwrap();
    // The test harness has begun a line of its own.
    say("\nbegun".to_owned());
    let mut clients = tokio::task::JoinSet::new();
    for publisher in 0..PUBLISHERS {
        clients.spawn(publish(store.clone(), format!("{cycle}.{publisher}"), publisher));
    }
    for _ in 0..2 {
        clients.spawn(consume(store.clone()));
    }
    clients.spawn(append(store.clone(), cycle.clone()));
    clients.spawn(lock(store.clone()));
    clients.spawn(delay(store, cycle));
    clients.join_all().await;
}

/// A line that is either there whole or not at all when the process is killed.
pub(crate) fn say(line: String) {
    let mut out = std::io::stdout().lock();
    out.write_all((line + "\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn message(key: &str, text: String) -> NewMessage {
    NewMessage { key: Some(key.to_owned()), payload: Some(text.into()), ..NewMessage::default() }
}

async fn publish(store: Sqlite, name: String, key: usize) {
    for n in 0.. {
        let text = format!("{name}.{n}");
        let messages = vec![message(&format!("k{key}"), text.clone())];
        let answer = store.execute(Publish { topic: "t".to_owned(), messages }).await.unwrap();
        let Place::Log(position) = answer[0].place else { panic!("not in the log") };
        say(format!("published {position} {text}"));
    }
}

async fn consume(store: Sqlite) {
    loop {
        let deliveries = store.execute(receive()).await.unwrap();
        for delivery in &deliveries {
            let key = delivery.message.key.as_deref().unwrap_or_default();
            let (position, attempt) = (delivery.message.position, delivery.receipt.attempt);
            say(format!("delivered {position} {key} {attempt}"));
        }
        for (receipt, settled) in acknowledge(&store, deliveries).await {
            if settled {
                say(format!("acknowledged {} {}", receipt.position, receipt.attempt));
            }
        }
    }
}

fn receive() -> Receive {
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    Receive {
        topic,
        group,
        max: 10,
        lease: Some(LEASE),
        consumer: None,
        wait: Duration::from_millis(100),
    }
}

async fn acknowledge(
    store: &Sqlite,
    deliveries: Vec<selvedge_durable::group::Delivery>,
) -> Vec<(Receipt, bool)> {
    let replies = deliveries
        .iter()
        .map(|delivery| Reply { receipt: delivery.receipt, verdict: Verdict::Ack, reason: None })
        .collect();
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    let settle = Settle { topic, group, replies, strict: false };
    let answers = store.execute(settle).await.unwrap();
    let receipts = deliveries.iter().map(|delivery| delivery.receipt);
    receipts.zip(answers.iter().map(Result::is_ok)).collect()
}

async fn append(store: Sqlite, cycle: String) {
    let read = ReadStream { stream: "s".to_owned(), from: u64::MAX, backwards: true, max: 1 };
    let mut last = store.execute(read).await.ok().map(|page| page.last);
    for n in 0.. {
        let id = format!("{cycle}.{n}");
        let event = NewEvent { id: Some(id.clone()), kind: "x".to_owned(), ..NewEvent::default() };
        let expected = last.map_or(Expected::None, Expected::Exact);
        let write = StreamWrite { stream: "s".to_owned(), expected, events: vec![event] };
        let appended = store.execute(Append { writes: vec![write] }).await.unwrap();
        last = appended.versions[0];
        say(format!("appended {} {id}", last.unwrap()));
    }
}

async fn lock(store: Sqlite) {
    loop {
        let acquire = Acquire {
            resource: "r".to_owned(),
            owner: "victim".to_owned(),
            ttl: Duration::from_millis(50),
            permits: 1,
            wait: Duration::from_secs(10),
        };
        let token = store.execute(acquire).await.unwrap().token;
        say(format!("token {token}"));
        let _ = store.execute(Release { resource: "r".to_owned(), token }).await;
    }
}

async fn delay(store: Sqlite, cycle: String) {
    for n in 0.. {
        let text = format!("d{cycle}.{n}");
        let deliver_at = Some(SystemClock.now() + Duration::from_millis(30));
        let messages = vec![NewMessage { deliver_at, ..message("delayed", text.clone()) }];
        store.execute(Publish { topic: "t".to_owned(), messages }).await.unwrap();
        say(format!("delayed {text}"));
    }
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a random test that fails says how to repeat it")]
async fn nothing_acknowledged_is_lost_to_kills() {
    let long = std::env::var_os("SELVEDGE_LONG").is_some();
    let seed = std::env::var("SELVEDGE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemClock.now().as_micros());
    eprintln!("seed {seed}: repeat with SELVEDGE_SEED={seed}");
    let mut rng = SplitMix64::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    prepare(&path).await;
    let mut history = History::default();
    let mut reached = BTreeSet::new();
    for cycle in 0..if long { 200 } else { 10 } {
        let end = End::at_random(&mut rng, cycle);
        reached.extend(kill_one(&path, cycle, end, &mut history));
        assert_eq!(verify(&Config::new(&path)).unwrap(), [] as [String; 0], "cycle {cycle}");
        check(&path, &history).await;
    }
    assert!(
        history.published.len() > 100 && history.acknowledged.len() > 100,
        "nothing was tested"
    );
    assert!(!long || reached.len() == Moment::ALL.len(), "only these came: {reached:?}");
    drain(&path, &history).await;
    let store = Sqlite::open(Config::new(&path)).unwrap();
    let runs = ReadTopic { topic: RUNS.to_owned(), from: From::First, max: 10 };
    assert!(!store.execute(runs).await.unwrap().is_empty(), "the schedule never ran");
}

/// When a victim is killed: at the moment, if it comes before the time.
struct End {
    after: Duration,
    moment: Option<(Moment, u64)>,
}

impl End {
    /// Every second one at a moment, one kind after the other.
    fn at_random(rng: &mut SplitMix64, cycle: usize) -> Self {
        let after = Duration::from_millis(50 + rng.below(400));
        let moment = Moment::ALL[cycle / 2 % Moment::ALL.len()];
        // A checkpoint syncs once, a batch is written page by page.
        let passes = rng.below(match moment {
            Moment::BeforeCheckpointSync => 2,
            Moment::InWrite | Moment::InCheckpoint => 300,
            Moment::BeforeSync | Moment::AfterSync => 60,
        });
        Self { after, moment: (cycle % 2 == 1).then_some((moment, passes)) }
    }
}

async fn prepare(path: &Path) {
    let store = Sqlite::open(Config::new(path)).unwrap();
    let (name, settings) = ("t".to_owned(), Settings::default());
    store.execute(PutTopic { name, settings }).await.unwrap();
    let config = GroupConfig { ordered: true, attempts: 1000, ..GroupConfig::default() };
    let (name, settings) = (RUNS.to_owned(), Settings::default());
    store.execute(PutTopic { name, settings }).await.unwrap();
    let schedule = PutSchedule {
        name: "tick".to_owned(),
        spec: "@every 1s".to_owned(),
        zone: "UTC".to_owned(),
        overlap: Overlap::Allow,
        missed: Missed::All { limit: 10_000 },
        topic: RUNS.to_owned(),
        message: message("tick", "run".to_owned()),
    };
    store.execute(schedule).await.unwrap();
    let (topic, group, from) = ("t".to_owned(), "g".to_owned(), From::First);
    store.execute(PutGroup { topic, group, config, from }).await.unwrap();
}

/// One life; gives the moment at which it was killed, if it was one.
fn kill_one(path: &Path, cycle: usize, end: End, history: &mut History) -> Option<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crash::acts_as_the_victim", "--nocapture", "--test-threads=1"])
        .env(VICTIM, path)
        .env("SELVEDGE_TEST_CYCLE", cycle.to_string())
        .stdout(Stdio::piped());
    if let Some((moment, passes)) = end.moment {
        command.env(HALT, format!("{moment:?} {passes}"));
    }
    let mut victim = command.spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let (mut killed_at, mut killed, mut reached) = (None, false, None);
    for line in lines.map_while(Result::ok) {
        // Time counts from the first sign of work, so that every cycle does some.
        let begun = *killed_at.get_or_insert_with(std::time::Instant::now);
        let at = line.strip_prefix("at ");
        if !killed && (at.is_some() || line.contains(' ') && begun.elapsed() >= end.after) {
            reached = at.map(str::to_owned);
            victim.kill().unwrap();
            killed = true;
        }
        history.note(&line);
    }
    assert!(!victim.wait().unwrap().success() && killed, "the victim ended by itself");
    reached
}

async fn log(store: &Sqlite) -> Vec<(u64, String)> {
    let (mut all, mut from) = (Vec::new(), From::First);
    loop {
        let read = ReadTopic { topic: "t".to_owned(), from, max: 10_000 };
        let messages = store.execute(read).await.unwrap();
        let Some(last) = messages.last() else { return all };
        from = From::Position(last.position + 1);
        all.extend(messages.into_iter().map(|message| {
            let text = String::from_utf8(message.payload.unwrap().to_vec()).unwrap();
            (message.position, text)
        }));
    }
}

/// Every run has come once, none before its time, none is left out, and what was
/// due while nobody was there is made up for at once.
async fn check_runs(store: &Sqlite) {
    store.wake().await.unwrap();
    let mut dues: Vec<u64> = Vec::new();
    let mut from = From::First;
    loop {
        let read = ReadTopic { topic: RUNS.to_owned(), from, max: 10_000 };
        let runs = store.execute(read).await.unwrap();
        let Some(last) = runs.last() else { break };
        from = From::Position(last.position + 1);
        for run in &runs {
            let due = run.headers.iter().find(|(name, _)| name == "selvedge-due");
            let due: u64 = due.unwrap().1.parse().unwrap();
            assert!(run.at.as_micros() >= due, "a run of {due} came at {:?}", run.at);
            dues.push(due);
        }
    }
    for two in dues.windows(2) {
        assert_eq!(two[1] - two[0], 1_000_000, "a run came twice or never: {dues:?}");
    }
    let next = store.execute(ListSchedules).await.unwrap()[0].next.unwrap();
    if let Some(last) = dues.last() {
        assert_eq!(next.as_micros(), last + 1_000_000, "the next run follows the last");
    }
    let late = SystemClock.now().since(next);
    assert!(late < Duration::from_secs(5), "what was due at {next:?} has not come");
}

async fn check(path: &Path, history: &History) {
    let store = Sqlite::open(Config::new(path)).unwrap();
    check_runs(&store).await;
    let log = log(&store).await;
    let positions: Vec<u64> = log.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (1..=log.len() as u64).collect::<Vec<_>>(), "positions are dense");
    for (position, text) in &history.published {
        assert_eq!(
            &log[*position as usize - 1].1,
            text,
            "an acknowledged publish moved or is gone"
        );
    }
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    for (_, text) in log.iter().filter(|(_, text)| !text.starts_with('d')) {
        let (client, n) = text.rsplit_once('.').unwrap();
        let before = last.insert(client.to_owned(), n.parse().unwrap());
        assert!(before.is_none_or(|before| before + 1 == n.parse::<u64>().unwrap()), "{text}");
    }
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let more = store.execute(ReadEvents { after, max: 10_000 }).await.unwrap();
        let Some(last) = more.last() else { break };
        after = last.position;
        events.extend(more);
    }
    for (n, event) in (0..).zip(&events) {
        assert_eq!((event.version, event.position), (n, n + 1), "versions are dense");
    }
    for (version, id) in &history.events {
        assert_eq!(
            events[*version as usize].id.as_ref(),
            Some(id),
            "an acknowledged event is gone"
        );
    }
    assert!(history.tokens.is_sorted_by(|a, b| a < b), "tokens rise: {:?}", history.tokens);
    for (key, positions) in &history.delivered {
        assert!(positions.is_sorted(), "key {key} was delivered out of order");
    }
}

/// Takes what is left: every message was acknowledged, or comes now, or was in
/// the hands of a consumer whose acknowledgement may have been done unconfirmed.
async fn drain(path: &Path, history: &History) {
    let store = Sqlite::open(Config::new(path)).unwrap();
    let mut drained = BTreeSet::new();
    let mut quiet = 0;
    while quiet < 8 {
        let deliveries = store.execute(receive()).await.unwrap();
        quiet = if deliveries.is_empty() { quiet + 1 } else { 0 };
        for delivery in &deliveries {
            let position = delivery.message.position;
            assert!(!history.acknowledged.contains_key(&position), "{position} came back");
            drained.insert(position);
        }
        acknowledge(&store, deliveries).await;
    }
    let log = log(&store).await;
    for (position, text) in &log {
        let accounted = history.acknowledged.contains_key(position)
            || drained.contains(position)
            || history.seen.contains(position);
        assert!(accounted, "{position} ({text}) was lost between log and group");
    }
    let texts: BTreeSet<&String> = log.iter().map(|(_, text)| text).collect();
    for text in &history.delayed {
        assert!(texts.contains(text), "the delayed message {text} never came");
    }
}

/// The checker is worth something if it notices what it is there for.
#[tokio::test]
async fn a_history_that_is_not_the_stores_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    prepare(&path).await;
    let mut honest = History::default();
    let end = End { after: Duration::from_millis(300), moment: None };
    kill_one(&path, 0, end, &mut honest);
    check(&path, &honest).await;
    let position = *honest.published.keys().last().unwrap();
    let version = *honest.events.keys().last().unwrap();
    let key = honest.delivered.keys().next().unwrap().clone();
    let forgeries: [(&str, fn(&mut History, u64, u64, &str)); 5] = [
        ("a lost message", |history, position, _, _| {
            history.published.insert(position + 1_000_000, "0.0.0".to_owned());
        }),
        ("another message", |history, position, _, _| {
            history.published.insert(position, "0.0.999999".to_owned());
        }),
        ("another event", |history, _, version, _| {
            history.events.insert(version, "0.999999".to_owned());
        }),
        ("a token twice", |history, _, _, _| history.tokens.extend([7, 7])),
        ("a key out of order", |history, _, _, key| {
            history.delivered.entry(key.to_owned()).or_default().extend([2, 1]);
        }),
    ];
    for (what, forge) in forgeries {
        let (mut forged, path) = (honest.clone(), path.clone());
        forge(&mut forged, position, version, &key);
        let checked = tokio::spawn(async move { check(&path, &forged).await }).await;
        assert!(checked.is_err_and(|error| error.is_panic()), "{what} was not noticed");
    }
}
