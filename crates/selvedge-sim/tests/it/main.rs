//! The simulator against what is known: closed forms, published runs, and its own promises.

#![expect(clippy::print_stdout, reason = "a test shows the numbers it judged")]

mod bench;
mod laws;
mod policies;
mod queueing;
mod storm;
mod support;
