//! The schemas of topics, and every version that one had.

use std::{collections::HashMap, sync::Arc};

use super::{
    driver::{Db, Row, values},
    writer::Tx,
};
use crate::{
    Error,
    schema::{Compatibility, Schema},
    topic::{NewMessage, Settings},
};

/// Versions of one topic that are kept.
const VERSIONS_KEPT: u64 = 100;

/// Compiled schemas by topic: they outlive a rollback, after which a topic is
/// read anew.
#[derive(Default)]
pub(super) struct Schemas(HashMap<i64, Arc<Schema>>);

impl Schemas {
    /// The schema that is compiled already, if it is the same.
    pub(super) fn share(&mut self, topic: i64, settings: &mut Settings) {
        let Some(schema) = &mut settings.schema else {
            self.0.remove(&topic);
            return;
        };
        match self.0.get(&topic) {
            Some(known) if known == schema && known.version() == schema.version() => {
                *schema = known.clone();
            }
            _ => drop(self.0.insert(topic, schema.clone())),
        }
    }
}

const fn number(compatibility: Compatibility) -> i64 {
    match compatibility {
        Compatibility::None => 0,
        Compatibility::Backward => 1,
        Compatibility::Forward => 2,
        Compatibility::Full => 3,
    }
}

const fn compatibility(number: i64) -> Compatibility {
    match number {
        1 => Compatibility::Backward,
        2 => Compatibility::Forward,
        3 => Compatibility::Full,
        _ => Compatibility::None,
    }
}

/// The schema in force.
pub(super) fn stored(db: &impl Db, topic: i64) -> Result<Option<Arc<Schema>>, Error> {
    let sql = "SELECT s.document, t.compatibility, s.version FROM topics t
         JOIN schemas s ON s.topic = t.id AND s.version = t.schema_version WHERE t.id = ?1";
    db.find(sql, &values![topic], |row| {
        let compatibility = compatibility(row.get(1)?);
        Ok(Arc::new(Schema::stored(row.get(0)?, compatibility, row.get(2)?)))
    })
}

/// Refuses a message that is not what its topic's schema says. One without a
/// payload says that its key is gone, and is always allowed.
pub(super) fn check(settings: &Settings, message: &NewMessage) -> Result<(), Error> {
    let (Some(schema), Some(payload)) = (&settings.schema, &message.payload) else {
        return Ok(());
    };
    schema.check(payload)?.map_err(|mismatch| Error::Mismatch { index: 0, mismatch })
}

impl<D: Db> Tx<D> {
    /// Puts a schema in force, as a new version if it is not the last one.
    pub(super) fn put_schema(&self, name: &str, schema: Option<&Schema>) -> Result<(), Error> {
        let topic = super::topics::topic_id(&self.db, name)?;
        let sql = "SELECT version, document FROM schemas WHERE topic = ?1
             ORDER BY version DESC LIMIT 1";
        let last: Option<(u64, String)> =
            self.db.find(sql, &values![topic], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let version = match (schema, last) {
            (None, _) => None,
            (Some(schema), Some((version, text))) if schema.text() == text => Some(version),
            (Some(schema), last) => {
                let version = last.as_ref().map_or(0, |(version, _)| *version) + 1;
                if let Some((version, text)) = last {
                    let old = Schema::stored(text, Compatibility::None, version);
                    let name = name.to_owned();
                    let refused = |refusal| Error::Incompatible { topic: name, version, refusal };
                    schema.follows(&old).map_err(refused)?;
                }
                self.db.write(
                    "INSERT INTO schemas (topic, version, at, document) VALUES (?1, ?2, ?3, ?4)",
                    &values![topic, version, self.now, schema.text()],
                )?;
                self.db.write(
                    "DELETE FROM schemas WHERE topic = ?1 AND version <= ?2",
                    &values![topic, version.saturating_sub(VERSIONS_KEPT)],
                )?;
                Some(version)
            }
        };
        let mode = schema.map_or(Compatibility::None, Schema::compatibility);
        self.db.write(
            "UPDATE topics SET schema_version = ?2, compatibility = ?3 WHERE id = ?1",
            &values![topic, version, number(mode)],
        )
    }
}
