//! What a study looks like: one page for a person, and three forms for machines.

mod chart;
mod html;
mod json;
mod junit;
mod markdown;

pub use html::{map_page, page};
pub use json::{SCHEMA, difference_document, document, map_document};
pub use junit::document as junit;
pub use markdown::{difference_table, summary};

use selvedge_patterns::time::Duration;

use crate::model::{Fault, FaultKind, Scenario};

/// A fault in words.
#[must_use]
pub fn describe(scenario: &Scenario, fault: &Fault) -> String {
    let service = |index: usize| scenario.services[index].name.as_str();
    let of = |replicas: u32, index: usize| {
        let all = scenario.services[index].replicas;
        if replicas >= all {
            service(index).to_owned()
        } else {
            format!("{replicas} of {all} {}", service(index))
        }
    };
    let what = match fault.kind {
        FaultKind::Crash { service, replicas } => format!("{} down", of(replicas, service)),
        FaultKind::Latency { service, factor, replicas } => {
            format!("{} ×{factor} slower", of(replicas, service))
        }
        FaultKind::Errors { service, probability, replicas, .. } => {
            format!("{} fails {:.0} %", of(replicas, service), probability * 100.0)
        }
        FaultKind::Capacity { service: index, left } => {
            format!("{} at {:.0} % capacity", service(index), left * 100.0)
        }
        FaultKind::Partition { service, replicas } => format!("{} cut off", of(replicas, service)),
        FaultKind::CacheFlush { service: index } => format!("cache of {} flushed", service(index)),
        FaultKind::Load { client, factor } => {
            format!("{} ×{factor} load", scenario.clients[client].name)
        }
        FaultKind::Deploy { service: index, batch, each } => {
            format!("{} deployed, {batch} at a time, {} each", service(index), seconds(each))
        }
    };
    format!("{what} at {} for {}", seconds(fault.at), seconds(fault.lasts))
}

/// A duration as a person writes it.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 1.0 || seconds == 0.0 {
        format!("{} s", trim(seconds))
    } else if seconds >= 1e-3 {
        format!("{} ms", trim(seconds * 1e3))
    } else {
        format!("{} µs", trim(seconds * 1e6))
    }
}

fn trim(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number with thousands apart, as short as it can be.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value.abs() >= 1000.0 {
        let digits = format!("{:.0}", value.abs());
        let mut out = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                out.push('\u{202f}');
            }
            out.push(digit);
        }
        return if value < 0.0 { format!("−{out}") } else { out };
    }
    if value.abs() >= 100.0 { format!("{value:.0}") } else { trim(value) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
