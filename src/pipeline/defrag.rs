//! Fragments that wait for the rest of their datagram.
//!
//! Tracking and policy need whole datagrams, so reassembly comes before both, also before the raw
//! rules, as in Linux (`nf_defrag_ipv4`, `nf_defrag_ipv6`). The store holds the frames themselves:
//! when the last missing one arrives they are given back in the order of their offsets, the
//! datagram is judged once, and its verdict holds for all of them.
//!
//! What is refused is what Linux 6.18 refuses, asked packet by packet. A fragment that lies inside
//! what is held is a duplicate, and dropped; one that overlaps it in part ends its datagram
//! (RFC 5722, RFC 1858 and RFC 3128 say what overlaps are good for). Lengths that contradict each
//! other, or add up to more than 65535, end an IPv4 datagram and cost an IPv6 one nothing but the
//! offending fragment. Datagrams end 30 s (IPv4) or 60 s (IPv6) after their first fragment.
//! Deliberately different: an IPv4 fragment with more to follow whose length is no multiple of
//! eight is refused (Linux drops the bytes behind the multiple, but we forward what arrived), and
//! fragments of one datagram must come by one port and VLAN.
//!
//! Life-cycle: everything is allocated at the start, for so many datagrams, fragments and bytes.
//! When one of these is used up, the oldest datagram goes. Linux refuses new fragments instead,
//! so that a few dozen a second, never completed, keep everybody out for the whole timeout; to
//! push a datagram out of this store, one has to fill all of it in the milliseconds between its
//! first fragment and its last.
//!
//! Concurrency: a store belongs to one worker; all fragments of a datagram come to it
//! ([`FragmentKey`] decides). Time is an argument.

mod store;
#[cfg(test)]
mod tests;

use super::{Counters, DropReason};
use crate::base::hash::HashKey;
use crate::base::time::{Span, Ticks};
use crate::policy::PortId;
use crate::wire::fragment::Piece;
use crate::wire::{Addrs, Fragment, L3, Parsed};
use arrayvec::ArrayVec;
use std::sync::Arc;
use store::{Datagram, NONE, Place, Store};

/// Fragments that a datagram may have at most: the longest has 45 over Ethernet, and 54 where the
/// path takes no more than IPv6's minimum.
pub const MAX_FRAGMENTS: usize = 64;

/// The fragments of one datagram.
pub type Group<B> = ArrayVec<B, MAX_FRAGMENTS>;

/// How long a datagram waits for its last fragment (`net.ipv4.ipfrag_time`).
const TIMEOUT_V4: Span = Span::secs(30);
/// The same for IPv6 (`net.netfilter.nf_conntrack_frag6_timeout`).
const TIMEOUT_V6: Span = Span::secs(60);

/// The greatest value of an IP header's length field.
const LONGEST: u32 = 65_535;

/// How much one store holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Datagrams.
    pub datagrams: u32,
    /// Fragments of all of them: each is a buffer that the ports lack meanwhile.
    pub fragments: u32,
    /// Bytes of these frames.
    pub bytes: usize,
}

impl Limits {
    /// What a worker's store holds. Linux' limit for the box is 4 MiB
    /// (`net.ipv4.ipfrag_high_thresh`).
    pub const DEFAULT: Limits = Limits {
        datagrams: 1024,
        fragments: 2048,
        bytes: 4 << 20,
    };
}

/// What the fragments of a datagram have in common (RFC 791 3.2, RFC 8200 4.5), and where they
/// came in: somebody on another port or VLAN can't add to a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey {
    addrs: Addrs,
    id: u32,
    vlan: u16,
    port: PortId,
    /// Zero for IPv6, where only the first fragment is sure to tell.
    proto: u8,
}

impl FragmentKey {
    /// The key of fragment `piece`, of the packet `parsed` that came in by `port`.
    pub fn of(parsed: &Parsed, piece: &Piece, port: PortId) -> Self {
        let v6 = matches!(parsed.addrs, Addrs::V6 { .. });
        Self {
            addrs: parsed.addrs,
            id: piece.id,
            vlan: parsed.vlan,
            port,
            proto: if v6 { 0 } else { parsed.proto },
        }
    }

    fn v6(&self) -> bool {
        matches!(self.addrs, Addrs::V6 { .. })
    }

    /// A fragment with this key, as far as that tells of it, and where it came in.
    pub fn shown(&self) -> (Parsed, PortId) {
        let l3 = if self.v6() { L3::Ipv6 } else { L3::Ipv4 };
        let parsed = Parsed {
            l3,
            addrs: self.addrs,
            vlan: self.vlan,
            proto: self.proto,
            fragment: Fragment::Later,
            ..Parsed::NOTHING
        };
        (parsed, self.port)
    }

    /// The hash of what all datagrams from one host to another have in common, of one protocol where
    /// fragments tell.
    pub fn path_hash(&self, secret: &HashKey) -> u64 {
        Self { id: 0, ..*self }.hash(secret)
    }

    /// Its hash under `secret`.
    pub fn hash(&self, secret: &HashKey) -> u64 {
        let place = u64::from(self.vlan) | u64::from(self.proto) << 16;
        let place = place | u64::from(self.port.0) << 24;
        let rest = u64::from(self.id) << 32 | place;
        let halves = |a: u128| [(a >> 64) as u64, a as u64];
        match self.addrs {
            Addrs::V4 { src, dst } => secret.hash2(u64::from(src) << 32 | u64::from(dst), rest),
            Addrs::V6 { src, dst } => {
                let ([a, b], [c, d]) = (halves(src), halves(dst));
                secret.hash5([a, b, c, d, rest])
            }
        }
    }
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is held.
    Held,
    /// It was dropped and counted; what else was held of its datagram may have gone with it.
    Refused(DropReason),
    /// It was the last that was missing.
    Whole,
}

/// What is wrong with a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It goes.
    Fragment(DropReason),
    /// Its datagram goes with it.
    Datagram(DropReason),
}

/// One worker's fragments; `B` is the buffer of a frame.
#[derive(Debug)]
pub struct Defrag<B> {
    secret: HashKey,
    limits: Limits,
    store: Store<B>,
    counters: Arc<Counters>,
    /// The last datagram that did not become whole.
    ended: Option<(DropReason, FragmentKey)>,
}

impl<B> Defrag<B> {
    /// An empty store. What it holds and drops is counted in `counters`.
    pub fn new(limits: Limits, secret: HashKey, counters: Arc<Counters>) -> Self {
        Self {
            secret,
            limits,
            store: Store::new(limits.datagrams, limits.fragments),
            counters,
            ended: None,
        }
    }

    /// How many fragments are held.
    pub fn held(&self) -> u32 {
        self.store.fragments()
    }

    /// Takes in a fragment: `frame`, of `frame_len` bytes. If its datagram is complete now, all of
    /// its frames are appended to the empty `group`, in the order of their offsets.
    pub fn add(
        &mut self,
        now: Ticks,
        key: FragmentKey,
        piece: &Piece,
        frame_len: usize,
        frame: B,
        group: &mut Group<B>,
    ) -> Added {
        let hash = key.hash(&self.secret);
        let mut at = self.store.find(hash, &key);
        if at != NONE && expired(self.store.datagram(at), now) {
            self.end(at, DropReason::FragmentTimeout);
            at = NONE;
        }
        let place = match self.judge(at, &key, piece) {
            Ok(place) if self.make_room(at, frame_len) => place,
            Ok(_) => return self.refuse(DropReason::FragmentLimit),
            Err(Fault::Fragment(reason)) => return self.refuse(reason),
            Err(Fault::Datagram(reason)) => {
                if at != NONE {
                    self.end(at, reason);
                }
                return self.refuse(reason);
            }
        };
        if at == NONE {
            at = self.store.open(hash, key, now);
        }
        self.store.insert(at, place, piece, frame_len, frame);
        let datagram = self.store.datagram(at);
        let whole = datagram.last_seen && datagram.held == datagram.end;
        if whole {
            self.store.close(at, |frame| group.push(frame));
            self.counters.reassembled.add(1);
        }
        self.publish();
        if whole { Added::Whole } else { Added::Held }
    }

    /// Ends datagrams that have waited too long, at most `budget` of them.
    #[inline]
    pub fn expire(&mut self, now: Ticks, budget: usize) {
        for _ in 0..budget {
            let due = [false, true]
                .map(|v6| self.store.oldest(v6))
                .into_iter()
                .find(|at| *at != NONE && expired(self.store.datagram(*at), now));
            let Some(at) = due else { return };
            self.end(at, DropReason::FragmentTimeout);
            self.publish();
        }
    }

    /// Drops everything, for `reason`.
    pub fn clear(&mut self, reason: DropReason) {
        while let Some(at) = self.oldest() {
            self.end(at, reason);
        }
        self.publish();
    }

    /// Whether the fragment may join datagram `at` ([`NONE`]: starts one), and where.
    fn judge(&self, at: u32, key: &FragmentKey, piece: &Piece) -> Result<Place, Fault> {
        let bad = match key.v6() {
            true => Fault::Fragment(DropReason::FragmentBad),
            false => Fault::Datagram(DropReason::FragmentBad),
        };
        if piece.len == 0 || piece.before + piece.end() > LONGEST {
            return Err(bad);
        }
        if piece.more && !piece.len.is_multiple_of(8) {
            return Err(Fault::Datagram(DropReason::FragmentBad));
        }
        if at == NONE {
            return Ok(Place::ALONE);
        }
        let datagram = self.store.datagram(at);
        let contradicts = match (piece.more, datagram.last_seen) {
            (false, true) => piece.end() != datagram.end,
            (false, false) => piece.end() < datagram.end,
            (true, true) => piece.end() > datagram.end,
            (true, false) => false,
        };
        if contradicts {
            return Err(bad);
        }
        let place = self.store.place(at, piece)?;
        if !ecn_fits(datagram.ecn | 1 << piece.ecn) {
            return Err(Fault::Datagram(DropReason::FragmentBad));
        }
        if usize::from(datagram.count) == MAX_FRAGMENTS {
            return Err(Fault::Datagram(DropReason::FragmentLimit));
        }
        Ok(place)
    }

    /// Makes room for a frame of `len` bytes that belongs to datagram `at`: the oldest datagram
    /// goes. `false` if there can be none, or if `at` itself had to go.
    fn make_room(&mut self, at: u32, len: usize) -> bool {
        while self.store.is_full(at == NONE) || self.store.bytes() + len > self.limits.bytes {
            let Some(oldest) = self.oldest() else {
                return false;
            };
            self.end(oldest, DropReason::FragmentLimit);
            if oldest == at {
                return false;
            }
        }
        true
    }

    /// The datagram that has waited longest.
    fn oldest(&self) -> Option<u32> {
        let [v4, v6] = [false, true].map(|v6| self.store.oldest(v6));
        let since = |at: u32| self.store.datagram(at).since;
        match (v4, v6) {
            (NONE, NONE) => None,
            (NONE, one) | (one, NONE) => Some(one),
            (a, b) if since(a).reached(since(b)) => Some(b),
            (a, _) => Some(a),
        }
    }

    /// Ends a datagram that did not become whole.
    fn end(&mut self, at: u32, reason: DropReason) {
        let mut dropped = 0;
        self.ended = Some((reason, self.store.datagram(at).key));
        self.store.close(at, |_| dropped += 1);
        self.counters.drops[reason as usize].add(dropped);
        self.counters.reassembly_failed.add(1);
    }

    /// The last datagram that did not become whole, and why, if there was one since this was asked.
    #[inline]
    pub fn take_ended(&mut self) -> Option<(DropReason, FragmentKey)> {
        self.ended.take()
    }

    fn refuse(&mut self, reason: DropReason) -> Added {
        self.counters.dropped(reason);
        self.publish();
        Added::Refused(reason)
    }

    fn publish(&self) {
        self.counters.held.set(u64::from(self.held()));
    }
}

fn expired(datagram: &Datagram, now: Ticks) -> bool {
    let timeout = if datagram.key.v6() {
        TIMEOUT_V6
    } else {
        TIMEOUT_V4
    };
    now.reached(datagram.since.plus(timeout))
}

/// Whether fragments with these congestion marks (a bit for each of the four values) can be of one
/// datagram: all are marked as capable or none is (RFC 3168 5.3).
const fn ecn_fits(seen: u8) -> bool {
    seen & 1 == 0 || seen == 1
}
