//! Packets as bytes: one protocol a file, each a zero-copy view of its header; and the one-pass
//! parse that the packet path uses.
//!
//! Views are fixed-layout structs in network byte order (zerocopy), so one bounds check covers a
//! whole header, and the same type writes what it reads.
pub mod build;
pub mod checksum;
pub mod ethernet;
pub mod fragment;
pub mod gre;
pub mod icmp;
pub mod inner;
pub mod ipv4;
pub mod ipv6;
pub mod parse;
pub mod parsed;
mod plain;
pub mod proto;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub mod verify;

pub use inner::{Inner, inner};
pub use parse::{parse, parse_into};
pub use parsed::{Addrs, Checksum, Fragment, L3, L4, NO_VLAN, Parsed, TcpHeader};
