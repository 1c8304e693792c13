//! Reads the section `sets`, single addresses and numbers, and references to sets.
//!
//! Life-cycle and concurrency: as `check`.

use std::sync::Arc;

use super::{Checker, Set};
use crate::policy::diagnostic::{Place, nearest};
use crate::policy::names::parse_number;
use crate::policy::ranges::{AddrSet, IpRange, U16Set};
use crate::policy::yaml::{Kind, Node};

impl Checker<'_> {
    pub(super) fn read_sets(&mut self, node: &Node) {
        for (key, value) in self.entries(node, "`sets`").unwrap_or_default() {
            self.name(key.place, "set", &key.text);
            let set = self.set(&key.text, value).unwrap_or(Set::Broken);
            self.sets.insert(key.text.clone(), set);
        }
    }

    fn set(&mut self, name: &str, node: &Node) -> Option<Set> {
        let items = match &node.kind {
            Kind::List(items) => items.as_slice(),
            Kind::Scalar(_) => std::slice::from_ref(node),
            Kind::Null => &[],
            Kind::Map(_) => return self.mismatch(node, &format!("set `{name}`"), "a list"),
        };
        if items.is_empty() {
            self.sink
                .error(node.place, format!("set `{name}` is empty"));
            return None;
        }
        let (mut addrs, mut ports, mut good) = (Vec::new(), Vec::new(), true);
        for item in items {
            let Some(text) = self.scalar(item, "an element of a set") else {
                good = false;
                continue;
            };
            if text.starts_with('$') {
                self.sink
                    .error(item.place, "a set cannot refer to another set");
                good = false;
            } else if text.starts_with('!') {
                self.sink
                    .error(item.place, "an element of a set cannot be negated")
                    .help(format!("negate where the set is used: \"!${name}\""));
                good = false;
            } else if text.contains(['.', ':', '/']) {
                match self.addr_range(item.place, text) {
                    Some(range) => addrs.push(range),
                    None => good = false,
                }
            } else {
                match self.u16_range(item.place, "port", text) {
                    Some(range) => ports.push(range),
                    None => good = false,
                }
            }
            if !addrs.is_empty() && !ports.is_empty() {
                let message = format!("set `{name}` mixes addresses and ports");
                self.sink.error(item.place, message);
                return None;
            }
        }
        match (good, ports.is_empty()) {
            (false, _) => None,
            (true, true) => Some(Set::Addrs(Arc::new(AddrSet::new(addrs)))),
            (true, false) => Some(Set::Ports(U16Set::new(ports))),
        }
    }

    pub(super) fn addr_range(&mut self, place: Place, text: &str) -> Option<IpRange> {
        IpRange::parse(text)
            .map_err(|bad| self.sink.error(place, bad.message).help = bad.help)
            .ok()
    }

    pub(super) fn addr_set(&mut self, place: Place, key: &str, name: &str) -> Option<Arc<AddrSet>> {
        match self.sets.get(name) {
            Some(Set::Addrs(set)) => Some(Arc::clone(set)),
            Some(Set::Broken) => None,
            Some(Set::Ports(_)) => {
                let message = format!("`${name}` holds ports, and `{key}` needs addresses");
                self.sink.error(place, message);
                None
            }
            None => self.unknown_set(place, name),
        }
    }

    pub(super) fn port_set(&mut self, place: Place, key: &str, name: &str) -> Option<U16Set> {
        match self.sets.get(name) {
            Some(Set::Ports(set)) => Some(set.clone()),
            Some(Set::Broken) => None,
            Some(Set::Addrs(_)) => {
                let message = format!("`${name}` holds addresses, and `{key}` needs ports");
                self.sink.error(place, message);
                None
            }
            None => self.unknown_set(place, name),
        }
    }

    fn unknown_set<T>(&mut self, place: Place, name: &str) -> Option<T> {
        let near = nearest(name, self.sets.keys().map(String::as_str)).map(str::to_owned);
        let diagnostic = self.sink.error(place, format!("unknown set `${name}`"));
        if let Some(near) = near {
            diagnostic.help(format!("did you mean `${near}`?"));
        }
        None
    }

    /// Reads a port, a length or a VLAN id, or a range of them.
    pub(super) fn u16_range(&mut self, place: Place, what: &str, text: &str) -> Option<(u16, u16)> {
        let max = if what == "VLAN id" {
            4094
        } else {
            u64::from(u16::MAX)
        };
        let read = |text: &str| parse_number(text.trim());
        let range = match text.split_once('-') {
            Some((low, high)) => read(low).zip(read(high)),
            None => read(text).map(|number| (number, number)),
        };
        match range {
            Some((low, high)) if high <= max && low <= high => Some((low as u16, high as u16)),
            Some((low, high)) if low <= max && high <= max => {
                self.sink
                    .error(place, format!("range `{text}` ends before it begins"))
                    .help(format!("write {high}-{low}"));
                None
            }
            Some(_) => {
                self.sink
                    .error(place, format!("{what} `{text}` is not from 0 to {max}"));
                None
            }
            None => {
                self.sink.error(
                    place,
                    format!("`{text}` is not a {what} or a range of them"),
                );
                None
            }
        }
    }
}
