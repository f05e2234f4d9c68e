use std::time::Duration;

use selvedge_patterns::hedge::Delay;
use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::testing::{Answer, Honest, Mock, Script, safe};

fn config() -> Config {
    Config { delay: Delay::Fixed(Duration::from_millis(10)), ..Config::default() }
}

async fn call(config: Config, script: Script) -> (Mock, Duration, Result<Answer, Error>) {
    let mock = Mock::default();
    let service = Layer::new(config, Honest).unwrap().layer(mock.clone());
    let began = tokio::time::Instant::now();
    let result = service.oneshot(script).await;
    assert_eq!(mock.running(), 0, "the loser was cancelled");
    (mock, began.elapsed(), result)
}

#[tokio::test(start_paused = true)]
async fn a_fast_call_is_not_hedged() {
    let (mock, took, result) = call(config(), safe(&[(9, Answer::Number(0))])).await;
    assert_eq!((mock.attempts(), took.as_millis(), result.unwrap()), (1, 9, Answer::Number(1)));
}

#[tokio::test(start_paused = true)]
async fn the_second_wins_over_a_slow_first() {
    let (mock, took, result) =
        call(config(), safe(&[(500, Answer::Number(0)), (5, Answer::Number(0))])).await;
    assert_eq!((mock.attempts(), took.as_millis(), result.unwrap()), (2, 15, Answer::Number(2)));
}

#[tokio::test(start_paused = true)]
async fn a_bad_second_does_not_beat_a_good_first() {
    let (mock, took, result) =
        call(config(), safe(&[(30, Answer::Number(0)), (5, Answer::Bad)])).await;
    assert_eq!((mock.attempts(), took.as_millis(), result.unwrap()), (2, 30, Answer::Number(1)));
}

#[tokio::test(start_paused = true)]
async fn two_failures_are_a_failure() {
    let (mock, took, result) = call(config(), safe(&[(30, Answer::Break), (5, Answer::Bad)])).await;
    assert_eq!((mock.attempts(), took.as_millis()), (2, 30));
    assert!(result.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_early_failure_is_left_to_the_retry_above() {
    let (mock, took, result) =
        call(config(), safe(&[(5, Answer::Bad), (0, Answer::Number(0))])).await;
    assert_eq!((mock.attempts(), took.as_millis(), result.unwrap()), (1, 5, Answer::Bad));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_safe_is_sent_once() {
    for safety in [Safety::Unsafe, Safety::Idempotent] {
        let script = Script { safety, ..safe(&[(500, Answer::Number(0))]) };
        assert_eq!(call(config(), script).await.0.attempts(), 1, "{safety:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_most_as_many_as_allowed() {
    let slow = safe(&[(500, Answer::Number(0))]);
    assert_eq!(call(config(), slow.clone()).await.0.attempts(), 2);
    let (mock, took, _) = call(Config { extra_max: 3, ..config() }, slow).await;
    assert_eq!((mock.attempts(), took.as_millis()), (4, 500));
}

#[tokio::test(start_paused = true)]
async fn clones_share_what_is_saved_up() {
    let mock = Mock::default();
    let service = Layer::new(Config { burst: 2, share: 0.0, ..config() }, Honest)
        .unwrap()
        .layer(mock.clone());
    for _ in 0..5 {
        service.clone().oneshot(safe(&[(50, Answer::Number(0))])).await.unwrap();
    }
    assert_eq!(mock.attempts(), 7, "five, and two hedges");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_call_drops_both_attempts() {
    let mock = Mock::default();
    let service = Layer::new(config(), Honest).unwrap().layer(mock.clone());
    let call = service.oneshot(safe(&[(0, Answer::Never)]));
    tokio::time::timeout(Duration::from_millis(50), call).await.unwrap_err();
    assert_eq!((mock.attempts(), mock.running()), (2, 0));
}
