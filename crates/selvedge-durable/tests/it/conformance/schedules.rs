use selvedge_durable::{
    schedule::{DeleteSchedule, ListSchedules, Missed, Overlap, PutSchedule},
    topic::{Message, ReadTopic},
};

use super::*;

cases!(
    schedules,
    a_schedule_runs_at_each_due_time,
    a_run_is_left_out_while_the_one_before_goes_on,
    queued_runs_carry_the_schedules_name_as_key,
    a_missed_run_happens_once,
    fields_are_meant_in_their_zone,
    what_cannot_be_scheduled_is_refused,
    a_schedule_whose_topic_is_gone_harms_nobody,
    putting_a_schedule_again_loses_no_missed_run,
);

fn every_minute(overlap: Overlap) -> PutSchedule {
    PutSchedule {
        name: "s".to_owned(),
        spec: "* * * * *".to_owned(),
        zone: "UTC".to_owned(),
        overlap,
        missed: Missed::default(),
        topic: "t".to_owned(),
        message: message("run"),
    }
}

async fn runs<E: TestEngine>(world: &World<E>) -> Vec<Message> {
    world.run(ReadTopic { topic: "t".to_owned(), from: From::First, max: 1000 }).await
}

fn due(message: &Message) -> u64 {
    let header = message.headers.iter().find(|(name, _)| name == "selvedge-due").unwrap();
    header.1.parse().unwrap()
}

pub(crate) async fn a_schedule_runs_at_each_due_time<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.run(every_minute(Overlap::Skip)).await;
    for _ in 0..5 {
        world.pass(Duration::from_secs(60)).await;
    }
    let runs = runs(world).await;
    let times: Vec<_> = runs.iter().map(due).collect();
    let start = start().as_micros();
    assert_eq!(times, [1, 2, 3, 4, 5].map(|minute| start + minute * 60_000_000));
    // The same schedule again changes nothing, and takes no run twice.
    let schedule = world.run(every_minute(Overlap::Skip)).await;
    assert_eq!(schedule.next.map(Wall::as_micros), Some(start + 6 * 60_000_000));
    let listed = world.run(ListSchedules).await;
    assert_eq!((listed.len(), listed[0].last), (1, Some(5)));
    world.run(DeleteSchedule { name: "s".to_owned() }).await;
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(self::runs(world).await.len(), 5);
    assert_eq!(world.fails(DeleteSchedule { name: "s".to_owned() }).await.code(), "SV0410");
}

pub(crate) async fn a_run_is_left_out_while_the_one_before_goes_on<E: TestEngine>(
    world: &World<E>,
) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", Config { lease: Duration::from_secs(3600), ..Config::default() }).await;
    world.run(every_minute(Overlap::Skip)).await;
    world.pass(Duration::from_secs(60)).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(runs(world).await.len(), 1, "nobody has taken the first");
    let delivery = world.receive("t", "g", 9).await.remove(0);
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(runs(world).await.len(), 1, "the first is being worked on");
    world.settle("t", "g", &delivery, Verdict::Ack).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(runs(world).await.len(), 2);
    world.run(every_minute(Overlap::Allow)).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(runs(world).await.len(), 3);
}

pub(crate) async fn queued_runs_carry_the_schedules_name_as_key<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.group("t", "g", Config { ordered: true, ..Config::default() }).await;
    world.run(every_minute(Overlap::Queue)).await;
    world.pass(Duration::from_secs(60)).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(runs(world).await[1].key.as_deref(), Some("s"));
    assert_eq!(world.receive("t", "g", 9).await.len(), 1, "one after another");
}

pub(crate) async fn a_missed_run_happens_once<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.run(every_minute(Overlap::Allow)).await;
    world.pass(Duration::from_secs(1800)).await;
    let times: Vec<_> = runs(world).await.iter().map(due).collect();
    assert_eq!(times, [start().as_micros() + 1_800_000_000]);
    world
        .run(PutSchedule { missed: Missed::All { limit: 3 }, ..every_minute(Overlap::Allow) })
        .await;
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(runs(world).await.len(), 4);
    world.run(PutSchedule { missed: Missed::Skip, ..every_minute(Overlap::Allow) }).await;
    world.pass(Duration::from_secs(630)).await;
    assert_eq!(runs(world).await.len(), 4);
}

pub(crate) async fn fields_are_meant_in_their_zone<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    // The world begins at 2027-01-15 08:00 UTC, which is 03:00 in New York.
    let daily = PutSchedule {
        spec: "0 4 * * *".to_owned(),
        zone: "America/New_York".to_owned(),
        ..every_minute(Overlap::Allow)
    };
    let next = world.run(daily.clone()).await.next.unwrap();
    assert_eq!(next, start() + Duration::from_secs(3600));
    let tokyo = PutSchedule { zone: "Asia/Tokyo".to_owned(), ..daily };
    let next = world.run(tokyo).await.next.unwrap();
    assert_eq!(next, start() + Duration::from_secs(11 * 3600), "04:00 of the 16th");
}

pub(crate) async fn what_cannot_be_scheduled_is_refused<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    let good = every_minute(Overlap::Skip);
    for (bad, code) in [
        (PutSchedule { spec: "60 * * * *".to_owned(), ..good.clone() }, "SV0413"),
        (PutSchedule { zone: "Mars/Base".to_owned(), ..good.clone() }, "SV0413"),
        (PutSchedule { topic: "nowhere".to_owned(), ..good.clone() }, "SV0410"),
        (PutSchedule { name: String::new(), ..good }, "SV0413"),
    ] {
        assert_eq!(world.fails(bad).await.code(), code);
    }
}

pub(crate) async fn a_schedule_whose_topic_is_gone_harms_nobody<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.topic("u", Settings::default()).await;
    world.run(every_minute(Overlap::Skip)).await;
    world
        .run(PutSchedule {
            name: "u".to_owned(),
            topic: "u".to_owned(),
            ..every_minute(Overlap::Skip)
        })
        .await;
    world.run(selvedge_durable::topic::DeleteTopic { name: "t".to_owned() }).await;
    world.pass(Duration::from_secs(60)).await;
    let read = ReadTopic { topic: "u".to_owned(), from: From::First, max: 9 };
    assert_eq!(world.run(read).await.len(), 1);
}

pub(crate) async fn putting_a_schedule_again_loses_no_missed_run<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    world.run(every_minute(Overlap::Skip)).await;
    // Nobody was there when it was due, and the program says it again at its start.
    world.clock.advance(Duration::from_secs(90));
    world.run(every_minute(Overlap::Skip)).await;
    world.engine.wake().await;
    let times: Vec<_> = runs(world).await.iter().map(due).collect();
    assert_eq!(times, [start().as_micros() + 60_000_000]);
}
