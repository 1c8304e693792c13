//! What ICMP and ICMPv6 messages mean to the tracker.
//!
//! Queries are flows (RFC 792, RFC 4443); errors are about the flow of the packet that they quote;
//! IPv6 neighbour and multicast discovery is never tracked. Types as Linux 6.12 sorts them.

use super::types::proto;
use crate::wire::icmp::{v4, v6};

/// The part that a message plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks: may create a flow.
    Request,
    /// Answers; without its request it is INVALID.
    Reply,
    /// Quotes a packet.
    Error,
    /// Neighbour, router or multicast listener discovery.
    Discovery,
    /// Nothing that is tracked: INVALID.
    Other,
}

/// The role of a message of `proto` (ICMP or ICMPv6) and type `ty`.
#[inline]
pub const fn role(proto: u8, ty: u8) -> Role {
    if proto == proto::ICMP {
        match ty {
            v4::ECHO | v4::TIMESTAMP | v4::INFO | v4::MASK => Role::Request,
            v4::ECHO_REPLY | v4::TIMESTAMP_REPLY | v4::INFO_REPLY | v4::MASK_REPLY => Role::Reply,
            _ if v4::is_error(ty) => Role::Error,
            _ => Role::Other,
        }
    } else {
        match ty {
            v6::ECHO | v6::NODE_INFO_QUERY => Role::Request,
            v6::ECHO_REPLY | v6::NODE_INFO_REPLY => Role::Reply,
            v6::MLD_QUERY..=v6::NEIGHBOUR_ADVERT
            | v6::MLDV2_REPORT
            | v6::MRD_ADVERT
            | v6::MRD_SOLICIT => Role::Discovery,
            0..128 => Role::Error,
            _ => Role::Other,
        }
    }
}

/// What a link needs to work at all: router and neighbour solicitations and advertisements.
pub const fn is_neighbour_discovery(ty: u8) -> bool {
    matches!(ty, v6::ROUTER_SOLICIT..=v6::NEIGHBOUR_ADVERT)
}
