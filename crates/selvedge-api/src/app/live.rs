//! What comes as it happens, as server-sent events: deliveries of a group,
//! messages of a topic, events of streams, holders of a lease. And waiting for
//! a position before a read.
//!
//! A group's deliveries are waited for in the store; of everything else the
//! store tells when it changes, and it is looked at then. A client that comes back says in `Last-Event-ID` what it has seen.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body_util::{
    Either,
    channel::{Channel, Sender},
};
use selvedge_durable::{
    Clock, Engine, Error, Subject, SystemClock, Watch,
    group::Receive,
    lease::{GetLease, Holder},
    stream::{Event, ReadEvents, ReadStream},
    topic::{From, GetTopic, ReadTopic},
};
use selvedge_patterns::wall::Wall;
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Answer, Call, Problem, WAIT_MAX, drain_begins,
    shown::{Message, Shown},
    streams, wire,
};

/// A line that says nothing, so that both ends know that the other is there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Items that one look brings.
const PAGE: usize = 100;
/// A look that brings fewer bytes was not cut short: the store's answers end at 4 MiB.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes that go out together.
const TOGETHER_MAX: usize = 64 << 10;
/// How long after the end of a lease one looks whether it is over.
const AFTER_END: Duration = Duration::from_millis(1);

/// Whether the client wants what comes as it comes.
pub(super) fn wanted<E>(call: &Call<'_, E>) -> bool {
    let accept = call.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// One event on the wire.
fn event(kind: &str, id: Option<u64>, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).expect("answers serialize");
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    Bytes::from(format!("{id}event: {kind}\ndata: {data}\n\n"))
}

/// What one look brought, and what to wait for before the next.
struct Look {
    pieces: Vec<Bytes>,
    /// Whether there may be more at once.
    more: bool,
    /// When to look again though nothing is heard.
    at: Option<Wall>,
}

impl Look {
    /// A page of something, which took so many bytes in the store. There is
    /// another one only if this one was full.
    fn page(pieces: Vec<Bytes>, bytes: usize) -> Self {
        let more = pieces.len() >= PAGE || bytes >= PAGE_BYTES;
        Self { pieces, more, at: None }
    }
}

/// An answer that goes on until the client leaves, the server drains, or
/// `each` fails. `each` gives the next pieces; without a `heard` it waits for
/// them itself.
fn stream<F>(
    draining: watch::Receiver<bool>,
    mut heard: Option<Watch>,
    mut each: impl FnMut() -> F + Send + 'static,
) -> Answer
where
    F: Future<Output = Result<Look, Error>> + Send,
{
    let (mut out, body) = Channel::<Bytes, Infallible>::new(16);
    tokio::spawn(async move {
        let write = async {
            // The head goes out with the first byte.
            if out.send_data(Bytes::from_static(b": hello\n\n")).await.is_err() {
                return;
            }
            loop {
                if let Some(heard) = &mut heard {
                    heard.look();
                }
                let look = beating(&mut out, each()).await;
                let Some(look) = look else { return };
                let look = match look {
                    Ok(look) => look,
                    Err(error) => {
                        let problem = event("problem", None, &Problem::from(error).value());
                        let _ = out.send_data(problem).await;
                        return;
                    }
                };
                for piece in together(look.pieces) {
                    if out.send_data(piece).await.is_err() {
                        return;
                    }
                }
                if let (Some(heard), false) = (&mut heard, look.more) {
                    let until = look.at.map(|at| at.since(SystemClock.now()));
                    let changed = async {
                        match until {
                            // A little later: then it is over by every clock.
                            Some(wait) => {
                                drop(timeout(wait + AFTER_END, heard.changed()).await);
                            }
                            None => heard.changed().await,
                        }
                    };
                    if beating(&mut out, changed).await.is_none() {
                        return;
                    }
                }
            }
        };
        tokio::select! {
            () = write => {}
            () = drain_begins(draining) => {}
        }
    });
    let mut answer = Response::new(Either::Right(body));
    let media_type = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
    answer
}

/// Waits, and lets the client hear that it is not forgotten; `None` once it has left.
async fn beating<T>(
    out: &mut Sender<Bytes, Infallible>,
    waits: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(waits);
    loop {
        match timeout(HEARTBEAT, waits.as_mut()).await {
            Ok(done) => return Some(done),
            Err(_) => out.send_data(Bytes::from_static(b":\n\n")).await.ok()?,
        }
    }
}

/// Pieces that are there at the same time go out at the same time.
fn together(pieces: Vec<Bytes>) -> impl Iterator<Item = Bytes> {
    let mut pieces = pieces.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = pieces.next()?;
        if pieces.peek().is_none_or(|more| first.len() + more.len() > TOGETHER_MAX) {
            return Some(first);
        }
        let mut all = BytesMut::from(first);
        while let Some(more) = pieces.next_if(|more| all.len() + more.len() <= TOGETHER_MAX) {
            all.extend_from_slice(&more);
        }
        Some(all.freeze())
    })
}

/// The position after which a client that comes back goes on.
fn seen<E: Engine>(call: &Call<'_, E>) -> Result<Option<u64>, Problem> {
    let Some(text) = call.header("last-event-id")? else { return Ok(None) };
    let problem = |_| Problem::malformed(format!("`last-event-id` is not a position: `{text}`"));
    text.parse().map(Some).map_err(problem)
}

/// Deliveries of a group; each is to be answered like one that was received.
pub(super) async fn group<E: Engine>(
    call: Call<'_, E>,
    topic: String,
    group: String,
) -> Result<Answer, Problem> {
    call.query.only(&["max", "lease", "consumer", "data"])?;
    let max = call.query.number("max", 10)? as usize;
    let lease = call.query.duration("lease")?;
    let consumer = call.query.text("consumer").map(str::to_owned);
    let shown = Shown::parse(&call.query)?;
    let engine = call.engine.clone();
    let name = selvedge_durable::group::GetGroup { topic: topic.clone(), group: group.clone() };
    // Refused as a problem, not in the middle of a stream.
    engine.execute(name).await?;
    Ok(stream(call.draining, None, move || {
        let (topic, group) = (topic.clone(), group.clone());
        let receive =
            Receive { topic, group, max, lease, consumer: consumer.clone(), wait: WAIT_MAX };
        let deliveries = engine.execute(receive);
        async move {
            let pieces = deliveries.await?.into_iter().map(|it| {
                event("message", Some(it.message.position), &Message::delivered(&it, shown))
            });
            Ok(Look { pieces: pieces.collect(), more: true, at: None })
        }
    }))
}

/// Messages of a topic without a group.
pub(super) async fn topic<E: Engine>(call: Call<'_, E>, topic: String) -> Result<Answer, Problem> {
    call.query.only(&["from", "data"])?;
    let shown = Shown::parse(&call.query)?;
    let from = match seen(&call)? {
        Some(position) => From::Position(position + 1),
        None => call.query.from("from", From::Next)?,
    };
    let engine = call.engine.clone();
    let heard = engine.watch(Subject::Topic(topic.clone()));
    let now = engine.execute(GetTopic { name: topic.clone() }).await?;
    let mut from = if from == From::Next { From::Position(now.next) } else { from };
    let next = Arc::new(AtomicU64::new(0));
    Ok(stream(call.draining, Some(heard), move || {
        if next.load(Relaxed) > 0 {
            from = From::Position(next.load(Relaxed));
        }
        let read = engine.execute(ReadTopic { topic: topic.clone(), from, max: PAGE });
        let next = next.clone();
        async move {
            let messages = read.await?;
            if let Some(last) = messages.last() {
                next.store(last.position + 1, Relaxed);
            }
            let bytes = messages.iter().map(wire::size).sum();
            let pieces = messages
                .iter()
                .map(|it| event("message", Some(it.position), &Message::read(it, shown)));
            Ok(Look::page(pieces.collect(), bytes))
        }
    }))
}

/// All events by position, or those of one stream by version.
pub(super) fn events<E: Engine>(
    call: Call<'_, E>,
    name: Option<String>,
) -> Result<Answer, Problem> {
    call.query.only(if name.is_some() { &["from"] } else { &["after"] })?;
    let start = match (&name, seen(&call)?) {
        (None, Some(position)) => position,
        (Some(_), Some(version)) => version + 1,
        (None, None) => call.query.number("after", 0)?,
        (Some(_), None) => call.query.number("from", 0)?,
    };
    let (engine, next) = (call.engine.clone(), Arc::new(AtomicU64::new(start)));
    let heard = engine.watch(name.clone().map_or(Subject::Events, Subject::Stream));
    Ok(stream(call.draining, Some(heard), move || {
        let (engine, next, name) = (engine.clone(), next.clone(), name.clone());
        async move {
            let from = next.load(Relaxed);
            let (events, versions) = match name {
                None => (engine.execute(ReadEvents { after: from, max: PAGE }).await?, false),
                Some(stream) => {
                    let read = ReadStream { stream, from, backwards: false, max: PAGE };
                    match engine.execute(read).await {
                        Ok(page) => (page.events, true),
                        // It may come yet.
                        Err(Error::NotFound { .. }) => (Vec::new(), true),
                        Err(error) => return Err(error),
                    }
                }
            };
            if let Some(last) = events.last() {
                next.store(if versions { last.version + 1 } else { last.position }, Relaxed);
            }
            let size = |it: &Event| it.data.len() + it.metadata.as_ref().map_or(0, Bytes::len);
            let bytes = events.iter().map(size).sum();
            let pieces = events.iter().map(|it| {
                let id = if versions { it.version } else { it.position };
                event("event", Some(id), &streams::event(it))
            });
            Ok(Look::page(pieces.collect(), bytes))
        }
    }))
}

/// Who holds a resource, whenever that changes.
pub(super) fn lease<E: Engine>(call: Call<'_, E>, resource: String) -> Result<Answer, Problem> {
    call.query.only(&[])?;
    let engine = call.engine.clone();
    let before = Arc::new(Mutex::new(None::<Vec<Holder>>));
    let heard = engine.watch(Subject::Lease(resource.clone()));
    Ok(stream(call.draining, Some(heard), move || {
        let look = engine.execute(GetLease { resource: resource.clone() });
        let before = before.clone();
        async move {
            let holders = look.await?;
            // It may run out, and nobody tells of that.
            let at = holders.iter().map(|holder| holder.until).min();
            let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
            // A renewal changes nothing about who holds it.
            let who = |all: &[Holder]| all.iter().map(|it| it.token).collect::<Vec<_>>();
            if before.as_ref().is_some_and(|before| who(before) == who(&holders)) {
                return Ok(Look { pieces: Vec::new(), more: false, at });
            }
            let piece = event("holders", None, &super::rest::holders(&holders));
            *before = Some(holders);
            Ok(Look { pieces: vec![piece], more: false, at })
        }
    }))
}

/// Waits until the store has the position of `?wait_for=…`, for at most
/// `?wait=…` (5 s unless said): a reader then sees what a writer was told.
pub(super) async fn position<E: Engine>(
    call: &Call<'_, E>,
    topic: Option<&str>,
) -> Result<(), Problem> {
    if call.query.text("wait_for").is_none() {
        return Ok(());
    }
    let wanted = call.query.number("wait_for", 0)?;
    let patience = call.query.duration("wait")?.unwrap_or(Duration::from_secs(5)).min(WAIT_MAX);
    let until = Instant::now() + patience;
    let subject = topic.map_or(Subject::Events, |name| Subject::Topic(name.to_owned()));
    let mut heard = call.engine.watch(subject);
    loop {
        heard.look();
        let there = match topic {
            Some(name) => {
                call.engine.execute(GetTopic { name: name.to_owned() }).await?.next > wanted
            }
            None => {
                let read = ReadEvents { after: wanted.saturating_sub(1), max: 1 };
                wanted == 0 || !call.engine.execute(read).await?.is_empty()
            }
        };
        if there {
            return Ok(());
        }
        if timeout_at(until, heard.changed()).await.is_err() {
            return Err(Problem::not_yet(wanted));
        }
    }
}
