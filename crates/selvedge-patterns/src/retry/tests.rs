use super::*;
use crate::random::SplitMix64;

const TRIED: Tried = Tried { attempts: 1, safety: Safety::Safe, replayable: true };
const fn failed(failure: Failure) -> Outcome {
    Outcome::Failure(failure)
}
const OVERLOAD: Outcome = Outcome::Overload { retry_after: None };

/// Catalogue vector "http-429": 4xx never, 429, 5xx, timeout and refused yes.
#[test]
fn what_is_tried_again() {
    let config = Config::default();
    for outcome in [
        failed(Failure::Connect),
        failed(Failure::Refused),
        failed(Failure::Reset),
        failed(Failure::Timeout),
        failed(Failure::Gateway),
        failed(Failure::Server),
        failed(Failure::Malformed),
        OVERLOAD,
    ] {
        assert_eq!(config.admit(&TRIED, outcome), Ok(()), "{outcome:?}");
        let off = Config { on: Conditions::NONE, ..config };
        assert_eq!(off.admit(&TRIED, outcome), Err(Rejected::NotRetryable), "{outcome:?}");
    }
    for outcome in [Outcome::Success, Outcome::ClientFault, Outcome::Cancelled, Outcome::Local] {
        assert_eq!(config.admit(&TRIED, outcome), Err(Rejected::NotRetryable), "{outcome:?}");
    }
}

#[test]
fn three_attempts_are_two_retries() {
    let config = Config::default();
    let after = |attempts| config.admit(&Tried { attempts, ..TRIED }, failed(Failure::Server));
    assert_eq!(after(2), Ok(()));
    assert_eq!(after(3), Err(Rejected::Exhausted { attempts: 3 }));
}

/// RFC 9110 §9.2.2: no automatic retry of what is not idempotent, unless
/// provably unprocessed.
#[test]
fn an_unsafe_call_is_repeated_only_if_it_did_nothing() {
    let config = Config::default();
    let post = Tried { safety: Safety::Unsafe, ..TRIED };
    assert_eq!(config.admit(&post, failed(Failure::Connect)), Ok(()));
    assert_eq!(config.admit(&post, failed(Failure::Refused)), Ok(()));
    for outcome in [
        failed(Failure::Reset),
        failed(Failure::Timeout),
        failed(Failure::Gateway),
        failed(Failure::Server),
        failed(Failure::Malformed),
        OVERLOAD,
    ] {
        assert_eq!(config.admit(&post, outcome), Err(Rejected::Unsafe), "{outcome:?}");
    }
    let with_key = Tried { safety: Safety::Idempotent, ..TRIED };
    assert_eq!(config.admit(&with_key, failed(Failure::Timeout)), Ok(()));
}

#[test]
fn a_body_that_is_gone_is_not_sent_again() {
    let config = Config::default();
    let streamed = Tried { replayable: false, ..TRIED };
    assert_eq!(config.admit(&streamed, failed(Failure::Reset)), Err(Rejected::NotReplayable));
    assert_eq!(config.admit(&streamed, failed(Failure::Refused)), Err(Rejected::NotReplayable));
    assert_eq!(config.admit(&streamed, failed(Failure::Connect)), Ok(()), "nothing was sent");
}

#[test]
fn an_overloaded_server_is_given_time() {
    let jitter = backoff::Jitter::None;
    let backoff = backoff::Config { jitter, ..backoff::Config::default() };
    let config = Config { backoff, ..Config::default() };
    let mut rng = SplitMix64::new(1);
    let mut wait = |outcome| config.wait(&mut Backoff::new(), outcome, &mut rng);
    let secs = Duration::from_secs;
    assert_eq!(wait(failed(Failure::Server)), Duration::from_millis(50));
    assert_eq!(wait(OVERLOAD), secs(1));
    assert_eq!(wait(Outcome::Overload { retry_after: Some(secs(3)) }), secs(3));
    assert_eq!(wait(Outcome::Overload { retry_after: Some(secs(0)) }), secs(1));
    assert_eq!(wait(Outcome::Overload { retry_after: Some(secs(3_600)) }), secs(6));
}

#[test]
fn unbounded_attempts_are_refused() {
    let key = |config: Config| config.validate().map_err(|error| error.key);
    assert_eq!(key(Config::default()), Ok(()));
    assert_eq!(key(Config { attempts: 0, ..Config::default() }), Err("attempts"));
    assert_eq!(key(Config { attempts: 17, ..Config::default() }), Err("attempts"));
    let backoff = backoff::Config { cap: Duration::ZERO, ..backoff::Config::default() };
    assert_eq!(key(Config { backoff, ..Config::default() }), Err("backoff.cap"));
}
