//! What every case needs: a steady run, and the rule for passing.

use std::time::Instant;

use selvedge_patterns::time::Duration;
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{Arrivals, Client, Scenario, Service};
use selvedge_sim::record::Replication;
use selvedge_sim::replicate::replicate;
use selvedge_sim::statistics::{Estimate, estimate};

/// One time unit of the closed forms, in seconds.
pub(crate) const UNIT: Duration = Duration::from_secs(1);

pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether the long set was asked for: `SELVEDGE_LONG=1`.
pub(crate) fn long() -> bool {
    std::env::var_os("SELVEDGE_LONG").is_some()
}

/// The long set runs with five times the customers, and then the standard
/// error may be no wider than the tolerance.
pub(crate) fn customers(short: u64) -> u64 {
    if long() { short * 5 } else { short }
}

pub(crate) fn exponential(units: f64) -> Distribution {
    Distribution::Exponential { mean: UNIT.mul_f64(units) }
}

/// `services` under Poisson arrivals at `rate` per unit, for about `customers` in all, by 20 seeds.
pub(crate) fn steady(rate: f64, customers: u64, service: Service) -> Scenario {
    let mut scenario =
        Scenario::new("steady", Client::new("web", Arrivals::Poisson { rate }), vec![service]);
    let span = (customers as f64 / 20.0 / rate).max(10.0);
    scenario.run.duration = UNIT.mul_f64(span * 1.1);
    scenario.run.warm_up = UNIT.mul_f64(span * 0.1);
    scenario.run.bin = UNIT.mul_f64(span / 10.0);
    scenario
}

pub(crate) fn run(scenario: &Scenario) -> Vec<Replication> {
    let from = Instant::now();
    let runs = replicate(scenario, threads(), &|_| ()).expect("the scenario is possible");
    for run in &runs {
        assert_eq!(run.broken, None, "seed {}", run.seed);
    }
    let events: u64 = runs.iter().map(|run| run.events).sum();
    let seconds = from.elapsed().as_secs_f64();
    println!(
        "{}: {events} events in {seconds:.2} s, {:.2} M/s",
        scenario.name,
        events as f64 / seconds / 1e6
    );
    runs
}

pub(crate) fn over(runs: &[Replication], of: impl Fn(&Replication) -> f64) -> Estimate {
    estimate(&runs.iter().map(of).collect::<Vec<_>>())
}

/// |mean − truth| ≤ max(3 SE, tolerance), and the standard error itself is no
/// wider than the tolerance, or the case would prove nothing.
#[track_caller]
pub(crate) fn agrees(what: &str, got: Estimate, truth: f64, tolerance: f64) {
    let allowed = (3.0 * got.standard_error).max(tolerance * truth.abs());
    println!("{what}: {:.5} ± {:.5}, truth {truth:.5}", got.mean, got.standard_error);
    assert!(
        (got.mean - truth).abs() <= allowed,
        "{what}: {:.5} ± {:.5}, truth {truth:.5}",
        got.mean,
        got.standard_error
    );
    let wide = if long() { 1.0 } else { 2.0 };
    let width = got.standard_error / truth.abs();
    assert!(
        width <= wide * tolerance,
        "{what}: too few customers, the standard error is {width:.4} of it"
    );
}

/// Mean wait in units of the counted requests of service 0.
pub(crate) fn wait(run: &Replication) -> f64 {
    let totals = &run.services[0];
    totals.wait_sum as f64 / totals.waits as f64 / 1e9
}

pub(crate) fn waited(run: &Replication) -> f64 {
    run.services[0].waited as f64 / run.services[0].waits as f64
}

pub(crate) fn lost(run: &Replication) -> f64 {
    run.services[0].counted_refused as f64 / run.services[0].counted_arrived as f64
}
