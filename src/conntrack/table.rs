//! The flows of one family in one shard: index, entries, free list, timer wheels.
//!
//! Life of an entry: [`Table::insert`] takes it from the free list, indexes it and arms its
//! timer; [`Table::refresh`] moves its deadline; [`Table::remove`] (or [`Table::expire`], when
//! the deadline has passed) takes it out of the wheel and the index, wipes its key and gives it
//! back. All memory is taken at the start. Owned and used by one worker.

use super::entry::{Cold, Core, Hot, LastSegment};
use super::index::Index;
use super::tuple::Key;
use super::types::proto;
use super::wheel::{Due, TURN, Wheel};
use crate::base::cpu::prefetch;
use crate::base::hash::HashKey;
use crate::base::time::{Span, Ticks};
use zerocopy::FromZeros;

/// Why a flow could not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// Every entry is in use.
    #[error("the flow table is full")]
    Full,
    /// Too many buckets in a row are full, although entries are free.
    #[error("the flow index has no room near this flow's bucket")]
    LongRun,
}

/// Which wheel a protocol's flows hang in.
fn class(proto: u8) -> u8 {
    match proto {
        proto::TCP => 0,
        proto::UDP | proto::UDPLITE => 1,
        _ => 2,
    }
}

/// The flow table of one family.
#[derive(Debug)]
pub struct Table<K: Key> {
    secret: HashKey,
    index: Index,
    hot: Vec<Hot<K>>,
    cold: Vec<Cold>,
    /// First free entry, as index + 1; entries from `fresh` on were never used.
    free: u32,
    fresh: u32,
    /// Entries in use, for each wheel.
    lens: [u32; 3],
    /// TCP, UDP, the rest.
    wheels: [Wheel; 3],
}

impl<K: Key> Table<K> {
    /// A table for `limit` flows.
    pub fn new(limit: u32, secret: HashKey, now: Ticks) -> Self {
        #[allow(clippy::expect_used)] // at start, where memory that is not there ends the start
        let (hot, cold) = (
            Hot::new_vec_zeroed(limit as usize).expect("memory for the flow table"),
            Cold::new_vec_zeroed(limit as usize).expect("memory for the flow table"),
        );
        Self {
            secret,
            index: Index::new(limit as usize),
            hot,
            cold,
            free: 0,
            fresh: 0,
            lens: [0; 3],
            wheels: [0, 1, 2].map(|class| Wheel::new(class, now)),
        }
    }

    /// Flows in the table.
    pub fn len(&self) -> u32 {
        self.lens.iter().sum()
    }

    /// Flows in the table: TCP, UDP, the rest.
    pub fn lens(&self) -> [u32; 3] {
        self.lens
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the table occupies.
    pub fn bytes(&self) -> usize {
        self.index.bytes() + size_of_val(&*self.hot) + size_of_val(&*self.cold)
    }

    /// The hash of `key` in this table.
    #[inline]
    pub fn hash(&self, key: &K) -> u64 {
        key.hash(&self.secret)
    }

    /// First stage of a lookup: asks for the bucket.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Second stage: asks for the entry that the bucket names.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        if let Some(entry) = self.index.candidate(hash)
            && let Some(hot) = self.hot.get(entry as usize)
            && let Some(cold) = self.cold.get(entry as usize)
        {
            prefetch(hot);
            prefetch(cold);
        }
    }

    /// The entry with `key`.
    #[inline]
    pub fn find(&self, key: &K, hash: u64) -> Option<u32> {
        self.index
            .find(hash, |entry| self.hot[entry as usize].key == *key)
    }

    /// The hot line of `entry`.
    #[inline]
    pub fn hot(&self, entry: u32) -> &Hot<K> {
        &self.hot[entry as usize]
    }

    /// The cold line of `entry`.
    #[inline]
    pub fn cold(&self, entry: u32) -> &Cold {
        &self.cold[entry as usize]
    }

    /// Both lines of `entry`, to write.
    #[inline]
    pub fn lines(&mut self, entry: u32) -> (&mut Core, &mut Cold) {
        (
            &mut self.hot[entry as usize].core,
            &mut self.cold[entry as usize],
        )
    }

    /// Adds a flow with `key`, which must not be there; `core.deadline` is its timer.
    pub fn insert(
        &mut self,
        key: K,
        hash: u64,
        core: Core,
        last: LastSegment,
        now: Ticks,
    ) -> Result<u32, InsertError> {
        let recycled = self.free != 0;
        let entry = if recycled { self.free - 1 } else { self.fresh };
        if entry as usize >= self.hot.len() {
            return Err(InsertError::Full);
        }
        if !self.index.insert(hash, entry) {
            return Err(InsertError::LongRun);
        }
        if recycled {
            self.free = self.cold[entry as usize].links.next;
        } else {
            self.fresh += 1;
        }
        let class = class(key.proto());
        self.lens[usize::from(class)] += 1;
        self.hot[entry as usize] = Hot { key, core };
        let cold = &mut self.cold[entry as usize];
        cold.last = last;
        cold.created = now;
        cold.mark = 0;
        self.wheels[usize::from(class)].arm(&mut self.cold, entry, core.deadline);
        Ok(entry)
    }

    /// Lets `entry` live for `span` from `now`. The timer follows by itself, unless the deadline
    /// moved forward into the wheel's present turn.
    #[inline]
    pub fn refresh(&mut self, entry: u32, now: Ticks, span: Span) {
        let deadline = now.plus(span);
        let hot = &mut self.hot[entry as usize];
        let old = std::mem::replace(&mut hot.core.deadline, deadline);
        if span < TURN && !deadline.reached(old) {
            let class = class(hot.key.proto());
            self.wheels[usize::from(class)].hasten(&mut self.cold, entry, deadline);
        }
    }

    /// Takes a flow out.
    pub fn remove(&mut self, entry: u32) {
        let class = self.cold[entry as usize].links.class;
        self.wheels[usize::from(class)].disarm(&mut self.cold, entry);
        release(
            &mut self.index,
            &self.secret,
            &mut self.hot[entry as usize],
            entry,
        );
        self.cold[entry as usize].links.next = self.free;
        self.free = entry + 1;
        self.lens[usize::from(class)] -= 1;
    }

    /// Ends the flows whose deadlines passed by `now`, looking at most at `budget` entries.
    /// Returns how many ended.
    pub fn expire(&mut self, now: Ticks, budget: usize) -> u32 {
        let before = self.len();
        let mut left = budget;
        for (class, wheel) in self.wheels.iter_mut().enumerate() {
            left -= wheel.advance(now, &mut self.cold, left, |cold, entry| {
                let hot = &mut self.hot[entry as usize];
                if !now.reached(hot.core.deadline) {
                    return Due::Lives(hot.core.deadline);
                }
                release(&mut self.index, &self.secret, hot, entry);
                cold[entry as usize].links.next = self.free;
                self.free = entry + 1;
                self.lens[class] -= 1;
                Due::Ended
            });
        }
        before - self.len()
    }

    /// The entries from `start` on that are in use, at most `scan` looked at; and where to go on.
    pub fn scan(&self, start: u32, scan: u32) -> (impl Iterator<Item = u32>, Option<u32>) {
        let end = self.fresh.min(start.saturating_add(scan));
        let used = (start..end).filter(|entry| self.hot[*entry as usize].key.in_use());
        (used, (end < self.fresh).then_some(end))
    }
}

/// Takes an entry out of the index and wipes its key, so that nothing finds it by an old probe.
fn release<K: Key>(index: &mut Index, secret: &HashKey, hot: &mut Hot<K>, entry: u32) {
    index.remove(hot.key.hash(secret), entry);
    hot.key = K::new_zeroed();
}
