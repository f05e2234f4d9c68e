use std::sync::atomic::{AtomicBool, Ordering};

use selvedge_durable::{
    projection::{
        Failure, FollowError, Follower, Poison, Projection, ReadModel, Record, Settings as Keeping,
        Source, StateError, StateModel, Subscription, View, Views,
    },
    stream::{Append, Expected, NewEvent, Write},
};
use selvedge_patterns::random::{Rng, SplitMix64};

use super::*;

cases!(
    projections,
    a_view_and_its_position_change_together,
    any_source_is_read_from_a_position,
    a_subscription_waits_for_what_comes,
    poison_stops_a_projection_until_it_is_mended,
    poison_is_parked_with_its_key_and_taken_back,
    poison_is_skipped_and_noted,
    too_much_aside_stops_a_projection,
    followers_that_meet_count_everything_once,
    a_follower_dropped_anywhere_counts_everything_once,
    a_generation_is_built_beside_the_old_one_and_switched,
    one_reads_ones_own_write,
    a_view_in_ones_own_database_does_the_same,
);

/// Sums by stream, and in all; an event of type `bad` cannot be taken in.
struct Sums {
    forgiving: AtomicBool,
}

impl Sums {
    const fn new() -> Self {
        Self { forgiving: AtomicBool::new(false) }
    }
}

impl Projection for &Sums {
    async fn project<E: Engine>(
        &self,
        record: &Record,
        view: &mut View<'_, E>,
    ) -> Result<(), Failure> {
        let (kind, data) = match (record.event(), record.message()) {
            (Some(event), _) => (&event.kind[..], &event.data),
            (_, Some(message)) => ("message", message.payload.as_ref().unwrap()),
            _ => unreachable!("it is one or the other"),
        };
        let amount: u64 = std::str::from_utf8(data).unwrap().parse().unwrap();
        for key in [&format!("of/{}", record.key())[..], "all"] {
            let sum = view.get::<u64>(key).await?.unwrap_or(0);
            view.put(key, &(sum + amount))?;
        }
        if kind == "close" {
            view.delete(&format!("of/{}", record.key()));
            view.delete("never there");
        }
        // After it has written: what it wrote must not stay.
        if kind == "bad" && !self.forgiving.load(Ordering::SeqCst) {
            return Err(Failure::Poison("it is bad".to_owned()));
        }
        Ok(())
    }
}

static SUMS: Sums = Sums::new();

async fn open<E: TestEngine>(
    world: &World<E>,
    generation: &str,
    sums: &'static Sums,
    poison: Poison,
) -> StateModel<E, &'static Sums> {
    let settings = Keeping { poison, ..Keeping::default() };
    StateModel::open(world.engine.clone(), "sums", generation, sums, settings).await.unwrap()
}

fn follower<E: TestEngine>(world: &World<E>) -> Follower<E> {
    Follower::new(world.engine.clone(), Source::Events).polling(Duration::from_millis(1))
}

fn views<E: TestEngine>(world: &World<E>) -> Views<E> {
    Views::new(world.engine.clone(), "sums")
}

async fn append<E: TestEngine>(world: &World<E>, stream: &str, kind: &str, amount: u64) -> u64 {
    let data = Bytes::from(amount.to_string());
    let event = NewEvent { kind: kind.to_owned(), data, ..NewEvent::default() };
    let write = Write { stream: stream.to_owned(), expected: Expected::Any, events: vec![event] };
    world.run(Append { writes: vec![write] }).await.position
}

async fn sum<E: TestEngine>(world: &World<E>, key: &str) -> Option<u64> {
    views(world).get(key).await.unwrap()
}

async fn status<E: TestEngine>(world: &World<E>) -> Vec<(String, bool, u64, u64)> {
    let all = views(world).status(&Source::Events).await.unwrap();
    all.into_iter().map(|one| (one.generation, one.active, one.position, one.lag)).collect()
}

pub(crate) async fn a_view_and_its_position_change_together<E: TestEngine>(world: &World<E>) {
    for (stream, amount) in [("a", 1), ("b", 2), ("a", 4)] {
        append(world, stream, "paid", amount).await;
    }
    let mut model = open(world, "v1", &SUMS, Poison::Stop).await;
    assert_eq!(status(world).await, [("v1".to_owned(), true, 0, 3)], "the lag can be seen");
    assert_eq!(follower(world).batch(2).catch_up(&mut model).await.unwrap(), 3);
    assert_eq!(status(world).await, [("v1".to_owned(), true, 3, 0)]);
    let all: Vec<(String, u64)> = views(world).list("of/", "", 10).await.unwrap();
    assert_eq!(all, [("of/a".to_owned(), 5), ("of/b".to_owned(), 2)]);
    assert_eq!(views(world).list::<u64>("of/", "of/a", 10).await.unwrap().len(), 1);
    append(world, "a", "close", 0).await;
    follower(world).catch_up(&mut model).await.unwrap();
    assert_eq!((sum(world, "of/a").await, sum(world, "all").await), (None, Some(7)));
    for name in ["", "a/b", &"x".repeat(65)] {
        let engine = world.engine.clone();
        let no = StateModel::open(engine, name, "v1", &SUMS, Keeping::default()).await;
        assert_eq!(no.err().map(|error| error.code()), Some("SV0413"), "{name}");
    }
}

pub(crate) async fn any_source_is_read_from_a_position<E: TestEngine>(world: &World<E>) {
    world.topic("t", Settings::default()).await;
    for n in 0..3 {
        append(world, "s", "paid", n).await;
        append(world, "other", "paid", n).await;
        world.publish("t", keyed("k", &n.to_string())).await;
    }
    let stream = Source::Stream("s".to_owned());
    for (source, head, positions) in [
        (Source::Events, 6, vec![3, 4, 5, 6]),
        (stream, 3, vec![3]),
        (Source::Topic("t".to_owned()), 3, vec![3]),
    ] {
        assert_eq!(source.head(&world.engine).await.unwrap(), head, "{source:?}");
        let mut news = Subscription::new(world.engine.clone(), source.clone(), 2);
        let mut found = Vec::new();
        while let Some(record) = news.ready(1).await.unwrap().pop() {
            found.push(record.position);
        }
        assert_eq!(found, positions, "{source:?}");
        assert_eq!(news.position(), head);
    }
    let nothing = Source::Stream("nothing".to_owned());
    assert_eq!(nothing.head(&world.engine).await.unwrap(), 0);
    assert_eq!(nothing.read(&world.engine, 0, 9).await.unwrap(), []);
}

pub(crate) async fn a_subscription_waits_for_what_comes<E: TestEngine>(world: &World<E>) {
    let news = Subscription::new(world.engine.clone(), Source::Stream("s".to_owned()), 0);
    let mut news = news.polling(Duration::from_millis(1));
    let waiting = tokio::spawn(async move { news.next(10).await.map(|records| records.len()) });
    tokio::task::yield_now().await;
    append(world, "other", "paid", 1).await;
    append(world, "s", "paid", 1).await;
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
}

pub(crate) async fn poison_stops_a_projection_until_it_is_mended<E: TestEngine>(world: &World<E>) {
    static SUMS: Sums = Sums::new();
    for (kind, amount) in [("paid", 1), ("bad", 2), ("paid", 4)] {
        append(world, "a", kind, amount).await;
    }
    let mut model = open(world, "v1", &SUMS, Poison::Stop).await;
    for _ in 0..2 {
        let error = follower(world).run(&mut model, std::future::pending()).await.unwrap_err();
        let FollowError::Model(StateError::Stopped(stopped)) = error else { panic!("{error}") };
        assert_eq!((stopped.position, &stopped.reason[..]), (2, "it is bad"));
    }
    let seen = views(world).status(&Source::Events).await.unwrap().remove(0);
    assert_eq!((seen.position, seen.lag, seen.stopped.unwrap().position), (1, 2, 2));
    assert_eq!(sum(world, "all").await, Some(1), "what was before it is there, nothing of it is");
    SUMS.forgiving.store(true, Ordering::SeqCst);
    follower(world).catch_up(&mut model).await.unwrap();
    assert_eq!(sum(world, "all").await, Some(7));
    let seen = views(world).status(&Source::Events).await.unwrap().remove(0);
    assert_eq!((seen.stopped, seen.lag), (None, 0));
}

pub(crate) async fn poison_is_parked_with_its_key_and_taken_back<E: TestEngine>(world: &World<E>) {
    static SUMS: Sums = Sums::new();
    for (stream, kind, amount) in
        [("a", "paid", 1), ("a", "bad", 2), ("b", "paid", 4), ("a", "paid", 8), ("b", "bad", 16)]
    {
        append(world, stream, kind, amount).await;
    }
    let mut model = open(world, "v1", &SUMS, Poison::Park).await;
    follower(world).batch(3).catch_up(&mut model).await.unwrap();
    assert_eq!((sum(world, "of/a").await, sum(world, "of/b").await), (Some(1), Some(4)));
    let seen = views(world).status(&Source::Events).await.unwrap().remove(0);
    assert_eq!((seen.position, seen.parked), (5, 3), "the third of `a` waits behind its second");
    assert_eq!(model.retry_parked(&Source::Events).await.unwrap(), 3, "nothing has changed");
    assert_eq!(sum(world, "all").await, Some(5));
    SUMS.forgiving.store(true, Ordering::SeqCst);
    assert_eq!(model.retry_parked(&Source::Events).await.unwrap(), 0);
    assert_eq!((sum(world, "of/a").await, sum(world, "of/b").await), (Some(11), Some(20)));
    append(world, "a", "paid", 32).await;
    follower(world).catch_up(&mut model).await.unwrap();
    assert_eq!((sum(world, "of/a").await, sum(world, "all").await), (Some(43), Some(63)));
}

pub(crate) async fn poison_is_skipped_and_noted<E: TestEngine>(world: &World<E>) {
    for (kind, amount) in [("paid", 1), ("bad", 2), ("paid", 4)] {
        append(world, "a", kind, amount).await;
    }
    let mut model = open(world, "v1", &SUMS, Poison::Skip).await;
    follower(world).catch_up(&mut model).await.unwrap();
    assert_eq!(sum(world, "all").await, Some(5));
    let seen = views(world).status(&Source::Events).await.unwrap().remove(0);
    assert_eq!((seen.position, seen.skipped, seen.parked), (3, 1, 0));
    let key = format!("projection/sums/v1/skipped/{:020}", 2);
    let note = world.run(selvedge_durable::state::GetState { key }).await;
    assert!(String::from_utf8_lossy(&note.value).contains("it is bad"));
}

pub(crate) async fn too_much_aside_stops_a_projection<E: TestEngine>(world: &World<E>) {
    for _ in 0..3 {
        append(world, "a", "bad", 1).await;
    }
    let settings = Keeping { poison: Poison::Skip, aside_max: 2, ..Keeping::default() };
    let engine = world.engine.clone();
    let mut model = StateModel::open(engine, "sums", "v1", &SUMS, settings).await.unwrap();
    let error = follower(world).catch_up(&mut model).await.unwrap_err();
    assert!(error.to_string().contains("2 records are aside already: it is bad"), "{error}");
    let seen = views(world).status(&Source::Events).await.unwrap().remove(0);
    assert_eq!((seen.position, seen.skipped), (2, 2));
}

pub(crate) async fn followers_that_meet_count_everything_once<E: TestEngine>(world: &World<E>) {
    let mut followers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut model = open(world, "v1", &SUMS, Poison::Stop).await;
        let follower = follower(world).batch(3);
        followers.spawn(async move { follower.run(&mut model, std::future::pending()).await });
    }
    let (mut total, mut last) = (0, 0);
    for n in 1..=60 {
        last = append(world, &format!("s{}", n % 4), "paid", n).await;
        total += n;
    }
    assert!(views(world).wait_for(last, Duration::from_secs(30)).await.unwrap());
    assert_eq!(sum(world, "all").await, Some(total));
    assert!(followers.try_join_next().is_none(), "all of them go on");
}

/// Ends a future at a random point of its way; its requests may be under way.
async fn cut<F: Future>(future: F, polls: u64) {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        left = left.saturating_sub(1);
        match future.as_mut().poll(context) {
            std::task::Poll::Pending if left > 0 => std::task::Poll::Pending,
            _ => std::task::Poll::Ready(()),
        }
    })
    .await;
}

pub(crate) async fn a_follower_dropped_anywhere_counts_everything_once<E: TestEngine>(
    world: &World<E>,
) {
    let mut rng = SplitMix64::new(11);
    let (mut total, mut last) = (0, 0);
    for round in 0..40 {
        for n in 0..1 + rng.below(5) {
            last = append(world, &format!("s{}", rng.below(3)), "paid", n + 1).await;
            total += n + 1;
        }
        let mut model = open(world, "v1", &SUMS, Poison::Stop).await;
        let follower = follower(world).batch(1 + round % 3);
        cut(follower.run(&mut model, std::future::pending()), 1 + rng.below(12)).await;
    }
    let mut model = open(world, "v1", &SUMS, Poison::Stop).await;
    follower(world)
        .run(&mut model, async {
            views(world).wait_for(last, Duration::from_secs(30)).await.unwrap();
        })
        .await
        .unwrap();
    assert_eq!(sum(world, "all").await, Some(total));
}

pub(crate) async fn a_generation_is_built_beside_the_old_one_and_switched<E: TestEngine>(
    world: &World<E>,
) {
    for amount in [1, 2, 4] {
        append(world, "a", "paid", amount).await;
    }
    let mut old = open(world, "v1", &SUMS, Poison::Stop).await;
    follower(world).catch_up(&mut old).await.unwrap();
    let mut new = open(world, "v2", &SUMS, Poison::Stop).await;
    let (views, source) = (views(world), Source::Events);
    let early = views.switch(&source, "v2", 0).await.unwrap_err();
    assert!(early.to_string().contains("is 3 behind, 0 are allowed"), "{early}");
    assert_eq!(views.active().await.unwrap(), "v1");
    assert_eq!(sum(world, "all").await, Some(7), "the old one is read meanwhile");
    follower(world).catch_up(&mut new).await.unwrap();
    assert_eq!(views.remove("v1").await.unwrap_err().code(), "SV0413", "it is read");
    views.switch(&source, "v2", 0).await.unwrap();
    append(world, "a", "paid", 8).await;
    follower(world).catch_up(&mut new).await.unwrap();
    assert_eq!(
        (views.active().await.unwrap(), sum(world, "all").await),
        ("v2".to_owned(), Some(15))
    );
    let stands = [("v1".to_owned(), false, 3, 1), ("v2".to_owned(), true, 4, 0)];
    assert_eq!(status(world).await, stands);
    views.remove("v1").await.unwrap();
    assert_eq!(status(world).await, stands[1..]);
    let list = |prefix: &str| selvedge_durable::state::ListState {
        prefix: prefix.to_owned(),
        after: String::new(),
        max: 10,
    };
    assert_eq!(world.run(list("view/sums/v1/")).await, []);
    assert!(follower(world).catch_up(&mut old).await.is_err(), "who follows for it stops");
    assert_eq!(world.run(list("view/sums/v1/")).await, []);
    let unknown = views.switch(&source, "v3", 0).await.unwrap_err();
    assert_eq!(unknown.code(), "SV0410");
}

pub(crate) async fn one_reads_ones_own_write<E: TestEngine>(world: &World<E>) {
    let mut model = open(world, "v1", &SUMS, Poison::Stop).await;
    let position = append(world, "a", "paid", 3).await;
    let views = views(world);
    assert!(!views.wait_for(position, Duration::from_millis(1)).await.unwrap());
    let follower = follower(world);
    let running =
        tokio::spawn(async move { follower.run(&mut model, std::future::pending()).await });
    assert!(views.wait_for(position, Duration::from_secs(30)).await.unwrap());
    assert_eq!(sum(world, "of/a").await, Some(3));
    running.abort();
    let missing = Views::new(world.engine.clone(), "nothing");
    assert_eq!(missing.get::<u64>("x").await.unwrap_err().code(), "SV0410");
}

/// A view in a database of its own, with its position in a table beside it.
struct Own(rusqlite::Connection);

impl ReadModel for Own {
    type Error = rusqlite::Error;

    async fn position(&mut self) -> Result<u64, rusqlite::Error> {
        self.0
            .query_row("SELECT position FROM progress", [], |row| row.get::<_, i64>(0))
            .map(|position| position as u64)
    }

    async fn apply(&mut self, records: &[Record]) -> Result<(), rusqlite::Error> {
        let tx = self.0.transaction()?;
        for record in records {
            let event = record.event().unwrap();
            let amount: i64 = std::str::from_utf8(&event.data).unwrap().parse().unwrap();
            tx.execute(
                "INSERT INTO sums VALUES (?1, ?2) ON CONFLICT DO UPDATE SET sum = sum + ?2",
                rusqlite::params![event.stream, amount],
            )?;
            tx.execute("UPDATE progress SET position = ?1", [record.position as i64])?;
        }
        tx.commit()
    }
}

pub(crate) async fn a_view_in_ones_own_database_does_the_same<E: TestEngine>(world: &World<E>) {
    let conn = rusqlite::Connection::open_in_memory().unwrap();
    conn.execute_batch(
        "CREATE TABLE sums (stream TEXT PRIMARY KEY, sum INTEGER);
         CREATE TABLE progress (position INTEGER); INSERT INTO progress VALUES (0);",
    )
    .unwrap();
    let mut own = Own(conn);
    for amount in [1, 2, 4, 8] {
        append(world, "a", "paid", amount).await;
        assert!(follower(world).batch(1).catch_up(&mut own).await.is_ok());
    }
    append(world, "b", "paid", 1).await;
    // The table is gone for a moment: nothing of the batch is taken in.
    own.0.execute_batch("ALTER TABLE sums RENAME TO away").unwrap();
    assert!(matches!(follower(world).catch_up(&mut own).await, Err(FollowError::Model(_))));
    own.0.execute_batch("ALTER TABLE away RENAME TO sums").unwrap();
    assert_eq!(follower(world).catch_up(&mut own).await.unwrap(), 5);
    let sum: i64 =
        own.0.query_row("SELECT sum FROM sums WHERE stream = 'a'", [], |row| row.get(0)).unwrap();
    assert_eq!(sum, 15);
}
