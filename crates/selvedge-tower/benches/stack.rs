//! What a call costs that goes well, from the outermost layer to the answer.

use std::convert::Infallible;
use std::future::{Future, Ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use selvedge_patterns::limit::Rate;
use selvedge_patterns::{
    breaker as breaker_pattern, budget, bulkhead as bulkhead_pattern, limit as limit_pattern,
};
use selvedge_patterns::{retry, timeout as timeout_pattern};
use selvedge_tower::classify::Always;
use selvedge_tower::clock::Clock;
use selvedge_tower::{Policy, breaker, bulkhead, deadline, limit, timeout};
use tower::{Layer, Service};

/// Answers at once.
#[derive(Clone, Copy)]
struct Echo;

impl Service<u64> for Echo {
    type Response = u64;
    type Error = Infallible;
    type Future = Ready<Result<u64, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        std::future::ready(Ok(request))
    }
}

fn measure<S: Service<u64, Response = u64>>(criterion: &mut Criterion, name: &str, mut service: S) {
    let mut context = Context::from_waker(Waker::noop());
    criterion.bench_function(name, |bencher| {
        bencher.iter(|| {
            assert!(service.poll_ready(&mut context).is_ready());
            match pin!(service.call(black_box(7))).poll(&mut context) {
                Poll::Ready(Ok(response)) => response,
                Poll::Ready(Err(_)) | Poll::Pending => unreachable!("it answers at once"),
            }
        });
    });
}

fn stacks(criterion: &mut Criterion) {
    criterion.bench_function("clock", |bencher| bencher.iter(|| Clock::process().now()));
    measure(criterion, "nothing", Echo);

    let limits = limit_pattern::Config {
        rate: Rate::per_second(1_000_000_000),
        burst: 1_000_000,
        ..Default::default()
    };
    let limit = limit::Layer::new(limits).expect("valid");
    let breaker =
        breaker::Layer::new(breaker_pattern::Config::default(), Always::SAFE).expect("valid");
    let bulkhead = bulkhead::Layer::new(bulkhead_pattern::Config::default()).expect("valid");
    let timeout = timeout::Layer::new(Duration::from_secs(10));
    measure(criterion, "limit", limit.layer(Echo));
    measure(criterion, "breaker", breaker.layer(Echo));
    measure(criterion, "bulkhead", bulkhead.layer(Echo));
    measure(criterion, "timeout", timeout.layer(Echo));
    let five = limit.layer(breaker.layer(bulkhead.layer(timeout.layer(Echo))));
    measure(criterion, "five layers", deadline::Layer::new(Duration::from_secs(30)).layer(five));

    let policy = Policy::builder(Always::SAFE)
        .timeout(timeout_pattern::Config::default())
        .retry(retry::Config::default(), budget::Config::default())
        .breaker(breaker_pattern::Config::default())
        .bulkhead(bulkhead_pattern::Config::default())
        .build()
        .expect("valid");
    measure(criterion, "policy of five patterns", policy.layer(Echo));
}

criterion_group!(benches, stacks);
criterion_main!(benches);
