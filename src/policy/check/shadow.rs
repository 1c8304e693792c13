//! Warns about rules that no packet reaches because an earlier rule of the same list takes all that
//! they match, or earlier rules do together that ask for interfaces and states only (`wide`).
//!
//! An earlier rule that holds all packets of a later one matches, above all, any packet of it. So
//! each rule is compared only with those that match one such packet by the front of its addresses,
//! its port and its protocol: rules are kept in tables by how much of these they ask for. Comparing
//! stops after [`WORK`] comparisons in one policy; then shadowed rules may stay untold, which only
//! lists of many thousands of rules that differ in nothing of this can bring about.
//!
//! Life-cycle: for one policy, once all of it is read. Concurrency: none.

use std::collections::BTreeMap;

use super::Checker;
use super::chains::{ReadChain, RulePlaces};
use super::region::Region;
use super::wide::Left;
use crate::policy::diagnostic::Place;
use crate::policy::model::{Action, AddrMatch, ChainPolicy, Matches, Rule};

/// Comparisons of two rules in one policy.
const WORK: u64 = 5_000_000;

/// A list of rules that are asked in order: a chain, `raw` or `helpers`.
pub(super) struct Ordered<'r> {
    pub(super) rules: Vec<&'r Rule>,
    pub(super) regions: Vec<Region<'r>>,
    /// Whether a rule keeps what it matches from those behind it.
    pub(super) takes: Vec<bool>,
}

impl Checker<'_> {
    /// Warns about rules behind others that leave nothing for them.
    pub(super) fn warn_of_order(
        &mut self,
        helpers: &[(Rule, RulePlaces)],
        raw: &[(Rule, RulePlaces)],
        chains: &[ReadChain],
    ) {
        let marks = chains.iter().flat_map(|read| &read.chain.rules);
        let marks = marks.into_iter().any(|rule| rule.mark.is_some());
        let mut work = WORK;
        for list in [helpers, raw] {
            let rules: Vec<_> = list.iter().map(|(rule, _)| rule).collect();
            let places: Vec<_> = list.iter().map(|(_, at)| at.name).collect();
            let reached = everything(&rules).map_or(rules.len(), |at| at + 1);
            if let (Some(place), Some(all)) =
                (places.get(reached), rules.get(reached.wrapping_sub(1)))
            {
                self.never_reached(*place, all);
            }
            let list = self.ordered(rules[..reached].to_vec(), marks);
            self.warn_of_list(&list, &places, None, &mut work);
        }
        for read in chains {
            let rules: Vec<_> = read.chain.rules.iter().collect();
            let places: Vec<_> = read.rules.iter().map(|at| at.name).collect();
            // what stands behind such a rule was told
            let reached = everything(&rules).map_or(rules.len(), |at| at + 1);
            let list = self.ordered(rules[..reached].to_vec(), marks);
            let policy = read.chain.policy.filter(|_| reached == rules.len());
            self.warn_of_list(&list, &places, policy, &mut work);
        }
    }

    pub(super) fn never_reached(&mut self, place: Place, all: &Rule) {
        let message = format!(
            "never reached: rule `{}` in line {} matches every packet",
            all.name, all.line
        );
        self.sink.warn(place, message);
    }

    fn ordered<'r>(&self, rules: Vec<&'r Rule>, marks: bool) -> Ordered<'r> {
        let regions: Vec<_> = rules
            .iter()
            .map(|rule| self.region(&rule.matches))
            .collect();
        let takes = rules.iter().zip(&regions).map(|(rule, region)| {
            let m = &rule.matches;
            // what it matches changes with time, or by what rules in between do
            let varies = m.limit.is_some()
                || m.connlimit.is_some()
                || m.time.is_some()
                || m.mark.is_some() && marks;
            ends(rule) && !varies && !region.is_empty()
        });
        Ordered {
            takes: takes.collect(),
            regions,
            rules,
        }
    }

    fn warn_of_list(
        &mut self,
        list: &Ordered<'_>,
        places: &[Place],
        policy: Option<ChainPolicy>,
        work: &mut u64,
    ) {
        let index = Index::new(list);
        let mut left = Left::new(self.region(&Matches::default()).iif);
        for (at, place) in (0..list.rules.len()).zip(places) {
            let region = &list.regions[at];
            if region.is_empty() {
                // it has nothing that could be taken; why is told where it can be seen
                continue;
            }
            let takers = match index.earlier(list, at, work) {
                Some(earlier) => vec![earlier],
                None => left.takers(region),
            };
            if takers.is_empty() {
                left.pass(list, at);
            } else {
                let takers: Vec<_> = takers.iter().map(|at| list.rules[*at]).collect();
                self.shadowed(*place, list.rules[at], &takers);
            }
        }
        for (at, message) in left.too_wide(list, policy) {
            self.sink.warn(places[at], message).help(
                "packets of known flows were let by before; let this rule match less, or move it \
                 behind the others",
            );
        }
    }

    fn shadowed(&mut self, place: Place, rule: &Rule, takers: &[&Rule]) {
        let does_more = rule.log.is_some()
            || rule.mark.is_some()
            || rule.counter.is_some()
            || rule.timeouts.is_some();
        let agrees = !does_more && takers.iter().all(|taker| taker.action == rule.action);
        let what = if agrees {
            "redundant"
        } else {
            "never takes effect"
        };
        const SHOWN: usize = 3;
        let names = takers.iter().take(SHOWN);
        let names = names
            .map(|taker| format!("`{}` in line {} ({})", taker.name, taker.line, taker.action));
        let mut names: Vec<_> = names.collect();
        if takers.len() > SHOWN {
            names.push(format!("{} more", takers.len() - SHOWN));
        }
        let (word, verb) = match takers {
            [_] => ("rule", "matches"),
            _ => ("rules", "match"),
        };
        let names = match &names[..] {
            [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => names.concat(),
        };
        let message = format!("{what}: {word} {names} {verb} all of its packets first");
        let help = match (agrees, takers) {
            (true, _) => "remove it".to_owned(),
            (false, [taker]) => {
                let name = &taker.name;
                format!("move it before rule `{name}`, or let that match less")
            }
            (false, _) => "move it before these rules, or let them match less".to_owned(),
        };
        self.sink.warn(place, message).help(help);
    }
}

/// The first rule that takes every packet.
fn everything(rules: &[&Rule]) -> Option<usize> {
    rules
        .iter()
        .position(|rule| rule.matches.is_empty() && ends(rule))
}

/// Whether what a rule matches goes to no rule behind it.
pub(super) fn ends(rule: &Rule) -> bool {
    !matches!(rule.action, Action::Continue | Action::Jump(_))
}

/// An address of family 4 or 6, in front of zeros; family 0 for none.
type Addr = (u8, u128);

/// What a table asks of packets: how many bits of the source and destination address of which
/// family, and whether the destination port and the protocol.
type Shape = ([(u8, u8); 2], bool, bool);

/// The rules of a list that take what they match.
struct Index(BTreeMap<Shape, Vec<(u64, u32)>>);

impl Index {
    fn new(list: &Ordered<'_>) -> Self {
        let mut tables: BTreeMap<Shape, Vec<(u64, u32)>> = BTreeMap::new();
        let taking = (0..list.rules.len()).filter(|at| list.takes[*at]);
        for at in taking {
            let region = &list.regions[at];
            let m = region.m;
            let [src, dst] = [&m.saddr, &m.daddr].map(|addr| cover(addr.as_ref()));
            let port = m.dport.as_ref().and_then(|set| match set.ranges() {
                [(low, high)] if low == high => Some(*low),
                _ => None,
            });
            let proto = region.only_proto();
            let shape = (
                [src, dst].map(|(addr, len)| (addr.0, len)),
                port.is_some(),
                proto.is_some(),
            );
            let key = key([src.0, dst.0], port, proto);
            tables.entry(shape).or_default().push((key, at as u32));
        }
        tables.values_mut().for_each(|table| table.sort_unstable());
        Self(tables)
    }

    /// A rule before `at` that takes all that this one matches.
    fn earlier(&self, list: &Ordered<'_>, at: usize, work: &mut u64) -> Option<usize> {
        let region = &list.regions[at];
        let m = region.m;
        let addrs = [&m.saddr, &m.daddr].map(|addr| addr.as_ref().and_then(any_addr));
        let port = m
            .dport
            .as_ref()
            .and_then(|set| Some(set.ranges().first()?.0));
        let proto = region.any_proto();
        let mut found: Option<usize> = None;
        for ((lens, asks_port, asks_proto), table) in &self.0 {
            let fronts = [0, 1].map(|side| front(addrs[side], lens[side]));
            let [Some(src), Some(dst)] = fronts else {
                continue;
            };
            if *asks_port && port.is_none() || *asks_proto && proto.is_none() {
                continue;
            }
            let key = key(
                [src, dst],
                port.filter(|_| *asks_port),
                proto.filter(|_| *asks_proto),
            );
            *work = work.checked_sub(1)?;
            let start = table.partition_point(|(other, _)| *other < key);
            for (_, earlier) in table[start..].iter().take_while(|(other, _)| *other == key) {
                let earlier = *earlier as usize;
                if earlier >= found.unwrap_or(at) {
                    break;
                }
                let other = &list.regions[earlier];
                *work = work.checked_sub(other.weight().max(region.weight()))?;
                if other.holds(region) {
                    found = Some(earlier);
                }
            }
        }
        found
    }
}

/// The front that all addresses of a match share, and its length in bits; rounded down, so that
/// there are few lengths.
fn cover(addr: Option<&AddrMatch>) -> (Addr, u8) {
    let Some(AddrMatch {
        set,
        negated: false,
    }) = addr
    else {
        return ((0, 0), 0);
    };
    let (family, low, high) = match (set.v4(), set.v6()) {
        ([first, ..], []) => {
            let last = set.v4().last().unwrap_or(first);
            (4, u128::from(first.0) << 96, u128::from(last.1) << 96)
        }
        ([], [first, ..]) => (6, first.0, set.v6().last().unwrap_or(first).1),
        _ => return ((0, 0), 0),
    };
    let (most, step) = if family == 4 { (32, 8) } else { (128, 16) };
    let len = (low ^ high).leading_zeros().min(most) / step * step;
    if len == 0 {
        return ((0, 0), 0);
    }
    ((family, cut(low, len as u8)), len as u8)
}

/// An address that matches; `None` where both families do, or all but some.
fn any_addr(addr: &AddrMatch) -> Option<Addr> {
    match (addr.set.v4(), addr.set.v6()) {
        _ if addr.negated => None,
        ([(low, _), ..], []) => Some((4, u128::from(*low) << 96)),
        ([], [(low, _), ..]) => Some((6, *low)),
        _ => None,
    }
}

/// As much of `addr` as a table asks for; `None` if it has none such.
fn front(addr: Option<Addr>, (family, len): (u8, u8)) -> Option<Addr> {
    match addr {
        _ if family == 0 => Some((0, 0)),
        Some((own, addr)) if own == family => Some((family, cut(addr, len))),
        _ => None,
    }
}

fn cut(addr: u128, len: u8) -> u128 {
    addr & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// What equal values make equal (Fowler, Noll, Vo's mixing, by words). Others may be equal too.
fn key([src, dst]: [Addr; 2], port: Option<u16>, proto: Option<u8>) -> u64 {
    let halves = |(family, addr): Addr| [family.into(), (addr >> 64) as u64, addr as u64];
    let number = |value: Option<u64>| value.map_or(0, |value| value + 1);
    let ends = [number(port.map(u64::from)), number(proto.map(u64::from))];
    let words = halves(src).into_iter().chain(halves(dst)).chain(ends);
    words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
        (hash ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    })
}
