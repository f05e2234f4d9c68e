//! Colour, width and columns: the little that every view of the terminal shares.
//!
//! Colour is on only for a terminal that wants it (`NO_COLOR`, `TERM=dumb`);
//! nothing here knows what is shown.

use std::io::IsTerminal as _;

/// Paints text, or leaves it alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// For text that goes to standard error.
    pub(crate) fn for_stderr() -> Self {
        Self { on: wanted() && std::io::stderr().is_terminal() }
    }

    /// For text that goes to standard output.
    pub(crate) fn for_stdout() -> Self {
        Self { on: wanted() && std::io::stdout().is_terminal() }
    }

    /// Leaves all text alone.
    #[cfg(test)]
    pub(crate) const fn off() -> Self {
        Self { on: false }
    }

    /// Whether it paints.
    pub(crate) const fn is_on(self) -> bool {
        self.on
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(crate) fn warn(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(crate) fn accent(self, text: &str) -> String {
        self.wrap("36", text)
    }
}

fn wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether a live view can be drawn on standard error.
pub(crate) fn can_draw() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Columns that `text` takes on a terminal: escape sequences take none.
pub(crate) fn width(text: &str) -> usize {
    let mut escaped = false;
    let mut columns = 0;
    for c in text.chars() {
        match c {
            '\x1b' => escaped = true,
            'm' if escaped => escaped = false,
            _ if escaped => {}
            _ => columns += 1,
        }
    }
    columns
}

/// `text` and spaces up to `columns`.
pub(crate) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Spaces up to `columns` and `text`.
pub(crate) fn pad_left(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

/// At most `columns` of `text`, which must not be painted yet.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        text.to_owned()
    } else {
        text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
    }
}

/// A screen that is redrawn in place, and given back when dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    lines_before: usize,
}

impl Screen {
    /// Takes over the terminal behind standard error.
    pub(crate) fn open() -> Self {
        eprint!("\x1b[?1049h\x1b[?25l\x1b[2J");
        Self { lines_before: 0 }
    }

    /// Draws `lines` from the top, and clears what the last frame left.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        use std::fmt::Write as _;
        let rows = crossterm::terminal::size().map_or(40, |(_, rows)| usize::from(rows));
        let mut frame = String::from("\x1b[H");
        let shown = lines.len().min(rows);
        for (row, line) in lines.iter().take(shown).enumerate() {
            let end = if row + 1 == shown { "" } else { "\r\n" };
            let _ = write!(frame, "{line}\x1b[0m\x1b[K{end}");
        }
        if shown < self.lines_before {
            frame.push_str("\x1b[J");
        }
        self.lines_before = shown;
        eprint!("{frame}");
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        eprint!("\x1b[?25h\x1b[?1049l");
    }
}

#[cfg(test)]
mod tests {
    use super::{Paint, cut, pad, pad_left, width};

    #[test]
    fn paint_takes_no_room() {
        let painted = Paint { on: true }.good("four");
        assert_eq!(width(&painted), 4);
        assert_eq!(width(&pad(&painted, 9)), 9);
        assert_eq!(pad_left("ab", 4), "  ab");
    }

    #[test]
    fn text_is_cut_with_a_mark() {
        assert_eq!(cut("selvedge", 5), "selv…");
        assert_eq!(cut("edge", 5), "edge");
    }
}
