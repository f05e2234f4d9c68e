use std::sync::Mutex;

use selvedge_patterns::breaker::State as Circuit;
use selvedge_patterns::hedge::Delay;
use selvedge_patterns::outcome::Safety;
use selvedge_patterns::service::Change;
use tower::{Layer as _, ServiceExt as _};

use super::*;
use crate::testing::{Answer, Honest, Mock, Script, safe};
use crate::{Origin, Rejected, deadline as outer_deadline};

const GOOD: (u64, Answer) = (0, Answer::Number(0));
const BROKEN: (u64, Answer) = (0, Answer::Break);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn timeouts(attempt: u64, total: u64) -> timeout::Config {
    let connect = ms(attempt);
    timeout::Config {
        connect,
        attempt: Some(ms(attempt)),
        total: Some(ms(total)),
        ..Default::default()
    }
}

fn builder() -> Builder<Honest> {
    Policy::builder(Honest).timeout(timeouts(100, 1_000))
}

#[test]
fn any_order_but_the_documented_one_is_refused() {
    let order = |outer, inner| Err(BuildError::Order { outer, inner });
    let built = |builder: Builder<Honest>| builder.build().map(drop);
    let start = || Policy::builder(Honest);
    let breaker = breaker::Config::default();
    let bulkhead = bulkhead::Config::default();
    let retry = |builder: Builder<Honest>| {
        builder.retry(retry::Config::default(), budget::Config::default())
    };
    assert_eq!(built(retry(start()).breaker(breaker).bulkhead(bulkhead)), Ok(()));
    assert_eq!(built(retry(start().breaker(breaker))), order("breaker", "retry"));
    assert_eq!(built(start().bulkhead(bulkhead).breaker(breaker)), order("bulkhead", "breaker"));
    assert_eq!(
        built(start().hedge(hedge::Config::default()).timeout(timeouts(1, 1))),
        order("hedge", "timeout")
    );
    assert_eq!(
        built(start().breaker(breaker).breaker(breaker)),
        Err(BuildError::Twice { part: "breaker" })
    );
}

#[test]
fn configurations_that_contradict_each_other_are_refused() {
    let error = Policy::builder(Honest).timeout(timeouts(2_000, 1_000)).build().unwrap_err();
    let BuildError::Config(error) = error else { panic!("{error}") };
    assert_eq!((error.part, error.error.key), ("timeout", "attempt"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_attempt_is_given_up_and_tried_again() {
    let mock = Mock::default();
    let policy =
        builder().retry(retry::Config::default(), budget::Config::default()).build().unwrap();
    let answer = policy.layer(mock.clone()).oneshot(safe(&[(0, Answer::Never), GOOD])).await;
    assert_eq!((mock.attempts(), mock.running(), answer.unwrap()), (2, 0, Answer::Number(2)));
}

#[tokio::test(start_paused = true)]
async fn without_a_retry_a_slow_attempt_is_a_timeout() {
    let policy = builder().build().unwrap();
    let began = tokio::time::Instant::now();
    let error =
        policy.layer(Mock::default()).oneshot(safe(&[(0, Answer::Never)])).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { limit } if limit == ms(100)), "{error}");
    assert_eq!(began.elapsed(), ms(100));
}

#[tokio::test(start_paused = true)]
async fn the_total_ends_everything() {
    let mock = Mock::default();
    let retry = retry::Config { attempts: 16, ..Default::default() };
    let policy =
        Policy::builder(Honest).timeout(timeouts(150, 200)).retry(retry, budget::Config::default());
    let began = tokio::time::Instant::now();
    let result =
        policy.build().unwrap().layer(mock.clone()).oneshot(safe(&[(0, Answer::Never)])).await;
    let error = result.unwrap_err();
    assert!(began.elapsed() <= ms(200), "{:?}", began.elapsed());
    assert!(matches!(error, Error::TimedOut { .. } | Error::DeadlinePassed { .. }), "{error}");
    assert_eq!(mock.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_set_further_out_counts() {
    let policy = builder().build().unwrap();
    let service = outer_deadline::Layer::new(ms(30)).layer(policy.layer(Mock::default()));
    let began = tokio::time::Instant::now();
    let error = service.oneshot(safe(&[(0, Answer::Never)])).await.unwrap_err();
    assert_eq!(
        (began.elapsed(), error.reason(), error.origin()),
        (ms(30), "deadline_passed", Origin::Client)
    );
}

/// An open breaker ends the call: it is neither slept on nor tried again.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_not_retried() {
    let mock = Mock::default();
    let events = Arc::new(Mutex::new(Vec::new()));
    let policy = builder()
        .retry(retry::Config::default(), budget::Config::default())
        .breaker(breaker::Config { consecutive: Some(2), ..Default::default() })
        .on_event({
            let events = Arc::clone(&events);
            move |event| events.lock().unwrap().push(event.change)
        })
        .build()
        .unwrap();
    let service = policy.layer(mock.clone());
    service.clone().oneshot(safe(&[BROKEN])).await.unwrap_err();
    assert_eq!(mock.attempts(), 2, "the second failure opened it, so there was no third");
    let began = tokio::time::Instant::now();
    let error = service.oneshot(safe(&[GOOD])).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.origin(), mock.attempts()),
        ("circuit_open", Origin::Selvedge, 2)
    );
    assert!(error.retry_after().is_some() && began.elapsed().is_zero());
    let events = events.lock().unwrap();
    assert!(
        matches!(events.first(), Some(Change::Breaker(transition)) if transition.to == Circuit::Open),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_endpoint() {
    let mocks = [Mock::default(), Mock::default()];
    let service = builder()
        .retry(retry::Config::default(), budget::Config::default())
        .over(mocks.iter().map(|mock| (mock.clone(), 1)))
        .unwrap();
    for _ in 0..20 {
        // Whichever is asked first fails its first attempt.
        let script = Script { safety: Safety::Safe, ..safe(&[BROKEN, GOOD]) };
        let _ = service.clone().oneshot(script).await;
        if mocks.iter().all(|mock| mock.attempts() > 0) {
            return;
        }
    }
    panic!("one endpoint got it all");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_goes_to_another_endpoint_and_the_loser_is_dropped() {
    let mocks = [Mock::default(), Mock::default()];
    let service = builder()
        .hedge(hedge::Config { delay: Delay::Fixed(ms(10)), ..Default::default() })
        .over(mocks.iter().map(|mock| (mock.clone(), 1)))
        .unwrap();
    let began = tokio::time::Instant::now();
    let answer = service.oneshot(safe(&[(50, Answer::Number(0))])).await;
    assert_eq!((answer.unwrap(), began.elapsed()), (Answer::Number(1), ms(50)));
    assert_eq!(mocks.each_ref().map(Mock::attempts), [1, 1]);
    assert_eq!(mocks.each_ref().map(Mock::running), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn callers_queue_for_the_bulkhead_and_are_let_in() {
    let mock = Mock::default();
    let bulkhead =
        bulkhead::Config { max_in_flight: 1, queue: 1, queue_for: ms(80), ..Default::default() };
    let policy = builder().bulkhead(bulkhead).build().unwrap();
    let service = policy.layer(mock.clone());
    let call = || tokio::spawn(service.clone().oneshot(safe(&[(30, Answer::Number(0))])));
    let (one, two, three) = (call(), call(), call());
    one.await.unwrap().unwrap();
    two.await.unwrap().unwrap();
    let error = three.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), "bulkhead_queue_full");
    assert_eq!(policy.patterns().in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_bulkhead_ends() {
    let bulkhead =
        bulkhead::Config { max_in_flight: 1, queue: 1, queue_for: ms(20), ..Default::default() };
    let policy = builder().bulkhead(bulkhead).build().unwrap();
    let service = policy.layer(Mock::default());
    let _running = tokio::spawn(service.clone().oneshot(safe(&[(90, Answer::Number(0))])));
    tokio::task::yield_now().await;
    let began = tokio::time::Instant::now();
    let error = service.oneshot(safe(&[GOOD])).await.unwrap_err();
    assert_eq!((error.reason(), began.elapsed()), ("bulkhead_queue_timeout", ms(20)));
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_point_everything_comes_back() {
    let mock = Mock::default();
    let bulkhead =
        bulkhead::Config { max_in_flight: 1, queue: 4, queue_for: ms(80), ..Default::default() };
    let policy = builder()
        .retry(retry::Config::default(), budget::Config::default())
        .breaker(breaker::Config::default())
        .bulkhead(bulkhead)
        .build()
        .unwrap();
    let service = policy.layer(mock.clone());
    for patience in [0, 5, 15, 25] {
        // One runs, one waits in the queue, one is between two attempts.
        let scripts = [safe(&[(0, Answer::Never)]), safe(&[BROKEN]), safe(&[(10, Answer::Bad)])];
        let calls: Vec<_> = scripts
            .into_iter()
            .map(|script| tokio::spawn(service.clone().oneshot(script)))
            .collect();
        tokio::time::sleep(ms(patience)).await;
        for call in calls {
            call.abort();
            let _ = call.await;
        }
        assert_eq!((policy.patterns().in_flight(), mock.running()), (0, 0), "after {patience} ms");
    }
    service.oneshot(safe(&[GOOD])).await.unwrap();
}

/// A server clones its service for each connection.
#[tokio::test(start_paused = true)]
async fn services_and_clones_share_one_state() {
    let policy = builder()
        .breaker(breaker::Config { consecutive: Some(2), ..Default::default() })
        .build()
        .unwrap();
    let (one, other) = (policy.layer(Mock::default()), policy.clone().layer(Mock::default()));
    one.clone().oneshot(safe(&[BROKEN])).await.unwrap_err();
    other.clone().oneshot(safe(&[BROKEN])).await.unwrap_err();
    let Err(Error::Rejected(Rejected::Call(rejected))) = one.clone().oneshot(safe(&[GOOD])).await
    else {
        panic!("two failures in a row, by whichever clone, open the breaker");
    };
    assert_eq!(rejected.reason.code(), "circuit_open");
}
