use proptest::prelude::*;

use super::*;
use crate::policy::Policy;
use crate::random::SplitMix64;
use crate::service::Target;
use crate::{backoff, balance, breaker, budget, bulkhead, hedge, outlier, retry, timeout};

const T: Instant = Instant::from_millis(1_000_000);
const OK: Outcome = Outcome::Success;
const BAD: Outcome = Outcome::Failure(Failure::Server);
const CONNECT: Outcome = Outcome::Failure(Failure::Connect);
const TIMEOUT: Outcome = Outcome::Failure(Failure::Timeout);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Three attempts, 100 ms apart, no chance in it.
fn retrying() -> Policy {
    let backoff = backoff::Config {
        shape: backoff::Shape::Constant,
        base: ms(100),
        jitter: backoff::Jitter::None,
        ..backoff::Config::default()
    };
    Policy {
        retry: Some(retry::Config { backoff, ..retry::Config::default() }),
        balance: balance::Config {
            algorithm: balance::Algorithm::RoundRobin,
            ..balance::Config::default()
        },
        ..Policy::default()
    }
}

fn one_failure_opens() -> Option<breaker::Config> {
    Some(breaker::Config {
        window: breaker::Window::Calls(10),
        min_calls: 1,
        jitter: 0.0,
        probes: 1,
        ..breaker::Config::default()
    })
}

/// A service, the time it lives in, and luck.
struct Rig {
    service: Service,
    now: Instant,
    rng: SplitMix64,
}

impl Rig {
    fn new(policy: Policy, endpoints: usize) -> Self {
        assert_eq!(policy.problems(), []);
        let targets = (0..endpoints).map(|n| Target::new(format!("10.0.0.{n}:80"))).collect();
        Self { service: Service::new(T, policy, targets, 7), now: T, rng: SplitMix64::new(7) }
    }

    fn begin(&self, safety: Safety) -> Call {
        self.begin_with(Request::new(safety))
    }

    fn begin_with(&self, request: Request) -> Call {
        Call::begin(self.now, &self.service, request)
    }

    fn next(&mut self, call: &mut Call) -> Step {
        call.next(self.now, &self.service, &mut self.rng)
    }

    #[track_caller]
    fn start(&mut self, call: &mut Call) -> Attempt {
        match self.next(call) {
            Step::Start(attempt) => attempt,
            other => panic!("no start but {other:?}: {}", call.trace()),
        }
    }

    #[track_caller]
    fn done(&mut self, call: &mut Call) -> End {
        match self.next(call) {
            Step::Done(end) => end,
            other => panic!("not done but {other:?}: {}", call.trace()),
        }
    }

    #[track_caller]
    fn wait(&mut self, call: &mut Call) -> Duration {
        match self.next(call) {
            Step::Wait { until } => {
                let wait = until.since(self.now);
                self.now = until;
                wait
            }
            other => panic!("no wait but {other:?}: {}", call.trace()),
        }
    }

    fn settle(&self, call: &mut Call, attempt: Attempt, outcome: Outcome) {
        call.settle(self.now, &self.service, attempt.number, outcome);
    }

    fn finish(&self, mut call: Call) {
        call.finish(self.now, &self.service);
        call.finish(self.now, &self.service);
    }

    /// Start, end and be done with it.
    #[track_caller]
    fn whole(&mut self, safety: Safety, took: Duration, outcome: Outcome) -> End {
        let mut call = self.begin(safety);
        let attempt = self.start(&mut call);
        self.now = self.now + took;
        self.settle(&mut call, attempt, outcome);
        let end = self.done(&mut call);
        self.finish(call);
        end
    }

    fn state(&self, endpoint: usize) -> breaker::State {
        let breaker = self.service.endpoints()[endpoint].breaker().expect("the policy has one");
        breaker.view(self.now).state
    }

    /// Nothing is out, nothing is held.
    #[track_caller]
    fn assert_all_given_back(&self) {
        let view = self.service.view(self.now);
        assert_eq!(view.in_flight, 0);
        assert_eq!(view.bulkhead.map_or(0, |bulkhead| bulkhead.in_flight + bulkhead.queued), 0);
        assert_eq!(view.budget.map_or(0, |budget| budget.extra_in_flight), 0);
    }
}

fn answered(number: u32, outcome: Outcome) -> End {
    End::Answered { number, outcome: Some(outcome) }
}

#[track_caller]
fn reason(end: End) -> Reason {
    match end {
        End::Rejected(rejected) => rejected.reason,
        End::Answered { .. } => panic!("answered: {end:?}"),
    }
}

#[test]
fn a_good_answer_ends_the_call() {
    let mut rig = Rig::new(retrying(), 1);
    let mut call = rig.begin(Safety::Safe);
    let attempt = rig.start(&mut call);
    assert_eq!((attempt.number, attempt.endpoint, attempt.kind), (1, 0, Kind::First));
    assert_eq!(attempt.deadline, T + Duration::from_secs(10));
    assert_eq!(rig.next(&mut call), Step::Idle { until: attempt.deadline });
    rig.settle(&mut call, attempt, OK);
    assert_eq!(rig.done(&mut call), answered(1, OK));
    assert_eq!(rig.service.in_flight(), 1, "its body is still being sent");
    rig.finish(call);
    rig.assert_all_given_back();
}

/// Catalogue vector "retry-worst" and V22: three attempts in all, then the last failure.
#[test]
fn a_failure_is_tried_again_elsewhere() {
    let mut rig = Rig::new(retrying(), 3);
    let mut call = rig.begin(Safety::Safe);
    let mut endpoints = Vec::new();
    for round in 1..=3 {
        let attempt = rig.start(&mut call);
        endpoints.push(attempt.endpoint);
        assert_eq!(attempt.number, round);
        assert_eq!(attempt.kind, if round == 1 { Kind::First } else { Kind::Retry });
        rig.settle(&mut call, attempt, BAD);
        if round < 3 {
            assert_eq!(rig.wait(&mut call), ms(100));
        }
    }
    endpoints.sort_unstable();
    assert_eq!(endpoints, [0, 1, 2]);
    assert_eq!(rig.done(&mut call), answered(3, BAD));
    rig.finish(call);
    rig.assert_all_given_back();
}

#[test]
fn with_one_endpoint_the_same_is_tried_again() {
    let mut rig = Rig::new(retrying(), 1);
    let mut call = rig.begin(Safety::Safe);
    let attempt = rig.start(&mut call);
    rig.settle(&mut call, attempt, BAD);
    rig.wait(&mut call);
    assert_eq!(rig.start(&mut call).endpoint, 0);
    rig.finish(call);
}

/// Resilience §6 rule 1: the breaker sees every attempt, hedges too, and no
/// local rejection is put down to an endpoint by any layer.
#[test]
fn rule_1_local_rejections_are_nobodys_failure() {
    let bulkhead = bulkhead::Config { max_in_flight: 1, ..bulkhead::Config::default() };
    let policy = Policy {
        bulkhead: Some(bulkhead),
        breaker: one_failure_opens(),
        outlier: Some(outlier::Config { consecutive: Some(1), ..outlier::Config::default() }),
        ..retrying()
    };
    let mut rig = Rig::new(policy, 1);
    let mut first = rig.begin(Safety::Safe);
    rig.start(&mut first);
    for _ in 0..10 {
        let mut turned_away = rig.begin(Safety::Safe);
        let end = rig.done(&mut turned_away);
        assert_eq!(reason(end), Reason::Bulkhead(bulkhead::Reason::Full));
        rig.finish(turned_away);
    }
    rig.finish(first);
    let mut local = rig.begin(Safety::Safe);
    let attempt = rig.start(&mut local);
    rig.settle(&mut local, attempt, Outcome::Local);
    assert_eq!(rig.done(&mut local), answered(1, Outcome::Local));
    rig.finish(local);
    assert_eq!(rig.state(0), breaker::State::Closed);
    let view = rig.service.view(rig.now);
    assert_eq!(view.endpoints[0].breaker.unwrap().counts.calls, 0);
    assert_eq!(view.endpoints[0].latency, None, "never fed to the balancer");
    assert_eq!(view.endpoints[0].outlier.attempts, 0);
    assert_eq!(rig.service.take_event(), None);
    rig.assert_all_given_back();
}

/// Resilience §6 rule 1, the other half.
#[test]
fn rule_1_the_breaker_sees_every_attempt() {
    let hedge = hedge::Config { delay: hedge::Delay::Fixed(ms(50)), ..hedge::Config::default() };
    let breaker = breaker::Config { min_calls: 100, ..one_failure_opens().unwrap() };
    let breaker = breaker::Config { window: breaker::Window::Calls(100), ..breaker };
    let mut rig = Rig::new(Policy { hedge: Some(hedge), breaker: Some(breaker), ..retrying() }, 2);
    let mut call = rig.begin(Safety::Safe);
    let first = rig.start(&mut call);
    rig.now = rig.now + ms(50);
    let second = rig.start(&mut call);
    rig.settle(&mut call, first, BAD);
    rig.settle(&mut call, second, BAD);
    rig.wait(&mut call);
    let third = rig.start(&mut call);
    rig.settle(&mut call, third, OK);
    rig.finish(call);
    let counts = rig.service.view(rig.now).endpoints;
    let counts = counts.iter().map(|endpoint| endpoint.breaker.unwrap().counts);
    assert_eq!(
        counts
            .map(|counts| (counts.calls, counts.failed))
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
        (3, 2)
    );
}

/// Resilience §6 rule 2, catalogue F2: an open breaker is never slept on; a
/// retry goes elsewhere or nowhere.
#[test]
fn rule_2_an_open_breaker_is_never_slept_on() {
    let policy = Policy { breaker: one_failure_opens(), ..retrying() };
    let mut rig = Rig::new(policy.clone(), 1);
    let mut call = rig.begin(Safety::Safe);
    let attempt = rig.start(&mut call);
    rig.settle(&mut call, attempt, BAD);
    assert_eq!(rig.state(0), breaker::State::Open);
    assert_eq!(rig.done(&mut call), answered(1, BAD), "no wait, no retry");
    rig.finish(call);

    let mut call = rig.begin(Safety::Safe);
    match rig.done(&mut call) {
        End::Rejected(Rejected { reason, retry_after, last }) => {
            assert_eq!(reason, Reason::CircuitOpen);
            assert_eq!(retry_after, Some(Duration::from_secs(5)));
            assert_eq!(last, None);
        }
        end @ End::Answered { .. } => panic!("{end:?}"),
    }
    let (state, failed, calls) = (breaker::State::Open, 1, 1);
    let why = Decision::CircuitOpen { endpoint: 0, state, failed, calls };
    assert!(call.trace().notes().any(|note| note.decision == why), "{}", call.trace());
    let rejected = rig.service.view(rig.now).endpoints[0].breaker.unwrap().rejected;
    assert_eq!(rejected, 2, "the retry and the call");
    rig.finish(call);

    let mut rig = Rig::new(policy, 2);
    let mut call = rig.begin(Safety::Safe);
    let first = rig.start(&mut call);
    rig.settle(&mut call, first, BAD);
    rig.wait(&mut call);
    let second = rig.start(&mut call);
    assert_ne!(first.endpoint, second.endpoint);
    rig.settle(&mut call, second, OK);
    assert_eq!(rig.done(&mut call), answered(2, OK));
    rig.finish(call);
    rig.assert_all_given_back();
}

/// Catalogue F2: the circuit may open while a retry waits.
#[test]
fn rule_2_a_circuit_that_opens_meanwhile_ends_the_call() {
    let mut rig = Rig::new(
        Policy {
            breaker: one_failure_opens(),
            budget: Some(budget::Config::default()),
            ..retrying()
        },
        2,
    );
    let mut call = rig.begin(Safety::Safe);
    let attempt = rig.start(&mut call);
    rig.settle(&mut call, attempt, BAD);
    rig.wait(&mut call);
    rig.service.control_breaker(rig.now, 1 - attempt.endpoint, breaker::Control::ForceOpen);
    match rig.done(&mut call) {
        End::Rejected(Rejected { reason: Reason::CircuitOpen, last, .. }) => {
            assert_eq!(last, Some(1))
        }
        other => panic!("{other:?}"),
    }
    let before = rig.service.view(rig.now).budget.unwrap().balance_millionths;
    assert_eq!(before, 100_000_000, "what was not sent costs nothing");
    rig.finish(call);
    rig.assert_all_given_back();
}

/// Resilience §6 rule 3: what counts against an endpoint and what does not.
#[test]
fn rule_3_the_callers_fault_and_a_cancelled_call_count_for_nothing() {
    let mut rig = Rig::new(Policy { breaker: one_failure_opens(), ..retrying() }, 1);
    assert_eq!(
        rig.whole(Safety::Safe, ms(1), Outcome::ClientFault),
        answered(1, Outcome::ClientFault)
    );
    let mut call = rig.begin(Safety::Safe);
    rig.start(&mut call);
    rig.finish(call);
    let view = rig.service.view(rig.now).endpoints[0].breaker.unwrap();
    assert_eq!((view.state, view.counts.calls), (breaker::State::Closed, 0));
}

/// Resilience §6 rule 3: an attempt timeout is a failure; an attempt that only
/// the deadline cut short, sooner than half of all would have ended, is not.
#[test]
fn rule_3_a_young_attempt_cut_by_the_deadline_is_excluded() {
    let policy = Policy {
        timeout: timeout::Config::fitting(Some(ms(400)), None),
        breaker: Some(breaker::Config { min_calls: 1_000, ..breaker::Config::default() }),
        ..Policy::default()
    };
    let mut rig = Rig::new(policy, 1);
    // Half of all take 200 ms: learnt over one whole period.
    for _ in 0..100 {
        rig.whole(Safety::Safe, ms(200), OK);
    }
    let usual = rig.service.usual_latency(rig.now).expect("a period has passed");
    assert!((ms(180)..=ms(220)).contains(&usual), "{usual:?}");
    let failed = |rig: &Rig| rig.service.view(rig.now).endpoints[0].breaker.unwrap().counts.failed;

    let mut young = rig.begin(Safety::Safe);
    let mut late =
        rig.begin_with(Request { deadline: Some(rig.now + ms(300)), ..Request::new(Safety::Safe) });
    rig.start(&mut late);
    rig.now = rig.now + ms(300);
    assert_eq!(reason(rig.done(&mut late)), Reason::Deadline);
    assert_eq!(failed(&rig), 1, "half of all would have ended");
    let attempt = rig.start(&mut young);
    rig.now = rig.now + ms(400);
    assert_eq!(rig.next(&mut young), Step::Cancel(attempt.number));
    assert_eq!(rig.done(&mut young), answered(1, TIMEOUT));
    assert_eq!(failed(&rig), 2, "an attempt timeout is a failure");

    let mut cut = rig.begin_with(Request {
        deadline: Some(rig.now + usual + ms(1)),
        ..Request::new(Safety::Safe)
    });
    rig.start(&mut cut);
    rig.now = rig.now + usual + ms(1);
    // Cut short by the deadline just past the usual: a failure like the first.
    rig.done(&mut cut);
    assert_eq!(failed(&rig), 3);
    [late, young, cut].into_iter().for_each(|call| rig.finish(call));
    rig.assert_all_given_back();
}

/// Resilience §6 rule 4: what may be repeated, and what may be hedged.
#[test]
fn rule_4_only_idempotent_calls_are_repeated() {
    let hedge = hedge::Config { delay: hedge::Delay::Fixed(ms(50)), ..hedge::Config::default() };
    let mut rig = Rig::new(Policy { hedge: Some(hedge), ..retrying() }, 2);
    assert_eq!(rig.whole(Safety::Unsafe, ms(1), BAD), answered(1, BAD));
    assert_eq!(rig.whole(Safety::Unsafe, ms(1), TIMEOUT), answered(1, TIMEOUT));

    let mut unprocessed = rig.begin(Safety::Unsafe);
    let attempt = rig.start(&mut unprocessed);
    rig.settle(&mut unprocessed, attempt, CONNECT);
    rig.wait(&mut unprocessed);
    rig.start(&mut unprocessed);
    rig.finish(unprocessed);

    for (safety, hedged) in
        [(Safety::Safe, true), (Safety::Idempotent, false), (Safety::Unsafe, false)]
    {
        let mut call = rig.begin(safety);
        let attempt = rig.start(&mut call);
        rig.now = rig.now + ms(50);
        match rig.next(&mut call) {
            Step::Start(Attempt { kind: Kind::Hedge, .. }) => assert!(hedged, "{safety:?}"),
            step => assert!(!hedged && step == Step::Idle { until: attempt.deadline }, "{step:?}"),
        }
        rig.finish(call);
    }
    rig.assert_all_given_back();
}

/// Resilience §6 rule 6: the deadline.
#[test]
fn rule_6_no_attempt_starts_that_cannot_end_in_time() {
    let mut rig = Rig::new(retrying(), 2);
    let within = |rig: &Rig, millis| Request {
        deadline: Some(rig.now + ms(millis)),
        ..Request::new(Safety::Safe)
    };
    let mut expired = rig.begin_with(within(&rig, 0));
    assert_eq!(reason(rig.done(&mut expired)), Reason::Deadline);
    let mut hopeless = rig.begin_with(within(&rig, 9));
    assert_eq!(reason(rig.done(&mut hopeless)), Reason::Deadline);

    let mut call = rig.begin_with(within(&rig, 105));
    let attempt = rig.start(&mut call);
    assert_eq!(attempt.deadline, rig.now + ms(105), "min(own, remaining)");
    rig.settle(&mut call, attempt, BAD);
    assert_eq!(rig.done(&mut call), answered(1, BAD), "100 ms from now only 5 would be left");

    let mut call = rig.begin_with(within(&rig, 110));
    let attempt = rig.start(&mut call);
    rig.settle(&mut call, attempt, BAD);
    assert_eq!(rig.wait(&mut call), ms(100));
    rig.start(&mut call);
    rig.now = rig.now + ms(10);
    match rig.done(&mut call) {
        End::Rejected(Rejected { reason: Reason::Deadline, last: Some(1), .. }) => {}
        other => panic!("{other:?}"),
    }
    rig.assert_all_given_back();
}

/// Resilience §6 rule 6: rejected before queueing, and at the head of the queue.
#[test]
fn rule_6_a_queue_does_not_outlast_the_deadline() {
    let bulkhead = bulkhead::Config { max_in_flight: 1, queue: 5, ..bulkhead::Config::default() };
    let mut rig = Rig::new(Policy { bulkhead: Some(bulkhead), ..retrying() }, 1);
    let mut running = rig.begin(Safety::Safe);
    rig.start(&mut running);
    let mut hurried =
        rig.begin_with(Request { deadline: Some(rig.now + ms(30)), ..Request::new(Safety::Safe) });
    match rig.next(&mut hurried) {
        Step::Queue { until, .. } => {
            assert_eq!(until, rig.now + ms(20), "leaves time for the attempt")
        }
        other => panic!("{other:?}"),
    }
    let mut patient = rig.begin(Safety::Safe);
    let Step::Queue { ticket, until } = rig.next(&mut patient) else { panic!("it queues") };
    assert_eq!(until, rig.now + ms(50));
    rig.now = rig.now + ms(20);
    assert_eq!(reason(rig.done(&mut hurried)), Reason::Bulkhead(bulkhead::Reason::QueueTimeout));
    rig.finish(running);
    assert_eq!(rig.service.granted(), Some(ticket));
    let attempt = rig.start(&mut patient);
    rig.settle(&mut patient, attempt, OK);
    rig.finish(patient);
    rig.finish(hurried);
    rig.assert_all_given_back();
}

/// Resilience §6 rule 7: one budget for retries and hedges; a denied extra
/// attempt cancels nothing.
#[test]
fn rule_7_every_extra_attempt_draws_on_one_budget() {
    let budget = budget::Config { per_second: 0, ratio: 1.0, ..budget::Config::default() };
    let hedge = hedge::Config { delay: hedge::Delay::Fixed(ms(50)), ..hedge::Config::default() };
    let policy = Policy { budget: Some(budget), hedge: Some(hedge), ..retrying() };
    let mut rig = Rig::new(policy, 2);
    assert_eq!(rig.whole(Safety::Safe, ms(1), BAD), answered(1, BAD), "nothing is saved up");
    assert_eq!(rig.whole(Safety::Safe, ms(1), OK), answered(1, OK));
    let saved = |rig: &Rig| rig.service.view(rig.now).budget.unwrap().balance_millionths;
    assert_eq!(saved(&rig), 1_000_000);

    let mut hedged = rig.begin(Safety::Safe);
    let first = rig.start(&mut hedged);
    rig.now = rig.now + ms(50);
    let second = rig.start(&mut hedged);
    assert_eq!((second.kind, saved(&rig)), (Kind::Hedge, 0));

    let mut denied = rig.begin(Safety::Safe);
    let attempt = rig.start(&mut denied);
    rig.now = rig.now + ms(50);
    assert_eq!(rig.next(&mut denied), Step::Idle { until: attempt.deadline });
    rig.settle(&mut denied, attempt, OK);
    assert_eq!(rig.done(&mut denied), answered(1, OK));

    rig.settle(&mut hedged, first, OK);
    [hedged, denied].into_iter().for_each(|call| rig.finish(call));
    assert_eq!(saved(&rig), 2_000_000);
    rig.assert_all_given_back();
}

/// Resilience §6 rule 7: one layer in a chain retries.
#[test]
fn rule_7_below_a_layer_that_retries_there_are_no_extra_attempts() {
    let hedge = hedge::Config { delay: hedge::Delay::Fixed(ms(50)), ..hedge::Config::default() };
    let mut rig = Rig::new(Policy { hedge: Some(hedge), ..retrying() }, 2);
    let request = Request { prior_attempts: 1, ..Request::new(Safety::Safe) };
    let mut call = rig.begin_with(request);
    let attempt = rig.start(&mut call);
    rig.now = rig.now + ms(50);
    assert_eq!(rig.next(&mut call), Step::Idle { until: attempt.deadline });
    rig.settle(&mut call, attempt, BAD);
    assert_eq!(rig.done(&mut call), answered(1, BAD));
    assert!(call.trace().notes().any(|note| note.decision == Decision::PriorAttempts(1)));
    rig.finish(call);
}

/// Resilience §6 rule 8: the server's own hint wins within bounds, and its
/// endpoint is avoided that long.
#[test]
fn rule_8_retry_after_is_heeded_within_bounds() {
    let mut rig = Rig::new(retrying(), 2);
    let overload = |secs| Outcome::Overload { retry_after: Some(Duration::from_secs(secs)) };
    let mut call = rig.begin(Safety::Safe);
    let attempt = rig.start(&mut call);
    rig.settle(&mut call, attempt, overload(3));
    let view = rig.service.view(rig.now).endpoints[attempt.endpoint].latency.unwrap();
    assert_eq!(view, Duration::from_secs(3));
    assert_eq!(rig.wait(&mut call), Duration::from_secs(3));
    let attempt = rig.start(&mut call);
    rig.settle(&mut call, attempt, overload(3_600));
    assert_eq!(rig.wait(&mut call), Duration::from_secs(6));
    rig.finish(call);

    let mut hurried = rig.begin_with(Request {
        deadline: Some(rig.now + Duration::from_secs(3)),
        ..Request::new(Safety::Safe)
    });
    let attempt = rig.start(&mut hurried);
    rig.settle(&mut hurried, attempt, overload(3));
    assert_eq!(rig.done(&mut hurried), answered(1, overload(3)), "beyond the deadline");
    rig.finish(hurried);
}

/// Resilience §6 rule 9: hedges.
#[test]
fn rule_9_the_first_acceptable_answer_wins_and_losers_are_cancelled() {
    let hedge = hedge::Config { delay: hedge::Delay::Fixed(ms(50)), ..hedge::Config::default() };
    let breaker = breaker::Config { min_calls: 1, ..breaker::Config::default() };
    let policy = Policy { hedge: Some(hedge), breaker: Some(breaker), ..retrying() };
    let mut rig = Rig::new(policy, 3);
    let mut call = rig.begin(Safety::Safe);
    let slow = rig.start(&mut call);
    assert_eq!(rig.next(&mut call), Step::Idle { until: rig.now + ms(50) });
    rig.now = rig.now + ms(50);
    let failing = rig.start(&mut call);
    assert_ne!(slow.endpoint, failing.endpoint);
    rig.settle(&mut call, failing, BAD);
    assert!(matches!(rig.next(&mut call), Step::Idle { .. }), "a failure is not acceptable");
    rig.settle(&mut call, slow, OK);
    assert_eq!(rig.done(&mut call), answered(1, OK));
    rig.finish(call);

    let mut call = rig.begin(Safety::Safe);
    let loser = rig.start(&mut call);
    rig.now = rig.now + ms(50);
    let winner = rig.start(&mut call);
    rig.settle(&mut call, winner, OK);
    assert_eq!(rig.done(&mut call), answered(2, OK));
    assert!(!call.is_out(loser.number));
    let cancelled =
        Decision::Ended { number: 1, outcome: Outcome::Cancelled, elapsed_ns: 50_000_000 };
    assert!(call.trace().notes().any(|note| note.decision == cancelled), "{}", call.trace());
    rig.settle(&mut call, loser, BAD);
    assert_eq!(rig.done(&mut call), answered(2, OK), "what a loser says is not heard");
    rig.finish(call);
    rig.assert_all_given_back();
}

#[test]
fn rule_9_a_hedge_needs_another_endpoint_and_room_at_once() {
    let hedge = hedge::Config { delay: hedge::Delay::Fixed(ms(50)), ..hedge::Config::default() };
    let budget = Some(budget::Config::default());
    let alone = Policy { hedge: Some(hedge), budget, ..retrying() };
    let bulkhead = bulkhead::Config { max_in_flight: 1, queue: 9, ..bulkhead::Config::default() };
    let full = Policy { bulkhead: Some(bulkhead), ..alone.clone() };
    for (policy, endpoints) in [(alone, 1), (full, 2)] {
        let mut rig = Rig::new(policy, endpoints);
        let mut call = rig.begin(Safety::Safe);
        let attempt = rig.start(&mut call);
        rig.now = rig.now + ms(50);
        assert_eq!(rig.next(&mut call), Step::Idle { until: attempt.deadline });
        let balance = rig.service.view(rig.now).budget.unwrap().balance_millionths;
        assert_eq!(balance, 100_000_000, "what was not sent costs nothing");
        rig.finish(call);
        rig.assert_all_given_back();
    }
}

/// Resilience §6 rule 10: once an answer is on its way there is no other attempt.
#[test]
fn rule_10_no_retry_after_the_head_went_downstream() {
    let mut rig = Rig::new(Policy { breaker: one_failure_opens(), ..retrying() }, 2);
    let mut call = rig.begin(Safety::Safe);
    let attempt = rig.start(&mut call);
    call.commit(rig.now, &rig.service, attempt.number);
    assert_eq!(rig.done(&mut call), End::Answered { number: 1, outcome: None });
    rig.now = rig.now + Duration::from_secs(60);
    assert_eq!(rig.done(&mut call), End::Answered { number: 1, outcome: None });
    rig.settle(&mut call, attempt, BAD);
    assert_eq!(rig.done(&mut call), End::Answered { number: 1, outcome: None });
    assert_eq!(rig.state(attempt.endpoint), breaker::State::Open, "its trailers counted");
    rig.finish(call);
    rig.assert_all_given_back();
}

/// Resilience §6 rule 10: a body that outgrows its bound goes on, without repeats.
#[test]
fn rule_10_a_body_that_is_gone_is_not_sent_again() {
    let mut rig = Rig::new(retrying(), 2);
    let mut call = rig.begin(Safety::Idempotent);
    let attempt = rig.start(&mut call);
    call.not_replayable();
    rig.settle(&mut call, attempt, BAD);
    assert_eq!(rig.done(&mut call), answered(1, BAD));
    rig.finish(call);
}

/// Resilience §6 rule 11: half-open admits its probes and no more, whatever
/// becomes of them.
#[test]
fn rule_11_probes_come_back() {
    let mut rig = Rig::new(Policy { breaker: one_failure_opens(), ..Policy::default() }, 1);
    rig.whole(Safety::Safe, ms(1), BAD);
    rig.now = rig.now + Duration::from_secs(5);
    let mut probe = rig.begin(Safety::Safe);
    rig.start(&mut probe);
    let mut other = rig.begin(Safety::Safe);
    assert_eq!(reason(rig.done(&mut other)), Reason::CircuitOpen);
    rig.finish(probe);
    assert_eq!(rig.whole(Safety::Safe, ms(1), OK), answered(1, OK), "given back, given again");
    assert_eq!(rig.state(0), breaker::State::Closed);
}

/// A probe waits in no queue: its leave goes back until there is room.
#[test]
fn rule_11_no_probe_is_held_up_in_a_queue() {
    let bulkhead = bulkhead::Config { max_in_flight: 1, queue: 5, ..bulkhead::Config::default() };
    let policy =
        Policy { breaker: one_failure_opens(), bulkhead: Some(bulkhead), ..Policy::default() };
    let mut rig = Rig::new(policy, 1);
    let mut old = rig.begin(Safety::Safe);
    rig.start(&mut old);
    rig.service.control_breaker(rig.now, 0, breaker::Control::ForceOpen);
    rig.service.control_breaker(rig.now, 0, breaker::Control::Automatic);
    let breaker = rig.service.endpoints()[0].breaker().unwrap();
    let permit = breaker.admit(rig.now).0.unwrap();
    breaker.settle(rig.now, permit, BAD);
    rig.now = rig.now + Duration::from_secs(5);
    let mut queued = rig.begin(Safety::Safe);
    assert!(matches!(rig.next(&mut queued), Step::Queue { .. }));
    assert!(rig.service.endpoints()[0].breaker().unwrap().ready(rig.now), "the probe is free");
    rig.finish(old);
    let attempt = rig.start(&mut queued);
    rig.settle(&mut queued, attempt, OK);
    assert_eq!(rig.state(0), breaker::State::Closed);
    rig.finish(queued);
    rig.assert_all_given_back();
}

/// Resilience §6 rule 12: of two, one may be ejected and the other is kept.
#[test]
fn rule_12_ejection_leaves_someone() {
    let outlier = outlier::Config { consecutive: Some(2), ..outlier::Config::default() };
    let mut rig = Rig::new(
        Policy { outlier: Some(outlier), balance: retrying().balance, ..Policy::default() },
        2,
    );
    for _ in 0..8 {
        rig.whole(Safety::Safe, ms(1), CONNECT);
    }
    let ejected = rig.service.endpoints().iter().filter(|one| one.ejected(rig.now)).count();
    assert_eq!(ejected, 1);
    let events: Vec<_> = core::iter::from_fn(|| rig.service.take_event()).collect();
    assert!(events.iter().any(|event| matches!(event.change, Change::Outlier(_))), "{events:?}");
}

/// A retry does not flee from a fit endpoint to an unfit one.
#[test]
fn an_ejected_endpoint_is_no_refuge() {
    let outlier = outlier::Config { consecutive: Some(1), ..outlier::Config::default() };
    let mut rig = Rig::new(Policy { outlier: Some(outlier), ..retrying() }, 3);
    let mut call = rig.begin(Safety::Safe);
    let ejected = rig.start(&mut call);
    rig.settle(&mut call, ejected, CONNECT);
    rig.finish(call);
    for _ in 0..6 {
        let mut call = rig.begin(Safety::Safe);
        for _ in 0..3 {
            let attempt = rig.start(&mut call);
            assert_ne!(attempt.endpoint, ejected.endpoint, "{}", call.trace());
            rig.settle(&mut call, attempt, BAD);
            if attempt.number < 3 {
                rig.wait(&mut call);
            }
        }
        rig.finish(call);
    }
}

#[test]
fn no_endpoint_and_draining_ones() {
    let mut rig = Rig::new(retrying(), 0);
    let mut call = rig.begin(Safety::Safe);
    assert_eq!(reason(rig.done(&mut call)), Reason::NoEndpoint);

    let mut rig = Rig::new(retrying(), 2);
    rig.service.drain(rig.now, 0, true);
    for _ in 0..4 {
        let mut call = rig.begin(Safety::Safe);
        assert_eq!(rig.start(&mut call).endpoint, 1);
        rig.finish(call);
    }
    rig.service.drain(rig.now, 1, true);
    let mut call = rig.begin(Safety::Safe);
    assert_eq!(reason(rig.done(&mut call)), Reason::NoEndpoint);
}

#[test]
fn a_trace_reads_like_a_story() {
    let policy = Policy { budget: Some(budget::Config::default()), ..retrying() };
    let mut rig = Rig::new(policy, 2);
    let mut call = rig.begin(Safety::Safe);
    let attempt = rig.start(&mut call);
    rig.now = rig.now + ms(7);
    rig.settle(&mut call, attempt, BAD);
    rig.wait(&mut call);
    let attempt = rig.start(&mut call);
    rig.now = rig.now + ms(3);
    rig.settle(&mut call, attempt, OK);
    assert_eq!(
        call.trace().to_string(),
        "0.0ms start attempt=1 endpoint=0 kind=first; 7.0ms end attempt=1 outcome=server_error took=7.0ms; \
         7.0ms retry wait=100.0ms; 107.0ms start attempt=2 endpoint=1 kind=retry; \
         110.0ms end attempt=2 outcome=success took=3.0ms"
    );
    rig.finish(call);
}

#[test]
fn a_trace_is_bounded() {
    let retry = retry::Config { attempts: 16, ..retrying().retry.unwrap() };
    let mut rig = Rig::new(Policy { retry: Some(retry), ..retrying() }, 2);
    let mut call = rig.begin(Safety::Safe);
    for number in 1..=16 {
        let attempt = rig.start(&mut call);
        rig.settle(&mut call, attempt, BAD);
        if number < 16 {
            rig.wait(&mut call);
        }
    }
    assert_eq!(rig.done(&mut call), answered(16, BAD));
    assert_eq!(call.trace().notes().count(), NOTES_MAX);
    assert_eq!(call.trace().left_out(), 48 - NOTES_MAX as u32);
    rig.finish(call);
}

proptest! {
    /// Whatever happens to calls in whatever order, everything goes back, no
    /// call has more attempts than it may, and none starts past its deadline.
    #[test]
    fn everything_goes_back(
        seed: u64,
        endpoints in 1usize..4,
        steps in proptest::collection::vec((0u8..8, any::<usize>(), 0u64..400), 1..200),
    ) {
        let policy = Policy {
            hedge: Some(hedge::Config { delay: hedge::Delay::Fixed(ms(30)), extra_max: 2, ..hedge::Config::default() }),
            bulkhead: Some(bulkhead::Config { max_in_flight: 3, queue: 2, ..bulkhead::Config::default() }),
            breaker: Some(breaker::Config {
                min_calls: 4,
                slow: Some(breaker::Slow::over(ms(200))),
                open_for: ms(300),
                ..breaker::Config::default()
            }),
            budget: Some(budget::Config::default()),
            outlier: Some(outlier::Config::default()),
            timeout: timeout::Config { attempt: Some(ms(250)), total: Some(ms(900)), connect: ms(100), ..timeout::Config::default() },
            ..retrying()
        };
        let mut rig = Rig::new(policy, endpoints);
        rig.rng = SplitMix64::new(seed);
        let mut calls: Vec<(Call, Vec<Attempt>)> = Vec::new();
        for (step, which, gap) in steps {
            rig.now = rig.now + ms(gap / 4);
            if step == 0 {
                let safety = [Safety::Safe, Safety::Idempotent, Safety::Unsafe][which % 3];
                calls.push((rig.begin(safety), Vec::new()));
            }
            if calls.is_empty() {
                continue;
            }
            let which = which % calls.len();
            match step {
                1..=3 => {
                    let (call, attempts) = &mut calls[which];
                    match call.next(rig.now, &rig.service, &mut rig.rng) {
                        Step::Start(attempt) => {
                            prop_assert!(attempt.deadline >= rig.now + ms(10));
                            prop_assert!(attempt.number <= 9, "three attempts, each hedged twice");
                            attempts.push(attempt);
                        }
                        Step::Cancel(number) => prop_assert!(!call.is_out(number)),
                        Step::Wait { until } | Step::Idle { until } | Step::Queue { until, .. } => {
                            prop_assert!(until > rig.now);
                        }
                        Step::Done(_) => {}
                    }
                }
                4..=6 => {
                    let (call, attempts) = &mut calls[which];
                    if let Some(attempt) = attempts.pop() {
                        let outcome = [OK, BAD, CONNECT, TIMEOUT, Outcome::ClientFault][gap as usize % 5];
                        call.settle(rig.now, &rig.service, attempt.number, outcome);
                    }
                }
                7 => rig.finish(calls.swap_remove(which).0),
                _ => {}
            }
            while rig.service.granted().is_some() {}
        }
        for (call, _) in calls {
            rig.finish(call);
        }
        rig.assert_all_given_back();
    }
}
