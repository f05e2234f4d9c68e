//! What happens next: a 4-ary heap of (time, sequence) and a first-in,
//! first-out lane per fixed delay.
//!
//! Ties go to whichever was scheduled first; times are never compared as
//! floating point. A timer of a fixed length set later also ends later, so
//! timeouts live in a queue per length, where setting one costs nothing that
//! grows with how many are pending. Nothing is cancelled here: an event names a
//! generation, and whoever receives it ignores it if that has passed.

use std::collections::VecDeque;

/// An entry: 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) at: u64,
    sequence: u64,
    pub(crate) what: u64,
}

#[derive(Debug)]
struct Lane {
    delay: u64,
    entries: VecDeque<Entry>,
}

/// More lanes than this and the heap is as quick.
const LANES_MAX: usize = 12;

/// The pending events of one replication.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: Vec<Entry>,
    lanes: Vec<Lane>,
    sequence: u64,
}

impl Agenda {
    /// Gives timers of this length a lane of their own.
    pub(crate) fn open_lane(&mut self, delay: u64) {
        if self.lanes.len() < LANES_MAX && !self.lanes.iter().any(|lane| lane.delay == delay) {
            self.lanes.push(Lane { delay, entries: VecDeque::new() });
        }
    }

    /// Schedules `what` at `at`, which is not before `now`.
    pub(crate) fn push(&mut self, now: u64, at: u64, what: u64) {
        debug_assert!(at >= now, "an event in the past");
        self.sequence += 1;
        let entry = Entry { at, sequence: self.sequence, what };
        let delay = at - now;
        for lane in &mut self.lanes {
            if lane.delay == delay {
                lane.entries.push_back(entry);
                return;
            }
        }
        self.heap.push(entry);
        self.rise(self.heap.len() - 1);
    }

    /// Takes the earliest event.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let mut best = self.heap.first().copied();
        let mut from = usize::MAX;
        for (index, lane) in self.lanes.iter().enumerate() {
            if let Some(front) = lane.entries.front()
                && best.is_none_or(|b| (front.at, front.sequence) < (b.at, b.sequence))
            {
                best = Some(*front);
                from = index;
            }
        }
        if from == usize::MAX { self.pop_heap() } else { self.lanes[from].entries.pop_front() }
    }

    /// How many events are pending, stale ones included.
    pub(crate) fn len(&self) -> usize {
        self.heap.len() + self.lanes.iter().map(|lane| lane.entries.len()).sum::<usize>()
    }

    fn pop_heap(&mut self) -> Option<Entry> {
        let last = self.heap.pop()?;
        if self.heap.is_empty() {
            return Some(last);
        }
        let top = std::mem::replace(&mut self.heap[0], last);
        self.sink();
        Some(top)
    }

    fn rise(&mut self, mut child: usize) {
        let entry = self.heap[child];
        while child > 0 {
            let parent = (child - 1) / 4;
            let above = self.heap[parent];
            if (above.at, above.sequence) <= (entry.at, entry.sequence) {
                break;
            }
            self.heap[child] = above;
            child = parent;
        }
        self.heap[child] = entry;
    }

    fn sink(&mut self) {
        let mut parent = 0;
        let entry = self.heap[0];
        let len = self.heap.len();
        loop {
            let first = parent * 4 + 1;
            if first >= len {
                break;
            }
            let mut least = first;
            for child in first + 1..(first + 4).min(len) {
                let (a, b) = (self.heap[child], self.heap[least]);
                if (a.at, a.sequence) < (b.at, b.sequence) {
                    least = child;
                }
            }
            let below = self.heap[least];
            if (entry.at, entry.sequence) <= (below.at, below.sequence) {
                break;
            }
            self.heap[parent] = below;
            parent = least;
        }
        self.heap[parent] = entry;
    }
}

#[cfg(test)]
mod tests;
