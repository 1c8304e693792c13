//! What two policies differ in, rule by rule: a rule is known by its chain and name.
//!
//! A pure comparison of two models; what of it needs a restart says [`super::restart_needed`].

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::model::{ChainPolicy, Policy, Rule};

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Became {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is written otherwise, or a set that it names holds something else.
    Changed,
    /// It stands elsewhere among the rules that were there before.
    Moved,
}

/// A rule that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What became of it.
    pub became: Became,
    /// Its chain and name, as in `forward/outbound`; `policy` is a chain's policy.
    pub rule: String,
    /// How it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Written>,
    /// How it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Written>,
}

/// A rule in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The line that it begins in, counted from 1; 0 for what no line says.
    pub line: u32,
    /// That line.
    pub text: String,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.text),
            line => write!(f, "{} (line {line})", self.text),
        }
    }
}

/// What differs, section by section in the order of `new`, then what only `old` has.
pub fn difference(old: &Policy, new: &Policy) -> Vec<Change> {
    let (before, after) = (Sections::of(old), Sections::of(new));
    let mut changes = Vec::new();
    for section in &after.all {
        let was = before.get(section.name);
        compare(
            &mut changes,
            section.name,
            (was, &before),
            (Some(section), &after),
        );
    }
    for section in &before.all {
        if after.get(section.name).is_none() {
            compare(
                &mut changes,
                section.name,
                (Some(section), &before),
                (None, &after),
            );
        }
    }
    changes
}

/// Rules, and what happens behind them.
struct Section<'a> {
    name: &'a str,
    rules: &'a [Rule],
    policy: Option<ChainPolicy>,
}

/// The sections of one policy, and the lines of its file.
struct Sections<'a> {
    all: Vec<Section<'a>>,
    lines: Vec<&'a str>,
}

impl<'a> Sections<'a> {
    fn of(policy: &'a Policy) -> Self {
        let section = |name, rules| Section {
            name,
            rules,
            policy: None,
        };
        let chains = policy.chains.iter().map(|chain| Section {
            policy: chain.policy,
            ..section(chain.name.as_str(), &chain.rules)
        });
        let before = [("raw", &policy.raw), ("helpers", &policy.helpers)];
        let before = before.map(|(name, rules)| section(name, rules.as_slice()));
        Self {
            all: before.into_iter().chain(chains).collect(),
            lines: policy.source.lines().collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&Section<'a>> {
        self.all.iter().find(|section| section.name == name)
    }

    fn written(&self, rule: &Rule) -> Written {
        let line = rule.line.checked_sub(1);
        let text = line.and_then(|line| self.lines.get(line as usize));
        let text = text.map_or("", |text| text.trim());
        Written {
            line: rule.line,
            text: text.strip_prefix("- ").unwrap_or(text).to_owned(),
        }
    }
}

/// A section of a policy, if it has it, and the policy.
type Side<'a> = (Option<&'a Section<'a>>, &'a Sections<'a>);

fn compare(changes: &mut Vec<Change>, name: &str, old: Side<'_>, new: Side<'_>) {
    let mut note = |became, rule: &str, before, after| {
        changes.push(Change {
            became,
            rule: format!("{name}/{rule}"),
            before,
            after,
        });
    };
    let [before, after] = [old, new].map(|side| side.0.map_or(&[][..], |section| section.rules));
    let known: HashMap<&str, (usize, &Rule)> = before
        .iter()
        .enumerate()
        .map(|(at, rule)| (rule.name.as_str(), (at, rule)))
        .collect();
    let found: Vec<Option<(usize, &Rule)>> = after
        .iter()
        .map(|rule| known.get(rule.name.as_str()).copied())
        .collect();
    let places: Vec<usize> = found.iter().flatten().map(|(at, _)| *at).collect();
    let mut stays = longest_rise(&places).into_iter().peekable();
    for (rule, was) in after.iter().zip(&found) {
        let is = Some(new.1.written(rule));
        let Some((at, was)) = was else {
            note(Became::Added, &rule.name, None, is);
            continue;
        };
        let moved = stays.next_if_eq(at).is_none();
        let became = if !same(was, rule) {
            Became::Changed
        } else if moved {
            Became::Moved
        } else {
            continue;
        };
        note(became, &rule.name, Some(old.1.written(was)), is);
    }
    let kept: HashSet<usize> = places.into_iter().collect();
    for (at, rule) in before.iter().enumerate() {
        if !kept.contains(&at) {
            note(Became::Removed, &rule.name, Some(old.1.written(rule)), None);
        }
    }
    let policy = |side: Side<'_>| {
        let policy = side.0?.policy?;
        let text = match policy {
            ChainPolicy::Accept => "policy: accept",
            ChainPolicy::Drop => "policy: drop",
        };
        Some(Written {
            line: 0,
            text: text.to_owned(),
        })
    };
    let (was, is) = (policy(old), policy(new));
    if was != is {
        let became = match (&was, &is) {
            (None, _) => Became::Added,
            (_, None) => Became::Removed,
            _ => Became::Changed,
        };
        note(became, "policy", was, is);
    }
}

/// Whether two rules of one name do the same: written alike, and sets of the same content.
fn same(a: &Rule, b: &Rule) -> bool {
    a.hash == b.hash && a.matches == b.matches
}

/// The longest rising sequence in `places`: rules that have kept their order. Patience sorting.
fn longest_rise(places: &[usize]) -> Vec<usize> {
    // of each length, where the sequence with the least end ends; and what comes before each place
    let (mut ends, mut before) = (Vec::<usize>::new(), vec![None; places.len()]);
    for (at, place) in places.iter().enumerate() {
        let length = ends.partition_point(|end| places[*end] < *place);
        before[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut rise = Vec::with_capacity(ends.len());
    let mut next = ends.last().copied();
    while let Some(at) = next {
        rise.push(places[at]);
        next = before[at];
    }
    rise.reverse();
    rise
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn model(rules: &str) -> Policy {
        let text = format!(
            "version: 1\nports: {{ a: {{ device: x }}, b: {{ device: y }} }}\nbridge: [[a, b]]\n{rules}"
        );
        parse("p.yaml", &text)
            .unwrap_or_else(|errors| panic!("{errors}"))
            .model
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        let show = |written: Option<Written>| written.map_or("-".into(), |it| it.to_string());
        difference(&model(old), &model(new))
            .into_iter()
            .map(|it| {
                format!(
                    "{:?} {}: {} => {}",
                    it.became,
                    it.rule,
                    show(it.before),
                    show(it.after)
                )
            })
            .collect()
    }

    #[test]
    fn every_kind_of_change_is_told() {
        let old = "sets: { web: [80] }
raw:
  - { name: gone, proto: udp, action: notrack }
chains:
  forward:
    rules:
      - { name: one, iif: a, action: accept }
      - { name: two, proto: tcp, dport: $web, action: accept }
      - { name: three, iif: b, jump: more }
      - { name: four, proto: icmp, action: accept }
  more: { rules: [{ name: all, action: drop }] }
";
        assert_eq!(told(old, old), [""; 0]);
        let new = "sets: { web: [80, 443] }
chains:
  forward:
    policy: accept
    rules:
      - { name: four, proto: icmp, action: accept }
      - { name: one, iif: a, action: drop }
      - { name: two, proto: tcp, dport: $web, action: accept }
      - { name: three, iif: b, jump: other }
  other: { rules: [{ name: all, comment: x, action: drop }] }
";
        assert_eq!(
            told(old, new),
            [
                "Removed raw/gone: { name: gone, proto: udp, action: notrack } (line 6) => -",
                "Moved forward/four: { name: four, proto: icmp, action: accept } (line 13) => { name: \
                 four, proto: icmp, action: accept } (line 9)",
                "Changed forward/one: { name: one, iif: a, action: accept } (line 10) => { name: one, \
                 iif: a, action: drop } (line 10)",
                "Changed forward/two: { name: two, proto: tcp, dport: $web, action: accept } (line 11) \
                 => { name: two, proto: tcp, dport: $web, action: accept } (line 11)",
                "Changed forward/three: { name: three, iif: b, jump: more } (line 12) => { name: three, \
                 iif: b, jump: other } (line 12)",
                "Changed forward/policy: policy: drop => policy: accept",
                "Added other/all: - => other: { rules: [{ name: all, comment: x, action: drop }] } (line \
                 13)",
                "Removed more/all: more: { rules: [{ name: all, action: drop }] } (line 14) => -",
            ]
        );
    }

    #[test]
    fn what_keeps_its_order_is_the_longest_rise() {
        assert_eq!(longest_rise(&[]), [0usize; 0]);
        assert_eq!(longest_rise(&[3, 0, 1, 2]), [0, 1, 2]);
        assert_eq!(longest_rise(&[0, 1, 5, 2, 3]), [0, 1, 2, 3]);
        assert_eq!(longest_rise(&[2, 1, 0]).len(), 1);
    }
}
