//! A flow's entry, split by how often it is touched.
//!
//! The *hot* line (64 bytes for IPv4, 128 for IPv6) is all that a packet of a known flow reads
//! and writes: key, window state of both directions, deadline, TCP state, status. The *cold* line
//! lies in an array of its own: the memory of the last segment, timer links, creation time, mark.

use super::tuple::Key;
use super::types::{Dir, TcpState};
use crate::base::time::Ticks;
use zerocopy::FromZeros;

/// Status bits of a flow (Linux: `IPS_*`).
pub mod status {
    /// The side that sent the first packet is the key's `lo` side.
    pub const ORIGINAL_IS_LO: u8 = 1;
    /// A packet went the other way.
    pub const SEEN_REPLY: u8 = 2;
    /// Worth keeping when the table is full.
    pub const ASSURED: u8 = 4;
}

/// The part of an entry that every packet of the flow touches, next to the key.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub struct Core {
    /// What each direction's sender has shown of its window; indexed by [`Dir`].
    pub seen: [Seen; 2],
    /// When the flow ends unless a packet comes.
    pub deadline: Ticks,
    /// State of a TCP flow; `None` for other protocols.
    pub tcp_state: TcpState,
    /// Bits of [`status`].
    pub status: u8,
    /// Room for the policy generation of a remembered verdict.
    reserved: u16,
}

/// One direction of a TCP flow's window (van Rooij 2001; Linux: `ip_ct_tcp_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
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
    /// Room for this direction's remembered verdict.
    pub reserved: u16,
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

    /// Whether every bit of `bits` is set.
    #[inline]
    pub fn has(&self, bits: u8) -> bool {
        self.status & bits == bits
    }
}

/// A hot line. The key comes first; a key that is not in use marks a free entry.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub struct Hot<K: Key> {
    /// The normalised key.
    pub key: K,
    /// Everything else that a packet touches.
    pub core: Core,
}

/// A cold line.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
pub struct Cold {
    /// Timer list of the entry's slot, or the free list.
    pub links: Links,
    /// Memory of the last segment.
    pub last: LastSegment,
    /// When the flow was created.
    pub created: Ticks,
    /// The flow's mark.
    pub mark: u32,
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
    /// Which wheel.
    pub class: u8,
    reserved: u8,
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
    reserved: u8,
}

#[cfg(test)]
mod tests {
    use super::super::tuple::{KeyV4, KeyV6};
    use super::*;

    #[test]
    fn lines_are_lines() {
        assert_eq!(size_of::<Core>(), 48);
        assert_eq!(size_of::<Hot<KeyV4>>(), 64);
        assert_eq!(size_of::<Hot<KeyV6>>(), 128);
        assert_eq!(size_of::<Cold>(), 64);
    }
}
