//! GRE (RFC 2784, RFC 2890) and its version 1, the enhanced header of PPTP (RFC 2637 4.1).

use zerocopy::byteorder::{BE, U16};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first 8 bytes of a version 1 header; of a version 0 header, only the first two fields.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Flags, and the version in the lowest three bits.
    pub flags_version: U16<BE>,
    /// EtherType of the payload.
    pub protocol: U16<BE>,
    /// Version 1: bytes of payload.
    pub payload_len: U16<BE>,
    /// Version 1: the receiver's number for the call.
    pub call_id: U16<BE>,
}

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = size_of::<Header>();

/// EtherType of PPP, all that version 1 carries.
pub const PPP: u16 = 0x880b;

const VERSION: u16 = 7;

/// The call that `bytes`, a GRE header, belongs to: zero where there are no calls, which is in every
/// version but 1, and where a header is cut short (Linux takes it for what has no tracker). `None`
/// for a version 1 header around anything but PPP.
#[inline]
pub fn call_id(bytes: &[u8]) -> Option<u16> {
    match Header::ref_from_prefix(bytes) {
        Ok((header, _)) if header.flags_version.get() & VERSION == 1 => {
            (header.protocol.get() == PPP).then(|| header.call_id.get())
        }
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_have_numbers() {
        let v1 = [0x30, 1, 0x88, 0x0b, 0, 4, 0x12, 0x34, 0, 0, 0, 1];
        let with = |at: usize, value: u8| {
            let mut bytes = v1;
            bytes[at] = value;
            call_id(&bytes)
        };
        assert_eq!(call_id(&v1), Some(0x1234));
        assert_eq!(with(1, 0), Some(0), "version 0");
        assert_eq!(with(1, 2), Some(0), "version 2");
        assert_eq!(with(2, 8), None, "not PPP");
        for cut in 0..HEADER_LEN {
            assert_eq!(call_id(&v1[..cut]), Some(0), "{cut} bytes");
        }
    }
}
