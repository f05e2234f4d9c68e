//! What must hold for the crate as its users see it.

mod allocations;
