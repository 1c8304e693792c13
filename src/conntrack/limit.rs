//! How many flows there may be, and which go first when there are too many.
//!
//! The box has one [`Budget`]. Each shard holds a [`Purse`]: it takes room from the budget in small
//! lots and gives room back that it does not need, so shards with more flows than their share
//! borrow from the others, and a flow costs no atomic operation of its own.
//!
//! When there is no room for a new flow, [`victim`] looks for one that is [worth](Worth) less, in
//! a few buckets of the index; and the pressure is raised, under which every shard sweeps its
//! entries for such flows, a bounded piece each loop, until the box is below 95 %. Those are Linux's
//! rules (6.12 `early_drop`, `gc_worker`); unlike there one new flow ends one old flow, the nearest
//! to its end, and not all in a bucket.
//!
//! Beside how many flows there are, the budget keeps how many belong to each source, destination or
//! whatever else policy counts them by ([`Budget::tally`]; `connlimit`).
//!
//! The budget is shared by all workers (relaxed atomics: a bound, not an order); a purse belongs to
//! one.

use super::entry::{Entry, status};
use super::sctp;
use super::table::Table;
use super::tuple::Key;
use super::types::{SctpState, TcpState, proto};
use crate::base::hash::HashKey;
use crate::base::tally::Tally;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(not(shardwall_loom))]
use std::sync::atomic::{AtomicBool, AtomicU32};

#[cfg(shardwall_loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32};

/// Room that a purse takes or gives at a time, at most.
const LOT: u32 = 64;
/// Buckets that the search for a victim looks into.
const BUCKETS: usize = 8;

/// The flows that the box may have.
#[derive(Debug)]
pub struct Budget {
    max: u32,
    shards: u32,
    lot: u32,
    /// Room that purses hold, used or not.
    given: AtomicU32,
    pressure: AtomicBool,
    tally: Tally,
}

impl Budget {
    /// For `max` flows in `shards` shards.
    #[allow(clippy::expect_used)] // at start, where memory that is not there ends the start
    pub fn new(max: u32, shards: u32) -> Self {
        let shards = shards.max(1);
        // What lies unused in purses must not be much of a small budget.
        let lot = match shards {
            1 => max.max(1),
            _ => (max / (shards * 16)).clamp(1, LOT),
        };
        Self {
            max,
            shards,
            lot,
            given: AtomicU32::new(0),
            pressure: AtomicBool::new(false),
            // A flow may be in more than one count; few have a count of their own.
            tally: Tally::new(max as usize * 2, HashKey::random())
                .expect("memory for counts of flows"),
        }
    }

    /// How many flows there are by source, destination or whatever else policy counts them by.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Flows that each shard would have if they were even.
    pub fn share(&self) -> u32 {
        self.max.div_ceil(self.shards)
    }

    /// Flows that one shard must be able to hold: twice its share, as flows are never quite even.
    pub fn capacity(&self) -> u32 {
        self.share().saturating_mul(2).min(self.max)
    }

    /// Takes room for up to a lot of flows; 0 if there is none.
    fn take(&self) -> u32 {
        let mut granted = 0;
        let _ = self.given.fetch_update(Relaxed, Relaxed, |given| {
            granted = self.max.saturating_sub(given).min(self.lot);
            (granted > 0).then_some(given + granted)
        });
        granted
    }

    fn put(&self, room: u32) {
        let before = self.given.fetch_sub(room, Relaxed);
        if self.pressure.load(Relaxed) && !self.is_tight(before - room) {
            self.pressure.store(false, Relaxed);
        }
    }

    /// At 95 % and above.
    fn is_tight(&self, given: u32) -> bool {
        u64::from(given) * 20 >= u64::from(self.max) * 19
    }

    /// Says that a flow was refused: let every shard look for what can go.
    pub fn raise_pressure(&self) {
        if self.is_tight(self.given.load(Relaxed)) {
            self.pressure.store(true, Relaxed);
        }
    }

    /// Whether shards are to look for what can go.
    #[inline]
    pub fn under_pressure(&self) -> bool {
        self.pressure.load(Relaxed)
    }
}

/// A shard's part of the budget.
#[derive(Debug)]
pub struct Purse {
    budget: Arc<Budget>,
    /// Room taken from the budget that no flow uses.
    spare: u32,
}

impl Purse {
    /// An empty purse.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, spare: 0 }
    }

    /// The budget behind it.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Takes room for one flow.
    #[inline]
    pub fn take(&mut self) -> bool {
        if self.spare == 0 {
            self.spare = self.budget.take();
        }
        let any = self.spare > 0;
        self.spare -= u32::from(any);
        any
    }

    /// Puts the room of one flow back.
    #[inline]
    pub fn put(&mut self) {
        self.spare += 1;
        if self.spare >= 2 * self.budget.lot || self.budget.under_pressure() {
            self.give_back();
        }
    }

    /// Gives back all room that no flow uses.
    pub fn give_back(&mut self) {
        self.budget.put(std::mem::take(&mut self.spare));
    }
}

impl Drop for Purse {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// What a flow is worth when room is short, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Nobody answered.
    Unanswered,
    /// Answered, but not ASSURED.
    Answered,
    /// ASSURED TCP or SCTP that is closing; goes only under pressure.
    Closing,
    /// Stays.
    Kept,
}

impl Worth {
    /// The worth of a flow.
    #[inline]
    pub fn of<K: Key>(entry: &Entry<K>) -> Self {
        let core = &entry.core;
        let closing = match entry.key.proto() {
            proto::TCP => matches!(
                core.tcp_state,
                TcpState::FinWait
                    | TcpState::CloseWait
                    | TcpState::LastAck
                    | TcpState::TimeWait
                    | TcpState::Close
            ),
            proto::SCTP => matches!(
                sctp::state(core),
                SctpState::ShutdownSent | SctpState::ShutdownRecd | SctpState::ShutdownAckSent
            ),
            _ => false,
        };
        if !core.has(status::SEEN_REPLY) {
            Self::Unanswered
        } else if !core.has(status::ASSURED) {
            Self::Answered
        } else if closing {
            Self::Closing
        } else {
            Self::Kept
        }
    }
}

/// A flow that a new one with `hash` may take the place of: in the first of a few buckets that has
/// any, the one worth least, and among equals the nearest to its end.
pub fn victim<K: Key>(table: &Table<K>, hash: u64) -> Option<u32> {
    (0..BUCKETS).find_map(|distance| {
        table
            .near(hash, distance)
            .map(|at| (at, table.entry(at)))
            .filter(|(_, entry)| Worth::of(entry) < Worth::Closing)
            .min_by(|(_, a), (_, b)| {
                let end = || (a.core.deadline.0.wrapping_sub(b.core.deadline.0) as i32).cmp(&0);
                Worth::of(a).cmp(&Worth::of(b)).then_with(end)
            })
            .map(|(at, _)| at)
    })
}

#[cfg(all(test, not(shardwall_loom)))]
mod tests {
    use super::super::tuple::KeyV4;
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn one_shard_may_have_all_and_not_one_more() {
        let budget = Arc::new(Budget::new(100, 1));
        let mut purse = Purse::new(budget);
        assert_eq!((0..200).filter(|_| purse.take()).count(), 100);
        purse.put();
        assert!(purse.take());
        assert!(!purse.take());
    }

    #[test]
    fn shards_borrow_and_give_back() {
        let budget = Arc::new(Budget::new(1000, 4));
        let mut purses: Vec<Purse> = (0..4).map(|_| Purse::new(budget.clone())).collect();
        let [a, b, ..] = &mut purses[..] else {
            unreachable!()
        };
        let taken = (0..2000).filter(|_| a.take()).count();
        assert_eq!(taken, 1000, "one shard can have it all");
        assert!(!b.take());
        for _ in 0..500 {
            a.put();
        }
        let taken = (0..2000).filter(|_| b.take()).count();
        assert!(
            taken > 500 - 2 * 64,
            "{taken}: little lies in the other's purse"
        );
        drop(purses);
        assert_eq!(budget.given.load(Relaxed), 500 + taken as u32);
    }

    /// Threads that take, put and raise the pressure as they like: never more than there is, and at
    /// the end all of it is back and the pressure off.
    #[test]
    fn purses_of_many_threads_exceed_nothing_and_lose_nothing() {
        const MAX: u32 = 500;
        let budget = Arc::new(Budget::new(MAX, 4));
        let held = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (budget, held) = (budget.clone(), &held);
                scope.spawn(move || {
                    let mut purse = Purse::new(budget.clone());
                    let mut mine = 0;
                    for turn in 0..50_000u64 {
                        let random = (turn * 4 + thread).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                        if random % 16 < 9 {
                            if purse.take() {
                                assert!(held.fetch_add(1, Relaxed) < MAX);
                                mine += 1;
                            } else {
                                budget.raise_pressure();
                            }
                        } else if mine > 0 {
                            held.fetch_sub(1, Relaxed);
                            purse.put();
                            mine -= 1;
                        }
                        if random.is_multiple_of(64) && budget.under_pressure() {
                            purse.give_back();
                        }
                        assert!(budget.given.load(Relaxed) <= MAX);
                    }
                    for _ in 0..mine {
                        held.fetch_sub(1, Relaxed);
                        purse.put();
                    }
                });
            }
        });
        assert_eq!(budget.given.load(Relaxed), 0);
        assert!(!budget.under_pressure());
    }

    #[test]
    fn pressure_lasts_until_95_percent() {
        let budget = Arc::new(Budget::new(1000, 1));
        let mut purse = Purse::new(budget.clone());
        budget.raise_pressure();
        assert!(!budget.under_pressure(), "an empty box is not tight");
        while purse.take() {}
        budget.raise_pressure();
        for left in (900..1000).rev() {
            assert_eq!(budget.under_pressure(), left >= 950 - 1, "{left}");
            purse.put();
        }
    }

    #[test]
    fn worth_is_in_order() {
        let entry = |proto: u8, status: u8, state: TcpState| {
            let mut entry = Entry::<KeyV4>::new_zeroed();
            (entry.key, _) = KeyV4::of_ports((1, 2), (3, 4), proto, 0);
            entry.core.status = status;
            entry.core.tcp_state = state;
            entry
        };
        let kept = status::SEEN_REPLY | status::ASSURED;
        for (proto, status, state, worth) in [
            (proto::TCP, 0, TcpState::SynSent, Worth::Unanswered),
            (proto::TCP, 2, TcpState::SynRecv, Worth::Answered),
            (proto::TCP, kept, TcpState::Established, Worth::Kept),
            (proto::TCP, kept, TcpState::TimeWait, Worth::Closing),
            (
                proto::UDP,
                status::SEEN_REPLY,
                TcpState::None,
                Worth::Answered,
            ),
            (proto::UDP, kept, TcpState::None, Worth::Kept),
            (proto::SCTP, kept, TcpState::None, Worth::Kept),
        ] {
            assert_eq!(Worth::of(&entry(proto, status, state)), worth);
        }
    }
}

#[cfg(all(test, shardwall_loom))]
mod model {
    use super::*;
    use loom::thread;

    /// Two shards take the last room, and give it back.
    #[test]
    fn no_two_flows_have_the_same_room() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(3, 2));
            let (mut one, mut two) = (Purse::new(budget.clone()), Purse::new(budget.clone()));
            let takes = |purse: &mut Purse| u32::from(purse.take()) + u32::from(purse.take());
            let thread = thread::spawn(move || {
                let taken = takes(&mut one);
                (taken, one)
            });
            let ours = takes(&mut two);
            let (theirs, one) = thread.join().unwrap();
            assert_eq!(ours + theirs, 3, "all of it, once");
            assert_eq!(budget.given.load(Relaxed), 3);
            drop((one, two));
        });
    }

    /// One shard refuses a flow while another gives back all that it has: if the pressure stays on,
    /// then until the next sweep, and no longer.
    #[test]
    fn pressure_that_nothing_calls_for_ends_with_the_next_sweep() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(1, 2));
            let (mut one, mut two) = (Purse::new(budget.clone()), Purse::new(budget.clone()));
            assert!(one.take());
            let thread = thread::spawn(move || one.put());
            if !two.take() {
                budget.raise_pressure();
            } else {
                two.put();
            }
            thread.join().unwrap();
            assert!(two.take(), "all came back");
            two.put();
            two.give_back();
            assert_eq!(budget.given.load(Relaxed), 0);
            assert!(!budget.under_pressure());
        });
    }
}
