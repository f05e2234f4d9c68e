//! A file system layer over the system's own that stands still at a named
//! moment, so that a test can kill the process exactly there.

#![expect(unsafe_code, reason = "a file system layer of SQLite is a table of C functions")]

use std::{
    ffi::{c_char, c_int, c_void},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::ffi;

/// Where a process can be made to stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Part of a batch is in the log's file.
    InWrite,
    /// A batch is in the log's file and not synced.
    BeforeSync,
    /// A batch is synced and nobody was told.
    AfterSync,
    /// A checkpoint copies pages.
    InCheckpoint,
    /// A checkpoint has copied its pages and not synced them.
    BeforeCheckpointSync,
}

impl Moment {
    pub(crate) const ALL: [Self; 5] = [
        Self::InWrite,
        Self::BeforeSync,
        Self::AfterSync,
        Self::InCheckpoint,
        Self::BeforeCheckpointSync,
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|moment| format!("{moment:?}") == name)
    }
}

/// The one plan of this process: the moment, and how many of its kind pass before.
static PLAN: OnceLock<(Moment, AtomicU64)> = OnceLock::new();
/// The system's layer.
static SYSTEM: OnceLock<System> = OnceLock::new();

struct System(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite calls a layer from every thread; nothing here changes it.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

/// Sets the plan and gives the layer's name, for the configuration of a store.
pub(crate) fn plan(moment: Moment, passes: u64) -> String {
    PLAN.get_or_init(|| (moment, AtomicU64::new(passes)));
    SYSTEM.get_or_init(|| {
        // SAFETY: without a name SQLite answers with the layer of the system, which lives for ever.
        let system = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
        // SAFETY: as above.
        let below = unsafe { system.read() };
        let layer = Box::leak(Box::new(ffi::sqlite3_vfs {
            szOsFile: size_of::<Handle>() as c_int + below.szOsFile,
            pNext: std::ptr::null_mut(),
            zName: c"halting".as_ptr(),
            xOpen: Some(open),
            ..below
        }));
        // SAFETY: the layer is never freed.
        assert_eq!(unsafe { ffi::sqlite3_vfs_register(layer, 0) }, ffi::SQLITE_OK);
        System(system)
    });
    "halting".to_owned()
}

/// Says so and waits to be killed, if the moment has come.
fn reached(moment: Moment) {
    let Some((planned, passes)) = PLAN.get() else { return };
    let before = |left: u64| left.checked_sub(1);
    if *planned == moment
        && passes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, before).is_err()
    {
        crate::crash::say(format!("\nat {moment:?}"));
        loop {
            std::thread::park();
        }
    }
}

/// What SQLite allocates for an open file; the system's handle follows it.
#[repr(C)]
struct Handle {
    methods: *const ffi::sqlite3_io_methods,
    flags: c_int,
}

/// The system's handle.
///
/// # Safety
///
/// `file` must have been given to [`open`].
unsafe fn below(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: the layer asks for room for both.
    unsafe { file.cast::<Handle>().add(1).cast() }
}

/// What kind of file it is.
///
/// # Safety
///
/// `file` must have been opened by [`open`].
unsafe fn is(file: *mut ffi::sqlite3_file, kind: c_int) -> bool {
    // SAFETY: `open` has written it.
    unsafe { (*file.cast::<Handle>()).flags & kind != 0 }
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let System(system) = SYSTEM.get().expect("it was set before the layer had a name");
    // SAFETY: the arguments are SQLite's own, with the layer and the handle that belong together.
    unsafe {
        let below = below(file);
        let open = (**system).xOpen.expect("every layer opens files");
        let result = open(*system, name, below, flags, out_flags);
        let opened = !(*below).pMethods.is_null();
        let methods = if opened { &raw const METHODS } else { std::ptr::null() };
        file.cast::<Handle>().write(Handle { methods, flags });
        result
    }
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) $method:ident;)*) => { $(
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file, $($argument: $type),*) -> c_int {
            // SAFETY: SQLite calls methods of files that `open` has opened, with their arguments.
            unsafe {
                let below = below(file);
                (*(*below).pMethods).$method.expect("files of the system have it")(below, $($argument),*)
            }
        }
    )* };
}

forward! {
    close() xClose;
    read(out: *mut c_void, size: c_int, at: i64) xRead;
    write_below(bytes: *const c_void, size: c_int, at: i64) xWrite;
    truncate(size: i64) xTruncate;
    sync_below(flags: c_int) xSync;
    file_size(size: *mut i64) xFileSize;
    lock(level: c_int) xLock;
    unlock(level: c_int) xUnlock;
    check_reserved(answer: *mut c_int) xCheckReservedLock;
    control(what: c_int, argument: *mut c_void) xFileControl;
    sector_size() xSectorSize;
    characteristics() xDeviceCharacteristics;
    map(region: c_int, size: c_int, extend: c_int, out: *mut *mut c_void) xShmMap;
    lock_shared(offset: c_int, count: c_int, flags: c_int) xShmLock;
    unmap(delete: c_int) xShmUnmap;
}

unsafe extern "C" fn barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: as for the others.
    unsafe {
        let below = below(file);
        (*(*below).pMethods).xShmBarrier.expect("files of the system have it")(below);
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    size: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite writes to files that `open` has opened.
    unsafe {
        let result = write_below(file, bytes, size, at);
        if is(file, ffi::SQLITE_OPEN_WAL) {
            reached(Moment::InWrite);
        } else if is(file, ffi::SQLITE_OPEN_MAIN_DB) {
            reached(Moment::InCheckpoint);
        }
        result
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite syncs files that `open` has opened.
    unsafe {
        let log = is(file, ffi::SQLITE_OPEN_WAL);
        reached(if log { Moment::BeforeSync } else { Moment::BeforeCheckpointSync });
        let result = sync_below(file, flags);
        if log {
            reached(Moment::AfterSync);
        }
        result
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(map),
    xShmLock: Some(lock_shared),
    xShmBarrier: Some(barrier),
    xShmUnmap: Some(unmap),
    xFetch: None,
    xUnfetch: None,
};
