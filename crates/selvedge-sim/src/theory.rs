//! What mathematics already knows: the closed forms that the simulator must
//! agree with, that `check` uses at once, and that prune a search.
//!
//! Rates are per second and times in seconds, or both in any one unit: only
//! their products matter. Sources are named at each function.

pub mod fluid;

/// Probability that an arrival waits in M/M/c with `offered` = λ/μ erlangs (Erlang C).
#[must_use]
pub fn erlang_c(servers: u32, offered: f64) -> f64 {
    let servers_f = f64::from(servers);
    if offered >= servers_f {
        return 1.0;
    }
    let blocked = erlang_b(servers, offered);
    let rho = offered / servers_f;
    blocked / (1.0 - rho * (1.0 - blocked))
}

/// Probability that an arrival is lost in M/G/c/c with `offered` erlangs
/// (Erlang B); it does not depend on the law of the service time.
#[must_use]
pub fn erlang_b(servers: u32, offered: f64) -> f64 {
    (1..=servers).fold(1.0, |blocked, k| offered * blocked / (f64::from(k) + offered * blocked))
}

/// Mean wait in the queue of M/M/c.
#[must_use]
pub fn mmc_wait(servers: u32, arrival_rate: f64, service_rate: f64) -> f64 {
    let offered = arrival_rate / service_rate;
    erlang_c(servers, offered) / (f64::from(servers) * service_rate - arrival_rate)
}

/// Mean wait in the queue of M/G/1 (Pollaczek–Khinchine), from the mean service
/// time and its squared coefficient of variation.
#[must_use]
pub fn mg1_wait(arrival_rate: f64, mean_service: f64, scv: f64) -> f64 {
    let rho = arrival_rate * mean_service;
    if rho >= 1.0 { f64::INFINITY } else { rho * mean_service * (1.0 + scv) / (2.0 * (1.0 - rho)) }
}

/// Mean time in M/M/1.
#[must_use]
pub fn mm1_sojourn(arrival_rate: f64, service_rate: f64) -> f64 {
    1.0 / (service_rate - arrival_rate)
}

/// The `q` quantile of the time in M/M/1, which is exponential.
#[must_use]
pub fn mm1_sojourn_quantile(arrival_rate: f64, service_rate: f64, q: f64) -> f64 {
    -libm::log(1.0 - q) / (service_rate - arrival_rate)
}

/// Loss and mean number in system of M/M/1 with room for `room` in all.
#[must_use]
pub fn mm1k(rho: f64, room: u32) -> (f64, f64) {
    let mut weights = 0.0;
    let mut number = 0.0;
    let mut term = 1.0;
    for n in 0..=room {
        weights += term;
        number += term * f64::from(n);
        if n < room {
            term *= rho;
        }
    }
    (term / weights, number / weights)
}

/// Share lost in M/M/1 when whoever has waited `patience` leaves (M/M/1+D).
///
/// Source: Barrer, "Queuing with impatient customers and ordered service",
/// Operations Research 1957.
#[must_use]
pub fn deadline_loss(arrival_rate: f64, service_rate: f64, patience: f64) -> f64 {
    let rho = arrival_rate / service_rate;
    if (rho - 1.0).abs() < 1e-9 {
        return 1.0 / (2.0 + service_rate * patience);
    }
    let e = libm::exp(-(service_rate - arrival_rate) * patience);
    (1.0 - rho) * rho * e / (1.0 - rho * rho * e)
}

/// Answers per second that arrive within `timeout` from M/M/1 when the server
/// goes on working for callers who have left.
#[must_use]
pub fn goodput_without_cancel(arrival_rate: f64, service_rate: f64, timeout: f64) -> f64 {
    if arrival_rate >= service_rate {
        return 0.0;
    }
    arrival_rate * (1.0 - libm::exp(-(service_rate - arrival_rate) * timeout))
}

/// Mean number in orbit of the M/M/1 retrial queue without a waiting room,
/// each blocked call trying again at `retrial_rate`.
///
/// Source: Falin and Templeton, *Retrial Queues*, 1997, §1.
#[must_use]
pub fn retrial_orbit(arrival_rate: f64, service_rate: f64, retrial_rate: f64) -> f64 {
    let rho = arrival_rate / service_rate;
    rho * (arrival_rate + rho * retrial_rate) / ((1.0 - rho) * retrial_rate)
}

/// Throughput and mean response time of `users` who call one exponential
/// server, think for `think` on average, and call again.
///
/// Source: Reiser and Lavenberg, "Mean-value analysis of closed multichain
/// queuing networks", JACM 1980.
#[must_use]
pub fn closed(users: u32, think: f64, service: f64) -> (f64, f64) {
    let (mut queue, mut throughput, mut response) = (0.0, 0.0, 0.0);
    for n in 1..=users {
        response = service * (1.0 + queue);
        throughput = f64::from(n) / (response + think);
        queue = throughput * response;
    }
    (throughput, response)
}

/// Mean rate, and variance over mean of the count in `width`, of arrivals whose
/// rate jumps between two values that last `dwell` on average (MMPP-2).
///
/// Source: Fischer and Meier-Hellstern, "The Markov-modulated Poisson process
/// (MMPP) cookbook", Performance Evaluation 1993.
#[must_use]
pub fn mmpp_counts(rates: [f64; 2], dwell: [f64; 2], width: f64) -> (f64, f64) {
    let shares = dwell.map(|stay| stay / (dwell[0] + dwell[1]));
    let mean = rates[0] * shares[0] + rates[1] * shares[1];
    let jumps = 1.0 / dwell[0] + 1.0 / dwell[1];
    let spread = (rates[0] - rates[1]) * (rates[0] - rates[1]) * shares[0] * shares[1];
    let lasting = width / jumps - (1.0 - libm::exp(-jumps * width)) / (jumps * jumps);
    (mean, 1.0 + 2.0 * spread * lasting / (mean * width))
}

/// Mean time in system (in service times) when each arrival joins the shortest
/// of `choices` queues picked at random, for infinitely many servers.
///
/// Source: Mitzenmacher, "The power of two choices in randomized load
/// balancing", 1996; Vvedenskaya, Dobrushin, Karpelevich 1996. With ten
/// servers the true value is a fifth higher.
#[must_use]
pub fn supermarket_sojourn(load: f64, choices: u32) -> f64 {
    if choices <= 1 {
        return 1.0 / (1.0 - load);
    }
    let d = f64::from(choices);
    let mut sum = 0.0;
    for i in 1..200 {
        let exponent = (libm::pow(d, f64::from(i)) - d) / (d - 1.0);
        let term = libm::pow(load, exponent);
        sum += term;
        if term < 1e-15 {
            break;
        }
    }
    sum
}

/// What hedging Exp(1) work after `delay` gives when the loser is cancelled and nothing queues.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hedged {
    /// Calls sent beyond the first, per call.
    pub extra: f64,
    /// Mean latency.
    pub mean: f64,
    delay: f64,
}

/// Hedging Exp(1) after `delay`.
#[must_use]
pub fn hedge_exponential(delay: f64) -> Hedged {
    let extra = libm::exp(-delay);
    Hedged { extra, mean: 1.0 - extra / 2.0, delay }
}

impl Hedged {
    /// The `q` quantile of the latency.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        let alone = -libm::log(1.0 - q);
        // After the delay two race: P(T > t) = exp(-d) exp(-2 (t - d)).
        if alone <= self.delay { alone } else { self.delay + (alone - self.delay) / 2.0 }
    }
}

/// Mean number of balls in the fullest of `bins` when `balls` are thrown at random.
///
/// There is no closed form; this is exact. The probability that no bin holds
/// more than m is built up bin by bin: of the balls left for the first n bins,
/// the n-th gets a binomial share.
#[must_use]
pub fn fullest_bin(balls: u32, bins: u32) -> f64 {
    // E = Σ P(fullest > m); once all are below m for certain nothing is added.
    let mut mean = 0.0;
    for most in 0..balls {
        let over = 1.0 - none_above(balls, bins, most);
        if over < 1e-12 {
            break;
        }
        mean += over;
    }
    mean
}

fn none_above(balls: u32, bins: u32, most: u32) -> f64 {
    let balls = balls as usize;
    // For one bin: all of them must fit.
    let mut fits: Vec<f64> =
        (0..=balls).map(|j| if j <= most as usize { 1.0 } else { 0.0 }).collect();
    for n in 2..=bins {
        let share = 1.0 / f64::from(n);
        let odds = share / (1.0 - share);
        fits = (0..=balls)
            .map(|j| {
                let mut ways = libm::pow(1.0 - share, j as f64);
                let mut sum = 0.0;
                for k in 0..=j.min(most as usize) {
                    sum += ways * fits[j - k];
                    ways *= (j - k) as f64 / (k + 1) as f64 * odds;
                }
                sum
            })
            .collect();
    }
    fits[balls]
}

/// Probability that at least one of `fan_out` parts is slow when each is with probability `slow`.
#[must_use]
pub fn fan_out_slow(slow: f64, fan_out: u32) -> f64 {
    1.0 - libm::pow(1.0 - slow, f64::from(fan_out))
}

/// Mean time until `needed` of `asked` parallel Exp(1) have answered.
#[must_use]
pub fn quorum_mean(needed: u32, asked: u32) -> f64 {
    (asked - needed + 1..=asked).map(|k| 1.0 / f64::from(k)).sum()
}

/// The `q` quantile of the time until `needed` of `asked` parallel Exp(1) have answered.
#[must_use]
pub fn quorum_quantile(needed: u32, asked: u32, q: f64) -> f64 {
    bisect(0.0, 200.0, |t| {
        let done = 1.0 - libm::exp(-t);
        binomial_at_least(needed, asked, done) - q
    })
}

/// The `q` quantile of the sum of `stages` Exp(1) in series.
#[must_use]
pub fn series_quantile(stages: u32, q: f64) -> f64 {
    bisect(0.0, 50.0 + 10.0 * f64::from(stages), |t| {
        let mut term = 1.0;
        let mut below = 1.0;
        for k in 1..stages {
            term *= t / f64::from(k);
            below += term;
        }
        1.0 - libm::exp(-t) * below - q
    })
}

fn binomial_at_least(needed: u32, trials: u32, p: f64) -> f64 {
    let mut sum = 0.0;
    for k in needed..=trials {
        let ways = (0..k).fold(1.0, |w, i| w * f64::from(trials - i) / f64::from(i + 1));
        sum += ways * libm::pow(p, f64::from(k)) * libm::pow(1.0 - p, f64::from(trials - k));
    }
    sum
}

fn bisect(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if f(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// Mean attempts and success rate when each of at most `1 + retries` attempts fails with probability `failure`.
#[must_use]
pub fn retries(failure: f64, retries: u32) -> (f64, f64) {
    let attempts = (0..=retries).map(|k| libm::pow(failure, f64::from(k))).sum();
    (attempts, 1.0 - libm::pow(failure, f64::from(retries) + 1.0))
}

/// Leaf calls per user call when `layers` each make `attempts` tries and the
/// leaf fails independently with probability `failure`: a geometric sum over
/// the product of all attempts, not the product of the means.
#[must_use]
pub fn nested_attempts(failure: f64, layers: u32, attempts: u32) -> f64 {
    let most = libm::pow(f64::from(attempts), f64::from(layers));
    if failure >= 1.0 { most } else { (1.0 - libm::pow(failure, most)) / (1.0 - failure) }
}

/// What a retry budget deposits into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Funding {
    /// Every request pays in.
    Requests,
    /// Only successes pay in.
    Successes,
}

/// Attempts and successes per request under a saturated budget of `deposit`
/// retries, when attempts fail independently with probability `failure`.
#[must_use]
pub fn budgeted(failure: f64, deposit: f64, funding: Funding) -> (f64, f64) {
    let extra = match funding {
        Funding::Requests => deposit,
        Funding::Successes => {
            let per_attempt = deposit * (1.0 - failure);
            if per_attempt >= 1.0 { f64::INFINITY } else { per_attempt / (1.0 - per_attempt) }
        }
    };
    // A budget larger than the failures to spend it on is not saturated.
    let wanted = failure / (1.0 - failure).max(f64::MIN_POSITIVE);
    let extra = extra.min(wanted);
    (1.0 + extra, ((1.0 + extra) * (1.0 - failure)).min(1.0))
}

/// Load on a dead leaf below `layers` of request-funded budgets of `deposit`.
#[must_use]
pub fn layered_budget(deposit: f64, layers: u32) -> f64 {
    libm::pow(1.0 + deposit, f64::from(layers))
}

/// Sends and local reject share of the SRE adaptive throttle at its fixed point.
///
/// Source: *Site Reliability Engineering*, ch. 21: reject with probability
/// max(0, (requests − K·accepts) / (requests + 1)).
#[must_use]
pub fn throttle(offered: f64, accepted: f64, k: f64) -> (f64, f64) {
    let sends = (k * accepted).min(offered);
    (sends, 1.0 - sends / offered)
}

/// Seconds until a full token bucket first refuses steady arrivals.
#[must_use]
pub fn bucket_first_refusal(burst: f64, refill: f64, arrivals: f64) -> f64 {
    if arrivals <= refill { f64::INFINITY } else { burst / (arrivals - refill) }
}

/// Mean window of the AIMD sawtooth as a share of its peak `window`, its cycle
/// in round trips, and the units sent in a cycle.
#[must_use]
pub fn aimd(window: f64, step: f64, backoff: f64) -> (f64, f64, f64) {
    let mean = (1.0 + backoff) / 2.0;
    let cycle = window * (1.0 - backoff) / step;
    (mean, cycle, mean * window * cycle)
}

/// Times of the first `drops` CoDel drops after the first one, in units of `interval`'s.
///
/// Source: Nichols and Jacobson, RFC 8289: the next drop comes after interval/√count.
#[must_use]
pub fn codel_drops(interval: f64, drops: u32) -> Vec<f64> {
    (1..=drops)
        .scan(0.0, |at, n| {
            *at += interval / libm::sqrt(f64::from(n));
            Some(*at)
        })
        .collect()
}

/// Mean total wait before retry `retry` (from 1) under full jitter.
#[must_use]
pub fn full_jitter_cumulative(base: f64, factor: f64, cap: f64, retry: u32) -> f64 {
    (0..retry).map(|k| (base * libm::pow(factor, f64::from(k))).min(cap) / 2.0).sum()
}

/// Throughput at concurrency `n` by the universal scalability law.
///
/// Source: Gunther, *Guerrilla Capacity Planning*, 2007.
#[must_use]
pub fn usl(gamma: f64, sigma: f64, kappa: f64, n: f64) -> f64 {
    gamma * n / (1.0 + sigma * (n - 1.0) + kappa * n * (n - 1.0))
}

/// The concurrency at which the universal scalability law peaks.
#[must_use]
pub fn usl_peak(sigma: f64, kappa: f64) -> f64 {
    libm::sqrt((1.0 - sigma) / kappa)
}

/// Whether a full outage can leave a retry storm behind: the system is healthy
/// without retries, not with all of them, and can queue more than it can
/// answer in time.
#[must_use]
pub fn storm_possible(offered: f64, capacity: f64, retries: f64, timeout: f64, queue: f64) -> bool {
    offered < capacity && offered * (1.0 + retries) > capacity && queue > capacity * timeout
}

#[cfg(test)]
mod tests;
