//! What a worker counts on the packet path. Conservation holds at rest:
//! `received = forwarded + every drop reason + punted + held`, summed over the workers.

use super::DropReason;
use crate::base::counter::Counter;
use crate::conntrack::shard::CtCounters;
use std::sync::Arc;

/// One worker's counters; it alone writes.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames taken from ports.
    pub received: Counter,
    /// Frames handed to ports.
    pub forwarded: Counter,
    /// Frames given to the host's own stack. Transparent mode has none.
    pub punted: Counter,
    /// Frames that the firewall made itself (answers of `reject`); not part of the balance.
    pub generated: Counter,
    /// Fragments that wait for the rest of their datagram, at this moment (a gauge).
    pub held: Counter,
    /// Datagrams that were put together from fragments.
    pub reassembled: Counter,
    /// Datagrams of which fragments were held and that never became whole.
    pub reassembly_failed: Counter,
    /// Dropped frames, indexed by [`DropReason`].
    pub drops: [Counter; DropReason::COUNT],
    /// What the tracker counts.
    pub ct: Arc<CtCounters>,
}

impl Counters {
    /// Counts one dropped frame.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    /// All drops.
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }
}
