//! The texts a configuration was read from, and places in them.

use std::sync::Arc;

/// A range of bytes in one of the texts of a [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    file: u32,
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(file: u32, start: usize, end: usize) -> Self {
        let clamp = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self { file, start: clamp(start), end: clamp(end.max(start)) }
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> usize {
        self.start as usize
    }

    /// The byte after the last.
    #[must_use]
    pub const fn end(self) -> usize {
        self.end as usize
    }

    pub(crate) const fn file(self) -> u32 {
        self.file
    }
}

/// A place as people count: both from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// One text with its name and where its lines begin.
#[derive(Debug)]
pub struct Source {
    name: String,
    text: String,
    lines: Vec<usize>,
}

impl Source {
    fn new(name: String, text: String) -> Self {
        let mut lines = vec![0];
        lines.extend(memchr_newlines(&text));
        Self { name, text, lines }
    }

    /// The path, as the user gave it or as it was found.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Line and column of a byte; past the end is the end, within a character its start.
    #[must_use]
    pub fn position(&self, at: usize) -> Position {
        let at = self.floor(at);
        let line = self.lines.partition_point(|&start| start <= at) - 1;
        Position { line: line + 1, column: self.text[self.lines[line]..at].chars().count() + 1 }
    }

    /// The text of a line counted from 1, without its end.
    #[must_use]
    pub fn line(&self, line: usize) -> &str {
        let start = self.lines.get(line - 1).copied().unwrap_or(self.text.len());
        let end = self.lines.get(line).map_or(self.text.len(), |&next| next - 1);
        self.text[start..end.max(start)].trim_end_matches('\r')
    }

    fn floor(&self, at: usize) -> usize {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

fn memchr_newlines(text: &str) -> impl Iterator<Item = usize> {
    text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1)
}

/// Every text that took part in one configuration, in the order they were read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    list: Vec<Arc<Source>>,
}

impl Sources {
    /// Adds a text; spans of its tree carry the number returned.
    pub(crate) fn add(&mut self, name: String, text: String) -> u32 {
        self.list.push(Arc::new(Source::new(name, text)));
        u32::try_from(self.list.len() - 1).expect("the number of files is bounded")
    }

    /// The text that `span` points into.
    #[must_use]
    pub fn of(&self, span: Span) -> &Source {
        &self.list[span.file() as usize]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.list.iter().map(Arc::as_ref)
    }

    /// `file:line:column`, as compilers and editors write it.
    #[must_use]
    pub fn locate(&self, span: Span) -> String {
        let source = self.of(span);
        let Position { line, column } = source.position(span.start());
        format!("{}:{line}:{column}", source.name())
    }
}
