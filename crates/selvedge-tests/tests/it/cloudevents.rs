//! What the official SDKs of CloudEvents are put through, whatever their language.

use selvedge_api::{
    app,
    push::{Config as Pushing, Mode, Push, Through},
};
use selvedge_durable::{
    Config, Engine as _, Request, Sqlite,
    group::{Config as GroupConfig, PutGroup},
    topic::{From, PutTopic, Settings},
};
use selvedge_proxy::{
    Hooks, Proxy,
    config::{Config as Plane, Endpoint, Service},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};

/// A store with the topic `t`, its group `g`, and the app API before it.
struct App {
    threads: Runtime,
    store: Sqlite,
    port: u16,
    _folder: TempDir,
}

impl App {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(Config::new(folder.path().join("store.db"))).unwrap();
        let threads = Runtime::new().unwrap();
        let listener = threads.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = app::Server::new(app::Config::default(), store.clone());
        threads.spawn(server.run(listener, std::future::pending()));
        let app = Self { threads, store, port, _folder: folder };
        app.run(PutTopic { name: "t".to_owned(), settings: Settings::default() });
        let (topic, group) = ("t".to_owned(), "g".to_owned());
        app.run(PutGroup { topic, group, config: GroupConfig::default(), from: From::First });
        app
    }

    fn run<R: Request>(&self, request: R) -> R::Reply {
        self.threads.block_on(self.store.execute(request)).unwrap()
    }
}

/// The SDK publishes in both modes and receives what it published.
pub(crate) fn publishes_and_receives(mut peer: Command, subject: &str) {
    let app = App::start();
    let output = peer.args([&app.port.to_string(), "t", "g"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    for (number, event) in (1..).zip(&events) {
        looks_right(event, number, subject);
        assert!(event["attributes"]["selvedgereceipt"].is_string(), "to answer it by: {event}");
    }
}

/// Keeps a process only as long as the test.
struct Listening(Child);

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server made with the SDK understands what is pushed to it in both modes.
pub(crate) fn understands_what_is_pushed(peer: impl Fn() -> Command, subject: &str) {
    for mode in [Mode::Binary, Mode::Structured] {
        let app = App::start();
        let mut server = peer();
        server.arg("--serve").stdout(Stdio::piped());
        let mut server = Listening(server.spawn().unwrap());
        let mut lines = BufReader::new(server.0.stdout.take().unwrap());
        let port: u16 = line(&mut lines).trim().parse().unwrap();
        let endpoints = vec![Endpoint::new("127.0.0.1", port)];
        let service = Service { name: "sdk".to_owned(), endpoints, ..Service::default() };
        let plane = Plane { services: vec![service], ..Plane::default() };
        let proxy = Proxy::start(plane, Hooks::default()).unwrap();
        let config = Pushing { mode, timeout: Duration::from_secs(60), ..Pushing::new("t", "g") };
        let push = Push::new(app.store.clone(), Through::new(proxy.handle(), "sdk"), config);
        let pushing = app.threads.spawn(push.run(std::future::pending()));
        let sent = peer().args([&app.port.to_string(), "t", "nobody"]).output().unwrap();
        assert!(!sent.status.success(), "there is no such group to receive from");
        let mut events: Vec<Value> =
            (0..2).map(|_| serde_json::from_str(&line(&mut lines)).unwrap()).collect();
        events.sort_by_key(|event| event["data"]["number"].as_u64());
        for (number, event) in (1..).zip(&events) {
            looks_right(event, number, subject);
        }
        pushing.abort();
        drop(server);
        proxy.shut_down();
    }
}

fn line(lines: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    line
}

fn looks_right(event: &Value, number: u64, subject: &str) {
    assert_eq!(event["data"], json!({ "number": number, "text": "grüße" }), "{event}");
    let attributes = &event["attributes"];
    for (name, value) in [
        ("specversion", "1.0"),
        ("type", "com.example.placed"),
        ("datacontenttype", "application/json"),
        ("partitionkey", "customer-7"),
        ("comexampleextra", "kept"),
        ("subject", subject),
    ] {
        assert_eq!(attributes[name], value, "{event}");
    }
    assert!(attributes["time"].as_str().unwrap().starts_with("2026-01-31T12:00:00"), "{event}");
    assert!(attributes["id"].as_str().unwrap().ends_with(&number.to_string()), "{event}");
}
