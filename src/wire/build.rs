//! Writes whole frames: what `reject` answers with, what tests, benches and generators send.
//! Lengths and checksums are filled in.

use super::checksum::{Sum, checksum};
use super::ethernet::{self, VlanTag, ethertype};
use super::parsed::Addrs;
use super::{icmp, ipv4, ipv6, proto, tcp, udp};
use zerocopy::IntoBytes;
use zerocopy::byteorder::{BE, U16};

/// The link header of a frame to write.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    /// Destination MAC.
    pub dst: [u8; 6],
    /// Source MAC.
    pub src: [u8; 6],
    /// VLAN tag control information (priority, id), for a tagged frame.
    pub vlan: Option<u16>,
}

/// The transport part of a frame to write.
#[derive(Debug, Clone, Copy)]
pub enum Segment<'a> {
    /// A TCP segment; `options` is padded with zeros to whole words, at most 40 bytes.
    Tcp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
        /// Flag bits ([`tcp::flags`]).
        flags: u8,
        /// Window, unscaled.
        window: u16,
        /// Option bytes.
        options: &'a [u8],
    },
    /// A UDP datagram.
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// An ICMP message (ICMPv6 when the addresses are IPv6); the checksum fits the family.
    Icmp {
        /// Type.
        ty: u8,
        /// Code.
        code: u8,
        /// The four bytes behind the checksum: identifier and sequence of queries.
        rest: u32,
    },
    /// Any other protocol: the payload follows the IP header as it is.
    Raw(u8),
}

impl Segment<'_> {
    fn proto(&self, v6: bool) -> u8 {
        match self {
            Segment::Tcp { .. } => proto::TCP,
            Segment::Udp { .. } => proto::UDP,
            Segment::Icmp { .. } if v6 => proto::ICMPV6,
            Segment::Icmp { .. } => proto::ICMP,
            Segment::Raw(number) => *number,
        }
    }

    fn header_len(&self) -> usize {
        match self {
            Segment::Tcp { options, .. } => tcp::HEADER_LEN + options.len().min(40).div_ceil(4) * 4,
            Segment::Udp { .. } => udp::HEADER_LEN,
            Segment::Icmp { .. } => icmp::HEADER_LEN,
            Segment::Raw(_) => 0,
        }
    }
}

/// Bytes of the frame that [`emit`] would write.
pub fn frame_len(link: &Link, addrs: &Addrs, segment: &Segment<'_>, payload: &[u8]) -> usize {
    let tag = if link.vlan.is_some() {
        ethernet::VLAN_LEN
    } else {
        0
    };
    let ip = match addrs {
        Addrs::V4 { .. } => ipv4::HEADER_LEN,
        Addrs::V6 { .. } => ipv6::HEADER_LEN,
    };
    ethernet::HEADER_LEN + tag + ip + segment.header_len() + payload.len()
}

/// Appends `item` to `out` at `*at`.
fn put(out: &mut [u8], at: &mut usize, item: &[u8]) {
    out[*at..*at + item.len()].copy_from_slice(item);
    *at += item.len();
}

/// Writes one frame to the start of `out`, which must be at least [`frame_len`] long; returns the
/// length. `ttl` is the TTL or hop limit.
pub fn emit(
    out: &mut [u8],
    link: &Link,
    addrs: &Addrs,
    ttl: u8,
    segment: &Segment<'_>,
    payload: &[u8],
) -> usize {
    let v6 = matches!(addrs, Addrs::V6 { .. });
    let ip_type = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
    let mut at = 0;
    let outer = if link.vlan.is_some() {
        ethertype::VLAN
    } else {
        ip_type
    };
    let header = ethernet::Header {
        dst: link.dst,
        src: link.src,
        ethertype: outer.into(),
    };
    put(out, &mut at, header.as_bytes());
    if let Some(tci) = link.vlan {
        let tag = VlanTag {
            tci: tci.into(),
            ethertype: ip_type.into(),
        };
        put(out, &mut at, tag.as_bytes());
    }
    let header_len = segment.header_len();
    let len = header_len + payload.len();
    let proto = segment.proto(v6);
    match *addrs {
        Addrs::V4 { src, dst } => {
            let mut header = ipv4::Header {
                version_ihl: 0x45,
                tos: 0,
                total_len: ((ipv4::HEADER_LEN + len) as u16).into(),
                id: 0.into(),
                fragment: ipv4::DONT_FRAGMENT.into(),
                ttl,
                proto,
                checksum: 0.into(),
                src: src.into(),
                dst: dst.into(),
            };
            header.checksum = checksum(header.as_bytes()).into();
            put(out, &mut at, header.as_bytes());
        }
        Addrs::V6 { src, dst } => {
            let header = ipv6::Header {
                version_class_flow: (6 << 28).into(),
                payload_len: (len as u16).into(),
                next_header: proto,
                hop_limit: ttl,
                src: src.into(),
                dst: dst.into(),
            };
            put(out, &mut at, header.as_bytes());
        }
    }
    let start = at;
    put_segment(out, &mut at, segment, len);
    out[at..start + header_len].fill(0); // padding of TCP options
    at = start + header_len;
    put(out, &mut at, payload);
    let pseudo = match segment {
        Segment::Icmp { .. } if !v6 => Sum::default(),
        _ => Sum::default().pseudo(addrs, proto, len as u32),
    };
    let sum = pseudo.bytes(&out[start..at]).finish();
    let field = match segment {
        Segment::Tcp { .. } => Some(16),
        Segment::Udp { .. } => Some(6),
        Segment::Icmp { .. } => Some(2),
        Segment::Raw(_) => None,
    };
    if let Some(field) = field {
        // A UDP checksum of zero would mean "none" (RFC 768).
        let sum = if proto == proto::UDP && sum == 0 {
            0xffff
        } else {
            sum
        };
        out[start + field..start + field + 2].copy_from_slice(&sum.to_be_bytes());
    }
    at
}

fn put_segment(out: &mut [u8], at: &mut usize, segment: &Segment<'_>, len: usize) {
    match *segment {
        Segment::Tcp {
            sport,
            dport,
            seq,
            ack,
            flags,
            window,
            options,
        } => {
            let header = tcp::Header {
                sport: sport.into(),
                dport: dport.into(),
                seq: seq.into(),
                ack: ack.into(),
                data_offset: ((segment.header_len() / 4) as u8) << 4,
                flags,
                window: window.into(),
                checksum: 0.into(),
                urgent: 0.into(),
            };
            put(out, at, header.as_bytes());
            put(out, at, &options[..options.len().min(40)]);
        }
        Segment::Udp { sport, dport } => {
            let header = udp::Header {
                sport: sport.into(),
                dport: dport.into(),
                len: (len as u16).into(),
                checksum: 0.into(),
            };
            put(out, at, header.as_bytes());
        }
        Segment::Icmp { ty, code, rest } => {
            let [id, seq] = [U16::<BE>::from((rest >> 16) as u16), U16::from(rest as u16)];
            let header = icmp::Header {
                ty,
                code,
                checksum: 0.into(),
                id,
                seq,
            };
            put(out, at, header.as_bytes());
        }
        Segment::Raw(_) => {}
    }
}

/// A frame of its own, for tests, benches and generators.
pub fn frame(addrs: Addrs, segment: Segment<'_>, payload: &[u8]) -> Vec<u8> {
    let link = Link {
        dst: [2, 0, 0, 0, 0, 2],
        src: [2, 0, 0, 0, 0, 1],
        vlan: None,
    };
    let mut out = vec![0; frame_len(&link, &addrs, &segment, payload)];
    emit(&mut out, &link, &addrs, 64, &segment, payload);
    out
}
