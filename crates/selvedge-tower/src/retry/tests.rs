use std::time::Duration;

use selvedge_patterns::outcome::Safety;
use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::testing::{Answer, Honest, Mock, Script, safe};
use crate::{Error, deadline};

const GOOD: (u64, Answer) = (0, Answer::Number(0));
const BAD: (u64, Answer) = (0, Answer::Bad);
const BROKEN: (u64, Answer) = (0, Answer::Break);

fn layer() -> Layer<Honest> {
    Layer::new(Config::default(), budget::Config::default(), Honest).unwrap()
}

async fn call(script: Script) -> (usize, Result<Answer, Error>) {
    let mock = Mock::default();
    let result = layer().layer(mock.clone()).oneshot(script).await;
    assert_eq!(mock.running(), 0);
    (mock.attempts(), result)
}

#[tokio::test(start_paused = true)]
async fn tries_again_until_it_works_or_all_attempts_are_spent() {
    let (attempts, result) = call(safe(&[BAD, BROKEN, GOOD])).await;
    assert_eq!((attempts, result.unwrap()), (3, Answer::Number(3)));
    let (attempts, result) = call(safe(&[BROKEN, BROKEN, BAD, GOOD])).await;
    assert_eq!((attempts, result.unwrap()), (3, Answer::Bad), "the last answer, though a bad one");
    let (attempts, result) = call(safe(&[GOOD])).await;
    assert_eq!((attempts, result.unwrap()), (1, Answer::Number(1)));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_not() {
    let script = Script { safety: Safety::Unsafe, ..safe(&[BROKEN, GOOD]) };
    let (attempts, result) = call(script).await;
    assert_eq!(attempts, 1);
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.reason()), (None, "service_error"));
    let script = Script { safety: Safety::Idempotent, ..safe(&[BROKEN, GOOD]) };
    assert_eq!(call(script).await.0, 2);
}

/// A retry that cannot end in time is not begun: the last error now.
#[tokio::test(start_paused = true)]
async fn never_past_the_deadline() {
    let mock = Mock::default();
    let service =
        deadline::Layer::new(Duration::from_millis(100)).layer(layer().layer(mock.clone()));
    let began = tokio::time::Instant::now();
    let result = service.oneshot(safe(&[(95, Answer::Bad), GOOD])).await;
    assert_eq!((mock.attempts(), result.unwrap()), (1, Answer::Bad));
    assert_eq!(began.elapsed().as_millis(), 95);
}

#[tokio::test(start_paused = true)]
async fn clones_share_one_budget() {
    let mock = Mock::default();
    let budget =
        budget::Config { per_second: 1, window: Duration::from_secs(1), ..Default::default() };
    let service = Layer::new(Config::default(), budget, Honest).unwrap().layer(mock.clone());
    for _ in 0..50 {
        let _ = service.clone().oneshot(safe(&[BROKEN])).await;
    }
    let retries = mock.attempts() - 50;
    assert!((1..=5).contains(&retries), "{retries} extra attempts for 50 failed calls");
}
