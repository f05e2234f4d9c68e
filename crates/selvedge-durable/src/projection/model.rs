//! A read model in the store's own state.

use std::{collections::BTreeMap, future::Future};

use bytes::Bytes;
use selvedge_patterns::config::ConfigError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    follow::ReadModel,
    source::{Record, Source},
    views::{Names, Pointer},
};
use crate::{
    Answer, Engine, Error, Operation,
    state::{Condition, DeleteState, GetState, ListState, PutState},
};

/// Says what one record does to a view.
pub trait Projection: Send + Sync {
    /// Reads from the view and writes to it; nothing else may depend on it, since
    /// a record is projected again if the transaction that carried it fails.
    fn project<E: Engine>(
        &self,
        record: &Record,
        view: &mut View<'_, E>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why a record was not projected.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// The record cannot be taken in, however often it is tried.
    #[error("{0}")]
    Poison(String),
    /// The store failed.
    #[error(transparent)]
    Store(Error),
}

impl From<Error> for Failure {
    /// What cannot be read is poison; everything else is the store's.
    fn from(error: Error) -> Self {
        match error {
            Error::Undecodable { .. } => Self::Poison(error.to_string()),
            error => Self::Store(error),
        }
    }
}

/// What becomes of a record that cannot be taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Poison {
    /// The projection stands still before it until the program or the record is mended.
    #[default]
    Stop,
    /// It is put aside, and so are the later ones of its key; others go on.
    Park,
    /// It is left out, and a note of it is kept.
    Skip,
}

/// How a [`StateModel`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What becomes of a record that cannot be taken in. Default stop.
    pub poison: Poison,
    /// Records parked and skipped at most; at one more it stops. Default 1,000.
    pub aside_max: u64,
    /// Values changed by one transaction at most, unless one record changes
    /// more. Default 1,000, at least 1.
    pub changes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { poison: Poison::Stop, aside_max: 1000, changes_max: 1000 }
    }
}

impl Settings {
    /// Whether a read model can work with this.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let require = ConfigError::require;
        require(self.aside_max <= 10_000, "aside_max", "must be at most 10,000")?;
        require(self.changes_max >= 1, "changes_max", "must be at least 1")
    }
}

/// Why a [`StateModel`] could not go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// It stands still before a record.
    #[error("stopped at record {}: {}", .0.position, .0.reason)]
    Stopped(Stopped),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// The record before which a projection stands still, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Its position.
    pub position: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// How far a generation has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) position: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stopped: Option<Stopped>,
    #[serde(default)]
    pub(super) parked: u64,
    #[serde(default)]
    pub(super) skipped: u64,
}

/// A record that was put aside.
#[derive(Serialize, Deserialize)]
struct Aside {
    key: String,
    reason: String,
}

/// New values under keys, `None` where one was removed.
type Changes = BTreeMap<String, Option<Bytes>>;

/// The view as a projection sees it: with what the records before have changed,
/// and nothing of it stored before all of it is.
#[derive(Debug)]
pub struct View<'a, E> {
    engine: &'a E,
    prefix: &'a str,
    before: &'a Changes,
    changes: Changes,
}

impl<E: Engine> View<'_, E> {
    /// The value under a key.
    ///
    /// # Errors
    ///
    /// Those of the store; [`Failure::Poison`] if the value is of another type.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Failure> {
        let key = format!("{}{key}", self.prefix);
        let bytes = match self.changes.get(&key).or_else(|| self.before.get(&key)) {
            Some(change) => change.clone(),
            None => fetch(self.engine, &key).await?,
        };
        let value = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        value.map_err(|error| Failure::Poison(format!("the view's value `{key}`: {error}")))
    }

    /// Puts a value under a key: together with names at most 512 bytes.
    ///
    /// # Errors
    ///
    /// [`Failure::Poison`] for a key that is too long, or a value that is not JSON.
    pub fn put<T: Serialize>(&mut self, key: &str, value: &T) -> Result<(), Failure> {
        let key = format!("{}{key}", self.prefix);
        if key.len() > 512 {
            return Err(Failure::Poison(format!("the view's key `{key}` exceeds 512 bytes")));
        }
        let value = serde_json::to_vec(value);
        let value = value.map_err(|error| Failure::Poison(format!("`{key}`: {error}")))?;
        self.changes.insert(key, Some(Bytes::from(value)));
        Ok(())
    }

    /// Removes what is under a key, if anything is.
    pub fn delete(&mut self, key: &str) {
        self.changes.insert(format!("{}{key}", self.prefix), None);
    }
}

/// A view in the store's own state, as JSON under `view/<name>/<generation>/`,
/// with its position beside it.
#[derive(Debug)]
pub struct StateModel<E, P> {
    engine: E,
    names: Names,
    projection: P,
    settings: Settings,
    progress: Progress,
    /// The tag under which `progress` is stored: whoever finds another one has
    /// been overtaken, and changes nothing.
    tag: u64,
}

impl<E: Engine, P: Projection> StateModel<E, P> {
    /// Opens a generation of a view, beginning one if there is none. The first
    /// of all generations is the one that is read.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that is not 1 to 64 characters of
    /// `A-Z a-z 0-9 . _ -`, and for the settings; those of the store.
    pub async fn open(
        engine: E,
        name: &str,
        generation: &str,
        projection: P,
        settings: Settings,
    ) -> Result<Self, Error> {
        settings.validate()?;
        let names = Names::new(name, generation)?;
        for (key, value) in [
            (names.progress(), json(&Progress::default())),
            (Names::pointer(name), json(&Pointer { active: generation.to_owned() })),
        ] {
            match engine.execute(put(key, value, Condition::Absent)).await {
                Ok(_) | Err(Error::Precondition { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let progress = Progress::default();
        Ok(Self { engine, names, projection, settings, progress, tag: 0 })
    }

    /// Projects the records that were parked, oldest first; those of a key whose
    /// first one still fails stay. Answers with how many are left.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn retry_parked(&mut self, source: &Source) -> Result<u64, StateError> {
        self.position().await?;
        let mut by_key: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let (mut last, prefix) = (String::new(), self.names.parked_prefix());
        loop {
            let list = ListState { prefix: prefix.clone(), after: last.clone(), max: 1000 };
            let page = self.engine.execute(list).await?;
            let Some((end, _)) = page.last() else { break };
            last.clone_from(end);
            for (name, _) in page {
                let Some(aside) = read::<Aside, E>(&self.engine, &name).await? else { continue };
                let position = name[prefix.len()..].parse().unwrap_or_default();
                by_key.entry(aside.key).or_default().push(position);
            }
        }
        for (key, positions) in by_key {
            let last = positions.last().copied();
            for position in positions {
                let mut next = self.progress.clone();
                let records = source.read(&self.engine, position - 1, 1).await?;
                let mut changes = Changes::new();
                // One that has expired meanwhile is parked no more.
                if let Some(record) = records.iter().find(|record| record.position == position) {
                    match self.project(record, &Changes::new()).await {
                        Ok(made) => changes = made,
                        Err(Failure::Poison(_)) => break,
                        Err(Failure::Store(error)) => return Err(error.into()),
                    }
                }
                changes.insert(self.names.parked(position), None);
                if Some(position) == last {
                    changes.insert(self.names.held(&key), None);
                }
                next.parked = next.parked.saturating_sub(1);
                self.commit(next, changes).await?;
            }
        }
        Ok(self.progress.parked)
    }

    /// What a record changes in the view, given what was changed before it.
    async fn project(&self, record: &Record, before: &Changes) -> Result<Changes, Failure> {
        let prefix = &self.names.view();
        let mut view = View { engine: &self.engine, prefix, before, changes: Changes::new() };
        self.projection.project(record, &mut view).await?;
        Ok(view.changes)
    }

    /// Whether an earlier record of the same key is parked.
    async fn held(&self, record: &Record, changes: &Changes) -> Result<bool, Error> {
        let key = self.names.held(record.key());
        match changes.get(&key) {
            Some(change) => Ok(change.is_some()),
            None if self.progress.parked == 0 => Ok(false),
            None => Ok(fetch(&self.engine, &key).await?.is_some()),
        }
    }

    /// Puts a record aside, or says why the projection has to stop.
    fn put_aside(
        &self,
        record: &Record,
        reason: String,
        next: &mut Progress,
        changes: &mut Changes,
    ) -> Result<(), Stopped> {
        let position = record.position;
        let full = next.parked + next.skipped >= self.settings.aside_max;
        let aside = Aside { key: record.key().to_owned(), reason };
        match self.settings.poison {
            Poison::Stop => return Err(Stopped { position, reason: aside.reason }),
            Poison::Park | Poison::Skip if full => {
                let reason = format!(
                    "{} records are aside already: {}",
                    self.settings.aside_max, aside.reason
                );
                return Err(Stopped { position, reason });
            }
            Poison::Park => {
                next.parked += 1;
                changes.insert(self.names.parked(position), Some(json(&aside)));
                changes.insert(self.names.held(&aside.key), Some(Bytes::from_static(b"true")));
            }
            Poison::Skip => {
                next.skipped += 1;
                changes.insert(self.names.skipped(position), Some(json(&aside)));
            }
        }
        Ok(())
    }

    /// Stores the changes and how far they go, if nobody else went further.
    async fn commit(&mut self, next: Progress, changes: Changes) -> Result<(), Error> {
        let condition = Condition::Tag(self.tag);
        let progress = put(self.names.progress(), json(&next), condition);
        let mut operations = vec![Operation::PutState(progress)];
        for (key, change) in changes {
            match change {
                Some(value) => {
                    operations.push(Operation::PutState(put(key, value, Condition::Any)))
                }
                // Removing what is not there would fail the whole.
                None if fetch(&self.engine, &key).await?.is_none() => {}
                None => {
                    let condition = Condition::Any;
                    operations.push(Operation::DeleteState(DeleteState { key, condition }));
                }
            }
        }
        let answers = self.engine.transact(operations).await?;
        let Some(Answer::PutState(tag)) = answers.first() else { return Err(Error::Closed) };
        (self.progress, self.tag) = (next, *tag);
        Ok(())
    }
}

impl<E: Engine, P: Projection> ReadModel for StateModel<E, P> {
    type Error = StateError;

    async fn position(&mut self) -> Result<u64, StateError> {
        let key = self.names.progress();
        let value = self.engine.execute(GetState { key: key.clone() }).await?;
        self.progress = parse(&key, &value.value)?;
        self.tag = value.tag;
        Ok(self.progress.position)
    }

    async fn apply(&mut self, records: &[Record]) -> Result<(), StateError> {
        let (mut next, mut changes) = (self.progress.clone(), Changes::new());
        for record in records {
            let projected = if self.held(record, &changes).await? {
                Err(Failure::Poison("an earlier record of its key is parked".to_owned()))
            } else {
                self.project(record, &changes).await
            };
            let stopped = match projected {
                Ok(made) => {
                    changes.extend(made);
                    None
                }
                Err(Failure::Store(error)) => return Err(error.into()),
                Err(Failure::Poison(reason)) => {
                    self.put_aside(record, reason, &mut next, &mut changes).err()
                }
            };
            if stopped.is_some() {
                next.stopped.clone_from(&stopped);
                if next != self.progress {
                    self.commit(next, changes).await?;
                }
                return stopped.map_or(Ok(()), |stopped| Err(StateError::Stopped(stopped)));
            }
            (next.position, next.stopped) = (record.position, None);
            if changes.len() >= self.settings.changes_max {
                self.commit(next.clone(), std::mem::take(&mut changes)).await?;
            }
        }
        if next != self.progress {
            self.commit(next, changes).await?;
        }
        Ok(())
    }

    fn passing(error: &StateError) -> bool {
        let StateError::Store(error) = error else { return false };
        // A failed precondition says that somebody else follows too.
        matches!(error, Error::Overloaded { .. } | Error::DiskFull | Error::Precondition { .. })
    }
}

fn put(key: String, value: Bytes, condition: Condition) -> PutState {
    let content_type = Some("application/json".to_owned());
    PutState { key, value, content_type, condition, ttl: None }
}

pub(super) fn json(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("plain data serializes"))
}

pub(super) fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, Error> {
    let problem = |error| Error::Corrupt { what: format!("key `{key}`: {error}") };
    serde_json::from_slice(value).map_err(problem)
}

/// What is under a key, if anything is.
pub(super) async fn fetch<E: Engine>(engine: &E, key: &str) -> Result<Option<Bytes>, Error> {
    match engine.execute(GetState { key: key.to_owned() }).await {
        Ok(value) => Ok(Some(value.value)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn read<T: DeserializeOwned, E: Engine>(
    engine: &E,
    key: &str,
) -> Result<Option<T>, Error> {
    let value = fetch(engine, key).await?;
    value.map(|value| parse(key, &value)).transpose()
}
