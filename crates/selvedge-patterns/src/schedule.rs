//! When something is due again: cron fields, fixed intervals, and what to do
//! about runs that overlap or were missed.
//!
//! Fields are matched in civil time; a [`Zone`] turns that into moments, so
//! that daylight saving is decided here and the tables of the world's zones
//! stay outside. A schedule with fixed hours runs once in an hour that repeats
//! and at the first valid moment after an hour that is skipped; one that runs
//! every hour (`*`) follows the clock on the wall of elapsed time. The idea is
//! Vixie cron's.

use core::{fmt, time::Duration};

use crate::wall::Wall;

#[cfg(test)]
mod tests;

/// A civil date and time, without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Civil {
    /// Year, 1970 to 9999.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
}

/// Which moments a civil time names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Exactly one.
    One(Wall),
    /// None: clocks were put forward over it.
    Skipped {
        /// The first moment after the gap.
        next: Wall,
    },
    /// Two: clocks were put back.
    Repeated {
        /// The earlier one.
        first: Wall,
        /// The later one.
        second: Wall,
    },
}

/// A time zone.
pub trait Zone {
    /// What clocks on the wall show at `now`.
    fn civil(&self, now: Wall) -> Civil;
    /// When clocks on the wall show `civil`.
    fn moment(&self, civil: Civil) -> Moment;
}

/// Coordinated universal time.
#[derive(Clone, Copy, Debug)]
pub struct Utc;

impl Zone for Utc {
    fn civil(&self, now: Wall) -> Civil {
        let seconds = now.as_micros() / 1_000_000;
        let (year, month, day) = civil_from_days((seconds / 86_400) as i64);
        let rest = seconds % 86_400;
        let (hour, minute) = ((rest / 3600) as u8, (rest / 60 % 60) as u8);
        Civil { year, month, day, hour, minute, second: (rest % 60) as u8 }
    }

    fn moment(&self, civil: Civil) -> Moment {
        let days = days_from_civil(civil.year, civil.month, civil.day);
        let clock =
            u64::from(civil.hour) * 3600 + u64::from(civil.minute) * 60 + u64::from(civil.second);
        Moment::One(Wall::from_secs(days.max(0) as u64 * 86_400 + clock))
    }
}

/// A recurring time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recurrence {
    /// Cron fields in some zone.
    Cron(Cron),
    /// A fixed interval, counted from the anchor.
    Every(Duration),
}

/// Cron fields as bit sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the day-of-month and day-of-week fields were both restricted:
    /// then either one suffices.
    either_day: bool,
    /// Whether every hour matches: such a schedule follows elapsed time.
    every_hour: bool,
}

/// Why a recurrence could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The part that is wrong.
    pub part: String,
    /// What is wrong with it: a lower-case fragment.
    pub problem: &'static str,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.part, self.problem)
    }
}

impl core::error::Error for Invalid {}

fn invalid(part: &str, problem: &'static str) -> Invalid {
    Invalid { part: part.to_owned(), problem }
}

impl Recurrence {
    /// Reads five fields (minute hour day month weekday), six (second first),
    /// `@every 90s`, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    ///
    /// # Errors
    ///
    /// The part that cannot be read, or a date that never comes (30 February).
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let fields = match text {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            _ => text,
        };
        if let Some(interval) = fields.strip_prefix("@every ") {
            return parse_interval(interval.trim()).map(Self::Every);
        }
        Cron::parse(fields).map(Self::Cron)
    }

    /// The first due time after `after`. `anchor` is when an interval began.
    #[must_use]
    pub fn next(&self, after: Wall, anchor: Wall, zone: &impl Zone) -> Option<Wall> {
        match self {
            Self::Cron(cron) => cron.next(after, zone),
            Self::Every(interval) => {
                let step = interval.as_micros() as u64;
                let passed = after.since(anchor).as_micros() as u64;
                let next =
                    anchor.as_micros().checked_add((passed / step + 1).checked_mul(step)?)?;
                Some(Wall::from_micros(if after < anchor {
                    anchor.as_micros() + step
                } else {
                    next
                }))
            }
        }
    }
}

fn parse_interval(text: &str) -> Result<Duration, Invalid> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| invalid(text, "is not a number and a unit"))?;
    let seconds = match unit {
        "s" => number,
        "m" => number.saturating_mul(60),
        "h" => number.saturating_mul(3600),
        "d" => number.saturating_mul(86_400),
        _ => return Err(invalid(text, "needs a unit of `s`, `m`, `h` or `d`")),
    };
    if (1..=366 * 86_400).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(invalid(text, "must be between 1 s and 366 d"))
    }
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Cron {
    /// Reads five or six fields.
    ///
    /// # Errors
    ///
    /// As for [`Recurrence::parse`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let (second, rest) = match fields.len() {
            5 => ("0", &fields[..]),
            6 => (fields[0], &fields[1..]),
            _ => return Err(invalid(text, "needs five fields, or six with seconds first")),
        };
        let (day, weekday) = (rest[2], rest[4]);
        let mut weekdays = field(weekday, 0, 7, &WEEKDAYS)?;
        if weekdays & (1 << 7) != 0 {
            weekdays |= 1;
        }
        let hours = field(rest[1], 0, 23, &[])?;
        let cron = Self {
            seconds: field(second, 0, 59, &[])?,
            minutes: field(rest[0], 0, 59, &[])?,
            hours,
            days: field(day, 1, 31, &[])?,
            months: field(rest[3], 1, 12, &MONTHS)?,
            weekdays: weekdays & 0x7F,
            either_day: !day.starts_with(['*', '?']) && !weekday.starts_with(['*', '?']),
            every_hour: hours == (1 << 24) - 1,
        };
        if cron.next(Wall::ZERO, &Utc).is_none() {
            return Err(invalid(text, "names a date that never comes"));
        }
        Ok(cron)
    }

    /// The first matching moment after `after`, or `None` if there is none in
    /// forty years: 29 February falls on a given weekday every 28, or every 40
    /// across a century without a leap day.
    #[must_use]
    pub fn next(&self, after: Wall, zone: &impl Zone) -> Option<Wall> {
        // A fold shows the same civil time twice, a gap lies between two:
        // start a little early and filter by the moment itself.
        let start = zone.civil(after - Duration::from_secs(2 * 3600));
        let mut civil = Civil { second: 0, minute: 0, ..start };
        let last_year = civil.year + 40;
        loop {
            civil = self.next_hour(civil, last_year)?;
            if let Some(found) = self.first_in_hour(civil, after, zone) {
                return Some(found);
            }
            civil = step_hour(civil);
        }
    }

    /// The first hour at or after `civil` whose date and hour match.
    fn next_hour(&self, mut civil: Civil, last_year: i32) -> Option<Civil> {
        while civil.year <= last_year {
            if self.months & (1 << civil.month) == 0 {
                let december = civil.month == 12;
                let (year, month) =
                    if december { (civil.year + 1, 1) } else { (civil.year, civil.month + 1) };
                civil = Civil { year, month, day: 1, hour: 0, minute: 0, second: 0 };
            } else if !self.day_matches(civil) {
                civil = step_day(civil);
            } else if self.hours & (1 << civil.hour) == 0 {
                civil = step_hour(civil);
            } else {
                return Some(civil);
            }
        }
        None
    }

    fn day_matches(&self, civil: Civil) -> bool {
        let days = days_from_civil(civil.year, civil.month, civil.day);
        let weekday = (days + 4).rem_euclid(7); // 1970-01-01 was a Thursday
        let by_day = self.days & (1 << civil.day) != 0;
        let by_weekday = self.weekdays & (1 << weekday) != 0;
        if self.either_day { by_day || by_weekday } else { by_day && by_weekday }
    }

    /// The earliest matching moment after `after` in the hour of `civil`.
    fn first_in_hour(&self, civil: Civil, after: Wall, zone: &impl Zone) -> Option<Wall> {
        let ends = (zone.moment(civil), zone.moment(Civil { minute: 59, second: 59, ..civil }));
        if let (Moment::One(start), Moment::One(end)) = ends
            && end.since(start) == Duration::from_secs(3599)
        {
            // Clocks are not changed in it: no need to ask the zone again.
            let times = bits(self.minutes)
                .flat_map(|minute| bits(self.seconds).map(move |second| (minute, second)))
                .map(|(minute, second)| {
                    start + Duration::from_secs(u64::from(minute) * 60 + u64::from(second))
                });
            return if end > after { times.into_iter().find(|&at| at > after) } else { None };
        }
        let mut best: Option<Wall> = None;
        let mut consider = |moment: Wall| {
            if moment > after && best.is_none_or(|best| moment < best) {
                best = Some(moment);
            }
        };
        for minute in bits(self.minutes) {
            for second in bits(self.seconds) {
                match zone.moment(Civil { minute, second, ..civil }) {
                    Moment::One(moment) => consider(moment),
                    Moment::Skipped { next } => {
                        if !self.every_hour {
                            consider(next);
                        }
                    }
                    Moment::Repeated { first, second } => {
                        consider(first);
                        if self.every_hour {
                            consider(second);
                        }
                    }
                }
            }
        }
        best
    }
}

/// One field as a bit set: `*`, `?`, `a`, `a-b`, `a,b`, each with `/step`.
fn field(text: &str, low: u8, high: u8, names: &[&str]) -> Result<u64, Invalid> {
    let mut set = 0u64;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: u8 =
                    step.parse().map_err(|_| invalid(part, "has a step that is not a number"))?;
                if step == 0 {
                    return Err(invalid(part, "has a step of zero"));
                }
                (range, Some(step))
            }
            None => (part, None),
        };
        let (from, to) = match range {
            "*" | "?" => (low, high.min(if names.len() == 7 { 6 } else { high })),
            _ => match range.split_once('-') {
                Some((from, to)) => (number(from, low, names)?, number(to, low, names)?),
                None => {
                    let from = number(range, low, names)?;
                    (from, if step.is_some() { high } else { from })
                }
            },
        };
        if from < low || to > high || from > to {
            return Err(invalid(part, "is out of range"));
        }
        for value in (from..=to).step_by(usize::from(step.unwrap_or(1))) {
            set |= 1 << value;
        }
    }
    Ok(set)
}

fn number(text: &str, low: u8, names: &[&str]) -> Result<u8, Invalid> {
    let name = names.iter().position(|name| text.eq_ignore_ascii_case(name));
    if let Some(index) = name {
        return Ok(index as u8 + low);
    }
    text.parse().map_err(|_| invalid(text, "is not a number or a name that belongs here"))
}

fn bits(set: u64) -> impl Iterator<Item = u8> {
    (0..64u8).filter(move |bit| set & (1 << bit) != 0)
}

fn step_hour(civil: Civil) -> Civil {
    if civil.hour == 23 {
        step_day(civil)
    } else {
        Civil { hour: civil.hour + 1, minute: 0, second: 0, ..civil }
    }
}

fn step_day(civil: Civil) -> Civil {
    let (year, month, day) =
        civil_from_days(days_from_civil(civil.year, civil.month, civil.day) + 1);
    Civil { year, month, day, hour: 0, minute: 0, second: 0 }
}

/// Days since 1970-01-01 of a date (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i32, month: u8, day: u8) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = i64::from(month);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date `days` days after 1970-01-01 (same source).
fn civil_from_days(days: i64) -> (i32, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u8;
    let month = (if shifted < 10 { shifted + 3 } else { shifted - 9 }) as u8;
    ((year_of_era + era * 400) as i32 + i32::from(month <= 2), month, day)
}

/// What to do when a run is due while the one before is not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Leave this run out.
    #[default]
    Skip,
    /// Let it wait for the one before.
    Queue,
    /// Start it beside the one before.
    Allow,
}

/// What to do about runs that fell due while nobody was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// Run the last of them, once, if it is at most `grace` late.
    Once {
        /// Default 1 h.
        grace: Duration,
    },
    /// Leave them out.
    Skip,
    /// Run each of them, at most `limit`, the latest ones.
    All {
        /// At least 1.
        limit: u32,
    },
}

impl Default for Missed {
    fn default() -> Self {
        Self::Once { grace: Duration::from_secs(3600) }
    }
}

/// A run up to this late is on time, not missed.
pub const ON_TIME: Duration = Duration::from_secs(5);

/// Which of the runs due from `due` (the stored next due time) until `now`
/// happen, oldest first. `next(t)` is the first due time after `t`.
/// Also answers the next due time after `now`.
pub fn catch_up(
    now: Wall,
    due: Wall,
    missed: Missed,
    mut next: impl FnMut(Wall) -> Option<Wall>,
) -> (Vec<Wall>, Option<Wall>) {
    let keep = match missed {
        Missed::All { limit } => limit.max(1) as usize,
        Missed::Once { .. } | Missed::Skip => 1,
    };
    // A schedule of one second that slept for a year: look back from the end, twice
    // as far each time, since only the last `keep` runs matter.
    let mut span = Duration::from_secs(16);
    let (mut runs, at) = loop {
        let from = now - span;
        let whole = from <= due;
        let mut at = if whole { Some(due) } else { next(from) };
        let mut runs = std::collections::VecDeque::new();
        while let Some(run) = at.filter(|&run| run <= now) {
            if runs.len() == keep {
                runs.pop_front();
            }
            runs.push_back(run);
            at = next(run);
        }
        if whole || runs.len() == keep {
            break (runs, at);
        }
        span = span.saturating_mul(2);
    };
    let latest = runs.back().copied();
    match missed {
        Missed::All { .. } => {}
        Missed::Once { grace } => {
            runs.retain(|&run| Some(run) == latest && now.since(run) <= grace.max(ON_TIME));
        }
        Missed::Skip => runs.retain(|&run| now.since(run) <= ON_TIME),
    }
    (runs.into(), at)
}
