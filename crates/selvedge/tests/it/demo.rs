//! The demo, as a machine runs it.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use selvedge_config::{Style, scenario::load_scenario};
use selvedge_sim::{replicate::replicate, statistics::estimate};

#[test]
fn every_pattern_helps_and_nothing_is_left_behind() {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_selvedge"))
        .args(["demo", "--fast", "--json"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    assert!(output.status.success(), "{said}\n{report:#}");
    let scenarios = report["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 4);
    for scenario in scenarios {
        assert_eq!(scenario["helped"], true, "{scenario:#}");
        let share = |run: &str| {
            scenario[run]["good"].as_f64().unwrap() / scenario[run]["visits"].as_f64().unwrap()
        };
        assert!(share("with") > share("without"), "{scenario:#}");
    }
    // Generous: a busy machine may be slow, a demo that hangs must not pass.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

/// What the rehearsal of one run of the demo says, by the demo's own measures.
struct Rehearsed {
    visits: f64,
    goodput_per_second: f64,
    good_share: f64,
    recovers: bool,
}

fn rehearse(scenario: &Path) -> Rehearsed {
    let mut scenario = load_scenario(scenario, None)
        .unwrap_or_else(|report| panic!("{}", report.render(Style::Plain)));
    let (breaks, mended) =
        (scenario.faults[0].at, scenario.faults[0].at + scenario.faults[0].lasts);
    let lasting = scenario.run.duration;
    // Of those who come from then on: how many there are, and how many are served.
    let mut from = |moment: Duration| {
        scenario.run.warm_up = moment;
        let runs = replicate(&scenario, 2, &|_| ()).unwrap();
        let mean = |of: &dyn Fn(&selvedge_sim::record::Replication) -> u64| {
            estimate(&runs.iter().map(|run| of(run) as f64).collect::<Vec<_>>()).mean
        };
        (mean(&|run| run.clients.requests), mean(&|run| run.clients.good))
    };
    let (visits, good) = from(breaks);
    let mut recovers = false;
    let mut moment = mended;
    while moment + Duration::from_millis(50) < lasting && !recovers {
        let (all, well) = from(moment);
        recovers = all > 0.0 && well >= 0.9 * all;
        moment += Duration::from_millis(50);
    }
    let goodput_per_second = good / (lasting - breaks).as_secs_f64();
    Rehearsed { visits, goodput_per_second, good_share: good / visits, recovers }
}

#[test]
fn the_rehearsal_predicts_the_live_shop() {
    let folder = tempfile::tempdir().unwrap();
    let selvedge = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
        command.arg("demo").args(["--fast"]).args(arguments).stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    selvedge(&["--scenarios", folder.path().to_str().unwrap()]);
    let live: serde_json::Value = serde_json::from_slice(&selvedge(&["--json"])).unwrap();
    let mut wrong = Vec::new();
    for outage in live["scenarios"].as_array().unwrap() {
        let key = outage["scenario"].as_str().unwrap();
        let runs = ["without", "with"].map(|run| {
            let sim = rehearse(&folder.path().join(format!("{key}.{run}.yaml")));
            let live = &outage[run];
            let number = |name: &str| live[name].as_f64().unwrap();
            let (goodput, visits) = (number("goodput_per_second"), number("visits"));
            let said = format!(
                "{key} {run}: live {goodput:.1}/s of {visits}, recovers {}; rehearsed {:.1}/s of {:.1}, recovers {}",
                !live["recovered_after_ms"].is_null(),
                sim.goodput_per_second,
                sim.visits,
                sim.recovers
            );
            // Within ten per cent; where most leave with nothing, so few are left to
            // count that it is five per cent of those who came.
            let offered = sim.goodput_per_second / sim.good_share.max(1e-9);
            let offered = if sim.good_share > 0.0 { offered } else { visits };
            let close = (sim.goodput_per_second - goodput).abs() <= 0.1 * goodput.max(offered / 2.0);
            if !close || live["recovered_after_ms"].is_null() == sim.recovers {
                wrong.push(said);
            }
            sim
        });
        let [without, with] = runs;
        let helps = 1.0 - with.good_share <= (1.0 - without.good_share) / 2.0;
        assert_eq!(outage["helped"], helps, "{key}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
