use selvedge_durable::group::{
    Cause, DeleteGroup, Discard, Extend, GetGroup, ListDeadLetters, ListGroups, Pause, Redrive,
    Seek, Settled,
};

use super::*;

cases!(
    groups,
    what_is_released_costs_no_attempt,
    consumers_share_and_groups_do_not,
    an_unanswered_message_comes_again,
    a_stale_receipt_changes_nothing,
    a_failed_message_waits_for_its_retry,
    a_message_that_never_succeeds_is_kept_with_its_cause,
    a_key_is_served_in_order_and_parked_alone,
    priorities_go_first_but_never_for_ever,
    a_waiting_consumer_is_served_by_the_publish,
    a_waiting_consumer_is_served_by_a_retry,
    patience_ends,
    extending_keeps_a_message,
    a_paused_group_stands_still,
    seeking_starts_over_from_anywhere,
    letters_come_back_after_a_seek_too,
    a_letter_of_what_is_being_worked_on_comes_back_once,
    a_long_line_behind_a_parked_key_holds_up_nobody,
    limits_of_one_receive_hold,
    a_group_can_be_changed_and_removed,
);

fn group_of(topic: &str) -> (String, String) {
    (topic.to_owned(), "g".to_owned())
}

async fn status<E: TestEngine>(world: &World<E>) -> selvedge_durable::group::Status {
    let (topic, group) = group_of("t");
    world.run(GetGroup { topic, group }).await
}

async fn letters<E: TestEngine>(world: &World<E>) -> Vec<selvedge_durable::group::DeadLetter> {
    let (topic, group) = group_of("t");
    world.run(ListDeadLetters { topic, group, from: 1, max: 100 }).await
}

async fn with_messages<E: TestEngine>(world: &World<E>, config: Config, texts: &[&str]) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", config).await;
    for text in texts {
        // The key is the first letter.
        world.publish("t", keyed(&text[..1], text)).await;
    }
}

pub(crate) async fn consumers_share_and_groups_do_not<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &["a", "b", "c"]).await;
    world.group("t", "h", Config::default()).await;
    assert_eq!(texts(&world.receive("t", "g", 2).await), ["a", "b"]);
    assert_eq!(texts(&world.receive("t", "g", 2).await), ["c"]);
    assert_eq!(texts(&world.receive("t", "g", 2).await), [] as [&str; 0]);
    assert_eq!(texts(&world.receive("t", "h", 9).await), ["a", "b", "c"]);
    let next = PutGroup {
        topic: "t".to_owned(),
        group: "late".to_owned(),
        config: Config::default(),
        from: From::Next,
    };
    world.run(next).await;
    world.publish("t", message("d")).await;
    assert_eq!(texts(&world.receive("t", "late", 9).await), ["d"]);
}

pub(crate) async fn an_unanswered_message_comes_again<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &["a"]).await;
    let first = world.receive("t", "g", 1).await.remove(0);
    assert_eq!(first.until, start() + Duration::from_secs(30));
    world.pass(Duration::from_secs(29)).await;
    assert!(world.receive("t", "g", 1).await.is_empty());
    world.pass(Duration::from_secs(1)).await;
    let second = world.receive("t", "g", 1).await.remove(0);
    assert_eq!(second.receipt.attempt, 2);
    assert!(second.receipt.fence > first.receipt.fence);
    assert_eq!(second.message, first.message);
}

pub(crate) async fn a_stale_receipt_changes_nothing<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &["a"]).await;
    let first = world.receive("t", "g", 1).await.remove(0);
    world.pass(Duration::from_secs(30)).await;
    let second = world.receive("t", "g", 1).await.remove(0);
    for verdict in [Verdict::Ack, Verdict::Park, Verdict::Retry { after: None }] {
        let answer = world.run(settle("t", "g", &first, verdict)).await.remove(0);
        let current = Some((second.receipt.attempt, second.receipt.fence));
        assert_eq!(answer.unwrap_err().current, current);
    }
    world.settle("t", "g", &second, Verdict::Ack).await;
    assert!(world.run(settle("t", "g", &second, Verdict::Ack)).await[0].is_err());
    assert_eq!(status(world).await.lag, 0);
}

pub(crate) async fn a_failed_message_waits_for_its_retry<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &["a", "b"]).await;
    let first = world.receive("t", "g", 1).await.remove(0);
    let after = Some(Duration::from_secs(7));
    let answer = world.run(settle("t", "g", &first, Verdict::Retry { after })).await.remove(0);
    assert_eq!(answer, Ok(Settled::Retry { at: start() + Duration::from_secs(7) }));
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["b"], "others flow");
    assert_eq!(status(world).await.waiting, 1);
    world.pass(Duration::from_secs(7)).await;
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["a"]);
}

pub(crate) async fn a_message_that_never_succeeds_is_kept_with_its_cause<E: TestEngine>(
    world: &World<E>,
) {
    with_messages(world, Config { attempts: 2, ..Config::default() }, &["a", "b"]).await;
    for _ in 0..2 {
        let delivery = world.receive("t", "g", 1).await.remove(0);
        world.settle("t", "g", &delivery, Verdict::Retry { after: Some(Duration::ZERO) }).await;
    }
    let letter = letters(world).await.remove(0);
    assert_eq!((letter.cause, letter.attempts), (Cause::Attempts, 2));
    assert_eq!(letter.reason.as_deref(), Some("broken"));
    assert_eq!(letter.message.payload.as_deref(), Some(&b"a"[..]));
    // Two leases that run out.
    for _ in 0..2 {
        assert_eq!(texts(&world.receive("t", "g", 1).await), ["b"]);
        world.pass(Duration::from_secs(31)).await;
    }
    assert!(world.receive("t", "g", 1).await.is_empty());
    assert_eq!(letters(world).await[1].cause, Cause::LeaseExpired);
    assert_eq!((status(world).await.dead, status(world).await.lag), (2, 0));

    let (topic, group) = group_of("t");
    assert_eq!(world.run(Redrive { topic, group, positions: vec![1] }).await, 1);
    let delivery = world.receive("t", "g", 9).await.remove(0);
    assert_eq!((delivery.receipt.attempt, delivery.receipt.position), (1, 1));
    world.settle("t", "g", &delivery, Verdict::Ack).await;
    let (topic, group) = group_of("t");
    assert_eq!(world.run(Discard { topic, group, positions: vec![] }).await, 1);
    assert_eq!(letters(world).await, []);
}

pub(crate) async fn a_key_is_served_in_order_and_parked_alone<E: TestEngine>(world: &World<E>) {
    let config = Config { ordered: true, ..Config::default() };
    with_messages(world, config, &["a1", "a2", "b1", "a3"]).await;
    let first = world.receive("t", "g", 9).await;
    assert_eq!(texts(&first), ["a1", "b1"]);
    world.settle("t", "g", &first[0], Verdict::Park).await;
    assert!(world.receive("t", "g", 9).await.is_empty());
    world.publish("t", keyed("a", "a4")).await;
    world.publish("t", keyed("b", "b2")).await;
    assert!(world.receive("t", "g", 9).await.is_empty(), "b1 is out, a is parked");
    world.settle("t", "g", &first[1], Verdict::Ack).await;
    let b2 = world.receive("t", "g", 9).await;
    assert_eq!(texts(&b2), ["b2"]);
    let causes: Vec<_> = letters(world).await.iter().map(|letter| letter.cause).collect();
    assert_eq!(causes, [Cause::Parked, Cause::BehindKey, Cause::BehindKey, Cause::BehindKey]);

    let (topic, group) = group_of("t");
    let redriven = world.run(Redrive { topic, group, positions: vec![4] }).await;
    assert_eq!(redriven, 4, "the whole key comes back");
    world.publish("t", keyed("a", "a5")).await;
    for text in ["a1", "a2", "a3", "a4", "a5"] {
        let next = world.receive("t", "g", 9).await;
        assert_eq!(texts(&next), [text]);
        world.settle("t", "g", &next[0], Verdict::Ack).await;
    }
    assert_eq!(letters(world).await, []);
}

pub(crate) async fn priorities_go_first_but_never_for_ever<E: TestEngine>(world: &World<E>) {
    let ageing = Duration::from_secs(10);
    world.topic("t", Settings { priorities: true, ageing, ..Settings::default() }).await;
    world.group("t", "g", Config::default()).await;
    let publish = |priority, text: &str| {
        world.publish("t", NewMessage { priority: Some(priority), ..message(text) })
    };
    publish(0, "low").await;
    publish(9, "high 1").await;
    publish(5, "middle").await;
    publish(9, "high 2").await;
    assert_eq!(status(world).await.lag, 4);
    let order = texts(&world.receive("t", "g", 3).await);
    assert_eq!(order, ["high 1", "high 2", "middle"]);
    world.pass(Duration::from_secs(91)).await;
    publish(9, "high 3").await;
    let order = texts(&world.receive("t", "g", 9).await);
    assert_eq!(order[order.len() - 2..], ["low", "high 3"], "{order:?}");
}

pub(crate) async fn a_waiting_consumer_is_served_by_the_publish<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &[]).await;
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 9) };
    let (first, second) = (world.engine.execute(wait.clone()), world.engine.execute(wait));
    let publish = async {
        // Publishing goes through the same queue, so both wait by then.
        world.publish("t", message("a")).await;
        world.publish("t", message("b")).await;
    };
    let (first, second, ()) = tokio::join!(first, second, publish);
    assert_eq!(texts(&first.unwrap()), ["a"]);
    assert_eq!(texts(&second.unwrap()), ["b"]);
}

pub(crate) async fn a_waiting_consumer_is_served_by_a_retry<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &["a"]).await;
    world.receive("t", "g", 9).await;
    let wait = Receive { wait: Duration::from_secs(120), ..receive("t", "g", 9) };
    let waiting = world.engine.execute(wait);
    let (delivery, ()) = tokio::join!(waiting, async {
        world.engine.wake().await;
        world.pass(Duration::from_secs(31)).await;
    });
    assert_eq!(delivery.unwrap()[0].receipt.attempt, 2);
}

pub(crate) async fn patience_ends<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &[]).await;
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 9) };
    let waiting = world.engine.execute(wait);
    let (deliveries, ()) = tokio::join!(waiting, async {
        // The consumer's turn comes before the clock moves.
        world.engine.wake().await;
        world.pass(Duration::from_secs(21)).await;
    });
    assert_eq!(deliveries.unwrap(), []);
}

pub(crate) async fn extending_keeps_a_message<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &["a"]).await;
    let delivery = world.receive("t", "g", 1).await.remove(0);
    world.pass(Duration::from_secs(20)).await;
    let (topic, group) = group_of("t");
    let lease = Some(Duration::from_secs(60));
    let extend = Extend { topic, group, receipts: vec![delivery.receipt], lease };
    assert_eq!(world.run(extend).await, [Ok(start() + Duration::from_secs(80))]);
    world.pass(Duration::from_secs(59)).await;
    assert!(world.receive("t", "g", 1).await.is_empty());
    world.settle("t", "g", &delivery, Verdict::Ack).await;
}

pub(crate) async fn a_paused_group_stands_still<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &["a"]).await;
    let pause = |paused| {
        let (topic, group) = group_of("t");
        world.run(Pause { topic, group, paused })
    };
    pause(true).await;
    assert!(status(world).await.paused);
    assert!(world.receive("t", "g", 1).await.is_empty());
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 9) };
    let (deliveries, ()) = tokio::join!(world.engine.execute(wait), pause(false));
    assert_eq!(texts(&deliveries.unwrap()), ["a"]);
}

pub(crate) async fn seeking_starts_over_from_anywhere<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &["a", "b"]).await;
    world.pass(Duration::from_secs(100)).await;
    world.publish("t", message("c")).await;
    let seen = world.receive("t", "g", 9).await;
    let seek = |to| {
        let (topic, group) = group_of("t");
        world.run(Seek { topic, group, to })
    };
    seek(From::Time(start() + Duration::from_secs(1))).await;
    assert!(world.run(settle("t", "g", &seen[0], Verdict::Ack)).await[0].is_err());
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["c"]);
    seek(From::Position(2)).await;
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["b", "c"]);
    seek(From::Next).await;
    assert_eq!(status(world).await.lag, 0);
    seek(From::First).await;
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["a", "b", "c"]);
}

pub(crate) async fn limits_of_one_receive_hold<E: TestEngine>(world: &World<E>) {
    let config = Config { in_flight_max: 3, exceptions_max: 3, ..Config::default() };
    with_messages(world, config, &["a", "b", "c", "d"]).await;
    assert_eq!(world.receive("t", "g", 0).await, []);
    let first = world.receive("t", "g", 9).await;
    assert_eq!(texts(&first), ["a", "b", "c"]);
    assert!(world.receive("t", "g", 9).await.is_empty());
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 9) };
    let (next, ()) =
        tokio::join!(world.engine.execute(wait), world.settle("t", "g", &first[1], Verdict::Ack));
    assert_eq!(texts(&next.unwrap()), ["d"]);

    world.topic("big", Settings::default()).await;
    world.group("big", "g", Config::default()).await;
    let large = NewMessage { payload: Some(Bytes::from(vec![1; 1 << 20])), ..message("") };
    for _ in 0..6 {
        world.publish("big", large.clone()).await;
    }
    assert_eq!(world.receive("big", "g", 9).await.len(), 4, "4 MiB");
}

pub(crate) async fn a_group_can_be_changed_and_removed<E: TestEngine>(world: &World<E>) {
    with_messages(world, Config::default(), &["a"]).await;
    world.receive("t", "g", 9).await;
    world.group("t", "g", Config { attempts: 1, ..Config::default() }).await;
    world.pass(Duration::from_secs(30)).await;
    assert!(world.receive("t", "g", 9).await.is_empty());
    assert_eq!(status(world).await.dead, 1, "the new limit holds for what is out");
    let (topic, group) = group_of("t");
    let ordered = Config { ordered: true, ..Config::default() };
    let put = PutGroup { topic, group, config: ordered, from: From::First };
    assert_eq!(world.fails(put).await.code(), "SV0411");
    assert_eq!(world.run(ListGroups { topic: None }).await.len(), 1);
    let (topic, group) = group_of("t");
    world.run(DeleteGroup { topic, group }).await;
    assert_eq!(world.fails(receive("t", "g", 1)).await.code(), "SV0410");
    world.group("t", "g", Config::default()).await;
    assert_eq!(letters(world).await, []);
    assert_eq!(texts(&world.receive("t", "g", 9).await), ["a"]);
}

pub(crate) async fn what_is_released_costs_no_attempt<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", Config { attempts: 2, ordered: true, ..Config::default() }).await;
    world.publish("t", keyed("k", "a")).await;
    world.publish("t", keyed("k", "b")).await;
    for _ in 0..5 {
        let held = world.receive("t", "g", 9).await.remove(0);
        assert_eq!((held.receipt.attempt, held.receipt.position), (1, 1));
        let after = Duration::from_secs(3);
        world.settle("t", "g", &held, Verdict::Release { after }).await;
        assert!(world.run(settle("t", "g", &held, Verdict::Ack)).await[0].is_err(), "stale");
        assert_eq!(texts(&world.receive("t", "g", 9).await), [] as [&str; 0], "its key waits too");
        world.pass(after).await;
    }
    let held = world.receive("t", "g", 9).await.remove(0);
    world.settle("t", "g", &held, Verdict::Retry { after: Some(Duration::ZERO) }).await;
    assert_eq!(world.receive("t", "g", 9).await[0].receipt.attempt, 2);
    let late = Verdict::Release { after: Duration::from_secs(400 * 86_400) };
    assert_eq!(world.fails(settle("t", "g", &held, late)).await.code(), "SV0413");
}

async fn seek_to_the_start<E: TestEngine>(world: &World<E>) {
    let (topic, group) = group_of("t");
    world.run(Seek { topic, group, to: From::First }).await;
}

async fn redrive<E: TestEngine>(world: &World<E>) -> u64 {
    let (topic, group) = group_of("t");
    world.run(Redrive { topic, group, positions: Vec::new() }).await
}

pub(crate) async fn letters_come_back_after_a_seek_too<E: TestEngine>(world: &World<E>) {
    let config = Config { ordered: true, ..Config::default() };
    with_messages(world, config, &["a1", "a2"]).await;
    let first = world.receive("t", "g", 1).await.remove(0);
    world.settle("t", "g", &first, Verdict::Park).await;
    assert!(world.receive("t", "g", 9).await.is_empty());
    assert_eq!(letters(world).await.len(), 2);
    seek_to_the_start(world).await;
    assert!(world.receive("t", "g", 9).await.is_empty(), "the key is parked still");
    assert_eq!(redrive(world).await, 2);
    for text in ["a1", "a2"] {
        let next = world.receive("t", "g", 9).await;
        assert_eq!(texts(&next), [text]);
        world.settle("t", "g", &next[0], Verdict::Ack).await;
    }
    assert_eq!((status(world).await.lag, letters(world).await.len()), (0, 0));
}

pub(crate) async fn a_letter_of_what_is_being_worked_on_comes_back_once<E: TestEngine>(
    world: &World<E>,
) {
    let config = Config { in_flight_max: 1, exceptions_max: 2, ..Config::default() };
    with_messages(world, config, &["a", "b"]).await;
    let first = world.receive("t", "g", 1).await.remove(0);
    world.settle("t", "g", &first, Verdict::Park).await;
    seek_to_the_start(world).await;
    let again = world.receive("t", "g", 1).await.remove(0);
    redrive(world).await;
    world.settle("t", "g", &again, Verdict::Ack).await;
    assert!(letters(world).await.is_empty(), "it was done");
    let next = world.receive("t", "g", 9).await;
    assert_eq!(texts(&next), ["b"], "the place of the first is free again");
}

pub(crate) async fn a_long_line_behind_a_parked_key_holds_up_nobody<E: TestEngine>(
    world: &World<E>,
) {
    let config = Config { ordered: true, ..Config::default() };
    with_messages(world, config, &["a"]).await;
    let first = world.receive("t", "g", 1).await.remove(0);
    world.settle("t", "g", &first, Verdict::Park).await;
    let many = vec![keyed("a", "behind"); 1_500];
    for _ in 0..2 {
        world.run(Publish { topic: "t".to_owned(), messages: many.clone() }).await;
    }
    world.publish("t", keyed("b", "other")).await;
    assert!(world.receive("t", "g", 1).await.is_empty(), "one look goes only so far");
    // Whoever waits is served in the end, with no further word from anybody.
    let wait = Receive { wait: Duration::from_secs(20), ..receive("t", "g", 1) };
    assert_eq!(texts(&world.run(wait).await), ["other"]);
    assert_eq!(status(world).await.dead, 3_001);
}
