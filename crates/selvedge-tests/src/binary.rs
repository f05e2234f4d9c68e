//! The binary under test.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::SystemTime,
};

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// The path of `selvedge`, built if it is older than these tests.
///
/// `SELVEDGE_BIN` names another one, for instance a release build.
///
/// # Panics
///
/// When it cannot be built.
pub fn path() -> &'static Path {
    BINARY.get_or_init(|| match std::env::var_os("SELVEDGE_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its path");
    // target/<profile>/deps/it-<hash>
    let folder = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let binary = folder.join("selvedge");
    // Cargo leaves the binary's time alone when there is nothing to do, so a
    // stamp says that it has been asked since this test was linked.
    let stamp = folder.join(".selvedge-is-built");
    if modified(&binary).is_some() && modified(&stamp) >= modified(&test) {
        return binary;
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--package", "selvedge", "--bin", "selvedge"]);
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo can be run");
    assert!(
        output.status.success(),
        "the binary does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::write(&stamp, "").expect("the target folder can be written");
    binary
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}
