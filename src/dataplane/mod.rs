//! Port I/O behind a trait, the worker loop, steering and hand-off.
//!
//! Each worker runs to completion on its own core: it polls its queues, hands packets of other
//! workers' flows over, and takes the rest through its [`crate::pipeline::Pipeline`]. What
//! workers share is in [`shared`]: the policy (RCU), counters (single writer), rings (bounded).
pub mod capture;
pub mod clock;
pub mod command;
pub mod device;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod examples;
pub mod halt;
pub mod handoff;
pub mod idle;
pub mod io;
pub mod launch;
pub mod memory;
pub mod rss;
pub mod shared;
pub mod steer;
pub mod trace;
pub mod walk;
pub mod worker;

#[cfg(test)]
mod tests;
