//! `selvedge store`: what an operator does to a store.

use crate::{
    cli::{Backup, Compact, Place, StoreCommand, Verify},
    failure::Failure,
};
use selvedge_durable::{Config, Error};

pub(crate) fn command(command: StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Backup(options) => backup(&options),
        StoreCommand::Verify(options) => verify(&options),
        StoreCommand::Compact(options) => compact(&options),
    }
}

fn backup(options: &Backup) -> Result<(), Failure> {
    let Backup { place, to } = options;
    let config = config(place);
    selvedge_durable::backup(&config, to).map_err(|error| {
        let what = format!("no backup of {} in {}", config.place(), to.display());
        Failure::store(what, &error)
    })?;
    let size = std::fs::metadata(to).map_or(0, |file| file.len());
    println!("{}: {size} bytes", to.display());
    Ok(())
}

fn verify(options: &Verify) -> Result<(), Failure> {
    let Verify { place, json } = options;
    let config = config(place);
    let store = config.place();
    let problems = match selvedge_durable::verify(&config) {
        Ok(problems) => problems,
        // So damaged that it cannot be opened: that is an answer too.
        Err(error @ Error::Corrupt { .. }) => vec![error.to_string()],
        Err(error) => return Err(Failure::store(format!("{store} cannot be checked"), &error)),
    };
    if *json {
        let document = serde_json::json!({
            "store": store, "ok": problems.is_empty(), "problems": problems,
        });
        println!("{}", serde_json::to_string_pretty(&document).expect("texts serialize"));
    } else {
        for problem in &problems {
            println!("{store}: {problem}");
        }
        if problems.is_empty() {
            println!("{store}: everything is as it was written");
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::No) }
}

fn compact(options: &Compact) -> Result<(), Failure> {
    let config = config(&options.place);
    let store = config.place();
    let (before, after) = selvedge_durable::compact(&config)
        .map_err(|error| Failure::store(format!("{store} stays as it is"), &error))?;
    println!("{store}: {before} bytes, now {after}");
    Ok(())
}

/// A file, or a database by its connection string.
fn config(place: &Place) -> Config {
    let Place { store, schema, password } = place;
    let text = store.to_string_lossy();
    if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Config::new(store);
    }
    let mut url = text.into_owned();
    if let Some(password) = password {
        let mark = if url.contains('?') { '&' } else { '?' };
        let escaped: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        url.push_str(&format!("{mark}password={escaped}"));
    }
    Config { schema: schema.clone(), ..Config::postgres(url) }
}
