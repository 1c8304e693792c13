//! What a worker shows of the packets that it judges and loses, to those who ask: traces, and the last
//! example of each drop reason. Off the path of all other packets.
//!
//! What is lost apart from a judgement, because a ring or a port was full, is put by as a [`Stray`] until
//! the end of the loop, so that it can be shown.

use super::Core;
use crate::base::time::Now;
use crate::conntrack::types::CtState;
use crate::dataplane::examples::Example;
use crate::dataplane::io::{BURST, Frame, Io};
use crate::dataplane::trace::Packet;
use crate::pipeline::defrag::Group;
use crate::pipeline::{DropReason, Outcome, Slot};
use crate::policy::{Compiled, PortId};
use crate::wire::{self, Parsed};
use arrayvec::ArrayVec;

/// A frame that was lost, and counted.
#[derive(Debug)]
pub(super) struct Stray<B> {
    pub(super) reason: DropReason,
    pub(super) frame: B,
    /// Where it came in; where it was to leave, if `leaving`.
    pub(super) port: PortId,
    pub(super) leaving: bool,
}

/// Frames of one loop that were lost, as far as they are looked at.
pub(super) type Strays<B> = ArrayVec<Stray<B>, BURST>;

/// Keeps a frame that was lost until the end of the loop, if there is room.
pub(super) fn stray<B>(
    strays: &mut Strays<B>,
    reason: DropReason,
    frame: B,
    (port, leaving): (PortId, bool),
) {
    let _ = strays.try_push(Stray {
        reason,
        frame,
        port,
        leaving,
    });
}

impl<I: Io> Core<I> {
    /// The decision about the packet in the slot number `at`, told to those who asked for it.
    #[cold]
    pub(super) fn decide_tapped(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: &[u8],
        at: usize,
    ) -> Outcome {
        let slot = &self.slots[at];
        if !self.taps.may_want(policy, iif, &slot.parsed) {
            return self.pipeline.decide(policy, now, iif, data, slot);
        }
        let (outcome, seen) = self.pipeline.trace(policy, now, iif, data, slot, 1);
        let packet = Packet {
            at: now,
            port: iif,
            leaving: false,
            frames: 1,
            parsed: &slot.parsed,
            data,
        };
        self.taps.tell(policy, &packet, &outcome, &seen);
        outcome
    }

    /// The decision about a datagram that came in `frames` fragments, told the same way.
    pub(super) fn decide_whole(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: &[u8],
        slot: &Slot,
        frames: usize,
    ) -> Outcome {
        if !self.taps.may_want(policy, iif, &slot.parsed) {
            return self
                .pipeline
                .decide_whole(policy, now, iif, data, slot, frames);
        }
        let (outcome, seen) = self.pipeline.trace(policy, now, iif, data, slot, frames);
        let packet = Packet {
            at: now,
            port: iif,
            leaving: false,
            frames,
            parsed: &slot.parsed,
            data,
        };
        self.taps.tell(policy, &packet, &outcome, &seen);
        outcome
    }

    /// Shows a packet that `outcome` drops, beside its reason's count.
    #[cold]
    pub(super) fn example(
        &self,
        policy: &Compiled,
        now: Now,
        (port, leaving): (PortId, bool),
        parsed: &Parsed,
        outcome: &Outcome,
    ) {
        let Some(reason) = outcome.disposition.reason() else {
            return;
        };
        let state = outcome.tracked.map(|tracked| tracked.state);
        let invalid = state == Some(CtState::Invalid);
        let why = self.pipeline.shard().why().filter(|_| invalid);
        let example = Example {
            at: now,
            generation: policy.generation(),
            port,
            leaving,
            packet: *parsed,
            by: outcome.by,
            state,
            why,
        };
        self.counters().examples.put(reason, example);
    }

    /// Shows a packet that was lost for `reason` apart from any judgement.
    #[cold]
    pub(super) fn show_lost(&mut self, policy: &Compiled, packet: &Packet<'_>, reason: DropReason) {
        if self.due.is(reason, packet.at) {
            let outcome = Outcome::lost(reason);
            let way = (packet.port, packet.leaving);
            self.example(policy, packet.at, way, packet.parsed, &outcome);
        }
        if !self.taps.is_empty() {
            self.taps.tell_lost(policy, packet, reason);
        }
    }

    /// Shows what was lost in this loop, and lets it go.
    #[cold]
    pub(super) fn show_strays(&mut self, policy: &Compiled, now: Now) {
        for stray in std::mem::take(&mut self.strays) {
            let (data, len) = (stray.frame.data(), stray.frame.frame_len());
            let packet = Packet {
                at: now,
                port: stray.port,
                leaving: stray.leaving,
                frames: 1,
                parsed: &wire::parse(data, len),
                data,
            };
            self.show_lost(policy, &packet, stray.reason);
        }
    }

    /// Shows the fragment that was last of those whose datagrams ended in this loop.
    #[inline]
    pub(super) fn show_ended(&mut self, policy: &Compiled, now: Now) {
        if let Some((reason, key)) = self.defrag.take_ended() {
            let (parsed, port) = key.shown();
            self.show_unkept(policy, now, port, &parsed, reason);
        }
    }

    /// Shows a packet of which only the headers are left.
    #[cold]
    pub(super) fn show_unkept(
        &mut self,
        policy: &Compiled,
        now: Now,
        port: PortId,
        parsed: &Parsed,
        reason: DropReason,
    ) {
        let packet = Packet {
            at: now,
            port,
            leaving: false,
            frames: 1,
            parsed,
            data: &[],
        };
        self.show_lost(policy, &packet, reason);
    }

    /// Counts all frames of `group`, which came in by `port`, as dropped.
    pub(super) fn drop_all(&mut self, reason: DropReason, port: PortId, group: Group<I::Buf>) {
        let counters = self.pipeline.counters();
        counters.drops[reason as usize].add(group.len() as u64);
        if let Some(first) = group.into_iter().next() {
            stray(&mut self.strays, reason, first, (port, false));
        }
    }
}
