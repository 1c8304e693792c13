//! Reads statements of nftables beside verdicts: reject, log, limit.
//!
//! Life-cycle and concurrency: as [`super`].

use super::expr::Read;
use super::rule::{Reader, Stage};
use crate::policy::import::iptables::log_prefix;
use crate::policy::import::rules::Act;
use crate::policy::import::words;
use crate::policy::names::parse_number;

impl Reader<'_, '_> {
    pub(super) fn reject(&mut self) -> Read {
        // for TCP too (nft(8), "REJECT STATEMENT")
        self.act(Act::Reject("icmp-port-unreachable"));
        if !self.words.take("with") {
            return Ok(());
        }
        let how = self.words.need()?.text.as_str();
        if how == "tcp" {
            self.words.take("reset");
            self.rule.act = Act::Reject("tcp-reset");
            return self.rule.matches.one("proto", "tcp");
        }
        self.words.take("type");
        let kind = &self.words.need()?.text;
        match how {
            "icmp" => self.family("ipv4")?,
            "icmpv6" => self.family("ipv6")?,
            "icmpx" => {}
            _ => return Err(format!("reject with `{how}` is not known").into()),
        }
        let (kind, note) = words::reject(kind)?;
        self.rule.act = Act::Reject(kind);
        self.rule.notes.extend(note);
        Ok(())
    }

    pub(super) fn log(&mut self) -> Read {
        self.rule.log = Some(None);
        loop {
            if self.words.take("prefix") {
                let prefix = self.words.need()?.text.trim_end();
                self.rule.log = Some(log_prefix(prefix));
            } else if self.words.take("flags") {
                self.words.list(&[","])?;
                let detail = ["sequence", "options"];
                if detail.iter().any(|word| self.words.peek(word)) {
                    self.words.list(&[","])?;
                }
            } else if self
                .words
                .take_any(&["level", "group", "snaplen", "queue-threshold"])
            {
                self.words.need()?;
            } else {
                return Ok(());
            }
        }
    }

    /// Reads the name of a counter.
    pub(super) fn count(&mut self) -> Read {
        let name = &self.words.need()?.text;
        let known = self.scope.counters.get(name.as_str());
        let known = known.ok_or_else(|| format!("there is no counter `{name}`"))?;
        if self.rule.count.is_some() {
            return Err("it feeds two counters".into());
        }
        if self.stage == Stage::Raw {
            let note = format!("was also counted by counter {name}");
            self.rule.notes.push(note);
        } else {
            self.rule.count = Some(known.clone());
        }
        Ok(())
    }

    /// A counter counts what comes as far as it, and here what the whole rule matches.
    pub(super) fn uncount(&mut self) {
        if let Some(name) = self.rule.count.take() {
            let note = format!("counter {name} stood before a match, and is not fed by this rule");
            self.rule.notes.push(note);
        }
    }

    pub(super) fn limit(&mut self) -> Read {
        self.uncount();
        if !self.words.take("rate") {
            return Err("limits that are objects are not known here".into());
        }
        let over = self.words.take("over");
        let rate = &self.words.need()?.text;
        let units = ["second", "minute", "hour", "day"];
        let known = rate
            .split_once('/')
            .filter(|(count, unit)| parse_number(count).is_some() && units.contains(unit));
        if known.is_none() {
            return Err("limits are of packets here, by second, minute, hour or day".into());
        }
        let mut burst = "5";
        if self.words.take("burst") {
            burst = &self.words.need()?.text;
            self.words.take("packets");
        }
        let limit = format!("{rate} burst {burst}");
        if over {
            self.over = Some(limit);
            return Ok(());
        }
        self.rule.matches.one("limit", limit)
    }
}
