//! `selvedge simulate`: rehearse an outage with the production file.
//!
//! Exit codes: 0 everything holds, 1 an expectation failed, 2 bad input,
//! 3 so many seeds cannot tell.

mod arguments;
mod gameday;
mod trace;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use selvedge_config::scenario::load_scenario;
use selvedge_config::{Report, Style};
use selvedge_sim::model::{Refused, Scenario};
use selvedge_sim::report;
use selvedge_sim::search::{self, Knob, Map, Point};
use selvedge_sim::study::{Outcome, Study};

pub(crate) use arguments::Simulate;
use arguments::{Advise, Boundary, Command, Diff, Gameday, MapCommand, Output, Replay, Run, Seeds};

/// Something is wrong with what was given.
const BAD_INPUT: u8 = 2;

/// Runs the command; the answer is the exit code.
pub(crate) fn command(simulate: Simulate) -> u8 {
    let outcome = match simulate.command {
        Command::Run(options) => run(&options),
        Command::Boundary(options) => boundary(&options),
        Command::Map(options) => map(&options),
        Command::Diff(options) => diff(&options),
        Command::Advise(options) => advise(&options),
        Command::Gameday(options) => gameday(&options),
        Command::Replay(options) => replay(&options),
    };
    match outcome {
        Ok(outcome) => match outcome {
            Outcome::Passed => 0,
            Outcome::Failed => 1,
            Outcome::Inconclusive => 3,
        },
        Err(said) => {
            eprintln!("{said}");
            BAD_INPUT
        }
    }
}

fn load(path: &Path, config: Option<&Path>, seeds: &Seeds) -> Result<Scenario, String> {
    let mut scenario = load_scenario(path, config).map_err(|report| render(&report))?;
    seeds.apply(&mut scenario);
    Ok(scenario)
}

fn render(report: &Report) -> String {
    report.render(Style::Plain)
}

fn refused(refused: &Refused) -> String {
    format!("error[SV0502]: {refused}")
}

fn study(scenario: &Scenario, threads: usize) -> Result<Study, String> {
    let progress = Progress::new(&scenario.name, scenario.run.seeds as usize);
    let result = Study::run(scenario, threads, &|_| progress.step());
    progress.end();
    let study = result.map_err(|error| refused(&error))?;
    if let Some(broken) = study.runs.iter().find_map(|run| run.broken.as_ref()) {
        return Err(format!(
            "the simulator contradicts itself ({broken}); please report this with the scenario"
        ));
    }
    Ok(study)
}

fn run(options: &Run) -> Result<Outcome, String> {
    let scenario = load(&options.scenario, options.config.as_deref(), &options.seeds)?;
    let study = study(&scenario, options.seeds.threads())?;
    show(&study, &options.output)?;
    Ok(study.outcome())
}

fn show(study: &Study, output: &Output) -> Result<(), String> {
    if let Some(path) = &output.html {
        write(path, &report::page(study, env!("CARGO_PKG_VERSION")))?;
    }
    if let Some(path) = &output.junit {
        write(path, &report::junit(study))?;
    }
    if let Some(path) = &output.markdown {
        write(path, &report::summary(study))?;
    }
    if output.json {
        println!("{:#}", report::document(study));
    } else {
        println!("{}", report::summary(study));
        println!("Assumed:");
        for line in &study.scenario.assumptions {
            println!("- {line}");
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text)
        .map_err(|error| format!("`{}` cannot be written: {error}", path.display()))?;
    eprintln!("wrote {}", path.display());
    Ok(())
}

fn knob(text: &str, scenario: &Scenario) -> Result<Knob, String> {
    Knob::parse(text, scenario).map_err(|error| error.to_string())
}

fn boundary(options: &Boundary) -> Result<Outcome, String> {
    let scenario = load(&options.scenario, options.config.as_deref(), &options.seeds)?;
    let knob = knob(&options.vary, &scenario)?;
    let now = knob.value(&scenario);
    let from = options.from.unwrap_or(0.0).max(if knob.is_time() { 0.001 } else { 0.0 });
    let to = options.to.or_else(|| now.map(|now| now * 8.0)).ok_or("say how far to look: --to")?;
    let mut tell = |point: &Point| {
        eprintln!(
            "  {} = {:.3}: {} of {} recover",
            options.vary, point.value, point.well, point.seeds
        );
    };
    let found = search::boundary(&scenario, &knob, from, to, options.seeds.threads(), &mut tell);
    let found = found.map_err(|error| refused(&error))?;
    let fluid = Study::run(
        &Scenario { run: one_seed(&scenario), expect: Vec::new(), ..scenario.clone() },
        1,
        &|_| (),
    )
    .ok()
    .and_then(|study| study.fluid);
    if options.json {
        let points: Vec<_> = found
            .points
            .iter()
            .map(|p| serde_json::json!({ "value": p.value, "recovered": p.well, "seeds": p.seeds, "success": p.success }))
            .collect();
        let document = serde_json::json!({
            "schema": report::SCHEMA, "vary": options.vary, "half": found.half,
            "between": [found.between.0, found.between.1], "points": points,
            "fluid": fluid.map(|fluid| fluid.sentence()),
        });
        println!("{document:#}");
    } else {
        match found.half {
            Some(half) => println!(
                "{}: half of the runs no longer recover at {half:.3}; most do at {:.3}, most do not at {:.3}",
                options.vary, found.between.0, found.between.1
            ),
            None if found.points.first().is_some_and(|point| point.well * 2 >= point.seeds) => {
                println!("{}: recovers everywhere from {from} to {to}", options.vary);
            }
            None => println!("{}: recovers nowhere from {from} to {to}", options.vary),
        }
        if let Some(fluid) = fluid {
            println!("Cross-check, {}.", fluid.sentence());
        }
    }
    Ok(Outcome::Passed)
}

fn one_seed(scenario: &Scenario) -> selvedge_sim::model::Run {
    selvedge_sim::model::Run { seeds: 1, ..scenario.run }
}

/// `1..10` in `steps` steps, or `1,2,5`.
fn values(text: &str, steps: usize) -> Result<Vec<f64>, String> {
    let number = |text: &str| -> Result<f64, String> {
        let text = text.trim().trim_end_matches('s');
        text.parse().map_err(|_| format!("`{text}` is no number"))
    };
    match text.split_once("..") {
        Some((from, to)) => {
            let (from, to) = (number(from)?, number(to)?);
            Ok((0..steps)
                .map(|i| from + (to - from) * i as f64 / (steps - 1).max(1) as f64)
                .collect())
        }
        None => text.split(',').map(number).collect(),
    }
}

fn axis(text: &str, steps: usize, scenario: &Scenario) -> Result<(String, Knob, Vec<f64>), String> {
    let (name, range) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}`: write it as `rate=100..500` or `rate=100,200,300`"))?;
    Ok((name.to_owned(), knob(name, scenario)?, values(range, steps)?))
}

fn map(options: &MapCommand) -> Result<Outcome, String> {
    let scenario = load(&options.scenario, options.config.as_deref(), &options.seeds)?;
    let (x_name, x_knob, x) = axis(&options.x, options.steps, &scenario)?;
    let (y_name, y_knob, y) = axis(&options.y, options.steps, &scenario)?;
    let progress = Progress::new("map", x.len() * y.len());
    let found =
        search::map(&scenario, (&x_knob, x), (&y_knob, y), options.seeds.threads(), &mut |_, _| {
            progress.step()
        });
    progress.end();
    let found = found.map_err(|error| refused(&error))?;
    if let Some(path) = &options.html {
        write(
            path,
            &report::map_page(&scenario.name, &x_name, &y_name, &found, env!("CARGO_PKG_VERSION")),
        )?;
    }
    if options.json {
        println!("{:#}", report::map_document(&scenario.name, &x_name, &y_name, &found));
        return Ok(Outcome::Passed);
    }
    println!(
        "{y_name} upwards, {x_name} across: share of seeds that recover (# stable, + vulnerable, . metastable, - unhealthy)\n"
    );
    for (row, y) in found.cells.iter().zip(&found.y).rev() {
        let cells: Vec<String> = row.iter().map(cell).collect();
        println!("{y:>10.3}  {}", cells.join(" "));
    }
    let labels: Vec<String> = found.x.iter().map(|x| format!("{x:>6.5}")).collect();
    println!("{:>10}  {}", "", labels.join(" "));
    Ok(Outcome::Passed)
}

fn cell(point: &Point) -> String {
    let sign = match Map::region(point) {
        search::Region::Stable => '#',
        search::Region::Vulnerable => '+',
        search::Region::Metastable => '.',
        search::Region::Unhealthy => '-',
    };
    format!("{:>4.0}%{sign}", 100.0 * point.well as f64 / point.seeds.max(1) as f64)
}

fn diff(options: &Diff) -> Result<Outcome, String> {
    let load = |path: &Path| match &options.scenario {
        Some(scenario) => load(scenario, Some(path), &options.seeds),
        None => load(path, None, &options.seeds),
    };
    let (mut old, mut new) = (load(&options.old)?, load(&options.new)?);
    // The same seeds, or the pairs would not be pairs.
    new.run.seed = old.run.seed;
    new.run.seeds = old.run.seeds;
    (old.name, new.name) = (options.old.display().to_string(), options.new.display().to_string());
    let (before, after) =
        (study(&old, options.seeds.threads())?, study(&new, options.seeds.threads())?);
    let differences = search::differences(&before, &after);
    if options.json {
        println!("{:#}", report::difference_document(&old.name, &new.name, &differences));
    } else {
        println!("{}", report::difference_table(&old.name, &new.name, &differences));
    }
    let worse = differences
        .iter()
        .take(2)
        .any(|it| it.significant() && (it.difference.mean > 0.0) != it.more_is_better);
    Ok(if worse { Outcome::Failed } else { after.outcome() })
}

fn advise(options: &Advise) -> Result<Outcome, String> {
    let scenario = load(&options.scenario, options.config.as_deref(), &options.seeds)?;
    if scenario.expect.is_empty() {
        return Err("`advise` looks for the smallest change that meets the expectations: the scenario has no `expect`".to_owned());
    }
    let line = std::io::stderr().is_terminal();
    let advice = selvedge_sim::advise::advise(&scenario, options.seeds.threads(), &mut |said| {
        if line {
            eprint!("\r\x1b[K{}: {said}", scenario.name);
            let _ = std::io::stderr().flush();
        }
    });
    if line {
        eprint!("\r\x1b[K");
    }
    let advice = advice.map_err(|error| refused(&error))?;
    if options.json {
        println!("{:#}", advice.document());
    } else {
        println!("{}", advice.text());
    }
    Ok(if advice.found() { Outcome::Passed } else { Outcome::Failed })
}

fn gameday(options: &Gameday) -> Result<Outcome, String> {
    let Some(preset) = &options.preset else {
        println!("{}", gameday::list());
        return Ok(Outcome::Passed);
    };
    if let Some(scenarios) = gameday::example(preset) {
        return example(scenarios?, options);
    }
    let mut scenario = match &options.scenario {
        Some(path) => load(path, options.config.as_deref(), &options.seeds)?,
        None => gameday::careful_checkout()?,
    };
    options.seeds.apply(&mut scenario);
    let scenario = gameday::play(scenario, preset, options.service.as_deref())?;
    let study = study(&scenario, options.seeds.threads())?;
    show(&study, &options.output)?;
    Ok(study.outcome())
}

/// A worked example has several scenarios, to be held against each other.
fn example(scenarios: Vec<Scenario>, options: &Gameday) -> Result<Outcome, String> {
    let output = &options.output;
    if output.html.is_some() || output.junit.is_some() || output.markdown.is_some() {
        return Err("an example has several scenarios, a page shows one: write one with \
             `selvedge simulate run` on a file of the example's folder"
            .to_owned());
    }
    let mut worst = Outcome::Passed;
    let mut documents = Vec::new();
    for mut scenario in scenarios {
        options.seeds.apply(&mut scenario);
        let study = study(&scenario, options.seeds.threads())?;
        if output.json {
            documents.push(report::document(&study));
        } else {
            println!("{}", report::summary(&study));
        }
        if study.outcome() != Outcome::Passed {
            worst = study.outcome();
        }
    }
    if output.json {
        println!("{:#}", serde_json::Value::from(documents));
    }
    Ok(worst)
}

fn replay(options: &Replay) -> Result<Outcome, String> {
    let mut scenario = load(&options.scenario, options.config.as_deref(), &options.seeds)?;
    let name = options.trace.display();
    let text = std::fs::read_to_string(&options.trace)
        .map_err(|error| format!("`{name}` cannot be read: {error}"))?;
    let (client, only) = (options.client.as_deref(), options.only.as_deref());
    trace::replay(&mut scenario, &text, client, only).map_err(|why| format!("{name}: {why}"))?;
    scenario.validate().map_err(|error| refused(&error))?;
    let study = study(&scenario, options.seeds.threads())?;
    show(&study, &options.output)?;
    Ok(study.outcome())
}

/// One line on a terminal that says how far it is.
struct Progress<'a> {
    what: &'a str,
    total: usize,
    done: AtomicUsize,
    since: Instant,
    shown: bool,
}

impl<'a> Progress<'a> {
    fn new(what: &'a str, total: usize) -> Self {
        let shown = std::io::stderr().is_terminal();
        Self { what, total, done: AtomicUsize::new(0), since: Instant::now(), shown }
    }

    fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.shown {
            let left = self.since.elapsed().as_secs_f64() / done as f64
                * self.total.saturating_sub(done) as f64;
            eprint!("\r\x1b[K{}: {done} of {} runs, {left:.0} s left", self.what, self.total);
            let _ = std::io::stderr().flush();
        }
    }

    fn end(&self) {
        if self.shown {
            eprint!("\r\x1b[K");
        }
    }
}
