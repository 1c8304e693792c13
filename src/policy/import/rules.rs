//! Rules in the policy's words, as the front ends yield them and the emitter writes them.
//!
//! Life-cycle and concurrency: as [`super`]; plain values.

use super::Left;
use crate::policy::model::Family;
use std::collections::BTreeMap;

/// What a rule set holds, of what a policy can hold.
#[derive(Debug, Default)]
pub(super) struct RuleSet {
    /// Chains that packets start in, in the order in which they see them.
    pub(super) bases: Vec<Base>,
    /// Chains of rules that drop before all of these.
    pub(super) before: Vec<Base>,
    /// User chains by a key that is unique in the rule set.
    pub(super) chains: BTreeMap<String, UserChain>,
    /// Rules before tracking.
    pub(super) raw: Vec<Item>,
    /// Helper lines.
    pub(super) helpers: Vec<Item>,
    /// Named sets that rules refer to as `$name`.
    pub(super) sets: Vec<(String, Vec<String>)>,
    /// Not taken, and not part of a chain that was.
    pub(super) left: Vec<Left>,
    /// Worth knowing, and not part of a chain.
    pub(super) notes: Vec<Left>,
    /// Whether times of the day are in UTC, and not in local time.
    pub(super) utc: bool,
}

/// A chain that packets start in.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) name: String,
    pub(super) family: Option<Family>,
    /// Whether its end accepts.
    pub(super) accepts: bool,
    pub(super) items: Vec<Item>,
}

/// A chain that is jumped to.
#[derive(Debug, Default)]
pub(super) struct UserChain {
    /// What the policy would like to call it.
    pub(super) name: String,
    pub(super) line: u32,
    pub(super) items: Vec<Item>,
}

/// What stands in a chain.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Rule(Box<Rule>),
    /// A rule that was not taken.
    Left(Left),
    /// A rule that has nothing to do here.
    Note(Left),
}

/// A rule in the policy's words.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) line: u32,
    /// As it stands in the file.
    pub(super) text: String,
    pub(super) name: Option<&'static str>,
    /// What the rule is for, where the policy is for both.
    pub(super) family: Option<Family>,
    pub(super) matches: Matches,
    pub(super) log: Option<Log>,
    /// A value of `mark`.
    pub(super) mark: Option<String>,
    /// The named counter that it feeds.
    pub(super) count: Option<String>,
    pub(super) act: Act,
    pub(super) comment: Option<String>,
    /// What is different from what it was.
    pub(super) notes: Vec<String>,
}

impl Rule {
    pub(super) fn new(line: u32, text: &str, act: Act) -> Self {
        Self {
            line,
            text: text.to_owned(),
            name: None,
            family: None,
            matches: Matches::default(),
            log: None,
            mark: None,
            count: None,
            act,
            comment: None,
            notes: Vec::new(),
        }
    }

    /// Whether it does nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.act == Act::Continue
            && self.log.is_none()
            && self.mark.is_none()
            && self.count.is_none()
    }
}

/// A limit that is exceeded, as a chain: what is within it returns from there, the rest is over it.
/// The rule becomes a jump to that chain, whose key is `key`.
pub(super) fn over(rule: &Rule, limit: String, key: String) -> Result<(Rule, UserChain), Why> {
    if matches!(rule.act, Act::Return | Act::Goto(_)) || rule.matches.get("limit").is_some() {
        return Err("a limit that is exceeded with `return`, `goto` or another limit".into());
    }
    let mut within = Rule::new(rule.line, &rule.text, Act::Return);
    within.matches.one("limit", limit)?;
    let mut beyond = rule.clone();
    beyond.matches = Matches::default();
    if rule.act == Act::Reject("tcp-reset") {
        beyond.matches.one("proto", "tcp")?;
    }
    let chain = UserChain {
        name: format!("over-{}", rule.line),
        line: rule.line,
        items: [within, beyond]
            .map(|rule| Item::Rule(Box::new(rule)))
            .into(),
    };
    let mut jump = rule.clone();
    jump.act = Act::Jump(key);
    (jump.log, jump.mark, jump.count) = (None, None, None);
    Ok((jump, chain))
}

/// A prefix, if there is one.
pub(super) type Log = Option<String>;

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Accept,
    Drop,
    /// The word of its kind.
    Reject(&'static str),
    Return,
    /// Key of the chain.
    Jump(String),
    Goto(String),
    Continue,
    Notrack,
    Helper(String),
}

/// What leaving a rule out does to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Stricter,
    Looser,
    Unclear,
}

impl Effect {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Effect::None => "none",
            Effect::Stricter => "stricter",
            Effect::Looser => "looser",
            Effect::Unclear => "unclear",
        }
    }
}

impl Act {
    pub(super) fn effect(&self) -> Effect {
        match self {
            Act::Accept => Effect::Stricter,
            Act::Drop | Act::Reject(_) => Effect::Looser,
            Act::Continue => Effect::None,
            Act::Return | Act::Jump(_) | Act::Goto(_) | Act::Notrack | Act::Helper(_) => {
                Effect::Unclear
            }
        }
    }
}

/// Why a rule is not among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was not understood, or there is nothing like it.
    NotTaken(String),
    /// Nothing is lost without it.
    Never(String),
}

impl<T: Into<String>> From<T> for Why {
    fn from(text: T) -> Self {
        Why::NotTaken(text.into())
    }
}

/// A match: any of the values, or none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cond {
    pub(super) negated: bool,
    pub(super) values: Vec<String>,
}

/// The matches of a rule, by the policy's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Matches(BTreeMap<&'static str, Cond>);

impl Matches {
    pub(super) fn get(&self, key: &str) -> Option<&Cond> {
        self.0.get(key)
    }

    pub(super) fn put(&mut self, key: &'static str, cond: Cond) {
        self.0.insert(key, cond);
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn one(&mut self, key: &'static str, value: impl Into<String>) -> Result<(), Why> {
        self.add(key, false, vec![value.into()])
    }

    /// Adds a match. Two matches under one key are only possible where one is part of the other.
    pub(super) fn add(
        &mut self,
        key: &'static str,
        negated: bool,
        values: Vec<String>,
    ) -> Result<(), Why> {
        if values.is_empty() {
            return Err(format!("`{key}` lists nothing").into());
        }
        if negated && values.len() > 1 && !NEGATED_LISTS.contains(&key) {
            return Err(format!("a list of several cannot be negated for `{key}`").into());
        }
        let cond = Cond { negated, values };
        let Some(known) = self.0.get_mut(key) else {
            self.0.insert(key, cond);
            return Ok(());
        };
        if *known == cond {
            return Ok(());
        }
        // values of these are single points, so that lists can be compared
        if !["proto", "family", "ct", "ct-direction"].contains(&key) || known.negated || negated {
            return Err(format!("two different matches on `{key}`").into());
        }
        known.values.retain(|value| cond.values.contains(value));
        if known.values.is_empty() {
            return Err(Why::Never(format!(
                "it never matches: its matches on `{key}` exclude each other"
            )));
        }
        Ok(())
    }

    /// The only protocol that matches, if there is one.
    pub(super) fn proto(&self) -> Option<&str> {
        match self.0.get("proto") {
            Some(Cond {
                negated: false,
                values,
            }) if values.len() == 1 => Some(&values[0]),
            _ => None,
        }
    }
}

/// Keys whose lists can be negated: by a set, or by listing every other port.
const NEGATED_LISTS: [&str; 6] = ["iif", "oif", "saddr", "daddr", "sport", "dport"];

/// Longest text of a line that is shown.
const SHOWN: usize = 240;

/// `text` without what neither a terminal nor YAML would take.
pub(super) fn plain(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(
                c,
                '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}'..='\u{ffff}'
            )
    };
    let text: String = text
        .trim()
        .chars()
        .map(|c| if odd(c) { ' ' } else { c })
        .collect();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// Something of line `line` that was not taken.
pub(super) fn left(line: u32, text: &str, why: impl Into<String>, effect: Effect) -> Left {
    Left {
        line,
        text: plain(text),
        why: plain(&why.into()),
        effect: effect.name(),
    }
}

impl Item {
    /// A rule that was not taken for the reason `why`.
    pub(super) fn without(line: u32, text: &str, why: Why, effect: Effect) -> Self {
        match why {
            Why::NotTaken(why) => Item::Left(left(line, text, why, effect)),
            Why::Never(why) => Item::Note(left(line, text, why, Effect::None)),
        }
    }
}
