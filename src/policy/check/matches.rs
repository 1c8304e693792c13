//! Reads the matches of a rule, and says which of them cannot hold together.
//!
//! Life-cycle and concurrency: as `check`.

use std::sync::Arc;

use super::sets::largest;
use super::{Checker, Fields};
use crate::conntrack::types::{Dir, proto};
use crate::policy::model::{AddrMatch, Family, Matches, ProtoSet};
use crate::policy::names;
use crate::policy::ranges::{AddrSet, U16Set};
use crate::policy::yaml::{Kind, Node};

/// Keys of a rule that are matches, in the order in which people write them: the one list of them.
pub(in crate::policy) const MATCHES: [&str; 23] = [
    "family",
    "iif",
    "oif",
    "saddr",
    "daddr",
    "proto",
    "sport",
    "dport",
    "icmp-type",
    "tcp-flags",
    "length",
    "fragment",
    "dscp",
    "vlan",
    "ct",
    "ct-direction",
    "ct-status",
    "ct-mark",
    "ct-helper",
    "ct-zone",
    "time",
    "connlimit",
    "limit",
];

/// Protocols whose ports policy can match.
const WITH_PORTS: [u8; 4] = [proto::TCP, proto::UDP, proto::SCTP, proto::UDPLITE];

/// What YAML calls true and false.
const SWITCH: [(&str, bool); 6] = [
    ("true", true),
    ("false", false),
    ("yes", true),
    ("no", false),
    ("on", true),
    ("off", false),
];

/// The values of one match: any of them, or none of them.
pub(super) struct Values<'n> {
    pub(super) negated: bool,
    items: Vec<(&'n Node, &'n str)>,
}

impl Checker<'_> {
    /// Reads all matches among `fields`. Without a `proto`, it is `implied`.
    pub(super) fn matches(&mut self, fields: &Fields<'_>, implied: Option<ProtoSet>) -> Matches {
        let mut m = Matches {
            iif: fields
                .get("iif")
                .and_then(|node| self.port_mask(node, "iif")),
            oif: fields
                .get("oif")
                .and_then(|node| self.port_mask(node, "oif")),
            family: fields.get("family").and_then(|node| {
                let words = [("ipv4", Family::Ipv4), ("ipv6", Family::Ipv6)];
                self.either(node, "family", &words)
            }),
            saddr: fields
                .get("saddr")
                .and_then(|node| self.addrs(node, "saddr")),
            daddr: fields
                .get("daddr")
                .and_then(|node| self.addrs(node, "daddr")),
            proto: match fields.get("proto") {
                Some(node) => self.protos(node),
                None => implied,
            },
            sport: fields
                .get("sport")
                .and_then(|node| self.u16_set(node, "sport", "port")),
            dport: fields
                .get("dport")
                .and_then(|node| self.u16_set(node, "dport", "port")),
            ct: fields.get("ct").and_then(|node| self.states(node)),
            dir: fields.get("ct-direction").and_then(|node| {
                let words = [("original", Dir::Original), ("reply", Dir::Reply)];
                self.either(node, "ct-direction", &words)
            }),
            tcp_flags: fields.get("tcp-flags").and_then(|node| self.flags(node)),
            length: fields
                .get("length")
                .and_then(|node| self.u16_set(node, "length", "length")),
            fragment: fields
                .get("fragment")
                .and_then(|node| self.either(node, "fragment", &SWITCH)),
            dscp: fields.get("dscp").and_then(|node| self.dscp(node)),
            vlan: fields
                .get("vlan")
                .and_then(|node| self.u16_set(node, "vlan", "VLAN id")),
            zone: fields
                .get("ct-zone")
                .and_then(|node| self.u16_set(node, "ct-zone", "zone")),
            mark: fields.get("ct-mark").and_then(|node| self.marks(node)),
            status: fields.get("ct-status").and_then(|node| self.statuses(node)),
            helper: fields
                .get("ct-helper")
                .and_then(|node| self.helper_match(node)),
            time: fields.get("time").and_then(|node| self.time(node)),
            limit: fields.get("limit").and_then(|node| self.limit(node)),
            connlimit: fields
                .get("connlimit")
                .and_then(|node| self.connlimit(node)),
            icmp: None,
        };
        if let Some(node) = fields.get("icmp-type") {
            m.icmp = self.icmp(node, &m);
        }
        // a protocol that could not be read was reported; do not complain about what follows from it
        if fields.get("proto").is_none() || m.proto.is_some() {
            self.ports_need_a_protocol(fields, &m);
            self.contradictions(fields, &m);
        }
        self.flows_are_there(fields, &m);
        if let (Some(node), Some(time)) = (fields.get("time"), &m.time) {
            self.time_comes(node, time);
        }
        m
    }

    fn ports_need_a_protocol(&mut self, fields: &Fields<'_>, m: &Matches) {
        let fits = m
            .proto
            .is_some_and(|p| p.iter().all(|number| WITH_PORTS.contains(&number)));
        for key in ["sport", "dport"] {
            if let Some(place) = fields.key(key).filter(|_| !fits) {
                self.sink
                    .error(place, format!("`{key}` needs a protocol that has ports"))
                    .help("add `proto: tcp`, or udp, sctp, udplite or a list of these");
            }
        }
    }

    /// Takes a value apart: one or a list of them, or one with `!` before it.
    pub(super) fn values<'n>(&mut self, node: &'n Node, key: &str) -> Option<Values<'n>> {
        match &node.kind {
            Kind::Scalar(text) => {
                let (negated, text) = match text.strip_prefix('!') {
                    Some(rest) => (true, rest.trim_start()),
                    None => (false, text.as_str()),
                };
                Some(Values {
                    negated,
                    items: vec![(node, text)],
                })
            }
            Kind::List(nodes) => {
                if nodes.is_empty() {
                    self.sink
                        .error(node.place, format!("`{key}` lists nothing"));
                    return None;
                }
                let mut items = Vec::with_capacity(nodes.len());
                for item in nodes {
                    let text = self.scalar(item, &format!("an element of `{key}`"))?;
                    if text.starts_with('!') {
                        self.sink
                            .error(item.place, "an element of a list cannot be negated")
                            .help("name the list under `sets` and write \"!$name\"");
                        return None;
                    }
                    items.push((item, text));
                }
                Some(Values {
                    negated: false,
                    items,
                })
            }
            _ => self.mismatch(node, &format!("`{key}`"), "a value or a list"),
        }
    }

    /// Reads every value with `read`; `None` if any failed, after all of them were tried.
    pub(super) fn each<T>(
        &mut self,
        values: &Values<'_>,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut all = Vec::with_capacity(values.items.len());
        for (node, text) in &values.items {
            all.extend(read(self, node, text));
            if self.sink.is_full() {
                return None;
            }
        }
        (all.len() == values.items.len()).then_some(all)
    }

    /// Reads one of two values by their words, or not the other.
    fn either<T: Copy + PartialEq>(
        &mut self,
        node: &Node,
        key: &str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let values = self.values(node, key)?;
        let found = self.each(&values, |this, node, text| {
            let value = names::number(words, text);
            if value.is_none() {
                this.unknown(node.place, key, text, names::names(words));
            }
            value
        })?;
        let one = *found.first()?;
        if found.iter().any(|other| *other != one) {
            let message = format!("`{key}` lists all that there is");
            self.sink.error(node.place, message);
            return None;
        }
        let mut all = words.iter().map(|(_, value)| *value);
        all.find(|value| (*value == one) != values.negated)
    }

    fn port_mask(&mut self, node: &Node, key: &str) -> Option<u64> {
        let values = self.values(node, key)?;
        let masks = self.each(&values, |this, node, text| match text.strip_prefix('$') {
            Some(name) => this.interface_set(node.place, key, name),
            None => this.port(node, text).map(|id| 1 << id.0),
        })?;
        let mask = masks.iter().fold(0u64, |mask, one| mask | one);
        Some(if values.negated { !mask } else { mask })
    }

    fn addrs(&mut self, node: &Node, key: &str) -> Option<AddrMatch> {
        let values = self.values(node, key)?;
        let negated = values.negated;
        if let [(node, text)] = values.items[..]
            && let Some(name) = text.strip_prefix('$')
        {
            return self
                .addr_set(node.place, key, name)
                .map(|set| AddrMatch { set, negated });
        }
        let ranges = self.each(&values, |this, node, text| match text.strip_prefix('$') {
            Some(name) => {
                let set = this.addr_set(node.place, key, name)?;
                let fits = this.take_room(node.place, set.v4().len() + set.v6().len());
                fits.then(|| set.ranges().collect())
            }
            None => this.addr_range(node.place, text).map(|range| vec![range]),
        })?;
        let set = Arc::new(AddrSet::new(ranges.into_iter().flatten()));
        Some(AddrMatch { set, negated })
    }

    fn u16_set(&mut self, node: &Node, key: &str, what: &str) -> Option<U16Set> {
        let values = self.values(node, key)?;
        let ranges = self.each(&values, |this, node, text| match text.strip_prefix('$') {
            Some(name) => {
                let set = this.port_set(node.place, key, name)?;
                let highest = set.ranges().last().map_or(0, |(_, high)| *high);
                let max = largest(what);
                if highest > max {
                    let message =
                        format!("`${name}` holds {highest}, and a {what} is at most {max}");
                    this.sink.error(node.place, message);
                    return None;
                }
                let ranges = set.ranges().to_vec();
                this.take_room(node.place, ranges.len()).then_some(ranges)
            }
            None => this
                .u16_range(node.place, what, text)
                .map(|range| vec![range]),
        })?;
        let set = U16Set::new(ranges.into_iter().flatten());
        Some(match (values.negated, what) {
            // ids end at 4094, and the mark of an untagged frame lies above
            (true, "VLAN id") => {
                let rest = set.complement();
                U16Set::new(
                    rest.ranges()
                        .iter()
                        .filter(|(low, _)| *low <= 4094)
                        .map(|(low, high)| (*low, (*high).min(4094))),
                )
            }
            (true, _) => set.complement(),
            (false, _) => set,
        })
    }
}
