//! The ports of an imported policy: interfaces that rules name.
//!
//! Life-cycle and concurrency: as [`super`].

use super::assemble::{Port, unique};
use super::rules::{Cond, Effect, Item, Rule, RuleSet, left};
use crate::policy::MAX_PORTS;
use std::collections::{BTreeMap, BTreeSet};

/// The interface that no forwarded packet comes in or leaves by.
const LOOPBACK: &str = "lo";

/// Ports where no rule names an interface.
pub(super) fn default() -> Vec<Port> {
    let port = |name: &str| Port {
        name: name.into(),
        interface: None,
    };
    vec![port("lan"), port("wan")]
}

/// Replaces interfaces by ports, which it returns. A name that ends in `*` stands for those ports
/// that begin so.
pub(super) fn resolve(set: &mut RuleSet) -> Vec<Port> {
    let mut named: Vec<(u32, String)> = Vec::new();
    for_rules(set, |rule| {
        for key in ["iif", "oif"] {
            let values = rule
                .matches
                .get(key)
                .map(|cond| cond.values.clone())
                .unwrap_or_default();
            named.extend(values.into_iter().map(|value| (rule.line, value)));
        }
        None
    });
    named.sort_by_key(|(line, _)| *line);
    let (patterns, plain): (Vec<_>, Vec<_>) = named
        .into_iter()
        .map(|(_, name)| name)
        .partition(|name| name.ends_with('*'));
    let mut interfaces: Vec<String> = Vec::new();
    for name in plain {
        if name != LOOPBACK && !interfaces.contains(&name) {
            interfaces.push(name);
        }
    }
    for pattern in patterns {
        let start = pattern.trim_end_matches('*');
        if !start.is_empty() && !interfaces.iter().any(|name| name.starts_with(start)) {
            interfaces.push(format!("{start}0"));
        }
    }
    // rules for the others are left out: the checker knows no such port
    interfaces.truncate(MAX_PORTS);
    let mut names = BTreeSet::new();
    let mut ports: Vec<Port> = interfaces
        .into_iter()
        .map(|interface| Port {
            name: unique(&mut names, &interface),
            interface: Some(interface),
        })
        .collect();
    match ports.len() {
        0 => ports = default(),
        1 => ports.push(Port {
            name: unique(&mut names, "peer"),
            interface: None,
        }),
        _ => {}
    }
    let by_interface: BTreeMap<_, _> = ports
        .iter()
        .filter_map(|port| Some((port.interface.clone()?, port.name.clone())))
        .collect();
    for_rules(set, |rule| {
        for key in ["iif", "oif"] {
            if let Some(cond) = rule.matches.get(key) {
                match ports_of(cond, &by_interface, &ports) {
                    Some(Some(cond)) => rule.matches.put(key, cond),
                    Some(None) => rule.matches.remove(key),
                    None => {
                        let why = format!("never matches: no such interface is a port (`{key}`)");
                        return Some(Item::Note(left(rule.line, &rule.text, why, Effect::None)));
                    }
                }
            }
        }
        None
    });
    ports
}

/// The match on ports; `Some(None)` for any, `None` for none.
fn ports_of(cond: &Cond, known: &BTreeMap<String, String>, all: &[Port]) -> Option<Option<Cond>> {
    let mut found: Vec<String> = Vec::new();
    for value in &cond.values {
        match value.strip_suffix('*') {
            Some(start) => {
                let like = known
                    .iter()
                    .filter(|(interface, _)| interface.starts_with(start));
                found.extend(like.map(|(_, port)| port.clone()));
                if start.is_empty() {
                    return (!cond.negated).then_some(None);
                }
            }
            None if value == LOOPBACK => {}
            None => found.push(known.get(value).unwrap_or(value).clone()),
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|port| seen.insert(port.clone()));
    match (cond.negated, found.len()) {
        (false, 0) => None,
        (true, 0) => Some(None),
        (true, many) if many > 1 => {
            let others = all.iter().map(|port| port.name.clone());
            let others: Vec<_> = others.filter(|port| !found.contains(port)).collect();
            (!others.is_empty()).then_some(Some(Cond {
                negated: false,
                values: others,
            }))
        }
        (negated, _) => Some(Some(Cond {
            negated,
            values: found,
        })),
    }
}

/// Calls `change` for every rule, and puts what it returns in its place.
fn for_rules(set: &mut RuleSet, mut change: impl FnMut(&mut Rule) -> Option<Item>) {
    let bases = set.bases.iter_mut().flat_map(|base| &mut base.items);
    let chains = set.chains.values_mut().flat_map(|chain| &mut chain.items);
    for item in set
        .raw
        .iter_mut()
        .chain(&mut set.helpers)
        .chain(bases)
        .chain(chains)
    {
        if let Item::Rule(rule) = item
            && let Some(other) = change(rule)
        {
            *item = other;
        }
    }
}
