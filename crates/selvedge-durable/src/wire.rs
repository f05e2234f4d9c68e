//! How operations, answers and errors look in JSON: one definition for the
//! server that reads and the client that writes them.
//!
//! An operation is an object with one key, which says what to do. What reads a
//! request refuses unknown fields, so that a slip does not pass for a default;
//! what reads an answer passes over them, so that a later server may say more.
//!
//! An answer has several forms: [`Shown::Readable`] for people and scripts,
//! [`Shown::Exact`] for programs, which loses nothing. Deliberately absent:
//! HTTP, and what is done about a request that cannot be read.

mod failure;
mod group;
mod lease;
mod schedule;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod text;
mod topic;

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess},
};
use serde_json::Value;

pub use self::{
    failure::{Facts, Failure},
    group::{
        AllExtended, AllSettled, Answered, DeadLetter, DeadLetters, Discarded, Extend, Groups,
        Leave, Left, Letters, List as ListGroups, Named as GroupNamed, Pause, Put as PutGroup,
        ReadLetters, Receive, Redriven, Seek, Settings as GroupSettings, Settle, Status,
    },
    lease::{
        Acquire, Granted, Held, Holders, Leases, List as ListLeases, Named as LeaseNamed, Renewed,
    },
    schedule::{Named as ScheduleNamed, Put as PutSchedule, Schedule, ScheduleIn, Schedules},
    state::{
        Delete as DeleteState, Get as GetState, Kept, Keys, List as ListState, Put as PutState,
        Written,
    },
    stream::{
        Append, Appended, Delete as DeleteStream, EXPECTED, Event, EventIn, Events, Expected,
        Latest, Page, Read as ReadStream, ReadAll, SnapshotIn, SnapshotOf, Truncate, WriteIn,
    },
    text::{At, Base64, Id, Span, Tag, Time, base64, duration, instant, place, receipt, to_base64},
    topic::{
        AllPublished, Cancel, Headers, Message, MessageIn, Messages, Named as TopicNamed, Publish,
        Published, Put as PutTopic, Read as ReadTopic, Settings as TopicSettings, Topic, Topics,
    },
};
use crate::{Answer, Error, Operation, operation::Kind};

/// Why a request makes no operation.
#[derive(Clone, Debug)]
pub enum Malformed {
    /// It lacks something, or has too much of it.
    Form(Cow<'static, str>),
    /// A value in it makes no sense.
    Value(Error),
}

impl From<Error> for Malformed {
    fn from(error: Error) -> Self {
        Self::Value(error)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(text) => f.write_str(text),
            Self::Value(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Malformed {}

/// How answers are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Content as `data` if it is JSON by its type, or text; else as `data_base64`.
    #[default]
    Readable,
    /// Content always as base64, in `data`: quick to write and to read.
    Base64,
    /// Nothing is lost: content always as `data_base64`, headers in their
    /// order, a word on each receipt.
    Exact,
}

/// Items of a page that says nothing else.
const fn page() -> usize {
    100
}

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant holds the documented form of its name")]
pub enum Asked {
    Publish(Publish),
    Receive(Receive),
    Ack(Answered),
    Nack(Answered),
    GiveBack(Answered),
    Park(Answered),
    Settle(Settle),
    Extend(Extend),
    Leave(Leave),
    Append(Append),
    PutState(PutState),
    DeleteState(DeleteState),
    GetState(GetState),
    ListState(ListState),
    CheckFence(Held),
    Acquire(Acquire),
    Renew(Held),
    Release(Held),
    GetLease(LeaseNamed),
    ListLeases(ListLeases),
    PutTopic(PutTopic),
    DeleteTopic(TopicNamed),
    GetTopic(TopicNamed),
    ListTopics(Nothing),
    ReadTopic(ReadTopic),
    CancelDelayed(Cancel),
    PutGroup(PutGroup),
    DeleteGroup(GroupNamed),
    GetGroup(GroupNamed),
    ListGroups(ListGroups),
    ListDeadLetters(ReadLetters),
    Pause(Pause),
    Seek(Seek),
    Redrive(Letters),
    Discard(Letters),
    ReadStream(ReadStream),
    ReadEvents(ReadAll),
    TruncateStream(Truncate),
    DeleteStream(DeleteStream),
    PutSnapshot(SnapshotIn),
    GetSnapshot(SnapshotOf),
    PutSchedule(PutSchedule),
    DeleteSchedule(ScheduleNamed),
    ListSchedules(Nothing),
    Transact(Transaction),
}

/// An object without fields.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Several operations, all or none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    operations: Vec<Line>,
}

impl Transaction {
    /// What they ask for. A stale receipt fails all, unless one says otherwise.
    ///
    /// # Errors
    ///
    /// What is wrong with one of them.
    pub fn into_operations(self) -> Result<Vec<Operation>, Malformed> {
        self.operations.into_iter().map(|line| line.asked.into_operation(true)).collect()
    }
}

/// One operation of a pipeline or a transaction.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Comes back with the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// Whether the answer is to be [`Shown::Exact`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
    /// What is asked.
    #[serde(flatten)]
    pub asked: Asked,
}

impl Asked {
    /// The operations that it asks for, which succeed or fail together. Unless
    /// it says so itself, one stale receipt fails all if `strict`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn into_operations(self, strict: bool) -> Result<Vec<Operation>, Malformed> {
        match self {
            Self::Transact(transaction) => transaction.into_operations(),
            single => single.into_operation(strict).map(|operation| vec![operation]),
        }
    }

    fn into_operation(self, strict: bool) -> Result<Operation, Malformed> {
        Ok(match self {
            Self::Publish(it) => it.try_into()?,
            Self::Receive(it) => it.into(),
            Self::Ack(it) => it.ack(strict),
            Self::Nack(it) => it.nack(strict),
            Self::GiveBack(it) => it.give_back(strict),
            Self::Park(it) => it.park(strict),
            Self::Settle(it) => it.into_operation(strict),
            Self::Extend(it) => it.into(),
            Self::Leave(it) => it.into(),
            Self::Append(it) => Operation::Append(it.try_into()?),
            Self::PutState(it) => it.try_into()?,
            Self::DeleteState(it) => it.try_into()?,
            Self::GetState(it) => it.into(),
            Self::ListState(it) => it.into(),
            Self::CheckFence(it) => it.check(),
            Self::Acquire(it) => it.into(),
            Self::Renew(it) => it.renew(),
            Self::Release(it) => it.release(),
            Self::GetLease(it) => it.into(),
            Self::ListLeases(it) => it.into(),
            Self::PutTopic(it) => it.try_into()?,
            Self::DeleteTopic(it) => it.delete(),
            Self::GetTopic(it) => it.get(),
            Self::ListTopics(Nothing {}) => Operation::ListTopics(crate::topic::ListTopics),
            Self::ReadTopic(it) => it.into(),
            Self::CancelDelayed(it) => it.into(),
            Self::PutGroup(it) => it.try_into()?,
            Self::DeleteGroup(it) => it.delete(),
            Self::GetGroup(it) => it.get(),
            Self::ListGroups(it) => it.into(),
            Self::ListDeadLetters(it) => it.into(),
            Self::Pause(it) => it.into(),
            Self::Seek(it) => it.into(),
            Self::Redrive(it) => it.redrive(),
            Self::Discard(it) => it.discard(),
            Self::ReadStream(it) => it.into(),
            Self::ReadEvents(it) => it.into(),
            Self::TruncateStream(it) => it.into(),
            Self::DeleteStream(it) => it.into(),
            Self::PutSnapshot(it) => it.into(),
            Self::GetSnapshot(it) => it.into(),
            Self::PutSchedule(it) => it.try_into()?,
            Self::DeleteSchedule(it) => it.into(),
            Self::ListSchedules(Nothing {}) => {
                Operation::ListSchedules(crate::schedule::ListSchedules)
            }
            Self::Transact(_) => {
                return Err(Malformed::Form("a transaction does not go into another".into()));
            }
        })
    }

    /// All of `operations`, or none.
    #[must_use]
    pub fn transact(operations: Vec<Operation>) -> Self {
        let line = |operation: Operation| Line { id: None, exact: false, asked: operation.into() };
        let operations = operations.into_iter().map(line).collect();
        Self::Transact(Transaction { operations })
    }
}

impl From<Operation> for Asked {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::PutTopic(it) => Self::PutTopic(it.into()),
            Operation::DeleteTopic(it) => Self::DeleteTopic(TopicNamed::new(it.name)),
            Operation::Publish(it) => Self::Publish(it.into()),
            Operation::CancelDelayed(it) => Self::CancelDelayed(it.into()),
            Operation::PutGroup(it) => Self::PutGroup(it.into()),
            Operation::DeleteGroup(it) => Self::DeleteGroup(GroupNamed::new(it.topic, it.group)),
            Operation::Receive(it) => Self::Receive(it.into()),
            Operation::Settle(it) => Self::Settle(it.into()),
            Operation::Extend(it) => Self::Extend(it.into()),
            Operation::Leave(it) => Self::Leave(it.into()),
            Operation::Pause(it) => Self::Pause(it.into()),
            Operation::Seek(it) => Self::Seek(it.into()),
            Operation::Redrive(it) => Self::Redrive(it.into()),
            Operation::Discard(it) => Self::Discard(it.into()),
            Operation::Append(it) => Self::Append(it.into()),
            Operation::TruncateStream(it) => Self::TruncateStream(it.into()),
            Operation::DeleteStream(it) => Self::DeleteStream(it.into()),
            Operation::PutSnapshot(it) => Self::PutSnapshot(it.into()),
            Operation::PutState(it) => Self::PutState(it.into()),
            Operation::DeleteState(it) => Self::DeleteState(it.into()),
            Operation::Acquire(it) => Self::Acquire(it.into()),
            Operation::Renew(it) => Self::Renew(it.into()),
            Operation::Release(it) => Self::Release(it.into()),
            Operation::CheckFence(it) => Self::CheckFence(it.into()),
            Operation::PutSchedule(it) => Self::PutSchedule(it.into()),
            Operation::DeleteSchedule(it) => Self::DeleteSchedule(it.into()),
            Operation::GetTopic(it) => Self::GetTopic(TopicNamed::new(it.name)),
            Operation::ListTopics(_) => Self::ListTopics(Nothing {}),
            Operation::ReadTopic(it) => Self::ReadTopic(it.into()),
            Operation::GetGroup(it) => Self::GetGroup(GroupNamed::new(it.topic, it.group)),
            Operation::ListGroups(it) => Self::ListGroups(it.into()),
            Operation::ListDeadLetters(it) => Self::ListDeadLetters(it.into()),
            Operation::ReadStream(it) => Self::ReadStream(it.into()),
            Operation::ReadEvents(it) => Self::ReadEvents(it.into()),
            Operation::GetSnapshot(it) => Self::GetSnapshot(it.into()),
            Operation::GetState(it) => Self::GetState(it.into()),
            Operation::ListState(it) => Self::ListState(it.into()),
            Operation::GetLease(it) => Self::GetLease(it.into()),
            Operation::ListLeases(it) => Self::ListLeases(it.into()),
            Operation::ListSchedules(_) => Self::ListSchedules(Nothing {}),
        }
    }
}

/// The key of a line.
enum Name {
    Id,
    Exact,
    Asked(String),
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an operation")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
                Ok(match text {
                    "id" => Name::Id,
                    "exact" => Name::Exact,
                    other => Name::Asked(other.to_owned()),
                })
            }
        }
        from.deserialize_identifier(Text)
    }
}

/// A key that was read and its value that was not: a variant of an enum.
struct Keyed<'a, A>(&'a mut A, String);

impl<'de, A: MapAccess<'de>> EnumAccess<'de> for Keyed<'_, A> {
    type Error = A::Error;
    type Variant = Self;
    fn variant_seed<V: DeserializeSeed<'de>>(
        mut self,
        seed: V,
    ) -> Result<(V::Value, Self), A::Error> {
        let name = std::mem::take(&mut self.1);
        let variant = seed.deserialize(de::value::StringDeserializer::new(name))?;
        Ok((variant, self))
    }
}

impl<'de, A: MapAccess<'de>> VariantAccess<'de> for Keyed<'_, A> {
    type Error = A::Error;
    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.next_value()
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
    fn tuple_variant<V: de::Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, A::Error> {
        Err(de::Error::custom("an operation is no list"))
    }
    fn struct_variant<V: de::Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, A::Error> {
        Err(de::Error::custom("an operation has a form of its own"))
    }
}

impl<'de, A: MapAccess<'de>> Deserializer<'de> for Keyed<'_, A> {
    type Error = A::Error;
    fn deserialize_any<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, A::Error> {
        visitor.visit_enum(self)
    }
    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> de::Visitor<'de> for Keys {
            type Value = Line;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one key such as `publish` or `ack`")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
                let (mut id, mut exact, mut asked) = (None, false, None);
                while let Some(name) = map.next_key()? {
                    match name {
                        Name::Id => id = map.next_value()?,
                        Name::Exact => exact = map.next_value()?,
                        Name::Asked(name) => {
                            let one = Asked::deserialize(Keyed(&mut map, name))?;
                            if asked.replace(one).is_some() {
                                return Err(de::Error::custom(ONE_KEY));
                            }
                        }
                    }
                }
                let asked = asked.ok_or_else(|| de::Error::custom(ONE_KEY))?;
                Ok(Line { id, exact, asked })
            }
        }
        from.deserialize_map(Keys)
    }
}

const ONE_KEY: &str = "an operation is an object with one key such as `publish` or `ack`";

/// What came of an operation.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "each variant holds the documented form of its name")]
pub enum Came {
    Nothing(Nothing),
    Failure(Box<Failure>),
    Published(AllPublished),
    Messages(Messages),
    Settled(AllSettled),
    Extended(AllExtended),
    Left(Left),
    Appended(Appended),
    Written(Written),
    Kept(Kept),
    Keys(Keys),
    Granted(Granted),
    Renewed(Renewed),
    Holders(Holders),
    Leases(Leases),
    Topic(Topic),
    Topics(Topics),
    Group(Status),
    Groups(Groups),
    DeadLetters(DeadLetters),
    Redriven(Redriven),
    Discarded(Discarded),
    Events(Events),
    Page(Page),
    Latest(Latest),
    Schedule(Schedule),
    Schedules(Schedules),
    Answers(Answers),
}

/// What came of several operations, in their order.
#[derive(Debug, Serialize)]
pub struct Answers {
    answers: Vec<Came>,
}

impl Answers {
    /// How several answers look.
    #[must_use]
    pub fn new(answers: &[Answer], shown: Shown) -> Self {
        Self { answers: answers.iter().map(|answer| Came::new(answer, shown)).collect() }
    }
}

impl Came {
    /// How an answer looks.
    #[must_use]
    pub fn new(answer: &Answer, shown: Shown) -> Self {
        match answer {
            Answer::PutTopic(topic) | Answer::GetTopic(topic) => Self::Topic(topic.into()),
            Answer::ListTopics(all) => {
                Self::Topics(Topics { topics: all.iter().map(Topic::from).collect() })
            }
            Answer::Publish(all) => {
                let published = all.iter().map(Published::from).collect();
                Self::Published(AllPublished { published })
            }
            Answer::ReadTopic(all) => {
                let messages = all.iter().map(|it| Message::new(it, shown)).collect();
                Self::Messages(Messages { messages })
            }
            Answer::PutGroup(status) | Answer::GetGroup(status) => Self::Group(status.into()),
            Answer::ListGroups(all) => {
                Self::Groups(Groups { groups: all.iter().map(Status::from).collect() })
            }
            Answer::Receive(all) => {
                let messages = all.iter().map(|it| Message::delivery(it, shown)).collect();
                Self::Messages(Messages { messages })
            }
            Answer::Settle(answers) => Self::Settled(AllSettled::new(answers, shown)),
            Answer::Extend(answers) => Self::Extended(AllExtended::new(answers, shown)),
            Answer::Leave(left) => Self::Left(Left { left: *left }),
            Answer::ListDeadLetters(all) => {
                let dead_letters = all.iter().map(|it| DeadLetter::new(it, shown)).collect();
                Self::DeadLetters(DeadLetters { dead_letters })
            }
            Answer::Redrive(redriven) => Self::Redriven(Redriven { redriven: *redriven }),
            Answer::Discard(discarded) => Self::Discarded(Discarded { discarded: *discarded }),
            Answer::Append(appended) => Self::Appended(appended.into()),
            Answer::ReadStream(page) => Self::Page(Page::new(page, shown)),
            Answer::ReadEvents(all) => {
                let events = all.iter().map(|it| Event::new(it, shown)).collect();
                Self::Events(Events { events })
            }
            Answer::GetSnapshot(found) => Self::Latest(found.into()),
            Answer::PutState(tag) => Self::Written(Written { etag: Tag(*tag) }),
            Answer::GetState(value) => Self::Kept(Kept::new(value, shown)),
            Answer::ListState(keys) => Self::Keys(keys.into()),
            Answer::Acquire(grant) => Self::Granted((*grant).into()),
            Answer::Renew(until) => Self::Renewed(Renewed { until: Time(*until) }),
            Answer::GetLease(holders) => Self::Holders(holders[..].into()),
            Answer::ListLeases(leases) => Self::Leases(leases[..].into()),
            Answer::PutSchedule(schedule) => Self::Schedule(schedule.into()),
            Answer::ListSchedules(all) => {
                let schedules = all.iter().map(Schedule::from).collect();
                Self::Schedules(Schedules { schedules })
            }
            Answer::DeleteTopic(())
            | Answer::CancelDelayed(())
            | Answer::DeleteGroup(())
            | Answer::Pause(())
            | Answer::Seek(())
            | Answer::TruncateStream(())
            | Answer::DeleteStream(())
            | Answer::PutSnapshot(())
            | Answer::DeleteState(())
            | Answer::Release(())
            | Answer::CheckFence(())
            | Answer::DeleteSchedule(()) => Self::Nothing(Nothing {}),
        }
    }
}

/// The answer to a line.
#[derive(Debug, Serialize)]
pub struct AnswerLine {
    /// That of the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Value>,
    /// What came of it.
    #[serde(flatten)]
    pub came: Came,
}

/// Reads an exact answer to an operation of one kind.
struct Of(Kind);

impl<'de> DeserializeSeed<'de> for Of {
    type Value = Answer;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Answer, D::Error> {
        let all = |given: Vec<Message>| given.into_iter();
        let nothing = |from: D| de::IgnoredAny::deserialize(from).map(drop);
        Ok(match self.0 {
            Kind::PutTopic => {
                let topic = Topic::deserialize(from)?.try_into();
                Answer::PutTopic(topic.map_err(de::Error::custom)?)
            }
            Kind::GetTopic => {
                let topic = Topic::deserialize(from)?.try_into();
                Answer::GetTopic(topic.map_err(de::Error::custom)?)
            }
            Kind::ListTopics => {
                let topics = Topics::deserialize(from)?.topics.into_iter();
                let topics = topics.map(crate::topic::Topic::try_from);
                Answer::ListTopics(topics.collect::<Result<_, _>>().map_err(de::Error::custom)?)
            }
            Kind::Publish => {
                let published = AllPublished::deserialize(from)?.published.into_iter();
                let published = published.map(crate::topic::Published::try_from);
                Answer::Publish(published.collect::<Result<_, _>>().map_err(de::Error::custom)?)
            }
            Kind::ReadTopic => Answer::ReadTopic(
                all(Messages::deserialize(from)?.messages).map(Into::into).collect(),
            ),
            Kind::PutGroup => {
                let status = Status::deserialize(from)?.try_into();
                Answer::PutGroup(status.map_err(de::Error::custom)?)
            }
            Kind::GetGroup => {
                let status = Status::deserialize(from)?.try_into();
                Answer::GetGroup(status.map_err(de::Error::custom)?)
            }
            Kind::ListGroups => {
                let groups = Groups::deserialize(from)?.groups.into_iter();
                let groups = groups.map(crate::group::Status::try_from);
                Answer::ListGroups(groups.collect::<Result<_, _>>().map_err(de::Error::custom)?)
            }
            Kind::Receive => {
                let got = all(Messages::deserialize(from)?.messages);
                let got = got.map(crate::group::Delivery::try_from);
                Answer::Receive(got.collect::<Result<_, _>>().map_err(de::Error::custom)?)
            }
            Kind::Settle => {
                let answers = AllSettled::deserialize(from)?.into_answers();
                Answer::Settle(answers.map_err(de::Error::custom)?)
            }
            Kind::Extend => {
                let answers = AllExtended::deserialize(from)?.into_answers();
                Answer::Extend(answers.map_err(de::Error::custom)?)
            }
            Kind::Leave => Answer::Leave(Left::deserialize(from)?.left),
            Kind::ListDeadLetters => {
                let letters = DeadLetters::deserialize(from)?.dead_letters.into_iter();
                Answer::ListDeadLetters(letters.map(Into::into).collect())
            }
            Kind::Redrive => Answer::Redrive(Redriven::deserialize(from)?.redriven),
            Kind::Discard => Answer::Discard(Discarded::deserialize(from)?.discarded),
            Kind::Append => Answer::Append(Appended::deserialize(from)?.into()),
            Kind::ReadStream => Answer::ReadStream(Page::deserialize(from)?.into()),
            Kind::ReadEvents => Answer::ReadEvents(
                Events::deserialize(from)?.events.into_iter().map(Into::into).collect(),
            ),
            Kind::GetSnapshot => Answer::GetSnapshot(Latest::deserialize(from)?.into()),
            Kind::PutState => Answer::PutState(Written::deserialize(from)?.etag.0),
            Kind::GetState => {
                let kept = crate::state::Value::try_from(Kept::deserialize(from)?);
                Answer::GetState(kept.map_err(de::Error::custom)?)
            }
            Kind::ListState => Answer::ListState(Keys::deserialize(from)?.into()),
            Kind::Acquire => Answer::Acquire(Granted::deserialize(from)?.into()),
            Kind::Renew => Answer::Renew(Renewed::deserialize(from)?.until.0),
            Kind::GetLease => Answer::GetLease(Holders::deserialize(from)?.into()),
            Kind::ListLeases => Answer::ListLeases(Leases::deserialize(from)?.into()),
            Kind::PutSchedule => Answer::PutSchedule(Schedule::deserialize(from)?.into()),
            Kind::ListSchedules => Answer::ListSchedules(
                Schedules::deserialize(from)?.schedules.into_iter().map(Into::into).collect(),
            ),
            Kind::DeleteTopic => Answer::DeleteTopic(nothing(from)?),
            Kind::CancelDelayed => Answer::CancelDelayed(nothing(from)?),
            Kind::DeleteGroup => Answer::DeleteGroup(nothing(from)?),
            Kind::Pause => Answer::Pause(nothing(from)?),
            Kind::Seek => Answer::Seek(nothing(from)?),
            Kind::TruncateStream => Answer::TruncateStream(nothing(from)?),
            Kind::DeleteStream => Answer::DeleteStream(nothing(from)?),
            Kind::PutSnapshot => Answer::PutSnapshot(nothing(from)?),
            Kind::DeleteState => Answer::DeleteState(nothing(from)?),
            Kind::Release => Answer::Release(nothing(from)?),
            Kind::CheckFence => Answer::CheckFence(nothing(from)?),
            Kind::DeleteSchedule => Answer::DeleteSchedule(nothing(from)?),
        })
    }
}

/// Reads the exact answers to several operations.
struct AllOf<'a>(&'a [Kind]);

impl<'de> DeserializeSeed<'de> for AllOf<'_> {
    type Value = Vec<Answer>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<Answer>, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> de::Visitor<'de> for AllOf<'_> {
    type Value = Vec<Answer>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers", self.0.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Answer>, A::Error> {
        let mut answers = Vec::with_capacity(self.0.len());
        for (at, kind) in self.0.iter().enumerate() {
            let answer = list.next_element_seed(Of(*kind))?;
            answers.push(answer.ok_or_else(|| de::Error::invalid_length(at, &self))?);
        }
        if list.next_element::<de::IgnoredAny>()?.is_some() {
            return Err(de::Error::invalid_length(self.0.len() + 1, &self));
        }
        Ok(answers)
    }
}

/// The object around the answers of a transaction.
struct Around<'a>(&'a [Kind]);

impl<'de> de::Visitor<'de> for Around<'_> {
    type Value = Vec<Answer>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `answers`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Answer>, A::Error> {
        let mut answers = None;
        while let Some(name) = map.next_key::<Cow<'_, str>>()? {
            if name == "answers" {
                answers = Some(map.next_value_seed(AllOf(self.0))?);
            } else {
                map.next_value::<de::IgnoredAny>()?;
            }
        }
        answers.ok_or_else(|| de::Error::missing_field("answers"))
    }
}

/// What a line of answers says: who asked, and whether it failed.
#[derive(Debug, Deserialize)]
pub struct Head {
    /// That of the line that it answers.
    pub id: Option<u64>,
    /// The code of a failure.
    pub code: Option<String>,
    /// The server takes no more, and has taken so many lines of the request.
    pub taken: Option<u64>,
}

/// Reads what came of one operation or, if it was a transaction, of several,
/// from an exact answer that is no failure.
///
/// # Errors
///
/// It is not what answers them.
pub fn answers(
    line: &[u8],
    kinds: &[Kind],
    transaction: bool,
) -> Result<Vec<Answer>, serde_json::Error> {
    let mut from = serde_json::Deserializer::from_slice(line);
    let answers = if let (false, [kind]) = (transaction, kinds) {
        vec![Of(*kind).deserialize(&mut from)?]
    } else {
        (&mut from).deserialize_map(Around(kinds))?
    };
    from.end()?;
    Ok(answers)
}
