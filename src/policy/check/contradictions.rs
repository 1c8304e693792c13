//! Warns about rules that no packet can match: matches that exclude each other, and values that
//! exclude everything.
//!
//! Life-cycle and concurrency: as `check`.

use super::{Checker, Fields};
use crate::conntrack::types::{CtState, Dir, proto};
use crate::policy::calendar::{Calendar, TimeMatch, WEEK};
use crate::policy::model::{AddrMatch, Family, Matches, Zone, flow_status};
use crate::policy::ranges::U16Set;
use crate::policy::yaml::{Kind, Node};

/// Bytes of the shortest datagram: the fixed header (RFC 791 3.1, RFC 8200 3).
const SHORTEST: [(Family, u16); 2] = [(Family::Ipv4, 20), (Family::Ipv6, 40)];

impl Checker<'_> {
    /// Warns about matches that cannot all hold; one reason is enough.
    pub(super) fn contradictions(&mut self, fields: &Fields<'_>, m: &Matches) {
        let found = nothing_left(fields, m)
            .or_else(|| of_other_protocols(m))
            .or_else(|| of_other_families(m))
            .or_else(|| of_no_flow(m))
            .or_else(|| self.between_no_ports(fields, m))
            .or_else(|| self.of_no_zone(m));
        if let Some((key, why)) = found
            && let Some(place) = fields.key(key)
        {
            self.sink
                .warn(place, format!("this rule never matches: {why}"));
        }
    }

    /// Interfaces that no frame goes by together.
    fn between_no_ports(&self, fields: &Fields<'_>, m: &Matches) -> Option<(&'static str, String)> {
        let known = u64::MAX.checked_shr(64 - self.ports.len().min(64) as u32);
        let known = known.unwrap_or(0);
        for (key, mask) in [("iif", m.iif), ("oif", m.oif)] {
            let negated = fields.get(key).is_some_and(is_negated);
            if negated && mask.is_some_and(|mask| mask & known == 0) {
                return Some((key, format!("`{key}` excludes every port")));
            }
        }
        let bridged = |mask: u64| (0..64).any(|at| mask >> at & 1 == 1 && self.peers[at].is_some());
        let (iif, oif) = (m.iif?, m.oif?);
        // that a port is in no bridge was told where it is made
        let apart = self.region(m).iif == 0 && bridged(iif) && bridged(oif);
        apart.then(|| {
            (
                "oif",
                "no bridge leads from its `iif` to its `oif`".to_owned(),
            )
        })
    }

    /// Zones that no bridge is in.
    fn of_no_zone(&self, m: &Matches) -> Option<(&'static str, String)> {
        let wanted = m.zone.as_ref()?;
        let ports = Matches {
            iif: m.iif,
            oif: m.oif,
            ..Matches::default()
        };
        let iif = self.region(&ports).iif;
        let mut zones = (0..64)
            .filter(|at| iif >> at & 1 == 1)
            .filter_map(|at: usize| self.zones[at])
            .peekable();
        zones.peek()?;
        let possible = |zone| match zone {
            Zone::Fixed(zone) => wanted.contains(zone),
            // ids of tags
            Zone::Vlan => wanted.ranges().first().is_some_and(|(low, _)| *low < 4096),
        };
        (!zones.any(possible)).then(|| {
            (
                "ct-zone",
                "no bridge that it is for is in such a zone".to_owned(),
            )
        })
    }

    /// Warns about a window of time in which there is no such time, and notes when one ends.
    pub(super) fn time_comes(&mut self, node: &Node, time: &TimeMatch) {
        if let Some(until) = time.until {
            self.ends.push((node.place, until));
        }
        let Some(clock) = &self.clock else { return };
        if never(time, &clock.calendar) {
            let message = "this rule never matches: between `from` and `until` there are no such days \
                           and hours";
            self.sink.warn(node.place, message);
        }
    }
}

/// Whether a scalar begins with `!`.
fn is_negated(node: &Node) -> bool {
    matches!(&node.kind, Kind::Scalar(text) if text.starts_with('!'))
}

/// Negations that leave nothing. What a set from files holds today was told where it is made.
fn nothing_left(fields: &Fields<'_>, m: &Matches) -> Option<(&'static str, String)> {
    let none = |set: &Option<U16Set>| set.as_ref().is_some_and(|set| set.ranges().is_empty());
    let numbers = [
        ("sport", none(&m.sport)),
        ("dport", none(&m.dport)),
        ("length", none(&m.length)),
        ("vlan", none(&m.vlan)),
        ("ct-zone", none(&m.zone)),
    ];
    let full = |addr: &AddrMatch| {
        let (v4, v6) = (addr.set.v4(), addr.set.v6());
        let all = matches!(v4, [] | [(0, u32::MAX)]) && matches!(v6, [] | [(0, u128::MAX)]);
        all && v4.len() + v6.len() > 0
    };
    let addrs = [("saddr", &m.saddr), ("daddr", &m.daddr)];
    let addrs = addrs.map(|(key, addr)| (key, addr.as_ref().is_some_and(full)));
    let of = |(key, empty): &(&'static str, bool)| {
        (*empty && fields.get(key).is_some_and(is_negated))
            .then(|| (*key, format!("`{key}` excludes everything")))
    };
    numbers
        .iter()
        .find_map(of)
        .or_else(|| addrs.iter().find_map(of))
}

fn of_other_protocols(m: &Matches) -> Option<(&'static str, String)> {
    let has = |number: u8| m.proto.is_none_or(|protos| protos.contains(number));
    let excludes = |key: &'static str, what: &str| {
        Some((
            key,
            format!("`{key}` is for {what}, and `proto` excludes it"),
        ))
    };
    if m.tcp_flags.is_some() && !has(proto::TCP) {
        return excludes("tcp-flags", "TCP");
    }
    if m.icmp.is_some() && !has(proto::ICMP) && !has(proto::ICMPV6) {
        return excludes("icmp-type", "ICMP");
    }
    if m.icmp.is_some() && m.tcp_flags.is_some() {
        return Some(("icmp-type", "`tcp-flags` is for TCP".to_owned()));
    }
    None
}

fn of_other_families(m: &Matches) -> Option<(&'static str, String)> {
    let (mut v4, mut v6) = (
        m.family != Some(Family::Ipv6),
        m.family != Some(Family::Ipv4),
    );
    for (key, addr) in [("saddr", &m.saddr), ("daddr", &m.daddr)] {
        // that a set from files holds nothing today was told where it is made
        let some = |addr: &&AddrMatch| addr.set.has_v4() || addr.set.has_v6();
        let Some(addr) = addr.as_ref().filter(some) else {
            continue;
        };
        v4 &= addr.set.has_v4();
        v6 &= addr.set.has_v6();
        if !v4 && !v6 {
            return Some((key, "its addresses are of different families".to_owned()));
        }
    }
    if let Some(icmp) = &m.icmp {
        let of = |v6: bool| icmp.types.iter().any(|one| one.v6 == v6);
        if !(v4 && of(false) || v6 && of(true)) {
            let why = "its ICMP types are of another family or protocol";
            return Some(("icmp-type", why.to_owned()));
        }
    }
    let highest = m
        .length
        .as_ref()
        .and_then(|set| Some(set.ranges().last()?.1));
    let wanted = |family| if family == Family::Ipv4 { v4 } else { v6 };
    let shortest = SHORTEST.iter().find(|(family, _)| wanted(*family))?.1;
    (highest? < shortest).then(|| {
        (
            "length",
            format!("a datagram has at least {shortest} bytes"),
        )
    })
}

/// What the states that it asks for exclude (Linux 6.12: `nf_conntrack_in`).
fn of_no_flow(m: &Matches) -> Option<(&'static str, String)> {
    let states = m.ct?;
    if states == CtState::New.bit() && m.dir == Some(Dir::Reply) {
        let why = "what goes the other way is never new";
        return Some(("ct-direction", why.to_owned()));
    }
    let status = m.status?;
    let replied = flow_status::SEEN_REPLY | flow_status::ASSURED;
    if states == CtState::New.bit() && !status.negated && status.mask & !replied == 0 {
        let why = "a flow that is new has seen no reply";
        return Some(("ct-status", why.to_owned()));
    }
    let seen = status.mask & flow_status::SEEN_REPLY != 0;
    if states == CtState::Established.bit() && status.negated && seen {
        let why = "a flow that is established has seen a reply";
        return Some(("ct-status", why.to_owned()));
    }
    None
}

/// Whether a window that begins and ends has no time of the week that is asked for.
fn never(time: &TimeMatch, calendar: &Calendar) -> bool {
    let (Some(from), Some(until)) = (time.from, time.until) else {
        return false;
    };
    if time.week.is_empty() || until - from > 2 * u64::from(WEEK) {
        return false;
    }
    // it can begin to hold where the window begins, or where a time of the week does; clocks that
    // are set in between move that by hours or parts of them
    let first = calendar.second_of_week(from);
    let begins = time.week.iter().flat_map(|(begin, _)| {
        let ahead = (begin + WEEK - first) % WEEK;
        [0, WEEK].map(|more| from + u64::from(ahead + more))
    });
    let moved = |at: u64| (0..=16).map(move |quarter| (at + 900 * quarter).saturating_sub(7200));
    let mut instants = begins.flat_map(moved).chain([from]);
    !instants.any(|at| time.holds(at, calendar))
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    /// Against every second, at windows around the days that clocks are set.
    #[test]
    fn windows_without_such_a_time_are_found() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let calendar = Calendar::new(&zone);
        // 2027-03-28 01:00 UTC, 2027-10-31 01:00 UTC
        for change in [1_806_195_600u64, 1_824_944_400] {
            for (days, hours) in [(1, (0, 3600)), (64, (7200, 10_800)), (64, (10_000, 10_001))] {
                let week = crate::policy::calendar::week(days, &[hours]);
                for shift in 0..40 {
                    let from = change - 86_400 + shift * 5000;
                    for length in [1, 3600, 40_000, 200_000] {
                        let time = TimeMatch {
                            week: week.clone(),
                            from: Some(from),
                            until: Some(from + length),
                        };
                        let slow = (from..from + length).all(|at| !time.holds(at, &calendar));
                        assert_eq!(never(&time, &calendar), slow, "{time:?}");
                    }
                }
            }
        }
    }
}
