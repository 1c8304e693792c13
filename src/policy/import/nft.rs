//! Reads rule sets of nftables: `nft list ruleset`, or a file for `nft -f`.
//!
//! Base chains of type filter become `forward`: those of the hook that was asked for, and those of
//! prerouting before them, in the order in which a packet sees them. Base chains of prerouting and
//! output that come before tracking become `raw`.
//!
//! Life-cycle and concurrency: as [`super`].

mod ct;
mod expr;
mod file;
mod rule;
mod statement;
mod time;

use super::Hook;
use super::assemble;
use super::before::Before;
use super::rules::{Base, Effect, Item, RuleSet, UserChain, left};
use super::words;
use crate::policy::model::Family;
use file::{Chain, Set, Table, Word};
use rule::{Known, Scope, Stage};
use std::collections::{BTreeMap, BTreeSet};

/// Connection tracking is a hook at this priority (Linux, `NF_IP_PRI_CONNTRACK`).
const TRACKING: i64 = -200;

pub(super) fn read(text: &str, hook: Hook) -> RuleSet {
    let mut set = RuleSet::default();
    let lines: Vec<&str> = text.lines().collect();
    let tables = file::read(text, &mut set.left);
    let routed = |table: &Table| ["ip", "ip6", "inet"].contains(&table.family.as_str());
    let is_base = |chain: &Chain| {
        chain
            .base
            .as_ref()
            .is_some_and(|(_, at, _)| at == hook.name())
    };
    let bridge = !tables
        .iter()
        .any(|table| routed(table) && table.chains.iter().any(is_base));
    let mut bases: Vec<((bool, i64), Base)> = Vec::new();
    let mut names = BTreeSet::new();
    // `count: yes` would only count
    let words = ["true", "yes", "on", "false", "no", "off"];
    let mut counted: BTreeSet<String> = words.map(str::to_owned).into();
    for table in &tables {
        let refuse = match table.family.as_str() {
            _ if table.dormant => Some("its table is dormant"),
            "ip" | "ip6" | "inet" => None,
            "bridge" if bridge => None,
            "bridge" => Some("tables of bridge and of other families together"),
            "arp" => Some("ARP passes where `ethertypes` of the bridge lists it"),
            _ => Some("there are no tables of this family"),
        };
        let scope = Scope {
            family: table.family.as_str(),
            chains: table
                .chains
                .iter()
                .filter(|chain| chain.base.is_none())
                .map(|chain| chain.name.as_str())
                .collect(),
            sets: sets(table, &mut set, &mut names),
            helpers: &table.helpers,
            counters: table
                .counters
                .iter()
                .map(|name| (name.as_str(), assemble::unique(&mut counted, name)))
                .collect(),
            table: &table.name,
            lines: &lines,
        };
        for chain in &table.chains {
            let before = |priority: &i64| *priority < TRACKING;
            let family = family(&table.family);
            let why = match (&chain.base, refuse) {
                (_, Some(why)) => why.to_owned(),
                (None, None) => {
                    user_chain(&mut set, &scope, chain);
                    continue;
                }
                (Some((kind, at, priority)), None) => match (kind.as_str(), at.as_str()) {
                    ("filter", "prerouting" | "output") if before(priority) => {
                        raw(&mut set, &scope, chain, family, hook);
                        continue;
                    }
                    ("filter", at)
                        if at == hook.name() || at == "prerouting" && hook != Hook::Output =>
                    {
                        let mut items = Vec::new();
                        for rule in &chain.rules {
                            items.extend(rule::items(&scope, rule, &mut set, Stage::Base));
                        }
                        let base = Base {
                            name: format!("{}-{}", table.name, chain.name),
                            family,
                            accepts: !chain.drops,
                            items,
                        };
                        bases.push(((at != "prerouting", *priority), base));
                        continue;
                    }
                    ("filter", at @ ("input" | "output" | "forward")) => {
                        let (of, start) = (at, hook.name());
                        format!("it is for hook {of}; `--hook {of}` takes it in place of {start}")
                    }
                    ("nat", _) => "addresses are not translated in this version".to_owned(),
                    (_, at) => format!("there are no chains of type {kind} at hook {at}"),
                },
            };
            let here = ["input", "output", "forward"];
            let other = matches!(&chain.base, Some((kind, at, _)) if kind == "filter" && here.contains(&at.as_str()));
            let host = refuse.is_none() && other;
            if chain.drops && !host {
                set.left.push(left(
                    chain.line,
                    &format!("chain {}: policy drop", chain.name),
                    &why,
                    Effect::Looser,
                ));
            }
            for rule in &chain.rules {
                let effect = if host {
                    Effect::None
                } else {
                    rule::effect(rule)
                };
                set.left
                    .push(left(line_of(rule), &scope.text(rule), &why, effect));
            }
        }
    }
    bases.sort_by_key(|(order, _)| *order);
    set.bases = bases.into_iter().map(|(_, base)| base).collect();
    if set.bases.is_empty() {
        let why = format!(
            "there is no filter chain at hook {}: the policy drops everything",
            hook.name()
        );
        set.left
            .push(left(0, "the rule set", why, Effect::Stricter));
    }
    set
}

fn line_of(rule: &[Word]) -> u32 {
    rule.first().map_or(0, |word| word.line)
}

fn family(name: &str) -> Option<Family> {
    match name {
        "ip" => Some(Family::Ipv4),
        "ip6" => Some(Family::Ipv6),
        _ => None,
    }
}

fn user_chain(set: &mut RuleSet, scope: &Scope<'_>, chain: &Chain) {
    let mut items = Vec::new();
    for rule in &chain.rules {
        items.extend(rule::items(scope, rule, set, Stage::User));
    }
    let made = UserChain {
        name: chain.name.clone(),
        line: chain.line,
        items,
    };
    set.chains.insert(scope.key(&chain.name), made);
}

fn raw(set: &mut RuleSet, scope: &Scope<'_>, chain: &Chain, family: Option<Family>, hook: Hook) {
    if chain.drops {
        let text = format!("chain {}: policy drop", chain.name);
        set.left.push(left(
            chain.line,
            &text,
            "`raw` has no policy here",
            Effect::Looser,
        ));
    }
    let output = chain.base.as_ref().is_some_and(|(_, at, _)| at == "output");
    let mut before = Before::default();
    for words in &chain.rules {
        for item in rule::items(scope, words, set, Stage::Raw) {
            match item {
                Item::Rule(rule) => before.place(set, *rule, output, hook),
                other => {
                    before.accepted |= rule::effect(words) != Effect::Looser;
                    set.raw.push(other);
                }
            }
        }
    }
    set.before
        .extend(before.base(&format!("{}-{}", scope.table, chain.name), family));
}

/// Takes the sets of a table over, and says what rules may do with each.
fn sets<'a>(
    table: &'a Table,
    set: &mut RuleSet,
    names: &mut BTreeSet<String>,
) -> BTreeMap<&'a str, Known<'a>> {
    let mut known = BTreeMap::new();
    for one in &table.sets {
        known.insert(one.name.as_str(), self::set(one, set, names));
    }
    known
}

fn set<'a>(one: &'a Set, set: &mut RuleSet, names: &mut BTreeSet<String>) -> Known<'a> {
    let refuse = |why: &str| Known::Not(format!("set `{}` {why}", one.name));
    let timed = one
        .elements
        .iter()
        .any(|word| word.is("timeout") || word.is("expires"));
    if one.dynamic || timed {
        return refuse("is filled while packets come by");
    }
    let verdicts = one.kind.contains(':');
    if one.elements.len() < 3 {
        return refuse("is empty in this file");
    }
    if verdicts {
        return Known::Map(&one.elements);
    }
    let addr = one.kind.contains("addr") && !one.kind.contains("ether");
    let port = ["inet_service", "dport", "sport"]
        .iter()
        .any(|word| one.kind.contains(word));
    if one.kind.contains(" . ") || addr == port {
        return Known::Words(&one.elements);
    }
    let values = match expr::elements(&one.elements) {
        Ok(values) => values,
        Err(_) => return refuse("has elements of several parts, or that are not understood"),
    };
    let values: Result<Vec<_>, _> = values
        .iter()
        .map(|value| {
            if addr {
                words::addr(value)
            } else {
                words::ports(value, '-')
            }
        })
        .collect();
    let Ok(values) = values else {
        return refuse("has elements that are not understood");
    };
    let name = super::assemble::unique(names, &one.name);
    set.sets.push((name.clone(), values));
    Known::Named(name)
}
