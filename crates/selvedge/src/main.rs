//! The `selvedge` command: wiring, exit codes, and what a person sees.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to its terminal"
)]

mod cli;
mod client;
mod configuration;
mod demo;
mod doctor;
mod explain;
mod failure;
mod run;
mod simulate;
mod store;
mod terminal;
mod top;

use crate::{
    cli::{Cli, Command, ConfigCommand},
    failure::Failure,
    terminal::Paint,
};
use clap::Parser as _;
use std::{future::Future, process::ExitCode};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run::run(options),
        Command::Check(options) => configuration::check(&options),
        Command::Config(cli::Config { command: ConfigCommand::Show(options) }) => {
            configuration::show(&options)
        }
        Command::Config(cli::Config { command: ConfigCommand::Schema }) => {
            configuration::schema();
            Ok(())
        }
        Command::Explain(options) => explain::command(&options),
        Command::Simulate(options) => return ExitCode::from(simulate::command(options)),
        Command::Demo(options) => block_on(demonstrate(options)),
        Command::Top(options) => block_on(top::run(options)),
        Command::ShopService(options) => block_on(async {
            end_with_stdin();
            demo::shop::serve(options)
                .await
                .map_err(|error| Failure::cannot_start("a service of the shop", error))
        }),
        Command::Doctor(options) => block_on(doctor::command(options)),
        Command::Store(cli::Store { command }) => store::command(command),
        Command::Version(options) => {
            version(&options);
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.exit())
        }
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::cannot_start("no event loop to be had", error))?
        .block_on(work)
}

async fn demonstrate(options: demo::Options) -> Result<(), Failure> {
    if let Some(folder) = &options.scenarios {
        let written = demo::rehearsal::write(folder, options.fast);
        for name in written.map_err(|error| Failure::demo(&error))? {
            println!("{}", folder.join(name).display());
        }
        return Ok(());
    }
    let report = tokio::select! {
        report = demo::run(&options) => report.map_err(|error| Failure::demo(&error))?,
        // Leaving the other branch gives the screen back and ends the children.
        _ = tokio::signal::ctrl_c() => return Err(Failure::Interrupted),
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("the report serializes"));
    } else {
        println!("\n{}", report.table(Paint::for_stdout()));
    }
    if report.helped { Ok(()) } else { Err(Failure::No) }
}

fn version(options: &cli::Version) {
    let version = env!("CARGO_PKG_VERSION");
    if options.json {
        println!("{}", serde_json::json!({ "version": version }));
    } else {
        println!("selvedge {version}");
    }
}

/// Ends this process when its standard input does: whoever started it holds
/// the other end, and is gone then.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        #[expect(clippy::exit, reason = "a child has nothing to tidy up, and no one left to tell")]
        std::process::exit(0);
    });
}
