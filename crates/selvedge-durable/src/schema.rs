//! What the payloads of a topic must be: a JSON Schema, and how it may change.
//!
//! A schema is bounded so that a check is: references are put in the place they
//! stand for, within the schema and never in a circle, patterns are those that
//! take linear time, and nothing is ever fetched.

use std::sync::{Arc, OnceLock};

use jsonschema::{PatternOptions, Validator};
use selvedge_patterns::compat;
pub use selvedge_patterns::compat::Compatibility;
use serde_json::Value;

use crate::Error;

mod inline;
mod shape;
#[cfg(test)]
mod tests;

/// Bytes of the longest schema.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Characters of what a check says about a message.
const PROBLEM_CHARS: usize = 300;

/// A JSON Schema that the messages of a topic are checked against.
#[derive(Clone)]
pub struct Schema {
    text: String,
    compatibility: Compatibility,
    version: u64,
    compiled: OnceLock<Result<Arc<Validator>, String>>,
}

/// What is wrong with a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where in the payload: a JSON pointer, empty for the whole of it.
    pub path: String,
    /// The rule, as a JSON pointer into the schema; empty if it is no JSON at all.
    pub rule: String,
    /// What is wrong.
    pub problem: String,
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.compatibility == other.compatibility
    }
}

impl Eq for Schema {}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { text, compatibility, .. } = self;
        f.debug_struct("Schema")
            .field("text", text)
            .field("compatibility", compatibility)
            .finish_non_exhaustive()
    }
}

impl Schema {
    /// Reads a schema, of drafts 7, 2019-09 or 2020-12.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: where in it, what is wrong, and what is allowed.
    pub fn parse(document: &Value, compatibility: Compatibility) -> Result<Self, Error> {
        let text = document.to_string();
        if text.len() > SCHEMA_BYTES_MAX {
            let problem = format!("has {} bytes, at most {SCHEMA_BYTES_MAX}", text.len());
            return Err(Error::invalid("schema", problem));
        }
        let schema = Self::stored(text, compatibility, 0);
        schema.validator().map_err(|problem| Error::invalid("schema", problem))?;
        Ok(schema)
    }

    /// One that was read before, as version `version` of its topic.
    pub(crate) const fn stored(text: String, compatibility: Compatibility, version: u64) -> Self {
        Self { text, compatibility, version, compiled: OnceLock::new() }
    }

    /// The same, known to be this version of its topic.
    pub(crate) fn of_version(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// The schema.
    #[must_use]
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// Which changes of it are allowed.
    #[must_use]
    pub const fn compatibility(&self) -> Compatibility {
        self.compatibility
    }

    /// Which schema of its topic it is, from 1; 0 before it is that of a topic.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn validator(&self) -> Result<&Validator, String> {
        let compiled = self.compiled.get_or_init(|| {
            let inlined = inline::inlined(&self.document())?;
            let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
            let built = options.should_validate_formats(false).offline().build(&inlined);
            built.map(Arc::new).map_err(|error| {
                let (path, problem) = (error.instance_path().to_string(), cut(&error.to_string()));
                if path.is_empty() { problem } else { format!("at `{path}`: {problem}") }
            })
        });
        compiled.as_deref().map_err(Clone::clone)
    }

    /// Whether a payload is allowed.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks; the outer error if the schema is damaged.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<Result<(), Mismatch>, Error> {
        let what = |problem| Error::Corrupt { what: format!("a topic's schema: {problem}") };
        let validator = self.validator().map_err(what)?;
        let value: Value = match serde_json::from_slice(payload) {
            Ok(value) => value,
            Err(error) => {
                let problem = format!("the payload is no JSON: {error}");
                return Ok(Err(Mismatch { path: String::new(), rule: String::new(), problem }));
            }
        };
        // What a payload holds may be nobody else's business.
        Ok(validator.validate(&value).map_err(|error| Mismatch {
            path: error.instance_path().to_string(),
            rule: error.schema_path().to_string(),
            problem: cut(&error.masked_with("the value").to_string()),
        }))
    }

    /// Whether it may take the place of `old`, as its own compatibility says.
    ///
    /// # Errors
    ///
    /// Where, and what stands in the way.
    pub(crate) fn follows(&self, old: &Self) -> Result<(), compat::Refusal> {
        compat::check(self.compatibility, &self.shape()?, &old.shape()?)
    }

    fn shape(&self) -> Result<compat::Shape, compat::Refusal> {
        let inlined = inline::inlined(&self.document());
        let inlined =
            inlined.map_err(|problem| compat::Refusal { path: String::new(), problem })?;
        Ok(shape::read(&inlined))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(PROBLEM_CHARS).collect()
}

/// Reads the word for a compatibility.
///
/// # Errors
///
/// [`Error::Invalid`], with the words there are.
pub fn compatibility(word: &str) -> Result<Compatibility, Error> {
    match word {
        "none" => Ok(Compatibility::None),
        "backward" => Ok(Compatibility::Backward),
        "forward" => Ok(Compatibility::Forward),
        "full" => Ok(Compatibility::Full),
        _ => {
            Err(Error::invalid("compatibility", "must be `none`, `backward`, `forward` or `full`"))
        }
    }
}

/// The word for a compatibility.
#[must_use]
pub const fn compatibility_word(compatibility: Compatibility) -> &'static str {
    match compatibility {
        Compatibility::None => "none",
        Compatibility::Backward => "backward",
        Compatibility::Forward => "forward",
        Compatibility::Full => "full",
    }
}
