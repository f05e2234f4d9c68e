//! The data plane over real sockets, against upstreams that behave and misbehave.

mod forwarding;
mod http2;
mod kit;
mod malformed;
mod policies;
mod running;
