//! Outages that come with the program: the worked examples.

use selvedge_config::Style;
use selvedge_config::scenario::{Files, read_scenario};
use selvedge_sim::model::Scenario;

/// One preset: its name, what it shows, its scenarios, and the files they speak of.
struct Preset {
    name: &'static str,
    about: &'static str,
    scenarios: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
}

macro_rules! files {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../examples/simulate/", $folder, "/", $name)))),*]
    };
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "retry-storm",
        about: "three layers of retries hold a database down after a ten second outage; a budget does not",
        scenarios: &["greedy.yaml", "careful.yaml"],
        files: files!("retry-storm": "greedy.yaml", "careful.yaml", "selvedge.greedy.yaml", "selvedge.careful.yaml"),
    },
    Preset {
        name: "bucket-vs-breaker",
        about: "one call in five fails: a budget serves nine users in ten, a breaker turns most away",
        scenarios: &["bucket.yaml", "breaker.yaml"],
        files: files!("bucket-vs-breaker": "bucket.yaml", "breaker.yaml", "selvedge.bucket.yaml", "selvedge.breaker.yaml"),
    },
    Preset {
        name: "hedging",
        about: "hedges that halve the tail at low load are the overload at high load",
        scenarios: &["low.yaml", "low-without.yaml", "high.yaml", "high-without.yaml"],
        files: files!("hedging": "low.yaml", "low-without.yaml", "high.yaml", "high-without.yaml", "selvedge.yaml", "selvedge.without.yaml"),
    },
    Preset {
        name: "lifo-vs-fifo",
        about: "after an outage, a queue that serves the newest first is well at once",
        scenarios: &["fifo.yaml", "lifo.yaml"],
        files: files!("lifo-vs-fifo": "fifo.yaml", "lifo.yaml", "selvedge.yaml"),
    },
    Preset {
        name: "small-clients",
        about: "ten gateways open their breakers, a thousand small ones never see enough calls to",
        scenarios: &["ten.yaml", "thousand.yaml"],
        files: files!("small-clients": "ten.yaml", "thousand.yaml", "selvedge.yaml"),
    },
    Preset {
        name: "deploy-wave",
        about: "instances are replaced one after another; retries and health checks hide it",
        scenarios: &["careful.yaml", "bare.yaml"],
        files: files!("deploy-wave": "careful.yaml", "bare.yaml", "selvedge.yaml", "selvedge.bare.yaml"),
    },
];

/// What there is.
pub(super) fn list() -> String {
    let lines: Vec<String> =
        PRESETS.iter().map(|preset| format!("{:<18} {}", preset.name, preset.about)).collect();
    lines.join("\n")
}

/// The scenarios of a preset.
pub(super) fn scenarios(name: &str) -> Result<Vec<Scenario>, String> {
    let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
        return Err(format!("there is no game day `{name}`; there are:\n{}", list()));
    };
    let read = |scenario: &&str| {
        let text =
            preset.files.iter().find(|(file, _)| file == scenario).map_or("", |(_, text)| text);
        read_scenario(scenario, text, Files::Embedded(preset.files), None)
            .map_err(|report| report.render(Style::Plain))
    };
    preset.scenarios.iter().map(read).collect()
}
