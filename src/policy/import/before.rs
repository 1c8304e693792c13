//! Rules before tracking: those that say what is tracked stay there, those that drop go before all
//! others of `forward`. With what they can know about a packet it makes no difference there.
//!
//! Life-cycle and concurrency: as [`super`].

use super::Hook;
use super::rules::{Act, Base, Item, Rule, RuleSet, Why};
use crate::policy::model::Family;

/// The rules before tracking of one table.
#[derive(Debug, Default)]
pub(super) struct Before {
    /// An earlier rule let packets out of the table: they do not come to a later one.
    pub(super) accepted: bool,
    drops: Vec<Item>,
}

impl Before {
    /// Puts a rule where it belongs; `output` if it is for what the host sends.
    pub(super) fn place(&mut self, set: &mut RuleSet, mut rule: Rule, output: bool, hook: Hook) {
        if output && hook == Hook::Forward {
            rule.notes
                .push("for what the host itself sent; here for what passes".into());
        }
        let refuse =
            |why: &str| Item::without(rule.line, &rule.text, Why::from(why), rule.act.effect());
        match rule.act {
            _ if rule.log.is_some() => set.raw.push(refuse("nothing is logged before tracking")),
            Act::Accept | Act::Return => {
                rule.act = Act::Accept;
                self.accepted = true;
                set.raw.push(Item::Rule(Box::new(rule)));
            }
            Act::Notrack => set.raw.push(Item::Rule(Box::new(rule))),
            Act::Helper(_) if self.accepted => {
                set.helpers
                    .push(refuse("an earlier rule before tracking accepts"));
            }
            Act::Helper(_) => set.helpers.push(Item::Rule(Box::new(rule))),
            Act::Drop if self.accepted => {
                set.raw
                    .push(refuse("an earlier rule before tracking accepts"));
            }
            Act::Drop => self.drops.push(Item::Rule(Box::new(rule))),
            _ => set.raw.push(refuse("not possible before tracking")),
        }
    }

    /// The rules that drop, as a chain before all others.
    pub(super) fn base(self, name: &str, family: Option<Family>) -> Option<Base> {
        (!self.drops.is_empty()).then(|| Base {
            name: name.to_owned(),
            family,
            accepts: true,
            items: self.drops,
        })
    }
}
