//! Which worker owns a packet's flow. A flow is in one of [`BUCKETS`] buckets, by the Toeplitz hash
//! that a NIC is told to spread packets by, and a table says whose each bucket is. So both directions
//! of a flow, and ICMP errors about it, come to one worker whatever port they come in by; a NIC brings
//! most packets to their owner at once, and where it does not (a port without RSS, another hash, a kind
//! of packet that it hashes otherwise) the owner is the same, and the packet is handed over.
//!
//! The hash is symmetric and therefore linear: see [`crate::base::toeplitz`]. Hosts of two rows that talk
//! in pairs (10.0.0.n with 10.1.0.n, ports alike) are one bucket, and somebody who sends packets can
//! choose flows of one bucket. What they load is one worker; nothing here chooses a place in its table.
//! The algorithms of NICs that sort addresses before they hash (DPDK's `SYMMETRIC_TOEPLITZ`) are not
//! used: they differ from model to model, and two ports must agree.
//!
//! Fragments have no ports: what the fragments of a datagram share brings them to one worker
//! ([`Steer::collector`]), who finds the flow's owner once the datagram is whole.
//!
//! # How a bucket moves
//! Flows stay where they are; a bucket moves under them ([`Place`]):
//! 1. *Settled* with A.
//! 2. *Leaving* A for B: all send its packets to A still. A keeps those of flows that it has, and hands
//!    others to B. So what is old stays with A until it ends, what begins is B's, and each flow's packets
//!    go one way, through queues that keep their order.
//! 3. *Held* by B, once A has no flow of the bucket left, and so will not have any again: all send its
//!    packets to B, who puts by what does not come through A, until A says that everything from before
//!    has passed. Once all know, and so B does, the NICs' tables are turned to B; what A's queues still
//!    hold passes before A says so.
//! 4. *Settled* with B.
//!
//! Concurrency: the table is read by all workers and written by control threads, but for the last step,
//! which is B's; of two that change a place at the same time one finds it changed. A reader sees each
//! place at some recent value; the protocol above holds with any.

use crate::base::hash::HashKey;
use crate::base::toeplitz::{SymmetricKey, Toeplitz};
use crate::conntrack::tuple::AnyKey;
use crate::pipeline::defrag::FragmentKey;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::AcqRel, Ordering::Acquire};

/// How many buckets there are: as many entries as most NICs' tables have.
pub const BUCKETS: usize = 128;

/// Most workers that a place can name.
const MAX_WORKERS: u16 = 128;

/// Whose a bucket is, in 16 bits: the worker that its packets go to, another that has to do with it, and
/// which of the three this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u16);

/// A [`Place`], taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All its flows are the owner's.
    Settled,
    /// New flows are this worker's.
    Leaving(usize),
    /// Packets from before still come through this worker.
    Held(usize),
}

impl Place {
    const LEAVING: u16 = 1 << 14;
    const HELD: u16 = 2 << 14;

    const fn settled(owner: usize) -> Self {
        Self(owner as u16 % MAX_WORKERS)
    }

    const fn with(self, other: usize, standing: u16) -> Self {
        Self(self.0 | (other as u16 % MAX_WORKERS) << 7 | standing)
    }

    /// Whether it is the bucket of `worker`, and nothing else need be looked at.
    #[inline(always)]
    pub const fn is_of(self, worker: usize) -> bool {
        self.0 as usize == worker
    }

    /// Whether it does not move.
    #[inline(always)]
    pub const fn is_settled(self) -> bool {
        self.0 < MAX_WORKERS
    }

    /// Who gets its packets.
    #[inline(always)]
    pub const fn owner(self) -> usize {
        (self.0 % MAX_WORKERS) as usize
    }

    /// How it stands with its move.
    pub const fn standing(self) -> Standing {
        let other = (self.0 >> 7 & 127) as usize;
        match self.0 & (Self::LEAVING | Self::HELD) {
            Self::LEAVING => Standing::Leaving(other),
            Self::HELD => Standing::Held(other),
            _ => Standing::Settled,
        }
    }
}

/// On a line of its own, which all workers keep in their caches.
#[derive(Debug)]
#[repr(align(64))]
struct Places([AtomicU16; BUCKETS]);

/// The assignment of flows to workers, for all of one box.
#[derive(Debug)]
pub struct Steering {
    key: SymmetricKey,
    toeplitz: Toeplitz,
    /// Of fragments.
    secret: HashKey,
    workers: usize,
    places: Places,
}

impl Steering {
    /// Flows spread over `workers` workers by `key`, buckets dealt out in turn, for NICs whose smallest
    /// table has `entries` entries: buckets that share one have one owner. Fragments go by `secret`.
    pub fn new(key: SymmetricKey, secret: HashKey, workers: usize, entries: usize) -> Arc<Self> {
        let entries = entries.clamp(1, BUCKETS);
        let place = |bucket: usize| Place::settled(bucket % entries % workers);
        Arc::new(Self {
            key,
            toeplitz: Toeplitz::new(key),
            secret,
            workers,
            places: Places(std::array::from_fn(|bucket| {
                AtomicU16::new(place(bucket).0)
            })),
        })
    }

    /// The key that NICs hash by.
    pub fn key(&self) -> SymmetricKey {
        self.key
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The bucket of flows whose hashed words, put together, are `folded`.
    #[inline(always)]
    pub fn bucket_of(&self, folded: u16) -> u8 {
        bucket(self.half_of(folded).into())
    }

    /// Either half of their hash, as a NIC tells it.
    #[inline(always)]
    pub fn half_of(&self, folded: u16) -> u16 {
        self.toeplitz.half(folded)
    }

    /// Whose `bucket` is.
    #[inline(always)]
    pub fn place(&self, bucket: u8) -> Place {
        Place(self.places.0[usize::from(bucket) % BUCKETS].load(Acquire))
    }

    /// Puts `to` in the place of `from`, if that is there still.
    fn change(&self, bucket: u8, from: Place, to: Place) -> bool {
        let place = &self.places.0[usize::from(bucket) % BUCKETS];
        let changed = place.compare_exchange(from.0, to.0, AcqRel, Acquire);
        changed.is_ok()
    }

    /// The worker that packets of each bucket go to, as a NIC is told.
    pub fn owners(&self) -> [u8; BUCKETS] {
        std::array::from_fn(|bucket| self.place(bucket as u8).owner() as u8)
    }

    /// Lets a settled bucket leave its owner for `heir`: `false` if it moves already, or need not.
    pub fn leave(&self, bucket: u8, heir: usize) -> bool {
        let place = self.place(bucket);
        let may = place.is_settled() && !place.is_of(heir) && heir < self.workers;
        may && self.change(bucket, place, place.with(heir, Place::LEAVING))
    }

    /// Turns a bucket that leaves, and of which no flow is left, over to its heir, who holds it until
    /// the one that it leaves has said that nothing is under way; both, or `None` if it does not leave.
    pub fn turn_over(&self, bucket: u8) -> Option<(usize, usize)> {
        let place = self.place(bucket);
        let Standing::Leaving(heir) = place.standing() else {
            return None;
        };
        let from = place.owner();
        let held = Place::settled(heir).with(from, Place::HELD);
        self.change(bucket, place, held).then_some((from, heir))
    }

    /// Ends the move of a bucket that is held: its holder says so.
    pub(super) fn settle(&self, bucket: u8) {
        let place = self.place(bucket);
        if let Standing::Held(_) = place.standing() {
            self.change(bucket, place, Place::settled(place.owner()));
        }
    }
}

/// The bucket of a packet with this hash, NIC's or ours: NICs index their tables by its lowest bits.
#[inline(always)]
pub const fn bucket(hash: u32) -> u8 {
    (hash % BUCKETS as u32) as u8
}

/// What one worker knows of it.
#[derive(Clone, Debug)]
pub struct Steer {
    steering: Arc<Steering>,
    /// Nobody shares flows with this worker.
    alone: bool,
}

impl Steer {
    /// For a worker of `steering`.
    pub fn new(steering: Arc<Steering>) -> Self {
        let alone = steering.workers == 1;
        Self { steering, alone }
    }

    /// Whether there is one worker, who owns everything.
    #[inline(always)]
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// What all share of it.
    pub fn steering(&self) -> &Arc<Steering> {
        &self.steering
    }

    /// The bucket of the flow with `key`.
    #[inline(always)]
    pub fn bucket(&self, key: &AnyKey) -> u8 {
        self.steering.bucket_of(key.folded())
    }

    /// Either half of the hash that a NIC tells of the packets of the flow with `key`.
    #[inline(always)]
    pub fn half(&self, key: &AnyKey) -> u16 {
        self.steering.half_of(key.folded())
    }

    /// Whose `bucket` is.
    #[inline(always)]
    pub fn place(&self, bucket: u8) -> Place {
        self.steering.place(bucket)
    }

    /// Who puts the datagram with this fragment together, whatever moves: one worker for all datagrams
    /// between two hosts, or those of one flow could overtake each other on their ways over several.
    pub fn collector(&self, key: &FragmentKey) -> usize {
        // The upper half times the number of workers: even, without a division.
        let hash = key.path_hash(&self.steering.secret) >> 32;
        ((hash * self.steering.workers as u64) >> 32) as usize
    }
}

#[cfg(test)]
mod tests;
