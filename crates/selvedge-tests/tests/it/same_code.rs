//! The simulator decides as the proxy does: everything that a live proxy asked
//! of the patterns, and what they answered, goes once more through the
//! simulator's own driver, built from the same file.

use selvedge_config::{Env, Style, load_with, scenario::load_scenario};
use selvedge_patterns::{
    call::{End, Kind, Reason, Step},
    fallback::Choice,
    journal::{Asked, Entry},
};
use selvedge_proxy::{Hooks, Journal, Proxy};
use selvedge_sim::{model::Scenario, replay::replay};
use selvedge_tests::{
    raw,
    upstream::{Reply, Upstream},
    wait,
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// What the upstreams do, as a number that the test turns.
const WELL: u32 = 0;
const FLAKY: u32 = 1;
const DOWN: u32 = 2;
const SLOW: u32 = 3;

fn upstream(mood: &Arc<AtomicU32>) -> Upstream {
    let mood = Arc::clone(mood);
    Upstream::http(move |request| match mood.load(Ordering::SeqCst) {
        _ if request.is_health_check() => Reply::ok(""),
        FLAKY if request.nth % 3 == 0 => Reply::status(500),
        DOWN => Reply::status(503),
        SLOW => Reply::ok("late").after(Duration::from_millis(60)),
        // One in eight is slow enough for a hedge.
        _ if request.nth % 8 == 7 => Reply::ok("well").after(Duration::from_millis(40)),
        _ => Reply::ok("well"),
    })
}

fn file(endpoints: &[String]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|one| format!("\"{one}\"")).collect();
    let endpoints = endpoints.join(", ");
    format!(
        "version: 1
listeners:
  edge: {{ bind: \"127.0.0.1:0\" }}
runtime: {{ workers: 2 }}
services:
  pages:
    endpoints: [{endpoints}]
    balance: least_request
    health: {{ path: /healthz, every: 100ms }}
    timeout: {{ attempt: 300ms, total: 1s }}
    retry: {{ attempts: 3, backoff: {{ base: 2ms, cap: 20ms, jitter: full }}, budget: 20% }}
    breaker: {{ window: 5s, failure_rate: 50%, min_calls: 10, open_for: 200ms, probes: 2 }}
    hedge: {{ after: 15ms }}
    bulkhead: {{ max_in_flight: 6, queue: 4, queue_for: 30ms }}
    outlier: {{ consecutive: 5, base: 100ms }}
    fallback: {{ stale_for: 5m }}
  charge:
    endpoints: [{endpoints}]
    timeout: {{ attempt: 40ms, total: 100ms }}
    retry: {{ attempts: 2, backoff: {{ base: 1ms, cap: 4ms }} }}
    breaker: {{ consecutive: 4, open_for: 100ms, probes: 1 }}
routes:
  - match: {{ path: /pages/** }}
    to: pages
  - match: {{ path: /charge/** }}
    to: charge
    limit: {{ per: \"header:x-shop\", rate: 40/s, burst: 25 }}
"
    )
}

const SCENARIO: &str = "
config: ./selvedge.yaml
clients:
  - {name: readers, rate: 100/s, route: /pages/1}
  - {name: shops, rate: 20/s, route: /charge/1, keys: 2}
services:
  pages: {service: 5ms}
  charge: {service: 5ms}
";

/// Callers, some at once, until each of `moods` has been lived through.
fn live_through(port: u16, mood: &AtomicU32, moods: &[(u32, u32)]) {
    for (now, rounds) in moods {
        mood.store(*now, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for caller in 0..12_u32 {
                scope.spawn(move || {
                    for round in 0..*rounds {
                        let line = format!("x-shop: {}\r\n", caller % 2);
                        let target = format!("/pages/{}", (caller + round) % 4);
                        let _ = raw::get_with(port, &target, &line);
                        if caller < 4 {
                            let _ = raw::post_with(port, "/charge/1", &line, "{}");
                            let _ = raw::get_with(port, "/charge/2", &line);
                        }
                    }
                });
            }
        });
    }
}

/// A journal of a live proxy on loopback, and the scenario that points at its file.
fn journal(folder: &Path) -> (Vec<Entry>, Scenario) {
    let mood = Arc::new(AtomicU32::new(WELL));
    let upstreams = [upstream(&mood), upstream(&mood), upstream(&mood)];
    let path = folder.join("selvedge.yaml");
    std::fs::write(&path, file(&upstreams.each_ref().map(Upstream::address))).unwrap();
    std::fs::write(folder.join("scenario.yaml"), SCENARIO).unwrap();
    let loaded = load_with(&path, &Env::Process)
        .unwrap_or_else(|report| panic!("{}", report.render(Style::Plain)));
    let book = Arc::new(Journal::new(200_000));
    let hooks = Hooks { journal: Some(Arc::clone(&book)), ..Hooks::default() };
    let proxy = Proxy::start(loaded.proxy, hooks).unwrap();
    let port = proxy.handle().address("edge").unwrap().port();
    let moods = [(WELL, 12), (FLAKY, 12), (SLOW, 8), (DOWN, 10), (WELL, 6)];
    live_through(port, &mood, &moods);
    // Breakers probe and close again: that is to be in the journal too.
    wait::until_true("both services to answer again", || {
        let well = |path| raw::get(port, path).is_ok_and(|answer| answer.text() == "well");
        well("/pages/1") && well("/charge/1")
    });
    proxy.shut_down();
    let (entries, left_out) = book.take();
    assert_eq!(left_out, 0, "the journal has room for all of it");
    let scenario = load_scenario(&folder.join("scenario.yaml"), None)
        .unwrap_or_else(|report| panic!("{}", report.render(Style::Plain)));
    (entries, scenario)
}

fn count(entries: &[Entry], of: impl Fn(&Asked) -> bool) -> usize {
    entries.iter().filter(|entry| of(&entry.asked)).count()
}

fn started(entries: &[Entry], kind: Kind) -> usize {
    count(
        entries,
        |asked| matches!(asked, Asked::Next { step: Step::Start(attempt), .. } if attempt.kind == kind),
    )
}

fn rejected(entries: &[Entry], reason: impl Fn(Reason) -> bool) -> usize {
    count(
        entries,
        |asked| matches!(asked, Asked::Next { step: Step::Done(End::Rejected(it)), .. } if reason(it.reason)),
    )
}

#[test]
fn what_a_live_proxy_decided_the_simulator_decides_again() {
    let folder = tempfile::tempdir().unwrap();
    let (entries, scenario) = journal(folder.path());
    // The run has in it what the comparison is about.
    assert!(started(&entries, Kind::First) > 100);
    assert!(started(&entries, Kind::Retry) > 10, "retries");
    assert!(started(&entries, Kind::Hedge) > 5, "hedges");
    assert!(rejected(&entries, |it| it == Reason::CircuitOpen) > 5, "open breakers");
    assert!(rejected(&entries, |it| matches!(it, Reason::Bulkhead(_))) > 0, "a full bulkhead");
    let limited = |asked: &Asked| matches!(asked, Asked::Limit { decision: Err(_), .. });
    assert!(count(&entries, limited) > 5, "a limit");
    let stale =
        |asked: &Asked| matches!(asked, Asked::FallBack { choice: Choice::Stale { .. }, .. });
    assert!(count(&entries, stale) > 5, "stale answers");

    let agreement = replay(&scenario, &entries).unwrap_or_else(|why| panic!("{why}"));
    assert!(agreement.calls > 300 && agreement.draws > 300, "{agreement:?}");
    assert!(agreement.checks > 3 && agreement.limits > 50, "{agreement:?}");

    // And it would say so if one decision were made otherwise.
    let mut other = scenario;
    let breaker = other.services[1].policy.as_mut().unwrap().breaker.as_mut().unwrap();
    breaker.consecutive = Some(5);
    let why = replay(&other, &entries).expect_err("a breaker that opens one failure later shows");
    assert_eq!(&*why.service, "charge");
}
