//! Which priority comes next.

use core::time::Duration;

use crate::wall::Wall;

/// Which of ten priority lanes to take from: the head with the highest
/// priority, where `ageing` spent waiting counts as one step, so that a low
/// priority is late but never starved. `heads[p]` is when the first message of
/// priority `p` was published.
#[must_use]
pub fn pick_lane(now: Wall, heads: &[Option<Wall>; 10], ageing: Duration) -> Option<usize> {
    let step = ageing.as_micros().max(1);
    let score = |lane: usize, at: Wall| now.since(at).as_micros() + step * lane as u128;
    let waiting = heads.iter().enumerate().filter_map(|(lane, head)| head.map(|at| (lane, at)));
    waiting.max_by_key(|&(lane, at)| (score(lane, at), lane)).map(|(lane, _)| lane)
}
