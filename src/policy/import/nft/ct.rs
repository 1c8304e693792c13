//! Reads what rules of nftables ask of connection tracking, and set there.
//!
//! Life-cycle and concurrency: as [`super`].

use super::expr::{self, Read, Words};
use super::rule::{Reader, Value};
use crate::policy::import::rules::{Act, Why};
use crate::policy::import::words;
use crate::policy::names::parse_number;

impl Reader<'_, '_> {
    pub(super) fn ct(&mut self) -> Read {
        let field = self.words.need()?.text.as_str();
        let set = self.words.take("set");
        match (field, set) {
            ("state", false) => self.state(),
            ("direction", false) => self.values("ct-direction", |text| Ok(text.to_owned())),
            ("status", false) => {
                let negated = self.words.take("!");
                if self.words.peek("!=") || self.words.peek("==") || self.words.peek("{") {
                    return Err("the status as a whole is not matched here".into());
                }
                let bits = self.words.list(&[",", "|"])?;
                // nothing is translated here
                let bits: Vec<_> = bits
                    .into_iter()
                    .filter(|bit| !["snat", "dnat"].contains(&bit.as_str()))
                    .collect();
                if bits.is_empty() && !negated {
                    return Err(Why::Never(
                        "it never matches: nothing is translated here".into(),
                    ));
                }
                self.rule.matches.add("ct-status", negated, bits)
            }
            ("mark", false) => {
                let masked = self.words.take_any(&["&", "and"]);
                if !masked {
                    return self.values("ct-mark", |text| Ok(text.to_owned()));
                }
                let mask = &self.words.need()?.text;
                let negated = self.words.take("!=");
                if !negated && !self.words.take("==") {
                    return Err("the mark is masked, and not compared".into());
                }
                let value = &self.words.need()?.text;
                self.rule
                    .matches
                    .add("ct-mark", negated, vec![format!("{value}/{mask}")])
            }
            ("mark", true) => self.set_mark(),
            ("helper", false) => self.values("ct-helper", |text| Ok(text.to_owned())),
            ("helper", true) => {
                let name = &self.words.need()?.text;
                let helper = self.scope.helpers.get(name);
                let (kind, proto) = helper.ok_or_else(|| format!("there is no helper `{name}`"))?;
                self.rule.matches.one("proto", proto.as_str())?;
                self.rule.act = Act::Helper(kind.clone());
                Ok(())
            }
            ("zone", false) => self.values("ct-zone", |text| words::numbers(text, '-')),
            ("count", false) => {
                let over = if self.words.take("over") { "over " } else { "" };
                let count = &self.words.need()?.text;
                self.rule
                    .matches
                    .one("connlimit", format!("{over}{count} per rule"))
            }
            _ => Err(format!("`ct {field}` is not known here").into()),
        }
    }

    /// Reads `ct mark set 1` and `ct mark set ct mark & 0xffffff00 | 1`.
    pub(super) fn set_mark(&mut self) -> Read {
        let number = |words: &mut Words<'_>| -> Read<u32> {
            let text = &words.need()?.text;
            let number = parse_number(text).and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| format!("`{text}` is not a mark").into())
        };
        if !self.words.take("ct") {
            let value = number(&mut self.words)?;
            self.rule.mark = Some(format!("{value:#x}"));
            return Ok(());
        }
        self.words.take("mark");
        let keep = if self.words.take_any(&["&", "and"]) {
            number(&mut self.words)?
        } else {
            u32::MAX
        };
        let value = if self.words.take_any(&["|", "or"]) {
            number(&mut self.words)?
        } else {
            0
        };
        self.rule.mark = Some(format!("{value:#x}/{:#x}", !keep | value));
        Ok(())
    }

    pub(super) fn state(&mut self) -> Read {
        let known: Value = |text| Ok(text.to_owned());
        if ["{", "vmap", "@"].iter().any(|word| self.words.peek(word)) {
            return self.values("ct", known);
        }
        let (negated, none) = (self.words.take("!="), self.words.take("!"));
        if negated && self.words.peek("{") {
            let block = self.words.block()?;
            let others = words::other_states(&expr::elements(block)?);
            return self.rule.matches.add("ct", false, others);
        }
        self.words.take("==");
        let states = self.words.list(&[",", "|"])?;
        if negated && states.len() > 1 {
            // nft compares with all of these bits together, which no packet has
            let note = "`!=` with several states matches every packet in nftables; write `!= { ... }` for none of them";
            self.rule.notes.push(note.into());
            return Ok(());
        }
        let states = if negated || none {
            words::other_states(&states)
        } else {
            states
        };
        self.rule.matches.add("ct", false, states)
    }
}
