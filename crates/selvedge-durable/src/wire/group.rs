//! Groups: who processes what.

use std::time::Duration;

use selvedge_patterns::{
    group::{Cause, Settled, Stale, Verdict},
    limit,
    wall::Wall,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use super::{
    Malformed, Shown,
    text::{At, Id, Often, Span, Text, Time},
    topic::Message,
};
use crate::{
    Operation, filter,
    group::{
        self, Config, DeleteGroup, Delivery, Discard, Full, GetGroup, ListDeadLetters, ListGroups,
        PutGroup, Redrive, Reply,
    },
    topic::From as Place,
};

/// How a group hands out messages; what is not named has its default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    attempts: u32,
    /// Deliveries at once under the rate; as many as it counts unless said.
    burst: Option<u32>,
    dead_letters_age: Option<Span>,
    dead_letters_full: WhenFull,
    /// `0` for no bound.
    dead_letters_max: u64,
    exceptions_max: u32,
    exclusive: Alone,
    /// Which messages it wants.
    filter: Option<Value>,
    /// Where a new group begins; the oldest message unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<At>,
    in_flight_max: u32,
    lease: Span,
    ordered: bool,
    rate: Option<Often>,
    retry_base: Span,
    retry_cap: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(Config::default(), None)
    }
}

impl Settings {
    fn new(config: Config, from: Option<Place>) -> Self {
        let Config {
            lease,
            attempts,
            ordered,
            in_flight_max,
            exceptions_max,
            retry_base,
            retry_cap,
            rate,
            filter,
            exclusive,
            letters,
        } = config;
        Self {
            attempts,
            burst: rate.map(|it| it.burst),
            exceptions_max,
            exclusive: Alone(exclusive),
            dead_letters_age: letters.age.map(Span),
            dead_letters_full: WhenFull(letters.full),
            dead_letters_max: letters.max.unwrap_or(0),
            filter: filter.as_ref().map(filter::show),
            from: from.map(At),
            in_flight_max,
            lease: Span(lease),
            ordered,
            rate: rate.map(|it| Often(it.rate)),
            retry_base: Span(retry_base),
            retry_cap: Span(retry_cap),
        }
    }

    /// How it hands out messages, and where a new group begins.
    ///
    /// # Errors
    ///
    /// A burst without a rate; a filter that is none.
    pub fn into_config(self) -> Result<(Config, Place), Malformed> {
        let rate = match (self.rate, self.burst) {
            (Some(Often(rate)), burst) => {
                let burst = burst.unwrap_or(rate.count);
                Some(limit::Config { rate, burst, ..limit::Config::default() })
            }
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Malformed::Form("`burst` needs a `rate` beside it".into()));
            }
        };
        let config = Config {
            lease: self.lease.0,
            attempts: self.attempts,
            ordered: self.ordered,
            in_flight_max: self.in_flight_max,
            exceptions_max: self.exceptions_max,
            retry_base: self.retry_base.0,
            retry_cap: self.retry_cap.0,
            rate,
            filter: self.filter.as_ref().map(filter::parse).transpose()?,
            exclusive: self.exclusive.0,
            letters: group::Letters {
                max: Some(self.dead_letters_max).filter(|max| *max > 0),
                full: self.dead_letters_full.0,
                age: self.dead_letters_age.map(|it| it.0),
            },
        };
        Ok((config, self.from.map_or(Place::First, |it| it.0)))
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", remote = "Full")]
enum FullForm {
    Hold,
    DropOldest,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct WhenFull(#[serde(with = "FullForm")] Full);

/// Whether one consumer is served at a time: `true`, `false`, or how long it may
/// be silent.
#[derive(Clone, Copy, Debug)]
struct Alone(Option<Duration>);

/// How long that is, unless said otherwise.
const ALONE_FOR: Duration = Duration::from_secs(30);

impl Serialize for Alone {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(ttl) => Span(ttl).serialize(to),
            None => to.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for Alone {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::Bool(false) | Value::Null => Ok(Self(None)),
            Value::Bool(true) => Ok(Self(Some(ALONE_FOR))),
            text => {
                let ttl = Span::deserialize(text).map_err(D::Error::custom)?;
                Ok(Self(Some(ttl.0)))
            }
        }
    }
}

/// Where a group stands.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    active: Option<Active>,
    attempts_most: u32,
    dead: u64,
    dropped: u64,
    group: String,
    in_flight: u64,
    lag: u64,
    oldest: Option<Time>,
    paused: bool,
    throttled_until: Option<Time>,
    topic: String,
    waiting: u64,
    #[serde(flatten)]
    settings: Settings,
}

#[derive(Debug, Serialize, Deserialize)]
struct Active {
    consumer: String,
    since: Time,
    token: u64,
    until: Time,
}

impl From<group::Active> for Active {
    fn from(active: group::Active) -> Self {
        let group::Active { consumer, token, since, until } = active;
        Self { consumer: (*consumer).to_owned(), since: Time(since), token, until: Time(until) }
    }
}

impl From<Active> for group::Active {
    fn from(given: Active) -> Self {
        let Active { consumer, since, token, until } = given;
        Self { consumer: consumer.into(), token, since: since.0, until: until.0 }
    }
}

impl From<&group::Status> for Status {
    fn from(status: &group::Status) -> Self {
        let group::Status {
            topic,
            group,
            config,
            paused,
            throttled,
            lag,
            in_flight,
            waiting,
            dead,
            oldest,
            attempts_most,
            active,
            dropped,
        } = status.clone();
        Self {
            dropped,
            active: active.map(Active::from),
            attempts_most,
            dead,
            group,
            in_flight,
            lag,
            oldest: oldest.map(Time),
            paused,
            throttled_until: throttled.map(Time),
            topic,
            waiting,
            settings: Settings::new(config, None),
        }
    }
}

impl TryFrom<Status> for group::Status {
    type Error = Malformed;

    fn try_from(given: Status) -> Result<Self, Malformed> {
        Ok(Self {
            topic: given.topic,
            group: given.group,
            config: given.settings.into_config()?.0,
            paused: given.paused,
            throttled: given.throttled_until.map(|it| it.0),
            lag: given.lag,
            in_flight: given.in_flight,
            waiting: given.waiting,
            dead: given.dead,
            oldest: given.oldest.map(|it| it.0),
            attempts_most: given.attempts_most,
            active: given.active.map(Into::into),
            dropped: given.dropped,
        })
    }
}

/// Creates a group, or changes how one works.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    topic: String,
    group: String,
    #[serde(default)]
    settings: Settings,
}

impl From<PutGroup> for Put {
    fn from(put: PutGroup) -> Self {
        let PutGroup { topic, group, config, from } = put;
        Self { topic, group, settings: Settings::new(config, Some(from)) }
    }
}

impl TryFrom<Put> for Operation {
    type Error = Malformed;

    fn try_from(given: Put) -> Result<Self, Malformed> {
        let Put { topic, group, settings } = given;
        let (config, from) = settings.into_config()?;
        Ok(Self::PutGroup(PutGroup { topic, group, config, from }))
    }
}

/// One group.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    topic: String,
    group: String,
}

impl Named {
    pub(super) const fn new(topic: String, group: String) -> Self {
        Self { topic, group }
    }

    pub(super) fn delete(self) -> Operation {
        Operation::DeleteGroup(DeleteGroup { topic: self.topic, group: self.group })
    }

    pub(super) fn get(self) -> Operation {
        Operation::GetGroup(GetGroup { topic: self.topic, group: self.group })
    }
}

/// All groups of a topic, or of all topics.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
}

impl From<ListGroups> for List {
    fn from(list: ListGroups) -> Self {
        Self { topic: list.topic }
    }
}

impl From<List> for Operation {
    fn from(given: List) -> Self {
        Self::ListGroups(ListGroups { topic: given.topic })
    }
}

/// Takes messages to process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receive {
    topic: String,
    group: String,
    #[serde(default = "ten")]
    max: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
}

/// A consumer of an exclusive group goes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leave {
    topic: String,
    group: String,
    consumer: String,
}

impl From<group::Leave> for Leave {
    fn from(leave: group::Leave) -> Self {
        let group::Leave { topic, group, consumer } = leave;
        Self { topic, group, consumer }
    }
}

impl From<Leave> for Operation {
    fn from(given: Leave) -> Self {
        let Leave { topic, group, consumer } = given;
        Self::Leave(group::Leave { topic, group, consumer })
    }
}

/// Whether it was served.
#[derive(Debug, Serialize, Deserialize)]
pub struct Left {
    pub(super) left: bool,
}

const fn ten() -> usize {
    10
}

impl From<group::Receive> for Receive {
    fn from(receive: group::Receive) -> Self {
        let group::Receive { topic, group, max, lease, consumer, wait } = receive;
        let wait = (!wait.is_zero()).then_some(Span(wait));
        Self { topic, group, max, wait, lease: lease.map(Span), consumer }
    }
}

impl From<Receive> for Operation {
    fn from(given: Receive) -> Self {
        let Receive { topic, group, max, wait, lease, consumer } = given;
        let wait = wait.map_or_else(Default::default, |it| it.0);
        let lease = lease.map(|it| it.0);
        Self::Receive(group::Receive { topic, group, max, lease, consumer, wait })
    }
}

/// One word on several deliveries; which word is in the operation's name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    topic: String,
    group: String,
    ids: Vec<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Answered {
    pub(super) fn ack(self, strict: bool) -> Operation {
        self.settle(Verdict::Ack, strict)
    }

    pub(super) fn nack(self, strict: bool) -> Operation {
        let verdict = Verdict::Retry { after: self.after.map(|it| it.0) };
        self.settle(verdict, strict)
    }

    pub(super) fn give_back(self, strict: bool) -> Operation {
        let after = self.after.map_or(Duration::ZERO, |it| it.0);
        self.settle(Verdict::Release { after }, strict)
    }

    pub(super) fn park(self, strict: bool) -> Operation {
        self.settle(Verdict::Park, strict)
    }

    fn settle(self, verdict: Verdict, strict: bool) -> Operation {
        let Self { topic, group, ids, reason, .. } = self;
        let reply = |id: Id| Reply { receipt: id.0, verdict, reason: reason.clone() };
        let replies = ids.into_iter().map(reply).collect();
        Operation::Settle(group::Settle { topic, group, replies, strict })
    }
}

/// A word on each of several deliveries.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    topic: String,
    group: String,
    replies: Vec<Word>,
    /// Fails as a whole if one receipt is stale. In a transaction yes unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    id: Id,
    verdict: Verb,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Span>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verb {
    Ack,
    Nack,
    Park,
    Release,
}

impl From<Reply> for Word {
    fn from(reply: Reply) -> Self {
        let (verdict, after) = match reply.verdict {
            Verdict::Ack => (Verb::Ack, None),
            Verdict::Retry { after } => (Verb::Nack, after),
            Verdict::Park => (Verb::Park, None),
            Verdict::Release { after } => (Verb::Release, Some(after)),
        };
        Self { id: Id(reply.receipt), verdict, after: after.map(Span), reason: reply.reason }
    }
}

impl From<Word> for Reply {
    fn from(given: Word) -> Self {
        let after = given.after.map(|it| it.0);
        let verdict = match given.verdict {
            Verb::Ack => Verdict::Ack,
            Verb::Nack => Verdict::Retry { after },
            Verb::Park => Verdict::Park,
            Verb::Release => Verdict::Release { after: after.unwrap_or_default() },
        };
        Self { receipt: given.id.0, verdict, reason: given.reason }
    }
}

impl From<group::Settle> for Settle {
    fn from(settle: group::Settle) -> Self {
        let group::Settle { topic, group, replies, strict } = settle;
        let replies = replies.into_iter().map(Word::from).collect();
        Self { topic, group, replies, strict: Some(strict) }
    }
}

impl Settle {
    pub(super) fn into_operation(self, strict: bool) -> Operation {
        let Self { topic, group, replies, strict: own } = self;
        let replies = replies.into_iter().map(Reply::from).collect();
        let strict = own.unwrap_or(strict);
        Operation::Settle(group::Settle { topic, group, replies, strict })
    }
}

/// Holds deliveries for longer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    topic: String,
    group: String,
    ids: Vec<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<Span>,
}

impl From<group::Extend> for Extend {
    fn from(extend: group::Extend) -> Self {
        let group::Extend { topic, group, receipts, lease } = extend;
        Self { topic, group, ids: receipts.into_iter().map(Id).collect(), lease: lease.map(Span) }
    }
}

impl From<Extend> for Operation {
    fn from(given: Extend) -> Self {
        let Extend { topic, group, ids, lease } = given;
        let receipts = ids.into_iter().map(|id| id.0).collect();
        Self::Extend(group::Extend { topic, group, receipts, lease: lease.map(|it| it.0) })
    }
}

/// Stops handing out messages, or goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    topic: String,
    group: String,
    #[serde(default = "yes")]
    paused: bool,
}

const fn yes() -> bool {
    true
}

impl From<group::Pause> for Pause {
    fn from(pause: group::Pause) -> Self {
        let group::Pause { topic, group, paused } = pause;
        Self { topic, group, paused }
    }
}

impl From<Pause> for Operation {
    fn from(given: Pause) -> Self {
        let Pause { topic, group, paused } = given;
        Self::Pause(group::Pause { topic, group, paused })
    }
}

/// Moves a group to another place in the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seek {
    topic: String,
    group: String,
    to: At,
}

impl From<group::Seek> for Seek {
    fn from(seek: group::Seek) -> Self {
        let group::Seek { topic, group, to } = seek;
        Self { topic, group, to: At(to) }
    }
}

impl From<Seek> for Operation {
    fn from(given: Seek) -> Self {
        let Seek { topic, group, to } = given;
        Self::Seek(group::Seek { topic, group, to: to.0 })
    }
}

/// Dead letters of a group by position; none named means all.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Letters {
    topic: String,
    group: String,
    #[serde(default)]
    positions: Vec<u64>,
}

impl From<Redrive> for Letters {
    fn from(redrive: Redrive) -> Self {
        let Redrive { topic, group, positions } = redrive;
        Self { topic, group, positions }
    }
}

impl From<Discard> for Letters {
    fn from(discard: Discard) -> Self {
        let Discard { topic, group, positions } = discard;
        Self { topic, group, positions }
    }
}

impl Letters {
    pub(super) fn redrive(self) -> Operation {
        let Self { topic, group, positions } = self;
        Operation::Redrive(Redrive { topic, group, positions })
    }

    pub(super) fn discard(self) -> Operation {
        let Self { topic, group, positions } = self;
        Operation::Discard(Discard { topic, group, positions })
    }
}

/// Reads dead letters.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadLetters {
    topic: String,
    group: String,
    #[serde(default)]
    from: u64,
    #[serde(default = "super::page")]
    max: usize,
}

impl From<ListDeadLetters> for ReadLetters {
    fn from(list: ListDeadLetters) -> Self {
        let ListDeadLetters { topic, group, from, max } = list;
        Self { topic, group, from, max }
    }
}

impl From<ReadLetters> for Operation {
    fn from(given: ReadLetters) -> Self {
        let ReadLetters { topic, group, from, max } = given;
        Self::ListDeadLetters(ListDeadLetters { topic, group, from, max })
    }
}

impl Message {
    /// How a delivery looks.
    #[must_use]
    pub fn delivery(delivery: &Delivery, shown: Shown) -> Self {
        let mut out = Self::new(&delivery.message, shown);
        out.id = Some(Id(delivery.receipt));
        out.attempt = Some(delivery.receipt.attempt);
        out.until = Some(Time(delivery.until));
        out
    }
}

impl TryFrom<Message> for Delivery {
    type Error = Malformed;

    fn try_from(given: Message) -> Result<Self, Malformed> {
        let (Some(id), Some(until)) = (given.id, given.until) else {
            return Err(Malformed::Form("a delivery lacks `id` or `until`".into()));
        };
        Ok(Self { receipt: id.0, until: until.0, message: given.into() })
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", remote = "Cause")]
enum CauseForm {
    Attempts,
    LeaseExpired,
    Parked,
    BehindKey,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Why(#[serde(with = "CauseForm")] Cause);

/// A message that the group gave up on.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    attempts: u32,
    cause: Why,
    dead_at: Time,
    reason: Option<String>,
    #[serde(flatten)]
    message: Message,
}

impl DeadLetter {
    /// How a dead letter looks.
    #[must_use]
    pub fn new(letter: &group::DeadLetter, shown: Shown) -> Self {
        Self {
            attempts: letter.attempts,
            cause: Why(letter.cause),
            dead_at: Time(letter.at),
            reason: letter.reason.clone(),
            message: Message::new(&letter.message, shown),
        }
    }
}

impl From<DeadLetter> for group::DeadLetter {
    fn from(given: DeadLetter) -> Self {
        Self {
            message: given.message.into(),
            cause: given.cause.0,
            reason: given.reason,
            attempts: given.attempts,
            at: given.dead_at.0,
        }
    }
}

/// A receipt that is not that of the last delivery.
#[derive(Debug, Serialize, Deserialize)]
struct Refused {
    code: Text,
    id: Id,
}

/// What became of one delivery, in the order in which they were named.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Became {
    /// It will be offered again then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Time>,
    /// Why it is a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Why>,
    /// Until when it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
    /// Nothing became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stale: Option<Late>,
}

/// A receipt that came too late, and the attempt and fence that count instead.
#[derive(Debug, Serialize, Deserialize)]
struct Late {
    id: Id,
    latest: Option<(u32, u64)>,
}

impl Became {
    fn stale(stale: &Stale) -> Self {
        let late = Late { id: Id(stale.presented), latest: stale.current };
        Self { stale: Some(late), ..Self::default() }
    }
}

impl From<Late> for Stale {
    fn from(given: Late) -> Self {
        Self { presented: given.id.0, current: given.latest }
    }
}

/// The code of a stale receipt.
const STALE: Text = Text::Borrowed("SV0414");

fn refused(stale: &Stale) -> Refused {
    Refused { code: STALE, id: Id(stale.presented) }
}

/// What became of deliveries that were answered. An ordinary answer names the
/// stale receipts and counts the others; an exact one has a word on each.
#[derive(Debug, Serialize, Deserialize)]
pub struct AllSettled {
    dead: usize,
    settled: usize,
    stale: Vec<Refused>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verdicts: Option<Vec<Became>>,
}

impl AllSettled {
    /// How the answer to a settlement looks.
    #[must_use]
    pub fn new(answers: &[Result<Settled, Stale>], shown: Shown) -> Self {
        let became = |answer: &Result<Settled, Stale>| match answer {
            Err(stale) => Became::stale(stale),
            Ok(Settled::Acked) => Became::default(),
            Ok(Settled::Retry { at }) => Became { at: Some(Time(*at)), ..Became::default() },
            Ok(Settled::Dead(cause)) => Became { cause: Some(Why(*cause)), ..Became::default() },
        };
        let stale: Vec<_> =
            answers.iter().filter_map(|answer| answer.as_ref().err()).map(refused).collect();
        Self {
            dead: answers.iter().filter(|it| matches!(it, Ok(Settled::Dead(_)))).count(),
            settled: answers.len() - stale.len(),
            stale,
            verdicts: (shown == Shown::Exact).then(|| answers.iter().map(became).collect()),
        }
    }

    pub(super) fn into_answers(self) -> Result<Vec<Result<Settled, Stale>>, Malformed> {
        let verdicts =
            self.verdicts.ok_or_else(|| Malformed::Form("`verdicts` is missing".into()))?;
        let settled = |became: Became| match became {
            Became { stale: Some(late), .. } => Err(late.into()),
            Became { cause: Some(Why(cause)), .. } => Ok(Settled::Dead(cause)),
            Became { at: Some(Time(at)), .. } => Ok(Settled::Retry { at }),
            _ => Ok(Settled::Acked),
        };
        Ok(verdicts.into_iter().map(settled).collect())
    }
}

/// What became of deliveries that were to be held for longer.
#[derive(Debug, Serialize, Deserialize)]
pub struct AllExtended {
    stale: Vec<Refused>,
    until: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verdicts: Option<Vec<Became>>,
}

impl AllExtended {
    /// How the answer to an extension looks.
    #[must_use]
    pub fn new(answers: &[Result<Wall, Stale>], shown: Shown) -> Self {
        let became = |answer: &Result<Wall, Stale>| match answer {
            Err(stale) => Became::stale(stale),
            Ok(until) => Became { until: Some(Time(*until)), ..Became::default() },
        };
        Self {
            stale: answers.iter().filter_map(|answer| answer.as_ref().err()).map(refused).collect(),
            until: answers.iter().find_map(|answer| answer.as_ref().ok().copied()).map(Time),
            verdicts: (shown == Shown::Exact).then(|| answers.iter().map(became).collect()),
        }
    }

    pub(super) fn into_answers(self) -> Result<Vec<Result<Wall, Stale>>, Malformed> {
        let verdicts =
            self.verdicts.ok_or_else(|| Malformed::Form("`verdicts` is missing".into()))?;
        let extended = |became: Became| match (became.stale, became.until) {
            (Some(late), _) => Ok(Err(late.into())),
            (None, Some(until)) => Ok(Ok(until.0)),
            (None, None) => Err(Malformed::Form("`until` is missing".into())),
        };
        verdicts.into_iter().map(extended).collect()
    }
}

/// Several groups.
#[derive(Debug, Serialize, Deserialize)]
pub struct Groups {
    pub(super) groups: Vec<Status>,
}

/// Several dead letters.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeadLetters {
    pub(super) dead_letters: Vec<DeadLetter>,
}

/// How many dead letters went back.
#[derive(Debug, Serialize, Deserialize)]
pub struct Redriven {
    pub(super) redriven: u64,
}

/// How many dead letters went.
#[derive(Debug, Serialize, Deserialize)]
pub struct Discarded {
    pub(super) discarded: u64,
}
