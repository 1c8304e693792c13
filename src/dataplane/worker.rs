//! The worker: one core, its queues, its shard, from frame to frame.
//!
//! A loop: say "quiescent" and take the newest policy; take a burst from each port, and what other
//! workers handed over; send; end flows whose time has come; do at most one request of the control
//! thread, and a step of what goes over all flows; read the clock, for the next loop and for the histogram
//! of this one. A frame whose flow
//! another worker owns goes to that worker's ring and is parsed again there, so a flow is only ever
//! touched by its owner.
//!
//! What is to be sent waits for the end of its loop and no longer, so that a loop's time bounds it
//! without a timer. To hold frames over loops would fill the bursts of a worker that has time to
//! spare, and delay what they hold; one that has none takes longer for a loop, finds more frames in
//! the next, and so fills its bursts by itself: of frames at a rate r, with a time c for each and f for
//! the rest of a loop, a loop finds r f / (1 - r c).
//!
//! A fragment goes to the worker that collects its datagram ([`Steer::collector`]). Once that is
//! whole, its flow's owner decides; if that is another worker, all fragments go to it as one group
//! that stays together in the ring, and are put together again there.
//!
//! Owned by its thread; shares only what [`super::shared`] and the rings hold.

mod fragments;
mod moves;
mod seen;

use super::command::Command;
use super::examples::Due;
use super::handoff::{Handed, Item, RING, Rings};
use super::idle::{Idle, Rest};
use super::io::{BURST, Batch, Frame, Io};
use super::rss::Belief;
use super::shared::{Cause, Shared, WorkerCounters};
use super::steer::{BUCKETS, Steer, bucket};
use super::trace::Taps;
use super::walk::Walks;
use crate::base::rcu::Reader;
use crate::base::time::Now;
use crate::conntrack::types::CtState;
use crate::pipeline::defrag::{Defrag, Group};
use crate::pipeline::reject::{self, MAX_ANSWER};
use crate::pipeline::{Disposition, DropReason, Outcome, Pipeline, Slot};
use crate::policy::{Compiled, PortId, RejectWith, RuleId};
use crate::wire::Parsed;
use crate::wire::fragment::MAX_JOINED;
use arrayvec::ArrayVec;
use crossbeam::channel::{Receiver, Sender};
use moves::{Departure, Route};
use seen::{Strays, stray};
use std::sync::Arc;

/// Bursts that one loop takes out of a ring, at most. Not just as many as another worker hands over in a
/// loop: of two that give each other all they get, the slower one would then take less and less of what the
/// faster one gives, and its ring would overflow. One that finds more in its rings polls its ports less often.
const DRAIN: usize = RING / BURST / 2;
/// Entries whose timers one loop looks at, at most.
const EXPIRE: usize = 64;
/// Datagrams whose time to become whole has passed, that one loop drops at most.
const EXPIRE_DATAGRAMS: usize = 8;

/// A packet that a rule wants logged; the control thread writes it.
#[derive(Debug, Clone, Copy)]
pub struct LogEvent {
    /// The rule, of this generation's policy.
    pub rule: RuleId,
    /// Which policy.
    pub generation: u32,
    /// The packet.
    pub packet: Parsed,
    /// Where it came in.
    pub iif: PortId,
    /// Its state.
    pub state: CtState,
    /// What became of it.
    pub disposition: Disposition,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts<I: Io> {
    /// Its number.
    pub id: usize,
    /// Its view of the ports.
    pub io: I,
    /// Its packet path.
    pub pipeline: Pipeline,
    /// Its fragments.
    pub defrag: Defrag<I::Buf>,
    /// Its ends of the rings.
    pub rings: Rings<I::Buf>,
    /// Requests.
    pub commands: Receiver<Command>,
    /// Where log events go.
    pub log: Sender<LogEvent>,
    /// Its membership of the policy's readers.
    pub reader: Reader,
    /// What all share.
    pub shared: Arc<Shared>,
    /// What to do while there is nothing to do.
    pub idle: Idle,
}

/// A worker, ready to run on its thread.
#[derive(Debug)]
pub struct Worker<I: Io> {
    core: Core<I>,
    reader: Reader,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    idle: Idle,
}

/// Everything but what a burst borrows for its whole length (the policy, through the reader).
#[derive(Debug)]
struct Core<I: Io> {
    id: usize,
    io: I,
    pipeline: Pipeline,
    defrag: Defrag<I::Buf>,
    /// Where a datagram is put together.
    joined: Box<[u8]>,
    rings: Rings<I::Buf>,
    /// From each worker, the group that is on its way, as far as it was taken.
    arriving: Box<[Group<I::Buf>]>,
    steer: Steer,
    /// Of each port, whether the hash that it tells is to be believed.
    beliefs: Box<[Belief]>,
    /// What this worker puts by of a bucket that comes to it.
    held: Vec<Handed<I::Buf>>,
    /// A bucket that goes from it.
    departure: Option<Departure>,
    /// Packets of each bucket that leaves which found their flow here still.
    stayed: Box<[u32; BUCKETS]>,
    /// What goes over all flows.
    walks: Walks,
    log: Sender<LogEvent>,
    /// Who asks for what packets meet.
    taps: Taps,
    /// When each drop reason was last shown.
    due: Due,
    /// What was lost in this loop.
    strays: Strays<I::Buf>,
    shared: Arc<Shared>,
    /// Frames that wait to be sent, for each port.
    out: Vec<Batch<I::Buf>>,
    answer: Box<[u8; MAX_ANSWER]>,
    /// The packets of the burst at hand, owned ones first.
    slots: Box<[Slot; BURST]>,
}

impl<I: Io> Worker<I> {
    /// Puts a worker together.
    pub fn new(parts: Parts<I>) -> Self {
        let out = (0..parts.io.ports()).map(|_| Batch::new()).collect();
        let arriving = (0..parts.rings.workers()).map(|_| Group::new()).collect();
        let ports = (0..parts.io.ports()).map(|port| parts.io.hashes(PortId(port as u8)));
        let beliefs = ports.map(Belief::new).collect();
        let steer = Steer::new(parts.shared.steering.clone());
        let held = if steer.is_alone() { 0 } else { moves::HELD };
        Self {
            core: Core {
                id: parts.id,
                io: parts.io,
                pipeline: parts.pipeline,
                defrag: parts.defrag,
                joined: vec![0; MAX_JOINED].into(),
                rings: parts.rings,
                arriving,
                steer,
                beliefs,
                held: Vec::with_capacity(held),
                departure: None,
                stayed: Box::new([0; BUCKETS]),
                walks: Walks::default(),
                log: parts.log,
                taps: Taps::new(parts.id),
                due: Due::default(),
                strays: Strays::new(),
                shared: parts.shared.clone(),
                out,
                answer: Box::new([0; MAX_ANSWER]),
                slots: Box::new([Slot::default(); BURST]),
            },
            reader: parts.reader,
            commands: parts.commands,
            shared: parts.shared,
            idle: parts.idle,
        }
    }

    /// Runs until the appliance stops, and gives the ports back.
    pub fn run(mut self) -> I {
        let mut rest = Rest::new(self.idle);
        let mut now = self.shared.clock.now();
        while !self.shared.stopping() {
            let (moved, end) = self.step(now);
            now = end;
            if rest.after(moved) {
                now = self.shared.clock.now();
                self.core.counters().rested(end, now);
            }
        }
        self.shared.park();
        while !self.shared.all_parked() {
            std::thread::yield_now();
        }
        self.finish()
    }

    /// What it does with its time.
    #[cfg(test)]
    pub(super) fn set_idle(&mut self, idle: Idle) {
        self.idle = idle;
    }

    /// One loop at time `now`; returns how many frames it took.
    pub fn turn(&mut self, now: Now) -> usize {
        self.step(now).0
    }

    /// One loop at time `now`: how many frames it took, and when it ended.
    fn step(&mut self, now: Now) -> (usize, Now) {
        self.reader.quiescent();
        let policy = self.shared.policy.read(&self.reader);
        let core = &mut self.core;
        let watched = self.shared.watched();
        core.pipeline.begin_policy(policy);
        core.pipeline.shard_mut().begin(now, watched);
        if !core.taps.is_empty() {
            core.taps.begin();
        }
        let mut moved = 0;
        for port in 0..core.out.len() {
            moved += core.receive(policy, now, PortId(port as u8));
        }
        for worker in 0..core.rings.workers() {
            for _ in 0..DRAIN {
                match core.take_handed(policy, now, worker) {
                    0 => break,
                    taken => moved += taken,
                }
            }
        }
        if core.departure.is_some() {
            core.depart(now);
        }
        core.publish_fill();
        core.flush();
        core.pipeline.shard_mut().expire(now.ticks(), EXPIRE);
        core.defrag.expire(now.ticks(), EXPIRE_DATAGRAMS);
        core.show_ended(policy, now);
        if !core.strays.is_empty() {
            core.show_strays(policy, now);
        }
        core.pipeline.shard().publish_entries();
        let mut busy = moved > 0;
        if !core.walks.is_full()
            && let Ok(command) = self.commands.try_recv()
        {
            core.execute(command, now);
            busy = true;
        }
        let (pipeline, clock) = (&mut core.pipeline, &self.shared.clock);
        busy |= core.walks.go(pipeline, policy, now, moved > 0, clock);
        let end = self.shared.clock.now();
        core.counters().looped(busy, now, end);
        (moved, end)
    }

    /// Counts what is still under way, so that the balance closes, and gives the ports back.
    pub(super) fn finish(mut self) -> I {
        self.core.flush();
        let mut left = 0;
        for batch in &mut self.core.out {
            left += batch.len();
            batch.clear();
        }
        for worker in 0..self.core.rings.workers() {
            loop {
                let taken = self.core.rings.take(worker);
                if taken.is_empty() {
                    break;
                }
                let frames = taken.iter().filter(|it| matches!(it, Item::Frame(_)));
                left += frames.count();
            }
            left += self.core.arriving[worker].drain(..).count();
        }
        left += self.core.held.drain(..).count() + self.core.rings.unpublished();
        self.core.defrag.clear(DropReason::Shutdown);
        for _ in 0..left {
            self.core.pipeline.counters().dropped(DropReason::Shutdown);
        }
        self.core.io
    }
}

impl<I: Io> Core<I> {
    fn counters(&self) -> &WorkerCounters {
        &self.shared.workers[self.id]
    }

    /// First stage for `frame`, which came in by `port`, into the slot number `at`.
    #[inline]
    fn prepare(&mut self, at: usize, policy: &Compiled, port: PortId, frame: &I::Buf) {
        let slot = &mut self.slots[at];
        let (data, len) = (frame.data(), frame.frame_len());
        self.pipeline.prepare(slot, policy, port, data, len);
        slot.parsed.l4_sum = frame.l4_sum();
    }

    /// Takes a burst from `port`.
    fn receive(&mut self, policy: &Compiled, now: Now, port: PortId) -> usize {
        let mut arrived = Batch::new();
        self.io.rx(port, &mut arrived);
        let received = arrived.len();
        self.has_drained(port, received);
        if received == 0 {
            return 0;
        }
        let bytes = if self.steer.is_alone() {
            let mut bytes = 0;
            for (at, frame) in arrived.iter().enumerate() {
                bytes += frame.frame_len() as u64;
                self.prepare(at, policy, port, frame);
            }
            self.process(policy, now, arrived, |_| port);
            bytes
        } else {
            self.deal(policy, now, port, arrived)
        };
        let counters = self.counters();
        counters.path.received.add(received as u64);
        let rx = &counters.ports[usize::from(port.0)].rx;
        rx.packets.add(received as u64);
        rx.bytes.add(bytes);
        received
    }

    /// Deals out a burst from `port`: hands over what others own, and takes the rest through the later
    /// stages. Returns its bytes.
    fn deal(&mut self, policy: &Compiled, now: Now, port: PortId, arrived: Batch<I::Buf>) -> u64 {
        let mut bytes = 0;
        let mut frames = Batch::new();
        self.beliefs[usize::from(port.0)].begin();
        for frame in arrived {
            bytes += frame.frame_len() as u64;
            // The slot of a frame that is handed over serves the next one.
            let at = frames.len();
            self.prepare(at, policy, port, &frame);
            let Slot { parsed, prepared } = &self.slots[at];
            if parsed.fragment.is_part() {
                let owner = self.collector(port, frame.data(), parsed);
                if owner == self.id {
                    // At once: its datagram may go to another worker, as may what follows.
                    frames.push(frame);
                    self.process(policy, now, std::mem::take(&mut frames), |_| port);
                } else {
                    let handed = Handed {
                        frame,
                        port,
                        follow: 0,
                        bucket: Handed::<I::Buf>::BOUND,
                    };
                    self.hand_over(owner, handed, Cause::Fragment);
                }
                continue;
            }
            let Some(key) = prepared.key() else {
                frames.push(frame);
                continue;
            };
            let belief = &mut self.beliefs[usize::from(port.0)];
            let counters = &self.shared.workers[self.id];
            let compute = || self.steer.half(key);
            let bucket = match frame.rss() {
                Some(told) => {
                    let counters = &counters.ports[usize::from(port.0)];
                    belief.bucket(told, parsed, counters, compute)
                }
                None => bucket(compute().into()),
            };
            counters.buckets[usize::from(bucket) % BUCKETS].add(1);
            let place = self.steer.place(bucket);
            if place.is_of(self.id) {
                frames.push(frame);
                continue;
            }
            let cause = match (prepared.is_error(), belief.spreads()) {
                (true, _) => Cause::IcmpError,
                (_, true) => Cause::OtherHash,
                (_, false) => Cause::NoRss,
            };
            let handed = Handed {
                frame,
                port,
                follow: 0,
                bucket,
            };
            if place.is_settled() {
                self.hand_over(place.owner(), handed, cause);
                continue;
            }
            if at > 0 {
                // What came before it may be what its flow is known by.
                self.process(policy, now, std::mem::take(&mut frames), |_| port);
                self.slots[0] = self.slots[at];
            }
            match self.route(bucket, 0, None, now) {
                Route::Here => frames.push(handed.frame),
                Route::Hand(owner) => self.hand_over(owner, handed, cause),
                Route::Bind(heir) => self.bind(heir, handed),
                Route::Hold => self.hold(handed),
            }
        }
        self.publish();
        self.process(policy, now, frames, |_| port);
        bytes
    }

    /// Collects a frame for `owner`.
    #[inline]
    fn hand_over(&mut self, owner: usize, handed: Handed<I::Buf>, cause: Cause) {
        self.counters().handed[cause as usize].add(1);
        if let Err(handed) = self.rings.collect(owner, handed) {
            self.publish_to(owner);
            // There is room for a burst now.
            let _ = self.rings.collect(owner, handed);
        }
    }

    /// Publishes what is collected for others.
    #[inline]
    fn publish(&mut self) {
        while let Some(worker) = self.rings.waiting() {
            self.publish_to(worker);
        }
    }

    fn publish_to(&mut self, worker: usize) {
        let (rings, strays) = (&mut self.rings, &mut self.strays);
        let published = rings.publish(worker, |lost| {
            stray(
                strays,
                DropReason::HandoffFull,
                lost.frame,
                (lost.port, false),
            );
        });
        self.counters().handed_out.add(published.sent as u64);
        let full = &self.pipeline.counters().drops[DropReason::HandoffFull as usize];
        full.add(published.lost as u64);
    }

    /// Publishes how full the rings to this worker are, if that changed.
    #[inline]
    fn publish_fill(&mut self) {
        let (found, highest) = self.rings.fill();
        let counters = &self.shared.workers[self.id];
        for (gauge, now) in [
            (&counters.ring_waiting, found as u64),
            (&counters.ring_highest, highest as u64),
        ] {
            if gauge.get() != now {
                gauge.set(now);
            }
        }
    }

    /// Takes what `worker` handed over, a burst at most.
    fn take_handed(&mut self, policy: &Compiled, now: Now, worker: usize) -> usize {
        let taken = self.rings.take(worker);
        let mut count = 0;
        if !taken.is_empty() {
            self.has_taken(worker, taken.len());
            let mut frames = Batch::new();
            let mut ports = ArrayVec::<PortId, BURST>::new();
            for item in taken {
                match item {
                    Item::Frame(handed) => {
                        count += 1;
                        self.take(policy, now, worker, handed, &mut frames, &mut ports);
                    }
                    Item::Passed(bucket) => {
                        self.process(policy, now, std::mem::take(&mut frames), |at| ports[at]);
                        ports.clear();
                        self.release(policy, now, bucket);
                    }
                }
            }
            self.counters().handed_in.add(count as u64);
            self.publish();
            self.process(policy, now, frames, |at| ports[at]);
            // Of datagrams that became whole.
            self.publish();
        }
        count
    }

    /// Takes one frame that `worker` handed over: it joins those that came in by `ports`, or goes on.
    #[inline]
    fn take(
        &mut self,
        policy: &Compiled,
        now: Now,
        worker: usize,
        handed: Handed<I::Buf>,
        frames: &mut Batch<I::Buf>,
        ports: &mut ArrayVec<PortId, BURST>,
    ) {
        let (port, bucket) = (handed.port, handed.bucket);
        if handed.follow != 0 || !self.arriving[worker].is_empty() {
            self.arriving[worker].push(handed.frame);
            if handed.follow == 0 {
                // What came before it is decided before it.
                self.process(policy, now, std::mem::take(frames), |at| ports[at]);
                ports.clear();
                let group = self.arriving[worker].take();
                self.datagram(policy, now, port, group, Some((worker, bucket)));
            }
            return;
        }
        let at = frames.len();
        self.prepare(at, policy, port, &handed.frame);
        let bound = bucket == Handed::<I::Buf>::BOUND;
        if !bound && !self.steer.place(bucket).is_of(self.id) {
            if at > 0 {
                self.process(policy, now, std::mem::take(frames), |at| ports[at]);
                ports.clear();
                self.slots[0] = self.slots[at];
            }
            match self.route(bucket, 0, Some(worker), now) {
                Route::Here => {}
                Route::Hand(owner) => return self.hand_over(owner, handed, Cause::Moved),
                Route::Bind(heir) => return self.bind(heir, handed),
                Route::Hold => return self.hold(handed),
            }
        }
        frames.push(handed.frame);
        ports.push(port);
    }

    /// The later stages, over frames whose flows this worker owns.
    fn process(
        &mut self,
        policy: &Compiled,
        now: Now,
        frames: Batch<I::Buf>,
        port: impl Fn(usize) -> PortId,
    ) {
        if self.taps.is_empty() {
            self.burst::<false>(policy, now, frames, port);
        } else {
            self.process_tapped(policy, now, frames, port);
        }
    }

    /// The same, while somebody asks what packets meet.
    #[cold]
    #[inline(never)]
    fn process_tapped(
        &mut self,
        policy: &Compiled,
        now: Now,
        frames: Batch<I::Buf>,
        port: impl Fn(usize) -> PortId,
    ) {
        self.burst::<true>(policy, now, frames, port);
    }

    /// What both have in common.
    #[inline(always)]
    fn burst<const TAPPED: bool>(
        &mut self,
        policy: &Compiled,
        now: Now,
        frames: Batch<I::Buf>,
        port: impl Fn(usize) -> PortId,
    ) {
        for slot in self.slots.iter_mut().take(frames.len()) {
            self.pipeline.prefetch(slot);
        }
        let mut dropped = Batch::<I::Buf>::new();
        for (at, frame) in frames.into_iter().enumerate() {
            let iif = port(at);
            let outcome = if TAPPED {
                self.decide_tapped(policy, now, iif, frame.data(), at)
            } else {
                let slot = &self.slots[at];
                self.pipeline.decide(policy, now, iif, frame.data(), slot)
            };
            let slot = &self.slots[at];
            self.log(policy, iif, slot, &outcome);
            match outcome.disposition {
                Disposition::Forward(oif) => self.send(oif, frame),
                Disposition::Drop(reason) => {
                    if self.due.is(reason, now) {
                        self.example(policy, now, (iif, false), &slot.parsed, &outcome);
                    }
                    dropped.push(frame);
                }
                Disposition::Reject(with) => {
                    let parsed = slot.parsed;
                    if self.due.is(DropReason::Rejected, now) {
                        self.example(policy, now, (iif, false), &parsed, &outcome);
                    }
                    self.reject(with, iif, frame.data(), &parsed);
                    dropped.push(frame);
                }
                Disposition::Hold => {
                    let parsed = slot.parsed;
                    self.fragment(policy, now, iif, &parsed, frame);
                }
            }
        }
        self.io.discard(&mut dropped);
    }

    /// Tells the control thread of a packet that a rule wants logged.
    #[inline]
    fn log(&self, policy: &Compiled, iif: PortId, slot: &Slot, outcome: &Outcome) {
        if let (Some(rule), Some(tracked)) = (outcome.log, outcome.tracked) {
            let event = LogEvent {
                rule,
                generation: policy.generation(),
                packet: slot.parsed,
                iif,
                state: tracked.state,
                disposition: outcome.disposition,
            };
            if self.log.try_send(event).is_err() {
                self.counters().log_lost.add(1);
            }
        }
    }

    /// Queues `frame` for `port`; what does not fit even after a flush is dropped.
    #[inline]
    fn send(&mut self, port: PortId, frame: I::Buf) {
        let at = usize::from(port.0);
        if self.out[at].is_full() {
            self.transmit(at);
        }
        if let Err(full) = self.out[at].try_push(frame) {
            let reason = DropReason::TxFull;
            self.pipeline.counters().dropped(reason);
            stray(&mut self.strays, reason, full.element(), (port, true));
        }
    }

    /// Gives what waits for a port to it. What it does not take waits on.
    fn transmit(&mut self, at: usize) {
        let bytes = |batch: &Batch<I::Buf>| -> u64 {
            batch.iter().map(|frame| frame.frame_len() as u64).sum()
        };
        let batch = &mut self.out[at];
        let before = (batch.len(), bytes(batch));
        self.io.tx(PortId(at as u8), batch);
        let sent = (before.0 - batch.len()) as u64;
        let counters = &self.shared.workers[self.id];
        counters.path.forwarded.add(sent);
        counters.ports[at].tx.packets.add(sent);
        counters.ports[at].tx.bytes.add(before.1 - bytes(batch));
    }

    #[cold]
    fn reject(&mut self, with: RejectWith, iif: PortId, data: &[u8], parsed: &Parsed) {
        let Some(len) = reject::answer(with, data, parsed, &mut self.answer[..]) else {
            return;
        };
        let Some(mut frame) = self.io.alloc(len) else {
            return;
        };
        frame.data_mut()[..len].copy_from_slice(&self.answer[..len]);
        // Past the queue of forwarded frames, so that these can be counted as they leave.
        let mut alone = Batch::new();
        alone.push(frame);
        self.io.tx(iif, &mut alone);
        if alone.is_empty() {
            let counters = &self.shared.workers[self.id];
            counters.path.generated.add(1);
            counters.ports[usize::from(iif.0)].tx.add(len as u64);
        }
    }

    /// Sends what waits, on every port.
    fn flush(&mut self) {
        for at in 0..self.out.len() {
            if !self.out[at].is_empty() {
                self.transmit(at);
            }
        }
    }
}
