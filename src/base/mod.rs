//! What every layer stands on: time as a value, the keyed hash, single-writer counters, the RCU
//! primitive. Knows nothing of packets.
pub mod counter;
pub mod hash;
pub mod prefetch;
pub mod rcu;
pub mod time;
