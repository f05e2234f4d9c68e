use tower::{Layer as _, ServiceExt as _, service_fn};

use super::*;
use crate::testing::{Answer, Honest, Mock, Script, safe};

const STALE: Answer = Answer::Number(99);

fn last_good(answers_max: usize) -> Layer<Honest, Script, Answer> {
    // The key is the first pause: any property of the request would do.
    let key = |script: &Script| Some(script.attempts[0].0.as_millis() as u64);
    Layer::last_good(Honest, Duration::from_secs(60), answers_max, key, |_, _| STALE).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_stands_in_until_it_is_too_old() {
    let service = last_good(10).layer(Mock::default());
    let script = safe(&[(0, Answer::Number(0)), (0, Answer::Bad), (0, Answer::Break)]);
    let call = || service.clone().oneshot(script.clone());
    assert_eq!(call().await.unwrap(), Answer::Number(1));
    assert_eq!(call().await.unwrap(), STALE, "instead of a failed response");
    assert_eq!(call().await.unwrap(), STALE, "instead of an error");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(call().await.unwrap(), STALE, "at its bound");
    tokio::time::advance(Duration::from_millis(1)).await;
    call().await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn only_what_has_no_effect_is_answered_from_memory() {
    let service = last_good(10).layer(Mock::default());
    let script = Script {
        safety: Safety::Idempotent,
        ..safe(&[(0, Answer::Number(0)), (0, Answer::Break)])
    };
    service.clone().oneshot(script.clone()).await.unwrap();
    service.oneshot(script).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn the_oldest_answer_makes_room() {
    let service = last_good(2).layer(Mock::default());
    for key in [1, 2, 3] {
        let good = safe(&[(key, Answer::Number(0))]);
        service.clone().oneshot(good).await.unwrap();
    }
    let broken = |key| service.clone().oneshot(safe(&[(key, Answer::Break)]));
    broken(1).await.unwrap_err();
    assert_eq!(broken(2).await.unwrap(), STALE);
    assert_eq!(broken(3).await.unwrap(), STALE);
}

#[tokio::test]
async fn a_fixed_answer_knows_the_error() {
    let down = service_fn(|_: Script| async { Err::<Answer, _>(std::io::Error::other("down")) });
    let layer = Layer::fixed(Honest, |error| {
        assert_eq!(error.reason(), "service_error");
        STALE
    });
    assert_eq!(layer.layer(down).oneshot(safe(&[(0, Answer::Number(0))])).await.unwrap(), STALE);
}

#[test]
fn a_fallback_that_never_falls_back_is_refused() {
    let layer = Layer::<Honest, Script, Answer>::last_good(
        Honest,
        Duration::ZERO,
        1,
        |_| None,
        |answer, _| answer,
    );
    assert_eq!(layer.unwrap_err().key, "stale_for");
}
