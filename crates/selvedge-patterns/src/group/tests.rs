use proptest::prelude::*;

use super::*;
use crate::{limit, random::SplitMix64};

fn group(config: Config) -> Group {
    Group::new(config)
}

fn at(seconds: u64) -> Wall {
    Wall::from_secs(1_000_000 + seconds)
}

fn rng() -> SplitMix64 {
    SplitMix64::new(7)
}

fn deliver(offer: Offer) -> Receipt {
    match offer {
        Offer::Deliver(receipt) => receipt,
        other => panic!("expected a delivery, got {other:?}"),
    }
}

fn due(due: Option<Due>) -> Receipt {
    match due {
        Some(Due::Deliver(receipt)) => receipt,
        other => panic!("expected a delivery, got {other:?}"),
    }
}

#[test]
fn an_acknowledged_message_leaves_no_trace() {
    let mut group = group(Config::default());
    let receipt = deliver(group.offer(at(0), 1, 10, None));
    assert_eq!(group.view().floor, Some(10));
    assert_eq!(
        group.settle(at(1), receipt, Verdict::Ack, &mut rng()),
        Ok(Settled::Acked),
        "the receipt of the only delivery counts"
    );
    assert_eq!(group.view().exceptions, 0);
    assert_eq!(group.next_wakeup(at(1)), None);
}

#[test]
fn what_was_not_looked_at_costs_no_attempt() {
    let mut group = group(Config { attempts: 1, ..Config::default() });
    let mut receipt = deliver(group.offer(at(0), 1, 10, None));
    for fence in 2..20 {
        let release = Verdict::Release { after: Duration::from_secs(1) };
        let again = Settled::Retry { at: at(fence) };
        assert_eq!(group.settle(at(fence - 1), receipt, release, &mut rng()), Ok(again));
        assert!(group.settle(at(fence - 1), receipt, Verdict::Ack, &mut rng()).is_err());
        assert_eq!(group.wake(at(fence) - Duration::from_millis(1), fence), None);
        let next = due(group.wake(at(fence), fence));
        assert_eq!((next.attempt, next.fence), (1, fence), "the receipt is another one");
        receipt = next;
    }
    let dead = group.settle(at(20), receipt, Verdict::Retry { after: None }, &mut rng());
    assert_eq!(dead, Ok(Settled::Dead(Cause::Attempts)), "a failure still counts");
}

#[test]
fn an_expired_lease_makes_the_old_receipt_stale() {
    let mut group = group(Config::default());
    let first = deliver(group.offer(at(0), 1, 10, None));
    assert_eq!(group.wake(at(29), 2), None);
    let second = due(group.wake(at(30), 2));
    assert_eq!(second, Receipt { position: 10, attempt: 2, fence: 2 });
    let stale = group.settle(at(31), first, Verdict::Ack, &mut rng()).unwrap_err();
    assert_eq!(stale.current, Some((2, 2)));
    assert_eq!(group.settle(at(31), second, Verdict::Ack, &mut rng()), Ok(Settled::Acked));
    assert_eq!(
        group.settle(at(31), second, Verdict::Ack, &mut rng()).unwrap_err().current,
        None,
        "settled twice"
    );
}

#[test]
fn a_late_answer_counts_while_nobody_else_has_the_message() {
    let mut group = group(Config::default());
    let receipt = deliver(group.offer(at(0), 1, 10, None));
    assert_eq!(group.settle(at(500), receipt, Verdict::Ack, &mut rng()), Ok(Settled::Acked));
}

#[test]
fn extending_counts_from_now() {
    let mut group = group(Config::default());
    let receipt = deliver(group.offer(at(0), 1, 10, None));
    assert_eq!(group.extend(at(20), receipt, None), Ok(at(50)));
    assert_eq!(group.wake(at(49), 2), None);
    assert!(group.wake(at(50), 2).is_some());
}

#[test]
fn a_failure_waits_and_the_last_attempt_is_a_dead_letter() {
    let config = Config { attempts: 2, ..Config::default() };
    let mut group = group(config);
    let first = deliver(group.offer(at(0), 1, 10, None));
    let after = Some(Duration::from_secs(5));
    assert_eq!(
        group.settle(at(0), first, Verdict::Retry { after }, &mut rng()),
        Ok(Settled::Retry { at: at(5) })
    );
    assert_eq!(group.wake(at(4), 2), None);
    let second = due(group.wake(at(5), 2));
    assert_eq!(
        group.settle(at(6), second, Verdict::Retry { after }, &mut rng()),
        Ok(Settled::Dead(Cause::Attempts))
    );
    assert_eq!(group.view().exceptions, 0);
}

#[test]
fn a_lease_that_runs_out_on_the_last_attempt_is_a_dead_letter() {
    let mut group = group(Config { attempts: 1, ..Config::default() });
    deliver(group.offer(at(0), 1, 10, None));
    assert_eq!(
        group.wake(at(30), 2),
        Some(Due::Dead { position: 10, attempt: 1, cause: Cause::LeaseExpired })
    );
}

#[test]
fn the_backoff_stays_under_its_doubling_bound() {
    let config = Config::default();
    let mut rng = rng();
    for attempt in 1..40 {
        let bound = Duration::from_secs(1 << (attempt - 1).min(20)).min(config.retry_cap);
        for _ in 0..50 {
            assert!(config.backoff(attempt, &mut rng) < bound, "attempt {attempt}");
        }
    }
}

#[test]
fn a_key_is_served_one_message_at_a_time() {
    let mut group = group(Config { ordered: true, ..Config::default() });
    let first = deliver(group.offer(at(0), 1, 1, Some("a")));
    assert_eq!(group.offer(at(0), 1, 2, Some("a")), Offer::Blocked);
    let other = deliver(group.offer(at(0), 1, 3, Some("b")));
    assert_eq!(group.offer(at(0), 1, 4, Some("a")), Offer::Blocked);
    assert_eq!(group.wake(at(1), 2), None);
    group.settle(at(1), first, Verdict::Ack, &mut rng()).unwrap();
    assert_eq!(due(group.wake(at(1), 2)).position, 2);
    assert_eq!(group.wake(at(1), 3), None, "4 waits for 2");
    group.settle(at(1), other, Verdict::Ack, &mut rng()).unwrap();
}

#[test]
fn a_parked_key_takes_what_follows_with_it_and_lets_others_flow() {
    let mut group = group(Config { ordered: true, ..Config::default() });
    let first = deliver(group.offer(at(0), 1, 1, Some("a")));
    assert_eq!(group.offer(at(0), 1, 2, Some("a")), Offer::Blocked);
    assert_eq!(
        group.settle(at(1), first, Verdict::Park, &mut rng()),
        Ok(Settled::Dead(Cause::Parked))
    );
    assert_eq!(
        group.wake(at(1), 2),
        Some(Due::Dead { position: 2, attempt: 0, cause: Cause::BehindKey })
    );
    assert_eq!(group.offer(at(1), 2, 3, Some("a")), Offer::Dead(Cause::BehindKey));
    deliver(group.offer(at(1), 2, 4, Some("b")));
    // All three letters come back, in any order, and are served in log order.
    for position in [3, 1, 2] {
        group.redrive(at(2), position, Some("a"));
    }
    for position in [1, 2, 3] {
        let receipt = due(group.wake(at(2), 10 + position));
        assert_eq!(receipt.position, position);
        assert_eq!(group.wake(at(2), 20 + position), None);
        group.settle(at(2), receipt, Verdict::Ack, &mut rng()).unwrap();
    }
    deliver(group.offer(at(3), 40, 5, Some("a")));
}

#[test]
fn a_full_group_looks_no_further() {
    let config = Config { in_flight_max: 2, exceptions_max: 2, ..Config::default() };
    let mut group = group(config);
    deliver(group.offer(at(0), 1, 1, None));
    let second = deliver(group.offer(at(0), 1, 2, None));
    assert_eq!(group.offer(at(0), 1, 3, None), Offer::Full);
    group.settle(at(0), second, Verdict::Ack, &mut rng()).unwrap();
    deliver(group.offer(at(0), 1, 3, None));
}

#[test]
fn a_low_priority_is_late_but_not_starved() {
    let ageing = Duration::from_secs(10);
    let mut heads = [None; 10];
    heads[0] = Some(at(0));
    heads[9] = Some(at(80));
    assert_eq!(pick_lane(at(80), &heads, ageing), Some(9));
    heads[9] = Some(at(91));
    assert_eq!(pick_lane(at(91), &heads, ageing), Some(0));
    assert_eq!(pick_lane(at(0), &[None; 10], ageing), None);
}

proptest! {
    /// Whatever consumers do, no message is lost: each is settled once, dead or
    /// still an exception; a restored copy behaves alike; and of one key at
    /// most one message is out.
    #[test]
    fn nothing_is_lost_and_order_holds(
        ordered: bool,
        steps in prop::collection::vec((0u8..6, 0u64..40, 0usize..8), 1..300),
    ) {
        let config = Config { ordered, attempts: 3, in_flight_max: 5, exceptions_max: 12,
            ..Config::default() };
        let mut group = group(config.clone());
        let mut rng = rng();
        let (mut cursor, mut fence, mut now) = (1u64, 0u64, at(0));
        let mut out: Vec<Receipt> = Vec::new();
        let (mut acked, mut dead) = (BTreeSet::new(), BTreeSet::new());
        let key_of = |position: u64| ["a", "b", "c"][(position % 3) as usize];
        for (action, dt, which) in steps {
            now = now + Duration::from_secs(dt);
            fence += 1;
            match action {
                0 | 1 => match group.offer(now, fence, cursor, Some(key_of(cursor))) {
                    Offer::Deliver(receipt) => { out.push(receipt); cursor += 1; }
                    Offer::Blocked => cursor += 1,
                    Offer::Dead(_) => { prop_assert!(dead.insert(cursor)); cursor += 1; }
                    Offer::Full => {}
                },
                2 => match group.wake(now, fence) {
                    Some(Due::Deliver(receipt)) => out.push(receipt),
                    Some(Due::Dead { position, .. }) => { prop_assert!(dead.insert(position)); }
                    None => {}
                },
                _ if out.is_empty() => {}
                _ => {
                    let receipt = out.swap_remove(which % out.len());
                    let verdict = match action {
                        3 => Verdict::Ack,
                        4 => Verdict::Retry { after: None },
                        _ => Verdict::Park,
                    };
                    let before = group.exception(receipt.position).cloned();
                    match group.settle(now, receipt, verdict, &mut rng) {
                        Ok(Settled::Acked) => { prop_assert!(acked.insert(receipt.position)); }
                        Ok(Settled::Dead(_)) => { prop_assert!(dead.insert(receipt.position)); }
                        Ok(Settled::Retry { .. }) => {}
                        Err(_) => prop_assert_eq!(
                            before, group.exception(receipt.position).cloned()),
                    }
                }
            }
            let mut leased_keys = BTreeSet::new();
            for position in 1..cursor {
                let places = u8::from(acked.contains(&position)) + u8::from(dead.contains(&position))
                    + u8::from(group.exception(position).is_some());
                prop_assert_eq!(places, 1, "position {}", position);
                if let Some(Exception { state: State::Leased { .. }, .. }) = group.exception(position) {
                    prop_assert!(leased_keys.insert(key_of(position)) || !ordered);
                }
            }
            prop_assert!(group.view().in_flight <= 5);
        }
        // A copy made of what a store holds goes on exactly alike.
        let mut copy = Group::new(config);
        for position in 1..cursor {
            if let Some(exception) = group.exception(position) {
                copy.restore(position, exception.clone());
            }
        }
        for (key, letters) in group.parked.clone() { copy.restore_parked(&key, letters); }
        for step in 0..50u64 {
            now = now + Duration::from_secs(10);
            prop_assert_eq!(group.wake(now, fence + step), copy.wake(now, fence + step));
        }
    }
}

#[test]
fn a_rate_spaces_deliveries_and_repeats_alike() {
    let rate = limit::Config { rate: limit::Rate::per_second(1), burst: 2, ..Default::default() };
    let mut group = group(Config { rate: Some(rate), ..Config::default() });
    let first = deliver(group.offer(at(0), 1, 1, None));
    deliver(group.offer(at(0), 2, 2, None));
    assert_eq!(group.offer(at(0), 3, 3, None), Offer::Full);
    assert_eq!((group.throttled(at(0)), group.next_wakeup(at(0))), (Some(at(1)), Some(at(1))));
    let again = Verdict::Retry { after: Some(Duration::ZERO) };
    group.settle(at(0), first, again, &mut rng()).unwrap();
    assert_eq!(group.wake(at(0), 3), None, "a repeat needs leave too");
    assert_eq!(due(group.wake(at(1), 3)).position, 1);
    assert_eq!(group.offer(at(1), 4, 3, None), Offer::Full);
    deliver(group.offer(at(2), 4, 3, None));
}

#[test]
fn a_group_with_too_many_dead_letters_stands_still_until_they_are_looked_at() {
    let letters = Letters { max: Some(2), ..Letters::default() };
    let mut group = group(Config { letters, lease: Duration::from_secs(5), ..Config::default() });
    let held: Vec<Receipt> = (1..=4).map(|n| deliver(group.offer(at(0), n, n, None))).collect();
    for receipt in &held[..2] {
        group.settle(at(1), *receipt, Verdict::Park, &mut rng()).unwrap();
    }
    assert_eq!((group.letters(), group.offer(at(1), 9, 9, None)), (2, Offer::Full));
    assert_eq!(group.wake(at(9), 9), None, "what ran out waits too");
    let late = group.settle(at(9), held[2], Verdict::Ack, &mut rng());
    assert_eq!(late, Ok(Settled::Acked), "and may still be answered");
    group.settle(at(9), held[3], Verdict::Park, &mut rng()).unwrap();
    assert_eq!(group.letters(), 3, "what was in hand is kept beyond the bound");
    group.discard(None);
    assert_eq!(group.offer(at(9), 9, 9, None), Offer::Full);
    group.redrive(at(9), 2, None);
    assert_eq!(due(group.wake(at(9), 9)).position, 2);
    deliver(group.offer(at(9), 10, 10, None));
}

#[test]
fn a_bound_that_drops_says_how_many() {
    let drop = Letters { max: Some(2), full: Full::DropOldest, age: None };
    assert_eq!((drop.excess(2), drop.excess(5), drop.hold(5)), (0, 3, false));
    assert_eq!((Letters::default().excess(1 << 40), Letters::default().hold(100_000)), (0, true));
    let none = Letters { max: None, ..Letters::default() };
    assert!(!none.hold(u64::MAX));
    let wrong = Letters { max: Some(0), ..Letters::default() };
    let wrong = Config { letters: wrong, ..Config::default() };
    assert_eq!(wrong.validate().unwrap_err().key, "dead_letters_max");
}
