//! Rule sets of nftables and iptables into policies: text in, the text of a policy out, with a list
//! of what could not be taken.
//!
//! A front end for each language (`nft`, `iptables`) puts rules into the policy's own words
//! (`rules`); `assemble` lays chains out as a policy has them; `emit` writes YAML. A construct that
//! is not understood leaves its rule out, never a part of it: a comment stands in its place, and
//! [`Left`] says whether the policy now lets more pass. What comes out always passes
//! [`super::parse`]: a rule that the checker refuses is left out with the checker's words.
//!
//! Life-cycle: one call. Concurrency: none; pure.

mod assemble;
mod before;
mod emit;
mod iptables;
mod nft;
mod ports;
mod rules;
#[cfg(test)]
mod tests;
mod times;
mod words;

use super::diagnostic::Severity;
use rules::{Effect, Item};
use serde::Serialize;

/// The language of a rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `nft list ruleset`, or a file for `nft -f`.
    Nft,
    /// `iptables-save` and `ip6tables-save`.
    IptablesSave,
}

/// Which built-in hook becomes the chain `forward`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// What passes through the box.
    #[default]
    Forward,
    /// What comes to the host, as if the box stood before it.
    Input,
    /// What the host sends.
    Output,
}

impl Hook {
    /// nftables' word.
    pub const fn name(self) -> &'static str {
        match self {
            Hook::Forward => "forward",
            Hook::Input => "input",
            Hook::Output => "output",
        }
    }
}

/// Something of the rule set that is not in the policy, or that means something else there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Left {
    /// Line in the file, counted from 1.
    pub line: u32,
    /// What stands there.
    pub text: String,
    /// Why it was not taken, or what is different.
    pub why: String,
    /// What leaving it out does: `none`, `stricter`, `looser`, `unclear`.
    pub effect: &'static str,
}

impl Left {
    /// Whether the policy without it lets more pass, or may.
    pub fn widens(&self) -> bool {
        [Effect::Looser, Effect::Unclear]
            .iter()
            .any(|effect| effect.name() == self.effect)
    }
}

/// An imported rule set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The policy: YAML that passes [`super::parse`].
    pub policy: String,
    /// Rules in it.
    pub rules: usize,
    /// What was not taken, by line.
    pub left: Vec<Left>,
    /// What was taken and is worth knowing about, by line.
    pub notes: Vec<Left>,
}

/// Largest rule set that is read; of a policy it is [`super::MAX_POLICY`].
pub const MAX_RULE_SET: usize = 64 << 20;

/// Imports the rule set in `text`; `name` is what the policy's head calls it.
pub fn import(name: &str, text: &str, language: Language, hook: Hook) -> Imported {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let read = match language {
        Language::Nft => nft::read(text, hook),
        Language::IptablesSave => iptables::read(text, hook),
    };
    let mut layout = assemble::assemble(read);
    loop {
        let (policy, places) = emit::emit(name, &layout);
        let Err(errors) = super::parse(name, &policy) else {
            let mut left = Vec::new();
            let mut notes = layout.notes.clone();
            layout.items().for_each(|item| match item {
                Item::Left(one) => left.push(one.clone()),
                Item::Note(one) => notes.push(one.clone()),
                Item::Rule(rule) => {
                    let note =
                        |note: &String| rules::left(rule.line, &rule.text, note, Effect::None);
                    notes.extend(rule.notes.iter().map(note));
                }
            });
            left.append(&mut layout.left);
            for list in [&mut left, &mut notes] {
                list.sort();
                list.dedup();
            }
            let rules = layout
                .items()
                .filter(|i| matches!(i, Item::Rule(_)))
                .count();
            return Imported {
                policy,
                rules,
                left,
                notes,
            };
        };
        let wrong = errors.iter().filter(|d| d.severity == Severity::Error);
        let mut found = false;
        for error in wrong {
            let place = places.iter().rev().find(|place| place.line <= error.line);
            found |= place.is_some_and(|place| layout.leave_out(place, &error.message));
        }
        if !found {
            layout.give_up();
        }
    }
}
