//! Topics that collect: what is published to others is appended to them too,
//! in the same transaction.

use std::{collections::HashMap, sync::Arc};

use selvedge_patterns::collect::{Rule, takes, takes_from};

use super::{
    driver::{Db, Row},
    writer::Tx,
};
use crate::{
    Error,
    collect::{self, ORIGIN, ORIGIN_POSITION},
    filter::Seen,
    topic::NewMessage,
};

/// A topic that collects.
#[derive(Debug)]
struct Collector {
    name: String,
    rules: Vec<Rule>,
    relaxed: bool,
    priorities: bool,
}

/// Those there are, as the writer knows them since the start or the last rollback.
#[derive(Default)]
pub(super) struct Collectors {
    all: Option<Vec<Arc<Collector>>>,
    /// Those that take from a topic, by its name.
    takers: HashMap<String, Arc<[Arc<Collector>]>>,
}

impl Collectors {
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The rules in a row.
pub(super) fn stored(text: Option<&str>) -> Result<Vec<Rule>, Error> {
    let what =
        |problem: String| Error::Corrupt { what: format!("what a topic collects: {problem}") };
    let Some(text) = text else { return Ok(Vec::new()) };
    let value = serde_json::from_str(text).map_err(|error| what(error.to_string()))?;
    collect::parse(&value).map_err(|error| what(error.to_string()))
}

/// The rules as a row has them.
pub(super) fn text(rules: &[Rule]) -> Option<String> {
    (!rules.is_empty()).then(|| collect::show(rules).to_string())
}

impl<D: Db> Tx<D> {
    fn collectors(&mut self) -> Result<&[Arc<Collector>], Error> {
        if self.collectors.all.is_none() {
            let sql = "SELECT name, collect, relaxed, priorities FROM topics
                 WHERE name IS NOT NULL AND collect IS NOT NULL ORDER BY id";
            let all = self.db.all(sql, &[], |row| {
                Ok(Arc::new(Collector {
                    name: row.get(0)?,
                    rules: stored(row.get(1)?)?,
                    relaxed: row.get(2)?,
                    priorities: row.get(3)?,
                }))
            })?;
            self.collectors.all = Some(all);
        }
        Ok(self.collectors.all.as_deref().unwrap_or_default())
    }

    /// Topics that may collect what is published to `topic`.
    fn takers(&mut self, topic: &str) -> Result<Arc<[Arc<Collector>]>, Error> {
        if self.collectors()?.is_empty() {
            return Ok(Arc::default());
        }
        if let Some(takers) = self.collectors.takers.get(topic) {
            return Ok(takers.clone());
        }
        let from = |it: &&Arc<Collector>| takes_from(&it.name, &it.rules, topic);
        let takers: Arc<[_]> = self.collectors()?.iter().filter(from).cloned().collect();
        self.collectors.takers.insert(topic.to_owned(), takers.clone());
        Ok(takers)
    }

    /// Whether what is published to this topic goes nowhere else.
    pub(super) fn is_collected_by_none(&mut self, topic: &str) -> bool {
        self.takers(topic).is_ok_and(|takers| takers.is_empty())
    }

    /// Whether a commit with nothing but messages of this topic need not be synced.
    pub(super) fn is_relaxed(&mut self, topic: &str) -> bool {
        self.topic(topic).is_ok_and(|topic| topic.settings.relaxed)
            && self.takers(topic).is_ok_and(|takers| takers.iter().all(|it| it.relaxed))
    }

    /// Refuses one more topic that collects than there may be.
    pub(super) fn room_for_collector(&mut self, name: &str) -> Result<(), Error> {
        let max = self.config.collectors_max;
        let size = 1 + self.collectors()?.iter().filter(|it| it.name != name).count();
        if size > max {
            return Err(Error::TooLarge { what: "the number of topics that collect", size, max });
        }
        Ok(())
    }

    /// Appends the message, which has just got this position in `topic`, to
    /// every topic that collects it. What is appended here goes no further.
    pub(super) fn collect(
        &mut self,
        topic: &str,
        position: u64,
        message: &NewMessage,
    ) -> Result<(), Error> {
        let takers = self.takers(topic)?;
        if takers.is_empty() {
            return Ok(());
        }
        let payload = message.payload.as_deref();
        let max = self.config.filter_payload_max;
        let seen = Seen::parts(message.key.as_deref(), &message.headers, payload, max);
        for taker in takers.iter() {
            if !takes(&taker.name, &taker.rules, topic, &seen) {
                continue;
            }
            let mut headers = message.headers.clone();
            headers.retain(|(name, _)| name != ORIGIN && name != ORIGIN_POSITION);
            headers.push((ORIGIN.to_owned(), topic.to_owned()));
            headers.push((ORIGIN_POSITION.to_owned(), position.to_string()));
            let copy = NewMessage {
                key: message.key.clone(),
                headers,
                payload: message.payload.clone(),
                priority: message.priority.filter(|_| taker.priorities),
                ..NewMessage::default()
            };
            self.put_in_log(&taker.name, &copy)?;
        }
        Ok(())
    }
}
