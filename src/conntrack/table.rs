//! The flows of one family in one shard: index, entries, free list, timer wheels.
//!
//! Life of an entry: [`Table::insert`] takes it from the free list, indexes it and arms its
//! timer; [`Table::refresh`] moves its deadline; [`Table::remove`] (or [`Table::expire`], when
//! the deadline has passed) takes it out of the wheel and the index, wipes its key and gives it
//! back. All memory is reserved at the start, and taken then by [`Table::populate`] or else as it
//! is first touched. Owned and used by one worker.

use super::entry::{Core, Entry, LastSegment};
use super::index::Index;
use super::tuple::Key;
use super::types::proto;
use super::wheel::{Due, TURN, Wheel};
use crate::base::cpu::prefetch;
use crate::base::hash::HashKey;
use crate::base::slab::Slab;
use crate::base::time::{Span, Ticks};
use std::io;

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
#[inline]
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
    entries: Slab<Entry<K>>,
    /// First free entry, as index + 1; entries from `fresh` on were never used.
    free: u32,
    fresh: u32,
    /// Entries in use, for each wheel.
    lens: [u32; 3],
    /// TCP, UDP, the rest.
    wheels: [Wheel; 3],
}

impl<K: Key> Table<K> {
    /// A table for `capacity` flows.
    ///
    /// # Errors
    /// If the memory is not to be had.
    pub fn new(capacity: u32, secret: HashKey, now: Ticks) -> io::Result<Self> {
        Ok(Self {
            secret,
            index: Index::new(capacity as usize)?,
            entries: Slab::new(capacity as usize)?,
            free: 0,
            fresh: 0,
            lens: [0; 3],
            wheels: [0, 1, 2].map(|class| Wheel::new(class, now)),
        })
    }

    /// Takes the memory of the index and of the first `count` entries now.
    pub fn populate(&mut self, count: u32) {
        self.index.populate();
        self.entries.populate(count as usize);
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

    /// Whether an entry is free.
    pub fn has_room(&self) -> bool {
        self.free != 0 || (self.fresh as usize) < self.entries.len()
    }

    /// Bytes that the table reserves.
    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.entries.bytes()
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

    /// Second stage: asks for the entry that the bucket names, and returns it for
    /// [`Table::entry_if`]; `None` if the home bucket names none.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) -> Option<u32> {
        let candidate = self.index.candidate(hash)?;
        let entry = self.entries.get(candidate as usize)?;
        prefetch(entry);
        prefetch(&entry.rest);
        Some(candidate)
    }

    /// The entry that an earlier stage found, if it is that of `key`: an entry loses its key when
    /// it is freed, so what happened between the stages cannot deceive.
    #[inline(always)]
    pub fn entry_if(&mut self, entry: u32, key: &K) -> Option<&mut Entry<K>> {
        let entry = self.entries.get_mut(entry as usize)?;
        (entry.key == *key).then_some(entry)
    }

    /// The entry with `key`.
    #[inline]
    pub fn find(&self, key: &K, hash: u64) -> Option<u32> {
        self.index
            .find(hash, |entry| self.entries[entry as usize].key == *key)
    }

    /// An entry.
    #[inline]
    pub fn entry(&self, entry: u32) -> &Entry<K> {
        &self.entries[entry as usize]
    }

    /// An entry, to write. The deadline is moved by [`Table::refresh`] only.
    #[inline]
    pub fn entry_mut(&mut self, entry: u32) -> &mut Entry<K> {
        &mut self.entries[entry as usize]
    }

    /// Entries whose home, or a bucket just behind it, is `distance` buckets after that of `hash`.
    pub fn near(&self, hash: u64, distance: usize) -> impl Iterator<Item = u32> {
        self.index.near(hash, distance)
    }

    /// Adds a flow with `key`, which must not be there; `core.deadline` is its timer.
    ///
    /// # Errors
    /// If there is no entry, or no room in the index, for it.
    pub fn insert(
        &mut self,
        key: K,
        hash: u64,
        core: &Core,
        last: &LastSegment,
        now: Ticks,
    ) -> Result<u32, InsertError> {
        let recycled = self.free != 0;
        let at = if recycled { self.free - 1 } else { self.fresh };
        let Some(entry) = self.entries.get_mut(at as usize) else {
            return Err(InsertError::Full);
        };
        if !self.index.insert(hash, at) {
            return Err(InsertError::LongRun);
        }
        if recycled {
            self.free = entry.rest.links.next;
        } else {
            self.fresh += 1;
        }
        let class = class(key.proto());
        self.lens[usize::from(class)] += 1;
        entry.key = key;
        entry.core = *core;
        entry.rest.last = *last;
        entry.rest.created = now;
        entry.rest.account = Default::default();
        entry.rest.mark = 0;
        entry.rest.links.counted = 0;
        self.wheels[usize::from(class)].arm(&mut self.entries, at, core.deadline);
        Ok(at)
    }

    /// Lets `entry` live for `span` from `now`. The timer follows by itself, unless the deadline
    /// moved forward into the wheel's present turn.
    #[inline(always)]
    pub fn refresh(&mut self, entry: u32, now: Ticks, span: Span) {
        let deadline = now.plus(span);
        let flow = &mut self.entries[entry as usize];
        let old = std::mem::replace(&mut flow.core.deadline, deadline);
        if span < TURN && !deadline.reached(old) {
            self.hasten(entry, deadline);
        }
    }

    #[cold]
    fn hasten(&mut self, entry: u32, deadline: Ticks) {
        let class = self.entries[entry as usize].rest.links.wheel();
        self.wheels[class].hasten(&mut self.entries, entry, deadline);
    }

    /// Takes a flow out.
    pub fn remove(&mut self, entry: u32) {
        let class = self.entries[entry as usize].rest.links.wheel();
        self.wheels[class].disarm(&mut self.entries, entry);
        let flow = &mut self.entries[entry as usize];
        release(&mut self.index, &self.secret, flow, entry);
        flow.rest.links.next = self.free;
        self.free = entry + 1;
        self.lens[class] -= 1;
    }

    /// Ends the flows whose deadlines passed by `now`, looking at most at `budget` entries;
    /// `ending` sees each before it goes. Returns how many ended.
    pub fn expire(
        &mut self,
        now: Ticks,
        budget: usize,
        mut ending: impl FnMut(u32, &Entry<K>),
    ) -> u32 {
        let before = self.len();
        let mut left = budget;
        for (class, wheel) in self.wheels.iter_mut().enumerate() {
            left -= wheel.advance(now, &mut self.entries, left, |entries, at, next| {
                // Flows that end were not touched for long: their lines are far away. Of the next
                // one the bucket is asked for, of the one behind it the entry.
                if let Some(next) = next {
                    let next = &entries[next as usize];
                    self.index.prefetch(next.key.hash(&self.secret));
                    if let Some(later) = next.rest.links.next.checked_sub(1) {
                        let later = &entries[later as usize];
                        prefetch(later);
                        prefetch(&later.rest);
                    }
                }
                let entry = &mut entries[at as usize];
                if !now.reached(entry.core.deadline) {
                    return Due::Lives(entry.core.deadline);
                }
                ending(at, entry);
                release(&mut self.index, &self.secret, entry, at);
                entry.rest.links.next = self.free;
                self.free = at + 1;
                self.lens[class] -= 1;
                Due::Ended
            });
        }
        before - self.len()
    }

    /// The entries from `start` on that are in use, at most `scan` looked at; and where to go on.
    pub fn scan(&self, start: u32, scan: u32) -> (impl Iterator<Item = u32>, Option<u32>) {
        let end = self.fresh.min(start.saturating_add(scan));
        let used = (start..end).filter(|entry| self.entries[*entry as usize].key.in_use());
        (used, (end < self.fresh).then_some(end))
    }
}

/// Takes an entry out of the index and wipes its key, so that nothing finds it by an old probe.
fn release<K: Key>(index: &mut Index, secret: &HashKey, flow: &mut Entry<K>, entry: u32) {
    index.remove(flow.key.hash(secret), entry);
    flow.key = K::new_zeroed();
}
