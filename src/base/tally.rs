//! Counts by key, shared by all workers: how many of something each of many keys has.
//!
//! A fixed table of buckets of two cache lines; a slot holds 40 bits of the key's hash and a count
//! of 24 bits, and is free at zero. A key lives in its bucket only. Where a bucket is full, or a
//! count at its end, [`Tally::add`] counts nothing and says so.
//!
//! Concurrency: any number of threads, no locks; every change is one compare-and-swap. Two threads
//! that add one new key at a time when another slot becomes free may give it two slots. That is
//! allowed: the count is the sum over the bucket, an addition goes to the first slot of its key, a
//! removal takes from the last, and so the second slot empties. The fence between an addition and
//! the sum makes at least one of two simultaneous additions see the other: of so many as a limit
//! allows, never more find themselves within it.
//!
//! Who added something removes it, once. Keys are hashes under a secret of the table, so that
//! nobody can aim at a bucket; two keys are taken for one in fewer than one of 10^12 pairs.
//! `cargo test` with `--cfg shardwall_loom` checks additions and removals in every interleaving.

#[cfg(not(shardwall_loom))]
use std::sync::atomic::{AtomicU64, fence};

#[cfg(shardwall_loom)]
use loom::sync::atomic::{AtomicU64, fence};

use super::hash::HashKey;
use std::io;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

#[cfg(not(shardwall_loom))]
const SLOTS: usize = 16;
/// Enough for what can go wrong, and few enough to try everything.
#[cfg(shardwall_loom)]
const SLOTS: usize = 2;

const COUNT: u64 = (1 << 24) - 1;
/// Bits of the hash that choose the bucket; the others are the fingerprint.
const BUCKET_BITS: u32 = 24;
/// Times that a removal looks for its key. One look is enough unless the key moves between two
/// slots meanwhile, which takes two other threads.
const LOOKS: usize = 1000;

/// 16 slots at half load overflow in 0.4 % of the buckets when every flow has a key of its own.
#[cfg_attr(not(shardwall_loom), derive(zerocopy::FromZeros))]
#[derive(Debug)]
#[repr(C, align(128))]
struct Bucket([AtomicU64; SLOTS]);

#[cfg(not(shardwall_loom))]
type Buckets = super::slab::Slab<Bucket>;
#[cfg(shardwall_loom)]
type Buckets = Vec<Bucket>;

/// The counts.
#[derive(Debug)]
pub struct Tally {
    secret: HashKey,
    buckets: Buckets,
}

/// What is counted under, as its [`Tally`] sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromZeros)]
#[repr(transparent)]
pub struct TallyKey(u64);

impl TallyKey {
    /// Never zero, which marks a free slot.
    fn fingerprint(self) -> u64 {
        (self.0 >> BUCKET_BITS).max(1) << 24
    }
}

#[inline]
fn is(slot: u64, fingerprint: u64) -> bool {
    slot & !COUNT == fingerprint
}

impl Tally {
    /// A table with room for `keys` keys, at half load. Its memory is reserved now and taken when
    /// it is first touched.
    ///
    /// # Errors
    /// If the memory is not to be had.
    pub fn new(keys: usize, secret: HashKey) -> io::Result<Self> {
        let buckets = (keys.saturating_mul(2))
            .div_ceil(SLOTS)
            .clamp(1, 1 << BUCKET_BITS);
        #[cfg(not(shardwall_loom))]
        let buckets = Buckets::new(buckets)?;
        #[cfg(shardwall_loom)]
        let buckets = (0..buckets)
            .map(|_| Bucket(std::array::from_fn(|_| AtomicU64::new(0))))
            .collect();
        Ok(Self { secret, buckets })
    }

    /// The key that `words` make.
    #[inline]
    pub fn key(&self, words: [u64; 5]) -> TallyKey {
        TallyKey(self.secret.hash5(words))
    }

    fn slots(&self, key: TallyKey) -> &[AtomicU64; SLOTS] {
        let part = key.0 & ((1 << BUCKET_BITS) - 1);
        let bucket = (part * self.buckets.len() as u64) >> BUCKET_BITS;
        &self.buckets[bucket as usize].0
    }

    /// Adds one to the count of `key` and returns the count with it; `None` if there is no room, and
    /// then nothing was counted.
    pub fn add(&self, key: TallyKey) -> Option<u32> {
        let (slots, fingerprint) = (self.slots(key), key.fingerprint());
        let (own, count) = 'look: loop {
            let (mut at, mut seen) = (None, 0);
            for (number, slot) in slots.iter().enumerate() {
                let value = slot.load(Acquire);
                if is(value, fingerprint) {
                    (at, seen) = (Some(number), value);
                    break;
                }
                if value == 0 && at.is_none() {
                    at = Some(number);
                }
            }
            let at = at?;
            loop {
                let next = match seen {
                    0 => fingerprint | 1,
                    _ if seen & COUNT == COUNT => return None,
                    _ => seen + 1,
                };
                match slots[at].compare_exchange_weak(seen, next, AcqRel, Acquire) {
                    Ok(_) => break 'look (at, next & COUNT),
                    Err(now) if is(now, fingerprint) || now == seen => seen = now,
                    // The slot went to another key, or was given up: look again.
                    Err(_) => continue 'look,
                }
            }
        };
        fence(SeqCst);
        let others = slots.iter().enumerate().filter(|(at, _)| *at != own);
        let others = others.map(|(_, slot)| slot.load(Relaxed));
        let others = others.filter(|seen| is(*seen, fingerprint));
        Some(others.fold(count, |sum, seen| sum + (seen & COUNT)) as u32)
    }

    /// Takes back one addition of `key`.
    pub fn remove(&self, key: TallyKey) {
        let (slots, fingerprint) = (self.slots(key), key.fingerprint());
        for _ in 0..LOOKS {
            for slot in slots.iter().rev() {
                let mut seen = slot.load(Acquire);
                while is(seen, fingerprint) {
                    let next = if seen & COUNT == 1 { 0 } else { seen - 1 };
                    match slot.compare_exchange_weak(seen, next, AcqRel, Acquire) {
                        Ok(_) => return,
                        Err(now) => seen = now,
                    }
                }
            }
        }
        debug_assert!(false, "removed what was not added");
    }

    /// The count of `key`.
    #[inline]
    pub fn count(&self, key: TallyKey) -> u32 {
        let fingerprint = key.fingerprint();
        let slots = self.slots(key).iter().map(|slot| slot.load(Relaxed));
        let own = slots.filter(|seen| is(*seen, fingerprint));
        own.map(|seen| (seen & COUNT) as u32).sum()
    }

    /// The sum of all counts. Looks at the whole table.
    pub fn total(&self) -> u64 {
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.0);
        slots.map(|slot| slot.load(Relaxed) & COUNT).sum()
    }
}

#[cfg(all(test, not(shardwall_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn tally(keys: usize) -> Tally {
        Tally::new(keys, HashKey::from_seed(1)).unwrap()
    }

    #[test]
    fn counts_are_by_key_and_nothing_is_left_behind() {
        let tally = tally(1000);
        let keys: Vec<_> = (0..1000).map(|n| tally.key([n, 0, 0, 0, 0])).collect();
        for (n, key) in keys.iter().enumerate() {
            for count in 1..=(n as u32 % 7) {
                assert_eq!(tally.add(*key), Some(count));
            }
        }
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(tally.count(*key), n as u32 % 7);
            (0..n % 7).for_each(|_| tally.remove(*key));
            assert_eq!(tally.count(*key), 0);
        }
        assert_eq!(tally.total(), 0);
        assert!(
            tally
                .buckets
                .iter()
                .flat_map(|b| &b.0)
                .all(|slot| slot.load(Relaxed) == 0)
        );
    }

    #[test]
    fn a_full_bucket_counts_nothing_and_says_so() {
        let tally = tally(1);
        let keys: Vec<_> = (0..17).map(|n| tally.key([n, 0, 0, 0, 0])).collect();
        for key in &keys[..16] {
            assert_eq!(tally.add(*key), Some(1));
        }
        assert_eq!(tally.add(keys[16]), None);
        assert_eq!((tally.count(keys[16]), tally.total()), (0, 16));
        assert_eq!(tally.add(keys[3]), Some(2), "those who are there go on");
        tally.remove(keys[5]);
        assert_eq!(tally.add(keys[16]), Some(1));
    }

    #[test]
    fn a_count_stops_at_its_end() {
        let tally = tally(1);
        let key = tally.key([1; 5]);
        tally.add(key);
        tally.slots(key)[0].store(key.fingerprint() | (COUNT - 1), Relaxed);
        assert_eq!(tally.add(key), Some(COUNT as u32));
        assert_eq!(tally.add(key), None);
        tally.remove(key);
        assert_eq!(tally.count(key), COUNT as u32 - 1);
    }

    #[test]
    fn a_key_in_two_slots_counts_once_and_goes_back_to_one() {
        let tally = tally(1);
        let key = tally.key([1; 5]);
        tally.slots(key)[3].store(key.fingerprint() | 2, Relaxed);
        tally.slots(key)[9].store(key.fingerprint() | 1, Relaxed);
        assert_eq!(tally.add(key), Some(4));
        tally.remove(key);
        assert_eq!(tally.slots(key)[9].load(Relaxed), 0);
        assert_eq!(tally.count(key), 3);
        (0..3).for_each(|_| tally.remove(key));
        assert_eq!(tally.total(), 0);
    }

    /// Few keys in one bucket, many threads: slots are taken and given up all the time.
    #[test]
    fn threads_never_exceed_a_limit_and_leave_nothing() {
        const LIMIT: u32 = 3;
        let tally = tally(1);
        let held: Vec<_> = (0..24)
            .map(|_| std::sync::atomic::AtomicU32::new(0))
            .collect();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (tally, held) = (&tally, &held);
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    for turn in 0..100_000u64 {
                        let random = (turn * 4 + thread).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                        if random.is_multiple_of(2) {
                            let number = (random >> 1) as usize % held.len();
                            let key = tally.key([number as u64, 0, 0, 0, 0]);
                            match tally.add(key) {
                                Some(count) if count <= LIMIT => {
                                    assert!(held[number].fetch_add(1, SeqCst) < LIMIT);
                                    mine.push(number);
                                }
                                Some(_) => tally.remove(key),
                                None => {}
                            }
                        } else if let Some(number) = mine.pop() {
                            held[number].fetch_sub(1, SeqCst);
                            tally.remove(tally.key([number as u64, 0, 0, 0, 0]));
                        }
                    }
                    for number in mine {
                        held[number].fetch_sub(1, SeqCst);
                        tally.remove(tally.key([number as u64, 0, 0, 0, 0]));
                    }
                });
            }
        });
        assert_eq!(tally.total(), 0);
    }

    proptest! {
        #[test]
        fn it_counts_as_a_map_does(
            steps in prop::collection::vec((any::<bool>(), 0u64..40), 0..500),
            room in 1usize..40,
        ) {
            let tally = tally(room);
            let mut map = HashMap::<u64, u32>::new();
            for (add, number) in steps {
                let key = tally.key([number, 1, 2, 3, 4]);
                let count = map.get(&number).copied().unwrap_or(0);
                if add {
                    match tally.add(key) {
                        Some(now) => {
                            prop_assert_eq!(now, count + 1);
                            map.insert(number, now);
                        }
                        None => prop_assert_eq!(count, 0, "only a new key finds no room"),
                    }
                } else if count > 0 {
                    tally.remove(key);
                    map.insert(number, count - 1);
                }
                prop_assert_eq!(tally.count(key), map.get(&number).copied().unwrap_or(0));
            }
            prop_assert_eq!(tally.total(), map.values().map(|count| u64::from(*count)).sum::<u64>());
        }
    }
}

#[cfg(all(test, shardwall_loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two threads add and remove one key, while a slot before it becomes free.
    fn scenario(occupied: bool) {
        loom::model(move || {
            let tally = Arc::new(Tally::new(1, HashKey::from_seed(1)).unwrap());
            let (key, other) = (tally.key([1; 5]), tally.key([2; 5]));
            if occupied {
                tally.add(other);
            }
            let threads: Vec<_> = (0..2)
                .map(|number| {
                    let tally = tally.clone();
                    thread::spawn(move || {
                        if occupied && number == 0 {
                            tally.remove(other);
                        }
                        let counted = tally.add(key);
                        if let Some(count) = counted {
                            assert!((1..=2).contains(&count));
                            tally.remove(key);
                        }
                        counted
                    })
                })
                .collect();
            for thread in threads {
                assert!(thread.join().unwrap().is_some(), "there was a slot for it");
            }
            assert_eq!(tally.total(), 0);
        });
    }

    #[test]
    fn one_key_two_threads() {
        scenario(false);
    }

    #[test]
    fn one_key_two_threads_and_a_slot_that_becomes_free() {
        scenario(true);
    }

    /// In one slot, or in two, when the first becomes free between them.
    fn additions(occupied: bool) {
        loom::model(move || {
            let tally = Arc::new(Tally::new(1, HashKey::from_seed(1)).unwrap());
            let (key, other) = (tally.key([1; 5]), tally.key([2; 5]));
            if occupied {
                tally.add(other);
            }
            let theirs = tally.clone();
            let thread = thread::spawn(move || theirs.add(key));
            if occupied {
                tally.remove(other);
            }
            let ours = tally.add(key);
            let theirs = thread.join().unwrap();
            assert!(ours == Some(2) || theirs == Some(2), "{ours:?} {theirs:?}");
            assert_eq!(tally.count(key), 2);
        });
    }

    #[test]
    fn of_two_simultaneous_additions_one_sees_both() {
        additions(false);
    }

    #[test]
    fn of_two_additions_to_two_slots_one_sees_both() {
        additions(true);
    }
}
