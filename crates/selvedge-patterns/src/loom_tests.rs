//! Every interleaving of two threads on each piece that has no lock, or more
//! than one word under it.

use loom::sync::Arc;
use loom::thread;

use crate::limit::gcra::Tat;
use crate::limit::{Config, Pace, Rate};
use crate::outcome::{Failure, Outcome, Safety};
use crate::time::{Duration, Instant};
use crate::{balance, hedge, outlier, quantile};

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
