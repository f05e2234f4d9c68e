//! `/v1/topics/{topic}/groups/…`: who processes what.

use std::time::Duration;

use bytes::Bytes;
use selvedge_durable::{
    Engine, filter,
    group::{
        Active, Cause, Config, DeleteGroup, Delivery, Discard, Extend, Full, GetGroup, Leave,
        Letters, ListDeadLetters, ListGroups, Pause, PutGroup, Receive, Redrive, Reply, Seek,
        Settle, Settled, Stale, Status, Verdict,
    },
    topic::From,
};
use selvedge_patterns::{limit, wall::Wall};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Answer, Call, Problem, WAIT_MAX, cloud, empty, json, live, or_draining,
    shown::{Each, Message, Shown, receipt_text, time},
    typed,
    wire::{self, ReceiptIn},
};

pub(super) async fn route<E: Engine>(
    call: Call<'_, E>,
    topic: &str,
    path: &[&str],
) -> Result<Answer, Problem> {
    let engine = call.engine;
    let topic = topic.to_owned();
    let Some((name, rest)) = path.split_first() else {
        if call.method != "GET" {
            return Err(call.not_here());
        }
        let groups = engine.execute(ListGroups { topic: Some(topic) }).await?;
        return Ok(json(&json!({"groups": groups.iter().map(status).collect::<Vec<_>>()})));
    };
    let group = (*name).to_owned();
    match (call.method.as_str(), rest) {
        ("PUT", []) => {
            let given: GroupIn = call.json().await?;
            let (config, from) = given.into_config()?;
            Ok(json(&status(&engine.execute(PutGroup { topic, group, config, from }).await?)))
        }
        ("GET", []) => Ok(json(&status(&engine.execute(GetGroup { topic, group }).await?))),
        ("DELETE", []) => {
            engine.execute(DeleteGroup { topic, group }).await?;
            Ok(empty())
        }
        ("GET", ["stream"]) => live::group(call, topic, group).await,
        ("POST", ["receive"]) => receive(call, topic, group).await,
        ("POST", ["ack"]) => settle(call, topic, group, |_| Verdict::Ack).await,
        ("POST", ["nack"]) => {
            settle(call, topic, group, |given| Verdict::Retry { after: given.after }).await
        }
        ("POST", ["give-back"]) => {
            let verdict =
                |given: &SettleIn| Verdict::Release { after: given.after.unwrap_or_default() };
            settle(call, topic, group, verdict).await
        }
        ("POST", ["park"]) => settle(call, topic, group, |_| Verdict::Park).await,
        ("POST", ["extend"]) => extend(call, topic, group).await,
        ("POST", ["leave"]) => {
            let LeaveIn { consumer } = call.json().await?;
            let left = engine.execute(Leave { topic, group, consumer }).await?;
            Ok(json(&json!({ "left": left })))
        }
        ("POST", ["pause" | "resume"]) => {
            engine.execute(Pause { topic, group, paused: rest == ["pause"] }).await?;
            Ok(empty())
        }
        ("POST", ["seek"]) => {
            let given: SeekIn = call.json().await?;
            engine.execute(Seek { topic, group, to: given.to()? }).await?;
            Ok(empty())
        }
        ("GET", ["dead-letters"]) => dead_letters(call, topic, group).await,
        ("POST", ["dead-letters", "redrive"]) => {
            let positions = call.json::<Positions>().await?.positions;
            let redriven = engine.execute(Redrive { topic, group, positions }).await?;
            Ok(json(&json!({ "redriven": redriven })))
        }
        ("POST", ["dead-letters", "discard"]) => {
            let positions = call.json::<Positions>().await?.positions;
            let discarded = engine.execute(Discard { topic, group, positions }).await?;
            Ok(json(&json!({ "discarded": discarded })))
        }
        _ => Err(call.not_here()),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GroupIn {
    #[serde(deserialize_with = "wire::duration_field")]
    lease: Option<Duration>,
    attempts: Option<u32>,
    ordered: bool,
    in_flight_max: Option<u32>,
    exceptions_max: Option<u32>,
    #[serde(deserialize_with = "wire::duration_field")]
    retry_base: Option<Duration>,
    #[serde(deserialize_with = "wire::duration_field")]
    retry_cap: Option<Duration>,
    /// `100/s`; without `burst` as many at once.
    rate: Option<String>,
    burst: Option<u32>,
    filter: Option<Value>,
    /// Dead letters it keeps: `0` for no bound.
    dead_letters_max: Option<u64>,
    /// `hold` (the default) or `drop_oldest`.
    dead_letters_full: Option<FullIn>,
    #[serde(deserialize_with = "wire::duration_field")]
    dead_letters_age: Option<Duration>,
    /// `true`, or how long the active consumer may be silent.
    exclusive: Option<Value>,
    from: Option<Value>,
}

impl GroupIn {
    fn into_config(self) -> Result<(Config, From), Problem> {
        let default = Config::default();
        let rate = match (&self.rate, self.burst) {
            (Some(rate), burst) => {
                let rate = wire::rate(rate)?;
                let burst = burst.unwrap_or(rate.count);
                Some(limit::Config { rate, burst, ..limit::Config::default() })
            }
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Problem::malformed("`burst` needs a `rate` beside it".to_owned()));
            }
        };
        let config = Config {
            lease: self.lease.unwrap_or(default.lease),
            attempts: self.attempts.unwrap_or(default.attempts),
            ordered: self.ordered,
            in_flight_max: self.in_flight_max.unwrap_or(default.in_flight_max),
            exceptions_max: self.exceptions_max.unwrap_or(default.exceptions_max),
            retry_base: self.retry_base.unwrap_or(default.retry_base),
            retry_cap: self.retry_cap.unwrap_or(default.retry_cap),
            rate,
            filter: self.filter.as_ref().map(filter::parse).transpose()?,
            letters: Letters {
                max: self
                    .dead_letters_max
                    .map_or(default.letters.max, |max| Some(max).filter(|max| *max > 0)),
                full: self.dead_letters_full.map_or(Full::Hold, FullIn::full),
                age: self.dead_letters_age,
            },
            exclusive: self.exclusive.as_ref().map_or(Ok(None), exclusive)?,
        };
        let from = self.from.map_or(Ok(From::First), |value| place(&value))?;
        Ok((config, from))
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FullIn {
    Hold,
    DropOldest,
}

impl FullIn {
    const fn full(self) -> Full {
        match self {
            Self::Hold => Full::Hold,
            Self::DropOldest => Full::DropOldest,
        }
    }
}

/// How long the active consumer may be silent, unless said otherwise.
const EXCLUSIVE_FOR: Duration = Duration::from_secs(30);

fn exclusive(value: &Value) -> Result<Option<Duration>, Problem> {
    let ttl = match value {
        Value::Bool(false) | Value::Null => return Ok(None),
        Value::Bool(true) => Some(EXCLUSIVE_FOR),
        Value::String(text) => wire::duration(text),
        _ => None,
    };
    let problem = || {
        let detail = format!("`exclusive` is `true`, `false` or a duration, not `{value}`");
        Problem::malformed(detail)
    };
    ttl.map(Some).ok_or_else(problem)
}

fn place(value: &Value) -> Result<From, Problem> {
    match value {
        Value::String(text) => wire::place(text),
        other => wire::place(&other.to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaveIn {
    consumer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeekIn {
    to: Value,
}

impl SeekIn {
    fn to(&self) -> Result<From, Problem> {
        place(&self.to)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Positions {
    #[serde(default)]
    positions: Vec<u64>,
}

#[derive(Serialize)]
struct Received<'a> {
    messages: Each<'a, Delivery, Message<'a>>,
}

async fn receive<E: Engine>(
    call: Call<'_, E>,
    topic: String,
    group: String,
) -> Result<Answer, Problem> {
    call.query.only(&["max", "wait", "lease", "consumer", "data", "format"])?;
    let max = call.query.number("max", 10)? as usize;
    let wait = call.query.duration("wait")?.unwrap_or_default().min(WAIT_MAX);
    let lease = call.query.duration("lease")?;
    let shown = Shown::parse(&call.query)?;
    let consumer = call.query.text("consumer").map(str::to_owned);
    let receive = Receive { topic: topic.clone(), group, max, lease, consumer, wait };
    // Nothing leased to somebody who is sent away: a waiter that has left is passed over.
    let deliveries =
        or_draining(call.draining, call.engine.execute(receive), || Ok(Vec::new())).await?;
    if call.query.text("format") == Some("cloudevents") {
        let events = deliveries.iter().map(|delivery| {
            let mut event = cloud::event(&topic, &delivery.message);
            event["selvedgereceipt"] = receipt_text(delivery.receipt).into();
            event
        });
        let events = Value::Array(events.collect()).to_string();
        return Ok(typed("application/cloudevents-batch+json", Bytes::from(events)));
    }
    Ok(json(&Received { messages: Each(&deliveries, shown, Message::delivered) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettleIn {
    ids: Vec<ReceiptIn>,
    #[serde(default, deserialize_with = "wire::duration_field")]
    after: Option<Duration>,
    reason: Option<String>,
}

async fn settle<E: Engine>(
    call: Call<'_, E>,
    topic: String,
    group: String,
    verdict: impl Fn(&SettleIn) -> Verdict,
) -> Result<Answer, Problem> {
    let engine = call.engine;
    let given: SettleIn = call.json().await?;
    let verdict = verdict(&given);
    let replies = given
        .ids
        .iter()
        .map(|id| Ok(Reply { receipt: id.get()?, verdict, reason: given.reason.clone() }));
    let replies = replies.collect::<Result<Vec<_>, Problem>>()?;
    let alone = replies.len() == 1;
    let answers = engine.execute(Settle { topic, group, replies, strict: alone }).await?;
    Ok(json(&settled(&answers)))
}

/// What became of deliveries that were answered.
pub(super) fn settled(answers: &[Result<Settled, Stale>]) -> Value {
    let stale: Vec<Value> =
        answers.iter().filter_map(|answer| answer.as_ref().err()).map(stale).collect();
    let settled = answers.len() - stale.len();
    let dead = answers.iter().filter(|answer| matches!(answer, Ok(Settled::Dead(_)))).count();
    json!({ "settled": settled, "dead": dead, "stale": stale })
}

fn stale(stale: &Stale) -> Value {
    json!({ "id": receipt_text(stale.presented), "code": "SV0414" })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtendIn {
    ids: Vec<ReceiptIn>,
    #[serde(default, deserialize_with = "wire::duration_field")]
    lease: Option<Duration>,
}

async fn extend<E: Engine>(
    call: Call<'_, E>,
    topic: String,
    group: String,
) -> Result<Answer, Problem> {
    let engine = call.engine;
    let given: ExtendIn = call.json().await?;
    let receipts = given.ids.iter().map(ReceiptIn::get).collect::<Result<Vec<_>, _>>()?;
    let answers = engine.execute(Extend { topic, group, receipts, lease: given.lease }).await?;
    Ok(json(&extended(&answers)))
}

/// What became of deliveries that were to be held for longer.
pub(super) fn extended(answers: &[Result<Wall, Stale>]) -> Value {
    let until = answers.iter().find_map(|answer| answer.as_ref().ok().copied()).map(time);
    let stale: Vec<Value> =
        answers.iter().filter_map(|answer| answer.as_ref().err()).map(stale).collect();
    json!({ "until": until, "stale": stale })
}

async fn dead_letters<E: Engine>(
    call: Call<'_, E>,
    topic: String,
    group: String,
) -> Result<Answer, Problem> {
    call.query.only(&["from", "max", "data"])?;
    let (from, max) = (call.query.number("from", 1)?, call.query.number("max", 100)? as usize);
    let shown = Shown::parse(&call.query)?;
    let letters = call.engine.execute(ListDeadLetters { topic, group, from, max }).await?;
    let letters: Vec<Value> = letters
        .iter()
        .map(|letter| {
            let mut out = json!(Message::read(&letter.message, shown));
            out["cause"] = cause(letter.cause).into();
            out["reason"] = letter.reason.clone().into();
            out["attempts"] = letter.attempts.into();
            out["dead_at"] = time(letter.at).into();
            out
        })
        .collect();
    Ok(json(&json!({ "dead_letters": letters })))
}

const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Attempts => "attempts",
        Cause::LeaseExpired => "lease_expired",
        Cause::Parked => "parked",
        Cause::BehindKey => "behind_key",
    }
}

fn active(active: &Active) -> Value {
    json!({
        "consumer": &*active.consumer, "token": active.token,
        "since": time(active.since), "until": time(active.until),
    })
}

pub(super) fn status(status: &Status) -> Value {
    json!({
        "topic": status.topic, "group": status.group, "paused": status.paused,
        "ordered": status.config.ordered, "lag": status.lag, "in_flight": status.in_flight,
        "waiting": status.waiting, "dead": status.dead, "oldest": status.oldest.map(time),
        "attempts_most": status.attempts_most,
        "rate": status.config.rate.map(|rate| wire::show_rate(rate.rate)),
        "burst": status.config.rate.map(|rate| rate.burst),
        "dead_letters_max": status.config.letters.max, "dropped": status.dropped,
        "dead_letters_full": status.config.letters.hold(status.dead),
        "exclusive": status.config.exclusive.is_some(), "active": status.active.as_ref().map(active),
        "throttled_until": status.throttled.map(time),
        "filter": status.config.filter.as_ref().map(filter::show),
    })
}
