//! What a pattern says about a configuration it cannot work with.
//!
//! Each pattern has a plain `Config` whose `Default` is the documented default
//! and whose `validate` answers with a [`ConfigError`]. Whoever parsed the file
//! knows where the key stands and adds line and column.

use core::fmt;

/// A value that a pattern cannot work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field, as it is called in the pattern's `Config`; nested ones joined by a dot.
    pub key: &'static str,
    /// What is wrong and what is allowed: a lower-case fragment.
    pub problem: &'static str,
}

impl ConfigError {
    /// `key` has a value that breaks the rule `problem` states.
    #[must_use]
    pub const fn new(key: &'static str, problem: &'static str) -> Self {
        Self { key, problem }
    }

    /// `Ok` if `holds`, otherwise the error: one line per rule in a `validate`.
    ///
    /// # Errors
    ///
    /// The error described by `key` and `problem`, unless `holds`.
    pub const fn require(
        holds: bool,
        key: &'static str,
        problem: &'static str,
    ) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self::new(key, problem)) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.key, self.problem)
    }
}

impl core::error::Error for ConfigError {}
