//! Outages under load: what the callers see, and what the dependency receives.

use selvedge_tests::{
    load::Load,
    selvedge::Selvedge,
    upstream::{Reply, Upstream},
    wait,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const POLICY: &str = "    balance: peak_ewma
    health: { path: /healthz, every: 500ms }
    timeout: { connect: 250ms, attempt: 500ms, total: 2s }
    retry: { attempts: 3, backoff: { base: 20ms, cap: 200ms, jitter: full }, budget: 20% }
    breaker: { window: 10s, failure_rate: 50%, min_calls: 20, open_for: 5s, probes: 3 }
";

#[test]
fn of_two_endpoints_one_dies_at_2000_requests_a_second_and_no_get_fails() {
    let mut dying = Upstream::named("dying");
    let other = Upstream::named("other");
    let selvedge = Selvedge::before(&[dying.address(), other.address()], POLICY);
    let load = Load::start(selvedge.port, "/", 2000, 32);
    wait::until_true("traffic on both", || dying.count() > 500 && other.count() > 500);
    dying.kill();
    wait::pause(Duration::from_secs(2));
    dying.revive();
    let seen = dying.count();
    wait::until_true("the revived endpoint to be used again", || dying.count() > seen + 100);
    let counts = load.stop();
    assert_eq!(
        counts.good(),
        counts.total(),
        "{:?} {:?} {:?}",
        counts.statuses,
        counts.codes,
        counts.broken
    );
    assert!(counts.total() > 4000, "{}", counts.total());
}

#[test]
fn a_total_outage_meets_only_probes_and_ends_in_time() {
    const OPEN_FOR: Duration = Duration::from_secs(2);
    const WINDOW: Duration = Duration::from_secs(2);
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let upstream = Upstream::http(move |_| {
        if is_down.load(Ordering::SeqCst) { Reply::status(500) } else { Reply::ok("") }
    });
    // No growth of the open time: the bound of this test is the configured one.
    let selvedge = Selvedge::before(
        &[upstream.address()],
        "    timeout: { attempt: 500ms, total: 1s }\n    retry: { attempts: 3, backoff: { base: \
         10ms, cap: 50ms }, budget: 20% }\n    breaker: { window: 2s, failure_rate: 50%, \
         min_calls: 20, open_for: 2s, open_max: 2s, jitter: 0%, probes: 3 }\n",
    );
    let load = Load::start(selvedge.port, "/", 500, 16);
    wait::until_true("good traffic", || upstream.count() > 300);
    down.store(true, Ordering::SeqCst);
    wait::until_true("the breaker to open", || {
        selvedge.api("/api/v1/services/up")["breakers"][0]["state"] == "open"
    });
    // Attempts that were admitted before it opened may still arrive.
    wait::pause(Duration::from_millis(200));
    let (opened, before) = (Instant::now(), upstream.count());
    wait::pause(OPEN_FOR * 3);
    let probes = upstream.count() - before;
    let most = 3 * (opened.elapsed().as_secs_f64() / OPEN_FOR.as_secs_f64()).ceil() as usize;
    assert!(probes <= most, "{probes} requests during the outage, at most {most} probes");
    assert!(probes >= 1, "it does probe");
    down.store(false, Ordering::SeqCst);
    let well = Instant::now();
    wait::pause(OPEN_FOR + WINDOW);
    let counts = load.stop();
    let last_failure = counts.failures.last().expect("the outage was seen").0;
    let recovery = last_failure.saturating_duration_since(well);
    assert!(recovery < OPEN_FOR + WINDOW, "the last failure came {recovery:?} after the end");
    assert!(counts.successes.last().expect("it recovered") > &last_failure);
    assert!(counts.broken.is_empty(), "{:?}", counts.broken);
}

#[test]
fn slow_calls_open_the_breaker_while_they_are_still_in_flight() {
    let upstream = Upstream::http(|_| Reply::ok("").after(Duration::from_secs(4)));
    let selvedge = Selvedge::before(
        &[upstream.address()],
        "    timeout: { attempt: 8s, total: 10s }\n    breaker: { window: 10s, min_calls: 10, \
         slow_call: 300ms, open_for: 30s }\n",
    );
    let load = Load::start(selvedge.port, "/", 40, 40);
    wait::within(Duration::from_secs(3), "the breaker to open before any call ended", || {
        (selvedge.api("/api/v1/services/up")["breakers"][0]["state"] == "open").then_some(())
    });
    drop(load);
}

#[test]
fn a_stale_answer_bridges_an_outage_and_says_so() {
    let mut upstream = Upstream::http(|request| Reply::ok(request.target.clone()));
    let selvedge = Selvedge::before(&[upstream.address()], "    fallback: { stale_for: 5m }\n");
    assert_eq!(selvedge.get("/a").text(), "/a");
    upstream.kill();
    let answer = selvedge.get("/a");
    assert_eq!((answer.status, answer.text().as_str()), (200, "/a"));
    assert!(answer.header("x-selvedge-stale").is_some(), "{answer:?}");
    assert!(selvedge.get("/never-seen").status >= 500);
}

#[test]
fn an_unhealthy_endpoint_gets_no_traffic_and_comes_back() {
    let sick = Arc::new(AtomicBool::new(false));
    let is_sick = Arc::clone(&sick);
    let one = Upstream::http(move |request| {
        if request.is_health_check() && is_sick.load(Ordering::SeqCst) {
            Reply::status(503)
        } else {
            Reply::ok("one")
        }
    });
    let two = Upstream::named("two");
    let selvedge = Selvedge::before(
        &[one.address(), two.address()],
        "    balance: round_robin\n    health: { path: /healthz, every: 100ms }\n",
    );
    let state = |nth: usize| {
        selvedge.api("/api/v1/services/up")["endpoints"][nth]["state"].as_str().unwrap().to_owned()
    };
    wait::until_true("checks", || one.everything().len() > 3 && state(0) == "up");
    sick.store(true, Ordering::SeqCst);
    wait::until_true("the sick one to be taken out", || state(0) == "unhealthy");
    assert!((0..10).all(|_| selvedge.get("/").text() == "two"));
    sick.store(false, Ordering::SeqCst);
    wait::until_true("the well one to be used again", || selvedge.get("/").text() == "one");
}

#[test]
fn a_limit_is_kept_exactly_and_tells_when_to_come_back() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::run(&format!(
        "services:\n  up: {{ endpoints: [\"{}\"] }}\nroutes:\n  - match: {{ path: /** }}\n    to: up\n    \
         limit: {{ per: \"header:x-api-key\", rate: 1/s, burst: 10 }}\n",
        upstream.address()
    ));
    let statuses = |key: &str| -> Vec<u16> {
        (0..15).map(|_| selvedge.get_with("/", &format!("x-api-key: {key}\r\n")).status).collect()
    };
    for key in ["a", "b"] {
        let statuses = statuses(key);
        assert!(statuses[..10].iter().all(|status| *status == 200), "{key}: {statuses:?}");
        let limited = statuses.iter().filter(|status| **status == 429).count();
        assert!((3..=5).contains(&limited), "{key}: {statuses:?}");
    }
    let answer = selvedge.get_with("/", "x-api-key: a\r\n");
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.code().is_some());
}
