//! What a topic takes of what is published to others.
//!
//! A rule names topics by a wildcard over the words of their names, and may
//! want some of their messages only. Whoever subscribes to the topic that
//! collects is subscribed to all that it collects from, in one order.
//!
//! Deliberately absent: chains. What was collected is not collected again, so
//! no arrangement of rules goes round in a circle.

use crate::{
    config::ConfigError,
    filter::{Filter, Subject, Wildcard},
};

#[cfg(test)]
mod tests;

/// Most rules of one topic.
pub const RULES_MAX: usize = 16;

/// What to take, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Names of the topics.
    pub from: Wildcard,
    /// Which of their messages. Default: all.
    pub filter: Option<Filter>,
}

/// Whether the rules can be worked with.
///
/// # Errors
///
/// The first rule that is broken.
pub fn validate(rules: &[Rule]) -> Result<(), ConfigError> {
    ConfigError::require(rules.len() <= RULES_MAX, "collect", "must have at most 16 rules")?;
    rules.iter().filter_map(|rule| rule.filter.as_ref()).try_for_each(Filter::validate)
}

/// Whether the topic `own` ever takes anything of the topic `other`.
#[must_use]
pub fn takes_from(own: &str, rules: &[Rule], other: &str) -> bool {
    own != other && rules.iter().any(|rule| rule.from.matches(other))
}

/// Whether the topic `own` takes this message of the topic `other`: once,
/// however many rules say so.
#[must_use]
pub fn takes(own: &str, rules: &[Rule], other: &str, subject: &impl Subject) -> bool {
    let wanted = |rule: &Rule| {
        rule.from.matches(other) && rule.filter.as_ref().is_none_or(|it| it.matches(subject))
    };
    own != other && rules.iter().any(wanted)
}
