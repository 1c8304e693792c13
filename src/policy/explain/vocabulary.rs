//! The words for what packets have, as `explain`, `trace` and `capture` take them: each read alone, with
//! what was probably meant where it cannot be. Pure.

use crate::conntrack::helper::HelperId;
use crate::conntrack::types::{CtState, Dir};
use crate::helpers::INFOS;
use crate::policy::PortId;
use crate::policy::diagnostic;
use crate::policy::model::Policy;
use crate::policy::names::{self, names, number, parse_number};

/// The key that a word without `=` is a value of: a protocol, a TCP flag, a direction.
pub fn key_of(word: &str) -> Option<&'static str> {
    match word {
        "reply" | "original" => Some("dir"),
        _ if number(names::TCP_FLAGS, word).is_some() => Some("flags"),
        _ if number(names::PROTOCOLS, word).is_some() => Some("proto"),
        _ => None,
    }
}

/// Words that [`key_of`] knows, to guess what was meant.
pub fn bare_words() -> impl Iterator<Item = &'static str> {
    let flags = names(names::TCP_FLAGS);
    names(names::PROTOCOLS).chain(flags).chain(["reply"])
}

/// The candidate that `word` is most likely a slip of.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    diagnostic::nearest(word, candidates)
}

/// What is said of a `word` that is no `what`.
pub fn unknown(what: &str, word: &str, near: Option<String>) -> String {
    match near {
        Some(near) => format!("unknown {what} `{word}`; did you mean `{near}`?"),
        None => format!("unknown {what} `{word}`"),
    }
}

fn no<'c>(what: &str, word: &str, known: impl IntoIterator<Item = &'c str>) -> String {
    unknown(what, word, nearest(word, known).map(str::to_owned))
}

/// A number up to `max`.
pub fn up_to(max: u64, value: &str) -> Result<u64, String> {
    parse_number(value)
        .filter(|number| *number <= max)
        .ok_or_else(|| format!("not a number from 0 to {max}"))
}

/// A port of `policy`, by its name.
pub fn port(value: &str, policy: &Policy) -> Result<PortId, String> {
    let ports = || policy.ports.iter().map(|port| port.name.as_str());
    let at = ports().position(|name| name == value);
    at.map(|at| PortId(at as u8)).ok_or_else(|| {
        let known: Vec<_> = ports().collect();
        format!(
            "{}; ports are {}",
            no("port", value, ports()),
            known.join(", ")
        )
    })
}

/// A protocol, by its name or number.
pub fn protocol(value: &str) -> Result<u8, String> {
    let known = number(names::PROTOCOLS, value);
    let plain = parse_number(value).and_then(|n| u8::try_from(n).ok());
    known
        .or(plain)
        .ok_or_else(|| no("protocol", value, names(names::PROTOCOLS)))
}

/// TCP flags as bits: one or more names, or `none`.
pub fn flags(value: &str) -> Result<u8, String> {
    let mut flags = 0;
    for flag in value.split(',').filter(|flag| *flag != "none") {
        flags |= number(names::TCP_FLAGS, flag)
            .ok_or_else(|| no("TCP flag", flag, names(names::TCP_FLAGS)))?;
    }
    Ok(flags)
}

/// A state.
pub fn state(value: &str) -> Result<CtState, String> {
    let state = CtState::ALL.into_iter().find(|state| state.name() == value);
    state.ok_or_else(|| no("state", value, CtState::ALL.map(CtState::name)))
}

/// A direction.
pub fn dir(value: &str) -> Result<Dir, String> {
    match value {
        "original" => Ok(Dir::Original),
        "reply" => Ok(Dir::Reply),
        _ => Err("neither `original` nor `reply`".into()),
    }
}

/// A code point, by its name or number.
pub fn dscp(value: &str) -> Result<u8, String> {
    match number(names::DSCP, value) {
        Some(known) => Ok(known),
        None => match up_to(63, value) {
            Ok(number) => Ok(number as u8),
            Err(_) => Err(no("code point", value, names(names::DSCP))),
        },
    }
}

/// A helper, by its name.
pub fn helper(value: &str) -> Result<HelperId, String> {
    let at = INFOS.iter().position(|info| info.name == value);
    let helper = at.and_then(HelperId::new);
    helper.ok_or_else(|| no("helper", value, INFOS.iter().map(|info| info.name)))
}

/// An ICMP type of one version, by its name or number, and a code behind a slash, if one is given.
pub fn icmp(value: &str, v6: bool) -> Result<(u8, Option<u8>), String> {
    let table = if v6 {
        names::ICMPV6_TYPES
    } else {
        names::ICMP_TYPES
    };
    let small = |text: &str| parse_number(text).and_then(|n| u8::try_from(n).ok());
    let (ty, code) = match value.split_once('/') {
        Some((ty, code)) => (ty, Some(code)),
        None => (value, None),
    };
    let wrong = || {
        let near = nearest(ty, names(table)).map(str::to_owned);
        unknown("ICMP type", value, near)
    };
    let ty = number(table, ty).or(small(ty)).ok_or_else(wrong)?;
    match code {
        None => Ok((ty, None)),
        Some(code) => Ok((ty, Some(small(code).ok_or_else(wrong)?))),
    }
}
