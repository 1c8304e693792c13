//! The hash that a NIC tells of a packet, and whether to believe it.
//!
//! Where a port hashes by our key, the bucket of a plain TCP or UDP packet is in its descriptor, and
//! need not be computed. What a NIC tells is believed of a kind of packet only after 64 of them
//! had the hash that they should, every bit of it, and of each burst the first is looked at again: one
//! that does not agree, and the port is not believed any more. Until then, and for every other kind of
//! packet, the bucket is computed: an owner never depends on what a NIC can do.
//!
//! Owned by one worker; what it counts is for all to see.

use super::shared::PortCounters;
use super::steer::bucket;
use crate::conntrack::types::proto;
use crate::wire::{Addrs, Fragment, L4, Parsed};

/// Packets of a kind that must agree before it is believed.
const PROOF: u8 = 64;

/// Kinds of packets of which a port hashes addresses and ports by the key, as bits; none if it does not
/// spread packets by the key at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(pub u8);

impl Kinds {
    /// TCP over IPv4.
    pub const TCP4: Self = Self(1);
    /// UDP over IPv4.
    pub const UDP4: Self = Self(2);
    /// TCP over IPv6.
    pub const TCP6: Self = Self(4);
    /// UDP over IPv6.
    pub const UDP6: Self = Self(8);
    /// All of them.
    pub const ALL: Self = Self(15);

    /// Whether it is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How many kinds there are.
const KINDS: usize = 4;

/// UDP ports behind which NICs look for another packet, to hash that one: L2TP, GTP, Teredo, ESP, VXLAN
/// and its generic extension, RoCE, GUE, Geneve, MPLS, VXLAN as Linux had it first, PFCP (IANA, Service
/// Name and Transport Protocol Port Number Registry).
const TUNNELS: [u16; 13] = [
    1701, 2123, 2152, 3544, 4500, 4789, 4790, 4791, 6080, 6081, 6635, 8472, 8805,
];

/// The number of a packet's kind; `None` of one that NICs may well see otherwise: with tags, options,
/// extension headers, in pieces, of other protocols, with another packet inside.
#[inline(always)]
fn kind(parsed: &Parsed) -> Option<usize> {
    const LINK: u16 = 14;
    let (v6, header) = match parsed.addrs {
        Addrs::V4 { .. } => (0, 20),
        Addrs::V6 { .. } => (2, 40),
    };
    let udp = match parsed.l4 {
        L4::Tcp(_) => 0,
        L4::Udp { dport, .. } if parsed.proto == proto::UDP && !TUNNELS.contains(&dport) => 1,
        _ => return None,
    };
    let plain = parsed.l3_offset == LINK && parsed.l4_offset == LINK + header;
    (plain && parsed.fragment == Fragment::Whole).then_some(v6 + udp)
}

/// What one worker believes of one port.
#[derive(Clone, Copy, Debug)]
pub struct Belief {
    kinds: Kinds,
    /// Packets of each kind that are to be looked at before the next is believed.
    left: [u8; KINDS],
}

impl Belief {
    /// Nothing is proven of a port that says that it hashes `kinds`.
    pub const fn new(kinds: Kinds) -> Self {
        Self {
            kinds,
            left: [PROOF; KINDS],
        }
    }

    /// Whether the port spreads packets by the key, as far as is known.
    #[inline]
    pub const fn spreads(&self) -> bool {
        !self.kinds.is_empty()
    }

    /// Begins a burst: its first packet of each kind is looked at.
    #[inline]
    pub fn begin(&mut self) {
        for left in &mut self.left {
            *left = (*left).max(1);
        }
    }

    /// The bucket of a packet whose hash is `told`; `compute` says what either half of it should be.
    #[inline(always)]
    pub fn bucket(
        &mut self,
        told: u32,
        parsed: &Parsed,
        counters: &PortCounters,
        compute: impl FnOnce() -> u16,
    ) -> u8 {
        let Some(kind) = kind(parsed) else {
            return bucket(compute().into());
        };
        let left = &mut self.left[kind];
        if *left == 0 {
            counters.hash_used.add(1);
            return bucket(told);
        }
        let half = u32::from(compute());
        let is = bucket(half);
        if self.kinds.0 >> kind & 1 == 0 {
            return is;
        }
        // A bucket alone is right by chance once in 128 flows, for each packet of the flow.
        if told == half << 16 | half {
            *left -= 1;
        } else {
            // It says one thing and does another: nothing of it is proven.
            counters.hash_wrong.add(1);
            self.kinds = Kinds::default();
            self.left = [PROOF; KINDS];
        }
        is
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build::{Segment, frame};
    use crate::wire::parse;

    fn udp(v6: bool) -> Parsed {
        udp_to(v6, 2)
    }

    fn udp_to(v6: bool, dport: u16) -> Parsed {
        let addrs = match v6 {
            false => Addrs::V4 { src: 1, dst: 2 },
            true => Addrs::V6 { src: 1, dst: 2 },
        };
        let frame = frame(addrs, Segment::Udp { sport: 1, dport }, b"");
        parse(&frame, frame.len())
    }

    /// What became of `count` packets whose hash has `told` for a half, and should have 5.
    fn see(belief: &mut Belief, parsed: &Parsed, told: u16, count: usize) -> (u64, u64) {
        let counters = PortCounters::default();
        for _ in 0..count {
            let hash = u32::from(told) << 16 | u32::from(told);
            let is = belief.bucket(hash, parsed, &counters, || 5);
            assert!(is == 5 || is == bucket(hash));
        }
        (counters.hash_used.get(), counters.hash_wrong.get())
    }

    #[test]
    fn a_hash_is_believed_once_it_is_proven() {
        let mut belief = Belief::new(Kinds::UDP4.and(Kinds::UDP6));
        assert_eq!(see(&mut belief, &udp(false), 5, 64), (0, 0));
        assert_eq!(see(&mut belief, &udp(false), 5, 10), (10, 0));
        assert_eq!(
            see(&mut belief, &udp(true), 5, 10),
            (0, 0),
            "each kind for itself"
        );
        // The first of a burst is looked at again.
        belief.begin();
        assert_eq!(see(&mut belief, &udp(false), 5, 10), (9, 0));
        belief.begin();
        assert_eq!(see(&mut belief, &udp(false), 6, 10), (0, 1));
        assert!(!belief.spreads());
        belief.begin();
        assert_eq!(see(&mut belief, &udp(false), 5, 1000), (0, 0), "for good");
    }

    #[test]
    fn one_flow_whose_bucket_is_right_by_chance_proves_nothing() {
        let mut belief = Belief::new(Kinds::ALL);
        assert_eq!(see(&mut belief, &udp(false), 5 | 128, 100), (0, 1));
        assert!(!belief.spreads());
    }

    #[test]
    fn what_may_hold_another_packet_is_computed() {
        let mut belief = Belief::new(Kinds::ALL);
        see(&mut belief, &udp(false), 5, 64);
        see(&mut belief, &udp(true), 5, 64);
        for port in TUNNELS {
            for v6 in [false, true] {
                assert_eq!(see(&mut belief, &udp_to(v6, port), 6, 10), (0, 0), "{port}");
            }
        }
        assert!(belief.spreads());
        assert_eq!(see(&mut belief, &udp(false), 5, 10), (10, 0));
    }

    #[test]
    fn other_kinds_are_computed() {
        let mut belief = Belief::new(Kinds::TCP4);
        assert_eq!(see(&mut belief, &udp(false), 5, 100), (0, 0));
        let mut belief = Belief::new(Kinds::ALL);
        let mut parsed = udp(false);
        parsed.l4_offset += 4;
        assert_eq!(see(&mut belief, &parsed, 6, 100), (0, 0), "options");
        parsed.l3_offset += 4;
        assert_eq!(see(&mut belief, &parsed, 6, 100), (0, 0), "a tag");
        let mut parsed = udp(true);
        parsed.proto = proto::UDPLITE;
        assert_eq!(see(&mut belief, &parsed, 6, 100), (0, 0));
        assert_eq!(
            see(&mut Belief::new(Kinds::default()), &udp(true), 6, 100),
            (0, 0)
        );
    }
}
