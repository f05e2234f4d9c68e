//! Messages that other programs put into a table, in transactions of their own.
//!
//! The leader takes rows that it can see and deletes them in the transaction
//! that publishes them. There is no cursor, so a row that becomes visible late
//! is taken late and never skipped.

use std::time::Instant;

use bytes::Bytes;
use selvedge_patterns::wall::Wall;

use super::driver::PostgresDb;
use crate::{
    Error,
    store::driver::{Db, Inboxed, Row, values},
    topic::NewMessage,
};

/// Rows that one commit takes.
const ROWS: usize = 256;
/// Bytes of payloads that one commit takes, and the first row whatever it holds.
const BYTES: usize = 8 << 20;

/// Takes the next rows out of the inbox, if it is time to look.
pub(super) fn take(db: &PostgresDb, now: Wall) -> Result<Vec<Inboxed>, Error> {
    let Some(member) = &db.member else { return Ok(Vec::new()) };
    if !member.leads().get() || Instant::now() < member.inbox_at.get() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "WITH first AS (SELECT number, coalesce(octet_length(payload), 0) AS size
           FROM inbox ORDER BY number LIMIT {ROWS}),
         counted AS (SELECT number, sum(size) OVER (ORDER BY number) - size AS before FROM first),
         taken AS (DELETE FROM inbox WHERE number IN
           (SELECT number FROM counted WHERE before < {BYTES}) RETURNING *)
         SELECT number, topic, key, payload, priority, dedupe_id,
           CAST(least(greatest(extract(epoch FROM deliver_at), 0), 1e12) * 1000000 AS int8),
           CAST(headers AS text)
         FROM taken ORDER BY number"
    );
    let taken = db.all(&sql, &[], |row| {
        Ok(Inboxed {
            number: row.get(0)?,
            topic: row.get(1)?,
            message: NewMessage {
                key: row.get(2)?,
                payload: row.get::<Option<Bytes>>(3)?,
                priority: row.get(4)?,
                dedupe_id: row.get(5)?,
                // What is long past is due now.
                deliver_at: row.get::<Option<Wall>>(6)?.filter(|at| *at > now),
                headers: row.get::<Option<&str>>(7)?.map(headers).unwrap_or_default(),
            },
        })
    })?;
    member.inbox_looked(!taken.is_empty());
    let bytes: usize =
        taken.iter().map(|it| it.message.payload.as_ref().map_or(0, Bytes::len)).sum();
    if taken.len() == ROWS || bytes >= BYTES {
        member.inbox_at.set(Instant::now());
    }
    member.wrote.set(member.wrote.get() || !taken.is_empty());
    Ok(taken)
}

/// The members of a JSON object; those that are not text, as JSON.
fn headers(json: &str) -> Vec<(String, String)> {
    let object: serde_json::Map<_, _> = serde_json::from_str(json).unwrap_or_default();
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    object.into_iter().map(|(name, value)| (name, text(value))).collect()
}

/// Keeps what could not be published where a person finds it.
pub(super) fn refuse(db: &PostgresDb, refused: &Inboxed, why: &Error) -> Result<(), Error> {
    let message = &refused.message;
    let headers = serde_json::to_string(
        &message.headers.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    )
    .unwrap_or_else(|_| "{}".to_owned());
    let at = message.deliver_at.map(|at| at.as_micros());
    db.write(
        "INSERT INTO refused
           (number, problem, topic, key, payload, headers, priority, deliver_at, dedupe_id)
         VALUES (?1, ?2, ?3, ?4, ?5, CAST(CAST(?6 AS text) AS jsonb), ?7,
           to_timestamp(CAST(CAST(?8 AS int8) AS float8) / 1000000), ?9)",
        &values![
            refused.number,
            &why.to_string(),
            &refused.topic,
            message.key.as_deref(),
            message.payload.as_deref(),
            &headers,
            message.priority,
            at,
            message.dedupe_id.as_deref(),
        ],
    )
}
