//! Game days: outages with a name, played on a scenario of one's own.
//!
//! A preset is a fault (or a few) and nothing else: services, load and policies
//! are those of the scenario. Where none is given it is the careful checkout of
//! `examples/simulate/gameday`. The worked examples can be played by name too.

use selvedge_config::Style;
use selvedge_config::scenario::{Files, read_scenario};
use selvedge_patterns::time::Duration;
use selvedge_sim::model::{Arrivals, Expectation, Fault, FaultKind, Scenario, Slowdown};

macro_rules! files {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../examples/simulate/", $folder, "/", $name)))),*]
    };
}

/// An outage with a name.
struct Preset {
    name: &'static str,
    about: &'static str,
    /// The faults, of the service at this index; or why it cannot be played on this scenario.
    strike: fn(&mut Scenario, usize) -> Result<Vec<FaultKind>, String>,
    lasts: Duration,
    ramp: Duration,
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "retry-storm",
        about: "nothing is worked on for 10 s, everything queues: does it come back? (Bronson et al., HotOS 2021)",
        strike: |_, service| Ok(vec![FaultKind::Capacity { service, left: 0.0 }]),
        lasts: Duration::from_secs(10),
        ramp: Duration::ZERO,
    },
    Preset {
        name: "thundering-reconnect",
        about: "every instance is away for 5 s, and callers come back at three times the rate: backoff and jitter (Brooker 2015)",
        strike: |scenario, service| {
            let replicas = scenario.services[service].replicas;
            let mut faults = load(scenario, 3.0)?;
            faults.insert(0, FaultKind::Crash { service, replicas });
            Ok(faults)
        },
        lasts: Duration::from_secs(5),
        ramp: Duration::ZERO,
    },
    Preset {
        name: "partial-failure",
        about: "one call in five fails for a minute: bucket or breaker? (Brooker 2022)",
        strike: |scenario, service| {
            let replicas = scenario.services[service].replicas;
            Ok(vec![FaultKind::Errors { service, probability: 0.2, slow: false, replicas }])
        },
        lasts: Duration::from_secs(60),
        ramp: Duration::ZERO,
    },
    Preset {
        name: "demand-step",
        about: "1.4 times the load for a minute, all at once (DAGOR, Breakwater)",
        strike: |scenario, _| load(scenario, 1.4),
        lasts: Duration::from_secs(60),
        ramp: Duration::ZERO,
    },
    Preset {
        name: "cache-flush",
        about: "the cache forgets everything, and what is behind it gets all of the load",
        strike: |scenario, service| {
            let cached = |at: &usize| scenario.services[*at].cache.is_some();
            let service = Some(service).filter(cached);
            let service = service.or_else(|| (0..scenario.services.len()).find(cached));
            let service = service.ok_or("no service of the scenario has a `cache` to flush")?;
            Ok(vec![FaultKind::CacheFlush { service }])
        },
        lasts: Duration::from_secs(1),
        ramp: Duration::ZERO,
    },
    Preset {
        name: "sinkhole",
        about: "one instance fails at once, so it looks the least busy and draws the load to it",
        strike: |scenario, service| {
            if scenario.services[service].replicas < 2 {
                let name = &scenario.services[service].name;
                return Err(format!(
                    "`{name}` has one instance; a sinkhole needs others beside it"
                ));
            }
            Ok(vec![FaultKind::Errors { service, probability: 1.0, slow: false, replicas: 1 }])
        },
        lasts: Duration::from_secs(60),
        ramp: Duration::ZERO,
    },
    Preset {
        name: "gc-spiral",
        about: "work slows down threefold over 20 s, and the more the more is under way, as with a full heap",
        strike: |scenario, service| {
            let model = &mut scenario.services[service];
            let replicas = model.replicas;
            if model.slowdown == Slowdown::None {
                model.slowdown = Slowdown::Linear { per_request: 0.02 };
                scenario.assumptions.push(format!(
                    "{} slows down by 2 % for each request under way beyond the first.",
                    model.name
                ));
            }
            Ok(vec![FaultKind::Latency { service, factor: 3.0, replicas }])
        },
        lasts: Duration::from_secs(40),
        ramp: Duration::from_secs(20),
    },
    Preset {
        name: "deploy-wave",
        about: "instances are replaced one after another, each away for 10 s",
        strike: |_, service| {
            Ok(vec![FaultKind::Deploy { service, batch: 1, each: Duration::from_secs(10) }])
        },
        lasts: Duration::ZERO,
        ramp: Duration::ZERO,
    },
];

fn load(scenario: &Scenario, factor: f64) -> Result<Vec<FaultKind>, String> {
    let open =
        |arrivals: &Arrivals| matches!(arrivals, Arrivals::Poisson { .. } | Arrivals::Mmpp { .. });
    let clients = scenario.clients.iter().enumerate();
    let faults: Vec<FaultKind> = clients
        .filter(|(_, client)| open(&client.arrivals))
        .map(|(client, _)| FaultKind::Load { client, factor })
        .collect();
    if faults.is_empty() {
        return Err("more load needs a client with `poisson` or `mmpp` arrivals".to_owned());
    }
    Ok(faults)
}

/// Before the fault: long enough for a baseline.
const BEFORE: Duration = Duration::from_secs(30);
/// After the last one: long enough for a verdict.
const AFTER: Duration = Duration::from_secs(90);

/// `scenario` with the outage called `name` instead of its own faults, at
/// `target` or else where the load is heaviest.
pub(super) fn play(
    mut scenario: Scenario,
    name: &str,
    target: Option<&str>,
) -> Result<Scenario, String> {
    let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else {
        return Err(format!("there is no game day `{name}`; there are:\n{}", list()));
    };
    let service = match target {
        Some(name) => scenario
            .services
            .iter()
            .position(|service| service.name == name)
            .ok_or_else(|| format!("the scenario has no service `{name}`"))?,
        None => busiest(&scenario),
    };
    let kinds = (preset.strike)(&mut scenario, service)?;
    let at = scenario.run.warm_up + BEFORE;
    let (batch, each) = (1, Duration::from_secs(10));
    let deploy = each * scenario.services[service].replicas.div_ceil(batch);
    scenario.faults = kinds
        .into_iter()
        .map(|kind| {
            let lasts =
                if matches!(kind, FaultKind::Deploy { .. }) { deploy } else { preset.lasts };
            // Whoever reconnects does so when there is something to connect to.
            let late =
                matches!(kind, FaultKind::Load { .. }) && preset.name == "thundering-reconnect";
            let at = if late { at + preset.lasts } else { at };
            Fault { kind, at, lasts, ramp: preset.ramp }
        })
        .collect();
    let ends = scenario.faults.iter().map(|fault| fault.at + fault.lasts).max().unwrap_or(at);
    scenario.run.duration = ends + AFTER;
    scenario.run.recovery_limit = scenario.run.recovery_limit.min(AFTER);
    scenario.expect.retain(|it| !matches!(it, Expectation::TriggerMargin { .. }));
    if scenario.expect.is_empty() {
        scenario.expect.push(Expectation::RecoversWithin(Duration::from_secs(60)));
    }
    let struck = &scenario.services[service].name;
    scenario.assumptions.push(match target {
        Some(_) => format!("Game day {name} instead of the scenario's own faults."),
        None => format!(
            "Game day {name} instead of the scenario's own faults, at {struck}: it is the busiest; `--service` says otherwise."
        ),
    });
    scenario.name = format!("{name}: {}", scenario.name);
    Ok(scenario)
}

fn busiest(scenario: &Scenario) -> usize {
    let rates = scenario.visit_rates();
    let use_of = |service: usize| rates[service] / scenario.services[service].capacity();
    (0..rates.len()).max_by(|a, b| use_of(*a).total_cmp(&use_of(*b))).unwrap_or(0)
}

/// What it is played on where nothing else is given.
pub(super) fn careful_checkout() -> Result<Scenario, String> {
    read("scenario.yaml", files!("gameday": "scenario.yaml", "selvedge.yaml"))
}

/// A worked example: its name, what it shows, its scenarios, and the files they speak of.
struct Example {
    name: &'static str,
    about: &'static str,
    scenarios: &'static [&'static str],
    files: &'static [(&'static str, &'static str)],
}

const EXAMPLES: &[Example] = &[
    Example {
        name: "example/retry-storm",
        about: "three layers of retries hold a database down after a ten second outage; a budget does not",
        scenarios: &["greedy.yaml", "careful.yaml"],
        files: files!("retry-storm": "greedy.yaml", "careful.yaml", "selvedge.greedy.yaml", "selvedge.careful.yaml"),
    },
    Example {
        name: "example/bucket-vs-breaker",
        about: "one call in five fails: a budget serves nine users in ten, a breaker turns most away",
        scenarios: &["bucket.yaml", "breaker.yaml"],
        files: files!("bucket-vs-breaker": "bucket.yaml", "breaker.yaml", "selvedge.bucket.yaml", "selvedge.breaker.yaml"),
    },
    Example {
        name: "example/hedging",
        about: "hedges that halve the tail at low load are the overload at high load",
        scenarios: &["low.yaml", "low-without.yaml", "high.yaml", "high-without.yaml"],
        files: files!("hedging": "low.yaml", "low-without.yaml", "high.yaml", "high-without.yaml", "selvedge.yaml", "selvedge.without.yaml"),
    },
    Example {
        name: "example/lifo-vs-fifo",
        about: "after an outage, a queue that serves the newest first is well at once",
        scenarios: &["fifo.yaml", "lifo.yaml"],
        files: files!("lifo-vs-fifo": "fifo.yaml", "lifo.yaml", "selvedge.yaml"),
    },
    Example {
        name: "example/small-clients",
        about: "ten gateways open their breakers, a thousand small ones never see enough calls to",
        scenarios: &["ten.yaml", "thousand.yaml"],
        files: files!("small-clients": "ten.yaml", "thousand.yaml", "selvedge.yaml"),
    },
    Example {
        name: "example/deploy-wave",
        about: "instances are replaced one after another; retries and health checks hide it",
        scenarios: &["careful.yaml", "bare.yaml"],
        files: files!("deploy-wave": "careful.yaml", "bare.yaml", "selvedge.yaml", "selvedge.bare.yaml"),
    },
];

/// What there is.
pub(super) fn list() -> String {
    let presets = PRESETS.iter().map(|preset| (preset.name, preset.about));
    let examples = EXAMPLES.iter().map(|example| (example.name, example.about));
    let line = |(name, about): (&str, &str)| format!("{name:<26} {about}\n");
    let (presets, examples): (String, String) =
        (presets.map(line).collect(), examples.map(line).collect());
    format!("On your own scenario:\n{presets}\nWorked examples, as they are:\n{examples}")
}

/// The scenarios of the worked example called `name`; `None` if there is none.
pub(super) fn example(name: &str) -> Option<Result<Vec<Scenario>, String>> {
    let example = EXAMPLES.iter().find(|example| example.name == name)?;
    Some(example.scenarios.iter().map(|scenario| read(scenario, example.files)).collect())
}

fn read(name: &str, files: &[(&str, &str)]) -> Result<Scenario, String> {
    let text = files.iter().find(|(file, _)| *file == name).map_or("", |(_, text)| text);
    read_scenario(name, text, Files::Embedded(files), None)
        .map_err(|report| report.render(Style::Plain))
}
