//! The packets that a rule's matches describe, in a form that two rules can be compared by: does
//! one hold all packets of the other, do they have any in common?
//!
//! "Holds all" is never said wrongly. What would need several matches taken together to be seen is
//! not seen, so it may be denied though it is true.
//!
//! Life-cycle: made of a rule while a policy is checked. Concurrency: plain values.

use super::Checker;
use crate::conntrack::types::{CtState, proto};
use crate::policy::MAX_PORTS;
use crate::policy::model::{
    AddrMatch, Family, HelperMatch, IcmpMatch, IcmpType, MarkMatch, Matches, ProtoSet, StatusMatch,
};
use crate::policy::ranges::U16Set;

/// Families of packets, one bit each; `OTHER` is what is not IP.
const V4: u8 = 1;
const V6: u8 = 2;
const OTHER: u8 = 4;

/// Every state of tracking.
pub(super) const ALL_STATES: u8 = {
    let (mut all, mut at) = (0, 0);
    while at < CtState::ALL.len() {
        all |= CtState::ALL[at].bit();
        at += 1;
    }
    all
};

/// What matches describe.
#[derive(Clone, Debug)]
pub(super) struct Region<'m> {
    /// The matches.
    pub(super) m: &'m Matches,
    /// Ports by which a packet can come in: the bridge says where it leaves.
    pub(super) iif: u64,
    /// States.
    pub(super) states: u8,
    families: u8,
    protos: ProtoSet,
}

impl Checker<'_> {
    /// What `m` describes.
    pub(super) fn region<'m>(&self, m: &'m Matches) -> Region<'m> {
        let mut iif = 0;
        for (from, to) in (0..MAX_PORTS).zip(self.peers) {
            let leaves = to.is_some_and(|to| m.oif.is_none_or(|mask| mask >> to.0 & 1 == 1));
            if leaves && m.iif.is_none_or(|mask| mask >> from & 1 == 1) {
                iif |= 1 << from;
            }
        }
        let mut families = match m.family {
            None => V4 | V6 | OTHER,
            Some(Family::Ipv4) => V4,
            Some(Family::Ipv6) => V6,
        };
        for addr in [&m.saddr, &m.daddr].into_iter().flatten() {
            families &= addr_families(addr);
        }
        let mut protos = m.proto.unwrap_or(ProtoSet::default().complement());
        let only = |numbers: &[u8]| {
            let mut set = ProtoSet::default();
            numbers.iter().for_each(|number| set.insert(*number));
            set
        };
        if m.tcp_flags.is_some() {
            protos = protos.intersection(&only(&[proto::TCP]));
        }
        if let Some(icmp) = &m.icmp {
            let of = |v6| match v6 {
                true => proto::ICMPV6,
                false => proto::ICMP,
            };
            let numbers: Vec<_> = icmp.types.iter().map(|one| of(one.v6)).collect();
            protos = protos.intersection(&only(&numbers));
        }
        let reads_ip = m.proto.is_some()
            || m.tcp_flags.is_some()
            || m.icmp.is_some()
            || m.sport.is_some()
            || m.dport.is_some()
            || m.length.is_some()
            || m.fragment.is_some()
            || m.dscp.is_some();
        if reads_ip {
            families &= V4 | V6;
        }
        Region {
            m,
            iif,
            states: m.ct.unwrap_or(ALL_STATES),
            families,
            protos,
        }
    }
}

/// Families of which a packet can match.
fn addr_families(addr: &AddrMatch) -> u8 {
    let AddrMatch { set, negated } = addr;
    let all4 = matches!(set.v4(), [(0, u32::MAX)]);
    let all6 = matches!(set.v6(), [(0, u128::MAX)]);
    let bit = |has: bool, all: bool, bit| if has && !(*negated && all) { bit } else { 0 };
    bit(set.has_v4(), all4, V4) | bit(set.has_v6(), all6, V6)
}

impl Region<'_> {
    /// Whether no packet is in it. Not every such region is found.
    pub(super) fn is_empty(&self) -> bool {
        let none = |set: &Option<U16Set>| set.as_ref().is_some_and(|set| set.ranges().is_empty());
        let m = self.m;
        self.iif == 0
            || self.states == 0
            || self.families == 0
            || self.protos.first().is_none()
            || [&m.sport, &m.dport, &m.length, &m.vlan, &m.zone]
                .into_iter()
                .any(none)
    }

    /// How much work it is to compare it with another, in comparisons.
    pub(super) fn weight(&self) -> u64 {
        let addrs = [&self.m.saddr, &self.m.daddr].into_iter().flatten();
        let ranges = addrs.map(|addr| addr.set.v4().len() + addr.set.v6().len());
        1 + ranges.sum::<usize>() as u64 / 8
    }

    /// The only protocol, if there is only one.
    pub(super) fn only_proto(&self) -> Option<u8> {
        self.m.proto?;
        let mut only = ProtoSet::default();
        let first = self.protos.first()?;
        only.insert(first);
        self.protos.is_subset(&only).then_some(first)
    }

    /// A protocol of those that are asked for.
    pub(super) fn any_proto(&self) -> Option<u8> {
        self.m.proto?;
        self.protos.first()
    }

    /// Whether every packet of `other` is in it, if marks do not change in between.
    pub(super) fn holds(&self, other: &Region<'_>) -> bool {
        let (a, b) = (self.m, other.m);
        other.iif & !self.iif == 0
            && other.states & !self.states == 0
            && other.families & !self.families == 0
            && other.protos.is_subset(&self.protos)
            && (a.dir.is_none() || a.dir == b.dir)
            && (a.fragment.is_none() || a.fragment == b.fragment)
            && numbers_hold(&a.dport, &b.dport)
            && numbers_hold(&a.sport, &b.sport)
            && numbers_hold(&a.length, &b.length)
            && numbers_hold(&a.vlan, &b.vlan)
            && numbers_hold(&a.zone, &b.zone)
            && (a.dscp.is_none_or(|a| b.dscp.is_some_and(|b| b & !a == 0)))
            && option_holds(&a.tcp_flags, &b.tcp_flags, |a, b| b.is_subset(a))
            && option_holds(&a.icmp, &b.icmp, icmp_holds)
            && option_holds(&a.mark, &b.mark, marks_hold)
            && option_holds(&a.status, &b.status, status_holds)
            && option_holds(&a.helper, &b.helper, helper_holds)
            && addrs_hold(&a.saddr, &b.saddr, other.families)
            && addrs_hold(&a.daddr, &b.daddr, other.families)
    }

    /// Whether some packet may be in both: headers, ports and interfaces are compared.
    pub(super) fn meets(&self, other: &Region<'_>) -> bool {
        let (a, b) = (self.m, other.m);
        let families = self.families & other.families;
        self.iif & other.iif != 0
            && self.states & other.states != 0
            && families != 0
            && self.protos.intersection(&other.protos).first().is_some()
            && (a.fragment.is_none() || b.fragment.is_none() || a.fragment == b.fragment)
            && numbers_meet(&a.dport, &b.dport)
            && numbers_meet(&a.sport, &b.sport)
            && numbers_meet(&a.length, &b.length)
            && numbers_meet(&a.vlan, &b.vlan)
            && numbers_meet(&a.zone, &b.zone)
            && a.dscp.is_none_or(|a| b.dscp.is_none_or(|b| a & b != 0))
            && addrs_meet(&a.saddr, &b.saddr, families)
            && addrs_meet(&a.daddr, &b.daddr, families)
    }
}

fn option_holds<T>(a: &Option<T>, b: &Option<T>, holds: fn(&T, &T) -> bool) -> bool {
    match (a, b) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => holds(a, b),
    }
}

fn numbers_hold(a: &Option<U16Set>, b: &Option<U16Set>) -> bool {
    option_holds(a, b, |a, b| inside(b.ranges(), a.ranges()))
}

fn numbers_meet(a: &Option<U16Set>, b: &Option<U16Set>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => !apart(a.ranges(), b.ranges()),
        (Some(only), None) | (None, Some(only)) => !only.ranges().is_empty(),
        (None, None) => true,
    }
}

fn icmp_holds(a: &IcmpMatch, b: &IcmpMatch) -> bool {
    let covers = |one: &IcmpType, other: &IcmpType| {
        (one.v6, one.ty) == (other.v6, other.ty) && (one.code.is_none() || one.code == other.code)
    };
    let touches = |one: &IcmpType, other: &IcmpType| covers(one, other) || covers(other, one);
    // a negation is about the versions that it names only
    let names = |m: &IcmpMatch, v6: bool| m.types.iter().any(|one| one.v6 == v6);
    let same = [false, true]
        .iter()
        .all(|v6| !names(b, *v6) || names(a, *v6));
    match (a.negated, b.negated) {
        (false, false) => b
            .types
            .iter()
            .all(|other| a.types.iter().any(|one| covers(one, other))),
        (true, false) => {
            let meets = |other: &IcmpType| a.types.iter().any(|one| touches(one, other));
            same && !b.types.iter().any(meets)
        }
        (true, true) => {
            let spared = |one: &IcmpType| b.types.iter().any(|other| covers(other, one));
            same && a.types.iter().all(|one| !names(b, one.v6) || spared(one))
        }
        (false, true) => false,
    }
}

fn marks_hold(a: &MarkMatch, b: &MarkMatch) -> bool {
    let within = |few: &MarkMatch, many: &MarkMatch| {
        few.any.iter().all(|few| {
            let mut many = many.any.iter();
            many.any(|many| many.mask & !few.mask == 0 && many.is(few.value))
        })
    };
    match (a.negated, b.negated) {
        (false, false) => within(b, a),
        (true, true) => within(a, b),
        _ => false,
    }
}

fn status_holds(a: &StatusMatch, b: &StatusMatch) -> bool {
    match (a.negated, b.negated) {
        (false, false) => b.mask & !a.mask == 0,
        (true, true) => a.mask & !b.mask == 0,
        _ => false,
    }
}

fn helper_holds(a: &HelperMatch, b: &HelperMatch) -> bool {
    match (a.negated, b.negated) {
        (false, false) => b.mask & !a.mask == 0,
        (true, true) => a.mask & !b.mask == 0,
        (true, false) => a.mask & b.mask == 0,
        (false, true) => false,
    }
}

/// Of the families that are asked about.
fn addrs_hold(a: &Option<AddrMatch>, b: &Option<AddrMatch>, families: u8) -> bool {
    let Some(a) = a else { return true };
    if b.as_ref() == Some(a) {
        return true;
    }
    let (b4, b6, b_negated) = match b {
        Some(b) => (b.set.v4(), b.set.v6(), b.negated),
        None => (&[][..], &[][..], true),
    };
    let a4 = (a.set.v4(), a.negated);
    let a6 = (a.set.v6(), a.negated);
    (families & V4 == 0 || ranges_hold(a4, (b4, b_negated), (0, u32::MAX)))
        && (families & V6 == 0 || ranges_hold(a6, (b6, b_negated), (0, u128::MAX)))
}

fn addrs_meet(a: &Option<AddrMatch>, b: &Option<AddrMatch>, families: u8) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return true;
    };
    (families & V4 != 0 && ranges_meet((a.set.v4(), a.negated), (b.set.v4(), b.negated)))
        || (families & V6 != 0 && ranges_meet((a.set.v6(), a.negated), (b.set.v6(), b.negated)))
}

/// Ranges, or all but them.
type Part<'r, T> = (&'r [(T, T)], bool);

fn ranges_hold<T: Copy + Ord>(
    (a, a_not): Part<'_, T>,
    (b, b_not): Part<'_, T>,
    all: (T, T),
) -> bool {
    match (a_not, b_not) {
        (false, false) => inside(b, a),
        (true, false) => apart(a, b),
        (true, true) => inside(a, b),
        (false, true) => b.is_empty() && a == [all],
    }
}

fn ranges_meet<T: Copy + Ord>((a, a_not): Part<'_, T>, (b, b_not): Part<'_, T>) -> bool {
    match (a_not, b_not) {
        (false, false) => !apart(a, b),
        (true, false) => !inside(b, a),
        (false, true) => !inside(a, b),
        // two complements are apart only if they leave nothing
        (true, true) => true,
    }
}

/// Whether `outer` covers every range of `inner`; ranges of one set never touch.
fn inside<T: Copy + Ord>(inner: &[(T, T)], outer: &[(T, T)]) -> bool {
    inner.iter().all(|(low, high)| {
        let after = outer.partition_point(|(start, _)| start <= low);
        after.checked_sub(1).is_some_and(|at| *high <= outer[at].1)
    })
}

/// Whether no range of `a` has anything in common with one of `b`.
fn apart<T: Copy + Ord>(a: &[(T, T)], b: &[(T, T)]) -> bool {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    few.iter().all(|(low, high)| {
        let after = many.partition_point(|(start, _)| start <= high);
        after.checked_sub(1).is_none_or(|at| many[at].1 < *low)
    })
}
