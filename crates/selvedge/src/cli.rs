//! The command line: what can be asked, and how it reads in `--help`.

use crate::demo;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the answer is no: `check` found errors, `doctor` something stuck, `store verify` damage,
       a pattern of the demo did not help
  2    the command line is wrong
  3    the configuration was refused
  4    the operator API cannot be reached, or refused
  5    could not start: an address is taken, a file cannot be written, a store cannot be opened
  130  interrupted

Every error has a code and a page in docs/errors/. NO_COLOR turns colours off.";

/// Makes flaky dependencies safe: timeouts, retries with a budget, breakers, bulkheads, limits and
/// fallbacks before any HTTP service, from one file
#[derive(Debug, Parser)]
#[command(name = "selvedge", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve a configuration
    #[command(after_help = "\
Examples:
  selvedge run selvedge.yaml
  SELVEDGE_LOG=debug selvedge run --log-format text selvedge.yaml

The file is read again when it changes or on SIGHUP: all of it or nothing. SIGTERM and SIGINT
let calls in flight end, for at most the configured drain time; a second one ends at once.
Access log lines go to standard output, everything else to standard error; the file's
`telemetry:` section can change that, and options and SELVEDGE_LOG win over the file.")]
    Run(Run),
    /// Say everything that is wrong with a configuration, and what is unwise
    #[command(after_help = "\
Examples:
  selvedge check selvedge.yaml
  selvedge check --strict selvedge.yaml     # warnings count as errors
  selvedge check --json selvedge.yaml | jq '.diagnostics[].message'")]
    Check(Check),
    /// Show the configuration as Selvedge understands it, or its schema
    Config(Config),
    /// Say what would happen to a request now: which route, which policy, with which numbers
    #[command(after_help = "\
Examples:
  selvedge explain GET /orders/1                            # asks the running process
  selvedge explain POST /orders --header 'x-api-key: abc'
  selvedge explain GET /orders/1 --config selvedge.yaml     # as it would be right after a start")]
    Explain(Explain),
    /// Rehearse an outage: your configuration against simulated services
    Simulate(crate::simulate::Simulate),
    /// A small shop, its outages, and what each pattern does about them
    #[command(after_help = "\
Examples:
  selvedge demo                # about two minutes, live
  selvedge demo --fast         # about fifteen seconds
  selvedge demo --fast --json | jq '.scenarios[] | {scenario, helped}'
  selvedge demo --scenarios shop && selvedge simulate run shop/total_outage.with.yaml

Needs nothing: the shop's services are processes of this program, on free ports.")]
    Demo(demo::Options),
    /// The dashboard in the terminal
    #[command(after_help = "\
Examples:
  selvedge top
  selvedge top --operator 10.0.0.7:9900 --token \"$SELVEDGE_TOKEN\"
  selvedge top --json          # one snapshot, for programs")]
    Top(Top),
    /// Say what is stuck in the store, how old it is, why, and what to do
    #[command(after_help = "\
Examples:
  selvedge doctor
  selvedge doctor --json | jq '.findings[] | select(.weight == \"stuck\")'

Exit code 0: nothing to say. 1: something is stuck or wants attention.")]
    Doctor(Doctor),
    /// Copy, check or shrink the file of a store
    Store(Store),
    /// Print the version
    Version(Version),
    /// One service of the demo's shop
    #[command(hide = true)]
    ShopService(demo::shop::Options),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The configuration: a YAML file, or a folder of them [default: ./selvedge.yaml if it is there]
    pub(crate) file: Option<PathBuf>,
    /// How log lines look; text on a terminal and JSON elsewhere unless said here or in the file
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// Write no access log
    #[arg(long)]
    pub(crate) no_access_log: bool,
    /// Drain when standard input ends: for a parent that may die
    #[arg(long, hide = true)]
    pub(crate) until_stdin_ends: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line
    Json,
    /// For people
    Text,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The configuration: a YAML file, or a folder of them
    pub(crate) file: PathBuf,
    /// Count warnings as errors
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the configuration with every default written out
    #[command(after_help = "\
Examples:
  selvedge config show --effective selvedge.yaml
  selvedge config show --effective --json selvedge.yaml | jq .services")]
    Show(Show),
    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = "\
Example:
  selvedge config schema > selvedge.schema.json
  # then, first line of selvedge.yaml:
  # yaml-language-server: $schema=selvedge.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The configuration: a YAML file, or a folder of them
    pub(crate) file: PathBuf,
    /// With every default written out
    #[arg(long, required = true)]
    pub(crate) effective: bool,
    /// Print JSON instead of YAML
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the operator API is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Operator {
    /// Address of the operator API
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9900")]
    pub(crate) operator: String,
    /// Its token, if it asks for one
    #[arg(long, env = "SELVEDGE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The method, such as GET
    pub(crate) method: String,
    /// A path with query, or a whole URL
    pub(crate) url: String,
    /// Explain by this file instead of asking a running process
    #[arg(long, value_name = "FILE", conflicts_with_all = ["operator", "token"])]
    pub(crate) config: Option<PathBuf>,
    /// A header that matters for the route, repeatable
    #[arg(long = "header", value_name = "NAME:VALUE")]
    pub(crate) headers: Vec<String>,
    /// The listener it would come in by
    #[arg(long)]
    pub(crate) listener: Option<String>,
    #[command(flatten)]
    pub(crate) operator: Operator,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) operator: Operator,
    /// Print one snapshot and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Print one snapshot as JSON and end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) operator: Operator,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Store {
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Write a consistent copy, also while `selvedge run` has the store open
    #[command(after_help = "\
Example:
  selvedge store backup store.db store-$(date +%F).db

The copy is a store: `selvedge store verify` checks it, `durable: <copy>` serves it. Of a store in
a database it names the `pg_dump` command that makes one.")]
    Backup(Backup),
    /// Read everything and name what is damaged
    #[command(after_help = "\
Example:
  selvedge store verify store.db

Exit code 0: everything is as it was written. 1: something is not, and is named. A file must
not be open; a backup can be checked at any time, and so can a database.")]
    Verify(Verify),
    /// Give the space of what was removed back to the disk
    #[command(after_help = "\
Example:
  selvedge store compact store.db

A file must not be open, and its disk needs room for a second copy meanwhile. A database is
swept beside the work that goes on: its tables keep most of their size, and fill the room.")]
    Compact(Compact),
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The store: a file, or a database as `postgres://user@host/database`
    pub(crate) store: PathBuf,
    /// The schema of a store in a database
    #[arg(long, default_value = "selvedge")]
    pub(crate) schema: String,
    /// The password of a database, if it is not in the connection string
    #[arg(long, env = "PGPASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The copy, which must not exist
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Print one JSON document instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
