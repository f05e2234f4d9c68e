//! The data plane over real sockets, against upstreams that behave and misbehave.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod bounds;
mod forwarding;
mod http2;
mod kit;
mod malformed;
mod policies;
mod running;
