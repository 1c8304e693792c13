//! What a worker does with fragments: off the path of all other packets.
//!
//! A fragment is held by the worker that collects its datagram. Once that is whole, its verdict is
//! found by its flow's owner, and holds for all its fragments.
//!
//! Order: what arrives at one queue in fragments leaves in the order in which its datagrams became
//! whole, as all from one host to another go by one collector; what arrives whole keeps its order
//! too. Between the two it is kept where the collector is the worker that received them; fragments
//! that make a detour over another may be overtaken by what is not fragmented. (Nor does a NIC keep it
//! that chooses queues by ports: fragments have none, and come by another queue.)

use super::Core;
use super::moves::Route;
use super::seen::stray;
use crate::base::time::Now;
use crate::dataplane::handoff::Handed;
use crate::dataplane::io::{Frame, Io};
use crate::dataplane::shared::Cause;
use crate::pipeline::defrag::{Added, FragmentKey, Group};
use crate::pipeline::{Disposition, DropReason, Slot};
use crate::policy::{Compiled, PortId};
use crate::wire::Parsed;
use crate::wire::fragment::Piece;

impl<I: Io> Core<I> {
    /// Who collects the datagram of a fragment. One that belongs to none is dropped here.
    #[cold]
    pub(super) fn collector(&self, port: PortId, data: &[u8], parsed: &Parsed) -> usize {
        match Piece::of(data, parsed) {
            Some(piece) => self.steer.collector(&FragmentKey::of(parsed, &piece, port)),
            None => self.id,
        }
    }

    /// Holds a fragment; the one that completes its datagram moves on with all others.
    #[cold]
    pub(super) fn fragment(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        parsed: &Parsed,
        frame: I::Buf,
    ) {
        let Some(piece) = Piece::of(frame.data(), parsed) else {
            let reason = DropReason::FragmentBad;
            self.pipeline.counters().dropped(reason);
            return stray(&mut self.strays, reason, frame, (iif, false));
        };
        let key = FragmentKey::of(parsed, &piece, iif);
        let len = frame.frame_len();
        let mut group = Group::new();
        let added = self
            .defrag
            .add(now.ticks(), key, &piece, len, frame, &mut group);
        match added {
            Added::Held => {}
            Added::Refused(reason) => self.show_unkept(policy, now, iif, parsed, reason),
            Added::Whole => self.datagram(policy, now, iif, group, None),
        }
    }

    /// Decides about the datagram whose fragments are in `group`, or hands them to its owner. Handed
    /// over, they come from a worker, who gave them a bucket.
    #[cold]
    pub(super) fn datagram(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        group: Group<I::Buf>,
        handed: Option<(usize, u8)>,
    ) {
        let mut joined = std::mem::take(&mut self.joined);
        let frames = group.iter().map(Frame::data);
        let mut slot = Slot::default();
        let whole = self
            .pipeline
            .join(&mut slot, policy, iif, &mut joined, frames);
        match whole {
            Some(len) => {
                let (bucket, route) = self.route_whole(&slot, handed, now);
                match route {
                    Route::Here => {
                        self.process_whole(policy, now, iif, &joined[..len], &slot, group);
                    }
                    Route::Hand(owner) => {
                        let cause = match handed {
                            Some(_) => Cause::Moved,
                            None => Cause::Fragment,
                        };
                        self.hand_over_all(owner, iif, group, bucket, cause);
                    }
                    Route::Bind(heir) => {
                        let bound = Handed::<I::Buf>::BOUND;
                        self.flush();
                        self.hand_over_all(heir, iif, group, bound, Cause::Moved);
                    }
                    Route::Hold => self.hold_all(iif, group, bucket),
                }
            }
            None => self.drop_all(DropReason::FragmentBad, iif, group),
        }
        self.joined = joined;
    }

    /// The bucket of a datagram that is whole, and where it goes.
    fn route_whole(&mut self, slot: &Slot, handed: Option<(usize, u8)>, now: Now) -> (u8, Route) {
        let bound = Handed::<I::Buf>::BOUND;
        match (slot.prepared.key(), handed) {
            (None, _) | (_, Some((_, Handed::<I::Buf>::BOUND))) => (bound, Route::Here),
            (Some(key), handed) if !self.steer.is_alone() => {
                let bucket = self.steer.bucket(key);
                let from = handed.map(|(worker, _)| worker);
                (bucket, self.route_of(bucket, &slot.prepared, from, now))
            }
            _ => (bound, Route::Here),
        }
    }

    /// The later stages for a datagram, `data`, whose fragments are in `group`.
    fn process_whole(
        &mut self,
        policy: &Compiled,
        now: Now,
        iif: PortId,
        data: &[u8],
        slot: &Slot,
        group: Group<I::Buf>,
    ) {
        let fragments = group.len();
        let outcome = self.decide_whole(policy, now, iif, data, slot, fragments);
        self.log(policy, iif, slot, &outcome);
        if let Some(reason) = outcome.disposition.reason()
            && self.due.is(reason, now)
        {
            self.example(policy, now, (iif, false), &slot.parsed, &outcome);
        }
        match outcome.disposition {
            Disposition::Forward(oif) => group.into_iter().for_each(|f| self.send(oif, f)),
            Disposition::Reject(with) => self.reject(with, iif, data, &slot.parsed),
            Disposition::Drop(_) => {}
            // Whole is whole; if it were not, nothing would be lost without a name.
            Disposition::Hold => self.drop_all(DropReason::FragmentBad, iif, group),
        }
    }

    /// Hands all fragments of a datagram to its flow's owner, or drops all of them.
    fn hand_over_all(
        &mut self,
        owner: usize,
        port: PortId,
        group: Group<I::Buf>,
        bucket: u8,
        cause: Cause,
    ) {
        if self.rings.room(owner) < group.len() {
            return self.drop_all(DropReason::HandoffFull, port, group);
        }
        for handed in numbered(port, group, bucket) {
            self.hand_over(owner, handed, cause);
        }
    }

    /// Puts all fragments of a datagram by, or drops all of them.
    fn hold_all(&mut self, port: PortId, group: Group<I::Buf>, bucket: u8) {
        if self.held.capacity() - self.held.len() < group.len() {
            return self.drop_all(DropReason::HandoffFull, port, group);
        }
        self.held.extend(numbered(port, group, bucket));
    }
}

/// The fragments of a datagram, each with how many follow it.
fn numbered<B>(port: PortId, group: Group<B>, bucket: u8) -> impl Iterator<Item = Handed<B>> {
    let count = group.len();
    group
        .into_iter()
        .enumerate()
        .map(move |(at, frame)| Handed {
            frame,
            port,
            follow: (count - 1 - at) as u8,
            bucket,
        })
}
