//! What every layer stands on: time as a value, the keyed hash, single-writer counters, counts by key,
//! slabs, the RCU primitive. Knows nothing of packets.
pub mod counter;
pub mod cpu;
pub mod hash;
pub mod rcu;
pub mod slab;
pub mod tally;
pub mod time;
