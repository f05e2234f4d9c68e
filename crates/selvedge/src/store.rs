//! `selvedge store`: what an operator does to the file of a store.

use crate::{
    cli::{Backup, Compact, StoreCommand, Verify},
    failure::Failure,
};
use selvedge_durable::{Config, Error};
use std::path::Path;

pub(crate) fn command(command: StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Backup(options) => backup(&options),
        StoreCommand::Verify(options) => verify(&options),
        StoreCommand::Compact(options) => compact(&options),
    }
}

fn backup(options: &Backup) -> Result<(), Failure> {
    let Backup { store, to } = options;
    let what = || format!("no backup of {} in {}", store.display(), to.display());
    selvedge_durable::backup(&Config::new(store), to)
        .map_err(|error| Failure::store(what(), &error))?;
    println!("{}: {} bytes", to.display(), size(to));
    Ok(())
}

fn verify(options: &Verify) -> Result<(), Failure> {
    let Verify { store, json } = options;
    let problems = match selvedge_durable::verify(&Config::new(store)) {
        Ok(problems) => problems,
        // So damaged that it cannot be opened: that is an answer too.
        Err(error @ Error::Corrupt { .. }) => vec![error.to_string()],
        Err(error) => {
            let what = format!("{} cannot be checked", store.display());
            return Err(Failure::store(what, &error));
        }
    };
    if *json {
        let document = serde_json::json!({
            "store": store, "ok": problems.is_empty(), "problems": problems,
        });
        println!("{}", serde_json::to_string_pretty(&document).expect("texts serialize"));
    } else {
        for problem in &problems {
            println!("{}: {problem}", store.display());
        }
        if problems.is_empty() {
            println!("{}: everything is as it was written", store.display());
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::No) }
}

fn compact(options: &Compact) -> Result<(), Failure> {
    let Compact { store } = options;
    let before = size(store);
    selvedge_durable::compact(&Config::new(store))
        .map_err(|error| Failure::store(format!("{} stays as it is", store.display()), &error))?;
    println!("{}: {before} bytes, now {}", store.display(), size(store));
    Ok(())
}

fn size(file: &Path) -> u64 {
    std::fs::metadata(file).map_or(0, |file| file.len())
}
