//! The views of the operator API, made from the live state of the patterns.

use selvedge_api::operator::view;
use selvedge_patterns::{
    balance::Standing,
    breaker, budget, bulkhead, outlier,
    service::{Change, EndpointView, Event, Service, View},
    time::{Duration, Instant},
};
use selvedge_proxy::{
    Config,
    config::{self, PathMatch, ValueMatch},
    route::{Asked, Table},
    telemetry::ServiceCounts,
};
use std::collections::VecDeque;
use tracing::{info, warn};

/// Changes that are remembered of each service.
const HISTORY_MAX: usize = 64;

/// The last changes of one service.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<(u64, Event)>);

impl History {
    /// Remembers `event`, which happened at `at_ms` of the Unix epoch.
    pub(super) fn push(&mut self, at_ms: u64, event: Event) {
        if self.0.len() == HISTORY_MAX {
            self.0.pop_front();
        }
        self.0.push_back((at_ms, event));
    }

    fn of_breaker(&self, endpoint: &str) -> Vec<view::Transition> {
        self.0
            .iter()
            .rev()
            .filter(|(_, event)| *event.endpoint == *endpoint)
            .filter_map(|(at_ms, event)| match event.change {
                Change::Breaker(transition) => Some(view::Transition {
                    at_ms: *at_ms,
                    from: transition.from.word().to_owned(),
                    to: transition.to.word().to_owned(),
                    reason: transition.reason.word().to_owned(),
                }),
                _ => None,
            })
            .collect()
    }
}

/// Says what happened to an endpoint of `service`.
pub(super) fn log(service: &str, event: &Event) {
    let endpoint = &*event.endpoint;
    match event.change {
        Change::Breaker(transition) => {
            let (from, to, reason) =
                (transition.from.word(), transition.to.word(), transition.reason.word());
            let calls = transition.counts.calls;
            if transition.to == breaker::State::Open {
                warn!(service, endpoint, from, to, reason, calls, "breaker opened");
            } else {
                info!(service, endpoint, from, to, reason, calls, "breaker changed");
            }
        }
        Change::Outlier(outlier::Change::Ejected { times, evidence, .. }) => {
            warn!(service, endpoint, times, ?evidence, "endpoint ejected");
        }
        Change::Outlier(outlier::Change::Spared { ejected, evidence }) => {
            warn!(
                service,
                endpoint,
                ejected,
                ?evidence,
                "endpoint spared: too many are out already"
            );
        }
        Change::Outlier(outlier::Change::Returned) => {
            info!(service, endpoint, "endpoint back after its ejection");
        }
        Change::Health(transition) => warn!(service, endpoint, ?transition, "active health"),
        Change::Draining(draining) => info!(service, endpoint, draining, "drained by an operator"),
        _ => info!(service, endpoint, change = ?event.change, "endpoint changed"),
    }
}

/// What the operator sees of a service.
pub(super) fn service(
    name: &str,
    service: &Service,
    now: Instant,
    counts: view::Counts,
    history: Option<&History>,
) -> view::Service {
    let seen = service.view(now);
    let history =
        |endpoint: &str| history.map(|history| history.of_breaker(endpoint)).unwrap_or_default();
    view::Service {
        name: name.to_owned(),
        breakers: seen
            .endpoints
            .iter()
            .filter_map(|one| {
                Some(breaker_view(one.breaker?, &one.address, now, history(&one.address)))
            })
            .collect(),
        endpoints: seen.endpoints.iter().map(endpoint).collect(),
        counts,
        in_flight: u64::from(seen.in_flight),
        queued: seen.bulkhead.map_or(0, |bulkhead| u64::from(bulkhead.queued)),
        budget_left: seen.budget.map(budget_left),
        panic: in_panic(&seen),
    }
}

/// A finding of the doctor, for JSON.
pub(super) fn finding(found: selvedge_durable::doctor::Finding) -> view::Finding {
    view::Finding {
        weight: found.weight.word().to_owned(),
        kind: found.kind.to_owned(),
        subject: found.subject,
        what: found.what,
        age_ms: found.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        why: found.why,
        todo: found.todo,
    }
}

/// What was counted of a service.
pub(super) fn counts(counts: ServiceCounts) -> view::Counts {
    view::Counts {
        calls: counts.calls,
        good: counts.good,
        failed: counts.calls.saturating_sub(counts.good).saturating_sub(counts.rejected),
        rejected: counts.rejected,
        attempts: counts.attempts,
        retries: counts.retries,
        hedges: counts.hedges,
        fallbacks: counts.fallbacks,
        latency_ms_sum: milliseconds(counts.time),
        p50_ms: counts.p50.map(milliseconds),
        p99_ms: counts.p99.map(milliseconds),
    }
}

fn endpoint(seen: &EndpointView) -> view::Endpoint {
    view::Endpoint {
        address: seen.address.to_string(),
        state: state(seen).to_owned(),
        weight: seen.weight,
        in_flight: u64::from(seen.pending),
        latency_ms: seen.latency.map(milliseconds),
        ejections: u64::from(seen.outlier.ejections),
    }
}

fn state(seen: &EndpointView) -> &'static str {
    if seen.draining {
        "draining"
    } else if !seen.healthy {
        "unhealthy"
    } else if seen.outlier.ejected_until.is_some() {
        "ejected"
    } else {
        "up"
    }
}

fn breaker_view(
    seen: breaker::View,
    endpoint: &str,
    now: Instant,
    history: Vec<view::Transition>,
) -> view::Breaker {
    view::Breaker {
        endpoint: Some(endpoint.to_owned()),
        state: seen.state.word().to_owned(),
        calls: u64::from(seen.counts.calls),
        failure_rate: seen.failure_rate.unwrap_or(0.0),
        slow_rate: seen.slow_rate.unwrap_or(0.0),
        probes_in_ms: seen.open_until.map(|until| milliseconds(until.since(now))),
        history,
    }
}

fn budget_left(seen: budget::View) -> f64 {
    seen.balance_millionths as f64 / 1e6
}

/// Whether unfit endpoints are used because too few are fit.
fn in_panic(seen: &View) -> bool {
    let unfit = seen.endpoints.iter().filter(|one| one.standing == Standing::Unhealthy).count();
    unfit > 0 && unfit == seen.endpoints.len()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A route as the operator sees it.
pub(super) fn route(route: &config::Route) -> view::Route {
    view::Route {
        name: route.name.clone(),
        matches: matches(&route.matches),
        to: route.to.clone(),
        limit: route.limit.as_ref().map(limit),
    }
}

fn matches(matches: &config::Match) -> String {
    let mut parts = Vec::new();
    if !matches.methods.is_empty() {
        let methods: Vec<&str> = matches.methods.iter().map(http::Method::as_str).collect();
        parts.push(methods.join("|"));
    }
    let hosts = matches.hosts.join("|");
    let path = match &matches.path {
        PathMatch::Any => "/**".to_owned(),
        PathMatch::Exact(path) | PathMatch::Pattern(path) => path.clone(),
        PathMatch::Prefix(path) => format!("{path}/**"),
    };
    parts.push(hosts + &path);
    let value = |value: &ValueMatch| match value {
        ValueMatch::Present => String::new(),
        ValueMatch::Exact(text) => format!("={text}"),
        ValueMatch::Prefix(text) => format!("={text}*"),
    };
    parts.extend(matches.headers.iter().map(|(name, wanted)| format!("{name}{}", value(wanted))));
    parts.extend(matches.query.iter().map(|(name, wanted)| format!("?{name}{}", value(wanted))));
    parts.join(" ")
}

fn limit(limit: &config::Limit) -> String {
    let per = match &limit.per {
        config::Key::Route => "route".to_owned(),
        config::Key::Ip => "caller's address".to_owned(),
        config::Key::Header(name) => format!("header {name}"),
    };
    format!("per {per}")
}

/// What would happen to the request that `question` describes; `steps` gives
/// those of a service.
pub(super) fn explain(
    config: &Config,
    question: &view::Question,
    steps: impl FnOnce(&str) -> Vec<view::Step>,
) -> Result<view::Explanation, String> {
    let uri: http::Uri =
        question.url.parse().map_err(|error| format!("`{}`: {error}", question.url))?;
    let method: http::Method =
        question.method.parse().map_err(|_| format!("`{}` is no method", question.method))?;
    let mut headers = http::HeaderMap::new();
    for (name, value) in &question.headers {
        let name: http::HeaderName = name.parse().map_err(|_| format!("`{name}` is no header"))?;
        headers.append(name, value.parse().map_err(|_| format!("`{value}` is no header's value"))?);
    }
    let listener = match &question.listener {
        None => None,
        Some(name) => Some(
            config
                .listeners
                .iter()
                .position(|listener| listener.name == *name)
                .ok_or_else(|| format!("no listener `{name}`"))?,
        ),
    };
    let host = uri.host().map(str::to_owned).or_else(|| {
        let host = headers.get("host")?.to_str().ok()?;
        Some(host.split(':').next().unwrap_or(host).to_owned())
    });
    let asked = Asked {
        // Most files have one listener; asking without naming it means that one.
        listener: listener.or_else(|| (config.listeners.len() == 1).then_some(0)),
        host: host.as_deref().unwrap_or(""),
        path: uri.path(),
        query: uri.query(),
        method: &method,
        headers: &headers,
    };
    let mut explanation = view::Explanation {
        method: question.method.clone(),
        url: question.url.clone(),
        ..view::Explanation::default()
    };
    let Some(found) = Table::new(&config.routes, &config.listeners).find(&asked) else {
        explanation.verdict = "not_found".to_owned();
        explanation.steps.push(view::Step {
            filter: "route".to_owned(),
            says: format!("none of {} matches", config.routes.len()),
            passes: false,
        });
        return Ok(explanation);
    };
    let route = &config.routes[found];
    explanation.route = Some(route.name.clone());
    explanation.service = Some(route.to.clone());
    explanation.steps.push(view::Step {
        filter: "route".to_owned(),
        says: format!("`{}` matches {}", route.name, matches(&route.matches)),
        passes: true,
    });
    if let Some(limited) = &route.limit {
        let says = format!("limited {}; asking takes nothing from it", limit(limited));
        explanation.steps.push(view::Step { filter: "limit".to_owned(), says, passes: true });
    }
    explanation.steps.extend(steps(&route.to));
    // One closed breaker behind the balancer is enough; its own step says which are not.
    let stopped = explanation.steps.iter().any(|step| !step.passes && step.filter != "breaker");
    explanation.verdict = if stopped { "reject" } else { "forward" }.to_owned();
    Ok(explanation)
}

/// What the policy of a service would do with a call now, step by step, in the
/// order in which a call meets it.
pub(super) fn steps(service: &Service, now: Instant) -> Vec<view::Step> {
    let (policy, seen) = (service.policy(), service.view(now));
    let mut steps = Vec::new();
    let mut step = |filter: &str, passes: bool, says: String| {
        steps.push(view::Step { filter: filter.to_owned(), says, passes });
    };
    if let Some(fallback) = &policy.fallback {
        let says = match fallback.stale_for {
            Some(bound) => format!("a last good answer may serve for {bound:?}"),
            None => "a fixed answer stands by".to_owned(),
        };
        step("fallback", true, says);
    }
    let total = policy
        .timeout
        .total
        .map_or_else(|| "no bound of its own".to_owned(), |total| format!("{total:?} in all"));
    let attempt = policy.timeout.attempt.map_or_else(
        || "an attempt may take all of it".to_owned(),
        |attempt| format!("{attempt:?} for an attempt"),
    );
    step("deadline", true, format!("{total}, {attempt}; less if the caller says so"));
    if let Some(retry) = &policy.retry {
        let budget = seen.budget.map_or_else(String::new, |budget| {
            format!("; the budget pays for {:.1} more now", budget_left(budget))
        });
        step("retry", true, format!("up to {} attempts{budget}", retry.attempts));
    }
    if policy.hedge.is_some() {
        let says = seen.hedge_delay.map_or_else(
            || "not yet: too few calls known".to_owned(),
            |delay| format!("a second attempt after {delay:?}, if repeating is safe"),
        );
        step("hedge", true, says);
    }
    let usable = seen.endpoints.iter().filter(|one| one.standing == Standing::Usable).count();
    let out: Vec<String> = seen
        .endpoints
        .iter()
        .filter(|one| one.standing != Standing::Usable)
        .map(|one| format!("{} is {}", one.address, standing(one)))
        .collect();
    let out = if out.is_empty() { String::new() } else { format!(": {}", out.join(", ")) };
    let excluded = seen.endpoints.iter().all(|one| one.standing == Standing::Excluded);
    step(
        "balance",
        !excluded,
        format!("{usable} of {} endpoints usable{out}", seen.endpoints.len()),
    );
    for one in &seen.endpoints {
        if let Some(breaker) = one.breaker {
            breaker_step(&mut step, one, breaker, now);
        }
    }
    if let Some(bulkhead) = seen.bulkhead {
        let (passes, says) = bulkhead_step(bulkhead);
        step("bulkhead", passes, says);
    }
    steps
}

fn standing(seen: &EndpointView) -> &'static str {
    match (state(seen), seen.breaker.map(|breaker| breaker.state)) {
        ("up", Some(breaker::State::Open | breaker::State::HalfOpen)) => "behind an open breaker",
        ("up", Some(breaker::State::ForcedOpen)) => "behind a breaker that an operator opened",
        ("up", _) => "out of weight",
        (state, _) => state,
    }
}

fn breaker_step(
    step: &mut impl FnMut(&str, bool, String),
    one: &EndpointView,
    seen: breaker::View,
    now: Instant,
) {
    let rate = |rate: Option<f64>| {
        rate.map_or_else(|| "–".to_owned(), |rate| format!("{:.0} %", rate * 100.0))
    };
    let wait = seen
        .open_until
        .map_or_else(String::new, |until| format!(", probes in {:?}", until.since(now)));
    let passes = !matches!(seen.state, breaker::State::Open | breaker::State::ForcedOpen);
    step(
        "breaker",
        passes,
        format!(
            "{} is {}{wait}: {} calls in its window, {} failed, {} slow",
            one.address,
            seen.state.word(),
            seen.counts.calls,
            rate(seen.failure_rate),
            rate(seen.slow_rate),
        ),
    );
}

fn bulkhead_step(seen: bulkhead::View) -> (bool, String) {
    let passes = seen.in_flight < seen.max_in_flight || seen.queued < seen.queue;
    (
        passes,
        format!(
            "{} of {} places taken, {} of {} waiting",
            seen.in_flight, seen.max_in_flight, seen.queued, seen.queue
        ),
    )
}
