//! Rate limits: one token bucket for each rule that has a `limit`, or one for each address, network
//! or zone that comes to it ([`Meters`]), shared by all workers.
//!
//! A rule's own is kept as one number, the theoretical arrival time of the generic cell rate algorithm
//! (ITU-T I.371, annex A): a packet conforms if that time is not further ahead of now than the
//! burst allows, and then moves it on by the time between two packets. One compare-and-swap a
//! packet that conforms, one load a packet that does not.
//!
//! Life-cycle: made full with its policy; an unchanged rule has the buckets that it had in the policy
//! before, so that workers which still go by that one and those which do not take from the same.
//! Concurrency: any number of workers; a packet that loses the race tries again with the new time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(not(shardwall_loom))]
use std::sync::atomic::AtomicU64;

#[cfg(shardwall_loom)]
use loom::sync::atomic::AtomicU64;

use super::flow::together;
use super::model::{Limit, Per};
use crate::base::hash::HashKey;
use crate::base::meters::Meters;
use crate::base::time::Now;
use crate::wire::parsed::Addrs;

/// Keys of one rule that may have an open bucket at a time: 2 MiB, one huge page.
const KEYS: usize = 1 << 18;

/// The `limit` of one rule; a clone has the same buckets.
#[derive(Clone, Debug)]
pub(super) enum Limiter {
    /// All packets have one bucket.
    Rule(Arc<Bucket>),
    /// Each of what is counted together has one; without the memory for them, nobody passes.
    Keyed(Per, Option<Arc<Meters>>),
}

impl Limiter {
    /// Full buckets.
    pub(super) fn new(limit: &Limit) -> Self {
        match limit.per {
            Per::Rule => Limiter::Rule(Arc::new(Bucket::new(limit))),
            per => {
                let meters = Meters::new(KEYS, HashKey::random(), interval(limit), limit.burst);
                Limiter::Keyed(per, meters.ok().map(Arc::new))
            }
        }
    }

    /// Takes one packet's worth, if there is one.
    #[inline]
    pub(super) fn take(&self, addrs: Addrs, zone: u16, now: Now) -> bool {
        match self {
            Limiter::Rule(bucket) => bucket.take(now),
            Limiter::Keyed(per, meters) => {
                let [about, high, low] = together(*per, addrs, zone);
                let meters = meters.as_ref();
                meters.is_some_and(|meters| meters.take([about, high, low, 0, 0], now))
            }
        }
    }

    /// About how many keys have an open bucket, and how many can; `None` for a rule's own.
    pub(super) fn open(&self, now: Now) -> Option<(u64, u64)> {
        match self {
            Limiter::Rule(_) => None,
            Limiter::Keyed(_, meters) => meters.as_ref().map(|meters| meters.open(now)),
        }
    }

    /// Whether there is one packet's worth; takes nothing.
    pub(super) fn has_one(&self, addrs: Addrs, zone: u16, now: Now) -> bool {
        match self {
            Limiter::Rule(bucket) => bucket.has_one(now),
            Limiter::Keyed(per, meters) => {
                let [about, high, low] = together(*per, addrs, zone);
                let meters = meters.as_ref();
                meters.is_some_and(|meters| meters.has_one([about, high, low, 0, 0], now))
            }
        }
    }
}

/// Nanoseconds between two packets at the rate.
fn interval(limit: &Limit) -> u64 {
    (limit.period_nanos / u64::from(limit.rate.max(1))).max(1)
}

/// One token bucket.
#[derive(Debug)]
pub struct Bucket {
    /// Theoretical arrival time of the next packet, in nanoseconds.
    arrival: AtomicU64,
    /// Between two packets at the rate.
    interval: u64,
    /// How far ahead of now the arrival time may be.
    tolerance: u64,
}

impl Bucket {
    /// A full one; whatever `limit` says it is counted by, this is one of its buckets.
    pub fn new(limit: &Limit) -> Self {
        let interval = interval(limit);
        Self {
            arrival: AtomicU64::new(0),
            interval,
            tolerance: interval.saturating_mul(u64::from(limit.burst.saturating_sub(1))),
        }
    }

    /// Takes one packet's worth, if there is one.
    #[inline]
    pub fn take(&self, now: Now) -> bool {
        let now = now.nanos();
        let mut arrival = self.arrival.load(Relaxed);
        loop {
            let due = arrival.max(now);
            if due - now > self.tolerance {
                return false;
            }
            let next = due.saturating_add(self.interval);
            match self
                .arrival
                .compare_exchange_weak(arrival, next, Relaxed, Relaxed)
            {
                Ok(_) => return true,
                Err(seen) => arrival = seen,
            }
        }
    }

    /// Whether nothing of it is missing.
    pub fn is_full(&self, now: Now) -> bool {
        self.arrival.load(Relaxed) <= now.nanos()
    }

    /// Whether there is one packet's worth; takes nothing.
    pub(super) fn has_one(&self, now: Now) -> bool {
        let ahead = self.arrival.load(Relaxed).saturating_sub(now.nanos());
        ahead <= self.tolerance
    }
}

#[cfg(all(test, not(shardwall_loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn bucket(rate: u32, seconds: u64, burst: u32) -> Bucket {
        Bucket::new(&Limit {
            rate,
            period_nanos: seconds * 1_000_000_000,
            burst,
            per: Per::Rule,
        })
    }

    fn taken(bucket: &Bucket, millis: u64, tries: usize) -> usize {
        (0..tries)
            .filter(|_| bucket.take(Now::from_nanos(millis * MS)))
            .count()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let bucket = bucket(5, 1, 10);
        assert_eq!(taken(&bucket, 1_000_000, 50), 10);
        assert_eq!(taken(&bucket, 1_000_199, 50), 0);
        assert!(!bucket.has_one(Now::from_nanos(1_000_199 * MS)));
        assert!(bucket.has_one(Now::from_nanos(1_000_200 * MS)));
        assert_eq!(taken(&bucket, 1_000_200, 50), 1);
        assert_eq!(taken(&bucket, 1_001_200, 50), 5);
        // idle for long: full again, and no fuller
        assert_eq!(taken(&bucket, 9_000_000, 50), 10);
    }

    #[test]
    fn slow_rates_and_clocks_that_step_back() {
        let bucket = bucket(1, 86_400, 1);
        assert_eq!(taken(&bucket, 0, 5), 1);
        assert_eq!(taken(&bucket, 86_399_999, 5), 0);
        assert_eq!(taken(&bucket, 86_400_000, 5), 1);
        assert_eq!(taken(&bucket, 5, 5), 0);
    }

    #[test]
    fn workers_share_one_bucket() {
        let bucket = bucket(1, 1, 1000);
        let total: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| taken(&bucket, 5000, 600)))
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .sum()
        });
        assert_eq!(total, 1000);
    }
}

#[cfg(all(test, shardwall_loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Two workers, of whose clocks one is late, bring two packets each where two may pass.
    #[test]
    fn workers_together_get_the_burst_and_no_more() {
        loom::model(|| {
            let bucket = Arc::new(Bucket::new(&Limit {
                rate: 1,
                period_nanos: 1000,
                burst: 2,
                per: Per::Rule,
            }));
            let takes = |bucket: &Bucket, now: u64| {
                let take = || u32::from(bucket.take(Now::from_nanos(now)));
                take() + take()
            };
            let other = bucket.clone();
            let thread = thread::spawn(move || takes(&other, 5000));
            let ours = takes(&bucket, 5001);
            assert_eq!(ours + thread.join().unwrap(), 2);
        });
    }
}
