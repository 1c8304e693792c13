//! What identifies a flow: the tuple of a packet, and the direction-normalised key made of it.
//!
//! Both directions of a flow give the same key: the two endpoints are put in order (`lo` before
//! `hi`), and which of them sent the packet at hand is returned beside the key. One lookup finds
//! the entry from either side; the entry says which side was the original one. A key with
//! another endpoint pair (a translated flow) would be a second index entry for the same flow.
//!
//! ICMP queries have no ports: the requester's side carries the identifier, the responder's the
//! request's type and code, and one bit says which side asks, so that two hosts pinging each
//! other with one identifier stay two flows.

use super::types::proto;
use crate::base::hash::HashKey;
use crate::wire::inner::{Inner, Ports};
use crate::wire::{Addrs, L4, Parsed, icmp};
use zerocopy::FromZeros;

/// A flow's identity as one packet shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Addresses.
    pub addrs: Addrs,
    /// Transport protocol.
    pub proto: u8,
    /// What distinguishes flows between the same two addresses.
    pub ports: Ports,
    /// Zone.
    pub zone: u16,
}

impl Tuple {
    /// The tuple of a parsed packet in `zone`; `None` if it has no readable transport header.
    #[inline]
    pub fn of(parsed: &Parsed, zone: u16) -> Option<Tuple> {
        let ports = match parsed.l4 {
            L4::Tcp(tcp) => Ports::Ports {
                sport: tcp.sport,
                dport: tcp.dport,
            },
            L4::Udp { sport, dport } | L4::Sctp { sport, dport, .. } => {
                Ports::Ports { sport, dport }
            }
            L4::Icmp { ty, code, id } => Ports::Icmp { ty, code, id },
            L4::Gre { call_id } => Ports::Gre {
                srckey: 0,
                dstkey: call_id,
            },
            L4::Other => Ports::None,
            L4::None | L4::Bad => return None,
        };
        Some(Tuple {
            addrs: parsed.addrs,
            proto: parsed.proto,
            ports,
            zone,
        })
    }

    /// The tuple of a packet that an ICMP error quotes, as that packet went.
    pub fn quoted(inner: &Inner, zone: u16) -> Tuple {
        Tuple {
            addrs: inner.addrs,
            proto: inner.proto,
            ports: inner.ports,
            zone,
        }
    }

    /// The tuple of a packet that answers this one; `None` for ICMP messages that nothing answers
    /// and that answer nothing.
    pub fn reversed(&self) -> Option<Tuple> {
        let ports = match self.ports {
            Ports::Ports { sport, dport } => Ports::Ports {
                sport: dport,
                dport: sport,
            },
            Ports::Gre { srckey, dstkey } => Ports::Gre {
                srckey: dstkey,
                dstkey: srckey,
            },
            Ports::Icmp { ty, code, id } => {
                let query = query(self.proto, ty)?;
                let ty = if query.asks {
                    query.reply
                } else {
                    query.request
                };
                Ports::Icmp { ty, code, id }
            }
            Ports::None => Ports::None,
        };
        Some(Tuple {
            addrs: self.addrs.flip(),
            proto: self.proto,
            ports,
            zone: self.zone,
        })
    }

    /// The key, and whether the packet's source is the `lo` side of it. `None` for ICMP messages
    /// that are no query (Linux: tuples that cannot be inverted).
    #[inline]
    pub fn key(&self) -> Option<(AnyKey, bool)> {
        let (sport, dport, asks) = match self.ports {
            Ports::Ports { sport, dport } => (sport, dport, None),
            Ports::Icmp { ty, code, id } => {
                let query = query(self.proto, ty)?;
                let message = u16::from_be_bytes([query.request, code]);
                if query.asks {
                    (id, message, Some(true))
                } else {
                    (message, id, Some(false))
                }
            }
            Ports::Gre { srckey, dstkey } => (srckey, dstkey, None),
            Ports::None => (0, 0, None),
        };
        let pack = |lo_port: u64, hi_port: u64, from_lo: bool| {
            let lo_asks = asks.is_some_and(|asks| asks == from_lo);
            lo_port << 48
                | hi_port << 32
                | u64::from(self.zone) << 16
                | u64::from(self.proto) << 8
                | u64::from(lo_asks) << 1
                | 1 // a key in use is never all zeros
        };
        let (key, from_lo) = match self.addrs {
            Addrs::V4 { src, dst } => {
                let (words, from_lo) = v4_words((src, sport), (dst, dport));
                let rest = pack(words[1] >> 48, words[1] >> 32 & 0xffff, from_lo);
                (AnyKey::V4(KeyV4([words[0], rest])), from_lo)
            }
            Addrs::V6 { src, dst } => {
                let from_lo = (src, sport) <= (dst, dport);
                let (from, to) = ((src, sport), (dst, dport));
                let ((lo, lo_port), (hi, hi_port)) = if from_lo { (from, to) } else { (to, from) };
                let halves = |a: u128| [(a >> 64) as u64, a as u64];
                let ([a, b], [c, d]) = (halves(lo), halves(hi));
                let rest = pack(lo_port.into(), hi_port.into(), from_lo);
                (AnyKey::V6(KeyV6([a, b, c, d, rest])), from_lo)
            }
        };
        Some((key, from_lo))
    }
}

/// An ICMP query: its request and reply types (RFC 792, RFC 950, RFC 4443, RFC 4620).
struct Query {
    request: u8,
    reply: u8,
    asks: bool,
}

#[inline]
fn query(proto: u8, ty: u8) -> Option<Query> {
    const V4: [(u8, u8); 4] = [
        (icmp::v4::ECHO, icmp::v4::ECHO_REPLY),
        (icmp::v4::TIMESTAMP, icmp::v4::TIMESTAMP_REPLY),
        (icmp::v4::INFO, icmp::v4::INFO_REPLY),
        (icmp::v4::MASK, icmp::v4::MASK_REPLY),
    ];
    const V6: [(u8, u8); 2] = [
        (icmp::v6::ECHO, icmp::v6::ECHO_REPLY),
        (icmp::v6::NODE_INFO_QUERY, icmp::v6::NODE_INFO_REPLY),
    ];
    let table: &[(u8, u8)] = if proto == proto::ICMP { &V4 } else { &V6 };
    let &(request, reply) = table.iter().find(|(a, b)| ty == *a || ty == *b)?;
    Some(Query {
        request,
        reply,
        asks: ty == request,
    })
}

/// A key of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyKey {
    /// IPv4.
    V4(KeyV4),
    /// IPv6.
    V6(KeyV6),
}

/// Both addresses in order, and both ports in the upper half of a second word; and whether `from`
/// is the `lo` side. Minimum and maximum instead of a branch: which is lower is as good as random.
#[inline(always)]
fn v4_words(from: (u32, u16), to: (u32, u16)) -> ([u64; 2], bool) {
    let from = u64::from(from.0) << 16 | u64::from(from.1);
    let to = u64::from(to.0) << 16 | u64::from(to.1);
    let (lo, hi) = (from.min(to), from.max(to));
    let addrs = lo >> 16 << 32 | hi >> 16;
    ([addrs, lo << 48 | (hi & 0xffff) << 32], from <= to)
}

impl KeyV4 {
    /// The key of a packet of a protocol with ports, and whether its source is the `lo` side:
    /// [`Tuple::key`] in few instructions.
    #[inline(always)]
    pub fn of_ports(from: (u32, u16), to: (u32, u16), proto: u8, zone: u16) -> (Self, bool) {
        let ([addrs, ports], from_lo) = v4_words(from, to);
        let rest = ports | u64::from(zone) << 16 | u64::from(proto) << 8 | 1;
        (Self([addrs, rest]), from_lo)
    }
}

impl AnyKey {
    /// The key of no flow.
    pub const NONE: Self = Self::V4(KeyV4([0; 2]));

    /// Where a packet of the flow goes that comes from the `lo` side, or not; for protocols that
    /// have ports.
    #[inline]
    pub fn destination(&self, from_lo: bool) -> Destination {
        let (addr, rest) = match (self, from_lo) {
            (Self::V4(KeyV4([addrs, rest])), true) => ([0, addrs & 0xffff_ffff], rest),
            (Self::V4(KeyV4([addrs, rest])), false) => ([0, addrs >> 32], rest),
            (Self::V6(KeyV6([_, _, high, low, rest])), true) => ([*high, *low], rest),
            (Self::V6(KeyV6([high, low, _, _, rest])), false) => ([*high, *low], rest),
        };
        let port = if from_lo { rest >> 32 } else { rest >> 48 };
        Destination {
            addr,
            port: port as u16,
            proto: (rest >> 8) as u8,
            zone: (rest >> 16) as u16,
        }
    }

    /// The words of 16 bits that a NIC hashes of the flow's packets, put together by exclusive or, which
    /// is the same for both directions: both addresses, and the ports of TCP and UDP.
    #[inline(always)]
    pub const fn folded(&self) -> u16 {
        let (addrs, rest) = match *self {
            Self::V4(KeyV4([addrs, rest])) => (addrs, rest),
            Self::V6(KeyV6([a, b, c, d, rest])) => (a ^ b ^ c ^ d, rest),
        };
        let halves = addrs ^ addrs >> 32;
        let with_ports = matches!((rest >> 8) as u8, proto::TCP | proto::UDP);
        let ports = (rest >> 48 ^ rest >> 32) as u16 & (with_ports as u16).wrapping_neg();
        (halves ^ halves >> 16) as u16 ^ ports
    }

    /// The tuple of a packet that comes from the `lo` side, or not; `None` for what nothing answers.
    pub fn tuple(&self, from_lo: bool) -> Option<Tuple> {
        let tuple = match self {
            Self::V4(key) => key.lo_tuple(),
            Self::V6(key) => key.lo_tuple(),
        };
        if from_lo {
            Some(tuple)
        } else {
            tuple.reversed()
        }
    }
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address; that of IPv4 is in the lower half.
    pub addr: [u64; 2],
    /// The port.
    pub port: u16,
    /// The transport protocol.
    pub proto: u8,
    /// The zone.
    pub zone: u16,
}

/// What a flow table needs of a key. The all-zero value stands for "no flow".
pub trait Key: Copy + Eq + FromZeros + std::fmt::Debug + Into<AnyKey> {
    /// The keyed hash.
    fn hash(&self, secret: &HashKey) -> u64;

    /// The tuple of a packet that the `lo` side sends.
    fn lo_tuple(&self) -> Tuple;

    /// `false` for the value that a free entry has.
    fn in_use(&self) -> bool;

    /// The transport protocol.
    fn proto(&self) -> u8;
}

/// IPv4: both addresses; ports, zone, protocol, bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct KeyV4([u64; 2]);

/// IPv6: both addresses; ports, zone, protocol, bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct KeyV6([u64; 5]);

impl From<KeyV4> for AnyKey {
    fn from(key: KeyV4) -> Self {
        Self::V4(key)
    }
}

impl From<KeyV6> for AnyKey {
    fn from(key: KeyV6) -> Self {
        Self::V6(key)
    }
}

/// Undoes the packing of the last word.
fn unpack(addrs: Addrs, rest: u64) -> Tuple {
    let (lo_port, hi_port) = ((rest >> 48) as u16, (rest >> 32) as u16);
    let proto = (rest >> 8) as u8;
    let ports = match proto {
        proto::ICMP | proto::ICMPV6 => {
            let lo_asks = rest & 2 != 0;
            let (id, message) = if lo_asks {
                (lo_port, hi_port)
            } else {
                (hi_port, lo_port)
            };
            let [request, code] = message.to_be_bytes();
            let ty = match query(proto, request) {
                Some(query) if !lo_asks => query.reply,
                _ => request,
            };
            Ports::Icmp { ty, code, id }
        }
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => Ports::Ports {
            sport: lo_port,
            dport: hi_port,
        },
        proto::GRE => Ports::Gre {
            srckey: lo_port,
            dstkey: hi_port,
        },
        _ => Ports::None,
    };
    Tuple {
        addrs,
        proto,
        ports,
        zone: (rest >> 16) as u16,
    }
}

impl Key for KeyV4 {
    #[inline(always)]
    fn hash(&self, secret: &HashKey) -> u64 {
        secret.hash2(self.0[0], self.0[1])
    }

    fn lo_tuple(&self) -> Tuple {
        let addrs = Addrs::V4 {
            src: (self.0[0] >> 32) as u32,
            dst: self.0[0] as u32,
        };
        unpack(addrs, self.0[1])
    }

    #[inline(always)]
    fn in_use(&self) -> bool {
        self.0[1] != 0
    }

    #[inline(always)]
    fn proto(&self) -> u8 {
        (self.0[1] >> 8) as u8
    }
}

impl Key for KeyV6 {
    #[inline(always)]
    fn hash(&self, secret: &HashKey) -> u64 {
        secret.hash5(self.0)
    }

    fn lo_tuple(&self) -> Tuple {
        let [a, b, c, d, rest] = self.0;
        let whole = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        unpack(
            Addrs::V6 {
                src: whole(a, b),
                dst: whole(c, d),
            },
            rest,
        )
    }

    #[inline(always)]
    fn in_use(&self) -> bool {
        self.0[4] != 0
    }

    #[inline(always)]
    fn proto(&self) -> u8 {
        (self.0[4] >> 8) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addrs() -> impl Strategy<Value = Addrs> {
        prop_oneof![
            (any::<u32>(), any::<u32>()).prop_map(|(src, dst)| Addrs::V4 { src, dst }),
            (any::<u128>(), any::<u128>()).prop_map(|(src, dst)| Addrs::V6 { src, dst }),
        ]
    }

    fn unique(tuple: &Tuple) -> (AnyKey, bool) {
        tuple.key().unwrap()
    }

    proptest! {
        #[test]
        fn both_directions_give_one_key(addrs in addrs(), sport: u16, dport: u16, zone: u16) {
            for proto in [proto::TCP, proto::UDP] {
                if let Addrs::V4 { src, dst } = addrs {
                    let tuple = Tuple { addrs, proto, ports: Ports::Ports { sport, dport }, zone };
                    let (key, from_lo) = KeyV4::of_ports((src, sport), (dst, dport), proto, zone);
                    prop_assert_eq!(unique(&tuple), (AnyKey::V4(key), from_lo));
                }
                let there = Tuple { addrs, proto, ports: Ports::Ports { sport, dport }, zone };
                let back = there.reversed().unwrap();
                let ((key, from_lo), (other, back_from_lo)) = (unique(&there), unique(&back));
                prop_assert_eq!(key, other);
                prop_assert!(there == back || from_lo != back_from_lo);
                prop_assert_eq!(key.tuple(from_lo), Some(there));
                prop_assert_eq!(key.tuple(!from_lo), Some(back));
                let dst = match addrs {
                    Addrs::V4 { dst, .. } => u128::from(dst),
                    Addrs::V6 { dst, .. } => dst,
                };
                let to = Destination {
                    addr: [(dst >> 64) as u64, dst as u64],
                    port: dport,
                    proto,
                    zone,
                };
                prop_assert_eq!(key.destination(from_lo), to);
            }
        }

        #[test]
        fn icmp_keys_restore(addrs in addrs(), id: u16, code: u8, which in 0..2usize) {
            let (proto, types) = match addrs {
                Addrs::V4 { .. } => (proto::ICMP, [8, 13]),
                Addrs::V6 { .. } => (proto::ICMPV6, [128, 139]),
            };
            let ports = Ports::Icmp { ty: types[which], code, id };
            let there = Tuple { addrs, proto, ports, zone: 0 };
            let back = there.reversed().unwrap();
            prop_assert_eq!(unique(&there).0, unique(&back).0);
            let restored = match unique(&there) {
                (AnyKey::V4(key), from_lo) => (key.lo_tuple(), from_lo),
                (AnyKey::V6(key), from_lo) => (key.lo_tuple(), from_lo),
            };
            prop_assert_eq!(restored.0, if restored.1 { there } else { back });
        }
    }

    fn ping(src: u32, dst: u32, ty: u8, id: u16) -> Tuple {
        let ports = Ports::Icmp { ty, code: 0, id };
        Tuple {
            addrs: Addrs::V4 { src, dst },
            proto: proto::ICMP,
            ports,
            zone: 0,
        }
    }

    #[test]
    fn two_hosts_that_ping_each_other_are_two_flows() {
        for id in [1, 0x0800] {
            assert_ne!(unique(&ping(1, 2, 8, id)).0, unique(&ping(2, 1, 8, id)).0);
            assert_eq!(unique(&ping(1, 2, 8, id)).0, unique(&ping(2, 1, 0, id)).0);
        }
    }

    #[test]
    fn zone_protocol_and_code_are_part_of_the_key() {
        let addrs = Addrs::V4 { src: 1, dst: 2 };
        let ports = Ports::Ports { sport: 3, dport: 4 };
        let base = Tuple {
            addrs,
            proto: proto::TCP,
            ports,
            zone: 0,
        };
        let keys = [
            base,
            Tuple { zone: 1, ..base },
            Tuple {
                proto: proto::UDP,
                ..base
            },
        ];
        assert_ne!(unique(&keys[0]).0, unique(&keys[1]).0);
        assert_ne!(unique(&keys[0]).0, unique(&keys[2]).0);
    }

    #[test]
    fn messages_that_are_no_query_have_no_key() {
        assert!(ping(1, 2, 3, 0).key().is_none());
        assert!(ping(1, 2, 42, 0).key().is_none());
    }
}
