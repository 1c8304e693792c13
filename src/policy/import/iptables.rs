//! Reads what `iptables-save` and `ip6tables-save` write: tables, chains and their policies; rules
//! are [`rule`]'s.
//!
//! Of `filter`, one built-in chain becomes `forward`; of `raw`, what is not tracked and what helpers
//! listen to. A rule of `raw` that drops goes before the others of `forward`: with what it says about
//! a packet it makes no difference there.
//!
//! Life-cycle and concurrency: as [`super`].

mod rates;
mod rule;
mod time;

pub(super) use rule::log_prefix;

use super::Hook;
use super::before::Before;
use super::rules::{Base, Effect, Item, RuleSet, UserChain, left};
use crate::policy::model::Family;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

/// One `*table` of the file.
#[derive(Debug)]
struct Table {
    name: String,
    family: Option<Family>,
    chains: Vec<Chain>,
    rules: Vec<Line>,
}

/// A `:chain` line.
#[derive(Debug)]
struct Chain {
    name: String,
    line: u32,
    /// The policy of a built-in chain; `-` for others.
    policy: String,
}

/// A `-A` line.
#[derive(Debug)]
struct Line {
    line: u32,
    text: String,
    chain: String,
    /// What follows the chain.
    words: Vec<String>,
    /// Its `hashlimit` has the name of another's, and so the same buckets.
    shares: bool,
}

const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// What is wrong with a table for which there is nothing here.
const OTHER_TABLES: [(&str, &str); 3] = [
    ("nat", "addresses are not translated in this version"),
    (
        "mangle",
        "packets are not changed, and only `filter` decides about them",
    ),
    ("security", "there are no security labels"),
];

pub(super) fn read(text: &str, hook: Hook) -> RuleSet {
    let mut set = RuleSet {
        utc: true,
        ..RuleSet::default()
    };
    for (at, mut table) in tables(text, &mut set).into_iter().enumerate() {
        let v6 = |line: &Line| line.words.iter().any(|word| is_v6(word));
        let family = table.family.unwrap_or(if table.rules.iter().any(v6) {
            Family::Ipv6
        } else {
            Family::Ipv4
        });
        let rules = std::mem::take(&mut table.rules);
        match table.name.as_str() {
            "filter" => filter(&mut set, at, &table, rules, family, hook),
            "raw" => raw(&mut set, &table, rules, family, hook),
            other => {
                let known = OTHER_TABLES.iter().find(|(name, _)| *name == other);
                let why = known.map_or("this table is not known", |(_, why)| why);
                for chain in table.chains.iter().filter(|chain| chain.policy == "DROP") {
                    set.left.push(left(
                        chain.line,
                        &format!(":{} DROP", chain.name),
                        why,
                        Effect::Looser,
                    ));
                }
                for line in rules {
                    let effect = rule::effect(&line.words, other == "nat");
                    set.left.push(left(
                        line.line,
                        &line.text,
                        format!("table {other}: {why}"),
                        effect,
                    ));
                }
            }
        }
    }
    if set.bases.is_empty() {
        let why = format!(
            "there is no chain {}: the policy drops everything",
            hook.name().to_uppercase()
        );
        set.left.push(left(0, "*filter", why, Effect::Stricter));
    }
    set
}

fn is_v6(word: &str) -> bool {
    let addr = word.split(['/', ',']).next().unwrap_or_default();
    addr.parse::<Ipv6Addr>().is_ok() || ["ipv6-icmp", "icmpv6", "icmp6"].contains(&word)
}

fn tables(text: &str, set: &mut RuleSet) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let (mut family, mut open) = (None, false);
    for (at, text) in text.lines().enumerate() {
        let line = at as u32 + 1;
        let text = text.trim();
        if text.starts_with('#') {
            match (
                text.contains("ip6tables-save"),
                text.contains("iptables-save"),
            ) {
                (true, _) => family = Some(Family::Ipv6),
                (false, true) => family = Some(Family::Ipv4),
                (false, false) => {}
            }
            continue;
        }
        if let Some(name) = text.strip_prefix('*') {
            tables.push(Table {
                name: name.trim().into(),
                family,
                chains: Vec::new(),
                rules: Vec::new(),
            });
            open = true;
            continue;
        }
        if text.is_empty() || text == "COMMIT" {
            open &= text.is_empty();
            continue;
        }
        if !open {
            // as `iptables -S` prints: the table filter, without saying so
            tables.push(Table {
                name: "filter".into(),
                family,
                chains: Vec::new(),
                rules: Vec::new(),
            });
            open = true;
        }
        let Some(table) = tables.last_mut() else {
            continue;
        };
        let mut words = words(text);
        if words.first().is_some_and(|word| word.starts_with('[')) {
            words.remove(0);
        }
        let mut words = words.into_iter();
        let (first, second) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let policy = words.clone().next();
        match (first.as_str(), first.strip_prefix(':')) {
            (_, Some(name)) => table.chains.push(Chain {
                name: name.into(),
                line,
                policy: second,
            }),
            ("-N" | "--new-chain", _) => table.chains.push(Chain {
                name: second,
                line,
                policy: "-".into(),
            }),
            ("-P" | "--policy", _) => {
                let policy = policy.unwrap_or_default();
                table.chains.push(Chain {
                    name: second,
                    line,
                    policy,
                });
            }
            ("-A" | "--append", _) => table.rules.push(Line {
                line,
                text: text.into(),
                chain: second,
                words: words.collect(),
                shares: false,
            }),
            _ => set.left.push(left(
                line,
                text,
                "this line is not understood",
                Effect::Unclear,
            )),
        }
    }
    mark_shared(&mut tables);
    tables
}

/// Finds rules whose `hashlimit` is that of another one: names are of a family (Linux, xt_hashlimit).
fn mark_shared(tables: &mut [Table]) {
    let name = |line: &Line| {
        let at = line
            .words
            .iter()
            .position(|word| word == "--hashlimit-name")?;
        line.words.get(at + 1).cloned()
    };
    let mut seen = BTreeMap::new();
    for table in &*tables {
        for name in table.rules.iter().filter_map(name) {
            let v6 = table.family == Some(Family::Ipv6);
            *seen.entry((v6, name)).or_insert(0u32) += 1;
        }
    }
    for table in tables {
        let v6 = table.family == Some(Family::Ipv6);
        for line in &mut table.rules {
            let times = name(line).and_then(|name| seen.get(&(v6, name)));
            line.shares = times.is_some_and(|times| *times > 1);
        }
    }
}

/// The words of a line, as a shell and `iptables-restore` see them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().extend(chars.next());
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn filter(
    set: &mut RuleSet,
    at: usize,
    table: &Table,
    rules: Vec<Line>,
    family: Family,
    hook: Hook,
) {
    let start = hook.name().to_uppercase();
    let key = |chain: &str| format!("{at}/{chain}");
    let declared = table.chains.iter().find(|chain| chain.name == start);
    let mut base = Base {
        name: format!("filter-{start}"),
        family: Some(family),
        accepts: declared.is_none_or(|chain| chain.policy != "DROP"),
        items: Vec::new(),
    };
    let mut names: BTreeSet<&str> = table
        .chains
        .iter()
        .map(|chain| chain.name.as_str())
        .collect();
    names.extend(rules.iter().map(|line| line.chain.as_str()));
    let names: BTreeSet<String> = names
        .into_iter()
        .filter(|name| !BUILT_IN.contains(name))
        .map(str::to_owned)
        .collect();
    for name in &names {
        let chain = table.chains.iter().find(|chain| chain.name == *name);
        let chain = UserChain {
            name: name.clone(),
            line: chain.map_or(0, |chain| chain.line),
            items: Vec::new(),
        };
        set.chains.insert(key(name), chain);
    }
    let mut used = declared.is_some();
    for line in rules {
        let here = BUILT_IN.contains(&line.chain.as_str());
        if here && line.chain != start {
            let chain = &line.chain;
            let why = match chain.as_str() {
                "INPUT" | "OUTPUT" | "FORWARD" => format!(
                    "{}; `--hook {}` takes {chain} in place of {start}",
                    if chain == "FORWARD" {
                        "it is for what passes through"
                    } else {
                        "it is for the host itself"
                    },
                    chain.to_lowercase(),
                ),
                _ => format!("the table filter has no chain {chain}"),
            };
            set.left
                .push(left(line.line, &line.text, why, Effect::None));
            continue;
        }
        let over = key(&format!(" over {}", line.line));
        let chain = |name: &str| names.contains(name).then(|| key(name));
        let (items, made) = rule::items(&line, family, &chain, Some(&over));
        set.chains.extend(made.map(|chain| (over, chain)));
        if here {
            used = true;
            base.items.extend(items);
        } else if let Some(chain) = set.chains.get_mut(&key(&line.chain)) {
            chain.items.extend(items);
        }
    }
    if used {
        set.bases.push(base);
    }
}

fn raw(set: &mut RuleSet, table: &Table, rules: Vec<Line>, family: Family, hook: Hook) {
    for chain in table.chains.iter().filter(|chain| chain.policy == "DROP") {
        let text = format!(":{} DROP", chain.name);
        set.left.push(left(
            chain.line,
            &text,
            "`raw` has no policy here",
            Effect::Looser,
        ));
    }
    let mut before = Before::default();
    for line in rules {
        if !["PREROUTING", "OUTPUT"].contains(&line.chain.as_str()) {
            let why = "there are no user chains before tracking";
            let effect = rule::effect(&line.words, false);
            set.raw
                .push(Item::Left(left(line.line, &line.text, why, effect)));
            before.accepted = true;
            continue;
        }
        for item in rule::items(&line, family, &|_| None, None).0 {
            match item {
                Item::Rule(rule) => before.place(set, *rule, line.chain == "OUTPUT", hook),
                other => {
                    before.accepted |= rule::effect(&line.words, false) != Effect::Looser;
                    set.raw.push(other);
                }
            }
        }
    }
    set.before
        .extend(before.base("raw-PREROUTING", Some(family)));
}
