//! Power cuts: clients work on a store whose disk loses what was not synced,
//! the power goes at any change, and after each restart a checker compares the
//! store with what the clients were told.
//!
//! 100 seeds by default, 1,000 with `SELVEDGE_LONG=1` (less where a seed takes longer; all
//! of it under three minutes on two cores in the profile `long`), as many as `SELVEDGE_SEEDS`
//! says, or the one of `SELVEDGE_SEED`. A failure prints its seed; the seed repeats
//! the work and the damage, the machine decides how the threads of the store
//! interleave.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use selvedge_durable::{
    Clock, Config, Engine, Error, ManualClock, Operation, Sqlite,
    group::{Config as GroupConfig, PutGroup, Receive, Reply, Settle, Verdict},
    lease::{Acquire, GetLease, Release},
    state::{Condition, GetState, PutState},
    stream::{Append, Expected, NewEvent, ReadStream, Write as StreamWrite},
    topic::{From, NewMessage, Place, Publish, PutTopic, ReadTopic, Settings},
    verify,
};
use selvedge_patterns::{
    random::{Rng, SplitMix64},
    wall::Wall,
};
use tempfile::TempDir;

use crate::disk::{Disk, End, Faults};

const LEASE: Duration = Duration::from_secs(30);
const DELAY: Duration = Duration::from_secs(10);
const SYNCED: &str = "synced";
const RELAXED: &str = "relaxed";
/// What a client is told when the disk could not sync.
const UNSYNCED: &str = "the disk failed to keep";

/// What the clients of all cycles were told, and what they asked for.
#[derive(Default)]
struct History {
    /// Content of each acknowledged publish, by topic and position.
    published: BTreeMap<(&'static str, u64), String>,
    /// What was sent, acknowledged or not.
    sent: BTreeSet<String>,
    /// Contents of acknowledged delayed messages.
    delayed: BTreeSet<String>,
    /// Positions that were acknowledged by a consumer, or may have been.
    settled: BTreeSet<u64>,
    perhaps_settled: BTreeSet<u64>,
    /// Ids of acknowledged events by version: the same in both streams.
    events: BTreeMap<u64, String>,
    /// The greatest acknowledged value of the state, and the greatest sent.
    state: (u64, u64),
    tokens: Vec<u64>,
    /// The lock's token, if it was acquired and its release was never asked for.
    held: Option<u64>,
    failures: Vec<String>,
}

type Shared = Arc<Mutex<History>>;

/// A disk, the place of its store, and a clock that stands still.
pub(crate) struct Rig {
    pub(crate) disk: Disk,
    path: PathBuf,
    clock: Arc<ManualClock>,
    /// The store's lock is a file of the real disk.
    _folder: TempDir,
}

impl Rig {
    pub(crate) fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        // `verify` insists on a file.
        std::fs::File::create(&path).unwrap();
        let clock = Arc::new(ManualClock::new(Wall::from_secs(1_800_000_000)));
        Self { disk: Disk::new(seed), path, clock, _folder: folder }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            clock: self.clock.clone(),
            vfs: Some(self.disk.name()),
            readers: 1,
            checkpoint_bytes: 1 << 20,
            cache_bytes: 256 << 10,
            recover_every: Duration::ZERO,
            ..Config::new(&self.path)
        }
    }

    pub(crate) fn open(&self) -> Result<Sqlite, Error> {
        Sqlite::open(self.config())
    }

    /// Opens it on a disk that may fail to sync, as somebody would who starts it again.
    async fn open_somehow(&self) -> Result<Sqlite, String> {
        for _ in 0..100 {
            let opened = match self.open() {
                Ok(store) => prepare(&store).await.map(|()| store),
                Err(error) => Err(error),
            };
            match opened {
                Err(error @ Error::Unsynced { .. }) => drop(error),
                other => return other.map_err(|error| error.to_string()),
            }
        }
        Err("it cannot be opened".to_owned())
    }
}

/// Creates what the clients need; what is there already is left as it is.
async fn prepare(store: &Sqlite) -> Result<(), Error> {
    for (name, relaxed) in [(SYNCED, false), (RELAXED, true)] {
        let settings = Settings { relaxed, ..Settings::default() };
        store.execute(PutTopic { name: name.to_owned(), settings }).await?;
    }
    let config = GroupConfig { lease: LEASE, attempts: 1000, ..GroupConfig::default() };
    let (topic, group) = (SYNCED.to_owned(), "g".to_owned());
    store.execute(PutGroup { topic, group, config, from: From::First }).await.map(drop)
}

/// A text that says how long it must be, so that a torn one is noticed.
fn text(name: &str, n: u64, size: u64) -> String {
    format!("{name}.{n}/{size}/{}", "x".repeat(size as usize))
}

fn whole(text: &str) -> bool {
    let mut parts = text.splitn(3, '/').skip(1);
    let size = parts.next().and_then(|size| size.parse::<usize>().ok());
    let rest = parts.next().unwrap_or_default();
    size == Some(rest.len()) && rest.bytes().all(|byte| byte == b'x')
}

fn message(text: &str) -> NewMessage {
    NewMessage { payload: Some(text.to_owned().into()), ..NewMessage::default() }
}

fn publish_of(topic: &str, messages: Vec<NewMessage>) -> Publish {
    Publish { topic: topic.to_owned(), messages }
}

/// Every client at once, each until it has done enough or the first failure;
/// one of them publishes to the topic `unsynced`.
async fn work(
    store: &Sqlite,
    seed: (u64, u64),
    now: Wall,
    unsynced: &'static str,
    history: &mut History,
) {
    let (seed, cycle) = seed;
    let shared: Shared = Arc::new(Mutex::new(std::mem::take(history)));
    let mut clients = tokio::task::JoinSet::new();
    let mut client = |name: &'static str, number: u64| {
        let (store, history) = (store.clone(), shared.clone());
        let rng = SplitMix64::new(seed ^ (cycle << 32) ^ (number << 48));
        let id = format!("{cycle}.{number}");
        clients.spawn(async move {
            let result = match name {
                "append" => append(store, id, &history).await,
                "count" => count(store, &history).await,
                "lock" => lock(store, rng, &history).await,
                "consume" => consume(store, rng, &history).await,
                "delay" => delay(store, id, now, &history).await,
                topic => publish(store, topic, id, rng, &history).await,
            };
            if let Err(error) = result {
                history.lock().failures.push(format!("{name}: {error}"));
            }
        });
    };
    let names = [SYNCED, SYNCED, SYNCED, unsynced, "append", "count", "lock", "consume", "delay"];
    for (number, name) in (0..).zip(names) {
        client(name, number);
    }
    clients.join_all().await;
    *history = std::mem::take(&mut shared.lock());
}

async fn publish(
    store: Sqlite,
    topic: &'static str,
    id: String,
    mut rng: SplitMix64,
    history: &Shared,
) -> Result<(), Error> {
    for n in 0..25 {
        let count = 1 + rng.below(3);
        let texts: Vec<String> =
            (0..count).map(|k| text(&format!("{id}.{k}"), n, rng.below(3000))).collect();
        history.lock().sent.extend(texts.iter().cloned());
        let messages = texts.iter().map(|text| message(text)).collect();
        let answers = store.execute(publish_of(topic, messages)).await?;
        for (answer, text) in answers.iter().zip(texts) {
            let Place::Log(position) = answer.place else { continue };
            history.lock().published.insert((topic, position), text);
        }
    }
    Ok(())
}

/// The same event at the end of two streams.
async fn append(store: Sqlite, id: String, history: &Shared) -> Result<(), Error> {
    let read = ReadStream { stream: "a".to_owned(), from: u64::MAX, backwards: true, max: 1 };
    let mut last = match store.execute(read).await {
        Ok(page) => Some(page.last),
        Err(Error::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    for n in 0..25 {
        let id = format!("{id}.{n}");
        let write = |stream: &str| StreamWrite {
            stream: stream.to_owned(),
            expected: last.map_or(Expected::None, Expected::Exact),
            events: vec![NewEvent {
                id: Some(format!("{stream}{id}")),
                kind: "x".to_owned(),
                data: vec![b'x'; 500].into(),
                ..NewEvent::default()
            }],
        };
        let writes = vec![write("a"), write("b")];
        let appended = store.execute(Append { writes }).await?;
        last = appended.versions[0];
        history.lock().events.insert(last.unwrap_or_default(), id);
    }
    Ok(())
}

/// A number in the state, and a message that says the same, in one transaction.
async fn count(store: Sqlite, history: &Shared) -> Result<(), Error> {
    let (mut n, mut tag) = counted(&store).await?;
    for _ in 0..25 {
        n += 1;
        history.lock().state.1 = n;
        let text = text("count", n, 100);
        history.lock().sent.insert(text.clone());
        let put = value("count", n.to_string(), tag.map_or(Condition::Absent, Condition::Tag));
        let publish = publish_of(SYNCED, vec![message(&text)]);
        let both = vec![Operation::PutState(put), Operation::Publish(publish)];
        let answers = store.transact(both).await?;
        if let [selvedge_durable::Answer::PutState(new), _] = &answers[..] {
            tag = Some(*new);
        }
        history.lock().state.0 = n;
    }
    Ok(())
}

fn value(key: &str, value: String, condition: Condition) -> PutState {
    PutState { key: key.to_owned(), value: value.into(), content_type: None, condition, ttl: None }
}

async fn counted(store: &Sqlite) -> Result<(u64, Option<u64>), Error> {
    match store.execute(GetState { key: "count".to_owned() }).await {
        Ok(value) => {
            let text = String::from_utf8_lossy(&value.value);
            Ok((text.parse().unwrap_or(0), Some(value.tag)))
        }
        Err(Error::NotFound { .. }) => Ok((0, None)),
        Err(error) => Err(error),
    }
}

async fn lock(store: Sqlite, mut rng: SplitMix64, history: &Shared) -> Result<(), Error> {
    let resource = "r".to_owned();
    // Whoever held it before the cut is this client.
    let mut holders = store.execute(GetLease { resource: resource.clone() }).await?;
    let mut mine = holders.pop().map(|holder| holder.token);
    for _ in 0..25 {
        if let Some(token) = mine.take() {
            history.lock().held = None;
            store.execute(Release { resource: resource.clone(), token }).await?;
        }
        let acquire = Acquire {
            resource: resource.clone(),
            owner: "client".to_owned(),
            ttl: Duration::from_secs(86_400),
            permits: 1,
            wait: Duration::ZERO,
        };
        let grant = store.execute(acquire).await?;
        let mut history = history.lock();
        history.tokens.push(grant.token);
        history.held = Some(grant.token);
        mine = Some(grant.token);
        if rng.below(20) == 0 {
            break;
        }
    }
    Ok(())
}

fn receive(max: usize) -> Receive {
    let (topic, group) = (SYNCED.to_owned(), "g".to_owned());
    Receive { topic, group, max, lease: None, consumer: None, wait: Duration::ZERO }
}

async fn consume(store: Sqlite, mut rng: SplitMix64, history: &Shared) -> Result<(), Error> {
    for _ in 0..25 {
        let deliveries = store.execute(receive(1 + rng.below(5) as usize)).await?;
        // Some are forgotten, as by a consumer that died.
        let kept = deliveries.iter().filter(|_| rng.below(4) > 0);
        let replies: Vec<Reply> = kept
            .map(|delivery| Reply {
                receipt: delivery.receipt,
                verdict: Verdict::Ack,
                reason: None,
            })
            .collect();
        let positions: Vec<u64> = replies.iter().map(|reply| reply.receipt.position).collect();
        history.lock().perhaps_settled.extend(&positions);
        let (topic, group) = (SYNCED.to_owned(), "g".to_owned());
        store.execute(Settle { topic, group, replies, strict: true }).await?;
        history.lock().settled.extend(positions);
    }
    Ok(())
}

async fn delay(store: Sqlite, id: String, now: Wall, history: &Shared) -> Result<(), Error> {
    for n in 0..10 {
        let text = text(&format!("delayed{id}"), n, 50);
        history.lock().sent.insert(text.clone());
        let delayed = NewMessage { deliver_at: Some(now + DELAY), ..message(&text) };
        store.execute(publish_of(SYNCED, vec![delayed])).await?;
        history.lock().delayed.insert(text);
    }
    Ok(())
}

async fn log(store: &Sqlite, topic: &str) -> Result<Vec<String>, String> {
    let (mut all, mut from) = (Vec::new(), From::First);
    loop {
        let read = ReadTopic { topic: topic.to_owned(), from, max: 10_000 };
        let messages = store.execute(read).await.map_err(|error| error.to_string())?;
        let Some(last) = messages.last() else { return Ok(all) };
        from = From::Position(last.position + 1);
        for message in messages {
            if message.position != all.len() as u64 + 1 {
                return Err(format!("{topic}: {} follows {}", message.position, all.len()));
            }
            all.push(
                String::from_utf8_lossy(message.payload.as_deref().unwrap_or(b"")).into_owned(),
            );
        }
    }
}

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}

/// Whether the store is what the clients were told. What it shows now, it must
/// show for ever.
async fn check(store: &Sqlite, history: &mut History) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for topic in [SYNCED, RELAXED] {
        let log = log(store, topic).await?;
        for (position, text) in (1..).zip(&log) {
            ensure(whole(text), || format!("{topic} {position} is torn: {text}"))?;
            ensure(history.sent.contains(text), || format!("{topic} {position}: nobody sent it"))?;
            ensure(seen.insert(text.clone()), || format!("{text} is there twice"))?;
        }
        let told = history.published.range((topic, 0)..=(topic, u64::MAX));
        for ((_, position), text) in told {
            match log.get(*position as usize - 1) {
                Some(there) => {
                    ensure(there == text || topic == RELAXED, || format!("{position} changed"))?;
                }
                None => ensure(topic == RELAXED, || format!("acknowledged {position} is lost"))?,
            }
        }
        history.published.retain(|(of, _), _| *of != topic);
        history.published.extend((1..).zip(log).map(|(position, text)| ((topic, position), text)));
    }
    check_state(store, history, &seen).await?;
    check_events(store, history).await
}

async fn check_state(
    store: &Sqlite,
    history: &mut History,
    seen: &BTreeSet<String>,
) -> Result<(), String> {
    let (n, _) = counted(store).await.map_err(|error| error.to_string())?;
    let (told, sent) = history.state;
    ensure((told..=sent).contains(&n), || format!("state {n}, told {told}, sent {sent}"))?;
    history.state = (n, n);
    let messages = seen.iter().filter(|text| text.starts_with("count.")).count() as u64;
    ensure(messages == n, || format!("state {n} with {messages} messages: half a transaction"))?;
    ensure(history.tokens.is_sorted_by(|a, b| a < b), || format!("tokens {:?}", history.tokens))?;
    let lease = GetLease { resource: "r".to_owned() };
    let holders = store.execute(lease).await.map_err(|error| error.to_string())?;
    if let Some(token) = history.held {
        let holds = holders.iter().any(|holder| holder.token == token);
        ensure(holds, || format!("the lock {token} was lost: {holders:?}"))?;
    }
    Ok(())
}

async fn check_events(store: &Sqlite, history: &mut History) -> Result<(), String> {
    let mut streams = Vec::new();
    for stream in ["a", "b"] {
        let read = ReadStream { stream: stream.to_owned(), from: 0, backwards: false, max: 10_000 };
        let events = match store.execute(read).await {
            Ok(page) => page.events,
            Err(Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(error.to_string()),
        };
        for (n, event) in (0..).zip(&events) {
            ensure(event.version == n, || format!("{stream}: {} at {n}", event.version))?;
        }
        let ids = events.into_iter().map(|event| event.id.unwrap_or_default().split_off(1));
        streams.push(ids.collect::<Vec<_>>());
    }
    ensure(streams[0] == streams[1], || "half an append over two streams".to_owned())?;
    for (version, id) in &history.events {
        let there = streams[0].get(*version as usize);
        ensure(there == Some(id), || format!("event {version} was {id}, is {there:?}"))?;
    }
    history.events = (0..).zip(streams.swap_remove(0)).collect();
    Ok(())
}

/// After the last cut: what is delayed comes, and every message is either
/// acknowledged or delivered.
async fn check_groups(rig: &Rig, store: &Sqlite, history: &History) -> Result<(), String> {
    rig.clock.advance(LEASE + DELAY);
    let failed = |error: Error| error.to_string();
    store.wake().await.map_err(failed)?;
    let log = log(store, SYNCED).await?;
    for text in &history.delayed {
        ensure(log.contains(text), || format!("{text} never came"))?;
    }
    let mut drained = BTreeSet::new();
    loop {
        let deliveries = store.execute(receive(1000)).await.map_err(failed)?;
        if deliveries.is_empty() {
            break;
        }
        drained.extend(deliveries.iter().map(|delivery| delivery.message.position));
    }
    for position in 1..=log.len() as u64 {
        let (settled, came) = (history.settled.contains(&position), drained.contains(&position));
        ensure(!(settled && came), || format!("{position} came after its acknowledgement"))?;
        let accounted = settled || came || history.perhaps_settled.contains(&position);
        ensure(accounted, || format!("{position} was lost between log and group"))?;
    }
    Ok(())
}

/// One disk through a few ends. `Err` says what is wrong with the store.
async fn survive(seed: u64, faults: Faults) -> Result<(), String> {
    let mut rng = SplitMix64::new(seed);
    let rig = Rig::new(rng.next_u64());
    // A file that could not be put on disk when it was made has never held anything.
    let well = Faults { sync: 0, sync_file: 0, ..faults };
    rig.disk.set_faults(well);
    // Some begin with nothing, so that the power goes while the tables are made.
    if rng.below(8) == 0 {
        rig.disk.end_after(rng.below(120), End::Cut);
        if let Ok(store) = rig.open() {
            let _ = prepare(&store).await;
        }
        rig.disk.end(End::Cut);
    }
    let mut history = History::default();
    let failed = |error: Error| error.to_string();
    drop(rig.open_somehow().await?);
    for cycle in 0..3 {
        rig.disk.set_faults(faults);
        let store = rig.open_somehow().await?;
        let before = rig.disk.generation();
        let end = if rng.below(4) == 0 { End::Kill } else { End::Cut };
        // A disk that fails does so where much is copied, too.
        let most = if faults.sync_file > 0 && rng.below(2) == 0 { 4000 } else { 600 };
        rig.disk.end_after(rng.below(most), end);
        work(&store, (seed, cycle), rig.clock.now(), RELAXED, &mut history).await;
        let failures = std::mem::take(&mut history.failures);
        let ended = rig.disk.generation() > before;
        let fails = faults.sync + faults.sync_file > 0;
        let told = |failure: &String| fails && failure.contains(UNSYNCED);
        ensure(ended || failures.iter().all(told), || format!("with power: {failures:?}"))?;
        // Some are closed in peace first.
        if rng.below(8) > 0 {
            rig.disk.end(end);
        }
        drop(store);
        // What is left of its time is not that of the next.
        rig.disk.end(End::Kill);
        let wrong = |problem: String| format!("cycle {cycle}, {end:?}: {problem}");
        if end == End::Kill {
            // What anybody has seen after a restart must not go with the power.
            let looked = rig.open_somehow().await?;
            check(&looked, &mut history).await.map_err(wrong)?;
            rig.disk.end(End::Cut);
        }
        rig.disk.end(End::Cut);
        rig.disk.set_faults(well);
        let problems = verify(&rig.config()).map_err(failed)?;
        ensure(problems.is_empty(), || format!("{end:?}: {problems:?}"))?;
        let store = rig.open().map_err(failed)?;
        check(&store, &mut history).await.map_err(wrong)?;
    }
    let store = rig.open().map_err(failed)?;
    check_groups(&rig, &store, &history).await
}

/// Runs every seed that is asked for, on every core; the sum of what they give.
pub(crate) fn each_seed<R>(
    name: &str,
    (short, long): (u64, u64),
    run: impl Fn(u64) -> R + Sync,
) -> u64
where
    R: Future<Output = Result<usize, String>>,
{
    let number = |name| std::env::var(name).ok().and_then(|seed| seed.parse::<u64>().ok());
    let seeds = match (number("SELVEDGE_SEED"), number("SELVEDGE_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => 0..count,
        (None, None) if std::env::var_os("SELVEDGE_LONG").is_some() => 0..long,
        (None, None) => 0..short,
    };
    let (next, sum) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let one_after_the_other = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return;
            }
            let given = runtime.block_on(run(seed)).unwrap_or_else(|problem| {
                next.store(seeds.end, Relaxed);
                panic!(
                    "seed {seed}: {problem}\nrepeat with SELVEDGE_SEED={seed} cargo test -p \
                     selvedge-durable --test it {name}"
                )
            });
            sum.fetch_add(given as u64, Relaxed);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..cores).for_each(|_| drop(scope.spawn(one_after_the_other))));
    sum.into_inner()
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    each_seed("power::a_power_cut_loses_nothing_acknowledged", (100, 1000), async |seed| {
        survive(seed, Faults::default()).await.map(|()| 1)
    });
}

#[tokio::test]
async fn a_disk_that_lies_about_syncing_is_found_out() {
    let lies = Faults { lies: true, ..Faults::default() };
    let mut found = 0;
    for seed in 0..20 {
        found += u64::from(survive(seed, lies).await.is_err());
    }
    assert!(found >= 15, "only {found} of 20 losses were noticed");
}

/// A disk that fails now and then: what it refuses is refused, the rest is
/// kept, and when it is well again the same store goes on, unrepaired.
/// Gives how much was refused.
async fn outlast(seed: u64, faults: Faults, told: &[&str]) -> Result<usize, String> {
    let mut rng = SplitMix64::new(seed);
    let rig = Rig::new(rng.next_u64());
    let failed = |error: Error| error.to_string();
    let store = rig.open().map_err(failed)?;
    prepare(&store).await.map_err(failed)?;
    let mut history = History::default();
    let mut refused = 0;
    for cycle in 0..6 {
        let ill = cycle % 3 < 2;
        rig.disk.set_faults(if ill { faults } else { Faults::default() });
        if !ill {
            // The writer may still have to hear of a sync that failed elsewhere.
            let _ = store.execute(value("well", String::new(), Condition::Any)).await;
        }
        work(&store, (seed, cycle), rig.clock.now(), RELAXED, &mut history).await;
        let failures = std::mem::take(&mut history.failures);
        let expected = |failure: &String| ill && told.iter().any(|word| failure.contains(word));
        ensure(failures.iter().all(expected), || format!("cycle {cycle}: {failures:?}"))?;
        refused += failures.len();
        if faults.read == 0 {
            check(&store, &mut history).await?;
        }
    }
    check(&store, &mut history).await?;
    rig.disk.end(End::Cut);
    drop(store);
    let problems = verify(&rig.config()).map_err(failed)?;
    ensure(problems.is_empty(), || format!("{problems:?}"))?;
    let store = rig.open().map_err(failed)?;
    check(&store, &mut history).await?;
    check_groups(&rig, &store, &history).await?;
    Ok(refused)
}

fn outlast_all(name: &str, faults: Faults, told: &[&str]) {
    let refused = each_seed(name, (15, 150), async |seed| outlast(seed, faults, told).await);
    assert!(refused > 0, "the disk never failed");
}

#[test]
fn a_full_disk_refuses_writes_and_nothing_else() {
    let faults = Faults { full: 20, ..Faults::default() };
    let name = "power::a_full_disk_refuses_writes_and_nothing_else";
    outlast_all(name, faults, &["no space left"]);
}

#[tokio::test]
async fn a_disk_that_never_syncs_is_refused_until_it_does() {
    let rig = Rig::new(1);
    let store = rig.open().unwrap();
    prepare(&store).await.unwrap();
    let count =
        async |n: u64| store.execute(value("count", n.to_string(), Condition::Any)).await.map(drop);
    count(1).await.unwrap();
    for (log, file) in [(1000, 0), (1000, 1000), (0, 1000)] {
        let failures = store.vitals().view().sync_failures;
        rig.disk.set_faults(Faults { sync: log, sync_file: file, ..Faults::default() });
        // Enough that the log is copied, which is where the file is synced; when that
        // comes to its end depends on the machine.
        let mut refused = None;
        for n in 0..50_000 {
            let large = text("large", n, 60_000);
            let published = match n {
                0..40 => store.execute(publish_of(RELAXED, vec![message(&large)])).await.err(),
                _ => None,
            };
            refused = match published {
                None => count(2).await.err(),
                refused => refused,
            };
            if refused.is_some() {
                break;
            }
        }
        let refused = refused.unwrap();
        assert_eq!((refused.code(), refused.retryable()), ("SV0416", true), "{refused}");
        let again = count(9).await.unwrap_err();
        assert_eq!(again.code(), "SV0416", "it tries, and does not believe: {again}");
        assert!(store.vitals().view().doubt);
        assert!(store.vitals().view().sync_failures > failures);
        let (n, _) = counted(&store).await.unwrap();
        assert!((1..=2).contains(&n), "reads go on, and show nothing that was refused: {n}");
        rig.disk.set_faults(Faults::default());
        count(1).await.unwrap();
        assert!(!store.vitals().view().doubt);
    }
    rig.disk.end(End::Cut);
    drop(store);
    assert_eq!(verify(&rig.config()).unwrap(), [] as [String; 0]);
    assert_eq!(counted(&rig.open().unwrap()).await.unwrap().0, 1);
}

/// A disk that fails to sync: both files or one of them, often or seldom. Where
/// the log seldom fails, much is written before it does.
fn failing(seed: u64) -> Faults {
    let (sync, sync_file) = [(50, 200), (5, 500), (0, 500), (10, 0)][seed as usize % 4];
    Faults { sync, sync_file, ..Faults::default() }
}

#[test]
fn a_disk_that_cannot_sync_loses_nothing_acknowledged() {
    let name = "power::a_disk_that_cannot_sync_loses_nothing_acknowledged";
    let told = [UNSYNCED];
    let refused =
        each_seed(name, (15, 150), async |seed| outlast(seed, failing(seed), &told).await);
    assert!(refused > 0, "the disk never failed");
}

#[test]
fn a_power_cut_on_a_disk_that_cannot_sync_loses_nothing_acknowledged() {
    let name = "power::a_power_cut_on_a_disk_that_cannot_sync_loses_nothing_acknowledged";
    each_seed(name, (30, 800), async |seed| survive(seed, failing(seed)).await.map(|()| 1));
}

#[test]
fn a_disk_that_cannot_read_is_not_believed() {
    let faults = Faults { read: 20, ..Faults::default() };
    let name = "power::a_disk_that_cannot_read_is_not_believed";
    outlast_all(name, faults, &["the store failed", "closed"]);
}
