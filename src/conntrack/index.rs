//! The index of a flow table: buckets of one cache line with ten 16-bit tags and the entries'
//! 32-bit indexes. A bucket that is full sends further entries to the next one and counts them,
//! so that a lookup goes on exactly while it must.
//!
//! Owned and used by one worker.

use crate::base::cpu::{equal_lanes, prefetch};
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
    buckets: Box<[Bucket]>,
    mask: usize,
}

#[inline(always)]
fn tag(hash: u64) -> u16 {
    ((hash >> 48) as u16).max(1)
}

impl Index {
    /// An index for `entries` entries, at most half full then.
    pub fn new(entries: usize) -> Self {
        let buckets = (entries * 2).div_ceil(WAYS).next_power_of_two();
        let lines = Bucket::new_vec_zeroed(buckets);
        #[allow(clippy::expect_used)] // at start, where memory that is not there ends the start
        let buckets = lines.expect("memory for the flow index");
        Self {
            mask: buckets.len() - 1,
            buckets: buckets.into(),
        }
    }

    /// Bytes that it occupies.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Asks for the home bucket of `hash`.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.buckets[hash as usize & self.mask]);
    }

    /// The first entry in the home bucket whose tag fits: the one that is nearly always meant.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<u32> {
        let bucket = &self.buckets[hash as usize & self.mask];
        let bits = bucket.matches(tag(hash));
        (bits != 0).then(|| bucket.entries[lowest(bits)])
    }

    /// The entry with `hash` for which `is_it` says yes.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = hash as usize & self.mask;
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
            at = (at + 1) & self.mask;
        }
        None
    }

    /// Adds `entry`, which must not be there. `false` if too many buckets in a row are full.
    pub fn insert(&mut self, hash: u64, entry: u32) -> bool {
        let home = hash as usize & self.mask;
        for run in 0..=MAX_RUN.min(self.mask) {
            let at = (home + run) & self.mask;
            let free = self.buckets[at].matches(0);
            if free == 0 {
                continue;
            }
            for passed in 0..run {
                self.buckets[(home + passed) & self.mask].passed += 1;
            }
            let way = lowest(free);
            self.buckets[at].tags[way] = tag(hash);
            self.buckets[at].entries[way] = entry;
            return true;
        }
        false
    }

    /// Removes `entry`, which was inserted with `hash`.
    pub fn remove(&mut self, hash: u64, entry: u32) {
        let home = hash as usize & self.mask;
        for run in 0..=MAX_RUN.min(self.mask) {
            let bucket = &mut self.buckets[(home + run) & self.mask];
            let mut bits = bucket.matches(tag(hash));
            while bits != 0 {
                let way = lowest(bits);
                if bucket.entries[way] == entry {
                    bucket.tags[way] = 0;
                    for passed in 0..run {
                        self.buckets[(home + passed) & self.mask].passed -= 1;
                    }
                    return;
                }
                bits &= bits - 1;
            }
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
            let mut index = Index::new(300);
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
        let mut index = Index::new(20);
        let room = index.buckets.len() * WAYS;
        for entry in 0..room as u32 {
            assert!(index.insert(0, entry));
        }
        assert!(!index.insert(0, room as u32));
        assert!(index.find(0, |entry| entry == room as u32 - 1).is_some());
    }
}
