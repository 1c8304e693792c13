//! Ethernet II (IEEE 802.3) and VLAN tags (802.1Q, 802.1ad).

use zerocopy::byteorder::{BE, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// EtherTypes that the packet path knows.
pub mod ethertype {
    #![allow(missing_docs)]
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const QINQ: u16 = 0x88a8;
    pub const LLDP: u16 = 0x88cc;
    /// Stands for every frame whose type field is a length (802.2 LLC: spanning tree), as Linux's
    /// `ETH_P_802_2` does.
    pub const LLC: u16 = 0x0004;
    /// Smallest type; below it the field is a length.
    pub const SMALLEST: u16 = 0x0600;
}

/// The 14-byte header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Destination.
    pub dst: [u8; 6],
    /// Source.
    pub src: [u8; 6],
    /// EtherType or length.
    pub ethertype: U16<BE>,
}

/// What follows a VLAN EtherType.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority (3 bits), drop eligible (1), VLAN id (12).
    pub tci: U16<BE>,
    /// The next EtherType.
    pub ethertype: U16<BE>,
}

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = size_of::<Header>();
/// Bytes of [`VlanTag`].
pub const VLAN_LEN: usize = size_of::<VlanTag>();
/// VLAN tags that are looked through.
pub const MAX_TAGS: usize = 2;
