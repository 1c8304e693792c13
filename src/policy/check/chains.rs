//! Reads rules: chains, raw rules, and of helper lines what they have in common with these.
//!
//! Life-cycle and concurrency: as `check`.

use std::collections::BTreeMap;

use super::flows::OF_FLOWS;
use super::helpers::HELPER_KEYS;
use super::matches::MATCHES;
use super::{Checker, Fields, fnv1a};
use crate::conntrack::types::proto;
use crate::policy::diagnostic::Place;
use crate::policy::model::{
    Action, Chain, ChainPolicy, FORWARD, Log, MarkValue, Matches, Per, RejectWith, Rule,
};
use crate::policy::yaml::{Kind, Node};

/// Keys of a rule that are not matches.
pub(in crate::policy) const RULE_KEYS: [&str; 9] = [
    "name", "comment", "action", "jump", "goto", "log", "mark", "count", "timeout",
];

/// Most rules and chains of one policy: each takes some hundred bytes, whatever it says.
const MAX_RULES: usize = 250_000;

/// Keys that the language has, and this version does not.
const LATER: [&str; 3] = ["quota", "meta", "queue"];

/// Where a rule stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Raw,
    Helper,
    Chain,
}

/// A chain with the places that later checks point at.
pub(super) struct ReadChain {
    pub(super) chain: Chain,
    pub(super) place: Place,
    pub(super) rules: Vec<RulePlaces>,
}

/// What a rule matches and does.
struct Body {
    matches: Matches,
    action: Action,
    log: Option<Log>,
    mark: Option<MarkValue>,
    counter: Option<String>,
}

/// Places of one rule.
pub(super) struct RulePlaces {
    /// The rule's name, or its beginning.
    pub(super) name: Place,
    /// The name of the chain that it jumps to.
    pub(super) target: Place,
}

impl Checker<'_> {
    pub(super) fn raw(&mut self, node: &Node) -> Vec<(Rule, RulePlaces)> {
        let items = self.list(node, "`raw`").unwrap_or_default();
        self.rules(items, "raw", Stage::Raw)
    }

    pub(super) fn chains(&mut self, node: &Node) -> Vec<ReadChain> {
        let Some(entries) = self.entries(node, "`chains`") else {
            return Vec::new();
        };
        if !self.rules_fit(node.place, entries.len()) {
            return Vec::new();
        }
        let mut chains = Vec::new();
        for (key, value) in entries {
            if self.sink.is_full() {
                break;
            }
            let forward = key.text == FORWARD;
            self.name(key.place, "chain", &key.text);
            let section = match key.text.as_str() {
                "raw" => Some("rules before tracking stand in the section `raw`"),
                "counters" => Some("named counters are shown under this name"),
                "helpers" => Some("lines that attach helpers stand in the section `helpers`"),
                _ => None,
            };
            if let Some(help) = section {
                let message = format!("a chain cannot be called `{}`", key.text);
                self.sink.error(key.place, message).help(help);
            }
            let mut chain = Chain {
                name: key.text.clone(),
                policy: None,
                rules: Vec::new(),
            };
            let mut places = Vec::new();
            if forward {
                chain.policy = Some(ChainPolicy::Drop);
            }
            if let Some(fields) = self.fields(value, "a chain", &["policy", "rules"], &["rules"]) {
                if let Some(node) = fields.get("policy") {
                    let words = [("accept", ChainPolicy::Accept), ("drop", ChainPolicy::Drop)];
                    let policy = self.choice(node, "policy", &words);
                    if forward {
                        chain.policy = policy.or(chain.policy);
                    } else {
                        let place = fields.key("policy").unwrap_or(node.place);
                        self.sink
                            .error(place, "only the chain `forward` has a policy")
                            .help("a user chain returns to where it was jumped from");
                    }
                }
                if let Some(node) = fields.get("rules") {
                    let items = self.list(node, "`rules`").unwrap_or_default();
                    for (rule, at) in self.rules(items, &key.text, Stage::Chain) {
                        chain.rules.push(rule);
                        places.push(at);
                    }
                }
            }
            chains.push(ReadChain {
                chain,
                place: key.place,
                rules: places,
            });
        }
        if !chains.iter().any(|read| read.chain.name == FORWARD) {
            self.sink
                .error(node.place, "the chain `forward` is missing")
                .help("a packet starts in the chain `forward`");
        }
        // a stable sort: `forward` first, the others in the order of the file
        chains.sort_by_key(|read| read.chain.name != FORWARD);
        self.check_jumps(&chains);
        self.check_reach(&chains);
        chains
    }

    /// Whether there is room for so many rules or chains more; reports it once if not.
    fn rules_fit(&mut self, place: Place, more: usize) -> bool {
        let before = self.rule_count;
        self.rule_count = before.saturating_add(more);
        let fits = self.rule_count <= MAX_RULES;
        if !fits && before <= MAX_RULES {
            let message = format!("more than {MAX_RULES} rules and chains in one policy");
            self.sink.error(place, message);
        }
        fits
    }

    pub(super) fn rules(
        &mut self,
        items: &[Node],
        chain: &str,
        stage: Stage,
    ) -> Vec<(Rule, RulePlaces)> {
        let first = items.first();
        if first.is_some_and(|first| !self.rules_fit(first.place, items.len())) {
            return Vec::new();
        }
        let mut rules: Vec<(Rule, RulePlaces)> = Vec::with_capacity(items.len());
        let mut lines = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            if self.sink.is_full() {
                break;
            }
            let Some((rule, places)) = self.rule(item, at + 1, stage) else {
                continue;
            };
            if let Some(first) = lines.insert(rule.name.clone(), rule.line) {
                let message = format!(
                    "a second rule called `{}` in `{chain}`; the first is in line {first}",
                    rule.name
                );
                self.sink.error(places.name, message);
            }
            if rule.name == "policy" && chain == FORWARD {
                self.sink
                    .error(places.name, "a rule of `forward` cannot be called `policy`")
                    .help("`forward/policy` is the chain's own policy");
            }
            rules.push((rule, places));
        }
        rules
    }

    /// Reads the keys of a rule; those of a later version get their own message.
    fn rule_fields<'n>(&mut self, node: &'n Node, what: &str, keys: &[&str]) -> Option<Fields<'n>> {
        let mut known = keys.to_vec();
        known.extend(LATER);
        let entries = self.entries(node, what)?;
        for (key, _) in entries
            .iter()
            .filter(|(key, _)| LATER.contains(&key.text.as_str()))
        {
            let message = format!("`{}` is not supported in this version", key.text);
            self.sink.error(key.place, message);
        }
        for (key, value) in entries {
            let name = key.text.as_str();
            if self.sink.is_full() {
                break;
            }
            if !known.contains(&name) {
                self.sink
                    .error(key.place, format!("unknown key `{name}` in {what}"))
                    .suggest(name, keys.iter().copied());
            } else if matches!(value.kind, Kind::Null) && !LATER.contains(&name) {
                self.sink.error(key.place, format!("`{name}` has no value"));
            }
        }
        Some(Fields {
            place: node.place,
            entries,
        })
    }

    fn rule(&mut self, node: &Node, number: usize, stage: Stage) -> Option<(Rule, RulePlaces)> {
        let (what, keys) = match stage {
            Stage::Helper => ("a helper line", &HELPER_KEYS[..]),
            Stage::Raw | Stage::Chain => ("a rule", &RULE_KEYS[..]),
        };
        let keys = [keys, &MATCHES].concat();
        let fields = self.rule_fields(node, what, &keys)?;
        let start = fields
            .entries
            .first()
            .map_or(node.place, |(key, _)| key.place);
        let mut places = RulePlaces {
            name: start,
            target: start,
        };
        let mut name = number.to_string();
        if let Some(node) = fields.get("name")
            && let Some(text) = self.scalar(node, "`name`")
        {
            self.name(node.place, "rule", text);
            places.name = node.place;
            name = text.to_owned();
        }
        let comment = fields
            .get("comment")
            .and_then(|node| self.scalar(node, "`comment`"));
        let timeouts = fields
            .get("timeout")
            .filter(|_| stage == Stage::Chain)
            .and_then(|node| self.timeout_of(node));
        let body = match stage {
            Stage::Helper => {
                let (matches, action) = self.helper_line(&fields)?;
                Body {
                    matches,
                    action,
                    log: None,
                    mark: None,
                    counter: None,
                }
            }
            Stage::Raw | Stage::Chain => self.rule_body(&fields, stage, &mut places)?,
        };
        let rule = Rule {
            name,
            comment: comment.map(str::to_owned),
            matches: body.matches,
            action: body.action,
            log: body.log,
            mark: body.mark,
            counter: body.counter,
            timeouts,
            line: self.sink.line(start),
            hash: content_hash(node),
        };
        Some((rule, places))
    }

    /// Reads what a rule matches and does.
    fn rule_body(
        &mut self,
        fields: &Fields<'_>,
        stage: Stage,
        places: &mut RulePlaces,
    ) -> Option<Body> {
        let matches = self.matches(fields, None);
        let log = fields.get("log").and_then(|node| self.log(node));
        let mark = fields.get("mark").and_then(|node| self.set_mark(node));
        let (counts, counter) = match fields.get("count") {
            Some(node) => self.counter(node)?,
            None => (false, None),
        };
        if stage == Stage::Raw {
            for key in OF_FLOWS.into_iter().chain(["ct"]) {
                if let Some(place) = fields.key(key) {
                    let message = format!("`{key}` cannot be known in `raw`, before tracking");
                    self.sink.error(place, message);
                }
            }
            if let Some(place) = fields.key("log") {
                self.sink.error(place, "`log` is not supported in `raw`");
            }
            if let Some(place) = fields.key("mark") {
                self.sink
                    .error(place, "`mark` is not possible in `raw`")
                    .help("a mark belongs to a flow, and a packet has one only after tracking");
            }
            if let Some(place) = fields.key("timeout") {
                self.sink
                    .error(place, "`timeout` is not possible in `raw`")
                    .help("a timeout belongs to a flow, and a packet has one only after tracking");
            }
        }
        // of raw rules the first that matches decides
        let sets = |key| fields.key(key).is_some();
        let changes = sets("mark") || sets("timeout");
        let goes_on = log.is_some() || changes || counts && stage == Stage::Chain;
        let action = self.action(fields, stage, places, goes_on)?;
        self.check_reject(fields, &action, &matches);
        Some(Body {
            matches,
            action,
            log,
            mark,
            counter,
        })
    }

    /// Reads `count`: whether it counts, and the name of the counter if it has one.
    fn counter(&mut self, node: &Node) -> Option<(bool, Option<String>)> {
        match self.scalar(node, "`count`")? {
            "true" | "yes" | "on" => Some((true, None)),
            "false" | "no" | "off" => Some((false, None)),
            name => {
                let good = self.name(node.place, "counter", name);
                good.then(|| (true, Some(name.to_owned())))
            }
        }
    }

    fn log(&mut self, node: &Node) -> Option<Log> {
        if let Kind::Scalar(_) = node.kind {
            return self.boolean(node, "log")?.then(Log::default);
        }
        let fields = self.fields(node, "`log`", &["prefix", "limit"], &[])?;
        let prefix = fields.get("prefix").and_then(|node| {
            let text = self.scalar(node, "`prefix`")?;
            if text.len() > 64 || text.chars().any(char::is_control) {
                self.sink.error(
                    node.place,
                    "`prefix` must be at most 64 bytes of printable text",
                );
            }
            Some(text.to_owned())
        });
        let limit = match fields.get("limit") {
            Some(node) => self.limit(node).unwrap_or(Log::LIMIT),
            None => Log::LIMIT,
        };
        if limit.per != Per::Rule {
            self.sink.error(
                fields.key("limit").unwrap_or(node.place),
                "the `limit` of a `log` is for all lines of its rule",
            );
        }
        Some(Log { prefix, limit })
    }

    /// Reads what a rule does: exactly one of `action`, `jump` and `goto`, or only
    /// `log`, `mark`, `count` or `timeout`.
    fn action(
        &mut self,
        fields: &Fields<'_>,
        stage: Stage,
        places: &mut RulePlaces,
        goes_on: bool,
    ) -> Option<Action> {
        let given: Vec<_> = ["action", "jump", "goto"]
            .into_iter()
            .filter(|key| fields.key(key).is_some())
            .collect();
        match given[..] {
            [] if goes_on => return Some(Action::Continue),
            [] if stage == Stage::Raw => {
                self.sink
                    .error(places.name, "this rule does nothing")
                    .help("add `action: notrack` or `action: accept`");
                return None;
            }
            [] => {
                self.sink
                    .error(places.name, "this rule does nothing")
                    .help("add `action`, `jump`, `goto`, `log`, `mark`, `count` or `timeout`");
                return None;
            }
            [_] => {}
            [first, second, ..] => {
                let place = fields.key(second).unwrap_or(fields.place);
                self.sink.error(
                    place,
                    format!("`{first}` and `{second}` exclude each other"),
                );
                return None;
            }
        }
        let key = given[0];
        let node = fields.get(key)?;
        if key == "action" {
            return self.action_word(node, stage);
        }
        if stage == Stage::Raw {
            let place = fields.key(key).unwrap_or(fields.place);
            self.sink
                .error(place, format!("`{key}` is not possible in `raw`"));
            return None;
        }
        places.target = node.place;
        let target = self.scalar(node, &format!("`{key}`"))?.to_owned();
        Some(if key == "jump" {
            Action::Jump(target)
        } else {
            Action::Goto(target)
        })
    }

    fn action_word(&mut self, node: &Node, stage: Stage) -> Option<Action> {
        if let Kind::Map(_) = node.kind {
            let fields = self.fields(node, "an action", &["reject"], &[])?;
            // nftables' and iptables' words beside our own
            let also = [
                ("port-unreachable", RejectWith::IcmpPortUnreachable),
                ("prot-unreachable", RejectWith::ProtoUnreachable),
                ("addr-unreachable", RejectWith::HostUnreachable),
                ("no-route", RejectWith::NetUnreachable),
            ];
            let own = RejectWith::ALL.map(|with| (with.name(), with));
            let kinds = [&own[..], &also].concat();
            let with = self.choice(fields.get("reject")?, "kind of reject", &kinds)?;
            if stage == Stage::Raw {
                let message = "`reject` is not possible in `raw`";
                self.sink
                    .error(fields.key("reject").unwrap_or(node.place), message);
            }
            return Some(Action::Reject(Some(with)));
        }
        let text = self.scalar(node, "`action`")?;
        let action = match text {
            "accept" => Action::Accept,
            "drop" => Action::Drop,
            "reject" => Action::Reject(None),
            "return" => Action::Return,
            "notrack" => Action::Notrack,
            _ => {
                let known: &[&str] = match stage {
                    Stage::Raw => &["accept", "notrack"],
                    Stage::Chain => &["accept", "drop", "reject", "return"],
                    Stage::Helper => &[],
                };
                self.unknown(node.place, "action", text, known.iter().copied());
                return None;
            }
        };
        match (stage, &action) {
            (Stage::Chain, Action::Notrack) => {
                self.sink
                    .error(node.place, "`notrack` is only possible in `raw`")
                    .help("in a chain, the packet has been tracked already");
            }
            (Stage::Raw, Action::Drop | Action::Reject(_) | Action::Return) => {
                self.sink
                    .error(node.place, format!("`{text}` is not possible in `raw`"))
                    .help("a raw rule has `action: notrack` or `action: accept`");
            }
            _ => {}
        }
        Some(action)
    }

    fn check_reject(&mut self, fields: &Fields<'_>, action: &Action, matches: &Matches) {
        let tcp = matches
            .proto
            .is_some_and(|protos| protos.iter().eq([proto::TCP]));
        if *action == Action::Reject(Some(RejectWith::TcpReset)) && !tcp {
            self.sink
                .error(
                    fields.key("action").unwrap_or(fields.place),
                    "`tcp-reset` needs `proto: tcp`",
                )
                .help("a plain `reject` resets TCP and sends port unreachable for the rest");
        }
    }
}

/// Hash of a rule as it is written: keys, values, their order, but neither layout nor comment.
fn content_hash(node: &Node) -> u64 {
    fn write(node: &Node, out: &mut String) {
        match &node.kind {
            Kind::Null => out.push('~'),
            Kind::Scalar(text) => out.push_str(&format!("{text:?}")),
            Kind::List(items) => {
                out.push('[');
                items.iter().for_each(|item| write(item, out));
                out.push(']');
            }
            Kind::Map(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by(|(a, _), (b, _)| a.text.cmp(&b.text));
                out.push('{');
                for (key, value) in entries.iter().filter(|(key, _)| key.text != "comment") {
                    out.push_str(&format!("{:?}", key.text));
                    write(value, out);
                }
                out.push('}');
            }
        }
    }
    let mut text = String::new();
    write(node, &mut text);
    fnv1a(text.as_bytes())
}
