//! The same as data, with a version that changes when a reader would break.

use selvedge_patterns::time::nanos;
use serde_json::{Value, json};

use super::describe;
use crate::search::{Difference, Map};
use crate::statistics::Estimate;
use crate::study::{Study, calls_per_request, success_rate};

/// The version of the document's shape.
pub const SCHEMA: &str = "selvedge.simulate/1";

/// The study as a JSON document.
#[must_use]
pub fn document(study: &Study) -> Value {
    let scenario = &study.scenario;
    let (share, low, high) = study.recovery();
    json!({
        "schema": SCHEMA,
        "scenario": scenario.name,
        "outcome": study.outcome().name(),
        "seeds": scenario.run.seeds,
        "first_seed": scenario.run.seed,
        "duration_seconds": scenario.run.duration.as_secs_f64(),
        "warm_up_seconds": scenario.run.warm_up.as_secs_f64(),
        "bin_seconds": scenario.run.bin.as_secs_f64(),
        "verdicts": study.tally().into_iter().map(|(kind, count)| (kind.name().to_owned(), json!(count))).collect::<serde_json::Map<_, _>>(),
        "recovery": { "share": share, "low": low, "high": high },
        "expectations": study.checks.iter().map(|check| json!({
            "text": check.text, "result": check.result.name(), "found": check.found,
        })).collect::<Vec<_>>(),
        "estimates": {
            "success_rate": interval(study.over_runs(success_rate)),
            "goodput_before_per_second": interval(study.over_verdicts(|verdict| verdict.baseline)),
            "goodput_during_per_second": interval(study.over_verdicts(|verdict| verdict.during)),
            "goodput_after_per_second": interval(study.over_verdicts(|verdict| verdict.after)),
            "amplification": interval(study.over_verdicts(|verdict| verdict.amplification)),
            "wasted_share": interval(study.over_verdicts(|verdict| verdict.wasted)),
            "latency_p50_seconds": interval(study.over_runs(|run| run.clients.latency.quantile(0.5) / 1e9)),
            "latency_p99_seconds": interval(study.over_runs(|run| run.clients.latency.quantile(0.99) / 1e9)),
        },
        "services": scenario.services.iter().enumerate().map(|(s, service)| json!({
            "name": service.name,
            "calls_per_request": interval(study.over_runs(|run| calls_per_request(run, s))),
            "utilisation": interval(study.over_runs(|run| run.services[s].utilisation)),
            "retries": interval(study.over_runs(|run| run.services[s].retries as f64)),
            "hedges": interval(study.over_runs(|run| run.services[s].hedges as f64)),
            "fallbacks": interval(study.over_runs(|run| run.services[s].fallbacks as f64)),
        })).collect::<Vec<_>>(),
        "faults": scenario.faults.iter().map(|fault| json!({
            "text": describe(scenario, fault),
            "at_seconds": fault.at.as_secs_f64(),
            "ends_seconds": fault.ends() as f64 / 1e9,
        })).collect::<Vec<_>>(),
        "series": {
            "offered": series(study, |run| run.bins.iter().map(|bin| f64::from(bin.offered)).collect()),
            "good": series(study, |run| run.bins.iter().map(|bin| f64::from(bin.good)).collect()),
            "attempts": series(study, crate::record::Replication::attempts),
            "alive": series(study, |run| run.bins.iter().map(|bin| f64::from(bin.alive)).collect()),
        },
        "runs": study.runs.iter().zip(&study.verdicts).map(|(run, verdict)| json!({
            "seed": run.seed,
            "verdict": verdict.kind.name(),
            "recovered_after_seconds": verdict.recovered_after.map(|after| nanos(after) as f64 / 1e9),
            "requests": run.clients.requests,
            "good": run.clients.good,
            "events": run.events,
            "digest": format!("{:016x}", run.hash),
        })).collect::<Vec<_>>(),
        "assumptions": scenario.assumptions,
        "fluid": study.fluid.map(|fluid| fluid.sentence()),
    })
}

/// A map as a JSON document: `cells[y][x]`.
#[must_use]
pub fn map_document(name: &str, x_name: &str, y_name: &str, map: &Map) -> Value {
    json!({
        "schema": SCHEMA,
        "scenario": name,
        "x": { "what": x_name, "values": map.x },
        "y": { "what": y_name, "values": map.y },
        "cells": map.cells.iter().map(|row| row.iter().map(|point| json!({
            "region": Map::region(point).name(),
            "recovered": point.well,
            "seeds": point.seeds,
            "success": point.success,
        })).collect::<Vec<_>>()).collect::<Vec<_>>(),
    })
}

/// Two scenarios against each other as a JSON document.
#[must_use]
pub fn difference_document(before: &str, after: &str, differences: &[Difference]) -> Value {
    json!({
        "schema": SCHEMA,
        "before": before,
        "after": after,
        "differences": differences.iter().map(|it| json!({
            "what": it.what,
            "before": interval(it.before),
            "after": interval(it.after),
            "difference": interval(it.difference),
            "significant": it.significant(),
            "better": it.significant().then_some((it.difference.mean > 0.0) == it.more_is_better),
        })).collect::<Vec<_>>(),
    })
}

fn interval(estimate: Estimate) -> Value {
    json!({ "mean": finite(estimate.mean), "low": finite(estimate.low()), "high": finite(estimate.high()) })
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn series(study: &Study, of: impl Fn(&crate::record::Replication) -> Vec<f64>) -> Value {
    let envelope = study.envelope(of);
    let column = |i: usize| envelope.iter().map(|point| point[i]).collect::<Vec<_>>();
    json!({ "p10": column(0), "p50": column(1), "p90": column(2) })
}
