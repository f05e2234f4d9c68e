//! Every HTTP surface that is not proxied traffic.
//!
//! [`operator`] is the first of them: what runs, how it fares, and the few
//! things an operator may do about it, as JSON, as Prometheus text and as a
//! page; [`app`] is what
//! programs use: topics, streams, state, leases; [`push`] brings messages to a
//! service instead of waiting for it to ask. This crate carries no proxied
//! traffic and decides nothing about it.

mod accept;
pub mod app;
pub mod operator;
pub mod push;
