//! Builds the classifier's axes: from the rules' ranges to intervals and the list of each.
//!
//! Rules with the same ranges on an axis form a group, so that a set of 100,000 addresses that a
//! thousand rules name is cut into intervals once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::intervals::{Intervals, Number, Span};
use super::{AXES, Axis, Entry, Field, PortId, state};
use crate::conntrack::types::{CtState, Dir};
use crate::policy::MAX_PORTS;
use crate::policy::compile::{Op, Pred, Tables};
use crate::policy::model::{Family, ProtoSet};
use crate::policy::ranges::{AddrSet, U16Set};

/// Places in lists that there may be, beside [`ROOM_PER_OP`] for each operation.
const ROOM: usize = 4 << 20;
const ROOM_PER_OP: usize = 64;
/// What fewer operations are filed under is no axis: they are tested sooner than looked for.
const ASKED: usize = 4;

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

/// The least and the greatest of some numbers.
pub(super) type Hull = (u32, u32);
/// That of none.
pub(super) const NOBODY: Hull = (1, 0);
/// That of all.
const ANYBODY: Hull = (0, u32::MAX);

impl Addr {
    /// The ends of its IPv4 addresses.
    pub(super) fn ends4(&self) -> Hull {
        match self {
            Addr::Range(low, high) => (*low, *high),
            Addr::Set(AddrRanges { set, negated }) => match (negated, set.v4()) {
                (true, _) => ANYBODY,
                (false, [(low, _), .., (_, high)] | [(low, high)]) => (*low, *high),
                (false, []) => NOBODY,
            },
        }
    }

    /// The ends of the first 32 bits of its IPv6 addresses.
    pub(super) fn ends6(&self) -> Hull {
        let front = |addr: u128| (addr >> 96) as u32;
        match self {
            Addr::Range(..) => NOBODY,
            Addr::Set(AddrRanges { set, negated }) => match (negated, set.v6()) {
                (true, _) => ANYBODY,
                (false, [(low, _), .., (_, high)] | [(low, high)]) => (front(*low), front(*high)),
                (false, []) => NOBODY,
            },
        }
    }
}

/// What each operation asks of another address and of the destination port, at its ends.
#[derive(Default)]
pub(super) struct Ends(Vec<(Hull, (u16, u16))>);

impl Ends {
    /// Adds the next operation's; `None` where it does not ask.
    pub(super) fn push(&mut self, addr: Option<Hull>, port: Option<(u16, u16)>) {
        let port = port.unwrap_or((0, u16::MAX));
        self.0.push((addr.unwrap_or(ANYBODY), port));
    }

    fn entry(&self, op: u32) -> Entry {
        let ends = self.0.get(op as usize).copied();
        let (addr, port) = ends.unwrap_or((ANYBODY, (0, u16::MAX)));
        Entry { op, addr, port }
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
                // an address implies its family, negated or not; no address implies none
                if !negated || ranges.is_empty() && (set.has_v4() || set.has_v6()) {
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

    /// The least and the greatest destination port that `op` asks for.
    pub(super) fn dport(&self, op: &Op) -> Option<(u16, u16)> {
        match self.numbers(op, Field::Dport)? {
            Ranges::These(ranges) => match *ranges {
                [(low, _), .., (_, high)] | [(low, high)] => Some((low, high)),
                [] => Some((1, 0)),
            },
            Ranges::Of(_) => None,
        }
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

/// How much company a rule would have on an axis, and what it would cost there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Company {
    op: u32,
    /// Rules, this one included, that ask for a value that it asks for: the mean over its intervals,
    /// in sixteenths.
    rules: u64,
    /// Intervals that it asks for.
    price: usize,
}

impl Company {
    /// What speaks against filing it there: company, and in some measure room.
    fn score(&self) -> u64 {
        self.rules + self.price as u64 / 8
    }
}

/// Where each operation is filed.
pub(super) struct Files {
    offers: Vec<ArrayVec<(usize, Company), AXES>>,
    places: Vec<Option<usize>>,
}

impl Files {
    pub(super) fn new(ops: usize) -> Self {
        Self {
            offers: vec![ArrayVec::new(); ops],
            places: vec![None; ops],
        }
    }

    /// Says what it is like at `place`. An address may be asked for in both families: the worse one
    /// counts.
    pub(super) fn offer(&mut self, place: usize, mut companies: Vec<Company>) {
        companies.sort_by_key(|company| (company.op, company.rules));
        companies.dedup_by(|next, kept| {
            let same = next.op == kept.op;
            if same {
                kept.rules = next.rules;
                kept.price += next.price;
            }
            same
        });
        for company in companies {
            if let Some(offers) = self.offers.get_mut(company.op as usize) {
                offers.push((place, company));
            }
        }
    }

    /// Files every operation where it is best, the cheap ones first, while there is room; what is not
    /// worth an axis then is filed nowhere.
    pub(super) fn settle(&mut self) {
        for offers in &mut self.offers {
            offers.sort_by_key(|(_, company)| company.score());
        }
        let price = |op: &usize| self.offers[*op].first().map_or(0, |(_, best)| best.price);
        let mut order: Vec<usize> = (0..self.offers.len()).collect();
        order.sort_by_key(price);
        let mut room = ROOM + order.len() * ROOM_PER_OP;
        let mut counts = [0; AXES];
        for op in order {
            let affordable = self.offers[op].iter().find(|(_, it)| it.price <= room);
            if let Some((place, company)) = affordable {
                room -= company.price;
                counts[*place] += 1;
                self.places[op] = Some(*place);
            }
        }
        for filed in &mut self.places {
            *filed = filed.filter(|place| counts[*place] >= ASKED);
        }
    }

    fn is_at(&self, op: u32, place: usize) -> bool {
        self.places.get(op as usize).copied().flatten() == Some(place)
    }

    /// The operations that are filed nowhere.
    pub(super) fn nowhere(&self, ends: &Ends) -> Box<[Entry]> {
        let all = (0..).zip(&self.places);
        all.filter(|(_, filed)| filed.is_none())
            .map(|(op, _)| ends.entry(op))
            .collect()
    }
}

/// One axis in the making: operations by what they ask for.
pub(super) struct Builder<T> {
    known: HashMap<Ranges<T>, usize>,
    groups: Vec<(Ranges<T>, Vec<u32>)>,
}

impl<T> Default for Builder<T> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            groups: Vec::new(),
        }
    }
}

impl<T: InSets> Builder<T> {
    /// Adds the operation `at`, if it asks for `ranges`. Operations come in order.
    pub(super) fn op(&mut self, at: u32, ranges: Option<Ranges<T>>) {
        let Some(ranges) = ranges else { return };
        let groups = &mut self.groups;
        let group = *self.known.entry(ranges).or_insert_with_key(|ranges| {
            groups.push((ranges.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(at);
    }

    /// What each operation that asks would find here.
    pub(super) fn company(&self) -> Vec<Company> {
        let lists: Vec<_> = self
            .groups
            .iter()
            .map(|(ranges, _)| ranges.list())
            .collect();
        let intervals = cut(lists.iter());
        let spans = |list: &Vec<(T, T)>| -> Vec<_> {
            list.iter()
                .map(|(low, high)| intervals.span(*low, *high))
                .collect()
        };
        let spans: Vec<_> = lists.iter().map(spans).collect();
        // how many rules more than in the interval before; then how many in all intervals before
        let mut rules = vec![0i64; intervals.len() + 1];
        for (spans, (_, ops)) in spans.iter().zip(&self.groups) {
            for span in spans {
                rules[span.start] += ops.len() as i64;
                rules[span.end] -= ops.len() as i64;
            }
        }
        let (mut here, mut before) = (0, 0);
        for count in &mut rules {
            here += *count;
            *count = before;
            before += here;
        }
        let mut companies = Vec::new();
        for (spans, (_, ops)) in spans.iter().zip(&self.groups) {
            let price: usize = spans.iter().map(|span| span.len()).sum();
            let all: i64 = spans
                .iter()
                .map(|span| rules[span.end] - rules[span.start])
                .sum();
            let rules = all as u64 * 16 / price.max(1) as u64;
            companies.extend(ops.iter().map(|op| Company {
                op: *op,
                rules,
                price,
            }));
        }
        companies
    }

    /// The axis of what is filed under `place`, if that is anything.
    pub(super) fn axis(self, place: usize, files: &Files, ends: &Ends) -> Option<Axis<T>> {
        let mut groups = self.groups;
        for (_, ops) in &mut groups {
            ops.retain(|op| files.is_at(*op, place));
        }
        groups.retain(|(_, ops)| !ops.is_empty());
        if groups.is_empty() {
            return None;
        }
        let lists: Vec<_> = groups.iter().map(|(ranges, _)| ranges.list()).collect();
        let mut intervals = cut(lists.iter());
        let mut turns = Vec::new();
        for (list, (_, ops)) in lists.iter().zip(&groups) {
            for (low, high) in list {
                let span = intervals.span(*low, *high);
                turns.push((span.start, ops));
                turns.push((span.end, ops));
            }
        }
        turns.sort_by_key(|(at, _)| *at);
        let mut sweep = Sweep::default();
        let mut turns = turns.into_iter().peekable();
        let mut lists = Vec::with_capacity(intervals.len());
        for interval in 0..intervals.len() {
            while let Some((_, ops)) = turns.next_if(|(at, _)| *at == interval) {
                ops.iter().for_each(|op| sweep.turn(*op));
            }
            lists.push(sweep.list());
        }
        intervals.lead(lists.into_iter());
        Some(Axis {
            intervals,
            entries: sweep.ops.into_iter().map(|op| ends.entry(op)).collect(),
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

/// Goes over the intervals with the list of the one at hand.
#[derive(Default)]
struct Sweep {
    here: Vec<u32>,
    /// Of the list: the same lists have the same.
    hash: u64,
    known: HashMap<u64, Span>,
    /// All lists, each different one once.
    ops: Vec<u32>,
}

impl Sweep {
    /// An operation comes or goes.
    fn turn(&mut self, op: u32) {
        match self.here.binary_search(&op) {
            Ok(at) => {
                self.here.remove(at);
            }
            Err(at) => self.here.insert(at, op),
        }
        self.hash ^= mix(op.into());
    }

    /// The list at hand.
    fn list(&mut self) -> Span {
        let len = self.here.len() as u32;
        let known = self.known.get(&self.hash).copied();
        let same = |Span { first, len }: &Span| {
            let list = self.ops.get(*first as usize..(first + len) as usize);
            list == Some(&self.here)
        };
        if let Some(list) = known.filter(same) {
            return list;
        }
        let first = self.ops.len() as u32;
        let list = Span { first, len };
        self.ops.extend_from_slice(&self.here);
        self.known.insert(self.hash, list);
        list
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: OOPSLA 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
