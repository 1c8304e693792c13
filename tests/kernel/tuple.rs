//! The names of flows, as ctnetlink asks for them.

use crate::frame::Place;
use crate::scenario::Body;
use shardwall::wire::Addrs;
use std::fmt;
use std::net::IpAddr;

/// A flow's name, seen from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tuple {
    pub(crate) proto: u8,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    /// Source port; of ICMP the identifier; 0 where there is none.
    pub(crate) from: u16,
    /// Destination port; of ICMP type and code; of GRE the key.
    pub(crate) to: u16,
}

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const GRE: u8 = 47;

/// Queries and their answers (RFC 792, RFC 950, RFC 4443, RFC 4620).
const ANSWERS: [(u8, u8); 6] = [(8, 0), (13, 14), (15, 16), (17, 18), (128, 129), (139, 140)];

/// The other of query and answer.
fn counterpart(ty: u8) -> u8 {
    ANSWERS
        .iter()
        .find_map(|(query, answer)| match ty {
            ty if ty == *query => Some(*answer),
            ty if ty == *answer => Some(*query),
            _ => None,
        })
        .unwrap_or(ty)
}

impl Tuple {
    /// The flow that a packet belongs to, or, of an error, is about.
    pub(crate) fn of(place: &Place, side: usize, body: &Body) -> Option<Self> {
        let place = &place.on(body.ends());
        let [sport, dport] = place.ports(side);
        let (proto, from, to) = match body.core() {
            Body::Tcp { .. } => (6, sport, dport),
            Body::Udp { .. } => (17, sport, dport),
            Body::UdpLite { .. } => (136, sport, dport),
            Body::Sctp { .. } => (132, sport, dport),
            Body::Raw { proto, .. } => (*proto, 0, 0),
            Body::Gre {
                version: 1, key, ..
            } => (GRE, 0, *key),
            Body::Gre { .. } => (GRE, 0, 0),
            Body::Icmp { ty, code } => {
                let proto = match place.addrs(side) {
                    Addrs::V4 { .. } => ICMP,
                    Addrs::V6 { .. } => ICMPV6,
                };
                (proto, place.query_id(), u16::from_be_bytes([*ty, *code]))
            }
            Body::Error { of, about, .. } | Body::Redirect { of, about } => {
                let nested = matches!(about.core(), Body::Error { .. } | Body::Redirect { .. });
                let mut quoted = if nested {
                    return None;
                } else {
                    Self::of(place, *of, about)?
                };
                // Routers quote eight bytes behind an IPv4 header without options. Behind one with
                // options the key of GRE is cut off, and then it counts as none.
                let v4 = matches!(place.addrs(side), Addrs::V4 { .. });
                if quoted.proto == GRE && v4 && about.has_extras() {
                    quoted.to = 0;
                }
                return Some(quoted);
            }
            Body::Via { .. }
            | Body::Bent { .. }
            | Body::BadSum(_)
            | Body::Fragment { .. }
            | Body::On { .. }
            | Body::Says { .. } => unreachable!("is no core"),
        };
        let addrs = place.addrs(side);
        let (src, dst) = (addrs.src(), addrs.dst());
        Some(Self {
            proto,
            src,
            dst,
            from,
            to,
        })
    }

    /// The same from the other side.
    fn inverted(self) -> Self {
        let (from, to) = match self.proto {
            ICMP | ICMPV6 => {
                let [ty, code] = self.to.to_be_bytes();
                (self.from, u16::from_be_bytes([counterpart(ty), code]))
            }
            _ => (self.to, self.from),
        };
        Self {
            src: self.dst,
            dst: self.src,
            from,
            to,
            ..self
        }
    }

    /// The same from either side.
    pub(crate) fn flow(self) -> Self {
        self.min(self.inverted())
    }

    /// The number of the conversation, which is in its addresses.
    pub(crate) fn label(&self) -> Option<u32> {
        Place::label_of(match self.src {
            IpAddr::V4(addr) => addr.to_bits(),
            IpAddr::V6(addr) => addr.to_bits() as u32,
        })
    }

    /// What follows the general header of a ctnetlink request for the flow, and its family.
    pub(crate) fn request(&self) -> (u8, Vec<u8>) {
        let (family, first, src, dst) = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                (2, 1, src.octets().to_vec(), dst.octets().to_vec())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                (10, 3, src.octets().to_vec(), dst.octets().to_vec())
            }
            _ => unreachable!("one family"),
        };
        let addresses = [attribute(first, &src), attribute(first + 1, &dst)].concat();
        let [from, to] = [self.from.to_be_bytes(), self.to.to_be_bytes()];
        let mut names = attribute(1, &[self.proto]);
        match self.proto {
            6 | 17 | 47 | 132 | 136 => {
                names.extend(attribute(2, &from));
                names.extend(attribute(3, &to));
            }
            ICMP | ICMPV6 => {
                let first = if self.proto == ICMP { 4 } else { 7 };
                names.extend(attribute(first, &from));
                names.extend(attribute(first + 1, &to[..1]));
                names.extend(attribute(first + 2, &to[1..]));
            }
            _ => {}
        }
        let both = [attribute(0x8001, &addresses), attribute(0x8002, &names)].concat();
        (family, attribute(0x8001, &both))
    }
}

/// A netlink attribute.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            proto,
            src,
            dst,
            from,
            to,
        } = self;
        write!(f, "protocol {proto}, {src} {from} -> {dst} {to}")
    }
}
