use tower::{Layer as _, ServiceExt as _, service_fn};

use super::*;
use crate::Origin;
use crate::testing::{Answer, Mock, safe};

#[tokio::test(start_paused = true)]
async fn ends_the_call_and_drops_what_runs() {
    let mock = Mock::default();
    let service = Layer::new(Duration::from_secs(2)).layer(mock.clone());
    let error = service.oneshot(safe(&[(0, Answer::Never)])).await.unwrap_err();
    assert!(
        matches!(error, Error::DeadlinePassed { elapsed } if elapsed == Duration::from_secs(2))
    );
    assert_eq!((error.origin(), error.reason()), (Origin::Client, "deadline_passed"));
    assert_eq!(error.code(), Some("SV0213"));
    assert_eq!(mock.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_outer_deadline_that_is_sooner_wins() {
    let service = Layer::new(Duration::from_secs(9)).layer(Mock::default());
    let service = Layer::new(Duration::from_secs(1)).layer(service);
    let began = tokio::time::Instant::now();
    service.oneshot(safe(&[(0, Answer::Never)])).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn too_little_left_is_not_even_tried() {
    let mock = Mock::default();
    let inner = Layer::new(Duration::from_secs(9)).layer(mock.clone());
    // The outer call waits until five milliseconds are left, then calls.
    let outer = service_fn(move |request| {
        let inner = inner.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(995)).await;
            inner.oneshot(request).await
        }
    });
    let error = Layer::new(Duration::from_secs(1))
        .layer(outer)
        .oneshot(safe(&[(0, Answer::Never)]))
        .await
        .unwrap_err();
    let Error::Rejected(Rejected::Deadline { remaining, needed }) = error else {
        panic!("{error}")
    };
    assert_eq!((remaining, needed), (Duration::from_millis(5), Duration::from_millis(10)));
    assert_eq!(mock.attempts(), 0);
}
