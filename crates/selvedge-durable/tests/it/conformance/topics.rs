use selvedge_durable::{
    Operation,
    topic::{CancelDelayed, DeleteTopic, GetTopic, Message, Published, ReadTopic},
};

use super::*;

cases!(
    topics,
    a_topic_that_was_removed_shows_nowhere,
    a_refused_transaction_leaves_topic_and_group_as_they_were,
    positions_are_dense_and_reads_begin_anywhere,
    what_is_published_comes_back_whole,
    a_batch_is_published_whole_or_not_at_all,
    a_transaction_is_done_whole_or_not_at_all,
    a_repeated_id_is_stored_once_in_its_window,
    a_delayed_message_enters_the_log_when_it_is_due,
    a_delayed_message_can_be_taken_back,
    what_cannot_be_published_is_refused,
    old_messages_expire_and_positions_go_on,
    large_logs_expire_by_size,
    a_live_group_can_block_expiry,
    compaction_keeps_the_last_of_each_key,
    a_deleted_topic_is_gone_and_its_name_free,
    settings_that_shape_the_log_are_fixed,
);

async fn read<E: TestEngine>(world: &World<E>, from: From, max: usize) -> Vec<Message> {
    world.run(ReadTopic { topic: "t".to_owned(), from, max }).await
}

fn positions(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.position).collect()
}

pub(crate) async fn positions_are_dense_and_reads_begin_anywhere<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    for n in 1..=5u64 {
        assert_eq!(world.publish("t", message("x")).await, Place::Log(n));
        world.pass(Duration::from_secs(10)).await;
    }
    assert_eq!(positions(&read(world, From::First, 100).await), [1, 2, 3, 4, 5]);
    assert_eq!(positions(&read(world, From::Position(4), 100).await), [4, 5]);
    assert_eq!(positions(&read(world, From::First, 2).await), [1, 2]);
    assert_eq!(positions(&read(world, From::Next, 2).await), [] as [u64; 0]);
    let third = start() + Duration::from_secs(20);
    assert_eq!(positions(&read(world, From::Time(third), 9).await), [3, 4, 5]);
    let between = start() + Duration::from_secs(21);
    assert_eq!(positions(&read(world, From::Time(between), 9).await), [4, 5]);
    let read = ReadTopic { topic: "t".to_owned(), from: From::Position(7), max: 1 };
    assert_eq!(world.fails(read).await.code(), "SV0413");
}

pub(crate) async fn what_is_published_comes_back_whole<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings { priorities: true, ..Settings::default() }).await;
    let new = NewMessage {
        key: Some("ключ".to_owned()),
        headers: vec![
            ("content-type".to_owned(), "text/plain".to_owned()),
            ("empty".to_owned(), String::new()),
        ],
        payload: Some(Bytes::from_static(&[0, 255, 10, 13])),
        priority: Some(9),
        ..NewMessage::default()
    };
    world.publish("t", new.clone()).await;
    world.publish("t", NewMessage { payload: Some(Bytes::new()), ..NewMessage::default() }).await;
    world.publish("t", NewMessage { key: Some("k".to_owned()), ..NewMessage::default() }).await;
    let read = read(world, From::First, 9).await;
    assert_eq!(
        read[0],
        Message {
            position: 1,
            at: start(),
            key: new.key,
            headers: new.headers,
            payload: new.payload,
            priority: 9
        }
    );
    assert_eq!(read[1].payload, Some(Bytes::new()), "empty is not absent");
    assert_eq!(read[2].payload, None);
    assert_eq!(read[2].priority, 5);
}

pub(crate) async fn a_batch_is_published_whole_or_not_at_all<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    let bad = NewMessage { priority: Some(1), ..message("bad") };
    let publish = Publish { topic: "t".to_owned(), messages: vec![message("good"), bad] };
    assert_eq!(world.fails(publish).await.code(), "SV0413");
    assert_eq!(world.publish("t", message("next")).await, Place::Log(1));
    assert_eq!(read(world, From::First, 9).await.len(), 1);
}

pub(crate) async fn a_transaction_is_done_whole_or_not_at_all<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.topic("u", Settings::default()).await;
    world.group("t", "g", Config::default()).await;
    world.publish("t", message("in")).await;
    let delivery = world.receive("t", "g", 1).await.remove(0);
    let handle = |topic: &str| {
        let ack = Settle { strict: true, ..settle("t", "g", &delivery, Verdict::Ack) };
        let out = Publish { topic: topic.to_owned(), messages: vec![message("out")] };
        vec![Operation::Settle(ack), Operation::Publish(out)]
    };
    assert_eq!(world.engine.transact(handle("nowhere")).await.unwrap_err().code(), "SV0410");
    assert_eq!(world.engine.transact(handle("u")).await.unwrap().len(), 2, "still unsettled");
    assert_eq!(world.engine.transact(handle("u")).await.unwrap_err().code(), "SV0414");
    let out = world.run(ReadTopic { topic: "u".to_owned(), from: From::First, max: 9 }).await;
    assert_eq!(out.len(), 1);
}

pub(crate) async fn a_repeated_id_is_stored_once_in_its_window<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    let publish = |id: &str, delay: u64| {
        let deliver_at = (delay > 0).then(|| world.clock_now() + Duration::from_secs(delay));
        let message = NewMessage { dedupe_id: Some(id.to_owned()), deliver_at, ..message("x") };
        world.run(Publish { topic: "t".to_owned(), messages: vec![message.clone(), message] })
    };
    let first = Published { place: Place::Log(1), duplicate: false };
    let again = Published { duplicate: true, ..first };
    assert_eq!(publish("a", 0).await, [first, again], "within one batch");
    world.pass(Duration::from_secs(599)).await;
    assert_eq!(publish("a", 0).await, [again, again]);
    world.pass(Duration::from_secs(1)).await;
    let late = Published { place: Place::Log(2), duplicate: false };
    assert_eq!(publish("a", 0).await[0], late);
    let delayed = publish("b", 60).await;
    assert!(matches!(delayed[0].place, Place::Delayed(_)));
    assert_eq!(delayed[1], Published { duplicate: true, ..delayed[0] });
}

pub(crate) async fn a_delayed_message_enters_the_log_when_it_is_due<E: TestEngine>(
    world: &World<E>,
) {
    world.topic("t", Settings::default()).await;
    let due = |seconds| Some(start() + Duration::from_secs(seconds));
    let later = world.publish("t", NewMessage { deliver_at: due(60), ..message("60") }).await;
    let sooner = world.publish("t", NewMessage { deliver_at: due(30), ..message("30") }).await;
    assert!(matches!((later, sooner), (Place::Delayed(_), Place::Delayed(_))));
    let past = NewMessage { deliver_at: Some(Wall::from_secs(1)), ..message("past") };
    assert_eq!(world.publish("t", past).await, Place::Log(1), "the past is now");
    assert_eq!(world.run(GetTopic { name: "t".to_owned() }).await.delayed, 2);
    world.pass(Duration::from_secs(29)).await;
    assert_eq!(read(world, From::First, 9).await.len(), 1);
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(read(world, From::First, 9).await.len(), 2);
    world.pass(Duration::from_secs(3600)).await;
    let payloads: Vec<_> = read(world, From::First, 9)
        .await
        .into_iter()
        .filter_map(|message| message.payload)
        .collect();
    assert_eq!(payloads, ["past", "30", "60"]);
}

pub(crate) async fn a_delayed_message_can_be_taken_back<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    let deliver_at = Some(start() + Duration::from_secs(60));
    let Place::Delayed(number) =
        world.publish("t", NewMessage { deliver_at, ..message("x") }).await
    else {
        panic!("not delayed")
    };
    let cancel = CancelDelayed { topic: "t".to_owned(), number };
    world.run(cancel.clone()).await;
    assert_eq!(world.fails(cancel).await.code(), "SV0410");
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(read(world, From::First, 9).await.len(), 0);
}

pub(crate) async fn what_cannot_be_published_is_refused<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    let year = Duration::from_secs(367 * 86_400);
    let large = Bytes::from(vec![0; (1 << 20) + 1]);
    let header = vec![("x".to_owned(), "y".repeat(64 << 10))];
    for (message, code) in [
        (NewMessage { payload: Some(large), ..NewMessage::default() }, "SV0412"),
        (NewMessage { headers: header, ..message("x") }, "SV0412"),
        (NewMessage { priority: Some(5), ..message("x") }, "SV0413"),
        (NewMessage { deliver_at: Some(start() + year), ..message("x") }, "SV0413"),
        (NewMessage::default(), "SV0413"),
    ] {
        let publish = Publish { topic: "t".to_owned(), messages: vec![message] };
        assert_eq!(world.fails(publish).await.code(), code);
    }
    let publish = Publish { topic: "u".to_owned(), messages: vec![message("x")] };
    assert_eq!(world.fails(publish).await.code(), "SV0410");
    let many = Publish { topic: "t".to_owned(), messages: vec![message("x"); 10_001] };
    assert_eq!(world.fails(many).await.code(), "SV0412");
    let put = PutTopic { name: "no spaces".to_owned(), settings: Settings::default() };
    assert_eq!(world.fails(put).await.code(), "SV0413");
    assert_eq!(world.publish("t", message("x")).await, Place::Log(1), "nothing of it stayed");
}

pub(crate) async fn old_messages_expire_and_positions_go_on<E: TestEngine>(world: &World<E>) {
    let age = Duration::from_secs(3600);
    world.topic("t", Settings { retention_age: Some(age), ..Settings::default() }).await;
    for _ in 0..3 {
        world.publish("t", message("old")).await;
    }
    world.pass(Duration::from_secs(1800)).await;
    world.publish("t", message("young")).await;
    world.pass(Duration::from_secs(1801)).await;
    assert_eq!(positions(&read(world, From::First, 9).await), [4]);
    world.pass(age).await;
    assert_eq!(read(world, From::First, 9).await.len(), 0);
    let topic = world.run(GetTopic { name: "t".to_owned() }).await;
    assert_eq!((topic.first, topic.next, topic.bytes), (5, 5, 0));
    assert_eq!(world.publish("t", message("new")).await, Place::Log(5));
}

pub(crate) async fn large_logs_expire_by_size<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings { retention_bytes: Some(1 << 20), ..Settings::default() }).await;
    let large =
        NewMessage { payload: Some(Bytes::from(vec![1; 300 << 10])), ..NewMessage::default() };
    for _ in 0..6 {
        world.publish("t", large.clone()).await;
    }
    world.pass(Duration::from_secs(61)).await;
    let topic = world.run(GetTopic { name: "t".to_owned() }).await;
    assert!((1 << 20..(1 << 20) + (300 << 10)).contains(&topic.bytes), "{topic:?}");
    assert_eq!(topic.first, 3);
}

pub(crate) async fn a_live_group_can_block_expiry<E: TestEngine>(world: &World<E>) {
    let age = Some(Duration::from_secs(60));
    let settings = Settings { retention_age: age, retain_unconsumed: true, ..Settings::default() };
    world.topic("t", settings).await;
    world.group("t", "g", Config::default()).await;
    for text in ["a", "b", "c"] {
        world.publish("t", message(text)).await;
    }
    let deliveries = world.receive("t", "g", 2).await;
    world.settle("t", "g", &deliveries[0], Verdict::Ack).await;
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(positions(&read(world, From::First, 9).await), [2, 3]);
}

pub(crate) async fn compaction_keeps_the_last_of_each_key<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings { compact: true, ..Settings::default() }).await;
    for (key, text) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")] {
        world.publish("t", keyed(key, text)).await;
    }
    world.publish("t", NewMessage { key: Some("b".to_owned()), ..NewMessage::default() }).await;
    world.publish("t", keyed("d", "1")).await;
    world.pass(Duration::from_secs(3599)).await;
    assert_eq!(positions(&read(world, From::First, 9).await), [1, 2, 3, 4, 5, 6]);
    world.pass(Duration::from_secs(61)).await;
    assert_eq!(positions(&read(world, From::First, 9).await), [3, 4, 5, 6]);
    world.pass(Duration::from_secs(86_400)).await;
    assert_eq!(positions(&read(world, From::First, 9).await), [3, 4, 6]);
    let publish = Publish { topic: "t".to_owned(), messages: vec![message("no key")] };
    assert_eq!(world.fails(publish).await.code(), "SV0413");
}

pub(crate) async fn a_deleted_topic_is_gone_and_its_name_free<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", Config::default()).await;
    world.publish("t", message("x")).await;
    world.run(DeleteTopic { name: "t".to_owned() }).await;
    assert_eq!(world.fails(GetTopic { name: "t".to_owned() }).await.code(), "SV0410");
    assert_eq!(world.fails(receive("t", "g", 1)).await.code(), "SV0410");
    world.topic("t", Settings::default()).await;
    assert_eq!(world.publish("t", message("y")).await, Place::Log(1));
    world.pass(Duration::from_secs(120)).await;
    assert_eq!(read(world, From::First, 9).await.len(), 1);
}

pub(crate) async fn settings_that_shape_the_log_are_fixed<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.topic("t", Settings { relaxed: true, ..Settings::default() }).await;
    let put = |settings| PutTopic { name: "t".to_owned(), settings };
    let error = world.fails(put(Settings { priorities: true, ..Settings::default() })).await;
    assert_eq!(error.code(), "SV0411");
    let error = world.fails(put(Settings { compact: true, ..Settings::default() })).await;
    assert_eq!(error.code(), "SV0411");
    assert!(world.run(GetTopic { name: "t".to_owned() }).await.settings.relaxed);
    assert_eq!(world.publish("t", message("x")).await, Place::Log(1));
}

pub(crate) async fn a_topic_that_was_removed_shows_nowhere<E: TestEngine>(world: &World<E>) {
    let settings = Settings { priorities: true, ..Settings::default() };
    world.topic("t", settings.clone()).await;
    world.group("t", "g", Config::default()).await;
    let old = NewMessage { dedupe_id: Some("id".to_owned()), ..message("old") };
    let later = Some(world.clock_now() + Duration::from_secs(90));
    world.publish("t", old.clone()).await;
    world.publish("t", NewMessage { deliver_at: later, ..message("later") }).await;
    let delivery = world.receive("t", "g", 1).await.remove(0);
    world.settle("t", "g", &delivery, Verdict::Park).await;
    world.run(DeleteTopic { name: "t".to_owned() }).await;
    for _ in 0..4 {
        world.topic("t", settings.clone()).await;
        world.group("t", "g", Config::default()).await;
        assert_eq!(world.publish("t", old.clone()).await, Place::Log(1), "no duplicate");
        assert_eq!(texts(&world.receive("t", "g", 9).await), ["old"]);
        let status =
            selvedge_durable::group::GetGroup { topic: "t".to_owned(), group: "g".to_owned() };
        let status = world.run(status).await;
        assert_eq!((status.dead, status.lag), (0, 1));
        world.run(DeleteTopic { name: "t".to_owned() }).await;
        world.pass(Duration::from_secs(60)).await;
    }
}

pub(crate) async fn a_refused_transaction_leaves_topic_and_group_as_they_were<E: TestEngine>(
    world: &World<E>,
) {
    use selvedge_durable::{Operation, lease::CheckFence};
    world.topic("t", Settings::default()).await;
    world.group("t", "g", Config::default()).await;
    world.publish("t", message("a")).await;
    let publish = Publish { topic: "t".to_owned(), messages: vec![message("never")] };
    let fence = CheckFence { resource: "nobody".to_owned(), token: 1 };
    let refused = world
        .engine
        .transact(vec![
            Operation::Publish(publish),
            Operation::Receive(receive("t", "g", 9)),
            Operation::CheckFence(fence),
        ])
        .await;
    assert_eq!(refused.unwrap_err().code(), "SV0431");
    assert_eq!(world.publish("t", message("b")).await, Place::Log(2));
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["a", "b"]);
}
