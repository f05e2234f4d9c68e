//! The rules of the house that a compiler does not know.
//!
//! Each check gives findings: a place, and what is wrong there. `cargo xtask
//! tidy` prints them, and a test of this crate insists that there are none.

#[cfg(test)]
mod tests;

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What each crate may depend on (of ours). The arrows of `docs/architecture.md`.
const EDGES: &[(&str, &[&str])] = &[
    ("selvedge-patterns", &[]),
    ("selvedge-tower", &["selvedge-patterns"]),
    ("selvedge-durable", &["selvedge-patterns"]),
    ("selvedge-client", &["selvedge-patterns", "selvedge-durable"]),
    ("selvedge-sim", &["selvedge-patterns"]),
    ("selvedge-proxy", &["selvedge-patterns", "selvedge-tower"]),
    (
        "selvedge-config",
        &["selvedge-patterns", "selvedge-proxy", "selvedge-durable", "selvedge-sim"],
    ),
    (
        "selvedge-api",
        &["selvedge-patterns", "selvedge-proxy", "selvedge-durable", "selvedge-config"],
    ),
    ("selvedge", EVERYTHING_THAT_SHIPS),
    ("selvedge-tests", EVERYTHING),
    ("xtask", &[]),
];
const EVERYTHING_THAT_SHIPS: &[&str] = &[
    "selvedge-patterns",
    "selvedge-tower",
    "selvedge-durable",
    "selvedge-client",
    "selvedge-sim",
    "selvedge-proxy",
    "selvedge-config",
    "selvedge-api",
];
const EVERYTHING: &[&str] = &[
    "selvedge-patterns",
    "selvedge-tower",
    "selvedge-durable",
    "selvedge-client",
    "selvedge-sim",
    "selvedge-proxy",
    "selvedge-config",
    "selvedge-api",
    "selvedge",
];

/// Module names that say nothing and attract everything.
const BANNED_MODULES: &[&str] =
    &["util", "utils", "common", "misc", "types", "manager", "helper", "helpers", "mod"];

const LICENCE: &str = "Apache-2.0 OR MIT";
const ARCHITECTURE_LINES_MAX: usize = 300;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    place: String,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

fn finding(place: impl Into<String>, what: impl Into<String>) -> Finding {
    Finding { place: place.into(), what: what.into() }
}

/// `cargo xtask tidy`.
pub(crate) fn command(root: &Path) -> ExitCode {
    if report(&check(root)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints what was found, and says whether that was nothing.
pub(crate) fn report(findings: &[Finding]) -> bool {
    for finding in findings {
        eprintln!("  {finding}");
    }
    eprintln!("  {} finding{}", findings.len(), if findings.len() == 1 { "" } else { "s" });
    findings.is_empty()
}

/// Every check, over the repository at `root`.
pub(crate) fn check(root: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    let packages = metadata(root);
    for package in &packages {
        found.extend(edges(package));
        found.extend(package_metadata(root, package));
    }
    let files = files(root);
    let texts: Vec<(String, String)> = files
        .iter()
        .filter_map(|path| {
            let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
            std::fs::read_to_string(path).ok().map(|text| (name, text))
        })
        .collect();
    for (name, text) in &texts {
        found.extend(module_name(name));
        found.extend(machine_paths(name, text));
        if has_extension(name, "md") {
            found.extend(links(root, name, text));
        }
    }
    found.extend(clippy_bans(
        &std::fs::read_to_string(root.join("clippy.toml")).unwrap_or_default(),
        &std::fs::read_to_string(root.join("crates/selvedge-patterns/clippy.toml"))
            .unwrap_or_default(),
    ));
    found.extend(error_codes(&texts));
    found.extend(architecture(&texts));
    found.sort();
    found.dedup();
    found
}

fn metadata(root: &Path) -> Vec<Value> {
    let output = crate::phases::cargo(root)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let mut parsed: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    match parsed["packages"].take() {
        Value::Array(packages) => packages,
        other => panic!("cargo metadata has no packages: {other}"),
    }
}

/// Benchmark targets as (package, target).
pub(crate) fn bench_targets(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for package in metadata(root) {
        for target in package["targets"].as_array().into_iter().flatten() {
            if target["kind"]
                .as_array()
                .is_some_and(|kinds| kinds.iter().any(|kind| kind == "bench"))
            {
                found.push((text(&package["name"]), text(&target["name"])));
            }
        }
    }
    found
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn edges(package: &Value) -> Vec<Finding> {
    let name = text(&package["name"]);
    let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
        return vec![finding(name, "this crate has no line in xtask's table of edges")];
    };
    let mut found = Vec::new();
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let to = text(&dependency["name"]);
        if !EDGES.iter().any(|(known, _)| *known == to) || allowed.contains(&to.as_str()) {
            continue;
        }
        let dev = dependency["kind"] == "dev";
        // A crate's own integration tests may name it again; the simulator drives tests of all but
        // patterns, which it is built from.
        if dev && (to == name || (to == "selvedge-sim" && name != "selvedge-patterns")) {
            continue;
        }
        found.push(finding(&name, format!("may not depend on {to}: the arrow does not exist")));
    }
    found
}

fn package_metadata(root: &Path, package: &Value) -> Vec<Finding> {
    let name = text(&package["name"]);
    let mut found = Vec::new();
    if package["license"] != LICENCE {
        found.push(finding(&name, format!("the licence is not `{LICENCE}`")));
    }
    if package["description"].as_str().is_none_or(str::is_empty) {
        found.push(finding(&name, "has no description"));
    }
    let manifest = PathBuf::from(text(&package["manifest_path"]));
    let folder = manifest.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    if folder != name {
        found.push(finding(&name, format!("lies in a folder of another name, `{folder}`")));
    }
    let manifest = std::fs::read_to_string(manifest).unwrap_or_default();
    if !manifest.replace(' ', "").contains("[lints]\nworkspace=true") {
        found.push(finding(&name, "does not inherit the workspace's lints"));
    }
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        if !root.join(licence).is_file() {
            found.push(finding(licence, "is missing"));
        }
    }
    found
}

fn module_name(name: &str) -> Option<Finding> {
    let path = Path::new(name);
    // Cargo gives the folders of tests and fuzz targets their names.
    if !has_extension(name, "rs") {
        return None;
    }
    let banned = path
        .iter()
        .filter_map(|segment| segment.to_str())
        .map(|segment| segment.strip_suffix(".rs").unwrap_or(segment))
        .find(|segment| BANNED_MODULES.contains(segment))?;
    Some(finding(name, format!("`{banned}` is no name for a module: name what lives in it")))
}

fn machine_paths(name: &str, text: &str) -> Vec<Finding> {
    // Written in two halves so that this file passes its own check.
    let prefixes = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for prefix in prefixes {
            let starts_path = line.match_indices(prefix).any(|(at, _)| {
                line[..at]
                    .chars()
                    .next_back()
                    .is_none_or(|before| !(before.is_alphanumeric() || "/.-_*}>".contains(before)))
            });
            if starts_path {
                found.push(finding(
                    format!("{name}:{}", number + 1),
                    "names a path of one person's machine",
                ));
            }
        }
    }
    found
}

/// Clippy reads only the nearest `clippy.toml`, so the stricter file must
/// repeat every ban of the root's.
fn clippy_bans(root: &str, patterns: &str) -> Vec<Finding> {
    let inner: BTreeSet<&str> = banned_paths(patterns).collect();
    banned_paths(root)
        .filter(|path| !inner.contains(path))
        .map(|path| {
            finding(
                "crates/selvedge-patterns/clippy.toml",
                format!("does not repeat the root's ban of `{path}`"),
            )
        })
        .collect()
}

fn banned_paths(text: &str) -> impl Iterator<Item = &str> {
    text.split("path = \"").skip(1).filter_map(|rest| rest.split('"').next())
}

/// Every code used in a crate's sources has its page, every page its code, and
/// the index names all.
fn error_codes(texts: &[(String, String)]) -> Vec<Finding> {
    let mut used: BTreeMap<&str, &str> = BTreeMap::new();
    let mut pages: BTreeMap<&str, &str> = BTreeMap::new();
    let mut index: BTreeSet<&str> = BTreeSet::new();
    for (name, text) in texts {
        if name.starts_with("crates/")
            && has_extension(name, "rs")
            && name.contains("/src/")
            && !is_test(name)
        {
            for code in codes(text) {
                used.entry(code).or_insert(name);
            }
        } else if name == "docs/errors/README.md" {
            index.extend(codes(text));
        } else if let Some(page) = name.strip_prefix("docs/errors/") {
            pages.insert(page.trim_end_matches(".md"), name);
        }
    }
    let mut found = Vec::new();
    for (code, place) in &used {
        if !pages.contains_key(code) {
            found.push(finding(*place, format!("{code} has no page docs/errors/{code}.md")));
        }
    }
    for (code, place) in &pages {
        if !used.contains_key(code) {
            found.push(finding(*place, format!("no source uses {code}")));
        }
        if !index.contains(code) {
            found.push(finding("docs/errors/README.md", format!("does not list {code}")));
        }
    }
    found
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/")
}

/// Every `SVdddd` in `text`.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("SV").filter_map(|(at, _)| {
        let code = text.get(at..at + 6)?;
        let digits = code.bytes().skip(2).all(|byte| byte.is_ascii_digit());
        let ends = !text[at + 6..].starts_with(|next: char| next.is_ascii_alphanumeric());
        let begins = !text[..at].ends_with(|before: char| before.is_ascii_alphanumeric());
        (digits && ends && begins).then_some(code)
    })
}

fn architecture(texts: &[(String, String)]) -> Option<Finding> {
    let (name, text) = texts.iter().find(|(name, _)| name == "docs/architecture.md")?;
    let lines = text.lines().count();
    (lines >= ARCHITECTURE_LINES_MAX).then(|| {
        finding(name, format!("{lines} lines: fewer than {ARCHITECTURE_LINES_MAX} keep it read"))
    })
}

/// Relative links of a Markdown file lead to a file, and to a heading in it.
fn links(root: &Path, name: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let folder = root.join(name).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in link_targets(line) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { root.join(name) } else { folder.join(path) };
            let place = format!("{name}:{}", number + 1);
            if !file.exists() {
                found.push(finding(place, format!("`{target}` leads nowhere")));
            } else if !anchor.is_empty() && has_extension(&file.to_string_lossy(), "md") {
                let there = std::fs::read_to_string(&file).unwrap_or_default();
                if !headings(&there).any(|heading| heading == anchor) {
                    found.push(finding(place, format!("`{target}`: no such heading")));
                }
            }
        }
    }
    found
}

fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    // Code spans hold examples, not links.
    let mut spans = line.split('`').step_by(2).collect::<Vec<_>>();
    // `[`code`](target)`: the target is in the even span after the code.
    spans.retain(|span| span.contains("]("));
    spans.into_iter().flat_map(|span| {
        span.split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', ' ']).next())
            .filter(|target| !target.is_empty())
    })
}

/// The anchors a Markdown file offers, as GitHub forms them.
fn headings(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        line.trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    })
}

/// Whether any Rust file under `folder` contains `needle`.
pub(crate) fn mentions(folder: &Path, needle: &str) -> bool {
    let mut found = Vec::new();
    walk(folder, &mut found);
    found.iter().any(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(needle)))
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(root, &mut found);
    found.sort();
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Built, foreign or generated: not written here.
        if matches!(
            &*name,
            "target" | ".git" | "corpus" | "artifacts" | "proptest-regressions" | "node_modules"
        ) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}
