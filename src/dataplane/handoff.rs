//! The rings between workers: one bounded queue for each ordered pair, so that what one worker
//! hands to another arrives in order and no sender waits for another. What does not fit is a drop that
//! the sender counts.
//!
//! A sender collects up to a burst for each receiver and publishes it at once, and a receiver takes up to
//! a burst at once: either costs the other core a cache line or two a burst, not a packet. Who collects
//! must publish before the end of its loop; nothing waits longer.
//!
//! Concurrency: each ring has one producer and one consumer (crate `rtrb`), which move to their workers.

use super::io::{BURST, Batch};
use super::steer::BUCKETS;
use crate::policy::PortId;
use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer, RingBuffer};

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
    /// The bucket of its flow, or [`Handed::BOUND`].
    pub bucket: u8,
}

impl<B> Handed<B> {
    /// Instead of a bucket: the receiver is to judge the frame, whatever the table says.
    pub const BOUND: u8 = u8::MAX;
}

const _: () = assert!(BUCKETS < Handed::<()>::BOUND as usize);

/// What a ring holds.
#[derive(Debug)]
pub enum Item<B> {
    /// A frame.
    Frame(Handed<B>),
    /// All that its sender had of this bucket, when that was turned over, has passed.
    Passed(u8),
}

/// One worker's ends of the rings.
#[derive(Debug)]
pub struct Rings<B> {
    /// To each worker; the one to itself stays empty.
    to: Vec<Producer<Item<B>>>,
    /// From each worker.
    from: Vec<Consumer<Item<B>>>,
    /// For each worker, what is collected.
    collected: Vec<Batch<Handed<B>>>,
    /// Workers for whom something is, as bits.
    waiting: u128,
    /// The most that waited in one ring when its receiver looked.
    highest: usize,
    /// What waited in the rings to this worker since that was last asked.
    found: usize,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Frames that went.
    pub sent: usize,
    /// Frames that found the ring full, and are gone.
    pub lost: usize,
}

impl<B> Rings<B> {
    /// The rings among `workers` workers, for each its ends.
    pub fn mesh(workers: usize) -> Vec<Rings<B>> {
        let room = if workers > 1 { RING } else { 1 };
        let mut ends: Vec<Rings<B>> = (0..workers)
            .map(|_| Rings {
                to: Vec::new(),
                from: Vec::new(),
                collected: (0..workers).map(|_| Batch::new()).collect(),
                waiting: 0,
                highest: 0,
                found: 0,
            })
            .collect();
        for from in 0..workers {
            for to in 0..workers {
                let (producer, consumer) = RingBuffer::new(if from == to { 1 } else { room });
                ends[from].to.push(producer);
                ends[to].from.push(consumer);
            }
        }
        ends
    }

    /// Collects a frame for `worker`; gives it back if a burst is collected already.
    #[inline]
    pub fn collect(&mut self, worker: usize, handed: Handed<B>) -> Result<(), Handed<B>> {
        self.waiting |= 1 << worker;
        let batch = &mut self.collected[worker];
        batch.try_push(handed).map_err(|full| full.element())
    }

    /// The next worker for whom something is collected.
    #[inline]
    pub fn waiting(&self) -> Option<usize> {
        (self.waiting != 0).then(|| self.waiting.trailing_zeros() as usize)
    }

    /// Publishes what is collected for `worker`; what is lost is given to `lose`.
    #[inline]
    pub fn publish(&mut self, worker: usize, lose: impl FnMut(Handed<B>)) -> Published {
        self.waiting &= !(1 << worker);
        let (ring, batch) = (&mut self.to[worker], &mut self.collected[worker]);
        let sent = batch.len().min(ring.slots());
        if let Ok(chunk) = ring.write_chunk_uninit(sent) {
            chunk.fill_from_iter(batch.drain(..sent).map(Item::Frame));
        }
        let lost = batch.len();
        batch.drain(..).for_each(lose);
        Published { sent, lost }
    }

    /// Frames that will surely find room in the ring to `worker`, behind what is collected: this worker
    /// alone fills it.
    pub fn room(&self, worker: usize) -> usize {
        let collected = self.collected[worker].len();
        self.to[worker].slots().saturating_sub(collected)
    }

    /// Tells `worker`, behind all that was published, that the packets of `bucket` have passed; `false`
    /// if there is no room.
    pub fn pass(&mut self, worker: usize, bucket: u8) -> bool {
        self.to[worker].push(Item::Passed(bucket)).is_ok()
    }

    /// Takes what `worker` handed to this one, up to a burst.
    #[inline]
    pub fn take(&mut self, worker: usize) -> ArrayVec<Item<B>, BURST> {
        let ring = &mut self.from[worker];
        let mut taken = ArrayVec::new();
        let waiting = ring.slots();
        self.found += waiting;
        self.highest = self.highest.max(waiting);
        let count = waiting.min(BURST);
        if count > 0
            && let Ok(chunk) = ring.read_chunk(count)
        {
            taken.extend(chunk);
        }
        taken
    }

    /// What waited in the rings to this worker when [`Rings::take`] looked since the last call of this,
    /// and the most that ever waited in one of them.
    #[inline]
    pub fn fill(&mut self) -> (usize, usize) {
        (std::mem::take(&mut self.found), self.highest)
    }

    /// What `worker` handed to this one that was not taken yet.
    pub fn backlog(&self, worker: usize) -> usize {
        self.from[worker].slots()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.from.len()
    }

    /// Frames that are collected and not published.
    pub fn unpublished(&self) -> usize {
        self.collected.iter().map(ArrayVec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(frame: u32) -> Handed<u32> {
        let (port, follow, bucket) = (PortId(0), 0, 0);
        Handed {
            frame,
            port,
            follow,
            bucket,
        }
    }

    fn frames(taken: ArrayVec<Item<u32>, BURST>) -> Vec<u32> {
        let frames = taken.into_iter().map(|item| match item {
            Item::Frame(handed) => handed.frame,
            Item::Passed(bucket) => 1000 + u32::from(bucket),
        });
        frames.collect()
    }

    #[test]
    fn an_item_is_as_small_as_a_frame_and_four_bytes() {
        assert_eq!(size_of::<Item<std::ptr::NonNull<u8>>>(), 16);
    }

    #[test]
    fn batches_arrive_in_order_and_what_does_not_fit_is_told() {
        let mut ends = Rings::<u32>::mesh(2);
        let (mut next, mut lost) = (0, 0);
        assert_eq!(ends[0].room(1), RING);
        while lost == 0 {
            for _ in 0..BURST - 1 {
                ends[0].collect(1, handed(next)).unwrap();
                next += 1;
            }
            assert_eq!(ends[0].waiting(), Some(1));
            let published = ends[0].publish(1, drop);
            assert_eq!(published.sent + published.lost, BURST - 1);
            lost = published.lost;
            assert_eq!(ends[0].waiting(), None);
        }
        assert_eq!((ends[0].room(1), next as usize - lost), (0, RING));
        assert_eq!(ends[1].fill(), (0, 0), "nobody looked yet");
        assert!(!ends[0].pass(1, 7));
        let mut seen = Vec::new();
        loop {
            let taken = frames(ends[1].take(0));
            if taken.is_empty() {
                break;
            }
            seen.extend(taken);
        }
        assert_eq!(seen, (0..RING as u32).collect::<Vec<_>>());
        let looks = (0..=RING).step_by(BURST).sum::<usize>();
        assert_eq!(ends[1].fill(), (looks, RING));
        assert_eq!(ends[1].fill(), (0, RING), "since the last call");
        assert!(ends[0].pass(1, 7));
        assert_eq!(
            (frames(ends[1].take(0)), ends[1].backlog(0)),
            (vec![1007], 0)
        );
        assert!(frames(ends[0].take(1)).is_empty());
    }

    #[test]
    fn a_burst_is_collected_and_no_more() {
        let mut ends = Rings::<u32>::mesh(3);
        for n in 0..BURST as u32 {
            ends[2].collect(0, handed(n)).unwrap();
        }
        assert_eq!(ends[2].collect(0, handed(99)).unwrap_err().frame, 99);
        assert_eq!(
            (ends[2].unpublished(), ends[2].room(0)),
            (BURST, RING - BURST)
        );
        ends[2].publish(0, drop);
        assert_eq!(frames(ends[0].take(2)).len(), BURST);
    }
}
