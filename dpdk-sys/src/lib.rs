//! Bindings to the part of DPDK that shardwall uses, for 22.11 to 24.11.
//!
//! Three things are here, and the safe wrappers in shardwall's `dataplane::dpdk` are their only
//! user:
//!
//! - what bindgen makes of an allowlist of DPDK's functions and constants (`build.rs` holds it);
//! - the C shim (`shim.h`), prefixed `sw_`: DPDK's inline functions, called once a burst; its
//!   thread-locals, which Rust must not bind as statics; and what changed between the releases;
//! - [`rte_mbuf`], a view written by hand, because the field grouping of DPDK's own moves between
//!   releases while the offsets do not. `shim.c` asserts each of them where the C compiler sees
//!   the truth, and the tests here assert the same numbers where rustc does.
//!
//! Nothing here is safe and nothing allocates: functions return DPDK's own codes.
#![allow(unsafe_code)]

mod mbuf;

/// What bindgen wrote.
mod bindings {
    #![allow(
        missing_docs,
        missing_debug_implementations,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        dead_code,
        unreachable_pub,
        clippy::all,
        clippy::undocumented_unsafe_blocks,
        clippy::multiple_unsafe_ops_per_block,
        clippy::ptr_as_ptr
    )]
    use crate::mbuf::rte_mbuf;
    include!(concat!(env!("OUT_DIR"), "/dpdk.rs"));
}

pub use bindings::*;
pub use mbuf::rte_mbuf;
