//! The straight path of the parse, for what nearly every frame is: Ethernet without tags, IPv4
//! without options and not fragmented, TCP or UDP. One bounds check, no loop; the same answer as
//! the general parse, which a test holds.

use super::checksum::is_right_20;
use super::parsed::{Addrs, Checksum, Fragment, L3, L4, NO_VLAN, Parsed, TcpHeader};
use super::{ethernet, ipv4, proto, tcp, udp};

/// Ethernet and IPv4 headers.
const L4_OFFSET: usize = 14 + ipv4::HEADER_LEN;
/// With the longest transport header that is read whole.
const HEADERS: usize = L4_OFFSET + tcp::HEADER_LEN;

/// Fills `parsed` if the frame that starts with `data` is of the usual kind; `false`, and nothing
/// of use, if it is not (or is wrong in any way, which the general parse then says).
#[inline(always)]
pub(super) fn parse(parsed: &mut Parsed, data: &[u8], frame_len: usize) -> bool {
    let Some(head) = data.first_chunk::<HEADERS>() else {
        return false;
    };
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    // EtherType, version and header length: one comparison.
    let kind = u32::from(ethernet::ethertype::IPV4) << 16 | 0x4500;
    if word(12) & 0xffff_ff00 != kind {
        return false;
    }
    let total = usize::from(half(16));
    let in_pieces = half(20) & (ipv4::OFFSET_MASK | ipv4::MORE_FRAGMENTS) != 0;
    let sums_up = head[14..].first_chunk().is_some_and(is_right_20);
    if in_pieces || total + 14 > frame_len || !sums_up {
        return false;
    }
    let protocol = head[23];
    let (sport, dport) = (half(L4_OFFSET), half(L4_OFFSET + 2));
    let l4 = if protocol == proto::TCP {
        let header_len = head[L4_OFFSET + 12] >> 4 << 2;
        let len = usize::from(header_len);
        if len < tcp::HEADER_LEN || ipv4::HEADER_LEN + len > total {
            return false;
        }
        L4::Tcp(TcpHeader {
            sport,
            dport,
            seq: word(L4_OFFSET + 4),
            ack: word(L4_OFFSET + 8),
            window: half(L4_OFFSET + 14),
            flags: head[L4_OFFSET + 13],
            header_len,
        })
    } else if protocol == proto::UDP {
        let claimed = usize::from(half(L4_OFFSET + 4));
        if claimed < udp::HEADER_LEN || ipv4::HEADER_LEN + claimed > total {
            return false;
        }
        L4::Udp { sport, dport }
    } else {
        return false;
    };
    *parsed = Parsed {
        l3: L3::Ipv4,
        addrs: Addrs::V4 {
            src: word(26),
            dst: word(30),
        },
        l4,
        ethertype: ethernet::ethertype::IPV4,
        vlan: NO_VLAN,
        l3_offset: 14,
        l4_offset: L4_OFFSET as u16,
        end: 14 + total as u32,
        proto: protocol,
        ttl: head[22],
        dscp: head[15] >> 2,
        fragment: Fragment::Whole,
        l4_sum: Checksum::Unknown,
        frame_len: frame_len as u32,
    };
    true
}
