//! What is wrong with a configuration, where, and what to do about it.
//!
//! Errors are the product: each says what was found, what is allowed and what
//! to write instead, at a line and a column, with a code that has a page under
//! `docs/errors/`. All of them are told at once.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::source::{Position, Source, Sources, Span};

/// The stable name of a kind of problem; its page is `docs/errors/<code>.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(&'static str);

impl Code {
    /// Such as `SV0101`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($code);)*
            /// Every code this crate uses.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

codes! {
    /// A key that the schema does not have at this place.
    UNKNOWN_KEY = "SV0101";
    /// A value that cannot be read as what belongs here.
    WRONG_VALUE = "SV0102";
    /// A key that must be there is not.
    MISSING_KEY = "SV0103";
    /// The same key twice in one mapping.
    DUPLICATE_KEY = "SV0104";
    /// The text is not YAML.
    SYNTAX = "SV0105";
    /// The file is larger, deeper or more entangled than the reader allows.
    TOO_LARGE = "SV0106";
    /// A file that cannot be read.
    UNREADABLE = "SV0107";
    /// `${…}` that stands for nothing.
    UNSET = "SV0108";
    /// A value that reads well and that a pattern cannot work with.
    OUT_OF_RANGE = "SV0109";
    /// A name that nothing has.
    UNKNOWN_NAME = "SV0110";
    /// A key of a later version.
    NOT_YET = "SV0111";
    /// Two parts of the configuration that exclude each other.
    CONFLICT = "SV0112";
    /// Attempts that the total time does not leave room for.
    TIMEOUT_INVERSION = "SV0150";
    /// A caller that gives up before the service it calls does.
    NESTED_TIMEOUT_INVERSION = "SV0151";
    /// Retries with nothing that limits them as a whole.
    RETRY_UNBOUNDED = "SV0152";
    /// Retries that follow each other at once.
    RETRY_WITHOUT_BACKOFF = "SV0153";
    /// A breaker that can never have seen enough calls to open.
    BREAKER_UNREACHABLE = "SV0154";
    /// Nested services whose retries multiply.
    RETRY_AMPLIFICATION = "SV0155";
    /// Offered load with retries above capacity: an outage would not end by itself.
    RETRY_STORM = "SV0156";
    /// An address that others can reach, without authentication.
    PUBLIC_BIND = "SV0157";
    /// Something without an upper bound.
    UNBOUNDED = "SV0158";
    /// Nothing would notice a broken endpoint.
    BLIND = "SV0159";
    /// A hedge that may do something twice.
    UNSAFE_HEDGE = "SV0160";
    /// A slow-call threshold that no call can reach.
    SLOW_CALL_UNREACHABLE = "SV0161";
    /// A wait in the queue as long as the call itself.
    QUEUE_OUTLIVES_CALL = "SV0162";
    /// A part that nothing can reach.
    UNUSED = "SV0163";
    /// A pattern that cannot act with the other settings as they are.
    INEFFECTIVE = "SV0164";
    /// A connection to another machine that others may read.
    UNENCRYPTED = "SV0165";
    /// A part of the configuration that the simulator does not model.
    NOT_SIMULATED = "SV0501";
    /// A model of which no simulation can be made.
    IMPOSSIBLE_MODEL = "SV0502";
}

/// Whether a problem stops the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing starts with it.
    Error,
    /// It works, but not as it seems to; `--strict` refuses it.
    Warning,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where, if it has a place.
    pub span: Option<Span>,
    /// What to say beside that place; may be empty.
    pub label: String,
    /// Other places that take part, each with what to say beside it.
    pub related: Vec<(Span, String)>,
    /// Why it matters, or what is allowed.
    pub notes: Vec<String>,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem that stops the configuration from being used.
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Error, message.into())
    }

    /// A problem that does not.
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self::new(code, Severity::Warning, message.into())
    }

    const fn new(code: Code, severity: Severity, message: String) -> Self {
        Self {
            code,
            severity,
            message,
            span: None,
            label: String::new(),
            related: Vec::new(),
            notes: Vec::new(),
            help: None,
        }
    }

    /// Points at a place, and says something beside it.
    #[must_use]
    pub fn at(mut self, span: Span, label: impl Into<String>) -> Self {
        self.span = Some(span);
        self.label = label.into();
        self
    }

    /// Points at one more place.
    #[must_use]
    pub fn and(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    /// Adds why it matters or what is allowed.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Says what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All that is to be said about one configuration, with the texts it speaks of.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of the file, errors and warnings mixed.
    pub diagnostics: Vec<Diagnostic>,
    /// What the spans point into.
    pub sources: Sources,
}

/// How a [`Report`] is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Style {
    /// ASCII without colour: for pipes, logs and files.
    #[default]
    Plain,
    /// Colours and box drawing: for a terminal.
    Fancy,
}

impl Report {
    pub(crate) fn new(mut diagnostics: Vec<Diagnostic>, sources: Sources) -> Self {
        // A problem in `defaults:` is found again in each service that takes it over.
        let mut seen = std::collections::HashSet::new();
        diagnostics
            .retain(|it| it.span.is_none() || seen.insert((it.code, it.span, it.message.clone())));
        diagnostics.sort_by_key(|it| it.span.map(|span| (span.file(), span.start())));
        Self { diagnostics, sources }
    }

    /// Whether anything stops the configuration from being used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// How many errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics.iter().filter(|it| it.severity == severity).count()
    }

    /// The report as text, ending with a line that counts; empty if there is nothing to say.
    #[must_use]
    pub fn render(&self, style: Style) -> String {
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            Drawing { style, sources: &self.sources, out: &mut out }.diagnostic(diagnostic);
            out.push('\n');
        }
        if !self.diagnostics.is_empty() {
            out.push_str(&self.summary());
            out.push('\n');
        }
        out
    }

    /// Such as `2 errors, 1 warning`.
    #[must_use]
    pub fn summary(&self) -> String {
        let say = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            _ => format!("{count} {what}s"),
        };
        match (self.errors(), self.warnings()) {
            (0, 0) => "no problems".to_owned(),
            (errors, 0) => say(errors, "error"),
            (0, warnings) => say(warnings, "warning"),
            (errors, warnings) => format!("{}, {}", say(errors, "error"), say(warnings, "warning")),
        }
    }

    /// The report for programs: `{"errors", "warnings", "diagnostics": […]}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let place = |span: Span| {
            let source = self.sources.of(span);
            let (start, end) = (source.position(span.start()), source.position(span.end()));
            json!({
                "file": source.name(),
                "line": start.line, "column": start.column,
                "end_line": end.line, "end_column": end.column,
            })
        };
        let diagnostics: Vec<_> = self
            .diagnostics
            .iter()
            .map(|it| {
                json!({
                    "code": it.code.as_str(),
                    "severity": it.severity.as_str(),
                    "message": it.message,
                    "at": it.span.map(place),
                    "label": it.label,
                    "related": it.related.iter().map(|(span, label)| json!({
                        "at": place(*span), "label": label,
                    })).collect::<Vec<_>>(),
                    "notes": it.notes,
                    "help": it.help,
                })
            })
            .collect();
        json!({ "errors": self.errors(), "warnings": self.warnings(), "diagnostics": diagnostics })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Report {}

/// Widest piece of a source line that is shown.
const LINE_CHARS_MAX: usize = 110;

struct Drawing<'a> {
    style: Style,
    sources: &'a Sources,
    out: &'a mut String,
}

#[derive(Clone, Copy)]
enum Ink {
    Red,
    Yellow,
    Blue,
    Cyan,
    Bold,
}

impl Drawing<'_> {
    fn diagnostic(&mut self, it: &Diagnostic) {
        let ink = match it.severity {
            Severity::Error => Ink::Red,
            Severity::Warning => Ink::Yellow,
        };
        let head = format!("{}[{}]", it.severity.as_str(), it.code.as_str());
        let (head, message) = (self.paint(ink, &head), self.paint(Ink::Bold, &clean(&it.message)));
        _ = writeln!(self.out, "{head}: {message}");

        let mut places: Vec<(Span, &str, Ink)> = Vec::new();
        places.extend(it.span.map(|span| (span, it.label.as_str(), ink)));
        places.extend(it.related.iter().map(|(span, label)| (*span, label.as_str(), Ink::Blue)));
        let gutter = self.gutter(&places);
        let mut previous: Option<u32> = None;
        for (span, label, ink) in places {
            let arrow = match (self.style, previous == Some(span.file())) {
                (Style::Plain, false) => "-->",
                (Style::Plain, true) => ":::",
                (Style::Fancy, false) => "╭─",
                (Style::Fancy, true) => "├─",
            };
            previous = Some(span.file());
            let arrow = self.paint(Ink::Blue, arrow);
            let pad = if self.style == Style::Plain { gutter } else { gutter + 1 };
            _ = writeln!(self.out, "{:pad$}{arrow} {}", "", self.sources.locate(span));
            self.excerpt(gutter, span, label, ink);
        }
        for note in &it.notes {
            self.remark(gutter, "note", note);
        }
        if let Some(help) = &it.help {
            self.remark(gutter, "help", help);
        }
    }

    /// Width of the largest line number.
    fn gutter(&self, places: &[(Span, &str, Ink)]) -> usize {
        let line =
            |&(span, ..): &(Span, &str, Ink)| self.sources.of(span).position(span.start()).line;
        places.iter().map(line).max().unwrap_or(0).to_string().len()
    }

    fn excerpt(&mut self, gutter: usize, span: Span, label: &str, ink: Ink) {
        let source = self.sources.of(span);
        let start = source.position(span.start());
        let (piece, column, width) = piece(source, start, span);
        let bar = if self.style == Style::Plain { "|" } else { "│" };
        let bar = self.paint(Ink::Blue, bar);
        let number = self.paint(Ink::Blue, &format!("{:>gutter$}", start.line));
        let marks = if self.style == Style::Plain { "^" } else { "━" }.repeat(width);
        let marks = self.paint(ink, &marks);
        let label = self.paint(ink, &clean(label));
        let line = format!("{number} {bar} {piece}");
        _ = writeln!(self.out, "{}", line.trim_end());
        let line = format!("{:gutter$} {bar} {:column$}{marks} {label}", "", "");
        _ = writeln!(self.out, "{}", line.trim_end());
    }

    fn remark(&mut self, gutter: usize, what: &str, text: &str) {
        let mark = if self.style == Style::Plain { "=" } else { "╰" };
        let mark = self.paint(Ink::Blue, mark);
        let what = self.paint(Ink::Cyan, what);
        let indent = format!("\n{:gutter$}         ", "");
        let text = text.lines().map(clean).collect::<Vec<_>>().join(&indent);
        _ = writeln!(self.out, "{:gutter$} {mark} {what}: {text}", "");
    }

    fn paint(&self, ink: Ink, text: &str) -> String {
        if self.style == Style::Plain || text.is_empty() {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Red => "1;31",
            Ink::Yellow => "1;33",
            Ink::Blue => "34",
            Ink::Cyan => "36",
            Ink::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The part of a line worth showing, the column of the span in it, and how much to underline.
fn piece(source: &Source, start: Position, span: Span) -> (String, usize, usize) {
    let line = source.line(start.line);
    let end = source.position(span.end());
    let chars = line.chars().count();
    let last = if end.line == start.line { end.column - 1 } else { chars };
    let first = start.column - 1;
    let width = last.saturating_sub(first).max(1);
    let cut = if chars <= LINE_CHARS_MAX || first + width < LINE_CHARS_MAX {
        0
    } else {
        first.saturating_sub(20)
    };
    let shown: String = line.chars().skip(cut).take(LINE_CHARS_MAX).collect();
    let mut piece = clean(&shown);
    let mut column = first - cut;
    if cut > 0 {
        piece.insert_str(0, "...");
        column += 3;
    }
    if cut + LINE_CHARS_MAX < chars {
        piece.push_str("...");
    }
    (piece, column, width.min(LINE_CHARS_MAX - (first - cut).min(LINE_CHARS_MAX - 1)))
}

/// One character for one, so that columns stay, and nothing that a terminal would obey.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            // Bidirectional overrides reorder what a reader sees.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}
