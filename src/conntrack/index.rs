//! The index of a flow table: buckets of one cache line with ten 16-bit tags and the entries'
//! 32-bit indexes. A bucket that is full sends further entries to the next one and counts them,
//! so that a lookup goes on exactly while it must.
//!
//! Owned and used by one worker.

use crate::base::cpu::{equal_lanes, prefetch};
use crate::base::slab::Slab;
use std::io;
use zerocopy::FromZeros;

const WAYS: usize = 10;
/// Buckets that an insert may pass before it gives up. At half load the longest run seen with
/// random keys is under ten; a longer one means that the hash secret leaked.
const MAX_RUN: usize = 64;

#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C, align(64))]
struct Bucket {
    /// Upper 16 bits of the hash, never 0; 0 marks a free way.
    tags: [u16; WAYS],
    /// Entries that passed this bucket because it was full.
    passed: u16,
    reserved: u16,
    entries: [u32; WAYS],
}

impl Bucket {
    /// Ways whose tag is `tag`, as bits.
    #[inline(always)]
    fn matches(&self, tag: u16) -> u32 {
        let [lanes @ .., a, b] = self.tags;
        equal_lanes(lanes, tag) | u32::from(a == tag) << 8 | u32::from(b == tag) << 9
    }
}

/// The lowest way in `bits`, which are not all zero; clamped so that no bounds check is left.
#[inline(always)]
fn lowest(bits: u32) -> usize {
    (bits.trailing_zeros() as usize).min(WAYS - 1)
}

/// The buckets.
#[derive(Debug)]
pub struct Index {
    buckets: Slab<Bucket>,
}

#[inline(always)]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}

impl Index {
    /// An index for `entries` entries, at most half full then.
    ///
    /// # Errors
    /// If the memory is not to be had.
    pub fn new(entries: usize) -> io::Result<Self> {
        let buckets = (entries * 2).div_ceil(WAYS).max(1);
        Ok(Self {
            buckets: Slab::new(buckets)?,
        })
    }

    /// Takes all memory now.
    pub fn populate(&mut self) {
        self.buckets.populate(usize::MAX);
    }

    /// Bytes that it occupies.
    pub fn bytes(&self) -> usize {
        self.buckets.bytes()
    }

    /// The home bucket of `hash`: the lower half times the number of buckets, without a division.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        (((hash & 0xffff_ffff) * self.buckets.len() as u64) >> 32) as usize
    }

    /// The bucket behind `at`.
    #[inline(always)]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() {
            0
        } else {
            at + 1
        }
    }

    /// Buckets that one entry may be away from its home.
    fn longest_run(&self) -> usize {
        MAX_RUN.min(self.buckets.len() - 1)
    }

    /// The entries in the bucket that is `distance` behind the home of `hash`.
    pub fn near(&self, hash: u64, distance: usize) -> impl Iterator<Item = u32> {
        let at = (self.home(hash) + distance) % self.buckets.len();
        let Bucket { tags, entries, .. } = self.buckets[at];
        let used = tags.into_iter().zip(entries);
        used.filter_map(|(tag, entry)| (tag != 0).then_some(entry))
    }

    /// Asks for the home bucket of `hash`.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[self.home(hash)]);
    }

    /// The first entry in the home bucket whose tag fits: the one that is nearly always meant.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<u32> {
        let bucket = &self.buckets[self.home(hash)];
        let bits = bucket.matches(tag(hash));
        (bits != 0).then(|| bucket.entries[lowest(bits)])
    }

    /// The entry with `hash` for which `is_it` says yes.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        for _ in 0..=MAX_RUN {
            let bucket = &self.buckets[at];
            let mut bits = bucket.matches(tag(hash));
            while bits != 0 {
                let entry = bucket.entries[lowest(bits)];
                if is_it(entry) {
                    return Some(entry);
                }
                bits &= bits - 1;
            }
            if bucket.passed == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Adds `entry`, which must not be there. `false` if too many buckets in a row are full.
    pub fn insert(&mut self, hash: u64, entry: u32) -> bool {
        let home = self.home(hash);
        let mut at = home;
        for run in 0..=self.longest_run() {
            let free = self.buckets[at].matches(0);
            if free != 0 {
                let way = lowest(free);
                self.buckets[at].tags[way] = tag(hash);
                self.buckets[at].entries[way] = entry;
                self.pass(home, run, 1);
                return true;
            }
            at = self.after(at);
        }
        false
    }

    /// Counts an entry that passed the first `run` buckets from `home` on, or counts it no more.
    fn pass(&mut self, home: usize, run: usize, change: i16) {
        let mut at = home;
        for _ in 0..run {
            let passed = &mut self.buckets[at].passed;
            *passed = passed.wrapping_add_signed(change);
            at = self.after(at);
        }
    }

    /// Removes `entry`, which was inserted with `hash`.
    pub fn remove(&mut self, hash: u64, entry: u32) {
        let home = self.home(hash);
        let mut at = home;
        for run in 0..=self.longest_run() {
            let bucket = &mut self.buckets[at];
            let mut bits = bucket.matches(tag(hash));
            while bits != 0 {
                let way = lowest(bits);
                if bucket.entries[way] == entry {
                    bucket.tags[way] = 0;
                    self.pass(home, run, -1);
                    return;
                }
                bits &= bits - 1;
            }
            at = self.after(at);
        }
        debug_assert!(false, "entry {entry} was not in the index");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_bucket_is_a_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    proptest! {
        /// Inserts and removals in any order, with hashes that collide a lot, against a map.
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0u32..200, any::<bool>()), 1..600)) {
            let mut index = Index::new(300).unwrap();
            let hash = |entry: u32| u64::from(entry % 7) | u64::from(entry % 3) << 48;
            let mut model = BTreeMap::new();
            for (entry, add) in steps {
                if add && !model.contains_key(&entry) {
                    prop_assert!(index.insert(hash(entry), entry));
                    model.insert(entry, ());
                } else if !add && model.remove(&entry).is_some() {
                    index.remove(hash(entry), entry);
                }
                for entry in 0..200 {
                    let found = index.find(hash(entry), |found| found == entry);
                    prop_assert_eq!(found.is_some(), model.contains_key(&entry));
                }
            }
            for entry in model.keys() {
                index.remove(hash(*entry), *entry);
            }
            prop_assert!(index.buckets.iter().all(|b| b.passed == 0 && b.tags == [0; WAYS]));
        }
    }

    #[test]
    fn refuses_when_the_run_is_full() {
        let mut index = Index::new(20).unwrap();
        let room = index.buckets.len() * WAYS;
        for entry in 0..room as u32 {
            assert!(index.insert(0, entry));
        }
        assert!(!index.insert(0, room as u32));
        assert!(index.find(0, |entry| entry == room as u32 - 1).is_some());
    }
}
