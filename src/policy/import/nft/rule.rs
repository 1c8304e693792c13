//! Reads one rule of nftables: matches, statements, the verdict.
//!
//! Life-cycle and concurrency: as [`super`].

use super::expr::{self, Read, Words};
use super::file::Word;
use crate::policy::import::rules::{self, Act, Effect, Item, Rule, RuleSet, Why};
use crate::policy::import::times::Times;
use crate::policy::import::words;
use crate::policy::names::parse_number;
use std::collections::{BTreeMap, BTreeSet};

/// What rules of a table may refer to.
pub(super) struct Scope<'a> {
    pub(super) family: &'a str,
    pub(super) table: &'a str,
    /// User chains.
    pub(super) chains: BTreeSet<&'a str>,
    pub(super) sets: BTreeMap<&'a str, Known<'a>>,
    pub(super) helpers: &'a BTreeMap<String, (String, String)>,
    /// Named counters, and what the policy calls them.
    pub(super) counters: BTreeMap<&'a str, String>,
    /// Lines of the file.
    pub(super) lines: &'a [&'a str],
}

/// A set or a map of the file.
pub(super) enum Known<'a> {
    /// The policy has it, by this name.
    Named(String),
    /// Rules list its elements.
    Words(&'a [Word]),
    /// Of verdicts.
    Map(&'a [Word]),
    /// Why it cannot be used.
    Not(String),
}

impl Scope<'_> {
    /// The key of a user chain.
    pub(super) fn key(&self, chain: &str) -> String {
        format!("{} {} {chain}", self.family, self.table)
    }

    /// How a rule stands in the file.
    pub(super) fn text(&self, rule: &[Word]) -> String {
        let lines = [rule.first(), rule.last()].map(|word| word.map_or(0, |word| word.line));
        let text = self
            .lines
            .get(lines[0].saturating_sub(1) as usize)
            .copied()
            .unwrap_or_default();
        let more = if lines[1] > lines[0] { " ..." } else { "" };
        format!("{}{more}", text.trim())
    }
}

/// Where a chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// At a hook before tracking.
    Raw,
    /// At a hook behind it.
    Base,
    /// Where others jump to.
    User,
}

/// What leaving a rule out does, by its verdict alone.
pub(super) fn effect(rule: &[Word]) -> Effect {
    let has = |texts: &[&str]| {
        rule.iter()
            .any(|word| texts.iter().any(|text| word.is(text)))
    };
    if has(&["drop", "reject"]) {
        Effect::Looser
    } else if has(&["jump", "goto", "return", "notrack", "queue", "vmap", "set"]) {
        Effect::Unclear
    } else if has(&["accept"]) {
        Effect::Stricter
    } else {
        Effect::None
    }
}

/// What a rule of a chain at `stage` becomes.
pub(super) fn items(
    scope: &Scope<'_>,
    words: &[Word],
    set: &mut RuleSet,
    stage: Stage,
) -> Vec<Item> {
    let line = super::line_of(words);
    let text = scope.text(words);
    let mut reader = Reader {
        scope,
        words: Words::new(words),
        rule: Rule::new(line, &text, Act::Continue),
        verdict: false,
        map: None,
        icmp: None,
        over: None,
        times: Times::default(),
        stage,
    };
    reader.rule.family = super::family(scope.family);
    match reader.read() {
        Ok(()) => match reader.finish(set) {
            Ok(rules) => rules
                .into_iter()
                .map(|rule| Item::Rule(Box::new(rule)))
                .collect(),
            Err(why) => vec![Item::without(line, &text, why, effect(words))],
        },
        Err(why) => vec![Item::without(line, &text, why, effect(words))],
    }
}

pub(super) struct Reader<'a, 'w> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) words: Words<'w>,
    pub(super) rule: Rule,
    pub(super) verdict: bool,
    /// What a map of verdicts says, by the values of this key.
    pub(super) map: Option<(&'static str, Groups)>,
    /// Types and codes of ICMP, or of ICMPv6.
    icmp: Option<Icmp>,
    /// A rate above which the rule matches.
    pub(super) over: Option<String>,
    /// When it matches.
    pub(super) times: Times,
    pub(super) stage: Stage,
}

#[derive(Default)]
struct Icmp {
    v6: bool,
    types: Option<(bool, Vec<String>)>,
    codes: Option<Vec<String>>,
}

/// What a map of verdicts says: values, and what becomes of packets that have one of them.
pub(super) type Groups = Vec<(Vec<String>, Act)>;

/// Reads a value of a match.
pub(super) type Value = fn(&str) -> Read<String>;

impl Reader<'_, '_> {
    fn read(&mut self) -> Read {
        while let Some(word) = self.words.next() {
            if word.quoted {
                return Err(format!("\"{}\" is not understood here", word.text).into());
            }
            if self.verdict && !word.is("comment") {
                return Err(format!("`{}` behind the verdict", word.text).into());
            }
            if self.statement(&word.text)? {
                continue;
            }
            if self.rule.log.is_some() || self.rule.mark.is_some() {
                return Err("it logs or marks before it matches".into());
            }
            self.uncount();
            let limited = self.over.is_some() || self.rule.matches.get("limit").is_some();
            self.matching(&word.text)?;
            if limited {
                let note = "`limit` counts only packets that all of the rule matches";
                self.rule.notes.push(note.into());
            }
        }
        Ok(())
    }

    /// Reads a statement, if `word` begins one.
    fn statement(&mut self, word: &str) -> Read<bool> {
        match word {
            "accept" => self.act(Act::Accept),
            "drop" => self.act(Act::Drop),
            "return" => self.act(Act::Return),
            "notrack" if self.stage == Stage::Raw => self.act(Act::Notrack),
            "notrack" => return Err("behind tracking, it does nothing".into()),
            "continue" => self.verdict = true,
            "jump" | "goto" => {
                let to = &self.words.need()?.text;
                let act = self.verdict(&[word.to_owned(), to.clone()])?;
                self.act(act);
            }
            "reject" => self.reject()?,
            "counter" => {
                if self.words.take("packets") {
                    self.words.next();
                    self.words.take("bytes");
                    self.words.next();
                } else if self.words.take("name") {
                    self.count()?;
                }
            }
            "log" => self.log()?,
            "limit" => self.limit()?,
            "comment" => {
                let text = self.words.need()?.text.clone();
                self.rule.comment = Some(text).filter(|text| !text.is_empty());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn act(&mut self, act: Act) {
        self.rule.act = act;
        self.verdict = true;
    }

    /// Reads a verdict of a map, or a jump.
    fn verdict(&self, words: &[String]) -> Read<Act> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(match words[..] {
            ["accept"] => Act::Accept,
            ["drop"] => Act::Drop,
            ["return"] => Act::Return,
            ["jump" | "goto", to] if !self.scope.chains.contains(to) => {
                return Err(format!("there is no chain `{to}`").into());
            }
            ["jump", to] => Act::Jump(self.scope.key(to)),
            ["goto", to] => Act::Goto(self.scope.key(to)),
            _ => return Err(format!("verdict `{}` is not known here", words.join(" ")).into()),
        })
    }

    /// Reads a match.
    fn matching(&mut self, word: &str) -> Read {
        match word {
            "meta" => {
                let key = self.words.need()?.text.as_str();
                self.meta(key)
            }
            "iif" | "iifname" | "oif" | "oifname" => self.meta(word),
            "ip" | "ip6" => self.network(word == "ip6"),
            "tcp" | "udp" | "udplite" | "sctp" | "th" => self.transport(word),
            "icmp" | "icmpv6" => self.icmp(word == "icmpv6"),
            "ct" => self.ct(),
            "vlan" => match self.words.need()?.text.as_str() {
                "id" => self.values("vlan", |text| words::numbers(text, '-')),
                other => Err(format!("`vlan {other}` is not matched here").into()),
            },
            "ether" if self.words.take("type") => self.ether(),
            _ => Err(format!("there is nothing like `{word}` here").into()),
        }
    }

    fn ether(&mut self) -> Read {
        self.values("family", |text| match text {
            "ip" | "ipv4" => Ok("ipv4".into()),
            "ip6" | "ipv6" => Ok("ipv6".into()),
            _ => Err(
                "frames that are not IP pass where `ethertypes` of the bridge lists them".into(),
            ),
        })
    }

    fn meta(&mut self, key: &str) -> Read {
        let name: Value = |text| Ok(text.to_owned());
        let index: Value = |text| match parse_number(text) {
            None => Ok(text.to_owned()),
            Some(_) => Err("an interface by its number".into()),
        };
        match key {
            "iifname" => self.values("iif", name),
            "oifname" => self.values("oif", name),
            "iif" => self.values("iif", index),
            "oif" => self.values("oif", index),
            "l4proto" => self.values("proto", words::proto),
            "nfproto" | "protocol" => self.ether(),
            "length" => self.values("length", |text| words::numbers(text, '-')),
            "hour" => self.hours(),
            "day" => self.days(),
            "mark" => Err("packets have no mark here; flows have (`ct mark`)".into()),
            _ => Err(format!("`meta {key}` is not matched here").into()),
        }
    }

    fn network(&mut self, v6: bool) -> Read {
        let field = self.words.need()?.text.as_str();
        match field {
            "saddr" => return self.values("saddr", words::addr),
            "daddr" => return self.values("daddr", words::addr),
            _ => self.family(if v6 { "ipv6" } else { "ipv4" })?,
        }
        match (field, v6) {
            ("protocol", false) => self.values("proto", words::proto),
            ("nexthdr", true) => {
                let note = "`proto` is that behind all extension headers";
                self.rule.notes.push(note.into());
                self.values("proto", words::proto)
            }
            ("dscp", _) => self.values("dscp", words::dscp),
            ("length", false) => self.values("length", |text| words::numbers(text, '-')),
            _ => Err(format!("`{field}` is not matched here").into()),
        }
    }

    /// Says that only one family matches, where the table is for both.
    pub(super) fn family(&mut self, word: &str) -> Read {
        let own = match self.scope.family {
            "ip" => "ipv4",
            "ip6" => "ipv6",
            _ => return self.rule.matches.one("family", word),
        };
        if own == word {
            return Ok(());
        }
        Err(Why::Never(
            "it never matches: its table is for the other family".into(),
        ))
    }

    fn transport(&mut self, proto: &str) -> Read {
        if proto != "th" {
            self.rule.matches.one("proto", proto)?;
        }
        match self.words.need()?.text.as_str() {
            "sport" => self.values("sport", |text| words::ports(text, '-')),
            "dport" => self.values("dport", |text| words::ports(text, '-')),
            "flags" if proto == "tcp" => {
                let (negated, flags) = expr::flags(&mut self.words)?;
                self.rule.matches.add("tcp-flags", negated, flags)
            }
            field => Err(format!("`{proto} {field}` is not matched here").into()),
        }
    }

    fn icmp(&mut self, v6: bool) -> Read {
        self.rule
            .matches
            .one("proto", if v6 { "icmpv6" } else { "icmp" })?;
        self.family(if v6 { "ipv6" } else { "ipv4" })?;
        let field = self.words.need()?.text.as_str();
        if field == "type" && self.words.peek("vmap") {
            return self.values(
                "icmp-type",
                if v6 {
                    |text| words::icmp(text, true)
                } else {
                    |text| words::icmp(text, false)
                },
            );
        }
        let negated = self.words.take("!=");
        let values = self.plain()?;
        let icmp = self.icmp.get_or_insert_default();
        icmp.v6 = v6;
        match field {
            "type" => {
                let types = values
                    .iter()
                    .map(|text| words::icmp(text, v6))
                    .collect::<Result<_, _>>()?;
                icmp.types = Some((negated, types));
            }
            "code" if !negated => {
                let code = |text: &String| words::icmp_code(text, v6);
                icmp.codes = Some(values.iter().map(code).collect::<Result<_, _>>()?);
            }
            _ => return Err(format!("`icmp {field}` is not matched here").into()),
        }
        Ok(())
    }

    /// Reads what a match asks for: one value, a list, a set, a comparison, a map of verdicts.
    pub(super) fn values(&mut self, key: &'static str, value: Value) -> Read {
        if self.words.take("vmap") {
            return self.map(key, value);
        }
        for sign in ["<", "<=", ">", ">="] {
            if self.words.take(sign) {
                if !["sport", "dport", "length"].contains(&key) {
                    return Err(format!("`{key}` is compared with `{sign}`").into());
                }
                let range = expr::compared(sign, &self.words.need()?.text)?;
                return self.rule.matches.add(key, false, vec![range]);
            }
        }
        let negated = self.words.take("!=");
        self.words.take("==");
        let values = self.plain()?;
        if self.words.peek(".") {
            return Err("matches on several fields together".into());
        }
        let read = |text: &String| {
            if text.starts_with('$') {
                Ok(text.clone())
            } else {
                value(text)
            }
        };
        let values = values.iter().map(read).collect::<Result<_, _>>()?;
        self.rule.matches.add(key, negated, values)
    }

    /// A value, the elements of a list, or `$name` of a set.
    pub(super) fn plain(&mut self) -> Read<Vec<String>> {
        if self.words.peek("{") {
            return expr::elements(self.words.block()?);
        }
        let word = self.words.need()?;
        let Some(name) = word.text.strip_prefix('@').filter(|_| !word.quoted) else {
            if word.text.starts_with('$') || !word.quoted && "&|^!()".contains(word.text.as_str()) {
                return Err(format!("`{}` is not understood here", word.text).into());
            }
            if self.words.take("-") {
                return Ok(vec![format!("{}-{}", word.text, self.words.need()?.text)]);
            }
            return Ok(vec![word.text.clone()]);
        };
        match self.scope.sets.get(name) {
            Some(Known::Named(name)) => Ok(vec![format!("${name}")]),
            Some(Known::Words(elements)) => expr::elements(elements),
            Some(Known::Map(_)) => Err(format!("`{name}` is a map").into()),
            Some(Known::Not(why)) => Err(why.as_str().into()),
            None => Err(format!("there is no set `{name}`").into()),
        }
    }

    fn map(&mut self, key: &'static str, value: Value) -> Read {
        let entries = if self.words.peek("{") {
            expr::verdicts(self.words.block()?)?
        } else {
            let name = self.words.need()?.text.trim_start_matches('@');
            match self.scope.sets.get(name) {
                Some(Known::Map(words)) => expr::verdicts(words)?,
                Some(Known::Not(why)) => return Err(why.as_str().into()),
                _ => return Err(format!("there is no map `{name}`").into()),
            }
        };
        let mut groups = Groups::new();
        for (text, verdict) in entries {
            let (text, act) = (value(&text)?, self.verdict(&verdict)?);
            // no packet has two of the keys, so that their order is free
            match groups.iter_mut().find(|(_, known)| *known == act) {
                Some((values, _)) => values.push(text),
                None => groups.push((vec![text], act)),
            }
        }
        self.map = Some((key, groups));
        self.verdict = true;
        Ok(())
    }

    fn finish(&mut self, set: &mut RuleSet) -> Read<Vec<Rule>> {
        if let Some(icmp) = self.icmp.take() {
            let (negated, types) = icmp.types.ok_or("`icmp code` without a type")?;
            let types = match icmp.codes {
                Some(_) if negated => return Err("`icmp code` with `type !=`".into()),
                Some(codes) => types
                    .iter()
                    .flat_map(|ty| codes.iter().map(move |code| format!("{ty}/{code}")))
                    .collect(),
                None => types,
            };
            self.rule.matches.add("icmp-type", negated, types)?;
        }
        let rule = &mut self.rule;
        if let Some(time) = self.times.value() {
            rule.matches.one("time", time)?;
            let note = "by the local time of this box, with daylight saving; nftables is an hour off when clocks change, until its rules are loaded again";
            rule.notes.push(note.into());
        }
        if let Act::Helper(_) = rule.act {
            return self.helper(set);
        }
        if let Some((key, groups)) = self.map.take() {
            let counted = ["limit", "connlimit"]
                .iter()
                .any(|key| rule.matches.get(key).is_some());
            if counted || self.over.is_some() || rule.log.is_some() || rule.mark.is_some() {
                return Err("a map of verdicts behind a limit, a log or a mark".into());
            }
            let each = groups.into_iter().map(|(values, act)| {
                let mut rule = rule.clone();
                rule.act = act;
                rule.matches.add(key, false, values).map(|()| rule)
            });
            return each.collect();
        }
        if rule.is_idle() {
            return Err(Why::Never(
                "it has no verdict: nothing but its count is lost".into(),
            ));
        }
        if let Some(limit) = self.over.take() {
            let key = self.scope.key(&format!(" over {}", set.chains.len()));
            let (jump, chain) = rules::over(rule, limit, key.clone())?;
            set.chains.insert(key, chain);
            return Ok(vec![jump]);
        }
        Ok(vec![rule.clone()])
    }

    /// A helper is for flows that begin; the line that attaches it has no states.
    fn helper(&mut self, set: &mut RuleSet) -> Read<Vec<Rule>> {
        let rule = &mut self.rule;
        match self.stage {
            Stage::Raw => return Ok(vec![rule.clone()]),
            Stage::Base => {}
            Stage::User => return Err("a helper in a chain that only some packets come to".into()),
        }
        if self.verdict
            || self.map.is_some()
            || self.over.is_some()
            || rule.log.is_some()
            || rule.mark.is_some()
            || rule.count.is_some()
        {
            return Err("a helper beside another statement".into());
        }
        if rule
            .matches
            .get("ct")
            .is_some_and(|cond| cond.values == ["new"])
        {
            rule.matches.remove("ct");
        }
        set.helpers.push(Item::Rule(Box::new(rule.clone())));
        Ok(Vec::new())
    }
}
