//! ARP (RFC 826) for IPv4 over Ethernet: the fixed 28 bytes.

use zerocopy::byteorder::{BE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The packet behind the Ethernet header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Packet {
    /// 1 for Ethernet.
    pub hardware: U16<BE>,
    /// 0x0800 for IPv4.
    pub protocol: U16<BE>,
    /// 6.
    pub hardware_len: u8,
    /// 4.
    pub protocol_len: u8,
    /// 1 request, 2 reply.
    pub operation: U16<BE>,
    /// Who asks.
    pub sender_mac: [u8; 6],
    /// Its address.
    pub sender_ip: U32<BE>,
    /// Who is asked; zero in a request.
    pub target_mac: [u8; 6],
    /// Its address.
    pub target_ip: U32<BE>,
}
