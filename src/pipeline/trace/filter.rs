//! Which packets are meant: words that must all hold of a packet, each with one value or several of
//! which one must hold. The words are those of `explain`, where a packet is described by them, and those
//! that only a packet that was judged has: `verdict=`, `reason=`, `rule=`.
//!
//! Life-cycle: read once, then asked by workers: without allocation, in two steps, so that most packets
//! are passed over before they are judged. Concurrency: reads only.

use super::Sighting;
use crate::conntrack::types::{CtState, Dir, proto};
use crate::helpers::INFOS;
use crate::pipeline::{DropReason, Outcome};
use crate::policy::{
    AddrSet, Compiled, IpRange, Policy, PortId, U16Set,
    vocabulary::{self as words, nearest, unknown},
};
use crate::wire::{Addrs, L3, L4, NO_VLAN, Parsed};

/// Words with a value: `iif=wan`.
const KEYS: [&str; 20] = [
    "iif", "oif", "saddr", "daddr", "addr", "proto", "sport", "dport", "port", "type", "flags",
    "ct", "dir", "vlan", "length", "dscp", "mark", "helper", "verdict", "reason",
];
/// The last of them, whose values are names of the policy.
const RULE: &str = "rule";
/// Verdicts; a bare one is a word too.
const VERDICTS: [&str; 4] = ["accept", "drop", "reject", "hold"];
/// Words that one filter may have.
const MOST: usize = 64;

/// What one word asks.
#[derive(Clone, Debug)]
enum Term {
    Iif(u64),
    Oif(u64),
    Saddr(AddrSet),
    Daddr(AddrSet),
    Addr(AddrSet),
    Proto(Vec<u8>),
    Sport(U16Set),
    Dport(U16Set),
    Port(U16Set),
    /// Version 6, type, code.
    Icmp(Vec<(bool, u8, Option<u8>)>),
    /// All of these are set.
    Flags(u8),
    Vlan(U16Set),
    Length(U16Set),
    Dscp(u64),
    /// Bits of states.
    Ct(u8),
    Dir(Dir),
    Mark(Vec<u32>),
    Helper(Vec<&'static str>),
    Verdict(Vec<&'static str>),
    /// By number.
    Reason(u32),
    /// Names, or how names begin.
    Rule(Vec<(String, bool)>),
}

impl Term {
    /// Whether the packet alone answers it.
    fn is_early(&self) -> bool {
        use Term::{Ct, Dir, Helper, Mark, Reason, Rule, Verdict};
        !matches!(
            self,
            Ct(_) | Dir(_) | Mark(_) | Helper(_) | Verdict(_) | Reason(_) | Rule(_)
        )
    }
}

/// Which packets are meant; the empty one means all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// What the packet alone answers.
    early: Vec<Term>,
    /// What must be judged first.
    late: Vec<Term>,
}

impl Filter {
    /// The filter that `words` describe; names are those of `policy`, of which `compiled` was made.
    ///
    /// # Errors
    /// Everything about the words that is wrong.
    pub fn read(
        words: &[String],
        policy: &Policy,
        compiled: &Compiled,
    ) -> Result<Self, Vec<String>> {
        if words.len() > MOST {
            return Err(vec![format!("more than {MOST} words")]);
        }
        let (mut filter, mut errors) = (Self::default(), Vec::new());
        for word in words {
            match term(word, policy, compiled) {
                Ok(term) if term.is_early() => filter.early.push(term),
                Ok(term) => filter.late.push(term),
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(filter),
            false => Err(errors),
        }
    }

    /// Whether a packet that came in by `iif` may be meant, before it is judged.
    pub fn may_mean(&self, policy: &Compiled, iif: PortId, packet: &Parsed) -> bool {
        let oif = policy.peer(iif);
        self.early.iter().all(|term| early(term, iif, oif, packet))
    }

    /// Whether a packet that may be is meant, after it was judged.
    pub fn means(&self, policy: &Compiled, outcome: &Outcome, seen: &Sighting) -> bool {
        self.late
            .iter()
            .all(|term| late(term, policy, outcome, seen))
    }

    /// Whether a packet is meant that was lost for `reason` apart from any judgement, on its way in by
    /// `port` or, if `leaving`, out by it.
    pub fn means_lost(
        &self,
        policy: &Compiled,
        (port, leaving): (PortId, bool),
        packet: &Parsed,
        outcome: &Outcome,
    ) -> bool {
        let (iif, oif) = match leaving {
            true => (policy.peer(port).unwrap_or(port), Some(port)),
            false => (port, policy.peer(port)),
        };
        let packet = self.early.iter().all(|term| early(term, iif, oif, packet));
        packet && self.means(policy, outcome, &Sighting::default())
    }
}

fn bit(mask: u64, at: u8) -> bool {
    at < 64 && mask >> at & 1 == 1
}

fn early(term: &Term, iif: PortId, oif: Option<PortId>, packet: &Parsed) -> bool {
    let ip = matches!(packet.l3, L3::Ipv4 | L3::Ipv6);
    let sport = |set: &U16Set| packet.sport().is_some_and(|port| set.contains(port));
    let dport = |set: &U16Set| packet.dport().is_some_and(|port| set.contains(port));
    let addr = |set: &AddrSet, source: bool| match packet.addrs {
        Addrs::V4 { src, dst } => set.contains_v4(if source { src } else { dst }),
        Addrs::V6 { src, dst } => set.contains_v6(if source { src } else { dst }),
    };
    match term {
        Term::Iif(mask) => bit(*mask, iif.0),
        Term::Oif(mask) => oif.is_some_and(|oif| bit(*mask, oif.0)),
        Term::Saddr(set) => ip && addr(set, true),
        Term::Daddr(set) => ip && addr(set, false),
        Term::Addr(set) => ip && (addr(set, true) || addr(set, false)),
        Term::Proto(any) => ip && any.contains(&packet.proto),
        Term::Sport(set) => sport(set),
        Term::Dport(set) => dport(set),
        Term::Port(set) => sport(set) || dport(set),
        Term::Icmp(any) => match packet.l4 {
            L4::Icmp { ty, code, .. } => any.iter().any(|(v6, want, with)| {
                (*v6, *want) == (packet.proto == proto::ICMPV6, ty)
                    && with.is_none_or(|with| with == code)
            }),
            _ => false,
        },
        Term::Flags(all) => packet.tcp_flags().is_some_and(|flags| flags & all == *all),
        Term::Vlan(set) => packet.vlan != NO_VLAN && set.contains(packet.vlan),
        Term::Length(set) => ip && set.contains(packet.ip_len()),
        Term::Dscp(mask) => ip && bit(*mask, packet.dscp),
        _ => true,
    }
}

fn late(term: &Term, policy: &Compiled, outcome: &Outcome, seen: &Sighting) -> bool {
    let tracked = seen.tracked.or(outcome.tracked);
    let flow = seen.after.or(seen.before);
    match term {
        Term::Ct(mask) => tracked.is_some_and(|it| mask & it.state.bit() != 0),
        Term::Dir(dir) => tracked.is_some_and(|it| it.dir == Some(*dir)),
        Term::Mark(any) => flow.is_some_and(|flow| any.contains(&flow.mark())),
        Term::Helper(any) => {
            flow.is_some_and(|flow| flow.helper().is_some_and(|it| any.contains(&it)))
        }
        Term::Verdict(any) => any.contains(&outcome.disposition.verdict()),
        Term::Reason(mask) => {
            let reason = outcome.disposition.reason();
            reason.is_some_and(|reason| mask >> reason as u32 & 1 == 1)
        }
        Term::Rule(any) => outcome.by.name(policy).is_some_and(|name| {
            any.iter().any(|(want, whole)| match whole {
                true => name == want,
                false => name.starts_with(want.as_str()),
            })
        }),
        _ => true,
    }
}

/// What `word` asks.
fn term(word: &str, policy: &Policy, compiled: &Compiled) -> Result<Term, String> {
    let (key, value) = match word.split_once('=') {
        Some((key, value)) => (key, value),
        None if word == "dropped" => ("verdict", "drop,reject"),
        None => (bare(word)?, word),
    };
    let keys = || KEYS.iter().copied().chain([RULE]);
    if !keys().any(|known| known == key) {
        let near = nearest(key, keys()).map(|near| format!("{near}={value}"));
        let mut error = unknown("word", word, near);
        if !error.contains("did you mean") {
            let known: Vec<_> = keys().collect();
            error += &format!("; known are {}", known.join("=, ") + "=");
        }
        return Err(error);
    }
    valued(key, value, policy, compiled).map_err(|error| format!("`{word}`: {error}"))
}

/// The key of a word without one.
fn bare(word: &str) -> Result<&'static str, String> {
    let states = CtState::ALL.map(CtState::name);
    if let Some(key) = words::key_of(word) {
        return Ok(key);
    }
    if VERDICTS.contains(&word) {
        return Ok("verdict");
    }
    if states.contains(&word) {
        return Ok("ct");
    }
    let known = words::bare_words().chain(VERDICTS).chain(states);
    let known = known.chain(["dropped"]).chain(KEYS).chain([RULE]);
    let near = nearest(word, known).map(|near| match KEYS.contains(&near) || near == RULE {
        true => format!("{near}=VALUE"),
        false => near.to_owned(),
    });
    Err(unknown("word", word, near))
}

fn valued(key: &str, value: &str, policy: &Policy, compiled: &Compiled) -> Result<Term, String> {
    if value.is_empty() {
        return Err("a value is missing".into());
    }
    fn each<T>(value: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        value.split(',').map(read).collect()
    }
    let ports = || -> Result<u64, String> {
        let ports = each(value, |name| words::port(name, policy))?;
        Ok(ports.iter().fold(0, |mask, port| mask | 1 << port.0))
    };
    let addrs = || -> Result<AddrSet, String> {
        let read = |text: &str| IpRange::parse(text).map_err(|bad| bad.message);
        Ok(AddrSet::new(each(value, read)?))
    };
    let numbers = |max: u64| -> Result<U16Set, String> {
        let one = |text: &str| words::up_to(max, text).map(|number| number as u16);
        let read = |text: &str| match text.split_once('-') {
            Some((low, high)) => {
                let (low, high) = (one(low)?, one(high)?);
                match low <= high {
                    true => Ok((low, high)),
                    false => Err(format!("{low} is more than {high}")),
                }
            }
            None => one(text).map(|number| (number, number)),
        };
        Ok(U16Set::new(each(value, read)?))
    };
    Ok(match key {
        "iif" => Term::Iif(ports()?),
        "oif" => Term::Oif(ports()?),
        "saddr" => Term::Saddr(addrs()?),
        "daddr" => Term::Daddr(addrs()?),
        "addr" => Term::Addr(addrs()?),
        "proto" => Term::Proto(each(value, words::protocol)?),
        "sport" => Term::Sport(numbers(65_535)?),
        "dport" => Term::Dport(numbers(65_535)?),
        "port" => Term::Port(numbers(65_535)?),
        "type" => Term::Icmp(each(value, icmp)?.concat()),
        "flags" => Term::Flags(words::flags(value)?),
        "vlan" => Term::Vlan(numbers(4094)?),
        "length" => Term::Length(numbers(65_535)?),
        "dscp" => {
            let points = each(value, words::dscp)?;
            Term::Dscp(points.iter().fold(0, |mask, point| mask | 1 << point))
        }
        "ct" => {
            let states = each(value, words::state)?;
            Term::Ct(states.iter().fold(0, |mask, state| mask | state.bit()))
        }
        "dir" => Term::Dir(words::dir(value)?),
        "mark" => {
            let read = |text: &str| words::up_to(u32::MAX.into(), text).map(|mark| mark as u32);
            Term::Mark(each(value, read)?)
        }
        "helper" => {
            let read = |text: &str| {
                let helper = words::helper(text)?;
                let info = INFOS.get(helper.index());
                Ok(info.map_or("", |info| info.name))
            };
            Term::Helper(each(value, read)?)
        }
        "verdict" => Term::Verdict(each(value, |text| {
            let known = VERDICTS.into_iter().find(|verdict| *verdict == text);
            known.ok_or_else(|| no("verdict", text, &VERDICTS))
        })?),
        "reason" => {
            let names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
            let read = |text: &str| {
                let at = names.iter().position(|name| *name == text);
                at.ok_or_else(|| no("reason", text, &names))
            };
            let reasons = each(value, read)?;
            Term::Reason(reasons.iter().fold(0, |mask, at| mask | 1 << at))
        }
        _ => Term::Rule(each(value, |text| rule(text, compiled))?),
    })
}

/// An ICMP type of whatever version has it.
fn icmp(text: &str) -> Result<Vec<(bool, u8, Option<u8>)>, String> {
    let of = |v6| words::icmp(text, v6).map(|(ty, code)| (v6, ty, code));
    match (of(false), of(true)) {
        (Err(error), Err(_)) => Err(error),
        (four, six) => Ok(four.into_iter().chain(six).collect()),
    }
}

/// A rule's name, or with `*` at its end how names begin: then what is left, and `false`.
fn rule(text: &str, compiled: &Compiled) -> Result<(String, bool), String> {
    let (want, whole) = match text.strip_suffix('*') {
        Some(head) => (head, false),
        None => (text, true),
    };
    let rules: Vec<_> = compiled.rules().map(|rule| rule.id).collect();
    let names = rules.iter().map(|id| compiled.rule_name(*id));
    let names: Vec<_> = names
        .chain(["bridge/ethertypes", "bridge/neighbour-discovery"])
        .collect();
    let known = names.iter().any(|name| match whole {
        true => *name == want,
        false => name.starts_with(want),
    });
    match known {
        true => Ok((want.to_owned(), whole)),
        false => Err(no("rule", text, &names)),
    }
}

fn no(what: &str, word: &str, known: &[&str]) -> String {
    let near = nearest(word, known.iter().copied());
    match near {
        Some(near) => unknown(what, word, Some(near.to_owned())),
        None if known.len() <= 20 => {
            format!(
                "{}; known are {}",
                unknown(what, word, None),
                known.join(", ")
            )
        }
        None => unknown(what, word, None),
    }
}
