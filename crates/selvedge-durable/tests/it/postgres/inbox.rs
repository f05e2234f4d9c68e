//! Programs that publish in transactions of their own: everything that is
//! committed is published once and in its order, nothing else is, whatever
//! commits when.

use std::{collections::BTreeMap, time::Duration};

use selvedge_durable::{
    Config, Engine, Postgres,
    topic::{From, PutTopic, ReadTopic, Settings},
};
use selvedge_patterns::random::{Rng, SplitMix64};

use super::{schema, server::Server};

/// Programs at once, and transactions of each.
const WRITERS: usize = 8;
const TRANSACTIONS: usize = 300;

fn open(server: &Server, schema: &str) -> Postgres {
    let config = Config { schema: schema.to_owned(), ..Config::postgres(server.url()) };
    Postgres::open(config).unwrap()
}

async fn topic(store: &Postgres, name: &str) {
    let put = PutTopic { name: name.to_owned(), settings: Settings::default() };
    store.execute(put).await.unwrap();
}

async fn client(server: &Server) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Payloads of a topic, in order.
async fn log(store: &Postgres, name: &str) -> Vec<String> {
    let (mut log, mut from) = (Vec::new(), From::First);
    loop {
        let read = ReadTopic { topic: name.to_owned(), from, max: 1000 };
        let messages = store.execute(read).await.unwrap();
        let Some(last) = messages.last() else { return log };
        from = From::Position(last.position + 1);
        log.extend(
            messages
                .into_iter()
                .map(|message| String::from_utf8(message.payload.unwrap().to_vec()).unwrap()),
        );
    }
}

/// What a program committed, in its order; and what it took back.
#[derive(Default)]
struct Written {
    committed: Vec<String>,
    poison: Vec<String>,
}

/// Transactions of a few rows, some of which stay open for long, some of which
/// are rolled back, and some of which carry what cannot be published.
async fn write(
    client: tokio_postgres::Client,
    schema: String,
    writer: usize,
    seed: u64,
) -> Written {
    let mut rng = SplitMix64::new(seed.wrapping_add(writer as u64));
    let mut written = Written::default();
    let insert = format!("INSERT INTO {schema}.inbox (topic, key, payload) VALUES ($1, $2, $3)");
    let insert = client.prepare(&insert).await.unwrap();
    for transaction in 0..TRANSACTIONS {
        client.batch_execute("BEGIN").await.unwrap();
        let lasts = rng.next_u64() % 100 < 80;
        let poisoned = rng.next_u64() % 100 < 5;
        for row in 0..1 + rng.next_u64() % 4 {
            let text = format!("{writer}.{transaction}.{row}");
            let name = if poisoned && row == 0 { "nowhere" } else { "t" };
            let key = writer.to_string();
            client.execute(&insert, &[&name, &key, &text.as_bytes()]).await.unwrap();
            match (lasts, name) {
                (true, "t") => written.committed.push(text),
                (true, _) => written.poison.push(text),
                _ => {}
            }
            // Others commit in between, with later numbers.
            for _ in 0..rng.next_u64() % 4 {
                client.batch_execute("SELECT 1").await.unwrap();
            }
        }
        if rng.next_u64() % 100 < 3 {
            // Over several looks into the inbox.
            client.batch_execute("SELECT pg_sleep(0.15)").await.unwrap();
        }
        client.batch_execute(if lasts { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
    }
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_commit_is_published_once_and_in_its_order_whenever_it_comes() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()) << 20 | 0x5e1d);
    let replay =
        format!("SEED={seed} cargo nextest run -p selvedge-durable every_commit_is_published_once");
    let server = Server::shared();
    let schema = schema();
    let first = open(&server, &schema);
    topic(&first, "t").await;
    let second = open(&server, &schema);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(client(&server).await, schema.clone(), writer, seed));
    }
    // Whoever leads goes, or is cut off, while they write.
    let cut = format!(
        "SELECT count(pg_terminate_backend(l.pid)) FROM pg_locks l
         WHERE l.relation = '{schema}.store'::regclass"
    );
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.psql(&cut);
    }
    drop(first);
    let written = writers.join_all().await;
    let left = format!("SELECT count(*) FROM {schema}.inbox");
    let drained = tokio::time::timeout(Duration::from_secs(60), async {
        while server.psql(&left) != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    drained.await.unwrap_or_else(|_| panic!("the inbox is not drained: {replay}"));
    let mut published: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for text in log(&second, "t").await {
        let writer = text.split('.').next().unwrap().parse().unwrap();
        published.entry(writer).or_default().push(text);
    }
    let mut poison: Vec<String> = Vec::new();
    for (writer, written) in written.into_iter().enumerate() {
        // Those that come back in another order are of another writer.
        let of = written
            .committed
            .first()
            .map_or(writer, |text| text.split('.').next().unwrap().parse().unwrap());
        assert_eq!(published.remove(&of).unwrap_or_default(), written.committed, "{replay}");
        poison.extend(written.poison);
    }
    assert!(published.is_empty(), "{replay}: {published:?}");
    assert!(poison.len() > 20, "{replay}: poison was tried");
    let refused = format!(
        "SELECT convert_from(payload, 'UTF8') FROM {schema}.refused
         WHERE problem = 'no topic `nowhere`' ORDER BY id"
    );
    let mut refused: Vec<String> = server.psql(&refused).lines().map(str::to_owned).collect();
    refused.sort_unstable();
    poison.sort_unstable();
    assert_eq!(refused, poison, "{replay}");
    // What was wrong is mended, and they go the way again.
    topic(&second, "nowhere").await;
    let again = include_str!("../../../../../docs/postgres.md");
    let again = again.split("```sql redrive\n").nth(1).unwrap().split("```").next().unwrap();
    server.psql(&again.replace("selvedge.", &format!("{schema}.")));
    let came = tokio::time::timeout(Duration::from_secs(60), async {
        while log(&second, "nowhere").await.len() < poison.len() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    came.await.unwrap_or_else(|_| panic!("redriven rows do not come: {replay}"));
    let mut came = log(&second, "nowhere").await;
    came.sort_unstable();
    assert_eq!(came, poison, "{replay}");
    assert_eq!(server.psql(&format!("SELECT count(*) FROM {schema}.refused")), "0");
}

/// Each of these alone once, so that none hides another; and none stops what
/// comes after it.
#[tokio::test]
async fn a_row_that_cannot_be_published_stops_nothing_and_says_why() {
    let server = Server::shared();
    let schema = schema();
    let config =
        Config { payload_max: 1000, schema: schema.clone(), ..Config::postgres(server.url()) };
    let store = Postgres::open(config).unwrap();
    topic(&store, "t").await;
    let columns = "topic, key, payload, headers, priority, deliver_at, dedupe_id";
    for (values, problem) in [
        ("'', 'k', 'x', NULL, NULL, NULL, NULL", "no topic ``"),
        ("'t', NULL, NULL, NULL, NULL, NULL, NULL", "`key` is needed"),
        ("'t', NULL, repeat('x', 1001)::bytea, NULL, NULL, NULL, NULL", "a payload of 1001"),
        ("'t', repeat('k', 2000), 'x', NULL, NULL, NULL, NULL", "a key of 2000"),
        ("'t', NULL, 'x', NULL, NULL, NULL, repeat('d', 2000)", "a dedupe id of 2000"),
        ("'t', NULL, 'x', NULL, 3, NULL, NULL", "`priority` needs a topic"),
        ("'t', NULL, 'x', NULL, NULL, '294276-12-31', NULL", "`deliver_at` must be"),
        (
            "'t', NULL, 'x', jsonb_build_object('h', repeat('v', 70000)), NULL, NULL, NULL",
            "the headers",
        ),
    ] {
        server.psql(&format!("INSERT INTO {schema}.inbox ({columns}) VALUES ({values})"));
        // Numbers begin again, as if somebody had emptied the table.
        server.psql(&format!("ALTER TABLE {schema}.inbox ALTER number RESTART"));
        let refused = format!("SELECT problem FROM {schema}.refused ORDER BY id DESC LIMIT 1");
        let said = tokio::time::timeout(Duration::from_secs(60), async {
            while !server.psql(&refused).contains(problem) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        said.await.unwrap_or_else(|_| panic!("{values}: {}", server.psql(&refused)));
    }
    let odd = "'t', NULL, 'odd', '{\"n\": 1, \"o\": {\"a\": null}, \"t\": \"ü\"}', NULL, '4712-01-01 BC', 'd'";
    server.psql(&format!("INSERT INTO {schema}.inbox ({columns}) VALUES ({odd})"));
    let came = tokio::time::timeout(Duration::from_secs(60), async {
        while log(&store, "t").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    came.await.expect("what comes after them is published");
    let read = ReadTopic { topic: "t".to_owned(), from: From::First, max: 9 };
    let headers = store.execute(read).await.unwrap().remove(0).headers;
    let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(headers, [("n", "1"), ("o", "{\"a\":null}"), ("t", "ü")]);
}
