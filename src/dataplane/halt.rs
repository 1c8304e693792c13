//! The end of the workers: told to stop, each stops taking frames from its ports and *parks*; when
//! all have parked nobody hands anything over any more, and what the rings hold then is all.
//!
//! A worker parks with release after its last hand-over, and who sees all parked with acquire sees
//! every one of these. `cargo test` with `--cfg shardwall_loom` checks that in every interleaving.

#[cfg(not(shardwall_loom))]
use std::sync::atomic::{AtomicBool, AtomicUsize};

#[cfg(shardwall_loom)]
use loom::sync::atomic::{AtomicBool, AtomicUsize};

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

/// Shared by the workers and whoever stops them.
#[derive(Debug)]
pub struct Halt {
    stop: AtomicBool,
    parked: AtomicUsize,
    workers: usize,
}

impl Halt {
    /// For so many workers, which run.
    pub fn new(workers: usize) -> Self {
        Self {
            stop: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            workers,
        }
    }

    /// Tells the workers to finish.
    pub fn stop(&self) {
        self.stop.store(true, Release);
    }

    /// Whether they were told.
    #[inline]
    pub fn stopping(&self) -> bool {
        self.stop.load(Acquire)
    }

    /// Says that one worker hands nothing over any more.
    pub fn park(&self) {
        self.parked.fetch_add(1, AcqRel);
    }

    /// Whether no worker hands anything over any more.
    pub fn all_parked(&self) -> bool {
        self.parked.load(Acquire) >= self.workers
    }
}

#[cfg(all(test, shardwall_loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;
    use std::sync::atomic::Ordering::Relaxed;

    /// Each of two workers hands one thing to the other, through a ring that orders nothing itself.
    #[test]
    fn who_sees_all_parked_sees_all_that_was_handed_over() {
        loom::model(|| {
            let halt = Arc::new(Halt::new(2));
            let rings = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let work = move |me: usize, halt: Arc<Halt>, rings: Arc<[AtomicUsize; 2]>| {
                rings[1 - me].store(1, Relaxed);
                halt.park();
                while !halt.all_parked() {
                    thread::yield_now();
                }
                assert_eq!(rings[me].load(Relaxed), 1, "something was left behind");
            };
            let (theirs, other) = (halt.clone(), rings.clone());
            let thread = thread::spawn(move || work(1, theirs, other));
            work(0, halt, rings);
            thread.join().unwrap();
        });
    }
}
