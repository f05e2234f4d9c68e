//! Selvedge: distributed-systems patterns as configuration, and as a library.
