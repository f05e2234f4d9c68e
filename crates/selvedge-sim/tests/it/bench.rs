//! Speed, as far as a shared machine can tell: a floor that only a blunder would miss.

use std::time::Instant;

use selvedge_sim::model::Service;
use selvedge_sim::replicate::replicate_one;

use crate::support::{exponential, steady};

#[test]
fn one_tier_is_fast_enough() {
    let scenario = steady(0.8, 20 * 400_000, Service::new("queue", exponential(1.0)));
    let from = Instant::now();
    let run = replicate_one(&scenario, 1).unwrap();
    let rate = run.clients.requests as f64 / from.elapsed().as_secs_f64();
    println!("{rate:.0} requests/s on one core");
    assert!(rate > 200_000.0, "{rate:.0} requests/s");
}
