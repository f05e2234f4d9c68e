//! Servers, databases and roles that will not do, and settings that must not matter.

use selvedge_durable::{
    Config, Engine, Error, Postgres,
    topic::{From, Publish, PutTopic, ReadTopic, Settings},
};

use super::server::Server;
use crate::conformance::message;

fn refused(config: Config) -> Error {
    Postgres::open(config).unwrap_err()
}

fn unfit(config: Config, wanted: &[&str]) {
    let error = refused(config);
    assert_eq!(error.code(), "SV0415", "{error}");
    for part in wanted {
        assert!(error.to_string().contains(part), "no `{part}` in: {error}");
    }
}

#[tokio::test]
async fn a_database_that_will_not_do_is_refused() {
    let server = Server::own();
    drop(Postgres::open(Config::postgres(server.url())).unwrap());
    server.psql("UPDATE selvedge.store SET schema = 99");
    let newer = refused(Config::postgres(server.url()));
    assert!(matches!(newer, Error::Newer { found: 99, .. }), "{newer}");
    server.psql("CREATE SCHEMA mine CREATE TABLE other (x int)");
    let mine = refused(Config { schema: "mine".to_owned(), ..Config::postgres(server.url()) });
    assert!(mine.to_string().contains("another program"), "{mine}");
    server.psql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let latin = format!("host={} user=postgres dbname=latin", server.socket_folder());
    unfit(Config::postgres(latin), &["UTF8", "createdb"]);
    let nowhere = format!("host={} user=postgres dbname=nowhere", server.socket_folder());
    unfit(Config::postgres(nowhere), &["nowhere", "createdb"]);
    server.set("fsync", "off");
    unfit(Config { schema: "s".to_owned(), ..Config::postgres(server.url()) }, &["fsync"]);
    let bad = refused(Config::postgres("postgres://localhost:notaport/x"));
    assert_eq!(bad.code(), "SV0400");
}

#[tokio::test]
async fn a_role_that_may_not_do_what_a_store_does_is_refused() {
    let server = Server::own();
    server.psql("CREATE ROLE guest LOGIN");
    server.psql("CREATE ROLE few LOGIN SUPERUSER CONNECTION LIMIT 3");
    let url = |role: &str| server.url().replace("postgres@", &format!("{role}@"));
    unfit(Config::postgres(url("guest")), &["guest", "GRANT CREATE ON DATABASE"]);
    drop(Postgres::open(Config::postgres(server.url())).unwrap());
    unfit(Config::postgres(url("guest")), &["guest", "belong to role `postgres`"]);
    unfit(Config::postgres(url("few")), &["3 connections", "takes 4", "`readers`"]);
    Postgres::open(Config { readers: 1, ..Config::postgres(url("few")) }).unwrap();
    // A schema that somebody else made and opened does as well.
    server.psql("CREATE SCHEMA lent; GRANT USAGE, CREATE ON SCHEMA lent TO guest");
    let lent = || Config { schema: "lent".to_owned(), ..Config::postgres(url("guest")) };
    drop(Postgres::open(lent()).unwrap());
    drop(Postgres::open(lent()).unwrap());
    // With the right to make a schema, nothing else is needed.
    server.psql("GRANT CREATE ON DATABASE postgres TO guest");
    let own = Config { schema: "own".to_owned(), ..Config::postgres(url("guest")) };
    let store = Postgres::open(own).unwrap();
    let put = PutTopic { name: "t".to_owned(), settings: Settings::default() };
    store.execute(put).await.unwrap();
}

#[tokio::test]
async fn a_standby_that_only_reads_is_refused() {
    let server = Server::own();
    let standby = server.standby();
    let refused = refused(Config::postgres(standby.url()));
    assert_eq!(refused.code(), "SV0407", "{refused}");
    assert!(refused.to_string().contains("standby"), "{refused}");
}

/// The server would acknowledge what it has not written, and is ended so that
/// it loses that.
#[tokio::test]
async fn what_is_acknowledged_is_kept_whatever_the_server_thinks_of_commits() {
    let server = Server::own();
    server.psql("ALTER SYSTEM SET wal_writer_delay = '10s'");
    server.psql("ALTER ROLE postgres SET synchronous_commit = off");
    server.psql("CREATE TABLE lost (x int)");
    let store = Postgres::open(Config::postgres(server.url())).unwrap();
    let put = PutTopic { name: "t".to_owned(), settings: Settings::default() };
    store.execute(put).await.unwrap();
    let publish = |text: &str| Publish { topic: "t".to_owned(), messages: vec![message(text)] };
    let read = ReadTopic { topic: "t".to_owned(), from: From::First, max: 100 };
    let mut lost = Vec::new();
    for round in 0..5 {
        store.execute(publish(&round.to_string())).await.unwrap();
        // Done after it, and therefore later in the log: that this is gone shows that
        // the crash is one that loses what was not synced. A sync for some other
        // reason may come between, but not each time.
        server.psql(&format!("INSERT INTO lost VALUES ({round})"));
        server.crash();
        server.start();
        if server.psql(&format!("SELECT count(*) FROM lost WHERE x = {round}")) == "0" {
            lost.push(round);
        }
        let log = loop {
            match store.execute(read.clone()).await {
                Ok(log) => break log,
                Err(Error::Unreachable { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(log.len(), round + 1, "an acknowledged message is gone");
        // From now on it is changed while the sessions of the store are open.
        server.psql("ALTER ROLE postgres RESET synchronous_commit");
        server.set("synchronous_commit", "on");
        while store.wake().await.is_err() {
            tokio::task::yield_now().await;
        }
        server.set("synchronous_commit", "off");
    }
    assert!(lost.iter().any(|round| *round > 0), "nothing would be lost here: {lost:?}");
}
