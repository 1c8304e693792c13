//! Of each drop reason the last packet: what `shardwall drops` shows beside the count.
//!
//! Life-cycle: a worker puts one in at most once a second and reason, so that a flood costs it a load
//! and a comparison a packet; the control thread takes it out when it looks. Concurrency: a queue of one
//! for each worker and reason, in which a newer example replaces an older one; nobody waits.

use crate::base::time::Now;
use crate::conntrack::types::CtState;
use crate::conntrack::why::Why;
use crate::pipeline::{By, DropReason};
use crate::policy::PortId;
use crate::wire::Parsed;
use crossbeam::queue::ArrayQueue;

/// Nanoseconds between two examples.
const PAUSE: u64 = 1_000_000_000;

/// A packet that was dropped.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// When.
    pub at: Now,
    /// Number of the policy in force.
    pub generation: u32,
    /// Where it came in; where it was to leave, if `leaving`.
    pub port: PortId,
    /// It was judged before, and lost on its way out.
    pub leaving: bool,
    /// Its headers.
    pub packet: Parsed,
    /// Who decided.
    pub by: By,
    /// Its state, if the tracker saw it.
    pub state: Option<CtState>,
    /// Why it is INVALID, if it is.
    pub why: Option<Why>,
}

/// One worker's examples.
#[derive(Debug)]
pub struct Examples {
    slots: [ArrayQueue<Example>; DropReason::COUNT],
}

impl Default for Examples {
    fn default() -> Self {
        Self {
            slots: std::array::from_fn(|_| ArrayQueue::new(1)),
        }
    }
}

impl Examples {
    /// Keeps `example`; an older one is forgotten. Only the worker may call this.
    pub fn put(&self, reason: DropReason, example: Example) {
        self.slots[reason as usize].force_push(example);
    }

    /// The example of `reason` since this was last called.
    pub fn take(&self, reason: DropReason) -> Option<Example> {
        self.slots[reason as usize].pop()
    }
}

/// When a worker last gave an example of each reason.
#[derive(Debug, Default)]
pub struct Due([u64; DropReason::COUNT]);

impl Due {
    /// Whether it is time for one of `reason`; then it is given now.
    #[inline]
    pub fn is(&mut self, reason: DropReason, now: Now) -> bool {
        let last = &mut self.0[reason as usize];
        let due = now.nanos().saturating_sub(*last) >= PAUSE;
        if due {
            *last = now.nanos();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_and_reason() {
        let mut due = Due::default();
        let at = |millis: u64| Now::from_nanos(millis * 1_000_000);
        assert!(due.is(DropReason::Policy, at(1_000)));
        assert!(!due.is(DropReason::Policy, at(1_000)));
        assert!(due.is(DropReason::TxFull, at(1_500)));
        assert!(!due.is(DropReason::Policy, at(1_999)));
        assert!(due.is(DropReason::Policy, at(2_000)));
    }

    #[test]
    fn the_newer_example_stays() {
        let examples = Examples::default();
        for nanos in [1, 2] {
            let example = Example {
                at: Now::from_nanos(nanos),
                generation: 1,
                port: PortId(0),
                leaving: false,
                packet: Parsed::NOTHING,
                by: By::Nobody,
                state: None,
                why: None,
            };
            examples.put(DropReason::Policy, example);
        }
        assert!(examples.take(DropReason::NoPeer).is_none());
        let taken = examples.take(DropReason::Policy).unwrap();
        assert_eq!(taken.at, Now::from_nanos(2));
        assert!(examples.take(DropReason::Policy).is_none());
    }
}
