//! A disk in memory that loses what was not synced and fails on request: a
//! file system layer for SQLite, for one store.
//!
//! What is written to a file is pending until the file is synced. When the
//! power is cut, any part of what is pending reaches the platter, torn at
//! sectors and in any order, now and then as garbage; a file whose folder was
//! not synced may be missing or back again. A sync that fails has put any part
//! of what was pending on the platter; the rest stays pending, or counts as
//! written from then on, so that the next sync succeeds without it: then it can
//! still be read, until the file is opened by somebody while nobody has it open. Connections from before the cut
//! get nothing but errors. Writing a sector harms no byte beside it, as
//! SQLite assumes of the disks of this world too. Deliberately absent: rot of
//! what was synced, files for temporary tables.

#![expect(unsafe_code, reason = "a file system layer of SQLite is a table of C functions")]

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_int, c_void},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rusqlite::ffi;
use selvedge_patterns::random::{Rng, SplitMix64};

/// How a disk misbehaves. Chances are out of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Says that it has synced, and has not.
    pub(crate) lies: bool,
    /// Has no room for a write.
    pub(crate) full: u64,
    /// Fails to sync the log; every open handle hears of it, as on Linux.
    pub(crate) sync: u64,
    /// Fails to sync any other file, likewise.
    pub(crate) sync_file: u64,
    /// Fails to read.
    pub(crate) read: u64,
}

/// How the life of a process on this disk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The power goes.
    Cut,
    /// The process is killed: what it wrote stays, what was pending stays pending.
    Kill,
}

/// A disk, and the layer that SQLite sees it through.
pub(crate) struct Disk {
    core: Arc<Core>,
    vfs: *mut ffi::sqlite3_vfs,
    name: CString,
}

struct Core(Mutex<State>);

struct State {
    files: BTreeMap<String, File>,
    /// Removed, but the folder was not synced since: what the platter has.
    removed: BTreeMap<String, Vec<u8>>,
    shared: BTreeMap<String, SharedMemory>,
    /// Memory that connections from before a cut may still point to.
    old_memory: Vec<SharedMemory>,
    /// Lock level of each open handle, with its file.
    locks: BTreeMap<u64, (String, c_int)>,
    /// Goes up with each cut: older handles are dead.
    generation: u64,
    handles: u64,
    rng: SplitMix64,
    faults: Faults,
    sector: usize,
    /// Changes that the disk takes before its end, and which end.
    left: Option<(u64, End)>,
}

#[derive(Default)]
struct File {
    /// What a process sees.
    now: Vec<u8>,
    /// What survives.
    platter: Vec<u8>,
    pending: Vec<Change>,
    /// Whether the folder is known to name it.
    named: bool,
    /// Handles that are open.
    handles: u64,
    /// Whether what was dropped by a sync that failed is still in memory.
    remembered: bool,
    /// Syncs that failed: each handle of that time hears of it once.
    failures: u64,
}

enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

/// The memory that connections of one process share about the log.
#[derive(Default)]
struct SharedMemory {
    regions: Vec<Box<[AtomicU64]>>,
    /// Who has each lock: one handle alone, or several together.
    alone: [Option<u64>; 8],
    together: [Vec<u64>; 8],
    users: Vec<u64>,
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                let end = at + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*at..end].copy_from_slice(bytes);
            }
            Self::Resize(size) => content.resize(*size, 0),
        }
    }

    /// As the pieces that a power cut can part.
    fn pieces(self, sector: usize) -> Vec<Self> {
        let Self::Write(mut at, bytes) = self else { return vec![self] };
        let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(sector - at % sector));
            pieces.push(Self::Write(at, piece.to_vec()));
            at += piece.len();
            rest = after;
        }
        pieces
    }
}

impl File {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.platter);
        }
    }

    /// A sync that fails: part of what is pending reaches the platter, and the rest
    /// either stays pending or is dropped.
    fn fail(&mut self, rng: &mut SplitMix64, sector: usize) {
        self.failures += 1;
        if rng.below(2) == 0 {
            return;
        }
        self.half_sync(rng, sector, 50);
        self.remembered = true;
    }

    /// What was dropped is not in memory either any more.
    fn forget(&mut self) {
        self.remembered = false;
        self.now.clone_from(&self.platter);
        self.pending.iter().for_each(|change| change.apply(&mut self.now));
    }

    /// Somebody opens it. What was dropped may be forgotten if nobody had it open,
    /// and is if it is a log: a store asks the system for that before it opens one,
    /// by a call that layers of SQLite do not have.
    fn open(&mut self, rng: &mut SplitMix64, log: bool) {
        if self.handles == 0 && self.remembered && (log || rng.below(2) == 0) {
            self.forget();
        }
        self.handles += 1;
    }

    /// Some of what is pending reaches the platter: each piece with a chance
    /// of `keep` percent.
    fn half_sync(&mut self, rng: &mut SplitMix64, sector: usize, keep: u64) {
        let pending = self.pending.drain(..).flat_map(|change| change.pieces(sector));
        let mut pieces: Vec<Change> = pending.filter(|_| rng.below(100) < keep).collect();
        if rng.below(2) == 0 {
            for last in (1..pieces.len()).rev() {
                pieces.swap(last, rng.below(last as u64 + 1) as usize);
            }
        }
        for mut piece in pieces {
            if let Change::Write(_, bytes) = &mut piece
                && rng.below(50) == 0
            {
                bytes.iter_mut().for_each(|byte| *byte = rng.below(256) as u8);
            }
            piece.apply(&mut self.platter);
        }
    }
}

impl State {
    /// One change is about to be made; fails if the end comes instead.
    fn step(&mut self) -> Result<(), c_int> {
        match &mut self.left {
            Some((0, end)) => {
                let end = *end;
                self.end(end);
                Err(ffi::SQLITE_IOERR)
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn end(&mut self, end: End) {
        self.generation += 1;
        self.left = None;
        self.locks.clear();
        self.files.values_mut().for_each(|file| file.handles = 0);
        self.old_memory.extend(std::mem::take(&mut self.shared).into_values());
        if end == End::Kill {
            return;
        }
        let keep = [0, 50, 90, 100][self.rng.below(4) as usize];
        for file in self.files.values_mut() {
            file.half_sync(&mut self.rng, self.sector, keep);
            file.now.clone_from(&file.platter);
            file.remembered = false;
        }
        let rng = &mut self.rng;
        self.files.retain(|_, file| file.named || rng.below(2) == 0);
        for (name, platter) in std::mem::take(&mut self.removed) {
            if !self.files.contains_key(&name) && self.rng.below(2) == 0 {
                let now = platter.clone();
                self.files.insert(name, File { now, platter, ..File::default() });
            }
        }
    }

    fn fails(&mut self, chance: u64) -> bool {
        chance > 0 && self.rng.below(1000) < chance
    }

    fn file(&mut self, name: &str) -> Result<&mut File, c_int> {
        self.files.get_mut(name).ok_or(ffi::SQLITE_IOERR)
    }
}

impl Disk {
    /// An empty disk; the same seed misbehaves in the same way.
    pub(crate) fn new(seed: u64) -> Self {
        static DISKS: AtomicU64 = AtomicU64::new(0);
        let mut rng = SplitMix64::new(seed);
        let sector = if rng.below(2) == 0 { 512 } else { 4096 };
        let core = Arc::new(Core(Mutex::new(State {
            files: BTreeMap::new(),
            removed: BTreeMap::new(),
            shared: BTreeMap::new(),
            old_memory: Vec::new(),
            locks: BTreeMap::new(),
            generation: 0,
            handles: 0,
            rng,
            faults: Faults::default(),
            sector,
            left: None,
        })));
        let name = format!("disk-{}", DISKS.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).unwrap();
        // SAFETY: without a name SQLite answers with the layer of the system, which lives for ever.
        let system = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()).read() };
        // Time, sleep and random bytes are the system's; they need nothing of its handles.
        let vfs = Box::into_raw(Box::new(ffi::sqlite3_vfs {
            szOsFile: size_of::<Handle>() as c_int,
            pNext: std::ptr::null_mut(),
            zName: name.as_ptr(),
            pAppData: Arc::as_ptr(&core).cast_mut().cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_path),
            ..system
        }));
        // SAFETY: layer and name stay where they are until `drop` takes them off the list.
        assert_eq!(unsafe { ffi::sqlite3_vfs_register(vfs, 0) }, ffi::SQLITE_OK);
        Self { core, vfs, name }
    }

    /// What the configuration of a store calls it.
    pub(crate) fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.core.0.lock().faults = faults;
    }

    /// Ends the process that uses it, now.
    pub(crate) fn end(&self, end: End) {
        self.core.0.lock().end(end);
    }

    /// Ends the process that uses it, after so many more changes.
    pub(crate) fn end_after(&self, changes: u64, end: End) {
        self.core.0.lock().left = Some((changes, end));
    }

    /// How many processes have ended.
    pub(crate) fn generation(&self) -> u64 {
        self.core.0.lock().generation
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // SAFETY: it was registered by `new`, and nobody opens a store on it any more.
        unsafe { ffi::sqlite3_vfs_unregister(self.vfs) };
        // An open connection still looks at the layer: then it stays.
        if Arc::strong_count(&self.core) == 1 {
            // SAFETY: it came from a box in `new`, is off the list, and no handle is left.
            drop(unsafe { Box::from_raw(self.vfs) });
        }
    }
}

/// What SQLite allocates for an open file.
#[repr(C)]
struct Handle {
    methods: *const ffi::sqlite3_io_methods,
    file: *mut Opened,
}

struct Opened {
    core: Arc<Core>,
    name: String,
    generation: u64,
    id: u64,
    /// Failures of its file that it knows of.
    heard: AtomicU64,
}

impl Opened {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> Result<T, c_int>) -> Result<T, c_int> {
        let mut state = self.core.0.lock();
        if state.generation == self.generation { work(&mut state) } else { Err(ffi::SQLITE_IOERR) }
    }
}

/// The file behind a handle.
///
/// # Safety
///
/// `file` must have been opened by [`open`] and not closed.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a Opened {
    // SAFETY: `open` has put a boxed `Opened` there, and `close` alone frees it.
    unsafe { &*(*file.cast::<Handle>()).file }
}

fn code(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(ffi::SQLITE_OK)
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

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let handle = file.cast::<Handle>();
    // SAFETY: SQLite gives `szOsFile` bytes; without methods it does not close after a failure.
    unsafe { (*handle).methods = std::ptr::null() };
    if name.is_null() {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: a name that is there ends with a zero.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    // SAFETY: `pAppData` points into the Arc that the disk holds for as long as it is registered.
    let core = unsafe {
        let core = (*vfs).pAppData.cast::<Core>().cast_const();
        Arc::increment_strong_count(core);
        Arc::from_raw(core)
    };
    let mut state = core.0.lock();
    if !state.files.contains_key(&name) {
        if flags & ffi::SQLITE_OPEN_CREATE == 0 {
            return ffi::SQLITE_CANTOPEN;
        }
        let full = state.faults.full;
        if state.fails(full) {
            return ffi::SQLITE_FULL;
        }
        state.files.insert(name.clone(), File::default());
    }
    state.handles += 1;
    let (generation, id) = (state.generation, state.handles);
    let mut rng = SplitMix64::new(state.rng.next_u64());
    let mut heard = AtomicU64::new(0);
    if let Some(file) = state.files.get_mut(&name) {
        file.open(&mut rng, name.ends_with("-wal"));
        *heard.get_mut() = file.failures;
    }
    drop(state);
    let opened = Box::new(Opened { core, name, generation, id, heard });
    // SAFETY: as above, and `out_flags` may be absent.
    unsafe {
        handle.write(Handle { methods: &raw const METHODS, file: Box::into_raw(opened) });
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_folder: c_int,
) -> c_int {
    // SAFETY: as in `open`.
    let (core, name) = unsafe {
        (&*(*vfs).pAppData.cast::<Core>(), CStr::from_ptr(name).to_string_lossy().into_owned())
    };
    let mut state = core.0.lock();
    if let Err(code) = state.step() {
        return code;
    }
    let Some(file) = state.files.remove(&name) else { return ffi::SQLITE_IOERR_DELETE_NOENT };
    if sync_folder == 0 && file.named {
        state.removed.insert(name, file.platter);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    answer: *mut c_int,
) -> c_int {
    // SAFETY: as in `open`; SQLite wants the answer.
    unsafe {
        let core = &*(*vfs).pAppData.cast::<Core>();
        let name = CStr::from_ptr(name).to_string_lossy();
        *answer = c_int::from(core.0.lock().files.contains_key(&*name));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_path(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite gives `room` bytes, and the name ends with a zero.
    unsafe {
        let name = CStr::from_ptr(name).to_bytes_with_nul();
        if name.len() > room as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        out.copy_from_nonoverlapping(name.as_ptr().cast(), name.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let handle = file.cast::<Handle>();
    // SAFETY: SQLite closes what `open` opened, once.
    let opened = unsafe { Box::from_raw((*handle).file) };
    // After a cut there is nothing left to give back.
    let _ = opened.with(|state| {
        state.locks.remove(&opened.id);
        // It may have been removed meanwhile.
        if let Some(file) = state.files.get_mut(&opened.name) {
            file.handles = file.handles.saturating_sub(1);
        }
        Ok(())
    });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    size: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite reads open files into `size` bytes.
    let (opened, out) =
        unsafe { (opened(file), std::slice::from_raw_parts_mut(out.cast::<u8>(), size as usize)) };
    code(opened.with(|state| {
        let chance = state.faults.read;
        if state.fails(chance) {
            return Err(ffi::SQLITE_IOERR_READ);
        }
        let content = &state.file(&opened.name)?.now;
        let from = content.len().min(at as usize);
        let there = &content[from..content.len().min(at as usize + out.len())];
        out[..there.len()].copy_from_slice(there);
        out[there.len()..].fill(0);
        if there.len() == out.len() { Ok(()) } else { Err(ffi::SQLITE_IOERR_SHORT_READ) }
    }))
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    size: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite writes `size` bytes to open files.
    let (opened, bytes) =
        unsafe { (opened(file), std::slice::from_raw_parts(bytes.cast::<u8>(), size as usize)) };
    code(opened.with(|state| {
        let full = state.faults.full;
        if state.fails(full) {
            return Err(ffi::SQLITE_FULL);
        }
        state.file(&opened.name)?.change(Change::Write(at as usize, bytes.to_vec()));
        // A write that the cut interrupts may be there in part.
        state.step()
    }))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite truncates open files.
    let opened = unsafe { opened(file) };
    code(opened.with(|state| {
        state.file(&opened.name)?.change(Change::Resize(size as usize));
        state.step()
    }))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite syncs open files.
    let opened = unsafe { opened(file) };
    code(opened.with(|state| {
        state.step()?;
        if state.faults.lies {
            return Ok(());
        }
        let log = opened.name.ends_with("-wal");
        let chance = if log { state.faults.sync } else { state.faults.sync_file };
        let (fails, sector) = (state.fails(chance), state.sector);
        let mut rng = SplitMix64::new(state.rng.next_u64());
        let file = state.file(&opened.name)?;
        if fails {
            file.fail(&mut rng, sector);
        }
        if opened.heard.swap(file.failures, Ordering::Relaxed) < file.failures {
            return Err(ffi::SQLITE_IOERR_FSYNC);
        }
        file.sync();
        // The first sync of a file is one of its folder too, as the system's layer does it.
        if !std::mem::replace(&mut file.named, true) {
            state.removed.clear();
        }
        Ok(())
    }))
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: SQLite asks open files.
    let opened = unsafe { opened(file) };
    code(opened.with(|state| {
        let bytes = state.file(&opened.name)?.now.len() as i64;
        // SAFETY: SQLite wants the answer.
        unsafe { *size = bytes };
        Ok(())
    }))
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite locks open files.
    let opened = unsafe { opened(file) };
    code(opened.with(|state| {
        let others =
            state.locks.iter().filter(|(id, (name, _))| **id != opened.id && *name == opened.name);
        let highest = others.map(|(_, (_, level))| *level).max().unwrap_or(0);
        let allowed = match level {
            ffi::SQLITE_LOCK_SHARED => highest <= ffi::SQLITE_LOCK_RESERVED,
            ffi::SQLITE_LOCK_RESERVED => highest < ffi::SQLITE_LOCK_RESERVED,
            _ => highest == ffi::SQLITE_LOCK_NONE,
        };
        if !allowed {
            return Err(ffi::SQLITE_BUSY);
        }
        let held = state.locks.entry(opened.id).or_insert_with(|| (opened.name.clone(), 0));
        held.1 = held.1.max(level);
        Ok(())
    }))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: SQLite unlocks open files.
    let opened = unsafe { opened(file) };
    // After a cut there is nothing left to give back.
    let _ = opened.with(|state| {
        state.locks.insert(opened.id, (opened.name.clone(), level));
        Ok(())
    });
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved(file: *mut ffi::sqlite3_file, answer: *mut c_int) -> c_int {
    // SAFETY: SQLite asks open files.
    let opened = unsafe { opened(file) };
    code(opened.with(|state| {
        let reserved = state
            .locks
            .values()
            .any(|(name, level)| *name == opened.name && *level >= ffi::SQLITE_LOCK_RESERVED);
        // SAFETY: SQLite wants the answer.
        unsafe { *answer = c_int::from(reserved) };
        Ok(())
    }))
}

unsafe extern "C" fn control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite asks open files.
    unsafe { opened(file) }.core.0.lock().sector as c_int
}

unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite maps open files.
    let opened = unsafe { opened(file) };
    code(opened.with(|state| {
        let memory = state.shared.entry(opened.name.clone()).or_default();
        if !memory.users.contains(&opened.id) {
            memory.users.push(opened.id);
        }
        let region = region as usize;
        while extend != 0 && memory.regions.len() <= region {
            memory.regions.push((0..size / 8).map(|_| AtomicU64::new(0)).collect());
        }
        let start = memory.regions.get(region).map(|region| region.as_ptr());
        // SAFETY: SQLite wants the answer; none means that the region is not there.
        unsafe { *out = start.map_or(std::ptr::null_mut(), |start| start.cast_mut().cast()) };
        Ok(())
    }))
}

unsafe extern "C" fn lock_shared(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite locks what it has mapped.
    let opened = unsafe { opened(file) };
    let slots = offset as usize..(offset + count) as usize;
    let result = opened.with(|state| {
        let memory = state.shared.entry(opened.name.clone()).or_default();
        let mine = opened.id;
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            for slot in slots {
                memory.alone[slot].take_if(|id| *id == mine);
                memory.together[slot].retain(|id| *id != mine);
            }
            return Ok(());
        }
        let alone = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
        let taken = slots.clone().any(|slot| {
            memory.alone[slot].is_some_and(|id| id != mine)
                || alone && memory.together[slot].iter().any(|id| *id != mine)
        });
        if taken {
            return Err(ffi::SQLITE_BUSY);
        }
        for slot in slots {
            if alone {
                memory.alone[slot] = Some(mine);
            } else if !memory.together[slot].contains(&mine) {
                memory.together[slot].push(mine);
            }
        }
        Ok(())
    });
    code(result)
}

unsafe extern "C" fn barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: SQLite has it open. Taking a lock is a barrier.
    drop(unsafe { opened(file) }.core.0.lock());
}

unsafe extern "C" fn unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: SQLite unmaps open files.
    let opened = unsafe { opened(file) };
    // After a cut there is nothing left to give back.
    let _ = opened.with(|state| {
        let Some(memory) = state.shared.get_mut(&opened.name) else { return Ok(()) };
        memory.users.retain(|id| *id != opened.id);
        if memory.users.is_empty() {
            state.shared.remove(&opened.name);
        }
        Ok(())
    });
    ffi::SQLITE_OK
}
