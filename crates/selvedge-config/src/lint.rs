//! What works and will not do what it seems to: the lint of `selvedge check`.
//!
//! Closed forms only; what needs a simulation is `selvedge simulate`'s. Each
//! finding says the numbers it rests on and what to write instead.

mod durable;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use crate::{
    convert::route_name,
    diagnostic::{Code, Diagnostic},
    read::Set,
    schema::{self, After, Basis, File, Retry, Service, Window},
    source::Span,
    value::show_duration as show,
};

/// Worst-case attempts at one service for one call from outside above which nesting is pointed out.
const AMPLIFICATION_MAX: u64 = 4;

/// Everything the linter finds in `file`.
pub(crate) fn lint(file: &File, found: &mut Vec<Diagnostic>) {
    let mut lint = Lint { file, found };
    lint.surfaces();
    lint.durable();
    for (name, service) in file.services.iter() {
        lint.timeouts(name, service);
        lint.retry(name, service);
        lint.breaker(name, service);
        lint.bulkhead(name, service);
        lint.hedge(name, service);
        lint.detection(name, service);
        lint.storm(name, service);
    }
    lint.routes();
    lint.nesting();
    if !lint.found.iter().any(|it| it.code == Code::UNKNOWN_NAME) {
        lint.unused();
    }
}

struct Lint<'a> {
    file: &'a File,
    found: &'a mut Vec<Diagnostic>,
}

fn attempts(service: &Service) -> u32 {
    service.retry.as_ref().map_or(1, |retry| *retry.attempts)
}

/// A duration that nobody would write to the nanosecond.
fn round(duration: Duration) -> Duration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 { duration } else { Duration::from_millis(millis) }
}

impl Lint<'_> {
    fn warn(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    fn surfaces(&mut self) {
        let file = self.file;
        for (name, listener) in file.listeners.iter() {
            if !*listener.insecure {
                self.public(
                    &format!("listener `{name}`"),
                    *listener.bind,
                    listener.bind.span(),
                    "add `insecure: true` beside `bind` if that is meant",
                );
            }
        }
        if let Some(ambassador) = file.ambassador.as_ref().filter(|it| !*it.insecure) {
            self.public(
                "the ambassador",
                *ambassador.bind,
                ambassador.bind.span(),
                "it is for programs on this machine; add `insecure: true` if it is not",
            );
        }
        if let Some(operator) =
            file.operator.as_ref().filter(|it| !*it.insecure && it.token.is_none())
        {
            self.public(
                "the operator API",
                *operator.bind,
                operator.bind.span(),
                "add `token: ${SELVEDGE_TOKEN}`, or `insecure: true` if that is meant",
            );
        }
        if let Some(api) = file.api.as_ref().filter(|it| !*it.insecure && it.token.is_none()) {
            self.public(
                "the app API",
                *api.bind,
                api.bind.span(),
                "add `token: ${SELVEDGE_APP_TOKEN}`, or `insecure: true` if that is meant",
            );
        }
        if let Some((taken, operator)) = self.same_address() {
            let diagnostic = Diagnostic::error(Code::CONFLICT, "two surfaces on one address")
                .at(taken, "the operator API listens there too");
            self.warn(if operator.given() {
                diagnostic.and(operator.span(), "here").help("give one of them another port")
            } else {
                diagnostic.help("take another port, or move the operator API: `operator: { bind: \"127.0.0.1:9909\" }`")
            });
        }
        let durable = file.durable.is_some() || file.needs_a_store();
        if file.services.is_empty() && !durable {
            self.warn(
                Diagnostic::error(Code::MISSING_KEY, "the configuration has nothing to do")
                    .at(file.services.span(), "neither `services` nor `durable` is there")
                    .help("add `services` to stand before, or `durable: selvedge.db`"),
            );
        } else if file.listeners.is_empty()
            && file.ambassador.is_none()
            && !file.services.is_empty()
            && file.subscriptions.iter().all(|(_, it)| it.push.is_none())
        {
            let at = file.services.span();
            self.warn(
                Diagnostic::warning(
                    Code::UNUSED,
                    "nothing listens: no request can reach these services",
                )
                .at(at, "")
                .help("add `listeners: { edge: \"127.0.0.1:8080\" }` or `ambassador: on`"),
            );
        }
    }

    fn public(&mut self, what: &str, bind: SocketAddr, span: Span, help: &str) {
        if bind.ip().to_canonical().is_loopback() {
            return;
        }
        let others = if bind.ip().is_unspecified() {
            "every address of this machine"
        } else {
            "an address that others can reach"
        };
        self.warn(
            Diagnostic::error(
                Code::PUBLIC_BIND,
                format!("{what} listens on {others}, and nobody has to authenticate"),
            )
            .at(span, "")
            .note(format!("`127.0.0.1:{}` is reached from this machine only", bind.port()))
            .help(help),
        );
    }

    /// The operator API against the others, which the data plane compares among themselves.
    fn same_address(&self) -> Option<(Span, &Set<SocketAddr>)> {
        let operator = self.file.operator.as_ref()?;
        let listeners = self.file.listeners.iter().map(|(_, it)| &it.bind);
        let ambassador = self.file.ambassador.iter().map(|it| &it.bind);
        let api = self.file.api.iter().map(|it| &it.bind);
        let mut others = listeners.chain(ambassador).chain(api);
        let other = others.find(|bind| ***bind == *operator.bind && bind.port() != 0)?;
        Some((other.span(), &operator.bind))
    }

    fn timeouts(&mut self, name: &str, service: &Service) {
        let timeout = &service.timeout;
        let attempts = attempts(service);
        match (*timeout.attempt, *timeout.total) {
            (Some(attempt), Some(total)) if attempt.saturating_mul(attempts) > total && attempts > 1 => {
                let all = attempt.saturating_mul(attempts);
                let whole = total.as_nanos() / attempt.as_nanos().max(1);
                let fits = match whole {
                    0 | 1 => "only the first attempt has its full time".to_owned(),
                    whole => format!("only {whole} of them have their full time"),
                };
                let mut diagnostic = Diagnostic::warning(
                    Code::TIMEOUT_INVERSION,
                    format!("`{name}`: {attempts} attempts of {} need {}, and `total` is {}", show(attempt), show(all), show(total)),
                )
                .at(timeout.attempt.span(), fits);
                if let Some(retry) = service.retry.as_ref() {
                    diagnostic = diagnostic.and(retry.attempts.span(), format!("{attempts} attempts"));
                }
                let even = show(round(total / attempts));
                self.warn(diagnostic.help(format!("set `attempt: {even}` or less, or `total: {}` or more", show(all))));
            }
            (None, Some(total)) if attempts > 1 => self.warn(
                Diagnostic::warning(Code::TIMEOUT_INVERSION, format!("`{name}`: an attempt may use up the whole call, so a slow one is never tried again"))
                    .at(timeout.attempt.span(), "")
                    .help(format!("set `attempt: {}`", show(round(total / attempts)))),
            ),
            _ => {}
        }
        if timeout.total.is_none() {
            self.warn(
                Diagnostic::warning(Code::UNBOUNDED, format!("`{name}`: a call may take for ever")).at(timeout.total.span(), "").help("set `total`; for long streams bound `idle` and give their route a `timeout` of its own"),
            );
        }
        if timeout.idle.is_none() {
            self.warn(
                Diagnostic::warning(
                    Code::UNBOUNDED,
                    format!("`{name}`: a response body may stand still for ever"),
                )
                .at(timeout.idle.span(), "")
                .help("set `idle` to the longest silence that is normal"),
            );
        }
        if let Some(attempt) = timeout.attempt.filter(|it| *it <= *timeout.attempt_min) {
            self.warn(
                Diagnostic::warning(
                    Code::INEFFECTIVE,
                    format!(
                        "`{name}`: an attempt of {} is not longer than `attempt_min` of {}",
                        show(attempt),
                        show(*timeout.attempt_min)
                    ),
                )
                .at(timeout.attempt.span(), "no attempt would begin once time has passed")
                .help("lengthen `attempt`"),
            );
        }
    }

    fn retry(&mut self, name: &str, service: &Service) {
        let Some(retry) = service.retry.as_ref().filter(|it| *it.attempts > 1) else { return };
        let times = *retry.attempts;
        match retry.budget.as_ref() {
            None => self.warn(
                Diagnostic::warning(Code::RETRY_UNBOUNDED, format!("`{name}`: retries without a budget: in an outage it receives {times} times the load"))
                    .at(retry.budget.span(), "")
                    .help("set `budget: 20%`: extra attempts as a share of what succeeds"),
            ),
            Some(budget) if budget.ratio.ratio() > 1.0 => self.warn(
                Diagnostic::warning(Code::RETRY_UNBOUNDED, format!("`{name}`: a budget of {} bounds next to nothing", *budget.ratio))
                    .at(budget.ratio.span(), "")
                    .help("10% to 20% is usual"),
            ),
            Some(_) => {}
        }
        let backoff = &retry.backoff;
        if *backoff.base < Duration::from_millis(1) {
            self.warn(
                Diagnostic::warning(
                    Code::RETRY_WITHOUT_BACKOFF,
                    format!(
                        "`{name}`: retries follow after {}, that is at once",
                        show(*backoff.base)
                    ),
                )
                .at(backoff.base.span(), "")
                .help("set `base: 50ms`"),
            );
        }
        if *backoff.jitter == schema::Jitter::None {
            self.warn(
                Diagnostic::warning(
                    Code::RETRY_WITHOUT_BACKOFF,
                    format!(
                        "`{name}`: without jitter, callers that failed together come back together"
                    ),
                )
                .at(backoff.jitter.span(), "")
                .help("set `jitter: full`"),
            );
        }
        if let Some(total) = service.timeout.total.filter(|total| *backoff.base >= *total) {
            self.warn(
                Diagnostic::warning(
                    Code::INEFFECTIVE,
                    format!(
                        "`{name}`: the first wait of {} is as long as the whole call of {}",
                        show(*backoff.base),
                        show(total)
                    ),
                )
                .at(backoff.base.span(), "nothing would be tried again")
                .help("shorten `base`"),
            );
        }
    }

    fn breaker(&mut self, name: &str, service: &Service) {
        let Some(breaker) = service.breaker.as_ref() else { return };
        if let (Window::Time(window), Some(load)) = (*breaker.window, service.load.as_ref()) {
            let endpoints = service.endpoints.len().max(1);
            let seen = load.rate.each_second() * window.as_secs_f64() / endpoints as f64;
            if seen < f64::from(*breaker.min_calls) && breaker.consecutive.is_none() {
                let each = if endpoints > 1 { " on each endpoint" } else { "" };
                self.warn(
                    Diagnostic::warning(Code::BREAKER_UNREACHABLE, format!("`{name}`: at {} a window of {} sees {seen:.0} calls{each}, and rates are judged from {}", *load.rate, show(window), *breaker.min_calls))
                        .at(breaker.min_calls.span(), "the breaker never opens")
                        .and(load.rate.span(), "the load expected")
                        .help(format!("set `min_calls: {}`, widen `window`, or set `consecutive: 5`", (seen / 2.0).floor().max(1.0))),
                );
            }
        }
        let longest = service.timeout.attempt.or(*service.timeout.total);
        if let (Some(slow), Some(attempt)) = (*breaker.slow_call, longest)
            && slow >= attempt
        {
            self.warn(
                Diagnostic::warning(Code::SLOW_CALL_UNREACHABLE, format!("`{name}`: no attempt lasts {}: each ends after {} at the latest", show(slow), show(attempt)))
                    .at(breaker.slow_call.span(), "no call is ever slow")
                    .and(service.timeout.attempt.span(), "an attempt ends here")
                    .help(format!("set `slow_call` below `attempt`, such as {}, or leave it out: timeouts count as failures", show(round(attempt / 2)))),
            );
        }
    }

    fn bulkhead(&mut self, name: &str, service: &Service) {
        let Some(bulkhead) = service.bulkhead.as_ref() else { return };
        if *bulkhead.queue > 0
            && let Some(total) = service.timeout.total.filter(|total| *bulkhead.queue_for >= *total)
        {
            self.warn(
                Diagnostic::warning(
                    Code::QUEUE_OUTLIVES_CALL,
                    format!(
                        "`{name}`: a call may wait {} in the queue, and {} is all it has",
                        show(*bulkhead.queue_for),
                        show(total)
                    ),
                )
                .at(bulkhead.queue_for.span(), "no time is left for the attempt")
                .help(format!("set `queue_for: {}` or less", show(round(total / 10)))),
            );
        }
        if *bulkhead.queue == 0 && bulkhead.queue_for.given() {
            self.warn(
                Diagnostic::warning(
                    Code::INEFFECTIVE,
                    format!("`{name}`: `queue_for` without a queue"),
                )
                .at(bulkhead.queue_for.span(), "nobody waits")
                .help("set `queue` to how many may wait, or take `queue_for` out"),
            );
        }
    }

    fn hedge(&mut self, name: &str, service: &Service) {
        let Some(hedge) = service.hedge.as_ref() else { return };
        if *hedge.idempotent {
            self.warn(
                Diagnostic::warning(Code::UNSAFE_HEDGE, format!("`{name}`: PUT, DELETE and requests with a key are sent twice at the same time"))
                    .at(hedge.idempotent.span(), "")
                    .note("idempotent means that a repeat changes nothing more; few services hold that for two at once")
                    .help("take it out unless the service has been tested for it"),
            );
        }
        if let (After::Fixed(after), Some(attempt)) = (*hedge.after, *service.timeout.attempt)
            && after >= attempt
        {
            self.warn(
                Diagnostic::warning(
                    Code::INEFFECTIVE,
                    format!(
                        "`{name}`: a hedge after {}, when an attempt ends after {}",
                        show(after),
                        show(attempt)
                    ),
                )
                .at(hedge.after.span(), "it is never sent")
                .help("set `after: p95`, or a duration that few attempts reach"),
            );
        }
        if let [only] = service.endpoints.as_slice()
            && only.address.host.parse::<std::net::IpAddr>().is_ok()
        {
            self.warn(
                Diagnostic::warning(
                    Code::INEFFECTIVE,
                    format!("`{name}`: a hedge goes to another endpoint, and there is one"),
                )
                .at(service.hedge.span(), "it is never sent")
                .help("add an endpoint, or take `hedge` out"),
            );
        }
    }

    fn detection(&mut self, name: &str, service: &Service) {
        let several = service.endpoints.len() > 1;
        if service.health.is_none()
            && service.outlier.is_none()
            && (several || service.breaker.is_none())
        {
            let mut diagnostic = Diagnostic::warning(
                Code::BLIND,
                format!("`{name}`: nothing takes a broken endpoint out"),
            );
            diagnostic = diagnostic.at(
                service.outlier.span(),
                "outlier detection is off, and there is no health check",
            );
            self.warn(diagnostic.help("set `health: /healthz` (a path that answers 2xx when all is well), or leave `outlier` on"));
        }
        let weighted = service.endpoints.iter().find(|it| *it.weight != 1);
        if let Some(endpoint) =
            weighted.filter(|_| *service.balance.algorithm == schema::Algorithm::RoundRobin)
        {
            self.warn(
                Diagnostic::warning(
                    Code::INEFFECTIVE,
                    format!("`{name}`: `round_robin` does not heed weights"),
                )
                .at(endpoint.weight.span(), "")
                .and(service.balance.span(), "")
                .help("set `balance: weighted_round_robin`"),
            );
        }
    }

    /// λ(1+R) > C and K > C·τ: an outage would outlast its cause.
    fn storm(&mut self, name: &str, service: &Service) {
        let Some(load) = service.load.as_ref() else { return };
        let Some(capacity) = load.capacity.as_ref() else { return };
        let (arriving, served) = (load.rate.each_second(), capacity.each_second());
        if arriving >= served {
            self.warn(
                Diagnostic::warning(Code::RETRY_STORM, format!("`{name}`: {} arrive and {} can be served: it is overloaded without any fault", *load.rate, capacity))
                    .at(load.capacity.span(), "")
                    .help("add capacity, or limit its routes below it"),
            );
            return;
        }
        let Some(retry) = service.retry.as_ref() else { return };
        let (most, why) = worst_load(arriving, retry);
        if most > served && queues_in_vain(service, served) {
            let safe = served / f64::from(*retry.attempts);
            self.warn(
                Diagnostic::warning(Code::RETRY_STORM, format!("`{name}`: with retries {most:.0}/s arrive in an outage, and {served:.0}/s can be served: it would not recover by itself"))
                    .at(retry.attempts.span(), why)
                    .and(load.capacity.span(), "the capacity expected")
                    .note(format!("an outage ends by itself while rate × attempts stays below capacity: up to {safe:.0}/s with these attempts"))
                    .help("set `budget: 20%` (earned by successes, an outage earns none), or fewer `attempts`"),
            );
        }
    }

    fn routes(&mut self) {
        let file = self.file;
        for (index, route) in file.routes.iter().enumerate() {
            let name = route_name(route);
            if let Some(earlier) =
                file.routes[..index].iter().find(|it| it.matches == route.matches)
            {
                self.warn(
                    Diagnostic::warning(Code::UNUSED, format!("route `{name}` is never taken"))
                        .at(route.matches.span(), "the same match again")
                        .and(
                            earlier.matches.span(),
                            format!("route `{}` takes every such request", route_name(earlier)),
                        )
                        .help("change its match, or take it out"),
                );
            }
            let Some(service) = file.services.get(route.to.as_str()) else { continue };
            let (Some(timeout), Some(attempt)) = (*route.timeout, *service.timeout.attempt) else {
                continue;
            };
            let attempts = attempts(service);
            if attempts > 1
                && attempt.saturating_mul(attempts) > timeout
                && service.timeout.total.is_none_or(|total| timeout < total)
            {
                self.warn(
                    Diagnostic::warning(Code::TIMEOUT_INVERSION, format!("route `{name}`: {attempts} attempts of {} need {}, and its timeout is {}", show(attempt), show(attempt * attempts), show(timeout)))
                        .at(route.timeout.span(), "")
                        .and(service.timeout.attempt.span(), format!("`attempt` of `{}`", route.to.as_str()))
                        .help(format!("shorten the service's `attempt` to {}, or lengthen this", show(round(timeout / attempts)))),
                );
            }
            if service.timeout.total.is_some_and(|total| timeout > total) {
                self.warn(
                    Diagnostic::warning(
                        Code::INEFFECTIVE,
                        format!(
                            "route `{name}`: its timeout of {} is longer than its service's",
                            show(timeout)
                        ),
                    )
                    .at(route.timeout.span(), "the shorter one holds")
                    .and(
                        service.timeout.total.span(),
                        format!("`total` of `{}`", route.to.as_str()),
                    )
                    .help("take it out, or lengthen the service's"),
                );
            }
        }
        if !file.routes.is_empty() && file.listeners.is_empty() && file.ambassador.is_some() {
            self.warn(
                Diagnostic::warning(Code::UNUSED, "routes without a listener")
                    .at(file.routes.span(), "the ambassador goes by service name, not by route")
                    .help("add `listeners:`, or take `routes:` out"),
            );
        }
    }

    /// Timeouts and attempts along every chain of `calls:`.
    fn nesting(&mut self) {
        let file = self.file;
        for (name, service) in file.services.iter() {
            for called in service.calls.iter() {
                let Some(inner) = file.services.get(called.as_str()) else { continue };
                if let (Some(outer), Some(total)) = (*service.timeout.attempt, *inner.timeout.total)
                    && outer < total
                {
                    self.warn(
                        Diagnostic::warning(Code::NESTED_TIMEOUT_INVERSION, format!("an attempt at `{name}` ends after {}, while its own calls of `{}` may go on for {}", show(outer), called.as_str(), show(total)))
                            .at(service.timeout.attempt.span(), format!("`{name}` is given up here"))
                            .and(inner.timeout.total.span(), format!("`{}` goes on working for nobody", called.as_str()))
                            .help(format!("inner below outer: `total` of `{}` below {}, or `attempt` of `{name}` above {}", called.as_str(), show(outer), show(total))),
                    );
                }
            }
        }
        let called: Vec<&str> = file
            .services
            .iter()
            .flat_map(|(_, it)| it.calls.iter().map(|it| it.as_str()))
            .collect();
        let mut chains = Chains { file, worst: HashMap::new(), circle: None };
        for (name, _) in file.services.iter() {
            chains.walk(&mut vec![name.as_str()], 1);
        }
        if let Some((span, circle)) = chains.circle {
            self.warn(
                Diagnostic::error(Code::CONFLICT, format!("services call each other in a circle: {}", circle.join(" → ")))
                    .at(span, "back to the beginning")
                    .help("a call that comes back to its own service has no bound; take one of these `calls` out"),
            );
            return;
        }
        let mut ends: Vec<(&str, Vec<&str>)> =
            chains.worst.into_iter().map(|(end, (_, path))| (end, path)).collect();
        ends.sort();
        for (end, path) in ends {
            // One finding for each chain, at its end.
            let goes_on = file.services.get(end).is_some_and(|it| !it.calls.is_empty());
            if !goes_on && called.contains(&end) {
                self.amplification(&path);
            }
        }
    }

    fn amplification(&mut self, path: &[&str]) {
        let file = self.file;
        let layers: Vec<(&str, &Service)> = path
            .iter()
            .filter_map(|name| Some((*name, file.services.get(name)?)))
            .filter(|(_, service)| attempts(service) > 1)
            .collect();
        let product: u64 = layers.iter().map(|(_, it)| u64::from(attempts(it))).product();
        let [(first, outer), .., (last, _)] = layers.as_slice() else { return };
        if product <= AMPLIFICATION_MAX {
            return;
        }
        let factors: Vec<String> =
            layers.iter().map(|(name, it)| format!("{} at `{name}`", attempts(it))).collect();
        let at =
            outer.retry.as_ref().map_or_else(|| outer.retry.span(), |retry| retry.attempts.span());
        let mut diagnostic = Diagnostic::warning(
            Code::RETRY_AMPLIFICATION,
            format!(
                "retries multiply: one call of `{first}` can become {product} attempts at `{last}`"
            ),
        )
        .at(at, factors.join(" × "));
        for (name, service) in &layers[1..] {
            if let Some(retry) = service.retry.as_ref() {
                diagnostic = diagnostic.and(retry.attempts.span(), format!("`{name}`"));
            }
        }
        let budgets: Option<f64> = layers
            .iter()
            .map(|(_, it)| {
                it.retry.as_ref()?.budget.as_ref().map(|budget| 1.0 + budget.ratio.ratio())
            })
            .product();
        diagnostic = match budgets {
            Some(bound) => diagnostic.note(format!("the budgets bound it to {bound:.2} times in the long run, where every layer runs behind Selvedge")),
            None => diagnostic.note("a layer has no budget, so nothing bounds it"),
        };
        self.warn(diagnostic.help(format!(
            "retry in one layer only, best the one next to the fault: `retry: off` for {}",
            "the others"
        )));
    }

    fn unused(&mut self) {
        let file = self.file;
        if file.ambassador.is_some() || file.listeners.is_empty() {
            return;
        }
        for (name, _) in file.services.iter() {
            let routed = file.routes.iter().any(|route| route.to.as_str() == name.as_str());
            let called = file
                .services
                .iter()
                .any(|(_, it)| it.calls.iter().any(|it| it.as_str() == name.as_str()));
            if !routed && !called {
                self.warn(
                    Diagnostic::warning(
                        Code::UNUSED,
                        format!("no request can reach service `{}`", name.as_str()),
                    )
                    .at(name.span(), "no route goes to it")
                    .help(format!(
                        "add a route with `to: {}`, or `ambassador: on`, or take it out",
                        name.as_str()
                    )),
                );
            }
        }
    }
}

/// The chain of calls with the most attempts to each service.
struct Chains<'a> {
    file: &'a File,
    worst: HashMap<&'a str, (u64, Vec<&'a str>)>,
    circle: Option<(Span, Vec<&'a str>)>,
}

impl<'a> Chains<'a> {
    /// Goes on from the last of `path`, which `times` attempts come in for.
    fn walk(&mut self, path: &mut Vec<&'a str>, times: u64) {
        let Some(name) = path.last().copied() else { return };
        let Some(service) = self.file.services.get(name) else { return };
        let times = times.saturating_mul(u64::from(attempts(service)));
        match self.worst.get(name) {
            // A chain that brings no more need not be followed again.
            Some((known, _)) if *known >= times => return,
            _ => self.worst.insert(name, (times, path.clone())),
        };
        for called in service.calls.iter() {
            let next = called.as_str();
            if let Some(at) = path.iter().position(|it| *it == next) {
                let mut circle = path[at..].to_vec();
                circle.push(next);
                self.circle.get_or_insert_with(|| (called.span(), circle));
                continue;
            }
            path.push(next);
            self.walk(path, times);
            path.pop();
        }
    }
}

/// Whether more may wait than is served within the time of an attempt (K > C·τ):
/// then whoever is served has given up already, and comes again.
fn queues_in_vain(service: &Service, served: f64) -> bool {
    let patience = service.timeout.attempt.or(*service.timeout.total);
    let queue = service.load.as_ref().and_then(|load| *load.queue);
    let in_flight = service.bulkhead.as_ref().map(|bulkhead| *bulkhead.max_in_flight);
    match (queue.into_iter().chain(in_flight).min(), patience) {
        (Some(queue), Some(patience)) => f64::from(queue) > served * patience.as_secs_f64(),
        _ => true,
    }
}

/// The load in an outage, per second, and what makes it.
fn worst_load(arriving: f64, retry: &Retry) -> (f64, String) {
    match retry.budget.as_ref() {
        None => {
            let attempts = f64::from(*retry.attempts);
            (arriving * attempts, format!("{arriving:.0}/s × {attempts} attempts, no budget"))
        }
        Some(budget) => {
            let floor = budget.floor.each_second();
            let share = match *budget.basis {
                Basis::Success => 0.0,
                Basis::Call => budget.ratio.ratio(),
            };
            let most =
                (arriving * (1.0 + share) + floor).min(arriving * f64::from(*retry.attempts));
            (
                most,
                format!(
                    "{arriving:.0}/s and what the budget always allows ({}, and {:.0}% of calls)",
                    *budget.floor,
                    share * 100.0
                ),
            )
        }
    }
}
