//! What may happen to a PostgreSQL server and to those who share it, while
//! clients publish and append: what was acknowledged is there, what was refused
//! is not, positions and versions are dense, and none is given twice.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use selvedge_durable::{
    Clock, Config, Engine, Error, Operation, Postgres, Subject, SystemClock,
    state::{Condition, PutState},
    stream::{Append, Expected, NewEvent, ReadEvents, Write},
    topic::{From, GetTopic, NewMessage, Place, Publish, PutTopic, ReadTopic, Settings},
};

use super::{schema, server::Server};
use crate::conformance::message;

/// Clients at work.
struct Load {
    published: Arc<AtomicU64>,
    /// Successes of each client.
    each: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
    clients: tokio::task::JoinSet<Seen>,
}

/// What a client knows.
#[derive(Default)]
struct Seen {
    published: BTreeMap<u64, String>,
    appended: BTreeMap<u64, String>,
    refused: Vec<String>,
}

impl Load {
    /// Three publishers and an appender for each of the stores.
    fn start(stores: &[Postgres]) -> Self {
        let published = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = tokio::task::JoinSet::new();
        let mut each = Vec::new();
        let mut own = || {
            each.push(Arc::<AtomicU64>::default());
            each[each.len() - 1].clone()
        };
        for (place, store) in stores.iter().enumerate() {
            for client in 0..3 {
                let name = format!("{place}.{client}");
                let counts = [published.clone(), own()];
                clients.spawn(publish(store.clone(), name, counts, stop.clone()));
            }
            clients.spawn(append(store.clone(), place.to_string(), own(), stop.clone()));
        }
        Self { published, each, stop, clients }
    }

    /// Waits until so many more are acknowledged.
    async fn more(&self, count: u64) {
        let wanted = self.published.load(Ordering::SeqCst) + count;
        let waited = tokio::time::timeout(Duration::from_secs(120), async {
            while self.published.load(Ordering::SeqCst) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the store serves again");
    }

    /// Waits until every client has succeeded again: none was given up, however
    /// well the others fare.
    async fn everybody(&self) {
        let before: Vec<u64> = self.each.iter().map(|it| it.load(Ordering::SeqCst)).collect();
        let waited = tokio::time::timeout(Duration::from_secs(120), async {
            for (client, before) in self.each.iter().zip(before) {
                // One may have been under way before.
                while client.load(Ordering::SeqCst) < before + 2 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        waited.await.expect("every client is served again");
    }

    /// Ends the clients and compares what they know with what is stored, which
    /// nobody else has stored.
    async fn check(self, store: &Postgres) {
        let (log, ids, known) = self.compare(store).await;
        assert_eq!(known, (log.len(), ids.len()), "nobody published the rest");
    }

    /// Ends the clients and finds what they know in what is stored; that, and
    /// how much of it they know.
    async fn compare(
        self,
        store: &Postgres,
    ) -> (BTreeMap<u64, String>, BTreeMap<u64, String>, (usize, usize)) {
        self.everybody().await;
        self.stop.store(true, Ordering::SeqCst);
        let seen = self.clients.join_all().await;
        let log = log(store).await;
        let texts: std::collections::BTreeSet<&String> = log.values().collect();
        assert_eq!(texts.len(), log.len(), "a message is there twice");
        let events = store.execute(ReadEvents { after: 0, max: 10_000 }).await.unwrap();
        for (expected, position) in (1..).zip(log.keys()) {
            assert_eq!(expected, *position, "positions are dense");
        }
        for (expected, event) in (0..).zip(&events) {
            assert_eq!((event.version, event.position), (expected, expected + 1));
        }
        let ids: BTreeMap<u64, String> =
            events.into_iter().filter_map(|event| Some((event.version, event.id?))).collect();
        let (mut published, mut appended) = (0, 0);
        for seen in &seen {
            for (position, text) in &seen.published {
                assert_eq!(log.get(position), Some(text), "an acknowledged message is gone");
            }
            for (version, id) in &seen.appended {
                assert_eq!(ids.get(version), Some(id), "an acknowledged event is gone");
            }
            for text in &seen.refused {
                assert!(log.values().all(|stored| stored != text), "{text} was refused");
            }
            published += seen.published.len();
            appended += seen.appended.len();
        }
        (log, ids, (published, appended))
    }
}

async fn log(store: &Postgres) -> BTreeMap<u64, String> {
    let (mut log, mut from) = (BTreeMap::new(), From::First);
    loop {
        let read = ReadTopic { topic: "t".to_owned(), from, max: 1000 };
        let messages = store.execute(read).await.unwrap();
        let Some(last) = messages.last() else { return log };
        from = From::Position(last.position + 1);
        for message in messages {
            let text = String::from_utf8_lossy(&message.payload.unwrap()).into_owned();
            log.insert(message.position, text);
        }
    }
}

async fn publish(
    store: Postgres,
    name: String,
    counts: [Arc<AtomicU64>; 2],
    stop: Arc<AtomicBool>,
) -> Seen {
    let mut seen = Seen::default();
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let text = format!("{name}.{n}");
        let publish = Publish { topic: "t".to_owned(), messages: vec![message(&text)] };
        match store.execute(publish).await {
            Ok(answers) => {
                let Place::Log(position) = answers[0].place else { panic!("not in the log") };
                assert_eq!(seen.published.insert(position, text), None, "given twice");
                for count in &counts {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
            Err(error) => refused(&mut seen, text, &error).await,
        }
    }
    seen
}

async fn append(
    store: Postgres,
    name: String,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> Seen {
    let (mut seen, mut last) = (Seen::default(), None);
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let id = format!("{name}.{n}");
        let event = NewEvent { id: Some(id.clone()), kind: "x".to_owned(), ..NewEvent::default() };
        let expected = last.map_or(Expected::None, Expected::Exact);
        let write = Write { stream: "s".to_owned(), expected, events: vec![event] };
        match store.execute(Append { writes: vec![write] }).await {
            Ok(appended) => {
                last = appended.versions[0];
                assert_eq!(seen.appended.insert(last.unwrap(), id), None, "accepted twice");
                count.fetch_add(1, Ordering::SeqCst);
            }
            Err(Error::WrongVersion { actual, .. }) => last = actual,
            Err(error) => refused(&mut seen, id, &error).await,
        }
    }
    seen
}

async fn refused(seen: &mut Seen, text: String, error: &Error) {
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    seen.refused.push(text);
    tokio::time::sleep(Duration::from_millis(20)).await;
}

fn open(url: String, schema: &str) -> Postgres {
    Postgres::open(Config { schema: schema.to_owned(), ..Config::postgres(url) }).unwrap()
}

async fn with_topic(store: &Postgres) {
    let put = PutTopic { name: "t".to_owned(), settings: Settings::default() };
    store.execute(put).await.unwrap();
}

#[tokio::test]
async fn several_stores_share_a_database() {
    let server = Server::shared();
    let schema = schema();
    let stores: Vec<Postgres> = (0..3).map(|_| open(server.url(), &schema)).collect();
    with_topic(&stores[0]).await;
    let load = Load::start(&stores);
    load.more(300).await;
    load.check(&stores[1]).await;
}

/// How soon is no matter of luck: a notification that was lost is made up for
/// after five seconds at the earliest.
#[tokio::test]
async fn what_another_process_commits_is_heard_at_once() {
    let server = Server::shared();
    let schema = schema();
    let (one, other) = (open(server.url(), &schema), open(server.url(), &schema));
    with_topic(&one).await;
    // Each has to know of the other, and the other to listen.
    one.wake().await.unwrap();
    other.wake().await.unwrap();
    let mut heard = std::collections::BTreeSet::new();
    let mut topic = one.watch(Subject::Topic("t".to_owned()));
    let mut stream = one.watch(Subject::Stream("s".to_owned()));
    let mut state = one.watch(Subject::State("a;b".to_owned()));
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let begun = std::time::Instant::now();
        let event = NewEvent { kind: "k".to_owned(), ..NewEvent::default() };
        let write = Write { stream: "s".to_owned(), expected: Expected::Any, events: vec![event] };
        let put = PutState {
            key: "a;b".to_owned(),
            value: "v".into(),
            content_type: None,
            condition: Condition::Any,
            ttl: None,
        };
        let publish = Publish { topic: "t".to_owned(), messages: vec![message("m")] };
        let all = vec![
            Operation::Publish(publish),
            Operation::Append(Append { writes: vec![write] }),
            Operation::PutState(put),
        ];
        other.transact(all).await.unwrap();
        tokio::join!(topic.changed(), stream.changed(), state.changed());
        heard.insert(one.execute(GetTopic { name: "t".to_owned() }).await.unwrap().next);
        fastest = fastest.min(begun.elapsed());
    }
    assert_eq!(heard.into_iter().collect::<Vec<_>>(), [2, 3, 4, 5, 6], "it can be read by then");
    assert!(fastest < Duration::from_secs(4), "{fastest:?}");
}

#[tokio::test]
async fn connections_that_are_cut_are_made_again() {
    let server = Server::shared();
    let schema = schema();
    let stores = [open(server.url(), &schema), open(server.url(), &schema)];
    with_topic(&stores[0]).await;
    let load = Load::start(&stores);
    // Those in a transaction of this schema, whatever they are about to do.
    let cut = "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l
         WHERE l.relation = 'SCHEMA.store'::regclass";
    let cut = cut.replace("SCHEMA", &schema);
    let mut cuts = 0;
    while cuts < 20 {
        cuts += server.psql(&cut).parse::<u64>().unwrap();
        load.more(3).await;
    }
    load.check(&stores[1]).await;
}

#[tokio::test]
async fn a_server_that_crashes_under_load_loses_nothing() {
    let server = Server::own();
    let stores = [open(server.url(), "one"), open(server.url(), "one")];
    with_topic(&stores[0]).await;
    let load = Load::start(&stores);
    for _ in 0..3 {
        load.more(50).await;
        server.crash();
        server.start();
    }
    load.more(50).await;
    load.check(&stores[0]).await;
}

#[tokio::test]
async fn a_promoted_standby_has_what_was_acknowledged() {
    let server = Server::own();
    let standby = server.standby();
    let url = format!(
        "postgres://postgres@{},{}/postgres?target_session_attrs=read-write",
        server.host(),
        standby.host()
    );
    let store = open(url, "one");
    with_topic(&store).await;
    let load = Load::start(std::slice::from_ref(&store));
    load.more(100).await;
    server.crash();
    standby.promote();
    load.more(100).await;
    load.check(&store).await;
}

/// One store is cut off in mid-load, maybe while it holds the lock; the other
/// goes on.
#[tokio::test]
async fn a_network_that_is_cut_holds_nobody_up_and_loses_nothing() {
    let server = match Server::behind_a_cable() {
        Ok(server) => server,
        Err(why) => return say(&format!("not tried, no network to cut: {why}")),
    };
    let stores = [open(server.url(), "one"), open(server.remote_url(), "one")];
    with_topic(&stores[0]).await;
    let load = Load::start(&stores);
    for _ in 0..3 {
        load.more(50).await;
        server.cable("down");
        load.more(50).await;
        server.cable("up");
    }
    load.more(50).await;
    load.check(&stores[0]).await;
}

fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// Names the database and the schema of a process that is to be stopped.
const MEMBER: &str = "SELVEDGE_TEST_MEMBER";

/// Does nothing in a usual run; in a process of its own it is the one that stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acts_as_a_member() {
    let Ok(place) = std::env::var(MEMBER) else { return };
    let (url, schema) = place.split_once(' ').unwrap();
    let store = open(url.to_owned(), schema);
    for n in 0.. {
        let text = format!("member.{n}");
        let publish = Publish { topic: "t".to_owned(), messages: vec![message(&text)] };
        match store.execute(publish).await {
            // The test harness has begun a line of its own.
            Ok(answers) => say(&format!("{:?} {text}", answers[0].place)),
            Err(error) => assert!(matches!(error, Error::Unreachable { .. }), "{error}"),
        }
    }
}

/// A process of the test, ended with the value.
struct Process(std::process::Child);

impl Process {
    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let kill = std::process::Command::new("kill").args([name, &id]).status().unwrap();
        assert!(kill.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// It holds the lock or leads when it is stopped, and goes on when it does not.
#[tokio::test]
async fn a_leader_that_stood_still_leads_no_more() {
    let server = Server::shared();
    let schema = schema();
    drop({
        let first = open(server.url(), &schema);
        with_topic(&first).await;
        first
    });
    let mut member = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres::faults::acts_as_a_member", "--nocapture"])
        .env(MEMBER, format!("{} {schema}", server.url()))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let out = std::io::BufReader::new(member.stdout.take().unwrap());
    let member = Process(member);
    let (line, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let reading = std::thread::spawn(move || {
        for text in std::io::BufRead::lines(out).map_while(Result::ok) {
            if text.starts_with("Log(") && line.send(text).is_err() {
                break;
            }
        }
    });
    let mut acknowledged = Vec::new();
    acknowledged.push(lines.recv().await.unwrap());
    let leader = || server.psql(&format!("SELECT leader, epoch FROM {schema}.store"));
    let before = leader();
    assert!(before.starts_with(&member.0.id().to_string()), "the member leads: {before}");
    let store = open(server.url(), &schema);
    let mut delayed = Vec::new();
    for round in 0..3 {
        for n in 0..5 {
            let text = format!("delayed.{round}.{n}");
            let deliver_at = Some(SystemClock.now() + Duration::from_millis(50));
            let messages = vec![NewMessage { deliver_at, ..message(&text) }];
            store.execute(Publish { topic: "t".to_owned(), messages }).await.unwrap();
            delayed.push(text);
        }
        if round == 0 {
            member.signal("-STOP");
        } else if round == 1 {
            // The others take over only when its time is up.
            let taken = tokio::time::timeout(Duration::from_secs(60), async {
                while leader() == before {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
            taken.await.expect("another leads");
            member.signal("-CONT");
            while lines.try_recv().is_ok_and(|line| {
                acknowledged.push(line);
                true
            }) {}
        }
    }
    let after = leader();
    for _ in 0..50 {
        acknowledged.push(lines.recv().await.unwrap());
    }
    let all = tokio::time::timeout(Duration::from_secs(60), async {
        while delayed.iter().any(|text| !log_has(&server, &schema, text)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    all.await.expect("what is delayed comes");
    assert_eq!(leader(), after, "whoever led before does not again");
    drop(member);
    reading.join().unwrap();
    while let Some(line) = lines.recv().await {
        acknowledged.push(line);
    }
    let load = Load::start(&[]);
    let (log, ..) = load.compare(&store).await;
    for line in acknowledged {
        let (place, text) = line.split_once(' ').unwrap();
        let position = place.trim_start_matches("Log(").trim_end_matches(')').parse().unwrap();
        assert_eq!(log.get(&position).map(String::as_str), Some(text), "it was acknowledged");
    }
    for text in &delayed {
        assert_eq!(log.values().filter(|stored| *stored == text).count(), 1, "{text} comes once");
    }
}

fn log_has(server: &Server, schema: &str, text: &str) -> bool {
    let sql = format!("SELECT count(*) FROM {schema}.messages WHERE payload = '{text}'::bytea");
    server.psql(&sql) != "0"
}

#[tokio::test]
async fn a_row_that_is_committed_late_leaves_the_inbox_too() {
    let server = Server::shared();
    let schema = schema();
    let store = open(server.url(), &schema);
    with_topic(&store).await;
    let url = server.url();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let serving = tokio::spawn(connection);
    // The earlier number is committed last.
    let insert = |text: &str| {
        format!(
            "INSERT INTO {schema}.inbox (topic, key, payload, headers) VALUES ('t', 'k', '{text}', '{{\"a\": \"b\"}}');"
        )
    };
    client.batch_execute(&format!("BEGIN; {}", insert("late"))).await.unwrap();
    server.psql(&insert("early"));
    server.psql(&insert("bad").replace("'t'", "'nowhere'"));
    wait_for(&store, 1).await;
    client.batch_execute("COMMIT").await.unwrap();
    wait_for(&store, 2).await;
    let log = log(&store).await;
    assert_eq!(log.values().collect::<Vec<_>>(), ["early", "late"]);
    let read = ReadTopic { topic: "t".to_owned(), from: From::First, max: 1 };
    let first = store.execute(read).await.unwrap().remove(0);
    assert_eq!(first.headers, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(first.key.as_deref(), Some("k"));
    let refused = server.psql(&format!("SELECT topic, problem FROM {schema}.refused"));
    assert_eq!(refused, "nowhere|no topic `nowhere`");
    assert_eq!(server.psql(&format!("SELECT count(*) FROM {schema}.inbox")), "0");
    drop(client);
    serving.await.unwrap().unwrap();
}

async fn wait_for(store: &Postgres, count: usize) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while log(store).await.len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the inbox is looked into");
}
