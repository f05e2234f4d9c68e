//! Group commit: messages published and acknowledged per second.
//!
//! Expected before the first run: one commit is one sync (0.13 ms here) plus
//! about 6 µs a message, so 1 / 32 / 256 in flight should give some 5,000 /
//! 45,000 / 100,000 a second, and consuming 4 µs a message for the lease and
//! 3 µs for the acknowledgement, 100,000 a second.
//!
//! Run with `cargo bench -p selvedge-durable --bench commit`; the folder is
//! `BENCH_DIR` or a temporary one. With `BENCH_POSTGRES`, a connection string
//! without encryption, the store is there, in the schema `bench`, which is made
//! anew; beside each figure stands that of a plain table, into which as many
//! connections insert the same payload, measured right before and after it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use selvedge_durable::{
    Config, Engine, Store,
    group::{Config as GroupConfig, PutGroup, Receive, Reply, Settle, Verdict},
    topic::{From, NewMessage, Publish, PutTopic, ReadTopic, Settings},
};

const MEASURE: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(700);

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the result of a bench is data")]
async fn main() {
    let folder = match std::env::var("BENCH_DIR") {
        Ok(folder) => tempfile::tempdir_in(folder),
        Err(_) => tempfile::tempdir(),
    }
    .expect("a folder for the bench");
    let config = match std::env::var("BENCH_POSTGRES") {
        Ok(url) => Config { schema: "bench".to_owned(), ..Config::postgres(url) },
        Err(_) => Config::new(folder.path().join("bench.db")),
    };
    let url = std::env::var("BENCH_POSTGRES").ok();
    if let Some(url) = &url {
        let sql = "DROP SCHEMA IF EXISTS bench CASCADE; DROP TABLE IF EXISTS bench_plain;
             CREATE TABLE bench_plain (id BIGSERIAL PRIMARY KEY, body BYTEA NOT NULL)";
        client(url).await.batch_execute(sql).await.expect("a fresh table");
    }
    let store = Store::open(config).expect("a store");
    let name = "bench".to_owned();
    store.execute(PutTopic { name, settings: Settings::default() }).await.expect("a topic");
    for (in_flight, batch) in [(1, 1), (32, 1), (256, 1), (4, 256)] {
        let before = plain(url.as_deref(), in_flight, batch).await;
        let (rate, median, p99) = publish(&store, in_flight, batch).await;
        let after = plain(url.as_deref(), in_flight, batch).await;
        println!(
            "publish: {in_flight} in flight of {batch}: {rate:.0} acked/s, p50 {median:?}, p99 {p99:?}"
        );
        if let Some((before, after)) = before.zip(after) {
            let ratio = rate / (f64::midpoint(before, after));
            println!("  plain table: {before:.0}/s before, {after:.0}/s after: {ratio:.2} of it");
        }
    }
    println!("consume and acknowledge, 4 workers: {:.0}/s", consume(&store).await);
    println!("replay: {:.0}/s", replay(&store).await);
}

async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// Rows a second that as many connections insert, each in a transaction of its
/// own; nothing for batches, which a plain table has no word for.
async fn plain(url: Option<&str>, in_flight: usize, batch: usize) -> Option<f64> {
    let url = url.filter(|_| batch == 1)?;
    let payload = vec![b'x'; 1024];
    let mut clients = Vec::new();
    for _ in 0..in_flight {
        let client = client(url).await;
        let insert = "INSERT INTO bench_plain (body) VALUES ($1)";
        let insert = client.prepare(insert).await.expect("a statement");
        clients.push((client, insert));
    }
    let start = Instant::now() + WARM_UP;
    let end = start + MEASURE;
    let mut tasks = tokio::task::JoinSet::new();
    for (client, insert) in clients {
        let payload = payload.clone();
        tasks.spawn(async move {
            let mut count = 0_u32;
            while Instant::now() < end {
                client.execute(&insert, &[&payload]).await.expect("an insert");
                count += u32::from(Instant::now() >= start);
            }
            count
        });
    }
    let count: u32 = tasks.join_all().await.into_iter().sum();
    Some(f64::from(count) / MEASURE.as_secs_f64())
}

async fn publish(store: &Store, in_flight: usize, batch: usize) -> (f64, Duration, Duration) {
    let payload = Bytes::from(vec![b'x'; 1024]);
    let start = Instant::now() + WARM_UP;
    let end = start + MEASURE;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (store, payload) = (store.clone(), payload.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let begun = Instant::now();
                if begun >= end {
                    return latencies;
                }
                let message =
                    NewMessage { payload: Some(payload.clone()), ..NewMessage::default() };
                let messages = vec![message; batch];
                let publish = Publish { topic: "bench".to_owned(), messages };
                store.execute(publish).await.expect("a publish");
                if begun >= start {
                    latencies.push(begun.elapsed());
                }
            }
        });
    }
    let mut all: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_unstable();
    let rate = (all.len() * batch) as f64 / MEASURE.as_secs_f64();
    (rate, all[all.len() / 2], all[all.len() * 99 / 100])
}

async fn consume(store: &Store) -> f64 {
    let (topic, group) = ("bench".to_owned(), "g".to_owned());
    let put = PutGroup { topic, group, config: GroupConfig::default(), from: From::First };
    store.execute(put).await.expect("a group");
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        tasks.spawn(async move {
            let mut count = 0;
            while begun.elapsed() < MEASURE {
                let (topic, group) = ("bench".to_owned(), "g".to_owned());
                let receive = Receive {
                    topic,
                    group,
                    max: 100,
                    lease: None,
                    consumer: None,
                    wait: Duration::ZERO,
                };
                let deliveries = store.execute(receive).await.expect("a receive");
                if deliveries.is_empty() {
                    break;
                }
                let replies = deliveries
                    .iter()
                    .map(|delivery| Reply {
                        receipt: delivery.receipt,
                        verdict: Verdict::Ack,
                        reason: None,
                    })
                    .collect();
                let (topic, group) = ("bench".to_owned(), "g".to_owned());
                let settle = Settle { topic, group, replies, strict: true };
                count += store.execute(settle).await.expect("an acknowledgement").len();
            }
            count
        });
    }
    let count: usize = tasks.join_all().await.into_iter().sum();
    count as f64 / begun.elapsed().as_secs_f64()
}

async fn replay(store: &Store) -> f64 {
    let begun = Instant::now();
    let (mut from, mut count) = (From::First, 0);
    while begun.elapsed() < MEASURE {
        let read = ReadTopic { topic: "bench".to_owned(), from, max: 1000 };
        let messages = store.execute(read).await.expect("a read");
        let Some(last) = messages.last() else { break };
        from = From::Position(last.position + 1);
        count += messages.len();
    }
    count as f64 / begun.elapsed().as_secs_f64()
}
