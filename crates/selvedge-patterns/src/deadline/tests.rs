use proptest::prelude::*;

use super::*;

const T: Instant = Instant::from_millis(1_000);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn the_caller_can_shorten_and_never_lengthen() {
    let at = |incoming| Deadline::within(T, Some(ms(500)), Some(T + ms(incoming))).remaining(T);
    assert_eq!(at(200), ms(200));
    assert_eq!(at(2_000), ms(500));
    assert_eq!(Deadline::within(T, Some(ms(500)), None).remaining(T), ms(500));
    assert_eq!(Deadline::within(T, None, None), Deadline::NONE);
}

/// Catalogue vector "deadline": A allows 2 s, B would retry for 30 s; B stops by 2 s.
#[test]
fn a_hop_stops_when_its_caller_has_gone() {
    let from_a = Deadline::within(T, Some(ms(2_000)), None);
    let at_b = Deadline::within(T, Some(ms(30_000)), Some(from_a.instant()));
    assert_eq!(at_b.remaining(T), ms(2_000));
    assert!(at_b.admit(T + ms(1_995), ms(10)).is_err());
}

#[test]
fn an_attempt_needs_its_time() {
    let deadline = Deadline::at(T + ms(100));
    assert_eq!(deadline.admit(T + ms(90), ms(10)), Ok(()));
    assert_eq!(
        deadline.admit(T + ms(91), ms(10)),
        Err(Rejected { remaining: ms(9), needed: ms(10) })
    );
    assert!(deadline.admit(T + ms(100), ms(0)).is_err(), "nothing starts when nothing is left");
    assert_eq!(Deadline::NONE.admit(T, ms(u64::MAX / 2_000_000)), Ok(()));
}

#[test]
fn the_next_hop_gets_the_rest_less_the_margin() {
    let config = Config::default();
    let deadline = Deadline::at(T + ms(100));
    assert_eq!(deadline.forward(T, &config), Some(ms(95)));
    assert_eq!(deadline.forward(T + ms(98), &config), Some(ms(0)));
    assert_eq!(Deadline::NONE.forward(T, &config), None);
}

proptest! {
    /// However many hops, none ends later than the one before it.
    #[test]
    fn each_hop_ends_before_its_caller(own in proptest::collection::vec(1u64..5_000, 1..8)) {
        let config = Config::default();
        let mut deadline = Deadline::NONE;
        for own in own {
            let incoming = deadline.forward(T, &config).map(|left| T + left);
            let next = Deadline::within(T, Some(ms(own)), incoming);
            prop_assert!(next <= deadline);
            prop_assert!(next.cut(T, Some(ms(50))) <= next.instant());
            deadline = next;
        }
    }
}
