//! SCTP (RFC 9260): the common header, and the chunks behind it.

use zerocopy::byteorder::{BE, LE, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The common header, 12 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub sport: U16<BE>,
    /// Destination port.
    pub dport: U16<BE>,
    /// Verification tag: what the receiver asked for in its INIT or INIT ACK.
    pub vtag: U32<BE>,
    /// CRC32c of the packet with this field zero, least significant byte first (RFC 9260 A).
    pub checksum: U32<LE>,
}

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = size_of::<Header>();

/// What every chunk begins with, 4 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ChunkHeader {
    /// See [`chunk`].
    pub ty: u8,
    /// Depend on the type.
    pub flags: u8,
    /// Of the chunk, this header included, padding not.
    pub len: U16<BE>,
}

/// What INIT and INIT ACK say behind their chunk header, 16 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Init {
    /// The tag that the sender wants to be addressed with.
    pub tag: U32<BE>,
    /// Receive window.
    pub window: U32<BE>,
    /// Streams out.
    pub streams_out: U16<BE>,
    /// Streams in.
    pub streams_in: U16<BE>,
    /// First transmission sequence number.
    pub tsn: U32<BE>,
}

/// Chunk types (IANA).
pub mod chunk {
    #![allow(missing_docs)]
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const SACK: u8 = 3;
    pub const HEARTBEAT: u8 = 4;
    pub const HEARTBEAT_ACK: u8 = 5;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const ERROR: u8 = 9;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
    /// Flag of ABORT and SHUTDOWN COMPLETE: the tag is the one that the sender was addressed with.
    pub const FLAG_T: u8 = 1;
}

/// A chunk, and all that follows it in the packet.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// Its header.
    pub header: ChunkHeader,
    /// Everything behind its header.
    pub behind: &'a [u8],
}

impl Chunk<'_> {
    /// What an INIT or INIT ACK says; `None` if the packet ends before that.
    pub fn init(&self) -> Option<Init> {
        Some(Init::read_from_prefix(self.behind).ok()?.0)
    }
}

/// The chunks in `bytes`, which start behind the common header. Each takes four bytes at least, so
/// that there are fewer than a quarter of the bytes; a chunk of length zero is yielded for ever,
/// and is for the caller to refuse.
#[derive(Debug, Clone, Copy)]
pub struct Chunks<'a>(pub &'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    #[inline]
    fn next(&mut self) -> Option<Chunk<'a>> {
        let (header, behind) = ChunkHeader::read_from_prefix(self.0).ok()?;
        let step = usize::from(header.len.get()).next_multiple_of(4);
        self.0 = self.0.get(step..).unwrap_or(&[]);
        Some(Chunk { header, behind })
    }
}

/// Whether the checksum of `packet`, header and chunks, is right.
pub fn is_right(packet: &[u8]) -> bool {
    let Ok((header, chunks)) = Header::read_from_prefix(packet) else {
        return false;
    };
    let blank = Header {
        checksum: 0.into(),
        ..header
    };
    crc32c::crc32c_append(crc32c::crc32c(blank.as_bytes()), chunks) == header.checksum.get()
}

/// A packet with its checksum, for tests, benches and generators.
pub fn packet(sport: u16, dport: u16, vtag: u32, chunks: &[u8]) -> Vec<u8> {
    let mut header = Header {
        sport: sport.into(),
        dport: dport.into(),
        vtag: vtag.into(),
        checksum: 0.into(),
    };
    let sum = crc32c::crc32c_append(crc32c::crc32c(header.as_bytes()), chunks);
    header.checksum = sum.into();
    [header.as_bytes(), chunks].concat()
}

/// A chunk with its padding, for tests, benches and generators.
pub fn encode(ty: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let header = ChunkHeader {
        ty,
        flags,
        len: ((4 + value.len()) as u16).into(),
    };
    let mut bytes = [header.as_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_walked_over_their_padding() {
        let bytes = [
            encode(chunk::DATA, 3, b"12345"),
            encode(chunk::SACK, 0, &[]),
            vec![9, 0], // less than a header
        ]
        .concat();
        let walked: Vec<_> = Chunks(&bytes)
            .map(|c| (c.header.ty, c.header.len.get()))
            .collect();
        assert_eq!(walked, [(chunk::DATA, 9), (chunk::SACK, 4)]);
    }

    #[test]
    fn lengths_that_lie_end_the_walk_or_stay_in_step() {
        let types = |bytes: &[u8]| {
            Chunks(bytes)
                .map(|c| c.header.ty)
                .take(9)
                .collect::<Vec<_>>()
        };
        assert_eq!(types(&[1, 0, 0, 99, 2, 0, 0, 4]), [1], "beyond the end");
        assert_eq!(
            types(&[1, 0, 0, 1, 2, 0, 0, 4]),
            [1, 2],
            "less than its header"
        );
        assert_eq!(types(&[1, 0, 0, 0]), [1; 9], "zero");
        assert_eq!(types(&[1, 0, 255, 255]), [1]);
        assert!(types(&[]).is_empty());
    }

    #[test]
    fn the_checksum_covers_every_byte() {
        let good = packet(40_000, 80, 7, &encode(chunk::DATA, 3, b"payload"));
        assert!(is_right(&good));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(!is_right(&bad), "byte {at}");
        }
        assert!(!is_right(&good[..11]));
    }

    #[test]
    fn crc32c_is_castagnolis() {
        // RFC 3720 B.4: 32 bytes of zeros give aa 36 91 8a.
        assert_eq!(
            crc32c::crc32c(&[0; 32]),
            u32::from_le_bytes([0xaa, 0x36, 0x91, 0x8a])
        );
    }
}
