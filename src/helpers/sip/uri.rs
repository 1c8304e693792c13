//! Words of SIP and SDP: numbers, addresses, and the URIs of a Contact header (RFC 3261, 20.10).
//!
//! A Contact header is a list, may be folded over many lines and may come more than once. It is
//! read a line at a time; only the one contact that matters is kept, not the text.

use crate::conntrack::helper::{Context, Refusal};
use crate::wire::{Addrs, proto};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where SIP is spoken if a URI names no port.
const SIP_PORT: u16 = 5060;

/// Where `needle` begins in `text`, whatever the case of its letters.
pub(super) fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len())
        .position(|window| window.eq_ignore_ascii_case(needle))
}

/// What follows `word` at the beginning of `text`, whatever the case of its letters.
pub(super) fn after<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word).then_some(rest)
}

/// The decimal number at the beginning of `text` and what follows it.
pub(super) fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(len);
    let push = |sum: u32, byte: &u8| sum.checked_mul(10)?.checked_add(u32::from(byte - b'0'));
    let value = digits.iter().try_fold(0, push)?;
    (len > 0).then_some((value, rest))
}

/// `text` without blanks at its beginning.
pub(super) fn trimmed(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'));
    &text[blanks.count()..]
}

/// The address of the control flow's family at the beginning of `text`, and what follows it.
pub(super) fn address<'a>(context: &Context, text: &'a [u8]) -> Option<(IpAddr, &'a [u8])> {
    match context.original.addrs {
        Addrs::V4 { .. } => address_v4(text).map(|(addr, rest)| (addr.into(), rest)),
        Addrs::V6 { .. } => address_v6(text).map(|(addr, rest)| (addr.into(), rest)),
    }
}

/// Four decimal numbers, however many zeros they begin with; no letter that could be a digit
/// follows, as in Linux's `in4_pton`.
fn address_v4(text: &[u8]) -> Option<(Ipv4Addr, &[u8])> {
    let mut octets = [0; 4];
    let mut rest = text;
    for (at, octet) in octets.iter_mut().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(b".")?;
        }
        let (value, more) = number(rest)?;
        *octet = u8::try_from(value).ok()?;
        rest = more;
    }
    match rest.first() {
        Some(b'.' | b'a'..=b'f' | b'A'..=b'F') => None,
        _ => Some((octets.into(), rest)),
    }
}

fn address_v6(text: &[u8]) -> Option<(Ipv6Addr, &[u8])> {
    /// Longer than any.
    const LIMIT: usize = 46;
    let fits = |byte: &&u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let len = text.iter().take(LIMIT).take_while(fits).count();
    let (word, rest) = text.split_at(len);
    let addr = std::str::from_utf8(word).ok()?.parse().ok()?;
    Some((addr, rest))
}

/// The address and port of a URI's host part, and what follows it. A port has five digits at most.
fn host<'a>(context: &Context, text: &'a [u8]) -> Option<(IpAddr, u16, &'a [u8])> {
    let (addr, rest) = match context.original.addrs {
        Addrs::V4 { .. } => address(context, text)?,
        Addrs::V6 { .. } => {
            let (addr, rest) = address(context, text.strip_prefix(b"[")?)?;
            (addr, rest.strip_prefix(b"]")?)
        }
    };
    let Some(digits) = rest.strip_prefix(b":") else {
        return Some((addr, SIP_PORT, rest));
    };
    let (port, rest) = number(digits).filter(|(_, rest)| digits.len() - rest.len() <= 5)?;
    Some((addr, u16::try_from(port).ok()?, rest))
}

/// One contact.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Contact {
    /// What its parameter `expires` says, in seconds.
    expires: u32,
    /// Its port.
    pub(super) port: u16,
    /// Where in the list the reader is.
    phase: Phase,
    flags: u8,
}

/// The contact is there.
const PRESENT: u8 = 1;
/// Its address is that of the end that registers.
const OWN: u8 = 2;
/// It is to be reached by another transport protocol than the control flow's.
const ELSEWHERE: u8 = 4;
/// It has a parameter `expires`.
const EXPIRES: u8 = 8;
/// Which is no number.
const SPOILED: u8 = 16;

/// Where in a list of contacts the reader is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(transparent)]
struct Phase(u8);

impl Phase {
    /// Before a URI.
    const URI: Self = Self(0);
    /// Behind an address.
    const PARAMETERS: Self = Self(1);
    /// Behind a URI without an address, or with a port that may not be named: what follows in this
    /// header does not count.
    const OVER: Self = Self(2);
}

impl Contact {
    pub(super) fn present(&self) -> bool {
        self.flags & PRESENT != 0
    }

    /// Whether it is the end that registers, by the control flow's own protocol.
    pub(super) fn own(&self) -> bool {
        self.flags & OWN != 0
    }

    pub(super) fn elsewhere(&self) -> bool {
        self.flags & ELSEWHERE != 0
    }

    /// Whether it says how long it is valid in a way that means nothing.
    pub(super) fn spoiled(&self) -> bool {
        self.flags & SPOILED != 0
    }

    /// How long it is valid, if it says so.
    pub(super) fn expires(&self) -> Option<u32> {
        (self.flags & EXPIRES != 0).then_some(self.expires)
    }

    /// What stands between the address and the next contact.
    fn parameters(&mut self, text: &[u8], proto: u8) {
        if let Some(at) = find(text, b"transport=") {
            let value = &text[at + b"transport=".len()..];
            let same = match proto {
                proto::TCP => b"tcp",
                _ => b"udp",
            };
            if after(value, same).is_none() {
                self.flags |= ELSEWHERE;
            }
        }
        if let Some(at) = find(text, b"expires=").filter(|_| self.expires().is_none()) {
            let value = &text[at + b"expires=".len()..];
            self.flags |= EXPIRES;
            match number(value) {
                Some((value, _)) => self.expires = value,
                None => self.flags |= SPOILED,
            }
        }
    }
}

/// The contacts of one message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Contacts {
    /// The one being read.
    current: Contact,
    /// The one that matters.
    chosen: Contact,
    /// One that was passed over is valid as long as the header Expires says: if that is no time at
    /// all, nothing behind it counts.
    passed: u8,
    /// One has a port that may not be named.
    low: u8,
    spare: [u8; 2],
}

/// Which contact of a message matters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// Of a request, the first.
    First,
    /// Of a response, the first at this port, or that is no longer valid, or makes no sense.
    Port(u16),
}

impl Contacts {
    /// Reads one line of the header; `whose` is the address of the end that registers.
    pub(super) fn read(&mut self, context: &Context, whose: IpAddr, wanted: Wanted, text: &[u8]) {
        let mut text = text;
        loop {
            let comma = text.iter().position(|&byte| byte == b',');
            match self.current.phase {
                Phase::URI => {
                    let Some(at) = find(text, b"sip:") else {
                        return;
                    };
                    let uri = &text[at + b"sip:".len()..];
                    let user = uri.iter().position(|&byte| byte == b'@');
                    let place = user.map_or(uri, |at| &uri[at + 1..]);
                    self.current.phase = Phase::OVER;
                    let Some((addr, port, rest)) = host(context, place) else {
                        return;
                    };
                    if let Err(why) = context.may_name(port) {
                        self.low |= u8::from(why == Refusal::LowPort);
                        return;
                    }
                    self.current = Contact {
                        expires: 0,
                        port,
                        flags: if addr == whose {
                            PRESENT | OWN
                        } else {
                            PRESENT
                        },
                        phase: Phase::PARAMETERS,
                    };
                    text = rest;
                }
                Phase::PARAMETERS => {
                    let own = &text[..comma.unwrap_or(text.len())];
                    self.current.parameters(own, context.original.proto);
                    let Some(comma) = comma else {
                        return;
                    };
                    self.end(wanted);
                    text = &text[comma + 1..];
                }
                _ => return,
            }
        }
    }

    /// The contact being read, if any, is complete, and so may be the header.
    pub(super) fn end(&mut self, wanted: Wanted) {
        let one = std::mem::take(&mut self.current);
        if !one.present() || self.chosen.present() {
            return;
        }
        match wanted {
            Wanted::First => self.chosen = one,
            Wanted::Port(_) if !one.own() || one.elsewhere() => {}
            Wanted::Port(_) if one.spoiled() => self.chosen = one,
            Wanted::Port(port) if one.port == port || one.expires() == Some(0) => self.chosen = one,
            Wanted::Port(_) => self.passed |= u8::from(one.expires().is_none()),
        }
    }

    /// Whether a contact was passed over because of its port.
    pub(super) fn low(&self) -> bool {
        self.low != 0
    }

    /// The contact that matters.
    pub(super) fn first(&self) -> Option<Contact> {
        Some(self.chosen).filter(Contact::present)
    }

    /// For how many seconds a response says that the contact at `port` is valid; `default` is what
    /// its header Expires says.
    pub(super) fn confirmed(&self, port: u16, default: u32) -> Option<u32> {
        let contact = self.first().filter(|contact| contact.port == port)?;
        let seconds = contact.expires().unwrap_or(default);
        let stopped = self.passed != 0 && default == 0;
        (seconds != 0 && !stopped).then_some(seconds)
    }
}
