//! shardwall: a stateful firewall appliance on DPDK poll-mode drivers.
//!
//! The layers are the folders, and imports run downward only (`tests/layering.rs` holds it):
//!
//! | layer | holds |
//! |---|---|
//! | [`base`] | time values, keyed hash, per-core counters, tallies (counts by key), slabs, the RCU primitive |
//! | [`wire`] | one protocol a file: header views, the one-pass parse, checksums, fragments cut and joined |
//! | [`conntrack`] | tuples, flow entries, the shard (hash table and wheels), protocol trackers, limits, events |
//! | [`helpers`] | one protocol a file: the payload of control flows in, expectation requests out |
//! | [`policy`] | the YAML model, checking with spans, compiling, evaluating |
//! | [`pipeline`] | reassembly; a burst through parse, raw, conntrack, policy and verdict; drop reasons; reject |
//! | [`dataplane`] | port I/O behind a trait, the worker loop, steering and hand-off |
//! | [`control`] | reload, the API socket, metrics, events for those who watch, signals |
//! | [`cli`] | arguments, printing, the live view, replay, demo |
//!
//! Everything above `dataplane` is pure: no DPDK, no clock (time is an argument), no I/O.
pub mod base;
pub mod cli;
pub mod conntrack;
pub mod control;
pub mod dataplane;
pub mod helpers;
pub mod pipeline;
pub mod policy;
pub mod wire;
