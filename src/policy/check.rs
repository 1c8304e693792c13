//! From the text of a policy to a [`Policy`], or to everything that is wrong with it: every error
//! in one run, each with its place.
//!
//! The YAML tree is read by hand. A reader that finds an error reports it and returns `None`, and
//! its caller goes on with the next key, so that one mistake never hides another; whether there
//! was any is asked once, at the end.
//!
//! Life-cycle: a [`Checker`] lives for one policy. Concurrency: none; the control thread checks.

mod chains;
mod conntrack;
mod contradictions;
mod files;
mod flows;
mod graph;
mod headers;
mod helpers;
mod management;
mod matches;
mod region;
mod sections;
mod sets;
mod shadow;
#[cfg(test)]
pub(super) mod tests;
mod timeouts;
mod times;
mod untracked;
mod wide;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::chains::{ReadChain, RulePlaces};
pub(super) use self::flows::STATUS;
use self::management::Managed;
pub(super) use self::matches::MATCHES;
use self::sets::Set;
use self::timeouts::Profiles;
use self::times::Clock;
use super::diagnostic::{self, Diagnostic, Place, PolicyErrors, Severity, Sink};
use super::model::{Bridge, Policy, Port, ReloadMode, Rule, Zone};
use super::names::parse_number;
use super::yaml::{self, Key, Kind, Node};
use super::{MAX_PORTS, PortId};
use crate::conntrack::helper::Info;
use crate::helpers::INFOS;

/// Key tables, for what describes the language elsewhere.
#[cfg(test)]
pub(super) mod keys {
    pub(in crate::policy) use super::chains::RULE_KEYS as RULE;
    pub(in crate::policy) use super::flows::OF_FLOWS;
    pub(in crate::policy) use super::helpers::HELPER_KEYS as HELPER_LINE;
}

/// A policy that may be used.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The policy.
    pub model: Policy,
    /// What is legal but looks wrong.
    pub warnings: Vec<Diagnostic>,
    /// Hash of the text and of the files that it names, to tell whether two policies are the same.
    pub hash: u64,
    file: String,
    text: Arc<str>,
    /// Where a `time` ends for good, and when.
    ends: Vec<(Place, u64)>,
}

impl Checked {
    /// Adds what looks wrong `unix` seconds after 1970: windows of time that are over. Checking
    /// itself knows no clock.
    pub fn warn_of_time(&mut self, unix: u64) {
        let mut sink = Sink::new(&self.text);
        for (place, end) in std::mem::take(&mut self.ends) {
            if end <= unix {
                sink.warn(place, "this rule never matches again: its time is over")
                    .help("remove the rule, or give it a later `until`");
            }
        }
        self.warnings.extend(sink.finish());
        self.warnings.sort_by_key(|warning| warning.place());
    }

    /// The warnings with the text underlined; empty without any.
    pub fn render_warnings(&self) -> String {
        diagnostic::render(&self.file, &self.text, &self.warnings)
    }

    /// The warnings as a JSON array, like [`PolicyErrors::to_json`].
    pub fn warnings_json(&self) -> serde_json::Value {
        diagnostic::to_json(&self.file, &self.warnings)
    }
}

/// What a policy is read from beside its text: the content of a file that it names, or why that
/// cannot be had.
pub(super) type Files<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>, String>;

/// Reads the policy in `text`; `name` is what diagnostics call the file. Sets from files are
/// errors here; [`super::load()`] reads them.
pub fn parse(name: &str, text: &str) -> Result<Checked, PolicyErrors> {
    let none = |_: &str| Err("only a policy that is a file itself can name files".to_owned());
    parse_with(name, text, &INFOS, &none)
}

/// Reads the policy in `text`, which may name the helpers `known` and what `files` finds.
pub(super) fn parse_with(
    name: &str,
    text: &str,
    known: &'static [&'static Info],
    files: Files<'_>,
) -> Result<Checked, PolicyErrors> {
    // a byte order mark would shift every place
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut checker = Checker {
        sink: Sink::new(text),
        ports: Vec::new(),
        sets: BTreeMap::new(),
        known,
        connlimits: 0,
        keyed_limits: 0,
        rule_count: 0,
        files,
        file_room: files::MAX_BYTES,
        range_room: Some(sets::MAX_RANGES),
        hash: fnv1a(text.as_bytes()),
        profiles: Profiles::default(),
        clock: None,
        zones: [None; MAX_PORTS],
        peers: [None; MAX_PORTS],
        used_sets: BTreeSet::new(),
        management: Vec::new(),
        ends: Vec::new(),
    };
    let root = yaml::read(text, &mut checker.sink);
    let model = root.and_then(|root| checker.policy(&root));
    if let Some(model) = &model {
        checker.judge_management(model);
    }
    let (hash, ends) = (checker.hash, checker.ends);
    let found = checker.sink.finish();
    match model {
        Some(mut model) if found.iter().all(|d| d.severity == Severity::Warning) => {
            let source: Arc<str> = text.into();
            model.source = Arc::clone(&source);
            Ok(Checked {
                model,
                warnings: found,
                hash,
                file: name.into(),
                text: source,
                ends,
            })
        }
        _ => Err(PolicyErrors::new(name, text, found)),
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): to compare texts, not to guard against anyone.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    fnv1a_on(0xcbf2_9ce4_8422_2325, bytes)
}

/// Goes on with the hash of what comes before `bytes`.
fn fnv1a_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// One run over one policy.
struct Checker<'a> {
    sink: Sink<'a>,
    ports: Vec<Port>,
    sets: BTreeMap<String, Set>,
    /// Every helper; the index is its id.
    known: &'static [&'static Info],
    /// Rules with a `connlimit` so far.
    connlimits: usize,
    /// Rules with a `limit` by address or zone so far.
    keyed_limits: usize,
    /// Rules and chains so far.
    rule_count: usize,
    /// Sets of timeouts.
    profiles: Profiles,
    /// Its time zone, once something asks for it.
    clock: Option<Clock>,
    files: Files<'a>,
    /// Bytes that files may still have.
    file_room: usize,
    /// Ranges that sets and lists may still have; `None` once there were too many.
    range_room: Option<usize>,
    /// Of all that was read.
    hash: u64,
    /// The zone of each port that is in a bridge.
    zones: [Option<Zone>; MAX_PORTS],
    /// Where what comes in by a port leaves.
    peers: [Option<PortId>; MAX_PORTS],
    /// Sets that something refers to.
    used_sets: BTreeSet<String>,
    /// Flows that must stay possible.
    management: Vec<Managed>,
    /// Where a `time` ends for good, and when.
    ends: Vec<(Place, u64)>,
}

/// The entries of a mapping whose keys were checked.
struct Fields<'n> {
    place: Place,
    entries: &'n [(Key, Node)],
}

impl<'n> Fields<'n> {
    /// The value of `key`, unless it is absent or null.
    fn get(&self, key: &str) -> Option<&'n Node> {
        let (_, node) = self.entries.iter().find(|(k, _)| k.text == key)?;
        (!matches!(node.kind, Kind::Null)).then_some(node)
    }

    /// Where `key` stands.
    fn key(&self, key: &str) -> Option<Place> {
        self.entries
            .iter()
            .find(|(k, _)| k.text == key)
            .map(|(k, _)| k.place)
    }
}

const TOP_KEYS: &[&str] = &[
    "version",
    "ports",
    "bridge",
    "system",
    "reload",
    "sets",
    "conntrack",
    "helpers",
    "raw",
    "chains",
];

impl Checker<'_> {
    fn policy(&mut self, root: &Node) -> Option<Policy> {
        let top = self.fields(root, "a policy", TOP_KEYS, &TOP_KEYS[1..])?;
        match top.get("version") {
            Some(node) => {
                self.number(node, "version", 1, 1);
            }
            None if top.key("version").is_some() => {}
            None => {
                self.sink
                    .error(top.place, "`version` is missing")
                    .help("write `version: 1`");
            }
        }
        // names first: everything else refers to them
        match top.get("ports") {
            Some(node) => self.read_ports(node),
            None => {
                self.sink
                    .error(top.key("ports").unwrap_or(top.place), "`ports` is missing");
            }
        }
        if let Some(node) = top.get("sets") {
            self.read_sets(node);
        }
        let bridges = top
            .get("bridge")
            .map(|node| self.bridges(node))
            .unwrap_or_default();
        self.know_bridges(&bridges);
        if !self.ports.is_empty() && top.get("bridge").is_none() {
            let place = top.key("bridge").or(top.key("ports")).unwrap_or(top.place);
            self.sink
                .warn(place, "no ports are bridged: nothing will be forwarded");
        }
        let system = top
            .get("system")
            .map(|node| self.system(node))
            .unwrap_or_default();
        let modes = ReloadMode::ALL.map(|mode| (mode.name(), mode));
        let reload = top
            .get("reload")
            .and_then(|node| self.choice(node, "reload", &modes))
            .unwrap_or_default();
        let conntrack = top
            .get("conntrack")
            .map(|node| self.conntrack(node))
            .unwrap_or_default();
        let helpers = top
            .get("helpers")
            .map(|node| self.helpers(node))
            .unwrap_or_default();
        let raw = top
            .get("raw")
            .map(|node| self.raw(node))
            .unwrap_or_default();
        let chains = match top.get("chains") {
            Some(node) => self.chains(node),
            None => {
                let place = top.key("chains").unwrap_or(top.place);
                self.sink
                    .error(place, "`chains` is missing")
                    .help("a packet starts in the chain `forward`");
                Vec::new()
            }
        };
        self.look_wrong(&helpers, &raw, &chains);
        if let Some(node) = top.get("sets") {
            self.sets_are_used(node);
        }
        let rules =
            |read: Vec<(Rule, RulePlaces)>| read.into_iter().map(|(rule, _)| rule).collect();
        let (helpers, raw) = (rules(helpers), rules(raw));
        let chains = chains.into_iter().map(|read| read.chain).collect();
        let ports = std::mem::take(&mut self.ports);
        let Profiles { used, zones, .. } = std::mem::take(&mut self.profiles);
        Some(Policy {
            ports,
            bridges,
            system,
            reload,
            conntrack,
            profiles: used,
            zone_timeouts: zones,
            calendar: self.clock.take().map(|clock| clock.calendar),
            helpers,
            raw,
            chains,
            source: Arc::from(""),
        })
    }

    /// Remembers where frames go, which decides about what rules can match.
    fn know_bridges(&mut self, bridges: &[Bridge]) {
        for bridge in bridges {
            for (from, to) in [(bridge.a, bridge.b), (bridge.b, bridge.a)] {
                let at = usize::from(from.0);
                self.peers[at] = Some(to);
                self.zones[at] = Some(bridge.zone);
            }
        }
    }

    /// Warns about what is legal and looks wrong, where there are no errors: a rule with a mistake
    /// in its matches would seem to match everything.
    fn look_wrong(
        &mut self,
        helpers: &[(Rule, RulePlaces)],
        raw: &[(Rule, RulePlaces)],
        chains: &[ReadChain],
    ) {
        if self.sink.has_errors() || self.peers.iter().all(Option::is_none) {
            return;
        }
        self.warn_of_order(helpers, raw, chains);
        self.helpers_see_their_flows(helpers, raw);
    }

    /// Reads a mapping: reports keys that are not in `keys`, and empty values of keys that are not
    /// in `nullable`.
    fn fields<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        keys: &[&str],
        nullable: &[&str],
    ) -> Option<Fields<'n>> {
        let entries = self.entries(node, what)?;
        for (key, value) in entries {
            let name = key.text.as_str();
            if self.sink.is_full() {
                break;
            }
            if !keys.contains(&name) {
                self.sink
                    .error(key.place, format!("unknown key `{name}` in {what}"))
                    .help(format!("known are: {}", keys.join(", ")))
                    .suggest(name, keys.iter().copied());
            } else if matches!(value.kind, Kind::Null) && !nullable.contains(&name) {
                self.sink.error(key.place, format!("`{name}` has no value"));
            }
        }
        Some(Fields {
            place: node.place,
            entries,
        })
    }

    /// Reads a mapping whose keys are names.
    fn entries<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Key, Node)]> {
        match &node.kind {
            Kind::Map(entries) => Some(entries),
            _ => self.mismatch(node, what, "a mapping"),
        }
    }

    fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.kind {
            Kind::List(items) => Some(items),
            _ => self.mismatch(node, what, "a list"),
        }
    }

    fn scalar<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Scalar(text) => Some(text),
            _ => self.mismatch(node, what, "a single value"),
        }
    }

    fn mismatch<T>(&mut self, node: &Node, what: &str, expected: &str) -> Option<T> {
        let found = node.describe();
        self.sink.error(
            node.place,
            format!("{what} must be {expected}, not {found}"),
        );
        None
    }

    fn number(&mut self, node: &Node, what: &str, min: u64, max: u64) -> Option<u64> {
        let text = self.scalar(node, &format!("`{what}`"))?;
        let number = parse_number(text).filter(|n| (min..=max).contains(n));
        if number.is_none() {
            let range = if min == max {
                format!("{min}")
            } else {
                format!("a number from {min} to {max}")
            };
            self.sink.error(
                node.place,
                format!("`{what}` must be {range}, not `{text}`"),
            );
        }
        number
    }

    fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        match self.scalar(node, &format!("`{what}`"))? {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            text => {
                self.sink.error(
                    node.place,
                    format!("`{what}` must be true or false, not `{text}`"),
                );
                None
            }
        }
    }

    /// Reads one of a few words.
    fn choice<T: Copy>(&mut self, node: &Node, what: &str, table: &[(&str, T)]) -> Option<T> {
        let text = self.scalar(node, &format!("`{what}`"))?;
        let found = table.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            self.unknown(node.place, what, text, table.iter().map(|(name, _)| *name));
        }
        found.map(|(_, value)| *value)
    }

    /// Reports a word that is not one of `known`.
    fn unknown<'k>(
        &mut self,
        place: Place,
        what: &str,
        word: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) {
        let known: Vec<_> = known.into_iter().collect();
        let diagnostic = self.sink.error(place, format!("unknown {what} `{word}`"));
        if !known.is_empty() {
            diagnostic.help(format!("known are: {}", known.join(", ")));
        }
        diagnostic.suggest(word, known);
    }

    /// Checks a name that the policy gives to something.
    fn name(&mut self, place: Place, what: &str, name: &str) -> bool {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let good = !name.is_empty() && name.len() <= 63 && name.chars().all(fits);
        if !good {
            self.sink
                .error(place, format!("`{name}` cannot be the name of a {what}"))
                .help("a name has up to 63 ASCII letters, digits, `-`, `_`, `.` and `:`");
        }
        good
    }
}
