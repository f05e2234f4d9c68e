//! What must hold.

use selvedge_patterns::time::{Duration, nanos};
use selvedge_sim::model::{Comparison, Expectation, Fault};
use selvedge_sim::verdict;

use super::cursor::{Cursor, parse_share};
use crate::diagnostic::Code;
use crate::tree::{Kind, Node};
use crate::value;

const KEYS: &[&str] = &[
    "recovers_within",
    "verdict",
    "goodput_after",
    "goodput_during",
    "success_rate",
    "amplification_max",
    "p50",
    "p90",
    "p99",
    "p999",
    "calls_max",
    "calls_min",
    "wasted_max",
    "trigger_margin",
];

pub(super) fn read(
    root: &Node,
    services: &[&str],
    faults: &[Fault],
    cursor: &mut Cursor,
) -> Vec<Expectation> {
    let Some(entry) = root.get("expect") else { return Vec::new() };
    let mut expectations = Vec::new();
    for item in cursor.list(&entry.value, "a list of expectations").to_vec() {
        let Kind::Mapping(entries) = &item.kind else {
            cursor.keys(&item, "an expectation", KEYS);
            continue;
        };
        cursor.keys(&item, "an expectation", KEYS);
        for entry in entries {
            cursor.within(entry.key_span);
            one(&entry.key, &entry.value, services, faults, &mut expectations, cursor);
        }
    }
    expectations
}

fn one(
    key: &str,
    value: &Node,
    services: &[&str],
    faults: &[Fault],
    into: &mut Vec<Expectation>,
    cursor: &mut Cursor,
) -> Option<()> {
    let latency = |quantile, value: &Node, cursor: &mut Cursor| {
        let (comparison, bound) =
            compared(value, Comparison::AtMost, "a latency such as `<= 200ms`", cursor, |text| {
                value::duration(text).ok()
            })?;
        Some(Expectation::Latency { quantile, comparison, bound })
    };
    let expectation = match key {
        "recovers_within" => Expectation::RecoversWithin(cursor.duration(value)?),
        "verdict" => {
            let words = verdict::Kind::ALL.map(|kind| (kind.name(), kind));
            Expectation::Verdict(cursor.word(value, &words)?)
        }
        "goodput_after" => {
            let (side, share) = compared_share(value, cursor)?;
            Expectation::GoodputAfter(side, share)
        }
        "goodput_during" => {
            let (side, share) = compared_share(value, cursor)?;
            Expectation::GoodputDuring(side, share)
        }
        "success_rate" => {
            let (side, share) = compared_share(value, cursor)?;
            Expectation::SuccessRate(side, share)
        }
        "amplification_max" => Expectation::AmplificationMax(cursor.number(value)?),
        "wasted_max" => Expectation::WastedMax(cursor.share(value)?),
        "p50" => latency(0.5, value, cursor)?,
        "p90" => latency(0.9, value, cursor)?,
        "p99" => latency(0.99, value, cursor)?,
        "p999" => latency(0.999, value, cursor)?,
        "calls_max" | "calls_min" => {
            let comparison =
                if key == "calls_max" { Comparison::AtMost } else { Comparison::AtLeast };
            cursor.keys(value, key, services);
            let Kind::Mapping(entries) = &value.kind else { return None };
            for entry in entries {
                let service = services.iter().position(|name| *name == entry.key)?;
                let bound = cursor.number(&entry.value)?;
                into.push(Expectation::CallsPerRequest { service, comparison, bound });
            }
            return Some(());
        }
        "trigger_margin" => margin(value, services, faults, cursor)?,
        _ => return None,
    };
    into.push(expectation);
    Some(())
}

fn margin(
    value: &Node,
    services: &[&str],
    faults: &[Fault],
    cursor: &mut Cursor,
) -> Option<Expectation> {
    cursor.keys(value, "trigger_margin", &["fault", "duration"]);
    let which = cursor.required(value, "fault", "a margin")?;
    let text = cursor.text(&which.value, "the number of a fault, or the service it strikes")?;
    let by_service = || {
        let service = services.iter().position(|name| *name == text)?;
        faults.iter().position(|fault| fault.kind.service() == Some(service))
    };
    let found =
        text.parse::<usize>().ok().filter(|number| *number < faults.len()).or_else(by_service);
    let Some(fault) = found else {
        cursor.problem(Code::UNKNOWN_NAME, which.value.span, format!("there is no fault `{text}`"));
        return None;
    };
    let lasts = cursor.required(value, "duration", "a margin")?;
    let (_, lasts) = compared(
        &lasts.value,
        Comparison::AtLeast,
        "a duration such as `>= 30s`",
        cursor,
        |text| value::duration(text).ok().filter(|lasts: &Duration| nanos(*lasts) > 0),
    )?;
    Some(Expectation::TriggerMargin { fault, lasts })
}

/// `>= 99%`, `>= 99% of baseline`, `99%` (at least).
fn compared_share(node: &Node, cursor: &mut Cursor) -> Option<(Comparison, f64)> {
    compared(node, Comparison::AtLeast, "a share such as `>= 99% of baseline`", cursor, |text| {
        parse_share(text.trim_end_matches("of baseline").trim())
    })
}

fn compared<T>(
    node: &Node,
    usual: Comparison,
    expected: &str,
    cursor: &mut Cursor,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<(Comparison, T)> {
    let text = cursor.text(node, expected)?;
    let signs = [
        (">=", Comparison::AtLeast),
        ("<=", Comparison::AtMost),
        (">", Comparison::AtLeast),
        ("<", Comparison::AtMost),
    ];
    let (side, rest) = signs
        .into_iter()
        .find_map(|(sign, side)| text.strip_prefix(sign).map(|rest| (side, rest)))
        .unwrap_or((usual, &text));
    let parsed = parse(rest.trim());
    if parsed.is_none() {
        cursor.problem(
            Code::WRONG_VALUE,
            node.span,
            format!("expected {expected}, found `{text}`"),
        );
    }
    parsed.map(|parsed| (side, parsed))
}
