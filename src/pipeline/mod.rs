//! The packet path between ports: parse, reassembly, raw rules, tracking, policy, verdict.
//!
//! A packet goes through three calls, so that a worker can run each over a whole burst and
//! overlap the cache misses: [`Pipeline::prepare`], [`Pipeline::prefetch`], [`Pipeline::decide`].
//! The last runs in arrival order, and enters a new flow into the table only if policy accepts its
//! packet. A fragment waits in a [`defrag::Defrag`] until its datagram is whole; that is judged
//! once, by [`Pipeline::join`] in place of the first call and [`Pipeline::decide_whole`] of the
//! last.
//!
//! Pure: no clock, no I/O. A [`Pipeline`] and a [`defrag::Defrag`] belong to one worker.

pub mod assist;
pub mod counters;
pub mod defrag;
pub mod drop;
pub mod explain;
mod memory;
pub mod reject;
pub mod run;
#[cfg(test)]
mod tests;
pub mod trace;

pub use counters::Counters;
pub use drop::DropReason;
pub use explain::Explanation;
pub use run::{By, Disposition, Judged, Outcome, Pipeline, Slot, Witness};
pub use trace::{Filter, Sighting, Traced};
