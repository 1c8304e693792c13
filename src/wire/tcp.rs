//! TCP (RFC 9293).

use zerocopy::byteorder::{BE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Flag bits, as they stand in the header's fourteenth byte.
pub mod flags {
    #![allow(missing_docs)]
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
    pub const URG: u8 = 0x20;
    pub const ECE: u8 = 0x40;
    pub const CWR: u8 = 0x80;
}

/// The fixed 20 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub sport: U16<BE>,
    /// Destination port.
    pub dport: U16<BE>,
    /// Sequence number of the first payload byte (of the SYN, where there is one).
    pub seq: U32<BE>,
    /// Next sequence number expected from the other side.
    pub ack: U32<BE>,
    /// Header length in words (4 bits), reserved (4 bits).
    pub data_offset: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Receive window, unscaled.
    pub window: U16<BE>,
    /// Checksum with pseudo-header.
    pub checksum: U16<BE>,
    /// Urgent pointer.
    pub urgent: U16<BE>,
}

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = size_of::<Header>();

/// TCP option kinds (IANA).
pub mod option {
    #![allow(missing_docs)]
    pub const END: u8 = 0;
    pub const NOP: u8 = 1;
    pub const MSS: u8 = 2;
    pub const WINDOW_SCALE: u8 = 3;
    pub const SACK_PERMITTED: u8 = 4;
    pub const SACK: u8 = 5;
    pub const TIMESTAMP: u8 = 8;
}
