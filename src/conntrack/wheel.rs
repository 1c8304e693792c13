//! A timer wheel for one class of flows, re-armed lazily.
//!
//! A packet writes only the deadline in the flow's hot line; the entry stays in the slot where it
//! hangs. When that slot comes due the deadline is looked at: passed, the flow ends; not passed,
//! the entry moves to the slot of its deadline, or to the farthest one. Only a deadline that moves
//! *before* the slot where the entry hangs must move the entry at once ([`Wheel::hasten`]); since
//! a turn of the wheel is shorter than the timeouts of established flows, that happens on changes
//! of state and not on data.
//!
//! Lists run through the entries, so a wheel allocates nothing after its start.
//! Owned and used by one worker.

use super::entry::Links;
use crate::base::time::{Span, Ticks};

/// Slots of one wheel.
const SLOTS: u32 = 1024;
/// Ticks of one slot: 256 ms.
const SLOT_TICKS: u32 = 256;
/// What one turn covers: 262 s.
pub const TURN: Span = Span(SLOTS * SLOT_TICKS);
/// How late after its deadline a flow may end, when expiry is called often enough.
pub const RESOLUTION: Span = Span(SLOT_TICKS);

/// What is to happen to an entry whose slot came due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Its time is over; the callback has taken care of it.
    Ended,
    /// It lives until then.
    Lives(Ticks),
}

/// What can hang in a wheel.
pub trait Linked {
    /// Its place there.
    fn links(&self) -> &Links;
    /// The same, to change.
    fn links_mut(&mut self) -> &mut Links;
}

/// The slots of one wheel; `class` is what its entries carry in their links.
#[derive(Debug)]
pub struct Wheel {
    class: u8,
    /// First entry of each slot, as index + 1.
    heads: Box<[u32]>,
    /// The slot time (ticks / SLOT_TICKS, wrapping) up to which everything is done.
    done: u32,
}

/// The slot time of a tick. Slot times wrap with the ticks (2^32 is a multiple of SLOT_TICKS).
const fn slot_time(ticks: Ticks) -> u32 {
    ticks.0 / SLOT_TICKS
}

/// Slot times wrap here.
const SLOT_TIMES: u32 = (u32::MAX / SLOT_TICKS) + 1;

/// Slots from `from` forward to `to`, at most half the range.
const fn ahead(from: u32, to: u32) -> u32 {
    let distance = to.wrapping_sub(from) % SLOT_TIMES;
    if distance > SLOT_TIMES / 2 {
        0
    } else {
        distance
    }
}

impl Wheel {
    /// An empty wheel that starts at `now`.
    pub fn new(class: u8, now: Ticks) -> Self {
        Self {
            class,
            heads: vec![0; SLOTS as usize].into(),
            done: slot_time(now),
        }
    }

    /// Hangs `entry` where `deadline` falls, or a turn ahead if that is farther.
    pub fn arm<E: Linked>(&mut self, entries: &mut [E], entry: u32, deadline: Ticks) {
        // The slot after the deadline's: when it comes due, the deadline has passed.
        let wait = ahead(self.done, slot_time(deadline)) + 1;
        let slot = (self.done.wrapping_add(wait.min(SLOTS - 1)) % SLOTS) as u16;
        let head = std::mem::replace(&mut self.heads[usize::from(slot)], entry + 1);
        let links = entries[entry as usize].links_mut();
        links.next = head;
        links.prev = 0;
        links.slot = slot;
        links.set_wheel(self.class);
        if head != 0 {
            entries[head as usize - 1].links_mut().prev = entry + 1;
        }
    }

    /// Takes `entry` out of its slot.
    pub fn disarm<E: Linked>(&mut self, entries: &mut [E], entry: u32) {
        let links = *entries[entry as usize].links();
        match links.prev {
            0 => self.heads[usize::from(links.slot)] = links.next,
            prev => entries[prev as usize - 1].links_mut().next = links.next,
        }
        if links.next != 0 {
            entries[links.next as usize - 1].links_mut().prev = links.prev;
        }
    }

    /// Moves `entry` forward if it hangs in a slot later than `deadline`'s.
    pub fn hasten<E: Linked>(&mut self, entries: &mut [E], entry: u32, deadline: Ticks) {
        let at = u32::from(entries[entry as usize].links().slot);
        let hangs = at.wrapping_sub(self.done % SLOTS) % SLOTS;
        if ahead(self.done, slot_time(deadline)) + 1 < hangs {
            self.disarm(entries, entry);
            self.arm(entries, entry, deadline);
        }
    }

    /// Looks at the entries whose slots came due by `now`, at most `budget` of them, and returns
    /// how many it looked at. What is left is looked at in the next call. `due` is told of an
    /// entry, and which is the next, so that what that needs can be asked for.
    pub fn advance<E: Linked>(
        &mut self,
        now: Ticks,
        entries: &mut [E],
        budget: usize,
        mut due: impl FnMut(&mut [E], u32, Option<u32>) -> Due,
    ) -> usize {
        let mut looked = 0;
        let target = slot_time(now);
        // After a long sleep one turn visits every slot; more would only repeat it.
        let behind = ahead(self.done, target);
        if behind > SLOTS {
            self.done = target.wrapping_sub(SLOTS) % SLOT_TIMES;
        }
        while ahead(self.done, target) > 0 {
            let next = self.done.wrapping_add(1) % SLOT_TIMES;
            let slot = (next % SLOTS) as usize;
            while self.heads[slot] != 0 {
                if looked == budget {
                    return looked;
                }
                looked += 1;
                let entry = self.heads[slot] - 1;
                self.disarm(entries, entry);
                let following = self.heads[slot].checked_sub(1);
                if let Due::Lives(deadline) = due(entries, entry, following) {
                    // Never back into the slot at hand, which would not end then.
                    let before = std::mem::replace(&mut self.done, next);
                    self.arm(entries, entry, deadline);
                    self.done = before;
                }
            }
            self.done = next;
        }
        looked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    impl Linked for Links {
        fn links(&self) -> &Links {
            self
        }

        fn links_mut(&mut self) -> &mut Links {
            self
        }
    }

    /// A wheel over entries that have only deadlines, driven like a shard drives it.
    struct Bench {
        wheel: Wheel,
        links: Vec<Links>,
        deadline: Vec<Option<Ticks>>,
    }

    impl Bench {
        fn new(entries: usize, now: Ticks) -> Self {
            let links = vec![Links::new_zeroed(); entries];
            Self {
                wheel: Wheel::new(0, now),
                links,
                deadline: vec![None; entries],
            }
        }

        fn start(&mut self, entry: u32, deadline: Ticks) {
            self.deadline[entry as usize] = Some(deadline);
            self.wheel.arm(&mut self.links, entry, deadline);
        }

        fn advance(&mut self, now: Ticks, budget: usize) -> Vec<u32> {
            let mut ended = Vec::new();
            let deadline = &mut self.deadline;
            self.wheel
                .advance(now, &mut self.links, budget, |_, entry, _| {
                    let at = deadline[entry as usize].unwrap();
                    if now.reached(at) {
                        deadline[entry as usize] = None;
                        ended.push(entry);
                        Due::Ended
                    } else {
                        Due::Lives(at)
                    }
                });
            ended
        }
    }

    proptest! {
        /// Deadlines from seconds to days, extended and shortened at random: no flow ends early,
        /// none later than the wheel's resolution.
        #[test]
        fn ends_on_time(
            seed in any::<u32>(),
            spans in prop::collection::vec(1u32..1_600_000, 1..40),
            changes in prop::collection::vec((0usize..40, 1u32..1_600_000), 0..40),
        ) {
            let mut now = Ticks(seed); // anywhere, the wrap included
            let mut bench = Bench::new(spans.len(), now);
            for (entry, span) in spans.iter().enumerate() {
                bench.start(entry as u32, now.plus(Span(*span)));
            }
            let mut changes = changes.into_iter();
            let mut alive = spans.len();
            while alive > 0 {
                now = now.plus(Span(200));
                for entry in bench.advance(now, usize::MAX) {
                    alive -= 1;
                    let _ = entry;
                }
                for at in bench.deadline.iter().flatten() {
                    let late = at.until(now);
                    prop_assert!(!now.reached(*at) || late.0 <= RESOLUTION.0 + 200, "{late:?}");
                }
                if let Some((entry, span)) = changes.next() {
                    let entry = entry % spans.len();
                    if bench.deadline[entry].is_some() {
                        let deadline = now.plus(Span(span));
                        bench.deadline[entry] = Some(deadline);
                        bench.wheel.hasten(&mut bench.links, entry as u32, deadline);
                    }
                }
            }
        }
    }

    #[test]
    fn work_is_bounded_and_goes_on() {
        let mut bench = Bench::new(1000, Ticks(0));
        for entry in 0..1000 {
            bench.start(entry, Ticks(100));
        }
        let mut ended = 0;
        for _ in 0..4 {
            let batch = bench.advance(Ticks(10_000), 256).len();
            assert!(batch <= 256);
            ended += batch;
        }
        assert_eq!(ended, 1000);
    }

    #[test]
    fn a_long_sleep_costs_one_turn() {
        let mut bench = Bench::new(2, Ticks(0));
        bench.start(0, Ticks(100));
        bench.start(1, Ticks(0).plus(Span::secs(432_000)));
        let after = Ticks(0).plus(Span::secs(100_000));
        assert_eq!(bench.advance(after, usize::MAX), [0]);
        let after = Ticks(0).plus(Span::secs(432_001));
        assert_eq!(bench.advance(after, usize::MAX), [1]);
    }
}
