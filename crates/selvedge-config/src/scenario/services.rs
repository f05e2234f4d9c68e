//! The services of a scenario, and the policies that the configuration has for them.

use std::sync::Arc;

use selvedge_patterns::fallback;
use selvedge_patterns::time::Duration;
use selvedge_sim::distribution::Distribution;
use selvedge_sim::model::{
    Cache, ColdStart, Discipline, Edge, Errors, OnDisconnect, Queue, Service, Slowdown,
};

use super::cursor::Cursor;
use super::{Files, histogram};
use crate::diagnostic::Code;
use crate::load::Loaded;
use crate::tree::{Entry, Kind, Node};

const KEYS: &[&str] = &[
    "replicas",
    "slots",
    "service",
    "queue",
    "slowdown",
    "on_disconnect",
    "calls",
    "while_calling",
    "errors",
    "cache",
    "cold_start",
    "network",
    "forwards",
];

pub(super) fn read(
    root: &Node,
    files: &Files<'_>,
    loaded: Option<&Loaded>,
    ignored: &[String],
    assumptions: &mut Vec<String>,
    cursor: &mut Cursor,
) -> Vec<Service> {
    let Some(entry) = cursor.required(root, "services", "a scenario") else { return Vec::new() };
    let Kind::Mapping(entries) = &entry.value.kind else {
        cursor.keys(&entry.value, "services", &[]);
        return Vec::new();
    };
    let names: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    assumptions.push(match loaded {
        None => {
            "There is no `config`: services are called directly, without any policy.".to_owned()
        }
        Some(_) => {
            "Connections to services are not bounded (`pool.connections_max` is not simulated)."
                .to_owned()
        }
    });
    entries
        .iter()
        .map(|entry| one(entry, &names, files, loaded, ignored, assumptions, cursor))
        .collect()
}

fn one(
    entry: &Entry,
    names: &[&str],
    files: &Files<'_>,
    loaded: Option<&Loaded>,
    ignored: &[String],
    assumptions: &mut Vec<String>,
    cursor: &mut Cursor,
) -> Service {
    let (name, node) = (entry.key.as_str(), &entry.value);
    cursor.within(entry.key_span);
    cursor.keys(node, "a service", KEYS);
    let time = cursor.required(node, "service", "a service");
    let time = time.and_then(|time| distribution(&time.value, files, assumptions, cursor));
    let mut service =
        Service::new(name, time.unwrap_or(Distribution::Constant(Duration::from_millis(1))));
    let configured =
        loaded.and_then(|loaded| loaded.proxy.services.iter().find(|it| it.name == name));
    if let Some(configured) = configured {
        service.policy = Some(Box::new(configured.policy.clone()));
        service.replicas = configured.endpoints.len().max(1) as u32;
        let ignores = |word: &str| ignored.iter().any(|it| it == word);
        if let (Some(policy), Some(own)) = (&mut service.policy, &configured.fallback) {
            let fixed = own.response.is_some();
            policy.fallback = Some(fallback::Config { stale_for: own.stale_for, fixed });
        }
        if let Some(policy) = service.policy.as_mut().filter(|_| ignores("fallback")) {
            policy.fallback = None;
        }
        if service.policy.as_ref().is_some_and(|policy| policy.fallback.is_some()) {
            assumptions.push(format!("What stands in for an answer of {name} counts as good."));
        }
        let usual = selvedge_proxy::config::Pool::default().connections_max;
        if configured.pool.connections_max != usual && !ignores("pool") {
            cursor.not_simulated(
                entry.key_span,
                &format!("`services.{name}.pool.connections_max`"),
                "pool",
            );
        }
    } else if loaded.is_some() {
        assumptions.push(format!(
            "The configuration has no service {name}: it is called directly, without any policy."
        ));
    }
    let replicas = cursor.optional(node, "replicas", |value, cursor| cursor.count(value));
    match (replicas, configured) {
        (Some(replicas), _) => service.replicas = replicas,
        (None, Some(_)) => {
            assumptions.push(format!(
                "{name} has {} replica(s), as many as it has endpoints.",
                service.replicas
            ));
        }
        (None, None) => assumptions.push(format!("{name} has one replica.")),
    }
    service.slots =
        cursor.optional(node, "slots", |value, cursor| cursor.count(value)).unwrap_or_else(|| {
            assumptions.push(format!("An instance of {name} works on one request at a time."));
            1
        });
    service.queue = cursor.optional(node, "queue", queue).unwrap_or_else(|| {
        assumptions.push(format!("{name} queues without bound, first come first served."));
        fifo(None)
    });
    service.slowdown = cursor.optional(node, "slowdown", slowdown).unwrap_or(Slowdown::None);
    let disconnect = [("keep", OnDisconnect::Keep), ("cancel", OnDisconnect::Cancel)];
    service.on_disconnect = cursor
        .optional(node, "on_disconnect", |value, cursor| cursor.word(value, &disconnect))
        .unwrap_or_else(|| {
            assumptions.push(format!("{name} goes on working for callers who have left."));
            OnDisconnect::Keep
        });
    service.calls = cursor
        .optional(node, "calls", |value, cursor| Some(calls(value, names, cursor)))
        .unwrap_or_default();
    let holds = [("hold", true), ("release", false)];
    service.holds_slot = cursor
        .optional(node, "while_calling", |value, cursor| cursor.word(value, &holds))
        .unwrap_or_else(|| {
            if !service.calls.is_empty() {
                assumptions
                    .push(format!("{name} keeps its slot while it waits for what it calls."));
            }
            true
        });
    service.errors = cursor.optional(node, "errors", errors).unwrap_or_default();
    service.cache = cursor.optional(node, "cache", cache);
    service.cold_start = cursor.optional(node, "cold_start", cold_start);
    service.network = cursor
        .optional(node, "network", |value, cursor| cursor.duration(value))
        .unwrap_or(Duration::ZERO);
    service.forwards = cursor
        .optional(node, "forwards", |value, cursor| cursor.flag(value))
        .unwrap_or_else(|| {
            if !service.calls.is_empty() {
                assumptions.push(format!(
                    "{name} does not pass deadlines and attempt numbers on to what it calls."
                ));
            }
            false
        });
    service
}

pub(super) fn distribution(
    node: &Node,
    files: &Files<'_>,
    assumptions: &mut Vec<String>,
    cursor: &mut Cursor,
) -> Option<Distribution> {
    const EXPECTED: &str = "a duration, or one of constant, exponential, lognormal, bimodal, hdr, prometheus with its value";
    let (tag, value, span) = cursor.tagged(node, EXPECTED)?;
    let Some(value) = value else { return cursor.duration(node).map(Distribution::Constant) };
    match tag {
        "constant" => cursor.duration(value).map(Distribution::Constant),
        "exponential" => {
            let mean = match &value.kind {
                Kind::Mapping(_) => {
                    cursor.keys(value, "exponential", &["mean"]);
                    &cursor.required(value, "mean", "exponential")?.value
                }
                _ => value,
            };
            cursor.duration(mean).map(|mean| Distribution::Exponential { mean })
        }
        "lognormal" => {
            cursor.keys(value, "lognormal", &["p50", "p99"]);
            let p50 = cursor.required(value, "p50", "lognormal")?;
            let p99 = cursor.required(value, "p99", "lognormal")?;
            Some(Distribution::LogNormal {
                p50: cursor.duration(&p50.value)?,
                p99: cursor.duration(&p99.value)?,
            })
        }
        "bimodal" => {
            cursor.keys(value, "bimodal", &["fast", "slow", "slow_share"]);
            let fast = cursor.required(value, "fast", "bimodal")?;
            let slow = cursor.required(value, "slow", "bimodal")?;
            let slow_share = cursor.required(value, "slow_share", "bimodal")?;
            Some(Distribution::Bimodal {
                fast: cursor.duration(&fast.value)?,
                slow: cursor.duration(&slow.value)?,
                slow_share: cursor.share(&slow_share.value)?,
            })
        }
        "hdr" | "prometheus" => measured(tag, value, files, assumptions, cursor),
        _ => {
            cursor.problem(Code::WRONG_VALUE, span, format!("expected {EXPECTED}, found `{tag}`"));
            None
        }
    }
}

fn measured(
    tag: &str,
    value: &Node,
    files: &Files<'_>,
    assumptions: &mut Vec<String>,
    cursor: &mut Cursor,
) -> Option<Distribution> {
    let whole = matches!(value.kind, Kind::Mapping(_));
    if whole {
        cursor.keys(value, tag, &["file", "unit", "metric"]);
    }
    let path = if whole { &cursor.required(value, "file", tag)?.value } else { value };
    let name = cursor.text(path, "the path of a file")?;
    let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
    let usual = if tag == "hdr" { ("ms", 1e6) } else { ("s", 1e9) };
    let unit = if whole {
        cursor.optional(value, "unit", |value, cursor| cursor.word(value, &units))
    } else {
        None
    };
    let unit = unit.unwrap_or_else(|| {
        assumptions.push(format!("The values of {name} are in {}.", usual.0));
        usual.1
    });
    let metric = if whole {
        cursor.optional(value, "metric", |value, cursor| cursor.text(value, "a metric"))
    } else {
        None
    };
    let text = cursor.file(path, files, &name)?;
    let read = if tag == "hdr" {
        histogram::hdr(&text, unit)
    } else {
        histogram::prometheus(&text, unit, metric.as_deref())
    };
    match read {
        Ok(empirical) => {
            if (empirical.scaled_by - 1.0).abs() > 1e-6 {
                let percent = (empirical.scaled_by - 1.0) * 100.0;
                assumptions.push(format!(
                    "{name}: shifted by {percent:+.2} % so that its mean is the recorded one."
                ));
            }
            if let Some(index) = empirical.tail_index {
                assumptions.push(format!(
                    "{name}: beyond the last bucket a power law of index {index:.2}."
                ));
            }
            Some(Distribution::Empirical(Arc::new(empirical)))
        }
        Err(why) => {
            cursor.problem(Code::IMPOSSIBLE_MODEL, path.span, format!("{name}: {why}"));
            None
        }
    }
}

const fn fifo(cap: Option<u32>) -> Queue {
    Queue { discipline: Discipline::Fifo, cap, patience: None, drop_expired: false }
}

fn queue(node: &Node, cursor: &mut Cursor) -> Option<Queue> {
    if let Kind::Scalar(scalar) = &node.kind {
        return match scalar.text.as_str() {
            "none" => Some(fifo(Some(0))),
            "unbounded" => Some(fifo(None)),
            _ => cursor.count(node).map(|cap| fifo(Some(cap))),
        };
    }
    cursor.keys(node, "a queue", &["fifo", "lifo", "codel", "patience", "drop_expired"]);
    let mut queue = fifo(None);
    let cap = |value: &Node, cursor: &mut Cursor| match &value.kind {
        Kind::Scalar(scalar) if scalar.text == "unbounded" => None,
        _ => cursor.count(value),
    };
    for (key, discipline) in [("fifo", Discipline::Fifo), ("lifo", Discipline::Lifo)] {
        if let Some(entry) = node.get(key) {
            queue.discipline = discipline;
            queue.cap = cap(&entry.value, cursor);
        }
    }
    if let Some(entry) = node.get("codel") {
        cursor.keys(&entry.value, "codel", &["target", "interval", "cap"]);
        let target =
            cursor.optional(&entry.value, "target", |value, cursor| cursor.duration(value));
        let interval =
            cursor.optional(&entry.value, "interval", |value, cursor| cursor.duration(value));
        queue.discipline = Discipline::CoDel {
            target: target.unwrap_or(Duration::from_millis(5)),
            interval: interval.unwrap_or(Duration::from_millis(100)),
        };
        queue.cap = cursor.optional(&entry.value, "cap", |value, cursor| cursor.count(value));
    }
    queue.patience = cursor.optional(node, "patience", |value, cursor| cursor.duration(value));
    queue.drop_expired =
        cursor.optional(node, "drop_expired", |value, cursor| cursor.flag(value)).unwrap_or(false);
    Some(queue)
}

fn slowdown(node: &Node, cursor: &mut Cursor) -> Option<Slowdown> {
    let (tag, value, span) =
        cursor.tagged(node, "`none`, `linear: 0.02` or `usl: {sigma: 0.02, kappa: 0.0005}`")?;
    match (tag, value) {
        ("none", None) => Some(Slowdown::None),
        ("linear", Some(value)) => {
            cursor.number(value).map(|per_request| Slowdown::Linear { per_request })
        }
        ("usl", Some(value)) => {
            cursor.keys(value, "usl", &["sigma", "kappa"]);
            let sigma = cursor.required(value, "sigma", "usl")?;
            let kappa = cursor.required(value, "kappa", "usl")?;
            Some(Slowdown::Usl {
                sigma: cursor.number(&sigma.value)?,
                kappa: cursor.number(&kappa.value)?,
            })
        }
        _ => {
            cursor.problem(
                Code::WRONG_VALUE,
                span,
                format!("expected none, linear or usl, found `{tag}`"),
            );
            None
        }
    }
}

fn calls(node: &Node, names: &[&str], cursor: &mut Cursor) -> Vec<Edge> {
    let mut edges = Vec::new();
    for item in
        cursor.list(node, "a list of services, such as `[db, {mail: {prob: 40%}}]`").to_vec()
    {
        let Some((name, value, span)) =
            cursor.tagged(&item, "a service or `{service: {prob: 40%}}`")
        else {
            continue;
        };
        let target = Node::new(
            span,
            Kind::Scalar(crate::tree::Scalar {
                text: name.to_owned(),
                quoted: false,
                expanded: false,
                written: None,
            }),
        );
        let Some(service) = cursor.name(&target, "service", names) else { continue };
        let mut edge = Edge { service, probability: 1.0, optional: false };
        if let Some(value) = value {
            cursor.keys(value, "a call", &["prob", "optional"]);
            edge.probability =
                cursor.optional(value, "prob", |value, cursor| cursor.share(value)).unwrap_or(1.0);
            edge.optional = cursor
                .optional(value, "optional", |value, cursor| cursor.flag(value))
                .unwrap_or(false);
        }
        edges.push(edge);
    }
    edges
}

fn errors(node: &Node, cursor: &mut Cursor) -> Option<Errors> {
    if let Kind::Mapping(_) = node.kind {
        cursor.keys(node, "errors", &["fast", "slow"]);
        let fast =
            cursor.optional(node, "fast", |value, cursor| cursor.share(value)).unwrap_or(0.0);
        let slow =
            cursor.optional(node, "slow", |value, cursor| cursor.share(value)).unwrap_or(0.0);
        return Some(Errors { fast, slow });
    }
    cursor.share(node).map(|fast| Errors { fast, slow: 0.0 })
}

fn cache(node: &Node, cursor: &mut Cursor) -> Option<Cache> {
    cursor.keys(node, "cache", &["hit", "keys"]);
    let hit = cursor.required(node, "hit", "a cache")?;
    let hit = cursor.share(&hit.value)?;
    let keys =
        cursor.optional(node, "keys", |value, cursor| cursor.number(value)).unwrap_or(1000.0);
    Some(Cache { hit, keys })
}

fn cold_start(node: &Node, cursor: &mut Cursor) -> Option<ColdStart> {
    cursor.keys(node, "cold_start", &["factor", "for"]);
    let factor = cursor.required(node, "factor", "a cold start")?;
    let lasts = cursor.required(node, "for", "a cold start")?;
    Some(ColdStart { factor: cursor.factor(&factor.value)?, lasts: cursor.duration(&lasts.value)? })
}
