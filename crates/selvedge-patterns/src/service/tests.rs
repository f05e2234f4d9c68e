use super::*;
use crate::call::{Call, Request, Step};
use crate::outcome::{Failure, Safety};
use crate::random::SplitMix64;

const T: Instant = Instant::from_millis(1_000_000);
const BAD: Outcome = Outcome::Failure(Failure::Gateway);

fn targets(addresses: &[&str]) -> Vec<Target> {
    addresses.iter().map(|address| Target::new(*address)).collect()
}

fn policy() -> Policy {
    let breaker = breaker::Config { min_calls: 1, jitter: 0.0, ..breaker::Config::default() };
    Policy { breaker: Some(breaker), ..Policy::careful() }
}

/// One call that takes `took`, to the endpoint at `address`.
fn call(service: &Service, now: Instant, address: &str, took: Duration, outcome: Outcome) {
    for (index, endpoint) in service.endpoints().iter().enumerate() {
        service.drain(now, index, &**endpoint.address() != address);
    }
    let mut call = Call::begin(now, service, Request::new(Safety::Unsafe));
    let Step::Start(attempt) = call.next(now, service, &mut SplitMix64::new(1)) else {
        panic!("{}", call.trace())
    };
    assert_eq!(&**service.endpoints()[attempt.endpoint].address(), address);
    call.settle(now + took, service, attempt.number, outcome);
    call.finish(now + took, service);
    (0..service.endpoints().len()).for_each(|index| service.drain(now, index, false));
}

fn state(service: &Service, index: usize) -> breaker::State {
    service.view(T).endpoints[index].breaker.unwrap().state
}

#[test]
fn a_changed_set_keeps_what_is_known_of_survivors() {
    let before = Service::new(T, policy(), targets(&["a", "b"]), 1);
    call(&before, T, "b", Duration::from_millis(80), BAD);
    before.drain(T, 1, true);
    assert_eq!(state(&before, 1), breaker::State::Open);
    let after = before.rebuilt(T, policy(), targets(&["c", "b"]));
    assert_eq!(state(&after, 0), breaker::State::Closed);
    assert_eq!(state(&after, 1), breaker::State::Open);
    let view = after.view(T);
    assert!(view.endpoints[1].draining);
    assert_eq!(view.endpoints[1].outlier.consecutive, 1);
    let [new, old] = [0, 1].map(|index| view.endpoints[index].latency);
    assert_eq!(new, old, "a new endpoint is taken to be as fast as the usual one");
}

#[test]
fn a_changed_policy_keeps_the_state() {
    let before = Service::new(T, policy(), targets(&["a"]), 1);
    call(&before, T, "a", Duration::ZERO, BAD);
    let changed = Policy {
        breaker: Some(breaker::Config {
            open_for: Duration::from_secs(9),
            ..policy().breaker.unwrap()
        }),
        budget: Some(budget::Config { ratio: 0.5, ..budget::Config::default() }),
        bulkhead: Some(bulkhead::Config { max_in_flight: 7, ..bulkhead::Config::default() }),
        ..policy()
    };
    let after = before.rebuilt(T, changed, targets(&["a"]));
    assert_eq!(state(&after, 0), breaker::State::Open);
    assert_eq!(after.view(T).bulkhead.unwrap().max_in_flight, 7);

    let off = after.rebuilt(T, Policy::default(), targets(&["a"]));
    assert!(off.view(T).endpoints[0].breaker.is_none() && off.view(T).bulkhead.is_none());
}

/// A call that began before a reload ends on what it began on, and what it
/// held is free afterwards on both.
#[test]
fn a_call_outlives_a_reload() {
    let before = Service::new(T, policy(), targets(&["a", "b"]), 1);
    let mut call = Call::begin(T, &before, Request::new(Safety::Safe));
    let Step::Start(attempt) = call.next(T, &before, &mut SplitMix64::new(1)) else { panic!() };
    let after = before.rebuilt(T, policy(), targets(&["b", "a"]));
    assert_eq!(after.in_flight(), 1);
    call.settle(T, &before, attempt.number, BAD);
    call.finish(T, &before);
    assert_eq!((after.in_flight(), after.view(T).bulkhead.unwrap().in_flight), (0, 0));
    assert_eq!(state(&after, 1 - attempt.endpoint), breaker::State::Open);
}

#[test]
fn changes_are_put_down_once_and_bounded() {
    let service = Service::new(T, policy(), targets(&["a"]), 1);
    assert_eq!(service.take_event(), None);
    assert!(service.control_breaker(T, 0, breaker::Control::ForceOpen));
    assert!(service.control_breaker(T, 0, breaker::Control::ForceOpen));
    let event = service.take_event().unwrap();
    assert_eq!((&*event.endpoint, event.at), ("a", T));
    assert!(matches!(event.change, Change::Breaker(it) if it.to == breaker::State::ForcedOpen));
    assert_eq!(service.take_event(), None);
    for turn in 0..2 * EVENTS_MAX {
        service.drain(T, 0, turn % 2 == 0);
    }
    let kept = core::iter::from_fn(|| service.take_event()).count();
    assert_eq!(kept, EVENTS_MAX);
}

#[test]
fn time_does_its_work() {
    let service = Service::new(T, policy(), targets(&["a", "b"]), 1);
    call(&service, T, "a", Duration::ZERO, BAD);
    while service.take_event().is_some() {}
    let due = service.next_wakeup().unwrap();
    assert_eq!(due, T + Duration::from_secs(5));
    service.wake(due);
    let event = service.take_event().unwrap();
    assert!(matches!(event.change, Change::Breaker(it) if it.to == breaker::State::HalfOpen));
}

#[test]
fn checks_take_an_endpoint_out_and_bring_it_back() {
    let health = health::Config { unhealthy_after: 1, healthy_after: 1, ..Default::default() };
    let policy = Policy { health: Some(health), ..Policy::default() };
    let service = Service::new(T, policy, targets(&["a", "b"]), 1);
    let mut rng = SplitMix64::new(1);
    for passed in [false, true] {
        let due = service.next_check(0).unwrap();
        let check = service.check_due(due, 0, &mut rng).expect("it is due");
        service.check_settle(due, 0, check, passed, &mut rng);
        let expected = if passed { Standing::Usable } else { Standing::Unhealthy };
        assert_eq!(service.endpoints()[0].standing(due), expected);
    }
    let events: Vec<_> = core::iter::from_fn(|| service.take_event()).collect();
    assert!(matches!(
        events.as_slice(),
        [
            Event { change: Change::Health(health::Transition::Failed { .. }), .. },
            Event { change: Change::Health(health::Transition::Recovered { .. }), .. },
        ]
    ));
}

#[test]
fn an_operator_brings_an_ejected_endpoint_back() {
    let outlier = outlier::Config { consecutive: Some(1), ..outlier::Config::default() };
    let policy = Policy { outlier: Some(outlier), ..Policy::default() };
    let service = Service::new(T, policy, targets(&["a", "b"]), 1);
    call(&service, T, "a", Duration::ZERO, BAD);
    assert!(service.endpoints()[0].ejected(T));
    service.uneject(T, 0);
    assert!(!service.endpoints()[0].ejected(T));
}

#[test]
fn seeds_differ_by_address_and_repeat() {
    let open_until = |seed, address: &str| {
        let breaker = breaker::Config { min_calls: 1, ..breaker::Config::default() };
        let policy = Policy { breaker: Some(breaker), ..Policy::default() };
        let service = Service::new(T, policy, targets(&[address]), seed);
        call(&service, T, address, Duration::ZERO, BAD);
        service.view(T).endpoints[0].breaker.unwrap().open_until
    };
    assert_eq!(open_until(1, "a"), open_until(1, "a"));
    assert_ne!(open_until(1, "a"), open_until(1, "b"));
    assert_ne!(open_until(1, "a"), open_until(2, "a"));
}
