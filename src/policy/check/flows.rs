//! Reads what rules ask of flows and do to them: `ct-mark`, `ct-status`, `connlimit`, `mark`.
//!
//! Life-cycle and concurrency: as `check`.

use super::{Checker, Fields};
use crate::conntrack::types::CtState;
use crate::policy::MAX_CONNLIMITS;
use crate::policy::model::{
    ConnLimit, MarkMatch, MarkValue, Matches, Per, StatusMatch, flow_status,
};
use crate::policy::names::{self, names, parse_number};
use crate::policy::yaml::Node;

/// Keys of matches that only a packet with a flow can pass.
pub(in crate::policy) const OF_FLOWS: [&str; 5] = [
    "ct-direction",
    "ct-mark",
    "ct-status",
    "ct-helper",
    "connlimit",
];

/// Words of `ct-status`.
pub(in crate::policy) const STATUS: [(&str, u8); 4] = [
    ("expected", flow_status::EXPECTED),
    ("seen-reply", flow_status::SEEN_REPLY),
    ("assured", flow_status::ASSURED),
    ("confirmed", flow_status::CONFIRMED),
];

/// Words of nftables' `ct status` for which there is nothing here.
const STATUS_LATER: [&str; 3] = ["snat", "dnat", "dying"];

/// Largest number in a `connlimit`.
const MAX_COUNT: u64 = 10_000_000;

impl Checker<'_> {
    pub(super) fn marks(&mut self, node: &Node) -> Option<MarkMatch> {
        let values = self.values(node, "ct-mark")?;
        let any = self.each(&values, |this, node, text| {
            let mark = this.mark_value(node, text)?;
            if mark.value & !mark.mask != 0 {
                let message = "`ct-mark` asks for a bit that is not in its mask, so never matches";
                this.sink.error(node.place, message);
                return None;
            }
            Some(mark)
        })?;
        Some(MarkMatch {
            any,
            negated: values.negated,
        })
    }

    /// Reads what `mark` sets.
    pub(super) fn set_mark(&mut self, node: &Node) -> Option<MarkValue> {
        let text = self.scalar(node, "`mark`")?;
        let mark = self.mark_value(node, text)?;
        if mark.value & !mark.mask != 0 {
            self.sink
                .warn(node.place, "`mark` sets a bit that is not in its mask")
                .help("the bits of the mask are cleared, then those of the value set");
        }
        Some(mark)
    }

    /// Reads `5`, `0x10` or `0x10/0xff`.
    fn mark_value(&mut self, node: &Node, text: &str) -> Option<MarkValue> {
        let (value, mask) = match text.split_once('/') {
            Some((value, mask)) => (value, Some(mask)),
            None => (text, None),
        };
        let mut number = |text: &str| {
            let Some(number) = parse_number(text.trim()) else {
                self.sink
                    .error(node.place, format!("`{text}` is not a mark"))
                    .help("write 5, 0x10 or \"0x10/0xff\" (value and mask)");
                return None;
            };
            let small = u32::try_from(number).ok();
            if small.is_none() {
                let message = format!("mark `{text}` is not from 0 to 0xffffffff");
                self.sink.error(node.place, message);
            }
            small
        };
        let value = number(value);
        let mask = mask.map_or(Some(u32::MAX), number);
        let (value, mask) = (value?, mask?);
        if mask == 0 {
            self.sink
                .error(node.place, "a mask of 0 leaves nothing to look at");
            return None;
        }
        Some(MarkValue { value, mask })
    }

    pub(super) fn statuses(&mut self, node: &Node) -> Option<StatusMatch> {
        let values = self.values(node, "ct-status")?;
        let bits = self.each(&values, |this, node, text| {
            let bit = names::number(&STATUS, text);
            if STATUS_LATER.contains(&text) {
                let message = format!("status `{text}` is not supported in this version");
                this.sink.error(node.place, message);
            } else if bit.is_none() {
                this.unknown(node.place, "status", text, names(&STATUS));
            }
            bit
        })?;
        Some(StatusMatch {
            mask: bits.into_iter().fold(0, |mask, bit| mask | bit),
            negated: values.negated,
        })
    }

    pub(super) fn connlimit(&mut self, node: &Node) -> Option<ConnLimit> {
        let text = self.scalar(node, "`connlimit`")?;
        let mut words: Vec<_> = text.split_whitespace().collect();
        let over = words.first() == Some(&"over");
        if over {
            words.remove(0);
        }
        let (count, per) = match words[..] {
            [count] => (count, "source"),
            [count, "per", per] => (count, per),
            _ => return self.bad_connlimit(node, text),
        };
        let Some(count) = parse_number(count) else {
            return self.bad_connlimit(node, text);
        };
        let per = self.per(node, "connlimit", per);
        if !(1..=MAX_COUNT).contains(&count) {
            let message = format!("a `connlimit` is from 1 to {MAX_COUNT} flows, not {count}");
            self.sink.error(node.place, message);
            return None;
        }
        self.connlimits += 1;
        if self.connlimits == MAX_CONNLIMITS + 1 {
            let message = format!("more than {MAX_CONNLIMITS} rules with `connlimit`");
            self.sink.error(node.place, message);
        }
        Some(ConnLimit {
            count: count as u32,
            over,
            per: per?,
        })
    }

    /// Reads what a `connlimit` or `limit` counts by: `source/24,64`, `zone`, …
    pub(super) fn per(&mut self, node: &Node, key: &str, text: &str) -> Option<Per> {
        let (word, prefixes) = match text.split_once('/') {
            Some((word, prefixes)) => (word, Some(prefixes)),
            None => (text, None),
        };
        let (v4, v6) = match prefixes {
            Some(prefixes) => self.prefixes(node, prefixes)?,
            None => (32, 128),
        };
        let words = [
            ("source", Per::Source { v4, v6 }),
            ("destination", Per::Destination { v4, v6 }),
            ("zone", Per::Zone),
            ("rule", Per::Rule),
        ];
        let per = names::number(&words, word);
        match per {
            None => self.unknown(node.place, &format!("unit of `{key}`"), word, names(&words)),
            Some(Per::Zone | Per::Rule) if prefixes.is_some() => {
                let message = format!("`{word}` has no prefix length");
                self.sink.error(node.place, message);
                return None;
            }
            Some(_) => {}
        }
        per
    }

    /// Reads `24`, for IPv4, or `24,64`, for IPv4 and IPv6.
    fn prefixes(&mut self, node: &Node, text: &str) -> Option<(u8, u8)> {
        let (v4, v6) = match text.split_once(',') {
            Some((v4, v6)) => (v4, v6),
            None => (text, "128"),
        };
        let length = |text: &str, max: u64| parse_number(text.trim()).filter(|n| *n <= max);
        let (Some(v4), Some(v6)) = (length(v4, 32), length(v6, 128)) else {
            self.sink
                .error(node.place, format!("`/{text}` is not a prefix length"))
                .help("write /24 for IPv4, or /24,64 for IPv4 and IPv6");
            return None;
        };
        Some((v4 as u8, v6 as u8))
    }

    fn bad_connlimit<T>(&mut self, node: &Node, text: &str) -> Option<T> {
        self.sink
            .error(node.place, format!("`{text}` is not a connlimit"))
            .help(
                "write 20, \"20 per source/24\", \"over 20 per destination\", \"1000 per zone\" or \
                 \"5000 per rule\"",
            );
        None
    }

    /// Warns about rules that ask of a flow what only packets without one can give.
    pub(super) fn flows_are_there(&mut self, fields: &Fields<'_>, m: &Matches) {
        let starts = CtState::New.bit() | CtState::Related.bit();
        if let Some(place) = fields.key("timeout")
            && m.ct.is_some_and(|states| states & starts == 0)
        {
            let message = "`timeout` does nothing here: such a packet starts no flow";
            self.sink.warn(place, message);
        }
        let without = CtState::Invalid.bit() | CtState::Untracked.bit();
        if m.ct.is_none_or(|states| states & !without != 0) {
            return;
        }
        for key in OF_FLOWS {
            if let Some(place) = fields.key(key) {
                let message = "this rule never matches: such a packet belongs to no flow";
                self.sink.warn(place, message);
            }
        }
        if let Some(place) = fields.key("mark") {
            let message = "`mark` does nothing here: such a packet belongs to no flow";
            self.sink.warn(place, message);
        }
    }
}
