//! Reads the section `sets`, single addresses and numbers, and references to sets.
//!
//! Sets may refer to each other in any order. So each is read by itself first, as a draft, and
//! finished when those that it refers to are.
//!
//! Life-cycle and concurrency: as `check`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::Checker;
use crate::policy::diagnostic::{Diagnostic, Place, nearest};
use crate::policy::model::Port;
use crate::policy::names::parse_number;
use crate::policy::ranges::{AddrSet, BadRange, IpRange, U16Set};
use crate::policy::yaml::{Kind, Node};

/// Most ranges that all sets, and all lists of rules, may have together.
pub(super) const MAX_RANGES: usize = 8 << 20;

/// A set of `sets:`.
pub(super) enum Set {
    Addrs(Arc<AddrSet>),
    Ports(U16Set),
    /// Ports of the policy, one bit each.
    Interfaces(u64),
    /// Made of files without an entry: fits everywhere.
    Empty,
    /// Wrong in itself, which was reported; references to it are not.
    Broken,
}

impl Set {
    fn ranges(&self) -> usize {
        match self {
            Set::Addrs(set) => set.v4().len() + set.v6().len(),
            Set::Ports(set) => set.ranges().len(),
            Set::Interfaces(_) | Set::Empty | Set::Broken => 0,
        }
    }

    fn holds(&self) -> &'static str {
        match self {
            Set::Addrs(_) => "addresses",
            Set::Ports(_) => "ports",
            Set::Interfaces(_) => "interfaces",
            Set::Empty | Set::Broken => "nothing",
        }
    }
}

/// One entry of a set.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    Addrs(IpRange),
    Ports(u16, u16),
    /// Index of a port of the policy.
    Interface(usize),
}

impl Entry {
    /// Reads an entry by its look; a number is a port, even where a port of the policy is called so.
    pub(super) fn parse(text: &str, interfaces: &[Port]) -> Result<Self, BadRange> {
        let interface = || interfaces.iter().position(|port| port.name == text);
        let or_interface = |bad| interface().map(Entry::Interface).ok_or(bad);
        if text.contains(['.', ':', '/']) {
            return IpRange::parse(text).map(Entry::Addrs).or_else(or_interface);
        }
        let ports = u16_range("port", text).map(|(low, high)| Entry::Ports(low, high));
        ports.or_else(or_interface).map_err(|bad| {
            if text.starts_with(|first: char| first.is_ascii_digit()) {
                return bad;
            }
            let near = nearest(text, interfaces.iter().map(|port| port.name.as_str()));
            BadRange {
                message: format!("`{text}` is no address, port or interface"),
                help: near.map(|near| format!("did you mean `{near}`?")),
            }
        })
    }

    fn kind(self) -> &'static str {
        match self {
            Entry::Addrs(_) => "addresses",
            Entry::Ports(..) => "ports",
            Entry::Interface(_) => "interfaces",
        }
    }
}

/// A set whose references are not followed yet.
#[derive(Default)]
pub(super) struct Draft<'n> {
    /// What it holds; `None` before the first entry.
    kind: Option<&'static str>,
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
    ports: Vec<(u16, u16)>,
    interfaces: u64,
    references: Vec<(Place, &'n str)>,
    /// What `references` names.
    known: BTreeSet<&'n str>,
    /// Its references are being followed.
    open: bool,
    /// Something is wrong with it, which was reported.
    pub(super) broken: bool,
}

impl<'n> Draft<'n> {
    /// Adds an entry, if it is of the kind of those before; the kinds that do not go together if not.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), [&'static str; 2]> {
        self.take_kind(entry.kind())?;
        match entry {
            Entry::Addrs(IpRange::V4(low, high)) => self.v4.push((low, high)),
            Entry::Addrs(IpRange::V6(low, high)) => self.v6.push((low, high)),
            Entry::Ports(low, high) => self.ports.push((low, high)),
            Entry::Interface(at) => self.interfaces |= 1 << at,
        }
        Ok(())
    }

    fn take_kind(&mut self, kind: &'static str) -> Result<(), [&'static str; 2]> {
        match *self.kind.get_or_insert(kind) {
            known if known == kind => Ok(()),
            known => Err([known, kind]),
        }
    }

    /// How many ranges it has by now.
    pub(super) fn len(&self) -> usize {
        self.v4.len() + self.v6.len() + self.ports.len()
    }

    /// Whether nothing was found for it.
    pub(super) fn is_empty(&self) -> bool {
        self.kind.is_none() && self.references.is_empty()
    }

    fn union(&mut self, set: &Set) {
        match set {
            Set::Addrs(set) => {
                self.v4.extend_from_slice(set.v4());
                self.v6.extend_from_slice(set.v6());
            }
            Set::Ports(set) => self.ports.extend_from_slice(set.ranges()),
            Set::Interfaces(mask) => self.interfaces |= mask,
            Set::Empty => {}
            Set::Broken => self.broken = true,
        }
    }

    fn finish(self) -> Set {
        match self.kind {
            _ if self.broken => Set::Broken,
            Some("addresses") => Set::Addrs(Arc::new(AddrSet::of(self.v4, self.v6))),
            Some("ports") => Set::Ports(U16Set::new(self.ports)),
            Some(_) => Set::Interfaces(self.interfaces),
            None => Set::Empty,
        }
    }
}

impl Checker<'_> {
    pub(super) fn read_sets(&mut self, node: &Node) {
        let mut drafts = BTreeMap::new();
        for (key, value) in self.entries(node, "`sets`").unwrap_or_default() {
            if self.sink.is_full() {
                break;
            }
            self.name(key.place, "set", &key.text);
            let draft = self.draft(&key.text, value);
            drafts.insert(key.text.as_str(), draft);
        }
        // depth first, without recursion: the sets on the way, each with its next reference
        let names: Vec<&str> = drafts.keys().copied().collect();
        for name in &names {
            let mut path = vec![(*name, 0)];
            while let Some((name, next)) = path.last_mut() {
                let name = *name;
                let Some(draft) = drafts.get_mut(name) else {
                    path.pop();
                    continue;
                };
                draft.open = true;
                let Some((place, to)) = draft.references.get(*next).copied() else {
                    if let Some(draft) = drafts.remove(name) {
                        let set = self.finish(name, draft, &names);
                        self.sets.insert(name.to_owned(), set);
                    }
                    path.pop();
                    continue;
                };
                *next += 1;
                match drafts.get_mut(to) {
                    Some(draft) if draft.open => {
                        draft.broken = true;
                        let ring = path.iter().map(|(name, _)| *name);
                        let ring: Vec<_> = ring.skip_while(|name| *name != to).collect();
                        let message = format!("sets form a loop: {} -> {to}", ring.join(" -> "));
                        self.sink.error(place, message);
                    }
                    Some(_) => path.push((to, 0)),
                    None => {}
                }
            }
        }
    }

    /// Reads what is written in a set itself, and its files.
    fn draft<'n>(&mut self, name: &str, node: &'n Node) -> Draft<'n> {
        let mut draft = Draft::default();
        let title = format!("set `{name}`");
        let entries = match &node.kind {
            Kind::Map(_) => {
                let fields = self.fields(node, &title, &["file", "entries"], &["entries"]);
                let Some(fields) = fields else {
                    draft.broken = true;
                    return draft;
                };
                match fields.get("file") {
                    Some(file) => self.read_files(file, &mut draft),
                    None => {
                        if fields.key("file").is_none() {
                            let message = format!("{title} has no `file`");
                            self.sink
                                .error(node.place, message)
                                .help("without one, a set is a list of its entries");
                        }
                        draft.broken = true;
                    }
                }
                fields.get("entries")
            }
            _ => Some(node),
        };
        let entries = match entries.map(|node| (node, &node.kind)) {
            Some((_, Kind::List(items))) => items.as_slice(),
            Some((node, Kind::Scalar(_))) => std::slice::from_ref(node),
            Some((node, Kind::Map(_))) => self.mismatch(node, "`entries`", "a list").unwrap_or(&[]),
            Some((_, Kind::Null)) | None => &[],
        };
        if entries.is_empty() && !matches!(node.kind, Kind::Map(_)) {
            self.sink.error(node.place, format!("{title} is empty"));
            draft.broken = true;
        }
        for item in entries {
            let mixed = self.entry(name, item, &mut draft);
            if mixed.is_break() || self.sink.is_full() {
                break;
            }
        }
        if draft.is_empty() && !draft.broken {
            let message = format!("{title} is empty: nothing stands in its files");
            self.sink.warn(node.place, message);
        }
        draft.broken |= !self.take_room(node.place, draft.len());
        draft
    }

    /// Reads one entry; what comes behind one of another kind would only be more of the same.
    fn entry<'n>(&mut self, name: &str, item: &'n Node, draft: &mut Draft<'n>) -> ControlFlow<()> {
        let Some(text) = self.scalar(item, "an element of a set") else {
            draft.broken = true;
            return ControlFlow::Continue(());
        };
        if let Some(other) = text.strip_prefix('$') {
            if draft.known.insert(other) {
                draft.references.push((item.place, other));
            }
        } else if text.starts_with('!') {
            self.sink
                .error(item.place, "an element of a set cannot be negated")
                .help(format!("negate where the set is used: \"!${name}\""));
            draft.broken = true;
        } else {
            match Entry::parse(text, &self.ports).map(|entry| draft.add(entry)) {
                Ok(Ok(())) => {}
                Ok(Err(kinds)) => {
                    self.mixes(item.place, name, kinds);
                    draft.broken = true;
                    return ControlFlow::Break(());
                }
                Err(bad) => {
                    self.sink.error(item.place, bad.message).help = bad.help;
                    draft.broken = true;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn mixes(&mut self, place: Place, name: &str, [known, other]: [&str; 2]) -> &mut Diagnostic {
        let message = format!("set `{name}` mixes {known} and {other}");
        self.sink.error(place, message)
    }

    /// Adds what `draft` refers to.
    fn finish(&mut self, name: &str, mut draft: Draft<'_>, names: &[&str]) -> Set {
        let references = std::mem::take(&mut draft.references);
        references.iter().for_each(|(_, other)| self.use_set(other));
        if let [(_, only)] = references[..]
            && let (None, Some(Set::Addrs(set))) = (draft.kind, self.sets.get(only))
            && !draft.broken
        {
            return Set::Addrs(Arc::clone(set));
        }
        for (place, other) in references {
            let Some(set) = self.sets.get(other) else {
                // of a loop, or unknown
                if names.binary_search(&other).is_err() {
                    self.unknown_set::<()>(place, other, names);
                }
                draft.broken = true;
                continue;
            };
            let (holds, ranges) = (set.holds(), set.ranges());
            if !matches!(set, Set::Empty | Set::Broken)
                && let Err(kinds) = draft.take_kind(holds)
            {
                let help = format!("`${other}` holds {holds}");
                self.mixes(place, name, kinds).help(help);
                draft.broken = true;
                break;
            }
            if !self.take_room(place, ranges) {
                draft.broken = true;
                break;
            }
            if let Some(set) = self.sets.get(other) {
                draft.union(set);
            }
        }
        draft.finish()
    }

    /// Takes `ranges` of what all sets and lists may have; when that is used up, reports it once.
    pub(super) fn take_room(&mut self, place: Place, ranges: usize) -> bool {
        let left = self.range_room.and_then(|room| room.checked_sub(ranges));
        if left.is_none() && self.range_room.is_some() {
            let message =
                format!("the sets and lists of a policy have at most {MAX_RANGES} ranges together");
            self.sink.error(place, message);
        }
        self.range_room = left;
        left.is_some()
    }

    pub(super) fn addr_range(&mut self, place: Place, text: &str) -> Option<IpRange> {
        IpRange::parse(text)
            .map_err(|bad| self.sink.error(place, bad.message).help = bad.help)
            .ok()
    }

    pub(super) fn addr_set(&mut self, place: Place, key: &str, name: &str) -> Option<Arc<AddrSet>> {
        self.use_set(name);
        match self.sets.get(name) {
            Some(Set::Addrs(set)) => Some(Arc::clone(set)),
            Some(Set::Empty) => Some(Arc::default()),
            _ => self.no_such_set(place, key, name, "addresses"),
        }
    }

    pub(super) fn port_set(&mut self, place: Place, key: &str, name: &str) -> Option<U16Set> {
        self.use_set(name);
        match self.sets.get(name) {
            Some(Set::Ports(set)) => Some(set.clone()),
            Some(Set::Empty) => Some(U16Set::default()),
            _ => self.no_such_set(place, key, name, "ports"),
        }
    }

    /// The ports of the policy in a set, one bit each.
    pub(super) fn interface_set(&mut self, place: Place, key: &str, name: &str) -> Option<u64> {
        self.use_set(name);
        match self.sets.get(name) {
            Some(Set::Interfaces(mask)) => Some(*mask),
            Some(Set::Empty) => Some(0),
            _ => self.no_such_set(place, key, name, "interfaces"),
        }
    }

    fn use_set(&mut self, name: &str) {
        if !self.used_sets.contains(name) {
            self.used_sets.insert(name.to_owned());
        }
    }

    /// Warns about sets that nothing refers to.
    pub(super) fn sets_are_used(&mut self, node: &Node) {
        // what refers to it may be what could not be read
        let Kind::Map(entries) = &node.kind else {
            return;
        };
        if self.sink.has_errors() {
            return;
        }
        for (key, _) in entries {
            if !self.used_sets.contains(&key.text) {
                let message = format!("set `{}` is never used", key.text);
                self.sink
                    .warn(key.place, message)
                    .help(format!("rules refer to it as ${}", key.text));
            }
        }
    }

    /// Says why `$name` is not what `key` needs.
    fn no_such_set<T>(&mut self, place: Place, key: &str, name: &str, needs: &str) -> Option<T> {
        match self.sets.get(name) {
            Some(Set::Broken) => None,
            Some(set) => {
                let holds = set.holds();
                let message = format!("`${name}` holds {holds}, and `{key}` needs {needs}");
                self.sink.error(place, message);
                None
            }
            None => {
                let names: Vec<_> = self.sets.keys().cloned().collect();
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                self.unknown_set(place, name, &names)
            }
        }
    }

    fn unknown_set<T>(&mut self, place: Place, name: &str, names: &[&str]) -> Option<T> {
        let near = nearest(name, names.iter().copied());
        let diagnostic = self.sink.error(place, format!("unknown set `${name}`"));
        if let Some(near) = near {
            diagnostic.help(format!("did you mean `${near}`?"));
        }
        None
    }

    /// Reads a port, a length or a VLAN id, or a range of them.
    pub(super) fn u16_range(&mut self, place: Place, what: &str, text: &str) -> Option<(u16, u16)> {
        u16_range(what, text)
            .map_err(|bad| self.sink.error(place, bad.message).help = bad.help)
            .ok()
    }
}

/// Largest number of its kind.
pub(super) fn largest(what: &str) -> u16 {
    if what == "VLAN id" { 4094 } else { u16::MAX }
}

fn u16_range(what: &str, text: &str) -> Result<(u16, u16), BadRange> {
    let max = u64::from(largest(what));
    let read = |text: &str| parse_number(text.trim());
    let range = match text.split_once('-') {
        Some((low, high)) => read(low).zip(read(high)),
        None => read(text).map(|number| (number, number)),
    };
    let (message, help) = match range {
        Some((low, high)) if high <= max && low <= high => return Ok((low as u16, high as u16)),
        Some((low, high)) if low <= max && high <= max => (
            format!("range `{text}` ends before it begins"),
            Some(format!("write {high}-{low}")),
        ),
        Some(_) => (format!("{what} `{text}` is not from 0 to {max}"), None),
        None => (format!("`{text}` is not a {what} or a range of them"), None),
    };
    Err(BadRange { message, help })
}
