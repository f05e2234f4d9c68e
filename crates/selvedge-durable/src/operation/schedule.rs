//! Messages that are published when their time comes, again and again.

pub use selvedge_patterns::schedule::{Missed, Overlap};
use selvedge_patterns::wall::Wall;

use super::topic::NewMessage;

/// Creates or replaces a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutSchedule {
    /// 1 to 200 characters of `A-Z a-z 0-9 . _ - /`.
    pub name: String,
    /// Cron fields, `@every 90s`, `@daily`, …
    pub spec: String,
    /// IANA name of the zone in which the fields are meant.
    pub zone: String,
    /// What to do while the run before is not settled by every group of the topic.
    pub overlap: Overlap,
    /// What to do about runs that fell due while nobody was there.
    pub missed: Missed,
    /// Where each run is published. The run's id, schedule and due time, is its
    /// dedupe id, so that no run happens twice.
    pub topic: String,
    /// What is published; key only where `overlap` is not `Queue`, which uses
    /// the schedule's name.
    pub message: NewMessage,
}

/// Removes a schedule.
#[derive(Clone, Debug)]
pub struct DeleteSchedule {
    /// Its name.
    pub name: String,
}

/// All schedules by name.
#[derive(Clone, Debug)]
pub struct ListSchedules;

/// A schedule and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// As put; the message is left out.
    pub name: String,
    /// As put.
    pub spec: String,
    /// As put.
    pub zone: String,
    /// As put.
    pub topic: String,
    /// When it runs next; `None` if never again.
    pub next: Option<Wall>,
    /// Position of the last run in the topic.
    pub last: Option<u64>,
}
