//! The outages, and the lines of configuration that answer them.

use super::{
    load::{Plan, Visit},
    shop::Fault,
};
use std::time::Duration;

/// One process of the shop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// The service it belongs to, as the configuration names it.
    pub(crate) service: &'static str,
    pub(crate) workers: usize,
    pub(crate) work_ms: u64,
    /// The path it calls through Selvedge on a POST.
    pub(crate) calls: Option<&'static str>,
}

/// The shop. Catalogue has two endpoints.
pub(crate) const SHOP: &[Member] = &[
    Member { service: "catalogue", workers: 16, work_ms: 5, calls: None },
    Member { service: "catalogue", workers: 16, work_ms: 5, calls: None },
    Member { service: "orders", workers: 16, work_ms: 5, calls: Some("payments/charge") },
    Member { service: "payments", workers: 64, work_ms: 15, calls: None },
    Member { service: "reviews", workers: 4, work_ms: 20, calls: None },
];

/// One outage, run twice: without its patterns, and with them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// What goes wrong, and why it hurts.
    pub(crate) story: &'static str,
    /// What the patterns do about it.
    pub(crate) answer: &'static str,
    /// The patterns, for the table.
    pub(crate) patterns: &'static str,
    /// The member of [`SHOP`] that breaks, and how.
    pub(crate) broken: usize,
    fault: Fault,
    /// Whether it answers, but later than any shopper waits.
    slow: bool,
    /// The service whose lines are added, and the lines.
    pub(crate) service: &'static str,
    pub(crate) lines: &'static [&'static str],
    pub(crate) visits: &'static [Visit],
    pub(crate) per_second: f64,
    /// Share of the run after which the fault ends; before the end of the run
    /// there is time to see the shop recover.
    pub(crate) mended_at: f64,
}

const HEALTHY: Fault = Fault { latency_ms: 0, error_rate: 0.0, hang: false, down: false };

/// The share of every run that is healthy, before the fault.
pub(crate) const BREAKS_AT: f64 = 0.2;

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// One run.
    pub(crate) lasting: Duration,
    /// How long a shopper waits. What is slow is four times slower than that.
    pub(crate) patience: Duration,
    /// For reading, between runs.
    pub(crate) pause: Duration,
}

impl Pace {
    /// For people.
    pub(crate) const FULL: Self = Self {
        lasting: Duration::from_millis(7000),
        patience: Duration::from_millis(1000),
        pause: Duration::from_millis(2500),
    };
    /// For tests and the impatient.
    pub(crate) const FAST: Self = Self {
        lasting: Duration::from_millis(1300),
        patience: Duration::from_millis(350),
        pause: Duration::ZERO,
    };
}

/// All of them, in the order they are shown.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        key: "slow_payments",
        title: "Payments turn slow",
        story: "The payment provider answers, four times later than any shopper waits. Checkouts \
                hold every worker of orders, and then pages that need no payment wait too.",
        answer: "A timeout gives the workers back, the breaker stops asking, and orders keeps the \
                 sale to charge it later.",
        patterns: "timeout + breaker + bulkhead",
        broken: 3,
        fault: HEALTHY,
        slow: true,
        service: "payments",
        lines: &[
            "timeout: { attempt: 150ms, total: 200ms }",
            "breaker: { consecutive: 10, open_for: 1s, probes: 1 }",
            "bulkhead: { max_in_flight: 10 }",
        ],
        visits: &[
            Visit { weight: 50, method: "POST", path: "/orders/checkout" },
            Visit { weight: 50, method: "GET", path: "/orders/41" },
        ],
        per_second: 120.0,
        mended_at: 0.9,
    },
    Scenario {
        key: "errors_30_percent",
        title: "30 % of reviews fail",
        story: "Every third page of reviews answers 500.",
        answer: "A GET may be repeated: up to two retries, paid from a budget that successes fill, \
                 so a worse outage cannot become a retry storm.",
        patterns: "retry + budget",
        broken: 4,
        fault: Fault { error_rate: 0.3, ..HEALTHY },
        slow: false,
        service: "reviews",
        lines: &[
            "timeout: { attempt: 400ms, total: 900ms }",
            "retry: { attempts: 4, backoff: { base: 5ms, cap: 50ms, jitter: full }, budget: 60% }",
        ],
        visits: &[Visit { weight: 1, method: "GET", path: "/reviews/7" }],
        per_second: 80.0,
        mended_at: 0.9,
    },
    Scenario {
        key: "dead_endpoint",
        title: "One of two endpoints dies",
        story: "One catalogue process is gone. The balancer keeps sending it half of the shoppers.",
        answer: "Outlier ejection takes it out after a few failures, active health brings it back, \
                 and a retry on the other endpoint hides the failures in between.",
        patterns: "retry + outlier + health",
        broken: 0,
        fault: Fault { down: true, ..HEALTHY },
        slow: false,
        service: "catalogue",
        lines: &[
            "timeout: { connect: 100ms, attempt: 300ms, total: 900ms }",
            "retry: { attempts: 2, backoff: { base: 1ms, cap: 10ms } }",
            "outlier: { consecutive: 3, base: 2s, ejected_max: 50% }",
            "health: { path: /healthz, every: 500ms }",
        ],
        visits: &[Visit { weight: 1, method: "GET", path: "/catalogue/socks" }],
        per_second: 120.0,
        mended_at: 0.9,
    },
    Scenario {
        key: "total_outage",
        title: "Reviews hang, then come back",
        story: "Reviews accepts requests and answers none. When it wakes, it first works through \
                everything that piled up, for shoppers who left long ago.",
        answer: "The breaker opens, so nothing piles up; shoppers see the last good page, marked \
                 stale; a probe finds the recovery.",
        patterns: "timeout + breaker + stale fallback",
        broken: 4,
        fault: Fault { hang: true, ..HEALTHY },
        slow: false,
        service: "reviews",
        lines: &[
            "timeout: { attempt: 200ms, total: 300ms }",
            "breaker: { consecutive: 10, open_for: 500ms, probes: 1 }",
            "fallback: { stale_for: 5m }",
        ],
        visits: &[Visit { weight: 1, method: "GET", path: "/reviews/7" }],
        per_second: 120.0,
        mended_at: 0.75,
    },
];

impl Scenario {
    /// What goes wrong at this pace.
    pub(crate) fn fault(&self, pace: Pace) -> Fault {
        let slow = u64::try_from(pace.patience.as_millis()).unwrap_or(u64::MAX).saturating_mul(4);
        Fault { latency_ms: if self.slow { slow } else { 0 }, ..self.fault }
    }

    /// The shoppers of this scenario: the same ones in both runs.
    pub(crate) fn plan(&self, pace: Pace) -> Plan {
        let seed =
            self.key.bytes().fold(11, |seed: u64, byte| seed.wrapping_mul(131) + u64::from(byte));
        Plan {
            per_second: self.per_second,
            patience: pace.patience,
            in_flight_max: 400,
            seed,
            visits: self.visits,
        }
    }
}
