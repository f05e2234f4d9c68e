//! Reads views, and says which generation of one is read.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};

use super::{
    model::{Progress, Stopped, fetch, json, parse, read},
    source::Source,
};
use crate::{
    Engine, Error, Operation, Subject,
    state::{Condition, DeleteState, GetState, ListState, PutState, Value},
};

/// The keys of one generation of a view.
#[derive(Clone, Debug)]
pub(super) struct Names {
    name: String,
    generation: String,
}

/// Which generation is read.
#[derive(Serialize, Deserialize)]
pub(super) struct Pointer {
    pub(super) active: String,
}

impl Names {
    pub(super) fn new(name: &str, generation: &str) -> Result<Self, Error> {
        for (field, text) in [("name", name), ("generation", generation)] {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if text.is_empty() || text.len() > 64 || !text.bytes().all(good) {
                let problem = "must be 1 to 64 characters of `A-Z a-z 0-9 . _ -`";
                return Err(Error::invalid(field, problem));
            }
        }
        Ok(Self { name: name.to_owned(), generation: generation.to_owned() })
    }

    pub(super) fn pointer(name: &str) -> String {
        format!("projection/{name}")
    }

    /// All that is kept about a generation begins with this, but for its view.
    fn about(&self) -> String {
        format!("projection/{}/{}/", self.name, self.generation)
    }

    pub(super) fn view(&self) -> String {
        format!("view/{}/{}/", self.name, self.generation)
    }

    pub(super) fn progress(&self) -> String {
        format!("{}progress", self.about())
    }

    pub(super) fn parked_prefix(&self) -> String {
        format!("{}parked/", self.about())
    }

    pub(super) fn parked(&self, position: u64) -> String {
        format!("{}{position:020}", self.parked_prefix())
    }

    pub(super) fn skipped(&self, position: u64) -> String {
        format!("{}skipped/{position:020}", self.about())
    }

    /// Marks a key that has parked records. Long ones share a mark with few others.
    pub(super) fn held(&self, key: &str) -> String {
        let about = self.about();
        if key.len() <= 200 {
            return format!("{about}held/={key}");
        }
        format!("{about}held/#{:08x}", crc32fast::hash(key.as_bytes()))
    }
}

/// How a generation of a view stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub generation: String,
    /// Whether it is the one that is read.
    pub active: bool,
    /// The position of the last record that is in it.
    pub position: u64,
    /// How many positions it is behind its source.
    pub lag: u64,
    /// The record before which it stands still.
    pub stopped: Option<Stopped>,
    /// Records put aside, with those behind them.
    pub parked: u64,
    /// Records left out.
    pub skipped: u64,
}

/// A view by name, in whichever generation is read at the moment.
#[derive(Clone, Debug)]
pub struct Views<E> {
    engine: E,
    name: String,
}

/// How often one who waits looks whether another generation is read now.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl<E: Engine> Views<E> {
    /// The view of this name.
    #[must_use]
    pub fn new(engine: E, name: &str) -> Self {
        Self { engine, name: name.to_owned() }
    }

    /// The value under a key.
    ///
    /// # Errors
    ///
    /// Those of the store; [`Error::NotFound`] if there is no such view,
    /// [`Error::Corrupt`] if the value is of another type.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let mut active = self.active().await?;
        loop {
            let found = read(&self.engine, &self.key(&active, key)?).await?;
            if found.is_some() {
                return Ok(found);
            }
            // The generation may have been switched and removed under our eyes.
            let now = self.active().await?;
            if now == active {
                return Ok(None);
            }
            active = now;
        }
    }

    /// Keys that begin with `prefix` and come after `after`, with their values,
    /// in order.
    ///
    /// # Errors
    ///
    /// Those of [`Self::get`].
    pub async fn list<T: DeserializeOwned>(
        &self,
        prefix: &str,
        after: &str,
        max: usize,
    ) -> Result<Vec<(String, T)>, Error> {
        let active = self.active().await?;
        let whole = self.key(&active, "")?;
        let after = if after.is_empty() { String::new() } else { format!("{whole}{after}") };
        let list = ListState { prefix: format!("{whole}{prefix}"), after, max };
        let mut values = Vec::new();
        for (key, _) in self.engine.execute(list).await? {
            if let Some(value) = read(&self.engine, &key).await? {
                values.push((key[whole.len()..].to_owned(), value));
            }
        }
        Ok(values)
    }

    /// The generation that is read.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such view; those of the store.
    pub async fn active(&self) -> Result<String, Error> {
        let pointer = self.pointer().await?;
        Ok(parse::<Pointer>(&Names::pointer(&self.name), &pointer.value)?.active)
    }

    /// Waits until the generation that is read has taken in this position, for
    /// at most `within`: then one reads one's own write. Answers whether it has.
    ///
    /// # Errors
    ///
    /// Those of [`Self::get`].
    pub async fn wait_for(&self, position: u64, within: Duration) -> Result<bool, Error> {
        let until = Instant::now() + within;
        loop {
            let names = Names::new(&self.name, &self.active().await?)?;
            let mut watch = self.engine.watch(Subject::State(names.progress()));
            let progress = read::<Progress, E>(&self.engine, &names.progress()).await?;
            if progress.is_some_and(|progress| progress.position >= position) {
                return Ok(true);
            }
            let look = Instant::now() + LOOK_EVERY;
            if timeout_at(until.min(look), watch.changed()).await.is_err() && until < look {
                return Ok(false);
            }
        }
    }

    /// How all generations stand, by name. At most 1,000.
    ///
    /// # Errors
    ///
    /// Those of [`Self::get`], and of reading the source.
    pub async fn status(&self, source: &Source) -> Result<Vec<Status>, Error> {
        let active = self.active().await?;
        let mut all = Vec::new();
        let prefix = format!("{}/", Names::pointer(&self.name));
        let mut after = String::new();
        while all.len() < 1000 {
            let list = ListState { prefix: prefix.clone(), after, max: 1 };
            let Some((key, _)) = self.engine.execute(list).await?.pop() else { break };
            let generation = key[prefix.len()..].split('/').next().unwrap_or_default().to_owned();
            let names = Names::new(&self.name, &generation)?;
            if let Some(progress) = read::<Progress, E>(&self.engine, &names.progress()).await? {
                // After the progress: what is in the view has happened.
                let head = source.head(&self.engine).await?;
                all.push(Status {
                    active: generation == active,
                    lag: head.saturating_sub(progress.position),
                    position: progress.position,
                    stopped: progress.stopped,
                    parked: progress.parked,
                    skipped: progress.skipped,
                    generation,
                });
            }
            // On to the next generation: `0` comes right after `/`.
            after = format!("{}0", names.about().trim_end_matches('/'));
        }
        Ok(all)
    }

    /// Has another generation read from now on, if it is at most `lag_max`
    /// behind its source and does not stand still. The one before stays until
    /// it is removed, so that one can switch back.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for a generation that was not begun, [`Error::Invalid`]
    /// for one that is too far behind, [`Error::Precondition`] if somebody else
    /// switches or removes at the same time; those of the store.
    pub async fn switch(&self, source: &Source, to: &str, lag_max: u64) -> Result<(), Error> {
        let pointer = self.pointer().await?;
        let status = self.status(source).await?;
        let status = status.into_iter().find(|status| status.generation == to);
        let status = status.ok_or_else(|| Error::missing("generation", to))?;
        if let Some(stopped) = status.stopped {
            let problem = format!("stands still before record {}", stopped.position);
            return Err(Error::invalid("generation", problem));
        }
        if status.lag > lag_max {
            let problem = format!("is {} behind, {lag_max} are allowed", status.lag);
            return Err(Error::invalid("generation", problem));
        }
        self.engine.execute(self.point(to, pointer.tag)).await.map(drop)
    }

    /// Removes a generation that is not read, with its view; one that is still
    /// followed stops.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for the one that is read; those of the store.
    pub async fn remove(&self, generation: &str) -> Result<(), Error> {
        let names = Names::new(&self.name, generation)?;
        let pointer = self.pointer().await?;
        let active = parse::<Pointer>(&Names::pointer(&self.name), &pointer.value)?.active;
        if active == generation {
            return Err(Error::invalid("generation", "is the one that is read"));
        }
        // First the progress: without it nobody changes the view any more. The
        // pointer is written again, so that a switch at the same time fails.
        if fetch(&self.engine, &names.progress()).await?.is_some() {
            let (key, condition) = (names.progress(), Condition::Any);
            let delete = Operation::DeleteState(DeleteState { key, condition });
            let point = Operation::PutState(self.point(&active, pointer.tag));
            self.engine.transact(vec![point, delete]).await?;
        }
        for prefix in [names.view(), names.about()] {
            loop {
                let list = ListState { prefix: prefix.clone(), after: String::new(), max: 1000 };
                let keys = self.engine.execute(list).await?;
                if keys.is_empty() {
                    break;
                }
                let delete = |(key, _)| {
                    Operation::DeleteState(DeleteState { key, condition: Condition::Any })
                };
                self.engine.transact(keys.into_iter().map(delete).collect()).await?;
            }
        }
        Ok(())
    }

    async fn pointer(&self) -> Result<Value, Error> {
        match self.engine.execute(GetState { key: Names::pointer(&self.name) }).await {
            Err(Error::NotFound { .. }) => Err(Error::missing("view", &self.name)),
            other => other,
        }
    }

    /// Writes which generation is read, if nobody did since it was looked up.
    fn point(&self, active: &str, tag: u64) -> PutState {
        PutState {
            key: Names::pointer(&self.name),
            value: json(&Pointer { active: active.to_owned() }),
            content_type: Some("application/json".to_owned()),
            condition: Condition::Tag(tag),
            ttl: None,
        }
    }

    fn key(&self, generation: &str, key: &str) -> Result<String, Error> {
        Ok(format!("{}{key}", Names::new(&self.name, generation)?.view()))
    }
}
