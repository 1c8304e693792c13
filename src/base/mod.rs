//! What every layer stands on: time as a value ([`time`]), the keyed hash ([`hash`]), single-writer
//! counters ([`counter`]) and histograms of them ([`histogram`]), counts by key that all workers share ([`tally`]), token buckets
//! by key ([`meters`]), arrays on huge pages
//! ([`slab`]), the RCU primitive ([`rcu`]), the hash that NICs spread packets by ([`toeplitz`]), notes that any worker may take ([`board`]), prefetch and comparison of tags ([`cpu`]). Knows
//! nothing of packets.
pub mod board;
pub mod counter;
pub mod cpu;
pub mod hash;
pub mod histogram;
pub mod meters;
pub mod rcu;
pub mod slab;
pub mod tally;
pub mod time;
pub mod toeplitz;
