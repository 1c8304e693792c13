//! The shard's flows one after the other, for whoever lists or flushes them, in bounded pieces.

use super::{AnyKey, FlowRef, Shard};
use crate::base::time::Ticks;
use crate::conntrack::record::{FlowRecord, Snapshot};

impl Shard {
    /// The flow as it is shown.
    pub fn record(&self, flow: FlowRef, now: Ticks) -> FlowRecord {
        self.snapshot(flow, now).record()
    }

    /// What is shown of the flow, of a fixed size, to be handed over.
    pub fn snapshot(&self, flow: FlowRef, now: Ticks) -> Snapshot {
        let about = self.kins.about(flow.v6, flow.entry, self.core(flow).status);
        if flow.v6 {
            Snapshot::of(self.v6.entry(flow.entry), now, self.id, about)
        } else {
            Snapshot::of(self.v4.entry(flow.entry), now, self.id, about)
        }
    }

    /// What a NIC hashes of the flow's packets ([`AnyKey::folded`]).
    pub fn folded(&self, flow: FlowRef) -> u16 {
        if flow.v6 {
            AnyKey::from(self.v6.entry(flow.entry).key).folded()
        } else {
            AnyKey::from(self.v4.entry(flow.entry).key).folded()
        }
    }

    /// The flows from `cursor` on, looking at most at `scan` entries; and where to go on. Flows
    /// that come and go meanwhile may or may not be among them; none is shown twice while it
    /// lives.
    pub fn scan(&self, cursor: Cursor, scan: u32) -> (Vec<FlowRef>, Option<Cursor>) {
        let mut flows = Vec::new();
        let next = self.visit(cursor, scan, |flow| flows.push(flow));
        (flows, next)
    }

    /// The same, one by one.
    #[inline]
    pub fn visit(&self, cursor: Cursor, scan: u32, mut to: impl FnMut(FlowRef)) -> Option<Cursor> {
        let v6 = cursor.v6;
        let mut visit = |used: &mut dyn Iterator<Item = u32>| {
            used.for_each(|entry| to(FlowRef { v6, entry }));
        };
        let next = if v6 {
            let (mut used, next) = self.v6.scan(cursor.entry, scan);
            visit(&mut used);
            next
        } else {
            let (mut used, next) = self.v4.scan(cursor.entry, scan);
            visit(&mut used);
            next
        };
        cursor.then(next)
    }

    /// Ends `flows`, which must come from a [`Shard::scan`] with nothing in between.
    pub fn remove(&mut self, flows: &[FlowRef]) {
        for flow in flows {
            self.end(*flow);
        }
    }

    /// The entry at `cursor`, if it is a flow, and where to go on.
    pub(super) fn step(&self, cursor: Cursor) -> (Option<FlowRef>, Option<Cursor>) {
        let Cursor { v6, entry } = cursor;
        let (found, next) = if v6 {
            let (mut used, next) = self.v6.scan(entry, 1);
            (used.next(), next)
        } else {
            let (mut used, next) = self.v4.scan(entry, 1);
            (used.next(), next)
        };
        (found.map(|entry| FlowRef { v6, entry }), cursor.then(next))
    }
}

/// A place in a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    v6: bool,
    entry: u32,
}

impl Cursor {
    /// The place after this one, if its table goes on at `next`: the other table follows.
    fn then(self, next: Option<u32>) -> Option<Cursor> {
        match next {
            Some(entry) => Some(Cursor { entry, ..self }),
            None if !self.v6 => Some(Cursor { v6: true, entry: 0 }),
            None => None,
        }
    }
}
