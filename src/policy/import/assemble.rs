//! Lays the chains of a rule set out as a policy has them.
//!
//! A policy has one chain that packets start in. Where a rule set has several (two tables at one
//! hook, one for each family), a packet that the first accepts goes on to the next: each chain
//! becomes a user chain that ends in its own policy, and what accepts in it goes to the next one
//! instead. A chain that several of them use is laid out once for each.
//!
//! Life-cycle and concurrency: as [`super`].

use super::Left;
use super::emit::{Part, Place};
use super::ports;
use super::rules::{Act, Base, Cond, Effect, Item, Rule, RuleSet, UserChain, left};
use crate::policy::MAX_CONNLIMITS;
use crate::policy::model::{FORWARD, Family};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A policy, about to be written.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) ports: Vec<Port>,
    pub(super) sets: Vec<(String, Vec<String>)>,
    pub(super) raw: Vec<Item>,
    pub(super) helpers: Vec<Item>,
    /// `forward` is first.
    pub(super) chains: Vec<Chain>,
    pub(super) left: Vec<Left>,
    pub(super) notes: Vec<Left>,
    /// Whether times of the day are in UTC, and not in local time.
    pub(super) utc: bool,
}

/// A port.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    /// The interface that it stands for; the policy's own, without any.
    pub(super) interface: Option<String>,
}

/// A chain; jumps in it lead to names.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) accepts: Option<bool>,
    pub(super) items: Vec<Item>,
}

/// Most chains that packets start in.
const MAX_BASES: usize = 16;

/// Names that no user chain can have.
const RESERVED: [&str; 3] = [FORWARD, "raw", "helpers"];

impl Layout {
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        let chains = self.chains.iter().flat_map(|chain| &chain.items);
        self.raw.iter().chain(&self.helpers).chain(chains)
    }

    /// Leaves out what stands at `place`; false if that cannot be.
    pub(super) fn leave_out(&mut self, place: &Place, why: &str) -> bool {
        let slot = match place.part {
            Part::Raw(at) => self.raw.get_mut(at),
            Part::Helper(at) => self.helpers.get_mut(at),
            Part::Rule(chain, at) => self.chains.get_mut(chain).and_then(|c| c.items.get_mut(at)),
            Part::Set(at) => {
                // its place stays, so that other places do too
                return self.sets.get_mut(at).is_some_and(|(_, values)| {
                    let held = !values.is_empty();
                    values.clear();
                    held
                });
            }
            Part::Other => return false,
        };
        let Some(slot) = slot else { return false };
        let Item::Rule(rule) = slot else { return false };
        let why = format!("the policy would be refused: {why}");
        *slot = Item::Left(left(rule.line, &rule.text, why, rule.act.effect()));
        true
    }

    /// Leaves out everything: what is left is a policy that drops.
    pub(super) fn give_up(&mut self) {
        let chains = std::mem::take(&mut self.chains);
        let chains = chains.into_iter().flat_map(|chain| chain.items);
        let all = std::mem::take(&mut self.raw).into_iter();
        for item in all.chain(std::mem::take(&mut self.helpers)).chain(chains) {
            match item {
                Item::Rule(rule) => {
                    let why = "the policy would be refused with this rule";
                    let effect = rule.act.effect();
                    self.left.push(left(rule.line, &rule.text, why, effect));
                }
                Item::Left(one) => self.left.push(one),
                Item::Note(one) => self.notes.push(one),
            }
        }
        self.sets.clear();
        self.ports = ports::default();
        self.chains = vec![Chain {
            name: FORWARD.into(),
            accepts: Some(false),
            items: Vec::new(),
        }];
    }
}

pub(super) fn assemble(mut set: RuleSet) -> Layout {
    for base in set.bases.drain(MAX_BASES.min(set.bases.len())..) {
        let why = format!("more than {MAX_BASES} chains at one hook");
        set.left.push(left(0, &base.name, why, Effect::Unclear));
    }
    for before in set.before.drain(..) {
        let meets = |base: &&mut Base| {
            before.family.is_none() || base.family.is_none() || base.family == before.family
        };
        match set.bases.iter_mut().find(meets) {
            Some(base) if base.family == before.family => {
                base.items.splice(0..0, before.items);
            }
            _ => set.bases.insert(0, before),
        }
    }
    // a chain that lets everything pass is worth nothing beside another of its family
    let idle: Vec<bool> = set
        .bases
        .iter()
        .map(|base| base.accepts && base.items.is_empty())
        .collect();
    let kin = |family| {
        set.bases
            .iter()
            .zip(&idle)
            .any(|(base, idle)| !idle && base.family == family)
    };
    let keep: Vec<bool> = set
        .bases
        .iter()
        .zip(&idle)
        .map(|(base, idle)| !idle || !kin(base.family))
        .collect();
    let mut keep = keep.into_iter();
    set.bases.retain(|_| keep.next().unwrap_or(true));
    let ports = ports::resolve(&mut set);
    gate(&mut set);
    let mut builder = Builder {
        set: &set,
        chains: Vec::new(),
        names: RESERVED.iter().map(|name| (*name).to_owned()).collect(),
        made: BTreeMap::new(),
        queue: VecDeque::new(),
        sequences: Vec::new(),
    };
    builder.build();
    let (chains, made) = (builder.chains, builder.made);
    let mut layout = Layout {
        ports,
        chains,
        utc: set.utc,
        ..Layout::default()
    };
    let reached: BTreeSet<_> = made.into_keys().map(|copy| copy.key).collect();
    for (key, chain) in &set.chains {
        let rules = chain.items.len();
        if !reached.contains(key) && rules > 0 {
            let why = "no chain that was taken jumps here";
            let text = format!("chain {} ({rules} rules)", chain.name);
            layout
                .notes
                .push(left(chain.line, &text, why, Effect::None));
        }
    }
    layout.left = set.left;
    layout.notes.append(&mut set.notes);
    (layout.raw, layout.helpers) = (set.raw, set.helpers);
    layout.sets = sets(&mut layout, set.sets);
    bound_counts(&mut layout);
    layout
}

/// Leaves out rules that count flows, beyond as many as a policy may have.
fn bound_counts(layout: &mut Layout) {
    let mut counts = 0;
    for item in layout.chains.iter_mut().flat_map(|chain| &mut chain.items) {
        if let Item::Rule(rule) = item
            && rule.matches.get("connlimit").is_some()
        {
            counts += 1;
            if counts > MAX_CONNLIMITS {
                let why = format!("a policy has at most {MAX_CONNLIMITS} rules with `connlimit`");
                *item = Item::Left(left(rule.line, &rule.text, why, rule.act.effect()));
            }
        }
    }
}

/// Sets that rules refer to, and sets for lists that are negated.
fn sets(layout: &mut Layout, known: Vec<(String, Vec<String>)>) -> Vec<(String, Vec<String>)> {
    let mut made: Vec<(String, Vec<String>)> = Vec::new();
    let mut used = BTreeSet::new();
    let chains = layout.chains.iter_mut().flat_map(|chain| &mut chain.items);
    for item in layout
        .raw
        .iter_mut()
        .chain(&mut layout.helpers)
        .chain(chains)
    {
        let Item::Rule(rule) = item else { continue };
        for key in ["saddr", "daddr", "sport", "dport"] {
            let Some(cond) = rule.matches.get(key) else {
                continue;
            };
            if cond.negated && cond.values.len() > 1 {
                let values = cond.values.iter().flat_map(|value| {
                    let of_set = value
                        .strip_prefix('$')
                        .and_then(|name| known.iter().find(|(n, _)| n == name));
                    of_set.map_or_else(|| vec![value.clone()], |(_, values)| values.clone())
                });
                let values: Vec<_> = values.collect();
                let name = match made.iter().find(|(_, known)| *known == values) {
                    Some((name, _)) => name.clone(),
                    None => {
                        let what = if key.ends_with("addr") {
                            "addresses"
                        } else {
                            "ports"
                        };
                        let taken =
                            |name: &String| known.iter().chain(&made).any(|(n, _)| n == name);
                        let mut names = (1..).map(|n| format!("{what}-{n}"));
                        let name = names.find(|name| !taken(name)).unwrap_or_default();
                        made.push((name.clone(), values));
                        name
                    }
                };
                rule.matches.put(
                    key,
                    Cond {
                        negated: true,
                        values: vec![format!("${name}")],
                    },
                );
            }
            let values = rule
                .matches
                .get(key)
                .map(|cond| cond.values.as_slice())
                .unwrap_or_default();
            used.extend(
                values
                    .iter()
                    .filter_map(|v| Some(v.strip_prefix('$')?.to_owned())),
            );
        }
    }
    let all = known.into_iter().chain(made);
    all.filter(|(name, _)| used.contains(name)).collect()
}

/// Says of rules of one family that they are, where the policy is for both. Chains are gated as a
/// whole.
fn gate(set: &mut RuleSet) {
    let mut families = set.bases.iter().map(|base| base.family);
    let first = families.next().flatten();
    let only = first.filter(|_| families.all(|family| family == first));
    for item in set.raw.iter_mut().chain(&mut set.helpers) {
        let Item::Rule(rule) = item else { continue };
        let implied = ["saddr", "daddr"]
            .iter()
            .any(|key| rule.matches.get(key).is_some());
        if let Some(family) = rule
            .family
            .filter(|family| Some(*family) != only && !implied)
        {
            let values = vec![word(family).to_owned()];
            rule.matches.put(
                "family",
                Cond {
                    negated: false,
                    values,
                },
            );
        }
    }
}

pub(super) const fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

/// A chain of the rule set, as one place of the policy needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Copy {
    /// Which sequence of bases, and which base of it.
    sequence: usize,
    base: usize,
    /// The user chain; empty for the base itself.
    key: String,
    /// Nothing is there to return to: its end is that of its base.
    top: bool,
}

struct Builder<'a> {
    set: &'a RuleSet,
    chains: Vec<Chain>,
    names: BTreeSet<String>,
    made: BTreeMap<Copy, String>,
    queue: VecDeque<Copy>,
    /// Bases that a packet goes through.
    sequences: Vec<Vec<&'a Base>>,
}

impl<'a> Builder<'a> {
    fn build(&mut self) {
        let set = self.set;
        let of = |family| {
            let fits = move |base: &&Base| base.family.is_none_or(|only| only == family);
            set.bases.iter().filter(fits).collect::<Vec<&Base>>()
        };
        let families = [Family::Ipv4, Family::Ipv6];
        let mixed = set.bases.iter().any(|base| base.family.is_some());
        let missing = families.into_iter().find(|family| of(*family).is_empty());
        if !mixed || missing.is_some() {
            let mut forward = Vec::new();
            if let Some(family) = missing.filter(|_| mixed) {
                forward.push(nothing_said(family));
            }
            self.sequences = vec![set.bases.iter().collect()];
            return self.forward(forward);
        }
        self.sequences = families.map(of).into();
        let mut items = Vec::new();
        for (sequence, family) in families.into_iter().enumerate() {
            let name = self.copy(Copy {
                sequence,
                base: 0,
                key: String::new(),
                top: true,
            });
            let mut rule = Rule::new(0, "", Act::Goto(name));
            rule.name = Some(word(family));
            let values = vec![word(family).to_owned()];
            rule.matches.put(
                "family",
                Cond {
                    negated: false,
                    values,
                },
            );
            items.push(Item::Rule(Box::new(rule)));
        }
        self.chains.push(Chain {
            name: FORWARD.into(),
            accepts: Some(false),
            items,
        });
        self.work();
    }

    /// Makes `forward` of the first base of the only sequence.
    fn forward(&mut self, mut items: Vec<Item>) {
        let copy = Copy {
            sequence: 0,
            base: 0,
            key: String::new(),
            top: true,
        };
        let bases = &self.sequences[0];
        let alone = bases.len() < 2;
        let accepts = alone && bases.first().is_some_and(|base| base.accepts);
        self.chains.push(Chain {
            name: FORWARD.into(),
            accepts: Some(accepts),
            items: Vec::new(),
        });
        items.extend(self.items(&copy));
        if alone {
            // the chain's own policy says it
            items.pop_if(|item| matches!(item, Item::Rule(rule) if rule.name == Some(END)));
        }
        self.chains[0].items = items;
        self.work();
    }

    fn work(&mut self) {
        while let Some(copy) = self.queue.pop_front() {
            let items = self.items(&copy);
            let name = self.made.get(&copy).cloned().unwrap_or_default();
            self.chains.push(Chain {
                name,
                accepts: None,
                items,
            });
        }
    }

    /// The name of the chain that `copy` becomes.
    fn copy(&mut self, copy: Copy) -> String {
        if let Some(name) = self.made.get(&copy) {
            return name.clone();
        }
        let wanted = match self.set.chains.get(&copy.key) {
            Some(chain) => &chain.name,
            None => &self.sequences[copy.sequence][copy.base].name,
        };
        let name = unique(&mut self.names, wanted);
        self.made.insert(copy.clone(), name.clone());
        self.queue.push_back(copy);
        name
    }

    fn items(&mut self, copy: &Copy) -> Vec<Item> {
        let Some(base) = self.sequences[copy.sequence].get(copy.base).copied() else {
            return Vec::new();
        };
        let set = self.set;
        let items = match set.chains.get(&copy.key) {
            Some(UserChain { items, .. }) => items,
            None => &base.items,
        };
        // where `forward` itself ends, its policy says how
        let alone = self.sequences.len() == 1 && self.sequences[0].len() == 1;
        let top = copy.top && !alone;
        let again = self
            .made
            .keys()
            .filter(|other| other.key == copy.key && !copy.key.is_empty());
        let again = again.take(2).count() > 1;
        let mut out = Vec::with_capacity(items.len() + 1);
        for item in items {
            let mut item = item.clone();
            if let Item::Rule(rule) = &mut item {
                let key = |key: &String, top| Copy {
                    key: key.clone(),
                    top,
                    ..copy.clone()
                };
                let counts = ["limit", "connlimit"]
                    .iter()
                    .any(|key| rule.matches.get(key).is_some());
                if again && counts {
                    rule.notes
                        .push("there are two of this rule, and each counts for itself".into());
                }
                rule.act = match &rule.act {
                    Act::Accept => self.accept(copy),
                    Act::Return if top => self.end(copy, base),
                    Act::Jump(to) => Act::Jump(self.copy(key(to, false))),
                    Act::Goto(to) => Act::Goto(self.copy(key(to, top))),
                    act => act.clone(),
                };
            }
            out.push(item);
        }
        let ends = |item: &Item| {
            matches!(item, Item::Rule(rule) if rule.matches.is_empty()
                && !matches!(rule.act, Act::Continue | Act::Jump(_)))
        };
        if top && !out.iter().any(ends) {
            let mut rule = Rule::new(0, "", self.end(copy, base));
            rule.name = Some(END);
            out.push(Item::Rule(Box::new(rule)));
        }
        out
    }

    fn end(&mut self, copy: &Copy, base: &Base) -> Act {
        if base.accepts {
            self.accept(copy)
        } else {
            Act::Drop
        }
    }

    /// What accepting means in a base: the next one decides, if there is one.
    fn accept(&mut self, copy: &Copy) -> Act {
        let base = copy.base + 1;
        if base == self.sequences[copy.sequence].len() {
            return Act::Accept;
        }
        Act::Goto(self.copy(Copy {
            base,
            key: String::new(),
            top: true,
            ..copy.clone()
        }))
    }
}

/// Name of the rule that stands for a chain's policy.
const END: &str = "chain-policy";

/// A rule set for one family says nothing about the other.
fn nothing_said(family: Family) -> Item {
    let mut rule = Rule::new(0, "", Act::Drop);
    rule.name = Some(match family {
        Family::Ipv4 => "no-ipv4",
        Family::Ipv6 => "no-ipv6",
    });
    let values = vec![word(family).to_owned()];
    rule.matches.put(
        "family",
        Cond {
            negated: false,
            values,
        },
    );
    rule.comment = Some("the imported rules are for the other family only".into());
    Item::Rule(Box::new(rule))
}

/// A name like `wanted` that the policy allows and that is not among `taken` yet.
pub(super) fn unique(taken: &mut BTreeSet<String>, wanted: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let name: String = wanted
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .take(56)
        .collect();
    let name = if name.is_empty() {
        "chain".to_owned()
    } else {
        name
    };
    let others = (2..).map(|n| format!("{name}-{n}"));
    let found = std::iter::once(name.clone())
        .chain(others)
        .find(|name| !taken.contains(name));
    let found = found.unwrap_or(name);
    taken.insert(found.clone());
    found
}
