//! Builds the classifier's axes: from the rules' ranges to intervals and the set of each.
//!
//! Rules with the same ranges on an axis form a group, so that a set of 100,000 addresses that a
//! thousand rules name is cut into intervals once. A group costs its intervals times the words that
//! its rules lie in; the cheapest come first, and what the room does not suffice for counts as not
//! asked.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use super::intervals::{Intervals, Number};
use super::{ASKED, Axis, Class, Field, PortId, Sets, Wild, state};
use crate::conntrack::types::{CtState, Dir};
use crate::policy::MAX_PORTS;
use crate::policy::compile::{Op, Pred, Tables};
use crate::policy::model::{Family, ProtoSet};
use crate::policy::ranges::{AddrSet, U16Set};

/// Words that the sets of one axis may have, beside [`ROOM_PER_OP`] for each operation.
const ROOM: usize = 1 << 20;
const ROOM_PER_OP: usize = 64;

/// Ranges of one rule on one axis; none touches another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ranges<T> {
    These(Vec<(T, T)>),
    /// Those of an address set, by the place of the set in memory, or what is between them.
    Of(AddrRanges),
}

/// The addresses of a set, or the others.
#[derive(Clone, Debug)]
pub(super) struct AddrRanges {
    set: Arc<AddrSet>,
    negated: bool,
}

impl PartialEq for AddrRanges {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.set, &other.set) && self.negated == other.negated
    }
}

impl Eq for AddrRanges {}

impl Hash for AddrRanges {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.set).hash(state);
        self.negated.hash(state);
    }
}

/// What a rule asks of an address.
pub(super) enum Addr {
    Range(u32, u32),
    Set(AddrRanges),
}

impl Addr {
    pub(super) fn v4(&self) -> Ranges<u32> {
        match self {
            Addr::Range(low, high) => Ranges::These(vec![(*low, *high)]),
            Addr::Set(set) => Ranges::Of(set.clone()),
        }
    }

    pub(super) fn v6(&self) -> Ranges<u128> {
        match self {
            Addr::Range(..) => Ranges::These(Vec::new()),
            Addr::Set(set) => Ranges::Of(set.clone()),
        }
    }
}

/// A number whose ranges an address set may hold.
pub(super) trait InSets: Number + Hash {
    const MAX: Self;
    fn previous(self) -> Self;
    fn ranges(set: &AddrSet) -> &[(Self, Self)];
}

macro_rules! in_sets {
    ($($int:ty, $ranges:expr;)*) => {$(
        impl InSets for $int {
            const MAX: Self = <$int>::MAX;

            fn previous(self) -> Self {
                self.wrapping_sub(1)
            }

            fn ranges(set: &AddrSet) -> &[(Self, Self)] {
                let ranges: fn(&AddrSet) -> &[(Self, Self)] = $ranges;
                ranges(set)
            }
        }
    )*};
}

in_sets! {
    u16, |_| &[];
    u32, AddrSet::v4;
    u128, AddrSet::v6;
}

impl<T: InSets> Ranges<T> {
    fn list(&self) -> Vec<(T, T)> {
        match self {
            Ranges::These(list) => list.clone(),
            Ranges::Of(AddrRanges { set, negated }) => {
                let ranges = T::ranges(set);
                // an address implies its family, negated or not
                if !negated || ranges.is_empty() {
                    return ranges.to_vec();
                }
                let mut gaps = Vec::with_capacity(ranges.len() + 1);
                let mut next = Some(T::MIN);
                for (low, high) in ranges {
                    if let Some(start) = next.filter(|start| start < low) {
                        gaps.push((start, low.previous()));
                    }
                    next = high.next();
                }
                gaps.extend(next.map(|start| (start, T::MAX)));
                gaps
            }
        }
    }
}

/// Reads what operations ask on each axis.
pub(super) struct Spans<'a> {
    pub(super) preds: &'a [Pred],
    pub(super) tables: &'a Tables,
    pub(super) peer: &'a dyn Fn(PortId) -> Option<PortId>,
}

impl Spans<'_> {
    fn preds(&self, op: &Op) -> &[Pred] {
        let first = op.preds as usize;
        let preds = self.preds.get(first..first + usize::from(op.count));
        preds.unwrap_or_default()
    }

    /// What `op` asks of source and destination.
    pub(super) fn addrs(&self, op: &Op) -> [Option<Addr>; 2] {
        let set = |at: u32, negated| {
            let set = self.tables.addrs.get(at as usize)?;
            let set = Arc::clone(set);
            Some(Addr::Set(AddrRanges { set, negated }))
        };
        let (mut src, mut dst) = (None, None);
        for pred in self.preds(op) {
            match *pred {
                Pred::Src4(low, high) => src = Some(Addr::Range(low, high)),
                Pred::Dst4(low, high) => dst = Some(Addr::Range(low, high)),
                Pred::Src { set: at, negated } => src = set(at, negated),
                Pred::Dst { set: at, negated } => dst = set(at, negated),
                _ => {}
            }
        }
        [src, dst]
    }

    /// What `op` asks of `field`.
    pub(super) fn numbers(&self, op: &Op, field: Field) -> Option<Ranges<u16>> {
        let set = |at: u32| self.tables.numbers.get(at as usize).map(U16Set::ranges);
        let mut ranges: Option<Vec<(u16, u16)>> = None;
        let mut narrow = |more: Vec<(u16, u16)>| {
            ranges = Some(match ranges.take() {
                None => more,
                Some(before) => intersection(&before, &more),
            });
        };
        for pred in self.preds(op) {
            match (field, *pred) {
                (Field::State, Pred::State(mask)) => narrow(states(mask, None)),
                (Field::State, Pred::Dir(dir)) => narrow(states(u8::MAX, Some(dir))),
                (Field::Iif, Pred::Iif(mask)) => narrow(bits(64, |port| mask >> port & 1 == 1)),
                (Field::Iif, Pred::Oif(mask)) => narrow(bits(MAX_PORTS as u16, |port| {
                    let peer = (self.peer)(PortId(port as u8));
                    peer.is_some_and(|peer| mask >> peer.0 & 1 == 1)
                })),
                (Field::Proto, Pred::Family(Family::Ipv4)) => narrow(vec![(0, 255)]),
                (Field::Proto, Pred::Family(Family::Ipv6)) => narrow(vec![(256, 511)]),
                (Field::Proto, Pred::Proto(number)) => {
                    narrow(bits(512, |value| value & 255 == u16::from(number)));
                }
                (Field::Proto, Pred::Protos(at)) => {
                    let set = self.tables.protos.get(at as usize);
                    let set = set.copied().unwrap_or(ProtoSet::default());
                    narrow(bits(512, |value| set.contains(value as u8)));
                }
                (Field::Dport, Pred::Dport(low, high)) => narrow(vec![(low, high)]),
                (Field::Sport, Pred::Sport(low, high)) => narrow(vec![(low, high)]),
                (Field::Dport, Pred::Dports(at))
                | (Field::Sport, Pred::Sports(at))
                | (Field::Vlan, Pred::Vlan(at))
                | (Field::Zone, Pred::Zone(at)) => narrow(set(at).unwrap_or_default().to_vec()),
                _ => {}
            }
        }
        ranges.map(Ranges::These)
    }
}

/// Where the states of `mask` are on their axis, in one direction or all.
fn states(mask: u8, dir: Option<Dir>) -> Vec<(u16, u16)> {
    let all = CtState::ALL
        .into_iter()
        .filter(|state| mask & state.bit() != 0);
    let dirs = [None, Some(Dir::Original), Some(Dir::Reply)];
    let mut places: Vec<u16> = all
        .flat_map(|it| dirs.map(|dir| (dir, state(it.bit(), dir))))
        .filter(|(of, _)| dir.is_none() || *of == dir)
        .map(|(_, place)| place)
        .collect();
    places.sort_unstable();
    U16Set::new(places.into_iter().map(|place| (place, place)))
        .ranges()
        .to_vec()
}

/// The numbers below `end` that are wanted.
fn bits(end: u16, wanted: impl Fn(u16) -> bool) -> Vec<(u16, u16)> {
    let wanted = (0..end).filter(|number| wanted(*number));
    U16Set::new(wanted.map(|number| (number, number)))
        .ranges()
        .to_vec()
}

fn intersection(a: &[(u16, u16)], b: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let pairs = a
        .iter()
        .flat_map(|a| b.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
    pairs.filter(|(low, high)| low <= high).collect()
}

/// Operations that ask the same.
struct Group {
    /// Numbers of words, and their bits.
    words: Vec<(u32, u64)>,
}

/// One axis in the making.
pub(super) struct Builder<T> {
    ops: usize,
    wild: Vec<u64>,
    asked: usize,
    known: HashMap<Ranges<T>, usize>,
    groups: Vec<(Ranges<T>, Group)>,
}

impl<T: InSets> Builder<T> {
    pub(super) fn new(ops: usize) -> Self {
        Self {
            ops,
            wild: vec![0; ops.div_ceil(64)],
            asked: 0,
            known: HashMap::new(),
            groups: Vec::new(),
        }
    }

    /// Adds the operation `at`, which asks for `ranges`, or does not ask. Operations come in order.
    pub(super) fn op(&mut self, at: usize, ranges: Option<Ranges<T>>) {
        let (word, bit) = (at / 64, 1u64 << (at % 64));
        let Some(ranges) = ranges else {
            self.wild[word] |= bit;
            return;
        };
        self.asked += 1;
        let group = *self.known.entry(ranges).or_insert_with_key(|ranges| {
            self.groups
                .push((ranges.clone(), Group { words: Vec::new() }));
            self.groups.len() - 1
        });
        let words = &mut self.groups[group].1.words;
        match words.last_mut() {
            Some((last, bits)) if *last as usize == word => *bits |= bit,
            _ => words.push((word as u32, bit)),
        }
    }

    /// The axis, if it is worth it.
    pub(super) fn axis(self) -> Option<Axis<T>> {
        if self.asked < ASKED {
            return None;
        }
        let Self {
            ops,
            mut wild,
            groups,
            ..
        } = self;
        let lists: Vec<Vec<(T, T)>> = groups.iter().map(|(ranges, _)| ranges.list()).collect();
        let kept = affordable(&lists, &groups, ops);
        for ((_, group), _) in groups.iter().zip(&kept).filter(|(_, kept)| !**kept) {
            group
                .words
                .iter()
                .for_each(|(word, bits)| wild[*word as usize] |= bits);
        }
        let kept = || {
            lists
                .iter()
                .zip(&groups)
                .zip(&kept)
                .filter(|(_, kept)| **kept)
        };
        let intervals = cut(kept().map(|((list, _), _)| list));
        let mut turns = Vec::new();
        for ((list, (_, group)), _) in kept() {
            for (low, high) in list {
                let span = intervals.span(*low, *high);
                turns.push((span.start, group));
                turns.push((span.end, group));
            }
        }
        turns.sort_by_key(|(at, _)| *at);
        let mut sweep = Sweep::new(wild.len());
        let mut turns = turns.into_iter().peekable();
        let mut classes = Vec::with_capacity(intervals.len());
        for interval in 0..intervals.len() {
            while let Some((_, group)) = turns.next_if(|(at, _)| *at == interval) {
                sweep.turn(group);
            }
            classes.push(sweep.class());
        }
        Some(Axis {
            intervals,
            classes: classes.into(),
            sets: sweep.sets(wild),
        })
    }
}

/// The intervals in which no range of `lists` begins or ends.
fn cut<'a, T: InSets + 'a>(lists: impl Iterator<Item = &'a Vec<(T, T)>>) -> Intervals<T> {
    let ends = lists
        .flatten()
        .flat_map(|(low, high)| [Some(*low), high.next()]);
    Intervals::new(ends.flatten().collect())
}

/// Which groups there is room for.
fn affordable<T: InSets>(
    lists: &[Vec<(T, T)>],
    groups: &[(Ranges<T>, Group)],
    ops: usize,
) -> Vec<bool> {
    let intervals = cut(lists.iter());
    let price = |list: &Vec<(T, T)>, group: &Group| {
        let spans = list
            .iter()
            .map(|(low, high)| intervals.span(*low, *high).len());
        spans.sum::<usize>().saturating_mul(group.words.len())
    };
    let prices = lists
        .iter()
        .zip(groups)
        .map(|(list, (_, group))| price(list, group));
    let mut prices: Vec<_> = prices.enumerate().map(|(at, price)| (price, at)).collect();
    prices.sort_unstable();
    let mut room = ROOM + ops * ROOM_PER_OP;
    let mut kept = vec![false; groups.len()];
    for (price, at) in prices {
        let Some(left) = room.checked_sub(price) else {
            break;
        };
        room = left;
        kept[at] = true;
    }
    kept
}

/// Goes over the intervals with the set of the one at hand.
struct Sweep {
    words: Vec<u64>,
    summaries: Vec<u64>,
    /// Of the set: the same sets have the same.
    hash: u64,
    known: HashMap<u64, u32>,
    classes: Vec<Class>,
    all_summaries: Vec<Class>,
    all_words: Vec<u64>,
}

impl Sweep {
    fn new(words: usize) -> Self {
        Self {
            words: vec![0; words],
            summaries: vec![0; words.div_ceil(64)],
            hash: 0,
            known: HashMap::new(),
            classes: Vec::new(),
            all_summaries: Vec::new(),
            all_words: Vec::new(),
        }
    }

    /// A group comes or goes.
    fn turn(&mut self, group: &Group) {
        for (at, bits) in &group.words {
            let word = &mut self.words[*at as usize];
            *word ^= bits;
            let bit = 1 << (at % 64);
            let summary = &mut self.summaries[*at as usize / 64];
            *summary = if *word == 0 {
                *summary & !bit
            } else {
                *summary | bit
            };
            self.hash ^= mix(u64::from(*at) << 32 ^ mix(*bits));
        }
    }

    /// The class of the set at hand.
    fn class(&mut self) -> u32 {
        let known = self.known.get(&self.hash).copied();
        if let Some(class) = known.filter(|class| self.is(*class)) {
            return class;
        }
        let mut top = Class {
            bits: 0,
            first: self.all_summaries.len() as u32,
        };
        for (at, bits) in self
            .summaries
            .iter()
            .enumerate()
            .filter(|(_, bits)| **bits != 0)
        {
            top.bits |= 1 << at;
            let first = self.all_words.len() as u32;
            self.all_summaries.push(Class { bits: *bits, first });
            let words = self.words[at * 64..].iter().take(64);
            self.all_words.extend(words.filter(|word| **word != 0));
        }
        let class = self.classes.len() as u32;
        self.classes.push(top);
        self.known.insert(self.hash, class);
        class
    }

    /// Whether `class` is the set at hand.
    fn is(&self, class: u32) -> bool {
        let top = self.classes[class as usize];
        let mut next = top.first as usize;
        self.summaries.iter().enumerate().all(|(at, bits)| {
            if *bits == 0 {
                return top.bits >> at & 1 == 0;
            }
            let Some(summary) = self.all_summaries.get(next) else {
                return false;
            };
            next += 1;
            let mine = self.words[at * 64..]
                .iter()
                .take(64)
                .filter(|word| **word != 0);
            let theirs = &self.all_words[summary.first as usize..];
            top.bits >> at & 1 == 1
                && summary.bits == *bits
                && mine.zip(theirs).all(|(mine, theirs)| mine == theirs)
        })
    }

    fn sets(self, words: Vec<u64>) -> Sets {
        let summary = |words: &[u64]| {
            let set = words.iter().enumerate().filter(|(_, word)| **word != 0);
            set.fold(0u64, |bits, (at, _)| bits | 1 << at)
        };
        let summaries: Vec<u64> = words.chunks(64).map(summary).collect();
        Sets {
            classes: self.classes.into(),
            summaries: self.all_summaries.into(),
            words: self.all_words.into(),
            wild: Wild {
                top: summary(&summaries),
                summaries: summaries.into(),
                words: words.into(),
            },
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: OOPSLA 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
