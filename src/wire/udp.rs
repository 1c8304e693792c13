//! UDP (RFC 768) and UDP-Lite (RFC 3828), which reads the length as checksum coverage.

use zerocopy::byteorder::{BE, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The 8-byte header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub sport: U16<BE>,
    /// Destination port.
    pub dport: U16<BE>,
    /// Header and payload (UDP-Lite: bytes covered by the checksum, 0 for all).
    pub len: U16<BE>,
    /// Checksum with pseudo-header; 0 means none (IPv4 UDP only).
    pub checksum: U16<BE>,
}

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = size_of::<Header>();
