//! What a group was told, in columns.

use std::time::Duration;

use selvedge_patterns::limit;

use crate::{
    Error,
    group::{Config, Full, Letters},
    store::{
        driver::{Row, Value},
        filtered,
    },
};

/// The columns, in the order of [`read`] and [`write`].
pub(super) const COLUMNS: &str = "lease, attempts, ordered, in_flight_max, exceptions_max, \
     retry_base, retry_cap, rate_count, rate_per, rate_burst, filter, \
     exclusive, letters_max, letters_drop, letters_age";

/// How many there are.
const COUNT: usize = 15;

/// `?from, …`: a parameter for each column.
pub(super) fn parameters(from: usize) -> String {
    let each: Vec<String> = (from..from + COUNT).map(|n| format!("?{n}")).collect();
    each.join(", ")
}

pub(super) fn read(row: &impl Row, at: usize) -> Result<Config, Error> {
    let rate = match row.get::<u32>(at + 7)? {
        0 => None,
        count => Some(limit::Config {
            rate: limit::Rate { count, per: row.get(at + 8)? },
            burst: row.get(at + 9)?,
            ..limit::Config::default()
        }),
    };
    Ok(Config {
        lease: row.get(at)?,
        attempts: row.get(at + 1)?,
        ordered: row.get(at + 2)?,
        in_flight_max: row.get(at + 3)?,
        exceptions_max: row.get(at + 4)?,
        retry_base: row.get(at + 5)?,
        retry_cap: row.get(at + 6)?,
        rate,
        filter: filtered::stored(row.get(at + 10)?)?,
        exclusive: Some(row.get::<Duration>(at + 11)?).filter(|ttl| !ttl.is_zero()),
        letters: Letters {
            max: row.get(at + 12)?,
            full: if row.get(at + 13)? { Full::DropOldest } else { Full::Hold },
            age: row.get(at + 14)?,
        },
    })
}

/// `filter` is that of `config` as a row has it.
pub(super) fn write<'a>(config: &Config, filter: Option<&'a str>) -> [Value<'a>; COUNT] {
    let rate = config.rate;
    [
        config.lease.into(),
        config.attempts.into(),
        config.ordered.into(),
        config.in_flight_max.into(),
        config.exceptions_max.into(),
        config.retry_base.into(),
        config.retry_cap.into(),
        rate.map_or(0, |it| it.rate.count).into(),
        rate.map_or(Duration::ZERO, |it| it.rate.per).into(),
        rate.map_or(0, |it| it.burst).into(),
        filter.into(),
        config.exclusive.unwrap_or_default().into(),
        config.letters.max.into(),
        (config.letters.full == Full::DropOldest).into(),
        config.letters.age.into(),
    ]
}
