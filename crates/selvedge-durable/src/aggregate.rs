//! Event sourcing: things that decide by what happened to them.
//!
//! An [`Aggregate`] is two pure functions: `decide` answers a command with
//! events or a rejection, `evolve` makes the next state of an event. The
//! [`Repository`] does the rest: it loads a state from snapshot and events,
//! appends what was decided if nobody else was faster and decides again if
//! somebody was, and answers a repeated command like the first time.
//! A snapshot only saves reading and is never needed to be right.
//!
//! Source: Young, *CQRS Documents*; Chassaing, "The decider pattern".
//!
//! ```
//! # use selvedge_durable::{Config, Sqlite};
//! use selvedge_durable::{
//!     aggregate::{Aggregate, Context, ExecuteError, Repository},
//!     event::Events,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Debug, Default, Serialize, Deserialize)]
//! struct Seats {
//!     taken: u32,
//! }
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! enum SeatEvent {
//!     Booked { seats: u32 },
//! }
//! impl Events for SeatEvent {}
//!
//! impl Aggregate for Seats {
//!     const KIND: &'static str = "show";
//!     type Command = u32;
//!     type Event = SeatEvent;
//!     type Rejection = &'static str;
//!
//!     fn decide(&self, seats: &u32) -> Result<Vec<SeatEvent>, &'static str> {
//!         if self.taken + seats > 100 { Err("sold out") } else { Ok(vec![SeatEvent::Booked { seats: *seats }]) }
//!     }
//!
//!     fn evolve(self, event: &SeatEvent) -> Self {
//!         let SeatEvent::Booked { seats } = event;
//!         Self { taken: self.taken + seats }
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! # let folder = tempfile::tempdir()?;
//! # let engine = Sqlite::open(Config::new(folder.path().join("store.db")))?;
//! let shows = Repository::<_, Seats>::new(engine);
//! let context = Context { command: Some("order-17".to_owned()), ..Context::default() };
//! let first = shows.execute("hamlet", &80, &context).await.expect("there are seats");
//! let again = shows.execute("hamlet", &80, &context).await.expect("it is the same order");
//! assert!(again.repeated && again.position == first.position);
//! let other = shows.execute("hamlet", &30, &Context::default()).await;
//! assert!(matches!(other, Err(ExecuteError::Rejected("sold out"))));
//! assert_eq!(shows.load("hamlet").await?.state.taken, 80);
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{fmt, marker::PhantomData, time::Duration};

use bytes::Bytes;
use selvedge_patterns::config::ConfigError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    Answer, Engine, Error, Operation,
    event::{Events, Metadata, encode, schema},
    state::{Condition, GetState, PutState},
    stream::{Append, Event, Expected, GetSnapshot, NewEvent, PutSnapshot, ReadStream, Write},
};

/// A thing that decides by what happened to it. Both functions are pure: the
/// same input gives the same answer, today and when the events are read again.
pub trait Aggregate:
    Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What kind of thing; its streams are named `KIND/<id>`.
    const KIND: &'static str;
    /// To be raised when `evolve` makes another state of the same events:
    /// snapshots taken before are then taken no more. A field that comes or goes
    /// is noticed without it.
    const SCHEMA: u32 = 1;
    /// What it can be asked to do.
    type Command: Send + Sync;
    /// What can happen to it.
    type Event: Events;
    /// Why it does not do what it was asked.
    type Rejection: fmt::Debug + Send;

    /// What happens if `command` is done now; nothing is a good answer too.
    ///
    /// # Errors
    ///
    /// Why it is not done.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// The state after `event`.
    #[must_use]
    fn evolve(self, event: &Self::Event) -> Self;
}

/// How a [`Repository`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Events after which the state is kept again, at least 1; `None` keeps
    /// none. Default 100; 100 to 1,000 suits most.
    pub snapshot_every: Option<u64>,
    /// Times that a command is decided while others are faster, at least 1. Default 10.
    pub attempts: u32,
    /// How long a command is known by its id. Default 24 h.
    pub remember: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { snapshot_every: Some(100), attempts: 10, remember: Duration::from_secs(86_400) }
    }
}

impl Config {
    /// Whether a repository can work with this.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let require = ConfigError::require;
        require(self.snapshot_every != Some(0), "snapshot_every", "must be at least 1")?;
        require(self.attempts >= 1, "attempts", "must be at least 1")?;
        require(self.remember >= Duration::from_secs(1), "remember", "must be at least 1 s")
    }
}

/// What comes with a command and is kept with its events.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Names the command, 1 to 150 bytes: a repeat gets the result of the first.
    /// Names are the first aggregate's own. Without one, a repeat is a new command.
    pub command: Option<String>,
    /// What all of this is about.
    pub correlation: Option<String>,
    /// What led to the command.
    pub causation: Option<String>,
    /// What the sender believes about the first aggregate's stream; if it does
    /// not hold, nothing is decided.
    pub expected: Expected,
    /// Whatever else is to be kept with the events.
    pub other: Map<String, Value>,
}

/// An aggregate as it was when it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded<A> {
    /// What its events amount to.
    pub state: A,
    /// The version of its last event, `None` if it has none.
    pub version: Option<u64>,
    /// Events since the last snapshot, which had to be read.
    pub replayed: u64,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq)]
pub struct Executed<E> {
    /// By aggregate, in the order in which the commands named them.
    pub changes: Vec<Change<E>>,
    /// Position of the last of the events, to wait for when one's own write is
    /// to be read; 0 if nothing happened.
    pub position: u64,
    /// Whether this is the result of an earlier command of the same id.
    pub repeated: bool,
}

/// What a command did to one aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<E> {
    /// The aggregate.
    pub id: String,
    /// The version of its last event afterwards, `None` if it has none.
    pub version: Option<u64>,
    /// What happened.
    pub events: Vec<E>,
}

/// Why a command was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExecuteError<R> {
    /// The aggregate said no.
    #[error("rejected: {0:?}")]
    Rejected(R),
    /// The store did; [`Error::WrongVersion`] if others were faster every time.
    #[error(transparent)]
    Store(#[from] Error),
}

/// The aggregates of one kind in a store: a cheap handle.
pub struct Repository<E, A> {
    engine: E,
    config: Config,
    shape: String,
    kind: PhantomData<fn() -> A>,
}

impl<E: Clone, A> Clone for Repository<E, A> {
    fn clone(&self) -> Self {
        let (engine, shape) = (self.engine.clone(), self.shape.clone());
        Self { engine, config: self.config, shape, kind: PhantomData }
    }
}

impl<E, A: Aggregate> fmt::Debug for Repository<E, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("kind", &A::KIND).finish_non_exhaustive()
    }
}

/// Which events a command led to, as it is remembered.
#[derive(Serialize, Deserialize)]
struct Span {
    id: String,
    version: Option<u64>,
    events: u64,
}

/// One aggregate while commands are decided on it.
struct Plan<A: Aggregate> {
    id: String,
    loaded: Loaded<A>,
    events: Vec<A::Event>,
}

/// Events read at a time.
const PAGE: usize = 1000;

impl<E: Engine, A: Aggregate> Repository<E, A> {
    /// The aggregates of kind `A` in this store, with the default configuration.
    #[must_use]
    pub fn new(engine: E) -> Self {
        let config = Config::default();
        Self { engine, config, shape: shape::<A>(), kind: PhantomData }
    }

    /// The same with another configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a configuration that cannot work.
    pub fn with(self, config: Config) -> Result<Self, Error> {
        config.validate()?;
        Ok(Self { config, ..self })
    }

    /// The name of an aggregate's stream.
    #[must_use]
    pub fn stream(id: &str) -> String {
        stream_name::<A>(id)
    }

    /// Names the shape of the states kept in snapshots: the declared schema and a
    /// hash of the fields and upcasts. Snapshots of another shape are not taken.
    #[must_use]
    pub fn shape(&self) -> &str {
        &self.shape
    }

    /// The aggregate as it is now; one without events is in its first state.
    /// A truncated stream is read from the first event that it keeps.
    ///
    /// # Errors
    ///
    /// [`Error::Undecodable`] for an event that this program does not know, and
    /// those of the store.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, Error> {
        self.load_at(id, u64::MAX).await
    }

    /// The aggregate as it was after the event with this version.
    ///
    /// # Errors
    ///
    /// Those of [`Self::load`].
    pub async fn load_at(&self, id: &str, version: u64) -> Result<Loaded<A>, Error> {
        let stream = Self::stream(id);
        let mut loaded = self.snapshot(&stream, version).await?;
        loop {
            let from = loaded.version.map_or(0, |version| version + 1);
            let read = ReadStream { stream: stream.clone(), from, backwards: false, max: PAGE };
            let page = match self.engine.execute(read).await {
                Ok(page) => page,
                Err(Error::NotFound { .. }) => {
                    return Ok(Loaded { state: A::default(), version: None, replayed: 0 });
                }
                Err(error) => return Err(error),
            };
            for event in page.events.iter().take_while(|event| event.version <= version) {
                loaded.state = loaded.state.evolve(&event.decode()?);
                loaded.version = Some(event.version);
                loaded.replayed += 1;
            }
            let end = page.last.min(version);
            if page.events.is_empty() || page.events.last().is_some_and(|last| last.version >= end)
            {
                return Ok(loaded);
            }
        }
    }

    /// Has the aggregate decide on the command, and appends what it decided.
    ///
    /// # Errors
    ///
    /// [`ExecuteError::Rejected`] if it says no; [`Error::WrongVersion`] if others
    /// were faster `attempts` times or `context.expected` does not hold; those of the store.
    pub async fn execute(
        &self,
        id: &str,
        command: &A::Command,
        context: &Context,
    ) -> Result<Executed<A::Event>, ExecuteError<A::Rejection>> {
        self.execute_all(&[(id, command)], context).await
    }

    /// Has several aggregates decide, each on what the ones before left, and
    /// appends all of it or, if one says no, nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Self::execute`].
    pub async fn execute_all(
        &self,
        commands: &[(&str, &A::Command)],
        context: &Context,
    ) -> Result<Executed<A::Event>, ExecuteError<A::Rejection>> {
        let Some((first, _)) = commands.first() else {
            return Err(Error::invalid("commands", "must be at least one").into());
        };
        if context.command.as_ref().is_some_and(|id| id.is_empty() || id.len() > 150) {
            return Err(Error::invalid("command", "must be 1 to 150 bytes").into());
        }
        let key = context.command.as_ref();
        let key = key.map(|command| format!("command/{}/{command}", Self::stream(first)));
        let mut attempt = 1;
        loop {
            let mut plans = self.load_all(commands).await?;
            // After loading: a state that has the first command's events has its record.
            if let Some(key) = &key
                && let Some(before) = self.remembered(key).await?
            {
                return Ok(before);
            }
            believe(&plans, context.expected)?;
            for (id, command) in commands {
                decide(&mut plans, id, command).map_err(ExecuteError::Rejected)?;
            }
            match self.append(&plans, context, key.as_deref()).await {
                Ok(executed) => {
                    self.keep(&plans, &executed).await;
                    return Ok(executed);
                }
                // Others were faster, perhaps with this very command.
                Err(Error::WrongVersion { .. } | Error::Precondition { .. })
                    if attempt < self.config.attempts =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn load_all(&self, commands: &[(&str, &A::Command)]) -> Result<Vec<Plan<A>>, Error> {
        let mut plans: Vec<Plan<A>> = Vec::new();
        for (id, _) in commands {
            if plans.iter().all(|plan| plan.id != *id) {
                let loaded = self.load(id).await?;
                plans.push(Plan { id: (*id).to_owned(), loaded, events: Vec::new() });
            }
        }
        Ok(plans)
    }

    async fn snapshot(&self, stream: &str, at_most: u64) -> Result<Loaded<A>, Error> {
        let none = Loaded { state: A::default(), version: None, replayed: 0 };
        if self.config.snapshot_every.is_none() {
            return Ok(none);
        }
        let get = GetSnapshot { stream: stream.to_owned(), schema: self.shape.clone() };
        let found = self.engine.execute(get).await?;
        let found = found.filter(|snapshot| snapshot.version <= at_most);
        // One that cannot be read is as good as none: the events say it all.
        let state = found.and_then(|snapshot| {
            Some((serde_json::from_slice(&snapshot.data).ok()?, snapshot.version))
        });
        Ok(state.map_or(none, |(state, version)| Loaded {
            state,
            version: Some(version),
            replayed: 0,
        }))
    }

    /// The result of an earlier command of the same id.
    async fn remembered(&self, key: &str) -> Result<Option<Executed<A::Event>>, Error> {
        let value = match self.engine.execute(GetState { key: key.to_owned() }).await {
            Ok(value) => value.value,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let spans: Vec<Span> = serde_json::from_slice(&value)
            .map_err(|error| Error::Corrupt { what: format!("key `{key}`: {error}") })?;
        let (mut changes, mut position) = (Vec::new(), 0);
        for Span { id, version, events } in spans {
            let from = version.map_or(0, |version| (version + 1).saturating_sub(events));
            let stored = self.span(Self::stream(&id), from, events).await?;
            position = stored.last().map_or(position, |event| event.position.max(position));
            let events = stored.iter().map(Event::decode).collect::<Result<_, _>>()?;
            changes.push(Change { id, version, events });
        }
        Ok(Some(Executed { changes, position, repeated: true }))
    }

    async fn span(&self, stream: String, mut from: u64, count: u64) -> Result<Vec<Event>, Error> {
        let (end, mut events) = (from + count, Vec::new());
        while from < end {
            let max = (end - from) as usize;
            let read = ReadStream { stream: stream.clone(), from, backwards: false, max };
            let page = match self.engine.execute(read).await {
                Ok(page) => page.events,
                // Deleted since: the result is known, its events are not any more.
                Err(Error::NotFound { .. }) => break,
                Err(error) => return Err(error),
            };
            let Some(last) = page.last() else { break };
            from = last.version + 1;
            events.extend(page);
        }
        Ok(events)
    }

    async fn append(
        &self,
        plans: &[Plan<A>],
        context: &Context,
        key: Option<&str>,
    ) -> Result<Executed<A::Event>, Error> {
        let (mut writes, mut number) = (Vec::new(), 0);
        for plan in plans {
            let mut events = Vec::new();
            for event in &plan.events {
                events.push(new_event(event, context, number)?);
                number += 1;
            }
            let expected = plan.loaded.version.map_or(Expected::None, Expected::Exact);
            writes.push(Write { stream: Self::stream(&plan.id), expected, events });
        }
        let mut operations = vec![Operation::Append(Append { writes })];
        if let Some(key) = key {
            let spans: Vec<Span> = plans.iter().map(Plan::span).collect();
            operations.push(Operation::PutState(PutState {
                key: key.to_owned(),
                value: Bytes::from(serde_json::to_vec(&spans).expect("spans serialize")),
                content_type: Some("application/json".to_owned()),
                condition: Condition::Absent,
                ttl: Some(self.config.remember),
            }));
        }
        let answers = self.engine.transact(operations).await?;
        let Some(Answer::Append(appended)) = answers.into_iter().next() else {
            return Err(Error::Closed);
        };
        let happened = plans.iter().any(|plan| !plan.events.is_empty());
        let changes = plans.iter().zip(appended.versions).map(|(plan, version)| Change {
            id: plan.id.clone(),
            version,
            events: plan.events.clone(),
        });
        let position = if happened { appended.position } else { 0 };
        Ok(Executed { changes: changes.collect(), position, repeated: false })
    }

    /// Keeps the state of those that have come far since they were last kept.
    async fn keep(&self, plans: &[Plan<A>], executed: &Executed<A::Event>) {
        let Some(every) = self.config.snapshot_every else { return };
        for (plan, change) in plans.iter().zip(&executed.changes) {
            let since = plan.loaded.replayed + plan.events.len() as u64;
            let Some(version) = change.version.filter(|_| since >= every) else { continue };
            let Ok(data) = serde_json::to_vec(&plan.loaded.state) else { continue };
            let (stream, schema) = (Self::stream(&plan.id), self.shape.clone());
            let put = PutSnapshot { stream, version, schema, data: Bytes::from(data) };
            // The command is done either way, and the next one tries again.
            if let Err(error) = self.engine.execute(put).await {
                tracing::warn!(kind = A::KIND, id = plan.id, %error, "no snapshot was kept");
            }
        }
    }
}

impl<A: Aggregate> Plan<A> {
    fn span(&self) -> Span {
        let events = self.events.len() as u64;
        let first = self.loaded.version.map_or(0, |version| version + 1);
        let version = (first + events).checked_sub(1);
        Span { id: self.id.clone(), version, events }
    }
}

fn decide<A: Aggregate>(
    plans: &mut [Plan<A>],
    id: &str,
    command: &A::Command,
) -> Result<(), A::Rejection> {
    let plan = plans.iter_mut().find(|plan| plan.id == id).expect("all were loaded");
    let events = plan.loaded.state.decide(command)?;
    let state = std::mem::take(&mut plan.loaded.state);
    plan.loaded.state = events.iter().fold(state, A::evolve);
    plan.events.extend(events);
    Ok(())
}

fn stream_name<A: Aggregate>(id: &str) -> String {
    format!("{}/{id}", A::KIND)
}

/// Checks what the sender believes about the first aggregate.
fn believe<A: Aggregate>(plans: &[Plan<A>], expected: Expected) -> Result<(), Error> {
    let Some(plan) = plans.first() else { return Ok(()) };
    let actual = plan.loaded.version;
    let (holds, expected) = match expected {
        Expected::Any => return Ok(()),
        Expected::None => (actual.is_none(), "no events".to_owned()),
        Expected::Exists => (actual.is_some(), "some events".to_owned()),
        Expected::Exact(version) => (actual == Some(version), version.to_string()),
    };
    let stream = stream_name::<A>(&plan.id);
    if holds { Ok(()) } else { Err(Error::WrongVersion { stream, expected, actual }) }
}

fn new_event<E: Events>(event: &E, context: &Context, number: u32) -> Result<NewEvent, Error> {
    let (kind, data) = encode(event)?;
    let metadata = Metadata {
        schema: schema::<E>(&kind),
        command: context.command.clone(),
        correlation: context.correlation.clone(),
        causation: context.causation.clone(),
        other: context.other.clone(),
    };
    let metadata = Bytes::from(serde_json::to_vec(&metadata).expect("metadata serializes"));
    let id = context.command.as_ref().map(|command| format!("{command}#{number}"));
    Ok(NewEvent { id, kind, data, metadata: Some(metadata) })
}

/// Names the shape of a state: its declared schema, and a hash of the fields
/// that it has at first and of the upcasts of its events.
fn shape<A: Aggregate>() -> String {
    let mut text = format!("{}\n", A::KIND);
    match serde_json::to_value(A::default()) {
        Ok(state) => outline(&state, &mut text),
        Err(error) => text.push_str(&error.to_string()),
    }
    for upcast in A::Event::UPCASTS {
        text.push_str(&format!("\n{} {}", upcast.kind, upcast.from));
    }
    format!("{}-{:08x}", A::SCHEMA, crc32fast::hash(text.as_bytes()))
}

/// The names and kinds of what is in a value, without what they hold.
fn outline(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                out.push_str(name);
                out.push(':');
                outline(value, out);
                out.push(';');
            }
        }
        Value::Array(values) => values.iter().for_each(|value| outline(value, out)),
        Value::Null => out.push('0'),
        Value::Bool(_) => out.push('b'),
        Value::Number(_) => out.push('n'),
        Value::String(_) => out.push('s'),
    }
}
