//! What an operator does to a store from outside, wherever it lies.

use std::path::Path;

use crate::{Config, Error, postgres, sqlite};

/// Writes a consistent copy of a file, which another process may have open, to `to`.
///
/// # Errors
///
/// [`Error::Open`] if `to` exists, [`Error::DiskFull`]; [`Error::Invalid`] for a
/// database, with the command of the server that copies it.
pub fn backup(config: &Config, to: &Path) -> Result<(), Error> {
    if config.postgres.is_none() {
        return sqlite::backup(config, to);
    }
    let command = postgres::upkeep::backup_command(config, &to.display().to_string())?;
    Err(Error::invalid(
        "backup",
        format!(
            "is made of a database by the server's own program, also while it serves: `{command}`; \
             into an empty database it goes back with `pg_restore --dbname=… {}`",
            to.display()
        ),
    ))
}

/// Gives back the space of what was removed; the bytes before and after, with all
/// that stands beside. A file must not be open, and becomes as small as its
/// content; in a database room is made for new rows, beside the work that goes on.
///
/// # Errors
///
/// [`Error::Open`] if somebody has the file open; those of reading and writing.
pub fn compact(config: &Config) -> Result<(u64, u64), Error> {
    if config.postgres.is_some() {
        return postgres::upkeep::compact(config);
    }
    let size = || std::fs::metadata(&config.path).map_or(0, |file| file.len());
    let before = size();
    sqlite::compact(config)?;
    Ok((before, size()))
}

/// Reads everything in a store and names what is wrong: rows that fail their
/// checksum, positions and versions that are missing, rows of things that are not
/// there; of a file also damaged pages. Nobody may have the file open; a database
/// is read on one snapshot, beside the work that goes on.
///
/// # Errors
///
/// [`Error::Open`] if it cannot be read at all.
pub fn verify(config: &Config) -> Result<Vec<String>, Error> {
    if config.postgres.is_some() {
        postgres::upkeep::verify(config)
    } else {
        sqlite::verify(config)
    }
}
