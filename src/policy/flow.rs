//! What rules ask of a packet's flow, and what they do to it: marks, status, `connlimit`.
//!
//! A `connlimit` counts the flows whose first packet came as far as that match. The packet that
//! starts a flow is added at once, so that of simultaneous packets on all cores no more than the limit
//! find themselves within it; whoever called [`Compiled::forward`] keeps the additions
//! ([`FlowFacts::counted`]) if the flow enters the table, and takes them back if it does not.
//!
//! Counts are kept under a hash of the rule's name and text. So they outlive a reload that leaves the
//! rule as it is, and a flow that was counted under an earlier policy gives back what it took, and
//! nothing of another rule's.
//!
//! Life-cycle: a [`FlowFacts`] lives for one packet. Concurrency: it belongs to one worker; the
//! [`Tally`](crate::base::tally::Tally) behind it is everybody's.
//!
//! [`Compiled::forward`]: super::Compiled::forward

use std::cell::Cell;

use super::MAX_CONNLIMITS;
use super::model::{ConnLimit, MarkValue, Per, flow_status};
use crate::base::tally::TallyKey;
use crate::conntrack::entry::status;
use crate::conntrack::helper::HelperId;
use crate::conntrack::shard::FlowView;
use crate::wire::Addrs;
use arrayvec::ArrayVec;

/// Keys that count a flow.
pub type Counted = ArrayVec<TallyKey, MAX_CONNLIMITS>;

/// A packet's flow, as rules see it and change it.
#[derive(Debug)]
pub struct FlowFacts<'a> {
    view: FlowView<'a>,
    mark: Cell<u32>,
    /// What this packet was added to.
    keys: [Cell<TallyKey>; MAX_CONNLIMITS],
    added: Cell<u8>,
}

impl<'a> FlowFacts<'a> {
    /// The flow behind `view`.
    pub fn new(view: FlowView<'a>) -> Self {
        Self {
            view,
            mark: Cell::new(view.mark),
            keys: Default::default(),
            added: Cell::new(0),
        }
    }

    /// The mark that rules gave the flow, if it is another than before.
    pub fn new_mark(&self) -> Option<u32> {
        let mark = self.mark.get();
        (mark != self.view.mark).then_some(mark)
    }

    /// What the flow was added to, to be kept or taken back.
    pub fn counted(&self) -> Counted {
        self.keys().collect()
    }

    fn keys(&self) -> impl Iterator<Item = TallyKey> {
        let added = self.added.get().into();
        self.keys.iter().take(added).map(Cell::get)
    }

    pub(super) fn mark(&self) -> u32 {
        self.mark.get()
    }

    pub(super) fn set_mark(&self, mark: MarkValue) {
        self.mark.set(mark.apply(self.mark.get()));
    }

    /// Bits of [`flow_status`].
    pub(super) fn status(&self) -> u8 {
        let has = |bit| self.view.status & bit != 0;
        let bit = |is, bit| if is { bit } else { 0 };
        bit(has(status::SEEN_REPLY), flow_status::SEEN_REPLY)
            | bit(has(status::ASSURED), flow_status::ASSURED)
            | bit(self.view.confirmed, flow_status::CONFIRMED)
            | bit(has(status::EXPECTED), flow_status::EXPECTED)
    }

    pub(super) fn helper(&self) -> Option<HelperId> {
        self.view.helper
    }

    /// Flows under `key`, this one included if it is being started; `None` if that could not be
    /// counted.
    fn count(&self, key: TallyKey) -> Option<u32> {
        // A rule may be come by twice, over two jumps; a known flow was counted by its first packet.
        if self.view.confirmed || self.keys().any(|known| known == key) {
            return Some(self.view.tally.count(key));
        }
        let slot = self.keys.get(usize::from(self.added.get()))?;
        let count = self.view.tally.add(key)?;
        slot.set(key);
        self.added.set(self.added.get() + 1);
        Some(count)
    }
}

/// The `connlimit` of one rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// Hash of the rule's name and text.
    pub(super) id: u64,
    pub(super) limit: ConnLimit,
}

impl Scope {
    /// Whether there are few enough flows, or too many. What cannot be counted is too many.
    pub(super) fn holds(&self, flow: &FlowFacts<'_>) -> bool {
        let count = flow.count(self.key(flow));
        let within = count.is_some_and(|count| count <= self.limit.count);
        within != self.limit.over
    }

    /// How many flows there would be, and whether the match would hold; adds nothing.
    pub(super) fn foresee(&self, flow: &FlowFacts<'_>) -> (u32, bool) {
        let key = self.key(flow);
        let counted = flow.view.confirmed || flow.keys().any(|known| known == key);
        let count = flow.view.tally.count(key) + u32::from(!counted);
        (count, (count <= self.limit.count) != self.limit.over)
    }

    fn key(&self, flow: &FlowFacts<'_>) -> TallyKey {
        let FlowView {
            original,
            zone,
            tally,
            ..
        } = flow.view;
        let [about, high, low] = together(self.limit.per, original, zone);
        tally.key([self.id, about, high, low, 0])
    }
}

/// What is equal for all that is counted together.
pub(super) fn together(per: Per, addrs: Addrs, zone: u16) -> [u64; 3] {
    let zone = u64::from(zone);
    let network = |addrs: Addrs, len4: u8, len6: u8| match addrs {
        Addrs::V4 { src, .. } => [4 << 32 | zone, 0, front(src.into(), 32, len4) as u64],
        Addrs::V6 { src, .. } => {
            let src = front(src, 128, len6);
            [6 << 32 | zone, (src >> 64) as u64, src as u64]
        }
    };
    match per {
        Per::Source { v4, v6 } => network(addrs, v4, v6),
        Per::Destination { v4, v6 } => network(addrs.flip(), v4, v6),
        Per::Zone => [zone, 0, 0],
        Per::Rule => [0; 3],
    }
}

/// The first `len` of the `bits` bits of an address.
fn front(addr: u128, bits: u32, len: u8) -> u128 {
    let host = bits.saturating_sub(len.into());
    addr.checked_shr(host).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::front;

    #[test]
    fn networks_are_the_front_of_addresses() {
        assert_eq!(front(0x0a01_0203, 32, 32), 0x0a01_0203);
        assert_eq!(front(0x0a01_0203, 32, 24), 0x000a_0102);
        assert_eq!(front(0x0a01_0203, 32, 0), 0);
        assert_eq!(front(u128::MAX, 128, 64), u128::from(u64::MAX));
        assert_eq!(front(u128::MAX, 128, 0), 0);
    }
}
