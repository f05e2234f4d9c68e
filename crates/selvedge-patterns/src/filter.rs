//! Which messages somebody wants.
//!
//! A filter is a tree of tests of a message's key, its headers (the attributes
//! of a CloudEvent are among them) and the fields of its payload. What a
//! message does not have passes no test; `not` turns that round too. A filter
//! is read once and asked for every message, so its size is bounded and a
//! match takes time in proportion to filter times message.
//!
//! Deliberately absent: JSON. How a payload is read, and how much of it, is the
//! business of the [`Subject`].
//!
//! Sources: CloudEvents Subscriptions API, "Filter dialects" (`exact`,
//! `prefix`, `suffix`, `all`, `any`, `not`); AMQP 0-9-1, "topic exchange" (the
//! wildcards `*` and `#`, as RabbitMQ has them).

use crate::config::ConfigError;

#[cfg(test)]
mod tests;

/// Most tests in one filter.
pub const TESTS_MAX: usize = 64;
/// Deepest nesting of `all`, `any` and `not`.
pub const DEPTH_MAX: usize = 8;
/// Bytes of the longest text in a test. A longer text fits no [`Wildcard`].
pub const TEXT_MAX: usize = 1024;
/// Deepest field of a payload.
pub const PATH_MAX: usize = 16;

/// Whether a message is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// What is there passes.
    Test(Place, Test),
    /// All of them say so; with none, every message is.
    All(Vec<Self>),
    /// At least one of them says so; with none, no message is.
    Any(Vec<Self>),
    /// It does not say so.
    Not(Box<Self>),
}

/// What is tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The message's key.
    Key,
    /// The header of this name, which is in lower case. An attribute of a
    /// CloudEvent is the header `ce-` and its name.
    Header(String),
    /// The field of the payload that one gets to by these names, and numbers
    /// in lists; the payload itself if there are none.
    Field(Vec<String>),
}

/// What it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// This text.
    Exact(String),
    /// A text that begins so.
    Prefix(String),
    /// A text that ends so.
    Suffix(String),
    /// A text whose words fit.
    Wildcard(Wildcard),
    /// One of these.
    In(Vec<Scalar>),
    /// A number on this side of that one.
    Number(Side, Number),
}

/// One side of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Below it.
    Below,
    /// Below it, or it.
    AtMost,
    /// Above it.
    Above,
    /// Above it, or it.
    AtLeast,
}

/// A number that is one: compared as a 64-bit float.
#[derive(Clone, Copy, Debug)]
pub struct Number(f64);

impl Number {
    /// `None` for what is not finite.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// Finite, so equal to itself.
impl Eq for Number {}

/// A plain value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Nothing, said in so many words.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
}

/// A value that a message has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found<'a> {
    /// Nothing, said in so many words.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(&'a str),
    /// A text that stands for whatever it can be read as: a key or a header.
    Word(&'a str),
}

/// A message, as a filter sees it.
pub trait Subject {
    /// Its key.
    fn key(&self) -> Option<&str>;
    /// The first header of that name.
    fn header(&self, name: &str) -> Option<&str>;
    /// What is in its payload there, if that is a plain value.
    fn field(&self, path: &[String]) -> Option<Found<'_>>;
}

impl Filter {
    /// Whether `subject` is wanted.
    #[must_use]
    pub fn matches(&self, subject: &impl Subject) -> bool {
        match self {
            Self::Test(place, test) => {
                let found = match place {
                    Place::Key => subject.key().map(Found::Word),
                    Place::Header(name) => subject.header(name).map(Found::Word),
                    Place::Field(path) => subject.field(path),
                };
                found.is_some_and(|found| test.passes(found))
            }
            Self::All(all) => all.iter().all(|one| one.matches(subject)),
            Self::Any(any) => any.iter().any(|one| one.matches(subject)),
            Self::Not(inner) => !inner.matches(subject),
        }
    }

    /// Whether it keeps to the bounds.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let require = |holds, problem| ConfigError::require(holds, "filter", problem);
        require(self.depth() <= DEPTH_MAX, "must not be nested deeper than 8")?;
        require(self.tests() <= TESTS_MAX, "must have at most 64 tests, groups and values")?;
        let texts = "must not have a text of more than 1,024 bytes";
        require(self.longest() <= TEXT_MAX, texts)?;
        require(self.fields_are_near(), "must not look deeper than 16 names into a payload")
    }

    fn inner(&self) -> &[Self] {
        match self {
            Self::Test(..) => &[],
            Self::All(all) | Self::Any(all) => all,
            Self::Not(inner) => std::slice::from_ref(inner),
        }
    }

    fn depth(&self) -> usize {
        1 + self.inner().iter().map(Self::depth).max().unwrap_or(0)
    }

    /// Everything that costs a comparison.
    fn tests(&self) -> usize {
        let own = match self {
            Self::Test(_, Test::In(values)) => values.len().max(1),
            _ => 1,
        };
        own + self.inner().iter().map(Self::tests).sum::<usize>()
    }

    fn longest(&self) -> usize {
        let own = match self {
            Self::Test(place, test) => place.longest().max(test.longest()),
            _ => 0,
        };
        self.inner().iter().map(Self::longest).max().unwrap_or(0).max(own)
    }

    fn fields_are_near(&self) -> bool {
        let near = !matches!(self, Self::Test(Place::Field(path), _) if path.len() > PATH_MAX);
        near && self.inner().iter().all(Self::fields_are_near)
    }
}

impl Place {
    /// Reads `key`, `data`, `data.customer.tier`, `headers.x-tenant`, or the
    /// name of an attribute such as `type`.
    ///
    /// # Errors
    ///
    /// What is allowed, if it is none of these.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(name) = text.strip_prefix("headers.") {
            let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            let header = || Self::Header(name.to_ascii_lowercase());
            return plain.then(header).ok_or("`headers.` needs a header's name after it");
        }
        if let Some(path) = text.strip_prefix("data.") {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            let named = path.iter().all(|name| !name.is_empty());
            return named
                .then_some(Self::Field(path))
                .ok_or("`data.` needs the names of fields after it, such as `data.customer.tier`");
        }
        match text {
            "key" => Ok(Self::Key),
            "data" => Ok(Self::Field(Vec::new())),
            "datacontenttype" => Ok(Self::Header("content-type".to_owned())),
            _ if is_attribute(text) => Ok(Self::Header(format!("ce-{text}"))),
            _ => Err("a name is `key`, `data.…`, `headers.…`, or an attribute's such as `type`, \
                      of `a-z` and `0-9`"),
        }
    }

    /// As [`Self::parse`] reads it.
    #[must_use]
    pub fn show(&self) -> String {
        match self {
            Self::Key => "key".to_owned(),
            Self::Header(name) => match name.strip_prefix("ce-") {
                Some(name) if is_attribute(name) && Self::parse(name) == Ok(self.clone()) => {
                    name.to_owned()
                }
                _ => format!("headers.{name}"),
            },
            Self::Field(path) if path.is_empty() => "data".to_owned(),
            Self::Field(path) => format!("data.{}", path.join(".")),
        }
    }

    fn longest(&self) -> usize {
        match self {
            Self::Key => 0,
            Self::Header(name) => name.len(),
            Self::Field(path) => path.iter().map(String::len).max().unwrap_or(0),
        }
    }
}

fn is_attribute(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(plain)
}

impl Test {
    fn passes(&self, found: Found<'_>) -> bool {
        match self {
            Self::Exact(wanted) => found.text() == Some(wanted),
            Self::Prefix(wanted) => found.text().is_some_and(|text| text.starts_with(wanted)),
            Self::Suffix(wanted) => found.text().is_some_and(|text| text.ends_with(wanted)),
            Self::Wildcard(wanted) => found.text().is_some_and(|text| wanted.matches(text)),
            Self::In(wanted) => wanted.iter().any(|wanted| found.is(wanted)),
            Self::Number(side, wanted) => found.number().is_some_and(|number| match side {
                Side::Below => number < wanted.0,
                Side::AtMost => number <= wanted.0,
                Side::Above => number > wanted.0,
                Side::AtLeast => number >= wanted.0,
            }),
        }
    }

    fn longest(&self) -> usize {
        let length = |scalar: &Scalar| if let Scalar::Text(text) = scalar { text.len() } else { 0 };
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) => text.len(),
            Self::Wildcard(wildcard) => wildcard.text.len(),
            Self::In(values) => values.iter().map(length).max().unwrap_or(0),
            Self::Number(..) => 0,
        }
    }
}

impl<'a> Found<'a> {
    const fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) | Self::Word(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) => None,
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Word(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
            Self::Null | Self::Bool(_) | Self::Text(_) => None,
        }
    }

    fn is(self, wanted: &Scalar) -> bool {
        match (self, wanted) {
            (Self::Null, Scalar::Null) => true,
            (Self::Bool(found), Scalar::Bool(wanted)) => found == *wanted,
            (Self::Word(found), Scalar::Bool(wanted)) => {
                found == if *wanted { "true" } else { "false" }
            }
            (_, Scalar::Number(wanted)) => self.number() == Some(wanted.0),
            (_, Scalar::Text(wanted)) => self.text() == Some(wanted),
            _ => false,
        }
    }
}

/// A text of words with a dot between them, in which `*` stands for one word
/// and `#` for any number of words, none included: `orders.*`, `auth.#`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildcard {
    text: String,
    words: Vec<Word>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// `*`
    One,
    /// `#`
    Some,
    Is(String),
}

/// The words of a text; an empty one has none.
fn words(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split('.').take(if text.is_empty() { 0 } else { usize::MAX })
}

impl Wildcard {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// What is allowed, if this is not.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > TEXT_MAX {
            return Err("a pattern has at most 1,024 bytes");
        }
        let word = |word: &str| match word {
            "*" => Ok(Word::One),
            "#" => Ok(Word::Some),
            _ if word.contains(['*', '#']) => {
                Err("`*` and `#` stand for whole words between dots, as in `orders.*`")
            }
            _ => Ok(Word::Is(word.to_owned())),
        };
        let words = words(text).map(word).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), words })
    }

    /// Whether a text is meant as a pattern.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.contains(['*', '#'])
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether all words of `text` fit; never those of a text longer than
    /// [`TEXT_MAX`]. Takes words of the pattern times words of the text at most:
    /// where a word does not fit, only the last `#` takes one more.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        if text.len() > TEXT_MAX {
            return false;
        }
        let (mut at, mut rest) = (0, words(text));
        // What follows the last `#`, and the words that it has not taken.
        let mut again = None;
        loop {
            let wanted = self.words.get(at);
            if wanted == Some(&Word::Some) {
                at += 1;
                again = Some((at, rest.clone()));
                continue;
            }
            let mut ahead = rest.clone();
            match (wanted, ahead.next()) {
                (None, None) => return true,
                // What follows the `#` would have even fewer words to fit.
                (Some(_), None) => return false,
                (Some(wanted), Some(word)) if wanted.fits(word) => {
                    at += 1;
                    rest = ahead;
                    continue;
                }
                _ => {}
            }
            let Some((after, left)) = &mut again else { return false };
            if left.next().is_none() {
                return false;
            }
            (at, rest) = (*after, left.clone());
        }
    }
}

impl Word {
    fn fits(&self, word: &str) -> bool {
        match self {
            Self::One | Self::Some => true,
            Self::Is(wanted) => wanted == word,
        }
    }
}
