//! Schedules.

use selvedge_patterns::schedule::{Missed, Overlap};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    Malformed,
    text::{Span, Time, duration},
    topic::MessageIn,
};
use crate::{
    Operation,
    schedule::{self, DeleteSchedule, PutSchedule},
};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", remote = "Overlap")]
enum OverlapForm {
    Skip,
    Queue,
    Allow,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Over(#[serde(with = "OverlapForm")] Overlap);

/// `skip`, `all:<limit>`, or how late a missed run may still happen once.
#[derive(Clone, Copy, Debug, Default)]
struct Late(Missed);

impl Serialize for Late {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Missed::Skip => to.serialize_str("skip"),
            Missed::All { limit } => to.collect_str(&format_args!("all:{limit}")),
            Missed::Once { grace } => Span(grace).serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Late {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let parsed = if text == "skip" {
            Some(Missed::Skip)
        } else if let Some(limit) = text.strip_prefix("all:") {
            let limit = limit.parse().ok().filter(|limit| (1..=1000).contains(limit));
            limit.map(|limit| Missed::All { limit })
        } else {
            duration(&text).map(|grace| Missed::Once { grace })
        };
        let problem =
            || D::Error::custom("`missed` must be `skip`, `all:<1 to 1000>` or a duration");
        parsed.map(Self).ok_or_else(problem)
    }
}

/// When what is published, again and again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleIn {
    spec: String,
    #[serde(default = "utc")]
    zone: String,
    #[serde(default)]
    overlap: Over,
    #[serde(default)]
    missed: Late,
    topic: String,
    message: MessageIn,
}

fn utc() -> String {
    "UTC".to_owned()
}

impl ScheduleIn {
    /// As the schedule of this name.
    ///
    /// # Errors
    ///
    /// What is wrong with the message.
    pub fn into_put(self, name: String) -> Result<PutSchedule, Malformed> {
        let Self { spec, zone, overlap, missed, topic, message } = self;
        let (overlap, missed, message) = (overlap.0, missed.0, message.try_into()?);
        Ok(PutSchedule { name, spec, zone, overlap, missed, topic, message })
    }
}

/// Creates or replaces a schedule.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    name: String,
    schedule: ScheduleIn,
}

impl From<PutSchedule> for Put {
    fn from(put: PutSchedule) -> Self {
        let PutSchedule { name, spec, zone, overlap, missed, topic, message } = put;
        let (overlap, missed, message) = (Over(overlap), Late(missed), message.into());
        Self { name, schedule: ScheduleIn { spec, zone, overlap, missed, topic, message } }
    }
}

impl TryFrom<Put> for Operation {
    type Error = Malformed;

    fn try_from(given: Put) -> Result<Self, Malformed> {
        given.schedule.into_put(given.name).map(Self::PutSchedule)
    }
}

/// One schedule.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    name: String,
}

impl From<DeleteSchedule> for Named {
    fn from(delete: DeleteSchedule) -> Self {
        Self { name: delete.name }
    }
}

impl From<Named> for Operation {
    fn from(given: Named) -> Self {
        Self::DeleteSchedule(DeleteSchedule { name: given.name })
    }
}

/// A schedule and where it stands.
#[derive(Debug, Serialize, Deserialize)]
pub struct Schedule {
    last: Option<u64>,
    name: String,
    next: Option<Time>,
    spec: String,
    topic: String,
    zone: String,
}

impl From<&schedule::Schedule> for Schedule {
    fn from(schedule: &schedule::Schedule) -> Self {
        let schedule::Schedule { name, spec, zone, topic, next, last } = schedule.clone();
        Self { last, name, next: next.map(Time), spec, topic, zone }
    }
}

impl From<Schedule> for schedule::Schedule {
    fn from(given: Schedule) -> Self {
        let Schedule { last, name, next, spec, topic, zone } = given;
        Self { name, spec, zone, topic, next: next.map(|it| it.0), last }
    }
}

/// Several schedules.
#[derive(Debug, Serialize, Deserialize)]
pub struct Schedules {
    pub(super) schedules: Vec<Schedule>,
}
