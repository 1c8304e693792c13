//! IPv6 (RFC 8200) and the extension headers that stand between it and the transport header.

use zerocopy::byteorder::{BE, U16, U32, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The fixed 40 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: U32<BE>,
    /// Everything behind this header.
    pub payload_len: U16<BE>,
    /// Protocol of what follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: U128<BE>,
    /// Destination.
    pub dst: U128<BE>,
}

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = size_of::<Header>();

/// Extension header numbers (IANA).
pub mod ext {
    #![allow(missing_docs)]
    pub const HOP_BY_HOP: u8 = 0;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTH: u8 = 51;
    pub const NONE: u8 = 59;
    pub const DEST_OPTIONS: u8 = 60;
}

/// Where the chain of extension headers ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Protocol number of the transport header.
    pub proto: u8,
    /// Its offset from the start of the slice that was walked.
    pub offset: usize,
    /// Fragment offset in bytes, and whether more follow; `None` without a fragment header. Of
    /// several headers the first that is not atomic (RFC 6946) counts: that is where a receiver
    /// stops and waits for the rest.
    pub fragment: Option<(u16, bool)>,
}

/// The header of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Its offset from the start of the slice that was walked.
    pub offset: usize,
    /// Offset of the byte that names it: the next-header field of what stands before it.
    pub named_at: usize,
    /// Fragment offset in bytes.
    pub start: u16,
    /// Whether more follow.
    pub more: bool,
    /// Identification.
    pub id: u32,
}

/// Bytes of a fragment header.
pub const FRAGMENT_LEN: usize = 8;
/// Offset of the next-header field in [`Header`].
const NEXT_HEADER: usize = 6;

/// Offset and "more" of a fragment that is all of its datagram.
const ATOMIC: (u16, bool) = (0, false);

/// Extension headers that are walked before the packet counts as unreadable.
const MAX_HEADERS: usize = 16;

/// Walks the extension headers of `datagram` (from the fixed header to the datagram's end).
/// `None` if one is cut short before it has said what follows and where, there is no next header, or
/// there are too many.
pub fn transport(datagram: &[u8], mut proto: u8) -> Option<Transport> {
    let mut offset = HEADER_LEN;
    let mut fragment = None;
    for _ in 0..MAX_HEADERS {
        let len = match proto {
            ext::HOP_BY_HOP | ext::ROUTING | ext::DEST_OPTIONS => {
                (usize::from(*datagram.get(offset + 1)?) + 1) * 8
            }
            ext::AUTH => (usize::from(*datagram.get(offset + 1)?) + 2) * 4,
            ext::FRAGMENT => {
                let field = U16::<BE>::read_from_bytes(datagram.get(offset + 2..offset + 4)?);
                let field = field.ok()?.get();
                // Of a datagram that was cut, what follows is cut off, whatever it claims to be.
                if fragment.is_none_or(|part| part == ATOMIC) {
                    fragment = Some((field & !7, field & 1 != 0));
                }
                FRAGMENT_LEN
            }
            ext::NONE => return None,
            _ => {
                return Some(Transport {
                    proto,
                    offset,
                    fragment,
                });
            }
        };
        let cut = offset + len > datagram.len();
        if cut && proto == ext::FRAGMENT {
            return None;
        }
        proto = datagram[offset];
        // Behind a header that is cut short there is nothing, but what would be there is known
        // (Linux goes by that, too).
        offset = (offset + len).min(datagram.len());
        if fragment.is_some_and(|(start, _)| start != 0) {
            // What follows is the middle of something.
            return Some(Transport {
                proto,
                offset,
                fragment,
            });
        }
    }
    None
}

/// The fragment header of `datagram`, the first that is not atomic; `None` if it is no fragment.
/// Unlike [`transport`], it does not ask for what stands behind it.
pub fn fragment(datagram: &[u8], mut proto: u8) -> Option<FragmentHeader> {
    let (mut named_at, mut offset) = (NEXT_HEADER, HEADER_LEN);
    for _ in 0..MAX_HEADERS {
        let len = match proto {
            ext::HOP_BY_HOP | ext::ROUTING | ext::DEST_OPTIONS => {
                (usize::from(*datagram.get(offset + 1)?) + 1) * 8
            }
            ext::AUTH => (usize::from(*datagram.get(offset + 1)?) + 2) * 4,
            ext::FRAGMENT => {
                let header = datagram.get(offset..offset + FRAGMENT_LEN)?;
                let field = u16::from_be_bytes([header[2], header[3]]);
                let (start, more) = (field & !7, field & 1 != 0);
                if (start, more) != ATOMIC {
                    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                    return Some(FragmentHeader {
                        offset,
                        named_at,
                        start,
                        more,
                        id,
                    });
                }
                FRAGMENT_LEN
            }
            _ => return None,
        };
        proto = *datagram.get(offset)?;
        named_at = offset;
        offset += len;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(tail: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend_from_slice(tail);
        bytes
    }

    #[test]
    fn walks_options_routing_and_auth() {
        let tail = [
            &[ext::ROUTING, 0, 0, 0, 0, 0, 0, 0][..], // hop-by-hop, 8 bytes
            &[ext::AUTH, 1][..],
            &[0; 14], // routing, 16 bytes
            &[6, 1][..],
            &[0; 10], // AH, 12 bytes
            &[0; 20],
        ]
        .concat();
        let found = transport(&datagram(&tail), ext::HOP_BY_HOP).unwrap();
        assert_eq!(
            found,
            Transport {
                proto: 6,
                offset: 40 + 8 + 16 + 12,
                fragment: None
            }
        );
    }

    #[test]
    fn fragments_say_where_they_lie() {
        let first = transport(&datagram(&[17, 0, 0, 1, 0, 0, 0, 9, 1, 2]), ext::FRAGMENT).unwrap();
        assert_eq!(first.fragment, Some((0, true)));
        assert_eq!(first.proto, 17);
        let later = transport(&datagram(&[17, 0, 0, 8, 0, 0, 0, 9]), ext::FRAGMENT).unwrap();
        assert_eq!(later.fragment, Some((8, false)));
    }

    #[test]
    fn a_fragment_inside_a_fragment_is_hidden_by_the_outer_one() {
        // first fragment of something; behind it, an atomic header that would make it look whole
        let outer = [ext::FRAGMENT, 0, 0, 1, 0, 0, 0, 9];
        let atomic = [17, 0, 0, 0, 0, 0, 0, 8];
        let udp = [0; 8];
        let bytes = datagram(&[outer, atomic, udp].concat());
        let found = transport(&bytes, ext::FRAGMENT).unwrap();
        assert_eq!(found.fragment, Some((0, true)));
        let header = fragment(&bytes, ext::FRAGMENT).unwrap();
        assert_eq!((header.offset, header.named_at, header.id), (40, 6, 9));
        // the other way round, the atomic one is passed over
        let inner = [17, 0, 0, 9, 0, 0, 0, 8];
        let atomic = [ext::FRAGMENT, 0, 0, 0, 0, 0, 0, 9];
        let bytes = datagram(&[atomic, inner, udp].concat());
        let found = transport(&bytes, ext::FRAGMENT).unwrap();
        assert_eq!(found.fragment, Some((8, true)));
        let header = fragment(&bytes, ext::FRAGMENT).unwrap();
        assert_eq!((header.offset, header.named_at, header.id), (48, 40, 8));
        assert_eq!((header.start, header.more), (8, true));
        let whole = datagram(&[[17, 0, 0, 0, 0, 0, 0, 9], udp].concat());
        assert_eq!(fragment(&whole, ext::FRAGMENT), None);
    }

    #[test]
    fn every_truncation_is_none() {
        let tail = [
            &[ext::FRAGMENT, 0, 0, 0, 0, 0, 0, 0][..],
            &[6, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        for keep in 0..tail.len() {
            assert_eq!(
                transport(&datagram(&tail[..keep]), 0),
                None,
                "{keep} bytes kept"
            );
        }
        assert!(transport(&datagram(&tail), 0).is_some());
        assert_eq!(transport(&datagram(&[]), ext::NONE), None);
    }

    #[test]
    fn an_endless_chain_ends() {
        let tail = [0u8; 8 * 40]; // hop-by-hop behind hop-by-hop
        assert_eq!(transport(&datagram(&tail), 0), None);
    }
}
