//! Checks a configuration: `cargo run -p selvedge-config --example check -- FILE [fancy|effective|json|schema]`.
#![expect(clippy::print_stdout, reason = "it is a command")]

use std::path::Path;

use selvedge_config::{Style, check, json_schema, load};

fn main() {
    let mut args = std::env::args().skip(1);
    let (file, how) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    let path = Path::new(&file);
    match how.as_str() {
        "schema" => println!("{:#}", json_schema()),
        "json" => println!("{:#}", check(path).to_json()),
        "effective" => match load(path) {
            Ok(loaded) => print!("{}", loaded.effective()),
            Err(report) => print!("{report}"),
        },
        "fancy" => print!("{}", check(path).render(Style::Fancy)),
        _ => print!("{}", check(path).render(Style::Plain)),
    }
}
