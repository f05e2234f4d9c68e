//! Where the real servers and clients lie.

use std::path::PathBuf;

/// The program that `variable` names.
///
/// A suite insists on its peer instead of passing without it: `cargo xtask
/// test` installs each, or leaves its suite out by name and says so.
pub(crate) fn path(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("set {variable}, or run `cargo xtask test`, which does"))
        .into()
}
