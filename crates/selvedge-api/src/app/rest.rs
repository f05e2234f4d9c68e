//! `/v1/state`, `/v1/leases`, `/v1/schedules`, `/v1/groups`: what is left.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use selvedge_durable::{
    Answer as Stored, Engine, Operation,
    group::ListGroups,
    lease::{Acquire, GetLease, Holder, ListLeases, Release, Renew, TTL_DEFAULT},
    schedule::{DeleteSchedule, ListSchedules, Missed, Overlap, PutSchedule, Schedule},
    state::{Condition, DeleteState, GetState, ListState, PutState},
};
use selvedge_patterns::wall::Wall;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Answer, Call, Problem, WAIT_MAX, empty, groups, json, live, or_draining, typed,
    wire::{self, MessageIn},
};

pub(super) async fn route<E: Engine>(call: Call<'_, E>, path: &[&str]) -> Result<Answer, Problem> {
    let engine = call.engine;
    match (call.method.as_str(), path) {
        ("GET", ["groups"]) => {
            let all = engine.execute(ListGroups { topic: None }).await?;
            Ok(json(&json!({ "groups": all.iter().map(groups::status).collect::<Vec<_>>() })))
        }
        ("GET", ["state"]) => {
            call.query.only(&["prefix", "after", "max"])?;
            let text = |name| call.query.text(name).unwrap_or_default().to_owned();
            let max = call.query.number("max", 100)? as usize;
            let list = ListState { prefix: text("prefix"), after: text("after"), max };
            let keys = engine.execute(list).await?;
            let keys: Vec<Value> = keys
                .into_iter()
                .map(|(key, tag)| json!({ "key": key, "etag": format!("{tag:x}") }))
                .collect();
            Ok(json(&json!({ "keys": keys })))
        }
        ("GET", ["state", key]) => {
            let value = engine.execute(GetState { key: (*key).to_owned() }).await?;
            let media_type = value.content_type.as_deref().unwrap_or("application/octet-stream");
            let tag = etag(value.tag);
            let known = call.header("if-none-match")?.is_some_and(|text| {
                text == "*" || text.split(',').any(|one| one.trim().as_bytes() == tag.as_bytes())
            });
            let mut answer = if known {
                let mut answer = empty();
                *answer.status_mut() = StatusCode::NOT_MODIFIED;
                answer
            } else {
                typed(media_type, value.value)
            };
            let headers = answer.headers_mut();
            headers.insert(header::ETAG, tag);
            // A value may say that it is a page: it is none of ours.
            let sandbox = HeaderValue::from_static("sandbox; default-src 'none'");
            headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
            Ok(answer)
        }
        ("PUT", ["state", key]) => put_state(call, key).await,
        ("DELETE", ["state", key]) => {
            let delete = DeleteState { key: (*key).to_owned(), condition: condition(&call)? };
            let operations = call.fence()?.into_iter().chain([Operation::DeleteState(delete)]);
            engine.transact(operations.collect()).await?;
            Ok(empty())
        }
        ("GET", ["leases"]) => all_leases(call).await,
        (_, ["leases", resource, rest @ ..]) => leases(call, resource, rest).await,
        ("GET", ["schedules"]) => {
            let all = engine.execute(ListSchedules).await?;
            Ok(json(&json!({ "schedules": all.iter().map(schedule).collect::<Vec<_>>() })))
        }
        ("PUT", ["schedules", name]) => {
            let given: ScheduleIn = call.json().await?;
            Ok(json(&schedule(&engine.execute(given.into_put((*name).to_owned())?).await?)))
        }
        ("DELETE", ["schedules", name]) => {
            engine.execute(DeleteSchedule { name: (*name).to_owned() }).await?;
            Ok(empty())
        }
        _ => Err(call.not_here()),
    }
}

fn etag(tag: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{tag:x}\"")).expect("hexadecimal digits make a header")
}

/// The precondition of `If-Match` (RFC 9110 §13.1.1, one tag of it) or `If-None-Match: *`.
fn condition<E: Engine>(call: &Call<'_, E>) -> Result<Condition, Problem> {
    match (call.header("if-match")?, call.header("if-none-match")?) {
        (None, None) => Ok(Condition::Any),
        (None, Some("*")) => Ok(Condition::Absent),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(text), None) => if_match(text.trim()).ok_or_else(|| {
            let detail = "`if-match` must be `*` or one tag in quotes, as `etag` has it";
            Problem::malformed(detail.to_owned())
        }),
        _ => {
            Err(Problem::malformed("only `if-match` or `if-none-match: *` is possible".to_owned()))
        }
    }
}

/// One tag; `None` if it is not even that.
fn if_match(text: &str) -> Option<Condition> {
    // A weak tag is a tag, and never equal to another in the strong comparison.
    let (weak, quoted) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
    let tag = quoted.strip_prefix('"')?.strip_suffix('"')?;
    if tag.bytes().any(|byte| byte == b'"' || byte <= b' ' || byte == 0x7f) {
        return None;
    }
    // Only what we write ourselves is ours: `+1`, `01` and `FF` are other people's.
    let ours =
        u64::from_str_radix(tag, 16).ok().filter(|found| !weak && format!("{found:x}") == tag);
    Some(ours.map_or(Condition::Foreign, Condition::Tag))
}

async fn put_state<E: Engine>(call: Call<'_, E>, key: &str) -> Result<Answer, Problem> {
    call.query.only(&["ttl"])?;
    let engine = call.engine;
    let (condition, fence) = (condition(&call)?, call.fence()?);
    let ttl = call.query.duration("ttl")?;
    let content_type = call.header("content-type")?.map(str::to_owned);
    let value: Bytes = call.bytes().await?;
    let put = PutState { key: key.to_owned(), value, content_type, condition, ttl };
    let operations = fence.into_iter().chain([Operation::PutState(put)]).collect();
    let answers = engine.transact(operations).await?;
    let Some(Stored::PutState(tag)) = answers.last() else {
        return Err(selvedge_durable::Error::Closed.into());
    };
    let mut answer = empty();
    answer.headers_mut().insert(header::ETAG, etag(*tag));
    Ok(answer)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcquireIn {
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
    token: u64,
    #[serde(default, deserialize_with = "wire::duration_field")]
    ttl: Option<Duration>,
}

/// Every lease that is held, a page at a time.
async fn all_leases<E: Engine>(call: Call<'_, E>) -> Result<Answer, Problem> {
    call.query.only(&["after", "max", "held_for"])?;
    let after = match call.query.text("after") {
        None => (String::new(), 0),
        Some(text) => {
            let place = text.rsplit_once('~');
            let place =
                place.and_then(|(name, token)| Some((name.to_owned(), token.parse().ok()?)));
            let problem =
                || Problem::malformed(format!("`after` is no `next` of a page: `{text}`"));
            place.ok_or_else(problem)?
        }
    };
    let max = call.query.number("max", 100)?.clamp(1, LEASES_MAX) as usize;
    let held_for = call.query.duration("held_for")?;
    let leases = call.engine.execute(ListLeases { after, held_for, max }).await?;
    // `~` is in no name.
    let next = leases.last().filter(|_| leases.len() >= max);
    let next = next.map(|(resource, holder)| format!("{resource}~{}", holder.token));
    let leases = leases.iter().map(|(resource, it)| {
        let mut shown = holder(it);
        shown["resource"] = resource.clone().into();
        shown
    });
    Ok(json(&json!({ "leases": leases.collect::<Vec<_>>(), "next": next })))
}

async fn leases<E: Engine>(
    call: Call<'_, E>,
    resource: &str,
    rest: &[&str],
) -> Result<Answer, Problem> {
    let (engine, resource) = (call.engine, resource.to_owned());
    match (call.method.as_str(), rest) {
        ("GET", []) if live::wanted(&call) => live::lease(call, resource),
        ("GET", []) => Ok(json(&holders(&engine.execute(GetLease { resource }).await?))),
        ("POST", ["acquire"]) => {
            let draining = call.draining.clone();
            let given: AcquireIn = call.json().await?;
            let acquire = Acquire {
                resource,
                owner: given.owner,
                ttl: given.ttl.unwrap_or(TTL_DEFAULT),
                permits: given.permits.unwrap_or(1),
                wait: given.wait.unwrap_or_default().min(WAIT_MAX),
            };
            let closed = || Err(selvedge_durable::Error::Closed);
            let grant = or_draining(draining, engine.execute(acquire), closed).await?;
            Ok(json(&json!({ "token": grant.token, "until": super::shown::time(grant.until) })))
        }
        ("POST", ["renew"]) => {
            let HeldIn { token, ttl } = call.json().await?;
            let ttl = ttl.unwrap_or(TTL_DEFAULT);
            let until = engine.execute(Renew { resource, token, ttl }).await?;
            Ok(json(&json!({ "until": super::shown::time(until) })))
        }
        ("POST", ["release"]) => {
            let HeldIn { token, .. } = call.json().await?;
            engine.execute(Release { resource, token }).await?;
            Ok(empty())
        }
        _ => Err(call.not_here()),
    }
}

/// The longest page of leases.
const LEASES_MAX: u64 = 1000;

fn holder(it: &Holder) -> Value {
    let since = Some(it.since).filter(|since| *since > Wall::ZERO).map(super::shown::time);
    json!({ "owner": it.owner, "token": it.token, "since": since, "until": super::shown::time(it.until) })
}

/// Who holds a resource.
pub(super) fn holders(holders: &[Holder]) -> Value {
    json!({ "holders": holders.iter().map(holder).collect::<Vec<_>>() })
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OverlapIn {
    Skip,
    Queue,
    Allow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleIn {
    spec: String,
    zone: Option<String>,
    overlap: Option<OverlapIn>,
    /// `skip`, `all:<limit>`, or how late a missed run may still happen once.
    missed: Option<String>,
    topic: String,
    message: MessageIn,
}

impl ScheduleIn {
    fn into_put(self, name: String) -> Result<PutSchedule, Problem> {
        let overlap = match self.overlap {
            None | Some(OverlapIn::Skip) => Overlap::Skip,
            Some(OverlapIn::Queue) => Overlap::Queue,
            Some(OverlapIn::Allow) => Overlap::Allow,
        };
        Ok(PutSchedule {
            name,
            spec: self.spec,
            zone: self.zone.unwrap_or_else(|| "UTC".to_owned()),
            overlap,
            missed: self.missed.as_deref().map_or_else(|| Ok(Missed::default()), missed)?,
            topic: self.topic,
            message: self.message.into_message()?,
        })
    }
}

fn missed(text: &str) -> Result<Missed, Problem> {
    let parsed = if text == "skip" {
        Some(Missed::Skip)
    } else if let Some(limit) = text.strip_prefix("all:") {
        limit
            .parse()
            .ok()
            .filter(|limit| (1..=1000).contains(limit))
            .map(|limit| Missed::All { limit })
    } else {
        wire::duration(text).map(|grace| Missed::Once { grace })
    };
    let problem = || {
        Problem::malformed("`missed` must be `skip`, `all:<1 to 1000>` or a duration".to_owned())
    };
    parsed.ok_or_else(problem)
}

fn schedule(schedule: &Schedule) -> Value {
    json!({
        "name": schedule.name, "spec": schedule.spec, "zone": schedule.zone,
        "topic": schedule.topic, "next": schedule.next.map(super::shown::time), "last": schedule.last,
    })
}
