use core::time::Duration;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    group::{Config, Settled, Verdict},
    random::{Rng, SplitMix64},
};

const TTL: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Wall {
    Wall::from_secs(1_000_000 + seconds)
}

fn exclusive() -> Config {
    Config { exclusive: Some(TTL), attempts: 2, ..Config::default() }
}

fn held(
    group: &mut Group,
    now: Wall,
    fence: u64,
    positions: core::ops::Range<u64>,
) -> Vec<Receipt> {
    let offer = |position| match group.offer(now, fence + position, position, None) {
        Offer::Deliver(receipt) => receipt,
        other => panic!("expected a delivery, got {other:?}"),
    };
    positions.map(offer).collect()
}

fn due(due: Option<Due>) -> Receipt {
    match due {
        Some(Due::Deliver(receipt)) => receipt,
        other => panic!("expected a delivery, got {other:?}"),
    }
}

#[test]
fn a_failure_takes_what_is_behind_it_out_of_hand_and_holds_the_group() {
    let mut group = Group::new(exclusive());
    assert_eq!(group.ask(at(0), "a", 1), Turn::TakesOver);
    let out = held(&mut group, at(0), 10, 1..4);
    let rng = &mut SplitMix64::new(1);
    let again = Verdict::Retry { after: Some(Duration::from_secs(5)) };
    group.settle(at(1), out[1], again, rng).unwrap();
    assert!(group.settle(at(1), out[2], Verdict::Ack, rng).is_err(), "it is not in hand any more");
    assert_eq!(group.offer(at(1), 20, 4, None), Offer::Full);
    assert_eq!(group.wake(at(5), 20), None, "3 waits though it is free, since 2 does");
    assert_eq!(group.next_wakeup(at(5)), Some(at(6)));
    assert_eq!(group.settle(at(5), out[0], Verdict::Ack, rng), Ok(Settled::Acked));
    let (second, third) = (due(group.wake(at(6), 21)), due(group.wake(at(6), 22)));
    assert_eq!((second.position, second.attempt), (2, 2));
    assert_eq!((third.position, third.attempt), (3, 1), "it was not looked at");
    let dead = group.settle(at(7), second, again, rng);
    assert_eq!(dead, Ok(Settled::Dead(Cause::Attempts)), "then the group goes on");
    assert_eq!(held(&mut group, at(7), 30, 4..5)[0].position, 4);
}

#[test]
fn who_takes_over_begins_with_the_first_that_was_in_hand() {
    let mut group = Group::new(exclusive());
    group.ask(at(0), "a", 1);
    let out = held(&mut group, at(0), 10, 1..4);
    let rng = &mut SplitMix64::new(1);
    assert_eq!(group.ask(at(59), "b", 20), Turn::StandsBy { until: at(60) });
    assert_eq!(group.ask(at(60), "b", 20), Turn::TakesOver);
    for receipt in out {
        assert!(group.settle(at(60), receipt, Verdict::Ack, rng).is_err());
        assert!(group.extend(at(60), receipt, None).is_err());
    }
    let again: Vec<Receipt> = (21..24).map(|fence| due(group.wake(at(60), fence))).collect();
    let seen: Vec<_> = again.iter().map(|it| (it.position, it.attempt)).collect();
    assert_eq!(seen, [(1, 2), (2, 1), (3, 1)], "one message may have killed the first consumer");
    assert!(group.leave("b"));
    let free: Vec<Receipt> = (31..34).map(|fence| due(group.wake(at(60), fence))).collect();
    let seen: Vec<_> = free.iter().map(|it| (it.position, it.attempt)).collect();
    assert_eq!(seen, [(1, 2), (2, 1), (3, 1)], "who leaves burns no attempt");
}

#[test]
fn answers_keep_a_consumer_active() {
    let mut group = Group::new(exclusive());
    group.ask(at(0), "a", 1);
    let out = held(&mut group, at(0), 10, 1..3);
    group.extend(at(50), out[0], Some(Duration::from_secs(300))).unwrap();
    group.extend(at(50), out[1], Some(Duration::from_secs(300))).unwrap();
    assert_eq!(group.ask(at(60), "b", 20), Turn::StandsBy { until: at(110) });
    group.settle(at(100), out[0], Verdict::Ack, &mut SplitMix64::new(1)).unwrap();
    assert_eq!(group.ask(at(110), "b", 20), Turn::StandsBy { until: at(160) });
}

#[test]
fn a_parked_key_goes_aside_and_the_order_goes_on() {
    let mut group = Group::new(Config { ordered: true, ..exclusive() });
    group.ask(at(0), "a", 1);
    let rng = &mut SplitMix64::new(1);
    let offer =
        |group: &mut Group, position, key| group.offer(at(0), 10 + position, position, Some(key));
    let Offer::Deliver(first) = offer(&mut group, 1, "k") else { panic!() };
    let Offer::Deliver(second) = offer(&mut group, 2, "k") else { panic!("in one hand, in order") };
    group.settle(at(1), first, Verdict::Park, rng).unwrap();
    assert_eq!(offer(&mut group, 3, "k"), Offer::Dead(Cause::BehindKey));
    assert!(matches!(offer(&mut group, 4, "other"), Offer::Deliver(_)));
    let again = Verdict::Retry { after: Some(Duration::ZERO) };
    group.settle(at(1), second, again, rng).unwrap();
    assert_eq!(
        group.wake(at(1), 30),
        Some(Due::Dead { position: 2, attempt: 1, cause: Cause::BehindKey })
    );
    assert_eq!(due(group.wake(at(1), 31)).position, 4);
}

proptest! {
    /// Whatever consumers do and when: what is handed out goes to the active
    /// one, nothing before it waits, and everything ends acknowledged or dead.
    #[test]
    fn order_holds_whatever_happens(seed: u64) {
        let mut rng = SplitMix64::new(seed);
        let mut group = Group::new(Config { lease: Duration::from_secs(20), ..exclusive() });
        let (mut now, mut fence, mut cursor, last) = (0, 0, 1, 30);
        let mut held: Vec<(&str, Receipt)> = Vec::new();
        let mut ended = BTreeSet::new();
        let mut rounds = 0;
        while ended.len() < last as usize {
            rounds += 1;
            prop_assert!(rounds < 100_000, "seed {seed}: it comes to no end");
            now += (rng.unit() * 8.0) as u64;
            let name = ["a", "b", "c"][(rng.unit() * 3.0) as usize];
            fence += 1;
            group.ask(at(now), name, fence);
            if group.active().is_some_and(|active| &*active.consumer == name) {
                fence += 1;
                let mut got = None;
                match group.wake(at(now), fence) {
                    Some(Due::Deliver(receipt)) => got = Some(receipt),
                    Some(Due::Dead { position, .. }) => prop_assert!(ended.insert(position)),
                    None if cursor <= last => match group.offer(at(now), fence, cursor, None) {
                        Offer::Deliver(receipt) => {
                            cursor += 1;
                            got = Some(receipt);
                        }
                        Offer::Full => {}
                        other => prop_assert!(false, "{other:?}"),
                    },
                    None => {}
                }
                if let Some(receipt) = got {
                    let before = group.exceptions.range(..receipt.position);
                    for (position, exception) in before {
                        let leased = matches!(exception.state, State::Leased { .. });
                        prop_assert!(leased, "seed {seed}: {position} waits before {receipt:?}");
                    }
                    held.push((name, receipt));
                }
            }
            if !held.is_empty() && rng.unit() < 0.6 {
                let (who, receipt) = held.swap_remove((rng.unit() * held.len() as f64) as usize);
                let verdict = match (rng.unit() * 6.0) as u8 {
                    0 => Verdict::Retry { after: Some(Duration::from_secs(3)) },
                    1 => Verdict::Release { after: Duration::from_secs(1) },
                    2 => Verdict::Park,
                    _ => Verdict::Ack,
                };
                let active = group.active().map(|active| active.consumer.clone());
                match group.settle(at(now), receipt, verdict, &mut rng) {
                    Ok(Settled::Retry { .. }) => prop_assert_eq!(active.as_deref(), Some(who)),
                    Ok(_) => {
                        prop_assert_eq!(active.as_deref(), Some(who));
                        prop_assert!(ended.insert(receipt.position));
                    }
                    Err(_) => {}
                }
            }
            if rng.unit() < 0.02 {
                group.leave(name);
            }
        }
        prop_assert_eq!(group.view().exceptions, 0);
    }
}
