use proptest::prelude::*;

use super::*;
use crate::outcome::Failure;

const T: Instant = Instant::from_millis(1_000_000);
const FAILED: Outcome = Outcome::Failure(Failure::Server);
const OVERLOAD: Outcome = Outcome::Overload { retry_after: None };

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A breaker without jitter, so that a script can say when.
fn config(window: Window, min_calls: u32) -> Config {
    Config { window, min_calls, jitter: 0.0, ..Config::default() }
}

/// A breaker and the time it lives in.
struct Rig {
    breaker: Breaker,
    now: Instant,
}

impl Rig {
    fn new(config: Config) -> Self {
        config.validate().unwrap();
        Self { breaker: Breaker::new(T, config, 7), now: T }
    }

    fn admit(&mut self) -> Result<Permit, Rejected> {
        self.breaker.admit(self.now).0
    }

    /// One call that takes no time; rejected calls are left at that.
    fn call(&mut self, outcome: Outcome) {
        self.call_for(Duration::ZERO, outcome);
    }

    fn call_for(&mut self, took: Duration, outcome: Outcome) {
        if let Ok(permit) = self.admit() {
            self.now = self.now + took;
            self.breaker.settle(self.now, permit, outcome);
        }
    }

    fn calls(&mut self, count: usize, outcome: Outcome) {
        (0..count).for_each(|_| self.call(outcome));
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.breaker.wake(self.now);
    }
}

/// Runs `script` (`.` a success, `x` a failure, `o` an overload, `c` the
/// caller's fault, a digit that many seconds) and expects the states after each
/// step: `-` closed, `O` open, `H` half-open.
#[track_caller]
fn check(config: Config, script: &str, trace: &str) {
    let mut rig = Rig::new(config);
    let seen: String = script
        .chars()
        .map(|step| {
            match step {
                '.' => rig.call(Outcome::Success),
                'x' => rig.call(FAILED),
                'o' => rig.call(OVERLOAD),
                'c' => rig.call(Outcome::ClientFault),
                step => rig.pass(secs(u64::from(step.to_digit(10).expect("a digit")))),
            }
            match rig.breaker.state() {
                State::Closed => '-',
                State::Open => 'O',
                State::HalfOpen => 'H',
                State::ForcedOpen | State::Disabled => '?',
            }
        })
        .collect();
    assert_eq!(seen, trace, "script {script}");
}

/// Catalogue vectors breaker-50, breaker-50b, breaker-50c.
#[test]
fn half_of_ten_with_at_least_five() {
    let ten = config(Window::Calls(10), 5);
    check(ten, "xxxx", "----");
    check(ten, "xx.x.", "----O");
    check(ten, ".....xxxxx", "---------O");
}

/// Catalogue vectors breaker-open-fast and breaker-cooldown.
#[test]
fn open_rejects_and_one_probe_decides() {
    let one =
        Config { probes: 1, open_for: secs(30), open_growth: 1.0, ..config(Window::Calls(2), 2) };
    check(one, "xx9993.", "-OOOOH-");
    check(one, "xx9993x", "-OOOOHO");
    let mut rig = Rig::new(one);
    rig.calls(2, FAILED);
    rig.pass(secs(10));
    let rejected = rig.admit().expect_err("it is open");
    assert_eq!(rejected.retry_after, Some(secs(20)));
    assert_eq!(rejected.counts, Counts { calls: 2, failed: 2, slow: 0 });
    assert_eq!(rejected.code(), "circuit_open");
    rig.pass(secs(20));
    let _probe = rig.admit().expect("one probe");
    assert_eq!(rig.admit().expect_err("and only one").code(), "circuit_probing");
}

/// Resilience vector 2: a window that really slides opens at exactly half,
/// however long it was healthy.
#[test]
fn a_long_healthy_past_does_not_delay_opening() {
    for size in [64, 100] {
        for healthy in [100, 1_000, 10_000] {
            let mut rig = Rig::new(config(Window::Calls(size), size));
            rig.calls(healthy, Outcome::Success);
            rig.calls(size as usize / 2 - 1, FAILED);
            assert_eq!(rig.breaker.state(), State::Closed);
            rig.call(FAILED);
            assert_eq!(rig.breaker.state(), State::Open, "{size} after {healthy}");
        }
        let mut rig = Rig::new(config(Window::Calls(size), size));
        rig.calls(size as usize - 1, FAILED);
        assert_eq!(rig.breaker.state(), State::Closed, "the minimum is not reached");
        rig.call(FAILED);
        assert_eq!(rig.breaker.state(), State::Open);
    }
}

/// Resilience vector 1: Resilience4j's scenario. Its half-open waits for all
/// probes; ours reopens as soon as the rest cannot save it.
#[test]
fn resilience4j_scenario() {
    let scenario = Config {
        slow: Some(Slow { over: secs(4), rate: 0.5 }),
        probes: 4,
        ..config(Window::Time(secs(20)), 5)
    };
    let mut rig = Rig::new(scenario);
    rig.calls(3, FAILED);
    rig.call(Outcome::Success);
    assert_eq!(rig.breaker.view(rig.now).failure_rate, None, "unknown is not zero");
    assert_eq!(rig.breaker.state(), State::Closed);
    rig.call(Outcome::Success);
    assert_eq!(rig.breaker.state(), State::Open);
    let view = rig.breaker.view(rig.now);
    assert_eq!((view.failure_rate, view.counts.calls), (Some(0.6), 5));
    assert!(rig.admit().is_err());
    assert_eq!(rig.breaker.view(rig.now).rejected, 1);

    let mut rig = Rig::new(scenario);
    rig.call_for(secs(5), FAILED);
    rig.call_for(secs(5), Outcome::Success);
    rig.call_for(ms(100), FAILED);
    rig.call_for(ms(100), Outcome::Success);
    assert_eq!(rig.breaker.state(), State::Closed);
    rig.call_for(secs(5), Outcome::Success);
    assert_eq!(rig.breaker.state(), State::Open);
    let last = *rig.breaker.history().last().unwrap();
    assert_eq!((last.reason, last.counts.slow), (Reason::SlowRate, 3));

    rig.pass(secs(5));
    let probes: Vec<_> = (0..4).map(|_| rig.admit().expect("four probes")).collect();
    assert!(rig.admit().is_err() && rig.admit().is_err());
    for (probe, outcome) in probes.into_iter().zip([FAILED, FAILED, Outcome::Success, FAILED]) {
        rig.breaker.settle(rig.now, probe, outcome);
    }
    assert_eq!(rig.breaker.state(), State::Open);
    rig.pass(secs(10));
    let again = (0..6).filter(|_| rig.admit().is_ok()).count();
    assert_eq!(again, 4, "reopening restores the probes");
}

/// Resilience vector 3: gobreaker opens on the sixth failure in a row.
#[test]
fn a_row_of_failures() {
    let row = Config {
        consecutive: Some(6),
        failure_rate: None,
        probes: 1,
        ..config(Window::Calls(10), 1)
    };
    check(row, "xxxxx.xxxxxx", "-----------O");
    check(row, "xxxoxxx", "------O");
    check(row, "xxxcxxx", "------O");
}

/// Resilience vector 4: a rolling window sees 9 %, where a tumbling one saw 90 %.
#[test]
fn a_burst_at_the_end_of_a_window() {
    let mut rig =
        Rig::new(Config { failure_rate: Some(0.5), ..config(Window::Time(secs(10)), 20) });
    for call in 0..10_000 {
        rig.pass(ms(1));
        rig.call(if call >= 9_100 { FAILED } else { Outcome::Success });
    }
    let rate = rig.breaker.view(rig.now).failure_rate.unwrap();
    assert!((0.085..0.105).contains(&rate), "{rate}");
    assert_eq!(rig.breaker.state(), State::Closed);
}

/// Resilience vector 14 (linkerd): two failures shut it, a failed probe waits
/// twice as long, and a straggler's success opens nothing.
#[test]
fn linkerd_consecutive() {
    let config = Config {
        consecutive: Some(2),
        failure_rate: None,
        probes: 1,
        open_for: secs(1),
        ..config(Window::Calls(10), 1)
    };
    let mut rig = Rig::new(config);
    let straggler = rig.admit().unwrap();
    rig.calls(2, FAILED);
    assert_eq!(rig.breaker.state(), State::Open);
    assert_eq!(rig.breaker.settle(rig.now, straggler, Outcome::Success), None);
    assert_eq!(rig.breaker.state(), State::Open);
    rig.pass(secs(1));
    rig.call(FAILED);
    assert_eq!(rig.breaker.next_wakeup(), Some(rig.now + secs(2)));
    rig.pass(secs(2));
    rig.call(OVERLOAD);
    assert_eq!(rig.breaker.next_wakeup(), Some(rig.now + secs(4)), "an overload fails the probe");
    rig.pass(secs(4));
    rig.call(Outcome::Success);
    assert_eq!(rig.breaker.state(), State::Closed);
}

#[test]
fn calls_in_flight_that_hang_open_it() {
    let slow = Some(Slow::over(secs(1)));
    let mut rig = Rig::new(Config { slow, ..config(Window::Time(secs(10)), 10) });
    rig.calls(5, Outcome::Success);
    let hung: Vec<_> = (0..5).map(|_| rig.admit().unwrap()).collect();
    rig.pass(ms(990));
    assert!(rig.admit().map(|permit| rig.breaker.abandon(rig.now, permit)).is_ok());
    let due = rig.breaker.next_wakeup().expect("something may become overdue");
    assert!(due >= T + secs(1) && due <= T + ms(1_250), "{due:?}");
    rig.now = due;
    let (answer, transition) = rig.breaker.admit(due);
    assert!(answer.is_err());
    let transition = transition.unwrap();
    assert_eq!(transition.reason, Reason::SlowRate);
    assert_eq!(transition.counts, Counts { calls: 10, failed: 0, slow: 5 });
    for permit in hung {
        assert_eq!(rig.breaker.settle(rig.now, permit, FAILED), None);
    }
}

#[test]
fn what_ended_in_time_is_not_overdue() {
    let slow = Some(Slow::over(secs(1)));
    let mut rig = Rig::new(Config { slow, ..config(Window::Time(secs(10)), 1) });
    for step in 0..2_000 {
        rig.call_for(ms(step % 990), Outcome::Success);
        assert_eq!(rig.breaker.state(), State::Closed);
    }
    let view = rig.breaker.view(rig.now + secs(5));
    assert_eq!((view.overdue, view.counts.slow), (0, 0));
}

#[test]
fn lost_probes_cannot_wedge_it() {
    let mut rig = Rig::new(config(Window::Calls(2), 2));
    rig.calls(2, FAILED);
    rig.pass(secs(5));
    let given_back = rig.admit().unwrap();
    rig.breaker.abandon(rig.now, given_back);
    let lost: Vec<_> = (0..3).map(|_| rig.admit().expect("none is missing")).collect();
    assert!(rig.admit().is_err());
    rig.pass(secs(30));
    assert_eq!(rig.breaker.state(), State::Open, "a probe that does not come back has failed");
    rig.pass(secs(10));
    assert_eq!(rig.breaker.state(), State::HalfOpen);
    for late in lost {
        assert_eq!(rig.breaker.settle(rig.now, late, Outcome::Success), None);
    }
    rig.calls(3, Outcome::Success);
    assert_eq!(rig.breaker.state(), State::Closed);
}

#[test]
fn half_open_says_when_to_come_again() {
    let mut rig = Rig::new(Config { probes: 1, ..config(Window::Calls(2), 2) });
    rig.calls(2, FAILED);
    assert_eq!(rig.breaker.ready_at(), T + secs(5));
    rig.pass(secs(5));
    assert_eq!(rig.breaker.ready_at(), Instant::ZERO);
    let _probe = rig.admit().unwrap();
    assert_eq!(rig.breaker.ready_at(), rig.now + secs(30));
}

#[test]
fn open_times_grow_and_a_healthy_window_forgets_them() {
    let mut rig = Rig::new(Config { probes: 1, ..config(Window::Time(secs(10)), 2) });
    let mut open_times = Vec::new();
    rig.calls(2, FAILED);
    for _ in 0..6 {
        let until = rig.breaker.next_wakeup().unwrap();
        open_times.push(until.since(rig.now).as_secs());
        rig.now = until;
        rig.call(FAILED);
    }
    assert_eq!(open_times, [5, 10, 20, 40, 60, 60]);
    rig.pass(secs(60));
    rig.call(Outcome::Success);
    rig.pass(secs(9));
    rig.calls(2, FAILED);
    assert_eq!(rig.breaker.next_wakeup(), Some(rig.now + secs(60)), "not healthy for long enough");
    rig.pass(secs(60));
    rig.call(Outcome::Success);
    rig.pass(secs(10));
    rig.calls(2, FAILED);
    assert_eq!(rig.breaker.next_wakeup(), Some(rig.now + secs(5)));
}

#[test]
fn jitter_spreads_open_times_and_the_seed_repeats_them() {
    let open_time = |seed| {
        let mut breaker = Breaker::new(T, Config { min_calls: 1, ..Config::default() }, seed);
        let permit = breaker.admit(T).0.unwrap();
        breaker.settle(T, permit, FAILED);
        breaker.next_wakeup().unwrap().since(T)
    };
    let times: Vec<Duration> = (0..200).map(open_time).collect();
    assert!(times.iter().all(|time| (secs(4)..=secs(6)).contains(time)));
    assert!(
        times.iter().any(|time| *time < ms(4_300)) && times.iter().any(|time| *time > ms(5_700))
    );
    assert_eq!(open_time(3), open_time(3));
}

#[test]
fn what_says_nothing_about_the_dependency_counts_for_nothing() {
    for outcome in [Outcome::ClientFault, Outcome::Cancelled, Outcome::Local] {
        let mut rig = Rig::new(config(Window::Calls(10), 1));
        rig.calls(20, outcome);
        assert_eq!(rig.breaker.view(rig.now).counts, Counts::default(), "{outcome:?}");
    }
    check(config(Window::Calls(10), 4), "oooo", "---O");
}

#[test]
fn metrics_only_counts_and_never_opens() {
    let mut rig = Rig::new(Config { metrics_only: true, ..config(Window::Calls(10), 1) });
    rig.calls(20, FAILED);
    assert_eq!(rig.breaker.state(), State::Closed);
    assert_eq!(rig.breaker.view(rig.now).failure_rate, Some(1.0));
}

#[test]
fn an_operator_has_the_last_word() {
    let mut rig = Rig::new(config(Window::Calls(2), 1));
    let before = rig.admit().unwrap();
    let forced = rig.breaker.control(rig.now, Control::ForceOpen).unwrap();
    assert_eq!(
        (forced.from, forced.to, forced.reason),
        (State::Closed, State::ForcedOpen, Reason::Operator)
    );
    let rejected = rig.admit().unwrap_err();
    assert_eq!((rejected.retry_after, rejected.code()), (None, "circuit_forced_open"));
    rig.pass(secs(100_000));
    assert!(rig.admit().is_err());
    assert_eq!(rig.breaker.settle(rig.now, before, Outcome::Success), None);
    assert_eq!(rig.breaker.control(rig.now, Control::ForceOpen), None, "it is already");

    rig.breaker.control(rig.now, Control::Disable).unwrap();
    rig.calls(100, FAILED);
    assert_eq!(rig.breaker.state(), State::Disabled);
    rig.breaker.control(rig.now, Control::Automatic).unwrap();
    rig.call(FAILED);
    assert_eq!(rig.breaker.state(), State::Open);
    assert_eq!(
        rig.breaker.control(rig.now, Control::Automatic),
        None,
        "no operator's state to end"
    );
}

#[test]
fn a_changed_configuration_keeps_the_state() {
    let mut rig = Rig::new(config(Window::Calls(10), 4));
    rig.calls(3, FAILED);
    rig.breaker.reconfigure(Config { open_for: secs(9), ..*rig.breaker.config() });
    rig.call(FAILED);
    assert_eq!(rig.breaker.next_wakeup(), Some(rig.now + secs(9)));
    rig.breaker.reconfigure(config(Window::Time(secs(30)), 4));
    assert_eq!(rig.breaker.state(), State::Open);
}

#[test]
fn history_is_bounded() {
    let mut rig = Rig::new(Config { probes: 1, open_max: secs(5), ..config(Window::Calls(1), 1) });
    rig.call(FAILED);
    for _ in 0..HISTORY {
        rig.pass(secs(5));
        rig.call(FAILED);
    }
    assert_eq!(rig.breaker.history().len(), HISTORY);
    let last = rig.breaker.history().last().unwrap();
    assert_eq!(
        (last.from, last.to, last.reason),
        (State::HalfOpen, State::Open, Reason::ProbesFailed)
    );
}

#[test]
fn a_breaker_that_could_never_open_is_refused() {
    let key = |config: Config| config.validate().map_err(|error| error.key);
    let base = Config::default();
    assert_eq!(key(base), Ok(()));
    assert_eq!(key(Config { window: Window::Calls(10), min_calls: 11, ..base }), Err("min_calls"));
    assert_eq!(key(Config { failure_rate: None, ..base }), Err("failure_rate"));
    assert_eq!(key(Config { failure_rate: Some(f64::NAN), ..base }), Err("failure_rate"));
    assert_eq!(key(Config { failure_rate: Some(0.0), ..base }), Err("failure_rate"));
    assert_eq!(key(Config { probes: 0, ..base }), Err("probes"));
    assert_eq!(key(Config { open_max: secs(1), ..base }), Err("open_max"));
    assert_eq!(key(Config { window: Window::Calls(0), ..base }), Err("window"));
}

#[test]
fn windows_of_one() {
    check(Config { probes: 1, ..config(Window::Calls(1), 1) }, ".x5.x", "-OH-O");
    let instant = Config { probes: 1, ..config(Window::Time(ms(10)), 1) };
    check(instant, ".x5.x", "-OH-O");
}

/// What a thread may do with a breaker.
#[derive(Clone, Debug)]
enum Step {
    Admit,
    Settle(usize, Outcome),
    Abandon(usize),
    Pass(u64),
    Control(Control),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Success),
        4 => Just(FAILED),
        1 => Just(OVERLOAD),
        1 => Just(Outcome::ClientFault),
    ];
    let control =
        prop_oneof![Just(Control::Automatic), Just(Control::ForceOpen), Just(Control::Disable)];
    let step = prop_oneof![
        20 => Just(Step::Admit),
        20 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Settle(which, outcome)),
        2 => any::<usize>().prop_map(Step::Abandon),
        8 => (0u64..3_000).prop_map(Step::Pass),
        1 => control.prop_map(Step::Control),
    ];
    proptest::collection::vec(step, 1..300)
}

proptest! {
    /// The shared form answers as the plain one does, step by step.
    #[test]
    fn shared_equals_plain(steps in steps(), slow: bool, seed: u64) {
        let config = Config {
            min_calls: 3,
            slow: slow.then(|| Slow::over(ms(700))),
            ..Config::default()
        };
        let mut plain = Breaker::new(T, config, seed);
        let shared = Shared::new(T, config, seed);
        let mut permits = Vec::new();
        let mut now = T;
        for step in steps {
            match step {
                Step::Admit => {
                    let (mine, theirs) = (plain.admit(now), shared.admit(now));
                    prop_assert_eq!(&mine, &theirs);
                    if let (Ok(mine), Ok(theirs)) = (mine.0, theirs.0) {
                        permits.push((mine, theirs));
                    }
                }
                Step::Settle(which, outcome) if !permits.is_empty() => {
                    let (mine, theirs) = permits.swap_remove(which % permits.len());
                    prop_assert_eq!(
                        plain.settle(now, mine, outcome),
                        shared.settle(now, theirs, outcome)
                    );
                }
                Step::Abandon(which) if !permits.is_empty() => {
                    let (mine, theirs) = permits.swap_remove(which % permits.len());
                    plain.abandon(now, mine);
                    shared.abandon(now, theirs);
                }
                Step::Settle(..) | Step::Abandon(..) => {}
                Step::Pass(millis) => {
                    now = now + ms(millis);
                    prop_assert_eq!(plain.wake(now), shared.wake(now));
                }
                Step::Control(control) => {
                    prop_assert_eq!(plain.control(now, control), shared.control(now, control));
                }
            }
            prop_assert_eq!(plain.view(now), shared.view(now));
            prop_assert_eq!(plain.ready_at(), shared.ready_at());
            prop_assert_eq!(plain.ready_at() <= now, shared.ready(now));
        }
    }

    /// The laws: while half-open at most the probes are out and judged; while
    /// open nothing is admitted; the overdue never exceed those in flight.
    #[test]
    fn laws(steps in steps(), probes in 1u32..5) {
        let slow = Some(Slow::over(ms(500)));
        let mut rig = Rig::new(Config { probes, slow, min_calls: 3, ..Config::default() });
        let mut permits: Vec<Permit> = Vec::new();
        for step in steps {
            match step {
                Step::Admit => match rig.admit() {
                    Ok(permit) => {
                        prop_assert!(!matches!(rig.breaker.state(), State::Open | State::ForcedOpen));
                        permits.push(permit);
                    }
                    Err(rejected) => prop_assert_eq!(rejected.state, rig.breaker.state()),
                },
                Step::Settle(which, outcome) if !permits.is_empty() => {
                    let permit = permits.swap_remove(which % permits.len());
                    rig.breaker.settle(rig.now, permit, outcome);
                }
                Step::Abandon(which) if !permits.is_empty() => {
                    let permit = permits.swap_remove(which % permits.len());
                    rig.breaker.abandon(rig.now, permit);
                }
                Step::Settle(..) | Step::Abandon(..) => {}
                Step::Pass(millis) => rig.pass(ms(millis)),
                Step::Control(control) => {
                    rig.breaker.control(rig.now, control);
                }
            }
            let out = permits.iter().filter(|permit| permit.generation == rig.breaker.generation);
            let out: Vec<&Permit> = out.collect();
            if rig.breaker.state() == State::HalfOpen {
                prop_assert!(out.iter().all(|permit| permit.is_probe()));
                prop_assert!(rig.breaker.probes.len() as u32 + rig.breaker.probed.calls <= probes);
            }
            let late = out.iter().filter(|permit| rig.now.since(permit.started) >= ms(500)).count();
            let overdue = rig.breaker.view(rig.now).overdue as usize;
            prop_assert!(overdue <= late, "{overdue} overdue of {late} late");
        }
    }
}
