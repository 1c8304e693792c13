//! IANA protocol numbers that this crate names.
#![allow(missing_docs)]

pub const ICMP: u8 = 1;
pub const IGMP: u8 = 2;
pub const TCP: u8 = 6;
pub const EGP: u8 = 8;
pub const UDP: u8 = 17;
pub const MUX: u8 = 18;
pub const NETBLT: u8 = 30;
pub const DCCP: u8 = 33;
pub const GRE: u8 = 47;
pub const ESP: u8 = 50;
pub const AH: u8 = 51;
pub const ICMPV6: u8 = 58;
pub const OSPF: u8 = 89;
pub const SCTP: u8 = 132;
pub const UDPLITE: u8 = 136;
