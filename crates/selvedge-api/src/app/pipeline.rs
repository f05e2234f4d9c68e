//! `/v1/transactions` and `/v1/pipeline`: many operations in one request.
//!
//! A transaction is done whole or not at all. A pipeline is one long request:
//! an operation a line in, an answer a line out as soon as it is there, many
//! under way at once; publish, receive and acknowledge share it.

use std::{convert::Infallible, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, Either, channel::Channel};
use hyper::body::Incoming;
use selvedge_durable::{Engine, Error};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{
    Answer, Call, Problem, drain_begins, json, operations, operations::OperationIn, parse,
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

pub(super) async fn transaction<E: Engine>(call: Call<'_, E>) -> Result<Answer, Problem> {
    let engine = call.engine;
    let fence = call.fence()?;
    let fences = usize::from(fence.is_some());
    let given: TransactionIn = call.json().await?;
    let operations = given.operations.into_iter().map(|it| it.into_operation(true));
    let operations: Vec<_> =
        fence.into_iter().map(Ok).chain(operations).collect::<Result<_, Problem>>()?;
    if operations.len() == fences {
        return Err(Problem::malformed("`operations` is empty".to_owned()));
    }
    let answers = engine.transact(operations).await?;
    let answers: Vec<Value> = answers.iter().skip(fences).map(operations::answer).collect();
    Ok(json(&json!({ "answers": answers })))
}

pub(super) fn pipeline<E: Engine>(call: Call<'_, E>) -> Answer {
    let (mut out, body) = Channel::<Bytes, Infallible>::new(16);
    let (answers, mut answered) = mpsc::channel::<Bytes>(UNDER_WAY);
    let (engine, draining, incoming) = (call.engine.clone(), call.draining, call.body);
    tokio::spawn(async move {
        let take = take_lines(engine, incoming, draining, answers);
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
    let media_type = HeaderValue::from_static("application/x-ndjson");
    answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
    answer
}

/// Sends off line by line; ends with the body, or when the server drains.
async fn take_lines<E: Engine>(
    engine: E,
    mut incoming: Incoming,
    draining: watch::Receiver<bool>,
    answers: mpsc::Sender<Bytes>,
) {
    let room = Arc::new(Semaphore::new(UNDER_WAY));
    let mut rest = BytesMut::new();
    let drained = drain_begins(draining.clone());
    tokio::pin!(drained);
    loop {
        let frame = tokio::select! {
            frame = incoming.frame() => frame,
            () = &mut drained => return,
        };
        let last = frame.is_none();
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => rest.extend_from_slice(&data),
                Err(_) => continue,
            },
            // What broke off in the middle is no line; the last line needs no end.
            Some(Err(_)) => return,
            None => rest.extend_from_slice(b"\n"),
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest.split_to(end + 1);
            if line.trim_ascii().is_empty() {
                continue;
            }
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
            let (id, sent) = start(&engine, &line);
            let (answers, draining) = (answers.clone(), draining.clone());
            tokio::spawn(async move {
                let answer = match sent {
                    Ok(sent) => {
                        let closed = || Err(Error::Closed);
                        super::or_draining(draining, sent, closed).await.map_err(Problem::from)
                    }
                    Err(problem) => Err(problem),
                };
                let mut line = match &answer {
                    Ok(answer) => answer.first().map_or_else(|| json!({}), operations::answer),
                    Err(problem) => problem.value(),
                };
                if let Some(id) = id {
                    line["id"] = id;
                }
                let mut line = line.to_string();
                line.push('\n');
                // Whoever asked may have gone away.
                let _ = answers.send(Bytes::from(line)).await;
                drop(place);
            });
        }
        if rest.len() > LINE_MAX {
            let problem = Problem::body_too_large(LINE_MAX).value();
            let _ = answers.send(Bytes::from(format!("{problem}\n"))).await;
            return;
        }
        if last {
            return;
        }
    }
}

type Answered = Result<Vec<selvedge_durable::Answer>, Error>;

/// Gives the operation of a line to the store: it has it from here on, in this
/// order. What comes of it, with the id of the line.
fn start<E: Engine>(
    engine: &E,
    line: &[u8],
) -> (Option<Value>, Result<impl Future<Output = Answered> + Send + 'static + use<E>, Problem>) {
    let mut given: OperationIn = match parse(line) {
        Ok(given) => given,
        Err(problem) => return (None, Err(problem)),
    };
    let id = given.id.take();
    let operation = given.into_operation(false);
    (id, operation.map(|operation| engine.transact(vec![operation])))
}
