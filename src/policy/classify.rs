//! The classifier: which operation of a policy is the next that a packet can match, without a look
//! at those before it.
//!
//! For each *axis* (source address, destination port, state, …) the range of values is cut into
//! intervals in which the same rules hold. A rule is filed under one of the axes that it asks about:
//! that on which it has the least company. What can match a packet is then in the lists that its
//! values lead to, one an axis, and in the list of rules that are filed nowhere; they are gone
//! through together, in the order of the rules.
//!
//! A list may hold more than what matches, never less: each candidate is tested by those of its
//! predicates that the way to it has not proven. So matches that no axis has (flags, lengths, limits) are left to the test, and what
//! would take too much room (a wide range among many narrow ones) is filed nowhere.
//!
//! Life-cycle: built with its policy, off the packet path, then only read. Concurrency: immutable.

mod build;
mod intervals;
#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;

use super::PortId;
use super::compile::{Op, Pred, Tables};
use super::eval::Facts;
use crate::conntrack::types::Dir;
use crate::wire::parsed::{Addrs, L3, NO_VLAN};
use build::{Addr, Builder, Ends, Files, NOBODY, Spans};
use intervals::{Intervals, Number, Span};

/// Axes that a packet has.
const AXES: usize = 9;

/// Operations, by their place in the policy.
#[derive(Debug)]
pub(super) struct Classifier {
    src4: Option<Axis<u32>>,
    dst4: Option<Axis<u32>>,
    src6: Option<Axis<u128>>,
    dst6: Option<Axis<u128>>,
    numbers: Vec<(Field, Axis<u16>)>,
    /// Operations that are filed nowhere.
    unfiled: Box<[Entry]>,
}

/// What an axis of small numbers reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// State and direction: `state * 3 + direction`, 0 without one.
    State,
    Iif,
    /// Family and protocol: 256 is added for IPv6.
    Proto,
    Dport,
    Sport,
    Vlan,
    Zone,
}

const FIELDS: [Field; 7] = [
    Field::State,
    Field::Iif,
    Field::Proto,
    Field::Dport,
    Field::Sport,
    Field::Vlan,
    Field::Zone,
];

/// One axis.
#[derive(Debug)]
struct Axis<T> {
    /// Each leads to its list.
    intervals: Intervals<T>,
    entries: Box<[Entry]>,
}

/// An operation in a list, with the ends of what it asks of the other address and of the
/// destination port: most are passed over with a look at these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    op: u32,
    addr: (u32, u32),
    port: (u16, u16),
}

impl Entry {
    #[inline]
    fn may_match(&self, addr: u32, port: u16) -> bool {
        // no branch on each of four: which one fails is anybody's guess
        let addr = (self.addr.0 <= addr) & (addr <= self.addr.1);
        addr & (self.port.0 <= port) & (port <= self.port.1)
    }
}

/// A list, and the packet's value on the other axis: the address at the far end, the destination
/// where the list is not about an address. Of IPv6 the first 32 bits serve.
#[derive(Clone, Copy, Debug)]
struct List<'a> {
    entries: &'a [Entry],
    /// Entries that were gone past.
    past: u32,
    addr: u32,
    proven: Proven,
}

/// An operation that can match.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) op: u32,
    pub(super) proven: Proven,
}

/// The match of a candidate that holds, because the candidate is filed under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proven {
    Nothing,
    Src,
    Dst,
    Dport,
}

impl<T: Number> Axis<T> {
    #[inline]
    fn find(axis: &Option<Self>, value: T) -> Span {
        axis.as_ref()
            .map(|axis| axis.intervals.find(value))
            .unwrap_or_default()
    }

    #[inline]
    fn list(axis: &Option<Self>, list: Span) -> &[Entry] {
        axis.as_ref().map_or(&[], |axis| axis.entries(list))
    }

    #[inline]
    fn entries(&self, list: Span) -> &[Entry] {
        let first = list.first as usize;
        self.entries
            .get(first..first + list.len as usize)
            .unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        self.intervals.bytes() + size_of_val(&*self.entries)
    }
}

/// The search for one packet.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    /// Those that are not empty.
    lists: ArrayVec<List<'a>, { AXES + 1 }>,
    from: u32,
    /// The packet's destination port; 0 where it has none, which passes what does not ask.
    port: u16,
}

impl<'a> Candidates<'a> {
    #[inline]
    fn add(&mut self, proven: Proven, entries: &'a [Entry], addr: u32) {
        let list = List {
            entries,
            past: 0,
            addr,
            proven,
        };
        if !entries.is_empty() {
            // there are no more lists than there is room
            let _ = self.lists.try_push(list);
        }
    }

    /// The first operation from `from` on that can match.
    #[inline]
    pub(super) fn next(&mut self, from: u32) -> Option<Candidate> {
        if from < self.from {
            // back from a chain that stands behind
            self.lists.iter_mut().for_each(|list| list.past = 0);
        }
        self.from = from;
        let (mut least, mut proven) = (u32::MAX, Proven::Nothing);
        for list in &mut self.lists {
            let mut left = list.entries.get(list.past as usize..).unwrap_or_default();
            while let [first, rest @ ..] = left {
                if first.op >= least {
                    break;
                }
                if first.op >= from && first.may_match(list.addr, self.port) {
                    (least, proven) = (first.op, list.proven);
                    break;
                }
                left = match rest.get(FAR) {
                    Some(far) if far.op < from => {
                        let skip = rest.partition_point(|entry| entry.op < from);
                        rest.get(skip..).unwrap_or_default()
                    }
                    _ => rest,
                };
            }
            list.past = (list.entries.len() - left.len()) as u32;
        }
        (least != u32::MAX).then_some(Candidate { op: least, proven })
    }
}

/// A list that lags so many operations behind is bisected.
const FAR: usize = 6;

impl Classifier {
    /// The classifier of `ops`. `peer` says where what comes in by a port leaves.
    pub(super) fn new(
        ops: &[Op],
        preds: &[Pred],
        tables: &Tables,
        peer: &dyn Fn(PortId) -> Option<PortId>,
    ) -> Self {
        let spans = Spans {
            preds,
            tables,
            peer,
        };
        let mut numbers = FIELDS.map(|_| Builder::default());
        let (mut ends4, mut ends6, mut ends) = (Ends::default(), Ends::default(), Ends::default());
        let (mut back4, mut back6) = (Ends::default(), Ends::default());
        let (mut src4, mut dst4) = (Builder::default(), Builder::default());
        let (mut src6, mut dst6) = (Builder::default(), Builder::default());
        for (at, op) in (0..).zip(ops) {
            for (field, builder) in FIELDS.into_iter().zip(&mut numbers) {
                builder.op(at, spans.numbers(op, field));
            }
            let [src, dst] = spans.addrs(op);
            src4.op(at, src.as_ref().map(Addr::v4));
            src6.op(at, src.as_ref().map(Addr::v6));
            dst4.op(at, dst.as_ref().map(Addr::v4));
            dst6.op(at, dst.as_ref().map(Addr::v6));
            let (dst4, dst6) = (dst.as_ref().map(Addr::ends4), dst.as_ref().map(Addr::ends6));
            let port = spans.dport(op);
            ends4.push(dst4, port);
            ends6.push(dst6, port);
            // for packets of both families
            let dst = match (dst4, dst6) {
                (Some(dst4), Some(NOBODY)) => Some(dst4),
                (Some(NOBODY), Some(dst6)) => Some(dst6),
                _ => None,
            };
            ends.push(dst, port);
            back4.push(src.as_ref().map(Addr::ends4), port);
            back6.push(src.as_ref().map(Addr::ends6), port);
        }
        // an address is one thing to ask about, whatever its family
        let mut files = Files::new(ops.len());
        files.offer(0, [src4.company(), src6.company()].concat());
        files.offer(1, [dst4.company(), dst6.company()].concat());
        for (place, builder) in (2..).zip(&numbers) {
            files.offer(place, builder.company());
        }
        files.settle();
        let numbers = (2..).zip(FIELDS.into_iter().zip(numbers));
        Self {
            src4: src4.axis(0, &files, &ends4),
            src6: src6.axis(0, &files, &ends6),
            dst4: dst4.axis(1, &files, &back4),
            dst6: dst6.axis(1, &files, &back6),
            numbers: numbers
                .filter_map(|(place, (field, builder))| {
                    Some((field, builder.axis(place, &files, &ends)?))
                })
                .collect(),
            unfiled: files.nowhere(&ends),
        }
    }

    /// The operations that can match the packet of `facts`, which is in `zone`.
    #[inline(always)]
    pub(super) fn candidates(&self, facts: &Facts<'_>, zone: u16) -> Candidates<'_> {
        let packet = facts.packet;
        let dport = packet.dport();
        let mut candidates = Candidates {
            lists: ArrayVec::new(),
            from: 0,
            port: dport.unwrap_or(0),
        };
        let (src, dst) = front(packet.addrs);
        // both searches first, and then what they found: so that they wait for memory together
        let [from, to] = match packet.addrs {
            Addrs::V4 { src, dst } => {
                let (from, to) = (Axis::find(&self.src4, src), Axis::find(&self.dst4, dst));
                [Axis::list(&self.src4, from), Axis::list(&self.dst4, to)]
            }
            Addrs::V6 { src, dst } => {
                let (from, to) = (Axis::find(&self.src6, src), Axis::find(&self.dst6, dst));
                [Axis::list(&self.src6, from), Axis::list(&self.dst6, to)]
            }
        };
        candidates.add(Proven::Nothing, &self.unfiled, dst);
        candidates.add(Proven::Src, from, dst);
        candidates.add(Proven::Dst, to, src);
        for (field, axis) in &self.numbers {
            let value = match field {
                Field::State => Some(state(facts.state.bit(), facts.dir)),
                Field::Iif => Some(facts.iif.0.into()),
                Field::Proto => {
                    Some(u16::from(packet.l3 == L3::Ipv6) << 8 | u16::from(packet.proto))
                }
                Field::Dport => dport,
                Field::Sport => packet.sport(),
                Field::Vlan => (packet.vlan != NO_VLAN).then_some(packet.vlan),
                Field::Zone => Some(zone),
            };
            let list = value.map(|value| axis.intervals.find(value));
            let proven = match field {
                Field::Dport => Proven::Dport,
                _ => Proven::Nothing,
            };
            candidates.add(proven, axis.entries(list.unwrap_or_default()), dst);
        }
        candidates
    }

    /// Whether candidates depend on the packet's VLAN.
    pub(super) fn goes_by_vlan(&self) -> bool {
        self.numbers.iter().any(|(field, _)| *field == Field::Vlan)
    }

    /// Bytes that it occupies.
    pub(super) fn bytes(&self) -> usize {
        let four = [&self.src4, &self.dst4]
            .into_iter()
            .flatten()
            .map(Axis::bytes);
        let six = [&self.src6, &self.dst6]
            .into_iter()
            .flatten()
            .map(Axis::bytes);
        let numbers = self.numbers.iter().map(|(_, axis)| axis.bytes());
        four.chain(six).chain(numbers).sum::<usize>() + size_of_val(&*self.unfiled)
    }
}

/// The first 32 bits of source and destination.
#[inline]
fn front(addrs: Addrs) -> (u32, u32) {
    match addrs {
        Addrs::V4 { src, dst } => (src, dst),
        Addrs::V6 { src, dst } => ((src >> 96) as u32, (dst >> 96) as u32),
    }
}

/// Where a state (its bit) and a direction are on their axis.
#[inline]
fn state(bit: u8, dir: Option<Dir>) -> u16 {
    let dir = match dir {
        None => 0,
        Some(Dir::Original) => 1,
        Some(Dir::Reply) => 2,
    };
    bit.trailing_zeros() as u16 * 3 + dir
}
