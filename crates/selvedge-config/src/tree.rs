//! YAML as a tree in which every key and value knows its place.
//!
//! The tree is bounded before it is built: bytes, depth, nodes (aliases
//! counted as often as they are used) and one document. Scalars stay text; the
//! schema, not the spelling, decides what type a value has, so `no`, `1.10` and
//! `0x10` hold no surprises.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use crate::{
    diagnostic::{Code, Diagnostic},
    source::{Sources, Span},
};

/// Largest file, in bytes.
pub(crate) const BYTES_MAX: usize = 1 << 20;
/// Deepest nesting.
pub(crate) const DEPTH_MAX: usize = 32;
/// Most nodes of one file, aliases expanded.
pub(crate) const NODES_MAX: usize = 100_000;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Nothing after the colon, `~` or `null`.
    Null,
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
    /// Something that has been complained about already.
    Broken,
}

/// A text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Whether it was in quotes or a block, so that `"off"` can be a word and `off` a switch.
    pub(crate) quoted: bool,
    /// Whether some of it came from `${…}`: then it may be a secret.
    pub(crate) expanded: bool,
    /// What the file says, where that is not `text`.
    pub(crate) written: Option<String>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn new(span: Span, kind: Kind) -> Self {
        Self { span, kind }
    }

    /// The byte after its last, children included.
    pub(crate) fn end(&self) -> usize {
        let below = match &self.kind {
            Kind::Sequence(items) => items.last().map(Self::end),
            Kind::Mapping(entries) => {
                entries.iter().map(|it| it.value.end().max(it.key_span.end())).max()
            }
            _ => None,
        };
        below.unwrap_or(0).max(self.span.end())
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// What it is, for "found …".
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Null | Kind::Broken => "nothing".to_owned(),
            Kind::Scalar(scalar) if scalar.expanded => "a text with `${…}` filled in".to_owned(),
            Kind::Scalar(scalar) => format!("`{}`", shorten(&scalar.text)),
            Kind::Sequence(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// At most 40 characters of `text`, one line.
pub(crate) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    if line.chars().count() <= 40 && line.len() == text.len() {
        return line.to_owned();
    }
    format!("{}...", line.chars().take(37).collect::<String>())
}

/// Reads one file that has been added to `sources` as number `file`.
///
/// An empty file is an empty mapping. `None` if it cannot be understood at all;
/// duplicate keys and tags are complained about and passed over.
pub(crate) fn parse(sources: &Sources, file: u32, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let text = sources.of(Span::new(file, 0, 0)).text();
    if text.len() > BYTES_MAX {
        let at = Span::new(file, 0, 0);
        let message = format!("the file has {} bytes; at most {BYTES_MAX} are read", text.len());
        problems.push(Diagnostic::error(Code::TOO_LARGE, message).at(at, ""));
        return None;
    }
    let mut builder = Builder::new(file, text);
    // A byte order mark is allowed; the parser counts from behind it.
    let skipped = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    builder.offset = skipped;
    for next in Parser::new_from_str(&text[skipped..]) {
        let outcome = match next {
            Ok((event, span)) => {
                let span = builder.span(span);
                builder.event(event, span)
            }
            Err(error) => Err(builder.syntax(&error)),
        };
        if let Err(diagnostic) = outcome {
            problems.append(&mut builder.problems);
            problems.push(*diagnostic);
            return None;
        }
    }
    problems.append(&mut builder.problems);
    let empty = || Node::new(Span::new(file, 0, 0), Kind::Mapping(Vec::new()));
    Some(builder.root.unwrap_or_else(empty))
}

/// A collection that has been begun.
struct Open {
    anchor: usize,
    span: Span,
    height: usize,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<(String, Span)> },
}

struct Builder<'a> {
    file: u32,
    text: &'a str,
    offset: usize,
    /// Byte of each character, if not every character is one byte.
    bytes: Option<Vec<u32>>,
    open: Vec<Open>,
    /// Finished anchors: the node, how many nodes it is, how deep.
    anchors: HashMap<usize, (Node, usize, usize)>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
    problems: Vec<Diagnostic>,
}

type Step = Result<(), Box<Diagnostic>>;

impl<'a> Builder<'a> {
    fn new(file: u32, text: &'a str) -> Self {
        let bytes = (!text.is_ascii()).then(|| {
            let text = text.trim_start_matches('\u{feff}');
            text.char_indices().map(|(at, _)| u32::try_from(at).unwrap_or(u32::MAX)).collect()
        });
        Self {
            file,
            text,
            offset: 0,
            bytes,
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            documents: 0,
            root: None,
            problems: Vec::new(),
        }
    }

    fn byte(&self, char_index: usize) -> usize {
        let at = match &self.bytes {
            None => char_index,
            Some(bytes) => bytes.get(char_index).map_or(self.text.len(), |&at| at as usize),
        };
        (at + self.offset).min(self.text.len())
    }

    fn span(&self, span: saphyr_parser::Span) -> Span {
        let (start, mut end) = (self.byte(span.start.index()), self.byte(span.end.index()));
        // Some spans run on over the white space behind them.
        if let Some(text) = self.text.get(start..end) {
            end = start + text.trim_end().len();
        }
        Span::new(self.file, start, end)
    }

    fn syntax(&self, error: &ScanError) -> Box<Diagnostic> {
        let at = self.byte(error.marker().index());
        let end = self.text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
        let span = Span::new(self.file, at, end);
        let line = self.text[..at].rsplit('\n').next().unwrap_or("");
        let diagnostic =
            Diagnostic::error(Code::SYNTAX, format!("not YAML: {}", error.info())).at(span, "");
        Box::new(if line.contains('\t') || self.text[at..].starts_with('\t') {
            diagnostic.help("indent with spaces; YAML does not allow tabs")
        } else if error.info().contains("anchor") || error.info().contains("alias") {
            diagnostic
                .help("a value that begins with `*` or `&` must be in quotes: \"*.example.com\"")
        } else if error.info().contains("mapping values are not allowed") {
            diagnostic.help("a text with `: ` in it must be in quotes; or a line above is not indented as it should be")
        } else if error.info().contains("quoted scalar") {
            diagnostic.help("a quote that is opened must be closed, and what is in it indented")
        } else if error.info().contains("block") {
            diagnostic.help("is this line indented as far as those it belongs to?")
        } else if error.info().contains("flow") {
            diagnostic.help("a `{` or `[` that is opened must be closed; a text with one of `{}[],` in it must be in quotes")
        } else {
            diagnostic
        })
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Step {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document in one file";
                    return Err(Box::new(
                        Diagnostic::error(Code::SYNTAX, message)
                            .at(span, "begins here")
                            .help("make it a file of its own and name it under `include:`"),
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(tag.is_some(), span);
                let quoted = style != ScalarStyle::Plain;
                let open = self.open.last().map(|open| &open.items);
                let is_key = matches!(open, Some(Items::Mapping { key: None, .. }));
                let kind = match &*text {
                    "" | "~" | "null" if !quoted && !is_key => Kind::Null,
                    _ => Kind::Scalar(Scalar {
                        text: text.into_owned(),
                        quoted,
                        expanded: false,
                        written: None,
                    }),
                };
                self.finish(Node::new(span, kind), anchor, 1, 1)
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.is_some(), span);
                self.begin(anchor, span, Items::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.is_some(), span);
                self.begin(anchor, span, Items::Mapping { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some((node, nodes, height)) => {
                    let (mut node, nodes, height) = (node.clone(), *nodes, *height);
                    // Scalars are shown where they are used; what is wrong inside a
                    // collection is shown where it is written.
                    if matches!(node.kind, Kind::Scalar(_) | Kind::Null) {
                        node.span = span;
                    }
                    self.finish(node, 0, nodes, height)
                }
                None => Err(Box::new(
                    Diagnostic::error(Code::SYNTAX, "an alias inside what it stands for")
                        .at(span, ""),
                )),
            },
        }
    }

    fn tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            self.problems.push(
                Diagnostic::error(Code::SYNTAX, "a YAML tag")
                    .at(span, "tags have no meaning here")
                    .help("leave out the word that begins with `!`, or put the text in quotes; further files are named under `include:`"),
            );
        }
    }

    fn begin(&mut self, anchor: usize, span: Span, items: Items) -> Step {
        if self.open.len() >= DEPTH_MAX {
            return Err(self.too_deep(span));
        }
        self.open.push(Open { anchor, span, height: 0, items });
        Ok(())
    }

    fn too_deep(&self, span: Span) -> Box<Diagnostic> {
        let message = format!("nested deeper than {DEPTH_MAX} levels");
        Box::new(Diagnostic::error(Code::TOO_LARGE, message).at(span, ""))
    }

    fn end(&mut self, end: Span) -> Step {
        let open = self.open.pop().expect("the parser pairs starts and ends");
        let kind = match open.items {
            Items::Sequence(items) => Kind::Sequence(items),
            Items::Mapping { entries, .. } => Kind::Mapping(entries),
        };
        // A flow collection spans its brackets; a block collection only points to its first line.
        let flow = self.text[open.span.start()..].starts_with(['{', '[']);
        let span =
            if flow { Span::new(self.file, open.span.start(), end.end()) } else { open.span };
        let nodes = match &kind {
            Kind::Null | Kind::Broken | Kind::Scalar(_) => 1,
            Kind::Sequence(_) | Kind::Mapping(_) if open.anchor == 0 => 1,
            Kind::Sequence(items) => 1 + items.iter().map(count).sum::<usize>(),
            Kind::Mapping(entries) => {
                1 + entries.iter().map(|it| 1 + count(&it.value)).sum::<usize>()
            }
        };
        let node = Node::new(span, kind);
        if open.anchor != 0 {
            self.anchors.insert(open.anchor, (node.clone(), nodes, open.height + 1));
        }
        self.finish(node, 0, 1, open.height + 1)
    }

    /// Puts a finished node where it belongs.
    fn finish(&mut self, node: Node, anchor: usize, nodes: usize, height: usize) -> Step {
        self.nodes += nodes;
        if self.nodes > NODES_MAX {
            let message =
                format!("more than {NODES_MAX} values, counting each alias as what it stands for");
            return Err(Box::new(Diagnostic::error(Code::TOO_LARGE, message).at(node.span, "")));
        }
        if self.open.len() + height > DEPTH_MAX + 1 {
            return Err(self.too_deep(node.span));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), nodes, height));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.height = open.height.max(height);
        match &mut open.items {
            Items::Sequence(items) => items.push(node),
            Items::Mapping { entries, key } => match key.take() {
                Some((key, key_span)) => add(entries, &mut self.problems, key, key_span, node),
                None => match node.kind {
                    Kind::Scalar(scalar) => *key = Some((scalar.text, node.span)),
                    _ => {
                        return Err(Box::new(
                            Diagnostic::error(Code::SYNTAX, "a key that is not a word")
                                .at(node.span, "a list or mapping cannot be a key")
                                .help("a text that begins with `{` or `[` must be in quotes"),
                        ));
                    }
                },
            },
        }
        Ok(())
    }
}

fn add(
    entries: &mut Vec<Entry>,
    problems: &mut Vec<Diagnostic>,
    key: String,
    key_span: Span,
    value: Node,
) {
    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
        problems.push(
            Diagnostic::error(
                Code::DUPLICATE_KEY,
                format!("the key `{}` is there twice", shorten(&key)),
            )
            .at(key_span, "again here")
            .and(first.key_span, "first here")
            .help("keep one of them"),
        );
    } else {
        entries.push(Entry { key, key_span, value });
    }
}

fn count(node: &Node) -> usize {
    match &node.kind {
        Kind::Null | Kind::Broken | Kind::Scalar(_) => 1,
        Kind::Sequence(items) => 1 + items.iter().map(count).sum::<usize>(),
        Kind::Mapping(entries) => 1 + entries.iter().map(|it| 1 + count(&it.value)).sum::<usize>(),
    }
}
