//! Reads the matches on header fields and tracking states whose values have names, and `limit`.
//!
//! Life-cycle and concurrency: as `check`.

use super::Checker;
use crate::conntrack::types::{CtState, proto};
use crate::policy::MAX_KEYED_LIMITS;
use crate::policy::model::{Family, FlagSet, IcmpMatch, IcmpType, Limit, Matches, Per, ProtoSet};
use crate::policy::names::{self, names, parse_number};
use crate::policy::yaml::Node;

impl Checker<'_> {
    pub(super) fn protos(&mut self, node: &Node) -> Option<ProtoSet> {
        let values = self.values(node, "proto")?;
        let numbers = self.each(&values, |this, node, text| {
            let known = names::number(names::PROTOCOLS, text);
            let number = parse_number(text).and_then(|n| u8::try_from(n).ok());
            if known.or(number).is_none() {
                this.unknown(node.place, "protocol", text, names(names::PROTOCOLS));
            }
            known.or(number)
        })?;
        let mut set = ProtoSet::default();
        numbers.into_iter().for_each(|number| set.insert(number));
        Some(if values.negated {
            set.complement()
        } else {
            set
        })
    }

    pub(super) fn states(&mut self, node: &Node) -> Option<u8> {
        let values = self.values(node, "ct")?;
        let bits = self.each(&values, |this, node, text| {
            let found = CtState::ALL.into_iter().find(|state| state.name() == text);
            if found.is_none() {
                let known = CtState::ALL.map(CtState::name);
                this.unknown(node.place, "state", text, known);
            }
            found.map(CtState::bit)
        })?;
        let mask = bits.into_iter().fold(0, |mask, bit| mask | bit);
        let all = CtState::ALL
            .into_iter()
            .fold(0, |all, state| all | state.bit());
        Some(if values.negated { all & !mask } else { mask })
    }

    pub(super) fn icmp(&mut self, node: &Node, m: &Matches) -> Option<IcmpMatch> {
        let values = self.values(node, "icmp-type")?;
        let wanted = |number: u8, family: Family| {
            m.proto.is_none_or(|protos| protos.contains(number))
                && m.family.is_none_or(|only| only == family)
        };
        let mut versions = Vec::new();
        if wanted(proto::ICMP, Family::Ipv4) {
            versions.push((false, names::ICMP_TYPES));
        }
        if wanted(proto::ICMPV6, Family::Ipv6) {
            versions.push((true, names::ICMPV6_TYPES));
        }
        let types = self.each(&values, |this, node, text| {
            let (name, code) = match text.split_once('/') {
                Some((name, code)) => (name, Some(code)),
                None => (text, None),
            };
            let small = |text: &str| parse_number(text).and_then(|n| u8::try_from(n).ok());
            if let Some(code) = code.filter(|code| small(code).is_none()) {
                this.sink.error(
                    node.place,
                    format!("ICMP code `{code}` is not from 0 to 255"),
                );
                return None;
            }
            let code = code.and_then(small);
            if let Some(ty) = small(name) {
                if versions.len() > 1 {
                    this.sink
                        .error(node.place, "an ICMP type by number needs its protocol")
                        .help("add `proto: icmp` or `proto: icmpv6`");
                    return None;
                }
                return Some(
                    versions
                        .iter()
                        .map(|(v6, _)| IcmpType { v6: *v6, ty, code })
                        .collect(),
                );
            }
            let found: Vec<_> = versions
                .iter()
                .filter_map(|(v6, table)| Some((*v6, names::number(table, name)?)))
                .map(|(v6, ty)| IcmpType { v6, ty, code })
                .collect();
            if found.is_empty() && !versions.is_empty() {
                let known = versions.iter().flat_map(|(_, table)| names(table));
                this.unknown(node.place, "ICMP type", name, known);
                return None;
            }
            Some(found)
        })?;
        let types = types.into_iter().flatten().collect();
        Some(IcmpMatch {
            types,
            negated: values.negated,
        })
    }

    pub(super) fn flags(&mut self, node: &Node) -> Option<FlagSet> {
        let values = self.values(node, "tcp-flags")?;
        let wanted = self.each(&values, Self::flag_match)?;
        let mut set = FlagSet::default();
        let fits = |flags: &u8| wanted.iter().any(|(mask, value)| flags & mask == *value);
        (0..=u8::MAX)
            .filter(fits)
            .for_each(|flags| set.insert(flags));
        Some(if values.negated {
            set.complement()
        } else {
            set
        })
    }

    /// Reads which flags to look at, and which of them must be set.
    fn flag_match(&mut self, node: &Node, text: &str) -> Option<(u8, u8)> {
        if text == "syn" {
            // iptables' --syn: SYN of SYN, RST, ACK, FIN
            return Some((2 | 4 | 16 | 1, 2));
        }
        let Some((mask, value)) = text.split_once('/') else {
            let diagnostic = self.sink.error(
                node.place,
                format!("`tcp-flags` must be syn, \"!syn\" or mask/value, not `{text}`"),
            );
            if text
                .split(',')
                .all(|flag| names::number(names::TCP_FLAGS, flag.trim()).is_some())
            {
                diagnostic.help(format!(
                    "to ask that {text} be set, write \"{text}/{text}\""
                ));
            }
            return None;
        };
        let (mask, value) = (self.flag_list(node, mask)?, self.flag_list(node, value)?);
        if mask == 0 || value & !mask != 0 {
            let message = "`tcp-flags` asks for a flag that is not in its mask, so never matches";
            self.sink.error(node.place, message);
            return None;
        }
        Some((mask, value))
    }

    fn flag_list(&mut self, node: &Node, text: &str) -> Option<u8> {
        if text.trim() == "none" {
            return Some(0);
        }
        let mut flags = 0;
        for name in text.split(',').map(str::trim) {
            match names::number(names::TCP_FLAGS, name) {
                Some(bit) => flags |= bit,
                None => {
                    self.unknown(node.place, "TCP flag", name, names(names::TCP_FLAGS));
                    return None;
                }
            }
        }
        Some(flags)
    }

    pub(super) fn dscp(&mut self, node: &Node) -> Option<u64> {
        let values = self.values(node, "dscp")?;
        let points = self.each(&values, |this, node, text| {
            let number = parse_number(text)
                .and_then(|n| u8::try_from(n).ok())
                .filter(|n| *n < 64);
            let point = names::number(names::DSCP, text).or(number);
            if point.is_none() {
                this.unknown(node.place, "code point", text, names(names::DSCP));
            }
            point
        })?;
        let mask = points
            .into_iter()
            .fold(0u64, |mask, point| mask | 1 << point);
        Some(if values.negated { !mask } else { mask })
    }

    pub(super) fn limit(&mut self, node: &Node) -> Option<Limit> {
        let text = self.scalar(node, "`limit`")?;
        let words: Vec<_> = text.split_whitespace().collect();
        let (words, per) = match words[..] {
            [ref words @ .., "per", per] => (words, self.per(node, "limit", per)?),
            _ => (&words[..], Per::Rule),
        };
        let (rate, burst) = match *words {
            [rate] => (rate, "5"),
            [rate, "burst", burst] | [rate, "burst", burst, "packets"] => (rate, burst),
            _ => return self.bad_limit(node, text),
        };
        let number = |text: &str| parse_number(text).filter(|n| (1..=10_000_000).contains(n));
        let Some((rate, unit)) = rate.split_once('/') else {
            return self.bad_limit(node, text);
        };
        let units = [
            ("second", 1u64),
            ("minute", 60),
            ("hour", 3600),
            ("day", 86_400),
        ];
        let Some(seconds) = names::number(&units, unit) else {
            self.unknown(node.place, "unit of time", unit, names(&units));
            return None;
        };
        let (Some(rate), Some(burst)) = (number(rate), number(burst)) else {
            return self.bad_limit(node, text);
        };
        let period_nanos = seconds * 1_000_000_000;
        self.keyed_limits += usize::from(per != Per::Rule);
        if self.keyed_limits == MAX_KEYED_LIMITS + 1 && per != Per::Rule {
            let message =
                format!("more than {MAX_KEYED_LIMITS} rules with a `limit` by address or zone");
            self.sink.error(node.place, message);
        }
        Some(Limit {
            rate: rate as u32,
            period_nanos,
            burst: burst as u32,
            per,
        })
    }

    fn bad_limit<T>(&mut self, node: &Node, text: &str) -> Option<T> {
        self.sink
            .error(node.place, format!("`{text}` is not a limit"))
            .help(
                "write \"5/second\", \"5/second burst 10\" or \"5/second burst 10 per source\"; units \
                 are second, minute, hour, day",
            );
        None
    }
}
