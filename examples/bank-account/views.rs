//! What is asked about accounts: the read side, two views of the same events.

use selvedge::durable::{
    Engine,
    projection::{Failure, Projection, Record, View},
};
use serde::{Deserialize, Serialize};

use crate::account::Event;

/// Whose an account is and what is on it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Balance {
    pub(crate) owner: String,
    pub(crate) cents: u64,
}

/// A [`Balance`] for each account.
pub(crate) struct Balances;

impl Projection for Balances {
    async fn project<E: Engine>(
        &self,
        record: &Record,
        view: &mut View<'_, E>,
    ) -> Result<(), Failure> {
        let Some(id) = record.key().strip_prefix("account/") else { return Ok(()) };
        let mut balance = view.get::<Balance>(id).await?.unwrap_or_default();
        match record.decode()? {
            Event::Opened { owner } => balance.owner = owner,
            Event::Deposited { cents } | Event::Received { cents, .. } => balance.cents += cents,
            Event::Withdrawn { cents } | Event::Sent { cents, .. } => balance.cents -= cents,
        }
        view.put(id, &balance)
    }
}

/// A line of a statement.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) cents: i64,
    /// What was there afterwards; the first edition of statements did not say.
    pub(crate) balance: Option<i64>,
}

/// A [`Line`] for each event of each account, in order.
pub(crate) struct Statements {
    pub(crate) with_balance: bool,
}

impl Projection for Statements {
    async fn project<E: Engine>(
        &self,
        record: &Record,
        view: &mut View<'_, E>,
    ) -> Result<(), Failure> {
        let Some(event) = record.event() else { return Ok(()) };
        let Some(id) = event.stream.strip_prefix("account/") else { return Ok(()) };
        let (text, cents) = match event.decode()? {
            Event::Opened { owner } => (format!("opened by {owner}"), 0),
            Event::Deposited { cents } => ("deposit".to_owned(), cents as i64),
            Event::Withdrawn { cents } => ("withdrawal".to_owned(), -(cents as i64)),
            Event::Sent { to, cents } => (format!("to {to}"), -(cents as i64)),
            Event::Received { from, cents } => (format!("from {from}"), cents as i64),
        };
        let mut line = Line { text, cents, balance: None };
        if self.with_balance {
            let before = match event.version.checked_sub(1) {
                Some(before) => view.get::<Line>(&key(id, before)).await?,
                None => None,
            };
            let before = before.and_then(|line| line.balance).unwrap_or(0);
            line.balance = Some(before + cents);
        }
        view.put(&key(id, event.version), &line)
    }
}

/// Lines sort by account and then by number.
fn key(id: &str, version: u64) -> String {
    format!("{id}/{version:010}")
}
