//! One self-contained page: verdict and assumptions first, pictures next, numbers last.

use std::fmt::Write as _;

use selvedge_patterns::time::nanos;

use super::chart::{self, Line, Time};
use super::{describe, escape, number, seconds};
use crate::histogram::Histogram;
use crate::record::{Replication, ServiceBin};
use crate::search::Map;
use crate::study::{Outcome, Study, calls_per_request, success_rate};

/// The report of a study. `version` names the program that made it.
#[must_use]
pub fn page(study: &Study, version: &str) -> String {
    let title = escape(&study.scenario.name);
    let mut body = String::new();
    head(&mut body, study);
    charts(&mut body, study);
    tables(&mut body, study);
    let foot = format!(
        "selvedge {version} · validation cases V1–V34, R1–R3 · the same seeds give this page again, byte for byte"
    );
    wrap(&title, &body, &foot)
}

fn wrap(title: &str, body: &str, foot: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} · selvedge simulate</title><style>{STYLE}</style></head><body><main>{body}<footer>{foot}</footer></main></body></html>\n"
    )
}

fn head(out: &mut String, study: &Study) {
    let (share, low, high) = study.recovery();
    let outcome = study.outcome();
    let worst = study.tally().last().map_or("", |(kind, _)| kind.name());
    let tone = match outcome {
        Outcome::Failed => "bad",
        Outcome::Inconclusive => "unsure",
        Outcome::Passed if share < 1.0 && study.checks.is_empty() => "bad",
        Outcome::Passed => "good",
    };
    let _ = write!(
        out,
        "<header><p class=\"eyebrow\">selvedge simulate</p><h1>{}</h1>",
        escape(&study.scenario.name)
    );
    let tally: Vec<String> =
        study.tally().iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
    let _ = write!(
        out,
        "<div class=\"verdict {tone}\"><b>{}</b><span>{} of {} seeds. Users are served again in {:.0} % of runs (95 % interval {:.0} to {:.0} %).</span></div>",
        if study.checks.is_empty() { worst.to_owned() } else { promises(study) },
        tally.join(", "),
        study.runs.len(),
        share * 100.0,
        low * 100.0,
        high * 100.0
    );
    if !study.checks.is_empty() {
        out.push_str("<table class=\"checks\">");
        for check in &study.checks {
            let mark = match check.result {
                Outcome::Passed => "✓",
                Outcome::Failed => "✗",
                Outcome::Inconclusive => "?",
            };
            let _ = write!(
                out,
                "<tr class=\"{}\"><td class=\"mark\">{mark}</td><td>{}</td><td>{}</td></tr>",
                check.result.name(),
                escape(&check.text),
                escape(&check.found)
            );
        }
        out.push_str("</table>");
    }
    out.push_str("<div class=\"tiles\">");
    for (label, value, hint) in tiles(study) {
        let _ = write!(
            out,
            "<div class=\"tile\"><b>{value}</b><span>{label}</span><small>{hint}</small></div>"
        );
    }
    out.push_str("</div>");
    assumptions(out, study);
    out.push_str("</header>");
}

/// How many of the expectations hold, in words.
fn promises(study: &Study) -> String {
    let count = |wanted| study.checks.iter().filter(|check| check.result == wanted).count();
    let (held, all) = (count(Outcome::Passed), study.checks.len());
    match (count(Outcome::Failed), count(Outcome::Inconclusive)) {
        (0, 0) if all == 1 => "the expectation holds".to_owned(),
        (0, 0) => format!("all {all} expectations hold"),
        (0, unsure) => format!("{held} of {all} expectations hold, {unsure} cannot be told"),
        (failed, _) => format!("{failed} of {all} expectations fail"),
    }
}

fn tiles(study: &Study) -> Vec<(&'static str, String, String)> {
    let spread = |estimate: crate::statistics::Estimate, scale: f64, unit: &str| {
        (
            format!("{}{unit}", number(estimate.mean * scale)),
            format!("± {}", number(estimate.half_width * scale)),
        )
    };
    let times: Vec<f64> = study
        .verdicts
        .iter()
        .filter_map(|verdict| verdict.recovered_after)
        .map(|after| after.as_secs_f64())
        .collect();
    let mut tiles = Vec::new();
    let mut add = |label, (value, hint)| tiles.push((label, value, hint));
    add("goodput before", spread(study.over_verdicts(|verdict| verdict.baseline), 1.0, "/s"));
    if !study.scenario.faults.is_empty() {
        add("goodput during", spread(study.over_verdicts(|verdict| verdict.during), 1.0, "/s"));
        add("goodput after", spread(study.over_verdicts(|verdict| verdict.after), 1.0, "/s"));
        let hint = format!("{} of {} seeds", times.len(), study.runs.len());
        let median = crate::statistics::quantile(&times, 0.5);
        add(
            "time to recover",
            if times.is_empty() {
                ("never".to_owned(), hint)
            } else {
                (format!("{} s", number(median)), hint)
            },
        );
        add(
            "amplification",
            spread(study.over_verdicts(|verdict| verdict.amplification), 1.0, "×"),
        );
    }
    add("success rate", spread(study.over_runs(success_rate), 100.0, " %"));
    add(
        "p99 of good answers",
        spread(study.over_runs(|run| run.clients.latency.quantile(0.99) / 1e6), 1.0, " ms"),
    );
    add("wasted work", spread(study.over_verdicts(|verdict| verdict.wasted), 100.0, " %"));
    tiles
}

fn assumptions(out: &mut String, study: &Study) {
    let scenario = &study.scenario;
    let run = &scenario.run;
    let mut lines = vec![format!(
        "{} replications of {} with seeds {} to {}; statistics leave out the first {} and wait for whoever arrived in time.",
        run.seeds,
        seconds(run.duration),
        run.seed,
        run.seed + u64::from(run.seeds) - 1,
        seconds(run.warm_up)
    )];
    lines.extend(
        scenario.faults.iter().map(|fault| format!("Fault: {}.", describe(scenario, fault))),
    );
    lines.extend(scenario.assumptions.iter().cloned());
    if let Some(fluid) = &study.fluid {
        lines.push(format!("Cross-check, {}.", fluid.sentence()));
    }
    out.push_str("<section class=\"assumed\"><h2>What was assumed</h2><ul>");
    for line in lines {
        let _ = write!(out, "<li>{}</li>", escape(&line));
    }
    out.push_str("</ul></section>");
}

fn charts(out: &mut String, study: &Study) {
    let scenario = &study.scenario;
    let bin = nanos(scenario.run.bin) as f64 / 1e9;
    let time = Time { end: nanos(scenario.run.duration) as f64 / 1e9, bin };
    let faults: Vec<(f64, f64)> =
        scenario.faults.iter().map(|f| (nanos(f.at) as f64 / 1e9, f.ends() as f64 / 1e9)).collect();
    let per_second = |of: fn(&crate::record::Bin) -> u32| {
        study.envelope(|run| run.bins.iter().map(|one| f64::from(of(one)) / bin).collect())
    };
    let offered = per_second(|bin| bin.offered);
    let good = per_second(|bin| bin.good);
    let seeds: Vec<Vec<f64>> = study.runs.iter().map(|run| run.goodput(bin)).collect();
    section(
        out,
        "Offered load and goodput",
        "Median over seeds, the band holds 80 % of them, every seed is drawn faintly. Shaded: a fault.",
    );
    out.push_str(&chart::lines(
        time,
        240.0,
        "per second",
        &[
            Line { class: "c0", label: "offered", envelope: &offered },
            Line { class: "c1", label: "answered well, in time", envelope: &good },
        ],
        &seeds,
        &faults,
    ));
    section(
        out,
        "Attempts that reach each service",
        "Where retries, hedges and users pressing reload end up.",
    );
    let arrived: Vec<Vec<[f64; 3]>> = (0..scenario.services.len())
        .map(|s| {
            study.envelope(|run| {
                run.service_bins[s].iter().map(|one| f64::from(one.arrived) / bin).collect()
            })
        })
        .collect();
    let classes = ["c2", "c3", "c4", "c5", "c6", "c7"];
    let lines: Vec<Line<'_>> = scenario
        .services
        .iter()
        .zip(&arrived)
        .enumerate()
        .map(|(i, (service, envelope))| Line {
            class: classes[i % classes.len()],
            label: &service.name,
            envelope,
        })
        .collect();
    out.push_str(&chart::lines(time, 200.0, "per second", &lines, &[], &faults));
    section(
        out,
        "Amplification",
        "Attempts at any service for each call that a client begins: what an outage makes of the load.",
    );
    let amplification = study.envelope(|run| {
        let offered = run.bins.iter().map(|bin| f64::from(bin.offered));
        run.attempts().iter().zip(offered).map(|(all, calls)| all / calls.max(1.0)).collect()
    });
    out.push_str(&chart::lines(
        time,
        160.0,
        "attempts per call",
        &[Line { class: "c3", label: "attempts per call", envelope: &amplification }],
        &[],
        &faults,
    ));
    section(
        out,
        "Latency of good answers",
        "Each column is one bin of time; darker means a larger share of its answers.",
    );
    out.push_str(&latency(study, time, &faults));
    section(
        out,
        "Backlog",
        "Calls alive anywhere in the system. A backlog that stays after the fault is what keeps a system down.",
    );
    let alive = study.envelope(|run| run.bins.iter().map(|one| f64::from(one.alive)).collect());
    out.push_str(&chart::lines(
        time,
        160.0,
        "calls",
        &[Line { class: "c6", label: "calls alive", envelope: &alive }],
        &[],
        &faults,
    ));
    section(
        out,
        "States",
        "Slots that are busy, work for callers who had left (wasted), requests that the service refused, calls that a policy turned away (limited), breakers that are not closed; mean over seeds.",
    );
    out.push_str(&chart::strips(time, &strip_rows(study), &faults));
}

fn section(out: &mut String, title: &str, hint: &str) {
    let _ = write!(out, "<h2>{title}</h2><p class=\"hint\">{hint}</p>");
}

/// Rows of the heat map: half octaves from 1 ms up.
const HEAT_ROWS: usize = 28;

fn latency(study: &Study, time: Time, faults: &[(f64, f64)]) -> String {
    let bins = study.runs.iter().map(|run| run.bins.len()).max().unwrap_or(0);
    let columns: Vec<Vec<u64>> = (0..bins)
        .map(|bin| {
            let mut all = Histogram::default();
            for run in &study.runs {
                if let Some(bin) = run.bins.get(bin) {
                    all.merge(&bin.latency);
                }
            }
            all.octaves(1_000_000, HEAT_ROWS)
        })
        .collect();
    let label = |row: usize| {
        let ms = libm::exp2(row as f64 / 2.0);
        if ms >= 1000.0 {
            format!("{} s", number(libm::round(ms / 100.0) / 10.0))
        } else {
            format!("{ms:.0} ms")
        }
    };
    chart::heat(time, &label, &columns, faults)
}

fn strip_rows(study: &Study) -> Vec<(String, &'static str, Vec<f64>)> {
    let mut rows = Vec::new();
    let bin_ns = nanos(study.scenario.run.bin) as f64;
    let mean = |s: usize, of: &dyn Fn(&ServiceBin) -> f64| -> Vec<f64> {
        let bins = study.runs.iter().map(|run| run.bins.len()).max().unwrap_or(0);
        (0..bins)
            .map(|bin| {
                let values: Vec<f64> = study
                    .runs
                    .iter()
                    .filter_map(|run| run.service_bins[s].get(bin))
                    .map(of)
                    .collect();
                values.iter().sum::<f64>() / values.len().max(1) as f64
            })
            .collect()
    };
    for (s, service) in study.scenario.services.iter().enumerate() {
        let slots = f64::from(service.slots * service.replicas);
        rows.push((
            format!("{} busy", service.name),
            "busy",
            mean(s, &|bin| f64::from(bin.in_service) / slots),
        ));
        let wasted = mean(s, &|bin| bin.wasted_ns as f64 / (slots * bin_ns));
        if wasted.iter().any(|share| *share > 0.01) {
            rows.push((format!("{} wasted", service.name), "wasted", wasted));
        }
        let refused = mean(s, &|bin| f64::from(bin.refused) / f64::from(bin.arrived.max(1)));
        if refused.iter().any(|share| *share > 0.01) {
            rows.push((format!("{} refused", service.name), "refused", refused));
        }
        let rejected = mean(s, &|bin| {
            f64::from(bin.rejected) / f64::from((bin.arrived + bin.rejected).max(1))
        });
        if rejected.iter().any(|share| *share > 0.01) {
            rows.push((format!("{} limited", service.name), "limited", rejected));
        }
        if service.policy.as_ref().is_some_and(|policy| policy.breaker.is_some()) {
            rows.push((
                format!("{} breakers", service.name),
                "open",
                mean(s, &|bin| f64::from(bin.breaker_open)),
            ));
        }
    }
    rows
}

fn tables(out: &mut String, study: &Study) {
    section(out, "Services", "Means over seeds, over the whole run.");
    out.push_str("<div class=\"scroll\"><table><tr><th>service</th><th>attempts per call of a client</th><th>first</th><th>retries</th><th>hedges</th><th>busy</th><th>waiting and in work</th><th>wasted</th><th>rejected by policy</th></tr>");
    for (s, service) in study.scenario.services.iter().enumerate() {
        let mean = |of: &dyn Fn(&Replication) -> f64| number(study.over_runs(of).mean);
        let wasted = study.over_runs(|run| {
            let (wasted, busy) = run.service_bins[s]
                .iter()
                .fold((0u64, 0u64), |sum, bin| (sum.0 + bin.wasted_ns, sum.1 + bin.busy_ns));
            wasted as f64 / busy.max(1) as f64
        });
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{} %</td><td>{}</td><td>{} %</td><td>{}</td></tr>",
            escape(&service.name),
            mean(&|run| calls_per_request(run, s)),
            mean(&|run| run.services[s].first_attempts as f64),
            mean(&|run| run.services[s].retries as f64),
            mean(&|run| run.services[s].hedges as f64),
            mean(&|run| run.services[s].utilisation * 100.0),
            mean(&|run| run.services[s].mean_present),
            number(wasted.mean * 100.0),
            rejections(study, s)
        );
    }
    out.push_str("</table></div>");
    section(
        out,
        "Seeds",
        "Every run. A mean over runs that end differently describes none of them.",
    );
    out.push_str("<div class=\"scroll\"><table><tr><th>seed</th><th>verdict</th><th>before</th><th>during</th><th>after</th><th>recovered after</th><th>amplification</th><th>wasted</th><th>digest</th></tr>");
    for (run, verdict) in study.runs.iter().zip(&study.verdicts) {
        let _ = write!(
            out,
            "<tr><td>{}</td><td><span class=\"pill {}\">{}</span></td><td>{}/s</td><td>{}/s</td><td>{}/s</td><td>{}</td><td>{}×</td><td>{} %</td><td><code>{:016x}</code></td></tr>",
            run.seed,
            if verdict.kind.well() { "good" } else { "bad" },
            verdict.kind.name(),
            number(verdict.baseline),
            number(verdict.during),
            number(verdict.after),
            verdict.recovered_after.map_or_else(|| "–".to_owned(), seconds),
            number(verdict.amplification),
            number(verdict.wasted * 100.0),
            run.hash
        );
    }
    out.push_str("</table></div>");
}

fn rejections(study: &Study, service: usize) -> String {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for (code, count) in study.runs.iter().flat_map(|run| &run.services[service].rejections) {
        match sums.iter_mut().find(|(known, _)| known == code) {
            Some((_, sum)) => *sum += count,
            None => sums.push((code, *count)),
        }
    }
    sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let each = study.runs.len().max(1) as f64;
    let parts: Vec<String> = sums
        .iter()
        .map(|(code, count)| format!("{} {code}", number(*count as f64 / each)))
        .collect();
    if parts.is_empty() { "–".to_owned() } else { parts.join(", ") }
}

/// The page of a map: one cell per pair of values.
#[must_use]
pub fn map_page(name: &str, x_name: &str, y_name: &str, map: &Map, version: &str) -> String {
    let mut body = format!(
        "<header><p class=\"eyebrow\">selvedge simulate map</p><h1>{}</h1><p class=\"hint\">{} across, {} upwards. A cell is the share of seeds that recover.</p></header>",
        escape(name),
        escape(x_name),
        escape(y_name)
    );
    body.push_str("<div class=\"scroll\"><table class=\"map\">");
    for (row, y) in map.cells.iter().zip(&map.y).rev() {
        let _ = write!(body, "<tr><th>{}</th>", number(*y));
        for point in row {
            let region = Map::region(point).name();
            let _ = write!(
                body,
                "<td class=\"{region}\" title=\"{region}: {} of {} recover, success {:.1} %\">{:.0} %</td>",
                point.well,
                point.seeds,
                point.success * 100.0,
                100.0 * point.well as f64 / point.seeds.max(1) as f64
            );
        }
        body.push_str("</tr>");
    }
    body.push_str("<tr><th></th>");
    for x in &map.x {
        let _ = write!(body, "<th>{}</th>", number(*x));
    }
    body.push_str("</tr></table></div><p class=\"legend\"><span class=\"pill stable\">stable</span> every run recovers <span class=\"pill vulnerable\">vulnerable</span> some do <span class=\"pill metastable\">metastable</span> hardly any <span class=\"pill unhealthy\">unhealthy</span> not well before the fault</p>");
    wrap(&escape(name), &body, &format!("selvedge {version}"))
}

const STYLE: &str = include_str!("page.css");
