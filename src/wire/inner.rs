//! The packet that an ICMP error quotes: addresses and the first bytes of its transport header,
//! which is all that a router must include (RFC 792: 64 bits of the original data).

use super::parsed::{Addrs, L3, L4, Parsed};
use super::{gre, icmp, ipv4, ipv6, proto};
use zerocopy::FromBytes;
use zerocopy::byteorder::{BE, U16};

/// What identifies the quoted packet's flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inner {
    /// Its addresses, as it was sent.
    pub addrs: Addrs,
    /// Its transport protocol.
    pub proto: u8,
    /// Its ports, or ICMP type, code and id; anything else is [`Ports::None`].
    pub ports: Ports,
}

/// What stands in the first bytes of a quoted transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// TCP, UDP, UDP-Lite, SCTP.
    Ports {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// An ICMP or ICMPv6 query.
    Icmp {
        /// Type.
        ty: u8,
        /// Code.
        code: u8,
        /// Identifier.
        id: u16,
    },
    /// GRE: both are 0 but for PPTP calls, whose packets name the receiver's end of the call only.
    Gre {
        /// The sender's call, where it is known.
        srckey: u16,
        /// The receiver's call.
        dstkey: u16,
    },
    /// A protocol without ports.
    None,
}

/// Reads the packet quoted by the ICMP error or redirect `parsed` in `data`. `None` if too little of it is
/// there, or it is a later fragment.
pub fn inner(data: &[u8], parsed: &Parsed) -> Option<Inner> {
    let L4::Icmp { ty, .. } = parsed.l4 else {
        return None;
    };
    let start = usize::from(parsed.l4_offset);
    let message = data.get(start..data.len().min(parsed.end as usize))?;
    let quoted = match (parsed.proto, ty) {
        (proto::ICMPV6, icmp::v6::REDIRECT) => redirected(message)?,
        _ => message.get(icmp::HEADER_LEN..)?,
    };
    match parsed.l3 {
        L3::Ipv4 => {
            let (header, _) = ipv4::Header::ref_from_prefix(quoted).ok()?;
            let header_len = header.header_len();
            if header.version() != 4
                || header_len < ipv4::HEADER_LEN
                || header.fragment.get() & ipv4::OFFSET_MASK != 0
            {
                return None;
            }
            let addrs = Addrs::V4 {
                src: header.src.get(),
                dst: header.dst.get(),
            };
            identify(addrs, header.proto, quoted.get(header_len..)?)
        }
        L3::Ipv6 => {
            let (header, _) = ipv6::Header::ref_from_prefix(quoted).ok()?;
            if header.version_class_flow.get() >> 28 != 6 {
                return None;
            }
            let addrs = Addrs::V6 {
                src: header.src.get(),
                dst: header.dst.get(),
            };
            let found = ipv6::transport(quoted, header.next_header)?;
            if found.fragment.is_some_and(|(start, _)| start != 0) {
                return None;
            }
            identify(addrs, found.proto, &quoted[found.offset..])
        }
        _ => None,
    }
}

/// What an ICMPv6 redirect quotes, if that is its first option; Linux looks no further.
fn redirected(message: &[u8]) -> Option<&[u8]> {
    match message.get(icmp::REDIRECT_LEN..)? {
        [_, 0, ..] => None,
        option @ [icmp::OPTION_REDIRECTED, _, ..] => option.get(8..),
        _ => None,
    }
}

fn identify(addrs: Addrs, proto: u8, header: &[u8]) -> Option<Inner> {
    let word = |at: usize| -> Option<u16> {
        U16::<BE>::read_from_bytes(header.get(at..at + 2)?)
            .ok()
            .map(U16::get)
    };
    let ports = match proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => Ports::Ports {
            sport: word(0)?,
            dport: word(2)?,
        },
        proto::ICMP | proto::ICMPV6 => {
            let (header, _) = icmp::Header::ref_from_prefix(header).ok()?;
            Ports::Icmp {
                ty: header.ty,
                code: header.code,
                id: header.id.get(),
            }
        }
        proto::GRE => Ports::Gre {
            srckey: 0,
            dstkey: gre::call_id(header)?,
        },
        _ => Ports::None,
    };
    Some(Inner {
        addrs,
        proto,
        ports,
    })
}
