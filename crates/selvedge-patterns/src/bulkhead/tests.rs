use proptest::prelude::*;

use super::*;

const T: Instant = Instant::from_millis(1_000);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(max_in_flight: u32, queue: u32) -> Config {
    Config { max_in_flight, queue, ..Config::default() }
}

fn bulkhead(max_in_flight: u32, queue: u32) -> Bulkhead {
    Bulkhead::new(config(max_in_flight, queue), None)
}

#[track_caller]
fn admitted(decision: Decision) -> Permit {
    match decision {
        Decision::Admitted(permit) => permit,
        other => panic!("not admitted but {other:?}"),
    }
}

#[track_caller]
fn queued(decision: Decision) -> Ticket {
    match decision {
        Decision::Queued { ticket, .. } => ticket,
        other => panic!("not queued but {other:?}"),
    }
}

#[track_caller]
fn claimed(claim: Claim) -> Permit {
    match claim {
        Claim::Admitted(permit) => permit,
        other => panic!("not admitted but {other:?}"),
    }
}

/// Catalogue vector "bulkhead-split": D hangs and takes all its forty; B and C
/// do not notice.
#[test]
fn one_hung_dependency_takes_only_its_own() {
    let [b, c, d] = [30, 30, 40].map(|max| bulkhead(max, 0));
    let hung: Vec<Permit> = (0..40).map(|_| admitted(d.admit(T, Instant::MAX))).collect();
    assert_eq!(
        d.admit(T, Instant::MAX),
        Decision::Rejected(Rejected { reason: Reason::Full, in_flight: 40, queued: 0 })
    );
    for other in [&b, &c] {
        let permits: Vec<Permit> =
            (0..30).map(|_| admitted(other.admit(T, Instant::MAX))).collect();
        permits.into_iter().for_each(|permit| other.release(T, permit));
    }
    hung.into_iter().for_each(|permit| d.release(T, permit));
    assert_eq!(d.view().in_flight, 0);
}

#[test]
fn a_release_goes_to_who_has_waited_longest() {
    let bulkhead = bulkhead(1, 2);
    let permit = admitted(bulkhead.admit(T, Instant::MAX));
    let first = queued(bulkhead.admit(T, Instant::MAX));
    let second = queued(bulkhead.admit(T, Instant::MAX));
    assert!(matches!(
        bulkhead.admit(T, Instant::MAX),
        Decision::Rejected(Rejected { reason: Reason::QueueFull, in_flight: 1, queued: 2 })
    ));
    assert_eq!(bulkhead.claim(T, first), Claim::Waiting { until: T + ms(50) });
    assert_eq!(bulkhead.granted(), None);

    bulkhead.release(T, permit);
    assert_eq!(bulkhead.granted(), Some(first));
    assert_eq!(bulkhead.granted(), None);
    assert!(bulkhead.try_admit().is_none(), "nobody slips past the queue");
    let permit = claimed(bulkhead.claim(T, first));
    bulkhead.release(T, permit);
    assert_eq!(bulkhead.granted(), Some(second));
    let permit = claimed(bulkhead.claim(T, second));
    bulkhead.release(T, permit);
    assert_eq!((bulkhead.view().in_flight, bulkhead.view().queued), (0, 0));
}

#[test]
fn last_in_first_out() {
    let config = Config { order: Order::Lifo, ..config(1, 3) };
    let bulkhead = Bulkhead::new(config, None);
    let permit = admitted(bulkhead.admit(T, Instant::MAX));
    let _first = queued(bulkhead.admit(T, Instant::MAX));
    let second = queued(bulkhead.admit(T, Instant::MAX));
    bulkhead.release(T, permit);
    assert_eq!(bulkhead.granted(), Some(second));
}

#[test]
fn waiting_is_bounded_by_the_queue_and_by_the_deadline() {
    let bulkhead = bulkhead(1, 5);
    let permit = admitted(bulkhead.admit(T, Instant::MAX));
    let patient = queued(bulkhead.admit(T, Instant::MAX));
    let hurried = bulkhead.admit(T, T + ms(20));
    assert!(matches!(hurried, Decision::Queued { until, .. } if until == T + ms(20)));
    let hurried = queued(hurried);
    let too_late = bulkhead.admit(T, T);
    let reason = Reason::QueueTimeout;
    assert_eq!(too_late, Decision::Rejected(Rejected { reason, in_flight: 1, queued: 2 }));
    assert!(matches!(
        bulkhead.claim(T + ms(20), hurried),
        Claim::Rejected(Rejected { reason: Reason::QueueTimeout, .. })
    ));
    // The one whose time is over is passed over, though it has not noticed yet.
    let third = queued(bulkhead.admit(T + ms(30), Instant::MAX));
    bulkhead.release(T + ms(60), permit);
    assert_eq!(bulkhead.granted(), Some(third));
    assert!(matches!(bulkhead.claim(T + ms(60), patient), Claim::Rejected(_)));
}

#[test]
fn a_grant_that_nobody_claims_goes_on() {
    let bulkhead = bulkhead(1, 5);
    let permit = admitted(bulkhead.admit(T, Instant::MAX));
    let gone = queued(bulkhead.admit(T, Instant::MAX));
    let next = queued(bulkhead.admit(T, Instant::MAX));
    let left = queued(bulkhead.admit(T, Instant::MAX));
    bulkhead.cancel(T, left);
    bulkhead.release(T, permit);
    bulkhead.cancel(T, gone);
    let permit = claimed(bulkhead.claim(T, next));
    bulkhead.release(T, permit);
    assert_eq!((bulkhead.view().in_flight, bulkhead.view().queued), (0, 0));
}

#[test]
fn more_room_is_given_to_those_who_wait() {
    let bulkhead = bulkhead(1, 5);
    let first = admitted(bulkhead.admit(T, Instant::MAX));
    let second = queued(bulkhead.admit(T, Instant::MAX));
    bulkhead.reconfigure(T, config(2, 5));
    let second = claimed(bulkhead.claim(T, second));
    bulkhead.reconfigure(T, config(1, 5));
    let third = queued(bulkhead.admit(T, Instant::MAX));
    bulkhead.release(T, first);
    assert!(matches!(bulkhead.claim(T, third), Claim::Waiting { .. }), "it was made smaller");
    bulkhead.release(T, second);
    let third = claimed(bulkhead.claim(T, third));
    bulkhead.release(T, third);
    assert_eq!(bulkhead.view().in_flight, 0);
}

/// Catalogue pattern "bulkhead-elastic": each partition is sure of its
/// minimum, and grows while the pool has something to spare.
#[test]
fn partitions_expand_and_contract() {
    let (pool, partitions) = Pool::partitioned(10, &[2, 3]).unwrap();
    let mut partitions = partitions.into_iter();
    let [a, b] = [6, 8].map(|max| Bulkhead::new(config(max, 0), partitions.next()));
    let of_a: Vec<Permit> = (0..6).map(|_| admitted(a.admit(T, Instant::MAX))).collect();
    assert!(a.try_admit().is_none(), "its maximum");
    let of_b: Vec<Permit> = (0..4).map(|_| admitted(b.admit(T, Instant::MAX))).collect();
    assert!(b.try_admit().is_none(), "three of its own and the last one to spare");
    of_a.into_iter().for_each(|permit| a.release(T, permit));
    let more: Vec<Permit> = (0..4).map(|_| admitted(b.admit(T, Instant::MAX))).collect();
    assert!(b.try_admit().is_none(), "its maximum");
    let sure: Vec<Permit> = (0..2).map(|_| admitted(a.admit(T, Instant::MAX))).collect();
    assert!(a.try_admit().is_none(), "no more than what it is sure of");
    of_b.into_iter().chain(more).for_each(|permit| b.release(T, permit));
    sure.into_iter().for_each(|permit| a.release(T, permit));
    assert_eq!(pool.spare(), 5);
    assert!(Pool::partitioned(4, &[2, 3]).is_err());
}

#[test]
fn nonsense_is_refused() {
    let key = |config: Config| config.validate().map_err(|error| error.key);
    assert_eq!(key(Config::default()), Ok(()));
    assert_eq!(key(config(0, 0)), Err("max_in_flight"));
    assert_eq!(key(config(1, QUEUE_MAX + 1)), Err("queue"));
    assert_eq!(key(Config { queue_for: Duration::ZERO, ..config(1, 1) }), Err("queue_for"));
}

proptest! {
    /// Against a plain model: the same answers, in the same order.
    #[test]
    fn answers_as_a_plain_queue(
        max in 1u32..4,
        queue in 0u32..4,
        steps in proptest::collection::vec((0u8..4, any::<usize>(), 0u64..20), 1..200),
    ) {
        let bulkhead = bulkhead(max, queue);
        let mut now = T;
        let mut running: Vec<Permit> = Vec::new();
        let mut waiting: Vec<(Ticket, Instant)> = Vec::new();
        for (step, which, gap) in steps {
            now = now + ms(gap);
            match step {
                0 | 1 => match bulkhead.admit(now, Instant::MAX) {
                    Decision::Admitted(permit) => {
                        prop_assert!(running.len() < max as usize && waiting.is_empty());
                        running.push(permit);
                    }
                    Decision::Queued { ticket, until } => {
                        prop_assert!(running.len() == max as usize);
                        prop_assert!(waiting.len() < queue as usize);
                        waiting.push((ticket, until));
                    }
                    Decision::Rejected(rejected) => {
                        prop_assert_eq!(rejected.in_flight, max);
                        prop_assert_eq!(waiting.len(), queue as usize);
                    }
                },
                2 if !running.is_empty() => {
                    bulkhead.release(now, running.swap_remove(which % running.len()));
                    // Passes over all whose time is over.
                    let alive = waiting.iter().position(|(_, until)| now < *until);
                    let expected = alive.map(|place| waiting[place].0);
                    prop_assert_eq!(bulkhead.granted(), expected);
                    waiting.drain(..alive.map_or(waiting.len(), |place| place + 1));
                    if let Some(ticket) = expected {
                        running.push(claimed(bulkhead.claim(now, ticket)));
                    }
                }
                3 if !waiting.is_empty() => {
                    let (ticket, _) = waiting.remove(which % waiting.len());
                    bulkhead.cancel(now, ticket);
                }
                _ => {}
            }
            let view = bulkhead.view();
            prop_assert_eq!(view.in_flight as usize, running.len());
            prop_assert_eq!(view.queued as usize, waiting.len());
        }
    }
}
