//! FTP: the data connections that a control connection announces (RFC 959, RFC 1123, RFC 2428).
//!
//! The client announces its own port with `PORT` or `EPRT`, the server its own in the reply 227 or
//! 229. From the other host, from whichever port, a connection to that port is then expected. What
//! is accepted is what Linux 6.12's nf_conntrack_ftp accepts, a line at a time.
//!
//! Life-cycle: one a flow, from the segment after the first line's end. Concurrency: pure.

use super::{Helper, Line, Lines, Memory, Next};
use crate::base::time::Span;
use crate::conntrack::helper::{Class, Context, Expect, Heard, Info, Refusal};
use crate::conntrack::types::{Dir, proto};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The helper.
pub static FTP: Helper = Helper {
    info: Info {
        name: "ftp",
        protos: &[proto::TCP],
        ipv6: true,
        classes: &[Class {
            name: "ftp",
            max: 1,
            timeout: Span::secs(300),
        }],
    },
    datagram: None,
    stream: Some(Lines { eager: false, read }),
};

/// What is remembered of a control connection.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Replies {
    /// The code of the reply of several lines that is not at its end; zeros between replies.
    open: [u8; 3],
}

/// What a command or reply announces: an address, if it names one, and a port.
type Announced = (Option<IpAddr>, u16);

fn read(context: &Context, memory: &mut Memory, line: &Line<'_>, heard: &mut Heard) -> Next {
    let replies = memory.overlay::<Replies>();
    let announced = match context.dir {
        Dir::Original => command(line, replies),
        Dir::Reply => reply(line, replies),
    };
    match announced {
        None => {}
        Some(_) if line.cut => heard.refuse(Refusal::Malformed),
        Some(Err(why)) => heard.refuse(why),
        Some(Ok(announced)) => {
            heard.parsed();
            match expectation(context, announced) {
                Ok(expect) => heard.expect(expect),
                Err(why) => heard.refuse(why),
            }
        }
    }
    Next::Line
}

/// What the client says; `None` if it is no announcement.
fn command(line: &Line<'_>, replies: &mut Replies) -> Option<Result<Announced, Refusal>> {
    let (keyword, rest) = line.text.split_at_checked(4)?;
    // Linux: all up to the first blank belongs to the keyword.
    let arguments = || {
        let blank = rest.iter().position(|byte| *byte == b' ');
        blank.map(|at| &rest[at + 1..]).ok_or(Refusal::Malformed)
    };
    if keyword.eq_ignore_ascii_case(b"PORT") {
        return Some(arguments().and_then(|numbers| {
            let (announced, rest) = host_port(numbers)?;
            let ends = match rest {
                [] => line.len == line.text.len() + 2,
                [next, ..] => *next == b'\r',
            };
            if ends {
                Ok(announced)
            } else {
                Err(Refusal::Malformed)
            }
        }));
    }
    if keyword.eq_ignore_ascii_case(b"EPRT") {
        return Some(arguments().and_then(extended_port));
    }
    if keyword.eq_ignore_ascii_case(b"PASV") || keyword.eq_ignore_ascii_case(b"EPSV") {
        // What it answers begins a reply, even if the end of one before it was missed.
        replies.open = [0; 3];
    }
    None
}

/// What the server says; `None` if it is no announcement.
fn reply(line: &Line<'_>, replies: &mut Replies) -> Option<Result<Announced, Refusal>> {
    let (code, rest) = line.text.split_first_chunk::<3>()?;
    if !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let between = replies.open == [0; 3];
    // RFC 959, section 4.2: such a reply ends with the line that has its code and no hyphen; the
    // lines between may begin with anything.
    if !between && replies.open != *code {
        return None;
    }
    match rest.split_first() {
        Some((b'-', _)) => {
            replies.open = *code;
            None
        }
        Some((b' ', text)) => {
            replies.open = [0; 3];
            match code {
                b"227" => Some(passive(text)),
                b"229" => Some(extended_passive(text)),
                _ => None,
            }
        }
        Some(_) => None,
        None => {
            replies.open = [0; 3];
            None
        }
    }
}

/// The flow that is expected where `announced` is said.
fn expectation(context: &Context, (addr, port): Announced) -> Result<Expect, Refusal> {
    let own = context.sender().0;
    let dst = addr.unwrap_or(own);
    if dst.is_ipv4() != own.is_ipv4() {
        return Err(Refusal::WrongFamily);
    }
    if dst != own && !context.permissions.loose {
        return Err(Refusal::ForeignAddress);
    }
    context.may_name(port)?;
    let src = Some(context.receiver().0);
    Ok(Expect::once(proto::TCP, src, dst, port))
}

/// Text of a reply 227: `h1,h2,h3,h4,p1,p2` begins at the first digit, in brackets or not (RFC
/// 1123, section 4.1.2.6).
fn passive(text: &[u8]) -> Result<Announced, Refusal> {
    let begin = text.iter().position(u8::is_ascii_digit);
    let (announced, rest) = host_port(&text[begin.ok_or(Refusal::Malformed)?..])?;
    match rest {
        [b',', ..] => Err(Refusal::Malformed),
        _ => Ok(announced),
    }
}

/// Text of a reply 229: `(|||port|)` with any delimiter (RFC 2428, section 3).
fn extended_passive(text: &[u8]) -> Result<Announced, Refusal> {
    let bracket = text.iter().position(|byte| *byte == b'(');
    match &text[bracket.ok_or(Refusal::Malformed)? + 1..] {
        [delimiter, second, third, port @ ..]
            if is_delimiter(*delimiter) && second == delimiter && third == delimiter =>
        {
            Ok((None, delimited_port(port, *delimiter)?))
        }
        _ => Err(Refusal::Malformed),
    }
}

/// Arguments of `EPRT`: `|1|10.1.0.1|2000|` or `|2|fd01::1|2000|` with any delimiter (RFC 2428,
/// section 2).
fn extended_port(arguments: &[u8]) -> Result<Announced, Refusal> {
    let [delimiter, family, second, rest @ ..] = arguments else {
        return Err(Refusal::Malformed);
    };
    if !is_delimiter(*delimiter) || second != delimiter {
        return Err(Refusal::Malformed);
    }
    let end = rest.iter().position(|byte| byte == delimiter);
    let (addr, port) = rest.split_at(end.ok_or(Refusal::Malformed)?);
    let addr = match family {
        b'1' => match numbers::<4>(addr, b'.')? {
            (octets, []) => IpAddr::V4(Ipv4Addr::from(octets)),
            _ => return Err(Refusal::Malformed),
        },
        b'2' => {
            let text = std::str::from_utf8(addr).map_err(|_| Refusal::Malformed)?;
            let addr: Ipv6Addr = text.parse().map_err(|_| Refusal::Malformed)?;
            IpAddr::V6(addr)
        }
        _ => return Err(Refusal::Malformed),
    };
    Ok((Some(addr), delimited_port(&port[1..], *delimiter)?))
}

/// `h1,h2,h3,h4,p1,p2` (RFC 959, section 4.1.2), and what is behind it.
fn host_port(text: &[u8]) -> Result<(Announced, &[u8]), Refusal> {
    let ([a, b, c, d, high, low], rest) = numbers::<6>(text, b',')?;
    let port = u16::from_be_bytes([high, low]);
    if port == 0 {
        return Err(Refusal::Malformed);
    }
    Ok(((Some(Ipv4Addr::new(a, b, c, d).into()), port), rest))
}

/// `N` numbers up to 255 with `separator` between them, and what is behind them.
fn numbers<const N: usize>(text: &[u8], separator: u8) -> Result<([u8; N], &[u8]), Refusal> {
    let (mut found, mut rest) = ([0; N], text);
    for (at, number) in found.iter_mut().enumerate() {
        if at > 0 {
            let (first, behind) = rest.split_first().ok_or(Refusal::Malformed)?;
            if *first != separator {
                return Err(Refusal::Malformed);
            }
            rest = behind;
        }
        (*number, rest) = decimal(rest)?;
    }
    Ok((found, rest))
}

/// A port and the delimiter behind it.
fn delimited_port(text: &[u8], delimiter: u8) -> Result<u16, Refusal> {
    match decimal::<u16>(text)? {
        (port, [end, ..]) if port != 0 && *end == delimiter => Ok(port),
        _ => Err(Refusal::Malformed),
    }
}

/// A decimal number that a `T` can be, and what is behind it.
fn decimal<T: TryFrom<u32>>(text: &[u8]) -> Result<(T, &[u8]), Refusal> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(Refusal::Malformed);
    }
    let value = number.iter().try_fold(0_u32, |value, digit| {
        value.checked_mul(10)?.checked_add(u32::from(digit - b'0'))
    });
    let value = value.and_then(|value| T::try_from(value).ok());
    Ok((value.ok_or(Refusal::Malformed)?, rest))
}

/// RFC 2428: printable, and (as Linux has it) no digit.
fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_graphic() && !byte.is_ascii_digit()
}

#[cfg(test)]
mod tests;
