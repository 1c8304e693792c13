//! Token buckets by key, shared by all workers: each of many keys may have so much at a rate.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A), as one word a key: 22 bits of the key's
//! hash, and the time at which its bucket will be full again, in units of which an interval between
//! two tokens has 1024 (of nanoseconds, if it has fewer), modulo 2^42. A fixed table of buckets of
//! two cache lines holds the words; a key lives in one line pair only. A word whose time has come
//! says what no word says, that nothing was taken, and so its place may go to another key. Where no
//! place can, [`Meters::take`] refuses: memory is bounded, and nobody gets more than the limit by
//! coming from many addresses.
//!
//! Life-cycle: made empty, shared by who limits the same. Concurrency: any number of threads,
//! no locks; every change is one compare-and-swap. Two threads that bring a new key at the same time,
//! while another place becomes free, may give it two. So what was taken is the sum over the line pair,
//! a new word looks once more for others, and at no instant is more given than the burst; as the two
//! then drain side by side, the key may get one packet too many. Of 260,000 pairs of keys in one line
//! pair about one shares a bucket.
//! `cargo test` with `--cfg shardwall_loom` checks simultaneous new keys in every interleaving.

#[cfg(not(shardwall_loom))]
use std::sync::atomic::{AtomicU64, fence};

#[cfg(shardwall_loom)]
use loom::sync::atomic::{AtomicU64, fence};

use super::hash::HashKey;
use super::time::Now;
use std::io;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

#[cfg(not(shardwall_loom))]
const SLOTS: usize = 16;
/// Enough for what can go wrong, and few enough to try everything.
#[cfg(shardwall_loom)]
const SLOTS: usize = 2;

/// Bits of a word that are time.
const TIME_BITS: u32 = 42;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// Bits of the hash that choose the line pair.
const BUCKET_BITS: u32 = 24;
/// Of so many buckets, one is looked at to know how many are in use.
const SAMPLE: usize = 64;
/// Units of an interval.
const PARTS: u64 = 1024;
/// How far the clocks of two workers may be apart, as one reads its clock and is then held up in a
/// burst; a time further ahead than can be is a past one.
const SKEW_NANOS: u128 = 1_000_000_000;

#[cfg_attr(not(shardwall_loom), derive(zerocopy::FromZeros))]
#[derive(Debug)]
#[repr(C, align(128))]
struct Bucket([AtomicU64; SLOTS]);

#[cfg(not(shardwall_loom))]
type Buckets = super::slab::Slab<Bucket>;
#[cfg(shardwall_loom)]
type Buckets = Vec<Bucket>;

/// The buckets of one limit.
#[derive(Debug)]
pub struct Meters {
    secret: HashKey,
    buckets: Buckets,
    /// Units in 2^64 nanoseconds; 0 where the unit is the nanosecond.
    pace: u64,
    /// Of a token, in units.
    interval: u64,
    /// How far ahead of now a word may be before a packet, in units.
    tolerance: u64,
    /// How far ahead of now a word can be at all, in units.
    furthest: u64,
}

impl Meters {
    /// Room for `keys` keys at a time, each with a token every `interval` nanoseconds and at most
    /// `burst` at once. Memory is taken now.
    ///
    /// # Errors
    /// If the memory is not to be had.
    pub fn new(keys: usize, secret: HashKey, interval: u64, burst: u32) -> io::Result<Self> {
        let count = keys.div_ceil(SLOTS).clamp(1, 1 << BUCKET_BITS);
        #[cfg(not(shardwall_loom))]
        let buckets = {
            let mut buckets = Buckets::new(count)?;
            buckets.populate(count);
            buckets
        };
        #[cfg(shardwall_loom)]
        let buckets = (0..count)
            .map(|_| Bucket(std::array::from_fn(|_| AtomicU64::new(0))))
            .collect();
        let nanos = interval.max(1);
        let (pace, interval, rounding) = match nanos {
            ..=PARTS => (0, nanos, 0),
            _ => ((u128::from(PARTS) << 64) / u128::from(nanos), PARTS, 1),
        };
        let pace = pace as u64;
        // so that what is due at an instant is not refused there for a rounding
        let tolerance = interval * u64::from(burst.saturating_sub(1)) + rounding;
        let skew = SKEW_NANOS * u128::from(interval) / u128::from(nanos);
        Ok(Self {
            secret,
            buckets,
            pace,
            interval,
            tolerance,
            furthest: (tolerance + interval + skew as u64 + 1).min(TIME / 2),
        })
    }

    /// Takes a token of the key that `words` make, if it has one and there is room to remember that.
    #[inline]
    pub fn take(&self, words: [u64; 5], now: Now) -> bool {
        let (key, slots) = self.place(words);
        let now = self.units(now.nanos());
        loop {
            let (mut own, mut free, mut taken) = (None, None, 0);
            for (at, slot) in slots.iter().enumerate() {
                let word = slot.load(Acquire);
                let ahead = self.ahead(word, now);
                if word & !TIME == key {
                    taken += ahead;
                    own = own.or(Some((at, word, ahead)));
                } else if ahead == 0 {
                    free = free.or(Some((at, word, 0)));
                }
            }
            if taken > self.tolerance {
                return false;
            }
            let Some((at, word, ahead)) = own.or(free) else {
                return false;
            };
            let next = key | (now + ahead + self.interval) & TIME;
            if slots[at]
                .compare_exchange_weak(word, next, AcqRel, Relaxed)
                .is_err()
            {
                continue;
            }
            if own.is_some() {
                return true;
            }
            fence(SeqCst);
            let others = slots.iter().enumerate().filter(|(other, _)| *other != at);
            let others = others.map(|(_, slot)| slot.load(Relaxed));
            let others = others.filter(|word| word & !TIME == key);
            let others: u64 = others.map(|word| self.ahead(word, now)).sum();
            if others <= self.tolerance {
                return true;
            }
            // somebody else was first: who came to ours meanwhile keeps what he took
            let mut seen = next;
            while seen & !TIME == key {
                let back = key | seen.wrapping_sub(self.interval) & TIME;
                match slots[at].compare_exchange_weak(seen, back, AcqRel, Relaxed) {
                    Ok(_) => break,
                    Err(word) => seen = word,
                }
            }
            return false;
        }
    }

    /// Whether there is one packet's worth for `words`; takes nothing.
    pub fn has_one(&self, words: [u64; 5], now: Now) -> bool {
        let (key, slots) = self.place(words);
        let now = self.units(now.nanos());
        let (mut room, mut taken) = (false, 0);
        for word in slots.iter().map(|slot| slot.load(Acquire)) {
            let ahead = self.ahead(word, now);
            let own = word & !TIME == key;
            taken += if own { ahead } else { 0 };
            room |= own || ahead == 0;
        }
        room && taken <= self.tolerance
    }

    /// How many keys have an open bucket, and how many can: judged by one place in 64, which
    /// keys are spread over by a hash, so that few of the packet path's lines are looked at.
    pub fn open(&self, now: Now) -> (u64, u64) {
        let now = self.units(now.nanos());
        let sample = &self.buckets[..self.buckets.len().div_ceil(SAMPLE)];
        let slots = sample.iter().flat_map(|bucket| &bucket.0);
        let open = slots.filter(|slot| self.ahead(slot.load(Relaxed), now) > 0);
        let share = self.buckets.len() as u64 / sample.len() as u64;
        let room = (self.buckets.len() * SLOTS) as u64;
        (open.count() as u64 * share, room)
    }

    /// The key of `words`, in its place of a slot, and the slots that it may have.
    #[inline]
    fn place(&self, words: [u64; 5]) -> (u64, &[AtomicU64; SLOTS]) {
        let hash = self.secret.hash5(words);
        let key = (hash >> TIME_BITS).max(1) << TIME_BITS;
        let part = hash & ((1 << BUCKET_BITS) - 1);
        let bucket = (part * self.buckets.len() as u64) >> BUCKET_BITS;
        (key, &self.buckets[bucket as usize].0)
    }

    #[inline]
    fn units(&self, nanos: u64) -> u64 {
        match self.pace {
            0 => nanos & TIME,
            pace => ((u128::from(nanos) * u128::from(pace)) >> 64) as u64 & TIME,
        }
    }

    /// How far the time of `word` is ahead of `now`; 0 if it has come.
    #[inline]
    fn ahead(&self, word: u64, now: u64) -> u64 {
        let ahead = word.wrapping_sub(now) & TIME;
        if word != 0 && ahead <= self.furthest {
            ahead
        } else {
            0
        }
    }
}

#[cfg(all(test, not(shardwall_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const SECOND: u64 = 1_000_000_000;
    /// As in a capture: nanoseconds since 1970.
    const START: u64 = 1_700_000_000 * SECOND + 123_456_789;

    fn meters(keys: usize, interval: u64, burst: u32) -> Meters {
        Meters::new(keys, HashKey::from_seed(1), interval, burst).unwrap()
    }

    fn taken(meters: &Meters, key: u64, at: u64, tries: usize) -> usize {
        (0..tries)
            .filter(|_| meters.take([key, 0, 0, 0, 0], Now::from_nanos(START + at)))
            .count()
    }

    #[test]
    fn each_key_has_a_burst_and_then_the_rate() {
        for interval in [100, 1024, 1025, 333_333, SECOND / 5, 86_400 * SECOND] {
            let meters = meters(1000, interval, 10);
            for key in 0..100 {
                assert_eq!(taken(&meters, key, 0, 50), 10, "{interval}");
            }
            assert_eq!(taken(&meters, 7, interval - interval / 512 - 1, 50), 0);
            assert_eq!(taken(&meters, 7, interval, 50), 1);
            assert_eq!(taken(&meters, 7, 6 * interval, 50), 5);
            assert_eq!(taken(&meters, 8, 6 * interval, 50), 6);
            // idle for long: full again, and no fuller
            let now = Now::from_nanos(START + 1000 * interval);
            for left in (0..=10).rev() {
                assert_eq!(meters.has_one([7, 0, 0, 0, 0], now), left > 0);
                assert_eq!(taken(&meters, 7, 1000 * interval, 1), left.min(1));
            }
        }
    }

    #[test]
    fn a_sample_tells_how_many_are_open() {
        let meters = meters(1 << 16, SECOND, 4);
        let open = |at| meters.open(Now::from_nanos(START + at));
        assert_eq!(open(0), (0, 1 << 16));
        for key in 0..20_000 {
            assert_eq!(taken(&meters, key, 0, 1), 1);
        }
        let (found, room) = open(SECOND / 2);
        assert!((16_000..24_000).contains(&found), "{found}");
        assert_eq!(room, 1 << 16);
        assert_eq!(
            open(2 * SECOND),
            (0, 1 << 16),
            "full again, and so forgotten"
        );
    }

    #[test]
    fn the_rate_is_exact_in_the_long_run() {
        let meters = meters(1, 333_333, 3);
        let mut count = 0;
        for at in 0..1_000_000 {
            count += taken(&meters, 1, at * 1000, 1);
        }
        // 3,000 intervals, and the burst
        assert!((3002..=3004).contains(&count), "{count}");
    }

    #[test]
    fn a_full_table_refuses_and_what_is_idle_makes_room() {
        let meters = meters(SLOTS, SECOND, 2);
        for key in 0..SLOTS as u64 {
            assert_eq!(taken(&meters, key, key, 1), 1);
        }
        assert_eq!(taken(&meters, 99, 100, 5), 0, "no room");
        assert_eq!(taken(&meters, 3, 100, 5), 1, "those who are there go on");
        assert_eq!(taken(&meters, 99, SECOND + 1, 5), 2, "key 0 is idle by now");
        assert_eq!(
            taken(&meters, 0, SECOND + 1, 5),
            2,
            "and it was full: key 1 goes"
        );
        assert_eq!(taken(&meters, 3, SECOND + 1, 5), 1, "key 3 is not");
    }

    #[test]
    fn no_number_of_keys_takes_more_memory_or_more_than_the_limit() {
        let meters = meters(4096, SECOND, 1);
        let all: usize = (0..1_000_000).map(|key| taken(&meters, key, 0, 2)).sum();
        assert_eq!(all, 4096, "every place was taken, once");
        let later: usize = (0..4096)
            .map(|key| taken(&meters, key, 2 * SECOND, 2))
            .sum();
        assert!((3000..=4096).contains(&later), "{later}");
    }

    /// A worker that shares its core was held up between the clock and the packet.
    #[test]
    fn a_late_clock_gets_no_second_burst() {
        for interval in [1000, 333_333, SECOND / 5] {
            let meters = meters(64, interval, 10);
            assert_eq!(taken(&meters, 1, SECOND, 50), 10);
            assert_eq!(taken(&meters, 1, SECOND / 2, 50), 0, "{interval}");
        }
    }

    #[test]
    fn threads_share_every_bucket() {
        let meters = meters(1024, SECOND, 1000);
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..10)
                            .map(|key| taken(&meters, key, 5, 600))
                            .sum::<usize>()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(total, 10_000);
    }

    /// New keys all the time, in places that become free all the time.
    #[test]
    fn simultaneous_new_keys_get_no_more_than_the_burst() {
        let meters = meters(SLOTS, SECOND, 2);
        for round in 0..2000u64 {
            let at = round * 3 * SECOND;
            let total: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..2)
                    .map(|skew| {
                        scope.spawn({
                            let meters = &meters;
                            move || taken(meters, round, at + skew, 3)
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .sum()
            });
            assert_eq!(total, 2, "{round}");
        }
    }

    proptest! {
        #[test]
        fn it_limits_as_exact_buckets_do(
            interval in prop_oneof![1u64..3000, 3000..10 * SECOND],
            burst in 1u32..20,
            steps in prop::collection::vec((0u64..20, 0u64..3000), 0..300),
        ) {
            let meters = meters(4096, interval, burst);
            let mut exact = HashMap::<u64, u64>::new();
            let mut now = START;
            // times are multiples of a thousandth of an interval away from where rounding matters
            for (key, step) in steps {
                now += step * interval.div_ceil(1000);
                let due = exact.get(&key).copied().unwrap_or(0).max(now);
                let room = interval * u64::from(burst - 1);
                let near = (due - now).abs_diff(room) <= interval / 256;
                let took = meters.take([key, 1, 2, 3, 4], Now::from_nanos(now));
                if !near {
                    prop_assert_eq!(took, due - now <= room);
                }
                if took {
                    exact.insert(key, due + interval);
                }
            }
        }
    }
}

#[cfg(all(test, shardwall_loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two threads bring one new key, of whose clocks one is late: what is free for one, if
    /// `occupied`, is not for the other.
    fn scenario(occupied: bool) {
        loom::model(move || {
            let meters = Arc::new(Meters::new(1, HashKey::from_seed(1), 1000, 1).unwrap());
            if occupied {
                assert!(meters.take([2; 5], Now::from_nanos(1000)));
            }
            let other = meters.clone();
            let thread = thread::spawn(move || other.take([1; 5], Now::from_nanos(2000)));
            let ours = meters.take([1; 5], Now::from_nanos(1999));
            let theirs = thread.join().unwrap();
            assert!(!(ours && theirs), "one token was there");
        });
    }

    #[test]
    fn one_new_key_two_threads() {
        scenario(false);
    }

    #[test]
    fn one_new_key_two_threads_and_a_place_that_one_may_take() {
        scenario(true);
    }
}
