use std::time::Duration;

use selvedge_patterns::balance::Algorithm;
use tower::ServiceExt as _;

use super::*;
use crate::testing::{Answer, Honest, Mock, Script, safe};

fn over(mocks: &[Mock], algorithm: Algorithm) -> Service<Mock, Honest> {
    let config = Config { algorithm, ..Config::default() };
    service(config, Some(outlier::Config::default()), Honest, mocks.iter().cloned()).unwrap()
}

fn good() -> Script {
    safe(&[(1, Answer::Number(0))])
}

fn attempts(mocks: &[Mock]) -> Vec<usize> {
    mocks.iter().map(Mock::attempts).collect()
}

#[tokio::test(start_paused = true)]
async fn clones_take_turns_together() {
    let mocks = [Mock::default(), Mock::default(), Mock::default()];
    let service = over(&mocks, Algorithm::RoundRobin);
    for _ in 0..9 {
        service.clone().oneshot(good()).await.unwrap();
    }
    assert_eq!(attempts(&mocks), [3, 3, 3]);
}

fn drain(service: &Service<Mock, Honest>, index: usize, draining: bool) {
    service.patterns().drain(crate::clock::Clock::process().now(), index, draining);
}

#[tokio::test(start_paused = true)]
async fn the_slow_one_gets_less() {
    let mocks = [Mock::default(), Mock::default()];
    let service = over(&mocks, Algorithm::PeakEwma);
    for (index, ms) in [(0, 400), (1, 1)] {
        drain(&service, 1 - index, true);
        service.clone().oneshot(safe(&[(ms, Answer::Number(0))])).await.unwrap();
        drain(&service, 1 - index, false);
    }
    for _ in 0..100 {
        service.clone().oneshot(good()).await.unwrap();
    }
    assert_eq!(attempts(&mocks), [1, 101]);
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_eject_for_a_while() {
    let mocks = [Mock::default(), Mock::default()];
    let service = over(&mocks, Algorithm::RoundRobin);
    drain(&service, 1, true);
    for _ in 0..5 {
        service.clone().oneshot(safe(&[(0, Answer::Bad)])).await.unwrap();
    }
    drain(&service, 1, false);
    assert!(service.view().endpoints[0].outlier.ejected_until.is_some());
    for _ in 0..10 {
        service.clone().oneshot(good()).await.unwrap();
    }
    assert_eq!(attempts(&mocks), [5, 10]);
    tokio::time::advance(Duration::from_secs(31)).await;
    for _ in 0..10 {
        service.clone().oneshot(good()).await.unwrap();
    }
    assert_eq!(attempts(&mocks), [10, 15], "it came back by itself");
}

#[tokio::test(start_paused = true)]
async fn a_drained_endpoint_finishes_and_gets_no_more() {
    let mocks = [Mock::default()];
    let service = over(&mocks, Algorithm::RoundRobin);
    let running = tokio::spawn(service.clone().oneshot(safe(&[(100, Answer::Number(0))])));
    tokio::task::yield_now().await;
    drain(&service, 0, true);
    let error = service.clone().oneshot(good()).await.unwrap_err();
    assert_eq!((error.reason(), error.retryable()), ("no_endpoint", true));
    assert_eq!(error.code(), Some("SV0208"));
    assert_eq!(running.await.unwrap().unwrap(), Answer::Number(1));
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_given_back_and_blames_nobody() {
    let mocks = [Mock::default()];
    let service = over(&mocks, Algorithm::LeastRequest);
    for _ in 0..20 {
        let call = service.clone().oneshot(safe(&[(0, Answer::Never)]));
        tokio::time::timeout(Duration::from_millis(5), call).await.unwrap_err();
    }
    let view = &service.view().endpoints[0];
    assert_eq!((view.pending, view.outlier.consecutive, view.outlier.attempts), (0, 0, 0));
}

#[test]
fn an_empty_set_is_refused_when_it_is_built() {
    let none: [Mock; 0] = [];
    assert_eq!(service(Config::default(), None, Honest, none).unwrap_err(), BuildError::NoEndpoint);
}
