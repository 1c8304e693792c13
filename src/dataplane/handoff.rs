//! The rings between workers: one bounded queue for each ordered pair, so that what one worker
//! hands to another arrives in order and no sender waits for another. A full ring is a drop that
//! the sender counts.

use crate::policy::PortId;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Frames that one ring holds.
pub const RING: usize = 1024;

/// A frame on its way to its owner.
#[derive(Debug)]
pub struct Handed<B> {
    /// The frame.
    pub frame: B,
    /// Where it came in.
    pub port: PortId,
    /// How many more fragments of the same datagram come behind it: the first of `n` says `n - 1`,
    /// the last says zero. Zero for a frame that comes alone, also if it is a fragment.
    pub follow: u8,
}

type Ring<B> = Arc<ArrayQueue<Handed<B>>>;

/// One worker's ends of the rings.
#[derive(Debug)]
pub struct Rings<B> {
    /// To each worker; the one to itself stays empty.
    to: Vec<Ring<B>>,
    /// From each worker.
    from: Vec<Ring<B>>,
}

impl<B> Rings<B> {
    /// The rings among `workers` workers, for each its ends.
    pub fn mesh(workers: usize) -> Vec<Rings<B>> {
        // all[from][to]
        let ring = || Arc::new(ArrayQueue::new(if workers > 1 { RING } else { 1 }));
        let all: Vec<Vec<Ring<B>>> = (0..workers)
            .map(|_| (0..workers).map(|_| ring()).collect())
            .collect();
        (0..workers)
            .map(|me| Rings {
                to: all[me].clone(),
                from: all.iter().map(|row| row[me].clone()).collect(),
            })
            .collect()
    }

    /// Hands a frame to `worker`; gives it back if the ring is full.
    #[inline]
    pub fn push(&self, worker: usize, handed: Handed<B>) -> Result<(), Handed<B>> {
        self.to[worker].push(handed)
    }

    /// Frames that the ring to `worker` surely has room for: this worker alone fills it.
    pub fn room(&self, worker: usize) -> usize {
        let ring = &self.to[worker];
        ring.capacity() - ring.len()
    }

    /// The next frame that `worker` handed to this one.
    #[inline]
    pub fn pop(&self, worker: usize) -> Option<Handed<B>> {
        self.from[worker].pop()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.from.len()
    }
}
