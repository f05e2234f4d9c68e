//! Every interleaving of two threads on each piece that has no lock, or more
//! than one word under it.

use loom::sync::Arc;
use loom::thread;

use crate::limit::gcra::Tat;
use crate::limit::{Config, Pace, Rate};
use crate::outcome::{Failure, Outcome, Safety};
use crate::time::{Duration, Instant};
use crate::{balance, breaker, budget, bulkhead, hedge, outlier, quantile};

/// Runs `work` in two threads at once on the same `shared`.
fn both<S, T>(shared: S, work: fn(&S, usize) -> T) -> (S, T, T)
where
    S: Send + Sync + 'static,
    T: Send + 'static,
{
    let shared = Arc::new(shared);
    let other = thread::spawn({
        let shared = Arc::clone(&shared);
        move || work(&shared, 1)
    });
    let mine = work(&shared, 0);
    let theirs = other.join().unwrap();
    let shared = Arc::try_unwrap(shared).ok().expect("the other thread has ended");
    (shared, mine, theirs)
}

#[test]
fn gcra_admits_exactly_the_burst() {
    loom::model(|| {
        let pace =
            Pace::new(Config { rate: Rate::per_second(1), burst: 3, ..Config::default() }).unwrap();
        let (_, mine, theirs) = both((Tat::new(), pace), |(tat, pace), _| {
            (0..2).filter(|_| tat.admit(Instant::ZERO, pace, 1).is_ok()).count()
        });
        assert_eq!(mine + theirs, 3);
    });
}

#[test]
fn hedges_never_exceed_what_was_saved() {
    loom::model(|| {
        let config = hedge::Config {
            delay: hedge::Delay::Fixed(Duration::from_millis(1)),
            share: 0.5,
            burst: 1,
            ..Default::default()
        };
        let (hedge, mine, theirs) = both(hedge::Hedge::new(Instant::ZERO, config), |hedge, _| {
            let sent = hedge.admit(Safety::Safe, 0).is_ok();
            hedge.deposit();
            sent
        });
        let after = usize::from(hedge.admit(Safety::Safe, 0).is_ok());
        let sent = usize::from(mine) + usize::from(theirs) + after;
        // One to begin with, and two halves; a half that came while it was full is lost.
        assert!((1..=2).contains(&sent), "{sent}");
    });
}

#[test]
fn two_hosts_cannot_both_take_the_last_place() {
    loom::model(|| {
        let config = outlier::Config { consecutive: Some(1), ..Default::default() };
        let hosts = [outlier::Host::new(), outlier::Host::new()];
        let ((hosts, _), mine, theirs) = both(
            (hosts, outlier::Detector::new(Instant::ZERO, config)),
            |(hosts, detector), index| {
                let outcome = Outcome::Failure(Failure::Gateway);
                let transition = detector.settle(Instant::ZERO, hosts.as_slice(), index, outcome);
                matches!(
                    transition.map(|transition| transition.change),
                    Some(outlier::Change::Ejected { .. })
                )
            },
        );
        assert!(mine ^ theirs, "one goes, one stays");
        assert_eq!(hosts.iter().filter(|host| host.ejected(Instant::ZERO)).count(), 1);
    });
}

#[test]
fn every_start_is_taken_back_once() {
    loom::model(|| {
        let (load, ..) = both(balance::Load::new(), |load, _| {
            load.start();
            load.settle(
                Instant::ZERO,
                &balance::Config::default(),
                Duration::from_millis(1),
                Outcome::Success,
            );
        });
        assert_eq!(load.pending(), 0);
        let estimate = load.estimate(Instant::ZERO, &balance::Config::default());
        assert_eq!(estimate, Some(Duration::from_millis(1)));
    });
}

#[test]
fn one_rotation_however_many_readers() {
    loom::model(|| {
        let period = Duration::from_secs(1);
        let shared = quantile::Shared::new(Instant::ZERO, 0.5, period, 1);
        shared.record(Instant::ZERO, Duration::from_millis(1));
        let (_, mine, theirs) =
            both(shared, |shared, _| shared.get(Instant::from_millis(1_000)).is_some());
        assert!(mine && theirs, "neither reads an empty half");
    });
}

#[test]
fn the_last_extra_attempt_goes_to_one() {
    loom::model(|| {
        let config = budget::Config { ratio: 1.0, per_second: 0, ..Default::default() };
        let budget = budget::Budget::new(config);
        budget.success(Instant::ZERO);
        let (budget, mine, theirs) = both(budget, |budget, _| {
            let extra = budget.admit(Instant::ZERO, 0);
            extra.map(|extra| budget.settle(extra)).is_ok()
        });
        assert!(mine ^ theirs, "neither both nor none");
        let view = budget.view(Instant::ZERO);
        assert_eq!((view.balance_millionths, view.extra_in_flight), (0, 0));
    });
}

/// Two failures reach the minimum together: it opens once, and a success of
/// before changes nothing.
#[test]
fn a_breaker_opens_once() {
    loom::model(|| {
        let config = breaker::Config { min_calls: 2, ..Default::default() };
        let breaker = breaker::Shared::new(Instant::ZERO, config, 1);
        let (breaker, mine, theirs) = both(breaker, |breaker, _| {
            let (permit, _) = breaker.admit(Instant::ZERO);
            let permit = permit.expect("closed until two have failed");
            breaker.settle(Instant::ZERO, permit, Outcome::Failure(Failure::Server))
        });
        assert!(mine.is_some() ^ theirs.is_some());
        assert_eq!(breaker.view(Instant::ZERO).state, breaker::State::Open);
        assert!(!breaker.ready(Instant::ZERO));
    });
}

#[test]
fn one_probe_is_admitted_once() {
    loom::model(|| {
        let config = breaker::Config { min_calls: 1, probes: 1, ..Default::default() };
        let breaker = breaker::Shared::new(Instant::ZERO, config, 1);
        let permit = breaker.admit(Instant::ZERO).0.expect("closed");
        breaker.settle(Instant::ZERO, permit, Outcome::Failure(Failure::Server));
        let (_, mine, theirs) =
            both(breaker, |breaker, _| breaker.admit(Instant::from_millis(60_000)).0.is_ok());
        assert!(mine ^ theirs);
    });
}

/// A release never overlooks who joins the queue at that moment.
#[test]
fn whoever_queues_is_granted_what_is_released() {
    loom::model(|| {
        let config = bulkhead::Config { max_in_flight: 1, queue: 1, ..Default::default() };
        let (bulkhead, mine, theirs) =
            both(bulkhead::Bulkhead::new(config, None), |bulkhead, _| {
                match bulkhead.admit(Instant::ZERO, Instant::MAX) {
                    bulkhead::Decision::Admitted(permit) => {
                        bulkhead.release(Instant::ZERO, permit);
                        None
                    }
                    bulkhead::Decision::Queued { ticket, .. } => Some(ticket),
                    bulkhead::Decision::Rejected(rejected) => panic!("{rejected:?}"),
                }
            });
        if let Some(ticket) = mine.or(theirs) {
            assert_eq!(bulkhead.granted(), Some(ticket));
            match bulkhead.claim(Instant::ZERO, ticket) {
                bulkhead::Claim::Admitted(permit) => bulkhead.release(Instant::ZERO, permit),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((bulkhead.view().in_flight, bulkhead.view().queued), (0, 0));
    });
}

/// Two partitions never lend out more than the pool has, and give it all back.
#[test]
fn a_pool_lends_only_what_it_has() {
    loom::model(|| {
        let config = bulkhead::Config { max_in_flight: 2, ..Default::default() };
        let (pool, partitions) = bulkhead::Pool::partitioned(1, &[0, 0]).expect("it fits");
        let partitions: Vec<_> = partitions
            .into_iter()
            .map(|partition| bulkhead::Bulkhead::new(config, Some(partition)))
            .collect();
        let (partitions, mine, theirs) =
            both(partitions, |partitions, index| partitions[index].try_admit());
        assert!(mine.is_some() ^ theirs.is_some());
        for (partition, permit) in partitions.iter().zip([mine, theirs]) {
            permit.into_iter().for_each(|permit| partition.release(Instant::ZERO, permit));
        }
        assert_eq!(pool.spare(), 1);
    });
}
