//! Traces, from the workers to who asked for them.
//!
//! Life-cycle: the control thread makes a [`Session`], sends it to every worker's mailbox, takes out of
//! its queues what the workers put in, and ends it; a worker lets go of one that has ended in its next
//! loop. Concurrency: a worker writes its own `End` and nothing else; it never waits: what finds the
//! queue full, or comes too fast, is counted and left out. A worker without sessions looks at one empty
//! list a burst.

use crate::base::counter::Counter;
use crate::base::time::Now;
use crate::pipeline::trace::{Filter, Sighting, Traced};
use crate::pipeline::{DropReason, Outcome};
use crate::policy::{Compiled, PortId};
use crate::wire::Parsed;
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Sessions that a worker serves at once.
pub const SESSIONS: usize = 4;
/// Packets that may wait in one worker's queue of one session.
pub const QUEUE: usize = 512;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which packets.
    pub filter: Filter,
    /// One of so many; 0 and 1 mean each.
    pub sample: u32,
    /// Packets a second and worker, at most.
    pub rate: u32,
    /// Bytes of each that are kept, at most.
    pub snaplen: usize,
}

/// One trace.
#[derive(Debug)]
pub struct Session {
    wanted: Wanted,
    ends: Box<[End]>,
    ended: AtomicBool,
}

/// One worker's part of a session.
#[derive(Debug)]
struct End {
    queue: ArrayQueue<Traced>,
    joined: AtomicBool,
    counts: Counts<Counter>,
}

/// What became of the packets that a session means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts<T = u64> {
    /// Packets that the filter means.
    pub meant: T,
    /// Left out by sampling.
    pub not_sampled: T,
    /// Left out because they came faster than the rate.
    pub over_rate: T,
    /// Left out because nobody took others out of the queue in time.
    pub queue_full: T,
}

impl Session {
    /// For `workers` workers.
    pub fn new(workers: usize, wanted: Wanted) -> Arc<Self> {
        let end = |_| End {
            queue: ArrayQueue::new(QUEUE),
            joined: AtomicBool::new(false),
            counts: Counts::default(),
        };
        Arc::new(Self {
            wanted,
            ends: (0..workers).map(end).collect(),
            ended: AtomicBool::new(false),
        })
    }

    /// Whether every worker serves it.
    pub fn has_begun(&self) -> bool {
        self.ends
            .iter()
            .all(|end| end.joined.load(Ordering::Acquire))
    }

    /// The first worker that does not serve it yet.
    pub fn missing(&self) -> Option<usize> {
        let joined = |end: &End| end.joined.load(Ordering::Acquire);
        self.ends.iter().position(|end| !joined(end))
    }

    /// Tells the workers to let go of it.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Moves what waits to `to`: at most one queue full of each worker.
    pub fn take(&self, to: &mut Vec<Traced>) {
        for end in &self.ends {
            to.extend(std::iter::from_fn(|| end.queue.pop()).take(QUEUE));
        }
    }

    /// What became of the packets, over all workers.
    pub fn counts(&self) -> Counts {
        let sum = |of: fn(&Counts<Counter>) -> &Counter| -> u64 {
            self.ends.iter().map(|end| of(&end.counts).get()).sum()
        };
        Counts {
            meant: sum(|counts| &counts.meant),
            not_sampled: sum(|counts| &counts.not_sampled),
            over_rate: sum(|counts| &counts.over_rate),
            queue_full: sum(|counts| &counts.queue_full),
        }
    }
}

/// A worker's hold on one session.
#[derive(Debug)]
struct Tap {
    session: Arc<Session>,
    /// Packets that are left out before the next one is taken.
    skip: u32,
    second: u64,
    /// Packets taken in that second.
    taken: u32,
}

/// The sessions that a worker serves.
#[derive(Debug)]
pub struct Taps {
    worker: usize,
    taps: ArrayVec<Tap, SESSIONS>,
}

/// A packet that may be traced.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When.
    pub at: Now,
    /// Where it came in; where it was to leave, if `leaving`.
    pub port: PortId,
    /// It was judged before, and lost on its way out.
    pub leaving: bool,
    /// Frames that it came in.
    pub frames: usize,
    /// Its headers.
    pub parsed: &'a Parsed,
    /// Its first segment; of fragments what they were joined to.
    pub data: &'a [u8],
}

impl Taps {
    /// None, of worker number `worker`.
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            taps: ArrayVec::new(),
        }
    }

    /// Whether nobody asks.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    /// Serves `session`, if there is room.
    pub fn join(&mut self, session: Arc<Session>) {
        let Some(end) = session.ends.get(self.worker) else {
            return;
        };
        if self.taps.is_full() {
            return;
        }
        end.joined.store(true, Ordering::Release);
        self.taps.push(Tap {
            session,
            skip: 0,
            second: 0,
            taken: 0,
        });
    }

    /// Lets go of sessions that have ended. The control thread holds on to them longer, so that no memory
    /// is given back here.
    #[cold]
    pub fn begin(&mut self) {
        self.taps
            .retain(|tap| !tap.session.ended.load(Ordering::Relaxed));
    }

    /// Whether somebody may ask for a packet that came in by `iif`.
    pub fn may_want(&self, policy: &Compiled, iif: PortId, packet: &Parsed) -> bool {
        let mut filters = self.taps.iter().map(|tap| &tap.session.wanted.filter);
        filters.any(|filter| filter.may_mean(policy, iif, packet))
    }

    /// Tells whoever wants to know about `packet` that it met `seen`, and what came of that.
    pub fn tell(
        &mut self,
        policy: &Compiled,
        packet: &Packet<'_>,
        outcome: &Outcome,
        seen: &Sighting,
    ) {
        for tap in &mut self.taps {
            let filter = &tap.session.wanted.filter;
            if filter.may_mean(policy, packet.port, packet.parsed)
                && filter.means(policy, outcome, seen)
            {
                tap.take(self.worker, policy, packet, outcome, seen);
            }
        }
    }

    /// The same of a packet that was lost for `reason` apart from any judgement.
    pub fn tell_lost(&mut self, policy: &Compiled, packet: &Packet<'_>, reason: DropReason) {
        let outcome = Outcome::lost(reason);
        let way = (packet.port, packet.leaving);
        for tap in &mut self.taps {
            let filter = &tap.session.wanted.filter;
            if filter.means_lost(policy, way, packet.parsed, &outcome) {
                tap.take(self.worker, policy, packet, &outcome, &Sighting::default());
            }
        }
    }
}

impl Tap {
    fn take(
        &mut self,
        worker: usize,
        policy: &Compiled,
        packet: &Packet<'_>,
        outcome: &Outcome,
        seen: &Sighting,
    ) {
        let Some(end) = self.session.ends.get(worker) else {
            return;
        };
        let (wanted, counts) = (&self.session.wanted, &end.counts);
        counts.meant.add(1);
        if self.skip > 0 {
            self.skip -= 1;
            return counts.not_sampled.add(1);
        }
        self.skip = wanted.sample.saturating_sub(1);
        let second = packet.at.nanos() / 1_000_000_000;
        if second != self.second {
            (self.second, self.taken) = (second, 0);
        }
        if self.taken >= wanted.rate {
            return counts.over_rate.add(1);
        }
        self.taken += 1;
        let traced = Traced::new(
            packet.at,
            policy.generation(),
            worker as u16,
            (packet.port, packet.leaving),
            packet.frames,
            packet.parsed,
            (*outcome, seen.clone()),
            packet.data,
            wanted.snaplen,
        );
        if end.queue.push(traced).is_err() {
            counts.queue_full.add(1);
        }
    }
}
