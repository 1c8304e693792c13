//! What most rules ask, tested all at once: state, ports of the box, family, protocol, one range of
//! destination ports, one range of IPv4 addresses at each end.
//!
//! Which of its matches fails a rule is anybody's guess, so a test that stops at the first costs
//! more in wrong guesses than it saves. Here is nothing to guess: every field is compared, and what
//! a rule does not ask about has a value that fits all.
//!
//! Life-cycle: a [`Quick`] is made with its rule and then only read, a [`Brief`] lives as long as a
//! packet is judged. Concurrency: plain values.

use super::compile::Pred;
use super::eval::Facts;
use super::model::Family;
use crate::conntrack::types::Dir;
use crate::wire::parsed::{Addrs, L3};

/// Bits of what a packet has, and of what a rule asks for.
mod has {
    pub(super) const IPV4: u8 = 0x01;
    pub(super) const IPV6: u8 = 0x02;
    /// Either.
    pub(super) const IP: u8 = 0x04;
    pub(super) const DPORT: u8 = 0x08;
    pub(super) const ORIGINAL: u8 = 0x10;
    pub(super) const REPLY: u8 = 0x20;
}

/// A rule's usual matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quick {
    iif: u64,
    oif: u64,
    src: (u32, u32),
    dst: (u32, u32),
    dport: (u16, u16),
    /// Bits of states.
    states: u8,
    /// What the packet must have.
    needs: u8,
    proto: u8,
    /// Bits of the protocol that count.
    proto_mask: u8,
}

impl Quick {
    /// What asks for nothing.
    pub(super) const ANYTHING: Self = Self {
        iif: u64::MAX,
        oif: u64::MAX,
        src: (0, u32::MAX),
        dst: (0, u32::MAX),
        dport: (0, u16::MAX),
        states: u8::MAX,
        needs: 0,
        proto: 0,
        proto_mask: 0,
    };

    /// Asks for `pred` too; `false` if it is none of the usual matches. A rule has each once.
    pub(super) fn add(&mut self, pred: &Pred) -> bool {
        match *pred {
            Pred::State(mask) => self.states = mask,
            Pred::Iif(mask) => self.iif = mask,
            Pred::Oif(mask) => self.oif = mask,
            Pred::Dir(Dir::Original) => self.needs |= has::ORIGINAL,
            Pred::Dir(Dir::Reply) => self.needs |= has::REPLY,
            Pred::Family(Family::Ipv4) => self.needs |= has::IPV4,
            Pred::Family(Family::Ipv6) => self.needs |= has::IPV6,
            Pred::Proto(number) => {
                (self.proto, self.proto_mask) = (number, u8::MAX);
                self.needs |= has::IP;
            }
            Pred::Dport(low, high) => {
                self.dport = (low, high);
                self.needs |= has::DPORT;
            }
            Pred::Src4(low, high) => {
                self.src = (low, high);
                self.needs |= has::IPV4;
            }
            Pred::Dst4(low, high) => {
                self.dst = (low, high);
                self.needs |= has::IPV4;
            }
            _ => return false,
        }
        true
    }

    /// Whether a packet in the state `bit`, of this protocol, may match.
    #[inline(always)]
    pub(super) fn may_match(&self, bit: u8, proto: u8) -> bool {
        (self.states & bit != 0) & ((self.proto ^ proto) & self.proto_mask == 0)
    }

    /// Whether all these matches hold.
    #[inline(always)]
    pub(super) fn holds(&self, packet: &Brief) -> bool {
        let within = |(low, high): (u32, u32), addr| (low <= addr) & (addr <= high);
        (self.states & packet.state != 0)
            & (self.needs & !packet.has == 0)
            & ((self.proto ^ packet.proto) & self.proto_mask == 0)
            & (self.iif & packet.iif != 0)
            & (self.oif & packet.oif != 0)
            & (self.dport.0 <= packet.dport)
            & (packet.dport <= self.dport.1)
            & within(self.src, packet.src)
            & within(self.dst, packet.dst)
    }
}

/// What of a packet they are about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brief {
    /// A bit each.
    iif: u64,
    oif: u64,
    /// IPv4, or nothing that is asked about.
    src: u32,
    dst: u32,
    /// 0 without one.
    dport: u16,
    state: u8,
    has: u8,
    proto: u8,
}

impl Brief {
    /// The packet of `facts`.
    #[inline(always)]
    pub(super) fn new(facts: &Facts<'_>) -> Self {
        let packet = facts.packet;
        let (mut has, src, dst) = match (packet.l3, packet.addrs) {
            (L3::Ipv4, Addrs::V4 { src, dst }) => (has::IPV4 | has::IP, src, dst),
            (L3::Ipv4, _) => (has::IP, 0, 0),
            (L3::Ipv6, _) => (has::IPV6 | has::IP, 0, 0),
            _ => (0, 0, 0),
        };
        has |= match facts.dir {
            None => 0,
            Some(Dir::Original) => has::ORIGINAL,
            Some(Dir::Reply) => has::REPLY,
        };
        let dport = packet.dport();
        if dport.is_some() {
            has |= has::DPORT;
        }
        let bit = |port: u8| 1u64.checked_shl(port.into()).unwrap_or(0);
        Self {
            iif: bit(facts.iif.0),
            oif: bit(facts.oif.0),
            src,
            dst,
            dport: dport.unwrap_or(0),
            state: facts.state.bit(),
            has,
            proto: packet.proto,
        }
    }
}
