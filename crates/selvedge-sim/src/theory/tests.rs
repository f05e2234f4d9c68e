//! Closed forms against the published numbers (V7, V16–V29, V32 of the validation list).

use selvedge_patterns::random::{Rng, SplitMix64};

use super::fluid::Storm;
use super::*;

#[track_caller]
fn near(got: f64, expected: f64, relative: f64) {
    assert!(
        (got - expected).abs() <= relative * expected.abs().max(1e-12),
        "got {got}, expected {expected}"
    );
}

#[test]
fn waiting_and_loss() {
    near(erlang_c(5, 4.0), 0.55411, 1e-4);
    near(erlang_c(10, 8.0), 0.40918, 1e-4);
    near(erlang_c(100, 80.0), 0.01965, 1e-3);
    near(erlang_c(5, 2.5), 0.1304, 1e-3);
    near(erlang_c(10, 5.0), 0.0361, 1e-3);
    near(erlang_b(10, 8.0), 0.12166, 1e-4);
    near(erlang_b(5, 4.0), 0.19907, 1e-4);
    near(mmc_wait(10, 8.0, 1.0), 0.20459, 1e-4);
    near(mmc_wait(1, 0.8, 1.0), 4.0, 1e-12);
    near(mg1_wait(0.8, 1.0, 0.0), 2.0, 1e-12);
    near(mg1_wait(0.8, 1.0, 4.0), 10.0, 1e-12);
    near(mm1_sojourn_quantile(90.0, 100.0, 0.99), 0.4605, 1e-3);
    near(mm1k(0.8, 10).0, 0.02349, 1e-3);
    near(mm1k(0.8, 10).1, 2.9663, 1e-4);
    near(mm1k(1.5, 10).0, 0.33723, 1e-4);
    near(mm1k(1.5, 10).1, 8.1287, 1e-4);
    near(deadline_loss(0.8, 1.0, 1.0), 0.27520, 1e-4);
    near(deadline_loss(0.8, 1.0, 5.0), 0.07699, 1e-4);
    near(deadline_loss(1.2, 1.0, 2.0), 0.31182, 1e-4);
    near(deadline_loss(0.8, 1.0, 0.0), erlang_b(1, 0.8), 1e-9);
    near(deadline_loss(1.0, 1.0, 3.0), deadline_loss(1.000_01, 1.0, 3.0), 1e-4);
    near(goodput_without_cancel(90.0, 100.0, 0.1), 56.89, 1e-3);
    near(goodput_without_cancel(90.0, 100.0, 0.5), 89.39, 1e-3);
    near(retrial_orbit(0.8, 1.0, 1.0), 6.4, 1e-9);
    near(retrial_orbit(0.8, 1.0, 0.1), 35.2, 1e-9);
}

#[test]
fn choices_hedges_and_fans() {
    near(supermarket_sojourn(0.9, 1), 10.0, 1e-12);
    near(supermarket_sojourn(0.9, 2), 2.6141, 1e-4);
    near(supermarket_sojourn(0.9, 3), 2.0279, 1e-4);
    near(supermarket_sojourn(0.95, 2), 3.3830, 1e-4);
    near(supermarket_sojourn(0.99, 2), 5.4320, 1e-4);
    let hedged = hedge_exponential(2.9957);
    near(hedged.extra, 0.05, 1e-3);
    near(hedged.mean, 0.975, 1e-3);
    near(hedged.quantile(0.5), core::f64::consts::LN_2, 1e-9);
    near(hedged.quantile(0.99), 3.8005, 1e-4);
    near(hedged.quantile(0.999), 4.9517, 1e-4);
    near(fan_out_slow(0.01, 100), 0.6340, 1e-3);
    near(fan_out_slow(1e-4, 2000), 0.1813, 1e-3);
    near(quorum_quantile(3, 5, 0.99), 2.2477, 1e-4);
    near(quorum_quantile(4, 7, 0.99), 1.9500, 1e-4);
    near(quorum_mean(3, 5), 0.7833, 1e-3);
    near(quorum_mean(4, 7), 0.7595, 1e-3);
    near(series_quantile(3, 0.99), 8.4059, 1e-4);
    near(series_quantile(10, 0.99), 18.783, 1e-4);
}

#[test]
fn retries_budgets_and_buckets() {
    for (p, attempts, success) in
        [(0.1, 1.111, 0.9999), (0.5, 1.875, 0.9375), (0.9, 3.439, 0.3439), (1.0, 4.0, 0.0)]
    {
        near(retries(p, 3).0, attempts, 1e-3);
        near(retries(p, 3).1, success, 1e-3);
    }
    assert_eq!(nested_attempts(1.0, 3, 4), 64.0);
    assert_eq!(nested_attempts(1.0, 5, 3), 243.0);
    near(nested_attempts(0.5, 3, 4), 2.0, 1e-9);
    near(budgeted(0.2, 0.1, Funding::Requests).0, 1.1, 1e-12);
    near(budgeted(0.2, 0.1, Funding::Successes).0, 1.0870, 1e-4);
    near(budgeted(0.5, 0.1, Funding::Successes).0, 1.0526, 1e-4);
    near(budgeted(0.5, 0.1, Funding::Successes).1, 0.5263, 1e-4);
    near(layered_budget(0.1, 3), 1.331, 1e-9);
    near(throttle(1000.0, 100.0, 2.0).0, 200.0, 1e-12);
    near(throttle(1000.0, 100.0, 1.1).1, 0.89, 1e-12);
    near(bucket_first_refusal(100.0, 50.0, 75.0), 4.0, 1e-12);
    let (mean, cycle, units) = aimd(100.0, 1.0, 0.5);
    assert_eq!((mean, cycle, units), (0.75, 50.0, 3750.0));
    near(aimd(100.0, 1.0, 0.9).0, 0.95, 1e-12);
    for (got, expected) in
        codel_drops(100.0, 6).iter().zip([100.0, 170.7, 228.4, 278.4, 323.2, 364.0])
    {
        near(*got, expected, 1e-3);
    }
    for (retry, expected) in
        [50.0, 150.0, 350.0, 750.0, 1550.0, 3150.0, 6350.0, 11350.0].into_iter().enumerate()
    {
        near(full_jitter_cumulative(100.0, 2.0, 10_000.0, retry as u32 + 1), expected, 1e-12);
    }
    near(usl(100.0, 0.02, 0.0005, 10.0), 816.3, 1e-4);
    near(usl_peak(0.02, 0.0005), 44.27, 1e-3);
    near(usl(100.0, 0.02, 0.0005, 44.0), 1568.1, 1e-4);
    near(usl(100.0, 0.02, 0.0005, 100.0), 1261.0, 1e-4);
}

#[test]
fn the_storm_boundary_is_where_retries_fill_the_capacity() {
    let storm = |offered| Storm {
        offered,
        capacity: 300.0,
        timeout: 1.0,
        retries: 1,
        pause: 0.0,
        queue: f64::INFINITY,
    };
    assert!(storm(145.0).run(10.0, 580.0).recovers_after.is_some());
    assert!(storm(155.0).run(10.0, 580.0).recovers_after.is_none());
    assert!(storm(280.0).run(10.0, 580.0).recovers_after.is_none());
    assert!(!storm(145.0).vulnerable() && storm(155.0).vulnerable());
    assert_eq!(storm(145.0).threshold(60.0, 2000.0), None);
    let at_280 = storm(280.0).threshold(60.0, 300.0).unwrap();
    let at_200 = storm(200.0).threshold(60.0, 300.0).unwrap();
    assert!(at_280 < at_200 && at_280 > 0.5, "{at_280} and {at_200}");
    let bounded = Storm { queue: 200.0, ..storm(280.0) };
    assert!(bounded.run(10.0, 60.0).recovers_after.is_some(), "a short queue forgets the outage");
}

/// V18: exact, beside what a published simulation found.
#[test]
fn the_fullest_bin() {
    near(fullest_bin(100, 100), 4.235, 0.005);
    near(fullest_bin(1000, 100), 18.757, 0.005);
    near(fullest_bin(1, 7), 1.0, 1e-12);
    near(fullest_bin(9, 1), 9.0, 1e-12);
    // Two balls, two bins: together half of the time.
    near(fullest_bin(2, 2), 1.5, 1e-12);
}

/// V16: the mean field against many queues played out one jump at a time.
#[test]
fn the_shortest_of_some_queues() {
    const QUEUES: u64 = 1000;
    for (load, choices) in [(0.9, 1), (0.9, 2), (0.9, 3), (0.8, 4), (0.7, 2)] {
        let mut rng = SplitMix64::new(u64::from(choices));
        let mut queues = vec![0u32; QUEUES as usize];
        let (mut present, mut area, mut steps) = (0u64, 0.0, 0.0);
        let most = 24_000_000;
        for step in 0..most {
            // Every queue could end a request at each jump; those without one do nothing.
            if rng.unit() < load / (1.0 + load) {
                let best = (0..choices)
                    .map(|_| rng.below(QUEUES) as usize)
                    .min_by_key(|at| queues[*at])
                    .expect("at least one is looked at");
                queues[best] += 1;
                present += 1;
            } else {
                let at = rng.below(QUEUES) as usize;
                if queues[at] > 0 {
                    queues[at] -= 1;
                    present -= 1;
                }
            }
            if step > most / 10 {
                area += present as f64;
                steps += 1.0;
            }
        }
        // Little: the mean number over the arrival rate, per queue.
        let sojourn = area / steps / QUEUES as f64 / load;
        let tolerance = if choices == 1 { 0.04 } else { 0.015 };
        near(sojourn, supermarket_sojourn(load, choices), tolerance);
    }
}

/// V21: so many of several answers, drawn.
#[test]
fn quorums_of_draws() {
    for (needed, asked) in [(3, 5), (4, 7), (1, 3), (6, 6)] {
        let mut rng = SplitMix64::new(u64::from(asked));
        let mut times: Vec<f64> = (0..200_000)
            .map(|_| {
                let mut answers: Vec<f64> =
                    (0..asked).map(|_| crate::draw::exponential(&mut rng)).collect();
                answers.sort_by(f64::total_cmp);
                answers[needed as usize - 1]
            })
            .collect();
        times.sort_by(f64::total_cmp);
        near(times.iter().sum::<f64>() / 200_000.0, quorum_mean(needed, asked), 0.01);
        near(times[198_000], quorum_quantile(needed, asked, 0.99), 0.01);
    }
}

/// V27: counting requests and accepts for a while ends where the formula says.
#[test]
fn an_adaptive_throttle_settles() {
    for (offered, accepted, k) in
        [(1000.0, 100.0, 2.0), (1000.0, 100.0, 1.1), (500.0, 300.0, 1.5), (50.0, 80.0, 2.0)]
    {
        // Sums over a sliding window, faded by a thousandth a step.
        let (mut requests, mut accepts, mut sends) = (0.0, 0.0, offered);
        for _ in 0..20_000 {
            requests = requests * 0.999 + offered;
            accepts = accepts * 0.999 + f64::min(sends, accepted);
            let reject = ((requests - k * accepts) / (requests + 1.0)).max(0.0);
            sends = offered * (1.0 - reject);
        }
        let (truth, rejected) = throttle(offered, f64::min(accepted, offered), k);
        near(sends, truth, 0.03);
        assert!((1.0 - sends / offered - rejected).abs() < 0.03);
    }
}

/// V29: additive increase, multiplicative decrease, one round trip at a time.
#[test]
fn a_sawtooth_window() {
    for (peak, step, backoff) in
        [(100.0, 1.0, 0.5), (100.0, 1.0, 0.9), (64.0, 0.5, 0.75), (1000.0, 4.0, 0.5)]
    {
        let (mut window, mut sum, mut cycles, mut rounds) = (peak * backoff, 0.0, 0, 0);
        while cycles < 100 {
            // What is sent in a round trip grows over it.
            sum += window + step / 2.0;
            rounds += 1;
            window += step;
            if window >= peak {
                window = peak * backoff;
                cycles += 1;
            }
        }
        let (mean, cycle, units) = aimd(peak, step, backoff);
        near(sum / f64::from(rounds) / peak, mean, 0.01);
        near(f64::from(rounds) / 100.0, cycle, 0.01);
        near(sum / 100.0, units, 0.01);
    }
}
