//! The SQLite store: the conformance suite over it, and what is its own.

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use selvedge_durable::{
    Config, Engine, Error, ManualClock, Operation, Sqlite, compact,
    group::{Config as GroupConfig, Verdict},
    topic::{From, Place, Publish, ReadTopic, Settings},
    verify,
};
use tempfile::TempDir;

use crate::conformance::{TestEngine, World, message, start, suite, texts};

suite!(crate::store::world);

impl TestEngine for Sqlite {
    async fn wake(&self) {
        selvedge_durable::Store::wake(self).await.unwrap();
    }
}

fn open(path: &Path, clock: &Arc<ManualClock>) -> Sqlite {
    Sqlite::open(Config { clock: clock.clone(), ..Config::new(path) }).unwrap()
}

/// A store in a folder of its own, which goes with the second value.
pub(crate) fn world() -> (World<Sqlite>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(start()));
    let engine = open(&folder.path().join("store.db"), &clock);
    (World { engine, clock }, folder)
}

fn reopen(world: World<Sqlite>, folder: &TempDir) -> World<Sqlite> {
    let World { engine, clock } = world;
    drop(engine);
    World { engine: open(&folder.path().join("store.db"), &clock), clock }
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let (world, folder) = world();
    world.topic("t", Settings::default()).await;
    world.group("t", "g", GroupConfig { ordered: true, ..GroupConfig::default() }).await;
    for text in ["a", "b", "c"] {
        world.publish("t", crate::conformance::keyed(text, text)).await;
    }
    let held = world.receive("t", "g", 2).await;
    world.settle("t", "g", &held[0], Verdict::Park).await;
    let world = reopen(world, &folder);
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["c"]);
    world.settle("t", "g", &held[1], Verdict::Ack).await;
    assert_eq!(world.publish("t", message("d")).await, Place::Log(4));
    world.publish("t", crate::conformance::keyed("a", "behind")).await;
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["d"], "the key is still parked");
}

#[tokio::test]
async fn a_second_process_is_kept_out_and_a_later_file_refused() {
    let (world, folder) = world();
    let path = folder.path().join("store.db");
    let second = Sqlite::open(Config::new(&path)).unwrap_err();
    assert!(second.to_string().contains("another process"), "{second}");
    drop(world);
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let newer = Sqlite::open(Config::new(&path)).unwrap_err();
    assert!(matches!(newer, Error::Newer { found: 99, .. }), "{newer}");
}

#[tokio::test]
async fn a_file_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    assert_eq!(Sqlite::open(Config::new(&path)).unwrap_err().code(), "SV0400");
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, but long enough to look at".repeat(100)).unwrap();
    assert_eq!(Sqlite::open(Config::new(&text)).unwrap_err().code(), "SV0402");
}

#[tokio::test]
async fn many_publishers_share_commits_and_positions_stay_dense() {
    let (world, _folder) = world();
    world.topic("t", Settings::default()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let engine = world.engine.clone();
        tasks.spawn(async move {
            let mut positions = Vec::new();
            for _ in 0..50 {
                let publish = Publish { topic: "t".to_owned(), messages: vec![message("x")] };
                positions.push(engine.execute(publish).await.unwrap()[0].place);
            }
            positions
        });
    }
    let mut all: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_by_key(|place| match place {
        Place::Log(position) | Place::Delayed(position) => *position,
    });
    assert_eq!(all, (1..=1600).map(Place::Log).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_queue_is_refused_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { queue_max: 1, batch_max: 1, ..Config::new(folder.path().join("s.db")) };
    let engine = Sqlite::open(config).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let engine = engine.clone();
        tasks.spawn(async move { engine.transact(vec![topic(n)]).await.map(drop) });
    }
    let results = tasks.join_all().await;
    let refused =
        results.iter().filter(|result| matches!(result, Err(Error::Overloaded { .. }))).count();
    assert!(results.iter().all(|result| result.as_ref().err().is_none_or(Error::retryable)));
    assert!(refused > 0 && refused < 200, "{refused}");
}

fn topic(n: u64) -> Operation {
    let name = format!("t{n}");
    Operation::PutTopic(selvedge_durable::topic::PutTopic { name, settings: Settings::default() })
}

#[tokio::test]
async fn a_backup_is_a_store_and_compacting_makes_it_small() {
    let (world, folder) = world();
    world.topic("t", Settings::default()).await;
    for _ in 0..200 {
        world.publish("t", message(&"x".repeat(10_000))).await;
    }
    let copy = folder.path().join("copy.db");
    world.engine.backup(&copy).unwrap();
    assert_eq!(world.engine.backup(&copy).unwrap_err().code(), "SV0400", "never overwrites");
    assert_eq!(verify(&Config::new(&copy)).unwrap(), [] as [String; 0]);
    world.run(selvedge_durable::topic::DeleteTopic { name: "t".to_owned() }).await;
    world.pass(Duration::from_secs(61)).await;
    world.pass(Duration::from_secs(61)).await;
    let path = folder.path().join("store.db");
    assert!(compact(&Config::new(&path)).is_err(), "somebody has it open");
    drop(world);
    let before = std::fs::metadata(&path).unwrap().len();
    compact(&Config::new(&path)).unwrap();
    let after = std::fs::metadata(&path).unwrap().len();
    assert!(after * 4 < before, "{before} -> {after}");
    assert!(std::fs::metadata(&copy).unwrap().len() > 2_000_000);
}

#[tokio::test]
async fn a_flipped_bit_is_named_and_never_served() {
    let (world, folder) = world();
    world.topic("t", Settings::default()).await;
    world.publish("t", message("first")).await;
    world.publish("t", message(&"needle".repeat(20))).await;
    drop(world);
    let path = folder.path().join("store.db");
    assert_eq!(verify(&Config::new(&path)).unwrap(), [] as [String; 0]);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(12).position(|window| window == b"needleneedle").unwrap();
    bytes[at + 3] ^= 1;
    std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    let problems = verify(&Config::new(&path)).unwrap();
    assert!(problems.len() == 1 && problems[0].contains("message 2"), "{problems:?}");
    let engine = Sqlite::open(Config::new(&path)).unwrap();
    let read = ReadTopic { topic: "t".to_owned(), from: From::First, max: 9 };
    assert_eq!(engine.execute(read).await.unwrap_err().code(), "SV0402");
    let read = ReadTopic { topic: "t".to_owned(), from: From::First, max: 1 };
    assert_eq!(engine.execute(read).await.unwrap().len(), 1, "the rest is served");
}

#[tokio::test]
async fn a_damaged_page_is_named() {
    let (world, folder) = world();
    world.topic("t", Settings::default()).await;
    for _ in 0..100 {
        world.publish("t", message(&"x".repeat(1000))).await;
    }
    drop(world);
    let path = folder.path().join("store.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // A leaf of the messages, in the middle of them.
    let leaves: Vec<usize> = (0..bytes.len() / 4096)
        .map(|page| page * 4096)
        .filter(|page| {
            bytes[page + 3000..page + 3500].iter().filter(|byte| **byte == b'x').count() > 400
        })
        .collect();
    let leaf = leaves[leaves.len() / 2];
    bytes[leaf..leaf + 64].fill(0xAA);
    std::fs::write(&path, &bytes).unwrap();
    let problems = verify(&Config::new(&path)).unwrap();
    assert!(problems.iter().any(|problem| problem.contains("page")), "{problems:?}");
}

#[tokio::test]
async fn a_close_leaves_everything_in_one_file() {
    for round in 0..40 {
        let (world, folder) = world();
        world.topic("t", Settings::default()).await;
        world.publish("t", message("the last word")).await;
        drop(world);
        assert!(!folder.path().join("store.db-wal").exists(), "round {round}");
    }
}

#[tokio::test]
async fn the_log_beside_the_file_stays_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let config = Config { checkpoint_bytes: 1 << 20, ..Config::new(&path) };
    let engine = Sqlite::open(config).unwrap();
    engine.transact(vec![topic(1)]).await.unwrap();
    let message = message(&"x".repeat(50_000));
    for _ in 0..400 {
        let publish = Publish { topic: "t1".to_owned(), messages: vec![message.clone()] };
        engine.execute(publish).await.unwrap();
    }
    let wal = std::fs::metadata(folder.path().join("store.db-wal")).unwrap().len();
    assert!(wal < 10 << 20, "20 MB were written, the log is {wal}");
}

#[tokio::test]
async fn a_flipped_bit_is_named_wherever_it_is() {
    use selvedge_durable::{state, stream};
    let (world, folder) = world();
    world.topic("t", Settings::default()).await;
    world.group("t", "g", GroupConfig::default()).await;
    world.publish("t", message(&"letter".repeat(10))).await;
    let held = world.receive("t", "g", 1).await;
    world.settle("t", "g", &held[0], Verdict::Park).await;
    let event = stream::NewEvent {
        kind: "Opened".to_owned(),
        data: "account".repeat(10).into(),
        ..stream::NewEvent::default()
    };
    let write =
        stream::Write { stream: "s".to_owned(), events: vec![event], ..stream::Write::default() };
    world.run(stream::Append { writes: vec![write] }).await;
    let put = state::PutState {
        key: "k".to_owned(),
        value: "balance".repeat(10).into(),
        content_type: None,
        condition: state::Condition::Any,
        ttl: None,
    };
    world.run(put).await;
    drop(world);
    let path = folder.path().join("store.db");
    assert_eq!(verify(&Config::new(&path)).unwrap(), [] as [String; 0]);
    let whole = std::fs::read(&path).unwrap();
    for (needle, named) in
        [("letterletter", "letter"), ("accountaccount", "event 1"), ("balancebalance", "key `k`")]
    {
        let mut bytes = whole.clone();
        let found = bytes.windows(needle.len()).enumerate();
        let found = found.filter(|(_, window)| *window == needle.as_bytes());
        let places: Vec<usize> = found.map(|(at, _)| at).collect();
        for at in places {
            bytes[at] ^= 1;
        }
        std::fs::write(&path, &bytes).unwrap();
        let problems = verify(&Config::new(&path)).unwrap();
        assert!(problems.iter().any(|problem| problem.contains(named)), "{needle}: {problems:?}");
    }
}

#[tokio::test]
async fn a_rate_grants_nothing_more_after_a_restart() {
    let (world, folder) = world();
    world.topic("t", Settings::default()).await;
    let rate = selvedge_patterns::limit::Config { burst: 3, ..Default::default() };
    world.group("t", "g", GroupConfig { rate: Some(rate), ..GroupConfig::default() }).await;
    for n in 0..9 {
        world.publish("t", message(&n.to_string())).await;
    }
    assert_eq!(world.receive("t", "g", 9).await.len(), 3);
    let world = reopen(world, &folder);
    assert_eq!(world.receive("t", "g", 9).await.len(), 0);
    world.pass(Duration::from_millis(10)).await;
    assert_eq!(world.receive("t", "g", 9).await.len(), 1);
}

#[tokio::test]
async fn the_active_consumer_stays_so_through_a_restart() {
    let (world, folder) = world();
    world.topic("t", Settings::default()).await;
    let exclusive = Some(Duration::from_secs(60));
    world.group("t", "g", GroupConfig { exclusive, ..GroupConfig::default() }).await;
    world.publish("t", message("a")).await;
    world.publish("t", message("b")).await;
    let held = world.run(crate::conformance::exclusive::by("one", 1)).await;
    let world = reopen(world, &folder);
    assert_eq!(world.run(crate::conformance::exclusive::by("two", 1)).await, []);
    world.settle("t", "g", &held[0], Verdict::Ack).await;
    assert_eq!(texts(&world.run(crate::conformance::exclusive::by("one", 1)).await), ["b"]);
}

/// Rows of a table, seen from outside.
fn rows_of(path: &Path, table: &str) -> i64 {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn what_was_removed_goes_bit_by_bit_and_whole() {
    use selvedge_durable::{
        group::{PutGroup, Receive, Reply, Settle, Verdict},
        stream::{Append, Expected, NewEvent, TruncateStream, Write},
        topic::{DeleteTopic, From, NewMessage, Publish, PutTopic, Settings},
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let clock = Arc::new(ManualClock::new(selvedge_patterns::wall::Wall::from_secs(1_800_000_000)));
    let config = Config { clock: clock.clone(), ..Config::new(&path) };
    let store = Sqlite::open(config).unwrap();
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    let settings = Settings { priorities: true, ..Settings::default() };
    store.execute(PutTopic { name: topic.clone(), settings }).await.unwrap();
    let put = PutGroup {
        topic: topic.clone(),
        group: group.clone(),
        config: Default::default(),
        from: From::First,
    };
    store.execute(put).await.unwrap();
    let message = |n: u32| NewMessage {
        payload: Some(bytes::Bytes::from_static(b"x")),
        dedupe_id: Some(n.to_string()),
        ..NewMessage::default()
    };
    let messages = (0..2_500).map(message).collect();
    store.execute(Publish { topic: topic.clone(), messages }).await.unwrap();
    let receive = Receive {
        topic: topic.clone(),
        group: group.clone(),
        max: 2_500,
        lease: None,
        wait: Duration::ZERO,
        consumer: None,
    };
    let deliveries = store.execute(receive).await.unwrap();
    let replies = deliveries.iter().map(|it| Reply {
        receipt: it.receipt,
        verdict: Verdict::Park,
        reason: None,
    });
    let replies = replies.collect();
    store.execute(Settle { topic: topic.clone(), group, replies, strict: false }).await.unwrap();
    assert_eq!(rows_of(&path, "dead_letters"), 2_500);
    let event = NewEvent { kind: "x".to_owned(), ..NewEvent::default() };
    let write =
        Write { stream: "s".to_owned(), expected: Expected::Any, events: vec![event; 2_500] };
    store.execute(Append { writes: vec![write] }).await.unwrap();
    store.execute(TruncateStream { stream: "s".to_owned(), before: 2_499 }).await.unwrap();
    store.execute(DeleteTopic { name: topic }).await.unwrap();
    // The deletion itself touched next to nothing.
    assert_eq!(rows_of(&path, "dead_letters"), 2_500);
    assert_eq!(rows_of(&path, "events"), 1_500);
    drop(store);
    let config = Config { clock: clock.clone(), ..Config::new(&path) };
    assert_eq!(verify(&config).unwrap(), [] as [String; 0], "what is left is no damage");
    let store = Sqlite::open(config).unwrap();
    for _ in 0..20 {
        clock.advance(Duration::from_secs(60));
        TestEngine::wake(&store).await;
    }
    for table in ["messages", "lanes", "dedupe", "dead_letters", "leavings", "topics", "groups"] {
        assert_eq!(rows_of(&path, table), 0, "{table}");
    }
    assert_eq!(rows_of(&path, "events"), 1);
}

#[tokio::test]
async fn one_request_drives_back_only_so_many_letters_but_whole_keys() {
    use selvedge_durable::{
        group::{Config as Group, PutGroup, Receive, Redrive, Reply, Settle, Verdict},
        topic::{From, NewMessage, Publish, PutTopic, Settings},
    };
    let folder = tempfile::tempdir().unwrap();
    let store =
        Sqlite::open(Config { items_max: 2, ..Config::new(folder.path().join("s.db")) }).unwrap();
    let (topic, group) = ("t".to_owned(), "g".to_owned());
    store.execute(PutTopic { name: topic.clone(), settings: Settings::default() }).await.unwrap();
    let config = Group { ordered: true, ..Group::default() };
    let put = PutGroup { topic: topic.clone(), group: group.clone(), config, from: From::First };
    store.execute(put).await.unwrap();
    for key in ["a", "b", "c", "a", "c"] {
        let message = NewMessage {
            key: Some(key.to_owned()),
            payload: Some(bytes::Bytes::from_static(b"x")),
            ..NewMessage::default()
        };
        let publish = Publish { topic: topic.clone(), messages: vec![message] };
        store.execute(publish).await.unwrap();
    }
    let receive = || Receive {
        topic: topic.clone(),
        group: group.clone(),
        max: 2,
        lease: None,
        wait: Duration::ZERO,
        consumer: None,
    };
    for _ in 0..3 {
        for delivery in store.execute(receive()).await.unwrap() {
            let reply = Reply { receipt: delivery.receipt, verdict: Verdict::Park, reason: None };
            let (topic, group) = (topic.clone(), group.clone());
            store
                .execute(Settle { topic, group, replies: vec![reply], strict: true })
                .await
                .unwrap();
        }
    }
    let redrive = |positions: &[u64]| {
        let (topic, group) = (topic.clone(), group.clone());
        store.execute(Redrive { topic, group, positions: positions.to_vec() })
    };
    assert_eq!(redrive(&[1, 2, 3]).await.unwrap_err().code(), "SV0412");
    assert_eq!(redrive(&[]).await.unwrap(), 3, "of `a` both, and `b`");
    assert_eq!(redrive(&[3]).await.unwrap(), 2, "of `c` both");
    assert_eq!(redrive(&[]).await.unwrap(), 0);
}

/// A clock that breaks the thread that writes, once it is told to.
struct Breaking(Arc<ManualClock>, std::sync::atomic::AtomicBool);

impl selvedge_durable::Clock for Breaking {
    fn now(&self) -> selvedge_patterns::wall::Wall {
        let writes = std::thread::current().name() == Some("selvedge-writer");
        let broken = self.1.load(std::sync::atomic::Ordering::SeqCst);
        assert!(!(writes && broken), "the writer breaks, as this test wants it");
        self.0.now()
    }
}

#[tokio::test]
async fn a_writer_that_panics_leaves_a_store_that_says_that_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Breaking(Arc::new(ManualClock::new(start())), false.into()));
    let config = Config { clock: clock.clone(), ..Config::new(folder.path().join("store.db")) };
    let store = Sqlite::open(config).unwrap();
    let put = selvedge_durable::topic::PutTopic { name: "t".into(), settings: Settings::default() };
    store.execute(put).await.unwrap();
    assert!(!store.vitals().ended());

    clock.1.store(true, std::sync::atomic::Ordering::SeqCst);
    let publish = || Publish { topic: "t".into(), messages: vec![message("x")] };
    // Whoever asked when it broke, and whoever asks afterwards.
    for _ in 0..2 {
        let refused = store.execute(publish()).await;
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    }
    while !store.vitals().ended() {
        tokio::task::yield_now().await;
    }
    let read = ReadTopic { topic: "t".into(), from: From::First, max: 1 };
    assert!(store.execute(read).await.unwrap().is_empty(), "reads go on");
}
