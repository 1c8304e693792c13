//! Why a packet meets its verdict: the rules that it came by, each with the match that failed or
//! what it did, as the policy says it and with what the packet has instead.
//!
//! The walk is that of [`Compiled::forward`], over the same operations and predicates; but nothing is
//! counted, no token is taken, no flow is added to a count, and only a copy of the flow is marked.
//! The text of the matches is read from the policy's source once more, so that the policy in force
//! need not carry it.
//!
//! Life-cycle: a [`Narrator`] lives for one question, or for many about one policy. Concurrency: reads only; not the packet path.

mod packet;
pub mod vocabulary;
mod words;

pub use packet::{Given, PacketInWords};
pub use words::flag_names as tcp_flag_names;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::compile::{Act, Compiled, NO_EXTRA, Op, Pred, RuleId};
use super::diagnostic::Sink;
use super::eval::{Decision, Facts, RawVerdict, Steps, Verdict};
use super::model::{FORWARD, MAX_JUMPS, Policy, RejectWith, Rule};
use super::yaml::{self, Kind, Node};
use crate::conntrack::helper::{HelperId, Permissions};
use crate::conntrack::types::proto;

/// A rule that a packet came by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its chain; `raw` before tracking, `helpers` for helper lines.
    pub chain: String,
    /// Its name; `policy` for the policy of `forward`, empty for the end of another chain.
    pub rule: String,
    /// Where it stands in the file; 0 for what has no line.
    pub line: u32,
    /// How many jumps deep.
    pub depth: usize,
    /// Whether all of its matches held.
    pub matched: bool,
    /// What followed, if it matched: `accept`, `jump inbound`, `return to forward`.
    pub then: Option<String>,
    /// The match that failed, as the policy has it: `daddr: $servers`.
    pub wanted: Option<String>,
    /// What the packet has instead: `daddr is 10.9.0.1`.
    pub found: Option<String>,
}

/// The rules of a policy's text.
#[derive(Debug, Default)]
struct Source {
    /// The chains in the order of the model, then `raw`, then `helpers`: the rules of each.
    sections: Vec<Vec<Node>>,
}

/// Walks a policy for one packet.
#[derive(Clone, Debug)]
pub struct Narrator<'a> {
    compiled: &'a Compiled,
    /// Name and rules of every section, in the order of the operations, and where it begins there.
    sections: Vec<(&'a str, &'a [Rule], u32)>,
    source: Arc<Source>,
    /// The time that `time` goes by, in seconds since 1970, if not that of the packet.
    unix: Option<u64>,
    /// The rules that the packet matched, if that is known.
    way: Option<&'a [RuleId]>,
}

impl<'a> Narrator<'a> {
    /// For `compiled`, which was made of `policy`.
    pub fn new(compiled: &'a Compiled, policy: &'a Policy) -> Self {
        let chains = policy.chains.iter();
        let chains = chains.map(|chain| (chain.name.as_str(), chain.rules.as_slice()));
        let rest = [("raw", &policy.raw[..]), ("helpers", &policy.helpers[..])];
        let mut start = 0;
        let sections = chains.chain(rest).map(|(name, rules)| {
            let section = (name, rules, start);
            start += rules.len() as u32 + 1;
            section
        });
        Self {
            compiled,
            sections: sections.collect(),
            source: Arc::new(Source::read(&policy.source).unwrap_or_default()),
            unix: None,
            way: None,
        }
    }

    /// As if the packet came `unix` seconds after 1970: for `time`, and nothing else.
    #[must_use]
    pub fn at(mut self, unix: u64) -> Self {
        self.unix = Some(unix);
        self
    }

    /// For a packet of which is known what rules it matched, in order, the first of which
    /// [`Steps`] has room for: what their limits said then, they are not asked again.
    #[must_use]
    pub fn along(&self, way: &'a [RuleId]) -> Self {
        Self {
            way: Some(way),
            ..self.clone()
        }
    }

    /// Whether the packet, which had matched `matched` rules when it came by the one at `at`, matched
    /// it, if that is known.
    fn went(&self, matched: usize, at: u32) -> Option<bool> {
        let way = self.way?;
        match way.get(matched) {
            Some(next) => Some(next.0 == at),
            None if way.len() == Steps::new().capacity() => None,
            None => Some(false),
        }
    }

    /// Seconds since 1970 of the packet.
    fn unix(&self, facts: &Facts<'_>) -> u64 {
        let nanos = self.compiled.epoch.unix_nanos(facts.now);
        self.unix.unwrap_or(nanos / 1_000_000_000)
    }

    fn holds(&self, pred: &Pred, facts: &Facts<'_>) -> bool {
        let Pred::Time(at) = *pred else {
            return self.compiled.test(pred, facts);
        };
        let want = self.compiled.tables.times.get(at as usize);
        want.is_some_and(|want| want.holds(self.unix(facts), &self.compiled.calendar))
    }

    /// The raw rules that the packet comes by, and what becomes of it.
    pub fn raw(&self, facts: &Facts<'_>) -> (Vec<Step>, RawVerdict) {
        let (steps, op) = self.first_match(self.compiled.raw, facts);
        let verdict = match op.map(|op| op.act) {
            Some(Act::Notrack) => RawVerdict::Notrack,
            _ => RawVerdict::Track,
        };
        (steps, verdict)
    }

    /// The helper lines that a packet that starts a flow comes by, and the helper that is attached.
    pub fn helpers(&self, facts: &Facts<'_>) -> (Vec<Step>, Option<(HelperId, Permissions)>) {
        let (steps, op) = self.first_match(self.compiled.helpers, facts);
        let attached = op.and_then(|op| match op.act {
            Act::Helper(id, permissions) => Some((id, permissions)),
            _ => None,
        });
        (steps, attached)
    }

    fn first_match(&self, start: u32, facts: &Facts<'_>) -> (Vec<Step>, Option<&Op>) {
        let mut steps = Vec::new();
        for at in start.. {
            let op = self.compiled.ops.get(at as usize);
            let Some(op) = op.filter(|op| op.act != Act::End) else {
                break;
            };
            let failed = self.failed(at, op, facts, None);
            let held = failed.is_none();
            let then = self.action(at);
            steps.push(self.step(at, 0, failed, then));
            if held {
                return (steps, Some(op));
            }
        }
        (steps, None)
    }

    /// The chains from `forward` on, and what is decided. `facts.flow` then has the mark that the
    /// flow would have.
    pub fn forward(&self, facts: &Facts<'_>) -> (Vec<Step>, Decision) {
        let compiled = self.compiled;
        let policy = compiled.forward_policy();
        let mut steps = Vec::new();
        let mut back: ArrayVec<u32, MAX_JUMPS> = ArrayVec::new();
        let (mut at, mut log, mut timeouts) = (compiled.forward, None, None);
        let mut matched = 0;
        let (verdict, rule) = loop {
            let Some(op) = compiled.ops.get(at as usize) else {
                break (Verdict::Drop, policy);
            };
            let went = self.went(matched, at);
            if let Some(failed) = self.failed(at, op, facts, went) {
                steps.push(self.step(at, back.len(), Some(failed), String::new()));
                at += 1;
                continue;
            }
            matched += usize::from(op.act != Act::End);
            let rule = RuleId(at);
            let here = (at, back.len());
            if op.logs {
                log = Some(rule);
            }
            if let Some(extra) = compiled.extra(op) {
                if let (Some(mark), Some(flow)) = (extra.mark, facts.flow) {
                    flow.set_mark(mark);
                }
                timeouts = extra.timeouts.or(timeouts);
            }
            let mut then = self.action(at);
            let verdict = match op.act {
                Act::Accept => Some(Verdict::Accept),
                Act::Drop => Some(Verdict::Drop),
                Act::Reject(with) => Some(Verdict::Reject(with)),
                Act::RejectAuto => {
                    let with = match facts.packet.proto {
                        proto::TCP => RejectWith::TcpReset,
                        _ => RejectWith::IcmpPortUnreachable,
                    };
                    then = format!("{then} ({})", with.name());
                    Some(Verdict::Reject(with))
                }
                Act::Jump(target) => {
                    if back.try_push(at + 1).is_err() {
                        break (Verdict::Drop, policy);
                    }
                    at = target;
                    None
                }
                Act::Goto(target) => {
                    at = target;
                    None
                }
                Act::Return | Act::End => {
                    at = back.pop().unwrap_or(compiled.forward_policy);
                    then = format!("return to {}", self.place(at).0);
                    None
                }
                Act::Continue | Act::Notrack | Act::Helper(..) => {
                    at += 1;
                    None
                }
            };
            let (was, depth) = here;
            steps.push(self.step(was, depth, None, then));
            if let Some(verdict) = verdict {
                break (verdict, rule);
            }
        };
        let decision = Decision {
            verdict,
            rule,
            log,
            timeouts,
        };
        (steps, decision)
    }

    /// The first match of `op` that does not hold, as written, and what the packet has. In the order
    /// of the text, which is not that of the evaluation. `went` says whether the packet matched, if
    /// that is known: of limits that is all that is left.
    fn failed(
        &self,
        at: u32,
        op: &Op,
        facts: &Facts<'_>,
        went: Option<bool>,
    ) -> Option<(String, String)> {
        let compiled = self.compiled;
        let start = op.preds as usize;
        let preds = compiled.preds.get(start..start + usize::from(op.count));
        let failed = preds
            .unwrap_or_default()
            .iter()
            .filter(|pred| !self.holds(pred, facts));
        let unix = self.unix(facts);
        let mut failed: Vec<_> = failed
            .map(|pred| (key(pred), words::found(compiled, pred, facts, unix)))
            .collect();
        // limits come last, and are asked only where the rest holds
        if failed.is_empty() && op.extra != NO_EXTRA && went != Some(true) {
            let extra = compiled.extra(op);
            let limit = extra.and_then(|extra| extra.limit.as_ref());
            let connlimit = extra.and_then(|extra| extra.connlimit);
            let zone = compiled.zone(facts.iif, facts.packet.vlan);
            let addrs = facts.packet.addrs;
            if went == Some(false) && connlimit.is_none() && limit.is_some() {
                failed.push(("limit", "it was used up".into()));
            } else if went == Some(false) && limit.is_none() && connlimit.is_some() {
                failed.push((
                    "connlimit",
                    "the flows were not so many, or too many".into(),
                ));
            } else if went == Some(false) && limit.is_some() {
                failed.push((
                    "limit",
                    "it was used up, or the flows were not as `connlimit` says".into(),
                ));
            } else if limit.is_some_and(|limit| !limit.has_one(addrs, zone, facts.now)) {
                failed.push(("limit", "it is used up".into()));
            } else if let Some(scope) = connlimit {
                match facts.flow.map(|flow| scope.foresee(flow)) {
                    None => failed.push(("connlimit", words::NO_FLOW.into())),
                    Some((count, false)) => {
                        failed.push(("connlimit", format!("flows are {count}, this one included")));
                    }
                    Some((_, true)) => {}
                }
            }
        }
        let written = self.written(at);
        let order = |key: &str| {
            let found = written.iter().position(|(known, _)| *known == key);
            found.unwrap_or(usize::MAX)
        };
        let (key, found) = failed.into_iter().min_by_key(|(key, _)| order(key))?;
        let wanted = written.iter().find(|(known, _)| *known == key);
        let wanted = match wanted {
            Some((key, value)) => format!("{key}: {}", words::value(value)),
            None => key.to_owned(),
        };
        Some((wanted, found))
    }

    /// Keys and values of the rule at `at`, in the order of the file; none if there is no text.
    fn written(&self, at: u32) -> Vec<(&str, &Node)> {
        let (_, section, rule) = self.place(at);
        let rules = self.source.sections.get(section);
        match rules
            .and_then(|rules| rules.get(rule))
            .map(|node| &node.kind)
        {
            Some(Kind::Map(entries)) => {
                let entries = entries.iter();
                entries
                    .map(|(key, value)| (key.text.as_str(), value))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// The name and number of the section that operation `at` is in, and its place there.
    fn place(&self, at: u32) -> (&'a str, usize, usize) {
        let behind = self.sections.partition_point(|(.., start)| *start <= at);
        let section = behind.saturating_sub(1);
        match self.sections.get(section) {
            Some((name, _, start)) => (*name, section, (at - start) as usize),
            None => ("", 0, 0),
        }
    }

    /// What the rule at `at` does.
    fn action(&self, at: u32) -> String {
        let meta = self.compiled.rules.get(at as usize);
        let meta = meta.and_then(Option::as_ref);
        meta.map_or(String::new(), |meta| meta.action.clone())
    }

    fn step(&self, at: u32, depth: usize, failed: Option<(String, String)>, then: String) -> Step {
        let (chain, section, place) = self.place(at);
        let rules = self.sections.get(section).map(|(_, rules, _)| *rules);
        let rule = rules.and_then(|rules| rules.get(place));
        let end = if chain == FORWARD { "policy" } else { "" };
        let matched = failed.is_none();
        let (wanted, found) = failed.unzip();
        Step {
            chain: chain.to_owned(),
            rule: rule.map_or(end, |rule| &rule.name).to_owned(),
            line: rule.map_or(0, |rule| rule.line),
            depth,
            matched,
            then: matched.then_some(then),
            wanted,
            found,
        }
    }
}

/// The key that a predicate was made of.
fn key(pred: &Pred) -> &'static str {
    match pred {
        Pred::State(_) => "ct",
        Pred::Iif(_) => "iif",
        Pred::Oif(_) => "oif",
        Pred::Dir(_) => "ct-direction",
        Pred::Family(_) => "family",
        Pred::Status(_) => "ct-status",
        Pred::Helper(_) => "ct-helper",
        Pred::Mark(_) => "ct-mark",
        Pred::Proto(_) | Pred::Protos(_) => "proto",
        Pred::Flags(_) => "tcp-flags",
        Pred::Fragment(_) => "fragment",
        Pred::Dscp(_) => "dscp",
        Pred::Dport(..) | Pred::Dports(_) => "dport",
        Pred::Sport(..) | Pred::Sports(_) => "sport",
        Pred::Length(_) => "length",
        Pred::Vlan(_) => "vlan",
        Pred::Zone(_) => "ct-zone",
        Pred::Icmp(_) => "icmp-type",
        Pred::Time(_) => "time",
        Pred::Src4(..) | Pred::Src { .. } => "saddr",
        Pred::Dst4(..) | Pred::Dst { .. } => "daddr",
    }
}

impl Source {
    fn read(text: &str) -> Option<Self> {
        let Kind::Map(top) = yaml::read(text, &mut Sink::new(text))?.kind else {
            return None;
        };
        let (mut chains, mut raw, mut helpers) = (Vec::new(), Vec::new(), Vec::new());
        for (key, node) in top {
            match (key.text.as_str(), node.kind) {
                ("chains", Kind::Map(all)) => chains = all,
                ("raw", Kind::List(rules)) => raw = rules,
                ("helpers", Kind::List(rules)) => helpers = rules,
                _ => {}
            }
        }
        // the order of the model
        chains.sort_by_key(|(key, _)| key.text != FORWARD);
        let chains = chains.into_iter().map(|(_, chain)| rules(chain));
        Some(Self {
            sections: chains.chain([raw, helpers]).collect(),
        })
    }
}

/// The rules of a chain.
fn rules(chain: Node) -> Vec<Node> {
    let Kind::Map(entries) = chain.kind else {
        return Vec::new();
    };
    let rules = entries.into_iter().find(|(key, _)| key.text == "rules");
    match rules.map(|(_, node)| node.kind) {
        Some(Kind::List(rules)) => rules,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
