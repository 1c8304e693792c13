//! The classifier: which operation of a policy is the next that a packet can match, without a look
//! at those before it.
//!
//! For each *axis* (source address, destination port, state, …) the range of values is cut into
//! intervals in which the same rules hold, and the rules of an interval are a set of bits, one for
//! each operation. What can match a packet is the intersection of the sets that its values lead to,
//! and of rules that do not ask, in the order of the rules. Sets are kept sparse in three levels of
//! 64 (words, summaries of words, a top), and are intersected from the top, so that a search steps
//! over everything that one axis excludes: an aggregated bit vector (Baboescu and Varghese,
//! SIGCOMM 2001).
//!
//! A set may hold more than what matches, never less: each candidate is tested by all its
//! predicates. So what costs too much room (a wide range among many narrow ones) counts as not
//! asked, and matches that no axis has (flags, lengths, limits) are left to the test.
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
use build::{Builder, Spans};
use intervals::{Intervals, Number};

/// Most operations that three levels of 64 hold.
pub(super) const MAX_OPS: usize = 64 * 64 * 64;
/// An axis that fewer rules ask about is left to the test.
const ASKED: usize = 8;
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
    intervals: Intervals<T>,
    /// The class of each interval.
    classes: Box<[u32]>,
    sets: Sets,
}

/// Sets of operations.
#[derive(Debug)]
struct Sets {
    /// A set each.
    classes: Box<[Class]>,
    summaries: Box<[Class]>,
    words: Box<[u64]>,
    /// What is in every set: operations that do not ask about this axis.
    wild: Wild,
}

/// Sixty-four places, and where those that are not empty are found, one after the other.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    bits: u64,
    first: u32,
}

impl Class {
    #[inline]
    fn place(self, at: u32) -> Option<usize> {
        let bit = 1u64 << (at & 63);
        let before = (self.bits & (bit - 1)).count_ones();
        (self.bits & bit != 0).then_some((self.first + before) as usize)
    }
}

/// A set that is not sparse.
#[derive(Debug, Default)]
struct Wild {
    top: u64,
    summaries: Box<[u64]>,
    words: Box<[u64]>,
}

/// The set that one axis contributes.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    sets: &'a Sets,
    class: Class,
}

impl View<'_> {
    #[inline]
    fn top(&self) -> u64 {
        self.class.bits | self.sets.wild.top
    }

    #[inline]
    fn summary(&self, at: u32) -> u64 {
        let wild = self.sets.wild.summaries.get(at as usize);
        let own = self.own_summary(at).map_or(0, |summary| summary.bits);
        wild.copied().unwrap_or(0) | own
    }

    #[inline]
    fn own_summary(&self, at: u32) -> Option<Class> {
        self.sets.summaries.get(self.class.place(at)?).copied()
    }

    #[inline]
    fn word(&self, at: u32) -> u64 {
        let wild = self.sets.wild.words.get(at as usize);
        let own = self.own_summary(at >> 6);
        let own = own.and_then(|summary| self.sets.words.get(summary.place(at)?));
        wild.copied().unwrap_or(0) | own.copied().unwrap_or(0)
    }
}

/// The search for one packet.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    views: ArrayVec<View<'a>, AXES>,
    top: u64,
    /// Number of the word at hand, and the word.
    at: u32,
    word: u64,
}

impl Candidates<'_> {
    /// The first operation from `from` on that can match.
    #[inline]
    pub(super) fn next(&mut self, from: u32) -> Option<u32> {
        let mut at = from >> 6;
        let mut word = self.word(at) & (u64::MAX << (from & 63));
        while word == 0 {
            at = self.next_word(at + 1)?;
            word = self.word(at);
        }
        Some(at << 6 | word.trailing_zeros())
    }

    /// The first word from `from` on whose summary says that it may not be empty.
    #[inline]
    fn next_word(&self, from: u32) -> Option<u32> {
        let mut at = from >> 6;
        let mut bits = self.summary(at) & (u64::MAX << (from & 63));
        while bits == 0 {
            let later = self.top & u64::MAX.checked_shl(at + 1).unwrap_or(0);
            if later == 0 {
                return None;
            }
            at = later.trailing_zeros();
            bits = self.summary(at);
        }
        Some(at << 6 | bits.trailing_zeros())
    }

    #[inline]
    fn summary(&self, at: u32) -> u64 {
        self.all(|view| view.summary(at))
    }

    #[inline]
    fn word(&mut self, at: u32) -> u64 {
        if self.at != at {
            self.at = at;
            self.word = self.all(|view| view.word(at));
        }
        self.word
    }

    #[inline]
    fn all(&self, bits: impl Fn(&View<'_>) -> u64) -> u64 {
        self.views
            .iter()
            .fold(u64::MAX, |all, view| all & bits(view))
    }
}

impl<T: Number> Axis<T> {
    #[inline]
    fn view(&self, value: Option<T>) -> View<'_> {
        let class = value.and_then(|value| {
            let interval = self.intervals.find(value) as usize;
            let class = *self.classes.get(interval)?;
            self.sets.classes.get(class as usize).copied()
        });
        View {
            sets: &self.sets,
            class: class.unwrap_or_default(),
        }
    }

    fn bytes(&self) -> usize {
        let Sets {
            classes,
            summaries,
            words,
            wild,
        } = &self.sets;
        self.intervals.bytes()
            + size_of_val(&*self.classes)
            + size_of_val(&**classes)
            + size_of_val(&**summaries)
            + size_of_val(&**words)
            + size_of_val(&*wild.summaries)
            + size_of_val(&*wild.words)
    }
}

impl Classifier {
    /// The classifier of `ops`; `None` if there are more than it can hold. `peer` says where what
    /// comes in by a port leaves.
    pub(super) fn new(
        ops: &[Op],
        preds: &[Pred],
        tables: &Tables,
        peer: &dyn Fn(PortId) -> Option<PortId>,
    ) -> Option<Self> {
        if ops.len() > MAX_OPS {
            return None;
        }
        let spans = Spans {
            preds,
            tables,
            peer,
        };
        let numbers = FIELDS.into_iter().filter_map(|field| {
            let mut builder = Builder::new(ops.len());
            for (at, op) in ops.iter().enumerate() {
                builder.op(at, spans.numbers(op, field));
            }
            Some((field, builder.axis()?))
        });
        let (mut src4, mut dst4) = (Builder::new(ops.len()), Builder::new(ops.len()));
        let (mut src6, mut dst6) = (Builder::new(ops.len()), Builder::new(ops.len()));
        for (at, op) in ops.iter().enumerate() {
            let [src, dst] = spans.addrs(op);
            src4.op(at, src.as_ref().map(|set| set.v4()));
            src6.op(at, src.as_ref().map(|set| set.v6()));
            dst4.op(at, dst.as_ref().map(|set| set.v4()));
            dst6.op(at, dst.as_ref().map(|set| set.v6()));
        }
        Some(Self {
            numbers: numbers.collect(),
            src4: src4.axis(),
            dst4: dst4.axis(),
            src6: src6.axis(),
            dst6: dst6.axis(),
        })
    }

    /// The operations that can match the packet of `facts`, which is in `zone`.
    #[inline]
    pub(super) fn candidates(&self, facts: &Facts<'_>, zone: u16) -> Candidates<'_> {
        self.candidates_but(None, facts, zone)
    }

    /// The operations that can match the packet of `facts`, which is in `zone`, whatever its VLAN.
    pub(super) fn candidates_of_any_vlan(&self, facts: &Facts<'_>, zone: u16) -> Candidates<'_> {
        self.candidates_but(Some(Field::Vlan), facts, zone)
    }

    /// The candidates, if one does not go by the field `unknown`.
    #[inline(always)]
    fn candidates_but(
        &self,
        unknown: Option<Field>,
        facts: &Facts<'_>,
        zone: u16,
    ) -> Candidates<'_> {
        let packet = facts.packet;
        let mut views = ArrayVec::new();
        match packet.addrs {
            Addrs::V4 { src, dst } => {
                views.extend(self.src4.as_ref().map(|axis| axis.view(Some(src))));
                views.extend(self.dst4.as_ref().map(|axis| axis.view(Some(dst))));
            }
            Addrs::V6 { src, dst } => {
                views.extend(self.src6.as_ref().map(|axis| axis.view(Some(src))));
                views.extend(self.dst6.as_ref().map(|axis| axis.view(Some(dst))));
            }
        }
        for (field, axis) in &self.numbers {
            if Some(*field) == unknown {
                continue;
            }
            let value = match field {
                Field::State => Some(state(facts.state.bit(), facts.dir)),
                Field::Iif => Some(facts.iif.0.into()),
                Field::Proto => {
                    Some(u16::from(packet.l3 == L3::Ipv6) << 8 | u16::from(packet.proto))
                }
                Field::Dport => packet.dport(),
                Field::Sport => packet.sport(),
                Field::Vlan => (packet.vlan != NO_VLAN).then_some(packet.vlan),
                Field::Zone => Some(zone),
            };
            views.extend([axis.view(value)]);
        }
        let mut candidates = Candidates {
            views,
            top: 0,
            at: u32::MAX,
            word: 0,
        };
        candidates.top = candidates.all(|view| view.top());
        candidates
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
        four.chain(six).chain(numbers).sum()
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
