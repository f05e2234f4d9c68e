use proptest::prelude::*;

use super::*;

fn hosts(count: usize) -> Vec<Host> {
    (0..count).map(|_| Host::new()).collect()
}

fn seconds(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1_000)
}

const GATEWAY: Outcome = Outcome::Failure(Failure::Gateway);

fn fail(
    detector: &Detector,
    now: Instant,
    hosts: &[Host],
    index: usize,
    times: usize,
) -> Option<Transition> {
    (0..times).filter_map(|_| detector.settle(now, hosts, index, GATEWAY)).last()
}

/// Gives each host `attempts` in a thousandth-exact success rate, judges, and says who was ejected.
fn judged(config: Config, rates: &[(u32, u32)]) -> Vec<Transition> {
    let hosts = hosts(rates.len());
    let detector = Detector::new(Instant::ZERO, Config { consecutive: None, ..config });
    for (index, &(successes, attempts)) in rates.iter().enumerate() {
        for number in 0..attempts {
            let outcome = if number < successes { Outcome::Success } else { GATEWAY };
            assert_eq!(detector.settle(Instant::ZERO, hosts.as_slice(), index, outcome), None);
        }
    }
    let mut changes = Vec::new();
    detector.wake(seconds(10), hosts.as_slice(), |transition| changes.push(transition));
    changes
}

fn ejected(config: Config, rates: &[(u32, u32)]) -> Vec<usize> {
    judged(config, rates)
        .into_iter()
        .filter(|transition| matches!(transition.change, Change::Ejected { .. }))
        .map(|transition| transition.index)
        .collect()
}

#[test]
fn five_gateway_errors_in_a_row_eject_for_thirty_seconds() {
    let hosts = hosts(4);
    let detector = Detector::new(Instant::ZERO, Config::default());
    assert_eq!(fail(&detector, seconds(1), &hosts, 2, 4), None);
    assert_eq!(
        fail(&detector, seconds(1), &hosts, 2, 1),
        Some(Transition {
            index: 2,
            change: Change::Ejected {
                until: seconds(31),
                times: 1,
                evidence: Evidence::Consecutive(5)
            },
        })
    );
    assert!(hosts[2].ejected(seconds(30)));
    assert!(!hosts[2].ejected(seconds(31)), "nobody needs to wake it");
}

#[test]
fn what_breaks_a_row_and_what_does_not() {
    let broken_by = |outcome| {
        let hosts = hosts(4);
        let detector = Detector::new(Instant::ZERO, Config::default());
        fail(&detector, Instant::ZERO, &hosts, 0, 4);
        detector.settle(Instant::ZERO, hosts.as_slice(), 0, outcome);
        fail(&detector, Instant::ZERO, &hosts, 0, 1).is_none()
    };
    assert!(broken_by(Outcome::Success));
    assert!(broken_by(Outcome::ClientFault));
    assert!(
        broken_by(Outcome::Failure(Failure::Server)),
        "a 500 comes from the service, not from before it"
    );
    assert!(!broken_by(Outcome::Overload { retry_after: None }));
    assert!(!broken_by(Outcome::Cancelled));
    assert!(!broken_by(Outcome::Local));
    assert!(!broken_by(Outcome::Failure(Failure::Refused)));
}

#[test]
fn ejections_grow_and_decay() {
    let hosts = hosts(4);
    let config = Config::default();
    let detector = Detector::new(Instant::ZERO, config);
    let mut now = Instant::ZERO;
    let mut lengths = Vec::new();
    for _ in 0..12 {
        let Some(Transition { change: Change::Ejected { until, .. }, .. }) =
            fail(&detector, now, &hosts, 0, 5)
        else {
            panic!("not ejected at {now:?}");
        };
        lengths.push(until.since(now).as_secs());
        now = until;
        detector.wake(now, hosts.as_slice(), drop);
    }
    assert_eq!(lengths, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
    for _ in 0..9 {
        now = now + config.interval;
        detector.wake(now, hosts.as_slice(), drop);
    }
    assert_eq!(hosts[0].view(now).ejections, 1, "one less for each healthy interval");
    let Some(Transition { change: Change::Ejected { until, times: 2, .. }, .. }) =
        fail(&detector, now, &hosts, 0, 5)
    else {
        panic!("not ejected");
    };
    assert_eq!(until.since(now).as_secs(), 60);
}

#[test]
fn returns_with_a_clean_record() {
    let hosts = hosts(4);
    let detector = Detector::new(Instant::ZERO, Config::default());
    fail(&detector, Instant::ZERO, &hosts, 0, 5);
    // In panic it still gets traffic; that must not count.
    assert_eq!(fail(&detector, seconds(5), &hosts, 0, 50), None);
    let mut changes = Vec::new();
    detector.wake(seconds(30), hosts.as_slice(), |transition| changes.push(transition));
    assert_eq!(changes, [Transition { index: 0, change: Change::Returned }]);
    assert_eq!(
        hosts[0].view(seconds(30)),
        View { ejected_until: None, ejections: 1, consecutive: 0, successes: 0, attempts: 0 }
    );
    assert_eq!(fail(&detector, seconds(30), &hosts, 0, 4), None, "counting begins anew");
}

#[test]
fn an_operator_can_release_it() {
    let hosts = hosts(4);
    let detector = Detector::new(Instant::ZERO, Config::default());
    fail(&detector, Instant::ZERO, &hosts, 0, 5);
    assert!(detector.release(hosts.as_slice(), 0).is_some());
    assert!(!hosts[0].ejected(Instant::ZERO));
    assert_eq!(detector.release(hosts.as_slice(), 0), None);
}

#[test]
fn caps() {
    let most = |count: usize, ejected_max| {
        let hosts = hosts(count);
        let detector = Detector::new(Instant::ZERO, Config { ejected_max, ..Config::default() });
        for index in 0..count {
            fail(&detector, Instant::ZERO, &hosts, index, 5);
        }
        hosts.iter().filter(|host| host.ejected(Instant::ZERO)).count()
    };
    assert_eq!(most(1, 0.3), 0, "never the last one");
    assert_eq!(most(2, 0.3), 1, "one may always go");
    assert_eq!(most(2, 1.0), 1);
    assert_eq!(most(10, 0.3), 3);
    assert_eq!(most(10, 1.0), 9);
    assert_eq!(most(10, 0.0), 0);
}

#[test]
fn a_spared_host_is_reported_with_its_evidence() {
    let hosts = hosts(2);
    let detector = Detector::new(Instant::ZERO, Config::default());
    fail(&detector, Instant::ZERO, &hosts, 0, 5);
    assert_eq!(
        fail(&detector, Instant::ZERO, &hosts, 1, 5),
        Some(Transition {
            index: 1,
            change: Change::Spared { evidence: Evidence::Consecutive(5), ejected: 1 }
        })
    );
}

#[test]
fn success_rate_vectors() {
    let all = |count: usize, laggard: u32| {
        let mut rates = vec![(1_000, 1_000); count - 1];
        rates.push((laggard, 1_000));
        rates
    };
    let Change::Ejected { evidence: Evidence::SuccessRate { rate, mean, cut }, .. } =
        judged(Config::default(), &all(5, 500))[0].change
    else {
        panic!("4 x 100 %, 50 % is ejected");
    };
    assert!(
        (rate - 0.5).abs() < 1e-9 && (mean - 0.9).abs() < 1e-9 && (cut - 0.52).abs() < 1e-9,
        "{rate} {mean} {cut}"
    );
    let Change::Ejected { evidence: Evidence::SuccessRate { cut, .. }, .. } =
        judged(Config::default(), &all(10, 500))[0].change
    else {
        panic!("9 x 100 %, 50 % is ejected");
    };
    assert!((cut - 0.665).abs() < 1e-9, "{cut}");

    // A lone laggard's z is sqrt(N - 1): 1.73 for four, 2.0 for five.
    let four = Config {
        success_rate: Some(SuccessRate { hosts_min: 4, ..SuccessRate::default() }),
        ..Config::default()
    };
    assert_eq!(ejected(four, &all(4, 0)), [0; 0]);
    assert_eq!(ejected(Config::default(), &all(5, 900)), [4]);
    // Two of five: z = 1.22.
    assert_eq!(
        ejected(
            Config::default(),
            &[(1_000, 1_000), (1_000, 1_000), (1_000, 1_000), (0, 1_000), (0, 1_000)]
        ),
        [0; 0]
    );
    // 99.9 % against 100 % is 2 deviations too, but no gap.
    assert_eq!(ejected(Config::default(), &all(5, 999)), [0; 0]);
    let no_gap = Config {
        success_rate: Some(SuccessRate { gap: 0.0, ..SuccessRate::default() }),
        ..Config::default()
    };
    assert_eq!(ejected(no_gap, &all(5, 999)), [4]);
}

#[test]
fn success_rate_needs_hosts_and_attempts() {
    let laggard = |attempts| {
        let mut rates = vec![(attempts, attempts); 4];
        rates.push((0, attempts));
        rates
    };
    assert_eq!(ejected(Config::default(), &laggard(100)), [4]);
    assert_eq!(ejected(Config::default(), &laggard(99)), [0; 0]);
    assert_eq!(ejected(Config::default(), &laggard(100)[1..]), [0; 0], "four hosts");
}

#[test]
fn failure_percentage() {
    let config = Config {
        success_rate: None,
        failure_percentage: Some(FailurePercentage::default()),
        ejected_max: 1.0,
        ..Config::default()
    };
    let rates =
        [(150, 1_000), (151, 1_000), (0, 49), (1_000, 1_000), (1_000, 1_000), (1_000, 1_000)];
    assert_eq!(ejected(config, &rates), [0], "85 % failures, 84.9 %, too few attempts");
}

#[test]
fn counts_start_anew_each_interval() {
    let hosts = hosts(5);
    let detector = Detector::new(Instant::ZERO, Config { consecutive: None, ..Config::default() });
    for (index, outcome) in
        [Outcome::Success, Outcome::Success, Outcome::Success, Outcome::Success, GATEWAY]
            .iter()
            .enumerate()
    {
        for _ in 0..99 {
            detector.settle(Instant::ZERO, hosts.as_slice(), index, *outcome);
        }
    }
    assert_eq!(detector.next_wakeup(), seconds(10));
    detector.wake(seconds(10), hosts.as_slice(), |transition| panic!("{transition:?}"));
    assert_eq!(detector.next_wakeup(), seconds(20));
    assert_eq!(hosts[4].view(seconds(10)).attempts, 0);
}

#[test]
fn wrong_configurations() {
    assert_eq!(Config::default().validate(), Ok(()));
    let wrong = |config: Config| config.validate().unwrap_err().key;
    assert_eq!(wrong(Config { consecutive: Some(0), ..Config::default() }), "consecutive");
    assert_eq!(wrong(Config { cap: Duration::from_secs(1), ..Config::default() }), "cap");
    assert_eq!(wrong(Config { ejected_max: f64::NAN, ..Config::default() }), "ejected_max");
    let rate = SuccessRate { hosts_min: 1, ..SuccessRate::default() };
    assert_eq!(
        wrong(Config { success_rate: Some(rate), ..Config::default() }),
        "success_rate.hosts_min"
    );
}

proptest! {
    /// Whatever happens, the caps hold and every ejection ends.
    #[test]
    fn caps_hold(
        count in 1usize..8,
        ejected_max in 0.0f64..=1.0,
        script in prop::collection::vec((0usize..8, 0u8..3, 0u64..20), 0..300),
    ) {
        let hosts = hosts(count);
        let config = Config { ejected_max, consecutive: Some(2), ..Config::default() };
        let detector = Detector::new(Instant::ZERO, config);
        let cap = ((count as f64 * ejected_max) as usize).max(1).min(count - 1);
        let mut now = Instant::ZERO;
        for (index, outcome, pause) in script {
            now = now + Duration::from_secs(pause);
            let outcome = [Outcome::Success, GATEWAY, GATEWAY][outcome as usize];
            let transition = detector.settle(now, hosts.as_slice(), index % count, outcome);
            if let Some(Transition { change: Change::Ejected { until, .. }, .. }) = transition {
                prop_assert!(until > now && until.since(now) <= config.cap);
            }
            detector.wake(now, hosts.as_slice(), drop);
            prop_assert!(hosts.iter().filter(|host| host.ejected(now)).count() <= cap);
        }
        prop_assert!(hosts.iter().all(|host| !host.ejected(now + config.cap)));
    }
}
