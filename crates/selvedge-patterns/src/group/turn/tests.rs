use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(30);

fn at(seconds: u64) -> Wall {
    Wall::from_secs(1_000_000 + seconds)
}

#[test]
fn the_first_is_active_until_it_is_silent_for_too_long() {
    let mut turns = Turns::new(TTL);
    assert_eq!(turns.ask(at(0), "a", 1), Turn::TakesOver);
    assert_eq!(turns.ask(at(0), "b", 2), Turn::StandsBy { until: at(30) });
    assert_eq!(turns.ask(at(20), "a", 3), Turn::Stays);
    assert_eq!(turns.ask(at(30), "b", 4), Turn::StandsBy { until: at(50) });
    assert_eq!(turns.ask(at(50), "b", 5), Turn::TakesOver);
    assert_eq!(turns.ask(at(50), "a", 6), Turn::StandsBy { until: at(80) });
    let active = turns.active().unwrap();
    assert_eq!((&*active.consumer, active.token, active.since), ("b", 5, at(50)));
}

#[test]
fn one_that_was_silent_goes_on_if_nobody_took_its_place() {
    let mut turns = Turns::new(TTL);
    turns.ask(at(0), "a", 1);
    assert_eq!(turns.ask(at(99), "a", 2), Turn::Stays);
    assert_eq!(turns.active().map(|it| (it.token, it.until)), Some((1, at(129))));
}

#[test]
fn one_that_leaves_makes_room_at_once() {
    let mut turns = Turns::new(TTL);
    turns.ask(at(0), "a", 1);
    assert!(!turns.leave("b"));
    assert!(turns.leave("a"));
    assert_eq!(turns.ask(at(1), "b", 2), Turn::TakesOver);
}

#[test]
fn a_renewal_that_gains_little_is_no_change() {
    let mut turns = Turns::new(TTL);
    turns.ask(at(0), "a", 1);
    let before = turns.active().cloned();
    turns.renew(at(2));
    assert_eq!(turns.active().cloned(), before);
    turns.renew(at(3));
    assert_eq!(turns.active().map(|it| it.until), Some(at(33)));
    assert_eq!(turns.renew_at(), Some(at(18)));
}

proptest! {
    /// Whoever is told to stay or take over is the active one, tokens rise with
    /// each change, and nobody takes over from one whose time runs.
    #[test]
    fn at_most_one_is_active(steps in prop::collection::vec((0u64..40, 0usize..4, 0u8..4), 1..200)) {
        let names = ["a", "b", "c", "d"];
        let mut turns = Turns::new(TTL);
        let mut now = 0;
        for (token, (wait, who, what)) in steps.into_iter().enumerate() {
            now += wait;
            let (before, name) = (turns.active().cloned(), names[who]);
            if what == 0 {
                turns.leave(name);
                continue;
            }
            match turns.ask(at(now), name, token as u64 + 1) {
                Turn::Stays => prop_assert_eq!(&*before.unwrap().consumer, name),
                Turn::TakesOver => {
                    if let Some(before) = before {
                        prop_assert!(before.until <= at(now) && before.token < token as u64 + 1);
                    }
                }
                Turn::StandsBy { until } => {
                    prop_assert!(until > at(now));
                    prop_assert_eq!(turns.active(), before.as_ref());
                    continue;
                }
            }
            let active = turns.active().unwrap();
            prop_assert!(&*active.consumer == name && active.until > at(now));
        }
    }
}
