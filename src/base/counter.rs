//! Counters with one writer and any number of readers.
//!
//! A worker owns its counters and is the only one to add; the control thread reads them whenever
//! it likes. A relaxed load and store is all that needs: no locked instruction, no lost update
//! (there is no second writer), and a reader sees each counter at some recent value.

#[cfg(not(shardwall_loom))]
use std::sync::atomic::AtomicU64;

#[cfg(shardwall_loom)]
use loom::sync::atomic::AtomicU64;

use std::sync::atomic::Ordering::Relaxed;

/// A monotonic count with a single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` away (for gauges). Only the owning thread may call this.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// Replaces the value (for gauges). Only the owning thread may call this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The current value, from any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Packets and bytes counted together.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: Counter,
    /// Bytes of the frames, without preamble and FCS.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts one packet of `bytes`.
    #[inline]
    pub fn add(&self, bytes: u64) {
        self.packets.add(1);
        self.bytes.add(bytes);
    }

    /// Packets and bytes, from any thread.
    pub fn get(&self) -> (u64, u64) {
        (self.packets.get(), self.bytes.get())
    }
}

#[cfg(all(test, shardwall_loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// A reader sees a count that was, never a smaller one later, and in the end all of it.
    #[test]
    fn no_addition_is_lost_and_no_count_goes_back() {
        loom::model(|| {
            let traffic = Arc::new(Traffic::default());
            let writer = traffic.clone();
            let thread = thread::spawn(move || {
                writer.add(10);
                writer.add(20);
            });
            let before = traffic.get();
            let after = traffic.get();
            assert!((0..=2).contains(&before.0) && [0, 10, 30].contains(&before.1));
            assert!(before.0 <= after.0 && before.1 <= after.1);
            thread.join().unwrap();
            assert_eq!(traffic.get(), (2, 30));
        });
    }
}
