//! What a worker does while a bucket of flows moves ([`crate::dataplane::steer`]): off the path of all
//! packets whose buckets stay.
//!
//! The worker that a bucket leaves keeps the packets of flows that it has and hands on the others. Once
//! it has none, its heir puts by what comes to it by other ways ([`Core::hold`]), until the worker that
//! the bucket left has let pass all that lay in its queues and rings when it was told to
//! ([`Departure`]), and says so behind it, in the same ring. Of what is put by there is at most [`HELD`];
//! the rest is a counted drop.

use super::seen::stray;
use super::{Core, EXPIRE};
use crate::base::time::Now;
use crate::conntrack::shard::{Cursor, Prepared};
use crate::dataplane::command::{self, Command, Counted};
use crate::dataplane::handoff::Handed;
use crate::dataplane::io::{BURST, Batch, Io};
use crate::dataplane::shared::Cause;
use crate::dataplane::steer::{BUCKETS, Standing};
use crate::pipeline::DropReason;
use crate::pipeline::defrag::Group;
use crate::policy::{Compiled, PortId};
use arrayvec::ArrayVec;
use crossbeam::channel::Sender;

/// Frames that a worker puts by at most.
pub(super) const HELD: usize = 1024;
/// Frames that a port's queues of one worker hold at the most: after so many, they are others.
const QUEUED: usize = 16_384;
/// How long what a port does not take may hold a departure up, in nanoseconds.
const UNSENT: u64 = 5_000_000;

/// Where a packet goes whose bucket is not simply this worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Nowhere: it is judged here.
    Here,
    /// To the bucket's owner, who looks for itself.
    Hand(usize),
    /// To the heir of the bucket, who is to judge it.
    Bind(usize),
    /// Nowhere yet.
    Hold,
}

/// A bucket that was turned over to another worker: what must pass before that may be said.
#[derive(Debug)]
pub(super) struct Departure {
    bucket: u8,
    heir: usize,
    /// Frames still to be taken from each worker's ring.
    rings: Box<[usize]>,
    /// Frames still to be taken from each port; none once a queue was seen empty.
    ports: Box<[usize]>,
    /// Since when nothing is missing but that a port takes what waits for it.
    unsent: Option<Now>,
    reply: Sender<()>,
}

impl<I: Io> Core<I> {
    /// Does one piece of work for the control thread.
    #[cold]
    pub(super) fn execute(&mut self, command: Command, now: Now) {
        match command {
            Command::Walk(walk) => self.walks.begin(walk),
            Command::CountBuckets { cursor, reply } => {
                let _ = reply.try_send(self.count_buckets(cursor));
            }
            Command::Depart {
                bucket,
                heir,
                reply,
            } => {
                let rings = 0..self.rings.workers();
                self.departure = Some(Departure {
                    bucket,
                    heir,
                    rings: rings.map(|worker| self.rings.backlog(worker)).collect(),
                    ports: vec![QUEUED; self.out.len()].into(),
                    unsent: None,
                    reply,
                });
            }
            Command::Trace(session) => self.taps.join(session),
            other => command::execute(other, &mut self.pipeline, now),
        }
    }

    /// How many flows of each bucket are in the next piece of the table.
    fn count_buckets(&self, cursor: Cursor) -> Counted {
        let shard = self.pipeline.shard();
        let (flows, next) = shard.scan(cursor, EXPIRE as u32 * 8);
        let mut counts = Box::new([0; BUCKETS]);
        for flow in flows {
            let bucket = self.steer.steering().bucket_of(shard.folded(flow));
            counts[usize::from(bucket)] += 1;
        }
        Counted {
            flows: counts,
            stayed: self.stayed.clone(),
            next,
        }
    }

    /// Where the packet in the slot number `at` goes, which came from a worker, or from a port.
    #[cold]
    pub(super) fn route(&mut self, bucket: u8, at: usize, from: Option<usize>, now: Now) -> Route {
        let prepared = self.slots[at].prepared;
        self.route_of(bucket, &prepared, from, now)
    }

    /// The same for a packet that is in no slot.
    pub(super) fn route_of(
        &mut self,
        bucket: u8,
        prepared: &Prepared,
        from: Option<usize>,
        now: Now,
    ) -> Route {
        let place = self.steer.place(bucket);
        if place.owner() != self.id {
            return Route::Hand(place.owner());
        }
        match place.standing() {
            Standing::Settled => Route::Here,
            Standing::Leaving(heir) => {
                if self.pipeline.shard().peek(prepared, now.ticks()).is_none() {
                    return Route::Bind(heir);
                }
                let stayed = &mut self.stayed[usize::from(bucket) % BUCKETS];
                *stayed = stayed.wrapping_add(1);
                Route::Here
            }
            Standing::Held(before) if from == Some(before) => Route::Here,
            Standing::Held(_) => Route::Hold,
        }
    }

    /// Hands a packet to the heir of its bucket. What this worker sent of an earlier flow with the same
    /// addresses leaves before.
    pub(super) fn bind(&mut self, heir: usize, handed: Handed<I::Buf>) {
        self.flush();
        let handed = Handed {
            bucket: Handed::<I::Buf>::BOUND,
            ..handed
        };
        self.hand_over(heir, handed, Cause::Moved);
    }

    /// Puts a packet by.
    pub(super) fn hold(&mut self, handed: Handed<I::Buf>) {
        if self.held.len() == self.held.capacity() {
            let reason = DropReason::HandoffFull;
            self.pipeline.counters().dropped(reason);
            stray(&mut self.strays, reason, handed.frame, (handed.port, false));
        } else {
            self.held.push(handed);
        }
    }

    /// All from before has passed: the bucket is this worker's, and what was put by is judged. It may
    /// be said twice, if the control thread asked twice; what is put by then is another bucket's.
    #[cold]
    pub(super) fn release(&mut self, policy: &Compiled, now: Now, bucket: u8) {
        if !matches!(self.steer.place(bucket).standing(), Standing::Held(_)) {
            return;
        }
        self.steer.steering().settle(bucket);
        // At most one bucket is held at a time.
        let mut held = std::mem::take(&mut self.held);
        let mut frames = Batch::new();
        let mut ports = ArrayVec::<PortId, BURST>::new();
        let mut group = Group::new();
        for Handed {
            frame,
            port,
            follow,
            ..
        } in held.drain(..)
        {
            if follow != 0 || !group.is_empty() {
                group.push(frame);
                if follow == 0 {
                    self.process(policy, now, std::mem::take(&mut frames), |at| ports[at]);
                    ports.clear();
                    let bound = Some((self.id, Handed::<I::Buf>::BOUND));
                    self.datagram(policy, now, port, std::mem::take(&mut group), bound);
                }
                continue;
            }
            if frames.is_full() {
                self.process(policy, now, std::mem::take(&mut frames), |at| ports[at]);
                ports.clear();
            }
            self.prepare(frames.len(), policy, port, &frame);
            frames.push(frame);
            ports.push(port);
        }
        self.process(policy, now, frames, |at| ports[at]);
        self.held = held;
    }

    /// Notes that a burst of `count` frames was taken from `port`. A short one says little: drivers end
    /// theirs where a ring of descriptors does, or with what they had read ahead.
    #[inline]
    pub(super) fn has_drained(&mut self, port: PortId, count: usize) {
        if let Some(departure) = &mut self.departure {
            let left = &mut departure.ports[usize::from(port.0)];
            *left = if count == 0 {
                0
            } else {
                left.saturating_sub(count)
            };
        }
    }

    /// Notes that `count` items of the ring from `worker` were taken.
    #[inline]
    pub(super) fn has_taken(&mut self, worker: usize, count: usize) {
        if let Some(departure) = &mut self.departure {
            let left = &mut departure.rings[worker];
            *left = left.saturating_sub(count);
        }
    }

    /// Says that all of a bucket that departs has passed, once it has, and been sent. What a port does not
    /// take for [`UNSENT`] is dropped: else a link that is down would hold the bucket up for as long, and
    /// its heir with it.
    #[cold]
    pub(super) fn depart(&mut self, now: Now) {
        let Some(departure) = &self.departure else {
            return;
        };
        let left = departure.rings.iter().chain(&departure.ports);
        if left.sum::<usize>() > 0 {
            return;
        }
        let (heir, bucket) = (departure.heir, departure.bucket);
        self.publish();
        self.flush();
        if !self.out.iter().all(Batch::is_empty) {
            let since = self
                .departure
                .as_mut()
                .map(|it| it.unsent.get_or_insert(now));
            let since = since.map_or(now, |since| *since);
            if now.nanos().saturating_sub(since.nanos()) < UNSENT {
                return;
            }
            self.drop_unsent();
        }
        if self.rings.pass(heir, bucket)
            && let Some(departure) = self.departure.take()
        {
            let _ = departure.reply.try_send(());
        }
    }

    /// Drops what ports did not take.
    fn drop_unsent(&mut self) {
        let full = &self.pipeline.counters().drops[DropReason::TxFull as usize];
        for (port, batch) in self.out.iter_mut().enumerate() {
            full.add(batch.len() as u64);
            if let Some(frame) = batch.pop() {
                let way = (PortId(port as u8), true);
                stray(&mut self.strays, DropReason::TxFull, frame, way);
            }
            self.io.discard(batch);
        }
    }
}
