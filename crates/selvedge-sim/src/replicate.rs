//! Replications side by side: one thread each, as many as there are cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::model::{Refused, Scenario};
use crate::record::Replication;
use crate::world;

/// Runs every seed of `scenario` on up to `threads` threads, telling `done`
/// how many are finished. The result is in order of seeds and does not depend
/// on `threads`.
///
/// # Errors
///
/// [`Refused`] if the scenario cannot be simulated.
pub fn replicate(
    scenario: &Scenario,
    threads: usize,
    done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Replication>, Refused> {
    scenario.validate()?;
    let count = scenario.run.seeds as usize;
    Ok(in_parallel(count, threads, done, |index| {
        world::run(scenario, scenario.run.seed + index as u64)
    }))
}

/// Runs one seed.
///
/// # Errors
///
/// [`Refused`] if the scenario cannot be simulated.
pub fn replicate_one(scenario: &Scenario, seed: u64) -> Result<Replication, Refused> {
    scenario.validate()?;
    Ok(world::run(scenario, seed))
}

/// Calls `work` for `0..count` on up to `threads` threads; results in order.
pub(crate) fn in_parallel<T: Send>(
    count: usize,
    threads: usize,
    done: &(dyn Fn(usize) + Sync),
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let finished = AtomicUsize::new(0);
    let results = Mutex::new((0..count).map(|_| None).collect::<Vec<Option<T>>>());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, count.max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    let result = work(index);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(result);
                    done(finished.fetch_add(1, Ordering::Relaxed) + 1);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(|result| result.expect("every index was worked on")).collect()
}
