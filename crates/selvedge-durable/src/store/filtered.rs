//! What a group's filter passes over, and how far one receive looks for more.

use selvedge_patterns::group::Config as GroupConfig;

use super::{record, topics::ANSWER_BYTES};
use crate::{
    Config, Error,
    filter::{self, Filter, Seen},
    topic::Message,
};

/// The filter in a row.
pub(super) fn stored(text: Option<&str>) -> Result<Option<Filter>, Error> {
    let what = |error| Error::Corrupt { what: format!("a group's filter: {error}") };
    text.map(|text| filter::parse_text(text).map_err(what)).transpose()
}

/// The filter as a row has it.
pub(super) fn text(filter: Option<&Filter>) -> Option<String> {
    filter.map(|filter| filter::show(filter).to_string())
}

/// How many messages one receive may still pass over, so that a group that
/// wants one in a million holds up nobody else for long.
pub(super) struct Scan {
    filter: Option<Filter>,
    payload_max: usize,
    messages: usize,
    bytes: usize,
}

impl Scan {
    pub(super) fn new(config: &Config, group: &GroupConfig) -> Self {
        Self {
            filter: group.filter.clone(),
            payload_max: config.filter_payload_max,
            messages: config.filter_scan_max,
            bytes: ANSWER_BYTES,
        }
    }

    /// Whether the group wants the message; if not, it has been passed over.
    pub(super) fn wants(&mut self, message: &Message) -> bool {
        let Some(filter) = &self.filter else { return true };
        if filter.matches(&Seen::new(message, self.payload_max)) {
            return true;
        }
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(record::message_bytes(message));
        false
    }

    /// A message that nobody gets was kept as a dead letter.
    pub(super) const fn buried(&mut self) {
        self.messages = self.messages.saturating_sub(1);
    }

    /// Whether the rest is for the next receive.
    pub(super) const fn is_over(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }
}
