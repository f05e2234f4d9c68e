//! What goes through JSON comes out as it went in.

use std::time::Duration;

use bytes::Bytes;
use selvedge_patterns::{
    group::{Cause, Receipt, Settled, Stale, Verdict},
    limit,
    schedule::{Missed, Overlap},
    wall::Wall,
};
use serde_json::json;

use super::*;
use crate::{
    Error, group, lease, schedule, state, stream,
    topic::{self, From as Place, NewMessage},
};

fn receipt(attempt: u32) -> Receipt {
    Receipt { position: u64::MAX, attempt, fence: 3 }
}

fn limit(burst: u32) -> limit::Config {
    let rate = limit::Rate { count: 7, per: Duration::from_millis(1500) };
    limit::Config { rate, burst, ..limit::Config::default() }
}

fn schema() -> std::sync::Arc<crate::schema::Schema> {
    let document = json!({"type": "object", "required": ["id"]});
    let mode = crate::schema::Compatibility::Forward;
    std::sync::Arc::new(crate::schema::Schema::parse(&document, mode).unwrap().of_version(3))
}

fn filter() -> crate::filter::Filter {
    crate::filter::parse(&json!({"not": {"prefix": {"type": "a."}}})).unwrap()
}

fn message() -> NewMessage {
    NewMessage {
        key: Some("k\n\"".to_owned()),
        headers: vec![
            ("b".to_owned(), "2".to_owned()),
            ("a".to_owned(), String::new()),
            ("b".to_owned(), "3".to_owned()),
        ],
        payload: Some(Bytes::from_static(&[0, 255, b'{'])),
        priority: Some(0),
        deliver_at: Some(Wall::from_micros(1_800_000_000_123_456)),
        dedupe_id: Some(String::new()),
    }
}

/// One of each, with what is hardest to carry.
fn operations() -> Vec<Operation> {
    let name = || "a/b".to_owned();
    let (topic, group) = (name(), name());
    let named = || (topic.clone(), group.clone());
    let mut all = Vec::new();
    let settings = topic::Settings {
        retention_age: None,
        retention_bytes: None,
        ageing: Duration::from_nanos(1),
        dedupe_window: Duration::from_micros(1_500),
        relaxed: true,
        schema: Some(schema()),
        ..topic::Settings::default()
    };
    all.push(Operation::PutTopic(topic::PutTopic { name: name(), settings }));
    all.push(Operation::DeleteTopic(topic::DeleteTopic { name: name() }));
    let messages = vec![message(), NewMessage::default()];
    all.push(Operation::Publish(topic::Publish { topic: name(), messages }));
    all.push(Operation::CancelDelayed(topic::CancelDelayed { topic: name(), number: 7 }));
    for from in
        [Place::Position(u64::MAX), Place::Time(Wall::from_micros(1)), Place::First, Place::Next]
    {
        let ((topic, group), config) = (
            named(),
            group::Config {
                ordered: true,
                lease: Duration::from_millis(1),
                rate: Some(limit(3)),
                filter: Some(filter()),
                exclusive: Some(Duration::from_secs(30)),
                ..group::Config::default()
            },
        );
        all.push(Operation::PutGroup(group::PutGroup { topic, group, config, from }));
        let (topic, group) = named();
        all.push(Operation::Seek(group::Seek { topic: topic.clone(), group, to: from }));
        all.push(Operation::ReadTopic(topic::ReadTopic { topic, from, max: 0 }));
    }
    let (topic, group) = named();
    all.push(Operation::DeleteGroup(group::DeleteGroup { topic, group }));
    for (lease, wait) in
        [(None, Duration::ZERO), (Some(Duration::ZERO), Duration::from_secs(86_400))]
    {
        let (topic, group) = named();
        all.push(Operation::Receive(group::Receive {
            topic,
            group,
            max: 3,
            lease,
            consumer: lease.map(|_| name()),
            wait,
        }));
        let (topic, group) = named();
        let receipts = vec![receipt(1), receipt(2)];
        all.push(Operation::Extend(group::Extend { topic, group, receipts, lease }));
    }
    let verdicts = [
        Verdict::Ack,
        Verdict::Retry { after: None },
        Verdict::Retry { after: Some(Duration::ZERO) },
        Verdict::Park,
        Verdict::Release { after: Duration::from_secs(90) },
    ];
    for strict in [false, true] {
        let (topic, group) = named();
        let reply = |verdict| group::Reply {
            receipt: receipt(u32::MAX),
            verdict,
            reason: strict.then(String::new),
        };
        let replies = verdicts.map(reply).to_vec();
        all.push(Operation::Settle(group::Settle { topic, group, replies, strict }));
        let (topic, group) = named();
        all.push(Operation::Pause(group::Pause { topic, group, paused: strict }));
    }
    let (topic, group) = named();
    all.push(Operation::Leave(group::Leave { topic, group, consumer: name() }));
    let (topic, group) = named();
    all.push(Operation::Redrive(group::Redrive { topic, group, positions: vec![1, 2] }));
    let (topic, group) = named();
    all.push(Operation::Discard(group::Discard { topic, group, positions: Vec::new() }));
    for expected in [
        stream::Expected::Any,
        stream::Expected::None,
        stream::Expected::Exists,
        stream::Expected::Exact(0),
    ] {
        let event = stream::NewEvent {
            id: Some(name()),
            kind: name(),
            data: Bytes::from_static(b"{ \"n\": 1.10 }"),
            metadata: Some(Bytes::new()),
        };
        let events = vec![event, stream::NewEvent::default()];
        let writes = vec![
            stream::Write { stream: name(), expected, events },
            stream::Write { stream: name(), expected, events: Vec::new() },
        ];
        all.push(Operation::Append(stream::Append { writes }));
        all.push(Operation::DeleteStream(stream::DeleteStream { stream: name(), expected }));
    }
    all.push(Operation::TruncateStream(stream::TruncateStream { stream: name(), before: 4 }));
    let (schema, data) = (String::new(), Bytes::from_static(b"\xff"));
    all.push(Operation::PutSnapshot(stream::PutSnapshot {
        stream: name(),
        version: 0,
        schema,
        data,
    }));
    all.push(Operation::GetSnapshot(stream::GetSnapshot { stream: name(), schema: name() }));
    for backwards in [false, true] {
        let read =
            stream::ReadStream { stream: name(), from: u64::MAX, backwards, max: usize::MAX };
        all.push(Operation::ReadStream(read));
    }
    all.push(Operation::ReadEvents(stream::ReadEvents { after: u64::MAX, max: 1 }));
    for (condition, content_type) in [
        (state::Condition::Any, None),
        (state::Condition::Absent, Some(String::new())),
        (state::Condition::Tag(u64::MAX), Some("text/plain".to_owned())),
        (state::Condition::Present, None),
        (state::Condition::Foreign, None),
    ] {
        let ttl = content_type.is_none().then_some(Duration::from_millis(10));
        let value = Bytes::from_static(b"\"text\"");
        let put =
            state::PutState { key: "\u{e4} \u{1}".to_owned(), value, content_type, condition, ttl };
        all.push(Operation::PutState(put));
        all.push(Operation::DeleteState(state::DeleteState { key: name(), condition }));
    }
    all.push(Operation::GetState(state::GetState { key: name() }));
    let list = state::ListState { prefix: name(), after: String::new(), max: 9 };
    all.push(Operation::ListState(list));
    all.push(Operation::Acquire(lease::Acquire {
        resource: name(),
        owner: name(),
        ttl: Duration::from_millis(10),
        permits: u32::MAX,
        wait: Duration::from_secs(1),
    }));
    let ttl = Duration::from_micros(10);
    all.push(Operation::Renew(lease::Renew { resource: name(), token: u64::MAX, ttl }));
    all.push(Operation::Release(lease::Release { resource: name(), token: 1 }));
    all.push(Operation::CheckFence(lease::CheckFence { resource: name(), token: 0 }));
    all.push(Operation::GetLease(lease::GetLease { resource: name() }));
    for (overlap, missed) in [
        (Overlap::Skip, Missed::Skip),
        (Overlap::Queue, Missed::All { limit: 1000 }),
        (Overlap::Allow, Missed::Once { grace: Duration::ZERO }),
    ] {
        all.push(Operation::PutSchedule(schedule::PutSchedule {
            name: name(),
            spec: "@daily".to_owned(),
            zone: "Europe/Berlin".to_owned(),
            overlap,
            missed,
            topic: name(),
            message: message(),
        }));
    }
    all.push(Operation::DeleteSchedule(schedule::DeleteSchedule { name: name() }));
    all.push(Operation::ListSchedules(schedule::ListSchedules));
    all.push(Operation::ListTopics(topic::ListTopics));
    all.push(Operation::ListLeases(lease::ListLeases::default()));
    all.push(Operation::ListLeases(lease::ListLeases {
        after: (name(), u64::MAX),
        held_for: Some(Duration::from_secs(3)),
        max: 7,
    }));
    all.push(Operation::GetTopic(topic::GetTopic { name: name() }));
    let (topic, group) = named();
    all.push(Operation::GetGroup(group::GetGroup { topic: topic.clone(), group: group.clone() }));
    all.push(Operation::ListGroups(group::ListGroups { topic: None }));
    all.push(Operation::ListGroups(group::ListGroups { topic: Some(topic.clone()) }));
    let letters = group::ListDeadLetters { topic, group, from: 5, max: 6 };
    all.push(Operation::ListDeadLetters(letters));
    all
}

fn there_and_back(asked: Asked) -> Vec<Operation> {
    let line = Line { id: Some(7.into()), exact: true, asked };
    let text = serde_json::to_string(&line).unwrap();
    let back: Line = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((back.id, back.exact), (Some(7.into()), true));
    back.asked.into_operations(false).unwrap()
}

#[test]
fn every_operation_arrives_as_it_was_sent() {
    let mut kinds = std::collections::HashSet::new();
    for operation in operations() {
        kinds.insert(operation.kind());
        let back = there_and_back(operation.clone().into());
        assert_eq!(format!("{back:?}"), format!("{:?}", [operation]));
    }
    assert_eq!(kinds.len(), 40, "one of each: {kinds:?}");
    let all = operations();
    let back = there_and_back(Asked::transact(all.clone()));
    assert_eq!(format!("{back:?}"), format!("{all:?}"));
}

fn delivered() -> topic::Message {
    topic::Message {
        position: u64::MAX,
        at: Wall::from_micros(1_800_000_000_000_001),
        key: None,
        headers: message().headers,
        payload: Some(Bytes::new()),
        priority: 9,
    }
}

/// One answer of each kind, with what is hardest to carry.
fn results() -> Vec<Answer> {
    let at = Wall::from_micros(1_800_000_000_000_009);
    let name = || "t".to_owned();
    let schema = Some(schema());
    let settings = topic::Settings { retention_age: None, schema, ..topic::Settings::default() };
    let topic = topic::Topic {
        name: name(),
        settings,
        first: 1,
        next: 2,
        bytes: 3,
        delayed: 4,
        dedupe_since: Some(at),
    };
    let config = group::Config {
        lease: Duration::from_micros(1001),
        rate: Some(limit(2)),
        filter: Some(filter()),
        exclusive: Some(Duration::from_secs(30)),
        ..group::Config::default()
    };
    let status = group::Status {
        topic: name(),
        group: name(),
        config,
        paused: true,
        throttled: Some(at),
        lag: 1,
        in_flight: 2,
        waiting: 3,
        dead: 4,
        oldest: Some(at),
        attempts_most: 5,
        dropped: 6,
        active: Some(group::Active { consumer: "c".into(), token: 1, since: at, until: at }),
    };
    let plain = topic::Message { payload: None, headers: Vec::new(), priority: 5, ..delivered() };
    let delivery = |message| group::Delivery { receipt: receipt(2), until: at, message };
    let stale = |current| Stale { presented: receipt(9), current };
    let causes = [Cause::Attempts, Cause::LeaseExpired, Cause::Parked, Cause::BehindKey];
    let letter = |cause| group::DeadLetter {
        message: delivered(),
        cause,
        reason: (cause == Cause::Parked).then(name),
        attempts: 3,
        at,
    };
    let event = stream::Event {
        stream: name(),
        version: 0,
        position: 1,
        at,
        id: Some(String::new()),
        kind: name(),
        data: Bytes::from_static(b"{}"),
        metadata: Some(Bytes::from_static(b"[]")),
    };
    let bare = stream::Event { id: None, data: Bytes::new(), metadata: None, ..event.clone() };
    let published = |place| topic::Published { place, duplicate: true };
    let appended =
        stream::Appended { versions: vec![Some(u64::MAX), None], position: 4, duplicate: true };
    let value = |content_type| state::Value {
        tag: u64::MAX,
        value: Bytes::from_static(b"{}"),
        content_type,
    };
    let schedule = schedule::Schedule {
        name: name(),
        spec: name(),
        zone: name(),
        topic: name(),
        next: Some(at),
        last: None,
    };
    let holder = lease::Holder { owner: name(), token: u64::MAX, since: at, until: at };
    let snapshot = stream::Snapshot { version: 3, data: Bytes::from_static(b"\0") };
    let mut settled = vec![Ok(Settled::Acked), Ok(Settled::Retry { at })];
    settled.extend(causes.map(|cause| Ok(Settled::Dead(cause))));
    settled.extend([Err(stale(None)), Err(stale(Some((2, 3))))]);
    vec![
        Answer::PutTopic(topic.clone()),
        Answer::GetTopic(topic.clone()),
        Answer::ListTopics(vec![topic]),
        Answer::Publish(vec![
            published(topic::Place::Log(u64::MAX)),
            published(topic::Place::Delayed(1)),
        ]),
        Answer::ReadTopic(vec![delivered(), plain.clone()]),
        Answer::PutGroup(status.clone()),
        Answer::GetGroup(status.clone()),
        Answer::ListGroups(vec![status]),
        Answer::Receive(vec![delivery(delivered()), delivery(plain)]),
        Answer::Settle(settled),
        Answer::Extend(vec![Ok(at), Err(stale(None))]),
        Answer::ListDeadLetters(causes.map(letter).to_vec()),
        Answer::Leave(true),
        Answer::Redrive(u64::MAX),
        Answer::Discard(0),
        Answer::Append(appended),
        Answer::ReadStream(stream::Page { events: vec![event.clone(), bare], last: 1 }),
        Answer::ReadEvents(vec![event]),
        Answer::GetSnapshot(None),
        Answer::GetSnapshot(Some(snapshot)),
        Answer::PutState(u64::MAX),
        Answer::GetState(value(None)),
        Answer::GetState(value(Some(name()))),
        Answer::ListState(vec![(name(), 10)]),
        Answer::Acquire(lease::Grant { token: u64::MAX, until: at }),
        Answer::Renew(at),
        Answer::GetLease(vec![holder.clone()]),
        Answer::ListLeases(vec![(name(), holder)]),
        Answer::PutSchedule(schedule.clone()),
        Answer::ListSchedules(vec![schedule]),
        Answer::DeleteTopic(()),
        Answer::CancelDelayed(()),
        Answer::DeleteGroup(()),
        Answer::Pause(()),
        Answer::Seek(()),
        Answer::TruncateStream(()),
        Answer::DeleteStream(()),
        Answer::PutSnapshot(()),
        Answer::DeleteState(()),
        Answer::Release(()),
        Answer::CheckFence(()),
        Answer::DeleteSchedule(()),
    ]
}

fn written(came: Came) -> Vec<u8> {
    serde_json::to_vec(&AnswerLine { id: Some(1.into()), came }).unwrap()
}

#[test]
fn every_exact_answer_arrives_as_it_was_given() {
    let all = results();
    for answer in &all {
        let line = written(Came::new(answer, Shown::Exact));
        let back = answers(&line, &[answer.kind()], false);
        let back = back.unwrap_or_else(|error| panic!("{error}: {}", line.escape_ascii()));
        assert_eq!(format!("{back:?}"), format!("{:?}", [answer]));
        let head: Head = serde_json::from_slice(&line).unwrap();
        assert_eq!((head.id, head.code), (Some(1), None));
    }
    let kinds: Vec<Kind> = all.iter().map(Answer::kind).collect();
    let line = written(Came::Answers(Answers::new(&all, Shown::Exact)));
    assert_eq!(format!("{:?}", answers(&line, &kinds, true).unwrap()), format!("{all:?}"));
    // One too few, one too many, none at all, another kind, half of it.
    assert!(answers(&line, &kinds[1..], true).is_err());
    let more: Vec<Kind> = kinds.iter().copied().chain([Kind::Seek]).collect();
    assert!(answers(&line, &more, true).is_err());
    assert!(answers(b"{\"id\":1}", &kinds, true).is_err());
    assert!(answers(b"{\"id\":1}", &[Kind::Receive], false).is_err());
    for end in 0..line.len() {
        assert!(answers(&line[..end], &kinds, true).is_err(), "cut at {end}");
    }
}

#[test]
fn every_error_arrives_as_it_was_made() {
    let name = || "n".to_owned();
    let until = Wall::from_micros(1_800_000_000_000_009);
    for error in [
        Error::Open { path: name(), problem: name() },
        Error::Newer { found: 9, known: 8 },
        Error::Corrupt { what: name() },
        Error::DiskFull,
        Error::Overloaded { waiting: 4 },
        Error::Closed,
        Error::Unreachable { problem: name() },
        Error::Unknown,
        Error::Unsynced { problem: name() },
        Error::Insecure { place: name(), problem: name() },
        Error::Unfit { place: name(), problem: name() },
        Error::Storage(std::sync::Arc::from(Box::from("broken"))),
        Error::NotFound { kind: "topic", name: name() },
        Error::Exists { kind: "group", name: name(), difference: "order" },
        Error::TooLarge { what: "a payload", size: 2, max: 1 },
        Error::invalid("lease", "is wrong"),
        Error::Mismatch {
            index: 3,
            mismatch: crate::schema::Mismatch { path: name(), rule: name(), problem: name() },
        },
        Error::Incompatible {
            topic: name(),
            version: 4,
            refusal: selvedge_patterns::compat::Refusal { path: name(), problem: name() },
        },
        Error::Stale(Stale { presented: receipt(1), current: Some((2, 3)) }),
        Error::Stale(Stale { presented: receipt(1), current: None }),
        Error::WrongVersion { stream: name(), expected: name(), actual: Some(3) },
        Error::WrongVersion { stream: name(), expected: name(), actual: None },
        Error::Undecodable { stream: name(), version: 1, problem: name() },
        Error::Precondition { key: name(), expected: name(), actual: Some(name()) },
        Error::Precondition { key: name(), expected: name(), actual: None },
        Error::Held { resource: name(), owner: name(), until },
        Error::Lost { resource: name(), presented: 1, current: Some(2) },
        Error::Lost { resource: name(), presented: 1, current: None },
    ] {
        let failure = Failure {
            code: error.code().into(),
            detail: error.to_string(),
            status: 400,
            facts: Facts::of(&error),
            ..Failure::default()
        };
        let line = written(Came::Failure(Box::new(failure)));
        let head: Head = serde_json::from_slice(&line).unwrap();
        assert_eq!(head.code.as_deref(), Some(error.code()));
        let back: Failure = serde_json::from_slice(&line).unwrap();
        let back = Error::from(back);
        assert_eq!(format!("{back:?}"), format!("{error:?}"));
        assert_eq!(back.to_string(), error.to_string());
    }
}

#[test]
fn an_error_of_a_later_server_keeps_its_code() {
    for (line, code, retryable) in [
        (json!({"code": "SV0499", "status": 503, "detail": "not now", "odd": [1]}), "SV0499", true),
        (json!({"code": "SV0440", "status": 400, "detail": "not now"}), "SV0440", false),
        // The facts are not there: it was not made of an error of ours.
        (json!({"code": "SV0412", "status": 413, "detail": "not now"}), "SV0412", false),
    ] {
        let failure: Failure = serde_json::from_value(line).unwrap();
        let error = Error::from(failure);
        assert_eq!((error.code(), error.retryable()), (code, retryable));
        assert_eq!(error.to_string(), "the server refused: not now");
    }
}

#[test]
fn a_slip_in_a_request_is_refused() {
    for text in [
        "{}",
        "[]",
        "{\"id\": 1}",
        "{\"publsh\": {}}",
        "{\"get_topic\": {\"topic\": \"t\"}, \"list_topics\": {}}",
        "{\"get_topic\": {\"topic\": \"t\", \"odd\": 1}}",
        "{\"put_topic\": {\"topic\": \"t\", \"settings\": {\"retention\": 1}}}",
        "{\"transact\": {\"operations\": [{\"transact\": {\"operations\": []}}]}}",
        "{\"delete_state\": {\"key\": \"k\", \"if_match\": \"1\", \"if_absent\": true}}",
    ] {
        let read = serde_json::from_str::<Line>(text).map(|line| line.asked.into_operations(false));
        assert!(!matches!(read, Ok(Ok(_))), "{text}");
    }
}

#[test]
fn durations_are_read_as_they_are_written() {
    for nanos in [0, 1, 999, 1000, 1_500_000, 1_000_000, 1_000_000_000, 86_400_000_000_001] {
        let span = Span(Duration::from_nanos(nanos));
        assert_eq!(duration(&span.to_string()), Some(span.0), "{span}");
    }
    assert_eq!(
        duration(&Span(Duration::MAX).to_string()),
        Some(Duration::from_millis((1 << 50) - 1))
    );
    for text in ["", "5", "s", "-1s", "1.5s", "1 s", "5 parsecs", "99999999999999999999s"] {
        assert_eq!(duration(text), None, "{text}");
    }
}
