//! Connection tracking with netfilter's semantics.
//!
//! [`shard::Shard`] is the whole of it for one worker; [`table::Table`] keeps the flows of one
//! family; [`tcp`], [`udp`], [`sctp`] and [`icmp`] judge packets; [`wheel::Wheel`] ends flows. Nothing here
//! reads a clock or allocates after the start, except for listings.
pub mod config;
pub mod entry;
pub mod event;
pub mod gre;
pub mod icmp;
pub mod index;
pub mod ledger;
pub mod limit;
pub mod record;
pub mod sctp;
pub mod shard;
pub mod table;
pub mod tcp;
#[cfg(test)]
mod trace;
pub mod tuple;
pub mod types;
pub mod udp;
pub mod wheel;
