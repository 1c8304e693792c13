//! The words that conntrack(8) takes as values, read as it reads them (1.4.7), but that what is no number
//! is an error here, where it is 0 to the program. Pure, but that /etc/protocols is read for names that the
//! program has no options for.

use super::Refusal;
use crate::conntrack::event::Kind;
use crate::control::filter::Net;
use crate::control::filter::flows::{Mark, Status};
use crate::control::protocol::proto_number;
use crate::control::render::{Form, Style};
use std::fs;
use std::net::{IpAddr, SocketAddr};

type Result<T> = std::result::Result<T, Refusal>;

/// What a status can be called, in the order in which beginnings of words are tried.
const STATUSES: [(&str, Option<Status>); 7] = [
    ("ASSURED", Some(Status::Assured)),
    ("SEEN_REPLY", Some(Status::SeenReply)),
    ("UNSET", None),
    ("FIXED_TIMEOUT", Some(Status::FixedTimeout)),
    ("EXPECTED", Some(Status::Expected)),
    ("OFFLOAD", Some(Status::Offload)),
    ("HW_OFFLOAD", Some(Status::HwOffload)),
];

/// What kinds of events can be called.
const KINDS: [(&str, &[Kind]); 4] = [
    ("ALL", &[]),
    ("NEW", &[Kind::New]),
    ("UPDATES", &[Kind::Update]),
    ("DESTROY", &[Kind::Destroy]),
];

/// Something to ask of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Xml,
    Extended,
    Timestamp,
    Id,
    Ktimestamp,
    /// Labels, of which there are none, and who asked for a deletion, which is not kept.
    Nothing,
    Save,
    Json,
}

/// What output can be called, in the order in which beginnings of words are tried.
const WISHES: [(&str, Wish); 9] = [
    ("xml", Wish::Xml),
    ("extended", Wish::Extended),
    ("timestamp", Wish::Timestamp),
    ("id", Wish::Id),
    ("ktimestamp", Wish::Ktimestamp),
    ("labels", Wish::Nothing),
    ("userspace", Wish::Nothing),
    ("save", Wish::Save),
    ("json", Wish::Json),
];

/// The first of `known` that begins with `word`, in any case.
fn beginning<T: Copy>(word: &str, known: &[(&str, T)]) -> Result<T> {
    let begins = |name: &str| {
        let start = name.get(..word.len());
        !word.is_empty() && start.is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    let found = known.iter().find(|(name, _)| begins(name));
    found.map(|(_, what)| *what).ok_or_else(|| {
        let known: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        Refusal::usage(format!(
            "bad parameter `{word}': not one of {}",
            known.join(", ")
        ))
    })
}

/// A number in C's notation: decimal, octal after 0, hexadecimal after 0x; `max` at most.
pub(super) fn number(option: &str, word: &str, max: u64) -> Result<u64> {
    let parsed = match word.strip_prefix('0') {
        Some(rest) if rest.starts_with(['x', 'X']) => u64::from_str_radix(&rest[1..], 16),
        Some(rest) if !rest.is_empty() => u64::from_str_radix(rest, 8),
        _ => word.parse(),
    };
    let digits = word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let number = parsed.ok().filter(|number| digits && *number <= max);
    number.ok_or_else(|| {
        Refusal::usage(format!(
            "bad value `{word}' of {option}: not a number up to {max}"
        ))
    })
}

/// A decimal number, as ports and ICMP's fields are.
pub(super) fn decimal(option: &str, word: &str, max: u64) -> Result<u64> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let number = word.parse().ok().filter(|number| digits && *number <= max);
    number.ok_or_else(|| {
        Refusal::usage(format!(
            "bad value `{word}' of {option}: not a number up to {max}"
        ))
    })
}

/// A mark, and a mask if there is one.
pub(super) fn mark(word: &str) -> Result<Mark> {
    let number = |word| number("--mark", word, u32::MAX.into());
    let (value, mask) = match word.split_once('/') {
        Some((value, mask)) => (number(value)?, number(mask)?),
        None => (number(word)?, u32::MAX.into()),
    };
    Ok(Mark {
        value: value as u32,
        mask: mask as u32,
    })
}

/// A protocol by name or number.
pub(super) fn protocol(word: &str) -> Result<u8> {
    let by_number = || {
        number("--protonum", word, 255)
            .ok()
            .map(|number| number as u8)
    };
    let known = proto_number(word).filter(|_| !word.starts_with('0'));
    let found = known.or_else(|| listed(word)).or_else(by_number);
    found.ok_or_else(|| Refusal::usage(format!("`{word}' unsupported protocol")))
}

/// A protocol of protocols(5).
fn listed(word: &str) -> Option<u8> {
    let text = fs::read_to_string("/etc/protocols").ok()?;
    text.lines().find_map(|line| {
        let (line, _) = line.split_once('#').unwrap_or((line, ""));
        let mut words = line.split_whitespace();
        let (name, number) = (words.next()?, words.next()?);
        let called = name == word || words.any(|alias| alias == word);
        called.then(|| number.parse().ok())?
    })
}

/// An address.
pub(super) fn address(word: &str) -> Result<IpAddr> {
    let wrong = |_| Refusal::usage(format!("invalid IP address `{word}'"));
    word.parse().map_err(wrong)
}

/// An address, or those that begin like it.
pub(super) fn network(word: &str) -> Result<Net> {
    let wrong = || Refusal::usage("invalid netmask");
    match word.split_once('/') {
        Some((addr, prefix)) => {
            address(addr)?;
            let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
            digits
                .then(|| word.parse().ok())
                .flatten()
                .ok_or_else(wrong)
        }
        None => address(word).map(Net::host),
    }
}

/// An address, or an address and a port.
pub(super) fn nat(word: &str) -> Result<IpAddr> {
    match word.parse::<SocketAddr>() {
        Ok(both) => Ok(both.ip()),
        Err(_) => address(word),
    }
}

/// What must be true of a flow, and what must not.
pub(super) fn statuses(list: &str) -> Result<(Vec<Status>, Vec<Status>)> {
    let (mut set, mut unset) = (Vec::new(), Vec::new());
    for word in list.split(',') {
        if word.eq_ignore_ascii_case("UNREPLIED") {
            unset.push(Status::SeenReply);
            continue;
        }
        if ["SRC_NAT", "DST_NAT"]
            .iter()
            .any(|nat| nat.eq_ignore_ascii_case(word))
        {
            let text = format!("{word} is no status to choose flows by; use -n or -g");
            return Err(Refusal::failure(text));
        }
        let (word, list) = match word.strip_prefix('!') {
            Some(word) => (word, &mut unset),
            None => (word, &mut set),
        };
        let status = beginning(word, &STATUSES)?;
        list.push(
            status.ok_or_else(|| {
                Refusal::failure("UNSET says nothing of a flow: invalid parameters")
            })?,
        );
    }
    Ok((set, unset))
}

/// Kinds of events; none stands for all.
pub(super) fn kinds(lists: &[String]) -> Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    let mut all = false;
    for word in lists.iter().flat_map(|list| list.split(',')) {
        let some = beginning(word, &KINDS)?;
        all |= some.is_empty();
        kinds.extend(some);
    }
    Ok(if all { Vec::new() } else { kinds })
}

/// How to print, and whether as JSON instead.
pub(super) fn output(lists: &[String]) -> Result<(Style, bool)> {
    let words = lists.iter().flat_map(|list| list.split(','));
    let wishes: Result<Vec<Wish>> = words.map(|word| beginning(word, &WISHES)).collect();
    let wishes = wishes?;
    let has = |wish| wishes.contains(&wish);
    if has(Wish::Save) && wishes.iter().any(|wish| *wish != Wish::Save) {
        let text = "cannot combine save output with any other output type, use -o save only";
        return Err(Refusal::failure(text));
    }
    let form = match (has(Wish::Save), has(Wish::Xml)) {
        (true, _) => Form::Save,
        (_, true) => Form::Xml,
        _ => Form::Line,
    };
    let style = Style {
        form,
        extended: has(Wish::Extended),
        id: has(Wish::Id),
        ktimestamp: has(Wish::Ktimestamp),
        timestamp: has(Wish::Timestamp),
    };
    Ok((style, has(Wish::Json)))
}
