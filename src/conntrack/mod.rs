//! Connection tracking with netfilter's semantics.
//!
//! [`shard::Shard`] is the whole of it for one worker:
//!
//! - [`mod@tuple`] says which flow a packet belongs to; [`table::Table`] keeps the flows of one
//!   family: [`entry`], [`index`], and the [`wheel`] that ends them;
//! - [`tcp`], [`udp`] (UDP-Lite too), [`sctp`], [`gre`] and [`icmp`] judge packets;
//! - [`limit`] bounds how many flows there are and says which go first; [`ledger`] knows by what
//!   policy counts each of them (`connlimit`);
//! - [`event`] tells what happens to flows, [`record`] shows them, [`mod@why`] names what makes a packet
//!   INVALID.
//!
//! Concurrency: a shard belongs to its worker. Workers share nothing but the [`limit::Budget`]
//! (atomics), counters and queues of events, which others read. Nothing here reads a clock or
//! allocates after the start, except for listings.
pub mod config;
pub mod entry;
pub mod event;
pub mod expect;
pub mod gre;
pub mod helper;
pub mod icmp;
pub mod index;
pub mod kin;
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
pub mod why;
