//! ICMP (RFC 792) and ICMPv6 (RFC 4443): one header layout, two sets of types.

use zerocopy::byteorder::{BE, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first 8 bytes of every message.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Type.
    pub ty: u8,
    /// Code.
    pub code: u8,
    /// Checksum (ICMPv6: with pseudo-header).
    pub checksum: U16<BE>,
    /// Identifier of query messages.
    pub id: U16<BE>,
    /// Sequence number of query messages; next-hop MTU in "fragmentation needed".
    pub seq: U16<BE>,
}

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = size_of::<Header>();

/// Bytes of an ICMPv6 redirect before its options: the header, target and destination
/// (RFC 4861 4.5).
pub const REDIRECT_LEN: usize = HEADER_LEN + 32;
/// The option of a redirect that quotes the packet (RFC 4861 4.6.3), behind 8 bytes of its own.
pub const OPTION_REDIRECTED: u8 = 4;

/// ICMP types (IANA).
pub mod v4 {
    #![allow(missing_docs)]
    pub const ECHO_REPLY: u8 = 0;
    pub const UNREACHABLE: u8 = 3;
    pub const SOURCE_QUENCH: u8 = 4;
    pub const REDIRECT: u8 = 5;
    pub const ECHO: u8 = 8;
    pub const TIME_EXCEEDED: u8 = 11;
    pub const PARAMETER_PROBLEM: u8 = 12;
    pub const TIMESTAMP: u8 = 13;
    pub const TIMESTAMP_REPLY: u8 = 14;
    pub const INFO: u8 = 15;
    pub const INFO_REPLY: u8 = 16;
    pub const MASK: u8 = 17;
    pub const MASK_REPLY: u8 = 18;

    /// Messages about another packet, which they quote.
    #[inline]
    pub const fn is_error(ty: u8) -> bool {
        matches!(
            ty,
            UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
        )
    }
}

/// ICMPv6 types (IANA).
pub mod v6 {
    #![allow(missing_docs)]
    pub const UNREACHABLE: u8 = 1;
    pub const TOO_BIG: u8 = 2;
    pub const TIME_EXCEEDED: u8 = 3;
    pub const PARAMETER_PROBLEM: u8 = 4;
    pub const ECHO: u8 = 128;
    pub const ECHO_REPLY: u8 = 129;
    pub const MLD_QUERY: u8 = 130;
    pub const ROUTER_SOLICIT: u8 = 133;
    pub const NEIGHBOUR_ADVERT: u8 = 136;
    pub const REDIRECT: u8 = 137;
    pub const NODE_INFO_QUERY: u8 = 139;
    pub const NODE_INFO_REPLY: u8 = 140;
    pub const MLDV2_REPORT: u8 = 143;
    pub const MRD_SOLICIT: u8 = 152;
    pub const MRD_ADVERT: u8 = 151;
}
