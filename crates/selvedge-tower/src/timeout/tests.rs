use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::testing::{Answer, Mock, safe};
use crate::{Origin, deadline};

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_ends_and_is_dropped() {
    let mock = Mock::default();
    let service = Layer::new(Duration::from_millis(50)).layer(mock.clone());
    let began = tokio::time::Instant::now();
    let error = service.oneshot(safe(&[(0, Answer::Never)])).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_millis(50));
    assert!(matches!(error, Error::TimedOut { limit } if limit == Duration::from_millis(50)));
    assert_eq!(
        (error.origin(), error.retryable(), error.reason()),
        (Origin::Upstream, false, "attempt_timeout")
    );
    assert_eq!(mock.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_fast_one_passes_even_at_the_last_moment() {
    let service = Layer::new(Duration::from_millis(50)).layer(Mock::default());
    let answer = service.oneshot(safe(&[(50, Answer::Number(0))])).await;
    assert_eq!(answer.unwrap(), Answer::Number(1));
}

#[tokio::test(start_paused = true)]
async fn what_the_deadline_cuts_short_has_not_timed_out() {
    let service = Layer::new(Duration::from_millis(50)).layer(Mock::default());
    let service = deadline::Layer::new(Duration::from_millis(20)).layer(service);
    let error = service.oneshot(safe(&[(0, Answer::Never)])).await.unwrap_err();
    assert!(matches!(error, Error::DeadlinePassed { .. }), "{error}");
}

#[tokio::test]
async fn errors_from_below_keep_their_source() {
    let service = Layer::new(Duration::from_millis(50)).layer(Mock::default());
    let error = Layer::new(Duration::from_millis(90))
        .layer(service)
        .oneshot(safe(&[(0, Answer::Break)]))
        .await;
    let Err(Error::Service(source)) = error else { panic!("the service's own error") };
    assert_eq!(source.to_string(), "broken", "not wrapped twice");
}
