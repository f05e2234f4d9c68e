//! The simulator against what is known: closed forms, published runs, and its own promises.

#![expect(clippy::print_stdout, reason = "a test shows the numbers it judged")]

mod bench;
mod identities;
mod laws;
mod parameters;
mod policies;
mod published;
mod queueing;
mod shapes;
mod storm;
mod support;
