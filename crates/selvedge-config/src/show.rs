//! A configuration on its way back to text: YAML for people, JSON for programs.

use serde_json::{Map, Value, json};

/// A value as it will be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shown {
    /// Switched off: `off`.
    Off,
    /// Left out altogether: its absence says the same.
    Absent,
    /// A word or number with a form of its own, never in quotes: `250ms`, `true`, `3`.
    Word(String),
    /// A free text, in quotes where YAML needs them.
    Text(String),
    /// A text as the file has it, with its `${…}`.
    Written(String),
    List(Vec<Self>),
    Map(Vec<Pair>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pair {
    pub(crate) key: String,
    pub(crate) value: Shown,
    /// Nobody wrote it: it is the default.
    pub(crate) default: bool,
}

/// What stands in the place of a secret.
pub(crate) const SECRET: &str = "***";

impl Shown {
    pub(crate) fn yaml(&self) -> String {
        let mut out = String::new();
        if let Self::Map(pairs) = self {
            block(pairs, 0, false, &mut out);
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        match self {
            Self::Off | Self::Absent => json!(false),
            Self::Word(word) => serde_json::from_str(word).unwrap_or_else(|_| json!(word)),
            Self::Text(text) => json!(text.replace("${", "$${")),
            Self::Written(text) => json!(text),
            Self::List(items) => items.iter().map(Self::json).collect(),
            Self::Map(pairs) => {
                let shown = pairs.iter().filter(|pair| pair.value != Self::Absent);
                let map: Map<String, Value> =
                    shown.map(|pair| (pair.key.clone(), pair.value.json())).collect();
                Value::Object(map)
            }
        }
    }

    /// On one line, if it is simple enough for that.
    fn inline(&self) -> Option<String> {
        match self {
            Self::Off | Self::Absent => Some("off".to_owned()),
            Self::Word(word) => Some(word.clone()),
            Self::Text(text) => Some(quoted(text)),
            Self::Written(text) => Some(in_quotes(text)),
            Self::List(items) => {
                let items: Option<Vec<String>> = items.iter().map(Self::scalar).collect();
                Some(format!("[{}]", items?.join(", ")))
            }
            Self::Map(pairs) if pairs.is_empty() => Some("{}".to_owned()),
            Self::Map(_) => None,
        }
    }

    fn scalar(&self) -> Option<String> {
        match self {
            Self::List(_) | Self::Map(_) => None,
            Self::Off | Self::Absent | Self::Word(_) | Self::Text(_) | Self::Written(_) => {
                self.inline()
            }
        }
    }
}

/// `inherited`: the section itself is a default, so its lines need not say so again.
fn block(pairs: &[Pair], depth: usize, inherited: bool, out: &mut String) {
    for pair in pairs {
        if pair.value == Shown::Absent {
            continue;
        }
        let indent = "  ".repeat(depth);
        let mark = if pair.default && !inherited { "  # default" } else { "" };
        let key = quoted(&pair.key);
        match (pair.value.inline(), &pair.value) {
            (Some(line), _) => out.push_str(&format!("{indent}{key}: {line}{mark}\n")),
            (None, Shown::Map(inner)) => {
                out.push_str(&format!("{indent}{key}:{mark}\n"));
                block(inner, depth + 1, inherited || pair.default, out);
            }
            (None, Shown::List(items)) => {
                out.push_str(&format!("{indent}{key}:{mark}\n"));
                for item in items {
                    list_item(item, depth + 1, inherited || pair.default, out);
                }
            }
            (None, _) => {}
        }
    }
}

fn list_item(item: &Shown, depth: usize, inherited: bool, out: &mut String) {
    let indent = "  ".repeat(depth);
    match item {
        Shown::Map(pairs) if !pairs.is_empty() => {
            let mut inner = String::new();
            block(pairs, depth + 1, inherited, &mut inner);
            // The first key stands on the line of the dash.
            out.push_str(&format!("{indent}- {}", inner.trim_start()));
        }
        _ => out.push_str(&format!("{indent}- {}\n", item.inline().unwrap_or_default())),
    }
}

/// `text` as YAML reads it back unchanged, as a text.
fn quoted(text: &str) -> String {
    let starts = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.');
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-' | '+' | '@');
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "off" | "on" | "true" | "false" | "yes" | "no" | "y" | "n" | "null" | "none"
    );
    if text.starts_with(starts) && text.chars().all(plain) && !word && !numeric(text) {
        return text.to_owned();
    }
    in_quotes(text).replace("${", "$${")
}

fn in_quotes(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c) || c == '\u{feff}' => {
                out.push_str(&format!("\\U{:08x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn numeric(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests;
