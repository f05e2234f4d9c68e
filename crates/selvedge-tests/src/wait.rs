//! Waiting for something outside this process.

use std::time::{Duration, Instant};

/// The longest that anything which must happen may take before a test fails.
/// Generous: a busy machine must not fail a test that a quiet one passes.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Polls `probe` until it gives something, for at most [`PATIENCE`].
///
/// # Panics
///
/// When it did not: the message says what was waited for.
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// Polls `probe` until it gives something, for at most `limit`.
///
/// # Panics
///
/// When it did not: the message says what was waited for.
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        pause(Duration::from_millis(5));
    }
}

/// Polls `condition` until it holds, for at most [`PATIENCE`].
///
/// # Panics
///
/// When it never held.
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}

/// Lets real time pass: for peers that are slow on purpose, and for tests of
/// what must *not* happen within a while.
#[expect(clippy::disallowed_methods, reason = "the one place where whole-system tests wait")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
