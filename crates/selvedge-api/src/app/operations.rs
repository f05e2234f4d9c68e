//! Operations as JSON: one on a line of a pipeline, several in a transaction.
//!
//! An operation is an object with one key, which says what to do.

use std::time::Duration;

use bytes::Bytes;
use selvedge_durable::{
    Answer as Stored, Operation,
    group::{Extend, Receive, Reply, Settle, Verdict},
    lease::{Acquire, CheckFence, Release, Renew, TTL_DEFAULT},
    state::{Condition, DeleteState, GetState, PutState},
    stream::Append,
    topic::{NewMessage, Publish},
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use super::{
    Problem, WAIT_MAX, groups,
    shown::{Each, Message, Shown, Went, payload_value, time},
    streams,
    wire::{self, MessageIn, ReceiptIn},
};

/// One operation: exactly one of these is there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationIn {
    /// Comes back with the answer.
    pub(super) id: Option<Value>,
    publish: Option<PublishIn>,
    receive: Option<ReceiveIn>,
    ack: Option<SettleIn>,
    nack: Option<SettleIn>,
    give_back: Option<SettleIn>,
    park: Option<SettleIn>,
    extend: Option<ExtendIn>,
    append: Option<streams::AppendIn>,
    put_state: Option<PutStateIn>,
    delete_state: Option<DeleteStateIn>,
    get_state: Option<GetStateIn>,
    check_fence: Option<HeldIn>,
    acquire: Option<AcquireIn>,
    renew: Option<HeldIn>,
    release: Option<HeldIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishIn {
    topic: String,
    messages: Vec<MessageIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiveIn {
    topic: String,
    group: String,
    max: Option<usize>,
    #[serde(default, deserialize_with = "wire::duration_field")]
    wait: Option<Duration>,
    #[serde(default, deserialize_with = "wire::duration_field")]
    lease: Option<Duration>,
    consumer: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettleIn {
    topic: String,
    group: String,
    ids: Vec<ReceiptIn>,
    #[serde(default, deserialize_with = "wire::duration_field")]
    after: Option<Duration>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtendIn {
    topic: String,
    group: String,
    ids: Vec<ReceiptIn>,
    #[serde(default, deserialize_with = "wire::duration_field")]
    lease: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutStateIn {
    key: String,
    value: Option<Value>,
    value_base64: Option<String>,
    content_type: Option<String>,
    if_match: Option<String>,
    #[serde(default)]
    if_absent: bool,
    #[serde(default, deserialize_with = "wire::duration_field")]
    ttl: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteStateIn {
    key: String,
    if_match: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetStateIn {
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcquireIn {
    resource: String,
    owner: String,
    #[serde(default, deserialize_with = "wire::duration_field")]
    ttl: Option<Duration>,
    permits: Option<u32>,
    #[serde(default, deserialize_with = "wire::duration_field")]
    wait: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeldIn {
    resource: String,
    token: u64,
    #[serde(default, deserialize_with = "wire::duration_field")]
    ttl: Option<Duration>,
}

impl OperationIn {
    /// Bytes after its line that are payloads of its messages.
    pub(super) fn payload_bytes(&self) -> usize {
        let messages = self.publish.iter().flat_map(|publish| &publish.messages);
        messages.map(MessageIn::bytes).fold(0, usize::saturating_add)
    }

    /// What it asks for. In a transaction one stale receipt fails all.
    /// `payloads` are those that followed its line, if they can: [`Self::payload_bytes`].
    pub(super) fn into_operation(
        self,
        strict: bool,
        payloads: Option<Bytes>,
    ) -> Result<Operation, Problem> {
        let settle = |given: SettleIn, verdict| given.into_settle(verdict, strict);
        let retry = |given: SettleIn| {
            let verdict = Verdict::Retry { after: given.after };
            settle(given, verdict)
        };
        let mut found = [
            self.publish.map(|it| it.into_operation(payloads)),
            self.receive.map(|it| Ok(it.into_operation())),
            self.ack.map(|it| settle(it, Verdict::Ack)),
            self.nack.map(retry),
            self.give_back.map(|it| {
                let after = it.after.unwrap_or_default();
                settle(it, Verdict::Release { after })
            }),
            self.park.map(|it| settle(it, Verdict::Park)),
            self.extend.map(ExtendIn::into_operation),
            self.append.map(|it| {
                let writes = it.into_writes()?;
                Ok(Operation::Append(Append { writes }))
            }),
            self.put_state.map(PutStateIn::into_operation),
            self.delete_state.map(|it| {
                let condition = tag(it.if_match.as_deref(), false)?;
                Ok(Operation::DeleteState(DeleteState { key: it.key, condition }))
            }),
            self.get_state.map(|it| Ok(Operation::GetState(GetState { key: it.key }))),
            self.check_fence.map(|HeldIn { resource, token, .. }| {
                Ok(Operation::CheckFence(CheckFence { resource, token }))
            }),
            self.acquire.map(|it| Ok(it.into_operation())),
            self.renew.map(|HeldIn { resource, token, ttl }| {
                let ttl = ttl.unwrap_or(TTL_DEFAULT);
                Ok(Operation::Renew(Renew { resource, token, ttl }))
            }),
            self.release.map(|HeldIn { resource, token, .. }| {
                Ok(Operation::Release(Release { resource, token }))
            }),
        ]
        .into_iter()
        .flatten();
        match (found.next(), found.next()) {
            (Some(operation), None) => operation,
            _ => Err(Problem::malformed(
                "an operation is an object with one key such as `publish` or `ack`".to_owned(),
            )),
        }
    }
}

impl PublishIn {
    fn into_operation(self, payloads: Option<Bytes>) -> Result<Operation, Problem> {
        let messages: Result<Vec<NewMessage>, _> = match payloads {
            None => self.messages.into_iter().map(MessageIn::into_message).collect(),
            Some(mut left) => {
                let message = |it: MessageIn| {
                    let beside = it.has_bytes().then(|| left.split_to(it.bytes().min(left.len())));
                    it.with_payload(beside)
                };
                self.messages.into_iter().map(message).collect()
            }
        };
        Ok(Operation::Publish(Publish { topic: self.topic, messages: messages? }))
    }
}

impl ReceiveIn {
    fn into_operation(self) -> Operation {
        let Self { topic, group, max, wait, lease, consumer } = self;
        let wait = wait.unwrap_or_default().min(WAIT_MAX);
        Operation::Receive(Receive { topic, group, max: max.unwrap_or(10), lease, consumer, wait })
    }
}

impl SettleIn {
    fn into_settle(self, verdict: Verdict, strict: bool) -> Result<Operation, Problem> {
        let reply = |id: &ReceiptIn| {
            let receipt = id.get()?;
            Ok(Reply { receipt, verdict, reason: self.reason.clone() })
        };
        let replies = self.ids.iter().map(reply).collect::<Result<_, Problem>>()?;
        let (topic, group) = (self.topic, self.group);
        Ok(Operation::Settle(Settle { topic, group, replies, strict }))
    }
}

impl ExtendIn {
    fn into_operation(self) -> Result<Operation, Problem> {
        let receipts = self.ids.iter().map(ReceiptIn::get).collect::<Result<_, _>>()?;
        let Self { topic, group, lease, .. } = self;
        Ok(Operation::Extend(Extend { topic, group, receipts, lease }))
    }
}

impl PutStateIn {
    fn into_operation(self) -> Result<Operation, Problem> {
        let condition = tag(self.if_match.as_deref(), self.if_absent)?;
        let (value, natural) = match (self.value, self.value_base64) {
            (Some(Value::String(text)), None) => (text.into(), "text/plain"),
            (Some(value), None) => (value.to_string().into(), "application/json"),
            (None, Some(text)) => (wire::base64(&text)?, "application/octet-stream"),
            _ => {
                let detail = "one of `value` and `value_base64` must be there".to_owned();
                return Err(Problem::malformed(detail));
            }
        };
        let content_type = Some(self.content_type.unwrap_or_else(|| natural.to_owned()));
        Ok(Operation::PutState(PutState {
            key: self.key,
            value,
            content_type,
            condition,
            ttl: self.ttl,
        }))
    }
}

/// `if_match` is `*`, or a tag as `ETag` shows it, with or without its quotes.
fn tag(if_match: Option<&str>, absent: bool) -> Result<Condition, Problem> {
    match (if_match, absent) {
        (None, false) => Ok(Condition::Any),
        (None, true) => Ok(Condition::Absent),
        (Some("*"), false) => Ok(Condition::Present),
        (Some(text), false) => {
            let tag = u64::from_str_radix(text.trim_matches('"'), 16);
            let problem = |_| Problem::malformed(format!("`{text}` is not a tag"));
            tag.map(Condition::Tag).map_err(problem)
        }
        (Some(_), true) => {
            Err(Problem::malformed("`if_match` and `if_absent` exclude each other".to_owned()))
        }
    }
}

/// What came of an operation, as JSON.
pub(super) struct Answered<'a> {
    id: Option<Value>,
    stored: &'a Stored,
    shown: Shown,
}

impl<'a> Answered<'a> {
    /// On a line, with its id.
    pub(super) const fn with(id: Option<Value>, stored: &'a Stored, shown: Shown) -> Self {
        Self { id, stored, shown }
    }

    /// One of many.
    pub(super) const fn of(stored: &'a Stored, shown: Shown) -> Self {
        Self::with(None, stored, shown)
    }
}

impl Serialize for Answered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(id) = &self.id {
            map.serialize_entry("id", id)?;
        }
        let others = match self.stored {
            Stored::Publish(published) => {
                map.serialize_entry("published", &Each(published, self.shown, Went::each))?;
                return map.end();
            }
            Stored::Receive(got) => {
                map.serialize_entry("messages", &Each(got, self.shown, Message::delivered))?;
                return map.end();
            }
            Stored::Settle(settled) => groups::settled(settled),
            Stored::Extend(extended) => groups::extended(extended),
            Stored::Append(appended) => streams::appended(appended),
            Stored::PutState(tag) => json!({ "etag": format!("{tag:x}") }),
            Stored::GetState(value) => {
                let (name, shown) = payload_value(&value.value, value.content_type.as_deref());
                json!({ "etag": format!("{:x}", value.tag), name: shown })
            }
            Stored::Acquire(grant) => json!({ "token": grant.token, "until": time(grant.until) }),
            Stored::Renew(until) => json!({ "until": time(*until) }),
            _ => json!({}),
        };
        for (name, value) in others.as_object().into_iter().flatten() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl AcquireIn {
    fn into_operation(self) -> Operation {
        let Self { resource, owner, ttl, permits, wait } = self;
        Operation::Acquire(Acquire {
            resource,
            owner,
            ttl: ttl.unwrap_or(TTL_DEFAULT),
            permits: permits.unwrap_or(1),
            wait: wait.unwrap_or_default().min(WAIT_MAX),
        })
    }
}
