//! A call allocates nothing, whatever becomes of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use selvedge_patterns::call::{Call, Request, Step};
use selvedge_patterns::outcome::{Failure, Outcome, Safety};
use selvedge_patterns::policy::Policy;
use selvedge_patterns::random::SplitMix64;
use selvedge_patterns::service::{Service, Target};
use selvedge_patterns::time::{Duration, Instant};
use selvedge_patterns::{breaker, bulkhead, hedge, timeout};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[expect(unsafe_code, reason = "the trait is unsafe; every method passes on to the system's")]
// SAFETY: the system's allocator upholds the contract, and counting neither
// allocates nor unwinds: the cell needs no destructor and no lazy start.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as our caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as our caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    work();
    COUNT.with(Cell::get) - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

/// Everything on: good answers, failures with retries and hedges, a full
/// bulkhead with a queue, and open breakers.
#[test]
fn a_call_allocates_nothing() {
    let policy = Policy {
        hedge: Some(hedge::Config {
            delay: hedge::Delay::Fixed(Duration::from_millis(20)),
            ..hedge::Config::default()
        }),
        bulkhead: Some(bulkhead::Config {
            max_in_flight: 4,
            queue: 4,
            ..bulkhead::Config::default()
        }),
        breaker: Some(breaker::Config {
            slow: Some(breaker::Slow::over(Duration::from_secs(1))),
            min_calls: 3,
            ..breaker::Config::default()
        }),
        timeout: timeout::Config::fitting(Some(Duration::from_millis(100)), None),
        ..Policy::careful()
    };
    let targets = (0..3).map(|n| Target::new(format!("10.0.0.{n}:80"))).collect();
    let mut now = Instant::from_millis(1_000);
    let service = Service::new(now, policy, targets, 1);
    let mut rng = SplitMix64::new(1);
    let mut rounds = |failing: fn(u64) -> bool, times: u64| {
        let mut rejected = 0;
        for round in 0..times {
            // More at once than the bulkhead admits, so that there is a queue.
            let request = Request::new(Safety::Safe);
            let mut calls = [(); 6].map(|()| Call::begin(now, &service, request));
            let mut over = [false; 6];
            while !over.iter().all(|over| *over) {
                for (call, over) in calls.iter_mut().zip(&mut over) {
                    match call.next(now, &service, &mut rng) {
                        Step::Start(attempt) if attempt.number % 2 == 1 => {
                            let outcome = if failing(round) {
                                Outcome::Failure(Failure::Gateway)
                            } else {
                                Outcome::Success
                            };
                            call.settle(now, &service, attempt.number, outcome);
                        }
                        Step::Done(end) => {
                            rejected +=
                                u64::from(matches!(end, selvedge_patterns::call::End::Rejected(_)));
                            call.finish(now, &service);
                            *over = true;
                        }
                        Step::Start(_)
                        | Step::Cancel(_)
                        | Step::Queue { .. }
                        | Step::Wait { .. }
                        | Step::Idle { .. } => {}
                    }
                    while service.granted().is_some() {}
                }
                now = now + Duration::from_millis(7);
            }
            while service.take_event().is_some() {}
        }
        rejected
    };
    // The list of events grows to its size once.
    rounds(|_| true, 30);
    let mut rejected = 0;
    let count = allocations(|| rejected = rounds(|round| round % 3 == 0 || round > 80, 120));
    assert!(rejected > 0, "the breakers opened");
    assert_eq!(count, 0);
}
