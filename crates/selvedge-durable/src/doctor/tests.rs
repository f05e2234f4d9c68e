use super::*;
use crate::group::{Config, DeadLetter, Status};

const NOW: Wall = Wall::from_secs(1_000_000);

fn ago(seconds: u64) -> Wall {
    NOW - Duration::from_secs(seconds)
}

/// A group with one message that is `old` seconds old.
fn status(old: u64) -> Status {
    Status {
        topic: "t".to_owned(),
        group: "g".to_owned(),
        config: Config::default(),
        paused: false,
        active: None,
        throttled: None,
        lag: 1,
        in_flight: 0,
        waiting: 0,
        dead: 0,
        dropped: 0,
        oldest: Some(ago(old)),
        attempts_most: 0,
    }
}

fn nobody() -> Consumers {
    Consumers::default()
}

fn asked(seconds: u64) -> Consumers {
    Consumers { last: Some(ago(seconds)), waiting: 0 }
}

fn healthy() -> Snapshot {
    Snapshot {
        now: NOW,
        watched_since: ago(3600),
        queue: (0, 100),
        log: (0, 1 << 20),
        disk_free: Some(DISK_LOW),
        ..Snapshot::default()
    }
}

fn group(status: Status, consumers: Consumers) -> Group {
    Group { status, consumers, letter: None }
}

/// The kinds found in a store with this one group.
fn kinds(status: Status, consumers: Consumers) -> Vec<&'static str> {
    let snapshot = Snapshot { groups: vec![group(status, consumers)], ..healthy() };
    examine(&snapshot).iter().map(|finding| finding.kind).collect()
}

#[test]
fn a_store_at_rest_has_no_findings() {
    assert_eq!(examine(&healthy()), []);
    let settled = Status { lag: 0, oldest: None, ..status(0) };
    assert_eq!(kinds(settled, nobody()), [""; 0]);
    assert_eq!(kinds(status(3), asked(2)), [""; 0]);
}

#[test]
fn a_group_that_its_rate_holds_back_is_not_blamed_on_its_consumers() {
    let rate = selvedge_patterns::limit::Config::default();
    let config = Config { rate: Some(rate), ..Config::default() };
    let behind = Status { config, throttled: Some(NOW + UNATTENDED), ..status(BEHIND.as_secs()) };
    assert_eq!(kinds(behind.clone(), asked(1)), ["throttled"]);
    assert_eq!(kinds(behind.clone(), nobody()), ["unattended"], "a rate without consumers is none");
    assert_eq!(kinds(Status { throttled: None, ..behind }, asked(1)), ["behind"]);
}

#[test]
fn a_group_with_as_many_dead_letters_as_it_keeps_is_stuck() {
    let letters = group::Letters { max: Some(5), ..Default::default() };
    let config = Config { letters, ..Config::default() };
    let full = Status { config, dead: 5, ..status(0) };
    assert_eq!(kinds(full.clone(), asked(1)), ["dead_letters_full", "dead_letters"]);
    assert_eq!(kinds(Status { dead: 4, ..full }, asked(1)), ["dead_letters"]);
    let full = group::Full::DropOldest;
    let config = Config { letters: group::Letters { full, ..letters }, ..Config::default() };
    let drops = Status { config, dead: 5, dropped: 7, ..status(0) };
    assert_eq!(kinds(drops, asked(1)), ["dead_letters", "dead_letters_dropped"]);
}

#[test]
fn a_lease_that_is_held_for_long_is_named_with_its_holder() {
    let held = |seconds| {
        let holder = lease::Holder {
            owner: "job-7".to_owned(),
            token: 41,
            since: ago(seconds),
            until: NOW + Duration::from_secs(9),
        };
        let snapshot = Snapshot { leases: vec![("nightly".to_owned(), holder)], ..healthy() };
        examine(&snapshot)
    };
    assert_eq!(held(86_399), []);
    let found = held(86_400).remove(0);
    assert_eq!(
        (found.kind, found.weight, found.age),
        ("lease_held", Weight::Attention, Some(LEASED))
    );
    assert!(found.what.contains("job-7") && found.what.contains("41"), "{found:?}");
    assert!(found.todo.contains("/v1/leases/nightly/release"), "{found:?}");
}

#[test]
fn messages_that_nobody_asks_for_are_stuck() {
    assert_eq!(kinds(status(59), nobody()), [""; 0], "young enough");
    assert_eq!(kinds(status(60), nobody()), ["unattended"]);
    assert_eq!(kinds(status(60), asked(59)), [""; 0]);
    assert_eq!(kinds(status(300), asked(60)), ["unattended"]);
    let waiting = Consumers { last: Some(ago(300)), waiting: 1 };
    assert_eq!(kinds(status(300), waiting), [""; 0], "somebody stands at the door");
    let fresh = Snapshot {
        groups: vec![group(status(9000), nobody())],
        watched_since: ago(59),
        ..healthy()
    };
    assert!(examine(&fresh).iter().all(|it| it.kind != "unattended"), "not known for long enough");
}

#[test]
fn a_paused_group_is_stuck_only_with_messages() {
    let paused = Status { paused: true, ..status(1) };
    assert_eq!(kinds(paused.clone(), asked(1)), ["paused"]);
    assert_eq!(kinds(Status { lag: 0, oldest: None, ..paused }, nobody()), [""; 0]);
}

#[test]
fn backlog_failures_and_dead_letters_want_attention() {
    assert_eq!(kinds(status(600), asked(1)), ["behind"]);
    assert_eq!(kinds(Status { in_flight: 1, ..status(600) }, asked(1)), ["held"]);
    assert_eq!(kinds(Status { attempts_most: 3, ..status(5) }, asked(1)), ["failing"]);
    assert_eq!(kinds(Status { attempts_most: 1, ..status(5) }, asked(1)), [""; 0]);
    assert_eq!(kinds(Status { dead: 2, lag: 0, ..status(0) }, asked(1)), ["dead_letters"]);
}

#[test]
fn the_first_dead_letter_says_why_and_since_when() {
    let letter = DeadLetter {
        message: topic::Message {
            position: 7,
            at: ago(500),
            key: None,
            headers: Vec::new(),
            payload: None,
            priority: 5,
        },
        cause: group::Cause::Attempts,
        reason: Some("card declined".to_owned()),
        attempts: 10,
        at: ago(90),
    };
    let other = Status { group: "other".to_owned(), ..status(1) };
    let dead = Status { dead: 1, lag: 0, ..status(0) };
    let dead = Group { letter: Some(letter), ..group(dead, asked(1)) };
    let groups = vec![group(other, asked(1)), dead];
    let found = examine(&Snapshot { groups, ..healthy() });
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].age, Some(Duration::from_secs(90)));
    assert_eq!(found[0].why, "the first: given up after 10 deliveries (card declined)");
    assert_eq!(found[0].subject, "group g of t");
}

#[test]
fn messages_about_to_expire_unseen_are_pointed_out() {
    let topic = topic::Topic {
        name: "t".to_owned(),
        dedupe_since: None,
        settings: topic::Settings {
            retention_age: Some(Duration::from_secs(100)),
            ..topic::Settings::default()
        },
        first: 1,
        next: 2,
        bytes: 0,
        delayed: 0,
    };
    let kinds = |old, retain_unconsumed| {
        let mut topic = topic.clone();
        topic.settings.retain_unconsumed = retain_unconsumed;
        let groups = vec![group(status(old), asked(1))];
        let found = examine(&Snapshot { topics: vec![topic], groups, ..healthy() });
        found.iter().map(|it| it.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(79, false), [""; 0]);
    assert_eq!(kinds(80, false), ["expiring"]);
    assert_eq!(kinds(80, true), [""; 0]);
}

#[test]
fn schedules_that_do_not_run_are_named() {
    let schedule = |next| schedule::Schedule {
        name: "nightly".to_owned(),
        spec: "@daily".to_owned(),
        zone: "UTC".to_owned(),
        topic: "t".to_owned(),
        next,
        last: None,
    };
    let kinds = |next| {
        let found = examine(&Snapshot { schedules: vec![schedule(next)], ..healthy() });
        found.iter().map(|it| it.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(Some(NOW + Duration::from_secs(9))), [""; 0]);
    assert_eq!(kinds(Some(ago(59))), [""; 0]);
    assert_eq!(kinds(Some(ago(60))), ["missed"]);
    assert_eq!(kinds(None), ["ended"]);
}

#[test]
fn a_store_that_cannot_write_comes_first() {
    let snapshot = Snapshot {
        trouble: Some(Error::DiskFull),
        queue: (80, 100),
        log: (1 << 30, 1 << 20),
        disk_free: Some(0),
        groups: vec![group(Status { dead: 1, ..status(600) }, asked(1))],
        ..healthy()
    };
    let found = examine(&snapshot);
    let kinds: Vec<_> = found.iter().map(|it| it.kind).collect();
    assert_eq!(kinds[..2], ["writes", "disk"]);
    assert!(kinds.contains(&"queue") && kinds.contains(&"log") && kinds.contains(&"behind"));
    assert!(found.windows(2).all(|two| two[0].weight <= two[1].weight));
    assert!(found[0].what.contains("SV0403"), "{}", found[0].what);
}

#[test]
fn a_disk_that_failed_and_a_writer_that_hangs_are_named() {
    let vitals = |sync_failures, committed| vitals::View {
        sync_failures,
        committed,
        ..vitals::View::default()
    };
    let kinds = |vitals| {
        let found = examine(&Snapshot { vitals, ..healthy() });
        found.iter().map(|it| (it.kind, it.weight)).collect::<Vec<_>>()
    };
    assert_eq!(kinds(vitals(0, ago(179))), []);
    assert_eq!(kinds(vitals(0, Wall::ZERO)), [], "a store that does not say");
    assert_eq!(kinds(vitals(0, ago(180))), [("commits", Weight::Stuck)]);
    assert_eq!(kinds(vitals(1, ago(9))), [("syncs", Weight::Attention)]);
    let what = |failures| {
        let found = examine(&Snapshot { vitals: vitals(failures, NOW), ..healthy() });
        found[0].what.clone()
    };
    assert!(what(1).contains("once") && what(2).contains("2 times"), "{}", what(2));
}

#[test]
fn ages_read_well() {
    let show = |seconds| show(Duration::from_secs(seconds));
    assert_eq!(
        [show(0), show(61), show(7320), show(90_000)],
        ["0 s", "1 min 1 s", "2 h 2 min", "1 d 1 h"]
    );
}

#[test]
fn a_database_that_fares_badly_says_in_what() {
    let well =
        Database { fsync: true, full_page_writes: true, autovacuum: true, ..Database::default() };
    let kinds = |database: Database| {
        let snapshot = Snapshot { database: Some(database), ..healthy() };
        examine(&snapshot).iter().map(|finding| finding.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(well.clone()), [""; 0]);
    assert_eq!(kinds(Database { autovacuum: false, ..well.clone() }), ["autovacuum"]);
    assert_eq!(kinds(Database { fsync: false, ..well.clone() }), ["fsync"]);
    assert_eq!(kinds(Database { full_page_writes: false, ..well.clone() }), ["full_page_writes"]);
    let held = |age| Database { oldest: Some(("a report".to_owned(), age)), ..well.clone() };
    assert_eq!(kinds(held(HELD)), ["transaction"]);
    assert_eq!(kinds(held(HELD - Duration::from_secs(1))), [""; 0]);
    let dead = |dead, live| Database { dead: ("messages".to_owned(), dead), live, ..well.clone() };
    assert_eq!(kinds(dead(DEAD_MIN, 10)), ["dead_rows"]);
    assert_eq!(kinds(dead(DEAD_MIN, DEAD_MIN)), [""; 0]);
    assert_eq!(kinds(Database { inbox: (7, INBOX_LATE), ..well.clone() }), ["inbox"]);
    assert_eq!(kinds(Database { inbox: (7, Duration::ZERO), ..well.clone() }), [""; 0]);
    let refused =
        Database { refused: (1, Duration::ZERO), refused_why: "no topic".to_owned(), ..well };
    let snapshot = Snapshot { database: Some(refused), ..healthy() };
    let findings = examine(&snapshot);
    assert!(findings[0].kind == "refused" && findings[0].why.contains("no topic"), "{findings:?}");
}
