use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn mark() -> impl Strategy<Value = Mark> {
    (any::<bool>(), any::<bool>()).prop_map(|(failed, slow)| Mark { failed, slow })
}

fn count(marks: impl IntoIterator<Item = Mark>) -> Counts {
    let mut counts = Counts::default();
    marks.into_iter().for_each(|mark| counts.add(mark));
    counts
}

proptest! {
    /// A count window holds exactly the last N calls: bits and ring alike.
    #[test]
    fn count_windows_really_slide(
        size in 1u32..200,
        marks in proptest::collection::vec(mark(), 0..1_000),
    ) {
        let mut window = Window::last_calls(size);
        let mut model = VecDeque::new();
        for mark in marks {
            window.record(Instant::ZERO, mark);
            model.push_back(mark);
            if model.len() > size as usize {
                model.pop_front();
            }
            prop_assert_eq!(window.counts(Instant::ZERO), count(model.iter().copied()));
        }
    }

    /// A time window holds exactly the calls of the current slice and the nine before.
    #[test]
    fn time_windows_really_slide(
        length_ms in 1u64..100_000,
        calls in proptest::collection::vec((0u64..20_000, mark()), 0..300),
    ) {
        let length = Duration::from_millis(length_ms);
        let slicing = Slicing::new(length);
        let mut window = Window::last_time(length);
        let mut now = Instant::from_millis(123_456_789);
        let mut model: Vec<(u64, Mark)> = Vec::new();
        for (gap, mark) in calls {
            now = now + Duration::from_millis(gap);
            window.record(now, mark);
            model.push((slicing.epoch(now), mark));
            let first = slicing.epoch(now) - (SLICES as u64 - 1);
            let live = model.iter().filter(|(epoch, _)| *epoch >= first).map(|(_, mark)| *mark);
            prop_assert_eq!(window.counts(now), count(live));
        }
    }

    /// Whatever the length of a slice, its number is the quotient, up to the drift.
    #[test]
    fn slices_are_where_division_puts_them(length in 20u64..1u64 << 40, now in 0u64..1 << 50) {
        let slice = length / SLICES as u64;
        let epoch = Slicing::new(Duration::from_nanos(length)).epoch(Instant::from_nanos(now));
        let exact = now / slice;
        let drift = (now as f64 * slice as f64 / (1u128 << 64) as f64 / slice as f64) as u64 + 1;
        prop_assert!(epoch >= exact && epoch <= exact + drift, "{epoch} is not {exact}");
    }

    /// A cell is the sum of what was added in its slice.
    #[test]
    fn cells_forget_old_slices(adds in proptest::collection::vec((0u64..25, -5_000_000i64..5_000_000), 1..60)) {
        let cells: [Cell; SLICES] = core::array::from_fn(|_| Cell::new());
        let mut epoch = (1 << 20) - 30;
        let mut model: Vec<(u64, i64)> = Vec::new();
        for (gap, value) in adds {
            epoch += gap;
            cells[(epoch % SLICES as u64) as usize].add(epoch, value);
            model.push((epoch, value));
            let sum: i64 = cells.iter().filter_map(|cell| cell.get(epoch)).sum();
            let live = model.iter().filter(|(at, _)| at + SLICES as u64 > epoch);
            prop_assert_eq!(sum, live.map(|(_, value)| value).sum::<i64>());
        }
    }
}

#[test]
fn a_cell_stops_growing() {
    let cell = Cell::new();
    for _ in 0..5 {
        cell.add(3, VALUE_MAX / 2);
    }
    assert_eq!(cell.get(3), Some(VALUE_MAX));
    cell.add(3, -1);
    assert_eq!(cell.get(3), Some(VALUE_MAX - 1));
    assert_eq!(cell.get(13), None);
}
