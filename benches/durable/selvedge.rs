//! Selvedge's contender for the side-by-side benchmark of messaging servers:
//! one long request to `/v1/pipeline?payloads=raw` for each connection, over
//! HTTP/1.1. `run.py` puts it into the harness.

use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        Arc, Mutex,
    },
};

use anyhow::{anyhow, bail, Result};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::{Contender, Msg, Producer, Tag, Worker};

const TOPIC: &str = "bench";
const GROUP: &str = "g";
/// Batches of one producer that are not answered yet: what arrives meanwhile makes the next one.
const BATCHES: usize = 2;

pub struct Pipeline(pub String);

#[derive(Deserialize)]
struct Answer {
    id: u64,
    #[serde(default)]
    published: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    messages: Vec<Message>,
    code: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    id: String,
    bytes: usize,
}

type Answered = (Answer, Vec<Bytes>);

/// One request, its lines and its answers.
#[derive(Clone)]
struct Flow {
    lines: mpsc::Sender<Bytes>,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Answered>>>>,
    next: Arc<AtomicU64>,
}

struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(hyper::body::Frame::data(line))))
    }
}

impl Flow {
    async fn open(url: &str) -> Result<Self> {
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        let (lines, body) = mpsc::channel(64);
        let request = hyper::Request::post("/v1/pipeline?payloads=raw").header("host", address);
        let answer = sender.send_request(request.body(Lines(body))?).await?;
        if !answer.status().is_success() {
            bail!("{}", answer.status());
        }
        let flow = Self { lines, waiting: Arc::default(), next: Arc::default() };
        let waiting = flow.waiting.clone();
        tokio::spawn(async move {
            let _sender = sender;
            let ended = read(answer.into_body(), &waiting).await;
            // Nobody waits for what cannot come.
            waiting.lock().unwrap().clear();
            ended
        });
        Ok(flow)
    }

    /// Sends a line, which `tail` ends, and its payloads.
    async fn ask(&self, tail: &str, payloads: &[Bytes]) -> Result<oneshot::Receiver<Answered>> {
        let id = self.next.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id, answer);
        let size: usize = payloads.iter().map(Bytes::len).sum();
        let mut line = BytesMut::with_capacity(tail.len() + size + 32);
        line.extend_from_slice(format!("{{\"id\":{id},{tail}}}\n").as_bytes());
        for payload in payloads {
            line.extend_from_slice(payload);
        }
        self.lines.send(line.freeze()).await?;
        Ok(answered)
    }

    async fn call(&self, tail: &str, payloads: &[Bytes]) -> Result<Answered> {
        let answered = self.ask(tail, payloads).await?.await?;
        match &answered.0.code {
            Some(code) => Err(anyhow!("refused with {code}")),
            None => Ok(answered),
        }
    }
}

async fn read(
    mut body: hyper::body::Incoming,
    waiting: &Mutex<HashMap<u64, oneshot::Sender<Answered>>>,
) -> Result<()> {
    let (mut unread, mut searched) = (BytesMut::new(), 0);
    let mut missing: Option<(Answer, usize)> = None;
    loop {
        if let Some((_, bytes)) = &missing {
            if unread.len() >= *bytes {
                let (answer, _) = missing.take().unwrap();
                let payloads =
                    answer.messages.iter().map(|it| unread.split_to(it.bytes).freeze()).collect();
                if let Some(asked) = waiting.lock().unwrap().remove(&answer.id) {
                    let _ = asked.send((answer, payloads));
                }
                continue;
            }
        } else if let Some(end) = unread[searched..].iter().position(|byte| *byte == b'\n') {
            let line = unread.split_to(searched + end + 1);
            searched = 0;
            let answer: Answer = serde_json::from_slice(&line)?;
            let bytes = answer.messages.iter().map(|it| it.bytes).sum();
            missing = Some((answer, bytes));
            continue;
        } else {
            searched = unread.len();
        }
        let Some(frame) = body.frame().await else { return Ok(()) };
        if let Ok(data) = frame?.into_data() {
            unread.extend_from_slice(&data);
        }
    }
}

type Published = (Bytes, oneshot::Sender<Result<(), String>>);

#[async_trait]
impl Contender for Pipeline {
    async fn setup(&self, _fresh: bool) -> Result<()> {
        // The topic and its group are in the server's file.
        Ok(())
    }

    async fn producer(&self, n: usize) -> Result<Arc<dyn Producer>> {
        if n >= 1 {
            bail!("share")
        }
        let flow = Flow::open(&self.0).await?;
        let (publish, mut queue) = mpsc::channel::<Published>(4096);
        tokio::spawn(async move {
            let room = Arc::new(tokio::sync::Semaphore::new(BATCHES));
            let mut batch = Vec::new();
            loop {
                let Ok(place) = room.clone().acquire_owned().await else { return };
                if queue.recv_many(&mut batch, 1024).await == 0 {
                    return;
                }
                let sizes: Vec<String> =
                    batch.iter().map(|(body, _)| format!("{{\"bytes\":{}}}", body.len())).collect();
                let tail = format!(
                    "\"publish\":{{\"topic\":\"{TOPIC}\",\"messages\":[{}]}}",
                    sizes.join(",")
                );
                let (bodies, asked): (Vec<Bytes>, Vec<_>) = batch.drain(..).unzip();
                let flow = flow.clone();
                let answer = flow.ask(&tail, &bodies).await;
                tokio::spawn(async move {
                    let answered = match answer {
                        Ok(answer) => answer.await.map_err(|error| error.to_string()),
                        Err(error) => Err(error.to_string()),
                    };
                    drop(place);
                    let published = answered.and_then(|(answer, _)| match answer.code {
                        None if answer.published.len() == asked.len() => Ok(()),
                        code => Err(format!("{code:?}")),
                    });
                    for asked in asked {
                        let _ = asked.send(published.clone());
                    }
                });
            }
        });
        Ok(Arc::new(PipelineP(publish)))
    }

    async fn worker(&self, _n: usize, _batch: usize) -> Result<Box<dyn Worker>> {
        Ok(Box::new(PipelineW(Flow::open(&self.0).await?)))
    }
}

struct PipelineP(mpsc::Sender<Published>);

#[async_trait]
impl Producer for PipelineP {
    async fn publish(&self, body: Bytes) -> Result<()> {
        let (published, answer) = oneshot::channel();
        self.0.send((body, published)).await?;
        answer.await?.map_err(|error| anyhow!(error))
    }
}

struct PipelineW(Flow);

#[async_trait]
impl Worker for PipelineW {
    async fn fetch(&mut self, max: usize) -> Result<Vec<Msg>> {
        let tail = format!(
            "\"receive\":{{\"topic\":\"{TOPIC}\",\"group\":\"{GROUP}\",\"max\":{max},\"wait\":\"200ms\"}}"
        );
        let (answer, payloads) = self.0.call(&tail, &[]).await?;
        let messages = answer.messages.into_iter().zip(payloads);
        Ok(messages.map(|(message, body)| Msg { body, tag: Tag::Id(message.id) }).collect())
    }

    async fn ack(&mut self, messages: Vec<Msg>) -> Result<()> {
        let ids: Vec<String> = messages
            .iter()
            .filter_map(|it| if let Tag::Id(id) = &it.tag { Some(format!("\"{id}\"")) } else { None })
            .collect();
        let tail = format!(
            "\"ack\":{{\"topic\":\"{TOPIC}\",\"group\":\"{GROUP}\",\"ids\":[{}]}}",
            ids.join(",")
        );
        self.0.call(&tail, &[]).await.map(drop)
    }
}
