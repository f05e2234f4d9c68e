//! Where records come from.

use std::time::Duration;

use crate::{
    Engine, Error, Subject,
    event::{self, Events},
    stream::{Append, Event, ReadEvents, ReadStream},
    topic::{From, GetTopic, Message, ReadTopic},
};

/// What is read, in order. Positions count from 1; what comes next has a greater
/// position than what came before, and 0 stands for the time before everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The events of all streams, by their position among all.
    Events,
    /// The events of one stream; the position is the version and one.
    Stream(String),
    /// The messages of a topic, by their position in it.
    Topic(String),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the source.
    pub position: u64,
    /// What it is.
    pub content: Content,
}

/// What a [`Record`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An event of a stream.
    Event(Event),
    /// A message of a topic.
    Message(Message),
}

impl Record {
    /// As an event of a stream.
    #[must_use]
    pub const fn event(&self) -> Option<&Event> {
        match &self.content {
            Content::Event(event) => Some(event),
            Content::Message(_) => None,
        }
    }

    /// As a message of a topic.
    #[must_use]
    pub const fn message(&self) -> Option<&Message> {
        match &self.content {
            Content::Message(message) => Some(message),
            Content::Event(_) => None,
        }
    }

    /// What must stay in order: the stream, or the message's key. Empty for a
    /// message without one.
    #[must_use]
    pub fn key(&self) -> &str {
        match &self.content {
            Content::Event(event) => &event.stream,
            Content::Message(message) => message.key.as_deref().unwrap_or_default(),
        }
    }

    /// As a type of the program; a message by its CloudEvents type.
    ///
    /// # Errors
    ///
    /// [`Error::Undecodable`] if its type or schema is unknown or its content does not fit.
    pub fn decode<T: Events>(&self) -> Result<T, Error> {
        match &self.content {
            Content::Event(event) => event.decode(),
            Content::Message(message) => {
                let kind = message.headers.iter().find(|(name, _)| name == "ce-type");
                let kind = kind.map_or("", |(_, value)| value);
                let payload = message.payload.as_deref().unwrap_or_default();
                event::decode(kind, 1, payload).map_err(|problem| Error::Undecodable {
                    stream: self.key().to_owned(),
                    version: self.position,
                    problem,
                })
            }
        }
    }
}

impl Source {
    /// What comes after a position: at most `max` and 4 MiB, but one if there is one.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn read<E: Engine>(
        &self,
        engine: &E,
        after: u64,
        max: usize,
    ) -> Result<Vec<Record>, Error> {
        let event = |position, event| Record { position, content: Content::Event(event) };
        Ok(match self {
            Self::Events => {
                let events = engine.execute(ReadEvents { after, max }).await?;
                events.into_iter().map(|one| event(one.position, one)).collect()
            }
            Self::Stream(stream) => {
                let stream = stream.clone();
                let read = ReadStream { stream, from: after, backwards: false, max };
                let events = match engine.execute(read).await {
                    Ok(page) => page.events,
                    Err(Error::NotFound { .. }) => Vec::new(),
                    Err(error) => return Err(error),
                };
                events.into_iter().map(|one| event(one.version + 1, one)).collect()
            }
            Self::Topic(topic) => {
                let from = From::Position(after + 1);
                let read = ReadTopic { topic: topic.clone(), from, max };
                let record = |message: Message| Record {
                    position: message.position,
                    content: Content::Message(message),
                };
                engine.execute(read).await?.into_iter().map(record).collect()
            }
        })
    }

    /// What tells that there is more.
    #[must_use]
    pub fn subject(&self) -> Subject {
        match self {
            Self::Events => Subject::Events,
            Self::Stream(stream) => Subject::Stream(stream.clone()),
            Self::Topic(topic) => Subject::Topic(topic.clone()),
        }
    }

    /// The position of the last record there is, 0 if there is none.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn head<E: Engine>(&self, engine: &E) -> Result<u64, Error> {
        match self {
            // Appending nothing says where the events end.
            Self::Events => Ok(engine.execute(Append { writes: Vec::new() }).await?.position),
            Self::Stream(stream) => {
                let stream = stream.clone();
                let read = ReadStream { stream, from: u64::MAX, backwards: true, max: 1 };
                match engine.execute(read).await {
                    Ok(page) => Ok(page.last + 1),
                    Err(Error::NotFound { .. }) => Ok(0),
                    Err(error) => Err(error),
                }
            }
            Self::Topic(topic) => {
                Ok(engine.execute(GetTopic { name: topic.clone() }).await?.next - 1)
            }
        }
    }
}

/// Reads a source from a position on, and waits for what has not happened yet.
#[derive(Clone, Debug)]
pub struct Subscription<E> {
    engine: E,
    source: Source,
    position: u64,
    poll: Duration,
}

/// How often a store is looked at by one who heard of nothing.
pub(super) const POLL: Duration = Duration::from_secs(30);

impl<E: Engine> Subscription<E> {
    /// What comes after `position`, beginning with what is there already.
    #[must_use]
    pub const fn new(engine: E, source: Source, position: u64) -> Self {
        Self { engine, source, position, poll: POLL }
    }

    /// Looks this often even though the engine tells of no news. Default 30 s.
    #[must_use]
    pub fn polling(self, poll: Duration) -> Self {
        Self { poll, ..self }
    }

    /// The position of the last record that it gave.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The next records, one to `max`; waits until there are some. Safe to drop:
    /// what was not given is given the next time.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn next(&mut self, max: usize) -> Result<Vec<Record>, Error> {
        let mut watch = self.engine.watch(self.source.subject());
        loop {
            watch.look();
            let records = self.ready(max).await?;
            if !records.is_empty() {
                return Ok(records);
            }
            let _ = tokio::time::timeout(self.poll, watch.changed()).await;
        }
    }

    /// The next records that are there already, at most `max`.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn ready(&mut self, max: usize) -> Result<Vec<Record>, Error> {
        let records = self.source.read(&self.engine, self.position, max).await?;
        if let Some(last) = records.last() {
            self.position = last.position;
        }
        Ok(records)
    }
}
