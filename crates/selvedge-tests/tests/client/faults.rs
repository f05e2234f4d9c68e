//! What an operation is told when the way to the server breaks: never that it
//! was done when it was not, and never is it done twice behind its back.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use selvedge_api::app;
use selvedge_client::{Client, Config};
use selvedge_durable::{
    Engine, Error, Sqlite,
    state::{Condition, GetState, PutState},
    stream::{Append, Expected, NewEvent, ReadStream, Write},
    topic::{From, ListTopics, NewMessage, Publish, PutTopic, ReadTopic, Settings},
};
use selvedge_patterns::{backoff, retry};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::peer::{Relay, saying};

fn store() -> (Sqlite, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = selvedge_durable::Config::new(folder.path().join("store.db"));
    (Sqlite::open(config).unwrap(), folder)
}

/// A server on `store`, and what makes it drain.
async fn serve(store: &Sqlite) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = app::Server::new(app::Config::default(), store.clone());
    let server = tokio::spawn(server.run(listener, async { drop(stopped.await) }));
    (address, stop, server)
}

fn client(address: SocketAddr) -> Client {
    client_with(address, Config::default())
}

fn client_with(address: SocketAddr, config: Config) -> Client {
    let quick = Duration::from_millis(1);
    let backoff = backoff::Config { base: quick, cap: quick * 20, ..backoff::Config::default() };
    let retry = retry::Config { backoff, ..retry::Config::default() };
    Client::new(Config { url: format!("http://{address}"), retry, ..config }).unwrap()
}

fn publish(topic: &str, dedupe_id: Option<&str>) -> Publish {
    let message = NewMessage {
        payload: Some(Bytes::from_static(b"x")),
        dedupe_id: dedupe_id.map(str::to_owned),
        ..NewMessage::default()
    };
    Publish { topic: topic.to_owned(), messages: vec![message] }
}

fn put(key: &str, value: &str) -> PutState {
    let (key, value) = (key.to_owned(), Bytes::copy_from_slice(value.as_bytes()));
    PutState { key, value, content_type: None, condition: Condition::Any, ttl: None }
}

async fn topic(engine: &impl Engine, name: &str) {
    let settings = Settings::default();
    engine.execute(PutTopic { name: name.to_owned(), settings }).await.unwrap();
}

async fn positions(store: &Sqlite, topic: &str) -> usize {
    let (topic, from) = (topic.to_owned(), From::First);
    store.execute(ReadTopic { topic, from, max: 10_000 }).await.unwrap().len()
}

#[tokio::test]
async fn answers_cut_anywhere_are_neither_lost_nor_done_twice() {
    let (store, _folder) = store();
    let (address, _stop, _server) = serve(&store).await;
    let relay = Relay::to(address).await;
    let (mut unknown, mut fine) = (0, 0);
    for cut in (1..500).step_by(7) {
        let name = format!("t{cut}");
        topic(&store, &name).await;
        for version in 0..2 {
            let event = NewEvent { kind: "E".to_owned(), ..NewEvent::default() };
            let (expected, events) = (Expected::Any, vec![event]);
            let write = Write { stream: format!("{name}-{version}"), expected, events };
            store.execute(Append { writes: vec![write] }).await.unwrap();
        }
        relay.cut.store(cut, Ordering::SeqCst);
        let client = client(relay.address);
        let event = |id: Option<&str>| NewEvent {
            kind: "E".to_owned(),
            id: id.map(str::to_owned),
            ..NewEvent::default()
        };
        let append = |stream: usize, id| {
            let (expected, events) = (Expected::Exact(0), vec![event(id)]);
            let write = Write { stream: format!("{name}-{stream}"), expected, events };
            client.execute(Append { writes: vec![write] })
        };
        let once = client.execute(publish(&name, Some("one")));
        let (named, plain) = (append(0, Some("e")), append(1, None));
        let written = client.execute(put(&name, "v"));
        let read = client.execute(ListTopics);
        let (once, named, plain, written, read) = tokio::join!(once, named, plain, written, read);
        // A repeat that changes nothing is made, and its answer is the first one's.
        assert!(
            once.is_ok() && named.is_ok() && read.is_ok(),
            "{cut}: {once:?} {named:?} {read:?}"
        );
        for (came, done) in [
            (plain.map(drop), events(&store, &format!("{name}-1")).await == 2),
            (written.map(drop), store.execute(GetState { key: name.clone() }).await.is_ok()),
        ] {
            match came {
                Ok(()) => assert!(done, "{cut}: acknowledged and not there"),
                Err(Error::Unknown) => unknown += 1,
                Err(error) => panic!("{cut}: {error}"),
            }
            fine += usize::from(done);
        }
        assert_eq!(positions(&store, &name).await, 1, "{cut}");
        assert_eq!(events(&store, &format!("{name}-0")).await, 2, "{cut}");
        client.close().await;
    }
    assert!(unknown > 3 && fine > 10, "both ends were seen: {unknown} {fine}");
}

async fn events(store: &Sqlite, stream: &str) -> usize {
    let stream = stream.to_owned();
    let read = ReadStream { stream, from: 0, backwards: false, max: 100 };
    store.execute(read).await.unwrap().events.len()
}

#[tokio::test]
async fn a_server_that_drains_leaves_nobody_in_doubt() {
    let (store, _folder) = store();
    topic(&store, "t").await;
    let (mut address, mut stop, mut server) = serve(&store).await;
    let relay = Relay::to(address).await;
    let client = client(relay.address);
    let mut sent = Vec::new();
    for round in 0..5 {
        for n in 0..100 {
            // Not to be repeated: nothing names them.
            sent.push(tokio::spawn(client.execute(publish("t", None))));
            if n == 50 {
                let next = serve(&store).await;
                *relay.target.lock().unwrap() = next.0;
                let (_, before, over) = (address, stop, server);
                (address, stop, server) = next;
                before.send(()).unwrap();
                if round % 2 == 0 {
                    over.await.unwrap();
                }
            }
        }
    }
    for (n, sent) in sent.into_iter().enumerate() {
        assert!(sent.await.unwrap().is_ok(), "{n}");
    }
    assert_eq!(positions(&store, "t").await, 500);
    drop((stop, server, address));
}

#[tokio::test]
async fn what_cannot_be_reached_was_not_done() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let timeout = Duration::from_millis(100);
    let client = client_with(address, Config { timeout, ..Config::default() });
    let error = client.execute(put("k", "v")).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.retryable(), "nothing was sent");
}

#[tokio::test]
async fn garbage_and_silence_are_told_apart_from_answers() {
    for said in ["garbage\n", "{\"id\":1,\n", "{\"id\":1}\n", "{\"id\":1,\"etag\":7}\n", "{}\n"] {
        let peer = saying(StatusCode::OK, move |_| Some(said.to_owned())).await;
        let error = client(peer).execute(put("k", "v")).await.unwrap_err();
        assert!(matches!(error, Error::Unknown), "{said}: {error:?}");
        let error = client(peer).execute(ListTopics).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{said}: {error:?}");
    }
    let peer = saying(StatusCode::OK, |_| Some(String::new())).await;
    let slow = Config { timeout: Duration::from_millis(100), ..Config::default() };
    let slow = client_with(peer, slow);
    let (wrote, read) = tokio::join!(slow.execute(put("k", "v")), slow.execute(ListTopics));
    assert!(matches!(wrote, Err(Error::Unknown)), "{wrote:?}");
    assert!(matches!(read, Err(Error::Unreachable { .. })), "{read:?}");
    slow.close().await;
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_fails_at_once() {
    let later = r#"{"id":1,"code":"SV0499","status":409,"detail":"the moon is full"}"#;
    let peer = saying(StatusCode::OK, move |_| Some(format!("{later}\n"))).await;
    let error = client(peer).execute(put("k", "v")).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("SV0499", false));
    let peer = saying(StatusCode::NOT_FOUND, |_| Some("<html>".to_owned())).await;
    let error = client(peer).execute(put("k", "v")).await.unwrap_err();
    assert!(error.to_string().contains("not the app API"), "{error}");
    let (store, _folder) = store();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = app::Config { token: Some("secret".to_owned()), ..app::Config::default() };
    let server = app::Server::new(config, store).run(listener, std::future::pending());
    let server = tokio::spawn(server);
    let error = client(address).execute(ListTopics).await.unwrap_err();
    assert_eq!(error.code(), "SV0303", "{error}");
    server.abort();
}

#[tokio::test]
async fn bounds_fail_one_operation_and_say_which() {
    let peer = saying(StatusCode::OK, |_| Some(String::new())).await;
    let config = Config { under_way_max: 2, line_bytes_max: 1024, ..Config::default() };
    let client = client_with(peer, config);
    let large = client.execute(put("k", &"v".repeat(1024))).await.unwrap_err();
    assert!(matches!(large, Error::TooLarge { max: 1024, .. }), "{large:?}");
    let waiting = [client.execute(put("k", "v")), client.execute(put("k", "v"))];
    let third = client.execute(put("k", "v")).await.unwrap_err();
    assert!(matches!(third, Error::Overloaded { waiting: 2 }), "{third:?}");
    drop(waiting);
    for wrong in ["https://localhost", "localhost:9901", "http://", "http://a b"] {
        let config = Config { url: wrong.to_owned(), ..Config::default() };
        assert_eq!(Client::new(config).unwrap_err().code(), "SV0413", "{wrong}");
    }
}
