//! The engine that is somewhere else.

use std::{
    collections::hash_map::RandomState, fmt, future::Future, hash::BuildHasher, sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use selvedge_durable::{
    Answer, Engine, Error, Kind, Operation,
    wire::{self, Asked, Failure, Head, Line},
};
use tokio::{task::JoinHandle, time::Instant};
use tracing::warn;

use crate::{
    Config, link,
    repeat::Repeat,
    under_way::{Answered, Reply, UnderWay, unknown},
};

/// The longest that one request to the server waits; it allows 60 s. Whoever
/// waits for longer asks again.
const WAIT_MAX: Duration = Duration::from_secs(50);

/// A store in another process: a cheap handle. When the last one goes, what was
/// asked is still brought to its end.
#[derive(Clone)]
pub struct Client(Arc<Owner>);

struct Owner {
    under_way: Arc<UnderWay>,
    link: Mutex<Option<JoinHandle<()>>>,
    line_bytes_max: usize,
    timeout: Duration,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.under_way.close();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server that `config` names. Connects when the first
    /// operation is asked for; a server that is not there fails only those.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for the first value of `config` that makes no sense.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let place = config.place()?;
        let under_way = Arc::new(UnderWay::new(&config));
        let (line_bytes_max, timeout) = (config.line_bytes_max, config.timeout);
        // Clients that lost one server together come back one by one.
        let seed = RandomState::new().hash_one(0);
        let link = tokio::spawn(link::keep(config, place, under_way.clone(), seed));
        let link = Mutex::new(Some(link));
        Ok(Self(Arc::new(Owner { under_way, link, line_bytes_max, timeout })))
    }

    /// Takes no more operations, and waits until all that were asked for have
    /// been answered or have run out of time.
    pub async fn close(self) {
        self.0.under_way.close();
        let link = self.0.link.lock().take();
        if let Some(link) = link {
            let _ = link.await;
        }
    }

    fn send(&self, operations: Vec<Operation>, wait: Duration) -> Result<Sent, Error> {
        let repeat = Repeat::of(&operations);
        let kinds: Vec<Kind> = operations.iter().map(Operation::kind).collect();
        let mut operations = operations;
        let several = operations.len() != 1;
        let asked = match operations.pop() {
            Some(one) if !several => Asked::from(one),
            last => Asked::transact(operations.into_iter().chain(last).collect()),
        };
        // The line without its end and the number in front, so that it is made
        // outside the lock.
        let rest = serde_json::to_vec(&Line { id: None, exact: true, asked });
        let rest = rest
            .map_err(|error| Error::Invalid { field: "operation", problem: error.to_string() })?;
        let size = rest.len() + 32;
        if size > self.0.line_bytes_max {
            let max = self.0.line_bytes_max;
            return Err(Error::TooLarge { what: "an operation on the wire", size, max });
        }
        let deadline = Instant::now() + self.0.timeout + wait;
        let reply = self.0.under_way.push(repeat, deadline, |id| {
            let mut line = Vec::with_capacity(size);
            line.extend_from_slice(format!("{{\"id\":{id},").as_bytes());
            line.extend_from_slice(&rest[1..]);
            line.push(b'\n');
            Ok(Bytes::from(line))
        })?;
        Ok(Sent { reply, repeat, kinds, several })
    }
}

/// What was sent and is not answered.
struct Sent {
    reply: Reply,
    repeat: Repeat,
    kinds: Vec<Kind>,
    several: bool,
}

impl Sent {
    async fn answer(self) -> Result<Vec<Answer>, Error> {
        let Self { reply, repeat, kinds, several } = self;
        let Answered { line, repeated } = reply.await.unwrap_or(Err(Error::Closed))?;
        let unreadable = |error: serde_json::Error| {
            warn!(%error, "an answer cannot be read");
            unknown(repeat, &format!("the answer cannot be read: {error}"))
        };
        let head: Head = serde_json::from_slice(&line).map_err(unreadable)?;
        let answer = if head.code.is_some() {
            Err(serde_json::from_slice::<Failure>(&line).map_err(unreadable)?.into())
        } else {
            Ok(wire::answers(&line, &kinds, several).map_err(unreadable)?)
        };
        if repeated && repeat.ambiguous(&answer) {
            return Err(Error::Unknown);
        }
        answer
    }
}

/// How long one operation may wait, if it is one that can.
fn patience(operations: &mut [Operation]) -> Option<&mut Duration> {
    match operations {
        [Operation::Receive(it)] => Some(&mut it.wait),
        [Operation::Acquire(it)] => Some(&mut it.wait),
        _ => None,
    }
}

/// Whether whoever waits got nothing yet.
fn in_vain(answer: &Result<Vec<Answer>, Error>) -> bool {
    match answer {
        Ok(answers) => matches!(&answers[..], [Answer::Receive(got)] if got.is_empty()),
        Err(error) => matches!(error, Error::Held { .. }),
    }
}

impl Engine for Client {
    fn transact(
        &self,
        mut operations: Vec<Operation>,
    ) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send + 'static + use<> {
        let client = self.clone();
        let mut left = Duration::ZERO;
        if let Some(wait) = patience(&mut operations) {
            left = wait.saturating_sub(WAIT_MAX);
            *wait = (*wait).min(WAIT_MAX);
        }
        // Kept only by those who ask again.
        let again = (!left.is_zero()).then(|| operations.clone());
        let wait = patience(&mut operations).map_or(Duration::ZERO, |wait| *wait);
        let nothing = operations.is_empty();
        let sent = if nothing { Err(Error::Closed) } else { self.send(operations, wait) };
        async move {
            if nothing {
                return Ok(Vec::new());
            }
            let mut answer = sent?.answer().await;
            let Some(operations) = again else { return answer };
            while in_vain(&answer) && !left.is_zero() {
                let mut operations = operations.clone();
                let wait = left.min(WAIT_MAX);
                left -= wait;
                if let Some(asked) = patience(&mut operations) {
                    *asked = wait;
                }
                answer = client.send(operations, wait)?.answer().await;
            }
            answer
        }
    }
}
