//! `/v1/topics/…`: what is published and read.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, header};
use http_body_util::{BodyExt, Either, channel::Channel};
use hyper::body::Incoming;
use selvedge_durable::{
    Engine, Error, collect,
    schema::{self, Schema},
    topic::{
        CancelDelayed, DeleteTopic, From, GetTopic, ListTopics, Message, NewMessage, Publish,
        Published, PutTopic, ReadTopic, Settings, Topic,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::mpsc;

use super::{
    Answer, Call, Problem, cloud, empty, groups, json, live, parse,
    shown::{self, Each, Shown, Went},
    typed,
    wire::{self, MessageIn},
};

/// Bytes of one line of a publishing stream.
const LINE_MAX: usize = 2 << 20;
/// Publishes of one stream that are under way at one time.
const UNDER_WAY: usize = 256;

pub(super) async fn route<E: Engine>(call: Call<'_, E>, path: &[&str]) -> Result<Answer, Problem> {
    match (call.method.as_str(), path) {
        ("GET", []) => {
            let topics = call.engine.execute(ListTopics).await?;
            Ok(json(&json!({"topics": topics.iter().map(topic).collect::<Vec<_>>()})))
        }
        ("PUT", [name]) => put(call, name).await,
        ("GET", [name]) => {
            Ok(json(&topic(&call.engine.execute(GetTopic { name: (*name).to_owned() }).await?)))
        }
        ("DELETE", [name]) => {
            call.engine.execute(DeleteTopic { name: (*name).to_owned() }).await?;
            Ok(empty())
        }
        ("POST", [name, "messages"]) => publish(call, name).await,
        ("POST", [name, "batch"]) => publish_batch(call, name).await,
        ("POST", [name, "stream"]) => Ok(publish_stream(call, name)),
        ("GET", [name, "messages"]) if live::wanted(&call) => {
            live::topic(call, (*name).to_owned()).await
        }
        ("GET", [name, "messages"]) => read(call, name).await,
        ("DELETE", [name, "delayed", number]) => {
            let number = number.parse().map_err(|_| call.not_here())?;
            call.engine.execute(CancelDelayed { topic: (*name).to_owned(), number }).await?;
            Ok(empty())
        }
        (_, [name, "groups", rest @ ..]) => groups::route(call, name, rest).await,
        _ => Err(call.not_here()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SettingsIn {
    #[serde(deserialize_with = "wire::duration_field")]
    retention_age: Option<Duration>,
    retention_bytes: Option<u64>,
    retain_unconsumed: bool,
    compact: bool,
    #[serde(deserialize_with = "wire::duration_field")]
    compact_lag: Option<Duration>,
    #[serde(deserialize_with = "wire::duration_field")]
    tombstone_for: Option<Duration>,
    priorities: bool,
    #[serde(deserialize_with = "wire::duration_field")]
    ageing: Option<Duration>,
    #[serde(deserialize_with = "wire::duration_field")]
    dedupe_window: Option<Duration>,
    /// `0` for no bound.
    dedupe_max: Option<u64>,
    relaxed: bool,
    collect: Value,
    /// A JSON Schema.
    schema: Option<Value>,
    compatibility: Option<String>,
}

impl Default for SettingsIn {
    fn default() -> Self {
        let Settings { retention_age, retention_bytes, .. } = Settings::default();
        Self {
            retention_age,
            retention_bytes,
            retain_unconsumed: false,
            compact: false,
            compact_lag: None,
            tombstone_for: None,
            priorities: false,
            ageing: None,
            dedupe_window: None,
            dedupe_max: None,
            relaxed: false,
            collect: Value::Null,
            schema: None,
            compatibility: None,
        }
    }
}

async fn put<E: Engine>(call: Call<'_, E>, name: &str) -> Result<Answer, Problem> {
    let engine = call.engine;
    let given: SettingsIn = call.json().await?;
    let default = Settings::default();
    let mode = given
        .compatibility
        .as_deref()
        .map_or(Ok(schema::Compatibility::None), schema::compatibility)?;
    let schema = match &given.schema {
        None | Some(Value::Null) => None,
        Some(document) => Some(Arc::new(Schema::parse(document, mode)?)),
    };
    let settings = Settings {
        retention_age: given.retention_age,
        retention_bytes: given.retention_bytes,
        retain_unconsumed: given.retain_unconsumed,
        compact: given.compact,
        compact_lag: given.compact_lag.unwrap_or(default.compact_lag),
        tombstone_for: given.tombstone_for.unwrap_or(default.tombstone_for),
        priorities: given.priorities,
        ageing: given.ageing.unwrap_or(default.ageing),
        dedupe_window: given.dedupe_window.unwrap_or(default.dedupe_window),
        dedupe_max: given
            .dedupe_max
            .map_or(default.dedupe_max, |max| Some(max).filter(|max| *max > 0)),
        relaxed: given.relaxed,
        collect: collect::parse(&given.collect)?,
        schema,
    };
    Ok(json(&topic(&engine.execute(PutTopic { name: name.to_owned(), settings }).await?)))
}

fn topic(topic: &Topic) -> Value {
    let Topic { name, settings, first, next, bytes, delayed, dedupe_since } = topic;
    json!({
        "name": name, "first": first, "next": next, "bytes": bytes, "delayed": delayed,
        "retention_age": settings.retention_age.map(wire::show_duration),
        "retention_bytes": settings.retention_bytes,
        "retain_unconsumed": settings.retain_unconsumed,
        "compact": settings.compact, "compact_lag": wire::show_duration(settings.compact_lag),
        "tombstone_for": wire::show_duration(settings.tombstone_for),
        "priorities": settings.priorities, "ageing": wire::show_duration(settings.ageing),
        "dedupe_window": wire::show_duration(settings.dedupe_window),
        "dedupe_max": settings.dedupe_max.unwrap_or(0), "relaxed": settings.relaxed,
        "collect": collect::show(&settings.collect),
        "dedupe_since": dedupe_since.map(shown::time),
        "schema": settings.schema.as_ref().map(|it| it.document()),
        "schema_version": settings.schema.as_ref().map(|it| it.version()),
        "compatibility":
            settings.schema.as_ref().map(|it| schema::compatibility_word(it.compatibility())),
    })
}

async fn publish<E: Engine>(call: Call<'_, E>, name: &str) -> Result<Answer, Problem> {
    let engine = call.engine;
    let media_type = call.content_type().to_owned();
    // The batch's name begins with the single event's: look for it first.
    if media_type == "application/cloudevents-batch+json" {
        let events: Vec<Value> = parse(&call.bytes().await?)?;
        let messages = events.into_iter().map(cloud::structured).collect::<Result<_, _>>()?;
        return send(engine, name, messages).await;
    }
    if media_type == "application/cloudevents+json" {
        let message = cloud::structured(parse(&call.bytes().await?)?)?;
        return send_one(engine, name, message).await;
    }
    if media_type.starts_with("application/cloudevents") {
        return Err(Problem::malformed(format!("CloudEvents as `{media_type}` are not known")));
    }
    let headers = call.headers.clone();
    let payload = call.bytes().await?;
    let message = match cloud::binary(&headers, payload.clone())? {
        Some(message) => message,
        None => plain(&headers, payload)?,
    };
    send_one(engine, name, message).await
}

/// A message whose payload is the body and whose rest is in header fields.
fn plain(headers: &HeaderMap, payload: Bytes) -> Result<NewMessage, Problem> {
    let mut message = NewMessage { payload: Some(payload), ..NewMessage::default() };
    for (name, value) in headers {
        let text = || {
            let text = std::str::from_utf8(value.as_bytes());
            text.map(str::to_owned)
                .map_err(|_| Problem::malformed(format!("`{name}` is not UTF-8")))
        };
        match name.as_str() {
            "content-type" => message.headers.push(("content-type".to_owned(), text()?)),
            "selvedge-key" => message.key = Some(text()?),
            "selvedge-dedupe-id" | "idempotency-key" => message.dedupe_id = Some(text()?),
            "selvedge-deliver-at" => message.deliver_at = Some(wire::due(&text()?)?),
            "selvedge-priority" => {
                let problem =
                    |_| Problem::malformed("`selvedge-priority` is not 0 to 9".to_owned());
                message.priority = Some(text()?.parse().map_err(problem)?);
            }
            "traceparent" | "tracestate" => {
                message.headers.push((name.as_str().to_owned(), text()?));
            }
            other => {
                if let Some(own) = other.strip_prefix("selvedge-header-") {
                    message.headers.push((own.to_owned(), text()?));
                }
            }
        }
    }
    Ok(message)
}

async fn send_one<E: Engine>(
    engine: &E,
    topic: &str,
    message: NewMessage,
) -> Result<Answer, Problem> {
    let publish = Publish { topic: topic.to_owned(), messages: vec![message] };
    let published = engine.execute(publish).await?;
    Ok(json(&published.first().map(Went::of)))
}

async fn send<E: Engine>(
    engine: &E,
    topic: &str,
    messages: Vec<NewMessage>,
) -> Result<Answer, Problem> {
    let published = engine.execute(Publish { topic: topic.to_owned(), messages }).await?;
    let published: Vec<Went> = published.iter().map(Went::of).collect();
    Ok(json(&json!({ "published": published })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    messages: Vec<MessageIn>,
}

async fn publish_batch<E: Engine>(call: Call<'_, E>, name: &str) -> Result<Answer, Problem> {
    let engine = call.engine;
    let batch: Batch = call.json().await?;
    let messages = batch.messages.into_iter().map(MessageIn::into_message);
    send(engine, name, messages.collect::<Result<_, _>>()?).await
}

#[derive(Serialize)]
struct Read<'a> {
    messages: Each<'a, Message, shown::Message<'a>>,
}

async fn read<E: Engine>(call: Call<'_, E>, name: &str) -> Result<Answer, Problem> {
    call.query.only(&["from", "max", "data", "format", "wait_for", "wait"])?;
    live::position(&call, Some(name)).await?;
    let from = call.query.from("from", From::First)?;
    let max = call.query.number("max", 100)? as usize;
    let messages = call.engine.execute(ReadTopic { topic: name.to_owned(), from, max }).await?;
    if call.query.text("format") == Some("cloudevents") {
        let events: Vec<Value> =
            messages.iter().map(|message| cloud::event(name, message)).collect();
        let bytes = Bytes::from(Value::Array(events).to_string());
        return Ok(typed("application/cloudevents-batch+json", bytes));
    }
    let shown = Shown::parse(&call.query)?;
    Ok(json(&Read { messages: Each(&messages, shown, shown::Message::read) }))
}

type UnderWay = Pin<Box<dyn Future<Output = Result<Vec<Published>, Error>> + Send>>;

/// What was sent on a stream and is not answered yet, in order.
enum Pending {
    Sent { count: usize, sent: UnderWay },
    Refused(Problem),
}

/// One message a line in, one answer a line out, in the same order: the client
/// need not wait for an answer before it sends the next line. What arrives
/// together is published together and, if the store refuses one, refused
/// together, each line with the reason; a line that cannot be read is refused alone.
fn publish_stream<E: Engine>(call: Call<'_, E>, topic: &str) -> Answer {
    let (mut out, body) = Channel::<Bytes, Infallible>::new(64);
    let (pending, mut queue) = mpsc::channel::<Pending>(UNDER_WAY);
    let (engine, topic, incoming) = (call.engine.clone(), topic.to_owned(), call.body);
    tokio::spawn(async move {
        let answers = async {
            while let Some(pending) = queue.recv().await {
                if out.send_data(lines(pending).await).await.is_err() {
                    return;
                }
            }
        };
        // Nobody to answer, nothing more to take: both end together.
        tokio::join!(take_lines(engine, topic, incoming, pending), answers);
    });
    let mut answer = Response::new(Either::Right(body));
    let media_type = http::HeaderValue::from_static("application/x-ndjson");
    answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
    answer
}

async fn take_lines<E: Engine>(
    engine: E,
    topic: String,
    mut incoming: Incoming,
    pending: mpsc::Sender<Pending>,
) {
    let mut rest = BytesMut::new();
    let mut open = true;
    while open {
        match incoming.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => rest.extend_from_slice(&data),
                Err(_) => continue,
            },
            // The last line needs no end; what broke off in the middle is no line.
            Some(Err(_)) => return,
            None => {
                open = false;
                rest.extend_from_slice(b"\n");
            }
        }
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
            if rest.len() > LINE_MAX {
                let _ = pending.send(Pending::Refused(Problem::body_too_large(LINE_MAX))).await;
                return;
            }
            continue;
        };
        let whole = rest.split_to(end + 1).freeze();
        for entry in entries(&engine, &topic, &whole) {
            if pending.send(entry).await.is_err() {
                return;
            }
        }
    }
}

/// Sends off the lines of `whole`, as many as possible together.
fn entries<E: Engine>(engine: &E, topic: &str, whole: &[u8]) -> Vec<Pending> {
    let (mut entries, mut messages) = (Vec::new(), Vec::new());
    let flush = |messages: &mut Vec<NewMessage>, entries: &mut Vec<Pending>| {
        if !messages.is_empty() {
            let messages = std::mem::take(messages);
            let count = messages.len();
            // The store has it from here on, in this order.
            let sent = engine.execute(Publish { topic: topic.to_owned(), messages });
            entries.push(Pending::Sent { count, sent: Box::pin(sent) });
        }
    };
    for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        match parse::<MessageIn>(line).and_then(MessageIn::into_message) {
            Ok(message) => messages.push(message),
            Err(problem) => {
                flush(&mut messages, &mut entries);
                entries.push(Pending::Refused(problem));
            }
        }
    }
    flush(&mut messages, &mut entries);
    entries
}

async fn lines(pending: Pending) -> Bytes {
    let values = match pending {
        Pending::Refused(problem) => vec![problem.value()],
        Pending::Sent { count, sent } => match sent.await {
            Ok(published) => published.iter().map(|it| json!(Went::of(it))).collect(),
            Err(error) => vec![Problem::from(error).value(); count],
        },
    };
    let mut out = Vec::new();
    for value in values {
        out.extend_from_slice(value.to_string().as_bytes());
        out.push(b'\n');
    }
    Bytes::from(out)
}
