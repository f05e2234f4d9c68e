//! What one replication leaves behind.

use crate::histogram::Histogram;

/// One bin of the time series, seen by the clients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bin {
    /// Calls that clients began, user retries not counted.
    pub offered: u32,
    /// Calls that users repeated by hand.
    pub user_retries: u32,
    /// Calls answered well, in time, in this bin.
    pub good: u32,
    /// Tries that failed in this bin.
    pub failed: u32,
    /// Tries that ended because the caller's time was up, in this bin.
    pub timed_out: u32,
    /// Requests alive anywhere at the end of the bin.
    pub alive: u32,
    /// Times from try to good answer.
    pub latency: Histogram,
}

/// One bin of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceBin {
    /// Attempts that reached an instance.
    pub arrived: u32,
    /// Answered well.
    pub done: u32,
    /// Answered with an error of the service itself.
    pub errors: u32,
    /// Turned away: queue full, dropped from the queue, connection refused.
    pub refused: u32,
    /// Calls or attempts that a policy rejected before they reached the service.
    pub rejected: u32,
    /// Work done, in nanoseconds of slots.
    pub busy_ns: u64,
    /// Work done for callers who had left.
    pub wasted_ns: u64,
    /// Waiting at the end of the bin, over all instances.
    pub queued: u32,
    /// In a slot at the end of the bin.
    pub in_service: u32,
    /// Share of (caller, endpoint) breakers that were not closed at the end of the bin.
    pub breaker_open: f32,
    /// Sum of the adaptive concurrency limits over callers, if there are any.
    pub limit: f32,
}

/// Whole-run counts of one service. Integers: they must add up exactly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceTotals {
    /// Calls begun by callers.
    pub calls: u64,
    /// Calls that ended well.
    pub calls_ok: u64,
    /// Calls that ended otherwise.
    pub calls_failed: u64,
    /// First attempts sent.
    pub first_attempts: u64,
    /// Repeated attempts sent.
    pub retries: u64,
    /// Hedged attempts sent.
    pub hedges: u64,
    /// Attempts that reached an instance.
    pub arrived: u64,
    /// Attempts that had ended when the run did.
    pub ended: u64,
    /// Calls still alive when the run ended.
    pub calls_alive: u64,
    /// Attempts still alive when the run ended.
    pub attempts_alive: u64,
    /// Counted requests whose wait is in the sums below.
    pub waits: u64,
    /// Counted requests that had to wait at all.
    pub waited: u64,
    /// Sum of the waits, in nanoseconds.
    pub wait_sum: u128,
    /// Counted requests that arrived.
    pub counted_arrived: u64,
    /// Counted requests that were turned away.
    pub counted_refused: u64,
    /// Mean number of requests present over the counted window.
    pub mean_present: f64,
    /// Share of slots busy over the counted window.
    pub utilisation: f64,
    /// Sum over time of the number present, in request-nanoseconds.
    pub area: u128,
    /// Sum of the times spent, of whoever left and of whoever is still there.
    pub sojourns: u128,
    /// Failed calls that a fallback answered: they count among those that ended well.
    pub fallbacks: u64,
    /// Rejections by reason.
    pub rejections: Vec<(&'static str, u64)>,
}

/// What the clients saw of calls that began in the counted window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientTotals {
    /// Calls.
    pub requests: u64,
    /// Answered well at the first try.
    pub first_try_good: u64,
    /// Answered well in the end.
    pub good: u64,
    /// Not answered well, users' own retries included.
    pub failed: u64,
    /// Not decided when the run was cut off.
    pub undecided: u64,
    /// Tries, users' retries included.
    pub tries: u64,
    /// Times from try to good answer.
    pub latency: Histogram,
}

/// What one replication leaves behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replication {
    /// Its seed.
    pub seed: u64,
    /// Time series of the clients.
    pub bins: Vec<Bin>,
    /// Time series of each service: `services[s][bin]`.
    pub service_bins: Vec<Vec<ServiceBin>>,
    /// Counts of each service.
    pub services: Vec<ServiceTotals>,
    /// Counts over all clients.
    pub clients: ClientTotals,
    /// Counts of each client.
    pub each_client: Vec<ClientTotals>,
    /// Mean number of calls waiting for their user to try again, over the counted window.
    pub mean_orbit: f64,
    /// Whether the memory guard stopped it, and when, in nanoseconds.
    pub diverged_at: Option<u64>,
    /// Events handled.
    pub events: u64,
    /// A digest of every event in order: equal runs have equal digests.
    pub hash: u64,
    /// First thing that did not add up; always `None` unless the simulator is wrong.
    pub broken: Option<String>,
}

impl Replication {
    /// Goodput per bin, per second.
    #[must_use]
    pub fn goodput(&self, bin_seconds: f64) -> Vec<f64> {
        self.bins.iter().map(|bin| f64::from(bin.good) / bin_seconds).collect()
    }

    /// Attempts that reached any service, per bin.
    #[must_use]
    pub fn attempts(&self) -> Vec<f64> {
        (0..self.bins.len())
            .map(|b| self.service_bins.iter().map(|s| f64::from(s[b].arrived)).sum())
            .collect()
    }

    /// Work done for callers who had left, as a share of all work.
    #[must_use]
    pub fn wasted_share(&self) -> f64 {
        let (mut wasted, mut busy) = (0u128, 0u128);
        for bin in self.service_bins.iter().flatten() {
            wasted += u128::from(bin.wasted_ns);
            busy += u128::from(bin.busy_ns);
        }
        if busy == 0 { 0.0 } else { wasted as f64 / busy as f64 }
    }
}
