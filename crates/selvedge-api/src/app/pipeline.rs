//! `/v1/transactions` and `/v1/pipeline`: many operations in one request.
//!
//! A transaction is done whole or not at all. A pipeline is one long request:
//! an operation a line in, an answer a line out as soon as it is there, many
//! under way at once; publish, receive and acknowledge share it.
//!
//! With `?payloads=raw` the payloads of messages follow their line as they are,
//! one after another, both ways; `bytes` in a message says how many are its. A
//! line that cannot be read then ends the request: nobody could tell what comes
//! after it from a payload, and what somebody wrote into one is never obeyed.

use std::{convert::Infallible, future::Future, mem, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Either, channel::Channel};
use hyper::body::Incoming;
use selvedge_durable::{
    Answer as Stored, Engine, Error, Operation,
    group::Delivery,
    wire::{Line, Transaction},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{
    Answer, Call, Problem, drain_begins, json,
    operations::{Answered, OperationIn},
    parse,
    shown::{Each, Shown},
    whole::{self, Given},
};

/// Bytes of one line.
const LINE_MAX: usize = 4 << 20;
/// Operations of one pipeline that are under way at one time.
const UNDER_WAY: usize = 1024;
/// Answers that may lie together before they are sent.
const TOGETHER_MAX: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransactionIn {
    operations: Vec<OperationIn>,
}

#[derive(Serialize)]
struct TransactionOut<'a> {
    answers: Each<'a, Stored, Answered<'a>>,
}

pub(super) async fn transaction<E: Engine>(call: Call<'_, E>) -> Result<Answer, Problem> {
    let engine = call.engine;
    let fence = call.fence()?;
    let fences = usize::from(fence.is_some());
    let bytes = call.bytes().await?;
    let Ok(given) = parse::<TransactionIn>(&bytes) else {
        // One of them may be of the many that are seldom asked for.
        let operations = whole::operations(parse::<Transaction>(&bytes)?)?;
        let answers = engine.transact(fence.into_iter().chain(operations).collect()).await?;
        return Ok(json(&whole::answers(answers.get(fences..).unwrap_or_default())));
    };
    let operations = given.operations.into_iter().map(|it| it.into_operation(true, None));
    let operations: Vec<_> =
        fence.into_iter().map(Ok).chain(operations).collect::<Result<_, Problem>>()?;
    if operations.len() == fences {
        return Err(Problem::malformed("`operations` is empty".to_owned()));
    }
    let answers = engine.transact(operations).await?;
    let shown = Each(&answers[fences..], Shown::Readable, Answered::of);
    Ok(json(&TransactionOut { answers: shown }))
}

pub(super) fn pipeline<E: Engine>(call: Call<'_, E>) -> Result<Answer, Problem> {
    call.query.only(&["payloads"])?;
    let raw = match call.query.text("payloads") {
        None => false,
        Some("raw") => true,
        Some(other) => {
            return Err(Problem::malformed(format!("`payloads` cannot be `{other}`, only `raw`")));
        }
    };
    let (mut out, body) = Channel::<Bytes, Infallible>::new(16);
    let (answers, mut answered) = mpsc::channel::<Bytes>(UNDER_WAY);
    let input = Input {
        incoming: call.body,
        draining: call.draining,
        rest: BytesMut::new(),
        searched: 0,
        over: false,
    };
    let lines = Lines { engine: call.engine.clone(), input, raw, answers };
    let payload_max = call.config.body_max;
    tokio::spawn(async move {
        let take = lines.take(payload_max);
        let give = async {
            while let Some(first) = answered.recv().await {
                // What is there goes out together: a write costs more than a line.
                let mut lines = BytesMut::from(first);
                while lines.len() < TOGETHER_MAX
                    && let Ok(more) = answered.try_recv()
                {
                    lines.extend_from_slice(&more);
                }
                if out.send_data(lines.freeze()).await.is_err() {
                    return;
                }
            }
        };
        tokio::pin!(take);
        tokio::select! {
            // Nobody to answer, nothing more to take.
            () = give => {}
            never = async { take.await; std::future::pending::<Infallible>().await } => match never {},
        }
    });
    let mut answer = Response::new(Either::Right(body));
    let media_type = if raw { "application/octet-stream" } else { "application/x-ndjson" };
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(answer)
}

/// What comes in, in pieces of its own.
struct Input {
    incoming: Incoming,
    draining: watch::Receiver<bool>,
    rest: BytesMut,
    /// Bytes of `rest` in which there is no end of a line.
    searched: usize,
    over: bool,
}

/// There is no more: the client has left, or the server drains.
struct Gone;

impl Input {
    /// Waits for more; nothing comes after the end, and what broke off is none.
    async fn more(&mut self) -> Result<(), Gone> {
        let frame = tokio::select! {
            frame = self.incoming.frame() => frame,
            () = drain_begins(self.draining.clone()) => return Err(Gone),
        };
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.rest.extend_from_slice(&data);
                }
                Ok(())
            }
            Some(Err(_)) => Err(Gone),
            None => {
                self.over = true;
                Ok(())
            }
        }
    }

    /// The next line, or `None` after the last, which needs no end.
    async fn line(&mut self) -> Result<Option<BytesMut>, Result<Problem, Gone>> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.rest[self.searched..]) {
                let end = mem::take(&mut self.searched) + end;
                return Ok(Some(self.rest.split_to(end + 1)));
            }
            self.searched = self.rest.len();
            if self.searched > LINE_MAX {
                return Err(Ok(Problem::body_too_large(LINE_MAX)));
            }
            if self.over {
                self.searched = 0;
                return Ok(Some(mem::take(&mut self.rest)).filter(|line| !line.is_empty()));
            }
            self.more().await.map_err(Err)?;
        }
    }

    /// So many bytes that follow a line.
    async fn bytes(&mut self, count: usize) -> Result<Bytes, Gone> {
        self.rest.reserve(count.saturating_sub(self.rest.len()));
        while self.rest.len() < count {
            if self.over {
                return Err(Gone);
            }
            self.more().await?;
        }
        Ok(self.rest.split_to(count).freeze())
    }
}

/// The lines of one pipeline, on their way into the store.
struct Lines<E> {
    engine: E,
    input: Input,
    raw: bool,
    answers: mpsc::Sender<Bytes>,
}

impl<E: Engine> Lines<E> {
    /// Sends off line by line; ends with the body, or when the server drains.
    async fn take(mut self, payload_max: usize) {
        let room = Arc::new(Semaphore::new(UNDER_WAY));
        let mut taken: u64 = 0;
        loop {
            let line = match self.input.line().await {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(Err(Gone)) => {
                    if *self.input.draining.borrow() {
                        // Whoever sent more knows that those were not begun.
                        let _ = self.answers.send(whole::taken(taken)).await;
                    }
                    return;
                }
                Err(Ok(problem)) => return self.refuse(None, &problem).await,
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            taken += 1;
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let mut given: OperationIn = match parse(&line) {
                Ok(given) => given,
                Err(problem) => match parse::<Line>(&line) {
                    Ok(line) => {
                        self.whole(line, place).await;
                        continue;
                    }
                    // What followed it is not known.
                    Err(_) if self.raw => return self.refuse(None, &problem).await,
                    // This form knows all operations, and says which there are.
                    Err(problem) => {
                        self.refuse(whole::id(&line), &problem).await;
                        continue;
                    }
                },
            };
            let id = given.id.take();
            let payloads = if self.raw {
                let count = given.payload_bytes();
                if count > payload_max {
                    let problem = Problem::body_too_large(payload_max);
                    return self.refuse(id, &problem).await;
                }
                let Ok(bytes) = self.input.bytes(count).await else { return };
                Some(bytes)
            } else {
                None
            };
            match given.into_operation(false, payloads) {
                Ok(operation) => self.send(operation, id, place),
                Err(problem) => self.refuse(id, &problem).await,
            }
        }
    }

    /// A line of the form that knows all operations.
    async fn whole(&self, line: Line, place: OwnedSemaphorePermit) {
        let (given, operations) = Given::new(line);
        let operations = match operations {
            Ok(operations) => operations,
            Err(problem) => {
                let _ = self.answers.send(given.answer(Err(problem))).await;
                return;
            }
        };
        let waits = waits(&operations);
        let sent = self.engine.transact(operations);
        let (answers, draining) = (self.answers.clone(), self.input.draining.clone());
        tokio::spawn(async move {
            let came = finish(draining, waits, sent).await.map_err(Problem::from);
            // Whoever asked may have gone away.
            let _ = answers.send(given.answer(came)).await;
            drop(place);
        });
    }

    /// The store has it from here on, in this order.
    fn send(&self, operation: Operation, id: Option<Value>, place: OwnedSemaphorePermit) {
        let operations = vec![operation];
        let waits = waits(&operations);
        let sent = self.engine.transact(operations);
        let (answers, draining) = (self.answers.clone(), self.input.draining.clone());
        let shown = if self.raw { Shown::Beside } else { Shown::Readable };
        tokio::spawn(async move {
            let line = match finish(draining, waits, sent).await {
                Ok(stored) => answer(id, &stored, shown),
                Err(error) => refusal(id, &Problem::from(error)),
            };
            // Whoever asked may have gone away.
            let _ = answers.send(line).await;
            drop(place);
        });
    }

    async fn refuse(&self, id: Option<Value>, problem: &Problem) {
        let _ = self.answers.send(refusal(id, problem)).await;
    }
}

/// Whether it may take as long as its caller likes.
fn waits(operations: &[Operation]) -> bool {
    match operations {
        [Operation::Receive(it)] => !it.wait.is_zero(),
        [Operation::Acquire(it)] => !it.wait.is_zero(),
        _ => false,
    }
}

/// What comes of operations. When the server drains, those that wait for
/// something end; the others are about to be done and are waited for.
async fn finish(
    draining: watch::Receiver<bool>,
    waits: bool,
    sent: impl Future<Output = Result<Vec<Stored>, Error>>,
) -> Result<Vec<Stored>, Error> {
    if waits { super::or_draining(draining, sent, || Err(Error::Closed)).await } else { sent.await }
}

/// The line that answers an operation, and the payloads that go with it.
fn answer(id: Option<Value>, stored: &[Stored], shown: Shown) -> Bytes {
    let Some(stored) = stored.first() else { return Bytes::from_static(b"{}\n") };
    let got: &[Delivery] = match stored {
        Stored::Receive(got) if shown == Shown::Beside => got,
        _ => &[],
    };
    let payloads = got.iter().filter_map(|delivery| delivery.message.payload.as_ref());
    let bytes: usize = payloads.clone().map(Bytes::len).sum();
    let mut line = Vec::with_capacity(bytes + 256);
    let answered = Answered::with(id, stored, shown);
    serde_json::to_writer(&mut line, &answered).expect("answers serialize");
    line.push(b'\n');
    for payload in payloads {
        line.extend_from_slice(payload);
    }
    Bytes::from(line)
}

fn refusal(id: Option<Value>, problem: &Problem) -> Bytes {
    let mut line = problem.value();
    if let Some(id) = id {
        line["id"] = id;
    }
    Bytes::from(format!("{line}\n"))
}
