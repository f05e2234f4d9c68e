//! Ports that nobody else takes while a test runs.

use std::{
    fs::{File, OpenOptions},
    net::TcpListener,
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

/// Below what the kernel hands out for outgoing connections.
const RANGE: std::ops::Range<u16> = 11_000..31_000;

static NEXT: AtomicU16 = AtomicU16::new(0);
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port that is free now and that no other test process will be given.
///
/// Selvedge listens with `SO_REUSEPORT`, so two tests on one port would share
/// connections instead of failing: a lock file for each port, held until the
/// process ends, keeps them apart.
///
/// # Panics
///
/// When none is left.
pub fn free() -> u16 {
    let width = RANGE.end - RANGE.start;
    let start = (std::process::id() as u16).wrapping_mul(97);
    let folder = std::env::temp_dir().join("selvedge-test-ports");
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    for _ in 0..width {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = RANGE.start + (start.wrapping_add(step)) % width;
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(folder.join(port.to_string()))
            .expect("a lock file can be made");
        if file.try_lock().is_err() || TcpListener::bind(("127.0.0.1", port)).is_err() {
            continue;
        }
        HELD.lock().expect("no test panics while holding this").push(file);
        return port;
    }
    panic!("no free port in {RANGE:?}");
}
