//! What goes wrong in a scenario.

use selvedge_patterns::time::Duration;
use selvedge_sim::model::{Fault, FaultKind, Service};

use super::cursor::Cursor;
use crate::diagnostic::Code;
use crate::tree::{Kind, Node};

const KINDS: &[&str] =
    &["crash", "latency", "errors", "capacity", "partition", "cache_flush", "load", "deploy"];
const KEYS: &[&str] = &[
    "at",
    "for",
    "ramp",
    "service",
    "client",
    "replicas",
    "crash",
    "latency",
    "errors",
    "capacity",
    "partition",
    "cache_flush",
    "load",
    "deploy",
];

pub(super) fn read(
    root: &Node,
    services: &[Service],
    clients: &[&str],
    cursor: &mut Cursor,
) -> Vec<Fault> {
    let Some(entry) = root.get("faults") else { return Vec::new() };
    let items = cursor.list(&entry.value, "a list of faults").to_vec();
    items.iter().filter_map(|item| one(item, services, clients, cursor)).collect()
}

fn one(node: &Node, services: &[Service], clients: &[&str], cursor: &mut Cursor) -> Option<Fault> {
    cursor.within(node.span);
    cursor.keys(node, "a fault", KEYS);
    let at = cursor.required(node, "at", "a fault")?;
    let at = cursor.duration(&at.value)?;
    let ramp = cursor
        .optional(node, "ramp", |value, cursor| cursor.duration(value))
        .unwrap_or(Duration::ZERO);
    let given: Vec<&str> = KINDS.iter().copied().filter(|kind| node.get(kind).is_some()).collect();
    let [kind] = given[..] else {
        cursor.problem(
            Code::CONFLICT,
            node.span,
            format!("a fault is exactly one of {}", KINDS.join(", ")),
        );
        return None;
    };
    let value = &node.get(kind)?.value;
    let kind = read_kind(kind, value, node, services, clients, cursor)?;
    let lasts = match &kind {
        FaultKind::Deploy { service, batch, each } => {
            *each * services[*service].replicas.div_ceil((*batch).max(1))
        }
        FaultKind::CacheFlush { .. } => cursor
            .optional(node, "for", |value, cursor| cursor.duration(value))
            .unwrap_or(Duration::from_secs(1)),
        _ => {
            let lasts = cursor.required(node, "for", "a fault")?;
            cursor.duration(&lasts.value)?
        }
    };
    let steps = matches!(
        kind,
        FaultKind::Crash { .. } | FaultKind::Deploy { .. } | FaultKind::CacheFlush { .. }
    );
    if steps && !ramp.is_zero() {
        cursor.problem(
            Code::CONFLICT,
            node.span,
            "this kind of fault comes at once: it has no `ramp`".to_owned(),
        );
    }
    Some(Fault { kind, at, lasts, ramp })
}

fn read_kind(
    kind: &str,
    value: &Node,
    node: &Node,
    services: &[Service],
    clients: &[&str],
    cursor: &mut Cursor,
) -> Option<FaultKind> {
    if kind == "load" {
        let factor = cursor.factor(value)?;
        let client = match node.get("client") {
            Some(entry) => cursor.name(&entry.value, "client", clients)?,
            None if clients.len() == 1 => 0,
            None => {
                cursor.required(node, "client", "a load fault")?;
                return None;
            }
        };
        return Some(FaultKind::Load { client, factor });
    }
    let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    let service = cursor.required(node, "service", "a fault")?;
    let service = cursor.name(&service.value, "service", &names)?;
    let all = services[service].replicas;
    let struck =
        cursor.optional(node, "replicas", |value, cursor| cursor.count(value)).unwrap_or(all);
    let how_many = |value: &Node, cursor: &mut Cursor| match &value.kind {
        Kind::Scalar(scalar) if scalar.text == "all" || scalar.text == "true" => Some(struck),
        _ => cursor.count(value),
    };
    Some(match kind {
        "crash" => FaultKind::Crash { service, replicas: how_many(value, cursor)? },
        "partition" => FaultKind::Partition { service, replicas: how_many(value, cursor)? },
        "latency" => {
            FaultKind::Latency { service, factor: cursor.factor(value)?, replicas: struck }
        }
        "capacity" => FaultKind::Capacity { service, left: cursor.share(value)? },
        "cache_flush" => FaultKind::CacheFlush { service },
        "errors" => {
            let (probability, slow) = match &value.kind {
                Kind::Mapping(_) => {
                    cursor.keys(value, "errors", &["p", "slow"]);
                    let probability = cursor.required(value, "p", "an error fault")?;
                    let slow = cursor
                        .optional(value, "slow", |value, cursor| cursor.flag(value))
                        .unwrap_or(false);
                    (cursor.share(&probability.value)?, slow)
                }
                _ => (cursor.share(value)?, false),
            };
            FaultKind::Errors { service, probability, slow, replicas: struck }
        }
        _ => {
            cursor.keys(value, "deploy", &["batch", "each"]);
            let each = cursor.required(value, "each", "a deploy")?;
            let each = cursor.duration(&each.value)?;
            let batch =
                cursor.optional(value, "batch", |value, cursor| cursor.count(value)).unwrap_or(1);
            FaultKind::Deploy { service, batch, each }
        }
    })
}
