//! The simulator against what is known: closed forms, published runs, and its own promises.
//!
//! Cases are numbered as in the validation list: V1 to V15 are queues
//! (`queueing`), V16 to V26 policies (`policies`), V18, R2 and R3 published
//! simulations (`published`), R1 the retry storm (`storm`), P1 to P4 shapes
//! (`shapes`), V20, V21, V28, V31 and V32 identities (`identities`), V33 and V34
//! hold in every run (`laws`, and a debug assertion at the end of each). The
//! closed forms alone, V27 and V29 too, are tested beside `theory`, V30 beside
//! `codel`. `parameters` leaves the listed values; `behaviour` goes through the
//! model and the faults one by one.
//!
//! `SELVEDGE_LONG=1` is the same with more customers and narrower errors.

#![expect(clippy::print_stdout, reason = "a test shows the numbers it judged")]

mod behaviour;
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
