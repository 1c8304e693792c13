//! Verdicts that flows remember, so that the packets of a known flow need not be classified.
//!
//! A packet's way through the chains is worth remembering if nothing on it read the packet itself:
//! then every packet of the flow in the same direction and state, by the same port and VLAN, goes
//! the same way. Ways are kept once for all flows that go them; a flow has the number of one for
//! each direction, and what goes a way again is counted for every rule on it.
//!
//! Life-cycle: ways belong to one policy and are forgotten with it. Flows are not told: each carries
//! the *epoch* of the policy that judged it last, and remembers nothing in another. Concurrency:
//! belongs to one worker.

use crate::base::hash::HashKey;
use crate::conntrack::types::{CtState, Dir};
use crate::policy::{Decision, PortId, Steps};

/// Ways that are kept; what goes others is classified packet by packet.
const WAYS: usize = 16_383;
/// Places of the index, a power of two.
const PLACES: usize = 32_768;

/// The packets for which a way holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Their state.
    pub(super) state: CtState,
    /// Their direction.
    pub(super) dir: Dir,
    /// Where they came in.
    pub(super) iif: PortId,
    /// Their VLAN, if the policy asks for any.
    pub(super) vlan: u16,
}

/// A way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The packets that go it.
    pub(super) kind: Kind,
    /// Where it ends.
    pub(super) decision: Decision,
    /// Its rules, in order.
    pub(super) steps: Steps,
}

/// What one worker's flows remember.
#[derive(Debug)]
pub(super) struct Memory {
    /// The policy whose ways these are.
    serial: u64,
    /// What flows that it judged carry; never 0.
    epoch: u16,
    /// Flows that were judged in earlier epochs must be judged again; 0 means none.
    again: u16,
    /// By number; the first is nobody's.
    ways: Vec<Way>,
    /// Numbers of ways by hash of the way, 0 for none, with linear probing.
    index: Box<[u16]>,
    secret: HashKey,
    /// Packets that were spared the rules.
    #[cfg(test)]
    pub(super) spared: std::cell::Cell<u64>,
}

impl Memory {
    /// An empty one, of no policy.
    pub(super) fn new() -> Self {
        Self {
            serial: 0,
            epoch: 0,
            again: 0,
            ways: Vec::with_capacity(WAYS + 1),
            index: vec![0; PLACES].into(),
            secret: HashKey::random(),
            #[cfg(test)]
            spared: std::cell::Cell::new(0),
        }
    }

    /// Whether it is about the policy with this serial number.
    #[inline]
    pub(super) fn is_of(&self, serial: u64) -> bool {
        self.serial == serial
    }

    /// What flows that are judged now carry.
    pub(super) fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Begins anew for the policy `serial`; every flow must be judged again if the policy `rematched`
    /// is newer than the one before. If the epochs are used up, calls `renumber` with what becomes of
    /// each.
    #[cold]
    pub(super) fn turn(
        &mut self,
        serial: u64,
        rematched: u64,
        renumber: impl FnOnce(&dyn Fn(u16) -> u16),
    ) {
        if self.epoch == u16::MAX {
            let again = self.again;
            renumber(&|epoch| u16::from(epoch >= again));
            self.again = u16::from(again > 0);
            self.epoch = 1;
        }
        self.epoch += 1;
        if rematched > self.serial {
            self.again = self.epoch;
        }
        self.serial = serial;
        if self.ways.len() > 1 {
            self.index.fill(0);
        }
        self.ways.clear();
    }

    /// Whether a flow that was judged in `epoch` must be judged again.
    #[inline]
    pub(super) fn is_due(&self, epoch: u16) -> bool {
        epoch < self.again
    }

    /// The way with this number, if packets of this kind go it.
    #[inline]
    pub(super) fn recall(&self, judged: u16, verdict: u16, kind: Kind) -> Option<&Way> {
        if verdict == 0 || judged != self.epoch {
            return None;
        }
        let way = self.ways.get(usize::from(verdict))?;
        if way.kind != kind {
            return None;
        }
        #[cfg(test)]
        self.spared.set(self.spared.get() + 1);
        Some(way)
    }

    /// The number of a way; 0 if no more can be kept.
    pub(super) fn learn(&mut self, way: Way) -> u16 {
        let mut place = self.hash(&way);
        loop {
            match self.index[place % PLACES] {
                0 => break,
                known if self.ways[usize::from(known)] == way => return known,
                _ => place += 1,
            }
        }
        if self.ways.len() > WAYS {
            return 0;
        }
        if self.ways.is_empty() {
            self.ways.push(way.clone());
        }
        let number = self.ways.len() as u16;
        self.ways.push(way);
        self.index[place % PLACES] = number;
        number
    }

    fn hash(&self, way: &Way) -> usize {
        let Kind {
            state,
            dir,
            iif,
            vlan,
        } = way.kind;
        let kind = u64::from(vlan) << 24
            | u64::from(iif.0) << 16
            | u64::from(dir as u8) << 8
            | u64::from(state as u8);
        let mix = |hash, word| self.secret.hash2(hash, word);
        let steps = way.steps.iter().map(|step| u64::from(step.0));
        steps.fold(kind, mix) as usize
    }
}
