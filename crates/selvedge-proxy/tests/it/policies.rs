//! The interaction rules, over real sockets.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode};
use selvedge_patterns::policy::Policy;
use selvedge_patterns::{backoff, breaker, bulkhead, health, hedge, limit, retry};
use selvedge_proxy::config::{Config, Fallback, Key, Limit, StaticResponse};

use crate::kit::{PATIENCE, Rig, Seen, Upstream, config, eventually, field, status, text};

fn say(stream: &mut TcpStream, status: &str, body: &str) -> bool {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).is_ok()
}

/// Fails so often, then is well.
fn flaky(failures: usize) -> Upstream {
    let left = AtomicUsize::new(failures);
    Upstream::start(move |_, stream| {
        let fails =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if fails { say(stream, "503 Unavailable", "no") } else { say(stream, "200 OK", "yes") }
    })
}

fn with(upstreams: &[&Upstream], policy: Policy) -> Config {
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let mut config = config(&addresses);
    config.services[0].policy = policy;
    config
}

fn retrying() -> Policy {
    let wait = Duration::from_millis(1);
    let backoff = backoff::Config { base: wait, cap: wait, ..backoff::Config::default() };
    Policy {
        retry: Some(retry::Config { backoff, ..retry::Config::default() }),
        ..Policy::default()
    }
}

#[test]
fn a_safe_request_is_tried_again_and_says_so() {
    let upstream = flaky(2);
    let rig = Rig::new(with(&[&upstream], retrying()));
    assert_eq!(status(&rig.get("/")), 200);
    let marks: Vec<_> =
        upstream.seen.lock().unwrap().iter().map(|s| s.field("x-selvedge-attempt")).collect();
    assert_eq!(marks, [None, Some("1".into()), Some("2".into())]);
    let ids: Vec<_> =
        upstream.seen.lock().unwrap().iter().map(|s| s.field("x-request-id")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one id for one call");
}

#[test]
fn an_unsafe_request_is_not_unless_it_has_a_key() {
    let upstream = flaky(1);
    let rig = Rig::new(with(&[&upstream], retrying()));
    assert_eq!(status(&rig.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")), 503);
    assert_eq!(upstream.count(), 1);
    let upstream = flaky(1);
    let rig = Rig::new(with(&[&upstream], retrying()));
    let request = "POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: k\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(status(&rig.ask(request)), 200);
    assert_eq!(upstream.count(), 2);
    assert_eq!(upstream.last().body, b"hi", "the body is sent again");
    assert_eq!(upstream.last().field("idempotency-key").as_deref(), Some("k"));
}

#[test]
fn only_one_layer_retries() {
    let upstream = flaky(1);
    let rig = Rig::new(with(&[&upstream], retrying()));
    assert_eq!(status(&rig.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Selvedge-Attempt: 1\r\n\r\n")), 503);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_was_never_sent_is_sent_elsewhere() {
    let upstream = flaky(0);
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = config(&[dead, upstream.address]);
    config.services[0].policy = retrying();
    let rig = Rig::new(config);
    for _ in 0..10 {
        let post = rig.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(status(&post), 200, "{}", text(&post));
    }
}

#[test]
fn an_attempt_and_a_call_take_no_longer_than_they_may() {
    let upstream = Upstream::start(|_, _| {
        std::thread::park_timeout(PATIENCE);
        false
    });
    let mut policy = Policy::default();
    policy.timeout.connect = Duration::from_millis(50);
    policy.timeout.attempt = Some(Duration::from_millis(100));
    let rig = Rig::new(with(&[&upstream], policy));
    let response = rig.get("/");
    assert_eq!(status(&response), 504);
    assert!(text(&response).contains("SV0212"), "{}", text(&response));
    let began = Instant::now();
    let response =
        rig.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Envoy-Expected-Rq-Timeout-Ms: 50\r\n\r\n");
    assert_eq!(status(&response), 504);
    assert!(began.elapsed() < PATIENCE / 2);
    let grpc = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\ngrpc-timeout: 50m\r\nContent-Length: 0\r\n\r\n";
    let response = rig.ask(grpc);
    assert_eq!(
        (status(&response), field(&response.head, "grpc-status").as_deref()),
        (200, Some("4"))
    );
}

#[test]
fn what_is_left_is_passed_on() {
    let upstream = Upstream::echo();
    let rig = Rig::before(&upstream);
    rig.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Envoy-Expected-Rq-Timeout-Ms: 500\r\n\r\n");
    let left: u64 =
        upstream.last().field("x-envoy-expected-rq-timeout-ms").unwrap().parse().unwrap();
    assert!((300..500).contains(&left), "{left}");
    assert!(upstream.last().field("x-request-deadline").is_some());
    let past = rig.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Deadline: 1000\r\n\r\n");
    assert!(text(&past).contains("SV0205"), "{}", text(&past));
    assert_eq!(upstream.count(), 1, "nothing is begun that cannot end in time");
}

#[test]
fn an_open_breaker_spares_the_service_and_recovers() {
    let sick = Arc::new(AtomicUsize::new(1));
    let state = sick.clone();
    let upstream = Upstream::start(move |_, stream| match state.load(Ordering::SeqCst) {
        0 => say(stream, "200 OK", "yes"),
        _ => say(stream, "500 Broken", "no"),
    });
    let breaker = breaker::Config {
        min_calls: 5,
        open_for: Duration::from_millis(200),
        ..breaker::Config::default()
    };
    let rig = Rig::new(with(&[&upstream], Policy { breaker: Some(breaker), ..Policy::default() }));
    for _ in 0..5 {
        assert_eq!(status(&rig.get("/")), 500);
    }
    let response = rig.get("/");
    assert_eq!(status(&response), 503);
    assert!(text(&response).contains("SV0206"), "{}", text(&response));
    assert!(field(&response.head, "retry-after").is_some());
    assert_eq!(upstream.count(), 5);
    sick.store(0, Ordering::SeqCst);
    eventually("it recovers", || status(&rig.get("/")) == 200);
    let events = rig.proxy.handle().take_events();
    assert!(!events.is_empty());
    assert!(
        rig.proxy
            .handle()
            .metrics()
            .contains("selvedge_breaker_transitions_total{service=\"s\",to=\"open\"} 1")
    );
}

#[test]
fn a_full_bulkhead_queues_then_rejects() {
    let gate = Arc::new(AtomicUsize::new(0));
    let closed = gate.clone();
    let upstream = Upstream::start(move |_, stream| {
        while closed.load(Ordering::SeqCst) == 0 {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        say(stream, "200 OK", "yes")
    });
    let bulkhead = bulkhead::Config {
        max_in_flight: 1,
        queue: 1,
        queue_for: PATIENCE,
        ..bulkhead::Config::default()
    };
    let rig =
        Rig::new(with(&[&upstream], Policy { bulkhead: Some(bulkhead), ..Policy::default() }));
    let mut clients: Vec<_> = (0..2).map(|_| rig.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("it waits", || {
            let view = rig.proxy.handle().service("s").unwrap().view(rig.proxy.handle().now());
            let bulkhead = view.bulkhead.unwrap();
            (bulkhead.in_flight + bulkhead.queued) as usize == n + 1
        });
    }
    let third = rig.get("/");
    assert!(text(&third).contains("SV0207"), "{}", text(&third));
    gate.store(1, Ordering::SeqCst);
    assert!(clients.iter_mut().all(|client| status(&client.response()) == 200));
    eventually("permits come back", || {
        let view = rig.proxy.handle().service("s").unwrap().view(rig.proxy.handle().now());
        view.bulkhead.unwrap().in_flight == 0
    });
}

#[test]
fn a_client_that_leaves_gives_everything_back() {
    let upstream = Upstream::start(|_, _| {
        std::thread::park_timeout(PATIENCE);
        false
    });
    let bulkhead = bulkhead::Config { max_in_flight: 1, queue: 0, ..bulkhead::Config::default() };
    let rig =
        Rig::new(with(&[&upstream], Policy { bulkhead: Some(bulkhead), ..Policy::default() }));
    let in_flight = || {
        let view = rig.proxy.handle().service("s").unwrap().view(rig.proxy.handle().now());
        view.bulkhead.unwrap().in_flight
    };
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is out", || in_flight() == 1);
    drop(client);
    eventually("the permit comes back", || in_flight() == 0);
}

#[test]
fn a_slow_attempt_is_hedged_elsewhere() {
    let slow = Upstream::start(|_, stream| {
        std::thread::park_timeout(Duration::from_secs(3));
        say(stream, "200 OK", "slow")
    });
    let fast = Upstream::start(|_, stream| say(stream, "200 OK", "fast"));
    let hedge = hedge::Config {
        delay: hedge::Delay::Fixed(Duration::from_millis(30)),
        ..hedge::Config::default()
    };
    let rig = Rig::new(with(&[&slow, &fast], Policy { hedge: Some(hedge), ..Policy::default() }));
    let began = Instant::now();
    for _ in 0..6 {
        assert_eq!(text(&rig.get("/")), "fast");
    }
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(slow.count() >= 1, "some first attempts went there");
}

#[test]
fn a_rate_limit_says_when_to_come_back() {
    let upstream = Upstream::echo();
    let mut config = config(&[upstream.address]);
    let rate = limit::Rate { count: 1, per: Duration::from_secs(60) };
    config.routes[0].limit = Some(Limit {
        per: Key::Header(HeaderName::from_static("x-api-key")),
        limit: limit::Config { rate, burst: 2, ..limit::Config::default() },
        legacy_headers: true,
        ..Limit::default()
    });
    let rig = Rig::new(config);
    let ask =
        |key: &str| rig.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
    let first = ask("a");
    assert_eq!(field(&first.head, "ratelimit-policy").as_deref(), Some("\"r\";q=2;w=120"));
    assert!(field(&first.head, "ratelimit").unwrap().starts_with("\"r\";r=1;t="));
    assert_eq!(status(&ask("a")), 200);
    let third = ask("a");
    assert_eq!(status(&third), 429);
    assert!(text(&third).contains("SV0204"));
    assert_eq!(field(&third.head, "x-ratelimit-remaining").as_deref(), Some("0"));
    let after: u64 = field(&third.head, "retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    assert_eq!(status(&ask("b")), 200, "keys do not share");
    assert_eq!(upstream.count(), 3);
}

#[test]
fn a_fallback_stands_in() {
    let upstream = flaky(0);
    let broken = Arc::new(AtomicUsize::new(0));
    let state = broken.clone();
    let upstream2 = Upstream::start(move |_, stream| match state.load(Ordering::SeqCst) {
        0 => say(stream, "200 OK", "good"),
        _ => say(stream, "500 Broken", "bad"),
    });
    drop(upstream);
    let mut config = config(&[upstream2.address]);
    config.services[0].fallback = Some(Fallback {
        stale_for: Some(Duration::from_secs(60)),
        stale_bytes_max: None,
        response: Some(StaticResponse {
            status: StatusCode::OK,
            headers: vec![(HeaderName::from_static("x-fixed"), HeaderValue::from_static("1"))],
            body: "[]".into(),
        }),
    });
    let rig = Rig::new(config);
    assert_eq!(text(&rig.get("/known")), "good");
    broken.store(1, Ordering::SeqCst);
    let stale = rig.get("/known");
    assert_eq!((status(&stale), text(&stale).as_str()), (200, "good"));
    assert!(field(&stale.head, "warning").unwrap().starts_with("110"));
    assert!(field(&stale.head, "x-selvedge-stale").is_some());
    let fixed = rig.get("/unknown");
    assert_eq!((status(&fixed), text(&fixed).as_str()), (200, "[]"));
    assert_eq!(field(&fixed.head, "x-fixed").as_deref(), Some("1"));
    let secret = rig.ask("GET /known HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\n\r\n");
    assert_eq!(text(&secret), "[]", "what was kept for all is not given to one, nor the other way");
}

#[test]
fn an_unhealthy_endpoint_gets_nothing() {
    let well = Upstream::start(|_, stream| say(stream, "200 OK", "well"));
    let ill = Upstream::start(|request: &Seen, stream| {
        let status = if request.line().starts_with("GET /healthz") { "500 Ill" } else { "200 OK" };
        say(stream, status, "ill")
    });
    let health = health::Config {
        kind: health::Kind::Http { path: "/healthz".into(), host: None, expect: 200..=299 },
        every: Duration::from_millis(50),
        unhealthy_after: 1,
        ..health::Config::default()
    };
    let rig = Rig::new(with(&[&well, &ill], Policy { health: Some(health), ..Policy::default() }));
    let healthy = || {
        let view = rig.proxy.handle().service("s").unwrap().view(rig.proxy.handle().now());
        view.endpoints.iter().filter(|endpoint| endpoint.healthy).count()
    };
    eventually("the checks find out", || healthy() == 1);
    for _ in 0..10 {
        assert_eq!(text(&rig.get("/")), "well");
    }
}

#[test]
fn an_operator_who_asks_is_told() {
    let upstream = flaky(1);
    let mut config = with(&[&upstream], retrying());
    config.operator_secret = Some(HeaderValue::from_static("letmein"));
    let rig = Rig::new(config);
    let told = rig.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Selvedge-Operator: letmein\r\n\r\n");
    let trace = field(&told.head, "x-selvedge-trace").unwrap();
    assert!(trace.contains("route=r service=s") && trace.contains("kind=retry"), "{trace}");
    assert_eq!(upstream.last().field("x-selvedge-operator"), None, "the secret goes no further");
    let not = rig.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Selvedge-Operator: letmeim\r\n\r\n");
    assert_eq!(field(&not.head, "x-selvedge-trace"), None);
}
