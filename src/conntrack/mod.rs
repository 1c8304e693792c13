//! Connection tracking with netfilter's semantics.
pub mod config;
pub mod types;
