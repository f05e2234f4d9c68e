//! Reads values of a scenario and collects what is wrong with them.

use selvedge_patterns::time::Duration;

use super::Files;
use crate::diagnostic::{Code, Diagnostic};
use crate::source::Span;
use crate::suggest::nearest;
use crate::tree::{Entry, Kind, Node};
use crate::value;

/// Collects problems while a scenario is read.
pub(super) struct Cursor {
    pub(super) problems: Vec<Diagnostic>,
    here: Span,
}

impl Cursor {
    pub(super) const fn new(here: Span) -> Self {
        Self { problems: Vec::new(), here }
    }

    /// Where something is missing, if it is.
    pub(super) const fn within(&mut self, here: Span) {
        self.here = here;
    }

    pub(super) fn problem(&mut self, code: Code, span: Span, message: String) {
        self.problems.push(Diagnostic::error(code, message).at(span, ""));
    }

    pub(super) fn not_simulated(&mut self, span: Span, what: &str, word: &str) {
        self.problems.push(
            Diagnostic::error(Code::NOT_SIMULATED, format!("{what} is not simulated"))
                .at(span, "this is governed by it")
                .help(format!("if it does not matter here, say so: `ignore: [{word}]`")),
        );
    }

    fn expected(&mut self, node: &Node, expected: &str, help: Option<String>) {
        if node.kind == Kind::Broken {
            return;
        }
        let mut diagnostic = Diagnostic::error(
            Code::WRONG_VALUE,
            format!("expected {expected}, found {}", node.describe()),
        )
        .at(node.span, "");
        diagnostic.help = help;
        self.problems.push(diagnostic);
    }

    /// Complains about keys that are not `allowed`.
    pub(super) fn keys(&mut self, node: &Node, what: &str, allowed: &[&str]) {
        let Kind::Mapping(entries) = &node.kind else {
            self.expected(node, &format!("{what} (a mapping)"), None);
            return;
        };
        for entry in entries.iter().filter(|entry| !allowed.contains(&entry.key.as_str())) {
            let message = format!("{what} has no key `{}`", entry.key);
            let mut diagnostic =
                Diagnostic::error(Code::UNKNOWN_KEY, message).at(entry.key_span, "");
            diagnostic = match nearest(&entry.key, allowed.iter().copied()) {
                Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
                None => diagnostic.note(format!("there are {}", allowed.join(", "))),
            };
            self.problems.push(diagnostic);
        }
    }

    pub(super) fn required<'a>(
        &mut self,
        node: &'a Node,
        key: &str,
        what: &str,
    ) -> Option<&'a Entry> {
        let found = node.get(key);
        if found.is_none() {
            let message = format!("{what} needs `{key}`");
            self.problems.push(
                Diagnostic::error(Code::MISSING_KEY, message)
                    .at(self.here, format!("`{key}` is missing")),
            );
        }
        found
    }

    pub(super) fn optional<T>(
        &mut self,
        node: &Node,
        key: &str,
        read: impl FnOnce(&Node, &mut Self) -> Option<T>,
    ) -> Option<T> {
        let entry = node.get(key)?;
        read(&entry.value, self)
    }

    pub(super) fn list<'a>(&mut self, node: &'a Node, expected: &str) -> &'a [Node] {
        match &node.kind {
            Kind::Sequence(items) => items,
            _ => {
                self.expected(node, expected, None);
                &[]
            }
        }
    }

    pub(super) fn pair<T>(
        &mut self,
        node: &Node,
        expected: &str,
        read: impl Fn(&Node, &mut Self) -> Option<T>,
    ) -> Option<[T; 2]> {
        match &node.kind {
            Kind::Sequence(items) if items.len() == 2 => {
                Some([read(&items[0], self)?, read(&items[1], self)?])
            }
            _ => {
                self.expected(node, expected, None);
                None
            }
        }
    }

    /// The words of a list under `key`.
    pub(super) fn words(&mut self, node: &Node, key: &str) -> Vec<String> {
        let Some(entry) = node.get(key) else { return Vec::new() };
        let items: Vec<Node> = self.list(&entry.value, "a list of words").to_vec();
        items.iter().filter_map(|item| self.text(item, "a word")).collect()
    }

    /// The one key of a mapping and its value, or a word alone.
    pub(super) fn tagged<'a>(
        &mut self,
        node: &'a Node,
        expected: &str,
    ) -> Option<(&'a str, Option<&'a Node>, Span)> {
        match &node.kind {
            Kind::Mapping(entries) if entries.len() == 1 => {
                Some((entries[0].key.as_str(), Some(&entries[0].value), entries[0].key_span))
            }
            Kind::Scalar(scalar) => Some((scalar.text.as_str(), None, node.span)),
            _ => {
                self.expected(node, expected, None);
                None
            }
        }
    }

    pub(super) fn text(&mut self, node: &Node, expected: &str) -> Option<String> {
        match &node.kind {
            Kind::Scalar(scalar) => Some(scalar.text.clone()),
            _ => {
                self.expected(node, expected, None);
                None
            }
        }
    }

    fn parsed<T>(
        &mut self,
        node: &Node,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = match &node.kind {
            Kind::Scalar(scalar) => parse(scalar.text.trim()),
            _ => None,
        };
        if parsed.is_none() {
            self.expected(node, expected, None);
        }
        parsed
    }

    pub(super) fn duration(&mut self, node: &Node) -> Option<Duration> {
        let Kind::Scalar(scalar) = &node.kind else {
            self.expected(node, "a duration such as `250ms`", None);
            return None;
        };
        match value::duration(&scalar.text) {
            Ok(duration) => Some(duration),
            Err(misread) => {
                self.expected(node, misread.expected, misread.help);
                None
            }
        }
    }

    pub(super) fn count(&mut self, node: &Node) -> Option<u32> {
        self.parsed(node, "a whole number", |text| text.parse().ok())
    }

    pub(super) fn number(&mut self, node: &Node) -> Option<f64> {
        self.parsed(node, "a number", finite)
    }

    /// `50%` or `0.5`.
    pub(super) fn share(&mut self, node: &Node) -> Option<f64> {
        let share = self.parsed(node, "a share such as `40%` or `0.4`", parse_share)?;
        if (0.0..=1.0).contains(&share) {
            return Some(share);
        }
        let message = format!("a share lies between 0% and 100%, not {}", node.describe());
        self.problem(Code::IMPOSSIBLE_MODEL, node.span, message);
        None
    }

    /// `700rps`, `700/s`, `30/m`.
    pub(super) fn rate(&mut self, node: &Node) -> Option<f64> {
        let rate = self.parsed(node, "a rate such as `700/s` or `700rps`", |text| {
            for (unit, per) in
                [("rps", 1.0), ("/s", 1.0), ("/ms", 1e-3), ("/m", 60.0), ("/h", 3600.0)]
            {
                if let Some(number) = text.strip_suffix(unit) {
                    return finite(number.trim()).map(|number| number / per);
                }
            }
            None
        })?;
        if rate > 0.0 {
            return Some(rate);
        }
        self.problem(Code::IMPOSSIBLE_MODEL, node.span, "a rate is above zero".to_owned());
        None
    }

    /// `x3`, `3x` or `3`.
    pub(super) fn factor(&mut self, node: &Node) -> Option<f64> {
        self.parsed(node, "a factor such as `x3`", |text| {
            finite(text.trim_start_matches(['x', '×']).trim_end_matches(['x', '×']))
                .filter(|factor| *factor > 0.0)
        })
    }

    pub(super) fn flag(&mut self, node: &Node) -> Option<bool> {
        self.word(
            node,
            &[
                ("true", true),
                ("on", true),
                ("yes", true),
                ("false", false),
                ("off", false),
                ("no", false),
            ],
        )
    }

    pub(super) fn word<T: Copy>(&mut self, node: &Node, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, "a word")?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let help =
                nearest(&text, all.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
            self.expected(node, &format!("one of {}", all.join(", ")), help);
        }
        found
    }

    /// The place of a name among `names`.
    pub(super) fn name(&mut self, node: &Node, what: &str, names: &[&str]) -> Option<usize> {
        let text = self.text(node, &format!("the name of a {what}"))?;
        let found = names.iter().position(|name| *name == text);
        if found.is_none() {
            let mut diagnostic =
                Diagnostic::error(Code::UNKNOWN_NAME, format!("there is no {what} `{text}`"))
                    .at(node.span, "");
            if let Some(meant) = nearest(&text, names.iter().copied()) {
                diagnostic = diagnostic.help(format!("did you mean `{meant}`?"));
            }
            self.problems.push(diagnostic);
        }
        found
    }

    /// The text of a file that the scenario names.
    pub(super) fn file(&mut self, node: &Node, files: &Files<'_>, name: &str) -> Option<String> {
        match files.text(name) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problem(
                    Code::UNREADABLE,
                    node.span,
                    format!("`{name}` cannot be read: {error}"),
                );
                None
            }
        }
    }
}

fn finite(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'e'));
    text.parse().ok().filter(|number: &f64| plain && number.is_finite())
}

pub(super) fn parse_share(text: &str) -> Option<f64> {
    match text.strip_suffix('%') {
        Some(percent) => finite(percent.trim()).map(|percent| percent / 100.0),
        None => finite(text),
    }
}
