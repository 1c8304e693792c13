//! What the one-pass parse leaves behind: offsets and the header fields that later stages read,
//! so that nobody looks at the headers twice. Plain values, 96 bytes, no borrow of the frame.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A frame after [`super::parse()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What the network layer is, or why it cannot be read.
    pub l3: L3,
    /// Source and destination address; zero where `l3` is not IP.
    pub addrs: Addrs,
    /// What the transport header is.
    pub l4: L4,
    /// EtherType behind any VLAN tags.
    pub ethertype: u16,
    /// VLAN id of the outermost tag; `NO_VLAN` without one.
    pub vlan: u16,
    /// Offset of the IP header in the frame.
    pub l3_offset: u16,
    /// Offset of the transport header.
    pub l4_offset: u16,
    /// Offset just behind the IP datagram (what follows is Ethernet padding). Behind a link header
    /// the longest datagram ends beyond 65535.
    pub end: u32,
    /// Transport protocol number, behind any IPv6 extension headers.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Differentiated services code point.
    pub dscp: u8,
    /// Whether the datagram is whole.
    pub fragment: Fragment,
    /// What the port said of the transport checksum; [`super::parse()`] leaves it unknown.
    pub l4_sum: Checksum,
    /// Length of the whole frame in bytes.
    pub frame_len: u32,
}

/// What a port knows of a frame's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing.
    #[default]
    Unknown,
    /// The NIC found it right.
    Good,
    /// The NIC found it wrong.
    Bad,
}

/// `Parsed::vlan` of an untagged frame.
pub const NO_VLAN: u16 = 0xffff;

/// The network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L3 {
    /// A well-formed IPv4 header.
    Ipv4,
    /// A well-formed IPv6 header (and extension headers).
    Ipv6,
    /// Not IP; `Parsed::ethertype` says what.
    Other,
    /// The frame ends inside its Ethernet or VLAN header.
    BadFrame,
    /// The IP header is truncated, of the wrong version, or contradicts the frame's length.
    BadHeader,
    /// The IPv4 header checksum is wrong.
    BadChecksum,
}

/// Source and destination addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addrs {
    /// IPv4, in host byte order.
    V4 {
        /// Source.
        src: u32,
        /// Destination.
        dst: u32,
    },
    /// IPv6, as 128-bit integers.
    V6 {
        /// Source.
        src: u128,
        /// Destination.
        dst: u128,
    },
}

impl Addrs {
    /// The source address.
    pub fn src(&self) -> IpAddr {
        match *self {
            Addrs::V4 { src, .. } => Ipv4Addr::from_bits(src).into(),
            Addrs::V6 { src, .. } => Ipv6Addr::from_bits(src).into(),
        }
    }

    /// The destination address.
    pub fn dst(&self) -> IpAddr {
        match *self {
            Addrs::V4 { dst, .. } => Ipv4Addr::from_bits(dst).into(),
            Addrs::V6 { dst, .. } => Ipv6Addr::from_bits(dst).into(),
        }
    }

    /// The same pair, seen from the other side.
    pub const fn flip(self) -> Addrs {
        match self {
            Addrs::V4 { src, dst } => Addrs::V4 { src: dst, dst: src },
            Addrs::V6 { src, dst } => Addrs::V6 { src: dst, dst: src },
        }
    }
}

/// Whether a datagram is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// It came in fragments, and has been put together.
    Reassembled,
    /// The first of several: it has the transport header.
    First,
    /// A later one: no transport header.
    Later,
}

impl Fragment {
    /// Whether it is a part of a datagram only, so that nothing can be said of the whole.
    #[inline]
    pub const fn is_part(self) -> bool {
        matches!(self, Fragment::First | Fragment::Later)
    }
}

/// The transport layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// No transport header to read: not IP, or a later fragment.
    None,
    /// The transport header is truncated or malformed: the packet is INVALID.
    Bad,
    /// TCP.
    Tcp(TcpHeader),
    /// UDP, and UDP-Lite by `Parsed::proto`.
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// SCTP.
    Sctp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// Verification tag.
        vtag: u32,
    },
    /// GRE.
    Gre {
        /// The receiver's number for a PPTP call; 0 where there is none.
        call_id: u16,
    },
    /// ICMP and ICMPv6, by `Parsed::proto`.
    Icmp {
        /// Type.
        ty: u8,
        /// Code.
        code: u8,
        /// Identifier of query messages, else the bytes that stand in its place.
        id: u16,
    },
    /// Any other protocol.
    Other,
}

/// The fields of a TCP header that tracking and policy read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window, unscaled.
    pub window: u16,
    /// FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    pub flags: u8,
    /// Header length in bytes, at least 20 and inside the datagram.
    pub header_len: u8,
}

impl Parsed {
    /// What is known of a frame before it is looked at.
    pub const NOTHING: Self = Self {
        l3: L3::BadFrame,
        addrs: Addrs::V4 { src: 0, dst: 0 },
        l4: L4::None,
        ethertype: 0,
        vlan: NO_VLAN,
        l3_offset: 0,
        l4_offset: 0,
        end: 0,
        proto: 0,
        ttl: 0,
        dscp: 0,
        fragment: Fragment::Whole,
        l4_sum: Checksum::Unknown,
        frame_len: 0,
    };

    /// Source port, for protocols that have one.
    pub fn sport(&self) -> Option<u16> {
        match self.l4 {
            L4::Tcp(tcp) => Some(tcp.sport),
            L4::Udp { sport, .. } | L4::Sctp { sport, .. } => Some(sport),
            _ => None,
        }
    }

    /// Destination port, for protocols that have one.
    pub fn dport(&self) -> Option<u16> {
        match self.l4 {
            L4::Tcp(tcp) => Some(tcp.dport),
            L4::Udp { dport, .. } | L4::Sctp { dport, .. } => Some(dport),
            _ => None,
        }
    }

    /// TCP flags, for TCP.
    pub fn tcp_flags(&self) -> Option<u8> {
        match self.l4 {
            L4::Tcp(tcp) => Some(tcp.flags),
            _ => None,
        }
    }

    /// Length of the IP datagram in bytes (what `length` matches); 0 where there is none. Of the
    /// few IPv6 datagrams that are longer, 65535.
    pub fn ip_len(&self) -> u16 {
        let len = self.end.saturating_sub(u32::from(self.l3_offset));
        len.min(u32::from(u16::MAX)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsed_frame_is_a_line_and_a_half() {
        assert_eq!(size_of::<Parsed>(), 96);
    }
}
