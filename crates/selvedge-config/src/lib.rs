//! The configuration file: from what a person wrote to what the data plane runs.
//!
//! [`load`] reads a file (or a folder of them), [`check`] says everything there
//! is to say about it, [`Loaded::effective`] writes it out with every default,
//! [`json_schema`] describes it to editors. Nothing here stops at the first
//! problem, and every problem has a place, a reason and a way out.

mod convert;
mod diagnostic;
mod expand;
mod lint;
mod load;
mod read;
pub mod scenario;
pub mod schema;
mod show;
mod source;
mod suggest;
mod tree;
mod value;

pub use diagnostic::{Code, Diagnostic, Report, Severity, Style};
pub use expand::Env;
pub use load::{
    AppApi, Durable, Loaded, Operator, Push, Telemetry, check, load, load_text, load_with,
};
pub use read::{Factor, Named, Secret, Set, Text};
pub use schema::{LogFormat, Output, json_schema};
pub use source::{Position, Source, Sources, Span};
pub use value::{Address, Bytes, Percent, Rate};
