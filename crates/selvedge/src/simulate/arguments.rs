//! What can be asked of the simulator.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use selvedge_sim::model::Scenario;

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a scenario and judge its expectations
    #[command(after_help = "\
Examples:
  selvedge simulate run scenario.yaml --html report.html
  selvedge simulate run scenario.yaml --json | jq .verdicts
  selvedge simulate run scenario.yaml --junit result.xml --seeds 40     # in CI

Exit codes: 0 every expectation holds, 1 one does not, 2 bad input, 3 so many seeds cannot tell.")]
    Run(Run),
    /// Find the size of a fault, or of anything else, at which it stops recovering
    #[command(after_help = "\
Example:
  selvedge simulate boundary scenario.yaml --vary 'faults[0].for' --to 60")]
    Boundary(Boundary),
    /// Vary two things at once: where is it stable, vulnerable, metastable?
    #[command(after_help = "\
Example:
  selvedge simulate map scenario.yaml --x rate=100..600 --y 'faults[0].for=1..30' --html map.html")]
    Map(MapCommand),
    /// Compare two scenarios, or two configurations under one scenario, seed by seed
    #[command(after_help = "\
Examples:
  selvedge simulate diff before.yaml after.yaml
  selvedge simulate diff selvedge.old.yaml selvedge.yaml --scenario scenario.yaml")]
    Diff(Diff),
    /// Look for the smallest change of the configuration that meets the expectations
    #[command(after_help = "\
Every fault of the scenario is tried alone and together with the others, and the worst counts. What
holds is tried again on fresh seeds, and with load, capacity and service tail a fifth off. Printed:
what is not beaten in everything, the smallest change first, with the neighbour that fails.

Example:
  selvedge simulate advise scenario.yaml --seeds 8

Exit codes: 0 something meets the expectations, 1 nothing that was tried does, 2 bad input.")]
    Advise(Advise),
    /// Play an outage with a name on your own scenario; without a name, list them
    #[command(after_help = "\
Examples:
  selvedge simulate gameday                                      # which there are
  selvedge simulate gameday retry-storm --scenario scenario.yaml --html report.html
  selvedge simulate gameday sinkhole                             # on a scenario that comes along

The faults of the scenario give way to those of the game day; everything else is as you wrote it.")]
    Gameday(Gameday),
    /// Run a scenario with the arrivals of a trace or of Selvedge's own access log
    #[command(after_help = "\
A trace has a line for each call: its time in seconds, then its route, separated by a comma. A line of
the access log of `selvedge run` will do as well. Only arrivals are taken: what was measured of the
answers has the waiting of that day in it. A scenario may also name a trace itself:
`arrivals: trace, trace: ./calls.csv`.

Example:
  selvedge simulate replay access.log scenario.yaml --only /checkout")]
    Replay(Replay),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The scenario
    pub(crate) scenario: PathBuf,
    /// Use this configuration instead of the one the scenario names
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) seeds: Seeds,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Seeds {
    /// Independent replications, instead of what the scenario says
    #[arg(long, value_name = "COUNT")]
    seeds: Option<u32>,
    /// The first seed, instead of what the scenario says
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Replications at once; by default as many as there are cores
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,
}

impl Seeds {
    pub(crate) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    pub(crate) fn apply(&self, scenario: &mut Scenario) {
        scenario.run.seeds = self.seeds.unwrap_or(scenario.run.seeds).max(1);
        scenario.run.seed = self.seed.unwrap_or(scenario.run.seed);
    }
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Write the report, one self-contained page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the expectations as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Write the summary as Markdown
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Print one JSON document instead of the summary
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Boundary {
    /// The scenario
    pub(crate) scenario: PathBuf,
    /// What to vary: faults[0].for, faults[0].size, clients.NAME.rate, services.NAME.retry.attempts and the like
    #[arg(long, value_name = "WHAT")]
    pub(crate) vary: String,
    /// From where, in seconds or plain numbers; by default 0
    #[arg(long)]
    pub(crate) from: Option<f64>,
    /// Up to where; by default eight times what the scenario says
    #[arg(long)]
    pub(crate) to: Option<f64>,
    /// Use this configuration instead of the one the scenario names
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) seeds: Seeds,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MapCommand {
    /// The scenario
    pub(crate) scenario: PathBuf,
    /// What goes across, and its values: rate=100..600 or rate=100,200,300
    #[arg(long, value_name = "WHAT=VALUES")]
    pub(crate) x: String,
    /// What goes upwards
    #[arg(long, value_name = "WHAT=VALUES")]
    pub(crate) y: String,
    /// Values per range
    #[arg(long, default_value_t = 8)]
    pub(crate) steps: usize,
    /// Write the map as a page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Use this configuration instead of the one the scenario names
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) seeds: Seeds,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The scenario or configuration before
    pub(crate) old: PathBuf,
    /// The scenario or configuration after
    pub(crate) new: PathBuf,
    /// Compare two configurations under this scenario
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) seeds: Seeds,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Advise {
    /// The scenario, with expectations
    pub(crate) scenario: PathBuf,
    /// Use this configuration instead of the one the scenario names
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) seeds: Seeds,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Gameday {
    /// Its name
    pub(crate) preset: Option<String>,
    /// Your scenario; by default a careful checkout of two services
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,
    /// Use this configuration instead of the one the scenario names
    #[arg(long, value_name = "FILE", requires = "scenario")]
    pub(crate) config: Option<PathBuf>,
    /// The service that it strikes; by default the busiest
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    #[command(flatten)]
    pub(crate) seeds: Seeds,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The calls: a table of `seconds,route`, or an access log
    pub(crate) trace: PathBuf,
    /// The scenario
    pub(crate) scenario: PathBuf,
    /// Whose calls these are, where the scenario has several clients
    #[arg(long, value_name = "NAME")]
    pub(crate) client: Option<String>,
    /// Only calls whose route begins with this
    #[arg(long, value_name = "PATH")]
    pub(crate) only: Option<String>,
    /// Use this configuration instead of the one the scenario names
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) seeds: Seeds,
    #[command(flatten)]
    pub(crate) output: Output,
}
