//! IPv4 (RFC 791).

use zerocopy::byteorder::{BE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fixed 20 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (4 bits), header length in words (4 bits).
    pub version_ihl: u8,
    /// DSCP (6 bits), ECN (2 bits).
    pub tos: u8,
    /// Header and payload.
    pub total_len: U16<BE>,
    /// Identification, shared by the fragments of a datagram.
    pub id: U16<BE>,
    /// Reserved, don't fragment, more fragments; offset in units of eight bytes.
    pub fragment: U16<BE>,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub proto: u8,
    /// Header checksum.
    pub checksum: U16<BE>,
    /// Source.
    pub src: U32<BE>,
    /// Destination.
    pub dst: U32<BE>,
}

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = size_of::<Header>();
/// "More fragments" in [`Header::fragment`].
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// "Don't fragment" in [`Header::fragment`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The offset in [`Header::fragment`].
pub const OFFSET_MASK: u16 = 0x1fff;

impl Header {
    /// The version field.
    #[inline]
    pub fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Header length in bytes, as the header claims it.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 15) * 4
    }
}
