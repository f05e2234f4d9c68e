use std::collections::{BTreeMap, BTreeSet};

use selvedge_durable::{
    aggregate::{Aggregate, Config as Keeping, Context, ExecuteError, Repository},
    event::{Events, Metadata, Upcast},
    stream::{Append, Event, Expected, GetSnapshot, NewEvent, PutSnapshot, ReadEvents, Write},
};
use selvedge_patterns::random::{Rng, SplitMix64};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;

cases!(
    aggregates,
    a_command_is_decided_on_what_happened,
    a_repeated_command_gets_the_first_result,
    the_same_command_sent_at_once_happens_once,
    a_snapshot_saves_reading_and_changes_nothing,
    a_snapshot_of_another_shape_or_age_is_not_taken,
    commands_that_meet_are_decided_on_the_truth,
    several_aggregates_change_together_or_not,
    events_of_earlier_schemas_are_brought_to_this_one,
    an_event_of_a_later_schema_is_refused,
    what_the_sender_believes_is_checked,
    causes_are_kept_with_the_events,
    the_past_can_be_looked_at,
);

/// An account that is never overdrawn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Account {
    balance: u64,
    bookings: u64,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Deposit(u64),
    Withdraw(u64),
    /// Whether the account was ever used, at no cost.
    Look,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Booked {
    Deposited { cents: u64 },
    Withdrawn { cents: u64 },
    Closed,
}

impl Events for Booked {
    const UPCASTS: &'static [Upcast] = &[
        // First a bare number of euros, then an object of euros, now cents.
        Upcast { kind: "Deposited", from: 1, step: |old| Ok(json!({ "euros": old })) },
        Upcast {
            kind: "Deposited",
            from: 2,
            step: |old| {
                let euros = old["euros"].as_u64().ok_or("`euros` is no number")?;
                Ok(json!({ "cents": euros * 100 }))
            },
        },
    ];
}

impl Aggregate for Account {
    const KIND: &'static str = "account";
    type Command = Command;
    type Event = Booked;
    type Rejection = &'static str;

    fn decide(&self, command: &Command) -> Result<Vec<Booked>, &'static str> {
        match *command {
            Command::Deposit(cents) => Ok(vec![Booked::Deposited { cents }]),
            Command::Withdraw(cents) if cents > self.balance => Err("not enough"),
            Command::Withdraw(cents) => Ok(vec![Booked::Withdrawn { cents }]),
            Command::Look => Ok(Vec::new()),
        }
    }

    fn evolve(self, event: &Booked) -> Self {
        let balance = match event {
            Booked::Deposited { cents } => self.balance + cents,
            Booked::Withdrawn { cents } => self.balance - cents,
            Booked::Closed => 0,
        };
        Self { balance, bookings: self.bookings + 1 }
    }
}

fn accounts<E: TestEngine>(world: &World<E>) -> Repository<E, Account> {
    Repository::new(world.engine.clone())
}

fn keeping(every: u64) -> Keeping {
    Keeping { snapshot_every: Some(every), ..Keeping::default() }
}

fn named(command: &str) -> Context {
    Context { command: Some(command.to_owned()), ..Context::default() }
}

async fn all_events<E: TestEngine>(world: &World<E>) -> Vec<Event> {
    world.run(ReadEvents { after: 0, max: 10_000 }).await
}

pub(crate) async fn a_command_is_decided_on_what_happened<E: TestEngine>(world: &World<E>) {
    let accounts = accounts(world);
    let context = Context::default();
    assert_eq!(accounts.load("a").await.unwrap().version, None);
    let done = accounts.execute("a", &Command::Deposit(500), &context).await.unwrap();
    assert_eq!((done.position, done.changes[0].version), (1, Some(0)));
    let no = accounts.execute("a", &Command::Withdraw(501), &context).await;
    assert!(matches!(no, Err(ExecuteError::Rejected("not enough"))), "{no:?}");
    accounts.execute("a", &Command::Withdraw(500), &context).await.unwrap();
    let looked = accounts.execute("a", &Command::Look, &context).await.unwrap();
    assert_eq!((looked.position, looked.changes[0].version), (0, Some(1)), "nothing happened");
    let loaded = accounts.load("a").await.unwrap();
    assert_eq!((loaded.state.balance, loaded.version, loaded.replayed), (0, Some(1), 2));
    assert_eq!(all_events(world).await.len(), 2);
}

pub(crate) async fn a_repeated_command_gets_the_first_result<E: TestEngine>(world: &World<E>) {
    let accounts = accounts(world);
    let first = accounts.execute("a", &Command::Deposit(500), &named("c1")).await.unwrap();
    let withdrawn = accounts.execute("a", &Command::Withdraw(500), &named("c2")).await.unwrap();
    for (command, name, before) in
        [(Command::Deposit(500), "c1", &first), (Command::Withdraw(500), "c2", &withdrawn)]
    {
        // The second could not even be done again.
        let again = accounts.execute("a", &command, &named(name)).await.unwrap();
        assert!(again.repeated && !before.repeated);
        assert_eq!((again.position, &again.changes), (before.position, &before.changes));
    }
    let looked = accounts.execute("a", &Command::Look, &named("c3")).await.unwrap();
    accounts.execute("a", &Command::Deposit(1), &Context::default()).await.unwrap();
    let again = accounts.execute("a", &Command::Look, &named("c3")).await.unwrap();
    assert_eq!((again.repeated, again.changes), (true, looked.changes), "the version of then");
    let other = accounts.execute("b", &Command::Deposit(7), &named("c1")).await.unwrap();
    assert!(!other.repeated, "names are an aggregate's own");
    world.pass(Keeping::default().remember + Duration::from_secs(1)).await;
    let late = accounts.execute("a", &Command::Deposit(500), &named("c1")).await.unwrap();
    assert!(!late.repeated, "forgotten after its time");
    assert_eq!(accounts.load("a").await.unwrap().state.balance, 501);
}

pub(crate) async fn the_same_command_sent_at_once_happens_once<E: TestEngine>(world: &World<E>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let accounts = accounts(world);
        tasks.spawn(async move {
            let context = named("transfer-1");
            accounts.execute("a", &Command::Deposit(5), &context).await.unwrap()
        });
    }
    let results = tasks.join_all().await;
    assert_eq!(results.iter().filter(|done| !done.repeated).count(), 1);
    assert!(results.iter().all(|done| done.changes == results[0].changes), "{results:?}");
    assert_eq!(all_events(world).await.len(), 1);
}

pub(crate) async fn a_snapshot_saves_reading_and_changes_nothing<E: TestEngine>(world: &World<E>) {
    for seed in 0..6 {
        let mut rng = SplitMix64::new(seed);
        let kept = accounts(world).with(keeping(1 + rng.below(7))).unwrap();
        let bare =
            accounts(world).with(Keeping { snapshot_every: None, ..Keeping::default() }).unwrap();
        let id = format!("s{seed}");
        for _ in 0..40 {
            let cents = rng.below(100);
            let command =
                if rng.below(2) == 0 { Command::Deposit(cents) } else { Command::Withdraw(cents) };
            let through = if rng.below(2) == 0 { &kept } else { &bare };
            let _ = through.execute(&id, &command, &Context::default()).await;
            let (with, without) = (kept.load(&id).await.unwrap(), bare.load(&id).await.unwrap());
            assert_eq!((with.state, with.version), (without.state, without.version), "{seed}");
        }
        assert!(bare.load(&id).await.unwrap().replayed > kept.load(&id).await.unwrap().replayed);
    }
}

pub(crate) async fn a_snapshot_of_another_shape_or_age_is_not_taken<E: TestEngine>(
    world: &World<E>,
) {
    let accounts = accounts(world).with(keeping(2)).unwrap();
    for _ in 0..3 {
        accounts.execute("a", &Command::Deposit(100), &Context::default()).await.unwrap();
    }
    assert_eq!(accounts.load("a").await.unwrap().replayed, 1);
    // The same events, with a state that has a field more.
    let wide = Repository::<_, Wide>::new(world.engine.clone()).with(keeping(2)).unwrap();
    let loaded = wide.load("a").await.unwrap();
    assert_eq!((loaded.replayed, loaded.state.deposits), (3, 3));
    wide.execute("a", &(), &Context::default()).await.unwrap();
    assert_eq!(wide.load("a").await.unwrap().replayed, 0);
    assert_eq!(accounts.load("a").await.unwrap().replayed, 4, "the other shape stands there now");
    // One that says nonsense under the right name is as good as none.
    accounts.execute("a", &Command::Deposit(100), &Context::default()).await.unwrap();
    let (stream, schema) = ("account/a".to_owned(), accounts.shape().to_owned());
    let get = GetSnapshot { stream: stream.clone(), schema: schema.clone() };
    assert!(world.run(get).await.is_some(), "it is kept under this name");
    let data = Bytes::from_static(b"nonsense");
    world.run(PutSnapshot { stream, version: 4, schema, data }).await;
    let loaded = accounts.load("a").await.unwrap();
    assert_eq!((loaded.state.balance, loaded.replayed), (500, 5));
}

/// The account with a field more.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Wide {
    balance: u64,
    deposits: u64,
}

impl Aggregate for Wide {
    const KIND: &'static str = "account";
    type Command = ();
    type Event = Booked;
    type Rejection = &'static str;

    fn decide(&self, (): &()) -> Result<Vec<Booked>, &'static str> {
        Ok(vec![Booked::Deposited { cents: 100 }])
    }

    fn evolve(self, event: &Booked) -> Self {
        match event {
            Booked::Deposited { cents } => {
                Self { balance: self.balance + cents, deposits: self.deposits + 1 }
            }
            Booked::Withdrawn { .. } | Booked::Closed => self,
        }
    }
}

/// Whatever the order in which commands from many sides meet, what stands in
/// the end is what a single clerk would have booked.
pub(crate) async fn commands_that_meet_are_decided_on_the_truth<E: TestEngine>(world: &World<E>) {
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..4 {
        let config = Keeping { attempts: 100, ..keeping(5) };
        let accounts = accounts(world).with(config).unwrap();
        tasks.spawn(async move {
            let (mut rng, mut accepted) = (SplitMix64::new(seed), BTreeSet::new());
            for n in 0..30 {
                let id = |rng: &mut SplitMix64| format!("a{}", rng.below(3));
                let (from, to, cents) = (id(&mut rng), id(&mut rng), 1 + rng.below(50));
                // Every fourth repeats the command before it.
                let name = format!("{seed}.{}", n - n % 4 / 3);
                let (take, give) = (Command::Withdraw(cents), Command::Deposit(cents));
                let commands = match rng.below(3) {
                    0 => vec![(&from[..], &give)],
                    1 => vec![(&from[..], &take)],
                    _ => vec![(&from[..], &take), (&to[..], &give)],
                };
                match accounts.execute_all(&commands, &named(&name)).await {
                    Ok(done) if done.repeated => {}
                    Ok(_) => assert!(accepted.insert((from, name)), "done twice"),
                    Err(ExecuteError::Rejected(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            accepted
        });
    }
    let accepted: BTreeSet<_> = tasks.join_all().await.into_iter().flatten().collect();
    let (mut clerk, mut commands) = (BTreeMap::<String, Account>::new(), BTreeSet::new());
    for event in all_events(world).await {
        let account = clerk.entry(event.stream.clone()).or_default();
        if let Booked::Withdrawn { cents } = event.decode().unwrap() {
            assert!(cents <= account.balance, "{} was overdrawn", event.stream);
        }
        *account = account.clone().evolve(&event.decode().unwrap());
        commands.insert(Metadata::of(&event).command.unwrap());
    }
    let names: BTreeSet<_> = accepted.into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, commands, "accepted and nothing else");
    for (stream, account) in clerk {
        let id = stream.strip_prefix("account/").unwrap();
        assert_eq!(accounts(world).load(id).await.unwrap().state, account, "{id}");
    }
}

pub(crate) async fn several_aggregates_change_together_or_not<E: TestEngine>(world: &World<E>) {
    let accounts = accounts(world);
    let (take, give) = (Command::Withdraw(60), Command::Deposit(60));
    let transfer = [("a", &take), ("b", &give)];
    let no = accounts.execute_all(&transfer, &Context::default()).await;
    assert!(matches!(no, Err(ExecuteError::Rejected("not enough"))));
    assert_eq!(all_events(world).await, []);
    accounts.execute("a", &Command::Deposit(100), &Context::default()).await.unwrap();
    let done = accounts.execute_all(&transfer, &named("t")).await.unwrap();
    let versions: Vec<_> =
        done.changes.iter().map(|change| (&change.id[..], change.version)).collect();
    assert_eq!((versions, done.position), (vec![("a", Some(1)), ("b", Some(0))], 3));
    let again = accounts.execute_all(&transfer, &named("t")).await.unwrap();
    assert_eq!((again.repeated, again.changes), (true, done.changes));
    // The second command sees what the first did: 40 + 60, then 60 off.
    let round = [("a", &give), ("a", &take)];
    let done = accounts.execute_all(&round, &Context::default()).await.unwrap();
    assert_eq!(done.changes.len(), 1);
    assert_eq!(accounts.load("a").await.unwrap().state.balance, 40);
}

fn stored(kind: &str, data: &str, schema: u32) -> NewEvent {
    NewEvent {
        id: None,
        kind: kind.to_owned(),
        data: Bytes::copy_from_slice(data.as_bytes()),
        metadata: Some(Bytes::from(
            json!({ "schema": schema, "who": "an earlier program" }).to_string(),
        )),
    }
}

async fn store<E: TestEngine>(world: &World<E>, events: Vec<NewEvent>) {
    let (stream, expected) = ("account/old".to_owned(), Expected::Any);
    world.run(Append { writes: vec![Write { stream, expected, events }] }).await;
}

pub(crate) async fn events_of_earlier_schemas_are_brought_to_this_one<E: TestEngine>(
    world: &World<E>,
) {
    let accounts = accounts(world);
    let second = r#"{"euros":3}"#;
    store(world, vec![stored("Deposited", "2", 1), stored("Deposited", second, 2)]).await;
    accounts.execute("old", &Command::Deposit(7), &Context::default()).await.unwrap();
    assert_eq!(accounts.load("old").await.unwrap().state.balance, 507);
    let all = all_events(world).await;
    assert_eq!(&all[0].data[..], b"2", "what is stored never changes");
    assert_eq!(Metadata::of(&all[2]).schema, 3, "written in the schema of today");
    store(world, vec![stored("Closed", "", 1)]).await;
    assert_eq!(accounts.load("old").await.unwrap().state.balance, 0);
}

pub(crate) async fn an_event_of_a_later_schema_is_refused<E: TestEngine>(world: &World<E>) {
    let accounts = accounts(world);
    for (kind, data, schema, what) in [
        ("Deposited", "{}", 4, "schema 4"),
        ("Deposited", "{}", 2, "`euros` is no number"),
        ("Deposited", "{", 3, "not JSON"),
        ("Frozen", "{}", 1, "unknown variant"),
    ] {
        store(world, vec![stored(kind, data, schema)]).await;
        let error = accounts.load("old").await.unwrap_err();
        assert_eq!(error.code(), "SV0422");
        assert!(error.to_string().contains(what), "{error}");
        let delete = selvedge_durable::stream::DeleteStream {
            stream: "account/old".to_owned(),
            expected: Expected::Exists,
        };
        world.run(delete).await;
    }
}

pub(crate) async fn what_the_sender_believes_is_checked<E: TestEngine>(world: &World<E>) {
    let accounts = accounts(world);
    let believing = |expected| Context { expected, ..Context::default() };
    let open = Command::Deposit(1);
    accounts.execute("a", &open, &believing(Expected::None)).await.unwrap();
    for wrong in [Expected::None, Expected::Exact(1)] {
        let no = accounts.execute("a", &open, &believing(wrong)).await;
        let Err(ExecuteError::Store(error)) = no else { panic!("{no:?}") };
        assert_eq!(error.code(), "SV0420");
    }
    for right in [Expected::Exact(0), Expected::Exists, Expected::Any] {
        accounts.execute("a", &open, &believing(right)).await.unwrap();
    }
    let nothing = accounts.execute_all(&[], &Context::default()).await;
    assert!(matches!(nothing, Err(ExecuteError::Store(Error::Invalid { .. }))));
}

pub(crate) async fn causes_are_kept_with_the_events<E: TestEngine>(world: &World<E>) {
    let mut context = Context {
        correlation: Some("order 17".to_owned()),
        causation: Some("message 4".to_owned()),
        ..named("c1")
    };
    context.other.insert("clerk".to_owned(), "Ada".into());
    accounts(world).execute("a", &Command::Deposit(1), &context).await.unwrap();
    let metadata = Metadata::of(&all_events(world).await[0]);
    assert_eq!(metadata.command.as_deref(), Some("c1"));
    assert_eq!(metadata.correlation, context.correlation);
    assert_eq!(metadata.causation, context.causation);
    assert_eq!(metadata.other["clerk"], "Ada");
}

pub(crate) async fn the_past_can_be_looked_at<E: TestEngine>(world: &World<E>) {
    let accounts = accounts(world).with(keeping(3)).unwrap();
    for cents in 1..=5 {
        accounts.execute("a", &Command::Deposit(cents), &Context::default()).await.unwrap();
    }
    for (version, balance) in [(0, 1), (1, 3), (2, 6), (3, 10), (4, 15), (99, 15)] {
        let then = accounts.load_at("a", version).await.unwrap();
        assert_eq!((then.state.balance, then.version), (balance, Some(version.min(4))));
    }
}
