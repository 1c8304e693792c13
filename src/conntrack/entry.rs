//! A flow's entry: two cache lines for IPv4, three for IPv6, in the order in which packets need
//! them. First the key and the [`Core`], which every packet reads and writes; then the [`Rest`]: the
//! memory of the last segment, accounting, mark, timer links.
//!
//! Neighbouring lines cost little more than one: processors fetch them in pairs.

use super::tuple::Key;
use super::types::{Dir, TcpState};
use super::wheel::Linked;
use crate::base::time::{Now, Ticks};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Status bits of a flow (Linux: `IPS_*`).
pub mod status {
    /// The side that sent the first packet is the key's `lo` side.
    pub const ORIGINAL_IS_LO: u8 = 1;
    /// A packet went the other way.
    pub const SEEN_REPLY: u8 = 2;
    /// Worth keeping when the table is full.
    pub const ASSURED: u8 = 4;
    /// A helper listens to it.
    pub const HELPED: u8 = 0x08;
    /// A helper expected it.
    pub const EXPECTED: u8 = 0x10;
    /// Lowest of the three bits that say which of [`Config`](super::super::config::Config)'s
    /// timeouts the flow goes by; 0 for the default.
    pub const TIMEOUTS: u8 = 0x20;
    /// All three.
    pub const ALL_TIMEOUTS: u8 = 7 * TIMEOUTS;
}

/// The part of an entry that every packet of the flow touches, next to the key.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub struct Core {
    /// What each direction's sender has shown of its window; indexed by [`Dir`]. The bytes of an
    /// SCTP flow are [`super::sctp::Peer`]s.
    pub seen: [Seen; 2],
    /// When the flow ends unless a packet comes.
    pub deadline: Ticks,
    /// State of a TCP flow; `None` for other protocols.
    pub tcp_state: TcpState,
    /// Bits of [`status`], and the number of the flow's timeouts.
    pub status: u8,
    /// Which policy the flow was judged by last, as a number of its worker's; 0 is none.
    pub judged: u16,
}

/// One direction of a TCP flow's window (van Rooij 2001; Linux: `ip_ct_tcp_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Seen {
    /// Highest sequence number sent, plus length.
    pub end: u32,
    /// Highest sequence number that the receiver has allowed.
    pub max_end: u32,
    /// Largest window advertised, scaled.
    pub max_window: u32,
    /// Highest acknowledgement sent.
    pub max_ack: u32,
    /// Window scale that applies to this sender's windows.
    pub scale: u8,
    /// Bits of [`seen_flags`].
    pub flags: u8,
    /// The verdict that is remembered for this direction, as a number of the flow's worker; 0 is
    /// none.
    pub verdict: u16,
}

/// Bits of [`Seen::flags`].
pub mod seen_flags {
    #![allow(missing_docs)]
    pub const WINDOW_SCALE: u8 = 0x01;
    pub const SACK_PERMITTED: u8 = 0x02;
    pub const CLOSE_INITIATED: u8 = 0x04;
    pub const LIBERAL: u8 = 0x08;
    pub const UNACKNOWLEDGED: u8 = 0x10;
    pub const MAX_ACK_SET: u8 = 0x20;
}

impl Core {
    /// A zeroed core whose original sender is the `lo` side, or not.
    pub fn new(original_is_lo: bool) -> Core {
        let mut core = Core::new_zeroed();
        core.status = if original_is_lo {
            status::ORIGINAL_IS_LO
        } else {
            0
        };
        core
    }

    /// Direction of a packet that came from the `lo` side, or not.
    #[inline]
    pub fn direction(&self, from_lo: bool) -> Dir {
        if from_lo == self.has(status::ORIGINAL_IS_LO) {
            Dir::Original
        } else {
            Dir::Reply
        }
    }

    /// Forgets the verdicts of both directions.
    #[inline]
    pub fn forget(&mut self) {
        self.seen.iter_mut().for_each(|seen| seen.verdict = 0);
    }

    /// Whether every bit of `bits` is set.
    #[inline]
    pub fn has(&self, bits: u8) -> bool {
        self.status & bits == bits
    }
}

/// An entry. A key that is not in use marks a free one.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub struct Entry<K: Key> {
    /// The normalised key.
    pub key: K,
    /// What every packet touches.
    pub core: Core,
    /// Everything else.
    pub rest: Rest,
}

impl<K: Key> Linked for Entry<K> {
    #[inline]
    fn links(&self) -> &Links {
        &self.rest.links
    }

    #[inline]
    fn links_mut(&mut self) -> &mut Links {
        &mut self.rest.links
    }
}

/// The part of an entry behind the core.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub struct Rest {
    /// Memory of the last segment.
    pub last: LastSegment,
    /// When the flow was created.
    pub created: Ticks,
    /// What each direction carried, where accounting is on; indexed by [`Dir`].
    pub account: [Account; 2],
    /// The flow's mark.
    pub mark: u32,
    /// Timer list of the entry's slot, or the free list.
    pub links: Links,
}

impl Rest {
    /// When the flow was created, if that was to be remembered.
    pub fn date(&self) -> Option<Now> {
        let turn = self.last.turn.checked_sub(1)?;
        Some(Now::of_turn(turn, self.created))
    }
}

/// Packets and bytes of one direction, in twelve bytes: 44 bits of packets, 52 of bytes. Both stop
/// at their ends (17 million million packets, 4.5 PB) and never wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
#[repr(C)]
pub struct Account {
    packets: u32,
    bytes: u32,
    /// Upper 12 bits of the packets, upper 20 of the bytes.
    upper: u32,
}

impl Account {
    const BYTES: u64 = (1 << 52) - 1;
    const PACKETS: u64 = (1 << 44) - 1;

    /// Counts a packet of `bytes` bytes.
    #[inline]
    pub fn add(&mut self, bytes: u32) {
        let (packets, more) = self.packets.overflowing_add(1);
        let (sum, over) = self.bytes.overflowing_add(bytes);
        if more | over {
            self.carry(bytes);
        } else {
            self.packets = packets;
            self.bytes = sum;
        }
    }

    #[cold]
    fn carry(&mut self, bytes: u32) {
        let packets = (self.packets() + 1).min(Self::PACKETS);
        let bytes = (self.bytes() + u64::from(bytes)).min(Self::BYTES);
        self.packets = packets as u32;
        self.bytes = bytes as u32;
        self.upper = (packets >> 32 << 20) as u32 | (bytes >> 32) as u32;
    }

    /// Packets counted.
    pub fn packets(&self) -> u64 {
        u64::from(self.upper >> 20) << 32 | u64::from(self.packets)
    }

    /// Bytes counted.
    pub fn bytes(&self) -> u64 {
        u64::from(self.upper & 0xf_ffff) << 32 | u64::from(self.bytes)
    }
}

/// Where an entry hangs in its wheel.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub struct Links {
    /// Next entry of the list, as index + 1; 0 ends it.
    pub next: u32,
    /// Previous entry, as index + 1; 0 is the head.
    pub prev: u32,
    /// Slot of the wheel.
    pub slot: u16,
    /// Which wheel, in two bits, and above them the port that the flow's first packet came in by.
    place: u8,
    /// Left free by the links: how many counts hold the flow; [`super::ledger`] knows which.
    pub counted: u8,
}

impl Links {
    const WHEEL: u8 = 3;

    /// The wheel.
    #[inline]
    pub fn wheel(&self) -> usize {
        usize::from(self.place & Self::WHEEL)
    }

    /// Sets the wheel, below 4.
    #[inline]
    pub fn set_wheel(&mut self, wheel: u8) {
        self.place = self.place & !Self::WHEEL | wheel & Self::WHEEL;
    }

    /// The port, below 64, that the flow's first packet came in by.
    #[inline]
    pub fn port(&self) -> u8 {
        self.place >> 2
    }

    /// Sets the port.
    #[inline]
    pub fn set_port(&mut self, port: u8) {
        self.place = self.place & Self::WHEEL | port << 2;
    }
}

/// What is remembered of the last segment (Linux: the `last_*` members of `ip_ct_tcp`).
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub struct LastSegment {
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgement.
    pub ack: u32,
    /// Its end.
    pub end: u32,
    /// Its window, unscaled.
    pub window: u16,
    /// Its class ([`super::tcp::table::Class`]), as a number.
    pub class: u8,
    /// Its direction, as a number.
    pub dir: u8,
    /// How often an identical segment followed.
    pub retransmits: u8,
    /// Window scale of an ignored SYN.
    pub scale: u8,
    /// Flags of an ignored SYN, and expectations that follow from it.
    pub flags: u8,
    /// Left free by the segment: 1 + the turn of the ticks that the flow was created in, so that
    /// [`Rest::created`] is a date; 0 if nobody asks for it.
    pub turn: u8,
}

#[cfg(test)]
mod tests {
    use super::super::tuple::{KeyV4, KeyV6};
    use super::*;

    #[test]
    fn lines_are_lines() {
        assert_eq!(size_of::<Core>(), 48);
        assert_eq!(size_of::<Rest>(), 64);
        assert_eq!(size_of::<Entry<KeyV4>>(), 128);
        assert_eq!(size_of::<Entry<KeyV6>>(), 192);
        // What TCP touches of an IPv6 flow is in two lines.
        assert!(std::mem::offset_of!(Entry<KeyV6>, rest) + size_of::<LastSegment>() <= 128);
    }

    #[test]
    fn accounts_carry_and_stop_at_their_ends() {
        let mut account = Account::default();
        let mut bytes = 0;
        for packet in 1..=20_000u64 {
            account.add(1_000_000_000);
            bytes += 1_000_000_000;
            assert_eq!((account.packets(), account.bytes()), (packet, bytes));
        }
        account.packets = u32::MAX;
        account.add(1);
        assert_eq!(account.packets(), 1 << 32);
        account.upper = u32::MAX;
        (account.packets, account.bytes) = (u32::MAX, u32::MAX);
        account.add(1);
        assert_eq!(
            (account.packets(), account.bytes()),
            (Account::PACKETS, Account::BYTES)
        );
    }
}
