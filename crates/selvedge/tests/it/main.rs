//! The real binary, as a person or a script meets it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod commands;
mod demo;
mod examples;
mod serving;
mod simulate;
