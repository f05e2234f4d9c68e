//! A call that goes well allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use selvedge_patterns::{breaker as breaker_pattern, bulkhead as bulkhead_pattern};
use selvedge_tower::classify::Always;
use selvedge_tower::{breaker, bulkhead, deadline, limit, timeout};
use tower::{Layer, Service, service_fn};

use crate::{generous, policy};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is unsafe to implement")]
// SAFETY: every method passes its arguments on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` by `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls `service` until its windows have turned over, then counts a hundred calls.
fn allocations<S>(mut service: S) -> usize
where
    S: Service<u64, Response = u64>,
    S::Error: std::fmt::Debug,
{
    let mut context = Context::from_waker(Waker::noop());
    let mut call = |request| {
        assert!(service.poll_ready(&mut context).is_ready());
        let Poll::Ready(response) = pin!(service.call(request)).poll(&mut context) else {
            panic!("it answers at once");
        };
        assert_eq!(response.expect("it cannot fail"), request);
    };
    (0..100).for_each(&mut call);
    let before = ALLOCATIONS.get();
    (0..100).for_each(&mut call);
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    let boxing = service_fn(|request: u64| {
        let boxed = Box::new(request);
        async move { Ok::<u64, std::convert::Infallible>(*boxed) }
    });
    assert_eq!(allocations(boxing), 100);
}

#[test]
fn a_policy_of_five_patterns() {
    assert_eq!(allocations(policy().layer(service_fn(echo))), 0);
}

#[test]
fn five_layers_one_upon_the_other() {
    let service = timeout::Layer::new(Duration::from_secs(10)).layer(service_fn(echo));
    let service =
        bulkhead::Layer::new(bulkhead_pattern::Config::default()).expect("valid").layer(service);
    let service = breaker::Layer::new(breaker_pattern::Config::default(), Always::SAFE)
        .expect("valid")
        .layer(service);
    let service = limit::Layer::new(generous()).expect("valid").layer(service);
    let service = deadline::Layer::new(Duration::from_secs(30)).layer(service);
    assert_eq!(allocations(service), 0);
}

async fn echo(request: u64) -> Result<u64, std::convert::Infallible> {
    Ok(request)
}
