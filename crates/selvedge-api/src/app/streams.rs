//! `/v1/streams/…`, `/v1/events`, `/v1/append`: event streams.

use bytes::Bytes;
use http::HeaderValue;
use selvedge_durable::{
    Answer as Stored, Engine, Error, Operation,
    stream::{
        Append, Appended, DeleteStream, Event, Expected, GetSnapshot, NewEvent, PutSnapshot,
        ReadEvents, ReadStream, Snapshot, TruncateStream, Write,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Call, Problem, empty, json, live, typed, wire};

pub(super) async fn route<E: Engine>(call: Call<'_, E>, path: &[&str]) -> Result<Answer, Problem> {
    let engine = call.engine;
    match (call.method.as_str(), path) {
        ("GET", ["events"]) if live::wanted(&call) => live::events(call, None),
        ("GET", ["events"]) => {
            call.query.only(&["after", "max", "wait_for", "wait"])?;
            live::position(&call, None).await?;
            let (after, max) = (call.query.number("after", 0)?, call.query.number("max", 100)?);
            let events = engine.execute(ReadEvents { after, max: max as usize }).await?;
            Ok(json(&json!({ "events": events.iter().map(event).collect::<Vec<_>>() })))
        }
        ("POST", ["append"]) => {
            let fence = call.fence()?;
            let given: AppendIn = call.json().await?;
            append(engine, fence, given.into_writes()?).await
        }
        ("GET", ["streams", stream]) if live::wanted(&call) => {
            live::events(call, Some((*stream).to_owned()))
        }
        ("GET", ["streams", stream]) => {
            call.query.only(&["from", "max", "direction", "wait_for", "wait"])?;
            live::position(&call, None).await?;
            let backwards = match call.query.text("direction") {
                None | Some("forwards") => false,
                Some("backwards") => true,
                Some(other) => {
                    return Err(Problem::malformed(format!("`direction` cannot be `{other}`")));
                }
            };
            let from = call.query.number("from", if backwards { u64::MAX } else { 0 })?;
            let max = call.query.number("max", 100)? as usize;
            let stream = (*stream).to_owned();
            let page = engine.execute(ReadStream { stream, from, backwards, max }).await?;
            let events: Vec<Value> = page.events.iter().map(event).collect();
            Ok(json(&json!({ "events": events, "last": page.last })))
        }
        ("POST", ["streams", stream]) => {
            let fence = call.fence()?;
            let given: StreamIn = call.json().await?;
            let write = given.into_write((*stream).to_owned())?;
            append(engine, fence, vec![write]).await
        }
        ("GET", ["streams", stream, "snapshot"]) => {
            call.query.only(&["schema"])?;
            let schema = call.query.text("schema").unwrap_or_default().to_owned();
            let stream = (*stream).to_owned();
            let found = engine.execute(GetSnapshot { stream: stream.clone(), schema }).await?;
            let missing = || Error::NotFound { kind: "snapshot", name: stream };
            let Snapshot { version, data } = found.ok_or_else(missing)?;
            let mut answer = typed("application/octet-stream", data);
            answer.headers_mut().insert("selvedge-version", HeaderValue::from(version));
            Ok(answer)
        }
        ("PUT", ["streams", stream, "snapshot"]) => {
            call.query.only(&["schema", "version"])?;
            let schema = call.query.text("schema").unwrap_or_default().to_owned();
            if call.query.text("version").is_none() {
                let detail = "`version` must say which event it includes".to_owned();
                return Err(Problem::malformed(detail));
            }
            let version = call.query.number("version", 0)?;
            let stream = (*stream).to_owned();
            let fence = call.fence()?;
            let data = call.bytes().await?;
            let put = PutSnapshot { stream, version, schema, data };
            fenced(engine, fence, Operation::PutSnapshot(put)).await
        }
        ("POST", ["streams", stream, "truncate"]) => {
            let fence = call.fence()?;
            let given: TruncateIn = call.json().await?;
            let truncate = TruncateStream { stream: (*stream).to_owned(), before: given.before };
            fenced(engine, fence, Operation::TruncateStream(truncate)).await
        }
        ("DELETE", ["streams", stream]) => {
            call.query.only(&["expected"])?;
            let given = call.query.text("expected").map(|text| Value::String(text.to_owned()));
            let expected = expected(given.as_ref())?;
            let delete = DeleteStream { stream: (*stream).to_owned(), expected };
            fenced(engine, call.fence()?, Operation::DeleteStream(delete)).await
        }
        _ => Err(call.not_here()),
    }
}

/// Does what has nothing to say, if the fence holds.
async fn fenced<E: Engine>(
    engine: &E,
    fence: Option<Operation>,
    operation: Operation,
) -> Result<Answer, Problem> {
    engine.transact(fence.into_iter().chain([operation]).collect()).await?;
    Ok(empty())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TruncateIn {
    before: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppendIn {
    writes: Vec<WriteIn>,
}

impl AppendIn {
    pub(super) fn into_writes(self) -> Result<Vec<Write>, Problem> {
        self.writes.into_iter().map(WriteIn::into_write).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WriteIn {
    stream: String,
    expected: Option<Value>,
    #[serde(default)]
    events: Vec<EventIn>,
}

impl WriteIn {
    fn into_write(self) -> Result<Write, Problem> {
        StreamIn { expected: self.expected, events: self.events }.into_write(self.stream)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StreamIn {
    expected: Option<Value>,
    #[serde(default)]
    events: Vec<EventIn>,
}

impl StreamIn {
    pub(super) fn into_write(self, stream: String) -> Result<Write, Problem> {
        let expected = expected(self.expected.as_ref())?;
        let events = self.events.into_iter().map(EventIn::into_event);
        Ok(Write { stream, expected, events: events.collect::<Result<_, _>>()? })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventIn {
    id: Option<String>,
    r#type: String,
    data: Option<Value>,
    data_base64: Option<String>,
    metadata: Option<Value>,
}

impl EventIn {
    fn into_event(self) -> Result<NewEvent, Problem> {
        let data = match (self.data, self.data_base64) {
            (Some(_), Some(_)) => {
                let detail = "`data` and `data_base64` exclude each other".to_owned();
                return Err(Problem::malformed(detail));
            }
            (Some(value), None) => Bytes::from(value.to_string()),
            (None, Some(text)) => wire::base64(&text)?,
            (None, None) => Bytes::new(),
        };
        let metadata = self.metadata.map(|value| Bytes::from(value.to_string()));
        Ok(NewEvent { id: self.id, kind: self.r#type, data, metadata })
    }
}

fn expected(value: Option<&Value>) -> Result<Expected, Problem> {
    let parsed = match value {
        None => Some(Expected::Any),
        Some(Value::Number(number)) => number.as_u64().map(Expected::Exact),
        Some(Value::String(text)) => match &text[..] {
            "any" => Some(Expected::Any),
            "none" => Some(Expected::None),
            "exists" => Some(Expected::Exists),
            text => text.parse().ok().map(Expected::Exact),
        },
        Some(_) => None,
    };
    let problem =
        || Problem::malformed("`expected` must be `any`, `none`, `exists` or a version".to_owned());
    parsed.ok_or_else(problem)
}

async fn append<E: Engine>(
    engine: &E,
    fence: Option<Operation>,
    writes: Vec<Write>,
) -> Result<Answer, Problem> {
    let append = Operation::Append(Append { writes });
    let answers = engine.transact(fence.into_iter().chain([append]).collect()).await?;
    let Some(Stored::Append(done)) = answers.last() else {
        return Err(Error::Closed.into());
    };
    Ok(json(&appended(done)))
}

/// Where an append left things.
pub(super) fn appended(appended: &Appended) -> Value {
    let Appended { versions, position, duplicate } = appended;
    json!({ "versions": versions, "position": position, "duplicate": duplicate })
}

pub(super) fn event(event: &Event) -> Value {
    let readable = |bytes: &Bytes| match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => Ok(value),
        Err(_) => Err(wire::to_base64(bytes)),
    };
    let mut out = json!({
        "stream": event.stream, "version": event.version, "position": event.position,
        "at": super::shown::time(event.at), "type": event.kind,
    });
    if let Some(id) = &event.id {
        out["id"] = id.clone().into();
    }
    match readable(&event.data) {
        Ok(value) => out["data"] = value,
        Err(_) if event.data.is_empty() => {}
        Err(text) => out["data_base64"] = text.into(),
    }
    if let Some(Ok(metadata)) = event.metadata.as_ref().map(readable) {
        out["metadata"] = metadata;
    }
    out
}
