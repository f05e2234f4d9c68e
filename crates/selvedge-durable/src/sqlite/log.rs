//! The write-ahead log as a file: how far it goes, and how what is in doubt is cut off.
//!
//! SQLite has no statement for either, but hands out the file that it has open.

#![expect(unsafe_code, reason = "SQLite hands out its open log as a C structure only")]

use std::ffi::{c_int, c_void};

use rusqlite::{Connection, ffi};

use super::checkpoint;
use crate::Error;

/// Bytes of the log's header, and of the one before each page.
const HEADER: usize = 32;
const FRAME_HEADER: u64 = 24;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// What the log got when it was begun anew.
    salt: [u8; 8],
    /// Frames before the place.
    frames: u64,
}

/// Where the last commit ends that `conn` can see.
pub(super) fn end(conn: &Connection) -> Result<Mark, Error> {
    let (frames, _) = checkpoint::length(conn)?;
    let (salt, _) = header(conn)?;
    Ok(Mark { salt, frames })
}

/// Puts everything in the log on disk.
pub(super) fn sync(conn: &Connection) -> Result<(), Error> {
    // SAFETY: `open` has looked that the log is open, and SQLite takes what it handed out.
    let code = unsafe {
        let (file, methods) = open(conn)?;
        let Some(sync) = (*methods).xSync else { return Ok(()) };
        sync(file, ffi::SQLITE_SYNC_NORMAL)
    };
    done(code)
}

/// Cuts off what comes after `mark`. Nobody may read beyond it, and every
/// connection must be closed before anything is committed again. Gives how many
/// frames are left.
pub(super) fn cut(conn: &Connection, mark: Mark) -> Result<u64, Error> {
    let (salt, page) = header(conn)?;
    // A log that was begun anew since holds nothing that was synced.
    let frames = if salt == mark.salt { mark.frames } else { 0 };
    let size = match frames {
        0 => 0,
        frames => HEADER as u64 + frames * (FRAME_HEADER + page),
    };
    // SAFETY: as in `sync`.
    let code = unsafe {
        let (file, methods) = open(conn)?;
        let Some(truncate) = (*methods).xTruncate else { return Ok(u64::MAX) };
        truncate(file, size as i64)
    };
    done(code).map(|()| frames)
}

/// Salt and page size; zeros if the log is empty.
fn header(conn: &Connection) -> Result<([u8; 8], u64), Error> {
    let mut header = [0_u8; HEADER];
    // SAFETY: as in `sync`; there is room for what is read.
    let code = unsafe {
        let (file, methods) = open(conn)?;
        let Some(read) = (*methods).xRead else { return Ok(([0; 8], 0)) };
        read(file, header.as_mut_ptr().cast::<c_void>(), HEADER as c_int, 0)
    };
    match code {
        ffi::SQLITE_IOERR_SHORT_READ => {}
        code => done(code)?,
    }
    let mut salt = [0; 8];
    salt.copy_from_slice(&header[16..24]);
    let page = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    // 64 KiB is written as 1, as in the file itself.
    Ok((salt, if page == 1 { 1 << 16 } else { page.into() }))
}

/// The open log and what can be done with it.
fn open(
    conn: &Connection,
) -> Result<(*mut ffi::sqlite3_file, *const ffi::sqlite3_io_methods), Error> {
    let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    // SAFETY: the connection is open as long as it is borrowed, and the answer is a pointer.
    let (code, methods) = unsafe {
        let code = ffi::sqlite3_file_control(
            conn.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_JOURNAL_POINTER,
            (&raw mut file).cast(),
        );
        (code, if file.is_null() { std::ptr::null() } else { (*file).pMethods })
    };
    done(code)?;
    if methods.is_null() {
        return Err(Error::Corrupt { what: "the file has no write-ahead log".to_owned() });
    }
    Ok((file, methods))
}

fn done(code: c_int) -> Result<(), Error> {
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None).into())
}
