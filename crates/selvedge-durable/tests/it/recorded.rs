//! Histories of the real engine: several clients at once on the same keys,
//! locks and streams, through kills and power cuts, and the answers explained
//! by some order of the calls or not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use selvedge_durable::{
    Config, Engine, Error, Sqlite,
    lease::{Acquire, GetLease, Release},
    state::{Condition, DeleteState, GetState, PutState},
    stream::{Append, Expected, NewEvent, ReadStream, Write},
};
use selvedge_patterns::random::{Rng, SplitMix64};

use crate::{
    disk::End,
    linear::{
        Call, Lock, LockInput, LockOutput, Model, Register, RegisterInput, RegisterOutput, Stream,
        StreamInput, StreamOutput, Wanted, linearizable,
    },
    power::Rig,
};

const CLIENTS: u64 = 6;
const CALLS: u64 = 60;

/// The calls on each thing of one kind, by its name.
type Calls<M> = Mutex<BTreeMap<String, Vec<Call<M>>>>;

#[derive(Default)]
struct Recorder {
    ticks: AtomicU64,
    /// Values and events that were used.
    used: AtomicU64,
    registers: Calls<Register>,
    locks: Calls<Lock>,
    streams: Calls<Stream>,
}

impl Recorder {
    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    fn unused(&self) -> u64 {
        self.used.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn check(&self) -> Result<(), String> {
        check_each("register", &self.registers)?;
        check_each("lock", &self.locks)?;
        check_each("stream", &self.streams)
    }
}

fn note<M: Model>(calls: &Calls<M>, name: &str, call: Call<M>) {
    calls.lock().entry(name.to_owned()).or_default().push(call);
}

fn check_each<M: Model + std::fmt::Debug>(kind: &str, calls: &Calls<M>) -> Result<(), String> {
    for (name, calls) in &*calls.lock() {
        if !linearizable(calls) {
            let calls: Vec<String> = calls.iter().map(|call| format!("{call:?}")).collect();
            return Err(format!("no order explains the {kind} {name}:\n{}", calls.join("\n")));
        }
    }
    Ok(())
}

/// One client, until it has done enough or an answer does not come.
async fn client(store: Sqlite, mut rng: SplitMix64, recorder: Arc<Recorder>) {
    let mut seen = Seen::default();
    for _ in 0..CALLS {
        let name = format!("n{}", rng.below(2));
        let answered = match rng.below(3) {
            0 => register(&store, &mut rng, &recorder, name, &mut seen).await,
            1 => lock(&store, &mut rng, &recorder, name, &mut seen).await,
            _ => stream(&store, &mut rng, &recorder, name, &mut seen).await,
        };
        if !answered {
            return;
        }
    }
}

/// What a client remembers, perhaps wrongly by now.
#[derive(Default)]
struct Seen {
    tags: BTreeMap<String, u64>,
    tokens: BTreeMap<String, u64>,
    counts: BTreeMap<String, u64>,
}

async fn register(
    store: &Sqlite,
    rng: &mut SplitMix64,
    recorder: &Recorder,
    key: String,
    seen: &mut Seen,
) -> bool {
    let wanted = match (rng.below(3), seen.tags.get(&key)) {
        (0, _) => Wanted::Nothing,
        (_, Some(tag)) => Wanted::Tag(*tag),
        _ => Wanted::Anything,
    };
    let condition = match wanted {
        Wanted::Anything => Condition::Any,
        Wanted::Nothing => Condition::Absent,
        Wanted::Tag(tag) => Condition::Tag(tag),
    };
    let invoked = recorder.tick();
    let (input, output) = match rng.below(5) {
        0 | 1 => {
            let got = match store.execute(GetState { key: key.clone() }).await {
                Ok(value) => {
                    let number = String::from_utf8_lossy(&value.value).parse().unwrap();
                    Some((value.tag, number))
                }
                Err(Error::NotFound { .. }) => None,
                // A look that was not answered says nothing.
                Err(_) => return false,
            };
            (RegisterInput::Get, Some(RegisterOutput::Got(got)))
        }
        2 | 3 => {
            let number = recorder.unused();
            let value = number.to_string().into();
            let put =
                PutState { key: key.clone(), value, content_type: None, condition, ttl: None };
            let output = match store.execute(put).await {
                Ok(tag) => Some(RegisterOutput::Put(tag)),
                Err(Error::Precondition { .. }) => Some(RegisterOutput::Refused),
                Err(_) => None,
            };
            (RegisterInput::Put(number, wanted), output)
        }
        _ => {
            let output = match store.execute(DeleteState { key: key.clone(), condition }).await {
                Ok(()) => Some(RegisterOutput::Deleted),
                Err(Error::Precondition { .. } | Error::NotFound { .. }) => {
                    Some(RegisterOutput::Refused)
                }
                Err(_) => None,
            };
            (RegisterInput::Delete(wanted), output)
        }
    };
    if let Some(RegisterOutput::Put(tag) | RegisterOutput::Got(Some((tag, _)))) = &output {
        seen.tags.insert(key.clone(), *tag);
    }
    let answered = output.is_some();
    let returned = recorder.tick();
    note(&recorder.registers, &key, Call { input, output, invoked, returned });
    answered
}

async fn lock(
    store: &Sqlite,
    rng: &mut SplitMix64,
    recorder: &Recorder,
    resource: String,
    seen: &mut Seen,
) -> bool {
    let mut token = seen.tokens.get(&resource).copied();
    if rng.below(3) == 0 {
        // Somebody died with it, or is about to be robbed.
        match store.execute(GetLease { resource: resource.clone() }).await {
            Ok(holders) => token = holders.first().map(|holder| holder.token),
            Err(_) => return false,
        }
    }
    let invoked = recorder.tick();
    let (input, output) = match token {
        Some(token) if rng.below(2) == 0 => {
            let output = match store.execute(Release { resource: resource.clone(), token }).await {
                Ok(()) => Some(LockOutput::Released),
                Err(Error::Lost { .. }) => Some(LockOutput::Refused),
                Err(_) => None,
            };
            (LockInput::Release(token), output)
        }
        _ => {
            let acquire = Acquire {
                resource: resource.clone(),
                owner: "client".to_owned(),
                ttl: Duration::from_secs(86_400),
                permits: 1,
                wait: Duration::ZERO,
            };
            let output = match store.execute(acquire).await {
                Ok(grant) => Some(LockOutput::Acquired(grant.token)),
                Err(Error::Held { .. }) => Some(LockOutput::Refused),
                Err(_) => None,
            };
            (LockInput::Acquire, output)
        }
    };
    if let Some(LockOutput::Acquired(token)) = &output {
        seen.tokens.insert(resource.clone(), *token);
    }
    let answered = output.is_some();
    let returned = recorder.tick();
    note(&recorder.locks, &resource, Call { input, output, invoked, returned });
    answered
}

async fn stream(
    store: &Sqlite,
    rng: &mut SplitMix64,
    recorder: &Recorder,
    stream: String,
    seen: &mut Seen,
) -> bool {
    let count = seen.counts.get(&stream).copied().filter(|_| rng.below(3) > 0);
    let invoked = recorder.tick();
    let (input, output) = if rng.below(3) == 0 {
        let read = ReadStream { stream: stream.clone(), from: u64::MAX, backwards: true, max: 1 };
        let last = match store.execute(read).await {
            Ok(page) => (page.last + 1, page.events[0].kind.parse().unwrap()),
            Err(Error::NotFound { .. }) => (0, 0),
            Err(_) => return false,
        };
        (StreamInput::Last, Some(StreamOutput::Last(last.0, last.1)))
    } else {
        let number = recorder.unused();
        let expected = match count {
            None => Expected::Any,
            Some(0) => Expected::None,
            Some(count) => Expected::Exact(count - 1),
        };
        let events = vec![NewEvent { kind: number.to_string(), ..NewEvent::default() }];
        let writes = vec![Write { stream: stream.clone(), expected, events }];
        let output = match store.execute(Append { writes }).await {
            Ok(appended) => Some(StreamOutput::Appended(appended.versions[0].unwrap() + 1)),
            Err(Error::WrongVersion { actual, .. }) => {
                Some(StreamOutput::Refused(actual.map_or(0, |version| version + 1)))
            }
            Err(_) => None,
        };
        (StreamInput::Append(number, count), output)
    };
    match &output {
        Some(StreamOutput::Appended(n) | StreamOutput::Last(n, _) | StreamOutput::Refused(n)) => {
            seen.counts.insert(stream.clone(), *n);
        }
        None => {}
    }
    let answered = output.is_some();
    let returned = recorder.tick();
    note(&recorder.streams, &stream, Call { input, output, invoked, returned });
    answered
}

/// All clients at once, until the last one ends.
async fn live(store: &Sqlite, seed: u64, recorder: &Arc<Recorder>) {
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let rng = SplitMix64::new(seed ^ (number << 32));
        clients.spawn(client(store.clone(), rng, recorder.clone()));
    }
    clients.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_see_has_an_order() {
    for seed in 0..if std::env::var_os("SELVEDGE_LONG").is_some() { 200 } else { 8 } {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(Config::new(folder.path().join("store.db"))).unwrap();
        let recorder = Arc::new(Recorder::default());
        live(&store, seed, &recorder).await;
        recorder.check().unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
        // The checker is awake: an event more at a place that is taken.
        let Some(taken) = recorder.streams.lock().values_mut().find_map(|calls| {
            let taken =
                |call: &&Call<Stream>| matches!(call.output, Some(StreamOutput::Appended(1)));
            let call = calls.iter().find(taken).cloned()?;
            calls.push(call);
            Some(())
        }) else {
            panic!("no stream has an event")
        };
        assert_eq!((taken, recorder.check().is_err()), ((), true), "a forged history passed");
    }
}

#[tokio::test]
async fn what_clients_see_has_an_order_through_kills_and_power_cuts() {
    for seed in 0..if std::env::var_os("SELVEDGE_LONG").is_some() { 1000 } else { 30 } {
        let mut rng = SplitMix64::new(seed);
        let rig = Rig::new(rng.next_u64());
        let recorder = Arc::new(Recorder::default());
        for life in 0..4 {
            let store = rig.open().unwrap();
            let end = if rng.below(2) == 0 { End::Kill } else { End::Cut };
            rig.disk.end_after(rng.below(300), end);
            live(&store, seed ^ (life << 48), &recorder).await;
            rig.disk.end(end);
        }
        recorder.check().unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
    }
}
