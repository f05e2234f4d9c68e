//! `${NAME}`, `${NAME:-default}` and `${file:/path}` in values.
//!
//! `$${` stands for `${` itself. Keys are never expanded, and what is filled in
//! is not looked at again.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    diagnostic::{Code, Diagnostic},
    tree::{Kind, Node},
};

/// Largest file that `${file:…}` takes in, in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Where `${NAME}` looks names up.
#[derive(Clone, Debug)]
pub enum Env {
    /// The environment of this process.
    Process,
    /// These and no others.
    Fixed(HashMap<String, String>),
}

impl Env {
    /// Only these names.
    pub fn fixed<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self::Fixed(pairs.into_iter().map(own).collect())
    }

    fn get(&self, name: &str) -> Option<String> {
        match self {
            Self::Process => std::env::var(name).ok(),
            Self::Fixed(names) => names.get(name).cloned(),
        }
    }
}

/// Fills in every `${…}` below `node`; relative files are looked for in `folder`.
pub(crate) fn expand(
    node: &mut Node,
    env: &Env,
    folder: &Path,
    files: &mut Vec<PathBuf>,
    problems: &mut Vec<Diagnostic>,
) {
    match &mut node.kind {
        Kind::Null | Kind::Broken => {}
        Kind::Sequence(items) => {
            items.retain_mut(|item| keep(item, env, folder, files, problems));
        }
        Kind::Mapping(entries) => {
            entries.retain_mut(|entry| keep(&mut entry.value, env, folder, files, problems));
        }
        Kind::Scalar(scalar) => match fill(&scalar.text, env, folder, files) {
            Ok(None) => {}
            Ok(Some(filled)) => {
                // `$${` alone brings in nothing from outside.
                scalar.expanded = scalar.text.replace("$${", "").contains("${");
                let written = std::mem::replace(&mut scalar.text, filled);
                scalar.written = scalar.expanded.then_some(written);
            }
            Err(problem) => {
                problems.push(problem.into_diagnostic(node));
                node.kind = Kind::Broken;
            }
        },
    }
}

/// Fills in `node`; false if an unquoted `${NAME:-}` came out empty: that is a value left out.
fn keep(
    node: &mut Node,
    env: &Env,
    folder: &Path,
    files: &mut Vec<PathBuf>,
    problems: &mut Vec<Diagnostic>,
) -> bool {
    expand(node, env, folder, files, problems);
    !matches!(&node.kind, Kind::Scalar(it) if it.expanded && !it.quoted && it.text.is_empty())
}

struct Problem {
    message: String,
    help: String,
}

impl Problem {
    fn into_diagnostic(self, node: &Node) -> Diagnostic {
        Diagnostic::error(Code::UNSET, self.message).at(node.span, "").help(self.help)
    }
}

/// `None` if there is nothing to fill in.
fn fill(
    text: &str,
    env: &Env,
    folder: &Path,
    files: &mut Vec<PathBuf>,
) -> Result<Option<String>, Problem> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(length) = rest[at..].find('}') else {
            return Err(Problem {
                message: "`${` is not closed".to_owned(),
                help: "write `${NAME}`; for the characters themselves write `$${`".to_owned(),
            });
        };
        out.push_str(&look_up(&rest[at + 2..at + length], env, folder, files)?);
        rest = &rest[at + length + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

fn look_up(
    inside: &str,
    env: &Env,
    folder: &Path,
    files: &mut Vec<PathBuf>,
) -> Result<String, Problem> {
    if let Some(path) = inside.strip_prefix("file:") {
        let path = folder.join(path.trim());
        files.push(path.clone());
        return read_secret(&path);
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let well_formed =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !well_formed {
        return Err(Problem {
            message: format!("`${{{inside}}}` names no environment variable"),
            help: "write `${NAME}`, `${NAME:-default}` or `${file:/path}`".to_owned(),
        });
    }
    match (env.get(name).filter(|value| !value.is_empty()), default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(Problem {
            message: format!("the environment variable `{name}` is not set"),
            help: format!("set it, or give it a default: `${{{name}:-default}}`"),
        }),
    }
}

fn read_secret(path: &Path) -> Result<String, Problem> {
    let problem = |why: String| {
        Problem {
        message: format!("the file `{}` {why}", path.display()),
        help: "`${file:…}` takes a readable text file of at most 64 KiB; a relative path begins at this configuration's folder".to_owned(),
    }
    };
    let size = fs::metadata(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    if !size.is_file() {
        return Err(problem("is not a regular file".to_owned()));
    }
    if size.len() > SECRET_BYTES_MAX {
        return Err(problem(format!("has {} bytes", size.len())));
    }
    let bytes = fs::read(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| problem("is not UTF-8".to_owned()))?;
    // Editors and `echo` leave a line end that no secret has.
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}
