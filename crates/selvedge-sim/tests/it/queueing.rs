//! V1 to V15 and neighbours: queues whose answer is a formula.

use selvedge_patterns::time::Duration;
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{OnDisconnect, Service, UserRetry};
use selvedge_sim::theory;

use crate::support::{UNIT, agrees, customers, exponential, lost, over, run, steady, wait, waited};

fn mmc(slots: u32, mean: f64) -> Service {
    Service { slots, ..Service::new("queue", exponential(mean)) }
}

/// V1, V2.
#[test]
fn one_server() {
    for (rho, count, tolerance) in
        [(0.5, 400_000, 0.01), (0.8, 2_000_000, 0.01), (0.9, 4_000_000, 0.015)]
    {
        let mut scenario = steady(rho, customers(count), mmc(1, 1.0));
        scenario.name = format!("M/M/1 at {rho}");
        let runs = run(&scenario);
        agrees("Wq", over(&runs, wait), theory::mmc_wait(1, rho, 1.0), tolerance);
        agrees("P(wait)", over(&runs, waited), rho, tolerance);
        agrees("L", over(&runs, |run| run.services[0].mean_present), rho / (1.0 - rho), tolerance);
        agrees(
            "W",
            over(&runs, |run| run.clients.latency.mean() / 1e9),
            theory::mm1_sojourn(rho, 1.0),
            tolerance,
        );
        agrees("utilisation", over(&runs, |run| run.services[0].utilisation), rho, 0.005);
    }
}

/// V3.
#[test]
fn percentiles_of_one_server() {
    for rho in [0.6, 0.9] {
        let runs = run(&steady(
            rho,
            customers(if rho > 0.8 { 4_000_000 } else { 1_000_000 }),
            mmc(1, 1.0),
        ));
        for (q, tolerance) in [(0.5, 0.02), (0.99, 0.03), (0.999, 0.04)] {
            let got = over(&runs, |run| run.clients.latency.quantile(q) / 1e9);
            agrees(
                &format!("p{q} at {rho}"),
                got,
                theory::mm1_sojourn_quantile(rho, 1.0, q),
                tolerance,
            );
        }
    }
}

/// V4 to V7.
#[test]
fn many_servers() {
    for (slots, offered, count, tolerance) in [
        (5, 4.0, 1_500_000, 0.01),
        (10, 8.0, 2_000_000, 0.01),
        (100, 80.0, 3_000_000, 0.05),
        (5, 2.5, 500_000, 0.02),
        (10, 5.0, 500_000, 0.02),
        (3, 1.7, 500_000, 0.02),
    ] {
        let runs = run(&steady(offered, customers(count), mmc(slots, 1.0)));
        agrees(
            &format!("P(wait) {slots}/{offered}"),
            over(&runs, waited),
            theory::erlang_c(slots, offered),
            tolerance,
        );
        agrees(
            &format!("Wq {slots}/{offered}"),
            over(&runs, wait),
            theory::mmc_wait(slots, offered, 1.0),
            tolerance,
        );
    }
}

/// V8 to V10.
#[test]
fn any_service_time() {
    let bimodal = Distribution::Bimodal {
        fast: Duration::from_millis(100),
        slow: Duration::from_secs(10),
        slow_share: 0.001,
    };
    for (what, time, rho, count, tolerance) in [
        ("M/D/1", Distribution::Constant(UNIT), 0.8, 1_500_000, 0.01),
        ("M/D/1", Distribution::Constant(UNIT), 0.9, 2_500_000, 0.01),
        ("lognormal", Distribution::log_normal_from_moments(UNIT, 4.0), 0.8, 2_500_000, 0.03),
        ("lognormal", Distribution::log_normal_from_moments(UNIT, 2.0), 0.6, 1_000_000, 0.03),
        ("bimodal", bimodal.clone(), 0.8, 3_000_000, 0.05),
    ] {
        let mean = time.mean() / 1e9;
        let rate = rho / mean;
        let truth = theory::mg1_wait(rate, mean, time.scv());
        let runs = run(&steady(rate, customers(count), Service::new("queue", time)));
        agrees(&format!("Wq of {what} at {rho}"), over(&runs, wait), truth, tolerance);
    }
    assert!((theory::mg1_wait(7.27934, bimodal.mean() / 1e9, bimodal.scv()) - 4.0033).abs() < 1e-3);
}

/// V11.
#[test]
fn bounded_queue() {
    for (rho, room) in [(0.8, 10), (1.5, 10), (0.9, 5), (1.1, 20)] {
        let mut service = mmc(1, 1.0);
        service.queue.cap = Some(room - 1);
        let runs = run(&steady(rho, customers(700_000), service));
        let (loss, number) = theory::mm1k(rho, room);
        agrees(&format!("loss {rho}/{room}"), over(&runs, lost), loss, 0.02);
        agrees(
            &format!("L {rho}/{room}"),
            over(&runs, |run| run.services[0].mean_present),
            number,
            0.02,
        );
    }
}

/// V12: Erlang's loss formula does not care about the law of the service time.
#[test]
fn no_queue() {
    for (slots, offered) in [(10, 8.0), (5, 4.0), (3, 6.0)] {
        let laws = [
            exponential(1.0),
            Distribution::Constant(UNIT),
            Distribution::log_normal_from_moments(UNIT, 4.0),
            Distribution::Bimodal { fast: UNIT / 2, slow: UNIT * 3, slow_share: 0.2 },
        ];
        for time in laws {
            let mean = time.mean() / 1e9;
            let mut service = Service { slots, ..Service::new("bulkhead", time) };
            service.queue.cap = Some(0);
            let runs = run(&steady(offered / mean, customers(300_000), service));
            agrees(
                &format!("blocked {slots}/{offered}"),
                over(&runs, lost),
                theory::erlang_b(slots, offered),
                0.015,
            );
        }
    }
}

/// V13.
#[test]
fn impatient_customers() {
    for (rate, patience) in [(0.8, 1.0), (0.8, 5.0), (1.2, 2.0), (0.5, 0.5), (1.0, 3.0)] {
        let mut service = mmc(1, 1.0);
        service.queue.patience = Some(UNIT.mul_f64(patience));
        let runs = run(&steady(rate, customers(600_000), service));
        let truth = theory::deadline_loss(rate, 1.0, patience);
        agrees(&format!("loss {rate}/{patience}"), over(&runs, lost), truth, 0.02);
    }
}

/// V14.
#[test]
fn callers_leave_and_the_server_works_on() {
    for timeout in [0.1, 0.2, 0.5] {
        // The published case is λ=90, μ=100 per second.
        let mut scenario = steady(90.0, customers(2_500_000), mmc(1, 0.01));
        scenario.clients[0].deadline = Some(Duration::from_secs_f64(timeout));
        let runs = run(&scenario);
        let goodput =
            over(&runs, |run| 90.0 * run.clients.good as f64 / run.clients.requests as f64);
        agrees(
            &format!("goodput {timeout}"),
            goodput,
            theory::goodput_without_cancel(90.0, 100.0, timeout),
            0.015,
        );
        agrees("utilisation", over(&runs, |run| run.services[0].utilisation), 0.9, 0.005);
    }
    // With cancellation the wasted work goes away.
    let mut scenario = steady(90.0, 400_000, mmc(1, 0.01));
    scenario.clients[0].deadline = Some(Duration::from_millis(100));
    scenario.services[0].on_disconnect = OnDisconnect::Cancel;
    let runs = run(&scenario);
    let goodput = over(&runs, |run| 90.0 * run.clients.good as f64 / run.clients.requests as f64);
    assert!(goodput.mean > 75.0, "{goodput:?}");
}

/// V15.
#[test]
fn blocked_calls_come_back() {
    for (rate, retrial, count) in
        [(0.8, 1.0, 1_000_000), (0.8, 0.1, 1_500_000), (0.6, 0.5, 500_000)]
    {
        let mut service = mmc(1, 1.0);
        service.queue.cap = Some(0);
        let mut scenario = steady(rate, customers(count), service);
        scenario.clients[0].user_retry = Some(UserRetry {
            probability: 1.0,
            after: exponential(1.0 / retrial),
            attempts: u32::MAX,
        });
        // From an empty orbit it takes a while.
        scenario.run.warm_up = scenario.run.duration / 5;
        let runs = run(&scenario);
        let truth = theory::retrial_orbit(rate, 1.0, retrial);
        agrees(&format!("orbit {rate}/{retrial}"), over(&runs, |run| run.mean_orbit), truth, 0.03);
    }
}
