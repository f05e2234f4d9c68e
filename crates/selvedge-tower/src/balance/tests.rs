use std::sync::Mutex;
use std::time::Duration;

use selvedge_patterns::balance::Algorithm;
use selvedge_patterns::outlier::Change;
use tower::ServiceExt as _;

use super::*;
use crate::testing::{Answer, Honest, Mock, Script, safe};

fn service(mocks: &[Mock], algorithm: Algorithm) -> Builder<Mock, Honest> {
    let builder = Service::builder(Honest)
        .config(balance::Config { algorithm, ..balance::Config::default() });
    mocks.iter().fold(builder, |builder, mock| builder.endpoint(mock.clone()))
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
    let service = service(&mocks, Algorithm::RoundRobin).build().unwrap();
    for _ in 0..9 {
        service.clone().oneshot(good()).await.unwrap();
    }
    assert_eq!(attempts(&mocks), [3, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn the_slow_one_gets_less() {
    let mocks = [Mock::default(), Mock::default()];
    let service = service(&mocks, Algorithm::PeakEwma).build().unwrap();
    // The first sample of each decides: endpoint 0 is slow.
    let slow = safe(&[(400, Answer::Number(0))]);
    service.drain(1, true);
    service.clone().oneshot(slow).await.unwrap();
    service.drain(1, false);
    service.drain(0, true);
    service.clone().oneshot(good()).await.unwrap();
    service.drain(0, false);
    for _ in 0..100 {
        service.clone().oneshot(good()).await.unwrap();
    }
    assert_eq!(attempts(&mocks), [1, 101]);
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_eject_and_are_reported() {
    let mocks = [Mock::default(), Mock::default()];
    let changes = Arc::new(Mutex::new(Vec::new()));
    let service = service(&mocks, Algorithm::RoundRobin)
        .on_transition({
            let changes = Arc::clone(&changes);
            move |transition| changes.lock().unwrap().push(transition)
        })
        .build()
        .unwrap();
    service.drain(1, true);
    for _ in 0..5 {
        service.clone().oneshot(safe(&[(0, Answer::Bad)])).await.unwrap();
    }
    service.drain(1, false);
    let Some(Change::Ejected { until, .. }) =
        changes.lock().unwrap().first().map(|transition| transition.change)
    else {
        panic!("not ejected");
    };
    for _ in 0..10 {
        service.clone().oneshot(good()).await.unwrap();
    }
    assert_eq!(attempts(&mocks), [5, 10]);
    assert_eq!(service.view().next().unwrap().record.ejected_until, Some(until));

    tokio::time::advance(Duration::from_secs(31)).await;
    for _ in 0..10 {
        service.clone().oneshot(good()).await.unwrap();
    }
    assert_eq!(attempts(&mocks), [10, 15], "it came back by itself");
    assert_eq!(changes.lock().unwrap().last().unwrap().change, Change::Returned);
}

#[tokio::test(start_paused = true)]
async fn a_drained_endpoint_finishes_and_gets_no_more() {
    let mocks = [Mock::default()];
    let service = service(&mocks, Algorithm::RoundRobin).build().unwrap();
    let running = tokio::spawn(service.clone().oneshot(safe(&[(100, Answer::Number(0))])));
    tokio::task::yield_now().await;
    service.drain(0, true);
    let error = service.clone().oneshot(good()).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), ("no_endpoint", true));
    assert_eq!(running.await.unwrap().unwrap(), Answer::Number(1));
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_given_back_and_blames_nobody() {
    let mocks = [Mock::default()];
    let service = service(&mocks, Algorithm::LeastRequest).build().unwrap();
    for _ in 0..20 {
        let call = service.clone().oneshot(safe(&[(0, Answer::Never)]));
        tokio::time::timeout(Duration::from_millis(5), call).await.unwrap_err();
    }
    let view = service.view().next().unwrap();
    assert_eq!((view.pending, view.record.consecutive, view.record.attempts), (0, 0, 0));
}

#[test]
fn an_empty_set_is_refused_when_it_is_built() {
    assert_eq!(service(&[], Algorithm::RoundRobin).build().unwrap_err().key, "endpoints");
}
