//! The interaction rules between patterns, each shown on the running proxy by
//! what its upstreams receive and what its callers get.

use selvedge_tests::{
    raw::{self, Answer, Connection},
    selvedge::Selvedge,
    upstream::{Received, Reply, Upstream},
    wait,
};
use serde_json::Value;
use std::{
    io::Write,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Retries that come at once, with a budget that never stands in the way.
const RETRY: &str = "    retry: { attempts: 3, backoff: { base: 1ms, cap: 2ms }, budget: { ratio: 100%, floor: 1000/s } }\n";

fn failing(status: u16) -> Upstream {
    Upstream::http(move |_| Reply::status(status))
}

fn one(upstream: &Upstream, policy: &str) -> Selvedge {
    Selvedge::before(&[upstream.address()], policy)
}

fn breakers(selvedge: &Selvedge) -> Vec<Value> {
    let service = selvedge.api("/api/v1/services/up");
    service["breakers"].as_array().cloned().unwrap_or_default()
}

fn states(selvedge: &Selvedge) -> Vec<String> {
    breakers(selvedge)
        .iter()
        .map(|breaker| breaker["state"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// `n` requests at once, each on a connection of its own.
fn at_once(port: u16, n: usize, target: &str) -> Vec<Result<Answer, raw::Broken>> {
    let threads: Vec<_> = (0..n)
        .map(|_| {
            let target = target.to_owned();
            std::thread::spawn(move || raw::get(port, &target))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn is_local(answer: &Answer) -> bool {
    answer.code().is_some_and(|code| code.starts_with("SV02"))
}

// ── 1. The breaker sees every attempt; a local rejection is nobody's failure.

#[test]
fn rule_01_the_breaker_sees_every_attempt() {
    let upstream = failing(500);
    let selvedge = one(
        &upstream,
        &format!(
            "{RETRY}    breaker: {{ window: 10s, failure_rate: 50%, min_calls: 3, open_for: 60s \
             }}\n"
        ),
    );
    assert_eq!(selvedge.get("/").status, 500);
    assert_eq!(upstream.count(), 3, "one call, three attempts");
    assert_eq!(states(&selvedge), ["open"], "three attempts are three failures");
}

#[test]
fn rule_01_a_rejection_by_the_breaker_is_not_counted() {
    let upstream = failing(500);
    let selvedge = one(
        &upstream,
        "    breaker: { window: 10s, failure_rate: 50%, min_calls: 2, open_for: 60s }\n",
    );
    selvedge.get("/");
    selvedge.get("/");
    let before = breakers(&selvedge)[0].clone();
    assert_eq!(before["state"], "open");
    for _ in 0..10 {
        let answer = selvedge.get("/");
        assert!(is_local(&answer) && answer.status == 503, "{answer:?}");
    }
    assert_eq!(upstream.count(), 2, "an open breaker lets nothing through");
    let after = breakers(&selvedge)[0].clone();
    assert_eq!(before["calls"], after["calls"]);
    assert_eq!(before["history"], after["history"]);
}

#[test]
fn rule_01_a_rejection_by_the_bulkhead_is_not_counted() {
    let upstream = Upstream::http(|_| Reply::ok("").after(Duration::from_millis(300)));
    let selvedge = one(
        &upstream,
        "    bulkhead: { max_in_flight: 2, queue: 0 }\n    breaker: { window: 10s, failure_rate: \
         10%, min_calls: 5, open_for: 60s }\n",
    );
    let answers = at_once(selvedge.port, 20, "/");
    let rejected = answers.iter().flatten().filter(|answer| answer.status == 503).count();
    assert!(rejected >= 10, "{answers:?}");
    assert!(answers.iter().flatten().all(|answer| answer.status == 200 || is_local(answer)));
    let breaker = &breakers(&selvedge)[0];
    assert_eq!(breaker["state"], "closed");
    assert_eq!(breaker["failure_rate"].as_f64().map(|rate| rate.max(0.0)), Some(0.0), "{breaker}");
}

// ── 2. An open breaker: another endpoint at once, never the same one, never a sleep.

#[test]
fn rule_02_an_open_breaker_is_not_slept_on() {
    let upstream = failing(500);
    let selvedge = one(
        &upstream,
        "    retry: { attempts: 3, backoff: { base: 3s, cap: 5s, jitter: none } }\n    breaker: { \
         window: 10s, failure_rate: 50%, min_calls: 1, open_for: 60s }\n",
    );
    selvedge.act("/api/v1/services/up/breakers/force-open", "");
    let begun = Instant::now();
    let answer = selvedge.get("/");
    assert!(is_local(&answer), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(upstream.count(), 0);
}

#[test]
fn rule_02_an_open_breaker_sends_the_call_to_another_endpoint_at_once() {
    let (bad, good) = (Upstream::named("bad"), Upstream::named("good"));
    let selvedge = Selvedge::before(
        &[bad.address(), good.address()],
        "    balance: round_robin\n    retry: { attempts: 2, backoff: { base: 3s, cap: 5s, jitter: \
         none } }\n    breaker: { window: 10s, failure_rate: 50%, min_calls: 1, open_for: 60s }\n",
    );
    selvedge.act(&format!("/api/v1/services/up/endpoints/{}/force-open", bad.address()), "");
    let begun = Instant::now();
    for _ in 0..10 {
        assert_eq!(selvedge.get("/").text(), "good");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(bad.count(), 0);
}

// ── 3. What counts as the dependency's failure.

#[test]
fn rule_03_the_callers_faults_do_not_open_the_breaker() {
    let upstream = Upstream::http(|request| {
        Reply::status(request.path().trim_start_matches('/').parse().unwrap())
    });
    let selvedge = one(
        &upstream,
        "    breaker: { window: 10s, failure_rate: 20%, min_calls: 4, open_for: 60s }\n",
    );
    for status in [400, 401, 403, 404, 409, 410, 422, 404, 404, 404] {
        assert_eq!(selvedge.get(&format!("/{status}")).status, status);
    }
    assert_eq!(states(&selvedge), ["closed"]);
}

#[test]
fn rule_03_callers_that_go_away_do_not_open_the_breaker() {
    let upstream = Upstream::http(|_| Reply::hang());
    let selvedge = one(
        &upstream,
        "    timeout: { attempt: 10s, total: 20s }\n    breaker: { window: 10s, failure_rate: 20%, \
         min_calls: 3, open_for: 60s }\n",
    );
    for nth in 1..=8 {
        let mut caller = Connection::open(selvedge.port);
        caller.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        wait::until_true("the request to reach the upstream", || upstream.count() == nth);
        drop(caller);
    }
    wait::until_true("the attempts to be given up", || {
        selvedge.api("/api/v1/services/up")["in_flight"] == 0
    });
    assert_eq!(states(&selvedge), ["closed"]);
}

#[test]
fn rule_03_an_attempt_timeout_is_a_failure() {
    let upstream = Upstream::http(|_| Reply::hang());
    let selvedge = one(
        &upstream,
        "    timeout: { attempt: 50ms, total: 1s }\n    breaker: { window: 10s, failure_rate: 50%, \
         min_calls: 3, open_for: 60s }\n",
    );
    for _ in 0..3 {
        assert_eq!(selvedge.get("/").status, 504);
    }
    assert_eq!(states(&selvedge), ["open"]);
}

#[test]
fn rule_03_overload_counts_for_the_rate() {
    let upstream = Upstream::http(|_| Reply::status(503).header("retry-after", "1"));
    let selvedge = one(
        &upstream,
        "    breaker: { window: 10s, failure_rate: 50%, min_calls: 4, open_for: 60s }\n",
    );
    for _ in 0..4 {
        assert_eq!(selvedge.get("/").status, 503);
    }
    assert_eq!(states(&selvedge), ["open"]);
    assert_eq!(upstream.count(), 4);
}

// ── 4. Only what may be repeated is repeated.

fn attempts_of(method: &str, lines: &str) -> usize {
    let upstream = failing(503);
    let selvedge = one(&upstream, RETRY);
    let request = format!(
        "{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{lines}content-length: 2\r\n\r\nhi"
    );
    assert_eq!(raw::exchange(selvedge.port, &request).unwrap().status, 503);
    upstream.count()
}

#[test]
fn rule_04_idempotent_methods_are_retried() {
    for method in ["GET", "OPTIONS", "PUT", "DELETE"] {
        assert_eq!(attempts_of(method, ""), 3, "{method}");
    }
}

#[test]
fn rule_04_others_are_not() {
    for method in ["POST", "PATCH", "PURGE"] {
        assert_eq!(attempts_of(method, ""), 1, "{method}");
    }
}

#[test]
fn rule_04_a_key_makes_any_method_repeatable() {
    assert_eq!(attempts_of("POST", "idempotency-key: \"a-1\"\r\n"), 3);
    assert_eq!(attempts_of("PATCH", "idempotency-key: bare-1\r\n"), 3);
}

#[test]
fn rule_04_what_was_provably_not_processed_is_retried_for_any_method() {
    let good = Upstream::named("good");
    let mut dead = Upstream::named("dead");
    dead.kill();
    let selvedge = Selvedge::before(
        &[dead.address(), good.address()],
        &format!("    balance: round_robin\n{RETRY}"),
    );
    for nth in 0..6 {
        let answer = selvedge.post_with("/", "", "hi");
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"), "POST {nth}");
    }
    assert_eq!(good.count(), 6);
}

#[test]
fn rule_04_only_safe_methods_are_hedged() {
    let upstream = || Upstream::http(|_| Reply::ok("").after(Duration::from_millis(200)));
    let (a, b) = (upstream(), upstream());
    let selvedge = Selvedge::before(
        &[a.address(), b.address()],
        "    hedge: { after: 20ms, share: 100%, burst: 100 }\n",
    );
    let send = |method: &str| {
        let before = a.count() + b.count();
        let request = format!(
            "{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        );
        assert_eq!(raw::exchange(selvedge.port, &request).unwrap().status, 200);
        a.count() + b.count() - before
    };
    assert_eq!(send("GET"), 2);
    assert_eq!(send("PUT"), 1);
    assert_eq!(send("DELETE"), 1);
    assert_eq!(send("POST"), 1);
}

// ── 5. One key, one id, one trace for all attempts of a call.

#[test]
fn rule_05_every_attempt_carries_the_same_key_and_ids() {
    let upstream = failing(503);
    let selvedge = one(&upstream, RETRY);
    selvedge.post_with("/", "idempotency-key: \"k-1\"\r\nx-request-id: r-1\r\n", "pay");
    let attempts = upstream.requests();
    assert_eq!(attempts.len(), 3);
    let same = |name: &str| {
        let values: Vec<Option<&str>> = attempts.iter().map(|one| one.header(name)).collect();
        assert!(values[0].is_some(), "{name} is missing");
        assert!(values.iter().all(|value| *value == values[0]), "{name}: {values:?}");
    };
    same("idempotency-key");
    same("x-request-id");
    let traces: Vec<&str> = attempts
        .iter()
        .map(|one| one.header("traceparent").and_then(|it| it.get(3..35)).unwrap_or("none"))
        .collect();
    assert!(traces[0].len() == 32 && traces.iter().all(|trace| *trace == traces[0]), "{traces:?}");
    assert!(attempts.iter().all(|one| one.body == b"pay"));
}

// ── 6. One deadline for everything.

#[test]
fn rule_06_the_deadline_goes_on_with_what_remains() {
    let upstream = Upstream::named("up");
    let selvedge = one(&upstream, "    timeout: { attempt: 5s, total: 10s }\n");
    selvedge.get_with("/", "x-envoy-expected-rq-timeout-ms: 2000\r\n");
    let sent: u64 = upstream.requests()[0]
        .header("x-envoy-expected-rq-timeout-ms")
        .expect("the deadline is propagated")
        .parse()
        .unwrap();
    assert!((1000..2000).contains(&sent), "{sent} ms remain of 2000");
    // A longer one than ours is cut to ours.
    selvedge.get_with("/", "x-envoy-expected-rq-timeout-ms: 90000\r\n");
    let sent: u64 =
        upstream.requests()[1].header("x-envoy-expected-rq-timeout-ms").unwrap().parse().unwrap();
    assert!(sent <= 10_000, "{sent} ms");
}

#[test]
fn rule_06_a_call_that_is_already_late_is_not_forwarded() {
    let upstream = Upstream::named("up");
    let selvedge = one(&upstream, "");
    let answer = selvedge.get_with("/", "x-request-deadline: 1000\r\n");
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(is_local(&answer));
    assert_eq!(upstream.count(), 0);
}

#[test]
fn rule_06_the_attempt_ends_with_the_callers_deadline() {
    let upstream = Upstream::http(|_| Reply::hang());
    let selvedge = one(&upstream, "    timeout: { attempt: 8s, total: 10s }\n");
    let begun = Instant::now();
    let answer = selvedge.get_with("/", "x-envoy-expected-rq-timeout-ms: 300\r\n");
    assert_eq!(answer.status, 504);
    let took = begun.elapsed();
    assert!((Duration::from_millis(200)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[test]
fn rule_06_no_retry_begins_that_cannot_end_in_time() {
    let upstream = failing(503);
    let selvedge = one(
        &upstream,
        "    timeout: { attempt: 500ms, total: 1s }\n    retry: { attempts: 3, backoff: { base: 5s, \
         cap: 5s, jitter: none }, budget: 100% }\n",
    );
    let begun = Instant::now();
    let answer = selvedge.get("/");
    // The upstream's own last answer, at once: waiting would have been in vain.
    assert_eq!(answer.status, 503);
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(upstream.count(), 1);
}

// ── 7. Extra attempts draw on one budget, are marked, and do not multiply.

#[test]
fn rule_07_the_budget_bounds_all_retries_together() {
    let upstream = failing(503);
    let selvedge = one(
        &upstream,
        "    retry: { attempts: 3, backoff: { base: 1ms, cap: 2ms }, budget: { ratio: 20%, floor: 1/s, window: 10s } }\n",
    );
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(selvedge.get("/").status, 503);
    }
    let extra = upstream.count() - 100;
    // Nothing succeeds, so nothing funds the budget but its floor of one a second
    // (times the window it may have saved up for).
    let most = 10 + begun.elapsed().as_secs() as usize + 1;
    assert!(extra <= most, "{extra} extra attempts, at most {most}");
}

#[test]
fn rule_07_retries_are_marked_and_a_marked_call_is_not_retried() {
    let upstream = failing(503);
    let selvedge = one(&upstream, RETRY);
    selvedge.get("/");
    let marks: Vec<Option<String>> = upstream
        .requests()
        .iter()
        .map(|one| one.header("x-selvedge-attempt").map(str::to_owned))
        .collect();
    assert_eq!(marks.len(), 3);
    assert_eq!(marks[1].as_deref(), Some("1"), "{marks:?}");
    assert_eq!(marks[2].as_deref(), Some("2"), "{marks:?}");
    selvedge.get_with("/", "x-selvedge-attempt: 1\r\n");
    assert_eq!(upstream.count(), 4, "a layer above retries already");
}

// ── 8. The server's own Retry-After wins, within bounds.

#[test]
fn rule_08_retry_after_is_waited_for() {
    let upstream = Upstream::http(|request| match request.nth {
        0 => Reply::status(503).header("retry-after", "1"),
        _ => Reply::ok("again"),
    });
    let selvedge = one(
        &upstream,
        "    timeout: { attempt: 5s, total: 20s }\n    retry: { attempts: 2, backoff: { base: 1ms, \
         cap: 10s }, budget: 100% }\n",
    );
    assert_eq!(selvedge.get("/").text(), "again");
    let requests = upstream.requests();
    let waited = requests[1].at - requests[0].at;
    assert!((Duration::from_millis(990)..Duration::from_secs(7)).contains(&waited), "{waited:?}");
}

#[test]
fn rule_08_one_beyond_the_deadline_ends_the_call() {
    let upstream = Upstream::http(|_| Reply::status(503).header("retry-after", "30"));
    let selvedge = one(
        &upstream,
        "    timeout: { attempt: 1s, total: 2s }\n    retry: { attempts: 3, backoff: { base: 1ms, cap: \
         2ms }, budget: 100% }\n",
    );
    let begun = Instant::now();
    let answer = selvedge.get("/");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")));
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(upstream.count(), 1);
}

// ── 9. Hedging: another endpoint, the first acceptable answer, losers are nobody's failure.

#[test]
fn rule_09_the_first_acceptable_answer_wins() {
    let slow = Upstream::http(|_| Reply::ok("slow").after(Duration::from_secs(3)));
    let fast = Upstream::named("fast");
    let selvedge = Selvedge::before(
        &[slow.address(), fast.address()],
        "    balance: round_robin\n    hedge: { after: 50ms, share: 100%, burst: 100 }\n    breaker: { window: \
         10s, failure_rate: 10%, min_calls: 2, open_for: 60s }\n",
    );
    for _ in 0..6 {
        let begun = Instant::now();
        assert_eq!(selvedge.get("/").text(), "fast");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    assert!(slow.count() >= 2, "round robin tried the slow one first, too");
    assert!(states(&selvedge).iter().all(|state| state == "closed"), "{:?}", breakers(&selvedge));
}

// ── 10. After the response head there is no retry; replay is bounded.

#[test]
fn rule_10_nothing_is_retried_once_the_head_is_out() {
    let (seen, until) = std::sync::mpsc::channel::<()>();
    let until = Arc::new(Mutex::new(until));
    let upstream = Upstream::http(move |_| {
        let until = until.clone();
        Reply::stream(move |mut stream| {
            let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it";
            let _ = stream.write_all(half);
            let _ = until.lock().unwrap().recv();
        })
    });
    let selvedge = one(&upstream, RETRY);
    let mut client = Connection::open(selvedge.port);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 200);
    seen.send(()).unwrap();
    assert_eq!(client.to_end().unwrap(), b"half of it");
    assert_eq!(upstream.count(), 1);
}

#[test]
fn rule_10_a_small_body_is_replayed_whole_and_a_large_one_goes_on_without_retries() {
    let upstream = Upstream::http(|request: &Received| {
        let again = request.header("x-selvedge-attempt").is_some_and(|nth| nth != "0");
        if again { Reply::ok(request.body.clone()) } else { Reply::status(503) }
    });
    let selvedge = one(&upstream, RETRY);
    let key = "idempotency-key: \"k\"\r\n";
    let small = "s".repeat(60 * 1024);
    let answer = selvedge.post_with("/", key, &small);
    assert_eq!((answer.status, answer.text() == small), (200, true));
    let large = "l".repeat(200 * 1024);
    let answer = selvedge.post_with("/", key, &large);
    assert_eq!(answer.status, 503);
    let requests = upstream.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[2].body.len(), large.len());
}

// ── 11. Half-open admits its probes and no more, and cannot be wedged.

#[test]
fn rule_11_half_open_admits_only_its_probes() {
    let broken = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&broken);
    let upstream = Upstream::http(move |_| {
        if slow.load(Ordering::SeqCst) {
            Reply::status(500)
        } else {
            Reply::ok("well").after(Duration::from_millis(400))
        }
    });
    let selvedge = one(
        &upstream,
        "    breaker: { window: 10s, failure_rate: 50%, min_calls: 2, open_for: 1s, probes: 2 }\n",
    );
    selvedge.get("/");
    selvedge.get("/");
    assert_eq!(states(&selvedge), ["open"]);
    broken.store(false, Ordering::SeqCst);
    // Jitter may make the second one of up to 1.2 s.
    wait::pause(Duration::from_millis(1300));
    let before = upstream.count();
    let answers = at_once(selvedge.port, 12, "/");
    assert_eq!(upstream.count() - before, 2, "two probes");
    let good = answers.iter().flatten().filter(|answer| answer.status == 200).count();
    assert_eq!(good, 2);
    assert_eq!(states(&selvedge), ["closed"]);
    assert_eq!(selvedge.get("/").status, 200);
}

#[test]
fn rule_11_probes_whose_callers_left_do_not_wedge_it() {
    let mode = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&mode);
    let upstream = Upstream::http(move |_| match now.load(Ordering::SeqCst) {
        0 => Reply::status(500),
        1 => Reply::hang(),
        _ => Reply::ok("well"),
    });
    let selvedge = one(
        &upstream,
        "    timeout: { attempt: 20s, total: 30s }\n    breaker: { window: 10s, failure_rate: 50%, \
         min_calls: 2, open_for: 500ms, probes: 2 }\n",
    );
    selvedge.get("/");
    selvedge.get("/");
    mode.store(1, Ordering::SeqCst);
    wait::pause(Duration::from_millis(700));
    for nth in 3..=4 {
        let mut caller = Connection::open(selvedge.port);
        caller.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        wait::until_true("the probe to reach the upstream", || upstream.count() == nth);
        drop(caller);
    }
    mode.store(2, Ordering::SeqCst);
    wait::until_true("the breaker to close", || {
        selvedge.get("/");
        states(&selvedge) == ["closed"]
    });
}

// ── 12. Ejection leaves somebody to answer.

#[test]
fn rule_12_a_bad_endpoint_is_ejected_and_the_last_never() {
    let all = Arc::new(AtomicBool::new(false));
    let everyone = Arc::clone(&all);
    let bad = failing(502);
    let other = Upstream::http(move |_| {
        if everyone.load(Ordering::SeqCst) { Reply::status(502) } else { Reply::ok("other") }
    });
    let selvedge = Selvedge::before(
        &[bad.address(), other.address()],
        "    balance: round_robin\n    outlier: { consecutive: 3 }\n",
    );
    for _ in 0..20 {
        selvedge.get("/");
    }
    let seen = bad.count();
    assert!((3..=6).contains(&seen), "ejected after three failures: {seen}");
    let ejected = |selvedge: &Selvedge| {
        let service = selvedge.api("/api/v1/services/up");
        let endpoints = service["endpoints"].as_array().unwrap().clone();
        endpoints.iter().filter(|endpoint| endpoint["state"] == "ejected").count()
    };
    assert_eq!(ejected(&selvedge), 1);
    all.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(selvedge.get("/").status, 502, "the upstream's own answer, not a local one");
    }
    assert_eq!(ejected(&selvedge), 1, "the last one stays");
}

// ── 13. State is shared by every connection and every worker.

#[test]
fn rule_13_every_connection_shares_breaker_and_limit() {
    let upstream = failing(500);
    let selvedge = Selvedge::run(&format!(
        "services:\n  up:\n    endpoints: [\"{}\"]\n    breaker: {{ window: 10s, failure_rate: 50%, \
         min_calls: 10, open_for: 60s }}\nroutes:\n  - match: {{ path: /limited/** }}\n    to: up\n    \
         limit: {{ rate: 1/s, burst: 5 }}\n  - match: {{ path: /** }}\n    to: up\n",
        upstream.address()
    ));
    let answers = at_once(selvedge.port, 30, "/limited/x");
    let admitted = answers.iter().flatten().filter(|answer| answer.status == 500).count();
    let limited = answers.iter().flatten().filter(|answer| answer.status == 429).count();
    assert!((5..=7).contains(&admitted), "burst of 5: {admitted} admitted, {limited} limited");
    assert_eq!(admitted + limited, 30);
    for _ in 0..10 {
        selvedge.get("/");
    }
    assert_eq!(upstream.count(), 10, "the tenth failure opens it for all");
    assert!(at_once(selvedge.port, 20, "/").iter().flatten().all(is_local));
    assert_eq!(upstream.count(), 10);
}

// ── 14. Every decision says what, why, until when, and on which numbers.

#[test]
fn rule_14_a_rejection_says_why_and_until_when() {
    let upstream = failing(500);
    let selvedge = one(
        &upstream,
        "    breaker: { window: 10s, failure_rate: 50%, min_calls: 1, open_for: 30s }\n",
    );
    selvedge.get("/");
    let answer = selvedge.get("/");
    assert_eq!(answer.status, 503);
    let problem = answer.json();
    assert_eq!(problem["status"], 503);
    assert!(problem["code"].as_str().is_some_and(|code| code.starts_with("SV02")), "{problem}");
    assert!(problem["type"].is_string() && problem["title"].is_string(), "{problem}");
    let after: u64 = answer.header("retry-after").expect("a time").parse().unwrap();
    assert!((1..=37).contains(&after), "{after}");
}
