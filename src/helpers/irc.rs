//! IRC: the connections that clients offer each other (DCC, the client-to-client protocol).
//!
//! A client says to another, through the server, where it listens:
//! `PRIVMSG bob :\x01DCC SEND file 167837697 5000 1024\x01`, the address as one decimal number. From
//! anybody a connection to there is then expected. What is accepted is what Linux 6.12's
//! nf_conntrack_irc accepts, a line at a time, and names in quotes besides. The server's lines are
//! not read: what they offer, somebody else offers.
//!
//! Life-cycle: one a flow. Concurrency: pure.

use super::{Helper, Line, Lines, Memory, Next};
use crate::base::time::Span;
use crate::conntrack::helper::{Class, Context, Expect, Heard, Info, Refusal};
use crate::conntrack::types::{Dir, proto};
use std::net::Ipv4Addr;

/// The helper.
pub static IRC: Helper = Helper {
    info: Info {
        name: "irc",
        protos: &[proto::TCP],
        ipv6: false,
        classes: &[Class {
            name: "irc",
            max: 8,
            timeout: Span::secs(300),
        }],
    },
    datagram: None,
    stream: Some(Lines { eager: true, read }),
};

/// What is offered, in the words of nf_conntrack_irc.
const OFFERS: [&[u8]; 5] = [b"SEND ", b"CHAT ", b"MOVE ", b"TSEND ", b"SCHAT "];

fn read(context: &Context, _: &mut Memory, line: &Line<'_>, heard: &mut Heard) -> Next {
    let offer = match context.dir {
        Dir::Original => offer(line.text),
        Dir::Reply => None,
    };
    match offer.map(parse) {
        None => {}
        Some(None) => heard.refuse(Refusal::Malformed),
        Some(Some(_)) if line.cut => heard.refuse(Refusal::Malformed),
        Some(Some((addr, port))) => {
            heard.parsed();
            match expectation(context, addr, port) {
                Ok(Some(expect)) => heard.expect(expect),
                Ok(None) => {}
                Err(why) => heard.refuse(why),
            }
        }
    }
    Next::Line
}

/// The arguments of an offer; `None` if the line is none.
fn offer(text: &[u8]) -> Option<&[u8]> {
    let blanks = text.iter().take_while(|byte| b" \r".contains(byte));
    let text = &text[blanks.count()..];
    let (command, rest) = text.split_first_chunk::<8>()?;
    if !command.eq_ignore_ascii_case(b"PRIVMSG ") {
        return None;
    }
    // The message is what the first colon behind a blank begins.
    let colon = rest.windows(2).position(|pair| pair == b" :")?;
    let dcc = rest[colon + 2..].strip_prefix(b"\x01DCC ")?;
    OFFERS.iter().find_map(|word| dcc.strip_prefix(*word))
}

/// `name address port`, whatever is behind.
fn parse(arguments: &[u8]) -> Option<(Ipv4Addr, u16)> {
    let rest = behind_name(arguments)?;
    let (addr, rest) = decimal(rest)?;
    let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
    let (port, _) = decimal(&rest[blanks..])?;
    Some((Ipv4Addr::from(addr), u16::try_from(port).ok()?))
}

/// What is behind the first argument and the blank that ends it. One in quotes can have blanks.
fn behind_name(arguments: &[u8]) -> Option<&[u8]> {
    let quoted = arguments.strip_prefix(b"\"").and_then(|name| {
        let end = name.windows(2).position(|pair| pair == b"\" ")?;
        Some(&name[end + 2..])
    });
    quoted.or_else(|| {
        let blank = arguments.iter().position(|byte| *byte == b' ')?;
        Some(&arguments[blank + 1..])
    })
}

/// A decimal number of 32 bits, and what is behind it.
fn decimal(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    let value = number.iter().try_fold(0_u32, |value, digit| {
        value.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
    })?;
    (!number.is_empty()).then_some((value, rest))
}

/// The flow that is expected where an offer names `addr` and `port`.
fn expectation(context: &Context, addr: Ipv4Addr, port: u16) -> Result<Option<Expect>, Refusal> {
    if port == 0 {
        // The other one shall listen, and will offer.
        return Ok(None);
    }
    let own = context.client().0;
    if !own.is_ipv4() {
        return Err(Refusal::WrongFamily);
    }
    if own != addr && !context.permissions.loose {
        return Err(Refusal::ForeignAddress);
    }
    context.may_name(port)?;
    Ok(Some(Expect::once(proto::TCP, None, addr.into(), port)))
}

#[cfg(test)]
mod tests;
