//! Changing the configuration of a running process, and ending it.

use selvedge_tests::{
    load::Load,
    raw::{self, Connection},
    selvedge::{Ports, Selvedge},
    upstream::{Reply, Upstream},
    wait,
};
use std::time::Duration;

fn rest(upstream: &Upstream) -> String {
    Selvedge::one_service(&[upstream.address()], "")
}

/// Two upstreams, the first one configured, and a load on it.
fn running() -> (Upstream, Upstream, Selvedge) {
    let (old, new) = (Upstream::named("old"), Upstream::named("new"));
    let selvedge = Selvedge::run(&rest(&old));
    assert_eq!(selvedge.get("/").text(), "old");
    assert_eq!(selvedge.generation(), (1, None));
    (old, new, selvedge)
}

fn becomes_new(selvedge: &Selvedge) {
    wait::until_true("the new file to be taken", || selvedge.get("/").text() == "new");
    assert_eq!(selvedge.generation(), (2, None));
}

#[test]
fn an_edit_in_place_is_taken() {
    let (_old, new, selvedge) = running();
    selvedge.rewrite(&rest(&new));
    becomes_new(&selvedge);
}

#[test]
fn a_rename_over_the_file_is_taken() {
    let (_old, new, selvedge) = running();
    let draft = selvedge.folder().join("draft");
    std::fs::write(&draft, selvedge.text(&rest(&new))).unwrap();
    std::fs::rename(draft, &selvedge.file).unwrap();
    becomes_new(&selvedge);
}

#[test]
fn a_swapped_symlink_is_taken() {
    use std::os::unix::fs::symlink;
    // As an orchestrator mounts it: file → current/file, current → version.
    let (old, new) = (Upstream::named("old"), Upstream::named("new"));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let ports = Ports::free();
    for (version, upstream) in [("v1", &old), ("v2", &new)] {
        std::fs::create_dir(path(version)).unwrap();
        std::fs::write(path(version).join("selvedge.yaml"), ports.file(&rest(upstream))).unwrap();
    }
    symlink("v1", path("current")).unwrap();
    symlink("current/selvedge.yaml", path("selvedge.yaml")).unwrap();
    let swap = (path("next"), path("current"));
    let file = path("selvedge.yaml");
    let selvedge = Selvedge::run_path(folder, file, ports, &[]);
    assert_eq!(selvedge.get("/").text(), "old");
    symlink("v2", &swap.0).unwrap();
    std::fs::rename(&swap.0, &swap.1).unwrap();
    becomes_new(&selvedge);
}

#[test]
fn sighup_reads_the_file_again() {
    let (_old, new, selvedge) = running();
    // The same length and, by the clock of the file system, perhaps the same time.
    selvedge.rewrite(&rest(&new));
    selvedge.signal("HUP");
    becomes_new(&selvedge);
}

#[test]
fn a_bad_file_keeps_the_last_good_one_and_says_so() {
    let (_old, new, selvedge) = running();
    selvedge.rewrite("services:\n  up:\n    endpointz: [\"127.0.0.1:1\"]\n");
    let error = wait::until("the refusal to be visible", || selvedge.generation().1);
    assert!(error.contains("endpointz") || error.contains("SV01"), "{error}");
    assert_eq!(selvedge.generation().0, 1);
    assert_eq!(selvedge.get("/").text(), "old");
    let metrics = selvedge.metrics();
    assert_eq!(metrics.sum("selvedge_config_generation", &[]), 1.0, "{:?}", metrics.names());
    let log = selvedge.log();
    assert!(log.contains("endpointz"), "the log says why");
    selvedge.rewrite(&rest(&new));
    becomes_new(&selvedge);
    assert_eq!(selvedge.metrics().sum("selvedge_config_generation", &[]), 2.0);
}

#[test]
fn a_file_that_is_gone_for_a_moment_changes_nothing() {
    let (_old, new, selvedge) = running();
    std::fs::remove_file(&selvedge.file).unwrap();
    wait::pause(Duration::from_millis(1500));
    assert_eq!(selvedge.get("/").text(), "old");
    selvedge.rewrite(&rest(&new));
    wait::until_true("the new file to be taken", || selvedge.get("/").text() == "new");
}

#[test]
fn no_connection_is_dropped_by_a_reload_under_load() {
    let (old, new, selvedge) = running();
    // One that idles, one in the middle of an answer, and five hundred a second.
    let mut idle = Connection::open(selvedge.port);
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.answer().unwrap().text(), "old");
    let load = Load::start(selvedge.port, "/", 500, 16);
    for turn in 0..6 {
        let upstream = if turn % 2 == 0 { &new } else { &old };
        selvedge.rewrite(&rest(upstream));
        selvedge.signal("HUP");
        let generation = 2 + turn;
        wait::until_true("the reload", || selvedge.generation().0 >= generation);
    }
    wait::pause(Duration::from_millis(300));
    let counts = load.stop();
    assert_eq!(counts.good(), counts.total(), "{:?} {:?}", counts.statuses, counts.broken);
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.answer().unwrap().text(), "old");
    assert!(new.count() > 0);
}

#[test]
fn a_call_in_flight_survives_the_removal_of_its_service() {
    let slow = Upstream::http(|_| Reply::ok("whole").after(Duration::from_secs(2)));
    let new = Upstream::named("new");
    let selvedge = Selvedge::run(&rest(&slow));
    let mut connection = Connection::open(selvedge.port);
    connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    wait::until_true("the call to be in flight", || slow.count() == 1);
    selvedge.rewrite(&rest(&new).replace("up", "another"));
    wait::until_true("the reload", || selvedge.generation().0 == 2);
    assert_eq!(connection.answer().unwrap().text(), "whole");
    assert_eq!(selvedge.get("/").text(), "new");
}

#[test]
fn what_a_breaker_knows_survives_a_reload() {
    let upstream = Upstream::http(|_| Reply::status(500));
    let policy = "    breaker: { window: 10s, failure_rate: 50%, min_calls: 2, open_for: 60s }\n";
    let file = Selvedge::one_service(&[upstream.address()], policy);
    let selvedge = Selvedge::run(&file);
    selvedge.get("/");
    selvedge.get("/");
    assert_eq!(selvedge.get("/").status, 503);
    selvedge.rewrite(&format!("{file}# changed\n"));
    selvedge.signal("HUP");
    wait::until_true("the reload", || selvedge.generation().0 == 2);
    assert_eq!(selvedge.get("/").status, 503);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_listener_can_come_and_go() {
    let upstream = Upstream::named("up");
    let selvedge = Selvedge::run(&rest(&upstream));
    let second = selvedge_tests::ports::free();
    let text = selvedge.text(&rest(&upstream));
    let with_second = text.replacen(
        "listeners:\n",
        &format!("listeners:\n  second: {{ bind: \"127.0.0.1:{second}\" }}\n"),
        1,
    );
    std::fs::write(&selvedge.file, with_second).unwrap();
    selvedge.signal("HUP");
    wait::until_true("the second listener", || {
        raw::get(second, "/").is_ok_and(|answer| answer.text() == "up")
    });
    std::fs::write(&selvedge.file, text).unwrap();
    selvedge.signal("HUP");
    wait::until_true("the second listener to go", || Connection::try_open(second).is_err());
    assert_eq!(selvedge.get("/").text(), "up");
}

#[test]
fn sigterm_completes_what_is_in_flight() {
    let upstream = Upstream::http(|_| Reply::ok("whole").after(Duration::from_secs(1)));
    let mut selvedge = Selvedge::run(&rest(&upstream));
    let mut idle = Connection::open(selvedge.port);
    let mut busy: Vec<Connection> = (0..10).map(|_| Connection::open(selvedge.port)).collect();
    for connection in &mut busy {
        connection.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    wait::until_true("ten calls in flight", || upstream.count() == 10);
    selvedge.signal("TERM");
    for connection in &mut busy {
        assert_eq!(connection.answer().unwrap().text(), "whole");
        assert!(connection.ends_within(Duration::from_secs(5)), "kept open after the drain");
    }
    assert!(idle.ends_within(Duration::from_secs(5)));
    assert!(selvedge.ended().success());
}

#[test]
fn a_draining_process_is_not_ready_and_takes_no_connection() {
    let upstream = Upstream::http(|_| Reply::ok("whole").after(Duration::from_secs(2)));
    let mut selvedge = Selvedge::run(&rest(&upstream));
    let mut busy = Connection::open(selvedge.port);
    busy.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    wait::until_true("a call in flight", || upstream.count() == 1);
    selvedge.signal("TERM");
    wait::until_true("not ready", || {
        raw::get(selvedge.operator, "/health/ready").is_ok_and(|answer| answer.status == 503)
    });
    wait::until_true("no new connection", || Connection::try_open(selvedge.port).is_err());
    assert_eq!(busy.answer().unwrap().text(), "whole");
    assert!(selvedge.ended().success());
}
