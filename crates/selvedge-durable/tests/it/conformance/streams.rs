use selvedge_durable::stream::{
    Append, Appended, DeleteStream, Event, Expected, GetSnapshot, NewEvent, PutSnapshot,
    ReadEvents, ReadStream, TruncateStream, Write,
};

use super::*;

cases!(
    streams,
    versions_and_positions_are_dense,
    what_is_appended_comes_back_whole,
    an_expectation_that_fails_appends_nothing,
    several_streams_are_appended_together_or_not,
    a_repeated_append_is_answered_like_the_first,
    no_version_is_too_great_to_be_expected,
    a_long_beginning_is_gone_at_once,
    reading_goes_both_ways,
    a_truncated_stream_keeps_its_versions,
    a_deleted_stream_comes_back_where_it_was,
    snapshots_are_found_by_their_shape,
);

fn event(kind: &str) -> NewEvent {
    NewEvent { kind: kind.to_owned(), data: Bytes::from_static(b"{}"), ..NewEvent::default() }
}

fn write(stream: &str, expected: Expected, kinds: &[&str]) -> Write {
    let events = kinds.iter().map(|kind| event(kind)).collect();
    Write { stream: stream.to_owned(), expected, events }
}

fn append(stream: &str, expected: Expected, kinds: &[&str]) -> Append {
    Append { writes: vec![write(stream, expected, kinds)] }
}

fn read(stream: &str, from: u64, backwards: bool) -> ReadStream {
    ReadStream { stream: stream.to_owned(), from, backwards, max: 100 }
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| &event.kind[..]).collect()
}

pub(crate) async fn versions_and_positions_are_dense<E: TestEngine>(world: &World<E>) {
    for (stream, version, position) in [("a", 1, 2), ("b", 1, 4), ("a", 3, 6)] {
        let appended = world.run(append(stream, Expected::Any, &["x", "y"])).await;
        let versions = vec![Some(version)];
        assert_eq!(appended, Appended { versions, position, duplicate: false });
    }
    let all = world.run(ReadEvents { after: 1, max: 3 }).await;
    let places: Vec<_> =
        all.iter().map(|event| (&event.stream[..], event.version, event.position)).collect();
    assert_eq!(places, [("a", 1, 2), ("b", 0, 3), ("b", 1, 4)]);
}

pub(crate) async fn what_is_appended_comes_back_whole<E: TestEngine>(world: &World<E>) {
    let new = NewEvent {
        id: Some("id-1".to_owned()),
        kind: "Opened".to_owned(),
        data: Bytes::from_static(&[0, 1, 255]),
        metadata: Some(Bytes::from_static(b"who")),
    };
    let write =
        Write { stream: "account/1".to_owned(), events: vec![new.clone()], ..Write::default() };
    world.run(Append { writes: vec![write] }).await;
    let page = world.run(read("account/1", 0, false)).await;
    let expected = Event {
        stream: "account/1".to_owned(),
        version: 0,
        position: 1,
        at: start(),
        id: new.id,
        kind: new.kind,
        data: new.data,
        metadata: new.metadata,
    };
    assert_eq!(page.events, [expected]);
    let unnamed = Append { writes: vec![Write { events: vec![event("")], ..write_to("s") }] };
    assert_eq!(world.fails(unnamed).await.code(), "SV0413");
    let large = NewEvent { data: Bytes::from(vec![0; (1 << 20) + 1]), ..event("x") };
    let large = Append { writes: vec![Write { events: vec![large], ..write_to("s") }] };
    assert_eq!(world.fails(large).await.code(), "SV0412");
}

fn write_to(stream: &str) -> Write {
    Write { stream: stream.to_owned(), ..Write::default() }
}

pub(crate) async fn an_expectation_that_fails_appends_nothing<E: TestEngine>(world: &World<E>) {
    use Expected::{Any, Exact, Exists, None as Nothing};
    for (expected, holds_before, holds_after) in [
        (Any, true, true),
        (Nothing, true, false),
        (Exists, false, true),
        (Exact(0), false, true),
        (Exact(1), false, false),
    ] {
        let stream = format!("s-{expected:?}").replace(['(', ')'], "");
        let first = world.engine.execute(append(&stream, expected, &["x"])).await;
        assert_eq!(first.is_ok(), holds_before, "{expected:?} on nothing");
        if first.is_err() {
            world.run(append(&stream, Nothing, &["x"])).await;
        }
        let second = world.engine.execute(append(&stream, expected, &["y"])).await;
        assert_eq!(second.is_ok(), holds_after, "{expected:?} at version 0");
        let page = world.run(read(&stream, 0, false)).await;
        assert_eq!(page.last, u64::from(holds_after));
        if let Err(error) = second {
            assert_eq!(error.code(), "SV0420");
        }
    }
}

pub(crate) async fn several_streams_are_appended_together_or_not<E: TestEngine>(world: &World<E>) {
    world.run(append("limit", Expected::Any, &["Set"])).await;
    let transfer = |limit| Append {
        writes: vec![
            write("a", Expected::Any, &["Taken"]),
            write("limit", limit, &[]),
            write("b", Expected::Any, &["Given"]),
        ],
    };
    let error = world.fails(transfer(Expected::Exact(7))).await;
    assert_eq!(error.code(), "SV0420");
    assert_eq!(world.fails(read("a", 0, false)).await.code(), "SV0410");
    let appended = world.run(transfer(Expected::Exact(0))).await;
    assert_eq!(appended.versions, [Some(0), Some(0), Some(0)]);
    assert_eq!(appended.position, 3, "the failed one used no position");
}

pub(crate) async fn a_repeated_append_is_answered_like_the_first<E: TestEngine>(world: &World<E>) {
    let with_id = |id: &str| {
        let events = vec![NewEvent { id: Some(id.to_owned()), ..event("x") }];
        Append { writes: vec![Write { expected: Expected::None, events, ..write_to("s") }] }
    };
    let first = world.run(with_id("one")).await;
    world.run(append("s", Expected::Exact(0), &["later"])).await;
    let again = world.run(with_id("one")).await;
    assert_eq!(again, Appended { duplicate: true, ..first });
    assert_eq!(world.fails(with_id("two")).await.code(), "SV0420");
    assert_eq!(world.run(read("s", 0, false)).await.events.len(), 2);
}

pub(crate) async fn reading_goes_both_ways<E: TestEngine>(world: &World<E>) {
    world.run(append("s", Expected::Any, &["a", "b", "c"])).await;
    assert_eq!(kinds(&world.run(read("s", 1, false)).await.events), ["b", "c"]);
    assert_eq!(kinds(&world.run(read("s", 1, true)).await.events), ["b", "a"]);
    assert_eq!(kinds(&world.run(read("s", u64::MAX, true)).await.events), ["c", "b", "a"]);
    assert_eq!(world.run(read("s", 9, false)).await.events, []);
    let page = ReadStream { max: 1, ..read("s", u64::MAX, true) };
    assert_eq!(kinds(&world.run(page).await.events), ["c"]);
    assert_eq!(world.fails(read("nowhere", 0, false)).await.code(), "SV0410");
}

pub(crate) async fn a_truncated_stream_keeps_its_versions<E: TestEngine>(world: &World<E>) {
    world.run(append("s", Expected::Any, &["a", "b", "c"])).await;
    let truncate = |before| TruncateStream { stream: "s".to_owned(), before };
    world.run(truncate(2)).await;
    assert_eq!(kinds(&world.run(read("s", 0, false)).await.events), ["c"]);
    assert_eq!(world.fails(truncate(3)).await.code(), "SV0413");
    let appended = world.run(append("s", Expected::Exact(2), &["d"])).await;
    assert_eq!((appended.versions, appended.position), (vec![Some(3)], 4));
}

pub(crate) async fn a_deleted_stream_comes_back_where_it_was<E: TestEngine>(world: &World<E>) {
    world.run(append("s", Expected::Any, &["a", "b"])).await;
    let delete = |expected| DeleteStream { stream: "s".to_owned(), expected };
    assert_eq!(world.fails(delete(Expected::Exact(0))).await.code(), "SV0420");
    world.run(delete(Expected::Exact(1))).await;
    assert_eq!(world.fails(read("s", 0, false)).await.code(), "SV0410");
    assert_eq!(world.fails(delete(Expected::Any)).await.code(), "SV0410");
    assert_eq!(world.fails(append("s", Expected::Exact(1), &["x"])).await.code(), "SV0420");
    let appended = world.run(append("s", Expected::None, &["c"])).await;
    assert_eq!((appended.versions, appended.position), (vec![Some(2)], 3));
    assert_eq!(kinds(&world.run(read("s", 0, false)).await.events), ["c"]);
}

pub(crate) async fn snapshots_are_found_by_their_shape<E: TestEngine>(world: &World<E>) {
    world.run(append("s", Expected::Any, &["a", "b"])).await;
    let put = |version| PutSnapshot {
        stream: "s".to_owned(),
        version,
        schema: "v1".to_owned(),
        data: Bytes::from_static(b"sum"),
    };
    let get = |schema: &str| GetSnapshot { stream: "s".to_owned(), schema: schema.to_owned() };
    assert_eq!(world.fails(put(2)).await.code(), "SV0413");
    world.run(put(1)).await;
    let snapshot = world.run(get("v1")).await.unwrap();
    assert_eq!((snapshot.version, &snapshot.data[..]), (1, &b"sum"[..]));
    assert_eq!(world.run(get("v2")).await, None);
}

pub(crate) async fn no_version_is_too_great_to_be_expected<E: TestEngine>(world: &World<E>) {
    let first = NewEvent { id: Some("1".to_owned()), ..event("x") };
    let with = |expected| Append {
        writes: vec![Write { stream: "s".to_owned(), expected, events: vec![first.clone()] }],
    };
    world.run(with(Expected::None)).await;
    for version in [i64::MAX as u64 - 1, i64::MAX as u64, u64::MAX - 1, u64::MAX] {
        let refused = world.fails(with(Expected::Exact(version))).await;
        assert_eq!(refused.code(), "SV0420", "{version}");
    }
    assert_eq!(world.run(append("s", Expected::Exact(0), &["y"])).await.versions, [Some(1)]);
}

pub(crate) async fn a_long_beginning_is_gone_at_once<E: TestEngine>(world: &World<E>) {
    // More than one commit removes.
    let many = vec!["x"; 2_500];
    world.run(append("s", Expected::None, &many)).await;
    world.run(append("o", Expected::None, &["other"])).await;
    world.run(TruncateStream { stream: "s".to_owned(), before: 2_400 }).await;
    for _ in 0..4 {
        let page = world.run(read("s", 0, false)).await;
        assert_eq!((page.events.len(), page.events[0].version, page.last), (100, 2_400, 2_499));
        assert_eq!(world.run(read("s", 2_450, true)).await.events.len(), 51);
        let all = world.run(ReadEvents { after: 0, max: 1000 }).await;
        assert_eq!((all.len(), all[0].position), (101, 2_401));
        world.pass(Duration::from_secs(60)).await;
    }
    let delete = DeleteStream { stream: "s".to_owned(), expected: Expected::Exact(2_499) };
    world.run(delete).await;
    assert_eq!(world.fails(read("s", 0, false)).await.code(), "SV0410");
    assert_eq!(world.run(ReadEvents { after: 0, max: 1000 }).await.len(), 1);
    let again = world.run(append("s", Expected::None, &["y"])).await;
    assert_eq!((again.versions, again.position), (vec![Some(2_500)], 2_502));
}
