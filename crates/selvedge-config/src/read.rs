//! How typed values come out of the tree, and everything else that is derived
//! from a type: how it is shown, and its JSON Schema.
//!
//! [`section!`] and [`choice!`] declare the schema once (`schema.rs`); reader,
//! defaults, `show --effective`, JSON Schema and the reference page all come
//! from that one declaration. The reader never stops at the first problem.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    time::Duration,
};

use serde_json::{Map as Object, Value, json};

use crate::{
    diagnostic::{Code, Diagnostic},
    show::{Pair, SECRET, Shown},
    source::Span,
    suggest::nearest,
    tree::{Entry, Kind, Node, Scalar},
    value::{self, Address, Bytes, Misread, Percent, Rate},
};

/// Collects problems while a tree is read.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) problems: Vec<Diagnostic>,
    /// The key whose value is being read: where something is missing.
    pub(crate) here: Span,
    /// Whether required keys may be absent, as under `defaults:`.
    pub(crate) partial: bool,
}

impl Reader {
    pub(crate) fn new(here: Span) -> Self {
        Self { problems: Vec::new(), here, partial: false }
    }

    pub(crate) fn problem(&mut self, diagnostic: Diagnostic) {
        self.problems.push(diagnostic);
    }

    fn unexpected(&mut self, node: &Node, expected: &str, help: Option<String>) {
        if node.kind == Kind::Broken {
            return;
        }
        let message = format!("expected {expected}, found {}", node.describe());
        let mut diagnostic = Diagnostic::error(Code::WRONG_VALUE, message).at(node.span, "");
        diagnostic.help = help;
        self.problem(diagnostic);
    }

    /// The text of a scalar, or a problem.
    fn scalar<'a>(&mut self, node: &'a Node, expected: &str) -> Option<&'a Scalar> {
        match &node.kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => {
                self.unexpected(node, expected, None);
                None
            }
        }
    }

    fn parsed<T>(
        &mut self,
        node: &Node,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, Misread>,
    ) -> Option<T> {
        let scalar = self.scalar(node, expected)?;
        match parse(&scalar.text) {
            Ok(value) => Some(value),
            Err(misread) => {
                self.unexpected(node, misread.expected, misread.help);
                None
            }
        }
    }

    /// A value that `parse` makes of a scalar's text, or a problem that says what was `expected`.
    pub(crate) fn text<T>(
        &mut self,
        node: &Node,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let scalar = self.scalar(node, expected)?;
        let value = parse(&scalar.text);
        if value.is_none() {
            self.unexpected(node, expected, None);
        }
        value
    }

    /// Reads the value of `entry`, remembering where its key is.
    fn value<T: Field>(&mut self, entry: &Entry) -> Option<T> {
        let outer = std::mem::replace(&mut self.here, entry.key_span);
        let value = T::read(&entry.value, self);
        self.here = outer;
        value
    }
}

/// Definitions of a JSON Schema by name.
pub(crate) type Definitions = BTreeMap<String, Value>;

/// What a value of the file can do.
pub(crate) trait Field: Sized {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;
    fn show(&self) -> Shown;
    fn json_schema(definitions: &mut Definitions) -> Value;
    /// What `over` makes of `base`, as when a service is laid over `defaults:`.
    fn merge(base: &Node, over: &Node) -> Node {
        let _ = base;
        over.clone()
    }
    /// Gives defaults the place of the key that they belong to.
    fn settle(&mut self, at: Span) {
        let _ = at;
    }
}

/// A value together with where it comes from.
///
/// Equality looks at the value only.
#[derive(Clone, Debug)]
pub struct Set<T> {
    value: T,
    span: Span,
    given: bool,
}

impl<T> Set<T> {
    /// Where it is written; for a default, the key of the section it is in.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }

    /// Whether somebody wrote it.
    #[must_use]
    pub const fn given(&self) -> bool {
        self.given
    }

    pub(crate) const fn new(value: T, span: Span, given: bool) -> Self {
        Self { value, span, given }
    }
}

impl<T> Set<T> {
    /// Puts a default that depends on other keys in the place of the fixed one.
    pub(crate) fn or_default(&mut self, value: T) {
        if !self.given {
            self.value = value;
        }
    }
}

impl<T: fmt::Display> fmt::Display for Set<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> DerefMut for Set<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Deref for Set<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Set<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// Values by name, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<T> {
    entries: Vec<(Set<String>, T)>,
    /// Names whose values could not be read; none once a configuration is loaded.
    unreadable: Vec<String>,
}

impl<T> Named<T> {
    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&Set<String>, &T)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Set<String>, &mut T)> {
        self.entries.iter_mut().map(|(name, value)| (&*name, value))
    }

    /// The value of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.iter().find(|(it, _)| it.as_str() == name).map(|(_, value)| value)
    }

    /// Every name, those included whose values could not be read.
    pub(crate) fn names(&self) -> Vec<&str> {
        let read = self.entries.iter().map(|(name, _)| name.as_str());
        read.chain(self.unreadable.iter().map(String::as_str)).collect()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), unreadable: Vec::new() }
    }
}

/// A free text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text {
    text: String,
    /// What the file says, if some of it came from `${…}`: it may be a secret, and is shown as this.
    written: Option<String>,
}

impl Text {
    /// `text`, not a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), written: None }
    }

    /// All of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.written.is_some() { f.write_str(SECRET) } else { self.text.fmt(f) }
    }
}

impl Field for Text {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let scalar = reader.scalar(node, "a text")?;
        Some(Self { text: scalar.text.clone(), written: scalar.written.clone() })
    }

    fn show(&self) -> Shown {
        match &self.written {
            Some(written) => Shown::Written(written.clone()),
            None => Shown::Text(self.text.clone()),
        }
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    secret: String,
    /// The `${…}` that it came from, if that is all the file says.
    reference: Option<String>,
}

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.secret
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SECRET)
    }
}

impl Field for Secret {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.text == SECRET => {
                reader.problem(
                    Diagnostic::error(
                        Code::OUT_OF_RANGE,
                        format!("`{SECRET}` is what stands in the place of a secret that is not shown"),
                    )
                    .at(node.span, "the secret itself is missing")
                    .help("put it back; one that is taken from `${NAME}` or `${file:…}` is shown as that"),
                );
                None
            }
            Kind::Scalar(scalar) => {
                let reference = scalar.written.clone().filter(|written| is_reference(written));
                Some(Self { secret: scalar.text.clone(), reference })
            }
            _ => {
                reader.unexpected(
                    node,
                    "a secret such as `${TOKEN}` or `${file:/run/secrets/token}`",
                    None,
                );
                None
            }
        }
    }

    fn show(&self) -> Shown {
        match &self.reference {
            Some(reference) => Shown::Written(reference.clone()),
            None => Shown::Text(SECRET.to_owned()),
        }
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "type": "string" })
    }
}

/// Whether this is one `${…}` and nothing beside it: then it says where a secret
/// is and nothing of what it is.
fn is_reference(written: &str) -> bool {
    let inside = written.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    inside.is_some_and(|inside| !inside.contains(['{', '}', '$']) && !inside.contains(":-"))
}

/// A JSON Schema for texts that match `pattern` or bring in the environment.
fn pattern(pattern: &str, example: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^({pattern}|.*\\$\\{{.*)$"), "examples": [example] })
}

macro_rules! parsed {
    ($type:ty, $expected:literal, $parse:path, $show:expr, $schema:expr) => {
        impl Field for $type {
            fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
                reader.parsed(node, $expected, $parse)
            }

            fn show(&self) -> Shown {
                let show: fn(&Self) -> String = $show;
                Shown::Word(show(self))
            }

            fn json_schema(_: &mut Definitions) -> Value {
                $schema
            }
        }
    };
}

parsed!(
    Duration,
    "a duration such as `250ms`, `1.5s` or `2m`",
    value::duration,
    |it| value::show_duration(*it),
    json!({ "anyOf": [pattern(r"([0-9]+(\.[0-9]+)?(d|h|m|s|ms|us|ns))+|0", "250ms"), { "const": 0 }] })
);
parsed!(
    Bytes,
    "a size such as `64KiB`, `10MB` or `512B`",
    value::size,
    ToString::to_string,
    json!({ "anyOf": [pattern(r"[0-9]+(\.[0-9]+)? ?(B|kB|KB|MB|GB|KiB|MiB|GiB)|0", "64KiB"), { "const": 0 }] })
);
parsed!(
    Percent,
    "a percentage such as `50%`",
    value::percent,
    ToString::to_string,
    pattern(r"[0-9]+(\.[0-9]+)? ?%", "50%")
);
parsed!(
    Rate,
    "a rate such as `100/s`, `100rps` or `6000/m`",
    value::rate,
    ToString::to_string,
    pattern(r"[0-9]+ ?(rps|qps|rpm|/ ?[0-9a-z.]+)", "100/s")
);
parsed!(
    SocketAddr,
    "an address to listen on such as `127.0.0.1:8080` or `:8080`",
    value::bind,
    |it| format!("\"{it}\""),
    pattern(r".*:[0-9]+", "127.0.0.1:8080")
);
parsed!(
    Address,
    "an endpoint such as `127.0.0.1:9001` or `orders.internal:9001`",
    value::address,
    |it| format!("\"{it}\""),
    pattern(r".+:[0-9]+", "127.0.0.1:9001")
);

impl Field for bool {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let scalar = reader.scalar(node, "`true` or `false`")?;
        match scalar.text.as_str() {
            "true" | "on" => Some(true),
            "false" | "off" => Some(false),
            other => {
                let meant = match other.to_ascii_lowercase().as_str() {
                    "yes" | "y" | "1" | "true" | "on" => Some("write `true`".to_owned()),
                    "no" | "n" | "0" | "false" | "off" => Some("write `false`".to_owned()),
                    _ => None,
                };
                reader.unexpected(node, "`true` or `false`", meant);
                None
            }
        }
    }

    fn show(&self) -> Shown {
        Shown::Word(self.to_string())
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "anyOf": [{ "type": "boolean" }, pattern("on|off|true|false", "true")] })
    }
}

macro_rules! whole {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
                let scalar = reader.scalar(node, "a whole number")?;
                let text = scalar.text.replace('_', "");
                if let Ok(number) = text.parse() {
                    return Some(number);
                }
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                if digits {
                    reader.unexpected(node, &format!("a number of at most {}", Self::MAX), None);
                } else {
                    reader.unexpected(node, "a whole number such as `3`", None);
                }
                None
            }

            fn show(&self) -> Shown {
                Shown::Word(self.to_string())
            }

            fn json_schema(_: &mut Definitions) -> Value {
                json!({ "anyOf": [
                    { "type": "integer", "minimum": 0, "maximum": Self::MAX },
                    pattern("[0-9_]+", "3"),
                ] })
            }
        }
    )*};
}

whole!(u16, u32, usize);

/// A factor such as `2` or `1.5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor(pub f64);

impl Field for Factor {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let scalar = reader.scalar(node, "a number such as `2` or `1.5`")?;
        let text = scalar.text.strip_suffix('x').unwrap_or(&scalar.text);
        match text.parse::<f64>() {
            Ok(factor) if factor.is_finite() && (0.0..=1e6).contains(&factor) => Some(Self(factor)),
            _ => {
                reader.unexpected(node, "a number such as `2` or `1.5`", None);
                None
            }
        }
    }

    fn show(&self) -> Shown {
        Shown::Word(self.0.to_string())
    }

    fn json_schema(_: &mut Definitions) -> Value {
        json!({ "anyOf": [{ "type": "number", "minimum": 0 }, pattern(r"[0-9]+(\.[0-9]+)?x?", "2")] })
    }
}

fn is_word(node: &Node, words: &[&str]) -> bool {
    matches!(&node.kind, Kind::Scalar(scalar) if !scalar.quoted && words.contains(&scalar.text.as_str()))
}

/// Whether `node` switches something off.
pub(crate) fn is_off(node: &Node) -> bool {
    is_word(node, &["off", "false", "none"])
}

impl<T: Field> Field for Option<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if is_off(node) { Some(None) } else { T::read(node, reader).map(Some) }
    }

    fn show(&self) -> Shown {
        self.as_ref().map_or(Shown::Off, T::show)
    }

    fn json_schema(definitions: &mut Definitions) -> Value {
        json!({ "anyOf": [T::json_schema(definitions), { "enum": ["off", "none", false] }] })
    }

    fn merge(base: &Node, over: &Node) -> Node {
        if is_off(base) || is_off(over) { over.clone() } else { T::merge(base, over) }
    }

    fn settle(&mut self, at: Span) {
        if let Some(value) = self {
            value.settle(at);
        }
    }
}

/// A list; a single value may stand for a list of one.
impl<T: Field> Field for Vec<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.kind {
            Kind::Sequence(items) => {
                let mut read = Self::new();
                for item in items {
                    let outer = std::mem::replace(&mut reader.here, item.span);
                    read.extend(T::read(item, reader));
                    reader.here = outer;
                }
                // Those that cannot be read have been complained about.
                (items.is_empty() || !read.is_empty()).then_some(read)
            }
            _ => T::read(node, reader).map(|one| vec![one]),
        }
    }

    fn show(&self) -> Shown {
        Shown::List(self.iter().map(T::show).collect())
    }

    fn json_schema(definitions: &mut Definitions) -> Value {
        let item = T::json_schema(definitions);
        json!({ "anyOf": [{ "type": "array", "items": item }, item] })
    }
}

/// One of a list, with its place.
impl<T: Field> Field for Set<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        T::read(node, reader).map(|value| Self::new(value, node.span, true))
    }

    fn show(&self) -> Shown {
        self.value.show()
    }

    fn json_schema(definitions: &mut Definitions) -> Value {
        T::json_schema(definitions)
    }

    fn merge(base: &Node, over: &Node) -> Node {
        T::merge(base, over)
    }

    fn settle(&mut self, at: Span) {
        if !self.given {
            self.span = at;
            self.value.settle(at);
        }
    }
}

impl<T: Field> Field for Named<T> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Mapping(entries) = &node.kind else {
            reader.unexpected(
                node,
                "a mapping from names to what they mean",
                Some("write `name: …` below it, indented".to_owned()),
            );
            return None;
        };
        let mut named = Self::default();
        for entry in entries {
            match reader.value(entry) {
                Some(value) => {
                    let name = Set::new(entry.key.clone(), entry.key_span, true);
                    named.entries.push((name, value));
                }
                None => named.unreadable.push(entry.key.clone()),
            }
        }
        Some(named)
    }

    fn show(&self) -> Shown {
        let pair = |(name, value): (&Set<String>, &T)| Pair {
            key: name.to_string(),
            value: value.show(),
            default: false,
        };
        Shown::Map(self.iter().map(pair).collect())
    }

    fn json_schema(definitions: &mut Definitions) -> Value {
        json!({ "type": "object", "additionalProperties": T::json_schema(definitions) })
    }
}

/// What [`section!`] knows about a section besides its fields.
pub(crate) struct Outline {
    /// What it is called in messages: "a service".
    pub(crate) word: &'static str,
    /// The key that a bare value stands for.
    pub(crate) short: Option<&'static str>,
    /// Its keys.
    pub(crate) keys: &'static [&'static str],
    /// Keys that belong to a later version.
    pub(crate) later: &'static [&'static str],
}

/// A section: a mapping with a fixed set of keys.
pub(crate) trait Section: Sized {
    const OUTLINE: Outline;
    /// Reads from the entries of a mapping that have been checked against the outline.
    fn read_entries(entries: &Node, reader: &mut Reader) -> Option<Self>;
}

/// The mapping that a section is read from: `node` itself, or the one it is short for.
pub(crate) fn section_mapping<T: Section>(node: &Node, reader: &mut Reader) -> Option<Node> {
    let outline = T::OUTLINE;
    if let Some(mapping) = unfold::<T>(node) {
        return Some(mapping);
    }
    match (&node.kind, outline.short) {
        (Kind::Null, _) => {
            let help = match outline.short {
                Some(short) => {
                    format!("write its keys below it, indented; a bare value is its `{short}`")
                }
                None => format!("write its keys below it, indented: {}", list(outline.keys)),
            };
            reader.unexpected(node, outline.word, Some(help));
            None
        }
        _ => {
            let help = format!("its keys are {}", list(outline.keys));
            reader.unexpected(node, &format!("{} (a mapping)", outline.word), Some(help));
            None
        }
    }
}

/// The mapping that `node` is or is short for, if it is either.
fn unfold<T: Section>(node: &Node) -> Option<Node> {
    let mapping = |entries| Some(Node::new(node.span, Kind::Mapping(entries)));
    match (&node.kind, T::OUTLINE.short) {
        (Kind::Mapping(_), _) => Some(node.clone()),
        (Kind::Scalar(_), _) if is_word(node, &["on", "true"]) => mapping(Vec::new()),
        (Kind::Scalar(_) | Kind::Sequence(_), Some(short)) if !is_off(node) => {
            let entry = Entry { key: short.to_owned(), key_span: node.span, value: node.clone() };
            mapping(vec![entry])
        }
        _ => None,
    }
}

/// The keys of both, those of `over` before those of `base`.
pub(crate) fn merge_sections<T: Section>(
    base: &Node,
    over: &Node,
    merge: impl Fn(&str, &Node, &Node) -> Node,
) -> Node {
    let (Some(base), Some(mut merged)) = (unfold::<T>(base), unfold::<T>(over)) else {
        return over.clone();
    };
    let (Kind::Mapping(base), Kind::Mapping(over)) = (base.kind, &mut merged.kind) else {
        return merged;
    };
    for entry in base {
        match over.iter_mut().find(|it| it.key == entry.key) {
            Some(own) => own.value = merge(&entry.key, &entry.value, &own.value),
            None => over.push(entry),
        }
    }
    merged
}

/// Complains about keys that are not in the outline.
pub(crate) fn check_keys<T: Section>(node: &Node, reader: &mut Reader) {
    let Kind::Mapping(entries) = &node.kind else { return };
    let outline = T::OUTLINE;
    for entry in entries {
        let key = entry.key.as_str();
        if outline.keys.contains(&key) {
            continue;
        }
        if outline.later.contains(&key) {
            reader.problem(
                Diagnostic::error(Code::NOT_YET, format!("`{key}` is not in this version"))
                    .at(entry.key_span, "planned, and not accepted before it works")
                    .help("take it out"),
            );
            continue;
        }
        let found = Diagnostic::error(
            Code::UNKNOWN_KEY,
            format!("{} has no key `{}`", outline.word, crate::tree::shorten(key)),
        )
        .at(entry.key_span, "unknown")
        .note(format!("allowed here: {}", list(outline.keys)));
        reader.problem(match advice(key, &outline) {
            Some(help) => found.help(help),
            None => found,
        });
    }
}

fn advice(key: &str, outline: &Outline) -> Option<String> {
    if key == "<<" {
        return Some(
            "merge keys are not read; what services share goes under `defaults:`".to_owned(),
        );
    }
    if key.contains("${") {
        return Some("`${…}` is filled in in values only, not in keys".to_owned());
    }
    if let Some(meant) = nearest(key, outline.keys.iter().copied()) {
        return Some(format!("did you mean `{meant}`?"));
    }
    let elsewhere = crate::schema::sections_with(key);
    (!elsewhere.is_empty()).then(|| format!("`{key}` is a key of {}", elsewhere.join(", of ")))
}

/// `a, b and c`.
pub(crate) fn list(words: &[&str]) -> String {
    match words {
        [] => "none".to_owned(),
        [one] => format!("`{one}`"),
        [all @ .., last] => {
            let all: Vec<String> = all.iter().map(|word| format!("`{word}`")).collect();
            format!("{} and `{last}`", all.join(", "))
        }
    }
}

/// Reads one key of a section.
///
/// A value that cannot be read is complained about and, where the key has a
/// default, passed over: so what is wrong elsewhere is found as well.
pub(crate) fn field<T: Field>(
    node: &Node,
    key: &'static str,
    default: Option<fn() -> T>,
    outline: &Outline,
    reader: &mut Reader,
) -> Option<Set<T>> {
    if let Some(entry) = node.get(key) {
        return match reader.value(entry) {
            Some(value) => Some(Set::new(value, place(entry), true)),
            None => default.map(|default| by_default(default(), place(entry))),
        };
    }
    if let Some(default) = default {
        return Some(by_default(default(), reader.here));
    }
    if !reader.partial && !misspelt(node, key, outline) {
        let message = format!("{} needs `{key}`", outline.word);
        let diagnostic = Diagnostic::error(Code::MISSING_KEY, message);
        reader.problem(diagnostic.at(reader.here, format!("`{key}` is missing")));
    }
    None
}

fn by_default<T: Field>(mut value: T, at: Span) -> Set<T> {
    value.settle(at);
    Set::new(value, at, false)
}

/// Whether an unknown key of `node` has been answered with "did you mean `key`".
fn misspelt(node: &Node, key: &str, outline: &Outline) -> bool {
    let Kind::Mapping(entries) = &node.kind else { return false };
    let meant = |entry: &Entry| {
        !outline.keys.contains(&entry.key.as_str())
            && nearest(&entry.key, outline.keys.iter().copied()) == Some(key)
    };
    entries.iter().any(meant)
}

/// What to underline for an entry: key and value where both are on a line, else the key.
fn place(entry: &Entry) -> Span {
    let (key, value) = (entry.key_span, entry.value.span);
    let short = matches!(entry.value.kind, Kind::Scalar(_) | Kind::Null);
    let near = value.file() == key.file()
        && value.start() >= key.start()
        && value.start() < key.end() + 40;
    if short && near { Span::new(key.file(), key.start(), value.end()) } else { key }
}

/// Puts the JSON Schema of a section among the definitions and answers with a reference.
pub(crate) fn section_schema<T: Section>(
    name: &str,
    doc: &str,
    definitions: &mut Definitions,
    properties: impl FnOnce(&mut Definitions) -> (Object<String, Value>, Vec<&'static str>),
) -> Value {
    let reference = json!({ "$ref": format!("#/$defs/{name}") });
    if definitions.contains_key(name) {
        return reference;
    }
    // Reserved first, so that a section inside itself ends.
    definitions.insert(name.to_owned(), Value::Null);
    let (properties, required) = properties(definitions);
    let short = T::OUTLINE.short.and_then(|short| properties.get(short).cloned());
    let needs_nothing = required.is_empty();
    let full = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let mut forms = vec![full];
    if needs_nothing {
        forms.push(json!({ "enum": ["on", true] }));
    }
    if let Some(mut short) = short {
        if let Some(object) = short.as_object_mut() {
            object.remove("default");
        }
        forms.push(short);
    }
    definitions.insert(name.to_owned(), json!({ "description": doc, "anyOf": forms }));
    reference
}

/// The schema of one key with its description and default.
pub(crate) fn property(schema: Value, doc: &str, default: Option<&Shown>) -> Value {
    let mut property = json!({ "description": doc });
    let object = property.as_object_mut().expect("made as an object");
    if let Some(default) = default.filter(|it| **it != Shown::Absent) {
        object.insert("default".to_owned(), default.json());
    }
    match schema {
        Value::Object(schema) => object.extend(schema),
        other => {
            object.insert("const".to_owned(), other);
        }
    }
    property
}

/// Declares a section of the file: a struct, how it is read and shown, and its schema.
///
/// A field with `= default` may be left out; one without must be there.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        $name:ident: $word:literal $(, short $short:literal)? $(, later [$($later:literal),*])? {
            $(
                $(#[doc = $about:literal])+
                $field:ident $(($key:literal))?: $type:ty $(= $default:expr)?;
            )*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $about])+ pub $field: $crate::read::Set<$type>,)*
        }

        impl $crate::read::Section for $name {
            const OUTLINE: $crate::read::Outline = $crate::read::Outline {
                word: $word,
                short: section!(@option $($short)?),
                keys: &[$(section!(@key $field $($key)?)),*],
                later: &[$($($later),*)?],
            };

            fn read_entries(node: &$crate::tree::Node, reader: &mut $crate::read::Reader) -> Option<Self> {
                $(let $field = $crate::read::field::<$type>(
                    node,
                    section!(@key $field $($key)?),
                    section!(@default $type $(, $default)?),
                    &<Self as $crate::read::Section>::OUTLINE,
                    reader,
                );)*
                Some(Self { $($field: $field?,)* })
            }
        }

        impl $name {
            /// Where the key stands, or the key of the whole section.
            #[must_use]
            pub fn span_of(&self, key: &str) -> Option<$crate::source::Span> {
                $(if key == section!(@key $field $($key)?) { return Some(self.$field.span()); })*
                None
            }
        }

        impl $crate::read::Field for $name {
            fn read(node: &$crate::tree::Node, reader: &mut $crate::read::Reader) -> Option<Self> {
                use $crate::read::Section as _;
                let mapping = $crate::read::section_mapping::<Self>(node, reader)?;
                $crate::read::check_keys::<Self>(&mapping, reader);
                Self::read_entries(&mapping, reader)
            }

            fn show(&self) -> $crate::show::Shown {
                $crate::show::Shown::Map(vec![$($crate::show::Pair {
                    key: section!(@key $field $($key)?).to_owned(),
                    value: $crate::read::Field::show(&*self.$field),
                    default: !self.$field.given(),
                }),*])
            }

            fn merge(base: &$crate::tree::Node, over: &$crate::tree::Node) -> $crate::tree::Node {
                $crate::read::merge_sections::<Self>(base, over, |key, base, over| match key {
                    $(section!(@key $field $($key)?) => <$type as $crate::read::Field>::merge(base, over),)*
                    _ => over.clone(),
                })
            }

            fn settle(&mut self, at: $crate::source::Span) {
                $($crate::read::Field::settle(&mut self.$field, at);)*
            }

            fn json_schema(definitions: &mut $crate::read::Definitions) -> serde_json::Value {
                let doc = concat!($($doc),+).trim();
                $crate::read::section_schema::<Self>(stringify!($name), doc, definitions, |definitions| {
                    let mut properties = serde_json::Map::new();
                    let mut required: Vec<&'static str> = Vec::new();
                    $(
                        let key = section!(@key $field $($key)?);
                        let default: Option<fn() -> $type> = section!(@default $type $(, $default)?);
                        let shown = default.map(|default| $crate::read::Field::show(&default()));
                        if shown.is_none() {
                            required.push(key);
                        }
                        let schema = <$type as $crate::read::Field>::json_schema(definitions);
                        let about = concat!($($about),+).trim();
                        properties.insert(key.to_owned(), $crate::read::property(schema, about, shown.as_ref()));
                    )*
                    (properties, required)
                })
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@option) => { None };
    (@option $short:literal) => { Some($short) };
    (@default $type:ty) => { None };
    (@default $type:ty, $default:expr) => {{
        fn default() -> $type { $default }
        Some(default as fn() -> $type)
    }};
}
pub(crate) use section;

/// Declares a value that is one of a few words.
macro_rules! choice {
    (
        $(#[doc = $doc:literal])+
        $name:ident: $what:literal {
            $($(#[doc = $about:literal])+ $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $about])+ $variant,)*
        }

        impl $crate::read::Field for $name {
            fn read(node: &$crate::tree::Node, reader: &mut $crate::read::Reader) -> Option<Self> {
                match $crate::read::word(node, $what, &[$($word),*], reader)? {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }

            fn show(&self) -> $crate::show::Shown {
                $crate::show::Shown::Word(match self { $(Self::$variant => $word,)* }.to_owned())
            }

            fn json_schema(_: &mut $crate::read::Definitions) -> serde_json::Value {
                serde_json::json!({ "enum": [$($word),*] })
            }
        }
    };
}
pub(crate) use choice;

/// One of `words`, or a problem with a suggestion.
pub(crate) fn word<'a>(
    node: &'a Node,
    what: &str,
    words: &[&'static str],
    reader: &mut Reader,
) -> Option<&'a str> {
    let expected = format!("{what}: {}", list(words).replace(" and ", " or "));
    let scalar = reader.scalar(node, &expected)?;
    if words.contains(&scalar.text.as_str()) {
        return Some(&scalar.text);
    }
    let meant = nearest(&scalar.text, words.iter().copied());
    reader.unexpected(node, &expected, meant.map(|word| format!("did you mean `{word}`?")));
    None
}
