//! Bounds, each reached on purpose.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use selvedge_patterns::{backoff, balance, budget, bulkhead, outlier, retry};
use selvedge_proxy::Hooks;
use selvedge_proxy::access::Record;

use crate::kit::{Client, PATIENCE, Rig, Seen, Upstream, config, eventually, status, text};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Begins a body without an end: a piece every 10 ms for as long as somebody listens.
fn drip(stream: &mut TcpStream, kind: &str) -> bool {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut piece = stream.write_all(head.as_bytes());
    while piece.is_ok() {
        std::thread::park_timeout(Duration::from_millis(10));
        piece = stream.write_all(b"2\r\n.\n\r\n");
    }
    false
}

/// The answer's head, and what of its body has come `after` it.
fn stream_for(rig: &Rig, request: &str, after: Duration) -> (String, Vec<u8>, bool) {
    let mut client = rig.connect();
    client.send(request);
    let begun = std::time::Instant::now();
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while begun.elapsed() < after {
        match client.stream.read(&mut buffer) {
            Ok(0) | Err(_) => return (String::from_utf8_lossy(&all).into_owned(), all, true),
            Ok(read) => all.extend_from_slice(&buffer[..read]),
        }
    }
    (String::from_utf8_lossy(&all).into_owned(), all, false)
}

#[test]
fn the_total_bounds_the_body_too() {
    let upstream = Upstream::start(|request: &Seen, stream| {
        let events = request.line().starts_with("GET /events");
        drip(stream, if events { "text/event-stream" } else { "text/plain" })
    });
    let mut config = config(&[upstream.address]);
    let timeout = &mut config.services[0].policy.timeout;
    (timeout.connect, timeout.attempt) =
        (Duration::from_millis(100), Some(Duration::from_millis(200)));
    timeout.total = Some(Duration::from_millis(300));
    let (records, taken) = sync_channel::<Record>(8);
    let rig = Rig::with(config, Hooks { access: Some(Arc::new(records)), ..Hooks::default() });

    let (seen, bytes, ended) = stream_for(&rig, GET, PATIENCE);
    assert!(ended && seen.starts_with("HTTP/1.1 200 "), "{seen}");
    assert!(bytes.len() > 200 && !seen.ends_with("0\r\n\r\n"), "some came, and no end: {seen}");
    let record = taken.recv_timeout(PATIENCE).unwrap();
    assert_eq!((record.reason, record.whole), ("deadline_exceeded", false));

    let events = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n";
    let (seen, _, ended) = stream_for(&rig, events, Duration::from_millis(700));
    assert!(!ended, "a stream of events has no end: {seen}");
    let asked = "GET /events HTTP/1.1\r\nHost: a\r\nX-Envoy-Expected-Rq-Timeout-Ms: 250\r\n\r\n";
    let (_, _, ended) = stream_for(&rig, asked, PATIENCE);
    assert!(ended, "but its caller's patience has");
}

#[test]
fn silence_in_a_body_ends_it() {
    let upstream = Upstream::start(|request: &Seen, stream| {
        let events = request.line().starts_with("GET /events");
        let kind = if events { "text/event-stream" } else { "text/plain" };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n.\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        std::thread::park_timeout(PATIENCE);
        false
    });
    let mut config = config(&[upstream.address]);
    config.services[0].policy.timeout.idle_read = Some(Duration::from_millis(150));
    let (records, taken) = sync_channel::<Record>(8);
    let rig = Rig::with(config, Hooks { access: Some(Arc::new(records)), ..Hooks::default() });
    let (seen, _, ended) = stream_for(&rig, GET, PATIENCE);
    assert!(ended && seen.ends_with(".\n\r\n"), "{seen}");
    assert_eq!(taken.recv_timeout(PATIENCE).unwrap().reason, "silent");
    let mut events = rig.connect();
    events.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    events.stream.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    assert!(!events.is_closed(), "events may be rare");
}

/// An upstream that switches protocols and then sends back what it gets.
fn switching() -> Upstream {
    Upstream::start(|_, stream| {
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n",
            )
            .unwrap();
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..read]).unwrap();
        }
        false
    })
}

#[test]
fn a_tunnel_in_which_nothing_moves_is_closed() {
    let upstream = switching();
    let mut config = config(&[upstream.address]);
    config.limits.tunnel_idle_for = Duration::from_millis(300);
    let rig = Rig::new(config);
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n");
    let head = String::from_utf8(client.read_some()).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for _ in 0..8 {
        std::thread::park_timeout(Duration::from_millis(60));
        client.send("ping");
        assert_eq!(client.read_some(), b"ping", "what is used stays open");
    }
    assert!(client.is_closed(), "what is not is closed");
    eventually("upstream, too", || rig.proxy.handle().pools("s")[0].1 == 0);
}

/// Answers once the gate is open.
fn gated(gate: &Arc<AtomicBool>) -> Upstream {
    let gate = gate.clone();
    Upstream::start(move |_, stream| {
        while !gate.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
    })
}

#[test]
fn connections_to_an_endpoint_have_a_bound() {
    let gate = Arc::new(AtomicBool::new(false));
    let upstream = gated(&gate);
    let mut config = config(&[upstream.address]);
    config.services[0].pool.connections_max = 2;
    let rig = Rig::new(config);
    let mut clients: Vec<Client> = (0..2).map(|_| rig.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    eventually("both are out", || upstream.count() == 2);
    let third = rig.get("/");
    assert!(status(&third) == 503 && text(&third).contains("SV0214"), "{third:?}");
    gate.store(true, Ordering::SeqCst);
    assert!(clients.iter_mut().all(|client| status(&client.response()) == 200));
    assert_eq!(status(&rig.get("/")), 200, "the places are free again");
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn no_more_idle_connections_are_kept_than_allowed() {
    let gate = Arc::new(AtomicBool::new(false));
    let upstream = gated(&gate);
    let mut config = config(&[upstream.address]);
    config.services[0].pool.idle_max = 1;
    config.services[0].pool.idle_for = Duration::from_millis(300);
    config.limits.head_within = Duration::from_millis(400);
    let rig = Rig::new(config);
    let mut clients: Vec<Client> = (0..3).map(|_| rig.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    eventually("all are out", || upstream.count() == 3);
    gate.store(true, Ordering::SeqCst);
    assert!(clients.iter_mut().all(|client| status(&client.response()) == 200));
    let pool = || {
        let (_, open, idle) = rig.proxy.handle().pools("s")[0];
        (open, idle)
    };
    eventually("two are closed", || pool() == (1, 1) || pool() == (0, 0));
    eventually("and the last one after a while", || pool() == (0, 0));
}

#[test]
fn endpoints_share_the_bulkhead_of_their_service() {
    let gate = Arc::new(AtomicBool::new(false));
    let (a, b) = (gated(&gate), gated(&gate));
    let mut config = config(&[a.address, b.address]);
    config.services[0].policy.bulkhead =
        Some(bulkhead::Config { max_in_flight: 2, queue: 0, ..bulkhead::Config::default() });
    let rig = Rig::new(config);
    let mut clients: Vec<Client> = (0..2).map(|_| rig.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    eventually("both are out", || a.count() + b.count() == 2);
    assert!(text(&rig.get("/")).contains("SV0207"));
    gate.store(true, Ordering::SeqCst);
    assert!(clients.iter_mut().all(|client| status(&client.response()) == 200));
}

#[test]
fn an_endpoint_that_keeps_failing_is_ejected_and_comes_back() {
    let sick = Arc::new(AtomicBool::new(true));
    let state = sick.clone();
    let well = Upstream::echo();
    let ill = Upstream::start(move |_, stream| match state.load(Ordering::SeqCst) {
        true => stream.write_all(b"HTTP/1.1 503 Sick\r\nContent-Length: 0\r\n\r\n").is_ok(),
        false => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok(),
    });
    let mut config = config(&[well.address, ill.address]);
    // The balancer has a penalty of its own, which is not what this is about.
    config.services[0].policy.balance.algorithm = balance::Algorithm::RoundRobin;
    config.services[0].policy.outlier = Some(outlier::Config {
        consecutive: Some(3),
        base: Duration::from_millis(500),
        interval: Duration::from_millis(50),
        ejected_max: 0.5,
        ..outlier::Config::default()
    });
    let rig = Rig::new(config);
    let statuses = |n: usize| (0..n).map(|_| status(&rig.get("/"))).collect::<Vec<_>>();
    let ejected = || {
        let view = rig.proxy.handle().service("s").unwrap().view(rig.proxy.handle().now());
        view.endpoints.iter().filter(|endpoint| endpoint.outlier.ejected_until.is_some()).count()
    };
    eventually("it is ejected", || {
        statuses(4);
        ejected() == 1
    });
    assert!(statuses(5).iter().all(|status| *status == 200));
    sick.store(false, Ordering::SeqCst);
    eventually("it comes back", || ejected() == 0);
    let before = ill.count();
    eventually("and is asked again", || {
        assert!(statuses(4).iter().all(|status| *status == 200));
        ill.count() > before
    });
    drop(rig.proxy.handle().take_events());
    assert!(rig.proxy.handle().metrics().contains("selvedge_ejections_total{service=\"s\"} 1"));
}

#[test]
fn retries_end_with_their_budget() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_ok()
    });
    let wait = Duration::from_millis(1);
    let backoff = backoff::Config { base: wait, cap: wait, ..backoff::Config::default() };
    let mut config = config(&[upstream.address]);
    let policy = &mut config.services[0].policy;
    policy.retry = Some(retry::Config { backoff, ..retry::Config::default() });
    // One a second that nobody has to earn, and nothing succeeds here.
    policy.budget = Some(budget::Config {
        per_second: 1,
        window: Duration::from_secs(1),
        ..budget::Config::default()
    });
    let rig = Rig::new(config);
    let begun = std::time::Instant::now();
    let calls = 60;
    for _ in 0..calls {
        assert_eq!(status(&rig.get("/")), 503);
    }
    let extra = upstream.count() - calls;
    let seconds = begun.elapsed().as_secs() as usize + 1;
    assert!(extra >= 1 && extra <= 2 * seconds + 1, "{extra} extra attempts in {seconds} s");
    let metrics = rig.proxy.handle().metrics();
    assert!(metrics.contains(&format!("selvedge_retries_total{{service=\"s\"}} {extra}\n")));
}
