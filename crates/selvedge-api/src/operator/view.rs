//! What the operator API says, as it appears in JSON.
//!
//! Durations are milliseconds, instants are milliseconds since the Unix epoch,
//! shares run from 0 to 1; every name carries its unit.

use serde::{Deserialize, Serialize};

/// Whether the process is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// It answers at all.
    pub live: bool,
    /// It should be sent traffic: started, not draining, and its store can write.
    pub ready: bool,
    /// Its listeners are open.
    pub started: bool,
    /// Why it is not live or not ready, with the code of the error if there is one.
    pub why: Option<String>,
}

/// What is not as it should be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Doctor {
    /// Whether there is a store to look at.
    pub store: bool,
    /// The worst and oldest first.
    pub findings: Vec<Finding>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Finding {
    /// `stuck` or `attention`.
    pub weight: String,
    /// Its kind, stable: `unattended`, `dead_letters`, `disk`, …
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// What is the matter, with numbers.
    pub what: String,
    /// For how long, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Why it is so.
    pub why: String,
    /// What to do.
    pub todo: String,
}

/// One dependency.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Service {
    /// Its name in the file.
    pub name: String,
    /// Its addresses.
    pub endpoints: Vec<Endpoint>,
    /// Its breakers, one per endpoint; empty when none is configured.
    pub breakers: Vec<Breaker>,
    /// What happened so far.
    pub counts: Counts,
    /// Calls in flight.
    pub in_flight: u64,
    /// Calls waiting in the bulkhead's queue.
    pub queued: u64,
    /// Extra attempts that the budget would allow now; absent without a budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_left: Option<f64>,
    /// Whether the balancer uses every endpoint because too few are well.
    pub panic: bool,
}

/// Totals since the process started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Calls that ended.
    pub calls: u64,
    /// Of these, answered well, by the service or by a fallback.
    pub good: u64,
    /// Answered with the service's failure.
    pub failed: u64,
    /// Answered by selvedge without the service (open breaker, limit, full bulkhead, deadline).
    pub rejected: u64,
    /// Attempts, first ones and extra ones.
    pub attempts: u64,
    /// Repeated attempts.
    pub retries: u64,
    /// Hedged attempts.
    pub hedges: u64,
    /// Answers that came from a fallback.
    pub fallbacks: u64,
    /// Sum of the time of ended calls, in milliseconds.
    pub latency_ms_sum: f64,
    /// Upper bound in milliseconds below which 50 % of all calls stayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// The same for 99 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}

/// One address of a service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    /// `up`, `unhealthy` (active checks), `ejected` (outlier) or `draining`.
    pub state: String,
    /// Its share of the load, relative to the others.
    pub weight: u32,
    /// Attempts in flight.
    pub in_flight: u64,
    /// Moving average of its latency; absent before the first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    /// Times it was ejected.
    pub ejections: u64,
}

/// One breaker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Breaker {
    /// The endpoint it guards; absent when it guards the whole service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `closed`, `open`, `half_open`, `forced_open`, `forced_closed` or `disabled`.
    pub state: String,
    /// Calls in its window.
    pub calls: u64,
    /// Share of them that failed.
    pub failure_rate: f64,
    /// Share of them that were too slow.
    pub slow_rate: f64,
    /// Milliseconds until it may probe; absent unless open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes_in_ms: Option<f64>,
    /// Its last changes, newest first.
    pub history: Vec<Transition>,
}

/// One change of a breaker's state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Transition {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The state before.
    pub from: String,
    /// The state after.
    pub to: String,
    /// Why.
    pub reason: String,
}

/// One address that is listened on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Listener {
    /// Its name in the file.
    pub name: String,
    /// The address it is bound to.
    pub address: String,
    /// What it is for: `edge`, `ambassador` or `operator`.
    pub role: String,
    /// Connections open now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
}

/// One route.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Route {
    /// Its name, given or made from its place.
    pub name: String,
    /// What it matches, in the file's words.
    pub matches: String,
    /// The service it leads to.
    pub to: String,
    /// Its rate limit, in the file's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
}

/// A request that somebody wonders about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The method, upper case.
    pub method: String,
    /// A path with query, or a whole URL.
    pub url: String,
    /// Headers that matter for the match.
    pub headers: Vec<(String, String)>,
    /// The listener it would come in by; any, if absent.
    pub listener: Option<String>,
}

/// What would happen to it now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// The method asked about.
    pub method: String,
    /// The URL asked about.
    pub url: String,
    /// `forward`, `reject` or `not_found`, in a word.
    pub verdict: String,
    /// The route that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The service it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The decisions in the order in which they are taken.
    pub steps: Vec<Step>,
}

/// One decision.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Step {
    /// The filter that decides.
    pub filter: String,
    /// What it says, with the numbers of this moment.
    pub says: String,
    /// Whether the request goes on.
    pub passes: bool,
}

/// Which configuration runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// Counts up with every configuration taken; the first is 1.
    pub generation: u64,
    /// The file it came from.
    pub file: String,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub loaded_at_ms: u64,
    /// Why the last change was refused; absent when the last one was taken.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at_ms: Option<u64>,
    /// The program's version.
    pub version: String,
    /// When the process started, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
}

/// What an action did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// In words.
    pub done: String,
    /// The configuration's generation now.
    pub generation: u64,
}
