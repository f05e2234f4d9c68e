//! `cargo xtask index`: the list of error codes, from the pages themselves.

use std::{fmt::Write as _, path::Path, process::ExitCode};

/// What each range of codes is about.
const RANGES: &[(&str, &str)] = &[
    ("SV01", "Configuration"),
    ("SV02", "Proxied requests that Selvedge itself answered"),
    ("SV03", "Operator API"),
    ("SV04", "Durable engine and app API"),
    ("SV05", "Simulator"),
    ("SV06", "Command line"),
];

/// Writes the index.
pub(crate) fn command(root: &Path) -> ExitCode {
    let folder = root.join("docs/errors");
    match std::fs::write(folder.join("README.md"), index(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("docs/errors/README.md: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The index of the pages in `folder`: one line each, under the heading of its range.
pub(crate) fn index(folder: &Path) -> String {
    let mut pages: Vec<(String, String)> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let code = name.strip_suffix(".md").filter(|code| code.starts_with("SV"))?;
            let text = std::fs::read_to_string(entry.path()).ok()?;
            let heading = text.lines().next()?.trim_start_matches('#').trim();
            let title = heading
                .strip_prefix(code)
                .unwrap_or(heading)
                .trim_start_matches([':', ' ', '—', '-']);
            Some((code.to_owned(), title.to_owned()))
        })
        .collect();
    pages.sort();
    let mut text = String::from(
        "# Error codes\n\n\
         Every error that a person can meet has a stable code and a page that says what it means and what to do.\n\
         `cargo xtask index` writes this list.\n",
    );
    for (range, subject) in RANGES {
        let within: Vec<&(String, String)> =
            pages.iter().filter(|(code, _)| code.starts_with(range)).collect();
        if within.is_empty() {
            continue;
        }
        let _ = write!(text, "\n## {subject} ({range}xx)\n\n");
        for (code, title) in within {
            let _ = writeln!(text, "- [{code}]({code}.md) {title}");
        }
    }
    text
}
