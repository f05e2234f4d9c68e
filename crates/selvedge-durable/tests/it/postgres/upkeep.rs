//! What an operator does to a store in a database: it is checked, copied and
//! swept, and says how it fares.

use std::time::Duration;

use selvedge_durable::{
    Config, Postgres, backup, compact,
    group::{Config as GroupConfig, Verdict},
    state, stream,
    topic::{DeleteTopic, From, Publish, ReadTopic, Settings},
    verify,
};

use super::{schema, server::Server, world};
use crate::conformance::{World, message};

/// A bit of everything that a store can hold.
async fn filled(world: &World<Postgres>) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", GroupConfig::default()).await;
    for text in ["one", "two", "three", "four"] {
        world.publish("t", message(text)).await;
    }
    let held = world.receive("t", "g", 1).await;
    world.settle("t", "g", &held[0], Verdict::Park).await;
    let event = |kind: &str| stream::NewEvent {
        kind: kind.to_owned(),
        data: "account".into(),
        ..stream::NewEvent::default()
    };
    let events = vec![event("Opened"), event("Moved"), event("Closed")];
    let write = stream::Write { stream: "s".to_owned(), events, ..stream::Write::default() };
    world.run(stream::Append { writes: vec![write] }).await;
    for key in 0..70 {
        let put = state::PutState {
            key: format!("k{key}"),
            value: "balance".into(),
            content_type: None,
            condition: state::Condition::Any,
            ttl: None,
        };
        world.run(put).await;
    }
}

#[tokio::test]
async fn whatever_is_damaged_is_named() {
    let (world, server) = world();
    filled(&world).await;
    let config = world.engine.config().clone();
    let schema = config.schema.clone();
    assert_eq!(verify(&config).unwrap(), [] as [String; 0]);
    for (damage, named) in [
        (
            "UPDATE messages SET payload = 'two?' WHERE id % 8 = 2",
            "topic `t`: the store is damaged: message 2 fails its checksum",
        ),
        ("UPDATE messages SET key = 'k' WHERE id % 8 = 4", "message 4 fails its checksum"),
        ("UPDATE messages SET headers = '\\x01' WHERE id % 8 = 1", "message 1 fails its checksum"),
        ("DELETE FROM messages WHERE id % 8 IN (2, 3)", "topic `t`: positions 2 to 3 missing"),
        ("UPDATE topics SET head = 6", "topic `t`: position 5 missing"),
        ("UPDATE dead_letters SET payload = 'gone'", "dead letter of group"),
        ("UPDATE events SET data = 'accounts' WHERE version = 1", "event 2 fails its checksum"),
        ("DELETE FROM events WHERE version = 1", "stream `s` has 2 events of 3"),
        ("DELETE FROM streams", "3 events of streams that are not there"),
        ("UPDATE state SET value = 'rich' WHERE key = 'k69'", "key `k69` fails its checksum"),
        ("DELETE FROM groups", "cursors of groups that are not there"),
        ("UPDATE groups SET topic = 99", "1 groups of topics that are not there"),
    ] {
        // As it was before, each time.
        let copy = format!("{schema}_whole");
        let run = |sql: &str| {
            server.psql(&format!(
                "SET client_min_messages = error; SET search_path = {schema}; {sql}"
            ))
        };
        let tables = ["messages", "topics", "dead_letters", "events", "streams", "state", "groups"];
        run(&format!("CREATE SCHEMA {copy}"));
        for table in tables {
            run(&format!("CREATE TABLE {copy}.{table} AS TABLE {table}"));
        }
        run(damage);
        let problems = verify(&config).unwrap();
        assert!(problems.iter().any(|problem| problem.contains(named)), "{damage}: {problems:?}");
        for table in tables {
            run(&format!("TRUNCATE {table}; INSERT INTO {table} TABLE {copy}.{table}"));
        }
        run(&format!("DROP SCHEMA {copy} CASCADE"));
        assert_eq!(verify(&config).unwrap(), [] as [String; 0], "mended after {damage}");
    }
    let nowhere = Config { schema: "nothing_here".to_owned(), ..config };
    assert_eq!(verify(&nowhere).unwrap_err().code(), "SV0400");
}

#[tokio::test]
async fn a_dump_that_was_restored_elsewhere_goes_on() {
    let (world, server) = world();
    filled(&world).await;
    let config = world.engine.config().clone();
    let folder = server.folder_for(&format!("dumps-{}", config.schema));
    let file = format!("{folder}/store.dump");
    let refused = backup(&config, file.as_ref()).unwrap_err().to_string();
    // The command that it names is the one that is run, and holds no password.
    let command = refused.split('`').find(|it| it.starts_with("pg_dump"));
    let command = command.unwrap_or_else(|| panic!("no command in: {refused}"));
    server.shell(command);
    let database = format!("restored_{}", config.schema);
    server.psql(&format!("CREATE DATABASE {database}"));
    let at = format!("host={} user=postgres dbname={database}", server.socket_folder());
    server.shell(&format!("pg_restore --dbname='{at}' {file}"));
    let restored = Config { postgres: Some(at), ..config };
    assert_eq!(verify(&restored).unwrap(), [] as [String; 0]);
    let there = World { engine: Postgres::open(restored).unwrap(), clock: world.clock.clone() };
    let read = ReadTopic { topic: "t".to_owned(), from: From::First, max: 9 };
    assert_eq!(there.run(read.clone()).await, world.run(read).await);
    let text = crate::conformance::texts(&there.receive("t", "g", 9).await);
    assert_eq!(text, ["two", "three", "four"], "what was parked stays so");
    let publish = Publish { topic: "t".to_owned(), messages: vec![message("five")] };
    let place = there.run(publish).await[0].place;
    assert_eq!(place, selvedge_durable::topic::Place::Log(5), "positions go on");
}

#[tokio::test]
async fn what_was_removed_leaves_room_and_the_disk_gets_the_end_back() {
    let (world, _server) = world();
    world.topic("t", Settings::default()).await;
    let messages = vec![message(&"x".repeat(1000)); 500];
    for _ in 0..8 {
        let publish = Publish { topic: "t".to_owned(), messages: messages.clone() };
        world.run(publish).await;
    }
    world.run(DeleteTopic { name: "t".to_owned() }).await;
    for _ in 0..6 {
        world.pass(Duration::from_secs(61)).await;
    }
    let (before, after) = compact(world.engine.config()).unwrap();
    assert!(before > 4_000_000 && after * 4 < before, "{before} -> {after}");
}

/// Published, consumed and expired again and again, a store keeps its size.
#[tokio::test]
async fn a_store_through_which_much_passes_stays_small() {
    let (world, server) = world();
    let settings = Settings { retention_age: Some(Duration::from_secs(60)), ..Settings::default() };
    world.topic("t", settings).await;
    world.group("t", "g", GroupConfig::default()).await;
    let schema = world.engine.config().schema.clone();
    let size = format!(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class
         WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r'"
    );
    let mut sizes = Vec::new();
    for _ in 0..12 {
        let messages = vec![message(&"x".repeat(500)); 1000];
        world.run(Publish { topic: "t".to_owned(), messages }).await;
        let held = world.receive("t", "g", 1000).await;
        assert_eq!(held.len(), 1000);
        for delivery in &held[..20] {
            world.settle("t", "g", delivery, Verdict::Ack).await;
        }
        let replies = held[20..].iter().map(|delivery| selvedge_durable::group::Reply {
            receipt: delivery.receipt,
            verdict: Verdict::Ack,
            reason: None,
        });
        let (topic, group) = ("t".to_owned(), "g".to_owned());
        let replies = replies.collect();
        world.run(selvedge_durable::group::Settle { topic, group, replies, strict: true }).await;
        world.pass(Duration::from_secs(61)).await;
        world.pass(Duration::from_secs(61)).await;
        // The server's own sweeper comes once a minute; here it is sent for.
        compact(world.engine.config()).unwrap();
        sizes.push(server.psql(&size).parse::<u64>().unwrap());
    }
    assert!(sizes[11] <= sizes[2] + (sizes[2] >> 2), "it grows: {sizes:?}");
    let hot = format!(
        "SELECT n_tup_hot_upd * 10 >= n_tup_upd * 8 FROM pg_stat_user_tables
         WHERE schemaname = '{schema}' AND relname = 'store'"
    );
    assert_eq!(server.psql(&hot), "t", "commits rewrite their row in its page");
}

#[tokio::test]
async fn a_store_says_how_its_server_fares() {
    let server = Server::own();
    let schema = schema();
    let config = Config { schema: schema.clone(), ..Config::postgres(server.url()) };
    drop(Postgres::open(config.clone()).unwrap());
    server.set("autovacuum", "off");
    server.set("full_page_writes", "off");
    server.psql(&format!(
        "INSERT INTO {schema}.refused (number, problem, topic) VALUES (1, 'why not', 't')"
    ));
    let (client, connection) =
        tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let open = "SET application_name = 'a report'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1";
    client.batch_execute(open).await.unwrap();
    let store = Postgres::open(config).unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Some(seen) = store.database() {
                break seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let seen = seen.await.expect("it is looked at");
    assert!(seen.fsync && !seen.autovacuum && !seen.full_page_writes, "{seen:?}");
    assert!(seen.oldest.as_ref().is_some_and(|(who, _)| who.contains("a report")), "{seen:?}");
    assert_eq!((seen.refused.0, &*seen.refused_why), (1, "why not"));
    assert_eq!(seen.inbox.0, 0);
}
