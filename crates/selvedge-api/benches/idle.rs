//! What waiting costs: groups, long polls, streams of server-sent events and
//! timers that nothing comes for, over real connections.
//!
//! Expected before the first run: each stream says a word every 15 s and nothing
//! else happens, so 10,000 of them make some 700 small writes a second, below
//! one hundredth of a processor for the server.
//!
//! Run with `cargo bench -p selvedge-api --bench idle`; `BENCH_IDLE` says how
//! many of each (10,000 unless said; timers are ten times as many),
//! `BENCH_SECONDS` for how long (20). Clients and server share the process, and
//! the figure is the processor time of both.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use selvedge_api::app;
use selvedge_durable::{
    Clock, Config, Engine, Operation, Sqlite, SystemClock,
    group::{Config as GroupConfig, PutGroup, Receive},
    topic::{From, NewMessage, Publish, PutTopic, Settings},
};
use tokio::net::{TcpListener, TcpStream};

/// Requests that share a connection.
const SHARE: usize = 1000;
/// Topics among which the groups are.
const TOPICS: usize = 100;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the result of a bench is data")]
async fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let (count, seconds) = (number("BENCH_IDLE", 10_000), number("BENCH_SECONDS", 20) as u64);
    let folder = tempfile::tempdir().expect("a folder for the bench");
    let store = Sqlite::open(Config::new(folder.path().join("idle.db"))).expect("a store");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = app::Server::new(app::Config::default(), store.clone());
    tokio::spawn(server.run(listener, std::future::pending()));

    println!("| {count} of each | CPU in {seconds} s | share of one | transactions | reads |");
    println!("|---|--:|--:|--:|--:|");
    let line = async |what: &str| {
        // What has begun comes to rest first.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (cpu_before, begun) = (cpu(), Instant::now());
        let (writes, reads) = (store.transactions(), store.reads());
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let (used, passed) = (cpu() - cpu_before, begun.elapsed());
        println!(
            "| {what} | {:.2} s | {:.2} % | {} | {} |",
            used.as_secs_f64(),
            used.as_secs_f64() / passed.as_secs_f64() * 100.0,
            store.transactions() - writes,
            store.reads() - reads,
        );
    };
    line("nothing").await;
    groups(&store, count).await;
    line("groups").await;
    timers(&store, count * 10).await;
    line("and timers, ten times as many").await;
    let mut polls = tokio::task::JoinSet::new();
    for n in 0..count {
        let wait = Duration::from_secs(3600);
        let (topic, group) = (format!("t{}", n % TOPICS), format!("g{n}"));
        polls.spawn(store.execute(Receive {
            topic,
            group,
            max: 1,
            lease: None,
            wait,
            consumer: None,
        }));
    }
    line("and long polls").await;
    let mut streams = Vec::new();
    let mut connection = None;
    for n in 0..count {
        if n % SHARE == 0 {
            connection = Some(connect(&address).await);
        }
        let sender = connection.as_mut().expect("a connection");
        let path = match n % 3 {
            0 => format!("/v1/topics/t{}/messages", n % TOPICS),
            1 => format!("/v1/streams/s{n}"),
            _ => format!("/v1/leases/l{n}"),
        };
        streams.push(follow(sender, &address, &path).await);
    }
    line("and streams of events").await;
    drop(streams);
}

/// Processor time of this process, all threads, to a hundredth of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("the times of this process");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|it| it.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

async fn groups(store: &Sqlite, count: usize) {
    let mut operations = Vec::new();
    for n in 0..TOPICS {
        let put = PutTopic { name: format!("t{n}"), settings: Settings::default() };
        operations.push(Operation::PutTopic(put));
    }
    for n in 0..count {
        let (topic, group) = (format!("t{}", n % TOPICS), format!("g{n}"));
        let (config, from) = (GroupConfig::default(), From::First);
        operations.push(Operation::PutGroup(PutGroup { topic, group, config, from }));
    }
    store.transact(operations).await.expect("topics and groups");
}

async fn timers(store: &Sqlite, count: usize) {
    let deliver_at = Some(SystemClock.now() + Duration::from_secs(86_400));
    let payload = Some(Bytes::from_static(b"later"));
    let message = NewMessage { payload, deliver_at, ..NewMessage::default() };
    let mut left = count;
    while left > 0 {
        let messages = vec![message.clone(); left.min(10_000)];
        left -= messages.len();
        let publish = Publish { topic: "t0".to_owned(), messages };
        store.execute(publish).await.expect("timers");
    }
}

type Sender = SendRequest<Full<Bytes>>;

async fn connect(address: &str) -> Sender {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

/// Follows and reads what comes, as a client would.
async fn follow(sender: &mut Sender, address: &str, path: &str) -> tokio::task::JoinHandle<()> {
    let request = Request::get(format!("http://{address}{path}"))
        .header(header::ACCEPT, "text/event-stream")
        .body(Full::default())
        .expect("a request");
    sender.ready().await.expect("room for a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    let mut body = answer.into_body();
    tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} })
}
