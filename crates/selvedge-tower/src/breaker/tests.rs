use std::sync::Mutex;
use std::time::Duration;

use selvedge_patterns::breaker::State as Circuit;
use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::Origin;
use crate::testing::{Answer, Honest, Mock, safe};

fn layer() -> Layer<Honest> {
    let config = Config { consecutive: Some(3), probes: 1, jitter: 0.0, ..Config::default() };
    Layer::new(config, Honest).unwrap()
}

#[tokio::test(start_paused = true)]
async fn opens_rejects_probes_and_closes_over_all_clones() {
    let mock = Mock::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let layer = layer().on_transition({
        let seen = Arc::clone(&seen);
        move |transition| seen.lock().unwrap().push(transition.to)
    });
    let service = layer.layer(mock.clone());
    let call = |answer| service.clone().oneshot(safe(&[(0, answer)]));
    for _ in 0..3 {
        call(Answer::Bad).await.unwrap();
    }
    let error = call(Answer::Number(0)).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.origin(), error.retryable()),
        ("circuit_open", Origin::Selvedge, true)
    );
    assert_eq!(error.retry_after(), Some(Duration::from_secs(5)));
    assert_eq!(mock.attempts(), 3, "the service never saw it");
    tokio::time::advance(Duration::from_secs(5)).await;
    call(Answer::Number(0)).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [Circuit::Open, Circuit::HalfOpen, Circuit::Closed]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_makes_room_for_another() {
    let layer = layer();
    let service = layer.layer(Mock::default());
    for _ in 0..3 {
        service.clone().oneshot(safe(&[(0, Answer::Break)])).await.unwrap_err();
    }
    tokio::time::advance(Duration::from_secs(5)).await;
    let probe = service.clone().oneshot(safe(&[(0, Answer::Never)]));
    tokio::time::timeout(Duration::from_millis(1), probe).await.unwrap_err();
    assert_eq!(layer.view().state, Circuit::HalfOpen);
    service.clone().oneshot(safe(&[(0, Answer::Number(0))])).await.unwrap();
    assert_eq!(layer.view().state, Circuit::Closed);
}

#[tokio::test(start_paused = true)]
async fn what_was_rejected_below_is_nobody_s_failure() {
    let layer = layer();
    let full = crate::bulkhead::Layer::new(selvedge_patterns::bulkhead::Config {
        max_in_flight: 1,
        ..Default::default()
    });
    let service = layer.layer(full.unwrap().layer(Mock::default()));
    let running = tokio::spawn(service.clone().oneshot(safe(&[(50, Answer::Number(0))])));
    tokio::task::yield_now().await;
    for _ in 0..10 {
        let error = service.clone().oneshot(safe(&[(0, Answer::Number(0))])).await.unwrap_err();
        assert_eq!(error.reason(), "bulkhead_full");
    }
    running.await.unwrap().unwrap();
    assert_eq!((layer.view().state, layer.view().counts.calls), (Circuit::Closed, 1));
}

#[tokio::test]
async fn an_operator_can_hold_it_open() {
    let layer = layer();
    let service = layer.layer(Mock::default());
    layer.control(Control::ForceOpen);
    let error = service.clone().oneshot(safe(&[(0, Answer::Number(0))])).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Some("SV0206"), "circuit_forced_open"));
    layer.control(Control::Automatic);
    service.oneshot(safe(&[(0, Answer::Number(0))])).await.unwrap();
}
