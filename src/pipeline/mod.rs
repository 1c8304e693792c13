//! The packet path between ports: parse, raw rules, tracking, policy, verdict.
//!
//! A packet goes through three calls, so that a worker can run each over a whole burst and
//! overlap the cache misses: [`Pipeline::prepare`], [`Pipeline::prefetch`], [`Pipeline::decide`].
//! The last runs in arrival order. A fragment waits in a [`defrag::Defrag`] until its datagram is
//! whole, and that goes through the same calls once. Pure: no clock, no I/O; a [`Pipeline`] belongs to one worker.

pub mod counters;
pub mod defrag;
pub mod drop;
pub mod reject;
pub mod run;
#[cfg(test)]
mod tests;

pub use counters::Counters;
pub use drop::DropReason;
pub use run::{By, Disposition, Outcome, Pipeline, Slot};
