//! Schedules in a table. What is due is read from there, at start and every
//! minute too, so no timer lives in memory alone.

use std::time::Duration;

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use selvedge_patterns::{
    schedule::{Civil, Missed, Moment, Overlap, Recurrence, Zone, catch_up},
    wall::Wall,
};

use super::{
    Apply, Look, Reader,
    driver::{Db, Row, values},
    record::{self, checksum, encode_headers},
    topics::check_name,
    writer::Tx,
};
use crate::{
    Error,
    schedule::{DeleteSchedule, ListSchedules, PutSchedule, Schedule},
    topic::{Message, NewMessage, PRIORITY_DEFAULT, Place, Published},
};

/// A zone of the world.
struct World(TimeZone);

impl World {
    fn named(name: &str) -> Result<Self, Error> {
        let unknown = |_| Error::invalid("zone", format!("`{name}` is not a known time zone"));
        TimeZone::get(name).map(Self).map_err(unknown)
    }

    fn at(&self, civil: DateTime, offset: jiff::tz::Offset) -> Wall {
        let micros = offset.to_timestamp(civil).map_or(0, Timestamp::as_microsecond);
        Wall::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

impl Zone for World {
    fn civil(&self, now: Wall) -> Civil {
        let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let stamp = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
        let shown = self.0.to_datetime(stamp);
        Civil {
            year: i32::from(shown.year()),
            month: shown.month() as u8,
            day: shown.day() as u8,
            hour: shown.hour() as u8,
            minute: shown.minute() as u8,
            second: shown.second() as u8,
        }
    }

    fn moment(&self, civil: Civil) -> Moment {
        let shown = DateTime::new(
            civil.year as i16,
            civil.month as i8,
            civil.day as i8,
            civil.hour as i8,
            civil.minute as i8,
            civil.second as i8,
            0,
        )
        .unwrap_or(DateTime::MAX);
        match self.0.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => Moment::One(self.at(shown, offset)),
            AmbiguousOffset::Fold { before, after } => {
                Moment::Repeated { first: self.at(shown, before), second: self.at(shown, after) }
            }
            AmbiguousOffset::Gap { after, .. } => {
                // Read with the later offset it lies before the change.
                let early = self.at(shown, after);
                let stamp = i64::try_from(early.as_micros())
                    .ok()
                    .and_then(|micros| Timestamp::from_microsecond(micros).ok())
                    .unwrap_or(Timestamp::MIN);
                let change = self.0.following(stamp).next().map(|t| t.timestamp().as_microsecond());
                let next = change.and_then(|micros| u64::try_from(micros).ok());
                Moment::Skipped { next: next.map_or(early, Wall::from_micros) }
            }
        }
    }
}

fn encode_missed(missed: Missed) -> i64 {
    match missed {
        Missed::Skip => -1,
        Missed::All { limit } => -1 - i64::from(limit),
        Missed::Once { grace } => i64::try_from(grace.as_micros()).unwrap_or(i64::MAX),
    }
}

fn decode_missed(number: i64) -> Missed {
    match number {
        -1 => Missed::Skip,
        ..=-2 => Missed::All { limit: u32::try_from(-1 - number).unwrap_or(u32::MAX) },
        _ => Missed::Once { grace: Duration::from_micros(number as u64) },
    }
}

const fn encode_overlap(overlap: Overlap) -> i64 {
    match overlap {
        Overlap::Skip => 0,
        Overlap::Queue => 1,
        Overlap::Allow => 2,
    }
}

/// A schedule that is due.
struct Ripe {
    name: String,
    spec: String,
    zone: String,
    overlap: i64,
    missed: Missed,
    topic: String,
    anchor: Wall,
    next: Wall,
    last: Option<i64>,
    message: Result<Message, Error>,
}

/// When a schedule that cannot run is looked at again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

impl<D: Db> Tx<D> {
    /// Publishes the runs that are due; a bounded number of schedules.
    pub(super) fn run_schedules(&mut self) -> Result<(), Error> {
        for ripe in self.ripe()? {
            let Err(error) = self.alone(|tx| tx.run_ripe(&ripe)) else { continue };
            if !self.db.in_transaction() {
                return Err(error);
            }
            // One schedule that cannot run must not hold up all others.
            tracing::error!(schedule = ripe.name, %error, "a schedule could not run");
            self.db.write(
                "UPDATE schedules SET next = ?2 WHERE name = ?1",
                &values![&ripe.name, self.now + TRY_AGAIN],
            )?;
        }
        Ok(())
    }

    fn run_ripe(&mut self, ripe: &Ripe) -> Result<(), Error> {
        let recurrence = Recurrence::parse(&ripe.spec)
            .map_err(|error| Error::invalid("spec", error.to_string()))?;
        let zone = World::named(&ripe.zone)?;
        let next = |after| recurrence.next(after, ripe.anchor, &zone);
        let (runs, next) = catch_up(self.now, ripe.next, ripe.missed, next);
        let mut last = ripe.last;
        for due in runs {
            if ripe.overlap == encode_overlap(Overlap::Skip) && self.unsettled(&ripe.topic, last)? {
                continue;
            }
            last = self.run_once(ripe, due)?.or(last);
        }
        self.db.write(
            "UPDATE schedules SET next = ?2, last = ?3 WHERE name = ?1",
            &values![&ripe.name, next, last],
        )?;
        Ok(())
    }

    fn ripe(&self) -> Result<Vec<Ripe>, Error> {
        let sql = format!(
            "SELECT name, spec, zone, overlap, missed, topic, anchor, next, last, {}
             FROM schedules WHERE next <= ?1 ORDER BY next LIMIT 200",
            record::COLUMNS
        );
        self.db.all(&sql, &values![self.now], |row| {
            Ok(Ripe {
                name: row.get(0)?,
                spec: row.get(1)?,
                zone: row.get(2)?,
                overlap: row.get(3)?,
                missed: decode_missed(row.get(4)?),
                topic: row.get(5)?,
                anchor: row.get(6)?,
                next: row.get(7)?,
                last: row.get(8)?,
                message: record::message(row, 0, 9),
            })
        })
    }

    /// Publishes one run; `None` if its topic is gone.
    fn run_once(&mut self, ripe: &Ripe, due: Wall) -> Result<Option<i64>, Error> {
        let priorities = match self.topic(&ripe.topic) {
            Ok(topic) => topic.settings.priorities,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Message { key, headers, payload, priority, .. } = ripe.message.clone()?;
        let mut headers = headers;
        headers.push(("selvedge-schedule".to_owned(), ripe.name.clone()));
        headers.push(("selvedge-due".to_owned(), due.as_micros().to_string()));
        let message = NewMessage {
            key: if ripe.overlap == encode_overlap(Overlap::Queue) {
                Some(ripe.name.clone())
            } else {
                key
            },
            headers,
            payload,
            priority: priorities.then_some(priority),
            deliver_at: None,
            dedupe_id: Some(format!("schedule:{}:{}", ripe.name, due.as_micros())),
        };
        match self.publish_one(&ripe.topic, &message) {
            Ok(Published { place: Place::Log(position), .. }) => Ok(Some(position as i64)),
            Ok(_) => Ok(None),
            // The schema has changed since; nothing else must wait for that.
            Err(error @ Error::Mismatch { .. }) => {
                let (schedule, code) = (&ripe.name, error.code());
                tracing::error!(%schedule, %error, code, "a run is left out");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether some group of the topic has not settled the message at `position`.
    fn unsettled(&mut self, topic: &str, position: Option<i64>) -> Result<bool, Error> {
        let Some(position) = position else { return Ok(false) };
        let topic = match self.topic(topic) {
            Ok(topic) => topic.id,
            Err(Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let unsettled = self.db.one(
            "SELECT EXISTS (SELECT 1 FROM groups g JOIN cursors c ON c.grp = g.id
                   WHERE g.topic = ?1 AND c.next <= ?2
                   AND c.lane = (SELECT priority FROM messages WHERE id = ?1 << 43 | ?2))
                 OR EXISTS (SELECT 1 FROM groups g JOIN exceptions e ON e.grp = g.id
                   WHERE g.topic = ?1 AND e.position = ?2)",
            &values![topic, position],
            |row| row.get(0),
        )?;
        Ok(unsettled)
    }

    /// When the next schedule is due.
    pub(super) fn schedule_due(&self) -> Result<Option<Wall>, Error> {
        self.db.one("SELECT min(next) FROM schedules WHERE next IS NOT NULL", &[], |row| row.get(0))
    }
}

impl Apply for PutSchedule {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<Schedule, Error> {
        check_name("schedule", &self.name)?;
        let settings = tx.topic(&self.topic)?.settings.clone();
        let as_published = NewMessage {
            key: self.message.key.clone().or_else(|| Some(self.name.clone())),
            ..self.message.clone()
        };
        tx.check_message(&settings, &as_published)?;
        let recurrence = Recurrence::parse(&self.spec)
            .map_err(|error| Error::invalid("spec", error.to_string()))?;
        let zone = World::named(&self.zone)?;
        // Putting the same schedule again, as a program does at its start, must not
        // move its times; least of all past a run that is due and was missed.
        let same: Option<(Wall, Option<Wall>)> = tx.db.find(
            "SELECT anchor, next FROM schedules WHERE name = ?1 AND spec = ?2 AND zone = ?3",
            &values![&self.name, &self.spec, &self.zone],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let (anchor, next) = same.unwrap_or((tx.now, None));
        let next = next.or_else(|| recurrence.next(tx.now, anchor, &zone));
        let message = &self.message;
        let headers = encode_headers(&message.headers);
        let (key, payload) = (message.key.as_deref(), message.payload.as_deref());
        tx.db.write(
            "INSERT INTO schedules (name, spec, zone, overlap, missed, topic, anchor, next,
                   at, sum, priority, key, headers, payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
                 ON CONFLICT (name) DO UPDATE SET spec = ?2, zone = ?3, overlap = ?4, missed = ?5,
                   topic = ?6, anchor = ?7, next = ?8, at = ?9, sum = ?10, priority = ?11,
                   key = ?12, headers = ?13, payload = ?14,
                   last = CASE WHEN schedules.topic = ?6 THEN schedules.last END",
            &values![
                &self.name,
                &self.spec,
                &self.zone,
                encode_overlap(self.overlap),
                encode_missed(self.missed),
                &self.topic,
                anchor,
                next,
                tx.now,
                checksum(key, headers.as_deref(), payload),
                message.priority.unwrap_or(PRIORITY_DEFAULT),
                key,
                headers.as_deref(),
                payload,
            ],
        )?;
        if let Some(next) = next {
            tx.due_at(next);
        }
        let (name, spec, zone, topic) = (self.name, self.spec, self.zone, self.topic);
        Ok(Schedule { name, spec, zone, topic, next, last: None })
    }
}

impl Apply for DeleteSchedule {
    fn apply<D: Db>(self, tx: &mut Tx<D>) -> Result<(), Error> {
        let removed = tx.db.count("DELETE FROM schedules WHERE name = ?1", &values![&self.name])?;
        if removed == 0 {
            return Err(Error::missing("schedule", &self.name));
        }
        Ok(())
    }
}

impl Look for ListSchedules {
    fn look<D: Db>(self, reader: &Reader<'_, D>) -> Result<Vec<Schedule>, Error> {
        let sql = "SELECT name, spec, zone, topic, next, last FROM schedules ORDER BY name";
        reader.db.all(sql, &[], |row| {
            Ok(Schedule {
                name: row.get(0)?,
                spec: row.get(1)?,
                zone: row.get(2)?,
                topic: row.get(3)?,
                next: row.get(4)?,
                last: row.get(5)?,
            })
        })
    }
}
