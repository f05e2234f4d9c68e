//! What a stored message costs later: processor time for each publish, and for
//! each receive with its acknowledgement, with ever more messages in the store;
//! and how long it takes to open.
//!
//! Expected before the first run: a log is one b-tree that grows at its end, and
//! a group looks at its cursor, so ten million cost what ten thousand do but for
//! a level of the tree; opening reads the last pages and no more.
//!
//! Run with `cargo bench -p selvedge-durable --bench growth`; the folder is
//! `BENCH_DIR` or a temporary one. `BENCH_SIZES` (messages, with commas between)
//! and `BENCH_PAYLOAD` (bytes, 32 unless said) make it larger or smaller: 5 GB
//! are `BENCH_SIZES=5000000 BENCH_PAYLOAD=1024`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use selvedge_durable::{
    Config, Engine, Sqlite,
    group::{Config as GroupConfig, PutGroup, Receive, Reply, Settle, Verdict},
    topic::{From, GetTopic, NewMessage, Publish, PutTopic, Settings},
};

/// Messages that are published or consumed for one figure.
const MEASURED: usize = 100_000;
/// Of these in one request.
const BATCH: usize = 100;
/// Messages in one request while the store is filled.
const FILL: usize = 1000;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the result of a bench is data")]
async fn main() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let payload = Bytes::from(vec![b'x'; number("BENCH_PAYLOAD").unwrap_or(32)]);
    let sizes = std::env::var("BENCH_SIZES");
    let sizes = sizes.unwrap_or_else(|_| "10000,100000,1000000,10000000".to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(|size| size.parse().expect("a size")).collect();
    let folder = match std::env::var("BENCH_DIR") {
        Ok(folder) => tempfile::tempdir_in(folder),
        Err(_) => tempfile::tempdir(),
    }
    .expect("a folder for the bench");
    let path = folder.path().join("growth.db");
    println!("| stored | file | open | publish, CPU | receive and acknowledge, CPU |");
    println!("|--:|--:|--:|--:|--:|");
    let mut store = open(&path).0;
    let settings = Settings { retention_age: None, retention_bytes: None, ..Settings::default() };
    store.execute(PutTopic { name: "log".to_owned(), settings }).await.expect("a topic");
    for size in sizes {
        fill(&store, size, &payload).await;
        drop(store);
        let file = std::fs::metadata(&path).expect("a file").len() as f64 / 1e6;
        let (opened, took) = open(&path);
        store = opened;
        let begun = cpu();
        let first = stored(&store).await;
        publish(&store, MEASURED, BATCH, &payload).await;
        let published = cpu();
        // From the middle of what was there to what has just come, half of each.
        consume(&store, first.saturating_sub(MEASURED / 2).max(1), size).await;
        let consumed = cpu();
        let each = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e6 / MEASURED as f64;
        println!(
            "| {size} | {file:.0} MB | {:.1} ms | {:.1} µs | {:.1} µs |",
            took.as_secs_f64() * 1e3,
            each(begun, published),
            each(published, consumed),
        );
    }
}

fn open(path: &Path) -> (Sqlite, Duration) {
    let begun = Instant::now();
    let store = Sqlite::open(Config::new(path)).expect("a store");
    (store, begun.elapsed())
}

/// Processor time of this process, all threads, to a hundredth of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("the times of this process");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|it| it.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// The position that comes next.
async fn stored(store: &Sqlite) -> usize {
    store.execute(GetTopic { name: "log".to_owned() }).await.expect("a topic").next as usize
}

async fn fill(store: &Sqlite, size: usize, payload: &Bytes) {
    let there = stored(store).await - 1;
    publish(store, size.saturating_sub(there), FILL, payload).await;
}

async fn publish(store: &Sqlite, count: usize, batch: usize, payload: &Bytes) {
    let message = NewMessage { payload: Some(payload.clone()), ..NewMessage::default() };
    let (mut left, mut last) = (count, None);
    while left > 0 {
        let messages = vec![message.clone(); batch.min(left)];
        left -= messages.len();
        let sent = store.execute(Publish { topic: "log".to_owned(), messages });
        // One is under way while the next is made.
        if let Some(before) = last.replace(tokio::spawn(sent)) {
            before.await.expect("a publish").expect("a publish");
        }
    }
    if let Some(before) = last {
        before.await.expect("a publish").expect("a publish");
    }
}

async fn consume(store: &Sqlite, from: usize, name: usize) {
    let (topic, group) = ("log".to_owned(), format!("g{name}"));
    let from = From::Position(from as u64);
    let config = GroupConfig::default();
    let put = PutGroup { topic: topic.clone(), group: group.clone(), config, from };
    store.execute(put).await.expect("a group");
    let mut left = MEASURED;
    while left > 0 {
        let (topic, group) = (topic.clone(), group.clone());
        let receive = Receive {
            topic: topic.clone(),
            group: group.clone(),
            max: BATCH,
            lease: None,
            wait: Duration::ZERO,
            consumer: None,
        };
        let got = store.execute(receive).await.expect("messages");
        assert!(!got.is_empty(), "{left} are missing");
        left = left.saturating_sub(got.len());
        let reply = |receipt| Reply { receipt, verdict: Verdict::Ack, reason: None };
        let replies = got.iter().map(|delivery| reply(delivery.receipt)).collect();
        let settle = Settle { topic, group, replies, strict: true };
        store.execute(settle).await.expect("acknowledged");
    }
}
