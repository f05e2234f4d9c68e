use std::time::Duration;

use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::testing::{Answer, Mock, safe};

fn layer(max_in_flight: u32, queue: u32) -> Layer {
    Layer::new(Config {
        max_in_flight,
        queue,
        queue_for: Duration::from_millis(50),
        ..Config::default()
    })
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_waits_runs_when_there_is_room() {
    let mock = Mock::default();
    let layer = layer(1, 2);
    let service = layer.layer(mock.clone());
    let call = |ms| tokio::spawn(service.clone().oneshot(safe(&[(ms, Answer::Number(0))])));
    let began = tokio::time::Instant::now();
    let (one, two, three) = (call(20), call(20), call(20));
    tokio::task::yield_now().await;
    assert_eq!((layer.view().in_flight, layer.view().queued, mock.running()), (1, 2, 1));
    let error = service.clone().oneshot(safe(&[(0, Answer::Number(0))])).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Some("SV0207"), "bulkhead_queue_full"));
    for call in [one, two, three] {
        call.await.unwrap().unwrap();
    }
    assert_eq!(began.elapsed().as_millis() / 10, 6, "one after the other");
    assert_eq!((layer.view().in_flight, layer.view().queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends() {
    let layer = layer(1, 2);
    let service = layer.layer(Mock::default());
    let _running = tokio::spawn(service.clone().oneshot(safe(&[(500, Answer::Number(0))])));
    tokio::task::yield_now().await;
    let began = tokio::time::Instant::now();
    let error = service.clone().oneshot(safe(&[(0, Answer::Number(0))])).await.unwrap_err();
    assert_eq!((error.reason(), began.elapsed().as_millis()), ("bulkhead_queue_timeout", 50));
    assert_eq!(layer.view().queued, 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_comes_back_however_the_call_ends() {
    let layer = layer(1, 0);
    let service = layer.layer(Mock::default());
    service.clone().oneshot(safe(&[(0, Answer::Break)])).await.unwrap_err();
    assert_eq!(layer.view().in_flight, 0, "an error");
    let call = service.clone().oneshot(safe(&[(0, Answer::Never)]));
    tokio::time::timeout(Duration::from_millis(1), call).await.unwrap_err();
    assert_eq!(layer.view().in_flight, 0, "dropped");
    let never_polled = {
        let mut ready = service.clone();
        tower_service::Service::call(&mut ready, safe(&[(0, Answer::Number(0))]))
    };
    assert_eq!(layer.view().in_flight, 1);
    drop(never_polled);
    assert_eq!(layer.view().in_flight, 0, "dropped before it began");
}

#[tokio::test(start_paused = true)]
async fn one_who_gives_up_waiting_holds_up_nobody() {
    let layer = layer(1, 2);
    let service = layer.layer(Mock::default());
    let running = tokio::spawn(service.clone().oneshot(safe(&[(30, Answer::Number(0))])));
    tokio::task::yield_now().await;
    let impatient = service.clone().oneshot(safe(&[(0, Answer::Never)]));
    let patient = tokio::spawn(service.clone().oneshot(safe(&[(0, Answer::Number(0))])));
    tokio::time::timeout(Duration::from_millis(10), impatient).await.unwrap_err();
    running.await.unwrap().unwrap();
    patient.await.unwrap().unwrap();
    assert_eq!((layer.view().in_flight, layer.view().queued), (0, 0));
}
