//! Reload, drain, records and metrics.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use selvedge_patterns::breaker::{self, Control};
use selvedge_patterns::policy::Policy;
use selvedge_proxy::access::Record;
use selvedge_proxy::config::{Downstream, Endpoint, Listener};
use selvedge_proxy::{ApplyError, Hooks};

use crate::kit::{Client, PATIENCE, Rig, Upstream, config, eventually, status, text};

#[test]
fn a_reload_changes_routes_and_drops_no_connection() {
    let (a, b) = (Upstream::echo(), Upstream::echo());
    let rig = Rig::before(&a);
    let mut client = rig.connect();
    client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut next = (*rig.proxy.handle().config()).clone();
    next.services[0].endpoints = vec![Endpoint::new("127.0.0.1", b.address.port())];
    assert_eq!(rig.proxy.handle().apply(next).unwrap(), 2);
    assert_eq!(status(&client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")), 200);
    assert_eq!((a.count(), b.count()), (1, 1));
}

#[test]
fn a_reload_that_cannot_work_changes_nothing() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut next = (*rig.proxy.handle().config()).clone();
    next.routes.clear();
    next.listeners.push(Listener {
        name: "second".into(),
        bind: taken.local_addr().unwrap(),
        protocol: Downstream::Auto,
    });
    assert!(matches!(rig.proxy.handle().apply(next.clone()), Err(ApplyError::Bind { .. })));
    next.routes = rig.proxy.handle().config().routes.clone();
    next.routes[0].to = "nowhere".into();
    assert!(matches!(rig.proxy.handle().apply(next), Err(ApplyError::Invalid(_))));
    assert_eq!(rig.proxy.handle().generation(), 1);
    assert_eq!(status(&rig.get("/")), 200);
}

#[test]
fn listeners_come_and_go() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    let handle = rig.proxy.handle();
    let mut next = (*handle.config()).clone();
    next.listeners[0].name = "other".into();
    handle.apply(next).unwrap();
    let other = handle.address("other").unwrap();
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(status(&Client::connect(other).ask(request)), 200);
    eventually("the old one is closed", || std::net::TcpStream::connect(rig.edge).is_err());
}

#[test]
fn an_unchanged_service_keeps_its_state() {
    let upstream = Upstream::echo();
    let mut first = config(&[upstream.address]);
    first.services[0].policy =
        Policy { breaker: Some(breaker::Config::default()), ..Policy::default() };
    let rig = Rig::new(first.clone());
    let handle = rig.proxy.handle();
    handle.service("s").unwrap().control_breaker(handle.now(), 0, Control::ForceOpen);
    assert_eq!(status(&rig.get("/")), 503);
    first.routes[0].name = "renamed".into();
    first.listeners = handle.config().listeners.clone();
    handle.apply(first).unwrap();
    assert_eq!(status(&rig.get("/")), 503);
    handle.service("s").unwrap().control_breaker(handle.now(), 0, Control::Automatic);
    assert_eq!(status(&rig.get("/")), 200);
    handle.service("s").unwrap().drain(handle.now(), 0, true);
    assert!(text(&rig.get("/")).contains("SV0208"));
}

#[test]
fn a_shutdown_lets_requests_end() {
    let upstream = Upstream::start(|_, stream| {
        std::thread::park_timeout(Duration::from_millis(200));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").is_ok()
    });
    let Rig { proxy, edge, .. } = Rig::before(&upstream);
    let mut client = Client::connect(edge);
    let mut idle = Client::connect(edge);
    idle.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is under way", || upstream.count() == 2);
    let handle = proxy.handle();
    let ended = std::thread::spawn(move || proxy.shut_down());
    assert_eq!(text(&client.response()), "done");
    assert!(client.is_closed() && idle.is_closed());
    ended.join().unwrap();
    assert!(std::net::TcpStream::connect(edge).is_err());
    assert!(matches!(handle.apply(config(&[upstream.address])), Err(ApplyError::Draining)));
}

#[test]
fn each_call_leaves_a_record_and_is_counted() {
    let upstream = Upstream::echo();
    let (records, taken) = sync_channel::<Record>(1);
    let rig = Rig::with(
        config(&[upstream.address]),
        Hooks { access: Some(Arc::new(records)), ..Hooks::default() },
    );
    rig.get("/a?secret=1");
    let record = taken.recv_timeout(PATIENCE).unwrap();
    assert_eq!((record.path.as_str(), record.attempts, record.whole), ("/a", 1, true));
    assert_eq!(record.status.map(|status| status.as_u16()), Some(200));
    assert_eq!(record.tried[0].as_ref().unwrap().endpoint.as_ref(), upstream.address.to_string());
    assert_eq!((record.route.as_deref(), record.service.as_deref()), (Some("r"), Some("s")));
    for _ in 0..3 {
        rig.get("/");
    }
    eventually("what found no room is counted", || {
        rig.proxy.handle().metrics().contains("selvedge_access_records_dropped_total 2")
    });
    let metrics = rig.proxy.handle().metrics();
    assert!(
        metrics.contains("selvedge_requests_total{route=\"r\",code_class=\"2xx\"} 4"),
        "{metrics}"
    );
    assert!(metrics.contains("selvedge_attempts_total{service=\"s\",outcome=\"success\"} 4"));
    assert!(metrics.contains("selvedge_requests_in_flight{route=\"r\"} 0"));
    assert_eq!(rig.proxy.handle().counts("s").unwrap().calls, 4);
}
